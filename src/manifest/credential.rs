//! Credentials, as `callgate.yaml` names them: where their secrets are, and how they are shown.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{BaseUrl, EgressSpec, SecretRef, ServiceName, ToolName};

/// A credential: where its secret is, and whom it may serve.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CredentialSpec {
    /// The only service it is sent to.
    pub service: ServiceName,
    /// The tools that may use it.
    pub tools: Vec<ToolName>,
    /// The resources whose reads may use it, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ToolName>,
    /// The prompts that may use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<ToolName>,
    /// How it is shown to the service.
    #[serde(rename = "as")]
    pub kind: CredentialKind,
}

impl CredentialSpec {
    /// All that may use it, by the names that the guards use.
    pub fn serves(&self) -> impl Iterator<Item = ToolName> {
        let of = |kind, names: &[ToolName]| {
            names.iter().map(|name| ToolName::reserved(kind, name)).collect::<Vec<_>>()
        };
        let others = of("resource", &self.resources).into_iter().chain(of("prompt", &self.prompts));
        self.tools.iter().cloned().chain(others)
    }
}

/// How a credential is shown to a service.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum CredentialKind {
    /// `Authorization: Bearer` (RFC 6750 §2.1).
    Bearer {
        /// The token.
        secret: SecretRef,
    },
    /// `Authorization: Basic` (RFC 7617).
    Basic {
        /// The user's name.
        username: String,
        /// The password.
        secret: SecretRef,
    },
    /// A header of the service's own.
    Header {
        /// The header's name.
        name: String,
        /// Its value.
        secret: SecretRef,
    },
    /// A query parameter. It stands in the URL, which servers and proxies write to their logs.
    Query {
        /// The parameter's name.
        name: String,
        /// Its value.
        secret: SecretRef,
    },
    /// A token that the gate gets for itself (OAuth `client_credentials`, RFC 6749 §4.4).
    ClientCredentials(ClientCredentialsSpec),
    /// A token for each caller, got for a word of the gate on who that is (RFC 8693).
    TokenExchange(TokenExchangeSpec),
    /// A TLS client certificate.
    Certificate {
        /// The certificate, and those that vouch for it, as PEM.
        certificate: SecretRef,
        /// Its private key, as PKCS#8 PEM.
        key: SecretRef,
    },
}

/// A token that the gate gets for itself.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientCredentialsSpec {
    /// The token endpoint.
    pub token_url: BaseUrl,
    /// The gate's client id there.
    pub client: String,
    /// The client's secret; this or a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// The client's private key, as PKCS#8 PEM, for `private_key_jwt` (RFC 7523).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SecretRef>,
    /// What the key signs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<OwnAlgorithm>,
    /// How the secret is shown. Left out, `basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ClientAuth>,
    /// The scopes that are asked for, by tool.
    #[serde(default, skip_serializing_if = "TokenScopes::is_empty")]
    pub scopes: TokenScopes,
    /// The service that the token is for (RFC 8707).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<WrittenUrl>,
    /// The audience, for servers that want one by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Which addresses the token endpoint may be reached at besides public ones.
    #[serde(default, skip_serializing_if = "EgressSpec::is_closed")]
    pub egress: EgressSpec,
}

/// A token for each caller.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TokenExchangeSpec {
    /// The token endpoint.
    pub token_url: BaseUrl,
    /// The gate's client id there.
    pub client: String,
    /// The client's secret; this or a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// The client's private key, as PKCS#8 PEM, for `private_key_jwt` (RFC 7523).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SecretRef>,
    /// What the key signs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<OwnAlgorithm>,
    /// How the secret is shown. Left out, `basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ClientAuth>,
    /// How the gate says who calls.
    pub subject: SubjectSpec,
    /// The scopes that are asked for, by tool.
    #[serde(default, skip_serializing_if = "TokenScopes::is_empty")]
    pub scopes: TokenScopes,
    /// The service that the token is for (RFC 8707).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<WrittenUrl>,
    /// The audience, for servers that want one by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Which addresses the token endpoint may be reached at besides public ones.
    #[serde(default, skip_serializing_if = "EgressSpec::is_closed")]
    pub egress: EgressSpec,
}

