//! What others read of a log: its checkpoint, hash tiles and entry bundles (C2SP tlog-tiles), made from the segments.
//!
//! All of it can be made again, so tiles are not synced one by one; the checkpoint is written last, synced and
//! put in place by a rename. After a power loss [`Publisher::anew`] compares every file with the segments and
//! writes those again that are not whole; after anything else [`Publisher::resume`] goes on where the log's
//! checkpoint stands.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{
    segment::first_of,
    verifier::{
        frame::{self, Kind, Unread},
        note::Checkpoint,
        tile_path,
        tree::{Frontier, Hash, leaf_hash},
    },
};

/// Holds any frame, and a part of a bundle: the end of it is read again for the next bundle.
const BLOCK_BYTES: usize = 128 << 10;
const TILE_WIDTH: usize = 256;
const ENTRIES: &str = "entries";

/// Why something could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file could not be read or written.
    #[error("cannot publish `{}`", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The note is no checkpoint.
    #[error("the head is not a checkpoint of {size} records")]
    Head {
        /// The size that it was to have.
        size: u64,
    },
    /// The head is older than what is published.
    #[error("the head covers {size} records, and {published} are published")]
    Older {
        /// The size of the head.
        size: u64,
        /// The size that is published.
        published: u64,
    },
    /// The segments do not hold what the head was signed for.
    #[error("the records in `{}` are not those of the head: {what}", folder.display())]
    Records {
        /// The folder of the segments.
        folder: PathBuf,
        /// What is the matter.
        what: String,
    },
}

/// Publishes one log, a little more each time.
#[derive(Debug)]
pub struct Publisher {
    log: PathBuf,
    frontier: Frontier,
    /// The right edge of each level: the tile that is not whole yet.
    edge: Vec<Edge>,
    /// The entries of the bundle that is not whole yet.
    bundle: Vec<u8>,
    place: Place,
    /// What is read into: kept, since it is needed for each bundle.
    block: Vec<u8>,
    published: u64,
    /// Partial files of this checkpoint and of the one before: whoever has just read that may still ask for them.
    partials: [Vec<PathBuf>; 2],
}

#[derive(Debug, Default)]
struct Edge {
    index: u64,
    hashes: Vec<Hash>,
}

/// The frame that is read next.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    segment: u64,
    offset: u64,
}

