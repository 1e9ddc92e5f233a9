//! Runs: one agent's work, and the labels of what it has seen. Revocations, and keys made at run time.
//!
//! A run belongs to a principal: a client, and a user where one is known. A call that names no run falls into
//! its principal's default run, which counts as having seen what any live run of the principal has seen. A run
//! that is begun otherwise begins with those labels. So a principal does not shed what it saw by beginning anew.
//! Labels only grow; a run's labels and destinations are erased when it ends, and for [`REMEMBERED`] it is
//! remembered that it ended, and why.
//!
//! A label is put on the run of the call whose answer carried it, and on no other: a default run counts as
//! having seen it for as long as that run lives, and not longer, unless it saw it itself.
//!
//! All of it is shared by the processes on one state folder. Each holds everything in memory, and calls are
//! checked there; a thread reads what other processes changed every [`POLL`]. What a process changes itself
//! is durable, and in its own memory, before the change returns. When the state could not be read for
//! [`STALE_MAX`], nobody stands any more ([`Runs::check`]).

mod ending;
mod error;
mod feed;
mod keys;
mod revocation;
mod run;
mod shared;
mod signing;
mod table;
mod watcher;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    manifest::{ClientName, Label},
    store::{Change, Store},
};
use ending::end_one;
use run::{millis, time};
use shared::Shared;
use watcher::Watcher;

pub use error::{RunError, RunsError};
pub use keys::{KeyView, RuntimeKey};
pub use revocation::{Revocation, RevocationView, Standing, StandingError, TokenId};
pub use run::{EndReason, EndedRun, NewRun, Principal, Run, RunId, RunKind, RunView};
pub use signing::SigningKeyRow;

/// How long a default run may be idle before it ends.
pub const IDLE_MAX: Duration = Duration::from_secs(30 * 60);

/// For how long it is remembered that a run has ended. After that it is unknown, which is refused as well.
pub const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);
const REMEMBERED_MS: i64 = 7 * 86_400_000;

/// How often other processes' changes are looked for.
pub const POLL: Duration = Duration::from_millis(20);

/// How long ago the state may have been read last.
pub const STALE_MAX: Duration = Duration::from_secs(1);

/// How many runs may be live.
pub const RUNS_MAX: usize = 100_000;

/// How many runs of one client may be live, default ones not counted: it cannot take everybody's.
pub const RUNS_OF_CLIENT_MAX: usize = 10_000;

/// How many labels a run may have.
pub const LABELS_MAX: usize = 1_000;

/// How many destinations a run may have, and how long each may be.
pub const DESTINATIONS_MAX: usize = 1_000;
/// How long a destination may be.
pub const DESTINATION_BYTES_MAX: usize = 1_024;

const USER_BYTES_MAX: usize = 2_048;
const ACTOR_BYTES_MAX: usize = 256;
const REASON_BYTES_MAX: usize = 1_024;

/// The runs, revocations and run-time keys of a state folder.
#[derive(Debug)]
pub struct Runs {
    shared: Arc<Shared>,
    /// When what is over was taken out of the store last.
    pruned_ms: AtomicI64,
    _watcher: Watcher,
    _keeper: AbortOnDropHandle<()>,
}

impl Runs {
    /// Reads everything in a store, and begins to watch it. Stops watching when it is dropped.
    ///
    /// # Errors
    /// When the store does not answer, or holds what nobody wrote there.
    pub async fn open(store: Store) -> Result<Arc<Self>, RunsError> {
        let shared = Arc::new(Shared::new(store));
        shared.catch_up(None).await?;
        let watcher = Watcher::start(Arc::clone(&shared))?;
        let keeper = tokio::spawn(shared::keep(Arc::clone(&shared)));
        Ok(Arc::new(Self {
            shared,
            pruned_ms: AtomicI64::new(0),
            _watcher: watcher,
            _keeper: AbortOnDropHandle::new(keeper),
        }))
    }

