//! What holds of runs, revocations and keys, in one process and across two.

mod growth;
mod keys;
mod revocation;

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use super::*;
use crate::{call::User, manifest::KeyId, store::StateFolder};

async fn runs(folder: &Path) -> Arc<Runs> {
    let folder = StateFolder::prepare(&folder.join("state")).unwrap();
    Runs::open(Store::open(&folder).await.unwrap()).await.unwrap()
}

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
}

fn labels(names: &[&str]) -> BTreeSet<Label> {
    names.iter().map(|name| Label::parse(name).unwrap()).collect()
}

fn bot() -> Principal {
    Principal::client(ClientName::parse("bot").unwrap())
}

fn for_user(subject: &str) -> Principal {
    let user = User { issuer: "https://id.example.com".into(), subject: subject.into() };
    Principal { user: Some(user), ..bot() }
}

fn minted(principal: &Principal) -> NewRun<'static> {
    NewRun {
        principal: principal.clone(),
        kind: RunKind::Minted,
        lifetime: Duration::from_secs(3_600),
        idle: Duration::from_secs(600),
        destinations: vec!["api.example.com".into()],
        session: None,
    }
}

fn standing() -> Standing {
    Standing { client: bot().client, key: None, token: None, run: None, expires: None }
}

fn key(id: &str) -> RuntimeKey {
    RuntimeKey { id: KeyId::parse(id).unwrap(), client: bot().client, sha256: [7; 32], expires: at(1_000) }
}

/// How long it takes until something holds. Fails after a second.
async fn until(holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(1), "it does not come to hold");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    start.elapsed()
}

/// Longer than any other process needs to see a change.
const SEEN_WITHIN: Duration = Duration::from_millis(100);

#[tokio::test]
async fn labels_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let first = runs(folder.path()).await;
    let run = first.default_run(&bot(), at(0)).await.unwrap();
    first.absorb(&run, &labels(&["pii"])).await.unwrap();
    drop(first);
    let again = runs(folder.path()).await.default_run(&bot(), at(1)).await.unwrap();
    assert_eq!((again.id(), again.labels()), (run.id(), &labels(&["pii"])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_shared_by_processes_and_none_takes_one_away() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    let here = one.default_run(&bot(), at(0)).await.unwrap();
    let there = other.default_run(&bot(), at(0)).await.unwrap();
    assert_eq!(here.id(), there.id());
    one.absorb(&here, &labels(&["pii"])).await.unwrap();
    let seen = |labels: &BTreeSet<Label>| {
        let run = other.shared.table().default_of(&bot(), at(0).as_millisecond()).unwrap();
        run.labels() == labels
    };
    assert!(until(|| seen(&labels(&["pii"]))).await < SEEN_WITHIN);
    // Its own snapshot has no label.
    other.absorb(&there, &labels(&["untrusted"])).await.unwrap();
    assert!(seen(&labels(&["pii", "untrusted"])), "its own change is seen at once");
}

#[tokio::test]
async fn one_users_labels_do_not_reach_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let ann = runs.default_run(&for_user("ann"), at(0)).await.unwrap();
    runs.absorb(&ann, &labels(&["pii"])).await.unwrap();
    for other in [for_user("ben"), for_user(""), bot()] {
        assert!(runs.default_run(&other, at(0)).await.unwrap().labels().is_empty(), "{other:?}");
        assert!(runs.begin(&minted(&other), at(0)).await.unwrap().labels().is_empty(), "{other:?}");
    }
    assert_eq!(runs.begin(&minted(&for_user("ann")), at(0)).await.unwrap().labels(), &labels(&["pii"]));
}

