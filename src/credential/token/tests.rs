use std::{collections::BTreeMap, time::Duration};

use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
use axum::{body::Body, response::Response};
use serde_json::{Value, json};

use super::*;
use crate::credential::{
    Lease,
    fixture::{Asked, Stub, TIMING, World, answer, authorization, token},
    signer::tests::{p256, verified},
};

const SECRET: &str = "hunter2 of the client&more";

fn environment() -> BTreeMap<&'static str, String> {
    BTreeMap::from([("SECRET", SECRET.to_owned())])
}

fn spec(stub: &Stub) -> Value {
    json!({
        "token-url": format!("http://{}/token", stub.address),
        "client": "gate:1",
        "secret": "env:SECRET",
        "scopes": { "default": ["orders:read"], "orders.list": ["orders:list", "orders:read"] },
        "egress": { "loopback": true }
    })
}

fn world(stub: &Stub) -> World {
    World::of(&json!({ "client-credentials": spec(stub) }), &json!({}), &environment())
}

/// A token of the request's own number.
fn numbered(number: usize, _: &Asked) -> (Duration, Response) {
    token(&format!("token-{number}"), 60)
}

#[tokio::test]
async fn the_gate_asks_for_its_tools_scopes_and_shows_what_it_gets() {
    let stub = Stub::start(numbered).await;
    let mut spec = spec(&stub);
    spec["resource"] = json!("https://orders.example");
    spec["audience"] = json!("orders");
    let world = World::of(&json!({ "client-credentials": spec }), &json!({}), &environment());
    assert_eq!(world.shown().await.unwrap(), "Bearer token-1");
    assert_eq!(world.shown().await.unwrap(), "Bearer token-1");
    let other = world.lease_for("orders.list", "bot", None).await.unwrap();
    assert_eq!(authorization(&other), "Bearer token-2"); // a tool's token has its scopes, not another's
    let asked = stub.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("POST", "/token"));
    let form = |name: &str| asked[0].form(name).unwrap_or_default();
    assert_eq!(form("grant_type"), "client_credentials");
    assert_eq!(form("scope"), "orders:read");
    // Sent as it was written: no slash is added (RFC 8707 compares texts).
    assert_eq!((form("resource"), form("audience")), ("https://orders.example".into(), "orders".into()));
    assert_eq!(asked[1].form("scope").unwrap(), "orders:list orders:read");
    // RFC 6749 §2.3.1: form-encoded, then base64.
    let pair = STANDARD.encode("gate%3A1:hunter2+of+the+client%26more");
    assert_eq!(asked[0].header("authorization"), format!("Basic {pair}"));
    assert!(!asked[0].body.contains("hunter2"));
    assert_eq!(world.registered(), [SECRET, "token-1", "token-2"]);
    let printed = format!("{:?} {other:?} {:#?}", world.credentials, world.live);
    assert!(!printed.contains("hunter2") && !printed.contains("token-1"), "{printed}");
}

#[tokio::test]
async fn a_client_can_show_its_secret_in_the_body_or_sign_with_its_key() {
    let stub = Stub::start(numbered).await;
    let (pem, public) = p256();
    let mut post = spec(&stub);
    post["auth"] = json!("post");
    World::of(&json!({ "client-credentials": post }), &json!({}), &environment()).shown().await.unwrap();
    let mut key = spec(&stub);
    key.as_object_mut().unwrap().remove("secret");
    key["key"] = json!("env:KEY");
    key["alg"] = json!("ES256");
    let environment = BTreeMap::from([("KEY", pem)]);
    World::of(&json!({ "client-credentials": key }), &json!({}), &environment).shown().await.unwrap();
    let asked = stub.asked();
    assert_eq!(
        (asked[0].form("client_id").unwrap(), asked[0].form("client_secret").unwrap()),
        ("gate:1".into(), SECRET.into())
    );
    assert!(asked.iter().all(|asked| asked.header("authorization").is_empty()));
    assert_eq!(asked[1].form("client_assertion_type").unwrap(), ASSERTION_JWT);
    let assertion = asked[1].form("client_assertion").unwrap();
    let (_, claims) = verified(&assertion, &ECDSA_P256_SHA256_FIXED, &public);
    let endpoint = format!("http://{}/token", stub.address);
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["aud"]),
        (&json!("gate:1"), &json!("gate:1"), &json!(endpoint))
    );
    assert!(asked[1].form("client_secret").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_calls_at_once_ask_once() {
    let stub =
        Stub::start(|number, _| (Duration::from_millis(100), token(&format!("token-{number}"), 60).1)).await;
    let world = Arc::new(world(&stub));
    let calls = (0..200).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.shown().await.unwrap() })
    });
    for shown in futures::future::join_all(calls).await {
        assert_eq!(shown.unwrap(), "Bearer token-1");
    }
    assert_eq!(stub.asked().len(), 1);
}

