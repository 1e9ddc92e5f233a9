//! The shared nouns: a call, how it ended, and the trail it leaves.

mod completion;
mod facts;
mod relay;
mod salt;
mod trace;
mod trail;
mod updates;

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::manifest::ClientName;

pub use completion::{Completed, Completion};
pub use facts::{
    AnswerFacts, CallerFacts, DecisionFacts, DecisionVerdict, Facts, HiddenFacts, Judged, PolicyFact,
    TokenFacts, ToolFacts,
};
pub use relay::{Era, NoAnswer, Passing, Relay, Retry};
pub use salt::{Digested, Salt};
pub use trace::TraceId;
pub use trail::{Passed, Refusal, StageNote, Trail};
pub use updates::{UpdateBox, Updates};

/// One request of a client: what it asks for, and what it shows to prove who it is.
#[derive(Debug)]
pub struct Call {
    /// The call's own id, which its records carry.
    pub id: CallId,
    /// What is asked for.
    pub kind: CallKind,
    /// What the caller shows.
    pub proof: Proof,
    /// Where it came from.
    pub origin: Origin,
    /// The trace it belongs to, where the client names one.
    pub trace: Option<TraceId>,
    /// When it arrived.
    pub received: Timestamp,
    /// Cancelled when the caller no longer waits.
    pub cancel: CancellationToken,
    /// The line to the caller while the call lasts, where its transport has one.
    pub relay: Option<Relay>,
    /// What the caller brings, where it makes the call again because it was asked something.
    pub retry: Option<Retry>,
    /// Set where it may outlive its request, and cancelled when it is under way, and no answer is there yet.
    pub outlives: Option<CancellationToken>,
}

impl Call {
    /// A call that arrives now.
    #[must_use]
    pub fn now(kind: CallKind, proof: Proof, origin: Origin, cancel: CancellationToken) -> Self {
        let received = Timestamp::now();
        let id = CallId::random(received);
        let (trace, relay, retry, outlives) = (None, None, None, None);
        Self { id, kind, proof, origin, trace, received, cancel, relay, retry, outlives }
    }

    /// The same call, with a line to its caller.
    #[must_use]
    pub fn relayed(self, relay: Relay) -> Self {
        Self { relay: Some(relay), ..self }
    }

    /// Says that it is under way, to whoever waits to answer that it outlives its request.
    pub fn is_under_way(&self) {
        if let Some(outlives) = &self.outlives {
            outlives.cancel();
        }
    }

    /// The same call, of the trace that a `traceparent` names.
    #[must_use]
    pub fn traced(mut self, traceparent: Option<&str>) -> Self {
        self.trace = traceparent.and_then(TraceId::of_traceparent);
        self
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum CallKind {
    /// A tool call (MCP `tools/call`).
    Tool {
        /// The tool's name, as it was sent.
        name: String,
        /// The arguments.
        arguments: Arguments,
    },
    /// A resource read (MCP `resources/read`).
    Resource {
        /// The resource's URI.
        uri: String,
        /// The same, as the guards see it: the argument `uri`.
        arguments: Arguments,
    },
    /// A prompt get (MCP `prompts/get`).
    Prompt {
        /// The prompt's name.
        name: String,
        /// The arguments.
        arguments: Arguments,
    },
    /// A completion of an argument (MCP `completion/complete`).
    Completion(Completion),
    /// A wish to hear when a resource is another (MCP `resources/subscribe`, `subscriptions/listen`).
    Subscription {
        /// The resource's URI, as the argument `uri`.
        arguments: Arguments,
        /// Where it is heard.
        updates: Updates,
    },
}

impl CallKind {
    /// A read of the resource with this URI.
    #[must_use]
    pub fn resource(uri: String) -> Self {
        Self::Resource { arguments: Arguments::uri(&uri), uri }
    }

    /// A wish to hear of the resource that updates are of.
    #[must_use]
    pub fn subscription(updates: Updates) -> Self {
        Self::Subscription { arguments: Arguments::uri(updates.uri()), updates }
    }

    /// The name of what is asked for, as it was sent.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Tool { name, .. } | Self::Prompt { name, .. } => name,
            Self::Resource { uri, .. } => uri,
            Self::Completion(completion) => completion.of.as_str(),
            Self::Subscription { updates, .. } => updates.uri(),
        }
    }

    /// The kind in one word, for the record.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Tool { .. } => "tool",
            Self::Resource { .. } => "resource",
            Self::Prompt { .. } => "prompt",
            Self::Completion(_) => "completion",
            Self::Subscription { .. } => "subscription",
        }
    }

    /// The arguments.
    #[must_use]
    pub const fn arguments(&self) -> &Arguments {
        match self {
            Self::Tool { arguments, .. }
            | Self::Prompt { arguments, .. }
            | Self::Resource { arguments, .. }
            | Self::Subscription { arguments, .. }
            | Self::Completion(Completion { arguments, .. }) => arguments,
        }
    }
}

/// The arguments of a call: a JSON object.
#[derive(Clone, Debug)]
pub struct Arguments(Value);

impl Arguments {
    /// What a read of this URI has for arguments.
    #[must_use]
    pub fn uri(uri: &str) -> Self {
        Map::from_iter([("uri".to_owned(), Value::String(uri.to_owned()))]).into()
    }

    /// The arguments as a map.
    #[must_use]
    pub fn as_map(&self) -> &Map<String, Value> {
        static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        // INVARIANT: the value is an object; nothing makes another.
        self.0.as_object().unwrap_or(&NONE)
    }

