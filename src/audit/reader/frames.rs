//! The frames of one segment, read while another process may still be writing them.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use super::{Damage, ReadError};
use crate::audit::frame::{self, FRAME_EXTRA_BYTES, Kind, PAYLOAD_AT, RECORD_BYTES_MAX, Tag};

/// The first bytes of a segment; the last one is the version of the format.
const MAGIC: [u8; 8] = *b"CGSEG\0\0\x01";
/// Magic, first index, count of roots.
const HEADER_START_BYTES: usize = 8 + 8 + 1;
const ROOT_BYTES: usize = 32;
const CRC_BYTES: usize = 4;

/// How much is read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// A frame of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    /// A record's index; a head's number of records before it.
    pub(super) index: u64,
    /// Where it begins in its file.
    pub(super) offset: u64,
    pub(super) tag: Tag,
    pub(super) payload: &'a [u8],
}

/// The kind and the length of the payload that a frame claims to have, where a frame can have them.
fn possible(length: u32, kind: u8) -> Result<(Kind, usize), Damage> {
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    let kind = Kind::of(kind).ok_or(Damage::Kind { kind })?;
    if (1..=kind.bytes_max()).contains(&bytes) { Ok((kind, bytes)) } else { Err(Damage::Length { length }) }
}

/// What stands at the place where the next frame should begin.
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// A whole frame. The place is now behind it.
    Frame(Frame<'a>),
    /// The file ends here, between two frames.
    End,
    /// The file ends inside a frame, or with bytes that are none and have no frame behind them: a
    /// writer that has not finished, or that died. The place is where it was.
    Unfinished(Damage),
}

/// A segment, and a place between two of its frames.
#[derive(Debug)]
pub(super) struct Frames {
    path: PathBuf,
    file: File,
    first: u64,
    /// The next record's index.
    index: u64,
    /// Where the next frame begins.
    offset: u64,
    /// What was read from `offset` on and not taken yet: `buffer[start..]`.
    buffer: Vec<u8>,
    start: usize,
    header: bool,
}

impl Frames {
    /// Opens the segment whose name says that it begins with record `first`.
    pub(super) fn open(path: PathBuf, first: u64) -> Result<Self, ReadError> {
        let file = open(&path).map_err(|source| ReadError::Io { path: path.clone(), source })?;
        Ok(Self { path, file, first, index: first, offset: 0, buffer: Vec::new(), start: 0, header: false })
    }

    /// Opens the segment again, at the same place, where another file has taken its name: a process that
    /// goes on with a log writes its last segment anew. What was read stands in both.
    pub(super) fn renew(&mut self) -> Result<bool, ReadError> {
        let failed = |source| ReadError::Io { path: self.path.clone(), source };
        if !is_replaced(&self.file, &self.path).map_err(failed)? {
            return Ok(false);
        }
        self.file = open(&self.path).map_err(failed)?;
        self.forget();
        Ok(true)
    }

    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    pub(super) const fn index(&self) -> u64 {
        self.index
    }

    /// Goes to a place that a frame was found at before, with record `index` next.
    pub(super) fn seek(&mut self, offset: u64, index: u64) {
        self.header = true;
        (self.offset, self.index) = (offset, index);
        self.forget();
    }

