//! The thread that publishes what others read of the log: checkpoints, tiles and entry bundles.
//!
//! It reads the segments like anybody else, so that the writer's thread never waits for it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{publish::Publisher, writer::Writer};

/// How often there is a new checkpoint, where there is something new.
const EVERY: Duration = Duration::from_secs(1);
/// So many records are not left without one.
const RECORDS_MAX: u64 = 1_024;
/// How often a head that is not due yet is looked at again.
const LOOK: Duration = Duration::from_millis(50);
/// How often the thread looks up while nothing happens.
const IDLE: Duration = Duration::from_millis(500);
/// How long nothing is tried after a failure.
const BACK_OFF: Duration = Duration::from_secs(10);

/// The running thread. It publishes a last time when it is dropped.
#[derive(Debug)]
pub(super) struct Publishing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Publishing {
    /// `anew` compares what is published with the log: after a power loss, tiles may be lost.
    pub(super) fn start(log: &Path, writer: Arc<Writer>, anew: bool) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker { log: log.to_owned(), writer, publisher: None, anew, at: None };
        let stopped = Arc::clone(&stop);
        let thread =
            thread::Builder::new().name("audit publisher".into()).spawn(move || worker.run(&stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A thread that panicked has nothing left to say.
            let _ = thread.join();
        }
    }
}

struct Worker {
    log: PathBuf,
    writer: Arc<Writer>,
    /// None before the first head, and after a failure.
    publisher: Option<Publisher>,
    /// Nothing that is published is taken as it is.
    anew: bool,
    /// When something was published, or failed, last.
    at: Option<Instant>,
}

impl Worker {
    fn run(mut self, stopped: &AtomicBool) {
        let heads = self.writer.heads();
        while !stopped.load(Ordering::Relaxed) && !heads.ended() {
            let published = self.publisher.as_ref().map_or(0, Publisher::published);
            if heads.wait_beyond(published, IDLE).is_some() {
                self.look(EVERY, RECORDS_MAX);
                thread::park_timeout(LOOK);
            }
        }
        self.look(Duration::ZERO, 0);
    }

    fn look(&mut self, every: Duration, records_max: u64) {
        let Some(head) = self.writer.head() else { return };
        let published = self.publisher.as_ref().map_or(0, Publisher::published);
        let rested = |pause: Duration| self.at.is_none_or(|at| at.elapsed() >= pause);
        let is_due = match &self.publisher {
            None => rested(if every.is_zero() { Duration::ZERO } else { BACK_OFF }),
            Some(_) => rested(every) || head.size() - published.min(head.size()) >= records_max,
        };
        if !is_due || (self.publisher.is_some() && head.size() == published) {
            return;
        }
        self.at = Some(Instant::now());
        let publisher = match self.publisher.take() {
            Some(publisher) => Ok(publisher),
            None if self.anew => Ok(Publisher::anew(&self.log)),
            None => Publisher::resume(&self.log),
        };
        let published = publisher.and_then(|mut publisher| {
            publisher.publish(head.note(), head.size())?;
            Ok(publisher)
        });
        match published {
            Ok(publisher) => (self.publisher, self.anew) = (Some(publisher), false),
            // The log itself goes on: what is published can be made again from it.
            Err(error) => tracing::error!(log = %self.log.display(), %error, "the log is not published"),
        }
    }
}