#[tokio::test]
async fn a_default_run_ends_when_it_is_idle_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let first = runs.default_run(&bot(), at(0)).await.unwrap().with_call();
    runs.absorb(&first, &labels(&["untrusted"])).await.unwrap();
    let (id, calls) = (first.id(), first.calls());
    drop(first);
    assert_eq!(calls, 0);
    let kept = runs.default_run(&bot(), at(29)).await.unwrap().with_call();
    assert_eq!((kept.id(), kept.labels().len(), kept.calls()), (id, 1, 1));
    drop(kept);
    let kept = runs.default_run(&bot(), at(50)).await.unwrap();
    assert_eq!((kept.id(), kept.ended()), (id, None));
    drop(kept);
    let next = runs.default_run(&bot(), at(81)).await.unwrap();
    assert_eq!((next.labels().len(), next.ended()), (0, Some(id)));
    assert_eq!(runs.default_run(&bot(), at(81)).await.unwrap().ended(), None, "said once");
}

#[tokio::test]
async fn a_run_that_is_in_use_is_not_idle() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let run = runs.default_run(&bot(), at(0)).await.unwrap();
    assert_eq!(runs.default_run(&bot(), at(90)).await.unwrap().id(), run.id());
    assert_eq!(runs.sweep(at(200)).await.unwrap(), []);
    runs.absorb(&run, &labels(&["pii"])).await.unwrap();
    drop(run);
    assert_eq!(runs.sweep(at(229)).await.unwrap(), [], "it was in use when it was swept last");
    assert_eq!(runs.sweep(at(230)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_run_is_resumed_by_its_principal_alone() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let run = runs.begin(&minted(&for_user("ann")), at(0)).await.unwrap();
    let resumed = runs.resume(&run.id(), &for_user("ann"), at(1)).await.unwrap();
    assert_eq!((resumed.id(), resumed.destinations()), (run.id(), &["api.example.com".to_owned()][..]));
    for other in [for_user("ben"), bot()] {
        assert!(matches!(runs.resume(&run.id(), &other, at(1)).await, Err(RunError::Foreign)), "{other:?}");
    }
    let unknown = RunId::random().unwrap();
    assert!(matches!(runs.resume(&unknown, &bot(), at(1)).await, Err(RunError::Unknown)));
    runs.end(&run.id(), EndReason::Asked, at(1)).await.unwrap().unwrap();
    assert!(matches!(runs.resume(&run.id(), &for_user("ann"), at(1)).await, Err(RunError::Ended)));
    assert!(matches!(runs.resume(&run.id(), &for_user("ben"), at(1)).await, Err(RunError::Foreign)));
}

#[tokio::test]
async fn a_run_that_another_process_has_just_begun_is_resumed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    for _ in 0..20 {
        let session = RunId::random().unwrap().to_string();
        let run = one.begin(&NewRun { session: Some(&session), ..minted(&bot()) }, at(0)).await.unwrap();
        other.resume(&run.id(), &bot(), at(0)).await.unwrap();
        let session = RunId::random().unwrap().to_string();
        let run = one.begin(&NewRun { session: Some(&session), ..minted(&bot()) }, at(0)).await.unwrap();
        assert_eq!(other.session(&session, &bot(), at(0)).await.unwrap().id(), run.id());
    }
}

#[tokio::test]
async fn a_session_is_found_by_its_id_of_which_only_a_digest_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let new = NewRun { kind: RunKind::Session, session: Some("session-canary"), ..minted(&bot()) };
    let run = runs.begin(&new, at(0)).await.unwrap();
    assert_eq!(runs.session("session-canary", &bot(), at(1)).await.unwrap().id(), run.id());
    assert!(matches!(runs.session("session-canary", &for_user("ann"), at(1)).await, Err(RunError::Foreign)));
    assert!(matches!(runs.session("another", &bot(), at(1)).await, Err(RunError::Unknown)));
    assert_eq!((runs.sessions(), runs.sessions_of(&bot().client)), (1, 1));
    for name in ["state.db", "state.db-wal"] {
        let bytes = std::fs::read(folder.path().join("state").join(name)).unwrap();
        assert!(!bytes.windows(14).any(|part| part == b"session-canary"), "{name}");
    }
    runs.end(&run.id(), EndReason::Closed, at(1)).await.unwrap().unwrap();
    assert!(matches!(runs.session("session-canary", &bot(), at(1)).await, Err(RunError::Unknown)));
    assert_eq!((runs.sessions(), runs.sessions_of(&bot().client)), (0, 0));
    runs.begin(&new, at(1)).await.unwrap(); // the id is free again
}

