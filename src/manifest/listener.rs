//! `listen: http:`: where HTTP clients connect, and how much of the gate each of them may hold.

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    str::FromStr,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{ByteSize, Network, Rate, SecretRef, TimeSpan};

/// A Streamable HTTP listener.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpListener {
    /// The address and port; port 0 lets the system choose.
    #[serde(default = "default_address")]
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// The `Host` names that requests may carry besides loopback ones. A name without a port stands for
    /// any port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<WebHost>,
    /// The `Origin`s that browsers may send, compared by scheme, host and port. Left out, none may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<WebOrigin>,
    /// How large a request may be.
    #[serde(default = "default_body")]
    pub body: ByteSize,
    /// How many connections may be open; more are answered `503`.
    #[serde(default = "default_connections")]
    pub connections: NonZeroU32,
    /// How many requests may be worked on at once; more are answered `503`.
    #[serde(default = "default_in_flight")]
    pub in_flight: NonZeroU32,
    /// How long the head of a request may take to arrive.
    #[serde(default = "default_header_timeout")]
    pub header_timeout: TimeSpan,
    /// How long the body of a request may take to arrive.
    #[serde(default = "default_body_timeout")]
    pub body_timeout: TimeSpan,
    /// How long a connection may stay open between two requests.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: TimeSpan,
    /// Whether clients that speak HTTP+SSE, the transport of 2024-11-05, are served beside Streamable HTTP: at
    /// `/sse`. The same is asked of them. Left out, they are.
    #[serde(default = "default_sse")]
    pub sse: bool,
    /// TLS. Left out, the listener speaks plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// The networks of the reverse proxies in front, whose word on where a request came from is taken
    /// (`X-Forwarded-For` or `Forwarded`). Left out, nobody's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<Network>,
    /// How often one source may fail to prove who it is. Left out, 600 times a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Rate>,
}

fn default_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8787))
}
const fn default_body() -> ByteSize {
    ByteSize::from_kib(1024)
}
const fn default_connections() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(1023)
}
const fn default_in_flight() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(255)
}
const fn default_header_timeout() -> TimeSpan {
    TimeSpan::from_millis(5_000)
}
const fn default_body_timeout() -> TimeSpan {
    TimeSpan::from_millis(10_000)
}
const fn default_idle_timeout() -> TimeSpan {
    TimeSpan::from_millis(60_000)
}

const fn default_sse() -> bool {
    true
}

impl Default for HttpListener {
    fn default() -> Self {
        Self {
            address: default_address(),
            hosts: Vec::new(),
            origins: Vec::new(),
            body: default_body(),
            connections: default_connections(),
            in_flight: default_in_flight(),
            header_timeout: default_header_timeout(),
            body_timeout: default_body_timeout(),
            idle_timeout: default_idle_timeout(),
            sse: default_sse(),
            tls: None,
            trusted_proxies: Vec::new(),
            failures: None,
        }
    }
}

/// TLS 1.2 and 1.3: the listener's own certificate, and whose certificates clients may show.
///
/// The files are read again when they change. Paths are relative to `callgate.yaml`.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsSpec {
    /// The certificate and those that lead to its root, in PEM, in this order.
    pub certificate: PathBuf,
    /// The certificate's private key, in PEM: a file that only its owner can open, or a secret's reference.
    #[serde(deserialize_with = "file_or_reference")]
    #[schemars(with = "String")]
    pub key: SecretRef,
    /// The authorities whose client certificates are taken, in PEM. Left out, no client is asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Whether a client has to show a certificate. Left out, it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificates {
    /// They may: others prove in another way who they are.
    Accept,
    /// They must: there is no connection without one.
    Require,
}

/// A path is a file; what begins with a word and a colon is a reference.
fn file_or_reference<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretRef, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() || text.contains("-----") || text.contains(char::is_control) {
        // The text is not repeated: it may be the key itself.
        return Err(de::Error::custom("a key is named by its file or by `env:NAME`, never written here"));
    }
    let is_word = |kind: &str| kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_reference = text.split_once(':').is_some_and(|(kind, _)| is_word(kind));
    if is_reference {
        SecretRef::deserialize(de::value::StringDeserializer::new(text))
    } else {
        Ok(SecretRef::File(text.into()))
    }
}

/// A host as `Host` names it: a name or an address, and perhaps a port (RFC 9110 §7.2).
///
/// Stricter than a URL parser on purpose: no percent-encoding, no IDNA, no `0x7f.1`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebHost {
    name: String,
    port: Option<u16>,
}

