//! What a policy says of itself: `@id`, `@reason`, `@unless_approved`.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    sync::Arc,
};

use cedar_policy::{ActionConstraint, Effect, EntityUid, Policy};

use super::{decision::Obligation, principal::USER_GROUP};
use crate::{
    hygiene::inspect,
    manifest::{GroupName, Place, Problem, Source},
};

/// Longer than a name that people say to each other; it is in every record.
const ID_BYTES_MAX: usize = 128;

/// The people of each group of approvers.
pub(super) type Approvers = BTreeMap<GroupName, Vec<String>>;

/// What a policy's annotations say.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Its `@id`, and where that is written.
    pub(super) id: Option<(String, Place)>,
    /// Its `@reason`.
    pub(super) reason: Option<Arc<str>>,
    /// Its `@unless_approved`.
    pub(super) mark: Option<Obligation>,
}

/// Reads the annotations of one policy.
pub(super) fn read(
    policy: &Policy,
    approvers: &Approvers,
    source: &Source,
    problems: &mut Vec<Problem>,
) -> Notes {
    let mut notes = Notes::default();
    let mut refuse = |place: &Place, message: String, help: String| {
        problems.push(Problem::error(source, place.clone(), message).help(help));
    };
    for Annotation { key, value, place } in annotations(policy) {
        let findings = inspect(&value);
        if !findings.is_clean() {
            let message = format!("`@{key}` holds {findings}, which no reader sees");
            refuse(&place, message, "remove them: models read them all the same".to_owned());
            continue;
        }
        match key.as_str() {
            "id" => match check_id(&value) {
                Ok(()) => notes.id = Some((value, place)),
                Err(message) => refuse(&place, message, "it names the policy in records".to_owned()),
            },
            "reason" if value.trim().is_empty() => {
                refuse(
                    &place,
                    "`@reason` says nothing".to_owned(),
                    "it is what the agent is told".to_owned(),
                );
            }
            "reason" => notes.reason = Some(value.into()),
            "unless_approved" => match check_mark(policy).and_then(|()| obligation(&value, approvers)) {
                Ok(mark) => notes.mark = Some(mark),
                Err((message, help)) => refuse(&place, message, help),
            },
            other => refuse(
                &place,
                format!("unknown annotation `@{other}`"),
                "the annotations are `@id`, `@reason` and `@unless_approved`".to_owned(),
            ),
        }
    }
    notes
}

/// Where a policy is written.
pub(super) fn place(policy: &Policy) -> Place {
    let span = policy.as_ref().loc().map(|loc| (loc.start(), loc.end()));
    span.map_or(Place::File, |(start, end)| Place::Bytes { offset: start, length: end.saturating_sub(start) })
}

struct Annotation {
    key: String,
    value: String,
    place: Place,
}

/// The annotations in the order they are written.
///
/// Only Cedar's inner types know their places; `cedar-policy` is pinned exactly for this, too.
fn annotations(policy: &Policy) -> Vec<Annotation> {
    let mut found: Vec<_> = policy
        .as_ref()
        .annotations()
        .map(|(key, annotation)| {
            let span = annotation.loc.as_ref().map_or((0, 0), |loc| (loc.start(), loc.end()));
            (span, key.to_string(), annotation.val.to_string())
        })
        .collect();
    found.sort();
    let place =
        |(start, end): (usize, usize)| Place::Bytes { offset: start, length: end.saturating_sub(start) };
    found.into_iter().map(|(span, key, value)| Annotation { key, value, place: place(span) }).collect()
}

fn check_id(id: &str) -> Result<(), String> {
    if id.trim().is_empty() {
        Err("`@id` is empty".to_owned())
    } else if id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
        Err(format!("`@id` is over {ID_BYTES_MAX} bytes long or has control characters"))
    } else {
        Ok(())
    }
}

