//! Sessions of the older revisions (MCP 2025-11-25 transports): streams to a client, and what it is asked on them.
//!
//! A session is a run, which the gateway begins, checks on each request, and ends. Here is only what its client said
//! of itself and what is on its way to it; it goes with the run, however that ends. Each request is served by itself,
//! so that none can hold up or break another of its session. What is answered at once is answered as JSON; where
//! something comes before the answer, or it takes long, the answer is a stream.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use futures::{Sink, Stream, StreamExt as _, sink, stream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use rmcp::{
    ServerHandler,
    model::{
        ClientCapabilities, ClientJsonRpcMessage, ClientNotification, Implementation,
        InitializeRequestParams, JsonRpcMessage, ProtocolVersion, RequestId, ServerJsonRpcMessage,
        ServerNotification,
    },
    service::serve_directly_with_ct,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    lane::{self, EventId, Lane},
    mcp::{self, Handler, Outlet, Peer},
    media::prefers_stream,
    refusal::{Answer, BUSY, INVALID_REQUEST, Refusal},
    room::Place,
};
use crate::{gateway::Gateway, runs::RunId};

/// How often it is looked for sessions whose run has ended.
const SWEEP: Duration = Duration::from_millis(500);

/// How many requests of one session may be worked on at once.
const AT_WORK_MAX: usize = 64;

/// How many streams with an answer are kept for a client that lost its connection, for how long, and how large.
const DONE_MAX: usize = 8;
const DONE_FOR: Duration = Duration::from_secs(60);
const DONE_BYTES_MAX: usize = 256 << 10;

/// How long an answer may take until its client is shown that somebody works on it.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How many messages of a client may wait for a request that is worked on.
const WAITING_MAX: usize = 4;

/// The revision from which on streams begin with their place.
const PRIMED_SINCE: &str = "2025-11-25";

/// The stream that belongs to no request.
const COMMON: u64 = 0;

/// The sessions of a listener.
#[derive(Debug)]
pub(super) struct Sessions {
    gateway: Arc<Gateway>,
    live: Mutex<HashMap<RunId, Arc<Session>>>,
    /// Ends the streams that belong to no request, so that a listener can stop.
    stop: CancellationToken,
}

impl Sessions {
    /// Begins to look after sessions, until the sweeper is dropped.
    pub(super) fn start(
        gateway: Arc<Gateway>,
        stop: CancellationToken,
    ) -> (Arc<Self>, AbortOnDropHandle<()>) {
        let sessions = Arc::new(Self { gateway, live: Mutex::default(), stop });
        let sweeper = tokio::spawn(sweep(Arc::downgrade(&sessions)));
        (sessions, AbortOnDropHandle::new(sweeper))
    }

