//! What the server offers, from `fixtures.json`: lists, and answers with places to fill in.

use std::collections::BTreeMap;

use rmcp::{
    ErrorData,
    model::{InputRequests, JsonObject, Prompt, Resource, ResourceTemplate, Tool},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// The tool that comes and goes.
pub(crate) const DYNAMIC_TOOL: &str = "test_dynamic_tool";
/// The prompt that comes and goes.
pub(crate) const DYNAMIC_PROMPT: &str = "test_dynamic_prompt";

/// Everything that is listed, read and answered.
#[derive(Deserialize)]
pub(crate) struct Fixtures {
    pub(crate) tools: Vec<Tool>,
    pub(crate) prompts: Vec<Prompt>,
    pub(crate) resources: Vec<Resource>,
    pub(crate) templates: Vec<ResourceTemplate>,
    answers: BTreeMap<String, Value>,
    interviews: BTreeMap<String, Interview>,
    messages: BTreeMap<String, Value>,
    contents: BTreeMap<String, Value>,
    completions: BTreeMap<String, Vec<String>>,
}

/// Questions that a tool or a prompt asks its caller before it answers.
#[derive(Clone, Deserialize)]
pub(crate) struct Interview {
    /// What the answer begins with.
    pub(crate) done: String,
    /// Whether the state between rounds travels with the caller.
    #[serde(default)]
    pub(crate) sealed: bool,
    /// Whether questions that the caller cannot answer are left out.
    #[serde(default)]
    pub(crate) optional: bool,
    /// What a task has to do with it.
    pub(crate) task: Option<TaskPart>,
    rounds: Vec<Value>,
}

/// What a task has to do with an interview.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TaskPart {
    /// The task asks the questions.
    Asks,
    /// The task begins when the last question is answered.
    Follows,
}

impl Fixtures {
    pub(crate) fn read() -> Result<Self, String> {
        serde_json::from_str(include_str!("fixtures.json")).map_err(|error| format!("fixtures.json: {error}"))
    }

    pub(crate) fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    pub(crate) fn interview(&self, name: &str) -> Option<&Interview> {
        self.interviews.get(name)
    }

    /// The answer of a tool.
    pub(crate) fn answer<T: DeserializeOwned>(
        &self,
        tool: &str,
        arguments: &JsonObject,
    ) -> Result<T, ErrorData> {
        filled(self.answers.get(tool), arguments).ok_or_else(|| unknown("tool", tool))
    }

    /// The messages of a prompt.
    pub(crate) fn messages<T: DeserializeOwned>(
        &self,
        prompt: &str,
        arguments: &JsonObject,
    ) -> Result<T, ErrorData> {
        filled(self.messages.get(prompt), arguments).ok_or_else(|| unknown("prompt", prompt))
    }

    /// The contents of a resource, from a template where there is none of this name.
    pub(crate) fn contents<T: DeserializeOwned>(&self, uri: &str) -> Option<T> {
        if let found @ Some(_) = self.contents.get(uri) {
            return filled(found, &JsonObject::new());
        }
        let (template, arguments) = self.templates.iter().find_map(|template| {
            let arguments = matched(&template.uri_template, uri)?;
            Some((&template.uri_template, arguments))
        })?;
        filled(self.contents.get(template), &arguments)
    }

    /// What completes an argument.
    pub(crate) fn completions(&self, argument: &str, begun: &str) -> Vec<String> {
        let all = self.completions.get(argument).into_iter().flatten();
        all.filter(|value| value.starts_with(begun)).cloned().collect()
    }
}

impl Interview {
    pub(crate) const fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// The questions of one round.
    pub(crate) fn questions(&self, round: usize, arguments: &JsonObject) -> Result<InputRequests, ErrorData> {
        filled(self.rounds.get(round), arguments)
            .ok_or_else(|| ErrorData::invalid_params("there is no such round of questions", None))
    }
}

fn unknown(what: &str, name: &str) -> ErrorData {
    ErrorData::invalid_params(format!("unknown {what} `{name}`"), None)
}

fn filled<T: DeserializeOwned>(value: Option<&Value>, arguments: &JsonObject) -> Option<T> {
    serde_json::from_value(fill(value?, arguments)).ok()
}

/// A value with `{name}` in its texts replaced by the argument of that name.
pub(crate) fn fill(value: &Value, arguments: &JsonObject) -> Value {
    match value {
        Value::String(text) => Value::String(fill_text(text, arguments)),
        Value::Array(items) => items.iter().map(|item| fill(item, arguments)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), fill(value, arguments)));
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

pub(crate) fn fill_text(text: &str, arguments: &JsonObject) -> String {
    arguments.iter().fold(text.to_owned(), |text, (name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.replace(&format!("{{{name}}}"), &value)
    })
}

/// The one argument of a URI template, if the URI fits it.
fn matched(template: &str, uri: &str) -> Option<JsonObject> {
    let (before, rest) = template.split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    let value = uri.strip_prefix(before)?.strip_suffix(after)?;
    Some(JsonObject::from_iter([(name.to_owned(), Value::from(value))]))
}
