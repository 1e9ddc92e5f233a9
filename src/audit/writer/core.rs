//! What writes: the file, its chain and its tree, for whoever holds them.
//!
//! That is the writer's thread, or a caller whose record survives the process's death once it is written: to
//! hand it to the thread and to be woken by it costs more than the write. Nobody waits for the core but the
//! thread, so that no caller hangs behind a disk that does.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{
    Durability, NewRecord, Role, Tick, WriteError, WriterOptions, Written,
    heads::Heads,
    intents::Intents,
    queue::{Queue, Request, Room},
};
use crate::audit::{
    disk::{Disk, DiskFile as _, append_all},
    frame::{Chain, Kind, RECORD_BYTES_MAX},
    head::{HeadPayload, SignedHead},
    key::LogKey,
    recover::{Recovered, make_segment},
    segment::Header,
    tree::{Frontier, Hash, leaf_hash},
};

/// A buffer that one large group has blown up is not kept.
const BATCH_BYTES_KEPT: usize = 1 << 20;
pub(super) struct Core<D: Disk> {
    disk: Arc<D>,
    folder: PathBuf,
    key: LogKey,
    file: D::File,
    length: u64,
    first: u64,
    frontier: Frontier,
    chain: Chain,
    intents: Intents,
    /// How many records are known to be synced.
    synced: u64,
    /// How many records the newest head covers.
    headed: u64,
    /// Since when a record waits for its sync.
    unsynced_since: Option<Instant>,
    /// The head that the next sync makes durable.
    pending: Option<SignedHead>,
    /// After an error nothing is tried again: a failed sync may have lost what it was to keep.
    poison: Option<Arc<io::Error>>,
    batch: Vec<u8>,
    options: WriterOptions,
    tick: Tick,
    ticked: Instant,
    room: Room,
    queue: Arc<Queue>,
    heads: Heads,
}

/// The way past the queue.
pub(super) trait Direct: Send + Sync {
    /// Writes a record at once; `None` where it has to wait for its turn in the queue.
    fn append(&self, record: &NewRecord, leaf: Hash) -> Option<Written>;
}

impl<D: Disk> Direct for Mutex<Core<D>> {
    fn append(&self, record: &NewRecord, leaf: Hash) -> Option<Written> {
        // The thread writes or syncs, or another caller writes; or one of them panicked, and the queue tells.
        self.try_lock().ok()?.append_directly(record, leaf)
    }
}

impl<D: Disk> Core<D> {
    pub(super) fn new(
        log: Recovered<D>,
        options: WriterOptions,
        tick: Tick,
        queue: Arc<Queue>,
        heads: Heads,
    ) -> Self {
        let mut intents = Intents::default();
        for intent in &log.open {
            intents.begin(intent.call, intent.index);
        }
        Self {
            disk: log.disk,
            folder: log.folder,
            chain: Chain::resume(log.key.tags().clone(), log.tag),
            key: log.key,
            file: log.file,
            length: log.length,
            first: log.first,
            frontier: log.frontier,
            intents,
            synced: 0,
            headed: log.head.as_ref().map_or(0, SignedHead::size),
            unsynced_since: None,
            pending: log.head,
            poison: None,
            batch: Vec::new(),
            ticked: options.clock.now(),
            options,
            tick,
            room: Room::Enough,
            queue,
            heads,
        }
    }

