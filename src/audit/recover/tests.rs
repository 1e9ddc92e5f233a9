use std::fs;

use tempfile::TempDir;

use super::*;
use crate::audit::{disk::RealDisk, frame::Frame, key::PrivateKey, tree::leaf_hash};

/// A log made frame by frame, as a writer would, and then damaged.
struct Made {
    folder: TempDir,
    key: PrivateKey,
    bytes: Vec<u8>,
    /// Where each frame begins, and at last where the log ends.
    offsets: Vec<usize>,
    chain: Chain,
    tree: Frontier,
    first: u64,
}

impl Made {
    fn new() -> Self {
        Self::with(PrivateKey::from_seed("base", [7; 32]).unwrap())
    }

    fn with(key: PrivateKey) -> Self {
        let header = Header { frontier: Frontier::default(), tag: Tag::default() };
        let bytes = header.encode();
        let chain = Chain::resume(key.for_log("base/x").unwrap().tags().clone(), header.tag);
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("segments")).unwrap();
        let offsets = vec![bytes.len()];
        Self { folder, key, bytes, offsets, chain, tree: Frontier::default(), first: 0 }
    }

    fn record(mut self, record: &str) -> Self {
        let leaf = leaf_hash(record.as_bytes());
        self.chain.append(&mut self.bytes, Kind::Record, record.as_bytes(), &leaf);
        self.tree.push(leaf);
        self.offsets.push(self.bytes.len());
        self
    }

    fn head(self, synced: u64, open: u64) -> Self {
        let key = self.key.for_log("base/x").unwrap();
        self.head_by(&key, synced, open)
    }

    fn head_by(mut self, key: &LogKey, synced: u64, open: u64) -> Self {
        let head = SignedHead::sign(key, self.tree.size(), self.tree.root()).unwrap();
        let payload = HeadPayload { synced, open, note: head.note() }.encode();
        self.chain.append(&mut self.bytes, Kind::Head, &payload, &leaf_hash(&payload));
        self.offsets.push(self.bytes.len());
        self
    }

    /// From here on another key signs.
    fn rotated(mut self, key: PrivateKey) -> Self {
        self.chain = Chain::resume(key.for_log("base/x").unwrap().tags().clone(), self.chain.tag());
        self.key = key;
        self
    }

    fn rolled(mut self) -> Self {
        self.write();
        let header = Header { frontier: self.tree.clone(), tag: self.chain.tag() };
        self.bytes = header.encode();
        self.offsets = vec![self.bytes.len()];
        self.first = header.first();
        self
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("segments").join(segment::name(self.first))
    }

    fn write(&self) {
        fs::write(self.path(), &self.bytes).unwrap();
    }

    fn published(self, size: u64, root: [u8; 32]) -> Self {
        let head = SignedHead::sign(&self.key.for_log("base/x").unwrap(), size, root).unwrap();
        fs::write(self.folder.path().join("checkpoint"), head.note()).unwrap();
        self
    }

    fn booted(self, boot: &str) -> Self {
        fs::write(self.folder.path().join("boot"), boot).unwrap();
        self
    }

    fn note_boot(&self, boot: &str) {
        fs::write(self.folder.path().join("boot"), boot).unwrap();
    }

    fn recover(&self) -> Result<Recovered<RealDisk>, RecoverError> {
        self.recover_knowing(&[])
    }

    fn recover_knowing(&self, known: &[PublicKey]) -> Result<Recovered<RealDisk>, RecoverError> {
        let key = self.key.for_log("base/x").unwrap();
        let claim = Claim { folder: self.folder.path(), key, known, boot: "now\n", now_ms: 5 };
        recover(Arc::new(RealDisk), claim, &|record| match record.split_first() {
            Some((b'i', call)) => Seen::Intent(u128::from(call[0])),
            Some((b'o', call)) => Seen::Outcome(u128::from(call[0])),
            _ => Seen::Plain,
        })
    }

    /// Writes other bytes in the place of the log's, and recovers.
    fn recover_from(&self, bytes: &[u8]) -> Result<Recovered<RealDisk>, RecoverError> {
        fs::write(self.path(), bytes).unwrap();
        self.recover()
    }

    fn torn(&self) -> Vec<Vec<u8>> {
        let mut names = RealDisk.list(&self.folder.path().join("torn")).unwrap();
        names.sort();
        names.iter().map(|name| fs::read(self.folder.path().join("torn").join(name)).unwrap()).collect()
    }
}

fn damage(result: Result<Recovered<RealDisk>, RecoverError>) -> (u64, u64) {
    match result {
        Err(RecoverError::Damaged { index, offset, .. }) => (index, offset),
        other => panic!("{other:?}"),
    }
}

