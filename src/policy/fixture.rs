//! Small releases for the tests of this module.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    Inputs, Policies, ToolFacts,
    decision::{Decision, PolicyError, Question, RequestFacts, RunFacts, Verdict},
};
use crate::{
    call::User,
    manifest::{
        ClientName, ClientsFile, Effects, Label, Place, Reach, RoleName, ServiceName, Source, ToolName, read,
    },
};

/// A release in the making.
pub(super) struct Fixture {
    clients: Source,
    tools: Vec<OwnedTool>,
    policies: Vec<Source>,
}

struct OwnedTool {
    name: ToolName,
    effects: Effects,
    reach: Reach,
    service: ServiceName,
    input: Map<String, Value>,
    labels: Vec<Label>,
}

impl Fixture {
    pub(super) fn new(clients: &str) -> Self {
        Self {
            clients: Source { path: "clients.yaml".into(), text: clients.into() },
            tools: vec![],
            policies: vec![],
        }
    }

    /// Adds a tool that writes and reaches out, on the service `orders`, whose answers carry `pii`.
    pub(super) fn tool(self, name: &str, input: &str) -> Self {
        self.tool_of(name, input, Effects::Write, Reach::External)
    }

    pub(super) fn tool_of(mut self, name: &str, input: &str, effects: Effects, reach: Reach) -> Self {
        self.tools.push(OwnedTool {
            name: ToolName::parse(name).unwrap(),
            effects,
            reach,
            service: ServiceName::parse("orders").unwrap(),
            input: serde_json::from_str(input).unwrap(),
            labels: vec![Label::parse("pii").unwrap()],
        });
        self
    }

    /// Adds a policy file: `p0.cedar`, `p1.cedar` and so on.
    pub(super) fn policy(mut self, text: &str) -> Self {
        let path = format!("p{}.cedar", self.policies.len()).into();
        self.policies.push(Source { path, text: text.into() });
        self
    }

    fn outcome(&self) -> (Option<Policies>, Vec<crate::manifest::Problem>) {
        let clients: ClientsFile = read(&self.clients).unwrap();
        let tools = self.tools.iter().map(OwnedTool::facts).collect();
        Policies::build(&Inputs {
            tools,
            clients: &clients,
            clients_source: &self.clients,
            policies: &self.policies,
        })
    }

    pub(super) fn build(&self) -> Policies {
        let (policies, problems) = self.outcome();
        policies.unwrap_or_else(|| panic!("{problems:?}"))
    }

    /// The problems, one to a line: severity, file, what the place points at, message, help.
    pub(super) fn problems(&self) -> String {
        let (policies, problems) = self.outcome();
        let is_error =
            |problem: &crate::manifest::Problem| problem.severity == crate::manifest::Severity::Error;
        assert_eq!(policies.is_none(), problems.iter().any(is_error), "policies only when there is no error");
        let mut lines = Vec::new();
        for problem in problems {
            let at = match &problem.place {
                Place::Bytes { offset, length } => {
                    problem.source.text.get(*offset..offset + length).expect("a place in the file").to_owned()
                }
                Place::Pointer(pointer) => pointer.clone(),
                Place::Key(pointer) => format!("key {pointer}"),
                other => format!("{other:?}"),
            };
            lines.push(format!(
                "{:?} {} [{at}] {}",
                problem.severity,
                problem.source.path.display(),
                problem.message
            ));
            lines.extend(problem.help.map(|help| format!("  help: {help}")));
        }
        lines.join("\n")
    }
}

impl OwnedTool {
    fn facts(&self) -> ToolFacts<'_> {
        ToolFacts {
            name: &self.name,
            effects: self.effects,
            reach: self.reach,
            service: &self.service,
            input: &self.input,
            labels: &self.labels,
        }
    }
}

/// The facts of a call over HTTP by `bot`.
pub(super) struct Facts {
    pub(super) client: ClientName,
    pub(super) roles: BTreeSet<RoleName>,
    pub(super) user: Option<User>,
    pub(super) run: RunFacts,
    pub(super) request: RequestFacts,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            client: ClientName::parse("bot").unwrap(),
            roles: BTreeSet::new(),
            user: None,
            run: RunFacts { labels: [Label::parse("seen").unwrap()].into(), calls: 7 },
            request: RequestFacts {
                transport: "http".into(),
                source: None,
                time: "2026-11-23T10:20:30.4567Z".parse().unwrap(),
                authentication: "api-key".into(),
            },
        }
    }
}

impl Facts {
    pub(super) fn question(&self) -> Question<'_> {
        Question {
            client: &self.client,
            roles: &self.roles,
            user: self.user.as_ref(),
            run: &self.run,
            request: &self.request,
        }
    }
}

/// Decides a call and says the decision in a line.
pub(super) fn decide(policies: &Policies, client: &str, tool: &str, arguments: &str) -> String {
    let facts = Facts { client: ClientName::parse(client).unwrap(), ..Facts::default() };
    let arguments = serde_json::from_str(arguments).unwrap();
    said(policies.decide(&facts.question(), &ToolName::parse(tool).unwrap(), &arguments))
}

/// Asks whether a label may leave and says the decision in a line.
pub(super) fn release(policies: &Policies, client: &str, label: &str) -> String {
    let facts = Facts { client: ClientName::parse(client).unwrap(), ..Facts::default() };
    said(policies.release(&facts.question(), &Label::parse(label).unwrap()))
}

fn said(decision: Result<Decision, PolicyError>) -> String {
    let decision = match decision {
        Ok(decision) => decision,
        Err(error) => return format!("error: {error}"),
    };
    let verdict = match decision.verdict {
        Verdict::Allow => "allow".to_owned(),
        Verdict::Deny => "deny".to_owned(),
        Verdict::Pending(all) => {
            let all: Vec<String> = all.iter().map(|it| format!("{}:{}", it.group, it.people)).collect();
            format!("pending {}", all.join(" "))
        }
    };
    let policies = decision.policies.iter().map(|it| match &it.reason {
        Some(reason) => format!("; `{}`: {reason}", it.id),
        None => format!("; `{}`", it.id),
    });
    verdict + &policies.collect::<String>()
}
