//! The loader: files of a project, damaged in ways that keep much of them whole.

use std::{ops::RangeInclusive, path::Path, sync::LazyLock};

use callgate::{
    credential::LiveSecrets,
    manifest::{
        CasesFile, ClientsFile, FloorsFile, Place, Problem, ServerFile, Severity, Source, ToolManifest,
        position, read, read_value,
    },
    rules::{Files, Rules, Secrets},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::choices::{Choices, samples};

/// The files that a project is made of: what each is, and one that is shipped.
const FILES: [(Kind, &str, &str); 8] = [
    (Kind::Server, "callgate.yaml", include_str!("../../callgate.yaml")),
    (Kind::Clients, "policies/clients.yaml", include_str!("../../policies/clients.yaml")),
    (Kind::Floors, "policies/tools.yaml", include_str!("../../policies/tools.yaml")),
    (Kind::Cases, "policies/orders.cases.yaml", include_str!("../../policies/orders.cases.yaml")),
    (Kind::Tool, "tools/orders/get.yaml", include_str!("../../tools/orders/get.yaml")),
    (Kind::Tool, "tools/orders/list.yaml", include_str!("../../tools/orders/list.yaml")),
    (Kind::Tool, "tools/orders/cancel.yaml", include_str!("../../tools/orders/cancel.yaml")),
    (Kind::Tool, "tools/refunds/create.yaml", include_str!("../../tools/refunds/create.yaml")),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Server,
    Clients,
    Floors,
    Cases,
    Tool,
}

/// The files as plain values.
static TREES: LazyLock<Vec<Value>> =
    LazyLock::new(|| FILES.iter().map(|(_, path, text)| read_value(&source(path, text)).unwrap()).collect());

/// One in so many inputs that load is built into rules, which takes longer than all the rest.
const BUILT_ONE_IN: usize = 8;

/// Pieces of YAML that change what stands before and after them.
const PIECES: [&str; 40] = [
    "\n",
    "  ",
    "\t",
    "- ",
    ": ",
    ", ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "#",
    " #",
    "|\n",
    ">-\n",
    "---\n",
    "...\n",
    "&a ",
    "*a",
    "<<: *a\n",
    "!!str ",
    "!!binary ",
    "!x ",
    "? ",
    "~",
    "null",
    "true",
    "yes",
    "0",
    "-1",
    ".nan",
    ".inf",
    "1e400",
    "99999999999999999999",
    "é",
    "\u{feff}",
    "\u{85}",
    "\0",
    "%YAML 1.2\n",
];

#[test]
fn fuzz_manifest() {
    bolero::check!().with_max_len(128).for_each(|bytes: &[u8]| {
        let mut choices = Choices::new(bytes);
        let is_built = choices.one_in(BUILT_ONE_IN);
        judge(&mut choices, is_built);
        // Whatever it is, and whoever wrote it.
        let text = String::from_utf8_lossy(bytes);
        for (kind, ..) in [FILES[0], FILES[1], FILES[2], FILES[3], FILES[4]] {
            load(kind, &source("x.yaml", &text));
        }
    });
}

#[test]
fn many_inputs_load_and_many_do_not() {
    let outcomes: Vec<Outcome> = samples(160).map(|bytes| judge(&mut Choices::new(&bytes), true)).collect();
    for wanted in [Outcome::Unreadable, Outcome::Refused, Outcome::Built] {
        let count = outcomes.iter().filter(|outcome| **outcome == wanted).count();
        assert!(count > 2, "{wanted:?}: {count}");
    }
}

#[test]
fn a_definition_that_json_cannot_hold_is_refused() {
    let (kind, path, text) = FILES[4];
    let text = text.replace("title: Get an order", "title: .inf");
    assert_eq!(build(kind, source(path, &text)), Outcome::Refused);
}

#[derive(Debug, Eq, PartialEq)]
enum Outcome {
    /// The damaged file is not read.
    Unreadable,
    /// It is read; no more was tried.
    Read,
    /// It is read, and no rules come of the project.
    Refused,
    /// It is read, and rules come of the project.
    Built,
}

fn judge(choices: &mut Choices<'_>, is_built: bool) -> Outcome {
    let number = choices.below(FILES.len());
    let (kind, path, text) = FILES[number];
    let text = if choices.one_in(2) {
        damaged_text(choices, text)
    } else {
        damaged_tree(choices, TREES[number].clone())
    };
    let source = source(path, &text);
    if !load(kind, &source) {
        return Outcome::Unreadable;
    }
    if is_built { build(kind, source) } else { Outcome::Read }
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), text: text.into() }
}

