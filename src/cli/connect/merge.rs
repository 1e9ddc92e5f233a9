//! Puts one server into the text of a client's configuration, and leaves the rest of it as it is. Pure.

use jsonc_parser::{
    ParseOptions,
    cst::{CstInputValue, CstObject, CstRootNode},
};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use toml_edit::{Array, DocumentMut, Formatted, Item, Table, Value as TomlValue};

/// A value, in the order in which it is written.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Flag(bool),
    Text(String),
    List(Vec<Node>),
    Table(Vec<(&'static str, Node)>),
}

/// What a configuration is written in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    Json,
    /// JSON with comments and trailing commas.
    Jsonc,
    Toml,
}

/// What is to be in a configuration.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The member that holds the servers.
    pub(super) servers: &'static str,
    pub(super) name: String,
    pub(super) server: Node,
    /// What the client asks its user for: the value, and the id that tells it from others.
    pub(super) input: Option<(Node, String)>,
}

/// A configuration with an entry in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Merged {
    /// The same text where the entry was there already.
    pub(super) text: String,
    /// Whether the server took the place of another one of its name.
    pub(super) replaced: bool,
    /// Whether the client is asked for something that it was not asked for before.
    pub(super) asks: bool,
}

/// Why a configuration is left alone.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum MergeError {
    #[error("line {line}, column {column}: {message}")]
    Unreadable { line: usize, column: usize, message: String },
    #[error("`{0}` is there more than once")]
    Twice(String),
    #[error("{0} is not what it has to be, {1}")]
    Misshapen(String, &'static str),
    #[error("it has another server `{0}`: pass `--replace`, or another `--name`")]
    Differs(String),
    #[error("it has a form that cannot be edited here")]
    Uneditable,
}

/// The text with the entry in it.
///
/// # Errors
/// When the text cannot be read, or has another server of that name and that may not be replaced.
pub(super) fn merge(form: Form, text: &str, entry: &Entry, replace: bool) -> Result<Merged, MergeError> {
    match form {
        Form::Json | Form::Jsonc => merge_json(form, text, entry, replace),
        Form::Toml => merge_toml(text, entry, replace),
    }
}

/// How an entry reads by itself, in a file that holds nothing else.
///
/// # Errors
/// When it cannot be written in this form.
pub(super) fn alone(form: Form, entry: &Entry) -> Result<String, MergeError> {
    merge(form, "", entry, false).map(|merged| merged.text)
}

fn merge_json(form: Form, text: &str, entry: &Entry, replace: bool) -> Result<Merged, MergeError> {
    let before = parse_json(form, text)?;
    let root = parse_json(form, text)?;
    let top = match root.value() {
        None => root.object_value_or_set(),
        Some(_) => root.object_value().ok_or_else(|| misshapen("the file", "an object"))?,
    };
    refuse_twice(&top)?;
    let servers = top
        .object_value_or_create(entry.servers)
        .ok_or_else(|| misshapen(&format!("`{}`", entry.servers), "an object"))?;
    refuse_twice(&servers)?;
    let (mut added, mut replaced, mut asks) = (false, false, false);
    match servers.get(&entry.name) {
        Some(there) if there.to_serde_value() == Some(entry.server.json()) => {}
        Some(_) if !replace => return Err(MergeError::Differs(entry.name.clone())),
        Some(there) => {
            there.set_value(entry.server.cst());
            replaced = true;
        }
        None => {
            servers.append(&entry.name, entry.server.cst());
            added = true;
        }
    }
    if let Some((input, id)) = &entry.input {
        let inputs = top.array_value_or_create("inputs").ok_or_else(|| misshapen("`inputs`", "an array"))?;
        let has_id = |value: Option<Value>| {
            value.is_some_and(|value| value.get("id").and_then(Value::as_str) == Some(id.as_str()))
        };
        if !inputs.elements().iter().any(|element| has_id(element.to_serde_value())) {
            inputs.append(input.cst());
            asks = true;
        }
    }
    if !(added || replaced || asks) {
        return Ok(Merged { text: text.to_owned(), replaced, asks });
    }
    let mut merged = root.to_string();
    if !merged.ends_with('\n') {
        merged.push('\n');
    }
    // What was written is read again: a file in an unusual form is not guessed at.
    let after = parse_json(form, &merged)?.to_serde_value();
    let holds = after.as_ref().and_then(|after| after.get(entry.servers)?.get(&entry.name))
        == Some(&entry.server.json())
        && without(after, entry) == without(before.to_serde_value(), entry);
    if holds { Ok(Merged { text: merged, replaced, asks }) } else { Err(MergeError::Uneditable) }
}

