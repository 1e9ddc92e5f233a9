//! A refusal at the edge: always a JSON-RPC error, never a plain text.

use std::{borrow::Cow, convert::Infallible};

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::hygiene;

/// What is sent back.
pub(super) type Answer = Response<BoxBody<Bytes, Infallible>>;

/// JSON-RPC 2.0 §5.1: the message is not a request.
pub(super) const INVALID_REQUEST: i32 = -32600;
/// JSON-RPC 2.0 §5.1: there is no such method.
pub(super) const METHOD_NOT_FOUND: i32 = -32601;
/// JSON-RPC 2.0 §5.1: the method cannot be called with these parameters.
pub(super) const INVALID_PARAMS: i32 = -32602;
/// JSON-RPC 2.0 §5.1: the gate itself failed.
pub(super) const INTERNAL_ERROR: i32 = -32603;
/// Our own: there is no place for one more.
pub(super) const BUSY: i32 = -32000;
/// Our own: the caller does not prove who it is.
pub(super) const UNAUTHENTICATED: i32 = -32001;
/// Our own: the caller lacks a scope.
pub(super) const MISSING_SCOPE: i32 = -32002;
/// MCP 2026-07-28: headers and body say different things.
pub(super) const HEADER_MISMATCH: i32 = -32020;
/// MCP 2026-07-28: the version is not spoken here.
pub(super) const UNSUPPORTED_VERSION: i32 = -32022;

/// What a refusal says, beside its answer: some clients are told in other words.
#[derive(Clone, Debug)]
pub(super) struct Told(pub(super) Cow<'static, str>);

/// Why a request goes no further.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// The JSON-RPC error code.
    pub(super) code: i32,
    /// The reason in one word, for the record.
    pub(super) word: &'static str,
    /// The reason in a sentence.
    pub(super) message: Cow<'static, str>,
    pub(super) data: Option<Value>,
}

impl Refusal {
    pub(super) const fn new(
        status: StatusCode,
        code: i32,
        word: &'static str,
        message: &'static str,
    ) -> Self {
        Self { status, code, word, message: Cow::Borrowed(message), data: None }
    }

    /// The refusal as it is sent.
    pub(super) fn answer(&self, id: &Value) -> Answer {
        let mut answer = json_answer(self.status, &self.body(id));
        answer.extensions_mut().insert(Told(self.message.clone()));
        let headers = answer.headers_mut();
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        answer
    }

    /// The refusal as a JSON-RPC message.
    pub(super) fn body(&self, id: &Value) -> Value {
        // A message may repeat what the client wrote.
        let mut error = json!({ "code": self.code, "message": hygiene::clean(&self.message).0 });
        if let (Some(error), Some(data)) = (error.as_object_mut(), &self.data) {
            error.insert("data".into(), data.clone());
        }
        json!({ "jsonrpc": "2.0", "id": id, "error": error })
    }
}

fn json_answer(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::from(body.to_string()).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
