//! Whether a request says in two ways where its body ends.
//!
//! RFC 9112 §6.1: a request with both `Content-Length` and `Transfer-Encoding` may be an attempt to have two
//! readers see different requests. The HTTP library takes the transfer coding and hides the length, so the
//! bytes are read along here, before it sees them: heads, and bodies only to know where the next head begins.

use std::mem;

/// How much of a line is kept: more than any line that matters has.
const LINE_BYTES_MAX: usize = 64;

/// A reader of one connection's bytes.
#[derive(Debug, Default)]
pub(super) struct Framing {
    place: Place,
    /// The line that is being read, as far as it is kept.
    line: Vec<u8>,
    length: Option<u64>,
    is_coded: bool,
    is_ambiguous: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Place {
    /// Before the first line of a head.
    #[default]
    Between,
    Head,
    /// In bytes of a body or of a chunk, of which so many are left.
    Body(u64),
    /// In the line that says how long a chunk is.
    Size,
    /// In a chunk and the end of its line.
    Chunk(u64),
    Trailers,
    /// After what is no HTTP: the library refuses it.
    Lost,
}

impl Framing {
    /// Whether a request has come that could be read in two ways, or something that cannot be followed.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.is_ambiguous || self.place == Place::Lost
    }

    /// Reads on.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            bytes = match self.place {
                Place::Lost => return,
                Place::Body(left) => self.skip(bytes, left, Place::Body, Place::Between),
                Place::Chunk(left) => self.skip(bytes, left, Place::Chunk, Place::Size),
                Place::Between | Place::Head | Place::Size | Place::Trailers => {
                    if first == b'\n' {
                        self.end_line();
                    } else if self.line.len() < LINE_BYTES_MAX {
                        self.line.push(first);
                    }
                    rest
                }
            };
        }
    }

    fn skip<'a>(
        &mut self,
        bytes: &'a [u8],
        left: u64,
        within: impl Fn(u64) -> Place,
        after: Place,
    ) -> &'a [u8] {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
        self.place = if left == 0 { after } else { within(left) };
        bytes.get(taken..).unwrap_or_default()
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        match self.place {
            Place::Between if line.is_empty() => {} // RFC 9112 §2.2
            Place::Between => self.place = Place::Head,
            Place::Head if line.is_empty() => self.end_head(),
            Place::Head => self.note(line),
            Place::Size => {
                self.place = match chunk_bytes(line) {
                    Some(0) => Place::Trailers,
                    Some(bytes) => Place::Chunk(bytes.saturating_add(2)),
                    None => Place::Lost,
                }
            }
            Place::Trailers if line.is_empty() => self.place = Place::Between,
            Place::Trailers | Place::Body(_) | Place::Chunk(_) | Place::Lost => {}
        }
    }

    fn note(&mut self, line: &[u8]) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_coded = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            // One that cannot be read is refused by the library; with a coding it is still one.
            let value = std::str::from_utf8(value.trim_ascii()).ok();
            self.length = Some(value.and_then(|value| value.parse().ok()).unwrap_or_default());
        }
    }

    fn end_head(&mut self) {
        let (length, is_coded) = (self.length.take(), mem::take(&mut self.is_coded));
        self.is_ambiguous |= is_coded && length.is_some();
        self.place = match length {
            _ if is_coded => Place::Size,
            Some(bytes) if bytes > 0 => Place::Body(bytes),
            _ => Place::Between,
        };
    }
}

/// RFC 9112 §7.1: digits in base 16, and perhaps extensions.
fn chunk_bytes(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let text =
        std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    const POST: &str = "POST /mcp HTTP/1.1\r\nHost: a\r\n";

    fn is_ambiguous(bytes: &[u8]) -> bool {
        let mut framing = Framing::default();
        framing.read(bytes);
        framing.is_ambiguous()
    }

    #[test]
    fn a_length_and_a_coding_in_one_head_are_ambiguous_and_in_two_heads_are_not() {
        let (length, coding) = ("Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n");
        for lines in [format!("{length}{coding}"), format!("{coding}{length}").replace("\r\n", "\n")] {
            assert!(is_ambiguous(format!("{POST}{lines}\r\n").as_bytes()), "{lines}");
        }
        let chunked = format!("{POST}{coding}\r\n3;a=b\r\nabc\r\n0\r\nContent-Length: 1\r\n\r\n");
        let sized = format!("\r\n{POST}{length}\r\nabc");
        assert!(!is_ambiguous(format!("{chunked}{sized}{chunked}{sized}").as_bytes()));
    }

    #[test]
    fn what_a_body_says_is_no_header() {
        let said = "x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let sized = format!("{POST}Content-Length: {}\r\n\r\n{said}", said.len());
        let chunked =
            format!("{POST}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{said}\r\n0\r\n\r\n", said.len());
        let both = format!("{POST}{}", said.trim_start_matches("x\r\n"));
        for before in [&sized, &chunked] {
            assert!(!is_ambiguous(before.as_bytes()), "{before}");
            assert!(is_ambiguous(format!("{before}{both}").as_bytes()), "{before}");
        }
    }

    #[test]
    fn what_cannot_be_followed_counts_as_ambiguous() {
        let head = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
        for size in ["", "-1", "+1", "zz", "11111111111111111"] {
            assert!(is_ambiguous(format!("{head}{size}\r\n").as_bytes()), "{size:?}");
        }
    }

    const PARTS: [&str; 10] = [
        POST,
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "\r\n",
        "\n",
        "3\r\n",
        "abc",
        "0\r\n",
        ":",
        "A: b\r\n",
    ];

    proptest! {
        #[test]
        fn it_makes_no_difference_how_the_bytes_arrive(
            parts in vec(select(PARTS.as_slice()), 1..30), cut in 1_usize..40
        ) {
            let bytes = parts.concat().into_bytes();
            let mut framing = Framing::default();
            bytes.chunks(cut).for_each(|chunk| framing.read(chunk));
            prop_assert_eq!(framing.is_ambiguous(), is_ambiguous(&bytes));
        }
    }
}
