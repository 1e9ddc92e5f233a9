//! Which `Host` and `Origin` a request may carry: the guard against DNS rebinding.
//!
//! A web page can make a browser send requests to a loopback address under a name that it controls.
//! The name is then in `Host`, and the page in `Origin` (MCP 2026-07-28 transports, security).

use http::{HeaderMap, Uri, header};

use crate::manifest::{HttpListener, WebHost, WebOrigin};

/// The names that stand for this machine, whatever the port.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The hosts and origins of a listener.
#[derive(Clone, Debug)]
pub(super) struct Names {
    hosts: Vec<WebHost>,
    origins: Vec<WebOrigin>,
}

/// Why a request is not looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum NameError {
    /// RFC 9112 §3.2: exactly one host, and one that can be read.
    #[error("the request must name exactly one host")]
    BadHost,
    #[error("the request's host is not one of this server's")]
    ForeignHost,
    #[error("the request's origin may not call this server")]
    ForeignOrigin,
}

impl Names {
    pub(super) fn of(listener: &HttpListener) -> Self {
        Self { hosts: listener.hosts.clone(), origins: listener.origins.clone() }
    }

    /// Lets pass what names this server, and comes from no web page or from a listed one.
    pub(super) fn check(&self, target: &Uri, headers: &HeaderMap) -> Result<(), NameError> {
        let named = host(target, headers)?;
        if !self.is_ours(&named) {
            return Err(NameError::ForeignHost);
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(()),
            (Some(origin), None) => origin
                .to_str()
                .ok()
                .and_then(|origin| origin.parse::<WebOrigin>().ok())
                .filter(|origin| self.origins.contains(origin))
                .map(|_| ())
                .ok_or(NameError::ForeignOrigin),
            (Some(_), Some(_)) => Err(NameError::ForeignOrigin),
        }
    }

    fn is_ours(&self, named: &WebHost) -> bool {
        let listed = |ours: &WebHost| {
            ours.name() == named.name() && (ours.port().is_none() || ours.port() == named.port())
        };
        LOOPBACK.contains(&named.name()) || self.hosts.iter().any(listed)
    }
}

/// The one host that a request names, be it in `Host`, in an absolute target (RFC 9112 §3.2.2) or in
/// HTTP/2's `:authority`, which takes the same place. Where two say it, they say the same.
fn host(target: &Uri, headers: &HeaderMap) -> Result<WebHost, NameError> {
    let mut values = headers.get_all(header::HOST).iter();
    let header = match (values.next(), values.next()) {
        (Some(value), None) => Some(value.to_str().map_err(|_| NameError::BadHost)?),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(NameError::BadHost),
    };
    let target = target.authority().map(http::uri::Authority::as_str);
    let parse = |text: &str| text.parse::<WebHost>().map_err(|_| NameError::BadHost);
    match (header, target) {
        (Some(one), None) | (None, Some(one)) => parse(one),
        (Some(header), Some(target)) => {
            let (header, target) = (parse(header)?, parse(target)?);
            if header == target { Ok(target) } else { Err(NameError::BadHost) }
        }
        (None, None) => Err(NameError::BadHost),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn check(target: &str, headers: &[(header::HeaderName, &[u8])]) -> Result<(), NameError> {
        let listener = HttpListener {
            hosts: vec!["gate.example.com".parse().unwrap(), "10.0.0.5:8787".parse().unwrap()],
            origins: vec![
                "https://app.example.com".parse().unwrap(),
                "http://localhost:3000".parse().unwrap(),
            ],
            ..HttpListener::default()
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        Names::of(&listener).check(&target.parse().unwrap(), &map)
    }

    fn named(host: &[u8]) -> Result<(), NameError> {
        check("/mcp", &[(header::HOST, host)])
    }

    fn from(origin: &[u8]) -> Result<(), NameError> {
        check("/mcp", &[(header::HOST, b"localhost"), (header::ORIGIN, origin)])
    }

    #[test]
    fn loopback_names_pass_on_any_port_and_listed_names_as_they_are_listed() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:8787", "[::1]:9", "gate.example.com:443"] {
            assert_eq!(named(host.as_bytes()), Ok(()), "{host}");
        }
        assert_eq!(named(b"10.0.0.5:8787"), Ok(()));
        for host in ["10.0.0.5", "10.0.0.5:8788", "localhost.", "localhost.evil.com", "127.0.0.2", "evil.com"]
        {
            assert_eq!(named(host.as_bytes()), Err(NameError::ForeignHost), "{host}");
        }
    }

    #[test]
    fn a_request_names_exactly_one_host_that_can_be_read() {
        assert_eq!(check("/mcp", &[]), Err(NameError::BadHost));
        let twice = [(header::HOST, b"localhost".as_slice()), (header::HOST, b"localhost")];
        assert_eq!(check("/mcp", &twice), Err(NameError::BadHost));
        for host in [b"".as_slice(), b"a@localhost", b"localhost:x", b"localhost, evil.com", b"\xff"] {
            assert_eq!(named(host), Err(NameError::BadHost));
        }
    }

    #[test]
    fn an_absolute_target_counts_as_the_host() {
        let local = (header::HOST, b"localhost".as_slice());
        assert_eq!(check("http://localhost/mcp", std::slice::from_ref(&local)), Ok(()));
        assert_eq!(check("http://localhost/mcp", &[]), Ok(()));
        assert_eq!(check("http://evil.com/mcp", &[]), Err(NameError::ForeignHost));
        assert_eq!(check("http://evil.com/mcp", std::slice::from_ref(&local)), Err(NameError::BadHost));
        assert_eq!(check("http://a@localhost/mcp", &[local]), Err(NameError::BadHost));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn what_passes_for_loopback_is_loopback_to_a_url_parser_too(
            parts in vec(select(PARTS.as_slice()), 1..6)
        ) {
            let host = parts.concat();
            if let Ok(value) = HeaderValue::from_str(&host)
                && named(value.as_bytes()).is_ok()
                && !host.starts_with("gate.") && !host.starts_with("10.")
            {
                let url = url::Url::parse(&format!("http://{host}/")).unwrap();
                let loopback = match url.host().unwrap() {
                    url::Host::Domain(name) => name == "localhost",
                    url::Host::Ipv4(address) => address.is_loopback(),
                    url::Host::Ipv6(address) => address.is_loopback(),
                };
                prop_assert!(loopback && url.username().is_empty(), "{host}");
            }
        }
    }

    const PARTS: [&str; 24] = [
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "::1",
        "[",
        "]",
        ":",
        ":80",
        ":0080",
        "1",
        "0",
        ".",
        "@",
        "%",
        "%2e",
        "/",
        "\\",
        "?",
        "#",
        "evil.example.com",
        "\t",
        " ",
    ];

    #[test]
    fn an_origin_passes_only_if_scheme_host_and_port_are_listed() {
        for origin in ["https://app.example.com", "https://app.example.com:443", "http://localhost:3000"] {
            assert_eq!(from(origin.as_bytes()), Ok(()), "{origin}");
        }
        let others =
            ["null", "", "http://app.example.com", "https://app.example.com:8443", "http://localhost"];
        for origin in others.into_iter().chain(["https://evil.com", "https://app.example.com.evil.com"]) {
            assert_eq!(from(origin.as_bytes()), Err(NameError::ForeignOrigin), "{origin}");
        }
        let app = b"https://app.example.com".as_slice();
        let twice = [(header::HOST, b"localhost".as_slice()), (header::ORIGIN, app), (header::ORIGIN, app)];
        assert_eq!(check("/mcp", &twice), Err(NameError::ForeignOrigin));
    }
}
