//! How much of the thread for costly validations one client may take.
//!
//! A thread that only gets what others leave still shares caches, and often a core, with them. So no client
//! keeps it busy for longer than a short while: what its costly validations may cost at most is a debt, which
//! shrinks with time, and a client that owes too much comes back later.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::manifest::ClientName;

/// A client may keep the thread busy for one part in this many of the time.
const PARTS: u32 = 20;
/// What a client may owe and still be served, as time that its debt takes to shrink away: 100 ms of the thread.
const OWED_MAX: Duration = Duration::from_secs(2);
/// The longest that a step takes.
const STEP_NANOS: u64 = 20;

/// What the clients of one process owe.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// When each will owe nothing again. Whoever owes nothing is not kept.
    clear_at: Mutex<HashMap<ClientName, Instant>>,
}

impl Shares {
    /// May this client have something costly done?
    ///
    /// # Errors
    /// When it owes too much: how long to wait.
    pub(super) fn admit(&self, client: &ClientName, now: Instant) -> Result<(), Duration> {
        let clear_at = self.clear_at.lock().unwrap_or_else(PoisonError::into_inner);
        let owed = clear_at.get(client).map_or(Duration::ZERO, |at| at.duration_since(now));
        if owed > OWED_MAX { Err(owed.saturating_sub(OWED_MAX)) } else { Ok(()) }
    }

    /// Puts the price of so many steps on a client's debt.
    pub(super) fn charge(&self, client: &ClientName, steps: u64, now: Instant) {
        let price = Duration::from_nanos(steps.saturating_mul(STEP_NANOS)).saturating_mul(PARTS);
        let mut clear_at = self.clear_at.lock().unwrap_or_else(PoisonError::into_inner);
        clear_at.retain(|_, at| *at > now);
        let at = clear_at.entry(client.clone()).or_insert(now);
        // What is priced has a bound far below what a clock can hold.
        *at = at.checked_add(price).unwrap_or(*at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000 / STEP_NANOS;

    fn client(name: &str) -> ClientName {
        ClientName::parse(name).unwrap()
    }

    #[test]
    fn a_client_in_debt_comes_back_when_it_is_told_to_and_others_do_not_wait() {
        let (shares, now) = (Shares::default(), Instant::now());
        let (greedy, other) = (client("greedy"), client("other"));
        shares.charge(&greedy, 400 * MILLISECOND, now);
        let wait = shares.admit(&greedy, now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(6));
        shares.admit(&other, now).unwrap();
        shares.admit(&greedy, now + wait - Duration::from_millis(1)).unwrap_err();
        shares.admit(&greedy, now + wait).unwrap();
    }

    #[test]
    fn in_the_long_run_a_client_gets_its_part_and_no_more() {
        let (shares, start) = (Shares::default(), Instant::now());
        let lent = (0..600_000_u64)
            .map(|at| start + Duration::from_millis(at))
            .filter(|now| shares.admit(&client("greedy"), *now).is_ok())
            .map(|now| shares.charge(&client("greedy"), 5 * MILLISECOND, now))
            .count();
        // Ten minutes: a twentieth is 30 s, in pieces of 5 ms, and 100 ms more at the start.
        assert!((6_000..=6_021).contains(&lent), "{lent}");
    }

    #[test]
    fn who_owes_nothing_is_not_kept() {
        let (shares, now) = (Shares::default(), Instant::now());
        for at in 0..100 {
            shares.charge(&client(&format!("c{at}")), MILLISECOND, now);
        }
        shares.charge(&client("last"), MILLISECOND, now + Duration::from_secs(1));
        assert_eq!(shares.clear_at.lock().unwrap().len(), 1);
    }
}
