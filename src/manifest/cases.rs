//! `policies/*.cases.yaml`: calls, and the decision that each should get.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use super::{ClientName, GroupName, Label, ResourceUri, ToolName};

/// A file of cases.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "Callgate policy cases")]
pub struct CasesFile {
    /// The cases.
    pub cases: Vec<Case>,
}

/// One question to the policies, and its answer.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    /// What the case shows.
    pub name: String,
    /// Who calls.
    pub client: ClientName,
    /// The tool that is called, or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolName>,
    /// the URI that is read, or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceUri>,
    /// the prompt that is asked for, or
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<ToolName>,
    /// the label whose fields are about to leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Label>,
    /// The arguments of the call.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
    /// The labels that the run has seen so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// The decision.
    pub expect: Expectation,
}

/// What should become of a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Expectation {
    /// It may go.
    Allow,
    /// It is refused.
    Deny(Denial),
    /// It waits for these groups.
    Pending(Vec<GroupName>),
}

/// Where a call should be refused, and by what.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// The guard that refuses.
    pub deny: DenyStage,
    /// For `arguments`: the JSON pointer of the argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// For `policy`: the `@id` of a policy that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A guard that refuses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DenyStage {
    /// The tool does not exist for the caller.
    Tool,
    /// The caller lacks a scope.
    Scope,
    /// The arguments do not fit the schema.
    Arguments,
    /// The policies do not permit it.
    Policy,
}

impl DenyStage {
    /// The word that stands for it in files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Scope => "scope",
            Self::Arguments => "arguments",
            Self::Policy => "policy",
        }
    }
}

impl std::fmt::Display for Expectation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Deny(denial) => {
                write!(f, "deny by {}", denial.deny.word())?;
                if let Some(at) = &denial.at {
                    write!(f, " at `{at}`")?;
                }
                denial.by.as_ref().map_or(Ok(()), |by| write!(f, " `{by}`"))
            }
            Self::Pending(groups) => {
                let groups: Vec<&str> = groups.iter().map(GroupName::as_str).collect();
                write!(f, "pending {}", groups.join(", "))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Expectation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Expectation;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`allow`, `{ deny: GUARD }` or `{ pending: [GROUP] }`")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Expectation, E> {
                match word {
                    "allow" => Ok(Expectation::Allow),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Expectation, A::Error> {
                let mut members = BTreeMap::<String, Value>::new();
                while let Some((key, value)) = map.next_entry()? {
                    members.insert(key, value);
                }
                let value = Value::Object(members.into_iter().collect());
                if value.get("pending").is_some() {
                    let Pending { pending } = serde_json::from_value(value).map_err(de::Error::custom)?;
                    return Ok(Expectation::Pending(pending));
                }
                serde_json::from_value(value).map(Expectation::Deny).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[derive(Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    pending: Vec<GroupName>,
}

impl Serialize for Expectation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Allow => serializer.serialize_str("allow"),
            Self::Deny(denial) => denial.serialize(serializer),
            Self::Pending(groups) => Pending { pending: groups.clone() }.serialize(serializer),
        }
    }
}

impl JsonSchema for Expectation {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Expectation".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let denial = generator.subschema_for::<Denial>();
        let pending = generator.subschema_for::<Pending>();
        json_schema!({
            "description": "What should become of the call.",
            "anyOf": [{ "const": "allow" }, denial, pending]
        })
    }
}
