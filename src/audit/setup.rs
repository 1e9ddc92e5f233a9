//! What the logs of a state folder share: the name they sign under, and their keys.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    LogError,
    key::{PrivateKey, PublicKey},
    side::SideKey,
};
use crate::{manifest::LogOrigin, store::place_once};

/// What the operator set, with its secrets read.
#[derive(Debug, Default)]
pub struct Keys {
    /// The name that logs sign under.
    pub origin: Option<LogOrigin>,
    /// The private key that signs checkpoints.
    pub checkpoint: Option<SecretString>,
    /// Public keys that signed before it.
    pub previous: Vec<String>,
    /// The key of the encrypted store, in base64.
    pub bodies: Option<SecretString>,
}

/// The keys that a log works with.
#[derive(Debug)]
pub(super) struct Setup {
    /// The name that all logs of the folder sign under.
    pub(super) base: String,
    pub(super) signing: PrivateKey,
    pub(super) previous: Vec<PublicKey>,
    pub(super) bodies: SideKey,
}

const ORIGIN: &str = "origin";
const CHECKPOINT_KEY: &str = "checkpoint.key";
const BODIES_KEY: &str = "side.key";
const PUBLIC_KEYS: &str = "keys.pub";

/// None of these files is longer.
const FILE_BYTES_MAX: u64 = 64 << 10;

impl Setup {
    /// Takes what is set, and makes what is not, once for each state folder.
    pub(super) fn open(folder: &Path, keys: &Keys) -> Result<Self, LogError> {
        fs::create_dir_all(folder).map_err(|source| LogError::io(folder, source))?;
        let signing = keys.checkpoint.as_ref().map(PrivateKey::parse).transpose()?;
        let base = base(folder, keys.origin.as_ref(), signing.as_ref())?;
        let signing = match signing {
            Some(key) => key,
            None => {
                let path = folder.join(CHECKPOINT_KEY);
                let made = kept(&path, || Ok(PrivateKey::generate(&base)?.encoded()))?;
                PrivateKey::parse(&made).map_err(|source| LogError::KeyFile { path, source })?
            }
        };
        if signing.public().name() != base {
            return Err(LogError::KeyName { key: signing.public().name().to_owned(), origin: base });
        }
        let previous = keys.previous.iter().map(|key| PublicKey::parse(key)).collect::<Result<_, _>>()?;
        let bodies = match &keys.bodies {
            Some(text) => SideKey::parse(text).ok_or(LogError::BodiesKey)?,
            None => SideKey::open(&folder.join(BODIES_KEY))?,
        };
        publish(&folder.join(PUBLIC_KEYS), &signing.public().encoded())?;
        Ok(Self { base, signing, previous, bodies })
    }
}

/// The name that the logs of a folder sign under: what is set, else what the key is named, else a random one.
fn base(folder: &Path, set: Option<&LogOrigin>, key: Option<&PrivateKey>) -> Result<String, LogError> {
    if let Some(set) = set {
        return Ok(set.as_str().to_owned());
    }
    if let Some(key) = key {
        return Ok(key.public().name().to_owned());
    }
    let path = folder.join(ORIGIN);
    let text = kept(&path, || {
        let mut random = [0; 8];
        rand::fill(&mut random).map_err(|_| super::key::KeyError::Random)?;
        Ok(format!("callgate.local/{}", hex::encode(random)).into())
    })?;
    let origin = LogOrigin::parse(text.expose_secret().trim());
    origin.map(|origin| origin.as_str().to_owned()).map_err(|reason| LogError::Origin { path, reason })
}

/// The content of a file that is made once, and is the same for all who come later.
fn kept(
    path: &Path,
    make: impl FnOnce() -> Result<SecretString, super::key::KeyError>,
) -> Result<SecretString, LogError> {
    let failed = |source| LogError::io(path, source);
    if !path.exists() {
        let line = SecretString::from(format!("{}\n", make()?.expose_secret()));
        place_once(path, line.expose_secret().as_bytes()).map_err(failed)?;
    }
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "too long for what it should hold")));
    }
    Ok(fs::read_to_string(path).map_err(failed)?.into())
}

/// Lists a public key with those that signed before, for whoever verifies without one of his own.
fn publish(path: &Path, key: &str) -> Result<(), LogError> {
    let failed = |source| LogError::io(path, source);
    let listed = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        listed => listed.map_err(failed)?,
    };
    if listed.lines().any(|line| line == key) {
        return Ok(());
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options.append(true).create(true).open(path).map_err(failed)?;
    file.write_all(format!("{key}\n").as_bytes()).map_err(failed)
}

/// Where the public keys of a state folder are listed.
#[must_use]
pub fn public_keys(state: &Path) -> PathBuf {
    state.join("audit").join(PUBLIC_KEYS)
}

/// Where the key of a state folder's side stores is, unless the operator names another.
#[must_use]
pub fn side_key(state: &Path) -> PathBuf {
    state.join("audit").join(BODIES_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_made_once_and_is_the_same_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let setups: Vec<_> = std::thread::scope(|scope| {
            let open = || Setup::open(folder.path(), &Keys::default()).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let first = &setups[0];
        assert!(first.base.starts_with("callgate.local/"), "{}", first.base);
        for other in &setups {
            assert_eq!(other.base, first.base);
            assert_eq!(other.signing.public(), first.signing.public());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "no drafts are left");
    }

    #[cfg(unix)]
    #[test]
    fn private_keys_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        Setup::open(folder.path(), &Keys::default()).unwrap();
        for name in [CHECKPOINT_KEY, BODIES_KEY] {
            let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_key_of_another_name_than_the_origin_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate("gate.example.com/prod").unwrap();
        let keys = |origin: Option<&str>| Keys {
            origin: origin.map(|origin| LogOrigin::parse(origin).unwrap()),
            checkpoint: Some(key.encoded()),
            ..Keys::default()
        };
        assert_eq!(Setup::open(folder.path(), &keys(None)).unwrap().base, "gate.example.com/prod");
        insta::assert_snapshot!(
            Setup::open(folder.path(), &keys(Some("other"))).unwrap_err(),
            @"the checkpoint key is named `gate.example.com/prod`, and the origin is `other`: both name the same logs"
        );
    }
}
