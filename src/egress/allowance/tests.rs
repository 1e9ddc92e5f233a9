//! What is allowed, what is not, and a second judge.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::manifest::Network;

fn spec(private: &[&str], loopback: bool, metadata: &[&str]) -> EgressSpec {
    EgressSpec {
        private: private.iter().map(|text| text.parse::<Network>().unwrap()).collect(),
        loopback,
        metadata: metadata.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn allows(private: &[&str], loopback: bool, metadata: &[&str], address: &str) -> bool {
    Allowances::new(&spec(private, loopback, metadata)).unwrap().judge(address.parse().unwrap()).is_ok()
}

#[test]
fn by_default_only_public_addresses_are_called() {
    for address in ["8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "2606:4700::1111"] {
        assert!(allows(&[], false, &[], address), "{address}");
    }
    for address in
        ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
    {
        assert!(!allows(&[], false, &[], address), "{address}");
    }
}

#[test]
fn a_network_allows_its_own_addresses_and_no_others() {
    assert!(allows(&["10.0.0.0/8"], false, &[], "10.255.255.255"));
    assert!(!allows(&["10.1.0.0/16"], false, &[], "10.2.0.0"));
    assert!(!allows(&["10.0.0.0/8"], false, &[], "192.168.0.1"));
    assert!(!allows(&["10.0.0.0/8"], false, &[], "127.0.0.1"));
    assert!(!allows(&["240.0.0.0/4"], false, &[], "255.255.255.255"));
    assert!(allows(&[], true, &[], "127.0.0.1") && allows(&[], true, &[], "::1"));
    assert!(!allows(&[], true, &[], "10.0.0.1") && !allows(&[], true, &[], "0.0.0.0"));
}

#[test]
fn metadata_is_allowed_by_its_own_line_and_by_no_network() {
    let wide = ["169.254.0.0/16", "100.64.0.0/10", "192.0.0.0/24", "fc00::/7", "fe80::/10"];
    for address in metadata::all() {
        let text = address.to_string();
        assert!(!allows(&wide, true, &[], &text), "{text}");
        assert!(allows(&[], false, &[&text], &text), "{text}");
    }
    assert!(allows(&wide, false, &[], "169.254.1.1"));
    assert!(!allows(&[], false, &["169.254.169.254"], "169.254.170.2"));
    assert!(!allows(&[], false, &["169.254.169.254"], "169.254.1.1"));
}

#[test]
fn an_address_that_carries_another_needs_both_to_be_allowed() {
    for (range, carrying, public) in [
        ("::ffff:0:0/96", "::ffff:127.0.0.1", "::ffff:8.8.8.8"),
        ("::ffff:0:0:0/96", "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"),
        ("64:ff9b::/96", "64:ff9b::7f00:1", "64:ff9b::808:808"),
        ("64:ff9b:1:2::/96", "64:ff9b:1:2::7f00:1", "64:ff9b:1:2::808:808"),
        ("2002::/16", "2002:7f00:1::1", "2002:808:808::1"),
        // The client's address is inverted.
        ("2001::/32", "2001:0:808:808::80ff:fffe", "2001:0:808:808::f7f7:f7f7"),
    ] {
        assert!(!allows(&[], true, &[], carrying), "{carrying}: its range is not allowed");
        assert!(!allows(&[range], false, &[], carrying), "{carrying}: what it carries is not allowed");
        assert!(allows(&[range], true, &[], carrying), "{carrying}: both are");
        assert!(allows(&[range], false, &[], public), "{public}");
    }
    assert!(!allows(&["64:ff9b::/96"], true, &[], "64:ff9b::a9fe:a9fe"));
    assert!(allows(&["64:ff9b::/96"], false, &["169.254.169.254"], "64:ff9b::a9fe:a9fe"));
    let refusal = Allowances::new(&spec(&["64:ff9b::/96"], false, &[])).unwrap();
    insta::assert_snapshot!(
        refusal.judge("64:ff9b::7f00:1".parse().unwrap()).unwrap_err(),
        @"the address carries an IPv4 address that is loopback (127.0.0.0/8, RFC 1122), which the service's egress does not allow"
    );
}

#[test]
fn what_cannot_be_allowed_is_said_all_at_once() {
    let private = [
        "8.8.8.0/24",
        "10.0.0.0/7",
        "127.0.0.0/8",
        "::1/128",
        "224.0.0.0/4",
        "0.0.0.0/8",
        "169.254.169.254/32",
        "64:ff9b:1::/48",
        "2000::/3",
    ];
    let errors = Allowances::new(&spec(&private, false, &["8.8.8.8"])).unwrap_err();
    let lines: Vec<String> = errors.iter().map(|error| format!("{:?} {error}", error.place())).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    ("private", 0) `8.8.8.0/24` is not inside of one special-purpose range
    ("private", 1) `10.0.0.0/7` is not inside of one special-purpose range
    ("private", 2) `127.0.0.0/8` is loopback, which is not allowed by network: say `loopback: true`
    ("private", 3) `::1/128` is loopback, which is not allowed by network: say `loopback: true`
    ("private", 4) `224.0.0.0/4` is multicast (224.0.0.0/4, RFC 5771), which is never called
    ("private", 5) `0.0.0.0/8` is this network (0.0.0.0/8, RFC 791), which is never called
    ("private", 6) `169.254.169.254/32` is cloud metadata, which is not allowed by network: name it under `metadata`
    ("private", 7) `64:ff9b:1::/48` is local NAT64 (64:ff9b:1::/48, RFC 8215): name the /96 whose last 32 bits are the IPv4 address
    ("private", 8) `2000::/3` is not inside of one special-purpose range
    ("metadata", 0) `8.8.8.8` is not known as cloud metadata: allow its network under `private`, if it needs that
    "#);
}

#[test]
fn the_order_in_which_it_is_written_does_not_matter() {
    let one = Allowances::new(&spec(&["10.0.0.0/8", "fd00::/8", "10.0.0.0/8"], false, &[])).unwrap();
    assert_eq!(one, Allowances::new(&spec(&["fd00::/8", "10.0.0.0/8"], false, &[])).unwrap());
}

#[test]
fn a_literal_or_localhost_shows_before_anything_is_called() {
    let judge = |host: &str, loopback| {
        let url = Url::parse(&format!("http://{host}:1/")).unwrap();
        Allowances::new(&spec(&[], loopback, &[])).unwrap().judge_host(&url).is_ok()
    };
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "017700000001",
        "2130706433",
        "１２７.0.0.1",
        "[::1]",
        "localhost",
        "LOCALHOST.",
        "api.localhost",
    ] {
        assert!(!judge(host, false) && judge(host, true), "{host}");
    }
    for host in ["0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"] {
        assert!(!judge(host, false) && !judge(host, true), "{host}");
    }
    for host in ["example.com", "8.8.8.8", "notlocalhost", "localhost.example.com"] {
        assert!(judge(host, false), "{host}");
    }
}

/// A second judge, of what the standard library knows and of prefixes of texts.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => {
            let hex: String = address.octets().iter().map(|octet| format!("{octet:02x}")).collect();
            let special = ["200100", "200101", "20010db8", "2002", "2620004f8000", "3fff0"];
            (hex.starts_with('2') || hex.starts_with('3'))
                && !special.iter().any(|prefix| hex.starts_with(prefix))
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let text = format!("{address}.");
    let [a, b, ..] = address.octets();
    let prefixes = [
        "0.",
        "192.0.0.",
        "192.31.196.",
        "192.52.193.",
        "192.88.99.",
        "192.175.48.",
        "198.18.",
        "198.19.",
        "168.63.129.16.",
    ];
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_unspecified()
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || prefixes.iter().any(|prefix| text.starts_with(prefix)))
}

