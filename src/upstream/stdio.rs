//! Standard input and output of a child process: one message on each line.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
};

use super::{
    Bounds, UpstreamError,
    desk::{Desk, Source},
    links::Wire,
};
use crate::{
    egress::Departure,
    lines::{Line, Lines},
};

/// How many messages may wait to be written.
const WAITING_MAX: usize = 64;

/// How many lines that are no messages a program may write where only messages belong.
const NOISE_LINES_MAX: usize = 1_000;

/// What is written to the child.
pub(super) struct Stdio {
    to_write: mpsc::Sender<Outgoing>,
}

struct Outgoing {
    message: Vec<u8>,
    request: Option<Request>,
}

struct Request {
    id: i64,
    departure: Arc<Departure>,
    sent: Arc<AtomicBool>,
}

impl Stdio {
    /// A line over a writer. It lives until the desk is closed.
    pub(super) fn new(write: impl AsyncWrite + Unpin + Send + 'static, desk: &Arc<Desk>) -> Self {
        let (to_write, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write_all(write, waiting, Arc::clone(desk)));
        Self { to_write }
    }

    /// Sends a request, on its departure: that is looked at right before it is written.
    pub(super) async fn send(
        &self,
        id: i64,
        message: Vec<u8>,
        departure: Arc<Departure>,
        sent: Arc<AtomicBool>,
    ) -> Result<(), UpstreamError> {
        let request = Some(Request { id, departure, sent });
        let closed = |_| UpstreamError::Closed { sent: false };
        self.to_write.send(Outgoing { message, request }).await.map_err(closed)
    }

    /// Sends what nobody waits for. A program that reads nothing does not get it.
    pub(super) fn tell(&self, message: Vec<u8>) {
        let _ = self.to_write.try_send(Outgoing { message, request: None });
    }
}

async fn write_all(
    mut write: impl AsyncWrite + Unpin,
    mut waiting: mpsc::Receiver<Outgoing>,
    desk: Arc<Desk>,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = desk.closed().cancelled() => return,
            next = waiting.recv() => next,
        };
        let Some(Outgoing { mut message, request }) = next else { return };
        if request.is_some_and(|request| !may_leave(&request, &desk)) {
            continue;
        }
        message.push(b'\n');
        let written = async {
            write.write_all(&message).await?;
            write.flush().await
        };
        tokio::select! {
            () = desk.closed().cancelled() => return,
            written = written => if written.is_err() {
                return desk.close();
            },
        }
    }
}

fn may_leave(request: &Request, desk: &Desk) -> bool {
    if !desk.is_waiting(request.id) {
        return false;
    }
    if !request.departure.may_leave() {
        desk.settle(request.id, Err(UpstreamError::Fallen { sent: false }));
        return false;
    }
    request.sent.store(true, Ordering::Release);
    true
}

/// Reads messages until there are no more, or the desk is closed.
///
/// A message that is refused cannot be told whose it is, so all that wait are answered with that. A line that is
/// no JSON object is no message: programs write such lines, and nothing waits for one.
pub(super) async fn read(read: impl AsyncRead + Unpin, bounds: Bounds, desk: Arc<Desk>, wire: Arc<Wire>) {
    let mut lines = Lines::new(read, bounds.message_bytes_max);
    let mut noise = 0;
    loop {
        let line = tokio::select! {
            () = desk.closed().cancelled() => return,
            line = lines.next() => line,
        };
        let refused = match line {
            Ok(Some(Line::Whole(line))) if is_noise(&line) => {
                noise += usize::from(!line.trim_ascii().is_empty());
                if noise > NOISE_LINES_MAX {
                    return desk.close();
                }
                continue;
            }
            Ok(Some(Line::Whole(line))) => desk.receive(&line, Source::Shared, None, &wire),
            Ok(Some(Line::TooLong)) => Err(UpstreamError::TooLarge { bytes_max: bounds.message_bytes_max }),
            Ok(None) | Err(_) => return desk.close(),
        };
        if let Err(error) = refused {
            desk.fail_all(&error);
        }
    }
}

fn is_noise(line: &[u8]) -> bool {
    !line.trim_ascii_start().starts_with(b"{")
}

#[cfg(test)]
mod tests;
