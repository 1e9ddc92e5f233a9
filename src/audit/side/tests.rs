use std::{fs, path::Path, time::Instant};

use super::*;
use crate::store::KeyFileError;

const ORIGIN: &str = "callgate.local/00/serve-0";
const WAIT: Duration = Duration::from_secs(10);
const WIDE: Bounds = Bounds { bytes_max: 64 << 20, age_max: Duration::from_secs(86_400) };

fn key() -> SideKey {
    SideKey::from_bytes([7; 32])
}

fn store(folder: &Path, bounds: Bounds) -> SideStore {
    SideStore::open(folder, ORIGIN, key(), bounds, 0).unwrap()
}

fn reader(folder: &Path) -> SideReader {
    SideReader::new(folder, ORIGIN, key())
}

fn arguments(text: &str) -> Content {
    Content::Body(Kind::Arguments, text.as_bytes().to_vec())
}

/// A store that holds a salt and arguments of calls 1 and 2; what was put under them.
fn two_calls(folder: &Path) -> [Salt; 2] {
    let store = store(folder, WIDE);
    let salts = [Salt::random().unwrap(), Salt::random().unwrap()];
    for (call, salt) in (1..).zip(&salts) {
        let text = format!(r#"{{"order":{call}}}"#);
        store.put(call, None, vec![Content::Salt(salt.clone()), arguments(&text)]).unwrap();
    }
    store.close();
    salts
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files = reader::side_files(folder).unwrap();
    assert_eq!(files.len(), 1);
    files.remove(0).path
}

fn texts(found: &Found) -> Vec<&str> {
    found.bodies.iter().map(|body| std::str::from_utf8(&body.bytes).unwrap()).collect()
}

#[test]
fn what_is_put_under_a_call_is_read_under_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let salts = two_calls(folder.path());
    let found = reader(folder.path()).get(2).unwrap();
    assert_eq!(found.salts, [salts[1].clone()]);
    assert_eq!(texts(&found), [r#"{"order":2}"#]);
    assert!(found.erased.is_empty() && found.damaged.is_empty());
    let nothing = reader(folder.path()).get(3).unwrap();
    assert!(nothing.salts.is_empty() && nothing.bodies.is_empty() && nothing.damaged.is_empty());
}

#[test]
fn nothing_of_a_body_or_a_salt_is_legible_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let [salt, _] = two_calls(folder.path());
    let bytes = fs::read(only_file(folder.path())).unwrap();
    assert!(!bytes.windows(5).any(|window| window == b"order"));
    assert!(!bytes.windows(32).any(|window| window == salt.as_bytes()));
}

#[test]
fn a_wrong_key_reads_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    two_calls(folder.path());
    let other = SideReader::new(folder.path(), ORIGIN, SideKey::from_bytes([8; 32]));
    let found = other.get(1).unwrap();
    assert!(found.salts.is_empty() && found.bodies.is_empty());
    assert_eq!(
        found.damaged.iter().map(|damage| damage.what).collect::<Vec<_>>(),
        ["it is under another key"]
    );
}

#[test]
fn a_wrong_key_that_passes_for_the_right_one_still_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    two_calls(folder.path());
    let path = only_file(folder.path());
    let bytes = fs::read(&path).unwrap();
    let mut head = format::FileHead::decode(&bytes).unwrap();
    head.key_id = SideKey::from_bytes([8; 32]).id();
    fs::write(&path, [&head.encode(), &bytes[format::FILE_HEAD_BYTES..]].concat()).unwrap();
    let found = SideReader::new(folder.path(), ORIGIN, SideKey::from_bytes([8; 32])).get(1).unwrap();
    assert!(found.salts.is_empty() && found.bodies.is_empty());
    assert_eq!(found.damaged.len(), 2);
}

#[test]
fn the_store_of_another_log_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    two_calls(folder.path());
    let found = SideReader::new(folder.path(), "callgate.local/00/serve-1", key()).get(1).unwrap();
    assert!(found.salts.is_empty() && found.bodies.is_empty());
    assert_eq!(found.damaged.len(), 2);
}

