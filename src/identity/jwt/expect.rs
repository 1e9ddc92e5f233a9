//! What a token has to say to be taken.

use std::time::Duration;

use jiff::Timestamp;

use super::{Shown, TokenError, jws::media_type};

/// What a token has to say, by whom it is checked and when.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    /// What `iss` has to be, character by character.
    pub issuer: &'a str,
    /// Of which `aud` has to name one. RFC 8707 and MCP name a resource by its URI; the
    /// comparison is that of strings (RFC 3986 §6.2.1): `https://a/mcp` is neither
    /// `https://a/mcp/` nor `https://A/mcp`. Whoever wants both configures both.
    pub audiences: &'a [String],
    /// What `typ` may be, such as `at+jwt`. Case and the prefix `application/` do not matter.
    pub types: &'a [&'a str],
    /// Whether a token without `typ` is taken too.
    pub untyped: bool,
    /// What `sub` has to be, where only one subject will do.
    pub subject: Option<&'a str>,
    /// Whether a token has to have a `jti`.
    pub id_required: bool,
    /// By how much the clocks of issuer and gate may differ.
    pub leeway: Duration,
    /// For how long from now a token may be valid, apart from the leeway.
    pub lifetime_max: Duration,
    /// The time.
    pub now: Timestamp,
}

impl<'a> Expect<'a> {
    /// By how much clocks differ, if nothing else is said.
    pub const LEEWAY: Duration = Duration::from_secs(30);

    /// An access token (RFC 9068) for one of `audiences`, valid for a day at most.
    #[must_use]
    pub const fn access_token(issuer: &'a str, audiences: &'a [String], now: Timestamp) -> Self {
        Self {
            issuer,
            audiences,
            types: &["at+jwt"],
            untyped: false,
            subject: None,
            id_required: false,
            leeway: Self::LEEWAY,
            lifetime_max: Duration::from_secs(24 * 60 * 60),
            now,
        }
    }

    /// A client's assertion of itself (RFC 7523 §3, `private_key_jwt`), valid for ten minutes
    /// at most. Assertions mostly have no type, or `JWT`; the `jti` is there to be taken once.
    #[must_use]
    pub const fn client_assertion(client: &'a str, audiences: &'a [String], now: Timestamp) -> Self {
        Self {
            issuer: client,
            audiences,
            types: &["JWT", "client-authentication+jwt"],
            untyped: true,
            subject: Some(client),
            id_required: true,
            leeway: Self::LEEWAY,
            lifetime_max: Duration::from_secs(10 * 60),
            now,
        }
    }

    pub(super) fn check_type(&self, typ: Option<&str>) -> Result<(), TokenError> {
        match typ {
            None if self.untyped => Ok(()),
            None => Err(TokenError::NoType),
            Some(typ) => {
                let full = media_type(typ);
                let is_expected = self.types.iter().any(|expected| media_type(expected) == full);
                if is_expected { Ok(()) } else { Err(TokenError::Type(Shown::of(typ))) }
            }
        }
    }

    pub(super) fn check_times(
        &self,
        expires: Timestamp,
        not_before: Option<Timestamp>,
        issued: Option<Timestamp>,
    ) -> Result<(), TokenError> {
        let latest_start = later(self.now, self.leeway);
        // RFC 7519 §4.1.4: on or after the time, no more.
        if later(expires, self.leeway) <= self.now {
            return Err(TokenError::Expired { at: expires });
        }
        if let Some(at) = not_before.filter(|at| *at > latest_start) {
            return Err(TokenError::NotYetValid { at });
        }
        if let Some(at) = issued.filter(|at| *at > latest_start) {
            return Err(TokenError::IssuedInFuture { at });
        }
        if expires > later(latest_start, self.lifetime_max) {
            return Err(TokenError::Lifetime { at: expires });
        }
        Ok(())
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}
