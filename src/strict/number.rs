//! Numbers: the grammar of RFC 8259 §6, and whether a parser keeps what was written.

use std::fmt::{self, Write as _};

use super::{Fault, Rule};

/// Any decimal of so many digits survives an `f64` (C's `DBL_DIG`), if it is in the range
/// where an `f64` has its full precision.
const DIGITS_ALWAYS_KEPT: usize = 15;

/// The decimal exponents at which an `f64` has its full precision.
const FULL_PRECISION: std::ops::RangeInclusive<i64> = -307..=307;

/// No `f64` has more significant digits: behind them, all are zero.
const DIGITS_MAX: usize = 767;

/// Checks the number at `at`, and returns where it ends.
pub(super) fn check(bytes: &[u8], at: usize) -> Result<usize, Fault> {
    let mut cursor = Cursor { bytes, at };
    let literal = cursor.literal().ok_or_else(|| Rule::Syntax.at(cursor.at))?;
    if literal.survives() { Ok(cursor.at) } else { Err(Rule::Number.at(at)) }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Reads a literal. If there is none, stops at the byte that is wrong.
    #[inline]
    fn literal(&mut self) -> Option<Literal<'a>> {
        let start = self.at;
        let negative = self.skip(|byte| byte == b'-');
        let whole = self.digits()?;
        if whole.len() > 1 && whole.first() == Some(&b'0') {
            self.at = start + usize::from(negative) + 1;
            return None;
        }
        let mut fraction: &[u8] = &[];
        let mut is_integer = true;
        if self.skip(|byte| byte == b'.') {
            is_integer = false;
            fraction = self.digits()?;
        }
        let mut exponent = 0;
        if self.skip(|byte| byte == b'e' || byte == b'E') {
            is_integer = false;
            let negative = self.byte() == Some(b'-');
            self.skip(|byte| byte == b'-' || byte == b'+');
            exponent = saturating(self.digits()?);
            if negative {
                exponent = -exponent;
            }
        }
        let text = self.bytes.get(start..self.at)?;
        Some(Literal { text, negative, whole, fraction, exponent, is_integer })
    }

    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) -> bool {
        let found = self.byte().is_some_and(wanted);
        self.at += usize::from(found);
        found
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.bytes.get(start..self.at).filter(|digits| !digits.is_empty())
    }
}

/// The value of an exponent's digits, or a number that is far too large.
fn saturating(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |value: i64, digit| {
        if value > 1_000_000_000_000 { value } else { value * 10 + i64::from(digit - b'0') }
    })
}

/// A number as written.
struct Literal<'a> {
    text: &'a [u8],
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
    is_integer: bool,
}

impl Literal<'_> {
    #[inline]
    fn survives(&self) -> bool {
        if self.is_integer { self.fits_integer() } else { self.fits_float() }
    }

    fn fits_integer(&self) -> bool {
        self.whole.len() <= 18
            || if self.negative { self.parse::<i64>().is_some() } else { self.parse::<u64>().is_some() }
    }

    fn fits_float(&self) -> bool {
        let zeros = if self.whole == b"0" {
            1 + self.fraction.iter().take_while(|digit| **digit == b'0').count()
        } else {
            0
        };
        let digits = self.whole.len() + self.fraction.len() - zeros;
        if digits == 0 {
            return true; // zero, whatever the exponent
        }
        // The exponent as it would be with one digit before the point.
        let exponent = self.whole.len() as i64 - 1 - zeros as i64 + self.exponent;
        (digits <= DIGITS_ALWAYS_KEPT
            && FULL_PRECISION.contains(&exponent)
            && FULL_PRECISION.contains(&self.exponent))
            || self.is_echoed(zeros, digits, exponent)
    }

    /// Whether the nearest `f64`, printed with this many digits, is what was written.
    #[cold]
    fn is_echoed(&self, zeros: usize, digits: usize, exponent: i64) -> bool {
        let Some(value) = self.parse::<f64>().filter(|value| value.is_finite()) else {
            return false;
        };
        let mut rest = self.whole.iter().chain(self.fraction).skip(zeros + DIGITS_MAX);
        if digits > DIGITS_MAX && rest.any(|digit| *digit != b'0') {
            return false;
        }
        let written = self.whole.iter().chain(self.fraction).skip(zeros);
        let mut echo = Echo { written, in_exponent: false, exponent: 0, exponent_negative: false };
        write!(echo, "{:.*e}", digits.min(DIGITS_MAX) - 1, value.abs()).is_ok() && echo.exponent() == exponent
    }

    fn parse<T: std::str::FromStr>(&self) -> Option<T> {
        str::from_utf8(self.text).ok()?.parse().ok()
    }
}

/// Compares what is printed to it with the digits that were written; stops at a difference.
struct Echo<D> {
    written: D,
    in_exponent: bool,
    exponent: i64,
    exponent_negative: bool,
}

impl<D> Echo<D> {
    fn exponent(&self) -> i64 {
        if self.exponent_negative { -self.exponent } else { self.exponent }
    }
}

impl<'a, D: Iterator<Item = &'a u8>> fmt::Write for Echo<D> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match byte {
                b'e' => self.in_exponent = true,
                b'-' => self.exponent_negative = true,
                b'0'..=b'9' if self.in_exponent => {
                    self.exponent = self.exponent * 10 + i64::from(byte - b'0');
                }
                b'0'..=b'9' if self.written.next() != Some(&byte) => return Err(fmt::Error),
                _ => {}
            }
        }
        Ok(())
    }
}
