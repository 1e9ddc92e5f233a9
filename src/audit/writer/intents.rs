//! The intents whose outcome is not on record.

use std::collections::{BTreeMap, HashMap};

/// Intents without an outcome.
#[derive(Debug, Default)]
pub(super) struct Intents {
    by_index: BTreeMap<u64, u128>,
    by_call: HashMap<u128, u64>,
}

impl Intents {
    pub(super) fn begin(&mut self, call: u128, index: u64) {
        self.by_index.insert(index, call);
        if let Some(before) = self.by_call.insert(call, index) {
            self.by_index.remove(&before);
        }
    }

    pub(super) fn end(&mut self, call: u128) {
        if let Some(index) = self.by_call.remove(&call) {
            self.by_index.remove(&index);
        }
    }

    /// The index of the oldest one.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.by_index.first_key_value().map(|(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_intent_is_the_one_that_has_no_outcome() {
        let mut intents = Intents::default();
        assert_eq!(intents.oldest(), None);
        (0..3).for_each(|n| intents.begin(u128::from(n), n));
        intents.end(0);
        intents.end(2);
        intents.end(9);
        assert_eq!(intents.oldest(), Some(1));
        intents.begin(1, 7);
        assert_eq!(intents.oldest(), Some(7));
        intents.end(1);
        assert_eq!(intents.oldest(), None);
    }
}
