//! What a request meets before the protocol: the one place where the order of the edge is written.
//!
//! Which server it means, who sends it, whether it is a request at all, whether there is room, what it
//! says, and whether its headers say the same. Each refusal is a JSON-RPC error; of a known caller's
//! messages, each that is or may be a tool call leaves a record.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header, request::Parts};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Body as _, Bytes, Incoming};
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    body::{Unread, read_whole},
    failures::Failures,
    headers::{self, Said},
    health,
    host::Names,
    http::Protocol,
    mcp::{Lent, Shown, unspoken},
    media::{EVENT_STREAM, accepts, is_answerable, is_readable, plain_media_types},
    oauth::{self, FORM_BYTES_MAX, Wish},
    pace::{Pace, is_stream},
    peek::{Arguments, Peek, asked, known_versions, nameless, uri_of},
    reasons::{
        challenged, disagreeing, failed, farewell, full, insufficient_scope, malformed, misfit, misfit_meta,
        misnamed, no_stream, streams_full, token_in_query, too_large, too_many_failures, two_lengths,
        unavailable, unforwarded, wrong_method,
    },
    refusal::{Answer, BUSY, INVALID_REQUEST, Refusal, UNAUTHENTICATED},
    room::{Place, Room},
    seats::Seats,
    sessions::Sessions,
    source,
    sse::{Door, Streams},
    visitor::{Visitor, for_call},
};
use crate::{
    call::{Call, CallKind, Claim, Era, Origin, Proof, RunClaim, Transport},
    gateway::{EdgeError, Gateway},
    identity::{Caller, SessionError},
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

/// The edge of one listener.
pub(super) struct Front {
    gateway: Arc<Gateway>,
    names: Names,
    proxies: Vec<Network>,
    failures: Failures,
    room: Room,
    body_bytes_max: usize,
    body_timeout: Duration,
    protocol: Protocol,
    sessions: Arc<Sessions>,
    seats: Arc<Seats>,
    streams: Option<Arc<Streams>>,
}

/// A request whose caller is known.
pub(super) struct Knock {
    pub(super) parts: Parts,
    pub(super) caller: Caller,
    pub(super) proof: Proof,
    pub(super) origin: Origin,
    /// The run of the session that it is in.
    pub(super) session: Option<RunId>,
}

/// A message that can be read in one way only, and that is not refused at the edge.
pub(super) struct Judged {
    pub(super) id: Value,
    pub(super) method: String,
    pub(super) is_request: bool,
    /// The call that it makes, where it makes one, without its arguments.
    pub(super) call: Option<CallKind>,
}

impl Knock {
    pub(super) fn call(&self, kind: CallKind) -> Call {
        Call::now(kind, self.proof.clone(), self.origin, CancellationToken::new())
    }
}

impl Front {
    pub(super) fn new(
        gateway: Arc<Gateway>,
        settings: &HttpListener,
        protocol: Protocol,
        sessions: Arc<Sessions>,
        seats: Arc<Seats>,
        streams: Option<Arc<Streams>>,
    ) -> Self {
        Self {
            gateway,
            names: Names::of(settings),
            proxies: settings.trusted_proxies.clone(),
            failures: Failures::new(settings.failures),
            room: Room::new(settings.in_flight),
            body_bytes_max: settings.body.bytes(),
            body_timeout: settings.body_timeout.duration(),
            protocol,
            sessions,
            seats,
            streams,
        }
    }

    pub(super) const fn seats(&self) -> &Arc<Seats> {
        &self.seats
    }

    pub(super) const fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Counts what was turned away before it was a request.
    pub(super) fn count(&self, source: SocketAddr, word: &'static str) {
        self.gateway.count(Some(source.ip()), word);
    }

    /// Answers one request.
    pub(super) async fn answer(
        &self,
        visitor: &Visitor,
        request: Request<Incoming>,
        pace: &Arc<Pace>,
    ) -> Answer {
        let wish = Wish::of(request.uri().path(), &self.gateway);
        let answer = self.attend(visitor, request, wish, pace).await;
        if wish.is_some() { oauth::in_its_words(answer) } else { answer }
    }

    async fn attend(
        &self,
        visitor: &Visitor,
        request: Request<Incoming>,
        wish: Option<Wish>,
        pace: &Arc<Pace>,
    ) -> Answer {
        let (parts, body) = request.into_parts();
        if pace.is_ambiguous() && parts.headers.contains_key(header::TRANSFER_ENCODING) {
            pace.leave_unread();
            self.count(visitor.source, "framing");
            return two_lengths().answer(&Value::Null);
        }
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
        let Ok(proof) = visitor.vouch(proof(&parts.headers)) else {
            self.count(source, "expired_certificate");
            return farewell(self.unauthorized(&Proof::default()));
        };
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
        let proof = for_call(proof, &parts.headers);
        let caller = match self.gateway.authenticate(&proof, origin).await {
            Ok(caller) => caller,
            Err(refusal) if refusal.is_ours() => return unavailable().answer(&Value::Null),
            Err(_) => {
                self.note_failure(source, &proof);
                return self.unauthorized(&proof);
            }
        };
        let mut knock = Knock { parts, caller, proof, origin, session: None };
        if let Some(streams) = &self.streams
            && let Some(door) = Door::of(&knock.parts)
        {
            return self.answer_stream(streams, door, knock, body, pace).await;
        }
        if let Err(answer) = self.enter_session(&mut knock, pace).await {
            return answer;
        }
        if let Some(answer) = off_endpoint(&knock.parts) {
            // Nothing was asked for: older clients try a `GET`, and go on without it.
            return answer;
        }
        let form = is_readable(&knock.parts.headers).and_then(|()| is_answerable(&knock.parts.headers));
        if let Err(refusal) = form {
            return self.refuse(&knock, None, &Value::Null, refusal).await;
        }
        let (place, body) = match self.receive(&knock, body, pace).await {
            Ok(received) => received,
            Err(answer) => return answer,
        };
        self.admit(knock, body, place, pace).await
    }

    /// Enters the session that a request says it is in, in which its calls are then too. What a session is asked
    /// for beside calls is answered here: its end, and its stream.
    async fn enter_session(&self, knock: &mut Knock, pace: &Arc<Pace>) -> Result<(), Answer> {
        let session = match session(&knock.parts.headers) {
            Ok(None) => return Ok(()),
            Ok(Some(session)) => session,
            Err(refusal) => return Err(self.refuse_session(knock, refusal).await),
        };
        let run = match self.gateway.session(&knock.caller, &session).await {
            Ok(run) => run,
            Err(error) if error.is_ours() => return Err(unavailable().answer(&Value::Null)),
            // The same for one that never was as for somebody else's.
            Err(_) => return Err(self.refuse_session(knock, unknown_session()).await),
        };
        if knock.parts.uri.path() == ENDPOINT {
            match knock.parts.method {
                Method::DELETE => {
                    self.gateway.end_run(&run).await;
                    self.sessions.end(&run);
                    return Err(ended());
                }
                Method::GET if !is_stateless(&knock.parts.headers) => {
                    return Err(self.listen(run, knock, pace).await);
                }
                _ => {}
            }
        }
        knock.proof.run = Some(RunClaim::Session(session.into()));
        knock.session = Some(run);
        Ok(())
    }

    /// Refuses a session. A message in it may have been a call, and is put on record; the rest is counted.
    async fn refuse_session(&self, knock: &Knock, refusal: Refusal) -> Answer {
        if knock.parts.method == Method::POST && knock.parts.uri.path() == ENDPOINT {
            return self.refuse(knock, None, &Value::Null, refusal).await;
        }
        self.gateway.count(knock.origin.source, refusal.word);
        refusal.answer(&Value::Null)
    }

    async fn listen(&self, run: RunId, knock: &Knock, pace: &Arc<Pace>) -> Answer {
        let (headers, known) = (&knock.parts.headers, known_versions());
        if let Err(error) = headers::agree(headers, Said::default(), known) {
            return disagreeing(error, known).answer(&Value::Null);
        }
        if !accepts(headers, EVENT_STREAM) {
            return no_stream().answer(&Value::Null);
        }
        let room = self.seats.reserve(knock.caller.client().name());
        let seat = room.and_then(|room| self.seats.sit(room, knock.caller.clone(), run, Arc::clone(pace)));
        let Some(seat) = seat else { return self.no_seat(knock.origin) };
        if !self.gateway.still_stands(&knock.caller) {
            return self.fallen(knock, None).await;
        }
        if !self.gateway.stands(&knock.caller, Some(run)) {
            return self.refuse_session(knock, unknown_session()).await;
        }
        farewell(keeping(self.sessions.listen(run, headers), seat))
    }

    /// Says that a client has as many streams as it may have.
    pub(super) fn no_seat(&self, origin: Origin) -> Answer {
        self.gateway.count(origin.source, "streams_full");
        streams_full().answer(&Value::Null)
    }

    /// Reads a body, as soon as there is a place to work on it.
    pub(super) async fn receive(
        &self,
        knock: &Knock,
        body: Incoming,
        pace: &Pace,
    ) -> Result<(Place, Bytes), Answer> {
        let Some(place) = self.room.of_client(knock.caller.client().name()) else {
            self.gateway.count(knock.origin.source, "in_flight_full");
            return Err(full().answer(&Value::Null));
        };
        match self.read(body, self.body_bytes_max).await {
            Ok(body) => {
                pace.read_all();
                Ok((place, body))
            }
            Err(refusal) => Err(self.refuse(knock, None, &Value::Null, refusal).await),
        }
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
        match timeout(self.body_timeout, read_whole(body, bytes_max)).await {
            Ok(Ok(body)) => Ok(body.into()),
            Ok(Err(Unread::TooLarge)) => Err(too_large()),
            Ok(Err(Unread::Broken)) => Err(Refusal::new(
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

    /// Judges a message, and answers it here if it is not for the protocol.
    ///
    /// Headers that repeat the body have to agree with it, and to be there where the transport demands them.
    pub(super) async fn judge(&self, knock: &Knock, body: &[u8], demands: bool) -> Result<Judged, Answer> {
        let message = match strict::message(body) {
            Ok(message) => message,
            Err(refused) => {
                let id = refused.id.clone();
                return Err(self.refuse(knock, None, &id, malformed(refused)).await);
            }
        };
        let is_request = message.id.is_some() && message.method.is_some();
        let id = message.id.map_or(Value::Null, Value::from);
        let method = message.method.unwrap_or_default();
        let name = message.params_name.map(std::borrow::Cow::into_owned);
        let params = message.params.unwrap_or(b"{}");
        let call = asked(&method, || name.unwrap_or_default(), || uri_of(params)).filter(|_| is_request);
        let method = method.into_owned();
        let judged = Judged { id, method, is_request, call };
        if let Some(answer) = self.look_again(knock, &judged).await {
            return Err(answer);
        }
        if let Err(refusal) = self.check(knock, &judged, params, demands) {
            return Err(self.refuse_judged(knock, judged, refusal).await);
        }
        if let Some(kind) = &judged.call
            && let Some(answer) = self.step_up(knock, &judged.id, kind.clone()).await
        {
            return Err(answer);
        }
        Ok(judged)
    }

    /// Refuses a message whose caller, or whose run, no longer stands: its body may have taken its time.
    async fn look_again(&self, knock: &Knock, judged: &Judged) -> Option<Answer> {
        if !self.gateway.still_stands(&knock.caller) {
            return Some(self.fallen(knock, judged.call.clone()).await);
        }
        let has_ended = knock.session.is_some_and(|run| !self.gateway.stands(&knock.caller, Some(run)));
        if !has_ended {
            return None;
        }
        let refusal = unknown_session();
        Some(match judged.call.clone() {
            Some(call) => self.refuse(knock, Some(call), &judged.id, refusal).await,
            None => refusal.answer(&judged.id),
        })
    }

    /// The answer to whoever has lost its right since it was known. A call is on record; the rest is counted.
    pub(super) async fn fallen(&self, knock: &Knock, call: Option<CallKind>) -> Answer {
        const WORD: &str = "unauthenticated";
        match call {
            Some(call) => {
                let error = EdgeError { code: WORD, message: "authentication failed".into() };
                self.record(knock, call, error).await;
            }
            None => self.gateway.count(knock.origin.source, WORD),
        }
        self.unauthorized(&knock.proof)
    }

    /// Refuses a message that can be read. What is no call is refused without a record, as it would be
    /// answered without one.
    pub(super) async fn refuse_judged(&self, knock: &Knock, judged: Judged, refusal: Refusal) -> Answer {
        match judged.call {
            Some(call) => self.refuse(knock, Some(call), &judged.id, refusal).await,
            None => refusal.answer(&judged.id),
        }
    }

    /// Hands a message to the protocol.
    async fn admit(&self, mut knock: Knock, body: Bytes, place: Place, pace: &Arc<Pace>) -> Answer {
        let Judged { id, method, is_request, call } = match self.judge(&knock, &body, true).await {
            Ok(judged) => judged,
            Err(answer) => return answer,
        };
        let era = if is_stateless(&knock.parts.headers) { Era::Stateless } else { Era::Session };
        if is_request && let Some(unspoken) = unspoken(&self.gateway, &method, era) {
            // Older revisions know a 404 only as the end of a session.
            let status = if era == Era::Stateless { StatusCode::NOT_FOUND } else { StatusCode::OK };
            return Refusal { status, ..unspoken }.answer(&id);
        }
        let reached = Arc::new(AtomicBool::new(false));
        let (proof, lent) = (knock.proof.clone(), Lent::default());
        let shown = Shown { proof, origin: knock.origin, reached: Arc::clone(&reached), place: lent.clone() };
        knock.parts.extensions.insert(shown);
        plain_media_types(&mut knock.parts.headers);
        knock.parts.headers.remove(SESSION);
        // A token that is bound to a run needs none.
        let is_bound = knock.caller.grant().is_some_and(|grant| grant.run.is_some());
        let begins_session = is_request && method == "initialize" && !is_bound;
        let client = begins_session.then(|| initialize_params(&body)).flatten();
        let is_within = method != "initialize" && !is_stateless(&knock.parts.headers);
        let mut answer = match knock.session.filter(|_| is_within) {
            Some(run) => {
                let taken = self.sessions.post(run, knock.parts.clone(), &body, place).await;
                taken.unwrap_or_else(|refusal| refusal.answer(&id))
            }
            None => {
                lent.put(place);
                let request = Request::from_parts(knock.parts.clone(), Full::new(body));
                let answer = readable(self.protocol.handle(request).await, &id);
                if method == "subscriptions/listen" {
                    drop(lent.take()); // nobody works on a stream on which its client is told of changes
                }
                keeping(answer, lent) // a task may take it while the stream lasts
            }
        };
        if is_stream(&answer) {
            let seat = self.seats.answer(knock.caller.clone(), knock.session, Arc::clone(pace));
            answer = keeping(answer, seat);
        }
        if begins_session && answer.status().is_success() {
            answer = self.begin_session(&knock, answer, &id, client.as_deref()).await;
        }
        let Some(call) = call.filter(|_| !reached.load(Ordering::Relaxed)) else { return answer };
        // The protocol itself refused it: no handler has seen it, so no guard has put it on record.
        let refusal = EdgeError { code: "protocol", message: "refused by the protocol".into() };
        if is_stream(&answer) {
            return self.recorded_at_end(answer, &knock, call, refusal, reached);
        }
        self.record(&knock, call, refusal).await;
        answer
    }

    /// A stream that may begin before a handler has seen its request. Where none has when it ends, that is put on
    /// record.
    fn recorded_at_end(
        &self,
        answer: Answer,
        knock: &Knock,
        call: CallKind,
        refusal: EdgeError,
        reached: Arc<AtomicBool>,
    ) -> Answer {
        let (gateway, mut unseen) = (Arc::clone(&self.gateway), Some((knock.call(call), refusal)));
        let (caller, session) = (knock.caller.clone(), knock.session);
        let at_end = stream::poll_fn(move |_| {
            if let Some((call, refusal)) = unseen.take().filter(|_| !reached.load(Ordering::Relaxed)) {
                let (gateway, caller) = (Arc::clone(&gateway), caller.clone());
                tokio::spawn(
                    async move { gateway.refuse_known_at_edge(call, refusal, &caller, session).await },
                );
            }
            Poll::Ready(None)
        });
        answer.map(|body| BoxBody::new(StreamBody::new(BodyStream::new(body).chain(at_end))))
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
            Err(error) => self.not_begun(error, knock.origin, id),
        }
    }

    /// Says why no session begins.
    pub(super) fn not_begun(&self, error: SessionError, origin: Origin, id: &Value) -> Answer {
        match error {
            SessionError::OfClient { .. } | SessionError::InAll { .. } => {
                self.gateway.count(origin.source, "sessions_full");
                sessions_full().answer(id)
            }
            SessionError::Runs(error) => {
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
        let Some(_place) = origin.source.and_then(|source| self.room.of_stranger(source)) else {
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
    fn check(&self, knock: &Knock, judged: &Judged, params: &[u8], demands: bool) -> Result<(), Refusal> {
        let Judged { method, is_request, .. } = judged;
        let (method, is_request) = (method.as_str(), *is_request);
        let peek: Peek = serde_json::from_slice(params).map_err(|_| misfit())?;
        if !peek.has_fitting_meta() {
            return Err(misfit_meta());
        }
        let known = known_versions();
        let headers = &knock.parts.headers;
        let (name, version) = (peek.name(method), peek.version(method));
        let said = Said { method, is_request, name, version, demands };
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
        headers::arguments_agree(headers, mirrored, &arguments, demands)
            .map_err(|error| disagreeing(error, known))
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
    pub(super) async fn refuse(
        &self,
        knock: &Knock,
        call: Option<CallKind>,
        id: &Value,
        refusal: Refusal,
    ) -> Answer {
        let error = EdgeError { code: refusal.word, message: refusal.message.clone().into_owned() };
        self.record(knock, call.unwrap_or_else(nameless), error).await;
        refusal.answer(id)
    }

    async fn record(&self, knock: &Knock, kind: CallKind, refusal: EdgeError) {
        let (gateway, call) = (Arc::clone(&self.gateway), knock.call(kind));
        let (caller, session) = (knock.caller.clone(), knock.session);
        let put = async move { gateway.refuse_known_at_edge(call, refusal, &caller, session).await };
        let _ = tokio::spawn(put).await; // a task of its own: a client that hangs up drops no record
    }
}

/// What a client says of itself when its session begins.
fn initialize_params(body: &[u8]) -> Option<Vec<u8>> {
    Some(strict::message(body).ok()?.params?.to_vec())
}

/// Whether a request says that it speaks a revision without sessions.
fn is_stateless(headers: &HeaderMap) -> bool {
    headers.get("mcp-protocol-version").is_some_and(|version| version.as_bytes() >= STATELESS_SINCE)
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

/// Refuses what is no `POST` to the one endpoint. What a session is asked for is answered by now.
fn off_endpoint(parts: &Parts) -> Option<Answer> {
    if parts.uri.path() != ENDPOINT {
        let message = "there is nothing here: the endpoint is `/mcp`";
        let refusal = Refusal::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "unknown_path", message);
        return Some(refusal.answer(&Value::Null));
    }
    let (message, allowed) = match (&parts.method, is_stateless(&parts.headers)) {
        (&Method::POST, _) => return None,
        (&Method::GET, true) => ("this revision knows no streams that are opened by `GET`", "POST"),
        (&Method::DELETE, true) => ("this revision knows no sessions that could be ended", "POST"),
        (&Method::GET, false) => ("a stream is opened in a session: `Mcp-Session-Id` must name it", "POST"),
        (&Method::DELETE, false) => ("a session is ended by its id: `Mcp-Session-Id` must name it", "POST"),
        _ => ("the endpoint takes `POST`, and in a session `GET` and `DELETE`", "POST, GET, DELETE"),
    };
    Some(wrong_method(message, allowed))
}

/// An answer that holds what it takes until it is sent, where it is a stream.
fn keeping(answer: Answer, held: impl Send + Sync + 'static) -> Answer {
    if !is_stream(&answer) {
        return answer;
    }
    answer.map(|body| {
        body.map_frame(move |frame| {
            let _ = &held;
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

/// Whether a token is where logs and histories keep it (RFC 6750 §2.3, OAuth 2.1 §5.1.2).
fn has_token_in_query(uri: &Uri) -> bool {
    // Some take `;` for a separator, too, and would keep what follows it as a parameter.
    let parts = uri.query().unwrap_or_default().split([';', '&']);
    let mut pairs = parts.flat_map(|part| url::form_urlencoded::parse(part.as_bytes()));
    pairs.any(|(name, _)| name.eq_ignore_ascii_case("access_token"))
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

pub(super) fn unknown_session() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "unknown_session", "there is no such session")
}

fn sessions_full() -> Refusal {
    let message = "there are as many sessions as there may be: end one, or try again later";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, "sessions_full", message)
}

fn ended() -> Answer {
    let mut answer = Answer::new(Full::default().boxed());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}
