//! Tasks of other MCP servers (the extension `io.modelcontextprotocol/tasks`): followed until they end or ask.
//!
//! A server is told that its client knows tasks where the gate's own caller does, and gets one of the gate. Its task
//! never leaves the gate: what it ends with is looked at like any answer, and what it asks is asked in its stead.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Leaving, exchange_of, of_upstream};
use crate::{
    backend::BackendError,
    call::Era,
    manifest::McpBackend,
    plan::Resumed,
    upstream::{Answer, Connection, Exchange, Taken, UpstreamError},
};

const EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// What a caller brings back to a task that asked, before its id. It is sealed on its way.
const STATE: &str = "callgate:task:";

/// How often a task is looked at whose server does not say how often it may be, and the bounds where it does.
const POLL: Duration = Duration::from_secs(1);
const POLL_MIN: Duration = Duration::from_millis(100);
const POLL_MAX: Duration = Duration::from_secs(10);

/// How long a server that knows tasks may take to say whether it makes one. Then the call is one that takes its time.
const BEGINS_WITHIN: Duration = Duration::from_secs(1);

/// How long it may take to tell a server that nobody waits for its task any more.
const CANCEL_MAX: Duration = Duration::from_secs(2);

/// Says to a server that its client knows tasks.
pub(super) fn declare(abilities: &mut Map<String, Value>) {
    abilities.insert("extensions".into(), json!({ EXTENSION: {} }));
}

/// Whether a server says that it knows tasks.
fn knows_tasks(connection: &Connection) -> bool {
    let server = connection.server();
    let extensions = server.capabilities.get("extensions");
    server.era == Era::Stateless && extensions.and_then(|all| all.get(EXTENSION)).is_some()
}

/// The task that an answer is, or that a caller comes back to.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Theirs {
    id: String,
    /// The keys that were answered, which may be asked still for a moment.
    answered: Vec<String>,
    poll: Duration,
}

impl Theirs {
    /// The task that an answer is.
    pub(super) fn of(result: &Map<String, Value>) -> Option<Self> {
        let is_task = result.get("resultType").and_then(Value::as_str) == Some("task");
        let id = result.get("taskId").and_then(Value::as_str).filter(|_| is_task)?;
        Some(Self { id: id.to_owned(), answered: Vec::new(), poll: poll(result) })
    }

    /// The task that asked what is answered now.
    pub(super) fn resumed(resumed: Option<&Resumed>) -> Option<(Self, &Map<String, Value>)> {
        let Resumed { responses, state } = resumed?;
        let id = state.as_deref()?.strip_prefix(STATE)?;
        Some((
            Self { id: id.to_owned(), answered: responses.keys().cloned().collect(), poll: POLL_MIN },
            responses,
        ))
    }

    fn params(&self) -> Map<String, Value> {
        Map::from_iter([("taskId".to_owned(), Value::String(self.id.clone()))])
    }
}

fn poll(task: &Map<String, Value>) -> Duration {
    let said = task.get("pollIntervalMs").and_then(Value::as_u64);
    said.map_or(POLL, Duration::from_millis).clamp(POLL_MIN, POLL_MAX)
}

/// What a task came to, as the answer to a call.
enum Came {
    /// To this.
    To(Map<String, Value>),
    /// To nothing yet.
    Nothing,
    /// To an error.
    Error(UpstreamError),
}

/// What follows a task: the one who carries out the call.
pub(super) struct Follower<'a> {
    pub(super) connection: &'a Taken,
    pub(super) backend: &'a McpBackend,
    pub(super) leaving: &'a Leaving<'a>,
    pub(super) deadline: Instant,
}

impl Follower<'_> {
    /// Waits for an answer. The call is under way when a server takes its time, or has no tasks to say so.
    pub(super) async fn first(
        &self,
        answer: impl Future<Output = Result<Answer, BackendError>>,
    ) -> Result<Answer, BackendError> {
        if !knows_tasks(self.connection) {
            self.leaving.committed.is_under_way();
            return answer.await;
        }
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            () = sleep(BEGINS_WITHIN) => self.leaving.committed.is_under_way(),
        }
        answer.await
    }

    /// Gives a server the answers that its task waits for.
    pub(super) async fn answer(
        &self,
        task: &Theirs,
        responses: &Map<String, Value>,
    ) -> Result<(), BackendError> {
        let mut params = task.params();
        params.insert("inputResponses".into(), Value::Object(responses.clone()));
        self.ask("tasks/update", params).await.map(drop)
    }

    /// Follows a task until it ends or asks: what it came to, as the answer to the call.
    pub(super) async fn follow(&self, task: Theirs) -> Result<Answer, BackendError> {
        self.leaving.committed.is_under_way();
        let followed = self.until_it_comes_to_something(&task).await;
        if let Err(Stopped::Here(_)) = &followed {
            let never = CancellationToken::new();
            let exchange = Exchange::new(Instant::now() + CANCEL_MAX, &never);
            let told = self.connection.request("tasks/cancel", task.params(), exchange);
            let _ = timeout(CANCEL_MAX, told).await;
        }
        followed.map_err(|(Stopped::Here(error) | Stopped::There(error))| error)
    }

    async fn until_it_comes_to_something(&self, task: &Theirs) -> Result<Answer, Stopped> {
        let mut pause = task.poll;
        loop {
            tokio::select! {
                biased;
                () = self.leaving.committed.cancel.cancelled() => {
                    return Err(Stopped::Here(BackendError::Cancelled { sent: true }));
                }
                () = sleep(pause) => {}
            }
            let mut answer = self.ask("tasks/get", task.params()).await.map_err(Stopped::Here)?;
            pause = poll(&answer.result);
            match came_to(std::mem::take(&mut answer.result), task) {
                Some(Came::To(result)) => return Ok(Answer { result, ..answer }),
                Some(Came::Nothing) => {}
                Some(Came::Error(error)) => {
                    return Err(Stopped::There(of_upstream(error, self.leaving.timeout)));
                }
                None => return Err(Stopped::Here(BackendError::NotMcp)),
            }
        }
    }

    async fn ask(&self, method: &'static str, params: Map<String, Value>) -> Result<Answer, BackendError> {
        let exchange = Exchange { relay: None, ..exchange_of(self.backend, self.leaving, self.deadline) };
        let answer = self.connection.request(method, params, exchange).await;
        answer.map_err(|error| of_upstream(error, self.leaving.timeout))
    }
}

