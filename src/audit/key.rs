//! The keys that sign heads: one pair for all logs of a state folder, under each log's own name.

use std::fmt;

use aws_lc_rs::{hmac, rand};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{SigningKey, VerifyingKey};
use secrecy::{ExposeSecret as _, SecretString};
use signed_note::{
    Note, Signature, Signer as _, StandardSigner, StandardVerifier, VerifierList, is_key_name_valid, key_id,
    new_ed25519_verifier_key,
};

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is no private key for signed notes.
    #[error(
        "the private key is not of the form `PRIVATE+KEY+<name>+<id>+<base64>` of a signed note's Ed25519 key"
    )]
    Private,
    /// It is no public key for signed notes.
    #[error(
        "the public key `{key}` is not of the form `<name>+<id>+<base64>` of a signed note's Ed25519 key"
    )]
    Public {
        /// The key.
        key: String,
    },
    /// A name that no key can have.
    #[error(
        "`{name}` names no key or log: it has to have 1 to {NAME_BYTES_MAX} bytes, without spaces, control characters or `+`"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// The longest name of a key or a log.
const NAME_BYTES_MAX: usize = 1_024;
const ALGORITHM_ED25519: u8 = 1;

/// The key that signs.
pub(super) struct PrivateKey {
    name: String,
    key: SigningKey,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public().encoded()).finish_non_exhaustive()
    }
}

impl PrivateKey {
    /// Reads the form `PRIVATE+KEY+<name>+<id>+<base64>`.
    pub(super) fn parse(encoded: &SecretString) -> Result<Self, KeyError> {
        let encoded = encoded.expose_secret().trim();
        // This checks the name and the id.
        StandardSigner::new(encoded).map_err(|_| KeyError::Private)?;
        let mut parts = encoded.splitn(5, '+').skip(2);
        let name = parts.next().ok_or(KeyError::Private)?;
        let bytes = parts.nth(1).and_then(|text| STANDARD.decode(text).ok()).ok_or(KeyError::Private)?;
        let seed = bytes.get(1..).and_then(|seed| seed.try_into().ok()).ok_or(KeyError::Private)?;
        Ok(Self { name: checked(name)?.to_owned(), key: SigningKey::from_bytes(seed) })
    }

    /// Makes a new key.
    pub(super) fn generate(name: &str) -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        rand::fill(&mut seed).map_err(|_| KeyError::Random)?;
        Self::from_seed(name, seed)
    }

    /// The key of a seed; for tests and simulations that have to come out the same each time.
    pub(super) fn from_seed(name: &str, seed: [u8; 32]) -> Result<Self, KeyError> {
        Ok(Self { name: checked(name)?.to_owned(), key: SigningKey::from_bytes(&seed) })
    }

    /// The form that [`Self::parse`] reads.
    pub(super) fn encoded(&self) -> SecretString {
        self.encoded_as(&self.name)
    }

    /// The key that checks what this one signs.
    pub(super) fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// The same key for one log.
    pub(super) fn for_log(&self, origin: &str) -> Result<LogKey, KeyError> {
        let signer = StandardSigner::new(self.encoded_as(checked(origin)?).expose_secret())
            .map_err(|_| KeyError::Private)?;
        let seed = hmac::Key::new(hmac::HMAC_SHA256, self.key.as_bytes());
        let tags = hmac::sign(&seed, format!("callgate record chain 1\n{origin}").as_bytes());
        Ok(LogKey {
            origin: origin.to_owned(),
            signer,
            tags: hmac::Key::new(hmac::HMAC_SHA256, tags.as_ref()),
            public: self.public(),
        })
    }

    fn encoded_as(&self, name: &str) -> SecretString {
        let public = [&[ALGORITHM_ED25519], self.key.verifying_key().as_bytes().as_slice()].concat();
        let private = [&[ALGORITHM_ED25519], self.key.as_bytes().as_slice()].concat();
        format!("PRIVATE+KEY+{name}+{:08x}+{}", key_id(name, &public), STANDARD.encode(private)).into()
    }
}

/// A key that checks what was signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PublicKey {
    name: String,
    key: VerifyingKey,
}

impl PublicKey {
    /// Reads the form `<name>+<id>+<base64>`.
    pub(super) fn parse(encoded: &str) -> Result<Self, KeyError> {
        let encoded = encoded.trim();
        let failed = || KeyError::Public { key: encoded.to_owned() };
        // This checks the name and the id.
        StandardVerifier::new(encoded).map_err(|_| failed())?;
        let (name, rest) = encoded.split_once('+').ok_or_else(failed)?;
        let (_, bytes) = rest.split_once('+').ok_or_else(failed)?;
        let bytes = STANDARD.decode(bytes).map_err(|_| failed())?;
        let bytes = bytes.get(1..).and_then(|bytes| bytes.try_into().ok()).ok_or_else(failed)?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| failed())?;
        Ok(Self { name: checked(name)?.to_owned(), key })
    }

    /// The form that [`Self::parse`] reads.
    pub(super) fn encoded(&self) -> String {
        new_ed25519_verifier_key(&self.name, &self.key)
    }

    /// The name of the key.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The same key for one log.
    fn for_log(&self, origin: &str) -> Result<StandardVerifier, KeyError> {
        let encoded = new_ed25519_verifier_key(origin, &self.key);
        StandardVerifier::new(&encoded).map_err(|_| KeyError::Public { key: encoded })
    }
}

