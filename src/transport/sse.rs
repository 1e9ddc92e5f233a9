//! HTTP+SSE, the transport of MCP 2024-11-05: a stream is opened first, and what is posted beside it is answered on it.
//!
//! A stream is a session: a run of its own, of the principal that opened it. It ends with its connection, and its
//! connection with it. Each message is judged as one of Streamable HTTP is, and made with its own proof.

mod events;
mod wire;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use http::{HeaderValue, Method, Request, StatusCode, Uri, header, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use rmcp::{
    ServiceExt as _,
    model::{ClientJsonRpcMessage, ClientRequest, CustomRequest},
};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    events::Events,
    wire::{Inbox, Unseen, Untaken, Wire, event, wire},
};
use super::{
    front::{Front, Judged, Knock, unknown_session},
    mcp::{Handler, Lent, Peer, Shown, unspoken},
    media::is_readable,
    pace::Pace,
    reasons::{failed, farewell, full, unavailable, wrong_method},
    refusal::{Answer, INVALID_REQUEST, Refusal},
    room,
    seats::Seats,
};
use crate::{
    call::{Era, RunClaim},
    gateway::Gateway,
    identity::{Caller, SessionError},
    runs::{Principal, RunId},
};

/// Where streams are opened.
const STREAM: &str = "/sse";
/// Where messages are posted.
const MESSAGES: &str = "/messages";

/// How long calls of streams may take to be answered once the listener stops.
const DRAIN_MAX: Duration = Duration::from_secs(8);

/// The endpoint that a request is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Door {
    Stream,
    Messages,
}

impl Door {
    pub(super) fn of(parts: &Parts) -> Option<Self> {
        match parts.uri.path() {
            STREAM => Some(Self::Stream),
            MESSAGES => Some(Self::Messages),
            _ => None,
        }
    }
}

/// The open streams of a listener.
#[derive(Debug)]
pub(super) struct Streams {
    open: Mutex<HashMap<String, Arc<Stream>>>,
    sessions: TaskTracker,
    stop: CancellationToken,
}

/// An open stream.
#[derive(Debug)]
struct Stream {
    gateway: Arc<Gateway>,
    id: String,
    /// Who opened it.
    caller: Caller,
    run: RunId,
    /// Whether the run is the stream's own, and not that of a token that is bound to one.
    owns_run: bool,
    inbox: Inbox,
    pace: Arc<Pace>,
    ended: CancellationToken,
}

/// Why no stream begins.
enum NotBegun {
    /// The client, or the run, has as many as it may have.
    Full,
    /// The session does not begin.
    Session(SessionError),
}

