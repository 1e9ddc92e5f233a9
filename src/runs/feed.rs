//! The feed: what has changed in the store since it was read last, whoever changed it.

use std::{
    str::FromStr as _,
    sync::atomic::{AtomicI64, AtomicU64},
};

use sqlx::{Connection as _, SqliteConnection};

use super::{
    error::RunsError,
    keys::{Made, RuntimeKey},
    revocation::{Revocation, RevocationView},
    run::{Cell, EndReason, Principal, RunId, RunKind, time},
    table::Tombstone,
};
use crate::{
    manifest::{ClientName, KeyId, Label},
    store::{Store, data_version},
};

/// Reads the store through a connection of its own.
#[derive(Debug)]
pub(super) struct Feed {
    store: Store,
    connection: Option<SqliteConnection>,
    /// The data version at the last reading, of this connection.
    version: Option<i64>,
    generation: i64,
}

/// Rows that were made or changed after the generation that was known.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) live: Vec<Cell>,
    pub(super) ended: Vec<(RunId, Tombstone)>,
    pub(super) labels: Vec<(RunId, Label)>,
    pub(super) revocations: Vec<(Revocation, RevocationView)>,
    pub(super) keys: Vec<(RuntimeKey, Made)>,
    pub(super) uses: Vec<(KeyId, i64)>,
}

impl Feed {
    /// A feed that has read nothing yet.
    pub(super) const fn new(store: Store) -> Self {
        Self { store, connection: None, version: None, generation: -1 }
    }

    /// The generation that was read last.
    pub(super) const fn generation(&self) -> i64 {
        self.generation
    }

    /// What has changed since it was read last, if anything. After a failure it begins with a new connection.
    pub(super) async fn read(&mut self) -> Result<Option<Changes>, RunsError> {
        // Taken out, so that a reading that fails or is given up leaves no connection in the middle of one.
        let (connection, version) = (self.connection.take(), self.version.take());
        let mut connection = match connection {
            Some(connection) => connection,
            None => self.store.watch().await?,
        };
        // Read before the changes are: what comes between is read again.
        let found = data_version(&mut connection).await?;
        let mut changes = None;
        if version != Some(found) {
            let (read, generation) = newer(&mut connection, self.generation).await?;
            self.generation = generation;
            changes = Some(read);
        }
        (self.connection, self.version) = (Some(connection), Some(found));
        Ok(changes)
    }
}

/// Everything newer than a generation, and the generation that it is of.
async fn newer(connection: &mut SqliteConnection, known: i64) -> Result<(Changes, i64), RunsError> {
    let mut snapshot = connection.begin().await?;
    let (found,): (i64,) = sqlx::query_as("SELECT value FROM generation").fetch_one(&mut *snapshot).await?;
    if found < known {
        return Err(RunsError::WentBack { known, found });
    }
    let mut changes = Changes::default();
    if found > known {
        read_runs(&mut snapshot, known, &mut changes).await?;
        read_revocations(&mut snapshot, known, &mut changes).await?;
        read_keys(&mut snapshot, known, &mut changes).await?;
    }
    snapshot.commit().await?;
    Ok((changes, found))
}

#[derive(sqlx::FromRow)]
struct RunRow {
    id: String,
    principal: String,
    kind: String,
    session: Option<String>,
    destinations: String,
    begun_ms: i64,
    used_ms: i64,
    idle_ms: i64,
    expires_ms: Option<i64>,
    ended_ms: Option<i64>,
    why: Option<String>,
}

async fn read_runs(
    snapshot: &mut SqliteConnection,
    known: i64,
    changes: &mut Changes,
) -> Result<(), RunsError> {
    let rows: Vec<RunRow> = sqlx::query_as(
        "SELECT id, principal, kind, session, destinations, begun_ms, used_ms, idle_ms, expires_ms, ended_ms, why
         FROM agent_runs WHERE generation > $1",
    )
    .bind(known)
    .fetch_all(&mut *snapshot)
    .await?;
    for row in rows {
        let damaged = || RunsError::Damaged(format!("run `{}`", row.id.escape_debug()));
        let id = RunId::parse(&row.id).ok_or_else(damaged)?;
        if let Some(ended_ms) = row.ended_ms {
            let tombstone = row.tombstone(ended_ms).ok_or_else(damaged)?;
            changes.ended.push((id, tombstone));
        } else {
            changes.live.push(row.cell(id).ok_or_else(damaged)?);
        }
    }
    let labels: Vec<(String, String)> =
        sqlx::query_as("SELECT run, label FROM agent_run_labels WHERE generation > $1")
            .bind(known)
            .fetch_all(&mut *snapshot)
            .await?;
    for (run, label) in labels {
        // A label that cannot be read is not left out: the run would pass for one that has not seen it.
        let read = RunId::parse(&run).zip(Label::parse(&label).ok());
        let damaged = || RunsError::Damaged(format!("a label of run `{}`", run.escape_debug()));
        changes.labels.push(read.ok_or_else(damaged)?);
    }
    Ok(())
}

