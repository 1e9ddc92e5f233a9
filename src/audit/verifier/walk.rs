//! The walk through one log, frame by frame: what has to hold is known from the bytes before.
//!
//! It reads no file and checks no signature: it hands out the signatures to check and the tiles that are whole.

use std::{collections::VecDeque, sync::Arc};

use super::{
    frame::{self, Frame, Head, Header, Kind, Tag},
    note::{Checkpoint, Key, OtherKey},
    report::Rule,
    runs::Runs,
    tree::{Frontier, Hash, leaf_hash},
};

/// How many entries a tile is wide.
pub const TILE_WIDTH: usize = 256;
/// A log without a head for that many records is refused, so that what waits for a head stays small.
const PENDING_RECORDS_MAX: usize = 1 << 20;
/// How a record of other logs' heads begins: canonical JSON sorts its members.
const HEADS_START: &[u8] = b"{\"heads\":[";

/// What is known of a log after some of its frames.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The log's keys, under its own name.
    keys: Arc<[Key]>,
    /// The tree of what heads cover.
    pub frontier: Frontier,
    /// The records since the last head, with the offsets of their frames.
    pub pending: Vec<(Hash, u64)>,
    /// The tag of the last frame.
    last_tag: Tag,
    /// Every head: its size and root.
    pub heads: Vec<(u64, Hash)>,
    /// Other logs' heads on record.
    pub claims: Vec<Claim>,
    /// Signatures to check.
    pub signatures: Vec<Signed>,
    /// The right edge of the tiles: what each level has since its last whole tile.
    pub edge: Vec<Edge>,
    /// Tiles that have become whole.
    pub tiles: VecDeque<Tile>,
    /// By whom the head is signed that is signed by none of the keys.
    pub other_key: Option<OtherKey>,
    /// The log's writers, where it is asked for them.
    pub runs: Option<Runs>,
}

/// The last, incomplete tile of a level.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    /// The index of the tile in its level.
    pub index: u64,
    /// What it holds by now.
    pub hashes: Vec<Hash>,
}

/// A tile as the records say it has to be.
#[derive(Clone, Debug)]
pub struct Tile {
    /// 0 for the tiles of leaf hashes.
    pub level: u32,
    /// Its index in its level.
    pub index: u64,
    /// Its hashes, 1 to 256 of them.
    pub hashes: Vec<Hash>,
}

/// A signature to check.
#[derive(Clone, Debug)]
pub struct Signed {
    /// What is signed.
    pub text: Vec<u8>,
    /// The signature.
    pub signature: ed25519_dalek::Signature,
    /// The key that is said to have made it.
    pub key: ed25519_dalek::VerifyingKey,
    /// The first record that no head before this one covers.
    pub index: u64,
    /// How many records come before it.
    pub until: u64,
    /// Where the head's frame is.
    pub offset: u64,
    /// The index of the segment's first record.
    pub segment: u64,
}

/// A head of another log on record.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The index of the record.
    pub index: u64,
    /// Where its frame is.
    pub offset: u64,
    /// The index of the segment's first record.
    pub segment: u64,
    /// The other log's name and checkpoint; `None` where the record does not say.
    pub head: Option<(String, String)>,
}

/// What a frame breaks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// The rule.
    pub rule: Rule,
    /// The first record that is bad, or may be.
    pub index: u64,
    /// The first record after it that cannot be the first bad one.
    pub until: Option<u64>,
}

/// Why there is no next frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stop {
    /// The bytes end before it does.
    Short,
    /// It breaks a rule.
    Fault(Fault),
    /// It is a head, well made and said to be signed by a known key, but not of the records before it.
    WrongTree {
        /// The size it names.
        size: u64,
        /// The root it names.
        root: Hash,
    },
}

/// Where a frame is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The index of the segment's first record.
    pub segment: u64,
    /// The frame's first byte in the segment.
    pub offset: u64,
}

impl Walk {
    /// Begins a log whose heads must be signed by one of these keys, under their names.
    pub fn new(keys: Arc<[Key]>) -> Self {
        Self {
            keys,
            frontier: Frontier::default(),
            pending: Vec::new(),
            last_tag: Tag::default(),
            heads: Vec::new(),
            claims: Vec::new(),
            signatures: Vec::new(),
            edge: Vec::new(),
            tiles: VecDeque::new(),
            other_key: None,
            runs: None,
        }
    }

    /// How many records were read.
    pub fn records(&self) -> u64 {
        self.frontier.size() + self.pending.len() as u64
    }

    /// Reads the header that `bytes` begin with; returns its length.
    pub fn header(&mut self, bytes: &[u8]) -> Result<usize, Stop> {
        let Header { first, peaks, tag, bytes } = match frame::header(bytes) {
            Ok(header) => header,
            Err(frame::Unread::Short) => return Err(Stop::Short),
            Err(_) => return Err(self.all_from_here(Rule::Header)),
        };
        if !self.pending.is_empty() {
            return Err(self.all_from_here(Rule::SegmentEnd));
        }
        let linked = first == self.frontier.size() && peaks == self.frontier.peaks() && tag == self.last_tag;
        if linked { Ok(bytes) } else { Err(self.all_from_here(Rule::HeaderLink)) }
    }

