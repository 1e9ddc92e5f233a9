//! Text that somebody is shown: it says something, and nothing that its reader does not see.

use serde_json::Value;

use super::Files;
use crate::{
    hygiene::inspect_value,
    manifest::{Place, Problem, Source, ToolManifest, read_value},
};

/// The files of the operator and of the security team, whose every text somebody may be shown.
pub(super) fn check(files: &Files, problems: &mut Vec<Problem>) {
    let (source, server) = &files.server;
    empty(source, "name", &server.name, problems);
    hidden_in_file(source, problems);
    hidden_in_file(&files.clients.0, problems);
}

/// What clients are shown of a tool.
pub(super) fn check_tool(source: &Source, manifest: &ToolManifest, problems: &mut Vec<Problem>) {
    if let Some(title) = &manifest.title {
        empty(source, "title", title, problems);
    }
    let shown = [
        ("title", manifest.title.clone().map(Value::String)),
        ("description", Some(Value::String(manifest.description.clone()))),
        ("input", Some(Value::Object(manifest.input.clone()))),
        ("output", manifest.output.clone().map(Value::Object)),
    ];
    for (key, value) in shown {
        problems.extend(value.and_then(|value| hidden(source, &format!("/{key}"), &value)));
    }
}

/// What clients are shown of a resource or a prompt: all that a person wrote there is text.
pub(super) fn check_offer(source: &Source, manifest: &ToolManifest, problems: &mut Vec<Problem>) {
    if let Some(title) = &manifest.title {
        empty(source, "title", title, problems);
    }
    empty(source, "description", &manifest.description, problems);
    hidden_in_file(source, problems);
}

fn empty(source: &Source, key: &str, text: &str, problems: &mut Vec<Problem>) {
    if text.trim().is_empty() {
        let problem =
            Problem::error(source, Place::Pointer(format!("/{key}")), format!("the `{key}` is empty"));
        problems.push(problem.help("write one, or leave it out"));
    }
}

fn hidden_in_file(source: &Source, problems: &mut Vec<Problem>) {
    // What JSON could not hold is none of the texts here.
    problems.extend(read_value(source).ok().and_then(|value| hidden(source, "", &value)));
}

fn hidden(source: &Source, pointer: &str, value: &Value) -> Option<Problem> {
    let (at, findings) = inspect_value(value)?;
    let message = format!("the text holds {findings}, which no reader sees");
    let place = Place::Pointer(format!("{pointer}{at}"));
    Some(Problem::error(source, place, message).help("remove them: models read them all the same"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::read;

    const CLIENTS: &str = "clients: {}\n";

    /// The places and messages of the problems of `callgate.yaml` and `clients.yaml`.
    fn problems(server: &str, clients: &str) -> Vec<String> {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let (server, clients) = (source("callgate.yaml", server), source("clients.yaml", clients));
        let files = Files {
            server: (server.clone(), read(&server).unwrap()),
            tools: vec![],
            clients: (clients.clone(), read(&clients).unwrap()),
            floors: (source("tools.yaml", ""), crate::manifest::FloorsFile::default()),
            policies: vec![],
            cases: vec![],
        };
        let mut problems = Vec::new();
        check(&files, &mut problems);
        problems.iter().map(said).collect()
    }

    fn said(problem: &Problem) -> String {
        format!("{} {:?} {}", problem.source.path.display(), problem.place, problem.message)
    }

    #[test]
    fn the_name_that_clients_are_shown_hides_nothing() {
        assert_eq!(
            problems("name: \"shop\\u202Egate\"\n", CLIENTS),
            ["callgate.yaml Pointer(\"/name\") the text holds 1 bidi control, which no reader sees"]
        );
        assert!(problems("name: Käse 👩‍👩‍👧 gate\n", CLIENTS).is_empty());
    }

    #[test]
    fn an_empty_name_is_refused() {
        for name in ["\"\"", "\" \"", "\"\\u00A0\""] {
            assert_eq!(
                problems(&format!("name: {name}\n"), CLIENTS),
                ["callgate.yaml Pointer(\"/name\") the `name` is empty"]
            );
        }
    }

    #[test]
    fn the_people_of_the_clients_file_hide_nothing() {
        for clients in [
            "clients: { bot: { owner: \"da\\u200Bna\" } }\n",
            "clients: {}\napprovers: { finance: [lee, \"sa\\u200Bm\"] }\n",
            "attributes: { team: { type: string } }\nclients: { bot: { owner: d, attributes: { team: \"a\\u200B\" } } }\n",
        ] {
            let problems = problems("{}\n", clients);
            assert!(problems.len() == 1 && problems[0].contains("which no reader sees"), "{problems:?}");
        }
    }

    #[test]
    fn an_empty_title_is_refused() {
        let text = "tool: a.b\ntitle: \" \"\ndescription: d\ninput: { type: object }\nbackend: { http: { service: s, method: GET, path: / } }\n";
        let source = Source { path: "x.yaml".into(), text: text.into() };
        let mut problems = Vec::new();
        check_tool(&source, &read(&source).unwrap(), &mut problems);
        assert_eq!(
            problems.iter().map(said).collect::<Vec<_>>(),
            ["x.yaml Pointer(\"/title\") the `title` is empty"]
        );
    }
}
