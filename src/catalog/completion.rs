//! What can be completed, and as which call the guards see that.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Catalog, Tool};
use crate::{
    call::{Arguments, CallKind, Completed, Completion},
    hygiene,
    manifest::{Offer, UriTemplate},
};

impl Catalog {
    /// The completion of an argument, where the others have been written so far.
    ///
    /// The guards see the call that it is going to be: what has not been written yet is empty.
    #[must_use]
    pub fn completion(&self, of: Completed, argument: String, written: BTreeMap<String, String>) -> CallKind {
        let text = |text: &String| Value::String(text.clone());
        let arguments = match (&of, self.completed(&of).map(|tool| &tool.manifest().offer)) {
            (Completed::Template(_), Some(Offer::Resource(resource))) => {
                let uri = resource.template.as_ref().and_then(|template| filled(template, &written));
                Arguments::uri(&uri.unwrap_or_default())
            }
            (Completed::Prompt(_), Some(Offer::Prompt(prompt))) => {
                let required = prompt.arguments.iter().filter(|argument| argument.required);
                let empty = required.map(|argument| (argument.name.clone(), Value::String(String::new())));
                let mut arguments: Map<_, _> = empty.collect();
                arguments.extend(written.iter().map(|(name, value)| (name.clone(), text(value))));
                arguments.into()
            }
            // It is going to be refused.
            _ => Map::new().into(),
        };
        CallKind::Completion(Completion { of, argument, written, arguments })
    }

    /// Whether there is something that `is_asked` says can be completed, or that the project itself completes.
    #[must_use]
    pub fn completes(&self, is_asked: impl Fn(&Tool) -> bool) -> bool {
        let offers = self.resources.values().chain(self.prompts.values()).filter(|tool| tool.is_visible());
        offers.filter(|tool| has_arguments(tool)).any(|tool| has_suggestions(tool) || is_asked(tool))
    }

    /// What has the argument, whoever may see it.
    pub(super) fn completed(&self, of: &Completed) -> Option<&std::sync::Arc<Tool>> {
        match of {
            Completed::Prompt(name) => self.prompt(name),
            Completed::Template(written) => {
                self.resources.values().find(|tool| match &tool.manifest().offer {
                    Offer::Resource(resource) => {
                        resource.template.as_ref().is_some_and(|template| template.as_str() == written)
                    }
                    Offer::Tool | Offer::Prompt(_) => false,
                })
            }
        }
    }
}

/// Whether an argument of something can be completed: it has it, and what has been written could be in a call.
pub(super) fn can_be_completed(tool: &Tool, completion: &Completion) -> bool {
    match &tool.manifest().offer {
        Offer::Resource(resource) => {
            let template = resource.template.as_ref();
            template.is_some_and(|template| filled(template, &completion.written).is_some())
        }
        Offer::Prompt(prompt) => prompt.arguments.iter().any(|it| it.name == completion.argument),
        Offer::Tool => false,
    }
}

/// A URI hides in its encodings what its reader does not see, so what has been written is looked at before.
fn filled(template: &UriTemplate, written: &BTreeMap<String, String>) -> Option<String> {
    let is_seen = written.values().all(|value| hygiene::inspect(value).is_clean());
    if is_seen { template.filled(written) } else { None }
}

fn has_arguments(tool: &Tool) -> bool {
    match &tool.manifest().offer {
        Offer::Resource(resource) => resource.template.is_some(),
        Offer::Prompt(prompt) => !prompt.arguments.is_empty(),
        Offer::Tool => false,
    }
}

fn has_suggestions(tool: &Tool) -> bool {
    match &tool.manifest().offer {
        Offer::Prompt(prompt) => prompt.arguments.iter().any(|argument| !argument.suggestions.is_empty()),
        Offer::Resource(_) | Offer::Tool => false,
    }
}
