//! Access tokens of an identity provider, over the wire.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    gate::{ERAS, Era},
    project::{Project, key, tool},
    wire::{Provider, RESOURCE, Wire, answer, new_key, sign, visible},
};

fn project() -> Project {
    let mut read = tool("get", "read", "ok");
    read["scopes"] = json!(["things:read"]);
    let mut write = tool("put", "write", "ok");
    write["scopes"] = json!(["things:read", "things:write"]);
    Project::new()
        .tool(read)
        .tool(write)
        .client(
            "bot",
            json!({
                "tools": ["get", "put"],
                "scopes": ["things:read", "things:write"],
                "tokens": [{ "issuer": "idp", "client": "bot-at-provider" }]
            }),
        )
        .policy("permit (principal, action, resource);")
}

fn identity(provider: &Provider) -> Value {
    json!({ "resource": RESOURCE, "scopes": ["things:read"], "issuers": { "idp": provider.entry() } })
}

const METADATA: &str = "https://gate.example.com/.well-known/oauth-protected-resource/mcp";

#[tokio::test]
async fn the_resource_is_described_where_the_challenge_says_and_where_clients_look() {
    let provider = Provider::start().await;
    let gate = Wire::serve(project(), identity(&provider)).await;
    for path in ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"] {
        let found = gate.get(path).await;
        assert_eq!(found.status, 200);
        assert_eq!(found.headers["content-type"], "application/json");
        assert_eq!(
            found.json(),
            json!({
                "resource": RESOURCE,
                "authorization_servers": [provider.issuer],
                "bearer_methods_supported": ["header"],
                "resource_name": "callgate",
                "scopes_supported": ["things:read"]
            })
        );
    }
    // There is no token endpoint of its own, and so nothing that describes one.
    for path in ["/.well-known/oauth-authorization-server", "/oauth/token", "/oauth/jwks", "/oauth/authorize"]
    {
        assert_eq!(gate.get(path).await.status, 401, "{path}");
    }
    for era in ERAS {
        let nothing = answer(gate.request(era, "tools/list", json!({}))).await;
        let rest = format!("resource_metadata=\"{METADATA}\", scope=\"things:read\"");
        assert_eq!(nothing.status, 401);
        assert_eq!(nothing.headers.get_all("www-authenticate").iter().count(), 1);
        assert_eq!(nothing.headers["www-authenticate"], format!("Bearer realm=\"callgate\", {rest}"));
        let wrong = gate.call(era, "a.b.c", "get").await;
        let challenge = format!("Bearer realm=\"callgate\", error=\"invalid_token\", {rest}");
        assert_eq!(wrong.headers["www-authenticate"], challenge);
        assert_eq!((wrong.status, &wrong.body), (401, &nothing.body));
    }
}

#[tokio::test]
async fn a_token_in_the_url_is_refused_though_the_header_is_right() {
    let provider = Provider::start().await;
    let gate = Wire::serve(project(), identity(&provider)).await;
    let key = key("bot");
    assert_eq!(gate.status(&key).await, 200);
    for query in [
        "access_token=x",
        "a=b&access_token=",
        "ACCESS_TOKEN=x",
        "access%5Ftoken=x",
        "a=1;access_token=x",
        ";ACCESS_TOKEN",
    ] {
        let request = gate.http.post(gate.url(&format!("/mcp?{query}"))).bearer_auth(&key);
        let request = request.header("Accept", "application/json, text/event-stream");
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        let refused = answer(request.json(&body)).await;
        assert_eq!(refused.status, 400, "{query}: {}", refused.text());
        assert!(!refused.text().contains("result"), "{}", refused.text());
    }
}

#[tokio::test]
async fn only_a_live_token_of_a_known_issuer_for_this_server_is_taken() {
    let provider = Provider::start().await;
    let (good, strange) = (new_key(), new_key());
    provider.publish(&[&good]);
    let gate = Wire::serve(project(), identity(&provider)).await;
    let with = |name: &str, value: Value| {
        let mut claims = provider.claims();
        claims[name] = value;
        sign(&good, &claims)
    };
    let now = provider.claims()["iat"].as_i64().unwrap();
    let bad = [
        ("unknown issuer", with("iss", json!("https://elsewhere.example.com"))),
        ("a longer issuer", with("iss", json!(format!("{}/", provider.issuer)))),
        ("another audience", with("aud", json!("https://gate.example.com/"))),
        ("expired", with("exp", json!(now - 31))),
        ("not yet", with("nbf", json!(now + 60))),
        ("for too long", with("exp", json!(now + 100_000))),
        ("nobody's client", with("client_id", json!("bot"))),
        ("no client", with("client_id", Value::Null)),
        ("an id token", good.sign("JWT", provider.claims().as_object().unwrap()).unwrap()),
        ("a strange key", sign(&strange, &provider.claims())),
    ];
    let unknown = gate.call(Era::Modern, "a.b.c", "get").await;
    for (what, token) in &bad {
        let refused = gate.call(Era::Modern, token, "get").await;
        assert_eq!(refused.status, 401, "{what}: {}", refused.text());
        assert_eq!(visible(&refused), visible(&unknown), "{what}");
    }
    assert_eq!(gate.backend.hits(), 0);
    assert!(gate.records_of("outcome").is_empty());

    for good in [sign(&good, &provider.claims()), with("aud", json!(["https://other.example.com", RESOURCE]))]
    {
        assert_eq!(gate.status(&good).await, 200);
    }
    let outcomes = gate.records_of("outcome");
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes {
        let caller = &outcome["caller"];
        assert_eq!(caller["client"], "bot");
        assert_eq!(caller["authentication"], "token");
        assert_eq!(caller["user"], json!({ "issuer": provider.issuer, "subject": "dana" }));
        assert_eq!(caller["token"]["issuer"], provider.issuer);
        assert!(caller["token"]["id"].as_str().unwrap().starts_with('t'), "{caller}");
    }
}

