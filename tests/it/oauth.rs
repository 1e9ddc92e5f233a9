//! The form in which a token is asked for and taken back, over the wire.

use serde_json::{Value, json};

use crate::{
    gate::Answer,
    project::{Project, key, tool},
    wire::{RESOURCE, Wire, answer},
};

const GRANT: &str = "grant_type=client_credentials";

async fn gate() -> Wire {
    let project = Project::new()
        .client("bot", json!({ "tools": ["*"] }))
        .policy("permit (principal, action, resource);")
        .tool(tool("get", "read", "ok"));
    Wire::serve(project, json!({ "resource": RESOURCE, "tokens": {} })).await
}

/// Asks with a header more, or another one.
async fn ask(gate: &Wire, path: &str, form: &str, name: &str, value: &str) -> Answer {
    let request = gate.http.post(gate.url(path)).basic_auth("bot", Some(key("bot"))).body(form.to_owned());
    let kind = "application/x-www-form-urlencoded";
    let request = if name == "content-type" { request } else { request.header("content-type", kind) };
    answer(request.header(name, value)).await
}

fn error(refused: &Answer) -> (u16, Value) {
    (refused.status, refused.json()["error"].clone())
}

/// RFC 6749 §5.2 and appendix B: whoever reads bytes in another way reads another form.
#[tokio::test]
async fn a_form_that_is_encoded_or_in_another_charset_is_refused() {
    let gate = gate().await;
    let kind = "application/x-www-form-urlencoded";
    for (path, form) in [("/oauth/token", GRANT), ("/oauth/revoke", "token=x")] {
        for (name, value) in [
            ("content-encoding", "gzip"),
            ("content-encoding", "identity"),
            ("content-encoding", ""),
            ("content-type", &format!("{kind}; charset=utf-16")),
            ("content-type", &format!("{kind};charset=\"iso-8859-1\"")),
        ] {
            let refused = ask(&gate, path, form, name, value).await;
            assert_eq!(error(&refused), (400, json!("invalid_request")), "{path} {name}: {value}");
            assert_eq!(refused.headers["cache-control"], "no-store");
        }
        let plain = ask(&gate, path, form, "content-type", &format!("{kind}; charset=UTF-8")).await;
        assert_eq!(plain.status, 200, "{}", plain.text());
    }
}

#[tokio::test]
async fn a_destination_that_nothing_could_be_compared_with_is_refused_with_the_rule() {
    let gate = gate().await;
    let said = async |destination: &str| {
        let form = format!("{GRANT}&callgate_destination={destination}");
        ask(&gate, "/oauth/token", &form, "accept", "application/json").await
    };
    for good in ["api.example.com%3A8443", "https://api.example.com/", "x@example.com"] {
        assert_eq!(said(good).await.status, 200, "{good}");
    }
    for bad in ["%20api.example.com", "api.example.com%0a", "api%e2%80%8b.example.com", "https://a@b.example"]
    {
        let refused = said(bad).await;
        assert_eq!(error(&refused), (400, json!("invalid_request")), "{bad}");
        let message = refused.json()["error_description"].as_str().unwrap().to_owned();
        assert!(message.starts_with("a destination is a URL, a host, an address or an account: 1 to 1024"));
    }
}

#[tokio::test]
async fn the_longest_token_that_is_made_is_taken() {
    let gate = gate().await;
    let ask = async |names: usize, bytes: usize| {
        let many: String = (0..names).map(|n| format!("&callgate_tool={n:03}{}", "t".repeat(97))).collect();
        let form = format!("{GRANT}&callgate_tool=get{many}&callgate_tool={}", "t".repeat(bytes));
        let made = ask(&gate, "/oauth/token", &form, "accept", "application/json").await;
        made.json()["access_token"].as_str().map(str::to_owned)
    };
    let (mut names, mut longest) = (80, String::new());
    while ask(names + 1, 1).await.is_some() {
        names += 1;
    }
    for bytes in 1..=128 {
        longest = ask(names, bytes).await.unwrap_or(longest);
    }
    assert!(longest.len() > (16 << 10) - 4, "{}", longest.len());
    assert_eq!(gate.status(&longest).await, 200);
}