#[tokio::test]
async fn a_token_is_got_anew_at_four_fifths_of_its_life_while_the_old_one_serves() {
    let stub =
        Stub::start(|number, _| (Duration::from_millis(100), token(&format!("token-{number}"), 2).1)).await;
    let world = world(&stub);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(world.shown().await.unwrap(), "Bearer token-1");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(stub.asked().len(), 1);
    tokio::time::sleep(Duration::from_millis(150)).await; // past 1.6 s of 2 s
    assert_eq!(world.shown().await.unwrap(), "Bearer token-1");
    tokio::time::sleep(Duration::from_millis(130)).await;
    assert_eq!(world.shown().await.unwrap(), "Bearer token-2");
    assert_eq!(world.registered(), [SECRET, "token-2"]); // the old one is not held any more
}

#[tokio::test]
async fn a_token_serves_while_the_endpoint_is_away_and_not_in_its_last_part() {
    let stub = Stub::start(|_, _| token("token", 1)).await;
    let world = world(&stub);
    assert_eq!(world.shown().await.unwrap(), "Bearer token");
    stub.now(|_, _| answer(503, &json!({})));
    tokio::time::sleep(Duration::from_millis(740)).await; // past 0.72 s, at which a refresh is due
    assert_eq!(world.shown().await.unwrap(), "Bearer token");
    tokio::time::sleep(Duration::from_millis(100)).await; // past 0.8 s of 1 s
    let refusal = world.shown().await.unwrap_err();
    assert_eq!(refusal.code(), "credential_unavailable");
    insta::assert_snapshot!(refusal, @"the token endpoint of `key`: answered 503");
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_not_asked_by_every_call() {
    let stub = Stub::start(|_, _| answer(500, &json!({}))).await;
    let world = world(&stub);
    for _ in 0..100 {
        assert!(world.shown().await.is_err());
    }
    assert_eq!(stub.asked().len(), 1);
    stub.now(numbered);
    tokio::time::sleep(TIMING.failure_kept).await;
    assert_eq!(world.shown().await.unwrap(), "Bearer token-2");
}

#[tokio::test]
async fn an_answer_that_is_not_what_it_should_be_gives_no_token() {
    let text = |kind: &'static str, body: &str| {
        let response = Response::builder().header("content-type", kind);
        (Duration::ZERO, response.body(Body::from(body.to_owned())).unwrap())
    };
    let good = || json!({ "access_token": "leaked", "token_type": "Bearer", "expires_in": 60 });
    let with = |member: &str, value: Value| {
        let mut body = good();
        body[member] = value;
        (200, body)
    };
    let cases: Vec<(&str, (u16, Value))> = vec![
        ("no usable `token_type`", with("token_type", json!("mac"))),
        ("no usable `token_type`", with("token_type", Value::Null)),
        ("no usable `access_token`", with("access_token", Value::Null)),
        ("no usable `access_token`", with("access_token", json!(""))),
        ("no usable `access_token`", with("access_token", json!("leaked\r\nX-Admin: 1"))),
        ("no usable `access_token`", with("access_token", json!("leaked two"))),
        ("no usable `access_token`", with("access_token", json!("leaked".repeat(2_000)))),
        ("is not strict JSON", with("expires_in", json!("3600"))),
        ("is not strict JSON", with("expires_in", json!(-1))),
        ("does not live long enough", with("expires_in", json!(0))),
        ("a scope that the tool needs was not granted", with("scope", json!("orders:other"))),
        ("a scope that the tool needs was not granted", with("scope", json!(""))),
        ("more scopes were granted than were asked for", with("scope", json!("orders:read admin"))),
        (
            "refused with `invalid_client`",
            (401, json!({ "error": "invalid_client", "error_description": "leaked" })),
        ),
        ("refused with `invalid_target`", (400, json!({ "error": "invalid_target" }))),
        ("answered 400", (400, json!({ "error": "leaked" }))),
        ("answered 400", (400, json!(["leaked"]))),
        ("answered 201", (201, good())),
        ("larger than 65536 bytes", with("more", json!("leaked".repeat(20_000)))),
    ];
    for (message, (status, body)) in cases {
        let stub = Stub::start(move |_, _| answer(status, &body)).await;
        let refusal = world(&stub).shown().await.unwrap_err();
        let said = refusal.to_string();
        assert!(said.contains(message), "{message}: {said}");
        assert!(!said.contains("leaked") && refusal.code() == "credential_unavailable", "{said}");
    }
    for (message, kind, body) in [
        ("is not strict JSON", "text/html", good().to_string()),
        (
            "is not strict JSON",
            "application/json",
            r#"{"token_type":"Bearer","access_token":"a","access_token":"leaked"}"#.into(),
        ),
        ("is not strict JSON", "application/json", "<html>leaked".into()),
        ("is not strict JSON", "", good().to_string()),
    ] {
        let stub = Stub::start(move |_, _| text(kind, &body)).await;
        let said = world(&stub).shown().await.unwrap_err().to_string();
        assert!(said.contains(message) && !said.contains("leaked"), "{said}");
    }
    // The good answer, of which all of these are one step away.
    let stub = Stub::start(move |_, _| answer(200, &good())).await;
    assert_eq!(world(&stub).shown().await.unwrap(), "Bearer leaked");
}

