//! The strict scanner again, the naive way: recursive descent into a tree, a map of decoded
//! keys, numbers by exact arithmetic. Slow, and shares no code with the scanner: it is here to
//! disagree. Uses the standard library alone, so that other test binaries can include it.

use std::{collections::BTreeMap, sync::LazyLock};

/// What a JSON text says.
#[derive(Debug)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    Array(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

/// The tree of a text, or the word of the rule that it breaks.
pub(crate) fn read(bytes: &[u8], depth_max: usize, nodes_max: usize) -> Result<Tree, &'static str> {
    if bytes.len() >= 3 && bytes[0] == 0xEF && bytes[1] == 0xBB && bytes[2] == 0xBF {
        return Err("bom");
    }
    let text = String::from_utf8(bytes.to_vec()).map_err(|_| "utf8")?;
    let mut reader =
        Reader { left: text.chars().rev().collect(), depth_left: depth_max, nodes_left: nodes_max };
    let tree = reader.value()?;
    reader.blanks();
    if reader.left.is_empty() { Ok(tree) } else { Err("syntax") }
}

/// What is left to read, back to front.
struct Reader {
    left: Vec<char>,
    depth_left: usize,
    nodes_left: usize,
}

impl Reader {
    fn value(&mut self) -> Result<Tree, &'static str> {
        self.blanks();
        let first = self.peek().filter(|first| "{[\"-0123456789tfn".contains(*first)).ok_or("syntax")?;
        self.nodes_left = self.nodes_left.checked_sub(1).ok_or("nodes")?;
        match first {
            '{' | '[' => {
                self.depth_left = self.depth_left.checked_sub(1).ok_or("depth")?;
                self.left.pop();
                let tree = if first == '{' { self.object()? } else { self.array()? };
                self.depth_left += 1;
                Ok(tree)
            }
            '"' => Ok(Tree::String(self.string()?)),
            't' => self.word("true", Tree::Bool(true)),
            'f' => self.word("false", Tree::Bool(false)),
            'n' => self.word("null", Tree::Null),
            _ => self.number(),
        }
    }

    fn array(&mut self) -> Result<Tree, &'static str> {
        let mut values = Vec::new();
        if self.eats_mark(']') {
            return Ok(Tree::Array(values));
        }
        loop {
            values.push(self.value()?);
            if self.eats_mark(']') {
                return Ok(Tree::Array(values));
            }
            self.mark(',')?;
        }
    }

    fn object(&mut self) -> Result<Tree, &'static str> {
        let mut members = Vec::new();
        if !self.eats_mark('}') {
            loop {
                self.blanks();
                let key = self.string()?;
                self.mark(':')?;
                members.push((key, self.value()?));
                if self.eats_mark('}') {
                    break;
                }
                self.mark(',')?;
            }
        }
        let count = members.len();
        let map: BTreeMap<_, _> = members.into_iter().collect();
        if map.len() == count { Ok(Tree::Object(map)) } else { Err("duplicate_key") }
    }

    fn word(&mut self, word: &str, tree: Tree) -> Result<Tree, &'static str> {
        for letter in word.chars() {
            self.exactly(letter)?;
        }
        Ok(tree)
    }

    fn string(&mut self) -> Result<String, &'static str> {
        self.exactly('"')?;
        let mut string = String::new();
        loop {
            match self.left.pop().ok_or("syntax")? {
                '"' => return Ok(string),
                '\0'..='\x1F' => return Err("syntax"),
                '\\' => string.push(self.escape()?),
                plain => string.push(plain),
            }
        }
    }

    fn escape(&mut self) -> Result<char, &'static str> {
        Ok(match self.left.pop().ok_or("syntax")? {
            'b' => '\x08',
            'f' => '\x0C',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut units = vec![self.unit().ok_or("syntax")?];
                if (0xD800..0xDC00).contains(&units[0]) {
                    let whole = self.left.pop() == Some('\\') && self.left.pop() == Some('u');
                    units.push(if whole {
                        self.unit().ok_or("surrogate")?
                    } else {
                        return Err("surrogate");
                    });
                }
                let decoded = String::from_utf16(&units).map_err(|_| "surrogate")?;
                decoded.chars().next().ok_or("surrogate")?
            }
            mark @ ('"' | '\\' | '/') => mark,
            _ => return Err("syntax"),
        })
    }

    fn unit(&mut self) -> Option<u16> {
        let digits: String = (0..4).map_while(|_| self.left.pop()).collect();
        let valid = digits.len() == 4 && digits.chars().all(|digit| digit.is_ascii_hexdigit());
        if valid { u16::from_str_radix(&digits, 16).ok() } else { None }
    }

    fn number(&mut self) -> Result<Tree, &'static str> {
        let mut text = String::new();
        if self.eats('-') {
            text.push('-');
        }
        if self.eats('0') {
            text.push('0')
        } else {
            text += &self.digits()?
        }
        let mut is_integer = true;
        if self.eats('.') {
            text += ".";
            text += &self.digits()?;
            is_integer = false;
        }
        if self.eats('e') || self.eats('E') {
            text += "e";
            if self.eats('-') {
                text += "-";
            } else {
                self.eats('+');
            }
            text += &self.digits()?;
            is_integer = false;
        }
        let survives = if is_integer { fits_integer(&text) } else { round_trips(&text) };
        if survives { Ok(Tree::Number(text)) } else { Err("number") }
    }

    fn digits(&mut self) -> Result<String, &'static str> {
        let mut digits = String::new();
        while let Some(digit) = self.peek().filter(char::is_ascii_digit) {
            self.left.pop();
            digits.push(digit);
        }
        if digits.is_empty() { Err("syntax") } else { Ok(digits) }
    }

    fn blanks(&mut self) {
        while self.eats(' ') || self.eats('\t') || self.eats('\n') || self.eats('\r') {}
    }

    fn eats_mark(&mut self, mark: char) -> bool {
        self.blanks();
        self.eats(mark)
    }

    fn mark(&mut self, mark: char) -> Result<(), &'static str> {
        if self.eats_mark(mark) { Ok(()) } else { Err("syntax") }
    }

    fn exactly(&mut self, wanted: char) -> Result<(), &'static str> {
        if self.eats(wanted) { Ok(()) } else { Err("syntax") }
    }

    fn eats(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.left.pop();
        }
        found
    }

    fn peek(&self) -> Option<char> {
        self.left.last().copied()
    }
}

