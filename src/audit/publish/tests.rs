use std::collections::BTreeMap;

use tempfile::TempDir;

use super::*;
use crate::audit::{
    sample::{LogBytes, signer, vkey},
    verifier::{Signatures, note::Key, verify},
};

/// A log of 1,200 records with heads of 1 to 60 records; the state folder, the log's folder, the log.
fn log() -> (TempDir, PathBuf, LogBytes) {
    let state = tempfile::tempdir().unwrap();
    let log = state.path().join("audit/serve-0");
    let mut bytes = LogBytes::new("serve-0", &signer(1));
    let mut group = 0;
    while bytes.size < 1_200 {
        group = group % 60 + 1;
        for _ in 0..group.min(1_200 - bytes.size) {
            bytes.record(format!("record {}", bytes.size).as_bytes());
        }
        bytes.head();
        if group % 11 == 0 {
            bytes.segment();
        }
    }
    bytes.write(&log);
    (state, log, bytes)
}

fn is_clean(state: &TempDir) -> bool {
    let keys = [Key::parse(&vkey(&signer(1))).unwrap()];
    let report = verify(state.path(), &keys, Signatures::Every, &mut |_| ()).unwrap();
    report.damage().for_each(|damage| println!("{damage}"));
    report.is_clean()
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_log_published_head_by_head_is_clean_at_each_and_the_same_as_one_published_at_once() {
    let (state, log, bytes) = log();
    let mut publisher = Publisher::resume(&log).unwrap();
    for (at, (size, note)) in bytes.heads.iter().enumerate() {
        if at % 3 == 0 {
            publisher = Publisher::resume(&log).unwrap();
        }
        publisher.publish(note, *size).unwrap();
        publisher.publish(note, *size).unwrap();
        assert_eq!(publisher.published(), *size);
        assert!(is_clean(&state), "{size}");
        assert_eq!(fs::read(log.join("checkpoint")).unwrap(), *note);
        // The partial files of this checkpoint and the one before, of three kinds, and nothing older.
        let partial = |path: &&PathBuf| path.parent().unwrap().extension().is_some();
        assert!(files(&log.join("tile")).keys().filter(partial).count() <= 6);
    }
    let grown = files(&log.join("tile"));
    fs::remove_dir_all(log.join("tile")).unwrap();
    let (size, note) = bytes.heads.last().unwrap();
    Publisher::anew(&log).publish(note, *size).unwrap();
    let at_once = files(&log.join("tile"));
    assert!(at_once.len() == 11 && at_once.iter().all(|(path, bytes)| grown.get(path) == Some(bytes)));
}

#[test]
fn resuming_reads_only_what_is_new() {
    let (_state, log, bytes) = log();
    let half = bytes.heads.len() / 2;
    Publisher::anew(&log).publish(&bytes.heads[half].1, bytes.heads[half].0).unwrap();
    let first = log.join(format!("segments/{:020}.log", 0));
    fs::rename(&first, log.join("gone")).unwrap();
    let (size, note) = bytes.heads.last().unwrap();
    Publisher::resume(&log).unwrap().publish(note, *size).unwrap();
    assert!(Publisher::anew(&log).publish(note, *size).is_err());
}

#[test]
fn what_a_power_loss_left_of_the_tiles_is_made_again() {
    let (state, log, bytes) = log();
    let (size, note) = bytes.heads.last().unwrap();
    let mut publisher = Publisher::anew(&log);
    publisher.publish(note, *size).unwrap();
    let (whole, edge) = (log.join("tile/0/001"), log.join("tile/0/004.p/176"));
    for (file, heals) in [(&edge, true), (&whole, false)] {
        fs::write(file, [0; 100]).unwrap();
        Publisher::resume(&log).unwrap().publish(note, *size).unwrap();
        assert_eq!(is_clean(&state), heals);
        Publisher::anew(&log).publish(note, *size).unwrap();
        assert!(is_clean(&state));
    }
}

#[test]
fn nothing_is_published_under_a_head_that_does_not_fit() {
    let (_state, log, bytes) = log();
    let (size, note) = &bytes.heads[20];
    let mut other = LogBytes::new("serve-0", &signer(1));
    (0..*size).for_each(|_| other.record(b"another"));
    other.head();
    let mut publisher = Publisher::anew(&log);
    assert!(matches!(publisher.publish(&other.heads[0].1, *size), Err(PublishError::Records { .. })));
    assert!(matches!(Publisher::anew(&log).publish(note, size + 1), Err(PublishError::Head { .. })));
    assert!(!log.join("checkpoint").exists());
    let mut publisher = Publisher::anew(&log);
    publisher.publish(note, *size).unwrap();
    assert!(matches!(
        publisher.publish(&bytes.heads[3].1, bytes.heads[3].0),
        Err(PublishError::Older { .. })
    ));
    let (beyond, note) = bytes.heads.last().unwrap();
    let last = log.join(format!("segments/{:020}.log", bytes.segments.last().unwrap().0));
    fs::remove_file(last).unwrap();
    assert!(matches!(publisher.publish(note, *beyond), Err(PublishError::Records { .. })));
}

#[cfg(unix)]
#[test]
fn what_is_no_plain_file_is_damage_and_is_not_read() {
    let (state, log, bytes) = log();
    let (size, note) = bytes.heads.last().unwrap();
    Publisher::resume(&log).unwrap().publish(note, *size).unwrap();
    assert!(is_clean(&state));
    for name in ["checkpoint", "tile/0/000", "tile/entries/001", "segments/00000000000000000000.log"] {
        let (file, kept) = (log.join(name), state.path().join("kept"));
        fs::rename(&file, &kept).unwrap();
        // To read it would never end.
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        assert!(!is_clean(&state), "{name}");
        fs::remove_file(&file).unwrap();
        fs::rename(&kept, &file).unwrap();
    }
    assert!(is_clean(&state));
}
