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

/// A server that says and asks things on the way, as a backend would.
#[cfg(test)]
pub(super) mod fixture {
    use rmcp::{
        ServerHandler,
        model::{CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock},
    };

    use super::*;

    /// Says what it does, asks as often as it is told, and answers with the answers.
    pub(in super::super) struct Talkative {
        pub(in super::super) can_answer: bool,
    }

    impl ServerHandler for Talkative {
        async fn call_tool(
            &self,
            request: CallToolRequestParams,
            context: RequestContext<RoleServer>,
        ) -> Result<CallToolResponse, ErrorData> {
            let asks = request.arguments.and_then(|all| all.get("asks")?.as_u64()).unwrap_or_default();
            let (relay, outlet, passing) = open(&context, Wanted::DEFAULT, self.can_answer);
            let over = CancellationToken::new();
            let work = async {
                let answers = tokio::spawn(backend(relay, asks)).await;
                over.cancel();
                answers
            };
            let work = async {
                tokio::select! { answers = work => Some(answers), () = context.ct.cancelled() => None }
            };
            let work = async {
                let answers = work.await;
                over.cancel();
                answers
            };
            let (answers, ()) = tokio::join!(work, outlet.pump(passing, &over));
            let text = answers.map_or(String::new(), |answers| answers.unwrap().join("; "));
            Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
        }
    }

    fn object(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    async fn backend(relay: Relay, asks: u64) -> Vec<String> {
        let _ = relay.tell(Passing::Progress(object(json!({ "progress": 1, "total": 2 }))));
        for level in ["debug", "error", "nonsense"] {
            let _ = relay.tell(Passing::Log(object(json!({ "level": level, "data": { "n": 1 } }))));
        }
        let mut said = vec![format!("{:?} {}", relay.era(), Value::Object(relay.abilities().clone()))];
        for _ in 0..asks {
            let question =
                object(json!({ "message": "?", "requestedSchema": { "type": "object", "properties": {} } }));
            said.push(match relay.ask("elicitation/create", question).await {
                Ok(answer) => answer.to_string(),
                Err(error) => format!("{error:?}"),
            });
        }
        let _ = relay.tell(Passing::Progress(object(json!({ "progress": 2, "total": 2 }))));
        said
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use rmcp::{
        ClientHandler, RoleClient, ServiceExt as _,
        model::{
            CallToolRequestParams, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
            ElicitationAction, Implementation, ProtocolVersion,
        },
        service::{NotificationContext, RunningService},
    };

    use super::{fixture::Talkative, *};

    /// A client that writes down what it hears, and answers once what it is asked.
    #[derive(Clone, Default)]
    struct Client {
        heard: Arc<Mutex<Vec<String>>>,
    }

    #[expect(deprecated, reason = "logs are still passed on")]
    impl ClientHandler for Client {
        fn get_info(&self) -> ClientConfig {
            let mut info = ClientConfig::new(
                ClientCapabilities::builder().enable_elicitation().build(),
                Implementation::new("it", "1"),
            );
            info.protocol_version = ProtocolVersion::LATEST_WITH_INITIALIZE;
            info
        }

        async fn on_progress(
            &self,
            progress: rmcp::model::ProgressNotificationParam,
            _: NotificationContext<RoleClient>,
        ) {
            self.heard.lock().unwrap().push(format!("progress {}", progress.progress));
        }

        async fn on_logging_message(
            &self,
            log: rmcp::model::LoggingMessageNotificationParam,
            _: NotificationContext<RoleClient>,
        ) {
            self.heard.lock().unwrap().push(format!("log {}", log.data));
        }

        async fn create_elicitation(
            &self,
            _: ElicitRequestParams,
            _: RequestContext<RoleClient>,
        ) -> Result<ElicitResult, ErrorData> {
            let asked_before = {
                let mut heard = self.heard.lock().unwrap();
                let asked_before = heard.iter().any(|one| one == "asked");
                heard.push("asked".into());
                asked_before
            };
            if asked_before {
                return Err(ErrorData::new(rmcp::model::ErrorCode(-1), "not again", None));
            }
            Ok(ElicitResult::new(ElicitationAction::Decline))
        }
    }

    async fn call(can_answer: bool, asks: u64) -> (String, Vec<String>) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move { Talkative { can_answer }.serve(ours).await.unwrap().waiting().await });
        let client: RunningService<RoleClient, Client> = Client::default().serve(theirs).await.unwrap();
        let arguments = json!({ "asks": asks }).as_object().cloned().unwrap();
        let answer = client.call_tool(CallToolRequestParams::new("talk").with_arguments(arguments)).await;
        let text = answer.unwrap().content[0].as_text().unwrap().text.clone();
        let heard = client.service().heard.lock().unwrap().clone();
        (text, heard)
    }

    #[tokio::test]
    async fn what_a_backend_says_and_asks_reaches_a_real_client_and_its_answers_come_back() {
        let (text, heard) = call(true, 2).await;
        let expected = r#"Session {"elicitation":{}}; {"action":"decline"}; Refused(Object {"code": Number(-1), "message": String("not again")})"#;
        assert_eq!(text, expected);
        assert_eq!(heard, ["progress 1", r#"log {"n":1}"#, "asked", "asked", "progress 2"]);
    }

    #[tokio::test]
    async fn who_cannot_answer_is_not_asked_and_is_known_to_be_able_to_do_nothing() {
        let (text, heard) = call(false, 1).await;
        assert_eq!(text, "Session {}; Gone");
        assert_eq!(heard, ["progress 1", r#"log {"n":1}"#, "progress 2"]);
    }

    #[test]
    fn logs_are_passed_on_from_the_level_on_that_was_asked_for() {
        let takes = |wanted: Wanted| {
            LEVELS.iter().filter(|level| wanted.takes(json!({ "level": level }).as_object().unwrap())).count()
        };
        assert_eq!(takes(Wanted::Nothing), 0);
        assert_eq!(takes(Wanted::from("debug")), 8);
        assert_eq!(takes(Wanted::DEFAULT), 7);
        assert_eq!(takes(Wanted::from("emergency")), 1);
        assert_eq!(takes(Wanted::from("loud")), 0);
        assert!(!Wanted::from("debug").takes(json!({ "level": "loud" }).as_object().unwrap()));
    }
}
