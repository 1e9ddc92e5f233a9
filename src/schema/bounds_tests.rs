//! Each refusal beside a neighbour that is taken, and the bound held against counted evaluations.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{CompiledSchema, compile, cost, graph};

fn refusals(schema: Value) -> Vec<String> {
    let bad = compile(schema.as_object().unwrap()).err().unwrap_or_default();
    bad.into_iter().map(|bad| format!("{} {}", bad.at, bad.rule)).collect()
}

fn taken(schema: Value) -> CompiledSchema {
    compile(schema.as_object().unwrap()).unwrap_or_else(|bad| panic!("{bad:?}"))
}

/// `levels` definitions, each of which leads to the next in the way that `step` says.
fn chain(levels: usize, step: fn(Value) -> Value) -> Value {
    let mut definitions = Map::new();
    for level in 0..levels {
        let next = json!({ "$ref": format!("#/$defs/n{}", level + 1) });
        definitions.insert(format!("n{level}"), step(next));
    }
    definitions.insert(format!("n{levels}"), json!({ "type": "string" }));
    json!({ "$ref": "#/$defs/n0", "$defs": definitions })
}

#[test]
fn a_schema_that_only_refers_to_itself_is_refused() {
    assert_eq!(refusals(json!({ "$ref": "#" })), ["/$ref cycle"]);
    assert_eq!(refusals(json!({ "allOf": [{ "$ref": "#" }] })), ["/allOf/0/$ref cycle"]);
    for keyword in ["not", "if", "then", "else"] {
        assert_eq!(refusals(json!({ keyword: { "$ref": "#" } })), [format!("/{keyword}/$ref cycle")]);
    }
    assert_eq!(
        refusals(json!({ "dependentSchemas": { "a": { "$ref": "#" } } })),
        ["/dependentSchemas/a/$ref cycle"]
    );
    let ring = json!({ "properties": { "x": { "$ref": "#/$defs/a" } }, "$defs": {
        "a": { "$ref": "#/$defs/b" }, "b": { "oneOf": [{ "$ref": "#/$defs/c" }] }, "c": { "$ref": "#/$defs/a" },
    } });
    assert_eq!(refusals(ring).len(), 1);
    taken(json!({ "properties": { "child": { "$ref": "#" } } }));
    taken(json!({ "items": { "$ref": "#" } }));
    taken(json!({ "allOf": [{ "$ref": "#/$defs/a" }], "$defs": { "a": true } }));
}

#[test]
fn only_plain_places_in_the_same_schema_are_referred_to() {
    for reference in ["other.json", "https://a.example/x#/y", "#name", "#/$defs/%61", "#/$defs/b", "#/enum/0"]
    {
        let schema =
            json!({ "enum": [{}], "properties": { "p": { "$ref": reference } }, "$defs": { "a": true } });
        assert_eq!(refusals(schema), ["/properties/p/$ref $ref"], "{reference}");
    }
    taken(json!({ "properties": { "p": { "$ref": "#/$defs/a~1b" } }, "$defs": { "a/b": true } }));
}

#[test]
fn what_changes_the_meaning_of_references_is_refused() {
    for keyword in ["$anchor", "$dynamicAnchor"] {
        assert_eq!(refusals(json!({ "items": { keyword: "a" } })), [format!("/items/{keyword} {keyword}")]);
    }
    assert_eq!(refusals(json!({ "items": { "$dynamicRef": "#a" } })), ["/items/$dynamicRef $dynamicRef"]);
    assert_eq!(refusals(json!({ "items": { "$id": "https://a.example/b" } })), ["/items/$id $id"]);
    taken(json!({ "$id": "https://a.example/b", "items": { "$ref": "#/$defs/a" }, "$defs": { "a": true } }));
    let dialect = "https://json-schema.org/draft/2020-12/schema";
    assert_eq!(
        refusals(json!({ "$schema": "http://json-schema.org/draft-07/schema#" })),
        ["/$schema $schema"]
    );
    assert_eq!(refusals(json!({ "items": { "$schema": dialect } })), ["/items/$schema $schema"]);
    taken(json!({ "$schema": dialect }));
}

#[test]
fn depth_and_number_of_subschemas_are_bounded() {
    let deep = |levels| (0..levels).fold(json!({}), |schema, _| json!({ "items": schema }));
    taken(deep(graph::SCHEMA_DEPTH_MAX));
    assert_eq!(refusals(deep(graph::SCHEMA_DEPTH_MAX + 1)).len(), 1);
    let wide = |count: usize| {
        let properties: Map<_, _> = (0..count).map(|at| (format!("p{at}"), json!({}))).collect();
        json!({ "properties": properties })
    };
    taken(wide(graph::SUBSCHEMAS_MAX - 1));
    assert_eq!(refusals(wide(graph::SUBSCHEMAS_MAX)).len(), 1);
}

