//! Problems for people and for programs: the file, the line, the column, the line itself.

use miette::{GraphicalReportHandler, LabeledSpan, MietteDiagnostic, NamedSource, Report};
use serde_json::{Value, json};

use crate::{
    hygiene::inspect,
    manifest::{Place, Positions, Problem, Severity},
};

/// As much of a long line as is shown, and how much of that stands before the place.
const LINE_CHARACTERS_MAX: usize = 160;
const LEAD_CHARACTERS: usize = 40;

/// `file:line:column: error: message`, the offending line, and what was expected.
pub(super) fn plain(problem: &Problem, positions: &mut Positions) -> String {
    let severity = word(problem);
    let path = problem.source.path.display();
    let mut text = match positions.of(&problem.source, &problem.place) {
        Some((line, column)) => {
            let mut text = format!("{path}:{line}:{column}: {severity}: {}", problem.message);
            if let Some(offending) = problem.source.text.lines().nth(line.saturating_sub(1)) {
                let (shown, column) = excerpt(offending, column);
                text.push_str(&format!("\n    {shown}\n    {}^", " ".repeat(column.saturating_sub(1))));
            }
            text
        }
        None => format!("{path}: {severity}: {}", problem.message),
    };
    if let Some(help) = &problem.help {
        text.push_str(&format!("\n    help: {help}"));
    }
    visible(&text)
}

/// The same for a terminal.
pub(super) fn fancy(problem: &Problem, positions: &mut Positions) -> String {
    let severity = match problem.severity {
        Severity::Error => miette::Severity::Error,
        Severity::Warning => miette::Severity::Warning,
    };
    let mut diagnostic = MietteDiagnostic::new(visible(&problem.message)).with_severity(severity);
    if let Some(help) = &problem.help {
        diagnostic = diagnostic.with_help(visible(help));
    }
    let Some((line, column)) = positions.of(&problem.source, &problem.place) else {
        return plain(problem, positions);
    };
    let (source, label) = surroundings(problem, line, column);
    let diagnostic = diagnostic.with_label(LabeledSpan::new_with_span(None, label));
    let name = visible(&problem.source.path.to_string_lossy());
    let report = Report::new(diagnostic).with_source_code(NamedSource::new(name, source));
    let mut text = String::new();
    match GraphicalReportHandler::new().render_report(&mut text, report.as_ref()) {
        Ok(()) => text,
        Err(_) => plain(problem, positions),
    }
}

/// The line of a place and the lines beside it as they are shown, at their numbers; and the bytes
/// there that the problem is about.
fn surroundings(problem: &Problem, line: usize, column: usize) -> (String, (usize, usize)) {
    let first = line.saturating_sub(1).max(1);
    let mut text = "\n".repeat(first - 1);
    let mut label = (text.len(), 0);
    for (number, raw) in (first..=line + 1).zip(problem.source.text.lines().skip(first - 1)) {
        let (shown, column) = excerpt(raw, if number == line { column } else { 1 });
        if number == line {
            let bytes = |characters: usize| shown.chars().take(characters).map(char::len_utf8).sum::<usize>();
            let start = bytes(column - 1);
            let length = match problem.place {
                Place::Bytes { offset, length } => {
                    let marked = problem.source.text.get(offset..offset + length).unwrap_or_default();
                    bytes(column - 1 + marked.lines().next().map_or(0, |line| line.chars().count())) - start
                }
                _ => shown.trim_end().len().saturating_sub(start),
            };
            label = (text.len() + start, length);
        }
        text.push_str(&shown);
        text.push('\n');
    }
    (text, label)
}

/// A line as it is shown, and the column in it that stands for the given one: no longer than fits
/// on a screen, and without what would not be seen.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    let before = column.saturating_sub(1);
    let from = if before < LINE_CHARACTERS_MAX - LEAD_CHARACTERS { 0 } else { before - LEAD_CHARACTERS };
    let mut rest = line.chars().skip(from);
    let kept: String = rest.by_ref().take(LINE_CHARACTERS_MAX).collect();
    let (head, shift) = if from > 0 { ("…", 1) } else { ("", 0) };
    let tail = if rest.next().is_some() { "…" } else { "" };
    (format!("{head}{}{tail}", visible(&kept)), before - from + shift + 1)
}

