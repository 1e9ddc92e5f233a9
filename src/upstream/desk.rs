//! The desk: what was asked and waits for an answer, and where each message of an upstream goes.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use serde_json::{Map, Value, json};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Asks, Bounds, Event, UpstreamError,
    links::Wire,
    message::{self, Message, malformed},
};
use crate::call::{NoAnswer, Passing, Relay};

/// How many questions of an upstream may wait for their answers during one request.
const QUESTIONS_MAX: usize = 16;

/// Which subscription a notification is of (MCP 2026-07-28 subscriptions).
const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// All that waits on one connection.
pub(super) struct Desk {
    bounds: Bounds,
    events: mpsc::Sender<Event>,
    next_id: AtomicI64,
    state: Mutex<State>,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    waiting: HashMap<i64, Waiting>,
    /// The requests that are only there to hear of changes.
    background: BTreeSet<i64>,
    /// Which of them wait to hear what the upstream is going to tell of.
    unacknowledged: HashMap<i64, oneshot::Sender<Vec<String>>>,
    /// The resources that somebody wants to hear about, and how often each has changed.
    watched: HashMap<String, watch::Sender<u64>>,
    /// Whether a request was given up after it was sent.
    has_given_up: bool,
    /// Changes that found no room among the events; they are told when there is some.
    untold: BTreeSet<&'static str>,
    is_telling: bool,
}

struct Waiting {
    answer: oneshot::Sender<Result<Answer, UpstreamError>>,
    sent: Arc<AtomicBool>,
    relay: Option<Relay>,
    asks: Asks,
    questions: Vec<(Value, AbortHandle)>,
}

/// A request's place on the desk. It is given up with this.
pub(super) struct Ticket {
    desk: Arc<Desk>,
    pub(super) id: i64,
    pub(super) answer: oneshot::Receiver<Result<Answer, UpstreamError>>,
    pub(super) sent: Arc<AtomicBool>,
}

/// Where a message came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// On a line that all requests share.
    Shared,
    /// On the stream of this request.
    Own(i64),
    /// On a stream that was resumed for this request, where some servers repeat what is not its own.
    Resumed(i64),
}

impl Source {
    /// Whether a message from there can be about this request.
    fn may_be_about(self, id: i64) -> bool {
        match self {
            Self::Shared => true,
            Self::Own(own) | Self::Resumed(own) => own == id,
        }
    }
}

