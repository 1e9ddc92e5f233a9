//! Calls that go no further than the edge: their message is wrong, whatever they ask for.

use crate::call::{Refusal, Stage};

/// Why a call was refused before any guard saw it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct EdgeError {
    /// The reason in one word, stable over versions.
    pub code: &'static str,
    /// The reason in a sentence, which the agent is told too.
    pub message: String,
}

impl Refusal for EdgeError {
    fn stage(&self) -> Stage {
        Stage::Edge
    }
    fn code(&self) -> &'static str {
        self.code
    }
    fn public_message(&self) -> String {
        self.message.clone()
    }
}
