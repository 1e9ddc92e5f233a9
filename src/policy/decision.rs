//! The questions that policies answer, and their answers.

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr, num::NonZeroU32, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    call::User,
    manifest::{ClientName, GroupName, Label, RoleName, ToolName},
};

/// The facts of a call, without its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who calls.
    pub client: &'a ClientName,
    /// The roles that its token brings along, besides those of the client.
    pub roles: &'a BTreeSet<RoleName>,
    /// For whom, where that is known.
    pub user: Option<&'a User>,
    /// The run that the call is part of.
    pub run: &'a RunFacts,
    /// How the call came in.
    pub request: &'a RequestFacts,
}

/// What a run has seen and done so far.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RunFacts {
    /// How many calls it has made before this one.
    pub calls: u64,
    /// The labels of what it has seen.
    pub labels: BTreeSet<Label>,
}

/// How a call came in.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RequestFacts {
    /// What vouches for the client: `asserted` or `api-key`.
    pub authentication: Cow<'static, str>,
    /// The address that it came from. A local process has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// When it came in.
    pub time: Timestamp,
    /// How it came: `stdio` or `http`.
    pub transport: Cow<'static, str>,
}

/// The answer of the policies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// What may be done.
    pub verdict: Verdict,
    /// The policies that decide, in the order of the files and of the policies in them. Of a denial
    /// these are the forbids that no approval lifts, and none where nothing permits the call.
    pub policies: Vec<Deciding>,
}

/// A policy that decides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Deciding {
    /// Its `@id`.
    pub id: Arc<str>,
    /// Its `@reason`: what the agent is told.
    pub reason: Option<Arc<str>>,
}

/// What may be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It may be done.
    Allow,
    /// It may not.
    Deny,
    /// It may, once all of these have approved. One obligation per group, in the order of their names.
    Pending(Vec<Obligation>),
}

/// So many people of a group.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Obligation {
    /// The group of approvers, or `user` for the end user of the call.
    pub group: GroupName,
    /// How many of its people.
    pub people: NonZeroU32,
}

/// Why policies could not answer. Each is a denial.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// The client is not in the clients file.
    #[error("unknown client `{client}`")]
    UnknownClient {
        /// The client's name.
        client: ClientName,
    },
    /// The tool is not loaded.
    #[error("unknown tool `{tool}`")]
    UnknownTool {
        /// The tool's name.
        tool: ToolName,
    },
    /// An argument is of the wrong type, or has no exact Cedar value.
    #[error("policies cannot read the argument `{pointer}`: {reason}")]
    Argument {
        /// The JSON pointer of the argument.
        pointer: String,
        /// Why not.
        reason: String,
    },
    /// A fact of the call has no Cedar value.
    #[error("policies cannot read the facts of the call: {reason}")]
    Facts {
        /// Why not.
        reason: String,
    },
    /// A policy could not be evaluated. Cedar by itself would go on without it, a forbid too.
    #[error("cannot evaluate {}: {reason}", quoted(policies))]
    Evaluation {
        /// The `@id`s of all policies that failed, in order.
        policies: Vec<Arc<str>>,
        /// Why the first of them failed.
        reason: String,
    },
}

fn quoted(ids: &[Arc<str>]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("policy `{id}`")).collect();
    ids.join(", ")
}
