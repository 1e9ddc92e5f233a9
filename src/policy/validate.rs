//! What Cedar's strict validation says of each policy, and what it leaves unsaid.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{ActionConstraint, EntityUid, PolicySet, ValidationMode, ValidationWarning, Validator};
use miette::Diagnostic;

use super::{
    load::{Loaded, restyle, span},
    unseen::Unseen,
};
use crate::manifest::{Place, Problem};

/// More names than a help line can hold.
const NAMES_MAX: usize = 8;

const IN_GROUP: &str = "the tools of a group are `in` it: `action in Action::\"a:group\"`";

/// What policies may name.
#[derive(Debug)]
pub(super) struct Known {
    /// The names of each entity type's entities.
    pub(super) names: BTreeMap<&'static str, BTreeSet<String>>,
    /// The groups that no tool is in.
    pub(super) empty_groups: BTreeSet<EntityUid>,
}

/// Checks one policy.
pub(super) fn check(
    validator: &Validator,
    loaded: &Loaded,
    known: &Known,
    unseen: &Unseen,
    problems: &mut Vec<Problem>,
) {
    let alone = match PolicySet::from_policies([loaded.policy.clone()]) {
        Ok(alone) => alone,
        Err(error) => {
            problems.push(Problem::error(&loaded.source, loaded.place.clone(), restyle(&error.to_string())));
            return;
        }
    };
    let result = validator.validate(&alone, ValidationMode::Strict);
    errors(
        result.validation_errors().map(|error| error as &(dyn Diagnostic + Sync)),
        loaded,
        unseen,
        problems,
    );
    let unknown = unknown_names(loaded, known);
    // A warning about the cause is worth more than another about its effect.
    let explained = !unknown.is_empty() || waits_for_tools(loaded, known) || !result.validation_passed();
    problems.extend(unknown);
    let (never, others): (Vec<_>, Vec<_>) =
        result.validation_warnings().partition(|warning| never_applies(warning));
    for warning in others {
        problems.push(warn(warning, loaded, restyle(&warning.to_string())));
    }
    if let (Some(warning), false) = (never.first(), explained) {
        let problem = warn(warning, loaded, format!("policy `{}` can never apply", loaded.id));
        problems.push(if equals_group(loaded) { problem.help(IN_GROUP) } else { problem });
    }
    if result.validation_passed() {
        problems.extend(unseen.tested_in_vain(loaded));
    }
}

const fn never_applies(warning: &ValidationWarning) -> bool {
    matches!(warning, ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_))
}

/// Whether the policy takes a group for an action.
fn equals_group(loaded: &Loaded) -> bool {
    let is_group = |name: &str| name.contains(':') && !name.starts_with("gate:");
    matches!(loaded.policy.action_constraint(), ActionConstraint::Eq(action) if is_group(action.id().unescaped()))
}

/// Reports each error; at one place only the first, since the same text is checked once per action.
fn errors<'a>(
    errors: impl Iterator<Item = &'a (dyn Diagnostic + Sync)>,
    loaded: &Loaded,
    unseen: &Unseen,
    problems: &mut Vec<Problem>,
) {
    let mut by_place: BTreeMap<(usize, usize), BTreeMap<String, Option<String>>> = BTreeMap::new();
    for error in errors {
        let at = match span(error) {
            Some(Place::Bytes { offset, length }) => (offset, length),
            _ => (0, 0),
        };
        let help = error.help().map(|help| help.to_string());
        by_place.entry(at).or_default().insert(restyle(&error.to_string()), help);
    }
    for ((offset, length), messages) in by_place {
        let place =
            if (offset, length) == (0, 0) { loaded.place.clone() } else { Place::Bytes { offset, length } };
        let others = messages.len().saturating_sub(1);
        let Some((message, help)) = messages.into_iter().next() else { continue };
        let also = (others > 0).then(|| {
            let actions = if others == 1 { "action" } else { "actions" };
            format!("the same is wrong for {others} more {actions} that the scope covers")
        });
        let help: Vec<String> = [unseen.explain(&message).or(help), also].into_iter().flatten().collect();
        let problem = Problem::error(&loaded.source, place, message);
        problems.push(if help.is_empty() { problem } else { problem.help(help.join("; ")) });
    }
}

fn warn(warning: &ValidationWarning, loaded: &Loaded, message: String) -> Problem {
    let place = span(warning).unwrap_or_else(|| loaded.place.clone());
    let problem = Problem::warning(&loaded.source, place, message);
    warning.help().map(|help| help.to_string()).into_iter().fold(problem, Problem::help)
}

