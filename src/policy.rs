//! Who may do what, and what may leave: the policies of the security team, in Cedar.
//!
//! The Cedar schema is generated from the tools and from the attributes of the clients, so a policy
//! that names an argument that does not exist does not load. Everything that a call does not change
//! is built at load; a call builds its context, and asks the policies that can apply to it.
//!
//! All of it is pure: no file, no clock. `docs/policy.md` is the guide for those who write policies.

mod annotation;
mod authorized;
mod build;
mod context;
mod decision;
#[cfg(test)]
mod fixture;
mod input;
mod load;
mod nesting;
mod pending;
mod principal;
mod schema;
mod slice;
mod types;
mod unseen;
mod validate;
mod value;
mod vocabulary;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
    thread,
};

pub use authorized::{AuthorizeError, Authorized};
use cedar_policy::{Context, Entities, EntityUid, Request};
pub use decision::{Deciding, Decision, Obligation, PolicyError, Question, RequestFacts, RunFacts, Verdict};
pub use input::{CallFacts, DecisionInput, InputError};
use serde_json::{Map, Value};

use self::{
    pending::Register,
    principal::Principal,
    slice::{Class, Slice, Slices},
    types::Record,
    vocabulary::Vocabulary,
};
use crate::manifest::{
    ClientName, ClientsFile, Effects, Label, Place, Problem, Reach, RoleName, ServiceName, Source, ToolName,
};

/// What policies need to know of a tool.
#[derive(Clone, Copy, Debug)]
pub struct ToolFacts<'a> {
    /// Its name, and so the name of its action.
    pub name: &'a ToolName,
    /// What it changes.
    pub effects: Effects,
    /// Where what it is given can end up.
    pub reach: Reach,
    /// The service that it calls: the resource of its action.
    pub service: &'a ServiceName,
    /// The JSON Schema of its arguments.
    pub input: &'a Map<String, Value>,
    /// The labels (`x-label`) of its output schema.
    pub labels: &'a [Label],
}

/// What policies are built from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The tools, each name once.
    pub tools: Vec<ToolFacts<'a>>,
    /// The clients, their attributes, and the groups of approvers.
    pub clients: &'a ClientsFile,
    /// The file that the clients are from.
    pub clients_source: &'a Source,
    /// The policy files, `*.cedar`.
    pub policies: &'a [Source],
}

/// The policies of one release, ready to decide.
#[derive(Debug)]
pub struct Policies {
    words: Vocabulary,
    schema: schema::Generated,
    entities: Entities,
    clients: HashMap<ClientName, (Principal, Class)>,
    tools: HashMap<ToolName, Tool>,
    release: EntityUid,
    /// The target of each label that a tool's answers carry.
    labels: HashMap<Label, usize>,
    /// The target of every other label.
    other_labels: usize,
    slices: Slices,
    register: Register,
    /// The entities as they are for a client whose token brings roles along, made when first asked for.
    with_token_roles: RwLock<HashMap<TokenRoles, Arc<Entities>>>,
}

/// A client, and the roles that a token of it brings along.
type TokenRoles = (ClientName, BTreeSet<RoleName>);

/// How many sets of token roles are remembered; beyond it they are made anew.
const TOKEN_ROLES_MAX: usize = 1_024;

#[derive(Debug)]
struct Tool {
    action: EntityUid,
    service: EntityUid,
    arguments: Record,
    target: usize,
}

impl Policies {
    /// Builds the policies; reports all problems at once. There are policies when none is an error.
    #[must_use]
    pub fn build(inputs: &Inputs<'_>) -> (Option<Self>, Vec<Problem>) {
        let mut problems = Vec::new();
        let policies = on_a_deep_stack(|| Self::assemble(inputs, &mut problems)).unwrap_or_else(|reason| {
            let message = format!("the clients and the tools make no Cedar schema: {reason}");
            problems.push(Problem::error(inputs.clients_source, Place::File, message));
            None
        });
        (policies, problems)
    }

