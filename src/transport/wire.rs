//! Tools and replies in the protocol's own words.

use std::sync::Arc;

use rmcp::{
    ErrorData,
    model::{
        CallToolResponse, CallToolResult, ContentBlock, ErrorCode, InputRequiredResult, MetaObject,
        Tool as WireTool, ToolAnnotations,
    },
};
use serde_json::{Map, Value, json};

use crate::{
    catalog::Tool,
    gateway::{Answer, Fault, Notice, Reply},
    manifest::{Effects, Reach},
    output::{Content, Removal},
};

/// A tool as clients see it.
pub(super) fn wire_tool(tool: &Tool) -> WireTool {
    let manifest = tool.manifest();
    let annotations = ToolAnnotations::from_raw(
        manifest.title.clone(),
        Some(manifest.effects == Effects::Read),
        Some(manifest.effects == Effects::Destructive),
        Some(manifest.idempotent),
        Some(manifest.reach == Reach::External),
    );
    let mut wire =
        WireTool::new(tool.name().to_string(), manifest.description.clone(), Arc::clone(tool.input_schema()))
            .with_annotations(annotations);
    wire.title.clone_from(&manifest.title);
    wire.output_schema = tool.output_schema().cloned();
    wire
}

/// A reply as clients see it. What a model can act on is a result; what does not exist is an error.
pub(super) fn wire_reply(reply: Reply) -> Result<CallToolResponse, ErrorData> {
    let Reply { id, outcome, body } = reply;
    let mut meta = MetaObject::new();
    if let Some(id) = id {
        meta.0.insert("callgate/record".into(), Value::String(id.to_string()));
    }
    meta.0.insert("callgate/outcome".into(), Value::String(outcome.word().into()));
    let mut result = match body {
        Ok(Answer { content: Content::Questions { requests, state }, .. }) => {
            let requests = serde_json::from_value(requests).map_err(|_| unspeakable())?;
            return Ok(InputRequiredResult::new(Some(requests), state).with_meta(meta).into());
        }
        Ok(answer) => wire_answer(answer, &mut meta)?,
        // The same bytes whether a tool is hidden or does not exist: no id, no reason.
        Err(Notice::Unknown(message)) => return Err(ErrorData::invalid_params(message, None)),
        Err(Notice::Refused { code, message, fault: Some(fault) }) => {
            meta.0.insert("callgate/code".into(), Value::String(code.into()));
            return Err(faulty(fault, message, Value::Object(meta.0)));
        }
        Err(Notice::Refused { code, message, fault: None }) => {
            meta.0.insert("callgate/code".into(), Value::String(code.into()));
            CallToolResult::error(vec![ContentBlock::text(message)])
        }
    };
    result.meta = Some(meta);
    Ok(result.into())
}

/// The protocol's own error for a request that its client has to mend; `data` is told beside it.
pub(super) fn faulty(fault: Fault, message: String, mut data: Value) -> ErrorData {
    match fault {
        Fault::Params => ErrorData::invalid_params(message, Some(data)),
        Fault::Abilities(needs) => {
            let needs: Map<String, Value> = needs.into_iter().map(|name| (name.into(), json!({}))).collect();
            if let Some(data) = data.as_object_mut() {
                data.insert("requiredCapabilities".into(), Value::Object(needs));
            }
            ErrorData::new(ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY, message, Some(data))
        }
    }
}

/// An answer that went through all checks and still does not fit the protocol's types.
pub(super) fn unspeakable() -> ErrorData {
    ErrorData::internal_error("the answer does not fit the protocol", None)
}

fn wire_answer(answer: Answer, meta: &mut MetaObject) -> Result<CallToolResult, ErrorData> {
    if let Content::Result(value) = answer.content {
        let mut result: CallToolResult = serde_json::from_value(value).map_err(|_| unspeakable())?;
        result.result_type = CallToolResult::default().result_type; // older servers do not say it
        return Ok(result);
    }
    let mut content = vec![ContentBlock::text(answer.value().to_string())];
    content.extend(removed(&answer.removed, meta));
    let mut result = CallToolResult::success(content);
    if let Content::Structured(value) = answer.content {
        result.structured_content = Some(value);
    }
    Ok(result)
}

/// Says which fields are not shown, and why.
fn removed(removed: &[Removal], meta: &mut MetaObject) -> Option<ContentBlock> {
    if removed.is_empty() {
        return None;
    }
    let why = removed.iter().map(|removal| {
        let policies: Vec<&str> = removal.policies.iter().map(|policy| policy.id.as_str()).collect();
        json!({ "label": removal.label, "policies": policies })
    });
    meta.0.insert("callgate/removed".into(), Value::Array(why.collect()));
    let labels: Vec<&str> = removed.iter().map(|removal| removal.label.as_str()).collect();
    Some(ContentBlock::text(format!("(fields labelled {} are not shown)", labels.join(", "))))
}
