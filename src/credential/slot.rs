//! One value that is fetched by whoever needs it first, for all who wait for it.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::{sync::Notify, time};

use super::{CredentialError, timing::Timing};

/// A value with a life.
pub(super) trait Timed: Send + Sync + 'static {
    /// From when on it is fetched anew while it still serves.
    fn refresh_at(&self) -> Instant;
    /// From when on it is not used.
    fn usable_until(&self) -> Instant;
}

/// The place of one value. At most one fetch is under way.
///
/// A fetch is a task of its own: a caller that gives up does not end it for the others.
#[derive(Debug)]
pub(super) struct Slot<T> {
    state: Mutex<State<T>>,
    changed: Notify,
    timing: Timing,
}

#[derive(Debug)]
struct State<T> {
    current: Option<Arc<T>>,
    failed: Option<(Instant, Arc<CredentialError>)>,
    is_fetching: bool,
}

impl<T: Timed> Slot<T> {
    pub(super) fn new(timing: Timing) -> Arc<Self> {
        let state = State { current: None, failed: None, is_fetching: false };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new(), timing })
    }

    /// The value, fetched if need be. The fetch is given the value that it replaces.
    pub(super) async fn get<Fetch, Fetching>(
        self: &Arc<Self>,
        deadline: Instant,
        fetch: Fetch,
    ) -> Result<Arc<T>, CredentialError>
    where
        Fetch: Fn(Option<Arc<T>>) -> Fetching,
        Fetching: Future<Output = Result<T, CredentialError>> + Send + 'static,
    {
        let deadline = deadline.min(Instant::now() + self.timing.wait_max);
        loop {
            // Made before the state is looked at, so that no change in between is missed.
            let changed = self.changed.notified();
            if let Some(found) = self.look(&fetch) {
                return found;
            }
            if time::timeout_at(deadline.into(), changed).await.is_err() {
                return Err(CredentialError::Waited);
            }
        }
    }

    /// The value or the failure of now; none while it is being fetched. Begins a fetch where one is due.
    fn look<Fetch, Fetching>(self: &Arc<Self>, fetch: &Fetch) -> Option<Result<Arc<T>, CredentialError>>
    where
        Fetch: Fn(Option<Arc<T>>) -> Fetching,
        Fetching: Future<Output = Result<T, CredentialError>> + Send + 'static,
    {
        let now = Instant::now();
        let mut state = self.lock();
        let usable = state.current.clone().filter(|value| now < value.usable_until());
        let failure = state.failed.clone().filter(|(since, _)| now < *since + self.timing.failure_kept);
        let is_due = usable.as_ref().is_none_or(|value| now >= value.refresh_at());
        if is_due && !state.is_fetching && failure.is_none() {
            state.is_fetching = true;
            let fetching = fetch(state.current.clone());
            tokio::spawn(Arc::clone(self).fetch(fetching));
        }
        match (usable, failure) {
            (Some(value), _) => Some(Ok(value)),
            (None, Some((_, failure))) => Some(Err(CredentialError::Shared(failure))),
            (None, None) => None,
        }
    }

    async fn fetch(self: Arc<Self>, fetching: impl Future<Output = Result<T, CredentialError>>) {
        let ended = Ended(&self); // also where the fetch panics
        let outcome = fetching.await;
        let mut state = self.lock();
        match outcome {
            Ok(value) => {
                state.current = Some(Arc::new(value));
                state.failed = None;
            }
            Err(error) => {
                if error.is_final() {
                    state.current = None;
                }
                state.failed = Some((Instant::now(), Arc::new(error)));
            }
        }
        drop(state);
        drop(ended);
    }

    /// Drops a value that was refused where it was shown, so that the next call fetches another.
    pub(super) fn reject(&self, value: &Arc<T>) {
        let mut state = self.lock();
        state.current = state.current.take().filter(|current| !Arc::ptr_eq(current, value));
    }

    /// Takes the value out.
    pub(super) fn take(&self) -> Option<Arc<T>> {
        self.lock().current.take()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells all who wait that the fetch is over.
struct Ended<'a, T: Timed>(&'a Slot<T>);

impl<T: Timed> Drop for Ended<'_, T> {
    fn drop(&mut self) {
        self.0.lock().is_fetching = false;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
