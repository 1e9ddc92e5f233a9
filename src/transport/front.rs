//! What a request meets before the protocol: the one place where the order of the edge is written.
//!
//! Which server it means, who sends it, whether it is a request at all, whether there is room, what it
//! says, and whether its headers say the same. Each refusal is a JSON-RPC error; of a known caller's
//! messages, each that is or may be a tool call leaves a record.

use std::{
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header, request::Parts};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use rmcp::model::ProtocolVersion;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    failures::Failures,
    headers::{self, HeaderError, Said},
    health,
    host::{NameError, Names},
    http::Protocol,
    mcp::Shown,
    oauth::{self, FORM_BYTES_MAX, Wish},
    refusal::{
        Answer, BUSY, HEADER_MISMATCH, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, MISSING_SCOPE,
        Refusal, UNAUTHENTICATED, UNSUPPORTED_VERSION,
    },
    serve::{Pace, is_stream, permits},
    sessions::Sessions,
    source::{self, SourceError},
    visitor::{Visitor, for_call},
};
use crate::{
    call::{Call, CallKind, Claim, Origin, Proof, RunClaim, Transport},
    gateway::{EdgeError, Gateway, Notice, Reply},
    hygiene,
    identity::{Caller, SessionError},
    limits::whole_seconds,
    manifest::{HttpListener, Network},
    runs::RunId,
    strict,
};

/// Where the protocol is spoken.
const ENDPOINT: &str = "/mcp";
/// The header of sessions of older revisions (MCP 2025-11-25 transports, "Session Management").
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// The first revision without sessions.
const STATELESS_SINCE: &[u8] = b"2026-07-28";

const EVENT_STREAM: &str = "text/event-stream";

/// The edge of one listener.
pub(super) struct Front {
    gateway: Arc<Gateway>,
    names: Names,
    proxies: Vec<Network>,
    failures: Failures,
    room: Arc<Semaphore>,
    body_bytes_max: usize,
    body_timeout: Duration,
    protocol: Protocol,
    sessions: Arc<Sessions>,
}

/// A request whose caller is known.
struct Knock {
    parts: Parts,
    caller: Caller,
    proof: Proof,
    origin: Origin,
    /// The run of the session that it is in.
    session: Option<RunId>,
}

impl Knock {
    fn call(&self, kind: CallKind) -> Call {
        Call::now(kind, self.proof.clone(), self.origin, CancellationToken::new())
    }
}

impl Front {
    pub(super) fn new(
        gateway: Arc<Gateway>,
        settings: &HttpListener,
        protocol: Protocol,
        sessions: Arc<Sessions>,
    ) -> Self {
        Self {
            gateway,
            names: Names::of(settings),
            proxies: settings.trusted_proxies.clone(),
            failures: Failures::new(settings.failures),
            room: Arc::new(Semaphore::new(permits(settings.in_flight))),
            body_bytes_max: settings.body.bytes(),
            body_timeout: settings.body_timeout.duration(),
            protocol,
            sessions,
        }
    }

    /// Counts what was turned away before it was a request.
    pub(super) fn count(&self, source: SocketAddr, word: &'static str) {
        self.gateway.count(Some(source.ip()), word);
    }

