//! The shape of an answer: the fields that its schema names, and their labels.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use crate::{
    catalog::LABEL_KEYWORD,
    manifest::{Label, join_pointer as join},
};

/// Which fields a schema names, with their labels: a graph, since schemas may refer to themselves.
#[derive(Debug)]
pub struct Shape {
    nodes: Vec<Node>,
}

type NodeId = usize;

/// What a schema says of one value. Where several schemas apply, all they name is named, and all
/// their labels hold.
#[derive(Debug, Default)]
struct Node {
    labels: BTreeSet<Label>,
    properties: BTreeMap<String, Vec<NodeId>>,
    patterns: Vec<(regex::Regex, NodeId)>,
    /// The schema of fields that are not named, where they were let in on purpose.
    additional: Vec<NodeId>,
    items: Vec<NodeId>,
    /// Other nodes that describe the same value.
    also: Vec<NodeId>,
    /// The value is let through as it is: `true` as `additionalProperties`.
    open: bool,
}

const ROOT: NodeId = 0;

impl Shape {
    /// The shape of a schema.
    #[must_use]
    pub fn new(schema: &Map<String, Value>) -> Self {
        let root = Value::Object(schema.clone());
        let mut builder = Builder { root: &root, nodes: Vec::new(), by_pointer: HashMap::new() };
        builder.node(&root, "");
        Self { nodes: builder.nodes }
    }

    /// Whether any field has a label.
    #[must_use]
    pub fn is_labelled(&self) -> bool {
        self.nodes.iter().any(|node| !node.labels.is_empty())
    }

    /// Drops the fields that the schema does not name, and counts them.
    pub fn prune(&self, value: &mut Value) -> usize {
        self.prune_at(&self.closure([ROOT]), value)
    }

    fn prune_at(&self, nodes: &[NodeId], value: &mut Value) -> usize {
        if self.all(nodes).any(|node| node.open) {
            return 0;
        }
        let mut dropped = 0;
        match value {
            Value::Object(members) => {
                members.retain(|name, member| {
                    let below = self.below(nodes, name);
                    let named = !below.is_empty();
                    dropped += if named { self.prune_at(&below, member) } else { 1 };
                    named
                });
            }
            Value::Array(items) => {
                let below = self.items(nodes);
                dropped += items.iter_mut().map(|item| self.prune_at(&below, item)).sum::<usize>();
            }
            _ => {}
        }
        dropped
    }

    /// The labels of the values that are present.
    #[must_use]
    pub fn labels(&self, value: &Value) -> BTreeSet<Label> {
        let mut labels = BTreeSet::new();
        self.labels_at(&self.closure([ROOT]), value, &mut labels);
        labels
    }

    fn labels_at(&self, nodes: &[NodeId], value: &Value, into: &mut BTreeSet<Label>) {
        into.extend(self.all(nodes).flat_map(|node| node.labels.iter().cloned()));
        match value {
            Value::Object(members) => {
                members
                    .iter()
                    .for_each(|(name, member)| self.labels_at(&self.below(nodes, name), member, into));
            }
            Value::Array(items) => {
                let below = self.items(nodes);
                items.iter().for_each(|item| self.labels_at(&below, item, into));
            }
            _ => {}
        }
    }

    /// Removes every value that carries one of the labels.
    ///
    /// # Errors
    /// The label that the whole value carries, since nothing would be left.
    pub fn remove(&self, value: &mut Value, forbidden: &BTreeSet<&Label>) -> Result<(), Label> {
        let root = self.closure([ROOT]);
        if let Some(label) = self.forbidden(&root, forbidden) {
            return Err(label.clone());
        }
        self.remove_at(&root, value, forbidden);
        Ok(())
    }

    fn remove_at(&self, nodes: &[NodeId], value: &mut Value, forbidden: &BTreeSet<&Label>) {
        match value {
            Value::Object(members) => {
                members.retain(|name, member| {
                    let below = self.below(nodes, name);
                    let kept = self.forbidden(&below, forbidden).is_none();
                    if kept {
                        self.remove_at(&below, member, forbidden);
                    }
                    kept
                });
            }
            Value::Array(items) => {
                let below = self.items(nodes);
                if self.forbidden(&below, forbidden).is_some() {
                    items.clear();
                }
                items.iter_mut().for_each(|item| self.remove_at(&below, item, forbidden));
            }
            _ => {}
        }
    }

