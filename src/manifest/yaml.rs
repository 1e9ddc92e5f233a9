//! Reads YAML into types, and finds the place of a value again.

use std::{collections::HashMap, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned},
};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Options, Spanned};

use super::problem::{Place, Problem, Source};

/// More nodes than a file that a person wrote has.
const NODES_MAX: usize = 50_000;

/// Deeper than a file that a person wrote. Reading is recursive: one level takes 35 KB of stack in a
/// debug build, and a thread has 2 MiB.
const DEPTH_MAX: usize = 40;

fn options() -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        budget: serde_saphyr::budget! { max_nodes: NODES_MAX, max_depth: DEPTH_MAX },
    }
}

/// Reads a file into a type.
///
/// # Errors
/// The place and the reason, when the text is not YAML of that type.
pub fn read<T: DeserializeOwned>(source: &Source) -> Result<T, Box<Problem>> {
    serde_saphyr::from_str_with_options(&source.text, options())
        .map_err(|error| Box::new(problem(source, &error)))
}

/// Reads a file into a plain JSON value.
///
/// # Errors
/// The place and the reason, when the text is not YAML that JSON can hold.
pub fn read_value(source: &Source) -> Result<Value, Box<Problem>> {
    read::<Node>(source).map(Node::into_value)
}

fn problem(source: &Source, error: &serde_saphyr::Error) -> Problem {
    let place = error.location().map_or(Place::File, |location| Place::Position {
        line: usize::try_from(location.line()).unwrap_or(1),
        column: usize::try_from(location.column()).unwrap_or(1),
    });
    let message = error.without_snippet().to_string();
    // The library appends the position, which the place already has.
    let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
    let message = plain_words(&message).unwrap_or(message);
    Problem::error(source, place, message)
}

/// What the library says in the words of programmers, in plain ones.
fn plain_words(message: &str) -> Option<String> {
    // How the library says that the file is over one of the bounds above.
    if message.contains("budget breached") {
        return Some(format!(
            "the file holds more than {NODES_MAX} values, or is nested deeper than {DEPTH_MAX} levels"
        ));
    }
    if let Some(rest) = message.strip_prefix("duplicate mapping key") {
        let key = rest.split(", set DuplicateKeyPolicy").next().and_then(|rest| rest.strip_prefix(": "));
        return Some(match key {
            Some(key) => format!("the key `{key}` is written twice"),
            None => "a key is written twice".to_owned(),
        });
    }
    if message.starts_with("multiple YAML documents") {
        return Some("the file holds more than one document: `---` stands between two".to_owned());
    }
    for (said, plain) in [("unknown field ", "unknown key "), ("unknown variant ", "unknown word ")] {
        if let Some(rest) = message.strip_prefix(said) {
            return Some(format!("{plain}{rest}"));
        }
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return Some(format!("the key {key} is missing"));
    }
    let plain = match message {
        "expected mapping start" | "expected empty mapping start" => {
            "expected keys with values: `key: value`"
        }
        "expected sequence start" => "expected a list: `[…]`, or lines that begin with `-`",
        "expected string scalar" | "expected scalar" => {
            "expected one value, and not a list or keys with values"
        }
        "invalid boolean (strict mode expects true/false)" | "invalid bool" => "expected `true` or `false`",
        "cannot deserialize null into string; use Option<String>" => "expected a text, and nothing is there",
        "cannot deserialize tagged scalar into string" => "expected a text without a tag",
        "externally tagged enum expected scalar or mapping"
        | "expected string key for externally tagged enum" => "expected a word, or a word with keys below it",
        "unexpected value for unit" | "unexpected value for unit enum variant" => {
            "expected nothing below this word"
        }
        "mapping values are not allowed in this context" => {
            "expected no second `: ` in this line: put a text that holds it in quotes"
        }
        "alias references unknown anchor" => {
            "expected an `&anchor` before: put a text that begins with `*` in quotes"
        }
        "unexpected end of input" => "the file ends where a value is expected",
        _ => match message.strip_prefix("invalid ")? {
            "f32" | "f64" => "expected a number",
            "i8" | "i16" | "i32" | "i64" | "i128" | "u8" | "u16" | "u32" | "u64" | "u128" => {
                "expected a whole number of the usual size"
            }
            _ => return None,
        },
    };
    Some(plain.to_owned())
}

/// The line and the column, from 1, of a place in a file.
#[must_use]
pub fn position(source: &Source, place: &Place) -> Option<(usize, usize)> {
    Positions::default().of(source, place)
}

/// Finds many places: reads each file once for all of its places.
#[derive(Default)]
pub struct Positions {
    /// The files by their texts, each with what is in it.
    files: HashMap<*const str, (Arc<str>, Option<Spanned<Node>>)>,
    #[cfg(test)]
    reads: usize,
}

