//! `callgate.yaml`: what the operator sets.

use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use super::{
    AdminListener, ByteSize, ClientName, CredentialName, CredentialSpec, DnsSpec, EgressSpec, HttpListener,
    IdentitySpec, RecordSpec, ServiceName, TasksSpec, TimeSpan, UpstreamSpec, VaultName, VaultSpec,
};

/// The server, the services behind it, and the credentials it holds for them.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "Callgate's server")]
pub struct ServerFile {
    /// The name that clients are shown.
    #[serde(default = "default_name")]
    pub name: String,
    /// The folder of tool manifests, relative to this file.
    #[serde(default = "default_tools")]
    pub tools: PathBuf,
    /// The folder of policies, clients and cases, relative to this file.
    #[serde(default = "default_policies")]
    pub policies: PathBuf,
    /// The folder of the gate's own state, relative to this file.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// Where clients connect.
    #[serde(default)]
    pub listen: Listen,
    /// Whose tokens are taken, which are issued here, and how long a run lives.
    #[serde(default)]
    pub identity: IdentitySpec,
    /// Who is asked for the addresses of names. Left out, the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsSpec>,
    /// How the record of all calls is kept and signed.
    #[serde(default)]
    pub record: RecordSpec,
    /// How long tasks are kept, and how many.
    #[serde(default)]
    pub tasks: TasksSpec,
    /// The services that tools call, by name.
    #[serde(default)]
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    /// Other MCP servers whose tools are offered, by name. A service has none of their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upstreams: BTreeMap<ServiceName, UpstreamSpec>,
    /// The vaults that secrets are read from, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vaults: BTreeMap<VaultName, VaultSpec>,
    /// The credentials that calls carry, by name.
    #[serde(default)]
    pub credentials: BTreeMap<CredentialName, CredentialSpec>,
}

fn default_name() -> String {
    "callgate".to_owned()
}
fn default_tools() -> PathBuf {
    PathBuf::from("tools")
}
fn default_policies() -> PathBuf {
    PathBuf::from("policies")
}
fn default_state() -> PathBuf {
    PathBuf::from("state")
}

/// Where clients connect.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Listen {
    /// Streamable HTTP, for `callgate serve`.
    #[serde(default)]
    pub http: HttpListener,
    /// The admin listener, for `callgate serve`. Left out, there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminListener>,
    /// The client that `callgate stdio` stands for when `--client` is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdio: Option<StdioListener>,
}

/// A local process that speaks over standard input and output.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StdioListener {
    /// The client that the process stands for; it must have `stdio: true`.
    pub client: ClientName,
}

/// A service that tools call.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServiceSpec {
    /// The base URL: scheme, host, port, and a path that all paths go below.
    pub url: BaseUrl,
    /// How long a call may take.
    #[serde(default = "default_timeout")]
    pub timeout: TimeSpan,
    /// How long it may take until the head of an answer is there. Left out, as long as the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_timeout: Option<TimeSpan>,
    /// How long an answer may pause once it has begun.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: TimeSpan,
    /// How large an answer may be.
    #[serde(default = "default_response")]
    pub response: ByteSize,
    /// How many JSON values an answer may hold, counted at every depth.
    #[serde(default = "default_values")]
    pub values: NonZeroUsize,
    /// Which addresses it may be reached at besides public ones. Left out, none.
    #[serde(default, skip_serializing_if = "EgressSpec::is_closed")]
    pub egress: EgressSpec,
}

const fn default_timeout() -> TimeSpan {
    TimeSpan::from_millis(10_000)
}
const fn default_idle_timeout() -> TimeSpan {
    TimeSpan::from_millis(3_000)
}
const fn default_values() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(9_999)
}
const fn default_response() -> ByteSize {
    ByteSize::from_kib(256)
}

/// An `http` or `https` URL without credentials, query or fragment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// The URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.0
    }

    /// Parses a base URL.
    ///
    /// # Errors
    /// When the text is not such a URL; the message does not repeat credentials.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("a service is called by `http` or `https`, not `{}`", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a service's URL carries no user or password: name a credential".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("a service's URL has no query and no fragment".to_owned());
        }
        Ok(Self(url))
    }
}

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for BaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl JsonSchema for BaseUrl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BaseUrl".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^https?://",
            "description": "A base URL, without credentials, query or fragment."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_url_carries_no_credentials() {
        insta::assert_snapshot!(
            BaseUrl::parse("http://user:hunter2@example.com/").unwrap_err(),
            @"a service's URL carries no user or password: name a credential"
        );
        assert!(BaseUrl::parse("file:///etc/passwd").is_err());
        assert!(BaseUrl::parse("http://example.com/?a=b").is_err());
    }
}
