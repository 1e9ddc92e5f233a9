//! What is asked for, as it is typed: a tool, a resource or a prompt. No tool's name holds a `:`.

use serde_json::{Map, Value};

use crate::{
    call::CallKind,
    manifest::{NameError, ToolName},
};

/// A call of `TOOL`, a read of `resource:URI`, or a get of `prompt:NAME`.
///
/// # Errors
/// When a resource is asked for with arguments: it has none but its URI.
pub(super) fn asked(target: &str, arguments: Map<String, Value>) -> Result<CallKind, String> {
    match target.split_once(':') {
        Some(("resource", _)) if !arguments.is_empty() => {
            Err("a resource is read by its URI alone: leave the arguments out".to_owned())
        }
        Some(("resource", uri)) => Ok(CallKind::resource(uri.to_owned())),
        Some(("prompt", name)) => Ok(CallKind::Prompt { name: name.to_owned(), arguments: arguments.into() }),
        _ => Ok(CallKind::Tool { name: target.to_owned(), arguments: arguments.into() }),
    }
}

/// The name that the guards know: `TOOL`, `resource:NAME` or `prompt:NAME`.
///
/// # Errors
/// When it is no such name.
pub(super) fn offered(text: &str) -> Result<ToolName, NameError> {
    match text.split_once(':') {
        Some((kind @ ("resource" | "prompt"), name)) => {
            ToolName::parse(name).map(|name| ToolName::reserved(kind, &name))
        }
        _ => ToolName::parse(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_a_tool_a_resource_or_a_prompt() {
        let target = |text: &str| {
            let kind = asked(text, Map::new()).unwrap();
            format!("{} {}", kind.word(), kind.target())
        };
        assert_eq!(target("orders.get"), "tool orders.get");
        assert_eq!(target("resource:docs://a:b"), "resource docs://a:b");
        assert_eq!(target("prompt:review"), "prompt review");
        assert_eq!(target("other:review"), "tool other:review");
        let arguments = Map::from_iter([("uri".to_owned(), Value::Null)]);
        assert!(asked("resource:docs://a", arguments.clone()).is_err());
        assert!(asked("prompt:review", arguments).is_ok());
        assert_eq!(offered("resource:page").unwrap().as_str(), "resource:page");
        assert!(offered("resource:docs://a").is_err() && offered("other:page").is_err());
    }
}
