//! `tools/**/*.yaml`: what a tool is, as its developer claims it.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use super::{
    ByteSize, ClientName, CredentialName, Digest, Expectation, Offer, OwnBackend, Rate, Scope, ServiceName,
    TaskSupport, TimeSpan, ToolName, ToolRecord, UpstreamKind, join_pointer, path::PathTemplate,
};

/// One tool: what a client sees of it, and how the gate carries its calls out.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "A Callgate tool")]
pub struct ToolManifest {
    /// The tool's name, as clients see it.
    pub tool: ToolName,
    /// A short name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What the tool does, for the model that decides whether to call it.
    #[schemars(length(min = 1, max = 4096))]
    pub description: String,
    /// What a call changes. Left out, a call is taken to destroy.
    #[serde(default)]
    pub effects: Effects,
    /// Whether a second call with the same arguments changes nothing more.
    #[serde(default)]
    pub idempotent: bool,
    /// Where what the tool is given can end up. Left out, anywhere.
    #[serde(default)]
    pub reach: Reach,
    /// Whether its answer may carry text that strangers wrote. Left out, it may.
    #[serde(default)]
    pub yields: Yields,
    /// The scopes a caller must hold, all of them.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// The JSON Schema 2020-12 of the arguments: an object.
    pub input: Map<String, Value>,
    /// The JSON Schema 2020-12 of the answer. What it does not name does not leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Map<String, Value>>,
    /// Where calls go.
    pub backend: BackendSpec,
    /// The credential of `callgate.yaml` that calls carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialChoice>,
    /// Bounds on each call.
    #[serde(default)]
    pub limits: ToolLimits,
    /// Whether a call is answered with a task, whose result is fetched later. Left out, never.
    #[serde(default, skip_serializing_if = "TaskSupport::is_never")]
    pub task: TaskSupport,
    /// What becomes of text that is not what it seems.
    #[serde(default)]
    pub text: TextRules,
    /// What the record of its calls holds.
    #[serde(default, skip_serializing_if = "ToolRecord::is_default")]
    pub record: ToolRecord,
    /// The call that takes a call of this tool back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Undo>,
    /// Choices that look like mistakes, and are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliberately: Vec<Deliberate>,
    /// Calls and what should become of them; `callgate test` runs them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
    /// What it is to clients: resources and prompts pass the guards as tools, made of manifests of their own.
    #[serde(skip)]
    pub offer: Offer,
}

impl ToolManifest {
    /// The name of what it offers, as clients see it: not the one by which the guards tell all of it apart.
    #[must_use]
    pub fn offered(&self) -> &ToolName {
        match &self.offer {
            Offer::Tool => &self.tool,
            Offer::Resource(resource) => &resource.resource,
            Offer::Prompt(prompt) => &prompt.prompt,
        }
    }

    /// What it offers, in words: `` tool `a` ``.
    #[must_use]
    pub fn said(&self) -> String {
        format!("{} `{}`", self.offer.word(), self.offered())
    }
}

/// What a call changes, from the most harmless.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effects {
    /// Nothing.
    Read,
    /// Something that can be put right again.
    Write,
    /// Something that may be gone for good.
    #[default]
    Destructive,
}

/// Where what a tool is given can end up, from the nearest.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Nowhere: it is used for the answer only.
    None,
    /// Within the organisation.
    Internal,
    /// With outsiders.
    #[default]
    External,
}

/// Who may have written what is in an answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Yields {
    /// Only those who are trusted to write it.
    Trusted,
    /// Strangers too, who may address the model.
    #[default]
    Untrusted,
}

