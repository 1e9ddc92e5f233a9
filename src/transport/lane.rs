//! One stream of messages to a client: kept while nobody reads it, bounded, and read again from where it broke off.
//!
//! Who writes never waits for who reads. What finds no room pushes the oldest message out, and an answer is always
//! the last.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Empty, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame};
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use super::refusal::Answer;

/// How many messages may wait to be read.
const KEPT_MAX: usize = 64;

/// How many bytes of messages may wait to be read, besides the last one.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// How often a silent stream shows that it is still there: proxies close what they believe to be dead.
const PULSE: Duration = Duration::from_secs(15);

/// How long a client is asked to wait before it comes back to a stream that broke off.
const RETRY_MS: u32 = 1_000;

/// The name of a place in a stream (SSE `id`): which stream of its session, and which message of the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EventId {
    pub(super) lane: u64,
    pub(super) index: u64,
}

impl EventId {
    /// Reads what a client sends as `Last-Event-ID`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (lane, index) = text.split_once('-')?;
        Some(Self { lane: lane.parse().ok()?, index: index.parse().ok()? })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.lane, self.index)
    }
}

/// A message in a stream.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// Counted from 1.
    pub(super) index: u64,
    /// A JSON-RPC message.
    pub(super) message: Bytes,
    /// The answer, after which nothing comes.
    pub(super) is_last: bool,
}

/// A stream of messages to a client.
#[derive(Debug)]
pub(super) struct Lane {
    number: u64,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    kept: VecDeque<Event>,
    kept_bytes: usize,
    next: u64,
    /// The last message that anybody took.
    taken: u64,
    /// How many came to read. The latest one does.
    readers: u64,
    is_over: bool,
}

impl Lane {
    pub(super) fn new(number: u64) -> Arc<Self> {
        let state =
            State { kept: VecDeque::new(), kept_bytes: 0, next: 1, taken: 0, readers: 0, is_over: false };
        Arc::new(Self { number, state: Mutex::new(state), changed: Notify::new() })
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message; the last one ends the stream.
    pub(super) fn push(&self, message: Bytes, is_last: bool) {
        {
            let mut state = self.state();
            if state.is_over {
                return;
            }
            while state.kept.len() >= KEPT_MAX || state.kept_bytes > KEPT_BYTES_MAX {
                let Some(oldest) = state.kept.pop_front() else { break };
                state.kept_bytes -= oldest.message.len();
            }
            let index = state.next;
            state.next += 1;
            state.kept_bytes += message.len();
            state.kept.push_back(Event { index, message, is_last });
            state.is_over = is_last;
        }
        self.changed.notify_waiters();
    }

    /// Ends the stream without an answer.
    pub(super) fn end(&self) {
        self.state().is_over = true;
        self.changed.notify_waiters();
    }

    /// How many bytes wait in it, or were read and could be asked for again.
    pub(super) fn bytes(&self) -> usize {
        self.state().kept_bytes
    }

    /// Reads what comes after a message, or after all that was read before. Whoever read until now stops.
    pub(super) fn read(self: &Arc<Self>, after: Option<u64>) -> Reader {
        let reader = {
            let mut state = self.state();
            state.readers += 1;
            let after = after.unwrap_or(state.taken);
            Reader { lane: Arc::clone(self), after, turn: state.readers }
        };
        self.changed.notify_waiters();
        reader
    }
}

/// Whoever reads a stream.
#[derive(Debug)]
pub(super) struct Reader {
    lane: Arc<Lane>,
    after: u64,
    turn: u64,
}

impl Reader {
    /// The next message, or none at the end.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            let lane = Arc::clone(&self.lane);
            let changed = lane.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable(); // what comes after the look must not be missed
            if let Some(ended_or_event) = self.look() {
                return ended_or_event;
            }
            changed.await;
        }
    }

    fn look(&mut self) -> Option<Option<Event>> {
        let mut state = self.lane.state();
        if state.readers != self.turn {
            return Some(None);
        }
        if let Some(event) = state.kept.iter().find(|event| event.index > self.after).cloned() {
            state.taken = state.taken.max(event.index);
            self.after = event.index;
            return Some(Some(event));
        }
        state.is_over.then_some(None)
    }

    /// The stream as it is sent, from what was read already on. It ends when `until` is cancelled.
    pub(super) fn stream(self, first: Option<Event>, priming: bool, until: CancellationToken) -> Answer {
        let lane = self.lane.number;
        let primed = EventId { lane, index: first.as_ref().map_or(self.after, |event| event.index - 1) };
        let prologue = priming.then(|| Bytes::from(format!("id: {primed}\nretry: {RETRY_MS}\ndata: \n\n")));
        let head = stream::iter(prologue.into_iter().chain(first.map(|event| framed(lane, &event))));
        let rest = stream::unfold(self, |mut reader| async move {
            let frame = match timeout(PULSE, reader.next()).await {
                Ok(Some(event)) => framed(reader.lane.number, &event),
                Ok(None) => return None,
                Err(_) => Bytes::from_static(b":\n\n"),
            };
            Some((frame, reader))
        });
        let frames = head.chain(rest.take_until(async move { until.cancelled().await }));
        answer(BoxBody::new(StreamBody::new(frames.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))))))
    }
}

