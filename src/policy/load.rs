//! Reads the policy files: parsed, named, annotated, and each checked against the schema.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::PathBuf,
    sync::Arc,
};

use cedar_policy::{ParseError, ParseErrors, Policy, PolicyId, PolicySet};
use miette::Diagnostic;

use super::{
    annotation::{self, Approvers},
    decision::Obligation,
    nesting,
};
use crate::manifest::{Place, Problem, Source};

/// A larger file is not one that a person wrote.
const FILE_BYTES_MAX: usize = 1 << 20;

/// A policy of the release.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The policy, under its name.
    pub(super) policy: Policy,
    /// Its name: its `@id`, or the stem of its file and its number there.
    pub(super) id: Arc<str>,
    pub(super) reason: Option<Arc<str>>,
    pub(super) mark: Option<Obligation>,
    pub(super) source: Source,
    pub(super) place: Place,
}

/// Reads all files; the policies are in the order of the files, and of each file.
pub(super) fn load(sources: &[Source], approvers: &Approvers, problems: &mut Vec<Problem>) -> Vec<Loaded> {
    let mut names: BTreeMap<Arc<str>, PathBuf> = BTreeMap::new();
    let mut loaded = Vec::new();
    for source in sources {
        if let Err(problem) = check_size(source) {
            problems.push(*problem);
            continue;
        }
        let policies = match source.text.parse::<PolicySet>() {
            Ok(set) => static_policies(&set, source, problems),
            Err(errors) => {
                parse_problems(&errors, source, problems);
                continue;
            }
        };
        for (at, policy) in policies.into_iter().enumerate() {
            let place = annotation::place(&policy);
            let notes = annotation::read(&policy, approvers, source, problems);
            let (id, id_place) = notes.id.unwrap_or_else(|| (default_id(source, at), place.clone()));
            let id: Arc<str> = id.into();
            match names.entry(id.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(source.path.clone());
                }
                Entry::Occupied(entry) => {
                    let message = format!("another policy is called `{id}` already");
                    let help =
                        format!("it is in `{}`; each policy has an `@id` of its own", entry.get().display());
                    problems.push(Problem::error(source, id_place, message).help(help));
                }
            }
            let policy = policy.new_id(PolicyId::new(&*id));
            let source = source.clone();
            loaded.push(Loaded { policy, id, reason: notes.reason, mark: notes.mark, source, place });
        }
    }
    loaded
}

