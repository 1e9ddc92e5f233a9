use std::{
    fs::File,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::audit::{
    disk::{DiskFile, RealDisk},
    frame::{Frames, Kind},
    head::HeadPayload,
    key::PrivateKey,
    recover::{Claim, OpenIntent, Seen, recover},
    segment::Header,
    tree::{Frontier, leaf_hash},
};

/// The real disk, with every operation that writes counted; one of them may fail.
#[derive(Clone, Default)]
struct Counting {
    appends: Arc<AtomicUsize>,
    syncs: Arc<AtomicUsize>,
    steps: Arc<AtomicUsize>,
    fail_at: Arc<AtomicUsize>,
    free: Arc<Mutex<Option<u64>>>,
    slow: Arc<Mutex<Duration>>,
    slow_append: Arc<Mutex<Duration>>,
}

impl Counting {
    fn step(&self, counter: &AtomicUsize) -> io::Result<()> {
        counter.fetch_add(1, Ordering::SeqCst);
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        if step == self.fail_at.load(Ordering::SeqCst) { Err(io::Error::other("no space")) } else { Ok(()) }
    }

    fn fail_next(&self, after: usize) {
        self.fail_at.store(self.steps.load(Ordering::SeqCst) + after, Ordering::SeqCst);
    }

    fn counts(&self) -> (usize, usize) {
        (self.appends.load(Ordering::SeqCst), self.syncs.load(Ordering::SeqCst))
    }
}

struct CountingFile(File, Counting);

impl Disk for Counting {
    type File = CountingFile;
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(folder)
    }
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.make_folder(folder)
    }
    fn open(&self, path: &Path) -> io::Result<CountingFile> {
        Ok(CountingFile(RealDisk.open(path)?, self.clone()))
    }
    fn create(&self, path: &Path) -> io::Result<CountingFile> {
        Ok(CountingFile(RealDisk.create(path)?, self.clone()))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.sync_folder(folder)
    }
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        self.free.lock().unwrap().map_or_else(|| RealDisk.free_bytes(folder), Ok)
    }
}

impl DiskFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        DiskFile::len(&self.0)
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        DiskFile::read_at(&self.0, offset, into)
    }
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.step(&self.1.appends)?;
        std::thread::sleep(*self.1.slow_append.lock().unwrap());
        self.0.append(bytes)
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
    fn sync_data(&mut self) -> io::Result<()> {
        self.1.step(&self.1.syncs)?;
        std::thread::sleep(*self.1.slow.lock().unwrap());
        DiskFile::sync_data(&mut self.0)
    }
}

/// A test's record is `i7…` for the intent of call 7, `o7…` for its outcome, or anything else.
fn seen(record: &[u8]) -> Seen {
    let call = || u128::from(record[1] - b'0');
    match record.first() {
        Some(b'i') => Seen::Intent(call()),
        Some(b'o') => Seen::Outcome(call()),
        _ => Seen::Plain,
    }
}

fn key() -> PrivateKey {
    PrivateKey::from_seed("base", [7; 32]).unwrap()
}

fn claimed(disk: &Counting, folder: &Path) -> Recovered<Counting> {
    let key = key().for_log("base/serve-0").unwrap();
    let claim = Claim { folder, key, known: &[], boot: "b", now_ms: 1 };
    recover(Arc::new(disk.clone()), claim, &seen).unwrap()
}

fn quiet() -> Tick {
    Box::new(Vec::new)
}

fn started(disk: &Counting, folder: &Path, options: WriterOptions) -> Writer {
    Writer::start(claimed(disk, folder), options, quiet()).unwrap()
}

fn plain(bytes: &[u8], durability: Durability) -> NewRecord {
    NewRecord { bytes: bytes.to_vec(), role: Role::Plain, durability }
}

fn intent(call: u128) -> NewRecord {
    let bytes = format!("i{call}").into();
    let abandoned = |intent: &[u8]| Ok([b"o", &intent[1..], b" abandoned"].concat());
    NewRecord { bytes, role: Role::Intent { call, abandoned }, durability: Durability::Power }
}

