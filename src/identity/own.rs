//! The access tokens that this server issues itself.
//!
//! They are signed tokens of the form of RFC 9068, each bound to a run. The keys that sign them are shared by
//! all processes on one state folder, and are followed by new ones; a key is taken until its last token ended.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::{
    IdentityError,
    jwt::{
        Algorithm, Claims, Expect, JwkSet, Signing, SigningError, TOKEN_BYTES_MAX, Unverified, encode, verify,
    },
};
use crate::{
    call::User,
    manifest::{ClientName, IdentitySpec, KeyId, ResourceUrl, Scope, TokensSpec},
    runs::{Run, Runs, RunsError, SigningKeyRow},
};

/// The claim that names the run.
pub(super) const RUN: &str = "callgate_run";
/// The claim that lists the tools that are left, as names and globs.
pub(super) const TOOLS: &str = "callgate_tools";
/// The claim that names the API key that it was asked for with: it falls with it.
pub(super) const KEY: &str = "callgate_key";
/// The claim that names the user.
pub(super) const USER: &str = "callgate_user";

/// Where tokens are asked for.
pub(super) const TOKEN_PATH: &str = "/oauth/token";
/// Where nobody is asked for anything. Clients take no metadata without such an endpoint, though RFC 8414 §2
/// wants it only of servers with a grant that needs it.
pub(super) const AUTHORIZATION_PATH: &str = "/oauth/authorize";
/// Where tokens are taken back (RFC 7009).
pub(super) const REVOKE_PATH: &str = "/oauth/revoke";
/// Where the public keys are.
pub(super) const JWKS_PATH: &str = "/oauth/jwks";

/// How far the clocks of processes that share a state folder may be apart.
const LEEWAY: Duration = Duration::from_secs(5);
/// How often the keys are read again for a token whose key is not known. A key that another process has just made is
/// unknown here for so long at most, also while somebody shows forged tokens.
const READ_EVERY: Duration = Duration::from_millis(100);
/// A key of a day is not made every second.
const KEY_AGE_MIN: Duration = Duration::from_secs(60);

/// How many random bytes a token's id has. A run's has as many.
const RANDOM_BYTES: usize = 16;
/// What it is signed with, and what it says that it is (RFC 9068 §2.1).
const ALGORITHM: Algorithm = Algorithm::EdDSA;
const TYPE: &str = "at+jwt";

/// The tokens of this server's own.
#[derive(Debug)]
pub(super) struct OwnTokens {
    issuer: String,
    endpoint: String,
    audiences: Vec<String>,
    lifetime: Duration,
    key_age: Duration,
    runs: Arc<Runs>,
    keys: ArcSwap<OwnKeys>,
    /// When they were read for a token last. Held while they are.
    read: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct OwnKeys {
    newest: Option<Newest>,
    set: JwkSet,
    published: Vec<Value>,
}

#[derive(Debug)]
struct Newest {
    signing: Signing,
    made: Timestamp,
}

/// Why the server cannot issue tokens.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// No key can be had.
    #[error("no signing key: {0}")]
    Key(#[from] SigningError),
    /// The store does not answer.
    #[error(transparent)]
    Runs(#[from] RunsError),
    /// There is no key after all.
    #[error("there is no signing key")]
    NoKey,
    /// It cannot be put on record.
    #[error("the token cannot be put on record")]
    Unrecorded,
    /// The gate cannot tell who asks.
    #[error(transparent)]
    Identity(Box<IdentityError>),
}

/// What a token is to say.
#[derive(Debug)]
pub(super) struct NewToken<'a> {
    pub(super) client: &'a ClientName,
    pub(super) key: Option<&'a KeyId>,
    pub(super) user: Option<&'a User>,
    pub(super) scopes: &'a BTreeSet<Scope>,
    pub(super) tools: Option<&'a [String]>,
    /// The SHA-256 of the certificate that it is bound to.
    pub(super) certificate: Option<[u8; 32]>,
}

/// What differs between tokens that say the same.
#[derive(Debug)]
struct Stamp<'a> {
    id: &'a str,
    run: &'a str,
    made: Timestamp,
    expires: Timestamp,
}

