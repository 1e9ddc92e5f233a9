//! Pins: what an upstream lists, held against what a person has reviewed.
//!
//! A pin is the digest of a whole tool, every member that a model or a client may read, known to us or not. Where the
//! reviewed tool itself is at hand too, what changed can be shown.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    hygiene,
    manifest::{Digest, join_pointer},
};

/// How many places of a difference are shown.
const PLACES_MAX: usize = 20;
/// How many characters of a value are shown.
const SHOWN_CHARS_MAX: usize = 120;
/// How many characters before the first that differs are shown.
const LEAD_CHARS: usize = 30;
/// How deep a difference is looked for; below, the values differ as wholes.
const DEPTH_MAX: usize = 64;

/// The digest of a tool, as its upstream lists it: SHA-256 over its canonical JSON (RFC 8785).
#[must_use]
pub fn definition_digest(tool: &Map<String, Value>) -> Digest {
    // Canonical JSON fails on maps whose keys are no strings only, which this cannot hold.
    Digest::of(&serde_json_canonicalizer::to_vec(tool).unwrap_or_default())
}

/// The digest of a server's instructions. A server that says nothing has none.
#[must_use]
pub fn instructions_digest(instructions: Option<&str>) -> Option<Digest> {
    instructions.filter(|text| !text.is_empty()).map(|text| Digest::of(text.as_bytes()))
}

/// How a listing stands to one pin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fit<'a> {
    /// The tool is there, as it was reviewed.
    Fits,
    /// The tool is there, and is another.
    Changed(&'a Map<String, Value>),
    /// No tool has the name.
    Missing,
    /// Several tools have the name: nobody knows which would be called.
    Ambiguous,
}

/// Holds a listing of tools against one pin.
#[must_use]
pub fn fit<'a>(listing: &'a [Map<String, Value>], tool: &str, definition: Digest) -> Fit<'a> {
    fit_by("name", listing, tool, definition)
}

/// Holds a listing of things that are named by some member against one pin.
#[must_use]
pub fn fit_by<'a>(key: &str, listing: &'a [Map<String, Value>], name: &str, definition: Digest) -> Fit<'a> {
    let mut named = listing.iter().filter(|listed| listed.get(key).and_then(Value::as_str) == Some(name));
    match (named.next(), named.next()) {
        (None, _) => Fit::Missing,
        (Some(_), Some(_)) => Fit::Ambiguous,
        (Some(listed), None) if definition_digest(listed) == definition => Fit::Fits,
        (Some(listed), None) => Fit::Changed(listed),
    }
}

/// What differs between what was reviewed and what is there, as far as it is shown.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Difference {
    /// The places, in order.
    pub places: Vec<Place>,
    /// How many more there are.
    pub more: usize,
}

/// A place where they differ.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Place {
    /// Its JSON pointer (RFC 6901).
    pub at: String,
    /// What was there, as JSON; none where nothing was.
    pub was: Option<String>,
    /// What is there now.
    pub now: Option<String>,
}

/// Finds what differs. What is shown is bounded, and holds nothing that a reader would not see.
#[must_use]
pub fn difference(reviewed: &Value, now: &Value) -> Difference {
    let mut difference = Difference::default();
    difference.compare("", Some(reviewed), Some(now), DEPTH_MAX);
    difference
}

impl Difference {
    fn compare(&mut self, at: &str, was: Option<&Value>, now: Option<&Value>, depth: usize) {
        match (was, now) {
            (Some(was), Some(now)) if was == now => {}
            (Some(Value::Object(was)), Some(Value::Object(now))) if depth > 0 => {
                let new = now.keys().filter(|name| !was.contains_key(*name));
                for name in was.keys().chain(new) {
                    self.compare(&join_pointer(at, name), was.get(name), now.get(name), depth - 1);
                }
            }
            (Some(Value::Array(was)), Some(Value::Array(now))) if depth > 0 => {
                for index in 0..was.len().max(now.len()) {
                    let at = join_pointer(at, &index.to_string());
                    self.compare(&at, was.get(index), now.get(index), depth - 1);
                }
            }
            (was, now) => self.add(at, was, now),
        }
    }

    fn add(&mut self, at: &str, was: Option<&Value>, now: Option<&Value>) {
        if self.places.len() == PLACES_MAX {
            self.more += 1;
            return;
        }
        let [was, now] = [was, now].map(|value| value.map(|value| visible(&value.to_string())));
        let skip = match (&was, &now) {
            (Some(was), Some(now)) => {
                let same = was.chars().zip(now.chars()).take_while(|(one, other)| one == other).count();
                if same > LEAD_CHARS * 2 { same - LEAD_CHARS } else { 0 }
            }
            _ => 0,
        };
        let [was, now] = [was, now].map(|text| text.map(|text| window(&text, skip)));
        self.places.push(Place { at: window(&visible(at), 0), was, now });
    }

    /// The difference on one line.
    #[must_use]
    pub fn line(&self) -> String {
        let said = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
        let place = |Place { at, was, now }: &Place| format!("`{at}` was {}, is {}", said(was), said(now));
        let mut parts: Vec<String> = self.places.iter().map(place).collect();
        if self.more > 0 {
            parts.push(format!("and {} more", self.more));
        }
        parts.join("; ")
    }
}

