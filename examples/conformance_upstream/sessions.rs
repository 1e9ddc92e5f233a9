//! Sessions of the older era, in which one tool's stream is closed before its answer.
//!
//! A handler does not learn which stream carries its call. The manager of sessions does, so it closes the
//! stream of `test_reconnection`: whoever resumes it gets the answer.

use std::{sync::Arc, time::Duration};

use futures::{Stream, stream};
use rmcp::{
    model::{ClientJsonRpcMessage, ClientRequest, JsonRpcMessage, ServerJsonRpcMessage},
    transport::{
        WorkerTransport,
        common::server_side_http::{ServerSseMessage, SessionId},
        streamable_http_server::{
            SessionManager,
            session::{
                EventStore, RestoreOutcome,
                local::{
                    LocalSessionHandle, LocalSessionManager, LocalSessionManagerError, LocalSessionWorker,
                },
            },
        },
    },
};

/// After how long the stream is closed. The tool takes longer.
const CLOSED_AFTER: Duration = Duration::from_millis(100);
/// How long the client shall wait before it comes back.
const RETRY: Duration = Duration::from_millis(300);

/// The sessions in memory, and the one difference.
pub(crate) struct Sessions(LocalSessionManager);

impl Sessions {
    pub(crate) fn new() -> Self {
        let mut sessions = LocalSessionManager::default();
        sessions.session_config.sse_retry = Some(RETRY);
        Self(sessions)
    }

    async fn handle(&self, id: &SessionId) -> Result<LocalSessionHandle, LocalSessionManagerError> {
        let handle = self.0.sessions.read().await.get(id).cloned();
        handle.ok_or_else(|| LocalSessionManagerError::SessionNotFound(id.clone()))
    }
}

impl SessionManager for Sessions {
    type Error = LocalSessionManagerError;
    type Transport = WorkerTransport<LocalSessionWorker>;

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let handle = self.handle(id).await?;
        let channel = handle.establish_request_wise_channel().await?;
        let closes = is_reconnection(&message);
        handle.push_message(message, channel.http_request_id).await?;
        if closes && let Some(number) = channel.http_request_id {
            tokio::spawn(async move {
                tokio::time::sleep(CLOSED_AFTER).await;
                let _session_gone = handle.close_sse_stream(number, Some(RETRY)).await;
            });
        }
        let mut messages = channel.inner;
        Ok(stream::poll_fn(move |context| messages.poll_recv(context)))
    }

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        self.0.create_session().await
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.0.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        self.0.has_session(id).await
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        self.0.close_session(id).await
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        self.0.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.0.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.0.resume(id, last_event_id).await
    }

    async fn restore_session(&self, id: SessionId) -> Result<RestoreOutcome<Self::Transport>, Self::Error> {
        self.0.restore_session(id).await
    }

    fn event_store(&self) -> Option<Arc<dyn EventStore>> {
        self.0.event_store()
    }
}

fn is_reconnection(message: &ClientJsonRpcMessage) -> bool {
    let JsonRpcMessage::Request(request) = message else { return false };
    let ClientRequest::CallToolRequest(call) = &request.request else { return false };
    call.params.name == "test_reconnection"
}
