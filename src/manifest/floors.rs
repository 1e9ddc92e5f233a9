//! `policies/tools.yaml`: what the security team accepts of what developers claim.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Effects, Offer, Reach, ToolManifest, ToolName, Yields};

/// The accepted tools.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "Callgate's accepted tools")]
pub struct FloorsFile {
    /// What becomes of a tool that is not listed here.
    #[serde(default)]
    pub unlisted: Unlisted,
    /// The accepted tools by name.
    #[serde(default)]
    pub tools: BTreeMap<ToolName, Floor>,
    /// The accepted resources and templates of resources by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<ToolName, Floor>,
    /// The accepted prompts by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prompts: BTreeMap<ToolName, Floor>,
}

impl FloorsFile {
    /// What was accepted of what a manifest offers.
    #[must_use]
    pub fn of(&self, manifest: &ToolManifest) -> Option<&Floor> {
        let floors = match manifest.offer {
            Offer::Tool => &self.tools,
            Offer::Resource(_) => &self.resources,
            Offer::Prompt(_) => &self.prompts,
        };
        floors.get(manifest.offered())
    }
}

/// What becomes of a tool that nobody accepted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unlisted {
    /// Nobody sees it.
    #[default]
    Hide,
    /// It is what its developer claims.
    TrustClaims,
}

/// What was accepted of one tool. Its manifest may claim no less than each of these.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Floor {
    /// It changes at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<Effects>,
    /// It reaches at least this far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
    /// Its answers are at least this doubtful.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yields: Option<Yields>,
    /// The digest of the definition that was accepted; `callgate accept` writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
}
