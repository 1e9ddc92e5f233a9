//! Damage of every kind to a log of 1,000 records: all of it is found, and the right record named.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use tempfile::TempDir;

use super::{
    publish::Publisher,
    sample::{LogBytes, frame, signer, vkey},
    verifier::{
        Damage, LogReport, Report, Rule, Signatures, TILE_WIDTH,
        frame::any_frame,
        note::Key,
        published, verify,
        walk::{Place, Stop, Tile, Walk},
    },
};

const RECORDS: u64 = 1_000;
const SEGMENT: u64 = 130;

/// A state folder with one log, `serve-0`, with all that is published of it.
struct Sample {
    state: TempDir,
    log: PathBuf,
    bytes: LogBytes,
    keys: Vec<Key>,
}

impl Sample {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let log = state.path().join("audit/serve-0");
        let bytes = log_bytes("serve-0", RECORDS, &|index| format!("r{index}"));
        bytes.write(&log);
        let (size, note) = bytes.heads.last().unwrap();
        Publisher::anew(&log).publish(note, *size).unwrap();
        let keys = vec![Key::parse(&vkey(&signer(1))).unwrap()];
        Self { state, log, bytes, keys }
    }

    fn verify(&self) -> Report {
        verify(self.state.path(), &self.keys, Signatures::Every, &mut |_| ()).unwrap()
    }

    fn only(&self) -> LogReport {
        self.verify().logs.remove(0)
    }

    /// The first damage, found the quick way: that makes the many rounds bearable, and finds the same here.
    fn first_damage(&self) -> Damage {
        let report = verify(self.state.path(), &self.keys, Signatures::Covering, &mut |_| ()).unwrap();
        report.damage().next().cloned().expect("the damage has to be found")
    }

    fn segment(&self, at: usize) -> PathBuf {
        self.log.join(format!("segments/{:020}.log", self.bytes.segments[at].0))
    }

    fn log_keys(&self) -> Arc<[Key]> {
        self.keys.iter().map(|key| key.of_log("serve-0")).collect()
    }

    /// Rewrites one segment with other frames.
    fn rewrite(&self, at: usize, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
        let mut frames = self.bytes.segments[at].1.clone();
        change(&mut frames);
        fs::write(self.segment(at), frames.concat()).unwrap();
    }

    fn restore(&self, at: usize) {
        fs::write(self.segment(at), self.bytes.segments[at].1.concat()).unwrap();
    }
}

/// A log with heads after 1, 2, 3 … 40 records, over and over.
fn log_bytes(name: &str, records: u64, record: &dyn Fn(u64) -> String) -> LogBytes {
    let mut bytes = LogBytes::new(name, &signer(1));
    let (mut group, mut left) = (1, 1);
    for index in 0..records {
        bytes.record(record(index).as_bytes());
        left -= 1;
        if left == 0 || index + 1 == records {
            bytes.head();
            group = group % 40 + 1;
            left = group;
            if index + 1 < records && bytes.size - bytes.segments.last().unwrap().0 >= SEGMENT {
                bytes.segment();
            }
        }
    }
    bytes
}

fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