fn written(writer: &Writer, record: NewRecord) -> Written {
    match writer.append(record)? {
        Appended::Done(index) => Ok(index),
        Appended::Waiting(written) => written.blocking_recv().unwrap(),
    }
}

/// Hands over a record that is not written at once.
fn queued(writer: &Writer, record: NewRecord) -> oneshot::Receiver<Written> {
    match writer.append(record).unwrap() {
        Appended::Waiting(written) => written,
        Appended::Done(index) => panic!("written at {index}"),
    }
}

/// All segments' frames from the first on; panics where the log does not verify.
fn verified(folder: &Path) -> (Vec<Vec<u8>>, Vec<HeadAt>) {
    let log = key().for_log("base/serve-0").unwrap();
    let trusted = log.trusting(&[]).unwrap();
    let mut names = RealDisk.list(&folder.join("segments")).unwrap();
    names.sort();
    let (mut tree, mut tag, mut records, mut heads) = (Frontier::default(), [0; 16], Vec::new(), Vec::new());
    for name in names {
        let bytes = std::fs::read(folder.join("segments").join(name)).unwrap();
        let (header, at) = Header::read(&bytes).unwrap();
        assert_eq!((&header.frontier, header.tag), (&tree, tag));
        let mut frames = Frames::new(&bytes, at);
        for (_, frame) in frames.by_ref() {
            tag = frame.tag;
            match frame.kind {
                Kind::Record => {
                    tree.push(leaf_hash(frame.payload));
                    records.push(frame.payload.to_vec());
                }
                Kind::Head => {
                    let payload = HeadPayload::read(frame.payload).unwrap();
                    let head = SignedHead::verify(payload.note, &trusted).unwrap();
                    assert_eq!((head.size(), *head.root()), (tree.size(), tree.root()));
                    heads.push(HeadAt { size: head.size(), synced: payload.synced, open: payload.open });
                }
            }
        }
        assert_eq!(frames.offset(), bytes.len());
    }
    (records, heads)
}

#[derive(Debug, Eq, PartialEq)]
struct HeadAt {
    size: u64,
    synced: u64,
    open: u64,
}

#[test]
fn a_group_is_indexed_in_order_and_synced_once() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let writer = started(&disk, folder.path(), WriterOptions::default());
    *disk.slow.lock().unwrap() = Duration::from_millis(50);
    let first = queued(&writer, plain(b"r0", Durability::Power));
    std::thread::sleep(Duration::from_millis(20));
    let before = disk.counts();
    // They arrive while the sync of the first one runs.
    let waiters: Vec<_> =
        (1..6).map(|n| queued(&writer, plain(format!("r{n}").as_bytes(), Durability::Power))).collect();
    assert_eq!(first.blocking_recv().unwrap().unwrap(), 0);
    let indexes: Vec<u64> =
        waiters.into_iter().map(|waiter| waiter.blocking_recv().unwrap().unwrap()).collect();
    assert_eq!(indexes, [1, 2, 3, 4, 5]);
    assert_eq!(disk.counts(), (before.0 + 1, before.1 + 1));
    assert_eq!(writer.head().unwrap().size(), 6);
    writer.close();
    let (records, heads) = verified(folder.path());
    assert_eq!(records, [b"r0", b"r1", b"r2", b"r3", b"r4", b"r5"]);
    assert_eq!(heads, [HeadAt { size: 1, synced: 0, open: 1 }, HeadAt { size: 6, synced: 1, open: 6 }]);
}

#[test]
fn a_record_of_process_durability_is_written_at_once_and_synced_within_50_ms() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let options = WriterOptions {
        sync_after: Duration::from_millis(200),
        tick_every: Duration::from_secs(3_600),
        ..WriterOptions::default()
    };
    let writer = started(&disk, folder.path(), options);
    std::thread::sleep(Duration::from_millis(50)); // The thread sleeps by now, for an hour.
    let before = disk.counts();
    assert!(matches!(writer.append(plain(b"r0", Durability::Process)), Ok(Appended::Done(0))));
    assert_eq!(disk.counts(), (before.0 + 1, before.1));
    assert!(writer.head().is_none());
    let head = writer.heads().wait_beyond(0, Duration::from_secs(10)).unwrap();
    assert_eq!(head.size(), 1);
    assert_eq!(disk.counts(), (before.0 + 2, before.1 + 1));
    assert!(writer.heads().wait_beyond(1, Duration::from_millis(1)).is_none());
}

