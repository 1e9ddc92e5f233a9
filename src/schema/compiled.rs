//! A schema, compiled, with a bound of what it costs.

use jsonschema::{Draft, Validator, error::ValidationErrorKind};
use serde_json::{Map, Value};

use super::{
    cost::{self, Cost, Estimate},
    graph, pattern,
    place::Declared,
};
use crate::manifest::join_pointer;

/// The most steps that finding words for a mismatch may take. The validator remembers verdicts, and not
/// reasons: on a schema that branches and recurs, the reason can take 10⁶ times as long as the verdict.
const REASON_STEPS_MAX: u64 = 200_000;

/// A schema that can be run.
#[derive(Debug)]
pub struct CompiledSchema {
    validator: Validator,
    cost: Cost,
    declared: Declared,
}

/// A rule of a schema that a value breaks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mismatch {
    /// The JSON pointer of the value.
    pub at: String,
    /// The same as it may stand on record.
    pub on_record: String,
    /// The keyword that failed.
    pub rule: String,
    /// What was expected, without the value.
    pub expected: String,
}

impl CompiledSchema {
    /// What a validation of this value costs at most.
    #[must_use]
    pub fn estimate(&self, value: &Value) -> Estimate {
        self.cost.estimate(value)
    }

    /// The first rule that a value breaks. Costs what [`CompiledSchema::estimate`] says.
    #[must_use]
    pub fn first_mismatch(&self, value: &Value) -> Option<Mismatch> {
        if self.validator.is_valid(value) {
            return None;
        }
        Some(if self.estimate(value).reason <= REASON_STEPS_MAX { self.reason(value) } else { unnamed() })
    }

    /// A place in a value as it may stand on record: names that the schema does not give are masked.
    #[must_use]
    pub fn place_on_record(&self, pointer: &str) -> String {
        self.declared.masked(pointer)
    }

    fn reason(&self, value: &Value) -> Mismatch {
        let Err(error) = self.validator.validate(value) else { return unnamed() };
        let at = error.instance_path().as_str();
        // What is missing, or too much, is named: that is where a model has to mend its call.
        let at = match error.kind() {
            ValidationErrorKind::Required { property } => {
                join_pointer(at, property.as_str().unwrap_or_default())
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                join_pointer(at, unexpected.first().map_or("", String::as_str))
            }
            _ => at.to_owned(),
        };
        let on_record = self.place_on_record(&at);
        Mismatch { at, on_record, rule: error.kind().keyword().to_owned(), expected: expected(&error) }
    }
}

/// A mismatch whose place would take too long to find.
fn unnamed() -> Mismatch {
    Mismatch {
        at: String::new(),
        on_record: String::new(),
        rule: "schema".into(),
        expected: "the value does not fit, and is too large or too deep to say where".into(),
    }
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

/// Why a schema does not compile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadSchema {
    /// The JSON pointer into the schema.
    pub at: String,
    /// The rule that it breaks: a keyword, or `cycle`, `fan-out`, `chain`, `depth`, `subschemas`.
    pub rule: String,
    /// What is wrong.
    pub message: String,
}

/// Compiles a schema.
///
/// # Errors
/// All that is wrong with it: it is not a JSON Schema 2020-12, names a format nobody knows, needs a
/// pattern that backtracks, refers to anything but a place in itself, or its cost has no bound.
pub fn compile(schema: &Map<String, Value>) -> Result<CompiledSchema, Vec<BadSchema>> {
    let mut schema = schema.clone();
    let (graph, mut bad) = graph::read(&Value::Object(schema.clone()));
    // A name for the whole document changes no reference within it, and no other reference is taken.
    schema.remove("$id");
    let schema = Value::Object(schema);
    if !bad.iter().any(|bad| matches!(&*bad.rule, "depth" | "subschemas")) {
        let broken = jsonschema::draft202012::meta::validator()
            .iter_errors(&schema)
            .map(|e| from(&e))
            .collect::<Vec<_>>();
        bad.extend(broken);
    }
    let cost = match cost::of(&graph) {
        Ok(cost) if bad.is_empty() => cost,
        Ok(_) => return Err(bad),
        Err(unbounded) => {
            bad.extend(unbounded);
            return Err(bad);
        }
    };
    let validator = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(pattern::options())
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .build(&schema)
        .map_err(|error| vec![from(&error)])?;
    let declared = schema.as_object().map(Declared::of).unwrap_or_default();
    Ok(CompiledSchema { validator, cost, declared })
}

fn from(error: &jsonschema::ValidationError<'_>) -> BadSchema {
    BadSchema {
        at: error.instance_path().as_str().to_owned(),
        // A format that nobody knows has no keyword of its own.
        rule: match error.kind().keyword() {
            "" => "format".to_owned(),
            keyword => keyword.to_owned(),
        },
        message: error.to_string(),
    }
}
