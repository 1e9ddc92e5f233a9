//! Resources of an upstream that somebody wants to hear about, on one connection.
//!
//! However many want to hear of a resource, the upstream is asked once, and told when the last one has gone. In the era
//! without sessions that is a request of its own for each resource, which is answered when there is no more to hear.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::{
    sync::{Mutex, oneshot, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{Exchange, UpstreamError, links::Link, message, meta};
use crate::call::Era;

/// How many resources may be watched on one connection.
const WATCHED_MAX: usize = 1_024;
/// How many of them without sessions, where each takes the place of a request.
const LISTENING_MAX: usize = 128;
/// How long an upstream may take to hear that nobody wants to know any more.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request that only listens may last; it is made anew then.
const LISTEN_TIMEOUT: Duration = Duration::from_hours(1);
/// How long to wait before one that ended is made anew.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Somebody hears about a resource for as long as this is held.
pub struct Watch {
    told: watch::Receiver<u64>,
    watched: Arc<Watched>,
}

/// A resource that the upstream tells about. It is told when this is gone.
pub(super) struct Watched {
    told: watch::Sender<u64>,
    lost: CancellationToken,
    _gone: oneshot::Sender<()>,
}

/// All that is watched on a connection. Held while the upstream is asked, so that what ends and what begins of one
/// resource reach it in order.
pub(super) type Watches = Arc<Mutex<HashMap<String, Weak<Watched>>>>;

impl Watch {
    /// Waits until the resource is another. False where nothing more can be heard.
    pub async fn heard(&mut self) -> bool {
        tokio::select! {
            biased;
            changed = self.told.changed() => changed.is_ok(),
            () = self.watched.lost.cancelled() => false,
        }
    }

    fn of(watched: Arc<Watched>) -> Self {
        Self { told: watched.told.subscribe(), watched }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// What it takes to watch on a connection.
#[derive(Clone)]
pub(super) struct Watcher {
    pub(super) link: Arc<Link>,
    pub(super) watches: Watches,
    pub(super) era: Era,
    pub(super) abilities: Map<String, Value>,
}

impl Watcher {
    /// Begins to watch, or joins those who do.
    pub(super) async fn watch(&self, uri: &str, exchange: Exchange<'_>) -> Result<Watch, UpstreamError> {
        let timed_out = |_| UpstreamError::TimedOut { sent: false };
        let mut all = time::timeout_at(exchange.deadline, self.watches.lock()).await.map_err(timed_out)?;
        if let Some(watched) = all.get(uri).and_then(Weak::upgrade) {
            return Ok(Watch::of(watched));
        }
        let max = if self.era == Era::Session { WATCHED_MAX } else { LISTENING_MAX };
        if all.len() >= max {
            return Err(UpstreamError::TooMany { things: "watched resources", max });
        }
        let told = watch::Sender::new(0);
        self.link.desk.watch(uri, told.clone()); // before it is asked: nothing may be missed
        let (gone, is_gone) = oneshot::channel();
        let lost = self.link.desk.closed().child_token();
        let begun = match self.era {
            Era::Session => self.subscribe(uri, exchange, is_gone).await,
            Era::Stateless => self.listen(uri, &exchange, is_gone, lost.clone()).await,
        };
        if let Err(error) = begun {
            self.link.desk.unwatch(uri);
            return Err(error);
        }
        let watched = Arc::new(Watched { told, lost, _gone: gone });
        all.insert(uri.to_owned(), Arc::downgrade(&watched));
        drop(all);
        Ok(Watch::of(watched))
    }

    async fn subscribe(
        &self,
        uri: &str,
        exchange: Exchange<'_>,
        gone: oneshot::Receiver<()>,
    ) -> Result<(), UpstreamError> {
        let params = meta::dress(of(uri), None, None);
        self.link.exchange("resources/subscribe", |_| params, &exchange).await?;
        let (watcher, uri) = (self.clone(), uri.to_owned());
        tokio::spawn(async move {
            let closed = watcher.link.desk.closed().clone();
            tokio::select! {
                _ = gone => {}
                () = closed.cancelled() => return,
            }
            let mut all = watcher.watches.lock().await;
            if all.get(&uri).is_some_and(|watched| watched.strong_count() > 0) {
                return; // somebody came when the last one had gone, and nothing was ended yet
            }
            all.remove(&uri);
            watcher.link.desk.unwatch(&uri);
            let exchange = Exchange::new(Instant::now() + END_TIMEOUT, &closed);
            let params = meta::dress(of(&uri), None, None);
            let _ = watcher.link.exchange("resources/unsubscribe", |_| params, &exchange).await;
        });
        Ok(())
    }

    /// The first time the upstream has to say that it is going to tell; after that it is asked until it refuses.
    async fn listen(
        &self,
        uri: &str,
        exchange: &Exchange<'_>,
        gone: oneshot::Receiver<()>,
        lost: CancellationToken,
    ) -> Result<(), UpstreamError> {
        let (said, is_said) = oneshot::channel();
        let (watcher, of) = (self.clone(), uri.to_owned());
        let listening = tokio::spawn(async move {
            tokio::select! {
                _ = gone => {}
                () = watcher.listen_on(&of, said) => lost.cancel(),
            }
            let mut all = watcher.watches.lock().await;
            // Where somebody came meanwhile, it is theirs.
            if all.get(&of).is_none_or(|watched| watched.strong_count() == 0) {
                all.remove(&of);
                watcher.link.desk.unwatch(&of);
            }
        });
        let said = tokio::select! {
            said = is_said => said.unwrap_or(Err(UpstreamError::Closed { sent: true })),
            () = exchange.cancel.cancelled() => Err(UpstreamError::Cancelled { sent: true }),
            () = time::sleep_until(exchange.deadline) => Err(UpstreamError::TimedOut { sent: true }),
        };
        if said.is_err() {
            listening.abort();
        }
        said
    }

    async fn listen_on(&self, uri: &str, said: oneshot::Sender<Result<(), UpstreamError>>) {
        let closed = self.link.desk.closed().clone();
        let mut said = Some(said);
        loop {
            let (acknowledged, is_acknowledged) = oneshot::channel();
            let exchange = Exchange::new(Instant::now() + LISTEN_TIMEOUT, &closed);
            let params = json!({ "notifications": { "resourceSubscriptions": [uri] } });
            let params = params.as_object().cloned().unwrap_or_default();
            let dress = |id| {
                self.link.desk.set_background(id);
                self.link.desk.await_acknowledgement(id, acknowledged);
                meta::dress(params, None, Some(&self.abilities))
            };
            let listened = self.link.exchange("subscriptions/listen", dress, &exchange);
            let mut listened = std::pin::pin!(listened);
            let ended = tokio::select! {
                biased;
                Ok(accepted) = is_acknowledged => {
                    let is_accepted = accepted.iter().any(|accepted| accepted == uri);
                    if let Some(said) = said.take() {
                        let _ = said.send(if is_accepted { Ok(()) } else { Err(refused()) });
                    } else {
                        self.link.desk.tell(uri); // what changed meanwhile was not heard
                    }
                    if !is_accepted {
                        return;
                    }
                    listened.await
                }
                ended = &mut listened => ended,
            };
            match ended {
                Err(error) if said.is_some() => {
                    let _ = said.take().map(|said| said.send(Err(error)));
                    return;
                }
                Ok(_) if said.is_some() => return,
                Ok(_)
                | Err(
                    UpstreamError::TimedOut { .. }
                    | UpstreamError::Unreachable
                    | UpstreamError::Crowded { .. }
                    | UpstreamError::Closed { .. },
                ) if !closed.is_cancelled() => time::sleep(LISTEN_AGAIN_AFTER).await,
                Ok(_) | Err(_) => return,
            }
        }
    }
}

fn of(uri: &str) -> Map<String, Value> {
    Map::from_iter([("uri".to_owned(), uri.into())])
}

/// What is said of an upstream that does not tell of the resource.
fn refused() -> UpstreamError {
    UpstreamError::Refused {
        code: message::METHOD_NOT_FOUND,
        message: "the resource is not told about".into(),
        data: None,
    }
}

#[cfg(test)]
mod tests;
