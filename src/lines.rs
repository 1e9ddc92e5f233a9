//! Lines of bounded length. A longer one is skipped as it arrives, and never held as a whole.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// Reads lines that end with a line feed; what comes after the last of them is no line.
#[derive(Debug)]
pub struct Lines<R> {
    read: BufReader<R>,
    bytes_max: usize,
}

/// What was read.
#[derive(Debug, Eq, PartialEq)]
pub enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// A line that was longer than a line may be; it is gone.
    TooLong,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads lines of at most so many bytes, their ends not counted.
    pub fn new(read: R, bytes_max: usize) -> Self {
        Self { read: BufReader::new(read), bytes_max }
    }

    /// The next line, or none at the end. A wait that is given up loses what was read of a line.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Some(Vec::new());
        loop {
            let available = self.read.fill_buf().await?;
            if available.is_empty() {
                return Ok(None);
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            line = line.filter(|line| line.len() + part.len() <= self.bytes_max);
            if let Some(line) = &mut line {
                line.extend_from_slice(part);
            }
            let consumed = part.len() + usize::from(end.is_some());
            self.read.consume(consumed);
            if end.is_some() {
                return Ok(Some(line.map_or(Line::TooLong, Line::Whole)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], bytes_max: usize) -> Vec<String> {
        let mut lines = Lines::new(text, bytes_max);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(match line {
                Line::Whole(bytes) => String::from_utf8(bytes).unwrap(),
                Line::TooLong => "(too long)".to_owned(),
            });
        }
        all
    }

    #[tokio::test]
    async fn a_line_may_be_as_long_as_the_bound_and_no_longer() {
        assert_eq!(lines(b"abc\nabcd\n\nab\r\nend", 3).await, ["abc", "(too long)", "", "ab\r"]);
    }

    #[tokio::test]
    async fn a_line_beyond_the_bound_is_not_held() {
        let mut text = vec![b'x'; 10 << 20];
        text.extend_from_slice(b"\nnext\n");
        let mut lines = Lines::new(text.as_slice(), 1 << 10);
        assert_eq!(lines.next().await.unwrap(), Some(Line::TooLong));
        assert_eq!(lines.next().await.unwrap(), Some(Line::Whole(b"next".to_vec())));
    }
}
