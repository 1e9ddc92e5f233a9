//! Credentials, as `callgate.yaml` names them: where their secrets are, and how they are shown.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{ServiceName, ToolName};

/// A credential: where its secret is, and whom it may serve.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CredentialSpec {
    /// The only service it is sent to.
    pub service: ServiceName,
    /// The tools that may use it.
    pub tools: Vec<ToolName>,
    /// How it is shown to the service.
    #[serde(rename = "as")]
    pub kind: CredentialKind,
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
    /// A query parameter.
    Query {
        /// The parameter's name.
        name: String,
        /// Its value.
        secret: SecretRef,
    },
}

impl CredentialKind {
    /// Where the secret is.
    #[must_use]
    pub const fn secret(&self) -> &SecretRef {
        match self {
            Self::Bearer { secret }
            | Self::Basic { secret, .. }
            | Self::Header { secret, .. }
            | Self::Query { secret, .. } => secret,
        }
    }
}

/// Where a secret is: never the secret itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file, relative to `callgate.yaml`.
    File(PathBuf),
}

impl SecretRef {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':').filter(|(_, rest)| !rest.is_empty())?;
        match kind {
            "env" => Some(Self::Env(rest.to_owned())),
            "file" => Some(Self::File(Path::new(rest).to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The text is not repeated: somebody may have written a secret here.
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| {
            de::Error::custom("a secret is named by `env:NAME` or `file:PATH`, never written here")
        })
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for SecretRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretRef".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(env|file):.+$",
            "description": "Where a secret is: `env:NAME` or `file:PATH`."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_secret_is_refused_and_not_repeated() {
        let refusal = serde_json::from_value::<SecretRef>("s3cr3t".into()).unwrap_err().to_string();
        insta::assert_snapshot!(refusal, @"a secret is named by `env:NAME` or `file:PATH`, never written here");
    }
}
