//! What passes between a caller and a backend while a call lasts: progress and log messages to the caller,
//! and what the backend asks it (MCP sampling, elicitation, roots).
//!
//! The caller's side is a transport, which holds a [`Passing`] receiver; the backend's side holds a [`Relay`].

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

/// How many messages may wait to be passed on.
const WAITING_MAX: usize = 64;

/// How a caller speaks the protocol.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Era {
    /// With sessions, and requests both ways: 2024-11-05 to 2025-11-25.
    Session,
    /// Without: each request stands for itself, and what is asked of the caller is a result (2026-07-28).
    Stateless,
}

/// A call's line to its caller. It is closed when the caller no longer listens.
#[derive(Clone, Debug)]
pub struct Relay {
    era: Era,
    abilities: Arc<Map<String, Value>>,
    wants_progress: bool,
    line: mpsc::Sender<Passing>,
}

/// A message on its way to the caller.
#[derive(Debug)]
pub enum Passing {
    /// How far the call is (`notifications/progress`), without its token.
    Progress(Map<String, Value>),
    /// A line of a log (`notifications/message`).
    Log(Map<String, Value>),
    /// Something that the caller is asked (`sampling/createMessage`, `elicitation/create`, `roots/list`).
    Question {
        /// The method.
        method: &'static str,
        /// Its parameters.
        params: Map<String, Value>,
        /// Where the answer goes: a result, or a JSON-RPC error.
        answer: oneshot::Sender<Result<Value, Value>>,
    },
}

/// Why the caller has not answered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoAnswer {
    /// The caller no longer listens, or its transport cannot ask.
    #[error("the caller cannot be asked")]
    Gone,
    /// The caller answered with this JSON-RPC error.
    #[error("the caller refused the question")]
    Refused(Value),
}

impl Relay {
    /// A line to a caller with these abilities (MCP `ClientCapabilities`), and its other end.
    #[must_use]
    pub fn new(
        era: Era,
        abilities: Map<String, Value>,
        wants_progress: bool,
    ) -> (Self, mpsc::Receiver<Passing>) {
        let (line, passing) = mpsc::channel(WAITING_MAX);
        (Self { era, abilities: Arc::new(abilities), wants_progress, line }, passing)
    }

    /// How the caller speaks.
    #[must_use]
    pub const fn era(&self) -> Era {
        self.era
    }

    /// What the caller said it can do (MCP `ClientCapabilities`).
    #[must_use]
    pub fn abilities(&self) -> &Map<String, Value> {
        &self.abilities
    }

    /// Whether the caller asked to hear how far its call is.
    #[must_use]
    pub const fn wants_progress(&self) -> bool {
        self.wants_progress
    }

    /// Tells the caller something. Nobody waits for it: what finds no room is dropped, and that is said.
    #[must_use]
    pub fn tell(&self, message: Passing) -> bool {
        self.line.try_send(message).is_ok()
    }

    /// Asks the caller something, and waits for the answer.
    ///
    /// # Errors
    /// When it cannot be asked, or refuses.
    pub async fn ask(&self, method: &'static str, params: Map<String, Value>) -> Result<Value, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        let question = Passing::Question { method, params, answer };
        self.line.send(question).await.map_err(|_| NoAnswer::Gone)?;
        answered.await.map_err(|_| NoAnswer::Gone)?.map_err(NoAnswer::Refused)
    }
}

/// What a caller brings when it makes a call again that asked it something (MCP 2026-07-28,
/// "Multi Round-Trip Requests").
#[derive(Clone, Debug, Default)]
pub struct Retry {
    /// The answers, by the keys of the questions.
    pub responses: Map<String, Value>,
    /// The `requestState` that it was given, as it sent it.
    pub state: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_question_is_answered_refused_or_finds_nobody() {
        let (relay, mut passing) = Relay::new(Era::Session, Map::new(), false);
        let asking = tokio::spawn({
            let relay = relay.clone();
            async move {
                let first = relay.ask("roots/list", Map::new()).await;
                (first, relay.ask("roots/list", Map::new()).await, relay.ask("roots/list", Map::new()).await)
            }
        });
        for reply in [Ok(json!({ "roots": [] })), Err(json!({ "code": -1 }))] {
            let Some(Passing::Question { method: "roots/list", answer, .. }) = passing.recv().await else {
                panic!("no question")
            };
            answer.send(reply).unwrap();
        }
        drop(passing);
        let (first, second, third) = asking.await.unwrap();
        assert_eq!(first, Ok(json!({ "roots": [] })));
        assert_eq!(second, Err(NoAnswer::Refused(json!({ "code": -1 }))));
        assert_eq!(third, Err(NoAnswer::Gone));
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped_and_said() {
        let (relay, _passing) = Relay::new(Era::Session, Map::new(), true);
        let told = (0..100).filter(|_| relay.tell(Passing::Progress(Map::new()))).count();
        assert_eq!(told, WAITING_MAX);
    }
}
