//! The special-purpose ranges of addresses: one table, with where each row comes from. Pure.
//!
//! These are the registries of RFC 6890 as IANA keeps them (IPv4 and IPv6
//! Special-Purpose Address Registry), with what they leave out because it was
//! never an address of one host, or is none any more: multicast, site-local,
//! the IPv4-compatible and -translated forms, and all of IPv6 outside of
//! global unicast.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses that are not simply public.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Range {
    network: IpNet,
    name: &'static str,
    source: &'static str,
    door: Door,
    carries: Carries,
}

/// What opens a range to a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Door {
    /// `loopback: true`.
    Loopback,
    /// A network under `private`.
    Private,
    /// Nothing.
    Closed,
}

/// Where an address of a range carries an IPv4 address, to which it leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Carries {
    Nothing,
    /// In its last 32 bits.
    Last,
    /// After its first 16 bits (RFC 3056 §2).
    SixToFour,
    /// The server after its first 32 bits, the client inverted in its last 32 (RFC 4380 §4).
    Teredo,
}

impl Range {
    /// The range.
    #[must_use]
    pub const fn network(&self) -> IpNet {
        self.network
    }

    /// What it is for.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) const fn door(&self) -> Door {
        self.door
    }

    /// Whether the last 32 bits of its addresses are an IPv4 address.
    pub(super) const fn ends_in_ipv4(&self) -> bool {
        matches!(self.carries, Carries::Last)
    }

    /// The most specific range that an address is in.
    pub(super) fn of(address: IpAddr) -> Option<&'static Self> {
        Self::around(IpNet::from(address))
    }

    /// The most specific range that a whole network is in.
    pub(super) fn around(network: IpNet) -> Option<&'static Self> {
        RANGES
            .iter()
            .filter(|range| range.network.contains(&network))
            .max_by_key(|range| range.network.prefix_len())
    }

    /// The IPv4 addresses that an address of this range carries.
    pub(super) fn carried(&self, address: IpAddr) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let bits = match address {
            IpAddr::V4(_) => 0,
            IpAddr::V6(address) => address.to_bits(),
        };
        let carried = match self.carries {
            Carries::Nothing => [None, None],
            Carries::Last => [Some(quad(bits)), None],
            Carries::SixToFour => [Some(quad(bits >> 80)), None],
            Carries::Teredo => [Some(quad(bits >> 64)), Some(quad(!bits))],
        };
        carried.into_iter().flatten()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.network, self.source)
    }
}

/// The address in the lowest 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "the higher bits are another part of the address")]
const fn quad(bits: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits(bits as u32)
}

const fn v4(octets: [u8; 4], length: u8, name: &'static str, source: &'static str, door: Door) -> Range {
    let network = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_octets(octets), length));
    Range { network, name, source, door, carries: Carries::Nothing }
}

const fn v6(segments: [u16; 8], length: u8, name: &'static str, source: &'static str, door: Door) -> Range {
    let network = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_segments(segments), length));
    Range { network, name, source, door, carries: Carries::Nothing }
}

const fn carrying(carries: Carries, range: Range) -> Range {
    Range { carries, ..range }
}

use Door::{Closed, Loopback, Private};

