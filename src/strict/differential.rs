//! The scanner, the naive reader and `serde_json` on a million generated texts.

use std::{collections::BTreeMap, thread};

use serde_json::Value;

use super::{
    Bounds,
    naive::{self, Tree},
    scan,
};

const SEED: u64 = 0x05EE_DCA1_16A7_E000;
const WORKERS: u64 = 2;
const CASES_PER_WORKER: usize = 520_000;

#[test]
fn scanner_and_naive_reader_agree_on_a_million_texts() {
    println!("seed {SEED:#x}");
    let counts = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || run(SEED + worker))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).fold(BTreeMap::new(), |mut sum, counts| {
            counts.into_iter().for_each(|(word, count)| *sum.entry(word).or_insert(0) += count);
            sum
        })
    });
    println!("{counts:?}");
    assert!(counts.values().sum::<usize>() >= 1_000_000);
    // Every rule had its say, and often.
    for word in
        ["accepted", "syntax", "utf8", "bom", "surrogate", "depth", "nodes", "number", "duplicate_key"]
    {
        assert!(counts.get(word).is_some_and(|count| *count > 2_000), "{word}: {counts:?}");
    }
}

fn run(seed: u64) -> BTreeMap<&'static str, usize> {
    let mut random = Random(seed);
    let mut counts = BTreeMap::new();
    for _ in 0..CASES_PER_WORKER {
        let bytes = text(&mut random);
        let bounds = *random.of(&[
            Bounds::REQUEST,
            Bounds::REQUEST,
            Bounds { depth_max: 2, nodes_max: 100 },
            Bounds { depth_max: 9, nodes_max: 5 },
        ]);
        *counts.entry(compare(&bytes, bounds)).or_insert(0) += 1;
    }
    counts
}

/// The verdict that all agree on.
fn compare(bytes: &[u8], bounds: Bounds) -> &'static str {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let strict = scan(bytes, bounds);
    match (&strict, naive::read(bytes, bounds.depth_max, bounds.nodes_max)) {
        (Ok(()), Ok(tree)) => {
            let value = serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", shown()));
            assert!(is_same(&tree, &value), "{}\nis {tree:?}\nbut reads as {value:?}", shown());
            "accepted"
        }
        (Err(fault), Err(word)) if fault.rule.word() == word && fault.offset <= bytes.len() => word,
        (_, naive) => panic!("{}\n{bytes:?}\nscanner: {strict:?}\nnaive: {naive:?}", shown()),
    }
}

/// Whether the value that the program goes on with is what the text says.
fn is_same(tree: &Tree, value: &Value) -> bool {
    match (tree, value) {
        (Tree::Null, Value::Null) => true,
        (Tree::Bool(tree), Value::Bool(value)) => tree == value,
        (Tree::String(tree), Value::String(value)) => tree == value,
        (Tree::Number(text), Value::Number(number)) => {
            if number.is_f64() {
                let read = number.as_f64().map(f64::to_bits);
                read == text.parse().ok().map(f64::to_bits)
            } else {
                number.to_string() == *text
            }
        }
        (Tree::Array(tree), Value::Array(value)) => {
            tree.len() == value.len() && tree.iter().zip(value).all(|(tree, value)| is_same(tree, value))
        }
        (Tree::Object(tree), Value::Object(value)) => {
            tree.len() == value.len()
                && tree.iter().all(|(key, tree)| value.get(key).is_some_and(|value| is_same(tree, value)))
        }
        _ => false,
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

fn text(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    match random.below(100) {
        0..3 => bytes.extend((0..random.below(12)).map(|_| random.next() as u8)),
        3..8 => {
            let letters = b"[]{},:\"\\u0dDe.-+1 tn\xEF";
            bytes.extend((0..random.below(10)).map(|_| *random.of(letters)));
        }
        8..10 => {
            let depth = 60 + random.below(8);
            bytes.extend(
                std::iter::repeat_n(*random.of(&["[", "{\"\":", "[[", "[ "]), depth).flat_map(str::bytes),
            );
        }
        10..30 => number(random, &mut bytes),
        _ => value(random, &mut bytes, 3),
    }
    if random.below(2) == 0 {
        for _ in 0..=random.below(2) {
            damage(random, &mut bytes);
        }
    }
    bytes
}

fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    const PIECES: &[&[u8]] = &[
        b"\xEF\xBB\xBF",
        b"\\ud83d",
        b"\\udc00",
        b"\\u",
        b"\"",
        b",",
        b":",
        b"e",
        b".",
        b"-",
        b"0",
        b"9",
        b"]",
        b"}",
        b"[",
        b"{",
        b" ",
        b"\n",
        b"\0",
        b"\x1F",
        b"\xC3",
        b"\xED\xA0\x80",
        b"null",
        b"e999",
        b"99999999999",
        b"//",
    ];
    let at = random.below(bytes.len() + 1);
    match random.below(6) {
        0 => bytes.truncate(at),
        1 if random.below(4) == 0 => drop(bytes.splice(0..0, b"\xEF\xBB\xBF".iter().copied())),
        1 | 2 => drop(bytes.splice(at..at, random.of(PIECES).iter().copied())),
        _ if at == bytes.len() => {}
        3 => bytes[at] ^= 1 << random.below(8),
        4 => drop(bytes.remove(at)),
        _ => {
            // A copy of some of it: that is how members come twice.
            let end = at + random.below(bytes.len() - at + 1);
            let copy = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, copy));
        }
    }
}