macro_rules! words {
    ($name:ident { $($variant:ident => $word:literal),+ }) => {
        impl $name {
            /// The word that stands for it in files and policies.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words!(Effects { Read => "read", Write => "write", Destructive => "destructive" });
words!(Reach { None => "none", Internal => "internal", External => "external" });
words!(Yields { Trusted => "trusted", Untrusted => "untrusted" });

/// Where a tool's calls go.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum BackendSpec {
    /// An HTTP API.
    Http(HttpBackend),
    /// A tool of another MCP server.
    Mcp(McpBackend),
    /// The project itself: for files and prompts, and not for tools.
    #[serde(skip)]
    Own(OwnBackend),
}

impl BackendSpec {
    /// The service that answers.
    #[must_use]
    pub const fn service(&self) -> &ServiceName {
        match self {
            Self::Http(http) => &http.service,
            Self::Mcp(mcp) => &mcp.upstream,
            Self::Own(own) => &own.service,
        }
    }

    /// The key of a manifest that names the service, as a JSON pointer.
    #[must_use]
    pub const fn service_pointer(&self) -> &'static str {
        match self {
            Self::Http(_) => "/backend/http/service",
            Self::Mcp(_) => "/backend/mcp/upstream",
            Self::Own(_) => "/backend",
        }
    }
}

/// A tool of another MCP server, as it was reviewed.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct McpBackend {
    /// The upstream of `callgate.yaml` that answers.
    pub upstream: ServiceName,
    /// The tool's name there.
    #[schemars(length(min = 1, max = 128))]
    pub tool: String,
    /// The digest of the whole tool, as the upstream listed it when it was reviewed.
    pub definition: Digest,
    /// What the upstream may ask the caller during a call. Left out, nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<Ask>,
    /// What it is there: `tool` holds the URI of a resource, or a template, or the name of a prompt.
    #[serde(skip)]
    pub kind: UpstreamKind,
}

/// Something that an upstream may ask a caller.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// A completion by the caller's model (`sampling/createMessage`).
    Sampling,
    /// Something that its user fills in (`elicitation/create`).
    Elicitation,
    /// The folders that it works in (`roots/list`).
    Roots,
}

/// One request to an HTTP API, made of arguments.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpBackend {
    /// The service of `callgate.yaml` that answers.
    pub service: ServiceName,
    /// The request method.
    pub method: HttpMethod,
    /// The path below the service's base URL; `{argument}` fills one segment.
    pub path: PathTemplate,
    /// Query parameters: arguments by name, or `parameter: argument`.
    #[serde(default, skip_serializing_if = "Binding::is_empty")]
    pub query: Binding,
    /// Request headers: `header: argument`.
    #[serde(default, skip_serializing_if = "Binding::is_empty")]
    pub headers: Binding,
    /// Members of the JSON body: arguments by name, or `member: argument`.
    #[serde(default, skip_serializing_if = "Binding::is_empty")]
    pub body: Binding,
}

/// A request method (RFC 9110 §9).
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// Read.
    Get,
    /// Read, without an answer's body.
    Head,
    /// Do.
    Post,
    /// Put in place.
    Put,
    /// Change in part.
    Patch,
    /// Delete.
    Delete,
}

impl HttpMethod {
    /// Whether the method promises to change nothing (RFC 9110 §9.2.1).
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }

    /// The method as it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Which argument goes where: pairs of (name outside, argument), in the order they were written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Binding(Vec<(String, String)>);

impl Binding {
    /// Whether nothing is bound.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs of (name outside, argument).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(outside, argument)| (outside.as_str(), argument.as_str()))
    }
}

impl<'de> Deserialize<'de> for Binding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Binding;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of argument names, or a mapping of names to argument names")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Binding, A::Error> {
                let mut pairs = Vec::new();
                while let Some(argument) = list.next_element::<String>()? {
                    pairs.push((argument.clone(), argument));
                }
                Ok(Binding(pairs))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Binding, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Binding(pairs))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for Binding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl JsonSchema for Binding {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Binding".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Which argument goes where.",
            "oneOf": [
                { "type": "array", "items": { "type": "string" }, "description": "Arguments, each under its own name." },
                { "type": "object", "additionalProperties": { "type": "string" }, "description": "The name outside, and the argument." }
            ]
        })
    }
}

/// Which credential goes along: one for everybody, or one by client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CredentialChoice {
    /// One for everybody.
    One(CredentialName),
    /// One by client.
    ByClient {
        /// For the clients that are not named. Left out, they may not call.
        default: Option<CredentialName>,
        /// For those that are.
        clients: BTreeMap<ClientName, CredentialName>,
    },
}

