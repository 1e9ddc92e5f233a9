//! Upstreams: other MCP servers, whose client the gate is.
//!
//! All of it is raw JSON. What an upstream says is held against what a person has reviewed, and members that no
//! typed model knows count there. Each message passes the strict scanner before anything else reads it.
//!
//! A [`Connection`] speaks one of the protocol's two eras, over standard input and output of a child process or
//! over Streamable HTTP. A [`Pool`] holds the connections to one upstream.

mod connection;
mod desk;
mod error;
mod handshake;
mod http;
mod links;
mod message;
mod meta;
mod pin;
mod pool;
mod process;
mod program;
mod sse;
mod standing;
mod stdio;
mod watch;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use secrecy::SecretString;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    call::{Era, Relay},
    egress::{Departure, Way},
    manifest::Digest,
};

pub use connection::Connection;
pub use error::UpstreamError;
pub use pin::{Difference, Fit, Place, definition_digest, difference, fit, fit_by, instructions_digest};
pub use pool::{Pool, PoolBounds, Taken};
pub use program::{EndpointFault, Reached, file_digest, find_program};
pub use standing::{
    NotReady, Notice, Pinned, PinnedTool, Quarantine, Standing, State, ToolStanding, Upstreams, Want, Why,
};
pub use watch::Watch;

/// How an upstream is reached.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// A child process, by its standard input and output.
    Stdio(Program),
    /// A server, by Streamable HTTP.
    Http(HttpEndpoint),
}

/// A child process. It gets no environment but this, and a process group of its own.
#[derive(Clone, Debug)]
pub struct Program {
    /// The upstream's name, which its log lines bear.
    pub name: Arc<str>,
    /// The program.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, `PATH` included.
    pub env: BTreeMap<String, SecretString>,
    /// The folder it is started in.
    pub dir: PathBuf,
    /// Files that are looked at right before it is started, and what they have to be.
    pub pinned: Vec<(PathBuf, Digest)>,
}

/// A server.
#[derive(Clone, Debug)]
pub struct HttpEndpoint {
    /// Its MCP endpoint.
    pub url: Url,
    /// The way there.
    pub way: Way,
}

/// What the gate says of itself.
#[derive(Clone, Debug)]
pub struct Hello {
    /// How it would like to speak. An upstream that speaks otherwise is spoken to as it speaks.
    pub era: Era,
    /// What it says it can do (MCP `ClientCapabilities`).
    pub abilities: Map<String, Value>,
}

/// Bounds on one connection.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long a message may be, in bytes.
    pub message_bytes_max: usize,
    /// How many JSON values a message may hold.
    pub values_max: usize,
    /// How many messages may come before the answer to one request, over HTTP.
    pub messages_max: usize,
    /// How many pages a list may have.
    pub pages_max: usize,
    /// How many items a list may have.
    pub items_max: usize,
    /// How many requests may wait for an answer at once.
    pub requests_max: usize,
    /// How long starting, connecting and agreeing on a version may take together.
    pub connect_timeout: Duration,
    /// How long an upstream may take to say whether it speaks without sessions. Old ones may not answer at all.
    pub discover_timeout: Duration,
    /// How long all the pages of a list may take together.
    pub list_timeout: Duration,
    /// How long a child process may take to end by itself, and then again when it is asked to.
    pub exit_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            message_bytes_max: 4 << 20,
            values_max: 100_000,
            messages_max: 10_000,
            pages_max: 100,
            items_max: 10_000,
            requests_max: 256,
            connect_timeout: Duration::from_secs(30),
            discover_timeout: Duration::from_secs(5),
            list_timeout: Duration::from_secs(30),
            exit_timeout: Duration::from_secs(2),
        }
    }
}

/// What an upstream says of itself.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// How it is spoken to.
    pub era: Era,
    /// The protocol's version.
    pub version: &'static str,
    /// What it says it can do (MCP `ServerCapabilities`).
    pub capabilities: Map<String, Value>,
    /// How it says it is to be used.
    pub instructions: Option<String>,
    /// Its name and version, and what it says besides (MCP `Implementation`).
    pub info: Map<String, Value>,
}

/// One request's own circumstances.
#[derive(Clone, Debug)]
pub struct Exchange<'a> {
    /// When an answer is no longer waited for.
    pub deadline: Instant,
    /// Fires when the caller gives up.
    pub cancel: &'a CancellationToken,
    /// The line to the caller.
    pub relay: Option<&'a Relay>,
    /// What the upstream may ask the caller.
    pub asks: Asks,
    /// The input schema of the tool that is called, whose `x-mcp-header` annotations make header fields.
    pub input_schema: Option<&'a Map<String, Value>>,
    /// What the request may leave on: looked at right before it is sent.
    pub(crate) departure: Option<&'a Arc<Departure>>,
}

impl<'a> Exchange<'a> {
    /// A request that nobody but the gate itself is behind.
    #[must_use]
    pub fn new(deadline: Instant, cancel: &'a CancellationToken) -> Self {
        let asks = Asks::default();
        Self { deadline, cancel, relay: None, asks, input_schema: None, departure: None }
    }
}

/// What an upstream may ask a caller. All else is refused at once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Asks {
    /// `sampling/createMessage`.
    pub sampling: bool,
    /// `elicitation/create`.
    pub elicitation: bool,
    /// `roots/list`.
    pub roots: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The result, with all that it holds. In the era without sessions it may ask for input
    /// (`resultType: input_required`).
    pub result: Map<String, Value>,
    /// How long the message was.
    pub bytes: usize,
    /// The address that answered; none for a child process.
    pub peer: Option<SocketAddr>,
}

/// What an upstream tells about itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A list is another now: `tools`, `prompts` or `resources`.
    ListChanged(&'static str),
    /// The connection is gone.
    Closed,
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
