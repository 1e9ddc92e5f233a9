//! What a request's headers say must be what its body says.
//!
//! Whatever stands between client and gate may route and count by the headers, and the gate acts on the
//! body (MCP 2026-07-28 Streamable HTTP, Server Validation). Later revisions demand the headers; where
//! an older client sends them all the same, they have to agree too.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderMap;
use serde_json::Value;

use crate::catalog::Mirrored;

/// The revision from which on the headers are required.
const REQUIRED_SINCE: &str = "2026-07-28";

const VERSION: &str = "mcp-protocol-version";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";
const PREFIX: &str = "mcp-";

/// What a body says, as far as headers repeat it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said<'a> {
    pub(super) method: &'a str,
    /// A request, not a notification.
    pub(super) is_request: bool,
    /// The name of what it asks for: `params.name`, `params.uri` or `params.taskId`, by method.
    pub(super) name: Option<&'a str>,
    /// The version in `_meta`, or in an `initialize`'s parameters.
    pub(super) version: Option<&'a str>,
    /// Whether its transport demands the headers from some revision on. Streamable HTTP does.
    pub(super) demands: bool,
}

/// Why headers and body do not go together.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("header mismatch: {0}")]
    Mismatch(String),
    #[error("unsupported protocol version")]
    UnknownVersion(String),
}

fn mismatch(reason: String) -> HeaderError {
    HeaderError::Mismatch(reason)
}

/// Compares what stands in every request: version, method and name.
///
/// # Errors
/// When a header is missing, doubled, unreadable, or says something else.
pub(super) fn agree(headers: &HeaderMap, said: Said<'_>, known: &[&str]) -> Result<(), HeaderError> {
    for name in headers.keys().filter(|name| name.as_str().starts_with(PREFIX)) {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(mismatch(format!("`{name}` is there more than once")));
        }
    }
    let version = text(headers, VERSION)?;
    let begins = said.method == "initialize";
    match (version, said.version) {
        (Some(header), Some(body)) => same(VERSION, header, body)?,
        (None, Some(_)) if !begins && said.demands => return Err(missing(VERSION)),
        (Some(header), None) if !known.contains(&header) => {
            return Err(HeaderError::UnknownVersion(cut(header)));
        }
        _ => {}
    }
    // An `initialize` comes before anything is agreed on, and notifications have no header rules yet.
    let required = said.demands
        && version.is_some_and(|version| version >= REQUIRED_SINCE)
        && said.is_request
        && !begins;
    match text(headers, METHOD)? {
        Some(header) => same(METHOD, header, said.method)?,
        None if required => return Err(missing(METHOD)),
        None => {}
    }
    match (text(headers, NAME)?, said.name) {
        (Some(header), Some(body)) => same(NAME, &decoded(NAME, header)?, body),
        (None, Some(_)) if required => Err(missing(NAME)),
        _ => Ok(()),
    }
}

/// Compares the arguments that a tool's schema wants repeated in headers, by `x-mcp-header`.
///
/// # Errors
/// When such a header is missing, unreadable, or says something else.
pub(super) fn arguments_agree(
    headers: &HeaderMap,
    mirrored: &[Mirrored],
    arguments: &Value,
    demands: bool,
) -> Result<(), HeaderError> {
    let version = text(headers, VERSION)?;
    let required = demands && version.is_some_and(|version| version >= REQUIRED_SINCE);
    for Mirrored { path, header } in mirrored {
        let value = path.iter().try_fold(arguments, |value, key| value.get(key));
        let value =
            value.filter(|value| matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_)));
        let name = header.as_str();
        let said = text(headers, name)?;
        match (said, value) {
            (None, None) => {}
            (Some(_), None) => {
                return Err(mismatch(format!("`{name}` repeats an argument that is not there")));
            }
            (None, Some(_)) if required => return Err(missing(name)),
            (None, Some(_)) => {}
            (Some(header), Some(value)) => same_value(name, &decoded(name, header)?, value)?,
        }
    }
    Ok(())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, HeaderError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| mismatch(format!("`{name}` is not plain ASCII")))
}

