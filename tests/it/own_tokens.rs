//! The gate's own token endpoint, over the wire.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    gate::{Answer, ERAS, Era},
    project::{Project, key, tool},
    wire::{RESOURCE, Wire, answer, new_key, sign, visible},
};

fn project(tools: &[&str]) -> Project {
    let policy = "permit (principal, action, resource);";
    let scopes = json!(["things:read", "things:write"]);
    let mut project = Project::new()
        .client("bot", json!({ "tools": ["*"], "scopes": scopes }))
        .client("user-bot", json!({ "tools": ["*"], "scopes": scopes, "acts-for-users": true }))
        .client("other", json!({ "tools": ["*"] }))
        .policy(policy);
    for name in tools {
        project = project.tool(tool(name, "read", "ok"));
    }
    project
}

fn identity() -> Value {
    json!({ "resource": RESOURCE, "tokens": {} })
}

async fn gate() -> Wire {
    Wire::serve(project(&["get", "put"]), identity()).await
}

/// Asks for a token as a client, with a form beside its name and its key.
async fn ask(gate: &Wire, client: &str, form: &str) -> Answer {
    let form = format!("grant_type=client_credentials&{form}");
    answer(gate.form("/oauth/token", &form).basic_auth(client, Some(key(client)))).await
}

async fn token(gate: &Wire, client: &str, form: &str) -> Value {
    let made = ask(gate, client, form).await;
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(made.headers["cache-control"], "no-store");
    assert_eq!(made.headers["content-type"], "application/json");
    made.json()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {value}")).to_owned()
}

#[tokio::test]
async fn a_token_is_had_with_a_key_in_the_header_or_in_the_form_and_says_what_it_grants() {
    let gate = gate().await;
    let made = token(&gate, "bot", "scope=things:read&resource=https%3A%2F%2Fgate.example.com%2Fmcp").await;
    assert_eq!(made["token_type"], "Bearer");
    assert_eq!(made["expires_in"], 900);
    assert_eq!(made["scope"], "things:read");
    assert_eq!(text(&made, "callgate_run").len(), 32);
    assert_eq!(gate.status(&text(&made, "access_token")).await, 200);
    let form = format!("grant_type=client_credentials&client_id=bot&client_secret={}&scope=", key("bot"));
    let posted = answer(gate.form("/oauth/token", &form)).await.json();
    assert_eq!(posted["scope"], "things:read things:write");
    assert_ne!(posted["callgate_run"], made["callgate_run"]);

    // The record names the run and the token, and never the token itself.
    let outcomes = gate.records_of("outcome");
    let caller = &outcomes[0]["caller"];
    assert_eq!(caller["run"], made["callgate_run"]);
    assert_eq!(caller["authentication"], "token");
    assert_eq!(caller["token"]["issuer"], "https://gate.example.com");
    assert!(caller.get("user").is_none(), "{caller}");

    let described = gate.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(described["issuer"], "https://gate.example.com");
    assert_eq!(described["token_endpoint"], "https://gate.example.com/oauth/token");
    assert_eq!(described["jwks_uri"], "https://gate.example.com/oauth/jwks");
    let keys = gate.get("/oauth/jwks").await.json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1, "{keys}");
    assert!(keys["keys"][0].get("d").is_none(), "{keys}");
    assert_eq!(gate.get("/oauth/authorize").await.json()["error"], "unsupported_response_type");
}

