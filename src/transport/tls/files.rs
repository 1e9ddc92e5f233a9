//! The files that TLS is made of, and what is wrong with them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use secrecy::ExposeSecret as _;

use super::certificate;
use crate::{
    credential::{CredentialError, read_secret},
    manifest::{ClientCertificates, SecretRef, TlsSpec},
};

/// A larger file holds no certificates that a person chose.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why TLS cannot be spoken: which file, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates cannot be read.
    #[error("cannot read `{}`: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Which setting names it.
        setting: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// A file of certificates holds none.
    #[error("`{}` holds no certificate in PEM: one begins with `-----BEGIN CERTIFICATE-----`", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// Which setting names it.
        setting: &'static str,
    },
    /// A certificate is damaged, or of no kind that is read here.
    #[error("`{}` holds a certificate that cannot be used: an X.509 certificate of version 3 was expected", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Which setting names it.
        setting: &'static str,
    },
    /// The key cannot be read, or others can read it.
    #[error(transparent)]
    Key(#[from] CredentialError),
    /// What should be the key is none.
    #[error(
        "`{0}` holds no private key in PEM: one without a passphrase was expected, of RSA, ECDSA or Ed25519"
    )]
    NoKey(SecretRef),
    /// The key is another certificate's.
    #[error("the key `{key}` does not fit the certificate `{}`", certificate.display())]
    Misfit {
        /// The key.
        key: SecretRef,
        /// The certificate.
        certificate: PathBuf,
    },
    /// Certificates are asked for, and nobody's are taken.
    #[error("`client-certificates` needs `client-ca`: the authorities whose certificates are taken")]
    NoAuthority,
    /// The parts do not make a whole.
    #[error("TLS cannot be set up: {0}")]
    Other(rustls::Error),
}

impl TlsError {
    /// The setting of `tls:` that is wrong.
    #[must_use]
    pub const fn setting(&self) -> &'static str {
        match self {
            Self::Unreadable { setting, .. }
            | Self::NoCertificate { setting, .. }
            | Self::BadCertificate { setting, .. } => setting,
            Self::Key(_) | Self::NoKey(_) | Self::Misfit { .. } => "key",
            Self::NoAuthority => "client-certificates",
            Self::Other(_) => "certificate",
        }
    }

    /// Whether the file is not there at all, as on a machine that serves nobody.
    pub(in crate::transport) fn is_absence(&self) -> bool {
        matches!(self, Self::Unreadable { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads everything, and makes of it what new connections are greeted with.
pub(super) fn config(spec: &TlsSpec, base: &Path) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = certificates(&base.join(&spec.certificate), "certificate")?;
    let verifier = verifier(spec, base, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Other)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key(spec, base)?).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Misfit { key: spec.key.clone(), certificate: spec.certificate.clone() }
        }
        rustls::Error::InvalidCertificate(_) => {
            TlsError::BadCertificate { path: base.join(&spec.certificate), setting: "certificate" }
        }
        rustls::Error::General(_) => TlsError::NoKey(spec.key.clone()),
        error => TlsError::Other(error),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would carry a certificate that was verified at another time, by other files.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn verifier(
    spec: &TlsSpec,
    base: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(authorities) = authorities(spec, base)? else { return Ok(None) };
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(provider));
    let builder = match spec.client_certificates.unwrap_or(ClientCertificates::Accept) {
        ClientCertificates::Accept => builder.allow_unauthenticated(),
        ClientCertificates::Require => builder,
    };
    let verifier = builder.build();
    verifier.map(Some).map_err(|error| TlsError::Other(rustls::Error::General(error.to_string())))
}

fn authorities(spec: &TlsSpec, base: &Path) -> Result<Option<RootCertStore>, TlsError> {
    let Some(path) = &spec.client_ca else {
        return if spec.client_certificates.is_some() { Err(TlsError::NoAuthority) } else { Ok(None) };
    };
    let (path, setting) = (base.join(path), "client-ca");
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(&path, setting)? {
        authorities.add(certificate).map_err(|_| TlsError::BadCertificate { path: path.clone(), setting })?;
    }
    Ok(Some(authorities))
}

