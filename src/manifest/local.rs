//! URLs of this machine.

use url::{Host, Url};

/// Whether a URL's host is this machine: a loopback address, or a name that `is_ours` says stands for it. Whoever
/// takes more names for this machine trusts the resolver with them.
pub(crate) fn is_this_machine(url: &Url, is_ours: impl FnOnce(&str) -> bool) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_ours(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The one name that every system takes for itself (RFC 6761 §6.3).
pub(crate) fn is_localhost_itself(name: &str) -> bool {
    name == "localhost"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_this_machine_and_names_as_they_are_asked_for() {
        let local =
            |url: &str, is_ours: fn(&str) -> bool| is_this_machine(&Url::parse(url).unwrap(), is_ours);
        for url in ["http://127.0.0.1/", "http://127.9.9.9:1/", "http://[::1]/", "http://0x7f.1/"] {
            assert!(local(url, |_| false), "{url}");
        }
        for url in
            ["http://10.0.0.1/", "http://[::]/", "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/", "data:,a"]
        {
            assert!(!local(url, |_| true), "{url}");
        }
        for (url, is_ours) in [
            ("http://localhost/", true),
            ("http://LOCALHOST/", true),
            ("http://localhost./", false),
            ("http://a.localhost/", false),
            ("http://localhost.example.com/", false),
        ] {
            assert_eq!(local(url, is_localhost_itself), is_ours, "{url}");
        }
    }
}
