//! Where services are, and what their egress allows.

use super::Files;
use crate::{
    egress::Allowances,
    manifest::{Place, Problem, ServiceName, ServiceSpec, Source, join_pointer},
};

/// Every service's egress is sensible, and allows the service's own URL as far as that shows.
pub(super) fn check(files: &Files, problems: &mut Vec<Problem>) {
    let (source, server) = &files.server;
    if server.dns.as_ref().is_some_and(|dns| dns.servers.is_empty()) {
        let problem = Problem::error(source, Place::Pointer("/dns/servers".into()), "no server is named");
        problems.push(problem.help("name one, or leave `dns` out: then the system is asked"));
    }
    for (name, service) in &server.services {
        check_service(source, name, service, problems);
    }
}

fn check_service(source: &Source, name: &ServiceName, service: &ServiceSpec, problems: &mut Vec<Problem>) {
    let pointer = join_pointer("/services", name.as_str());
    match Allowances::new(&service.egress) {
        Err(errors) => problems.extend(errors.into_iter().map(|error| {
            let (key, at) = error.place();
            let place = Place::Pointer(format!("{pointer}/egress/{key}/{at}"));
            Problem::error(source, place, error.to_string())
        })),
        Ok(allowances) => {
            let Err((refusal, address)) = allowances.judge_host(service.url.url()) else { return };
            let place = Place::below(&pointer, "url");
            let mut problem = Problem::error(source, place, format!("the service `{name}`: {refusal}"));
            problem.help = refusal.help(address);
            problems.push(problem);
        }
    }
}