fn three() -> Made {
    Made::new().record("r0").head(0, 1).record("r1").head(1, 2).record("r2").head(2, 3)
}

#[test]
fn an_empty_log_is_made_and_found_again() {
    let made = Made::new();
    for _ in 0..2 {
        let log = made.recover().unwrap();
        assert_eq!((log.size(), log.head, log.open, log.cut), (0, None, vec![], None));
    }
    assert_eq!(fs::read(made.path()).unwrap(), made.bytes);
    assert_eq!(fs::read_to_string(made.folder.path().join("boot")).unwrap(), "now");
}

#[test]
fn a_clean_log_is_gone_on_with_where_it_ends() {
    let made = three();
    made.write();
    let log = made.recover().unwrap();
    assert_eq!((log.size(), log.length, log.tag), (3, made.bytes.len() as u64, made.chain.tag()));
    assert_eq!((log.frontier, log.head.unwrap().size(), log.cut), (made.tree, 3, None));
}

#[test]
fn a_torn_tail_is_cut_and_kept_at_every_byte_of_the_last_frames() {
    for boot in ["now", "before"] {
        let made = three().booted(boot);
        let (record, head, end) = (made.offsets[4], made.offsets[5], made.offsets[6]);
        for cut_at in record..end {
            made.note_boot(boot);
            let log = made.recover_from(&made.bytes[..cut_at]).unwrap();
            let whole = if cut_at < head { record } else { head };
            assert_eq!(log.size(), if cut_at < head { 2 } else { 3 }, "byte {cut_at}");
            assert_eq!(fs::read(made.path()).unwrap(), made.bytes[..whole]);
            assert_eq!(log.length, whole as u64);
            assert_eq!(log.cut.is_some(), cut_at != whole);
            if let Some(cut) = log.cut {
                assert_eq!(fs::read(cut.kept).unwrap(), made.bytes[whole..cut_at]);
            }
        }
    }
}

#[test]
fn a_bad_last_frame_is_a_torn_tail() {
    let made = three();
    let mut bytes = made.bytes.clone();
    bytes[made.offsets[5] + 30] ^= 1;
    bytes.extend([0; 4_096]);
    let log = made.recover_from(&bytes).unwrap();
    assert_eq!((log.size(), log.head.unwrap().size()), (3, 2));
    assert_eq!(made.torn(), [bytes[made.offsets[5]..].to_vec()]);
}

#[test]
fn damage_in_the_middle_without_a_power_loss_is_refused_with_its_index() {
    let made = three();
    for (frame, index) in [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)] {
        for at in made.offsets[frame]..made.offsets[frame + 1] {
            made.note_boot("now");
            let mut bytes = made.bytes.clone();
            bytes[at] ^= 0x10;
            let found = damage(made.recover_from(&bytes));
            assert_eq!(found, (index, made.offsets[frame] as u64), "byte {at}");
            assert_eq!(fs::read(made.path()).unwrap(), bytes, "nothing is changed");
        }
    }
}

#[test]
fn after_a_power_loss_a_bad_place_is_damage_only_where_it_was_known_to_be_synced() {
    let made = three();
    for (frame, kept) in [(0, None), (1, None), (2, None), (3, Some(2)), (4, Some(2))] {
        made.note_boot("before");
        let mut bytes = made.bytes.clone();
        bytes[made.offsets[frame] + 25] ^= 1;
        match kept {
            None => assert_eq!(damage(made.recover_from(&bytes)).1, made.offsets[frame] as u64),
            Some(size) => assert_eq!(made.recover_from(&bytes).unwrap().size(), size, "frame {frame}"),
        }
    }
}

#[test]
fn a_later_head_by_a_foreign_key_does_not_make_a_torn_tail_damage() {
    let foreign = PrivateKey::from_seed("base", [8; 32]).unwrap().for_log("base/x").unwrap();
    let made = Made::new().record("r0").record("r1").head_by(&foreign, 2, 2).booted("before");
    let mut bytes = made.bytes.clone();
    bytes[made.offsets[1] + 22] ^= 1;
    assert_eq!(made.recover_from(&bytes).unwrap().size(), 1);
}

