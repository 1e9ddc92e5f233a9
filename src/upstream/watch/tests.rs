use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::upstream::{
    Bounds, Connection,
    fixture::{Fake, hello, soon},
};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

fn watch(connection: &Connection, uri: &'static str) -> JoinHandle<Result<Watch, UpstreamError>> {
    let connection = connection.clone();
    tokio::spawn(async move {
        let cancel = CancellationToken::new();
        connection.watch(uri, Exchange::new(soon(), &cancel)).await
    })
}

async fn is_silent(watch: &mut Watch) -> bool {
    timeout(Duration::from_millis(100), watch.heard()).await.is_err()
}

fn updated(uri: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": uri } })
}

#[tokio::test]
async fn a_resource_is_asked_for_once_and_heard_of_by_all_and_ended_after_the_last() {
    let (mut fake, connection, _events) = Fake::connected(Bounds::default()).await;
    let first = watch(&connection, "a:b");
    let request = fake.next().await;
    assert_eq!(
        (&request["method"], &request["params"]),
        (&json!("resources/subscribe"), &json!({ "uri": "a:b" }))
    );
    fake.answer(&request, json!({})).await;
    let mut first = first.await.unwrap().unwrap();
    let mut second = watch(&connection, "a:b").await.unwrap().unwrap();
    assert!(fake.is_silent().await, "it is asked for once");
    fake.say(updated("a:other")).await;
    assert!(is_silent(&mut first).await, "only what is watched is heard of");
    fake.say(updated("a:b")).await;
    assert!(first.heard().await && second.heard().await);
    drop(first);
    assert!(fake.is_silent().await, "somebody watches it still");
    drop(second);
    let request = fake.next().await;
    assert_eq!(request["method"], "resources/unsubscribe");
    let again = watch(&connection, "a:b");
    assert!(fake.is_silent().await, "what ends and what begins arrive in order");
    fake.answer(&request, json!({})).await;
    let request = fake.next().await;
    assert_eq!(request["method"], "resources/subscribe");
    fake.answer(&request, json!({})).await;
    let mut again = again.await.unwrap().unwrap();
    drop(fake);
    assert!(!again.heard().await, "nothing more can be heard");
}

#[tokio::test]
async fn what_an_upstream_refuses_is_not_watched() {
    let (mut fake, connection, _events) = Fake::connected(Bounds::default()).await;
    let refused = watch(&connection, "a:b");
    let request = fake.next().await;
    fake.refuse(&request, json!({ "code": -32601, "message": "no" })).await;
    assert!(matches!(refused.await.unwrap(), Err(UpstreamError::Refused { code: -32601, .. })));
    let again = watch(&connection, "a:b");
    let request = fake.next().await;
    assert_eq!(request["method"], "resources/subscribe", "it is asked for anew");
    fake.answer(&request, json!({})).await;
    assert!(again.await.unwrap().is_ok());
}

/// A connection in the era without sessions.
async fn stateless() -> (Fake, Connection) {
    let (mut fake, opening, events) = Fake::begin(hello(Era::Stateless, json!({})), Bounds::default());
    std::mem::forget(events);
    let request = fake.next().await;
    assert_eq!(request["method"], "server/discover");
    let facts = json!({ "supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete" });
    fake.answer(&request, facts).await;
    (fake, opening.await.unwrap().unwrap())
}

async fn acknowledge(fake: &mut Fake, request: &Value, uris: Value) {
    let params = json!({ "notifications": { "resourceSubscriptions": uris }, "_meta": { SUBSCRIPTION: request["id"] } });
    let method = "notifications/subscriptions/acknowledged";
    fake.say(json!({ "jsonrpc": "2.0", "method": method, "params": params })).await;
}

#[tokio::test]
async fn without_sessions_each_resource_has_a_request_that_ends_with_the_last_who_hears_it() {
    let (mut fake, connection) = stateless().await;
    let watching = watch(&connection, "a:b");
    let request = fake.next().await;
    assert_eq!(request["method"], "subscriptions/listen");
    assert_eq!(request["params"]["notifications"], json!({ "resourceSubscriptions": ["a:b"] }));
    assert!(!watching.is_finished(), "it has not said yet that it is going to tell");
    acknowledge(&mut fake, &request, json!(["a:b"])).await;
    let mut first = watching.await.unwrap().unwrap();
    fake.say(updated("a:b")).await;
    assert!(first.heard().await);
    fake.answer(&request, json!({ "resultType": "complete" })).await;
    let renewed = fake.next().await;
    assert_eq!(renewed["method"], "subscriptions/listen", "one that ended is made anew");
    acknowledge(&mut fake, &renewed, json!(["a:b"])).await;
    assert!(first.heard().await, "what was missed meanwhile is looked at");
    drop(first);
    let cancelled = fake.next().await;
    assert_eq!(cancelled["method"], "notifications/cancelled");
    assert_eq!(cancelled["params"]["requestId"], renewed["id"]);
}

#[tokio::test]
async fn an_upstream_that_does_not_acknowledge_the_resource_is_not_heard() {
    let (mut fake, connection) = stateless().await;
    let watching = watch(&connection, "a:b");
    let request = fake.next().await;
    acknowledge(&mut fake, &request, json!(["a:other"])).await;
    assert!(matches!(watching.await.unwrap(), Err(UpstreamError::Refused { .. })));
    let watching = watch(&connection, "a:b");
    let mut request = fake.next().await;
    if request["method"] == "notifications/cancelled" {
        request = fake.next().await;
    }
    fake.refuse(&request, json!({ "code": -32601, "message": "no" })).await;
    assert!(matches!(watching.await.unwrap(), Err(UpstreamError::Refused { code: -32601, .. })));
}
