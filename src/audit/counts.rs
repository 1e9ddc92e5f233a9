//! Failures before identity, counted per source and interval: a flood of them can neither fill the disk nor hide.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

/// Sources that are told apart in one interval; the others are counted together.
const SOURCES_MAX: usize = 256;

/// Failures since the last summary.
#[derive(Debug)]
pub(super) struct Counts(Mutex<Interval>);

#[derive(Debug)]
struct Interval {
    since: Timestamp,
    counts: HashMap<(Option<IpAddr>, &'static str), u64>,
}

/// What happened so often in an interval.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Count {
    pub(super) source: Option<IpAddr>,
    pub(super) code: &'static str,
    pub(super) count: u64,
    pub(super) since: Timestamp,
}

impl Counts {
    pub(super) fn new(now: Timestamp) -> Self {
        Self(Mutex::new(Interval { since: now, counts: HashMap::new() }))
    }

    /// Counts a failure.
    pub(super) fn add(&self, source: Option<IpAddr>, code: &'static str) {
        let mut interval = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut interval.counts;
        let known = counts.len() < SOURCES_MAX || counts.contains_key(&(source, code));
        let key = if known { (source, code) } else { (None, "other_sources") };
        let count = counts.entry(key).or_default();
        *count = count.saturating_add(1);
    }

    /// Takes what was counted, and begins another interval.
    pub(super) fn take(&self, now: Timestamp) -> Vec<Count> {
        let mut interval = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = std::mem::replace(&mut interval.since, now);
        let counts = std::mem::take(&mut interval.counts);
        drop(interval);
        let mut counts: Vec<_> =
            counts.into_iter().map(|((source, code), count)| Count { source, code, count, since }).collect();
        counts.sort_by_key(|count| (count.source, count.code));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_flood_from_everywhere_is_a_bounded_number_of_counts() {
        let counts = Counts::new(at(1));
        for source in 0..100_000_u32 {
            counts.add(Some(IpAddr::from(source.to_be_bytes())), "unknown_key");
        }
        let taken = counts.take(at(2));
        assert_eq!(taken.len(), SOURCES_MAX + 1);
        assert_eq!(taken.iter().map(|count| count.count).sum::<u64>(), 100_000);
        assert!(taken.iter().all(|count| count.since == at(1)));
        assert_eq!(counts.take(at(3)), []);
        counts.add(None, "unknown_key");
        assert_eq!(counts.take(at(4)), [Count { source: None, code: "unknown_key", count: 1, since: at(3) }]);
    }
}
