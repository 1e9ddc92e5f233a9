//! The parts of a request, each made of arguments in its own way. Pure.
//!
//! No argument is ever spliced into text that is parsed again: a slot is one
//! encoded segment, a parameter goes through the form encoder, a header value
//! is checked whole, and a body is a value that is serialized.

use ::http::{HeaderMap, HeaderName, Method};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Request;
use serde_json::{Map, Value};
use url::Url;

use super::{Unsendable, http::Segment};
use crate::{egress::field_value, manifest::join_pointer};

/// What is encoded in a segment: all but `unreserved` (RFC 3986 §2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request that is ready but for its credential.
#[derive(Clone, Debug)]
pub struct OutgoingRequest {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
}

impl OutgoingRequest {
    /// The method.
    #[must_use]
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// The URL, below the service's base URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// The header fields, without those of the HTTP client (`Host`, `Content-Length`, `User-Agent`).
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body: JSON, where there is one.
    #[must_use]
    pub fn body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }

    /// The request, as the HTTP client takes it.
    pub(crate) fn to_request(&self) -> Request {
        let mut request = Request::new(self.method.clone(), self.url.clone());
        request.headers_mut().clone_from(&self.headers);
        *request.body_mut() = self.body.clone().map(Into::into);
        request
    }
}

/// The path: the base's, and below it one segment for each of the template's.
pub(super) fn path(
    base: &str,
    template: &[Segment],
    arguments: &Map<String, Value>,
) -> Result<String, Unsendable> {
    let mut path = base.strip_suffix('/').unwrap_or(base).to_owned();
    if template.is_empty() {
        path.push('/');
    }
    for segment in template {
        path.push('/');
        match segment {
            Segment::Fixed(text) => path.push_str(text),
            Segment::Slot(slot) => path.extend(utf8_percent_encode(&slot.text(arguments)?, ENCODED)),
        }
    }
    Ok(path)
}

/// Adds the query: the parameters whose arguments are present, form-encoded.
pub(super) fn query(
    url: &mut Url,
    binding: &[(String, String)],
    arguments: &Map<String, Value>,
) -> Result<(), Unsendable> {
    let mut pairs = Vec::new();
    for (name, argument) in binding {
        match arguments.get(argument) {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let text = scalar(item).ok_or_else(|| Unsendable::Argument {
                        pointer: join_pointer(&join_pointer("", argument), &index.to_string()),
                        reason: "is not a text, a number or a truth value, and a query parameter needs one",
                    })?;
                    pairs.push((name.as_str(), text));
                }
            }
            Some(value) => {
                let reason = "is an object, which a query parameter cannot hold";
                pairs.push((name, scalar(value).ok_or_else(|| refusal(argument, reason))?));
            }
        }
    }
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    Ok(())
}

/// Adds the headers whose arguments are present.
pub(super) fn headers(
    headers: &mut HeaderMap,
    binding: &[(HeaderName, String)],
    arguments: &Map<String, Value>,
) -> Result<(), Unsendable> {
    for (name, argument) in binding {
        let text = match arguments.get(argument) {
            None | Some(Value::Null) => continue,
            Some(value) => scalar(value).ok_or_else(|| {
                refusal(argument, "is not a text, a number or a truth value, and a header needs one")
            })?,
        };
        let value = field_value(&text).ok_or_else(|| {
            refusal(argument, "is not visible ASCII with spaces only inside, and a header needs that")
        })?;
        headers.insert(name, value);
    }
    Ok(())
}

