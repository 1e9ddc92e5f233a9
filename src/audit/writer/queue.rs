//! The queue before the writer's thread, and what those who come to it are told.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Health, NewRecord, Role, WriteError, WriterOptions, Written};
use crate::audit::tree::Hash;

/// Records that one sync serves at the most.
const GROUP_MAX: usize = 1_024;
/// Bytes of records that one group holds at the most, but for its last record.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// A record, and who waits for it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) record: NewRecord,
    pub(super) leaf: Hash,
    pub(super) done: oneshot::Sender<Written>,
}

/// What the disk has left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Room {
    Enough,
    /// Outcomes still pass.
    Low,
    None,
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    records_max: usize,
    bytes_max: usize,
    stalled_after: Duration,
    reserve_bytes: u64,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Request>,
    bytes: usize,
    /// The thread sleeps until so many wait; `None` while it does not sleep.
    wake_at: Option<usize>,
    /// When what a caller wrote by itself has to be synced.
    sync_at: Option<Instant>,
    /// Since when the thread has a group or a duty, or wants the core for it.
    working_since: Option<Instant>,
    /// Since when a caller writes by itself.
    direct_since: Option<Instant>,
    poison: Option<Arc<io::Error>>,
    room: Room,
    closed: bool,
}

impl Queue {
    pub(super) const fn new(options: &WriterOptions) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                bytes: 0,
                wake_at: None,
                sync_at: None,
                working_since: None,
                direct_since: None,
                poison: None,
                room: Room::Enough,
                closed: false,
            }),
            arrived: Condvar::new(),
            records_max: options.queue_max,
            bytes_max: options.queue_bytes_max,
            stalled_after: options.stalled_after,
            reserve_bytes: options.reserve_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, request: Request) -> Result<(), WriteError> {
        let mut state = self.lock();
        let bytes = request.record.bytes.len();
        self.admit(&state, &request.record, bytes)?;
        state.bytes += bytes;
        state.waiting.push_back(request);
        if state.wake_at.is_some_and(|at| state.waiting.len() >= at) {
            state.wake_at = None;
            drop(state);
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Would a new call's record be taken now?
    pub(super) fn admits_calls(&self) -> Result<(), WriteError> {
        let state = self.lock();
        self.usable(&state)?;
        if state.room == Room::Enough { Ok(()) } else { Err(self.disk_low()) }
    }

    const fn disk_low(&self) -> WriteError {
        WriteError::DiskLow { reserve_bytes: self.reserve_bytes }
    }

    fn usable(&self, state: &State) -> Result<(), WriteError> {
        if let Some(poison) = &state.poison {
            return Err(WriteError::Poisoned(Arc::clone(poison)));
        }
        if state.closed {
            return Err(WriteError::Stopped);
        }
        if self.is_stalled(state) {
            return Err(WriteError::Stalled { after: self.stalled_after });
        }
        Ok(())
    }

    fn admit(&self, state: &State, record: &NewRecord, bytes: usize) -> Result<(), WriteError> {
        self.usable(state)?;
        let passes = match state.room {
            Room::Enough => true,
            Room::Low => matches!(record.role, Role::Outcome { .. }),
            Room::None => false,
        };
        if !passes {
            return Err(self.disk_low());
        }
        let bytes = state.bytes.saturating_add(bytes);
        if state.waiting.len() >= self.records_max || bytes > self.bytes_max {
            return Err(WriteError::Busy);
        }
        Ok(())
    }

    fn is_stalled(&self, state: &State) -> bool {
        let since = state.working_since.into_iter().chain(state.direct_since).min();
        since.is_some_and(|since| since.elapsed() >= self.stalled_after)
    }

    /// May the one who holds the core write this record now? Only if it would be taken, and nothing that came
    /// before it is still on its way. If so, the disk is at work until [`Self::end_direct`].
    pub(super) fn begin_direct(&self, record: &NewRecord) -> bool {
        let mut state = self.lock();
        let is_next = state.waiting.is_empty() && state.working_since.is_none();
        if !is_next || self.admit(&state, record, record.bytes.len()).is_err() {
            return false;
        }
        state.direct_since = Some(Instant::now());
        true
    }

    /// The record is written; `sync_at` where it is the first that waits for a sync.
    pub(super) fn end_direct(&self, sync_at: Option<Instant>) {
        let mut state = self.lock();
        state.direct_since = None;
        if sync_at.is_some() {
            state.sync_at = sync_at;
            let asleep = state.wake_at.is_some();
            drop(state);
            if asleep {
                self.arrived.notify_one();
            }
        }
    }

    pub(super) fn health(&self) -> Health {
        let state = self.lock();
        match (&state.poison, state.room) {
            (Some(_), _) => Health::Poisoned,
            (None, _) if state.closed => Health::Stopped,
            (None, _) if self.is_stalled(&state) => Health::Stalled,
            (None, Room::Low | Room::None) => Health::DiskLow,
            (None, Room::Enough) => Health::Ready,
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Takes the next group. Returns an empty one at `until`, and `None` once the queue is closed and empty.
    ///
    /// Those whom the last sync woke are about to come back. Who of them comes first does not go alone:
    /// the thread waits until `expected` are there, but not longer than `gather`.
    pub(super) fn take(
        &self,
        group: &mut Vec<Request>,
        until: Instant,
        expected: usize,
        gather: Duration,
    ) -> Option<()> {
        let mut state = self.lock();
        let gather_until = Instant::now() + gather;
        state = self.sleep(state, 1, until);
        if !state.waiting.is_empty() && expected > 1 {
            state = self.sleep(state, expected.min(GROUP_MAX), gather_until.min(until));
        }
        // From here on nobody writes by himself: the thread does not have to fight for the core.
        state.working_since = Some(Instant::now());
        state.sync_at = None;
        if state.waiting.is_empty() {
            return (!state.closed).then_some(());
        }
        let mut bytes = 0;
        while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
            let Some(request) = state.waiting.pop_front() else { break };
            bytes += request.record.bytes.len();
            group.push(request);
        }
        state.bytes = state.bytes.saturating_sub(bytes);
        Some(())
    }

    /// Sleeps until so many wait, or until a moment or a sync is due, or until the queue is closed.
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        count: usize,
        until: Instant,
    ) -> MutexGuard<'a, State> {
        while state.waiting.len() < count && !state.closed {
            let until = state.sync_at.map_or(until, |sync_at| until.min(sync_at));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.wake_at = Some(count);
            state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.wake_at = None;
        state
    }

    /// The thread has done what it had to do.
    pub(super) fn rested(&self) {
        self.lock().working_since = None;
    }

    pub(super) fn set_room(&self, room: Room) {
        self.lock().room = room;
    }

    /// From now on everybody is refused, and who waits is told.
    pub(super) fn poison(&self, poison: &Arc<io::Error>) {
        let waiting = {
            let mut state = self.lock();
            state.poison = Some(Arc::clone(poison));
            state.bytes = 0;
            std::mem::take(&mut state.waiting)
        };
        for request in waiting {
            // A waiter that has gone away needs no answer.
            let _ = request.done.send(Err(WriteError::Poisoned(Arc::clone(poison))));
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Closes, and drops what waits: the thread is gone.
    pub(super) fn abandon(&self) {
        let waiting = {
            let mut state = self.lock();
            state.closed = true;
            state.working_since = None;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
    }
}