impl Positions {
    /// The line and the column, from 1, of a place in a file.
    pub fn of(&mut self, source: &Source, place: &Place) -> Option<(usize, usize)> {
        match place {
            Place::File => None,
            Place::Position { line, column } => Some((*line, *column)),
            Place::Bytes { offset, .. } => {
                let before = source.text.get(..*offset)?;
                let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
                let column = before.get(line_start..)?.chars().count() + 1;
                Some((before.matches('\n').count() + 1, column))
            }
            Place::Pointer(pointer) => find(self.root(source)?, pointer, false),
            Place::Key(pointer) => find(self.root(source)?, pointer, true),
        }
    }

    fn root(&mut self, source: &Source) -> Option<&Spanned<Node>> {
        // A text that is held here stays where it is, so its address stands for it.
        let (_, root) = self.files.entry(Arc::as_ptr(&source.text)).or_insert_with(|| {
            #[cfg(test)]
            {
                self.reads += 1;
            }
            let root = serde_saphyr::from_str_with_options(&source.text, options()).ok();
            (source.text.clone(), root)
        });
        root.as_ref()
    }
}

impl fmt::Debug for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Positions").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

/// Finds the value at a pointer, or the nearest one above it that exists.
fn find(root: &Spanned<Node>, pointer: &str, key: bool) -> Option<(usize, usize)> {
    let mut found = (root.referenced, root.referenced);
    let mut node = &root.value;
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        match node {
            Node::Map(members) => {
                let Some((name, value)) = members.iter().find(|(name, _)| name.value == segment) else {
                    break;
                };
                found = (value.referenced, name.referenced);
                node = &value.value;
            }
            Node::Seq(items) => {
                let Some(item) = segment.parse::<usize>().ok().and_then(|at| items.get(at)) else { break };
                found = (item.referenced, item.referenced);
                node = &item.value;
            }
            Node::Scalar(_) => break,
        }
    }
    let location = if key { found.1 } else { found.0 };
    Some((usize::try_from(location.line()).ok()?, usize::try_from(location.column()).ok()?))
}

/// A YAML value that keeps the places of its parts.
enum Node {
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
    Seq(Vec<Spanned<Self>>),
    Scalar(Value),
}

impl Node {
    fn into_value(self) -> Value {
        match self {
            Self::Map(members) => {
                let members = members.into_iter().map(|(name, node)| (name.value, node.value.into_value()));
                Value::Object(members.collect::<Map<_, _>>())
            }
            Self::Seq(items) => items.into_iter().map(|item| item.value.into_value()).collect(),
            Self::Scalar(value) => value,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value that JSON can hold")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
                let number =
                    Number::from_f64(value).ok_or_else(|| E::custom("a number that JSON cannot hold"))?;
                Ok(Node::Scalar(number.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Scalar(value.into()))
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }
            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                Node::deserialize(deserializer)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Node::Seq(items))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Node::Map(members))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::join_pointer;

    fn source(text: &str) -> Source {
        Source { path: "x.yaml".into(), text: text.into() }
    }

    const TEXT: &str = "a: 1\nb:\n  - x\n  - c/d: [true, null]\n    e: \"s\"\n";

    #[test]
    fn a_value_is_found_by_its_pointer() {
        let source = source(TEXT);
        let at = |pointer: &str| position(&source, &Place::Pointer(pointer.into()));
        assert_eq!(at("/a"), Some((1, 4)));
        assert_eq!(at("/b/0"), Some((3, 5)));
        assert_eq!(at("/b/1/c~1d/1"), Some((4, 17)));
        assert_eq!(position(&source, &Place::Key("/b/1/e".into())), Some((5, 5)));
    }

    #[test]
    fn a_missing_value_is_placed_at_its_nearest_parent() {
        let source = source(TEXT);
        assert_eq!(position(&source, &Place::Pointer("/b/1/zzz".into())), Some((4, 5)));
    }

    #[test]
    fn every_value_of_a_file_has_a_place() {
        let source = source(TEXT);
        let mut all = Vec::new();
        pointers(&read_value(&source).unwrap(), "", &mut all);
        assert_eq!(all.len(), 9);
        for pointer in all {
            assert!(position(&source, &Place::Pointer(pointer.clone())).is_some(), "{pointer}");
        }
    }

    #[test]
    fn a_file_is_read_once_for_all_of_its_places() {
        let (one, other) = (source(TEXT), source("a: 1\n"));
        let mut positions = Positions::default();
        for _ in 0..100 {
            assert_eq!(positions.of(&one.clone(), &Place::Pointer("/a".into())), Some((1, 4)));
            assert_eq!(positions.of(&one, &Place::Key("/b".into())), Some((2, 1)));
            assert_eq!(positions.of(&other, &Place::Key("/a".into())), Some((1, 1)));
        }
        assert_eq!(positions.reads, 2);
    }

