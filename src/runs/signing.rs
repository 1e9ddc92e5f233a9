//! The keys that the token endpoint signs with, shared by all processes on one state folder.

use std::fmt;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use super::{Runs, error::RunsError, run::time};

/// A signing key.
pub struct SigningKeyRow {
    /// Its id, as tokens name it.
    pub kid: String,
    /// The key itself (PKCS #8, DER).
    pub pkcs8: SecretSlice<u8>,
    /// When it was made.
    pub made: Timestamp,
    /// From when on nothing that it signed is taken.
    pub retires: Timestamp,
}

impl fmt::Debug for SigningKeyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeyRow")
            .field("kid", &self.kid)
            .field("made", &self.made)
            .field("retires", &self.retires)
            .finish_non_exhaustive()
    }
}

const KID_BYTES_MAX: usize = 128;
const PKCS8_BYTES_MAX: usize = 16 * 1024;

impl Runs {
    /// The keys that are not retired at a time, the oldest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn signing_keys(&self, now: Timestamp) -> Result<Vec<SigningKeyRow>, RunsError> {
        let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(
            "SELECT kid, pkcs8, made_ms, retires_ms FROM signing_keys
             WHERE retires_ms > $1 ORDER BY made_ms, kid",
        )
        .bind(now.as_millisecond())
        .fetch_all(self.shared.store.pool())
        .await?;
        let row = |(kid, pkcs8, made_ms, retires_ms): (String, String, i64, i64)| {
            let pkcs8 = SecretString::from(pkcs8);
            let Ok(pkcs8) = hex::decode(pkcs8.expose_secret()) else {
                return Err(RunsError::Damaged(format!("signing key `{}`", kid.escape_debug())));
            };
            Ok(SigningKeyRow { kid, pkcs8: pkcs8.into(), made: time(made_ms), retires: time(retires_ms) })
        };
        rows.into_iter().map(row).collect()
    }

    /// Adds the key that follows another, or the first one. Where two processes make it at once, the first
    /// to write wins: `false` says that another key was added there, and is to be read.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn add_signing_key(
        &self,
        key: &SigningKeyRow,
        follows: Option<&str>,
    ) -> Result<bool, RunsError> {
        if key.kid.len() > KID_BYTES_MAX || key.kid.is_empty() {
            return Err(RunsError::TooLong { what: "the signing key's id", bytes_max: KID_BYTES_MAX });
        }
        if key.pkcs8.expose_secret().len() > PKCS8_BYTES_MAX {
            return Err(RunsError::TooLong { what: "the signing key", bytes_max: PKCS8_BYTES_MAX });
        }
        let pkcs8 = SecretString::from(hex::encode(key.pkcs8.expose_secret()));
        let mut change = self.shared.store.change().await?;
        // `follows` is unique: each key is followed by one, and one is the first.
        let made = sqlx::query(
            "INSERT INTO signing_keys (kid, follows, pkcs8, made_ms, retires_ms)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        )
        .bind(&key.kid)
        .bind(follows.unwrap_or_default())
        .bind(pkcs8.expose_secret())
        .bind(key.made.as_millisecond())
        .bind(key.retires.as_millisecond())
        .execute(&mut *change)
        .await?;
        change.commit().await?;
        Ok(made.rows_affected() == 1)
    }

    /// Lets a key retire at a time, where it does not retire before.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn retire_signing_key(&self, kid: &str, at: Timestamp) -> Result<(), RunsError> {
        let mut change = self.shared.store.change().await?;
        sqlx::query("UPDATE signing_keys SET retires_ms = $2 WHERE kid = $1 AND retires_ms > $2")
            .bind(kid)
            .bind(at.as_millisecond())
            .execute(&mut *change)
            .await?;
        Ok(change.commit().await?)
    }
}
