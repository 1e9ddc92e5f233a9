//! `Approved → Committed`, and outcome → receipt: no record, no call; no record, no answer.
//!
//! Each process writes a log of its own under the state folder: a transparency log (RFC 6962, C2SP tlog-tiles)
//! whose format is `docs/audit-format.md`. The intent of a write is durable before the request leaves, its
//! outcome before the reply. Digests are salted; the salts, and whole arguments and results where a tool asks
//! for them, are in an encrypted store beside the log.

mod counts;
mod disk;
mod frame;
mod head;
mod key;
mod log;
mod others;
mod publisher;
mod record;
mod recover;
mod rollback;
mod segment;
mod setup;
mod tree;
mod witnessing;
mod writer;

pub mod index;
pub mod proof;
pub mod publish;
pub mod reader;
pub mod side;
pub mod verifier;
pub mod witness;

#[cfg(test)]
mod damage;
#[cfg(test)]
mod frozen;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod sim_tests;

use std::{
    net::IpAddr,
    ops::Deref,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::oneshot::error::TryRecvError;

use crate::{
    approval::Approved,
    call::{Facts, Outcome, Passed, Refusal, Stage, Trail},
    manifest::{Effects, RecordSpec, ToolRecord},
    store::StateFolder,
};

pub use log::{LogError, LogName};
pub use record::Ending;
pub use setup::{Keys, public_keys, side_key};
pub use witnessing::Witnessing;
pub use writer::WriteError;

use counts::Counts;
use log::Claimed;
use others::Others;
use publisher::Publishing;
use record::Body;
use recover::OpenIntent;
use setup::Setup;
use side::{Bounds, Content, Digested, Kind, SideStore};
use witness::Witness;
use witnessing::Contradictions;
use writer::{Appended, Durability, Health, NewRecord, Role, Writer, WriterOptions};

/// A call that is on record as far as it has to be before it leaves.
#[derive(Debug)]
pub struct Committed {
    approved: Approved,
}

impl Deref for Committed {
    type Target = Approved;
    fn deref(&self) -> &Approved {
        &self.approved
    }
}

impl Passed for Committed {
    const STAGE: Stage = Stage::Audit;
    fn describe(&self, _: &mut Facts) {}
}

/// The record of how a call ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    log: LogName,
    index: u64,
}

impl Receipt {
    /// The log that holds the record.
    #[must_use]
    pub const fn log(&self) -> &LogName {
        &self.log
    }

    /// The record's index in its log, from 0.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
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
    log: LogName,
    folder: PathBuf,
    writer: Arc<Writer>,
    side: SideStore,
    counts: Arc<Counts>,
    contradictions: Arc<Contradictions>,
    publishing: Mutex<Option<Publishing>>,
}

/// A disk that takes longer than this to take a record is a disk that does not answer.
const COMMIT_MAX: Duration = Duration::from_secs(5);
/// How often failures before identity, and the heads of other logs, are put on record.
const SUMMARY_EVERY: u32 = 10;

impl Audit {
    /// Opens a log of the given kind (`serve`, `stdio`, `call`) in the first free slot of a state folder.
    ///
    /// # Errors
    /// When the folder holds no usable log, or a damaged one.
    pub fn open(
        folder: &StateFolder,
        kind: &'static str,
        release: &str,
        spec: &RecordSpec,
        keys: &Keys,
    ) -> Result<Self, LogError> {
        let folder = folder.path().join("audit");
        let setup = Setup::open(&folder, keys)?;
        let public_key = setup.signing.public().encoded();
        let Claimed { name, folder: path, origin, recovered } = log::claim(&folder, kind, &setup)?;
        let side =
            SideStore::open(&path.join("side"), &origin, setup.bodies, bounds(spec), recovered.size())?;
        let rebooted = recovered.rebooted;
        let (cut, open) = (recovered.cut.as_ref().map_or(0, |cut| cut.bytes), recovered.open.clone());
        let counts = Arc::new(Counts::new(Timestamp::now()));
        let tick = tick(Arc::clone(&counts), Others::new(&folder, &name.to_string()));
        let options =
            WriterOptions { reserve_bytes: spec.reserve.bytes() as u64, ..WriterOptions::default() };
        let writer = Arc::new(Writer::start(recovered, options, tick)?);
        begin(&writer, &Body::Start { release, cut, key: &public_key }, &open)?;
        let publishing = Publishing::start(&path, Arc::clone(&writer), rebooted)
            .map_err(|source| LogError::io(&path, source))?;
        Ok(Self {
            log: name,
            folder: path,
            writer,
            side,
            counts,
            contradictions: Arc::default(),
            publishing: Mutex::new(Some(publishing)),
        })
    }