#[test]
fn fan_out_that_doubles_with_each_reference_is_refused() {
    for keyword in ["anyOf", "allOf"] {
        let doubling = |keyword: &'static str, levels| match keyword {
            "anyOf" => chain(levels, |next| json!({ "anyOf": [next, next] })),
            _ => chain(levels, |next| json!({ "allOf": [next, next] })),
        };
        let refused = refusals(doubling(keyword, 28));
        assert!(refused.iter().any(|bad| bad.ends_with(" fan-out")), "{refused:?}");
        taken(doubling(keyword, 9));
    }
    // The same without a branch is only long.
    taken(chain(14, |next| json!({ "allOf": [next] })));
    assert_eq!(refusals(chain(28, |next| json!({ "allOf": [next] }))).len(), 1);
}

#[test]
fn patterns_that_backtrack_or_grow_are_refused_all_at_once() {
    let schema = json!({
        "properties": { "a": { "pattern": "(a)\\1" }, "b": { "pattern": "(?=a)b" }, "c": { "pattern": "^[a-z]+$" } },
        "patternProperties": { "(x)\\1": true, "^x$": true },
    });
    assert_eq!(
        refusals(schema),
        [
            "/patternProperties/(x)\\1 pattern",
            "/properties/a/pattern pattern",
            "/properties/b/pattern pattern"
        ]
    );
    assert_eq!(refusals(json!({ "pattern": "(\\d{1000}){1000}" })), ["/pattern pattern"]);
}

#[test]
fn the_deepest_input_on_the_longest_chain_fits_a_worker_s_stack() {
    let levels = cost::CHAIN_MAX / 2 - 1;
    let mut schema = chain(levels, |next| json!({ "anyOf": [next] }));
    schema["$defs"][format!("n{levels}")] =
        json!({ "type": "object", "properties": { "c": { "$ref": "#/$defs/n0" } } });
    let schema = taken(schema);
    let nested = |leaf| (0..64).fold(leaf, |value, _| json!({ "c": value }));
    let (good, bad) = (nested(json!({})), nested(json!(1)));
    let judged = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || (schema.first_mismatch(&good).is_some(), schema.first_mismatch(&bad).is_some()))
        .unwrap();
    assert_eq!(judged.join().unwrap(), (false, true));
}

/// Counts the evaluations that an input can cause if no verdict cuts any of them short.
fn evaluations(root: &Value, schema: &Value, input: &Value, left: &mut u64) -> u64 {
    if *left == 0 {
        return 0;
    }
    *left -= 1;
    let Value::Object(keywords) = schema else { return 1 };
    let mut sum = 1;
    let mut go = |schema: &Value, input: &Value| sum += evaluations(root, schema, input, left);
    if let Some(place) = keywords.get("$ref").and_then(Value::as_str) {
        go(root.pointer(place.strip_prefix('#').unwrap()).unwrap(), input);
    }
    for branch in ["allOf", "anyOf", "oneOf"].iter().filter_map(|it| keywords.get(*it)?.as_array()).flatten()
    {
        go(branch, input);
    }
    ["not", "if", "then", "else"].iter().filter_map(|it| keywords.get(*it)).for_each(|it| go(it, input));
    for (name, member) in input.as_object().into_iter().flatten() {
        let named = keywords.get("properties").and_then(|it| it.get(name));
        let others = keywords.get("additionalProperties").filter(|_| named.is_none());
        named.into_iter().chain(others).for_each(|it| go(it, member));
        keywords.get("unevaluatedProperties").into_iter().for_each(|it| go(it, member));
        keywords.get("propertyNames").into_iter().for_each(|it| go(it, &json!(name)));
    }
    for item in input.as_array().into_iter().flatten() {
        ["items", "contains"].iter().filter_map(|it| keywords.get(*it)).for_each(|it| go(it, item));
    }
    sum
}

static COUNTED: AtomicU64 = AtomicU64::new(0);

/// A keyword that counts how often the validator itself evaluates a subschema.
struct Counter;

impl jsonschema::Keyword<'_> for Counter {
    fn validate<'i>(&self, _: &'i Value) -> Result<(), jsonschema::ValidationError<'i>> {
        COUNTED.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn is_valid(&self, _: &Value) -> bool {
        COUNTED.fetch_add(1, Ordering::Relaxed);
        true
    }
}