    /// The default run of a principal: begun here where there is none, or where it was idle for too long.
    ///
    /// # Errors
    /// When one has to begin, and there are too many or the store does not answer.
    pub async fn default_run(&self, principal: &Principal, now: Timestamp) -> Result<Run, RunsError> {
        let now_ms = now.as_millisecond();
        let mut ended = None;
        // More than one round only where others end it as fast as it is begun.
        for _ in 0..8 {
            let live = self.shared.table().default_of(principal, now_ms);
            if let Some(mut run) = live {
                run.ended = ended;
                return Ok(run);
            }
            ended = self.begin_default(principal, now_ms).await?.or(ended);
        }
        Err(RunsError::Contended)
    }

    /// The default run of a principal, where there is one.
    #[must_use]
    pub fn live_default(&self, principal: &Principal, now: Timestamp) -> Option<RunId> {
        self.shared.table().default_of(principal, now.as_millisecond()).map(|run| run.id())
    }

    /// Begins a principal's default run unless there is one. Gives the one that had been idle for too long.
    async fn begin_default(&self, principal: &Principal, now_ms: i64) -> Result<Option<RunId>, RunsError> {
        self.has_room()?;
        // Processes that all see no live run take turns, and the next finds the one of the first.
        let mut change = self.shared.store.change().await?;
        let generation = change.generation();
        let default = default_in(&mut change, principal, now_ms).await?;
        if !default.is_new {
            change.cancel().await?;
            self.shared.catch_up(None).await?;
            return Ok(None);
        }
        change.commit().await?;
        self.shared.catch_up(Some(generation)).await?;
        Ok(default.ended)
    }

    /// Begins a run, with the labels of its principal's live runs.
    ///
    /// # Errors
    /// When there are too many, something is too long, or the store does not answer.
    pub async fn begin(&self, new: &NewRun<'_>, now: Timestamp) -> Result<Run, RunsError> {
        let longest = new.destinations.iter().map(String::len).max().unwrap_or(0);
        if new.destinations.len() > DESTINATIONS_MAX || longest > DESTINATION_BYTES_MAX {
            return Err(RunsError::Destinations { max: DESTINATIONS_MAX, bytes_max: DESTINATION_BYTES_MAX });
        }
        self.has_room()?;
        if self.shared.table().handles_of(&new.principal.client) >= RUNS_OF_CLIENT_MAX {
            return Err(RunsError::TooManyOfClient { max: RUNS_OF_CLIENT_MAX });
        }
        let (id, now_ms) = (RunId::random()?, now.as_millisecond());
        let mut change = self.shared.store.change().await?;
        let generation = change.generation();
        insert(&mut change, id, new, now_ms).await?;
        let inherited = sqlx::query(
            "INSERT INTO agent_run_labels (run, label, generation)
             SELECT DISTINCT $1, label, $3 FROM agent_run_labels
             WHERE run IN (SELECT id FROM agent_runs WHERE principal = $2 AND ended_ms IS NULL)",
        )
        .bind(id.to_string())
        .bind(new.principal.to_text())
        .bind(generation)
        .execute(&mut *change)
        .await?;
        if inherited.rows_affected() > LABELS_MAX as u64 {
            change.cancel().await?;
            return Err(RunsError::TooManyLabels { max: LABELS_MAX });
        }
        change.commit().await?;
        self.shared.catch_up(Some(generation)).await?;
        self.shared.table().snapshot(&id, now_ms).ok_or(RunsError::Ended)
    }

    fn has_room(&self) -> Result<(), RunsError> {
        if self.shared.table().all().len() >= RUNS_MAX {
            return Err(RunsError::TooManyRuns { max: RUNS_MAX });
        }
        Ok(())
    }

