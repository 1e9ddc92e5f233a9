use serde_json::json;

use super::{fixture::Fixture, *};

fn indices(records: Records) -> Vec<u64> {
    records.map(|record| record.unwrap().index).collect()
}

fn log(fixture: &Fixture) -> LogFolder {
    logs(&fixture.state).unwrap().into_iter().find(|log| log.name() == fixture.log).unwrap()
}

fn numbered(fixture: &mut Fixture, count: u64) {
    for _ in 0..count {
        let number = fixture.next;
        fixture.record(&json!({ "n": number }));
    }
}

#[test]
fn records_are_found_by_index_from_an_index_and_from_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path(), "serve-0");
    for _ in 0..3 {
        numbered(&mut fixture, 5);
        fixture.rotate();
    }
    numbered(&mut fixture, 2);
    let log = log(&fixture);
    assert_eq!(log.size().unwrap(), 17);
    assert_eq!(indices(log.records(0).unwrap()), (0..17).collect::<Vec<_>>());
    for from in 0..20 {
        assert_eq!(indices(log.records(from).unwrap()), (from..17).collect::<Vec<_>>());
        let found = log.get(from).unwrap();
        assert_eq!(found.map(|found| found.bytes), (from < 17).then(|| format!("{{\"n\":{from}}}").into()));
        assert_eq!(indices(log.last(from).unwrap()), (17 - from.min(17)..17).collect::<Vec<_>>());
    }
}

#[test]
fn a_place_is_found_again_and_a_changed_log_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path(), "serve-0");
    numbered(&mut fixture, 3);
    fixture.rotate();
    numbered(&mut fixture, 3);
    let log = log(&fixture);
    let found = log.get(4).unwrap().unwrap();
    assert_eq!(log.get_at(4, found.place).unwrap().unwrap(), found);
    assert_eq!(indices(log.records_behind(4, found.place).unwrap().unwrap()), [5]);
    let other = Place { tag: [1; 16], ..found.place };
    assert!(log.get_at(4, other).unwrap().is_none());
    assert!(log.records_behind(4, other).unwrap().is_none());
    let beside = Place { offset: found.place.offset + 1, ..found.place };
    assert!(log.records_behind(4, beside).unwrap().is_none());
    let elsewhere = Place { segment: 99, ..found.place };
    assert!(log.records_behind(4, elsewhere).unwrap().is_none());
}

#[test]
fn a_follower_waits_for_the_rest_of_a_frame_and_goes_on_in_new_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path(), "serve-0");
    numbered(&mut fixture, 2);
    let mut follower = log(&fixture).follow(1).unwrap();
    let mut poll = || follower.poll().unwrap().map(|found| found.index);
    assert_eq!((poll(), poll()), (Some(1), None));
    let frame = fixture.frame(1, b"{\"n\":2}");
    for byte in &frame[..frame.len() - 1] {
        fixture.raw(&[*byte]);
        assert_eq!(poll(), None);
    }
    fixture.raw(&frame[frame.len() - 1..]);
    fixture.next += 1;
    assert_eq!((poll(), poll()), (Some(2), None));
    // Two segments at once, the first of them without a record of its own that was seen before.
    fixture.rotate();
    assert_eq!(poll(), None);
    numbered(&mut fixture, 1);
    fixture.rotate();
    numbered(&mut fixture, 1);
    assert_eq!((poll(), poll(), poll()), (Some(3), Some(4), None));
}

#[test]
fn a_follower_goes_on_in_a_segment_that_was_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path(), "serve-0");
    numbered(&mut fixture, 2);
    let mut follower = log(&fixture).follow(0).unwrap();
    let mut drain =
        || -> Vec<u64> { std::iter::from_fn(|| follower.poll().unwrap()).map(|found| found.index).collect() };
    let write_anew = |fixture: &Fixture| {
        let anew = fixture.path().with_extension("new");
        fs::copy(fixture.path(), &anew).unwrap();
        fs::rename(&anew, fixture.path()).unwrap();
    };
    assert_eq!(drain(), [0, 1]);
    write_anew(&fixture);
    numbered(&mut fixture, 2);
    assert_eq!(drain(), [2, 3]);
    // Written anew, grown, and ended, all since it was looked at last.
    write_anew(&fixture);
    numbered(&mut fixture, 2);
    fixture.rotate();
    numbered(&mut fixture, 1);
    assert_eq!(drain(), [4, 5, 6]);
}

#[test]
fn a_follower_waits_for_a_log_that_has_no_record_yet() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("audit/serve-0/segments")).unwrap();
    let mut follower = logs(folder.path()).unwrap()[0].follow(0).unwrap();
    assert!(follower.poll().unwrap().is_none());
    let path = folder.path().join("audit/serve-0/segments/00000000000000000000.log");
    fs::write(&path, b"CGSEG").unwrap(); // a header that is being written
    assert!(follower.poll().unwrap().is_none());
    fs::remove_file(&path).unwrap();
    let mut follower = logs(folder.path()).unwrap()[0].follow(0).unwrap();
    let mut fixture = Fixture::new(folder.path(), "serve-0");
    numbered(&mut fixture, 1);
    assert_eq!(follower.poll().unwrap().unwrap().index, 0);
}

