//! Work that outlives its call: the tasks extension.

use std::time::Duration;

use futures::future;
use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, CreateTaskResult, InputResponses,
        JsonObject,
    },
    service::RequestContext,
    task_manager::{TaskContext, TaskExit, TaskManager, TaskOptions},
};

use crate::{fixtures::Interview, interview::conclusion};

/// How often the caller shall ask.
const POLL_MS: u64 = 200;
/// How long a failing job takes.
const FAILS_AFTER: Duration = Duration::from_secs(1);
/// The longest time that a job may sleep.
const SECONDS_MAX: f64 = 600.0;

/// Whether the caller takes tasks.
pub(crate) fn takes_tasks(context: &RequestContext<RoleServer>) -> bool {
    context.client_capabilities().is_some_and(|capabilities| capabilities.supports_tasks())
}

/// Refuses a caller who does not take tasks.
pub(crate) fn needs_tasks(context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
    if takes_tasks(context) {
        return Ok(());
    }
    Err(ErrorData::missing_required_client_capability(ClientCapabilities::builder().enable_tasks().build()))
}

/// Sleeps as long as the argument says: as a task, or at once.
pub(crate) async fn compute(
    tasks: &TaskManager,
    context: &RequestContext<RoleServer>,
    arguments: &JsonObject,
    answer: CallToolResult,
) -> CallToolResponse {
    let seconds = arguments.get("seconds").and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    let time = Duration::from_secs_f64(seconds.clamp(0.0, SECONDS_MAX));
    if !takes_tasks(context) {
        tokio::time::sleep(time).await;
        return answer.into();
    }
    start(tasks, |task| async move {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(answer),
            () = task.cancelled() => Err(TaskExit::Cancelled),
        }
    })
}

/// Ends after a while: with a result that says so, or with a protocol error where there is none.
pub(crate) fn fail(tasks: &TaskManager, failure: Option<CallToolResult>) -> CallToolResponse {
    start(tasks, |_| async move {
        tokio::time::sleep(FAILS_AFTER).await;
        failure.ok_or_else(|| TaskExit::Error(ErrorData::internal_error("the job broke", None)))
    })
}

/// Ends at once, as a task.
pub(crate) fn finish(tasks: &TaskManager, answer: CallToolResult) -> CallToolResponse {
    start(tasks, |_| future::ready(Ok(answer)))
}

/// Asks all questions of an interview's first round at once, from within the task.
pub(crate) fn ask(tasks: &TaskManager, interview: Interview, arguments: JsonObject) -> CallToolResponse {
    start(tasks, |task| async move {
        let questions = interview.questions(0, &arguments)?;
        let asked = questions.into_iter().map(|(key, question)| {
            let task = task.clone();
            async move { Ok::<_, TaskExit>((key.clone(), task.request_input(key, question).await?)) }
        });
        let answers: InputResponses = future::try_join_all(asked).await?.into_iter().collect();
        let text = conclusion(&interview, &arguments, &answers);
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]))
    })
}

fn start<F>(tasks: &TaskManager, work: impl FnOnce(TaskContext) -> F) -> CallToolResponse
where
    F: Future<Output = Result<CallToolResult, TaskExit>> + Send + 'static,
{
    let options = TaskOptions::new().with_poll_interval_ms(POLL_MS);
    CreateTaskResult::new(tasks.spawn(options, |task| Box::pin(work(task)))).into()
}
