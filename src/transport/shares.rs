//! How much each holder has of what there is only so much of.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What has been taken, by whom.
#[derive(Debug)]
pub(super) struct Shares<K> {
    taken: Mutex<HashMap<K, usize>>,
}

/// One of what a holder has, until it is dropped.
#[derive(Debug)]
pub(super) struct Share<K: Eq + Hash> {
    holder: K,
    shares: Arc<Shares<K>>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// Nothing is taken yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default() })
    }

    /// One more for a holder, unless it has as many as it may have.
    pub(super) fn take(self: &Arc<Self>, holder: &K, max: usize) -> Option<Share<K>> {
        let mut taken = self.taken();
        let has = taken.get(holder).copied().unwrap_or_default();
        if has >= max {
            return None;
        }
        taken.insert(holder.clone(), has + 1);
        Some(Share { holder: holder.clone(), shares: Arc::clone(self) })
    }
}

impl<K> Shares<K> {
    fn taken(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        match taken.get_mut(&self.holder) {
            Some(has) if *has > 1 => *has -= 1,
            // Who has nothing is not remembered.
            _ => drop(taken.remove(&self.holder)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_its_share_and_no_more_and_gives_it_back() {
        let shares = Shares::new();
        let held = [shares.take(&"a", 2), shares.take(&"a", 2)];
        assert!(held.iter().all(Option::is_some));
        assert!(shares.take(&"a", 2).is_none());
        assert!(shares.take(&"b", 2).is_some(), "another's");
        let [one, other] = held;
        drop(one);
        let again = shares.take(&"a", 2);
        assert!(again.is_some());
        drop((again, other));
        assert!(shares.taken().is_empty());
    }
}
