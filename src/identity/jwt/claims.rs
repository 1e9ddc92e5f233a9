//! The claims of a token whose signature is good (RFC 7519 §4, RFC 9068 §2.2).

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::{Expect, Shown, TokenError, object::decode};

const TEXT_CHARACTERS_MAX: usize = 256;
const AUDIENCES_MAX: usize = 64;
const SCOPES_MAX: usize = 256;

/// What a token says whose signature, type, issuer, audience and times are good.
#[derive(Clone, Debug)]
pub struct Claims {
    issuer: String,
    subject: String,
    audiences: Vec<String>,
    expires: Timestamp,
    not_before: Option<Timestamp>,
    issued: Option<Timestamp>,
    id: Option<String>,
    client: Option<String>,
    scopes: BTreeSet<String>,
    confirmation: Option<Confirmation>,
    all: Map<String, Value>,
}

/// What the one who shows a token has to prove besides (RFC 7800).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Confirmation {
    /// That it holds the key of the certificate with this SHA-256 (RFC 8705 §3.1).
    Certificate([u8; 32]),
}

impl Claims {
    pub(super) fn check(all: Map<String, Value>, expect: &Expect<'_>) -> Result<Self, TokenError> {
        let issuer = required(text(&all, "iss")?, "iss")?;
        if issuer != expect.issuer {
            return Err(TokenError::Issuer(Shown::of(issuer)));
        }
        let audiences = audiences(&all)?;
        if !audiences.iter().any(|audience| expect.audiences.contains(audience)) {
            return Err(TokenError::Audience);
        }
        let expires = required(time(&all, "exp")?, "exp")?;
        let not_before = time(&all, "nbf")?;
        let issued = time(&all, "iat")?;
        expect.check_times(expires, not_before, issued)?;
        let subject = required(name(&all, "sub")?, "sub")?;
        if expect.subject.is_some_and(|expected| expected != subject) {
            return Err(TokenError::Subject(Shown::of(subject)));
        }
        let id = name(&all, "jti")?;
        if expect.id_required {
            required(id, "jti")?;
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            audiences,
            expires,
            not_before,
            issued,
            id: id.map(str::to_owned),
            client: client(&all)?.map(str::to_owned),
            scopes: scopes(&all)?,
            confirmation: confirmation(&all)?,
            all,
        })
    }

    /// `iss`: the one that was expected.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `sub`: 1 to 256 characters, without control characters.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// `aud`, of which one at least was expected.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// `exp`.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// `nbf`.
    #[must_use]
    pub const fn not_before(&self) -> Option<Timestamp> {
        self.not_before
    }

    /// `iat`.
    #[must_use]
    pub const fn issued(&self) -> Option<Timestamp> {
        self.issued
    }

    /// `jti`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// `client_id` (RFC 9068), or else `azp` (OpenID Connect).
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// `scope` (RFC 8693 §4.2), or else `scp`; empty if there is neither.
    #[must_use]
    pub const fn scopes(&self) -> &BTreeSet<String> {
        &self.scopes
    }

    /// `cnf`. A token that has one is good only in the hands of the one who proves this.
    #[must_use]
    pub const fn confirmation(&self) -> Option<Confirmation> {
        self.confirmation
    }

    /// All claims as they are in the token, for claims that only configuration gives a meaning.
    #[must_use]
    pub const fn all(&self) -> &Map<String, Value> {
        &self.all
    }
}

fn required<T>(value: Option<T>, name: &'static str) -> Result<T, TokenError> {
    value.ok_or(TokenError::ClaimMissing(name))
}

fn text<'a>(all: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, TokenError> {
    match all.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenError::ClaimKind(name)),
    }
}

/// A claim that names something, and that records and policies will show.
fn name<'a>(all: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, TokenError> {
    let is_name = |text: &str| {
        !text.is_empty() && text.chars().count() <= TEXT_CHARACTERS_MAX && !text.chars().any(char::is_control)
    };
    match text(all, name)? {
        Some(text) if !is_name(text) => Err(TokenError::ClaimText(name)),
        text => Ok(text),
    }
}