/// What of a configuration has to stay as it is.
fn without(value: Option<Value>, entry: &Entry) -> Map<String, Value> {
    let Some(Value::Object(mut top)) = value else { return Map::new() };
    if let Some(Value::Object(servers)) = top.get_mut(entry.servers) {
        servers.remove(&entry.name);
        if servers.is_empty() {
            top.remove(entry.servers);
        }
    }
    if let (Some((_, id)), Some(Value::Array(inputs))) = (&entry.input, top.get_mut("inputs")) {
        inputs.retain(|input| input.get("id").and_then(Value::as_str) != Some(id));
        if inputs.is_empty() {
            top.remove("inputs");
        }
    }
    top
}

fn parse_json(form: Form, text: &str) -> Result<CstRootNode, MergeError> {
    if form == Form::Json && !text.trim().is_empty() {
        let read: Result<IgnoredAny, _> = serde_json::from_str(text);
        read.map_err(|error| MergeError::Unreadable {
            line: error.line(),
            column: error.column(),
            message: error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
        })?;
    }
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    CstRootNode::parse(text, &options).map_err(|error| MergeError::Unreadable {
        line: error.line_display(),
        column: error.column_display(),
        message: error.kind().to_string().to_lowercase(),
    })
}

fn refuse_twice(object: &CstObject) -> Result<(), MergeError> {
    let mut seen = std::collections::HashSet::new();
    for name in object.properties().iter().filter_map(jsonc_parser::cst::CstObjectProp::decoded_name) {
        if !seen.insert(name.clone()) {
            return Err(MergeError::Twice(name));
        }
    }
    Ok(())
}

fn misshapen(what: &str, expected: &'static str) -> MergeError {
    MergeError::Misshapen(what.to_owned(), expected)
}

fn merge_toml(text: &str, entry: &Entry, replace: bool) -> Result<Merged, MergeError> {
    let mut document: DocumentMut = text.parse().map_err(|error| unreadable_toml(text, &error))?;
    let servers = document.entry(entry.servers).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let servers =
        servers.as_table_like_mut().ok_or_else(|| misshapen(&format!("`{}`", entry.servers), "a table"))?;
    let replaced = match servers.get(&entry.name) {
        Some(there) if toml_as_json(there).as_ref() == Some(&entry.server.json()) => {
            return Ok(Merged { text: text.to_owned(), replaced: false, asks: false });
        }
        Some(_) if !replace => return Err(MergeError::Differs(entry.name.clone())),
        there => there.is_some(),
    };
    servers.insert(&entry.name, entry.server.toml().ok_or(MergeError::Uneditable)?);
    let merged = document.to_string();
    let after: DocumentMut = merged.parse().map_err(|error| unreadable_toml(&merged, &error))?;
    let there = after.get(entry.servers).and_then(|servers| servers.get(&entry.name));
    if there.and_then(toml_as_json).as_ref() == Some(&entry.server.json()) {
        Ok(Merged { text: merged, replaced, asks: false })
    } else {
        Err(MergeError::Uneditable)
    }
}

/// The library's own text shows the line, which may hold a secret.
fn unreadable_toml(text: &str, error: &toml_edit::TomlError) -> MergeError {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    MergeError::Unreadable {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        message: error.message().lines().next().unwrap_or_default().to_lowercase(),
    }
}

/// A part of a document in the words of [`Node`]; none where it has others.
fn toml_as_json(item: &Item) -> Option<Value> {
    if let Some(table) = item.as_table_like() {
        let members = table.iter().map(|(key, item)| Some((key.to_owned(), toml_as_json(item)?)));
        return members.collect::<Option<Map<_, _>>>().map(Value::Object);
    }
    match item.as_value()? {
        TomlValue::String(text) => Some(text.value().clone().into()),
        TomlValue::Boolean(flag) => Some((*flag.value()).into()),
        TomlValue::Array(list) => list
            .iter()
            .map(|value| value.as_str().map(Value::from))
            .collect::<Option<Vec<_>>>()
            .map(Value::Array),
        _ => None,
    }
}