fn missing(name: &str) -> HeaderError {
    mismatch(format!("`{name}` is missing"))
}

fn same(name: &str, header: &str, body: &str) -> Result<(), HeaderError> {
    if header == body {
        return Ok(());
    }
    Err(mismatch(format!("`{name}` says `{}`, and the body says `{}`", cut(header), cut(body))))
}

/// Numbers are equal by value: `42.0` is `42`.
fn same_value(name: &str, header: &str, body: &Value) -> Result<(), HeaderError> {
    match body {
        Value::String(body) => same(name, header, body),
        Value::Number(number) if is_decimal(header) && header.parse().ok() == number.as_f64() => {
            // Beyond 2^53 two numbers can share a float: there the digits have to be the same.
            let small = number.as_f64().is_some_and(|number| number.abs() < 9_007_199_254_740_992.0);
            if small { Ok(()) } else { same(name, header, &number.to_string()) }
        }
        other => same(name, header, &other.to_string()),
    }
}

fn is_decimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
}

/// Undoes `=?base64?…?=`, which carries what a header cannot.
fn decoded(name: &str, header: &str) -> Result<String, HeaderError> {
    let Some(wrapped) = header.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(header.to_owned());
    };
    let bytes = BASE64_STANDARD.decode(wrapped).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| mismatch(format!("`{name}` is not Base64 of UTF-8")))
}

