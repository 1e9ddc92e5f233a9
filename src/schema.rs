//! `Metered → Validated`: do the arguments fit the tool's JSON Schema?
//!
//! Schemas are JSON Schema 2020-12, compiled once at load, with a regex engine
//! that runs in linear time. They cannot fetch a URL or read a file. What a
//! validation costs is bounded before it runs, since none can be stopped half-way.

mod compiled;
mod cost;
mod graph;
mod lane;
mod lint;
mod pattern;
mod place;
mod share;
mod walk;

use std::{collections::HashMap, ops::Deref, sync::Arc};

use serde_json::Value;

use crate::{
    call::{Arguments, Facts, Passed, Refusal, Stage},
    hygiene::{Findings, Hidden, clean_value, inspect_value},
    limits::{Metered, whole_seconds},
    manifest::{TextRule, ToolName},
};

pub use compiled::{BadSchema, CompiledSchema, Mismatch, compile};
pub use cost::Estimate;
pub use lane::{Lane, Unchecked};
pub use lint::{Unbounded, unbounded};
pub(crate) use walk::each_schema;

/// A call whose arguments fit.
#[derive(Debug)]
pub struct Validated {
    metered: Metered,
    /// The arguments without what no reader sees, where they held some and the tool has it removed.
    cleaned: Option<Arguments>,
    hidden: Findings,
}

impl Validated {
    /// The arguments: what was validated is what is sent.
    #[must_use]
    pub fn arguments(&self) -> &Arguments {
        self.cleaned.as_ref().unwrap_or_else(|| self.metered.kind.arguments())
    }

    /// A call whose arguments hide nothing, and are not validated yet.
    fn read(metered: Metered) -> Result<Self, Hidden> {
        let mut read = Self { metered, cleaned: None, hidden: Findings::default() };
        let Some((at, findings)) = inspect_value(read.arguments().as_value()) else { return Ok(read) };
        match read.tool().manifest().text.arguments {
            TextRule::Refuse => Err(Hidden::Found { at, findings }),
            TextRule::Remove => {
                let mut cleaned = Value::Object(read.arguments().as_map().clone());
                read.hidden = clean_value(&mut cleaned)?;
                let Value::Object(cleaned) = cleaned else {
                    return Err(Hidden::Found { at, findings });
                };
                read.cleaned = Some(cleaned.into());
                Ok(read)
            }
        }
    }
}

impl Deref for Validated {
    type Target = Metered;
    fn deref(&self) -> &Metered {
        &self.metered
    }
}

impl Passed for Validated {
    const STAGE: Stage = Stage::Schema;
    fn describe(&self, facts: &mut Facts) {
        facts.hidden.arguments = self.hidden;
    }
}

/// Why arguments do not fit.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A value breaks a rule.
    #[error("arguments do not fit at `{on_record}`, rule `{rule}`")]
    Mismatch {
        /// The JSON pointer (RFC 6901) of the value.
        at: String,
        /// The same as it may stand on record.
        on_record: String,
        /// The keyword that failed.
        rule: String,
        /// What was expected, without the value.
        expected: String,
    },
    /// Whether they fit could not be found out.
    #[error("arguments not validated: {0}")]
    Unchecked(#[from] Unchecked),
    /// A text holds characters that no reader sees.
    #[error("{}", hidden.on_record(|at| schema.place_on_record(at)))]
    Hidden {
        /// What, and where.
        hidden: Hidden,
        /// The tool's schema, which says what of the place may stand on record.
        schema: Arc<CompiledSchema>,
    },
    /// The tool has no compiled schema: it is not of this release.
    #[error("tool `{tool}` has no compiled schema")]
    NotCompiled {
        /// The tool.
        tool: ToolName,
    },
}

impl Refusal for SchemaError {
    fn stage(&self) -> Stage {
        Stage::Schema
    }
    fn code(&self) -> &'static str {
        match self {
            Self::Mismatch { .. } => "arguments",
            Self::Unchecked(Unchecked::TooCostly) => "schema_too_costly",
            Self::Unchecked(Unchecked::Busy) => "schema_busy",
            Self::Unchecked(Unchecked::Share { .. }) => "schema_share",
            Self::Unchecked(Unchecked::Broken) => "schema_broken",
            Self::Hidden { hidden, .. } => hidden.code(),
            Self::NotCompiled { .. } => "not_compiled",
        }
    }
    fn public_message(&self) -> String {
        match self {
            Self::Mismatch { at, rule, expected, .. } => {
                format!("arguments do not fit: at `{at}`, {expected} (rule `{rule}`)")
            }
            Self::Hidden { hidden: Hidden::Found { at, findings }, .. } => {
                format!("arguments do not fit: the text at `{at}` holds {findings}; send it without them")
            }
            Self::Hidden { hidden: Hidden::Collision(collision), .. } => {
                format!("arguments do not fit: {collision}")
            }
            Self::Unchecked(Unchecked::TooCostly) => {
                "the arguments are too large or too deep to check".into()
            }
            Self::Unchecked(Unchecked::Busy) => {
                "too many costly calls at once: try again later, or with smaller arguments".into()
            }
            Self::Unchecked(Unchecked::Share { retry }) => format!(
                "rate limited: these arguments are costly to check; come back in {} s, or with smaller ones",
                whole_seconds(*retry)
            ),
            Self::Unchecked(Unchecked::Broken) | Self::NotCompiled { .. } => "temporarily unavailable".into(),
        }
    }
}