#[tokio::test]
async fn each_mistake_has_the_error_of_the_standard() {
    let gate = gate().await;
    let grant = "grant_type=client_credentials";
    let key = key("bot");
    let twice_known = format!("{grant}&client_id=bot&client_secret={key}");
    let cases: [(&str, &str, u16, &str); 29] = [
        ("bot", "", 400, "invalid_request"),
        ("bot", "scope=things:read", 400, "invalid_request"),
        ("bot", "grant_type=", 400, "invalid_request"),
        ("bot", "grant_type=password", 400, "unsupported_grant_type"),
        ("bot", "grant_type=authorization_code&code=x", 400, "unsupported_grant_type"),
        ("bot", "grant_type=client_credentials&grant_type=client_credentials", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&scope=a&scope=b", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&scope=things:delete", 400, "invalid_scope"),
        ("bot", "grant_type=client_credentials&scope=a%22b", 400, "invalid_scope"),
        (
            "bot",
            "grant_type=client_credentials&resource=https://elsewhere.example.com",
            400,
            "invalid_target",
        ),
        ("bot", "grant_type=client_credentials&callgate_user=dana", 400, "unauthorized_client"),
        ("bot", "grant_type=client_credentials&callgate_run=0123", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&callgate_run_lifetime=soon", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&callgate_run_lifetime=999999", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&callgate_tool=%5B", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&callgate_tool=", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&callgate_tool=a%20b", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&callgate_user=", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&callgate_run=", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&callgate_destination=", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&callgate_run_lifetime=%2B60", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&scope=things:read%20", 400, "invalid_scope"),
        ("bot", "grant_type=client_credentials&scope=%20", 400, "invalid_scope"),
        ("bot", "grant_type=client_credentials&scope=things:read%20%20things:read", 400, "invalid_scope"),
        ("bot", "grant_type=client_credentials&client_assertion_type=x", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&scope=%ff", 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&client_id=other", 400, "invalid_request"),
        ("bot", &twice_known, 400, "invalid_request"),
        ("bot", "grant_type=client_credentials&client_assertion=a.b.c", 400, "invalid_request"),
    ];
    for (client, form, status, error) in cases {
        let refused =
            answer(gate.form("/oauth/token", form).basic_auth(client, Some(crate::project::key(client))))
                .await;
        assert_eq!((refused.status, text(&refused.json(), "error").as_str()), (status, error), "{form}");
        assert_eq!(refused.headers["cache-control"], "no-store", "{form}");
        assert!(refused.json().get("access_token").is_none());
    }
    let json = gate.http.post(gate.url("/oauth/token")).basic_auth("bot", Some(&key)).json(&json!({}));
    let refused = answer(json).await;
    assert_eq!((refused.status, text(&refused.json(), "error").as_str()), (400, "invalid_request"));
    let refused = gate.get("/oauth/token").await;
    assert_eq!((refused.status, refused.headers["allow"].to_str().unwrap()), (405, "POST"));
    assert_eq!(gate.status("a.b.c").await, 401);
}

#[tokio::test]
async fn whoever_does_not_prove_who_it_is_learns_nothing_more() {
    let gate = gate().await;
    let grant = "grant_type=client_credentials";
    let basic = |name: &str, secret: &str| {
        let encoded = STANDARD.encode(format!("{name}:{secret}"));
        gate.form("/oauth/token", grant).header("Authorization", format!("Basic {encoded}"))
    };
    let wrong = format!("{}x", key("bot"));
    let other = key("other");
    let requests = [
        gate.form("/oauth/token", grant),
        gate.form("/oauth/token", &format!("{grant}&client_id=bot")),
        gate.form("/oauth/token", &format!("{grant}&client_id=bot&client_secret={wrong}")),
        basic("bot", &wrong),
        basic("bot", &other), // somebody's, but not this client's
        basic("nobody", &wrong),
        basic("bot", "x"),
        gate.form("/oauth/token", &format!("{grant}&{}&client_assertion=a.b.c", assertion_type())),
    ];
    let mut answers = Vec::new();
    for request in requests {
        answers.push(answer(request).await);
    }
    for refused in &answers {
        assert_eq!(refused.status, 401, "{}", refused.text());
        assert_eq!(refused.json()["error"], "invalid_client");
        assert_eq!(refused.headers["www-authenticate"], "Basic realm=\"callgate\"");
        assert_eq!(visible(refused), visible(&answers[0]));
    }
}

fn assertion_type() -> &'static str {
    "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
}