/// A token that was just made.
#[derive(Debug)]
pub(super) struct Minted {
    pub(super) token: String,
    pub(super) id: String,
    pub(super) expires: Timestamp,
}

impl OwnTokens {
    /// The tokens of a server that has an endpoint for them.
    pub(super) fn new(spec: &IdentitySpec, tokens: &TokensSpec, runs: Arc<Runs>) -> Option<Self> {
        let resource = spec.resource.as_ref()?;
        Some(Self {
            issuer: spec.own_issuer()?,
            endpoint: beside(resource, TOKEN_PATH),
            audiences: vec![resource.as_str().to_owned()],
            lifetime: tokens.lifetime.duration(),
            key_age: tokens.key_age.duration().max(KEY_AGE_MIN),
            runs,
            keys: ArcSwap::default(),
            read: Mutex::default(),
        })
    }

    /// What its tokens say as `iss`.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether a resource is what its tokens are for.
    pub(super) fn is_for(&self, resource: &str) -> bool {
        self.audiences.iter().any(|audience| audience == resource)
    }

    /// What an assertion for its endpoint may say as `aud` (RFC 7523 §3).
    pub(super) fn endpoint_audiences(&self) -> [String; 2] {
        [self.endpoint.clone(), self.issuer.clone()]
    }

    /// The public keys, as a set (RFC 7517 §5).
    pub(super) async fn published(&self, now: Timestamp) -> Result<Value, MintError> {
        self.sign_with(now).await?;
        Ok(json!({ "keys": self.keys.load().published }))
    }

    /// Whether a token's key would still be taken.
    pub(super) fn has(&self, kid: Option<&str>) -> bool {
        kid.is_some_and(|kid| self.keys.load().set.contains(kid))
    }

    /// Checks a token of its own.
    pub(super) async fn verify(
        &self,
        token: Unverified<'_>,
        now: Timestamp,
    ) -> Result<Claims, IdentityError> {
        if !self.has(token.kid_hint()) {
            // Another process of this state folder may have made the key.
            self.look_for(token.kid_hint(), now)
                .await
                .map_err(|error| IdentityError::Keys(error.to_string()))?;
        }
        let expect = Expect {
            leeway: LEEWAY,
            id_required: true,
            ..Expect::access_token(&self.issuer, &self.audiences, now)
        };
        verify(token, &self.keys.load().set, &expect).map_err(IdentityError::Token)
    }

    /// Whether a token would be short enough to be shown, whichever run it is for.
    pub(super) fn fits(&self, new: &NewToken<'_>, now: Timestamp) -> bool {
        let any = "0".repeat(2 * RANDOM_BYTES); // as long as any other
        let stamp = Stamp { id: &any, run: &any, made: now, expires: now };
        Signing::token_bytes(ALGORITHM, TYPE, &self.claims(new, &stamp)) <= TOKEN_BYTES_MAX
    }

