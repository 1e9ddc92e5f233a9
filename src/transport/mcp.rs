//! The Model Context Protocol, as far as the gate speaks it: tools, resources and prompts.
//!
//! Listing and calling ask the gateway on each request: nothing is decided by connection or session.

mod feed;
mod offers;
mod tasks;
mod told;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use http::StatusCode;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams,
        CompleteResult, CustomRequest, CustomResult, ErrorCode, ExtensionCapabilities,
        GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult, Implementation,
        InitializeRequestParams, InitializeResult, InputResponses, ListPromptsResult,
        ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
        PromptsCapability, ReadResourceRequestParams, ReadResourceResponse, ResourcesCapability,
        ServerCapabilities, ServerConfig, SubscribeRequestParams, SubscriptionFilter, TASKS_EXTENSION_ID,
        UnsubscribeRequestParams, UpdateTaskParams,
    },
    service::{RequestContext, SubscriptionContext},
};
use serde_json::{Map, Value};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(super) use feed::{Listening, Outlet};

use feed::{Feed, List};

use super::{
    page::{self, Page},
    peek::asked,
    refusal::{METHOD_NOT_FOUND, Refusal},
    relay::{self, Wanted},
    wire::{wire_reply, wire_tool},
};
use crate::{
    call::{Call, CallKind, Era, Origin, Proof, Retry, Transport},
    catalog::Tool,
    gateway::{EdgeError, Gateway, ListDigest, Reply},
};
pub(super) use tasks::Lent;
use tasks::Way;

/// How long a client may keep a list, in milliseconds: rights can change with the next release.
const LIST_TTL_MS: u64 = 60_000;

/// How long a handler may take that makes no call.
const HANDLER_MAX: Duration = Duration::from_secs(30);

/// How long one that makes a call may take, whatever the call's own limits are: a person may be asked on the way.
const CALL_MAX: Duration = Duration::from_secs(3_600);

/// How long a stream lasts on which a client is told something. It opens another one then.
const LISTEN_MAX: Duration = Duration::from_hours(24);

/// The methods that are spoken here, and whose parameters have a form.
const SPOKEN: [&str; 18] = [
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "server/discover",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/update",
    "tools/call",
    "tools/list",
];

/// Those of them that only revisions with sessions have.
const SPOKEN_IN_SESSIONS: [&str; 5] =
    ["initialize", "logging/setLevel", "ping", "resources/subscribe", "resources/unsubscribe"];

/// Why a method is none that is spoken here: a release without resources, or without prompts, does not speak of them.
pub(super) fn unspoken(gateway: &Gateway, method: &str, era: Era) -> Option<Refusal> {
    let is_spoken = || {
        let (has_resources, has_prompts) = gateway.rules().catalog.offers();
        match method.split_once('/') {
            Some(("resources", _)) => has_resources,
            Some(("prompts", _)) => has_prompts,
            Some(("completion", _)) => gateway.completes(),
            Some(("tasks", _)) => era == Era::Stateless && gateway.offers_tasks(),
            _ => true,
        }
    };
    if SPOKEN.contains(&method) && is_spoken() {
        return None;
    }
    let message = format!("unknown method `{method}`").into();
    Some(Refusal { message, ..Refusal::new(StatusCode::NOT_FOUND, METHOD_NOT_FOUND, "unknown_method", "") })
}

/// Who sits at the other end.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// One process, for as long as it lives.
    Stdio(Proof),
    /// Whoever the request's own headers name.
    Http,
}

/// What the middleware found out about a request.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) proof: Proof,
    pub(super) origin: Origin,
    /// Set when a call reaches the guards, or is put on record as refused.
    pub(super) reached: Arc<AtomicBool>,
    /// Its place among the requests that are worked on, where it has one.
    pub(super) place: Lent,
}

/// What a client of an older revision set for as long as its session lives.
#[derive(Debug)]
pub(super) struct Session {
    level: Mutex<Wanted>,
    feed: Arc<Feed>,
    /// Where its client is told something unasked, if not on the connection of its request.
    outlet: Option<Outlet>,
}

