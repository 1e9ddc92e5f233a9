//! Connections on which no admin key was shown yet. They have few places, and never keep out who has a key: where
//! all are taken, whoever has waited longest is hung up on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How many there may be.
const STRANGERS_MAX: usize = 256;
/// How long each is left alone: enough to send what is ready to be sent, and to have it read.
const GRACE: Duration = Duration::from_millis(25);

/// Those who are there, by when they came.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: BTreeMap<u64, (Instant, CancellationToken)>,
}

/// One connection's place among them, until it is dropped, or a key is shown.
#[derive(Debug)]
pub(super) struct Stranger {
    all: Arc<Strangers>,
    number: u64,
    hung_up: CancellationToken,
}

impl Strangers {
    /// A place for a connection. Where there is none, that of the one who has waited longest.
    pub(super) async fn welcome(self: &Arc<Self>) -> Stranger {
        loop {
            match self.admit(Instant::now()) {
                Ok(stranger) => return stranger,
                Err(free) => sleep_until(free).await,
            }
        }
    }

    /// A place, or when there is one at the latest.
    fn admit(self: &Arc<Self>, now: Instant) -> Result<Stranger, Instant> {
        let mut line = self.line();
        if line.waiting.len() >= STRANGERS_MAX
            && let Some(oldest) = line.waiting.first_entry()
        {
            let free = oldest.get().0 + GRACE;
            if free > now {
                return Err(free);
            }
            let (_, hung_up) = oldest.remove();
            hung_up.cancel();
        }
        let (number, hung_up) = (line.next, CancellationToken::new());
        line.next += 1;
        line.waiting.insert(number, (now, hung_up.clone()));
        Ok(Stranger { all: Arc::clone(self), number, hung_up })
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Leaves the place, for a key was shown. Whether it was still held: nobody hears what a connection that
    /// was hung up on asks for.
    pub(super) fn is_known_now(&self) -> bool {
        self.all.line().waiting.remove(&self.number).is_some()
    }

    /// Waits until somebody else takes the place.
    pub(super) async fn hung_up(&self) {
        self.hung_up.cancelled().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.all.line().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_waited_longest_gives_way_and_who_has_shown_a_key_does_not() {
        let all = Arc::new(Strangers::default());
        let now = Instant::now();
        let mut there: Vec<Stranger> = (0..STRANGERS_MAX).map(|_| all.admit(now).unwrap()).collect();
        assert_eq!(all.admit(now).unwrap_err(), now + GRACE, "each has its time");
        assert!(there[0].is_known_now(), "the first one shows a key");
        let later = now + GRACE;
        let in_its_place = all.admit(later).unwrap();
        assert!(there.iter().all(|one| !one.hung_up.is_cancelled()), "that one's place was free");
        let _new = all.admit(later).unwrap();
        assert!(there[1].hung_up.is_cancelled() && !there[2].hung_up.is_cancelled());
        assert!(!there[0].hung_up.is_cancelled() && !in_its_place.hung_up.is_cancelled());
        assert!(!there[1].is_known_now(), "whose place is taken is not listened to");
        drop(there.pop());
        let _new = all.admit(later).unwrap();
        assert!(!there[2].hung_up.is_cancelled(), "who leaves gives the place back");
    }
}
