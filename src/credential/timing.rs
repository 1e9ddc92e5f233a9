//! How long things may take, and how long they are kept.

use std::time::Duration;

/// The limits of this module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// The last part of a token's life, in which it is not used: it has to be good when it arrives.
    pub(super) last: Duration,
    /// How long a call waits for a credential, whatever its own limit is.
    pub(super) wait_max: Duration,
    /// How long one request to a token endpoint or a vault may take, its answer included.
    pub(super) request_max: Duration,
    /// How long a failure is remembered, so that what is down is not asked by every call.
    pub(super) failure_kept: Duration,
    /// How often a file is looked at.
    pub(super) look_every: Duration,
}

impl Timing {
    pub(super) const REAL: Self = Self {
        last: Duration::from_secs(5),
        wait_max: Duration::from_secs(5),
        request_max: Duration::from_secs(5),
        failure_kept: Duration::from_secs(1),
        look_every: Duration::from_secs(1),
    };

    /// When something of this life is to be got anew: at four fifths, and before its last part.
    pub(super) fn refresh_after(&self, life: Duration) -> Duration {
        let usable = life.saturating_sub(self.last);
        (life / 5 * 4).min(usable / 10 * 9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_is_due_at_four_fifths_and_always_while_the_old_one_is_still_used() {
        for seconds in 6..10_000 {
            let life = Duration::from_secs(seconds);
            let due = Timing::REAL.refresh_after(life);
            assert!(due < life - Timing::REAL.last, "{seconds}");
            assert!(seconds < 60 || due == life / 5 * 4, "{seconds}");
        }
    }
}
