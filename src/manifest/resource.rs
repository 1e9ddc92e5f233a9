//! `tools/**/*.yaml` that begin with `resource:`: a resource, or a template of resources.

use std::{path::PathBuf, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Ask, BackendSpec, CredentialChoice, Deliberate, Digest, Effects, McpBackend, Offer, OwnBackend,
    OwnContent, Reach, ResourceUri, Scope, ServiceName, TextRule, TextRules, ToolLimits, ToolManifest,
    ToolName, ToolRecord, UpstreamKind, UriTemplate, Yields, uri::URI_BYTES_MAX,
};

/// One resource, or one template of resources: what a client sees of it, and where it is read.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "A Callgate resource")]
pub struct ResourceManifest {
    /// The resource's name, as clients see it.
    pub resource: ToolName,
    /// Its URI; this or `template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<ResourceUri>,
    /// The template of the URIs of all resources that are read in this way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<UriTemplate>,
    /// A short name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What the resource is, for the model or the person that decides whether to read it.
    #[schemars(length(min = 1, max = 4096))]
    pub description: String,
    /// The media type of its contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// Where the URI that is asked for can end up. Left out, nowhere for a `uri`, which the caller does not
    /// choose; anywhere for a `template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
    /// Whether its contents may be text that strangers wrote. Left out, they may.
    #[serde(default)]
    pub yields: Yields,
    /// The scopes a caller must hold, all of them.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// Where it is read.
    pub backend: ResourceBackend,
    /// The credential of `callgate.yaml` that reads carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialChoice>,
    /// Bounds on each read.
    #[serde(default)]
    pub limits: ToolLimits,
    /// What becomes of text that is not what it seems. A URI that holds such is always refused.
    #[serde(default)]
    pub text: AnswerText,
    /// What the record of its reads holds.
    #[serde(default, skip_serializing_if = "ToolRecord::is_default")]
    pub record: ToolRecord,
}

/// Where a resource is read.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum ResourceBackend {
    /// At another MCP server, under the same URI.
    Mcp(McpResourceBackend),
    /// In a file of the project.
    File(FileBackend),
}

/// A resource of another MCP server, as it was reviewed.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct McpResourceBackend {
    /// The upstream of `callgate.yaml` that answers.
    pub upstream: ServiceName,
    /// The digest of the whole resource, or template, as the upstream listed it when it was reviewed.
    pub definition: Digest,
    /// What the upstream may ask the caller on the way. Left out, nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<Ask>,
}

/// A file of the project.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FileBackend {
    /// Its path below the folder `resources` beside `callgate.yaml`. It is read when the release is, and a part of
    /// it.
    pub path: PathBuf,
}

/// What becomes of such text in contents.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AnswerText {
    /// Of the contents.
    #[serde(default = "remove")]
    pub answers: TextRule,
}

const fn remove() -> TextRule {
    TextRule::Remove
}

impl Default for AnswerText {
    fn default() -> Self {
        Self { answers: remove() }
    }
}

impl ResourceManifest {
    /// The name by which the guards know it: one that no tool can have.
    #[must_use]
    pub fn name(&self) -> ToolName {
        ToolName::reserved("resource", &self.resource)
    }

    /// Its URI or template, as it was written. Empty where there is none.
    #[must_use]
    pub fn written(&self) -> &str {
        match (&self.uri, &self.template) {
            (Some(uri), _) => uri.as_str(),
            (None, Some(template)) => template.as_str(),
            (None, None) => "",
        }
    }

    /// Whether it is read under a URI.
    #[must_use]
    pub fn matches(&self, uri: &str) -> bool {
        match (&self.uri, &self.template) {
            (Some(own), _) => own.as_str() == uri,
            (None, Some(template)) => template.matches(uri),
            (None, None) => false,
        }
    }

    /// The resource as the guards see it: a tool that reads, and whose one argument is the URI.
    #[must_use]
    pub fn into_tool(self) -> ToolManifest {
        let usual = if self.uri.is_some() { Reach::None } else { Reach::External };
        let backend = match &self.backend {
            ResourceBackend::Mcp(mcp) => BackendSpec::Mcp(McpBackend {
                upstream: mcp.upstream.clone(),
                tool: self.written().to_owned(),
                definition: mcp.definition,
                asks: mcp.asks.clone(),
                kind: if self.uri.is_some() { UpstreamKind::Resource } else { UpstreamKind::Template },
            }),
            ResourceBackend::File(file) => {
                BackendSpec::Own(OwnBackend::new(OwnContent::File { path: file.path.clone(), read: None }))
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
            input: input(),
            output: None,
            backend,
            credential: self.credential.clone(),
            limits: self.limits,
            task: super::TaskSupport::Never,
            // The URI that was admitted is the URI that is sent.
            text: TextRules { arguments: TextRule::Refuse, answers: self.text.answers },
            record: self.record,
            undo: None,
            deliberately: vec![Deliberate::UncheckedOutput],
            examples: Vec::new(),
            offer: Offer::Resource(Arc::new(self)),
        }
    }
}

fn input() -> Map<String, Value> {
    let schema = json!({
        "type": "object",
        "properties": { "uri": { "type": "string", "maxLength": URI_BYTES_MAX } },
        "required": ["uri"],
        "additionalProperties": false,
    });
    schema.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Source, read};

    fn resource(text: &str) -> Result<ResourceManifest, String> {
        let source = Source { path: "r.yaml".into(), text: text.into() };
        read(&source).map_err(|problem| problem.message)
    }

    #[test]
    fn what_is_left_out_is_the_careful_choice() {
        let file = "description: d\nbackend: { file: { path: a.md } }\n";
        let fixed =
            resource(&format!("resource: handbook\nuri: docs://handbook\n{file}")).unwrap().into_tool();
        let many =
            resource(&format!("resource: pages\ntemplate: 'docs://{{page}}'\n{file}")).unwrap().into_tool();
        assert_eq!((fixed.tool.as_str(), many.tool.as_str()), ("resource:handbook", "resource:pages"));
        assert_eq!((fixed.reach, many.reach), (Reach::None, Reach::External));
        assert_eq!((fixed.effects, fixed.yields), (Effects::Read, Yields::Untrusted));
        assert_eq!(fixed.text.arguments, TextRule::Refuse);
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused_at_every_depth() {
        let whole = "resource: a\nuri: docs://a\ndescription: d\nbackend: { file: { path: a } }\n";
        assert!(resource(whole).is_ok());
        for (from, to) in [
            ("uri:", "url:"),
            ("description: d", "description: d\ntool: a"),
            ("description: d", "description: d\neffects: read"),
            ("description: d", "description: d\ntext: { arguments: remove }"),
            ("path: a", "path: a, mode: x"),
            ("resource: a", "resource: 'resource:a'"),
            ("file: { path: a }", "http: {}"),
        ] {
            assert!(resource(&whole.replace(from, to)).is_err(), "{to}");
        }
    }
}