    /// Answers one request.
    pub(super) async fn answer(&self, visitor: &Visitor, request: Request<Incoming>, pace: &Pace) -> Answer {
        let (parts, body) = request.into_parts();
        if let Some(answer) = health::answer(&parts, &self.gateway) {
            return answer;
        }
        if !body.is_end_stream() {
            pace.leave_unread(); // until it is read
        }
        let source = match source::judge(visitor.source.ip(), &parts.headers, &self.proxies) {
            Ok(judged) => SocketAddr::new(judged, visitor.source.port()),
            Err(error) => {
                self.count(visitor.source, "bad_forwarded");
                return unforwarded(error).answer(&Value::Null);
            }
        };
        if let Err(error) = self.names.check(&parts.uri, &parts.headers) {
            let refusal = misnamed(error);
            self.count(source, refusal.word);
            return refusal.answer(&Value::Null);
        }
        let origin = Origin { transport: Transport::Http, source: Some(source.ip()) };
        if has_token_in_query(&parts.uri) {
            self.count(source, "token_in_query");
            return token_in_query().answer(&Value::Null);
        }
        let Ok(mut proof) = visitor.vouch(proof(&parts.headers)) else {
            self.count(source, "expired_certificate");
            return farewell(self.unauthorized(&Proof::default()));
        };
        let wish = Wish::of(&parts, &self.gateway);
        if let Err(retry) = self.may_try(source, &proof, wish) {
            self.count(source, "failures_spent");
            return too_many_failures(retry);
        }
        if let Some(wish) = wish {
            let answer = self.grant(wish, &parts, body, &proof, origin, pace).await;
            if answer.status() == StatusCode::UNAUTHORIZED {
                self.failures.add(source.ip());
            }
            return answer;
        }
        proof = for_call(proof, &parts.headers);
        let caller = match self.gateway.authenticate(&proof, origin).await {
            Ok(caller) => caller,
            Err(refusal) if refusal.is_ours() => return unavailable().answer(&Value::Null),
            Err(_) => {
                self.note_failure(source, &proof);
                return self.unauthorized(&proof);
            }
        };
        let session = match self.session(&parts, &caller, &mut proof, source).await {
            Ok(session) => session,
            Err(answer) => return answer,
        };
        let knock = Knock { parts, caller, proof, origin, session };
        if let Err(refusal) = is_endpoint(&knock.parts) {
            // Nothing was asked for: older clients try a `GET`, and go on without it.
            return refusal.answer(&Value::Null);
        }
        if let Err(refusal) = is_readable(&knock.parts.headers) {
            return self.refuse(&knock, None, &Value::Null, refusal).await;
        }
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            self.count(source, "in_flight_full");
            return full().answer(&Value::Null);
        };
        let body = match self.read(body, self.body_bytes_max).await {
            Ok(body) => body,
            Err(refusal) => return self.refuse(&knock, None, &Value::Null, refusal).await,
        };
        pace.read_all();
        self.admit(knock, body, place).await
    }

    /// The session that a request says it is in, which its calls are then in too. What a session is asked for
    /// beside calls is answered here: its end, and its stream.
    async fn session(
        &self,
        parts: &Parts,
        caller: &Caller,
        proof: &mut Proof,
        source: SocketAddr,
    ) -> Result<Option<RunId>, Answer> {
        let session = session(&parts.headers).map_err(|refusal| refusal.answer(&Value::Null))?;
        let Some(session) = session else { return Ok(None) };
        let run = match self.gateway.session(caller, &session).await {
            Ok(run) => run,
            Err(error) if error.is_ours() => return Err(unavailable().answer(&Value::Null)),
            Err(_) => {
                // The same for one that never was as for somebody else's.
                self.count(source, "unknown_session");
                return Err(unknown_session().answer(&Value::Null));
            }
        };
        if parts.uri.path() == ENDPOINT {
            match parts.method {
                Method::DELETE => {
                    self.gateway.end_run(&run).await;
                    self.sessions.end(&run);
                    return Err(ended());
                }
                Method::GET if !is_stateless(&parts.headers) => {
                    return Err(self.listen(run, &parts.headers));
                }
                _ => {}
            }
        }
        proof.run = Some(RunClaim::Session(session.into()));
        Ok(Some(run))
    }

    fn listen(&self, run: RunId, headers: &HeaderMap) -> Answer {
        let known = known_versions();
        if let Err(error) = headers::agree(headers, Said::default(), known) {
            return disagreeing(error, known).answer(&Value::Null);
        }
        if !accepts(headers, EVENT_STREAM) {
            return no_stream().answer(&Value::Null);
        }
        self.sessions.listen(run, headers)
    }

    /// Whether a source may show what it shows. Asked before any of it is looked at, so that the answer is
    /// the same for a right proof and a wrong one. A certificate is no guess: the handshake proved it.
    /// What asks for a token shows its proof in the body; what describes the server asks for none.
    fn may_try(&self, source: SocketAddr, proof: &Proof, wish: Option<Wish>) -> Result<(), Duration> {
        match (wish, &proof.claim, &proof.certificate) {
            (None, Claim::Nothing, Some(_)) => Ok(()), // costs no more than a look-up
            (Some(wish), ..) if !wish.has_body() => Ok(()),
            _ => self.failures.check(source.ip()),
        }
    }

    /// Whoever shows nothing guesses nothing: clients begin like that to be told where to log in.
    fn note_failure(&self, source: SocketAddr, proof: &Proof) {
        if matches!(proof.claim, Claim::Bearer(_)) {
            self.failures.add(source.ip());
        }
    }

    async fn read(&self, body: Incoming, bytes_max: usize) -> Result<Bytes, Refusal> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > bytes_max {
            return Err(too_large());
        }
        match timeout(self.body_timeout, Limited::new(body, bytes_max).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                INVALID_REQUEST,
                "body_broken",
                "the request's body did not arrive whole",
            )),
            Err(_) => Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                INVALID_REQUEST,
                "body_timeout",
                "the request's body took too long to arrive",
            )),
        }
    }

    /// Reads the message, and hands it to the protocol if it can be read in one way only.
    async fn admit(&self, mut knock: Knock, body: Bytes, place: OwnedSemaphorePermit) -> Answer {
        let message = match strict::message(&body) {
            Ok(message) => message,
            Err(refused) => {
                let id = refused.id.clone();
                return self.refuse(&knock, None, &id, malformed(refused)).await;
            }
        };
        let is_request = message.id.is_some() && message.method.is_some();
        let id = message.id.map_or(Value::Null, Value::from);
        let method = message.method.unwrap_or_default();
        let name = message.params_name.map(std::borrow::Cow::into_owned);
        let tool = (is_request && method == "tools/call").then(|| name.clone().unwrap_or_default());
        let checked = self.check(&knock, &method, is_request, message.params.unwrap_or(b"{}"));
        if let Err(refusal) = checked {
            // What is no tool call is refused without a record, as it would be without a mistake.
            return match tool {
                Some(tool) => self.refuse(&knock, Some(tool), &id, refusal).await,
                None => refusal.answer(&id),
            };
        }
        if let Some(tool) = &tool {
            let kind = CallKind::Tool { name: tool.clone(), arguments: Map::new().into() };
            if let Some(answer) = self.step_up(&knock, &id, kind).await {
                return answer;
            }
        }
        let reached = Arc::new(AtomicBool::new(false));
        let shown = Shown { proof: knock.proof.clone(), origin: knock.origin, reached: Arc::clone(&reached) };
        knock.parts.extensions.insert(shown);
        plain_media_types(&mut knock.parts.headers);
        knock.parts.headers.remove(SESSION);
        // A token that is bound to a run needs none.
        let is_bound = knock.caller.grant().is_some_and(|grant| grant.run.is_some());
        let begins_session = is_request && method == "initialize" && !is_bound;
        let client = begins_session.then(|| message.params.map(<[u8]>::to_vec)).flatten();
        let is_within = method != "initialize" && !is_stateless(&knock.parts.headers);
        let mut answer = match knock.session.filter(|_| is_within) {
            Some(run) => {
                let taken = self.sessions.post(run, knock.parts.clone(), &body, place).await;
                taken.unwrap_or_else(|refusal| refusal.answer(&id))
            }
            None => {
                let request = Request::from_parts(knock.parts.clone(), Full::new(body));
                keeping(readable(self.protocol.handle(request).await, &id), place)
            }
        };
        if begins_session && answer.status().is_success() {
            answer = self.begin_session(&knock, answer, &id, client.as_deref()).await;
        }
        if let Some(tool) = tool
            && !reached.load(Ordering::Relaxed)
        {
            // The protocol itself refused it: no handler has seen it, so no guard has put it on record.
            let refusal = EdgeError { code: "protocol", message: "refused by the protocol".into() };
            self.record(&knock, tool, refusal).await;
        }
        answer
    }

    /// Gives the client of an older revision a session, which is a run of its own.
    async fn begin_session(
        &self,
        knock: &Knock,
        mut answer: Answer,
        id: &Value,
        client: Option<&[u8]>,
    ) -> Answer {
        match self.gateway.begin_session(&knock.caller).await {
            Ok(session) => {
                let run = self.gateway.session(&knock.caller, &session).await;
                let (Ok(value), Ok(run)) = (HeaderValue::from_str(&session), run) else {
                    return failed().answer(id);
                };
                // The protocol has read the same, and found it in order.
                let client = client.and_then(|client| serde_json::from_slice(client).ok());
                self.sessions.begin(run, client);
                answer.headers_mut().insert(SESSION, value);
                answer
            }
            Err(SessionError::OfClient { .. } | SessionError::InAll { .. }) => {
                self.gateway.count(knock.origin.source, "sessions_full");
                sessions_full().answer(id)
            }
            Err(SessionError::Runs(error)) => {
                tracing::error!(%error, "a session could not be begun");
                unavailable().answer(id)
            }
        }
    }

    /// Answers what is asked beside the protocol: for tokens, and for what describes them.
    async fn grant(
        &self,
        wish: Wish,
        parts: &Parts,
        body: Incoming,
        proof: &Proof,
        origin: Origin,
        pace: &Pace,
    ) -> Answer {
        if let Some(answer) = oauth::misfit(wish, parts) {
            return answer;
        }
        if !wish.has_body() {
            return oauth::document(wish, parts, &self.gateway).await;
        }
        let Ok(_place) = self.room.try_acquire() else {
            self.gateway.count(origin.source, "in_flight_full");
            return full().answer(&Value::Null);
        };
        let body = match self.read(body, FORM_BYTES_MAX.min(self.body_bytes_max)).await {
            Ok(body) => body,
            Err(refusal) => return refusal.answer(&Value::Null),
        };
        pace.read_all();
        oauth::answer(wish, parts, &body, proof, origin, &self.gateway).await
    }

    /// RFC 6750 §3: a challenge, with an error only where something was shown.
    fn unauthorized(&self, proof: &Proof) -> Answer {
        let error = match proof.claim {
            Claim::Nothing | Claim::Asserted(_) => "",
            Claim::Bearer(_) => ", error=\"invalid_token\"",
        };
        let refusal = Refusal::new(
            StatusCode::UNAUTHORIZED,
            UNAUTHENTICATED,
            "unauthenticated",
            "authentication failed",
        );
        challenged(refusal.answer(&Value::Null), error, self.gateway.metadata().challenge())
    }

    /// Whether the headers say what the body says.
    fn check(&self, knock: &Knock, method: &str, is_request: bool, params: &[u8]) -> Result<(), Refusal> {
        let peek: Peek = serde_json::from_slice(params).map_err(|_| misfit())?;
        let known = known_versions();
        let headers = &knock.parts.headers;
        let said = Said { method, is_request, name: peek.name(method), version: peek.version(method) };
        headers::agree(headers, said, known).map_err(|error| disagreeing(error, known))?;
        if !is_request || method != "tools/call" {
            return Ok(());
        }
        let name = peek.name.as_str().ok_or_else(misfit)?;
        // Only a tool that the caller may see is looked at: a hidden one answers like an unknown one.
        let Some(tool) = self.gateway.visible(&knock.caller, name) else { return Ok(()) };
        let mirrored = tool.mirrored();
        if mirrored.is_empty() {
            return Ok(());
        }
        let Arguments { arguments } = serde_json::from_slice(params).map_err(|_| misfit())?;
        headers::arguments_agree(headers, mirrored, &arguments).map_err(|error| disagreeing(error, known))
    }

    /// Answers a call here that lacks only scopes: a handler could not say 403.
    async fn step_up(&self, knock: &Knock, id: &Value, kind: CallKind) -> Option<Answer> {
        // A task of its own: a client that hangs up drops no record.
        let (gateway, call) = (Arc::clone(&self.gateway), knock.call(kind));
        match tokio::spawn(async move { gateway.step_up(call).await }).await {
            Ok(Ok((reply, scopes))) => {
                let challenge = self.gateway.metadata().challenge_for(&scopes);
                Some(insufficient_scope(id, &reply, &challenge))
            }
            Ok(Err(_)) => None, // not one for a step-up: the handler makes the call
            Err(_) => Some(failed().answer(id)),
        }
    }

    /// Puts a refusal on record, and then makes an answer of it. What cannot be read names no tool.
    async fn refuse(&self, knock: &Knock, tool: Option<String>, id: &Value, refusal: Refusal) -> Answer {
        let error = EdgeError { code: refusal.word, message: refusal.message.clone().into_owned() };
        self.record(knock, tool.unwrap_or_default(), error).await;
        refusal.answer(id)
    }

    async fn record(&self, knock: &Knock, name: String, refusal: EdgeError) {
        let kind = CallKind::Tool { name, arguments: Map::new().into() };
        let (gateway, call) = (Arc::clone(&self.gateway), knock.call(kind));
        // A task of its own: a client that hangs up drops no record.
        let _ = tokio::spawn(async move { gateway.refuse_at_edge(call, refusal).await }).await;
    }
}

