//! One log: its segments from the first byte to the last, and what is published of it.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use super::{
    Signatures, frame,
    note::{Checkpoint, Key},
    published::{self, read},
    report::{Damage, LogReport, Rule, Torn, VerifyError},
    runs::Runs,
    signatures::{self, BATCH, Batches, Found},
    tree::{Hash, empty_root},
    walk::{Claim, Place, Signed, Stop, Tile, Walk},
};

/// How much is read at a time, in bytes.
const BLOCK_BYTES: usize = 1 << 20;

/// A log and where it is.
pub(super) struct Log {
    /// The name of the log.
    pub(super) name: String,
    /// Its folder.
    pub(super) folder: PathBuf,
    /// The index of each segment's first record, and its file, in order.
    pub(super) segments: Vec<(u64, PathBuf)>,
    /// How long the segments are, in bytes.
    pub(super) bytes: u64,
}

/// What the verification of one log leaves to the comparison of all.
pub(super) struct Verified {
    /// What was found.
    pub(super) report: LogReport,
    /// Every head: its size and root.
    pub(super) heads: Vec<(u64, Hash)>,
    /// Other logs' heads on record.
    pub(super) claims: Vec<Claim>,
    /// The log's keys, under its own name.
    pub(super) keys: Arc<[Key]>,
    /// Whether the segments were read to their end.
    pub(super) whole: bool,
    /// There is no checkpoint, and the log by itself does not show that there was one.
    pub(super) lacks_checkpoint: bool,
}