#[test]
fn a_failed_write_or_sync_refuses_everything_after_it_without_another_try() {
    for failing in [1, 2] {
        let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
        let writer = started(&disk, folder.path(), WriterOptions::default());
        disk.fail_next(failing);
        assert!(matches!(written(&writer, plain(b"r", Durability::Power)), Err(WriteError::Poisoned(_))));
        let counts = disk.counts();
        for _ in 0..3 {
            let refused = writer.append(plain(b"r", Durability::Power)).unwrap_err();
            assert!(matches!(refused, WriteError::Poisoned(_)), "{refused}");
        }
        assert!(matches!(writer.health(), Health::Poisoned));
        assert!(writer.head().is_none());
        writer.close();
        assert_eq!(disk.counts(), counts);
    }
}

#[test]
fn a_write_that_fails_in_the_callers_own_thread_refuses_everything_after_it_too() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let writer = started(&disk, folder.path(), WriterOptions::default());
    assert!(matches!(writer.append(plain(b"r", Durability::Process)), Ok(Appended::Done(0))));
    disk.fail_next(1);
    assert!(matches!(writer.append(plain(b"r", Durability::Process)), Err(WriteError::Poisoned(_))));
    let counts = disk.counts();
    for durability in [Durability::Process, Durability::Power] {
        assert!(matches!(writer.append(plain(b"r", durability)), Err(WriteError::Poisoned(_))));
    }
    assert!(matches!(writer.health(), Health::Poisoned));
    writer.close();
    assert_eq!(disk.counts(), counts);
}

#[test]
fn a_record_waits_its_turn_behind_those_that_came_before() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let writer = started(&disk, folder.path(), WriterOptions::default());
    *disk.slow.lock().unwrap() = Duration::from_millis(200);
    let first = queued(&writer, plain(b"r0", Durability::Power));
    let second = queued(&writer, plain(b"r1", Durability::Process));
    std::thread::sleep(Duration::from_millis(50));
    let third = queued(&writer, plain(b"r2", Durability::Process));
    let indexes = [first, second, third].map(|waiter| waiter.blocking_recv().unwrap().unwrap());
    assert_eq!(indexes, [0, 1, 2]);
}

