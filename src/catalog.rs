//! `Identified → Admitted`: does this tool exist for this caller, and does it hold the scopes?
//!
//! Listing and calling ask the same question, so what is listed is what may be
//! called (or what a step-up may unlock).

mod completion;
mod mirrored;
mod published;
mod tool;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Deref,
    sync::Arc,
};

use globset::{Glob, GlobSet, GlobSetBuilder};

use completion::can_be_completed;

use crate::{
    call::{CallKind, Completed, Facts, Passed, Refusal, Stage, ToolFacts},
    identity::{Caller, Client, Clients, Identified},
    manifest::{ClientName, Offer, Place, Problem, Scope, Source, ToolName, join_pointer},
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
    #[error("{kind} `{target}` is not on the allowlist of `{caller}`")]
    NotListed {
        /// What it is: a tool, a resource or a prompt.
        kind: &'static str,
        /// Its name or URI, as it was sent.
        target: String,
        /// The client.
        caller: ClientName,
    },
    /// The tool is listed, and the caller lacks scopes for it.
    #[error("{} needs scope {}, which `{caller}` does not hold", tool.manifest().said(), ticked(missing))]
    MissingScope {
        /// The tool.
        tool: Arc<Tool>,
        /// The scopes that are missing.
        missing: Vec<Scope>,
        /// The client.
        caller: ClientName,
    },
    /// No resource has this URI.
    #[error("unknown resource `{uri}`")]
    UnknownResource {
        /// The URI, as it was sent.
        uri: String,
    },
    /// No prompt has this name.
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
            // What is off the caller's allowlist reads like what does not exist.
            Self::NotListed { kind, target, .. } => format!("unknown {kind} `{target}`"),
            Self::MissingScope { tool, .. } => {
                format!("{} needs scope {}", tool.manifest().said(), ticked(&tool.manifest().scopes))
            }
            Self::UnknownTool { .. } | Self::UnknownResource { .. } | Self::UnknownPrompt { .. } => {
                self.to_string()
            }
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

/// What it is that a call is for.
const fn word(kind: &CallKind) -> &'static str {
    match kind {
        CallKind::Tool { .. } => "tool",
        CallKind::Resource { .. } | CallKind::Subscription { .. } => "resource",
        CallKind::Prompt { .. } => "prompt",
        CallKind::Completion(completion) => match completion.of {
            Completed::Template(_) => "resource",
            Completed::Prompt(_) => "prompt",
        },
    }
}

