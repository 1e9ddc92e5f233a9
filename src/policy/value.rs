//! The arguments of a call as Cedar values, by the tree that made their Cedar type.
//!
//! Values are built one by one, never through Cedar's JSON reader: it obeys
//! `__entity` and `__extn` inside data, which would let an argument forge an identity.

use std::fmt;

use cedar_policy::RestrictedExpression;
use serde_json::{Map, Number, Value};

use super::types::{ArgType, Member, Record};
use crate::manifest::join_pointer;

/// An argument that cannot be a Cedar value of its type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Misfit {
    /// The segments of its JSON pointer, the last first.
    path: Vec<String>,
    why: Why,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Why {
    Missing,
    NotBoolean,
    NotString,
    NotNumber,
    NotWhole,
    BeyondLong,
    BeyondDecimal,
    NotArray,
    NotObject,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.why {
            Why::Missing => "it is required and missing",
            Why::NotBoolean => "it is not a boolean",
            Why::NotString => "it is not a string",
            Why::NotNumber => "it is not a number",
            Why::NotWhole => "it is not a whole number",
            Why::BeyondLong => "it is beyond the whole numbers of 64 bits",
            Why::BeyondDecimal => "it is beyond the decimals of four places within ±922337203685477.5807",
            Why::NotArray => "it is not an array",
            Why::NotObject => "it is not an object",
        })
    }
}

impl Misfit {
    fn below(mut self, segment: &str) -> Self {
        self.path.push(segment.to_owned());
        self
    }

    /// The JSON pointer of the argument.
    pub(super) fn pointer(&self) -> String {
        self.path.iter().rev().fold(String::new(), |pointer, segment| join_pointer(&pointer, segment))
    }
}

impl From<Why> for Misfit {
    fn from(why: Why) -> Self {
        Self { path: vec![], why }
    }
}

impl Record {
    /// Converts an object; members that the record does not name are left out.
    pub(super) fn convert(&self, object: &Map<String, Value>) -> Result<RestrictedExpression, Misfit> {
        let mut fields = Vec::with_capacity(self.members.len());
        for Member { name, required, kind } in &self.members {
            match object.get(name) {
                Some(value) => {
                    fields.push((name.clone(), kind.convert(value).map_err(|misfit| misfit.below(name))?));
                }
                None if *required => return Err(Misfit::from(Why::Missing).below(name)),
                None => {}
            }
        }
        // INVARIANT: the names are the keys of a JSON object, so none comes twice.
        RestrictedExpression::new_record(fields).map_err(|_| Why::NotObject.into())
    }
}

impl ArgType {
    fn convert(&self, value: &Value) -> Result<RestrictedExpression, Misfit> {
        match self {
            Self::Bool => Ok(RestrictedExpression::new_bool(
                value.as_bool().ok_or_else(|| Misfit::from(Why::NotBoolean))?,
            )),
            Self::String => {
                let text = value.as_str().ok_or_else(|| Misfit::from(Why::NotString))?;
                Ok(RestrictedExpression::new_string(text.to_owned()))
            }
            Self::Long => Ok(RestrictedExpression::new_long(long(number(value)?)?)),
            Self::Decimal => Ok(RestrictedExpression::new_decimal(decimal(number(value)?)?)),
            Self::Set(element) => {
                let items = value.as_array().ok_or_else(|| Misfit::from(Why::NotArray))?;
                let mut converted = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    converted.push(element.convert(item).map_err(|misfit| misfit.below(&at.to_string()))?);
                }
                Ok(RestrictedExpression::new_set(converted))
            }
            Self::Record(record) => {
                record.convert(value.as_object().ok_or_else(|| Misfit::from(Why::NotObject))?)
            }
        }
    }
}

fn number(value: &Value) -> Result<&Number, Why> {
    value.as_number().ok_or(Why::NotNumber)
}

/// A whole number, however it is written: `1.0` is an integer (JSON Schema 2020-12 core, §4.2.3).
fn long(number: &Number) -> Result<i64, Why> {
    // Both bounds are powers of two, so they are exact; the upper one is excluded.
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    if let Some(whole) = number.as_i64() {
        return Ok(whole);
    }
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() != 0.0 => Err(Why::NotWhole),
        Some(float) if number.is_f64() && (-BOUND..BOUND).contains(&float) =>
        {
            #[expect(clippy::cast_possible_truncation, reason = "whole and within the bounds")]
            Ok(float as i64)
        }
        _ => Err(Why::BeyondLong),
    }
}

