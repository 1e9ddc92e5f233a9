//! Tokens got from a token endpoint: for the gate itself (RFC 6749 §4.4), or for each caller (RFC 8693).

mod answer;

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, header};
use lru::LruCache;
use reqwest::Request;
use secrecy::{ExposeSecret as _, SecretString};
use url::{Url, form_urlencoded};

use self::answer::Granted;
use super::{
    CredentialError, EndpointError, LeaseRequest,
    endpoint::{self, secret_value},
    lease::Presentation,
    live::{HeldSecret, LiveSecrets},
    signer::{Claims, Signer},
    slot::{Slot, Timed},
    source::{Places, Source},
    timing::Timing,
};
use crate::{
    egress::{Allowances, Egress},
    manifest::{
        ClientAuth, CredentialName, OwnAlgorithm, SecretRef, SubjectSpec, TokenRequestSpec, TokenScopes,
    },
};

/// How many tokens are held. The least recently used one makes room.
const TOKENS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

const GRANT_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ASSERTION_JWT: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The tokens of a release, by what they are for.
pub(super) struct Tokens(Mutex<LruCache<Key, Arc<Slot<Token>>>>);

/// What a token is for. Resource and audience are the credential's own.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    credential: CredentialName,
    scope: String,
    caller: Option<Subject>,
}

/// Who a token is for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Subject {
    client: String,
    /// The issuer and the subject.
    user: Option<(String, String)>,
}

/// A token, ready to be shown.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) presentation: Arc<Presentation>,
    refresh_at: Instant,
    usable_until: Instant,
}

impl Timed for Token {
    fn refresh_at(&self) -> Instant {
        self.refresh_at
    }
    fn usable_until(&self) -> Instant {
        self.usable_until
    }
}

/// How the tokens of one credential are got.
#[derive(Debug)]
pub(super) struct TokenSource {
    name: CredentialName,
    url: Url,
    allowances: Allowances,
    client: String,
    proof: ClientProof,
    subject: Option<SubjectSource>,
    scopes: TokenScopes,
    resource: Option<String>,
    audience: Option<String>,
    live: LiveSecrets,
    timing: Timing,
}

/// How the gate shows to the endpoint who it is.
#[derive(Debug)]
enum ClientProof {
    Secret(Source<HeldSecret>, ClientAuth),
    Key(Source<Signer>),
}

/// How the gate says who calls.
#[derive(Debug)]
struct SubjectSource {
    issuer: String,
    signer: Source<Signer>,
    key_id: Option<String>,
    require_user: bool,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(TOKENS_MAX)))
    }

    fn slot(&self, key: Key, timing: Timing) -> Arc<Slot<Token>> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tokens.get_or_insert(key, || Slot::new(timing)))
    }
}

impl TokenSource {
    pub(super) fn new(
        name: &CredentialName,
        spec: &TokenRequestSpec<'_>,
        places: &Places<'_>,
    ) -> Result<Arc<Self>, CredentialError> {
        let proof = match (spec.secret, spec.key, spec.alg, spec.auth) {
            (Some(secret), None, None, auth) => {
                ClientProof::Secret(Source::new(secret, places, Box::new(Ok))?, auth.unwrap_or_default())
            }
            (None, Some(key), Some(algorithm), None) => ClientProof::Key(signer(key, algorithm, places)?),
            _ => {
                return Err(CredentialError::Spec(
                    "a client has either a `secret`, or a `key` and its `alg`",
                ));
            }
        };
        let subject = spec.subject.map(|subject| SubjectSource::new(subject, places)).transpose()?;
        let allowances = Allowances::new(spec.egress)
            .map_err(|_| CredentialError::Spec("the token endpoint's `egress` cannot be allowed"))?;
        Ok(Arc::new(Self {
            name: name.clone(),
            url: spec.token_url.url().clone(),
            allowances,
            client: spec.client.to_owned(),
            proof,
            subject,
            scopes: spec.scopes.clone(),
            resource: spec.resource.map(|resource| resource.as_str().to_owned()),
            audience: spec.audience.map(str::to_owned),
            live: places.live.clone(),
            timing: places.timing,
        }))
    }

