//! URIs of resources, and templates of them (RFC 6570 level 1).

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How long the URI of a resource may be.
pub(crate) const URI_BYTES_MAX: usize = 2_048;
/// How many variables a template may have.
const VARIABLES_MAX: usize = 8;

/// The URI of a resource, as it is written: nothing about it is normalised (RFC 3986 §6.2.1).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ResourceUri(Arc<str>);

/// A template of URIs (RFC 6570 level 1): `{variable}` stands for one or more characters that are unreserved or
/// percent-encoded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UriTemplate {
    written: Arc<str>,
    prefix: String,
    /// The variables, each with what follows it.
    variables: Vec<(String, String)>,
}

/// Why a text is no URI, or no template.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{}` is no {what}: {why}", given.chars().take(128).collect::<String>().escape_debug())]
pub struct UriError {
    given: String,
    what: &'static str,
    why: &'static str,
}

impl ResourceUri {
    /// The URI as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ResourceUri {
    type Err = UriError;
    fn from_str(text: &str) -> Result<Self, UriError> {
        let error = |why| UriError { given: text.to_owned(), what: "URI of a resource", why };
        scheme(text).ok_or_else(|| error("it begins with a scheme, as `docs://` does"))?;
        if text.len() > URI_BYTES_MAX {
            return Err(error("it is longer than 2048 bytes"));
        }
        if !text.bytes().all(|byte| is_literal(byte) || byte == b'%') {
            return Err(error("it holds a character that no URI holds"));
        }
        Ok(Self(text.into()))
    }
}

impl UriTemplate {
    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The names of its variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|(name, _)| name.as_str())
    }

    /// Whether a URI is one of those that it stands for.
    ///
    /// One that a server could take for another is none: an encoded `/` or `\`, a control character, and a
    /// segment that is `.` or `..` however it is written.
    #[must_use]
    pub fn matches(&self, uri: &str) -> bool {
        uri.len() <= URI_BYTES_MAX && is_plain(uri) && self.fits(uri.as_bytes())
    }

    /// The URI with what has been written of its variables, and nothing for the others. None where something was
    /// written that no URI of the template holds, or for a variable that it does not have.
    #[must_use]
    pub fn filled(&self, written: &BTreeMap<String, String>) -> Option<String> {
        if !written.keys().all(|name| self.variables().any(|variable| variable == name)) {
            return None;
        }
        let with = |missing: &str| {
            let mut uri = self.prefix.clone();
            for (name, literal) in &self.variables {
                match written.get(name).filter(|value| !value.is_empty()) {
                    Some(value) => uri.push_str(&encoded(value)),
                    None => uri.push_str(missing),
                }
                uri.push_str(literal);
            }
            uri
        };
        self.matches(&with("x")).then(|| with(""))
    }

    fn fits(&self, uri: &[u8]) -> bool {
        // How much of the URI the template's beginning can take up: several lengths, where a variable could end
        // at several places.
        let mut ends = vec![false; uri.len() + 1];
        if let Some(end) = ends.get_mut(self.prefix.len())
            && uri.starts_with(self.prefix.as_bytes())
        {
            *end = true;
        }
        for (_, literal) in &self.variables {
            let mut next = vec![false; uri.len() + 1];
            let mut within = false;
            for (at, byte) in uri.iter().enumerate() {
                within |= ends.get(at).is_some_and(|end| *end);
                within &= is_unreserved(*byte) || *byte == b'%';
                let rest = uri.get(at + 1..).unwrap_or_default();
                if within
                    && rest.starts_with(literal.as_bytes())
                    && let Some(end) = next.get_mut(at + 1 + literal.len())
                {
                    *end = true;
                }
            }
            ends = next;
        }
        ends.last().is_some_and(|end| *end)
    }
}

impl FromStr for UriTemplate {
    type Err = UriError;
    fn from_str(text: &str) -> Result<Self, UriError> {
        let error = |why| UriError { given: text.to_owned(), what: "template of URIs", why };
        let scheme = scheme(text).ok_or_else(|| error("it begins with a scheme, as `docs://` does"))?;
        if text.len() > URI_BYTES_MAX {
            return Err(error("it is longer than 2048 bytes"));
        }
        let mut parts = text.split('{');
        let prefix = parts.next().unwrap_or_default().to_owned();
        let mut variables = Vec::new();
        for part in parts {
            let (name, literal) = part.split_once('}').ok_or_else(|| error("a `{` is not closed"))?;
            let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if name.is_empty() || name.len() > 64 || !is_name {
                return Err(error("a variable is a name in braces, as `{id}` is (RFC 6570 level 1)"));
            }
            if variables.last().is_some_and(|(_, before): &(String, String)| before.is_empty()) {
                return Err(error("two variables have nothing between them"));
            }
            variables.push((name.to_owned(), literal.to_owned()));
        }
        if !(1..=VARIABLES_MAX).contains(&variables.len()) {
            return Err(error("it has 1 to 8 variables; a URI without one is written as `uri`"));
        }
        let is_literal = |literal: &str| literal.bytes().all(is_literal);
        if !is_literal(&prefix) || !variables.iter().all(|(_, literal)| is_literal(literal)) {
            return Err(error("it holds a character that no URI holds as it is"));
        }
        // Whoever chose the host would choose who is asked.
        let host = prefix.get(scheme.len()..).and_then(|rest| rest.strip_prefix("://"));
        let is_web = matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https" | "ws" | "wss");
        if is_web && !host.is_some_and(|host| host.contains(['/', '?', '#'])) {
            return Err(error("a variable cannot stand for the host, or a part of it"));
        }
        Ok(Self { written: text.into(), prefix, variables })
    }
}

