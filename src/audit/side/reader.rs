//! The half that any process may use: to get, to erase, to prune, to look for damage.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use super::{
    Bounds, Kind, Salt, SideError, SideKey,
    format::{ENTRY_HEAD_BYTES, ERASED_BYTES, EntryHead, FILE_HEAD_BYTES, FileHead, SegmentKey},
    writer::FILE_BYTES_MAX,
};

/// The side store of a log, for any process that has its key.
#[derive(Debug)]
pub struct SideReader {
    folder: PathBuf,
    origin: String,
    key: SideKey,
}

/// What the store holds of a call.
#[derive(Debug, Default)]
pub struct Found {
    /// The call's salts; more than one only where more were put.
    pub salts: Vec<Salt>,
    /// Its bodies, oldest first.
    pub bodies: Vec<Body>,
    /// What was erased of it.
    pub erased: Vec<Erasure>,
    /// What is damaged: of this call, or of nobody knows whom.
    pub damaged: Vec<Damage>,
}

/// A body that was put under a call.
#[derive(Debug, Eq, PartialEq)]
pub struct Body {
    /// The body of what.
    pub kind: Kind,
    /// JSON, as it was put.
    pub bytes: Vec<u8>,
    /// When it was put, in Unix milliseconds.
    pub put_ms: u64,
    /// The index of the call's outcome record, where it was known by then.
    pub record: Option<u64>,
}

/// An entry that was erased.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Erasure {
    /// The body of what; `None`: the salt.
    pub kind: Option<Kind>,
    /// When, in Unix milliseconds.
    pub erased_ms: u64,
}

/// Bytes that are not as they were written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{}` is damaged at byte {offset}: {what}", path.display())]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub what: &'static str,
}

/// What to erase of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Erase {
    /// The bodies. The salt stays: who guesses a body can still check the guess against its digest.
    Bodies,
    /// The bodies and the salt: its digests can never be checked again.
    Everything,
}

/// What an erasure did.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Erased {
    /// Entries that were erased now.
    pub entries: u64,
    /// Entries that had been erased before.
    pub before: u64,
    /// Places that cannot be read. An entry of the call could lie there.
    pub damaged: Vec<Damage>,
}

