//! A completion: what an argument could be that somebody is writing.

use std::collections::BTreeMap;

use super::Arguments;

/// What has the argument.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Completed {
    /// A prompt, by its name.
    Prompt(String),
    /// A template of resources, by itself.
    Template(String),
}

impl Completed {
    /// The name or the template, as it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Prompt(text) | Self::Template(text) => text,
        }
    }
}

/// An argument that is to be completed (MCP `completion/complete`).
#[derive(Clone, Debug)]
pub struct Completion {
    /// What has it.
    pub of: Completed,
    /// Its name.
    pub argument: String,
    /// What has been written of it, and the others that have been written: by name, as they were sent.
    pub written: BTreeMap<String, String>,
    /// The arguments as the guards see them: those of a call with what has been written so far.
    pub arguments: Arguments,
}