    /// Reads the frame that `bytes` begin with; returns its length.
    pub fn step(&mut self, bytes: &[u8], place: Place) -> Result<usize, Stop> {
        let frame = match frame::frame(bytes) {
            Ok(frame) => frame,
            Err(frame::Unread::Short) => return Err(Stop::Short),
            Err(_) => return Err(self.this_one(Rule::Frame)),
        };
        match frame.kind {
            Kind::Record => self.record(&frame, place)?,
            Kind::Head => self.head(&frame, place)?,
        }
        self.last_tag = frame.tag;
        Ok(frame.bytes)
    }

    fn record(&mut self, frame: &Frame<'_>, Place { segment, offset }: Place) -> Result<(), Stop> {
        if self.pending.len() >= PENDING_RECORDS_MAX {
            return Err(self.this_one(Rule::HeadsTooFar));
        }
        if frame.payload.starts_with(HEADS_START) {
            let place = (self.records(), segment, offset);
            claims(frame.payload, place, &mut self.claims);
        }
        if let Some(runs) = &mut self.runs {
            runs.record(frame.payload);
        }
        self.pending.push((leaf_hash(frame.payload), offset));
        Ok(())
    }

    fn head(&mut self, frame: &Frame<'_>, Place { segment, offset }: Place) -> Result<(), Stop> {
        let size = self.records();
        let Some(Head { synced, open, note }) = frame::head(frame.payload) else {
            return Err(self.this_one(Rule::HeadForm));
        };
        let checkpoint = Checkpoint::parse(note).map_err(|_| self.this_one(Rule::HeadForm))?;
        let of_this_log = self.keys.iter().any(|key| key.name() == checkpoint.origin);
        let signed = checkpoint.signature(&self.keys);
        if signed.is_err() {
            self.other_key = checkpoint.other_key(&self.keys);
        }
        if !of_this_log || checkpoint.signatures() != 1 {
            return Err(self.this_one(Rule::HeadForm));
        }
        let Ok((key, signature)) = signed else { return Err(self.since_head(Rule::HeadSignature)) };
        let (key, index, until) = (key.public(), self.frontier.size(), size);
        let text = checkpoint.text.as_bytes().to_vec();
        self.signatures.push(Signed { text, signature, key, index, until, offset, segment });
        let wrong = Stop::WrongTree { size: checkpoint.size, root: checkpoint.root };
        if checkpoint.size != size {
            return Err(wrong);
        }
        let mut frontier = self.frontier.clone();
        let (first, mut nodes) = (frontier.size(), Vec::new());
        for (at, (leaf, _)) in (first..).zip(&self.pending) {
            nodes.push((0, at, *leaf));
            frontier.push(*leaf, |height, node| {
                if height % 8 == 0 {
                    nodes.push((height / 8, at >> height, *node));
                }
            });
        }
        if frontier.root() != checkpoint.root {
            return Err(wrong);
        }
        if synced > size || open > size {
            return Err(self.this_one(Rule::HeadForm));
        }
        self.frontier = frontier;
        self.pending.clear();
        self.heads.push((size, checkpoint.root));
        if let Some(runs) = &mut self.runs {
            runs.head();
        }
        for (level, index, node) in nodes {
            self.put(level, index, node);
        }
        Ok(())
    }

    /// Puts a hash into the tiles.
    fn put(&mut self, level: u32, index: u64, node: Hash) {
        let width = TILE_WIDTH as u64;
        let at = level as usize;
        if self.edge.len() <= at {
            self.edge.resize_with(at + 1, Edge::default);
        }
        let Some(edge) = self.edge.get_mut(at) else { return };
        edge.index = index / width;
        edge.hashes.push(node);
        if edge.hashes.len() == TILE_WIDTH {
            let hashes = std::mem::take(&mut edge.hashes);
            self.tiles.push_back(Tile { level, index: edge.index, hashes });
            edge.index += 1;
        }
    }

    fn this_one(&self, rule: Rule) -> Stop {
        let index = self.records();
        Stop::Fault(Fault { rule, index, until: Some(index + 1) })
    }

    fn since_head(&self, rule: Rule) -> Stop {
        Stop::Fault(Fault { rule, index: self.frontier.size(), until: Some(self.records()) })
    }

    fn all_from_here(&self, rule: Rule) -> Stop {
        Stop::Fault(Fault { rule, index: self.records(), until: None })
    }
}

/// Adds what a record of other logs' heads says.
fn claims(record: &[u8], (index, segment, offset): (u64, u64, u64), into: &mut Vec<Claim>) {
    let read = |head: &serde_json::Value| {
        let text = |name| Some(head.get(name)?.as_str()?.to_owned());
        Some((text("log")?, text("checkpoint")?))
    };
    let parsed = serde_json::from_slice::<serde_json::Value>(record).ok();
    let heads = parsed.as_ref().and_then(|record| record.get("heads")?.as_array());
    match heads {
        Some(heads) => {
            into.extend(heads.iter().map(|head| Claim { index, offset, segment, head: read(head) }));
        }
        None => into.push(Claim { index, offset, segment, head: None }),
    }
}
