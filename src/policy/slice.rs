//! The policies that can apply, found at load: by who calls and what is asked.
//!
//! A policy whose scope cannot match cannot be satisfied, so leaving it out changes no decision,
//! and the price of a decision does not grow with the policies that do not apply.

use std::collections::HashMap;

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint};

use super::{load::Loaded, principal::Principal};

/// More pairs of (class of clients, target) than this, and the slices are by target alone.
const CELLS_MAX: usize = 1 << 20;

/// An action, its groups, and the resource where it is known.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) action: EntityUid,
    pub(super) groups: Vec<EntityUid>,
    pub(super) resource: Option<EntityUid>,
}

/// The policies that can apply to a pair of client and target.
#[derive(Debug)]
pub(super) struct Slice {
    /// All of them.
    pub(super) full: PolicySet,
    /// All but the forbids that people can lift, where there are such forbids.
    pub(super) without_marked: Option<PolicySet>,
}

/// All slices.
#[derive(Debug)]
pub(super) struct Slices {
    distinct: Vec<Slice>,
    /// The slice of each pair: by class of clients, then by target.
    cells: Vec<usize>,
    targets: usize,
}

/// The clients that the same scopes match.
pub(super) type Class = usize;

impl Slices {
    /// Slices the policies; also answers the class of each principal, in the principals' order.
    pub(super) fn build<'a>(
        loaded: &[Loaded],
        principals: impl Iterator<Item = &'a Principal>,
        targets: &[Target],
    ) -> Result<(Self, Vec<Class>), String> {
        let (classes, class_of) = classes(loaded, principals, targets.len());
        let index = ActionIndex::new(loaded);
        let candidates: Vec<Vec<usize>> =
            targets.iter().map(|target| index.candidates(loaded, target)).collect();
        let mut known = HashMap::new();
        let (mut distinct, mut cells) = (Vec::new(), Vec::with_capacity(classes.len() * targets.len()));
        for class in &classes {
            for candidates in &candidates {
                let members =
                    candidates.iter().copied().filter(|at| class.get(*at).is_some_and(|applies| *applies));
                let members: Vec<usize> = members.collect();
                let next = distinct.len();
                if !known.contains_key(&members) {
                    distinct.push(Slice::of(&members, loaded)?);
                }
                cells.push(*known.entry(members).or_insert(next));
            }
        }
        Ok((Self { distinct, cells, targets: targets.len() }, class_of))
    }

    /// The slice of a class of clients and a target.
    pub(super) fn find(&self, class: Class, target: usize) -> Option<&Slice> {
        self.distinct.get(*self.cells.get(class * self.targets + target)?)
    }
}

impl Slice {
    fn of(members: &[usize], loaded: &[Loaded]) -> Result<Self, String> {
        let members = || members.iter().filter_map(|at| loaded.get(*at));
        let full = set(members())?;
        let without_marked = if members().any(|loaded| loaded.mark.is_some()) {
            Some(set(members().filter(|loaded| loaded.mark.is_none()))?)
        } else {
            None
        };
        Ok(Self { full, without_marked })
    }
}

/// The policies without their text, of which each slice would hold a copy.
fn set<'a>(members: impl Iterator<Item = &'a Loaded>) -> Result<PolicySet, String> {
    let lean = |loaded: &Loaded| Policy::from(loaded.policy.as_ref().clone());
    PolicySet::from_policies(members.map(lean)).map_err(|error| error.to_string())
}

/// For each class of clients, whether each policy's principal scope matches it; and the class of each client.
fn classes<'a>(
    loaded: &[Loaded],
    principals: impl Iterator<Item = &'a Principal>,
    targets: usize,
) -> (Vec<Vec<bool>>, Vec<Class>) {
    let mut known: HashMap<Vec<bool>, Class> = HashMap::new();
    let mut class_of = Vec::new();
    for principal in principals {
        let matches = loaded.iter().map(|loaded| principal_matches(&loaded.policy, principal)).collect();
        let next = known.len();
        class_of.push(*known.entry(matches).or_insert(next));
    }
    if known.len().saturating_mul(targets) > CELLS_MAX {
        return (vec![vec![true; loaded.len()]], vec![0; class_of.len()]);
    }
    let mut classes: Vec<_> = known.into_iter().collect();
    classes.sort_unstable_by_key(|(_, class)| *class);
    (classes.into_iter().map(|(matches, _)| matches).collect(), class_of)
}