#[tokio::test]
async fn an_endpoint_that_redirects_or_dawdles_gives_no_token_and_gets_no_second_request() {
    let canary = Stub::start(numbered).await;
    let elsewhere = format!("http://{}/token", canary.address);
    let stub = Stub::start(move |_, _| {
        let response = Response::builder().status(307).header("location", elsewhere.as_str());
        (Duration::ZERO, response.body(Body::empty()).unwrap())
    })
    .await;
    insta::assert_snapshot!(
        world(&stub).shown().await.unwrap_err(),
        @"the token endpoint of `key`: answered 307, a redirect, which is not followed"
    );
    assert!(canary.asked().is_empty());
    let slow = Stub::start(|_, _| (Duration::from_secs(30), token("late", 60).1)).await;
    let began = Instant::now();
    insta::assert_snapshot!(
        world(&slow).shown().await.unwrap_err(),
        @"the token endpoint of `key`: no whole answer within 1s"
    );
    assert!(began.elapsed() < Duration::from_millis(1_400));
    // A body that never ends.
    let trickle = Stub::start(|_, _| {
        let drops = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Ok::<_, std::io::Error>(" "), ()))
        });
        let response = Response::builder().header("content-type", "application/json");
        (Duration::ZERO, response.body(Body::from_stream(drops)).unwrap())
    })
    .await;
    insta::assert_snapshot!(
        world(&trickle).shown().await.unwrap_err(),
        @"the token endpoint of `key`: no whole answer within 1s"
    );
}

#[tokio::test]
async fn an_endpoint_is_behind_the_judge_of_egress() {
    let stub = Stub::start(numbered).await;
    let mut closed = spec(&stub);
    closed["egress"] = json!({});
    let world = World::of(&json!({ "client-credentials": closed }), &json!({}), &environment());
    insta::assert_snapshot!(
        world.shown().await.unwrap_err(),
        @"the token endpoint of `key`: the address is loopback (127.0.0.0/8, RFC 1122), which the service's egress does not allow"
    );
    assert!(stub.asked().is_empty());
}

#[tokio::test]
async fn a_token_that_was_refused_is_not_shown_again() {
    let stub = Stub::start(numbered).await;
    let world = world(&stub);
    let lease = world.lease_for("orders.get", "bot", None).await.unwrap();
    world.credentials.reject(&lease);
    world.credentials.reject(&lease);
    assert_eq!(world.shown().await.unwrap(), "Bearer token-2");
    world.credentials.reject(&lease); // late news of the first says nothing of the second
    assert_eq!(world.shown().await.unwrap(), "Bearer token-2");
    assert_eq!(stub.asked().len(), 2);
}

/// A world whose tokens are exchanged, and the gate's public key.
fn exchanging(stub: &Stub, require_user: bool) -> (World, Vec<u8>) {
    let (pem, public) = p256();
    let mut spec = spec(stub);
    spec["subject"] = json!({
        "issuer": "https://gate.example", "key": "env:KEY", "alg": "ES256", "require-user": require_user
    });
    let environment = BTreeMap::from([("SECRET", SECRET.to_owned()), ("KEY", pem)]);
    (World::of(&json!({ "token-exchange": spec }), &json!({}), &environment), public)
}