/// Where each entry of a file begins, and how long it is.
fn places(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    let mut offset = format::FILE_HEAD_BYTES;
    while let Some(head) = format::EntryHead::decode(&bytes[offset..]) {
        places.push((offset, head.entry_bytes()));
        offset += head.entry_bytes();
        if offset == bytes.len() {
            break;
        }
    }
    places
}

#[test]
fn the_content_of_one_call_under_the_header_of_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    two_calls(folder.path());
    let path = only_file(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    let places = places(&bytes);
    let ((one, length), (other, same)) = (places[1], places[3]);
    assert_eq!(length, same);
    let content = format::ENTRY_HEAD_BYTES..length;
    let (a, b) = (bytes[one..][content.clone()].to_vec(), bytes[other..][content.clone()].to_vec());
    bytes[one..][content.clone()].copy_from_slice(&b);
    bytes[other..][content].copy_from_slice(&a);
    fs::write(&path, bytes).unwrap();
    for call in [1, 2] {
        let found = reader(folder.path()).get(call).unwrap();
        assert!(found.bodies.is_empty());
        assert_eq!(found.damaged.len(), 1, "{found:?}");
        assert_eq!(found.salts.len(), 1, "the other entries are still read");
    }
}

#[test]
fn an_entry_that_is_relabelled_for_another_call_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    two_calls(folder.path());
    let path = only_file(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    let (offset, _) = places(&bytes)[1];
    // The call's id follows length and kind. A thief of the disk can make the CRC right again.
    bytes[offset + 5] = 9;
    let sum = crc32c::crc32c(&bytes[offset..offset + 49]).to_le_bytes();
    bytes[offset + 49..offset + 53].copy_from_slice(&sum);
    fs::write(&path, bytes).unwrap();
    let found = reader(folder.path()).get(9).unwrap();
    assert!(found.bodies.is_empty());
    assert_eq!(found.damaged.len(), 1);
}

#[test]
fn every_flipped_bit_is_reported_and_never_changes_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let salts = two_calls(folder.path());
    let path = only_file(folder.path());
    let good = fs::read(&path).unwrap();
    let erasures: Vec<_> = places(&good).iter().map(|(offset, _)| offset + 53..offset + 61).collect();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        // The number and the time in the file's header are under its CRC, like all of the header.
        let mut noticed = false;
        for (call, salt) in (1..).zip(&salts) {
            let found = reader(folder.path()).get(call).unwrap();
            assert!(found.salts.iter().all(|read| read == salt), "bit {bit}");
            assert!(texts(&found).iter().all(|read| *read == format!(r#"{{"order":{call}}}"#)), "bit {bit}");
            // A flip in a tombstone's place makes one; it hides an entry, as deleting the file would.
            noticed |= !found.damaged.is_empty()
                || erasures.iter().any(|place| place.contains(&(bit / 8))) && !found.erased.is_empty();
        }
        assert!(noticed, "bit {bit}");
    }
}

#[test]
fn a_file_that_ends_anywhere_gives_what_is_whole_and_takes_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    two_calls(folder.path());
    let path = only_file(folder.path());
    let good = fs::read(&path).unwrap();
    let ends: Vec<_> = places(&good).iter().map(|(offset, length)| offset + length).collect();
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        let whole = ends.iter().filter(|end| **end <= length).count();
        let found = [1, 2].map(|call| reader(folder.path()).get(call).unwrap());
        let read: usize = found.iter().map(|found| found.salts.len() + found.bodies.len()).sum();
        assert_eq!(read, whole, "length {length}");
        assert!(found.iter().all(|found| found.damaged.is_empty()), "length {length}");
    }
}

#[test]
fn a_store_goes_on_in_a_new_file_after_one_that_was_torn() {
    let folder = tempfile::tempdir().unwrap();
    two_calls(folder.path());
    let path = only_file(folder.path());
    let torn = fs::read(&path).unwrap();
    fs::write(&path, &torn[..torn.len() - 3]).unwrap();
    let store = store(folder.path(), WIDE);
    store.put(3, Some(12), vec![arguments("[3]")]).unwrap();
    store.close();
    assert_eq!(texts(&reader(folder.path()).get(3).unwrap()), ["[3]"]);
    assert_eq!(fs::read(&path).unwrap().len(), torn.len() - 3, "the torn file is left as it is");
    let numbers: Vec<_> = reader::side_files(folder.path()).unwrap().iter().map(|file| file.number).collect();
    assert_eq!(numbers, [0, 13]);
}

