//! The subschemas of a schema and how evaluation goes from one to the next.
//!
//! An edge is *in place* where the next subschema judges the same value (`$ref`, `allOf`, `if`, …), and
//! goes *below* where it judges a member or an item. What the gate cannot follow is refused here.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    BadSchema,
    pattern::{self, PATTERNS_KIB_MAX, bytes_cost},
};
use crate::manifest::join_pointer;

/// The most levels of subschemas inside each other.
pub(super) const SCHEMA_DEPTH_MAX: usize = 32;
/// The most subschemas of one schema.
pub(super) const SUBSCHEMAS_MAX: usize = 2_000;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Work in steps (about 20 ns each), and in sixteenths of a step for each byte of a string.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Weight {
    pub(super) steps: u64,
    pub(super) byte_sixteenths: u64,
}

impl Weight {
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            steps: self.steps.saturating_add(other.steps),
            byte_sixteenths: self.byte_sixteenths.saturating_add(other.byte_sixteenths),
        }
    }

    pub(super) fn max(self, other: Self) -> Self {
        Self {
            steps: self.steps.max(other.steps),
            byte_sixteenths: self.byte_sixteenths.max(other.byte_sixteenths),
        }
    }
}

/// One subschema.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) pointer: String,
    pub(super) weight: Weight,
    /// What its `patternProperties` cost for each member's name.
    pub(super) names_weight: Weight,
    /// Subschemas that judge the same value, with the keyword.
    pub(super) in_place: Vec<(usize, &'static str)>,
    /// Of these, one applies to a member.
    pub(super) one_member: Vec<usize>,
    /// All of these may apply to a member.
    pub(super) each_member: Vec<usize>,
    /// All of these apply to a member's name.
    pub(super) names: Vec<usize>,
    pub(super) one_item: Vec<usize>,
    pub(super) each_item: Vec<usize>,
    /// Evaluated again while it is worked out what other keywords have evaluated.
    pub(super) marked: Vec<usize>,
    pub(super) unevaluated: bool,
    pub(super) unique_items: bool,
}

/// All subschemas of a schema; the first is the schema itself.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
}

/// How a keyword applies its subschemas.
#[derive(Clone, Copy)]
enum Applies {
    InPlace,
    OneMember,
    EachMember,
    Names,
    OneItem,
    EachItem,
    Marked,
    Nowhere,
}

/// The keywords that hold subschemas: one, a list, or one for each name.
const ONE: [(&str, Applies); 11] = [
    ("not", Applies::InPlace),
    ("if", Applies::InPlace),
    ("then", Applies::InPlace),
    ("else", Applies::InPlace),
    ("additionalProperties", Applies::OneMember),
    ("unevaluatedProperties", Applies::Marked),
    ("propertyNames", Applies::Names),
    ("items", Applies::OneItem),
    ("contains", Applies::EachItem),
    ("unevaluatedItems", Applies::Marked),
    ("contentSchema", Applies::Nowhere),
];
const LISTS: [(&str, Applies); 4] = [
    ("allOf", Applies::InPlace),
    ("anyOf", Applies::InPlace),
    ("oneOf", Applies::InPlace),
    ("prefixItems", Applies::OneItem),
];
const NAMED: [(&str, Applies); 6] = [
    ("properties", Applies::OneMember),
    ("patternProperties", Applies::EachMember),
    ("dependentSchemas", Applies::InPlace),
    ("dependencies", Applies::InPlace),
    ("$defs", Applies::Nowhere),
    ("definitions", Applies::Nowhere),
];

/// Keywords that change what a reference means. The gate reads a schema in several places (arguments,
/// labels, policy types), and all of them have to read the same.
const REFUSED: [(&str, &str); 6] = [
    ("$anchor", "write the reference as a place, such as `#/$defs/name`"),
    ("$dynamicRef", "write `$ref` with a place, such as `#/$defs/name`"),
    ("$dynamicAnchor", "write `$ref` with a place, such as `#/$defs/name`"),
    ("$recursiveRef", "write `$ref` with a place, such as `#/$defs/name`"),
    ("$recursiveAnchor", "write `$ref` with a place, such as `#/$defs/name`"),
    ("$vocabulary", "only a meta-schema has vocabularies"),
];

