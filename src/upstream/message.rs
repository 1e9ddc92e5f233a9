//! One JSON-RPC message of an upstream, and how the gate's own are written.

use serde_json::{Map, Value, json};

use super::{Bounds, UpstreamError};
use crate::strict::{self, Fault};

/// How deep a message may be nested.
const DEPTH_MAX: usize = 64;

/// JSON-RPC 2.0 §5.1: there is no such method.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;

/// JSON-RPC 2.0 §5.1: something failed inside.
pub(super) const INTERNAL_ERROR: i64 = -32603;

/// A message that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// The answer to a request of the gate's. An error may answer what could not be read, and then has no id.
    Answer { id: Option<i64>, outcome: Result<Map<String, Value>, UpstreamError> },
    /// Something that the upstream asks.
    Question { id: Value, method: String, params: Map<String, Value> },
    /// Something that it tells.
    Notice { method: String, params: Map<String, Value> },
}

/// Reads a message that every reader reads alike.
pub(super) fn read(bytes: &[u8], bounds: &Bounds) -> Result<Message, UpstreamError> {
    if bytes.len() > bounds.message_bytes_max {
        return Err(UpstreamError::TooLarge { bytes_max: bounds.message_bytes_max });
    }
    let strictly = strict::Bounds { depth_max: DEPTH_MAX, nodes_max: bounds.values_max };
    strict::scan(bytes, strictly)
        .map_err(|Fault { rule, offset }| UpstreamError::NotStrict { rule, offset })?;
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(members)) => envelope(members),
        Ok(_) | Err(_) => Err(malformed("a message is not a JSON object")),
    }
}

fn envelope(mut members: Map<String, Value>) -> Result<Message, UpstreamError> {
    if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(malformed("a message is not JSON-RPC 2.0"));
    }
    let id = members.remove("id");
    match (members.remove("method"), members.remove("result"), members.remove("error")) {
        (Some(Value::String(method)), None, None) => {
            let params = match members.remove("params") {
                None => Map::new(),
                Some(Value::Object(params)) => params,
                Some(_) => return Err(malformed("`params` is not an object")),
            };
            match id {
                None => Ok(Message::Notice { method, params }),
                Some(id @ (Value::String(_) | Value::Number(_))) => {
                    Ok(Message::Question { id, method, params })
                }
                Some(_) => Err(malformed("an id is neither a string nor a number")),
            }
        }
        (None, Some(Value::Object(result)), None) => {
            Ok(Message::Answer { id: own(id)?, outcome: Ok(result) })
        }
        (None, None, Some(Value::Object(error))) => {
            let id = own(id.filter(|id| !id.is_null()))?;
            Ok(Message::Answer { id, outcome: Err(refused(error)?) })
        }
        _ => Err(malformed("a message is neither a request nor a response")),
    }
}

/// The gate's own ids are integers. What answers another is no answer to anything.
fn own(id: Option<Value>) -> Result<Option<i64>, UpstreamError> {
    let unknown = malformed("a response has an id that was not given out");
    id.map(|id| id.as_i64().ok_or(unknown)).transpose()
}

fn refused(mut error: Map<String, Value>) -> Result<UpstreamError, UpstreamError> {
    let code = error.get("code").and_then(Value::as_i64);
    let code = code.ok_or_else(|| malformed("an error has no integer for a code"))?;
    let message = match error.remove("message") {
        Some(Value::String(message)) => message,
        Some(_) | None => return Err(malformed("an error has no message")),
    };
    Ok(UpstreamError::Refused { code, message, data: error.remove("data") })
}

pub(super) const fn malformed(what: &'static str) -> UpstreamError {
    UpstreamError::Malformed { what }
}

/// A request.
pub(super) fn request(id: i64, method: &str, params: &Map<String, Value>) -> Vec<u8> {
    bytes(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
}

/// A notification.
pub(super) fn notice(method: &str, params: &Map<String, Value>) -> Vec<u8> {
    if params.is_empty() {
        return bytes(&json!({ "jsonrpc": "2.0", "method": method }));
    }
    bytes(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

/// What is said when a request is given up.
pub(super) fn cancelled(id: i64) -> Vec<u8> {
    let params = Map::from_iter([("requestId".to_owned(), id.into())]);
    notice("notifications/cancelled", &params)
}

/// An answer to a question: a result, or a JSON-RPC error.
pub(super) fn answer(id: &Value, answer: Result<Value, Value>) -> Vec<u8> {
    let (member, value) = match answer {
        Ok(result) => ("result", result),
        Err(error) => ("error", error),
    };
    bytes(&json!({ "jsonrpc": "2.0", "id": id, member: value }))
}

/// The JSON-RPC error for a question that the gate does not pass on.
pub(super) fn not_supported() -> Value {
    json!({ "code": METHOD_NOT_FOUND, "message": "not supported" })
}

fn bytes(message: &Value) -> Vec<u8> {
    // `Value` has string keys alone, and so is always written.
    serde_json::to_vec(message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strict::Rule;

    fn read_text(text: &str) -> Result<Message, UpstreamError> {
        read(text.as_bytes(), &Bounds { message_bytes_max: 200, values_max: 20, ..Bounds::default() })
    }

    #[test]
    fn a_message_is_an_answer_a_question_or_a_notice() {
        let answer = read_text(r#"{"jsonrpc":"2.0","id":7,"result":{"new":[1]},"extra":1}"#).unwrap();
        let result = Map::from_iter([("new".to_owned(), json!([1]))]);
        assert_eq!(answer, Message::Answer { id: Some(7), outcome: Ok(result) });
        let error = read_text(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}"#).unwrap();
        let refused = UpstreamError::Refused { code: -1, message: "no".into(), data: None };
        assert_eq!(error, Message::Answer { id: None, outcome: Err(refused) });
        let question = read_text(r#"{"jsonrpc":"2.0","id":"q","method":"ping"}"#).unwrap();
        assert!(matches!(question, Message::Question { id, .. } if id == "q"));
        let notice = read_text(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"a":1}}"#);
        assert!(matches!(notice.unwrap(), Message::Notice { params, .. } if params.len() == 1));
    }

    #[test]
    fn what_is_not_a_message_is_refused() {
        for text in [
            "[]",
            "1",
            "{}",
            r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":[]}"#,
            r#"{"jsonrpc":"2.0","id":"1","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#,
            r#"{"jsonrpc":"2.0","method":"x","params":[]}"#,
        ] {
            assert!(matches!(read_text(text), Err(UpstreamError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let rule = |text: &str| match read_text(text) {
            Err(UpstreamError::NotStrict { rule, .. }) => rule,
            other => panic!("{other:?}"),
        };
        assert_eq!(rule(r#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#), Rule::DuplicateKey);
        assert_eq!(rule(r#"{"jsonrpc":"2.0","id":1,"result":{"n":1e999}}"#), Rule::Number);
        assert_eq!(rule(r#"{"jsonrpc":"2.0","id":1,"result":{}"#), Rule::Syntax);
        let many = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"a":[{}1]}}}}"#, "1,".repeat(20));
        assert_eq!(rule(&many), Rule::Nodes);
        let long = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"a":"{}"}}}}"#, "x".repeat(200));
        assert_eq!(read_text(&long), Err(UpstreamError::TooLarge { bytes_max: 200 }));
    }
}
