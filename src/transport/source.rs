//! Where a request came from: its connection's address, or what a trusted proxy says of it.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

use crate::manifest::Network;

/// How many hops a request may have behind it.
const HOPS_MAX: usize = 32;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Why it cannot be said where a request came from. A request that a trusted proxy passes on is refused
/// rather than judged by an address that somebody made up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum SourceError {
    #[error("the request has both `Forwarded` and `X-Forwarded-For`")]
    Both,
    #[error("`Forwarded` or `X-Forwarded-For` cannot be read")]
    Unreadable,
    #[error("the request has more than {HOPS_MAX} hops behind it")]
    TooManyHops,
}

/// Where a request of a connection came from. Only what a trusted proxy passes on is asked for its headers.
///
/// # Errors
/// When a trusted proxy's headers do not say it in one way only.
pub(super) fn judge(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> Result<IpAddr, SourceError> {
    let peer = peer.to_canonical();
    let is_trusted = |address: &IpAddr| proxies.iter().any(|network| network.net().contains(address));
    if !is_trusted(&peer) {
        return Ok(peer);
    }
    let hops = match (headers.contains_key(X_FORWARDED_FOR), headers.contains_key(header::FORWARDED)) {
        (false, false) => return Ok(peer), // the proxy's own request
        (true, true) => return Err(SourceError::Both),
        (true, false) => hops(headers, &X_FORWARDED_FOR, node)?,
        (false, true) => hops(headers, &header::FORWARDED, element)?,
    };
    // Each trusted proxy vouches for the hop before it. Where all are trusted, the first of them began.
    let judged = hops.iter().rev().find(|hop| !is_trusted(hop)).or_else(|| hops.first());
    judged.copied().ok_or(SourceError::Unreadable)
}

/// The addresses that a list names, over all headers of the name, the nearest hop last.
fn hops(
    headers: &HeaderMap,
    name: &HeaderName,
    read: fn(&str) -> Option<IpAddr>,
) -> Result<Vec<IpAddr>, SourceError> {
    let mut hops = Vec::new();
    for value in headers.get_all(name) {
        let value = value.to_str().map_err(|_| SourceError::Unreadable)?;
        for entry in value.split(',') {
            if hops.len() == HOPS_MAX {
                return Err(SourceError::TooManyHops);
            }
            // A comma within quotes cuts an entry in two, of which none can be read.
            hops.push(read(trim(entry)).ok_or(SourceError::Unreadable)?);
        }
    }
    Ok(hops)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// An address, perhaps with a port: `192.0.2.1`, `192.0.2.1:99`, `2001:db8::1`, `[2001:db8::1]:99`.
fn node(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = text.parse().ok();
    let address = address.or_else(|| text.parse().ok().map(|with_port: SocketAddr| with_port.ip()));
    // A zone (`fe80::1%eth0`) means something on the proxy alone; the parsers take a numeric one.
    (!text.contains('%')).then(|| address.or_else(bare))?.map(|address| address.to_canonical())
}

/// The `for` of one element of `Forwarded` (RFC 7239 §4). One that hides its hop names no address.
fn element(text: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in text.split(';') {
        let (name, value) = trim(pair).split_once('=')?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let quoted = value.strip_prefix('"').map(|rest| rest.strip_suffix('"'));
        let inner = quoted.unwrap_or_else(|| value.bytes().all(is_token).then_some(value))?;
        if inner.is_empty() || inner.contains(['"', '\\']) {
            return None;
        }
        if name.eq_ignore_ascii_case("for") {
            // §6: an IPv6 address stands in brackets.
            let is_node = inner.starts_with('[') || inner.bytes().filter(|byte| *byte == b':').count() < 2;
            let address = node(inner).filter(|_| is_node)?;
            if found.replace(address).is_some() {
                return None;
            }
        }
    }
    found
}

/// RFC 9110 §5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const XFF: &str = "x-forwarded-for";

    fn judged(peer: &str, headers: &[(&str, &str)]) -> Result<String, SourceError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let proxies = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        judge(peer.parse().unwrap(), &map, &proxies).map(|address| address.to_string())
    }

    fn behind(headers: &[(&str, &str)]) -> Result<String, SourceError> {
        judged("10.0.0.1", headers)
    }

    #[test]
    fn nobody_but_a_trusted_proxy_is_believed() {
        for headers in [
            &[(XFF, "198.51.100.7")][..],
            &[("forwarded", "for=198.51.100.7")],
            &[(XFF, "198.51.100.7"), ("forwarded", "for=198.51.100.8")],
            &[(XFF, "nonsense")],
        ] {
            assert_eq!(judged("203.0.113.5", headers).unwrap(), "203.0.113.5");
        }
        assert_eq!(judged("::ffff:203.0.113.5", &[(XFF, "1.2.3.4")]).unwrap(), "203.0.113.5");
        assert_eq!(judged("::ffff:10.0.0.1", &[(XFF, "1.2.3.4")]).unwrap(), "1.2.3.4");
    }

    #[test]
    fn the_nearest_hop_that_is_no_trusted_proxy_is_the_source() {
        let judged = |value: &str| behind(&[(XFF, value)]).unwrap();
        assert_eq!(judged("198.51.100.7"), "198.51.100.7");
        assert_eq!(judged("1.1.1.1, 198.51.100.7"), "198.51.100.7", "what a client wrote is left of it");
        assert_eq!(judged("1.1.1.1,198.51.100.7 ,\t10.2.3.4, fd00::1"), "198.51.100.7");
        assert_eq!(judged("::ffff:198.51.100.7, ::ffff:10.1.1.1"), "198.51.100.7");
        assert_eq!(judged("198.51.100.7:4711"), "198.51.100.7");
        assert_eq!(judged("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(judged("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(judged("10.9.9.9, 10.2.3.4"), "10.9.9.9", "all of them are proxies");
        assert_eq!(behind(&[]).unwrap(), "10.0.0.1");
        assert_eq!(behind(&[(XFF, "1.1.1.1"), (XFF, "2.2.2.2")]).unwrap(), "2.2.2.2", "lines are one list");
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        let judged = |value: &str| behind(&[("forwarded", value)]);
        for (value, source) in [
            ("for=198.51.100.7", "198.51.100.7"),
            ("For=\"198.51.100.7:99\";proto=https; By=\"[fd00::1]\"", "198.51.100.7"),
            ("proto=https;for=\"[2001:db8::17]:47\"", "2001:db8::17"),
            ("for=1.1.1.1, for=198.51.100.7;host=a, for=10.1.1.1", "198.51.100.7"),
        ] {
            assert_eq!(judged(value).unwrap(), source, "{value}");
        }
        for wrong in [
            "for=unknown",
            "for=_hidden",
            "proto=https",
            "for=1.1.1.1;for=2.2.2.2",
            "for=198.51.100.7:99",
            "for=[2001:db8::17]",
            "for=\"2001:db8::17\"",
            "for=\"1.1.1.1",
            "for=\"1.1.1.1\"x",
            "for=\"1.1.1\\.1\"",
            "for =1.1.1.1",
            "for=1.1.1.1;",
            "for=1.1.1.1;by=\"a,for=2.2.2.2\"",
            "1.1.1.1",
            "",
            "=1.1.1.1",
        ] {
            assert_eq!(judged(wrong), Err(SourceError::Unreadable), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_say_one_thing_is_refused() {
        assert_eq!(behind(&[(XFF, "1.1.1.1"), ("forwarded", "for=1.1.1.1")]), Err(SourceError::Both));
        for wrong in [
            "",
            ",",
            "1.1.1.1,",
            ",1.1.1.1",
            "1.1.1.1 2.2.2.2",
            "unknown",
            "a, 1.1.1.1",
            "01.1.1.1",
            "1.1.1",
            "0x7f.1",
            "1.1.1.1:99999",
            "fe80::1%eth0",
            "[fe80::1%1]:1",
            "[1.1.1.1]",
            "é",
            "1.1.1.1/8",
        ] {
            assert_eq!(behind(&[(XFF, wrong)]), Err(SourceError::Unreadable), "{wrong}");
        }
        let many = |count| vec!["1.1.1.1"; count].join(",");
        assert!(behind(&[(XFF, &many(32))]).is_ok());
        assert_eq!(behind(&[(XFF, &many(33))]), Err(SourceError::TooManyHops));
        assert_eq!(behind(&[(XFF, &many(32)), (XFF, "1.1.1.1")]), Err(SourceError::TooManyHops));
    }
}