#[tokio::test]
async fn an_assertion_is_good_once_and_for_this_server_only() {
    let signer = new_key();
    let spec = json!({ "tools": ["*"], "assertion-keys": [signer.public_jwk()] });
    let gate = Wire::serve(project(&["get"]).client("signer", spec), identity()).await;
    let now = Timestamp::now().as_second();
    let assertion = |audience: &str, id: &str| {
        let claims = json!({
            "iss": "signer", "sub": "signer", "aud": audience, "jti": id, "iat": now, "exp": now + 60
        });
        signer.sign("JWT", claims.as_object().unwrap()).unwrap()
    };
    let show = async |assertion: &str| {
        let form = format!("grant_type=client_credentials&{}&client_assertion={assertion}", assertion_type());
        answer(gate.form("/oauth/token", &form)).await
    };
    for audience in ["https://gate.example.com", "https://gate.example.com/oauth/token"] {
        let good = assertion(audience, audience);
        let made = show(&good).await;
        assert_eq!(made.status, 200, "{}", made.text());
        assert_eq!(gate.status(&text(&made.json(), "access_token")).await, 200);
        let again = show(&good).await;
        assert_eq!((again.status, text(&again.json(), "error").as_str()), (401, "invalid_client"));
    }
    for bad in [
        assertion("https://elsewhere.example.com", "c"),
        sign(
            &signer,
            &json!({ "iss": "signer", "sub": "signer", "aud": "https://gate.example.com", "jti": "d",
            "iat": now, "exp": now + 60 }),
        ), // an access token's type
    ] {
        assert_eq!(show(&bad).await.status, 401);
    }
}

#[tokio::test]
async fn a_token_that_is_taken_back_is_refused_at_the_next_request() {
    let gate = gate().await;
    let made = text(&token(&gate, "bot", "").await, "access_token");
    let kept = text(&token(&gate, "bot", "").await, "access_token");
    let take_back = async |client: &str, token: &str| {
        let request = gate.form("/oauth/revoke", &format!("token={token}&token_type_hint=access_token"));
        answer(request.basic_auth(client, Some(key(client)))).await
    };
    assert_eq!(gate.status(&made).await, 200);
    // Somebody else's is left alone, and nobody is told whose it is (RFC 7009 §2.2).
    let done = take_back("other", &made).await;
    assert_eq!(done.status, 200);
    assert_eq!(gate.status(&made).await, 200);
    for token in ["x", "a.b.c", &made, &made] {
        assert_eq!(visible(&take_back("bot", token).await), visible(&done), "{token}");
    }
    assert_eq!((gate.status(&made).await, gate.status(&kept).await), (401, 200));
    let unknown = gate.call(Era::Modern, "a.b.c", "get").await;
    assert_eq!(visible(&gate.call(Era::Modern, &made, "get").await), visible(&unknown));
    let nobody = answer(gate.form("/oauth/revoke", &format!("token={kept}"))).await;
    assert_eq!((nobody.status, text(&nobody.json(), "error").as_str()), (401, "invalid_client"));
    let nothing = answer(gate.form("/oauth/revoke", "").basic_auth("bot", Some(key("bot")))).await;
    assert_eq!((nothing.status, text(&nothing.json(), "error").as_str()), (400, "invalid_request"));
    assert_eq!(gate.status(&kept).await, 200);
}

#[tokio::test]
async fn a_tool_that_a_token_leaves_out_answers_byte_for_byte_like_one_that_does_not_exist() {
    let (narrow, without) = tokio::join!(gate(), async { Wire::serve(project(&["get"]), identity()).await });
    let (shown, whole) = (
        text(&token(&narrow, "bot", "callgate_tool=g*&callgate_tool=none").await, "access_token"),
        text(&token(&without, "bot", "").await, "access_token"),
    );
    for era in ERAS {
        let lists = [(&narrow, &shown), (&without, &whole)]
            .map(|(gate, token)| answer(gate.request(era, "tools/list", json!({})).bearer_auth(token)));
        let [left, right] = <[Answer; 2]>::try_from(futures::future::join_all(lists).await).ok().unwrap();
        assert_eq!(left.json()["result"]["tools"].as_array().unwrap().len(), 1, "{}", left.text());
        assert_eq!(visible(&left), visible(&right));
        let (left, right) = (narrow.call(era, &shown, "put").await, without.call(era, &whole, "put").await);
        assert_eq!(left.json()["error"]["code"], -32602, "{}", left.text());
        assert_eq!(visible(&left), visible(&right));
        assert_eq!(narrow.call(era, &shown, "get").await.status, 200);
        // Its client has the tool, with another proof.
        assert_eq!(narrow.call(era, &key("bot"), "put").await.json()["result"]["isError"], false);
    }
}

