//! The Cedar mapping: policies that read arguments, and the same rules written over plain JSON.
//!
//! Arguments are decided on without their schema being looked at first: whatever comes, nothing is
//! allowed that the rule does not allow, and what the rule allows is denied only by an error.

use std::{collections::BTreeSet, sync::LazyLock};

use callgate::{
    call::User,
    manifest::{ClientName, ClientsFile, Effects, Reach, ServiceName, Source, ToolName, read},
    policy::{Inputs, Policies, Question, RequestFacts, RunFacts, ToolFacts, Verdict},
};
use serde_json::{Map, Value, json};

use crate::choices::{Choices, samples};

type Arguments = Map<String, Value>;

/// A tool, its policies, and when they allow a call.
struct Rule {
    tool: &'static str,
    required: &'static [&'static str],
    policies: &'static str,
    allows: fn(&Arguments, &str) -> bool,
}

const RULES: [Rule; 9] = [
    Rule {
        tool: "whole",
        required: &["amount"],
        policies: "permit (principal, action == Action::\"whole\", resource) when { context.args.amount == 7 };",
        allows: |arguments, _| is_whole(&arguments["amount"], |amount| amount == 7),
    },
    Rule {
        tool: "range",
        required: &["amount"],
        policies: r#"permit (principal, action == Action::"range", resource) when { context.args.amount <= 100 };
            forbid (principal, action == Action::"range", resource) when { context.args.amount < -5 };"#,
        allows: |arguments, _| is_whole(&arguments["amount"], |amount| (-5..=100).contains(&amount)),
    },
    Rule {
        tool: "optional",
        required: &[],
        policies: r#"permit (principal, action == Action::"optional", resource);
            forbid (principal, action == Action::"optional", resource)
            when { context.args has amount && context.args.amount > 10 };"#,
        allows: |arguments, _| {
            arguments.get("amount").is_none_or(|amount| is_whole(amount, |amount| amount <= 10))
        },
    },
    Rule {
        tool: "decimal",
        required: &["price"],
        policies: r#"permit (principal, action == Action::"decimal", resource)
            when { context.args.price.lessThanOrEqual(decimal("100.0")) };
            forbid (principal, action == Action::"decimal", resource)
            when { context.args.price.lessThan(decimal("-0.5")) };"#,
        allows: |arguments, _| {
            arguments["price"].as_f64().is_some_and(|price| (-0.5..=100.0).contains(&price))
        },
    },
    Rule {
        tool: "text",
        required: &["name"],
        policies: r#"permit (principal, action == Action::"text", resource)
            when { context.args.name == "alice" || context.args.name like "ord_*" };"#,
        allows: |arguments, _| {
            arguments["name"].as_str().is_some_and(|name| name == "alice" || name.starts_with("ord_"))
        },
    },
    Rule {
        tool: "flag",
        required: &["sure"],
        policies: "permit (principal, action == Action::\"flag\", resource) when { context.args.sure };",
        allows: |arguments, _| arguments["sure"] == Value::Bool(true),
    },
    Rule {
        tool: "set",
        required: &["tags"],
        policies: r#"permit (principal, action == Action::"set", resource) when { context.args.tags.contains("a") };
            forbid (principal, action == Action::"set", resource) when { context.args.tags.contains("..") };"#,
        allows: |arguments, _| {
            let tags = arguments["tags"].as_array().map_or(&[][..], Vec::as_slice);
            tags.iter().all(Value::is_string) && tags.contains(&json!("a")) && !tags.contains(&json!(".."))
        },
    },
    // A record that looks like what Cedar's JSON reader takes for an entity or an extension value.
    Rule {
        tool: "record",
        required: &["who"],
        policies: r#"permit (principal, action == Action::"record", resource)
            when { context.args.who.id == "alice" && context.args.who["__entity"].id == "alice" };
            forbid (principal, action == Action::"record", resource)
            when { context.args.who has "__extn" && context.args.who["__extn"].arg != "a" };"#,
        allows: |arguments, _| {
            let who = &arguments["who"];
            who["id"] == "alice"
                && who["__entity"]["id"] == "alice"
                && who.get("__extn").is_none_or(|extension| extension["arg"] == "a")
        },
    },
    Rule {
        tool: "user",
        required: &[],
        policies: r#"permit (principal, action == Action::"user", resource) when { context has user };
            forbid (principal, action == Action::"user", resource)
            when { context has user && context.user.subject != "alice" };"#,
        allows: |_, subject| subject == "alice",
    },
];

