//! What witnesses have cosigned of a log, kept in the log's folder.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{HeadError, WitnessKey, merge};

/// What each witness has cosigned last.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessState {
    /// By the key's name and id.
    witnesses: BTreeMap<String, Seen>,
}

/// What a witness has cosigned.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The size of the tree.
    pub size: u64,
    /// Its root, in base64 in the file.
    #[serde(with = "root")]
    pub root: [u8; 32],
    /// When the witness says it was, in Unix seconds.
    pub time: u64,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be read or written.
    #[error("`{}` cannot be used: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("`{}` is damaged: {source}; without it, each witness is asked what it has seen", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A note is no checkpoint.
    #[error("the file `{what}` of the log: {source}")]
    Head {
        /// The file's name.
        what: &'static str,
        /// What is wrong.
        source: HeadError,
    },
}

impl WitnessState {
    /// Reads the state of a log. Where there is none yet, nobody has seen anything.
    ///
    /// # Errors
    /// When the file cannot be read, or is damaged.
    pub fn load(folder: &Path) -> Result<Self, StateError> {
        let path = folder.join(STATE);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(StateError::Io { path, source }),
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| StateError::Damaged { path, source })
            }
        }
    }

    /// The newest size that any witness has cosigned.
    #[must_use]
    pub fn witnessed(&self) -> Option<u64> {
        self.witnesses.values().map(|seen| seen.size).max()
    }

    /// What one witness has cosigned.
    #[must_use]
    pub fn seen(&self, key: &WitnessKey) -> Option<&Seen> {
        self.witnesses.get(&key.label())
    }

    /// All that witnesses have cosigned, by the names and ids of their keys.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Seen)> {
        self.witnesses.iter().map(|(label, seen)| (label.as_str(), seen))
    }

    pub(super) fn set(&mut self, key: &WitnessKey, seen: Seen) {
        self.witnesses.insert(key.label(), seen);
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), StateError> {
        let path = folder.join(STATE);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| StateError::Damaged { path: path.clone(), source })?;
        replace(&path, &bytes).map_err(|source| StateError::Io { path, source })
    }
}

const STATE: &str = "witness.json";
const COSIGNATURES: &str = "cosignatures";

/// Adds cosignatures to the newest cosigned checkpoint.
pub(super) fn keep_cosignatures(folder: &Path, checkpoint: &str, lines: &[String]) -> Result<(), StateError> {
    let path = folder.join(COSIGNATURES);
    let stored = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        stored => Some(stored.map_err(|source| StateError::Io { path: path.clone(), source })?),
    };
    let merged = merge(stored.as_deref(), checkpoint, lines)
        .map_err(|source| StateError::Head { what: COSIGNATURES, source })?;
    replace(&path, merged.as_bytes()).map_err(|source| StateError::Io { path, source })
}

/// Replaces a file: whole, or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

mod root {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(root: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(root))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let root = STANDARD.decode(text).ok().and_then(|root| root.try_into().ok());
        root.ok_or_else(|| D::Error::custom("a root has 32 bytes in base64"))
    }
}
