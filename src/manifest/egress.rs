//! Where a service's calls may go, and which servers are asked for names.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Which addresses a service may be reached at besides public ones. Left out, none.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EgressSpec {
    /// Private and other special-purpose networks that may be called. Neither loopback nor metadata.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private: Vec<Network>,
    /// Whether this machine may be called: `127.0.0.0/8` and `::1`. The gate's own listeners never are.
    #[serde(default)]
    pub loopback: bool,
    /// The addresses of cloud metadata services that may be called, each named on its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub metadata: Vec<IpAddr>,
}

impl EgressSpec {
    /// Whether it allows nothing beyond public addresses.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.private.is_empty() && !self.loopback && self.metadata.is_empty()
    }
}

/// Who is asked for the addresses of names, in place of the system.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DnsSpec {
    /// The servers, one at least. Nobody else is asked, and the hosts file is not read.
    #[schemars(length(min = 1))]
    pub servers: Vec<DnsServer>,
}

/// A network, such as `10.0.0.0/8`: no bits beyond the prefix, and not every address there is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Network(IpNet);

/// Why a text is not a network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NetworkError {
    /// It is neither an address nor a network.
    #[error("`{}` is not a network such as `10.0.0.0/8`", .0.escape_debug())]
    Unreadable(String),
    /// It is an address.
    #[error("`{0}` has no prefix length: write `{host}`", host = IpNet::from(*.0))]
    NoLength(IpAddr),
    /// An address inside of a network is written for the network.
    #[error("`{0}` has bits beyond its prefix: write `{trunc}`", trunc = .0.trunc())]
    HostBits(IpNet),
    /// It is every address.
    #[error("`{0}` is every address: name the networks that are needed")]
    Everything(IpNet),
}

impl Network {
    /// The network.
    #[must_use]
    pub const fn net(&self) -> IpNet {
        self.0
    }
}

impl FromStr for Network {
    type Err = NetworkError;
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let net: IpNet = text.parse().map_err(|_| match text.parse::<IpAddr>() {
            Ok(address) => NetworkError::NoLength(address),
            Err(_) => NetworkError::Unreadable(text.to_owned()),
        })?;
        if net.prefix_len() == 0 {
            return Err(NetworkError::Everything(net));
        }
        if net != net.trunc() {
            return Err(NetworkError::HostBits(net));
        }
        Ok(Self(net))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9A-Fa-f.:]+/[0-9]{1,3}$",
            "description": "A network, such as `10.0.0.0/8` or `fd00::/8`."
        })
    }
}

/// A DNS server: an address, with port 53 where none is named.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DnsServer(SocketAddr);

impl DnsServer {
    /// The address and the port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.0
    }
}

impl FromStr for DnsServer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
        match address {
            Ok(address) if address.port() != 0 && !address.ip().is_unspecified() => Ok(Self(address)),
            _ => Err(format!(
                "`{}` is not the address of a server, such as `10.0.0.2` or `127.0.0.1:5353`",
                text.escape_debug()
            )),
        }
    }
}

impl<'de> Deserialize<'de> for DnsServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for DnsServer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl JsonSchema for DnsServer {
    fn schema_name() -> Cow<'static, str> {
        "DnsServer".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "The address of a DNS server, such as `10.0.0.2` or `127.0.0.1:5353`."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_not_one_is_told_what_to_write() {
        let refusals = ["ten", "10.0.0.0/33", "10.1.2.3", "fd00::1", "10.1.2.3/8", "0.0.0.0/0", "::/0"]
            .map(|text| text.parse::<Network>().unwrap_err().to_string());
        insta::assert_snapshot!(refusals.join("\n"), @r"
        `ten` is not a network such as `10.0.0.0/8`
        `10.0.0.0/33` is not a network such as `10.0.0.0/8`
        `10.1.2.3` has no prefix length: write `10.1.2.3/32`
        `fd00::1` has no prefix length: write `fd00::1/128`
        `10.1.2.3/8` has bits beyond its prefix: write `10.0.0.0/8`
        `0.0.0.0/0` is every address: name the networks that are needed
        `::/0` is every address: name the networks that are needed
        ");
        for text in ["10.0.0.0/8", "10.1.2.3/32", "fd00::/8"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_dns_server_is_an_address_and_has_port_53_unless_it_names_another() {
        let address = |text: &str| text.parse::<DnsServer>().map(|server| server.address().to_string());
        assert_eq!(address("10.0.0.2").unwrap(), "10.0.0.2:53");
        assert_eq!(address("127.0.0.1:5353").unwrap(), "127.0.0.1:5353");
        assert_eq!(address("[fd00::1]:53").unwrap(), "[fd00::1]:53");
        assert_eq!(address("fd00::1").unwrap(), "[fd00::1]:53");
        for text in ["", "dns.example.com", "10.0.0.2:0", "0.0.0.0", "10.0.0.2:99999"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_left_out_allows_nothing() {
        let spec: EgressSpec = serde_json::from_str("{}").unwrap();
        assert!(spec.is_closed());
        assert!(serde_json::from_str::<EgressSpec>(r#"{ "public": true }"#).is_err());
        assert!(serde_json::from_str::<EgressSpec>(r#"{ "loopback": "yes" }"#).is_err());
    }
}