/// Every subschema by itself, and what is wrong with it.
pub(super) fn read(schema: &Value) -> (Graph, Vec<BadSchema>) {
    let mut reader = Reader::default();
    reader.node(schema, "", 0);
    reader.resolve();
    if reader.patterns_kib > PATTERNS_KIB_MAX {
        let message = format!("the compiled patterns take more than {PATTERNS_KIB_MAX} KiB together");
        reader.refuse(String::new(), "pattern", message);
    }
    (reader.graph, reader.bad)
}

#[derive(Default)]
struct Reader {
    graph: Graph,
    by_pointer: HashMap<String, usize>,
    references: Vec<(usize, String)>,
    bad: Vec<BadSchema>,
    full: bool,
    patterns_kib: u64,
}

impl Reader {
    fn refuse(&mut self, at: String, rule: &str, message: impl Into<String>) {
        self.bad.push(BadSchema { at, rule: rule.to_owned(), message: message.into() });
    }

    /// Reads a subschema; nothing where there are too many.
    fn node(&mut self, schema: &Value, pointer: &str, depth: usize) -> Option<usize> {
        if self.graph.nodes.len() >= SUBSCHEMAS_MAX {
            if !std::mem::replace(&mut self.full, true) {
                let message = format!("more than {SUBSCHEMAS_MAX} subschemas");
                self.refuse(pointer.to_owned(), "subschemas", message);
            }
            return None;
        }
        if depth > SCHEMA_DEPTH_MAX {
            let message = format!("subschemas more than {SCHEMA_DEPTH_MAX} levels inside each other");
            self.refuse(pointer.to_owned(), "depth", message);
            return None;
        }
        let id = self.graph.nodes.len();
        self.by_pointer.insert(pointer.to_owned(), id);
        self.graph.nodes.push(Node { pointer: pointer.to_owned(), ..Node::default() });
        let mut node = Node { pointer: pointer.to_owned(), ..Node::default() };
        node.weight.steps = 1;
        if let Value::Object(schema) = schema {
            self.identity(schema, pointer);
            self.reference(schema, pointer, id);
            self.patterns(schema, pointer);
            weigh(schema, &mut node);
            self.below(schema, pointer, depth, &mut node);
        }
        if let Some(place) = self.graph.nodes.get_mut(id) {
            *place = node;
        }
        Some(id)
    }

    fn identity(&mut self, schema: &Map<String, Value>, pointer: &str) {
        for (keyword, help) in REFUSED {
            if schema.contains_key(keyword) {
                self.refuse(
                    join_pointer(pointer, keyword),
                    keyword,
                    format!("`{keyword}` is not taken: {help}"),
                );
            }
        }
        if let Some(dialect) = schema.get("$schema")
            && (!pointer.is_empty()
                || dialect.as_str().map(|text| text.strip_suffix('#').unwrap_or(text)) != Some(DIALECT))
        {
            let message = format!("only `{DIALECT}`, and only at the root");
            self.refuse(join_pointer(pointer, "$schema"), "$schema", message);
        }
        if schema.contains_key("$id") && !pointer.is_empty() {
            self.refuse(
                join_pointer(pointer, "$id"),
                "$id",
                "`$id` inside a schema changes what references mean: leave it out",
            );
        }
    }

    fn reference(&mut self, schema: &Map<String, Value>, pointer: &str, id: usize) {
        let Some(target) = schema.get("$ref").and_then(Value::as_str) else { return };
        match target.strip_prefix('#') {
            Some(place) if (place.is_empty() || place.starts_with('/')) && !place.contains('%') => {
                self.references.push((id, place.to_owned()));
            }
            _ => {
                let message =
                    format!("`{target}` is not a plain place in the same schema, such as `#/$defs/name`");
                self.refuse(join_pointer(pointer, "$ref"), "$ref", message);
            }
        }
    }

