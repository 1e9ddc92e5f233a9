//! Reading an answer's body, up to a bound.

use reqwest::Response;

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BodyError {
    /// It broke off.
    Broken,
    /// It is larger than may be.
    TooLarge,
}

/// Reads what is left of a body into a buffer, which may then hold so many bytes. The buffer is the caller's, who
/// may want to wipe it.
pub(crate) async fn read_body(
    response: &mut Response,
    buffer: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(), BodyError> {
    while let Some(chunk) = response.chunk().await.map_err(|_| BodyError::Broken)? {
        if buffer.len() + chunk.len() > bytes_max {
            return Err(BodyError::TooLarge);
        }
        buffer.extend_from_slice(&chunk);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_much_is_read_as_may_be_and_no_more() {
        for (bytes_max, read) in [(5, Ok(())), (4, Err(BodyError::TooLarge)), (0, Err(BodyError::TooLarge))] {
            let mut response = Response::from(http::Response::new("hello"));
            let mut buffer = Vec::new();
            assert_eq!(read_body(&mut response, &mut buffer, bytes_max).await, read, "{bytes_max}");
            assert_eq!(buffer == b"hello", read.is_ok(), "{bytes_max}");
        }
    }
}
