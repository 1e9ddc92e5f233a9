//! `identity:` of `callgate.yaml`: whose tokens are taken, which are issued, and how long a run lives.

use std::{collections::BTreeMap, num::NonZeroU32, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use super::{
    Age, BaseUrl, EgressSpec, IssuerName, Scope, TimeSpan,
    local::{is_localhost_itself, is_this_machine},
};

/// Whose tokens are taken, which are issued here, and how long a run lives.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IdentitySpec {
    /// The URL of this server's endpoint as its clients know it, such as `https://gate.example.com/mcp`: the
    /// audience of tokens (RFC 8707), and the resource that its metadata describes (RFC 9728).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceUrl>,
    /// The scopes that clients are told to ask for first (RFC 6750 §3, RFC 9728 §2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
    /// The identity providers whose access tokens are taken, by a name of our own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub issuers: BTreeMap<IssuerName, IssuerSpec>,
    /// The token endpoint of this server's own. Left out, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokensSpec>,
    /// How long runs live, and how many sessions there may be.
    #[serde(default)]
    pub runs: RunsSpec,
}

impl IdentitySpec {
    /// What this server's own tokens say as `iss`, where it issues any.
    #[must_use]
    pub fn own_issuer(&self) -> Option<String> {
        let issuer = self.tokens.as_ref()?.issuer.as_ref();
        issuer.map(|issuer| issuer.as_str().to_owned()).or_else(|| Some(self.resource.as_ref()?.origin()))
    }
}

/// An identity provider.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IssuerSpec {
    /// What its tokens say as `iss`, character by character.
    pub issuer: String,
    /// Where its public keys are (RFC 7517 §5).
    pub jwks: BaseUrl,
    /// The algorithms that its keys may be used with, at most one for each type of key.
    #[schemars(length(min = 1))]
    pub algorithms: Vec<SigningAlgorithm>,
    /// What its tokens may say as `aud`. Left out, the server's `resource`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// What its tokens may say as `typ`. Left out, `at+jwt` (RFC 9068 §2.1).
    #[serde(default = "default_types")]
    pub types: Vec<String>,
    /// The claims that say who calls.
    #[serde(default)]
    pub claims: ClaimsSpec,
    /// How far its clock may be from ours.
    #[serde(default = "default_leeway")]
    pub leeway: TimeSpan,
    /// The longest time from now that a token may still be good for.
    #[serde(default = "default_lifetime_max")]
    pub lifetime_max: TimeSpan,
    /// Which addresses its keys may be fetched from besides public ones. Left out, none.
    #[serde(default, skip_serializing_if = "EgressSpec::is_closed")]
    pub egress: EgressSpec,
}

fn default_types() -> Vec<String> {
    vec!["at+jwt".to_owned()]
}
const fn default_leeway() -> TimeSpan {
    TimeSpan::from_millis(30_000)
}
const fn default_lifetime_max() -> TimeSpan {
    TimeSpan::from_millis(24 * 3_600_000)
}

/// The claims of a token that say who calls.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClaimsSpec {
    /// The one that names the client. `tokens:` of a client in `clients.yaml` says which value is whose.
    #[serde(default = "default_client_claim")]
    pub client: String,
    /// The one that lists roles. Left out, tokens bring no roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<String>,
    /// The one that lists scopes, as a list or separated by spaces.
    #[serde(default = "default_scopes_claim")]
    pub scopes: String,
}

impl Default for ClaimsSpec {
    fn default() -> Self {
        Self { client: default_client_claim(), roles: None, scopes: default_scopes_claim() }
    }
}

fn default_client_claim() -> String {
    "client_id".to_owned()
}
fn default_scopes_claim() -> String {
    "scope".to_owned()
}

