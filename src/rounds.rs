//! Calls that ask their caller something first, and are made again with the answers (MCP 2026-07-28,
//! "Multi Round-Trip Requests").
//!
//! The server behind the gate hands out a `requestState`, which the caller brings back. What the caller is
//! given is sealed: it can be neither read nor changed, and fits one principal's call, once, for a while.

use std::{fmt, path::Path, sync::Arc};

use aws_lc_rs::{aead, digest, rand};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretBox};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    runs::{Principal, Runs, RunsError, TokenId},
    store::{KEY_BYTES, KeyFileError, StateFolder, key_file},
};

/// How long a caller may take to come back.
const LIFETIME: SignedDuration = SignedDuration::from_mins(10);
/// How long a sealed state may be.
const SEALED_BYTES_MAX: usize = 272 << 10;
/// How long the state of the server behind the gate may be.
const STATE_BYTES_MAX: usize = 32 << 10;
/// Which form a sealed state has.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
/// Where used states are remembered, among the tokens that are good once.
const ISSUER: &str = "callgate:request-state";

/// The call that a state belongs to: all of it has to be the same when the caller comes back.
#[derive(Debug, Serialize)]
pub struct Round<'a> {
    /// Who calls.
    pub principal: &'a Principal,
    /// The kind of what is called: a tool, a resource or a prompt.
    pub kind: &'a str,
    /// Its name.
    pub target: &'a str,
    /// The digest of its definition.
    pub definition: &'a str,
    /// The arguments.
    pub arguments: &'a Value,
    /// The digest of the release.
    pub release: &'a str,
}

/// Seals and opens the states of calls that are not over.
pub struct Rounds {
    key: SecretBox<[u8; KEY_BYTES]>,
    runs: Arc<Runs>,
}

impl fmt::Debug for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rounds").finish_non_exhaustive()
    }
}

/// Why a state is not taken, or cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// It was not sealed here, was changed, or belongs to another call.
    #[error("the `requestState` does not belong to this call")]
    Foreign,
    /// It was given out too long ago.
    #[error("the `requestState` has expired")]
    Expired,
    /// It came back before.
    #[error("the `requestState` was used before")]
    Used,
    /// The server behind the gate has too much to remember.
    #[error("the upstream's `requestState` is longer than {STATE_BYTES_MAX} bytes")]
    TooLong,
    /// The system gives no random bytes, or the state cannot be sealed.
    #[error("the `requestState` cannot be sealed")]
    Unsealable,
    /// Whether it was used cannot be found out.
    #[error(transparent)]
    Runs(#[from] RunsError),
}

/// What is sealed.
#[derive(Deserialize, Serialize)]
struct Sealed {
    id: String,
    expires_ms: i64,
    state: Option<String>,
}

impl Rounds {
    /// Opens the key of a state folder, or makes it.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn open(folder: &StateFolder, runs: Arc<Runs>) -> Result<Self, KeyFileError> {
        Self::with(&folder.path().join("rounds.key"), runs)
    }

    fn with(key: &Path, runs: Arc<Runs>) -> Result<Self, KeyFileError> {
        Ok(Self { key: key_file(key)?, runs })
    }

    /// Seals what the server behind the gate wants to see again, for the caller to bring back.
    ///
    /// # Errors
    /// When it is too long, or there are no random bytes.
    pub fn seal(
        &self,
        round: &Round<'_>,
        state: Option<String>,
        now: Timestamp,
    ) -> Result<String, RoundError> {
        if state.as_ref().is_some_and(|state| state.len() > STATE_BYTES_MAX) {
            return Err(RoundError::TooLong);
        }
        let mut random = [0; NONCE_BYTES + 16];
        rand::fill(&mut random).map_err(|_| RoundError::Unsealable)?;
        let (nonce, id) = random.split_first_chunk::<NONCE_BYTES>().ok_or(RoundError::Unsealable)?;
        let expires_ms = now.saturating_add(LIFETIME).map_err(|_| RoundError::Unsealable)?.as_millisecond();
        let sealed = Sealed { id: hex::encode(id), expires_ms, state };
        let mut bytes = serde_json::to_vec(&sealed).map_err(|_| RoundError::Unsealable)?;
        let key = self.cipher().ok_or(RoundError::Unsealable)?;
        let unique = aead::Nonce::assume_unique_for_key(*nonce);
        key.seal_in_place_append_tag(unique, covered(round).ok_or(RoundError::Unsealable)?, &mut bytes)
            .map_err(|_| RoundError::Unsealable)?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode([&[VERSION], nonce.as_slice(), &bytes].concat()))
    }

    /// Opens a state that a caller brings back, once: of all that try, one gets it.
    ///
    /// # Errors
    /// When it is not of this call, too old, or was used.
    pub async fn resume(
        &self,
        round: &Round<'_>,
        sealed: &str,
        now: Timestamp,
    ) -> Result<Option<String>, RoundError> {
        let sealed = self.unseal(round, sealed).ok_or(RoundError::Foreign)?;
        let expires = Timestamp::from_millisecond(sealed.expires_ms).map_err(|_| RoundError::Foreign)?;
        if expires <= now {
            return Err(RoundError::Expired);
        }
        let token = TokenId { issuer: ISSUER.into(), id: sealed.id };
        if !self.runs.use_up(&token, "callgate", expires, now).await? {
            return Err(RoundError::Used);
        }
        Ok(sealed.state)
    }

    fn unseal(&self, round: &Round<'_>, sealed: &str) -> Option<Sealed> {
        if sealed.len() > SEALED_BYTES_MAX {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (version, bytes) = bytes.split_first()?;
        let (nonce, bytes) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        if *version != VERSION {
            return None;
        }
        let mut bytes = bytes.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let plain = self.cipher()?.open_in_place(nonce, covered(round)?, &mut bytes).ok()?;
        serde_json::from_slice(plain).ok()
    }

    fn cipher(&self) -> Option<aead::LessSafeKey> {
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, self.key.expose_secret()).ok()?;
        Some(aead::LessSafeKey::new(key))
    }
}

