//! A little world: callers, one log on a simulated disk, and the misfortunes of several processes in turn.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    damage::Damage,
    model::{End, Model, Part},
    seam::{self, Answer, Handed, Process, Start},
};
use crate::audit::disk::{
    Disk as _,
    sim::{Fault, Planted, Random, SimDisk},
};

/// Processes, one after the other, in one world.
const GENERATIONS_MAX: u64 = 5;
/// Groups that one process serves.
const GROUPS_MAX: u64 = 12;
/// A `Process` record is safe from a power loss after 50 ms, and what the test's own clock ticks take.
const SAFE_AFTER_NS: u64 = 50_000_000 + TICK_NS + 5_000_000;
/// How often the writer's clock ticks.
const TICK_NS: u64 = 10_000_000;
/// Of how many recovered logs one is verified from its files: it takes longer than all else.
const VERIFIED_ONE_IN: u64 = 16;
/// When a caller goes.
const CALLER_WAITS_NS: u64 = 5_000_000_000;

/// What one world saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) injected: BTreeMap<&'static str, u64>,
    pub(super) generations: u64,
    pub(super) acknowledged: u64,
    /// Written by the caller itself.
    pub(super) direct: u64,
    /// Faults that met such a write.
    pub(super) direct_faults: u64,
    pub(super) refused: u64,
    pub(super) recoveries: u64,
    pub(super) records: u64,
    pub(super) segments: u64,
    pub(super) abandoned: u64,
    pub(super) damaged: u64,
    pub(super) verified: u64,
}

impl Seen {
    pub(super) fn add(&mut self, other: &Self) {
        for (fault, count) in &other.injected {
            *self.injected.entry(fault).or_default() += count;
        }
        self.generations += other.generations;
        self.acknowledged += other.acknowledged;
        self.direct += other.direct;
        self.direct_faults += other.direct_faults;
        self.refused += other.refused;
        self.recoveries += other.recoveries;
        self.abandoned += other.abandoned;
        self.damaged += other.damaged;
        self.verified += other.verified;
        self.records = self.records.max(other.records);
        self.segments = self.segments.max(other.segments);
    }
}

/// Callers that wait, and the model: what a hanging disk has to reach.
#[derive(Default)]
struct Shared {
    model: Model,
    waiting: Vec<Waiting>,
}

struct Waiting {
    bytes: Vec<u8>,
    part: Part,
    power: bool,
    since_ns: u64,
    /// `None` once the caller has gone.
    handed: Option<Handed>,
}

pub(super) struct World {
    disk: SimDisk,
    random: Random,
    shared: Arc<Mutex<Shared>>,
    log: PathBuf,
    seen: Seen,
    next: u64,
    /// Calls whose intent is on record and that have not ended.
    open: Vec<u128>,
    /// How often a group is of `Process` records alone, in eighths.
    process_eighths: u64,
    failed: bool,
    ended: End,
    /// What is to happen in the first process, and at which operation.
    planned: Option<(u64, Fault)>,
}

