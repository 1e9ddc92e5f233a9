//! What the identity provider decides: who may have a code, and what a token says.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use callgate::identity::jwt::{Algorithm, Signing, SigningError};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use url::{Host, Url};

use super::{
    form::{Form, ShownClient},
    store::{Application, Client, Code, Config, Grant, Store},
};

/// How many clients may register themselves.
const REGISTERED_MAX: usize = 1_000;

/// The identity provider.
pub(super) struct Provider {
    issuer: String,
    config: Config,
    user: String,
    store: Mutex<Store>,
}

/// Why there is none of what was asked for (RFC 6749 §4.1.2.1, §5.2).
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) description: &'static str,
}

impl Refusal {
    pub(super) const fn new(code: &'static str, description: &'static str) -> Self {
        Self { code, description }
    }
}

impl Provider {
    pub(super) fn new(issuer: String, config: Config, user: String) -> Result<Self, SigningError> {
        let known = config.clients.iter().map(|(name, application)| {
            (name.clone(), Client { app: name.clone(), application: application.clone() })
        });
        let store = Store::new(known.collect());
        let provider = Self { issuer, config, user, store: Mutex::new(store) };
        provider.rotate()?;
        Ok(provider)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it tells of itself (RFC 8414 §2, OpenID Connect Discovery §3).
    pub(super) fn metadata(&self) -> Value {
        let issuer = &self.issuer;
        let clients = self.config.clients.values().chain(&self.config.registered);
        let scopes: BTreeSet<&String> = clients.flat_map(|client| &client.scopes).collect();
        let mut described = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/jwks"),
            "scopes_supported": scopes,
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "authorization_response_iss_parameter_supported": true,
        });
        if let (Some(members), Some(_)) = (described.as_object_mut(), &self.config.registered) {
            members.insert("registration_endpoint".into(), json!(format!("{issuer}/register")));
        }
        described
    }

    pub(super) fn jwks(&self) -> Value {
        let mut store = self.store();
        store.jwks_reads += 1;
        json!({ "keys": store.keys.iter().map(Signing::public_jwk).collect::<Vec<_>>() })
    }

    /// Signs with a new key from now on.
    pub(super) fn rotate(&self) -> Result<String, SigningError> {
        let key = Signing::generate(Algorithm::ES256)?.signing;
        let kid = key.kid().to_owned();
        self.store().keys.push(key);
        Ok(kid)
    }

    pub(super) fn counts(&self) -> Value {
        let store = self.store();
        json!({ "jwks": store.jwks_reads, "tokens": store.tokens_made })
    }

    /// RFC 7591 §3.1: every client that registers itself is public, whatever it asks for.
    pub(super) fn register(&self, body: &[u8]) -> Result<Value, Refusal> {
        let forbidden = Refusal::new("access_denied", "nobody may register");
        let template = self.config.registered.as_ref().ok_or(forbidden)?;
        let broken = || Refusal::new("invalid_client_metadata", "not an object with `redirect_uris`");
        let mut asked: Map<String, Value> = serde_json::from_slice(body).map_err(|_| broken())?;
        let redirects: Vec<String> = asked
            .get("redirect_uris")
            .cloned()
            .and_then(|list| serde_json::from_value(list).ok())
            .ok_or_else(broken)?;
        if redirects.is_empty() || !redirects.iter().all(|redirect| is_safe(redirect)) {
            return Err(Refusal::new("invalid_redirect_uri", "only `https` and this machine"));
        }
        let id = random()?;
        let mut store = self.store();
        if store.clients.len() >= REGISTERED_MAX + self.config.clients.len() {
            return Err(Refusal::new("access_denied", "too many clients"));
        }
        let application = Application { secret: None, redirects, scopes: template.scopes.clone() };
        store.clients.insert(id.clone(), Client { app: "registered".into(), application });
        asked.insert("client_id".into(), id.into());
        asked.insert("token_endpoint_auth_method".into(), "none".into());
        asked.insert("grant_types".into(), json!(["authorization_code", "refresh_token"]));
        asked.insert("response_types".into(), json!(["code"]));
        Ok(Value::Object(asked))
    }

    /// Where the user is sent with a code, or with the reason why there is none.
    pub(super) fn authorize(&self, query: &Form) -> Result<Url, Refusal> {
        let (id, redirect) = (query.need("client_id")?, query.need("redirect_uri")?);
        let client = self.client(id)?;
        let mut to = client
            .application
            .redirects
            .iter()
            .find_map(|known| matching(known, redirect))
            .ok_or(Refusal::new("invalid_request", "not a redirect of this client"))?;
        let outcome = self.code(query, id, &client, redirect);
        let mut answer = to.query_pairs_mut();
        match outcome {
            Ok(code) => answer.append_pair("code", &code),
            Err(refusal) => answer
                .append_pair("error", refusal.code)
                .append_pair("error_description", refusal.description),
        };
        if let Some(state) = query.get("state") {
            answer.append_pair("state", state);
        }
        answer.append_pair("iss", &self.issuer); // RFC 9207
        drop(answer);
        Ok(to)
    }

    fn code(&self, query: &Form, id: &str, client: &Client, redirect: &str) -> Result<String, Refusal> {
        if query.need("response_type")? != "code" {
            return Err(Refusal::new("unsupported_response_type", "only `code`"));
        }
        let challenge = query.need("code_challenge")?.to_owned();
        if query.get("code_challenge_method") != Some("S256") {
            return Err(Refusal::new("invalid_request", "the challenge must be of `S256`"));
        }
        let grant = Grant {
            client: id.to_owned(),
            user: query.get("login_hint").unwrap_or(&self.user).to_owned(),
            scopes: granted(client, query.get("scope"))?,
            resource: self.resource(query)?,
        };
        let code = random()?;
        if !self.store().add_code(&code, Code::new(grant, redirect.to_owned(), challenge)) {
            return Err(Refusal::new("temporarily_unavailable", "too many codes"));
        }
        Ok(code)
    }

    /// Answers at the token endpoint.
    pub(super) fn token(&self, form: &Form, shown: &ShownClient) -> Result<Value, Refusal> {
        let client = self.client(&shown.id)?;
        // Not in constant time: this is an example, and its secrets are in a file beside it.
        if client.application.secret != shown.secret {
            return Err(Refusal::new("invalid_client", "unknown client, or a wrong secret"));
        }
        match form.need("grant_type")? {
            "authorization_code" => self.redeem_code(form, shown, &client),
            "refresh_token" => self.redeem_refresh(form, shown, &client),
            "client_credentials" if shown.secret.is_some() => {
                let grant = Grant {
                    client: shown.id.clone(),
                    user: shown.id.clone(),
                    scopes: granted(&client, form.get("scope"))?,
                    resource: self.resource(form)?,
                };
                self.answer(&grant, &client, false)
            }
            "client_credentials" => Err(Refusal::new("unauthorized_client", "the client has no secret")),
            _ => Err(Refusal::new("unsupported_grant_type", "there is no such grant")),
        }
    }

    fn redeem_code(&self, form: &Form, shown: &ShownClient, client: &Client) -> Result<Value, Refusal> {
        let wrong = || Refusal::new("invalid_grant", "the code is not good, or not for this");
        let code = self.store().take_code(form.need("code")?).ok_or_else(wrong)?;
        let verifier = Sha256::digest(form.need("code_verifier")?);
        let fits = code.grant.client == shown.id
            && code.redirect == form.need("redirect_uri")?
            && code.challenge == URL_SAFE_NO_PAD.encode(verifier);
        if !fits {
            return Err(wrong());
        }
        self.same_resource(form, &code.grant)?;
        self.answer(&code.grant, client, true)
    }

    fn redeem_refresh(&self, form: &Form, shown: &ShownClient, client: &Client) -> Result<Value, Refusal> {
        let wrong = || Refusal::new("invalid_grant", "the refresh token is not good, or not this client's");
        let mut grant = self.store().take_refresh(form.need("refresh_token")?).ok_or_else(wrong)?;
        if grant.client != shown.id {
            return Err(wrong());
        }
        self.same_resource(form, &grant)?;
        if let Some(asked) = form.get("scope") {
            let asked: BTreeSet<String> = asked.split(' ').map(str::to_owned).collect();
            if !asked.is_subset(&grant.scopes) {
                return Err(Refusal::new("invalid_scope", "more than was granted"));
            }
            grant.scopes = asked;
        }
        self.answer(&grant, client, true)
    }

    /// RFC 6749 §5.1, with a token of RFC 9068.
    fn answer(&self, grant: &Grant, client: &Client, refresh: bool) -> Result<Value, Refusal> {
        let now = Timestamp::now().as_second();
        let scope = grant.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let claims = json!({
            "iss": self.issuer,
            "sub": grant.user,
            "aud": grant.resource,
            "client_id": grant.client,
            "app": client.app,
            "scope": scope,
            "jti": random()?,
            "iat": now,
            "exp": now + i64::from(self.config.lifetime_seconds),
        });
        let mut store = self.store();
        let failed = || Refusal::new("server_error", "no token could be signed");
        let token = match (store.keys.last(), claims.as_object()) {
            (Some(key), Some(claims)) => key.sign("at+jwt", claims).map_err(|_| failed())?,
            _ => return Err(failed()),
        };
        store.tokens_made += 1;
        let mut answer = json!({
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self.config.lifetime_seconds,
            "scope": scope,
        });
        let next = random()?;
        if let Some(members) = answer.as_object_mut()
            && refresh
            && store.add_refresh(&next, grant.clone())
        {
            members.insert("refresh_token".into(), next.into());
        }
        Ok(answer)
    }

    fn client(&self, id: &str) -> Result<Client, Refusal> {
        let unknown = Refusal::new("invalid_client", "unknown client, or a wrong secret");
        self.store().clients.get(id).cloned().ok_or(unknown)
    }

    /// What the token is to be for: it must be said, and be known (RFC 8707 §2).
    fn resource(&self, form: &Form) -> Result<String, Refusal> {
        let known = form.get("resource").filter(|resource| self.config.resources.contains(*resource));
        known.map(str::to_owned).ok_or(Refusal::new("invalid_target", "`resource` is missing or unknown"))
    }

    fn same_resource(&self, form: &Form, grant: &Grant) -> Result<(), Refusal> {
        if self.resource(form)? == grant.resource {
            return Ok(());
        }
        Err(Refusal::new("invalid_target", "not the resource of the grant"))
    }
}