impl Default for Session {
    fn default() -> Self {
        Self { level: Mutex::new(Wanted::DEFAULT), feed: Arc::default(), outlet: None }
    }
}

impl Session {
    /// A session whose client is told on a stream of its own what it did not ask for.
    pub(super) fn telling(outlet: Outlet) -> Self {
        Self { outlet: Some(outlet), ..Self::default() }
    }

    fn level(&self) -> Wanted {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_level(&self, level: Wanted) {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = level;
    }
}

/// The handler of one connection (stdio) or one request (HTTP).
#[derive(Clone, Debug)]
pub(super) struct Handler {
    gateway: Arc<Gateway>,
    peer: Peer,
    /// None where each request stands for itself, and no answer of the client finds its way to another.
    session: Option<Arc<Session>>,
    listening: Arc<Listening>,
}

impl Handler {
    /// A handler of requests that each stand for themselves.
    pub(super) fn new(gateway: Arc<Gateway>, peer: Peer) -> Self {
        Self { gateway, peer, session: None, listening: Arc::default() }
    }

    /// The same, which shares with others how many streams its client may open to be told something.
    pub(super) fn listening(self, listening: Arc<Listening>) -> Self {
        Self { listening, ..self }
    }

    /// The same, for requests of a session, whose client can be asked.
    pub(super) fn within(self, session: Arc<Session>) -> Self {
        Self { session: Some(session), ..self }
    }

    /// Takes notice of a request in a session: its client can be told of changes from now on.
    fn attend(&self, context: &RequestContext<RoleServer>) {
        let Some(session) = self.session.as_ref().filter(|_| relay::era(context) == Era::Session) else {
            return;
        };
        session.feed.attend(&self.shown(context));
        let outlet = || session.outlet.clone().unwrap_or_else(|| Outlet::Peer(context.peer.clone()));
        session.feed.begin(&self.gateway, outlet);
    }

    /// Remembers a list as the client is given it.
    fn saw(&self, list: List, tools: &[Arc<Tool>]) {
        if let Some(session) = &self.session {
            session.feed.saw(list, ListDigest::of(tools));
        }
    }

    /// What the caller shows. A request that no middleware has seen shows nothing.
    fn shown(&self, context: &RequestContext<RoleServer>) -> Shown {
        match &self.peer {
            Peer::Stdio(proof) => Shown {
                proof: proof.clone(),
                origin: Origin { transport: Transport::Stdio, source: None },
                reached: Arc::default(),
                place: Lent::default(),
            },
            Peer::Http => context
                .extensions
                .get::<::http::request::Parts>()
                .and_then(|parts| parts.extensions.get::<Shown>())
                .cloned()
                .unwrap_or(Shown {
                    proof: Proof::default(),
                    origin: Origin { transport: Transport::Http, source: None },
                    reached: Arc::default(),
                    place: Lent::default(),
                }),
        }
    }
}

/// What a client brings where it asks again.
#[derive(Debug)]
struct Again {
    responses: Option<InputResponses>,
    state: Option<String>,
}

impl Again {
    /// The same for the call, where the client does ask again.
    fn retry(&self) -> Option<Retry> {
        let is_retry = self.responses.is_some() || self.state.is_some();
        is_retry.then(|| Retry {
            responses: self.responses.clone().unwrap_or_default().into_iter().collect(),
            state: self.state.clone(),
        })
    }
}

/// Holds a handler to its time, and answers where it panics: the library would let its client wait for ever.
async fn guarded<T>(max: Duration, work: impl Future<Output = Result<T, ErrorData>>) -> Result<T, ErrorData> {
    match timeout(max, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(ErrorData::internal_error("internal error", None)),
        Err(_) => Err(ErrorData::internal_error("the request took too long", None)),
    }
}

impl ServerHandler for Handler {
    #[expect(deprecated, reason = "what a backend logs is still passed on")]
    fn get_info(&self) -> ServerConfig {
        let rules = self.gateway.rules();
        let mut capabilities =
            ServerCapabilities::builder().enable_logging().enable_tools().enable_tool_list_changed().build();
        let (has_resources, has_prompts) = rules.catalog.offers();
        capabilities.resources = has_resources.then(|| {
            let mut resources = ResourcesCapability::default();
            (resources.subscribe, resources.list_changed) = (Some(true), Some(true));
            resources
        });
        capabilities.prompts = has_prompts.then(|| {
            let mut prompts = PromptsCapability::default();
            prompts.list_changed = Some(true);
            prompts
        });
        capabilities.completions = self.gateway.completes().then(Default::default);
        let tasks = || ExtensionCapabilities::from_iter([(TASKS_EXTENSION_ID.to_owned(), Map::new())]);
        capabilities.extensions = rules.catalog.has_tasks().then(tasks);
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new(rules.name.clone(), env!("CARGO_PKG_VERSION")))
    }

