//! Manifests of tools.

use serde_json::{Map, Value};

use super::draft::{Said, block, quoted};
use crate::{
    manifest::{Source, ToolManifest, read},
    schema,
};

/// Keywords that mean something to the gate alone: a server does not set them.
const OWN_KEYWORDS: [&str; 3] = ["x-egress", "x-label", "x-non-ascii"];

/// A tool's manifest, or why there can be none.
pub(super) fn manifest(said: &Said<'_>, notes: &mut Vec<String>) -> Result<String, String> {
    let input = input(said.shown.get("inputSchema"), notes)?;
    let output = said.shown.get("outputSchema").and_then(Value::as_object);
    let output = output.map(|schema| mended(schema, "output", notes));
    let mut deliberately = Vec::new();
    if output.is_none() {
        deliberately.push("unchecked-output");
        notes.push("it has no output schema: its answers are not held against any".to_owned());
    }
    if !schema::unbounded(&input).is_empty() {
        deliberately.push("unbounded-input");
    }
    let mut lines = said.head(
        "tool",
        "The name, the texts and the schemas are the server's; `effects`, `reach` and `yields` say the worst.",
        notes,
    );
    lines.push(format!("tool: {}", said.name));
    if let Some(title) = said.text("/title").or_else(|| said.text("/annotations/title")) {
        lines.push(format!("title: {}", quoted(title)));
    }
    lines.push(format!("description: {}", quoted(said.description())));
    lines.extend(claims(said.shown.get("annotations")));
    lines.extend(
        ["effects: destructive", "idempotent: false", "reach: external", "yields: untrusted"].map(Into::into),
    );
    lines.push(format!("input:{}", block(&input)));
    lines.extend(output.as_ref().map(|output| format!("output:{}", block(output))));
    lines.push("backend:\n  mcp:".into());
    lines.push(format!("    upstream: {}", quoted(said.upstream.as_str())));
    lines.push(format!("    tool: {}", quoted(said.there)));
    lines.push(format!("    definition: {}", said.digest));
    if !deliberately.is_empty() {
        lines.push(format!("deliberately: [{}]", deliberately.join(", ")));
    }
    let text = lines.join("\n") + "\n";
    // What was written is read again: what a file cannot say is not guessed at.
    let source = Source { path: format!("{}.yaml", said.name).into(), text: text.clone().into() };
    let manifest: ToolManifest = read(&source).map_err(|problem| problem.message)?;
    if manifest.input == input && manifest.output == output {
        Ok(text)
    } else {
        Err("its schemas cannot be written as YAML".into())
    }
}

/// The server's claims, for whoever reviews.
fn claims(annotations: Option<&Value>) -> Vec<String> {
    let Some(Value::Object(annotations)) = annotations else { return Vec::new() };
    let hints = ["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"];
    let said =
        hints.iter().filter_map(|hint| Some(format!("{hint}: {}", annotations.get(*hint)?.as_bool()?)));
    let said: Vec<String> = said.collect();
    if said.is_empty() {
        said
    } else {
        vec![format!("# The server claims {}: claims are not taken.", said.join(", "))]
    }
}

fn input(schema: Option<&Value>, notes: &mut Vec<String>) -> Result<Map<String, Value>, String> {
    let schema = schema.and_then(Value::as_object).ok_or("it has no input schema")?;
    let mut schema = mended(schema, "input", notes);
    schema.entry("type").or_insert_with(|| "object".into());
    // The server names its arguments: what it does not name is not sent.
    if schema.insert("additionalProperties".into(), false.into()).is_some_and(|was| was != false) {
        notes.push("the server takes arguments that it does not name: these are refused here".to_owned());
    }
    if let Err(bad) = schema::compile(&schema) {
        notes.extend(bad.iter().map(|bad| format!("the input does not load: `{}`: {}", bad.at, bad.message)));
    }
    Ok(schema)
}

/// A schema without what is not JSON Schema 2020-12, or is not the server's to say.
fn mended(schema: &Map<String, Value>, what: &str, notes: &mut Vec<String>) -> Map<String, Value> {
    let mut value = Value::Object(schema.clone());
    strip(&mut value);
    let Value::Object(mut schema) = value else { return Map::new() };
    if let Some(dialect) = schema.get("$schema").filter(|dialect| !is_2020_12(dialect)) {
        notes.push(format!("the {what} says it is of {dialect}: read as JSON Schema 2020-12"));
    }
    schema.retain(|name, value| name != "$schema" || is_2020_12(value));
    schema
}