/// Flips one bit of a file while `look` looks at it.
fn with_flipped<T>(file: &Path, bit: usize, look: impl FnOnce() -> T) -> T {
    let open = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    open.read_exact_at(&mut byte, bit as u64 / 8).unwrap();
    open.write_all_at(&[byte[0] ^ (1 << (bit % 8))], bit as u64 / 8).unwrap();
    let seen = look();
    open.write_all_at(&byte, bit as u64 / 8).unwrap();
    seen
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The frames of a segment before which a walk stands: the frame, its offset, and the walk.
fn walks(sample: &Sample, at: usize) -> Vec<(usize, u64, Walk)> {
    let mut walk = Walk::new(sample.log_keys());
    for segment in 0..at {
        for (frame, bytes) in sample.bytes.segments[segment].1.iter().enumerate() {
            go(&mut walk, frame, bytes, 0, sample.bytes.segments[segment].0).unwrap();
        }
    }
    let (mut offset, mut walks) = (0, Vec::new());
    let (first, frames) = &sample.bytes.segments[at];
    for (frame, bytes) in frames.iter().enumerate() {
        walk.tiles.clear();
        walk.signatures.clear();
        walks.push((frame, offset, walk.clone()));
        go(&mut walk, frame, bytes, offset, *first).unwrap();
        offset += bytes.len() as u64;
    }
    walks
}

fn go(walk: &mut Walk, frame: usize, bytes: &[u8], offset: u64, segment: u64) -> Result<usize, Stop> {
    if frame == 0 { walk.header(bytes) } else { walk.step(bytes, Place { segment, offset }) }
}

/// What a walk does at a frame depends on the frames before, which are whole, and on its bytes: so each flipped
/// frame is shown to the walk that stands before it. Where the flip makes the frame look longer than the segment
/// is, the whole log is verified.
#[test]
fn every_flipped_bit_of_the_segments_is_found_and_the_record_named() {
    let sample = Sample::new();
    let segments = 0..sample.bytes.segments.len();
    let mut by_file = 0;
    let flipped: usize = thread::scope(|scope| {
        let (even, odd): (Vec<_>, Vec<_>) = segments.partition(|at| at % 2 == 0);
        let workers = [even, odd].map(|half| {
            let sample = &sample;
            scope.spawn(move || half.iter().map(|at| flip_segment(sample, *at)).collect::<Vec<_>>())
        });
        let done: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        for (at, frame, bit) in done.iter().flat_map(|(_, long)| long) {
            by_file += 1;
            let frames = &sample.bytes.segments[*at].1;
            let offset: usize = frames[..*frame].iter().map(Vec::len).sum();
            let damage = with_flipped(&sample.segment(*at), offset * 8 + bit, || sample.first_damage());
            let (index, last) = (record_at(&sample, *at, *frame), at + 1 == sample.bytes.segments.len());
            // The very last head reads as one cut short: then the checkpoint tells that it was whole.
            let beyond = last && *frame + 1 == frames.len();
            let rule = if beyond { Rule::CheckpointBeyond } else { Rule::CutShort };
            assert_eq!(
                (&damage.rule, damage.index),
                (&rule, if beyond { index - 1 } else { index }),
                "{damage}"
            );
        }
        done.iter().map(|(flipped, _)| flipped).sum()
    });
    let bytes: usize = sample.bytes.segments.iter().flat_map(|(_, frames)| frames).map(Vec::len).sum();
    assert_eq!(flipped, bytes * 8);
    assert!(by_file > 0 && sample.verify().is_clean());
}

/// How many records come before a frame.
fn record_at(sample: &Sample, at: usize, frame: usize) -> u64 {
    let (first, frames) = &sample.bytes.segments[at];
    first + frames[1..frame.max(1)].iter().filter(|frame| frame[4] == 1).count() as u64
}

/// Flips each bit of a segment; returns how many, and the frames and bits that ask for the whole log.
fn flip_segment(sample: &Sample, at: usize) -> (usize, Vec<(usize, usize, usize)>) {
    let (first, frames) = &sample.bytes.segments[at];
    let (mut flipped, mut long) = (0, Vec::new());
    let mut rest = frames.concat();
    for (frame, offset, walk) in walks(sample, at) {
        for bit in 0..frames[frame].len() * 8 {
            flip(&mut rest, bit);
            let mut walk = walk.clone();
            match go(&mut walk, frame, &rest, offset, *first) {
                Ok(_) => panic!("bit {bit} of frame {frame} of segment {first} went unseen"),
                Err(Stop::Fault(fault)) => assert_eq!(fault.index, record_at(sample, at, frame)),
                Err(Stop::Short) => long.push((at, frame, bit)),
                Err(Stop::WrongTree { .. }) => panic!("a flipped bit gets past the checksum"),
            }
            flip(&mut rest, bit);
            flipped += 1;
        }
        rest.drain(..frames[frame].len());
    }
    (flipped, long)
}

#[test]
fn every_flipped_bit_of_tiles_and_bundles_is_found_and_the_record_named() {
    let sample = Sample::new();
    let tiles = tiles(&sample);
    let mut published = Vec::new();
    files(&sample.log.join("tile"), &mut published);
    let mut flipped = 0;
    for file in &published {
        let (path, tile) = tile_of(&sample, &tiles, file);
        let ends = entry_ends(&fs::read(file).unwrap(), path.starts_with("tile/entries"));
        for bit in 0..ends.last().unwrap() * 8 {
            let mut damage = Vec::new();
            with_flipped(file, bit, || {
                published::check("serve-0", &sample.log, RECORDS, tile, &mut damage).unwrap();
            });
            let entry = ends.iter().position(|end| bit / 8 < *end).unwrap() as u64;
            let expected = (tile.index * 256 + entry) << (8 * tile.level);
            assert_eq!((damage.len(), damage[0].index), (1, expected), "{path} bit {bit}");
            assert_eq!(damage[0].file, *file);
            flipped += 1;
            // The whole log says the same.
            if flipped % 4_999 == 0 {
                assert_eq!(with_flipped(file, bit, || sample.only().damage), damage);
            }
        }
    }
    let bytes: u64 = published.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(flipped, bytes * 8);
    assert!(published.len() == 9 && sample.verify().is_clean(), "{published:?}");
}

/// The path of a published file in the log's folder, and the tile that it is, or whose records it holds.
fn tile_of<'a>(sample: &Sample, tiles: &'a [Tile], file: &'a Path) -> (&'a str, &'a Tile) {
    let path = file.strip_prefix(&sample.log).unwrap().to_str().unwrap();
    let of = |tile: &&Tile| {
        let level = tile.level.to_string();
        let starts = |level| {
            let whole = published::tile_path(level, tile.index, TILE_WIDTH);
            path == whole || path.strip_prefix(&whole).is_some_and(|rest| rest.starts_with(".p/"))
        };
        starts(&level) || (tile.level == 0 && starts("entries"))
    };
    (path, tiles.iter().find(of).unwrap_or_else(|| panic!("`{path}` is no tile of the log")))
}

