//! API keys made at run time, and when each key was used last.
//!
//! They live outside releases, so that a rollback never revives one.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jiff::Timestamp;
use serde::Serialize;

use super::{Runs, error::RunsError, run::time};
use crate::manifest::{ClientName, KeyId};

/// An API key made at run time, of which only a digest is kept.
#[derive(Clone, Debug)]
pub struct RuntimeKey {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub client: ClientName,
    /// The SHA-256 of its secret part.
    pub sha256: [u8; 32],
    /// From when on it is refused.
    pub expires: Timestamp,
}

/// Who made a key, and when.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) by: String,
    pub(super) at: Timestamp,
}

/// What is known of a key.
#[derive(Debug, Default)]
pub(super) struct KeyFacts {
    /// The key itself, where it was made at run time.
    pub(super) key: Option<(Arc<RuntimeKey>, Made)>,
    /// When it was used last, by what this process knows; 0 where it never was.
    pub(super) used_ms: AtomicI64,
    /// When it was used last, by what is stored.
    pub(super) stored_ms: AtomicI64,
}

impl KeyFacts {
    /// When it was used last, where that is to be stored.
    pub(super) fn behind(&self) -> Option<i64> {
        let used_ms = self.used_ms.load(Ordering::Relaxed);
        (used_ms.saturating_sub(self.stored_ms.load(Ordering::Relaxed)) >= USE_STEP_MS).then_some(used_ms)
    }
}

/// How far the stored time of a key's last use may be behind.
const USE_STEP_MS: i64 = 60_000;

/// How many keys may be made at run time, and how many keys' last use is known.
pub(super) const KEYS_MAX: usize = 100_000;

/// A key made at run time, as it is listed.
#[derive(Clone, Debug, Serialize)]
pub struct KeyView {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub client: ClientName,
    /// Who made it.
    pub actor: String,
    /// When it was made.
    pub made: Timestamp,
    /// From when on it is refused.
    pub expires: Timestamp,
    /// When it was used last, to within a minute or so where that was in another process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

impl Runs {
    /// Adds a key. When this returns it is durable, and works in this process.
    ///
    /// # Errors
    /// When there is one of this id already, there are too many, or the store does not answer.
    pub async fn add_key(&self, key: &RuntimeKey, actor: &str, now: Timestamp) -> Result<(), RunsError> {
        super::bounded(actor, "")?;
        if self.shared.table().keys.len() >= KEYS_MAX {
            return Err(RunsError::TooManyKeys { max: KEYS_MAX });
        }
        let mut change = self.shared.store.change().await?;
        let generation = change.generation();
        let made = sqlx::query(
            "INSERT INTO api_keys (id, client, sha256, made_ms, actor, expires_ms, generation)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        )
        .bind(key.id.as_str())
        .bind(key.client.as_str())
        .bind(hex::encode(key.sha256))
        .bind(now.as_millisecond())
        .bind(actor)
        .bind(key.expires.as_millisecond())
        .bind(generation)
        .execute(&mut *change)
        .await?;
        if made.rows_affected() == 0 {
            change.cancel().await?;
            return Err(RunsError::KeyExists(key.id.clone()));
        }
        change.commit().await?;
        self.shared.catch_up(Some(generation)).await
    }

    /// The key of an id that was made at run time, expired or not.
    #[must_use]
    pub fn key(&self, id: &str) -> Option<Arc<RuntimeKey>> {
        self.shared.table().key(id).cloned()
    }

    /// Lets a key expire at a time, where it does not expire before. Gives when it does.
    ///
    /// # Errors
    /// When there is no such key, or the store does not answer.
    pub async fn expire_key(&self, id: &KeyId, at: Timestamp) -> Result<Timestamp, RunsError> {
        let mut change = self.shared.store.change().await?;
        let generation = change.generation();
        let expires: Option<(i64,)> = sqlx::query_as(
            "UPDATE api_keys SET generation = $3,
                 expires_ms = CASE WHEN expires_ms < $2 THEN expires_ms ELSE $2 END
             WHERE id = $1 RETURNING expires_ms",
        )
        .bind(id.as_str())
        .bind(at.as_millisecond())
        .bind(generation)
        .fetch_optional(&mut *change)
        .await?;
        let Some((expires_ms,)) = expires else {
            change.cancel().await?;
            return Err(RunsError::UnknownKey(id.clone()));
        };
        change.commit().await?;
        self.shared.catch_up(Some(generation)).await?;
        Ok(time(expires_ms))
    }

    /// The keys made at run time, by client and id.
    #[must_use]
    pub fn keys(&self) -> Vec<KeyView> {
        let table = self.shared.table();
        let view = |facts: &KeyFacts| {
            let (key, made) = facts.key.as_ref()?;
            Some(KeyView {
                id: key.id.clone(),
                client: key.client.clone(),
                actor: made.by.clone(),
                made: made.at,
                expires: key.expires,
                last_used: last_used(facts),
            })
        };
        let mut keys: Vec<KeyView> = table.keys.values().filter_map(view).collect();
        keys.sort_by(|one, other| (&one.client, &one.id).cmp(&(&other.client, &other.id)));
        keys
    }

    /// When a key was used last, wherever it was made.
    #[must_use]
    pub fn key_last_used(&self, id: &KeyId) -> Option<Timestamp> {
        self.shared.table().keys.get(id).and_then(last_used)
    }

    /// Notes that a key was used. It is stored within a minute or so.
    pub fn key_used(&self, id: &KeyId, now: Timestamp) {
        let now_ms = now.as_millisecond();
        if let Some(facts) = self.shared.table().keys.get(id) {
            if facts.used_ms.load(Ordering::Relaxed) < now_ms {
                facts.used_ms.fetch_max(now_ms, Ordering::Relaxed);
            }
            return;
        }
        let mut table = self.shared.table_mut();
        if table.keys.len() < KEYS_MAX {
            table.keys.entry(id.clone()).or_default().used_ms.fetch_max(now_ms, Ordering::Relaxed);
        }
    }
}

fn last_used(facts: &KeyFacts) -> Option<Timestamp> {
    let used_ms = facts.used_ms.load(Ordering::Relaxed);
    (used_ms > 0).then(|| time(used_ms))
}
