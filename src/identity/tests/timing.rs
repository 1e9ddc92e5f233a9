//! How long it takes to find out that somebody is nobody: always the same.
//!
//! Welch's t-test on the times of two kinds of proof, shown in random order, as in "Dude, is my code constant time?"
//! (Reparaz, Balasch, Verbauwhede, 2017): cropped at several percentiles, of which the worst counts.
//!
//! `CALLGATE_TIMING_SAMPLES` says how many samples each kind gets. With few, as in the usual run, the verdict on the
//! real code is not taken: what is tested then is that a leak that is planted is found.

use std::time::Instant;

use futures::FutureExt as _;

use super::*;

const SAMPLES: usize = 4_000;
/// So many samples are a verdict.
const SAMPLES_OF_A_VERDICT: usize = 100_000;
const T_MAX: f64 = 4.5;
const PERCENTILES: [usize; 4] = [50, 75, 90, 95];

fn samples() -> usize {
    std::env::var("CALLGATE_TIMING_SAMPLES").map_or(SAMPLES, |text| text.parse().unwrap())
}

/// Random enough to shuffle.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a call are few")]
fn moments(times: &[u64]) -> (f64, f64, f64) {
    let count = times.len() as f64;
    let mean = times.iter().map(|time| *time as f64).sum::<f64>() / count;
    let variance = times.iter().map(|time| (*time as f64 - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (count, mean, variance)
}

/// The worst of Welch's t over the percentiles that both are cropped at.
fn welch(one: &[u64], other: &[u64]) -> f64 {
    let mut all: Vec<u64> = one.iter().chain(other).copied().collect();
    all.sort_unstable();
    let cropped = |percentile: usize| {
        let most = all[(all.len() - 1) * percentile / 100];
        let within = |times: &[u64]| times.iter().copied().filter(|time| *time <= most).collect::<Vec<_>>();
        let ((n1, m1, v1), (n2, m2, v2)) = (moments(&within(one)), moments(&within(other)));
        (m1 - m2) / (v1 / n1 + v2 / n2).sqrt()
    };
    PERCENTILES
        .into_iter()
        .map(cropped)
        .fold(0.0, |worst: f64, t| if t.abs() > worst.abs() { t } else { worst })
}

/// A comparison as it must not be: it ends where the texts differ.
fn compare_leaking(one: &str, other: &str) -> bool {
    one.bytes().zip(other.bytes()).all(|(one, other)| std::hint::black_box(one) == other)
}

/// The times of each kind of text, shown in random order on one core.
fn times(identities: &Identities, clients: &Clients, texts: &[String], leak: Option<&str>) -> Vec<Vec<u64>> {
    stay_on_one_core();
    let (mut random, mut times) = (Random(0x9E37_79B9_7F4A_7C15), vec![Vec::new(); texts.len()]);
    let now = Timestamp::now();
    for _ in 0..samples() * texts.len() {
        let kind = usize::try_from(random.next() >> 11).unwrap() % texts.len();
        let proof = Proof::bearer(texts[kind].as_str());
        let began = Instant::now();
        let known = identities.authenticate(clients, &proof, None, now).now_or_never().unwrap();
        if let Some(secret) = leak {
            std::hint::black_box(compare_leaking(&texts[kind], secret));
        }
        let took = began.elapsed();
        assert!(known.is_err(), "{}", texts[kind]);
        times[kind].push(u64::try_from(took.as_nanos()).unwrap());
    }
    times
}

#[cfg(target_os = "linux")]
fn stay_on_one_core() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let may = sched_getaffinity(None).unwrap();
    let core = (0..CpuSet::MAX_CPU).find(|core| may.is_set(*core)).unwrap();
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).unwrap();
}

#[cfg(not(target_os = "linux"))]
fn stay_on_one_core() {}

/// A key whose secret differs at one place.
fn wrong_at(key: &str, place: usize) -> String {
    let mut bytes = key.as_bytes().to_vec();
    bytes[place] = if bytes[place] == b'0' { b'1' } else { b'0' };
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn how_long_a_refusal_takes_does_not_say_what_was_nearly_right() {
    let folder = tempfile::tempdir().unwrap();
    let (identities, runs) = identities(folder.path()).await;
    let [good, expired, revoked] =
        [("good", 7), ("late", 8), ("gone", 9)].map(|(id, byte)| NewKey::new(id, [byte; 32]));
    let entry = |id: &str, key: &NewKey, expires: &str| {
        format!(
            "  {id}: {{ owner: o, keys: [{{ id: {id}, sha256: \"{}\", expires: {expires} }}] }}\n",
            key.sha256()
        )
    };
    let clients = clients(&format!(
        "clients:\n{}{}{}",
        entry("good", &good, "2100-01-01"),
        entry("late", &expired, "2020-01-01"),
        entry("gone", &revoked, "2100-01-01")
    ));
    let id = Revocation::Key("gone".parse().unwrap());
    runs.revoke(&id, "test", "", None, Timestamp::now()).await.unwrap();
    // A key that was used is known in one more place.
    identities.authenticate(&clients, &Proof::bearer(good.key()), None, Timestamp::now()).await.unwrap();

    let first = good.key().rfind('_').unwrap() + 1;
    let kinds = [
        ("wrong last byte", wrong_at(good.key(), good.key().len() - 1)),
        ("wrong first byte", wrong_at(good.key(), first)),
        ("unknown id", good.key().replace("good", "nobo")),
        ("expired key", expired.key().to_owned()),
        ("revoked key", revoked.key().to_owned()),
    ];
    let texts = kinds.clone().map(|(_, text)| text);
    let secret = good.key().to_owned();
    let (measured, leaking) = tokio::task::spawn_blocking(move || {
        let measured = times(&identities, &clients, &texts, None);
        (measured, times(&identities, &clients, &texts[..2], Some(&secret)))
    })
    .await
    .unwrap();
    let leak = welch(&leaking[0], &leaking[1]);
    eprintln!("{} samples each; a planted leak: t = {leak:.2}", samples());
    assert!(leak.abs() > T_MAX, "the planted leak is not found: t = {leak}");
    let mut found = Vec::new();
    for (at, (name, _)) in kinds.iter().enumerate().skip(1) {
        let t = welch(&measured[0], &measured[at]);
        let middle = |times: &[u64]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            times[times.len() / 2]
        };
        eprintln!(
            "{name}: t = {t:.2} (medians {} ns and {} ns)",
            middle(&measured[at]),
            middle(&measured[0])
        );
        if t.abs() >= T_MAX {
            found.push(format!("{name}: t = {t:.2}"));
        }
    }
    if samples() >= SAMPLES_OF_A_VERDICT {
        assert!(found.is_empty(), "{found:?}");
    }
}