/// The body: an object of the arguments that are present, `null` among them.
pub(super) fn body(binding: &[(String, String)], arguments: &Map<String, Value>) -> Bytes {
    let members = binding
        .iter()
        .filter_map(|(name, argument)| Some((name.clone(), arguments.get(argument)?.clone())))
        .collect();
    Value::Object(members).to_string().into()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Says what is wrong with one argument, or, where none is named, with all together.
pub(super) fn refusal(argument: &str, reason: &'static str) -> Unsendable {
    let pointer = if argument.is_empty() { String::new() } else { join_pointer("", argument) };
    Unsendable::Argument { pointer, reason }
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        manifest::{BaseUrl, HttpBackend},
        plan::HttpPlan,
    };

    fn plan(base: &str, backend: Value) -> HttpPlan {
        let backend: HttpBackend = serde_json::from_value(backend).unwrap();
        HttpPlan::compile(&backend, &BaseUrl::parse(base).unwrap(), &Map::new()).unwrap()
    }

    fn everything(base: &str) -> HttpPlan {
        plan(
            base,
            json!({
                "service": "orders", "method": "POST", "path": "/v1/orders/{id}/refunds/{line}",
                "query": { "q": "text", "tag": "tags" },
                "headers": { "X-Tenant": "tenant" },
                "body": ["amount", "reason"]
            }),
        )
    }

    fn request(arguments: Value) -> Result<OutgoingRequest, Unsendable> {
        everything("https://api.example.com/base/").request(arguments.as_object().unwrap())
    }

    fn with(name: &str, value: Value) -> Result<OutgoingRequest, Unsendable> {
        let mut arguments = json!({ "id": "ord_1", "line": 1 });
        arguments.as_object_mut().unwrap().insert(name.to_owned(), value);
        request(arguments)
    }

    #[test]
    fn every_argument_goes_to_its_place() {
        let request = request(json!({
            "id": "a b&c@d:e", "line": 7, "text": "a&b=c#d?é", "tags": ["x", 2, true],
            "tenant": "acme inc", "amount": 1200, "reason": "late", "other": "not bound"
        }))
        .unwrap();
        assert_eq!(request.method(), Method::POST);
        assert_eq!(
            request.url().as_str(),
            "https://api.example.com/base/v1/orders/a%20b%26c%40d%3Ae/refunds/7\
             ?q=a%26b%3Dc%23d%3F%C3%A9&tag=x&tag=2&tag=true"
        );
        assert_eq!(request.headers().get("x-tenant").unwrap(), "acme inc");
        let body: Value = serde_json::from_slice(request.body().unwrap()).unwrap();
        assert_eq!(body, json!({ "amount": 1200, "reason": "late" }));
        assert_eq!(request.headers().get("content-type").unwrap(), "application/json");
    }

    #[test]
    fn absent_arguments_are_left_out_everywhere() {
        let request = request(json!({ "id": "a", "line": true, "amount": null })).unwrap();
        assert_eq!(request.url().as_str(), "https://api.example.com/base/v1/orders/a/refunds/true");
        assert_eq!(request.headers().get("x-tenant"), None);
        assert_eq!(request.body().unwrap(), br#"{"amount":null}"#);
    }

    #[test]
    fn a_request_without_a_body_binding_has_no_body() {
        let plan =
            plan("http://example.com", json!({ "service": "orders", "method": "DELETE", "path": "/a/{id}" }));
        let request = plan.request(json!({ "id": 1 }).as_object().unwrap()).unwrap();
        assert_eq!(request.body(), None);
        assert_eq!(request.headers().get("content-type"), None);
    }

    #[test]
    fn a_path_is_put_below_the_base_whether_or_not_that_ends_with_a_slash() {
        for (base, path, url) in [
            ("http://h", "/", "http://h/"),
            ("http://h/", "/a", "http://h/a"),
            ("http://h/api", "/a", "http://h/api/a"),
            ("http://h/api/", "/a", "http://h/api/a"),
            ("http://h/api", "/", "http://h/api/"),
            ("http://h", "/a:b@c!$'()*+,=~", "http://h/a:b@c!$'()*+,=~"),
        ] {
            let plan = plan(base, json!({ "service": "orders", "method": "GET", "path": path }));
            assert_eq!(plan.request(&Map::new()).unwrap().url().as_str(), url);
        }
    }

    #[test]
    fn a_slot_does_not_climb_however_it_is_encoded() {
        for text in [".", "..", "%2e", "%2E%2e", ".%2e", "%252e%252e", "%25252e.", "%2525252e%2525252e"]
            .into_iter()
            .chain([" ..", ".. ", "%20.."])
        {
            let refusal = with("id", json!(text)).unwrap_err();
            assert!(
                matches!(&refusal, Unsendable::Argument { pointer, .. } if pointer == "/id"),
                "{text}: {refusal}"
            );
        }
        for text in [".", "%2e%2E", "%252e%252e", "%25252e%25252e"] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(
                    with("id", json!(text)).unwrap_err(),
                    @"argument `/id` is a `.` or `..` segment"
                );
            }
        }
    }

    #[test]
    fn a_slot_holds_nothing_that_could_end_or_divide_a_segment() {
        for text in ["a/b", "../../admin", "a\\b", "a?b", "a#b", "a%2fb", "100%", "a;b", "..;"] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(
                    with("id", json!(text)).unwrap_err(),
                    @r"argument `/id` holds one of `/ \ ? # % ;`, which a path segment may not"
                );
            }
        }
        for text in ["a\tb", "a\nb", "a\r\nb", "a\0", "\u{7f}", "\u{9b}31m"] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(
                    with("id", json!(text)).unwrap_err(),
                    @"argument `/id` holds a control character, which a path segment may not"
                );
            }
        }
        for text in ["é", "\u{ff0e}\u{ff0e}", "\u{202e}"] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(
                    with("id", json!(text)).unwrap_err(),
                    @"argument `/id` holds other than ASCII, which the schema does not declare for this path segment"
                );
            }
        }
    }

    #[test]
    fn a_slot_holds_other_than_ascii_only_where_its_schema_says_so() {
        let backend = json!({ "service": "orders", "method": "GET", "path": "/cities/{id}" });
        let backend: HttpBackend = serde_json::from_value(backend).unwrap();
        let base = BaseUrl::parse("http://example.com").unwrap();
        let request = |schema: Value, text: &str| {
            let input = json!({ "properties": { "id": schema } });
            let plan = HttpPlan::compile(&backend, &base, input.as_object().unwrap()).unwrap();
            plan.request(json!({ "id": text }).as_object().unwrap()).map(|request| request.url().to_string())
        };
        let declared =
            [json!({ "x-non-ascii": true }), json!({ "enum": ["Köln", "Bonn"] }), json!({ "const": "Köln" })];
        for schema in declared {
            assert_eq!(request(schema, "Köln").unwrap(), "http://example.com/cities/K%C3%B6ln");
        }
        for schema in [
            json!({ "type": "string" }),
            json!({ "enum": ["Bonn"] }),
            json!({ "x-non-ascii": false, "enum": ["Köln"] }),
        ] {
            request(schema, "Köln").unwrap_err();
        }
        // What a server makes of it that normalises to NFKC is judged too.
        for text in [
            "\u{ff0e}\u{ff0e}",
            "\u{2025}",
            "a\u{ff0f}b",
            "\u{ff05}2e",
            "a\u{fe54}b",
            "\u{3000}",
            "\u{2024}",
            "é\u{85}",
        ] {
            request(json!({ "x-non-ascii": true }), text).unwrap_err();
        }
    }

    #[test]
    fn a_slot_is_a_text_a_whole_number_or_a_truth_value() {
        for value in [json!(null), json!(1.5), json!(1e300), json!([1]), json!({ "a": 1 })] {
            assert!(with("id", value).is_err());
        }
        for value in [json!(""), json!(" "), json!("  ")] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(
                    with("id", value).unwrap_err(),
                    @"argument `/id` is empty, and the path needs it"
                );
            }
        }
        insta::assert_snapshot!(
            request(json!({ "line": 1 })).unwrap_err(),
            @"argument `/id` is missing, and the path needs it"
        );
        for value in [json!(-1), json!(u64::MAX), json!(true), json!("...")] {
            assert!(with("id", value).is_ok());
        }
    }

    #[test]
    fn a_query_holds_scalars_and_lists_of_them() {
        insta::assert_snapshot!(
            with("text", json!({ "a": 1 })).unwrap_err(),
            @"argument `/text` is an object, which a query parameter cannot hold"
        );
        insta::assert_snapshot!(
            with("tags", json!(["a", { "b": 1 }])).unwrap_err(),
            @"argument `/tags/1` is not a text, a number or a truth value, and a query parameter needs one"
        );
        assert_eq!(with("tags", json!([])).unwrap().url().query(), None);
    }

    #[test]
    fn a_header_cannot_be_split_or_smuggle_other_bytes() {
        for text in ["a\r\nX-Admin: 1", "a\nb", "é", "", " a", "a ", "a\tb", "a\0b"] {
            insta::allow_duplicates! {
                insta::assert_snapshot!(
                    with("tenant", json!(text)).unwrap_err(),
                    @"argument `/tenant` is not visible ASCII with spaces only inside, and a header needs that"
                );
            }
        }
        assert!(with("tenant", json!(["a"])).is_err());
    }

    #[test]
    fn a_url_has_a_limit() {
        insta::assert_snapshot!(
            with("text", json!("a".repeat(8_000))).unwrap_err(),
            @"an argument makes the URL longer than 8000 bytes"
        );
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[ -~]{0,12}",
            "[.%2eEfF5c/\\\\;?#@: ]{0,12}",
            Just("//evil.example".to_owned()),
            Just("@evil.example".to_owned()),
            Just("\t..\n".to_owned()),
        ]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any_text().prop_map(Value::from),
        ]
        .boxed();
        prop_oneof![
            4 => scalar.clone(),
            1 => prop::collection::vec(scalar, 0..4).prop_map(Value::from),
            1 => Just(json!({ "a": 1 })),
        ]
    }

    /// The pairs that should be in the query: worked out anew, without the encoder.
    fn expected_pairs(text: &Value, tags: &Value) -> Vec<(String, String)> {
        [("q", text), ("tag", tags)]
            .into_iter()
            .flat_map(|(name, value)| {
                let items = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
                items.into_iter().filter_map(move |item| Some((name.to_owned(), scalar(&item)?)))
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_argument_moves_a_request_from_its_place(
            base in prop::sample::select(vec![
                "https://api.example.com", "http://127.0.0.1:9000/", "http://[::1]:8080/a/b", "https://h/a/",
            ]),
            id in any_value(), line in any_value(), text in any_value(), tags in any_value(), tenant in any_value(),
        ) {
            let arguments = json!({ "id": id, "line": line, "text": text, "tags": tags, "tenant": tenant });
            let Ok(request) = everything(base).request(arguments.as_object().unwrap()) else { return Ok(()) };
            // What counts is what a server parses, so the URL is parsed again.
            let sent = Url::parse(request.url().as_str()).unwrap();
            let base = Url::parse(base).unwrap();
            prop_assert_eq!(&sent, request.url());
            prop_assert_eq!(sent.origin(), base.origin());
            prop_assert_eq!((sent.username(), sent.password(), sent.fragment()), ("", None, None));
            let count = |url: &Url| url.path().split('/').filter(|segment| !segment.is_empty()).count();
            prop_assert_eq!(count(&sent), count(&base) + 5);
            let segments: Vec<&str> = sent.path_segments().unwrap().collect();
            for (from_end, value) in [(2, &id), (0, &line)] {
                let segment = segments.iter().rev().nth(from_end).unwrap();
                let decoded = percent_decode_str(segment).decode_utf8().unwrap();
                prop_assert_eq!(Some(decoded.into_owned()), scalar(value));
            }
            let pairs: Vec<(String, String)> = sent.query_pairs().into_owned().collect();
            prop_assert_eq!(pairs, expected_pairs(&text, &tags));
            prop_assert_eq!(request.headers().len(), 3 + usize::from(!tenant.is_null()));
        }

        #[test]
        fn a_text_that_is_accepted_for_a_slot_is_one_segment_after_any_decoding(text in any_text()) {
            if let Ok(request) = with("id", json!(text)) {
                let mut decoded = request.url().path().to_owned();
                for _ in 0..4 {
                    prop_assert_eq!(decoded.split(['/', '\\']).count(), 7, "{}", decoded);
                    prop_assert!(decoded.split('/').all(|segment| !matches!(segment.trim(), "." | "..")));
                    decoded = percent_decode_str(&decoded).decode_utf8().unwrap().into_owned();
                }
            }
        }
    }
}
