//! What the identity provider remembers: its keys, its clients, and what it has handed out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use callgate::identity::jwt::Signing;
use serde::Deserialize;

/// How long a code is good for (RFC 6749 §4.1.2: ten minutes at most).
const CODE_LIFETIME: Duration = Duration::from_secs(60);
/// How many codes and refresh tokens there may be at a time.
const GRANTS_MAX: usize = 10_000;

/// What the provider was told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// What tokens may be for (RFC 8707).
    pub(super) resources: BTreeSet<String>,
    /// How long an access token is good for.
    #[serde(default = "five_minutes")]
    pub(super) lifetime_seconds: u32,
    /// The clients that it knows from the start.
    #[serde(default)]
    pub(super) clients: BTreeMap<String, Application>,
    /// What clients are that register themselves. Left out, none may.
    #[serde(default)]
    pub(super) registered: Option<Application>,
}

const fn five_minutes() -> u32 {
    300
}

/// What a client is.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Application {
    /// Its secret. Left out, it has none, and may not ask for tokens of its own.
    #[serde(default)]
    pub(super) secret: Option<String>,
    /// Where its users may be sent back to.
    #[serde(default)]
    pub(super) redirects: Vec<String>,
    /// The scopes that it may have.
    #[serde(default)]
    pub(super) scopes: BTreeSet<String>,
}

/// A client, and the entry of the configuration that it stands under.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) app: String,
    pub(super) application: Application,
}

/// What a user has granted to a client.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) client: String,
    pub(super) user: String,
    pub(super) scopes: BTreeSet<String>,
    pub(super) resource: String,
}

/// A code, which is good once and for whoever knows what its challenge was made of (RFC 7636).
pub(super) struct Code {
    pub(super) grant: Grant,
    pub(super) redirect: String,
    pub(super) challenge: String,
    made: Instant,
}

/// Everything that changes.
#[derive(Default)]
pub(super) struct Store {
    /// The last one signs; the others are published until the provider ends.
    pub(super) keys: Vec<Signing>,
    pub(super) clients: BTreeMap<String, Client>,
    pub(super) jwks_reads: u64,
    pub(super) tokens_made: u64,
    codes: BTreeMap<String, Code>,
    refresh: BTreeMap<String, Grant>,
}

impl Code {
    pub(super) fn new(grant: Grant, redirect: String, challenge: String) -> Self {
        Self { grant, redirect, challenge, made: Instant::now() }
    }
}

impl Store {
    pub(super) fn new(clients: BTreeMap<String, Client>) -> Self {
        Self { clients, ..Self::default() }
    }

    pub(super) fn add_code(&mut self, name: &str, code: Code) -> bool {
        self.codes.retain(|_, code| code.made.elapsed() < CODE_LIFETIME);
        self.codes.len() < GRANTS_MAX && self.codes.insert(name.to_owned(), code).is_none()
    }

    /// Takes a code: whoever shows it, it is used up.
    pub(super) fn take_code(&mut self, name: &str) -> Option<Code> {
        self.codes.remove(name).filter(|code| code.made.elapsed() < CODE_LIFETIME)
    }

    pub(super) fn add_refresh(&mut self, name: &str, grant: Grant) -> bool {
        self.refresh.len() < GRANTS_MAX && self.refresh.insert(name.to_owned(), grant).is_none()
    }

    /// Takes a refresh token, which the next one follows (OAuth 2.1 §4.3.1).
    pub(super) fn take_refresh(&mut self, name: &str) -> Option<Grant> {
        self.refresh.remove(name)
    }
}
