//! What the project answers by itself: files that are resources, and the messages of prompts.

use serde_json::{Map, Value, json};

use super::{Answer, BackendError, Body, PromptResult};
use crate::{
    call::Arguments,
    manifest::{BackendSpec, FileContent, Offer, OwnContent, ToolManifest},
};

/// Answers at once.
pub(super) fn answer(manifest: &ToolManifest, arguments: &Arguments) -> Result<Answer, BackendError> {
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