fn schemas() -> impl Strategy<Value = Value> {
    let reference = prop::sample::select(vec!["#/$defs/a", "#/$defs/b", "#/$defs/c"]);
    let leaf = prop_oneof![
        Just(json!({ "x-count": true, "type": "string" })),
        Just(json!({ "x-count": true, "minProperties": 1 })),
        reference.prop_map(|place| json!({ "x-count": true, "$ref": place })),
    ];
    let keywords = prop::sample::select(vec![
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "properties",
        "additionalProperties",
        "unevaluatedProperties",
        "propertyNames",
        "items",
        "contains",
        "unevaluatedItems",
    ]);
    let schema = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop::collection::vec((keywords.clone(), prop::collection::vec(inner, 1..3)), 1..4).prop_map(
            |parts| {
                let mut schema = Map::from_iter([("x-count".to_owned(), json!(true))]);
                for (keyword, mut values) in parts {
                    let value = match keyword {
                        "allOf" | "anyOf" | "oneOf" => Value::Array(values),
                        "properties" => ["a", "b"]
                            .into_iter()
                            .map(str::to_owned)
                            .zip(values)
                            .collect::<Map<_, _>>()
                            .into(),
                        _ => values.swap_remove(0),
                    };
                    schema.insert(keyword.to_owned(), value);
                }
                Value::Object(schema)
            },
        )
    });
    (schema.clone(), schema.clone(), schema.clone(), schema).prop_map(|(mut root, a, b, c)| {
        root["$defs"] = json!({ "a": a, "b": b, "c": c });
        root
    })
}

fn inputs() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(null)), Just(json!("x")), Just(json!({})), Just(json!([]))];
    leaf.prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(prop::sample::select(vec!["a", "b", "z"]), inner, 0..4).prop_map(
                |members| members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect::<Map<_, _>>()
                    .into()
            ),
        ]
    })
}

#[test]
fn no_input_causes_more_evaluations_than_the_bound() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(1_500));
    let (accepted, largest) = (AtomicU64::new(0), AtomicU64::new(0));
    runner
        .run(&(schemas(), prop::collection::vec(inputs(), 6)), |(schema, inputs)| {
            let Ok(compiled) = compile(schema.as_object().unwrap()) else { return Ok(()) };
            accepted.fetch_add(1, Ordering::Relaxed);
            let validator = jsonschema::options()
                .with_draft(jsonschema::Draft::Draft202012)
                .with_keyword("x-count", |_, _, _| Ok(Box::new(Counter)))
                .build(&schema)
                .unwrap();
            for input in inputs {
                let bound = compiled.estimate(&input);
                let naive = evaluations(&schema, &schema, &input, &mut 1_000_000);
                prop_assert!(naive <= bound.verdict, "{naive} > {} for {input}", bound.verdict);
                COUNTED.store(0, Ordering::Relaxed);
                let fits = validator.is_valid(&input);
                let verdict = COUNTED.swap(0, Ordering::Relaxed);
                prop_assert!(verdict <= bound.verdict, "{verdict} > {} for {input}", bound.verdict);
                prop_assert_eq!(fits, compiled.first_mismatch(&input).is_none());
                if bound.reason < 200_000 {
                    let _ = validator.validate(&input);
                    let reason = COUNTED.swap(0, Ordering::Relaxed);
                    prop_assert!(reason <= bound.reason, "{reason} > {} for {input}", bound.reason);
                }
                largest.fetch_max(verdict.max(naive), Ordering::Relaxed);
            }
            Ok(())
        })
        .unwrap();
    // Not proven on nothing.
    let (accepted, largest) = (accepted.into_inner(), largest.into_inner());
    assert!(accepted > 300 && largest > 100, "{accepted} accepted, at most {largest} evaluations");
}

#[test]
fn a_branching_recursion_is_priced_by_its_depth() {
    let schema = taken(json!({ "$ref": "#/$defs/n", "$defs": { "n": { "anyOf": [
        { "properties": { "c": { "$ref": "#/$defs/n" } }, "required": ["z"] },
        { "properties": { "c": { "$ref": "#/$defs/n" } }, "required": ["y"] },
    ] } } }));
    let nested = |depth| (0..depth).fold(json!(null), |value, _| json!({ "c": value }));
    assert!(schema.estimate(&nested(2)).verdict < 100);
    assert!(schema.estimate(&nested(10)).verdict > 1 << 10);
    assert_eq!(schema.estimate(&nested(64)).verdict, u64::MAX);
    // The validator remembers the verdict and not the reason, which would take 18 s here.
    assert_eq!(schema.first_mismatch(&nested(20)).unwrap().rule, "schema");
}