/// A stream that ends at once.
pub(super) fn nothing() -> Answer {
    answer(BoxBody::new(Empty::new()))
}

fn answer(body: BoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::OK;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

/// JSON has no line feed of its own, so a message is one `data` line.
fn framed(lane: u64, event: &Event) -> Bytes {
    let id = EventId { lane, index: event.index }.to_string();
    let mut frame = Vec::with_capacity(event.message.len() + id.len() + 32);
    frame.extend_from_slice(b"event: message\nid: ");
    frame.extend_from_slice(id.as_bytes());
    frame.extend_from_slice(b"\ndata: ");
    frame.extend_from_slice(&event.message);
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn text(event: Option<Event>) -> String {
        event.map_or_else(|| "(end)".into(), |event| String::from_utf8(event.message.to_vec()).unwrap())
    }

    async fn body(answer: Answer) -> String {
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn who_comes_back_reads_on_from_where_it_broke_off() {
        let lane = Lane::new(7);
        for message in ["a", "b", "c"] {
            lane.push(message.into(), message == "c");
        }
        let mut first = lane.read(None);
        assert_eq!(text(first.next().await), "a");
        assert_eq!(text(first.next().await), "b");
        assert_eq!(text(lane.read(None).next().await), "c", "what nobody took");
        assert_eq!(text(first.next().await), "(end)", "another reads");
        let again = lane.read(Some(1)).stream(None, false, CancellationToken::new());
        assert_eq!(
            body(again).await,
            "event: message\nid: 7-2\ndata: b\n\nevent: message\nid: 7-3\ndata: c\n\n"
        );
        lane.push("d".into(), false);
        assert_eq!(text(lane.read(Some(3)).next().await), "(end)", "nothing comes after the answer");
    }

    #[tokio::test]
    async fn a_reader_waits_for_what_is_not_there_yet() {
        let lane = Lane::new(1);
        let mut reader = lane.read(None);
        let reading = tokio::spawn(async move { (text(reader.next().await), text(reader.next().await)) });
        tokio::task::yield_now().await;
        lane.push("a".into(), false);
        tokio::task::yield_now().await;
        lane.end();
        assert_eq!(reading.await.unwrap(), ("a".into(), "(end)".into()));
    }

    #[tokio::test]
    async fn what_is_not_read_is_bounded_and_the_answer_is_never_lost() {
        let lane = Lane::new(1);
        for _ in 0..10_000 {
            lane.push(Bytes::from(vec![b'x'; 1_000]), false);
        }
        lane.push(Bytes::from(vec![b'y'; 2 << 20]), true);
        assert!(lane.bytes() <= 64_000 + (2 << 20), "{}", lane.bytes());
        let mut reader = lane.read(Some(0));
        let mut last = reader.next().await.unwrap();
        assert_eq!(last.index, 10_000 - 62, "the oldest went");
        while let Some(event) = reader.next().await {
            last = event;
        }
        assert!(last.is_last && last.message.len() == 2 << 20);
    }

    #[tokio::test]
    async fn a_stream_begins_with_its_place_where_the_client_knows_of_that_and_ends_when_told() {
        let lane = Lane::new(3);
        let until = CancellationToken::new();
        let answer = lane.read(None).stream(None, true, until.clone());
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
        until.cancel();
        assert_eq!(body(answer).await, "id: 3-0\nretry: 1000\ndata: \n\n");
        assert_eq!(EventId::parse("3-0"), Some(EventId { lane: 3, index: 0 }));
        for wrong in ["", "3", "3-", "-1", "3-x", "99999999999999999999-1"] {
            assert_eq!(EventId::parse(wrong), None, "{wrong}");
        }
    }
}
