//! Calls that outlive their request: whose they are, and who may ask about them.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Map;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{EdgeError, Gateway, Reply};
use crate::{
    call::{Call, CallKind, Origin, Proof, Refusal as _},
    identity::{Caller, IdentityError},
    limits::LimitError,
    manifest::{TaskSupport, TasksSpec, ToolName},
    tasks::{Owner, TaskId, Tasks},
};

/// How long calls that outlive their request may take to end when the process does.
const FINISH_MAX: Duration = Duration::from_secs(8);

/// Somebody who may ask about a task.
#[derive(Debug)]
pub struct Attended {
    /// The task.
    pub id: TaskId,
    /// Whose it is.
    pub owner: Owner,
    /// Who asks.
    pub caller: Caller,
}

/// Why a request about a task is refused.
#[derive(Debug, thiserror::Error)]
pub enum TaskRefusal {
    /// The caller does not prove who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A budget is spent.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// There is no such task for the caller. The same for one that never was, is somebody else's, or is over.
    #[error("unknown task")]
    Unknown,
}

impl TaskRefusal {
    /// The reason in one word, stable over versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Identity(refusal) => refusal.code(),
            Self::Limit(refusal) => refusal.code(),
            Self::Unknown => "unknown_task",
        }
    }

    /// What the agent is told.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            Self::Identity(refusal) => refusal.public_message(),
            Self::Limit(refusal) => refusal.public_message(),
            Self::Unknown => self.to_string(),
        }
    }
}

impl Gateway {
    /// The same gate, which keeps tasks as the operator says.
    #[must_use]
    pub fn keeping(self, tasks: TasksSpec) -> Self {
        Self { tasks: Tasks::new(tasks), ..self }
    }

    /// The calls that outlive their request.
    #[must_use]
    pub const fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Whether there is any tool whose calls can be answered with a task.
    #[must_use]
    pub fn offers_tasks(&self) -> bool {
        self.rules.load().catalog.has_tasks()
    }

    /// Whether calls of a tool are answered with a task, where they can be and the tool exists for whoever shows this
    /// proof; and who that is. Of other tools only their names are looked at.
    pub async fn task_support(
        &self,
        tool: &str,
        proof: &Proof,
        origin: Origin,
    ) -> Option<(TaskSupport, Caller)> {
        let rules = self.rules.load_full();
        let is_never = |tool| rules.catalog.tool(&tool).is_none_or(|tool| tool.manifest().task.is_never());
        if !rules.catalog.has_tasks() || ToolName::parse(tool).ok().is_none_or(is_never) {
            return None;
        }
        let caller = self.identities.authenticate(&rules.clients, proof, origin.source, Timestamp::now());
        let caller = caller.await.ok()?;
        let support = rules.catalog.visible(&caller, tool)?.manifest().task;
        (!support.is_never()).then_some((support, caller))
    }

    /// Whose the tasks of a caller are.
    ///
    /// # Errors
    /// When its run has ended, or cannot be found.
    pub async fn owner(&self, caller: &Caller, proof: &Proof) -> Result<Owner, IdentityError> {
        let run = self.identities.run_of(caller, proof, Timestamp::now()).await?;
        Ok(Owner { principal: caller.principal(), run: run.id() })
    }

    /// Lets somebody ask about a task who has begun it, and may still call its tool. A refusal is on record.
    ///
    /// # Errors
    /// When the caller does not prove who it is, asks too often, or there is no such task for it.
    pub async fn attend(&self, proof: &Proof, origin: Origin, id: &str) -> Result<Attended, TaskRefusal> {
        let attended = self.judge_attendance(proof, origin, id).await;
        if let Err(refusal) = &attended {
            let error = EdgeError { code: refusal.code(), message: refusal.public_message() };
            let nameless = CallKind::Tool { name: String::new(), arguments: Map::new().into() };
            let call = Call::now(nameless, proof.clone(), origin, CancellationToken::new());
            self.refuse_at_edge(call, error).await;
        }
        attended
    }

    async fn judge_attendance(
        &self,
        proof: &Proof,
        origin: Origin,
        id: &str,
    ) -> Result<Attended, TaskRefusal> {
        let (rules, now) = (self.rules.load_full(), Timestamp::now());
        let caller = self.identities.authenticate(&rules.clients, proof, origin.source, now).await?;
        self.limits.spend_request(caller.client().name())?;
        let owner = self.owner(&caller, proof).await?;
        let id = TaskId::parse(id).ok_or(TaskRefusal::Unknown)?;
        let tool = self.tasks.tool(&id, &owner).ok_or(TaskRefusal::Unknown)?;
        let kind = CallKind::Tool { name: tool, arguments: Map::new().into() };
        // Who may not call a tool any more gets none of its answers.
        let may_call = rules.catalog.visible(&caller, kind.target()).is_some()
            && !rules.catalog.needs_step_up(&caller, &kind);
        if may_call { Ok(Attended { id, owner, caller }) } else { Err(TaskRefusal::Unknown) }
    }

    /// Makes a call that may outlive its request.
    pub fn set_out(self: &Arc<Self>, call: Call) -> JoinHandle<Reply> {
        let gateway = Arc::clone(self);
        tokio::spawn(self.under_way.track_future(async move { gateway.call(call).await }))
    }

    /// Cancels the calls that outlive their request, and waits until their ends are on record: for a process that
    /// stops. It takes no more tasks.
    pub async fn finish_tasks(&self) {
        self.tasks.close();
        self.under_way.close();
        if timeout(FINISH_MAX, self.under_way.wait()).await.is_err() {
            tracing::warn!(calls = self.under_way.len(), "calls of tasks did not end in time");
        }
    }
}
