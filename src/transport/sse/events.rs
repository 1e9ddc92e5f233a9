//! The body of a stream: its events, and a comment from time to time.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::wire::Event;
use crate::transport::{pace::Pace, seats::Seat};

/// How often a stream without events says that it is there. It also finds out whether its client is.
const PING: Duration = Duration::from_secs(15);

/// The events of a stream. The session ends with it.
pub(super) struct Events {
    events: mpsc::Receiver<Event>,
    ping: Interval,
    pace: Arc<Pace>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _session: DropGuard,
    _seat: Arc<Seat>,
}

impl Events {
    /// Its end, by whatever way, cancels `ended`, and is brought about by it.
    pub(super) fn new(
        events: mpsc::Receiver<Event>,
        pace: Arc<Pace>,
        ended: CancellationToken,
        seat: Arc<Seat>,
    ) -> Self {
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let _session = ended.clone().drop_guard();
        Self { events, ping, pace, ended: Box::pin(ended.cancelled_owned()), _session, _seat: seat }
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(event) = self.events.poll_recv(context) {
            return Poll::Ready(event.map(|event| Ok(Frame::data(event.text))));
        }
        while self.ping.poll_tick(context).is_ready() {
            // A client that does not read gets no more time by it.
            if !self.pace.is_behind() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b": ping\n\n")))));
            }
        }
        Poll::Pending
    }
}
