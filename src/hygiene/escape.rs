//! Escape sequences as terminals read them (ECMA-48 §5.4, §5.6; ECMA-35 §13).
//!
//! Only a sequence that is complete takes its content along, since a terminal shows nothing of it
//! either. Of an incomplete one the introducer goes and the rest stays in sight, so that text cannot
//! be hidden behind a sequence that nobody ends.

use super::work;

const ESC: u8 = 0x1B;
const BEL: u8 = 0x07;
/// The first byte of a C1 control in UTF-8.
const C1: u8 = 0xC2;

/// Parameters and intermediates of a control sequence; the longest in use are colours, about 40.
const CONTROL_SEQUENCE_BYTES_MAX: usize = 128;
/// Content of a control string (window titles, links, small images).
const CONTROL_STRING_BYTES_MAX: usize = 4096;
/// Intermediates of a plain escape sequence; one or two are in use.
const INTERMEDIATES_MAX: usize = 4;

/// The length in bytes of the sequence at the start of `text`, or of its introducer if incomplete.
pub(super) fn length(text: &str) -> usize {
    match text.as_bytes() {
        [ESC, b'[', rest @ ..] | [C1, 0x9B, rest @ ..] => 2 + control_sequence(rest).unwrap_or(0),
        [ESC, b']', rest @ ..] | [C1, 0x9D, rest @ ..] => 2 + control_string(rest, true).unwrap_or(0),
        [ESC, b'P' | b'X' | b'^' | b'_', rest @ ..] | [C1, 0x90 | 0x98 | 0x9E | 0x9F, rest @ ..] => {
            2 + control_string(rest, false).unwrap_or(0)
        }
        [ESC, rest @ ..] => 1 + simple(rest).unwrap_or(0),
        _ => text.chars().next().map_or(0, char::len_utf8), // never: not an introducer
    }
}

/// Parameter bytes, intermediate bytes, one final byte.
fn control_sequence(bytes: &[u8]) -> Option<usize> {
    let parameters = bytes.iter().take_while(|byte| matches!(byte, 0x30..=0x3F)).count();
    let intermediates = bytes.iter().skip(parameters).take_while(|byte| matches!(byte, 0x20..=0x2F)).count();
    let end = parameters + intermediates;
    work::done(end);
    let is_final = matches!(bytes.get(end), Some(0x40..=0x7E));
    (is_final && end <= CONTROL_SEQUENCE_BYTES_MAX).then_some(end + 1)
}

/// Text up to a string terminator: ST, and for operating system commands BEL, as xterm has it.
/// Any other control ends the attempt; a terminal would not go on either.
fn control_string(bytes: &[u8], bell_ends: bool) -> Option<usize> {
    for (at, byte) in bytes.iter().copied().enumerate().take(CONTROL_STRING_BYTES_MAX) {
        work::done(1);
        match (byte, bytes.get(at + 1)) {
            (BEL, _) if bell_ends => return Some(at + 1),
            (ESC, Some(b'\\')) | (C1, Some(0x9C)) => return Some(at + 2),
            (0..=0x1F | 0x7F, _) | (C1, Some(0x80..=0x9F)) => return None,
            _ => {}
        }
    }
    None
}

/// Intermediate bytes and one final byte: `ESC c`, `ESC ( B`.
fn simple(bytes: &[u8]) -> Option<usize> {
    let intermediates = bytes.iter().take_while(|byte| matches!(byte, 0x20..=0x2F)).count();
    work::done(intermediates);
    let is_final = matches!(bytes.get(intermediates), Some(0x30..=0x7E));
    (is_final && intermediates <= INTERMEDIATES_MAX).then_some(intermediates + 1)
}
