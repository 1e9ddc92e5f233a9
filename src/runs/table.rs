//! What is known in memory: live runs, revocations and keys, as they stood at one generation.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use jiff::Timestamp;

use super::{
    feed::Changes,
    keys::{KeyFacts, RuntimeKey},
    revocation::Revocations,
    run::{Cell, EndReason, Principal, Run, RunId, RunKind},
};
use crate::manifest::{ClientName, KeyId, Label};

/// How many ended runs are remembered as such; older ones are unknown, which is refused just the same.
pub(super) const TOMBSTONES_MAX: usize = 100_000;

/// Everything that calls are checked against.
#[derive(Debug, Default)]
pub(super) struct Table {
    runs: HashMap<RunId, Live>,
    principals: HashMap<Principal, Household>,
    sessions: HashMap<[u8; 32], RunId>,
    clients: HashMap<ClientName, Count>,
    ended: HashMap<RunId, Tombstone>,
    pub(super) revocations: Revocations,
    pub(super) keys: HashMap<KeyId, KeyFacts>,
}

/// A live run.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) cell: Arc<Cell>,
    /// What it has seen itself.
    pub(super) own: Arc<BTreeSet<Label>>,
    /// Held by whoever uses it.
    in_use: Arc<()>,
}

impl Live {
    pub(super) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.in_use) > 1
    }

    /// Neither past its lifetime nor idle. What is in use is not idle, however long that takes.
    pub(super) fn is_live(&self, now_ms: i64) -> bool {
        !self.cell.is_past_lifetime(now_ms) && (!self.cell.is_idle(now_ms) || self.is_in_use())
    }

    fn seen_as(&self, labels: &Arc<BTreeSet<Label>>) -> Run {
        Run {
            cell: Arc::clone(&self.cell),
            labels: Arc::clone(labels),
            calls: 0,
            ended: None,
            _in_use: Arc::clone(&self.in_use),
        }
    }
}

/// The live runs of one principal.
#[derive(Debug, Default)]
struct Household {
    default: Option<RunId>,
    members: HashSet<RunId>,
    /// How many of them have seen each label.
    counts: BTreeMap<Label, usize>,
    /// What any of them has seen.
    union: Arc<BTreeSet<Label>>,
}

/// The live runs of a client, but for default ones.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    handles: usize,
    sessions: usize,
}

/// What is known of a run that has ended.
#[derive(Clone, Debug)]
pub(super) struct Tombstone {
    pub(super) principal: Principal,
    pub(super) why: EndReason,
    pub(super) ended_ms: i64,
}

impl Table {
    /// A live run.
    pub(super) fn live(&self, id: &RunId) -> Option<&Live> {
        self.runs.get(id)
    }