    /// Only revisions with sessions begin like this, and they do not know tasks.
    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let mut info = self.negotiate_initialize(&request)?;
        info.capabilities.extensions = None;
        context.peer.set_peer_info(request);
        Ok(info)
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        guarded(HANDLER_MAX, self.list(request, context)).await
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        guarded(CALL_MAX, self.call(request, context)).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        guarded(HANDLER_MAX, self.resources(request, context)).await
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        guarded(HANDLER_MAX, self.templates(request, context)).await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        guarded(CALL_MAX, self.read(request, context)).await
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        guarded(HANDLER_MAX, self.prompts(request, context)).await
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        guarded(CALL_MAX, self.get(request, context)).await
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        guarded(CALL_MAX, self.complete_argument(request, context)).await
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        guarded(CALL_MAX, self.watch(&request.uri, context)).await
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.unwatch(&request.uri, &context)
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(Self::accepted(requested))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        guarded(LISTEN_MAX, self.tell(context)).await
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        guarded(HANDLER_MAX, self.task(&request.task_id, &context)).await
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        guarded(HANDLER_MAX, self.answer_task(&request.task_id, request.input_responses, &context)).await
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        guarded(HANDLER_MAX, self.cancel_task_of(&request.task_id, &context)).await
    }

    #[expect(deprecated, reason = "older clients set it all the same")]
    async fn set_level(
        &self,
        request: rmcp::model::SetLevelRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if relay::era(&context) == Era::Stateless {
            return Err(unknown_method("logging/setLevel"));
        }
        // Without a session there is nothing that it could be set for.
        if let Some(session) = &self.session {
            session.set_level(Wanted::from(request.level));
        }
        Ok(())
    }

    /// What fits no method's parameters arrives here, under a method's name.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        guarded(HANDLER_MAX, self.refuse(request, context)).await
    }
}

impl Handler {
    async fn list(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.attend(&context);
        let shown = self.shown(&context);
        let digest = self.gateway.rules().digest.clone();
        let tools = self
            .gateway
            .list(&shown.proof, shown.origin.source)
            .await
            .map_err(|_| ErrorData::invalid_request("authentication failed", None))?;
        self.saw(List::Tools, &tools);
        let cursor = request.and_then(|request| request.cursor);
        let names = || tools.iter().map(|tool| tool.name().as_str());
        let Page { range, next } = page::of(&digest, names(), cursor.as_deref()).ok_or_else(|| {
            ErrorData::invalid_params("the cursor is none of this list, or no longer", None)
        })?;
        let tools = tools.get(range).unwrap_or_default();
        let mut list = ListToolsResult::with_all_items(tools.iter().map(|tool| wire_tool(tool)).collect());
        list.next_cursor = next;
        list.ttl_ms = Some(LIST_TTL_MS);
        list.cache_scope = Some(CacheScope::Private); // it depends on the caller
        Ok(list)
    }