fn agrees(nothing: &Allowances, address: IpAddr) {
    assert_eq!(nothing.judge(address).is_ok(), is_public(address), "{address}");
}

#[test]
fn two_judges_agree_on_every_sixteen_bits_of_ipv4_and_on_edges() {
    let nothing = Allowances::default();
    for high in 0..=u16::MAX {
        for low in [0, 1, 0xff, 0x100, 0x1fff, 0x6311, 0x8110, 0x8111, 0xc0fe, 0xfffe, 0xffff] {
            agrees(&nothing, Ipv4Addr::from_bits(u32::from(high) << 16 | low).into());
        }
        // Every first 16 bits of IPv6, and every second ones below those that have ranges.
        let high = u128::from(high);
        for rest in [0, 1, u128::MAX >> 16, 0x7f00_0001, 0xffff_7f00_0001] {
            agrees(&nothing, Ipv6Addr::from_bits(high << 112 | rest).into());
        }
        for first in [0_u128, 0x64, 0x100, 0x2001, 0x2002, 0x2620, 0x3ffe, 0x3fff, 0xfd00, 0xfe80] {
            agrees(&nothing, Ipv6Addr::from_bits(first << 112 | high << 96).into());
            agrees(&nothing, Ipv6Addr::from_bits(first << 112 | high << 96 | (u128::MAX >> 32)).into());
        }
    }
}

#[test]
fn two_judges_agree_on_a_million_random_addresses() {
    let nothing = Allowances::default();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let (mut public, total) = (0_u32, 1_000_000);
    for _ in 0..total / 2 {
        let (high, low) = (random(), random());
        let v4 = IpAddr::from(Ipv4Addr::from_bits(u32::try_from(high >> 32).unwrap()));
        let v6 = IpAddr::from(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)));
        agrees(&nothing, v4);
        agrees(&nothing, v6);
        public += u32::from(is_public(v4)) + u32::from(is_public(v6));
    }
    assert!((300_000..700_000).contains(&public), "both answers occur: {public} of {total}");
}

proptest! {
    #[test]
    fn allowing_more_never_refuses_more(bits in any::<u128>(), low in any::<u32>()) {
        let nothing = Allowances::default();
        let much = Allowances::new(&spec(&["10.0.0.0/8", "fc00::/7", "::ffff:0:0/96"], true, &[])).unwrap();
        for address in [IpAddr::from(Ipv6Addr::from_bits(bits)), Ipv4Addr::from_bits(low).into()] {
            prop_assert!(nothing.judge(address).is_err() || much.judge(address).is_ok());
        }
    }
}
