//! The identity providers whose access tokens are taken, and their keys.
//!
//! Keys are fetched when the first token needs them, and kept. A set that is not fresh any more serves while
//! it is fetched anew beside the calls; a token that names a key that the set lacks waits for that, as far as
//! the rate of fetches allows; and when the issuer cannot be reached, the last set serves for a day.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::{HeaderValue, Method, header};
use jiff::Timestamp;
use reqwest::Request;
use url::Url;

use super::{
    IdentityError,
    jwt::{Algorithm, Claims, Expect, JwkSet, Unverified, verify},
};
use crate::{
    egress::{Allowances, BodyError, Egress, Way, read_body},
    manifest::{ClaimsSpec, IdentitySpec, IssuerName, IssuerSpec},
};

/// How old a set of keys may be before it is fetched anew.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// How old it may be when the issuer cannot be reached.
const STALE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The time between a fetch that did not bring the key that a token names, and the next one.
const FETCH_EVERY: Duration = Duration::from_secs(10);
/// How many fetches there may be in that time that do bring it: keys may be followed by others soon.
const FRUITFUL_MAX: u32 = 4;
/// How long a fetch may take.
const FETCH_MAX: Duration = Duration::from_secs(5);
/// How large a set may be.
const JWKS_BYTES_MAX: usize = 64 << 10;

/// All issuers, by what their tokens say as `iss`.
#[derive(Debug, Default)]
pub(super) struct Issuers(HashMap<String, Arc<Issuer>>);

/// One issuer.
pub(super) struct Issuer {
    name: IssuerName,
    issuer: String,
    jwks: Url,
    algorithms: Vec<Algorithm>,
    audiences: Vec<String>,
    types: Vec<String>,
    leeway: Duration,
    lifetime_max: Duration,
    claims: ClaimsSpec,
    way: Way,
    keys: ArcSwap<Keys>,
    tries: Mutex<Tries>,
    /// One fetch at a time.
    fetching: tokio::sync::Mutex<()>,
}

/// The keys of an issuer, as they were fetched last.
#[derive(Debug, Default)]
struct Keys {
    set: JwkSet,
    fetched: Option<Instant>,
}