    fn live(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Session>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what the client of a new session said of itself.
    pub(super) fn begin(&self, run: RunId, client: Option<InitializeRequestParams>) {
        self.live().insert(run, Session::new(client));
    }

    /// Forgets a session, and cuts what is under way in it.
    pub(super) fn end(&self, run: &RunId) {
        let ended = self.live().remove(run);
        if let Some(session) = ended {
            session.end();
        }
    }

    /// The session of a run. One that began in another process, or before this one did, has a client of which
    /// nothing is known.
    fn of(&self, run: RunId) -> Arc<Session> {
        Arc::clone(self.live().entry(run).or_insert_with(|| Session::new(None)))
    }

    /// Takes a client's message.
    ///
    /// # Errors
    /// When it is no message of the protocol, or there is too much of them.
    pub(super) async fn post(
        &self,
        run: RunId,
        parts: Parts,
        body: &[u8],
        place: Place,
    ) -> Result<Answer, Refusal> {
        let session = self.of(run);
        match serde_json::from_slice(body).map_err(|_| no_message())? {
            JsonRpcMessage::Request(request) => {
                let (id, version) = (request.id.clone(), session.version(&parts.headers));
                let at_once = prefers_stream(&parts.headers);
                let mut message = ClientJsonRpcMessage::Request(request);
                message.insert_extension(parts);
                let handler =
                    Handler::new(Arc::clone(&self.gateway), Peer::Http).within(Arc::clone(&session.settings));
                let lane = session.serve(&id, message, handler, version.as_ref(), place)?;
                Ok(session.answer(lane, version.as_ref(), at_once).await)
            }
            JsonRpcMessage::Notification(notification) => {
                if let ClientNotification::CancelledNotification(cancelled) = &notification.notification
                    && let Some(id) = cancelled.params.request_id.clone()
                {
                    session.cancel(&id, ClientJsonRpcMessage::Notification(notification)).await;
                }
                Ok(accepted())
            }
            JsonRpcMessage::Response(mut response) => {
                if let Some((inbound, id)) = session.take_question(&response.id) {
                    response.id = id;
                    let _ = inbound.send(ClientJsonRpcMessage::Response(response)).await;
                }
                Ok(accepted())
            }
            JsonRpcMessage::Error(mut error) => {
                if let Some((inbound, id)) = error.id.as_ref().and_then(|id| session.take_question(id)) {
                    error.id = Some(id);
                    let _ = inbound.send(ClientJsonRpcMessage::Error(error)).await;
                }
                Ok(accepted())
            }
        }
    }

    /// Opens a stream to a client: the one that belongs to no request, or one that broke off.
    pub(super) fn listen(&self, run: RunId, headers: &HeaderMap) -> Answer {
        let session = self.of(run);
        let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
        let (lane, after) = match last.map(EventId::parse) {
            None => (Some(Arc::clone(&session.common)), None),
            Some(Some(id)) => (session.lane(id.lane), Some(id.index)),
            Some(None) => (None, None),
        };
        // A client that is refused here asks for the same again and again; one that gets nothing goes on without.
        let Some(lane) = lane else { return lane::nothing() };
        let is_primed = after.is_none() && is_primed(session.version(headers).as_ref());
        let until = if lane.number() == COMMON { self.stop.clone() } else { CancellationToken::new() };
        lane.read(after).stream(None, is_primed, until)
    }
}

/// Forgets sessions whose run has ended, by whatever way.
async fn sweep(sessions: Weak<Sessions>) {
    loop {
        sleep(SWEEP).await;
        let Some(sessions) = sessions.upgrade() else { return };
        let all: Vec<(RunId, Arc<Session>)> =
            sessions.live().iter().map(|(run, session)| (*run, Arc::clone(session))).collect();
        for (run, session) in all {
            if sessions.gateway.is_live(&run) {
                session.forget_old();
            } else {
                sessions.end(&run);
            }
        }
        // What was large once is not kept for ever.
        let mut live = sessions.live();
        if live.capacity() > 64 && live.len() < live.capacity() / 4 {
            live.shrink_to_fit();
        }
    }
}

/// What is known of a session besides its run.
#[derive(Debug)]
struct Session {
    client: Option<InitializeRequestParams>,
    settings: Arc<mcp::Session>,
    common: Arc<Lane>,
    over: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lanes: u64,
    at_work: HashMap<RequestId, Work>,
    done: VecDeque<(Instant, Arc<Lane>)>,
    asked: i64,
    questions: HashMap<i64, Question>,
}

/// A request that is worked on.
#[derive(Debug)]
struct Work {
    lane: Arc<Lane>,
    inbound: mpsc::Sender<ClientJsonRpcMessage>,
    _place: Place,
}

/// What the client was asked, for which request, and what the asker calls it.
#[derive(Debug)]
struct Question {
    request: RequestId,
    lane: u64,
    id: RequestId,
}

impl Session {
    fn new(client: Option<InitializeRequestParams>) -> Arc<Self> {
        let common = Lane::new(COMMON);
        Arc::new(Self {
            client,
            settings: Arc::new(mcp::Session::telling(Outlet::Lane(Arc::clone(&common)))),
            common,
            over: CancellationToken::new(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.over.cancel();
        self.common.end();
        let mut state = self.state();
        for (_, work) in state.at_work.drain() {
            work.lane.end();
        }
        state.done.clear();
        state.questions.clear();
    }

    /// Begins to work on a request.
    fn serve(
        self: &Arc<Self>,
        id: &RequestId,
        message: ClientJsonRpcMessage,
        handler: impl ServerHandler,
        version: Option<&ProtocolVersion>,
        place: Place,
    ) -> Result<Arc<Lane>, Refusal> {
        let (inbound, messages) = mpsc::channel(WAITING_MAX);
        let lane = {
            let mut state = self.state();
            if self.over.is_cancelled() {
                return Err(ended_meanwhile());
            }
            if state.at_work.contains_key(id) {
                return Err(id_in_use());
            }
            if state.at_work.len() >= AT_WORK_MAX {
                return Err(too_many());
            }
            state.lanes += 1;
            let lane = Lane::new(state.lanes);
            let work = Work { lane: Arc::clone(&lane), inbound, _place: place };
            state.at_work.insert(id.clone(), work);
            lane
        };
        let incoming = Box::pin(incoming(message, messages));
        let outgoing = Box::pin(outgoing(Arc::clone(self), id.clone(), Arc::clone(&lane)));
        let (client, over) = (self.client_as_of(version), self.over.child_token());
        let service = serve_directly_with_ct(handler, (outgoing, incoming), Some(client), over);
        tokio::spawn(async move { drop(service.waiting().await) });
        Ok(lane)
    }

    /// The revision that is spoken: the one that was agreed on when the session began. Where that is not known, the
    /// one that a request says.
    fn version(&self, headers: &HeaderMap) -> Option<ProtocolVersion> {
        let client = self.client.as_ref();
        client.map(|client| agreed(&client.protocol_version)).or_else(|| version(headers))
    }

    /// What the client said of itself, in the revision that it speaks now.
    fn client_as_of(&self, version: Option<&ProtocolVersion>) -> InitializeRequestParams {
        let mut client = self.client.clone().unwrap_or_else(|| {
            InitializeRequestParams::new(ClientCapabilities::default(), Implementation::default())
        });
        // MCP 2025-11-25 transports: without the header, this one is to be assumed.
        client.protocol_version = version.cloned().unwrap_or(ProtocolVersion::V_2025_03_26);
        client
    }

    /// The answer to a request: a stream at once, or JSON if the answer is the first thing to come and comes soon.
    async fn answer(&self, lane: Arc<Lane>, version: Option<&ProtocolVersion>, at_once: bool) -> Answer {
        let mut reader = lane.read(None);
        if at_once {
            return reader.stream(None, is_primed(version), CancellationToken::new());
        }
        let first = match timeout(SILENCE_MAX, reader.next()).await {
            Ok(Some(event)) if event.is_last => {
                self.forget(&lane); // it was never shown its place, and cannot ask for it again
                return json(event.message);
            }
            Ok(Some(event)) => Some(event),
            Ok(None) => return lane::nothing(), // cancelled, or the session is over
            Err(_) => None,
        };
        reader.stream(first, is_primed(version), CancellationToken::new())
    }

    /// Takes what the protocol sends for a request.
    fn pass(&self, request: &RequestId, lane: &Arc<Lane>, mut message: ServerJsonRpcMessage) {
        let is_last = matches!(message, JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_));
        let mut state = self.state();
        match &mut message {
            // Each request counts its questions from zero; the client must be able to tell them apart.
            JsonRpcMessage::Request(question) => {
                state.asked += 1;
                let asked = state.asked;
                let id = std::mem::replace(&mut question.id, RequestId::Number(asked));
                state.questions.insert(asked, Question { request: request.clone(), lane: lane.number(), id });
            }
            JsonRpcMessage::Notification(notification) => {
                if let ServerNotification::CancelledNotification(cancelled) = &mut notification.notification
                    && let Some(id) = &mut cancelled.params.request_id
                {
                    let is_it = |one: &Question| one.lane == lane.number() && one.id == *id;
                    let asked = state.questions.iter().find(|(_, one)| is_it(one)).map(|(asked, _)| *asked);
                    let Some(asked) = asked else { return };
                    state.questions.remove(&asked);
                    *id = RequestId::Number(asked);
                }
            }
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
        }
        if is_last {
            state.close(request, lane);
        }
        drop(state);
        match serde_json::to_vec(&message) {
            Ok(message) => lane.push(message.into(), is_last),
            Err(error) => {
                tracing::error!(%error, "a message to a client cannot be written");
                lane.end();
            }
        }
    }

    /// Passes on that a client no longer wants an answer, and gives it none.
    async fn cancel(&self, id: &RequestId, message: ClientJsonRpcMessage) {
        let work = self.state().at_work.get(id).map(|work| (work.inbound.clone(), Arc::clone(&work.lane)));
        let Some((inbound, lane)) = work else { return };
        let _ = inbound.send(message).await;
        lane.end();
        self.state().close(id, &lane);
        self.forget(&lane);
    }

    /// The request that an answer of the client is for, and the asker's own name of the question.
    fn take_question(&self, id: &RequestId) -> Option<(mpsc::Sender<ClientJsonRpcMessage>, RequestId)> {
        let RequestId::Number(asked) = id else { return None };
        let mut state = self.state();
        let question = state.questions.remove(asked)?;
        let work = state.at_work.get(&question.request)?;
        (work.lane.number() == question.lane).then(|| (work.inbound.clone(), question.id))
    }

    /// A stream that can be read again.
    fn lane(&self, number: u64) -> Option<Arc<Lane>> {
        if number == COMMON {
            return Some(Arc::clone(&self.common));
        }
        let state = self.state();
        let at_work = state.at_work.values().map(|work| &work.lane);
        at_work.chain(state.done.iter().map(|(_, lane)| lane)).find(|lane| lane.number() == number).cloned()
    }

    fn forget(&self, lane: &Arc<Lane>) {
        self.state().done.retain(|(_, done)| !Arc::ptr_eq(done, lane));
    }

    fn forget_old(&self) {
        let mut state = self.state();
        while state.done.front().is_some_and(|(since, _)| since.elapsed() > DONE_FOR) {
            state.done.pop_front();
        }
        // Only now it is known how large they became.
        state.done.retain(|(_, lane)| lane.bytes() <= DONE_BYTES_MAX);
    }
}

impl State {
    /// Ends the work on a request. Its stream can be read again for a while.
    fn close(&mut self, request: &RequestId, lane: &Arc<Lane>) {
        if self.at_work.get(request).is_some_and(|work| Arc::ptr_eq(&work.lane, lane)) {
            self.at_work.remove(request);
            self.questions.retain(|_, question| question.lane != lane.number());
            if self.done.len() >= DONE_MAX {
                self.done.pop_front();
            }
            self.done.push_back((Instant::now(), Arc::clone(lane)));
        }
    }
}

/// A request, and what its client says to it later.
fn incoming(
    request: ClientJsonRpcMessage,
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
) -> impl Stream<Item = ClientJsonRpcMessage> + Send {
    let later = |mut messages: mpsc::Receiver<ClientJsonRpcMessage>| async move {
        let message = messages.recv().await?;
        Some((message, messages))
    };
    stream::iter([request]).chain(stream::unfold(messages, later))
}

fn outgoing(
    session: Arc<Session>,
    request: RequestId,
    lane: Arc<Lane>,
) -> impl Sink<ServerJsonRpcMessage, Error = Infallible> + Send {
    sink::unfold((), move |(), message: ServerJsonRpcMessage| {
        session.pass(&request, &lane, message);
        std::future::ready(Ok(()))
    })
}

/// The revision that a request says it speaks.
fn version(headers: &HeaderMap) -> Option<ProtocolVersion> {
    let text = headers.get("mcp-protocol-version")?.to_str().ok()?;
    ProtocolVersion::KNOWN_VERSIONS.iter().find(|known| known.as_str() == text).cloned()
}

/// The revision that `initialize` agreed on: the client's own, or the latest with sessions.
fn agreed(asked: &ProtocolVersion) -> ProtocolVersion {
    let is_known = ProtocolVersion::KNOWN_VERSIONS.contains(asked);
    let latest = ProtocolVersion::LATEST_WITH_INITIALIZE;
    if is_known && asked.as_str() < latest.as_str() { asked.clone() } else { latest }
}

fn is_primed(version: Option<&ProtocolVersion>) -> bool {
    version.is_some_and(|version| version.as_str() >= PRIMED_SINCE)
}

fn json(message: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(message).boxed());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn accepted() -> Answer {
    let mut answer = Answer::new(Full::default().boxed());
    *answer.status_mut() = StatusCode::ACCEPTED;
    answer
}

fn no_message() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "protocol", "not a message of this protocol")
}

fn id_in_use() -> Refusal {
    let message = "the request's `id` is that of another request which is worked on";
    Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "id_in_use", message)
}

fn too_many() -> Refusal {
    let message = "the session has as many requests under way as it may have";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, "session_full", message)
}

fn ended_meanwhile() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "unknown_session", "there is no such session")
}
