//! What the library leaves to its user, in both protocol eras: kinds of results, hints for caches, what is offered.

use serde_json::{Value, json};

use crate::{
    gate::{ERAS, Era, Gate},
    project::{Project, key, tool},
};

fn project() -> Project {
    Project::new()
        .tool(tool("get", "read", "ok"))
        .client("bot", json!({ "tools": ["*"] }))
        .policy("permit (principal, action, resource);")
}

#[tokio::test]
async fn every_result_says_its_kind_in_the_new_revision_and_none_in_older_ones() {
    let gate = Gate::serve(project()).await;
    let call = |id: Value| json!({ "name": "get", "arguments": { "id": id } });
    for era in ERAS {
        for (method, params) in
            [("tools/list", json!({})), ("tools/call", call(json!("1"))), ("tools/call", call(json!(7)))]
        {
            let answer = gate.send(era, Some(&key("bot")), method, params.clone()).await.json();
            let kind = &answer["result"]["resultType"];
            match era {
                Era::Modern => assert_eq!(kind, "complete", "{method} {params}: {answer}"),
                Era::Legacy => assert!(answer["result"].is_object() && kind.is_null(), "{method}: {answer}"),
            }
        }
    }
    let found = gate.send(Era::Modern, Some(&key("bot")), "server/discover", json!({})).await.json();
    assert_eq!(found["result"]["resultType"], "complete", "{found}");
}

#[tokio::test]
async fn lists_say_how_long_they_keep_and_that_they_are_one_callers_own() {
    let gate = Gate::serve(project()).await;
    for era in ERAS {
        let list = gate.send(era, Some(&key("bot")), "tools/list", json!({})).await.json();
        assert_eq!(list["result"]["ttlMs"], 60_000, "{list}");
        assert_eq!(list["result"]["cacheScope"], "private", "{list}");
        assert!(list["result"].get("nextCursor").is_none(), "{list}");
    }
}

#[tokio::test]
async fn a_list_of_many_tools_comes_in_pages_and_in_the_same_order_each_time() {
    let mut project = project();
    let mut names: Vec<String> = (0..250).map(|at| format!("many{}", (at * 37) % 250)).collect();
    for name in &names {
        project = project.tool(tool(name, "read", "ok"));
    }
    names.push("get".into());
    names.sort_unstable();
    let gate = Gate::serve(project).await;
    for era in ERAS {
        let (mut listed, mut cursor, mut pages) = (Vec::new(), json!({}), 0);
        loop {
            let page = gate.send(era, Some(&key("bot")), "tools/list", cursor).await.json();
            let tools = page["result"]["tools"].as_array().unwrap();
            listed.extend(tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()));
            pages += 1;
            let Some(next) = page["result"]["nextCursor"].as_str() else { break };
            cursor = json!({ "cursor": next });
        }
        assert_eq!((pages, &listed), (2, &names), "{era:?}");
        let wrong = gate.send(era, Some(&key("bot")), "tools/list", json!({ "cursor": "1" })).await.json();
        assert_eq!(wrong["error"]["code"], -32602, "{wrong}");
    }
}

#[tokio::test]
async fn what_is_offered_is_what_there_is() {
    let gate = Gate::serve(project()).await;
    let found = gate.send(Era::Modern, Some(&key("bot")), "server/discover", json!({})).await.json();
    assert_eq!(
        found["result"]["capabilities"],
        json!({ "logging": {}, "tools": { "listChanged": true } }),
        "{found}"
    );
    for method in ["prompts/list", "resources/list", "completion/complete", "tasks/get"] {
        let params = match method {
            "tasks/get" => json!({ "taskId": "t" }),
            _ => json!({}),
        };
        let answer = gate.send(Era::Modern, Some(&key("bot")), method, params).await.json();
        assert!(answer.get("error").is_some(), "{method}: {answer}");
    }
}