/// A NumericDate (RFC 7519 §2): seconds since 1970, perhaps with a fraction.
fn time(all: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, TokenError> {
    match all.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => timestamp(number).ok_or(TokenError::ClaimTime(name)).map(Some),
        Some(_) => Err(TokenError::ClaimKind(name)),
    }
}

fn timestamp(number: &Number) -> Option<Timestamp> {
    let at = if let Some(seconds) = number.as_i64() {
        Timestamp::from_second(seconds).ok()?
    } else {
        let seconds = number.as_f64().filter(|seconds| (0.0..=1e12).contains(seconds))?;
        Timestamp::new(seconds.trunc() as i64, (seconds.fract() * 1e9) as i32).ok()?
    };
    (at >= Timestamp::UNIX_EPOCH).then_some(at)
}

fn audiences(all: &Map<String, Value>) -> Result<Vec<String>, TokenError> {
    match required(all.get("aud"), "aud")? {
        Value::String(audience) => Ok(vec![audience.clone()]),
        Value::Array(audiences) if audiences.len() <= AUDIENCES_MAX => {
            { audiences.iter().map(|audience| Some(audience.as_str()?.to_owned())).collect::<Option<_>>() }
                .ok_or(TokenError::ClaimKind("aud"))
        }
        _ => Err(TokenError::ClaimKind("aud")),
    }
}

fn client(all: &Map<String, Value>) -> Result<Option<&str>, TokenError> {
    match (name(all, "client_id")?, name(all, "azp")?) {
        (Some(client), Some(party)) if client != party => Err(TokenError::Client),
        (client, party) => Ok(client.or(party)),
    }
}

/// The scopes of `scope` or `scp`. Issuers write either as a text or as an array; with both,
/// neither is the one to believe unless they say the same.
fn scopes(all: &Map<String, Value>) -> Result<BTreeSet<String>, TokenError> {
    match (scope_list(all, "scope")?, scope_list(all, "scp")?) {
        (Some(scope), Some(scp)) if scope != scp => Err(TokenError::Scope("scp")),
        (scope, scp) => Ok(scope.or(scp).unwrap_or_default()),
    }
}

fn scope_list(all: &Map<String, Value>, name: &'static str) -> Result<Option<BTreeSet<String>>, TokenError> {
    let scopes: Vec<&str> = match all.get(name) {
        None => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(text)) => text.split(' ').collect(),
        Some(Value::Array(scopes)) => {
            let scopes: Option<_> = scopes.iter().map(Value::as_str).collect();
            scopes.ok_or(TokenError::ClaimKind(name))?
        }
        Some(_) => return Err(TokenError::ClaimKind(name)),
    };
    // RFC 6749 §3.3.
    let is_character = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    let is_scope = |scope: &&str| {
        !scope.is_empty() && scope.len() <= TEXT_CHARACTERS_MAX && scope.bytes().all(is_character)
    };
    if scopes.len() > SCOPES_MAX || !scopes.iter().all(is_scope) {
        return Err(TokenError::Scope(name));
    }
    Ok(Some(scopes.into_iter().map(str::to_owned).collect()))
}

/// A token that is bound in a way that is not checked would be taken from a thief.
fn confirmation(all: &Map<String, Value>) -> Result<Option<Confirmation>, TokenError> {
    let Some(confirmation) = all.get("cnf") else {
        return Ok(None);
    };
    let members = confirmation.as_object().ok_or(TokenError::ClaimKind("cnf"))?;
    if let Some(unknown) = members.keys().find(|name| *name != "x5t#S256") {
        return Err(TokenError::Confirmation(Shown::of(unknown)));
    }
    members
        .get("x5t#S256")
        .and_then(Value::as_str)
        .and_then(decode)
        .and_then(|digest| <[u8; 32]>::try_from(digest).ok())
        .map(|digest| Some(Confirmation::Certificate(digest)))
        .ok_or_else(|| TokenError::Confirmation(Shown::of("x5t#S256")))
}
