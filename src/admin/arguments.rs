//! The arguments of a request: the members of one JSON object, and what is wrong with them in words.

use http::StatusCode;
use serde_json::{Map, Value};

use super::{
    error::ApiError,
    slip::{REFUSED, holds_secret},
};
use crate::strict::{self, Bounds};

/// How much of what was sent is repeated.
const ECHO_CHARS_MAX: usize = 128;

/// What a kind of request is asked with.
pub(super) trait Asked: Sized {
    /// Takes it from the arguments.
    ///
    /// # Errors
    /// When an argument is missing, or is not what it has to be.
    fn take(arguments: &mut Arguments) -> Result<Self, ApiError>;
}

/// The arguments that were not taken yet.
#[derive(Debug)]
pub(super) struct Arguments {
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

/// Reads a body that can be read in one way only, all of which is known.
///
/// # Errors
/// When it is anything else: which argument, and what was expected.
pub(super) fn parse<T: Asked>(bytes: &[u8]) -> Result<T, ApiError> {
    strict::scan(bytes, Bounds { depth_max: 8, nodes_max: 1_000 })
        .map_err(|fault| ApiError::bad("json", fault.to_string()))?;
    let value = serde_json::from_slice(bytes).map_err(|_| ApiError::bad("json", "malformed JSON"))?;
    let Value::Object(left) = value else {
        return Err(wrong(format!("the body has to be a JSON object, not {}", described(&value))));
    };
    // Nothing is asked with a secret, and most of what is there could be kept or repeated.
    if left.iter().any(|(name, value)| holds_secret(name) || value.as_str().is_some_and(holds_secret)) {
        return Err(ApiError::bad("secret", REFUSED));
    }
    let mut arguments = Arguments { left, known: Vec::new() };
    let asked = T::take(&mut arguments)?;
    arguments.finish()?;
    Ok(asked)
}

impl Arguments {
    /// An argument that has to be there.
    pub(super) fn needed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, ApiError> {
        let found = self.optional(name, expected, read)?;
        found.ok_or_else(|| wrong(format!("`{name}` is missing: {expected}")))
    }

    /// An argument that may be left out, also as `null`.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        self.known.push(name);
        let Some(value) = self.left.remove(name).filter(|value| !value.is_null()) else { return Ok(None) };
        let misfit = || wrong(format!("`{name}` has to be {expected}, not {}", described(&value)));
        read(&value).ok_or_else(misfit).map(Some)
    }

    /// Refuses what nobody took: somebody who misspells a limit would go without it.
    fn finish(self) -> Result<(), ApiError> {
        let Some(name) = self.left.keys().next() else { return Ok(()) };
        let known: Vec<String> = self.known.iter().map(|name| format!("`{name}`")).collect();
        Err(wrong(format!("`{}` is not taken here: {} are", shown(name), known.join(", "))))
    }
}

/// Reads a text.
pub(super) fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// What was sent, as it is repeated: not all of it, and with nothing that readers do not see.
pub(super) fn shown(text: &str) -> String {
    let escaped: String = text.chars().flat_map(char::escape_debug).take(ECHO_CHARS_MAX + 1).collect();
    match escaped.char_indices().nth(ECHO_CHARS_MAX) {
        Some((end, _)) => format!("{}…", escaped.get(..end).unwrap_or_default()),
        None => escaped,
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "`null`".to_owned(),
        Value::Bool(said) => format!("`{said}`"),
        Value::Number(number) => format!("the number `{number}`"),
        Value::String(text) if holds_secret(text) => "a key or a token".to_owned(),
        Value::String(text) => format!("`{}`", shown(text)),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn wrong(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "arguments", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Rest {
        hours: u64,
        why: Option<String>,
    }

    impl Asked for Rest {
        fn take(arguments: &mut Arguments) -> Result<Self, ApiError> {
            Ok(Self {
                hours: arguments.needed("hours", "a number of hours", Value::as_u64)?,
                why: arguments.optional("why", "a text", text)?,
            })
        }
    }

    fn read(body: Value) -> Result<Rest, String> {
        parse(body.to_string().as_bytes()).map_err(|refusal| refusal.message)
    }

    #[test]
    fn what_is_there_is_taken_and_what_may_be_left_out_may_be_null() {
        assert_eq!(read(json!({ "hours": 3 })), Ok(Rest { hours: 3, why: None }));
        assert_eq!(read(json!({ "hours": 3, "why": null })), Ok(Rest { hours: 3, why: None }));
        assert_eq!(read(json!({ "hours": 3, "why": "" })), Ok(Rest { hours: 3, why: Some(String::new()) }));
    }

    #[test]
    fn a_refusal_names_the_argument_and_what_was_expected() {
        let refused = |body| read(body).unwrap_err();
        insta::assert_snapshot!(refused(json!({})), @"`hours` is missing: a number of hours");
        insta::assert_snapshot!(refused(json!({ "hours": null })), @"`hours` is missing: a number of hours");
        insta::assert_snapshot!(refused(json!({ "hours": "3\n" })), @r"`hours` has to be a number of hours, not `3\n`");
        insta::assert_snapshot!(refused(json!({ "hours": -1 })), @"`hours` has to be a number of hours, not the number `-1`");
        insta::assert_snapshot!(refused(json!({ "hours": 1, "why": ["a"] })), @"`why` has to be a text, not an array");
        insta::assert_snapshot!(refused(json!({ "hours": 1, "whom": "a" })), @"`whom` is not taken here: `hours`, `why` are");
    }

    #[test]
    fn a_key_or_a_token_is_refused_without_a_word_of_it_wherever_it_stands() {
        let [key, token] = ["cg_k1_0123456789abcdef", "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJ4In0.c2ln"];
        for secret in [key, token] {
            for body in [
                json!({ "hours": secret }),
                json!({ "hours": 1, "why": format!("{secret} was lost") }),
                json!({ "hours": 1, (secret): 1 }),
            ] {
                let refusal = parse::<Rest>(body.to_string().as_bytes()).unwrap_err();
                assert_eq!((refusal.code, refusal.message.as_str()), ("secret", REFUSED), "{body}");
            }
            let alone = read(json!(secret)).unwrap_err();
            assert!(!alone.contains(secret), "{alone}");
        }
    }

    #[test]
    fn only_an_object_has_arguments() {
        insta::assert_snapshot!(read(json!([3, "a"])).unwrap_err(), @"the body has to be a JSON object, not an array");
        insta::assert_snapshot!(read(json!("3")).unwrap_err(), @"the body has to be a JSON object, not `3`");
        insta::assert_snapshot!(read(Value::Null).unwrap_err(), @"the body has to be a JSON object, not `null`");
    }

    #[test]
    fn what_was_sent_is_repeated_in_part_and_escaped() {
        assert_eq!(shown(&"a".repeat(128)), "a".repeat(128));
        assert_eq!(shown(&"a".repeat(60_000)), format!("{}…", "a".repeat(128)));
        assert_eq!(shown("a\u{202e}\u{1b}[2J"), "a\\u{202e}\\u{1b}[2J");
        let message = read(json!({ "hours": 1, "é".repeat(30_000): 1 })).unwrap_err();
        assert!(message.chars().count() < 200, "{message}");
    }

    #[test]
    fn a_body_that_can_be_read_in_two_ways_is_refused() {
        let read = |text: &str| parse::<Rest>(text.as_bytes()).map_err(|refusal| refusal.code);
        assert!(read(r#"{"hours":1}"#).is_ok());
        assert_eq!(read(r#"{"hours":1,"hours":2}"#), Err("json"));
        assert_eq!(read("{"), Err("json"));
    }
}
