//! `upstreams:`: other MCP servers, whose tools the gate offers as far as manifests name them.

use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{BaseUrl, ByteSize, Digest, EgressSpec, SecretRef, TimeSpan};

/// Another MCP server: a program that is run, or a URL.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UpstreamSpec {
    /// A program that speaks MCP over its standard input and output; this or `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdio: Option<ProgramSpec>,
    /// A server that speaks Streamable HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<RemoteSpec>,
    /// The digest of the server's instructions as they were reviewed. Left out, it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<Digest>,
    /// How long a call may take.
    #[serde(default = "default_timeout")]
    pub timeout: TimeSpan,
    /// How large a message may be.
    #[serde(default = "default_response")]
    pub response: ByteSize,
    /// How many JSON values a message may hold, counted at every depth.
    #[serde(default = "default_values")]
    pub values: NonZeroUsize,
    /// How old may be what was last checked of its tools and instructions.
    #[serde(default = "default_recheck")]
    pub recheck: TimeSpan,
}

const fn default_timeout() -> TimeSpan {
    TimeSpan::from_millis(30_000)
}
const fn default_response() -> ByteSize {
    ByteSize::from_kib(1024)
}
const fn default_values() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(49_999)
}
const fn default_recheck() -> TimeSpan {
    TimeSpan::from_millis(30_000)
}

/// A program that is run.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProgramSpec {
    /// The program: a name that is looked up in `PATH`, or a path, relative to `callgate.yaml`.
    #[schemars(length(min = 1))]
    pub command: String,
    /// Its arguments, as they are: no shell reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its environment: nothing else is set but `PATH`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvValue>,
    /// The folder it runs in, relative to `callgate.yaml`. Left out, that file's own.
    #[serde(default = "default_dir")]
    pub dir: PathBuf,
    /// The digest of the program's file. It may be left out where a package runner such as `npx` is told one exact version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The digests of files that the program reads as code, such as an interpreter's script, relative to `dir`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<PathBuf, Digest>,
}

fn default_dir() -> PathBuf {
    PathBuf::from(".")
}

/// The value of an environment variable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EnvValue {
    /// The value itself.
    Plain(String),
    /// A secret, by its place.
    Secret(SecretRef),
}

/// How a secret is written where a text could stand.
#[derive(Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SecretValue {
    /// Where the secret is.
    secret: SecretRef,
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = EnvValue;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text, or `{ secret: env:NAME }`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<EnvValue, E> {
                Ok(EnvValue::Plain(text.to_owned()))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<EnvValue, A::Error> {
                let written = SecretValue::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(EnvValue::Secret(written.secret))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for EnvValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(text) => serializer.serialize_str(text),
            Self::Secret(secret) => SecretValue { secret: secret.clone() }.serialize(serializer),
        }
    }
}

impl JsonSchema for EnvValue {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EnvValue".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, or where a secret is.",
            "oneOf": [{ "type": "string" }, generator.subschema_for::<SecretValue>()]
        })
    }
}

/// A server behind a URL.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RemoteSpec {
    /// Its MCP endpoint.
    pub url: BaseUrl,
    /// Which addresses it may be reached at besides public ones. Left out, none.
    #[serde(default, skip_serializing_if = "EgressSpec::is_closed")]
    pub egress: EgressSpec,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Source, read};

    fn spec(text: &str) -> Result<UpstreamSpec, String> {
        let source = Source { path: "callgate.yaml".into(), text: text.into() };
        read(&source).map_err(|problem| problem.message)
    }

    #[test]
    fn what_is_left_out_has_a_bound_all_the_same() {
        let spec = spec("http: { url: 'https://mcp.example.com/mcp' }\n").unwrap();
        assert_eq!(
            (
                spec.timeout.to_string(),
                spec.response.to_string(),
                spec.values.get(),
                spec.recheck.to_string()
            ),
            ("30s".into(), "1MiB".into(), 50_000, "30s".into())
        );
        assert!(spec.stdio.is_none() && spec.instructions.is_none());
    }

    #[test]
    fn a_value_of_the_environment_is_a_text_or_names_a_secret() {
        let spec = spec("stdio: { command: x, env: { HOME: /tmp, TOKEN: { secret: 'env:T' } } }\n").unwrap();
        let env = spec.stdio.unwrap().env;
        assert_eq!(env["HOME"], EnvValue::Plain("/tmp".into()));
        assert_eq!(env["TOKEN"], EnvValue::Secret(SecretRef::Env("T".into())));
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused_at_every_depth() {
        for text in [
            "stdo: { command: x }\n",
            "stdio: { command: x, shell: true }\n",
            "stdio: { command: x, env: { A: { secrt: 'env:T' } } }\n",
            "stdio: { command: x, env: { A: { secret: written-here } } }\n",
            "stdio: { command: x, digest: latest }\n",
            "http: { url: 'https://user:hunter2@mcp.example.com/' }\n",
            "http: { url: 'https://mcp.example.com/', headers: { a: b } }\n",
        ] {
            assert!(spec(text).is_err(), "{text}");
        }
    }
}