impl Log {
    /// Lists a log's segments.
    pub(super) fn open(name: &str, folder: &Path) -> Result<Self, VerifyError> {
        let mut log =
            Self { name: name.to_owned(), folder: folder.to_owned(), segments: Vec::new(), bytes: 0 };
        let segments = folder.join("segments");
        let error = |error| VerifyError::Read(segments.clone(), error);
        let entries = match fs::read_dir(&segments) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(log),
            entries => entries.map_err(error)?,
        };
        for entry in entries {
            let entry = entry.map_err(error)?;
            let first = entry.file_name().to_str().and_then(|name| {
                let digits = name.strip_suffix(".log")?;
                (digits.len() == 20).then(|| digits.parse().ok())?
            });
            if let Some(first) = first {
                log.bytes += entry.metadata().map_err(error)?.len();
                log.segments.push((first, entry.path()));
            }
        }
        log.segments.sort();
        Ok(log)
    }

    /// Verifies the log; `progress` is told how many bytes and records were read of it.
    pub(super) fn verify(
        &self,
        keys: Arc<[Key]>,
        which: Signatures,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Verified, VerifyError> {
        let verified = self.read_through(Arc::clone(&keys), which, progress)?;
        let is_bad = |damage: &Damage| damage.rule == Rule::HeadSignature;
        if which == Signatures::Covering && verified.report.damage.iter().any(is_bad) {
            // What a covering signature does not prove is for those before it to say, record by record.
            return self.read_through(keys, Signatures::Every, progress);
        }
        Ok(verified)
    }

    fn read_through(
        &self,
        keys: Arc<[Key]>,
        which: Signatures,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Verified, VerifyError> {
        // Read before the segments: a log that grows meanwhile is then never shorter than its checkpoint.
        let checkpoint = self.read("checkpoint")?;
        let cosigned = self.read("cosignatures")?;
        let published = checkpoint.as_deref().and_then(|note| Checkpoint::parse(note).ok());
        // What nobody signed needs no tiles.
        let published = published.filter(|checkpoint| checkpoint.verify(&keys).is_ok());
        let published = published.map(|checkpoint| checkpoint.size);
        let (sender, receiver) = sync_channel(signatures::workers() + 2);
        let batches = Batches::new(receiver);
        let (walk, mut reading, found) = thread::scope(|scope| {
            let workers: Vec<_> =
                (0..signatures::workers()).map(|_| scope.spawn(|| batches.verify())).collect();
            let mut reading = Reading::new(self, published.unwrap_or(0), which, sender, progress);
            let mut walk = Walk::new(Arc::clone(&keys));
            walk.runs = checkpoint.is_none().then(Runs::default);
            let read = reading.segments(&mut walk);
            let Reading { report, whole, signatures, .. } = reading;
            drop(signatures);
            let found = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .fold(Found::default(), Found::and);
            read.map(|()| (walk, (report, whole), found))
        })?;
        let (report, whole) = (&mut reading.0, reading.1);
        report.heads = walk.heads.len() as u64;
        report.signatures = found.valid;
        report.published = published;
        report.records = walk.records();
        report.signed = walk.frontier.size();
        if let Some(signed) = found.first_bad() {
            report.signed = report.signed.min(signed.index);
            report.damage.push(self.damage_at(&signed));
        }
        // A witness cosigns what is published.
        let was_published = cosigned.is_some() || walk.runs.as_ref().is_some_and(Runs::have_published);
        let lacks_checkpoint = checkpoint.is_none() && !was_published;
        if checkpoint.is_none() && was_published {
            report.damage.extend(self.without_checkpoint(report.signed));
        }
        let beside = [("checkpoint", &checkpoint, true), ("cosignatures", &cosigned, false)];
        for (name, note, alone) in beside {
            let Some(note) = note else { continue };
            let known = Known { keys: &keys, walk: &walk, whole };
            if let Some((rule, index, until)) = known.judge(note, alone) {
                report.damage.push(self.damage(self.folder.join(name), 0, rule, index, until));
            }
        }
        if report.published.is_none() && walk.heads.is_empty() {
            self.name_key(report, checkpoint.as_deref(), &walk, &keys);
        }
        report.damage.sort_by_key(|damage| damage.index);
        let Walk { heads, claims, .. } = walk;
        Ok(Verified { report: reading.0, heads, claims, keys, whole, lacks_checkpoint })
    }

    /// Where nothing of the log is signed by a key that is given, that is one thing to say, and not several.
    fn name_key(&self, report: &mut LogReport, checkpoint: Option<&[u8]>, walk: &Walk, keys: &[Key]) {
        let published = checkpoint.and_then(|note| Checkpoint::parse(note).ok());
        let Some(other) = published.map_or_else(|| walk.other_key.clone(), |note| note.other_key(keys))
        else {
            return;
        };
        let follows = |rule: &Rule| {
            let known = [Rule::HeadForm, Rule::HeadSignature, Rule::CheckpointForm];
            known.contains(rule)
        };
        let first = report.damage.iter().find(|damage| follows(&damage.rule)).cloned();
        let Some(Damage { file, offset, .. }) = first else { return };
        report.damage.retain(|damage| !follows(&damage.rule));
        report.damage.push(self.damage(file, offset, Rule::OtherKey(other), 0, None));
    }

    /// Says that there is no checkpoint, unless there is one by now.
    pub(super) fn without_checkpoint(&self, signed: u64) -> Option<Damage> {
        let file = self.folder.join("checkpoint");
        let is_missing = fs::symlink_metadata(&file).is_err();
        is_missing.then(|| self.damage(file, 0, Rule::CheckpointMissing, signed, Some(signed)))
    }

    /// The file of the segment that begins at a record.
    pub(super) fn segment(&self, first: u64) -> PathBuf {
        self.folder.join("segments").join(format!("{first:020}.log"))
    }

    fn damage_at(&self, signed: &Signed) -> Damage {
        let file = self.segment(signed.segment);
        self.damage(file, signed.offset, Rule::HeadSignature, signed.index, Some(signed.until))
    }

    /// Something wrong in this log.
    pub(super) fn damage(
        &self,
        file: PathBuf,
        offset: u64,
        rule: Rule,
        index: u64,
        until: Option<u64>,
    ) -> Damage {
        Damage { log: self.name.clone(), file, offset, index, until, rule }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, VerifyError> {
        let file = self.folder.join(name);
        read(&file).map_err(|error| VerifyError::Read(file, error))
    }
}

/// What is known of a log when its published checkpoint is judged.
struct Known<'a> {
    keys: &'a [Key],
    walk: &'a Walk,
    whole: bool,
}

impl Known<'_> {
    /// What is wrong with a published note: the rule, and the records it is about.
    fn judge(&self, note: &[u8], alone: bool) -> Option<(Rule, u64, Option<u64>)> {
        let signed = self.walk.frontier.size();
        let form = Some((Rule::CheckpointForm, signed, Some(signed)));
        let Ok(checkpoint) = Checkpoint::parse(note) else { return form };
        let of_this_log = self.keys.iter().any(|key| key.name() == checkpoint.origin);
        if !of_this_log || checkpoint.verify(self.keys).is_err() || (alone && checkpoint.signatures() != 1) {
            return form;
        }
        if checkpoint.size > signed {
            // Where the segments are damaged, nothing is known of what comes after.
            return self
                .whole
                .then(|| (Rule::CheckpointBeyond, self.walk.records().min(checkpoint.size - 1), None));
        }
        match root_at(&self.walk.heads, checkpoint.size) {
            Some(root) if root == checkpoint.root => None,
            _ => Some((Rule::CheckpointTree, 0, Some(checkpoint.size))),
        }
    }
}

