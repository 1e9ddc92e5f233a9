use std::{fs, path::PathBuf};

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use sha2::Sha256;
use tempfile::TempDir;
use tlog_tiles::{Error as TlogError, Hash as TlogHash, Tile, TileHashReader, TileReader};

use super::*;
use crate::audit::{
    publish::Publisher,
    sample::{BASE, LogBytes, signer, vkey},
    verifier::tree::{Frontier, Nodes, inclusion, is_consistent, root, root_by_inclusion},
};

/// All nodes of a tree, by height and index.
struct All(Vec<Vec<Hash>>);

impl All {
    fn of(leaves: &[Hash]) -> Self {
        let mut levels = vec![leaves.to_vec()];
        while levels.last().unwrap().len() > 1 {
            let below = levels.last().unwrap();
            levels.push(below.chunks_exact(2).map(|pair| tree::node_hash(&pair[0], &pair[1])).collect());
        }
        Self(levels)
    }
}

impl Nodes for All {
    type Error = std::convert::Infallible;
    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Self::Error> {
        Ok(self.0[height as usize][index as usize])
    }
}

#[test]
fn roots_and_proofs_of_every_tree_up_to_512_are_those_of_ct_merkle() {
    let records: Vec<Vec<u8>> = (0..512_u32).map(|index| index.to_be_bytes().to_vec()).collect();
    let leaves: Vec<Hash> = records.iter().map(|record| leaf_hash(record)).collect();
    let mut all = All::of(&leaves);
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let mut roots = vec![tree::empty_root()];
    let mut frontier = Frontier::default();
    for size in 1..=512_u64 {
        theirs.push(records[size as usize - 1].clone());
        frontier.push(leaves[size as usize - 1], |_, _| ());
        let tree_root: Hash = (*theirs.root().as_bytes()).into();
        assert_eq!((frontier.root(), root(&mut all, size).unwrap()), (tree_root, tree_root), "{size}");
        roots.push(tree_root);
        for index in 0..size {
            let path = inclusion(&mut all, index, size).unwrap();
            assert_eq!(
                path.as_flattened(),
                theirs.prove_inclusion(index as usize).as_bytes(),
                "{index} {size}"
            );
            let leaf = leaves[index as usize];
            assert_eq!(root_by_inclusion(leaf, index, size, &path), Some(tree_root), "{index} {size}");
            assert!(size == 1 || root_by_inclusion(leaf, index ^ 1, size, &path) != Some(tree_root));
        }
        for old in 1..size {
            let path = tree::consistency(&mut all, old, size).unwrap();
            let added = (size - old) as usize;
            assert_eq!(path.as_flattened(), theirs.prove_consistency(added).as_bytes(), "{old} {size}");
            let (old_root, new_root) = (&roots[old as usize], &tree_root);
            assert!(is_consistent((old, old_root), (size, new_root), &path), "{old} {size}");
            assert!(!is_consistent((old, new_root), (size, old_root), &path), "{old} {size}");
            assert!(!is_consistent((old, old_root), (size, new_root), &path[1..]), "{old} {size}");
        }
    }
}

const VECTORS: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];
const N01: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const N4: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
const N47: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
const N67: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";

#[test]
fn the_published_vectors_of_certificate_transparency_pass() {
    let leaves: Vec<Hash> = VECTORS.iter().map(|leaf| leaf_hash(&hex::decode(leaf).unwrap())).collect();
    let mut all = All::of(&leaves);
    for (size, expected) in ROOTS.iter().enumerate() {
        assert_eq!(hex::encode(root(&mut all, size as u64).unwrap()), *expected);
    }
    let hexed = |path: Vec<Hash>| path.iter().map(hex::encode).collect::<Vec<_>>();
    let leaf1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
    assert_eq!(hexed(inclusion(&mut all, 0, 8).unwrap()), [leaf1, N01, N47]);
    assert_eq!(hexed(inclusion(&mut all, 5, 8).unwrap()), [N4, N67, ROOTS[4]]);
    assert_eq!(hexed(inclusion(&mut all, 2, 3).unwrap()), [ROOTS[2]]);
    assert_eq!(hexed(inclusion(&mut all, 1, 5).unwrap()), [ROOTS[1], N01, N4]);
    assert_eq!(hexed(tree::consistency(&mut all, 1, 1).unwrap()), Vec::<String>::new());
    assert_eq!(hexed(tree::consistency(&mut all, 1, 8).unwrap()), [leaf1, N01, N47]);
    assert_eq!(hexed(tree::consistency(&mut all, 2, 5).unwrap()), [N01, N4]);
    let n45 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
    assert_eq!(hexed(tree::consistency(&mut all, 6, 8).unwrap()), [n45, N67, ROOTS[4]]);
}

/// A published log of 600 records, with heads after every 7 of them.
fn published() -> (TempDir, PathBuf, LogBytes, Vec<Key>) {
    let state = tempfile::tempdir().unwrap();
    let log = state.path().join("audit/serve-0");
    let mut bytes = LogBytes::new("serve-0", &signer(1));
    for index in 0..600 {
        bytes.record(format!("{{\"record\":{index}}}").as_bytes());
        if index % 7 == 6 || index == 599 {
            bytes.head();
            if index % 70 == 69 {
                bytes.segment();
            }
        }
    }
    bytes.write(&log);
    let (size, note) = bytes.heads.last().unwrap();
    Publisher::anew(&log).publish(note, *size).unwrap();
    (state, log, bytes, vec![Key::parse(&vkey(&signer(1))).unwrap()])
}

