//! `Metered → Validated`: do the arguments fit the tool's JSON Schema?
//!
//! Schemas are JSON Schema 2020-12, compiled once at load, with a regex engine
//! that runs in linear time. They cannot fetch a URL or read a file.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, LazyLock},
};

use jsonschema::{Draft, PatternOptions, Validator, error::ValidationErrorKind};
use serde_json::{Map, Value};

use crate::{
    call::{Arguments, Facts, Passed, Refusal, Stage},
    limits::Metered,
    manifest::{ToolName, join_pointer},
};

/// A call whose arguments fit.
#[derive(Debug)]
pub struct Validated {
    metered: Metered,
}

impl Validated {
    /// The arguments: what was validated is what is sent.
    #[must_use]
    pub fn arguments(&self) -> &Arguments {
        static NONE: LazyLock<Arguments> = LazyLock::new(|| Map::new().into());
        self.metered.kind.arguments().unwrap_or(&NONE)
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
    fn describe(&self, _: &mut Facts) {}
}

/// Why arguments do not fit.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A value breaks a rule.
    #[error("arguments do not fit at `{at}`, rule `{rule}`")]
    Mismatch {
        /// The JSON pointer (RFC 6901) of the value.
        at: String,
        /// The keyword that failed.
        rule: String,
        /// What was expected, without the value.
        expected: String,
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
            Self::NotCompiled { .. } => "not_compiled",
        }
    }
    fn public_message(&self) -> String {
        match self {
            Self::Mismatch { at, rule, expected } => {
                format!("arguments do not fit: at `{at}`, {expected} (rule `{rule}`)")
            }
            Self::NotCompiled { .. } => "temporarily unavailable".into(),
        }
    }
}

/// The compiled input schemas of a release.
#[derive(Debug, Default)]
pub struct Schemas {
    inputs: HashMap<ToolName, Arc<Validator>>,
}

impl Schemas {
    /// Adds the compiled input schema of a tool.
    pub fn insert(&mut self, tool: ToolName, input: Arc<Validator>) {
        self.inputs.insert(tool, input);
    }

    /// Checks the arguments of a call.
    ///
    /// # Errors
    /// The first rule that fails, and where.
    pub fn validate(&self, metered: Metered) -> Result<Validated, SchemaError> {
        let name = metered.tool().name();
        let schema = self.inputs.get(name).ok_or_else(|| SchemaError::NotCompiled { tool: name.clone() })?;
        let validated = Validated { metered };
        match first_mismatch(schema, validated.arguments().as_value()) {
            None => Ok(validated),
            Some(mismatch) => Err(mismatch.into()),
        }
    }
}

/// A rule of a schema that a value breaks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mismatch {
    /// The JSON pointer of the value.
    pub at: String,
    /// The keyword that failed.
    pub rule: String,
    /// What was expected, without the value.
    pub expected: String,
}

impl From<Mismatch> for SchemaError {
    fn from(Mismatch { at, rule, expected }: Mismatch) -> Self {
        Self::Mismatch { at, rule, expected }
    }
}

/// The first rule of a schema that a value breaks.
#[must_use]
pub fn first_mismatch(schema: &Validator, value: &Value) -> Option<Mismatch> {
    if schema.is_valid(value) {
        return None;
    }
    let error = schema.iter_errors(value).next()?;
    let at = error.instance_path().as_str();
    // What is missing, or too much, is named: that is where a model has to mend its call.
    let at = match error.kind() {
        ValidationErrorKind::Required { property } => join_pointer(at, property.as_str().unwrap_or_default()),
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            join_pointer(at, unexpected.first().map_or("", String::as_str))
        }
        _ => at.to_owned(),
    };
    Some(Mismatch { at, rule: error.kind().keyword().to_owned(), expected: expected(&error) })
}

/// What was expected, in words that repeat nothing of the value.
fn expected(error: &jsonschema::ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Required { .. } => "a value is required".into(),
        ValidationErrorKind::AdditionalProperties { .. }
        | ValidationErrorKind::UnevaluatedProperties { .. } => "no such argument".into(),
        _ => error.masked().to_string(),
    }
}

/// The largest compiled pattern, in bytes: more than any sensible pattern takes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Why a schema does not compile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadSchema {
    /// The JSON pointer into the schema.
    pub at: String,
    /// What is wrong.
    pub message: String,
}

/// Compiles a schema.
///
/// # Errors
/// When it is not a JSON Schema 2020-12, names a format nobody knows, needs a
/// pattern that backtracks, or refers to another document.
pub fn compile(schema: &Map<String, Value>) -> Result<Validator, BadSchema> {
    let schema = Value::Object(schema.clone());
    if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
        return Err(BadSchema { at: error.instance_path().as_str().to_owned(), message: error.to_string() });
    }
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX))
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .build(&schema)
        .map_err(|error| BadSchema {
            at: error.instance_path().as_str().to_owned(),
            message: error.to_string(),
        })
}

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
        first_mismatch(&schema, &value)
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
        compile(schema.as_object().unwrap()).unwrap_err()
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
