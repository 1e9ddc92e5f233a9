//! What the server says: messages, each made into one line.

use http::{HeaderMap, StatusCode, header};
use reqwest::Response;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{
    events::Events,
    failure::{Failure, Refusal},
};
use crate::strict::{self, Bounds};

/// How large one message of the server may be.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How much of a refusal is read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// The server is not a stranger: it may say more at once than a client.
const BOUNDS: Bounds = Bounds { depth_max: 120, nodes_max: 1_000_000 };

/// A message of the server.
#[derive(Debug)]
pub(super) struct Said {
    /// As it came, but for line breaks, which in JSON stand between values alone.
    pub(super) line: Vec<u8>,
    /// The id of what it answers; none where it answers nothing.
    pub(super) answers: Option<Value>,
}

#[derive(Deserialize)]
struct Peek {
    jsonrpc: String,
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    method: Option<String>,
    result: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

impl Said {
    fn read(mut line: Vec<u8>) -> Result<Self, Failure> {
        const WHAT: &str = "answers with something that is no message";
        strict::scan(&line, BOUNDS).map_err(|_| Failure::Unreadable(WHAT))?;
        let peek: Peek = serde_json::from_slice(&line).map_err(|_| Failure::Unreadable(WHAT))?;
        let is_response = match (&peek.method, peek.result.is_some(), peek.error.is_some()) {
            (None, true, false) | (None, false, true) => true,
            (Some(_), false, false) => false,
            _ => return Err(Failure::Unreadable(WHAT)),
        };
        if peek.jsonrpc != "2.0" {
            return Err(Failure::Unreadable(WHAT));
        }
        for byte in line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
        Ok(Self { line, answers: is_response.then_some(peek.id).flatten() })
    }

    /// The result of a response.
    pub(super) fn result(&self) -> Option<Value> {
        let mut message: Value = serde_json::from_slice(&self.line).ok()?;
        Some(message.get_mut("result")?.take())
    }
}

/// An answer whose messages are read one after another.
pub(super) struct Answer {
    response: Response,
    events: Option<Events>,
    read: std::vec::IntoIter<Vec<u8>>,
    is_over: bool,
}

impl Answer {
    /// An answer with messages in it, or with none where the server has only taken what was sent.
    ///
    /// # Errors
    /// When it is a refusal, or of no form that the protocol knows.
    pub(super) async fn of(response: Response) -> Result<Self, Failure> {
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(response).await);
        }
        let is_empty = matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT);
        let events = match media_type(response.headers()).as_str() {
            _ if is_empty => None,
            "text/event-stream" => Some(Events::new(MESSAGE_BYTES_MAX)),
            "application/json" => None,
            _ => return Err(Failure::Unreadable("answers with neither JSON nor events")),
        };
        Ok(Self { response, events, read: Vec::new().into_iter(), is_over: is_empty })
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Whether it is a stream of events, and how far that was read.
    pub(super) const fn events(&self) -> Option<&Events> {
        self.events.as_ref()
    }

    /// The next message, or none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Said>, Failure> {
        loop {
            if let Some(message) = self.read.next() {
                return Said::read(message).map(Some);
            }
            if self.is_over {
                return Ok(None);
            }
            let Some(events) = &mut self.events else {
                self.is_over = true;
                let body = body(&mut self.response, MESSAGE_BYTES_MAX).await?;
                return Said::read(body).map(Some);
            };
            match self.response.chunk().await {
                Ok(Some(piece)) => {
                    self.read = events.feed(&piece).map_err(|_| Failure::TooLarge)?.into_iter();
                }
                Ok(None) => self.is_over = true,
                Err(_) => return Err(Failure::BrokeOff),
            }
        }
    }
}

async fn refusal(mut response: Response) -> Failure {
    let body = body(&mut response, REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let error =
        serde_json::from_slice::<Value>(&body).ok().and_then(|mut body| Some(body.get_mut("error")?.take()));
    let error = error.filter(|error| error.is_object() && strict::scan(&body, BOUNDS).is_ok());
    Failure::Refused(Refusal::new(response.status(), response.headers(), error))
}

async fn body(response: &mut Response, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|_| Failure::BrokeOff)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > bytes_max {
            return Err(Failure::TooLarge);
        }
    }
    Ok(bytes)
}

/// The essence of the content type.
fn media_type(headers: &HeaderMap) -> String {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_becomes_one_line_and_is_otherwise_as_it_came() {
        let said = Said::read(
            b"{\r\n \"jsonrpc\":\"2.0\",\n\"id\": \"a\", \"result\":{\"n\":1.50,\"t\":\"a\\nb\"}}".into(),
        );
        let said = said.unwrap();
        assert_eq!(
            String::from_utf8(said.line.clone()).unwrap(),
            "{   \"jsonrpc\":\"2.0\", \"id\": \"a\", \"result\":{\"n\":1.50,\"t\":\"a\\nb\"}}"
        );
        assert_eq!(said.answers, Some("a".into()));
        assert_eq!(said.result().unwrap()["t"], "a\nb");
        let request = Said::read(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.into()).unwrap();
        assert_eq!(request.answers, None);
    }

    #[test]
    fn what_is_no_message_is_not_passed_on() {
        for text in [
            "",
            "[]",
            "{}",
            "<html>",
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#,
            r#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#,
        ] {
            assert!(Said::read(text.into()).is_err(), "{text}");
        }
    }
}