    fn forbidden<'a>(&'a self, nodes: &[NodeId], forbidden: &BTreeSet<&Label>) -> Option<&'a Label> {
        let mut labels = nodes.iter().filter_map(|node| self.nodes.get(*node)).flat_map(|node| &node.labels);
        labels.find(|label| forbidden.contains(label))
    }

    fn all<'a>(&'a self, nodes: &'a [NodeId]) -> impl Iterator<Item = &'a Node> {
        nodes.iter().filter_map(|node| self.nodes.get(*node))
    }

    /// The nodes that describe a member of the values that `nodes` describe.
    fn below(&self, nodes: &[NodeId], name: &str) -> Vec<NodeId> {
        let mut found = Vec::new();
        for node in self.all(nodes) {
            let before = found.len();
            found.extend(node.properties.get(name).into_iter().flatten());
            found.extend(
                node.patterns.iter().filter(|(pattern, _)| pattern.is_match(name)).map(|(_, id)| *id),
            );
            if found.len() == before {
                found.extend(&node.additional);
            }
        }
        self.closure(found)
    }

    fn items(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        self.closure(self.all(nodes).flat_map(|node| node.items.iter().copied()).collect::<Vec<_>>())
    }

    /// All nodes that describe the same values as these.
    fn closure(&self, nodes: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
        let mut seen = vec![false; self.nodes.len()];
        let mut closed: Vec<NodeId> = Vec::new();
        let mut open: Vec<NodeId> = nodes.into_iter().collect();
        while let Some(id) = open.pop() {
            let (Some(node), Some(seen)) = (self.nodes.get(id), seen.get_mut(id)) else { continue };
            if !std::mem::replace(seen, true) {
                closed.push(id);
                open.extend(&node.also);
            }
        }
        closed
    }
}

struct Builder<'a> {
    root: &'a Value,
    nodes: Vec<Node>,
    by_pointer: HashMap<String, NodeId>,
}

impl Builder<'_> {
    /// The node of a schema, made once for each place in the document.
    fn node(&mut self, schema: &Value, pointer: &str) -> NodeId {
        if let Some(id) = self.by_pointer.get(pointer) {
            return *id;
        }
        let id = self.nodes.len();
        self.by_pointer.insert(pointer.to_owned(), id);
        self.nodes.push(Node::default());
        let node = schema.as_object().map(|schema| self.read(schema, pointer)).unwrap_or_default();
        if let Some(place) = self.nodes.get_mut(id) {
            *place = node;
        }
        id
    }

    fn read(&mut self, schema: &Map<String, Value>, pointer: &str) -> Node {
        let mut node = Node::default();
        node.labels.extend(
            schema.get(LABEL_KEYWORD).and_then(Value::as_str).and_then(|text| Label::parse(text).ok()),
        );
        for (name, property) in members(schema, "properties") {
            let id = self.node(property, &join(&join(pointer, "properties"), name));
            node.properties.entry(name.clone()).or_default().push(id);
        }
        for (pattern, property) in members(schema, "patternProperties") {
            let id = self.node(property, &join(&join(pointer, "patternProperties"), pattern));
            // The schema compiled, so its patterns do; one that did not would name nothing.
            node.patterns.extend(regex::Regex::new(pattern).ok().map(|pattern| (pattern, id)));
        }
        for keyword in ["additionalProperties", "unevaluatedProperties"] {
            match schema.get(keyword) {
                Some(Value::Bool(true)) => node.additional.push(self.open()),
                Some(value @ Value::Object(_)) => {
                    node.additional.push(self.node(value, &join(pointer, keyword)))
                }
                _ => {}
            }
        }
        for keyword in ["items", "contains", "unevaluatedItems"] {
            if let Some(value) = schema.get(keyword) {
                node.items.push(self.node(value, &join(pointer, keyword)));
            }
        }
        for (at, item) in list(schema, "prefixItems").enumerate() {
            node.items.push(self.node(item, &join(&join(pointer, "prefixItems"), &at.to_string())));
        }
        for keyword in ["allOf", "anyOf", "oneOf"] {
            for (at, branch) in list(schema, keyword).enumerate() {
                node.also.push(self.node(branch, &join(&join(pointer, keyword), &at.to_string())));
            }
        }
        for keyword in ["if", "then", "else"] {
            if let Some(branch) = schema.get(keyword) {
                node.also.push(self.node(branch, &join(pointer, keyword)));
            }
        }
        for (name, branch) in members(schema, "dependentSchemas") {
            node.also.push(self.node(branch, &join(&join(pointer, "dependentSchemas"), name)));
        }
        if let Some(target) =
            schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'))
        {
            let root = self.root;
            node.also.extend(root.pointer(target).map(|schema| self.node(schema, target)));
        }
        node
    }

    fn open(&mut self) -> NodeId {
        const OPEN: &str = " open";
        if let Some(id) = self.by_pointer.get(OPEN) {
            return *id;
        }
        let id = self.nodes.len();
        self.by_pointer.insert(OPEN.to_owned(), id);
        self.nodes.push(Node { open: true, ..Node::default() });
        id
    }
}

