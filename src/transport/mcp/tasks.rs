//! Calls that are answered with a task, and what is asked about those (MCP 2026-07-28, the extension
//! `io.modelcontextprotocol/tasks`).
//!
//! A task begins when the guards have let its call go to the backend: what they refuse is refused at once. Each
//! request about a task shows a proof of its own.

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolResponse, ClientCapabilities, CreateTaskResult, DetailedTask, ErrorCode, GetTaskResult,
        InputRequests, InputResponses, Task, TaskPayload, TaskStatus,
    },
    service::RequestContext,
};
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Again, CALL_MAX, Handler, Shown};
use crate::{
    call::{Call, CallKind, Era},
    gateway::{Answer, Attended, EdgeError, Gateway, Notice, Reply, TaskRefusal},
    identity::Caller,
    manifest::{BackendSpec, TaskSupport},
    output::Content,
    runs::RunId,
    tasks::{AnswerError, Answered, End, Full, Moment, NewTask, Status, TaskId, View},
    transport::{
        refusal::BUSY,
        relay::{self, Wanted},
        wire::{unspeakable, wire_reply},
    },
};

/// How often a client is asked to look.
const POLL_MS: u64 = 1_000;

/// How often it is looked whether a task's caller still stands.
const LOOK: Duration = Duration::from_millis(500);

type Context = RequestContext<RoleServer>;

/// A request's place among those that are worked on, which a task may keep.
#[derive(Clone, Debug, Default)]
pub(in crate::transport) struct Lent(Arc<Mutex<Option<Place>>>);

type Place = Box<dyn Any + Send + Sync>;

impl Lent {
    pub(in crate::transport) fn put(&self, place: impl Any + Send + Sync) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(place));
    }

    /// The place, for the first who takes it.
    pub(in crate::transport) fn take(&self) -> Option<Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How a call of a tool goes.
pub(super) enum Way {
    /// It is waited for.
    Waits,
    /// It is answered with a task, of this caller.
    Task(TaskSupport, Caller),
    /// Only a client that knows tasks may make it.
    Refused,
}

impl Handler {
    /// How a call of a tool goes: as a task where its manifest says so, and this request's client knows tasks.
    pub(super) async fn way(&self, tool: &str, context: &Context) -> Way {
        let Shown { proof, origin, .. } = self.shown(context);
        match (self.gateway.task_support(tool, &proof, origin).await, knows_tasks(context)) {
            (Some((support, caller)), true) => Way::Task(support, caller),
            (Some((TaskSupport::Required, _)), false) => Way::Refused,
            _ => Way::Waits,
        }
    }

    /// Refuses a call to a client that knows no tasks, on record.
    pub(super) async fn refuse_without_tasks(&self, kind: CallKind, context: &Context) -> ErrorData {
        self.refuse_on_record(kind, context, "task_required", "the tool needs a client that knows tasks")
            .await;
        ErrorData::missing_required_client_capability(ClientCapabilities::builder().enable_tasks().build())
    }

    async fn refuse_on_record(&self, kind: CallKind, context: &Context, code: &'static str, message: &str) {
        let Shown { proof, origin, reached, .. } = self.shown(context);
        reached.store(true, Ordering::Relaxed);
        let error = EdgeError { code, message: message.to_owned() };
        let call = Call::now(kind, proof, origin, CancellationToken::new());
        let gateway = Arc::clone(&self.gateway);
        let _ = tokio::spawn(async move { gateway.refuse_at_edge(call, error).await }).await;
    }

    /// Makes a call that is answered with a task as soon as the guards have let it go. None where there is no room
    /// for a task, and the call may be waited for.
    pub(super) async fn call_as_task(
        &self,
        kind: &CallKind,
        again: &Again,
        (support, caller): (TaskSupport, Caller),
        context: &Context,
    ) -> Result<Option<CallToolResponse>, ErrorData> {
        let Shown { proof, origin, reached, place } = self.shown(context);
        let owner = self.gateway.owner(&caller, &proof).await;
        let owner = owner.map_err(|_| ErrorData::invalid_request("authentication failed", None))?;
        let (cancel, begun, run) = (CancellationToken::new(), CancellationToken::new(), owner.run);
        let new = NewTask {
            owner: owner.clone(),
            tool: kind.target().to_owned(),
            call: self.may_ask(kind.target(), &caller).then(|| kind.clone()),
            cancel: cancel.clone(),
        };
        let id = match (self.gateway.tasks().begin(new, Moment::now()), support) {
            (Ok(id), _) => id,
            (Err(Full), TaskSupport::Required) => {
                self.refuse_on_record(kind.clone(), context, "tasks_full", &Full.to_string()).await;
                return Err(busy(Full.to_string()));
            }
            (Err(Full), _) => return Ok(None),
        };
        let mut unborn = Unborn { gateway: &self.gateway, id: Some(id) };
        reached.store(true, Ordering::Relaxed);
        // What is said on the way is said to nobody.
        let (relay, ..) = relay::open(context, Wanted::Nothing, false);
        let traceparent = context.meta.get("traceparent").and_then(Value::as_str);
        let call = Call::now(kind.clone(), proof, origin, cancel.clone()).traced(traceparent).relayed(relay);
        let call = Call { retry: again.retry(), outlives: Some(begun.clone()), ..call };
        let mut called = self.gateway.set_out(call);
        tokio::select! {
            biased;
            () = begun.cancelled() => {}
            reply = &mut called => return wire_reply(reply.map_err(|_| internal())?).map(Some),
            () = context.ct.cancelled() => {
                cancel.cancel();
                return Err(internal());
            }
        }
        let view = self.gateway.tasks().view(&id, &owner, Moment::now()).ok_or_else(internal)?;
        unborn.id = None;
        let under_way = UnderWay { gateway: Arc::clone(&self.gateway), id, caller, run, cancel };
        tokio::spawn(under_way.see_to(called, place.take()));
        Ok(Some(CreateTaskResult::new(wire_task(&view)).into()))
    }

