//! The writer's thread without a thread: whoever has it drives it, and gives it the time.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    Appended, Door, Heads, Health, NewRecord, RecoverError, Recovered, Tick, WriteError, WriterOptions,
    Written,
    core::Core,
    queue::{Queue, Request},
};
use crate::audit::{disk::Disk, head::SignedHead, tree::leaf_hash};

/// A writer that does what it is told, when it is told.
pub(in crate::audit) struct Driven<D: Disk> {
    core: Arc<Mutex<Core<D>>>,
    door: Door,
    heads: Heads,
    /// What the thread has taken from the queue, and not yet written.
    taken: Vec<Request>,
}

impl<D: Disk> Driven<D> {
    /// Does what [`super::Writer::start`] does before its thread.
    pub(in crate::audit) fn start(
        log: Recovered<D>,
        options: WriterOptions,
        tick: Tick,
    ) -> Result<Self, RecoverError> {
        let path = log.path.clone();
        let (queue, heads) = (Arc::new(Queue::new(&options)), Heads::default());
        let mut core = Core::new(log, options, tick, Arc::clone(&queue), heads.clone());
        core.begin().map_err(|source| RecoverError::Io { path, source })?;
        let core = Arc::new(Mutex::new(core));
        let door = Door { direct: Arc::<Mutex<Core<D>>>::clone(&core), queue };
        Ok(Self { core, door, heads, taken: Vec::new() })
    }

    fn core(&self) -> MutexGuard<'_, Core<D>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves records as one group; what waits for each is given beforehand.
    pub(in crate::audit) fn serve(&self, group: Vec<(NewRecord, oneshot::Sender<Written>)>) {
        let request =
            |(record, done): (NewRecord, _)| Request { leaf: leaf_hash(&record.bytes), record, done };
        let mut group = group.into_iter().map(request).collect();
        let mut core = self.core();
        core.serve(&mut group);
        core.do_duties();
    }

    /// Hands a record over as a caller does, who may write it by himself.
    pub(in crate::audit) fn append(&self, record: NewRecord) -> Result<Appended, WriteError> {
        self.door.append(record)
    }

    /// The same, while somebody else holds the core.
    pub(in crate::audit) fn append_meanwhile(&self, record: NewRecord) -> Result<Appended, WriteError> {
        let _core = self.core();
        self.door.append(record)
    }

    /// Lets the thread take what waits, and go no further.
    pub(in crate::audit) fn take(&mut self) {
        if self.taken.is_empty() {
            let _ = self.door.queue.take(&mut self.taken, Instant::now(), 1, Duration::ZERO);
        }
    }

    /// Lets it serve what waits, and do what is due.
    pub(in crate::audit) fn tick(&mut self) {
        loop {
            self.take();
            let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
            let done = self.taken.is_empty();
            if !done {
                core.serve(&mut self.taken);
            }
            core.do_duties();
            self.door.queue.rested();
            if done {
                return;
            }
        }
    }

    /// Ends it in order.
    pub(in crate::audit) fn end(&mut self) {
        self.door.queue.close();
        self.tick();
        self.core().end();
    }

    pub(in crate::audit) fn head(&self) -> Option<Arc<SignedHead>> {
        self.heads.newest()
    }

    pub(in crate::audit) fn health(&self) -> Health {
        self.door.queue.health()
    }
}
