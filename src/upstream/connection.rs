//! A connection to an upstream.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex as AsyncMutex, mpsc},
    task::JoinHandle,
    time::{self, Instant},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Answer, Bounds, Endpoint, Event, Exchange, Hello, Program, ServerFacts, UpstreamError,
    desk::Desk,
    handshake,
    http::{self, Http},
    links::{Link, Wire},
    message::malformed,
    meta, process,
    standing::Check,
    stdio::{self, Stdio},
    watch::{Watch, Watcher, Watches},
};
use crate::{
    call::{Era, Relay},
    credential::Lease,
};

/// How long a subscription may last; it is made anew then.
const SUBSCRIPTION_TIMEOUT: Duration = Duration::from_hours(1);

/// How long to wait before a subscription that ended is made anew.
const SUBSCRIBE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A connection to an upstream. Clones are the same connection; it is closed when the last is gone.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    server: ServerFacts,
    bounds: Bounds,
    abilities: Map<String, Value>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    checked: AsyncMutex<Option<Check>>,
    watches: Watches,
    _closing: DropGuard,
}

impl Connection {
    /// Connects, and agrees on a version. The lease is kept, and shown with each request, over HTTP.
    ///
    /// # Errors
    /// When the upstream cannot be started or reached, or does not speak the protocol.
    pub async fn open(
        endpoint: &Endpoint,
        hello: Hello,
        bounds: Bounds,
        lease: Option<Arc<Lease>>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, UpstreamError> {
        let opened = Self::open_once(endpoint, hello.clone(), bounds, lease.clone(), events.clone()).await;
        match (opened, hello.era) {
            // Some old programs end when they are asked what they do not know.
            (Err(UpstreamError::Closed { .. }), Era::Stateless) if matches!(endpoint, Endpoint::Stdio(_)) => {
                let hello = Hello { era: Era::Session, ..hello };
                Self::open_once(endpoint, hello, bounds, lease, events).await
            }
            (opened, _) => opened,
        }
    }

    async fn open_once(
        endpoint: &Endpoint,
        hello: Hello,
        bounds: Bounds,
        lease: Option<Arc<Lease>>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, UpstreamError> {
        let desk = Desk::new(bounds, events);
        let (wire, keeper) = match endpoint {
            Endpoint::Stdio(program) => {
                unaltered(program).await?;
                let running = process::start(program)?;
                let wire = talk(running.stdout, running.stdin, bounds, &desk);
                (wire, tokio::spawn(process::keep(running.child, bounds, Arc::clone(&desk))))
            }
            Endpoint::Http(endpoint) => {
                let http = Http::new(endpoint, lease, bounds);
                let keeper = tokio::spawn(keep_session(Arc::clone(&http), Arc::clone(&desk)));
                (Arc::new(Wire::Http(http)), keeper)
            }
        };
        Self::begin(Link { wire, desk }, hello, bounds, keeper).await
    }

    /// A connection over a pair of streams, for tests.
    #[cfg(test)]
    pub(super) async fn over(
        read: impl AsyncRead + Unpin + Send + 'static,
        write: impl AsyncWrite + Unpin + Send + 'static,
        hello: Hello,
        bounds: Bounds,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, UpstreamError> {
        let desk = Desk::new(bounds, events);
        let wire = talk(read, write, bounds, &desk);
        let keeper = tokio::spawn({
            let desk = Arc::clone(&desk);
            async move {
                desk.closed().cancelled().await;
                desk.tell_closed();
            }
        });
        Self::begin(Link { wire, desk }, hello, bounds, keeper).await
    }

    async fn begin(
        link: Link,
        hello: Hello,
        bounds: Bounds,
        keeper: JoinHandle<()>,
    ) -> Result<Self, UpstreamError> {
        let closing = link.desk.closed().clone().drop_guard();
        let server = handshake::agree(&link, &hello, &bounds).await?;
        let link = Arc::new(link);
        let inner = Inner {
            link,
            server,
            bounds,
            abilities: hello.abilities,
            keeper: Mutex::new(Some(keeper)),
            checked: AsyncMutex::default(),
            watches: Watches::default(),
            _closing: closing,
        };
        inner.listen();
        Ok(Self(Arc::new(inner)))
    }

    /// What the upstream says of itself.
    #[must_use]
    pub fn server(&self) -> &ServerFacts {
        &self.0.server
    }

    /// A whole list: all pages of what `method` answers under `key`, each item with all that it holds.
    ///
    /// # Errors
    /// When a page cannot be had, or the list is too long.
    pub async fn list(&self, method: &str, key: &str) -> Result<Vec<Map<String, Value>>, UpstreamError> {
        let Bounds { pages_max, items_max, list_timeout, .. } = self.0.bounds;
        let cancel = CancellationToken::new();
        let exchange = Exchange::new(Instant::now() + list_timeout, &cancel);
        let (mut items, mut params) = (Vec::new(), Map::new());
        for _ in 0..pages_max {
            let mut page = self.request(method, params, exchange.clone()).await?.result;
            let Some(Value::Array(more)) = page.remove(key) else {
                return Err(malformed("a page of a list has no items"));
            };
            if items.len() + more.len() > items_max {
                return Err(UpstreamError::TooMany { things: "items in a list", max: items_max });
            }
            for item in more {
                let Value::Object(item) = item else { return Err(malformed("an item is not an object")) };
                items.push(item);
            }
            params = match page.remove("nextCursor") {
                None | Some(Value::Null) => return Ok(items),
                Some(cursor @ Value::String(_)) => Map::from_iter([("cursor".to_owned(), cursor)]),
                Some(_) => return Err(malformed("a cursor is not a text")),
            };
        }
        Err(UpstreamError::TooMany { things: "pages in a list", max: pages_max })
    }

    /// Sends one request, and waits for its answer.
    ///
    /// The request's `_meta` is sent along, save what the gate says there itself. When this is dropped, or the
    /// caller gives up, the upstream is told; what it answers then is ignored.
    ///
    /// # Errors
    /// When there is no answer, or it is a JSON-RPC error.
    pub async fn request(
        &self,
        method: &str,
        params: Map<String, Value>,
        exchange: Exchange<'_>,
    ) -> Result<Answer, UpstreamError> {
        let wants_progress = exchange.relay.is_some_and(Relay::wants_progress);
        let stateless = (self.0.server.era == Era::Stateless).then_some(&self.0.abilities);
        let dress = |id| meta::dress(params, wants_progress.then_some(id), stateless);
        self.0.link.exchange(method, dress, &exchange).await
    }

    /// Hears about a resource from now on.
    ///
    /// # Errors
    /// When the upstream does not tell of it, or is told to tell of too many.
    pub async fn watch(&self, uri: &str, exchange: Exchange<'_>) -> Result<Watch, UpstreamError> {
        let Inner { link, watches, server, abilities, .. } = &*self.0;
        let watcher = Watcher {
            link: Arc::clone(link),
            watches: Arc::clone(watches),
            era: server.era,
            abilities: abilities.clone(),
        };
        watcher.watch(uri, exchange).await
    }

    /// Whether nothing more can be sent.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.link.desk.closed().is_cancelled()
    }

    /// What was last seen of its tools. Held while they are looked at, so that they are not looked at twice at once.
    pub(super) fn checked(&self) -> &AsyncMutex<Option<Check>> {
        &self.0.checked
    }

    /// Whether no request waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.0.link.desk.is_idle()
    }

    /// Whether nothing of an earlier request can come any more.
    pub(super) fn is_clean(&self) -> bool {
        self.0.link.desk.is_clean()
    }

    /// Closes the connection, and waits until the session or the process has ended.
    pub async fn close(self) {
        self.0.link.desk.close();
        let keeper = self.0.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            let _ = keeper.await;
        }
    }
}

