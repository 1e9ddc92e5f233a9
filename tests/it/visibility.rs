//! What is listed is what may be called, or what a step-up may unlock; over the wire, for projects made
//! at random, against an oracle that shares nothing with the gate.

use std::collections::BTreeSet;

use serde_json::json;

use crate::{
    gate::{ERAS, Era, Gate},
    project::{Project, tool},
};

const SEEDS: u64 = 24;
const CLIENTS: usize = 5;
const TOOLS: usize = 8;

/// Names that are easily taken for each other.
const NAMES: [&str; 14] =
    ["a", "A", "a.b", "a.B", "a.b.c", "a-b", "a.bc", "ab", "ab.c", "b", "b.a", "b.a.c", "a_b", "b."];
const PREFIXES: [&str; 5] = ["a", "a.b", "b", "ab", "b.a"];
const SCOPES: [&str; 3] = ["x:read", "x:write", "y:read"];

/// SplitMix64: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// Each item, with a chance of `percent`.
    fn some<'a>(&mut self, items: &[&'a str], percent: usize) -> BTreeSet<&'a str> {
        items.iter().filter(|_| self.below(100) < percent).copied().collect()
    }
}

/// A tool, as far as the oracle is concerned.
struct AnyTool {
    name: &'static str,
    scopes: BTreeSet<&'static str>,
    accepted: bool,
    reads: bool,
}

/// A client, as far as the oracle is concerned.
struct AnyClient {
    name: String,
    scopes: BTreeSet<&'static str>,
    exact: BTreeSet<&'static str>,
    prefixes: BTreeSet<&'static str>,
}

/// What should become of a call.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Fate {
    Unknown,
    StepUp,
    NotPermitted,
    Answered,
}

/// The oracle.
fn fate(client: &AnyClient, tool: &AnyTool) -> Fate {
    let in_prefix = |prefix: &&str| {
        tool.name.len() > prefix.len()
            && &tool.name[..prefix.len()] == *prefix
            && tool.name.as_bytes()[prefix.len()] == b'.'
    };
    let listed = client.exact.contains(tool.name) || client.prefixes.iter().any(in_prefix);
    match (listed && tool.accepted, tool.scopes.is_subset(&client.scopes), tool.reads) {
        (false, _, _) => Fate::Unknown,
        (true, false, _) => Fate::StepUp,
        (true, true, false) => Fate::NotPermitted,
        (true, true, true) => Fate::Answered,
    }
}

fn any_tools(random: &mut Random) -> Vec<AnyTool> {
    let mut names = NAMES.to_vec();
    let mut any_tool = || AnyTool {
        name: names.swap_remove(random.below(names.len())),
        scopes: random.some(&SCOPES, 30),
        accepted: random.below(100) < 85,
        reads: random.below(100) < 70,
    };
    (0..TOOLS).map(|_| any_tool()).collect()
}

fn any_clients(random: &mut Random) -> Vec<AnyClient> {
    let mut any_client = |at: usize| AnyClient {
        name: format!("client-{at}"),
        scopes: random.some(&SCOPES, 55),
        exact: random.some(&NAMES, 25),
        prefixes: random.some(&PREFIXES, 25),
    };
    (0..CLIENTS).map(&mut any_client).collect()
}

/// Only reading is permitted, so that some calls pass every guard but policy.
fn project(tools: &[AnyTool], clients: &[AnyClient]) -> Project {
    let accepted = tools.iter().filter(|tool| tool.accepted).map(|tool| (tool.name.to_owned(), json!({})));
    let accepted: serde_json::Map<_, _> = accepted.collect();
    let mut project = Project::new()
        .floors(json!({ "unlisted": "hide", "tools": accepted }))
        .policy(r#"permit (principal, action in Action::"effect:read", resource);"#);
    for any in tools {
        let mut tool = tool(any.name, if any.reads { "read" } else { "destructive" }, "ok");
        tool["scopes"] = json!(any.scopes);
        project = project.tool(tool);
    }
    for client in clients {
        let mut allowlist: Vec<String> = client.exact.iter().map(ToString::to_string).collect();
        allowlist.extend(client.prefixes.iter().map(|prefix| format!("{prefix}.*")));
        project = project.client(&client.name, json!({ "scopes": client.scopes, "tools": allowlist }));
    }
    project
}

/// What became of a call, as its caller and the backend see it.
async fn observed(gate: &Gate, era: Era, client: &AnyClient, tool: &AnyTool) -> Fate {
    let hits = gate.backend.hits();
    let answer = gate.call(era, &client.name, tool.name, json!({ "id": "1" })).await;
    let reached = gate.backend.hits() - hits;
    let json = answer.json();
    let code = json["result"]["_meta"]["callgate/code"].as_str();
    match (answer.status, json["error"]["code"].as_i64(), code, reached) {
        (_, Some(-32602), None, 0) => Fate::Unknown,
        (403, Some(_), None, 0) => {
            let challenge = answer.headers["www-authenticate"].to_str().unwrap();
            assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
            assert!(tool.scopes.iter().all(|scope| challenge.contains(scope)), "{challenge}");
            Fate::StepUp
        }
        (200, None, Some("not_permitted"), 0) => Fate::NotPermitted,
        (200, None, None, 1) if !answer.is_error() => Fate::Answered,
        other => panic!("{other:?}: {json}"),
    }
}

#[tokio::test]
async fn what_is_listed_is_what_may_be_called_or_unlocked() {
    let mut fates = BTreeSet::new();
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut random = Random(seed);
        let (tools, clients) = (any_tools(&mut random), any_clients(&mut random));
        let gate = Gate::serve(project(&tools, &clients)).await;
        let era = ERAS[random.below(ERAS.len())];
        for client in &clients {
            let listed = gate.list(era, &client.name).await;
            let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
            assert!(listed.iter().all(|name| tools.iter().any(|tool| tool.name == *name)), "{listed:?}");
            for tool in &tools {
                let case = format!("seed {seed}, {era:?}, {} calls {}", client.name, tool.name);
                let (expected, observed) = (fate(client, tool), observed(&gate, era, client, tool).await);
                assert_eq!(observed, expected, "{case}");
                assert_eq!(listed.contains(tool.name), expected != Fate::Unknown, "{case}");
                fates.insert(expected);
            }
        }
        assert_eq!(gate.records_of("outcome").len(), CLIENTS * TOOLS, "seed {seed}");
    }
    assert_eq!(fates.len(), 4, "the seeds show every fate");
}