    /// The run that a token or a process is bound to. Of one that another process may just have begun or used,
    /// the store is asked.
    ///
    /// # Errors
    /// When it is unknown, has ended or expired, or is somebody else's.
    pub async fn resume(&self, id: &RunId, principal: &Principal, now: Timestamp) -> Result<Run, RunError> {
        match self.shared.resume(id, principal, now) {
            Err(RunError::Unknown | RunError::Expired) => {
                self.shared.catch_up(None).await?;
                self.shared.resume(id, principal, now)
            }
            known => known,
        }
    }

    /// The run of a session.
    ///
    /// # Errors
    /// When there is none, it has expired, or is somebody else's. One that has ended is unknown.
    pub async fn session(
        &self,
        session: &str,
        principal: &Principal,
        now: Timestamp,
    ) -> Result<Run, RunError> {
        let digest = digest(session);
        let mut id = self.shared.table().of_session(&digest);
        if id.is_none() {
            self.shared.catch_up(None).await?;
            id = self.shared.table().of_session(&digest);
        }
        self.resume(&id.ok_or(RunError::Unknown)?, principal, now).await
    }

    /// Reads what other processes changed if a run is not known, not even as one that has ended: it may have
    /// begun in one of them a moment ago.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn hear_of(&self, id: &RunId) -> Result<(), RunsError> {
        let is_known = {
            let table = self.shared.table();
            table.live(id).is_some() || table.tombstone(id).is_some()
        };
        if is_known { Ok(()) } else { self.shared.catch_up(None).await }
    }

    /// Puts labels on a run, durably. What was seen is remembered before it is answered.
    ///
    /// # Errors
    /// When the run has ended, and so can remember nothing, has too many labels, or the store does not answer.
    pub async fn absorb(&self, run: &Run, labels: &BTreeSet<Label>) -> Result<(), RunsError> {
        // Not what the run counts as having seen: others' labels go when they end, its own stay.
        let own = self.shared.table().live(&run.id()).map(|live| Arc::clone(&live.own));
        if labels.is_empty() || own.is_some_and(|own| labels.is_subset(&own)) {
            return Ok(());
        }
        let id = run.id().to_string();
        let mut change = self.shared.store.change().await?;
        let generation = change.generation();
        let found: Option<(Option<i64>,)> = sqlx::query_as("SELECT ended_ms FROM agent_runs WHERE id = $1")
            .bind(&id)
            .fetch_optional(&mut *change)
            .await?;
        let Some((None,)) = found else {
            change.cancel().await?;
            return Err(RunsError::Ended);
        };
        for label in labels {
            sqlx::query(
                "INSERT INTO agent_run_labels (run, label, generation) VALUES ($1, $2, $3)
                 ON CONFLICT DO NOTHING",
            )
            .bind(&id)
            .bind(label.as_str())
            .bind(generation)
            .execute(&mut *change)
            .await?;
        }
        let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM agent_run_labels WHERE run = $1")
            .bind(&id)
            .fetch_one(&mut *change)
            .await?;
        if usize::try_from(count).unwrap_or(usize::MAX) > LABELS_MAX {
            change.cancel().await?;
            return Err(RunsError::TooManyLabels { max: LABELS_MAX });
        }
        change.commit().await?;
        self.shared.catch_up(Some(generation)).await
    }

    /// The live runs, the latest first.
    #[must_use]
    pub fn list(&self) -> Vec<RunView> {
        let view = |live: &table::Live| {
            let cell = &live.cell;
            RunView {
                id: cell.id,
                principal: cell.principal.clone(),
                kind: cell.kind,
                begun: time(cell.begun_ms),
                used: time(cell.used_ms.load(Ordering::Relaxed)),
                expires: cell.expires_ms.map(time),
                labels: live.own.iter().cloned().collect(),
                destinations: cell.destinations.clone(),
                calls: cell.calls.load(Ordering::Relaxed),
            }
        };
        let mut runs: Vec<RunView> = self.shared.table().all().map(view).collect();
        runs.sort_by(|one, other| other.begun.cmp(&one.begun).then_with(|| one.id.cmp(&other.id)));
        runs
    }

    /// Whether a run goes on: it has not ended, nor is it about to.
    #[must_use]
    pub fn is_live(&self, id: &RunId, now: Timestamp) -> bool {
        self.shared.table().live(id).is_some_and(|live| live.is_live(now.as_millisecond()))
    }

    /// How many live sessions a client has.
    #[must_use]
    pub fn sessions_of(&self, client: &ClientName) -> usize {
        self.shared.table().sessions_of(client)
    }

    /// How many sessions are live.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shared.table().sessions()
    }
}

