//! The Merkle tree of RFC 6962: hashes, the right edge of a growing tree, proofs and their checks.

use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The hash of a record as a leaf (RFC 6962 §2.1).
pub fn leaf_hash(record: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(record).finalize().into()
}

/// The hash of an inner node (RFC 6962 §2.1).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of a tree of no leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The right edge of a tree: the roots of its complete subtrees, enough to go on from and to have the root.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Takes up a tree of `size` leaves at its peaks, largest first; `None` where their number is not right.
    pub fn at(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, largest (leftmost) first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf, and tells `completed` the height and root of each subtree of height 1 and more that is whole now.
    pub fn push(&mut self, leaf: Hash, mut completed: impl FnMut(u32, &Hash)) {
        let mut node = leaf;
        for height in 1..=self.size.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            node = node_hash(&left, &node);
            completed(height, &node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// Where the hashes of a tree come from.
pub trait Nodes {
    /// Why a hash could not be had.
    type Error;

    /// The root of the complete subtree of 2^`height` leaves, the `index`th of its height.
    ///
    /// # Errors
    /// Where the hash cannot be had.
    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Self::Error>;
}

/// The root of the tree over the leaves `start..end`, where `start` is a multiple of the largest power of two
/// below the width, as it is for every subtree of RFC 6962.
fn subtree<N: Nodes>(nodes: &mut N, start: u64, end: u64) -> Result<Hash, N::Error> {
    let width = end - start;
    if width == 0 {
        return Ok(empty_root());
    }
    if width.is_power_of_two() {
        let height = width.trailing_zeros();
        return nodes.node(height, start >> height);
    }
    let split = start + left_width(width);
    let left = subtree(nodes, start, split)?;
    Ok(node_hash(&left, &subtree(nodes, split, end)?))
}

/// The largest power of two below `width`, which is 2 or more.
fn left_width(width: u64) -> u64 {
    1 << (u64::BITS - 1 - (width - 1).leading_zeros())
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
/// Where a hash cannot be had.
pub fn root<N: Nodes>(nodes: &mut N, size: u64) -> Result<Hash, N::Error> {
    subtree(nodes, 0, size)
}

/// The audit path of the leaf `index` in the tree of `size` leaves (RFC 6962 §2.1.1), from the leaf up.
///
/// # Errors
/// Where a hash cannot be had. The path is empty where the tree has no such leaf.
pub fn inclusion<N: Nodes>(nodes: &mut N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    let mut path = Vec::new();
    let (mut start, mut end) = (0, size);
    while index < size && end - start > 1 {
        let split = start + left_width(end - start);
        if index < split {
            path.push(subtree(nodes, split, end)?);
            end = split;
        } else {
            path.push(subtree(nodes, start, split)?);
            start = split;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that the tree of `new` leaves begins with the tree of `old` leaves (RFC 6962 §2.1.2).
///
/// # Errors
/// Where a hash cannot be had. The proof is empty where there is nothing to prove (`old` is 0, or not below `new`).
pub fn consistency<N: Nodes>(nodes: &mut N, old: u64, new: u64) -> Result<Vec<Hash>, N::Error> {
    let mut proof = Vec::new();
    if old == 0 || old >= new {
        return Ok(proof);
    }
    let (mut start, mut end) = (0, new);
    while old != end {
        let split = start + left_width(end - start);
        if old <= split {
            proof.push(subtree(nodes, split, end)?);
            end = split;
        } else {
            proof.push(subtree(nodes, start, split)?);
            start = split;
        }
    }
    if start != 0 {
        proof.push(subtree(nodes, start, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The root that an audit path leads to from a leaf (RFC 9162 §2.1.3.2); `None` where its length is not right.
pub fn root_by_inclusion(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut node, mut last, mut root) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            root = node_hash(sibling, &root);
            let up = if node & 1 == 1 { 0 } else { node.trailing_zeros().min(63) };
            node >>= up;
            last >>= up;
        } else {
            root = node_hash(&root, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

/// Whether a proof shows that the new tree begins with the old one (RFC 9162 §2.1.4.2).
pub fn is_consistent(old: (u64, &Hash), new: (u64, &Hash), proof: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 || old_size == new_size {
        let same = if old_size == new_size { old_root == new_root } else { *old_root == empty_root() };
        return same && proof.is_empty();
    }
    if old_size > new_size {
        return false;
    }
    let mut hashes = proof.iter();
    // An old tree that is one complete subtree is the first node of the proof itself.
    let first = if old_size.is_power_of_two() { Some(old_root) } else { hashes.next() };
    let Some(first) = first else { return false };
    let up = (old_size - 1).trailing_ones();
    let (mut node, mut last) = ((old_size - 1) >> up, (new_size - 1) >> up);
    let (mut old_seen, mut new_seen) = (*first, *first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_seen = node_hash(hash, &old_seen);
            new_seen = node_hash(hash, &new_seen);
            let up = if node & 1 == 1 { 0 } else { node.trailing_zeros().min(63) };
            node >>= up;
            last >>= up;
        } else {
            new_seen = node_hash(&new_seen, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_seen == *old_root && new_seen == *new_root
}
