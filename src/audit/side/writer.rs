//! The appending half: a bounded queue, and one thread that seals and writes.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::rand;

use super::{
    BODY_BYTES_MAX, Bounds, Content, PutError, STORE_BYTES_MIN, SideError, SideKey,
    format::{FileHead, SegmentKey, entry_bytes},
    reader::{SideFile, side_files},
};
use crate::store::private;

/// The side store of a log, as the process that writes the log holds it.
#[derive(Debug)]
pub struct SideStore {
    shared: Arc<Shared>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    body_bytes_max: usize,
}

/// How a store is doing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SideHealth {
    /// Entries that were taken and could not be written.
    pub lost: u64,
    /// Why the last write that failed did.
    pub failure: Option<String>,
}

/// Entries that may wait for the disk.
const QUEUE_ENTRIES_MAX: usize = 16_384;
/// Bytes that may wait for the disk.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// The thread gathers what comes within this time.
const GATHER: Duration = Duration::from_millis(2);
/// For so long after something came it looks by itself: to wake a thread costs a call more than to put.
const BUSY: Duration = Duration::from_secs(1);
/// No file grows beyond this; small stores have smaller files.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;
/// How long nothing is written after a write that failed.
const BACK_OFF: Duration = Duration::from_secs(1);

impl SideStore {
    /// Opens the store in a log's folder `side`, for appending. `next_record` is the index that the log's
    /// next record will have. The caller holds the log's lock.
    ///
    /// # Errors
    /// When the folder cannot be used, or the bounds leave no room.
    pub fn open(
        folder: &Path,
        origin: &str,
        key: SideKey,
        bounds: Bounds,
        next_record: u64,
    ) -> Result<Self, SideError> {
        if bounds.bytes_max < STORE_BYTES_MIN {
            return Err(SideError::TooSmall { bytes_max: bounds.bytes_max });
        }
        make_folder(folder).map_err(|source| SideError::Io { path: folder.to_owned(), source })?;
        let files = side_files(folder)?;
        let shared = Arc::new(Shared::default());
        shared.lock().next_record = next_record;
        let mut appender = Appender {
            folder: folder.to_owned(),
            origin: origin.to_owned(),
            key,
            bounds,
            files,
            current: None,
            next_record,
        };
        appender.prune(now_ms());
        let ours = shared.clone();
        let thread = thread::Builder::new()
            .name("side store".into())
            .spawn(move || work(&ours, &mut appender))
            .map_err(SideError::Thread)?;
        let quarter = usize::try_from(bounds.bytes_max / 4).unwrap_or(usize::MAX);
        Ok(Self { shared, thread: Mutex::new(Some(thread)), body_bytes_max: quarter.min(BODY_BYTES_MAX) })
    }

    /// Puts entries under a call: all of them, or none. Returns before they are written.
    ///
    /// # Errors
    /// When a body is too large, or the disk does not keep up.
    pub fn put(&self, call: u128, record: Option<u64>, contents: Vec<Content>) -> Result<(), PutError> {
        let mut bytes = 0;
        for content in &contents {
            if let Content::Body(_, body) = content
                && body.len() > self.body_bytes_max
            {
                return Err(PutError::TooLarge { bytes: body.len(), bytes_max: self.body_bytes_max });
            }
            bytes += entry_bytes(content);
        }
        let put_ms = now_ms();
        let mut queue = self.shared.lock();
        if queue.closed {
            return Err(PutError::Closed);
        }
        if queue.waiting.len() + contents.len() > QUEUE_ENTRIES_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX {
            return Err(PutError::Full);
        }
        queue.bytes += bytes;
        queue.taken += u64::try_from(contents.len()).unwrap_or(u64::MAX);
        if let Some(record) = record {
            queue.next_record = queue.next_record.max(record.saturating_add(1));
        }
        queue.waiting.extend(contents.into_iter().map(|content| Put { call, record, put_ms, content }));
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.shared.work.notify_one();
        }
        Ok(())
    }

    /// Waits until all that was put before is in the files (not until it is synced), or given up.
    /// Answers whether it came to that in time.
    #[must_use]
    pub fn flush(&self, wait_max: Duration) -> bool {
        let mut queue = self.shared.lock();
        let (goal, until) = (queue.taken, Instant::now() + wait_max);
        while queue.done < goal {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.shared.done.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// How the store is doing.
    #[must_use]
    pub fn health(&self) -> SideHealth {
        self.shared.lock().health.clone()
    }

    /// Writes what waits, syncs it, and stops.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A thread that panicked has nothing left to say.
            let _ = thread.join();
        }
    }
}

impl Drop for SideStore {
    fn drop(&mut self) {
        self.close();
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Put>,
    bytes: usize,
    asleep: bool,
    closed: bool,
    taken: u64,
    done: u64,
    next_record: u64,
    health: SideHealth,
}

#[derive(Debug)]
struct Put {
    call: u128,
    record: Option<u64>,
    put_ms: u64,
    content: Content,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work, at most `tick`; then takes all there is. `None`: closed, and nothing is left.
    fn take(&self, tick: Duration, busy: bool) -> Option<(Vec<Put>, u64)> {
        let mut queue = self.lock();
        if queue.waiting.is_empty() && !queue.closed && !busy {
            queue.asleep = true;
            queue = self.work.wait_timeout(queue, tick).unwrap_or_else(PoisonError::into_inner).0;
            queue.asleep = false;
        }
        if !queue.closed && (busy || !queue.waiting.is_empty()) {
            drop(queue);
            thread::sleep(GATHER);
            queue = self.lock();
        }
        if queue.waiting.is_empty() && queue.closed {
            return None;
        }
        queue.bytes = 0;
        Some((std::mem::take(&mut queue.waiting), queue.next_record))
    }

