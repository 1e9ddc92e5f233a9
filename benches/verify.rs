//! What verifying a log costs on one core, beside a floor: SHA-256 over the same records in the same run.
//! Run: `cargo bench --bench verify`, on one core with `taskset -c 0` before it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on shall say where"
)]

#[path = "../src/audit/sample.rs"]
#[allow(dead_code, reason = "not all of it is for this program")]
mod sample;
#[path = "../src/audit/verifier.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, reason = "not all of the module is for this program")]
mod verifier;

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use sample::{LogBytes, signer, vkey};
use verifier::{Signatures, note::Key, tree::leaf_hash, verify};

const SEGMENT_BYTES: usize = 64 << 20;
const ROUNDS: usize = 3;

fn main() {
    println!(
        "{:>7} {:>6} | {:>9} {:>7} | {:>9} {:>7} | times the floor",
        "bytes", "group", "records/s", "MB/s", "floor", "MB/s"
    );
    for (bytes, group, records) in [
        (100, 64, 300_000),
        (600, 1, 20_000),
        (600, 4, 50_000),
        (600, 16, 100_000),
        (600, 64, 200_000),
        (600, 256, 200_000),
        (4_000, 16, 50_000),
        (40_000, 16, 5_000),
    ] {
        for which in [Signatures::Every, Signatures::Covering] {
            measure(bytes, group, records, which);
        }
    }
}

fn measure(bytes: usize, group: u64, records: u64, which: Signatures) {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("audit/serve-0");
    let all = records_of(bytes, records);
    write(&all, group).write(&folder);
    let keys = [Key::parse(&vkey(&signer(1))).unwrap()];
    let on_disk: u64 = fs::read_dir(folder.join("segments"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    let (mut ours, mut floor) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let report = verify(state.path(), &keys, which, &mut |_| ()).unwrap();
        ours = ours.min(begun.elapsed());
        assert!(report.is_clean() && report.logs[0].signed == records);
        let begun = Instant::now();
        for record in &all {
            black_box(leaf_hash(record));
        }
        floor = floor.min(begun.elapsed());
    }
    let rate = |time: Duration| records as f64 / time.as_secs_f64();
    let speed = |bytes: u64, time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    println!(
        "{bytes:>7} {group:>6} {which:>8?} | {:>9.0} {:>7.0} | {:>9.0} {:>7.0} | {:.2}",
        rate(ours),
        speed(on_disk, ours),
        rate(floor),
        speed(bytes as u64 * records, floor),
        ours.as_secs_f64() / floor.as_secs_f64(),
    );
}

fn records_of(bytes: usize, records: u64) -> Vec<Vec<u8>> {
    let record = |index| format!("{{\"index\":{index:>width$}}}", width = bytes - 10).into_bytes();
    (0..records).map(record).collect()
}

fn write(records: &[Vec<u8>], group: u64) -> LogBytes {
    let mut log = LogBytes::new("serve-0", &signer(1));
    let mut in_segment = 0;
    for (index, record) in (1..).zip(records) {
        log.record(record);
        in_segment += record.len();
        if index % group == 0 || index == records.len() as u64 {
            log.head();
            if in_segment >= SEGMENT_BYTES {
                log.segment();
                in_segment = 0;
            }
        }
    }
    log
}
