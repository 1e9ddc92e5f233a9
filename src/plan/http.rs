//! A plan: how one tool's arguments become a request. Pure.

use std::collections::HashSet;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::{Map, Value};
use url::Url;

use super::{
    OutgoingRequest, Unsendable, request,
    slot::Slot,
    urls::{Misplaced, UrlArguments},
};
use crate::{
    egress::is_reserved,
    manifest::{self, BaseUrl, Binding, CredentialKind, HttpBackend, HttpMethod},
};

/// How many bytes a URL may have: what every server should take (RFC 9110 §4.1).
const URL_BYTES_MAX: usize = 8_000;

/// How one tool's arguments become a request.
#[derive(Clone, Debug)]
pub struct HttpPlan {
    method: Method,
    base: Url,
    path: Vec<Segment>,
    query: Vec<(String, String)>,
    headers: Vec<(HeaderName, String)>,
    body: Option<Vec<(String, String)>>,
    urls: UrlArguments,
}

/// One segment of a path.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    /// Text that is sent as it stands.
    Fixed(String),
    /// An argument, which fills the whole segment.
    Slot(Slot),
}

impl Segment {
    fn new(segment: &manifest::Segment, input: &Map<String, Value>) -> Self {
        match segment {
            manifest::Segment::Fixed(text) => Self::Fixed(text.clone()),
            manifest::Segment::Slot(argument) => Self::Slot(Slot::new(argument, input)),
        }
    }
}

/// Why a backend's description makes no plan.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A GET or HEAD with a body (RFC 9110 §9.3.1: no generally defined semantics).
    #[error("a {method} request carries no body: bind the arguments to the path or the query")]
    BodyNotAllowed {
        /// The method.
        method: &'static str,
    },
    /// The header's name is not one (RFC 9110 §5.1).
    #[error("`{name}` is not a header name")]
    NotAHeader {
        /// What was written.
        name: String,
    },
    /// The header is the gate's to set, or a credential's.
    #[error("header `{name}` is set by the gate or by a credential, never by an argument")]
    ReservedHeader {
        /// The header.
        name: String,
    },
    /// A query parameter or a member of the body without a name.
    #[error("a name in `{key}` is empty")]
    Nameless {
        /// `query` or `body`.
        key: &'static str,
    },
    /// Two arguments for one place. Header names are compared without case.
    #[error("`{name}` is given twice in `{key}`")]
    Twice {
        /// `query`, `headers` or `body`.
        key: &'static str,
        /// The name that occurs twice.
        name: String,
    },
    /// A URL among the arguments that could not be judged.
    #[error("{message}")]
    Url {
        /// The JSON pointer into the input schema.
        at: String,
        /// What is wrong.
        message: &'static str,
    },
}

impl PlanError {
    /// Where the manifest is wrong, as a JSON pointer.
    #[must_use]
    pub fn at(&self) -> String {
        match self {
            Self::BodyNotAllowed { .. } => "/backend/http/body".to_owned(),
            Self::NotAHeader { .. } | Self::ReservedHeader { .. } => "/backend/http/headers".to_owned(),
            Self::Nameless { key } | Self::Twice { key, .. } => format!("/backend/http/{key}"),
            Self::Url { at, .. } => format!("/input{at}"),
        }
    }
}

impl HttpPlan {
    /// Checks how a tool's backend is described, once, at load. The input schema says what a slot may hold.
    ///
    /// # Errors
    /// Everything that is wrong with the bindings.
    pub fn compile(
        backend: &HttpBackend,
        base: &BaseUrl,
        input: &Map<String, Value>,
    ) -> Result<Self, Vec<PlanError>> {
        let mut errors = Vec::new();
        let plan = Self {
            method: method(backend.method),
            base: base.url().clone(),
            path: backend.path.segments().iter().map(|segment| Segment::new(segment, input)).collect(),
            query: named("query", &backend.query, &mut errors),
            headers: headers(&backend.headers, &mut errors),
            body: (!backend.body.is_empty()).then(|| named("body", &backend.body, &mut errors)),
            urls: UrlArguments::find(input).unwrap_or_else(|misplaced| {
                errors.extend(
                    misplaced.into_iter().map(|Misplaced { at, message }| PlanError::Url { at, message }),
                );
                UrlArguments::default()
            }),
        };
        if plan.body.is_some() && backend.method.is_safe() {
            errors.push(PlanError::BodyNotAllowed { method: backend.method.as_str() });
        }
        if errors.is_empty() { Ok(plan) } else { Err(errors) }
    }

