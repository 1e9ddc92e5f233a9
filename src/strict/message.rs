//! The JSON-RPC 2.0 envelope of one message, as MCP narrows it.

use std::borrow::Cow;

use serde_json::Value;

use super::{
    Bounds, Fault, Rule, method,
    scanner::{self, Token, Watch},
};

/// JSON-RPC 2.0 §5.1: the text is not JSON.
const PARSE_ERROR: i32 = -32700;
/// JSON-RPC 2.0 §5.1: the JSON is not a request.
const INVALID_REQUEST: i32 = -32600;

/// How long a method's name may be: several times the longest of MCP's.
const METHOD_BYTES_MAX: usize = 128;

/// How long a text that is an id may be: it comes back with each answer.
const ID_BYTES_MAX: usize = 256;

/// How much of an unknown word a client gets back.
const ECHO_CHARS_MAX: usize = 32;

/// One message: a request, a notification (a method, no id) or a response (no method).
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The id. Requests have one, and responses, save errors that belong to none.
    pub id: Option<Id<'a>>,
    /// The method; none in a response. May be unknown to MCP, but is no lookalike.
    pub method: Option<Cow<'a, str>>,
    /// The text of `params`: an object, as the client wrote it.
    pub params: Option<&'a [u8]>,
    /// The member `name` of `params`, if it is a string: the tool or prompt that is meant.
    pub params_name: Option<Cow<'a, str>>,
}

/// A message's id. MCP allows no null, JSON-RPC advises against fractions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Id<'a> {
    /// An integer.
    Number(i64),
    /// A string.
    String(Cow<'a, str>),
}

impl From<Id<'_>> for Value {
    fn from(id: Id<'_>) -> Self {
        match id {
            Id::Number(number) => number.into(),
            Id::String(string) => string.into_owned().into(),
        }
    }
}

/// Why a message is refused, as a JSON-RPC error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The JSON-RPC error code.
    pub code: i32,
    /// What the client is told.
    pub message: String,
    /// The reason's stable name in the record: a [`Rule::word`], or one of the envelope.
    pub word: &'static str,
    /// The message's id, or null if it is not known for sure.
    pub id: Value,
}

/// Checks a message with [`Bounds::REQUEST`] and reads its envelope. Borrows all it can: it
/// allocates for strings with escapes only.
pub fn message(bytes: &[u8]) -> Result<Message<'_>, Refused> {
    let mut envelope = Envelope::default();
    scanner::scan(bytes, Bounds::REQUEST, &mut envelope)?;
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => envelope.read(),
        Some(b'[') => Err(invalid("batch", "batches are not supported")),
        _ => Err(invalid("not_an_object", "a message is a JSON object")),
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        let code = match fault.rule {
            // Valid JSON, over a limit.
            Rule::Depth | Rule::Nodes => INVALID_REQUEST,
            Rule::Syntax | Rule::Utf8 | Rule::Bom | Rule::Surrogate | Rule::Number | Rule::DuplicateKey => {
                PARSE_ERROR
            }
        };
        Self { code, message: fault.to_string(), word: fault.rule.word(), id: Value::Null }
    }
}

fn invalid(word: &'static str, message: impl Into<String>) -> Refused {
    Refused { code: INVALID_REQUEST, message: message.into(), word, id: Value::Null }
}

/// The members of a message, as written.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<Token<'a>>,
    id: Option<Token<'a>>,
    method: Option<Token<'a>>,
    params: Option<Token<'a>>,
    result: Option<Token<'a>>,
    error: Option<Token<'a>>,
    params_name: Option<Token<'a>>,
    /// The first member that no message has.
    unknown: Option<Token<'a>>,
    /// The member `name` of the top-level member that is being read.
    name: Option<Token<'a>>,
}

impl<'a> Watch<'a> for Envelope<'a> {
    #[inline]
    fn member(&mut self, depth: usize, key: Token<'a>, value: Token<'a>) {
        match depth {
            1 => self.top_member(key, value),
            2 if is_key(key, "name") => self.name = Some(value),
            _ => {}
        }
    }
}

