//! Who does not prove who it is.

use serde_json::json;

use crate::{
    gate::{ERAS, Gate},
    project::{Project, key, key_entry, tool},
};

#[tokio::test]
async fn no_key_a_wrong_key_and_an_expired_key_get_the_same_401_and_no_outcome_record() {
    let gate = Gate::serve(
        Project::new()
            .tool(tool("get", "read", "ok"))
            .client("bot", json!({ "tools": ["get"] }))
            .client("former", json!({ "tools": ["get"], "keys": [key_entry("former", "2020-01-01")] }))
            .policy("permit (principal, action, resource);"),
    )
    .await;
    let wrong = format!("{}x", key("bot"));
    let strangers = [None, Some(""), Some("x"), Some("cg_nobody_x"), Some(&wrong), Some(&key("former"))]
        .map(|key| key.map(str::to_owned));
    for era in ERAS {
        for method in ["tools/call", "tools/list", "initialize", "server/discover"] {
            let mut bodies = Vec::new();
            for stranger in &strangers {
                let params = json!({ "name": "get", "arguments": { "id": "1" } });
                let answer = gate.send(era, stranger.as_deref(), method, params).await;
                assert_eq!(answer.status, 401, "{stranger:?}");
                let challenge = answer.headers["www-authenticate"].to_str().unwrap();
                assert!(challenge.starts_with("Bearer "), "{challenge}");
                bodies.push(answer.body);
            }
            assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
        }
    }
    assert_eq!(gate.backend.hits(), 0);
    assert_eq!(gate.records_of("outcome").len(), 0);
    // They are counted instead, and the count is on record when the log closes.
    gate.app.gateway.audit().close();
    let counted = gate.records_of("summary");
    let total: u64 = counted.iter().map(|record| record["count"].as_u64().unwrap()).sum();
    assert_eq!(total, 2 * 4 * 6, "{counted:#?}");
}