    /// Makes a token that is bound to a run, which ends at a time at the latest.
    pub(super) async fn mint(
        &self,
        new: &NewToken<'_>,
        run: &Run,
        ends: Timestamp,
        now: Timestamp,
    ) -> Result<Minted, MintError> {
        let keys = self.sign_with(now).await?;
        let newest = keys.newest.as_ref().ok_or(MintError::NoKey)?;
        let mut random = [0; RANDOM_BYTES];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| MintError::Runs(RunsError::NoRandom))?;
        let id = hex::encode(random);
        let expires = now.saturating_add(self.lifetime).unwrap_or(Timestamp::MAX).min(ends);
        let stamp = Stamp { id: &id, run: &run.id().to_string(), made: now, expires };
        let token = newest.signing.sign(TYPE, &self.claims(new, &stamp))?;
        Ok(Minted { token, id, expires: Timestamp::from_second(expires.as_second()).unwrap_or(expires) })
    }

    fn claims(&self, new: &NewToken<'_>, stamp: &Stamp<'_>) -> Map<String, Value> {
        let scopes: Vec<&str> = new.scopes.iter().map(Scope::as_str).collect();
        let mut claims = Map::new();
        let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        put("iss", self.issuer.clone().into());
        put("sub", new.user.map_or(new.client.as_str(), |user| &user.subject).into());
        put("aud", self.audiences.clone().into());
        put("exp", stamp.expires.as_second().into());
        put("iat", stamp.made.as_second().into());
        put("jti", stamp.id.into());
        put("client_id", new.client.as_str().into());
        put("scope", scopes.join(" ").into());
        put(RUN, stamp.run.into());
        if let Some(key) = new.key {
            put(KEY, key.as_str().into());
        }
        if let Some(tools) = new.tools {
            put(TOOLS, tools.into());
        }
        if let Some(user) = new.user {
            put(USER, json!({ "issuer": user.issuer, "subject": user.subject }));
        }
        if let Some(certificate) = new.certificate {
            put("cnf", json!({ "x5t#S256": encode(certificate) }));
        }
        claims
    }

    /// The keys, of which the newest is young enough to sign.
    async fn sign_with(&self, now: Timestamp) -> Result<Arc<OwnKeys>, MintError> {
        // What is in memory may do, or else what another process has added, or else a key of our own. Another
        // may be first with that, and its key may be old by now.
        for round in 0..3 {
            let keys = self.keys.load_full();
            if keys.newest.as_ref().is_some_and(|newest| self.is_young(newest, now)) {
                return Ok(keys);
            }
            if round > 0 {
                self.add_key(&keys, now).await?;
            }
            self.read(now).await?;
        }
        Ok(self.keys.load_full())
    }

    fn is_young(&self, newest: &Newest, now: Timestamp) -> bool {
        newest.made.saturating_add(self.key_age).is_ok_and(|old| now < old)
    }

    /// Adds the key that follows the newest one. Another process may be first, and then its key is used.
    async fn add_key(&self, keys: &OwnKeys, now: Timestamp) -> Result<(), MintError> {
        let new = Signing::generate(ALGORITHM)?;
        let key = SigningKeyRow {
            kid: new.signing.kid().to_owned(),
            pkcs8: new.pkcs8,
            made: now,
            retires: Timestamp::MAX,
        };
        let follows = keys.newest.as_ref().map(|newest| newest.signing.kid());
        if self.runs.add_signing_key(&key, follows).await?
            && let Some(old) = follows
        {
            // Its last token may have been made a moment ago, by another process.
            let overlap = self.lifetime + 2 * LEEWAY;
            let retires = now.saturating_add(overlap).unwrap_or(Timestamp::MAX);
            self.runs.retire_signing_key(old, retires).await?;
        }
        Ok(())
    }

    async fn read(&self, now: Timestamp) -> Result<(), MintError> {
        let mut newest = None;
        let mut published = Vec::new();
        for row in self.runs.signing_keys(now).await? {
            let signing = Signing::from_pkcs8(row.pkcs8.expose_secret())?;
            published.push(signing.public_jwk());
            newest = Some(Newest { signing, made: row.made });
        }
        let text = json!({ "keys": published }).to_string();
        let (set, _) = JwkSet::parse(text.as_bytes(), &[ALGORITHM]).unwrap_or_default();
        self.keys.store(Arc::new(OwnKeys { newest, set, published }));
        Ok(())
    }

    /// Reads the keys again, unless that was done a moment ago. Tokens of a new key come many at once: the first
    /// one has the keys read, and the others wait for that.
    async fn look_for(&self, kid: Option<&str>, now: Timestamp) -> Result<(), MintError> {
        let mut read = self.read.lock().await;
        if self.has(kid) || read.is_some_and(|read| read.elapsed() < READ_EVERY) {
            return Ok(());
        }
        self.read(now).await?;
        *read = Some(Instant::now());
        Ok(())
    }
}

/// The URL of an endpoint of this server's own.
pub(super) fn beside(resource: &ResourceUrl, path: &str) -> String {
    format!("{}{path}", resource.origin())
}
