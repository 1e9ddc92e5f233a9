//! Calls that outlive their request: which tools have them, and how much of them is kept.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ByteSize, TimeSpan};

/// Whether a call is answered with a task, whose result is fetched later (MCP 2026-07-28, the extension
/// `io.modelcontextprotocol/tasks`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskSupport {
    /// Never: whoever calls waits for the answer.
    #[default]
    Never,
    /// Where the client knows tasks; the others wait.
    Offered,
    /// Always: a client that knows no tasks is refused.
    Required,
}

impl TaskSupport {
    /// Whether no call is answered with a task.
    #[must_use]
    pub const fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }
}

/// How long tasks are kept, and how many. They are kept in memory, and end with the process.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TasksSpec {
    /// How long a task's result is kept once it is there, and how long a task waits for what its caller is asked.
    #[serde(default = "default_ttl")]
    pub ttl: TimeSpan,
    /// How many tasks of one client are kept, those under way included.
    #[serde(default = "default_held")]
    pub held: NonZeroU32,
    /// How many tasks are kept of all clients.
    #[serde(default = "default_held_in_all")]
    pub held_in_all: NonZeroU32,
    /// How much the tasks of one client may hold.
    #[serde(default = "default_bytes")]
    pub bytes: ByteSize,
    /// How much the tasks of all clients may hold.
    #[serde(default = "default_bytes_in_all")]
    pub bytes_in_all: ByteSize,
}

impl Default for TasksSpec {
    fn default() -> Self {
        Self {
            ttl: default_ttl(),
            held: default_held(),
            held_in_all: default_held_in_all(),
            bytes: default_bytes(),
            bytes_in_all: default_bytes_in_all(),
        }
    }
}

const fn default_ttl() -> TimeSpan {
    TimeSpan::from_millis(10 * 60_000)
}
const fn default_held() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(255)
}
const fn default_held_in_all() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(4_095)
}
const fn default_bytes() -> ByteSize {
    ByteSize::from_kib(8 << 10)
}
const fn default_bytes_in_all() -> ByteSize {
    ByteSize::from_kib(64 << 10)
}
