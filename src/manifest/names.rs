//! The names people give to things, parsed once at the edge.

use std::{borrow::Borrow, fmt, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// How much of a text that is no name is repeated.
const GIVEN_CHARS_MAX: usize = 128;

/// Why a string is not a name of the kind that was expected.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{}` is not {expected}", given.escape_debug())]
pub struct NameError {
    given: String,
    expected: &'static str,
}

impl NameError {
    fn new(text: &str, expected: &'static str) -> Self {
        let mut given: String = text.chars().take(GIVEN_CHARS_MAX).collect();
        if given.len() < text.len() {
            given.push('…');
        }
        Self { given, expected }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $pattern:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// What such a name looks like.
            pub const EXPECTED: &'static str = $expected;

            /// Parses a name.
            ///
            /// # Errors
            /// When the text is not a name of this kind.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError::new(text, $expected))
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $expected })
            }
        }
    };
}

fn bounded(text: &str, max: usize, allowed: fn(u8) -> bool) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(allowed)
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

fn identifier(text: &str) -> bool {
    bounded(text, 64, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with(|first: char| first.is_ascii_digit())
}

name!(
    /// A tool's name, as clients see it (MCP 2026-07-28 tools, "Tool Names").
    ToolName,
    "a tool name: 1 to 128 of `A-Z a-z 0-9 _ . -`",
    "^[A-Za-z0-9_.-]{1,128}$",
    |text| bounded(text, 128, word)
);

impl ToolName {
    /// The name by which the guards know something that is no tool. No tool can have it: names hold no `:`.
    pub(crate) fn reserved(kind: &str, name: &Self) -> Self {
        Self(format!("{kind}:{name}").into())
    }

    /// Reads a name that the guards use, of a tool or not, as it is kept on record.
    pub(crate) fn kept<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let of = |kind: &str| text.strip_prefix(kind)?.strip_prefix(':').map(|name| (kind.to_owned(), name));
        match of("resource").or_else(|| of("prompt")) {
            Some((kind, name)) => Self::parse(name).map(|name| Self::reserved(&kind, &name)),
            None => Self::parse(&text),
        }
        .map_err(de::Error::custom)
    }

    /// The dotted prefixes of the name, shortest first: `a.b.c` has `a` and `a.b`.
    pub fn toolsets(&self) -> impl Iterator<Item = &str> {
        let name = self.as_str();
        name.match_indices('.').filter_map(move |(at, _)| name.get(..at)).filter(|prefix| !prefix.is_empty())
    }
}

name!(
    /// A client's name: the principal of a call.
    ClientName,
    "a client name: 1 to 64 of `A-Z a-z 0-9 _ . -`",
    "^[A-Za-z0-9_.-]{1,64}$",
    |text| bounded(text, 64, word)
);
name!(
    /// A role that clients may have.
    RoleName,
    "a role name: 1 to 64 of `A-Z a-z 0-9 _ . -`",
    "^[A-Za-z0-9_.-]{1,64}$",
    |text| bounded(text, 64, word)
);
name!(
    /// A backend service named in `callgate.yaml`.
    ServiceName,
    "a service name: 1 to 64 of `A-Z a-z 0-9 _ . -`",
    "^[A-Za-z0-9_.-]{1,64}$",
    |text| bounded(text, 64, word)
);
impl ServiceName {
    /// The project itself, where it answers. No service can have the name: names hold no `:`.
    pub(crate) fn project() -> Self {
        Self("gate:project".into())
    }
}

name!(
    /// A vault named in `callgate.yaml`.
    VaultName,
    "a vault name: 1 to 64 of `A-Z a-z 0-9 _ . -`",
    "^[A-Za-z0-9_.-]{1,64}$",
    |text| bounded(text, 64, word)
);
name!(
    /// A credential named in `callgate.yaml`.
    CredentialName,
    "a credential name: 1 to 64 of `A-Z a-z 0-9 _ . -`",
    "^[A-Za-z0-9_.-]{1,64}$",
    |text| bounded(text, 64, word)
);
name!(
    /// An identity provider named in `callgate.yaml`.
    IssuerName,
    "an issuer name: 1 to 64 of `A-Z a-z 0-9 _ . -`",
    "^[A-Za-z0-9_.-]{1,64}$",
    |text| bounded(text, 64, word)
);
name!(
    /// A group of people who may approve calls.
    GroupName,
    "an approver group: 1 to 64 of `A-Z a-z 0-9 _ . -`",
    "^[A-Za-z0-9_.-]{1,64}$",
    |text| bounded(text, 64, word)
);
name!(
    /// The id of an API key: the part of the key that is not secret.
    KeyId,
    "a key id: 1 to 32 of `A-Z a-z 0-9 -`",
    "^[A-Za-z0-9-]{1,32}$",
    |text| bounded(text, 32, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
);
name!(
    /// A label that a field of an answer, or a run, carries.
    Label,
    "a label: 1 to 64 of `a-z 0-9 _ -`, beginning with a letter",
    "^[a-z][a-z0-9_-]{0,63}$",
    |text| {
        bounded(text, 64, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
            && text.starts_with(|first: char| first.is_ascii_lowercase())
    }
);
name!(
    /// A scope (RFC 6749 §3.3, `scope-token`).
    Scope,
    "a scope: 1 to 128 visible ASCII characters other than `\"` and `\\`",
    "^[!#-\\[\\]-~]{1,128}$",
    |text| bounded(text, 128, |byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
);
name!(
    /// The name of a client attribute that policies read.
    AttributeName,
    "an attribute name: 1 to 64 of `A-Z a-z 0-9 _`, not beginning with a digit",
    "^[A-Za-z_][A-Za-z0-9_]{0,63}$",
    identifier
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_name_may_hold_dots_and_dashes() {
        assert_eq!(ToolName::parse("orders.get-one").unwrap().as_str(), "orders.get-one");
    }

    #[test]
    fn a_tool_cannot_name_itself_into_a_group() {
        let refusal = ToolName::parse("effect:read").unwrap_err();
        insta::assert_snapshot!(refusal, @"`effect:read` is not a tool name: 1 to 128 of `A-Z a-z 0-9 _ . -`");
    }

    #[test]
    fn toolsets_are_the_dotted_prefixes() {
        let name = ToolName::parse("a.b.c").unwrap();
        assert_eq!(name.toolsets().collect::<Vec<_>>(), ["a", "a.b"]);
        assert_eq!(ToolName::parse(".x").unwrap().toolsets().count(), 0);
        assert_eq!(ToolName::parse("release").unwrap().toolsets().count(), 0);
    }

    #[test]
    fn a_text_that_is_far_too_long_is_not_repeated_in_full() {
        let refusal = ClientName::parse(&"a".repeat(60_000)).unwrap_err().to_string();
        assert!(refusal.starts_with(&format!("`{}…` is not a client name", "a".repeat(128))), "{refusal}");
        assert!(refusal.len() < 200, "{refusal}");
    }

    #[test]
    fn an_empty_name_is_refused() {
        assert!(ToolName::parse("").is_err());
        assert!(Label::parse("").is_err());
        assert!(Label::parse("9lives").is_err());
    }
}
