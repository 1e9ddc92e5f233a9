//! The writer: one thread, one file, one sync for all who wait.

mod core;
#[cfg(test)]
pub(super) mod driven;
mod heads;
mod intents;
mod queue;
mod thread;

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    disk::Disk,
    frame::RECORD_BYTES_MAX,
    head::SignedHead,
    recover::{RecoverError, Recovered},
    tree::leaf_hash,
};
use core::{Core, Direct};
use queue::{Queue, Request};
use thread::Thread;

pub(super) use heads::Heads;

/// What a record survives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Durability {
    /// The process's death at once, and a power loss after at most 50 ms.
    Process,
    /// A power loss.
    Power,
}

/// What the writer has to know of a record.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Plain,
    /// A call is about to leave. `abandoned` makes of its record the outcome to write where the caller has gone
    /// by then.
    Intent {
        call: u128,
        abandoned: fn(&[u8]) -> Result<Vec<u8>, WriteError>,
    },
    /// A call has ended.
    Outcome {
        call: u128,
    },
}

/// A record to be written.
#[derive(Clone, Debug)]
pub(super) struct NewRecord {
    /// Canonical JSON.
    pub(super) bytes: Vec<u8>,
    pub(super) role: Role,
    pub(super) durability: Durability,
}

/// Why a record is not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The log failed before; it is not tried again on this descriptor.
    #[error("the log failed: {0}")]
    Poisoned(Arc<io::Error>),
    /// More records wait than the log takes.
    #[error("the log is busy: as many records wait as it takes")]
    Busy,
    /// The writer has stopped.
    #[error("the log is closed")]
    Stopped,
    /// The disk does not answer.
    #[error("the disk did not take a record in {} s", after.as_secs())]
    Stalled {
        /// How long was waited.
        after: Duration,
    },
    /// Less of the disk is free than has to stay free.
    #[error(
        "the disk of the record has less free than the {reserve_bytes} bytes that `record: reserve` keeps back"
    )]
    DiskLow {
        /// How many bytes have to be free.
        reserve_bytes: u64,
    },
    /// The record does not fit into an entry bundle.
    #[error("a record has 1 to {RECORD_BYTES_MAX} bytes, this one {bytes}")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// What is to be recorded cannot be written as JSON.
    #[error("a record could not be written as canonical JSON")]
    Unwritable,
}

/// How a log is.
#[derive(Clone, Debug)]
pub(super) enum Health {
    Ready,
    Poisoned,
    DiskLow,
    Stalled,
    Stopped,
}

/// The bounds of a writer.
#[derive(Clone, Debug)]
pub(super) struct WriterOptions {
    /// From this size on a segment is ended by the next head.
    pub(super) segment_bytes: u64,
    /// How long a record of `Process` durability waits for its sync to begin.
    pub(super) sync_after: Duration,
    /// A disk that works on one group for longer does not answer.
    pub(super) stalled_after: Duration,
    /// The longest wait for those whom the last sync woke to come back.
    pub(super) gather: Duration,
    /// What has to stay free on the disk; down to half of it outcomes still pass.
    pub(super) reserve_bytes: u64,
    /// How often `tick` is asked, and the disk for its free bytes.
    pub(super) tick_every: Duration,
    /// How many records may wait.
    pub(super) queue_max: usize,
    /// How many bytes may wait.
    pub(super) queue_bytes_max: usize,
    /// What tells the time.
    pub(super) clock: Clock,
}

/// What tells the time: the machine, or a simulator.
#[derive(Clone)]
pub(super) struct Clock(Arc<dyn Fn() -> Instant + Send + Sync>);

impl Clock {
    /// A clock that asks this.
    #[cfg(test)]
    pub(super) fn of(now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    fn now(&self) -> Instant {
        (self.0)()
    }

    fn since(&self, moment: Instant) -> Duration {
        self.now().saturating_duration_since(moment)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(Instant::now))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            // The sync has to be through by 50 ms.
            sync_after: Duration::from_millis(40),
            stalled_after: Duration::from_secs(5),
            gather: Duration::from_micros(900),
            reserve_bytes: 64 << 20,
            tick_every: Duration::from_secs(1),
            queue_max: 4_096,
            queue_bytes_max: 64 << 20,
            clock: Clock::default(),
        }
    }
}