#[tokio::test]
async fn a_callers_token_is_exchanged_for_the_gates_own_word_on_who_calls() {
    let stub = Stub::start(numbered).await;
    let (world, public) = exchanging(&stub, false);
    let user = Some(("https://idp.example", "alice"));
    let shown = async |client: &str, user| -> String {
        let lease: Lease = world.lease_for("orders.get", client, user).await.unwrap();
        authorization(&lease)
    };
    assert_eq!(shown("bot", user).await, "Bearer token-1");
    assert_eq!(shown("bot", None).await, "Bearer token-2");
    assert_eq!(shown("other", user).await, "Bearer token-3");
    assert_eq!(shown("bot", Some(("https://else.example", "alice"))).await, "Bearer token-4");
    assert_eq!(shown("bot", user).await, "Bearer token-1");
    assert_eq!(shown("other", None).await, "Bearer token-5");
    let asked = stub.asked();
    let claims =
        |at: usize, name: &str| verified(&asked[at].form(name).unwrap(), &ECDSA_P256_SHA256_FIXED, &public).1;
    for member in ["subject_token_type", "actor_token_type"] {
        assert_eq!(asked[0].form(member).unwrap(), TYPE_JWT);
    }
    assert_eq!(asked[0].form("grant_type").unwrap(), GRANT_EXCHANGE);
    assert_eq!(asked[0].form("scope").unwrap(), "orders:read");
    let subject = claims(0, "subject_token");
    assert_eq!(subject["iss"], "https://gate.example");
    assert_eq!(subject["sub"], "alice");
    assert_eq!(subject["user_iss"], "https://idp.example");
    assert_eq!(subject["client_id"], "bot");
    assert_eq!(subject["aud"], format!("http://{}/token", stub.address));
    let client = claims(1, "subject_token");
    assert_eq!((&client["sub"], client.get("user_iss")), (&json!("client:bot"), None));
    let actor = claims(0, "actor_token");
    assert_eq!((&actor["iss"], &actor["sub"]), (&json!("https://gate.example"), &json!("gate:1")));
}

#[tokio::test]
async fn a_call_without_a_user_is_refused_where_one_is_needed() {
    let stub = Stub::start(numbered).await;
    let (world, _) = exchanging(&stub, true);
    let refusal = world.shown().await.unwrap_err();
    assert_eq!(refusal.code(), "credential_needs_user");
    insta::assert_snapshot!(refusal, @"the credential needs a user, and `bot` calls for none");
    assert!(stub.asked().is_empty());
    world.lease_for("orders.get", "bot", Some(("https://idp.example", "alice"))).await.unwrap();
}

#[tokio::test]
async fn a_user_cannot_pass_for_a_client() {
    let stub = Stub::start(numbered).await;
    let (world, _) = exchanging(&stub, false);
    let refusal = world.lease_for("orders.get", "bot", Some(("https://idp.example", "client:finance"))).await;
    assert!(matches!(refusal.unwrap_err(), CredentialError::ReservedSubject));
    assert!(stub.asked().is_empty());
}

#[tokio::test]
async fn an_exchange_that_issues_another_kind_of_token_is_refused() {
    for kind in [json!("urn:ietf:params:oauth:token-type:saml2"), Value::Null] {
        let body = json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 60, "issued_token_type": kind });
        let stub = Stub::start(move |_, _| answer(200, &body)).await;
        let (world, _) = exchanging(&stub, false);
        let said = world.shown().await.unwrap_err().to_string();
        assert!(said.ends_with("no usable `issued_token_type`"), "{said}");
    }
}

/// The token endpoint and the service by turns of two callers: each call carries its own caller's token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_of_two_clients_never_carry_each_others_token() {
    // Short lives, so that refreshes fall among the calls; the token says whose it is.
    let stub = Stub::start(|number, asked| {
        let subject = asked.form("subject_token").unwrap();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(subject.split('.').nth(1).unwrap())
            .unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let client = claims["client_id"].as_str().unwrap();
        (Duration::from_millis(5), token(&format!("{client}-{number}"), 1).1)
    })
    .await;
    let (world, _) = exchanging(&stub, false);
    let world = Arc::new(world);
    let calls = (0..16).map(|worker| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            for call in 0..625 {
                let client = if (worker + call) % 2 == 0 { "alpha" } else { "beta" };
                let lease = world.lease_for("orders.get", client, None).await.unwrap();
                let shown = authorization(&lease);
                assert!(shown.starts_with(&format!("Bearer {client}-")), "{client} carried {shown}");
                if call % 100 == 99 {
                    world.credentials.reject(&lease);
                }
            }
        })
    });
    for done in futures::future::join_all(calls).await {
        done.unwrap();
    }
    assert!(stub.asked().len() > 4, "tokens were got anew in between");
}

#[test]
fn no_more_tokens_are_held_than_there_is_room_for() {
    let tokens = Tokens::new();
    for number in 0..12_000 {
        let caller = Subject { client: format!("client-{number}"), user: None };
        let credential = "key".parse().unwrap();
        let _ = tokens.slot(Key { credential, scope: String::new(), caller: Some(caller) }, TIMING);
    }
    assert_eq!(tokens.0.lock().unwrap().len(), 10_000);
}
