//! The Merkle tree of RFC 6962, as far as one who appends needs it.

use aws_lc_rs::digest;

/// SHA-256.
pub(super) type Hash = [u8; 32];

/// The hash of a record in the tree (RFC 6962 §2.1).
pub(super) fn leaf_hash(record: &[u8]) -> Hash {
    hash(&[&[0], record])
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], left, right])
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The roots of the complete subtrees that a tree of some size consists of, the largest (leftmost) first.
///
/// This is all that one needs of the records before to append one, and to know the root.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Frontier {
    size: u64,
    // INVARIANT: as many as `size` has one bits.
    roots: Vec<Hash>,
}

impl Frontier {
    /// A frontier as it was written down; `None` where a size does not have that many subtrees.
    pub(super) fn resume(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (usize::try_from(size.count_ones()).ok()? == roots.len()).then_some(Self { size, roots })
    }

    /// How many records the tree holds.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, the largest first.
    pub(super) fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// Appends a record by its leaf hash.
    pub(super) fn push(&mut self, leaf: Hash) {
        let mut root = leaf;
        // Each one bit at the end of the size is a complete subtree as large as the one that we hold.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                root = node_hash(&left, &root);
            }
        }
        self.roots.push(root);
        self.size += 1;
    }

    /// The root of the tree (RFC 6962 §2.1); of an empty one the hash of nothing.
    pub(super) fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev();
        let Some(last) = roots.next() else { return hash(&[]) };
        roots.fold(*last, |right, left| node_hash(left, &right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlog_tiles::{HashReader, stored_hash_index, stored_hashes_for_record_hash, tree_hash};

    struct Stored(Vec<tlog_tiles::Hash>);

    impl HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
            Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
        }
    }

    #[test]
    fn roots_are_those_of_an_independent_tree_at_every_size() {
        let mut frontier = Frontier::default();
        assert_eq!(
            hex::encode(frontier.root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let mut stored = Stored(Vec::new());
        for n in 0..600_u64 {
            let leaf = leaf_hash(&n.to_le_bytes());
            frontier.push(leaf);
            assert_eq!(u64::try_from(stored.0.len()).unwrap(), stored_hash_index(0, n));
            let new = stored_hashes_for_record_hash(n, tlog_tiles::Hash(leaf), &stored).unwrap();
            stored.0.extend(new);
            assert_eq!(frontier.root(), tree_hash(n + 1, &stored).unwrap().0, "size {}", n + 1);
        }
    }

    #[test]
    fn a_frontier_goes_on_from_what_was_written_down() {
        for size in 0..70_u64 {
            let mut whole = Frontier::default();
            (0..size).for_each(|n| whole.push(leaf_hash(&n.to_le_bytes())));
            let mut resumed = Frontier::resume(whole.size(), whole.roots().to_vec()).unwrap();
            whole.push([7; 32]);
            resumed.push([7; 32]);
            assert_eq!(whole, resumed);
        }
        assert_eq!(Frontier::resume(3, vec![[0; 32]]), None);
    }
}