fn is_2020_12(dialect: &Value) -> bool {
    let dialect = dialect.as_str().map(|dialect| dialect.strip_suffix('#').unwrap_or(dialect));
    dialect == Some("https://json-schema.org/draft/2020-12/schema")
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            // The others keep their order.
            members.retain(|name, _| !OWN_KEYWORDS.contains(&name.as_str()));
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::draft::Draft, *};
    use crate::{
        manifest::{BackendSpec, Effects, Reach, ServiceName, UpstreamKind, Yields},
        upstream::definition_digest,
    };

    fn draft(definition: Value) -> Draft {
        let definition = definition.as_object().unwrap();
        let tool = definition["name"].as_str().unwrap();
        Draft::new(&ServiceName::parse("files").unwrap(), UpstreamKind::Tool, tool, definition)
    }

    #[test]
    fn the_servers_claims_are_shown_and_not_taken() {
        let draft = draft(json!({
            "name": "read file",
            "description": "Reads\u{200b} a file: \"quietly\"\n# and: more",
            "annotations": { "title": "Read", "readOnlyHint": true, "openWorldHint": false },
            "inputSchema": {
                "$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
                "properties": { "path": { "type": "string", "x-egress": false } }, "required": ["path"]
            }
        }));
        let text = draft.text.unwrap();
        insta::assert_snapshot!(text, @r##"
        # Made by `callgate import` of the tool `read file` of `files`, for review.
        # The name, the texts and the schemas are the server's; `effects`, `reach` and `yields` say the worst.
        # - the server's text holds 1 zero-width character, which no reader sees: removed
        # - the input says it is of "http://json-schema.org/draft-07/schema#": read as JSON Schema 2020-12
        # - it has no output schema: its answers are not held against any
        tool: files.read_file
        title: "Read"
        description: "Reads a file: \"quietly\"\n# and: more"
        # The server claims readOnlyHint: true, openWorldHint: false: claims are not taken.
        effects: destructive
        idempotent: false
        reach: external
        yields: untrusted
        input:
          {
            "type": "object",
            "properties": {
              "path": {
                "type": "string"
              }
            },
            "required": [
              "path"
            ],
            "additionalProperties": false
          }
        backend:
          mcp:
            upstream: "files"
            tool: "read file"
            definition: sha256:8924a83a87cf16617b448d9e75adca8a574fa87dc5868a64978f70d016d05a26
        deliberately: [unchecked-output, unbounded-input]
        "##);
        let source = Source { path: "a.yaml".into(), text: text.into() };
        let manifest: ToolManifest = read(&source).unwrap();
        let BackendSpec::Mcp(mcp) = &manifest.backend else { panic!("{manifest:?}") };
        assert_eq!((mcp.tool.as_str(), mcp.definition), ("read file", draft.definition));
        assert_eq!(
            (manifest.effects, manifest.reach, manifest.yields),
            (Effects::Destructive, Reach::External, Yields::Untrusted)
        );
        assert_eq!(manifest.description, "Reads a file: \"quietly\"\n# and: more");
    }

    #[test]
    fn a_dialect_that_is_enforced_is_kept_and_others_are_not() {
        let kept = |dialect: &str| {
            let input = json!({ "$schema": dialect, "type": "object" });
            draft(json!({ "name": "a", "inputSchema": input })).text.unwrap().contains("\"$schema\"")
        };
        assert!(kept("https://json-schema.org/draft/2020-12/schema"));
        assert!(kept("https://json-schema.org/draft/2020-12/schema#"));
        assert!(!kept("https://json-schema.org/draft/2020-12/schema/other"));
        assert!(!kept("http://json-schema.org/draft-07/schema#"));
    }

    #[test]
    fn a_tool_that_no_manifest_can_say_is_refused() {
        assert!(draft(json!({ "name": "a" })).text.is_err());
        assert!(draft(json!({ "name": "a".repeat(128), "inputSchema": {} })).text.is_err());
        assert!(draft(json!({ "name": "", "inputSchema": {} })).text.is_err());
        let text = draft(json!({ "name": "a\n# b: c", "inputSchema": { "type": "object" } })).text.unwrap();
        assert!(text.contains("tool: files.a___b__c\n") && text.contains(r#"tool: "a\n# b: c""#), "{text}");
    }

    #[test]
    fn what_is_kept_for_comparison_is_the_definition_itself() {
        let draft = draft(json!({ "name": "a", "x": "\u{202e}\u{1b}\u{1f600}", "inputSchema": {} }));
        assert!(!draft.reviewed.contains('\u{202e}') && draft.reviewed.contains("\\u202e"));
        let kept: Map<String, Value> = serde_json::from_str(&draft.reviewed).unwrap();
        assert_eq!(definition_digest(&kept), draft.definition);
    }
}
