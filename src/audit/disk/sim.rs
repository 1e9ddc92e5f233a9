//! A simulated disk: a page cache that may lose what was not synced, and faults at any operation.
//!
//! What it models, at its worst: appended bytes are read back at once, and survive a power loss only after
//! `sync_data`; of what was not synced, any 512-byte sectors survive, in any order, and a hole reads as zeros,
//! as what once stood there or as noise. A name is durable only after `sync_folder` of its folder; until then
//! any prefix of a folder's changes survives. A failed sync may drop what it was to write: those bytes are read
//! back until the power goes, and no later sync writes them. A process that dies loses nothing that it wrote,
//! but for the end of the append that it died in.

mod volume;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, DiskFile};

pub(in crate::audit) use volume::Random;
use volume::Volume;

/// What may happen at an operation.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::audit) enum Fault {
    /// `kill -9`.
    Crash,
    /// The machine stops.
    PowerLoss,
    /// The operation fails, and what it was to do is partly done.
    Eio,
    /// An operation that needs space fails.
    Enospc,
    /// An append takes fewer bytes than it was given, and says so.
    ShortWrite,
    /// The operation takes this many simulated milliseconds, and then completes.
    Hang { millis: u64 },
    /// The same, and then it fails.
    HangThenFail { millis: u64 },
    /// The next sync fails, and drops what it was to write.
    SyncDrops,
}

impl Fault {
    /// The fault's name, for counting.
    pub(in crate::audit) const fn name(self) -> &'static str {
        match self {
            Self::Crash => "process crash",
            Self::PowerLoss => "power loss",
            Self::Eio => "EIO",
            Self::Enospc => "ENOSPC",
            Self::ShortWrite => "short write",
            Self::Hang { .. } => "hang, then done",
            Self::HangThenFail { .. } => "hang, then EIO",
            Self::SyncDrops => "sync fails and drops pages",
        }
    }
}

/// A mistake to make on purpose, so that a test can see that the simulator notices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::audit) enum Planted {
    /// `sync_data` says that it did, and does nothing.
    NoSync,
    /// `sync_folder` says that it did, and does nothing.
    NoFolderSync,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Operation {
    Append,
    Truncate,
    SyncData,
    SyncFolder,
    Name,
    Read,
}

/// The machine that the disk is in: its clock, its processes, its faults.
struct Machine {
    volume: Volume,
    random: Random,
    /// Nanoseconds since the machine was made.
    clock_ns: u64,
    operations: u64,
    /// At which operation what happens.
    fault: Option<(u64, Fault)>,
    /// Which process may use the disk: the handles of those before are dead.
    process: u64,
    boot: u64,
    dead: bool,
    power_lost: bool,
    free_bytes: u64,
    planted: Option<Planted>,
    injected: BTreeMap<&'static str, u64>,
    /// What nobody may do, and somebody did.
    violations: Vec<String>,
    trace: Vec<String>,
}

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub(in crate::audit) struct SimDisk {
    machine: Arc<Mutex<Machine>>,
    process: u64,
    /// Called while an operation hangs, after the clock has moved.
    hang: Arc<dyn Fn(u64, u64) + Send + Sync>,
}

/// A file on it, opened by one process.
pub(in crate::audit) struct SimFile {
    disk: SimDisk,
    inode: usize,
    path: PathBuf,
    /// A write or a sync failed on this descriptor.
    failed: bool,
}

/// What an operation on time costs, so that the clock moves.
const OPERATION_NS: u64 = 20_000;
const SYNC_NS: u64 = 200_000;
const TRACE_MAX: usize = 4_000;