impl RunRow {
    fn tombstone(&self, ended_ms: i64) -> Option<Tombstone> {
        let why = EndReason::from_str(self.why.as_deref()?).ok()?;
        Some(Tombstone { principal: Principal::of_text(&self.principal)?, why, ended_ms })
    }

    fn cell(&self, id: RunId) -> Option<Cell> {
        let session = match &self.session {
            Some(text) => {
                let mut digest = [0; 32];
                hex::decode_to_slice(text, &mut digest).ok()?;
                Some(digest)
            }
            None => None,
        };
        Some(Cell {
            id,
            principal: Principal::of_text(&self.principal)?,
            kind: RunKind::from_str(&self.kind).ok()?,
            session,
            destinations: serde_json::from_str(&self.destinations).ok()?,
            begun_ms: self.begun_ms,
            idle_ms: self.idle_ms,
            expires_ms: self.expires_ms,
            used_ms: AtomicI64::new(self.used_ms),
            stored_ms: AtomicI64::new(self.used_ms),
            calls: AtomicU64::new(0),
        })
    }
}

async fn read_revocations(
    snapshot: &mut SqliteConnection,
    known: i64,
    changes: &mut Changes,
) -> Result<(), RunsError> {
    let rows: Vec<(String, String, String, String, i64, Option<i64>)> = sqlx::query_as(
        "SELECT kind, name, actor, reason, made_ms, until_ms FROM revocations WHERE generation > $1",
    )
    .bind(known)
    .fetch_all(&mut *snapshot)
    .await?;
    for (kind, name, actor, reason, made_ms, until_ms) in rows {
        let damaged = || RunsError::Damaged(format!("the revocation of {kind} `{}`", name.escape_debug()));
        let what = Revocation::of_text(&kind, &name).ok_or_else(damaged)?;
        let (made, until) = (time(made_ms), until_ms.map(time));
        changes.revocations.push((what, RevocationView { kind, name, actor, reason, made, until }));
    }
    Ok(())
}

async fn read_keys(
    snapshot: &mut SqliteConnection,
    known: i64,
    changes: &mut Changes,
) -> Result<(), RunsError> {
    let rows: Vec<(String, String, String, i64, String, i64)> = sqlx::query_as(
        "SELECT id, client, sha256, made_ms, actor, expires_ms FROM api_keys WHERE generation > $1",
    )
    .bind(known)
    .fetch_all(&mut *snapshot)
    .await?;
    for (id, client, digest, made_ms, actor, expires_ms) in rows {
        let mut sha256 = [0; 32];
        let key = hex::decode_to_slice(&digest, &mut sha256).ok().and_then(|()| {
            let (id, client) = (KeyId::parse(&id).ok()?, ClientName::parse(&client).ok()?);
            Some(RuntimeKey { id, client, sha256, expires: time(expires_ms) })
        });
        let damaged = || RunsError::Damaged(format!("key `{}`", id.escape_debug()));
        changes.keys.push((key.ok_or_else(damaged)?, Made { by: actor, at: time(made_ms) }));
    }
    let uses: Vec<(String, i64)> = sqlx::query_as("SELECT id, used_ms FROM key_uses WHERE generation > $1")
        .bind(known)
        .fetch_all(&mut *snapshot)
        .await?;
    for (id, used_ms) in uses {
        let damaged = |_| RunsError::Damaged(format!("the last use of key `{}`", id.escape_debug()));
        changes.uses.push((KeyId::parse(&id).map_err(damaged)?, used_ms));
    }
    Ok(())
}