fn members<'a>(
    schema: &'a Map<String, Value>,
    keyword: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(keyword).and_then(Value::as_object).into_iter().flatten()
}

fn list<'a>(schema: &'a Map<String, Value>, keyword: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(keyword).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shape() -> Shape {
        let schema = json!({
            "type": "object",
            "properties": {
                "id": { "type": "string" },
                "card": { "type": "string", "x-label": "pii" },
                "lines": { "type": "array", "items": { "$ref": "#/$defs/line" } },
                "free": { "type": "object", "additionalProperties": true },
                "people": { "type": "array", "items": { "type": "object", "x-label": "pii", "properties": { "name": {} } } }
            },
            "oneOf": [{ "properties": { "paid": { "const": true } } }, { "properties": { "due": { "type": "string" } } }],
            "$defs": {
                "line": {
                    "type": "object",
                    "properties": { "sku": {}, "cost": { "x-label": "cost" }, "parts": { "type": "array", "items": { "$ref": "#/$defs/line" } } }
                }
            }
        });
        Shape::new(schema.as_object().unwrap())
    }

    fn pii() -> Label {
        Label::parse("pii").unwrap()
    }

    #[test]
    fn what_the_schema_does_not_name_is_dropped_at_every_depth() {
        let mut value = json!({
            "id": "a", "secret": 1, "due": "x",
            "lines": [{ "sku": "s", "margin": 3, "parts": [{ "sku": "t", "margin": 4 }] }],
            "free": { "any": { "thing": [1] } }
        });
        assert_eq!(shape().prune(&mut value), 3);
        assert_eq!(
            value,
            json!({ "id": "a", "due": "x", "lines": [{ "sku": "s", "parts": [{ "sku": "t" }] }], "free": { "any": { "thing": [1] } } })
        );
    }

    #[test]
    fn an_object_that_the_schema_says_nothing_of_is_emptied() {
        let schema = json!({ "type": "object", "properties": { "meta": {}, "deep": { "type": "array" } } });
        let mut value = json!({ "meta": { "internal": 1 }, "deep": [{ "internal": 2 }, 3] });
        Shape::new(schema.as_object().unwrap()).prune(&mut value);
        assert_eq!(value, json!({ "meta": {}, "deep": [{}, 3] }));
    }

    #[test]
    fn labels_of_absent_fields_are_not_asked_for() {
        assert_eq!(shape().labels(&json!({ "id": "a" })), BTreeSet::new());
        assert_eq!(shape().labels(&json!({ "card": "4" })), BTreeSet::from([pii()]));
        let deep = json!({ "lines": [{ "parts": [{ "cost": 1 }] }] });
        assert_eq!(shape().labels(&deep), BTreeSet::from([Label::parse("cost").unwrap()]));
    }

    #[test]
    fn forbidden_fields_are_removed_at_every_depth() {
        let mut value = json!({ "id": "a", "card": "4", "people": [{ "name": "x" }], "lines": [{ "cost": 2, "sku": "s" }] });
        shape().remove(&mut value, &BTreeSet::from([&pii()])).unwrap();
        assert_eq!(value, json!({ "id": "a", "people": [], "lines": [{ "cost": 2, "sku": "s" }] }));
    }

    #[test]
    fn a_label_on_the_whole_answer_withholds_it() {
        let schema = json!({ "type": "object", "x-label": "pii", "properties": { "a": {} } });
        let mut value = json!({ "a": 1 });
        assert_eq!(
            Shape::new(schema.as_object().unwrap()).remove(&mut value, &BTreeSet::from([&pii()])),
            Err(pii())
        );
    }
}
