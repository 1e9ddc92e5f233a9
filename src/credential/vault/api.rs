//! The answers of Vault's HTTP API.

use std::{collections::BTreeMap, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

use crate::credential::{EndpointError, endpoint::Reply};

/// How long a lease is taken to live at most, whatever a vault says.
const LIFE_MAX: Duration = Duration::from_secs(86_400);

/// Tells a success from the errors that are documented for every path. Their texts are not read.
pub(super) fn judge(reply: Reply) -> Result<Reply, EndpointError> {
    match reply.status {
        200 | 204 => Ok(reply),
        // A wrong role or secret is 400, a token that may not is 403.
        400 | 401 | 403 => Err(EndpointError::Denied),
        404 => Err(EndpointError::Missing),
        503 => Err(EndpointError::Sealed),
        code => Err(EndpointError::Status { code }),
    }
}

/// `POST /v1/auth/approle/login`.
pub(super) struct Login {
    pub(super) token: SecretString,
    /// Zero for a token without an end.
    pub(super) life: Duration,
}

/// `GET /v1/MOUNT/data/PATH` and `GET /v1/ENGINE/creds/ROLE`.
pub(super) struct Read {
    pub(super) fields: BTreeMap<String, SecretString>,
    /// The lease's id, and whether it can be renewed.
    pub(super) lease: Option<(String, bool)>,
    pub(super) life: Duration,
}

/// `PUT /v1/sys/leases/renew`.
pub(super) struct Renewal {
    pub(super) life: Duration,
    pub(super) renewable: bool,
}

#[derive(Deserialize)]
struct LoginAnswer {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    lease_duration: u64,
}

#[derive(Deserialize)]
struct ReadAnswer {
    #[serde(default)]
    lease_id: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    data: Option<BTreeMap<String, Value>>,
}

impl Login {
    pub(super) fn of(reply: &Reply) -> Result<Self, EndpointError> {
        let LoginAnswer { auth } = reply.json()?;
        Ok(Self { token: auth.client_token.into(), life: life(auth.lease_duration) })
    }
}

impl Read {
    pub(super) fn of(reply: &Reply, is_dynamic: bool) -> Result<Self, EndpointError> {
        let answer: ReadAnswer = reply.json()?;
        let data = answer.data.ok_or(EndpointError::Member { member: "data" })?;
        if is_dynamic {
            if answer.lease_id.is_empty() {
                return Err(EndpointError::Member { member: "lease_id" });
            }
            let lease = Some((answer.lease_id, answer.renewable));
            return Ok(Self { fields: texts(data), lease, life: life(answer.lease_duration) });
        }
        // A version that was deleted answers 404 or has no data.
        match data.into_iter().find(|(member, _)| member == "data") {
            Some((_, Value::Object(fields))) => {
                Ok(Self { fields: texts(fields), lease: None, life: Duration::ZERO })
            }
            Some((_, Value::Null)) => Err(EndpointError::Missing),
            Some(_) | None => Err(EndpointError::Member { member: "data.data" }),
        }
    }
}

impl Renewal {
    pub(super) fn of(reply: &Reply) -> Result<Self, EndpointError> {
        let answer: ReadAnswer = reply.json()?;
        Ok(Self { life: life(answer.lease_duration), renewable: answer.renewable })
    }
}

fn texts(fields: impl IntoIterator<Item = (String, Value)>) -> BTreeMap<String, SecretString> {
    let text = |(field, value)| match value {
        Value::String(text) => Some((field, text.into())),
        _ => None,
    };
    fields.into_iter().filter_map(text).collect()
}

fn life(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(LIFE_MAX)
}
