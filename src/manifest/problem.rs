//! What is wrong with a file, and where.

use std::{path::PathBuf, sync::Arc};

/// A file that was read: its path as the user knows it, and its text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// The path, relative to the project where it can be.
    pub path: PathBuf,
    /// The whole text.
    pub text: Arc<str>,
}

/// Whether a problem stops the gate from starting.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing loads.
    Error,
    /// It loads, and is probably not what was meant.
    Warning,
}

/// Where in a file a problem is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// The file as a whole.
    File,
    /// The value at a JSON pointer (RFC 6901) of a YAML file.
    Pointer(String),
    /// The key, rather than the value, at a JSON pointer of a YAML file.
    Key(String),
    /// A line and a column, both from 1.
    Position {
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
    /// Bytes of the file.
    Bytes {
        /// The first byte.
        offset: usize,
        /// How many bytes.
        length: usize,
    },
}

/// One thing that is wrong, or doubtful, with a file somebody wrote.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Whether it stops the gate from starting.
    pub severity: Severity,
    /// The file.
    pub source: Source,
    /// Where in it.
    pub place: Place,
    /// What is wrong: lowercase, no full stop, what the user wrote in backticks.
    pub message: String,
    /// What was expected, or what to do.
    pub help: Option<String>,
}

impl Problem {
    /// A problem that stops the gate from starting.
    pub fn error(source: &Source, place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, source: source.clone(), place, message: message.into(), help: None }
    }

    /// A problem that is only pointed out.
    pub fn warning(source: &Source, place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(source, place, message) }
    }

    /// Says what was expected, or what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Place {
    /// The value at `pointer`, with `segment` below it.
    #[must_use]
    pub fn below(pointer: &str, segment: &str) -> Self {
        Self::Pointer(join_pointer(pointer, segment))
    }
}

/// Appends one segment to a JSON pointer, escaped as RFC 6901 §3 demands.
#[must_use]
pub fn join_pointer(pointer: &str, segment: &str) -> String {
    format!("{pointer}/{}", segment.replace('~', "~0").replace('/', "~1"))
}