/// What pruning removed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pruned {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl SideReader {
    /// Reads the store in a log's folder `side`. A folder that is missing is a store without entries.
    #[must_use]
    pub fn new(folder: &Path, origin: &str, key: SideKey) -> Self {
        Self { folder: folder.to_owned(), origin: origin.to_owned(), key }
    }

    /// What the store holds of a call.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn get(&self, call: u128) -> Result<Found, SideError> {
        let mut found = Found::default();
        self.each(&mut |file, seen| {
            match seen {
                Seen::Entry { offset, head, sealed } if head.call == call => {
                    found.add(file, offset, &head, sealed)?;
                }
                Seen::Entry { .. } => {}
                Seen::Damage(damage) => found.damaged.push(damage),
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Overwrites what the store holds of a call, and syncs. What the log's writer has not written
    /// yet, and what is put under the call later, is not touched.
    ///
    /// # Errors
    /// When a file cannot be read or written. Then part of it may be erased: erasing again is harmless.
    pub fn erase(&self, call: u128, what: Erase, now_ms: u64) -> Result<Erased, SideError> {
        let mut erased = Erased::default();
        self.each(&mut |file, seen| {
            match seen {
                Seen::Entry { offset, head, .. } if head.call == call => {
                    if what == Erase::Everything || head.held.is_some() {
                        // An erasure that a power loss tore is finished by the next one.
                        overwrite(file.path, offset, &head, head.erased_ms.unwrap_or_else(|| now_ms.max(1)))?;
                        *(if head.erased_ms.is_some() { &mut erased.before } else { &mut erased.entries }) +=
                            1;
                    }
                }
                Seen::Entry { .. } => {}
                Seen::Damage(damage) => erased.damaged.push(damage),
            }
            Ok(())
        })?;
        Ok(erased)
    }

    /// Removes whole files that are too old or too many, for a log that no process writes. The newest
    /// file is left while a process could still be writing to it.
    ///
    /// # Errors
    /// When the folder cannot be read, or a file cannot be removed.
    pub fn prune(&self, bounds: Bounds, now_ms: u64) -> Result<Pruned, SideError> {
        let mut files = side_files(&self.folder)?;
        let age_max = u64::try_from(bounds.age_max.as_millis()).unwrap_or(u64::MAX);
        let mut pruned = Pruned::default();
        while let Some(first) = files.first() {
            let age = now_ms.saturating_sub(first.began_ms);
            let total: u64 = files.iter().map(|file| file.bytes).sum();
            let too_many = files.len() > 1 && total > bounds.bytes_max;
            if age < age_max && !too_many {
                break;
            }
            fs::remove_file(&first.path)
                .map_err(|source| SideError::Io { path: first.path.clone(), source })?;
            pruned.files += 1;
            pruned.bytes += first.bytes;
            files.remove(0);
        }
        Ok(pruned)
    }

    /// Looks at every entry of the store, and names those that are damaged.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn check(&self) -> Result<Vec<Damage>, SideError> {
        let mut all = Found::default();
        self.each(&mut |file, seen| {
            match seen {
                Seen::Entry { offset, head, sealed } => all.add(file, offset, &head, sealed)?,
                Seen::Damage(damage) => all.damaged.push(damage),
            }
            // Only the damage is kept.
            (all.salts, all.bodies, all.erased) = Default::default();
            Ok(())
        })?;
        Ok(all.damaged)
    }

    fn each(
        &self,
        visit: &mut dyn FnMut(&Opened<'_>, Seen<'_>) -> Result<(), SideError>,
    ) -> Result<(), SideError> {
        for file in side_files(&self.folder)? {
            let path = file.path.as_path();
            let bytes = match read(path) {
                // It has been pruned since the folder was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                bytes => bytes.map_err(|source| SideError::Io { path: path.to_owned(), source })?,
            };
            let mut opened = Opened { path, key: None };
            match FileHead::decode(&bytes) {
                // A file that was just begun, or was as its process died.
                None if bytes.len() < FILE_HEAD_BYTES => continue,
                // No entry of it can be decrypted, but entries can still be found, and erased.
                None => visit(&opened, Seen::Damage(opened.damage(0, "it does not begin as a side file")))?,
                Some(head) if head.key_id != self.key.id() => {
                    visit(&opened, Seen::Damage(opened.damage(0, "it is under another key")))?;
                }
                Some(head) => opened.key = self.key.segment(&self.origin, &head.salt),
            }
            walk(&opened, &bytes, visit)?;
        }
        Ok(())
    }
}

impl Found {
    fn add(
        &mut self,
        file: &Opened<'_>,
        offset: usize,
        head: &EntryHead,
        sealed: &[u8],
    ) -> Result<(), SideError> {
        if let Some(erased_ms) = head.erased_ms {
            self.erased.push(Erasure { kind: head.held, erased_ms });
            return Ok(());
        }
        // A file that cannot be opened as a whole has been named already.
        let Some(key) = &file.key else { return Ok(()) };
        let content = match key.open(head, sealed) {
            Some(content) => content,
            // Another process may have erased it while it was read.
            None => match erased_since(file.path, offset)? {
                Some(erased_ms) => {
                    self.erased.push(Erasure { kind: head.held, erased_ms });
                    return Ok(());
                }
                None => {
                    self.damaged.push(file.damage(offset, "an entry is not as it was sealed"));
                    return Ok(());
                }
            },
        };
        match (head.held, <[u8; 32]>::try_from(content.as_slice())) {
            (Some(kind), _) => {
                let body = Body { kind, bytes: content, put_ms: head.put_ms, record: head.record };
                self.bodies.push(body);
            }
            (None, Ok(salt)) => self.salts.push(Salt::from_bytes(salt)),
            (None, Err(_)) => {}
        }
        Ok(())
    }
}

/// A file of a side store, by its name and header.
#[derive(Clone, Debug)]
pub(super) struct SideFile {
    pub(super) number: u64,
    pub(super) began_ms: u64,
    pub(super) bytes: u64,
    pub(super) path: PathBuf,
}

/// The files of a side store, oldest first.
pub(super) fn side_files(folder: &Path) -> Result<Vec<SideFile>, SideError> {
    let failed = |source| SideError::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".side"));
        let Some(number) = number.filter(|digits| digits.len() == 20).and_then(|digits| digits.parse().ok())
        else {
            continue;
        };
        let path = entry.path();
        match describe(number, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => files.push(file.map_err(|source| SideError::Io { path, source })?),
        }
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