#[tokio::test]
async fn a_run_belongs_to_the_client_and_user_that_it_was_minted_for() {
    let gate = gate().await;
    let first = token(&gate, "user-bot", "callgate_user=dana").await;
    let run = text(&first, "callgate_run");
    let more = token(&gate, "user-bot", &format!("callgate_user=dana&callgate_run={run}")).await;
    assert_eq!(more["callgate_run"], run.as_str());
    let others = [("user-bot", "callgate_user=lee&"), ("user-bot", ""), ("bot", "")];
    let unknown = ask(&gate, "user-bot", &format!("callgate_run={}", "0".repeat(32))).await;
    for (client, who) in others {
        let refused = ask(&gate, client, &format!("{who}callgate_run={run}")).await;
        assert_eq!(visible(&refused), visible(&unknown));
        assert_eq!((refused.status, text(&refused.json(), "error").as_str()), (400, "invalid_request"));
    }
    for token in [&first, &more] {
        assert_eq!(gate.status(&text(token, "access_token")).await, 200);
    }
    for outcome in gate.records_of("outcome") {
        assert_eq!(outcome["caller"]["run"], run.as_str());
        let user = json!({ "issuer": "https://gate.example.com", "subject": "dana" });
        assert_eq!(outcome["caller"]["user"], user);
    }
}

#[tokio::test]
async fn a_token_ends_with_its_run() {
    let gate = gate().await;
    let made = token(&gate, "bot", "callgate_run_lifetime=3").await;
    assert!(made["expires_in"].as_u64().unwrap() <= 3, "{made}");
    let token = text(&made, "access_token");
    let mut answers = vec![gate.status(&token).await];
    // The clocks' leeway is for tokens, not for runs.
    tokio::time::sleep(std::time::Duration::from_millis(3_100)).await;
    answers.push(gate.status(&token).await);
    assert_eq!(answers, [200, 401]);
}

#[tokio::test]
async fn what_one_process_issues_another_takes_at_once_and_what_one_takes_back_is_gone_from_both() {
    let one = gate().await;
    let two = one.another().await;
    for _ in 0..30 {
        let made = text(&token(&one, "bot", "").await, "access_token");
        assert_eq!(two.status(&made).await, 200);
        let form = format!("token={made}");
        let done = answer(one.form("/oauth/revoke", &form).basic_auth("bot", Some(key("bot")))).await;
        assert_eq!(done.status, 200);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!((one.status(&made).await, two.status(&made).await), (401, 401));
    }
}

#[tokio::test]
async fn an_assertion_is_good_once_in_all_processes_together() {
    let signer = new_key();
    let spec = json!({ "tools": ["*"], "assertion-keys": [signer.public_jwk()] });
    let one = Wire::serve(project(&["get"]).client("signer", spec), identity()).await;
    let two = one.another().await;
    for round in 0..20 {
        let now = Timestamp::now().as_second();
        let claims = json!({
            "iss": "signer", "sub": "signer", "aud": "https://gate.example.com", "jti": format!("j{round}"),
            "iat": now, "exp": now + 60
        });
        let assertion = signer.sign("JWT", claims.as_object().unwrap()).unwrap();
        let form = format!("grant_type=client_credentials&{}&client_assertion={assertion}", assertion_type());
        let (left, right) =
            tokio::join!(answer(one.form("/oauth/token", &form)), answer(two.form("/oauth/token", &form)));
        let mut statuses = [left.status, right.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401]);
    }
}

