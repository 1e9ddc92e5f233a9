//! The composition root: a project on disk becomes a gate that works.

use std::{path::Path, sync::Arc};

use crate::{
    audit::{Audit, LogError},
    backend::Backends,
    egress::{Egress, EgressError},
    gateway::Gateway,
    manifest::Problem,
    release::Project,
    rules::Secrets,
    runs::Runs,
    store::{StateError, StateFolder, Store},
};

/// Why a project does not become a gate.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its files are wrong.
    #[error("the project does not load")]
    Problems(Vec<Problem>),
    /// Its state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its log cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Connections cannot be made.
    #[error(transparent)]
    Egress(#[from] EgressError),
}

/// A gate, with the project it was made of.
#[derive(Debug)]
pub struct App {
    /// The gate.
    pub gateway: Arc<Gateway>,
    /// The project.
    pub project: Project,
    /// What is doubtful about it.
    pub warnings: Vec<Problem>,
}

impl App {
    /// Opens the project whose `callgate.yaml` is at `config`, with a log of the given kind.
    ///
    /// # Errors
    /// When its files are wrong, or its state cannot be used.
    pub async fn open(config: &Path, kind: &'static str) -> Result<Self, OpenError> {
        let project = Project::read(config);
        let (rules, problems) = project.build(Secrets::Required);
        let (Some(rules), Some(state)) = (rules, project.state()) else {
            return Err(OpenError::Problems(problems));
        };
        let folder = StateFolder::prepare(&state)?;
        let runs = Runs::new(Store::open(&folder).await?);
        let audit = Audit::open(&folder, kind, &rules.digest)?;
        let gateway = Gateway::new(rules, runs, audit, Backends::new(Egress::new()?));
        Ok(Self { gateway: Arc::new(gateway), project, warnings: problems })
    }
}
