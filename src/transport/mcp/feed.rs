//! What a client is told unasked: that one of its lists is another, and that a resource is which it watches.
//!
//! A client whose own lists are as it saw them hears nothing. What it hears is judged by what it showed last: who may no
//! longer read a resource is not told of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use rmcp::{
    RoleServer,
    model::{
        PromptListChangedNotification, ResourceListChangedNotification, ResourceUpdatedNotification,
        ResourceUpdatedNotificationParam, ServerJsonRpcMessage, ServerNotification,
        ToolListChangedNotification,
    },
    service::{Peer, SubscriptionSink},
};
use tokio::time::sleep;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

use super::Shown;
use crate::{
    call::{UpdateBox, Updates},
    gateway::{Gateway, ListDigest, View, WatchPlace},
    manifest::FileContent,
    transport::lane::Lane,
};

/// How many resources one client may watch in one session, or on one stream.
pub(super) const WATCHED_MAX: usize = 64;

/// How long changes are gathered before a client hears of them, and then the next ones.
const GATHER: Duration = Duration::from_millis(50);

/// Where a client hears it.
#[derive(Clone, Debug)]
pub(in crate::transport) enum Outlet {
    /// On the stream of its session that belongs to no request.
    Lane(Arc<Lane>),
    /// On its connection.
    Peer(Peer<RoleServer>),
    /// On the stream that it opened for that.
    Sink(SubscriptionSink),
}

impl Outlet {
    /// Whether more can be told.
    async fn tell(&self, notification: ServerNotification) -> bool {
        match self {
            Self::Lane(lane) => {
                let message = ServerJsonRpcMessage::notification(notification);
                if let Ok(message) = serde_json::to_vec(&message) {
                    lane.push(message.into(), false);
                }
                true
            }
            Self::Peer(peer) => peer.send_notification(notification).await.is_ok(),
            // What its client did not ask for is refused there, and no failure.
            Self::Sink(sink) => !matches!(
                sink.send(notification).await,
                Err(rmcp::service::SubscriptionSendError::SubscriptionClosed
                    | rmcp::service::SubscriptionSendError::Service(_))
            ),
        }
    }
}

/// A client's lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum List {
    Tools,
    Resources,
    Prompts,
}

/// What one client saw and watches.
#[derive(Debug, Default)]
pub(super) struct Feed {
    seen: Mutex<Seen>,
    watched: Mutex<BTreeMap<String, Watched>>,
    updates: Arc<UpdateBox>,
    telling: OnceLock<AbortOnDropHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    shown: Option<Shown>,
    tools: Option<ListDigest>,
    resources: Option<ListDigest>,
    prompts: Option<ListDigest>,
}

/// A resource that is watched for as long as this is held.
#[derive(Debug)]
struct Watched {
    /// The contents, where they are the project's own.
    own: Option<Arc<FileContent>>,
    updates: Updates,
    _until: DropGuard,
    _place: Option<WatchPlace>,
}

impl Feed {
    /// Remembers what the client showed last.
    pub(super) fn attend(&self, shown: &Shown) {
        self.seen().shown = Some(shown.clone());
    }

    /// Remembers a list as the client was given it.
    pub(super) fn saw(&self, list: List, digest: ListDigest) {
        *self.seen().of(list) = Some(digest);
    }

    /// Begins to tell, if nobody does.
    pub(super) fn begin(self: &Arc<Self>, gateway: &Arc<Gateway>, outlet: impl FnOnce() -> Outlet) {
        self.telling.get_or_init(|| {
            let (feed, gateway, outlet) = (Arc::downgrade(self), Arc::clone(gateway), outlet());
            AbortOnDropHandle::new(tokio::spawn(tell(feed, gateway, outlet)))
        });
    }

    /// A line on which updates of a resource come, and its end. None where the client watches as much as it may.
    pub(super) fn line(&self, uri: &str) -> Option<(Updates, DropGuard)> {
        let watched = self.watched();
        if watched.len() >= WATCHED_MAX && !watched.contains_key(uri) {
            return None;
        }
        let over = CancellationToken::new();
        Some((Updates::new(uri, Arc::clone(&self.updates), over.clone()), over.drop_guard()))
    }

    /// Keeps a line on which updates are going to come.
    pub(super) fn watch(
        &self,
        (updates, until): (Updates, DropGuard),
        place: Option<WatchPlace>,
        own: Option<Arc<FileContent>>,
    ) -> bool {
        let mut watched = self.watched();
        if watched.len() >= WATCHED_MAX && !watched.contains_key(updates.uri()) {
            return false;
        }
        watched.insert(updates.uri().to_owned(), Watched { own, updates, _until: until, _place: place });
        true
    }

    pub(super) fn unwatch(&self, uri: &str) {
        self.watched().remove(uri);
    }

