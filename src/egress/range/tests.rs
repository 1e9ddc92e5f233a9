//! Row by row, with both edges of each range.

use super::*;

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn address(bits: u128, width: u32) -> IpAddr {
    if width == 32 {
        Ipv4Addr::from_bits(u32::try_from(bits).unwrap()).into()
    } else {
        Ipv6Addr::from_bits(bits).into()
    }
}

/// The ranges that an address is in, the narrowest first, by arithmetic of our own.
fn all_around(at: u128, width: u32) -> Vec<&'static Range> {
    let mut around: Vec<_> = RANGES
        .iter()
        .filter(|range| {
            let (first, range_width) = bits(range.network.network());
            let host = range_width - u32::from(range.network.prefix_len());
            range_width == width && (host == 128 || at >> host == first >> host)
        })
        .collect();
    around.sort_by_key(|range| std::cmp::Reverse(range.network.prefix_len()));
    around
}

#[test]
fn every_row_holds_from_its_first_address_to_its_last_and_no_further() {
    for range in &RANGES {
        let (first, width) = bits(range.network.network());
        let host = width - u32::from(range.network.prefix_len());
        let last = if host == 128 { u128::MAX } else { first | ((1 << host) - 1) };
        for inside in [first, last, first + (last - first) / 2] {
            assert!(all_around(inside, width).contains(&range), "{range}");
            assert_eq!(
                Range::of(address(inside, width)),
                all_around(inside, width).first().copied(),
                "{range}"
            );
        }
        let top = if width == 32 { u128::from(u32::MAX) } else { u128::MAX };
        let outside = [first.checked_sub(1), last.checked_add(1).filter(|next| *next <= top)];
        for outside in outside.into_iter().flatten() {
            assert!(!all_around(outside, width).contains(&range), "{range}");
            assert_eq!(
                Range::of(address(outside, width)),
                all_around(outside, width).first().copied(),
                "{range}"
            );
        }
    }
}

#[test]
fn the_table_is_the_registries_and_what_they_leave_out() {
    let rows: Vec<String> = RANGES.iter().map(|range| format!("{range} {:?}", range.door)).collect();
    let mut networks: Vec<_> = RANGES.iter().map(|range| range.network).collect();
    networks.sort_unstable();
    networks.dedup();
    assert_eq!(networks.len(), RANGES.len(), "no network twice");
    assert!(RANGES.iter().all(|range| range.network == range.network.trunc()), "no bits beyond a prefix");
    let documented = include_str!("../../../docs/egress.md");
    for range in &RANGES {
        let row = format!("| `{}` | {} | {} |", range.network, range.name, range.source);
        assert!(documented.contains(&row), "docs/egress.md has no row {row}");
    }
    // Neither registry is read at run time: a row that goes is to be seen in a review.
    assert_eq!(rows.len(), 56);
}

