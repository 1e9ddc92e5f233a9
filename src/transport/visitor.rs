//! Who is at the other end of a connection.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, header};
use jiff::Timestamp;

use crate::call::{Certificate, Claim, Proof};

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) source: SocketAddr,
    /// The certificate that it showed in the handshake.
    pub(super) certificate: Option<Shown>,
}

/// A certificate that was shown, and verified.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) certificate: Arc<Certificate>,
    pub(super) until: Timestamp,
}

/// The certificate held in the handshake, and does not any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Expired;

impl Visitor {
    /// One that showed no certificate.
    pub(super) const fn of(source: SocketAddr) -> Self {
        Self { source, certificate: None }
    }

    /// Adds the connection's certificate to what one of its requests shows.
    ///
    /// # Errors
    /// When the certificate has expired since the handshake.
    pub(super) fn vouch(&self, proof: Proof) -> Result<Proof, Expired> {
        let Some(shown) = &self.certificate else { return Ok(proof) };
        if shown.until < Timestamp::now() {
            return Err(Expired);
        }
        Ok(Proof { certificate: Some(Arc::clone(&shown.certificate)), ..proof })
    }
}

/// What a request shows for a call. Credentials that are no bearer token are not passed over for the
/// certificate: whoever sent them meant to be somebody by them.
pub(super) fn for_call(proof: Proof, headers: &HeaderMap) -> Proof {
    match proof.claim {
        Claim::Nothing if headers.contains_key(header::AUTHORIZATION) => Proof { certificate: None, ..proof },
        _ => proof,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn visitor(until: Timestamp) -> Visitor {
        let certificate = Certificate { sha256: [0; 32], subject: String::new(), names: Vec::new() };
        let shown = Shown { certificate: Arc::new(certificate), until };
        Visitor { certificate: Some(shown), ..Visitor::of(([127, 0, 0, 1], 1).into()) }
    }

    #[test]
    fn a_certificate_counts_beside_nothing_and_a_token_and_not_beside_what_cannot_be_read() {
        let visitor = visitor(Timestamp::MAX);
        let mut headers = HeaderMap::new();
        let shown = |proof, headers: &HeaderMap| for_call(visitor.vouch(proof).unwrap(), headers);
        assert!(shown(Proof::default(), &headers).certificate.is_some());
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        assert!(shown(Proof::default(), &headers).certificate.is_none());
        let with_token = shown(Proof::bearer("token"), &headers);
        assert!(with_token.certificate.is_some() && matches!(with_token.claim, Claim::Bearer(_)));
    }

    #[test]
    fn a_certificate_that_has_expired_since_the_handshake_proves_nothing() {
        let expired = visitor(Timestamp::UNIX_EPOCH).vouch(Proof::default());
        assert_eq!(expired.unwrap_err(), Expired);
    }
}
