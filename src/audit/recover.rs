//! Recovery: what a log holds when a process claims it, and what has to be cut off or refused.
//!
//! It reads the last segment, the one before where the last has no head, and those that hold intents
//! without an outcome.

mod walk;

use std::{
    any::Any,
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    disk::{Disk, DiskFile as _, append_all, read_all},
    frame::{Chain, Frames, Kind, Tag, frames_after},
    head::{HeadPayload, SignedHead},
    key::{KeyError, LogKey, PublicKey, Trusted},
    segment::{self, Header},
    tree::Frontier,
    verifier::tile_path,
};
use walk::{FoundHead, Walk};

/// How many records a whole tile tells of (C2SP tlog-tiles).
const TILE_WIDTH: u64 = 256;

/// Twice what a segment holds when it is ended: nobody wrote a larger one, and it is read whole.
const SEGMENT_BYTES_MAX: u64 = 128 << 20;

/// Why a log cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A file cannot be made, read or written.
    #[error("the log file `{}` cannot be used: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was written is not what is there.
    #[error("the log is damaged at record {index} (`{}`, byte {offset}): {why}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// The index of the first record that is not as it was written, or would come next.
        index: u64,
        /// Where in the segment.
        offset: u64,
        /// What was expected, and what is there.
        why: &'static str,
    },
    /// Records that were published, as the checkpoint or a tile says, are gone.
    #[error(
        "the log holds {size} records, but `{}` tells of {published} that were published: records at the end are gone",
        path.display()
    )]
    BelowCheckpoint {
        /// The checkpoint, or the tile.
        path: PathBuf,
        /// How many records there are.
        size: u64,
        /// How many there were.
        published: u64,
    },
    /// The checkpoint is no note that a known key signed for this log.
    #[error("the checkpoint `{}` is not signed for `{origin}` by a key known here", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// The log's origin.
        origin: String,
    },
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What recovery has to know of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    Plain,
    Intent(u128),
    Outcome(u128),
}

/// A log as its folder is claimed.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    /// The log's folder.
    pub(super) folder: &'a Path,
    /// The key that signs from now on.
    pub(super) key: LogKey,
    /// Keys that signed before.
    pub(super) known: &'a [PublicKey],
    /// The kernel's boot id: as long as it is the same, no written byte was lost.
    pub(super) boot: &'a str,
    /// Unix time, for the name of what is cut off.
    pub(super) now_ms: u64,
}

/// An intent whose outcome nobody wrote.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct OpenIntent {
    pub(super) index: u64,
    pub(super) call: u128,
    /// The record.
    pub(super) bytes: Vec<u8>,
}

/// What was cut off the end, and where it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Cut {
    pub(super) bytes: u64,
    pub(super) kept: PathBuf,
}

/// A log that can be gone on with.
pub(super) struct Recovered<D: Disk> {
    pub(super) disk: Arc<D>,
    pub(super) folder: PathBuf,
    pub(super) key: LogKey,
    /// The last segment.
    pub(super) file: D::File,
    pub(super) path: PathBuf,
    /// How many bytes it holds.
    pub(super) length: u64,
    /// The index of its first record.
    pub(super) first: u64,
    pub(super) frontier: Frontier,
    /// The tag of the last frame.
    pub(super) tag: Tag,
    /// The newest head on record.
    pub(super) head: Option<SignedHead>,
    /// Intents without an outcome, the oldest first.
    pub(super) open: Vec<OpenIntent>,
    /// What was cut off.
    pub(super) cut: Option<Cut>,
    /// The machine may have lost power since the log was written last.
    pub(super) rebooted: bool,
    held: Option<Box<dyn Any + Send>>,
}

