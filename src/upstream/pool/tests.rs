//! Pools of connections to a scripted server.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::upstream::{
    Exchange,
    fixture::{Said, Sent, Server, json_result, object, soon, status},
};

fn pool(server: &Server, pool_bounds: PoolBounds) -> Pool {
    let (events, _) = mpsc::channel(8);
    Pool::new(server.endpoint(), Bounds::default(), pool_bounds, events)
}

async fn server() -> Server {
    Server::with_session(|sent: &Sent| match sent.method.as_str() {
        "GET" => status("405 Method Not Allowed"),
        _ if sent.is("tools/call") => Said::Silence(String::new()),
        _ => json_result(sent, json!({})),
    })
    .await
}

fn sessions(server: &Server) -> usize {
    server.all().iter().filter(|sent| sent.is("initialize")).count()
}

fn deleted(server: &Server) -> usize {
    server.all().iter().filter(|sent| sent.method == "DELETE").count()
}

fn able() -> Map<String, Value> {
    object(json!({ "roots": {} }))
}

async fn ask(taken: &Taken) {
    let cancel = CancellationToken::new();
    taken.request("tools/list", Map::new(), Exchange::new(soon(), &cancel)).await.unwrap();
}

#[tokio::test]
async fn connections_over_which_nobody_is_asked_are_shared() {
    let server = server().await;
    let pool = pool(&server, PoolBounds::default());
    let none = Map::new();
    let taken = futures::future::join_all((0..8).map(|_| pool.take(Era::Session, &none, None))).await;
    for taken in taken {
        ask(&taken.unwrap()).await;
    }
    assert_eq!(sessions(&server), 1);
}

#[tokio::test]
async fn a_connection_that_can_be_asked_is_taken_by_one_and_used_again_after() {
    let server = server().await;
    let pool = pool(&server, PoolBounds::default());
    let first = pool.take(Era::Session, &able(), None).await.unwrap();
    let second = pool.take(Era::Session, &able(), None).await.unwrap();
    assert_eq!(sessions(&server), 2);
    ask(&first).await;
    drop((first, second));
    let third = pool.take(Era::Session, &able(), None).await.unwrap();
    ask(&third).await;
    assert_eq!(sessions(&server), 2);
    let other = pool.take(Era::Session, &object(json!({ "sampling": {} })), None).await.unwrap();
    ask(&other).await;
    assert_eq!(sessions(&server), 3);
}

#[tokio::test]
async fn a_connection_with_a_request_that_was_given_up_is_not_used_again() {
    let server = server().await;
    let pool = pool(&server, PoolBounds::default());
    let taken = pool.take(Era::Session, &able(), None).await.unwrap();
    let cancel = CancellationToken::new();
    let deadline = Instant::now() + Duration::from_millis(100);
    let given_up = taken.request("tools/call", Map::new(), Exchange::new(deadline, &cancel)).await;
    assert_eq!(given_up, Err(UpstreamError::TimedOut { sent: true }));
    drop(taken);
    ask(&pool.take(Era::Session, &able(), None).await.unwrap()).await;
    assert_eq!(sessions(&server), 2);
}

#[tokio::test]
async fn there_are_no_more_connections_than_may_be() {
    let server = server().await;
    let bounds =
        PoolBounds { connections_max: 1, wait_timeout: Duration::from_millis(100), ..PoolBounds::default() };
    let pool = pool(&server, bounds);
    let taken = pool.take(Era::Session, &able(), None).await.unwrap();
    let refused = pool.take(Era::Session, &Map::new(), None).await.unwrap_err();
    assert_eq!(refused, UpstreamError::Busy { connections_max: 1 });
    drop(taken); // idle now, and makes room
    pool.take(Era::Session, &Map::new(), None).await.unwrap();
}

#[tokio::test]
async fn an_upstream_that_fails_is_left_alone_for_longer_and_longer() {
    let server = Server::answering(|_| status("500 Internal Server Error")).await;
    let bounds = PoolBounds { backoff_min: Duration::from_millis(200), ..PoolBounds::default() };
    let pool = pool(&server, bounds);
    for failures in 1..=3 {
        let failed = pool.take(Era::Session, &Map::new(), None).await.unwrap_err();
        assert_eq!(failed, UpstreamError::Status { code: 500 });
        let error = pool.take(Era::Session, &Map::new(), None).await.unwrap_err();
        let UpstreamError::BackingOff { failures: counted, retry_in } = error else { panic!("{error}") };
        assert_eq!(counted, failures);
        let whole = Duration::from_millis(200) * 2_u32.pow(failures - 1);
        assert!(retry_in <= whole && retry_in > whole / 4, "{retry_in:?} of {whole:?}");
        assert_eq!(server.all().len(), failures as usize);
        time::sleep(retry_in).await;
    }
}

#[tokio::test]
async fn what_is_idle_is_closed_and_what_is_taken_is_not() {
    let server = server().await;
    let bounds = PoolBounds { idle_timeout: Duration::from_millis(200), ..PoolBounds::default() };
    let pool = pool(&server, bounds);
    let kept = pool.take(Era::Session, &Map::new(), None).await.unwrap();
    drop(pool.take(Era::Session, &able(), None).await.unwrap());
    server.until(|sent| sent.method == "DELETE").await;
    time::sleep(Duration::from_millis(400)).await;
    ask(&kept).await;
    assert_eq!(deleted(&server), 1);
    drop(kept);
    for _ in 0..500 {
        if deleted(&server) == 2 {
            return;
        }
        time::sleep(Duration::from_millis(10)).await;
    }
    panic!("what is idle stays open");
}
