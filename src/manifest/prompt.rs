//! `tools/**/*.yaml` that begin with `prompt:`: a prompt.

use std::{collections::BTreeSet, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Ask, BackendSpec, CredentialChoice, Deliberate, Digest, Effects, McpBackend, Offer, OwnBackend,
    OwnContent, Reach, Scope, ServiceName, TextRules, ToolLimits, ToolManifest, ToolName, ToolRecord,
    UpstreamKind, Yields,
};

/// How long an argument of a prompt may be.
const ARGUMENT_CHARS_MAX: usize = 16_384;

/// One prompt: what a client sees of it, and who writes its messages.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "A Callgate prompt")]
pub struct PromptManifest {
    /// The prompt's name, as clients see it.
    pub prompt: ToolName,
    /// A short name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What the prompt is for.
    #[schemars(length(min = 1, max = 4096))]
    pub description: String,
    /// Its arguments, all of them texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub arguments: Vec<PromptArgumentSpec>,
    /// Where its arguments can end up. Left out, anywhere, unless the project holds its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
    /// Whether its messages may hold text that strangers wrote. Left out, they may.
    #[serde(default)]
    pub yields: Yields,
    /// The scopes a caller must hold, all of them.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// Who writes its messages.
    pub backend: PromptBackend,
    /// The credential of `callgate.yaml` that requests carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialChoice>,
    /// Bounds on each request.
    #[serde(default)]
    pub limits: ToolLimits,
    /// What becomes of text that is not what it seems.
    #[serde(default)]
    pub text: TextRules,
    /// What the record of its requests holds.
    #[serde(default, skip_serializing_if = "ToolRecord::is_default")]
    pub record: ToolRecord,
}

/// An argument of a prompt.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PromptArgumentSpec {
    /// Its name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// A short name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether a request must bring it.
    #[serde(default)]
    pub required: bool,
    /// Values that clients are offered while it is written. Others are taken as well. Left out, another MCP server
    /// is asked for its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub suggestions: Vec<String>,
}

/// Who writes the messages of a prompt.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum PromptBackend {
    /// Another MCP server.
    Mcp(McpPromptBackend),
    /// The project.
    Text(TextBackend),
}

/// A prompt of another MCP server, as it was reviewed.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct McpPromptBackend {
    /// The upstream of `callgate.yaml` that answers.
    pub upstream: ServiceName,
    /// The prompt's name there.
    #[schemars(length(min = 1, max = 128))]
    pub prompt: String,
    /// The digest of the whole prompt, as the upstream listed it when it was reviewed.
    pub definition: Digest,
    /// What the upstream may ask the caller on the way. Left out, nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<Ask>,
}

/// The messages of a prompt.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TextBackend {
    /// The messages, in order.
    #[schemars(length(min = 1, max = 64))]
    pub messages: Vec<PromptMessageSpec>,
}

/// A message of a prompt.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PromptMessageSpec {
    /// Who says it.
    pub role: PromptRole,
    /// Its text, in which `{argument}` stands for an argument.
    pub text: String,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptRole {
    /// The user.
    User,
    /// The model.
    Assistant,
}

impl PromptRole {
    /// The word that stands for it on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl PromptMessageSpec {
    /// The arguments that its text names.
    #[must_use]
    pub fn named(&self) -> BTreeSet<&str> {
        pieces(&self.text).filter_map(|piece| piece.err()).collect()
    }

    /// Its text, with arguments in their places; one that was not brought leaves its place empty. What an
    /// argument says is never looked at again.
    #[must_use]
    pub fn filled(&self, arguments: &Map<String, Value>) -> String {
        let value = |name| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
        pieces(&self.text).map(|piece| piece.unwrap_or_else(value)).collect()
    }
}

