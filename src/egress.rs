//! Where a connection may go: the one way out that everything uses.
//!
//! A [`Way`] is what a service's egress allows, with connections of its own.
//! `Way::send` is the only door, and addresses are judged at three places: a
//! literal address before anything is sent, since the resolver is never asked
//! about it; the addresses of a name where it is resolved, once, and only these
//! are connected to; and the address that answered.

mod allowance;
mod body;
mod client;
mod departure;
mod header;
mod identity;
mod listener;
mod metadata;
mod range;
mod refusal;
mod resolver;
mod way;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::pki_types::CertificateDer;

use self::{
    client::ClientMaker,
    resolver::{Judge, Resolver},
};
use crate::manifest::DnsSpec;

pub(crate) use allowance::is_localhost;
pub use allowance::{AllowanceError, Allowances};
pub(crate) use body::{BodyError, read_body};
pub(crate) use departure::Departure;
pub(crate) use header::{field_value, is_reserved};
pub use identity::ClientIdentity;
pub use listener::{Listeners, Registered};
pub use range::Range;
pub use refusal::EgressRefusal;
pub(crate) use way::SendError;
pub use way::Way;

/// How long resolving, connecting and the TLS handshake may take together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many sets of allowances have connections at once. Releases that are gone leave theirs behind.
const WAYS_MAX: usize = 1_024;

/// All ways out.
///
/// None takes a proxy from the environment, follows a redirect, repeats a
/// request, sends a `Referer`, stores a cookie or decodes a content coding.
#[derive(Clone, Debug)]
pub struct Egress {
    maker: ClientMaker,
    resolver: Resolver,
    listeners: Listeners,
    ways: Arc<RwLock<HashMap<WayKey, Way>>>,
}

/// What a way is for: what it is allowed, and as whom it is gone.
type WayKey = (Allowances, Option<[u8; 32]>);

/// Why there is no way out.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// TLS, or the system's root certificates.
    #[error("the HTTP client cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The resolver.
    #[error("the resolver cannot be set up: {0}")]
    Resolver(String),
}

impl Egress {
    /// Sets up TLS, with the system's root certificates, and the resolver: the
    /// servers that `dns` names, else the system's.
    ///
    /// # Errors
    /// When one of them cannot be set up.
    pub fn new(dns: Option<&DnsSpec>) -> Result<Self, EgressError> {
        Self::with_timeout(dns, CONNECT_TIMEOUT)
    }

    /// Ways out to servers that these authorities have vouched for, or one of the system's.
    ///
    /// # Errors
    /// When the client, or what it resolves names with, cannot be set up.
    pub fn trusting_also(authorities: Vec<CertificateDer<'static>>) -> Result<Self, EgressError> {
        let maker = ClientMaker::trusting_also(CONNECT_TIMEOUT, authorities)?;
        Ok(Self { maker, ..Self::with_timeout(None, CONNECT_TIMEOUT)? })
    }

    /// Ways out that give up sooner on connecting.
    #[cfg(test)]
    pub(crate) fn impatient(connect_timeout: Duration) -> Self {
        Self::with_timeout(None, connect_timeout).unwrap()
    }

    /// Ways out to servers that one authority has vouched for.
    #[cfg(test)]
    pub(crate) fn trusting(authority: CertificateDer<'static>) -> Self {
        Self { maker: ClientMaker::trusting(authority), ..Self::with_timeout(None, CONNECT_TIMEOUT).unwrap() }
    }

    fn with_timeout(dns: Option<&DnsSpec>, connect_timeout: Duration) -> Result<Self, EgressError> {
        Ok(Self {
            maker: ClientMaker::new(connect_timeout)?,
            resolver: Resolver::new(dns).map_err(EgressError::Resolver)?,
            listeners: Listeners::default(),
            ways: Arc::default(),
        })
    }

    /// The way out of services that are allowed this. The same allowances get the same connections.
    #[must_use]
    pub fn way(&self, allowances: &Allowances) -> Way {
        self.way_as(allowances, None)
    }

    /// The same, as somebody: the same certificate gets the same connections, and nobody else.
    #[must_use]
    pub fn way_as(&self, allowances: &Allowances, identity: Option<&ClientIdentity>) -> Way {
        let key = (allowances.clone(), identity.map(ClientIdentity::digest));
        let ways = self.ways.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = ways.get(&key) {
            return way.clone();
        }
        drop(ways);
        let judge = Judge {
            resolver: self.resolver.clone(),
            allowances: allowances.clone(),
            listeners: self.listeners.clone(),
        };
        let way = Way::new(self.maker.clone(), judge, identity.cloned());
        let mut ways = self.ways.write().unwrap_or_else(PoisonError::into_inner);
        if ways.len() >= WAYS_MAX {
            ways.clear();
        }
        ways.entry(key).or_insert(way).clone()
    }

    /// The gate's own listeners, which no way leads to.
    #[must_use]
    pub const fn listeners(&self) -> &Listeners {
        &self.listeners
    }
}

/// Certificates for tests. No key of them is kept anywhere.
#[cfg(test)]
#[path = "../tests/it/certificates.rs"]
#[allow(dead_code, reason = "some of it is for the integration tests alone")]
pub(crate) mod certificates;
#[cfg(test)]
mod tests;