    async fn call(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let CallToolRequestParams { name, arguments, input_responses, request_state, .. } = request;
        let kind =
            CallKind::Tool { name: name.into_owned(), arguments: arguments.unwrap_or_default().into() };
        let again = Again { responses: input_responses, state: request_state };
        match self.way(kind.target(), &context).await {
            Way::Waits => {}
            Way::Task(support, caller) => {
                let begun = self.call_as_task(&kind, &again, (support, caller), &context).await?;
                if let Some(begun) = begun {
                    return Ok(begun);
                }
            }
            Way::Refused => return Err(self.refuse_without_tasks(kind, &context).await),
        }
        wire_reply(self.carry(kind, again, context).await?)
    }

    /// Makes a call, and passes on what is said and asked on the way.
    async fn carry(
        &self,
        kind: CallKind,
        again: Again,
        context: RequestContext<RoleServer>,
    ) -> Result<Reply, ErrorData> {
        self.attend(&context);
        let Shown { proof, origin, reached, .. } = self.shown(&context);
        reached.store(true, Ordering::Relaxed);
        let (relay, outlet, passing) = relay::open(
            &context,
            self.session.as_ref().map_or(Wanted::DEFAULT, |session| session.level()),
            self.session.is_some(),
        );
        let retry = again.retry().filter(|_| relay.era() == Era::Stateless);
        let traceparent = context.meta.get("traceparent").and_then(Value::as_str);
        // Also cancelled when this is dropped because it took too long.
        let cancel = context.ct.child_token();
        let _cancelled_at_the_end = cancel.clone().drop_guard();
        let call = Call::now(kind, proof, origin, cancel).traced(traceparent).relayed(relay);
        let call = Call { retry, ..call };
        // A task of its own: a client that hangs up cancels the call by its token, and drops nothing.
        let gateway = Arc::clone(&self.gateway);
        let called = tokio::spawn(async move { gateway.call(call).await });
        let over = CancellationToken::new();
        let called = async {
            let reply = called.await;
            over.cancel();
            reply
        };
        let (reply, ()) = tokio::join!(called, outlet.pump(passing, &over));
        reply.map_err(|_| ErrorData::internal_error("internal error", None))
    }

    async fn refuse(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let CustomRequest { method, params, .. } = request;
        if relay::era(&context) == Era::Stateless && SPOKEN_IN_SESSIONS.contains(&method.as_str()) {
            return Err(unknown_method(&method));
        }
        self.spoken(&method, &context)?;
        let message = "the parameters do not fit the method";
        let said = |key: &str| {
            let said = params.as_ref().and_then(|params| params.get(key)).and_then(Value::as_str);
            said.unwrap_or_default().to_owned()
        };
        if let Some(kind) = asked(&method, || said("name"), || said("uri")) {
            let Shown { proof, origin, reached, .. } = self.shown(&context);
            reached.store(true, Ordering::Relaxed);
            let refusal = EdgeError { code: "params", message: message.to_owned() };
            let call = Call::now(kind, proof, origin, CancellationToken::new());
            let gateway = Arc::clone(&self.gateway);
            let _ = tokio::spawn(async move { gateway.refuse_at_edge(call, refusal).await }).await;
        }
        Err(ErrorData::invalid_params(message, None))
    }
}

fn unknown_method(method: &str) -> ErrorData {
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("unknown method `{method}`"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_or_hangs_is_answered_all_the_same() {
        let panics = async { if true { panic!("planted") } else { Ok(()) } };
        let answer = guarded(Duration::from_secs(5), panics).await.unwrap_err();
        assert_eq!((answer.code.0, answer.message.as_ref()), (-32603, "internal error"));
        let hangs = std::future::pending::<Result<(), ErrorData>>();
        let answer = guarded(Duration::from_millis(20), hangs).await.unwrap_err();
        assert_eq!((answer.code.0, answer.message.as_ref()), (-32603, "the request took too long"));
        assert_eq!(guarded(Duration::from_secs(5), async { Ok(7) }).await.unwrap(), 7);
    }
}
