//! What holds of revocations, and of a state that cannot be read.

use super::*;

fn revocations() -> [(Revocation, Standing, StandingError); 3] {
    let token = TokenId { issuer: "https://id.example.com".into(), id: "jti-1".into() };
    let key = KeyId::parse("k1").unwrap();
    [
        (
            Revocation::Client(bot().client),
            Standing { client: bot().client, ..standing() },
            StandingError::Client(bot().client),
        ),
        (
            Revocation::Key(key.clone()),
            Standing { key: Some(key.clone()), client: ClientName::parse("web").unwrap(), ..standing() },
            StandingError::Key(key),
        ),
        (
            Revocation::Token(token.clone()),
            Standing { token: Some(token), client: ClientName::parse("web").unwrap(), ..standing() },
            StandingError::Token,
        ),
    ]
}

#[tokio::test]
async fn a_revocation_is_in_force_when_it_returns_and_survives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let first = runs(folder.path()).await;
    for (what, standing, refusal) in revocations() {
        assert_eq!(first.check(&standing, at(0)), Ok(()));
        first.revoke(&what, "dana", "left", None, at(0)).await.unwrap();
        assert_eq!(first.check(&standing, at(0)), Err(refusal.clone()));
    }
    let run = first.begin(&minted(&for_user("ann")), at(0)).await.unwrap().id();
    first.revoke(&Revocation::Run(run), "dana", "", None, at(0)).await.unwrap();
    drop(first);
    let again = runs(folder.path()).await;
    for (_, standing, refusal) in revocations() {
        assert_eq!(again.check(&standing, at(1_000_000)), Err(refusal));
    }
    let of_run = Standing { run: Some(run), client: ClientName::parse("web").unwrap(), ..standing() };
    assert_eq!(again.check(&of_run, at(1)), Err(StandingError::Run(run)));
    let listed: Vec<_> = again.revocations().into_iter().map(|view| (view.kind, view.name)).collect();
    let expected = [
        ("token", r#"["https://id.example.com","jti-1"]"#),
        ("run", &run.to_string()),
        ("client", "bot"),
        ("key", "k1"),
    ];
    for (kind, name) in expected {
        assert!(listed.contains(&(kind.into(), name.into())), "{kind} {name} in {listed:?}");
    }
    // Nothing else is revoked.
    let other = TokenId { issuer: "https://id.example.com".into(), id: "jti-2".into() };
    let web = ClientName::parse("web").unwrap();
    let key = Some(KeyId::parse("k2").unwrap());
    assert_eq!(again.check(&Standing { client: web, key, token: Some(other), ..standing() }, at(0)), Ok(()));
}

#[tokio::test]
async fn a_revocation_is_never_shortened_and_is_over_when_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let [_, _, (what, standing, refusal)] = revocations();
    runs.revoke(&what, "dana", "", Some(at(10)), at(0)).await.unwrap();
    runs.revoke(&what, "dana", "", Some(at(5)), at(0)).await.unwrap();
    assert_eq!(runs.check(&standing, at(9)), Err(refusal.clone()));
    assert_eq!(runs.check(&standing, at(10)), Ok(()));
    runs.sweep(at(11)).await.unwrap();
    assert!(runs.revocations().is_empty());
    runs.revoke(&what, "dana", "", None, at(12)).await.unwrap();
    runs.revoke(&what, "dana", "", Some(at(13)), at(12)).await.unwrap();
    runs.sweep(at(1_000_000)).await.unwrap();
    assert_eq!(runs.check(&standing, at(1_000_000)), Err(refusal));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_the_other_process_within_100_ms_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = [&one, &other, &one]
        .into_iter()
        .enumerate()
        .map(|(writer, runs)| {
            let (runs, stop) = (Arc::clone(runs), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut count = 0_usize;
                while !stop.load(Ordering::Relaxed) {
                    let run = runs.begin(&minted(&for_user(&format!("u{writer}"))), at(0)).await.unwrap();
                    runs.absorb(&run, &labels(&["pii", "untrusted"])).await.unwrap();
                    runs.end(&run.id(), EndReason::Asked, at(0)).await.unwrap().unwrap();
                    count += 3;
                }
                count
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for at_try in 0..50 {
        let key = KeyId::parse(&format!("k{at_try}")).unwrap();
        let standing = Standing { key: Some(key.clone()), ..standing() };
        assert_eq!(other.check(&standing, at(0)), Ok(()));
        one.revoke(&Revocation::Key(key.clone()), "dana", "", None, at(0)).await.unwrap();
        assert_eq!(one.check(&standing, at(0)), Err(StandingError::Key(key.clone())));
        let took = until(|| other.check(&standing, at(0)) == Err(StandingError::Key(key.clone()))).await;
        slowest = slowest.max(took);
    }
    stop.store(true, Ordering::Relaxed);
    let mut writes = 0;
    for writer in writers {
        writes += writer.await.unwrap();
    }
    eprintln!("slowest of 50: {slowest:?}, beside {writes} writes");
    assert!(slowest < SEEN_WITHIN, "{slowest:?}");
    assert!(writes > 50, "there was a load");
}

#[tokio::test]
async fn nobody_stands_when_the_state_was_not_read_for_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let mut runs = runs(folder.path()).await;
    stop_watching(&mut runs);
    assert_eq!(runs.check(&standing(), at(0)), Ok(()));
    tokio::time::sleep(STALE_MAX + Duration::from_millis(50)).await;
    assert!(matches!(runs.check(&standing(), at(0)), Err(StandingError::Stale { max_ms: 1_000, .. })));
    runs.shared.catch_up(None).await.unwrap();
    assert_eq!(runs.check(&standing(), at(0)), Ok(()));
}

#[tokio::test]
async fn a_store_that_went_back_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    for _ in 0..3 {
        runs.begin(&minted(&bot()), at(0)).await.unwrap();
    }
    let mut change = runs.shared.store.change().await.unwrap();
    sqlx::query("UPDATE generation SET value = 0").execute(&mut *change).await.unwrap();
    change.commit().await.unwrap();
    runs.default_run(&bot(), at(0)).await.unwrap_err();
    assert!(matches!(runs.shared.catch_up(None).await, Err(RunsError::WentBack { .. })));
}

