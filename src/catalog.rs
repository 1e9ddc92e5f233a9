//! `Identified → Admitted`: does this tool exist for this caller, and does it hold the scopes?
//!
//! Listing and calling ask the same question, so what is listed is what may be
//! called (or what a step-up may unlock).

mod mirrored;
mod published;
mod tool;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Deref,
    sync::Arc,
};

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::{
    call::{CallKind, Facts, Passed, Refusal, Stage, ToolFacts},
    identity::{Caller, Client, Clients, Identified},
    manifest::{ClientName, Place, Problem, Scope, Source, ToolName, join_pointer},
};

pub use mirrored::{Mirrored, mirrored};
pub use published::{LABEL_KEYWORD, labels_of, without_labelled_requirements};
pub use tool::{Tool, definition_digest};

/// A call to a tool that exists and whose scopes the caller holds.
#[derive(Debug)]
pub struct Admitted {
    identified: Identified,
    tool: Arc<Tool>,
}

impl Admitted {
    /// The tool.
    #[must_use]
    pub const fn tool(&self) -> &Arc<Tool> {
        &self.tool
    }
}

impl Deref for Admitted {
    type Target = Identified;
    fn deref(&self) -> &Identified {
        &self.identified
    }
}

impl Passed for Admitted {
    const STAGE: Stage = Stage::Catalog;
    fn describe(&self, facts: &mut Facts) {
        facts.tool = Some(tool_facts(&self.tool));
    }
}

fn tool_facts(tool: &Tool) -> ToolFacts {
    ToolFacts { digest: tool.digest().to_owned(), effects: tool.manifest().effects.word() }
}

/// Why a call is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// No tool has this name.
    #[error("unknown tool `{tool}`")]
    UnknownTool {
        /// The name, as it was sent.
        tool: String,
    },
    /// The tool exists, and not for this caller.
    #[error("tool `{tool}` is not on the allowlist of `{caller}`")]
    NotListed {
        /// The name, as it was sent.
        tool: String,
        /// The client.
        caller: ClientName,
    },
    /// The tool is listed, and the caller lacks scopes for it.
    #[error("tool `{}` needs scope {}, which `{caller}` does not hold", tool.name(), ticked(missing))]
    MissingScope {
        /// The tool.
        tool: Arc<Tool>,
        /// The scopes that are missing.
        missing: Vec<Scope>,
        /// The client.
        caller: ClientName,
    },
    /// There are no resources.
    #[error("unknown resource `{uri}`")]
    UnknownResource {
        /// The URI, as it was sent.
        uri: String,
    },
    /// There are no prompts.
    #[error("unknown prompt `{name}`")]
    UnknownPrompt {
        /// The name, as it was sent.
        name: String,
    },
}

fn ticked(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| format!("`{scope}`")).collect::<Vec<_>>().join(" and ")
}

impl Refusal for AdmitError {
    fn stage(&self) -> Stage {
        Stage::Catalog
    }
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownTool { .. } => "unknown_tool",
            Self::NotListed { .. } => "not_listed",
            Self::MissingScope { .. } => "missing_scope",
            Self::UnknownResource { .. } => "unknown_resource",
            Self::UnknownPrompt { .. } => "unknown_prompt",
        }
    }
    fn public_message(&self) -> String {
        match self {
            // A tool off the caller's allowlist reads like one that does not exist.
            Self::UnknownTool { tool } | Self::NotListed { tool, .. } => format!("unknown tool `{tool}`"),
            Self::MissingScope { tool, .. } => {
                format!("tool `{}` needs scope {}", tool.name(), ticked(&tool.manifest().scopes))
            }
            Self::UnknownResource { .. } | Self::UnknownPrompt { .. } => self.to_string(),
        }
    }
    fn describe(&self, facts: &mut Facts) {
        if let Self::MissingScope { tool, .. } = self {
            facts.tool = Some(tool_facts(tool));
        }
    }
}

/// A name as it is repeated in replies and records: no longer than a tool's can be.
fn cut(name: &str) -> String {
    name.chars().take(128).collect()
}