    /// May this caller call this tool, with these arguments, in this run?
    ///
    /// # Errors
    /// When policies cannot answer. That is a denial.
    pub fn decide(
        &self,
        question: &Question<'_>,
        tool: &ToolName,
        arguments: &Map<String, Value>,
    ) -> Result<Decision, PolicyError> {
        let known = self.tools.get(tool).ok_or_else(|| PolicyError::UnknownTool { tool: tool.clone() })?;
        let arguments = known.arguments.convert(arguments).map_err(|misfit| PolicyError::Argument {
            pointer: misfit.pointer(),
            reason: misfit.to_string(),
        })?;
        let context = context::context(question, Some(arguments))?;
        self.ask(question, &known.action, known.service.clone(), known.target, context)
    }

    /// May fields with this label leave, to this caller? Nothing leaves that is not permitted.
    ///
    /// The answer is [`Verdict::Allow`] or [`Verdict::Deny`]: no approval releases a label.
    ///
    /// # Errors
    /// When policies cannot answer. That is a denial.
    pub fn release(&self, question: &Question<'_>, label: &Label) -> Result<Decision, PolicyError> {
        let target = self.labels.get(label).copied().unwrap_or(self.other_labels);
        let context = context::context(question, None)?;
        self.ask(question, &self.release, self.words.label(label.as_str()), target, context)
    }

    /// The schema that the policies are checked against, as Cedar text: for people and their editors.
    #[must_use]
    pub fn cedar_schema(&self) -> &str {
        &self.schema.text
    }

    fn ask(
        &self,
        question: &Question<'_>,
        action: &EntityUid,
        resource: EntityUid,
        target: usize,
        context: Context,
    ) -> Result<Decision, PolicyError> {
        let unknown = || PolicyError::UnknownClient { client: question.client.clone() };
        let (principal, class) = self.clients.get(question.client).ok_or_else(unknown)?;
        // INVARIANT: every class has a slice of every target.
        let slice: &Slice = self.slices.find(*class, target).ok_or_else(unknown)?;
        // INVARIANT: the tree that made the schema made the context, too. Checking one against the other
        // takes a third of the whole decision; every test does, and a release build does not.
        let schema = cfg!(debug_assertions).then_some(&self.schema.schema);
        let request = Request::new(principal.uid.clone(), action.clone(), resource, context, schema)
            .map_err(|error| PolicyError::Facts { reason: error.to_string() })?;
        if question.roles.is_empty() {
            return pending::judge(slice, &self.register, &request, &self.entities);
        }
        let entities = self.entities_of(question, principal)?;
        pending::judge(slice, &self.register, &request, &entities)
    }

    /// The entities, in which a client has the roles that its token brings along, too.
    fn entities_of(
        &self,
        question: &Question<'_>,
        principal: &Principal,
    ) -> Result<Arc<Entities>, PolicyError> {
        let key = (question.client.clone(), question.roles.clone());
        let known = self.with_token_roles.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let roles = question.roles.iter().map(|role| self.words.role(role.as_str()));
        let entities = principal.entity_with(roles).and_then(|entity| {
            let with = self.entities.clone().upsert_entities([entity], Some(&self.schema.schema));
            with.map_err(|error| error.to_string())
        });
        let entities = Arc::new(entities.map_err(|reason| PolicyError::Facts { reason })?);
        let mut all = self.with_token_roles.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TOKEN_ROLES_MAX {
            all.clear();
        }
        all.insert(key, Arc::clone(&entities));
        Ok(entities)
    }
}

/// Cedar's reader recurses: a level takes up to 40 KB of stack in a debug build.
const STACK_BYTES: usize = 32 << 20;

