//! The connections of a listener: how many, how slow, and how they end.
//!
//! A connection waits for a request's head, then works on it, then writes the answer. Each of these has
//! a deadline, except the work, whose parts have their own. All of it happens in one task per
//! connection, so that a connection that misbehaves is dropped with everything it holds.

use std::{
    convert::Infallible, future::poll_fn, io, net::SocketAddr, num::NonZeroU32, pin::pin, sync::Arc,
    task::Poll, time::Duration,
};

use http::{Request, StatusCode, header};
use http_body_util::combinators::BoxBody;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    front::Front,
    guests::Guests,
    pace::{Line, Pace, Phase, paced},
    refusal::{Answer, BUSY, INVALID_REQUEST, Refusal},
    tls::{Greeting, Tls},
    visitor::Visitor,
};

/// How large the head of a request may be.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// How many headers a request may have.
const HEADERS_MAX: usize = 100;

/// How long an answer may take to be read by its client.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// How many connections beyond the cap are told so at once; the rest are closed without a word, as all of
/// them are where telling them would take a handshake.
const TURNED_AWAY_MAX: usize = 128;

/// How long a new connection waits for the place of an idle one.
const MADE_WAY_WITHIN: Duration = Duration::from_secs(1);

/// How long a connection that is turned away may take to be told so.
const TURNED_AWAY_FOR: Duration = Duration::from_secs(1);

/// How long requests in flight may take to finish once the listener stops.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How long the listener rests when the system has no more file descriptors.
const REST: Duration = Duration::from_millis(100);

/// The listener's bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) connections_max: NonZeroU32,
    /// For the head of a request.
    pub(super) head: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
}

/// Serves until `stop` is cancelled, then lets requests in flight finish, for a while.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    front: Arc<Front>,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(permits(bounds.connections_max)));
    let doormat = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let connections = TaskTracker::new();
    let mut guests = Guests::default();
    loop {
        let (stream, source) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    rest_after(&error).await;
                    continue;
                }
            },
        };
        // Without it a reply may wait 40 ms for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let free = Arc::clone(&room).try_acquire_owned().ok();
        let on_mat = if free.is_none() { Arc::clone(&doormat).try_acquire_owned().ok() } else { None };
        if free.is_none() && on_mat.is_none() {
            front.count(source, "connections_full");
            continue;
        }
        let is_awaited = free.is_none() && guests.one_makes_way();
        let pace = Pace::begin(bounds.head, bounds.idle, WRITE_MAX);
        guests.let_in(&pace);
        let (tls, front, stop) = (tls.clone(), Arc::clone(&front), stop.clone());
        let newcomer = Newcomer { stream, source, tls, front, pace, stop };
        let room = is_awaited.then(|| Arc::clone(&room));
        connections.spawn(async move {
            let made_way = async {
                let room = room?;
                timeout(MADE_WAY_WITHIN, room.acquire_owned()).await.ok()?.ok()
            };
            match free {
                Some(permit) => newcomer.welcome(permit).await,
                None => match made_way.await {
                    Some(permit) => {
                        drop(on_mat); // others may wait there
                        newcomer.welcome(permit).await;
                    }
                    None => newcomer.turn_away(on_mat).await,
                },
            }
        });
    }
    drop(listener);
    connections.close();
    // A connection that never ends its request does not keep the process; its call goes on by itself.
    let _ = timeout(DRAIN_MAX, connections.wait()).await;
}

pub(super) fn permits(max: NonZeroU32) -> usize {
    usize::try_from(max.get()).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// A client that gave up is none of our business; a system without file descriptors needs time.
async fn rest_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::warn!(%error, "no connection could be accepted");
        sleep(REST).await;
    }
}

/// A connection that was accepted.
struct Newcomer {
    stream: TcpStream,
    source: SocketAddr,
    tls: Option<Arc<Tls>>,
    front: Arc<Front>,
    pace: Arc<Pace>,
    stop: CancellationToken,
}