/// Why a text is not a host or an origin.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{}` is not {expected}", given.escape_debug())]
pub struct WebNameError {
    given: String,
    expected: &'static str,
}

impl WebHost {
    /// The name or address in lower case; an IPv6 address stands in brackets.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, where one is named.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    fn from_text(text: &str) -> Option<Self> {
        let (name, rest) = match text.strip_prefix('[') {
            Some(inner) => {
                let (address, rest) = inner.split_once(']')?;
                (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), rest)
            }
            None => {
                let (name, rest) = text.split_at_checked(text.find(':').unwrap_or(text.len()))?;
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                (name.bytes().all(fits) && !name.is_empty()).then(|| (name.to_ascii_lowercase(), rest))?
            }
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
            None if rest.is_empty() => None,
            None => return None,
        };
        Some(Self { name, port })
    }
}

impl fmt::Display for WebHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A web origin: scheme, host and port (RFC 6454 §4). `null` is none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebOrigin {
    scheme: String,
    name: String,
    /// Left out where the scheme has a port of its own.
    port: Option<u16>,
}

impl WebOrigin {
    fn from_text(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let begins = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        if !begins || !scheme.bytes().all(fits) {
            return None;
        }
        let WebHost { name, port } = WebHost::from_text(host)?;
        let scheme = scheme.to_ascii_lowercase();
        let own = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        Some(Self { scheme, name, port: port.filter(|port| Some(*port) != own) })
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

macro_rules! web_name {
    ($name:ident, $expected:literal) => {
        impl FromStr for $name {
            type Err = WebNameError;
            fn from_str(text: &str) -> Result<Self, WebNameError> {
                Self::from_text(text)
                    .ok_or_else(|| WebNameError { given: text.to_owned(), expected: $expected })
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $expected })
            }
        }
    };
}

web_name!(WebHost, "a host such as `gate.example.com`, `10.0.0.5:8787` or `[::1]`");
web_name!(WebOrigin, "an origin such as `https://app.example.com` or `http://localhost:3000`");

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<String> {
        text.parse::<WebHost>().ok().map(|host| host.to_string())
    }

    fn origin(text: &str) -> Option<String> {
        text.parse::<WebOrigin>().ok().map(|origin| origin.to_string())
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        assert_eq!(host("Gate.Example.com:8787").unwrap(), "gate.example.com:8787");
        assert_eq!(host("[0:0::1]:1").unwrap(), "[::1]:1");
        let others =
            ["", ":1", "a:", "a:b", "a:65536", "a:+1", "a:1:2", "u@a", "a/b", "a b", "%61", "é", "[::1"];
        for other in others.into_iter().chain(["::1", "[::1]x", "[a]", "a,b", "a\\b", "a\0"]) {
            assert_eq!(host(other), None, "{other}");
        }
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        assert_eq!(origin("HTTPS://App.example.com:443").unwrap(), "https://app.example.com");
        assert_eq!(origin("http://localhost:443").unwrap(), "http://localhost:443");
        for other in
            ["null", "", "a.com", "https://", "https://a/", "https://a?x", "https://u@a", "://a", "1a://b"]
        {
            assert_eq!(origin(other), None, "{other}");
        }
    }

    #[test]
    fn a_key_is_a_file_or_a_reference_and_never_the_key_itself() {
        let key = |text: &str| {
            let spec = serde_json::json!({ "certificate": "c.pem", "key": text });
            serde_json::from_value::<TlsSpec>(spec)
                .map(|spec| spec.key.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(key("tls/key.pem").unwrap(), "file:tls/key.pem");
        assert_eq!(key("file:tls/key.pem").unwrap(), "file:tls/key.pem");
        assert_eq!(key("env:TLS_KEY").unwrap(), "env:TLS_KEY");
        for wrong in ["", "s3:bucket", "-----BEGIN PRIVATE KEY-----\nhunter2"] {
            let refusal = key(wrong).unwrap_err();
            assert!(refusal.contains("never written here") && !refusal.contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn a_wrong_entry_is_said_with_what_is_expected() {
        insta::assert_snapshot!(
            "https://a/".parse::<WebHost>().unwrap_err(),
            @"`https://a/` is not a host such as `gate.example.com`, `10.0.0.5:8787` or `[::1]`"
        );
    }
}