    fn patterns(&mut self, schema: &Map<String, Value>, pointer: &str) {
        let own = schema.get("pattern").and_then(Value::as_str);
        let names = schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
        let names =
            names.map(|(name, _)| (join_pointer(&join_pointer(pointer, "patternProperties"), name), &**name));
        for (at, pattern) in own.map(|own| (join_pointer(pointer, "pattern"), own)).into_iter().chain(names) {
            self.patterns_kib = self.patterns_kib.saturating_add(pattern::compiled_kib(pattern));
            if let Some(message) = pattern::refusal(pattern) {
                self.refuse(at, "pattern", message);
            }
        }
    }

    fn below(&mut self, schema: &Map<String, Value>, pointer: &str, depth: usize, node: &mut Node) {
        for (keyword, applies) in ONE {
            if let Some(value) = schema.get(keyword) {
                let child = self.node(value, &join_pointer(pointer, keyword), depth + 1);
                attach(node, keyword, applies, child);
            }
        }
        for (keyword, applies) in LISTS {
            let values = schema.get(keyword).and_then(Value::as_array).into_iter().flatten();
            for (at, value) in values.enumerate() {
                let place = join_pointer(&join_pointer(pointer, keyword), &at.to_string());
                let child = self.node(value, &place, depth + 1);
                attach(node, keyword, applies, child);
            }
        }
        for (keyword, applies) in NAMED {
            for (name, value) in schema.get(keyword).and_then(Value::as_object).into_iter().flatten() {
                if value.is_array() {
                    continue; // `dependencies` may list names instead
                }
                let place = join_pointer(&join_pointer(pointer, keyword), name);
                let child = self.node(value, &place, depth + 1);
                attach(node, keyword, applies, child);
            }
        }
    }

    /// Leads each reference to its subschema.
    fn resolve(&mut self) {
        for (from, place) in std::mem::take(&mut self.references) {
            let target = self.by_pointer.get(&place).copied();
            let Some(node) = self.graph.nodes.get_mut(from) else { continue };
            match target {
                Some(target) => node.in_place.push((target, "$ref")),
                None if self.full => {}
                None => {
                    let at = join_pointer(&node.pointer, "$ref");
                    self.refuse(at, "$ref", format!("`#{place}` leads to no subschema"));
                }
            }
        }
    }
}

fn attach(node: &mut Node, keyword: &'static str, applies: Applies, child: Option<usize>) {
    let Some(child) = child else { return };
    match applies {
        Applies::InPlace => node.in_place.push((child, keyword)),
        Applies::OneMember => node.one_member.push(child),
        Applies::EachMember => node.each_member.push(child),
        Applies::Names => node.names.push(child),
        Applies::OneItem => node.one_item.push(child),
        Applies::EachItem => {
            node.each_item.push(child);
            node.marked.push(child);
        }
        Applies::Marked => {
            node.unevaluated = true;
            node.marked.push(child);
            node.each_member.push(child);
            node.each_item.push(child);
        }
        Applies::Nowhere => {}
    }
}

/// What a subschema's own keywords cost: one step for each keyword and each plain value in it.
fn weigh(schema: &Map<String, Value>, node: &mut Node) {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    for (keyword, value) in schema {
        let steps = match (keyword.as_str(), value) {
            ("enum" | "const" | "required" | "dependentRequired" | "type", value) => values(value),
            ("properties" | "patternProperties" | "dependentSchemas", Value::Object(names)) => {
                number(names.len())
            }
            _ => 1,
        };
        node.weight.steps = node.weight.steps.saturating_add(steps);
        node.weight.byte_sixteenths = node.weight.byte_sixteenths.saturating_add(bytes_cost(keyword, value));
    }
    node.unique_items = schema.get("uniqueItems") == Some(&Value::Bool(true));
    for pattern in schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten() {
        let weight =
            Weight { steps: 2, byte_sixteenths: bytes_cost("pattern", &Value::String(pattern.0.clone())) };
        node.names_weight = node.names_weight.plus(weight);
    }
}

/// How many values there are in a value, itself included.
fn values(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(values).fold(1, u64::saturating_add),
        Value::Object(members) => members.values().map(values).fold(1, u64::saturating_add),
        _ => 1,
    }
}
