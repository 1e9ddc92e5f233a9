//! Verifies logs from their files and public keys alone.
//!
//! This module is on purpose a second reading of the format (`docs/audit-format.md`): it shares no code with
//! the writer, and uses nothing else of this crate, so that a small program can be made of it and nothing more
//! (`examples/verify_log.rs`).
//!
//! **What is checked.** Every header, frame and checksum; that the segments follow one another; every head: its
//! form, its size, its root against the records before it, its signature; the published checkpoint, which must be
//! one of the heads, and must be there once the log shows that it was published; every tile and entry bundle
//! against the records; every head of another log on record, which must be one of that log's heads.
//!
//! **Signatures.** Each head's root is compared with the tree. Since a later head's tree begins with those of all
//! heads before it, one valid signature proves every record before it, whatever the signatures in between are:
//! [`Signatures::Covering`] verifies the last of each segment and takes no more time for a log of lone writes.
//! [`Signatures::Every`] verifies all: a bad signature in the middle is harmless, but a sign that somebody was
//! there (a bit that flipped by itself breaks the frame's checksum, and is found in both). It works in batches on
//! all cores, and costs little where a head covers sixteen records and more. Where a covering signature is not
//! valid, those before it are verified too: which record is the first that nothing proves is said in both.
//!
//! **What is not.** Tags need the private key. Without it, an edit of records that no head covers yet goes
//! unseen, as does one of the fields beside the note in a head frame. A log cut right after a head, together
//! with its checkpoint and everything that came later, is a valid older copy: only another log's record of a
//! later head, or a witness, contradicts it.

// Spelt out, so that the files are found from a program that includes this one by its path, too.
#[path = "verifier/frame.rs"]
pub mod frame;
#[path = "verifier/log.rs"]
mod log;
#[path = "verifier/note.rs"]
pub mod note;
#[path = "verifier/published.rs"]
pub mod published;
#[path = "verifier/report.rs"]
mod report;
#[path = "verifier/runs.rs"]
pub mod runs;
#[path = "verifier/signatures.rs"]
mod signatures;
#[path = "verifier/tree.rs"]
pub mod tree;
#[path = "verifier/walk.rs"]
pub mod walk;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use log::{Log, Verified, root_at};
use note::{Checkpoint, Key};
use published::read;
use walk::Claim;

pub use published::tile_path;
pub use report::{Damage, LogReport, Progress, Report, Rule, Torn, VerifyError};
pub use walk::TILE_WIDTH;

/// Whose signatures are verified; the trees of all heads are compared in any case.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Signatures {
    /// Those of every head.
    #[default]
    Every,
    /// Those that the proof needs: of the last head of each segment, and of all heads where one of these is not valid.
    Covering,
}