/// The key of one log: it signs heads, and ties frames together.
pub(super) struct LogKey {
    origin: String,
    signer: StandardSigner,
    tags: hmac::Key,
    public: PublicKey,
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogKey").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl LogKey {
    /// The log's origin: the first line of its heads, and the name that they are signed by.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// The key of the tags.
    pub(super) const fn tags(&self) -> &hmac::Key {
        &self.tags
    }

    /// Signs a note's text.
    pub(super) fn sign(&self, text: &[u8]) -> Option<Note> {
        let mut note = Note::new(text, &[]).ok()?;
        note.add_sigs(&[&self.signer]).ok()?;
        Some(note)
    }

    /// The keys whose signatures count: this one, and others that signed here before.
    pub(super) fn trusting(&self, others: &[PublicKey]) -> Result<Trusted, KeyError> {
        let mut keys: Vec<&PublicKey> = vec![&self.public];
        for other in others {
            // The same key under another name would make the list ambiguous.
            if keys.iter().all(|key| key.key != other.key) {
                keys.push(other);
            }
        }
        let verifiers: Vec<_> =
            keys.into_iter().map(|key| key.for_log(&self.origin)).collect::<Result<_, _>>()?;
        let others = verifiers
            .iter()
            .map(signed_note::Verifier::key_id)
            .filter(|id| *id != self.signer.key_id())
            .collect();
        let verifiers =
            verifiers.into_iter().map(|verifier| Box::new(verifier) as Box<dyn signed_note::Verifier>);
        Ok(Trusted { origin: self.origin.clone(), others, verifiers: VerifierList::new(verifiers.collect()) })
    }
}

/// The keys that may have signed a log's heads.
pub(super) struct Trusted {
    origin: String,
    others: Vec<u32>,
    verifiers: VerifierList,
}

impl fmt::Debug for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trusted").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Trusted {
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// A note, if one of the keys has signed it.
    pub(super) fn verified(&self, note: &[u8]) -> Option<Note> {
        let note = Note::from_bytes(note).ok()?;
        note.verify(&self.verifiers).ok()?;
        Some(note)
    }

    /// Whether a note says that a key signed it which is known but is not the one that signs now. Not checked.
    pub(super) fn claims_other(&self, note: &[u8]) -> bool {
        note.split(|byte| *byte == b'\n')
            .filter_map(|line| Signature::from_bytes(line).ok())
            .any(|sig| sig.name() == self.origin && self.others.contains(&sig.id()))
    }
}

fn checked(name: &str) -> Result<&str, KeyError> {
    let good = is_key_name_valid(name) && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    if good { Ok(name) } else { Err(KeyError::Name { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_as_they_were_written() {
        let key = PrivateKey::generate("callgate.local/00ff").unwrap();
        let again = PrivateKey::parse(&key.encoded()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(PublicKey::parse(&key.public().encoded()).unwrap(), key.public());
        let newline = SecretString::from(format!("{}\n", key.encoded().expose_secret()));
        assert_eq!(PrivateKey::parse(&newline).unwrap().public(), key.public());
    }

    #[test]
    fn forms_are_those_of_signed_notes() {
        // The example of the Go package `note`.
        let private = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
        let key = PrivateKey::parse(&private.into()).unwrap();
        assert_eq!(key.encoded().expose_secret(), private);
        assert_eq!(
            key.public().encoded(),
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        );
    }

    #[test]
    fn a_private_key_is_never_printed() {
        let key = PrivateKey::from_seed("base", [0xab; 32]).unwrap();
        let log = key.for_log("base/serve-0").unwrap();
        let encoded = key.encoded();
        let secret = encoded.expose_secret().rsplit('+').next().unwrap();
        let printed = format!("{key:?} {log:?} {:?}", key.encoded());
        assert!(!printed.contains(secret) && !printed.contains(&hex::encode([0xab; 32])), "{printed}");
        let wrong = SecretString::from(format!("PRIVATE+KEY+base+00000000+{secret}"));
        assert!(!PrivateKey::parse(&wrong).unwrap_err().to_string().contains(secret));
    }

    #[test]
    fn each_log_has_the_key_under_its_own_name() {
        let key = PrivateKey::generate("base").unwrap();
        let (one, two) = (key.for_log("base/serve-0").unwrap(), key.for_log("base/serve-1").unwrap());
        let note = one.sign(b"text\n").unwrap().to_bytes();
        assert!(one.trusting(&[]).unwrap().verified(&note).is_some());
        assert!(two.trusting(&[]).unwrap().verified(&note).is_none());
    }

    #[test]
    fn a_known_key_of_before_counts_and_an_unknown_one_does_not() {
        let (old, new) = (PrivateKey::generate("base").unwrap(), PrivateKey::generate("base").unwrap());
        let note = old.for_log("base/x").unwrap().sign(b"text\n").unwrap().to_bytes();
        let new = new.for_log("base/x").unwrap();
        assert!(new.trusting(&[]).unwrap().verified(&note).is_none());
        let trusted = new.trusting(&[old.public(), old.public()]).unwrap();
        assert!(trusted.verified(&note).is_some());
        assert!(trusted.claims_other(&note));
    }

    #[test]
    fn names_with_spaces_pluses_or_control_characters_are_refused() {
        for name in ["", "a b", "a+b", "a\nb", "a\u{7f}b", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(matches!(PrivateKey::generate(name), Err(KeyError::Name { .. })), "{name:?}");
        }
    }
}