/// The certificates of a file, one at least.
fn certificates(path: &Path, setting: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = || {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
        }
        fs::read(path)
    };
    let bytes = read().map_err(|error| TlsError::Unreadable { path: path.to_owned(), setting, error })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|_| TlsError::BadCertificate { path: path.to_owned(), setting })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned(), setting });
    }
    Ok(found)
}

fn key(spec: &TlsSpec, base: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let secret = read_secret(&spec.key, base)?;
    PrivateKeyDer::from_pem_slice(secret.expose_secret().as_bytes())
        .map_err(|_| TlsError::NoKey(spec.key.clone()))
}

/// What is doubtful about the files: a problem each, and whether it keeps TLS from being spoken.
#[derive(Debug)]
pub(in crate::transport) enum Doubt {
    /// It cannot be spoken.
    Error(TlsError),
    /// Clients will not like it: a setting, and a sentence.
    Warning(&'static str, String),
}

/// Looks at the files without serving. The key is read only where secrets are.
pub(in crate::transport) fn doubts(spec: &TlsSpec, base: &Path, with_key: bool) -> Vec<Doubt> {
    let chain = certificates(&base.join(&spec.certificate), "certificate");
    let authorities = authorities(spec, base);
    let is_whole = chain.is_ok() && authorities.is_ok();
    let mut doubts = match &chain {
        Ok(chain) => stale(chain, &spec.certificate),
        Err(_) => Vec::new(),
    };
    doubts.extend(chain.err().map(Doubt::Error));
    doubts.extend(authorities.err().map(Doubt::Error));
    if with_key && is_whole {
        doubts.extend(config(spec, base).err().map(Doubt::Error));
    } else if with_key {
        doubts.extend(key(spec, base).err().map(Doubt::Error));
    }
    doubts
}

/// A warning for each certificate that does not hold today.
fn stale(chain: &[CertificateDer<'_>], path: &Path) -> Vec<Doubt> {
    let (now, path) = (Timestamp::now(), path.display());
    let mut doubts = Vec::new();
    for dated in chain.iter().filter_map(|der| certificate::read(der)) {
        let subject = &dated.certificate.subject;
        if dated.until < now {
            let text = format!("the certificate of `{subject}` in `{path}` expired at {}", dated.until);
            doubts.push(Doubt::Warning("certificate", text));
        } else if dated.from > now {
            let text = format!("the certificate of `{subject}` in `{path}` holds from {} on", dated.from);
            doubts.push(Doubt::Warning("certificate", text));
        }
    }
    doubts
}

/// What the files look like from outside. A change of permissions counts, since it may make a key usable.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

#[cfg(unix)]
type Stamp = (u64, u64, u64, [i64; 4]);

#[cfg(not(unix))]
type Stamp = (u64, Option<std::time::SystemTime>);

impl Stamps {
    pub(super) fn of(spec: &TlsSpec, base: &Path) -> Self {
        let key = match &spec.key {
            SecretRef::File(path) => Some(path),
            SecretRef::Env(_) | SecretRef::Vault(_) => None,
        };
        let paths = [Some(&spec.certificate), key, spec.client_ca.as_ref()];
        let stamp = |path: &PathBuf| fs::metadata(base.join(path)).ok().map(|metadata| stamp(&metadata));
        Self(paths.into_iter().flatten().map(stamp).collect())
    }
}

#[cfg(unix)]
fn stamp(metadata: &fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    (metadata.dev(), metadata.ino(), metadata.size(), times)
}

#[cfg(not(unix))]
fn stamp(metadata: &fs::Metadata) -> Stamp {
    (metadata.len(), metadata.modified().ok())
}