impl<'a> Envelope<'a> {
    fn top_member(&mut self, key: Token<'a>, value: Token<'a>) {
        let name = self.name.take();
        let Some(word) = unescape(key) else { return };
        let member = match word.as_ref() {
            "jsonrpc" => &mut self.jsonrpc,
            "id" => &mut self.id,
            "method" => &mut self.method,
            "params" => {
                self.params_name = name;
                &mut self.params
            }
            "result" => &mut self.result,
            "error" => &mut self.error,
            _ => {
                self.unknown.get_or_insert(key);
                return;
            }
        };
        *member = Some(value);
    }

    fn read(self) -> Result<Message<'a>, Refused> {
        let id = self.id.map(read_id).transpose()?;
        // What comes with an id is answered with it, whatever else is wrong.
        self.read_with(id.clone())
            .map_err(|refused| Refused { id: id.map_or(Value::Null, Value::from), ..refused })
    }

    fn read_with(self, id: Option<Id<'a>>) -> Result<Message<'a>, Refused> {
        if let Some(key) = self.unknown {
            let (word, offset) = (echo(key), key.offset);
            return Err(invalid("unknown_member", format!("unknown member `{word}` at byte {offset}")));
        }
        if self.jsonrpc.and_then(unescape).as_deref() != Some("2.0") {
            return Err(invalid("version", "`jsonrpc` must be \"2.0\""));
        }
        match (self.method, self.result, self.error) {
            (Some(method), None, None) => self.read_request(id, method),
            (None, Some(result), None) => self.read_response(id, "result", result),
            (None, None, Some(error)) => self.read_response(id, "error", error),
            (None, None, None) => Err(invalid("no_method", "a request must have a `method`")),
            _ => Err(invalid("mixed", "a message has only one of `method`, `result` and `error`")),
        }
    }

    fn read_request(&self, id: Option<Id<'a>>, method: Token<'a>) -> Result<Message<'a>, Refused> {
        let offset = method.offset;
        let name = unescape(method)
            .ok_or_else(|| invalid("method", format!("`method` must be a string, at byte {offset}")))?;
        if name.len() > METHOD_BYTES_MAX {
            let message = format!("`method` is longer than {METHOD_BYTES_MAX} bytes, at byte {offset}");
            return Err(invalid("method", message));
        }
        if method::is_lookalike(&name) {
            let (word, offset) = (echo(method), method.offset);
            return Err(invalid("method_lookalike", format!("misspelt method `{word}` at byte {offset}")));
        }
        if !method::is_name(&name) {
            let word = echo(method);
            return Err(invalid("method", format!("`{word}` at byte {offset} is no name of a method")));
        }
        if let Some(params) = self.params.filter(|params| !is_object(*params)) {
            return Err(invalid("params", format!("`params` must be an object, at byte {}", params.offset)));
        }
        Ok(Message {
            id,
            method: Some(name),
            params: self.params.map(|params| params.text.as_bytes()),
            params_name: self.params_name.and_then(unescape),
        })
    }

    fn read_response(
        &self,
        id: Option<Id<'a>>,
        member: &'static str,
        value: Token<'a>,
    ) -> Result<Message<'a>, Refused> {
        if self.params.is_some() {
            return Err(invalid("mixed", "a response has no `params`"));
        }
        if !is_object(value) {
            return Err(invalid(member, format!("`{member}` must be an object, at byte {}", value.offset)));
        }
        // An error may answer a message whose id could not be read.
        if id.is_none() && member == "result" {
            return Err(invalid("id", "a response must have an `id`"));
        }
        Ok(Message { id, method: None, params: None, params_name: None })
    }
}