/// Compares as strings: of two numbers without leading zeros, the longer is the greater.
fn fits_integer(text: &str) -> bool {
    let (digits, limit) = match text.strip_prefix('-') {
        Some(digits) => (digits, "9223372036854775808"),
        None => (text, "18446744073709551615"),
    };
    (digits.len(), digits) <= (limit.len(), limit)
}

fn round_trips(text: &str) -> bool {
    let text = text.trim_start_matches('-');
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    if digits.is_empty() {
        return true;
    }
    let Ok(exponent) = exponent.parse::<i64>() else { return false };
    // As a whole number of `digits` times a power of ten.
    let Some(power) = exponent.checked_sub(fraction.len() as i64) else { return false };
    let value: f64 = text.parse().unwrap_or(f64::NAN);
    if !value.is_finite() || value == 0.0 {
        return false;
    }
    rounded(value, digits.len()) == (digits.to_owned(), power)
}

/// A float to so many significant digits, half to even: the digits, times a power of ten.
fn rounded(value: f64, count: usize) -> (String, i64) {
    let (mut digits, mut power) = exact(value);
    while digits.len() < count {
        digits.push(b'0');
        power -= 1;
    }
    let rest = digits.split_off(count);
    power += rest.len() as i64;
    let mut half = vec![b'0'; rest.len()];
    if let Some(first) = half.first_mut() {
        *first = b'5';
    }
    let is_odd = digits.last().is_some_and(|digit| (digit - b'0') % 2 == 1);
    if !rest.is_empty() && (rest > half || (rest == half && is_odd)) {
        let nines = digits.iter().rev().take_while(|digit| **digit == b'9').count();
        digits.truncate(count - nines);
        match digits.last_mut() {
            Some(last) => *last += 1,
            None => {
                digits.push(b'1');
                power += 1;
            }
        }
        digits.resize(count, b'0');
    }
    (digits.iter().copied().map(char::from).collect(), power)
}

/// All digits of a positive float, in ASCII, times a power of ten.
fn exact(value: f64) -> (Vec<u8>, i64) {
    let bits = value.to_bits();
    let (field, fraction) = ((bits >> 52) as i64, bits & ((1 << 52) - 1));
    let (mut mantissa, mut power) =
        if field == 0 { (fraction, -1074) } else { (fraction | 1 << 52, field - 1075) };
    while mantissa % 2 == 0 {
        mantissa /= 2;
        power += 1;
    }
    // m × 2^-p is m × 5^p × 10^-p.
    let (powers, count) = if power < 0 { (&*POWERS_OF_5, -power) } else { (&*POWERS_OF_2, power) };
    let limbs = product(&[mantissa % LIMB, mantissa / LIMB], &powers[count as usize]);
    let mut text = String::with_capacity(limbs.len() * 9);
    for limb in limbs.iter().rev() {
        text += &format!("{limb:09}");
    }
    let digits = text.trim_start_matches('0').as_bytes().to_vec();
    (digits, power.min(0))
}

/// Nine decimal digits of a whole number; whole numbers are limbs, the least significant first.
const LIMB: u64 = 1_000_000_000;

/// Every power that a float can hold: worked out once, since that is what takes time.
static POWERS_OF_5: LazyLock<Vec<Vec<u64>>> = LazyLock::new(|| powers(5, 1074));
static POWERS_OF_2: LazyLock<Vec<Vec<u64>>> = LazyLock::new(|| powers(2, 1023));

fn powers(base: u64, count: usize) -> Vec<Vec<u64>> {
    let mut powers = vec![vec![1]];
    for at in 0..count {
        powers.push(product(&[base], &powers[at]));
    }
    powers
}

/// Long multiplication, as on paper.
fn product(one: &[u64], other: &[u64]) -> Vec<u64> {
    let mut limbs = vec![0; one.len() + other.len()];
    for (at, left) in one.iter().enumerate() {
        let mut carry = 0;
        for (limb, right) in limbs[at..].iter_mut().zip(other.iter().chain(&[0])) {
            let sum = *limb + left * right + carry;
            (*limb, carry) = (sum % LIMB, sum / LIMB);
        }
    }
    while limbs.last() == Some(&0) {
        limbs.pop();
    }
    limbs
}