#[test]
fn a_log_below_its_checkpoint_is_refused_and_left_as_it_is() {
    let made = three();
    let root = made.tree.root();
    let made = made.published(3, root);
    assert_eq!(made.recover_from(&made.bytes).unwrap().size(), 3);
    let short = &made.bytes[..made.offsets[5] - 1];
    let refused = made.recover_from(short).unwrap_err();
    assert!(matches!(refused, RecoverError::BelowCheckpoint { size: 2, published: 3, .. }), "{refused}");
    assert_eq!(fs::read(made.path()).unwrap(), short);
    fs::remove_file(made.path()).unwrap();
    let refused = made.recover().unwrap_err();
    assert!(matches!(refused, RecoverError::BelowCheckpoint { size: 0, published: 3, .. }), "{refused}");
    assert!(!made.path().exists());
}

#[test]
fn a_checkpoint_of_other_records_or_by_another_key_is_refused() {
    let made = three().published(2, [1; 32]);
    assert_eq!(damage(made.recover_from(&made.bytes)).0, 2);
    let path = made.folder.path().join("checkpoint");
    let foreign = PrivateKey::from_seed("base", [8; 32]).unwrap().for_log("base/x").unwrap();
    let root = made.tree.root();
    for note in [SignedHead::sign(&foreign, 3, root).unwrap().note(), b"", b"base/x\n3\n"] {
        fs::write(&path, note).unwrap();
        assert!(matches!(made.recover(), Err(RecoverError::Checkpoint { .. })));
    }
    let good = made.published(3, root);
    assert!(good.recover().is_ok());
}

#[test]
fn an_edited_record_under_a_right_checksum_is_refused_by_its_tag() {
    // Also where no head covers it yet, and where it is the last.
    for made in [three(), Made::new().record("r0").record("r1").record("r2")] {
        let frames: Vec<_> = Frames::new(&made.bytes, made.offsets[0]).collect();
        let records = frames.iter().filter(|(_, frame)| frame.kind == Kind::Record);
        for (index, (offset, frame)) in records.enumerate() {
            let mut bytes = made.bytes.clone();
            reframe(&mut bytes, *offset, frame, |payload| payload[0] = b'x');
            assert_eq!(damage(made.recover_from(&bytes)), (index as u64, *offset as u64));
        }
    }
}

#[test]
fn a_head_by_a_foreign_key_or_for_other_records_is_refused() {
    let foreign = PrivateKey::from_seed("base", [8; 32]).unwrap().for_log("base/x").unwrap();
    let made = Made::new().record("r0").head_by(&foreign, 0, 1);
    assert_eq!(damage(made.recover_from(&made.bytes)), (1, made.offsets[1] as u64));
    let other = Made::new().key.for_log("base/y").unwrap();
    let made = Made::new().record("r0").head_by(&other, 0, 1);
    assert_eq!(damage(made.recover_from(&made.bytes)), (1, made.offsets[1] as u64));
    // Right tags and signatures, but a tree that has another record in it.
    let mut made = Made::new().record("r0");
    made.tree = Frontier::default();
    made.tree.push(leaf_hash(b"r1"));
    let made = made.head(0, 1);
    assert_eq!(damage(made.recover_from(&made.bytes)), (1, made.offsets[1] as u64));
}

#[test]
fn a_log_goes_on_over_several_segments_and_the_last_may_be_empty() {
    let made = three().rolled().record("r3").head(3, 4).rolled();
    made.write();
    let log = made.recover().unwrap();
    assert_eq!((log.size(), log.first, log.head.unwrap().size()), (4, 4, 4));
    let made = made.record("r4");
    made.write();
    let log = made.recover().unwrap();
    assert_eq!((log.size(), log.head.unwrap().size(), log.frontier), (5, 4, made.tree));
}

#[test]
fn a_header_that_does_not_go_on_from_the_segment_before_is_refused() {
    let good = three().rolled();
    good.write();
    let mut forged = Frontier::default();
    (0..3).for_each(|_| forged.push([1; 32]));
    let header = Header { frontier: forged, tag: good.chain.tag() };
    assert_eq!(damage(good.recover_from(&header.encode())), (3, 0));
    let header = Header { frontier: good.tree.clone(), tag: [1; 16] };
    assert_eq!(damage(good.recover_from(&header.encode())), (3, 0));
    assert!(good.recover_from(&good.bytes).is_ok());
    fs::remove_file(good.folder.path().join("segments").join(segment::name(0))).unwrap();
    assert_eq!(damage(good.recover()), (3, 0));
}

