use std::collections::BTreeMap;

use axum::response::Response;
use serde_json::{Value, json};

use super::*;
use crate::credential::{
    LeaseRequest,
    fixture::{Asked, Stub, World, answer, authorization},
};

const TOKEN: &str = "hvs.canary-of-the-vault";

fn environment() -> BTreeMap<&'static str, String> {
    BTreeMap::from([("VAULT_TOKEN", TOKEN.to_owned()), ("SECRET_ID", "canary-secret-id".to_owned())])
}

fn vaults(stub: &Stub) -> Value {
    json!({ "main": {
        "url": format!("http://{}", stub.address), "token": "env:VAULT_TOKEN", "refresh": "300ms",
        "egress": { "loopback": true }
    } })
}

fn role_vaults(stub: &Stub) -> Value {
    let mut vaults = vaults(stub);
    vaults["main"].as_object_mut().unwrap().remove("token");
    vaults["main"]["app-role"] = json!({ "role-id": "gate", "secret-id": "env:SECRET_ID" });
    vaults
}

fn bearer(path: &str) -> Value {
    json!({ "bearer": { "secret": format!("vault:main/{path}") } })
}

fn key_value(stub: &Stub) -> World {
    World::of(&bearer("secret/data/orders/api#token"), &vaults(stub), &environment())
}

fn dynamic(stub: &Stub, vaults: &Value) -> World {
    let _ = stub;
    World::of(&bearer("database/creds/orders#password"), vaults, &environment())
}

/// The documented answer of a key-value engine, version 2.
fn version(number: usize, token: &str) -> (Duration, Response) {
    answer(
        200,
        &json!({
            "request_id": "1", "lease_id": "", "renewable": false, "lease_duration": 0,
            "data": {
                "data": { "token": token, "unwanted": "not-held", "count": 3 },
                "metadata": { "created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": false, "version": number }
            },
            "wrap_info": null, "warnings": null, "auth": null
        }),
    )
}

/// The documented answer of an engine that makes credentials.
fn made(number: usize, seconds: u64, renewable: bool) -> (Duration, Response) {
    answer(
        200,
        &json!({
            "request_id": "1", "lease_id": format!("database/creds/orders/{number}"), "renewable": renewable,
            "lease_duration": seconds, "data": { "username": "u", "password": format!("password-{number}") },
            "wrap_info": null, "warnings": null, "auth": null
        }),
    )
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test]
async fn a_key_value_secret_is_read_once_and_again_when_it_is_old() {
    let stub = Stub::start(|_, _| version(1, "one")).await;
    let world = key_value(&stub);
    for _ in 0..10 {
        assert_eq!(world.shown().await.unwrap(), "Bearer one");
    }
    let asked = stub.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("GET", "/v1/secret/data/orders/api"));
    assert_eq!(asked[0].header("x-vault-token"), TOKEN);
    assert_eq!(asked[0].header("x-vault-request"), "true");
    assert!(!asked[0].headers.contains_key("x-vault-namespace"));
    assert_eq!(world.registered(), [TOKEN, "one"]); // and nothing of what is not wanted
    stub.now(|_, _| version(2, "two"));
    pause(320).await;
    assert_eq!(world.shown().await.unwrap(), "Bearer one"); // read again behind it
    pause(60).await;
    assert_eq!(world.shown().await.unwrap(), "Bearer two");
    assert_eq!(world.registered(), [TOKEN, "two"]);
}

#[tokio::test]
async fn a_namespace_goes_along() {
    let stub = Stub::start(|_, _| version(1, "one")).await;
    let mut vaults = vaults(&stub);
    vaults["main"]["namespace"] = json!("team/orders");
    let world = World::of(&bearer("secret/data/orders/api#token"), &vaults, &environment());
    world.shown().await.unwrap();
    assert_eq!(stub.asked()[0].header("x-vault-namespace"), "team/orders");
}

