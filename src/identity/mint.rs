//! The token endpoint: who asks for a token, and what it may say (RFC 6749 §4.4, RFC 7523, RFC 8705 §2).
//!
//! A token never grants more than its client has. It is bound to a run, which it begins, unless it names one
//! that the same principal minted before.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{
    ApiKey, Authentication, Caller, Client, Clients, Identities, IdentityError,
    jwt::{Expect, Unverified, verify},
    own::{MintError, NewToken, OwnTokens},
    tokens::globs,
    wait_out,
};
use crate::{
    call::{Certificate, User},
    hygiene,
    manifest::{ClientName, Scope},
    runs::{
        DESTINATION_BYTES_MAX, DESTINATIONS_MAX, NewRun, Revocation, Run, RunError, RunId, RunKind,
        RunsError, TokenId,
    },
};

/// How many tools a token may name.
const TOOLS_MAX: usize = 1_000;
/// How long such a name or glob may be.
const TOOL_GLOB_BYTES_MAX: usize = 256;
/// How long the name of a user may be.
const SUBJECT_CHARS_MAX: usize = 256;

/// What a client asks the token endpoint for.
#[derive(Debug)]
pub struct TokenRequest {
    /// How it proves who it is.
    pub proof: ClientProof,
    /// The scopes that the token is to have. Left out, all that the client has.
    pub scope: Option<String>,
    /// What the token is for (RFC 8707 §2).
    pub resources: Vec<String>,
    /// The tools that are to be left, as names and globs. None: all that the client has.
    pub tools: Vec<String>,
    /// The user that the token is to stand for.
    pub user: Option<String>,
    /// Where the run's calls may go.
    pub destinations: Vec<String>,
    /// The run to go on in.
    pub run: Option<String>,
    /// How long a new run is to last at most.
    pub run_lifetime: Option<Duration>,
}

/// How a client proves who it is at the token endpoint.
#[derive(Debug)]
pub enum ClientProof {
    /// By its name and one of its API keys (RFC 6749 §2.3.1).
    Secret {
        /// The client's name.
        client: String,
        /// The whole key.
        secret: SecretString,
    },
    /// By an assertion that it signed (RFC 7523 §2.2).
    Assertion {
        /// The client's name, where the request says it besides.
        client: Option<String>,
        /// The assertion.
        assertion: SecretString,
    },
    /// By the certificate of its connection (RFC 8705 §2).
    Certificate {
        /// The client's name.
        client: String,
    },
}

/// A token that was just made.
#[derive(Debug)]
pub struct NewAccessToken {
    /// The token.
    pub token: SecretString,
    /// Its id, which is no secret.
    pub id: String,
    /// How long it is good for.
    pub expires_in: Duration,
    /// Its scopes.
    pub scopes: BTreeSet<Scope>,
    /// The run that it is bound to.
    pub run: RunId,
    /// Whom it was made for.
    pub client: ClientName,
    /// The user that it stands for.
    pub user: Option<User>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenRefusal {
    /// The client does not prove who it is.
    #[error(transparent)]
    Client(IdentityError),
    /// The request does not say what it has to, or in the wrong form.
    #[error("{0}")]
    Request(String),
    /// A scope that the client does not have.
    #[error("the client does not have the scope `{}`", .0.escape_debug())]
    Scope(String),
    /// A resource that is not this server.
    #[error("the resource is not this server's")]
    Target,
    /// The client may not ask for that.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// No token can be made now.
    #[error(transparent)]
    Unavailable(#[from] MintError),
}

impl TokenRefusal {
    /// The error's name (RFC 6749 §5.2, RFC 8707 §2).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Client(_) => "invalid_client",
            Self::Request(_) => "invalid_request",
            Self::Scope(_) => "invalid_scope",
            Self::Target => "invalid_target",
            Self::Unauthorized(_) => "unauthorized_client",
            Self::Unavailable(_) => "temporarily_unavailable",
        }
    }