impl Newcomer {
    /// Serves the connection.
    async fn welcome(self, permit: OwnedSemaphorePermit) {
        let Self { stream, source, tls, front, pace, stop } = self;
        let Some(tls) = tls else {
            converse(stream, Visitor::of(source), front, pace, stop).await;
            return drop(permit);
        };
        let greeting = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // The head's own deadline: a handshake takes its time from it.
            () = sleep_until(pace.deadline().unwrap_or_else(Instant::now)) => Greeting::Refused("handshake_timeout"),
            greeting = tls.greet(stream) => greeting,
        };
        match greeting {
            Greeting::Known(stream, certificate) => {
                let visitor = Visitor { source, certificate };
                converse(stream, visitor, front, pace, stop).await;
                drop(permit);
            }
            Greeting::Plain(stream) => {
                front.count(source, "plain_http");
                turn_away(stream, plain(), stop, permit).await;
            }
            Greeting::Refused(word) => front.count(source, word),
            Greeting::Left => {}
        }
    }

    /// Says that there is no room, where that takes no handshake.
    async fn turn_away(self, on_mat: Option<OwnedSemaphorePermit>) {
        self.front.count(self.source, "connections_full");
        if let Some(permit) = on_mat.filter(|_| self.tls.is_none()) {
            turn_away(self.stream, full(), self.stop, permit).await;
        }
    }
}

/// Answers the requests of one connection.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    visitor: Visitor,
    front: Arc<Front>,
    pace: Arc<Pace>,
    stop: CancellationToken,
) {
    let (visitor, of_service) = (Arc::new(visitor), Arc::clone(&pace));
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, visitor, pace) = (Arc::clone(&front), Arc::clone(&visitor), Arc::clone(&of_service));
        async move {
            pace.enter(Phase::Working);
            let answer = front.answer(&visitor, request, &pace).await;
            Ok::<_, Infallible>(paced(answer, pace))
        }
    });
    let connection = builder().serve_connection(TokioIo::new(Line::new(stream, Arc::clone(&pace))), service);
    drive(connection, &pace, stop).await;
    pace.enter(Phase::Closing); // what has ended waits for nothing
}

/// What the one request of a connection may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OneRequest {
    /// How large its head may be.
    pub(crate) head_bytes_max: usize,
    /// How many headers it may have.
    pub(crate) headers_max: usize,
    /// How long its head may take to arrive.
    pub(crate) head: Duration,
}

/// A request that says in two ways where its body ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ambiguous;

/// Answers one request of a connection, whose head is read as exactly as that of any.
pub(crate) async fn answer_one<F>(
    stream: TcpStream,
    bounds: OneRequest,
    stop: CancellationToken,
    answer: impl Fn(Result<Request<Incoming>, Ambiguous>) -> F,
) where
    F: Future<Output = Answer>,
{
    let pace = Pace::begin(bounds.head, bounds.head, WRITE_MAX);
    let service = service_fn(|request: Request<Incoming>| {
        pace.enter(Phase::Working);
        let is_ambiguous = pace.is_ambiguous() && request.headers().contains_key(header::TRANSFER_ENCODING);
        if is_ambiguous {
            pace.leave_unread();
        }
        let answered = answer(if is_ambiguous { Err(Ambiguous) } else { Ok(request) });
        let pace = Arc::clone(&pace);
        async move { Ok::<_, Infallible>(paced(answered.await, pace)) }
    });
    let line = TokioIo::new(Line::new(stream, Arc::clone(&pace)));
    let mut builder = exact(bounds.head_bytes_max, bounds.headers_max);
    drive(builder.keep_alive(false).serve_connection(line, service), &pace, stop).await;
}

fn full() -> Refusal {
    let message = "the server has no room for more connections";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, "connections_full", message)
}

fn plain() -> Refusal {
    let message = "this port speaks HTTPS, and the request came in plain HTTP";
    Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "plain_http", message)
}

/// Tells one client why it is not served.
async fn turn_away(stream: TcpStream, why: Refusal, stop: CancellationToken, permit: OwnedSemaphorePermit) {
    let pace = Pace::begin(TURNED_AWAY_FOR, TURNED_AWAY_FOR, TURNED_AWAY_FOR);
    let (of_service, why) = (Arc::clone(&pace), Arc::new(why));
    let service = service_fn(move |_: Request<Incoming>| {
        let (pace, why) = (Arc::clone(&of_service), Arc::clone(&why));
        async move {
            pace.leave_unread();
            Ok::<_, Infallible>(paced(why.answer(&Value::Null), pace))
        }
    });
    let line = TokioIo::new(Line::new(stream, Arc::clone(&pace)));
    drive(builder().keep_alive(false).serve_connection(line, service), &pace, stop).await;
    drop(permit);
}

