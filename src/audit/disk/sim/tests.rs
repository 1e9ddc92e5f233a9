//! The simulated disk keeps to its own rules.

use super::*;
use crate::audit::disk::{append_all, read_all};

fn path(name: &str) -> PathBuf {
    Path::new("/log").join(name)
}

/// A folder with one durable file in it.
fn disk(seed: u64) -> (SimDisk, SimFile) {
    let disk = SimDisk::new(seed);
    disk.make_folder(Path::new("/log")).unwrap();
    disk.sync_folder(Path::new("/")).unwrap();
    let mut file = disk.create(&path("file")).unwrap();
    disk.sync_folder(Path::new("/log")).unwrap();
    append_all(&mut file, &[b'a'; 1_000]).unwrap();
    file.sync_data().unwrap();
    (disk, file)
}

fn read(disk: &SimDisk) -> Vec<u8> {
    read_all(&disk.open(&path("file")).unwrap()).unwrap()
}

#[test]
fn what_was_synced_survives_a_power_loss_and_what_was_not_may_in_any_part() {
    let mut lengths = std::collections::BTreeSet::new();
    let (mut whole, mut holes, mut stale) = (0, 0, 0);
    for seed in 0..500 {
        let (disk, mut file) = disk(seed);
        append_all(&mut file, &[b'b'; 2_000]).unwrap();
        file.truncate(1_000).unwrap();
        file.sync_data().unwrap();
        append_all(&mut file, &[b'c'; 2_000]).unwrap();
        assert_eq!(read(&disk).len(), 3_000);
        disk.lose_power();
        assert!(disk.open(&path("file")).is_err());
        let disk = disk.restart();
        let bytes = read(&disk);
        assert_eq!(bytes[..1_000], [b'a'; 1_000]);
        lengths.insert(bytes.len());
        whole += u32::from(bytes[1_000..] == [b'c'; 2_000]);
        let last = bytes[1_000..].iter().rposition(|byte| *byte == b'c').unwrap_or(0);
        holes += u32::from(bytes[1_000..1_000 + last].iter().any(|byte| *byte != b'c'));
        stale += u32::from(bytes[1_000..].contains(&b'b'));
    }
    assert!(
        lengths.len() > 50 && whole > 20 && holes > 50 && stale > 20,
        "{lengths:?} {whole} {holes} {stale}"
    );
}

#[test]
fn a_process_that_dies_loses_no_more_than_the_end_of_its_last_append() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let (disk, mut file) = disk(seed);
        append_all(&mut file, &[b'b'; 500]).unwrap();
        disk.fault_after(0, Fault::Crash);
        assert!(file.append(&[b'c'; 500]).is_err());
        assert!(file.sync_data().is_err() && disk.is_dead());
        let bytes = read(&disk.restart());
        assert_eq!(bytes[1_000..1_500], [b'b'; 500]);
        assert!(bytes[1_500..].iter().all(|byte| *byte == b'c'));
        lengths.insert(bytes.len());
    }
    assert!(lengths.len() > 50 && lengths.last().unwrap() > &1_900, "{lengths:?}");
}

#[test]
fn a_name_is_durable_once_its_folder_is_synced() {
    let (mut kept, mut moved) = (0, 0);
    for seed in 0..200 {
        let (disk, _) = disk(seed);
        disk.create(&path("new")).unwrap();
        disk.rename(&path("file"), &path("other")).unwrap();
        disk.lose_power();
        let disk = disk.restart();
        let names = disk.list(Path::new("/log")).unwrap();
        kept += u32::from(names.contains(&"new".to_owned()));
        moved += u32::from(names.contains(&"other".to_owned()));
        // One name or the other, and the first change before the second.
        assert!(names.contains(&"other".to_owned()) != names.contains(&"file".to_owned()));
        assert!(names.contains(&"new".to_owned()) || names == ["file"]);
    }
    assert!((10..190).contains(&kept) && (10..190).contains(&moved), "{kept} {moved}");
    for seed in 0..50 {
        let (disk, _) = disk(seed);
        disk.rename(&path("file"), &path("other")).unwrap();
        disk.sync_folder(Path::new("/log")).unwrap();
        disk.lose_power();
        assert_eq!(disk.restart().list(Path::new("/log")).unwrap(), ["other"]);
    }
}

#[test]
fn bytes_that_a_failed_sync_dropped_are_read_until_the_power_goes_and_no_sync_writes_them() {
    let mut lost = 0;
    for seed in 0..100 {
        let (disk, mut file) = disk(seed);
        append_all(&mut file, &[b'b'; 3_000]).unwrap();
        disk.fault_after(0, Fault::SyncDrops);
        assert!(file.sync_data().is_err());
        let mut again = disk.open(&path("file")).unwrap();
        assert_eq!(read(&disk)[1_000..], [b'b'; 3_000]);
        again.sync_data().unwrap();
        disk.lose_power();
        lost += u32::from(read(&disk.restart())[1_000..] != [b'b'; 3_000]);
        assert!(disk.violations().is_empty());
    }
    assert!(lost > 50, "{lost}");
}

#[test]
fn what_is_tried_again_on_a_descriptor_that_failed_is_told() {
    let (disk, mut file) = disk(1);
    disk.fault_after(0, Fault::Enospc);
    assert_eq!(file.append(b"x").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(disk.violations().is_empty());
    file.sync_data().unwrap();
    assert_eq!(disk.violations().len(), 1);
}

#[test]
fn a_hanging_operation_takes_its_time_and_tells_who_waits() {
    let (mut disk, _) = disk(1);
    let seen = Arc::new(Mutex::new(None));
    let hook = Arc::clone(&seen);
    disk.on_hang(move |now, hung| *hook.lock().unwrap() = Some((now, hung)));
    let before = disk.now_ns();
    disk.fault_after(0, Fault::Hang { millis: 70 });
    disk.list(Path::new("/log")).unwrap();
    let (now, hung) = seen.lock().unwrap().unwrap();
    assert_eq!(hung, 70_000_000);
    assert!(now - before >= hung && disk.now_ns() == now);
}
