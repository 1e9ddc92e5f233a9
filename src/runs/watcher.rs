//! The watcher: a thread that takes over other processes' changes.
//!
//! It is no task among the calls, since under a flood of them it would come to its turn late, and what is stale
//! is denied.

use std::{sync::Arc, thread};

use tokio_util::sync::CancellationToken;

use super::{POLL, RunsError, feed::Feed, shared::Shared};

/// The thread. It ends soon after this is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: CancellationToken,
    #[cfg(test)]
    thread: Option<thread::JoinHandle<()>>,
}

impl Watcher {
    /// Begins to watch.
    pub(super) fn start(shared: Arc<Shared>) -> Result<Self, RunsError> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunsError::Watcher)?;
        let thread = thread::Builder::new()
            .name("state watcher".into())
            .spawn(move || {
                runtime.block_on(stopped.run_until_cancelled_owned(watch(&shared)));
            })
            .map_err(RunsError::Watcher)?;
        #[cfg(not(test))]
        drop(thread);
        Ok(Self {
            stop,
            #[cfg(test)]
            thread: Some(thread),
        })
    }

    /// Stops it now.
    #[cfg(test)]
    pub(super) fn abort(&mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Takes over other processes' changes. While it cannot, nobody stands.
async fn watch(shared: &Shared) {
    let mut feed = Feed::new(shared.store.clone());
    let mut is_failing = false;
    loop {
        tokio::time::sleep(POLL).await;
        let read = shared.follow(&mut feed).await;
        if let Err(error) = &read
            && !is_failing
        {
            tracing::warn!(%error, "the state cannot be read; calls are refused until it can");
        }
        if is_failing && read.is_ok() {
            tracing::info!("the state can be read again");
        }
        is_failing = read.is_err();
    }
}
