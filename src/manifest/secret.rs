//! Where secrets are: references, and the vaults that some lead to.

use std::{
    borrow::Cow,
    fmt,
    path::{Path, PathBuf},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{BaseUrl, EgressSpec, TimeSpan, VaultName};

/// Where a secret is: never the secret itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file, relative to `callgate.yaml`.
    File(PathBuf),
    /// A field of a secret in a vault.
    Vault(VaultRef),
}

/// A field of a secret in a vault: `vault:NAME/PATH#FIELD`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VaultRef {
    /// The vault of `callgate.yaml`.
    pub vault: VaultName,
    /// The secret.
    pub path: VaultPath,
    /// The field.
    pub field: String,
}

/// A secret's path in a vault's HTTP API, below `/v1/`: `MOUNT/data/PATH` of a key-value engine of
/// version 2, or `ENGINE/creds/ROLE` of an engine that makes credentials.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VaultPath {
    path: String,
    is_dynamic: bool,
}

impl VaultPath {
    /// The path, without a slash before it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// Whether the engine makes a credential of its own for each lease.
    #[must_use]
    pub const fn is_dynamic(&self) -> bool {
        self.is_dynamic
    }

    /// The segments need no escaping, so that what is written is what is sent.
    fn parse(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.split('/').collect();
        let plain = |segment: &&str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
            !segment.is_empty() && segment.bytes().all(allowed) && !segment.trim_matches('.').is_empty()
        };
        if !segments.iter().all(plain) || path.len() > 512 {
            return None;
        }
        // The engine's own word comes after its mount, and before a name.
        let inner = segments.get(1..segments.len().checked_sub(1)?)?;
        let word = inner.iter().find(|segment| matches!(**segment, "data" | "creds"))?;
        Some(Self { path: path.to_owned(), is_dynamic: *word == "creds" })
    }
}

impl SecretRef {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':').filter(|(_, rest)| !rest.is_empty())?;
        match kind {
            "env" => Some(Self::Env(rest.to_owned())),
            "file" => Some(Self::File(Path::new(rest).to_owned())),
            "vault" => VaultRef::parse(rest).map(Self::Vault),
            _ => None,
        }
    }
}

impl VaultRef {
    fn parse(text: &str) -> Option<Self> {
        let (place, field) = text.split_once('#')?;
        let (vault, path) = place.split_once('/')?;
        let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.');
        let field = (!field.is_empty() && field.chars().all(plain)).then(|| field.to_owned())?;
        Some(Self { vault: VaultName::parse(vault).ok()?, path: VaultPath::parse(path)?, field })
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Vault(VaultRef { vault, path, field }) => write!(f, "vault:{vault}/{}#{field}", path.path),
        }
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The text is not repeated: somebody may have written a secret here.
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| {
            de::Error::custom(
                "a secret is named by `env:NAME`, `file:PATH`, `vault:NAME/MOUNT/data/PATH#FIELD` or \
                 `vault:NAME/ENGINE/creds/ROLE#FIELD`, never written here",
            )
        })
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for SecretRef {
    fn schema_name() -> Cow<'static, str> {
        "SecretRef".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^((env|file):.+|vault:[^/#]+/[^#]+/(data|creds)/[^#]+#.+)$",
            "description": "Where a secret is: `env:NAME`, `file:PATH`, `vault:NAME/MOUNT/data/PATH#FIELD` (a key-value engine, version 2) or `vault:NAME/ENGINE/creds/ROLE#FIELD` (a dynamic secret)."
        })
    }
}

/// A vault that speaks HashiCorp Vault's HTTP API.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VaultSpec {
    /// Its address: what stands before `/v1/`.
    pub url: BaseUrl,
    /// The token that the gate shows; this or an app role. It is not renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretRef>,
    /// The role that the gate logs in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_role: Option<AppRoleSpec>,
    /// The namespace that all paths are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// How old a key-value secret may be before it is read again.
    #[serde(default = "default_refresh")]
    pub refresh: TimeSpan,
    /// Which addresses it may be reached at besides public ones.
    #[serde(default, skip_serializing_if = "EgressSpec::is_closed")]
    pub egress: EgressSpec,
}

const fn default_refresh() -> TimeSpan {
    TimeSpan::from_millis(300_000)
}

/// A login by role.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AppRoleSpec {
    /// The role's id.
    pub role_id: String,
    /// The secret that goes with it.
    pub secret_id: SecretRef,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_secret_is_refused_and_not_repeated() {
        let refusal = serde_json::from_value::<SecretRef>("s3cr3t".into()).unwrap_err().to_string();
        insta::assert_snapshot!(refusal, @"a secret is named by `env:NAME`, `file:PATH`, `vault:NAME/MOUNT/data/PATH#FIELD` or `vault:NAME/ENGINE/creds/ROLE#FIELD`, never written here");
    }

    #[test]
    fn a_vaults_path_says_which_engine_it_is_of_and_is_sent_as_written() {
        for (text, dynamic) in [
            ("vault:main/secret/data/orders/api#token", false),
            ("vault:main/team/kv/data/orders#token", false),
            ("vault:main/secret/data/creds/x#token", false),
            ("vault:main/database/creds/orders#password", true),
        ] {
            let Some(SecretRef::Vault(found)) = SecretRef::parse(text) else { panic!("{text}") };
            assert_eq!(
                (found.path.is_dynamic(), SecretRef::Vault(found).to_string()),
                (dynamic, text.into())
            );
        }
        for text in [
            "vault:main/secret/orders#token",
            "vault:main/data/orders#token",
            "vault:main/secret/data#token",
            "vault:main/secret/data/#token",
            "vault:main/secret/data/..#token",
            "vault:main/secret/data/../../sys/raw#token",
            "vault:main/secret/data/a%2fb#token",
            "vault:main/secret/data/a?version=1#token",
            "vault:main/secret/data/a",
            "vault:main/secret/data/a#",
            "vault:/secret/data/a#token",
        ] {
            assert_eq!(SecretRef::parse(text), None, "{text}");
        }
    }
}