/// The pieces of a text: words (`Ok`) and the names of arguments (`Err`). A brace that begins no name is a brace.
fn pieces(text: &str) -> impl Iterator<Item = Result<&str, &str>> {
    let mut rest = text;
    let mut name = None;
    std::iter::from_fn(move || {
        if let Some(name) = name.take() {
            return Some(Err(name));
        }
        if rest.is_empty() {
            return None;
        }
        let mut from = 0;
        while let Some(at) = rest.get(from..).and_then(|rest| rest.find('{')).map(|at| at + from) {
            let inside = rest.get(at + 1..).unwrap_or_default();
            if let Some((found, after)) = inside.split_once('}')
                && is_name(found)
            {
                let words = rest.get(..at).unwrap_or_default();
                (rest, name) = (after, Some(found));
                return Some(Ok(words));
            }
            from = at + 1;
        }
        Some(Ok(std::mem::take(&mut rest)))
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

impl PromptManifest {
    /// The name by which the guards know it: one that no tool can have.
    #[must_use]
    pub fn name(&self) -> ToolName {
        ToolName::reserved("prompt", &self.prompt)
    }

    /// The prompt as the guards see it: a tool that reads.
    #[must_use]
    pub fn into_tool(self) -> ToolManifest {
        let (backend, usual) = match &self.backend {
            PromptBackend::Mcp(mcp) => {
                let mcp = McpBackend {
                    upstream: mcp.upstream.clone(),
                    tool: mcp.prompt.clone(),
                    definition: mcp.definition,
                    asks: mcp.asks.clone(),
                    kind: UpstreamKind::Prompt,
                };
                (BackendSpec::Mcp(mcp), Reach::External)
            }
            PromptBackend::Text(text) => {
                let content = OwnContent::Messages(text.messages.clone());
                (BackendSpec::Own(OwnBackend::new(content)), Reach::None)
            }
        };
        ToolManifest {
            tool: self.name(),
            title: self.title.clone(),
            description: self.description.clone(),
            effects: Effects::Read,
            idempotent: true,
            reach: self.reach.unwrap_or(usual),
            yields: self.yields,
            scopes: self.scopes.clone(),
            input: self.input(),
            output: None,
            backend,
            credential: self.credential.clone(),
            limits: self.limits,
            task: super::TaskSupport::Never,
            text: self.text,
            record: self.record,
            undo: None,
            deliberately: vec![Deliberate::UncheckedOutput],
            examples: Vec::new(),
            offer: Offer::Prompt(Arc::new(self)),
        }
    }

    fn input(&self) -> Map<String, Value> {
        let property = |argument: &PromptArgumentSpec| {
            (argument.name.clone(), json!({ "type": "string", "maxLength": ARGUMENT_CHARS_MAX }))
        };
        let properties: Map<_, _> = self.arguments.iter().map(property).collect();
        let required = self.arguments.iter().filter(|argument| argument.required);
        let required: BTreeSet<&str> = required.map(|argument| argument.name.as_str()).collect();
        let schema = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        schema.as_object().cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Source, read};

    fn prompt(text: &str) -> Result<PromptManifest, String> {
        let source = Source { path: "p.yaml".into(), text: text.into() };
        read(&source).map_err(|problem| problem.message)
    }

    const WHOLE: &str = "prompt: review\ndescription: d\narguments: [{ name: code, required: true }, { name: style }]\nbackend: { text: { messages: [{ role: user, text: 'Review {code}' }] } }\n";

    #[test]
    fn arguments_are_texts_and_no_others_are_let_in() {
        let tool = prompt(WHOLE).unwrap().into_tool();
        assert_eq!((tool.tool.as_str(), tool.reach), ("prompt:review", Reach::None));
        let text = json!({ "type": "string", "maxLength": ARGUMENT_CHARS_MAX });
        let expected = json!({
            "type": "object",
            "properties": { "code": text, "style": text },
            "required": ["code"],
            "additionalProperties": false,
        });
        assert_eq!(Value::Object(tool.input), expected);
    }

    #[test]
    fn an_argument_takes_its_place_once_and_is_not_read_for_others() {
        let message = |text: &str| PromptMessageSpec { role: PromptRole::User, text: text.to_owned() };
        let arguments = json!({ "a": "{b}", "b": "B" }).as_object().unwrap().clone();
        for (text, filled) in [
            ("{a}{b}{c}.", "{b}B."),
            ("fn { {b} } {", "fn { B } {"),
            ("{ {a} {{b}} {}", "{ {b} {B} {}"),
            ("{a", "{a"),
            ("", ""),
            ("{é}", "{é}"),
        ] {
            assert_eq!(message(text).filled(&arguments), filled, "{text}");
        }
        assert_eq!(message("{a} {c} {a} { b }").named().into_iter().collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused_at_every_depth() {
        assert!(prompt(WHOLE).is_ok());
        for (from, to) in [
            ("description: d", "description: d\neffects: read"),
            ("{ name: style }", "{ name: style, type: integer }"),
            ("role: user", "role: system"),
            ("role: user", "role: user, image: x"),
            ("messages:", "message:"),
            ("prompt: review", "prompt: 'prompt:review'"),
        ] {
            assert!(prompt(&WHOLE.replace(from, to)).is_err(), "{to}");
        }
    }
}
