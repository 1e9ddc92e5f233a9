//! The clients as Cedar principals: their roles, and attributes of the declared types.

use std::collections::{BTreeMap, HashMap, HashSet};

use cedar_policy::{Entity, EntityUid, RestrictedExpression};
use serde_json::Value;

use super::vocabulary::Vocabulary;
use crate::manifest::{
    AttributeKind, AttributeName, AttributeSpec, ClientName, ClientSpec, ClientsFile, Place, Problem,
    RoleName, Source, join_pointer,
};

/// The group of `@unless_approved` that stands for the end user, and so for no list of people.
pub(super) const USER_GROUP: &str = "user";

/// A client as the policies see it.
#[derive(Clone, Debug)]
pub(super) struct Principal {
    pub(super) uid: EntityUid,
    pub(super) roles: HashSet<EntityUid>,
    /// The roles that a token may add.
    pub(super) token_roles: HashSet<EntityUid>,
    attributes: HashMap<String, RestrictedExpression>,
}

impl Principal {
    pub(super) fn entity(&self) -> Result<Entity, String> {
        self.entity_with(std::iter::empty())
    }

    /// The entity with those of these roles that a token may add.
    pub(super) fn entity_with(&self, roles: impl Iterator<Item = EntityUid>) -> Result<Entity, String> {
        let added = roles.filter(|role| self.token_roles.contains(role));
        let roles = self.roles.iter().cloned().chain(added).collect();
        Entity::new(self.uid.clone(), self.attributes.clone(), roles).map_err(|error| error.to_string())
    }

    /// Whether it is that entity, or below it, or could be with a token.
    pub(super) fn may_be_in(&self, ancestor: &EntityUid) -> bool {
        self.uid == *ancestor || self.roles.contains(ancestor) || self.token_roles.contains(ancestor)
    }
}

/// Reads the clients; every attribute that is missing, undeclared or of another type is a problem.
pub(super) fn principals(
    words: &Vocabulary,
    file: &ClientsFile,
    source: &Source,
    problems: &mut Vec<Problem>,
) -> BTreeMap<ClientName, Principal> {
    for (name, spec) in &file.attributes {
        check_default(name, spec, source, problems);
    }
    for group in file.approvers.keys().filter(|group| group.as_str() == USER_GROUP) {
        let place = Place::Key(join_pointer("/approvers", group.as_str()));
        let message = format!("`{group}` cannot be a group of approvers");
        problems.push(
            Problem::error(source, place, message)
                .help("`@unless_approved(\"user\")` asks the end user of the call"),
        );
    }
    let principal = |(name, spec): (&ClientName, &ClientSpec)| {
        let attributes = attributes(name, spec, file, source, problems);
        let uids = |roles: &[RoleName]| roles.iter().map(|role| words.role(role.as_str())).collect();
        let (roles, token_roles) = (uids(&spec.roles), uids(&spec.token_roles));
        (name.clone(), Principal { uid: words.client(name.as_str()), roles, token_roles, attributes })
    };
    file.clients.iter().map(principal).collect()
}

fn check_default(name: &AttributeName, spec: &AttributeSpec, source: &Source, problems: &mut Vec<Problem>) {
    let Some(default) = &spec.default else { return };
    if convert(spec.kind, default).is_none() {
        let place = Place::Pointer(format!("/attributes/{name}/default"));
        let message = format!(
            "the default of attribute `{name}` is `{default}`, which is not {}",
            spec.kind.expected()
        );
        problems.push(Problem::error(source, place, message));
    }
}

