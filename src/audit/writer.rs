//! The writer: one thread, one file, one sync for all who wait.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write as _},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{
    log::{Log, LogError, LogName},
    record::{Body, Entry},
};

/// What a record survives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Durability {
    /// The process's death at once, and a power loss after at most 50 ms.
    Process,
    /// A power loss.
    Power,
}

/// Why a record is not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The log failed before; it is not tried again on this descriptor.
    #[error("the log failed: {0}")]
    Poisoned(Arc<io::Error>),
    /// More records wait than the log takes.
    #[error("the log is busy: {QUEUE_MAX} records wait")]
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
}

/// Records that may wait for the disk.
const QUEUE_MAX: usize = 4_096;
/// Records that one sync serves at the most.
const GROUP_MAX: usize = 1_024;
/// How long a record of `Process` durability may wait for its sync.
const SYNC_AFTER: Duration = Duration::from_millis(50);
/// How often failures before identity are put on record.
const SUMMARY_EVERY: Duration = Duration::from_secs(10);
/// Sources that are told apart in one interval; the others are counted together.
const SOURCES_MAX: usize = 256;

type Written = Result<u64, WriteError>;

struct Request {
    entry: Entry,
    durability: Durability,
    done: oneshot::Sender<Written>,
}

type Counts = HashMap<(Option<IpAddr>, &'static str), u64>;

/// The door to the writer's thread.
#[derive(Debug)]
pub(super) struct Writer {
    name: LogName,
    queue: Mutex<Option<SyncSender<Request>>>,
    counts: Arc<Mutex<Counts>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread. Its first record says who writes.
    pub(super) fn start(log: Log, release: &str) -> Result<Self, LogError> {
        let (queue, requests) = sync_channel(QUEUE_MAX);
        let counts = Arc::new(Mutex::new(Counts::new()));
        let name = log.name.clone();
        let start = Body::Start {
            version: env!("CARGO_PKG_VERSION"),
            release: release.to_owned(),
            process: std::process::id(),
            cut: log.cut,
        };
        let mut thread = Thread {
            name: log.name.clone(),
            next: log.next,
            sink: log,
            unsynced_since: None,
            poison: None,
            counts: Arc::clone(&counts),
            counted_since: Timestamp::now(),
            counted_at: Instant::now(),
        };
        let failed = |source| LogError::Io { path: name.to_string().into(), source };
        thread.write(&[Entry::bare(start)]).map_err(failed)?;
        thread.sync().map_err(failed)?;
        let handle = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || thread.run(&requests))
            .map_err(failed)?;
        Ok(Self { name, queue: Mutex::new(Some(queue)), counts, thread: Mutex::new(Some(handle)) })
    }

    pub(super) const fn name(&self) -> &LogName {
        &self.name
    }

    /// Queues a record; the receiver hears its number once it is as durable as was asked.
    pub(super) fn append(
        &self,
        entry: Entry,
        durability: Durability,
    ) -> Result<oneshot::Receiver<Written>, WriteError> {
        let (done, written) = oneshot::channel();
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or(WriteError::Stopped)?;
        match queue.try_send(Request { entry, durability, done }) {
            Ok(()) => Ok(written),
            Err(TrySendError::Full(_)) => Err(WriteError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(WriteError::Stopped),
        }
    }

    pub(super) fn unidentified(&self, source: Option<IpAddr>, code: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.len() < SOURCES_MAX || counts.contains_key(&(source, code));
        let key = if known { (source, code) } else { (None, "other_sources") };
        let count = counts.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    /// Stops the thread once it has written what waits.
    pub(super) fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
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

/// Where lines go: a file, or in tests something that fails.
pub(super) trait Sink: Send {
    fn append(&mut self, lines: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for Log {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut file: &File = &self.file;
        file.write_all(lines)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

struct Thread<S> {
    name: LogName,
    sink: S,
    next: u64,
    /// Since when a record waits for its sync.
    unsynced_since: Option<Instant>,
    /// The error after which nothing is tried again: a failed sync may have lost what it was to keep.
    poison: Option<Arc<io::Error>>,
    counts: Arc<Mutex<Counts>>,
    counted_since: Timestamp,
    counted_at: Instant,
}

impl<S: Sink> Thread<S> {
    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let wait =
                self.unsynced_since.map_or(SUMMARY_EVERY, |since| SYNC_AFTER.saturating_sub(since.elapsed()));
            match requests.recv_timeout(wait) {
                Ok(first) => {
                    let mut group = vec![first];
                    group.extend(requests.try_iter().take(GROUP_MAX - 1));
                    self.serve(group);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.housekeep(SUMMARY_EVERY);
        }
        self.housekeep(Duration::ZERO);
        let _ = self.guarded(Self::sync);
    }

    fn serve(&mut self, group: Vec<Request>) {
        let first = self.next;
        let power = group.iter().any(|request| request.durability == Durability::Power);
        let (entries, waiters): (Vec<_>, Vec<_>) =
            group.into_iter().map(|request| (request.entry, request.done)).unzip();
        let result = self.guarded(|thread| {
            thread.write(&entries)?;
            if power { thread.sync() } else { Ok(()) }
        });
        for (seq, waiter) in (first..).zip(waiters) {
            // A waiter that has gone away needs no answer.
            let _ = waiter.send(result.clone().map(|()| seq));
        }
    }

    /// Syncs what has waited long enough, and records what was counted.
    fn housekeep(&mut self, summary_every: Duration) {
        if self.counted_at.elapsed() >= summary_every {
            let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
            let since = std::mem::replace(&mut self.counted_since, Timestamp::now());
            self.counted_at = Instant::now();
            let entries: Vec<Entry> = counts
                .into_iter()
                .map(|((source, code), count)| Entry::bare(Body::Summary { source, code, count, since }))
                .collect();
            if !entries.is_empty() {
                let _ = self.guarded(|thread| thread.write(&entries));
            }
        }
        if self.unsynced_since.is_some_and(|since| since.elapsed() >= SYNC_AFTER) {
            let _ = self.guarded(Self::sync);
        }
    }

    /// Does nothing once anything failed.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> Result<(), WriteError> {
        if let Some(poison) = &self.poison {
            return Err(WriteError::Poisoned(Arc::clone(poison)));
        }
        work(self).map_err(|error| {
            tracing::error!(log = %self.name, %error, "the log failed; every call is refused from now on");
            let poison = Arc::new(error);
            self.poison = Some(Arc::clone(&poison));
            WriteError::Poisoned(poison)
        })
    }

    fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        let now = Timestamp::now();
        let mut lines = Vec::with_capacity(entries.len() * 1_024);
        for (seq, entry) in (self.next..).zip(entries) {
            lines.extend(entry.line(&self.name, seq, now).map_err(io::Error::other)?);
        }
        self.sink.append(&lines)?;
        self.next += u64::try_from(entries.len()).unwrap_or(u64::MAX);
        self.unsynced_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sink.sync()?;
        self.unsynced_since = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails at the given operation, and counts what was tried after it.
    struct Failing {
        at: usize,
        seen: Arc<Mutex<usize>>,
    }

    impl Failing {
        fn step(&self) -> io::Result<()> {
            let mut seen = self.seen.lock().unwrap();
            *seen += 1;
            if *seen == self.at { Err(io::Error::other("no space")) } else { Ok(()) }
        }
    }

    impl Sink for Failing {
        fn append(&mut self, _: &[u8]) -> io::Result<()> {
            self.step()
        }
        fn sync(&mut self) -> io::Result<()> {
            self.step()
        }
    }

    fn thread(sink: Failing) -> Thread<Failing> {
        let folder = tempfile::tempdir().unwrap();
        let name = Log::claim(folder.path(), "serve").unwrap().name.clone();
        Thread {
            name,
            sink,
            next: 0,
            unsynced_since: None,
            poison: None,
            counts: Arc::default(),
            counted_since: Timestamp::UNIX_EPOCH,
            counted_at: Instant::now(),
        }
    }

    fn request(durability: Durability) -> (Request, oneshot::Receiver<Written>) {
        let (done, written) = oneshot::channel();
        (Request { entry: Entry::bare(Body::Intent), durability, done }, written)
    }

    #[test]
    fn a_group_is_numbered_in_order_and_synced_once() {
        let seen = Arc::new(Mutex::new(0));
        let mut thread = thread(Failing { at: 0, seen: Arc::clone(&seen) });
        let (requests, waiters): (Vec<_>, Vec<_>) = (0..5).map(|_| request(Durability::Power)).unzip();
        thread.serve(requests);
        let numbers: Vec<u64> =
            waiters.into_iter().map(|mut waiter| waiter.try_recv().unwrap().unwrap()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        assert_eq!(*seen.lock().unwrap(), 2); // one append, one sync
    }

    #[test]
    fn a_failed_write_or_sync_refuses_everything_after_it_without_another_try() {
        for at in [1, 2] {
            let seen = Arc::new(Mutex::new(0));
            let mut thread = thread(Failing { at, seen: Arc::clone(&seen) });
            for _ in 0..3 {
                let (request, mut waiter) = request(Durability::Power);
                thread.serve(vec![request]);
                assert!(matches!(waiter.try_recv().unwrap(), Err(WriteError::Poisoned(_))));
            }
            assert_eq!(*seen.lock().unwrap(), at);
        }
    }
}
