//! What may leave of an answer.

use serde_json::{Value, json};

use crate::{
    backend::MARK,
    gate::{Answer, ERAS, Gate},
    project::{Project, tool},
};

fn project() -> Project {
    let mut personal = tool("personal", "read", "personal");
    personal["output"]["required"] = json!(["id", "card"]);
    personal["output"]["properties"]["card"] = json!({ "type": "string", "maxLength": 50, "x-label": "pii" });
    Project::new()
        .tool(tool("misshapen", "read", "misshapen"))
        .tool(tool("misshapen.write", "write", "misshapen"))
        .tool(tool("talkative", "read", "talkative"))
        .tool(personal)
        .client("bot", json!({ "tools": ["*"] }))
        .client("lead", json!({ "tools": ["*"], "roles": ["lead"] }))
        .policy(
            r#"
            permit (principal, action in [Action::"effect:read", Action::"effect:write"], resource);
            @id("pii-is-for-leads")
            permit (principal in Role::"lead", action == Action::"gate:release", resource == Label::"pii");
            "#,
        )
}

fn last_outcome(gate: &Gate) -> Value {
    gate.records_of("outcome").pop().unwrap()
}

fn structured(answer: &Answer) -> Value {
    let json = answer.json();
    // The text block is the same JSON, for clients that do not know structured content.
    assert_eq!(
        serde_json::from_str::<Value>(&answer.message()).unwrap(),
        json["result"]["structuredContent"]
    );
    json["result"]["structuredContent"].clone()
}

#[tokio::test]
async fn an_answer_of_another_shape_is_withheld_and_nothing_of_it_leaves() {
    let gate = Gate::serve(project()).await;
    for era in ERAS {
        for tool in ["misshapen", "misshapen.write"] {
            let hits = gate.backend.hits();
            let answer = gate.call(era, "bot", tool, json!({ "id": "1" })).await;
            assert_eq!(gate.backend.hits(), hits + 1);
            assert!(answer.is_error() && !answer.text().contains(MARK), "{}", answer.text());
            assert_eq!(answer.message(), "answer withheld (rule `output_schema`)");
            let record = last_outcome(&gate);
            assert_eq!(
                (&record["outcome"], &record["stage"], &record["code"]),
                (&json!("withheld"), &json!("output"), &json!("output_schema"))
            );
            assert!(!record.to_string().contains(MARK), "{record}");
        }
    }
}

#[tokio::test]
async fn a_field_that_the_schema_does_not_name_is_dropped() {
    let gate = Gate::serve(project()).await;
    for era in ERAS {
        let answer = gate.call(era, "bot", "talkative", json!({ "id": "1" })).await;
        assert_eq!(structured(&answer), json!({ "id": "1" }));
        assert!(!answer.is_error() && !answer.text().contains(MARK), "{}", answer.text());
        assert_eq!(last_outcome(&gate)["dropped"], 1);
    }
}

#[tokio::test]
async fn a_labelled_field_leaves_only_for_whom_policy_releases_it() {
    let gate = Gate::serve(project()).await;
    for era in ERAS {
        let answer = gate.call(era, "bot", "personal", json!({ "id": "1" })).await;
        assert_eq!(structured(&answer), json!({ "id": "1" }));
        assert!(!answer.is_error() && !answer.text().contains(MARK), "{}", answer.text());
        assert_eq!(answer.json()["result"]["_meta"]["callgate/removed"][0]["label"], "pii");
        assert_eq!(last_outcome(&gate)["removed"], json!(["pii"]));

        let answer = gate.call(era, "lead", "personal", json!({ "id": "1" })).await;
        assert_eq!(structured(&answer), json!({ "id": "1", "card": MARK }));
        assert_eq!(answer.json()["result"]["_meta"]["callgate/removed"], Value::Null);
        assert!(!last_outcome(&gate).to_string().contains(MARK), "a record holds digests, not answers");
    }
}
