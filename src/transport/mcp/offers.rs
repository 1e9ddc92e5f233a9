//! Resources and prompts, listed, read and got.

use std::sync::Arc;

use rmcp::{
    ErrorData, RoleServer,
    model::{
        CacheScope, ErrorCode, GetPromptRequestParams, GetPromptResponse, ListPromptsResult,
        ListResourceTemplatesResult, ListResourcesResult, PaginatedRequestParams, ReadResourceRequestParams,
        ReadResourceResponse,
    },
    service::RequestContext,
};

use super::{Again, Handler, LIST_TTL_MS, List, unspoken};
use crate::{
    call::CallKind,
    catalog::Tool,
    hygiene,
    manifest::Offer,
    transport::{
        page::{self, Page},
        relay,
        wire_offer::{wire_messages, wire_prompt, wire_read, wire_resource, wire_template},
    },
};

type Context = RequestContext<RoleServer>;
type Cursor = Option<PaginatedRequestParams>;

impl Handler {
    /// Whether a method is spoken here.
    pub(super) fn spoken(&self, method: &str, context: &Context) -> Result<(), ErrorData> {
        let Some(unspoken) = unspoken(&self.gateway, method, relay::era(context)) else { return Ok(()) };
        let message = hygiene::clean(&unspoken.message).0.into_owned();
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None))
    }

    pub(super) async fn resources(
        &self,
        cursor: Cursor,
        context: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        self.spoken("resources/list", &context)?;
        let (all, digest) = self.readable(&context).await?;
        let fixed = all.into_iter().filter(|tool| !is_template(tool)).collect();
        let (some, next) = paged(&digest, fixed, cursor)?;
        let mut list =
            ListResourcesResult::with_all_items(some.iter().filter_map(|tool| wire_resource(tool)).collect());
        list.next_cursor = next;
        list.ttl_ms = Some(LIST_TTL_MS);
        list.cache_scope = Some(CacheScope::Private); // it depends on the caller
        Ok(list)
    }

    pub(super) async fn templates(
        &self,
        cursor: Cursor,
        context: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        self.spoken("resources/templates/list", &context)?;
        let (all, digest) = self.readable(&context).await?;
        let templates = all.into_iter().filter(is_template).collect();
        let (some, next) = paged(&digest, templates, cursor)?;
        let wired = some.iter().filter_map(|tool| wire_template(tool)).collect();
        let mut list = ListResourceTemplatesResult::with_all_items(wired);
        list.next_cursor = next;
        list.ttl_ms = Some(LIST_TTL_MS);
        list.cache_scope = Some(CacheScope::Private);
        Ok(list)
    }

    pub(super) async fn prompts(
        &self,
        cursor: Cursor,
        context: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        self.spoken("prompts/list", &context)?;
        self.attend(&context);
        let shown = self.shown(&context);
        let digest = self.gateway.rules().digest.clone();
        let all = self.gateway.list_prompts(&shown.proof, shown.origin.source).await.map_err(|_| nobody())?;
        self.saw(List::Prompts, &all);
        let (some, next) = paged(&digest, all, cursor)?;
        let mut list =
            ListPromptsResult::with_all_items(some.iter().filter_map(|tool| wire_prompt(tool)).collect());
        list.next_cursor = next;
        list.ttl_ms = Some(LIST_TTL_MS);
        list.cache_scope = Some(CacheScope::Private);
        Ok(list)
    }

    pub(super) async fn read(
        &self,
        request: ReadResourceRequestParams,
        context: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        self.spoken("resources/read", &context)?;
        let ReadResourceRequestParams { uri, input_responses, request_state, .. } = request;
        let again = Again { responses: input_responses, state: request_state };
        wire_read(self.carry(CallKind::resource(uri.clone()), again, context).await?, &uri)
    }

    pub(super) async fn get(
        &self,
        request: GetPromptRequestParams,
        context: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        self.spoken("prompts/get", &context)?;
        let GetPromptRequestParams { name, arguments, input_responses, request_state, .. } = request;
        let description =
            self.gateway.rules().catalog.prompt(&name).map(|tool| tool.manifest().description.clone());
        let kind = CallKind::Prompt { name, arguments: arguments.unwrap_or_default().into() };
        let again = Again { responses: input_responses, state: request_state };
        wire_messages(self.carry(kind, again, context).await?, description)
    }

    async fn readable(&self, context: &Context) -> Result<(Vec<Arc<Tool>>, String), ErrorData> {
        self.attend(context);
        let shown = self.shown(context);
        let digest = self.gateway.rules().digest.clone();
        let all = self.gateway.list_resources(&shown.proof, shown.origin.source).await;
        let all = all.map_err(|_| nobody())?;
        self.saw(List::Resources, &all);
        Ok((all, digest))
    }
}

fn nobody() -> ErrorData {
    ErrorData::invalid_request("authentication failed", None)
}

fn is_template(tool: &Arc<Tool>) -> bool {
    matches!(&tool.manifest().offer, Offer::Resource(resource) if resource.uri.is_none())
}

/// A page of a list, and the cursor of the next one.
fn paged(
    digest: &str,
    mut all: Vec<Arc<Tool>>,
    cursor: Cursor,
) -> Result<(Vec<Arc<Tool>>, Option<String>), ErrorData> {
    let cursor = cursor.and_then(|request| request.cursor);
    let names = || all.iter().map(|tool| tool.name().as_str());
    let Page { range, next } = page::of(digest, names(), cursor.as_deref())
        .ok_or_else(|| ErrorData::invalid_params("the cursor is none of this list, or no longer", None))?;
    all.truncate(range.end);
    Ok((all.split_off(range.start.min(all.len())), next))
}