/// Damages lines and characters.
fn damaged_text(choices: &mut Choices<'_>, text: &str) -> String {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    for _ in 0..=choices.below(3) {
        let at = choices.below(lines.len());
        match choices.below(7) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[at].clone()),
            2 => {
                let other = choices.below(lines.len());
                lines.swap(at, other);
            }
            3 => lines[at].insert_str(0, choices.of(&[" ", "  ", "- ", "\t", "# "])),
            4 => {
                // Another value for the same key.
                let key = lines[at].split_inclusive(": ").next().unwrap_or_default().to_owned();
                lines[at] = format!("{key}{}\n", choices.text());
            }
            _ => {
                let line = &mut lines[at];
                let places: Vec<usize> = line.char_indices().map(|(at, _)| at).collect();
                let place = places.get(choices.below(places.len().max(1))).copied().unwrap_or(0);
                line.insert_str(place, choices.of(&PIECES));
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.concat()
}

/// Damages values and keys. JSON is YAML, so what comes of it is written as JSON.
fn damaged_tree(choices: &mut Choices<'_>, mut tree: Value) -> String {
    for _ in 0..=choices.below(3) {
        damage(choices, &mut tree);
    }
    if choices.one_in(2) { format!("{tree:#}") } else { tree.to_string() }
}

fn damage(choices: &mut Choices<'_>, tree: &mut Value) {
    // Seldom the root.
    match tree {
        Value::Object(members) if !members.is_empty() && !choices.one_in(24) => {
            let key = members.keys().nth(choices.below(members.len())).unwrap().clone();
            match choices.below(12) {
                0 => drop(members.remove(&key)),
                1 => {
                    let value = members.remove(&key).unwrap();
                    members.insert(choices.text(), value);
                }
                2 => {
                    members.insert(choices.text(), choices.value());
                }
                3 => {
                    let value = members[&key].clone();
                    members.insert(choices.text(), value);
                }
                _ => damage(choices, &mut members[&key]),
            }
        }
        Value::Array(items) if !items.is_empty() && !choices.one_in(8) => {
            let at = choices.below(items.len());
            match choices.below(4) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => damage(choices, &mut items[at]),
            }
        }
        other => *other = choices.value(),
    }
}

/// Whether a text is read as a file of this kind; panics where it should not be so.
fn load(kind: Kind, source: &Source) -> bool {
    match kind {
        Kind::Server => load_as::<ServerFile>(source),
        Kind::Clients => load_as::<ClientsFile>(source),
        Kind::Floors => load_as::<FloorsFile>(source),
        Kind::Cases => load_as::<CasesFile>(source),
        Kind::Tool => load_as::<ToolManifest>(source),
    }
}

fn load_as<T: DeserializeOwned + Serialize>(source: &Source) -> bool {
    let plain = read_value(source);
    if let Err(problem) = &plain {
        judge_problem(problem, &[source]);
    }
    let loaded: T = match read(source) {
        Ok(loaded) => loaded,
        Err(problem) => {
            judge_problem(&problem, &[source]);
            return false;
        }
    };
    let written = serde_json::to_value(&loaded).unwrap();
    // The plain value, which a definition's digest is of, says the same. (Where a text is expected, YAML
    // takes `71` and `.inf` for one, and JSON does not.)
    if let Some(from_plain) = plain.ok().and_then(|plain| serde_json::from_value::<T>(plain).ok()) {
        assert_eq!(serde_json::to_value(&from_plain).unwrap(), written);
    }
    // What is written loads again, as JSON and as YAML.
    let from_json: T = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(&from_json).unwrap(), written);
    let text = Source { path: source.path.clone(), text: format!("{written:#}").into() };
    let from_yaml: T = read(&text).unwrap_or_else(|problem| panic!("{problem:?}"));
    assert_eq!(serde_json::to_value(&from_yaml).unwrap(), written);
    true
}

