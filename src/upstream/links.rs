//! One line to an upstream, of either kind.

use std::sync::{Arc, atomic::Ordering};

use serde_json::{Map, Value};
use tokio::{task::JoinHandle, time};

use super::{
    Answer, Exchange, UpstreamError,
    desk::{Desk, Ticket},
    http::{Http, Outgoing},
    message,
    stdio::Stdio,
};
use crate::egress::Departure;

/// A line to an upstream.
pub(super) enum Wire {
    /// A child process.
    Stdio(Stdio),
    /// A server.
    Http(Arc<Http>),
}

/// A line, and what waits on it.
pub(super) struct Link {
    pub(super) wire: Arc<Wire>,
    pub(super) desk: Arc<Desk>,
}

impl Wire {
    /// Sends an answer to a question, or a notification. Nobody waits for it.
    pub(super) fn reply(&self, message: Vec<u8>) {
        match self {
            Self::Stdio(stdio) => stdio.tell(message),
            Self::Http(http) => http.tell(message),
        }
    }

    /// Sends a notification, and waits until what is sent later comes later.
    pub(super) async fn deliver(&self, message: Vec<u8>) {
        match self {
            Self::Stdio(stdio) => stdio.tell(message),
            Self::Http(http) => http.deliver(message).await,
        }
    }
}

/// A request under way. When this is dropped before its end, the upstream is told.
struct Underway<'a> {
    link: &'a Link,
    ticket: Ticket,
    departure: Arc<Departure>,
    /// What reads the answer, over HTTP.
    task: Option<JoinHandle<()>>,
    /// Whether the upstream is told, when the request is given up.
    tells: bool,
    is_done: bool,
}

impl Link {
    /// Sends a request, and waits for its answer. `dress` puts in what the protocol wants in each request.
    pub(super) async fn exchange(
        &self,
        method: &str,
        dress: impl FnOnce(i64) -> Map<String, Value>,
        exchange: &Exchange<'_>,
    ) -> Result<Answer, UpstreamError> {
        let ticket = self.desk.begin(exchange.relay, exchange.asks)?;
        let departure = exchange.departure.map_or_else(|| Departure::new(|| true), Arc::clone);
        // The protocol forbids to cancel the first request.
        let tells = method != "initialize";
        let params = dress(ticket.id);
        let mut underway = Underway { link: self, ticket, departure, task: None, tells, is_done: false };
        let over = tokio::select! {
            biased;
            outcome = underway.run(method, params, exchange) => return underway.end(outcome),
            () = exchange.cancel.cancelled() => |sent| UpstreamError::Cancelled { sent },
            () = time::sleep_until(exchange.deadline) => |sent| UpstreamError::TimedOut { sent },
        };
        let sent = underway.stop().await;
        Err(over(sent))
    }
}

impl Underway<'_> {
    async fn run(
        &mut self,
        method: &str,
        params: Map<String, Value>,
        exchange: &Exchange<'_>,
    ) -> Result<Answer, UpstreamError> {
        if exchange.cancel.is_cancelled() {
            return Err(UpstreamError::Cancelled { sent: false });
        }
        if exchange.deadline <= time::Instant::now() {
            return Err(UpstreamError::TimedOut { sent: false });
        }
        let id = self.ticket.id;
        match self.link.wire.as_ref() {
            Wire::Stdio(stdio) => {
                let message = message::request(id, method, &params);
                let sent = Arc::clone(&self.ticket.sent);
                stdio.send(id, message, Arc::clone(&self.departure), sent).await?;
            }
            Wire::Http(http) => {
                let outgoing = Outgoing {
                    id,
                    fields: http.fields(method, &params, exchange.input_schema),
                    message: message::request(id, method, &params),
                    departure: Arc::clone(&self.departure),
                    sent: Arc::clone(&self.ticket.sent),
                };
                let (desk, wire) = (Arc::clone(&self.link.desk), Arc::clone(&self.link.wire));
                self.task = Some(http.spawn(outgoing, desk, wire)?);
            }
        }
        let closed = || Err(UpstreamError::Closed { sent: self.ticket.sent.load(Ordering::Acquire) });
        (&mut self.ticket.answer).await.unwrap_or_else(|_| closed())
    }

    fn end(mut self, outcome: Result<Answer, UpstreamError>) -> Result<Answer, UpstreamError> {
        self.is_done = true;
        outcome
    }

    /// Gives the request up. Says whether it may have been sent.
    async fn stop(mut self) -> bool {
        if let Some(task) = self.task.take() {
            task.abort();
            // Only when the task is gone it is known how far it came.
            let _ = task.await;
        }
        self.ticket.sent.load(Ordering::Acquire) && !self.departure.is_given_up()
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        if let Some(task) = &self.task {
            task.abort();
        }
        let is_stateless_http = matches!(self.link.wire.as_ref(), Wire::Http(http) if http.is_stateless());
        if self.tells && !is_stateless_http && self.ticket.sent.load(Ordering::Acquire) {
            self.link.wire.reply(message::cancelled(self.ticket.id));
        }
    }
}
