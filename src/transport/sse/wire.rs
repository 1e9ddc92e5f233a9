//! One stream as the protocol sees it: messages come in as they are posted, and leave as events.
//!
//! What has been asked and is not yet handed to the connection takes a place of the stream, and so do the bytes of
//! what is answered: a client that asks and does not read is stopped before its answers fill memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::body::Bytes;
use rmcp::{
    RoleServer,
    model::{ClientJsonRpcMessage, ClientNotification, RequestId, ServerJsonRpcMessage},
    transport::Transport,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use crate::{
    call::Call,
    gateway::{EdgeError, Gateway},
    identity::Caller,
    runs::RunId,
    transport::pace::Pace,
};

/// How many requests of one stream may be unanswered, and how many messages may wait to be looked at.
const UNANSWERED_MAX: usize = 64;

/// How many events may wait for the connection.
const EVENTS_WAITING_MAX: usize = 16;

/// How many bytes of events may wait for the connection, besides what it writes. One that is larger waits alone.
const BYTES_WAITING_MAX: u32 = 1 << 20;

/// How long an event may wait until there is room for its bytes. Then the stream ends.
const ROOM_WITHIN: Duration = Duration::from_secs(5);

/// An event, and the place that it takes until the connection has it.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) text: Bytes,
    _place: Option<OwnedSemaphorePermit>,
    _bytes: Option<OwnedSemaphorePermit>,
}

/// What a posted tool call leaves to be put on record, should the protocol refuse it before any guard sees it.
#[derive(Debug)]
pub(super) struct Unseen {
    pub(super) call: Call,
    pub(super) caller: Caller,
    pub(super) session: Option<RunId>,
    pub(super) reached: Arc<AtomicBool>,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Untaken {
    /// Too much is unanswered.
    Full,
    /// A request of this id is not answered yet.
    Doubled,
    /// The stream has ended.
    Ended,
}

#[derive(Debug)]
struct Asked {
    place: OwnedSemaphorePermit,
    unseen: Option<Unseen>,
}

#[derive(Debug)]
struct Unanswered {
    room: Arc<Semaphore>,
    asked: Mutex<HashMap<RequestId, Asked>>,
}

impl Unanswered {
    fn asked(&self) -> MutexGuard<'_, HashMap<RequestId, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where messages are posted.
#[derive(Debug)]
pub(super) struct Inbox {
    messages: mpsc::Sender<ClientJsonRpcMessage>,
    unanswered: Arc<Unanswered>,
    begun: AtomicBool,
}

/// The protocol's end.
#[derive(Debug)]
pub(super) struct Wire {
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
    events: mpsc::Sender<Event>,
    unanswered: Arc<Unanswered>,
    gateway: Arc<Gateway>,
    bytes: Arc<Semaphore>,
    pace: Arc<Pace>,
    run: RunId,
}

/// The three ends of a new stream, on a connection of this pace.
pub(super) fn wire(
    gateway: Arc<Gateway>,
    pace: Arc<Pace>,
    run: RunId,
) -> (Inbox, Wire, mpsc::Receiver<Event>) {
    let (posted, messages) = mpsc::channel(UNANSWERED_MAX);
    let (events, to_write) = mpsc::channel(EVENTS_WAITING_MAX);
    let unanswered =
        Arc::new(Unanswered { room: Arc::new(Semaphore::new(UNANSWERED_MAX)), asked: Mutex::default() });
    let inbox =
        Inbox { messages: posted, unanswered: Arc::clone(&unanswered), begun: AtomicBool::new(false) };
    let bytes = Arc::new(Semaphore::new(BYTES_WAITING_MAX as usize));
    (inbox, Wire { messages, events, unanswered, gateway, bytes, pace, run }, to_write)
}

impl Inbox {
    /// Takes a message for the protocol.
    pub(super) fn post(&self, message: ClientJsonRpcMessage, unseen: Option<Unseen>) -> Result<(), Untaken> {
        let ClientJsonRpcMessage::Request(request) = &message else {
            // The protocol takes anything but a request for the end, as long as none has come.
            return if self.begun.load(Ordering::Acquire) { self.hand_over(message) } else { Ok(()) };
        };
        let id = request.id.clone();
        let place = Arc::clone(&self.unanswered.room).try_acquire_owned().map_err(|_| Untaken::Full)?;
        match self.unanswered.asked().entry(id.clone()) {
            Entry::Occupied(_) => return Err(Untaken::Doubled),
            Entry::Vacant(free) => free.insert(Asked { place, unseen }),
        };
        self.begun.store(true, Ordering::Release);
        self.hand_over(message).inspect_err(|_| {
            self.unanswered.asked().remove(&id);
        })
    }

