//! Tasks: calls that outlive their request (MCP 2026-07-28, the extension `io.modelcontextprotocol/tasks`).
//!
//! A task is one principal's in one run, and is known by an id that nobody can guess. It is under way, waits for
//! what its caller is asked, or has ended; what it ended with is kept for a while. All of it is in memory and
//! bounded: by number and by bytes, per client and in all. Nothing here waits or looks at a clock.

mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::{
    call::{CallKind, Retry},
    manifest::TasksSpec,
    runs::{Principal, RunId},
};
use table::{Asking, Phase, Table, Task, Usage};

/// What a task costs besides what it holds.
const TASK_BYTES: usize = 1 << 10;

/// How often one call may ask its caller.
const ROUNDS_MAX: usize = 16;

/// The id of a task: 16 random bytes, in hexadecimal.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TaskId([u8; 16]);

impl TaskId {
    fn random() -> Option<Self> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).ok()?;
        Some(Self(id))
    }

    /// Reads 32 hexadecimal digits in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok()?;
        text.bytes().all(|digit| !digit.is_ascii_uppercase()).then_some(Self(id))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Whose a task is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Owner {
    /// The client, and the user that it acts for.
    pub principal: Principal,
    /// The run that the call belongs to.
    pub run: RunId,
}

/// A moment, for people and for measuring.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// As people tell the time.
    pub time: Timestamp,
    /// As it passes, whatever is done to the clock.
    pub tick: Instant,
}

impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        Self { time: Timestamp::now(), tick: Instant::now() }
    }
}

/// A task to begin.
#[derive(Debug)]
pub struct NewTask {
    /// Whose it is.
    pub owner: Owner,
    /// The tool that is called.
    pub tool: String,
    /// The call, where it may ask its caller something and be made again with the answers.
    pub call: Option<CallKind>,
    /// Cancels the call.
    pub cancel: CancellationToken,
}

/// Why no task begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("as many tasks are kept as may be: come back later")]
pub struct Full;

/// How a task ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// With a result: JSON.
    Completed {
        /// The result, as it is sent.
        result: Arc<[u8]>,
        /// Whether it is no report of a failure.
        succeeded: bool,
    },
    /// With an error of the protocol: JSON.
    Failed(Arc<[u8]>),
    /// It was cancelled.
    Cancelled,
}

impl End {
    fn bytes(&self) -> usize {
        match self {
            Self::Completed { result: bytes, .. } | Self::Failed(bytes) => bytes.len(),
            Self::Cancelled => 0,
        }
    }
}

/// Where a task stands.
#[derive(Clone, Debug)]
pub enum Status {
    /// It is under way.
    Working,
    /// It waits for answers to these questions.
    Asking(Map<String, Value>),
    /// It has ended.
    Ended(End),
}

/// A task, as its owner sees it.
#[derive(Clone, Debug)]
pub struct View {
    /// Its id.
    pub id: TaskId,
    /// When it began.
    pub created: Timestamp,
    /// When it began to stand where it stands.
    pub updated: Timestamp,
    /// From its beginning on, how long it is kept at least.
    pub ttl_ms: u64,
    /// Where it stands.
    pub status: Status,
}

/// What became of answers.
#[derive(Debug)]
pub enum Answered {
    /// They are kept, as far as they were asked for, and more are waited for.
    Waits,
    /// They are all there: the call is to be made again with them.
    Resumes(Box<Resumption>),
}

/// A call that is to be made again.
#[derive(Debug)]
pub struct Resumption {
    /// What is called.
    pub kind: CallKind,
    /// The answers, and what they belong to.
    pub retry: Retry,
    /// Cancels the call.
    pub cancel: CancellationToken,
}

/// Why answers are not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AnswerError {
    /// There is no such task.
    #[error("unknown task")]
    Unknown,
    /// There is no room for them.
    #[error(transparent)]
    Full(#[from] Full),
}

/// The tasks of one process.
#[derive(Debug)]
pub struct Tasks {
    spec: TasksSpec,
    table: Mutex<Table>,
}

