//! What is wrong, or doubtful, with how the listener is set up.

use std::path::Path;

use super::tls::{Doubt, doubts};
use crate::{
    manifest::{HttpListener, Place, Problem, Source},
    rules::Secrets,
};

/// Looks at `listen: http:`, and at the files that it names. `base` is what their paths are relative to.
///
/// Without secrets, a file that is not there is only pointed out: it may be on the machine that serves.
#[must_use]
pub fn problems(listener: &HttpListener, source: &Source, base: &Path, secrets: Secrets) -> Vec<Problem> {
    let is_served_here = matches!(secrets, Secrets::Required);
    let Some(tls) = &listener.tls else { return in_the_clear(listener, source).into_iter().collect() };
    let problem = |doubt| match doubt {
        Doubt::Warning(setting, text) => Problem::warning(source, below(setting), text),
        Doubt::Error(error) if error.is_absence() && !is_served_here => {
            Problem::warning(source, below(error.setting()), error.to_string())
        }
        Doubt::Error(error) => Problem::error(source, below(error.setting()), error.to_string()),
    };
    doubts(tls, base, is_served_here).into_iter().map(problem).collect()
}

fn below(setting: &str) -> Place {
    Place::below("/listen/http/tls", setting)
}

/// Keys that travel to another machine in plain HTTP can be read on the way.
fn in_the_clear(listener: &HttpListener, source: &Source) -> Option<Problem> {
    let address = listener.address;
    (!address.ip().to_canonical().is_loopback()).then(|| {
        let message = format!("`{address}` can be reached from other machines, in plain HTTP");
        Problem::warning(source, Place::below("/listen/http", "address"), message)
            .help("set `tls`, or listen on loopback behind a proxy that speaks TLS")
    })
}
