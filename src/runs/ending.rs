//! How runs end: because somebody asks for it, or by time.

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{
    EndReason, EndedRun, LABELS_MAX, REMEMBERED_MS, RunId, Runs, RunsError, default_in,
    run::Principal,
    table::{Live, TOMBSTONES_MAX},
};
use crate::store::Change;

/// How often what is over is taken out of the store.
const PRUNE_MS: i64 = 10 * 60_000;

impl Runs {
    /// Ends a run, and erases its labels and destinations. `None` where it was not live.
    ///
    /// What a client closes by itself leaves its labels to the principal's default run: nobody sheds what was seen
    /// by hanging up and beginning anew.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end(
        &self,
        id: &RunId,
        why: EndReason,
        now: Timestamp,
    ) -> Result<Option<EndedRun>, RunsError> {
        let mut change = self.shared.store.change().await?;
        let generation = change.generation();
        if why == EndReason::Closed {
            leave_labels(&mut change, *id, now.as_millisecond()).await?;
        }
        let Some(ended) = end_one(&mut change, generation, *id, why, now.as_millisecond()).await? else {
            change.cancel().await?;
            self.shared.catch_up(None).await?;
            return Ok(None);
        };
        change.commit().await?;
        self.shared.catch_up(Some(generation)).await?;
        Ok(Some(ended))
    }

    /// Ends what is idle and not in use, or past its lifetime; forgets what is over. Each run that ends is in
    /// the answer of one process alone, which puts it on record. To be called every few seconds.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sweep(&self, now: Timestamp) -> Result<Vec<EndedRun>, RunsError> {
        let now_ms = now.as_millisecond();
        let over = self.over(now_ms);
        let mut all = Vec::new();
        if !over.is_empty() {
            self.shared.keep().await?; // so that this process's uses count in the store
        }
        // In parts, so that other writers get their turns.
        for part in over.chunks(100) {
            let mut change = self.shared.store.change().await?;
            let generation = change.generation();
            let before = all.len();
            for id in part {
                let why = reason_to_end(&mut change, *id, now_ms).await?;
                if let Some(why) = why {
                    all.extend(end_one(&mut change, generation, *id, why, now_ms).await?);
                }
            }
            if all.len() == before {
                change.cancel().await?; // others ended them, or used them meanwhile
                continue;
            }
            change.commit().await?;
            self.shared.catch_up(Some(generation)).await?;
        }
        self.prune(now).await?;
        Ok(all)
    }

    /// The runs that are over by what this process knows. What is in use here is used now.
    pub(super) fn over(&self, now_ms: i64) -> Vec<RunId> {
        let table = self.shared.table();
        let is_over = |live: &&Live| {
            if live.is_in_use() {
                live.cell.used(now_ms);
            }
            !live.is_live(now_ms)
        };
        table.all().filter(is_over).map(|live| live.cell.id).collect()
    }

    /// Takes out of the store and of memory what need not be remembered any more.
    async fn prune(&self, now: Timestamp) -> Result<(), RunsError> {
        let now_ms = now.as_millisecond();
        if now_ms.saturating_sub(self.pruned_ms.load(Ordering::Relaxed)) < PRUNE_MS {
            return Ok(());
        }
        let long_ago_ms = now_ms.saturating_sub(REMEMBERED_MS);
        let mut change = self.shared.store.change().await?;
        sqlx::query(
            "DELETE FROM agent_runs WHERE ended_ms < $1 OR ended_ms <= (
                 SELECT ended_ms FROM agent_runs WHERE ended_ms IS NOT NULL
                 ORDER BY ended_ms DESC LIMIT 1 OFFSET $2)",
        )
        .bind(long_ago_ms)
        .bind(TOMBSTONES_MAX as i64)
        .execute(&mut *change)
        .await?;
        let over = [
            sqlx::query("DELETE FROM revocations WHERE until_ms <= $1").bind(now_ms),
            sqlx::query("DELETE FROM api_keys WHERE expires_ms < $1").bind(long_ago_ms),
            sqlx::query("UPDATE signing_keys SET pkcs8 = '' WHERE retires_ms <= $1 AND pkcs8 <> ''")
                .bind(now_ms),
        ];
        for over in over {
            over.execute(&mut *change).await?;
        }
        change.commit().await?;
        self.shared.table_mut().forget(long_ago_ms, now);
        self.pruned_ms.store(now_ms, Ordering::Relaxed);
        Ok(())
    }
}

