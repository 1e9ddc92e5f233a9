//! The log on simulated disks: what is promised holds in any world.
//!
//! Each seed is a world of its own: callers, several processes after one another on one log, and a disk that
//! fails at any operation. `CALLGATE_SIM_SEED=N` runs one of them and tells every operation when it fails;
//! `CALLGATE_SIM_SEEDS=N` says how many there are (2,000).

mod damage;
mod model;
mod seam;
mod world;

use std::collections::BTreeMap;

use super::disk::sim::{Fault, Planted};
use world::{Seen, World};

const SEEDS: u64 = 2_000;
/// The first operations of a log, at each of which every fault happens once.
const OPERATIONS: u64 = 60;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs worlds on every processor, and gives what was seen in them, or the first story of a broken promise.
fn run(
    seeds: std::ops::Range<u64>,
    planted: Option<Planted>,
) -> Result<(Seen, BTreeMap<&'static str, u64>), String> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let ranges = (0..threads).map(|at| seeds.clone().skip(at as usize).step_by(threads as usize));
    let results: Vec<Result<Seen, String>> = std::thread::scope(|scope| {
        let handles: Vec<_> = ranges.map(|range| scope.spawn(move || run_range(range, planted))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    let mut all = Seen::default();
    for seen in results {
        all.add(&seen?);
    }
    let injected = all.injected.clone();
    Ok((all, injected))
}

fn run_range(seeds: impl Iterator<Item = u64>, planted: Option<Planted>) -> Result<Seen, String> {
    let mut all = Seen::default();
    for seed in seeds {
        let world = std::panic::catch_unwind(|| World::new(seed, planted).run());
        let seen = world.unwrap_or_else(|_| Err("a panic".into()));
        all.add(&seen.map_err(|story| format!("CALLGATE_SIM_SEED={seed}: {story}"))?);
    }
    Ok(all)
}

#[test]
fn the_promise_holds_in_every_world() {
    let seeds = match (number("CALLGATE_SIM_SEED"), number("CALLGATE_SIM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, seeds) => 0..seeds.unwrap_or(SEEDS),
    };
    let (seen, injected) = run(seeds.clone(), None).unwrap_or_else(|story| panic!("{story}"));
    eprintln!("{} worlds: {seen:#?}", seeds.end - seeds.start);
    if seeds.end - seeds.start >= SEEDS {
        // A world in which nothing happens shows nothing.
        assert_eq!(injected.len(), 8, "{injected:?}");
        assert!(injected.values().all(|count| *count > 50), "{injected:?}");
        assert!(seen.acknowledged > 10_000 && seen.refused > 1_000 && seen.abandoned > 100, "{seen:#?}");
        assert!(seen.direct > 3_000 && seen.direct_faults > 100, "{seen:#?}");
        assert!(seen.segments > 3 && seen.damaged > 500 && seen.verified > 100, "{seen:#?}");
    }
}

#[test]
fn each_fault_may_happen_at_each_operation() {
    let faults = [
        Fault::Crash,
        Fault::PowerLoss,
        Fault::Eio,
        Fault::Enospc,
        Fault::ShortWrite,
        Fault::Hang { millis: 7_000 },
        Fault::HangThenFail { millis: 7_000 },
        Fault::SyncDrops,
    ];
    for (at, fault) in (0..OPERATIONS).flat_map(|at| faults.map(|fault| (at, fault))) {
        let seen = World::with_fault(at, at, fault).run();
        let seen = seen.unwrap_or_else(|story| panic!("{fault:?} at operation {at}: {story}"));
        assert!(seen.injected.contains_key(fault.name()) || at > 30, "{fault:?} at operation {at}");
    }
}

#[test]
fn the_simulator_finds_a_disk_that_syncs_nothing() {
    for planted in [Planted::NoSync, Planted::NoFolderSync] {
        let story = run(0..1_000, Some(planted)).unwrap_err();
        assert!(
            story.contains("promised") || story.contains("refuses") || story.contains("survived"),
            "{story}"
        );
    }
}

#[test]
fn a_world_is_the_same_each_time() {
    for seed in 0..20 {
        let [one, other] = [(); 2].map(|()| World::new(seed, None).run());
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }
}
