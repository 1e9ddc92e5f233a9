//! Resources and prompts in the protocol's own words.

use rmcp::{
    ErrorData,
    model::{
        CacheScope, CompleteResult, CompletionInfo, ErrorCode, GetPromptResponse, GetPromptResult,
        InputRequiredResult, MetaObject, Prompt, PromptArgument, ReadResourceResponse, ReadResourceResult,
        Resource, ResourceTemplate,
    },
};
use serde_json::{Value, json};

use super::wire::{faulty, unspeakable};
use crate::{
    call::CallId,
    catalog::Tool,
    gateway::{Answer, Notice, Reply},
    manifest::{BackendSpec, FileContent, Offer, OwnContent, URI_BYTES_MAX},
    output::Content,
};

/// Our own: what the guards did not let through, for what has no result that could say so.
pub(super) const REFUSED: ErrorCode = ErrorCode(-32003);

/// A resource as clients see it.
pub(super) fn wire_resource(tool: &Tool) -> Option<Resource> {
    let Offer::Resource(resource) = &tool.manifest().offer else { return None };
    let uri = resource.uri.as_ref()?;
    let mut wire = Resource::new(uri.as_str(), resource.resource.as_str())
        .with_description(resource.description.as_str());
    wire.title.clone_from(&resource.title);
    wire.mime_type.clone_from(&resource.mime_type);
    wire.size = size(tool);
    Some(wire)
}

/// How large a text of the project is.
fn size(tool: &Tool) -> Option<u64> {
    let BackendSpec::Own(own) = &tool.manifest().backend else { return None };
    let OwnContent::File { read: Some(read), .. } = &own.content else { return None };
    match &**read {
        FileContent::Text(text) => u64::try_from(text.len()).ok(),
        FileContent::Blob(_) => None,
    }
}

/// A template as clients see it.
pub(super) fn wire_template(tool: &Tool) -> Option<ResourceTemplate> {
    let Offer::Resource(resource) = &tool.manifest().offer else { return None };
    let template = resource.template.as_ref().filter(|_| resource.uri.is_none())?;
    let mut wire = ResourceTemplate::new(template.as_str(), resource.resource.as_str())
        .with_description(resource.description.as_str());
    wire.title.clone_from(&resource.title);
    wire.mime_type.clone_from(&resource.mime_type);
    Some(wire)
}

/// A prompt as clients see it.
pub(super) fn wire_prompt(tool: &Tool) -> Option<Prompt> {
    let Offer::Prompt(prompt) = &tool.manifest().offer else { return None };
    let arguments: Vec<PromptArgument> = prompt
        .arguments
        .iter()
        .map(|argument| {
            let mut wire = PromptArgument::new(argument.name.as_str()).with_required(argument.required);
            wire.title.clone_from(&argument.title);
            wire.description.clone_from(&argument.description);
            wire
        })
        .collect();
    let arguments = (!arguments.is_empty()).then_some(arguments);
    let mut wire = Prompt::new(prompt.prompt.as_str(), Some(prompt.description.as_str()), arguments);
    wire.title.clone_from(&prompt.title);
    Some(wire)
}

/// The reply to a read of a URI as clients see it.
pub(super) fn wire_read(reply: Reply, uri: &str) -> Result<ReadResourceResponse, ErrorData> {
    // MCP 2026-07-28 resources, "Error Handling". A hidden resource has the URI that was asked for, too.
    let data = (uri.len() <= URI_BYTES_MAX).then(|| json!({ "uri": uri }));
    let (answer, meta) = answered(reply, |message| ErrorData::resource_not_found(message, data))?;
    match answer.content {
        Content::Contents(contents) => {
            let contents = serde_json::from_value(contents).map_err(|_| unspeakable())?;
            let mut result = ReadResourceResult::new(contents);
            // Whether it may be read again is asked again.
            (result.ttl_ms, result.cache_scope) = (Some(0), Some(CacheScope::Private));
            result.meta = Some(meta);
            Ok(result.into())
        }
        content => Ok(asked(content, meta)?.into()),
    }
}

/// The reply to a request for a prompt as clients see it.
pub(super) fn wire_messages(
    reply: Reply,
    description: Option<String>,
) -> Result<GetPromptResponse, ErrorData> {
    let (answer, meta) = answered(reply, |message| ErrorData::invalid_params(message, None))?;
    match answer.content {
        Content::Messages(messages) => {
            let messages = serde_json::from_value(messages).map_err(|_| unspeakable())?;
            let mut result = GetPromptResult::new(messages);
            result.description = description;
            result.meta = Some(meta);
            Ok(result.into())
        }
        content => Ok(asked(content, meta)?.into()),
    }
}