#[tokio::test]
async fn a_run_expires_when_it_is_idle_and_at_the_end_of_its_lifetime() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let idle = runs.begin(&minted(&bot()), at(0)).await.unwrap().id();
    let old = runs.begin(&minted(&bot()), at(0)).await.unwrap().id();
    let expired = async |id, now| matches!(runs.resume(&id, &bot(), now).await, Err(RunError::Expired));
    for minute in [9, 18, 27, 36, 45, 54] {
        runs.resume(&old, &bot(), at(minute)).await.unwrap();
    }
    assert!(expired(idle, at(10)).await);
    assert!(!expired(old, at(59)).await);
    assert!(expired(old, at(60)).await);
    let standing = Standing { run: Some(old), ..standing() };
    assert_eq!(runs.check(&standing, at(59)), Ok(()));
    assert_eq!(runs.check(&standing, at(60)), Err(StandingError::RunEnded(old)));
    let swept = async |now| {
        let ended = runs.sweep(now).await.unwrap().into_iter();
        ended.map(|ended| (ended.id, ended.why)).collect::<Vec<_>>()
    };
    assert_eq!(swept(at(59)).await, [(idle, EndReason::Idle)]);
    assert_eq!(swept(at(60)).await, [(old, EndReason::Lifetime)]);
    assert_eq!(runs.sweep(at(60)).await.unwrap(), [], "once");
    assert!(matches!(runs.resume(&idle, &bot(), at(1)).await, Err(RunError::Ended)));
}

#[tokio::test]
async fn a_run_that_another_process_uses_is_not_ended_for_being_idle() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    let id = one.begin(&minted(&bot()), at(0)).await.unwrap().id();
    for minute in [5, 10, 15] {
        other.resume(&id, &bot(), at(minute)).await.unwrap();
        other.shared.keep().await.unwrap(); // what a task does every two seconds
    }
    assert_eq!(one.sweep(at(20)).await.unwrap(), []);
    assert_eq!(one.resume(&id, &bot(), at(20)).await.unwrap().id(), id);
}

#[tokio::test]
async fn what_a_process_does_not_know_of_a_runs_use_does_not_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    let id = one.begin(&minted(&bot()), at(0)).await.unwrap().id();
    other.resume(&id, &bot(), at(9)).await.unwrap();
    one._watcher.abort();
    other.shared.keep().await.unwrap();
    assert_eq!(one.over(at(15).as_millisecond()), [id], "it takes the run for idle");
    assert_eq!(one.sweep(at(15)).await.unwrap(), [], "and the store knows better");
}

#[tokio::test]
async fn a_run_inherits_what_its_principals_live_runs_have_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    let first = one.begin(&minted(&bot()), at(0)).await.unwrap();
    one.absorb(&first, &labels(&["pii"])).await.unwrap();
    let second = other.begin(&minted(&bot()), at(1)).await.unwrap();
    assert_eq!(second.labels(), &labels(&["pii"]));
    // What the first sees later is its own.
    one.absorb(&first, &labels(&["untrusted"])).await.unwrap();
    assert_eq!(one.resume(&second.id(), &bot(), at(1)).await.unwrap().labels(), &labels(&["pii"]));
    // What was inherited stays when it is gone from where it came from.
    one.end(&first.id(), EndReason::Asked, at(2)).await.unwrap().unwrap();
    assert_eq!(one.resume(&second.id(), &bot(), at(2)).await.unwrap().labels(), &labels(&["pii"]));
    assert_eq!(one.begin(&minted(&bot()), at(2)).await.unwrap().labels(), &labels(&["pii"]));
}