/// What the seal covers besides: the call.
fn covered(round: &Round<'_>) -> Option<aead::Aad<Vec<u8>>> {
    let canonical = serde_json_canonicalizer::to_vec(round).ok()?;
    let digest = digest::digest(&digest::SHA256, &canonical);
    Some(aead::Aad::from([b"callgate request state 1\n", digest.as_ref()].concat()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{call::User, manifest::ClientName, store::Store};

    struct Bench {
        rounds: Rounds,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let state = StateFolder::prepare(&folder.path().join("state")).unwrap();
            let runs = Runs::open(Store::open(&state).await.unwrap()).await.unwrap();
            Self { rounds: Rounds::open(&state, runs).unwrap(), _folder: folder }
        }

        async fn resume(
            &self,
            round: &Round<'_>,
            sealed: &str,
            second: i64,
        ) -> Result<Option<String>, String> {
            self.rounds.resume(round, sealed, at(second)).await.map_err(|error| error.to_string())
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn round<'a>(principal: &'a Principal, arguments: &'a Value) -> Round<'a> {
        Round { principal, kind: "tool", target: "t", definition: "d", arguments, release: "r" }
    }

    #[tokio::test]
    async fn a_state_comes_back_once_and_is_not_readable() {
        let bench = Bench::new().await;
        let (principal, arguments) =
            (Principal::client(ClientName::parse("bot").unwrap()), json!({ "a": 1 }));
        let round = round(&principal, &arguments);
        let sealed = bench.rounds.seal(&round, Some("upstream-state".into()), at(0)).unwrap();
        let shown = BASE64_URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        assert!(!String::from_utf8_lossy(&shown).contains("upstream"));
        let first = bench.resume(&round, &sealed, 1).await;
        assert_eq!(first, Ok(Some("upstream-state".into())));
        let second = bench.resume(&round, &sealed, 2).await;
        assert_eq!(second, Err("the `requestState` was used before".into()));
        let none = bench.rounds.seal(&round, None, at(0)).unwrap();
        assert_eq!(bench.resume(&round, &none, 1).await, Ok(None));
    }

    #[tokio::test]
    async fn a_state_fits_its_own_call_alone() {
        let bench = Bench::new().await;
        let bot = Principal::client(ClientName::parse("bot").unwrap());
        let user = User { issuer: "i".into(), subject: "s".into() };
        let (other, for_user) = (
            Principal::client(ClientName::parse("other").unwrap()),
            Principal { user: Some(user), ..bot.clone() },
        );
        let (arguments, changed) = (json!({ "a": 1, "b": 2 }), json!({ "a": 1, "b": 3 }));
        let own = || round(&bot, &arguments);
        let sealed = bench.rounds.seal(&own(), Some("s".into()), at(0)).unwrap();
        let strangers = [
            round(&other, &arguments),
            round(&for_user, &arguments),
            round(&bot, &changed),
            Round { kind: "prompt", ..own() },
            Round { target: "u", ..own() },
            Round { definition: "e", ..own() },
            Round { release: "q", ..own() },
        ];
        let foreign = Err("the `requestState` does not belong to this call".to_owned());
        for stranger in &strangers {
            assert_eq!(bench.resume(stranger, &sealed, 1).await, foreign, "{stranger:?}");
        }
        let elsewhere = Bench::new().await;
        assert_eq!(elsewhere.resume(&own(), &sealed, 1).await, foreign);
        // None of them used it up.
        assert_eq!(bench.resume(&own(), &sealed, 1).await, Ok(Some("s".into())));
    }

    #[tokio::test]
    async fn no_changed_byte_and_no_garbage_is_taken() {
        let bench = Bench::new().await;
        let (principal, arguments) = (Principal::client(ClientName::parse("bot").unwrap()), json!({}));
        let round = round(&principal, &arguments);
        let sealed = bench.rounds.seal(&round, Some("s".into()), at(0)).unwrap();
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(bench.rounds.unseal(&round, &BASE64_URL_SAFE_NO_PAD.encode(changed)).is_none(), "{bit}");
        }
        for length in 0..sealed.len() {
            assert!(bench.rounds.unseal(&round, sealed.get(..length).unwrap()).is_none(), "{length}");
        }
        assert!(bench.rounds.unseal(&round, &"A".repeat(SEALED_BYTES_MAX + 1)).is_none());
    }

    #[tokio::test]
    async fn a_state_expires_and_has_a_bound() {
        let bench = Bench::new().await;
        let (principal, arguments) = (Principal::client(ClientName::parse("bot").unwrap()), json!({}));
        let round = round(&principal, &arguments);
        let sealed = bench.rounds.seal(&round, None, at(0)).unwrap();
        assert_eq!(bench.resume(&round, &sealed, 600).await, Err("the `requestState` has expired".into()));
        assert_eq!(bench.resume(&round, &sealed, 599).await, Ok(None));
        let too_long = bench.rounds.seal(&round, Some("x".repeat(STATE_BYTES_MAX + 1)), at(0));
        assert!(matches!(too_long, Err(RoundError::TooLong)));
        let longest = bench.rounds.seal(&round, Some("\u{1}".repeat(STATE_BYTES_MAX)), at(0)).unwrap();
        assert!(bench.resume(&round, &longest, 1).await.is_ok());
    }
}