impl<D: Disk> fmt::Debug for Recovered<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovered")
            .field("path", &self.path)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl<D: Disk> Recovered<D> {
    /// How many records the log holds.
    pub(super) const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Holds something, such as the log's lock, for as long as the log is written.
    #[must_use]
    pub(super) fn holding(mut self, held: impl Any + Send) -> Self {
        self.held = Some(Box::new(held));
        self
    }

    pub(super) fn take_held(&mut self) -> Option<Box<dyn Any + Send>> {
        self.held.take()
    }
}

/// Reads a log's end and makes it ready to be appended to. `seen` tells what a record is.
pub(super) fn recover<D: Disk>(
    disk: Arc<D>,
    claim: Claim<'_>,
    seen: &dyn Fn(&[u8]) -> Seen,
) -> Result<Recovered<D>, RecoverError> {
    let trusted = claim.key.trusting(claim.known)?;
    let recovery = Recovery { disk: &*disk, claim: &claim, trusted };
    let checkpoint = recovery.checkpoint()?;
    let booted = recovery.booted()?;
    let (end, cut) = recovery.end(checkpoint.as_ref(), booted)?;
    let open = recovery.open(&end, seen)?;
    recovery.note_boot(booted)?;
    let folder = claim.folder.to_owned();
    let End { file, path, bytes, first, walk, head, .. } = end;
    Ok(Recovered {
        file,
        path,
        length: to_u64(bytes.len()),
        first,
        frontier: walk.frontier,
        tag: walk.tag,
        head: head.map(|(_, head)| head),
        open,
        cut,
        rebooted: booted == Booted::Since,
        held: None,
        disk,
        folder,
        key: claim.key,
    })
}

/// Makes the segment that begins after a frontier: under its name it is whole, also after a power loss.
pub(super) fn make_segment<D: Disk>(
    disk: &D,
    folder: &Path,
    header: &Header,
) -> io::Result<(D::File, PathBuf, u64)> {
    let segments = folder.join("segments");
    let unfinished = segments.join(segment::unfinished_name(header.first()));
    let path = segments.join(segment::name(header.first()));
    let bytes = header.encode();
    let mut file = disk.create(&unfinished)?;
    append_all(&mut file, &bytes)?;
    file.sync_data()?;
    disk.rename(&unfinished, &path)?;
    disk.sync_folder(&segments)?;
    Ok((file, path, to_u64(bytes.len())))
}

/// The end of a log: its last segment.
struct End<D: Disk> {
    file: D::File,
    path: PathBuf,
    bytes: Vec<u8>,
    first: u64,
    frames_at: usize,
    walk: Walk,
    /// The newest head and the `open` beside it.
    head: Option<(u64, SignedHead)>,
    /// The indexes that the segments before begin with, in order.
    before: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Booted {
    /// The machine did not restart since the log was claimed last.
    Same,
    Since,
}

struct Recovery<'a, D> {
    disk: &'a D,
    claim: &'a Claim<'a>,
    trusted: Trusted,
}

