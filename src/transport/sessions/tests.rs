use std::num::NonZeroU32;

use super::{
    super::{relay::fixture::Talkative, room::Room},
    *,
};
use crate::manifest::ClientName;
use serde_json::{Value, json};

const NOW: Option<&ProtocolVersion> = Some(&ProtocolVersion::V_2025_11_25);

fn session() -> Arc<Session> {
    let client = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": { "elicitation": {} },
        "clientInfo": { "name": "it", "version": "1" }
    });
    Session::new(Some(serde_json::from_value(client).unwrap()))
}

fn place() -> (Room, Place) {
    let room = Room::new(NonZeroU32::MIN);
    let place = room.of_client(&ClientName::parse("bot").unwrap()).unwrap();
    (room, place)
}

fn begin(session: &Arc<Session>, id: i64, asks: u32) -> Result<Arc<Lane>, Refusal> {
    let request = json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": "talk", "arguments": { "asks": asks }, "_meta": { "progressToken": "p" } }
    });
    let handler = Talkative { can_answer: true };
    let message = serde_json::from_value(request).unwrap();
    session.serve(&RequestId::Number(id), message, handler, NOW, place().1)
}

async fn next(reader: &mut lane::Reader) -> Value {
    let event = timeout(Duration::from_secs(5), reader.next()).await.unwrap();
    event.map_or(Value::Null, |event| serde_json::from_slice(&event.message).unwrap())
}

async fn reply(session: &Session, message: Value) {
    let message: ClientJsonRpcMessage = serde_json::from_value(message).unwrap();
    let JsonRpcMessage::Response(mut response) = message else { panic!("no response") };
    let (inbound, id) = session.take_question(&response.id).unwrap();
    response.id = id;
    inbound.send(ClientJsonRpcMessage::Response(response)).await.unwrap();
}

#[tokio::test]
async fn two_requests_that_ask_the_same_get_each_its_own_answer() {
    let session = session();
    let (one, two) = (begin(&session, 1, 1).unwrap(), begin(&session, 2, 1).unwrap());
    let mut asked = Vec::new();
    for lane in [&one, &two] {
        let mut reader = lane.read(None);
        assert_eq!(next(&mut reader).await["params"]["progressToken"], "p");
        let log = next(&mut reader).await;
        assert_eq!(
            (&log["method"], &log["params"]["level"]),
            (&"notifications/message".into(), &"error".into())
        );
        let question = next(&mut reader).await;
        assert_eq!(
            (&question["method"], &question["params"]["message"]),
            (&"elicitation/create".into(), &"?".into())
        );
        asked.push((question["id"].as_i64().unwrap(), reader));
    }
    assert_ne!(asked[0].0, asked[1].0);
    for (name, (id, _)) in ["first", "second"].iter().zip(&asked).rev() {
        let result = json!({ "action": "accept", "content": { "name": name } });
        reply(&session, json!({ "jsonrpc": "2.0", "id": id, "result": result })).await;
    }
    for (name, (_, reader)) in ["first", "second"].iter().zip(&mut asked) {
        assert_eq!(next(reader).await["method"], "notifications/progress");
        let answer = next(reader).await;
        assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains(name), "{answer}");
        assert_eq!(next(reader).await, Value::Null);
    }
    let state = session.state();
    assert!(state.at_work.is_empty() && state.questions.is_empty());
}

#[tokio::test]
async fn an_id_is_used_once_at_a_time_and_a_place_is_held_until_the_answer() {
    let session = session();
    let (room, place) = place();
    let request = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "talk", "arguments": { "asks": 1 } }
    });
    let message = serde_json::from_value(request).unwrap();
    let handler = Talkative { can_answer: true };
    let lane = session.serve(&RequestId::Number(1), message, handler, NOW, place).unwrap();
    assert_eq!(begin(&session, 1, 0).unwrap_err().word, "id_in_use");
    for id in 2..=64 {
        begin(&session, id, 1).unwrap();
    }
    assert_eq!(begin(&session, 65, 0).unwrap_err().word, "session_full");
    assert_eq!(room.free(), 0);
    let mut reader = lane.read(None);
    while next(&mut reader).await["method"] != "elicitation/create" {}
    reply(&session, json!({ "jsonrpc": "2.0", "id": 1, "result": { "action": "decline" } })).await;
    while next(&mut reader).await != Value::Null {}
    assert_eq!(room.free(), 1);
}

