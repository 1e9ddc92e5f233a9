//! From Cedar's responses to a verdict.
//!
//! **Pending** means exactly: the policies without the forbids marked `@unless_approved` decide Allow
//! without an error, and with them they decide Deny. So what nobody permits never asks a person, and
//! a plain forbid always wins. **Any evaluation error is a denial**: Cedar by itself skips a policy
//! that fails, a forbid too.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cedar_policy::{AuthorizationError, Authorizer, Entities, PolicyId, PolicySet, Request, Response};

use super::{
    decision::{Deciding, Decision, Obligation, PolicyError, Verdict},
    load::Loaded,
    slice::Slice,
};

/// What to say of each policy that decides.
#[derive(Debug)]
pub(super) struct Register(HashMap<PolicyId, Entry>);

#[derive(Debug)]
struct Entry {
    order: usize,
    deciding: Deciding,
    mark: Option<Obligation>,
}

impl Register {
    pub(super) fn new(loaded: &[Loaded]) -> Self {
        let entry = |(order, loaded): (usize, &Loaded)| {
            let deciding = Deciding { id: loaded.id.clone(), reason: loaded.reason.clone() };
            (loaded.policy.id().clone(), Entry { order, deciding, mark: loaded.mark.clone() })
        };
        Self(loaded.iter().enumerate().map(entry).collect())
    }

    /// The policies that decide, in the order of the files.
    fn deciding(&self, response: &Response) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> =
            response.diagnostics().reason().filter_map(|id| self.0.get(id)).collect();
        entries.sort_unstable_by_key(|entry| entry.order);
        entries
    }

    fn failure<'a>(&self, errors: impl Iterator<Item = &'a AuthorizationError>) -> Option<PolicyError> {
        let mut failed: Vec<(usize, Arc<str>, String)> = errors
            .map(|AuthorizationError::PolicyEvaluationError(error)| {
                let id = error.policy_id();
                let reason = error.inner().to_string();
                match self.0.get(id) {
                    Some(entry) => (entry.order, entry.deciding.id.clone(), reason),
                    None => (usize::MAX, id.to_string().into(), reason),
                }
            })
            .collect();
        failed.sort_unstable();
        let reason = failed.first()?.2.clone();
        Some(PolicyError::Evaluation { policies: failed.into_iter().map(|(_, id, _)| id).collect(), reason })
    }
}

/// Decides a request by the policies that can apply to it.
pub(super) fn judge(
    slice: &Slice,
    register: &Register,
    request: &Request,
    entities: &Entities,
) -> Result<Decision, PolicyError> {
    let full = respond(&slice.full, register, request, entities)?;
    if full.decision() == cedar_policy::Decision::Allow {
        return Ok(decision(Verdict::Allow, &register.deciding(&full)));
    }
    let Some(without_marked) = &slice.without_marked else {
        return Ok(decision(Verdict::Deny, &register.deciding(&full)));
    };
    let without_marked = respond(without_marked, register, request, entities)?;
    if without_marked.decision() == cedar_policy::Decision::Deny {
        return Ok(decision(Verdict::Deny, &register.deciding(&without_marked)));
    }
    // Only the marked forbids are between the two answers, so they are what decides the first.
    let marked = register.deciding(&full);
    Ok(decision(Verdict::Pending(obligations(&marked)), &marked))
}

/// Asks Cedar; an error in any policy is an error, whatever the decision.
fn respond(
    policies: &PolicySet,
    register: &Register,
    request: &Request,
    entities: &Entities,
) -> Result<Response, PolicyError> {
    let response = Authorizer::new().is_authorized(request, policies, entities);
    register.failure(response.diagnostics().errors()).map_or(Ok(response), Err)
}

fn decision(verdict: Verdict, deciding: &[&Entry]) -> Decision {
    Decision { verdict, policies: deciding.iter().map(|entry| entry.deciding.clone()).collect() }
}