impl Tasks {
    /// None yet.
    #[must_use]
    pub fn new(spec: TasksSpec) -> Self {
        Self { spec, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a task, which nobody knows of until its id is told.
    ///
    /// # Errors
    /// When there is no room.
    pub fn begin(&self, new: NewTask, now: Moment) -> Result<TaskId, Full> {
        let id = TaskId::random().ok_or(Full)?;
        let bytes = TASK_BYTES
            + new.tool.len()
            + new.call.as_ref().map_or(0, |call| length(call.arguments().as_value()));
        let mut table = self.table();
        if table.is_closed
            || !table.make_room(&self.spec, &new.owner.principal.client, Usage { tasks: 1, bytes }, now)
        {
            return Err(Full);
        }
        let NewTask { owner, tool, call, cancel } = new;
        let task = Task {
            owner,
            tool,
            call,
            cancel,
            is_cancelled: false,
            created: now,
            updated: now.time,
            expires: None,
            keys: HashSet::new(),
            rounds: 0,
            bytes: 0,
            phase: Phase::Working,
        };
        table.insert(id, task, bytes);
        Ok(id)
    }

    /// The tool of a task that is its asker's own.
    #[must_use]
    pub fn tool(&self, id: &TaskId, owner: &Owner) -> Option<String> {
        self.table().tasks.get(id).filter(|task| task.owner == *owner).map(|task| task.tool.clone())
    }

    /// A task that is its asker's own. What it ended with counts as fetched.
    #[must_use]
    pub fn view(&self, id: &TaskId, owner: &Owner, now: Moment) -> Option<View> {
        let mut table = self.table();
        let task = table.of(id, owner, now)?;
        let status = match &mut task.phase {
            Phase::Working => Status::Working,
            Phase::Asking(asking) => Status::Asking(asking.questions.clone()),
            Phase::Ended { end, is_fetched } => {
                *is_fetched = true;
                Status::Ended(end.clone())
            }
        };
        Some(View {
            id: *id,
            created: task.created.time,
            updated: task.updated,
            ttl_ms: task.ttl_ms(self.spec.ttl.duration(), now),
            status,
        })
    }

    /// Says what a task that is under way has to ask. One that was cancelled has ended by that, and one that cannot
    /// be asked fails with `failure`.
    pub fn ask(
        &self,
        id: &TaskId,
        asked: Map<String, Value>,
        state: Option<String>,
        failure: End,
        now: Moment,
    ) {
        let mut table = self.table();
        let Some(task) = table.tasks.get_mut(id).filter(|task| matches!(task.phase, Phase::Working)) else {
            return;
        };
        if task.is_cancelled {
            return table.end(id, End::Cancelled, &self.spec, now);
        }
        task.rounds += 1;
        if task.rounds > ROUNDS_MAX || task.call.is_none() || asked.is_empty() {
            return table.end(id, failure, &self.spec, now);
        }
        let (mut questions, mut asked_as) = (Map::new(), HashMap::new());
        for (key, question) in asked {
            let shown = task.new_key(&key);
            questions.insert(shown.clone(), question);
            asked_as.insert(shown, key);
        }
        let keys: usize = asked_as.iter().map(|(shown, key)| 2 * shown.len() + key.len()).sum();
        let bytes =
            keys + state.as_ref().map_or(0, String::len) + questions.values().map(length).sum::<usize>();
        if !table.grow(id, bytes, &self.spec, now) {
            return table.end(id, failure, &self.spec, now);
        }
        let Some(task) = table.tasks.get_mut(id) else { return };
        task.phase = Phase::Asking(Asking { questions, asked_as, answers: Map::new(), state });
        task.stands_since(now, Some(self.spec.ttl.duration()));
    }

    /// Takes answers, as far as they are to what is asked. Each question takes one.
    ///
    /// # Errors
    /// When there is no such task, or no room.
    pub fn answer(
        &self,
        id: &TaskId,
        owner: &Owner,
        responses: impl IntoIterator<Item = (String, Value)>,
        now: Moment,
    ) -> Result<Answered, AnswerError> {
        let mut table = self.table();
        let task = table.of(id, owner, now).ok_or(AnswerError::Unknown)?;
        let Phase::Asking(asking) = &task.phase else { return Ok(Answered::Waits) };
        let is_asked = |(key, _): &(String, Value)| asking.questions.contains_key(key);
        let responses: Vec<_> = responses.into_iter().filter(is_asked).collect();
        let bytes = responses.iter().map(|(key, response)| key.len() + length(response)).sum();
        if !table.grow(id, bytes, &self.spec, now) {
            return Err(Full.into());
        }
        let task = table.tasks.get_mut(id).ok_or(AnswerError::Unknown)?;
        let Phase::Asking(asking) = &mut task.phase else { return Ok(Answered::Waits) };
        for (key, response) in responses {
            if asking.questions.remove(&key).is_some()
                && let Some(asked_as) = asking.asked_as.remove(&key)
            {
                asking.answers.insert(asked_as, response);
            }
        }
        let (true, Some(kind)) = (asking.questions.is_empty(), &task.call) else {
            return Ok(Answered::Waits);
        };
        let retry = Retry { responses: std::mem::take(&mut asking.answers), state: asking.state.take() };
        let resumption = Resumption { kind: kind.clone(), retry, cancel: task.cancel.clone() };
        task.phase = Phase::Working;
        task.stands_since(now, None);
        Ok(Answered::Resumes(Box::new(resumption)))
    }

    /// Ends a task that is under way. One that was cancelled before it came to anything has ended by that.
    pub fn end(&self, id: &TaskId, end: End, now: Moment) {
        let mut table = self.table();
        let Some(task) = table.tasks.get(id).filter(|task| matches!(task.phase, Phase::Working)) else {
            return;
        };
        let came_to_something = matches!(end, End::Completed { succeeded: true, .. });
        let end = if task.is_cancelled && !came_to_something { End::Cancelled } else { end };
        table.end(id, end, &self.spec, now);
    }

    /// Cancels a task that is its asker's own, unless it has ended. One that is under way ends when its call does.
    #[must_use]
    pub fn cancel(&self, id: &TaskId, owner: &Owner, now: Moment) -> Option<()> {
        let mut table = self.table();
        let task = table.of(id, owner, now)?;
        match &task.phase {
            Phase::Working => {
                task.is_cancelled = true;
                task.cancel.cancel();
            }
            Phase::Asking(_) => table.end(id, End::Cancelled, &self.spec, now),
            Phase::Ended { .. } => {}
        }
        Some(())
    }

    /// Forgets a task, and cancels its call where that is under way.
    pub fn forget(&self, id: &TaskId) {
        if let Some(task) = self.table().remove(id) {
            task.cancel.cancel();
        }
    }

    /// When a task is over that is not under way; forgets it if that is now.
    #[must_use]
    pub fn expires(&self, id: &TaskId, now: Moment) -> Option<Instant> {
        let mut table = self.table();
        let expires = table.tasks.get(id)?.expires?;
        if expires <= now.tick {
            table.remove(id);
            return None;
        }
        Some(expires)
    }

    /// Cancels all that is under way, and begins nothing more.
    pub fn close(&self) {
        let mut table = self.table();
        table.is_closed = true;
        for task in table.tasks.values_mut() {
            task.is_cancelled = true;
            task.cancel.cancel();
        }
    }
}

/// How long a value is as JSON.
fn length(value: &Value) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX >> 8, |bytes| bytes.len())
}
