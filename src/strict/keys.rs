//! Two equal keys in an object, found without hashing and without quadratic work.

use std::{cmp::Ordering, ops::Range};

/// Up to this many keys are compared each with each, more are sorted.
const PAIRWISE_MAX: usize = 16;

/// A key as it stands in the text.
#[derive(Clone, Copy)]
pub(super) struct Key {
    /// Where its opening quote is.
    pub(super) start: usize,
    /// Just past its closing quote.
    pub(super) end: usize,
    escaped: bool,
    /// The first eight bytes: they order most keys without a look at the text.
    head: u64,
}

impl Key {
    /// The key at `range`, quotes included.
    pub(super) fn new(bytes: &[u8], range: Range<usize>, escaped: bool) -> Self {
        let inner = bytes.get(range.start + 1..range.end.saturating_sub(1)).unwrap_or_default();
        Self { start: range.start, end: range.end, escaped, head: head(inner) }
    }

    fn text<'a>(&self, text: &'a str) -> &'a [u8] {
        text.as_bytes().get(self.start + 1..self.end.saturating_sub(1)).unwrap_or_default()
    }
}

/// Where the first key is that equals one before it. May change the order of the keys.
pub(super) fn duplicate(text: &str, keys: &mut [Key]) -> Option<usize> {
    if keys.len() < 2 {
        None
    } else if keys.iter().any(|key| key.escaped) {
        duplicate_unescaped(text, keys)
    } else if keys.len() <= PAIRWISE_MAX {
        duplicate_pairwise(text, keys)
    } else {
        duplicate_sorted(text, keys)
    }
}

fn duplicate_pairwise(text: &str, keys: &[Key]) -> Option<usize> {
    keys.iter().enumerate().skip(1).find_map(|(index, key)| {
        let mut earlier = keys.iter().take(index);
        let equal = |other: &Key| other.head == key.head && other.text(text) == key.text(text);
        earlier.any(equal).then_some(key.start)
    })
}

fn duplicate_sorted(text: &str, keys: &mut [Key]) -> Option<usize> {
    let compare = |a: &Key, b: &Key| a.head.cmp(&b.head).then_with(|| a.text(text).cmp(b.text(text)));
    keys.sort_unstable_by(|a, b| compare(a, b).then(a.start.cmp(&b.start)));
    let pairs = keys.iter().zip(keys.iter().skip(1));
    pairs.filter(|(a, b)| compare(a, b) == Ordering::Equal).map(|(_, b)| b.start).min()
}

/// As `serde_json` unescapes them, since it is who reads the text next. Allocates.
fn duplicate_unescaped(text: &str, keys: &[Key]) -> Option<usize> {
    let unescape = |key: &Key| {
        let quoted = text.get(key.start..key.end).unwrap_or_default();
        // INVARIANT: the scanner has read this string, so it is well-formed.
        (serde_json::from_str::<String>(quoted).unwrap_or_default(), key.start)
    };
    let mut keys: Vec<(String, usize)> = keys.iter().map(unescape).collect();
    keys.sort_unstable();
    let pairs = keys.iter().zip(keys.iter().skip(1));
    pairs.filter(|(a, b)| a.0 == b.0).map(|(_, b)| b.1).min()
}

/// Orders as the bytes do, except that it cannot tell some short keys apart.
#[inline]
fn head(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let packed = bytes.iter().fold(0, |packed, byte| packed << 8 | u64::from(*byte));
    packed << (8 * (8 - bytes.len()) % 64)
}