#[test]
fn an_erased_body_is_gone_from_the_disk_and_its_salt_stays() {
    let folder = tempfile::tempdir().unwrap();
    let salts = two_calls(folder.path());
    let path = only_file(folder.path());
    let before = fs::read(&path).unwrap();
    let (offset, length) = places(&before)[1];
    let sealed = &before[offset + 61..offset + length];
    let erased = reader(folder.path()).erase(1, Erase::Bodies, 1_000).unwrap();
    assert_eq!((erased.entries, erased.before), (1, 0));

    let after = fs::read(&path).unwrap();
    assert!(!after.windows(sealed.len()).any(|window| window == sealed));
    assert!(after[offset + 61..offset + length].iter().all(|byte| *byte == 0));
    let same = |range: std::ops::Range<usize>| before[range.clone()] == after[range];
    assert!(same(0..offset + 53) && same(offset + length..before.len()), "nothing else is touched");

    let found = reader(folder.path()).get(1).unwrap();
    assert!(found.bodies.is_empty() && found.damaged.is_empty());
    assert_eq!(found.erased, [Erasure { kind: Some(Kind::Arguments), erased_ms: 1_000 }]);
    assert_eq!(found.salts, [salts[0].clone()]);
    assert_eq!(texts(&reader(folder.path()).get(2).unwrap()), [r#"{"order":2}"#]);

    let again = reader(folder.path()).erase(1, Erase::Everything, 2_000).unwrap();
    assert_eq!((again.entries, again.before), (1, 1));
    let found = reader(folder.path()).get(1).unwrap();
    assert!(found.salts.is_empty());
    assert_eq!(found.erased.iter().map(|erasure| erasure.erased_ms).collect::<Vec<_>>(), [2_000, 1_000]);
}

#[test]
fn an_erasure_leaves_every_byte_outside_the_side_store_as_it_was() {
    let state = tempfile::tempdir().unwrap();
    let log = state.path().join("segments/00000000000000000000.log");
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    let salt = Salt::random().unwrap();
    fs::write(&log, salt.digest(Digested::Arguments, br#"{"order":1}"#)).unwrap();
    let side = state.path().join("side");
    let store = store(&side, WIDE);
    store.put(1, Some(0), vec![Content::Salt(salt.clone()), arguments(r#"{"order":1}"#)]).unwrap();
    store.close();
    let record = fs::read(&log).unwrap();
    reader(&side).erase(1, Erase::Bodies, 1).unwrap();
    assert_eq!(fs::read(&log).unwrap(), record);
    // Who kept the body elsewhere can still show what the record says of it.
    let kept = &reader(&side).get(1).unwrap().salts[0];
    assert!(kept.check(Digested::Arguments, br#"{"order":1}"#, std::str::from_utf8(&record).unwrap()));
}

#[test]
fn an_erasure_that_was_torn_is_finished_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    two_calls(folder.path());
    let path = only_file(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    let (offset, length) = places(&bytes)[1];
    bytes[offset + 53] = 1; // the tombstone is there, the content too
    fs::write(&path, bytes).unwrap();
    assert_eq!(reader(folder.path()).erase(1, Erase::Bodies, 1_000).unwrap().before, 1);
    assert!(fs::read(&path).unwrap()[offset + 61..offset + length].iter().all(|byte| *byte == 0));
}

#[test]
fn entries_behind_damage_are_still_found_and_erased() {
    let folder = tempfile::tempdir().unwrap();
    two_calls(folder.path());
    let path = only_file(folder.path());
    let mut bytes = fs::read(&path).unwrap();
    let (offset, _) = places(&bytes)[1];
    bytes[offset] ^= 0xff; // the length of an entry of call 1
    fs::write(&path, bytes).unwrap();
    assert_eq!(texts(&reader(folder.path()).get(2).unwrap()), [r#"{"order":2}"#]);
    let erased = reader(folder.path()).erase(2, Erase::Everything, 1).unwrap();
    assert_eq!((erased.entries, erased.damaged.len()), (2, 1));
    assert_eq!(reader(folder.path()).check().unwrap().len(), 1);
}

#[test]
fn the_newest_entries_are_kept_within_the_bound_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds { bytes_max: 1 << 20, ..WIDE };
    let store = store(folder.path(), bounds);
    let mut largest = 0;
    for call in 0..40_000_u128 {
        let contents = || vec![Content::Salt(Salt::random().unwrap()), arguments(&"x".repeat(100))];
        while store.put(call, None, contents()) == Err(PutError::Full) {
            assert!(store.flush(WAIT));
        }
        if call % 500 == 0 {
            assert!(store.flush(WAIT));
            let files = reader::side_files(folder.path()).unwrap();
            largest = largest.max(files.iter().map(|file| file.bytes).sum::<u64>());
        }
    }
    store.close();
    assert!((bounds.bytes_max / 2..=bounds.bytes_max).contains(&largest), "{largest}");
    assert_eq!(store.health(), SideHealth::default());
    assert_eq!(reader(folder.path()).get(39_999).unwrap().bodies.len(), 1);
    assert!(reader(folder.path()).get(0).unwrap().bodies.is_empty());
}

#[test]
fn nothing_outlives_the_age_that_is_allowed_even_when_nothing_is_put() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds { age_max: Duration::from_millis(3_200), ..WIDE };
    let store = store(folder.path(), bounds);
    store.put(1, None, vec![arguments("[1]")]).unwrap();
    assert!(store.flush(WAIT));
    let put = Instant::now();
    assert_eq!(texts(&reader(folder.path()).get(1).unwrap()), ["[1]"]);
    while !reader::side_files(folder.path()).unwrap().is_empty() {
        assert!(put.elapsed() < bounds.age_max * 2, "the file is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(put.elapsed() > bounds.age_max / 2, "it was kept for {:?} only", put.elapsed());
    store.put(2, None, vec![arguments("[2]")]).unwrap();
    store.close();
    assert_eq!(texts(&reader(folder.path()).get(2).unwrap()), ["[2]"]);
}

#[test]
fn a_log_that_nobody_writes_is_pruned_by_age_and_by_size() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        two_calls(folder.path());
    }
    let now = writer::now_ms();
    assert_eq!(reader(folder.path()).prune(WIDE, now).unwrap(), Pruned::default());
    let one = reader::side_files(folder.path()).unwrap()[0].bytes;
    let pruned = reader(folder.path()).prune(Bounds { bytes_max: 2 * one, ..WIDE }, now).unwrap();
    assert_eq!(pruned, Pruned { files: 1, bytes: one });
    assert_eq!(reader(folder.path()).prune(WIDE, now + 86_400_000).unwrap().files, 2);
}

#[test]
fn a_body_over_a_mebibyte_is_refused_with_all_that_came_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), WIDE);
    let body = |bytes| Content::Body(Kind::Result, vec![b'1'; bytes]);
    let salt = Content::Salt(Salt::random().unwrap());
    let refused = store.put(1, None, vec![salt, body(BODY_BYTES_MAX + 1)]).unwrap_err();
    assert_eq!(refused.to_string(), "a body of 1048577 bytes is larger than the 1048576 that are kept");
    store.put(2, None, vec![body(BODY_BYTES_MAX)]).unwrap();
    store.close();
    assert!(reader(folder.path()).get(1).unwrap().salts.is_empty());
    assert_eq!(reader(folder.path()).get(2).unwrap().bodies[0].bytes.len(), BODY_BYTES_MAX);
    assert_eq!(store.put(3, None, vec![arguments("[]")]), Err(PutError::Closed));
}

#[test]
fn a_full_queue_refuses_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), WIDE);
    let body = || Content::Body(Kind::Result, vec![b'1'; BODY_BYTES_MAX]);
    let started = Instant::now();
    let refused = (0..2_000).find_map(|call| store.put(call, None, vec![body()]).err());
    assert_eq!(refused, Some(PutError::Full));
    assert!(started.elapsed() < WAIT);
}

#[test]
fn a_write_that_fails_is_counted_and_the_store_goes_on_when_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let side = folder.path().join("side");
    let store = store(&side, WIDE);
    fs::remove_dir(&side).unwrap();
    store.put(1, None, vec![arguments("[1]")]).unwrap();
    assert!(store.flush(WAIT));
    let health = store.health();
    assert_eq!(health.lost, 1);
    assert!(health.failure.unwrap().contains("cannot be used"));
    fs::create_dir(&side).unwrap();
    store.put(2, None, vec![arguments("[2]")]).unwrap();
    store.close();
    assert_eq!(texts(&reader(&side).get(2).unwrap()), ["[2]"]);
    assert_eq!(store.health().lost, 1);
}

#[test]
fn digests_are_checked_with_the_salt_and_not_without() {
    let (salt, other) = (Salt::random().unwrap(), Salt::random().unwrap());
    let digest = salt.digest(Digested::Arguments, b"{}");
    assert_eq!(digest.len(), "hmac-sha256:".len() + 64);
    assert!(salt.check(Digested::Arguments, b"{}", &digest));
    assert!(!salt.check(Digested::Arguments, b"[]", &digest));
    assert!(!other.check(Digested::Arguments, b"{}", &digest));
    assert!(!salt.check(Digested::Arguments, b"{}", digest.trim_start_matches("hmac-sha256:")));
    assert!(!salt.check(Digested::Arguments, b"{}", "hmac-sha256:"));
    assert_eq!(format!("{salt:?}"), "Salt");
}

#[test]
fn a_digest_is_hmac_sha_256_of_its_kind_and_the_bytes() {
    // Made by Python's `hmac`, with the key padded by zeros as HMAC itself pads it.
    let mut key = [0; 32];
    key[..4].copy_from_slice(b"Jefe");
    for (of, digest) in [
        (Digested::Arguments, "4ea560961898aabc6097fe522941bd6f79008761d752086d3288b73fba93695d"),
        (Digested::DecisionInput, "142f6137354c8038be2b59d0d1db86b1423662f2004e419ad2b6f894cbfd9b58"),
        (Digested::Result, "b1033b0c5287973aa80847cd8ce263e77228f2a8c3197b2d63d0b95d78fcb004"),
    ] {
        let made = Salt::from_bytes(key).digest(of, b"what do ya want for nothing?");
        assert_eq!(made, format!("hmac-sha256:{digest}"));
    }
}

#[test]
fn a_key_file_is_made_once_and_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit/side.key");
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| SideKey::open(&path).unwrap().id())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            SideKey::open(&path),
            Err(SideError::Key(KeyFileError::Exposed { mode: 0o640, .. }))
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(&path, b"short").unwrap();
    assert!(matches!(SideKey::open(&path), Err(SideError::Key(KeyFileError::Length { bytes: 5, .. }))));
}