#[tokio::test]
async fn a_default_run_has_seen_what_any_live_run_of_its_principal_has() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let seen = async |minute| runs.default_run(&bot(), at(minute)).await.unwrap().labels().clone();
    let default = runs.default_run(&bot(), at(0)).await.unwrap();
    let minted_run = runs.begin(&minted(&bot()), at(0)).await.unwrap();
    runs.absorb(&minted_run, &labels(&["pii", "untrusted"])).await.unwrap();
    assert_eq!(seen(1).await, labels(&["pii", "untrusted"]));
    // A label that it has seen itself stays, though it counted as seen when it came.
    let both = runs.default_run(&bot(), at(1)).await.unwrap();
    runs.absorb(&both, &labels(&["untrusted"])).await.unwrap();
    runs.end(&minted_run.id(), EndReason::Asked, at(1)).await.unwrap().unwrap();
    assert_eq!(seen(1).await, labels(&["untrusted"]));
    drop((default, both));
    // A default run that begins anew counts as having seen it, too.
    let new = NewRun { idle: Duration::from_secs(36_000), ..minted(&bot()) };
    let other = runs.begin(&new, at(20)).await.unwrap();
    runs.absorb(&other, &labels(&["secret"])).await.unwrap();
    let next = runs.default_run(&bot(), at(40)).await.unwrap();
    assert!(next.ended().is_some());
    assert_eq!(next.labels(), &labels(&["secret", "untrusted"]), "what the other inherited at its beginning");
}