#[test]
fn a_write_that_hangs_holds_one_caller_and_refuses_the_others() {
    for somebody_waits in [false, true] {
        let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
        let options = WriterOptions { stalled_after: Duration::from_millis(200), ..WriterOptions::default() };
        let writer = started(&disk, folder.path(), options);
        *disk.slow_append.lock().unwrap() = Duration::from_millis(800);
        std::thread::scope(|scope| {
            let hung = scope.spawn(|| writer.append(plain(b"r", Durability::Process)));
            std::thread::sleep(Duration::from_millis(50));
            let waiting = somebody_waits.then(|| queued(&writer, plain(b"r", Durability::Process)));
            std::thread::sleep(Duration::from_millis(250));
            assert!(matches!(writer.health(), Health::Stalled));
            for durability in [Durability::Process, Durability::Power] {
                assert!(matches!(writer.append(plain(b"r", durability)), Err(WriteError::Stalled { .. })));
            }
            assert!(matches!(hung.join().unwrap(), Ok(Appended::Done(0))));
            *disk.slow_append.lock().unwrap() = Duration::ZERO;
            if let Some(waiting) = waiting {
                assert_eq!(waiting.blocking_recv().unwrap().unwrap(), 1);
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(matches!(writer.health(), Health::Ready));
    }
}

#[test]
fn callers_and_the_thread_write_one_log_that_verifies() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let options = WriterOptions {
        segment_bytes: 20_000,
        sync_after: Duration::from_millis(1),
        ..WriterOptions::default()
    };
    let writer = started(&disk, folder.path(), options);
    let mut told: Vec<(u64, Vec<u8>)> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|caller| {
                let writer = &writer;
                scope.spawn(move || {
                    let record = |n| {
                        let bytes = format!("r{caller} {n}").into_bytes();
                        let durability = if n % 16 == 0 { Durability::Power } else { Durability::Process };
                        (written(writer, plain(&bytes, durability)).unwrap(), bytes)
                    };
                    (0..500).map(record).collect::<Vec<_>>()
                })
            })
            .collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    writer.close();
    told.sort();
    let (records, heads) = verified(folder.path());
    assert_eq!(records, told.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>());
    assert_eq!(heads.last().unwrap().size, 2_000);
}

#[test]
fn an_abandoned_intent_gets_its_outcome_and_heads_tell_the_oldest_open_one() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let writer = started(&disk, folder.path(), WriterOptions::default());
    written(&writer, plain(b"r", Durability::Power)).unwrap();
    let kept = written(&writer, intent(1)).unwrap();
    drop(queued(&writer, intent(2)));
    let outcome =
        NewRecord { bytes: b"o1".to_vec(), role: Role::Outcome { call: 1 }, durability: Durability::Power };
    written(&writer, plain(b"r", Durability::Power)).unwrap();
    written(&writer, outcome).unwrap();
    writer.close();
    let (records, heads) = verified(folder.path());
    assert_eq!(records.iter().filter(|record| *record == b"o2 abandoned").count(), 1);
    assert_eq!(heads[1], HeadAt { size: 2, synced: 1, open: kept });
    assert_eq!(heads.last().unwrap().open, 6);
}

#[test]
fn intents_that_are_open_at_the_end_are_found_again() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let options = WriterOptions { segment_bytes: 1_000, ..WriterOptions::default() };
    let writer = started(&disk, folder.path(), options.clone());
    written(&writer, intent(1)).unwrap();
    written(&writer, intent(2)).unwrap();
    for _ in 0..20 {
        written(&writer, plain(&[b'r'; 100], Durability::Power)).unwrap();
    }
    let outcome = |call| NewRecord {
        bytes: format!("o{call}").into(),
        role: Role::Outcome { call },
        durability: Durability::Power,
    };
    written(&writer, outcome(1)).unwrap();
    drop(writer);
    let log = claimed(&disk, folder.path());
    assert_eq!(log.open, [OpenIntent { index: 1, call: 2, bytes: b"i2".to_vec() }]);
    let writer = Writer::start(log, options, quiet()).unwrap();
    written(&writer, plain(b"r", Durability::Power)).unwrap();
    assert_eq!(verified(folder.path()).1.last().unwrap().open, 1);
    written(&writer, outcome(2)).unwrap();
    drop(writer);
    assert!(claimed(&disk, folder.path()).open.is_empty());
}

#[test]
fn a_rolled_log_verifies_and_goes_on_over_several_segments() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let options = WriterOptions { segment_bytes: 4_096, ..WriterOptions::default() };
    for round in 0..4_u64 {
        let writer = started(&disk, folder.path(), options.clone());
        for n in 0..25 {
            let durability = if n % 3 == 0 { Durability::Process } else { Durability::Power };
            let index = written(&writer, plain(&[b'r'; 300], durability)).unwrap();
            assert_eq!(index, round * 25 + n);
        }
    }
    assert_eq!(verified(folder.path()).0.len(), 100);
    assert!(RealDisk.list(&folder.path().join("segments")).unwrap().len() > 5);
    assert_eq!(claimed(&disk, folder.path()).size(), 100);
}