    /// Reads what stands next. A place that was unfinished can be asked for again.
    pub(super) fn next(&mut self) -> Result<Next<'_>, ReadError> {
        if !self.header && !self.read_header()? {
            return Ok(Next::Unfinished(Damage::Header));
        }
        let (kind, bytes) = match self.judge()? {
            Judged::Frame(kind, bytes) => (kind, bytes),
            Judged::End => return Ok(Next::End),
            Judged::Bad(damage) => {
                self.look_behind(damage)?;
                self.forget(); // what is here now may be whole when it is read again
                return Ok(Next::Unfinished(damage));
            }
        };
        let (index, offset, from) = (self.index, self.offset, self.start);
        self.index += u64::from(kind == Kind::Record);
        self.start += FRAME_EXTRA_BYTES + bytes;
        self.offset += u64::try_from(FRAME_EXTRA_BYTES + bytes).unwrap_or(u64::MAX);
        // INVARIANT: `judge` saw the whole frame in the buffer.
        let frame = self.buffer.get(from..self.start).unwrap_or_default();
        let tag = frame.get(5..).and_then(|tag| tag.first_chunk()).copied().unwrap_or_default();
        let payload = frame.get(PAYLOAD_AT..PAYLOAD_AT + bytes).unwrap_or_default();
        Ok(Next::Frame(Frame { kind, index, offset, tag, payload }))
    }

    /// The error for damage at this place.
    pub(super) fn damaged(&self, damage: Damage) -> ReadError {
        ReadError::Damaged { path: self.path.clone(), index: self.index, offset: self.offset, damage }
    }

    /// Reads the header; false where it is not whole yet.
    fn read_header(&mut self) -> Result<bool, ReadError> {
        // The name says how long the header is; the count in it may be what is damaged.
        let roots = usize::try_from(self.first.count_ones()).unwrap_or_default();
        let bytes = HEADER_START_BYTES + roots * ROOT_BYTES + size_of::<Tag>();
        if self.fill(bytes + CRC_BYTES)? < bytes + CRC_BYTES {
            return Ok(false);
        }
        let (body, crc) = self.unread().split_at_checked(bytes).unwrap_or_default();
        let first = body.get(8..).and_then(|first| first.first_chunk()).copied().map(u64::from_le_bytes);
        let intact = crc.first_chunk().copied().map(u32::from_le_bytes) == Some(crc32c::crc32c(body));
        match body.first_chunk() {
            Some(magic) if intact && *magic == MAGIC => {}
            // Another version is not damage, and a newer program can read it.
            Some([b'C', b'G', b'S', b'E', b'G', 0, 0, version]) if intact && *version != 1 => {
                return Err(ReadError::Version { path: self.path.clone(), version: *version });
            }
            // An overwritten header has frames behind it; a torn one, of a writer that died, has none.
            _ => {
                let behind = frame_behind(self.unread());
                return if behind { Err(self.damaged(Damage::Header)) } else { Ok(false) };
            }
        }
        if first != Some(self.first) {
            return Err(self.damaged(Damage::Header));
        }
        self.start += bytes + CRC_BYTES;
        self.offset = u64::try_from(bytes + CRC_BYTES).unwrap_or(u64::MAX);
        self.header = true;
        Ok(true)
    }

    fn judge(&mut self) -> Result<Judged, ReadError> {
        let there = self.fill(FRAME_EXTRA_BYTES)?;
        if there == 0 {
            return Ok(Judged::End);
        }
        let Some((length, kind)) = claim(self.unread()) else { return Ok(Judged::Bad(Damage::Short)) };
        let (kind, bytes) = match possible(length, kind) {
            Ok(claimed) => claimed,
            Err(damage) => return Ok(Judged::Bad(damage)),
        };
        if self.fill(FRAME_EXTRA_BYTES + bytes)? < FRAME_EXTRA_BYTES + bytes {
            return Ok(Judged::Bad(Damage::Short));
        }
        let intact = frame::Frame::read(self.unread()).is_some();
        Ok(if intact { Judged::Frame(kind, bytes) } else { Judged::Bad(Damage::Checksum) })
    }

    /// An error, if a frame stands anywhere behind this place: writers append, so what is before it
    /// was whole once.
    fn look_behind(&mut self, damage: Damage) -> Result<(), ReadError> {
        let error = self.damaged(damage);
        let mut window = Vec::new();
        self.file.seek(SeekFrom::Start(self.offset + 1)).map_err(|source| self.failed(source))?;
        loop {
            // Windows overlap by the longest frame, so that none falls between two.
            let wanted = CHUNK_BYTES + FRAME_EXTRA_BYTES + RECORD_BYTES_MAX;
            let read =
                read_up_to(&mut self.file, &mut window, wanted).map_err(|source| self.failed(source))?;
            if frame_behind(&window) {
                return Err(error);
            }
            if read == 0 {
                return Ok(());
            }
            let passed = window.len().saturating_sub(FRAME_EXTRA_BYTES + RECORD_BYTES_MAX);
            window.drain(..passed);
        }
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn forget(&mut self) {
        self.buffer.clear();
        self.start = 0;
    }

    /// Reads until at least `wanted` bytes are there or the file ends; says how many there are.
    fn fill(&mut self, wanted: usize) -> Result<usize, ReadError> {
        let there = self.buffer.len() - self.start;
        if there >= wanted {
            return Ok(there);
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let from = self.offset + u64::try_from(there).unwrap_or_default();
        self.file.seek(SeekFrom::Start(from)).map_err(|source| self.failed(source))?;
        read_up_to(&mut self.file, &mut self.buffer, wanted.max(CHUNK_BYTES))
            .map_err(|source| self.failed(source))?;
        Ok(self.buffer.len())
    }

    fn failed(&self, source: io::Error) -> ReadError {
        ReadError::Io { path: self.path.clone(), source }
    }
}

/// Whether another file has the name that this one was opened by. One that has no name any more is
/// no other.
#[cfg(unix)]
fn is_replaced(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) != (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where files that are open keep their names.
#[cfg(not(unix))]
fn is_replaced(_: &File, _: &Path) -> io::Result<bool> {
    Ok(false)
}

enum Judged {
    Frame(Kind, usize),
    End,
    Bad(Damage),
}

/// Fills a buffer up to `wanted` bytes; says how many were added.
/// Opens a file of bytes: a pipe would never end, and a link leads out of the folder.
fn open(path: &Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"));
    }
    File::open(path)
}

fn read_up_to(file: &mut File, buffer: &mut Vec<u8>, wanted: usize) -> io::Result<usize> {
    let limit = u64::try_from(wanted.saturating_sub(buffer.len())).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(buffer)
}

/// The length and the kind that the start of a frame claims.
fn claim(bytes: &[u8]) -> Option<(u32, u8)> {
    let [a, b, c, d, kind] = *bytes.first_chunk()?;
    Some((u32::from_le_bytes([a, b, c, d]), kind))
}

/// Whether a whole frame stands anywhere in `bytes`.
fn frame_behind(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| bytes.get(at..).and_then(frame::Frame::read).is_some())
}