/// Whether a request says that it speaks a revision without sessions.
fn is_stateless(headers: &HeaderMap) -> bool {
    headers.get("mcp-protocol-version").is_some_and(|version| version.as_bytes() >= STATELESS_SINCE)
}

/// The revisions that are spoken here.
fn known_versions() -> &'static [&'static str] {
    static KNOWN: LazyLock<Vec<&str>> =
        LazyLock::new(|| ProtocolVersion::KNOWN_VERSIONS.iter().map(ProtocolVersion::as_str).collect());
    &KNOWN
}

/// What a request shows: one bearer token, or nothing. A token in the query is not looked at.
fn proof(headers: &HeaderMap) -> Proof {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Proof::default() };
    let Ok(text) = value.to_str() else { return Proof::default() };
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Proof::bearer(token.trim().to_owned())
        }
        _ => Proof::default(),
    }
}

/// The parts of the parameters that headers repeat.
#[derive(Deserialize)]
struct Peek {
    #[serde(default)]
    name: Value,
    #[serde(default)]
    uri: Value,
    #[serde(default, rename = "taskId")]
    task: Value,
    #[serde(default, rename = "protocolVersion")]
    version: Value,
    #[serde(default, rename = "_meta")]
    meta: Value,
}

#[derive(Deserialize)]
struct Arguments {
    #[serde(default)]
    arguments: Value,
}