/// Where each entry of a tile or bundle ends.
fn entry_ends(bytes: &[u8], bundle: bool) -> Vec<usize> {
    let (mut ends, mut end) = (Vec::new(), 0);
    while end < bytes.len() {
        let length =
            if bundle { 2 + usize::from(u16::from_be_bytes([bytes[end], bytes[end + 1]])) } else { 32 };
        end += length;
        ends.push(end);
    }
    ends
}

/// The tiles of the log as the walk through its segments has them.
fn tiles(sample: &Sample) -> Vec<Tile> {
    let mut walk = Walk::new(sample.log_keys());
    for (first, frames) in &sample.bytes.segments {
        for (frame, bytes) in frames.iter().enumerate() {
            go(&mut walk, frame, bytes, 0, *first).unwrap();
        }
    }
    let edges = (0..).zip(&walk.edge).filter(|(_, edge)| !edge.hashes.is_empty());
    let edges = edges.map(|(level, edge)| Tile { level, index: edge.index, hashes: edge.hashes.clone() });
    walk.tiles.iter().cloned().chain(edges).collect()
}

#[test]
fn every_flipped_bit_of_the_checkpoint_is_found() {
    let sample = Sample::new();
    let file = sample.log.join("checkpoint");
    let size = file.metadata().unwrap().len() as usize;
    for bit in 0..size * 8 {
        let damage = with_flipped(&file, bit, || sample.first_damage());
        assert_eq!((damage.rule, damage.file), (Rule::CheckpointForm, file.clone()), "bit {bit}");
    }
    assert!(sample.verify().is_clean());
}