#[test]
fn a_low_disk_refuses_new_work_and_lets_outcomes_pass_until_half() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let options = WriterOptions {
        reserve_bytes: 1_000,
        tick_every: Duration::from_millis(10),
        ..WriterOptions::default()
    };
    *disk.free.lock().unwrap() = Some(999);
    let writer = started(&disk, folder.path(), options);
    let outcome = || NewRecord {
        bytes: b"o1".to_vec(),
        role: Role::Outcome { call: 1 },
        durability: Durability::Power,
    };
    assert!(matches!(writer.append(intent(1)), Err(WriteError::DiskLow { reserve_bytes: 1_000 })));
    assert!(matches!(writer.append(plain(b"r", Durability::Process)), Err(WriteError::DiskLow { .. })));
    assert!(matches!(writer.health(), Health::DiskLow));
    written(&writer, outcome()).unwrap();
    written(&writer, NewRecord { durability: Durability::Process, ..outcome() }).unwrap();
    *disk.free.lock().unwrap() = Some(499);
    std::thread::sleep(Duration::from_millis(200));
    assert!(matches!(writer.append(outcome()), Err(WriteError::DiskLow { .. })));
    *disk.free.lock().unwrap() = Some(1_000);
    std::thread::sleep(Duration::from_millis(200));
    assert!(matches!(writer.health(), Health::Ready));
    written(&writer, intent(1)).unwrap();
}

#[test]
fn a_disk_that_hangs_and_a_full_queue_refuse_at_once() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let options =
        WriterOptions { stalled_after: Duration::from_millis(200), queue_max: 2, ..WriterOptions::default() };
    let writer = started(&disk, folder.path(), options);
    *disk.slow.lock().unwrap() = Duration::from_millis(600);
    let _first = queued(&writer, plain(b"r", Durability::Power));
    std::thread::sleep(Duration::from_millis(50));
    let _waiting: Vec<_> = (0..2).map(|_| queued(&writer, plain(b"r", Durability::Power))).collect();
    assert!(matches!(writer.append(plain(b"r", Durability::Power)), Err(WriteError::Busy)));
    std::thread::sleep(Duration::from_millis(250));
    assert!(matches!(writer.append(plain(b"r", Durability::Power)), Err(WriteError::Stalled { .. })));
    assert!(matches!(writer.health(), Health::Stalled));
}

#[test]
fn what_cannot_be_a_record_or_comes_after_the_end_is_refused() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let writer = started(&disk, folder.path(), WriterOptions::default());
    for bytes in [0, RECORD_BYTES_MAX + 1] {
        let refused = writer.append(plain(&vec![b'r'; bytes], Durability::Power)).unwrap_err();
        assert!(matches!(refused, WriteError::TooLarge { .. }), "{refused}");
    }
    written(&writer, plain(&vec![b'r'; RECORD_BYTES_MAX], Durability::Power)).unwrap();
    writer.close();
    for durability in [Durability::Process, Durability::Power] {
        assert!(matches!(writer.append(plain(b"r", durability)), Err(WriteError::Stopped)));
    }
    assert!(matches!(writer.health(), Health::Stopped));
    assert!(writer.heads().ended());
    assert_eq!(claimed(&disk, folder.path()).size(), 1);
}

#[test]
fn the_writers_own_records_are_written_and_signed() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let options = WriterOptions { tick_every: Duration::from_millis(10), ..WriterOptions::default() };
    let mut left = vec![b"summary".to_vec()];
    let writer =
        Writer::start(claimed(&disk, folder.path()), options, Box::new(move || std::mem::take(&mut left)))
            .unwrap();
    assert_eq!(writer.heads().wait_beyond(0, Duration::from_secs(10)).unwrap().size(), 1);
    writer.close();
    assert_eq!(verified(folder.path()).0, [b"summary"]);
}

#[test]
fn the_lock_is_held_until_the_thread_has_ended() {
    let (disk, folder) = (Counting::default(), tempfile::tempdir().unwrap());
    let lock = Arc::new(());
    let log = claimed(&disk, folder.path()).holding(Arc::clone(&lock));
    let writer = Writer::start(log, WriterOptions::default(), quiet()).unwrap();
    assert_eq!(Arc::strong_count(&lock), 2);
    writer.close();
    assert_eq!(Arc::strong_count(&lock), 1);
}
