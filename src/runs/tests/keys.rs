//! What holds of keys made at run time, and of signing keys.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_made_at_run_time_works_in_all_processes_and_expires_no_later_than_it_was_made_to() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    one.add_key(&key("k1"), "dana", at(0)).await.unwrap();
    assert_eq!(one.key("k1").unwrap().sha256, [7; 32]);
    assert!(until(|| other.key("k1").is_some()).await < SEEN_WITHIN);
    assert!(matches!(other.add_key(&key("k1"), "dana", at(0)).await, Err(RunsError::KeyExists(_))));
    let id = KeyId::parse("k1").unwrap();
    assert_eq!(other.expire_key(&id, at(10)).await.unwrap(), at(10));
    assert_eq!(other.expire_key(&id, at(20)).await.unwrap(), at(10), "never later");
    assert!(until(|| one.key("k1").unwrap().expires == at(10)).await < SEEN_WITHIN);
    let unknown = one.expire_key(&KeyId::parse("k2").unwrap(), at(10)).await;
    assert!(matches!(unknown, Err(RunsError::UnknownKey(_))));
    one.sweep(at(10)).await.unwrap();
    assert!(one.key("k1").is_some(), "it is known as expired for some time");
    one.sweep(at(8 * 24 * 60)).await.unwrap();
    assert!(one.key("k1").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_use_of_a_key_is_stored_once_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    let (made, written) = (KeyId::parse("k1").unwrap(), KeyId::parse("k2").unwrap());
    one.add_key(&key("k1"), "dana", at(0)).await.unwrap();
    assert_eq!(one.keys()[0].last_used, None);
    for id in [&made, &written] {
        one.key_used(id, at(0));
        one.shared.keep().await.unwrap();
        until(|| other.key_last_used(id) == Some(at(0))).await;
    }
    let before = one.shared.applied.load(Ordering::Relaxed);
    one.key_used(&made, at(0) + jiff::SignedDuration::from_secs(59));
    one.shared.keep().await.unwrap();
    assert_eq!(one.shared.applied.load(Ordering::Relaxed), before, "nothing was written");
    one.key_used(&made, at(1));
    one.shared.keep().await.unwrap();
    until(|| other.keys()[0].last_used == Some(at(1))).await;
    assert_eq!(one.keys().len(), 1, "a key of a file is not one made at run time");
}

#[tokio::test]
async fn the_first_to_write_a_signing_key_wins_and_a_retired_one_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    let row = |kid: &str, byte: u8, minute| SigningKeyRow {
        kid: kid.into(),
        pkcs8: vec![byte; 40].into(),
        made: at(minute),
        retires: at(minute + 100),
    };
    assert!(one.add_signing_key(&row("s1", 1, 0), None).await.unwrap());
    assert!(!other.add_signing_key(&row("s2", 2, 0), None).await.unwrap());
    assert!(other.add_signing_key(&row("s3", 3, 10), Some("s1")).await.unwrap());
    assert!(!one.add_signing_key(&row("s4", 4, 10), Some("s1")).await.unwrap());
    let keys = |keys: Vec<SigningKeyRow>| {
        use secrecy::ExposeSecret as _;
        keys.into_iter().map(|key| (key.kid, key.pkcs8.expose_secret()[0])).collect::<Vec<_>>()
    };
    let both = keys(one.signing_keys(at(20)).await.unwrap());
    assert_eq!(both, [("s1".to_owned(), 1), ("s3".to_owned(), 3)]);
    one.retire_signing_key("s1", at(30)).await.unwrap();
    one.retire_signing_key("s1", at(50)).await.unwrap();
    assert_eq!(keys(other.signing_keys(at(30)).await.unwrap()), [("s3".to_owned(), 3)]);
    one.sweep(at(31)).await.unwrap();
    let stored: Vec<(String, String)> = sqlx::query_as("SELECT kid, pkcs8 FROM signing_keys ORDER BY kid")
        .fetch_all(one.shared.store.pool())
        .await
        .unwrap();
    assert_eq!(stored, [("s1".to_owned(), String::new()), ("s3".to_owned(), "03".repeat(40))]);
    assert!(!one.add_signing_key(&row("s5", 5, 40), None).await.unwrap(), "there was a first one");
}
