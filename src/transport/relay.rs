//! The caller's end of a call's [`Relay`]: what a backend says on the way is passed on, and what it asks is asked.

use std::time::Duration;

use futures::{StreamExt as _, stream::FuturesUnordered};
use rmcp::{
    ErrorData, RoleServer,
    model::{CustomNotification, CustomRequest, ProgressToken, ServerNotification},
    service::{Peer, PeerRequestOptions, RequestContext, ServiceError},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::call::{Era, Passing, Relay};

/// How long a person or a model may take to answer. The call's own time limit is usually shorter.
const ANSWER_MAX: Duration = Duration::from_secs(600);

/// How many questions of one call may be open.
const QUESTIONS_MAX: usize = 16;

/// How the key of a request's own capabilities is spelled (MCP 2026-07-28).
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// The first revision without sessions.
const STATELESS_SINCE: &str = "2026-07-28";

/// Which lines of a log a caller wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wanted {
    /// None: it did not ask for any (MCP 2026-07-28 logging).
    Nothing,
    /// Those of this rank and above.
    From(u8),
}

impl Wanted {
    /// What a client gets that may set a level and has not: the server decides (MCP 2025-11-25 logging).
    pub(super) const DEFAULT: Self = Self::From(1);

    /// Those of a level, as it is written on the wire, and above.
    pub(super) fn from(level: impl Serialize) -> Self {
        let word = serde_json::to_value(level).ok();
        word.as_ref().and_then(Value::as_str).and_then(rank_of).map_or(Self::Nothing, Self::From)
    }

    fn takes(self, log: &Map<String, Value>) -> bool {
        let level = log.get("level").and_then(Value::as_str).and_then(rank_of);
        matches!((self, level), (Self::From(least), Some(level)) if level >= least)
    }
}

/// RFC 5424 severities, the least first.
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

fn rank_of(level: &str) -> Option<u8> {
    LEVELS.iter().zip(0..).find(|(word, _)| **word == level).map(|(_, rank)| rank)
}

/// How a request speaks.
pub(super) fn era(context: &RequestContext<RoleServer>) -> Era {
    let version = context.protocol_version();
    if version.is_some_and(|version| version.as_str() >= STATELESS_SINCE) {
        Era::Stateless
    } else {
        Era::Session
    }
}

/// What the caller's transport can do for a call.
#[derive(Debug)]
pub(super) struct Outlet {
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
    wanted: Wanted,
    asks: bool,
}

/// A relay for a call, and the two ends that its transport holds. `level` is what the session's client set;
/// `can_answer` says whether answers find their way back.
pub(super) fn open(
    context: &RequestContext<RoleServer>,
    level: Wanted,
    can_answer: bool,
) -> (Relay, Outlet, mpsc::Receiver<Passing>) {
    let era = era(context);
    let (abilities, wanted, asks) = match era {
        Era::Stateless => {
            let abilities = context.meta.get(CAPABILITIES).and_then(Value::as_object).cloned();
            let wanted = context.meta.log_level().map_or(Wanted::Nothing, Wanted::from);
            (abilities.unwrap_or_default(), wanted, false)
        }
        Era::Session => {
            let abilities = context.client_capabilities().and_then(|all| serde_json::to_value(all).ok());
            let abilities = abilities.and_then(|all| match all {
                Value::Object(all) if can_answer => Some(all),
                _ => None, // who cannot be asked can do nothing
            });
            (abilities.unwrap_or_default(), level, can_answer)
        }
    };
    let token = context.meta.get_progress_token();
    let (relay, passing) = Relay::new(era, abilities, token.is_some());
    (relay, Outlet { peer: context.peer.clone(), token, wanted, asks }, passing)
}

impl Outlet {
    /// Passes messages on until the call is over, and then those that came before.
    ///
    /// Await it in the task of the request: what is asked belongs to it.
    pub(super) async fn pump(&self, mut passing: mpsc::Receiver<Passing>, over: &CancellationToken) {
        let mut questions = FuturesUnordered::new();
        loop {
            let message = tokio::select! {
                biased;
                () = over.cancelled() => break,
                Some(()) = questions.next(), if !questions.is_empty() => continue,
                message = passing.recv(), if questions.len() < QUESTIONS_MAX => message,
            };
            match message {
                Some(Passing::Question { method, params, answer }) if self.asks => {
                    questions.push(self.ask(method, params, answer, over));
                }
                Some(message) => self.tell(message).await,
                None => break,
            }
        }
        while questions.next().await.is_some() {} // they end with the call
        passing.close();
        while let Ok(message) = passing.try_recv() {
            self.tell(message).await;
        }
    }

    /// Passes a message on, if it is wanted. A question is dropped, which its asker is told.
    async fn tell(&self, message: Passing) {
        let (method, params) = match (message, &self.token) {
            (Passing::Progress(mut progress), Some(token)) => {
                let Ok(token) = serde_json::to_value(token) else { return };
                progress.insert("progressToken".into(), token);
                ("notifications/progress", progress)
            }
            (Passing::Log(log), _) if self.wanted.takes(&log) => ("notifications/message", log),
            _ => return,
        };
        let notification = CustomNotification::new(method, Some(Value::Object(params)));
        // Whoever hung up misses it.
        let _ = self.peer.send_notification(ServerNotification::CustomNotification(notification)).await;
    }

    async fn ask(
        &self,
        method: &'static str,
        mut params: Map<String, Value>,
        mut answer: oneshot::Sender<Result<Value, Value>>,
        over: &CancellationToken,
    ) {
        // What a backend tells its own client beside the question is not for ours; the library adds a token here.
        params.remove("_meta");
        let request = CustomRequest::new(method, Some(Value::Object(params)));
        let options = PeerRequestOptions::with_timeout(ANSWER_MAX);
        let Ok(mut asked) = self.peer.send_cancellable_request(request.into(), options).await else { return };
        let result = tokio::select! {
            result = &mut asked.rx => result,
            () = over.cancelled() => return withdraw(asked, "the call is over").await,
            () = answer.closed() => return withdraw(asked, "nobody waits for the answer any more").await,
            () = tokio::time::sleep(ANSWER_MAX) => return withdraw(asked, "no answer came in time").await,
        };
        let _ = match result {
            Ok(Ok(result)) => match serde_json::to_value(result) {
                Ok(result) => answer.send(Ok(result)),
                Err(_) => return,
            },
            Ok(Err(ServiceError::McpError(error))) => answer.send(Err(refusal(&error))),
            Ok(Err(_)) | Err(_) => return, // the line is cut
        };
    }
}

async fn withdraw(asked: rmcp::service::RequestHandle<RoleServer>, reason: &str) {
    let _ = asked.cancel(Some(reason.to_owned())).await;
}

fn refusal(error: &ErrorData) -> Value {
    serde_json::to_value(error).unwrap_or_else(|_| json!({ "code": error.code.0, "message": "refused" }))
}
