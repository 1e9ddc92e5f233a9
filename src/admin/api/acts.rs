//! Changes: on record before they are made, and before they are answered.

use std::{net::SocketAddr, sync::Arc};

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{super::keys::Admin, ApiError, random};
use crate::{
    audit::{Audit, Change, ChangeEnding},
    call::{CallId, Outcome},
    identity,
    manifest::{ClientName, KeyId},
    runs::{EndReason, EndedRun, Revocation, RunId, Runs, RuntimeKey},
};

/// Somebody who is about to change something.
#[derive(Debug)]
pub(super) struct Act<'a> {
    pub(super) runs: &'a Arc<Runs>,
    pub(super) audit: &'a Audit,
    pub(super) admin: Admin,
    pub(super) source: SocketAddr,
    pub(super) now: Timestamp,
}

/// How long a reason may be.
const REASON_BYTES_MAX: usize = 1_024;

impl Act<'_> {
    pub(super) async fn revoke(
        &self,
        what: &Revocation,
        reason: String,
        until: Option<Timestamp>,
    ) -> Result<(), ApiError> {
        let change = self.change("revoke", format!("{} {}", what.word(), what.name()), &reason)?;
        let revoking = self.runs.revoke(what, &self.admin.name, &reason, until, self.now);
        self.on_record(&change, async { Ok(revoking.await?) }, |()| None).await
    }

    pub(super) async fn end_run(&self, id: RunId, reason: String) -> Result<EndedRun, ApiError> {
        let change = self.change("end-run", format!("run {id}"), &reason)?;
        let ending = async {
            let ended = self.runs.end(&id, EndReason::Asked, self.now).await?;
            ended.ok_or_else(|| ApiError::unknown("unknown_run", format!("no live run `{id}`")))
        };
        self.on_record(&change, ending, |_| None).await
    }

    /// Makes a key. Its secret is in the answer, and nowhere else.
    pub(super) async fn new_key(
        &self,
        act: &'static str,
        client: &ClientName,
        expires: Timestamp,
    ) -> Result<Value, ApiError> {
        let (key, made) = fresh_key(client, expires)?;
        let change = self.change(act, format!("key {} of {client}", key.id), "")?;
        let adding = self.runs.add_key(&key, &self.admin.name, self.now);
        self.on_record(&change, async { Ok(adding.await?) }, |()| None).await?;
        Ok(json!({ "id": key.id, "client": client, "expires": expires, "key": made.key() }))
    }

    /// Makes a key for the client of another, and lets the other expire.
    pub(super) async fn rotate_key(
        &self,
        old: &RuntimeKey,
        expires: Timestamp,
        old_expires: Timestamp,
    ) -> Result<Value, ApiError> {
        let (key, made) = fresh_key(&old.client, expires)?;
        let what = format!("key {} of {}, to {}", old.id, old.client, key.id);
        let change = self.change("rotate-key", what, "")?;
        let rotating = async {
            self.runs.add_key(&key, &self.admin.name, self.now).await?;
            Ok(self.runs.expire_key(&old.id, old_expires).await?)
        };
        let old_expires =
            self.on_record(&change, rotating, |at| Some(format!("the old key expires at {at}"))).await?;
        Ok(json!({
            "id": key.id, "client": key.client, "expires": expires, "key": made.key(),
            "old": { "id": old.id, "expires": old_expires }
        }))
    }

    fn change(&self, act: &'static str, what: String, reason: &str) -> Result<Change, ApiError> {
        if reason.len() > REASON_BYTES_MAX {
            let message = format!("the reason is longer than {REASON_BYTES_MAX} bytes");
            return Err(ApiError::bad("too_long", message));
        }
        Ok(Change {
            act,
            actor: self.admin.name.clone(),
            id: CallId::random(self.now),
            key: Some(self.admin.key.to_string()),
            reason: reason.to_owned(),
            what,
        })
    }

    /// Makes a change once it is on record, and gives what came of it once that is.
    async fn on_record<T>(
        &self,
        change: &Change,
        making: impl Future<Output = Result<T, ApiError>>,
        detail: impl Fn(&T) -> Option<String>,
    ) -> Result<T, ApiError> {
        let source = Some(self.source.ip());
        self.audit.begin_change(change, source).await?;
        let made = making.await;
        let ending = match &made {
            Ok(made) => ChangeEnding { outcome: Outcome::Allowed, code: None, detail: detail(made) },
            Err(refusal) => ChangeEnding {
                outcome: Outcome::Failed,
                code: Some(refusal.code),
                detail: Some(refusal.message.clone()),
            },
        };
        if let Err(error) = self.audit.end_change(change, &ending, source).await {
            let message = format!("the change was made, and how it ended is not on record: {error}");
            let unrecorded = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "record_unavailable", message);
            return Err(made.err().unwrap_or(unrecorded));
        }
        made
    }
}

fn fresh_key(client: &ClientName, expires: Timestamp) -> Result<(RuntimeKey, identity::NewKey), ApiError> {
    let id = format!("r-{}", hex::encode(random::<6>()?));
    let made = identity::NewKey::new(&id, random()?);
    let mut sha256 = [0; 32];
    let broken = || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error");
    hex::decode_to_slice(made.sha256(), &mut sha256).map_err(|_| broken())?;
    let id = KeyId::parse(&id).map_err(|_| broken())?;
    Ok((RuntimeKey { id, client: client.clone(), sha256, expires }, made))
}
