//! Path templates: fixed segments, and slots that one argument fills.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A path such as `/v1/orders/{order_id}/refunds`, split into its segments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathTemplate(Vec<Segment>);

/// One segment of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Segment {
    /// Text that is sent as it stands.
    Fixed(String),
    /// An argument, which fills the whole segment.
    Slot(String),
}

/// Why a text is not a path template.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// The text does not begin with a slash.
    #[error("the path `{0}` does not begin with `/`")]
    NotAbsolute(String),
    /// A segment is empty, `.` or `..`.
    #[error("the path `{0}` has an empty, `.` or `..` segment")]
    Hollow(String),
    /// A segment mixes a slot with text, or holds what a path may not.
    #[error(
        "the segment `{0}` is neither plain text of `A-Z a-z 0-9 . _ ~ : @ ! $ ' ( ) * + , = -` nor one `{{argument}}`"
    )]
    Segment(String),
}

impl PathTemplate {
    /// The segments, in order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The arguments that the path needs.
    pub fn slots(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Slot(argument) => Some(argument.as_str()),
            Segment::Fixed(_) => None,
        })
    }

    /// Parses a template.
    ///
    /// # Errors
    /// When the text is not a path whose segments are each fixed or one slot.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let rest = text.strip_prefix('/').ok_or_else(|| PathError::NotAbsolute(text.to_owned()))?;
        if rest.is_empty() {
            return Ok(Self(Vec::new()));
        }
        rest.split('/').map(|segment| parse_segment(text, segment)).collect::<Result<_, _>>().map(Self)
    }
}

fn parse_segment(path: &str, segment: &str) -> Result<Segment, PathError> {
    if matches!(segment, "" | "." | "..") {
        return Err(PathError::Hollow(path.to_owned()));
    }
    if let Some(slot) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'))
        && !slot.is_empty()
        && !slot.contains(['{', '}'])
    {
        return Ok(Segment::Slot(slot.to_owned()));
    }
    // RFC 3986 §3.3 `pchar`, without `%`, `&` and `;`, which have a meaning for some servers.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~:@!$'()*+,=".contains(&byte);
    if segment.bytes().all(plain) {
        Ok(Segment::Fixed(segment.to_owned()))
    } else {
        Err(PathError::Segment(segment.to_owned()))
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|segment| match segment {
            Segment::Fixed(text) => write!(f, "/{text}"),
            Segment::Slot(argument) => write!(f, "/{{{argument}}}"),
        })
    }
}

impl<'de> Deserialize<'de> for PathTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for PathTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for PathTemplate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PathTemplate".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^/",
            "description": "A path; `{argument}` fills one whole segment, such as `/v1/orders/{order_id}`."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_prints_as_it_was_written() {
        for path in ["/", "/v1/orders", "/v1/orders/{order_id}/refunds"] {
            assert_eq!(PathTemplate::parse(path).unwrap().to_string(), path);
        }
    }

    #[test]
    fn slots_fill_whole_segments_only() {
        let template = PathTemplate::parse("/v1/{a}/x/{b}").unwrap();
        assert_eq!(template.slots().collect::<Vec<_>>(), ["a", "b"]);
        for path in ["/v1/x{a}", "/{a}{b}", "/{}", "/{a", "/a}"] {
            assert!(matches!(PathTemplate::parse(path), Err(PathError::Segment(_))), "{path}");
        }
    }

    #[test]
    fn a_path_cannot_climb_or_carry_a_query() {
        for path in ["/../x", "/a//b", "/a/./b", "/a/"] {
            assert!(matches!(PathTemplate::parse(path), Err(PathError::Hollow(_))), "{path}");
        }
        for path in ["/a?b=c", "/a#b", "/a%2e%2e", "/a\\b", "/é", "/a;b"] {
            assert!(matches!(PathTemplate::parse(path), Err(PathError::Segment(_))), "{path}");
        }
        assert!(matches!(PathTemplate::parse("v1"), Err(PathError::NotAbsolute(_))));
    }
}
