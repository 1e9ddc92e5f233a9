//! Streams of events: the answer to a request, and the line on which a server speaks unasked.

use std::{sync::Arc, time::Duration};

use ::http::{HeaderName, HeaderValue, Method, StatusCode};
use reqwest::Response;
use tokio::time;

use super::{Http, answer};
use crate::{
    egress::SendError,
    upstream::{
        UpstreamError,
        desk::{Desk, Source},
        links::Wire,
        message::malformed,
        sse::SseReader,
    },
};

/// How long to wait before a stream is resumed, where the server does not say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The shortest and the longest wait that a server can make of it.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(10);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// How often in a row a line is opened anew on which nothing came.
const IDLE_OPENINGS_MAX: usize = 10;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The stream of one request, with all its resumptions.
pub(super) struct Stream<'a> {
    http: &'a Http,
    id: i64,
    events: SseReader,
    messages: usize,
}

impl<'a> Stream<'a> {
    pub(super) const fn new(http: &'a Http, id: i64) -> Self {
        Self { http, id, events: SseReader::new(http.bounds.message_bytes_max), messages: 0 }
    }

    /// Reads until the request is answered. A stream that ends before is resumed, if it says how.
    pub(super) async fn answer(
        mut self,
        mut response: Response,
        desk: &Arc<Desk>,
        wire: &Arc<Wire>,
    ) -> Result<(), UpstreamError> {
        let mut source = Source::Own(self.id);
        loop {
            self.read(&mut response, source, desk, wire).await?;
            if !desk.is_waiting(self.id) {
                return Ok(());
            }
            let resumed = self.http.resume(&mut self.events).await?;
            response = resumed.ok_or(UpstreamError::Closed { sent: true })?;
            source = Source::Resumed(self.id);
        }
    }

    /// Reads one connection to its end, or to the answer.
    async fn read(
        &mut self,
        response: &mut Response,
        source: Source,
        desk: &Arc<Desk>,
        wire: &Arc<Wire>,
    ) -> Result<(), UpstreamError> {
        let bounds = self.http.bounds;
        let peer = response.remote_addr();
        // A stream that breaks is one that ends: it is resumed or not in the same way.
        while let Ok(Some(chunk)) = response.chunk().await {
            let too_long = |_| UpstreamError::TooLarge { bytes_max: bounds.message_bytes_max };
            for event in self.events.read(&chunk).map_err(too_long)? {
                if !is_message(&event.kind) || event.data.is_empty() {
                    continue;
                }
                self.messages += 1;
                if self.messages > bounds.messages_max {
                    return Err(UpstreamError::TooMany { things: "messages", max: bounds.messages_max });
                }
                desk.receive(&event.data, source, peer, wire)?;
                if !desk.is_waiting(self.id) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Http {
    /// Opens a stream again where it ended; none where it does not say where that is.
    async fn resume(&self, events: &mut SseReader) -> Result<Option<Response>, UpstreamError> {
        let Some(last) = events.last_id().and_then(|id| HeaderValue::from_str(id).ok()) else {
            return Ok(None);
        };
        let retry_after = events.retry_ms().map_or(RETRY_AFTER, Duration::from_millis);
        events.restart();
        time::sleep(retry_after.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)).await;
        let response = self.get(Some(last)).await?;
        match response.status() {
            StatusCode::OK if answer::is_events(response.headers()) => Ok(Some(response)),
            StatusCode::OK => Err(malformed("a stream is resumed by something else")),
            status => Err(UpstreamError::Status { code: status.as_u16() }),
        }
    }

    async fn get(&self, last_event: Option<HeaderValue>) -> Result<Response, UpstreamError> {
        let fields = last_event.into_iter().map(|id| (LAST_EVENT_ID, id)).collect();
        match self.way.send(self.request(Method::GET, None, fields)).await {
            Ok(response) => Ok(response),
            Err(SendError::Refused { refusal, .. }) => Err(UpstreamError::Egress { refusal, sent: true }),
            Err(SendError::Http(_)) => Err(UpstreamError::Closed { sent: true }),
        }
    }

    /// Listens to what a server says unasked, until the desk is closed. Many have no such line (405).
    pub(in crate::upstream) async fn listen(self: Arc<Self>, desk: Arc<Desk>, wire: Arc<Wire>) {
        let closed = desk.closed().clone();
        tokio::select! {
            () = closed.cancelled() => {}
            () = self.listen_on(&desk, &wire) => {}
        }
    }

    async fn listen_on(&self, desk: &Arc<Desk>, wire: &Arc<Wire>) {
        let mut events = SseReader::new(self.bounds.message_bytes_max);
        let mut idle_openings = 0;
        while idle_openings < IDLE_OPENINGS_MAX {
            idle_openings += 1;
            let last = events.last_id().and_then(|id| HeaderValue::from_str(id).ok());
            if let Ok(response) = self.get(last).await {
                if !response.status().is_success() || !answer::is_events(response.headers()) {
                    let _ = self.judge_status(response.status(), None, desk);
                    return;
                }
                match self.hear(response, &mut events, desk, wire).await {
                    Ok(0) => {}
                    Ok(_) => idle_openings = 0,
                    Err(error) => {
                        tracing::debug!("an upstream is not listened to any more: {error}");
                        return;
                    }
                }
            }
            let retry_after = events.retry_ms().map_or(RETRY_AFTER, Duration::from_millis);
            events.restart();
            time::sleep(retry_after.clamp(RETRY_AFTER, RETRY_AFTER_MAX)).await;
        }
    }

    /// Reads one connection to its end. Counts its messages.
    async fn hear(
        &self,
        mut response: Response,
        events: &mut SseReader,
        desk: &Arc<Desk>,
        wire: &Arc<Wire>,
    ) -> Result<usize, UpstreamError> {
        let (bytes_max, peer) = (self.bounds.message_bytes_max, response.remote_addr());
        let mut messages = 0;
        while let Ok(Some(chunk)) = response.chunk().await {
            for event in events.read(&chunk).map_err(|_| UpstreamError::TooLarge { bytes_max })? {
                if is_message(&event.kind) && !event.data.is_empty() {
                    messages += 1;
                    desk.receive(&event.data, Source::Shared, peer, wire)?;
                }
            }
        }
        Ok(messages)
    }
}

fn is_message(kind: &[u8]) -> bool {
    kind.is_empty() || kind == b"message"
}
