//! Arguments that clients repeat in headers, so that what stands between can route by them (MCP 2026-07-28
//! Streamable HTTP, `x-mcp-header`).

use http::HeaderName;
use serde_json::{Map, Value};

/// An argument that is repeated in a header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mirrored {
    /// The names that lead to it from the arguments.
    pub path: Vec<String>,
    /// The header's name: `mcp-param-…`.
    pub header: HeaderName,
}

/// Longer chains of properties are not followed.
const DEPTH_MAX: usize = 32;

/// The arguments that a schema wants repeated: those on a chain of `properties` from its root. A name that
/// no client can send is none.
#[must_use]
pub fn mirrored(schema: &Map<String, Value>) -> Vec<Mirrored> {
    let mut found = Vec::new();
    collect(schema.get("properties"), &mut Vec::new(), &mut found);
    found
}

fn collect<'a>(properties: Option<&'a Value>, path: &mut Vec<&'a str>, found: &mut Vec<Mirrored>) {
    let Some(Value::Object(properties)) = properties else { return };
    if path.len() >= DEPTH_MAX {
        return;
    }
    for (name, schema) in properties {
        path.push(name);
        if let Some(header) = schema.get("x-mcp-header").and_then(Value::as_str)
            && let Ok(header) = HeaderName::try_from(format!("mcp-param-{header}"))
        {
            found.push(Mirrored { path: path.iter().map(|&name| name.to_owned()).collect(), header });
        }
        collect(schema.get("properties"), path, found);
        path.pop();
    }
}