    pub(super) fn watches(&self, uri: &str) -> bool {
        self.watched().contains_key(uri)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a view for what the client knows, where it has not seen a list; says which lists are others.
    fn compare(&self, view: &View) -> Vec<List> {
        let mut seen = self.seen();
        let lists =
            [(List::Tools, view.tools), (List::Resources, view.resources), (List::Prompts, view.prompts)];
        lists
            .into_iter()
            .filter(|(list, now)| {
                let before = seen.of(*list).replace(*now);
                before.is_some_and(|before| before != *now)
            })
            .map(|(list, _)| list)
            .collect()
    }

    /// Finds the files that are others in this release.
    fn look_at_files(&self, gateway: &Gateway) {
        for (uri, watched) in self.watched().iter_mut() {
            let now = gateway.own_content(uri);
            if now.is_some() && now != watched.own {
                watched.own = now;
                watched.updates.tell();
            }
        }
    }
}

impl Seen {
    const fn of(&mut self, list: List) -> &mut Option<ListDigest> {
        match list {
            List::Tools => &mut self.tools,
            List::Resources => &mut self.resources,
            List::Prompts => &mut self.prompts,
        }
    }
}

/// Tells until nobody hears it, or the feed is gone.
async fn tell(feed: Weak<Feed>, gateway: Arc<Gateway>, outlet: Outlet) {
    let mut turns = gateway.turns();
    let Some(updates) = feed.upgrade().map(|feed| Arc::clone(&feed.updates)) else { return };
    let mut has_turned = true; // what it knows before the first turn
    loop {
        if std::mem::take(&mut has_turned) {
            let Some(feed) = feed.upgrade() else { return };
            if !tell_lists(&feed, &gateway, &outlet).await {
                return;
            }
        }
        tokio::select! {
            () = turns.next() => {
                has_turned = true;
                sleep(GATHER).await;
            }
            changed = updates.take() => {
                let Some(feed) = feed.upgrade() else { return };
                for uri in changed {
                    if !tell_update(&feed, &gateway, &outlet, &uri).await {
                        return;
                    }
                }
                sleep(GATHER).await;
            }
        }
    }
}

async fn tell_lists(feed: &Feed, gateway: &Gateway, outlet: &Outlet) -> bool {
    feed.look_at_files(gateway);
    let Some(shown) = feed.seen().shown.clone() else { return true };
    // Whoever proves nothing any more sees nothing, and is not told so here.
    let Ok(view) = gateway.view(&shown.proof, shown.origin).await else { return true };
    for list in feed.compare(&view) {
        let notification = match list {
            List::Tools => {
                ServerNotification::ToolListChangedNotification(ToolListChangedNotification::default())
            }
            List::Resources => {
                ServerNotification::ResourceListChangedNotification(ResourceListChangedNotification::default())
            }
            List::Prompts => {
                ServerNotification::PromptListChangedNotification(PromptListChangedNotification::default())
            }
        };
        if !outlet.tell(notification).await {
            return false;
        }
    }
    true
}

async fn tell_update(feed: &Feed, gateway: &Gateway, outlet: &Outlet, uri: &str) -> bool {
    let Some(shown) = feed.seen().shown.clone() else { return true };
    if !feed.watches(uri) || !gateway.may_still_read(&shown.proof, shown.origin, uri).await {
        return true;
    }
    let updated = ResourceUpdatedNotification::new(ResourceUpdatedNotificationParam::new(uri));
    outlet.tell(ServerNotification::ResourceUpdatedNotification(updated)).await
}

/// The streams of a listener that clients opened to be told: how many each has, and when they end.
#[derive(Debug, Default)]
pub(in crate::transport) struct Listening {
    streams: Mutex<BTreeMap<String, usize>>,
    stop: CancellationToken,
}

/// How many streams one client may have open to be told.
const STREAMS_MAX: usize = 16;

/// A stream's place. It is free again when this is gone.
pub(super) struct Place {
    listening: Arc<Listening>,
    client: String,
}

impl Listening {
    /// Until this is cancelled.
    pub(in crate::transport) fn until(stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { streams: Mutex::default(), stop })
    }

    pub(super) const fn stopped(&self) -> &CancellationToken {
        &self.stop
    }

    /// A place for one more stream of a client.
    pub(super) fn place(self: &Arc<Self>, client: &str) -> Option<Place> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let open = streams.entry(client.to_owned()).or_default();
        if *open >= STREAMS_MAX {
            return None;
        }
        *open += 1;
        Some(Place { listening: Arc::clone(self), client: client.to_owned() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.listening.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = streams.get_mut(&self.client) {
            *open -= 1;
            if *open == 0 {
                streams.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_streams_and_a_place_is_free_again_when_one_ends() {
        let listening = Listening::until(CancellationToken::new());
        let mut places: Vec<_> = (0..STREAMS_MAX).map(|_| listening.place("bot").unwrap()).collect();
        assert!(listening.place("bot").is_none());
        assert!(listening.place("other").is_some());
        places.pop();
        assert!(listening.place("bot").is_some());
        places.clear();
        assert!(listening.streams.lock().unwrap().is_empty());
    }

    #[test]
    fn a_client_watches_so_many_resources_and_the_same_one_once() {
        let feed = Feed::default();
        for n in 0..WATCHED_MAX {
            let line = feed.line(&format!("a:{n}")).unwrap();
            assert!(feed.watch(line, None, None));
        }
        assert!(feed.line("a:more").is_none());
        let (updates, until) = feed.line("a:0").unwrap();
        let over = updates.over().clone();
        assert!(feed.watch((updates, until), None, None));
        assert!(!over.is_cancelled());
        feed.unwatch("a:0");
        assert!(over.is_cancelled());
    }
}