fn principal_matches(policy: &Policy, principal: &Principal) -> bool {
    match policy.principal_constraint() {
        PrincipalConstraint::Any => true,
        PrincipalConstraint::Eq(uid) => uid == principal.uid,
        PrincipalConstraint::In(uid) => principal.may_be_in(&uid),
        PrincipalConstraint::Is(kind) => kind == *principal.uid.type_name(),
        PrincipalConstraint::IsIn(kind, uid) => {
            kind == *principal.uid.type_name() && principal.may_be_in(&uid)
        }
    }
}

/// Whether a policy's resource scope can match. No resource is in another.
fn resource_matches(policy: &Policy, resource: &EntityUid) -> bool {
    match policy.resource_constraint() {
        ResourceConstraint::Any => true,
        ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) => uid == *resource,
        ResourceConstraint::Is(kind) => kind == *resource.type_name(),
        ResourceConstraint::IsIn(kind, uid) => kind == *resource.type_name() && uid == *resource,
    }
}

/// Policies by the actions and groups that their scopes name.
struct ActionIndex {
    any: Vec<usize>,
    named: HashMap<EntityUid, Vec<usize>>,
}

impl ActionIndex {
    fn new(loaded: &[Loaded]) -> Self {
        let mut index = Self { any: vec![], named: HashMap::new() };
        for (at, loaded) in loaded.iter().enumerate() {
            match loaded.policy.action_constraint() {
                ActionConstraint::Any => index.any.push(at),
                ActionConstraint::Eq(action) => index.named.entry(action).or_default().push(at),
                ActionConstraint::In(actions) => {
                    for action in actions {
                        index.named.entry(action).or_default().push(at);
                    }
                }
            }
        }
        index
    }

    /// The policies whose action and resource scopes match, in order.
    fn candidates(&self, loaded: &[Loaded], target: &Target) -> Vec<usize> {
        let named =
            std::iter::once(&target.action).chain(&target.groups).filter_map(|uid| self.named.get(uid));
        let mut found: Vec<usize> = self.any.iter().chain(named.flatten()).copied().collect();
        found.sort_unstable();
        found.dedup();
        let resource_fits = |at: &usize| {
            let policy = loaded.get(*at).map(|loaded| &loaded.policy);
            policy
                .zip(target.resource.as_ref())
                .is_none_or(|(policy, resource)| resource_matches(policy, resource))
        };
        found.retain(resource_fits);
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::{
            Policies,
            fixture::{Fixture, decide},
            load, principal,
            vocabulary::Vocabulary,
        },
        *,
    };
    use crate::manifest::{ClientName, Effects, Reach, Source, ToolName, read};

    const CLIENTS: &str = "clients:\n  a: { owner: dana, roles: [ops] }\n  b: { owner: dana, roles: [ops, lead] }\n  c: { owner: dana }\n";

    fn fixture(policies: &[&str]) -> Fixture {
        Fixture::new(CLIENTS)
            .tool_of("x.read", "{}", Effects::Read, Reach::Internal)
            .tool_of("x.write", "{}", Effects::Write, Reach::External)
            .policy(&policies.join("\n"))
    }

    /// The numbers of the policies that a call is decided by.
    fn slice(policies: &Policies, client: &str, tool: &str) -> String {
        let (_, class) = policies.clients.get(&ClientName::parse(client).unwrap()).unwrap();
        let tool = policies.tools.get(&ToolName::parse(tool).unwrap()).unwrap();
        let slice = policies.slices.find(*class, tool.target).unwrap();
        let mut ids: Vec<String> = slice.full.policies().map(|policy| policy.id().to_string()).collect();
        ids.sort();
        ids.join(" ")
    }