/// The other process of the next test; does nothing where it is run by itself.
#[test]
fn the_eraser_of_another_process() {
    let Ok(folder) = std::env::var("CALLGATE_TEST_ERASER") else { return };
    for call in (0..200).step_by(2) {
        let until = Instant::now() + WAIT;
        // The writer may not have got there yet.
        while reader(Path::new(&folder)).erase(call, Erase::Bodies, 1).unwrap().entries == 0 {
            assert!(Instant::now() < until, "call {call} never came");
        }
    }
}

#[test]
fn one_process_erases_while_another_writes() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), WIDE);
    let this_test = std::env::current_exe().unwrap();
    let test = std::thread::current()
        .name()
        .unwrap()
        .replace("one_process_erases_while_another_writes", "the_eraser_of_another_process");
    let mut eraser = std::process::Command::new(this_test)
        .args(["--exact", &test])
        .env("CALLGATE_TEST_ERASER", folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for call in 0..200_u128 {
        store.put(call, None, vec![arguments(&format!("[{call}]"))]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(store.flush(WAIT));
    assert!(eraser.wait().unwrap().success());
    store.put(200, None, vec![arguments("[200]")]).unwrap();
    store.close();
    for call in 0..=200_u128 {
        let found = reader(folder.path()).get(call).unwrap();
        assert!(found.damaged.is_empty(), "{found:?}");
        let kept = call % 2 == 1 || call == 200;
        assert_eq!(
            (found.bodies.len(), found.erased.len()),
            if kept { (1, 0) } else { (0, 1) },
            "call {call}"
        );
    }
}