fn value(random: &mut Random, bytes: &mut Vec<u8>, depth: usize) {
    blank(random, bytes);
    match random.below(if depth == 0 { 6 } else { 12 }) {
        0 => bytes.extend(*random.of(&[b"true".as_slice(), b"false", b"null"])),
        1..4 => number(random, bytes),
        4..6 => string(random, bytes),
        6..8 => list(random, bytes, *b"[]", |random, bytes| value(random, bytes, depth - 1)),
        _ => list(random, bytes, *b"{}", |random, bytes| {
            blank(random, bytes);
            string(random, bytes);
            blank(random, bytes);
            bytes.push(b':');
            value(random, bytes, depth - 1);
        }),
    }
    blank(random, bytes);
}

fn list(
    random: &mut Random,
    bytes: &mut Vec<u8>,
    [open, close]: [u8; 2],
    mut item: impl FnMut(&mut Random, &mut Vec<u8>),
) {
    bytes.push(open);
    // Now and then enough keys that they are sorted rather than compared in pairs.
    let items = if random.below(60) == 0 { 15 + random.below(8) } else { random.below(4) };
    for index in 0..items {
        if index > 0 {
            bytes.push(b',');
        }
        item(random, bytes);
    }
    bytes.push(close);
}

fn blank(random: &mut Random, bytes: &mut Vec<u8>) {
    if random.below(12) == 0 {
        bytes.push(*random.of(b" \t\r\n"));
    }
}

/// A short string of few letters, each written one way or another.
fn string(random: &mut Random, bytes: &mut Vec<u8>) {
    const LETTERS: &[&[&str]] = &[
        &["a", "a", "\\u0061"],
        &["b", "b", "\\u0062"],
        &["c", "d", "long enough for eight", "long enough for eight"],
        &["/", "\\/", "\\u002f", "\\u002F"],
        &["\\n", "\\u000a", "\\u000A"],
        &["é", "é", "\\u00e9", "\\u00E9"],
        &["😀", "\\ud83d\\ude00", "\\uD83D\\uDE00"],
        &["\\\\", "\\\"", "\\u0000", "\\b", "\u{2028}", "\\uffff", "\u{feff}"],
    ];
    bytes.push(b'"');
    for _ in 0..random.below(4) {
        let letter = *random.of(LETTERS);
        bytes.extend(random.of(letter).bytes());
    }
    bytes.push(b'"');
}

fn number(random: &mut Random, bytes: &mut Vec<u8>) {
    let float = f64::from_bits(random.next());
    let near = (random.next() % (1 << 62)) as f64 / 1e9;
    let text = match random.below(9) {
        0 => (u128::from(*random.of(&[1 << 63, u64::MAX, 1 << 53, 0])) + random.below(4) as u128).to_string(),
        1 => format!("-{}", (1_u64 << 63) + random.below(3) as u64),
        2 => (random.next() >> random.below(64)).to_string(),
        3 if float.is_finite() => format!("{float:.*e}", random.below(22)),
        4 if float.is_finite() => format!("{float:e}"),
        5 => format!("{near:.*}", random.below(20)),
        6 => near.to_string(),
        // Where floats get sparse.
        7 => format!("{}e-{}", random.next() >> random.below(64), 300 + random.below(60)),
        _ => written(random),
    };
    bytes.extend(text.bytes());
}

/// A number digit by digit.
fn written(random: &mut Random) -> String {
    let digits = |random: &mut Random, count: usize| -> String {
        (0..count).map(|_| *random.of(&['0', '0', '1', '2', '4', '5', '7', '9', '9'])).collect()
    };
    let sign = *random.of(&["", "", "-"]);
    let count = random.below(4);
    let whole = if random.below(2) == 0 { "0".to_owned() } else { format!("1{}", digits(random, count)) };
    let count = 1 + random.below(20);
    let fraction = if random.below(3) == 0 { String::new() } else { format!(".{}", digits(random, count)) };
    let count = 1 + random.below(3);
    let exponent = match random.below(3) {
        0 => format!("{}{}{}", random.of(&["e", "E"]), random.of(&["", "+", "-"]), digits(random, count)),
        _ => String::new(),
    };
    format!("{sign}{whole}{fraction}{exponent}")
}