/// Puts what a live run has seen on the default run of its principal, which is begun where there is none.
async fn leave_labels(change: &mut Change, id: RunId, now_ms: i64) -> Result<(), RunsError> {
    let generation = change.generation();
    let found: Option<(String,)> = sqlx::query_as(
        "SELECT principal FROM agent_runs WHERE id = $1 AND ended_ms IS NULL AND kind <> 'default'
         AND EXISTS (SELECT 1 FROM agent_run_labels WHERE run = $1)",
    )
    .bind(id.to_string())
    .fetch_optional(&mut **change)
    .await?;
    let Some((principal,)) = found else { return Ok(()) };
    let damaged = || RunsError::Damaged(format!("run `{id}`"));
    let principal = Principal::of_text(&principal).ok_or_else(damaged)?;
    let heir = default_in(change, &principal, now_ms).await?.id.to_string();
    sqlx::query("UPDATE agent_runs SET used_ms = $2, generation = $3 WHERE id = $1 AND used_ms < $2")
        .bind(&heir)
        .bind(now_ms)
        .bind(generation)
        .execute(&mut **change)
        .await?;
    sqlx::query(
        "INSERT INTO agent_run_labels (run, label, generation)
         SELECT $1, label, $2 FROM agent_run_labels WHERE run = $3 ON CONFLICT DO NOTHING",
    )
    .bind(&heir)
    .bind(generation)
    .bind(id.to_string())
    .execute(&mut **change)
    .await?;
    let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM agent_run_labels WHERE run = $1")
        .bind(&heir)
        .fetch_one(&mut **change)
        .await?;
    if usize::try_from(count).unwrap_or(usize::MAX) > LABELS_MAX {
        return Err(RunsError::TooManyLabels { max: LABELS_MAX });
    }
    Ok(())
}

/// Why a run is to end now, by what is stored of it. `None` where it is not, or has ended.
async fn reason_to_end(
    connection: &mut SqliteConnection,
    id: RunId,
    now_ms: i64,
) -> Result<Option<EndReason>, RunsError> {
    let found: Option<(i64, Option<i64>)> = sqlx::query_as(
        "SELECT used_ms + idle_ms, expires_ms FROM agent_runs WHERE id = $1 AND ended_ms IS NULL",
    )
    .bind(id.to_string())
    .fetch_optional(connection)
    .await?;
    Ok(match found {
        Some((_, Some(expires_ms))) if expires_ms <= now_ms => Some(EndReason::Lifetime),
        Some((idle_from_ms, _)) if idle_from_ms <= now_ms => Some(EndReason::Idle),
        _ => None,
    })
}

/// Ends a run where it is live: what it has seen and where it may go is erased.
pub(super) async fn end_one(
    connection: &mut SqliteConnection,
    generation: i64,
    id: RunId,
    why: EndReason,
    now_ms: i64,
) -> Result<Option<EndedRun>, RunsError> {
    let row: Option<(String, String)> = sqlx::query_as(
        "UPDATE agent_runs SET ended_ms = $2, why = $3, destinations = '[]', session = NULL, generation = $4
         WHERE id = $1 AND ended_ms IS NULL RETURNING principal, kind",
    )
    .bind(id.to_string())
    .bind(now_ms)
    .bind(why.word())
    .bind(generation)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((principal, kind)) = row else { return Ok(None) };
    sqlx::query("DELETE FROM agent_run_labels WHERE run = $1")
        .bind(id.to_string())
        .execute(connection)
        .await?;
    let damaged = || RunsError::Damaged(format!("run `{id}`"));
    let principal = Principal::of_text(&principal).ok_or_else(damaged)?;
    let kind = kind.parse().map_err(|()| damaged())?;
    Ok(Some(EndedRun { id, kind, principal, why }))
}