fn attributes(
    client: &ClientName,
    spec: &ClientSpec,
    file: &ClientsFile,
    source: &Source,
    problems: &mut Vec<Problem>,
) -> HashMap<String, RestrictedExpression> {
    let client_pointer = join_pointer("/clients", client.as_str());
    let pointer = format!("{client_pointer}/attributes");
    for name in spec.attributes.keys().filter(|name| !file.attributes.contains_key(*name)) {
        let place = Place::Key(join_pointer(&pointer, name.as_str()));
        let message = format!("client `{client}` has attribute `{name}`, which is not declared");
        problems.push(
            Problem::error(source, place, message).help("declare it, with its type, under `attributes`"),
        );
    }
    let mut values = HashMap::new();
    for (name, declared) in &file.attributes {
        let stated = spec.attributes.get(name);
        let Some(value) = stated.or(declared.default.as_ref()) else {
            let message = format!("client `{client}` has no attribute `{name}`, which has no default");
            let help = format!("it is {}", declared.kind.expected());
            problems.push(Problem::error(source, Place::Key(client_pointer.clone()), message).help(help));
            continue;
        };
        match convert(declared.kind, value) {
            Some(value) => {
                values.insert(name.to_string(), value);
            }
            // A default of another type is one problem, not one of each client.
            None if stated.is_none() => {}
            None => {
                let place = Place::Pointer(join_pointer(&pointer, name.as_str()));
                let expected = declared.kind.expected();
                let message =
                    format!("attribute `{name}` of client `{client}` is `{value}`, which is not {expected}");
                problems.push(Problem::error(source, place, message));
            }
        }
    }
    values
}

fn convert(kind: AttributeKind, value: &Value) -> Option<RestrictedExpression> {
    match kind {
        AttributeKind::Long => value.as_i64().map(RestrictedExpression::new_long),
        AttributeKind::String => value.as_str().map(|text| RestrictedExpression::new_string(text.to_owned())),
        AttributeKind::Boolean => value.as_bool().map(RestrictedExpression::new_bool),
        AttributeKind::Strings => {
            let texts = value.as_array()?.iter().map(|text| convert(AttributeKind::String, text));
            texts.collect::<Option<Vec<_>>>().map(RestrictedExpression::new_set)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;

    #[test]
    fn a_client_without_a_required_attribute_does_not_load() {
        let fixture =
            Fixture::new("attributes: { tier: { type: string } }\nclients:\n  bot: { owner: dana }\n");
        insta::assert_snapshot!(fixture.problems(), @"
        Error clients.yaml [key /clients/bot] client `bot` has no attribute `tier`, which has no default
          help: it is a text
        ");
    }

    #[test]
    fn attributes_are_of_the_declared_types() {
        let fixture = Fixture::new(
            "attributes:\n  tier: { type: string, default: 1 }\n  flags: { type: strings, default: [] }\n  size: { type: long, default: 0 }\n  ok: { type: boolean, default: true }\nclients:\n  bot:\n    owner: dana\n    attributes: { flags: [a, 1], size: 1.5, ok: \"true\", colour: red }\n",
        );
        insta::assert_snapshot!(fixture.problems(), @r#"
        Error clients.yaml [/attributes/tier/default] the default of attribute `tier` is `1`, which is not a text
        Error clients.yaml [key /clients/bot/attributes/colour] client `bot` has attribute `colour`, which is not declared
          help: declare it, with its type, under `attributes`
        Error clients.yaml [/clients/bot/attributes/flags] attribute `flags` of client `bot` is `["a",1]`, which is not a list of texts
        Error clients.yaml [/clients/bot/attributes/ok] attribute `ok` of client `bot` is `"true"`, which is not `true` or `false`
        Error clients.yaml [/clients/bot/attributes/size] attribute `size` of client `bot` is `1.5`, which is not a whole number of 64 bits
        "#);
    }

    #[test]
    fn the_end_user_is_no_group_of_approvers() {
        let fixture = Fixture::new("clients: {}\napprovers:\n  user: [lee]\n");
        insta::assert_snapshot!(fixture.problems(), @r#"
        Error clients.yaml [key /approvers/user] `user` cannot be a group of approvers
          help: `@unless_approved("user")` asks the end user of the call
        "#);
    }

    #[test]
    fn attributes_of_every_type_can_be_asked_for() {
        let policies = Fixture::new(
            "attributes:\n  tier: { type: string, default: gold }\n  flags: { type: strings, default: [x] }\n  size: { type: long, default: 3 }\n  if: { type: boolean, default: true }\nclients:\n  bot: { owner: dana, roles: [ops], attributes: { size: 5 } }\n",
        )
        .tool("t", "{}")
        .policy("permit (principal in Role::\"ops\", action == Action::\"t\", resource) when { principal.tier == \"gold\" && principal.flags.contains(\"x\") && principal.size == 5 && principal[\"if\"] };")
        .build();
        insta::assert_snapshot!(super::super::fixture::decide(&policies, "bot", "t", "{}"), @"allow; `p0#1`");
    }
}
