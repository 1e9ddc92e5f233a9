//! The trail of a call: which guards it met, what each said, and how long it took.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::{Call, CallId, Facts, Origin, Outcome, Salt, Stage, TraceId};

/// A value that proves that a call passed a stage.
pub trait Passed {
    /// The stage that made it.
    const STAGE: Stage;

    /// Adds what the stage found out.
    fn describe(&self, facts: &mut Facts);
}

/// Why a stage refused a call.
///
/// `Display` is for the log and the record; it holds no secret and no backend's text.
pub trait Refusal: std::error::Error {
    /// The stage that refused.
    fn stage(&self) -> Stage;

    /// The refusal in one word, stable over versions.
    fn code(&self) -> &'static str;

    /// What the agent is told.
    fn public_message(&self) -> String;

    /// How the call ends.
    fn outcome(&self) -> Outcome {
        Outcome::Denied
    }

    /// Adds what the stage found out before it refused.
    fn describe(&self, facts: &mut Facts) {
        let _ = facts;
    }
}

/// One stage of a trail.
#[derive(Clone, Debug, Serialize)]
pub struct StageNote {
    /// How long it took, in microseconds.
    pub micros: u64,
    /// The stage.
    pub stage: Stage,
    /// `passed`, or the code of the refusal.
    pub verdict: &'static str,
}

/// Which guards a call met, what each said, and how long it took.
#[derive(Debug)]
pub struct Trail {
    /// The call's id.
    pub id: CallId,
    /// What kind of call it is, in one word.
    pub kind: &'static str,
    /// The name it asked for, as it was sent.
    pub target: String,
    /// Where it came from.
    pub origin: Origin,
    /// The trace it belongs to.
    pub trace: Option<TraceId>,
    /// When it arrived.
    pub received: Timestamp,
    /// The digest of the release that judged it.
    pub release: String,
    /// The salt of its digests. Without one, nothing is digested.
    pub salt: Option<Salt>,
    /// The stages it met.
    pub stages: Vec<StageNote>,
    /// What they found out.
    pub facts: Facts,
    began: Instant,
    mark: Instant,
}

/// Longer names are cut in records.
const TARGET_CHARS_MAX: usize = 256;

impl Trail {
    /// The trail of a call that has met no guard yet.
    #[must_use]
    pub fn begin(call: &Call, release: &str) -> Self {
        let now = Instant::now();
        Self {
            id: call.id,
            kind: call.kind.word(),
            target: call.kind.target().chars().take(TARGET_CHARS_MAX).collect(),
            origin: call.origin,
            trace: call.trace,
            received: call.received,
            release: release.to_owned(),
            salt: Salt::random(),
            stages: Vec::with_capacity(10),
            facts: Facts::default(),
            began: now,
            mark: now,
        }
    }

    /// Notes what a stage said, and hands it on.
    ///
    /// # Errors
    /// The refusal, unchanged.
    pub fn note<T: Passed, E: Refusal>(&mut self, result: Result<T, E>) -> Result<T, E> {
        match &result {
            Ok(passed) => {
                passed.describe(&mut self.facts);
                self.push(T::STAGE, "passed");
            }
            Err(refusal) => {
                refusal.describe(&mut self.facts);
                self.push(refusal.stage(), refusal.code());
            }
        }
        result
    }

    fn push(&mut self, stage: Stage, verdict: &'static str) {
        let now = Instant::now();
        let micros = u64::try_from(now.duration_since(self.mark).as_micros()).unwrap_or(u64::MAX);
        self.stages.push(StageNote { micros, stage, verdict });
        self.mark = now;
    }

    /// How long the call has taken so far.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
