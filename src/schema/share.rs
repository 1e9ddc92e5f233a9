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
    /// Lends a client the time for this many steps, or says when to come back.
    ///
    /// # Errors
    /// When it owes too much: how long to wait.
    pub(super) fn lend(&self, client: &ClientName, steps: u64, now: Instant) -> Result<(), Duration> {
        let cost = Duration::from_nanos(steps.saturating_mul(STEP_NANOS)).saturating_mul(PARTS);
        let mut clear_at = self.clear_at.lock().unwrap_or_else(PoisonError::into_inner);
        clear_at.retain(|_, at| *at > now);
        let owed = clear_at.get(client).map_or(Duration::ZERO, |at| at.duration_since(now));
        if owed > OWED_MAX {
            return Err(owed.saturating_sub(OWED_MAX));
        }
        // A sum that no clock can hold would be a debt for ever; such a validation is never lent for.
        let at = now.checked_add(owed.saturating_add(cost)).ok_or(Duration::MAX)?;
        clear_at.insert(client.clone(), at);
        Ok(())
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
        shares.lend(&greedy, 400 * MILLISECOND, now).unwrap();
        let wait = shares.lend(&greedy, MILLISECOND, now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(6));
        shares.lend(&other, MILLISECOND, now).unwrap();
        shares.lend(&greedy, MILLISECOND, now + wait - Duration::from_millis(1)).unwrap_err();
        shares.lend(&greedy, MILLISECOND, now + wait).unwrap();
    }

    #[test]
    fn in_the_long_run_a_client_gets_its_part_and_no_more() {
        let (shares, start) = (Shares::default(), Instant::now());
        let lent = (0..600_000_u64)
            .filter(|at| {
                shares.lend(&client("greedy"), 5 * MILLISECOND, start + Duration::from_millis(*at)).is_ok()
            })
            .count();
        // Ten minutes: a twentieth is 30 s, in pieces of 5 ms, and 100 ms more at the start.
        assert!((6_000..=6_021).contains(&lent), "{lent}");
    }

    #[test]
    fn who_owes_nothing_is_not_kept() {
        let (shares, now) = (Shares::default(), Instant::now());
        for at in 0..100 {
            shares.lend(&client(&format!("c{at}")), MILLISECOND, now).unwrap();
        }
        shares.lend(&client("last"), MILLISECOND, now + Duration::from_secs(1)).unwrap();
        assert_eq!(shares.clear_at.lock().unwrap().len(), 1);
    }
}
