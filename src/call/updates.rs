//! The line on which somebody hears that a resource is another now.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What waits to be told to one subscriber. A resource that changes often waits once.
#[derive(Debug, Default)]
pub struct UpdateBox {
    changed: Mutex<BTreeSet<Arc<str>>>,
    some: Notify,
}

impl UpdateBox {
    /// Waits until something has changed, and takes all that has.
    pub async fn take(&self) -> BTreeSet<Arc<str>> {
        loop {
            let some = self.some.notified();
            let changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
            if !changed.is_empty() {
                return changed;
            }
            some.await;
        }
    }

    fn put(&self, uri: &Arc<str>) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(uri));
        self.some.notify_one();
    }
}

/// The line of one subscription.
#[derive(Clone, Debug)]
pub struct Updates {
    uri: Arc<str>,
    to: Arc<UpdateBox>,
    over: CancellationToken,
}

impl Updates {
    /// A line into a box, until it is over.
    #[must_use]
    pub fn new(uri: &str, to: Arc<UpdateBox>, over: CancellationToken) -> Self {
        Self { uri: uri.into(), to, over }
    }

    /// The URI of the resource.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Says that the resource is another now.
    pub fn tell(&self) {
        if !self.over.is_cancelled() {
            self.to.put(&self.uri);
        }
    }

    /// Fires when nobody wants to hear of it any more.
    #[must_use]
    pub const fn over(&self) -> &CancellationToken {
        &self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_changes_often_waits_once_and_nothing_comes_after_the_end() {
        let (to, over) = (Arc::new(UpdateBox::default()), CancellationToken::new());
        let updates = Updates::new("a:b", Arc::clone(&to), over.clone());
        updates.tell();
        updates.tell();
        assert_eq!(to.take().await.len(), 1);
        over.cancel();
        updates.tell();
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), to.take());
        assert!(waiting.await.is_err());
    }
}
