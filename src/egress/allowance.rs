//! What a service's egress allows, and the judge of addresses. Pure.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

use super::{
    EgressRefusal, metadata,
    range::{Door, Range},
};
use crate::manifest::EgressSpec;

/// What a service's egress allows besides public addresses.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Allowances {
    private: Vec<IpNet>,
    loopback: bool,
    metadata: Vec<IpAddr>,
}

/// Why something cannot be allowed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AllowanceError {
    /// The network is public, or wider than any special-purpose range.
    #[error("`{network}` is not inside of one special-purpose range")]
    NotSpecial {
        /// Where under `private` it stands.
        at: usize,
        /// What was written.
        network: IpNet,
    },
    /// The network is loopback.
    #[error("`{network}` is loopback, which is not allowed by network: say `loopback: true`")]
    Loopback {
        /// Where under `private` it stands.
        at: usize,
        /// What was written.
        network: IpNet,
    },
    /// No service can be in the network.
    #[error("`{network}` is {range}, which is never called")]
    Closed {
        /// Where under `private` it stands.
        at: usize,
        /// What was written.
        network: IpNet,
        /// The range it is in.
        range: &'static Range,
    },
    /// The network holds IPv4 addresses at a place that it does not tell.
    #[error("`{network}` is {range}: name the /96 whose last 32 bits are the IPv4 address")]
    TooWide {
        /// Where under `private` it stands.
        at: usize,
        /// What was written.
        network: IpNet,
        /// The range it is in.
        range: &'static Range,
    },
    /// The network is one address, of a metadata service.
    #[error("`{network}` is cloud metadata, which is not allowed by network: name it under `metadata`")]
    Metadata {
        /// Where under `private` it stands.
        at: usize,
        /// What was written.
        network: IpNet,
    },
    /// The address is of no metadata service.
    #[error(
        "`{address}` is not known as cloud metadata: allow its network under `private`, if it needs that"
    )]
    NotMetadata {
        /// Where under `metadata` it stands.
        at: usize,
        /// What was written.
        address: IpAddr,
    },
}

impl AllowanceError {
    /// The key and the index of what is wrong.
    #[must_use]
    pub const fn place(&self) -> (&'static str, usize) {
        match self {
            Self::NotSpecial { at, .. }
            | Self::Loopback { at, .. }
            | Self::Closed { at, .. }
            | Self::TooWide { at, .. }
            | Self::Metadata { at, .. } => ("private", *at),
            Self::NotMetadata { at, .. } => ("metadata", *at),
        }
    }
}

impl Allowances {
    /// Checks what somebody wrote.
    ///
    /// # Errors
    /// Everything that cannot be allowed.
    pub fn new(spec: &EgressSpec) -> Result<Self, Vec<AllowanceError>> {
        let networks = spec.private.iter().map(|network| network.net());
        let mut errors: Vec<_> =
            networks.clone().enumerate().filter_map(|(at, network)| refuse_network(at, network)).collect();
        let addresses = spec.metadata.iter().copied();
        let unknown =
            addresses.clone().enumerate().filter(|(_, address)| metadata::service(*address).is_none());
        errors.extend(unknown.map(|(at, address)| AllowanceError::NotMetadata { at, address }));
        if !errors.is_empty() {
            return Err(errors);
        }
        // Sorted, so that two services that say the same share their connections.
        let mut allowances =
            Self { private: networks.collect(), loopback: spec.loopback, metadata: addresses.collect() };
        allowances.private.sort_unstable();
        allowances.private.dedup();
        allowances.metadata.sort_unstable();
        allowances.metadata.dedup();
        Ok(allowances)
    }

    /// Judges one address, by itself and by the IPv4 addresses that it carries.
    ///
    /// # Errors
    /// When nothing allows it.
    pub fn judge(&self, address: IpAddr) -> Result<(), EgressRefusal> {
        if let Some(service) = metadata::service(address) {
            let allowed = self.metadata.contains(&address);
            return if allowed { Ok(()) } else { Err(EgressRefusal::Metadata { address, service }) };
        }
        let Some(range) = Range::of(address) else { return Ok(()) };
        let allowed = match range.door() {
            Door::Loopback => self.loopback,
            Door::Private => self.private.iter().any(|network| network.contains(&address)),
            Door::Closed => false,
        };
        if !allowed {
            return Err(EgressRefusal::Special { range, carried: false });
        }
        range.carried(address).try_for_each(|carried| self.judge(carried.into()).map_err(of_carried))
    }

    /// Judges the host of a service's URL as far as that needs no resolver: a
    /// literal address, or a name that is loopback by its meaning (RFC 6761 §6.3).
    ///
    /// # Errors
    /// The refusal, and the address it is about.
    pub fn judge_host(&self, url: &Url) -> Result<(), (EgressRefusal, IpAddr)> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(name)) if is_localhost(name) => Ipv6Addr::LOCALHOST.into(),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        self.judge(address).map_err(|refusal| (refusal, address))
    }
}

fn refuse_network(at: usize, network: IpNet) -> Option<AllowanceError> {
    let Some(range) = Range::around(network) else { return Some(AllowanceError::NotSpecial { at, network }) };
    match range.door() {
        Door::Loopback => Some(AllowanceError::Loopback { at, network }),
        Door::Closed => Some(AllowanceError::Closed { at, network, range }),
        Door::Private if range.ends_in_ipv4() && network.prefix_len() < 96 => {
            Some(AllowanceError::TooWide { at, network, range })
        }
        Door::Private if network.prefix_len() == network.max_prefix_len() => {
            metadata::service(network.addr()).map(|_| AllowanceError::Metadata { at, network })
        }
        Door::Private => None,
    }
}

const fn of_carried(refusal: EgressRefusal) -> EgressRefusal {
    match refusal {
        EgressRefusal::Special { range, .. } => EgressRefusal::Special { range, carried: true },
        refusal => refusal,
    }
}

/// Whether a name is loopback by its meaning. Hosts come out of `Url` in lower case.
pub(crate) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests;