/// The root of a log's head of that size.
pub(super) fn root_at(heads: &[(u64, Hash)], size: u64) -> Option<Hash> {
    let at = heads.binary_search_by_key(&size, |(size, _)| *size);
    match at {
        Ok(at) => heads.get(at).map(|(_, root)| *root),
        Err(_) => (size == 0).then(empty_root),
    }
}

/// The reading of one log's segments.
struct Reading<'a> {
    log: &'a Log,
    published: u64,
    which: Signatures,
    signatures: SyncSender<Vec<Signed>>,
    progress: &'a mut dyn FnMut(u64, u64),
    report: LogReport,
    whole: bool,
}

impl<'a> Reading<'a> {
    fn new(
        log: &'a Log,
        published: u64,
        which: Signatures,
        signatures: SyncSender<Vec<Signed>>,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        let report = LogReport { log: log.name.clone(), ..LogReport::default() };
        Self { log, published, which, signatures, progress, report, whole: false }
    }

    /// Reads all segments, or up to the first damage.
    fn segments(&mut self, walk: &mut Walk) -> Result<(), VerifyError> {
        let last = self.log.segments.len().wrapping_sub(1);
        let mut block = vec![0; BLOCK_BYTES];
        for (at, (first, file)) in self.log.segments.iter().enumerate() {
            let next = walk.records();
            if *first != next {
                let rule = if *first > next { Rule::SegmentMissing } else { Rule::HeaderLink };
                self.report.damage.push(self.log.damage(file.clone(), 0, rule, next, None));
                return self.settle(walk);
            }
            let going_on = self
                .segment(walk, *first, file, at == last, &mut block)
                .map_err(|error| VerifyError::Read(file.clone(), error))?;
            if !going_on {
                return self.settle(walk);
            }
        }
        self.whole = true;
        self.settle(walk)
    }

    /// Reads one segment; returns whether the next one can be read.
    fn segment(
        &mut self,
        walk: &mut Walk,
        first: u64,
        path: &Path,
        last: bool,
        block: &mut [u8],
    ) -> io::Result<bool> {
        // What is no file of bytes, such as a pipe or a link, holds none.
        let mut file: Box<dyn Read> = if fs::symlink_metadata(path)?.is_file() {
            Box::new(File::open(path)?)
        } else {
            Box::new(io::empty())
        };
        let (mut start, mut filled, mut offset, mut header) = (0, 0, 0_u64, true);
        loop {
            let bytes = block.get(start..filled).unwrap_or_default();
            let step =
                if header { walk.header(bytes) } else { walk.step(bytes, Place { segment: first, offset }) };
            match step {
                Ok(length) => {
                    header = false;
                    start += length;
                    offset += length as u64;
                    if !walk.tiles.is_empty() || walk.signatures.len() >= BATCH {
                        self.hand_out(walk, BATCH)?;
                    }
                }
                Err(Stop::Short) => {
                    block.copy_within(start..filled, 0);
                    filled -= start;
                    start = 0;
                    let read = file.read(block.get_mut(filled..).unwrap_or_default())?;
                    if read == 0 {
                        let rest = block.get(..filled).unwrap_or_default();
                        return Ok(self.end(walk, rest, (path, offset), last, header));
                    }
                    filled += read;
                    self.report.bytes += read as u64;
                    (self.progress)(self.report.bytes, walk.records());
                }
                Err(Stop::Fault(fault)) => {
                    let damage =
                        self.log.damage(path.to_owned(), offset, fault.rule, fault.index, fault.until);
                    self.report.damage.push(damage);
                    return Ok(false);
                }
                Err(Stop::WrongTree { size, root }) => {
                    let damage = self.blame(walk, (path, offset), size, root);
                    self.report.damage.push(damage);
                    return Ok(false);
                }
            }
        }
    }

