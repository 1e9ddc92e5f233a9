//! A manifest, made of what a server says of one of its tools, resources or prompts.

use serde_json::{Map, Value};

use super::{
    super::visible::{escaped_json, visible},
    prompt, resource, tool,
};
use crate::{
    hygiene::clean_value,
    manifest::{Digest, ServiceName, ToolName, UpstreamKind},
    upstream::definition_digest,
};

/// A manifest for review.
pub(super) struct Draft {
    /// What it is of.
    pub(super) kind: UpstreamKind,
    /// Its name here.
    pub(super) name: String,
    /// How the upstream names it: by a name, a URI or a template.
    pub(super) there: String,
    /// The digest of its definition there.
    pub(super) definition: Digest,
    /// The manifest, or why there can be none.
    pub(super) text: Result<String, String>,
    /// The definition as it was, for later comparison.
    pub(super) reviewed: String,
    /// What a reviewer should know.
    pub(super) notes: Vec<String>,
}

/// What a server says of one thing.
pub(super) struct Said<'a> {
    pub(super) upstream: &'a ServiceName,
    /// Its name here.
    pub(super) name: &'a str,
    /// How the upstream names it.
    pub(super) there: &'a str,
    pub(super) digest: Digest,
    /// All that it says.
    pub(super) definition: &'a Map<String, Value>,
    /// The same, without what no reader sees.
    pub(super) shown: Value,
}

impl Draft {
    /// `called` is what its name here is made of.
    pub(super) fn new(
        upstream: &ServiceName,
        kind: UpstreamKind,
        called: &str,
        definition: &Map<String, Value>,
    ) -> Self {
        let there = named(kind, definition);
        let digest = definition_digest(definition);
        let reviewed = serde_json::to_string_pretty(definition).unwrap_or_default();
        let mut notes = Vec::new();
        let (name, text) = match name_here(upstream, called) {
            Ok(name) => {
                let text = Said::new(upstream, &name, there, definition, &mut notes)
                    .and_then(|said| said.manifest(kind, &mut notes));
                (name, text)
            }
            Err(why) => (format!("{upstream}.?"), Err(why)),
        };
        Self {
            kind,
            name,
            there: there.to_owned(),
            definition: digest,
            text,
            reviewed: escaped_json(&reviewed) + "\n",
            notes,
        }
    }

    pub(super) fn refuse(&mut self, why: &str) {
        self.text = Err(why.to_owned());
    }

    /// What it offers here.
    pub(super) const fn word(&self) -> &'static str {
        word(self.kind)
    }

    /// The name of its files, without an ending.
    pub(super) fn stem(&self) -> String {
        match self.kind {
            UpstreamKind::Tool => self.name.clone(),
            UpstreamKind::Resource | UpstreamKind::Template | UpstreamKind::Prompt => {
                format!("{}-{}", self.word(), self.name)
            }
        }
    }
}

impl<'a> Said<'a> {
    fn new(
        upstream: &'a ServiceName,
        name: &'a str,
        there: &'a str,
        definition: &'a Map<String, Value>,
        notes: &mut Vec<String>,
    ) -> Result<Self, String> {
        let mut shown = Value::Object(definition.clone());
        let hidden = clean_value(&mut shown).map_err(|collision| collision.to_string())?;
        if !hidden.is_clean() {
            notes.push(format!("the server's text holds {hidden}, which no reader sees: removed"));
        }
        Ok(Self { upstream, name, there, digest: definition_digest(definition), definition, shown })
    }

    fn manifest(&self, kind: UpstreamKind, notes: &mut Vec<String>) -> Result<String, String> {
        match kind {
            UpstreamKind::Tool => tool::manifest(self, notes),
            UpstreamKind::Resource => resource::manifest(self, resource::Key::Uri, notes),
            UpstreamKind::Template => resource::manifest(self, resource::Key::Template, notes),
            UpstreamKind::Prompt => prompt::manifest(self, notes),
        }
    }

    /// A text of it, where it says something.
    pub(super) fn text(&self, pointer: &str) -> Option<&str> {
        self.shown.pointer(pointer).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
    }

    /// What it is for, which every manifest says.
    pub(super) fn description(&self) -> &str {
        self.text("/description").unwrap_or("(the server says nothing of it)")
    }

    /// The lines above a manifest.
    pub(super) fn head(&self, what: &str, whose: &str, notes: &[String]) -> Vec<String> {
        let (there, upstream) = (visible(self.there), self.upstream);
        let mut lines = vec![
            format!("# Made by `callgate import` of the {what} `{there}` of `{upstream}`, for review."),
            format!("# {whose}"),
        ];
        lines.extend(notes.iter().map(|note| format!("# - {}", visible(note))));
        lines
    }
}

/// The word for such a thing here.
pub(super) const fn word(kind: UpstreamKind) -> &'static str {
    match kind {
        UpstreamKind::Tool => "tool",
        UpstreamKind::Resource | UpstreamKind::Template => "resource",
        UpstreamKind::Prompt => "prompt",
    }
}

/// How a server names something that it lists. Empty where it does not.
pub(super) fn named(kind: UpstreamKind, definition: &Map<String, Value>) -> &str {
    definition.get(kind.key()).and_then(Value::as_str).unwrap_or_default()
}

/// `UPSTREAM.NAME`, in characters that a name may have.
fn name_here(upstream: &ServiceName, called: &str) -> Result<String, String> {
    if called.is_empty() {
        return Err("it has no name".to_owned());
    }
    let name = format!("{upstream}.{}", plain(called));
    ToolName::parse(&name).map(|name| name.to_string()).map_err(|error| error.to_string())
}

/// A text in characters that a name may have.
pub(super) fn plain(text: &str) -> String {
    let plain = |character: char| {
        if character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.') {
            character
        } else {
            '_'
        }
    };
    text.chars().map(plain).collect()
}

/// A text in quotes, as JSON and YAML both read it.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// JSON over several lines, below a key.
pub(super) fn block(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    format!("\n  {}", text.replace('\n', "\n  "))
}
