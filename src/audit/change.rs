//! A change that somebody makes to what the gate lets pass, while it runs.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Audit, AuditError,
    record::{self, Body},
    writer::{Durability, NewRecord, Role},
};
use crate::call::{CallId, Outcome};

/// A change. Members are declared in the order of their names.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// What is done, in a word: `revoke`, `end-run`, `new-key`, `rotate-key`.
    pub act: &'static str,
    /// Who does it; `callgate` where the gate does it by itself.
    pub actor: String,
    /// The change's own id, which both of its records carry.
    pub id: CallId,
    /// The id of the admin key that was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// To what: its kind and its name.
    pub what: String,
}

/// How a change ended.
#[derive(Clone, Debug)]
pub struct ChangeEnding {
    /// `allowed` where it was made, `failed` where it was not.
    pub outcome: Outcome,
    /// Why it failed, in one word.
    pub code: Option<&'static str>,
    /// The same in a sentence; where it was made, what came of it.
    pub detail: Option<String>,
}

impl Audit {
    /// Puts on record, durably, that a change is about to be made.
    ///
    /// # Errors
    /// When the record cannot be written: the change is not made.
    pub async fn begin_change(&self, change: &Change, source: Option<IpAddr>) -> Result<(), AuditError> {
        self.writer.admits_calls()?;
        self.put_change(change, None, source).await
    }

    /// Puts on record, durably, how a change ended.
    ///
    /// # Errors
    /// When the record cannot be written: nobody is told that the change was made.
    pub async fn end_change(
        &self,
        change: &Change,
        ending: &ChangeEnding,
        source: Option<IpAddr>,
    ) -> Result<(), AuditError> {
        self.put_change(change, Some(ending), source).await
    }

    async fn put_change(
        &self,
        change: &Change,
        ending: Option<&ChangeEnding>,
        source: Option<IpAddr>,
    ) -> Result<(), AuditError> {
        let bytes = record::write(&Body::Change { change, ending, source }, Timestamp::now())?;
        self.append(NewRecord { bytes, role: Role::Plain, durability: Durability::Power }).await?;
        Ok(())
    }
}