/// What each address is, written out once more, by hand.
#[test]
fn well_known_addresses_are_what_they_are() {
    let name = |text: &str| Range::of(text.parse().unwrap()).map_or("public", Range::name);
    for (text, expected) in [
        ("0.0.0.0", "this network"),
        ("0.255.255.255", "this network"),
        ("1.0.0.0", "public"),
        ("9.255.255.255", "public"),
        ("10.0.0.0", "private"),
        ("10.255.255.255", "private"),
        ("11.0.0.0", "public"),
        ("100.63.255.255", "public"),
        ("100.64.0.0", "shared by a carrier's NAT"),
        ("100.127.255.255", "shared by a carrier's NAT"),
        ("100.128.0.0", "public"),
        ("126.255.255.255", "public"),
        ("127.0.0.0", "loopback"),
        ("127.255.255.255", "loopback"),
        ("128.0.0.0", "public"),
        ("169.253.255.255", "public"),
        ("169.254.0.0", "link-local"),
        ("169.254.255.255", "link-local"),
        ("169.255.0.0", "public"),
        ("172.15.255.255", "public"),
        ("172.16.0.0", "private"),
        ("172.31.255.255", "private"),
        ("172.32.0.0", "public"),
        ("191.255.255.255", "public"),
        ("192.0.0.0", "for IPv4 over IPv6"),
        ("192.0.0.7", "for IPv4 over IPv6"),
        ("192.0.0.8", "a dummy"),
        ("192.0.0.9", "anycast of port control"),
        ("192.0.0.10", "anycast of relays"),
        ("192.0.0.11", "for protocol assignments"),
        ("192.0.0.170", "for the discovery of NAT64"),
        ("192.0.0.171", "for the discovery of NAT64"),
        ("192.0.0.255", "for protocol assignments"),
        ("192.0.1.0", "public"),
        ("192.0.2.0", "for documentation"),
        ("192.0.2.255", "for documentation"),
        ("192.0.3.0", "public"),
        ("192.31.195.255", "public"),
        ("192.31.196.0", "AS112"),
        ("192.31.196.255", "AS112"),
        ("192.31.197.0", "public"),
        ("192.52.193.1", "anycast of multicast relays"),
        ("192.88.99.1", "anycast of 6to4 relays"),
        ("192.167.255.255", "public"),
        ("192.168.0.0", "private"),
        ("192.168.255.255", "private"),
        ("192.169.0.0", "public"),
        ("192.175.48.42", "AS112"),
        ("198.17.255.255", "public"),
        ("198.18.0.0", "for benchmarking"),
        ("198.19.255.255", "for benchmarking"),
        ("198.20.0.0", "public"),
        ("198.51.100.7", "for documentation"),
        ("203.0.113.255", "for documentation"),
        ("203.0.114.0", "public"),
        ("223.255.255.255", "public"),
        ("224.0.0.0", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.0", "reserved"),
        ("255.255.255.254", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("8.8.8.8", "public"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::2", "IPv4-compatible"),
        ("::127.0.0.1", "IPv4-compatible"),
        ("::1:0:0", "not global unicast"),
        ("::fffe:ffff:ffff", "not global unicast"),
        ("::ffff:0.0.0.0", "IPv4-mapped"),
        ("::ffff:255.255.255.255", "IPv4-mapped"),
        ("::1:0:0:0", "not global unicast"),
        ("::ffff:0:127.0.0.1", "IPv4-translated"),
        ("64:ff9b::7f00:1", "NAT64"),
        ("64:ff9b::1:0:0", "not global unicast"),
        ("64:ff9b:1::", "local NAT64"),
        ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "local NAT64"),
        ("64:ff9b:2::", "not global unicast"),
        ("100::1", "for discarding"),
        ("100:0:0:1::1", "a dummy"),
        ("100:0:0:2::", "not global unicast"),
        ("1fff:ffff::", "not global unicast"),
        ("2000::", "public"),
        ("2001::1", "Teredo"),
        ("2001:0:ffff::", "Teredo"),
        ("2001:1::1", "anycast of port control"),
        ("2001:1::4", "for protocol assignments"),
        ("2001:2::1", "for benchmarking"),
        ("2001:2:1::", "for protocol assignments"),
        ("2001:3:ffff::", "anycast of multicast relays"),
        ("2001:4:112::1", "AS112"),
        ("2001:10::", "ORCHID"),
        ("2001:2f:ffff::", "ORCHID"),
        ("2001:30::", "for remote identification"),
        ("2001:1ff:ffff::", "for protocol assignments"),
        ("2001:200::", "public"),
        ("2001:4860:4860::8888", "public"),
        ("2001:db7:ffff::", "public"),
        ("2001:db8::", "for documentation"),
        ("2001:db8:ffff::", "for documentation"),
        ("2001:db9::", "public"),
        ("2001:ffff::", "public"),
        ("2002::", "6to4"),
        ("2002:ffff::", "6to4"),
        ("2003::", "public"),
        ("2620:4f:8000::1", "AS112"),
        ("2620:4f:8001::", "public"),
        ("3ffe:ffff::", "public"),
        ("3fff::", "for documentation"),
        ("3fff:fff:ffff::", "for documentation"),
        ("3fff:1000::", "public"),
        ("3fff:ffff::", "public"),
        ("4000::", "not global unicast"),
        ("5f00::1", "for segment routing"),
        ("5f01::", "not global unicast"),
        ("7fff::", "not global unicast"),
        ("8000::", "not global unicast"),
        ("fbff::", "not global unicast"),
        ("fc00::", "unique-local"),
        ("fdff:ffff::", "unique-local"),
        ("fe00::", "not global unicast"),
        ("fe80::1", "link-local"),
        ("febf::", "link-local"),
        ("fec0::", "site-local"),
        ("feff::", "site-local"),
        ("ff00::", "multicast"),
        ("ff02::1", "multicast"),
    ] {
        assert_eq!(name(text), expected, "{text}");
    }
}

#[test]
fn an_address_leads_to_the_ipv4_addresses_that_it_carries() {
    let carried = |text: &str| -> Vec<String> {
        let address = text.parse().unwrap();
        Range::of(address).unwrap().carried(address).map(|carried| carried.to_string()).collect()
    };
    assert_eq!(carried("::ffff:169.254.169.254"), ["169.254.169.254"]);
    assert_eq!(carried("::ffff:0:10.0.0.1"), ["10.0.0.1"]);
    assert_eq!(carried("::10.0.0.1"), ["10.0.0.1"]);
    assert_eq!(carried("64:ff9b::7f00:1"), ["127.0.0.1"]);
    assert_eq!(carried("64:ff9b:1::7f00:1"), ["127.0.0.1"]);
    assert_eq!(carried("2002:7f00:1::1"), ["127.0.0.1"]);
    // RFC 4380 §2.7: the client's address is inverted.
    assert_eq!(carried("2001:0:4136:e378:8000:63bf:3fff:fdd2"), ["65.54.227.120", "192.0.2.45"]);
    assert_eq!(carried("fd00::7f00:1"), <[&str; 0]>::default());
}