/// What a tool, a resource or a prompt is to a caller.
enum Admission<'a> {
    Unknown,
    NotListed,
    StepUp(&'a Arc<Tool>, Vec<Scope>),
    Admitted(&'a Arc<Tool>),
}

/// The tools, resources and prompts of one release, and which of them exist for whom.
#[derive(Debug, Default)]
pub struct Catalog {
    tools: BTreeMap<ToolName, Arc<Tool>>,
    resources: BTreeMap<ToolName, Arc<Tool>>,
    prompts: BTreeMap<ToolName, Arc<Tool>>,
    has_tasks: bool,
    views: HashMap<ClientName, View>,
}

/// What exists for a client.
#[derive(Debug, Default)]
struct View {
    /// By the names that the guards use.
    listed: HashSet<ToolName>,
    /// Which URIs it may read.
    uris: GlobSet,
}

impl Catalog {
    /// What there is, and for each client what its allowlists name.
    #[must_use]
    pub fn build(offers: Vec<Tool>, clients: &Clients, source: &Source) -> (Self, Vec<Problem>) {
        let mut catalog = Self::default();
        for tool in offers {
            catalog.has_tasks |= !tool.manifest().task.is_never();
            let all = match &tool.manifest().offer {
                Offer::Tool => &mut catalog.tools,
                Offer::Resource(_) => &mut catalog.resources,
                Offer::Prompt(_) => &mut catalog.prompts,
            };
            all.insert(tool.name().clone(), Arc::new(tool));
        }
        let mut problems = Vec::new();
        for client in clients.iter() {
            let spec = client.spec();
            let mut globs =
                |key, patterns: &[String]| allowlist(client, key, patterns, source, &mut problems);
            let (tools, uris) = (globs("tools", &spec.tools), globs("resources", &spec.resources));
            let prompts = globs("prompts", &spec.prompts);
            let is_listed = |tool: &Tool| match &tool.manifest().offer {
                Offer::Tool => tools.is_match(tool.name().as_str()),
                Offer::Resource(resource) => uris.is_match(resource.written()),
                Offer::Prompt(prompt) => prompts.is_match(prompt.prompt.as_str()),
            };
            let listed = catalog.everything().filter(|tool| tool.is_visible() && is_listed(tool));
            let listed = listed.map(|tool| tool.name().clone()).collect();
            catalog.views.insert(client.name().clone(), View { listed, uris });
        }
        (catalog, problems)
    }

    /// Admits a call to what exists for its caller and whose scopes it holds.
    ///
    /// # Errors
    /// When it does not exist for the caller, or the caller lacks a scope.
    pub fn admit(&self, identified: Identified) -> Result<Admitted, AdmitError> {
        let target = || cut(identified.kind.target());
        let client = identified.caller().client();
        match self.admission(identified.caller(), &identified.kind) {
            Admission::Unknown => Err(match &identified.kind {
                CallKind::Tool { .. } => AdmitError::UnknownTool { tool: target() },
                CallKind::Resource { .. } | CallKind::Subscription { .. } => {
                    AdmitError::UnknownResource { uri: target() }
                }
                CallKind::Prompt { .. } => AdmitError::UnknownPrompt { name: target() },
                CallKind::Completion(completion) => match completion.of {
                    Completed::Template(_) => AdmitError::UnknownResource { uri: target() },
                    Completed::Prompt(_) => AdmitError::UnknownPrompt { name: target() },
                },
            }),
            Admission::NotListed => Err(AdmitError::NotListed {
                kind: word(&identified.kind),
                target: target(),
                caller: client.name().clone(),
            }),
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
        matches!(self.admission(caller, kind), Admission::StepUp(..))
    }

    /// The tools that exist for a caller, by name: those it may call, and those a step-up may unlock.
    pub fn list<'a>(&'a self, caller: &'a Caller) -> impl Iterator<Item = &'a Arc<Tool>> {
        self.tools.values().filter(|tool| self.is_listed(caller, tool))
    }

    /// The resources that exist for a caller, by name, the templates among them.
    pub fn list_resources<'a>(&'a self, caller: &'a Caller) -> impl Iterator<Item = &'a Arc<Tool>> {
        self.resources.values().filter(|tool| self.is_listed(caller, tool))
    }

    /// The prompts that exist for a caller, by name.
    pub fn list_prompts<'a>(&'a self, caller: &'a Caller) -> impl Iterator<Item = &'a Arc<Tool>> {
        self.prompts.values().filter(|tool| self.is_listed(caller, tool))
    }

    /// The tools on a client's allowlist, by name.
    pub fn allowed<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = &'a Arc<Tool>> {
        self.allowed_all(client).filter(|tool| matches!(tool.manifest().offer, Offer::Tool))
    }

    /// The same, with the resources and prompts on its allowlists.
    pub fn allowed_all<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = &'a Arc<Tool>> {
        let view = self.views.get(client.name());
        self.everything().filter(move |tool| view.is_some_and(|view| view.listed.contains(tool.name())))
    }

    /// The tool of a name, if it exists for a caller: the same question as `list` asks.
    #[must_use]
    pub fn visible(&self, caller: &Caller, name: &str) -> Option<&Arc<Tool>> {
        match self.admission_of(caller, self.tools.get(name), None) {
            Admission::Admitted(tool) | Admission::StepUp(tool, _) => Some(tool),
            Admission::Unknown | Admission::NotListed => None,
        }
    }

    /// All tools, by name.
    pub fn tools(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.tools.values()
    }

    /// Whether there is any resource, and any prompt.
    #[must_use]
    pub fn offers(&self) -> (bool, bool) {
        (!self.resources.is_empty(), !self.prompts.is_empty())
    }

    /// Whether there is any tool whose calls can be answered with a task.
    #[must_use]
    pub const fn has_tasks(&self) -> bool {
        self.has_tasks
    }

    /// The tool, resource or prompt of a name that the guards use, whoever may see it.
    #[must_use]
    pub fn tool(&self, name: &ToolName) -> Option<&Arc<Tool>> {
        self.tools.get(name).or_else(|| self.resources.get(name)).or_else(|| self.prompts.get(name))
    }

    fn everything(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.tools.values().chain(self.resources.values()).chain(self.prompts.values())
    }

    fn is_listed(&self, caller: &Caller, tool: &Arc<Tool>) -> bool {
        let admission = self.admission_of(caller, Some(tool), None);
        matches!(admission, Admission::Admitted(_) | Admission::StepUp(..))
    }

    /// What a call asks for, whoever calls.
    fn find(&self, kind: &CallKind) -> Option<&Arc<Tool>> {
        match kind {
            CallKind::Tool { name, .. } => self.tools.get(name.as_str()),
            CallKind::Resource { uri, .. } => self.resource(uri),
            CallKind::Subscription { updates, .. } => self.resource(updates.uri()),
            CallKind::Prompt { name, .. } => self.prompt(name),
            CallKind::Completion(completion) => {
                self.completed(&completion.of).filter(|tool| can_be_completed(tool, completion))
            }
        }
    }

    /// The prompt of a name, whoever may see it.
    #[must_use]
    pub fn prompt(&self, name: &str) -> Option<&Arc<Tool>> {
        let name = ToolName::parse(name).ok()?;
        self.prompts.get(&ToolName::reserved("prompt", &name))
    }

    /// The resource with a URI, whoever may see it; else the first template, by name, that stands for it.
    #[must_use]
    pub fn resource(&self, uri: &str) -> Option<&Arc<Tool>> {
        let of = |is_template: bool| {
            self.resources.values().find(move |tool| match &tool.manifest().offer {
                Offer::Resource(resource) => resource.uri.is_none() == is_template && resource.matches(uri),
                Offer::Tool | Offer::Prompt(_) => false,
            })
        };
        of(false).or_else(|| of(true))
    }

    fn admission(&self, caller: &Caller, kind: &CallKind) -> Admission<'_> {
        let uri = match kind {
            CallKind::Resource { uri, .. } => Some(uri.as_str()),
            CallKind::Subscription { updates, .. } => Some(updates.uri()),
            // A template is the client's where its own text is on the allowlist, as in its list.
            CallKind::Tool { .. } | CallKind::Prompt { .. } | CallKind::Completion(_) => None,
        };
        self.admission_of(caller, self.find(kind), uri)
    }

    /// The one place that decides what a tool, a resource or a prompt is to a caller. A resource that is read has
    /// a URI of its own, which has to be on the allowlist; where it is only listed, its name says whether it is.
    fn admission_of<'a>(
        &'a self,
        caller: &Caller,
        tool: Option<&'a Arc<Tool>>,
        uri: Option<&str>,
    ) -> Admission<'a> {
        let Some(tool) = tool else { return Admission::Unknown };
        let is_listed = |view: &View| match uri {
            Some(uri) => tool.is_visible() && view.uris.is_match(uri),
            None => view.listed.contains(tool.name()),
        };
        let listed = self.views.get(caller.client().name()).is_some_and(is_listed);
        if !listed || !caller.is_left(tool.name()) {
            return Admission::NotListed;
        }
        let missing: Vec<Scope> =
            tool.manifest().scopes.iter().filter(|scope| !caller.holds(scope)).cloned().collect();
        if missing.is_empty() { Admission::Admitted(tool) } else { Admission::StepUp(tool, missing) }
    }
}

/// One of a client's allowlists, compiled. A pattern that does not compile matches nothing.
fn allowlist(
    client: &Client,
    key: &str,
    patterns: &[String],
    source: &Source,
    problems: &mut Vec<Problem>,
) -> GlobSet {
    let mut globs = GlobSetBuilder::new();
    for (at, pattern) in patterns.iter().enumerate() {
        match Glob::new(pattern) {
            Ok(glob) => {
                globs.add(glob);
            }
            Err(error) => {
                let pointer = format!("{}/{key}/{at}", join_pointer("/clients", client.name().as_str()));
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
