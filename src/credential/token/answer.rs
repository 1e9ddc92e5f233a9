//! What a token endpoint answers (RFC 6749 §5, RFC 8693 §2.2).

use std::{collections::BTreeSet, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use super::{TYPE_ACCESS_TOKEN, TYPE_JWT};
use crate::credential::{EndpointError, endpoint::Reply};

/// How long a token is good for that does not say so.
const LIFE_UNSAID: Duration = Duration::from_secs(60);

/// How long a token is used at most, whatever it says.
const LIFE_MAX: Duration = Duration::from_secs(86_400);

/// How many bytes a token may have: what servers take in one header field.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The error codes that may be repeated: those of RFC 6749 §5.2 and RFC 8707 §2.
const REGISTERED: [&str; 7] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
];

/// A token, and how long it is good for.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) token: SecretString,
    pub(super) life: Duration,
}

#[derive(Deserialize)]
struct Success {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<u64>,
    scope: Option<String>,
    issued_token_type: Option<String>,
}

#[derive(Deserialize)]
struct Failure {
    error: String,
}

impl Granted {
    /// Reads an answer to a request for these scopes.
    pub(super) fn of(reply: &Reply, asked: &str, is_exchange: bool) -> Result<Self, EndpointError> {
        if reply.status != 200 {
            return Err(refused(reply));
        }
        let Success { access_token, token_type, expires_in, scope, issued_token_type } = reply.json()?;
        let member = |member| EndpointError::Member { member };
        if !token_type.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return Err(member("token_type"));
        }
        let is_issued = |kind: String| kind == TYPE_ACCESS_TOKEN || kind == TYPE_JWT;
        if is_exchange && !issued_token_type.is_some_and(is_issued) {
            return Err(member("issued_token_type"));
        }
        let token = access_token.filter(|token| (1..=TOKEN_BYTES_MAX).contains(&token.len()));
        let token = token.ok_or_else(|| member("access_token"))?.into();
        if let Some(granted) = scope {
            judge(asked, &granted)?;
        }
        Ok(Self { token, life: expires_in.map_or(LIFE_UNSAID, Duration::from_secs).min(LIFE_MAX) })
    }
}

/// Where scopes were asked for, exactly these: with less the tool fails, with more it could do too much.
fn judge(asked: &str, granted: &str) -> Result<(), EndpointError> {
    let set = |text: &str| text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
    let (asked, granted): (BTreeSet<String>, BTreeSet<String>) = (set(asked), set(granted));
    if !asked.is_subset(&granted) {
        return Err(EndpointError::ScopeMissing);
    }
    if !asked.is_empty() && granted != asked {
        return Err(EndpointError::ScopeWider);
    }
    Ok(())
}

/// A code that is not registered is not repeated: it could be any text.
fn refused(reply: &Reply) -> EndpointError {
    let said = reply.json::<Failure>().map(|failure| failure.error).unwrap_or_default();
    match REGISTERED.into_iter().find(|code| *code == said) {
        Some(code) => EndpointError::Refused { code },
        None => EndpointError::Status { code: reply.status },
    }
}