/// Refuses what Cedar could not read, or could read and not evaluate.
fn check_size(source: &Source) -> Result<(), Box<Problem>> {
    if source.text.len() > FILE_BYTES_MAX {
        let message = format!("the file is larger than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(Box::new(Problem::error(source, Place::File, message)));
    }
    nesting::too_deep(&source.text).map_or(Ok(()), |offset| {
        let message = format!("the policy is nested deeper than {} levels", nesting::LEVELS_MAX);
        let help = "brackets, `if`, members of members and chains of operators are levels: write more policies, \
                    or `[…].contains(…)`";
        Err(Box::new(Problem::error(source, Place::Bytes { offset, length: 1 }, message).help(help)))
    })
}

/// The file's name and the policy's number in it, from 1.
fn default_id(source: &Source, at: usize) -> String {
    let stem = source.path.file_stem().map_or_else(|| "policy".into(), |stem| stem.to_string_lossy());
    format!("{stem}#{}", at + 1)
}

fn static_policies(set: &PolicySet, source: &Source, problems: &mut Vec<Problem>) -> Vec<Policy> {
    for template in set.templates() {
        let loc = template.as_ref().loc();
        let place = loc.map_or(Place::File, |loc| Place::Bytes {
            offset: loc.start(),
            length: loc.end().saturating_sub(loc.start()),
        });
        let mut slots: Vec<String> = template.slots().map(|slot| format!("`{slot}`")).collect();
        slots.sort();
        let message = format!("a policy with the slot {} is a template", slots.join(" and "));
        let help = "templates are not linked here: name the client, the role or the service";
        problems.push(Problem::error(source, place, message).help(help));
    }
    let mut policies: Vec<Policy> = set.policies().cloned().collect();
    policies.sort_by_key(|policy| policy.as_ref().loc().map(|loc| loc.start()));
    policies
}

fn parse_problems(errors: &ParseErrors, source: &Source, problems: &mut Vec<Problem>) {
    let problem = |error: &ParseError| {
        let mut message = restyle(&error.to_string());
        if let Some(detail) =
            error.labels().into_iter().flatten().next().and_then(|label| label.label().map(str::to_owned))
        {
            message = format!("{message}: {detail}");
        }
        let problem = Problem::error(source, span(error).unwrap_or(Place::File), message);
        error.help().map(|help| help.to_string()).into_iter().fold(problem, Problem::help)
    };
    problems.extend(errors.iter().map(problem));
}

/// Where Cedar says that something is wrong.
pub(super) fn span(diagnostic: &dyn Diagnostic) -> Option<Place> {
    let label = diagnostic.labels()?.next()?;
    Some(Place::Bytes { offset: label.offset(), length: label.len() })
}

/// A message of Cedar's in our style: it begins a few with a capital, and lets an inner name slip.
pub(super) fn restyle(message: &str) -> String {
    let message = message.replace("__cedar::internal::AnyEntity", "an entity");
    let mut characters = message.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{
        fixture::{Fixture, decide},
        nesting::LEVELS_MAX,
    };

    #[test]
    fn every_error_of_every_file_is_reported() {
        let fixture = Fixture::new("clients: {}\n")
            .policy("permit (principal, action, nothing);\npermit (principal, action, resource) when { foo };\npermit (principal, action, resource) when { 1 == };")
            .policy("permit (principal, action, nothing);\npermit (principal, action, resource) when { foo };")
            .policy("permit (principal, action, resource)\nforbid (principal, action, resource);")
            .policy("permit (principal, action, resource) when { 1 + };")
            .policy("permit (principal, action, resource) when { foo.bar };");
        insta::assert_snapshot!(fixture.problems(), @"
        Error p0.cedar [}] unexpected token `}`: expected `!`, `(`, `-`, `[`, `{`, `false`, identifier, `if`, number, `?principal`, `?resource`, string literal, or `true`
        Error p1.cedar [nothing] found an invalid variable in the policy scope: nothing
          help: policy scopes must contain a `principal`, `action`, and `resource` element in that order
        Error p1.cedar [foo] invalid variable: foo
          help: the valid Cedar variables are `principal`, `action`, `resource`, and `context`; did you mean to enclose `foo` in quotes to make a string?
        Error p2.cedar [(] unexpected token `(`: expected `{`
        Error p3.cedar [}] unexpected token `}`: expected `!`, `(`, `-`, `[`, `{`, `false`, identifier, `if`, number, `?principal`, `?resource`, string literal, or `true`
        Error p4.cedar [foo.bar] invalid member access `foo.bar`, `foo` has no fields or methods
        ");
    }

    #[test]
    fn a_template_is_refused() {
        let fixture = Fixture::new("clients: {}\n")
            .policy("permit (principal, action, resource);\npermit (principal in ?principal, action, resource == ?resource);");
        insta::assert_snapshot!(fixture.problems(), @"
        Error p0.cedar [permit (principal in ?principal, action, resource == ?resource);] a policy with the slot `?principal` and `?resource` is a template
          help: templates are not linked here: name the client, the role or the service
        ");
    }

    #[test]
    fn ids_are_unique_over_all_files() {
        let fixture = Fixture::new("clients: {}\n")
            .policy("@id(\"a\")\npermit (principal, action, resource);\npermit (principal, action, resource);")
            .policy("@id(\"a\")\npermit (principal, action, resource);\n@id(\"p0#2\") forbid (principal, action, resource);");
        insta::assert_snapshot!(fixture.problems(), @r#"
        Error p1.cedar [@id("a")] another policy is called `a` already
          help: it is in `p0.cedar`; each policy has an `@id` of its own
        Error p1.cedar [@id("p0#2")] another policy is called `p0#2` already
          help: it is in `p0.cedar`; each policy has an `@id` of its own
        "#);
    }

    #[test]
    fn a_policy_that_is_nested_too_deeply_is_refused_before_it_is_read() {
        let permit =
            |condition: &str| format!("permit (principal, action, resource)\nwhen {{ {condition} }};");
        let nested = |open: &str, close: &str, times: usize| {
            permit(&format!("{}true{}", open.repeat(times), close.repeat(times)))
        };
        let fixture = Fixture::new("clients: {}\n")
            .policy(&nested("(", ")", 200))
            .policy(&nested("[", "]", 300))
            .policy(&nested("if true then ", " else false", 1_000))
            .policy(&permit(&format!("context{}", ".a".repeat(700))))
            .policy(&permit(&format!("{}true", "!".repeat(100_000))))
            .policy(&permit(&vec!["true"; 50_000].join(" && ")))
            .policy(&" ".repeat((1 << 20) + 1));
        insta::assert_snapshot!(fixture.problems(), @"
        Error p0.cedar [(] the policy is nested deeper than 32 levels
          help: brackets, `if`, members of members and chains of operators are levels: write more policies, or `[…].contains(…)`
        Error p1.cedar [[] the policy is nested deeper than 32 levels
          help: brackets, `if`, members of members and chains of operators are levels: write more policies, or `[…].contains(…)`
        Error p2.cedar [i] the policy is nested deeper than 32 levels
          help: brackets, `if`, members of members and chains of operators are levels: write more policies, or `[…].contains(…)`
        Error p3.cedar [.] the policy is nested deeper than 32 levels
          help: brackets, `if`, members of members and chains of operators are levels: write more policies, or `[…].contains(…)`
        Error p4.cedar [!] the policy is nested deeper than 32 levels
          help: brackets, `if`, members of members and chains of operators are levels: write more policies, or `[…].contains(…)`
        Error p5.cedar [&] the policy is nested deeper than 32 levels
          help: brackets, `if`, members of members and chains of operators are levels: write more policies, or `[…].contains(…)`
        Error p6.cedar [File] the file is larger than 1 MiB
        ");
    }

    #[test]
    fn a_policy_that_is_as_deep_as_it_may_be_loads_and_decides() {
        // `when`, its brackets, and `context.run.calls`.
        let times = LEVELS_MAX - 4;
        let links = |link: &str| format!("true{}", link.repeat(times));
        let around = |open: &str, close: &str| format!("{}true{}", open.repeat(times), close.repeat(times));
        for condition in [
            around("(", ")"),
            around("if context.run.calls == 7 then ", " else false"),
            links(" && context.run.calls == 7"),
            format!("false{}", " || context.run.calls == 7".repeat(times)),
            format!(
                "{}true{}",
                "[".repeat(times / 3),
                "].contains(context.run.calls == 7)".repeat(times / 3)
            ),
            format!("{}true{}", "{ a: ".repeat(times / 2), "}.a".repeat(times / 2)),
            format!("1{} == {}", " + 1".repeat(times), times + 1),
        ] {
            let policy = format!("permit (principal, action, resource) when {{ {condition} }};");
            let fixture = Fixture::new("clients: { bot: { owner: dana } }\n").tool("t", "{}").policy(&policy);
            assert_eq!(decide(&fixture.build(), "bot", "t", "{}"), "allow; `p0#1`", "{condition}");
        }
    }

    #[test]
    fn an_empty_file_holds_no_policies() {
        assert_eq!(Fixture::new("clients: {}\n").policy("").policy("// nothing yet\n").problems(), "");
    }
}