impl CredentialChoice {
    /// The credential that goes with a client's calls.
    #[must_use]
    pub fn of(&self, client: &str) -> Option<&CredentialName> {
        match self {
            Self::One(name) => Some(name),
            Self::ByClient { default, clients } => clients.get(client).or(default.as_ref()),
        }
    }

    /// All credentials that it names, each with the client it is for and its place below `/credential`.
    #[must_use]
    pub fn named(&self) -> Vec<(String, Option<&ClientName>, &CredentialName)> {
        match self {
            Self::One(name) => vec![(String::new(), None, name)],
            Self::ByClient { default, clients } => {
                let default = default.iter().map(|name| ("/default".to_owned(), None, name));
                let clients = clients
                    .iter()
                    .map(|(client, name)| (join_pointer("/for", client.as_str()), Some(client), name));
                default.chain(clients).collect()
            }
        }
    }
}

/// How a choice by client is written.
#[derive(Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ByClient {
    /// The credential of the clients that are not named. Left out, they may not call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default: Option<CredentialName>,
    /// The credentials of those that are.
    #[serde(rename = "for")]
    clients: BTreeMap<ClientName, CredentialName>,
}

impl<'de> Deserialize<'de> for CredentialChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = CredentialChoice;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a credential, or `{ default: NAME, for: { CLIENT: NAME } }`")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<CredentialChoice, E> {
                CredentialName::parse(name).map(CredentialChoice::One).map_err(E::custom)
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<CredentialChoice, A::Error> {
                let ByClient { default, clients } =
                    ByClient::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(CredentialChoice::ByClient { default, clients })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for CredentialChoice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(name) => name.serialize(serializer),
            Self::ByClient { default, clients } => {
                ByClient { default: default.clone(), clients: clients.clone() }.serialize(serializer)
            }
        }
    }
}

impl JsonSchema for CredentialChoice {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CredentialChoice".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Which credential goes along: one for everybody, or one by client.",
            "oneOf": [generator.subschema_for::<CredentialName>(), generator.subschema_for::<ByClient>()]
        })
    }
}

/// Bounds on each call of a tool.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ToolLimits {
    /// How long the backend may take. Left out, the service's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TimeSpan>,
    /// How large the backend's answer may be. Left out, the service's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ByteSize>,
    /// How often one client may call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// What becomes of text that holds tag characters, bidi controls, invisible characters, escape
/// sequences or control characters.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TextRules {
    /// Of a call's arguments.
    #[serde(default = "refuse")]
    pub arguments: TextRule,
    /// Of the backend's answer.
    #[serde(default = "remove")]
    pub answers: TextRule,
}

impl Default for TextRules {
    fn default() -> Self {
        Self { arguments: refuse(), answers: remove() }
    }
}

const fn refuse() -> TextRule {
    TextRule::Refuse
}
const fn remove() -> TextRule {
    TextRule::Remove
}

/// What becomes of such text.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextRule {
    /// The call is denied, or the answer withheld.
    Refuse,
    /// The characters are removed, counted on record.
    Remove,
}

/// The call that takes a call back: a new call through every guard.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Undo {
    /// The tool that undoes.
    pub tool: ToolName,
    /// Its arguments, each a JSON pointer below `/arguments` or `/result`.
    #[serde(default)]
    pub arguments: BTreeMap<String, String>,
}

/// A choice that looks like a mistake and is said on purpose.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deliberate {
    /// `effects: read` with a method other than GET or HEAD.
    ReadsByOtherMethods,
    /// No `output`: the answer leaves unchecked and unshaped.
    UncheckedOutput,
    /// Strings and arrays of the input without an upper bound.
    UnboundedInput,
}

/// A call, and what should become of it.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Example {
    /// Who calls.
    pub client: ClientName,
    /// The arguments.
    #[serde(default)]
    pub arguments: Map<String, Value>,
    /// What should become of the call.
    pub expect: Expectation,
}
