//! Revocations: what is not let in any more, whatever else says that it may.
//!
//! They live outside releases, so that a rollback never revives access.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Runs,
    error::RunsError,
    run::{EndReason, RunId},
};
use crate::manifest::{ClientName, KeyId};

/// A token's name: who issued it, and what that issuer calls it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct TokenId {
    /// The issuer (`iss`).
    pub issuer: String,
    /// The token's id (`jti`).
    pub id: String,
}

/// What is revoked.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Revocation {
    /// A client, with all its keys, tokens and users.
    Client(ClientName),
    /// An API key.
    Key(KeyId),
    /// One token.
    Token(TokenId),
    /// A run, which ends.
    Run(RunId),
}

impl Revocation {
    /// What kind of thing it is, in one word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Key(_) => "key",
            Self::Token(_) => "token",
            Self::Run(_) => "run",
        }
    }

    /// The name of the thing, as it is listed; a token's is a JSON array of its issuer and its id.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Client(name) => name.to_string(),
            Self::Key(id) => id.to_string(),
            Self::Token(token) => serde_json::Value::from([token.issuer.as_str(), &token.id]).to_string(),
            Self::Run(id) => id.to_string(),
        }
    }

    pub(super) fn of_text(kind: &str, name: &str) -> Option<Self> {
        match kind {
            "client" => Some(Self::Client(ClientName::parse(name).ok()?)),
            "key" => Some(Self::Key(KeyId::parse(name).ok()?)),
            "token" => {
                let (issuer, id) = serde_json::from_str(name).ok()?;
                Some(Self::Token(TokenId { issuer, id }))
            }
            "run" => RunId::parse(name).map(Self::Run),
            _ => None,
        }
    }
}

/// A revocation, as it is listed.
#[derive(Clone, Debug, Serialize)]
pub struct RevocationView {
    /// What kind of thing is revoked.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Who revoked it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    pub made: Timestamp,
    /// When it is over, since what is revoked is dead by itself from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What a caller stands on: each of it can be taken away while a call is under way.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The client.
    pub client: ClientName,
    /// The key that it showed.
    pub key: Option<KeyId>,
    /// The token that it showed.
    pub token: Option<TokenId>,
    /// The run that its token, session or process is bound to.
    pub run: Option<RunId>,
    /// When what it showed expires.
    pub expires: Option<Timestamp>,
}

/// Why a caller no longer stands.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StandingError {
    /// Its client was revoked.
    #[error("client `{0}` is revoked")]
    Client(ClientName),
    /// Its key was revoked.
    #[error("key `{0}` is revoked")]
    Key(KeyId),
    /// Its token was revoked.
    #[error("the token is revoked")]
    Token,
    /// Its run was revoked.
    #[error("run `{0}` is revoked")]
    Run(RunId),
    /// Its run has ended, or is past its lifetime.
    #[error("run `{0}` has ended")]
    RunEnded(RunId),
    /// What it showed has expired.
    #[error("the proof of identity has expired")]
    Expired,
    /// Nobody knows: the state was not read for too long.
    #[error("the state of revocations was last read {age_ms} ms ago, and may be {max_ms} ms old at most")]
    Stale {
        /// How old it is.
        age_ms: u64,
        /// How old it may be.
        max_ms: u64,
    },
}

/// The revocations in force.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    clients: HashMap<ClientName, RevocationView>,
    keys: HashMap<KeyId, RevocationView>,
    tokens: HashMap<TokenId, RevocationView>,
    runs: HashMap<RunId, RevocationView>,
}

impl Revocations {
    pub(super) fn put(&mut self, what: Revocation, view: RevocationView) {
        match what {
            Revocation::Client(name) => self.clients.insert(name, view),
            Revocation::Key(id) => self.keys.insert(id, view),
            Revocation::Token(token) => self.tokens.insert(token, view),
            Revocation::Run(id) => self.runs.insert(id, view),
        };
    }