/// Does something that recurses, as deeply as `nesting` lets policies be.
fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("policies".to_owned()).stack_size(STACK_BYTES);
        let worker = worker.spawn_scoped(scope, work).map_err(|error| error.to_string())?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::{
        fixture::{Facts, Fixture, decide, release},
        *,
    };
    use crate::call::User;

    const CLIENTS: &str = "clients:\n  bot: { owner: dana, roles: [support], token-roles: [lead] }\n  lead: { owner: dana, roles: [support, lead] }\n";
    const ODD: [&str; 12] = [
        "release",
        "keep",
        "read",
        "read.wipe",
        "if",
        "in",
        "true",
        "__cedar",
        "a-b",
        "9lives",
        "...",
        "Client",
    ];

    #[test]
    fn a_policy_for_a_group_is_for_the_tools_in_it() {
        let policies = Fixture::new(CLIENTS)
            .tool_of("a.b.c", "{}", Effects::Read, Reach::None)
            .tool_of("a.x", "{}", Effects::Write, Reach::Internal)
            .tool_of("c", "{}", Effects::Destructive, Reach::External)
            .policy("@id(\"read\") permit (principal, action in Action::\"effect:read\", resource);")
            .policy("@id(\"write\") permit (principal, action in Action::\"effect:write\", resource);")
            .policy("@id(\"destructive\") permit (principal, action in Action::\"effect:destructive\", resource);")
            .policy("@id(\"none\") permit (principal, action in Action::\"reach:none\", resource);")
            .policy("@id(\"internal\") permit (principal, action in Action::\"reach:internal\", resource);")
            .policy("@id(\"external\") permit (principal, action in Action::\"reach:external\", resource);")
            .policy("@id(\"a\") permit (principal, action in Action::\"toolset:a\", resource);")
            .policy("@id(\"a.b\") permit (principal, action in Action::\"toolset:a.b\", resource);")
            .build();
        insta::assert_snapshot!(decide(&policies, "bot", "a.b.c", "{}"), @"allow; `read`; `none`; `a`; `a.b`");
        insta::assert_snapshot!(decide(&policies, "bot", "a.x", "{}"), @"allow; `write`; `internal`; `a`");
        insta::assert_snapshot!(decide(&policies, "bot", "c", "{}"), @"allow; `destructive`; `external`");
    }

    #[test]
    fn a_tool_cannot_name_itself_into_a_group_or_an_action_of_the_gate() {
        let fixture = ODD.iter().fold(Fixture::new(CLIENTS), |fixture, name| {
            fixture.tool_of(name, "{}", Effects::Destructive, Reach::External)
        });
        let policies = fixture
            .policy("permit (principal, action in Action::\"effect:read\", resource);")
            .policy(
                "permit (principal, action in [Action::\"gate:release\", Action::\"gate:keep\"], resource);",
            )
            .build();
        for name in ODD {
            assert_eq!(decide(&policies, "bot", name, "{}"), "deny", "{name}");
        }
    }

    #[test]
    fn a_tool_with_an_odd_name_can_be_permitted_by_it_alone() {
        for name in ODD {
            let fixture = ODD.iter().fold(Fixture::new(CLIENTS), |fixture, name| fixture.tool(name, "{}"));
            let policies = fixture
                .policy(&format!("permit (principal, action == Action::\"{name}\", resource);"))
                .build();
            for other in ODD {
                let expected = if other == name { "allow; `p0#1`" } else { "deny" };
                assert_eq!(decide(&policies, "bot", other, "{}"), expected, "{name} {other}");
            }
            assert_eq!(release(&policies, "bot", "pii"), "deny", "{name}");
        }
    }

    #[test]
    fn a_label_leaves_only_where_that_is_permitted() {
        let fixture = Fixture::new(CLIENTS).tool("t", "{}");
        assert_eq!(release(&fixture.build(), "bot", "pii"), "deny");
        let policies = fixture
            .policy("@id(\"answers-may-leave\") permit (principal, action == Action::\"gate:release\", resource);")
            .policy("@id(\"pii-is-for-leads\") @reason(\"leads only\") forbid (principal, action == Action::\"gate:release\", resource == Label::\"pii\") unless { principal in Role::\"lead\" };")
            .build();
        insta::assert_snapshot!(release(&policies, "bot", "pii"), @"deny; `pii-is-for-leads`: leads only");
        insta::assert_snapshot!(release(&policies, "lead", "pii"), @"allow; `answers-may-leave`");
        insta::assert_snapshot!(release(&policies, "bot", "unheard-of"), @"allow; `answers-may-leave`");
    }

    #[test]
    fn a_token_adds_those_roles_alone_that_its_client_may_have_by_token() {
        let policies = Fixture::new(CLIENTS)
            .tool("t", "{}")
            .policy("@id(\"leads\") permit (principal in Role::\"lead\", action, resource);")
            .policy("@id(\"ops\") permit (principal in Role::\"support\", action, resource) when { principal in Role::\"lead\" && false };")
            .build();
        let mut facts = Facts::default();
        let mut allowed = |roles: &[&str], client: &str| {
            facts.roles = roles.iter().map(|role| RoleName::parse(role).unwrap()).collect();
            facts.client = ClientName::parse(client).unwrap();
            let decision = policies.decide(&facts.question(), &ToolName::parse("t").unwrap(), &Map::new());
            decision.unwrap().verdict == Verdict::Allow
        };
        assert!(!allowed(&[], "bot"));
        assert!(allowed(&["lead"], "bot"));
        assert!(allowed(&["lead", "support"], "bot"));
        assert!(!allowed(&["support"], "bot"));
        assert!(!allowed(&["admin"], "bot"));
        assert!(!allowed(&[], "bot")); // nothing of another call's token stays
        assert!(allowed(&[], "lead"));
    }

    #[test]
    fn a_label_that_no_tool_carries_can_be_forbidden() {
        let policies = Fixture::new(CLIENTS)
            .policy("permit (principal, action, resource); forbid (principal, action, resource == Label::\"secret\");")
            .build();
        assert_eq!(release(&policies, "bot", "secret"), "deny; `p0#2`");
        assert_eq!(release(&policies, "bot", "other"), "allow; `p0#1`");
    }

    #[test]
    fn a_permit_of_everything_permits_tools_and_releases() {
        let policies =
            Fixture::new(CLIENTS).tool("t", "{}").policy("permit (principal, action, resource);").build();
        assert_eq!(decide(&policies, "bot", "t", "{}"), "allow; `p0#1`");
        assert_eq!(release(&policies, "bot", "pii"), "allow; `p0#1`");
    }

    #[test]
    fn policies_read_the_facts_of_a_call() {
        let policies = Fixture::new(CLIENTS)
            .tool("t", "{}")
            .policy(
                r#"permit (principal, action, resource) when {
                    context.run.labels.contains("seen") && context.run.calls == 7
                    && context.request.transport == "http" && context.request.authentication == "api-key"
                    && context.request.time > datetime("2026-11-23") && context.request.time < datetime("2026-11-24")
                    && context.request has source && context.request.source.isInRange(ip("10.0.0.0/8"))
                    && context has user && context.user.issuer == "https://id.example" && context.user.subject == "lee"
                };"#,
            )
            .build();
        let mut facts = Facts::default();
        let allowed = |facts: &Facts| {
            let decision = policies.decide(&facts.question(), &ToolName::parse("t").unwrap(), &Map::new());
            decision.unwrap().verdict == Verdict::Allow
        };
        assert!(!allowed(&facts));
        facts.user = Some(User { issuer: "https://id.example".to_owned(), subject: "lee".to_owned() });
        assert!(!allowed(&facts));
        facts.request.source = Some("10.1.2.3".parse().unwrap());
        assert!(allowed(&facts));
        facts.run.calls = u64::MAX;
        assert!(!allowed(&facts));
    }

    #[test]
    fn who_or_what_is_unknown_is_an_error() {
        let policies =
            Fixture::new(CLIENTS).tool("t", "{}").policy("permit (principal, action, resource);").build();
        insta::assert_snapshot!(decide(&policies, "stranger", "t", "{}"), @"error: unknown client `stranger`");
        insta::assert_snapshot!(decide(&policies, "bot", "gone", "{}"), @"error: unknown tool `gone`");
        insta::assert_snapshot!(release(&policies, "stranger", "pii"), @"error: unknown client `stranger`");
    }

    #[test]
    fn an_argument_that_policies_cannot_read_is_an_error_that_points_at_it() {
        let policies = Fixture::new(CLIENTS)
            .tool(
                "t",
                r#"{ "type": "object", "properties": { "lines": { "type": "array", "items": {
                "type": "object", "properties": { "a/b": { "type": "number" } } } } } }"#,
            )
            .policy("permit (principal, action, resource);")
            .build();
        insta::assert_snapshot!(decide(&policies, "bot", "t", r#"{ "lines": [{}, { "a/b": 0.00001 }] }"#), @"error: policies cannot read the argument `/lines/1/a~1b`: it is beyond the decimals of four places within ±922337203685477.5807");
        insta::assert_snapshot!(decide(&policies, "bot", "t", r#"{ "lines": null }"#), @"error: policies cannot read the argument `/lines`: it is not an array");
        insta::assert_snapshot!(decide(&policies, "bot", "t", r#"{ "lines": [{ "a/b": 0.5 }], "more": null }"#), @"allow; `p0#1`");
    }

    #[test]
    fn an_argument_cannot_forge_an_identity() {
        let forged = r#"{ "who": { "__entity": { "type": "Client", "id": "lead" } } }"#;
        let fixture = Fixture::new(CLIENTS)
            .tool("t", r#"{ "type": "object", "properties": { "who": { "type": "object" } } }"#)
            .tool("u", r#"{ "type": "object", "properties": { "who": { "type": "string" } } }"#);
        let policies = fixture.policy("permit (principal, action, resource);").build();
        insta::assert_snapshot!(decide(&policies, "bot", "t", forged), @"allow; `p0#1`");
        insta::assert_snapshot!(decide(&policies, "bot", "u", forged), @"error: policies cannot read the argument `/who`: it is not a string");
    }

    #[test]
    fn a_policy_that_takes_an_argument_for_an_identity_does_not_load() {
        let fixture = Fixture::new(CLIENTS)
            .tool("t", r#"{ "type": "object", "required": ["who"], "properties": { "who": { "type": "string" } } }"#)
            .policy("permit (principal, action == Action::\"t\", resource) when { context.args.who == principal };")
            .policy("permit (principal, action == Action::\"t\", resource) when { context.args.who in Role::\"lead\" };");
        insta::assert_snapshot!(fixture.problems(), @"
        Error p0.cedar [context.args.who == principal] the types String and Client are not compatible
          help: for policy `p0#1`, both operands to a `==` expression must have compatible types. Types must be exactly equal to be compatible
        Error p1.cedar [context.args.who] for policy `p1#1`, unexpected type: expected an entity but saw String
          help: try using `contains`, `containsAny`, or `containsAll` to examine the contents of a set
        ");
    }

    #[test]
    fn the_policies_of_the_guide_load() {
        let guide = include_str!("../docs/policy.md");
        let blocks = guide.split("```cedar\n").skip(1).filter_map(|rest| rest.split("```").next());
        let fixture = Fixture::new(
            "attributes: { refund_ceiling: { type: long, default: 0 } }\nclients:\n  a: { owner: dana, roles: [support, lead] }\napprovers: { finance: [lee] }\n",
        )
        .tool("refunds.create", r#"{ "type": "object", "required": ["amount"], "properties": { "amount": { "type": "integer" } } }"#);
        let fixture = blocks.fold(fixture, Fixture::policy);
        assert_eq!(fixture.problems(), "");
    }
}
