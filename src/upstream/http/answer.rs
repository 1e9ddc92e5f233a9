//! What a server answers a request with.

use std::sync::Arc;

use ::http::{HeaderMap, StatusCode, header};
use reqwest::Response;

use super::{Http, stream::Stream};
use crate::upstream::{
    UpstreamError,
    desk::{Desk, Source},
    links::Wire,
    message::malformed,
};

/// What an answer's body is, by its own word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Content {
    Json,
    Events,
    Other,
}

impl Http {
    /// Reads until the request is answered.
    pub(super) async fn answer(
        &self,
        id: i64,
        response: Response,
        desk: &Arc<Desk>,
        wire: &Arc<Wire>,
    ) -> Result<(), UpstreamError> {
        let status = response.status();
        self.judge_status(status, Some(id), desk)?;
        if response.headers().contains_key(header::CONTENT_ENCODING) {
            return Err(UpstreamError::Encoded);
        }
        let content = content(response.headers());
        if !status.is_success() {
            return self.failure(id, response, content, desk, wire).await;
        }
        self.learn_session(response.headers())?;
        let peer = response.remote_addr();
        match content {
            Content::Json => {
                let body = self.body(response).await?;
                desk.receive(&body, Source::Own(id), peer, wire)?;
                if desk.is_waiting(id) { Err(malformed("a request is not answered")) } else { Ok(()) }
            }
            Content::Events => Stream::new(self, id).answer(response, desk, wire).await,
            Content::Other if status == StatusCode::ACCEPTED || status == StatusCode::NO_CONTENT => {
                Err(malformed("a request is accepted and not answered"))
            }
            Content::Other => Err(UpstreamError::ContentType),
        }
    }

    /// A failure may say more by a JSON-RPC error. It is an answer then, and one to this request, whatever its id:
    /// who could not read a request does not know it.
    async fn failure(
        &self,
        id: i64,
        response: Response,
        content: Content,
        desk: &Arc<Desk>,
        wire: &Arc<Wire>,
    ) -> Result<(), UpstreamError> {
        let (status, peer) = (response.status(), response.remote_addr());
        if content == Content::Json
            && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && let Ok(body) = self.body(response).await
            && desk.receive(&body, Source::Own(id), peer, wire).is_ok()
            && !desk.is_waiting(id)
        {
            return Ok(());
        }
        Err(UpstreamError::Status { code: status.as_u16() })
    }

    /// A whole body of bounded length.
    async fn body(&self, mut response: Response) -> Result<Vec<u8>, UpstreamError> {
        let bytes_max = self.bounds.message_bytes_max;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| UpstreamError::Closed { sent: true })? {
            if body.len() + chunk.len() > bytes_max {
                return Err(UpstreamError::TooLarge { bytes_max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

fn content(headers: &HeaderMap) -> Content {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Content::Json,
        "text/event-stream" => Content::Events,
        _ => Content::Other,
    }
}

/// Whether a body is a stream of events, by its own word.
pub(super) fn is_events(headers: &HeaderMap) -> bool {
    content(headers) == Content::Events && !headers.contains_key(header::CONTENT_ENCODING)
}