fn describe(number: u64, path: &Path) -> io::Result<SideFile> {
    let mut head = Vec::with_capacity(FILE_HEAD_BYTES);
    let file = File::open(path)?;
    let meta = file.metadata()?;
    file.take(u64::try_from(FILE_HEAD_BYTES).unwrap_or(u64::MAX)).read_to_end(&mut head)?;
    let began_ms = match FileHead::decode(&head) {
        Some(head) => head.began_ms,
        // Its age still counts: by the time that it was last written.
        None => meta
            .modified()?
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
    };
    Ok(SideFile { number, began_ms, bytes: meta.len(), path: path.to_owned() })
}

struct Opened<'a> {
    path: &'a Path,
    key: Option<SegmentKey>,
}

impl Opened<'_> {
    fn damage(&self, offset: usize, what: &'static str) -> Damage {
        Damage { path: self.path.to_owned(), offset: u64::try_from(offset).unwrap_or(u64::MAX), what }
    }
}

enum Seen<'a> {
    Entry { offset: usize, head: EntryHead, sealed: &'a [u8] },
    Damage(Damage),
}

/// Goes through the entries of a file. Where a header is damaged, it goes on at the next that is not,
/// so that damage hides no other entry.
fn walk(
    file: &Opened<'_>,
    bytes: &[u8],
    visit: &mut dyn FnMut(&Opened<'_>, Seen<'_>) -> Result<(), SideError>,
) -> Result<(), SideError> {
    let mut offset = FILE_HEAD_BYTES;
    let mut lost = false;
    while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
        let entry = EntryHead::decode(rest).and_then(|head| {
            let sealed = rest.get(ENTRY_HEAD_BYTES + ERASED_BYTES..head.entry_bytes())?;
            Some((head, sealed))
        });
        match entry {
            Some((head, sealed)) => {
                lost = false;
                let next = offset + head.entry_bytes();
                visit(file, Seen::Entry { offset, head, sealed })?;
                offset = next;
            }
            None => {
                // An entry that is not whole yet, or was not as its process died, is no damage.
                if !lost && !unfinished(rest) {
                    visit(file, Seen::Damage(file.damage(offset, "no entry begins here")))?;
                }
                lost = true;
                offset += 1;
            }
        }
    }
    Ok(())
}

/// Whether a file ends within the entry that begins here.
fn unfinished(rest: &[u8]) -> bool {
    rest.len() < ENTRY_HEAD_BYTES + ERASED_BYTES
        || EntryHead::decode(rest).is_some_and(|head| rest.len() < head.entry_bytes())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One entry may stand alone in a file of a small store; nothing honest is twice as large.
    File::open(path)?.take(2 * FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Marks an entry as erased and zeroes its content, on the disk.
fn overwrite(path: &Path, offset: usize, head: &EntryHead, erased_ms: u64) -> Result<(), SideError> {
    let write = || {
        let mut bytes = erased_ms.to_le_bytes().to_vec();
        bytes.resize(ERASED_BYTES + head.sealed_bytes, 0);
        let mut file = fs::OpenOptions::new().write(true).open(path)?;
        file.seek(SeekFrom::Start(u64::try_from(offset + ENTRY_HEAD_BYTES).unwrap_or(u64::MAX)))?;
        file.write_all(&bytes)?;
        file.sync_data()
    };
    match write() {
        // Pruned meanwhile: what was to be erased is gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| SideError::Io { path: path.to_owned(), source }),
    }
}

fn erased_since(path: &Path, offset: usize) -> Result<Option<u64>, SideError> {
    let read = || -> io::Result<Option<u64>> {
        let mut erased = [0; ERASED_BYTES];
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(u64::try_from(offset + ENTRY_HEAD_BYTES).unwrap_or(u64::MAX)))?;
        file.read_exact(&mut erased)?;
        Ok(Some(u64::from_le_bytes(erased)).filter(|at| *at != 0))
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map_err(|source| SideError::Io { path: path.to_owned(), source }),
    }
}