#[tokio::test]
async fn a_damaged_row_is_not_left_out() {
    for damage in [
        "UPDATE agent_run_labels SET label = 'No Label', generation = generation + 1",
        "UPDATE agent_runs SET principal = '[]', generation = generation + 1",
        "UPDATE revocations SET kind = 'all', generation = generation + 1",
        "UPDATE api_keys SET sha256 = 'ff', generation = generation + 1",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut runs = runs(folder.path()).await;
        let run = runs.default_run(&bot(), at(0)).await.unwrap();
        runs.absorb(&run, &labels(&["pii"])).await.unwrap();
        runs.revoke(&Revocation::Client(bot().client), "dana", "", None, at(0)).await.unwrap();
        runs.add_key(&key("k1"), "dana", at(0)).await.unwrap();
        stop_watching(&mut runs);
        let mut change = runs.shared.store.change().await.unwrap();
        sqlx::query(damage).execute(&mut *change).await.unwrap();
        sqlx::query("UPDATE generation SET value = value + 5").execute(&mut *change).await.unwrap();
        change.commit().await.unwrap();
        // The reading fails each time, and is not taken for done.
        for _ in 0..2 {
            assert!(
                matches!(Runs::open(runs.shared.store.clone()).await.map(drop), Err(RunsError::Damaged(_))),
                "{damage}"
            );
        }
    }
}

#[tokio::test]
async fn the_watcher_goes_on_when_the_store_answers_again() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    let pool = one.shared.store.pool();
    sqlx::raw_sql("ALTER TABLE generation RENAME TO away").execute(pool).await.unwrap();
    tokio::time::sleep(STALE_MAX + Duration::from_millis(200)).await;
    assert!(matches!(other.check(&standing(), at(0)), Err(StandingError::Stale { .. })));
    sqlx::raw_sql("ALTER TABLE away RENAME TO generation").execute(pool).await.unwrap();
    one.revoke(&Revocation::Client(bot().client), "dana", "", None, at(0)).await.unwrap();
    until(|| matches!(other.check(&standing(), at(0)), Err(StandingError::Client(_)))).await;
}

#[tokio::test]
async fn a_flood_that_leaves_no_task_its_turn_does_not_make_the_state_stale() {
    let folder = tempfile::tempdir().unwrap();
    let runs = runs(folder.path()).await;
    let start = Instant::now();
    while start.elapsed() < STALE_MAX + Duration::from_millis(300) {
        assert_eq!(runs.check(&standing(), at(0)), Ok(())); // and never waits for anything
    }
}

#[tokio::test]
async fn what_clients_use_up_leaves_room_for_those_who_have_to_act() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::prepare(&folder.path().join("state")).unwrap();
    let store = Store::open(&state).await.unwrap();
    let until = at(1_000_000);
    let used = sqlx::query(
        r#"WITH RECURSIVE used(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM used WHERE x < 50000)
           INSERT INTO revocations (kind, name, actor, reason, made_ms, until_ms, generation)
           SELECT 'token', '["i","' || x || '"]', 'client:bot', 'used', 0, $1, 0 FROM used"#,
    );
    used.bind(until.as_millisecond()).execute(store.pool()).await.unwrap();
    let runs = Runs::open(store).await.unwrap();
    let token = TokenId { issuer: "i".into(), id: "another".into() };
    let full = |result: Result<(), RunsError>| matches!(result, Err(RunsError::TooManyRevocations { .. }));
    assert!(full(runs.use_up(&token, "client:bot", until, at(0)).await.map(|_| ())));
    let taken_back = Revocation::Token(token);
    assert!(full(runs.revoke(&taken_back, "client:bot", "", Some(until), at(0)).await));
    // Whoever has to act can.
    runs.revoke(&taken_back, "dana", "", None, at(0)).await.unwrap();
    runs.revoke(&Revocation::Client(bot().client), "dana", "", None, at(0)).await.unwrap();
}