impl World {
    pub(super) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let mut disk = SimDisk::new(seed);
        // The state folder is there and durable; everything in it is the log's to make.
        disk.make_state_folder();
        disk.plant(planted);
        let shared = Arc::<Mutex<Shared>>::default();
        let hook = Arc::clone(&shared);
        disk.on_hang(move |now_ns, hung_ns| lock(&hook).hang(now_ns, hung_ns));
        let process_eighths = random.below(8);
        Self {
            disk,
            random,
            shared,
            log: PathBuf::from("/state/audit/serve-0"),
            seen: Seen::default(),
            next: 0,
            open: Vec::new(),
            process_eighths,
            failed: false,
            ended: End::Process,
            planned: None,
        }
    }

    /// A world in which this happens in the first process, at this operation.
    pub(super) fn with_fault(seed: u64, at: u64, fault: Fault) -> Self {
        Self { planned: Some((at, fault)), ..Self::new(seed, None) }
    }

    /// Runs the world to its end.
    pub(super) fn run(mut self) -> Result<Seen, String> {
        let generations = 2 + self.random.below(GENERATIONS_MAX - 1);
        for _ in 0..generations {
            self.generation().map_err(|story| self.story(&story))?;
        }
        // The last start has a quiet disk, so that a world ends with a look at everything.
        self.disk = self.disk.restart();
        let Some(mut process) = self.start().map_err(|story| self.story(&story))? else {
            return Err(self.story("a start on a quiet disk failed"));
        };
        // Some records that no head covers.
        let group = (0..3).map(|_| self.record(Part::Plain, false)).collect();
        self.hand_over(&mut process, group).map_err(|story| self.story(&story))?;
        self.disk.crash();
        self.damage().map_err(|story| self.story(&story))?;
        self.seen.injected = self.disk.injected();
        self.seen.generations = generations;
        Ok(self.seen)
    }

    /// What somebody with an editor does to the log, and to be seen at the next start.
    fn damage(&mut self) -> Result<(), String> {
        if self.random.coin() {
            self.disk.lose_power();
        }
        self.disk = self.disk.restart();
        let segments = self.log.join("segments");
        let files = self.disk.files();
        let last = files.iter().rfind(|(path, _)| {
            path.parent() == Some(&segments) && path.extension().is_some_and(|end| end == "log")
        });
        let Some((path, bytes)) = last.cloned() else { return Err("a log without a segment".into()) };
        let Some(damage) = Damage::choose(&bytes, &mut self.random) else { return Ok(()) };
        // The newest head is published, as it is each second.
        if damage.needs_checkpoint() && self.publish_head(&damage.head_note(&bytes)).is_err() {
            return Err("a quiet disk cannot be written".into());
        }
        self.disk.edit(&path, |bytes| damage.apply(bytes));
        self.disk = self.disk.restart();
        self.seen.damaged += 1;
        match Start::recover(&self.disk, &self.log) {
            Ok(_) => Err(format!("{damage:?} of {} was not seen", path.display())),
            Err(error) if damage.is(&error) => Ok(()),
            Err(error) => Err(format!("{damage:?} of {} was taken for: {error}", path.display())),
        }
    }

    fn story(&self, what: &str) -> String {
        let trace = self.disk.trace();
        let trace = if trace.is_empty() { String::new() } else { format!("\n{trace}") };
        format!("{what}; {} operations{trace}", self.disk.operations())
    }

    /// One process: it starts, serves, and ends in some way.
    fn generation(&mut self) -> Result<(), String> {
        self.disk = self.disk.restart();
        let planned = self.planned.take();
        if let Some((at, fault)) = planned {
            self.disk.fault_after(at, fault);
        } else if self.random.one_in(3) {
            self.plan_fault(40);
        }
        let Some(mut process) = self.start()? else { return Ok(()) };
        if planned.is_none() && self.random.below(8) < 7 {
            self.plan_fault(120);
        }
        self.serve(&mut process)?;
        self.end(process)
    }

    fn plan_fault(&mut self, operations: u64) {
        let bound = 1 + self.random.below(operations);
        let millis = if self.random.coin() { 40 } else { 7_000 };
        let fault = match self.random.below(9) {
            0 => Fault::Crash,
            1 | 2 => Fault::PowerLoss,
            3 => Fault::Eio,
            4 => Fault::Enospc,
            5 => Fault::ShortWrite,
            6 => Fault::Hang { millis },
            7 => Fault::HangThenFail { millis },
            _ => Fault::SyncDrops,
        };
        self.disk.fault_after(self.random.below(bound), fault);
    }

    /// Starts a process on the log. `None` where the disk kept it from starting.
    fn start(&mut self) -> Result<Option<Process>, String> {
        let faults = self.disk.injected();
        let start = match Start::recover(&self.disk, &self.log) {
            Ok(start) => start,
            Err(_) if self.disk.injected() != faults => {
                // Whatever it was, the next start has to go well.
                self.note_death();
                return Ok(None);
            }
            Err(error) => return Err(format!("recovery refuses after {:?}: {error}", self.ended)),
        };
        if self.disk.injected() != faults && self.disk.is_dead() {
            self.note_death();
            return Ok(None);
        }
        self.seen.recoveries += 1;
        let content = {
            let mut shared = lock(&self.shared);
            let files = self.disk.files();
            let content = shared.model.read(&files, &self.log)?;
            shared.model.check(&content, self.ended)?;
            if self.random.one_in(VERIFIED_ONE_IN) {
                seam::verify(&files)?;
                self.seen.verified += 1;
            }
            content
        };
        if start.size() != content.records.len() as u64 {
            return Err(format!("recovery found {} records of {}", start.size(), content.records.len()));
        }
        let open = start.open();
        if open != content.open {
            return Err(format!("recovery found {open:?} unfinished, the log has {:?}", content.open));
        }
        self.seen.records = self.seen.records.max(content.records.len() as u64);
        self.seen.segments = self.seen.segments.max(content.segments);
        self.ended = End::Process;
        self.failed = false;
        self.open.clear();
        let (mut random, ticking) = (Random::new(self.random.next()), Arc::clone(&self.shared));
        let tick = move || {
            let count = random.below(3);
            (0..count).map(|_| lock(&ticking).own_record(random.next())).collect()
        };
        let Ok(mut process) = start.writer(&self.disk, Box::new(tick)) else {
            return self.disk_kept_from_starting(&faults).map(|()| None);
        };
        let mut group: Vec<_> = open.iter().map(|call| self.record(Part::Outcome(*call), true)).collect();
        group.push(self.record(Part::Plain, true));
        self.hand_over(&mut process, group)?;
        Ok(Some(process))
    }

    fn disk_kept_from_starting(&mut self, faults: &BTreeMap<&'static str, u64>) -> Result<(), String> {
        self.note_death();
        if self.disk.injected() == *faults { Err("the writer did not start".into()) } else { Ok(()) }
    }

    /// How the process ended, for the next look at the log.
    fn note_death(&mut self) {
        if self.disk.lost_power() {
            self.ended = End::Power { at_ns: self.disk.now_ns() };
        }
    }

    fn serve(&mut self, process: &mut Process) -> Result<(), String> {
        for _ in 0..1 + self.random.below(GROUPS_MAX) {
            let group = self.group();
            self.hand_over(process, group)?;
            if self.disk.is_dead() {
                break;
            }
            let mut pause = self.random.below(40) * 1_000_000;
            while pause > 0 && !self.disk.is_dead() {
                let nanos = pause.min(TICK_NS);
                self.disk.sleep_ns(nanos);
                let since_ns = self.disk.now_ns();
                process.tick();
                self.note_failure(process, since_ns);
                if self.random.one_in(8) {
                    let (bytes, part, power) = self.record(Part::Plain, false);
                    self.append(process, bytes, part, power, false)?;
                }
                pause -= nanos;
            }
            self.look(process)?;
            if self.random.one_in(4) && !self.disk.is_dead() {
                let _ = self.publish(process);
            }
        }
        Ok(())
    }

    /// Ends a process: by itself, by `kill -9`, or with the power.
    fn end(&mut self, mut process: Process) -> Result<(), String> {
        if !self.disk.is_dead() {
            match self.random.below(4) {
                0 => {
                    let since_ns = self.disk.now_ns();
                    process.close();
                    self.note_failure(&process, since_ns);
                    self.look(&process)?;
                    // A closed log has everything on the disk, unless it failed.
                    if self.random.coin() && !self.disk.is_dead() {
                        if !self.failed {
                            self.disk.sleep_ns(SAFE_AFTER_NS);
                        }
                        self.disk.lose_power();
                    }
                }
                1 | 2 => self.disk.lose_power(),
                _ => self.disk.crash(),
            }
        }
        self.note_death();
        match self.disk.violations().first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    /// Some records of some callers.
    fn group(&mut self) -> Vec<(Vec<u8>, Part, bool)> {
        let count = if self.random.one_in(12) { 40 } else { 1 + self.random.below(5) };
        let all_process = self.random.below(8) < self.process_eighths;
        (0..count)
            .map(|_| {
                let part = match self.random.below(4) {
                    0 => Part::Intent(u128::from(self.random.next()) << 64 | u128::from(self.random.next())),
                    1 if !self.open.is_empty() => {
                        let at = self.random.below(self.open.len() as u64) as usize;
                        Part::Outcome(self.open.swap_remove(at))
                    }
                    _ => Part::Plain,
                };
                let power = !all_process && self.random.coin();
                self.record(part, power)
            })
            .collect()
    }

    fn record(&mut self, part: Part, power: bool) -> (Vec<u8>, Part, bool) {
        self.next += 1;
        let size = match self.random.below(60) {
            0 => 4_000,
            1..=10 => 600,
            _ => self.random.below(100),
        };
        (seam::record(self.next, part, size as usize), part, power)
    }

    /// Hands records over, lets them be served, and takes the answers that come.
    fn hand_over(&mut self, process: &mut Process, group: Vec<(Vec<u8>, Part, bool)>) -> Result<(), String> {
        // Others hold the core in the meantime, or come and go.
        let busy = self.random.coin();
        for (bytes, part, power) in group {
            self.append(process, bytes, part, power, busy)?;
            if self.random.one_in(16) {
                process.take();
            }
        }
        let since_ns = self.disk.now_ns();
        process.tick();
        self.note_failure(process, since_ns);
        self.look(process)
    }

    fn append(
        &mut self,
        process: &Process,
        bytes: Vec<u8>,
        part: Part,
        power: bool,
        busy: bool,
    ) -> Result<(), String> {
        let since_ns = self.disk.now_ns();
        // Now and then a caller goes at once.
        let gone = self.random.one_in(40);
        {
            let model = &mut lock(&self.shared).model;
            model.hand_over(&bytes, part);
            if let Part::Intent(call) = part {
                model.allow(&seam::abandoned(&bytes), Part::Outcome(call));
                if gone {
                    model.gone.insert(call);
                }
            }
        }
        let faults = self.disk.injected();
        let handed = process.append(seam::new_record(bytes.clone(), part, power), busy);
        self.seen.direct_faults += u64::from(self.disk.injected() != faults);
        self.note_failure(process, since_ns);
        if let Handed::Written(index) = handed {
            self.seen.direct += 1;
            return self.acknowledge(index, &bytes, part, power);
        }
        let handed = (!gone).then_some(handed);
        lock(&self.shared).waiting.push(Waiting { bytes, part, power, since_ns, handed });
        Ok(())
    }

    /// Notes when the log failed: what was not yet safe from a power loss by then never will be.
    fn note_failure(&mut self, process: &Process, since_ns: u64) {
        if process.is_poisoned() && !self.failed {
            self.failed = true;
            lock(&self.shared).model.failed(since_ns);
        }
    }

    /// Takes every answer that has come, and the newest head.
    fn look(&mut self, process: &Process) -> Result<(), String> {
        let waiting = std::mem::take(&mut lock(&self.shared).waiting);
        for Waiting { bytes, part, power, handed, .. } in waiting {
            let Some(handed) = handed else {
                if let (Part::Intent(call), false, false) = (part, self.failed, self.disk.is_dead()) {
                    self.seen.abandoned += 1;
                    lock(&self.shared).model.given_up.insert(call);
                }
                continue;
            };
            match seam::answer(handed) {
                Answer::Written(index) => self.acknowledge(index, &bytes, part, power)?,
                Answer::Refused => self.seen.refused += 1,
                Answer::None if self.disk.is_dead() => {}
                Answer::None => return Err("a caller got no answer".into()),
            }
        }
        if let Some(head) = process.head() {
            lock(&self.shared).model.published(head.size(), *head.root())?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, index: u64, bytes: &[u8], part: Part, power: bool) -> Result<(), String> {
        self.seen.acknowledged += 1;
        let safe_ns = match (power, self.failed) {
            (true, _) => 0,
            (false, true) => u64::MAX,
            (false, false) => self.disk.now_ns() + SAFE_AFTER_NS,
        };
        if let Part::Intent(call) = part {
            self.open.push(call);
        }
        lock(&self.shared).model.acknowledged(index, bytes, safe_ns)
    }

    /// Publishes the newest head, as a file beside the segments.
    fn publish(&mut self, process: &Process) -> std::io::Result<()> {
        let Some(head) = process.head() else { return Ok(()) };
        self.publish_head(head.note())
    }

    fn publish_head(&self, note: &[u8]) -> std::io::Result<()> {
        let (new, path) = (self.log.join("checkpoint.new"), self.log.join("checkpoint"));
        let _ = self.disk.remove(&new);
        let mut file = self.disk.create(&new)?;
        crate::audit::disk::append_all(&mut file, note)?;
        crate::audit::disk::DiskFile::sync_data(&mut file)?;
        self.disk.rename(&new, &path)?;
        self.disk.sync_folder(&self.log)
    }
}

impl Shared {
    /// A record that the writer asks for.
    fn own_record(&mut self, number: u64) -> Vec<u8> {
        let bytes = seam::record(number, Part::Plain, 20);
        self.model.allow(&bytes, Part::Plain);
        bytes
    }

    /// Time passes while an operation hangs: callers go, and what was to be safe by now is not.
    fn hang(&mut self, now_ns: u64, hung_ns: u64) {
        self.model.hung(now_ns - hung_ns, hung_ns);
        for Waiting { handed, part, since_ns, .. } in &mut self.waiting {
            // Who was answered before has heard it.
            let waits = matches!(handed, Some(Handed::Waiting(receiver)) if receiver.is_empty());
            if waits && now_ns - *since_ns > CALLER_WAITS_NS {
                *handed = None;
                if let Part::Intent(call) = *part {
                    self.model.gone.insert(call);
                }
            }
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
