//! What a decision was made on: the facts of a call, and how they are kept for a later replay.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Decision, Policies, PolicyError, Question, RequestFacts, RunFacts};
use crate::{
    call::User,
    identity::Identified,
    manifest::{ClientName, RoleName, ToolName},
};

/// The version of [`DecisionInput`]'s JSON.
const VERSION: u32 = 1;

/// What policies are told of a call besides its arguments.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CallFacts {
    client: ClientName,
    request: RequestFacts,
    /// The roles that the caller's token brought along.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    roles: BTreeSet<RoleName>,
    run: RunFacts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<User>,
}

impl CallFacts {
    /// The facts of an identified call.
    #[must_use]
    pub fn of(call: &Identified) -> Self {
        Self {
            client: call.caller().client().name().clone(),
            roles: call.caller().token_roles().cloned().collect(),
            run: RunFacts { labels: call.run().labels().clone(), calls: call.run().calls() },
            request: RequestFacts {
                transport: call.origin.transport.word().into(),
                source: call.origin.source,
                time: call.received,
                authentication: call.caller().authentication().word().into(),
            },
            user: call.caller().user().cloned(),
        }
    }

    /// The facts as a question.
    #[must_use]
    pub const fn question(&self) -> Question<'_> {
        Question {
            client: &self.client,
            roles: &self.roles,
            user: self.user.as_ref(),
            run: &self.run,
            request: &self.request,
        }
    }
}

/// What a decision was made on, besides the arguments and the release. The policies of that release
/// come to the same decision again, with [`Policies::replay`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionInput {
    facts: CallFacts,
    /// The id of the run. No policy reads it.
    run: String,
    #[serde(deserialize_with = "ToolName::kept")]
    tool: ToolName,
    v: u32,
}

/// Why kept bytes are not what a decision was made on.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It is not of this form.
    #[error("what was kept is not what a decision is made on")]
    Form(#[source] serde_json::Error),
    /// Another version wrote it.
    #[error("what was kept is of version {version}; this program reads {VERSION}")]
    Version {
        /// The version.
        version: u64,
    },
}

impl DecisionInput {
    /// The facts that a decision about a call of this tool was made on.
    pub(super) const fn new(facts: CallFacts, run: String, tool: ToolName) -> Self {
        Self { facts, run, tool, v: VERSION }
    }

    /// Reads what was kept.
    ///
    /// # Errors
    /// When it is not of a form, or of a version, that this program knows.
    pub fn parse(kept: &[u8]) -> Result<Self, InputError> {
        let value: Value = serde_json::from_slice(kept).map_err(InputError::Form)?;
        match value.get("v").and_then(Value::as_u64) {
            Some(version) if version != u64::from(VERSION) => Err(InputError::Version { version }),
            _ => serde_json::from_value(value).map_err(InputError::Form),
        }
    }

    /// The tool that was called.
    #[must_use]
    pub const fn tool(&self) -> &ToolName {
        &self.tool
    }

    /// The run that the call belonged to.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// What policies were told.
    #[must_use]
    pub const fn facts(&self) -> &CallFacts {
        &self.facts
    }
}

impl Policies {
    /// Decides again what was decided on this input, about these arguments.
    ///
    /// # Errors
    /// When policies cannot answer. That is a denial.
    pub fn replay(
        &self,
        input: &DecisionInput,
        arguments: &Map<String, Value>,
    ) -> Result<Decision, PolicyError> {
        self.decide(&input.facts.question(), &input.tool, arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};

    fn input() -> DecisionInput {
        let fixture::Facts { client, run, mut request, .. } = fixture::Facts::default();
        request.source = Some("10.1.2.3".parse().unwrap());
        let user = User { issuer: "https://id.example".to_owned(), subject: "lee".to_owned() };
        let facts = CallFacts { client, request, roles: BTreeSet::new(), run, user: Some(user) };
        DecisionInput::new(facts, "run-1".to_owned(), ToolName::parse("t").unwrap())
    }

    #[test]
    fn what_is_kept_has_the_documented_form_and_is_read_as_it_was() {
        let kept = serde_json::to_string(&input()).unwrap();
        insta::assert_snapshot!(kept, @r#"{"facts":{"client":"bot","request":{"authentication":"api-key","source":"10.1.2.3","time":"2026-11-23T10:20:30.4567Z","transport":"http"},"run":{"calls":7,"labels":["seen"]},"user":{"issuer":"https://id.example","subject":"lee"}},"run":"run-1","tool":"t","v":1}"#);
        assert_eq!(DecisionInput::parse(kept.as_bytes()).unwrap(), input());
        let documented = include_str!("../../docs/audit-format.md");
        assert!(documented.contains(&kept), "the sample in the document is not of this form");
    }

    #[test]
    fn what_is_not_of_this_version_is_refused() {
        let kept = serde_json::to_value(input()).unwrap();
        let refused = |edit: fn(&mut Value)| {
            let mut kept = kept.clone();
            edit(&mut kept);
            let error = DecisionInput::parse(kept.to_string().as_bytes()).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}; {}", source.unwrap_or_default())
        };
        insta::assert_snapshot!(refused(|kept| kept["v"] = 2.into()), @"what was kept is of version 2; this program reads 1; ");
        // A fact that this program does not know could be what decided.
        insta::assert_snapshot!(refused(|kept| kept["facts"]["more"] = 1.into()), @"what was kept is not what a decision is made on; unknown field `more`, expected one of `client`, `request`, `roles`, `run`, `user`");
        assert!(DecisionInput::parse(b"1").is_err());
        assert!(DecisionInput::parse(b"no json").is_err());
    }

    #[test]
    fn what_was_kept_gives_the_decision_again() {
        let policies = fixture::Fixture::new("clients:\n  bot: { owner: dana }\n")
            .tool("t", "{}")
            .policy(
                r#"@id("all") permit (principal, action, resource) when {
                    context.run.labels.contains("seen") && context.run.calls == 7
                    && context.request.transport == "http" && context.request.authentication == "api-key"
                    && context.request.time == datetime("2026-11-23T10:20:30.456Z")
                    && context.request has source && context.request.source == ip("10.1.2.3")
                    && context has user && context.user.subject == "lee"
                };"#,
            )
            .build();
        let kept = serde_json::to_vec(&input()).unwrap();
        let again = policies.replay(&DecisionInput::parse(&kept).unwrap(), &Map::new()).unwrap();
        assert!(again.is_allow() && &*again.policies[0].id == "all", "{again:?}");
    }
}