    /// Makes the request of one call. Arguments that are absent are left out,
    /// except from the path, which needs all of its own.
    ///
    /// # Errors
    /// [`Unsendable::Argument`], when an argument cannot take its place.
    pub fn request(&self, arguments: &Map<String, Value>) -> Result<OutgoingRequest, Unsendable> {
        let url = self.url(arguments)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        request::headers(&mut headers, &self.headers, arguments)?;
        let body = self.body.as_ref().map(|members| request::body(members, arguments));
        if body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(OutgoingRequest { method: self.method.clone(), url, headers, body })
    }

    /// The URLs among the arguments that the backend will fetch, each with its JSON pointer.
    pub(super) fn urls<'a>(&self, arguments: &'a Map<String, Value>) -> Vec<(String, &'a str)> {
        self.urls.of(arguments)
    }

    /// The header or parameter that a credential and an argument would both set.
    #[must_use]
    pub fn clash(&self, credential: &CredentialKind) -> Option<&str> {
        match credential {
            // No argument sets `Authorization`.
            CredentialKind::Bearer { .. }
            | CredentialKind::Basic { .. }
            | CredentialKind::ClientCredentials(_)
            | CredentialKind::TokenExchange(_)
            | CredentialKind::Certificate { .. } => None,
            CredentialKind::Header { name: theirs, .. } => {
                let mut ours = self.headers.iter().map(|(name, _)| name.as_str());
                ours.find(|name| name.eq_ignore_ascii_case(theirs))
            }
            CredentialKind::Query { name: theirs, .. } => {
                let mut ours = self.query.iter().map(|(name, _)| name.as_str());
                ours.find(|name| name == theirs)
            }
        }
    }

    fn url(&self, arguments: &Map<String, Value>) -> Result<Url, Unsendable> {
        let mut url = self.base.clone();
        let path = request::path(self.base.path(), &self.path, arguments)?;
        url.set_path(&path);
        // INVARIANT: the path is sent as it was built. Whatever the URL parser
        // would still normalise has gone past the checks of the slots.
        if url.path() != path {
            return Err(request::refusal("", "makes a path that would be rewritten"));
        }
        request::query(&mut url, &self.query, arguments)?;
        if url.as_str().len() > URL_BYTES_MAX {
            return Err(request::refusal("", "makes the URL longer than 8000 bytes"));
        }
        Ok(url)
    }
}

const fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
    }
}

/// The pairs of a query or a body binding, whose names are compared to the letter.
fn named(key: &'static str, binding: &Binding, errors: &mut Vec<PlanError>) -> Vec<(String, String)> {
    let mut seen = HashSet::new();
    for (name, _) in binding.iter() {
        if name.is_empty() {
            errors.push(PlanError::Nameless { key });
        } else if !seen.insert(name) {
            errors.push(PlanError::Twice { key, name: name.to_owned() });
        }
    }
    binding.iter().map(|(name, argument)| (name.to_owned(), argument.to_owned())).collect()
}

fn headers(binding: &Binding, errors: &mut Vec<PlanError>) -> Vec<(HeaderName, String)> {
    let mut pairs: Vec<(HeaderName, String)> = Vec::new();
    for (given, argument) in binding.iter() {
        match HeaderName::from_bytes(given.as_bytes()) {
            Err(_) => errors.push(PlanError::NotAHeader { name: given.to_owned() }),
            Ok(name) if is_reserved(&name) || is_credential(&name) => {
                errors.push(PlanError::ReservedHeader { name: given.to_owned() });
            }
            Ok(name) if pairs.iter().any(|(other, _)| *other == name) => {
                errors.push(PlanError::Twice { key: "headers", name: given.to_owned() });
            }
            Ok(name) => pairs.push((name, argument.to_owned())),
        }
    }
    pairs
}

