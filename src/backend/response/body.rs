//! The body of an answer, as it arrives: bounded in bytes and in pauses.

use std::io::{self, Write};

use flate2::write::GzDecoder;
use reqwest::Response;
use tokio::{task, time};

use super::head::{Coding, Content, Head};
use crate::backend::{BackendError, CallLimits, TimeLimit, http::classify};

/// How many steps of decoding are taken in a row before other calls have their
/// turn. A step makes 32 KiB at most.
const STEPS_IN_A_ROW_MAX: usize = 8;

/// Reads the body. `Content-Length` can only shorten the refusal, never lift it.
///
/// A body that is not JSON is refused at its first byte, and a stream of
/// events, which may never send one, before that.
pub(super) async fn collect(
    mut response: Response,
    head: &Head,
    limits: CallLimits,
) -> Result<Vec<u8>, BackendError> {
    let limit = limits.response_bytes_max;
    let stated = response.content_length().map(|stated| usize::try_from(stated).unwrap_or(usize::MAX));
    if stated.is_some_and(|stated| stated > limit) {
        return Err(BackendError::TooLarge { limit });
    }
    if head.content == Content::Events && stated != Some(0) {
        return Err(BackendError::NotJson);
    }
    let mut arrived: usize = 0;
    let mut body = Body::new(&head.coding, stated.unwrap_or(0), limit);
    while let Some(chunk) = next(&mut response, limits).await? {
        if head.content != Content::Json && !chunk.is_empty() {
            return Err(BackendError::NotJson);
        }
        arrived = arrived.saturating_add(chunk.len());
        if arrived > limit {
            return Err(BackendError::TooLarge { limit });
        }
        body.push(&chunk).await?;
    }
    if arrived == 0 { Ok(Vec::new()) } else { body.finish() }
}

async fn next(
    response: &mut Response,
    limits: CallLimits,
) -> Result<Option<impl AsRef<[u8]> + std::ops::Deref<Target = [u8]> + use<>>, BackendError> {
    let after = limits.idle_timeout;
    match time::timeout(after, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| classify(&error)),
        Err(_) => Err(BackendError::TimedOut { limit: TimeLimit::Idle, after, sent: true }),
    }
}

/// What has been read of a body.
enum Body {
    Plain(Capped),
    Gzip(Box<GzDecoder<Capped>>),
}

impl Body {
    fn new(coding: &Coding, stated: usize, limit: usize) -> Self {
        match coding {
            Coding::Identity => Self::Plain(Capped::new(stated, limit)),
            Coding::Gzip => Self::Gzip(Box::new(GzDecoder::new(Capped::new(0, limit)))),
        }
    }

    /// Decodes one chunk, in steps: 16 KiB of it can make 16 MiB.
    async fn push(&mut self, mut chunk: &[u8]) -> Result<(), BackendError> {
        let mut steps: usize = 0;
        while !chunk.is_empty() {
            let taken = match self {
                Self::Plain(body) => body.write(chunk),
                Self::Gzip(decoder) => decoder.write(chunk),
            };
            let taken = taken.map_err(|error| self.fault(&error))?;
            // Nothing is taken once the member has ended: what follows is not part of it.
            chunk = chunk.get(taken..).filter(|_| taken > 0).ok_or(BackendError::Undecodable)?;
            steps += 1;
            if steps.is_multiple_of(STEPS_IN_A_ROW_MAX) {
                task::yield_now().await;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, BackendError> {
        match self {
            Self::Plain(body) => Ok(body.bytes),
            Self::Gzip(mut decoder) => match decoder.try_finish() {
                Ok(()) => Ok(std::mem::take(&mut decoder.get_mut().bytes)),
                Err(error) => Err(Self::Gzip(decoder).fault(&error)),
            },
        }
    }

    fn fault(&self, error: &io::Error) -> BackendError {
        let body = match self {
            Self::Plain(body) => body,
            Self::Gzip(decoder) => decoder.get_ref(),
        };
        match error.kind() {
            _ if body.is_over => BackendError::TooLarge { limit: body.limit },
            io::ErrorKind::UnexpectedEof => BackendError::Interrupted,
            _ => BackendError::Undecodable,
        }
    }
}

/// Bytes up to a limit. What would go over it is not kept.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
    is_over: bool,
}

impl Capped {
    fn new(stated: usize, limit: usize) -> Self {
        Self { bytes: Vec::with_capacity(stated), limit, is_over: false }
    }
}

impl Write for Capped {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if piece.len() > self.limit.saturating_sub(self.bytes.len()) {
            self.is_over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
