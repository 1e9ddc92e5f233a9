//! How the record is kept: `record` in `callgate.yaml`, and of a tool.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Age, BaseUrl, ByteSize, EgressSpec, SecretRef};

/// How the record of all calls is kept and signed.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecordSpec {
    /// The name that the logs sign under, such as `gate.example.com/prod`. Left out, a random one is made
    /// with the state folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<LogOrigin>,
    /// Where the Ed25519 key is that signs checkpoints. Left out, one is made in the state folder: then
    /// whoever steals the disk has it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SecretRef>,
    /// The public keys that signed before the present one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_keys: Vec<String>,
    /// Below so many free bytes no new call is taken.
    #[serde(default = "default_reserve")]
    pub reserve: ByteSize,
    /// The encrypted store of what the log itself must not hold.
    #[serde(default)]
    pub bodies: BodiesSpec,
    /// Witnesses that cosign checkpoints (C2SP tlog-witness).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<WitnessSpec>,
}

impl Default for RecordSpec {
    fn default() -> Self {
        Self {
            origin: None,
            key: None,
            previous_keys: Vec::new(),
            reserve: default_reserve(),
            bodies: BodiesSpec::default(),
            witnesses: Vec::new(),
        }
    }
}

/// A witness of the log.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WitnessSpec {
    /// Its submission prefix: `/add-checkpoint` is added to it.
    pub url: BaseUrl,
    /// Its public key, as a signed-note verifier key.
    pub key: String,
    /// Which addresses it may be reached at besides public ones. Left out, none.
    #[serde(default, skip_serializing_if = "EgressSpec::is_closed")]
    pub egress: EgressSpec,
}

/// Salts, and the arguments and results of tools that say `record: full`: encrypted, bounded, erasable.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BodiesSpec {
    /// Where the key is that encrypts it: 32 bytes in base64. Left out, one is made in the state folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SecretRef>,
    /// How large the store of one log may become; the oldest goes first.
    #[serde(default = "default_size")]
    pub size: ByteSize,
    /// How long something is kept.
    #[serde(default = "default_age")]
    pub age: Age,
}

impl Default for BodiesSpec {
    fn default() -> Self {
        Self { key: None, size: default_size(), age: default_age() }
    }
}

const fn default_reserve() -> ByteSize {
    ByteSize::from_kib(64 << 10)
}
const fn default_size() -> ByteSize {
    ByteSize::from_kib(1 << 20)
}
const fn default_age() -> Age {
    Age::from_days(30)
}

/// What the record of a tool's calls holds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToolRecord {
    /// Salted digests of arguments and results.
    #[default]
    Digests,
    /// The arguments and the released result too, encrypted, beside the log.
    Full,
}

impl ToolRecord {
    /// Is it what a tool gets that says nothing?
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The name that logs sign under: no spaces, no `+`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogOrigin(String);

/// How long an origin may be.
const ORIGIN_CHARS_MAX: usize = 200;

impl LogOrigin {
    /// Parses an origin.
    ///
    /// # Errors
    /// When it cannot stand in a signed note.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/:".contains(c);
        let named = text.chars().all(plain) && !text.is_empty() && text.len() <= ORIGIN_CHARS_MAX;
        if !named || text.starts_with('/') || text.ends_with('/') {
            return Err(format!(
                "`{}` is no origin: a name such as `gate.example.com/prod`, of at most {ORIGIN_CHARS_MAX} \
                 letters, digits and `-._~/:`, with no `/` at either end",
                text.chars().take(60).collect::<String>().escape_debug()
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The origin as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for LogOrigin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for LogOrigin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JsonSchema for LogOrigin {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LogOrigin".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[A-Za-z0-9._~:-]([A-Za-z0-9._~:/-]*[A-Za-z0-9._~:-])?$",
            "maxLength": ORIGIN_CHARS_MAX,
            "description": "The name that logs sign under, such as `gate.example.com/prod`."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_can_stand_in_a_note() {
        for fine in ["gate.example.com/prod", "g", "a/b/c", "callgate.local/00ff"] {
            assert_eq!(LogOrigin::parse(fine).unwrap().as_str(), fine);
        }
        let long = "a".repeat(201);
        for wrong in ["", "/", "a/", "/a", "a b", "a+b", "a\n", "ä", long.as_str()] {
            assert!(LogOrigin::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
