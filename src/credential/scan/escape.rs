//! Escapes of a text, undone.

use std::ops::Range;

use memchr::memchr;

/// A way to write a text's characters as others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Escape {
    /// `\"`, `\n`, `\u00e9`, and the like of Rust's debug texts: `\u{e9}`, `\x1f`.
    Json,
    /// `%2F`, `%2f`.
    Percent,
    /// `+` for a space, as forms have it.
    Plus,
}

/// A part of a text, and what it stands for.
struct Piece<'a> {
    written: usize,
    means: Meaning<'a>,
}

enum Meaning<'a> {
    Itself(&'a [u8]),
    Bytes([u8; 4], usize),
}

impl Escape {
    /// The text that is meant; none where nothing is escaped.
    pub(super) fn undo(self, text: &[u8]) -> Option<Vec<u8>> {
        memchr(self.mark(), text)?;
        let (mut meant, mut is_escaped) = (Vec::with_capacity(text.len()), false);
        for piece in self.pieces(text) {
            is_escaped |= matches!(piece.means, Meaning::Bytes(..));
            meant.extend(piece.means.bytes());
        }
        is_escaped.then_some(meant)
    }

    /// Where a range of the text that is meant is written.
    pub(super) fn source(self, text: &[u8], meant: &Range<usize>) -> Range<usize> {
        let (mut written, mut passed) = (0, 0);
        let (mut start, mut end) = (0, text.len());
        for piece in self.pieces(text) {
            let length = piece.means.bytes().len();
            let is_itself = matches!(piece.means, Meaning::Itself(_));
            let within = passed..passed + length;
            if within.contains(&meant.start) {
                start = written + if is_itself { meant.start - passed } else { 0 };
            }
            if within.contains(&meant.end.saturating_sub(1)) {
                end = written + if is_itself { meant.end - passed } else { piece.written };
                break;
            }
            written += piece.written;
            passed += length;
        }
        start..end
    }

    const fn mark(self) -> u8 {
        match self {
            Self::Json => b'\\',
            Self::Percent => b'%',
            Self::Plus => b'+',
        }
    }

    fn pieces(self, text: &[u8]) -> impl Iterator<Item = Piece<'_>> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let piece = match memchr(self.mark(), rest) {
                _ if rest.is_empty() => return None,
                Some(0) => self.escaped(rest).map_or_else(
                    || Piece::itself(rest.get(..1).unwrap_or_default()),
                    |(written, bytes, length)| Piece { written, means: Meaning::Bytes(bytes, length) },
                ),
                until => Piece::itself(until.and_then(|until| rest.get(..until)).unwrap_or(rest)),
            };
            rest = rest.get(piece.written..).unwrap_or_default();
            Some(piece)
        })
    }

    /// What the escape at the start of the text means, if it is one: how long it is, the bytes, how many.
    fn escaped(self, text: &[u8]) -> Option<(usize, [u8; 4], usize)> {
        let byte = |written, byte| Some((written, [byte, 0, 0, 0], 1));
        match self {
            Self::Plus => byte(1, b' '),
            Self::Percent => byte(3, u8::try_from(hex(text.get(1..3)?)?).ok()?),
            Self::Json => match text.get(1)? {
                same @ (b'"' | b'\\' | b'/' | b'\'') => byte(2, *same),
                b'b' => byte(2, 8),
                b't' => byte(2, b'\t'),
                b'n' => byte(2, b'\n'),
                b'f' => byte(2, 12),
                b'r' => byte(2, b'\r'),
                b'0' => byte(2, 0),
                b'x' => byte(4, u8::try_from(hex(text.get(2..4)?)?).ok()?),
                b'u' => {
                    let (written, code) = code_point(text)?;
                    let mut bytes = [0; 4];
                    let length = char::from_u32(code)?.encode_utf8(&mut bytes).len();
                    Some((written, bytes, length))
                }
                _ => None,
            },
        }
    }
}

impl<'a> Piece<'a> {
    const fn itself(text: &'a [u8]) -> Self {
        Self { written: text.len(), means: Meaning::Itself(text) }
    }
}

impl Meaning<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Itself(text) => text,
            Self::Bytes(bytes, length) => bytes.get(..*length).unwrap_or_default(),
        }
    }
}

/// The code point of `\u00e9`, `\ud83d\ude00` or `\u{e9}`, and how long it is as written.
fn code_point(text: &[u8]) -> Option<(usize, u32)> {
    if text.get(2) == Some(&b'{') {
        let digits = text.get(3..)?.iter().take(7).position(|byte| *byte == b'}')?;
        return Some((digits + 4, hex(text.get(3..3 + digits)?)?));
    }
    let unit = hex(text.get(2..6)?)?;
    if !(0xD800..0xDC00).contains(&unit) {
        return Some((6, unit));
    }
    let low = text.get(6..12)?.strip_prefix(b"\\u").and_then(hex)?;
    (0xDC00..0xE000).contains(&low).then(|| (12, 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)))
}

fn hex(digits: &[u8]) -> Option<u32> {
    let value = |value: u32, digit: &u8| Some(value * 16 + char::from(*digit).to_digit(16)?);
    if digits.is_empty() { None } else { digits.iter().try_fold(0, value) }
}