#[test]
fn a_proof_of_every_record_is_made_and_checked_from_tiles_and_from_segments() {
    let (_state, log, bytes, keys) = published();
    let proofs: Vec<_> = (0..600).map(|index| prove(&log, index).unwrap().to_bytes()).collect();
    fs::remove_dir_all(log.join("tile")).unwrap();
    for (index, proof) in (0..).zip(&proofs) {
        let checked = check(proof, &keys).unwrap();
        let record = format!("{{\"record\":{index}}}").into_bytes();
        assert_eq!(checked, Checked { origin: format!("{BASE}/serve-0"), size: 600, index, record });
        if index % 50 == 0 {
            assert_eq!(prove(&log, index).unwrap().to_bytes(), *proof);
        }
    }
    assert!(matches!(prove(&log, 600), Err(ProveError::NotCovered { .. })));
    assert!(bytes.size == 600);
}

#[test]
fn every_flipped_bit_of_a_proof_is_found() {
    let (_state, log, bytes, keys) = published();
    let inclusion = prove(&log, 300).unwrap().to_bytes();
    let (old, new) = (&bytes.heads[10].1, &bytes.heads[60].1);
    let grown = consistency(&log, old, new).unwrap().to_bytes();
    let flipped = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    assert!(check(&inclusion, &keys).is_ok() && check_consistency(old, &grown, &keys).is_ok());
    for bit in 0..inclusion.len() * 8 {
        assert!(check(&flipped(&inclusion, bit), &keys).is_err(), "bit {bit}");
    }
    for bit in 0..grown.len() * 8 {
        assert!(check_consistency(old, &flipped(&grown, bit), &keys).is_err(), "bit {bit}");
    }
    for bit in 0..old.len() * 8 {
        assert!(check_consistency(&flipped(old, bit), &grown, &keys).is_err(), "bit {bit}");
    }
    let other = [Key::parse(&vkey(&signer(2))).unwrap()];
    insta::assert_snapshot!(
        check(&inclusion, &other).unwrap_err(),
        @"the checkpoint cannot be trusted: it is signed by the key `callgate.test/0123456789abcdef/serve-0+2da985a1`, and the key given is `callgate.test/0123456789abcdef/serve-0+ffa06055`"
    );
}

#[test]
fn any_two_heads_of_a_log_are_consistent_and_heads_of_a_fork_are_not() {
    let (_state, log, bytes, keys) = published();
    for (old_at, (old_size, old)) in bytes.heads.iter().enumerate().step_by(3) {
        for (new_size, new) in bytes.heads[old_at..].iter().step_by(5) {
            let proof = consistency(&log, old, new).unwrap().to_bytes();
            assert_eq!(check_consistency(old, &proof, &keys), Ok((*old_size, *new_size)));
        }
    }
    assert_eq!(note_at(&log, 70).unwrap(), bytes.heads[9].1);
    let mut fork = LogBytes::new("serve-0", &signer(1));
    (0..70).for_each(|index| fork.record(format!("fork {index}").as_bytes()));
    fork.head();
    let (forked, new) = (&fork.heads[0].1, &bytes.heads[50].1);
    assert!(matches!(consistency(&log, forked, new), Err(ProveError::OtherTree { .. })));
    let proof = consistency(&log, &bytes.heads[9].1, new).unwrap().to_bytes();
    assert!(matches!(check_consistency(forked, &proof, &keys), Err(CheckError::Consistency { .. })));
}

/// A log's tiles as `tlog_tiles` reads them.
struct Folder(PathBuf);

impl TileReader for Folder {
    fn height(&self) -> u8 {
        8
    }
    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, TlogError> {
        let read = |tile: &Tile| {
            let path = tile.path().replace("tile/8/", "tile/");
            fs::read(self.0.join(path)).map_err(|_| TlogError::InvalidTile)
        };
        tiles.iter().map(read).collect()
    }
    fn save_tiles(&self, _tiles: &[Tile], _data: &[Vec<u8>]) {}
}

/// Cloudflare's crates read the published log and come to the same proofs.
#[test]
fn the_published_log_is_one_that_standard_tools_read() {
    let (_state, log, _, keys) = published();
    let checkpoint = fs::read(log.join("checkpoint")).unwrap();
    let note = signed_note::Note::from_bytes(&checkpoint).unwrap();
    let verifier = signed_note::StandardVerifier::new(&keys[0].of_log("serve-0").vkey()).unwrap();
    let verified = note.verify(&signed_note::VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!(verified.0.len(), 1);
    let text = tlog_tiles::Checkpoint::from_bytes(note.text()).unwrap();
    let folder = Folder(log.clone());
    let reader = TileHashReader::new(text.size(), *text.hash(), &folder);
    for index in [0, 255, 256, 511, 512, 599] {
        let theirs = tlog_tiles::prove_record(600, index, &reader).unwrap();
        let ours: Vec<TlogHash> = prove(&log, index).unwrap().path.into_iter().map(TlogHash).collect();
        assert_eq!(theirs, ours);
    }
}