impl SimDisk {
    /// An empty disk. What happens on it depends on the seed alone.
    pub(in crate::audit) fn new(seed: u64) -> Self {
        let machine = Machine {
            volume: Volume::default(),
            random: Random::new(seed),
            clock_ns: 0,
            operations: 0,
            fault: None,
            process: 0,
            boot: 1,
            dead: false,
            power_lost: false,
            free_bytes: u64::MAX,
            planted: None,
            injected: BTreeMap::new(),
            violations: Vec::new(),
            trace: Vec::new(),
        };
        Self { machine: Arc::new(Mutex::new(machine)), process: 0, hang: Arc::new(|_, _| ()) }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls this while an operation hangs, with the time and how long it hung, in nanoseconds.
    pub(in crate::audit) fn on_hang(&mut self, hang: impl Fn(u64, u64) + Send + Sync + 'static) {
        self.hang = Arc::new(hang);
    }

    /// Lets a fault happen at the operation that is so many after the next.
    pub(in crate::audit) fn fault_after(&self, operations: u64, fault: Fault) {
        let mut machine = self.machine();
        machine.fault = Some((machine.operations + operations, fault));
    }

    pub(in crate::audit) fn plant(&self, planted: Option<Planted>) {
        self.machine().planted = planted;
    }

    /// Whether the process has died.
    pub(in crate::audit) fn is_dead(&self) -> bool {
        self.machine().dead
    }

    /// Whether it died because the power went.
    pub(in crate::audit) fn lost_power(&self) -> bool {
        self.machine().power_lost
    }

    /// Ends the process between two operations.
    pub(in crate::audit) fn crash(&self) {
        self.machine().die(Fault::Crash);
    }

    /// Stops the machine between two operations.
    pub(in crate::audit) fn lose_power(&self) {
        self.machine().die(Fault::PowerLoss);
    }

    /// The disk as the next process has it.
    #[must_use]
    pub(in crate::audit) fn restart(&self) -> Self {
        let mut machine = self.machine();
        machine.process += 1;
        machine.fault = None;
        machine.dead = false;
        machine.power_lost = false;
        machine.log(|| "-- restart".into());
        Self { process: machine.process, ..self.clone() }
    }

    /// What the kernel says of its boot.
    pub(in crate::audit) fn boot(&self) -> String {
        format!("boot-{}", self.machine().boot)
    }

    /// The time in nanoseconds.
    pub(in crate::audit) fn now_ns(&self) -> u64 {
        self.machine().clock_ns
    }

    pub(in crate::audit) fn sleep_ns(&self, nanos: u64) {
        self.machine().clock_ns += nanos;
    }

    pub(in crate::audit) fn operations(&self) -> u64 {
        self.machine().operations
    }

    /// How often each fault was injected.
    pub(in crate::audit) fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.machine().injected.clone()
    }

    pub(in crate::audit) fn violations(&self) -> Vec<String> {
        self.machine().violations.clone()
    }

    /// The last operations, one a line.
    pub(in crate::audit) fn trace(&self) -> String {
        self.machine().trace.join("\n")
    }