#[tokio::test]
async fn a_vault_that_is_sealed_leaves_what_was_read_and_one_that_denies_does_not() {
    for (status, left, message) in [
        (503, true, "the vault `main`: it is sealed"),
        (403, false, "the vault `main`: access is denied"),
        (404, false, "the vault `main`: there is no such secret"),
    ] {
        let stub = Stub::start(move |_, _| answer(status, &json!({ "errors": ["canary-error-text"] }))).await;
        let said = key_value(&stub).shown().await.unwrap_err();
        assert_eq!((said.to_string().as_str(), said.code()), (message, "credential_unavailable"));
        stub.now(|_, _| version(1, "one"));
        let world = key_value(&stub);
        world.shown().await.unwrap();
        stub.now(move |_, _| answer(status, &json!({ "errors": ["canary-error-text"] })));
        pause(320).await;
        assert_eq!(world.shown().await.unwrap(), "Bearer one");
        pause(60).await;
        assert_eq!(world.shown().await.is_ok(), left, "{status}");
    }
}

#[tokio::test]
async fn a_secret_without_the_field_is_told_by_the_field_alone() {
    let stub = Stub::start(|_, _| version(1, "one")).await;
    for (field, reason) in [("absent", "absent"), ("count", "count")] {
        let world =
            World::of(&bearer(&format!("secret/data/orders/api#{field}")), &vaults(&stub), &environment());
        let said = world.shown().await.unwrap_err().to_string();
        assert_eq!(said, format!("the vault `main`: the secret has no text in the field `{reason}`"));
    }
}

#[tokio::test]
async fn a_lease_is_renewed_before_it_ends_and_the_secret_stays() {
    let stub = Stub::start(|_, asked| match asked.path.as_str() {
        "/v1/database/creds/orders" => made(1, 1, true),
        "/v1/sys/leases/renew" => answer(
            200,
            &json!({ "lease_id": "database/creds/orders/1", "renewable": true, "lease_duration": 2 }),
        ),
        other => panic!("{other}"),
    })
    .await;
    let world = dynamic(&stub, &vaults(&stub));
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_400) {
        assert_eq!(world.shown().await.unwrap(), "Bearer password-1");
        pause(20).await;
    }
    let asked = stub.asked();
    assert_eq!(asked.len(), 2, "{asked:?}"); // one lease, one renewal
    assert_eq!(asked[1].method, "PUT");
    let body: Value = serde_json::from_str(&asked[1].body).unwrap();
    assert_eq!(body, json!({ "lease_id": "database/creds/orders/1" }));
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_is_replaced_by_a_new_one() {
    // Refused, not renewable, and renewed for too little to help.
    for (renewable, renewal) in [
        (true, (400, json!({ "errors": ["lease not found"] }))),
        (false, (200, json!({}))),
        (
            true,
            (200, json!({ "lease_id": "database/creds/orders/1", "renewable": true, "lease_duration": 0 })),
        ),
    ] {
        let stub = Stub::start(move |number, asked: &Asked| match asked.path.as_str() {
            "/v1/sys/leases/renew" => answer(renewal.0, &renewal.1),
            _ => made(number, 1, renewable),
        })
        .await;
        let world = dynamic(&stub, &vaults(&stub));
        assert_eq!(world.shown().await.unwrap(), "Bearer password-1");
        pause(740).await;
        assert_eq!(world.shown().await.unwrap(), "Bearer password-1");
        pause(80).await;
        let shown = world.shown().await.unwrap();
        assert_ne!(shown, "Bearer password-1");
        assert_eq!(stub.asked().iter().any(|asked| asked.path.ends_with("renew")), renewable);
    }
}

#[tokio::test]
async fn a_lease_that_ends_while_the_vault_is_away_is_not_used() {
    let stub = Stub::start(|number, _| made(number, 1, true)).await;
    let world = dynamic(&stub, &vaults(&stub));
    assert_eq!(world.shown().await.unwrap(), "Bearer password-1");
    stub.now(|_, _| answer(503, &json!({ "errors": ["Vault is sealed"] })));
    pause(760).await;
    assert_eq!(world.shown().await.unwrap(), "Bearer password-1");
    pause(60).await;
    assert_eq!(world.shown().await.unwrap_err().to_string(), "the vault `main`: it is sealed");
}