/// A part of a text that is short enough to be shown.
fn window(text: &str, skip: usize) -> String {
    let mut shown: String = if skip > 0 { "…".to_owned() } else { String::new() };
    let mut left = text.chars().skip(skip);
    shown.extend(left.by_ref().take(SHOWN_CHARS_MAX));
    if left.next().is_some() {
        shown.push('…');
    }
    shown
}

/// A text in which what no reader sees, and what a terminal would obey, is written as its number.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        let is_plain = matches!(character, ' '..='~')
            || !(character.is_control() || matches!(character, '\u{2028}' | '\u{2029}'))
                && hygiene::inspect(character.encode_utf8(&mut [0; 4])).is_clean();
        if is_plain {
            shown.push(character);
        } else {
            shown.extend(character.escape_unicode());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn read() -> Map<String, Value> {
        tool(json!({ "name": "read", "description": "Reads a file.", "inputSchema": { "type": "object" } }))
    }

    #[test]
    fn a_digest_is_of_every_member_and_of_no_order() {
        let digest = definition_digest(&read());
        let turned =
            r#"{ "inputSchema": { "type": "object" }, "description": "Reads a file.", "name": "read" }"#;
        assert_eq!(definition_digest(&serde_json::from_str(turned).unwrap()), digest);
        for (at, value) in [
            ("description", json!("Reads a file")),
            ("description", json!("Reads a file.\u{200b}")),
            ("title", json!("")),
            ("annotations", json!({ "readOnlyHint": true })),
            ("_meta", json!({ "vendor/x": 1 })),
            ("nobodyKnows", Value::Null),
            ("inputSchema", json!({ "type": "object", "$comment": "" })),
        ] {
            let mut changed = read();
            changed.insert(at.to_owned(), value);
            assert_ne!(definition_digest(&changed), digest, "{at}");
            assert!(matches!(fit(&[changed], "read", digest), Fit::Changed(_)), "{at}");
        }
    }

    #[test]
    fn a_tool_fits_under_its_own_name_alone_and_only_once() {
        let digest = definition_digest(&read());
        let renamed = tool(
            json!({ "name": "Read", "description": "Reads a file.", "inputSchema": { "type": "object" } }),
        );
        let other = tool(json!({ "name": "more" }));
        assert_eq!(fit(&[other.clone(), read()], "read", digest), Fit::Fits);
        assert_eq!(fit(&[other, renamed], "read", digest), Fit::Missing);
        assert_eq!(fit(&[], "read", digest), Fit::Missing);
        assert_eq!(fit(&[read(), read()], "read", digest), Fit::Ambiguous);
        assert_eq!(fit(&[read(), tool(json!({ "name": "read" }))], "read", digest), Fit::Ambiguous);
    }

    #[test]
    fn no_instructions_and_empty_ones_are_alike_and_no_others_are() {
        assert_eq!(instructions_digest(None), None);
        assert_eq!(instructions_digest(Some("")), None);
        assert_eq!(instructions_digest(Some(" ")), Some(Digest::of(b" ")));
        assert_ne!(instructions_digest(Some("a")), instructions_digest(Some("a ")));
    }

    #[test]
    fn a_difference_is_told_by_places() {
        let reviewed = json!({ "a": [1, 2], "b": { "c~/": "x" }, "gone": true });
        let now = json!({ "a": [1, 3, 4], "b": { "c~/": "y" }, "new": null });
        insta::assert_snapshot!(
            difference(&reviewed, &now).line(),
            @r#"`/a/1` was 2, is 3; `/a/2` was nothing, is 4; `/b/c~0~1` was "x", is "y"; `/gone` was true, is nothing; `/new` was nothing, is null"#
        );
        assert_eq!(difference(&reviewed, &reviewed), Difference::default());
    }

    #[test]
    fn one_byte_of_a_long_text_is_shown_where_it_is() {
        let long = "word ".repeat(1_000);
        let reviewed = json!({ "description": format!("{long}safe{long}") });
        let now = json!({ "description": format!("{long}sage{long}") });
        let found = difference(&reviewed, &now);
        let [place] = &found.places[..] else { panic!("{found:?}") };
        let (was, now) = (place.was.as_deref().unwrap(), place.now.as_deref().unwrap());
        assert!(was.contains(" safeword ") && now.contains(" sageword "), "{was} {now}");
        assert!(was.chars().count() < 130, "{was}");
    }

    #[test]
    fn what_a_reader_would_not_see_is_written_as_its_number() {
        let found = difference(&json!({ "d": "a" }), &json!({ "d": "a\u{202e}\u{1b}[2J\u{e0041}\u{2028}" }));
        insta::assert_snapshot!(found.places[0].now.clone().unwrap(), @r#""a\u{202e}\u001b[2J\u{e0041}\u{2028}""#);
        let found = difference(&json!({}), &json!({ "\u{202e}": 1 }));
        assert_eq!(found.places[0].at, "/\\u{202e}");
    }

    #[test]
    fn a_difference_is_bounded() {
        let many: Vec<Value> = (0..1_000).map(|number| number.into()).collect();
        let found = difference(&json!([]), &Value::Array(many));
        assert_eq!((found.places.len(), found.more), (PLACES_MAX, 980));
        let deep = |last: u8| (0..500).fold(json!(last), |value, _| json!([value]));
        let found = difference(&deep(0), &deep(1));
        assert!(found.line().chars().count() < 500);
    }
}