#[tokio::test]
async fn an_ended_run_remembers_nothing_and_takes_nothing_in() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let new = NewRun { destinations: vec!["canary.example.com".into()], ..minted(&bot()) };
    let run = runs.begin(&new, at(0)).await.unwrap();
    runs.absorb(&run, &labels(&["canary-label"])).await.unwrap();
    let ended = runs.end(&run.id(), EndReason::Asked, at(1)).await.unwrap().unwrap();
    assert_eq!(
        ended,
        EndedRun { id: run.id(), kind: RunKind::Minted, principal: bot(), why: EndReason::Asked }
    );
    assert!(runs.end(&run.id(), EndReason::Asked, at(1)).await.unwrap().is_none());
    assert!(matches!(runs.absorb(&run, &labels(&["pii"])).await, Err(RunsError::Ended)));
    assert!(runs.list().is_empty());
    let mut change = runs.shared.store.change().await.unwrap();
    sqlx::query("DELETE FROM agent_runs").execute(&mut *change).await.unwrap();
    change.commit().await.unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(runs.shared.store.pool()).await.unwrap();
    let bytes = std::fs::read(folder.path().join("state/state.db")).unwrap();
    for canary in [&b"canary-label"[..], b"canary.example.com"] {
        assert!(!bytes.windows(canary.len()).any(|part| part == canary));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_one_process_ends_is_refused_in_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    for _ in 0..20 {
        let id = one.begin(&minted(&bot()), at(0)).await.unwrap().id();
        other.resume(&id, &bot(), at(0)).await.unwrap();
        let standing = Standing { run: Some(id), ..standing() };
        assert_eq!(other.check(&standing, at(0)), Ok(()));
        one.end(&id, EndReason::Asked, at(0)).await.unwrap().unwrap();
        assert_eq!(one.check(&standing, at(0)), Err(StandingError::RunEnded(id)), "here at once");
        let took = until(|| other.check(&standing, at(0)) == Err(StandingError::RunEnded(id))).await;
        assert!(took < SEEN_WITHIN, "{took:?}");
        assert!(matches!(other.resume(&id, &bot(), at(0)).await, Err(RunError::Ended)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_of_two_processes_that_need_a_default_run_at_once_get_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let both = [runs(folder.path()).await, runs(folder.path()).await];
    for round in 0..5 {
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let runs = Arc::clone(&both[task % 2]);
                tokio::spawn(async move {
                    let run = runs.default_run(&bot(), at(round * 60)).await.unwrap();
                    (run.id(), run.ended())
                })
            })
            .collect();
        let mut ids = BTreeSet::new();
        let mut ended = 0;
        for task in tasks {
            let (id, was_ended) = task.await.unwrap();
            ids.insert(id);
            ended += usize::from(was_ended.is_some());
        }
        assert_eq!((ids.len(), ended), (1, usize::from(round > 0)), "in round {round}");
    }
}

#[tokio::test]
async fn everything_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let long = "x".repeat(DESTINATION_BYTES_MAX + 1);
    for destinations in [vec![long], vec!["x".to_owned(); DESTINATIONS_MAX + 1]] {
        let new = NewRun { destinations, ..minted(&bot()) };
        assert!(matches!(runs.begin(&new, at(0)).await, Err(RunsError::Destinations { .. })));
    }
    let many = |from: usize, count| {
        let names: Vec<String> = (from..from + count).map(|at| format!("l{at}")).collect();
        labels(&names.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let run = runs.default_run(&bot(), at(0)).await.unwrap();
    runs.absorb(&run, &many(0, LABELS_MAX)).await.unwrap();
    assert!(matches!(runs.absorb(&run, &many(LABELS_MAX, 1)).await, Err(RunsError::TooManyLabels { .. })));
    assert_eq!(runs.default_run(&bot(), at(0)).await.unwrap().labels().len(), LABELS_MAX);
    assert!(matches!(
        runs.default_run(&for_user(&"x".repeat(USER_BYTES_MAX + 1)), at(0)).await,
        Err(RunsError::TooLong { .. })
    ));
    let what = Revocation::Client(bot().client);
    let reason = "x".repeat(REASON_BYTES_MAX + 1);
    assert!(matches!(runs.revoke(&what, "dana", &reason, None, at(0)).await, Err(RunsError::TooLong { .. })));
}

#[tokio::test]
async fn one_client_cannot_take_all_runs() {
    let folder = tempfile::tempdir().unwrap();
    let first = runs(folder.path()).await;
    let store = first.shared.store.clone();
    let mut change = store.change().await.unwrap();
    for _ in 0..RUNS_OF_CLIENT_MAX {
        insert(&mut change, RunId::random().unwrap(), &minted(&for_user("ann")), at(0).as_millisecond())
            .await
            .unwrap();
    }
    change.commit().await.unwrap();
    first.shared.catch_up(None).await.unwrap();
    assert!(matches!(first.begin(&minted(&bot()), at(0)).await, Err(RunsError::TooManyOfClient { .. })));
    first.default_run(&bot(), at(0)).await.unwrap();
    let web = Principal::client(ClientName::parse("web").unwrap());
    first.begin(&minted(&web), at(0)).await.unwrap();
    let ended = first.sweep(at(10)).await.unwrap();
    assert_eq!(ended.len(), RUNS_OF_CLIENT_MAX + 1);
    first.begin(&minted(&bot()), at(10)).await.unwrap();
}

#[tokio::test]
async fn what_ended_long_ago_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let run = runs.begin(&minted(&bot()), at(0)).await.unwrap().id();
    runs.end(&run, EndReason::Asked, at(0)).await.unwrap().unwrap();
    runs.sweep(at(7 * 24 * 60)).await.unwrap();
    assert!(matches!(runs.resume(&run, &bot(), at(0)).await, Err(RunError::Ended)));
    runs.sweep(at(8 * 24 * 60)).await.unwrap();
    assert!(matches!(runs.resume(&run, &bot(), at(0)).await, Err(RunError::Unknown)));
    let standing = Standing { run: Some(run), ..standing() };
    assert_eq!(runs.check(&standing, at(0)), Err(StandingError::RunEnded(run)));
    let left: (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM agent_runs").fetch_one(runs.shared.store.pool()).await.unwrap();
    assert_eq!(left.0, 0);
}

#[tokio::test]
async fn dropped_runs_stop_watching() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let shared = Arc::downgrade(&runs.shared);
    drop(runs);
    until(|| shared.upgrade().is_none()).await;
}
