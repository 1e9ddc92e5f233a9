//! The limiter before authentication: how often a source may fail to prove who it is.
//!
//! A flood from any number of sources cannot fill memory, since there is a fixed table: a count-min sketch
//! (Cormode and Muthukrishnan, 2005) of leaky buckets. A source has one cell in each row, and owes what
//! the least of them says, so it never owes less than it failed. It owes more only if other sources spoil
//! its cells in all rows: with 5,000 sources shut out at once, one other in 30,000. Where the cells are is
//! random, and known to nobody.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::manifest::Rate;

/// The rate of a listener that states none, in failures per minute.
const FAILURES_PER_MINUTE: u32 = 600;

const ROWS: usize = 4;

/// Cells in a row. All of them together take 2 MiB.
const CELLS: usize = 1 << 16;

/// The failures of all sources.
pub(super) struct Failures {
    /// For each cell, the time at which nothing is owed any more, in nanoseconds since `began`.
    cells: Vec<AtomicU64>,
    places: [RandomState; ROWS],
    began: Instant,
    /// What one failure adds.
    each_nanos: u64,
    /// How far ahead of now a source may be.
    debt_nanos_max: u64,
}

impl Failures {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        let minute = (FAILURES_PER_MINUTE, Duration::from_secs(60));
        let (failures, period) = rate.map_or(minute, |rate| (NonZeroU32::get(rate.calls()), rate.period()));
        let debt_nanos_max = nanos(period);
        Self {
            cells: std::iter::repeat_with(AtomicU64::default).take(ROWS * CELLS).collect(),
            places: std::array::from_fn(|_| RandomState::new()),
            began: Instant::now(),
            each_nanos: debt_nanos_max / u64::from(failures.max(1)),
            debt_nanos_max,
        }
    }

    /// Whether a source may try.
    ///
    /// # Errors
    /// When it has failed too often: how long until it may.
    pub(super) fn check(&self, source: IpAddr) -> Result<(), Duration> {
        self.check_at(source, Instant::now())
    }

    /// Says that a source has failed.
    pub(super) fn add(&self, source: IpAddr) {
        self.add_at(source, Instant::now());
    }

    fn check_at(&self, source: IpAddr, now: Instant) -> Result<(), Duration> {
        // The next failure has to fit.
        let owed = self.owed(source).saturating_add(self.each_nanos);
        let allowed = self.since(now).saturating_add(self.debt_nanos_max);
        if owed <= allowed { Ok(()) } else { Err(Duration::from_nanos(owed - allowed)) }
    }

    fn add_at(&self, source: IpAddr, now: Instant) {
        let now = self.since(now);
        // What is on its way is refused beyond the budget, but it does not shut a source out for longer.
        let most = now.saturating_add(self.debt_nanos_max);
        let more = |owed: u64| Some(owed.max(now).saturating_add(self.each_nanos).min(most));
        for cell in self.cells_of(source) {
            let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    fn owed(&self, source: IpAddr) -> u64 {
        self.cells_of(source).map(|cell| cell.load(Ordering::Relaxed)).min().unwrap_or_default()
    }

    fn cells_of(&self, source: IpAddr) -> impl Iterator<Item = &AtomicU64> {
        let subject = subject(source);
        self.places.iter().zip(self.cells.chunks(CELLS)).filter_map(move |(place, row)| {
            let at = usize::try_from(place.hash_one(subject) % CELLS as u64).unwrap_or_default();
            row.get(at)
        })
    }

    fn since(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.began))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Who is meant by an address: of IPv6, the /64, since one machine has all of it.
pub(super) fn subject(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rate: &str) -> (Failures, Instant) {
        let failures = Failures::new(Some(rate.parse().unwrap()));
        let began = failures.began;
        (failures, began)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_that_failed_too_often_waits_and_others_do_not() {
        let (failures, began) = of("3/min");
        let guesser = address("198.51.100.7");
        for _ in 0..3 {
            assert_eq!(failures.check_at(guesser, began), Ok(()));
            failures.add_at(guesser, began);
        }
        assert_eq!(failures.check_at(guesser, began), Err(Duration::from_secs(20)));
        assert_eq!(failures.check_at(address("::ffff:198.51.100.7"), began), Err(Duration::from_secs(20)));
        assert_eq!(failures.check_at(address("198.51.100.8"), began), Ok(()));
        let later = began + Duration::from_secs(20);
        assert_eq!(failures.check_at(guesser, later), Ok(()));
        failures.add_at(guesser, later);
        assert_eq!(failures.check_at(guesser, later), Err(Duration::from_secs(20)));
        assert_eq!(failures.check_at(guesser, later + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn a_machine_cannot_spread_over_its_own_addresses() {
        let (failures, began) = of("3/min");
        for last in 0..3_u16 {
            failures.add_at(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, last, 0, 0, last)), began);
        }
        assert!(failures.check_at(address("2001:db8:0:1::ffff"), began).is_err());
        assert!(failures.check_at(address("2001:db8:0:2::ffff"), began).is_ok());
    }

    #[test]
    fn failures_on_their_way_do_not_shut_a_source_out_for_longer() {
        let (failures, began) = of("3/min");
        let guesser = address("198.51.100.7");
        (0..1000).for_each(|_| failures.add_at(guesser, began));
        assert_eq!(failures.check_at(guesser, began), Err(Duration::from_secs(20)));
    }

    #[test]
    fn a_flood_of_sources_takes_no_memory_and_shuts_nobody_else_out() {
        let (failures, began) = of("3/min");
        let cells = failures.cells.capacity();
        for source in 0..5_000_u32 {
            (0..3).for_each(|_| failures.add_at(IpAddr::V4((0x0a00_0000 + source).into()), began));
        }
        let shut_out = |from: u32| {
            (0..5_000_u32)
                .filter(|at| failures.check_at(IpAddr::V4((from + at).into()), began).is_err())
                .count()
        };
        assert_eq!(shut_out(0x0a00_0000), 5_000);
        assert!(shut_out(0x0b00_0000) < 20, "{}", shut_out(0x0b00_0000));
        assert_eq!(failures.cells.capacity(), cells);
    }
}
