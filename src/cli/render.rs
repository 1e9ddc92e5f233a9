//! Problems for people and for programs: the file, the line, the column, the line itself.

use miette::{GraphicalReportHandler, LabeledSpan, MietteDiagnostic, NamedSource, Report};
use serde_json::{Value, json};

use crate::manifest::{Place, Problem, Severity, position};

/// `file:line:column: error: message`, the offending line, and what was expected.
pub(super) fn plain(problem: &Problem) -> String {
    let severity = word(problem);
    let path = problem.source.path.display();
    let mut text = match position(&problem.source, &problem.place) {
        Some((line, column)) => {
            let mut text = format!("{path}:{line}:{column}: {severity}: {}", problem.message);
            if let Some(offending) = problem.source.text.lines().nth(line.saturating_sub(1)) {
                text.push_str(&format!("\n    {offending}\n    {}^", " ".repeat(column.saturating_sub(1))));
            }
            text
        }
        None => format!("{path}: {severity}: {}", problem.message),
    };
    if let Some(help) = &problem.help {
        text.push_str(&format!("\n    help: {help}"));
    }
    text
}

/// The same for a terminal.
pub(super) fn fancy(problem: &Problem) -> String {
    let severity = match problem.severity {
        Severity::Error => miette::Severity::Error,
        Severity::Warning => miette::Severity::Warning,
    };
    let mut diagnostic = MietteDiagnostic::new(problem.message.clone()).with_severity(severity);
    if let Some(help) = &problem.help {
        diagnostic = diagnostic.with_help(help.clone());
    }
    let Some(offset) = offset(problem) else { return plain(problem) };
    let length = match problem.place {
        Place::Bytes { length, .. } => length,
        _ => problem
            .source
            .text
            .get(offset..)
            .and_then(|rest| rest.lines().next())
            .map_or(1, |line| line.trim_end().len()),
    };
    let diagnostic = diagnostic.with_label(LabeledSpan::new_with_span(None, (offset, length)));
    let source = NamedSource::new(problem.source.path.to_string_lossy(), problem.source.text.to_string());
    let report = Report::new(diagnostic).with_source_code(source);
    let mut text = String::new();
    match GraphicalReportHandler::new().render_report(&mut text, report.as_ref()) {
        Ok(()) => text,
        Err(_) => plain(problem),
    }
}

/// The byte at which a problem's place begins.
fn offset(problem: &Problem) -> Option<usize> {
    if let Place::Bytes { offset, .. } = problem.place {
        return Some(offset);
    }
    let (line, column) = position(&problem.source, &problem.place)?;
    let mut start = 0;
    for (at, text) in problem.source.text.split_inclusive('\n').enumerate() {
        if at + 1 == line {
            let within: usize = text.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum();
            return Some(start + within);
        }
        start += text.len();
    }
    None
}

/// Problems for programs.
pub(super) fn json(problems: &[Problem]) -> Value {
    let problems = problems.iter().map(|problem| {
        let place = position(&problem.source, &problem.place);
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
        insta::assert_snapshot!(plain(&problem()), @r"
        tools/x.yaml:2:10: error: `raed` is not an effect
            effects: raed
                     ^
            help: write `read`
        ");
    }

    #[test]
    fn a_terminal_shows_the_same_facts() {
        let text = fancy(&problem());
        for fact in ["tools/x.yaml:2:10", "`raed` is not an effect", "effects: raed", "write `read`"] {
            assert!(text.contains(fact), "{fact} in {text}");
        }
    }
}
