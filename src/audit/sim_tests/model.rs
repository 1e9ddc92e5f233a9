//! What was handed over and promised, and whether a log keeps it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::audit::{
    frame::{Frames, Kind},
    segment::Header,
    tree::{Frontier, Hash, leaf_hash},
};

/// What a record does for its call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    Plain,
    Intent(u128),
    Outcome(u128),
}

/// A record that was handed to the writer.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) part: Part,
    /// Its place in what was handed over; `None` for what the writer appends by itself.
    pub(super) order: Option<u64>,
}

/// What a log has to hold from now on.
#[derive(Debug)]
struct Promise {
    bytes: Vec<u8>,
    /// Only a record that was acknowledged for less is lost with the power, and only until this time.
    power_from_ns: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Process,
    Power { at_ns: u64 },
}

#[derive(Default)]
pub(super) struct Model {
    given: BTreeMap<Vec<u8>, Given>,
    next_order: u64,
    promises: BTreeMap<u64, Promise>,
    /// Heads that anybody outside may have seen.
    published: BTreeMap<u64, Hash>,
    /// Outcomes that the writer may append where a caller has gone.
    pub(super) gone: BTreeSet<u128>,
    /// Calls whose callers had gone by the time their intent was on record: the writer has ended them.
    pub(super) given_up: BTreeSet<u128>,
}

/// What the log holds, as its files say.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) records: Vec<Vec<u8>>,
    pub(super) roots: Vec<Hash>,
    /// Intents without an outcome.
    pub(super) open: BTreeSet<u128>,
    pub(super) segments: u64,
}

impl Model {
    /// Notes a record that is about to be handed over.
    pub(super) fn hand_over(&mut self, bytes: &[u8], part: Part) {
        let order = Some(self.next_order);
        self.next_order += 1;
        self.given.insert(bytes.to_vec(), Given { part, order });
    }

    /// Notes a record that the writer may append by itself.
    pub(super) fn allow(&mut self, bytes: &[u8], part: Part) {
        self.given.insert(bytes.to_vec(), Given { part, order: None });
    }

    /// Notes that a record was acknowledged. From that time on it survives a power loss too.
    pub(super) fn acknowledged(
        &mut self,
        index: u64,
        bytes: &[u8],
        power_from_ns: u64,
    ) -> Result<(), String> {
        match self.promises.get(&index) {
            Some(other) => Err(format!(
                "index {index} was given to two records: {} and {}",
                text(&other.bytes),
                text(bytes)
            )),
            None => {
                self.promises.insert(index, Promise { bytes: bytes.to_vec(), power_from_ns });
                Ok(())
            }
        }
    }

    /// The log failed: what was not yet safe from a power loss never will be.
    pub(super) fn failed(&mut self, at_ns: u64) {
        for promise in self.promises.values_mut().filter(|promise| promise.power_from_ns > at_ns) {
            promise.power_from_ns = u64::MAX;
        }
    }

    /// Nothing was written while the disk hung.
    pub(super) fn hung(&mut self, before_ns: u64, hung_ns: u64) {
        for promise in self.promises.values_mut().filter(|promise| promise.power_from_ns > before_ns) {
            promise.power_from_ns = promise.power_from_ns.saturating_add(hung_ns);
        }
    }

    pub(super) fn published(&mut self, size: u64, root: Hash) -> Result<(), String> {
        match self.published.insert(size, root) {
            Some(other) if other != root => Err(format!("two heads of size {size} were published")),
            _ => Ok(()),
        }
    }

    /// Checks a recovered log, and makes what it holds the promise from now on.
    pub(super) fn check(&mut self, content: &Content, end: End) -> Result<(), String> {
        self.check_promises(content, end)?;
        self.check_given(content)?;
        for (size, root) in &self.published {
            let Some(found) = content.roots.get(*size as usize) else {
                return Err(format!(
                    "a head of size {size} was published, {} survived",
                    content.records.len()
                ));
            };
            if found != root {
                return Err(format!("the published head of size {size} is not the log's"));
            }
        }
        let given_up = std::mem::take(&mut self.given_up);
        if let (End::Process, Some(call)) = (end, given_up.intersection(&content.open).next()) {
            return Err(format!("the caller of {call} had gone, and nobody ended it"));
        }
        // Whoever goes on from here may be told of anything that is there.
        for (index, bytes) in (0..).zip(&content.records) {
            self.promises.insert(index, Promise { bytes: bytes.clone(), power_from_ns: 0 });
        }
        Ok(())
    }

    fn check_promises(&mut self, content: &Content, end: End) -> Result<(), String> {
        let mut lost = Vec::new();
        for (index, promise) in &self.promises {
            let found = content.records.get(*index as usize);
            if found == Some(&promise.bytes) {
                continue;
            }
            match end {
                End::Power { at_ns } if promise.power_from_ns > at_ns => lost.push(*index),
                _ => {
                    return Err(format!(
                        "after {end:?}: record {index} was promised ({}, safe from {} ns), there is {}, of {}",
                        text(&promise.bytes),
                        promise.power_from_ns,
                        found.map_or_else(|| "nothing".into(), |found| text(found)),
                        content.records.len(),
                    ));
                }
            }
        }
        for index in lost {
            self.promises.remove(&index);
        }
        Ok(())
    }

    /// Nothing that was not handed over, nothing twice, and in order.
    fn check_given(&self, content: &Content) -> Result<(), String> {
        let (mut seen, mut last) = (BTreeSet::new(), None);
        for (index, record) in content.records.iter().enumerate() {
            let Some(given) = self.given.get(record) else {
                return Err(format!("record {index} was never handed over: {}", text(record)));
            };
            if !seen.insert(record) {
                return Err(format!("record {index} is there twice: {}", text(record)));
            }
            if given.order.is_some() && given.order < last {
                return Err(format!("record {index} stands before one that came earlier: {}", text(record)));
            }
            last = given.order.or(last);
            if let (None, Part::Outcome(call)) = (given.order, given.part)
                && !self.gone.contains(&call)
            {
                return Err(format!("call {call} was given up though its caller waited"));
            }
        }
        Ok(())
    }

    /// Reads a log's segments, with a reader of the tests' own as far as that goes.
    pub(super) fn read(&self, files: &[(PathBuf, Vec<u8>)], log: &Path) -> Result<Content, String> {
        let mut content = Content { roots: vec![Frontier::default().root()], ..Content::default() };
        let mut frontier = Frontier::default();
        let segments = files.iter().filter(|(path, _)| {
            path.parent() == Some(&log.join("segments")) && path.extension().is_some_and(|end| end == "log")
        });
        for (path, bytes) in segments {
            let (header, start) =
                Header::read(bytes).ok_or_else(|| format!("{}: no header", path.display()))?;
            if header.frontier != frontier {
                return Err(format!("{}: its header is of another tree", path.display()));
            }
            content.segments += 1;
            let mut frames = Frames::new(bytes, start);
            for (_, frame) in frames.by_ref() {
                if frame.kind == Kind::Record {
                    frontier.push(leaf_hash(frame.payload));
                    content.roots.push(frontier.root());
                    content.records.push(frame.payload.to_vec());
                }
            }
            if frames.offset() != bytes.len() {
                return Err(format!("{}: a bad frame at {}", path.display(), frames.offset()));
            }
        }
        for record in &content.records {
            match self.given.get(record).map(|given| given.part) {
                Some(Part::Intent(call)) => drop(content.open.insert(call)),
                Some(Part::Outcome(call)) => drop(content.open.remove(&call)),
                _ => {}
            }
        }
        Ok(content)
    }
}

fn text(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    text.truncate(90);
    text
}