/// Shows each character that a reader would not see, or that a terminal would obey, as U+FFFD.
fn visible(text: &str) -> String {
    let is_plain = |character: char| {
        matches!(character, '\n' | '\t' | ' '..='~') || inspect(character.encode_utf8(&mut [0; 4])).is_clean()
    };
    text.chars().map(|character| if is_plain(character) { character } else { '\u{FFFD}' }).collect()
}

/// Problems for programs.
pub(super) fn json(problems: &[Problem]) -> Value {
    let mut positions = Positions::default();
    let problems = problems.iter().map(|problem| {
        let place = positions.of(&problem.source, &problem.place);
        json!({
            "severity": problem.severity,
            "file": problem.source.path,
            "line": place.map(|(line, _)| line),
            "column": place.map(|(_, column)| column),
            "message": problem.message,
            "help": problem.help,
        })
    });
    json!({ "problems": problems.collect::<Vec<_>>() })
}

const fn word(problem: &Problem) -> &'static str {
    match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Source;

    fn problem() -> Problem {
        let source = Source { path: "tools/x.yaml".into(), text: "tool: x\neffects: raed\n".into() };
        Problem::error(&source, Place::Pointer("/effects".into()), "`raed` is not an effect")
            .help("write `read`")
    }

    #[test]
    fn a_problem_shows_the_file_the_line_the_column_and_the_line_itself() {
        insta::assert_snapshot!(plain(&problem(), &mut Positions::default()), @r"
        tools/x.yaml:2:10: error: `raed` is not an effect
            effects: raed
                     ^
            help: write `read`
        ");
    }

    #[test]
    fn a_terminal_shows_the_same_facts() {
        let text = fancy(&problem(), &mut Positions::default());
        for fact in ["tools/x.yaml:2:10", "`raed` is not an effect", "effects: raed", "write `read`"] {
            assert!(text.contains(fact), "{fact} in {text}");
        }
    }

    /// A problem of the second line of a file, and the file with `before` and `after` around its place.
    fn shown(before: &str, after: &str) -> [String; 2] {
        let text = format!("a: {after}\nb: {before}{after}\nc: {after}\n");
        let offset = text.find('\n').unwrap() + 1 + "b: ".len() + before.len();
        let source = Source { path: "x.yaml".into(), text: text.into() };
        let place = Place::Bytes { offset, length: after.len() };
        let said: String = after.chars().take(9).collect();
        let problem = Problem::error(&source, place, format!("`{said}` is wrong")).help(said);
        [plain, fancy].map(|render| render(&problem, &mut Positions::default()))
    }

    #[test]
    fn what_no_reader_would_see_is_shown_as_something() {
        let [plain, fancy] = shown("\u{200B}é", "x\u{202E}y\u{1B}z");
        insta::assert_snapshot!(plain, @"
        x.yaml:2:6: error: `x�y�z` is wrong
            b: �éx�y�z
                 ^
            help: x�y�z
        ");
        assert!(fancy.contains("b: \u{FFFD}éx\u{FFFD}y\u{FFFD}z"), "{fancy}");
        for text in [plain, fancy] {
            assert!(!text.contains(['\u{200B}', '\u{202E}']), "{text}");
            assert!(!text.contains("\u{1B}z"), "{text}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let long = "x".repeat(100_000);
        for text in shown(&long, "here").into_iter().chain(shown("", "here and on")) {
            assert!(text.contains("here"), "{text}");
        }
        let [plain, fancy] = shown(&long, &format!("here{long}"));
        for text in [&plain, &fancy] {
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest < 300 && text.contains("here"), "{longest}");
        }
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines[1].chars().position(|c| c == 'h'), lines[2].chars().position(|c| c == '^'));
    }
}
