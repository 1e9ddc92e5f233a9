//! Upstreams, made of the project's files; and their quarantines, put on record.

use std::{
    path::{Path, PathBuf},
    sync::Weak,
};

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::{
    audit::{Change, ChangeEnding},
    call::{CallId, Outcome},
    credential::LiveSecrets,
    egress::Egress,
    gateway::Gateway,
    manifest::{BackendSpec, Source, ToolManifest},
    release::Project,
    rules::Files,
    upstream::{Difference, EndpointFault, Notice, Pinned, PinnedTool, Reached},
};

/// How many quarantines may wait for their record.
pub(super) const NOTICES_MAX: usize = 64;

/// The project's upstreams, with what its manifests pin.
pub(super) fn pinned(
    project: &Project,
    egress: &Egress,
    live: &LiveSecrets,
) -> Result<Vec<Pinned>, EndpointFault> {
    let Some(files) = &project.files else { return Ok(Vec::new()) };
    let of_spec = files.server.1.upstreams.iter().map(|(name, spec)| {
        let reached = Reached::new(name, spec, project.base(), egress, live)?;
        let manifests = || files.tools.iter().filter(|(_, manifest)| manifest.backend.service() == name);
        Ok(Pinned {
            name: name.clone(),
            reached,
            recheck: spec.recheck.duration(),
            instructions: spec.instructions,
            reviewed: manifests().find_map(|(source, _)| reviewed(&source.path, "instructions.txt")),
            is_open: manifests().all(|(_, manifest)| manifest.credential.is_none()),
            tools: tools(files, name.as_str()),
        })
    });
    of_spec.collect()
}

fn tools(files: &Files, upstream: &str) -> Vec<PinnedTool> {
    let pin = |(source, manifest): &(Source, ToolManifest)| {
        let BackendSpec::Mcp(mcp) = &manifest.backend else { return None };
        (mcp.upstream.as_str() == upstream).then(|| PinnedTool {
            name: manifest.tool.clone(),
            kind: mcp.kind,
            tool: mcp.tool.clone(),
            definition: mcp.definition,
            reviewed: reviewed(&source.path, &format!("{}.json", manifest.tool.as_str().replace(':', "-"))),
            asks: mcp.asks.clone(),
        })
    };
    files.tools.iter().filter_map(pin).collect()
}

/// Where what was reviewed is kept: beside the manifest, in `reviewed/`.
fn reviewed(manifest: &Path, name: &str) -> Option<PathBuf> {
    Some(manifest.parent()?.join("reviewed").join(name))
}

/// Puts each quarantine on record, for as long as there is the gate.
pub(super) async fn put_on_record(mut notices: mpsc::Receiver<Notice>, gateway: Weak<Gateway>) {
    while let Some(Notice { upstream, tool, quarantine, recorded }) = notices.recv().await {
        let Some(gateway) = gateway.upgrade() else { return };
        let change = Change {
            act: "quarantine",
            actor: format!("upstream:{upstream}"),
            id: CallId::random(Timestamp::now()),
            key: None,
            reason: quarantine.why.word().into(),
            what: match tool.as_str().split_once(':') {
                Some((kind, name)) => format!("{kind} {name}"),
                None => format!("tool {tool}"),
            },
        };
        let detail = quarantine.difference.as_ref().map(Difference::line);
        let ending = ChangeEnding { outcome: Outcome::Allowed, code: None, detail };
        match gateway.audit().end_change(&change, &ending, None).await {
            Ok(()) => drop(recorded.send(())),
            Err(error) => tracing::warn!(%error, %tool, "a quarantine is not on record"),
        }
    }
}
