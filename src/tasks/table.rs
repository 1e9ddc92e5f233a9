//! The table of tasks: what is in it, and how much of whom.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::{End, Moment, Owner, TASK_BYTES, TaskId};
use crate::{
    call::CallKind,
    manifest::{ClientName, TasksSpec},
};

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) tasks: HashMap<TaskId, Task>,
    pub(super) clients: HashMap<ClientName, Usage>,
    pub(super) all: Usage,
    pub(super) is_closed: bool,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Usage {
    pub(super) tasks: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) owner: Owner,
    pub(super) tool: String,
    pub(super) call: Option<CallKind>,
    pub(super) cancel: CancellationToken,
    pub(super) is_cancelled: bool,
    pub(super) created: Moment,
    pub(super) updated: Timestamp,
    /// None while it is under way: the call has limits of its own.
    pub(super) expires: Option<Instant>,
    /// The keys of all that was ever asked: none may be used twice.
    pub(super) keys: HashSet<String>,
    pub(super) rounds: usize,
    pub(super) bytes: usize,
    pub(super) phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    Working,
    Asking(Asking),
    Ended { end: End, is_fetched: bool },
}

/// What a task waits for.
#[derive(Debug)]
pub(super) struct Asking {
    /// By the keys that its owner sees.
    pub(super) questions: Map<String, Value>,
    /// By the keys that the owner sees, those of the server.
    pub(super) asked_as: HashMap<String, String>,
    /// By the server's keys.
    pub(super) answers: Map<String, Value>,
    pub(super) state: Option<String>,
}

impl Table {
    /// A task of an owner that is not over.
    pub(super) fn of(&mut self, id: &TaskId, owner: &Owner, now: Moment) -> Option<&mut Task> {
        let task = self.tasks.get(id).filter(|task| task.owner == *owner)?;
        if task.expires.is_some_and(|expires| expires <= now.tick) {
            self.remove(id);
            return None;
        }
        self.tasks.get_mut(id)
    }

    pub(super) fn insert(&mut self, id: TaskId, task: Task, bytes: usize) {
        let client = task.owner.principal.client.clone();
        for usage in [self.clients.entry(client).or_default(), &mut self.all] {
            usage.tasks += 1;
        }
        self.tasks.insert(id, task);
        self.count(&id, bytes);
    }

    pub(super) fn remove(&mut self, id: &TaskId) -> Option<Task> {
        let task = self.tasks.remove(id)?;
        let client = &task.owner.principal.client;
        for usage in self.clients.get_mut(client).into_iter().chain([&mut self.all]) {
            usage.tasks -= 1;
            usage.bytes -= task.bytes;
        }
        if self.clients.get(client).is_some_and(|usage| usage.tasks == 0) {
            self.clients.remove(client);
        }
        Some(task)
    }

    /// Says how much a task holds from now on.
    fn count(&mut self, id: &TaskId, bytes: usize) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let client = self.clients.get_mut(&task.owner.principal.client);
        for usage in client.into_iter().chain([&mut self.all]) {
            usage.bytes = usage.bytes - task.bytes + bytes;
        }
        task.bytes = bytes;
    }

    /// Lets a task hold more, if there is room.
    pub(super) fn grow(&mut self, id: &TaskId, bytes: usize, spec: &TasksSpec, now: Moment) -> bool {
        let Some(task) = self.tasks.get(id) else { return false };
        let (client, held) = (task.owner.principal.client.clone(), task.bytes);
        let has_room = self.make_room(spec, &client, Usage { tasks: 0, bytes }, now);
        if has_room {
            self.count(id, held + bytes);
        }
        has_room
    }

    /// Whether there is room for more of a client's. What is over goes first, and then what the client itself has
    /// fetched, the oldest first.
    pub(super) fn make_room(
        &mut self,
        spec: &TasksSpec,
        client: &ClientName,
        more: Usage,
        now: Moment,
    ) -> bool {
        if self.has_room(spec, client, more) {
            return true;
        }
        let is_over = |task: &Task| task.expires.is_some_and(|expires| expires <= now.tick);
        let over: Vec<TaskId> =
            self.tasks.iter().filter(|(_, task)| is_over(task)).map(|(id, _)| *id).collect();
        for id in over {
            self.remove(&id);
        }
        let is_fetched = |task: &Task| matches!(task.phase, Phase::Ended { is_fetched: true, .. });
        let of_client = |task: &Task| task.owner.principal.client == *client && is_fetched(task);
        let mut fetched: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, task)| of_client(task))
            .map(|(id, task)| (task.expires, *id))
            .collect();
        fetched.sort_unstable_by_key(|(expires, _)| *expires);
        for (_, id) in fetched {
            if self.has_room(spec, client, more) {
                break;
            }
            self.remove(&id);
        }
        self.has_room(spec, client, more)
    }

    fn has_room(&self, spec: &TasksSpec, client: &ClientName, more: Usage) -> bool {
        let of_client = self.clients.get(client).copied().unwrap_or_default();
        let fits = |used: Usage, tasks_max: u32, bytes_max: usize| {
            used.tasks.saturating_add(more.tasks) <= usize::try_from(tasks_max).unwrap_or(usize::MAX)
                && used.bytes.saturating_add(more.bytes) <= bytes_max
        };
        fits(of_client, spec.held.get(), spec.bytes.bytes())
            && fits(self.all, spec.held_in_all.get(), spec.bytes_in_all.bytes())
    }

    pub(super) fn end(&mut self, id: &TaskId, end: End, spec: &TasksSpec, now: Moment) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        // From here on only its end is of interest.
        (task.call, task.keys) = (None, HashSet::new());
        task.phase = Phase::Working;
        let base = TASK_BYTES + task.tool.len();
        self.count(id, base);
        let fits = self.grow(id, end.bytes(), spec, now);
        let Some(task) = self.tasks.get_mut(id) else { return };
        // Its effects are on record either way.
        let end = if fits { end } else { End::Failed(Arc::from(NO_ROOM)) };
        task.phase = Phase::Ended { end, is_fetched: false };
        task.stands_since(now, Some(spec.ttl.duration()));
    }
}

/// What a task fails with whose result there is no room for.
const NO_ROOM: &[u8] =
    br#"{"code":-32000,"message":"there was no room to keep the result: the call was carried out"}"#;

impl Task {
    /// A key under which nothing was asked yet.
    pub(super) fn new_key(&mut self, key: &str) -> String {
        let later = (2_usize..).map(|round| format!("{key}#{round}"));
        let mut keys = std::iter::once(key.to_owned()).chain(later);
        // INVARIANT: finitely many keys are taken.
        let key = keys.find(|key| !self.keys.contains(key)).unwrap_or_default();
        self.keys.insert(key.clone());
        key
    }

    pub(super) fn stands_since(&mut self, now: Moment, kept_for: Option<Duration>) {
        self.updated = now.time;
        self.expires = kept_for.and_then(|kept_for| now.tick.checked_add(kept_for));
    }

    /// How long it is kept, from its beginning on: while it is under way, at least as if it ended now.
    pub(super) fn ttl_ms(&self, ttl: Duration, now: Moment) -> u64 {
        let until = self.expires.unwrap_or(now.tick + ttl);
        u64::try_from(until.saturating_duration_since(self.created.tick).as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}
