//! Strict JSON from outside: what is checked must be what is read.
//!
//! `serde_json` is lenient where it hurts a guard: the last of two equal keys wins, a long
//! integer becomes a float, a tiny number becomes zero. [`scan`] looks at the raw bytes before
//! any parser does and refuses what two parsers could read differently. [`message`] does the
//! same for a JSON-RPC 2.0 message and reads its envelope.
//!
//! Refused, beyond all that RFC 8259 calls malformed:
//!
//! - a byte order mark, and bytes that are not UTF-8;
//! - `\u` escapes of one half of a surrogate pair;
//! - an object with two equal keys; keys are compared after unescaping;
//! - numbers that do not round-trip (see below);
//! - more nesting or more nodes than [`Bounds`] allow. Every value is a node: an object, an
//!   array, a string, a number, `true`, `false`, `null`. A key is none.
//!
//! A number without fraction and exponent must fit an `i64` or a `u64`. Any other number must
//! be finite, must not turn from non-zero to zero, and its nearest `f64`, printed with as many
//! significant digits as were written, must give the digits and the exponent that were written.
//!
//! Of several faults in one text, an encoding fault comes first, then the leftmost; two equal
//! keys are noticed where their object ends.

mod keys;
mod message;
mod method;
mod number;
mod scanner;

#[cfg(test)]
mod tests;

pub use message::{Id, Message, Refused, message};

use std::fmt;

/// Bounds on one JSON text.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many arrays and objects may be open at once. `serde_json` itself stops at 127.
    pub depth_max: usize,
    /// How many values the text may hold, the outermost included.
    pub nodes_max: usize,
}

impl Bounds {
    /// For what a client sends.
    pub const REQUEST: Self = Self { depth_max: 64, nodes_max: 10_000 };
}

/// Checks a JSON text. Does not allocate for ordinary input: that is, unless a key has an
/// escape, or dozens of keys or levels are open at once.
pub fn scan(bytes: &[u8], bounds: Bounds) -> Result<(), Fault> {
    scanner::scan(bytes, bounds, &mut ())
}

/// What is wrong with a JSON text, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{rule} at byte {offset}")]
pub struct Fault {
    /// The rule that was broken.
    pub rule: Rule,
    /// Where, in bytes from the start of the text.
    pub offset: usize,
}

/// A rule of this scanner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// RFC 8259 calls the text malformed.
    Syntax,
    /// The bytes are not UTF-8.
    Utf8,
    /// The text starts with a byte order mark.
    Bom,
    /// An escape stands for one half of a surrogate pair.
    Surrogate,
    /// More arrays and objects are open than [`Bounds::depth_max`].
    Depth,
    /// More values than [`Bounds::nodes_max`].
    Nodes,
    /// A number does not survive a parser.
    Number,
    /// An object has two equal keys.
    DuplicateKey,
}

impl Rule {
    /// The rule's stable name in the record.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Utf8 => "utf8",
            Self::Bom => "bom",
            Self::Surrogate => "surrogate",
            Self::Depth => "depth",
            Self::Nodes => "nodes",
            Self::Number => "number",
            Self::DuplicateKey => "duplicate_key",
        }
    }

    const fn at(self, offset: usize) -> Fault {
        Fault { rule: self, offset }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "malformed JSON",
            Self::Utf8 => "invalid UTF-8",
            Self::Bom => "byte order mark",
            Self::Surrogate => "lone surrogate",
            Self::Depth => "too deeply nested value",
            Self::Nodes => "one value too many",
            Self::Number => "number that does not round-trip",
            Self::DuplicateKey => "duplicate key",
        })
    }
}