    /// What the client is told.
    #[must_use]
    pub fn public_message(&self) -> String {
        match self {
            Self::Client(_) => "authentication failed".into(),
            Self::Unavailable(_) => "temporarily unavailable".into(),
            Self::Request(_) | Self::Scope(_) | Self::Target | Self::Unauthorized(_) => self.to_string(),
        }
    }
}

impl From<IdentityError> for TokenRefusal {
    fn from(error: IdentityError) -> Self {
        if error.is_ours() {
            Self::Unavailable(MintError::Identity(Box::new(error)))
        } else {
            Self::Client(error)
        }
    }
}

impl Identities {
    /// Makes a token for a client that asks for one.
    ///
    /// # Errors
    /// When the client does not prove who it is, or asks for what it may not have.
    pub async fn mint(
        &self,
        clients: &Clients,
        request: &TokenRequest,
        certificate: Option<&Certificate>,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<NewAccessToken, TokenRefusal> {
        let own = self.tokens.own().ok_or(TokenRefusal::Unauthorized("this server issues no tokens"))?;
        let began = Instant::now();
        let caller = self.asking(clients, &request.proof, certificate, source, own, now).await;
        let caller = caller.inspect_err(|_| wait_out(began))?;
        let client = caller.client();
        if !request.resources.iter().all(|resource| own.is_for(resource)) {
            return Err(TokenRefusal::Target);
        }
        let scopes = granted(client, request.scope.as_deref())?;
        let tools = Some(&request.tools).filter(|tools| !tools.is_empty());
        if let Some(tools) = tools {
            nameable(tools)?;
        }
        let user = self.user_of(client, request.user.as_deref(), own)?;
        let new = NewToken {
            client: client.name(),
            key: caller.key(),
            user: user.as_ref(),
            scopes: &scopes,
            tools: tools.map(Vec::as_slice),
            certificate: certificate.map(|certificate| certificate.sha256),
        };
        if !own.fits(&new, now) {
            let message = "the token would be too long to be shown: ask for fewer scopes, or for tools by a glob such as `orders.*`";
            return Err(TokenRefusal::Request(message.into()));
        }
        let (run, ends) = self.run_for(client, user.clone(), request, now).await?;
        let minted = own.mint(&new, &run, ends, now).await?;
        let seconds = minted.expires.as_second().saturating_sub(now.as_second());
        Ok(NewAccessToken {
            token: minted.token.into(),
            id: minted.id,
            expires_in: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
            scopes,
            run: run.id(),
            client: client.name().clone(),
            user,
        })
    }

    /// Takes a token back (RFC 7009). One that is nobody's, or another client's, is left alone and not told of.
    ///
    /// # Errors
    /// When the client does not prove who it is, or the store does not answer.
    pub async fn take_back(
        &self,
        clients: &Clients,
        proof: &ClientProof,
        token: &SecretString,
        certificate: Option<&Certificate>,
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Option<(ClientName, TokenId)>, TokenRefusal> {
        let own = self.tokens.own().ok_or(TokenRefusal::Unauthorized("this server issues no tokens"))?;
        let caller = self.asking(clients, proof, certificate, source, own, now).await?;
        let Ok(unverified) = Unverified::parse(token.expose_secret()) else { return Ok(None) };
        let Ok(claims) = own.verify(unverified, now).await else { return Ok(None) };
        if claims.client() != Some(caller.client().name().as_str()) {
            return Ok(None);
        }
        let Some(id) = claims.id() else { return Ok(None) };
        let id = TokenId { issuer: own.issuer().to_owned(), id: id.to_owned() };
        let actor = format!("client:{}", caller.client().name());
        let until = claims.expires().saturating_add(Duration::from_secs(3_600)).ok();
        let revoked = Revocation::Token(id.clone());
        self.runs
            .revoke(&revoked, &actor, "taken back by its client", until, now)
            .await
            .map_err(IdentityError::from)?;
        Ok(Some((caller.client().name().clone(), id)))
    }

    /// The client that asks.
    async fn asking(
        &self,
        clients: &Clients,
        proof: &ClientProof,
        certificate: Option<&Certificate>,
        source: Option<IpAddr>,
        own: &OwnTokens,
        now: Timestamp,
    ) -> Result<Caller, TokenRefusal> {
        let known =
            |client, authentication| (Caller { client, authentication, key: None, grant: None }, None);
        let (caller, refusal) = match proof {
            ClientProof::Secret { client, secret } => {
                let key = ApiKey::parse(secret.expose_secret()).ok_or(IdentityError::Malformed)?;
                let (caller, refusal) = self.keyed(clients, &key, now)?;
                let other = caller.client.name().as_str() != client;
                (caller, refusal.or(other.then_some(IdentityError::NoClient)))
            }
            ClientProof::Certificate { client } => {
                let shown = certificate.ok_or(IdentityError::Nothing)?;
                let found = clients.by_certificate(shown).ok_or(IdentityError::UnknownCertificate)?;
                if found.name().as_str() != client {
                    return Err(IdentityError::NoClient.into());
                }
                known(found, Authentication::Certificate)
            }
            ClientProof::Assertion { client, assertion } => {
                let found = self.asserted(clients, assertion.expose_secret(), own, now).await?;
                if client.as_ref().is_some_and(|client| found.name().as_str() != client) {
                    return Err(IdentityError::NoClient.into());
                }
                known(found, Authentication::Token)
            }
        };
        Ok(self.settle(caller, refusal, source, false, now)?)
    }

    /// The client that signed an assertion, which is used up by that.
    async fn asserted(
        &self,
        clients: &Clients,
        assertion: &str,
        own: &OwnTokens,
        now: Timestamp,
    ) -> Result<Arc<Client>, IdentityError> {
        let unverified = Unverified::parse(assertion).map_err(IdentityError::Token)?;
        let name = unverified.issuer_hint().and_then(|name| ClientName::parse(name).ok());
        let client = name.and_then(|name| clients.named(&name)).ok_or(IdentityError::NoClient)?;
        let audiences = own.endpoint_audiences();
        let expect = Expect::client_assertion(client.name().as_str(), &audiences, now);
        let claims = verify(unverified, client.assertion_keys(), &expect).map_err(IdentityError::Token)?;
        let id = claims.id().ok_or(IdentityError::Claims)?;
        if claims.audiences().len() != 1 {
            return Err(IdentityError::Claims); // somebody else could show it here first
        }
        let expires = claims.expires().saturating_add(expect.leeway).unwrap_or(Timestamp::MAX);
        // In all processes together, also before this one began.
        let token = TokenId { issuer: format!("assertion:{}", client.name()), id: id.to_owned() };
        if !self.runs.use_up(&token, "callgate", expires, now).await? {
            return Err(IdentityError::Replayed);
        }
        Ok(client)
    }

    fn user_of(
        &self,
        client: &Client,
        subject: Option<&str>,
        own: &OwnTokens,
    ) -> Result<Option<User>, TokenRefusal> {
        let Some(subject) = subject else { return Ok(None) };
        if !client.spec().acts_for_users {
            return Err(TokenRefusal::Unauthorized("the client may not act for users"));
        }
        let fits = (1..=SUBJECT_CHARS_MAX).contains(&subject.chars().count());
        if !fits || !is_seen_whole(subject) {
            let message = format!("a user is named by 1 to {SUBJECT_CHARS_MAX} characters that readers see");
            return Err(TokenRefusal::Request(message));
        }
        Ok(Some(User { issuer: own.issuer().to_owned(), subject: subject.to_owned() }))
    }

    /// The run of a new token, and when it ends at the latest.
    async fn run_for(
        &self,
        client: &Client,
        user: Option<User>,
        request: &TokenRequest,
        now: Timestamp,
    ) -> Result<(Run, Timestamp), TokenRefusal> {
        let principal = crate::runs::Principal { client: client.name().clone(), user };
        if let Some(id) = &request.run {
            if !request.destinations.is_empty() || request.run_lifetime.is_some() {
                let message = "destinations and a lifetime are declared when a run begins, not later";
                return Err(TokenRefusal::Request(message.into()));
            }
            let unknown = || TokenRefusal::Request("there is no such run of this client and user".into());
            let id = RunId::parse(id).ok_or_else(unknown)?;
            let run = match self.runs.resume(&id, &principal, now).await {
                Ok(run) if run.kind() == RunKind::Minted => run,
                Err(RunError::Runs(error)) => return Err(IdentityError::Runs(error).into()),
                Ok(_) | Err(_) => return Err(unknown()),
            };
            let ends = run.expires().unwrap_or(Timestamp::MAX);
            return Ok((run, ends));
        }
        nameable_destinations(&request.destinations)?;
        let longest = self.bounds.lifetime.duration();
        let lifetime = request.run_lifetime.unwrap_or(longest);
        if lifetime > longest || lifetime.is_zero() {
            let message = format!("a run lasts for 1 to {} seconds", longest.as_secs());
            return Err(TokenRefusal::Request(message));
        }
        let new = NewRun {
            principal,
            kind: RunKind::Minted,
            lifetime,
            idle: self.bounds.idle.duration(),
            destinations: request.destinations.clone(),
            session: None,
        };
        let run = match self.runs.begin(&new, now).await {
            Ok(run) => run,
            Err(RunsError::TooManyOfClient { max }) => {
                return Err(TokenRefusal::Request(format!(
                    "the client has {max} live runs, and may have no more"
                )));
            }
            Err(error) => return Err(IdentityError::Runs(error).into()),
        };
        Ok((run, now.saturating_add(lifetime).unwrap_or(Timestamp::MAX)))
    }
}

/// Whether tools are named in a way that is understood.
fn nameable(tools: &[String]) -> Result<(), TokenRefusal> {
    let message = if tools.len() > TOOLS_MAX {
        format!("a token names {TOOLS_MAX} tools at most: name several by a glob such as `orders.*`")
    } else if !tools.iter().all(|tool| is_tool_glob(tool))
        || globs(tools.iter().map(String::as_str)).is_none()
    {
        "a tool is named by its name or a glob such as `orders.*`".to_owned()
    } else {
        return Ok(());
    };
    Err(TokenRefusal::Request(message))
}

/// Whether a text is of what tools' names are made of, and what globs are besides.
fn is_tool_glob(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-*?[]!{},\\".contains(&byte);
    (1..=TOOL_GLOB_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits)
}

/// Whether destinations are written in a way in which others can be compared with them.
fn nameable_destinations(destinations: &[String]) -> Result<(), TokenRefusal> {
    let message = if destinations.len() > DESTINATIONS_MAX {
        format!("a run has at most {DESTINATIONS_MAX} destinations")
    } else if !destinations.iter().all(|one| is_destination(one)) {
        format!(
            "a destination is a URL, a host, an address or an account: 1 to {DESTINATION_BYTES_MAX} bytes that \
             readers see, without blanks around them; a URL has a host, and no user"
        )
    } else {
        return Ok(());
    };
    Err(TokenRefusal::Request(message))
}

fn is_destination(text: &str) -> bool {
    // What stands before an `@` in a URL reads like its host.
    let is_plain_url = |url: Url| url.has_host() && url.username().is_empty() && url.password().is_none();
    (1..=DESTINATION_BYTES_MAX).contains(&text.len())
        && is_seen_whole(text)
        && (!text.contains("://") || Url::parse(text).is_ok_and(is_plain_url))
}

/// Whether a text is what its reader takes it for.
fn is_seen_whole(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.trim() == text && hygiene::clean(text).0 == text
}

/// The scopes that are asked for, each of which the client has.
fn granted(client: &Client, asked: Option<&str>) -> Result<BTreeSet<Scope>, TokenRefusal> {
    let Some(asked) = asked else { return Ok(client.spec().scopes.iter().cloned().collect()) };
    let one = |text: &str| {
        let scope = Scope::parse(text).ok().filter(|scope| client.holds(scope));
        scope.ok_or_else(|| TokenRefusal::Scope(text.chars().take(128).collect()))
    };
    asked.split(' ').map(one).collect() // one blank between two (RFC 6749 §3.3)
}