/// Fields by which a request says who it comes from (RFC 9110 §11.6.2, RFC 6265 §4.2).
fn is_credential(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION || *name == header::COOKIE
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(backend: Value) -> Result<HttpPlan, Vec<PlanError>> {
        let mut whole = json!({ "service": "orders", "method": "GET", "path": "/" });
        whole.as_object_mut().unwrap().extend(backend.as_object().unwrap().clone());
        let backend: HttpBackend = serde_json::from_value(whole).unwrap();
        HttpPlan::compile(&backend, &BaseUrl::parse("http://example.com").unwrap(), &Map::new())
    }

    #[test]
    fn no_argument_sets_a_header_of_the_gate_or_of_a_credential() {
        let names = [
            "Authorization",
            "Cookie",
            "Host",
            "Content-Length",
            "Content-Type",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "Forwarded",
            "Proxy-Authorization",
            "Proxy-Connection",
            "Accept",
            "User-Agent",
            "Idempotency-Key",
            "traceparent",
            "x_forwarded_proto",
            "X-HTTP-Method-Override",
        ];
        for name in names {
            let errors = compile(json!({ "headers": { name: "a" } })).unwrap_err();
            assert_eq!(errors, [PlanError::ReservedHeader { name: name.to_owned() }]);
            assert_eq!(errors.first().unwrap().at(), "/backend/http/headers");
        }
        assert!(compile(json!({ "headers": { "X-Tenant": "a", "If-Match": "b" } })).is_ok());
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let errors = compile(json!({
            "query": ["a", "b", "a", ""],
            "headers": { "X-A": "a", "x-a": "b", "Host": "c", "b c": "d" },
            "body": { "m": "a" }
        }))
        .unwrap_err();
        let lines: Vec<String> = errors.iter().map(|error| format!("{}: {error}", error.at())).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        /backend/http/query: `a` is given twice in `query`
        /backend/http/query: a name in `query` is empty
        /backend/http/headers: `x-a` is given twice in `headers`
        /backend/http/headers: header `Host` is set by the gate or by a credential, never by an argument
        /backend/http/headers: `b c` is not a header name
        /backend/http/body: a GET request carries no body: bind the arguments to the path or the query
        ");
    }

    #[test]
    fn a_body_goes_with_every_method_but_the_safe_ones() {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert!(compile(json!({ "method": method, "body": ["a"] })).is_ok(), "{method}");
        }
        for method in ["GET", "HEAD"] {
            let errors = compile(json!({ "method": method, "body": ["a"] })).unwrap_err();
            assert_eq!(errors, [PlanError::BodyNotAllowed { method }]);
        }
    }

    #[test]
    fn a_member_of_the_body_is_given_once() {
        let errors = compile(json!({ "method": "POST", "body": ["a", "a"] })).unwrap_err();
        assert_eq!(errors, [PlanError::Twice { key: "body", name: "a".to_owned() }]);
    }

    #[test]
    fn an_argument_does_not_share_a_place_with_a_credential() {
        let plan = compile(json!({ "headers": { "X-Key": "a" }, "query": { "key": "b" } })).unwrap();
        let clash = |kind: Value| plan.clash(&serde_json::from_value(kind).unwrap()).map(str::to_owned);
        let header = |name: &str| json!({ "header": { "name": name, "secret": "env:S" } });
        assert_eq!(clash(header("x-KEY")).as_deref(), Some("x-key"));
        assert_eq!(clash(header("X-Other")), None);
        let query = |name: &str| json!({ "query": { "name": name, "secret": "env:S" } });
        assert_eq!(clash(query("key")).as_deref(), Some("key"));
        assert_eq!(clash(query("Key")), None);
        assert_eq!(clash(json!({ "bearer": { "secret": "env:S" } })), None);
    }
}
