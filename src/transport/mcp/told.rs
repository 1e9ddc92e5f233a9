//! What a client asks to be told, and what its arguments could be.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rmcp::{
    ErrorData, RoleServer,
    model::{CompleteRequestParams, CompleteResult, Reference, SubscriptionFilter},
    service::{RequestContext, SubscriptionContext},
};
use serde_json::Map;
use tokio::time::sleep;

use super::{
    Again, Handler, Session, Shown,
    feed::{Feed, Outlet, WATCHED_MAX},
};
use crate::{
    call::{Call, CallKind, Completed, Relay},
    identity::Caller,
    transport::{
        relay::era,
        wire_offer::{REFUSED, wire_completion, wire_done},
    },
};

type Context = RequestContext<RoleServer>;

/// How often it is looked whether the right to a stream was taken away, and after how many looks the proof is judged
/// anew.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 100;

impl Handler {
    pub(super) async fn complete_argument(
        &self,
        request: CompleteRequestParams,
        context: Context,
    ) -> Result<CompleteResult, ErrorData> {
        self.spoken("completion/complete", &context)?;
        let CompleteRequestParams { r#ref, argument, context: others, .. } = request;
        let of = match r#ref {
            Reference::Prompt(prompt) => Completed::Prompt(prompt.name),
            Reference::Resource(resource) => Completed::Template(resource.uri),
            _ => return Err(ErrorData::invalid_params("the reference is of no known kind", None)),
        };
        let others = others.and_then(|others| others.arguments).unwrap_or_default();
        let mut written: BTreeMap<String, String> = others.into_iter().collect();
        written.insert(argument.name.clone(), argument.value);
        let kind = self.gateway.rules().catalog.completion(of, argument.name, written);
        wire_completion(self.carry(kind, Again { responses: None, state: None }, context).await?)
    }

    /// Begins to tell a client of an older revision of a resource.
    pub(super) async fn watch(&self, uri: &str, context: Context) -> Result<(), ErrorData> {
        self.spoken("resources/subscribe", &context)?;
        let session = self.telling()?;
        self.attend(&context);
        if session.feed.watches(uri) {
            return Ok(());
        }
        self.wish(&session.feed, uri, &self.shown(&context), &context).await
    }

    pub(super) fn unwatch(&self, uri: &str, context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.spoken("resources/unsubscribe", context)?;
        self.telling()?.feed.unwatch(uri);
        Ok(())
    }

    /// The session, in which alone a client of an older revision can be told something.
    fn telling(&self) -> Result<&Arc<Session>, ErrorData> {
        let session = self.session.as_ref();
        session.ok_or_else(|| {
            ErrorData::invalid_request("there is no session in which this could be told", None)
        })
    }

    /// What is acknowledged. What is not to be had of it ends the stream with an error: the library has
    /// acknowledged it before it says who asks.
    pub(super) fn accepted(requested: &SubscriptionFilter) -> SubscriptionFilter {
        let mut accepted = requested.clone();
        if let Some(uris) = &mut accepted.resource_subscriptions {
            uris.truncate(WATCHED_MAX);
        }
        accepted
    }

    /// Tells a client on the stream that it opened for that, until it closes it or has lost the right to it.
    pub(super) async fn tell(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let request = context.request_context();
        let shown = self.shown(request);
        let caller = self.gateway.whose(&shown.proof, shown.origin).await.map_err(|_| nobody())?;
        let full = || refused("there are as many such streams as there may be");
        let _place = self.listening.place(caller.client().name().as_str()).ok_or_else(full)?;
        let feed = Arc::new(Feed::default());
        feed.attend(&shown);
        feed.begin(&self.gateway, || Outlet::Sink(context.sink().clone()));
        for uri in context.accepted().resource_subscriptions.iter().flatten() {
            self.wish(&feed, uri, &shown, request).await?;
        }
        tokio::select! {
            () = context.cancelled() => {}
            () = self.listening.stopped().cancelled() => {}
            () = self.fall(caller, &shown) => {}
        }
        Ok(())
    }

    /// Waits until a caller has lost the right that it showed.
    async fn fall(&self, mut caller: Caller, shown: &Shown) {
        loop {
            for _ in 0..LOOKS {
                sleep(LOOK).await;
                if !self.gateway.still_stands(&caller) {
                    return;
                }
            }
            // A release may know it no longer, and its proof may have become too old.
            match self.gateway.whose(&shown.proof, shown.origin).await {
                Ok(now) if now.principal() == caller.principal() => caller = now,
                Err(error) if error.is_ours() => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Asks to hear of a resource, as a call that is guarded and put on record.
    async fn wish(&self, feed: &Feed, uri: &str, shown: &Shown, context: &Context) -> Result<(), ErrorData> {
        let full = || refused("as many resources are watched as may be");
        let (updates, until) = feed.line(uri).ok_or_else(full)?;
        let caller = self.gateway.whose(&shown.proof, shown.origin).await.map_err(|_| nobody())?;
        let place = self.gateway.place_to_watch(caller.client().name()).ok_or_else(full)?;
        let cancel = context.ct.child_token();
        let _cancelled_at_the_end = cancel.clone().drop_guard();
        let kind = CallKind::subscription(updates.clone());
        // Nobody is there who could be asked, or who wants to hear how it goes.
        let (relay, _) = Relay::new(era(context), Map::new(), false);
        let call = Call::now(kind, shown.proof.clone(), shown.origin, cancel).relayed(relay);
        let own = self.gateway.own_content(uri);
        // A task of its own: a client that hangs up drops no record.
        let gateway = Arc::clone(&self.gateway);
        let reply = tokio::spawn(async move { gateway.call(call).await }).await;
        wire_done(reply.map_err(|_| ErrorData::internal_error("internal error", None))?)?;
        if feed.watch((updates, until), Some(place), own) { Ok(()) } else { Err(full()) }
    }
}

fn nobody() -> ErrorData {
    ErrorData::invalid_request("authentication failed", None)
}

fn refused(message: &'static str) -> ErrorData {
    ErrorData::new(REFUSED, message, None)
}
