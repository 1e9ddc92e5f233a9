//! Choices that the bytes of an input make: which pieces, how many, which value.

use serde_json::{Map, Value, json};

/// Texts that mean something to somebody on the way: parsers of URLs, YAML, JSON, Cedar, terminals.
const TEXTS: [&str; 56] = [
    "",
    "a",
    "ord_1",
    "alice",
    "true",
    "null",
    "~",
    "0",
    "-1",
    "1e3",
    ".inf",
    ".nan",
    "0x10",
    "1_000",
    "2026-11-23",
    "allow",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\0",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "\u{202e}",
    "é",
    "漢",
    "👩",
    "\u{ff0e}\u{ff0e}",
    "\u{ff0f}",
    ".",
    "..",
    "%2e%2e",
    "%252e",
    "/",
    "\\",
    "?",
    "#",
    "%",
    ";",
    "&",
    "=",
    "+",
    ":",
    "@",
    "//evil.example",
    "@evil.example",
    "{id}",
    "\"",
    "'",
    "*x",
    "&x",
    "<<",
    "__entity",
    "__extn",
];

/// Reads choices off bytes; when they have run out, every choice is the first.
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let wide =
            if bound > 256 { u16::from_le_bytes([self.byte(), self.byte()]) } else { self.byte().into() };
        usize::from(wide) % bound
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Rather no than yes, by one in `of`.
    pub(crate) fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == of - 1
    }

    pub(crate) fn text(&mut self) -> String {
        match self.below(8) {
            0..5 => self.of(&TEXTS).to_owned(),
            5 => self.of(&TEXTS).to_owned() + self.of(&TEXTS),
            6 => (0..self.below(6)).map(|_| char::from(b' ' + self.byte() % 95)).collect(),
            _ => char::from_u32(self.word()).map_or_else(|| self.of(&TEXTS).repeat(300), String::from),
        }
    }

    pub(crate) fn number(&mut self) -> Value {
        match self.below(8) {
            0..3 => json!(i64::from(self.byte().cast_signed())),
            3 => json!(f64::from(self.word().cast_signed()) / 10_000.0),
            4 => json!(f64::from(self.byte()) - 0.5),
            5 => json!(f64::from_bits(self.long())), // null, where that is no number
            6 => json!(self.long()),
            _ => json!(self.long().cast_signed()),
        }
    }

    /// A value; seldom a deep one.
    pub(crate) fn value(&mut self) -> Value {
        if self.one_in(32) {
            let depth = self.below(60);
            return (0..depth).fold(Value::Null, |inner, level| match level % 2 {
                0 => json!([inner]),
                _ => json!({ "a": inner }),
            });
        }
        self.shallow(3)
    }

    fn shallow(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 6 } else { 10 }) {
            0 => Value::Null,
            1 => json!(self.one_in(2)),
            2 | 3 => self.number(),
            4 | 5 => json!(self.text()),
            6 | 7 => (0..self.below(4)).map(|_| self.shallow(depth - 1)).collect(),
            _ => {
                let members = (0..self.below(4)).map(|_| (self.text(), self.shallow(depth - 1)));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    fn long(&mut self) -> u64 {
        u64::from(self.word()) << 32 | u64::from(self.word())
    }
}

/// Bytes that are the same in every run, to see what the generators make of them.
pub(crate) fn samples(count: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut state = 0x05ee_dca1_16a7_e000_u64;
    (0..count).map(move |_| {
        let length = 16 + state % 200;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..length).map(next).collect()
    })
}