/// RFC 6749 §5.2: whoever asks for a token reads no JSON-RPC.
#[tokio::test]
async fn what_the_front_refuses_at_the_token_endpoint_it_refuses_in_oauth_s_words() {
    let gate = gate().await;
    let grant = "grant_type=client_credentials";
    let form = |path: &str| gate.form(path, grant).basic_auth("bot", Some(key("bot")));
    let large = format!("{grant}&scope={}", "a".repeat(300 << 10));
    let cases = [
        (gate.form("/oauth/token", &large), 413, "invalid_request"),
        (form("/oauth/token").header("Host", "evil.example.com"), 403, "invalid_request"),
        (form("/oauth/revoke").header("Origin", "https://evil.example.com"), 403, "invalid_request"),
        (form("/oauth/token?a=1&access_token=x"), 400, "invalid_request"),
        (gate.http.get(gate.url("/oauth/jwks")).header("Host", "evil.example.com"), 403, "invalid_request"),
        (gate.http.get(gate.url("/oauth/token")), 405, "invalid_request"),
    ];
    for (request, status, error) in cases {
        let refused = answer(request).await;
        assert_eq!((refused.status, text(&refused.json(), "error").as_str()), (status, error));
        assert!(refused.json().get("jsonrpc").is_none(), "{}", refused.text());
        assert_eq!(refused.headers["cache-control"], "no-store");
    }
    let spent = Wire::serve(project(&["get"]).listener(json!({ "failures": "1/h" })), identity()).await;
    let wrong = || spent.form("/oauth/token", grant).basic_auth("bot", Some("cg_bot_x"));
    assert_eq!(answer(wrong()).await.status, 401);
    let refused = answer(wrong()).await;
    assert_eq!((refused.status, text(&refused.json(), "error").as_str()), (429, "temporarily_unavailable"));
    assert!(refused.headers.contains_key("retry-after"));
    // Beside it, the protocol's own errors are as they were.
    let refused =
        answer(gate.request(Era::Modern, "tools/list", json!({})).header("Host", "evil.example.com"));
    assert_eq!(refused.await.json()["error"]["code"], -32600);
}

#[tokio::test]
async fn a_header_that_names_nobody_is_a_failed_authentication_and_not_a_malformed_request() {
    let gate = gate().await;
    for header in ["Basic", "Basic !", "Basic Ym90", "Bearer x", "Basic /w==", ""] {
        let request = gate.form("/oauth/token", "grant_type=client_credentials");
        let refused = answer(request.header("Authorization", header)).await;
        assert_eq!(
            (refused.status, text(&refused.json(), "error").as_str()),
            (401, "invalid_client"),
            "{header}"
        );
        assert_eq!(refused.headers["www-authenticate"], "Basic realm=\"callgate\"", "{header}");
    }
}

/// RFC 9110 §9.3.2.
#[tokio::test]
async fn the_documents_answer_head_like_get_without_a_body() {
    let gate = gate().await;
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
        "/oauth/jwks",
    ] {
        let (head, get) = (answer(gate.http.head(gate.url(path))).await, gate.get(path).await);
        assert_eq!((head.status, get.status, head.body.len()), (200, 200, 0), "{path}");
        assert_eq!(visible(&head).1, visible(&get).1, "{path}");
        assert_eq!(head.headers["content-length"], get.body.len().to_string(), "{path}");
    }
    let refused = answer(gate.http.head(gate.url("/oauth/token"))).await;
    assert_eq!((refused.status, refused.body.len()), (405, 0));
    let posted = answer(gate.form("/oauth/jwks", "a=b")).await;
    assert_eq!((posted.status, posted.headers["allow"].to_str().unwrap()), (405, "GET, HEAD"));
}

#[tokio::test]
async fn a_token_that_could_not_be_shown_is_not_made() {
    let gate = gate().await;
    let tools = |count: usize, bytes: usize| {
        let names = (0..count).map(|index| format!("callgate_tool=t{index:0>width$}", width = bytes - 1));
        names.collect::<Vec<_>>().join("&")
    };
    let said = async |form: String| {
        let refused = ask(&gate, "bot", &form).await;
        assert_eq!((refused.status, text(&refused.json(), "error").as_str()), (400, "invalid_request"));
        text(&refused.json(), "error_description")
    };
    assert_eq!(
        said(tools(1_001, 5)).await,
        "a token names 1000 tools at most: name several by a glob such as `orders.*`"
    );
    assert_eq!(
        said(tools(200, 100)).await,
        "the token would be too long to be shown: ask for fewer scopes, or for tools by a glob such as `orders.*`"
    );
    // As long as it may be, it is taken.
    let made =
        text(&token(&gate, "bot", &format!("{}&callgate_tool=get", tools(110, 100))).await, "access_token");
    assert!((14 << 10..=16 << 10).contains(&made.len()), "{}", made.len());
    assert_eq!(gate.status(&made).await, 200);
    let many =
        text(&token(&gate, "bot", &format!("{}&callgate_tool=get", tools(999, 5))).await, "access_token");
    assert_eq!(gate.status(&many).await, 200);
}