    /// The token for a call, with the scopes of its tool and nobody else's.
    pub(super) async fn get(
        self: &Arc<Self>,
        tokens: &Tokens,
        egress: &Egress,
        request: &LeaseRequest<'_>,
    ) -> Result<(Arc<Slot<Token>>, Arc<Token>), CredentialError> {
        let caller = self.subject.as_ref().map(|subject| subject.of(request)).transpose()?;
        let scope = self.scopes.of(request.tool).join(" ");
        let key = Key { credential: self.name.clone(), scope, caller };
        let slot = tokens.slot(key.clone(), self.timing);
        let token = slot.get(request.deadline, |_| {
            let (this, egress, key) = (Arc::clone(self), egress.clone(), key.clone());
            async move { this.fetch(&egress, &key).await }
        });
        let token = token.await?;
        Ok((slot, token))
    }

    async fn fetch(&self, egress: &Egress, key: &Key) -> Result<Token, CredentialError> {
        let deadline = Instant::now() + self.timing.wait_max;
        let request = self.request(egress, key, deadline).await?;
        let asked = Instant::now();
        let reply = endpoint::ask(&egress.way(&self.allowances), request, self.timing).await;
        let granted = reply.and_then(|reply| Granted::of(&reply, &key.scope, key.caller.is_some()));
        let Granted { token, life } = granted.map_err(|error| self.failed(error))?;
        if life <= self.timing.last {
            return Err(self.failed(EndpointError::ShortLived));
        }
        let secret = HeldSecret::new(token, self.name.as_str(), &self.live);
        let presentation = Presentation::bearer(secret)
            .ok_or_else(|| self.failed(EndpointError::Member { member: "access_token" }))?;
        Ok(Token {
            presentation: Arc::new(presentation),
            refresh_at: asked + self.timing.refresh_after(life),
            usable_until: asked + life - self.timing.last,
        })
    }

    async fn request(
        &self,
        egress: &Egress,
        key: &Key,
        deadline: Instant,
    ) -> Result<Request, CredentialError> {
        let mut form: Vec<(&str, SecretString)> = Vec::new();
        match (&self.subject, &key.caller) {
            (Some(subject), Some(caller)) => {
                let (signer, _) = subject.signer.current(egress, deadline).await?;
                form.push(("grant_type", GRANT_EXCHANGE.into()));
                form.push(("subject_token", subject.subject_token(&signer, caller, &self.url)?));
                form.push(("subject_token_type", TYPE_JWT.into()));
                form.push(("actor_token", subject.actor_token(&signer, &self.client, &self.url)?));
                form.push(("actor_token_type", TYPE_JWT.into()));
                form.push(("requested_token_type", TYPE_ACCESS_TOKEN.into()));
            }
            _ => form.push(("grant_type", "client_credentials".into())),
        }
        let named = [
            ("scope", Some(key.scope.as_str()).filter(|scope| !scope.is_empty())),
            ("resource", self.resource.as_deref()),
            ("audience", self.audience.as_deref()),
        ];
        form.extend(named.into_iter().filter_map(|(name, value)| Some((name, value?.into()))));
        let mut request = Request::new(Method::POST, self.url.clone());
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if let Some(basic) = self.prove(&mut form, egress, deadline).await? {
            headers.insert(header::AUTHORIZATION, basic);
        }
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form.iter().map(|(name, value)| (name, value.expose_secret())));
        *request.body_mut() = Some(body.finish().into());
        Ok(request)
    }

    /// Puts into the form what shows who the gate is, or gives a header that does.
    async fn prove(
        &self,
        form: &mut Vec<(&str, SecretString)>,
        egress: &Egress,
        deadline: Instant,
    ) -> Result<Option<HeaderValue>, CredentialError> {
        match &self.proof {
            ClientProof::Secret(secret, ClientAuth::Basic) => {
                let (secret, _) = secret.current(egress, deadline).await?;
                return basic(&self.client, secret.expose()).map(Some);
            }
            ClientProof::Secret(secret, ClientAuth::Post) => {
                let (secret, _) = secret.current(egress, deadline).await?;
                form.push(("client_id", self.client.as_str().into()));
                form.push(("client_secret", secret.expose().into()));
            }
            ClientProof::Key(signer) => {
                let (signer, _) = signer.current(egress, deadline).await?;
                let claims = Claims {
                    iss: &self.client,
                    sub: &self.client,
                    aud: self.url.as_str(),
                    client_id: None,
                    user_iss: None,
                };
                form.push(("client_id", self.client.as_str().into()));
                form.push(("client_assertion_type", ASSERTION_JWT.into()));
                form.push(("client_assertion", signer.sign(None, &claims)?));
            }
        }
        Ok(None)
    }

    fn failed(&self, source: EndpointError) -> CredentialError {
        CredentialError::TokenEndpoint { name: self.name.clone(), source }
    }
}

