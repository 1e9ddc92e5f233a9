//! What the project answers by itself: files that are resources, and the messages of prompts.

use serde_json::{Map, Value, json};

use super::{Answer, BackendError, Body, COMPLETIONS_MAX, CompletionResult, PromptResult};
use crate::{
    call::{Arguments, Call, CallKind, Completion},
    manifest::{BackendSpec, FileContent, Offer, OwnContent, ToolManifest},
};

/// Answers at once.
pub(super) fn answer(manifest: &ToolManifest, call: &Call) -> Result<Answer, BackendError> {
    match &call.kind {
        CallKind::Completion(completion) => {
            let nothing = || done(Body::Completion(CompletionResult::default()));
            Ok(suggested(manifest, completion).unwrap_or_else(nothing))
        }
        // It changes with the release alone, of which its subscribers hear by themselves.
        CallKind::Subscription { .. } => Ok(done(Body::Done)),
        kind => content(manifest, kind.arguments()),
    }
}

/// What the manifest says that an argument could be, where it says so.
pub(super) fn suggested(manifest: &ToolManifest, completion: &Completion) -> Option<Answer> {
    let Offer::Prompt(prompt) = &manifest.offer else { return None };
    let argument = prompt.arguments.iter().find(|argument| argument.name == completion.argument)?;
    if argument.suggestions.is_empty() {
        return None;
    }
    let written = completion.written.get(&completion.argument).map_or("", String::as_str);
    let mut fitting = argument.suggestions.iter().filter(|value| value.starts_with(written));
    let values: Vec<Value> =
        fitting.by_ref().take(COMPLETIONS_MAX).map(|value| value.as_str().into()).collect();
    let more = fitting.count();
    let total = u64::try_from(values.len() + more).ok();
    Some(done(Body::Completion(CompletionResult { values, total, has_more: Some(more > 0) })))
}

const fn done(body: Body) -> Answer {
    Answer { status: None, body, bytes: 0, peer: None }
}

fn content(manifest: &ToolManifest, arguments: &Arguments) -> Result<Answer, BackendError> {
    // A release holds no such manifest, and no file that was not read.
    let BackendSpec::Own(own) = &manifest.backend else { return Err(BackendError::NotMcp) };
    let (body, bytes) = match (&own.content, &manifest.offer) {
        (OwnContent::File { read: Some(read), .. }, Offer::Resource(resource)) => {
            let mut contents = Map::from_iter([("uri".to_owned(), Value::from(resource.written()))]);
            contents
                .extend(resource.mime_type.clone().map(|kind| ("mimeType".to_owned(), Value::String(kind))));
            let (key, text) = match &**read {
                FileContent::Text(text) => ("text", text),
                FileContent::Blob(blob) => ("blob", blob),
            };
            contents.insert(key.to_owned(), Value::String(text.clone()));
            (Body::Contents(vec![Value::Object(contents)]), text.len())
        }
        (OwnContent::Messages(messages), Offer::Prompt(prompt)) => {
            let filled: Vec<_> = messages.iter().map(|message| message.filled(arguments.as_map())).collect();
            let bytes = filled.iter().map(String::len).sum();
            let messages = messages.iter().zip(filled).map(|(message, text)| {
                json!({ "role": message.role.word(), "content": { "type": "text", "text": text } })
            });
            let description = Some(prompt.description.clone());
            (Body::Prompt(PromptResult { description, messages: messages.collect() }), bytes)
        }
        _ => return Err(BackendError::NotMcp),
    };
    Ok(Answer { status: None, body, bytes, peer: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::Completed,
        manifest::{PromptManifest, Source, read},
    };

    #[test]
    fn what_is_suggested_begins_with_what_was_written_and_is_a_hundred_values_at_most() {
        let many: Vec<String> = (0..150).map(|n| format!("a{n:03}")).collect();
        let text = format!(
            "prompt: p\ndescription: d\narguments: [{{ name: x, suggestions: [b1, {}] }}, {{ name: y }}]\nbackend: {{ text: {{ messages: [{{ role: user, text: t }}] }} }}\n",
            many.join(", ")
        );
        let source = Source { path: "p.yaml".into(), text: text.into() };
        let manifest = read::<PromptManifest>(&source).unwrap().into_tool();
        let suggested = |argument: &str, written: &str| {
            let written = [(argument.to_owned(), written.to_owned())].into();
            let arguments = Map::new().into();
            let of = Completed::Prompt("p".into());
            let answer =
                suggested(&manifest, &Completion { of, argument: argument.into(), written, arguments })?;
            let Body::Completion(found) = answer.body else { panic!("no completion") };
            Some((found.values.len(), found.total, found.has_more))
        };
        assert_eq!(suggested("x", "a"), Some((100, Some(150), Some(true))));
        assert_eq!(suggested("x", "a14"), Some((10, Some(10), Some(false))));
        assert_eq!(suggested("x", "B"), Some((0, Some(0), Some(false))));
        assert_eq!(suggested("y", "a"), None);
    }
}