impl Desk {
    pub(super) fn new(bounds: Bounds, events: mpsc::Sender<Event>) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            events,
            next_id: AtomicI64::new(1),
            state: Mutex::default(),
            closed: CancellationToken::new(),
        })
    }

    /// A place for a request.
    pub(super) fn begin(
        self: &Arc<Self>,
        relay: Option<&Relay>,
        asks: Asks,
    ) -> Result<Ticket, UpstreamError> {
        let (answer, answered) = oneshot::channel();
        let sent = Arc::new(AtomicBool::new(false));
        let relay = relay.cloned();
        let waiting = Waiting { answer, sent: Arc::clone(&sent), relay, asks, questions: Vec::new() };
        let mut state = self.lock();
        // Looked at under the lock: whoever closes empties the desk after.
        if self.closed.is_cancelled() {
            return Err(UpstreamError::Closed { sent: false });
        }
        if state.waiting.len() >= self.bounds.requests_max {
            return Err(UpstreamError::Crowded { requests_max: self.bounds.requests_max });
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        state.waiting.insert(id, waiting);
        Ok(Ticket { desk: Arc::clone(self), id, answer: answered, sent })
    }

    /// Whether the request still waits.
    pub(super) fn is_waiting(&self, id: i64) -> bool {
        self.lock().waiting.contains_key(&id)
    }

    /// Whether nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().in_front().next().is_none()
    }

    /// Whether each request that was sent has been answered, so that nothing of one can come during the next.
    pub(super) fn is_clean(&self) -> bool {
        self.is_idle() && !self.lock().has_given_up
    }

    /// Says that a request is only there to hear of changes.
    pub(super) fn set_background(&self, id: i64) {
        self.lock().background.insert(id);
    }

    /// Hears which resources the upstream is going to tell of on a request.
    pub(super) fn await_acknowledgement(&self, id: i64, acknowledged: oneshot::Sender<Vec<String>>) {
        self.lock().unacknowledged.insert(id, acknowledged);
    }

    /// Hears of a resource from now on.
    pub(super) fn watch(&self, uri: &str, told: watch::Sender<u64>) {
        self.lock().watched.insert(uri.to_owned(), told);
    }

    /// Hears of it no longer.
    pub(super) fn unwatch(&self, uri: &str) {
        self.lock().watched.remove(uri);
    }

    /// Tells that a resource is another, where somebody wants to hear of it.
    pub(super) fn tell(&self, uri: &str) {
        if let Some(told) = self.lock().watched.get(uri) {
            told.send_modify(|times| *times = times.wrapping_add(1));
        }
    }

    /// Answers a request. Nobody may wait for it any more.
    pub(super) fn settle(&self, id: i64, outcome: Result<Answer, UpstreamError>) {
        let waiting = self.lock().waiting.remove(&id);
        if let Some(waiting) = waiting {
            waiting.settle(outcome);
        }
    }

    /// Answers all requests with a failure: one that cannot be told whose it is.
    pub(super) fn fail_all(&self, error: &UpstreamError) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        for waiting in waiting.into_values() {
            waiting.settle(Err(error.clone()));
        }
    }

    /// Nothing more comes, and nothing more goes.
    pub(super) fn close(&self) {
        self.closed.cancel();
        let waiting = std::mem::take(&mut self.lock().waiting);
        for waiting in waiting.into_values() {
            let sent = waiting.sent.load(Ordering::Acquire);
            waiting.settle(Err(UpstreamError::Closed { sent }));
        }
    }

    /// The same, over the answer to one request. Whoever is answered finds the connection closed.
    pub(super) fn close_over(&self, id: i64, error: UpstreamError) {
        self.closed.cancel();
        self.settle(id, Err(error));
        self.close();
    }

    /// Fires when the connection is closed.
    pub(super) const fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Takes a message to where it belongs.
    pub(super) fn receive(
        self: &Arc<Self>,
        bytes: &[u8],
        source: Source,
        peer: Option<SocketAddr>,
        wire: &Arc<Wire>,
    ) -> Result<(), UpstreamError> {
        match message::read(bytes, &self.bounds)? {
            Message::Answer { id, outcome } => {
                let answer = outcome.map(|result| Answer { result, bytes: bytes.len(), peer });
                self.answer(id, answer, source)
            }
            Message::Question { id, method, params } => {
                self.question(id, &method, params, source, wire);
                Ok(())
            }
            Message::Notice { method, params } => {
                self.notice(&method, params, source);
                Ok(())
            }
        }
    }

    fn answer(
        &self,
        id: Option<i64>,
        outcome: Result<Answer, UpstreamError>,
        source: Source,
    ) -> Result<(), UpstreamError> {
        match (id, source) {
            (Some(id), Source::Own(own)) if id != own => {
                return Err(malformed("a response on the stream of another request"));
            }
            (Some(id), Source::Resumed(own)) if id != own => {}
            // One that nobody waits for comes after the request was given up.
            (Some(id), _) => self.settle(id, outcome),
            (None, Source::Own(own) | Source::Resumed(own)) => self.settle(own, outcome),
            (None, Source::Shared) => tracing::debug!("an upstream answers what it could not read"),
        }
        Ok(())
    }

    /// Passes on what the upstream asks, where it may; else refuses it at once.
    fn question(
        self: &Arc<Self>,
        id: Value,
        method: &str,
        params: Map<String, Value>,
        source: Source,
        wire: &Arc<Wire>,
    ) {
        if method == "ping" {
            wire.reply(message::answer(&id, Ok(json!({}))));
            return;
        }
        let mut state = self.lock();
        let asked = state.owner(source).and_then(|waiting| Some((waiting.may_ask(method)?, waiting)));
        let Some(((method, relay), waiting)) = asked else {
            drop(state);
            wire.reply(message::answer(&id, Err(message::not_supported())));
            return;
        };
        let (wire, question) = (Arc::clone(wire), id.clone());
        let asking = tokio::spawn(async move {
            let answer = relay.ask(method, params).await.map_err(|error| match error {
                NoAnswer::Refused(error) if error.is_object() => error,
                NoAnswer::Refused(_) => json!({ "code": message::INTERNAL_ERROR, "message": "refused" }),
                NoAnswer::Gone => message::not_supported(),
            });
            wire.reply(message::answer(&question, answer));
        });
        waiting.questions.push((id, asking.abort_handle()));
    }

    fn notice(self: &Arc<Self>, method: &str, mut params: Map<String, Value>, source: Source) {
        match method {
            "notifications/progress" => {
                // The token is the request's id.
                let id = params.remove("progressToken").and_then(|token| token.as_i64());
                let state = self.lock();
                if let Some(relay) = id
                    .filter(|id| source.may_be_about(*id))
                    .and_then(|id| state.waiting.get(&id)?.relay.as_ref())
                    && relay.wants_progress()
                {
                    let _ = relay.tell(Passing::Progress(params));
                }
            }
            "notifications/message" => {
                if let Some(relay) = self.lock().owner(source).and_then(|waiting| waiting.relay.as_ref()) {
                    let _ = relay.tell(Passing::Log(params));
                }
            }
            "notifications/cancelled" => {
                if let Some(question) = params.get("requestId") {
                    self.lock().withdraw(question);
                }
            }
            "notifications/tools/list_changed" => self.tell_change("tools"),
            "notifications/prompts/list_changed" => self.tell_change("prompts"),
            "notifications/resources/list_changed" => self.tell_change("resources"),
            "notifications/resources/updated" => {
                if let Some(Value::String(uri)) = params.remove("uri") {
                    self.tell(&uri);
                }
            }
            "notifications/subscriptions/acknowledged" => self.acknowledged(&params, source),
            _ => {}
        }
    }

    fn acknowledged(&self, params: &Map<String, Value>, source: Source) {
        let id = params.get("_meta").and_then(|meta| meta.get(SUBSCRIPTION_ID)).and_then(Value::as_i64);
        let Some(id) = id.filter(|id| source.may_be_about(*id)) else { return };
        let Some(waiting) = self.lock().unacknowledged.remove(&id) else { return };
        let accepted = params.get("notifications").and_then(|it| it.get("resourceSubscriptions"));
        let accepted = accepted.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let _ = waiting.send(accepted.iter().filter_map(|uri| uri.as_str().map(str::to_owned)).collect());
    }

    /// Tells that a list has changed. That must not get lost, and must not be waited for.
    fn tell_change(self: &Arc<Self>, list: &'static str) {
        let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(Event::ListChanged(list)) else {
            return;
        };
        let mut state = self.lock();
        state.untold.insert(list);
        if !std::mem::replace(&mut state.is_telling, true) {
            tokio::spawn(Arc::clone(self).tell_later());
        }
    }

    async fn tell_later(self: Arc<Self>) {
        loop {
            let Some(list) = self.next_untold() else { return };
            let told = self.events.send(Event::ListChanged(list));
            tokio::select! {
                _ = told => {}
                () = self.closed.cancelled() => return,
            }
        }
    }

    fn next_untold(&self) -> Option<&'static str> {
        let mut state = self.lock();
        let list = state.untold.pop_first();
        state.is_telling = list.is_some();
        list
    }

    /// Tells that the connection is gone.
    pub(super) fn tell_closed(&self) {
        let _ = self.events.try_send(Event::Closed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whose a message is. On a shared line that is known only while one request waits.
    fn owner(&mut self, source: Source) -> Option<&mut Waiting> {
        match source {
            Source::Own(id) | Source::Resumed(id) => self.waiting.get_mut(&id),
            Source::Shared => {
                let mut in_front = self.in_front();
                let only = in_front.next().filter(|_| in_front.next().is_none())?;
                drop(in_front);
                self.waiting.get_mut(&only)
            }
        }
    }

    fn in_front(&self) -> impl Iterator<Item = i64> {
        self.waiting.keys().copied().filter(|id| !self.background.contains(id))
    }

    /// Ends the asking of a question that the upstream has withdrawn.
    fn withdraw(&mut self, question: &Value) {
        for waiting in self.waiting.values_mut() {
            waiting.questions.retain(|(id, asking)| {
                let is_withdrawn = id == question;
                if is_withdrawn {
                    asking.abort();
                }
                !is_withdrawn
            });
        }
    }
}

impl Waiting {
    fn settle(self, outcome: Result<Answer, UpstreamError>) {
        self.end_questions();
        let _ = self.answer.send(outcome);
    }

    fn end_questions(&self) {
        self.questions.iter().for_each(|(_, asking)| asking.abort());
    }

    /// The line on which this may be asked: what the manifest allows, and the caller says it can answer.
    fn may_ask(&mut self, method: &str) -> Option<(&'static str, Relay)> {
        let (method, ability, allowed) = match method {
            "sampling/createMessage" => ("sampling/createMessage", "sampling", self.asks.sampling),
            "elicitation/create" => ("elicitation/create", "elicitation", self.asks.elicitation),
            "roots/list" => ("roots/list", "roots", self.asks.roots),
            _ => return None,
        };
        self.questions.retain(|(_, asking)| !asking.is_finished());
        let relay = self.relay.clone().filter(|relay| relay.abilities().contains_key(ability))?;
        (allowed && self.questions.len() < QUESTIONS_MAX).then_some((method, relay))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.desk.lock();
        state.background.remove(&self.id);
        state.unacknowledged.remove(&self.id);
        if let Some(waiting) = state.waiting.remove(&self.id) {
            state.has_given_up |= self.sent.load(Ordering::Acquire);
            waiting.end_questions();
        }
    }
}