/// Wherever a frame is cut, the walk before it stops there and nothing in the rest looks like a frame: so the file
/// itself is cut at the ends and in the middle of each frame.
#[test]
fn every_truncation_is_found() {
    let sample = Sample::new();
    let (last, segments) = (sample.bytes.segments.len() - 1, &sample.bytes.segments);
    let mut cuts = 0;
    for (at, (first, frames)) in segments.iter().enumerate() {
        let whole = frames.concat();
        for (frame, offset, walk) in walks(&sample, at) {
            let bytes = &frames[frame];
            for length in 0..bytes.len() {
                let stop = go(&mut walk.clone(), frame, &bytes[..length], offset, *first);
                assert!(stop == Err(Stop::Short) && !any_frame(&bytes[..length]), "cut at {length}");
                cuts += 1;
            }
            for length in [0, bytes.len() / 2, bytes.len() - 1] {
                fs::write(sample.segment(at), &whole[..offset as usize + length]).unwrap();
                let damage = sample.first_damage();
                // Where only the last head is cut, no record is missing: the last one is no longer covered.
                assert_eq!(damage.index, record_at(&sample, at, frame).min(RECORDS - 1), "{damage}");
                assert!(at == last || damage.rule != Rule::CheckpointBeyond, "{damage}");
            }
        }
        sample.restore(at);
    }
    assert_eq!(cuts, segments.iter().flat_map(|(_, frames)| frames).map(Vec::len).sum::<usize>());
    for (at, (first, _)) in segments.iter().enumerate() {
        (at..=last).for_each(|at| fs::remove_file(sample.segment(at)).unwrap());
        assert_eq!(sample.first_damage().index, *first);
        (at..=last).for_each(|at| sample.restore(at));
        fs::remove_file(sample.segment(at)).unwrap();
        assert_eq!(sample.first_damage().index, *first);
        sample.restore(at);
    }
    assert!(sample.verify().is_clean());
}

#[test]
fn every_truncation_of_what_is_published_is_found_and_the_record_named() {
    let sample = Sample::new();
    let checkpoint = sample.log.join("checkpoint");
    let whole = fs::read(&checkpoint).unwrap();
    for length in 0..whole.len() {
        fs::write(&checkpoint, &whole[..length]).unwrap();
        assert_eq!(sample.first_damage().file, checkpoint, "cut at {length}");
    }
    fs::write(&checkpoint, whole).unwrap();
    let tiles = tiles(&sample);
    let mut published = Vec::new();
    files(&sample.log.join("tile"), &mut published);
    assert_eq!(published.len(), 9, "{published:?}");
    let mut cuts = 0;
    for file in &published {
        let (path, tile) = tile_of(&sample, &tiles, file);
        let whole = fs::read(file).unwrap();
        let ends = entry_ends(&whole, path.starts_with("tile/entries"));
        for length in 0..whole.len() {
            fs::write(file, &whole[..length]).unwrap();
            let mut damage = Vec::new();
            published::check("serve-0", &sample.log, RECORDS, tile, &mut damage).unwrap();
            let entry = ends.iter().position(|end| length < *end).unwrap() as u64;
            let expected = (tile.index * 256 + entry) << (8 * tile.level);
            assert_eq!((damage.len(), damage[0].index), (1, expected), "{path} cut at {length}");
            assert_eq!(damage[0].file, *file);
            cuts += 1;
            // The whole log says the same.
            if cuts % 499 == 0 {
                assert_eq!(sample.only().damage, damage);
            }
        }
        fs::write(file, whole).unwrap();
    }
    let bytes: u64 = published.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(cuts, bytes);
    assert!(sample.verify().is_clean());
}

/// A change to the frames of a segment.
type Edit<'a> = dyn Fn(&mut Vec<Vec<u8>>) + 'a;