/// A text as it is repeated in replies and records.
fn cut(text: &str) -> String {
    text.chars().take(128).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;
    use crate::catalog::mirrored;

    const KNOWN: [&str; 2] = ["2025-11-25", "2026-07-28"];

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    type Headers<'a> = &'a [(&'a str, &'a str)];

    const CALL: Said<'static> = Said {
        method: "tools/call",
        is_request: true,
        name: Some("get"),
        version: Some("2026-07-28"),
        demands: true,
    };
    const OLD: Said<'static> = Said { version: None, ..CALL };
    const MODERN: [(&str, &str); 3] =
        [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", "get")];

    fn check(headers: &[(&str, &str)], said: Said<'_>) -> String {
        match agree(&map(headers), said, &KNOWN) {
            Ok(()) => "agrees".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_says_the_same_agrees() {
        assert_eq!(check(&MODERN, CALL), "agrees");
        assert_eq!(check(&[MODERN[0], MODERN[1], ("Mcp-Name", "=?base64?Z2V0?=")], CALL), "agrees");
        assert_eq!(check(&[("MCP-Protocol-Version", "2025-11-25")], OLD), "agrees");
        assert_eq!(check(&[], OLD), "agrees");
        let begin = Said { method: "initialize", name: None, ..CALL };
        assert_eq!(check(&[], begin), "agrees");
        let note =
            Said { method: "notifications/x", is_request: false, name: None, version: None, demands: true };
        assert_eq!(check(&MODERN[..1], note), "agrees");
    }

    #[test]
    fn each_header_is_required_and_has_to_agree() {
        let cases: [(Headers<'_>, Said<'_>, &str); 9] = [
            (&MODERN[1..], CALL, "header mismatch: `mcp-protocol-version` is missing"),
            (&[MODERN[0], MODERN[2]], CALL, "header mismatch: `mcp-method` is missing"),
            (&MODERN[..2], CALL, "header mismatch: `mcp-name` is missing"),
            (
                &[MODERN[0], ("Mcp-Method", "Tools/call"), MODERN[2]],
                CALL,
                "header mismatch: `mcp-method` says `Tools/call`, and the body says `tools/call`",
            ),
            (
                &[MODERN[0], MODERN[1], ("Mcp-Name", "put")],
                CALL,
                "header mismatch: `mcp-name` says `put`, and the body says `get`",
            ),
            (
                &[MODERN[0], MODERN[1], ("Mcp-Name", "=?base64?!?=")],
                CALL,
                "header mismatch: `mcp-name` is not Base64 of UTF-8",
            ),
            (
                &[MODERN[0], MODERN[1], ("Mcp-Name", "gét")],
                CALL,
                "header mismatch: `mcp-name` is not plain ASCII",
            ),
            (&[("MCP-Protocol-Version", "1999-01-01")], OLD, "unsupported protocol version"),
            (
                &[("MCP-Protocol-Version", "2025-11-25"), MODERN[1], MODERN[2]],
                CALL,
                "header mismatch: `mcp-protocol-version` says `2025-11-25`, and the body says `2026-07-28`",
            ),
        ];
        for (headers, said, expected) in cases {
            assert_eq!(check(headers, said), expected);
        }
    }

    #[test]
    fn an_older_client_need_not_send_them_and_may_not_contradict_itself() {
        let version = ("MCP-Protocol-Version", "2025-11-25");
        assert_eq!(check(&[version, MODERN[1], MODERN[2]], OLD), "agrees");
        assert!(check(&[version, ("Mcp-Method", "tools/list")], OLD).starts_with("header mismatch"));
        assert!(check(&[version, ("Mcp-Name", "put")], OLD).starts_with("header mismatch"));
    }

    #[test]
    fn where_the_transport_demands_none_those_that_are_sent_have_to_agree() {
        let call = Said { demands: false, ..CALL };
        assert_eq!(check(&[], call), "agrees");
        assert_eq!(check(&MODERN[..1], call), "agrees");
        assert!(check(&[MODERN[0], ("Mcp-Method", "tools/list")], call).starts_with("header mismatch"));
        assert!(check(&[("MCP-Protocol-Version", "2025-11-25")], call).starts_with("header mismatch"));
    }

    #[test]
    fn no_header_of_the_protocol_may_be_doubled() {
        for double in [MODERN[0], MODERN[1], MODERN[2], ("Mcp-Param-X", "1")] {
            let mut headers = MODERN.to_vec();
            headers.extend([double, double]);
            assert!(check(&headers, CALL).ends_with("is there more than once"), "{double:?}");
        }
    }

    #[test]
    fn arguments_that_are_repeated_have_to_agree() {
        let schema = json!({ "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "at": { "properties": { "row": { "type": "integer", "x-mcp-header": "Row" } } },
            "list": { "items": { "properties": { "no": { "x-mcp-header": "No" } } } }
        } });
        let mirrored = mirrored(schema.as_object().unwrap());
        let check = |version: &str, headers: &[(&str, &str)], arguments: Value| {
            let mut all = vec![("MCP-Protocol-Version", version)];
            all.extend(headers);
            match arguments_agree(&map(&all), &mirrored, &arguments, true) {
                Ok(()) => "agrees".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        let now = "2026-07-28";
        let (region, row) = (("Mcp-Param-Region", "eu"), ("Mcp-Param-Row", "42.0"));
        assert_eq!(check(now, &[region, row], json!({ "region": "eu", "at": { "row": 42 } })), "agrees");
        assert_eq!(check(now, &[], json!({ "region": null })), "agrees");
        assert_eq!(check("2025-11-25", &[], json!({ "region": "eu" })), "agrees");
        assert_eq!(check(now, &[("Mcp-Param-No", "1")], json!({ "list": [{ "no": 2 }] })), "agrees");
        for (headers, arguments, expected) in [
            (vec![], json!({ "region": "eu" }), "header mismatch: `mcp-param-region` is missing"),
            (
                vec![region],
                json!({ "region": "us" }),
                "header mismatch: `mcp-param-region` says `eu`, and the body says `us`",
            ),
            (
                vec![region],
                json!({}),
                "header mismatch: `mcp-param-region` repeats an argument that is not there",
            ),
            (
                vec![row],
                json!({ "at": { "row": 43 } }),
                "header mismatch: `mcp-param-row` says `42.0`, and the body says `43`",
            ),
            (
                vec![("Mcp-Param-Row", "9007199254740993")],
                json!({ "at": { "row": 9_007_199_254_740_992_i64 } }),
                "header mismatch: `mcp-param-row` says `9007199254740993`, and the body says `9007199254740992`",
            ),
        ] {
            assert_eq!(check(now, &headers, arguments), expected);
        }
    }
}