/// A problem is in one of the files, and where it says.
fn judge_problem(problem: &Problem, files: &[&Source]) {
    assert!(files.contains(&&problem.source), "{problem:?}");
    assert!(!problem.message.is_empty(), "{problem:?}");
    let text = &problem.source.text;
    match &problem.place {
        Place::File => {}
        Place::Bytes { offset, length } => {
            assert!(text.get(*offset..offset + length).is_some(), "{problem:?}");
        }
        Place::Pointer(_) | Place::Key(_) | Place::Position { .. } => {
            let (line, column) =
                position(&problem.source, &problem.place).unwrap_or_else(|| panic!("{problem:?}"));
            assert!(lines(text).contains(&line), "{line}:{column} {problem:?}");
            assert!((1..=text.chars().count() + 1).contains(&column), "{line}:{column} {problem:?}");
        }
    }
}

/// The lines of a text, by whatever ends lines in YAML; the end of the text is on the last or after it.
fn lines(text: &str) -> RangeInclusive<usize> {
    1..=text
        .chars()
        .filter(|character| matches!(character, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}'))
        .count()
        + 2
}

/// Builds the shipped project with one of its files exchanged.
fn build(kind: Kind, damaged: Source) -> Outcome {
    let mut files = Files {
        server: SHIPPED.server.clone(),
        tools: SHIPPED.tools.clone(),
        clients: SHIPPED.clients.clone(),
        floors: SHIPPED.floors.clone(),
        policies: SHIPPED.policies.clone(),
        cases: SHIPPED.cases.clone(),
    };
    match kind {
        Kind::Server => files.server = loaded(damaged),
        Kind::Clients => files.clients = loaded(damaged),
        Kind::Floors => files.floors = loaded(damaged),
        Kind::Cases => files.cases = vec![loaded(damaged)],
        Kind::Tool => {
            let tool = files.tools.iter_mut().find(|(source, _)| source.path == damaged.path).unwrap();
            *tool = loaded(damaged);
        }
    }
    let has_digests = files.tools.iter().all(|(source, _)| read_value(source).is_ok());
    let (rules, problems) =
        Rules::build(&files, "sha256:0".to_owned(), Path::new(""), Secrets::Unread, &LiveSecrets::default());
    let mut sources: Vec<&Source> = vec![&files.server.0, &files.clients.0, &files.floors.0];
    sources.extend(files.tools.iter().map(|(source, _)| source));
    sources.extend(&files.policies);
    for problem in &problems {
        judge_problem(problem, &sources);
    }
    let is_refused = problems.iter().any(|problem| problem.severity == Severity::Error);
    assert_eq!(rules.is_none(), is_refused, "{problems:?}");
    assert!(is_refused || has_digests, "a definition without a digest is built");
    if is_refused { Outcome::Refused } else { Outcome::Built }
}

/// The shipped project, which has no problems.
static SHIPPED: LazyLock<Files> = LazyLock::new(|| Files {
    server: all(Kind::Server).remove(0),
    tools: all(Kind::Tool),
    clients: all(Kind::Clients).remove(0),
    floors: all(Kind::Floors).remove(0),
    policies: vec![source("policies/orders.cedar", include_str!("../../policies/orders.cedar"))],
    cases: all(Kind::Cases),
});

fn all<T: DeserializeOwned>(kind: Kind) -> Vec<(Source, T)> {
    let wanted = FILES.iter().filter(|(of, ..)| *of == kind);
    wanted.map(|(_, path, text)| loaded(source(path, text))).collect()
}

fn loaded<T: DeserializeOwned>(source: Source) -> (Source, T) {
    let file = read(&source).unwrap();
    (source, file)
}
