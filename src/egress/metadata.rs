//! The addresses at which clouds tell a machine its secrets. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const fn v4(octets: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_octets(octets))
}

const fn v6(segments: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_segments(segments))
}

/// The addresses, and who answers there. Some of them are public ones.
static ADDRESSES: [(IpAddr, &str); 16] = [
    (v4([169, 254, 169, 254]), "most clouds"),
    (v4([169, 254, 169, 253]), "AWS, names"),
    (v4([169, 254, 170, 2]), "AWS, tasks"),
    (v4([169, 254, 170, 23]), "AWS, pods"),
    (v4([169, 254, 0, 23]), "Tencent"),
    (v4([169, 254, 42, 42]), "Scaleway"),
    (v4([100, 100, 100, 200]), "Alibaba"),
    (v4([168, 63, 129, 16]), "Azure"),
    (v4([192, 0, 0, 192]), "Oracle"),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]), "AWS"),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253]), "AWS, names"),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23]), "AWS, pods"),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]), "Google"),
    (v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]), "Scaleway"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe]), "most clouds"),
    (v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]), "Oracle"),
];

/// Who answers at an address, where it is one of a metadata service.
pub(super) fn service(address: IpAddr) -> Option<&'static str> {
    ADDRESSES.iter().find(|(known, _)| *known == address).map(|(_, service)| *service)
}

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = IpAddr> {
    ADDRESSES.iter().map(|(address, _)| *address)
}
