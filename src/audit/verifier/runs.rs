//! What a log's records say of how long its writers lived: asked where no checkpoint is published.
//!
//! A writer publishes its first head at once, and a newer one each second. A log without a checkpoint is thus one
//! whose every writer died in its first moments, or one that somebody took the checkpoint from.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// A writer that goes on for so long after its first head has published one.
const PUBLISHED_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// Of so many writers, one has come as far as to publish a head.
const STARTS: u64 = 8;

/// The writers of a log, as far as it was read.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    starts: u64,
    /// When the last record was made.
    last: Option<Timestamp>,
    /// When the last record was made that the first head of this writer covers.
    headed: Option<Timestamp>,
    has_outlived: bool,
}

#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    record: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

impl Runs {
    /// Takes the next record.
    pub fn record(&mut self, record: &[u8]) {
        let Ok(Peek { record, time }) = serde_json::from_slice::<Peek<'_>>(record) else { return };
        let Ok(time) = time.parse::<Timestamp>() else { return };
        if record == "start" {
            self.starts += 1;
            self.headed = None;
        }
        self.has_outlived |= self.headed.is_some_and(|headed| time.duration_since(headed) > PUBLISHED_AFTER);
        self.last = Some(time);
    }

    /// Takes a head of the records so far.
    pub fn head(&mut self) {
        self.headed = self.headed.or(self.last);
    }

    /// Whether a checkpoint was published for certain.
    pub fn have_published(&self) -> bool {
        self.has_outlived || self.starts >= STARTS
    }
}

#[cfg(test)]
#[path = "runs/tests.rs"]
mod tests;
