//! A tool of one release: what its developer claims, as far as it was accepted.

use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{
    mirrored::{Mirrored, mirrored},
    published::{labels_of, without_labelled_requirements},
};
use crate::manifest::{Label, ToolManifest, ToolName};

/// A tool, with everything about it that does not change from call to call.
#[derive(Debug)]
pub struct Tool {
    manifest: ToolManifest,
    digest: String,
    visible: bool,
    input_schema: Arc<Map<String, Value>>,
    output_schema: Option<Arc<Map<String, Value>>>,
    labels: Vec<Label>,
    mirrored: Vec<Mirrored>,
}

impl Tool {
    /// A tool of a manifest. `visible` is false for one that nobody accepted.
    #[must_use]
    pub fn new(manifest: ToolManifest, digest: String, visible: bool) -> Self {
        let input_schema = Arc::new(manifest.input.clone());
        let output_schema =
            manifest.output.as_ref().map(|schema| Arc::new(without_labelled_requirements(schema)));
        let labels = manifest.output.as_ref().map(labels_of).unwrap_or_default();
        let mirrored = mirrored(&manifest.input);
        Self { manifest, digest, visible, input_schema, output_schema, labels, mirrored }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &ToolName {
        &self.manifest.tool
    }

    /// Its manifest.
    #[must_use]
    pub const fn manifest(&self) -> &ToolManifest {
        &self.manifest
    }

    /// The digest of its definition, `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether anybody may see it.
    #[must_use]
    pub const fn is_visible(&self) -> bool {
        self.visible
    }

    /// The schema of its arguments, as clients see it.
    #[must_use]
    pub const fn input_schema(&self) -> &Arc<Map<String, Value>> {
        &self.input_schema
    }

    /// The schema of its answers, as clients see it: it requires no labelled field.
    #[must_use]
    pub const fn output_schema(&self) -> Option<&Arc<Map<String, Value>>> {
        self.output_schema.as_ref()
    }

    /// The labels that fields of its answers carry.
    #[must_use]
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// The arguments that clients repeat in headers.
    #[must_use]
    pub fn mirrored(&self) -> &[Mirrored] {
        &self.mirrored
    }
}

/// The digest of a definition: SHA-256 over its canonical JSON (RFC 8785), without its examples.
#[must_use]
pub fn definition_digest(definition: &Value) -> String {
    let mut definition = definition.clone();
    if let Some(members) = definition.as_object_mut() {
        members.remove("examples");
    }
    // Canonical JSON fails on maps whose keys are no strings only, which `Value` cannot hold.
    let canonical = serde_json_canonicalizer::to_vec(&definition).unwrap_or_default();
    format!("sha256:{}", hex::encode(Sha256::digest(canonical)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_digest_ignores_order_and_examples_and_nothing_else() {
        let digest = definition_digest(&json!({"tool": "a", "effects": "read"}));
        assert_eq!(digest, definition_digest(&json!({"effects": "read", "tool": "a", "examples": [1]})));
        assert_ne!(digest, definition_digest(&json!({"effects": "write", "tool": "a"})));
    }
}