/// Every group named, each with the largest count asked of it.
fn obligations(marked: &[&Entry]) -> Vec<Obligation> {
    let mut people = BTreeMap::new();
    for Obligation { group, people: asked } in marked.iter().filter_map(|entry| entry.mark.as_ref()) {
        let most = people.entry(group.clone()).or_insert(*asked);
        *most = (*most).max(*asked);
    }
    people.into_iter().map(|(group, people)| Obligation { group, people }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, decide};

    const INPUT: &str =
        r#"{ "type": "object", "required": ["amount"], "properties": { "amount": { "type": "integer" } } }"#;
    const PERMIT: &str = "@id(\"permit\") permit (principal, action, resource);";
    const MARKED: &str = "@id(\"marked\") @reason(\"ask finance\") @unless_approved(\"finance\")\nforbid (principal, action == Action::\"t\", resource) when { context.args.amount > 100 };";

    /// The decision about one call with an amount.
    fn decided(policies: &[&str], amount: i64) -> String {
        let fixture = Fixture::new(
            "clients:\n  bot: { owner: dana }\napprovers:\n  finance: [lee, sam, pat]\n  security: [kim]\n",
        )
        .tool("t", INPUT)
        .policy(&policies.join("\n"));
        decide(&fixture.build(), "bot", "t", &format!(r#"{{ "amount": {amount} }}"#))
    }

    #[test]
    fn what_is_permitted_is_allowed() {
        insta::assert_snapshot!(decided(&[PERMIT], 1), @"allow; `permit`");
    }

    #[test]
    fn what_nobody_permits_is_denied() {
        insta::assert_snapshot!(decided(&[], 1), @"deny");
    }

    #[test]
    fn a_forbid_beats_a_permit() {
        insta::assert_snapshot!(decided(&[PERMIT, "@id(\"no\") @reason(\"never\") forbid (principal, action, resource);"], 1), @"deny; `no`: never");
    }

    #[test]
    fn a_marked_forbid_that_applies_asks_its_group() {
        insta::assert_snapshot!(decided(&[PERMIT, MARKED], 101), @"pending finance:1; `marked`: ask finance");
    }

    #[test]
    fn a_marked_forbid_that_does_not_apply_asks_nobody() {
        insta::assert_snapshot!(decided(&[PERMIT, MARKED], 100), @"allow; `permit`");
    }

    #[test]
    fn a_plain_forbid_beside_a_marked_one_is_a_denial() {
        insta::assert_snapshot!(decided(&[PERMIT, MARKED, "@id(\"no\") forbid (principal, action, resource);"], 101), @"deny; `no`");
    }

    #[test]
    fn what_nobody_permits_never_asks_a_person() {
        insta::assert_snapshot!(decided(&[MARKED], 101), @"deny");
    }

    #[test]
    fn a_marked_forbid_that_cannot_be_evaluated_is_a_denial() {
        let failing = "@id(\"failing\") @unless_approved(\"finance\")\nforbid (principal, action == Action::\"t\", resource) when { context.args.amount * 9223372036854775807 > 0 };";
        insta::assert_snapshot!(decided(&[PERMIT, failing], 101), @"error: cannot evaluate policy `failing`: integer overflow while attempting to multiply the values `101` and `9223372036854775807`");
        insta::assert_snapshot!(decided(&[PERMIT, failing], 1), @"pending finance:1; `failing`");
    }

    #[test]
    fn an_error_anywhere_is_a_denial_that_names_every_policy_that_failed() {
        let permit = "@id(\"a\") permit (principal, action == Action::\"t\", resource) when { context.args.amount * 9223372036854775807 > 0 };";
        let forbid = "@id(\"b\") forbid (principal, action == Action::\"t\", resource) when { context.args.amount + 9223372036854775807 > 0 };";
        insta::assert_snapshot!(decided(&[permit, PERMIT], 2), @"error: cannot evaluate policy `a`: integer overflow while attempting to multiply the values `2` and `9223372036854775807`");
        insta::assert_snapshot!(decided(&[PERMIT, MARKED, permit, forbid], 101), @"error: cannot evaluate policy `a`, policy `b`: integer overflow while attempting to multiply the values `101` and `9223372036854775807`");
    }

    #[test]
    fn an_error_of_a_policy_that_is_for_others_is_none() {
        let other = "permit (principal == Client::\"bot\", action == Action::\"t\", resource) when { context.args.amount > 1 && context.args.amount * 9223372036854775807 > 0 };";
        insta::assert_snapshot!(decided(&[PERMIT, other], 1), @"allow; `permit`");
    }

    #[test]
    fn every_group_of_an_applying_mark_must_approve_and_the_larger_count_holds() {
        let marked = |group: &str, over: i64| {
            format!(
                "@id(\"{group} {over}\") @unless_approved(\"{group}\") forbid (principal, action == Action::\"t\", resource) when {{ context.args.amount > {over} }};"
            )
        };
        let policies = [
            marked("security", 10),
            marked("finance:2", 20),
            marked("finance", 30),
            marked("user", 40),
            marked("finance:3", 50),
        ];
        let policies: Vec<&str> =
            std::iter::once(PERMIT).chain(policies.iter().map(String::as_str)).collect();
        insta::assert_snapshot!(decided(&policies, 15), @"pending security:1; `security 10`");
        insta::assert_snapshot!(decided(&policies, 35), @"pending finance:2 security:1; `security 10`; `finance:2 20`; `finance 30`");
        insta::assert_snapshot!(decided(&policies, 60), @"pending finance:3 security:1 user:1; `security 10`; `finance:2 20`; `finance 30`; `user 40`; `finance:3 50`");
    }
}