impl Peek {
    fn name(&self, method: &str) -> Option<&str> {
        match method {
            "tools/call" | "prompts/get" => self.name.as_str(),
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => self.uri.as_str(),
            "tasks/get" | "tasks/update" | "tasks/cancel" => self.task.as_str(),
            _ => None,
        }
    }

    fn version(&self, method: &str) -> Option<&str> {
        match method {
            "initialize" => self.version.as_str(),
            _ => self.meta.get("io.modelcontextprotocol/protocolVersion").and_then(Value::as_str),
        }
    }
}

fn refuse(status: StatusCode, word: &'static str, message: &'static str) -> Result<(), Refusal> {
    Err(Refusal::new(status, INVALID_REQUEST, word, message))
}

/// Whether a request is a `POST` to the one endpoint.
fn is_endpoint(parts: &Parts) -> Result<(), Refusal> {
    if parts.uri.path() != ENDPOINT {
        return refuse(
            StatusCode::NOT_FOUND,
            "unknown_path",
            "there is nothing here: the endpoint is `/mcp`",
        );
    }
    if parts.method != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "http_method", "the endpoint takes `POST` only");
    }
    Ok(())
}

/// Whether a body is in a form that is read here, and the answer in one that its client reads.
fn is_readable(headers: &HeaderMap) -> Result<(), Refusal> {
    if !is_json(headers) {
        let message = "the request's `Content-Type` must be `application/json`";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message);
    }
    // RFC 9112 §6.1: a body that two readers could end at different places.
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_plain = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !is_plain || codings.next().is_some() {
        return refuse(StatusCode::BAD_REQUEST, "framing", "the only transfer coding is `chunked`, once");
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        let message = "the request's body must not be encoded";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", message);
    }
    if !accepts(headers, "application/json") || !accepts(headers, EVENT_STREAM) {
        let message = "the request's `Accept` must list `application/json` and `text/event-stream`";
        return refuse(StatusCode::NOT_ACCEPTABLE, "accept", message);
    }
    Ok(())
}

