//! Makes proofs from a log's files: from its tiles, or from its segments where the tiles do not lead there.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::{Consistency, Proof, ProveError};
use crate::audit::{
    segment::first_of,
    verifier::{
        frame::{self, Kind, Unread},
        note::Checkpoint,
        published::read,
        tile_path,
        tree::{self, Frontier, Hash, Nodes, leaf_hash},
    },
};

const TILE_WIDTH: u64 = 256;

/// Proves that a record is in a log: under its cosigned checkpoint where that covers the record, else the published
/// one, else the newest head.
///
/// # Errors
/// Where nothing covers the record, or the log is damaged.
pub fn prove(log: &Path, index: u64) -> Result<Proof, ProveError> {
    for name in ["cosignatures", "checkpoint"] {
        let Ok(Some(note)) = read(&log.join(name)) else { continue };
        let covers = Checkpoint::parse(&note).ok().filter(|checkpoint| checkpoint.size > index);
        if let Some(proof) = covers.and_then(|checkpoint| from_tiles(log, index, &checkpoint, &note)) {
            return Ok(proof);
        }
    }
    let segments = Segments::read(log)?;
    let uncovered = || ProveError::NotCovered { log: log.to_owned(), index };
    let (size, note) = segments.heads.last().filter(|(size, _)| *size > index).ok_or_else(uncovered)?;
    let mut leaves = Leaves(&segments.leaves);
    let path = tree::inclusion(&mut leaves, index, *size).map_err(|Absent| uncovered())?;
    let record = segments.record(index).ok_or_else(uncovered)?;
    let checkpoint = Checkpoint::parse(note).map_err(|_| ProveError::Note)?;
    if tree::root_by_inclusion(leaf_hash(&record), index, *size, &path) != Some(checkpoint.root) {
        return Err(ProveError::OtherTree { log: log.to_owned(), size: *size });
    }
    Ok(Proof { index, record, path, checkpoint: note.clone() })
}

/// Proves that a log only grew from one checkpoint to another.
///
/// # Errors
/// Where they are not checkpoints of this log.
pub fn consistency(log: &Path, old: &[u8], new: &[u8]) -> Result<Consistency, ProveError> {
    let (older, newer) = (
        Checkpoint::parse(old).map_err(|_| ProveError::Note)?,
        Checkpoint::parse(new).map_err(|_| ProveError::Note)?,
    );
    prove_growth(log, older.size, Some(older.root), &newer, new)
}

/// Proves that a log only grew from its first `old` records to a checkpoint.
///
/// # Errors
/// Where the checkpoint is not of this log, or not of so many records.
pub fn consistency_from(log: &Path, old: u64, new: &[u8]) -> Result<Consistency, ProveError> {
    let newer = Checkpoint::parse(new).map_err(|_| ProveError::Note)?;
    prove_growth(log, old, None, &newer, new)
}

fn prove_growth(
    log: &Path,
    old: u64,
    old_root: Option<Hash>,
    newer: &Checkpoint<'_>,
    note: &[u8],
) -> Result<Consistency, ProveError> {
    if old > newer.size {
        return Err(ProveError::Order { old, new: newer.size });
    }
    if let Some(path) = growth(&mut Tiles::new(log, newer.size), old, old_root, newer) {
        return Ok(Consistency { old, path, checkpoint: note.to_vec() });
    }
    let segments = Segments::read(log)?;
    let path = growth(&mut Leaves(&segments.leaves), old, old_root, newer);
    let path = path.ok_or_else(|| ProveError::OtherTree { log: log.to_owned(), size: newer.size })?;
    Ok(Consistency { old, path, checkpoint: note.to_vec() })
}

/// The proof from one source; `None` where it does not lead to the checkpoint's root.
fn growth<N: Nodes>(
    nodes: &mut N,
    old: u64,
    old_root: Option<Hash>,
    newer: &Checkpoint<'_>,
) -> Option<Vec<Hash>> {
    let path = tree::consistency(nodes, old, newer.size).ok()?;
    let old_root = old_root.or_else(|| tree::root(nodes, old).ok())?;
    tree::is_consistent((old, &old_root), (newer.size, &newer.root), &path).then_some(path)
}

/// The signed head of a log's first `size` records.
///
/// # Errors
/// Where the segments hold none.
pub fn note_at(log: &Path, size: u64) -> Result<Vec<u8>, ProveError> {
    let heads = Segments::read(log)?.heads;
    let note = heads.into_iter().find(|(at, _)| *at == size).map(|(_, note)| note);
    note.ok_or_else(|| ProveError::NoHead { log: log.to_owned(), size })
}

/// A proof from tiles and entry bundles alone; `None` where they do not lead to the checkpoint's root.
fn from_tiles(log: &Path, index: u64, checkpoint: &Checkpoint<'_>, note: &[u8]) -> Option<Proof> {
    let size = checkpoint.size;
    let path = tree::inclusion(&mut Tiles::new(log, size), index, size).ok()?;
    let bundle = tile_bytes(log, "entries", index / TILE_WIDTH, size)?;
    let mut rest = bundle.as_slice();
    for _ in 0..index % TILE_WIDTH {
        rest = entry(rest)?.1;
    }
    let record = entry(rest)?.0.to_vec();
    let root = tree::root_by_inclusion(leaf_hash(&record), index, size, &path)?;
    (root == checkpoint.root).then(|| Proof { index, record, path, checkpoint: note.to_vec() })
}