/// The scopes that are asked for and that the client may have. Of nothing, nothing is granted.
fn granted(client: &Client, asked: Option<&str>) -> Result<BTreeSet<String>, Refusal> {
    let asked = asked.unwrap_or_default().split(' ');
    let granted: BTreeSet<String> =
        asked.filter(|scope| client.application.scopes.contains(*scope)).map(str::to_owned).collect();
    if granted.is_empty() {
        return Err(Refusal::new("invalid_scope", "no scope that this client may have"));
    }
    Ok(granted)
}

/// Whether a redirect ends at this machine, or is kept from readers on the way.
fn is_safe(redirect: &str) -> bool {
    let Ok(url) = Url::parse(redirect) else { return false };
    url.fragment().is_none() && (url.scheme() == "https" || is_loopback(&url))
}

fn is_loopback(url: &Url) -> bool {
    let local = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "http" && local
}

/// The redirect that was asked for, if it is the known one. Of a loopback one the port is free (RFC 8252 §7.3).
fn matching(known: &str, asked: &str) -> Option<Url> {
    let url = Url::parse(asked).ok()?;
    if known == asked {
        return Some(url);
    }
    let (mut known, mut portless) = (Url::parse(known).ok()?, url.clone());
    if !is_loopback(&known) || known.set_port(None).is_err() || portless.set_port(None).is_err() {
        return None;
    }
    (known == portless).then_some(url)
}

fn random() -> Result<String, Refusal> {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Refusal::new("server_error", "no randomness"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
