//! Why a call may not go where it would.

use std::net::IpAddr;

use ipnet::IpNet;

use super::range::{Door, Range};

/// Why a call may not go where it would.
///
/// `Display` is for the log and the record: it names kinds of addresses, never a
/// name, a URL, or anything else that an argument holds.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EgressRefusal {
    /// The address is in a range that the service's egress does not allow.
    #[error("the address {}, which the service's egress does not allow", special(range, *carried))]
    Special {
        /// The range.
        range: &'static Range,
        /// Whether the address only carries one of the range, as IPv4-mapped addresses do.
        carried: bool,
    },
    /// The address is a cloud's metadata service.
    #[error(
        "the address is cloud metadata (`{address}`, {service}), which the service's egress does not allow"
    )]
    Metadata {
        /// The address.
        address: IpAddr,
        /// Who answers there.
        service: &'static str,
    },
    /// The address is one where the gate itself listens.
    #[error("the address is the gate's own listener, which is never called")]
    OwnListener,
    /// The answer came from where the call may not go, or from nobody knows where.
    #[error("the answer came from an address that the service's egress does not allow")]
    Peer,
    /// The text is not a URL with a host, or different readers could take it for different ones.
    #[error("the text is not an unambiguous URL")]
    NotAUrl,
    /// The URL's scheme is neither `http` nor `https`.
    #[error("the URL's scheme is neither `http` nor `https`")]
    Scheme,
    /// The URL carries a user or a password.
    #[error("the URL carries a user or a password")]
    Userinfo,
    /// The name has no address, or none could be learnt.
    #[error("the host's name has no address that could be judged")]
    Unresolved,
}

fn special(range: &Range, carried: bool) -> String {
    if carried { format!("carries an IPv4 address that is {range}") } else { format!("is {range}") }
}

impl EgressRefusal {
    /// What would allow a service at this address, for whoever writes `callgate.yaml`.
    #[must_use]
    pub fn help(&self, address: IpAddr) -> Option<String> {
        match self {
            Self::Special { range, .. } => Some(match range.door() {
                Door::Loopback => "say `egress: { loopback: true }` for the service".to_owned(),
                Door::Private => format!(
                    "say `egress: {{ private: [\"{}\"] }}` for the service, or name the network it is in",
                    IpNet::from(address)
                ),
                Door::Closed => "no service can be there".to_owned(),
            }),
            Self::Metadata { address, .. } => Some(format!(
                "if that is meant, say `egress: {{ metadata: [\"{address}\"] }}` for the service"
            )),
            Self::OwnListener
            | Self::Peer
            | Self::NotAUrl
            | Self::Scheme
            | Self::Userinfo
            | Self::Unresolved => None,
        }
    }
}