/// RFC 3986 §3.1.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    is_scheme.then_some(scheme)
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 §2.1: all but what is unreserved.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_unreserved(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex::encode_upper([byte]));
        }
    }
    encoded
}

/// RFC 3986 §2.2 and §2.3.
const fn is_literal(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b':' | b'/' | b'?' | b'#' | b'[' | b']' | b'@' | b'!' | b'$' | b'&' | b'\'')
        || matches!(byte, b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// Whether a URI reads alike to everybody, decoded once or not.
fn is_plain(uri: &str) -> bool {
    let Some(decoded) = decoded(uri) else { return false };
    let is_dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    !decoded.split(|byte| matches!(byte, b'/' | b'?' | b'#')).any(is_dots)
}

/// A URI without its percent-encodings, which must be whole and stand for nothing that separates.
fn decoded(uri: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(uri.len());
    let mut parts = uri.split('%');
    decoded.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).ok()?;
        if byte[0].is_ascii_control() || matches!(byte[0], b'/' | b'\\' | b'?' | b'#' | b'%') {
            return None;
        }
        decoded.extend(byte);
        decoded.extend_from_slice(rest.as_bytes());
    }
    Some(decoded)
}

macro_rules! text {
    ($name:ident, $expected:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "maxLength": URI_BYTES_MAX, "description": $expected })
            }
        }
    };
}

text!(ResourceUri, "A URI with its scheme, such as `docs://handbook`.");
text!(
    UriTemplate,
    "A template of URIs (RFC 6570 level 1), such as `docs://page/{id}`: a variable stands for one or more characters that are unreserved or percent-encoded."
);

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> UriTemplate {
        text.parse().unwrap()
    }

    #[test]
    fn a_variable_stands_for_unreserved_and_encoded_characters_and_no_others() {
        let one = template("test://template/{id}/data");
        for uri in
            ["test://template/7/data", "test://template/a.b-c_~/data", "test://template/%C3%A4%20/data"]
        {
            assert!(one.matches(uri), "{uri}");
        }
        for uri in [
            "test://template//data",
            "test://template/a/b/data",
            "test://template/7/data/",
            "Test://template/7/data",
            "test://template/a?b/data",
            "test://template/ä/data",
            "test://template/7",
            "",
        ] {
            assert!(!one.matches(uri), "{uri}");
        }
        let two = template("x:{a}-{b}-c");
        assert!(two.matches("x:1-2-3-c") && two.matches("x:----c") && !two.matches("x:1-c"));
    }

    #[test]
    fn a_uri_that_could_be_read_as_another_is_none_of_a_template() {
        let one = template("docs://pages/{name}");
        assert!(one.matches("docs://pages/..a"));
        for name in
            ["..", ".", "%2e%2E", "%2e.", "a%2Fb", "a%5cb", "%00", "%252e", "a%0a", "%", "%4", "%zz", "%+1"]
        {
            assert!(!one.matches(&format!("docs://pages/{name}")), "{name}");
        }
        assert!(!one.matches(&format!("docs://pages/{}", "a".repeat(URI_BYTES_MAX))));
    }

    #[test]
    fn what_is_written_of_a_variable_takes_its_place_where_a_uri_could_hold_it() {
        let two = template("docs://{area}/page/{id}");
        let filled = |written: &[(&str, &str)]| {
            let written = written.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            two.filled(&written.collect())
        };
        assert_eq!(filled(&[("area", "a b"), ("id", "ä")]).unwrap(), "docs://a%20b/page/%C3%A4");
        assert_eq!(filled(&[("id", "")]).unwrap(), "docs:///page/");
        for value in ["..", ".", "a/b", "a\\b", "%2e", "a\n", "a?b", &"a".repeat(URI_BYTES_MAX)] {
            assert_eq!(filled(&[("id", value)]), None, "{value}");
        }
        assert_eq!(filled(&[("other", "a")]), None);
    }

    #[test]
    fn matching_takes_no_longer_for_a_uri_that_is_made_for_it() {
        let many = template("x:{a}a{b}a{c}a{d}a{e}a{f}a{g}a{h}!");
        assert!(!many.matches(&format!("x:{}", "a".repeat(2_000))));
        assert!(many.matches(&format!("x:{}!", "a".repeat(2_000))));
    }

    #[test]
    fn what_is_no_template_says_why() {
        let said = |text: &str| text.parse::<UriTemplate>().unwrap_err().to_string();
        insta::assert_snapshot!(["{scheme}:x", "docs://plain", "docs://{a", "docs://{+a}", "docs://{a}{b}", "docs://{a} b", "http://{host}/", "https://a.{b}/c"].map(said).join("\n"), @r"
        `{scheme}:x` is no template of URIs: it begins with a scheme, as `docs://` does
        `docs://plain` is no template of URIs: it has 1 to 8 variables; a URI without one is written as `uri`
        `docs://{a` is no template of URIs: a `{` is not closed
        `docs://{+a}` is no template of URIs: a variable is a name in braces, as `{id}` is (RFC 6570 level 1)
        `docs://{a}{b}` is no template of URIs: two variables have nothing between them
        `docs://{a} b` is no template of URIs: it holds a character that no URI holds as it is
        `http://{host}/` is no template of URIs: a variable cannot stand for the host, or a part of it
        `https://a.{b}/c` is no template of URIs: a variable cannot stand for the host, or a part of it
        ");
        assert!("https://a.b/{c}".parse::<UriTemplate>().is_ok());
        for text in ["", "plain", "1x:a", "docs://a b", "docs://{a}", "docs://ä"] {
            assert!(text.parse::<ResourceUri>().is_err(), "{text}");
        }
        assert_eq!("docs://a%20b?c#d".parse::<ResourceUri>().unwrap().as_str(), "docs://a%20b?c#d");
    }
}
