//! The thread that writes for those who wait, and syncs for all.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{WriterOptions, core::Core, heads::Heads, queue::Queue};
use crate::audit::disk::Disk;

/// Who comes after a longer pause than this comes alone.
const PAUSE: Duration = Duration::from_millis(5);

/// From so many callers on, one half makes its records while the other half's are synced.
const HALVED_FROM: usize = 64;

/// How many of so many callers make up a group.
const fn share(callers: usize) -> usize {
    if callers >= HALVED_FROM {
        callers / 2
    } else if callers > 0 {
        callers
    } else {
        1
    }
}

pub(super) struct Thread<D: Disk> {
    core: Arc<Mutex<Core<D>>>,
    options: WriterOptions,
    queue: Arc<Queue>,
    heads: Heads,
}

/// Whatever ends the thread, nobody waits for it any longer, and nobody writes any more.
impl<D: Disk> Drop for Thread<D> {
    fn drop(&mut self) {
        self.queue.abandon();
        // Who began to write before is through when this returns.
        drop(self.core.lock());
        self.heads.end();
    }
}

impl<D: Disk> Thread<D> {
    pub(super) const fn new(
        core: Arc<Mutex<Core<D>>>,
        options: WriterOptions,
        queue: Arc<Queue>,
        heads: Heads,
    ) -> Self {
        Self { core, options, queue, heads }
    }

    /// Returns once the queue is closed and empty, or where somebody who held the core panicked: nobody knows
    /// what is written then, and the next start finds out.
    pub(super) fn run(&self) {
        let (mut group, mut expected) = (Vec::new(), 1);
        let Ok(mut duty) = self.core.lock().map(|core| core.next_duty()) else { return };
        loop {
            let slept = self.options.clock.now();
            let open = self.queue.take(&mut group, duty, expected, self.options.gather).is_some();
            let rested = self.options.clock.since(slept) > PAUSE;
            let Ok(mut core) = self.core.lock() else { return };
            if !open {
                return core.end();
            }
            let mut callers = group.len();
            if callers > 0 {
                callers += core.serve(&mut group);
            }
            expected = if rested { 1 } else { share(callers) };
            core.do_duties();
            duty = core.next_duty();
            self.queue.rested();
        }
    }
}
