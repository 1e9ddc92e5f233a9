//! What a manifest offers, and where the project itself answers.

use std::{path::PathBuf, sync::Arc};

use super::{PromptManifest, PromptMessageSpec, ResourceManifest, ServiceName};

/// What a manifest offers. The guards know one kind of thing, a tool; this tells what it is to clients.
#[derive(Clone, Debug, Default)]
pub enum Offer {
    /// A tool.
    #[default]
    Tool,
    /// A resource, or a template of resources.
    Resource(Arc<ResourceManifest>),
    /// A prompt.
    Prompt(Arc<PromptManifest>),
}

impl Offer {
    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Resource(_) => "resource",
            Self::Prompt(_) => "prompt",
        }
    }
}

/// What an upstream lists, and by which of its members it is named.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum UpstreamKind {
    /// A tool, by its name.
    #[default]
    Tool,
    /// A resource, by its URI.
    Resource,
    /// A template of resources, by itself.
    Template,
    /// A prompt, by its name.
    Prompt,
}

impl UpstreamKind {
    /// The method that lists such things, and the member of its result that holds them.
    #[must_use]
    pub const fn list(self) -> (&'static str, &'static str) {
        match self {
            Self::Tool => ("tools/list", "tools"),
            Self::Resource => ("resources/list", "resources"),
            Self::Template => ("resources/templates/list", "resourceTemplates"),
            Self::Prompt => ("prompts/list", "prompts"),
        }
    }

    /// The member that names such a thing.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Tool | Self::Prompt => "name",
            Self::Resource => "uri",
            Self::Template => "uriTemplate",
        }
    }

    /// The method that calls, reads or gets it.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Tool => "tools/call",
            Self::Resource | Self::Template => "resources/read",
            Self::Prompt => "prompts/get",
        }
    }

    /// The list that an upstream names where it says that it is another now.
    #[must_use]
    pub const fn family(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Resource | Self::Template => "resources",
            Self::Prompt => "prompts",
        }
    }
}

/// The project itself, where it answers.
#[derive(Clone, Debug)]
pub struct OwnBackend {
    /// The service that policies see: a name that no service can have.
    pub service: ServiceName,
    /// What it answers.
    pub content: OwnContent,
}

/// What the project answers by itself.
#[derive(Clone, Debug)]
pub enum OwnContent {
    /// A file's contents.
    File {
        /// Its path below the folder of such files.
        path: PathBuf,
        /// The contents, once they are read.
        read: Option<Arc<FileContent>>,
    },
    /// The messages of a prompt.
    Messages(Vec<PromptMessageSpec>),
}

/// The contents of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FileContent {
    /// Text.
    Text(String),
    /// Anything else, in base64 (RFC 4648 §4).
    Blob(String),
}

impl OwnBackend {
    /// The project, where it answers this.
    #[must_use]
    pub fn new(content: OwnContent) -> Self {
        Self { service: ServiceName::project(), content }
    }
}
