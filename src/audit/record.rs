//! A record: one line of the log.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::log::LogName;
use crate::call::{CallId, Facts, Outcome, Stage, StageNote, Trail, Transport};

/// How a call ended, for its record.
#[derive(Clone, Debug, Serialize)]
pub struct Ending {
    /// The outcome.
    pub outcome: Outcome,
    /// The stage that refused or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The refusal in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The refusal in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a record says, before the log gives it a number.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) call: Option<CallPart>,
    pub(super) body: Body,
    pub(super) facts: Facts,
}

/// The part of a record that says which call it is of.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CallPart {
    id: CallId,
    kind: &'static str,
    target: String,
    transport: Transport,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<IpAddr>,
    received: Timestamp,
    release: String,
    stages: Vec<StageNote>,
    micros: u64,
}

/// What kind of record it is.
#[derive(Debug, Serialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub(super) enum Body {
    /// A process began to write the log.
    Start {
        version: &'static str,
        release: String,
        process: u32,
        /// Bytes of an unfinished record that were cut off.
        cut: u64,
    },
    /// A call is about to leave.
    Intent,
    /// A call ended.
    Outcome(Ending),
    /// Failures before identity, counted.
    Summary {
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<IpAddr>,
        code: &'static str,
        count: u64,
        since: Timestamp,
    },
}

impl Entry {
    pub(super) fn of(trail: &Trail, body: Body) -> Self {
        let call = CallPart {
            id: trail.id,
            kind: trail.kind,
            target: trail.target.clone(),
            transport: trail.origin.transport,
            source: trail.origin.source,
            received: trail.received,
            release: trail.release.clone(),
            stages: trail.stages.clone(),
            micros: u64::try_from(trail.elapsed().as_micros()).unwrap_or(u64::MAX),
        };
        Self { call: Some(call), body, facts: trail.facts.clone() }
    }

    pub(super) fn bare(body: Body) -> Self {
        Self { call: None, body, facts: Facts::default() }
    }

    /// The record as one line of canonical JSON (RFC 8785).
    pub(super) fn line(
        &self,
        log: &LogName,
        seq: u64,
        time: Timestamp,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let record = Record {
            v: VERSION,
            log,
            seq,
            time,
            call: self.call.as_ref(),
            body: &self.body,
            facts: &self.facts,
        };
        let mut line = serde_json_canonicalizer::to_vec(&record)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// The version of the record format.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Record<'a> {
    v: u32,
    log: &'a LogName,
    seq: u64,
    time: Timestamp,
    #[serde(flatten)]
    body: &'a Body,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<&'a CallPart>,
    #[serde(flatten)]
    facts: &'a Facts,
}
