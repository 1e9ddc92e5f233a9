//! A walk over the frames of one segment.

use crate::audit::{
    frame::{Chain, Frames, Kind, Tag},
    head::{HeadPayload, SignedHead},
    key::Trusted,
    segment::Header,
    tree::{Frontier, Hash, leaf_hash},
};

/// A head, and the tree of the records before it.
#[derive(Clone, Debug)]
pub(super) struct FoundHead {
    pub(super) offset: usize,
    pub(super) frontier: Frontier,
    pub(super) payload: Vec<u8>,
}

/// Where a frame whose tag is wrong would stand: the record's index, and the offset.
type Place = (u64, usize);

/// What the frames of a segment say up to its end or the first bad place.
#[derive(Debug)]
pub(super) struct Walk {
    /// Where the last whole frame ends.
    pub(super) end: usize,
    pub(super) frontier: Frontier,
    pub(super) tag: Tag,
    pub(super) head: Option<FoundHead>,
    /// The root at the size that was to be watched for.
    pub(super) watched_root: Option<Hash>,
    /// The first frame whose tag is not by today's key, after the last head by a key of before.
    edited: Option<Place>,
    /// The last head by a key of before, and the first frame with a foreign tag that it has to vouch for.
    vouched: Option<(FoundHead, Place)>,
}

impl Walk {
    pub(super) fn empty(header: &Header, frames_at: usize) -> Self {
        Self {
            end: frames_at,
            frontier: header.frontier.clone(),
            tag: header.tag,
            head: None,
            watched_root: None,
            edited: None,
            vouched: None,
        }
    }

    pub(super) fn take(
        bytes: &[u8],
        header: &Header,
        frames_at: usize,
        mut chain: Chain,
        watch: Option<u64>,
        trusted: &Trusted,
    ) -> Self {
        let mut walk = Self::empty(header, frames_at);
        walk.watch(watch);
        let mut frames = Frames::new(bytes, frames_at);
        let mut last = None;
        for (offset, frame) in frames.by_ref() {
            let leaf = leaf_hash(frame.payload);
            if chain.next(frame.kind, &leaf) != frame.tag && walk.edited.is_none() {
                walk.edited = Some((walk.frontier.size(), offset));
            }
            chain.pass(frame.tag);
            match frame.kind {
                Kind::Record => {
                    walk.frontier.push(leaf);
                    walk.watch(watch);
                }
                Kind::Head => {
                    last = Some((offset, frame.payload, walk.frontier.clone()));
                    walk.vouch(offset, frame.payload, trusted);
                }
            }
        }
        walk.end = frames.offset();
        walk.tag = chain.tag();
        walk.head =
            last.map(|(offset, payload, frontier)| FoundHead { offset, frontier, payload: payload.to_vec() });
        walk
    }

    fn watch(&mut self, size: Option<u64>) {
        if size == Some(self.frontier.size()) {
            self.watched_root = Some(self.frontier.root());
        }
    }

    /// Today's key cannot check the tags of a key of before; a head that key signed covers the records.
    fn vouch(&mut self, offset: usize, payload: &[u8], trusted: &Trusted) {
        let Some(place) = self.edited else { return };
        if HeadPayload::read(payload).is_some_and(|head| trusted.claims_other(head.note)) {
            let first = self.vouched.as_ref().map_or(place, |(_, first)| *first);
            let head = FoundHead { offset, frontier: self.frontier.clone(), payload: payload.to_vec() };
            self.vouched = Some((head, first));
            self.edited = None;
        }
    }

    /// The first frame whose tag is wrong, and that no head by a key of before vouches for.
    pub(super) fn edited(&self, trusted: &Trusted) -> Option<Place> {
        let unvouched = self.vouched.as_ref().filter(|(found, _)| {
            !HeadPayload::read(&found.payload)
                .and_then(|payload| SignedHead::verify(payload.note, trusted))
                .is_some_and(|head| {
                    head.size() == found.frontier.size() && *head.root() == found.frontier.root()
                })
        });
        unvouched.map(|(_, first)| *first).or(self.edited)
    }
}
