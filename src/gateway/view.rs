//! What a caller sees, as one value that is another when that is; and whether it may still hear of a resource.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::{
    call::{Call, CallKind, Origin, Proof},
    catalog::Tool,
    identity::{Caller, IdentityError},
    limits::Limits,
    manifest::{BackendSpec, ClientName, FileContent, OwnContent},
    rules::Rules,
    runs::StandingError,
};

/// A list, as one value that is another when the list is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListDigest([u8; 32]);

impl ListDigest {
    /// That of a whole list.
    #[must_use]
    pub fn of(tools: &[Arc<Tool>]) -> Self {
        let mut hash = Sha256::new();
        for tool in tools {
            for part in [tool.name().as_str(), tool.digest()] {
                hash.update(part);
                hash.update([0]); // in none of them
            }
        }
        Self(hash.finalize().into())
    }
}

/// The lists of a caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct View {
    /// The tools.
    pub tools: ListDigest,
    /// The resources, and templates of resources.
    pub resources: ListDigest,
    /// The prompts.
    pub prompts: ListDigest,
}

/// Hears when what callers see may be another.
#[derive(Debug)]
pub struct Turns {
    releases: watch::Receiver<u64>,
    upstreams: watch::Receiver<u64>,
}

impl Turns {
    /// Waits until it may be.
    pub async fn next(&mut self) {
        // Both senders live as long as the gate.
        tokio::select! {
            _ = self.releases.changed() => {}
            _ = self.upstreams.changed() => {}
        }
    }
}

/// How many resources one client may hear of at once, in all its sessions and streams.
const WATCHED_PER_CLIENT_MAX: usize = 256;

/// How many resources each client hears of.
pub(super) type Watching = Arc<Mutex<HashMap<ClientName, usize>>>;

/// A client's place for one more resource. It is free again when this is gone.
#[derive(Debug)]
pub struct WatchPlace {
    watching: Watching,
    client: ClientName,
}

impl Drop for WatchPlace {
    fn drop(&mut self) {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut places) = watching.entry(self.client.clone()) {
            *places.get_mut() -= 1;
            if *places.get() == 0 {
                places.remove();
            }
        }
    }
}

impl Gateway {
    /// A place for one more resource that a client hears of. None where it has as many as it may.
    #[must_use]
    pub fn place_to_watch(&self, client: &ClientName) -> Option<WatchPlace> {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        let places = watching.entry(client.clone()).or_default();
        if *places >= WATCHED_PER_CLIENT_MAX {
            return None;
        }
        *places += 1;
        Some(WatchPlace { watching: Arc::clone(&self.watching), client: client.clone() })
    }

    /// Hears when what callers see may be another.
    #[must_use]
    pub fn turns(&self) -> Turns {
        Turns { releases: self.releases.subscribe(), upstreams: self.backends.upstreams().turns() }
    }

    /// Puts another release in force, for calls that come from now on. Budgets stay those of the first one.
    pub fn put_in_force(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
        self.releases.send_modify(|releases| *releases = releases.wrapping_add(1));
    }

    /// What a caller sees now.
    ///
    /// # Errors
    /// When it does not prove who it is.
    pub async fn view(&self, proof: &Proof, origin: Origin) -> Result<View, IdentityError> {
        Ok(View {
            tools: ListDigest::of(&self.list(proof, origin.source).await?),
            resources: ListDigest::of(&self.list_resources(proof, origin.source).await?),
            prompts: ListDigest::of(&self.list_prompts(proof, origin.source).await?),
        })
    }

    /// Who shows this proof, by what is in force now. Nothing is counted.
    ///
    /// # Errors
    /// When it proves nothing.
    pub async fn whose(&self, proof: &Proof, origin: Origin) -> Result<Caller, IdentityError> {
        let rules = self.rules.load_full();
        self.identities.authenticate(&rules.clients, proof, origin.source, Timestamp::now()).await
    }

    /// Whether a caller still has the right that it showed. Who waits goes on waiting while nobody knows.
    #[must_use]
    pub fn still_stands(&self, caller: &Caller) -> bool {
        matches!(
            self.runs.check(&caller.standing(None), Timestamp::now()),
            Ok(()) | Err(StandingError::Stale { .. })
        )
    }

    /// Whether a caller that hears of a resource could read it now. Spends no budget and leaves no record.
    pub async fn may_still_read(&self, proof: &Proof, origin: Origin, uri: &str) -> bool {
        let rules = self.rules.load_full();
        let kind = CallKind::resource(uri.to_owned());
        let call = Call::now(kind, proof.clone(), origin, CancellationToken::new());
        let Ok(identified) = self.identities.identify(&rules.clients, call).await else { return false };
        let Ok(admitted) = rules.catalog.admit(identified) else { return false };
        if !self.backends.stand_behind(admitted.tool()) {
            return false;
        }
        let limits = Limits::build(&rules.clients, &rules.catalog); // this spends nobody's budget
        let Ok(metered) = limits.spend(admitted) else { return false };
        let Ok(validated) = rules.schemas.rehearse(metered) else { return false };
        rules.policies.authorize(validated).is_ok()
    }

    /// The contents of a file of the project that is a resource, whoever may read it.
    #[must_use]
    pub fn own_content(&self, uri: &str) -> Option<Arc<FileContent>> {
        let rules = self.rules.load();
        let BackendSpec::Own(own) = &rules.catalog.resource(uri)?.manifest().backend else { return None };
        match &own.content {
            OwnContent::File { read, .. } => read.clone(),
            OwnContent::Messages(_) => None,
        }
    }

    /// Whether there is something of which an argument can be completed, as far as is known.
    #[must_use]
    pub fn completes(&self) -> bool {
        self.rules.load().catalog.completes(|tool| self.backends.may_complete(tool))
    }
}