/// The compiled input schemas of a release.
#[derive(Debug, Default)]
pub struct Schemas {
    inputs: HashMap<ToolName, Arc<CompiledSchema>>,
}

impl Schemas {
    /// Adds the compiled input schema of a tool.
    pub fn insert(&mut self, tool: ToolName, input: Arc<CompiledSchema>) {
        self.inputs.insert(tool, input);
    }

    /// Checks the arguments of a call: in place where that is cheap, else on the lane for costly ones.
    ///
    /// # Errors
    /// The first rule that fails, and where; or that the check would cost too much.
    pub async fn validate(&self, metered: Metered, lane: &Lane) -> Result<Validated, SchemaError> {
        let schema = self.of(&metered)?;
        let client = Arc::clone(metered.caller().client());
        let validated = Validated::read(metered).map_err(|hidden| hides(hidden, schema))?;
        judge(
            lane.check(client.name(), schema, validated, |validated| validated.arguments().as_value())
                .await?,
        )
    }

    /// Checks the arguments of a call here, however long it takes within the hard bound: for rehearsals,
    /// which nobody else waits for.
    ///
    /// # Errors
    /// As [`Schemas::validate`].
    pub fn rehearse(&self, metered: Metered) -> Result<Validated, SchemaError> {
        let schema = self.of(&metered)?;
        let validated = Validated::read(metered).map_err(|hidden| hides(hidden, schema))?;
        let mismatch = lane::check_here(schema, validated.arguments().as_value())?;
        judge((validated, mismatch))
    }

    fn of(&self, metered: &Metered) -> Result<&Arc<CompiledSchema>, SchemaError> {
        let name = metered.tool().name();
        self.inputs.get(name).ok_or_else(|| SchemaError::NotCompiled { tool: name.clone() })
    }
}

fn hides(hidden: Hidden, schema: &Arc<CompiledSchema>) -> SchemaError {
    SchemaError::Hidden { hidden, schema: Arc::clone(schema) }
}

fn judge((validated, mismatch): (Validated, Option<Mismatch>)) -> Result<Validated, SchemaError> {
    mismatch.map_or(Ok(validated), |mismatch| Err(mismatch.into()))
}

impl From<Mismatch> for SchemaError {
    fn from(Mismatch { at, on_record, rule, expected }: Mismatch) -> Self {
        Self::Mismatch { at, on_record, rule, expected }
    }
}

#[cfg(test)]
mod bounds_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mismatch(value: Value) -> String {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["order_id"],
            "properties": {
                "order_id": { "type": "string", "pattern": "^ord_[a-z0-9]{8}$" },
                "amount": { "type": "integer", "minimum": 1 }
            }
        });
        let schema = compile(schema.as_object().unwrap()).unwrap();
        schema
            .first_mismatch(&value)
            .map_or_else(|| "fits".into(), |mismatch| SchemaError::from(mismatch).public_message())
    }

    #[test]
    fn arguments_that_fit_pass() {
        assert_eq!(mismatch(json!({"order_id": "ord_7f3k2m9q", "amount": 3})), "fits");
    }

    #[test]
    fn a_refusal_names_the_pointer_and_the_rule_and_not_the_value() {
        insta::assert_snapshot!(mismatch(json!({"order_id": "../../admin"})), @"arguments do not fit: at `/order_id`, value does not match \"^ord_[a-z0-9]{8}$\" (rule `pattern`)");
        insta::assert_snapshot!(mismatch(json!({})), @"arguments do not fit: at `/order_id`, a value is required (rule `required`)");
        insta::assert_snapshot!(mismatch(json!({"order_id": "ord_7f3k2m9q", "x/y": 1})), @"arguments do not fit: at `/x~1y`, no such argument (rule `additionalProperties`)");
        insta::assert_snapshot!(mismatch(json!({"order_id": "ord_7f3k2m9q", "amount": 0})), @"arguments do not fit: at `/amount`, value is less than the minimum of 1 (rule `minimum`)");
    }

    fn refusal(schema: Value) -> BadSchema {
        compile(schema.as_object().unwrap()).unwrap_err().swap_remove(0)
    }

    #[test]
    fn a_schema_reads_no_url_and_no_file() {
        for reference in ["http://127.0.0.1:1/x.json", "file:///etc/passwd", "other.json"] {
            let bad = refusal(json!({ "properties": { "a": { "$ref": reference } } }));
            assert!(!bad.message.is_empty(), "{reference}");
        }
    }

    #[test]
    fn a_pattern_that_backtracks_is_refused() {
        refusal(json!({ "properties": { "a": { "pattern": "(a)\\1" } } }));
        refusal(json!({ "properties": { "a": { "pattern": "(?=a)b" } } }));
    }

    #[test]
    fn a_misspelt_type_is_refused_with_its_place() {
        assert_eq!(refusal(json!({ "properties": { "a": { "type": "strin" } } })).at, "/properties/a/type");
    }

    #[test]
    fn an_unknown_format_is_refused_rather_than_ignored() {
        refusal(json!({ "properties": { "a": { "type": "string", "format": "no-such-format" } } }));
    }
}
