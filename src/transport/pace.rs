//! What a connection is doing, and until when it may.
//!
//! The bytes of a connection tell its pace, and so does the answer that is written: what is too slow ends.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderValue, header};
use http_body_util::{BodyExt as _, combinators::BoxBody};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{framing::Framing, refusal::Answer};

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// How long a connection is still read from after its last answer, so that a client that was sending
/// reads the answer before it learns that the connection is closed.
pub(super) const LINGER_MAX: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Reading the head of a request.
    Head,
    /// Working on a request.
    Working,
    /// Writing an answer.
    Writing,
    /// Writing an answer whose parts come when they come; each has its own time to be read.
    Streaming,
    /// The whole answer is made, and perhaps not yet written.
    Made,
    /// Waiting for a next request.
    Idle,
    /// Ending.
    Closing,
}

/// What a connection is doing, and until when it may.
#[derive(Debug)]
pub(super) struct Pace {
    head: Duration,
    idle: Duration,
    write: Duration,
    now: Mutex<Now>,
    hung_up: CancellationToken,
    makes_way: CancellationToken,
}

#[derive(Debug)]
struct Now {
    phase: Phase,
    deadline: Option<Instant>,
    /// A request's body was not read to its end.
    unread: bool,
    /// A request could be read in two ways.
    ambiguous: bool,
}

impl Pace {
    pub(super) fn begin(head: Duration, idle: Duration, write: Duration) -> Arc<Self> {
        let now = Now {
            phase: Phase::Head,
            deadline: Some(Instant::now() + head),
            unread: false,
            ambiguous: false,
        };
        let (hung_up, makes_way) = Default::default();
        Arc::new(Self { head, idle, write, now: Mutex::new(now), hung_up, makes_way })
    }

    /// Says that a request is answered without its body being read.
    pub(super) fn leave_unread(&self) {
        self.now().unread = true;
    }

    /// Says that the body was read after all.
    pub(super) fn read_all(&self) {
        self.now().unread = false;
    }

    /// Whether a request has come that could be read in two ways. It is its connection's last.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.now().ambiguous
    }

    /// Ends the connection now, whether its client reads or not.
    pub(super) fn hang_up(&self) {
        self.hung_up.cancel();
    }

    /// Cancelled when the connection is to end now.
    pub(super) const fn hung_up(&self) -> &CancellationToken {
        &self.hung_up
    }

    /// Asks the connection to end if it still waits for a next request, and else after the answer to that.
    pub(super) fn make_way(&self) {
        self.makes_way.cancel();
    }

    /// Cancelled when the connection is to make way for another.
    pub(super) const fn makes_way(&self) -> &CancellationToken {
        &self.makes_way
    }

    /// Until when the connection waits for a next request, where it does, and makes way for nobody yet.
    pub(super) fn idle_until(&self) -> Option<Instant> {
        let now = self.now();
        now.deadline.filter(|_| now.phase == Phase::Idle && !self.makes_way.is_cancelled())
    }

    /// Whether the client has not read all that was written.
    pub(super) fn is_behind(&self) -> bool {
        let now = self.now();
        now.phase == Phase::Streaming && now.deadline.is_some()
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, phase: Phase) {
        let mut now = self.now();
        let span = match phase {
            Phase::Head => Some(self.head),
            Phase::Working => None,
            Phase::Writing | Phase::Streaming => Some(self.write),
            Phase::Made => {
                now.phase = phase; // in the time that is left for writing
                return;
            }
            Phase::Idle => Some(self.idle),
            Phase::Closing => Some(LINGER_MAX),
        };
        if phase == Phase::Working {
            now.unread = false;
        }
        now.phase = phase;
        now.deadline = span.map(|span| Instant::now() + span);
    }

    fn enter_from(&self, from: Phase, to: Phase) {
        if self.now().phase == from {
            self.enter(to);
        }
    }

    /// What was written has left.
    fn flushed(&self) {
        let mut now = self.now();
        if now.phase == Phase::Streaming {
            now.deadline = None;
        }
        drop(now);
        self.enter_from(Phase::Made, Phase::Idle);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.now().deadline
    }

    /// Whether a request was answered, and no other has begun.
    pub(super) fn is_idle(&self) -> bool {
        self.now().phase == Phase::Idle
    }

    /// Whether no request is being worked on.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.now().phase, Phase::Head | Phase::Idle)
    }
}

/// A connection's bytes, which tell its pace.
pub(super) struct Line<S> {
    stream: S,
    pace: Arc<Pace>,
    framing: Framing,
    shut: bool,
}

impl<S> Line<S> {
    pub(super) fn new(stream: S, pace: Arc<Pace>) -> Self {
        Self { stream, pace, framing: Framing::default(), shut: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            self.pace.enter_from(Phase::Idle, Phase::Head);
            self.framing.read(read);
            if self.framing.is_ambiguous() {
                self.pace.now().ambiguous = true;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.pace.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.shut = true;
            self.pace.enter(Phase::Closing);
        }
        if !self.pace.now().unread {
            return Poll::Ready(Ok(()));
        }
        // What a client still sends is thrown away: closing on it would also throw the answer away.
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// An answer whose client has a while to read it.
pub(super) fn paced(mut answer: Answer, pace: Arc<Pace>) -> Answer {
    if pace.now().unread {
        // The connection ends if the body is not there yet: a client that is not told sends its next request
        // into the void.
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    pace.enter(if is_stream(&answer) { Phase::Streaming } else { Phase::Writing });
    answer.map(|body| PacedBody { body, pace }.boxed())
}

/// Whether an answer is a stream of events.
pub(super) fn is_stream(answer: &Answer) -> bool {
    answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(EVENT_STREAM))
}

struct PacedBody {
    body: BoxBody<Bytes, Infallible>,
    pace: Arc<Pace>,
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.pace.hung_up.is_cancelled() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        // The connection takes the next event when the one before has left, but for some kilobytes.
        self.pace.enter_from(Phase::Streaming, Phase::Streaming);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for PacedBody {
    fn drop(&mut self) {
        // A stream has its last event to write.
        self.pace.enter_from(Phase::Streaming, Phase::Writing);
        self.pace.enter_from(Phase::Writing, Phase::Made);
    }
}
