//! Lists that change, and who is told.

use std::sync::atomic::{AtomicBool, Ordering};

use rmcp::{
    RoleServer,
    model::ResourceUpdatedNotificationParam,
    service::{Peer, ServiceError, SubscriptionContext},
};
use tokio::sync::broadcast::{self, error::RecvError};

/// How many changes may wait for a slow listener.
const WAITING_MAX: usize = 64;

/// The resource that can be watched.
const WATCHED: &str = "test://watched-resource";

/// Something that changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Tools,
    Prompts,
    Resource,
}

/// What is off its list at the moment, and everybody who wants to know.
pub(crate) struct Changes {
    tell: broadcast::Sender<Change>,
    tool_hidden: AtomicBool,
    prompt_hidden: AtomicBool,
}

impl Changes {
    pub(crate) fn new() -> Self {
        Self {
            tell: broadcast::Sender::new(WAITING_MAX),
            tool_hidden: AtomicBool::new(false),
            prompt_hidden: AtomicBool::new(false),
        }
    }

    pub(crate) fn tool_hidden(&self) -> bool {
        self.tool_hidden.load(Ordering::SeqCst)
    }

    pub(crate) fn prompt_hidden(&self) -> bool {
        self.prompt_hidden.load(Ordering::SeqCst)
    }

    /// Makes a change, and tells it.
    pub(crate) fn make(&self, change: Change) {
        match change {
            Change::Tools => drop(self.tool_hidden.fetch_xor(true, Ordering::SeqCst)),
            Change::Prompts => drop(self.prompt_hidden.fetch_xor(true, Ordering::SeqCst)),
            Change::Resource => {}
        }
        let _nobody_listens = self.tell.send(change);
    }

    /// Tells changes to the one who opened a subscription, until it ends.
    pub(crate) async fn tell_subscriber(&self, subscription: &SubscriptionContext) {
        let mut changes = self.tell.subscribe();
        loop {
            let change = tokio::select! {
                () = subscription.cancelled() => return,
                change = changes.recv() => change,
            };
            let sink = subscription.sink();
            // What the subscriber did not ask for is refused by the sink.
            let _told = match change {
                Ok(Change::Tools) => sink.notify_tool_list_changed().await,
                Ok(Change::Prompts) => sink.notify_prompt_list_changed().await,
                Ok(Change::Resource) => sink.notify_resource_updated(WATCHED).await,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
        }
    }

    /// Tells changes to a peer of the older era until it is gone. It has subscribed to those resources that
    /// `watches` knows.
    pub(crate) fn follow(&self, peer: Peer<RoleServer>, watches: impl Fn(&str) -> bool + Send + 'static) {
        let mut changes = self.tell.subscribe();
        tokio::spawn(async move {
            loop {
                let told = match changes.recv().await {
                    Ok(Change::Resource) if !watches(WATCHED) => continue,
                    Ok(change) => tell_peer(&peer, change).await,
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                };
                if told.is_err() {
                    return;
                }
            }
        });
    }
}

async fn tell_peer(peer: &Peer<RoleServer>, change: Change) -> Result<(), ServiceError> {
    match change {
        Change::Tools => peer.notify_tool_list_changed().await,
        Change::Prompts => peer.notify_prompt_list_changed().await,
        Change::Resource => {
            peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(WATCHED)).await
        }
    }
}
