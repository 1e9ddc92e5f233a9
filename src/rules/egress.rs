//! Where services and witnesses are, and what their egress allows.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use url::{Host, Url};

use super::Files;
use crate::{
    audit::witness::WitnessKey,
    egress::{Allowances, is_localhost},
    manifest::{EgressSpec, Place, Problem, Source, WitnessSpec, join_pointer},
};

/// Every service's egress is sensible, and allows the service's own URL as far as that shows.
pub(super) fn check(files: &Files, problems: &mut Vec<Problem>) {
    let (source, server) = &files.server;
    if server.dns.as_ref().is_some_and(|dns| dns.servers.is_empty()) {
        let problem = Problem::error(source, Place::Pointer("/dns/servers".into()), "no server is named");
        problems.push(problem.help("name one, or leave `dns` out: then the system is asked"));
    }
    for (name, service) in &server.services {
        let pointer = join_pointer("/services", name.as_str());
        let what = format!("the service `{name}`");
        check_way(source, &pointer, &what, ("url", service.url.url()), &service.egress, problems);
        if is_own(service.url.url(), server.listen.http.address) {
            let place = Place::Pointer(format!("{pointer}/url"));
            let message = format!("{what} is the gate itself, by `listen.http.address`");
            problems.push(Problem::error(source, place, message).help("a gate that calls itself never ends"));
        }
    }
    check_witnesses(source, &server.record.witnesses, problems);
}

/// Every witness has a key that no other has, and a place where it may be called.
fn check_witnesses(source: &Source, witnesses: &[WitnessSpec], problems: &mut Vec<Problem>) {
    let mut seen = HashSet::new();
    for (at, WitnessSpec { url, key, egress }) in witnesses.iter().enumerate() {
        let pointer = format!("/record/witnesses/{at}");
        check_way(source, &pointer, "the witness", ("url", url.url()), egress, problems);
        let place = || Place::below(&pointer, "key");
        match WitnessKey::parse(key) {
            Err(error) => problems.push(
                Problem::error(source, place(), error.to_string())
                    .help("it is the verifier key that the witness publishes: `name+id+base64`"),
            ),
            Ok(key) if !seen.insert(key.label()) => {
                let message = format!("the witness `{}` is already named", key.name());
                problems.push(Problem::error(source, place(), message));
            }
            Ok(_) => {}
        }
    }
}

/// Whether a URL leads to the gate's own listener, as far as the URL shows.
pub(super) fn is_own(url: &Url, listener: SocketAddr) -> bool {
    let own = listener.ip().to_canonical();
    let is_local = |address: IpAddr| address.is_loopback() || address.is_unspecified();
    // A listener on every address is on each loopback one, and `0.0.0.0` leads to this host.
    let meets = |address: IpAddr| {
        address == own
            || is_local(address) && is_local(own) && (address.is_unspecified() || own.is_unspecified())
    };
    let is_host = match url.host() {
        Some(Host::Ipv4(address)) => meets(address.into()),
        Some(Host::Ipv6(address)) => meets(IpAddr::from(address).to_canonical()),
        Some(Host::Domain(name)) => is_localhost(name) && is_local(own),
        None => false,
    };
    is_host && url.port_or_known_default() == Some(listener.port())
}

pub(super) fn check_way(
    source: &Source,
    pointer: &str,
    what: &str,
    (key, url): (&str, &Url),
    egress: &EgressSpec,
    problems: &mut Vec<Problem>,
) {
    match Allowances::new(egress) {
        Err(errors) => problems.extend(errors.into_iter().map(|error| {
            let (list, at) = error.place();
            let place = Place::Pointer(format!("{pointer}/egress/{list}/{at}"));
            Problem::error(source, place, error.to_string())
        })),
        Ok(allowances) => {
            let Err((refusal, address)) = allowances.judge_host(url) else { return };
            let place = Place::below(pointer, key);
            let mut problem = Problem::error(source, place, format!("{what}: {refusal}"));
            problem.help = refusal.help(address);
            problems.push(problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_the_gate_itself_is_seen() {
        for (url, listener) in [
            ("http://127.0.0.1:8787/", "127.0.0.1:8787"),
            ("https://127.0.0.1:8787/deep", "127.0.0.1:8787"),
            ("http://2130706433:8787/", "127.0.0.1:8787"),
            ("http://localhost:8787/", "127.0.0.1:8787"),
            ("http://LOCALHOST.:8787/", "[::1]:8787"),
            ("http://0.0.0.0:8787/", "127.0.0.1:8787"),
            ("http://[::1]:8787/", "[::]:8787"),
            ("http://127.0.0.9:8787/", "0.0.0.0:8787"),
            ("http://[::ffff:127.0.0.1]:8787/", "127.0.0.1:8787"),
            ("http://10.0.0.1/", "10.0.0.1:80"),
        ] {
            assert!(is_own(&url.parse().unwrap(), listener.parse().unwrap()), "{url} {listener}");
        }
        for (url, listener) in [
            ("http://127.0.0.1:8788/", "127.0.0.1:8787"),
            ("http://127.0.0.2:8787/", "127.0.0.1:8787"),
            ("http://10.0.0.1:8787/", "127.0.0.1:8787"),
            ("http://orders.example:8787/", "0.0.0.0:8787"),
            ("http://notlocalhost:8787/", "127.0.0.1:8787"),
            ("http://127.0.0.1/", "127.0.0.1:0"),
        ] {
            assert!(!is_own(&url.parse().unwrap(), listener.parse().unwrap()), "{url} {listener}");
        }
    }
}
