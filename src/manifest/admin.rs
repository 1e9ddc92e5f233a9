//! `listen: admin:`: where those who run the gate connect, and who they are.

use std::{collections::HashSet, net::SocketAddr, str::FromStr};

use jiff::civil::Date;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::KeyId;

/// The admin listener: for revocations, runs and keys.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdminListener {
    /// The address and port, on loopback; port 0 lets the system choose.
    #[serde(default = "default_address")]
    pub address: LoopbackAddress,
    /// The keys of those who may connect, one at least: `callgate keys new --admin NAME` makes one.
    pub keys: AdminKeys,
}

fn default_address() -> LoopbackAddress {
    LoopbackAddress(SocketAddr::from(([127, 0, 0, 1], 8788)))
}

/// Somebody who may connect, of whose key only a digest is kept.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdminKeySpec {
    /// The key's id: the second part of `cgadmin_<id>_<secret>`.
    pub id: KeyId,
    /// Who has it, as the record names them.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The SHA-256 of the key's secret part, in hexadecimal.
    pub sha256: SecretDigest,
    /// The first day, in UTC, on which the key no longer works.
    #[schemars(with = "String", extend("format" = "date"))]
    pub expires: Date,
}

/// The keys of the admin listener: one at least, each with an id of its own.
#[derive(Clone, Debug, JsonSchema, Serialize)]
#[schemars(transparent)]
pub struct AdminKeys(#[schemars(length(min = 1))] Vec<AdminKeySpec>);

impl AdminKeys {
    /// The keys.
    #[must_use]
    pub fn all(&self) -> &[AdminKeySpec] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for AdminKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = Vec::<AdminKeySpec>::deserialize(deserializer)?;
        if keys.is_empty() {
            return Err(de::Error::custom("the admin listener has no key: nobody could connect"));
        }
        let mut ids = HashSet::new();
        for key in &keys {
            if !(1..=128).contains(&key.name.len()) {
                return Err(de::Error::custom(format!(
                    "the name of admin key `{}` is not 1 to 128 bytes",
                    key.id
                )));
            }
            if !ids.insert(&key.id) {
                return Err(de::Error::custom(format!("the admin key id `{}` is there twice", key.id)));
            }
        }
        Ok(Self(keys))
    }
}

/// An address and port that only this machine can connect to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoopbackAddress(SocketAddr);

impl LoopbackAddress {
    /// The address and port.
    #[must_use]
    pub const fn socket(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for LoopbackAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("`{}` is not an address and port such as `127.0.0.1:8788`", text.escape_debug())
        })?;
        if !address.ip().is_loopback() {
            return Err(format!("`{address}` is not loopback: the admin listener has no TLS"));
        }
        Ok(Self(address))
    }
}

impl<'de> Deserialize<'de> for LoopbackAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for LoopbackAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl JsonSchema for LoopbackAddress {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LoopbackAddress".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A loopback address and port." })
    }
}

/// The SHA-256 of a key's secret part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for SecretDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut digest = [0; 32];
        // The text is not repeated: somebody may have written the secret here.
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut digest).map_err(|_| {
            de::Error::custom("a key's digest is 64 hexadecimal digits: the SHA-256 of its secret part")
        })?;
        Ok(Self(digest))
    }
}

impl Serialize for SecretDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl JsonSchema for SecretDigest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretDigest".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "The SHA-256 of a key's secret part, in hexadecimal."
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(listener: serde_json::Value) -> Result<AdminListener, String> {
        serde_json::from_value(listener).map_err(|error| error.to_string())
    }

    fn key(id: &str) -> serde_json::Value {
        json!({ "id": id, "name": "dana", "sha256": "ab".repeat(32), "expires": "2027-06-30" })
    }

    #[test]
    fn it_is_on_loopback_unless_the_file_does_not_load() {
        assert_eq!(read(json!({ "keys": [key("a1")] })).unwrap().address.socket().port(), 8788);
        assert!(read(json!({ "address": "[::1]:0", "keys": [key("a1")] })).is_ok());
        for open in ["0.0.0.0:8788", "[::]:8788", "10.0.0.5:8788"] {
            let refusal = read(json!({ "address": open, "keys": [key("a1")] })).unwrap_err();
            assert_eq!(refusal, format!("`{open}` is not loopback: the admin listener has no TLS"));
        }
        assert!(read(json!({ "address": "localhost:1", "keys": [key("a1")] })).is_err());
    }

    #[test]
    fn it_has_a_key_and_each_key_has_an_id_of_its_own() {
        assert!(read(json!({})).unwrap_err().contains("missing field `keys`"));
        insta::assert_snapshot!(
            read(json!({ "keys": [] })).unwrap_err(),
            @"the admin listener has no key: nobody could connect"
        );
        insta::assert_snapshot!(
            read(json!({ "keys": [key("a1"), key("a1")] })).unwrap_err(),
            @"the admin key id `a1` is there twice"
        );
    }

    #[test]
    fn a_written_secret_is_refused_as_a_digest_and_not_repeated() {
        let mut written = key("a1");
        written["sha256"] = "hunter2".into();
        insta::assert_snapshot!(
            read(json!({ "keys": [written] })).unwrap_err(),
            @"a key's digest is 64 hexadecimal digits: the SHA-256 of its secret part"
        );
    }
}
