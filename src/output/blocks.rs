//! Content blocks of an answer by another MCP server (MCP 2026-07-28 and 2025-11-25 tools, "Tool Result").
//!
//! A block of a kind that is not known is no block that was looked at, so it does not leave; members that the
//! protocol does not name are dropped.

use serde_json::{Map, Value};

use crate::backend::COMPLETIONS_MAX;

/// How many blocks an answer may have.
const BLOCKS_MAX: usize = 1_024;

/// How long a value of a completion may be.
const VALUE_BYTES_MAX: usize = 2_048;

/// Why blocks do not leave: where, and what is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct BadBlock {
    /// The JSON pointer below `content`.
    pub(super) at: String,
    /// What is wrong, in one word.
    pub(super) rule: &'static str,
}

/// Keeps of each block what the protocol names, and says how many members were dropped.
pub(super) fn prune(blocks: &mut [Value]) -> Result<usize, BadBlock> {
    if blocks.len() > BLOCKS_MAX {
        return Err(BadBlock { at: String::new(), rule: "maxItems" });
    }
    let mut dropped = 0;
    for (index, block) in blocks.iter_mut().enumerate() {
        dropped += prune_block(block, &format!("/{index}"))?;
    }
    Ok(dropped)
}

/// The same for the contents of a resource (MCP 2026-07-28 resources, "Resource Contents").
pub(super) fn prune_contents(contents: &mut [Value]) -> Result<usize, BadBlock> {
    if contents.len() > BLOCKS_MAX {
        return Err(BadBlock { at: String::new(), rule: "maxItems" });
    }
    let mut dropped = 0;
    for (index, resource) in contents.iter_mut().enumerate() {
        dropped += prune_resource(resource, &format!("/{index}"))?;
    }
    Ok(dropped)
}

/// The same for the messages of a prompt, each with one block (MCP 2026-07-28 prompts, "PromptMessage").
pub(super) fn prune_messages(messages: &mut [Value]) -> Result<usize, BadBlock> {
    if messages.len() > BLOCKS_MAX {
        return Err(BadBlock { at: String::new(), rule: "maxItems" });
    }
    let mut dropped = 0;
    for (index, message) in messages.iter_mut().enumerate() {
        let bad = |place: &str, rule| BadBlock { at: format!("/{index}{place}"), rule };
        let message = message.as_object_mut().ok_or_else(|| bad("", "type"))?;
        if !matches!(message.get("role").and_then(Value::as_str), Some("user" | "assistant")) {
            return Err(bad("/role", "enum"));
        }
        let before = message.len();
        message.retain(|name, _| matches!(name.as_str(), "role" | "content"));
        dropped += before - message.len();
        let content = message.get_mut("content").ok_or_else(|| bad("/content", "required"))?;
        dropped += prune_block(content, &format!("/{index}/content"))?;
    }
    Ok(dropped)
}

/// Holds the values of a completion to their bounds (MCP 2026-07-28 completion, "CompleteResult").
pub(super) fn judge_values(values: &[Value]) -> Result<(), BadBlock> {
    if values.len() > COMPLETIONS_MAX {
        return Err(BadBlock { at: String::new(), rule: "maxItems" });
    }
    for (index, value) in values.iter().enumerate() {
        let bad = |rule| BadBlock { at: format!("/{index}"), rule };
        let text = value.as_str().ok_or_else(|| bad("type"))?;
        if text.len() > VALUE_BYTES_MAX {
            return Err(bad("maxLength"));
        }
    }
    Ok(())
}

fn prune_block(block: &mut Value, at: &str) -> Result<usize, BadBlock> {
    let bad = |place: &str, rule| BadBlock { at: format!("{at}{place}"), rule };
    let block = block.as_object_mut().ok_or_else(|| bad("", "type"))?;
    let kind = block.get("type").and_then(Value::as_str).unwrap_or_default();
    let form = FORMS.iter().find(|form| form.kind == kind);
    let form = form.ok_or_else(|| bad("/type", "enum"))?;
    let dropped = form.keep(block).map_err(|(name, rule)| bad(&format!("/{name}"), rule))?;
    let Some(resource) = block.get_mut("resource") else { return Ok(dropped) };
    Ok(dropped + prune_resource(resource, &format!("{at}/resource"))?)
}

fn prune_resource(resource: &mut Value, at: &str) -> Result<usize, BadBlock> {
    let misfit = |(name, rule)| BadBlock { at: format!("{at}/{name}"), rule };
    let resource = resource.as_object_mut().ok_or_else(|| misfit(("", "type")))?;
    let dropped = RESOURCE.keep(resource).map_err(misfit)?;
    if resource.contains_key("text") == resource.contains_key("blob") {
        return Err(misfit(("text", "oneOf")));
    }
    Ok(dropped)
}

/// The members of a kind of block.
struct Form {
    kind: &'static str,
    /// Those that it must have, and that are texts.
    texts: &'static [&'static str],
    /// Those that it may have.
    others: &'static [&'static str],
}

/// What any block may have.
const COMMON: [&str; 3] = ["type", "annotations", "_meta"];

const FORMS: [Form; 5] = [
    Form { kind: "text", texts: &["text"], others: &[] },
    Form { kind: "image", texts: &["data", "mimeType"], others: &[] },
    Form { kind: "audio", texts: &["data", "mimeType"], others: &[] },
    Form {
        kind: "resource_link",
        texts: &["uri", "name"],
        others: &["title", "description", "mimeType", "size", "icons"],
    },
    Form { kind: "resource", texts: &[], others: &["resource"] },
];