    /// Whether a call may ask its caller something, and so be made again.
    fn may_ask(&self, tool: &str, caller: &Caller) -> bool {
        let tool = self.gateway.visible(caller, tool);
        tool.is_some_and(
            |tool| matches!(&tool.manifest().backend, BackendSpec::Mcp(backend) if !backend.asks.is_empty()),
        )
    }

    pub(super) async fn task(&self, id: &str, context: &Context) -> Result<GetTaskResult, ErrorData> {
        let attended = self.find(id, context).await?;
        let view = self.gateway.tasks().view(&attended.id, &attended.owner, Moment::now());
        Ok(GetTaskResult::new(wire_detailed(view.ok_or_else(unknown)?)?))
    }

    pub(super) async fn answer_task(
        &self,
        id: &str,
        responses: InputResponses,
        context: &Context,
    ) -> Result<(), ErrorData> {
        let Attended { id, owner, caller } = self.find(id, context).await?;
        let resumption = match self.gateway.tasks().answer(&id, &owner, responses, Moment::now()) {
            Ok(Answered::Waits) => return Ok(()),
            Ok(Answered::Resumes(resumption)) => *resumption,
            Err(AnswerError::Unknown) => return Err(unknown()),
            Err(AnswerError::Full(full)) => return Err(busy(full.to_string())),
        };
        let Shown { proof, origin, place, .. } = self.shown(context);
        let (relay, ..) = relay::open(context, Wanted::Nothing, false);
        let call = Call::now(resumption.kind, proof, origin, resumption.cancel.clone()).relayed(relay);
        let called = self.gateway.set_out(Call {
            retry: Some(resumption.retry),
            outlives: Some(CancellationToken::new()),
            ..call
        });
        let (gateway, run, cancel) = (Arc::clone(&self.gateway), owner.run, resumption.cancel);
        tokio::spawn(UnderWay { gateway, id, caller, run, cancel }.see_to(called, place.take()));
        Ok(())
    }

    pub(super) async fn cancel_task_of(&self, id: &str, context: &Context) -> Result<(), ErrorData> {
        let Attended { id, owner, .. } = self.find(id, context).await?;
        self.gateway.tasks().cancel(&id, &owner, Moment::now()).ok_or_else(unknown)
    }

    /// Lets the caller ask about a task that is its own.
    async fn find(&self, id: &str, context: &Context) -> Result<Attended, ErrorData> {
        let Shown { proof, origin, reached, .. } = self.shown(context);
        reached.store(true, Ordering::Relaxed);
        let (gateway, id) = (Arc::clone(&self.gateway), id.to_owned());
        // A task of its own: a client that hangs up drops no record.
        let attended = tokio::spawn(async move { gateway.attend(&proof, origin, &id).await }).await;
        attended.map_err(|_| internal())?.map_err(|refusal| match refusal {
            TaskRefusal::Unknown => unknown(),
            TaskRefusal::Limit(_) => busy(refusal.public_message()),
            TaskRefusal::Identity(_) => ErrorData::invalid_request(refusal.public_message(), None),
        })
    }
}

/// Whether a request says that its client knows tasks. Only revisions without sessions have them.
fn knows_tasks(context: &Context) -> bool {
    relay::era(context) == Era::Stateless
        && context.client_capabilities().is_some_and(|capabilities| capabilities.supports_tasks())
}

/// A task that nobody was told of: it is forgotten, unless its id is taken out.
struct Unborn<'a> {
    gateway: &'a Gateway,
    id: Option<TaskId>,
}

impl Drop for Unborn<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.gateway.tasks().forget(&id);
        }
    }
}

/// A task whose call is under way.
struct UnderWay {
    gateway: Arc<Gateway>,
    id: TaskId,
    caller: Caller,
    run: RunId,
    cancel: CancellationToken,
}

