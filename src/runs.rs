//! Runs: one agent's work, and the labels of what it has seen.
//!
//! Each (client, user) has one default run. Its labels only grow; they are
//! shared by all processes on one state folder and survive a restart. The run
//! ends when it has been idle for [`IDLE_MAX`], and the next call begins another.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    manifest::{ClientName, Label},
    store::Store,
};

/// How long a run may be idle before it ends.
pub const IDLE_MAX: Duration = Duration::from_secs(30 * 60);

/// How stale the stored time of a run's last use may be.
const USED_STEP_MS: i64 = 60_000;

/// The store of runs does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the store of runs does not answer: {0}")]
pub struct RunsError(#[from] sqlx::Error);

/// A run, as one call sees it.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// What it has seen so far.
    pub labels: BTreeSet<Label>,
    /// How many calls this process has begun in it.
    pub calls: u64,
    /// The run that ended before this one began, where that happened just now.
    pub ended: Option<String>,
}

/// The runs of a state folder.
#[derive(Debug)]
pub struct Runs {
    store: Store,
    counts: Mutex<HashMap<String, u64>>,
}

/// Runs whose calls are counted at a time; beyond it the counts begin anew.
const COUNTS_MAX: usize = 100_000;

impl Runs {
    /// The runs in a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, counts: Mutex::default() }
    }

    /// The default run of a client (and of a user, where one is known).
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn open(
        &self,
        client: &ClientName,
        subject: &str,
        fresh: String,
        now: Timestamp,
    ) -> Result<Run, RunsError> {
        let mut run = match self.current(client, subject, now).await? {
            Some(run) => run,
            None => self.begin(client, subject, fresh, now).await?,
        };
        run.calls = self.count(&run.id);
        Ok(run)
    }

    /// The stored run, unless it has been idle for too long.
    async fn current(
        &self,
        client: &ClientName,
        subject: &str,
        now: Timestamp,
    ) -> Result<Option<Run>, RunsError> {
        let now_ms = now.as_millisecond();
        let row: Option<(String, i64)> =
            sqlx::query_as("SELECT id, used_ms FROM runs WHERE client = $1 AND subject = $2")
                .bind(client.as_str())
                .bind(subject)
                .fetch_optional(self.store.pool())
                .await?;
        let Some((id, used_ms)) = row.filter(|(_, used_ms)| now_ms.saturating_sub(*used_ms) < idle_ms())
        else {
            return Ok(None);
        };
        if now_ms.saturating_sub(used_ms) >= USED_STEP_MS {
            sqlx::query("UPDATE runs SET used_ms = $3 WHERE client = $1 AND subject = $2 AND used_ms < $3")
                .bind(client.as_str())
                .bind(subject)
                .bind(now_ms)
                .execute(self.store.pool())
                .await?;
        }
        let labels: Vec<(String,)> =
            sqlx::query_as("SELECT label FROM run_labels WHERE client = $1 AND subject = $2")
                .bind(client.as_str())
                .bind(subject)
                .fetch_all(self.store.pool())
                .await?;
        let labels = labels.iter().filter_map(|(label,)| Label::parse(label).ok()).collect();
        Ok(Some(Run { id, labels, ..Run::default() }))
    }

    /// Ends the run that was idle for too long, if any, and begins another.
    async fn begin(
        &self,
        client: &ClientName,
        subject: &str,
        fresh: String,
        now: Timestamp,
    ) -> Result<Run, RunsError> {
        let now_ms = now.as_millisecond();
        // IMMEDIATE: two processes that both see no live run take turns, and the second finds the first's.
        let mut change = self.store.pool().begin_with("BEGIN IMMEDIATE").await?;
        let old: Option<(String, i64)> =
            sqlx::query_as("SELECT id, used_ms FROM runs WHERE client = $1 AND subject = $2")
                .bind(client.as_str())
                .bind(subject)
                .fetch_optional(&mut *change)
                .await?;
        if let Some((id, _)) = old.as_ref().filter(|(_, used_ms)| now_ms.saturating_sub(*used_ms) < idle_ms())
        {
            let id = id.clone();
            change.rollback().await?;
            let live = Box::pin(self.current(client, subject, now)).await?;
            return Ok(live.unwrap_or_else(|| Run { id, ..Run::default() }));
        }
        sqlx::query("DELETE FROM run_labels WHERE client = $1 AND subject = $2")
            .bind(client.as_str())
            .bind(subject)
            .execute(&mut *change)
            .await?;
        sqlx::query(
            "INSERT INTO runs (client, subject, id, used_ms) VALUES ($1, $2, $3, $4)
             ON CONFLICT (client, subject) DO UPDATE SET id = $3, used_ms = $4",
        )
        .bind(client.as_str())
        .bind(subject)
        .bind(&fresh)
        .bind(now_ms)
        .execute(&mut *change)
        .await?;
        change.commit().await?;
        Ok(Run { id: fresh, ended: old.map(|(id, _)| id), ..Run::default() })
    }

    /// Puts labels on a run, durably. What was seen is remembered before it is answered.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn absorb(
        &self,
        client: &ClientName,
        subject: &str,
        run: &Run,
        labels: &BTreeSet<Label>,
    ) -> Result<(), RunsError> {
        if labels.is_subset(&run.labels) {
            return Ok(());
        }
        let mut change = self.store.pool().begin_with("BEGIN IMMEDIATE").await?;
        for label in labels.difference(&run.labels) {
            sqlx::query(
                "INSERT INTO run_labels (client, subject, label) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            )
            .bind(client.as_str())
            .bind(subject)
            .bind(label.as_str())
            .execute(&mut *change)
            .await?;
        }
        change.commit().await?;
        Ok(())
    }

    fn count(&self, id: &str) -> u64 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= COUNTS_MAX {
            counts.clear();
        }
        let count = counts.entry(id.to_owned()).or_default();
        let before = *count;
        *count = count.saturating_add(1);
        before
    }
}