/// What a tool is to a caller.
enum Admission<'a> {
    Unknown,
    NotListed,
    StepUp(&'a Arc<Tool>, Vec<Scope>),
    Admitted(&'a Arc<Tool>),
}

/// The tools of one release, and which of them exist for whom.
#[derive(Debug, Default)]
pub struct Catalog {
    tools: BTreeMap<ToolName, Arc<Tool>>,
    views: HashMap<ClientName, HashSet<ToolName>>,
}

impl Catalog {
    /// The tools, and for each client those that its allowlist names.
    #[must_use]
    pub fn build(tools: Vec<Tool>, clients: &Clients, source: &Source) -> (Self, Vec<Problem>) {
        let tools: BTreeMap<_, _> =
            tools.into_iter().map(|tool| (tool.name().clone(), Arc::new(tool))).collect();
        let mut views = HashMap::new();
        let mut problems = Vec::new();
        for client in clients.iter() {
            let allowlist = allowlist(client, source, &mut problems);
            let view =
                tools.values().filter(|tool| tool.is_visible() && allowlist.is_match(tool.name().as_str()));
            views.insert(client.name().clone(), view.map(|tool| tool.name().clone()).collect());
        }
        (Self { tools, views }, problems)
    }

    /// Admits a call to a tool that exists for its caller and whose scopes it holds.
    ///
    /// # Errors
    /// When it does not exist for the caller, or the caller lacks a scope.
    pub fn admit(&self, identified: Identified) -> Result<Admitted, AdmitError> {
        let name = match &identified.kind {
            CallKind::Tool { name, .. } => name,
            CallKind::Resource { uri } => return Err(AdmitError::UnknownResource { uri: cut(uri) }),
            CallKind::Prompt { name, .. } => return Err(AdmitError::UnknownPrompt { name: cut(name) }),
        };
        let client = identified.caller().client();
        match self.admission(identified.caller(), name) {
            Admission::Unknown => Err(AdmitError::UnknownTool { tool: cut(name) }),
            Admission::NotListed => {
                Err(AdmitError::NotListed { tool: cut(name), caller: client.name().clone() })
            }
            Admission::StepUp(tool, missing) => Err(AdmitError::MissingScope {
                tool: Arc::clone(tool),
                missing,
                caller: client.name().clone(),
            }),
            Admission::Admitted(tool) => {
                let tool = Arc::clone(tool);
                Ok(Admitted { identified, tool })
            }
        }
    }

    /// Whether a call lacks nothing but scopes.
    #[must_use]
    pub fn needs_step_up(&self, caller: &Caller, kind: &CallKind) -> bool {
        matches!(kind, CallKind::Tool { name, .. } if matches!(self.admission(caller, name), Admission::StepUp(..)))
    }

    /// The tools that exist for a caller, by name: those it may call, and those a step-up may unlock.
    pub fn list<'a>(&'a self, caller: &'a Caller) -> impl Iterator<Item = &'a Arc<Tool>> {
        self.tools.values().filter(move |tool| {
            matches!(
                self.admission(caller, tool.name().as_str()),
                Admission::Admitted(_) | Admission::StepUp(..)
            )
        })
    }

    /// The tools on a client's allowlist, by name.
    pub fn allowed<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = &'a Arc<Tool>> {
        let view = self.views.get(client.name());
        self.tools.values().filter(move |tool| view.is_some_and(|view| view.contains(tool.name())))
    }

    /// The tool of a name, if it exists for a caller: the same question as `list` asks.
    #[must_use]
    pub fn visible(&self, caller: &Caller, name: &str) -> Option<&Arc<Tool>> {
        match self.admission(caller, name) {
            Admission::Admitted(tool) | Admission::StepUp(tool, _) => Some(tool),
            Admission::Unknown | Admission::NotListed => None,
        }
    }

    /// All tools, by name.
    pub fn tools(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.tools.values()
    }

    /// The tool of a name, whoever may see it.
    #[must_use]
    pub fn tool(&self, name: &ToolName) -> Option<&Arc<Tool>> {
        self.tools.get(name)
    }

    /// The one place that decides what a tool is to a caller.
    fn admission(&self, caller: &Caller, name: &str) -> Admission<'_> {
        let Some(tool) = self.tools.get(name) else { return Admission::Unknown };
        let listed = self.views.get(caller.client().name()).is_some_and(|view| view.contains(name));
        if !listed || !caller.is_left(tool.name()) {
            return Admission::NotListed;
        }
        let missing: Vec<Scope> =
            tool.manifest().scopes.iter().filter(|scope| !caller.holds(scope)).cloned().collect();
        if missing.is_empty() { Admission::Admitted(tool) } else { Admission::StepUp(tool, missing) }
    }
}

/// A client's allowlist, compiled. A pattern that does not compile matches nothing.
fn allowlist(client: &Client, source: &Source, problems: &mut Vec<Problem>) -> GlobSet {
    let mut globs = GlobSetBuilder::new();
    for (at, pattern) in client.spec().tools.iter().enumerate() {
        match Glob::new(pattern) {
            Ok(glob) => {
                globs.add(glob);
            }
            Err(error) => {
                let pointer = format!("{}/tools/{at}", join_pointer("/clients", client.name().as_str()));
                let message = format!("the allowlist entry `{pattern}` is not a glob: {}", error.kind());
                problems.push(
                    Problem::error(source, Place::Pointer(pointer), message)
                        .help("write a tool's name, or a pattern such as `orders.*`"),
                );
            }
        }
    }
    globs.build().unwrap_or_default()
}
