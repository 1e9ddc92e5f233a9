//! Puts a release's policies together: everything that a call does not change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::RwLock,
};

use cedar_policy::{Entities, Entity, EntityUid, Validator};

use super::{
    Inputs, Policies, Tool, ToolFacts,
    load::{self, Loaded},
    pending::Register,
    principal::{self, Principal},
    schema::{self, Generated},
    slice::{Slices, Target},
    types::Record,
    unseen::{Unseen, UnseenOfTool},
    validate::{self, Known},
    vocabulary::{self, RELEASE, Vocabulary},
};
use crate::manifest::{ClientName, Label, Problem, Severity};

impl Policies {
    /// Builds everything. `Ok(None)` when the problems are in what people wrote.
    pub(super) fn assemble(inputs: &Inputs<'_>, problems: &mut Vec<Problem>) -> Result<Option<Self>, String> {
        let words = Vocabulary::new()?;
        let principals = principal::principals(&words, inputs.clients, inputs.clients_source, problems);
        let loaded = load::load(inputs.policies, &inputs.clients.approvers, problems);
        let (records, unmapped): (Vec<_>, Vec<_>) =
            inputs.tools.iter().map(|tool| Record::of_input(tool.input)).unzip();
        let schema = schema::generate(&inputs.tools, &records, &inputs.clients.attributes)?;

        let validator = Validator::new(schema.schema.clone());
        let known = known(&words, inputs);
        let unseen = Unseen::new(
            inputs
                .tools
                .iter()
                .zip(unmapped)
                .map(|(tool, arguments)| UnseenOfTool {
                    tool: tool.name.clone(),
                    actions: actions(&words, tool),
                    arguments,
                })
                .collect(),
        );
        for policy in &loaded {
            validate::check(&validator, policy, &known, &unseen, problems);
        }
        if problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Ok(None);
        }
        Self::connect(words, inputs, schema, &principals, records, &loaded).map(Some)
    }

    /// Puts the checked parts together.
    fn connect(
        words: Vocabulary,
        inputs: &Inputs<'_>,
        schema: Generated,
        principals: &BTreeMap<ClientName, Principal>,
        records: Vec<Record>,
        loaded: &[Loaded],
    ) -> Result<Self, String> {
        let (targets, labels) = targets(&words, &inputs.tools);
        let (slices, classes) = Slices::build(loaded, principals.values(), &targets)?;
        let clients = principals.iter().zip(classes);
        let clients = clients.map(|((name, principal), class)| (name.clone(), (principal.clone(), class)));
        let tools = inputs.tools.iter().zip(records).enumerate().map(|(target, (tool, arguments))| {
            let action = words.action(tool.name.as_str());
            let service = words.service(tool.service.as_str());
            (tool.name.clone(), Tool { action, service, arguments, target })
        });
        Ok(Self {
            entities: entities(&words, inputs, principals, &schema)?,
            clients: clients.collect(),
            tools: tools.collect(),
            release: words.action(RELEASE),
            other_labels: inputs.tools.len(),
            labels,
            slices,
            register: Register::new(loaded),
            schema,
            words,
            with_token_roles: RwLock::default(),
        })
    }
}

/// The action of a tool, and its groups.
fn actions(words: &Vocabulary, tool: &ToolFacts<'_>) -> Vec<EntityUid> {
    let groups = vocabulary::groups(tool);
    std::iter::once(tool.name.as_str())
        .chain(groups.iter().map(String::as_str))
        .map(|name| words.action(name))
        .collect()
}

fn known(words: &Vocabulary, inputs: &Inputs<'_>) -> Known {
    let clients = inputs.clients.clients.keys().map(ToString::to_string).collect();
    let clients_of = || inputs.clients.clients.values();
    let roles = clients_of().flat_map(|client| client.roles.iter().chain(&client.token_roles));
    let roles = roles.map(ToString::to_string).collect();
    let services = inputs.tools.iter().map(|tool| tool.service.to_string()).collect();
    let labels = inputs.tools.iter().flat_map(|tool| tool.labels).map(ToString::to_string).collect();
    let full: BTreeSet<String> = inputs.tools.iter().flat_map(vocabulary::groups).collect();
    let empty = vocabulary::standing_groups().filter(|group| !full.contains(group));
    Known {
        names: BTreeMap::from([
            ("Client", clients),
            ("Role", roles),
            ("Service", services),
            ("Label", labels),
        ]),
        empty_groups: empty.map(|group| words.action(&group)).collect(),
    }
}

/// What can be asked about: each tool, in order; then labels that no tool names; then each label.
fn targets(words: &Vocabulary, tools: &[ToolFacts<'_>]) -> (Vec<Target>, HashMap<Label, usize>) {
    let tool = |tool: &ToolFacts<'_>| Target {
        action: words.action(tool.name.as_str()),
        groups: vocabulary::groups(tool).iter().map(|group| words.action(group)).collect(),
        resource: Some(words.service(tool.service.as_str())),
    };
    let release = |resource| Target { action: words.action(RELEASE), groups: vec![], resource };
    let mut targets: Vec<Target> = tools.iter().map(tool).collect();
    targets.push(release(None));
    let mut labels = HashMap::new();
    for label in tools.iter().flat_map(|tool| tool.labels) {
        labels.entry(label.clone()).or_insert_with(|| {
            targets.push(release(Some(words.label(label.as_str()))));
            targets.len() - 1
        });
    }
    (targets, labels)
}

/// The entities of the release; the schema adds the actions and their groups.
fn entities(
    words: &Vocabulary,
    inputs: &Inputs<'_>,
    principals: &BTreeMap<ClientName, Principal>,
    schema: &Generated,
) -> Result<Entities, String> {
    let roles =
        principals.values().flat_map(|principal| principal.roles.iter().chain(&principal.token_roles));
    let roles = roles.cloned();
    let services = inputs.tools.iter().map(|tool| words.service(tool.service.as_str()));
    let labels = inputs.tools.iter().flat_map(|tool| tool.labels).map(|label| words.label(label.as_str()));
    let bare: BTreeSet<EntityUid> = roles.chain(services).chain(labels).collect();
    let mut entities: Vec<Entity> = bare.into_iter().map(Entity::with_uid).collect();
    for principal in principals.values() {
        entities.push(principal.entity()?);
    }
    Entities::from_entities(entities, Some(&schema.schema)).map_err(|error| error.to_string())
}