impl SubjectSource {
    fn new(spec: &SubjectSpec, places: &Places<'_>) -> Result<Self, CredentialError> {
        Ok(Self {
            issuer: spec.issuer.as_str().to_owned(),
            signer: signer(&spec.key, spec.alg, places)?,
            key_id: spec.key_id.clone(),
            require_user: spec.require_user,
        })
    }

    /// Who a call's token is for.
    fn of(&self, request: &LeaseRequest<'_>) -> Result<Subject, CredentialError> {
        let client = request.client.to_owned();
        let user = match request.user {
            // Else a user could pass for a client at an endpoint that looks at `sub` alone.
            Some((_, subject)) if subject.starts_with("client:") => {
                return Err(CredentialError::ReservedSubject);
            }
            Some((issuer, subject)) => Some((issuer.to_owned(), subject.to_owned())),
            None if self.require_user => return Err(CredentialError::NeedsUser { client }),
            None => None,
        };
        Ok(Subject { client, user })
    }

    fn subject_token(
        &self,
        signer: &Signer,
        caller: &Subject,
        url: &Url,
    ) -> Result<SecretString, CredentialError> {
        let client = format!("client:{}", caller.client);
        let claims = Claims {
            iss: &self.issuer,
            sub: caller.user.as_ref().map_or(&client, |(_, subject)| subject),
            aud: url.as_str(),
            client_id: Some(&caller.client),
            user_iss: caller.user.as_ref().map(|(issuer, _)| issuer.as_str()),
        };
        signer.sign(self.key_id.as_deref(), &claims)
    }

    fn actor_token(&self, signer: &Signer, client: &str, url: &Url) -> Result<SecretString, CredentialError> {
        let claims =
            Claims { iss: &self.issuer, sub: client, aud: url.as_str(), client_id: None, user_iss: None };
        signer.sign(self.key_id.as_deref(), &claims)
    }
}

fn signer(
    reference: &SecretRef,
    algorithm: OwnAlgorithm,
    places: &Places<'_>,
) -> Result<Source<Signer>, CredentialError> {
    let named = reference.clone();
    let make = move |secret: HeldSecret| {
        Signer::from_pem(secret.expose(), algorithm)
            .map_err(|expected| CredentialError::Unusable { reference: named.clone(), expected })
    };
    Source::new(reference, places, Box::new(make))
}

/// RFC 6749 §2.3.1: both parts are form-encoded first.
fn basic(client: &str, secret: &str) -> Result<HeaderValue, CredentialError> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = STANDARD.encode(format!("{}:{}", encoded(client), encoded(secret)));
    secret_value(&format!("Basic {pair}")).ok_or(CredentialError::Unsigned)
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
