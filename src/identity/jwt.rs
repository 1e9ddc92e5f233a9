//! Signed tokens (JWT, RFC 7519) checked against pinned keys, and signed by our own.
//!
//! [`verify`] is the only way to [`Claims`]. A token chooses nothing: its issuer is a key into
//! the configured issuers ([`Unverified::issuer_hint`]), its `kid` a key into that issuer's
//! [`JwkSet`], and the algorithm is the one that is pinned to the key found there. What a token
//! says about where to find a key (`jwk`, `jku`, `x5u`, `x5c`, `x5t`) is not looked at.
//!
//! The same check serves access tokens (RFC 9068) and client assertions (RFC 7523); what
//! differs is in [`Expect`]. Nothing here does I/O or looks at a clock.

mod algorithm;
mod claims;
mod error;
mod expect;
mod jwk;
mod jwks;
mod jws;
mod object;
mod signing;
mod weak;

#[cfg(test)]
mod claim_tests;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod forgery_tests;
#[cfg(test)]
mod vector_tests;

use serde_json::{Map, Value};

use self::{jws::Jws, object::object};

pub use algorithm::Algorithm;
pub use claims::{Claims, Confirmation};
pub use error::{Shown, TokenError};
pub use expect::Expect;
pub use jwk::SkipReason;
pub use jwks::{JwkSet, JwksError, Skipped};
pub(super) use jws::TOKEN_BYTES_MAX;
pub use object::Part;
pub(super) use object::encode;
pub use signing::{NewSigning, Signing, SigningError};

/// A token that is well-formed, and that anyone may have written.
pub struct Unverified<'a> {
    jws: Jws<'a>,
    claims: Map<String, Value>,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// When it is not a JWS in compact form (RFC 7515 §3.1) with an acceptable header and a
    /// JSON object as its payload.
    pub fn parse(token: &'a str) -> Result<Self, TokenError> {
        let jws = Jws::parse(token)?;
        let claims = object(jws.payload(), Part::Payload)?;
        Ok(Self { jws, claims })
    }

    /// The issuer that the token claims to be from: fit to choose among configured issuers,
    /// and for nothing else.
    #[must_use]
    pub fn issuer_hint(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// The id of the key that the token claims to be signed with.
    #[must_use]
    pub fn kid_hint(&self) -> Option<&str> {
        self.jws.header().kid()
    }
}

impl std::fmt::Debug for Unverified<'_> {
    /// Says nothing of the token: it may be a good one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unverified").finish_non_exhaustive()
    }
}

/// Checks a token's signature, then its type, then its claims.
///
/// # Errors
/// With the first reason not to take it.
pub fn verify(token: Unverified<'_>, keys: &JwkSet, expect: &Expect<'_>) -> Result<Claims, TokenError> {
    token.jws.authenticate(keys)?;
    expect.check_type(token.jws.header().typ())?;
    Claims::check(token.claims, expect)
}