    /// What was read may be in no more than the page cache, and its end under no head.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        if self.headed < self.frontier.size() {
            self.put_head()?;
            self.append()?;
        }
        self.sync()?;
        self.look_at_disk();
        self.roll()
    }

    /// Writes a caller's record in the caller's own thread. `None` where it has to take its turn.
    ///
    /// The caller is in the disk's hands until the write returns, but it is the only one: whoever comes
    /// meanwhile goes to the queue, and waits there no longer than a disk may take.
    fn append_directly(&mut self, record: &NewRecord, leaf: Hash) -> Option<Written> {
        // A full segment is the thread's to end.
        if self.length >= self.options.segment_bytes || !self.queue.begin_direct(record) {
            return None;
        }
        let (index, sync_is_due) = (self.frontier.size(), self.unsynced_since.is_some());
        self.guarded(|core| {
            core.put_record(record, leaf);
            core.append()
        });
        let since = self.unsynced_since.filter(|_| !sync_is_due);
        self.queue.end_direct(since.map(|since| since + self.options.sync_after));
        Some(self.answer_to(index))
    }

    /// Signs and syncs what is not yet, unless the log failed.
    pub(super) fn end(&mut self) {
        self.guarded(Self::settle);
    }

    /// When the thread has something to do without being asked.
    pub(super) fn next_duty(&self) -> Instant {
        let tick = self.ticked + self.options.tick_every;
        self.unsynced_since.map_or(tick, |since| tick.min(since + self.options.sync_after))
    }

    pub(super) fn do_duties(&mut self) {
        if self.poison.is_some() {
            self.ticked = self.options.clock.now();
            return;
        }
        if self.options.clock.since(self.ticked) >= self.options.tick_every {
            self.ticked = self.options.clock.now();
            self.look_at_disk();
            if self.room == Room::Enough {
                let records = (self.tick)();
                self.write_own(records);
            }
        }
        if self.is_sync_due() {
            self.guarded(Self::settle);
        }
        if self.length >= self.options.segment_bytes {
            self.guarded(Self::roll);
        }
        if self.batch.capacity() > BATCH_BYTES_KEPT {
            self.batch = Vec::new();
        }
    }

    fn is_sync_due(&self) -> bool {
        self.unsynced_since.is_some_and(|since| self.options.clock.since(since) >= self.options.sync_after)
    }

    /// Writes a group, and tells who waits. Says how many others came meanwhile.
    pub(super) fn serve(&mut self, group: &mut Vec<Request>) -> usize {
        let first = self.frontier.size();
        let power = group.iter().any(|request| request.record.durability == Durability::Power);
        let sync = power || self.is_sync_due();
        self.guarded(|core| {
            for request in &*group {
                core.put_record(&request.record, request.leaf);
            }
            if sync {
                core.put_head()?;
            }
            core.append()
        });
        let mut gone = Vec::new();
        let numbered = |group: &mut Vec<Request>| {
            (first..)
                .zip(group.drain(..))
                .partition::<Vec<_>, _>(|(_, request)| request.record.durability == Durability::Process)
        };
        let (process, power) = numbered(group);
        // What survives the process's death is written: those who asked for no more need not wait for the sync.
        self.answer(process, &mut gone);
        if sync {
            self.guarded(Self::sync);
        }
        let came = self.queue.len(); // before those who are told now come back
        self.answer(power, &mut gone);
        self.write_own(gone);
        came
    }

    /// Tells who waits; collects the outcomes of intents that nobody waits for any longer.
    fn answer(&self, numbered: Vec<(u64, Request)>, gone: &mut Vec<NewRecord>) {
        for (index, request) in numbered {
            if let (Err(Ok(_)), Role::Intent { call, abandoned }) =
                (request.done.send(self.answer_to(index)), request.record.role)
            {
                // Its sync may wait: after a power loss, recovery finds the intent open and ends it.
                let (role, durability) = (Role::Outcome { call }, Durability::Process);
                match abandoned(&request.record.bytes) {
                    Ok(bytes) => gone.push(NewRecord { bytes, role, durability }),
                    Err(error) => {
                        tracing::error!(%error, index, "the next start ends what nobody waited for")
                    }
                }
            }
        }
    }

    fn answer_to(&self, index: u64) -> Written {
        self.poison.as_ref().map_or(Ok(index), |poison| Err(WriteError::Poisoned(Arc::clone(poison))))
    }

    /// Writes records that nobody waits for.
    fn write_own(&mut self, records: impl IntoIterator<Item = impl Into<NewRecord>>) {
        let mut records = records.into_iter().map(Into::into).peekable();
        if records.peek().is_none() {
            return;
        }
        self.guarded(|core| {
            for record in records {
                let bytes = record.bytes.len();
                if (1..=RECORD_BYTES_MAX).contains(&bytes) {
                    core.put_record(&record, leaf_hash(&record.bytes));
                } else {
                    tracing::error!(bytes, "a record of the log's own has no size that a record can have");
                }
            }
            core.append()
        });
    }

    /// Does nothing once anything failed.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.poison.is_some() {
            return;
        }
        if let Err(error) = work(self) {
            tracing::error!(log = self.key.origin(), %error, "the log failed; every call is refused from now on");
            let poison = Arc::new(error);
            self.queue.poison(&poison);
            self.poison = Some(poison);
            // Nothing of this is ever written.
            self.batch.clear();
            self.unsynced_since = None;
        }
    }

    fn put_record(&mut self, record: &NewRecord, leaf: Hash) {
        let index = self.frontier.size();
        match &record.role {
            Role::Plain => {}
            Role::Intent { call, .. } => self.intents.begin(*call, index),
            Role::Outcome { call } => self.intents.end(*call),
        }
        self.chain.append(&mut self.batch, Kind::Record, &record.bytes, &leaf);
        self.frontier.push(leaf);
    }

    fn put_head(&mut self) -> io::Result<()> {
        let size = self.frontier.size();
        let head = SignedHead::sign(&self.key, size, self.frontier.root())
            .ok_or_else(|| io::Error::other("the head cannot be signed"))?;
        let open = self.intents.oldest().unwrap_or(size);
        let payload = HeadPayload { synced: self.synced, open, note: head.note() }.encode();
        self.chain.append(&mut self.batch, Kind::Head, &payload, &leaf_hash(&payload));
        self.pending = Some(head);
        Ok(())
    }

    fn append(&mut self) -> io::Result<()> {
        append_all(&mut self.file, &self.batch)?;
        self.length += u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        self.batch.clear();
        self.unsynced_since.get_or_insert_with(|| self.options.clock.now());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = self.frontier.size();
        self.unsynced_since = None;
        if let Some(head) = self.pending.take() {
            self.headed = head.size();
            self.heads.set(head);
        }
        Ok(())
    }

    /// Signs and syncs what is not yet.
    fn settle(&mut self) -> io::Result<()> {
        if self.headed < self.frontier.size() {
            self.put_head()?;
            self.append()?;
        }
        if self.unsynced_since.is_some() { self.sync() } else { Ok(()) }
    }

    /// Goes on in a new segment where this one is full and ends with a head.
    fn roll(&mut self) -> io::Result<()> {
        let size = self.frontier.size();
        if self.length < self.options.segment_bytes || size == self.first {
            return Ok(());
        }
        // Records that nobody waits for may have come after the head.
        self.settle()?;
        let header = Header { frontier: self.frontier.clone(), tag: self.chain.tag() };
        let (file, _, length) = make_segment(&*self.disk, &self.folder, &header)?;
        (self.file, self.length, self.first) = (file, length, size);
        Ok(())
    }

    fn look_at_disk(&mut self) {
        let reserve = self.options.reserve_bytes;
        let room = match self.disk.free_bytes(&self.folder) {
            Ok(free) if free >= reserve => Room::Enough,
            Ok(free) if free >= reserve / 2 => Room::Low,
            Ok(_) => Room::None,
            Err(error) => {
                tracing::warn!(%error, "the disk does not tell how much of it is free");
                Room::Low
            }
        };
        if room != self.room {
            tracing::warn!(log = self.key.origin(), ?room, "the room on the log's disk has changed");
            self.room = room;
            self.queue.set_room(room);
        }
    }
}

impl From<Vec<u8>> for NewRecord {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, role: Role::Plain, durability: Durability::Process }
    }
}