    /// The name of the log.
    #[must_use]
    pub const fn log(&self) -> &LogName {
        &self.log
    }

    /// Begins to take what is published of the log to its witnesses.
    #[must_use]
    pub fn witnessed_by(&self, witnesses: Vec<Witness>) -> Witnessing {
        let (writer, contradictions) = (Arc::clone(&self.writer), Arc::clone(&self.contradictions));
        Witnessing::start(&self.folder, writer, contradictions, witnesses)
    }

    /// Can calls be put on record, and is the record the one that its witnesses know?
    ///
    /// # Errors
    /// When one of them is not so: why, in a line.
    pub fn ready(&self) -> Result<(), &'static str> {
        match self.writer.health() {
            Health::Ready => self.contradictions.none(),
            Health::DiskLow => Err("the disk of the record is nearly full\n"),
            Health::Stalled => Err("the disk of the record does not answer\n"),
            Health::Poisoned | Health::Stopped => Err("the record cannot be written\n"),
        }
    }

    /// Puts the intent of a write on record, durably; a read needs none, but a log that can take its outcome.
    ///
    /// # Errors
    /// When the record cannot be written: the call does not leave.
    pub async fn commit(&self, approved: Approved, trail: &mut Trail) -> Result<Committed, AuditError> {
        if approved.is_rehearsal() {
            return Err(AuditError::Rehearsal);
        }
        self.writer.admits_calls()?;
        if trail.facts.judged.is_some() {
            self.note_judged(trail);
        } else {
            trail.facts.arguments_digest =
                digest(trail, Digested::Arguments, approved.arguments().as_value());
            self.keep(trail, trail.salt.clone().map(Content::Salt));
        }
        if approved.tool().manifest().effects != Effects::Read {
            let bytes = record::write(&Body::Intent(trail), Timestamp::now())?;
            let role = Role::Intent { call: trail.id.number(), abandoned: record::abandoned };
            self.append(NewRecord { bytes, role, durability: Durability::Power }).await?;
        }
        Ok(Committed { approved })
    }

    /// Puts the end of a call on record. Without the receipt, no answer leaves.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub async fn seal(&self, trail: &Trail, ending: &Ending) -> Result<Receipt, AuditError> {
        let durability = match trail.facts.tool.as_ref().map(|tool| tool.effects) {
            Some("read") | None => Durability::Process,
            Some(_) => Durability::Power,
        };
        let bytes = record::write(&Body::Outcome(trail, ending), Timestamp::now())?;
        let role = Role::Outcome { call: trail.id.number() };
        let index = self.append(NewRecord { bytes, role, durability }).await?;
        Ok(Receipt { log: self.log.clone(), index })
    }

    /// Notes what a call is answered with: its salted digest, and the whole where the tool says so.
    pub fn note_result(&self, trail: &mut Trail, result: &Value, record: ToolRecord) {
        trail.facts.result_digest = digest(trail, Digested::Result, result);
        if record == ToolRecord::Full {
            self.keep(trail, body(Kind::Result, result));
        }
    }

    /// Notes what the policies decided on, where the tool says that its calls are kept whole. A call that
    /// is refused thereafter never comes to `commit`, and is to be replayed as well.
    pub fn note_judged(&self, trail: &mut Trail) {
        let Some(judged) = trail.facts.judged.take() else { return };
        trail.facts.arguments_digest = digest(trail, Digested::Arguments, &judged.arguments);
        trail.facts.decision_input_digest = digest(trail, Digested::DecisionInput, &judged.input);
        self.keep(trail, trail.salt.clone().map(Content::Salt));
        self.keep(trail, body(Kind::Arguments, &judged.arguments));
        self.keep(trail, body(Kind::DecisionInput, &judged.input));
    }

    /// Puts what the record must not hold into the encrypted store. No call waits for it.
    fn keep(&self, trail: &Trail, content: Option<Content>) {
        // One by one: a body that is too large takes no other with it.
        let Some(content) = content else { return };
        if let Err(error) = self.side.put(trail.id.number(), None, vec![content]) {
            tracing::warn!(call = %trail.id, %error, "the salt or the body of a call is not kept");
        }
    }

    /// Counts a failure before identity. Counts are recorded per source and interval, so that a
    /// flood can neither fill the disk nor hide.
    pub fn unidentified(&self, source: Option<IpAddr>, code: &'static str) {
        self.counts.add(source, code);
    }

    async fn append(&self, record: NewRecord) -> Result<u64, WriteError> {
        let written = match self.writer.append(record)? {
            Appended::Done(index) => {
                // Nothing was waited for: other tasks get their turn all the same.
                tokio::task::coop::consume_budget().await;
                return Ok(index);
            }
            Appended::Waiting(written) => written,
        };
        match tokio::time::timeout(COMMIT_MAX, written).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(WriteError::Stopped),
            Err(_) => Err(WriteError::Stalled { after: COMMIT_MAX }),
        }
    }

    /// Writes what is counted, syncs the log, publishes its last head, and stops.
    pub fn close(&self) {
        for bytes in summaries(&self.counts) {
            // Where nothing can be written any more, there is nobody to tell.
            let _ = self.writer.append(NewRecord { bytes, role: Role::Plain, durability: Durability::Power });
        }
        self.writer.close();
        drop(self.publishing.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.side.close();
    }
}

