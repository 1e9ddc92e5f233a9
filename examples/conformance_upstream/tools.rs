//! What each tool does. Most answer what `fixtures.json` says.

use std::time::Duration;

use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, LoggingLevel,
        LoggingMessageNotificationParam, ProgressNotificationParam,
    },
    service::RequestContext,
};

use crate::{
    changes::Change,
    fixtures::{DYNAMIC_TOOL, Interview, TaskPart},
    interview::{Standing, Talk, is_older},
    jobs,
    server::Upstream,
};

/// Between two messages of a tool that runs for a while.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the tool takes whose stream is closed before. Longer than the caller is asked to wait before it comes back:
/// an answer that is there by then is lost.
const RECONNECTION: Duration = Duration::from_secs(1);

impl Upstream {
    pub(crate) async fn call(
        &self,
        call: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = call.name.clone();
        if name == DYNAMIC_TOOL && self.shared.changes.tool_hidden() {
            return Err(ErrorData::invalid_params(format!("unknown tool `{name}`"), None));
        }
        if let Some(interview) = self.shared.fixtures.interview(&name) {
            return self.interview(interview, call, context).await;
        }
        let arguments = call.arguments.unwrap_or_default();
        let content = || self.shared.fixtures.answer::<Vec<ContentBlock>>(&name, &arguments);
        match name.as_ref() {
            "test_error_handling" => return Ok(CallToolResult::error(content()?).into()),
            "failing_job" | "protocol_error_job" => {
                jobs::needs_tasks(context)?;
                let failure =
                    if name == "failing_job" { Some(CallToolResult::error(content()?)) } else { None };
                return Ok(jobs::fail(&self.shared.tasks, failure));
            }
            "slow_compute" => {
                let answer = CallToolResult::success(content()?);
                return Ok(jobs::compute(&self.shared.tasks, context, &arguments, answer).await);
            }
            "test_tool_with_logging" | "test_logging_tool" => self.log(context).await,
            "test_tool_with_progress" => progress(context).await,
            "test_reconnection" => tokio::time::sleep(RECONNECTION).await,
            "test_trigger_tool_change" => self.shared.changes.make(Change::Tools),
            "test_trigger_prompt_change" => self.shared.changes.make(Change::Prompts),
            "test_trigger_resource_update" => self.shared.changes.make(Change::Resource),
            _ => {}
        }
        Ok(CallToolResult::success(content()?).into())
    }

    async fn interview(
        &self,
        interview: &Interview,
        call: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = call.arguments.unwrap_or_default();
        match interview.task {
            Some(TaskPart::Asks) if jobs::takes_tasks(context) => {
                return Ok(jobs::ask(&self.shared.tasks, interview.clone(), arguments));
            }
            Some(TaskPart::Follows) => jobs::needs_tasks(context)?,
            _ => {}
        }
        let talk =
            Talk { interview, seal: &self.shared.seal, asker: &call.name, arguments: &arguments, context };
        match talk.go_on(call.input_responses, call.request_state).await? {
            Standing::Asks(questions) => Ok(questions.into()),
            Standing::Done(text) => {
                let answer = CallToolResult::success(vec![ContentBlock::text(text)]);
                let follows = interview.task == Some(TaskPart::Follows);
                Ok(if follows { jobs::finish(&self.shared.tasks, answer) } else { answer.into() })
            }
        }
    }

    /// Logs three messages to a caller who wants them.
    async fn log(&self, context: &RequestContext<RoleServer>) {
        let wanted = if is_older(context) { Some(self.level()) } else { context.meta.log_level() };
        let heard = wanted.is_some_and(|level| severity(level) <= severity(LoggingLevel::Info));
        for text in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
            if heard {
                let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, text.into());
                let _caller_gone = context.peer.notify_logging_message(message).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Reports three steps to a caller who gave a token for it.
async fn progress(context: &RequestContext<RoleServer>) {
    for done in [0.0, 50.0, 100.0] {
        if let Some(token) = context.meta.get_progress_token() {
            let report = ProgressNotificationParam::new(token, done).with_total(100.0);
            let _caller_gone = context.peer.notify_progress(report).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

const fn severity(level: LoggingLevel) -> u8 {
    level as u8
}