#[test]
fn a_torn_tail_is_not_there_at_any_length() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path(), "serve-0");
    numbered(&mut fixture, 3);
    let whole = fs::read(fixture.path()).unwrap();
    let log = log(&fixture);
    for length in 0..whole.len() {
        fs::write(fixture.path(), &whole[..length]).unwrap();
        let there = indices(log.records(0).unwrap());
        assert_eq!(there, (0..log.size().unwrap()).collect::<Vec<_>>());
        assert!(there.len() < 3);
    }
    for tail in [&[0; 100_000][..], b"rubbish", &[1, 0, 0, 0, 1]] {
        fs::write(fixture.path(), [&whole, tail].concat()).unwrap();
        assert_eq!(indices(log.records(0).unwrap()), [0, 1, 2]);
    }
}

#[test]
fn every_flipped_bit_before_the_last_frame_is_damage_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path(), "serve-0");
    numbered(&mut fixture, 3);
    let length = fs::metadata(fixture.path()).unwrap().len();
    numbered(&mut fixture, 1);
    let whole = fs::read(fixture.path()).unwrap();
    let log = log(&fixture);
    for bit in 0..usize::try_from(length).unwrap() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(fixture.path(), flipped).unwrap();
        let error = log.records(0).unwrap().find_map(Result::err);
        let Some(ReadError::Damaged { index, offset, .. }) = error else { panic!("{bit}: {error:?}") };
        assert!(offset <= (bit / 8) as u64 && index < 3, "{bit}: {index} {offset}");
    }
}

#[test]
fn damage_is_found_however_far_behind_it_the_next_frame_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path(), "serve-0");
    numbered(&mut fixture, 1);
    fixture.raw(&vec![0xAA; 900_000]);
    numbered(&mut fixture, 1);
    let errors: Vec<String> =
        log(&fixture).records(0).unwrap().filter_map(|record| Some(record.err()?.to_string())).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].ends_with("is damaged at record 1, byte 69: no frame has kind 170"), "{errors:?}");
}

#[test]
fn a_segment_that_ends_inside_a_frame_and_has_another_behind_it_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path(), "serve-0");
    numbered(&mut fixture, 2);
    fixture.raw(&[1, 0]);
    fixture.segment = 2;
    let (path, header) = (fixture.path(), Fixture::new(&folder.path().join("x"), "serve-0"));
    fs::copy(header.path(), path).unwrap();
    let error = log(&fixture).records(0).unwrap().find_map(Result::err).unwrap();
    assert!(matches!(error, ReadError::Damaged { index: 2, damage: Damage::Short, .. }), "{error}");
}

#[test]
fn a_missing_segment_is_named_by_its_records() {
    let folder = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(folder.path(), "serve-0");
    let first = fixture.path();
    numbered(&mut fixture, 2);
    fixture.rotate();
    let second = fixture.path();
    numbered(&mut fixture, 2);
    fixture.rotate();
    numbered(&mut fixture, 2);
    fs::remove_file(second).unwrap();
    let log = log(&fixture);
    let error = log.records(0).unwrap().find_map(Result::err).unwrap();
    assert!(matches!(error, ReadError::Missing { from: 2, to: 4, .. }), "{error}");
    assert!(error.to_string().starts_with("records 2 to 3 are missing before `"), "{error}");
    fs::remove_file(first).unwrap();
    assert!(matches!(log.records(0), Err(ReadError::Missing { from: 0, to: 4, .. })));
    assert_eq!(indices(log.records(4).unwrap()), [4, 5]);
}

#[test]
fn a_segment_of_another_version_is_not_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(folder.path(), "serve-0");
    let mut header = fs::read(fixture.path()).unwrap();
    header[7] = 2;
    header.truncate(header.len() - 4);
    header.extend(crc32c::crc32c(&header).to_le_bytes());
    fs::write(fixture.path(), header).unwrap();
    let error = log(&fixture).records(0).unwrap().find_map(Result::err).unwrap();
    assert!(matches!(error, ReadError::Version { version: 2, .. }), "{error}");
}

#[test]
fn logs_are_listed_in_the_order_of_their_slots_and_a_state_folder_may_have_none() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(logs(folder.path()).unwrap(), []);
    for name in ["serve-10", "stdio-0", "serve-2"] {
        Fixture::new(folder.path(), name);
    }
    fs::write(folder.path().join("audit/origin"), "x").unwrap();
    fs::create_dir(folder.path().join("audit/other")).unwrap();
    let names: Vec<String> = logs(folder.path()).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["serve-2", "serve-10", "stdio-0"]);
}
