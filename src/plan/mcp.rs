//! A plan: how a tool of another MCP server is called. Pure.
//!
//! Its arguments go along as they are: the gate's schema has judged them, and names of the gate's own making
//! have no place in them.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    PlanError,
    urls::{Misplaced, UrlArguments},
};

/// How a tool of another MCP server is called.
#[derive(Clone, Debug)]
pub struct McpPlan {
    tool: Arc<str>,
    urls: UrlArguments,
}

/// A call of a tool of another MCP server, ready but for its credential.
#[derive(Clone, Debug)]
pub struct OutgoingCall {
    tool: Arc<str>,
    resumed: Option<Resumed>,
}

/// What goes along where a call is made again because the server asked something.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// The answers, by the keys of the questions.
    pub responses: Map<String, Value>,
    /// What the server wanted to see again.
    pub state: Option<String>,
}

impl McpPlan {
    /// Looks for the URLs among a tool's arguments, once, at load.
    ///
    /// # Errors
    /// Where one is declared that would not be found in arguments.
    pub fn compile(tool: &str, input: &Map<String, Value>) -> Result<Self, Vec<PlanError>> {
        let misplaced = |Misplaced { at, message }| PlanError::Url { at, message };
        let urls = UrlArguments::find(input)
            .map_err(|found| found.into_iter().map(misplaced).collect::<Vec<_>>())?;
        Ok(Self { tool: tool.into(), urls })
    }

    pub(super) fn call(&self) -> OutgoingCall {
        OutgoingCall { tool: Arc::clone(&self.tool), resumed: None }
    }

    pub(super) fn urls<'a>(&self, arguments: &'a Map<String, Value>) -> Vec<(String, &'a str)> {
        self.urls.of(arguments)
    }
}

impl OutgoingCall {
    pub(super) fn resume(&self, resumed: Resumed) -> Self {
        Self { tool: Arc::clone(&self.tool), resumed: Some(resumed) }
    }

    /// The tool's name at its server.
    #[must_use]
    pub fn tool(&self) -> &str {
        &self.tool
    }

    /// What goes along where the server asked something before.
    #[must_use]
    pub const fn resumed(&self) -> Option<&Resumed> {
        self.resumed.as_ref()
    }
}