/// How the gate says who calls: a token of its own, signed, good for a minute.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SubjectSpec {
    /// The issuer that the gate signs as.
    pub issuer: WrittenUrl,
    /// The gate's private key, as PKCS#8 PEM.
    pub key: SecretRef,
    /// What the key signs with.
    pub alg: OwnAlgorithm,
    /// The id by which the endpoint finds the public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Whether a call needs a user; else a call without one goes as its client.
    #[serde(default)]
    pub require_user: bool,
}

/// An `http` or `https` URL that is compared as text, so that it is sent exactly as it was written.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(transparent)]
pub struct WrittenUrl(String);

impl WrittenUrl {
    /// The URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for WrittenUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BaseUrl::parse(&text).map_err(de::Error::custom)?;
        Ok(Self(text))
    }
}

/// A signature algorithm (RFC 7518 §3.1, RFC 8037).
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OwnAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// Ed25519.
    EdDSA,
}

impl OwnAlgorithm {
    /// The name that stands in a header.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::ES256 => "ES256",
            Self::RS256 => "RS256",
            Self::PS256 => "PS256",
            Self::EdDSA => "EdDSA",
        }
    }
}

/// How a client shows its secret to a token endpoint (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// In the header `Authorization`.
    #[default]
    Basic,
    /// In the body.
    Post,
}

/// The scopes of a token, by tool: `default` stands for the tools that are not named.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TokenScopes {
    default: Vec<String>,
    tools: BTreeMap<ToolName, Vec<String>>,
}

impl TokenScopes {
    /// Whether no scope is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.default.is_empty() && self.tools.is_empty()
    }

    /// The scopes that a tool needs.
    #[must_use]
    pub fn of(&self, tool: &ToolName) -> &[String] {
        self.tools.get(tool).unwrap_or(&self.default)
    }

    /// The tools that have scopes of their own.
    pub fn tools(&self) -> impl Iterator<Item = &ToolName> {
        self.tools.keys()
    }
}

/// RFC 6749 §3.3 `scope-token`.
fn is_scope_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E))
}

impl<'de> Deserialize<'de> for TokenScopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut scopes = Self::default();
        for (tool, listed) in BTreeMap::<ToolName, Vec<String>>::deserialize(deserializer)? {
            if let Some(bad) = listed.iter().find(|scope| !is_scope_token(scope)) {
                let bad = bad.escape_debug();
                return Err(de::Error::custom(format!("`{bad}` is not a scope (RFC 6749 §3.3)")));
            }
            if tool.as_str() == "default" {
                scopes.default = listed;
            } else {
                scopes.tools.insert(tool, listed);
            }
        }
        Ok(scopes)
    }
}

impl Serialize for TokenScopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let default = (!self.default.is_empty()).then_some(("default", &self.default));
        serializer.collect_map(
            default.into_iter().chain(self.tools.iter().map(|(tool, scopes)| (tool.as_str(), scopes))),
        )
    }
}

impl JsonSchema for TokenScopes {
    fn schema_name() -> Cow<'static, str> {
        "TokenScopes".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "The scopes of a token, by tool; `default` stands for the tools that are not named.",
            "additionalProperties": {
                "type": "array",
                "items": { "type": "string", "pattern": "^[\\x21\\x23-\\x5B\\x5D-\\x7E]+$" }
            }
        })
    }
}