    #[test]
    fn a_slice_holds_what_can_apply_and_nothing_else() {
        let policies = fixture(&[
            "permit (principal, action, resource);",
            "permit (principal in Role::\"lead\", action in Action::\"effect:read\", resource);",
            "permit (principal == Client::\"a\", action == Action::\"x.write\", resource == Service::\"orders\");",
            "permit (principal is Client in Role::\"ops\", action in [Action::\"reach:external\", Action::\"toolset:x\"], resource is Service);",
            "permit (principal, action, resource is Label);",
            "permit (principal, action == Action::\"gate:release\", resource);",
            "permit (principal, action, resource == Service::\"others\");",
            "permit (principal in Client::\"c\", action, resource);",
        ])
        .build();
        insta::assert_snapshot!(slice(&policies, "a", "x.read"), @"p0#1 p0#4");
        insta::assert_snapshot!(slice(&policies, "a", "x.write"), @"p0#1 p0#3 p0#4");
        insta::assert_snapshot!(slice(&policies, "b", "x.read"), @"p0#1 p0#2 p0#4");
        insta::assert_snapshot!(slice(&policies, "c", "x.write"), @"p0#1 p0#8");
    }

    #[test]
    fn pairs_with_the_same_policies_share_a_slice() {
        let policies = fixture(&["permit (principal in Role::\"ops\", action, resource);"]).build();
        assert_eq!(policies.slices.distinct.len(), 2);
    }

    #[test]
    fn with_too_many_pairs_the_slices_are_by_target_alone() {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let text = "permit (principal in Role::\"ops\", action, resource); permit (principal == Client::\"b\", action, resource);";
        let loaded = load::load(&[source("p.cedar", text)], &BTreeMap::new(), &mut vec![]);
        let clients = source("clients.yaml", CLIENTS);
        let file = read(&clients).unwrap();
        let principals = principal::principals(&Vocabulary::new().unwrap(), &file, &clients, &mut vec![]);
        let (few, class_of) = classes(&loaded, principals.values(), CELLS_MAX / 3);
        assert_eq!((few.len(), class_of), (3, vec![0, 1, 2]));
        let (many, class_of) = classes(&loaded, principals.values(), CELLS_MAX / 3 + 1);
        assert_eq!((many, class_of), (vec![vec![true, true]], vec![0, 0, 0]));
    }

    proptest::proptest! {
        #[test]
        fn a_slice_decides_as_the_whole_set_does(chosen in proptest::collection::vec((0..2_usize, 0..6_usize, 0..7_usize, 0..4_usize), 0..8)) {
            let effects = ["permit", "forbid"];
            let principals = ["principal", "principal == Client::\"a\"", "principal in Role::\"lead\"", "principal in Client::\"b\"", "principal is Client", "principal is Client in Role::\"ops\""];
            let actions = ["action", "action == Action::\"x.read\"", "action in Action::\"effect:write\"", "action in Action::\"toolset:x\"", "action in [Action::\"x.write\", Action::\"gate:release\"]", "action in Action::\"x.read\"", "action == Action::\"effect:read\""];
            let resources = ["resource", "resource == Service::\"orders\"", "resource is Label", "resource in Service::\"orders\""];
            let texts: Vec<String> = chosen.iter().map(|(e, p, a, r)| format!("{} ({}, {}, {});", effects[*e], principals[*p], actions[*a], resources[*r])).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let policies = fixture(&texts).build();
            let whole: PolicySet = texts.join("\n").parse().unwrap();
            for client in ["a", "b", "c"] {
                for tool in ["x.read", "x.write"] {
                    let request = cedar_policy::Request::new(
                        policies.words.client(client), policies.words.action(tool), policies.words.service("orders"), cedar_policy::Context::empty(), None,
                    ).unwrap();
                    let expected = cedar_policy::Authorizer::new().is_authorized(&request, &whole, &policies.entities).decision();
                    let decided = decide(&policies, client, tool, "{}");
                    proptest::prop_assert_eq!(decided.starts_with("allow"), expected == cedar_policy::Decision::Allow, "{} {}", client, tool);
                }
            }
        }
    }
}