/// Says who writes from here on, and how the calls ended that were under way when nobody wrote any more.
fn begin(writer: &Writer, start: &Body<'_>, open: &[OpenIntent]) -> Result<(), LogError> {
    let now = Timestamp::now();
    let start =
        NewRecord { bytes: record::write(start, now)?, role: Role::Plain, durability: Durability::Power };
    let mut written = vec![writer.append(start)?];
    for OpenIntent { call, bytes, .. } in open {
        let bytes = record::unfinished(bytes, now)?;
        let role = Role::Outcome { call: *call };
        written.push(writer.append(NewRecord { bytes, role, durability: Durability::Power })?);
    }
    for written in written {
        wait(written)?;
    }
    Ok(())
}

/// Waits on a thread that may be one of the runtime's.
fn wait(appended: Appended) -> Result<u64, WriteError> {
    let mut written = match appended {
        Appended::Done(index) => return Ok(index),
        Appended::Waiting(written) => written,
    };
    let until = Instant::now() + COMMIT_MAX;
    loop {
        match written.try_recv() {
            Ok(written) => return written,
            Err(TryRecvError::Closed) => return Err(WriteError::Stopped),
            Err(TryRecvError::Empty) if Instant::now() > until => {
                return Err(WriteError::Stalled { after: COMMIT_MAX });
            }
            Err(TryRecvError::Empty) => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

fn body(kind: Kind, value: &Value) -> Option<Content> {
    Some(Content::Body(kind, serde_json::to_vec(value).ok()?))
}

/// The salted digest of a value that belongs to a call.
fn digest(trail: &Trail, of: Digested, value: &Value) -> Option<String> {
    trail.salt.as_ref()?.digest_value(of, value)
}

fn bounds(spec: &RecordSpec) -> Bounds {
    Bounds { bytes_max: spec.bodies.size.bytes() as u64, age_max: spec.bodies.age.duration() }
}

/// What the writer is asked for once a second: records of its own.
fn tick(counts: Arc<Counts>, mut others: Others) -> writer::Tick {
    let mut second = 0_u32;
    Box::new(move || {
        second = second.wrapping_add(1);
        if !second.is_multiple_of(SUMMARY_EVERY) {
            return Vec::new();
        }
        let mut records = summaries(&counts);
        let heads = others.news();
        if !heads.is_empty() {
            records.extend(record::write(&Body::Heads(&heads), Timestamp::now()));
        }
        records
    })
}

fn summaries(counts: &Counts) -> Vec<Vec<u8>> {
    let now = Timestamp::now();
    let counts = counts.take(now).into_iter();
    let bodies = counts.map(|counts::Count { source, code, count, since }| Body::Summary {
        source,
        code,
        count,
        since,
    });
    bodies.filter_map(|body| record::write(&body, now).ok()).collect()
}