fn idle_ms() -> i64 {
    i64::try_from(IDLE_MAX.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StateFolder;

    async fn runs(folder: &std::path::Path) -> Runs {
        Runs::new(Store::open(&StateFolder::prepare(folder).unwrap()).await.unwrap())
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    fn labels(names: &[&str]) -> BTreeSet<Label> {
        names.iter().map(|name| Label::parse(name).unwrap()).collect()
    }

    #[tokio::test]
    async fn labels_outlive_the_process_and_are_shared() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let (one, other) = (runs(&state).await, runs(&state).await);
        let bot = ClientName::parse("bot").unwrap();
        let run = one.open(&bot, "", "r1".into(), at(0)).await.unwrap();
        one.absorb(&bot, "", &run, &labels(&["pii"])).await.unwrap();
        // The second process has no label in its own snapshot, and takes none away.
        other.absorb(&bot, "", &run, &labels(&["untrusted"])).await.unwrap();
        let again = runs(&state).await.open(&bot, "", "r2".into(), at(1)).await.unwrap();
        assert_eq!((again.id.as_str(), again.labels), ("r1", labels(&["pii", "untrusted"])));
    }

    #[tokio::test]
    async fn one_users_labels_do_not_reach_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let runs = runs(&folder.path().join("state")).await;
        let bot = ClientName::parse("bot").unwrap();
        let ann = runs.open(&bot, "ann", "r1".into(), at(0)).await.unwrap();
        runs.absorb(&bot, "ann", &ann, &labels(&["pii"])).await.unwrap();
        assert!(runs.open(&bot, "ben", "r2".into(), at(0)).await.unwrap().labels.is_empty());
    }

    #[tokio::test]
    async fn a_run_ends_when_it_is_idle_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let runs = runs(&folder.path().join("state")).await;
        let bot = ClientName::parse("bot").unwrap();
        let run = runs.open(&bot, "", "r1".into(), at(0)).await.unwrap();
        runs.absorb(&bot, "", &run, &labels(&["untrusted"])).await.unwrap();
        let kept = runs.open(&bot, "", "r2".into(), at(29)).await.unwrap();
        assert_eq!((kept.id.as_str(), kept.labels.len(), kept.calls), ("r1", 1, 1));
        let kept = runs.open(&bot, "", "r3".into(), at(50)).await.unwrap();
        assert_eq!((kept.id.as_str(), kept.labels.len()), ("r1", 1));
        let next = runs.open(&bot, "", "r4".into(), at(81)).await.unwrap();
        assert_eq!((next.id.as_str(), next.labels.len(), next.ended.as_deref()), ("r4", 0, Some("r1")));
    }
}
