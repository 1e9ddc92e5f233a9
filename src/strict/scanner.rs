//! The scanner: one loop over the text, with its own stack of what is open.

use smallvec::SmallVec;

use super::{
    Bounds, Fault, Rule,
    keys::{self, Key},
    number,
};

/// Told of the members of objects as they end, so that a caller need not read the text again.
pub(super) trait Watch<'a> {
    /// A member of an object that is one of `depth` open arrays and objects. `key` is its key
    /// and `value` the text of its value, neither unescaped.
    fn member(&mut self, depth: usize, key: Token<'a>, value: Token<'a>);
}

impl<'a> Watch<'a> for () {
    fn member(&mut self, _depth: usize, _key: Token<'a>, _value: Token<'a>) {}
}

/// A piece of the text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Token<'a> {
    /// As written; of a string, with its quotes.
    pub(super) text: &'a str,
    /// Where it starts.
    pub(super) offset: usize,
}

pub(super) fn scan<'a>(bytes: &'a [u8], bounds: Bounds, watch: &mut impl Watch<'a>) -> Result<(), Fault> {
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(Rule::Bom.at(0));
    }
    let text = str::from_utf8(bytes).map_err(|error| Rule::Utf8.at(error.valid_up_to()))?;
    let scanner =
        Scanner { text, bytes, at: 0, bounds, nodes: 0, open: SmallVec::new(), keys: SmallVec::new() };
    scanner.run(watch)
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// The next byte to look at.
    at: usize,
    bounds: Bounds,
    nodes: usize,
    open: SmallVec<[Open; 32]>,
    /// The keys so far of all open objects, outermost first.
    keys: SmallVec<[Key; 32]>,
}

/// An array or object that has not ended yet.
#[derive(Clone, Copy)]
struct Open {
    offset: usize,
    /// For an object, how many keys the objects around it have so far.
    keys_before: Option<usize>,
}

impl<'a> Scanner<'a> {
    fn run(mut self, watch: &mut impl Watch<'a>) -> Result<(), Fault> {
        self.skip_blanks();
        loop {
            let mut value_offset = self.at;
            if self.begin_value()? {
                continue;
            }
            loop {
                self.skip_blanks();
                let Some(open) = self.open.last().copied() else {
                    return if self.at == self.bytes.len() { Ok(()) } else { Err(self.syntax()) };
                };
                if let Some(keys_before) = open.keys_before {
                    self.tell(watch, value_offset);
                    match self.byte() {
                        b',' => {
                            self.step();
                            self.key()?;
                            break;
                        }
                        b'}' => self.end_object(keys_before)?,
                        _ => return Err(self.syntax()),
                    }
                } else {
                    match self.byte() {
                        b',' => {
                            self.step();
                            break;
                        }
                        b']' => self.at += 1,
                        _ => return Err(self.syntax()),
                    }
                }
                self.open.pop();
                value_offset = open.offset;
            }
        }
    }

    /// Reads a value, or of an array or object that is not empty all that comes before its
    /// first inner value. True if there is such an inner value to read next.
    fn begin_value(&mut self) -> Result<bool, Fault> {
        match self.byte() {
            b'"' => {
                self.count_node()?;
                self.string()?;
            }
            b'{' => {
                self.open(Some(self.keys.len()))?;
                if self.byte() != b'}' {
                    self.key()?;
                    return Ok(true);
                }
                self.close();
            }
            b'[' => {
                self.open(None)?;
                if self.byte() != b']' {
                    return Ok(true);
                }
                self.close();
            }
            b'-' | b'0'..=b'9' => {
                self.count_node()?;
                self.at = number::check(self.bytes, self.at)?;
            }
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => return Err(self.syntax()),
        }
        Ok(false)
    }

    fn open(&mut self, keys_before: Option<usize>) -> Result<(), Fault> {
        self.count_node()?;
        if self.open.len() >= self.bounds.depth_max {
            return Err(Rule::Depth.at(self.at));
        }
        self.open.push(Open { offset: self.at, keys_before });
        self.step();
        Ok(())
    }

    /// Ends an array or object without members.
    fn close(&mut self) {
        self.open.pop();
        self.at += 1;
    }

    fn end_object(&mut self, keys_before: usize) -> Result<(), Fault> {
        let keys = self.keys.get_mut(keys_before..).unwrap_or_default();
        if let Some(offset) = keys::duplicate(self.text, keys) {
            return Err(Rule::DuplicateKey.at(offset));
        }
        self.keys.truncate(keys_before);
        self.at += 1;
        Ok(())
    }

    /// Reads a key, its colon and the blanks around it.
    fn key(&mut self) -> Result<(), Fault> {
        if self.byte() != b'"' {
            return Err(self.syntax());
        }
        let start = self.at;
        let escaped = self.string()?;
        self.keys.push(Key::new(self.bytes, start..self.at, escaped));
        self.skip_blanks();
        if self.byte() != b':' {
            return Err(self.syntax());
        }
        self.step();
        Ok(())
    }

    /// Reads a string, from its opening to past its closing quote. True if it has an escape.
    fn string(&mut self) -> Result<bool, Fault> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at = plain_end(self.bytes, self.at);
            match self.byte() {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.syntax()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.at += 1;
        match self.byte() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => match unicode_escape(self.bytes, start) {
                None => return Err(self.syntax()),
                Some(0xD800..=0xDBFF) => {
                    let low = unicode_escape(self.bytes, start + 6);
                    if !low.is_some_and(|low| (0xDC00..=0xDFFF).contains(&low)) {
                        return Err(Rule::Surrogate.at(start));
                    }
                    self.at = start + 12;
                }
                Some(0xDC00..=0xDFFF) => return Err(Rule::Surrogate.at(start)),
                Some(_) => self.at = start + 6,
            },
            _ => return Err(self.syntax()),
        }
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        self.count_node()?;
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.syntax())
        }
    }

    fn count_node(&mut self) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > self.bounds.nodes_max { Err(Rule::Nodes.at(self.at)) } else { Ok(()) }
    }

    fn tell(&self, watch: &mut impl Watch<'a>, value_offset: usize) {
        if let Some(key) = self.keys.last() {
            let token =
                |start, end| Token { text: self.text.get(start..end).unwrap_or_default(), offset: start };
            watch.member(self.open.len(), token(key.start, key.end), token(value_offset, self.at));
        }
    }

    /// The next byte. The end of the text reads as NUL, which is malformed wherever it is read.
    #[inline]
    fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Steps over a byte and the blanks behind it.
    #[inline]
    fn step(&mut self) {
        self.at += 1;
        self.skip_blanks();
    }

    #[inline]
    fn skip_blanks(&mut self) {
        while matches!(self.byte(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn syntax(&self) -> Fault {
        Rule::Syntax.at(self.at)
    }
}

/// Where the first quote, backslash or control character at or after `at` is, else the end.
#[inline]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xFF;
    const HIGHS: u64 = ONES * 0x80;
    // Eight bytes at once. Each term has the high bit of the first byte that matches; bytes
    // behind it may show by a borrow, bytes before it do not.
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*word);
        let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let stop = (zero_byte(word ^ (ONES * u64::from(b'"')))
            | zero_byte(word ^ (ONES * u64::from(b'\\')))
            | control)
            & HIGHS;
        if stop != 0 {
            return at + stop.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    at + rest.iter().take_while(|byte| plain(byte)).count()
}

/// What the `\uXXXX` at `at` stands for.
fn unicode_escape(bytes: &[u8], at: usize) -> Option<u32> {
    let digits: &[u8; 4] = bytes.get(at..)?.strip_prefix(b"\\u")?.first_chunk()?;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}
