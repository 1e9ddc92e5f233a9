//! The same for JSON: strings and the names of members, at every depth.

use std::{borrow::Cow, collections::BTreeSet, mem};

use serde_json::{Map, Value};

use super::{Findings, clean, inspect};

/// Two members of an object would have the same name once cleaned: which one is meant?
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "two members of the object at `{pointer}` are both called `{name}` once hidden characters are removed"
)]
pub struct Collision {
    /// The JSON pointer of the object; cleaned, since it may be shown.
    pub pointer: String,
    /// The name that both would have.
    pub name: String,
}

/// Why a value is not taken as it is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Hidden {
    /// Its texts hold characters that no reader sees, and these are refused.
    #[error("the text at `{at}` holds {findings}, which the tool's `text` refuses")]
    Found {
        /// The JSON pointer of the first text that does.
        at: String,
        /// What all of them hold.
        findings: Findings,
    },
    /// Without them, two members have one name.
    #[error(transparent)]
    Collision(#[from] Collision),
}

impl Hidden {
    /// The reason in one word, stable over versions.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Found { .. } => "hidden_text",
            Self::Collision(_) => "hidden_text_collision",
        }
    }

    /// The reason in a sentence that may stand on record, where `place` says what of a place may.
    #[must_use]
    pub fn on_record(&self, place: impl Fn(&str) -> String) -> String {
        match self {
            Self::Found { at, findings } => Self::Found { at: place(at), findings: *findings }.to_string(),
            Self::Collision(Collision { pointer, .. }) => {
                Collision { pointer: place(pointer), name: "*".into() }.to_string()
            }
        }
    }
}

/// Where the first string or member name with something hidden is, and what is hidden in all of
/// them. The JSON pointer (RFC 6901) is cleaned, since it may be shown.
///
/// Nothing is allocated for a clean value. The recursion is as deep as the value.
#[must_use]
pub fn inspect_value(value: &Value) -> Option<(String, Findings)> {
    let mut report = Report { first: None, findings: Findings::default() };
    report.visit(value, &Path::Root);
    report.first.map(|first| (first, report.findings))
}

/// Cleans every string and member name in place, and counts what was removed.
///
/// # Errors
///
/// If two names of one object become the same. The value is then as it was.
pub fn clean_value(value: &mut Value) -> Result<Findings, Collision> {
    let Some((_, findings)) = inspect_value(value) else { return Ok(Findings::default()) };
    refuse_collisions(value, &Path::Root)?;
    apply(value);
    Ok(findings)
}

/// The way to a value, as a list on the stack.
enum Path<'a> {
    Root,
    Member(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn pointer(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Member(parent, name) => {
                parent.pointer() + "/" + &clean(name).0.replace('~', "~0").replace('/', "~1")
            }
            Self::Item(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

struct Report {
    first: Option<String>,
    findings: Findings,
}

impl Report {
    fn visit(&mut self, value: &Value, path: &Path<'_>) {
        match value {
            Value::String(text) => self.text(text, path),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.visit(item, &Path::Item(path, index));
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    let path = Path::Member(path, name);
                    self.text(name, &path);
                    self.visit(member, &path);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&mut self, text: &str, path: &Path<'_>) {
        let findings = inspect(text);
        if !findings.is_clean() {
            self.findings += findings;
            self.first.get_or_insert_with(|| path.pointer());
        }
    }
}

fn refuse_collisions(value: &Value, path: &Path<'_>) -> Result<(), Collision> {
    match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| refuse_collisions(item, &Path::Item(path, index))),
        Value::Object(members) => {
            let mut names = BTreeSet::new();
            for (name, member) in members {
                let (name, _) = clean(name);
                refuse_collisions(member, &Path::Member(path, &name))?;
                if let Some(name) = names.replace(name) {
                    return Err(Collision { pointer: path.pointer(), name: name.into_owned() });
                }
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn apply(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let (Cow::Owned(cleaned), _) = clean(text) {
                *text = cleaned;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(apply),
        Value::Object(members) => {
            members.values_mut().for_each(apply);
            if members.keys().any(|name| !inspect(name).is_clean()) {
                *members = renamed(mem::take(members));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn renamed(members: Map<String, Value>) -> Map<String, Value> {
    members.into_iter().map(|(name, member)| (clean(&name).0.into_owned(), member)).collect()
}
