//! Names that look like something else, and policies that only seem to apply.

use serde_json::json;

use crate::{
    gate::{ERAS, Gate},
    project::{Project, paying_tool, tool},
};

#[tokio::test]
async fn a_destructive_tool_called_read_wipe_is_not_permitted_as_a_reading_one() {
    let gate = Gate::serve(
        Project::new()
            .tool(tool("read.wipe", "destructive", "ok"))
            .tool(tool("read.get", "read", "ok"))
            .client("bot", json!({ "tools": ["read.*"] }))
            .policy(r#"permit (principal, action in Action::"effect:read", resource);"#),
    )
    .await;
    for era in ERAS {
        let answer = gate.call(era, "bot", "read.wipe", json!({ "id": "1" })).await;
        assert!(answer.is_error(), "{}", answer.text());
        assert_eq!(answer.json()["result"]["_meta"]["callgate/code"], "not_permitted");
        assert!(!gate.call(era, "bot", "read.get", json!({ "id": "1" })).await.is_error());
    }
    assert_eq!(gate.backend.hits(), 2);
}

#[tokio::test]
async fn a_tool_called_release_is_a_tool_and_not_an_action_of_the_gate() {
    let gate = Gate::serve(
        Project::new()
            .tool(tool("release", "write", "ok"))
            .tool(tool("keep", "write", "ok"))
            .client("bot", json!({ "tools": ["release", "keep"] }))
            .policy(r#"permit (principal, action == Action::"release", resource);"#)
            .policy(r#"permit (principal, action == Action::"gate:keep", resource);"#),
    )
    .await;
    for era in ERAS {
        assert_eq!(gate.list(era, "bot").await, ["keep", "release"]);
        assert!(!gate.call(era, "bot", "release", json!({ "id": "1" })).await.is_error());
        assert!(gate.call(era, "bot", "keep", json!({ "id": "1" })).await.is_error());
    }
    assert_eq!(gate.backend.hits(), 2);
}

#[tokio::test]
async fn a_call_that_no_policy_permits_is_denied_though_a_marked_forbid_applies() {
    let gate = Gate::serve(
        Project::new()
            .tool(paying_tool("pay"))
            .client("bot", json!({ "tools": ["pay"] }))
            .client("lead", json!({ "tools": ["pay"], "roles": ["lead"] }))
            .policy(
                r#"
                permit (principal in Role::"lead", action == Action::"pay", resource);
                @unless_approved("finance")
                forbid (principal, action == Action::"pay", resource) when { context.args.amount > 50 };
                "#,
            ),
    )
    .await;
    for era in ERAS {
        for (client, outcome) in [("bot", "denied"), ("lead", "pending")] {
            let answer = gate.call(era, client, "pay", json!({ "id": "1", "amount": 51 })).await;
            assert_eq!(answer.json()["result"]["_meta"]["callgate/outcome"], outcome);
            assert_eq!(gate.records_of("outcome").pop().unwrap()["outcome"], outcome);
        }
    }
    assert_eq!(gate.backend.hits(), 0);
}
