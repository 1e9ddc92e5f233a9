//! What policies see of a tool's arguments: JSON Schema → a tree of types.
//!
//! One tree does both jobs. It is emitted as the Cedar type of `context.args`,
//! and it converts the arguments of each call (`value.rs`), so that the schema
//! which policies are checked against and the values they run on cannot differ.

use std::fmt;

use serde_json::{Map, Value};

use super::schema::{named, optional, record, set_of};

/// More types than the arguments of one tool need; `$ref`s can multiply without bound.
const TYPES_MAX: usize = 2_000;
/// Deeper than arguments that a person designs.
const DEPTH_MAX: usize = 32;

/// The type of a value that policies can see.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ArgType {
    Bool,
    Long,
    /// A number with at most four decimal places.
    Decimal,
    String,
    /// Its order and its repetitions are not seen.
    Set(Box<Self>),
    Record(Record),
}

/// The members of an object that policies can see.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Record {
    pub(super) members: Vec<Member>,
}

/// One member of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) required: bool,
    pub(super) kind: ArgType,
}

/// An argument that policies cannot see.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Unmapped {
    /// The names that lead to it.
    pub(super) path: Vec<String>,
    pub(super) why: Unmappable,
}

/// Why a JSON Schema has no Cedar type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Unmappable {
    Untyped,
    Nullable,
    Union,
    FreeForm,
    Tuple,
    Constant,
    Never,
    Cycle(String),
    Reference(String),
    Unknown(String),
    TooLarge,
    Items(Box<Self>),
}

impl fmt::Display for Unmappable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untyped => f.write_str("its schema has no `type`"),
            Self::Nullable => f.write_str("it may be `null`, which is no Cedar value"),
            Self::Union => f.write_str("it may be of more than one type"),
            Self::FreeForm => f.write_str("it is an object whose `properties` are not listed"),
            Self::Tuple => f.write_str("it is an array whose items have types by position"),
            Self::Constant => f.write_str("its `const` or `enum` holds values of no one Cedar type"),
            Self::Never => f.write_str("its schema admits nothing"),
            Self::Cycle(reference) => write!(f, "its schema refers to itself by `{reference}`"),
            Self::Reference(reference) => write!(f, "its `$ref` `{reference}` leads to no entry of `$defs`"),
            Self::Unknown(kind) => write!(f, "`{kind}` is not a type of JSON Schema"),
            Self::TooLarge => {
                write!(f, "its schema is over {DEPTH_MAX} levels deep or {TYPES_MAX} types large")
            }
            Self::Items(why) => write!(f, "of its items: {why}"),
        }
    }
}

impl Record {
    /// Reads the schema of a tool's input; says which arguments policies cannot see.
    pub(super) fn of_input(input: &Map<String, Value>) -> (Self, Vec<Unmapped>) {
        let mut reader =
            Reader { root: input, types: 0, depth: 0, references: vec![], path: vec![], unmapped: vec![] };
        let record = reader.record(input);
        (record, reader.unmapped)
    }

    /// The record in Cedar's JSON schema format.
    pub(super) fn to_cedar(&self) -> Value {
        let attribute = |member: &Member| {
            let kind = member.kind.to_cedar();
            (member.name.clone(), if member.required { kind } else { optional(kind) })
        };
        record(self.members.iter().map(attribute).collect::<Map<_, _>>().into())
    }
}

impl ArgType {
    fn to_cedar(&self) -> Value {
        match self {
            Self::Bool => named("Bool"),
            Self::Long => named("Long"),
            Self::Decimal => named("decimal"),
            Self::String => named("String"),
            Self::Set(element) => set_of(element.to_cedar()),
            Self::Record(record) => record.to_cedar(),
        }
    }
}

impl Unmapped {
    /// The attribute as Cedar writes it in its messages: `args.customer["e-mail"]`.
    pub(super) fn chain(&self) -> String {
        self.path.iter().fold("args".to_owned(), |chain, name| {
            if is_identifier(name) {
                format!("{chain}.{name}")
            } else {
                format!("{chain}[\"{}\"]", name.escape_debug())
            }
        })
    }
}

/// Whether Cedar takes a name for an attribute after a dot.
pub(super) fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 10] =
        ["true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"];
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.starts_with(|first: char| !first.is_ascii_digit())
        && !RESERVED.contains(&name)
}

struct Reader<'a> {
    root: &'a Map<String, Value>,
    types: usize,
    depth: usize,
    references: Vec<&'a str>,
    path: Vec<String>,
    unmapped: Vec<Unmapped>,
}