impl<D: Disk> Recovery<'_, D> {
    fn segment_path(&self, first: u64) -> PathBuf {
        self.claim.folder.join("segments").join(segment::name(first))
    }

    fn read(&self, path: &Path) -> Result<(D::File, Vec<u8>), RecoverError> {
        let file = self.disk.open(path).map_err(failed(path))?;
        if file.len().map_err(failed(path))? > SEGMENT_BYTES_MAX {
            let source = io::Error::other("it is larger than any segment that was ever written");
            return Err(RecoverError::Io { path: path.to_owned(), source });
        }
        let bytes = read_all(&file).map_err(failed(path))?;
        Ok((file, bytes))
    }

    fn read_if_there(&self, path: &Path) -> Result<Option<Vec<u8>>, RecoverError> {
        match self.read(path) {
            Ok((_, bytes)) => Ok(Some(bytes)),
            Err(RecoverError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn checkpoint(&self) -> Result<Option<SignedHead>, RecoverError> {
        let path = self.claim.folder.join("checkpoint");
        let Some(note) = self.read_if_there(&path)? else { return Ok(None) };
        let head = SignedHead::verify(&note, &self.trusted);
        let origin = || self.claim.key.origin().to_owned();
        head.map(Some).ok_or_else(|| RecoverError::Checkpoint { path, origin: origin() })
    }

    fn booted(&self) -> Result<Booted, RecoverError> {
        let boot = self.read_if_there(&self.claim.folder.join("boot"))?;
        let same = boot.is_some_and(|boot| boot.trim_ascii() == self.claim.boot.trim().as_bytes());
        Ok(if same { Booted::Same } else { Booted::Since })
    }

    /// Only once all is in order: until then, what the old boot id says is what counts.
    fn note_boot(&self, booted: Booted) -> Result<(), RecoverError> {
        if booted == Booted::Same {
            return Ok(());
        }
        let folder = self.claim.folder;
        let (path, unfinished) = (folder.join("boot"), folder.join("boot.new"));
        self.remove_if_there(&unfinished)?;
        let write = || {
            let mut file = self.disk.create(&unfinished)?;
            append_all(&mut file, self.claim.boot.trim().as_bytes())?;
            file.sync_data()?;
            self.disk.rename(&unfinished, &path)?;
            self.disk.sync_folder(folder)
        };
        write().map_err(failed(&path))
    }

    fn remove_if_there(&self, path: &Path) -> Result<(), RecoverError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(failed(path)),
        }
    }

    /// The indexes that the log's segments begin with, in order.
    fn segments(&self) -> Result<Vec<u64>, RecoverError> {
        let folder = self.claim.folder.join("segments");
        self.disk.make_folder(&folder).map_err(failed(&folder))?;
        // A name that was just made is not there after a power loss until its folder is synced: those of
        // segments, by a process that may have died before it did that; and of the folders, this one, the
        // log's and that of all logs, which is in the state folder.
        for above in folder.ancestors().take(4) {
            self.disk.sync_folder(above).map_err(failed(above))?;
        }
        let names = self.disk.list(&folder).map_err(failed(&folder))?;
        for name in names.iter().filter(|name| segment::is_unfinished(name)) {
            self.remove_if_there(&folder.join(name))?;
        }
        let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment::first_of(name)).collect();
        firsts.sort_unstable();
        Ok(firsts)
    }

    /// Finds the log's end, and cuts off what is torn.
    fn end(
        &self,
        checkpoint: Option<&SignedHead>,
        booted: Booted,
    ) -> Result<(End<D>, Option<Cut>), RecoverError> {
        let mut before = self.segments()?;
        let mut cut = None;
        let (mut file, path, mut bytes, header, frames_at) = loop {
            let Some(first) = before.pop() else {
                let (end, none) = self.empty(checkpoint)?;
                return Ok((end, cut.or(none)));
            };
            let path = self.segment_path(first);
            let (file, bytes) = self.read(&path)?;
            match Header::read(&bytes) {
                Some((header, frames_at)) if header.first() == first => {
                    break (file, path, bytes, header, frames_at);
                }
                None if frames_after(&bytes, 0).next().is_none() => {
                    self.below(checkpoint, first, None)?;
                    cut = Some(self.keep(&bytes, 0)?);
                    self.disk.remove(&path).map_err(failed(&path))?;
                    let folder = self.claim.folder.join("segments");
                    self.disk.sync_folder(&folder).map_err(failed(&folder))?;
                }
                _ => return Err(damaged(&path, first, 0, "its header is not what was written")),
            }
        };
        let walk = self.walk(&path, &bytes, &header, frames_at, checkpoint)?;
        let whole = walk.end;
        if whole < bytes.len() {
            self.judge_tail(&path, &bytes, &walk, booted)?;
        }
        self.below(checkpoint, walk.frontier.size(), walk.watched_root)?;
        self.below_tiles(walk.frontier.size())?;
        let head = match &walk.head {
            Some(found) => Some(self.check_head(&path, found)?),
            None => self.head_before(&path, &header, before.last().copied())?,
        };
        if let Some(torn) = bytes.get(whole..).filter(|torn| !torn.is_empty()) {
            cut = Some(self.keep(torn, whole)?);
            bytes.truncate(whole);
            if booted == Booted::Since {
                file.truncate(to_u64(whole)).and_then(|()| file.sync_data()).map_err(failed(&path))?;
            }
        }
        if booted == Booted::Same {
            file = self.write_again(&path, &bytes).map_err(failed(&path))?;
        }
        let first = header.first();
        Ok((End { file, path, bytes, first, frames_at, walk, head, before }, cut))
    }

    /// Writes the last segment anew, under its name.
    ///
    /// A sync that failed may have dropped what it was to write: it is read from the page cache as if nothing
    /// were wrong, no later sync writes it, and a power loss shows the hole. So what a process before this one
    /// in the same boot left is not trusted to be on the disk, and is written once more.
    fn write_again(&self, path: &Path, bytes: &[u8]) -> io::Result<D::File> {
        let unfinished = path.with_extension("new");
        let mut file = self.disk.create(&unfinished)?;
        append_all(&mut file, bytes)?;
        file.sync_data()?;
        self.disk.rename(&unfinished, path)?;
        self.disk.sync_folder(&self.claim.folder.join("segments"))?;
        Ok(file)
    }

    fn empty(&self, checkpoint: Option<&SignedHead>) -> Result<(End<D>, Option<Cut>), RecoverError> {
        self.below(checkpoint, 0, None)?;
        self.below_tiles(0)?;
        let header = Header { frontier: Frontier::default(), tag: Tag::default() };
        let path = self.segment_path(0);
        let (file, path, _) = make_segment(self.disk, self.claim.folder, &header).map_err(failed(&path))?;
        let bytes = header.encode();
        let frames_at = bytes.len();
        let walk = Walk::empty(&header, frames_at);
        Ok((End { file, path, bytes, first: 0, frames_at, walk, head: None, before: Vec::new() }, None))
    }

    fn walk(
        &self,
        path: &Path,
        bytes: &[u8],
        header: &Header,
        frames_at: usize,
        checkpoint: Option<&SignedHead>,
    ) -> Result<Walk, RecoverError> {
        let chain = Chain::resume(self.claim.key.tags().clone(), header.tag);
        let watch = checkpoint.map(SignedHead::size);
        let walk = Walk::take(bytes, header, frames_at, chain, watch, &self.trusted);
        if let Some((index, offset)) = walk.edited(&self.trusted) {
            let why =
                "its tag is not the one that the log's key gives: it was edited, or another key wrote it";
            return Err(damaged(path, index, offset, why));
        }
        Ok(walk)
    }

    /// Tiles are published of durable records only. One that holds more than the log tells that its end is
    /// gone, also where the checkpoint is gone with it: that one holds the hash of the record after the last.
    fn below_tiles(&self, size: u64) -> Result<(), RecoverError> {
        let (tile, width) = (size / TILE_WIDTH, size % TILE_WIDTH);
        let path = self.claim.folder.join(tile_path("0", tile, usize::try_from(TILE_WIDTH).unwrap_or(256)));
        let mut partials = path.clone().into_os_string();
        partials.push(".p");
        let list = |folder: Option<&Path>| match folder {
            Some(folder) => self.disk.list(folder).map_err(failed(folder)),
            None => Ok(Vec::new()),
        };
        let whole = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_whole = list(path.parent())?.iter().any(|name| name == whole);
        let widths = list(Some(Path::new(&partials)))?;
        let published = widths.iter().filter_map(|width| width.parse().ok()).max().unwrap_or(0);
        let published = if is_whole { TILE_WIDTH } else { published };
        if published > width {
            let published = tile * TILE_WIDTH + published;
            return Err(RecoverError::BelowCheckpoint { path, size, published });
        }
        Ok(())
    }

    /// A bad place is a torn tail unless what follows says that it must have been whole.
    fn judge_tail(&self, path: &Path, bytes: &[u8], walk: &Walk, booted: Booted) -> Result<(), RecoverError> {
        let index = walk.frontier.size();
        for (_, frame) in frames_after(bytes, walk.end) {
            if booted == Booted::Same {
                let why = "whole frames follow the bad place, and no power was lost since they were written";
                return Err(damaged(path, index, walk.end, why));
            }
            let synced = HeadPayload::read(frame.payload)
                .filter(|payload| frame.kind == Kind::Head && payload.synced > index)
                .is_some_and(|payload| SignedHead::verify(payload.note, &self.trusted).is_some());
            if synced {
                let why = "a signed head after the bad place tells that the record was synced";
                return Err(damaged(path, index, walk.end, why));
            }
        }
        Ok(())
    }

    fn below(
        &self,
        checkpoint: Option<&SignedHead>,
        size: u64,
        root: Option<[u8; 32]>,
    ) -> Result<(), RecoverError> {
        let Some(checkpoint) = checkpoint else { return Ok(()) };
        let path = || self.claim.folder.join("checkpoint");
        if checkpoint.size() > size {
            return Err(RecoverError::BelowCheckpoint { path: path(), size, published: checkpoint.size() });
        }
        if root.is_some_and(|root| root != *checkpoint.root()) {
            let why = "the records before are not those that the published checkpoint was signed for";
            return Err(damaged(&path(), checkpoint.size(), 0, why));
        }
        Ok(())
    }

    fn check_head(&self, path: &Path, found: &FoundHead) -> Result<(u64, SignedHead), RecoverError> {
        let bad = |why| damaged(path, found.frontier.size(), found.offset, why);
        let payload = HeadPayload::read(&found.payload).ok_or_else(|| bad("the last head is none"))?;
        let head = SignedHead::verify(payload.note, &self.trusted)
            .ok_or_else(|| bad("the last head is not signed for this log by a known key"))?;
        let size = found.frontier.size();
        if head.size() != size || *head.root() != found.frontier.root() {
            return Err(bad("the last head was signed for other records than those before it"));
        }
        if payload.open > size || payload.synced > size {
            return Err(bad("the last head tells of records that come after it"));
        }
        Ok((payload.open, head))
    }

    /// A segment without a head goes on where the head at the end of the one before was signed.
    fn head_before(
        &self,
        path: &Path,
        header: &Header,
        before: Option<u64>,
    ) -> Result<Option<(u64, SignedHead)>, RecoverError> {
        if header.first() == 0 {
            let fresh = *header == Header { frontier: Frontier::default(), tag: Tag::default() };
            return if fresh { Ok(None) } else { Err(damaged(path, 0, 0, "its header is not a first one")) };
        }
        let bad = |why| damaged(path, header.first(), 0, why);
        let before = before.ok_or_else(|| bad("the segment before it is gone"))?;
        let before_path = self.segment_path(before);
        let (_, bytes) = self.read(&before_path)?;
        let (before_header, frames_at) = Header::read(&bytes)
            .filter(|(header, _)| header.first() == before)
            .ok_or_else(|| damaged(&before_path, before, 0, "its header is not what was written"))?;
        let walk = self.walk(&before_path, &bytes, &before_header, frames_at, None)?;
        if walk.end < bytes.len() {
            let why = "a frame is damaged, and a later segment follows";
            return Err(damaged(&before_path, walk.frontier.size(), walk.end, why));
        }
        let found =
            walk.head.as_ref().ok_or_else(|| bad("the segment before it does not end with a head"))?;
        let head = self.check_head(&before_path, found)?;
        if walk.frontier != header.frontier || walk.tag != header.tag || found.frontier != walk.frontier {
            return Err(bad("its header is not what the segment before it ends with"));
        }
        Ok(Some(head))
    }

    /// The intents without an outcome.
    fn open(&self, end: &End<D>, seen: &dyn Fn(&[u8]) -> Seen) -> Result<Vec<OpenIntent>, RecoverError> {
        let from = end.head.as_ref().map_or(0, |(open, _)| *open);
        let mut intents = Intents { from, open: BTreeMap::new(), seen };
        // Of the segments before, the one that holds `from` and those after it.
        let skipped = end.before.partition_point(|first| *first <= from).saturating_sub(1);
        let wanted = end.before.get(skipped..).filter(|_| from < end.first).unwrap_or_default();
        for first in wanted {
            let path = self.segment_path(*first);
            let (_, bytes) = self.read(&path)?;
            let frames_at = Header::read(&bytes)
                .filter(|(header, _)| header.first() == *first)
                .map(|(_, frames_at)| frames_at)
                .ok_or_else(|| damaged(&path, *first, 0, "its header is not what was written"))?;
            let (index, whole) = intents.read(&bytes, frames_at, *first);
            if whole < bytes.len() {
                let why = "a frame is damaged, and a later segment follows";
                return Err(damaged(&path, index, whole, why));
            }
        }
        if wanted.first().is_none_or(|first| *first > from) && from < end.first {
            return Err(damaged(&end.path, from, 0, "the segment that holds an open intent is gone"));
        }
        intents.read(&end.bytes, end.frames_at, end.first);
        let mut open: Vec<OpenIntent> = intents.open.into_values().collect();
        open.sort_unstable_by_key(|intent| intent.index);
        Ok(open)
    }

    /// Keeps bytes that are about to be cut off.
    fn keep(&self, bytes: &[u8], offset: usize) -> Result<Cut, RecoverError> {
        let folder = self.claim.folder.join("torn");
        self.disk.make_folder(&folder).map_err(failed(&folder))?;
        self.disk.sync_folder(self.claim.folder).map_err(failed(self.claim.folder))?;
        let mut now_ms = self.claim.now_ms;
        let (mut file, kept) = loop {
            let path = folder.join(format!("{now_ms}-{offset}"));
            match self.disk.create(&path) {
                // A recovery that was cut short has kept the same bytes before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => now_ms = now_ms.wrapping_add(1),
                file => break (file.map_err(failed(&path))?, path),
            }
        };
        append_all(&mut file, bytes)
            .and_then(|()| file.sync_data())
            .and_then(|()| self.disk.sync_folder(&folder))
            .map_err(failed(&kept))?;
        Ok(Cut { bytes: to_u64(bytes.len()), kept })
    }
}

