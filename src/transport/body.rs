//! A body, read whole: into one buffer, however small the pieces are in which it comes.
//!
//! A piece is a handle of its own to bytes that may be part of a larger buffer: kept, a body of single bytes would
//! take many times the memory of what was sent.

use http_body_util::BodyExt as _;
use hyper::body::{Body, Buf as _, Bytes};

/// Why a body is not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unread {
    /// It is larger than it may be.
    TooLarge,
    /// It did not arrive whole.
    Broken,
}

/// Reads a body of so many bytes at most. What it takes to hold it grows with what has come, not with what is
/// announced.
pub(crate) async fn read_whole<B>(mut body: B, bytes_max: usize) -> Result<Vec<u8>, Unread>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        if piece.remaining() > bytes_max.saturating_sub(whole.len()) {
            return Err(Unread::TooLarge);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    /// A piece of a body, and how many others are kept at the same time.
    struct Piece(&'static [u8], Arc<AtomicUsize>);

    impl AsRef<[u8]> for Piece {
        fn as_ref(&self) -> &[u8] {
            self.0
        }
    }

    impl Drop for Piece {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_body_of_single_bytes_takes_no_more_memory_than_twice_its_bytes() {
        let (kept, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (of_body, of_test) = (Arc::clone(&kept), Arc::clone(&most));
        let pieces = (0..100_000).map(move |_| {
            of_test.fetch_max(of_body.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            Ok::<_, Infallible>(Frame::data(Bytes::from_owner(Piece(b"a", Arc::clone(&of_body)))))
        });
        let whole = read_whole(StreamBody::new(stream::iter(pieces)), 100_000).await.unwrap();
        assert_eq!(whole, [b'a'; 100_000]);
        assert!(whole.capacity() <= 200_000, "{}", whole.capacity());
        let (kept, most) = (kept.load(Ordering::Relaxed), most.load(Ordering::Relaxed));
        assert!(kept == 0 && most <= 2, "{kept} pieces are kept, {most} were");
    }

    #[tokio::test]
    async fn a_body_may_have_as_many_bytes_as_it_may_and_no_more_and_has_to_come_whole() {
        let read = async |pieces: &[Result<&'static [u8], &'static str>]| {
            let frames = pieces.iter().map(|piece| piece.map(|bytes| Frame::data(Bytes::from_static(bytes))));
            read_whole(StreamBody::new(stream::iter(frames.collect::<Vec<_>>())), 4).await
        };
        assert_eq!(read(&[]).await, Ok(vec![]));
        assert_eq!(read(&[Ok(b"ab"), Ok(b""), Ok(b"cd")]).await, Ok(b"abcd".to_vec()));
        assert_eq!(read(&[Ok(b"ab"), Ok(b"cde")]).await, Err(Unread::TooLarge));
        assert_eq!(read(&[Ok(b"abcde")]).await, Err(Unread::TooLarge));
        assert_eq!(read(&[Ok(b"ab"), Err("broken")]).await, Err(Unread::Broken));
    }
}