/// Where a task was stopped: by the gate, which its server has to be told, or by the server.
enum Stopped {
    Here(BackendError),
    There(BackendError),
}

/// What the state of a task means for its call. None where it is no task's.
fn came_to(mut state: Map<String, Value>, task: &Theirs) -> Option<Came> {
    Some(match state.get("status")?.as_str()? {
        "working" => Came::Nothing,
        "completed" => match state.remove("result")? {
            Value::Object(result) => Came::To(result),
            _ => return None,
        },
        "input_required" => {
            let Value::Object(mut requests) = state.remove("inputRequests")? else { return None };
            requests.retain(|key, _| !task.answered.contains(key));
            if requests.is_empty() {
                return Some(Came::Nothing);
            }
            Came::To(Map::from_iter([
                ("resultType".to_owned(), "input_required".into()),
                ("inputRequests".to_owned(), Value::Object(requests)),
                ("requestState".to_owned(), format!("{STATE}{}", task.id).into()),
            ]))
        }
        "failed" => {
            let error = state.remove("error")?;
            Came::Error(UpstreamError::Refused {
                code: error.get("code")?.as_i64()?,
                message: error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned(),
                data: error.get("data").cloned(),
            })
        }
        "cancelled" => {
            Came::Error(UpstreamError::Refused { code: -32603, message: "cancelled".into(), data: None })
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn came(state: Value, answered: &[&str]) -> String {
        let answered = answered.iter().map(ToString::to_string).collect();
        match came_to(object(state), &Theirs { id: "t".into(), answered, poll: POLL }) {
            None => "none".into(),
            Some(Came::Nothing) => "nothing".into(),
            Some(Came::To(result)) => Value::Object(result).to_string(),
            Some(Came::Error(error)) => error.to_string(),
        }
    }

    #[test]
    fn a_task_is_told_from_other_answers_and_looked_at_as_often_as_its_server_says_within_bounds() {
        let of = |answer: Value| Theirs::of(&object(answer)).map(|task| (task.id, task.poll));
        let every = |ms: u64| of(json!({ "resultType": "task", "taskId": "t", "pollIntervalMs": ms }));
        assert_eq!(every(500), Some(("t".into(), Duration::from_millis(500))));
        assert_eq!(every(0), Some(("t".into(), POLL_MIN)));
        assert_eq!(every(u64::MAX), Some(("t".into(), POLL_MAX)));
        assert_eq!(of(json!({ "resultType": "task", "taskId": "t" })), Some(("t".into(), POLL)));
        for other in [
            json!({ "taskId": "t" }),
            json!({ "resultType": "task" }),
            json!({ "resultType": "task", "taskId": 7 }),
        ] {
            assert_eq!(of(other.clone()), None, "{other}");
        }
        let resumed = |state: Option<&str>| Resumed {
            responses: object(json!({ "k": 1 })),
            state: state.map(str::to_owned),
        };
        assert_eq!(Theirs::resumed(Some(&resumed(Some("callgate:task:t")))).unwrap().0.id, "t");
        assert_eq!(Theirs::resumed(Some(&resumed(Some("t")))), None);
        assert_eq!(Theirs::resumed(Some(&resumed(None))), None);
        assert_eq!(Theirs::resumed(None), None);
    }

    #[test]
    fn each_state_of_a_task_is_something_and_others_are_none() {
        assert_eq!(came(json!({ "status": "working" }), &[]), "nothing");
        assert_eq!(
            came(json!({ "status": "completed", "result": { "content": [] } }), &[]),
            r#"{"content":[]}"#
        );
        let asks = json!({ "status": "input_required", "inputRequests": { "a": 1, "b": 2 } });
        let asked = came(asks.clone(), &["a"]);
        let asked: Value = serde_json::from_str(&asked).unwrap();
        assert_eq!(asked["inputRequests"], json!({ "b": 2 }));
        assert_eq!(asked["requestState"], "callgate:task:t");
        assert_eq!(came(asks, &["b", "a"]), "nothing", "it has not seen the answers yet");
        assert_eq!(
            came(json!({ "status": "failed", "error": { "code": -7, "message": "m" } }), &[]),
            "the upstream refused the request with JSON-RPC error -7"
        );
        assert_eq!(
            came(json!({ "status": "cancelled" }), &[]),
            "the upstream refused the request with JSON-RPC error -32603"
        );
        for odd in [
            json!({}),
            json!({ "status": 7 }),
            json!({ "status": "unheard-of" }),
            json!({ "status": "completed" }),
            json!({ "status": "completed", "result": "text" }),
            json!({ "status": "failed" }),
            json!({ "status": "failed", "error": { "code": "x" } }),
            json!({ "status": "input_required", "inputRequests": [] }),
        ] {
            assert_eq!(came(odd.clone(), &[]), "none", "{odd}");
        }
    }
}
