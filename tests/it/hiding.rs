//! What is hidden from a caller reads as what does not exist.

use serde_json::{Value, json};

use crate::{
    gate::{Answer, ERAS, Gate},
    project::{Project, tool},
};

fn project() -> Project {
    Project::new()
        .tool(tool("get", "read", "ok"))
        .client("bot", json!({ "tools": ["get"] }))
        .policy(r#"permit (principal, action in Action::"effect:read", resource);"#)
}

/// Everything that a client can tell two answers apart by.
fn visible(answer: &Answer) -> (u16, Vec<String>, &[u8]) {
    let headers = answer.headers.iter().filter(|(name, _)| *name != "date");
    let mut headers: Vec<String> = headers.map(|(name, value)| format!("{name}: {value:?}")).collect();
    headers.sort_unstable();
    (answer.status, headers, &answer.body)
}

#[tokio::test]
async fn an_unknown_tool_and_a_hidden_tool_answer_byte_identically() {
    let mut scoped = tool("secret.plan", "destructive", "ok");
    scoped["scopes"] = json!(["secrets:read"]);
    let without = Gate::serve(project()).await;
    let off_the_allowlist = Gate::serve(project().tool(scoped.clone())).await;
    let not_accepted = Gate::serve(
        project()
            .tool(scoped)
            .client("bot", json!({ "tools": ["get", "secret.plan"] }))
            .floors(json!({ "tools": { "get": {} } })),
    )
    .await;
    for era in ERAS {
        for arguments in [json!({ "id": "1" }), json!({}), json!({ "id": ["x"] })] {
            let call = async |gate: &Gate| gate.call(era, "bot", "secret.plan", arguments.clone()).await;
            let unknown = call(&without).await;
            assert_eq!(unknown.json()["error"]["code"], -32602, "{}", unknown.text());
            assert_eq!(visible(&unknown), visible(&call(&off_the_allowlist).await));
            assert_eq!(visible(&unknown), visible(&call(&not_accepted).await));
        }
        assert_eq!(without.list(era, "bot").await, ["get"]);
        assert_eq!(off_the_allowlist.list(era, "bot").await, ["get"]);
        assert_eq!(not_accepted.list(era, "bot").await, ["get"]);
    }
    // The record tells what the answer does not.
    let codes = |gate: &Gate| -> Vec<Value> {
        gate.records_of("outcome").into_iter().map(|record| record["code"].clone()).collect()
    };
    assert_eq!(codes(&without), vec![json!("unknown_tool"); 6]);
    assert_eq!(codes(&off_the_allowlist), vec![json!("not_listed"); 6]);
    assert_eq!(codes(&not_accepted), vec![json!("not_listed"); 6]);
}
