//! The arguments that policies cannot see, for those who write policies about them.

use std::collections::BTreeSet;

use cedar_policy::{ActionConstraint, EntityUid};
use serde_json::Value;

use super::{load::Loaded, types::Unmapped};
use crate::manifest::{Problem, ToolName};

/// The unseen arguments of all tools.
#[derive(Debug, Default)]
pub(super) struct Unseen(Vec<UnseenOfTool>);

/// The unseen arguments of one tool.
#[derive(Debug)]
pub(super) struct UnseenOfTool {
    pub(super) tool: ToolName,
    /// The tool's action and its groups.
    pub(super) actions: Vec<EntityUid>,
    pub(super) arguments: Vec<Unmapped>,
}

impl Unseen {
    pub(super) const fn new(tools: Vec<UnseenOfTool>) -> Self {
        Self(tools)
    }

    /// Why an attribute that Cedar does not find is not there, when the tool has such an argument.
    pub(super) fn explain(&self, message: &str) -> Option<String> {
        self.0.iter().find_map(|UnseenOfTool { tool, arguments, .. }| {
            let of_tool = format!("in context for Action::\"{tool}\" not found");
            let argument = arguments.iter().find(|argument| {
                message.contains(&of_tool) && message.contains(&format!("`{}` {of_tool}", argument.chain()))
            })?;
            Some(format!("policies cannot see this argument of `{tool}`: {}", argument.why))
        })
    }

    /// Warns of `has` on arguments that policies cannot see: it never holds, although the argument may be there.
    pub(super) fn tested_in_vain(&self, loaded: &Loaded) -> Vec<Problem> {
        let tested = self.tested(loaded);
        let mut problems = Vec::new();
        for UnseenOfTool { tool, arguments, .. } in self.0.iter().filter(|tool| covers(loaded, tool)) {
            for argument in arguments.iter().filter(|argument| tested.contains(&argument.path)) {
                let message = format!("policy `{}` never sees `{}` of `{tool}`", loaded.id, argument.chain());
                let help =
                    format!("{}; so `has` does not hold, even when the argument is given", argument.why);
                problems.push(Problem::warning(&loaded.source, loaded.place.clone(), message).help(help));
            }
        }
        problems
    }

    /// The paths below `context.args` that the policy tests with `has`.
    fn tested(&self, loaded: &Loaded) -> BTreeSet<Vec<String>> {
        let mut found = BTreeSet::new();
        if self.0.iter().any(|tool| !tool.arguments.is_empty())
            && let Ok(policy) = loaded.policy.to_json()
        {
            collect_tested(&policy, &mut found);
        }
        found
    }
}

fn covers(loaded: &Loaded, tool: &UnseenOfTool) -> bool {
    match loaded.policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(action) => tool.actions.contains(&action),
        ActionConstraint::In(actions) => actions.iter().any(|action| tool.actions.contains(action)),
    }
}

/// Walks a policy in Cedar's JSON format.
fn collect_tested(node: &Value, found: &mut BTreeSet<Vec<String>>) {
    match node {
        Value::Object(members) => {
            if let Some(["args", below @ ..]) = members.get("has").and_then(context_path).as_deref() {
                // `has a.b` tests for `a` and for `a.b`.
                for length in 1..=below.len() {
                    found.insert(below.iter().take(length).map(ToString::to_string).collect());
                }
            }
            members.values().for_each(|member| collect_tested(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_tested(item, found)),
        _ => {}
    }
}

/// The attributes below `context` that `{ left, attr }` is about; `attr` is one name, or several.
fn context_path(access: &Value) -> Option<Vec<&str>> {
    let left = access.get("left")?;
    let mut path = match left.get(".") {
        Some(access) => context_path(access)?,
        None if left.get("Var")? == "context" => vec![],
        None => return None,
    };
    match access.get("attr")? {
        Value::Array(names) => path.extend(names.iter().filter_map(Value::as_str)),
        name => path.push(name.as_str()?),
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;

    fn problems(condition: &str) -> String {
        Fixture::new("clients: {}\n")
            .tool("mail.send", r#"{ "type": "object", "properties": { "body": { "type": "string" } } }"#)
            .tool(
                "chat.post",
                r#"{ "type": "object", "properties": { "body": { "type": ["string", "null"] } } }"#,
            )
            .policy(&format!(
                "forbid (principal, action in Action::\"reach:external\", resource) when {{ {condition} }};"
            ))
            .problems()
    }

    #[test]
    fn a_test_for_an_argument_that_policies_cannot_see_is_a_warning() {
        insta::assert_snapshot!(problems("context.args has body && context.args.body like \"*secret*\""), @r#"
        Warning p0.cedar [forbid (principal, action in Action::"reach:external", resource) when { context.args has body && context.args.body like "*secret*" };] policy `p0#1` never sees `args.body` of `chat.post`
          help: it may be `null`, which is no Cedar value; so `has` does not hold, even when the argument is given
        "#);
        insta::assert_snapshot!(problems("context has args.body && context.args.body like \"*secret*\""), @r#"
        Warning p0.cedar [forbid (principal, action in Action::"reach:external", resource) when { context has args.body && context.args.body like "*secret*" };] policy `p0#1` never sees `args.body` of `chat.post`
          help: it may be `null`, which is no Cedar value; so `has` does not hold, even when the argument is given
        "#);
    }

    #[test]
    fn a_test_for_an_argument_that_another_tool_has_is_not() {
        insta::assert_snapshot!(problems("context.args has subject"), @r#"Warning p0.cedar [forbid (principal, action in Action::"reach:external", resource) when { context.args has subject };] policy `p0#1` can never apply"#);
    }
}