/// All ranges. Where one is inside another, the narrower one counts.
#[rustfmt::skip]
static RANGES: [Range; 56] = [
    v4([0, 0, 0, 0], 8, "this network", "RFC 791", Closed),
    v4([10, 0, 0, 0], 8, "private", "RFC 1918", Private),
    v4([100, 64, 0, 0], 10, "shared by a carrier's NAT", "RFC 6598", Private),
    v4([127, 0, 0, 0], 8, "loopback", "RFC 1122", Loopback),
    v4([169, 254, 0, 0], 16, "link-local", "RFC 3927", Private),
    v4([172, 16, 0, 0], 12, "private", "RFC 1918", Private),
    v4([192, 0, 0, 0], 24, "for protocol assignments", "RFC 6890", Private),
    v4([192, 0, 0, 0], 29, "for IPv4 over IPv6", "RFC 7335", Private),
    v4([192, 0, 0, 8], 32, "a dummy", "RFC 7600", Closed),
    v4([192, 0, 0, 9], 32, "anycast of port control", "RFC 7723", Closed),
    v4([192, 0, 0, 10], 32, "anycast of relays", "RFC 8155", Closed),
    v4([192, 0, 0, 170], 31, "for the discovery of NAT64", "RFC 8880", Closed),
    v4([192, 0, 2, 0], 24, "for documentation", "RFC 5737", Private),
    v4([192, 31, 196, 0], 24, "AS112", "RFC 7535", Closed),
    v4([192, 52, 193, 0], 24, "anycast of multicast relays", "RFC 7450", Closed),
    v4([192, 88, 99, 0], 24, "anycast of 6to4 relays", "RFC 7526", Closed),
    v4([192, 168, 0, 0], 16, "private", "RFC 1918", Private),
    v4([192, 175, 48, 0], 24, "AS112", "RFC 7534", Closed),
    v4([198, 18, 0, 0], 15, "for benchmarking", "RFC 2544", Private),
    v4([198, 51, 100, 0], 24, "for documentation", "RFC 5737", Private),
    v4([203, 0, 113, 0], 24, "for documentation", "RFC 5737", Private),
    v4([224, 0, 0, 0], 4, "multicast", "RFC 5771", Closed),
    v4([240, 0, 0, 0], 4, "reserved", "RFC 1112", Private),
    v4([255, 255, 255, 255], 32, "broadcast", "RFC 919", Closed),

    v6([0, 0, 0, 0, 0, 0, 0, 0], 3, "not global unicast", "RFC 4291", Closed),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified", "RFC 4291", Closed),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback", "RFC 4291", Loopback),
    carrying(Carries::Last, v6([0, 0, 0, 0, 0, 0, 0, 0], 96, "IPv4-compatible", "RFC 4291", Private)),
    carrying(Carries::Last, v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "IPv4-mapped", "RFC 4291", Private)),
    carrying(Carries::Last, v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "IPv4-translated", "RFC 2765", Private)),
    carrying(Carries::Last, v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, "NAT64", "RFC 6052", Private)),
    carrying(Carries::Last, v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "local NAT64", "RFC 8215", Private)),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "for discarding", "RFC 6666", Closed),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "a dummy", "RFC 9780", Closed),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "for protocol assignments", "RFC 2928", Private),
    carrying(Carries::Teredo, v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "Teredo", "RFC 4380", Private)),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 1], 128, "anycast of port control", "RFC 7723", Closed),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 2], 128, "anycast of relays", "RFC 8155", Closed),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 3], 128, "anycast of service registration", "RFC 9665", Closed),
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "for benchmarking", "RFC 5180", Private),
    v6([0x2001, 3, 0, 0, 0, 0, 0, 0], 32, "anycast of multicast relays", "RFC 7450", Closed),
    v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48, "AS112", "RFC 7535", Closed),
    v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, "ORCHID", "RFC 4843", Private),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, "ORCHID", "RFC 7343", Private),
    v6([0x2001, 0x30, 0, 0, 0, 0, 0, 0], 28, "for remote identification", "RFC 9374", Private),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "for documentation", "RFC 3849", Private),
    carrying(Carries::SixToFour, v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "6to4", "RFC 3056", Private)),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, "AS112", "RFC 7534", Closed),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "for documentation", "RFC 9637", Private),
    v6([0x4000, 0, 0, 0, 0, 0, 0, 0], 2, "not global unicast", "RFC 4291", Closed),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "for segment routing", "RFC 9602", Private),
    v6([0x8000, 0, 0, 0, 0, 0, 0, 0], 1, "not global unicast", "RFC 4291", Closed),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "unique-local", "RFC 4193", Private),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local", "RFC 4291", Private),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site-local", "RFC 3879", Private),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast", "RFC 4291", Closed),
];

#[cfg(test)]
mod tests;
