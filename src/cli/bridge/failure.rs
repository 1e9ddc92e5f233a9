//! Why a message has no answer from the server, as the client is told and the log says.

use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::server::Server;
use crate::cli::unreached::Unreached;

/// Our own: the server cannot be asked now, or not any more.
const NO_ANSWER: i64 = -32000;
/// As the gate itself says it.
const UNAUTHENTICATED: i64 = -32001;
/// JSON-RPC 2.0 §5.1.
const INTERNAL_ERROR: i64 = -32603;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing of the request was understood there.
    Unreached(Unreached),
    /// Its address may not be called: why.
    Forbidden(String),
    /// The connection ended first.
    BrokeOff,
    Slow,
    TooLarge,
    /// The answer is not of this protocol: in which way.
    Unreadable(&'static str),
    /// The server says no.
    Refused(Refusal),
    /// Too much goes on at once here.
    Busy,
    /// The client used an id for two requests at once.
    IdInUse,
    /// Standard output is closed.
    Closed,
}

/// A refusal by the server.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// When to come back, in seconds.
    pub(super) retry_seconds: Option<u64>,
    /// The JSON-RPC error that came with it.
    pub(super) error: Option<Value>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, error: Option<Value>) -> Self {
        let retry = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Self { status, retry_seconds: retry.and_then(|text| text.parse().ok()), error }
    }

    pub(super) fn code(&self) -> Option<i64> {
        self.error.as_ref()?.get("code")?.as_i64()
    }

    fn said(&self) -> Option<&str> {
        self.error.as_ref()?.get("message")?.as_str()
    }
}

impl Failure {
    /// The failure as a JSON-RPC error.
    pub(super) fn answer(&self, id: &Value, server: &Server) -> Value {
        let mut error = json!({ "code": self.code(), "message": self.message(server) });
        if let (Self::Refused(refusal), Some(error)) = (self, error.as_object_mut())
            && let Some(data) = refusal.error.as_ref().and_then(|error| error.get("data"))
        {
            error.insert("data".to_owned(), data.clone());
        }
        json!({ "jsonrpc": "2.0", "id": id, "error": error })
    }

    fn code(&self) -> i64 {
        match self {
            Self::Refused(refusal) if refusal.status == StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
            Self::Refused(refusal) => refusal.code().unwrap_or(NO_ANSWER),
            Self::IdInUse => -32600,
            Self::Unreadable(_) | Self::TooLarge => INTERNAL_ERROR,
            _ => NO_ANSWER,
        }
    }

    /// What is wrong and what to do, in a line. The key is never in it, only where it is from.
    pub(super) fn message(&self, server: &Server) -> String {
        let url = server.url();
        match self {
            Self::Unreached(unreached) => unreached.message(url, "pass `--ca` if its authority is your own"),
            Self::Forbidden(why) => format!("{url} may not be called: {why}"),
            Self::BrokeOff => {
                format!("{url} broke off before it answered: whether the request took effect is not known")
            }
            Self::Slow => format!("{url} does not answer"),
            Self::TooLarge => format!("{url} answers with more than can be passed on"),
            Self::Unreadable(what) => format!("{url} {what}: is it the URL of an MCP endpoint?"),
            Self::Refused(refusal) => refused(refusal, server),
            Self::Busy => "too many requests wait for their answers: try again".to_owned(),
            Self::IdInUse => "another request with this id waits for its answer".to_owned(),
            Self::Closed => "the client reads no more".to_owned(),
        }
    }
}

fn refused(refusal: &Refusal, server: &Server) -> String {
    let url = server.url();
    let later = match refusal.retry_seconds {
        Some(1) => "try again in 1 second".to_owned(),
        Some(seconds) => format!("try again in {seconds} seconds"),
        None => "try again later".to_owned(),
    };
    match (refusal.status, refusal.said()) {
        (StatusCode::UNAUTHORIZED, _) => format!(
            "{url} does not take the key of `{}`: it is wrong, expired or revoked; ask for a new one, and \
             start this again",
            server.key_place()
        ),
        (StatusCode::FORBIDDEN, Some(said)) => format!("not permitted: {said}"),
        (StatusCode::FORBIDDEN, None) => format!("{url} does not permit this"),
        (StatusCode::TOO_MANY_REQUESTS, Some(said)) => format!("too many requests: {said}; {later}"),
        (StatusCode::TOO_MANY_REQUESTS, None) => format!("too many requests to {url}; {later}"),
        (StatusCode::SERVICE_UNAVAILABLE, Some(said)) => format!("{url} cannot answer now: {said}; {later}"),
        (StatusCode::SERVICE_UNAVAILABLE, None) => format!("{url} cannot answer now; {later}"),
        (_, Some(said)) => said.to_owned(),
        (StatusCode::NOT_FOUND, None) => format!("there is nothing at {url}: is its path right?"),
        (status, None) if status.is_redirection() => {
            format!("{url} sends elsewhere ({status}), where the key is not shown: pass the URL itself")
        }
        (StatusCode::BAD_REQUEST, None) if url.scheme() == "http" => {
            format!("{url} answered {}: is its scheme `https`?", refusal.status)
        }
        (status, None) => format!("{url} answered {status}"),
    }
}