/// Looks at the files of a program that are pinned.
async fn unaltered(program: &Program) -> Result<(), UpstreamError> {
    if program.pinned.is_empty() {
        return Ok(());
    }
    let program = program.clone();
    let altered = tokio::task::spawn_blocking(move || program.altered().map(Path::to_owned));
    match altered.await {
        Ok(None) => Ok(()),
        Ok(Some(path)) => Err(UpstreamError::Altered { path }),
        Err(_) => Err(UpstreamError::Start { kind: io::ErrorKind::Interrupted }),
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(inner) = self;
        f.debug_struct("Connection").field("server", &inner.server).finish_non_exhaustive()
    }
}

impl Inner {
    /// Listens to what the upstream says unasked.
    fn listen(&self) {
        match (self.link.wire.as_ref(), self.server.era) {
            (Wire::Http(http), Era::Session) => {
                let listening = Arc::clone(http);
                let (desk, wire) = (Arc::clone(&self.link.desk), Arc::clone(&self.link.wire));
                let _ = http::spawn(listening.listen(desk, wire));
            }
            (Wire::Stdio(_), Era::Session) => {}
            (_, Era::Stateless) => {
                let lists = [
                    ("tools", "toolsListChanged"),
                    ("prompts", "promptsListChanged"),
                    ("resources", "resourcesListChanged"),
                ];
                let tells = |list: &str| {
                    let capability = self.server.capabilities.get(list);
                    capability.and_then(|it| it.get("listChanged")).and_then(Value::as_bool) == Some(true)
                };
                let wanted: Map<_, _> = lists
                    .into_iter()
                    .filter(|(list, _)| tells(list))
                    .map(|(_, name)| (name.to_owned(), true.into()))
                    .collect();
                if !wanted.is_empty() {
                    tokio::spawn(subscribe(Arc::clone(&self.link), wanted, self.abilities.clone()));
                }
            }
        }
    }
}

/// One line over a pair of streams.
fn talk(
    read: impl AsyncRead + Unpin + Send + 'static,
    write: impl AsyncWrite + Unpin + Send + 'static,
    bounds: Bounds,
    desk: &Arc<Desk>,
) -> Arc<Wire> {
    let wire = Arc::new(Wire::Stdio(Stdio::new(write, desk)));
    tokio::spawn(stdio::read(read, bounds, Arc::clone(desk), Arc::clone(&wire)));
    wire
}

/// Waits until the desk is closed, and ends the session.
async fn keep_session(http: Arc<Http>, desk: Arc<Desk>) {
    desk.closed().cancelled().await;
    http.end_session().await;
    desk.tell_closed();
}

/// Hears of changes in the era without sessions: by a request that is answered when there is no more to hear.
async fn subscribe(link: Arc<Link>, wanted: Map<String, Value>, abilities: Map<String, Value>) {
    let closed = link.desk.closed().clone();
    loop {
        let params = Map::from_iter([("notifications".to_owned(), json!(wanted))]);
        let exchange = Exchange::new(Instant::now() + SUBSCRIPTION_TIMEOUT, &closed);
        let dress = |id| {
            link.desk.set_background(id);
            meta::dress(params, None, Some(&abilities))
        };
        match link.exchange("subscriptions/listen", dress, &exchange).await {
            Ok(_)
            | Err(
                UpstreamError::TimedOut { .. }
                | UpstreamError::Unreachable
                | UpstreamError::Crowded { .. }
                | UpstreamError::Closed { .. },
            ) if !closed.is_cancelled() => time::sleep(SUBSCRIBE_AGAIN_AFTER).await,
            Ok(_) | Err(_) => return,
        }
    }
}