impl UnderWay {
    /// Sees to it that a task has an end, that its place is given back then, and that it is forgotten when it is
    /// over, or its caller does not stand any more.
    async fn see_to(self, mut called: JoinHandle<Reply>, place: Option<Place>) {
        let late = tokio::time::sleep(CALL_MAX);
        tokio::pin!(late);
        let mut is_late = false;
        let reply = loop {
            tokio::select! {
                reply = &mut called => break reply,
                () = tokio::time::sleep(LOOK) => self.look(),
                () = &mut late, if !is_late => {
                    is_late = true;
                    self.cancel.cancel();
                }
            }
        };
        drop(place);
        let (tasks, now) = (self.gateway.tasks(), Moment::now());
        match reply.map_or_else(|_| Settled::End(failed(&internal())), settle) {
            Settled::End(end) => tasks.end(&self.id, end, now),
            Settled::Asks { requests, state } => {
                let failure = failed(&ErrorData::internal_error("the tool asks for more than it may", None));
                tasks.ask(&self.id, requests, state, failure, now);
            }
        }
        while let Some(expires) = tasks.expires(&self.id, Moment::now()) {
            let next = (Instant::now() + LOOK).min(expires);
            tokio::time::sleep_until(next.into()).await;
            self.look();
        }
    }

    /// Forgets the task, and cancels its call, if whoever began it does not stand any more.
    fn look(&self) {
        if !self.gateway.stands(&self.caller, Some(self.run)) {
            self.gateway.tasks().forget(&self.id);
        }
    }
}

/// What a call came to.
enum Settled {
    End(End),
    Asks { requests: Map<String, Value>, state: Option<String> },
}

fn settle(reply: Reply) -> Settled {
    // An error of the protocol at the other server is one here, too.
    if let Err(Notice::Refused { code: "upstream_refused", message, .. }) = &reply.body {
        let data = reply.id.map(|id| json!({ "callgate/record": id.to_string() }));
        return Settled::End(failed(&ErrorData::internal_error(message.clone(), data)));
    }
    if let Ok(Answer { content: Content::Questions { requests, state }, .. }) = reply.body {
        // What a client could not read it cannot answer.
        return match (serde_json::from_value::<InputRequests>(requests.clone()), requests) {
            (Ok(_), Value::Object(requests)) => Settled::Asks { requests, state },
            _ => Settled::End(failed(&unspeakable())),
        };
    }
    Settled::End(match wire_reply(reply) {
        Ok(CallToolResponse::Complete(result)) => match serde_json::to_vec(&result) {
            Ok(bytes) => End::Completed { result: bytes.into(), succeeded: result.is_error != Some(true) },
            Err(_) => failed(&unspeakable()),
        },
        Ok(_) => failed(&unspeakable()),
        Err(error) => failed(&error),
    })
}

fn failed(error: &ErrorData) -> End {
    End::Failed(serde_json::to_vec(error).unwrap_or_default().into())
}

fn wire_task(view: &View) -> Task {
    let status = match &view.status {
        Status::Working => TaskStatus::Working,
        Status::Asking(_) => TaskStatus::InputRequired,
        Status::Ended(End::Completed { .. }) => TaskStatus::Completed,
        Status::Ended(End::Failed(_)) => TaskStatus::Failed,
        Status::Ended(End::Cancelled) => TaskStatus::Cancelled,
    };
    Task::new(view.id.to_string(), status, moment(view.created), moment(view.updated))
        .with_ttl_ms(view.ttl_ms)
        .with_poll_interval_ms(POLL_MS)
}

fn moment(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}

fn wire_detailed(view: View) -> Result<DetailedTask, ErrorData> {
    let mut task = wire_task(&view);
    let read = |bytes: &[u8]| serde_json::from_slice::<Map<String, Value>>(bytes).map_err(|_| unspeakable());
    let payload = match view.status {
        Status::Working => TaskPayload::Working,
        Status::Asking(questions) => TaskPayload::InputRequired {
            input_requests: serde_json::from_value(Value::Object(questions)).map_err(|_| unspeakable())?,
        },
        Status::Ended(End::Completed { result, .. }) => TaskPayload::Completed { result: read(&result)? },
        Status::Ended(End::Failed(error)) => {
            let error = read(&error)?;
            task.status_message = error.get("message").and_then(Value::as_str).map(str::to_owned);
            TaskPayload::Failed { error }
        }
        Status::Ended(End::Cancelled) => TaskPayload::Cancelled,
    };
    Ok(DetailedTask::new(task, payload))
}

fn unknown() -> ErrorData {
    ErrorData::invalid_params("unknown task", None)
}

fn busy(message: String) -> ErrorData {
    ErrorData::new(ErrorCode(BUSY), message, None)
}

fn internal() -> ErrorData {
    ErrorData::internal_error("internal error", None)
}
