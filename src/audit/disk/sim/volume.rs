//! What is on the simulated disk, and what of it would survive.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

/// A small generator (SplitMix64): the same numbers for the same seed, everywhere.
#[derive(Clone, Debug)]
pub(in crate::audit) struct Random(u64);

impl Random {
    pub(in crate::audit) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(in crate::audit) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below the bound, which is not 0.
    pub(in crate::audit) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(in crate::audit) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub(in crate::audit) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// What a power loss keeps or loses as one.
const SECTOR_BYTES: usize = 512;

#[derive(Default)]
struct Inode {
    /// What processes read.
    cached: Vec<u8>,
    /// What is on the disk.
    durable: Vec<u8>,
    /// Sectors whose cached bytes a sync would write.
    dirty: BTreeSet<usize>,
    /// The lengths since the last sync, oldest first.
    lengths: Vec<usize>,
    /// The last byte that ever stood at each offset.
    stale: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Change {
    Link { path: PathBuf, inode: usize },
    Folder { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
}

#[derive(Clone, Default)]
struct Names {
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, usize>,
}

/// Files and folders: as processes see them, and as they would be after a power loss.
#[derive(Default)]
pub(super) struct Volume {
    inodes: Vec<Inode>,
    cached: Names,
    durable: Names,
    /// Changes of names that no sync has covered yet, oldest first.
    pending: Vec<Change>,
}

impl Change {
    fn touches(&self, folder: &Path) -> bool {
        match self {
            Self::Link { path, .. } | Self::Folder { path } | Self::Remove { path } => {
                path.parent() == Some(folder)
            }
            Self::Rename { from, to } => from.parent() == Some(folder) || to.parent() == Some(folder),
        }
    }

    fn folder(&self) -> PathBuf {
        match self {
            Self::Link { path, .. }
            | Self::Folder { path }
            | Self::Remove { path }
            | Self::Rename { to: path, .. } => path.parent().map(Path::to_path_buf).unwrap_or_default(),
        }
    }
}

impl Names {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link { path, inode } => drop(self.files.insert(path.clone(), *inode)),
            Change::Folder { path } => drop(self.folders.insert(path.clone())),
            Change::Rename { from, to } => {
                if let Some(inode) = self.files.remove(from) {
                    self.files.insert(to.clone(), inode);
                }
            }
            Change::Remove { path } => drop(self.files.remove(path)),
        }
    }

    fn has_folder(&self, folder: &Path) -> bool {
        folder.parent().is_none() || self.folders.contains(folder)
    }

