//! A record: one leaf of the log, as canonical JSON (RFC 8785).
//!
//! It holds neither its number nor the name of its log: its place in the tree says both. Members are declared
//! in the order of their names, so that they are written in canonical order without being sorted.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{WriteError, frame::RECORD_BYTES_MAX};
use crate::call::{
    AnswerFacts, CallId, CallerFacts, DecisionFacts, Facts, HiddenFacts, Outcome, Stage, StageNote,
    ToolFacts, TraceId, Trail, Transport,
};

/// The version of the record's format.
const VERSION: u32 = 1;
/// How many names of a kind a record keeps that would be too long with all of them.
const NAMES_MAX: usize = 32;
/// By how much an outcome that is made of an intent can be longer than that.
const ENDING_BYTES_MAX: usize = 512;
/// How much of a sentence it then keeps.
const DETAIL_CHARS_MAX: usize = 1_000;

/// How a call ended, for its record.
#[derive(Clone, Debug)]
pub struct Ending {
    /// The outcome.
    pub outcome: Outcome,
    /// The stage that refused or failed.
    pub stage: Option<Stage>,
    /// The refusal in one word.
    pub code: Option<&'static str>,
    /// The refusal in a sentence.
    pub detail: Option<String>,
}

/// A head that another log of the same state folder has published.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OtherHead {
    pub(super) checkpoint: String,
    pub(super) log: String,
}