    fn finished(&self, entries: u64, result: Result<(), SideError>) {
        let mut queue = self.lock();
        queue.done += entries;
        if let Err(error) = result {
            queue.health.lost += entries;
            queue.health.failure = Some(error.to_string());
        }
        drop(queue);
        self.done.notify_all();
    }
}

fn work(shared: &Shared, appender: &mut Appender) {
    let tick = (appender.bounds.age_max / 32).clamp(Duration::from_millis(10), Duration::from_secs(60));
    let mut busy_until = Instant::now();
    while let Some((puts, next_record)) = shared.take(tick, Instant::now() < busy_until) {
        appender.next_record = next_record;
        appender.prune(now_ms());
        if puts.is_empty() {
            continue;
        }
        busy_until = Instant::now() + BUSY;
        let entries = u64::try_from(puts.len()).unwrap_or(u64::MAX);
        let written = appender.write(&puts);
        let failed = written.is_err();
        shared.finished(entries, written);
        if failed && !shared.lock().closed {
            thread::sleep(BACK_OFF);
        }
    }
    if let Some(current) = &appender.current {
        let _ = current.file.sync_data(); // What is lost here was never promised.
    }
}

/// What the thread owns.
struct Appender {
    folder: PathBuf,
    origin: String,
    key: SideKey,
    bounds: Bounds,
    /// Oldest first; the current one is last.
    files: Vec<SideFile>,
    current: Option<Current>,
    next_record: u64,
}

struct Current {
    file: File,
    path: PathBuf,
    key: SegmentKey,
}

impl Appender {
    fn write(&mut self, puts: &[Put]) -> Result<(), SideError> {
        let mut bytes = Vec::new();
        for put in puts {
            let more = u64::try_from(entry_bytes(&put.content) + bytes.len()).unwrap_or(u64::MAX);
            if self.current.is_none() || self.current_bytes() + more > self.file_bytes_max() {
                self.append(&bytes)?;
                bytes.clear();
                self.begin()?;
            }
            if let Some(current) = &self.current {
                current.key.seal(&mut bytes, put.call, put.record, put.put_ms, &put.content)?;
            }
        }
        self.append(&bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SideError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.make_room(length);
        let Some(current) = &mut self.current else { return Ok(()) };
        if let Err(source) = current.file.write_all(bytes) {
            // The file may end within an entry now: the next put begins another.
            let path = current.path.clone();
            self.current = None;
            return Err(SideError::Io { path, source });
        }
        if let Some(last) = self.files.last_mut() {
            last.bytes += length;
        }
        Ok(())
    }

    /// Begins a file, under the next record's index, or the next free number after it.
    fn begin(&mut self) -> Result<(), SideError> {
        self.current = None;
        let number = self.files.last().map_or(0, |last| last.number + 1).max(self.next_record);
        let path = self.folder.join(format!("{number:020}.side"));
        let failed = |source| SideError::Io { path: path.clone(), source };
        let mut salt = [0; 32];
        rand::fill(&mut salt).map_err(|_| SideError::NoRandom)?;
        let head = FileHead { number, began_ms: now_ms(), key_id: self.key.id(), salt };
        let key = self.key.segment(&self.origin, &salt).ok_or(SideError::NoRandom)?;
        let encoded = head.encode();
        let bytes = u64::try_from(encoded.len()).unwrap_or(u64::MAX);
        self.make_room(bytes);
        let mut file =
            private(fs::OpenOptions::new().append(true).create_new(true)).open(&path).map_err(failed)?;
        self.files.push(SideFile { number, began_ms: head.began_ms, bytes, path: path.clone() });
        file.write_all(&encoded).map_err(failed)?;
        self.current = Some(Current { file, path, key });
        Ok(())
    }

    /// Drops the oldest files until this many bytes more are within the bound.
    fn make_room(&mut self, more: u64) {
        let keep = usize::from(self.current.is_some());
        while self.files.len() > keep
            && self.files.iter().map(|file| file.bytes).sum::<u64>() + more > self.bounds.bytes_max
        {
            remove(&self.files.remove(0));
        }
    }

    /// Drops files whose first entries are too old, and ends the current one in good time before it is.
    fn prune(&mut self, now: u64) {
        let age_max = u64::try_from(self.bounds.age_max.as_millis()).unwrap_or(u64::MAX);
        let age = |file: &SideFile| now.saturating_sub(file.began_ms);
        if self.files.last().is_some_and(|last| age(last) >= age_max / 16) {
            self.current = None;
        }
        let keep = usize::from(self.current.is_some());
        while self.files.len() > keep
            && self.files.first().is_some_and(|first| age(first) >= age_max * 15 / 16)
        {
            remove(&self.files.remove(0));
        }
        self.make_room(0);
    }

    fn current_bytes(&self) -> u64 {
        self.files.last().map_or(0, |last| last.bytes)
    }

    fn file_bytes_max(&self) -> u64 {
        FILE_BYTES_MAX.min(self.bounds.bytes_max / 8)
    }
}

fn remove(file: &SideFile) {
    // One that cannot be removed is found and tried again when the store is next opened or pruned.
    let _ = fs::remove_file(&file.path);
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