/// An approval lifts a forbid of a tool's call, and nothing else.
fn check_mark(policy: &Policy) -> Result<(), (String, String)> {
    if policy.effect() == Effect::Permit {
        let help = "it marks a forbid that people may lift; an approval by itself permits nothing";
        return Err(("`@unless_approved` is on a permit".to_owned(), help.to_owned()));
    }
    let is_gate = |action: &EntityUid| action.id().unescaped().starts_with("gate:");
    let covered = match policy.action_constraint() {
        ActionConstraint::Any => Some("every action, so also `gate:release`".to_owned()),
        ActionConstraint::Eq(action) => is_gate(&action).then(|| format!("`{}`", action.id().unescaped())),
        ActionConstraint::In(actions) => actions
            .iter()
            .find(|action| is_gate(action))
            .map(|action| format!("`{}`", action.id().unescaped())),
    };
    covered.map_or(Ok(()), |covered| {
        let help = "name tools: `action == Action::\"a.tool\"`, `action in Action::\"effect:write\"` or `action in [Action::\"effect:read\", …]`";
        Err((format!("`@unless_approved` is on a forbid that covers {covered}"), help.to_owned()))
    })
}

/// Reads `finance` or `finance:2`.
fn obligation(text: &str, approvers: &Approvers) -> Result<Obligation, (String, String)> {
    let malformed = || {
        let help = "write one group, as in `finance`, or a group and how many of it, as in `finance:2`";
        (format!("`{}` names no approvers", text.escape_debug()), help.to_owned())
    };
    let (group, people) = text.split_once(':').unwrap_or((text, "1"));
    let group = GroupName::parse(group).map_err(|_| malformed())?;
    let people: NonZeroU32 = people.parse().map_err(|_| malformed())?;
    let known = if group.as_str() == USER_GROUP {
        1
    } else {
        let members = approvers.get(&group).ok_or_else(|| unknown(&group, approvers))?;
        members.iter().collect::<BTreeSet<_>>().len()
    };
    if usize::try_from(people.get()).is_ok_and(|people| people <= known) {
        Ok(Obligation { group, people })
    } else {
        let help = "nobody could ever approve it";
        Err((format!("`{text}` asks for {people} people, and `{group}` has {known}"), help.to_owned()))
    }
}