/// What a token is got with, whichever way it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct TokenRequestSpec<'a> {
    /// The token endpoint.
    pub token_url: &'a BaseUrl,
    /// The gate's client id.
    pub client: &'a str,
    /// The client's secret.
    pub secret: Option<&'a SecretRef>,
    /// The client's private key.
    pub key: Option<&'a SecretRef>,
    /// What the key signs with.
    pub alg: Option<OwnAlgorithm>,
    /// How the secret is shown.
    pub auth: Option<ClientAuth>,
    /// The scopes by tool.
    pub scopes: &'a TokenScopes,
    /// The service that the token is for.
    pub resource: Option<&'a WrittenUrl>,
    /// The audience.
    pub audience: Option<&'a str>,
    /// Where the endpoint may be.
    pub egress: &'a EgressSpec,
    /// How the gate says who calls, where the token is for each caller.
    pub subject: Option<&'a SubjectSpec>,
}

impl CredentialKind {
    /// The key under `as:`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Bearer { .. } => "bearer",
            Self::Basic { .. } => "basic",
            Self::Header { .. } => "header",
            Self::Query { .. } => "query",
            Self::ClientCredentials(_) => "client-credentials",
            Self::TokenExchange(_) => "token-exchange",
            Self::Certificate { .. } => "certificate",
        }
    }

    /// Where its secrets are, each with the path of its key below `as:`.
    #[must_use]
    pub fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::Bearer { secret } => vec![("bearer/secret", secret)],
            Self::Basic { secret, .. } => vec![("basic/secret", secret)],
            Self::Header { secret, .. } => vec![("header/secret", secret)],
            Self::Query { secret, .. } => vec![("query/secret", secret)],
            Self::Certificate { certificate, key } => {
                vec![("certificate/certificate", certificate), ("certificate/key", key)]
            }
            Self::ClientCredentials(ClientCredentialsSpec { secret, key, .. }) => {
                let secret = secret.iter().map(|secret| ("client-credentials/secret", secret));
                secret.chain(key.iter().map(|key| ("client-credentials/key", key))).collect()
            }
            Self::TokenExchange(TokenExchangeSpec { secret, key, subject, .. }) => {
                let secret = secret.iter().map(|secret| ("token-exchange/secret", secret));
                let key = key.iter().map(|key| ("token-exchange/key", key));
                secret.chain(key).chain([("token-exchange/subject/key", &subject.key)]).collect()
            }
        }
    }

    /// What a token is got with, for the kinds that get one.
    #[must_use]
    pub fn token_request(&self) -> Option<TokenRequestSpec<'_>> {
        macro_rules! request {
            ($spec:ident, $subject:expr) => {
                Some(TokenRequestSpec {
                    token_url: &$spec.token_url,
                    client: &$spec.client,
                    secret: $spec.secret.as_ref(),
                    key: $spec.key.as_ref(),
                    alg: $spec.alg,
                    auth: $spec.auth,
                    scopes: &$spec.scopes,
                    resource: $spec.resource.as_ref(),
                    audience: $spec.audience.as_deref(),
                    egress: &$spec.egress,
                    subject: $subject,
                })
            };
        }
        match self {
            Self::ClientCredentials(spec) => request!(spec, None),
            Self::TokenExchange(spec) => request!(spec, Some(&spec.subject)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_without_scopes_of_its_own_has_the_default_ones() {
        let scopes: TokenScopes =
            serde_json::from_str(r#"{ "default": ["read"], "refunds.create": ["refunds:write"] }"#).unwrap();
        assert_eq!(scopes.of(&"refunds.create".parse().unwrap()), ["refunds:write"]);
        assert_eq!(scopes.of(&"orders.get".parse().unwrap()), ["read"]);
        for bad in ["", "a b", "a\"b", "a\\b", "é"] {
            let scopes = serde_json::json!({ "default": [bad] });
            assert!(serde_json::from_value::<TokenScopes>(scopes).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_kind_takes_no_key_that_it_does_not_know() {
        for kind in [
            r#"{ "client-credentials": { "token-url": "https://a/", "client": "c", "subject": {} } }"#,
            r#"{ "certificate": { "certificate": "file:c", "key": "file:k", "password": "x" } }"#,
            r#"{ "token-exchange": { "token-url": "https://a/", "client": "c" } }"#,
        ] {
            assert!(serde_json::from_str::<CredentialKind>(kind).is_err(), "{kind}");
        }
    }
}
