//! The secrets that are held right now, for whoever has to make sure that none gets out.

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use secrecy::{ExposeSecret, SecretString};

use super::scan::{Held, Index, SECRET_BYTES_MIN};

/// All secrets that are held. Clones share them.
#[derive(Clone, Default)]
pub struct LiveSecrets(Arc<Registry>);

#[derive(Default)]
struct Registry {
    index: RwLock<Index>,
    next: AtomicU64,
    generation: AtomicU64,
}

/// Keeps one secret in the registry until it is dropped.
pub struct LiveSecret {
    registry: LiveSecrets,
    id: u64,
}

impl LiveSecrets {
    /// Registers a secret under the name of what it is for.
    #[must_use]
    pub fn insert(&self, name: &str, secret: &SecretString) -> LiveSecret {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let held = Held { name: name.to_owned(), secret: secret.clone() };
        self.change(|index| index.insert(id, held));
        LiveSecret { registry: self.clone(), id }
    }

    /// A number that grows with every change.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Shows each name and secret. Nothing may be registered or dropped meanwhile.
    pub fn for_each(&self, mut see: impl FnMut(&str, &SecretString)) {
        self.read(|index| index.held.values().for_each(|held| see(&held.name, &held.secret)));
    }

    /// The names of secrets that are too short to be found in a text.
    #[must_use]
    pub fn too_short(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.for_each(|name, secret| {
            if secret.expose_secret().len() < SECRET_BYTES_MIN {
                names.push(name.to_owned());
            }
        });
        names
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.0.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Index)) {
        change(&mut self.0.index.write().unwrap_or_else(PoisonError::into_inner));
        self.0.generation.fetch_add(1, Ordering::Release);
    }
}

impl Drop for LiveSecret {
    fn drop(&mut self) {
        self.registry.change(|index| index.remove(self.id));
    }
}

impl fmt::Debug for LiveSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSecrets").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl fmt::Debug for LiveSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSecret").finish_non_exhaustive()
    }
}

/// A secret in memory, registered for as long as it is there.
#[derive(Debug)]
pub(super) struct HeldSecret {
    value: SecretString,
    _live: LiveSecret,
}

impl HeldSecret {
    pub(super) fn new(value: SecretString, name: &str, live: &LiveSecrets) -> Self {
        let guard = live.insert(name, &value);
        Self { value, _live: guard }
    }

    pub(super) fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(live: &LiveSecrets) -> Vec<String> {
        let mut seen = Vec::new();
        live.for_each(|name, secret| seen.push(format!("{name}={}", secret.expose_secret())));
        seen
    }

    #[test]
    fn a_secret_is_registered_until_its_last_holder_drops_it() {
        let live = LiveSecrets::default();
        let one = Arc::new(HeldSecret::new("hunter2".into(), "a", &live));
        let (other, before) = (Arc::clone(&one), live.generation());
        drop(one);
        assert_eq!((held(&live), live.generation()), (vec!["a=hunter2".to_owned()], before));
        drop(other);
        assert!(held(&live).is_empty() && live.generation() > before);
    }

    #[test]
    fn the_same_secret_from_two_places_stays_until_both_are_gone() {
        let live = LiveSecrets::default();
        let (one, other) = (live.insert("a", &"s".into()), live.insert("b", &"s".into()));
        drop(one);
        assert_eq!(held(&live), ["b=s"]);
        drop(other);
        assert!(held(&live).is_empty());
    }

    #[test]
    fn a_registry_prints_no_secret() {
        let live = LiveSecrets::default();
        let one = HeldSecret::new("hunter2".into(), "a", &live);
        assert!(!format!("{live:?} {one:?}").contains("hunter2"));
    }
}