fn read_id(token: Token<'_>) -> Result<Id<'_>, Refused> {
    if let Some(string) = unescape(token) {
        if string.len() > ID_BYTES_MAX {
            let message = format!("`id` is longer than {ID_BYTES_MAX} bytes, at byte {}", token.offset);
            return Err(invalid("id", message));
        }
        return Ok(Id::String(string));
    }
    match token.text.parse() {
        // `-0` is an integer to JSON and a float to most parsers.
        Ok(number) if token.text != "-0" => Ok(Id::Number(number)),
        _ => Err(invalid("id", format!("`id` must be a string or an integer, at byte {}", token.offset))),
    }
}

/// The value of a string; none for another value.
fn unescape(token: Token<'_>) -> Option<Cow<'_, str>> {
    let inner = token.text.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(token.text).ok().map(Cow::Owned)
}

fn is_key(key: Token<'_>, word: &str) -> bool {
    unescape(key).is_some_and(|key| key == word)
}

fn is_object(token: Token<'_>) -> bool {
    token.text.starts_with('{')
}

/// A string, short and in plain ASCII.
fn echo(token: Token<'_>) -> String {
    let word = unescape(token).unwrap_or_default();
    let mut echo: String = word.escape_default().take(ECHO_CHARS_MAX).collect();
    if word.escape_default().nth(ECHO_CHARS_MAX).is_some() {
        echo.push('…');
    }
    echo
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str =
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"add","arguments":{"name":1}}}"#;

    fn refusal(text: &str) -> Refused {
        message(text.as_bytes()).map(|message| panic!("{text} gave {message:?}")).unwrap_err()
    }

    #[track_caller]
    fn refuses(word: &str, code: i32, text: &str) {
        let refused = refusal(text);
        assert_eq!((refused.word, refused.code), (word, code), "{text}: {refused}");
    }

    #[test]
    fn a_call_is_read_without_a_copy() {
        let call = message(CALL.as_bytes()).unwrap();
        assert_eq!(call.id, Some(Id::Number(7)));
        assert!(matches!(call.method, Some(Cow::Borrowed("tools/call"))));
        assert_eq!(call.params, Some(br#"{"name":"add","arguments":{"name":1}}"#.as_slice()));
        assert!(matches!(call.params_name, Some(Cow::Borrowed("add"))));
    }

    #[test]
    fn a_name_with_escapes_is_the_name_it_stands_for() {
        let text = r#"{"\u006asonrpc":"2\u002e0","id":"\ud83d\ude00","method":"tools\/call","params":{"nam\u0065":"\u0061dd"}}"#;
        let call = message(text.as_bytes()).unwrap();
        assert_eq!(call.method.as_deref(), Some("tools/call"));
        assert_eq!(call.params_name.as_deref(), Some("add"));
        assert_eq!(call.id, Some(Id::String("😀".into())));
    }

    #[test]
    fn the_name_is_a_string_directly_in_params() {
        for params in [r#"{"a":{"name":"x"}}"#, r#"{"a":[{"name":"x"}]}"#, r#"{"name":1}"#, "{}"] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"params":{params},"method":"x"}}"#);
            assert_eq!(message(text.as_bytes()).unwrap().params_name, None, "{text}");
        }
        let text = r#"{"result":{"name":"x"},"id":1,"jsonrpc":"2.0"}"#;
        assert_eq!(message(text.as_bytes()).unwrap().params_name, None);
    }

    #[test]
    fn notifications_and_responses_are_messages() {
        let notification = message(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).unwrap();
        assert!(notification.id.is_none() && notification.params.is_none());
        for text in [
            r#"{"jsonrpc":"2.0","id":"a","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#,
        ] {
            assert_eq!(message(text.as_bytes()).unwrap().method, None, "{text}");
        }
    }

    #[test]
    fn what_the_scanner_refuses_is_a_parse_error_unless_it_is_a_limit() {
        refuses("syntax", -32700, "{");
        refuses("syntax", -32700, "");
        refuses("bom", -32700, "\u{feff}{}");
        refuses(
            "duplicate_key",
            -32700,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}"#,
        );
        refuses("number", -32700, r#"{"jsonrpc":"2.0","id":1e999,"method":"ping"}"#);
        refuses("depth", -32600, &"[".repeat(65));
        refuses("nodes", -32600, &format!("[{}1]", "1,".repeat(10_000)));
        assert_eq!(refusal(r#"{"a":1,"a":1}"#).message, "duplicate key at byte 7");
    }

    #[test]
    fn a_message_is_one_object() {
        refuses("batch", -32600, &format!("[{CALL}]"));
        refuses("batch", -32600, " []");
        for text in ["1", "null", "\"tools/call\"", "true"] {
            refuses("not_an_object", -32600, text);
        }
    }

    #[test]
    fn each_member_is_what_json_rpc_says() {
        for (word, text) in [
            ("unknown_member", r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#),
            ("unknown_member", r#"{"jsonrpc":"2.0","id":1,"method":"ping","_meta":{}}"#),
            ("version", r#"{"id":1,"method":"ping"}"#),
            ("version", r#"{"jsonrpc":"2","id":1,"method":"ping"}"#),
            ("version", r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#),
            ("version", r#"{"jsonrpc":"2.0 ","id":1,"method":"ping"}"#),
            ("id", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#),
            ("id", r#"{"jsonrpc":"2.0","id":1.0,"method":"ping"}"#),
            ("id", r#"{"jsonrpc":"2.0","id":1e0,"method":"ping"}"#),
            ("id", r#"{"jsonrpc":"2.0","id":-0,"method":"ping"}"#),
            ("id", r#"{"jsonrpc":"2.0","id":9223372036854775808,"method":"ping"}"#),
            ("id", r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#),
            ("id", r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#),
            ("id", r#"{"jsonrpc":"2.0","result":{}}"#),
            ("method", r#"{"jsonrpc":"2.0","id":1,"method":1}"#),
            ("method", r#"{"jsonrpc":"2.0","id":1,"method":null}"#),
            ("params", r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#),
            ("params", r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#),
            ("no_method", r#"{"jsonrpc":"2.0","id":1}"#),
            ("no_method", r#"{"jsonrpc":"2.0","id":1,"params":{}}"#),
            ("mixed", r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#),
            ("mixed", r#"{"jsonrpc":"2.0","id":1,"error":{},"result":{}}"#),
            ("mixed", r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#),
            ("result", r#"{"jsonrpc":"2.0","id":1,"result":1}"#),
            ("error", r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#),
            ("method_lookalike", r#"{"jsonrpc":"2.0","id":1,"method":"Tools/Call"}"#),
            ("method_lookalike", r#"{"jsonrpc":"2.0","id":1,"method":"tools\u200b/call"}"#),
            ("method", r#"{"jsonrpc":"2.0","id":1,"method":"tools/c\u0430ll"}"#), // a Cyrillic letter
            ("method", r#"{"jsonrpc":"2.0","id":1,"method":"tools/call "}"#),
            ("method", r#"{"jsonrpc":"2.0","id":1,"method":"tools/call\u0000"}"#),
            ("method", r#"{"jsonrpc":"2.0","id":1,"method":""}"#),
        ] {
            refuses(word, -32600, text);
        }
    }

    #[test]
    fn a_long_method_is_refused_before_it_is_looked_at() {
        let of = |length: usize| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "x".repeat(length));
        assert!(message(of(METHOD_BYTES_MAX).as_bytes()).is_ok());
        assert_eq!(
            refusal(&of(METHOD_BYTES_MAX + 1)).message,
            "`method` is longer than 128 bytes, at byte 33"
        );
        let unseen = "\u{ad}".repeat(200_000);
        refuses("method", -32600, &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{unseen}"}}"#));
    }

    #[test]
    fn an_id_is_as_long_as_it_may_be_whatever_it_is_written_with() {
        let of = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"ping"}}"#);
        assert!(message(of(&r"\u0061".repeat(ID_BYTES_MAX)).as_bytes()).is_ok());
        refuses("id", -32600, &of(&"a".repeat(ID_BYTES_MAX + 1)));
        refuses("id", -32600, &of(&"ä".repeat(ID_BYTES_MAX / 2 + 1)));
        assert_eq!(refusal(&of(&"a".repeat(1_000_000))).id, Value::Null, "it does not come back");
    }

    #[test]
    fn a_refusal_carries_the_id_that_could_be_read() {
        assert_eq!(refusal(r#"{"method":"ping","id":"a\u0062"}"#).id, "ab");
        assert_eq!(refusal(r#"{"method":"ping","id":-3}"#).id, -3);
        assert_eq!(refusal(r#"{"id":1,"id":1}"#).id, Value::Null);
        assert_eq!(refusal(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#).id, Value::Null);
    }

    #[test]
    fn a_refusal_repeats_little_and_only_in_ascii() {
        let refused = refusal(r#"{"jsonrpc":"2.0","id":1,"método\u202e":1}"#);
        assert_eq!(refused.message, r"unknown member `m\u{e9}todo\u{202e}` at byte 24");
        let refused = refusal(&format!(r#"{{"jsonrpc":"2.0","{}":1}}"#, "x".repeat(10_000)));
        assert_eq!(refused.message, format!("unknown member `{}…` at byte 17", "x".repeat(32)));
    }
}