/// A vault that knows one session at a time.
fn logging_in(number: usize, asked: &Asked) -> (Duration, Response) {
    match (asked.path.as_str(), asked.header("x-vault-token")) {
        ("/v1/auth/approle/login", "") => {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            assert_eq!(body, json!({ "role_id": "gate", "secret_id": "canary-secret-id" }));
            answer(
                200,
                &json!({ "auth": {
                "client_token": format!("session-{number}"), "lease_duration": 3600, "renewable": true
            } }),
            )
        }
        ("/v1/database/creds/orders", token) if token.starts_with("session-") => made(number, 60, true),
        (_, token) if token.starts_with("session-") => answer(200, &json!({})),
        (path, token) => panic!("{path} with `{token}`"),
    }
}

#[tokio::test]
async fn a_role_logs_in_once_and_gives_everything_back_at_the_end() {
    let stub = Stub::start(logging_in).await;
    let world = dynamic(&stub, &role_vaults(&stub));
    assert_eq!(world.shown().await.unwrap(), "Bearer password-2");
    world.shown().await.unwrap();
    assert_eq!(stub.asked().len(), 2);
    world.credentials.close(&world.egress).await;
    let asked = stub.asked();
    let ended: Vec<_> = asked[2..].iter().map(|asked| (asked.method.as_str(), asked.path.as_str())).collect();
    assert_eq!(ended, [("PUT", "/v1/sys/leases/revoke"), ("POST", "/v1/auth/token/revoke-self")]);
    let body: Value = serde_json::from_str(&asked[2].body).unwrap();
    assert_eq!(body, json!({ "lease_id": "database/creds/orders/2" }));
    assert!(asked[2..].iter().all(|asked| asked.header("x-vault-token") == "session-1"));
}

#[tokio::test]
async fn a_session_that_is_refused_is_replaced_once() {
    let stub = Stub::start(|number, asked| match asked.header("x-vault-token") {
        "session-1" => answer(403, &json!({ "errors": ["permission denied"] })),
        _ => logging_in(number, asked),
    })
    .await;
    let world = dynamic(&stub, &role_vaults(&stub));
    assert_eq!(world.shown().await.unwrap(), "Bearer password-4");
    // A vault that refuses every session is not asked for ever.
    let stub = Stub::start(|number, asked| match asked.header("x-vault-token") {
        "" => logging_in(number, asked),
        _ => answer(403, &json!({ "errors": ["permission denied"] })),
    })
    .await;
    let world = dynamic(&stub, &role_vaults(&stub));
    assert_eq!(world.shown().await.unwrap_err().to_string(), "the vault `main`: access is denied");
    assert_eq!(stub.asked().len(), 4);
}

#[tokio::test]
async fn a_refused_secret_is_read_again_and_shown_again_only_if_it_is_another() {
    let stub = Stub::start(|_, _| version(1, "one")).await;
    let world = key_value(&stub);
    let request = |tool, service, name| LeaseRequest {
        tool,
        service,
        name,
        client: "bot",
        user: None,
        deadline: Instant::now() + Duration::from_secs(5),
    };
    let (tool, service, name) =
        ("orders.get".parse().unwrap(), "orders".parse().unwrap(), "key".parse().unwrap());
    let lease = world.lease_for("orders.get", "bot", None).await.unwrap();
    let renewed = world.credentials.renew(&world.egress, request(&tool, &service, &name), &lease).await;
    assert!(renewed.is_none());
    stub.now(|_, _| version(2, "two"));
    let lease = world.lease_for("orders.get", "bot", None).await.unwrap();
    let renewed = world.credentials.renew(&world.egress, request(&tool, &service, &name), &lease).await;
    assert_eq!(authorization(&renewed.unwrap()), "Bearer two");
    // A vault that is away leaves the refusal as it is.
    stub.now(|_, _| answer(503, &json!({})));
    let lease = world.lease_for("orders.get", "bot", None).await.unwrap();
    assert!(world.credentials.renew(&world.egress, request(&tool, &service, &name), &lease).await.is_none());
}

#[test]
fn a_vault_that_cannot_be_opened_is_told_at_once_and_once() {
    let spec = json!({ "main": { "url": "https://vault.example", "token": "env:ABSENT" } });
    let (_, problems) = World::try_of(
        &bearer("secret/data/orders/api#token"),
        &spec,
        &BTreeMap::new(),
        std::path::Path::new("."),
    );
    let said: Vec<_> = problems.iter().map(|(holder, error)| format!("{holder:?} {error}")).collect();
    assert_eq!(said, [r#"Vault(VaultName("main")) the environment variable `ABSENT` is not set"#]);
}
