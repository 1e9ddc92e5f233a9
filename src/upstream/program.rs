//! Where upstreams are, made of what `callgate.yaml` says; and that their programs are those that were reviewed.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use super::{Bounds, Endpoint, HttpEndpoint, Program};
use crate::{
    credential::{CredentialError, LiveSecret, LiveSecrets, read_secret},
    egress::{Allowances, Egress},
    manifest::{Digest, EnvValue, ProgramSpec, ServiceName, UpstreamSpec},
};

/// A larger file is not a program.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Why an upstream cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum EndpointFault {
    /// Its program is not there.
    #[error("the upstream `{upstream}`: there is no program `{command}`")]
    NoProgram {
        /// The upstream.
        upstream: ServiceName,
        /// What was looked for.
        command: String,
    },
    /// A secret of its environment cannot be read.
    #[error("the upstream `{upstream}`: `{variable}`: {error}")]
    Secret {
        /// The upstream.
        upstream: ServiceName,
        /// The variable.
        variable: String,
        /// Why.
        error: Box<CredentialError>,
    },
    /// It is neither a program nor a server, or its egress is none.
    #[error("the upstream `{upstream}` is neither a program nor a server")]
    Neither {
        /// The upstream.
        upstream: ServiceName,
    },
}

/// An endpoint, and the secrets that are registered for as long as it is held.
#[derive(Debug)]
pub struct Reached {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Bounds on its connections.
    pub bounds: Bounds,
    /// Its secrets.
    pub secrets: Vec<LiveSecret>,
}

impl Reached {
    /// The endpoint of an upstream; `base` is the folder of `callgate.yaml`.
    ///
    /// # Errors
    /// When its program or one of its secrets is not there.
    pub fn new(
        name: &ServiceName,
        spec: &UpstreamSpec,
        base: &Path,
        egress: &Egress,
        live: &LiveSecrets,
    ) -> Result<Self, EndpointFault> {
        let mut secrets = Vec::new();
        let endpoint = match (&spec.stdio, &spec.http) {
            (Some(program), None) => Endpoint::Stdio(resolve(name, program, base, |variable, secret| {
                secrets.push(live.insert(&format!("upstream {name} {variable}"), secret));
            })?),
            (None, Some(remote)) => {
                let allowances = Allowances::new(&remote.egress);
                let allowances = allowances.map_err(|_| EndpointFault::Neither { upstream: name.clone() })?;
                Endpoint::Http(HttpEndpoint { url: remote.url.url().clone(), way: egress.way(&allowances) })
            }
            _ => return Err(EndpointFault::Neither { upstream: name.clone() }),
        };
        let bounds = Bounds {
            message_bytes_max: spec.response.bytes(),
            values_max: spec.values.get(),
            ..Bounds::default()
        };
        Ok(Self { endpoint, bounds, secrets })
    }
}

fn resolve(
    name: &ServiceName,
    spec: &ProgramSpec,
    base: &Path,
    mut register: impl FnMut(&str, &SecretString),
) -> Result<Program, EndpointFault> {
    let missing = || EndpointFault::NoProgram { upstream: name.clone(), command: spec.command.clone() };
    let command = find_program(&spec.command, base).ok_or_else(missing)?;
    // What a program is started with does not depend on where the gate was started.
    let dir = absolute(&base.join(&spec.dir));
    let mut env = BTreeMap::new();
    // Programs that start others need it, and it says nothing that they could not find out.
    if let Some(path) = env::var_os("PATH") {
        env.insert("PATH".to_owned(), path.to_string_lossy().into_owned().into());
    }
    for (variable, value) in &spec.env {
        let value = match value {
            EnvValue::Plain(text) => text.clone().into(),
            EnvValue::Secret(reference) => {
                let fault = |error| EndpointFault::Secret {
                    upstream: name.clone(),
                    variable: variable.clone(),
                    error: Box::new(error),
                };
                let secret = read_secret(reference, base).map_err(fault)?;
                register(variable, &secret);
                secret
            }
        };
        env.insert(variable.clone(), value);
    }
    let of_files = spec.files.iter().map(|(path, digest)| (dir.join(path), *digest));
    let pinned = spec.digest.iter().map(|digest| (command.clone(), *digest)).chain(of_files).collect();
    Ok(Program { name: Arc::from(name.as_str()), command, args: spec.args.clone(), env, dir, pinned })
}

/// Finds a program: a path relative to `base`, or a name in `PATH`.
#[must_use]
pub fn find_program(command: &str, base: &Path) -> Option<PathBuf> {
    if command.contains('/') {
        return Some(absolute(&base.join(command))).filter(|path| is_program(path));
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(command))
        .find(|path| is_program(path))
        .map(|path| absolute(&path))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// The digest of a file.
///
/// # Errors
/// When it cannot be read, or is no file that a person would pin.
pub fn file_digest(path: &Path) -> io::Result<Digest> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut file = File::open(path)?.take(FILE_BYTES_MAX + 1);
    let (mut hash, mut buffer, mut total) = (Sha256::new(), vec![0; 1 << 16], 0_u64);
    loop {
        let read = file.read(&mut buffer)?;
        total += read as u64;
        match buffer.get(..read) {
            None | Some([]) => break,
            Some(_) if total > FILE_BYTES_MAX => return Err(io::Error::other("it is too large")),
            Some(bytes) => hash.update(bytes),
        }
    }
    Ok(Digest::from_bytes(hash.finalize().into()))
}

impl Program {
    /// The first of its files that is not what was reviewed.
    pub(super) fn altered(&self) -> Option<&Path> {
        let altered = |(path, digest): &&(PathBuf, Digest)| file_digest(path).ok() != Some(*digest);
        self.pinned.iter().find(altered).map(|(path, _)| path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_a_file_that_can_be_run_by_its_path_or_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes"), "x").unwrap();
        assert_eq!(find_program("./notes", folder.path()), None);
        assert_eq!(find_program("notes", folder.path()), None);
        assert_eq!(find_program("./", folder.path()), None);
        assert!(find_program("sh", folder.path()).unwrap().is_absolute());
        assert_eq!(find_program("/bin/sh", folder.path()), Some("/bin/sh".into()));
    }

    #[test]
    fn the_digest_of_a_file_is_that_of_its_bytes_however_many() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 1, 65_535, 65_536, 65_537, 200_000] {
            let bytes = vec![7; size];
            fs::write(folder.path().join("f"), &bytes).unwrap();
            assert_eq!(file_digest(&folder.path().join("f")).unwrap(), Digest::of(&bytes));
        }
        assert!(file_digest(folder.path()).is_err());
        assert!(file_digest(&folder.path().join("none")).is_err());
    }
}