/// What a record says.
#[derive(Debug)]
pub(super) enum Body<'a> {
    /// A process began to write the log.
    Start {
        release: &'a str,
        /// Bytes of an unfinished record that were cut off.
        cut: u64,
        /// The public key that checkpoints are signed with from here on.
        key: &'a str,
    },
    /// A call is about to leave.
    Intent(&'a Trail),
    /// A call ended.
    Outcome(&'a Trail, &'a Ending),
    /// Failures before identity, counted.
    Summary { source: Option<IpAddr>, code: &'static str, count: u64, since: Timestamp },
    /// Heads that other logs of the state folder have published.
    Heads(&'a [OtherHead]),
    /// A witness has seen a log that this one does not continue.
    Witness {
        /// The name of its key.
        witness: &'a str,
        code: &'static str,
        /// The size that it has seen.
        seen: u64,
        /// The size that was submitted.
        size: u64,
    },
}

/// Writes a record.
///
/// # Errors
/// When it is too long even without what may be left out.
pub(super) fn write(body: &Body<'_>, time: Timestamp) -> Result<Vec<u8>, WriteError> {
    // What ends an intent is made of its bytes, and has to fit as well.
    let bytes_max = match body {
        Body::Intent(_) => RECORD_BYTES_MAX - ENDING_BYTES_MAX,
        _ => RECORD_BYTES_MAX,
    };
    let bytes = serialize(&Record::of(body, time))?;
    if bytes.len() <= bytes_max {
        return Ok(bytes);
    }
    let (Body::Intent(trail) | Body::Outcome(trail, _)) = body else {
        return Err(WriteError::TooLarge { bytes: bytes.len() });
    };
    let facts = trimmed(&trail.facts);
    let mut record = Record::of(body, time);
    record.describe(&facts);
    record.trimmed = true;
    record.detail = record.detail.map(|detail| cut(detail, DETAIL_CHARS_MAX));
    let bytes = serialize(&record)?;
    if bytes.len() <= bytes_max { Ok(bytes) } else { Err(WriteError::TooLarge { bytes: bytes.len() }) }
}

/// The outcome of a call whose intent was found without one: nobody knows what became of it.
pub(super) fn unfinished(intent: &[u8], time: Timestamp) -> Result<Vec<u8>, WriteError> {
    let time = time.to_string();
    let ending = Ending {
        outcome: Outcome::Unknown,
        stage: Some(Stage::Gateway),
        code: Some("interrupted"),
        detail: Some("the process ended before the call did".into()),
    };
    ended(intent, &ending, Some(&time))
}

/// The outcome of a call whose intent came to be on record too late: it was refused meanwhile.
pub(super) fn abandoned(intent: &[u8]) -> Result<Vec<u8>, WriteError> {
    let ending = Ending {
        outcome: Outcome::Denied,
        stage: Some(Stage::Audit),
        code: Some("record_unavailable"),
        detail: Some("the disk took too long to take the intent; nothing was sent".into()),
    };
    ended(intent, &ending, None)
}

/// The outcome of a call of which there is only the intent; its time is that of the intent, unless given.
fn ended(intent: &[u8], ending: &Ending, time: Option<&str>) -> Result<Vec<u8>, WriteError> {
    let mut record: Value = serde_json::from_slice(intent).map_err(|_| WriteError::Unwritable)?;
    let members = record.as_object_mut().ok_or(WriteError::Unwritable)?;
    for (member, value) in [
        ("record", Some("outcome")),
        ("outcome", Some(ending.outcome.word())),
        ("stage", ending.stage.map(Stage::word)),
        ("code", ending.code),
        ("detail", ending.detail.as_deref()),
        ("time", time),
    ] {
        members.extend(value.map(|value| (member.to_owned(), value.into())));
    }
    serde_json_canonicalizer::to_vec(&record).map_err(|_| WriteError::Unwritable)
}

fn serialize(record: &Record<'_>) -> Result<Vec<u8>, WriteError> {
    let mut bytes = Vec::with_capacity(1_536);
    serde_json::to_writer(&mut bytes, record).map_err(|_| WriteError::Unwritable)?;
    debug_assert_eq!(
        serde_json_canonicalizer::to_vec(&record).ok().as_ref(),
        Some(&bytes),
        "members are declared in the order of their names"
    );
    Ok(bytes)
}

fn trimmed(facts: &Facts) -> Facts {
    let mut facts = facts.clone();
    if let Some(decision) = &mut facts.decision {
        decision.policies.truncate(NAMES_MAX);
        decision.approvals.truncate(NAMES_MAX);
        for policy in &mut decision.policies {
            policy.reason = policy.reason.as_deref().map(|reason| cut(reason, DETAIL_CHARS_MAX).to_owned());
        }
    }
    facts.labels.truncate(NAMES_MAX);
    facts.removed.truncate(NAMES_MAX);
    facts
}

fn cut(text: &str, chars_max: usize) -> &str {
    text.char_indices().nth(chars_max).and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

/// A record as it is written. The members stand in the order of their names.
#[derive(Debug, Default, Serialize)]
struct Record<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a AnswerFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<CallPart<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a CallerFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'a DecisionFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_input_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    heads: Option<&'a [OtherHead]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hygiene: Option<&'a HiddenFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    labels: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<u32>,
    record: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    removed: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    result_digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a ToolFacts>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    trimmed: bool,
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<&'a str>,
}

/// The part of a record that says which call it is of.
#[derive(Debug, Serialize)]
struct CallPart<'a> {
    id: CallId,
    kind: &'static str,
    micros: u64,
    received: Timestamp,
    release: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<IpAddr>,
    stages: &'a [StageNote],
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<TraceId>,
    transport: Transport,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl<'a> Record<'a> {
    fn of(body: &Body<'a>, time: Timestamp) -> Self {
        let mut record = Self { time, v: VERSION, ..Self::default() };
        match *body {
            Body::Start { release, cut, key } => {
                record.record = "start";
                record.release = Some(release);
                record.cut = Some(cut);
                record.key = Some(key);
                record.process = Some(std::process::id());
                record.version = Some(env!("CARGO_PKG_VERSION"));
            }
            Body::Intent(trail) => {
                record.record = "intent";
                record.follow(trail);
            }
            Body::Outcome(trail, ending) => {
                record.record = "outcome";
                record.follow(trail);
                record.outcome = Some(ending.outcome);
                record.stage = ending.stage;
                record.code = ending.code;
                record.detail = ending.detail.as_deref();
            }
            Body::Summary { source, code, count, since } => {
                record.record = "summary";
                record.source = source;
                record.code = Some(code);
                record.count = Some(count);
                record.since = Some(since);
            }
            Body::Heads(heads) => {
                record.record = "heads";
                record.heads = Some(heads);
            }
            Body::Witness { witness, code, seen, size } => {
                record.record = "witness";
                record.witness = Some(witness);
                record.code = Some(code);
                record.seen = Some(seen);
                record.size = Some(size);
            }
        }
        record
    }

    fn follow(&mut self, trail: &'a Trail) {
        self.call = Some(CallPart {
            id: trail.id,
            kind: trail.kind,
            micros: u64::try_from(trail.elapsed().as_micros()).unwrap_or(u64::MAX),
            received: trail.received,
            release: &trail.release,
            source: trail.origin.source,
            stages: &trail.stages,
            target: &trail.target,
            trace: trail.trace,
            transport: trail.origin.transport,
        });
        self.describe(&trail.facts);
    }

    fn describe(&mut self, facts: &'a Facts) {
        self.answer = facts.answer.as_ref();
        self.arguments_digest = facts.arguments_digest.as_deref();
        self.caller = facts.caller.as_ref();
        self.credential = facts.credential.as_deref();
        self.decision = facts.decision.as_ref();
        self.decision_input_digest = facts.decision_input_digest.as_deref();
        self.dropped = facts.dropped;
        self.hygiene = Some(&facts.hidden).filter(|hidden| !hidden.is_empty());
        self.labels = &facts.labels;
        self.removed = &facts.removed;
        self.result_digest = facts.result_digest.as_deref();
        self.tool = facts.tool.as_ref();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Arguments, Call, CallKind, Origin, Proof};

    fn trail() -> Trail {
        let kind = CallKind::Tool { name: "t".into(), arguments: Arguments::from(serde_json::Map::new()) };
        let origin = Origin { transport: Transport::Http, source: None };
        Trail::begin(&Call::now(kind, Proof::default(), origin, Default::default()), "sha256:00")
    }

    #[test]
    fn an_abandoned_call_has_the_outcome_that_its_trail_would_have_given() {
        let (mut trail, now) = (trail(), Timestamp::now());
        trail.facts.labels = vec!["pii".into()];
        let intent = write(&Body::Intent(&trail), now).unwrap();
        let ending = Ending {
            outcome: Outcome::Denied,
            stage: Some(Stage::Audit),
            code: Some("record_unavailable"),
            detail: Some("the disk took too long to take the intent; nothing was sent".into()),
        };
        let read = |bytes: &[u8]| {
            let mut record: Value = serde_json::from_slice(bytes).unwrap();
            record["call"]["micros"] = 0.into(); // the trail's clock goes on
            record
        };
        let whole = write(&Body::Outcome(&trail, &ending), now).unwrap();
        let made = abandoned(&intent).unwrap();
        assert_eq!(read(&made), read(&whole));
        assert_eq!(
            serde_json_canonicalizer::to_vec(&serde_json::from_slice::<Value>(&made).unwrap()).unwrap(),
            made
        );
    }

    #[test]
    fn what_ends_the_longest_intent_is_a_record_too() {
        let (mut trail, mut longest) = (trail(), None);
        // The longest time that there is, and a member that is never cut.
        let now = "2026-11-23T10:20:30.123456789Z".parse().unwrap();
        for bytes in (RECORD_BYTES_MAX - 1_500..RECORD_BYTES_MAX).step_by(50) {
            trail.facts.credential = Some("x".repeat(bytes));
            let whole_second = "2026-11-23T10:20:30Z".parse().unwrap();
            longest = write(&Body::Intent(&trail), whole_second).ok().or(longest);
        }
        let longest = longest.unwrap();
        assert!(longest.len() > RECORD_BYTES_MAX - 1_000, "{}", longest.len());
        for outcome in [unfinished(&longest, now).unwrap(), abandoned(&longest).unwrap()] {
            assert!(outcome.len() <= RECORD_BYTES_MAX, "{} bytes", outcome.len());
        }
    }
}
