//! Manifests of prompts.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::draft::{Said, block, quoted};
use crate::{
    hygiene,
    manifest::{PromptArgumentSpec, PromptBackend, PromptManifest, Source, read},
};

/// How long a name may be that goes back to the server.
const NAME_CHARS_MAX: usize = 128;

/// A prompt's manifest, or why there can be none.
pub(super) fn manifest(said: &Said<'_>, notes: &[String]) -> Result<String, String> {
    check_name("its name", said.there)?;
    let arguments = arguments(said)?;
    let mut lines = said.head(
        "prompt",
        "The names and the texts are the server's; `reach` and `yields` say the worst.",
        notes,
    );
    lines.push(format!("prompt: {}", said.name));
    lines.extend(said.text("/title").map(|title| format!("title: {}", quoted(title))));
    lines.push(format!("description: {}", quoted(said.description())));
    if !arguments.is_empty() {
        lines.push(format!("arguments:{}", block(&arguments)));
    }
    lines.extend(["reach: external", "yields: untrusted", "backend:", "  mcp:"].map(Into::into));
    lines.push(format!("    upstream: {}", quoted(said.upstream.as_str())));
    lines.push(format!("    prompt: {}", quoted(said.there)));
    lines.push(format!("    definition: {}", said.digest));
    let text = lines.join("\n") + "\n";
    // What was written is read again: what a file cannot say is not guessed at.
    let source = Source { path: format!("{}.yaml", said.name).into(), text: text.clone().into() };
    let manifest: PromptManifest = read(&source).map_err(|problem| problem.message)?;
    let is_whole = matches!(&manifest.backend, PromptBackend::Mcp(mcp) if mcp.prompt == said.there)
        && manifest.description == said.description()
        && json!(manifest.arguments) == json!(arguments);
    if is_whole { Ok(text) } else { Err("it cannot be written as YAML".to_owned()) }
}

fn arguments(said: &Said<'_>) -> Result<Vec<PromptArgumentSpec>, String> {
    // What the server says, and the same as a reader sees it.
    let [raw, shown] = [said.definition.get("arguments"), said.shown.get("arguments")]
        .map(|arguments| arguments.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default());
    let mut seen = HashSet::new();
    let mut arguments = Vec::new();
    for (raw, shown) in raw.iter().zip(shown) {
        let name = raw.get("name").and_then(Value::as_str).unwrap_or_default();
        check_name("the name of an argument", name)?;
        if !seen.insert(name) {
            return Err(format!("it has two arguments `{}`", name.escape_debug()));
        }
        let text = |key: &str| {
            let text = shown.get(key).and_then(Value::as_str).map(str::trim);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        arguments.push(PromptArgumentSpec {
            name: name.to_owned(),
            title: text("title"),
            description: text("description"),
            required: raw.get("required").and_then(Value::as_bool).unwrap_or(false),
            suggestions: Vec::new(),
        });
    }
    Ok(arguments)
}

/// Names go back to the server as they are: one without what is hidden in it would be another.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let hidden = hygiene::inspect(name);
    if !hidden.is_clean() {
        return Err(format!("{what} holds {hidden}, which no reader sees"));
    }
    if !(1..=NAME_CHARS_MAX).contains(&name.chars().count()) {
        return Err(format!("{what} has not 1 to {NAME_CHARS_MAX} characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::draft::Draft, *};
    use crate::manifest::{ServiceName, UpstreamKind};

    fn draft(definition: &Value) -> Draft {
        let definition = definition.as_object().unwrap();
        let name = definition["name"].as_str().unwrap();
        Draft::new(&ServiceName::parse("docs").unwrap(), UpstreamKind::Prompt, name, definition)
    }

    #[test]
    fn a_prompt_is_written_with_its_arguments_and_without_what_is_hidden() {
        let draft = draft(&json!({
            "name": "code review",
            "title": "Review",
            "description": "Asks for a review.\u{200b}",
            "icons": [{ "src": "https://example.com/i.png" }],
            "arguments": [
                { "name": "code", "description": "What is \u{202e}reviewed", "required": true },
                { "name": "style", "title": " ", "x": 1 },
            ],
        }));
        insta::assert_snapshot!(draft.text.as_ref().unwrap(), @r##"
        # Made by `callgate import` of the prompt `code review` of `docs`, for review.
        # The names and the texts are the server's; `reach` and `yields` say the worst.
        # - the server's text holds 1 bidi control, 1 zero-width character, which no reader sees: removed
        prompt: docs.code_review
        title: "Review"
        description: "Asks for a review."
        arguments:
          [
            {
              "name": "code",
              "description": "What is reviewed",
              "required": true
            },
            {
              "name": "style",
              "required": false
            }
          ]
        reach: external
        yields: untrusted
        backend:
          mcp:
            upstream: "docs"
            prompt: "code review"
            definition: sha256:69dcae98095c5db6422cbd3c4dab10dd84170e013083560775ece8dbea9c5be5
        "##);
        assert_eq!((draft.stem().as_str(), draft.there.as_str()), ("prompt-docs.code_review", "code review"));
    }

    #[test]
    fn a_prompt_whose_names_are_not_what_they_seem_is_refused() {
        let named = |name: &str| json!({ "name": "a", "arguments": [{ "name": name }] });
        let twice = json!({ "name": "a", "arguments": [{ "name": "b" }, { "name": "b" }] });
        for (definition, why) in [
            (json!({ "name": "a\u{200b}" }), "its name holds 1 zero-width character, which no reader sees"),
            (
                named("b\u{200b}"),
                "the name of an argument holds 1 zero-width character, which no reader sees",
            ),
            (named(""), "the name of an argument has not 1 to 128 characters"),
            (
                json!({ "name": "a", "arguments": ["b"] }),
                "the name of an argument has not 1 to 128 characters",
            ),
            (twice, "it has two arguments `b`"),
        ] {
            assert_eq!(draft(&definition).text.unwrap_err(), why);
        }
    }
}