/// Verifies every log of a state folder, or the one log whose folder this is.
///
/// The keys have the name that a log's name follows in its origin, `name/log`; any of them may have signed a head.
///
/// # Errors
/// Where there is no key, no log, or a file cannot be read. What is wrong with the logs is in the report.
pub fn verify(
    folder: &Path,
    keys: &[Key],
    signatures: Signatures,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, VerifyError> {
    if keys.is_empty() {
        return Err(VerifyError::NoKey);
    }
    let alone = is_log(folder);
    let mut logs = Vec::new();
    for (name, folder) in if alone { vec![only(folder, keys)?] } else { all(folder)? } {
        logs.push(Log::open(&name, &folder)?);
    }
    let bytes_total = logs.iter().map(|log| log.bytes).sum();
    let mut done = 0;
    let mut verified = BTreeMap::new();
    for log in &logs {
        let keys = keys.iter().map(|key| key.of_log(&log.name)).collect::<Arc<[Key]>>();
        let mut report = |bytes, records| {
            progress(Progress { log: &log.name, bytes: done + bytes, bytes_total, records });
        };
        verified.insert(log.name.as_str(), log.verify(keys, signatures, &mut report)?);
        done += log.bytes;
    }
    if alone {
        verified.values_mut().for_each(|log| log.report.unchecked_heads = log.claims.len() as u64);
    } else {
        compare_published(&logs, &mut verified);
        compare(&logs, &mut verified);
    }
    Ok(Report { logs: verified.into_values().map(|log| log.report).collect() })
}

fn is_log(folder: &Path) -> bool {
    ["segments", "checkpoint", "tile"].iter().any(|name| folder.join(name).exists())
}

/// A log by itself. Its checkpoint says its name, as the folder may be a copy.
fn only(folder: &Path, keys: &[Key]) -> Result<(String, PathBuf), VerifyError> {
    let file = folder.join("checkpoint");
    let note = read(&file).map_err(|error| VerifyError::Read(file, error))?;
    let checkpoint = note.as_deref().and_then(|note| Checkpoint::parse(note).ok());
    let named = checkpoint.and_then(|checkpoint| {
        let name =
            |key: &Key| checkpoint.origin.strip_prefix(key.name())?.strip_prefix('/').map(str::to_owned);
        keys.iter().find_map(name)
    });
    let folder_name = || {
        let folder = folder.canonicalize().ok()?;
        Some(folder.file_name()?.to_str()?.to_owned())
    };
    let name = named.or_else(folder_name).ok_or_else(|| VerifyError::NoLog(folder.to_owned()))?;
    Ok((name, folder.to_owned()))
}

/// The logs of a state folder, by name.
fn all(state: &Path) -> Result<Vec<(String, PathBuf)>, VerifyError> {
    let audit = state.join("audit");
    let folder = if audit.is_dir() { audit } else { state.to_owned() };
    let error = |error| VerifyError::Read(folder.clone(), error);
    let mut logs = Vec::new();
    for entry in fs::read_dir(&folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        if let Some(name) = entry.file_name().to_str().filter(|_| is_log(&entry.path())) {
            logs.push((name.to_owned(), entry.path()));
        }
    }
    logs.sort();
    if logs.is_empty() { Err(VerifyError::NoLog(state.to_owned())) } else { Ok(logs) }
}

/// Compares the heads that logs recorded of one another with the logs.
fn compare(logs: &[Log], verified: &mut BTreeMap<&str, Verified>) {
    for log in logs {
        let Some(this) = verified.get(log.name.as_str()) else { continue };
        let mut damage = Vec::new();
        // One line for each log that is not as it was: the first record that says so.
        let mut named = Vec::new();
        for claim in &this.claims {
            let Some(rule) = contradiction(claim, verified) else { continue };
            if !named.contains(&rule) {
                named.push(rule.clone());
                let (file, until) = (log.segment(claim.segment), Some(claim.index + 1));
                damage.push(log.damage(file, claim.offset, rule, claim.index, until));
            }
        }
        if let Some(this) = verified.get_mut(log.name.as_str()) {
            this.report.damage.extend(damage);
            this.report.damage.sort_by_key(|damage| damage.index);
        }
    }
}

/// Names the logs without a checkpoint whose head another log has on record: only what is published is read there.
fn compare_published(logs: &[Log], verified: &mut BTreeMap<&str, Verified>) {
    let on_record = |verified: &BTreeMap<&str, Verified>, log: &Log| {
        let heads = verified.values().flat_map(|of| of.claims.iter().filter_map(|claim| claim.head.as_ref()));
        let mut notes = heads.filter(|(name, _)| *name == log.name).map(|(_, note)| note.as_bytes());
        let keys = verified.get(log.name.as_str()).map(|log| &*log.keys).unwrap_or_default();
        notes.any(|note| Checkpoint::parse(note).is_ok_and(|checkpoint| checkpoint.verify(keys).is_ok()))
    };
    for log in logs {
        let is_missing = verified.get(log.name.as_str()).is_some_and(|verified| verified.lacks_checkpoint);
        if is_missing && on_record(verified, log) {
            let Some(this) = verified.get_mut(log.name.as_str()) else { continue };
            this.report.damage.extend(log.without_checkpoint(this.report.signed));
        }
    }
}

/// What is wrong with another log, or with what a record says of it.
fn contradiction(claim: &Claim, verified: &BTreeMap<&str, Verified>) -> Option<Rule> {
    let Some((name, note)) = &claim.head else { return Some(Rule::OtherForm) };
    let Some(other) = verified.get(name.as_str()) else { return Some(Rule::OtherMissing(name.clone())) };
    let Ok(checkpoint) = Checkpoint::parse(note.as_bytes()) else { return Some(Rule::OtherForm) };
    let of_other = other.keys.iter().any(|key| key.name() == checkpoint.origin);
    if !of_other || checkpoint.verify(&other.keys).is_err() {
        return Some(Rule::OtherForm);
    }
    match root_at(&other.heads, checkpoint.size) {
        Some(root) if root == checkpoint.root => None,
        Some(_) => Some(Rule::OtherTree(name.clone())),
        None if checkpoint.size <= other.report.signed => Some(Rule::OtherTree(name.clone())),
        // What comes after damage is not known, and the damage is reported.
        None if !other.whole => None,
        None => Some(Rule::OtherShorter(name.clone())),
    }
}
