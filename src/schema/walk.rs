//! All schemas within a schema, whatever they apply to.

use serde_json::{Map, Value};

use crate::manifest::join_pointer;

/// Visits a schema and all below it; what is not a schema there is left alone.
///
/// It recurses: reading a file bounds its depth.
pub(crate) fn each_schema(
    schema: &Map<String, Value>,
    pointer: &str,
    visit: &mut impl FnMut(&Map<String, Value>, &str),
) {
    visit(schema, pointer);
    for (keyword, value) in schema {
        let pointer = join_pointer(pointer, keyword);
        match (keyword.as_str(), value) {
            // Values, not schemas.
            ("const" | "enum" | "default" | "examples", _) => {}
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas"
                | "dependencies",
                Value::Object(schemas),
            ) => {
                for (name, schema) in schemas {
                    let Value::Object(schema) = schema else { continue };
                    each_schema(schema, &join_pointer(&pointer, name), visit);
                }
            }
            (_, Value::Object(schema)) => each_schema(schema, &pointer, visit),
            (_, Value::Array(schemas)) => {
                for (at, schema) in schemas.iter().enumerate() {
                    let Value::Object(schema) = schema else { continue };
                    each_schema(schema, &join_pointer(&pointer, &at.to_string()), visit);
                }
            }
            _ => {}
        }
    }
}
