//! The newest durable head, for all who want to know it.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use crate::audit::head::SignedHead;

/// The durable heads of a log.
#[derive(Clone, Debug, Default)]
pub(in crate::audit) struct Heads(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    newest: Option<Arc<SignedHead>>,
    ended: bool,
}

impl State {
    fn size(&self) -> u64 {
        self.newest.as_ref().map_or(0, |head| head.size())
    }
}

impl Heads {
    /// The newest durable head; `None` for an empty log.
    pub(in crate::audit) fn newest(&self) -> Option<Arc<SignedHead>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).newest.clone()
    }

    /// Waits for a durable head of a size beyond the given one. `None` after the timeout, or at once
    /// where no more will come.
    pub(in crate::audit) fn wait_beyond(&self, size: u64, timeout: Duration) -> Option<Arc<SignedHead>> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .0
            .changed
            .wait_timeout_while(state, timeout, |state| state.size() <= size && !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.newest.clone().filter(|head| head.size() > size)
    }

    /// Whether no more heads will come.
    pub(in crate::audit) fn ended(&self) -> bool {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).ended
    }

    pub(super) fn set(&self, head: SignedHead) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).newest = Some(Arc::new(head));
        self.0.changed.notify_all();
    }

    pub(super) fn end(&self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.0.changed.notify_all();
    }
}
