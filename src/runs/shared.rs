//! What the runs and their tasks share: the state in memory, and how it follows the store.

use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::{
    POLL, Principal, Run, RunError, RunId, RunsError, STALE_MAX, StandingError, feed::Feed, table::Table,
};
use crate::store::Store;

/// How often it is looked for last uses to store.
const KEEP: Duration = Duration::from_secs(2);

/// The state, as the calls and the tasks see it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    table: RwLock<Table>,
    feed: Mutex<Feed>,
    /// The generation that the table is of.
    pub(super) applied: AtomicI64,
    started: Instant,
    /// When the reading began that was done last, in milliseconds after `started`.
    read_ms: AtomicU64,
}

impl Shared {
    /// Nothing read yet: nobody stands.
    pub(super) fn new(store: Store) -> Self {
        Self {
            feed: Mutex::new(Feed::new(store.clone())),
            store,
            table: RwLock::default(),
            applied: AtomicI64::new(-1),
            started: Instant::now(),
            read_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what was changed, by anybody; returns at once where a generation was taken over before.
    ///
    /// Memory changes here alone, and in the order of generations: what this process has just written cannot
    /// overtake what another wrote before, or be undone by it.
    pub(super) async fn catch_up(&self, generation: Option<i64>) -> Result<(), RunsError> {
        let is_known =
            || generation.is_some_and(|generation| self.applied.load(Ordering::Acquire) >= generation);
        if is_known() {
            return Ok(());
        }
        let mut feed = self.feed.lock().await;
        if is_known() {
            return Ok(());
        }
        let began_ms = self.elapsed_ms();
        if let Some(changes) = feed.read().await? {
            self.table_mut().apply(changes);
            self.applied.store(feed.generation(), Ordering::Release);
        }
        self.read_ms.fetch_max(began_ms, Ordering::Release);
        Ok(())
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_fresh(&self) -> Result<(), StandingError> {
        let age_ms = self.elapsed_ms().saturating_sub(self.read_ms.load(Ordering::Acquire));
        let max_ms = u64::try_from(STALE_MAX.as_millis()).unwrap_or(u64::MAX);
        if age_ms > max_ms { Err(StandingError::Stale { age_ms, max_ms }) } else { Ok(()) }
    }

    pub(super) fn resume(&self, id: &RunId, principal: &Principal, now: Timestamp) -> Result<Run, RunError> {
        let now_ms = now.as_millisecond();
        let table = self.table();
        let Some(live) = table.live(id) else {
            return Err(match table.tombstone(id) {
                Some(ended) if ended.principal == *principal => RunError::Ended,
                Some(_) => RunError::Foreign,
                None => RunError::Unknown,
            });
        };
        if live.cell.principal != *principal {
            return Err(RunError::Foreign);
        }
        if !live.is_live(now_ms) {
            return Err(RunError::Expired);
        }
        table.snapshot(id, now_ms).ok_or(RunError::Unknown)
    }

    /// Stores last uses that are behind.
    pub(super) async fn keep(&self) -> Result<(), RunsError> {
        let (runs, keys) = {
            let table = self.table();
            let behind = table.all().filter(|live| live.cell.is_behind());
            let runs: Vec<_> = behind.map(|live| Arc::clone(&live.cell)).collect();
            let keys = table.keys.iter().filter_map(|(id, facts)| Some((id.clone(), facts.behind()?)));
            (runs, keys.collect::<Vec<_>>())
        };
        if runs.is_empty() && keys.is_empty() {
            return Ok(());
        }
        let mut change = self.store.change().await?;
        let generation = change.generation();
        for run in runs {
            sqlx::query(
                "UPDATE agent_runs SET used_ms = $2, generation = $3
                 WHERE id = $1 AND used_ms < $2 AND ended_ms IS NULL",
            )
            .bind(run.id.to_string())
            .bind(run.used_ms.load(Ordering::Relaxed))
            .bind(generation)
            .execute(&mut *change)
            .await?;
        }
        for (id, used_ms) in keys {
            sqlx::query(
                "INSERT INTO key_uses (id, used_ms, generation) VALUES ($1, $2, $3)
                 ON CONFLICT (id) DO UPDATE SET used_ms = excluded.used_ms, generation = excluded.generation
                 WHERE key_uses.used_ms < excluded.used_ms",
            )
            .bind(id.as_str())
            .bind(used_ms)
            .bind(generation)
            .execute(&mut *change)
            .await?;
        }
        change.commit().await?;
        self.catch_up(Some(generation)).await
    }
}

/// Takes over other processes' changes, until it is aborted. While it cannot, nobody stands.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut is_failing = false;
    loop {
        tokio::time::sleep(POLL).await;
        let read = shared.catch_up(None).await;
        if let Err(error) = &read
            && !is_failing
        {
            tracing::warn!(%error, "the state cannot be read; calls are refused until it can");
        }
        if is_failing && read.is_ok() {
            tracing::info!("the state can be read again");
        }
        is_failing = read.is_err();
    }
}

/// Stores last uses, until it is aborted.
pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(KEEP).await;
        if let Err(error) = shared.keep().await {
            tracing::warn!(%error, "the last uses of runs and keys are not stored");
        }
    }
}
