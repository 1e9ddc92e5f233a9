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
};
use crate::manifest::{Place, Problem, Source};

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
    use super::super::fixture::Fixture;

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
    fn an_empty_file_holds_no_policies() {
        assert_eq!(Fixture::new("clients: {}\n").policy("").policy("// nothing yet\n").problems(), "");
    }
}