    #[test]
    fn a_duplicate_key_is_refused_with_its_place() {
        let problem = read_value(&source("a: 1\na: 2\n")).unwrap_err();
        assert!(matches!(problem.place, Place::Position { line: 2, .. }), "{problem:?}");
    }

    #[test]
    fn a_file_is_as_deep_as_a_small_stack_can_take_and_no_deeper() {
        let lists = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let maps = |depth: usize| "{ a: ".repeat(depth) + &"}".repeat(depth);
        let read = |text: String| {
            let read = move || read_value(&source(&text)).map(drop);
            std::thread::Builder::new().stack_size(2 << 20).spawn(read).unwrap().join().unwrap()
        };
        for text in [lists, maps] {
            read(text(DEPTH_MAX)).unwrap();
            let problem = read(text(DEPTH_MAX + 1)).unwrap_err();
            assert!(matches!(problem.place, Place::Position { line: 1, .. }), "{problem:?}");
            assert!(problem.message.ends_with("or is nested deeper than 40 levels"), "{problem:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_plain_words() {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        #[expect(dead_code, reason = "only why it does not read is of interest")]
        struct File {
            flag: Option<bool>,
            list: Option<Vec<String>>,
            text: Option<String>,
            map: Option<HashMap<String, u32>>,
            word: Option<Word>,
        }
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[expect(dead_code, reason = "only why it does not read is of interest")]
        enum Word {
            Alone,
            Http { service: String },
        }
        let texts = [
            "flag: yes",
            "list: a",
            "list: { a: b }",
            "text: [a]",
            "map: a",
            "map: [a]",
            "map: { a: b }",
            "map: { a: -1 }",
            "map: { a: 1.5 }",
            "word: [a]",
            "word: alon",
            "word: http",
            "word: { alone: 1 }",
            "text: a\ntext: b",
            "text: a\n---\ntext: b",
            "list: [~]",
            "[]",
            "a",
            "other: 1",
            "word: { http: {} }",
            "text: [",
            "text: \"a",
            "text: a: b",
            "text: *a",
        ];
        let said = texts.map(|text| {
            let said =
                read::<File>(&source(text)).map_or_else(|problem| problem.message, |_| "reads".to_owned());
            format!("{} => {said}", text.escape_debug())
        });
        insta::assert_snapshot!(said.join("\n"), @r#"
        flag: yes => expected `true` or `false`
        list: a => expected a list: `[…]`, or lines that begin with `-`
        list: { a: b } => expected a list: `[…]`, or lines that begin with `-`
        text: [a] => expected one value, and not a list or keys with values
        map: a => expected keys with values: `key: value`
        map: [a] => expected keys with values: `key: value`
        map: { a: b } => expected a whole number of the usual size
        map: { a: -1 } => expected a whole number of the usual size
        map: { a: 1.5 } => expected a whole number of the usual size
        word: [a] => expected a word, or a word with keys below it
        word: alon => unknown word `alon`, expected one of alone, http
        word: http => expected keys with values: `key: value`
        word: { alone: 1 } => expected nothing below this word
        text: a\ntext: b => the key `text` is written twice
        text: a\n---\ntext: b => the file holds more than one document: `---` stands between two
        list: [~] => expected a text, and nothing is there
        [] => expected keys with values: `key: value`
        a => expected keys with values: `key: value`
        other: 1 => unknown key `other`, expected one of flag, list, text, map, word
        word: { http: {} } => the key `service` is missing
        text: [ => expected one value, and not a list or keys with values
        text: \"a => unclosed quote
        text: a: b => expected no second `: ` in this line: put a text that holds it in quotes
        text: *a => expected an `&anchor` before: put a text that begins with `*` in quotes
        "#);
    }

    #[test]
    fn yes_is_a_text_and_not_a_boolean() {
        #[derive(Debug, Deserialize)]
        struct Flag {
            #[expect(dead_code, reason = "only whether it reads is of interest")]
            flag: bool,
        }
        assert!(read::<Flag>(&source("flag: true\n")).is_ok());
        assert!(read::<Flag>(&source("flag: yes\n")).is_err());
    }

    /// The pointers of all values below `value`, for tests of the finder.
    fn pointers(value: &Value, pointer: &str, into: &mut Vec<String>) {
        into.push(pointer.to_owned());
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(name, value)| pointers(value, &join_pointer(pointer, name), into))
            }
            Value::Array(items) => items
                .iter()
                .enumerate()
                .for_each(|(at, item)| pointers(item, &join_pointer(pointer, &at.to_string()), into)),
            _ => {}
        }
    }
}