/// Intents whose outcome was not met yet.
struct Intents<'a> {
    from: u64,
    open: BTreeMap<u128, OpenIntent>,
    seen: &'a dyn Fn(&[u8]) -> Seen,
}

impl Intents<'_> {
    /// Looks at the records of a segment; gives the index and the offset behind the last whole frame.
    fn read(&mut self, bytes: &[u8], frames_at: usize, first: u64) -> (u64, usize) {
        let mut index = first;
        let mut frames = Frames::new(bytes, frames_at);
        for (_, frame) in frames.by_ref().filter(|(_, frame)| frame.kind == Kind::Record) {
            if index >= self.from {
                match (self.seen)(frame.payload) {
                    Seen::Plain => {}
                    Seen::Intent(call) => {
                        self.open.insert(call, OpenIntent { index, call, bytes: frame.payload.to_vec() });
                    }
                    Seen::Outcome(call) => {
                        self.open.remove(&call);
                    }
                }
            }
            index += 1;
        }
        (index, frames.offset())
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> RecoverError {
    move |source| RecoverError::Io { path: path.to_owned(), source }
}

fn damaged(path: &Path, index: u64, offset: usize, why: &'static str) -> RecoverError {
    RecoverError::Damaged { path: path.to_owned(), index, offset: to_u64(offset), why }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
