//! The log as the simulator drives it: one thread, no clock.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::model::Part;
use crate::audit::{
    disk::sim::SimDisk,
    head::SignedHead,
    key::{KeyError, PrivateKey},
    recover::{Claim, RecoverError, Recovered, Seen, recover},
    verifier,
    writer::{
        Appended, Clock, Durability, Health, NewRecord, Role, Tick, WriterOptions, Written, driven::Driven,
    },
};

/// Small, so that worlds have several.
const SEGMENT_BYTES: u64 = 4_096;
const RESERVE_BYTES: u64 = 1_000;

pub(super) type Receiver = oneshot::Receiver<Written>;

/// What came of handing a record over.
pub(super) enum Handed {
    Written(u64),
    Refused,
    Waiting(Receiver),
}

pub(super) enum Answer {
    Written(u64),
    Refused,
    None,
}

pub(super) fn answer(handed: Handed) -> Answer {
    let mut receiver = match handed {
        Handed::Written(index) => return Answer::Written(index),
        Handed::Refused => return Answer::Refused,
        Handed::Waiting(receiver) => receiver,
    };
    match receiver.try_recv() {
        Ok(Ok(index)) => Answer::Written(index),
        Ok(Err(_)) => Answer::Refused,
        Err(_) => Answer::None,
    }
}

/// A record that is like no other.
pub(super) fn record(number: u64, part: Part, padding: usize) -> Vec<u8> {
    let (kind, call) = match part {
        Part::Plain => ("plain", 0),
        Part::Intent(call) => ("intent", call),
        Part::Outcome(call) => ("outcome", call),
    };
    let padding = "x".repeat(padding);
    format!(
        r#"{{"abandoned":false,"call":"{call:032x}","n":{number},"padding":"{padding}","record":"{kind}"}}"#
    )
    .into_bytes()
}

fn seen(record: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(record);
    let call =
        text.split_once(r#""call":""#).and_then(|(_, rest)| u128::from_str_radix(rest.get(..32)?, 16).ok());
    match (call, text.rsplit_once(r#""record":""#).map(|(_, kind)| kind)) {
        (Some(call), Some("intent\"}")) => Seen::Intent(call),
        (Some(call), Some("outcome\"}")) => Seen::Outcome(call),
        _ => Seen::Plain,
    }
}

pub(super) struct Start(Recovered<SimDisk>);

impl Start {
    pub(super) fn recover(disk: &SimDisk, folder: &Path) -> Result<Self, RecoverError> {
        let key = key()?.for_log("sim/serve-0")?;
        let (boot, now_ms) = (disk.boot(), disk.now_ns() / 1_000_000);
        let claim = Claim { folder, key, known: &[], boot: &boot, now_ms };
        recover(Arc::new(disk.clone()), claim, &seen).map(Self)
    }

    pub(super) fn size(&self) -> u64 {
        self.0.size()
    }

    pub(super) fn open(&self) -> BTreeSet<u128> {
        self.0.open.iter().map(|intent| intent.call).collect()
    }

    /// Starts the writer, on the disk's clock. Summaries come from `tick`.
    pub(super) fn writer(self, disk: &SimDisk, tick: Tick) -> Result<Process, RecoverError> {
        let (disk, begun) = (disk.clone(), Instant::now());
        let options = WriterOptions {
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: RESERVE_BYTES,
            clock: Clock::of(move || begun + Duration::from_nanos(disk.now_ns())),
            ..WriterOptions::default()
        };
        Driven::start(self.0, options, tick).map(Process)
    }
}

/// What the writer makes of an intent whose caller has gone.
pub(super) fn abandoned(intent: &[u8]) -> Vec<u8> {
    let intent = String::from_utf8_lossy(intent);
    let text = intent.replacen(r#""abandoned":false"#, r#""abandoned":true"#, 1);
    text.replacen(r#""record":"intent""#, r#""record":"outcome""#, 1).into_bytes()
}

pub(super) fn new_record(bytes: Vec<u8>, part: Part, power: bool) -> NewRecord {
    let role = match part {
        Part::Plain => Role::Plain,
        Part::Intent(call) => Role::Intent { call, abandoned: |intent| Ok(abandoned(intent)) },
        Part::Outcome(call) => Role::Outcome { call },
    };
    let durability = if power { Durability::Power } else { Durability::Process };
    NewRecord { bytes, role, durability }
}

/// The writer of one process.
pub(super) struct Process(Driven<SimDisk>);

impl Process {
    /// Hands a record over; `busy` while another one writes.
    pub(super) fn append(&self, record: NewRecord, busy: bool) -> Handed {
        match if busy { self.0.append_meanwhile(record) } else { self.0.append(record) } {
            Ok(Appended::Done(index)) => Handed::Written(index),
            Ok(Appended::Waiting(receiver)) => Handed::Waiting(receiver),
            Err(_) => Handed::Refused,
        }
    }

    pub(super) fn take(&mut self) {
        self.0.take();
    }

    pub(super) fn tick(&mut self) {
        self.0.tick();
    }

    pub(super) fn close(&mut self) {
        self.0.end();
    }

    pub(super) fn is_poisoned(&self) -> bool {
        matches!(self.0.health(), Health::Poisoned)
    }

    pub(super) fn head(&self) -> Option<Arc<SignedHead>> {
        self.0.head()
    }
}

/// What the verifier, which shares no code with the writer, says of these files.
pub(super) fn verify(files: &[(PathBuf, Vec<u8>)]) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    // A checkpoint promises tiles, which are another part's to write; the model knows what was published.
    for (path, bytes) in files.iter().filter(|(path, _)| !path.ends_with("checkpoint")) {
        let path = folder.path().join(path.strip_prefix("/").map_err(|error| error.to_string())?);
        fs::create_dir_all(path.parent().unwrap_or_else(|| folder.path()))
            .map_err(|error| error.to_string())?;
        fs::write(path, bytes).map_err(|error| error.to_string())?;
    }
    let key = key().map_err(|error| error.to_string())?.public().encoded();
    let key = verifier::note::Key::parse(&key).map_err(|error| error.to_string())?;
    let audit = folder.path().join("state/audit");
    let report = verifier::verify(&audit, &[key], verifier::Signatures::Every, &mut |_| ());
    let report = report.map_err(|error| format!("{error:?}"))?;
    report.damage().next().map_or(Ok(()), |damage| Err(format!("the verifier says: {damage}")))
}

fn key() -> Result<PrivateKey, KeyError> {
    PrivateKey::from_seed("sim", [7; 32])
}