#[tokio::test]
async fn a_cancelled_request_is_given_no_answer_and_takes_back_what_it_asked() {
    let session = session();
    let lane = begin(&session, 1, 1).unwrap();
    let mut reader = lane.read(None);
    while next(&mut reader).await["method"] != "elicitation/create" {}
    let cancelled =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    session.cancel(&RequestId::Number(1), serde_json::from_value(cancelled).unwrap()).await;
    assert_eq!(next(&mut reader).await, Value::Null);
    assert!(session.state().questions.is_empty());
    assert!(session.take_question(&RequestId::Number(1)).is_none());
    begin(&session, 1, 0).unwrap();
}

#[tokio::test]
async fn the_end_of_a_session_is_the_end_of_its_streams_and_of_its_memory() {
    let session = session();
    let lane = begin(&session, 1, 1).unwrap();
    let (mut reader, mut common) = (lane.read(None), session.common.read(None));
    while next(&mut reader).await["method"] != "elicitation/create" {}
    session.end();
    assert_eq!(next(&mut reader).await, Value::Null);
    assert_eq!(next(&mut common).await, Value::Null);
    assert_eq!(begin(&session, 2, 0).unwrap_err().status, StatusCode::NOT_FOUND);
    let left = Arc::downgrade(&session);
    drop((session, lane, reader, common));
    // The library drains what it serves for two seconds.
    for _ in 0..250 {
        if left.upgrade().is_none() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("something holds the session");
}

#[tokio::test]
async fn what_is_answered_at_once_is_json_and_what_says_something_before_is_a_stream() {
    let session = session();
    let quiet = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let message = serde_json::from_value(quiet).unwrap();
    let handler = Talkative { can_answer: true };
    let lane = session.serve(&RequestId::Number(1), message, handler, NOW, place().1).unwrap();
    let answer = session.answer(lane, NOW, false).await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
    assert!(session.state().done.is_empty(), "nothing that could be asked for again");

    let lane = begin(&session, 2, 0).unwrap();
    let answer = session.answer(Arc::clone(&lane), NOW, false).await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body = std::str::from_utf8(&body).unwrap();
    assert!(body.starts_with("id: 2-0\nretry: 1000\ndata: \n\nevent: message\nid: 2-1\ndata: {"), "{body}");
    assert!(body.contains("notifications/progress") && body.contains("\"result\""), "{body}");
    assert!(Arc::ptr_eq(&session.lane(2).unwrap(), &lane), "it can be read again");
}

#[tokio::test]
async fn who_would_rather_have_a_stream_gets_one_whatever_the_answer_is() {
    let session = session();
    let quiet = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let message = serde_json::from_value(quiet).unwrap();
    let handler = Talkative { can_answer: true };
    let lane = session.serve(&RequestId::Number(1), message, handler, NOW, place().1).unwrap();
    let answer = session.answer(lane, NOW, true).await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let expected = "id: 1-0\nretry: 1000\ndata: \n\nevent: message\nid: 1-1\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";
    assert_eq!(std::str::from_utf8(&body).unwrap(), expected);
}

#[test]
fn a_session_speaks_the_version_that_it_began_with_whatever_a_request_says() {
    let mut headers = HeaderMap::new();
    headers.insert("mcp-protocol-version", HeaderValue::from_static("2025-03-26"));
    let began_with = |version: &str| {
        let mut client = session().client.clone().unwrap();
        client.protocol_version = serde_json::from_value(json!(version)).unwrap();
        let session = Session::new(Some(client));
        assert_eq!(session.version(&headers), session.version(&HeaderMap::new()));
        session.version(&headers).unwrap().to_string()
    };
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        assert_eq!(began_with(version), version);
    }
    for other in ["2026-07-28", "2030-01-01", "1999-01-01"] {
        assert_eq!(began_with(other), "2025-11-25", "{other}");
    }
    let of_another_process = Session::new(None);
    assert_eq!(of_another_process.version(&headers), Some(ProtocolVersion::V_2025_03_26));
    assert_eq!(of_another_process.version(&HeaderMap::new()), None);
}
