//! The Cedar schema: what policies may speak of, generated from the tools and the attributes.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Schema, SchemaFragment};
use serde_json::{Map, Value, json};

use super::{
    ToolFacts,
    types::Record,
    vocabulary::{KEEP, RELEASE, groups, standing_groups},
};
use crate::manifest::{AttributeKind, AttributeName, AttributeSpec};

/// The schema, as Cedar uses it and as people read it.
#[derive(Debug)]
pub(super) struct Generated {
    pub(super) schema: Schema,
    pub(super) text: String,
}

/// Generates the schema. `arguments` holds the record of each tool's arguments, in the tools' order.
///
/// # Errors
/// What Cedar says against it, which no tool and no attribute should bring about.
pub(super) fn generate(
    tools: &[ToolFacts<'_>],
    arguments: &[Record],
    attributes: &BTreeMap<AttributeName, AttributeSpec>,
) -> Result<Generated, String> {
    let json = json!({ "": {
        "commonTypes": common_types(),
        "entityTypes": entity_types(attributes),
        "actions": actions(tools, arguments),
    } });
    let fragment = SchemaFragment::from_json_value(json).map_err(|error| error.to_string())?;
    let text = fragment.to_cedarschema().map_err(|error| error.to_string())?;
    let schema = Schema::from_schema_fragments([fragment]).map_err(|error| error.to_string())?;
    Ok(Generated { schema, text })
}

fn common_types() -> Value {
    json!({
        "Run": record(json!({ "labels": set_of(named("String")), "calls": named("Long") })),
        "Request": record(json!({
            "transport": named("String"),
            "source": optional(named("ipaddr")),
            "time": named("datetime"),
            "authentication": named("String"),
        })),
        "User": record(json!({ "issuer": named("String"), "subject": named("String") })),
    })
}

fn entity_types(attributes: &BTreeMap<AttributeName, AttributeSpec>) -> Value {
    let attributes: Map<_, _> =
        attributes.iter().map(|(name, spec)| (name.to_string(), attribute_type(spec.kind))).collect();
    json!({
        "Client": { "memberOfTypes": ["Role"], "shape": record(attributes.into()) },
        "Role": {},
        "Service": {},
        "Label": {},
    })
}

fn attribute_type(kind: AttributeKind) -> Value {
    match kind {
        AttributeKind::Long => named("Long"),
        AttributeKind::String => named("String"),
        AttributeKind::Boolean => named("Bool"),
        AttributeKind::Strings => set_of(named("String")),
    }
}

fn actions(tools: &[ToolFacts<'_>], arguments: &[Record]) -> Value {
    let toolsets = tools.iter().flat_map(groups);
    let groups_declared: BTreeSet<String> = standing_groups().chain(toolsets).collect();
    let mut actions: Map<_, _> = groups_declared.into_iter().map(|group| (group, json!({}))).collect();
    for own in [RELEASE, KEEP] {
        actions.insert(own.to_owned(), action(&[], "Label", None));
    }
    for (tool, arguments) in tools.iter().zip(arguments) {
        actions.insert(tool.name.to_string(), action(&groups(tool), "Service", Some(arguments)));
    }
    actions.into()
}

fn action(groups: &[String], resource: &str, arguments: Option<&Record>) -> Value {
    let mut context =
        json!({ "run": named("Run"), "request": named("Request"), "user": optional(named("User")) });
    if let (Some(context), Some(arguments)) = (context.as_object_mut(), arguments) {
        context.insert("args".to_owned(), arguments.to_cedar());
    }
    let member_of: Vec<Value> = groups.iter().map(|group| json!({ "id": group })).collect();
    json!({
        "memberOf": member_of,
        "appliesTo": { "principalTypes": ["Client"], "resourceTypes": [resource], "context": record(context) },
    })
}

/// A type by its name: a common type, or one that Cedar brings.
///
/// Nothing here is called like one of Cedar's, and `__cedar::Long` would be harder to read.
pub(super) fn named(name: &str) -> Value {
    json!({ "type": "EntityOrCommon", "name": name })
}

/// The type of a set.
#[expect(clippy::needless_pass_by_value, reason = "takes what `json!` makes")]
pub(super) fn set_of(element: Value) -> Value {
    json!({ "type": "Set", "element": element })
}

/// The type of a record.
#[expect(clippy::needless_pass_by_value, reason = "takes what `json!` makes")]
pub(super) fn record(attributes: Value) -> Value {
    json!({ "type": "Record", "attributes": attributes })
}

/// The type of an attribute that may be absent.
pub(super) fn optional(mut kind: Value) -> Value {
    if let Some(kind) = kind.as_object_mut() {
        kind.insert("required".to_owned(), false.into());
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;

    #[test]
    fn the_schema_reads_as_cedar() {
        let fixture = Fixture::new("attributes: { ceiling: { type: long, default: 0 }, regions: { type: strings, default: [] } }\nclients: {}\n")
            .tool("refunds.create", r#"{ "type": "object", "required": ["amount"], "properties": {
                "amount": { "type": "integer" }, "note": { "type": "string" }, "e-mail": { "type": "string" } } }"#);
        insta::assert_snapshot!(fixture.build().cedar_schema(), @r#"
        type Request = {
          authentication: String,
          source?: ipaddr,
          time: datetime,
          transport: String
        };

        type Run = {
          calls: Long,
          labels: Set<String>
        };

        type User = {
          issuer: String,
          subject: String
        };

        entity Client in [Role] = {
          ceiling: Long,
          regions: Set<String>
        };

        entity Label;

        entity Role;

        entity Service;

        action "effect:destructive";

        action "effect:read";

        action "effect:write";

        action "gate:get-prompt";

        action "gate:keep" appliesTo {
          principal: [Client],
          resource: [Label],
          context: {
            request: Request,
            run: Run,
            user?: User
          }
        };

        action "gate:read-resource";

        action "gate:release" appliesTo {
          principal: [Client],
          resource: [Label],
          context: {
            request: Request,
            run: Run,
            user?: User
          }
        };

        action "reach:external";

        action "reach:internal";

        action "reach:none";

        action "refunds.create" in [Action::"effect:write", Action::"reach:external", Action::"toolset:refunds"] appliesTo {
          principal: [Client],
          resource: [Service],
          context: {
            args: {
              amount: Long,
              "e-mail"?: String,
              note?: String
            },
            request: Request,
            run: Run,
            user?: User
          }
        };

        action "toolset:refunds";
        "#);
    }

    #[test]
    fn the_schema_as_text_is_a_schema_with_the_odd_names_in_it() {
        let mut fixture = Fixture::new("clients: {}\n");
        for name in [
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
            "-",
            "Client",
        ] {
            fixture = fixture.tool(
                name,
                r#"{ "type": "object", "properties": {
                "": { "type": "string" }, "__cedar": { "type": "string" }, "if": { "type": "string" },
                "a\"b\\\n": { "type": "string" }, "ключ": { "type": "string" }, "type": { "type": "string" },
                "__entity": { "type": "string" }, "\u0000": { "type": "string" } } }"#,
            );
        }
        let text = fixture.build().cedar_schema().to_owned();
        let (schema, _) = cedar_policy::Schema::from_cedarschema_str(&text).unwrap();
        assert_eq!(schema.actions().count(), 13 + 6 + 2 + 2 + 3);
    }
}