    /// What the last bytes of a segment are, which are not a whole frame; returns whether the next can be read.
    fn end(
        &mut self,
        walk: &mut Walk,
        rest: &[u8],
        (path, offset): (&Path, u64),
        last: bool,
        header: bool,
    ) -> bool {
        let cut = header || !rest.is_empty();
        let rule = if !last && !cut && walk.pending.is_empty() {
            if self.which == Signatures::Covering {
                self.send(walk, 1);
            }
            return true;
        } else if last && (!cut || !frame::any_frame(rest)) {
            if cut {
                self.report.torn = Some(Torn { file: path.to_owned(), offset, bytes: rest.len() as u64 });
            }
            return true;
        } else if cut {
            Rule::CutShort
        } else {
            Rule::SegmentEnd
        };
        let index = walk.records();
        self.report.damage.push(self.log.damage(path.to_owned(), offset, rule, index, Some(index + 1)));
        false
    }

    /// Sends signatures off once there are `batch` of them, and compares the tiles that are whole.
    fn hand_out(&mut self, walk: &mut Walk, batch: usize) -> io::Result<()> {
        while let Some(tile) = walk.tiles.pop_front() {
            self.tile(&tile)?;
        }
        self.send(walk, batch);
        Ok(())
    }

    fn send(&mut self, walk: &mut Walk, batch: usize) {
        if self.which == Signatures::Covering {
            // A later head of the segment covers what the ones before it do.
            walk.signatures.drain(..walk.signatures.len().saturating_sub(1));
        }
        if walk.signatures.len() >= batch && !walk.signatures.is_empty() {
            // The workers take them until this end is gone.
            let _ = self.signatures.send(std::mem::take(&mut walk.signatures));
        }
    }

    /// Does what is still to be done after the last frame that could be read.
    fn settle(&mut self, walk: &mut Walk) -> Result<(), VerifyError> {
        let error = |error| VerifyError::Read(self.log.folder.join("tile"), error);
        self.hand_out(walk, 1).map_err(error)?;
        for (level, edge) in (0..).zip(&walk.edge) {
            if !edge.hashes.is_empty() {
                let tile = Tile { level, index: edge.index, hashes: edge.hashes.clone() };
                let error = |error| VerifyError::Read(self.log.folder.join("tile"), error);
                self.tile(&tile).map_err(error)?;
            }
        }
        Ok(())
    }

    fn tile(&mut self, tile: &Tile) -> io::Result<()> {
        published::check(&self.log.name, &self.log.folder, self.published, tile, &mut self.report.damage)
    }

    /// Finds the record that keeps a head from fitting. The tiles know the leaf hashes the head was signed for,
    /// and need no trust: only the right ones lead to the root that was signed.
    fn blame(&self, walk: &mut Walk, (path, offset): (&Path, u64), size: u64, root: Hash) -> Damage {
        let (covered, records) = (walk.frontier.size(), walk.records());
        let damage =
            |offset, rule, index, until| self.log.damage(path.to_owned(), offset, rule, index, Some(until));
        let signed = walk.signatures.pop();
        if !signed.is_some_and(|signed| signatures::is_valid(&signed)) {
            return damage(offset, Rule::HeadSignature, covered, records.max(covered + 1));
        }
        let somewhere = damage(offset, Rule::HeadTree, covered, size.max(records).max(covered + 1));
        let Some(leaves) = published::leaves(&self.log.folder, covered, size.max(covered)) else {
            return somewhere;
        };
        let mut frontier = walk.frontier.clone();
        leaves.iter().for_each(|leaf| frontier.push(*leaf, |_, _| ()));
        if frontier.root() != root {
            return somewhere;
        }
        let differs = |(leaf, (found, _)): (&Hash, &(Hash, u64))| leaf != found;
        let same = leaves.iter().zip(&walk.pending).take_while(|pair| !differs(*pair)).count();
        let offset = walk.pending.get(same).map_or(offset, |(_, offset)| *offset);
        damage(offset, Rule::HeadTree, covered + same as u64, covered + same as u64 + 1)
    }
}