/// The fetches of the last [`FETCH_EVERY`].
#[derive(Debug, Default)]
struct Tries {
    /// When the first of them was begun.
    begun: Option<Instant>,
    /// How many brought what they were for.
    fruitful: u32,
    /// Whether one did not, or has not yet.
    barred: bool,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("name", &self.name)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Issuers {
    /// The issuers of a server. What is wrong with them was found with the other files.
    pub(super) fn new(spec: &IdentitySpec, egress: &Egress) -> Self {
        let issuer = |(name, issuer): (&IssuerName, &IssuerSpec)| {
            let way = egress.way(&Allowances::new(&issuer.egress).ok()?);
            let resource = spec.resource.iter().map(|resource| resource.as_str().to_owned());
            let audiences =
                if issuer.audiences.is_empty() { resource.collect() } else { issuer.audiences.clone() };
            let issuer = Issuer::new(name.clone(), issuer, audiences, way);
            Some((issuer.issuer.clone(), Arc::new(issuer)))
        };
        Self(spec.issuers.iter().filter_map(issuer).collect())
    }

    pub(super) fn knows(&self, issuer: &str) -> bool {
        self.0.contains_key(issuer)
    }

    /// Who says that it issued a token.
    pub(super) fn of(&self, token: &Unverified<'_>) -> Option<&Arc<Issuer>> {
        self.0.get(token.issuer_hint()?)
    }
}

impl Issuer {
    fn new(name: IssuerName, spec: &IssuerSpec, audiences: Vec<String>, way: Way) -> Self {
        Self {
            name,
            issuer: spec.issuer.clone(),
            jwks: spec.jwks.url().clone(),
            algorithms: spec.algorithms.clone(),
            audiences,
            types: spec.types.clone(),
            leeway: spec.leeway.duration(),
            lifetime_max: spec.lifetime_max.duration(),
            claims: spec.claims.clone(),
            way,
            keys: ArcSwap::default(),
            tries: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// The name that `callgate.yaml` gives it.
    pub(super) const fn name(&self) -> &IssuerName {
        &self.name
    }

    /// Until when a token is taken that says that it expires then.
    pub(super) fn takes_until(&self, expires: Timestamp) -> Timestamp {
        expires.saturating_add(self.leeway).unwrap_or(Timestamp::MAX)
    }

    /// Which claims say who calls.
    pub(super) const fn claims(&self) -> &ClaimsSpec {
        &self.claims
    }

    /// Whether a key of this id would still be taken.
    pub(super) fn has(&self, kid: Option<&str>) -> bool {
        let keys = self.keys.load();
        keys.is_usable() && kid.is_none_or(|kid| keys.set.contains(kid))
    }

    /// Checks a token by its keys, fetched anew where that may help.
    pub(super) async fn verify(
        self: &Arc<Self>,
        token: Unverified<'_>,
        now: Timestamp,
    ) -> Result<Claims, IdentityError> {
        let keys = self.keys_with(token.kid_hint()).await?;
        let types: Vec<&str> = self.types.iter().map(String::as_str).collect();
        let expect = Expect {
            types: &types,
            leeway: self.leeway,
            lifetime_max: self.lifetime_max,
            ..Expect::access_token(&self.issuer, &self.audiences, now)
        };
        verify(token, &keys.set, &expect).map_err(IdentityError::Token)
    }

    async fn keys_with(self: &Arc<Self>, kid: Option<&str>) -> Result<Arc<Keys>, IdentityError> {
        let keys = self.keys.load_full();
        let knows = kid.is_none_or(|kid| keys.set.contains(kid));
        if keys.is_usable() && knows {
            if !keys.is_fresh() && self.may_fetch() {
                let issuer = Arc::clone(self);
                tokio::spawn(async move { issuer.refresh().await });
            }
            return Ok(keys);
        }
        self.fetch_for(kid).await;
        let keys = self.keys.load_full();
        if keys.is_usable() { Ok(keys) } else { Err(IdentityError::KeysUnavailable(self.name.clone())) }
    }

    /// Fetches, unless somebody else just did, or does: then waits for them.
    async fn fetch_for(self: &Arc<Self>, kid: Option<&str>) {
        let (issuer, kid) = (Arc::clone(self), kid.map(str::to_owned));
        let fetch = async move {
            let _turn = issuer.fetching.lock().await;
            if !issuer.has(kid.as_deref()) && issuer.may_fetch() {
                issuer.fetch(kid.as_deref()).await;
            }
        };
        // A task of its own: a client that hangs up does not spoil it for the others.
        let _ = tokio::spawn(fetch).await;
    }

    async fn refresh(&self) {
        let _turn = self.fetching.lock().await;
        self.fetch(None).await;
    }

    /// Whether a fetch may be begun; if so, one is.
    fn may_fetch(&self) -> bool {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.begun.is_none_or(|begun| begun.elapsed() >= FETCH_EVERY) {
            *tries = Tries { begun: Some(Instant::now()), ..Tries::default() };
        }
        !std::mem::replace(&mut tries.barred, true)
    }

    /// Fetches. Anybody can make up the name of a key, so one that brings nothing bars the next one.
    async fn fetch(&self, kid: Option<&str>) {
        self.fetch_now().await;
        let keys = self.keys.load();
        if keys.is_fresh() && kid.is_none_or(|kid| keys.set.contains(kid)) {
            let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
            tries.fruitful += 1;
            tries.barred = tries.fruitful > FRUITFUL_MAX;
        }
    }

    async fn fetch_now(&self) {
        let fetched = tokio::time::timeout(FETCH_MAX, self.read()).await;
        let set = match fetched.unwrap_or(Err("it took too long")) {
            Ok(bytes) => JwkSet::parse(&bytes, &self.algorithms).map_err(|error| error.to_string()),
            Err(reason) => Err(reason.to_owned()),
        };
        match set {
            Ok((set, skipped)) => {
                for skipped in skipped {
                    tracing::info!(issuer = %self.name, "not used: {skipped}");
                }
                if set.is_empty() {
                    tracing::warn!(issuer = %self.name, "the issuer publishes no key that can be used");
                }
                self.keys.store(Arc::new(Keys { set, fetched: Some(Instant::now()) }));
            }
            Err(reason) => tracing::warn!(issuer = %self.name, reason, "the issuer's keys cannot be had"),
        }
    }

    async fn read(&self) -> Result<Vec<u8>, &'static str> {
        let mut request = Request::new(Method::GET, self.jwks.clone());
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let mut response = self.way.send(request).await.map_err(|_| "it cannot be reached")?;
        if response.status() != http::StatusCode::OK {
            return Err("it does not answer 200");
        }
        let mut bytes = Vec::new();
        match read_body(&mut response, &mut bytes, JWKS_BYTES_MAX).await {
            Ok(()) => Ok(bytes),
            Err(BodyError::Broken) => Err("its answer broke off"),
            Err(BodyError::TooLarge) => Err("its answer is too large"),
        }
    }
}

impl Keys {
    fn is_usable(&self) -> bool {
        self.fetched.is_some_and(|fetched| fetched.elapsed() < STALE_MAX)
    }

    fn is_fresh(&self) -> bool {
        self.fetched.is_some_and(|fetched| fetched.elapsed() < FRESH)
    }
}