fn entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// A tile's bytes: whole where it is whole by now, else the partial one of a tree with `count` entries at its level.
fn tile_bytes(log: &Path, level: &str, index: u64, count: u64) -> Option<Vec<u8>> {
    let whole = read(&log.join(tile_path(level, index, TILE_WIDTH as usize))).ok()?;
    let width = count.saturating_sub(index * TILE_WIDTH).min(TILE_WIDTH) as usize;
    whole.or_else(|| read(&log.join(tile_path(level, index, width))).ok()?)
}

/// A hash that is not there.
struct Absent;

/// The hashes of a published tree.
struct Tiles<'a> {
    log: &'a Path,
    size: u64,
    read: HashMap<(u32, u64), Vec<Hash>>,
}

impl<'a> Tiles<'a> {
    fn new(log: &'a Path, size: u64) -> Self {
        Self { log, size, read: HashMap::new() }
    }

    fn tile(&mut self, level: u32, index: u64) -> Option<&[Hash]> {
        if !self.read.contains_key(&(level, index)) {
            let count = self.size.checked_shr(8 * level)?;
            let bytes = tile_bytes(self.log, &level.to_string(), index, count)?;
            self.read.insert((level, index), bytes.as_chunks().0.to_vec());
        }
        self.read.get(&(level, index)).map(Vec::as_slice)
    }
}

impl Nodes for Tiles<'_> {
    type Error = Absent;

    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Absent> {
        let (level, above) = (height / 8, height % 8);
        let start = index << above;
        let tile = self.tile(level, start / TILE_WIDTH).ok_or(Absent)?;
        let at = (start % TILE_WIDTH) as usize;
        subtree(tile.get(at..at + (1 << above)).ok_or(Absent)?)
    }
}

/// The hashes of leaves in memory.
struct Leaves<'a>(&'a [Hash]);

impl Nodes for Leaves<'_> {
    type Error = Absent;

    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Absent> {
        let (start, width) = (usize::try_from(index << height).map_err(|_| Absent)?, 1_usize << height);
        subtree(self.0.get(start..start + width).ok_or(Absent)?)
    }
}

/// The root over a power of two of hashes.
fn subtree(hashes: &[Hash]) -> Result<Hash, Absent> {
    let mut frontier = Frontier::default();
    hashes.iter().for_each(|hash| frontier.push(*hash, |_, _| ()));
    if hashes.is_empty() { Err(Absent) } else { Ok(frontier.root()) }
}

/// What the segments of a log hold.
struct Segments {
    leaves: Vec<Hash>,
    heads: Vec<(u64, Vec<u8>)>,
    files: Vec<(u64, PathBuf)>,
}

impl Segments {
    fn read(log: &Path) -> Result<Self, ProveError> {
        let folder = log.join("segments");
        let error = |error| ProveError::Read { file: folder.clone(), error };
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).map_err(error)? {
            let entry = entry.map_err(error)?;
            let first = entry.file_name().to_str().and_then(first_of);
            files.extend(first.map(|first| (first, entry.path())));
        }
        files.sort();
        let mut segments = Self { leaves: Vec::new(), heads: Vec::new(), files: files.clone() };
        for (_, file) in &files {
            each_frame(file, |kind, payload| match kind {
                Kind::Record => segments.leaves.push(leaf_hash(payload)),
                Kind::Head => {
                    let size = segments.leaves.len() as u64;
                    segments.heads.extend(frame::head(payload).map(|head| (size, head.note.to_vec())));
                }
            })?;
        }
        Ok(segments)
    }

    fn record(&self, index: u64) -> Option<Vec<u8>> {
        let (first, file) = self.files.iter().rfind(|(first, _)| *first <= index)?;
        let (mut next, mut found) = (*first, None);
        let read = each_frame(file, |kind, payload| {
            if kind == Kind::Record {
                if next == index {
                    found = Some(payload.to_vec());
                }
                next += 1;
            }
        });
        read.ok().and(found)
    }
}

/// Goes through a segment's frames; one that is cut short ends it.
fn each_frame(file: &Path, mut take: impl FnMut(Kind, &[u8])) -> Result<(), ProveError> {
    let error = |error| ProveError::Read { file: file.to_owned(), error };
    if !fs::symlink_metadata(file).map_err(error)?.is_file() {
        return Err(ProveError::Damaged { file: file.to_owned(), offset: 0 });
    }
    let bytes = fs::read(file).map_err(error)?;
    let damaged = |rest: &[u8]| ProveError::Damaged {
        file: file.to_owned(),
        offset: (bytes.len() - rest.len()) as u64,
    };
    let mut rest = match frame::header(&bytes) {
        Ok(header) => bytes.get(header.bytes..).unwrap_or_default(),
        Err(Unread::Short) => return Ok(()),
        Err(_) => return Err(damaged(&bytes)),
    };
    loop {
        match frame::frame(rest) {
            Ok(frame) => {
                take(frame.kind, frame.payload);
                rest = rest.get(frame.bytes..).unwrap_or_default();
            }
            Err(Unread::Short) => return Ok(()),
            Err(_) => return Err(damaged(rest)),
        }
    }
}
