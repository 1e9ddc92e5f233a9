//! Manifests of resources, and of templates of them.

use std::collections::HashSet;

use super::draft::{Said, quoted};
use crate::manifest::{ResourceManifest, Source, read};

/// By what resources are known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Key {
    /// One, by its URI.
    Uri,
    /// Many, by the template of their URIs.
    Template,
}

impl Key {
    const fn word(self) -> &'static str {
        match self {
            Self::Uri => "uri",
            Self::Template => "template",
        }
    }
}

/// A resource's manifest, or why there can be none.
pub(super) fn manifest(said: &Said<'_>, key: Key, notes: &[String]) -> Result<String, String> {
    let (what, by, reach) = match key {
        Key::Uri => ("resource", "URI", "none"),
        Key::Template => ("template", "template", "external"),
    };
    let whose =
        format!("The name, the {by} and the texts are the server's; `reach` and `yields` say the worst.");
    let mut lines = said.head(what, &whose, notes);
    lines.push(format!("resource: {}", said.name));
    lines.push(format!("{}: {}", key.word(), quoted(said.there)));
    lines.extend(said.text("/title").map(|title| format!("title: {}", quoted(title))));
    lines.push(format!("description: {}", quoted(said.description())));
    lines.extend(said.text("/mimeType").map(|mime| format!("mime-type: {}", quoted(mime))));
    lines.push(format!("reach: {reach}"));
    lines.push("yields: untrusted".to_owned());
    lines.push("backend:\n  mcp:".to_owned());
    lines.push(format!("    upstream: {}", quoted(said.upstream.as_str())));
    lines.push(format!("    definition: {}", said.digest));
    let text = lines.join("\n") + "\n";
    // What was written is read again: a URI that no manifest can say is not guessed at.
    let source = Source { path: format!("{}.yaml", said.name).into(), text: text.clone().into() };
    let manifest: ResourceManifest = read(&source).map_err(|problem| problem.message)?;
    let mut seen = HashSet::new();
    if manifest.template.iter().flat_map(|template| template.variables()).any(|name| !seen.insert(name)) {
        return Err("a variable stands in it twice: nobody knows which is meant".to_owned());
    }
    if manifest.written() == said.there && manifest.description == said.description() {
        Ok(text)
    } else {
        Err("it cannot be written as YAML".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::draft::Draft;
    use crate::manifest::{ServiceName, UpstreamKind};

    fn draft(kind: UpstreamKind, definition: &Value) -> Draft {
        let definition = definition.as_object().unwrap();
        let name = definition["name"].as_str().unwrap();
        Draft::new(&ServiceName::parse("docs").unwrap(), kind, name, definition)
    }

    #[test]
    fn a_resource_and_a_template_are_written_without_what_is_hidden() {
        let fixed = draft(
            UpstreamKind::Resource,
            &json!({
                "uri": "docs://handbook", "name": "The handbook", "title": "Hand\u{200b}book",
                "mimeType": "text/markdown", "annotations": { "priority": 1 }, "size": 7
            }),
        );
        insta::assert_snapshot!(fixed.text.as_ref().unwrap(), @r##"
        # Made by `callgate import` of the resource `docs://handbook` of `docs`, for review.
        # The name, the URI and the texts are the server's; `reach` and `yields` say the worst.
        # - the server's text holds 1 zero-width character, which no reader sees: removed
        resource: docs.The_handbook
        uri: "docs://handbook"
        title: "Handbook"
        description: "(the server says nothing of it)"
        mime-type: "text/markdown"
        reach: none
        yields: untrusted
        backend:
          mcp:
            upstream: "docs"
            definition: sha256:c3d692f98c3a7ad9ce5ac042bda56556d83e2d191496432a77a4c58418e2e8dc
        "##);
        assert_eq!((fixed.stem().as_str(), fixed.word()), ("resource-docs.The_handbook", "resource"));
        let many = draft(
            UpstreamKind::Template,
            &json!({ "uriTemplate": "docs://page/{id}", "name": "page", "description": "A page: \"one\"\n# of many" }),
        );
        insta::assert_snapshot!(many.text.unwrap(), @r##"
        # Made by `callgate import` of the template `docs://page/{id}` of `docs`, for review.
        # The name, the template and the texts are the server's; `reach` and `yields` say the worst.
        resource: docs.page
        template: "docs://page/{id}"
        description: "A page: \"one\"\n# of many"
        reach: external
        yields: untrusted
        backend:
          mcp:
            upstream: "docs"
            definition: sha256:175654f99b96965581a3710518e118dedcd9451d4ea80267b8ba7dd2151913ce
        "##);
    }

    #[test]
    fn what_no_manifest_can_say_is_refused() {
        let uri = |uri: &str| draft(UpstreamKind::Resource, &json!({ "uri": uri, "name": "a" })).text;
        let template =
            |text: &str| draft(UpstreamKind::Template, &json!({ "uriTemplate": text, "name": "a" })).text;
        assert!(uri("docs://a").is_ok() && template("docs://{a}/{b}").is_ok());
        for refused in [
            uri("docs://a\u{200b}"),
            uri("docs://a b"),
            uri("no scheme"),
            uri(""),
            template("docs://{+path}"),
            template("docs://{a}/{a}"),
            template("https://{host}/"),
            template("docs://fixed"),
        ] {
            assert!(refused.is_err(), "{refused:?}");
        }
        assert!(draft(UpstreamKind::Resource, &json!({ "name": "a" })).text.is_err());
    }
}