/// Whether a value is a number that stands for a whole one of 64 bits that passes.
fn is_whole(value: &Value, passes: fn(i64) -> bool) -> bool {
    let whole = value.as_i64().or_else(|| {
        let float = value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e18)?;
        value.is_f64().then_some(float as i64)
    });
    whole.is_some_and(passes)
}

static POLICIES: LazyLock<Policies> = LazyLock::new(|| {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let clients_source = source("clients.yaml", "clients:\n  bot: { owner: dana }\n");
    let clients: ClientsFile = read(&clients_source).unwrap();
    let texts: Vec<Source> =
        RULES.iter().map(|rule| source(&format!("{}.cedar", rule.tool), rule.policies)).collect();
    let service = ServiceName::parse("s").unwrap();
    let named: Vec<(ToolName, Map<String, Value>)> =
        RULES.iter().map(|rule| (ToolName::parse(rule.tool).unwrap(), input(rule.required))).collect();
    let tools = named.iter().map(|(name, input)| ToolFacts {
        name,
        effects: Effects::Write,
        reach: Reach::External,
        service: &service,
        input,
        labels: &[],
    });
    let (policies, problems) = Policies::build(&Inputs {
        tools: tools.collect(),
        clients: &clients,
        clients_source: &clients_source,
        policies: &texts,
    });
    policies.unwrap_or_else(|| panic!("{problems:?}"))
});

fn input(required: &[&str]) -> Map<String, Value> {
    let text = json!({ "type": "string" });
    let input = json!({
        "type": "object",
        "required": required,
        "properties": {
            "amount": { "type": "integer" },
            "price": { "type": "number" },
            "name": text,
            "sure": { "type": "boolean" },
            "tags": { "type": "array", "items": text },
            "free": { "type": "object" },
            "maybe": { "type": ["string", "null"] },
            "who": {
                "type": "object",
                "required": ["id", "__entity"],
                "properties": {
                    "id": text,
                    "__entity": {
                        "type": "object", "required": ["type", "id"], "properties": { "type": text, "id": text }
                    },
                    "__extn": {
                        "type": "object", "required": ["fn", "arg"], "properties": { "fn": text, "arg": text }
                    },
                },
            },
        },
    });
    input.as_object().unwrap().clone()
}

#[derive(Debug, Eq, PartialEq)]
enum Outcome {
    Allowed,
    Denied,
    Error,
}

#[test]
fn fuzz_cedar() {
    bolero::check!().with_max_len(256).for_each(|bytes: &[u8]| {
        judge(&mut Choices::new(bytes));
    });
}

#[test]
fn many_inputs_are_allowed_and_many_denied_by_each_policy() {
    let mut counts = [[0; 3]; RULES.len()];
    for bytes in samples(20_000) {
        let (rule, outcome) = judge(&mut Choices::new(&bytes));
        counts[rule][outcome as usize] += 1;
    }
    for (rule, [allowed, denied, errors]) in RULES.iter().zip(counts) {
        assert!(allowed > 20 && denied + errors > 20, "{}: {allowed} {denied} {errors}", rule.tool);
    }
}