#[tokio::test]
async fn a_call_that_lacks_a_scope_is_told_all_scopes_and_is_on_record_once() {
    let provider = Provider::start().await;
    let good = new_key();
    provider.publish(&[&good]);
    let gate = Wire::serve(project(), identity(&provider)).await;
    let token = sign(&good, &provider.claims());
    for era in ERAS {
        let refused = gate.call(era, &token, "put").await;
        assert_eq!(refused.status, 403, "{}", refused.text());
        assert_eq!(
            refused.headers["www-authenticate"],
            format!(
                "Bearer realm=\"callgate\", error=\"insufficient_scope\", resource_metadata=\"{METADATA}\", \
                 scope=\"things:read things:write\""
            )
        );
        assert_eq!(refused.json()["id"], 1);
        // A tool that does not exist is none to step up for.
        let unknown = gate.call(era, &token, "puf").await;
        assert!(unknown.headers.get("www-authenticate").is_none());
        assert_eq!(unknown.json()["error"]["code"], -32602);
    }
    let codes: Vec<Value> =
        gate.records_of("outcome").into_iter().map(|outcome| outcome["code"].clone()).collect();
    assert_eq!(codes, ["missing_scope", "unknown_tool", "missing_scope", "unknown_tool"]);
    assert_eq!(gate.backend.hits(), 0);
    let mut claims = provider.claims();
    claims["scope"] = json!("things:write things:read other");
    let more = sign(&good, &claims);
    assert_eq!(gate.call(Era::Modern, &more, "put").await.status, 200);
    assert_eq!(gate.backend.hits(), 1);
}

#[tokio::test]
async fn without_keys_nobody_can_be_told_and_kept_keys_serve_while_the_provider_is_down() {
    let provider = Provider::start().await;
    let good = new_key();
    provider.publish(&[&good]);
    let (warm, cold) = tokio::join!(
        Wire::serve(project(), identity(&provider)),
        Wire::serve(project(), identity(&provider))
    );
    let token = || {
        let mut claims = provider.claims();
        claims["jti"] = json!(format!("{:?}", std::time::Instant::now()));
        sign(&good, &claims)
    };
    assert_eq!(warm.status(&token()).await, 200);
    provider.go_down();
    let fetched = provider.fetches();
    for _ in 0..3 {
        let refused = cold.call(Era::Modern, &token(), "get").await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(refused.json()["error"]["code"], -32000);
        assert_eq!(refused.headers["retry-after"], "1");
        assert!(refused.headers.get("www-authenticate").is_none());
        // Who shows a key needs no provider.
        assert_eq!(cold.status(&key("bot")).await, 200);
        assert_eq!(warm.status(&token()).await, 200);
    }
    assert_eq!(provider.fetches(), fetched + 1, "a provider that is down is left alone for a while");
    assert_eq!(warm.call(Era::Modern, &sign(&new_key(), &provider.claims()), "get").await.status, 401);
}

#[tokio::test]
async fn a_new_key_costs_one_fetch_and_a_hundred_made_up_ones_one_more() {
    let provider = Provider::start().await;
    let (old, new) = (new_key(), new_key());
    provider.publish(&[&old]);
    let gate = Wire::serve(project(), identity(&provider)).await;
    let token = sign(&old, &provider.claims());
    assert_eq!(gate.status(&token).await, 200);
    assert_eq!(provider.fetches(), 1);

    provider.publish(&[&old, &new]);
    assert_eq!(gate.status(&sign(&new, &provider.claims())).await, 200);
    assert_eq!(gate.status(&token).await, 200);
    assert_eq!(provider.fetches(), 2);

    let strange: Vec<String> = (0..100).map(|_| sign(&new_key(), &provider.claims())).collect();
    let calls = strange.iter().map(|token| gate.call(Era::Modern, token, "get"));
    for refused in futures::future::join_all(calls).await {
        assert_eq!(refused.status, 401);
    }
    assert_eq!(provider.fetches(), 3);

    // One that is not published any more is found out about when the keys are fetched, and not before.
    assert_eq!(gate.status(&token).await, 200);
    assert_eq!(provider.fetches(), 3);
}

#[tokio::test]
async fn a_client_is_told_when_a_refusal_before_its_body_ends_the_connection() {
    let provider = Provider::start().await;
    let gate = Wire::serve(project(), identity(&provider)).await;
    let address = gate.url("");
    let address = address.trim_start_matches("http://");
    for bearer in ["", "Authorization: Bearer a.b.c\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("POST /mcp HTTP/1.1\r\nHost: {address}\r\n{bearer}Content-Length: 2\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 401 "), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
}