/// What somebody without the key can do: whole frames with right checksums in other places.
#[test]
fn swapped_dropped_and_doubled_records_are_found_and_named() {
    let sample = Sample::new();
    for at in 0..sample.bytes.segments.len() {
        let frames = &sample.bytes.segments[at].1;
        let records: Vec<usize> = (1..frames.len()).filter(|frame| frames[*frame][4] == 1).collect();
        for pair in records.windows(2) {
            let [first, second] = [pair[0], pair[1]];
            let index = record_at(&sample, at, first);
            let edits: [(&str, &Edit<'_>, u64); 3] = [
                ("swap", &|frames| frames.swap(first, second), index),
                ("drop", &|frames| drop(frames.remove(first)), index),
                ("double", &|frames| frames.insert(first, frames[first].clone()), index + 1),
            ];
            for (what, edit, bad) in edits {
                sample.rewrite(at, edit);
                let damage = sample.first_damage();
                let found = (&damage.rule, damage.index, damage.until, &damage.file);
                assert_eq!(
                    found,
                    (&Rule::HeadTree, bad, Some(bad + 1), &sample.segment(at)),
                    "{what} {index}"
                );
            }
        }
        sample.restore(at);
    }
    assert!(sample.verify().is_clean());
}

#[test]
fn a_record_of_another_log_is_found_and_named_with_and_without_tiles() {
    let sample = Sample::new();
    let tag = [7; 16];
    for published in [true, false] {
        if !published {
            fs::remove_dir_all(sample.log.join("tile")).unwrap();
            fs::remove_file(sample.log.join("checkpoint")).unwrap();
        }
        for (at, number) in [(0, 1), (3, 20), (7, 5)] {
            let number = number.min(sample.bytes.segments[at].1.len() - 1);
            let index = record_at(&sample, at, number);
            sample.rewrite(at, |frames| frames.insert(number, frame(1, &tag, b"of another log")));
            let damage = sample.first_damage();
            assert!(damage.index <= index && damage.until.unwrap() > index, "{damage}");
            assert!(!published || (damage.index, damage.until) == (index, Some(index + 1)), "{damage}");
            sample.restore(at);
        }
    }
    assert!(sample.verify().is_clean());
}

#[test]
fn a_head_by_another_key_is_found_though_its_tree_is_right() {
    let sample = Sample::new();
    let mut forged = LogBytes::new("serve-0", &signer(2));
    (0..10).for_each(|index| forged.record(format!("r{index}").as_bytes()));
    forged.head();
    let mut edited = forged.segments[0].1.last().unwrap().clone();
    sample.rewrite(0, |frames| {
        let at = frames.iter().position(|frame| frame[4] == 2 && record_at(&sample, 0, 0) == 0).unwrap();
        edited = frames[at].clone();
        // The signature's last bits but four, with the checksum made right again.
        let end = edited.len() - 4;
        let letter = &mut edited[end - 12];
        *letter = if *letter == b'A' { b'B' } else { b'A' };
        let payload = edited[21..end].to_vec();
        frames[at] = frame(2, &[3; 16], &payload);
    });
    let damage = sample.only().damage.remove(0);
    assert_eq!((damage.rule, damage.index), (Rule::HeadSignature, 0));
    // A later head proves the same records: nothing is wrong with those.
    let covering = || verify(sample.state.path(), &sample.keys, Signatures::Covering, &mut |_| ()).unwrap();
    assert!(covering().is_clean() && covering().logs[0].signatures == sample.bytes.segments.len() as u64);
    sample.rewrite(0, |frames| {
        let at = frames.iter().position(|frame| frame[4] == 2).unwrap();
        frames[at] = forged.segments[0].1.last().unwrap().clone();
    });
    assert_eq!(sample.only().damage.remove(0).rule, Rule::HeadSignature);
    sample.restore(0);
    // Where there is none, it is needed.
    sample.rewrite(3, |frames| {
        let end = frames.last().unwrap().len() - 4;
        let mut payload = frames.last().unwrap()[21..end].to_vec();
        let letter = payload.len() - 12;
        payload[letter] = if payload[letter] == b'A' { b'B' } else { b'A' };
        *frames.last_mut().unwrap() = frame(2, &sample.bytes.last_tag(3), &payload);
    });
    let damage = covering().logs.remove(0).damage.remove(0);
    assert_eq!((damage.rule, damage.file), (Rule::HeadSignature, sample.segment(3)));
}

/// Somebody without the key edits a record and makes all that follows fit, but for the signatures.
#[test]
fn an_edit_behind_which_only_signatures_are_wrong_is_named_where_it_is_with_fewer_signatures_too() {
    let sample = Sample::new();
    let edited = |index| if index == 500 { "edited".to_owned() } else { format!("r{index}") };
    let mut edited = log_bytes("serve-0", RECORDS, &edited);
    let mut size = 0;
    for frame in edited.segments.iter_mut().flat_map(|(_, frames)| frames) {
        size += u64::from(frame[4] == 1);
        if frame[4] == 2 && size > 500 {
            let (tag, mut payload) = (frame[5..21].try_into().unwrap(), frame[21..frame.len() - 4].to_vec());
            let letter = payload.len() - 12;
            payload[letter] = if payload[letter] == b'A' { b'B' } else { b'A' };
            *frame = super::sample::frame(2, &tag, &payload);
        }
    }
    edited.write(&sample.log);
    let before = sample.bytes.heads.iter().rfind(|(size, _)| *size <= 500).unwrap().0;
    let after = sample.bytes.heads.iter().find(|(size, _)| *size > 500).unwrap().0;
    for which in [Signatures::Every, Signatures::Covering] {
        let report = verify(sample.state.path(), &sample.keys, which, &mut |_| ()).unwrap();
        let damage = report.damage().find(|damage| damage.rule == Rule::HeadSignature).unwrap();
        assert_eq!((damage.index, damage.until), (before, Some(after)), "{which:?}");
        assert_eq!(report.logs[0].signed, before, "{which:?}");
    }
}

#[test]
fn records_after_the_last_head_are_unsigned_and_a_cut_frame_is_torn_but_neither_is_damage() {
    let sample = Sample::new();
    let last = sample.bytes.segments.len() - 1;
    sample.rewrite(last, |frames| {
        frames.push(frame(1, &[1; 16], b"unsigned"));
        let mut cut = frame(1, &[1; 16], b"cut");
        cut.truncate(20);
        frames.push(cut);
    });
    let report = sample.only();
    assert_eq!((report.unsigned(), report.records, report.damage.len()), (1, RECORDS + 1, 0));
    assert_eq!(report.torn.unwrap().bytes, 20);
}

#[test]
fn missing_tiles_and_bundles_are_named() {
    let sample = Sample::new();
    for (file, rule) in [
        ("tile/0/001", Rule::TileMissing),
        ("tile/entries/002", Rule::BundleMissing),
        ("tile/0/003.p/232", Rule::TileMissing),
        ("tile/1/000.p/3", Rule::TileMissing),
    ] {
        let bytes = fs::read(sample.log.join(file)).unwrap();
        fs::remove_file(sample.log.join(file)).unwrap();
        let damage = sample.first_damage();
        assert_eq!((damage.rule, damage.file), (rule, sample.log.join(file)));
        fs::write(sample.log.join(file), bytes).unwrap();
    }
    assert!(sample.verify().is_clean());
}

#[test]
fn a_checkpoint_that_was_published_for_certain_is_missed() {
    let state = tempfile::tempdir().unwrap();
    let keys = vec![Key::parse(&vkey(&signer(1))).unwrap()];
    let folder = state.path().join("audit/serve-0");
    let rules = || -> Vec<(Rule, PathBuf)> {
        let report = verify(state.path(), &keys, Signatures::Every, &mut |_| ()).unwrap();
        report.damage().map(|damage| (damage.rule.clone(), damage.file.clone())).collect()
    };
    let text = |index: u64, seconds: u64| {
        let kind = if index == 0 { "start" } else { "outcome" };
        format!(r#"{{"record":"{kind}","time":"2026-11-23T10:00:{:02}Z","v":1}}"#, index * seconds)
    };
    // Five records, within four seconds and within twenty.
    log_bytes("serve-0", 5, &|index| text(index, 1)).write(&folder);
    assert_eq!(rules(), [], "its writer may have died at once");
    fs::write(
        folder.join("cosignatures"),
        log_bytes("serve-0", 5, &|index| text(index, 1)).heads[1].1.clone(),
    )
    .unwrap();
    assert_eq!(rules(), [(Rule::CheckpointMissing, folder.join("checkpoint"))], "a witness has seen one");
    fs::remove_file(folder.join("cosignatures")).unwrap();
    let long = log_bytes("serve-0", 5, &|index| text(index, 5));
    long.write(&folder);
    assert_eq!(rules(), [(Rule::CheckpointMissing, folder.join("checkpoint"))]);
    let (size, note) = long.heads.last().unwrap();
    Publisher::anew(&folder).publish(note, *size).unwrap();
    assert_eq!(rules(), []);
}

/// A record of another log's head.
fn heads_record(log: &str, note: &[u8]) -> String {
    let heads = serde_json::json!([{"checkpoint": str::from_utf8(note).unwrap(), "log": log}]);
    format!("{{\"heads\":{heads},\"record\":\"heads\",\"v\":1}}")
}

#[test]
fn a_log_that_another_one_has_on_record_must_exist_and_hold_that_head() {
    let state = tempfile::tempdir().unwrap();
    let keys = vec![Key::parse(&vkey(&signer(1))).unwrap()];
    let other = log_bytes("serve-1", 100, &|index| format!("other {index}"));
    let forked = log_bytes("serve-1", 100, &|index| format!("another {index}"));
    let shorter = log_bytes("serve-1", 20, &|index| format!("other {index}"));
    let recorded = |note: Vec<u8>| {
        let text = move |index| if index == 7 { heads_record("serve-1", &note) } else { format!("r{index}") };
        log_bytes("serve-0", 30, &text).write(&state.path().join("audit/serve-0"));
    };
    let folder = state.path().join("audit/serve-1");
    let first =
        || verify(state.path(), &keys, Signatures::Every, &mut |_| ()).unwrap().damage().next().cloned();
    let rule = || first().map(|damage| (damage.log, damage.index, damage.rule));
    let expect = |rule| Some(("serve-0".to_owned(), 7, rule));

    let publish = |log: &LogBytes| {
        log.write(&folder);
        let (size, note) = log.heads.last().unwrap();
        Publisher::anew(&folder).publish(note, *size).unwrap();
    };

    recorded(other.heads[8].1.clone());
    assert_eq!(rule(), expect(Rule::OtherMissing("serve-1".to_owned())));
    other.write(&folder);
    let unpublished = Some(("serve-1".to_owned(), 100, Rule::CheckpointMissing));
    assert_eq!(rule(), unpublished, "what is on record of it was published");
    publish(&other);
    assert_eq!(rule(), None);
    publish(&shorter);
    assert_eq!(rule(), expect(Rule::OtherShorter("serve-1".to_owned())));
    publish(&forked);
    assert_eq!(rule(), expect(Rule::OtherTree("serve-1".to_owned())));
    let mut bad = other.heads[8].1.clone();
    let end = bad.len() - 9;
    bad[end] = if bad[end] == b'A' { b'B' } else { b'A' };
    recorded(bad);
    assert_eq!(rule(), expect(Rule::OtherForm));
}

#[test]
fn a_log_is_verified_by_any_of_the_keys_and_by_no_other() {
    let sample = Sample::new();
    let key = |seed| Key::parse(&vkey(&signer(seed))).unwrap();
    let clean =
        |keys: &[Key]| verify(sample.state.path(), keys, Signatures::Every, &mut |_| ()).unwrap().is_clean();
    assert!(clean(&[key(2), key(1)]));
    assert!(!clean(&[key(2)]));
    let other = verify(sample.state.path(), &[key(2)], Signatures::Every, &mut |_| ()).unwrap();
    let said: Vec<String> = other.damage().map(|damage| damage.rule.to_string()).collect();
    insta::assert_snapshot!(
        said.join("; "),
        @"it is signed by the key `callgate.test/0123456789abcdef/serve-0+2da985a1`, and the key given is `callgate.test/0123456789abcdef/serve-0+ffa06055`"
    );
    // A copy of the log by itself, under another name.
    let copy = sample.state.path().join("evidence");
    fs::rename(&sample.log, &copy).unwrap();
    assert!(verify(&copy, &[key(1)], Signatures::Every, &mut |_| ()).unwrap().is_clean());
    assert_eq!(key(1).vkey(), vkey(&signer(1)));
}