impl From<SessionError> for NotBegun {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

/// The place of a request that is worked on. The protocol drops it with the request's context.
#[derive(Clone, Debug)]
struct Place(#[expect(dead_code, reason = "it is only held")] Arc<room::Place>);

impl Streams {
    /// None yet. Once `stop` is cancelled, those that are open end.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { open: Mutex::default(), sessions: TaskTracker::new(), stop }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Arc<Stream>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session that ends with the events.
    async fn begin(
        self: Arc<Self>,
        gateway: Arc<Gateway>,
        seats: Arc<Seats>,
        caller: Caller,
        pace: Arc<Pace>,
    ) -> Result<Events, NotBegun> {
        let room = seats.reserve(caller.client().name()).ok_or(NotBegun::Full)?;
        let bound = caller.grant().and_then(|grant| grant.run);
        let (id, run) = match bound {
            // It is in its run already, of which the stream is a part.
            Some(run) => (gateway.new_session_id()?, run),
            None => gateway.begin_stream(&caller).await?,
        };
        let seat = seats.sit(room, caller.clone(), run, Arc::clone(&pace)).ok_or(NotBegun::Full)?;
        let (inbox, wire, events) = wire(Arc::clone(&gateway), Arc::clone(&pace), run);
        wire.announce(event("endpoint", &format!("{MESSAGES}?sessionId={id}")));
        let ended = CancellationToken::new();
        let events = Events::new(events, Arc::clone(&pace), ended.clone(), seat);
        let owns_run = bound.is_none();
        let stream = Arc::new(Stream { gateway, id, caller, run, owns_run, inbox, pace, ended });
        self.open().insert(stream.id.clone(), Arc::clone(&stream));
        self.sessions.spawn(stream.serve(wire, Arc::clone(&self)));
        Ok(events)
    }

    fn find(&self, id: &str) -> Option<Arc<Stream>> {
        self.open().get(id).cloned()
    }

    /// Waits until the streams have ended, and their runs with them.
    pub(super) async fn finish(&self) {
        self.sessions.close();
        let _ = timeout(DRAIN_MAX, self.sessions.wait()).await;
    }
}

impl Stream {
    /// Serves the protocol until the stream ends, by whatever way.
    async fn serve(self: Arc<Self>, wire: Wire, streams: Arc<Streams>) {
        let handler = Handler::new(Arc::clone(&self.gateway), Peer::Http).within(Arc::default());
        let protocol = async {
            if let Ok(service) = handler.serve_with_ct(wire, self.ended.child_token()).await {
                let _ = service.waiting().await;
            }
        };
        tokio::select! {
            () = protocol => {}
            () = self.ended.cancelled() => {}
            () = self.pace.hung_up().cancelled() => {}
            () = self.drain(&streams.stop) => {}
        }
        self.ended.cancel();
        streams.open().remove(&self.id);
        if self.owns_run {
            self.gateway.end_run(&self.run).await;
        }
    }

    /// Waits until the listener stops and what was asked is answered.
    async fn drain(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        let answered = async {
            while !self.inbox.is_answered() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = timeout(DRAIN_MAX, answered).await;
    }

    /// Whether a caller is who opened the stream.
    async fn is_of(&self, caller: &Caller) -> Result<bool, Answer> {
        if !self.owns_run {
            let bound = caller.grant().and_then(|grant| grant.run);
            return Ok(caller.principal() == self.principal() && bound == Some(self.run));
        }
        match self.gateway.session(caller, &self.id).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_ours() => Err(unavailable().answer(&Value::Null)),
            Err(_) => Ok(false),
        }
    }

    fn principal(&self) -> Principal {
        self.caller.principal()
    }
}

impl Front {
    /// Answers a request for one of the two endpoints.
    pub(super) async fn answer_stream(
        &self,
        streams: &Arc<Streams>,
        door: Door,
        knock: Knock,
        body: Incoming,
        pace: &Arc<Pace>,
    ) -> Answer {
        match (door, &knock.parts.method) {
            (Door::Stream, &Method::GET) => self.open_stream(streams, knock, pace).await,
            (Door::Stream, _) => wrong_method("a stream is opened by `GET`", "GET"),
            (Door::Messages, &Method::POST) => self.take_message(streams, knock, body, pace).await,
            (Door::Messages, _) => wrong_method("messages are posted", "POST"),
        }
    }

    /// Opens a stream, which is a session.
    async fn open_stream(&self, streams: &Arc<Streams>, knock: Knock, pace: &Arc<Pace>) -> Answer {
        let (caller, origin) = (knock.caller.clone(), knock.origin);
        let (streams, gateway) = (Arc::clone(streams), Arc::clone(self.gateway()));
        let (seats, of_body) = (Arc::clone(self.seats()), Arc::clone(pace));
        // A task of its own: a client that hangs up leaves no session that has begun and ends with nothing.
        match tokio::spawn(async move { streams.begin(gateway, seats, caller, of_body).await }).await {
            // It took its time to begin. One that is dropped ends.
            Ok(Ok(_)) if !self.gateway().still_stands(&knock.caller) => self.fallen(&knock, None).await,
            Ok(Ok(events)) => farewell(events_answer(events)),
            Ok(Err(NotBegun::Full)) => self.no_seat(origin),
            Ok(Err(NotBegun::Session(error))) => self.not_begun(error, origin, &Value::Null),
            Err(_) => failed().answer(&Value::Null),
        }
    }

    /// Takes a message, which is answered on its stream.
    async fn take_message(&self, streams: &Streams, mut knock: Knock, body: Incoming, pace: &Pace) -> Answer {
        let id = match session_id(&knock.parts.uri) {
            Ok(id) => id,
            Err(refusal) => return self.refuse(&knock, None, &Value::Null, refusal).await,
        };
        let stream = match self.own_stream(streams, &knock, &id).await {
            Ok(stream) => stream,
            Err(answer) => return answer,
        };
        if stream.owns_run {
            knock.proof.run = Some(RunClaim::Session(id.into()));
            knock.session = Some(stream.run);
        }
        if let Err(refusal) = is_readable(&knock.parts.headers) {
            return self.refuse(&knock, None, &Value::Null, refusal).await;
        }
        let (place, body) = match self.receive(&knock, body, pace).await {
            Ok(received) => received,
            Err(answer) => return answer,
        };
        match self.judge(&knock, &body, false).await {
            Ok(judged) => self.post(&stream, &knock, judged, &body, place).await,
            Err(answer) => answer,
        }
    }

    /// The stream of an id, where it is the caller's own.
    async fn own_stream(&self, streams: &Streams, knock: &Knock, id: &str) -> Result<Arc<Stream>, Answer> {
        if let Some(stream) = streams.find(id)
            && stream.is_of(&knock.caller).await?
        {
            return Ok(stream);
        }
        // The same for one that never was as for somebody else's.
        Err(self.refuse(knock, None, &Value::Null, unknown_session()).await)
    }

    /// Hands a message to the protocol.
    async fn post(
        &self,
        stream: &Stream,
        knock: &Knock,
        judged: Judged,
        body: &[u8],
        place: room::Place,
    ) -> Answer {
        let Ok(mut message) = serde_json::from_slice::<ClientJsonRpcMessage>(body) else {
            let refusal = refusal(StatusCode::BAD_REQUEST, "protocol", "not a message of this protocol");
            return self.refuse_judged(knock, judged, refusal).await;
        };
        if let ClientJsonRpcMessage::Request(request) = &mut message
            && unspoken(self.gateway(), &judged.method, Era::Session).is_some()
        {
            // The library would say less of some of them than the handler does.
            request.request = ClientRequest::CustomRequest(CustomRequest::new(judged.method.clone(), None));
        }
        let reached = Arc::new(AtomicBool::new(false));
        let shown = Shown {
            proof: knock.proof.clone(),
            origin: knock.origin,
            reached: Arc::clone(&reached),
            place: Lent::default(),
        };
        message.insert_extension(as_parts(shown));
        message.insert_extension(Place(Arc::new(place)));
        let (caller, session) = (knock.caller.clone(), knock.session);
        let unseen =
            judged.call.clone().map(|kind| Unseen { call: knock.call(kind), caller, session, reached });
        match stream.inbox.post(message, unseen) {
            Ok(()) => accepted(),
            Err(Untaken::Full) => {
                self.gateway().count(knock.origin.source, "in_flight_full");
                full().answer(&judged.id)
            }
            Err(Untaken::Doubled) => {
                let message = "a request of this id is not answered yet";
                let refusal = refusal(StatusCode::BAD_REQUEST, "doubled_id", message);
                self.refuse_judged(knock, judged, refusal).await
            }
            Err(Untaken::Ended) => self.refuse_judged(knock, judged, unknown_session()).await,
        }
    }
}

/// What the middleware found out, where the handler looks for it.
fn as_parts(shown: Shown) -> Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.extensions.insert(shown);
    parts
}

/// The one `sessionId` in the query.
fn session_id(uri: &Uri) -> Result<String, Refusal> {
    let query = uri.query().unwrap_or_default().as_bytes();
    let mut ids = url::form_urlencoded::parse(query).filter(|(name, _)| name == "sessionId");
    match (ids.next(), ids.next()) {
        (Some((_, id)), None) => Ok(id.into_owned()),
        _ => Err(refusal(StatusCode::BAD_REQUEST, "session_id", "the request must name one `sessionId`")),
    }
}

const fn refusal(status: StatusCode, word: &'static str, message: &'static str) -> Refusal {
    Refusal::new(status, INVALID_REQUEST, word, message)
}

fn accepted() -> Answer {
    let mut answer = Answer::new(Full::<Bytes>::default().boxed());
    *answer.status_mut() = StatusCode::ACCEPTED;
    answer
}

fn events_answer(events: Events) -> Answer {
    let mut answer = Answer::new(events.boxed());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no")); // a proxy that buffers sends nothing
    answer
}