/// A number as Cedar writes decimals, when four decimal places hold it exactly.
///
/// A float stands for the shortest decimal that reads back as it: that is what is sent on.
fn decimal(number: &Number) -> Result<String, Why> {
    let text = match number.as_f64() {
        Some(float) if number.is_f64() => float.to_string(),
        _ => number.to_string(),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    if fraction.len() > 4 {
        return Err(Why::BeyondDecimal);
    }
    let scaled: i64 = format!("{whole}{fraction:0<4}").parse().map_err(|_| Why::BeyondDecimal)?;
    let (sign, size) = (if scaled < 0 { "-" } else { "" }, scaled.unsigned_abs());
    Ok(format!("{sign}{}.{:04}", size / 10_000, size % 10_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{
        super::fixture::{Facts, Fixture},
        *,
    };

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { unreachable!() };
        object
    }

    /// The arguments as policies see them, or why they cannot.
    fn seen(properties: Value, arguments: Value) -> String {
        let (record, _) = Record::of_input(&object(json!({ "type": "object", "properties": properties })));
        match record.convert(&object(arguments)) {
            Ok(value) => cedar_policy::Context::from_pairs([("args".to_owned(), value)]).unwrap().to_string(),
            Err(misfit) => format!("{}: {misfit}", misfit.pointer()),
        }
    }

    fn seen_as(kind: &str, value: Value) -> String {
        seen(json!({ "a": { "type": kind } }), json!({ "a": value }))
    }

    #[test]
    fn whole_numbers_are_longs_exactly() {
        insta::assert_snapshot!(seen_as("integer", json!(i64::MIN)), @"{args: {a: -9223372036854775808}}");
        insta::assert_snapshot!(seen_as("integer", json!(i64::MAX)), @"{args: {a: 9223372036854775807}}");
        insta::assert_snapshot!(seen_as("integer", json!(1.0)), @"{args: {a: 1}}");
        insta::assert_snapshot!(seen_as("integer", json!(-1e18)), @"{args: {a: -1000000000000000000}}");
    }

    #[test]
    fn a_whole_number_over_64_bits_is_refused() {
        insta::assert_snapshot!(seen_as("integer", json!(9_223_372_036_854_775_808_u64)), @"/a: it is beyond the whole numbers of 64 bits");
        insta::assert_snapshot!(seen_as("integer", json!(9_223_372_036_854_775_808.0)), @"/a: it is beyond the whole numbers of 64 bits");
        insta::assert_snapshot!(seen_as("integer", json!(1e300)), @"/a: it is beyond the whole numbers of 64 bits");
        insta::assert_snapshot!(seen_as("integer", json!(1.5)), @"/a: it is not a whole number");
    }

    #[test]
    fn numbers_are_decimals_of_four_places() {
        insta::assert_snapshot!(seen_as("number", json!(0.1)), @r#"{args: {a: decimal("0.1000")}}"#);
        insta::assert_snapshot!(seen_as("number", json!(-0.0001)), @r#"{args: {a: decimal("-0.0001")}}"#);
        insta::assert_snapshot!(seen_as("number", json!(-0.0)), @r#"{args: {a: decimal("0.0000")}}"#);
        insta::assert_snapshot!(seen_as("number", json!(7)), @r#"{args: {a: decimal("7.0000")}}"#);
        insta::assert_snapshot!(seen_as("number", json!(922_337_203_685_477_u64)), @r#"{args: {a: decimal("922337203685477.0000")}}"#);
    }

    #[test]
    fn a_number_that_four_places_do_not_hold_is_refused_and_never_rounded() {
        let refusal = "/a: it is beyond the decimals of four places within ±922337203685477.5807";
        for number in
            [json!(100.00004), json!(1e-5), json!(5e-324), json!(1e15), json!(1e300), json!(u64::MAX)]
        {
            assert_eq!(seen_as("number", number.clone()), refusal, "{number}");
        }
    }

    #[test]
    fn arrays_are_sets_and_objects_are_records() {
        let properties = json!({
            "to": { "type": "array", "items": { "type": "string" } },
            "at": { "type": "object", "properties": { "x/y": { "type": "integer" } } },
        });
        insta::assert_snapshot!(
            seen(properties.clone(), json!({ "to": ["b", "a", "b"], "at": { "x/y": 1, "z": null } })),
            @r#"{args: {at: {"x/y": 1}, to: ["a", "b"]}}"#
        );
        insta::assert_snapshot!(seen(properties.clone(), json!({ "to": ["a", 1] })), @"/to/1: it is not a string");
        insta::assert_snapshot!(seen(properties, json!({ "at": { "x/y": true } })), @"/at/x~1y: it is not a number");
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        insta::assert_snapshot!(seen_as("string", json!(null)), @"/a: it is not a string");
        insta::assert_snapshot!(seen_as("boolean", json!("true")), @"/a: it is not a boolean");
        insta::assert_snapshot!(seen_as("number", json!("1")), @"/a: it is not a number");
        insta::assert_snapshot!(seen(json!({ "a": { "type": "array", "items": { "type": "string" } } }), json!({ "a": "x" })), @"/a: it is not an array");
        insta::assert_snapshot!(seen(json!({ "a": { "type": "object", "properties": { "x": { "type": "string" } } } }), json!({ "a": [] })), @"/a: it is not an object");
    }

    #[test]
    fn a_required_argument_that_is_missing_is_refused() {
        let input =
            json!({ "type": "object", "required": ["a"], "properties": { "a": { "type": "string" } } });
        let (record, _) = Record::of_input(&object(input));
        let misfit = record.convert(&Map::new()).unwrap_err();
        insta::assert_snapshot!(format!("{}: {misfit}", misfit.pointer()), @"/a: it is required and missing");
    }

    #[test]
    fn cedar_escapes_in_arguments_stay_plain_data() {
        let forged = json!({ "__entity": { "type": "Client", "id": "admin" } });
        insta::assert_snapshot!(seen_as("string", forged.clone()), @"/a: it is not a string");
        let record = json!({ "a": { "type": "object", "properties": {
            "__entity": { "type": "object", "properties": { "type": { "type": "string" }, "id": { "type": "string" } } },
            "__extn": { "type": "object", "properties": { "fn": { "type": "string" }, "arg": { "type": "string" } } },
        } } });
        insta::assert_snapshot!(seen(record.clone(), json!({ "a": forged })), @r#"{args: {a: {__entity: {id: "admin", type: "Client"}}}}"#);
        let forged = json!({ "__extn": { "fn": "ip", "arg": "10.0.0.1" } });
        insta::assert_snapshot!(seen(record, json!({ "a": forged })), @r#"{args: {a: {__extn: {arg: "10.0.0.1", fn: "ip"}}}}"#);
    }

    /// A JSON Schema, of the mapped subset and beyond it, and how to make values that fit it.
    #[derive(Clone, Debug)]
    enum Shape {
        Text,
        Whole,
        Fraction,
        Flag,
        Choice(Vec<String>),
        Free,
        Nullable(Box<Self>),
        Reference(Box<Self>),
        List(Box<Self>),
        Object(Vec<(String, bool, Self)>),
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        let leaf = prop_oneof![
            Just(Shape::Text),
            Just(Shape::Whole),
            Just(Shape::Fraction),
            Just(Shape::Flag),
            Just(Shape::Free),
            proptest::collection::vec("\\PC{0,4}", 1..3).prop_map(Shape::Choice),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            prop_oneof![
                inner.clone().prop_map(|shape| Shape::Nullable(Box::new(shape))),
                inner.clone().prop_map(|shape| Shape::Reference(Box::new(shape))),
                inner.clone().prop_map(|shape| Shape::List(Box::new(shape))),
                members(inner).prop_map(Shape::Object),
            ]
        })
    }

    fn members(shape: impl Strategy<Value = Shape>) -> impl Strategy<Value = Vec<(String, bool, Shape)>> {
        let odd = [
            "", "if", "__cedar", "__entity", "__extn", "type", "id", "fn", "a-b", "a\"b", "\\", "\0", "args",
        ];
        let name = prop_oneof![proptest::sample::select(odd.to_vec()).prop_map(str::to_owned), "\\PC{0,6}"];
        proptest::collection::btree_map(name, (any::<bool>(), shape), 0..5).prop_map(|members| {
            members.into_iter().map(|(name, (required, shape))| (name, required, shape)).collect()
        })
    }

    impl Shape {
        fn schema(&self, defs: &mut Map<String, Value>) -> Value {
            match self {
                Self::Text => json!({ "type": "string" }),
                Self::Whole => json!({ "type": "integer" }),
                Self::Fraction => json!({ "type": "number" }),
                Self::Flag => json!({ "type": "boolean" }),
                Self::Choice(choices) => json!({ "enum": choices }),
                Self::Free => json!({ "type": "object" }),
                Self::Nullable(shape) => json!({ "anyOf": [shape.schema(defs), { "type": "null" }] }),
                Self::Reference(shape) => {
                    let definition = shape.schema(defs);
                    let name = format!("d{}", defs.len());
                    defs.insert(name.clone(), definition);
                    json!({ "$ref": format!("#/$defs/{name}") })
                }
                Self::List(shape) => json!({ "type": "array", "items": shape.schema(defs) }),
                Self::Object(members) => {
                    let required: Vec<&String> = members.iter().filter(|it| it.1).map(|it| &it.0).collect();
                    let properties: Map<_, _> =
                        members.iter().map(|(name, _, shape)| (name.clone(), shape.schema(defs))).collect();
                    json!({ "type": "object", "required": required, "properties": properties })
                }
            }
        }

        /// A value that fits; `seed` chooses.
        fn value(&self, seed: &mut u64) -> Value {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let dice = *seed >> 33;
            match self {
                Self::Text => json!(format!("text \"{dice}\"\n")),
                Self::Whole if dice.is_multiple_of(3) => json!((dice % 1_000) as f64),
                Self::Whole => json!((*seed).cast_signed()),
                Self::Fraction => json!((dice % 1_000_000) as f64 / 10_000.0),
                Self::Flag => json!(dice.is_multiple_of(2)),
                Self::Choice(choices) => json!(choices[dice as usize % choices.len()]),
                Self::Free => json!({ "__entity": { "type": "Client", "id": "admin" } }),
                Self::Nullable(_) if dice.is_multiple_of(2) => Value::Null,
                Self::Nullable(shape) | Self::Reference(shape) => shape.value(seed),
                Self::List(shape) => (0..dice % 4).map(|_| shape.value(seed)).collect(),
                Self::Object(members) => {
                    let mut object: Map<_, _> = Map::new();
                    for (name, required, shape) in members {
                        let value = shape.value(seed);
                        if *required || seed.is_multiple_of(2) {
                            object.insert(name.clone(), value);
                        }
                    }
                    object.into()
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_converted_is_of_the_generated_schema(members in members(shapes()), mut seed in any::<u64>()) {
            let mut defs = Map::new();
            let root = Shape::Object(members);
            let Value::Object(mut input) = root.schema(&mut defs) else { unreachable!() };
            input.insert("$defs".to_owned(), defs.into());
            let fixture = Fixture::new("clients:\n  bot: { owner: dana }\n")
                .tool("t", &Value::Object(input.clone()).to_string())
                .policy("permit (principal, action, resource);");
            let policies = fixture.build();
            // The text of the schema says the same as the schema.
            let (reread, _) = cedar_policy::Schema::from_cedarschema_str(policies.cedar_schema()).unwrap();
            let validator = jsonschema::validator_for(&Value::Object(input.clone())).unwrap();
            let facts = Facts::default();
            for _ in 0..4 {
                let arguments = object(root.value(&mut seed));
                prop_assert!(validator.is_valid(&Value::Object(arguments.clone())));
                let (record, _) = Record::of_input(&input);
                let converted = record.convert(&arguments).unwrap();
                let context = super::super::context::context(&facts.question(), Some(converted)).unwrap();
                let action: cedar_policy::EntityUid = "Action::\"t\"".parse().unwrap();
                prop_assert!(context.validate(&policies.schema.schema, &action).is_ok());
                prop_assert!(context.validate(&reread, &action).is_ok());
                let request = cedar_policy::Request::new(
                    "Client::\"bot\"".parse().unwrap(), action, "Service::\"orders\"".parse().unwrap(), context, Some(&policies.schema.schema),
                );
                prop_assert!(request.is_ok());
            }
        }
    }
}