/// Exactly one content type, and in UTF-8 if it says in what.
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Ok(text) = value.to_str() else { return false };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case("application/json")
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        essence.eq_ignore_ascii_case(wanted) && !parts.any(|weight| matches!(weight, "q=0" | "q=0.0"))
    })
}

/// What was checked is what is handed on, so that the protocol cannot read it in another way.
fn plain_media_types(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
}

/// An answer that holds its place among those that are worked on until it is sent, where it is a stream.
fn keeping(answer: Answer, place: OwnedSemaphorePermit) -> Answer {
    if !is_stream(&answer) {
        return answer;
    }
    answer.map(|body| {
        body.map_frame(move |frame| {
            let _ = &place;
            frame
        })
        .boxed()
    })
}

/// Puts a JSON-RPC error in place of a plain text.
fn readable(answer: Answer, id: &Value) -> Answer {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_readable = kind
        .is_some_and(|kind| kind.starts_with("application/json") || kind.starts_with("text/event-stream"));
    match answer.status() {
        status if status.is_success() || is_readable => answer,
        status if status.is_server_error() => failed().answer(id),
        status => {
            Refusal::new(status, INVALID_REQUEST, "protocol", "not a request of this protocol").answer(id)
        }
    }
}

fn misnamed(error: NameError) -> Refusal {
    let (status, word, message) = match error {
        NameError::BadHost => (StatusCode::BAD_REQUEST, "bad_host", "the request must name exactly one host"),
        NameError::ForeignHost => {
            (StatusCode::FORBIDDEN, "foreign_host", "the request's host is not one of this server's")
        }
        NameError::ForeignOrigin => {
            (StatusCode::FORBIDDEN, "foreign_origin", "the request's origin may not call this server")
        }
    };
    Refusal::new(status, INVALID_REQUEST, word, message)
}

