//! The connections of a listener, of which one may have to make way for another.
//!
//! A client may keep a connection open between two requests, and so many of them that there is no room left. Who
//! waits for a next request has been answered, and can connect again.

use std::sync::{Arc, Weak};

use super::pace::Pace;

/// How many connections are known at least before it is looked which of them have ended.
const KNOWN_MIN: usize = 64;

/// The connections that were let in.
#[derive(Debug, Default)]
pub(super) struct Guests {
    known: Vec<Weak<Pace>>,
    /// How many are known when it is looked next which of them have ended.
    sweep_at: usize,
}

impl Guests {
    /// Takes note of a connection.
    pub(super) fn let_in(&mut self, pace: &Arc<Pace>) {
        if self.known.len() >= self.sweep_at.max(KNOWN_MIN) {
            self.known.retain(|known| known.strong_count() > 0);
            self.sweep_at = self.known.len() * 2;
        }
        self.known.push(Arc::downgrade(pace));
    }

    /// Asks whoever has waited longest for a next request to make way. Whether there is such a one.
    pub(super) fn one_makes_way(&self) -> bool {
        let waiting = self.known.iter().filter_map(|known| {
            let pace = known.upgrade()?;
            Some((pace.idle_until()?, pace))
        });
        let longest = waiting.min_by_key(|(until, _)| *until);
        longest.is_some_and(|(_, pace)| {
            pace.make_way();
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::pace::Phase, *};

    fn pace(phase: Phase) -> Arc<Pace> {
        let long = Duration::from_secs(60);
        let pace = Pace::begin(long, long, long);
        pace.enter(phase);
        pace
    }

    #[tokio::test]
    async fn who_has_waited_longest_makes_way_and_each_only_once() {
        let (mut guests, idle) = (Guests::default(), [pace(Phase::Idle), pace(Phase::Idle)]);
        guests.let_in(&idle[1]);
        guests.let_in(&idle[0]);
        let asked = || idle.each_ref().map(|pace| pace.makes_way().is_cancelled());
        assert!(guests.one_makes_way());
        assert_eq!(asked(), [true, false]);
        assert!(guests.one_makes_way());
        assert_eq!(asked(), [true, true]);
        assert!(!guests.one_makes_way());
    }

    #[tokio::test]
    async fn nobody_makes_way_who_is_asking_or_being_answered() {
        use Phase::{Closing, Head, Made, Streaming, Working, Writing};
        let busy = [Head, Working, Writing, Streaming, Made, Closing].map(pace);
        let mut guests = Guests::default();
        busy.iter().for_each(|pace| guests.let_in(pace));
        assert!(!guests.one_makes_way());
        assert!(busy.iter().all(|pace| !pace.makes_way().is_cancelled()));
    }

    #[tokio::test]
    async fn connections_that_have_ended_are_forgotten() {
        let mut guests = Guests::default();
        let stays: Vec<_> = (0..100).map(|_| pace(Phase::Working)).collect();
        stays.iter().for_each(|pace| guests.let_in(pace));
        (0..10_000).for_each(|_| guests.let_in(&pace(Phase::Idle)));
        assert!(guests.known.len() <= 201, "{}", guests.known.len());
        assert!(!guests.one_makes_way(), "none of them waits any more");
    }
}
