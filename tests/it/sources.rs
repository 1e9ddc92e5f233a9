//! Where requests come from: behind proxies, and how often they may fail.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::{
    gate::Gate,
    process::{configure, serve},
    project::{Project, key, tool},
};

fn project(listener: Value) -> Project {
    let spec = |sources| json!({ "tools": ["orders.get"], "sources": sources });
    Project::new()
        .tool(tool("orders.get", "read", "ok"))
        .client("far", spec(json!(["198.51.100.0/24"])))
        .client("bot", spec(json!([])))
        .policy("permit (principal, action, resource);")
        .listener(listener)
}

/// Calls the tool from an address of this machine, with more headers.
async fn call(
    gate: &Gate,
    from: [u8; 4],
    key: &str,
    headers: &[(&'static str, &str)],
) -> (u16, HeaderMap, Value) {
    let params = json!({ "name": "orders.get", "arguments": { "id": "1" } });
    let http = reqwest::Client::builder().local_address(std::net::IpAddr::from(from)).build().unwrap();
    let mut request = http
        .post(format!("http://{}/mcp", gate.address))
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", "2025-11-25")
        .bearer_auth(key)
        .json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, headers, answer.json().await.unwrap())
}

const HERE: [u8; 4] = [127, 0, 0, 1];
const XFF: &str = "X-Forwarded-For";

#[tokio::test(flavor = "multi_thread")]
async fn what_anybody_says_of_its_source_is_ignored() {
    let gate = Gate::serve(project(json!({ "trusted-proxies": ["127.0.0.9/32"] }))).await;
    for header in [(XFF, "198.51.100.7"), ("Forwarded", "for=198.51.100.7"), (XFF, "nonsense")] {
        assert_eq!(call(&gate, HERE, &key("far"), &[header]).await.0, 401, "{header:?}");
        assert_eq!(call(&gate, HERE, &key("bot"), &[header]).await.0, 200, "{header:?}");
    }
    for outcome in gate.records_of("outcome") {
        assert_eq!(outcome["call"]["source"], "127.0.0.1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trusted_proxy_says_is_the_source() {
    let gate = Gate::serve(project(json!({ "trusted-proxies": ["127.0.0.9/32"] }))).await;
    let proxy = [127, 0, 0, 9];
    for header in [
        (XFF, "198.51.100.7"),
        (XFF, "203.0.113.1, 198.51.100.7, 127.0.0.9"),
        ("Forwarded", "for=203.0.113.1, for=198.51.100.7;proto=https"),
    ] {
        assert_eq!(call(&gate, proxy, &key("far"), &[header]).await.0, 200, "{header:?}");
    }
    for outcome in gate.records_of("outcome") {
        assert_eq!(outcome["call"]["source"], "198.51.100.7");
    }
    for headers in [&[(XFF, "198.51.100.7, 203.0.113.1")][..], &[("Forwarded", "for=203.0.113.1")], &[]] {
        assert_eq!(call(&gate, proxy, &key("far"), headers).await.0, 401, "{headers:?}");
    }
    let many = vec!["198.51.100.7"; 33].join(", ");
    for headers in [
        &[(XFF, "198.51.100.7"), ("Forwarded", "for=198.51.100.7")][..],
        &[(XFF, "unknown, 198.51.100.7")],
        &[(XFF, many.as_str())],
        &[("Forwarded", "for=_hidden")],
    ] {
        let (status, _, said) = call(&gate, proxy, &key("far"), headers).await;
        assert_eq!((status, said["error"]["code"].as_i64()), (400, Some(-32600)), "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_failed_too_often_waits_and_others_do_not() {
    let gate =
        Gate::serve(project(json!({ "failures": "5/min", "trusted-proxies": ["127.0.0.9/32"] }))).await;
    for _ in 0..5 {
        assert_eq!(call(&gate, HERE, "cg_bot_wrong", &[]).await.0, 401);
    }
    let (status, wrong_headers, wrong) = call(&gate, HERE, "cg_bot_wrong", &[]).await;
    assert_eq!((status, wrong["error"]["code"].as_i64()), (429, Some(-32000)), "{wrong}");
    let retry: u64 = wrong_headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=12).contains(&retry), "{retry}");
    let (status, right_headers, right) = call(&gate, HERE, &key("bot"), &[]).await;
    assert_eq!((status, &right), (429, &wrong), "no oracle");
    let names = |headers: &HeaderMap| headers.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&right_headers), names(&wrong_headers));

    assert_eq!(call(&gate, [127, 0, 0, 2], &key("bot"), &[]).await.0, 200);
    // Behind a proxy it is the client that waits.
    for _ in 0..5 {
        let header = (XFF, "203.0.113.1");
        assert_eq!(call(&gate, [127, 0, 0, 9], "cg_bot_wrong", &[header]).await.0, 401);
    }
    assert_eq!(call(&gate, [127, 0, 0, 9], &key("bot"), &[(XFF, "203.0.113.1")]).await.0, 429);
    assert_eq!(call(&gate, [127, 0, 0, 9], &key("bot"), &[(XFF, "203.0.113.2")]).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_right_spends_nothing() {
    let gate = Gate::serve(project(json!({ "failures": "1/min" }))).await;
    for _ in 0..20 {
        assert_eq!(call(&gate, HERE, &key("bot"), &[]).await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_at_the_token_endpoint_spend_the_same_budget() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::TempDir::new().unwrap();
    let address = ([127, 0, 0, 1], 1).into();
    project(json!({ "failures": "3/min" })).write(folder.path(), address, address);
    configure(folder.path(), "identity", json!({ "resource": "http://127.0.0.1/mcp", "tokens": {} }));
    let mut gate = serve(folder.path());
    let http = reqwest::Client::new();
    let ask = async |secret: &str| {
        let form = [("grant_type", "client_credentials"), ("client_id", "bot"), ("client_secret", secret)];
        let request = http.post(format!("http://{}/oauth/token", gate.address)).form(&form);
        request.send().await.unwrap().status().as_u16()
    };
    for _ in 0..3 {
        assert_eq!(ask("cg_bot_wrong").await, 401);
    }
    assert_eq!(ask("cg_bot_wrong").await, 429);
    assert_eq!(ask(&key("bot")).await, 429, "no oracle");
    let document = format!("http://{}/.well-known/oauth-authorization-server", gate.address);
    assert_eq!(http.get(document).send().await.unwrap().status(), 200);
    gate.child.kill().unwrap();
    gate.child.wait().unwrap();
}