/// A default run.
fn default_of(principal: &Principal) -> NewRun<'static> {
    NewRun {
        principal: principal.clone(),
        kind: RunKind::Default,
        lifetime: Duration::MAX,
        idle: IDLE_MAX,
        destinations: Vec::new(),
        session: None,
    }
}

/// A principal's default run, as a change finds or begins it.
struct DefaultRun {
    id: RunId,
    is_new: bool,
    /// The one before it, which had been idle for too long.
    ended: Option<RunId>,
}

/// A principal's default run, begun where there is none, or where it was idle for too long.
async fn default_in(
    change: &mut Change,
    principal: &Principal,
    now_ms: i64,
) -> Result<DefaultRun, RunsError> {
    let found: Option<(String, i64)> = sqlx::query_as(
        "SELECT id, used_ms + idle_ms FROM agent_runs
         WHERE principal = $1 AND kind = 'default' AND ended_ms IS NULL",
    )
    .bind(principal.to_text())
    .fetch_optional(&mut **change)
    .await?;
    let mut ended = None;
    if let Some((id, idle_from_ms)) = found {
        let id = RunId::parse(&id).ok_or(RunsError::Damaged(id))?;
        if now_ms < idle_from_ms {
            return Ok(DefaultRun { id, is_new: false, ended });
        }
        let generation = change.generation();
        end_one(change, generation, id, EndReason::Idle, now_ms).await?;
        ended = Some(id);
    }
    let id = RunId::random()?;
    insert(change, id, &default_of(principal), now_ms).await?;
    Ok(DefaultRun { id, is_new: true, ended })
}

/// Writes a new run.
async fn insert(change: &mut Change, id: RunId, new: &NewRun<'_>, now_ms: i64) -> Result<(), RunsError> {
    let user_bytes = new.principal.user.as_ref().map_or(0, |user| user.issuer.len().max(user.subject.len()));
    if user_bytes > USER_BYTES_MAX {
        return Err(RunsError::TooLong { what: "the user's name", bytes_max: USER_BYTES_MAX });
    }
    let expires_ms = (new.kind != RunKind::Default).then(|| now_ms.saturating_add(millis(new.lifetime)));
    let generation = change.generation();
    sqlx::query(
        "INSERT INTO agent_runs (id, principal, kind, session, destinations, begun_ms, used_ms, idle_ms,
             expires_ms, generation)
         VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9)",
    )
    .bind(id.to_string())
    .bind(new.principal.to_text())
    .bind(new.kind.word())
    .bind(new.session.map(|session| hex::encode(digest(session))))
    .bind(serde_json::Value::from(new.destinations.as_slice()).to_string())
    .bind(now_ms)
    .bind(millis(new.idle))
    .bind(expires_ms)
    .bind(generation)
    .execute(&mut **change)
    .await?;
    Ok(())
}

/// Who does something and why, no longer than is kept.
fn bounded(actor: &str, reason: &str) -> Result<(), RunsError> {
    let parts = [("the actor's name", actor, ACTOR_BYTES_MAX), ("the reason", reason, REASON_BYTES_MAX)];
    match parts.into_iter().find(|(_, text, bytes_max)| text.len() > *bytes_max) {
        Some((what, _, bytes_max)) => Err(RunsError::TooLong { what, bytes_max }),
        None => Ok(()),
    }
}

fn digest(session: &str) -> [u8; 32] {
    Sha256::digest(session.as_bytes()).into()
}