    fn hand_over(&self, message: ClientJsonRpcMessage) -> Result<(), Untaken> {
        self.messages.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Untaken::Full,
            mpsc::error::TrySendError::Closed(_) => Untaken::Ended,
        })
    }

    /// Whether the connection has everything that was asked for.
    pub(super) fn is_answered(&self) -> bool {
        self.unanswered.room.available_permits() == UNANSWERED_MAX
    }
}

impl Wire {
    /// Sends an event before the protocol sends any.
    pub(super) fn announce(&self, text: Bytes) {
        let _ = self.events.try_send(Event { text, _place: None, _bytes: None }); // there is room for the first
    }
}

impl Transport<RoleServer> for Wire {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let id = match &message {
            ServerJsonRpcMessage::Response(response) => Some(&response.id),
            ServerJsonRpcMessage::Error(error) => error.id.as_ref(),
            _ => None,
        };
        let asked = id.and_then(|id| self.unanswered.asked().remove(id));
        let (events, gateway) = (self.events.clone(), Arc::clone(&self.gateway));
        let (bytes, pace, run) = (Arc::clone(&self.bytes), Arc::clone(&self.pace), self.run);
        async move {
            let (place, unseen) = asked.map(|Asked { place, unseen }| (place, unseen)).unzip();
            if let Some(unseen) = unseen.flatten() {
                record(gateway, unseen).await;
            }
            let text = event("message", &serde_json::to_string(&message)?);
            let Some(bytes) = room_for(&text, bytes, &pace).await else {
                if !pace.hung_up().is_cancelled() {
                    tracing::warn!(%run, "a stream is ended: its client does not read what waits for it");
                    pace.hang_up();
                }
                return Ok(());
            };
            // A client that has hung up waits for nothing.
            let _ = events.send(Event { text, _place: place, _bytes: Some(bytes) }).await;
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let message = self.messages.recv().await?;
        // The protocol sends no answer to what is cancelled now: had it one already, it would have sent it.
        if let ClientJsonRpcMessage::Notification(posted) = &message
            && let ClientNotification::CancelledNotification(cancelled) = &posted.notification
            && let Some(id) = &cancelled.params.request_id
        {
            self.unanswered.asked().remove(id);
        }
        Some(message)
    }

    async fn close(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until there is room for an event's bytes; not for long, and not after the end.
async fn room_for(text: &Bytes, bytes: Arc<Semaphore>, pace: &Pace) -> Option<OwnedSemaphorePermit> {
    let weight = u32::try_from(text.len()).unwrap_or(u32::MAX).min(BYTES_WAITING_MAX);
    tokio::select! {
        biased;
        room = timeout(ROOM_WITHIN, bytes.acquire_many_owned(weight)) => room.ok()?.ok(),
        () = pace.hung_up().cancelled() => None,
    }
}

/// Puts a call on record that the protocol refused itself.
async fn record(gateway: Arc<Gateway>, Unseen { call, caller, session, reached }: Unseen) {
    if reached.load(Ordering::Relaxed) {
        return; // the guards did
    }
    let refusal = EdgeError { code: "protocol", message: "refused by the protocol".into() };
    let put = async move { gateway.refuse_known_at_edge(call, refusal, &caller, session).await };
    let _ = tokio::spawn(put).await;
}

/// An event of one line of data, which JSON always is.
pub(super) fn event(name: &str, data: &str) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}