impl Node {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Self::Flag(flag) => (*flag).into(),
            Self::Text(text) => text.clone().into(),
            Self::List(list) => list.iter().map(Self::json).collect(),
            Self::Table(members) => {
                Value::Object(members.iter().map(|(key, value)| ((*key).to_owned(), value.json())).collect())
            }
        }
    }

    fn cst(&self) -> CstInputValue {
        match self {
            Self::Flag(flag) => CstInputValue::Bool(*flag),
            Self::Text(text) => CstInputValue::String(text.clone()),
            Self::List(list) => CstInputValue::Array(list.iter().map(Self::cst).collect()),
            Self::Table(members) => CstInputValue::Object(
                members.iter().map(|(key, value)| ((*key).to_owned(), value.cst())).collect(),
            ),
        }
    }

    /// What a server is made of there: texts, flags and lists of texts.
    fn toml(&self) -> Option<Item> {
        Some(match self {
            Self::Flag(flag) => Item::Value(TomlValue::Boolean(Formatted::new(*flag))),
            Self::Text(text) => Item::Value(TomlValue::from(text.as_str())),
            Self::List(list) => {
                let mut array = Array::new();
                for node in list {
                    array.push(node.toml()?.into_value().ok()?);
                }
                Item::Value(TomlValue::Array(array))
            }
            Self::Table(members) => {
                let mut table = Table::new();
                for (key, value) in members {
                    table.insert(key, value.toml()?);
                }
                Item::Table(table)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(form: Form, text: &str, entry: &Entry, replace: bool) -> Result<String, MergeError> {
        super::merge(form, text, entry, replace).map(|merged| merged.text)
    }

    fn entry(url: &str) -> Entry {
        let headers = Node::Table(vec![("Authorization", Node::text("Bearer ${CG_TOKEN}"))]);
        let server = vec![("type", Node::text("http")), ("url", Node::text(url)), ("headers", headers)];
        Entry { servers: "mcpServers", name: "callgate".into(), server: Node::Table(server), input: None }
    }

    fn with_input() -> Entry {
        let input = Node::Table(vec![("id", Node::text("cg-token")), ("password", Node::Flag(true))]);
        Entry { servers: "servers", input: Some((input, "cg-token".into())), ..entry("http://h/mcp") }
    }

    fn codex() -> Entry {
        let server = vec![("url", Node::text("http://h/mcp")), ("bearer_token_env_var", Node::text("T"))];
        Entry { servers: "mcp_servers", server: Node::Table(server), ..entry("") }
    }

    #[test]
    fn a_file_that_is_not_there_becomes_one_with_the_server_alone() {
        let text = merge(Form::Json, "", &entry("http://h/mcp"), false).unwrap();
        insta::assert_snapshot!(text, @r#"
        {
          "mcpServers": {
            "callgate": {
              "type": "http",
              "url": "http://h/mcp",
              "headers": {
                "Authorization": "Bearer ${CG_TOKEN}"
              }
            }
          }
        }
        "#);
        let text = merge(Form::Toml, "", &codex(), false).unwrap();
        insta::assert_snapshot!(text, @r#"
        [mcp_servers.callgate]
        url = "http://h/mcp"
        bearer_token_env_var = "T"
        "#);
    }

    #[test]
    fn everything_else_stays_as_it_was_and_the_second_time_nothing_changes() {
        let before = "{\n    \"theme\":   \"dark\", \"n\": 1.50,\n    \"mcpServers\": {\n        \"other\": {\"command\": \"x\", \"args\": [ ]}\n    }\n}";
        let after = merge(Form::Json, before, &entry("http://h/mcp"), false).unwrap();
        for kept in ["\"theme\":   \"dark\", \"n\": 1.50,", "\"other\": {\"command\": \"x\", \"args\": [ ]}"]
        {
            assert!(after.contains(kept), "{after}");
        }
        assert_eq!(merge(Form::Json, &after, &entry("http://h/mcp"), false).unwrap(), after);
        let jsonc = "// mine\n{\n  /* why */ \"inputs\": [],\n  \"servers\": { \"o\": {}, }, // end\n}\n";
        let after = merge(Form::Jsonc, jsonc, &with_input(), false).unwrap();
        for kept in ["// mine\n", "/* why */ ", "\"o\": {}", "// end\n"] {
            assert!(after.contains(kept), "{after}");
        }
        assert_eq!(merge(Form::Jsonc, &after, &with_input(), false).unwrap(), after);
        let toml = "model = \"x\" # mine\n\n[mcp_servers.other]\ncommand = 'y'\n\n[tui]\nn = 0x10\n";
        let after = merge(Form::Toml, toml, &codex(), false).unwrap();
        for kept in ["model = \"x\" # mine\n", "[mcp_servers.other]\ncommand = 'y'\n", "[tui]\nn = 0x10\n"] {
            assert!(after.contains(kept), "{after}");
        }
        assert_eq!(merge(Form::Toml, &after, &codex(), false).unwrap(), after);
    }

    #[test]
    fn another_server_of_that_name_is_replaced_on_demand_only() {
        for (form, one, two) in [
            (Form::Json, entry("http://h/mcp"), entry("http://g/mcp")),
            (Form::Toml, codex(), Entry { server: entry("http://g/mcp").server, ..codex() }),
        ] {
            let before = merge(form, "", &one, false).unwrap();
            assert_eq!(merge(form, &before, &two, false), Err(MergeError::Differs("callgate".into())));
            let after = merge(form, &before, &two, true).unwrap();
            assert!(after.contains("http://g/mcp") && !after.contains("http://h/mcp"), "{after}");
        }
    }

    #[test]
    fn what_has_changed_is_told_without_looking_at_the_texts() {
        let told = |form: Form, text: &str, entry: &Entry| {
            let merged = super::merge(form, text, entry, true).unwrap();
            (merged.text != text, merged.replaced, merged.asks)
        };
        let before = merge(Form::Json, "", &entry("http://h/mcp"), false).unwrap();
        assert_eq!(told(Form::Json, "", &entry("http://h/mcp")), (true, false, false));
        assert_eq!(told(Form::Json, &before, &entry("http://h/mcp")), (false, false, false));
        assert_eq!(told(Form::Json, &before, &entry("http://g/mcp")), (true, true, false));
        let asked = merge(Form::Jsonc, "", &with_input(), false).unwrap();
        assert_eq!(told(Form::Jsonc, "", &with_input()), (true, false, true));
        let other = Entry { name: "other".into(), ..with_input() };
        assert_eq!(told(Form::Jsonc, &asked, &other), (true, false, false));
        let toml = merge(Form::Toml, "", &codex(), false).unwrap();
        assert_eq!(told(Form::Toml, "", &codex()), (true, false, false));
        let other = Entry { server: entry("http://g/mcp").server, ..codex() };
        assert_eq!(told(Form::Toml, &toml, &other), (true, true, false));
    }

    #[test]
    fn what_cannot_be_read_or_has_another_shape_is_left_alone() {
        let refused = |form: Form, text: &str| {
            let entry = if form == Form::Toml { codex() } else { entry("http://h/mcp") };
            merge(form, text, &entry, true).unwrap_err().to_string()
        };
        for (text, expected) in [
            ("{\n  \"a\": }", "line 2, column 8: "),
            ("{} {}", "line 1, column 4: "),
            ("// c\n{}", "line 1, column 1: "),
            ("{\"a\": 1,}", "line 1, column 9: "),
            ("[]", "the file is not what it has to be, an object"),
            ("{\"mcpServers\": []}", "`mcpServers` is not what it has to be, an object"),
            ("{\"mcpServers\": {}, \"mcpServers\": {}}", "`mcpServers` is there more than once"),
            ("{\"mcpServers\": {\"callgate\": {}, \"callgate\": {}}}", "`callgate` is there more than once"),
        ] {
            let refusal = refused(Form::Json, text);
            assert!(refusal.starts_with(expected), "{text}: {refusal}");
        }
        assert!(refused(Form::Toml, "a = 1\nb = \"cg_secret\" x\n").starts_with("line 2, column "));
        assert!(!refused(Form::Toml, "a = 1\nb = \"cg_secret\" x\n").contains("cg_secret"));
        assert_eq!(refused(Form::Toml, "mcp_servers = 1"), "`mcp_servers` is not what it has to be, a table");
    }
}