    fn check(&self, standing: &Standing, now: Timestamp) -> Result<(), StandingError> {
        let is_on = |view: &RevocationView| view.until.is_none_or(|until| now < until);
        if self.clients.get(&standing.client).is_some_and(is_on) {
            return Err(StandingError::Client(standing.client.clone()));
        }
        if let Some(key) = &standing.key
            && self.keys.get(key).is_some_and(is_on)
        {
            return Err(StandingError::Key(key.clone()));
        }
        if let Some(token) = &standing.token
            && self.tokens.get(token).is_some_and(is_on)
        {
            return Err(StandingError::Token);
        }
        Ok(())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &RevocationView> {
        let Self { clients, keys, tokens, runs } = self;
        clients.values().chain(keys.values()).chain(tokens.values()).chain(runs.values())
    }

    fn len(&self) -> usize {
        self.clients.len() + self.keys.len() + self.tokens.len() + self.runs.len()
    }

    pub(super) fn forget(&mut self, now: Timestamp) {
        let is_on = |view: &RevocationView| view.until.is_none_or(|until| now < until);
        self.clients.retain(|_, view| is_on(view));
        self.keys.retain(|_, view| is_on(view));
        self.tokens.retain(|_, view| is_on(view));
        self.runs.retain(|_, view| is_on(view));
    }
}

/// How many revocations may be in force.
pub(super) const REVOCATIONS_MAX: usize = 100_000;

/// How many there may be when clients use up assertions and take tokens back, which pass by themselves: the rest
/// is kept for those who have to act.
const REVOCATIONS_OF_CLIENTS_MAX: usize = REVOCATIONS_MAX / 2;

/// How long the parts of a token's name may be.
const TOKEN_BYTES_MAX: usize = 1_024;

impl Runs {
    /// Revokes a client, a key, a token or a run. When this returns, the revocation is durable and in force in
    /// this process; in others it is within a few tens of milliseconds.
    ///
    /// `until` is for what is dead by itself from then on, such as a token that expires. A revocation is
    /// never shortened by a later one. One of a run ends it, and is listed for as long as the run is remembered.
    ///
    /// # Errors
    /// When there are too many, a text is too long, or the store does not answer. After an error that the
    /// store made the revocation may still come into force.
    pub async fn revoke(
        &self,
        what: &Revocation,
        actor: &str,
        reason: &str,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), RunsError> {
        super::bounded(actor, reason)?;
        if let Revocation::Token(token) = what
            && token.issuer.len().max(token.id.len()) > TOKEN_BYTES_MAX
        {
            return Err(RunsError::TooLong { what: "the token's name", bytes_max: TOKEN_BYTES_MAX });
        }
        self.has_room_to_revoke(matches!(what, Revocation::Token(_)) && until.is_some())?;
        let now_ms = now.as_millisecond();
        let mut until_ms = until.map(Timestamp::as_millisecond);
        let mut change = self.shared.store.change().await?;
        let generation = change.generation();
        if let Revocation::Run(id) = what {
            until_ms = Some(now_ms.saturating_add(super::REMEMBERED_MS));
            super::ending::end_one(&mut change, generation, *id, EndReason::Revoked, now_ms).await?;
        }
        sqlx::query(
            "INSERT INTO revocations (kind, name, actor, reason, made_ms, until_ms, generation)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (kind, name) DO UPDATE SET
                 actor = excluded.actor, reason = excluded.reason, made_ms = excluded.made_ms,
                 until_ms = CASE
                     WHEN revocations.until_ms IS NULL OR excluded.until_ms IS NULL THEN NULL
                     WHEN revocations.until_ms > excluded.until_ms THEN revocations.until_ms
                     ELSE excluded.until_ms END,
                 generation = excluded.generation",
        )
        .bind(what.word())
        .bind(what.name())
        .bind(actor)
        .bind(reason)
        .bind(now_ms)
        .bind(until_ms)
        .bind(generation)
        .execute(&mut *change)
        .await?;
        change.commit().await?;
        self.shared.catch_up(Some(generation)).await
    }

    /// Revokes a token that is good once, and says whether it was good until now: of all that try, in all
    /// processes, one is told so.
    ///
    /// # Errors
    /// As [`Self::revoke`].
    pub async fn use_up(
        &self,
        token: &TokenId,
        actor: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, RunsError> {
        super::bounded(actor, "")?;
        if token.issuer.len().max(token.id.len()) > TOKEN_BYTES_MAX {
            return Err(RunsError::TooLong { what: "the token's name", bytes_max: TOKEN_BYTES_MAX });
        }
        self.has_room_to_revoke(true)?;
        let what = Revocation::Token(token.clone());
        let mut change = self.shared.store.change().await?;
        let generation = change.generation();
        let written = sqlx::query(
            "INSERT INTO revocations (kind, name, actor, reason, made_ms, until_ms, generation)
             VALUES ($1, $2, $3, 'used', $4, $5, $6) ON CONFLICT (kind, name) DO NOTHING",
        )
        .bind(what.word())
        .bind(what.name())
        .bind(actor)
        .bind(now.as_millisecond())
        .bind(until.as_millisecond())
        .bind(generation)
        .execute(&mut *change)
        .await?;
        if written.rows_affected() == 0 {
            change.cancel().await?;
            return Ok(false);
        }
        change.commit().await?;
        self.shared.catch_up(Some(generation)).await?;
        Ok(true)
    }

    fn has_room_to_revoke(&self, passes_by_itself: bool) -> Result<(), RunsError> {
        let max = if passes_by_itself { REVOCATIONS_OF_CLIENTS_MAX } else { REVOCATIONS_MAX };
        if self.shared.table().revocations.len() >= max {
            return Err(RunsError::TooManyRevocations { max });
        }
        Ok(())
    }

    /// Does a caller still stand? Asks memory only, and never waits.
    ///
    /// # Errors
    /// When something that it stands on was revoked, has ended or expired, or when nobody knows.
    pub fn check(&self, standing: &Standing, now: Timestamp) -> Result<(), StandingError> {
        self.shared.is_fresh()?;
        if standing.expires.is_some_and(|expires| expires <= now) {
            return Err(StandingError::Expired);
        }
        let table = self.shared.table();
        table.revocations.check(standing, now)?;
        let Some(id) = standing.run else { return Ok(()) };
        match table.live(&id) {
            Some(live) if !live.cell.is_past_lifetime(now.as_millisecond()) => Ok(()),
            Some(_) => Err(StandingError::RunEnded(id)),
            None if table.tombstone(&id).is_some_and(|ended| ended.why == EndReason::Revoked) => {
                Err(StandingError::Run(id))
            }
            None => Err(StandingError::RunEnded(id)),
        }
    }

    /// The revocations in force, the latest first.
    #[must_use]
    pub fn revocations(&self) -> Vec<RevocationView> {
        let mut all: Vec<RevocationView> = self.shared.table().revocations.all().cloned().collect();
        all.sort_by(|one, other| other.made.cmp(&one.made).then_with(|| one.name.cmp(&other.name)));
        all
    }
}
