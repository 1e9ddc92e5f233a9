//! The words of the policies: entity types, the names of actions and of their groups.

use cedar_policy::{EntityId, EntityTypeName, EntityUid};

use super::ToolFacts;
use crate::manifest::{Effects, Reach};

/// May fields with a label leave?
pub(super) const RELEASE: &str = "gate:release";
/// May fields with a label be kept in the gate's own store?
pub(super) const KEEP: &str = "gate:keep";

/// The group of all resources.
const READ_RESOURCE: &str = "gate:read-resource";
/// The group of all prompts.
const GET_PROMPT: &str = "gate:get-prompt";

const EFFECTS: [Effects; 3] = [Effects::Read, Effects::Write, Effects::Destructive];
const REACHES: [Reach; 3] = [Reach::None, Reach::Internal, Reach::External];

/// The entity types, parsed once.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    action: EntityTypeName,
    client: EntityTypeName,
    role: EntityTypeName,
    service: EntityTypeName,
    label: EntityTypeName,
}

impl Vocabulary {
    pub(super) fn new() -> Result<Self, String> {
        let kind = |name: &str| name.parse::<EntityTypeName>().map_err(|error| error.to_string());
        Ok(Self {
            action: kind("Action")?,
            client: kind("Client")?,
            role: kind("Role")?,
            service: kind("Service")?,
            label: kind("Label")?,
        })
    }

    pub(super) fn action(&self, name: &str) -> EntityUid {
        uid(&self.action, name)
    }

    pub(super) fn client(&self, name: &str) -> EntityUid {
        uid(&self.client, name)
    }

    pub(super) fn role(&self, name: &str) -> EntityUid {
        uid(&self.role, name)
    }

    pub(super) fn service(&self, name: &str) -> EntityUid {
        uid(&self.service, name)
    }

    pub(super) fn label(&self, name: &str) -> EntityUid {
        uid(&self.label, name)
    }
}

fn uid(kind: &EntityTypeName, name: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(name))
}

/// The groups that exist whether or not a tool is in them.
pub(super) fn standing_groups() -> impl Iterator<Item = String> {
    let own = [READ_RESOURCE, GET_PROMPT].map(str::to_owned);
    EFFECTS.into_iter().map(effect_group).chain(REACHES.into_iter().map(reach_group)).chain(own)
}

/// The groups of one tool.
pub(super) fn groups(tool: &ToolFacts<'_>) -> Vec<String> {
    let mut groups = vec![effect_group(tool.effects), reach_group(tool.reach)];
    // What is no tool has a name that no tool can have.
    match tool.name.as_str().split_once(':') {
        Some(("resource", _)) => groups.push(READ_RESOURCE.to_owned()),
        Some(("prompt", _)) => groups.push(GET_PROMPT.to_owned()),
        _ => {}
    }
    groups.extend(tool.name.toolsets().map(|prefix| format!("toolset:{prefix}")));
    groups
}

fn effect_group(effects: Effects) -> String {
    format!("effect:{effects}")
}

fn reach_group(reach: Reach) -> String {
    format!("reach:{reach}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_an_id_and_never_syntax() {
        let words = Vocabulary::new().unwrap();
        let name = "a\"] , principal in Role::\"lead";
        assert_eq!(words.action(name).id().unescaped(), name);
    }

    #[test]
    fn all_effects_and_reaches_are_groups() {
        assert_eq!(
            standing_groups().collect::<Vec<_>>().join(" "),
            "effect:read effect:write effect:destructive reach:none reach:internal reach:external gate:read-resource gate:get-prompt"
        );
    }
}