/// Whether the policy is for groups that no tool is in yet, which is foresight and no mistake.
fn waits_for_tools(loaded: &Loaded, known: &Known) -> bool {
    match loaded.policy.action_constraint() {
        ActionConstraint::Any | ActionConstraint::Eq(_) => false,
        ActionConstraint::In(actions) => actions.iter().all(|action| known.empty_groups.contains(action)),
    }
}

/// Warns of clients, roles, services and labels that do not exist: Cedar takes any name for an entity.
fn unknown_names(loaded: &Loaded, known: &Known) -> Vec<Problem> {
    let mut problems = Vec::new();
    for literal in loaded.policy.entity_literals() {
        let (kind, name) = (literal.type_name().to_string(), literal.id().unescaped());
        let Some(names) = known.names.get(kind.as_str()).filter(|names| !names.contains(name)) else {
            continue;
        };
        let span = literal.as_ref().loc().map(|loc| (loc.start(), loc.end()));
        let place = span.map_or_else(
            || loaded.place.clone(),
            |(start, end)| Place::Bytes { offset: start, length: end.saturating_sub(start) },
        );
        let message = format!("no {} is called `{}`", kind.to_lowercase(), name.escape_debug());
        let problem = Problem::warning(&loaded.source, place, message).help(listed(names));
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems
}

fn listed(names: &BTreeSet<String>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut listed: Vec<String> = names.iter().take(NAMES_MAX).map(|name| format!("`{name}`")).collect();
    if more > 0 {
        listed.push(format!("{more} more"));
    }
    match listed.as_slice() {
        [] => "there is none yet".to_owned(),
        [only] => format!("there is only {only}"),
        several => format!("there are {}", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;

    const CLIENTS: &str = "attributes: { ceiling: { type: long, default: 0 } }\nclients:\n  bot: { owner: dana, roles: [support] }\n";
    const INPUT: &str = r#"{ "type": "object", "required": ["amount"], "properties": {
        "amount": { "type": "integer" }, "note": { "type": "string" }, "meta": { "type": "object" },
        "to": { "type": "object", "properties": { "e-mail": { "type": ["string", "null"] } } } } }"#;

    fn problems(policy: &str) -> String {
        Fixture::new(CLIENTS)
            .tool("refunds.create", INPUT)
            .tool("refunds.get", "{}")
            .policy(policy)
            .problems()
    }

    fn problems_when(condition: &str) -> String {
        problems(&format!(
            "permit (principal, action == Action::\"refunds.create\", resource) when {{ {condition} }};"
        ))
    }

    #[test]
    fn an_argument_that_does_not_exist_does_not_load() {
        insta::assert_snapshot!(problems_when("context.args.amout > 1"), @r#"
        Error p0.cedar [context.args.amout] for policy `p0#1`, attribute `args.amout` in context for Action::"refunds.create" not found
          help: did you mean `amount`?
        "#);
    }

    #[test]
    fn a_string_compared_with_a_number_does_not_load() {
        insta::assert_snapshot!(problems_when("context.args.amount == \"1\""), @r#"
        Error p0.cedar [context.args.amount == "1"] the types Long and String are not compatible
          help: for policy `p0#1`, both operands to a `==` expression must have compatible types. Types must be exactly equal to be compatible
        "#);
        insta::assert_snapshot!(problems_when("context.args.amount > \"1\""), @r#"Error p0.cedar ["1"] for policy `p0#1`, unexpected type: expected Long but saw String"#);
    }

    #[test]
    fn an_optional_argument_that_is_not_tested_for_does_not_load() {
        insta::assert_snapshot!(problems_when("context.args.note == \"x\""), @r#"
        Error p0.cedar [context.args.note] for policy `p0#1`, unable to guarantee safety of access to optional attribute `args.note` in context for Action::"refunds.create"
          help: try testing for the attribute's presence with `context.args has note && ..`
        "#);
    }

    #[test]
    fn an_unknown_attribute_does_not_load() {
        insta::assert_snapshot!(problems_when("principal.cieling > 1"), @"
        Error p0.cedar [principal.cieling] for policy `p0#1`, attribute `cieling` on entity type `Client` not found
          help: did you mean `ceiling`?
        ");
    }

    #[test]
    fn an_unknown_action_or_entity_type_does_not_load() {
        insta::assert_snapshot!(problems("permit (principal, action == Action::\"refund.create\", resource);"), @r#"
        Error p0.cedar [Action::"refund.create"] for policy `p0#1`, unrecognized action `Action::"refund.create"`
          help: did you mean `Action::"refunds.create"`?
        "#);
        insta::assert_snapshot!(problems("permit (principal is Cliant, action, resource);"), @"
        Error p0.cedar [Cliant] for policy `p0#1`, unrecognized entity type `Cliant`
          help: did you mean `Client`?
        ");
        insta::assert_snapshot!(problems("permit (principal, action in Action::\"toolset:refund\", resource);"), @r#"
        Error p0.cedar [Action::"toolset:refund"] for policy `p0#1`, unrecognized action `Action::"toolset:refund"`
          help: did you mean `Action::"toolset:refunds"`?
        "#);
    }

    #[test]
    fn an_argument_that_is_not_mapped_does_not_load_and_the_help_says_why() {
        insta::assert_snapshot!(problems_when("context.args.meta.x == 1"), @r#"
        Error p0.cedar [context.args.meta.x] for policy `p0#1`, attribute `args.meta` in context for Action::"refunds.create" not found
          help: policies cannot see this argument of `refunds.create`: it is an object whose `properties` are not listed
        "#);
        insta::assert_snapshot!(problems_when("context.args has to && context.args.to[\"e-mail\"] == \"x\""), @r#"
        Error p0.cedar [context.args.to["e-mail"]] for policy `p0#1`, attribute `args.to["e-mail"]` in context for Action::"refunds.create" not found
          help: policies cannot see this argument of `refunds.create`: it may be `null`, which is no Cedar value
        "#);
    }

    #[test]
    fn an_error_that_many_actions_share_is_reported_once() {
        insta::assert_snapshot!(problems("forbid (principal, action, resource) when { context.args.amount > 1 };"), @r#"
        Error p0.cedar [context.args.amount] for policy `p0#1`, attribute `args.amount` in context for Action::"refunds.get" not found
          help: the same is wrong for 2 more actions that the scope covers
        "#);
    }

    #[test]
    fn a_scope_that_names_nothing_is_a_warning() {
        insta::assert_snapshot!(problems("permit (principal == Client::\"bto\", action, resource);"), @r#"
        Warning p0.cedar [Client::"bto"] no client is called `bto`
          help: there is only `bot`
        "#);
        insta::assert_snapshot!(problems("permit (principal in Role::\"suport\", action, resource);"), @r#"
        Warning p0.cedar [Role::"suport"] no role is called `suport`
          help: there is only `support`
        "#);
        insta::assert_snapshot!(problems("permit (principal, action, resource == Service::\"order\");"), @r#"
        Warning p0.cedar [Service::"order"] no service is called `order`
          help: there is only `orders`
        "#);
        insta::assert_snapshot!(problems("forbid (principal, action == Action::\"gate:release\", resource == Label::\"pi\");"), @r#"
        Warning p0.cedar [Label::"pi"] no label is called `pi`
          help: there is only `pii`
        "#);
        insta::assert_snapshot!(problems("permit (principal, action, resource) unless { principal in Role::\"lead\" };"), @r#"
        Warning p0.cedar [Role::"lead"] no role is called `lead`
          help: there is only `support`
        "#);
    }

    #[test]
    fn a_policy_that_can_never_apply_is_a_warning() {
        insta::assert_snapshot!(problems("permit (principal, action == Action::\"gate:release\", resource == Service::\"orders\");"), @r#"Warning p0.cedar [permit (principal, action == Action::"gate:release", resource == Service::"orders");] policy `p0#1` can never apply"#);
        insta::assert_snapshot!(problems("permit (principal, action == Action::\"effect:write\", resource);"), @r#"
        Warning p0.cedar [permit (principal, action == Action::"effect:write", resource);] policy `p0#1` can never apply
          help: the tools of a group are `in` it: `action in Action::"a:group"`
        "#);
        insta::assert_snapshot!(problems("permit (principal, action, resource) when { false };"), @"Warning p0.cedar [permit (principal, action, resource) when { false };] policy `p0#1` can never apply");
    }

    #[test]
    fn a_policy_for_a_group_without_tools_waits_for_them() {
        assert_eq!(problems("forbid (principal, action in Action::\"effect:destructive\", resource);"), "");
        assert_eq!(
            problems(
                "forbid (principal, action in [Action::\"effect:destructive\", Action::\"reach:none\"], resource);"
            ),
            ""
        );
    }

    #[test]
    fn a_text_that_looks_like_another_is_a_warning() {
        insta::assert_snapshot!(problems_when("context.request.transport == \"һttp\""), @r#"Warning p0.cedar ["һttp"] for policy `p0#1`, string `"һttp"` contains mixed scripts"#);
    }
}
