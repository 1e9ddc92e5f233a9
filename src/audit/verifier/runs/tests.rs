use super::*;

/// Runs of records by kind and second; `head` is a head.
fn published(records: &[(&str, u64)]) -> bool {
    let mut runs = Runs::default();
    for (kind, second) in records {
        let time = format!("2026-11-23T10:{:02}:{:02}.5Z", second / 60, second % 60);
        match *kind {
            "head" => runs.head(),
            kind => runs.record(format!(r#"{{"record":"{kind}","time":"{time}","v":1}}"#).as_bytes()),
        }
    }
    runs.have_published()
}

#[test]
fn a_writer_that_goes_on_long_after_its_first_head_has_published_one() {
    let begun = [("start", 0), ("head", 0), ("outcome", 9), ("head", 9), ("outcome", 10)];
    assert!(!published(&begun));
    assert!(published(&[&begun[..], &[("outcome", 11)]].concat()));
    assert!(!published(&[("start", 0), ("outcome", 11), ("outcome", 99)]), "there was no head to publish");
}

#[test]
fn a_pause_between_two_writers_is_not_the_life_of_one() {
    let short = [("start", 0), ("head", 0), ("start", 600), ("head", 600), ("outcome", 601), ("head", 601)];
    assert!(!published(&short));
    // A head that is signed for what the one before left is not a head of its own.
    assert!(!published(&[("start", 0), ("outcome", 1), ("head", 1), ("start", 600), ("outcome", 610)]));
    assert!(published(&[&short[..], &[("start", 700), ("head", 700), ("summary", 720)]].concat()));
}

#[test]
fn not_all_of_many_writers_die_in_their_first_moment() {
    let start = |number| [("start", number), ("head", number)];
    assert!(!published((0..7).map(start).collect::<Vec<_>>().as_flattened()));
    assert!(published((0..8).map(start).collect::<Vec<_>>().as_flattened()));
}