    /// Forgets what no path leads to.
    fn prune(&mut self) {
        let all = self.folders.clone();
        let reachable =
            |path: &Path| path.ancestors().skip(1).all(|up| up.parent().is_none() || all.contains(up));
        self.folders.retain(|folder| reachable(folder));
        self.files.retain(|file, _| reachable(file));
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Volume {
    fn change(&mut self, change: Change) {
        self.cached.apply(&change);
        self.pending.push(change);
    }

    pub(super) fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let names = self.cached.files.keys().chain(&self.cached.folders);
        let inside = names.filter(|path| path.parent() == Some(folder)).filter_map(|path| path.file_name());
        Ok(inside.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    pub(super) fn make_folder(&mut self, folder: &Path) -> io::Result<()> {
        let missing: Vec<PathBuf> =
            folder.ancestors().filter(|up| !self.cached.has_folder(up)).map(Path::to_path_buf).collect();
        for path in missing.into_iter().rev() {
            self.change(Change::Folder { path });
        }
        Ok(())
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<usize> {
        self.cached.files.get(path).copied().ok_or_else(missing)
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<usize> {
        if self.cached.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|folder| self.cached.has_folder(folder)) {
            return Err(missing());
        }
        let inode = self.inodes.len();
        self.inodes.push(Inode { lengths: vec![0], ..Inode::default() });
        self.change(Change::Link { path: path.into(), inode });
        Ok(inode)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.find(from)?;
        if !to.parent().is_some_and(|folder| self.cached.has_folder(folder)) {
            return Err(missing());
        }
        self.change(Change::Rename { from: from.into(), to: to.into() });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.change(Change::Remove { path: path.into() });
        Ok(())
    }

    pub(super) fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        if !self.cached.has_folder(folder) {
            return Err(missing());
        }
        let (done, pending) =
            std::mem::take(&mut self.pending).into_iter().partition(|change| change.touches(folder));
        self.pending = pending;
        for change in &done {
            self.durable.apply(change);
        }
        Ok(())
    }

    pub(super) fn len(&self, inode: usize) -> usize {
        self.inodes[inode].cached.len()
    }

    pub(super) fn read_at(&self, inode: usize, offset: usize, into: &mut [u8]) -> usize {
        let found = self.inodes[inode].cached.get(offset..).unwrap_or_default();
        let length = found.len().min(into.len());
        into[..length].copy_from_slice(&found[..length]);
        length
    }

    pub(super) fn append(&mut self, inode: usize, bytes: &[u8]) {
        let inode = &mut self.inodes[inode];
        if bytes.is_empty() {
            return;
        }
        let start = inode.cached.len();
        inode.cached.extend_from_slice(bytes);
        let end = inode.cached.len();
        inode.dirty.extend(start / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        inode.lengths.push(end);
        inode.stale.resize(inode.stale.len().max(end), 0);
        inode.stale[start..end].copy_from_slice(bytes);
    }

    pub(super) fn truncate(&mut self, inode: usize, length: usize) {
        let inode = &mut self.inodes[inode];
        inode.cached.resize(length, 0);
        inode.dirty.retain(|sector| sector * SECTOR_BYTES < length);
        inode.lengths.push(length);
    }

    pub(super) fn sync(&mut self, inode: usize) {
        self.inodes[inode].sync(|_| true);
    }

    /// Writes some of what a sync was to write, and forgets that the rest was not written.
    pub(super) fn sync_and_drop(&mut self, inode: usize, random: &mut Random) {
        let all = random.coin();
        self.inodes[inode].sync(|_| !all && random.coin());
    }

    pub(super) fn lose_power(&mut self, random: &mut Random) {
        let mut stopped = BTreeSet::new();
        let mut surviving = self.durable.clone();
        for change in std::mem::take(&mut self.pending) {
            // Of each folder's changes a prefix survives.
            let folder = change.folder();
            if stopped.contains(&folder) || random.one_in(3) {
                stopped.insert(folder);
            } else {
                surviving.apply(&change);
            }
        }
        surviving.prune();
        self.cached = surviving.clone();
        self.durable = surviving;
        for inode in &mut self.inodes {
            inode.lose_power(random);
        }
    }

    pub(super) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.cached
            .files
            .iter()
            .map(|(path, inode)| (path.clone(), self.inodes[*inode].cached.clone()))
            .collect()
    }

    pub(super) fn edit(&mut self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let Ok(inode) = self.find(path) else { return };
        let inode = &mut self.inodes[inode];
        edit(&mut inode.cached);
        inode.durable.clone_from(&inode.cached);
        inode.dirty.clear();
        inode.lengths = vec![inode.cached.len()];
    }
}

impl Inode {
    fn sync(&mut self, mut writes: impl FnMut(usize) -> bool) {
        self.durable.resize(self.cached.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            if writes(sector) {
                let end = ((sector + 1) * SECTOR_BYTES).min(self.cached.len());
                let range = sector * SECTOR_BYTES..end;
                self.durable[range.clone()].copy_from_slice(&self.cached[range]);
            }
        }
        self.lengths = vec![self.cached.len()];
    }

    fn lose_power(&mut self, random: &mut Random) {
        let length = self.surviving_length(random);
        let old = self.durable.len();
        let mut bytes = std::mem::take(&mut self.durable);
        bytes.resize(length, 0);
        if length > old {
            self.fill_hole(&mut bytes[old..], old, random);
        }
        // All, none, most, few, half of them.
        let (chances, inverse) = (1 << random.below(5), random.coin());
        for sector in std::mem::take(&mut self.dirty) {
            let range =
                sector * SECTOR_BYTES..((sector + 1) * SECTOR_BYTES).min(length).min(self.cached.len());
            if random.one_in(chances) != inverse && !range.is_empty() {
                bytes[range.clone()].copy_from_slice(&self.cached[range]);
            }
        }
        self.cached.clone_from(&bytes);
        self.durable = bytes;
        self.lengths = vec![length];
    }

    /// Any length that the file had since its last sync, or one between two of them.
    fn surviving_length(&self, random: &mut Random) -> usize {
        let at = random.below(self.lengths.len() as u64) as usize;
        let at = if random.coin() { self.lengths.len() - 1 } else { at };
        let (length, before) = (self.lengths[at], self.lengths[at.saturating_sub(1)]);
        if length > before && random.one_in(3) {
            return before + random.below((length - before) as u64 + 1) as usize;
        }
        length
    }

    fn fill_hole(&self, hole: &mut [u8], start: usize, random: &mut Random) {
        for (at, sector) in hole.chunks_mut(SECTOR_BYTES).enumerate() {
            match random.below(8) {
                0 => sector.fill_with(|| random.next() as u8),
                1 | 2 => {
                    let stale = self.stale.get(start + at * SECTOR_BYTES..).unwrap_or_default();
                    let length = stale.len().min(sector.len());
                    sector[..length].copy_from_slice(&stale[..length]);
                }
                _ => {}
            }
        }
    }
}