fn unknown(group: &GroupName, approvers: &Approvers) -> (String, String) {
    let groups: Vec<String> = approvers.keys().map(|group| format!("`{group}`")).collect();
    let help = if groups.is_empty() {
        "`approvers` of the clients file declares no group".to_owned()
    } else {
        format!("the groups under `approvers` are {}", groups.join(", "))
    };
    (format!("no group of approvers is called `{group}`"), help)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;

    const CLIENTS: &str = "clients: {}\napprovers:\n  finance: [lee, sam]\n  lone: [kim, kim]\n";

    /// The problems of an annotation on a forbid of one tool.
    fn problems(annotation: &str) -> String {
        let policy = format!("{annotation}\nforbid (principal, action == Action::\"t\", resource);");
        Fixture::new(CLIENTS).tool("t", "{}").policy(&policy).problems()
    }

    fn problems_of(policy: &str) -> String {
        Fixture::new(CLIENTS).tool("t", "{}").policy(policy).problems()
    }

    #[test]
    fn known_annotations_load() {
        for mark in ["finance", "finance:1", "finance:2", "lone", "user", "user:1"] {
            assert_eq!(
                problems(&format!("@id(\"a\")\n@reason(\"b\")\n@unless_approved(\"{mark}\")")),
                "",
                "{mark}"
            );
        }
    }

    #[test]
    fn what_records_and_agents_are_shown_hides_nothing() {
        // Written in full, and as an escape of Cedar's.
        let problems = problems("@id(\"a\u{200B}b\")\n@reason(\"over\\u{202E}limit\")");
        insta::assert_snapshot!(problems.replace('\u{200B}', "…"), @r#"
        Error p0.cedar [@id("a…b")] `@id` holds 1 zero-width character, which no reader sees
          help: remove them: models read them all the same
        Error p0.cedar [@reason("over\u{202E}limit")] `@reason` holds 1 bidi control, which no reader sees
          help: remove them: models read them all the same
        "#);
    }

    #[test]
    fn an_unknown_annotation_is_refused() {
        insta::assert_snapshot!(problems("@id(\"a\")\n@unless_aproved(\"finance\")"), @r#"
        Error p0.cedar [@unless_aproved("finance")] unknown annotation `@unless_aproved`
          help: the annotations are `@id`, `@reason` and `@unless_approved`
        "#);
    }

    #[test]
    fn an_empty_id_or_reason_is_refused() {
        insta::assert_snapshot!(problems("@id\n@reason(\" \")"), @r#"
        Error p0.cedar [@id] `@id` is empty
          help: it names the policy in records
        Error p0.cedar [@reason(" ")] `@reason` says nothing
          help: it is what the agent is told
        "#);
        insta::assert_snapshot!(problems("@id(\"a\\nb\")"), @r#"
        Error p0.cedar [@id("a\nb")] `@id` is over 128 bytes long or has control characters
          help: it names the policy in records
        "#);
    }

    #[test]
    fn malformed_approvers_are_refused() {
        for mark in
            ["", "finance:", "finance:0", "finance:-1", "finance,security", ":2", "finance:2:3", " finance"]
        {
            let problems = problems(&format!("@unless_approved(\"{mark}\")"));
            assert!(problems.contains("names no approvers"), "{mark}: {problems}");
        }
        insta::assert_snapshot!(problems("@unless_approved(\"finance:two\")"), @r#"
        Error p0.cedar [@unless_approved("finance:two")] `finance:two` names no approvers
          help: write one group, as in `finance`, or a group and how many of it, as in `finance:2`
        "#);
    }

    #[test]
    fn a_group_must_exist_and_have_enough_people() {
        insta::assert_snapshot!(problems("@unless_approved(\"finanse\")"), @r#"
        Error p0.cedar [@unless_approved("finanse")] no group of approvers is called `finanse`
          help: the groups under `approvers` are `finance`, `lone`
        "#);
        insta::assert_snapshot!(problems("@unless_approved(\"finance:3\")"), @r#"
        Error p0.cedar [@unless_approved("finance:3")] `finance:3` asks for 3 people, and `finance` has 2
          help: nobody could ever approve it
        "#);
        insta::assert_snapshot!(problems("@unless_approved(\"lone:2\")"), @r#"
        Error p0.cedar [@unless_approved("lone:2")] `lone:2` asks for 2 people, and `lone` has 1
          help: nobody could ever approve it
        "#);
        insta::assert_snapshot!(problems("@unless_approved(\"user:2\")"), @r#"
        Error p0.cedar [@unless_approved("user:2")] `user:2` asks for 2 people, and `user` has 1
          help: nobody could ever approve it
        "#);
    }

    #[test]
    fn the_mark_on_a_permit_is_refused() {
        insta::assert_snapshot!(problems_of("@unless_approved(\"finance\")\npermit (principal, action == Action::\"t\", resource);"), @r#"
        Error p0.cedar [@unless_approved("finance")] `@unless_approved` is on a permit
          help: it marks a forbid that people may lift; an approval by itself permits nothing
        "#);
    }

    #[test]
    fn the_mark_on_an_action_of_the_gate_is_refused() {
        insta::assert_snapshot!(problems_of("@unless_approved(\"finance\")\nforbid (principal, action == Action::\"gate:release\", resource);"), @r#"
        Error p0.cedar [@unless_approved("finance")] `@unless_approved` is on a forbid that covers `gate:release`
          help: name tools: `action == Action::"a.tool"`, `action in Action::"effect:write"` or `action in [Action::"effect:read", …]`
        "#);
        insta::assert_snapshot!(problems_of("@unless_approved(\"finance\")\nforbid (principal, action in [Action::\"t\", Action::\"gate:keep\"], resource);"), @r#"
        Error p0.cedar [@unless_approved("finance")] `@unless_approved` is on a forbid that covers `gate:keep`
          help: name tools: `action == Action::"a.tool"`, `action in Action::"effect:write"` or `action in [Action::"effect:read", …]`
        "#);
    }

    #[test]
    fn the_mark_on_a_forbid_of_every_action_is_refused() {
        insta::assert_snapshot!(problems_of("@unless_approved(\"finance\")\nforbid (principal, action, resource);"), @r#"
        Error p0.cedar [@unless_approved("finance")] `@unless_approved` is on a forbid that covers every action, so also `gate:release`
          help: name tools: `action == Action::"a.tool"`, `action in Action::"effect:write"` or `action in [Action::"effect:read", …]`
        "#);
    }
}