/// An algorithm that tokens are signed with (RFC 7518 §3.1, RFC 8037 §3.1). None of them shares a secret.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum SigningAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// The token endpoint of this server's own (RFC 6749 §4.4): for harnesses without an identity provider.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TokensSpec {
    /// What its tokens say as `iss`. Left out, the origin of `resource`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<ResourceUrl>,
    /// How long a token is good for.
    #[serde(default = "default_token_lifetime")]
    pub lifetime: TimeSpan,
    /// How old a signing key may become; the one before it is taken until its last token has expired.
    #[serde(default = "default_key_age")]
    pub key_age: Age,
}

const fn default_token_lifetime() -> TimeSpan {
    TimeSpan::from_millis(15 * 60_000)
}
const fn default_key_age() -> Age {
    Age::from_days(30)
}

/// How long runs live, and how many sessions there may be.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunsSpec {
    /// After how long without a call a run ends.
    #[serde(default = "default_idle")]
    pub idle: TimeSpan,
    /// After how long a run ends that was minted, or belongs to a session.
    #[serde(default = "default_lifetime")]
    pub lifetime: TimeSpan,
    /// How many sessions one client may have.
    #[serde(default = "default_sessions")]
    pub sessions: NonZeroU32,
    /// How many sessions there may be of all clients.
    #[serde(default = "default_sessions_in_all")]
    pub sessions_in_all: NonZeroU32,
}

impl Default for RunsSpec {
    fn default() -> Self {
        Self {
            idle: default_idle(),
            lifetime: default_lifetime(),
            sessions: default_sessions(),
            sessions_in_all: default_sessions_in_all(),
        }
    }
}

const fn default_idle() -> TimeSpan {
    TimeSpan::from_millis(30 * 60_000)
}
const fn default_lifetime() -> TimeSpan {
    TimeSpan::from_millis(8 * 3_600_000)
}
const fn default_sessions() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(255)
}
const fn default_sessions_in_all() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(8_191)
}

/// The URL of something that tokens are for, kept as it was written: it is compared character by character
/// (RFC 8707 §2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResourceUrl {
    text: String,
    url: Url,
}

/// Why a text is not such a URL.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{}` is not an `https` URL without user, query and fragment, or an `http` URL of this machine", given.escape_debug())]
pub struct ResourceUrlError {
    given: String,
}

impl ResourceUrl {
    /// The URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    fn from_text(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let local = is_this_machine(&url, is_localhost_itself);
        let secure = url.scheme() == "https" || (url.scheme() == "http" && local);
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
        (secure && plain && visible && url.fragment().is_none()).then(|| Self { text: text.to_owned(), url })
    }
}

impl FromStr for ResourceUrl {
    type Err = ResourceUrlError;
    fn from_str(text: &str) -> Result<Self, ResourceUrlError> {
        Self::from_text(text).ok_or_else(|| ResourceUrlError { given: text.to_owned() })
    }
}

impl<'de> Deserialize<'de> for ResourceUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for ResourceUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl JsonSchema for ResourceUrl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ResourceUrl".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^https?://[^?#]+$",
            "description": "An `https` URL without user, query and fragment, or an `http` URL of this machine."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_reached_safely_and_named_in_one_way() {
        for good in ["https://gate.example.com/mcp", "http://127.0.0.1:8787/mcp", "http://localhost/mcp"] {
            assert_eq!(good.parse::<ResourceUrl>().unwrap().as_str(), good);
        }
        for bad in [
            "http://gate.example.com/mcp",
            "https://user@gate.example.com/mcp",
            "https://gate.example.com/mcp?a=b",
            "https://gate.example.com/mcp#x",
            "https://gate.example.com/m\"cp",
            "ftp://localhost/",
            "gate",
        ] {
            assert!(bad.parse::<ResourceUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn no_algorithm_of_a_shared_secret_can_be_named() {
        for name in ["none", "HS256", "HS512", "rs256", "dir"] {
            assert!(serde_json::from_value::<SigningAlgorithm>(name.into()).is_err(), "{name}");
        }
    }
}
