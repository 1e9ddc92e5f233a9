//! The Model Context Protocol, as far as the gate speaks it: tools.
//!
//! Listing and calling ask the gateway on each request: nothing is decided by connection or session.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CustomRequest, CustomResult, ErrorCode,
        Implementation, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::wire::{wire_reply, wire_tool};
use crate::{
    call::{Call, CallKind, Origin, Proof, Transport},
    gateway::{EdgeError, Gateway},
};

/// How long a client may keep a list, in milliseconds: rights can change with the next release.
const LIST_TTL_MS: u64 = 60_000;

/// The methods that are spoken here, and whose parameters have a form.
const SPOKEN: [&str; 5] = ["initialize", "ping", "server/discover", "tools/call", "tools/list"];

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
}

/// The handler of one connection (stdio) or one request (HTTP).
#[derive(Clone, Debug)]
pub(super) struct Handler {
    gateway: Arc<Gateway>,
    peer: Peer,
}

impl Handler {
    pub(super) const fn new(gateway: Arc<Gateway>, peer: Peer) -> Self {
        Self { gateway, peer }
    }

    /// What the caller shows. A request that no middleware has seen shows nothing.
    fn shown(&self, context: &RequestContext<RoleServer>) -> Shown {
        match &self.peer {
            Peer::Stdio(proof) => Shown {
                proof: proof.clone(),
                origin: Origin { transport: Transport::Stdio, source: None },
                reached: Arc::default(),
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
                }),
        }
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let rules = self.gateway.rules();
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new(rules.name.clone(), env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let shown = self.shown(&context);
        let tools = self
            .gateway
            .list(&shown.proof, shown.origin.source)
            .await
            .map_err(|_| ErrorData::invalid_request("authentication failed", None))?;
        let mut list = ListToolsResult::with_all_items(tools.iter().map(|tool| wire_tool(tool)).collect());
        list.ttl_ms = Some(LIST_TTL_MS);
        list.cache_scope = Some(CacheScope::Private); // it depends on the caller
        Ok(list)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Shown { proof, origin, reached } = self.shown(&context);
        reached.store(true, Ordering::Relaxed);
        let kind = CallKind::Tool {
            name: request.name.into_owned(),
            arguments: request.arguments.unwrap_or_default().into(),
        };
        let traceparent = context.meta.get("traceparent").and_then(Value::as_str);
        let call = Call::now(kind, proof, origin, context.ct.child_token()).traced(traceparent);
        // A task of its own: a client that hangs up cancels the call by its token, and drops nothing.
        let gateway = Arc::clone(&self.gateway);
        let reply = tokio::spawn(async move { gateway.call(call).await }).await;
        let reply = reply.map_err(|_| ErrorData::internal_error("internal error", None))?;
        wire_reply(reply)
    }

    /// What fits no method's parameters arrives here, under a method's name.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let CustomRequest { method, params, .. } = request;
        if !SPOKEN.contains(&method.as_str()) {
            return Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, method, None));
        }
        let message = "the parameters do not fit the method";
        if method == "tools/call" {
            let Shown { proof, origin, reached } = self.shown(&context);
            reached.store(true, Ordering::Relaxed);
            let name = params.as_ref().and_then(|params| params.get("name")).and_then(Value::as_str);
            let kind =
                CallKind::Tool { name: name.unwrap_or_default().to_owned(), arguments: Map::new().into() };
            let refusal = EdgeError { code: "params", message: message.to_owned() };
            let call = Call::now(kind, proof, origin, CancellationToken::new());
            let gateway = Arc::clone(&self.gateway);
            let _ = tokio::spawn(async move { gateway.refuse_at_edge(call, refusal).await }).await;
        }
        Err(ErrorData::invalid_params(message, None))
    }
}