/// What a trusted proxy says of its client, in a way that cannot be believed.
fn unforwarded(error: SourceError) -> Refusal {
    let message = error.to_string().into();
    Refusal { message, ..Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "bad_forwarded", "") }
}

fn too_many_failures(retry: Duration) -> Answer {
    let message = "too many failed attempts from this address: come back later";
    let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, BUSY, "failures_spent", message);
    let mut answer = refusal.answer(&Value::Null);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(retry)));
    answer
}

/// The last answer of its connection.
fn farewell(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn disagreeing(error: HeaderError, known: &[&str]) -> Refusal {
    let status = StatusCode::BAD_REQUEST;
    match error {
        HeaderError::Mismatch(_) => Refusal {
            message: error.to_string().into(),
            ..Refusal::new(status, HEADER_MISMATCH, "header_mismatch", "")
        },
        HeaderError::UnknownVersion(requested) => Refusal {
            data: Some(json!({ "requested": shown(&requested), "supported": known })),
            ..Refusal::new(status, UNSUPPORTED_VERSION, "unsupported_version", "unsupported protocol version")
        },
    }
}

/// What a client wrote, as it is repeated to it.
fn shown(text: &str) -> String {
    hygiene::clean(text).0.chars().take(64).collect()
}

/// A message that is not strict JSON, or no message.
pub(super) fn malformed(refused: strict::Refused) -> Refusal {
    let message = refused.message.into();
    Refusal { message, ..Refusal::new(StatusCode::BAD_REQUEST, refused.code, refused.word, "") }
}

fn misfit() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, INVALID_PARAMS, "params", "the parameters do not fit the method")
}

fn too_large() -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, "too_large", "the request is too large")
}

fn no_stream() -> Refusal {
    let message = "the request's `Accept` must list `text/event-stream`";
    Refusal::new(StatusCode::NOT_ACCEPTABLE, INVALID_REQUEST, "accept", message)
}

fn full() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, "in_flight_full", "the server is busy: try again")
}

fn failed() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_ERROR, "failed", "internal error")
}

/// An answer with a challenge (RFC 6750 §3, RFC 9728 §5.1).
fn challenged(mut answer: Answer, error: &str, rest: &str) -> Answer {
    let challenge = format!("Bearer realm=\"callgate\"{error}{rest}");
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}

/// RFC 6750 §3.1 and MCP 2026-07-28 authorization: names all scopes that the operation needs.
fn insufficient_scope(id: &Value, reply: &Reply, challenge: &str) -> Answer {
    let message = match &reply.body {
        Err(Notice::Refused { message, .. } | Notice::Unknown(message)) => message.clone(),
        Ok(_) => "insufficient scope".to_owned(),
    };
    let refusal = Refusal {
        message: message.into(),
        ..Refusal::new(StatusCode::FORBIDDEN, MISSING_SCOPE, "missing_scope", "")
    };
    challenged(refusal.answer(id), ", error=\"insufficient_scope\"", challenge)
}

/// Whether a token is where logs and histories keep it (RFC 6750 §2.3, OAuth 2.1 §5.1.2).
fn has_token_in_query(uri: &Uri) -> bool {
    let names = |query: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .any(|(name, _)| name.eq_ignore_ascii_case("access_token"))
    };
    uri.query().is_some_and(names)
}

fn token_in_query() -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        INVALID_REQUEST,
        "token_in_query",
        "a token belongs into the `Authorization` header, never into the URL",
    )
}

/// The session that a request says it is in.
fn session(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(SESSION).iter();
    let (value, more) = (values.next(), values.next());
    match value.map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(session)) if more.is_none() => Ok(Some(session.to_owned())),
        Some(_) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            INVALID_REQUEST,
            "session_id",
            "the request must name one session, or none",
        )),
    }
}

fn unknown_session() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "unknown_session", "there is no such session")
}

fn sessions_full() -> Refusal {
    let message = "there are as many sessions as there may be: end one, or try again later";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, "sessions_full", message)
}

fn unavailable() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, "unavailable", "temporarily unavailable")
}

fn ended() -> Answer {
    let mut answer = Answer::new(Full::default().boxed());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}