impl Publisher {
    /// Goes on from what is published. Where that does not lead to the root of its checkpoint, all is made anew.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn resume(log: &Path) -> Result<Self, PublishError> {
        let mut publisher = Self::anew(log);
        let file = log.join("checkpoint");
        let note = if_exists(fs::read(&file)).map_err(|error| PublishError::File { file, error })?;
        let checkpoint = note.as_deref().and_then(|note| Checkpoint::parse(note).ok());
        let taken_up = checkpoint.is_some_and(|checkpoint| publisher.take_up(&checkpoint).is_some());
        Ok(if taken_up { publisher } else { Self::anew(log) })
    }

    /// Begins at the first record; files that are right already stay as they are.
    pub fn anew(log: &Path) -> Self {
        Self {
            log: log.to_owned(),
            frontier: Frontier::default(),
            edge: Vec::new(),
            bundle: Vec::new(),
            place: Place::default(),
            block: Vec::new(),
            published: 0,
            partials: Default::default(),
        }
    }

    /// How many records are published.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// Publishes the first `size` records under the signed note of their tree. Once that failed, begin again
    /// with [`Self::resume`] or [`Self::anew`].
    ///
    /// # Errors
    /// Where the segments do not hold what the head was signed for, or a file cannot be read or written.
    pub fn publish(&mut self, note: &[u8], size: u64) -> Result<(), PublishError> {
        let checkpoint = Checkpoint::parse(note).map_err(|_| PublishError::Head { size })?;
        if checkpoint.size != size {
            return Err(PublishError::Head { size });
        }
        if size < self.frontier.size() {
            return Err(PublishError::Older { size, published: self.frontier.size() });
        }
        self.read_up_to(size)?;
        if self.frontier.root() != checkpoint.root {
            return Err(self.unlike(format!("the root of the first {size} records is another one")));
        }
        let partials = self.write_partials()?;
        self.put("checkpoint", note, true)?;
        self.published = size;
        self.remove_replaced(partials)
    }

    /// Loads the right edge as the tiles have it; `None` where it is not what the checkpoint was signed for.
    fn take_up(&mut self, checkpoint: &Checkpoint<'_>) -> Option<()> {
        let size = checkpoint.size;
        let (mut level, mut width) = (0_u32, size);
        while width > 0 {
            let (index, count) = (width / TILE_WIDTH as u64, (width % TILE_WIDTH as u64) as usize);
            let hashes = if count > 0 { self.hashes(level, index, count)? } else { Vec::new() };
            self.edge.push(Edge { index, hashes });
            level += 1;
            width /= TILE_WIDTH as u64;
        }
        let mut peaks = Vec::new();
        for edge in self.edge.iter().rev() {
            let mut part = Frontier::default();
            edge.hashes.iter().for_each(|hash| part.push(*hash, |_, _| ()));
            peaks.extend_from_slice(part.peaks());
        }
        self.frontier = Frontier::at(size, peaks)?;
        let leaves = self.edge.first().map(|edge| edge.hashes.as_slice()).unwrap_or_default();
        if !leaves.is_empty() {
            let index = size / TILE_WIDTH as u64;
            let bundle = fs::read(self.log.join(tile_path(ENTRIES, index, leaves.len()))).ok()?;
            let mut rest = bundle.as_slice();
            for leaf in leaves {
                let (length, after) = rest.split_first_chunk()?;
                let (record, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
                (leaf_hash(record) == *leaf).then_some(())?;
                rest = after;
            }
            rest.is_empty().then_some(())?;
            self.bundle = bundle;
        }
        (self.frontier.root() == checkpoint.root).then_some(())?;
        self.published = size;
        let current = self.partial_paths();
        let leftovers = self.leftovers(&current);
        self.partials = [current, leftovers];
        self.find(size)
    }

    fn hashes(&self, level: u32, index: u64, count: usize) -> Option<Vec<Hash>> {
        let bytes = fs::read(self.log.join(tile_path(&level.to_string(), index, count))).ok()?;
        let (hashes, rest) = bytes.as_chunks();
        (hashes.len() == count && rest.is_empty()).then(|| hashes.to_vec())
    }

    /// Finds the frame after `size` records.
    fn find(&mut self, size: u64) -> Option<()> {
        let names = fs::read_dir(self.log.join("segments")).ok()?;
        let firsts = names.filter_map(|entry| first_of(entry.ok()?.file_name().to_str()?));
        let segment = firsts.filter(|first| *first <= size).max()?;
        self.place = Place { segment, offset: 0 };
        let mut next = segment;
        self.frames(size - segment, |_, _| next += 1).ok()?;
        (next == size).then_some(())
    }

    fn read_up_to(&mut self, size: u64) -> Result<(), PublishError> {
        let mut whole = Vec::new();
        loop {
            let before = self.frontier.size();
            // Never past a whole bundle, so that no more than one waits in memory.
            let wanted = (size - before).min(TILE_WIDTH as u64 - before % TILE_WIDTH as u64);
            if wanted == 0 {
                return Ok(());
            }
            self.frames(wanted, |this, record| {
                let length = u16::try_from(record.len()).unwrap_or(u16::MAX);
                this.bundle.extend_from_slice(&length.to_be_bytes());
                this.bundle.extend_from_slice(record);
                this.push(leaf_hash(record), &mut whole);
            })?;
            for (level, index, hashes) in whole.drain(..) {
                let path = tile_path(&level.to_string(), index, TILE_WIDTH);
                self.put(&path, hashes.as_flattened(), false)?;
                if level == 0 {
                    let bundle = std::mem::take(&mut self.bundle);
                    self.put(&tile_path(ENTRIES, index, TILE_WIDTH), &bundle, false)?;
                }
            }
        }
    }

    fn push(&mut self, leaf: Hash, whole: &mut Vec<(usize, u64, Vec<Hash>)>) {
        let mut nodes = vec![leaf];
        self.frontier.push(leaf, |height, node| {
            if height % 8 == 0 {
                nodes.push(*node);
            }
        });
        for (level, node) in nodes.into_iter().enumerate() {
            if self.edge.len() <= level {
                self.edge.push(Edge::default());
            }
            let Some(edge) = self.edge.get_mut(level) else { return };
            edge.hashes.push(node);
            if edge.hashes.len() == TILE_WIDTH {
                whole.push((level, edge.index, std::mem::take(&mut edge.hashes)));
                edge.index += 1;
            }
        }
    }

    /// Hands the next `wanted` records to `take`.
    fn frames(&mut self, wanted: u64, mut take: impl FnMut(&mut Self, &[u8])) -> Result<(), PublishError> {
        let mut taken = 0;
        let mut block = std::mem::take(&mut self.block);
        block.resize(BLOCK_BYTES, 0);
        while taken < wanted {
            let path = self.segment(self.place.segment);
            let error = |error| PublishError::File { file: path.clone(), error };
            let mut file = File::open(&path).map_err(error)?;
            file.seek(SeekFrom::Start(self.place.offset)).map_err(error)?;
            let (mut start, mut filled) = (0, 0);
            while taken < wanted {
                let bytes = block.get(start..filled).unwrap_or_default();
                let read = if self.place.offset == 0 {
                    frame::header(bytes).map(|header| (header.bytes, None))
                } else {
                    frame::frame(bytes)
                        .map(|frame| (frame.bytes, (frame.kind == Kind::Record).then_some(frame.payload)))
                };
                match read {
                    Ok((length, record)) => {
                        if let Some(record) = record {
                            take(self, record);
                            taken += 1;
                        }
                        start += length;
                        self.place.offset += length as u64;
                    }
                    Err(Unread::Short) => {
                        block.copy_within(start..filled, 0);
                        (start, filled) = (0, filled - start);
                        match file.read(block.get_mut(filled..).unwrap_or_default()).map_err(error)? {
                            0 => break,
                            more => filled += more,
                        }
                    }
                    Err(_) => {
                        return Err(self.unlike(format!(
                            "`{}` is damaged at byte {}",
                            path.display(),
                            self.place.offset
                        )));
                    }
                }
            }
            if taken < wanted {
                let next = self.next_segment(taken)?;
                self.place = Place { segment: next, offset: 0 };
            }
        }
        self.block = block;
        Ok(())
    }

    /// The segment after the one that was read to its end.
    fn next_segment(&self, taken: u64) -> Result<u64, PublishError> {
        let names = fs::read_dir(self.log.join("segments"))
            .map_err(|error| PublishError::File { file: self.log.join("segments"), error })?;
        let firsts = names.filter_map(|entry| first_of(entry.ok()?.file_name().to_str()?));
        let next = firsts.filter(|first| *first > self.place.segment).min();
        next.ok_or_else(|| self.unlike(format!("they end after {}", self.frontier.size().max(taken))))
    }

    fn unlike(&self, what: String) -> PublishError {
        PublishError::Records { folder: self.log.join("segments"), what }
    }

    fn segment(&self, first: u64) -> PathBuf {
        self.log.join("segments").join(format!("{first:020}.log"))
    }

    fn partial_paths(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for (level, edge) in self.edge.iter().enumerate().filter(|(_, edge)| !edge.hashes.is_empty()) {
            paths.push(tile_path(&level.to_string(), edge.index, edge.hashes.len()).into());
            if level == 0 {
                paths.push(tile_path(ENTRIES, edge.index, edge.hashes.len()).into());
            }
        }
        paths
    }

    /// Partial files of older checkpoints that lie about, where the last run can have left some.
    fn leftovers(&self, current: &[PathBuf]) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for (level, edge) in self.edge.iter().enumerate() {
            for index in edge.index.saturating_sub(1)..=edge.index {
                folders.push(format!("{}.p", tile_path(&level.to_string(), index, TILE_WIDTH)));
                if level == 0 {
                    folders.push(format!("{}.p", tile_path(ENTRIES, index, TILE_WIDTH)));
                }
            }
        }
        let inside = |folder: String| {
            let entries = fs::read_dir(self.log.join(&folder)).ok()?;
            Some(
                entries
                    .filter_map(|entry| Some(Path::new(&folder).join(entry.ok()?.file_name())))
                    .collect::<Vec<_>>(),
            )
        };
        let files = folders.into_iter().filter_map(inside).flatten();
        files.filter(|file| !current.contains(file)).collect()
    }

    fn write_partials(&self) -> Result<Vec<PathBuf>, PublishError> {
        for (level, edge) in self.edge.iter().enumerate().filter(|(_, edge)| !edge.hashes.is_empty()) {
            let path = tile_path(&level.to_string(), edge.index, edge.hashes.len());
            self.put(&path, edge.hashes.as_flattened(), false)?;
            if level == 0 {
                self.put(&tile_path(ENTRIES, edge.index, edge.hashes.len()), &self.bundle, false)?;
            }
        }
        Ok(self.partial_paths())
    }

    /// Removes the partial files that neither this checkpoint nor the one before needs.
    fn remove_replaced(&mut self, partials: Vec<PathBuf>) -> Result<(), PublishError> {
        let [current, before] = std::mem::take(&mut self.partials);
        if partials == current {
            self.partials = [current, before];
            return Ok(());
        }
        for path in before.into_iter().filter(|path| !partials.contains(path) && !current.contains(path)) {
            let file = self.log.join(&path);
            if_exists(fs::remove_file(&file))
                .map_err(|error| PublishError::File { file: file.clone(), error })?;
            // Only an empty folder goes, and it does not matter if it stays.
            let _ = file.parent().map(fs::remove_dir);
        }
        self.partials = [partials, current];
        Ok(())
    }

    /// Puts a file in place, whole or not at all, unless it is as it should be already.
    fn put(&self, path: &str, bytes: &[u8], durable: bool) -> Result<(), PublishError> {
        let file = self.log.join(path);
        let write = || {
            if if_exists(fs::read(&file))?.is_some_and(|found| found == bytes) {
                return Ok(());
            }
            let folder = file.parent().unwrap_or(&self.log);
            fs::create_dir_all(folder)?;
            let mut new = file.clone().into_os_string();
            new.push(".new");
            let mut written = File::create(&new)?;
            written.write_all(bytes)?;
            if durable {
                written.sync_data()?;
            }
            fs::rename(&new, &file)?;
            if durable { File::open(folder)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|error| PublishError::File { file: file.clone(), error })
    }
}

fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
