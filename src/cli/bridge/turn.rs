//! In which order messages are sent. Most go at once; those behind a step in the beginning of a session (MCP
//! 2025-11-25 lifecycle) wait until it is done, and nothing else waits with them.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::{CancellationToken, DropGuard};

/// Gives each message its turn, in the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Cancelled once the last step is done. None before the first one.
    last_step: Mutex<Option<CancellationToken>>,
}

/// When a message may be sent.
#[derive(Debug)]
pub(super) struct Turn {
    after: Option<CancellationToken>,
    /// Of a step: once this is dropped, it is done, however it ended.
    done: Option<DropGuard>,
}

impl Turns {
    /// The turn of the next message. All that follow a step wait for it.
    pub(super) fn next(&self, is_step: bool) -> Turn {
        let mut last = self.last_step.lock().unwrap_or_else(PoisonError::into_inner);
        let after = last.clone();
        let done = is_step.then(|| last.insert(CancellationToken::new()).clone().drop_guard());
        Turn { after, done }
    }
}

impl Turn {
    /// Waits for it.
    pub(super) async fn comes(&self) {
        if let Some(after) = &self.after {
            after.cancelled().await;
        }
    }

    pub(super) const fn is_step(&self) -> bool {
        self.done.is_some()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn has_come(turn: &Turn) -> bool {
        turn.comes().now_or_never().is_some()
    }

    #[test]
    fn what_follows_a_step_waits_for_it_and_nothing_else_does() {
        let turns = Turns::default();
        let before = turns.next(false);
        let (first, second) = (turns.next(true), turns.next(true));
        let after = turns.next(false);
        assert!(has_come(&before) && has_come(&first));
        assert!(!has_come(&second) && !has_come(&after));
        drop((before, second));
        assert!(has_come(&after), "a step that ends early is over for those behind it");
        drop(first);
        assert!(has_come(&turns.next(false)));
    }
}
