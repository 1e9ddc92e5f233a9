//! The writer's thread without a thread: whoever has it drives it, and gives it the time.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    Heads, Health, NewRecord, RecoverError, Recovered, Tick, WriterOptions, Written,
    queue::{Queue, Request},
    thread::Thread,
};
use crate::audit::{disk::Disk, head::SignedHead, tree::leaf_hash};

/// A writer that does what it is told, when it is told.
pub(in crate::audit) struct Driven<D: Disk> {
    thread: Thread<D>,
    queue: Arc<Queue>,
    heads: Heads,
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
        let mut thread = Thread::new(log, options, tick, Arc::clone(&queue), heads.clone());
        thread.begin().map_err(|source| RecoverError::Io { path, source })?;
        Ok(Self { thread, queue, heads })
    }

    /// Serves records as one group; what waits for each is given beforehand.
    pub(in crate::audit) fn serve(&mut self, group: Vec<(NewRecord, oneshot::Sender<Written>)>) {
        let request =
            |(record, done): (NewRecord, _)| Request { leaf: leaf_hash(&record.bytes), record, done };
        let mut group = group.into_iter().map(request).collect();
        self.thread.serve(&mut group);
        self.thread.do_duties();
    }

    /// Lets it do what is due.
    pub(in crate::audit) fn tick(&mut self) {
        self.thread.do_duties();
    }

    /// Ends it in order.
    pub(in crate::audit) fn end(&mut self) {
        self.thread.end();
    }

    pub(in crate::audit) fn head(&self) -> Option<Arc<SignedHead>> {
        self.heads.newest()
    }

    pub(in crate::audit) fn health(&self) -> Health {
        self.queue.health()
    }
}
