//! The protocol's methods.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams, CompleteResult,
        CompletionInfo, GetPromptRequestParams, GetPromptResponse, GetPromptResult, GetTaskParams,
        GetTaskResult, Implementation, JsonObject, ListPromptsResult, ListResourceTemplatesResult,
        ListResourcesResult, ListToolsResult, LoggingLevel, PaginatedRequestParams, PromptMessage,
        ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, ResourceContents, Role,
        ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter,
        Tool, UnsubscribeRequestParams, UpdateTaskParams,
    },
    service::{NotificationContext, RequestContext, SubscriptionContext},
    task_manager::TaskManager,
};
use serde_json::json;

use crate::{
    changes::Changes,
    fixtures::{DYNAMIC_PROMPT, DYNAMIC_TOOL, Fixtures},
    interview::{Standing, Talk},
    seal::Seal,
};

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) fixtures: Fixtures,
    pub(crate) seal: Seal,
    pub(crate) tasks: TaskManager,
    pub(crate) changes: Changes,
}

/// The server, as one session or one request sees it.
pub(crate) struct Upstream {
    pub(crate) shared: Arc<Shared>,
    level: Mutex<LoggingLevel>,
    watched: Arc<Mutex<BTreeSet<String>>>,
}

impl Shared {
    pub(crate) fn new() -> Result<Self, String> {
        let (fixtures, seal) = (Fixtures::read()?, Seal::new()?);
        Ok(Self { fixtures, seal, tasks: TaskManager::new(), changes: Changes::new() })
    }
}

impl Upstream {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, level: Mutex::new(LoggingLevel::Debug), watched: Arc::default() }
    }

    /// The least severe level that the session wants to hear of.
    pub(crate) fn level(&self) -> LoggingLevel {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerHandler for Upstream {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_logging()
            .enable_completions()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("conformance-upstream", env!("CARGO_PKG_VERSION")))
            .with_instructions("Fixtures of the conformance suite.")
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let hidden = self.shared.changes.tool_hidden();
        let tools = self.shared.fixtures.tools.iter().filter(|tool| !hidden || tool.name != DYNAMIC_TOOL);
        Ok(ListToolsResult::with_all_items(tools.cloned().collect()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.shared.fixtures.tool(name).cloned()
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.call(call, &context).await
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let hidden = self.shared.changes.prompt_hidden();
        let prompts =
            self.shared.fixtures.prompts.iter().filter(|prompt| !hidden || prompt.name != DYNAMIC_PROMPT);
        Ok(ListPromptsResult::with_all_items(prompts.cloned().collect()))
    }

    async fn get_prompt(
        &self,
        get: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let arguments: JsonObject = get.arguments.unwrap_or_default();
        let fixtures = &self.shared.fixtures;
        let Some(interview) = fixtures.interview(&get.name) else {
            return Ok(GetPromptResult::new(fixtures.messages(&get.name, &arguments)?).into());
        };
        let talk = Talk {
            interview,
            seal: &self.shared.seal,
            asker: &get.name,
            arguments: &arguments,
            context: &context,
        };
        Ok(match talk.go_on(get.input_responses, get.request_state).await? {
            Standing::Asks(questions) => questions.into(),
            Standing::Done(text) => {
                GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)]).into()
            }
        })
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(self.shared.fixtures.resources.clone()))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(self.shared.fixtures.templates.clone()))
    }

    async fn read_resource(
        &self,
        read: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let contents: ResourceContents = self.shared.fixtures.contents(&read.uri).ok_or_else(|| {
            ErrorData::resource_not_found("resource not found", Some(json!({ "uri": read.uri })))
        })?;
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn subscribe(
        &self,
        subscribe: SubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(subscribe.uri);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        unsubscribe: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&unsubscribe.uri);
        Ok(())
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let watched = Arc::clone(&self.watched);
        self.shared.changes.follow(context.peer, move |uri| {
            watched.lock().unwrap_or_else(PoisonError::into_inner).contains(uri)
        });
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, subscription: SubscriptionContext) -> Result<(), ErrorData> {
        self.shared.changes.tell_subscriber(&subscription).await;
        Ok(())
    }

    async fn complete(
        &self,
        complete: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let values = self.shared.fixtures.completions(&complete.argument.name, &complete.argument.value);
        CompletionInfo::new(values)
            .map(CompleteResult::new)
            .map_err(|error| ErrorData::internal_error(error, None))
    }

    async fn set_level(
        &self,
        set: SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = set.level;
        Ok(())
    }

    async fn get_task(
        &self,
        get: GetTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        self.shared.tasks.get_task(&get.task_id).map(GetTaskResult::new)
    }

    async fn update_task(
        &self,
        update: UpdateTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.shared.tasks.update_task(&update.task_id, update.input_responses)
    }

    async fn cancel_task(
        &self,
        cancel: CancelTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.shared.tasks.cancel_task(&cancel.task_id)
    }
}