/// What is in an embedded resource.
const RESOURCE: Form = Form { kind: "", texts: &["uri"], others: &["mimeType", "text", "blob"] };

impl Form {
    fn keep(&self, members: &mut Map<String, Value>) -> Result<usize, (&'static str, &'static str)> {
        for name in self.texts {
            match members.get(*name) {
                Some(Value::String(_)) => {}
                Some(_) => return Err((name, "type")),
                None => return Err((name, "required")),
            }
        }
        for name in ["text", "blob", "mimeType"] {
            if members.get(name).is_some_and(|value| !value.is_string()) {
                return Err((name, "type"));
            }
        }
        let before = members.len();
        members.retain(|name, _| {
            COMMON.contains(&name.as_str())
                || self.texts.contains(&name.as_str())
                || self.others.contains(&name.as_str())
        });
        Ok(before - members.len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pruned(blocks: Value) -> Result<(Value, usize), String> {
        let Value::Array(mut blocks) = blocks else { panic!("no blocks") };
        match prune(&mut blocks) {
            Ok(dropped) => Ok((Value::Array(blocks), dropped)),
            Err(bad) => Err(format!("{} {}", bad.at, bad.rule)),
        }
    }

    #[test]
    fn blocks_of_all_kinds_leave_as_they_are() {
        let blocks = json!([
            { "type": "text", "text": "a", "annotations": { "audience": ["user"] }, "_meta": { "k": 1 } },
            { "type": "image", "data": "AA==", "mimeType": "image/png" },
            { "type": "audio", "data": "AA==", "mimeType": "audio/wav" },
            { "type": "resource_link", "uri": "file:///a", "name": "a", "size": 3 },
            { "type": "resource", "resource": { "uri": "test://a", "mimeType": "text/plain", "text": "a" } },
            { "type": "resource", "resource": { "uri": "test://b", "blob": "AA==" } },
        ]);
        assert_eq!(pruned(blocks.clone()), Ok((blocks, 0)));
    }

    #[test]
    fn what_the_protocol_does_not_name_is_dropped() {
        let blocks = json!([
            { "type": "text", "text": "a", "data": "hidden", "instructions": "obey" },
            { "type": "resource", "resource": { "uri": "u", "text": "a", "x": 1 }, "text": "b" },
        ]);
        let kept = json!([
            { "type": "text", "text": "a" },
            { "type": "resource", "resource": { "uri": "u", "text": "a" } },
        ]);
        assert_eq!(pruned(blocks), Ok((kept, 4)));
    }

    #[test]
    fn messages_and_contents_leave_without_what_the_protocol_does_not_name() {
        let text = json!({ "type": "text", "text": "a", "x": 1 });
        let mut messages = [json!({ "role": "user", "content": text, "priority": 1 })];
        assert_eq!(prune_messages(&mut messages), Ok(2));
        assert_eq!(messages, [json!({ "role": "user", "content": { "type": "text", "text": "a" } })]);
        let mut contents =
            [json!({ "uri": "a:b", "text": "t", "x": 1 }), json!({ "uri": "a:c", "blob": "AA==" })];
        assert_eq!(prune_contents(&mut contents), Ok(1));
        assert_eq!(contents[0], json!({ "uri": "a:b", "text": "t" }));
        for (bad, said) in [
            (json!({ "role": "system", "content": text }), "/0/role enum"),
            (json!({ "role": "user" }), "/0/content required"),
            (json!({ "role": "user", "content": [text] }), "/0/content type"),
            (json!({ "role": "user", "content": { "type": "video" } }), "/0/content/type enum"),
            (json!("user"), "/0 type"),
        ] {
            let BadBlock { at, rule } = prune_messages(&mut [bad]).unwrap_err();
            assert_eq!(format!("{at} {rule}"), said);
        }
        for (bad, said) in [
            (json!({ "text": "t" }), "/0/uri required"),
            (json!({ "uri": "a:b" }), "/0/text oneOf"),
            (json!({ "uri": "a:b", "text": "t", "blob": "AA==" }), "/0/text oneOf"),
            (json!(7), "/0/ type"),
        ] {
            let BadBlock { at, rule } = prune_contents(&mut [bad]).unwrap_err();
            assert_eq!(format!("{at} {rule}"), said);
        }
    }

    #[test]
    fn what_is_no_block_does_not_leave() {
        let bad = [
            json!(["text"]),
            json!([{ "text": "a" }]),
            json!([{ "type": "video", "data": "AA==", "mimeType": "video/mp4" }]),
            json!([{ "type": "text", "text": "a" }, { "type": "text" }]),
            json!([{ "type": "text", "text": ["a"] }]),
            json!([{ "type": "image", "data": "AA==" }]),
            json!([{ "type": "resource", "resource": "u" }]),
            json!([{ "type": "resource", "resource": { "uri": "u" } }]),
            json!([{ "type": "resource", "resource": { "uri": "u", "text": "a", "blob": "AA==" } }]),
            json!([{ "type": "resource", "resource": { "uri": "u", "text": 7 } }]),
            Value::Array(vec![json!({ "type": "text", "text": "" }); BLOCKS_MAX + 1]),
        ];
        let said: Vec<String> = bad.into_iter().map(|blocks| pruned(blocks).unwrap_err()).collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        /0 type
        /0/type enum
        /0/type enum
        /1/text required
        /0/text type
        /0/mimeType required
        /0/resource/ type
        /0/resource/text oneOf
        /0/resource/text oneOf
        /0/resource/text type
         maxItems
        ");
    }
}