    /// Every file as a process sees it.
    pub(in crate::audit) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.machine().volume.files()
    }

    /// Makes `/state`, durably and without a fault.
    pub(in crate::audit) fn make_state_folder(&self) {
        let volume = &mut self.machine().volume;
        let _ = volume.make_folder(Path::new("/state"));
        let _ = volume.sync_folder(Path::new("/"));
    }

    /// Changes the bytes of a file as somebody with an editor would, durably.
    pub(in crate::audit) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        self.machine().volume.edit(path, edit);
    }

    /// One operation: the clock moves, and perhaps something happens.
    fn step(&self, operation: Operation, name: impl FnOnce() -> String) -> io::Result<Step<'_>> {
        let mut machine = self.machine();
        if machine.dead || machine.process != self.process {
            return Err(io::Error::other("the process is dead"));
        }
        let number = machine.operations;
        machine.operations += 1;
        machine.clock_ns += if operation == Operation::SyncData { SYNC_NS } else { OPERATION_NS };
        let due = machine.fault.filter(|(at, fault)| *at <= number && fault.hits(operation));
        machine.log(|| {
            format!(
                "{number} {operation:?} {}{}",
                name(),
                due.map_or_else(String::new, |due| format!("  <-- {:?}", due.1))
            )
        });
        let Some((_, fault)) = due else {
            return Ok(Step { machine, fault: None });
        };
        machine.fault = None;
        *machine.injected.entry(fault.name()).or_default() += 1;
        let (Fault::Hang { millis } | Fault::HangThenFail { millis }) = fault else {
            return Ok(Step { machine, fault: Some(fault) });
        };
        machine.clock_ns += millis * 1_000_000;
        let now = machine.clock_ns;
        drop(machine);
        (self.hang)(now, millis * 1_000_000);
        let fault = matches!(fault, Fault::HangThenFail { .. }).then_some(Fault::Eio);
        Ok(Step { machine: self.machine(), fault })
    }

    /// An operation on names.
    fn name(
        &self,
        what: impl FnOnce() -> String,
        change: impl FnOnce(&mut Volume) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut step = self.step(Operation::Name, what)?;
        match step.fault {
            None => change(&mut step.machine.volume),
            // It had happened, or not, when the process died.
            Some(fault @ (Fault::Crash | Fault::PowerLoss)) => {
                if step.machine.random.coin() {
                    let _ = change(&mut step.machine.volume);
                }
                Err(step.machine.die(fault))
            }
            Some(fault) => Err(fault.error()),
        }
    }
}

/// An operation under way, with the machine in hand.
struct Step<'a> {
    machine: MutexGuard<'a, Machine>,
    fault: Option<Fault>,
}

impl Fault {
    /// Whether this kind of operation can meet the fault; if not, a later one does.
    fn hits(self, operation: Operation) -> bool {
        match self {
            Self::Crash | Self::PowerLoss | Self::Eio | Self::Hang { .. } | Self::HangThenFail { .. } => true,
            Self::Enospc => matches!(operation, Operation::Append | Operation::Name | Operation::SyncData),
            Self::ShortWrite => operation == Operation::Append,
            Self::SyncDrops => operation == Operation::SyncData,
        }
    }

    fn error(self) -> io::Error {
        match self {
            Self::Enospc => io::ErrorKind::StorageFull.into(),
            _ => io::Error::other(format!("simulated {}", self.name())),
        }
    }
}

impl Machine {
    /// The end of the process, or of the machine.
    fn die(&mut self, fault: Fault) -> io::Error {
        self.dead = true;
        if fault == Fault::PowerLoss {
            self.power_lost = true;
            self.boot += 1;
            self.volume.lose_power(&mut self.random);
        }
        self.log(|| format!("-- {}", fault.name()));
        fault.error()
    }

    fn log(&mut self, line: impl FnOnce() -> String) {
        if self.trace.len() < TRACE_MAX && tracing() {
            self.trace.push(line());
        }
    }
}

/// Whether operations are noted: only where one seed is looked at.
fn tracing() -> bool {
    static TRACING: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var_os("CALLGATE_SIM_SEED").is_some());
    *TRACING
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let step = self.step(Operation::Read, || format!("list {}", folder.display()))?;
        step.reads()?.machine.volume.list(folder)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.name(|| format!("make {}", folder.display()), |volume| volume.make_folder(folder))
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let step = self.step(Operation::Read, || format!("open {}", path.display()))?;
        let inode = step.reads()?.machine.volume.find(path)?;
        Ok(SimFile { disk: self.clone(), inode, path: path.into(), failed: false })
    }

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        let mut inode = None;
        self.name(
            || format!("create {}", path.display()),
            |volume| {
                inode = Some(volume.create(path)?);
                Ok(())
            },
        )?;
        let inode = inode.ok_or_else(|| io::Error::other("no inode"))?;
        Ok(SimFile { disk: self.clone(), inode, path: path.into(), failed: false })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.name(|| format!("rename {} {}", from.display(), to.display()), |volume| volume.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.name(|| format!("remove {}", path.display()), |volume| volume.remove(path))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut step = self.step(Operation::SyncFolder, || folder.display().to_string())?;
        if step.machine.planted == Some(Planted::NoFolderSync) {
            return Ok(());
        }
        match step.fault {
            None => step.machine.volume.sync_folder(folder),
            Some(fault @ (Fault::Crash | Fault::PowerLoss)) => {
                if step.machine.random.coin() {
                    let _ = step.machine.volume.sync_folder(folder);
                }
                Err(step.machine.die(fault))
            }
            Some(fault) => Err(fault.error()),
        }
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let step = self.step(Operation::Read, || "free".into())?;
        Ok(step.reads()?.machine.free_bytes)
    }
}