/// The reply to a completion as clients see it.
pub(super) fn wire_completion(reply: Reply) -> Result<CompleteResult, ErrorData> {
    let (answer, meta) = answered(reply, |message| ErrorData::invalid_params(message, None))?;
    let Content::Completion { values, total, has_more } = answer.content else { return Err(unspeakable()) };
    let values = serde_json::from_value(values).map_err(|_| unspeakable())?;
    let total = total.and_then(|total| u32::try_from(total).ok());
    let info = CompletionInfo::new(values).map_err(|_| unspeakable())?;
    let mut result = CompleteResult::new(info);
    (result.completion.total, result.completion.has_more) = (total, has_more);
    result.meta = Some(meta);
    Ok(result)
}

/// The reply to what has no answer but that it was done.
pub(super) fn wire_done(reply: Reply) -> Result<(), ErrorData> {
    let (answer, _) = answered(reply, |message| ErrorData::resource_not_found(message, None))?;
    if matches!(answer.content, Content::Done) { Ok(()) } else { Err(unspeakable()) }
}

/// What the server behind the gate asks before it goes on. Nothing else is an answer here.
fn asked(content: Content, meta: MetaObject) -> Result<InputRequiredResult, ErrorData> {
    let Content::Questions { requests, state } = content else { return Err(unspeakable()) };
    let requests = serde_json::from_value(requests).map_err(|_| unspeakable())?;
    Ok(InputRequiredResult::new(Some(requests), state).with_meta(meta))
}

/// The answer and what is told beside it; else an error, since there is no result that says that it failed.
fn answered(
    reply: Reply,
    unknown: impl FnOnce(String) -> ErrorData,
) -> Result<(Answer, MetaObject), ErrorData> {
    let Reply { id, outcome, body } = reply;
    let record = id.as_ref().map(CallId::to_string);
    match body {
        Ok(answer) => {
            let mut meta = MetaObject::new();
            meta.0.extend(record.map(|record| ("callgate/record".to_owned(), Value::String(record))));
            meta.0.insert("callgate/outcome".into(), Value::String(outcome.word().into()));
            Ok((answer, meta))
        }
        // The same bytes whether it is hidden or does not exist: no id, no reason.
        Err(Notice::Unknown(message)) => Err(unknown(message)),
        Err(Notice::Refused { code, message, fault }) => {
            let mut data = json!({ "callgate/code": code, "callgate/outcome": outcome.word() });
            if let (Some(data), Some(record)) = (data.as_object_mut(), record) {
                data.insert("callgate/record".into(), Value::String(record));
            }
            if let Some(fault) = fault {
                return Err(faulty(fault, message, data));
            }
            // Arguments that do not fit are the protocol's own case (MCP 2026-07-28 prompts, "Error Handling").
            let number = if code == "arguments" { ErrorCode::INVALID_PARAMS } else { REFUSED };
            Err(ErrorData::new(number, message, Some(data)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Outcome;

    fn reply(body: Result<Answer, Notice>) -> Reply {
        Reply { id: None, outcome: Outcome::Denied, body }
    }

    #[test]
    fn what_does_not_exist_is_said_in_the_protocols_own_code_and_what_is_refused_in_ours() {
        let unknown = || reply(Err(Notice::Unknown("unknown".into())));
        let read = wire_read(unknown(), "a:b").unwrap_err();
        assert_eq!((read.code, read.data), (ErrorCode::RESOURCE_NOT_FOUND, Some(json!({ "uri": "a:b" }))));
        let long = wire_read(unknown(), &"a".repeat(URI_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(long.data, None);
        let got = wire_messages(unknown(), None).unwrap_err();
        assert_eq!((got.code, got.data), (ErrorCode::INVALID_PARAMS, None));
        let refused = reply(Err(Notice::Refused {
            code: "not_permitted",
            message: "not permitted".into(),
            fault: None,
        }));
        let refused = wire_read(refused, "a:b").unwrap_err();
        assert_eq!(
            (refused.code, refused.data.unwrap()["callgate/code"].clone()),
            (REFUSED, json!("not_permitted"))
        );
    }

    #[test]
    fn an_answer_of_another_kind_is_none() {
        let answer = |content| reply(Ok(Answer { content, removed: Vec::new() }));
        let wire_read = |reply| wire_read(reply, "a:b");
        assert!(wire_read(answer(Content::Messages(json!([])))).is_err());
        assert!(wire_messages(answer(Content::Contents(json!([]))), None).is_err());
        assert!(wire_read(answer(Content::Unchecked(json!({})))).is_err());
        assert!(wire_read(answer(Content::Contents(json!([{ "uri": "a:b", "text": "t" }])))).is_ok());
    }
}