#[test]
fn a_torn_header_of_a_new_segment_is_kept_aside_and_the_segment_before_goes_on() {
    let made = three().rolled();
    for length in 0..made.bytes.len() {
        let log = made.recover_from(&made.bytes[..length]).unwrap();
        assert_eq!((log.size(), log.first, log.cut.unwrap().bytes), (3, 0, length as u64));
        assert!(!made.path().exists());
        assert!(made.torn().contains(&made.bytes[..length].to_vec()));
    }
    let made = made.record("r3");
    let mut bytes = made.bytes.clone();
    bytes[20] ^= 1;
    assert_eq!(damage(made.recover_from(&bytes)), (3, 0));
    fs::write(made.folder.path().join("segments/00000000000000000009.new"), b"x").unwrap();
    assert_eq!(made.recover_from(&made.bytes).unwrap().size(), 4);
    assert_eq!(RealDisk.list(&made.folder.path().join("segments")).unwrap().len(), 2);
}

#[test]
fn intents_without_an_outcome_are_returned_from_all_segments_that_hold_them() {
    let made = Made::new().record("ia").record("ib").head(0, 0).rolled().record("oa").head(2, 1).rolled();
    let made = made.record("ic").head(3, 1).record("id").record("oc");
    made.write();
    let open: Vec<_> =
        made.recover().unwrap().open.into_iter().map(|open| (open.index, open.bytes)).collect();
    assert_eq!(open, [(1, b"ib".to_vec()), (4, b"id".to_vec())]);
    // Nothing is open before what the last head tells.
    let made = Made::new().record("ia").record("oa").record("ib").head(0, 2);
    let open = made.recover_from(&made.bytes).unwrap().open;
    assert_eq!(open.iter().map(|open| open.index).collect::<Vec<_>>(), [2]);
    fs::write(made.path(), &made.bytes[..made.offsets[3]]).unwrap();
    assert_eq!(made.recover().unwrap().open.len(), 1);
}

#[test]
fn after_a_rotation_heads_of_the_key_before_vouch_for_what_it_wrote() {
    let (old, new) =
        (PrivateKey::from_seed("base", [7; 32]).unwrap(), PrivateKey::from_seed("base", [8; 32]).unwrap());
    let public = old.public();
    let made = Made::with(old).record("r0").record("r1").head(0, 2).rotated(new);
    made.write();
    assert_eq!(damage(made.recover()), (0, made.offsets[0] as u64));
    assert_eq!(made.recover_knowing(std::slice::from_ref(&public)).unwrap().size(), 2);
    let made = made.record("r2").head(2, 3);
    made.write();
    assert_eq!(made.recover_knowing(std::slice::from_ref(&public)).unwrap().size(), 3);
    let mut bytes = made.bytes.clone();
    let frame = Frame::read(&made.bytes[made.offsets[1]..]).unwrap();
    reframe(&mut bytes, made.offsets[1], &frame, |payload| payload[0] = b'x');
    fs::write(made.path(), &bytes).unwrap();
    assert_eq!(damage(made.recover_knowing(&[public])).0, 0);
}

/// Writes a frame anew with another payload and a right checksum.
fn reframe(bytes: &mut [u8], offset: usize, frame: &Frame<'_>, edit: impl Fn(&mut [u8])) {
    let end = offset + frame.bytes_len();
    edit(&mut bytes[offset + 21..end - 4]);
    let crc = crc32c::crc32c(&bytes[offset..end - 4]);
    bytes[end - 4..end].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn published_tiles_that_reach_beyond_the_end_are_refused_though_the_checkpoint_is_gone() {
    let made = Made::new().record("a").record("b").head(0, 2).record("c").head(2, 3);
    made.write();
    let tiles = made.folder.path().join("tile/0/000.p");
    fs::create_dir_all(&tiles).unwrap();
    fs::write(tiles.join("3"), b"").unwrap();
    made.recover().unwrap(); // the log holds all three
    let cut = &made.bytes[..made.offsets[3]];
    let refused = made.recover_from(cut).unwrap_err();
    assert!(matches!(refused, RecoverError::BelowCheckpoint { size: 2, published: 3, .. }), "{refused}");
    fs::remove_file(tiles.join("3")).unwrap();
    fs::write(made.folder.path().join("tile/0/000"), b"").unwrap();
    let refused = made.recover_from(cut).unwrap_err();
    assert!(matches!(refused, RecoverError::BelowCheckpoint { size: 2, published: 256, .. }), "{refused}");
}

#[test]
fn a_segment_that_nobody_can_have_written_is_refused_unread() {
    let made = Made::new().record("a").head(0, 1);
    made.write();
    fs::File::options().append(true).open(made.path()).unwrap().set_len(SEGMENT_BYTES_MAX + 1).unwrap();
    let refused = made.recover().unwrap_err();
    assert!(
        refused.to_string().ends_with("it is larger than any segment that was ever written"),
        "{refused}"
    );
}