    /// All live runs, in no order.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &Live> {
        self.runs.values()
    }

    /// The run of a session, by the digest of its id.
    pub(super) fn of_session(&self, digest: &[u8; 32]) -> Option<RunId> {
        self.sessions.get(digest).copied()
    }

    /// What is known of a run that has ended.
    pub(super) fn tombstone(&self, id: &RunId) -> Option<&Tombstone> {
        self.ended.get(id)
    }

    /// The default run of a principal, where it is live: it has seen what any of the principal's runs has.
    pub(super) fn default_of(&self, principal: &Principal, now_ms: i64) -> Option<Run> {
        let household = self.principals.get(principal)?;
        let live = self.runs.get(household.default.as_ref()?)?;
        if !live.is_live(now_ms) {
            return None;
        }
        live.cell.used(now_ms);
        Some(live.seen_as(&household.union))
    }

    /// A live run that is used now.
    pub(super) fn snapshot(&self, id: &RunId, now_ms: i64) -> Option<Run> {
        let live = self.runs.get(id)?;
        live.cell.used(now_ms);
        let household = self.principals.get(&live.cell.principal);
        let union =
            household.filter(|_| live.cell.kind == RunKind::Default).map(|household| &household.union);
        Some(live.seen_as(union.unwrap_or(&live.own)))
    }

    /// How many live runs a client has, default ones not counted.
    pub(super) fn handles_of(&self, client: &ClientName) -> usize {
        self.clients.get(client).map_or(0, |count| count.handles)
    }

    /// How many live sessions a client has.
    pub(super) fn sessions_of(&self, client: &ClientName) -> usize {
        self.clients.get(client).map_or(0, |count| count.sessions)
    }

    /// How many sessions are live.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Takes over what was changed in the store. Taking the same change twice changes nothing.
    pub(super) fn apply(&mut self, changes: Changes) {
        for (id, tombstone) in changes.ended {
            self.bury(id, tombstone);
        }
        for cell in changes.live {
            self.settle(cell);
        }
        for (run, label) in changes.labels {
            self.label(&run, label);
        }
        for (what, view) in changes.revocations {
            self.revocations.put(what, view);
        }
        for (key, made) in changes.keys {
            let facts = self.keys.entry(key.id.clone()).or_default();
            facts.key = Some((Arc::new(key), made));
        }
        for (id, used_ms) in changes.uses {
            let facts = self.keys.entry(id).or_default();
            facts.used_ms.fetch_max(used_ms, Ordering::Relaxed);
            facts.stored_ms.fetch_max(used_ms, Ordering::Relaxed);
        }
    }

    /// A live run as it is stored.
    fn settle(&mut self, cell: Cell) {
        let (id, stored_ms) = (cell.id, cell.stored_ms.load(Ordering::Relaxed));
        if let Some(known) = self.runs.get(&id) {
            known.cell.used_ms.fetch_max(stored_ms, Ordering::Relaxed);
            known.cell.stored_ms.fetch_max(stored_ms, Ordering::Relaxed);
            return;
        }
        let household = self.principals.entry(cell.principal.clone()).or_default();
        household.members.insert(id);
        if cell.kind == RunKind::Default {
            household.default = Some(id);
        } else {
            let count = self.clients.entry(cell.principal.client.clone()).or_default();
            count.handles += 1;
            count.sessions += usize::from(cell.session.is_some());
        }
        if let Some(session) = cell.session {
            self.sessions.insert(session, id);
        }
        let live = Live { cell: Arc::new(cell), own: Arc::default(), in_use: Arc::default() };
        self.runs.insert(id, live);
    }

    fn label(&mut self, run: &RunId, label: Label) {
        let Some(live) = self.runs.get_mut(run) else { return };
        if !live.own.contains(&label) {
            Arc::make_mut(&mut live.own).insert(label.clone());
            let household = self.principals.entry(live.cell.principal.clone()).or_default();
            let count = household.counts.entry(label.clone()).or_default();
            *count += 1;
            if *count == 1 {
                Arc::make_mut(&mut household.union).insert(label);
            }
        }
    }

    /// Forgets a run that has ended, but for that.
    fn bury(&mut self, id: RunId, tombstone: Tombstone) {
        if let Some(live) = self.runs.remove(&id) {
            self.leave(&live);
        }
        if self.ended.len() >= TOMBSTONES_MAX {
            self.forget_older_half();
        }
        self.ended.insert(id, tombstone);
    }

    /// Takes a run out of its principal's, and its labels with it.
    fn leave(&mut self, live: &Live) {
        let cell = &live.cell;
        if let Some(household) = self.principals.get_mut(&cell.principal) {
            household.members.remove(&cell.id);
            if household.default == Some(cell.id) {
                household.default = None;
            }
            for label in live.own.iter() {
                if let Some(count) = household.counts.get_mut(label) {
                    *count -= 1;
                    if *count == 0 {
                        household.counts.remove(label);
                        Arc::make_mut(&mut household.union).remove(label);
                    }
                }
            }
            if household.members.is_empty() {
                self.principals.remove(&cell.principal);
            }
        }
        if let Some(session) = cell.session {
            self.sessions.remove(&session);
        }
        if cell.kind != RunKind::Default
            && let Some(count) = self.clients.get_mut(&cell.principal.client)
        {
            count.handles -= 1;
            count.sessions -= usize::from(cell.session.is_some());
            if count.handles == 0 {
                self.clients.remove(&cell.principal.client);
            }
        }
    }

    fn forget_older_half(&mut self) {
        let mut times: Vec<i64> = self.ended.values().map(|tombstone| tombstone.ended_ms).collect();
        let middle = times.len() / 2;
        let (_, newest_forgotten, _) = times.select_nth_unstable(middle);
        let newest_forgotten = *newest_forgotten;
        self.ended.retain(|_, tombstone| tombstone.ended_ms > newest_forgotten);
    }

    /// Forgets what is only remembered for a time: runs that ended before `ended_ms`, keys that expired before
    /// it, and revocations that are over.
    pub(super) fn forget(&mut self, ended_ms: i64, now: Timestamp) {
        self.ended.retain(|_, tombstone| tombstone.ended_ms >= ended_ms);
        self.revocations.forget(now);
        self.keys.retain(|_, facts| {
            facts.key.as_ref().is_none_or(|(key, _)| key.expires.as_millisecond() >= ended_ms)
        });
    }

    /// A key that was made at run time.
    pub(super) fn key(&self, id: &str) -> Option<&Arc<RuntimeKey>> {
        self.keys.get(id)?.key.as_ref().map(|(key, _)| key)
    }
}
