//! `policies/clients.yaml`: who may call, and what each of them is.

use std::collections::BTreeMap;

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AttributeName, ClientName, GroupName, IssuerName, KeyId, Network, Rate, RoleName, Scope};

/// The clients, what policies may ask of them, and who may approve.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "Callgate's clients")]
pub struct ClientsFile {
    /// The attributes that policies read, declared once, with their types.
    #[serde(default)]
    pub attributes: BTreeMap<AttributeName, AttributeSpec>,
    /// The clients by name.
    pub clients: BTreeMap<ClientName, ClientSpec>,
    /// The people of each approver group.
    #[serde(default)]
    pub approvers: BTreeMap<GroupName, Vec<String>>,
}

/// An attribute of every client.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AttributeSpec {
    /// The type of its values.
    #[serde(rename = "type")]
    pub kind: AttributeKind,
    /// The value of a client that states none. Without it, each client must state one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

/// The type of an attribute, as Cedar sees it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttributeKind {
    /// A whole number of 64 bits.
    Long,
    /// Text.
    String,
    /// True or false.
    Boolean,
    /// A set of texts.
    Strings,
}

impl AttributeKind {
    /// Whether a value is of this type.
    #[must_use]
    pub fn admits(self, value: &Value) -> bool {
        match self {
            Self::Long => value.as_i64().is_some(),
            Self::String => value.is_string(),
            Self::Boolean => value.is_boolean(),
            Self::Strings => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
        }
    }

    /// What a value of this type is, in words.
    #[must_use]
    pub const fn expected(self) -> &'static str {
        match self {
            Self::Long => "a whole number of 64 bits",
            Self::String => "a text",
            Self::Boolean => "`true` or `false`",
            Self::Strings => "a list of texts",
        }
    }
}

/// One client.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientSpec {
    /// Who answers for it. They may not approve its calls.
    pub owner: String,
    /// Its roles.
    #[serde(default)]
    pub roles: Vec<RoleName>,
    /// The scopes it holds.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// The allowlist: names and globs. What is not listed does not exist for it.
    #[serde(default)]
    pub tools: Vec<String>,
    /// The resources that it may read: URIs and globs over them. A template is listed where its text fits one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// The prompts that it may get: names and globs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// Its attributes.
    #[serde(default)]
    pub attributes: BTreeMap<AttributeName, Value>,
    /// Bounds on what it may do.
    #[serde(default)]
    pub limits: ClientLimits,
    /// Its API keys. Several may live at once, so that one can replace another.
    #[serde(default)]
    pub keys: Vec<KeySpec>,
    /// The access tokens that are its own: whose, and what they say of their client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenSpec>,
    /// The roles that a token may bring along besides `roles`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_roles: Vec<RoleName>,
    /// The TLS certificates that are its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateSpec>,
    /// The public keys (JWK, RFC 7517) that sign its assertions at the token endpoint (RFC 7523).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assertion_keys: Vec<Map<String, Value>>,
    /// Whether it may ask the token endpoint for tokens that stand for one of its users.
    #[serde(default)]
    pub acts_for_users: bool,
    /// The networks that it may call from. Left out, any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Network>,
    /// Whether a local process may claim to be it over stdio.
    #[serde(default)]
    pub stdio: bool,
}

/// Access tokens of one client.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TokenSpec {
    /// The issuer, as `identity: issuers:` of `callgate.yaml` names it.
    pub issuer: IssuerName,
    /// What its tokens say of their client.
    #[schemars(length(min = 1))]
    pub client: String,
}

/// A TLS client certificate, known by one of its names or by its digest.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum CertificateSpec {
    /// A name of its subject alternative names: `dns:agent.example.com`, `uri:spiffe://example.com/agent`,
    /// `email:agent@example.com` (RFC 5280 §4.2.1.6).
    Name(String),
    /// Its subject, as a distinguished name in the form of RFC 4514.
    Subject(String),
    /// The SHA-256 of its DER form, in hexadecimal.
    Sha256(String),
}

/// Bounds on what one client may do.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientLimits {
    /// How often it may call. Left out, 600 calls a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// An API key, of which only a digest is kept.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeySpec {
    /// The key's id: the second part of `cg_<id>_<secret>`.
    pub id: KeyId,
    /// The SHA-256 of the key's secret part, in hexadecimal.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// The first day, in UTC, on which the key no longer works.
    #[schemars(with = "String", extend("format" = "date"))]
    pub expires: Date,
}
