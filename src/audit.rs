//! `Approved → Committed`, and outcome → receipt: no record, no call; no record, no answer.
//!
//! Each process writes a log of its own under the state folder: one canonical
//! JSON record (RFC 8785) per line, appended and never changed. The intent of a
//! write is durable before the request leaves, its outcome before the reply.

mod digest;
mod log;
mod record;
mod writer;

use std::{net::IpAddr, ops::Deref, time::Duration};

use serde_json::Value;

use crate::{
    approval::Approved,
    call::{Facts, Outcome, Passed, Refusal, Stage, Trail},
    manifest::Effects,
    store::StateFolder,
};

pub use digest::DigestKey;
pub use log::{LogError, LogName};
pub use record::Ending;
pub use writer::WriteError;

use record::{Body, Entry};
use writer::{Durability, Writer};

/// A call that is on record as far as it has to be before it leaves.
#[derive(Debug)]
pub struct Committed {
    approved: Approved,
    arguments_digest: String,
}

impl Deref for Committed {
    type Target = Approved;
    fn deref(&self) -> &Approved {
        &self.approved
    }
}

impl Passed for Committed {
    const STAGE: Stage = Stage::Audit;
    fn describe(&self, facts: &mut Facts) {
        facts.arguments_digest = Some(self.arguments_digest.clone());
    }
}

/// The record of how a call ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    log: LogName,
    seq: u64,
}

impl Receipt {
    /// The log that holds the record.
    #[must_use]
    pub const fn log(&self) -> &LogName {
        &self.log
    }

    /// The record's number in its log, from 0.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }
}

/// Why a call is not on record.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The call is only rehearsed.
    #[error("a rehearsed call is never carried out")]
    Rehearsal,
}

impl Refusal for AuditError {
    fn stage(&self) -> Stage {
        Stage::Audit
    }
    fn code(&self) -> &'static str {
        match self {
            Self::Write(_) => "record_unavailable",
            Self::Rehearsal => "rehearsal",
        }
    }
    fn public_message(&self) -> String {
        match self {
            Self::Write(_) | Self::Rehearsal => "temporarily unavailable".into(),
        }
    }
    fn outcome(&self) -> Outcome {
        Outcome::Denied
    }
}

/// The log of this process.
#[derive(Debug)]
pub struct Audit {
    writer: Writer,
    key: DigestKey,
}

/// A disk that takes longer than this to take a record is a disk that does not answer.
const COMMIT_MAX: Duration = Duration::from_secs(5);

impl Audit {
    /// Opens a log of the given kind (`serve`, `stdio`, `call`) in the first free slot of a state folder.
    ///
    /// # Errors
    /// When the folder holds no usable log, or a damaged one.
    pub fn open(folder: &StateFolder, kind: &'static str, release: &str) -> Result<Self, LogError> {
        let key = DigestKey::open(&folder.path().join("audit"))?;
        let log = log::Log::claim(&folder.path().join("audit"), kind)?;
        let writer = Writer::start(log, release)?;
        Ok(Self { writer, key })
    }

    /// The name of the log.
    #[must_use]
    pub const fn log(&self) -> &LogName {
        self.writer.name()
    }

    /// Puts the intent of a write on record, durably; a read needs none.
    ///
    /// # Errors
    /// When the record cannot be written: the call does not leave.
    pub async fn commit(&self, approved: Approved, trail: &Trail) -> Result<Committed, AuditError> {
        if approved.is_rehearsal() {
            return Err(AuditError::Rehearsal);
        }
        let arguments_digest = self.key.digest(approved.id, approved.arguments().as_value());
        if approved.tool().manifest().effects != Effects::Read {
            let mut entry = Entry::of(trail, Body::Intent);
            entry.facts.arguments_digest = Some(arguments_digest.clone());
            self.append(entry, Durability::Power).await?;
        }
        Ok(Committed { approved, arguments_digest })
    }

    /// Puts the end of a call on record. Without the receipt, no answer leaves.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub async fn seal(&self, trail: &Trail, ending: Ending) -> Result<Receipt, AuditError> {
        let durability = match trail.facts.tool.as_ref().map(|tool| tool.effects) {
            Some("read") | None => Durability::Process,
            Some(_) => Durability::Power,
        };
        let seq = self.append(Entry::of(trail, Body::Outcome(ending)), durability).await?;
        Ok(Receipt { log: self.writer.name().clone(), seq })
    }

    /// The keyed digest of a value that belongs to a call.
    #[must_use]
    pub fn digest(&self, trail: &Trail, value: &Value) -> String {
        self.key.digest(trail.id, value)
    }

    /// Counts a failure before identity. Counts are recorded per source and interval, so that a
    /// flood can neither fill the disk nor hide.
    pub fn unidentified(&self, source: Option<IpAddr>, code: &'static str) {
        self.writer.unidentified(source, code);
    }

    async fn append(&self, entry: Entry, durability: Durability) -> Result<u64, WriteError> {
        let written = self.writer.append(entry, durability)?;
        match tokio::time::timeout(COMMIT_MAX, written).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(WriteError::Stopped),
            Err(_) => Err(WriteError::Stalled { after: COMMIT_MAX }),
        }
    }

    /// Writes what is counted, syncs the log, and stops.
    pub fn close(&self) {
        self.writer.close();
    }
}