impl<'a> Step<'a> {
    /// What a fault does to an operation that changes nothing.
    fn reads(mut self) -> io::Result<Self> {
        match self.fault {
            None => Ok(self),
            Some(fault @ (Fault::Crash | Fault::PowerLoss)) => Err(self.machine.die(fault)),
            Some(fault) => Err(fault.error()),
        }
    }
}

impl SimFile {
    /// A change of the file. After one that failed, there is to be none on this descriptor.
    fn change(&self, operation: Operation, name: impl FnOnce() -> String) -> io::Result<Step<'_>> {
        let mut step = self.disk.step(operation, name)?;
        if self.failed {
            let violation =
                format!("{operation:?} of {} after an error on the same descriptor", self.path.display());
            step.machine.violations.push(violation);
        }
        Ok(step)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let step = self.disk.step(Operation::Read, || format!("len {}", self.path.display()))?;
        Ok(step.reads()?.machine.volume.len(self.inode) as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let step = self
            .disk
            .step(Operation::Read, || format!("read {} {offset} {}", self.path.display(), into.len()))?;
        Ok(step.reads()?.machine.volume.read_at(self.inode, offset as usize, into))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (path, inode) = (self.path.clone(), self.inode);
        let mut step = self.change(Operation::Append, || format!("{} {}", path.display(), bytes.len()))?;
        let Machine { volume, random, .. } = &mut *step.machine;
        let Some(fault) = step.fault else {
            volume.append(inode, bytes);
            return Ok(bytes.len());
        };
        let part = random.below(bytes.len() as u64 + 1) as usize;
        let part = if fault == Fault::ShortWrite { part.max(1) } else { part };
        volume.append(inode, &bytes[..part]);
        let error = match fault {
            Fault::ShortWrite => return Ok(part),
            Fault::Crash | Fault::PowerLoss => step.machine.die(fault),
            _ => fault.error(),
        };
        drop(step);
        self.failed = true;
        Err(error)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let (path, inode) = (self.path.clone(), self.inode);
        let mut step = self.change(Operation::Truncate, || format!("{} {len}", path.display()))?;
        let Machine { volume, random, .. } = &mut *step.machine;
        let error = match step.fault {
            None => {
                volume.truncate(inode, len as usize);
                return Ok(());
            }
            Some(fault @ (Fault::Crash | Fault::PowerLoss)) => {
                if random.coin() {
                    volume.truncate(inode, len as usize);
                }
                step.machine.die(fault)
            }
            Some(fault) => fault.error(),
        };
        drop(step);
        self.failed = true;
        Err(error)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let (path, inode) = (self.path.clone(), self.inode);
        let mut step = self.change(Operation::SyncData, || path.display().to_string())?;
        let Machine { volume, random, planted, .. } = &mut *step.machine;
        if *planted == Some(Planted::NoSync) {
            return Ok(());
        }
        let error = match step.fault {
            None => {
                volume.sync(inode);
                return Ok(());
            }
            Some(fault @ (Fault::Crash | Fault::PowerLoss)) => {
                if random.coin() {
                    volume.sync(inode);
                }
                step.machine.die(fault)
            }
            Some(fault @ Fault::SyncDrops) => {
                volume.sync_and_drop(inode, random);
                fault.error()
            }
            Some(fault) => fault.error(),
        };
        drop(step);
        self.failed = true;
        Err(error)
    }
}

mod tests;