impl<'a> Reader<'a> {
    fn record(&mut self, schema: &'a Map<String, Value>) -> Record {
        let required: Vec<&str> = array(schema, "required").iter().filter_map(Value::as_str).collect();
        let mut members = Vec::new();
        for (name, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.path.push(name.clone());
            match self.kind(schema) {
                Ok(kind) => {
                    let required = required.contains(&name.as_str());
                    members.push(Member { name: name.clone(), required, kind });
                }
                Err(why) => self.unmapped.push(Unmapped { path: self.path.clone(), why }),
            }
            self.path.pop();
        }
        Record { members }
    }

    fn kind(&mut self, schema: &'a Value) -> Result<ArgType, Unmappable> {
        self.types += 1;
        if self.types > TYPES_MAX || self.depth >= DEPTH_MAX {
            return Err(Unmappable::TooLarge);
        }
        self.depth += 1;
        let kind = match schema {
            Value::Object(schema) => self.object_schema(schema),
            Value::Bool(false) => Err(Unmappable::Never),
            _ => Err(Unmappable::Untyped),
        };
        self.depth -= 1;
        kind
    }

    /// The keywords of a schema all hold at once (JSON Schema 2020-12 core, §10), so the first that
    /// tells the type tells the truth; the others can only narrow it.
    fn object_schema(&mut self, schema: &'a Map<String, Value>) -> Result<ArgType, Unmappable> {
        if let Some(kind) = schema.get("type") {
            return self.typed(schema, kind);
        }
        if let Some(value) = schema.get("const") {
            return constants(std::slice::from_ref(value));
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return constants(values);
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return self.reference(reference);
        }
        for keyword in ["anyOf", "oneOf"] {
            if schema.contains_key(keyword) {
                return self.union(array(schema, keyword));
            }
        }
        let mut why = Unmappable::Untyped;
        for part in array(schema, "allOf") {
            match self.kind(part) {
                Ok(kind) => return Ok(kind),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    fn typed(&mut self, schema: &'a Map<String, Value>, kind: &'a Value) -> Result<ArgType, Unmappable> {
        let name = match kind {
            Value::String(name) => name.as_str(),
            Value::Array(names) => match names.as_slice() {
                names if names.iter().any(|name| name == "null") => return Err(Unmappable::Nullable),
                [Value::String(name)] => name.as_str(),
                _ => return Err(Unmappable::Union),
            },
            _ => return Err(Unmappable::Untyped),
        };
        match name {
            "boolean" => Ok(ArgType::Bool),
            "integer" => Ok(ArgType::Long),
            "number" => Ok(ArgType::Decimal),
            "string" => Ok(ArgType::String),
            "null" => Err(Unmappable::Nullable),
            "array" => self.items(schema),
            "object"
                if schema.get("properties").and_then(Value::as_object).is_some_and(|it| !it.is_empty()) =>
            {
                Ok(ArgType::Record(self.record(schema)))
            }
            "object" => Err(Unmappable::FreeForm),
            other => Err(Unmappable::Unknown(other.to_owned())),
        }
    }

    fn items(&mut self, schema: &'a Map<String, Value>) -> Result<ArgType, Unmappable> {
        if schema.contains_key("prefixItems") {
            return Err(Unmappable::Tuple);
        }
        let items = schema.get("items").ok_or(Unmappable::Untyped).and_then(|items| self.kind(items));
        items.map(|kind| ArgType::Set(Box::new(kind))).map_err(|why| Unmappable::Items(Box::new(why)))
    }

    fn reference(&mut self, reference: &'a str) -> Result<ArgType, Unmappable> {
        if self.references.contains(&reference) {
            return Err(Unmappable::Cycle(reference.to_owned()));
        }
        let definition = reference
            .strip_prefix("#/$defs/")
            .map(|name| name.replace("~1", "/").replace("~0", "~"))
            .and_then(|name| self.root.get("$defs")?.get(name));
        let definition = definition.ok_or_else(|| Unmappable::Reference(reference.to_owned()))?;
        self.references.push(reference);
        let kind = self.kind(definition);
        self.references.pop();
        kind
    }

    /// A union has a type when all its branches have the same.
    fn union(&mut self, branches: &'a [Value]) -> Result<ArgType, Unmappable> {
        let known = self.unmapped.len();
        let mut kinds = Vec::new();
        for branch in branches {
            kinds.push(self.kind(branch));
        }
        // Only what is invisible in the union as a whole is worth a word.
        self.unmapped.truncate(known);
        if kinds.contains(&Err(Unmappable::Nullable)) {
            return Err(Unmappable::Nullable);
        }
        let mut kinds = kinds.into_iter();
        let first = kinds.next().unwrap_or(Err(Unmappable::Never))?;
        if kinds.all(|kind| kind.as_ref() == Ok(&first)) { Ok(first) } else { Err(Unmappable::Union) }
    }
}

fn array<'a>(schema: &'a Map<String, Value>, keyword: &str) -> &'a [Value] {
    schema.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn constants(values: &[Value]) -> Result<ArgType, Unmappable> {
    let all = |is: fn(&Value) -> bool| !values.is_empty() && values.iter().all(is);
    if values.contains(&Value::Null) {
        Err(Unmappable::Nullable)
    } else if all(Value::is_string) {
        Ok(ArgType::String)
    } else if all(Value::is_boolean) {
        Ok(ArgType::Bool)
    } else if all(|value| value.is_i64() || value.is_u64()) {
        Ok(ArgType::Long)
    } else if all(Value::is_number) {
        Ok(ArgType::Decimal)
    } else {
        Err(Unmappable::Constant)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The type of one optional argument in words, or why it has none.
    fn seen(schema: Value) -> String {
        let Value::Object(input) = json!({
            "type": "object",
            "properties": { "a": schema },
            "$defs": {
                "id": { "type": "string" },
                "again": { "$ref": "#/$defs/id" },
                "tree": { "type": "object", "properties": { "name": { "type": "string" }, "child": { "$ref": "#/$defs/tree" } } },
                "loop": { "$ref": "#/$defs/loop" },
                "odd/na~me": { "type": "integer" },
            },
        }) else {
            unreachable!()
        };
        let (record, unmapped) = Record::of_input(&input);
        let mut lines: Vec<String> = record.members.iter().map(|member| describe(&member.kind)).collect();
        lines.extend(unmapped.iter().map(|it| format!("{}: {}", it.chain(), it.why)));
        lines.join("; ")
    }

    fn describe(kind: &ArgType) -> String {
        match kind {
            ArgType::Set(element) => format!("Set<{}>", describe(element)),
            ArgType::Record(record) => {
                let member = |it: &Member| {
                    format!("{}{}: {}", it.name, if it.required { "" } else { "?" }, describe(&it.kind))
                };
                format!("{{{}}}", record.members.iter().map(member).collect::<Vec<_>>().join(", "))
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn each_json_type_has_its_cedar_type() {
        insta::assert_snapshot!(seen(json!({ "type": "string", "format": "date" })), @"String");
        insta::assert_snapshot!(seen(json!({ "type": "integer", "minimum": 1 })), @"Long");
        insta::assert_snapshot!(seen(json!({ "type": "number" })), @"Decimal");
        insta::assert_snapshot!(seen(json!({ "type": "boolean" })), @"Bool");
        insta::assert_snapshot!(seen(json!({ "type": ["string"] })), @"String");
        insta::assert_snapshot!(seen(json!({ "type": "array", "items": { "type": "integer" } })), @"Set<Long>");
        insta::assert_snapshot!(seen(json!({
            "type": "object", "required": ["x"], "properties": { "x": { "type": "boolean" }, "y": { "type": "string" } }
        })), @"{x: Bool, y?: String}");
    }

    #[test]
    fn constants_tell_their_type() {
        insta::assert_snapshot!(seen(json!({ "const": "eur" })), @"String");
        insta::assert_snapshot!(seen(json!({ "enum": ["eur", "usd"] })), @"String");
        insta::assert_snapshot!(seen(json!({ "enum": [1, 2] })), @"Long");
        insta::assert_snapshot!(seen(json!({ "enum": [1, 2.5] })), @"Decimal");
        insta::assert_snapshot!(seen(json!({ "const": true })), @"Bool");
        insta::assert_snapshot!(seen(json!({ "enum": ["eur", 1] })), @"args.a: its `const` or `enum` holds values of no one Cedar type");
        insta::assert_snapshot!(seen(json!({ "enum": [] })), @"args.a: its `const` or `enum` holds values of no one Cedar type");
        insta::assert_snapshot!(seen(json!({ "const": { "a": 1 } })), @"args.a: its `const` or `enum` holds values of no one Cedar type");
        insta::assert_snapshot!(seen(json!({ "enum": ["eur", null] })), @"args.a: it may be `null`, which is no Cedar value");
    }

    #[test]
    fn what_may_be_null_is_not_seen() {
        insta::assert_snapshot!(seen(json!({ "type": ["string", "null"] })), @"args.a: it may be `null`, which is no Cedar value");
        insta::assert_snapshot!(seen(json!({ "anyOf": [{ "type": "integer" }, { "type": "null" }] })), @"args.a: it may be `null`, which is no Cedar value");
        insta::assert_snapshot!(seen(json!({ "type": "array", "items": { "type": ["string", "null"] } })), @"args.a: of its items: it may be `null`, which is no Cedar value");
    }

    #[test]
    fn a_union_is_seen_when_its_branches_agree() {
        insta::assert_snapshot!(seen(json!({ "anyOf": [{ "type": "string", "format": "email" }, { "const": "me" }] })), @"String");
        insta::assert_snapshot!(seen(json!({ "oneOf": [{ "type": "string" }, { "type": "integer" }] })), @"args.a: it may be of more than one type");
        insta::assert_snapshot!(seen(json!({ "type": ["string", "integer"] })), @"args.a: it may be of more than one type");
        insta::assert_snapshot!(seen(json!({ "anyOf": [] })), @"args.a: its schema admits nothing");
        insta::assert_snapshot!(seen(json!({ "allOf": [{ "minLength": 1 }, { "type": "string" }] })), @"String");
    }

    #[test]
    fn what_has_no_shape_is_not_seen() {
        insta::assert_snapshot!(seen(json!({})), @"args.a: its schema has no `type`");
        insta::assert_snapshot!(seen(json!(true)), @"args.a: its schema has no `type`");
        insta::assert_snapshot!(seen(json!(false)), @"args.a: its schema admits nothing");
        insta::assert_snapshot!(seen(json!({ "properties": { "x": { "type": "string" } } })), @"args.a: its schema has no `type`");
        insta::assert_snapshot!(seen(json!({ "type": "object", "additionalProperties": { "type": "string" } })), @"args.a: it is an object whose `properties` are not listed");
        insta::assert_snapshot!(seen(json!({ "type": "array" })), @"args.a: of its items: its schema has no `type`");
        insta::assert_snapshot!(seen(json!({ "type": "array", "prefixItems": [{ "type": "string" }] })), @"args.a: it is an array whose items have types by position");
        insta::assert_snapshot!(seen(json!({ "type": "text" })), @"args.a: `text` is not a type of JSON Schema");
    }

    #[test]
    fn an_unseen_member_leaves_its_siblings_seen() {
        insta::assert_snapshot!(seen(json!({
            "type": "object", "properties": { "e-mail": {}, "if": {}, "x": { "type": "string" } }
        })), @r#"{x?: String}; args.a["e-mail"]: its schema has no `type`; args.a["if"]: its schema has no `type`"#);
    }

    #[test]
    fn local_references_are_followed_and_cycles_are_not() {
        insta::assert_snapshot!(seen(json!({ "$ref": "#/$defs/again" })), @"String");
        insta::assert_snapshot!(seen(json!({ "$ref": "#/$defs/odd~1na~0me" })), @"Long");
        insta::assert_snapshot!(seen(json!({ "$ref": "#/$defs/loop" })), @"args.a: its schema refers to itself by `#/$defs/loop`");
        insta::assert_snapshot!(seen(json!({ "$ref": "#/$defs/tree" })), @"{name?: String}; args.a.child: its schema refers to itself by `#/$defs/tree`");
        insta::assert_snapshot!(seen(json!({ "$ref": "#" })), @"args.a: its `$ref` `#` leads to no entry of `$defs`");
        insta::assert_snapshot!(seen(json!({ "$ref": "https://x.example/y" })), @"args.a: its `$ref` `https://x.example/y` leads to no entry of `$defs`");
    }

    #[test]
    fn references_that_multiply_are_cut_off() {
        let mut defs = Map::new();
        for level in 0..30 {
            let below = json!({ "$ref": format!("#/$defs/l{}", level + 1) });
            defs.insert(
                format!("l{level}"),
                json!({ "type": "object", "properties": { "a": below, "b": below } }),
            );
        }
        let Value::Object(input) =
            json!({ "type": "object", "$defs": defs, "properties": { "a": { "$ref": "#/$defs/l0" } } })
        else {
            unreachable!()
        };
        let (_, unmapped) = Record::of_input(&input);
        assert!(unmapped.iter().any(|it| it.why == Unmappable::TooLarge));
        assert!(unmapped.len() <= TYPES_MAX);
    }
}