fn builder() -> http1::Builder {
    exact(HEAD_BYTES_MAX, HEADERS_MAX)
}

fn exact(head_bytes_max: usize, headers_max: usize) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The deadlines are the pace's: this one would count an idle connection's time as a head's.
    builder.header_read_timeout(None).max_headers(headers_max);
    // The first is what is kept of what came, give or take; the second is exact.
    builder.max_buf_size(head_bytes_max).max_header_size(head_bytes_max);
    builder
}

/// Runs a connection until it ends, is too slow, or is idle when the listener stops.
async fn drive<L, S>(connection: http1::Connection<TokioIo<Line<L>>, S>, pace: &Pace, stop: CancellationToken)
where
    L: AsyncRead + AsyncWrite + Unpin,
    S: hyper::service::HttpService<Incoming, ResBody = BoxBody<Bytes, Infallible>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = pin!(connection);
    let mut alarm = pin!(sleep(Duration::ZERO));
    let mut stopped = pin!(stop.cancelled());
    let mut stopping = false;
    let mut hung_up = pin!(pace.hung_up().cancelled());
    let mut hanging_up = false;
    let mut made_way = pin!(pace.makes_way().cancelled());
    let mut making_way = false;
    poll_fn(|context| {
        if !hanging_up && hung_up.as_mut().poll(context).is_ready() {
            hanging_up = true;
            pace.enter(Phase::Closing); // whoever reads still learns that this is the end
            connection.as_mut().graceful_shutdown(); // and sends nothing more on it
        }
        if !stopping && stopped.as_mut().poll(context).is_ready() {
            stopping = true;
            if pace.is_waiting() {
                return Poll::Ready(());
            }
            connection.as_mut().graceful_shutdown();
        }
        if connection.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        // Once what has come is read: a request that is there is answered.
        if !making_way && made_way.as_mut().poll(context).is_ready() {
            making_way = true;
            if pace.is_idle() {
                return Poll::Ready(());
            }
            connection.as_mut().graceful_shutdown();
            context.waker().wake_by_ref();
        }
        let Some(deadline) = pace.deadline() else { return Poll::Pending };
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        alarm.as_mut().poll(context)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::{pin::Pin, sync::Mutex, task::Context};

    use http::HeaderValue;
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::{Body, Frame};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{super::pace::LINGER_MAX, *};

    /// Serves one connection with an answer of 32 MiB, and says how long it was served.
    async fn serve_large(write: Duration) -> (TcpStream, tokio::task::JoinHandle<Duration>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let serving = tokio::spawn(async move {
            let pace = Pace::begin(Duration::from_secs(5), Duration::from_millis(300), write);
            let of_service = Arc::clone(&pace);
            let service = service_fn(move |_: Request<Incoming>| {
                let pace = Arc::clone(&of_service);
                async move {
                    pace.enter(Phase::Working);
                    let large = Full::new(Bytes::from(vec![b'x'; 32 << 20])).boxed();
                    Ok::<_, Infallible>(paced(Answer::new(large), pace))
                }
            });
            let line = TokioIo::new(Line::new(stream, Arc::clone(&pace)));
            let began = Instant::now();
            drive(builder().serve_connection(line, service), &pace, CancellationToken::new()).await;
            began.elapsed()
        });
        (client, serving)
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_answer_is_dropped() {
        let (mut client, serving) = serve_large(Duration::from_millis(400)).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let served = serving.await.unwrap().as_millis();
        assert!((350..1000).contains(&served), "{served}");
    }

    /// Serves one connection with a stream that has an event every 20 ms, and says how long it was served.
    async fn serve_stream(event_bytes: usize) -> (TcpStream, Arc<Pace>, tokio::task::JoinHandle<Duration>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let long = Duration::from_secs(20);
        let pace = Pace::begin(long, long, Duration::from_millis(400));
        let of_test = Arc::clone(&pace);
        let serving = tokio::spawn(async move {
            let of_service = Arc::clone(&pace);
            let service = service_fn(move |_: Request<Incoming>| {
                let pace = Arc::clone(&of_service);
                async move {
                    pace.enter(Phase::Working);
                    let events = futures::stream::unfold(0, move |sent| async move {
                        sleep(Duration::from_millis(20)).await;
                        (sent < 100)
                            .then(|| (Ok(Frame::data(Bytes::from(vec![b'#'; event_bytes]))), sent + 1))
                    });
                    let events = http_body_util::StreamBody::new(events);
                    let mut answer = Answer::new(SyncBody(Mutex::new(Box::pin(events))).boxed());
                    let kind = HeaderValue::from_static("text/event-stream");
                    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                    Ok::<_, Infallible>(paced(answer, pace))
                }
            });
            let line = TokioIo::new(Line::new(stream, Arc::clone(&pace)));
            let began = Instant::now();
            drive(builder().serve_connection(line, service), &pace, CancellationToken::new()).await;
            began.elapsed()
        });
        (client, of_test, serving)
    }

    type Events = Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>;
    struct SyncBody(Mutex<Events>);
    impl Body for SyncBody {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.get_mut().0.get_mut().unwrap().as_mut().poll_frame(context)
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_stream_is_dropped() {
        let (mut client, _pace, serving) = serve_stream(1 << 20).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let served = serving.await.unwrap().as_millis();
        assert!((350..1900).contains(&served), "{served}");
    }

    #[tokio::test]
    async fn a_connection_that_is_hung_up_ends_whether_its_client_reads_or_not() {
        for reads in [true, false] {
            let (mut client, pace, serving) = serve_stream(if reads { 10 } else { 1 << 20 }).await;
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            client.read_exact(&mut [0; 12]).await.unwrap();
            sleep(Duration::from_millis(100)).await;
            pace.hang_up();
            let hung_up = Instant::now();
            if reads {
                let mut rest = Vec::new();
                client.read_to_end(&mut rest).await.unwrap();
                assert!(rest.ends_with(b"\r\n0\r\n\r\n"), "it is told that this is the end");
            }
            serving.await.unwrap();
            let max = if reads { Duration::from_millis(100) } else { LINGER_MAX * 2 };
            assert!(hung_up.elapsed() < max, "{:?}", hung_up.elapsed());
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_read_may_last_longer_than_an_answer() {
        let (mut client, _pace, serving) = serve_stream(10).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.iter().filter(|byte| **byte == b'#').count(), 1000);
        assert!(serving.await.unwrap() > Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_client_that_reads_all_of_it_has_the_idle_time_after_it() {
        let (mut client, serving) = serve_large(Duration::from_secs(20)).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert!(all.len() > 32 << 20);
        assert!(
            serving.await.unwrap() < Duration::from_secs(10),
            "it did not wait for its writing to time out"
        );
    }

    #[tokio::test]
    async fn a_stream_may_be_silent_for_longer_than_its_parts_may_take_to_be_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let pace =
                Pace::begin(Duration::from_secs(5), Duration::from_millis(50), Duration::from_millis(200));
            let of_service = Arc::clone(&pace);
            let service = service_fn(move |_: Request<Incoming>| {
                let pace = Arc::clone(&of_service);
                async move {
                    pace.enter(Phase::Working);
                    let parts = futures::stream::unfold(0, |at| async move {
                        sleep(Duration::from_millis(if at == 0 { 0 } else { 600 })).await;
                        let part = Frame::data(Bytes::from(format!("part{at};")));
                        (at < 3).then_some((Ok::<_, Infallible>(part), at + 1))
                    });
                    let mut answer = Answer::new(BoxBody::new(http_body_util::StreamBody::new(parts)));
                    let kind = HeaderValue::from_static("text/event-stream");
                    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                    Ok::<_, Infallible>(paced(answer, pace))
                }
            });
            let line = TokioIo::new(Line::new(stream, Arc::clone(&pace)));
            drive(builder().serve_connection(line, service), &pace, CancellationToken::new()).await;
        });
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        for part in ["part0;", "part1;", "part2;"] {
            assert!(all.contains(part), "{all}");
        }
    }
}