    /// The arguments as a value, which is always an object.
    #[must_use]
    pub const fn as_value(&self) -> &Value {
        &self.0
    }
}

impl From<Map<String, Value>> for Arguments {
    fn from(arguments: Map<String, Value>) -> Self {
        Self(Value::Object(arguments))
    }
}

/// What a caller shows to prove who it is, and which run it says it is in.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// Who it says it is.
    pub claim: Claim,
    /// The certificate that it showed, and that the listener verified.
    pub certificate: Option<Arc<Certificate>>,
    /// The run that it says it is in.
    pub run: Option<RunClaim>,
}

/// Who a caller says it is.
#[derive(Clone, Debug, Default)]
pub enum Claim {
    /// Nobody: only a certificate may tell.
    #[default]
    Nothing,
    /// Whoever this bearer token stands for: an API key, or an access token.
    Bearer(SecretString),
    /// This client, on a local process's word, over stdio or on the command line.
    Asserted(ClientName),
}

/// The run that a caller says it is in.
#[derive(Clone, Debug)]
pub enum RunClaim {
    /// That of a session of the older revisions, by the session's id.
    Session(SecretString),
    /// That of the process that it is.
    Process(String),
}

impl Proof {
    /// A proof that is a bearer token.
    #[must_use]
    pub fn bearer(token: impl Into<SecretString>) -> Self {
        Self { claim: Claim::Bearer(token.into()), ..Self::default() }
    }

    /// A proof that is a local process's word.
    #[must_use]
    pub fn asserted(client: ClientName) -> Self {
        Self { claim: Claim::Asserted(client), ..Self::default() }
    }
}

/// A client certificate whose chain the listener verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    /// The SHA-256 of its DER form (RFC 8705 §3.1).
    pub sha256: [u8; 32],
    /// Its subject, in the form of RFC 4514.
    pub subject: String,
    /// Its alternative names, each with its kind: `dns:`, `uri:`, `email:`.
    pub names: Vec<String>,
}

/// An end user, as somebody vouches for them.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Who vouches.
    pub issuer: String,
    /// Who the user is there.
    pub subject: String,
}

/// Where a call came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Origin {
    /// How it arrived.
    pub transport: Transport,
    /// The address it came from, where there is one.
    pub source: Option<IpAddr>,
}

/// How a call arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Streamable HTTP.
    Http,
    /// Standard input and output.
    Stdio,
    /// The command line.
    Cli,
}

impl Transport {
    /// The word that stands for it in policies and records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Stdio => "stdio",
            Self::Cli => "cli",
        }
    }
}

/// The id of one call: 16 bytes in hexadecimal, of which the first six count milliseconds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CallId([u8; 16]);

impl CallId {
    /// An id of the time it was made and ten random bytes.
    #[must_use]
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        let [_, _, time @ ..] = now.as_millisecond().to_be_bytes();
        let mut id = [0; 16];
        for (byte, value) in id.iter_mut().zip(time.into_iter().chain(random)) {
            *byte = value;
        }
        Self(id)
    }
}

impl CallId {
    /// An id of the time and ten bytes from the system's source of randomness.
    #[must_use]
    pub fn random(now: Timestamp) -> Self {
        let mut random = [0; 10];
        // Without random bytes an id is still unique within its millisecond's log.
        let _ = aws_lc_rs::rand::fill(&mut random);
        Self::new(now, random)
    }
}

impl CallId {
    /// The id as a number.
    #[must_use]
    pub const fn number(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for CallId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was carried out and its answer released.
    Allowed,
    /// A guard refused it; nothing was sent.
    Denied,
    /// A person has to agree first; nothing was sent.
    Pending,
    /// It was carried out, and its answer may not leave.
    Withheld,
    /// It was tried and failed.
    Failed,
    /// Its effect may have happened, and no answer came.
    Unknown,
}

impl Outcome {
    /// The outcome in one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Pending => "pending",
            Self::Withheld => "withheld",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The guards, in the order of a call.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Is it a message that can be read in one way only?
    Edge,
    /// Who calls?
    Identity,
    /// Does the tool exist for this caller?
    Catalog,
    /// Are budgets left?
    Limits,
    /// Do the arguments fit?
    Schema,
    /// May this caller do this?
    Policy,
    /// What exactly would be sent?
    Plan,
    /// Has a person agreed?
    Approval,
    /// Is it on record?
    Audit,
    /// Did the backend answer?
    Backend,
    /// May the answer leave?
    Output,
    /// The gate itself.
    Gateway,
}

impl Stage {
    /// The stage in one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Identity => "identity",
            Self::Catalog => "catalog",
            Self::Limits => "limits",
            Self::Schema => "schema",
            Self::Policy => "policy",
            Self::Plan => "plan",
            Self::Approval => "approval",
            Self::Audit => "audit",
            Self::Backend => "backend",
            Self::Output => "output",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time() {
        let id = |second| CallId::new(Timestamp::from_second(second).unwrap(), [0xff; 10]);
        assert!(id(1) < id(2));
        assert_eq!(id(1).to_string(), "0000000003e8ffffffffffffffffffff");
    }

    #[test]
    fn a_proof_does_not_print_its_secret() {
        let proof = Proof::bearer("cg_k1_hunter2".to_owned());
        assert!(!format!("{proof:?}").contains("hunter2"));
    }
}