/// Gives the records of the writer's own: summaries, the heads of other logs.
pub(super) type Tick = Box<dyn FnMut() -> Vec<Vec<u8>> + Send>;

/// The index of a record in its log, or why it has none.
pub(super) type Written = Result<u64, WriteError>;

/// What became of a record that was handed over.
#[derive(Debug)]
pub(super) enum Appended {
    /// It is as durable as was asked.
    Done(u64),
    /// This will tell.
    Waiting(oneshot::Receiver<Written>),
}

/// Where records are handed over.
#[derive(Clone)]
struct Door {
    direct: Arc<dyn Direct>,
    queue: Arc<Queue>,
}

impl Door {
    fn append(&self, record: NewRecord) -> Result<Appended, WriteError> {
        let bytes = record.bytes.len();
        if !(1..=RECORD_BYTES_MAX).contains(&bytes) {
            return Err(WriteError::TooLarge { bytes });
        }
        let leaf = leaf_hash(&record.bytes);
        // An intent is synced anyway, and its caller may be gone by then: both are the thread's to see to.
        if record.durability == Durability::Process
            && !matches!(record.role, Role::Intent { .. })
            && let Some(written) = self.direct.append(&record, leaf)
        {
            return written.map(Appended::Done);
        }
        let (done, written) = oneshot::channel();
        self.queue.push(Request { record, leaf, done })?;
        Ok(Appended::Waiting(written))
    }
}

/// The writer's thread, and the door to it.
pub(super) struct Writer {
    door: Door,
    heads: Heads,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Writer {
    /// Makes what was recovered durable, signs what no head covers yet, and starts the thread.
    pub(super) fn start<D: Disk>(
        mut log: Recovered<D>,
        options: WriterOptions,
        tick: Tick,
    ) -> Result<Self, RecoverError> {
        let path = log.path.clone();
        let failed = |source| RecoverError::Io { path: path.clone(), source };
        let queue = Arc::new(Queue::new(&options));
        let heads = Heads::default();
        let held = log.take_held();
        let mut core = Core::new(log, options.clone(), tick, Arc::clone(&queue), heads.clone());
        core.begin().map_err(failed)?;
        let core = Arc::new(Mutex::new(core));
        let door = Door { direct: Arc::<Mutex<Core<D>>>::clone(&core), queue: Arc::clone(&queue) };
        let thread = Thread::new(core, options, queue, heads.clone());
        let run = move || {
            // Whatever ends the thread, nobody waits for it any longer, and then the lock goes.
            let (_held, thread) = (held, thread);
            thread.run();
        };
        let handle = std::thread::Builder::new().name("audit".into()).spawn(run).map_err(failed)?;
        Ok(Self { door, heads, thread: Mutex::new(Some(handle)) })
    }

    /// Hands a record over. One of `Process` durability is written by the caller's own thread where nobody
    /// else writes: that blocks it for as long as one write takes, and never for a sync or for another's write.
    pub(super) fn append(&self, record: NewRecord) -> Result<Appended, WriteError> {
        self.door.append(record)
    }

    /// Would a new call's record be taken now?
    pub(super) fn admits_calls(&self) -> Result<(), WriteError> {
        self.door.queue.admits_calls()
    }

    /// The newest durable head.
    pub(super) fn head(&self) -> Option<Arc<SignedHead>> {
        self.heads.newest()
    }

    /// The durable heads, to wait for the next one.
    pub(super) fn heads(&self) -> Heads {
        self.heads.clone()
    }

    /// How the log is.
    pub(super) fn health(&self) -> Health {
        self.door.queue.health()
    }

    /// Stops the thread once it has written what waits, signed and synced it.
    pub(super) fn close(&self) {
        self.door.queue.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