/// Decides a call by the policies and by the rule. Returns which, and what became of it.
fn judge(choices: &mut Choices<'_>) -> (usize, Outcome) {
    let number = choices.below(RULES.len());
    let rule = &RULES[number];
    let arguments = arguments(choices, rule);
    let subject = choices.text();

    let request = RequestFacts {
        transport: "http".into(),
        source: None,
        time: "2026-11-23T10:20:30Z".parse().unwrap(),
        authentication: "api-key".into(),
    };
    let user = User { issuer: choices.text(), subject: subject.clone() };
    let question = Question {
        roles: &BTreeSet::new(),
        client: &ClientName::parse("bot").unwrap(),
        user: Some(&user),
        run: &RunFacts::default(),
        request: &request,
    };
    let decided = POLICIES.decide(&question, &ToolName::parse(rule.tool).unwrap(), &arguments);
    let is_whole_call = rule.required.iter().all(|name| arguments.contains_key(*name));
    let allows = is_whole_call && (rule.allows)(&arguments, &subject);
    let outcome = match decided.as_ref().map(|decision| &decision.verdict) {
        Ok(Verdict::Allow) => Outcome::Allowed,
        Ok(Verdict::Deny) => Outcome::Denied,
        Ok(Verdict::Pending(_)) => panic!("nobody is to be asked: {decided:?}"),
        Err(_) => Outcome::Error,
    };
    let shown = || format!("{} {arguments:?}: {decided:?}", rule.tool);
    match outcome {
        Outcome::Allowed => assert!(allows, "{}", shown()),
        Outcome::Denied => assert!(!allows, "{}", shown()),
        Outcome::Error => {}
    }
    (number, outcome)
}

/// The arguments of a call: those that the rule asks for, mostly of their type, and any others.
fn arguments(choices: &mut Choices<'_>, rule: &Rule) -> Arguments {
    const NAMES: [&str; 9] = ["amount", "price", "name", "sure", "tags", "who", "free", "maybe", "__entity"];
    let mut arguments = Arguments::new();
    for _ in 0..choices.below(3) {
        // What the policy does not read is of its type, mostly, so that the policy is asked at all.
        let name = choices.of(&NAMES);
        let value = argument(choices, name);
        arguments.insert(name.to_owned(), value);
    }
    for name in rule.required {
        if !choices.one_in(16) {
            let value = argument(choices, name);
            arguments.insert((*name).to_owned(), value);
        }
    }
    arguments
}

fn argument(choices: &mut Choices<'_>, name: &str) -> Value {
    if choices.one_in(8) {
        return choices.value();
    }
    match name {
        "amount" => whole(choices),
        "price" => choices.number(),
        "name" => json!(choices.text()),
        "sure" => json!(choices.one_in(2)),
        "tags" => {
            let mut tags: Vec<Value> = (0..choices.below(5)).map(|_| json!(choices.text())).collect();
            if choices.one_in(2) {
                tags.push(json!("a"));
            }
            if choices.one_in(16) {
                tags.push(choices.value());
            }
            tags.into()
        }
        "who" => {
            let mut who = json!({ "id": id(choices), "__entity": { "type": "Client", "id": id(choices) } });
            if choices.one_in(3) {
                who["__extn"] =
                    json!({ "fn": choices.of(&["ip", "decimal"]), "arg": choices.of(&["a", "1.0"]) });
            }
            if choices.one_in(8) {
                who[choices.of(&["id", "__entity", "__extn", "more"])] = choices.value();
            }
            who
        }
        _ => choices.value(),
    }
}

fn id(choices: &mut Choices<'_>) -> String {
    if choices.one_in(3) { choices.text() } else { "alice".to_owned() }
}

fn whole(choices: &mut Choices<'_>) -> Value {
    match choices.below(4) {
        0 => json!(choices.of(&[7, 8, 10, 11, 100, 101, -5, -6])),
        1 => {
            json!(choices.of(&[7.0, 100.0, 100.00004, 1e18, 9_223_372_036_854_775_808.0, -0.0, 7.000_000_1]))
        }
        2 => json!(choices.of(&[i64::MAX as u64, 1 << 63, u64::MAX])),
        _ => choices.number(),
    }
}
