//! What commands print: text on a terminal or in a pipe, JSON where it was asked for.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use comfy_table::Table;
use serde::Serialize;

use super::{render, visible::escaped_json};
use crate::{
    app::OpenError,
    credential::LiveSecrets,
    manifest::{Positions, Problem, Severity},
};

/// Prints reports to standard output, and failures to standard error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printer {
    json: bool,
    secrets: &'static LiveSecrets,
}

pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default();
pub(super) const DOUBT: Style = AnsiColor::Yellow.on_default();
pub(super) const DIM: Style = Style::new().dimmed();

impl Printer {
    /// Failures and notes are searched for these secrets.
    pub(super) const fn new(json: bool, secrets: &'static LiveSecrets) -> Self {
        Self { json, secrets }
    }

    #[cfg(test)]
    pub(super) fn alone(json: bool) -> Self {
        Self::new(json, Box::leak(Box::default()))
    }

    /// The same for text alone, where standard output is not for reports.
    pub(super) const fn as_text(self) -> Self {
        Self::new(false, self.secrets)
    }

    /// The secrets that this process holds.
    pub(super) const fn secrets(self) -> &'static LiveSecrets {
        self.secrets
    }

    /// Whether reports are JSON.
    pub(super) const fn is_json(self) -> bool {
        self.json
    }

    /// Prints a line. A reader that has gone away wants no more lines.
    pub(super) fn line(self, text: &str) {
        let _ = writeln!(anstream::stdout(), "{text}");
    }

    /// Prints a line to standard error.
    pub(super) fn note(self, text: &str) {
        let scrubbed = self.secrets.scrub(text.as_bytes());
        let text =
            scrubbed.map_or_else(|| text.into(), |scrubbed| String::from_utf8_lossy(&scrubbed).into_owned());
        let _ = writeln!(anstream::stderr(), "{text}");
    }

    /// Prints rows: a table on a terminal, columns divided by tabs in a pipe.
    pub(super) fn table(self, header: &[&str], rows: &[Vec<String>]) {
        if io::stdout().is_terminal() {
            let mut table = Table::new();
            table
                .load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY)
                .set_header(header.to_vec())
                .add_rows(rows.to_vec());
            self.line(&table.to_string());
        } else {
            rows.iter().for_each(|row| self.line(&row.join("\t")));
        }
    }

    /// Prints a value as JSON, with nothing in it that a terminal would obey.
    pub(super) fn value(self, value: &impl Serialize) {
        let text =
            serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
        self.line(&escaped_json(&text));
    }

    /// Prints a report: as JSON where that was asked for, otherwise as `as_text` prints it.
    pub(super) fn report(self, value: &impl Serialize, as_text: impl FnOnce()) {
        if self.json { self.value(value) } else { as_text() }
    }

    /// Says why the command failed.
    pub(super) fn fail(self, message: &str) -> ExitCode {
        if self.json {
            self.value(&serde_json::json!({ "error": message }));
        } else {
            self.note(&format!("{BAD}error:{BAD:#} {message}"));
        }
        ExitCode::FAILURE
    }

    /// Shows what is wrong with a project that does not load.
    pub(super) fn fail_load(&self, problems: &[Problem]) -> ExitCode {
        self.problems(problems, false);
        self.fail("the project does not load; run `callgate check`")
    }

    /// Says why a project did not open.
    pub(super) fn fail_open(self, error: &OpenError) -> ExitCode {
        match error {
            OpenError::Problems(problems) => self.fail_load(problems),
            other => self.fail(&other.to_string()),
        }
    }

    /// Prints problems: to standard output where they are the report, to standard error otherwise.
    pub(super) fn problems(self, problems: &[Problem], is_report: bool) {
        if self.json {
            if is_report {
                self.value(&render::json(problems));
            }
            return;
        }
        let fancy = if is_report { io::stdout().is_terminal() } else { io::stderr().is_terminal() };
        let mut positions = Positions::default();
        for problem in problems {
            let text = if fancy {
                render::fancy(problem, &mut positions)
            } else {
                render::plain(problem, &mut positions)
            };
            if is_report { self.line(&text) } else { self.note(&text) }
        }
    }
}

/// How many of the problems are errors, and how many warnings.
pub(super) fn count(problems: &[Problem]) -> (usize, usize) {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    (errors, problems.len() - errors)
}

/// `1 error`, `2 errors`.
pub(super) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
