//! A vault that speaks HashiCorp Vault's HTTP API, as far as the gate needs it:
//! login by role, key-value secrets of version 2, and leases on dynamic ones.

mod api;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::Method;
use reqwest::Request;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use url::Url;

use self::api::{Login, Read, Renewal};
use super::{
    CredentialError, EndpointError,
    endpoint::{self, Reply, secret_value},
    live::{HeldSecret, LiveSecrets},
    local::Local,
    secret::Environment,
    slot::{Slot, Timed},
    timing::Timing,
};
use crate::{
    egress::{Allowances, Egress, field_value},
    manifest::{SecretRef, VaultName, VaultPath, VaultRef, VaultSpec},
};

/// How long a key-value secret serves that cannot be read again, in times of its refresh.
const STALE_REFRESHES_MAX: u32 = 12;

/// How long a session without an end of its own is used.
const SESSION_LIFE_MAX: Duration = Duration::from_secs(3_600);

/// A place for one of a vault's secrets.
pub(super) type VaultSlot = Slot<VaultSecret>;

/// A vault.
pub(super) struct Vault {
    name: VaultName,
    base: String,
    namespace: Option<String>,
    allowances: Allowances,
    access: Access,
    refresh: Duration,
    wanted: Mutex<BTreeMap<VaultPath, Wanted>>,
    live: LiveSecrets,
    timing: Timing,
}

/// The slot of a secret, and the fields that credentials name.
struct Wanted {
    slot: Arc<VaultSlot>,
    fields: BTreeSet<String>,
}

/// What the gate shows to a vault.
enum Access {
    Token(Arc<Local<HeldSecret>>),
    AppRole { role_id: String, secret_id: Arc<Local<HeldSecret>>, session: Arc<Slot<Session>> },
}

/// A login's token.
#[derive(Debug)]
pub(super) struct Session {
    token: HeldSecret,
    refresh_at: Instant,
    usable_until: Instant,
}

/// A secret that was read, as far as it is wanted.
pub(super) struct VaultSecret {
    fields: BTreeMap<String, SecretString>,
    lease: Option<Lease>,
    refresh_at: Instant,
    usable_until: Instant,
}

/// A lease on a dynamic secret.
#[derive(Clone)]
struct Lease {
    id: String,
    renewable: bool,
}

impl Timed for Session {
    fn refresh_at(&self) -> Instant {
        self.refresh_at
    }
    fn usable_until(&self) -> Instant {
        self.usable_until
    }
}

impl Timed for VaultSecret {
    fn refresh_at(&self) -> Instant {
        self.refresh_at
    }
    fn usable_until(&self) -> Instant {
        self.usable_until
    }
}

impl Vault {
    /// A vault; its own token, or the secret of its role, is at hand.
    pub(super) fn new(
        name: &VaultName,
        spec: &VaultSpec,
        base_dir: &std::path::Path,
        environment: Environment<'_>,
        live: &LiveSecrets,
        timing: Timing,
    ) -> Result<Arc<Self>, CredentialError> {
        let held_as = format!("vault {name}");
        let read = |reference: &SecretRef| {
            let named = reference.clone();
            let make = move |secret: HeldSecret| match secret_value(secret.expose()) {
                Some(_) => Ok(secret),
                None => Err(CredentialError::Unusable {
                    reference: named.clone(),
                    expected: "visible ASCII, as a vault's token is",
                }),
            };
            Local::read(&held_as, reference, base_dir, environment, live, timing, Box::new(make))
        };
        let access = match (&spec.token, &spec.app_role) {
            (Some(token), None) => Access::Token(read(token)?),
            (None, Some(role)) => Access::AppRole {
                role_id: role.role_id.clone(),
                secret_id: read(&role.secret_id)?,
                session: Slot::new(timing),
            },
            _ => return Err(CredentialError::Spec("a vault has either a `token` or an `app-role`")),
        };
        if spec.namespace.as_ref().is_some_and(|namespace| field_value(namespace).is_none()) {
            return Err(CredentialError::Spec("a vault's `namespace` is visible ASCII"));
        }
        Ok(Arc::new(Self {
            name: name.clone(),
            base: spec.url.url().as_str().trim_end_matches('/').to_owned(),
            namespace: spec.namespace.clone(),
            allowances: Allowances::new(&spec.egress)
                .map_err(|_| CredentialError::Spec("the vault's `egress` cannot be allowed"))?,
            access,
            refresh: spec.refresh.duration(),
            wanted: Mutex::default(),
            live: live.clone(),
            timing,
        }))
    }

    pub(super) const fn live(&self) -> &LiveSecrets {
        &self.live
    }

    /// The place of a secret, of which one more field is wanted from now on.
    pub(super) fn slot(&self, reference: &VaultRef) -> Arc<VaultSlot> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = wanted
            .entry(reference.path.clone())
            .or_insert_with(|| Wanted { slot: Slot::new(self.timing), fields: BTreeSet::new() });
        wanted.fields.insert(reference.field.clone());
        Arc::clone(&wanted.slot)
    }

    /// A field of a secret.
    pub(super) fn field(&self, secret: &VaultSecret, field: &str) -> Result<SecretString, CredentialError> {
        secret
            .fields
            .get(field)
            .filter(|value| !value.expose_secret().is_empty())
            .cloned()
            .ok_or_else(|| self.failed(EndpointError::NoField { field: field.to_owned() }))
    }

    /// A secret, read if need be.
    pub(super) async fn get(
        self: &Arc<Self>,
        slot: &Arc<VaultSlot>,
        path: &VaultPath,
        egress: &Egress,
        deadline: Instant,
    ) -> Result<Arc<VaultSecret>, CredentialError> {
        slot.get(deadline, |before| {
            let (this, path, egress) = (Arc::clone(self), path.clone(), egress.clone());
            async move { this.fetch(&path, before, &egress).await }
        })
        .await
    }

    async fn fetch(
        self: &Arc<Self>,
        path: &VaultPath,
        before: Option<Arc<VaultSecret>>,
        egress: &Egress,
    ) -> Result<VaultSecret, CredentialError> {
        if let Some(renewed) = self.renew(before, egress).await {
            return Ok(renewed);
        }
        let asked = Instant::now();
        let reply = self.ask(Method::GET, path.as_str(), None, egress).await?;
        let read = Read::of(&reply, path.is_dynamic()).map_err(|error| self.failed(error))?;
        let (life, refresh) = if path.is_dynamic() {
            (read.life, self.timing.refresh_after(read.life))
        } else {
            (self.refresh * STALE_REFRESHES_MAX + self.timing.last, self.refresh)
        };
        let lease = read.lease.map(|(id, renewable)| Lease { id, renewable });
        if life <= self.timing.last {
            return Err(self.failed(EndpointError::ShortLived));
        }
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |field: &String| wanted.get(path).is_some_and(|wanted| wanted.fields.contains(field));
        Ok(VaultSecret {
            fields: read.fields.into_iter().filter(|(field, _)| is_wanted(field)).collect(),
            lease,
            refresh_at: asked + refresh,
            usable_until: asked + life - self.timing.last,
        })
    }

    /// Prolongs a lease that is still good; none where it cannot be, so that a new one is taken.
    async fn renew(
        self: &Arc<Self>,
        before: Option<Arc<VaultSecret>>,
        egress: &Egress,
    ) -> Option<VaultSecret> {
        let before = before.filter(|before| Instant::now() < before.usable_until)?;
        let lease = before.lease.clone().filter(|lease| lease.renewable)?;
        let asked = Instant::now();
        let body = json!({ "lease_id": lease.id });
        let reply = self.ask(Method::PUT, "sys/leases/renew", Some(body.to_string()), egress).await.ok()?;
        let Renewal { life, renewable } = Renewal::of(&reply).ok()?;
        let usable_until = (asked + life).checked_sub(self.timing.last)?;
        // A lease at the end of its longest life is renewed for less and less.
        if usable_until <= before.usable_until {
            return None;
        }
        Some(VaultSecret {
            fields: before.fields.clone(),
            lease: Some(Lease { renewable, ..lease }),
            refresh_at: asked + self.timing.refresh_after(life),
            usable_until,
        })
    }

    /// Sends one request. A session that is refused is given up for a new one, once.
    async fn ask(
        self: &Arc<Self>,
        method: Method,
        path: &str,
        body: Option<String>,
        egress: &Egress,
    ) -> Result<Reply, CredentialError> {
        let mut is_first = true;
        loop {
            let shown = self.token(egress).await?;
            let mut request = self.request(method.clone(), path, body.clone())?;
            let token = secret_value(shown.token()).ok_or(CredentialError::Unsigned)?;
            request.headers_mut().insert("x-vault-token", token);
            let way = egress.way(&self.allowances);
            let reply =
                endpoint::ask(&way, request, self.timing).await.map_err(|error| self.failed(error))?;
            match (reply.status, &self.access, shown) {
                (403, Access::AppRole { session, .. }, Shown::Session(refused)) if is_first => {
                    session.reject(&refused);
                    is_first = false;
                }
                _ => return api::judge(reply).map_err(|error| self.failed(error)),
            }
        }
    }

    async fn token(self: &Arc<Self>, egress: &Egress) -> Result<Shown, CredentialError> {
        match &self.access {
            Access::Token(token) => token.current().await.map(Shown::Token),
            Access::AppRole { session, .. } => {
                let deadline = Instant::now() + self.timing.wait_max;
                let login = |_| {
                    let (this, egress) = (Arc::clone(self), egress.clone());
                    async move { this.log_in(&egress).await }
                };
                session.get(deadline, login).await.map(Shown::Session)
            }
        }
    }

    async fn log_in(&self, egress: &Egress) -> Result<Session, CredentialError> {
        let Access::AppRole { role_id, secret_id, .. } = &self.access else {
            return Err(self.failed(EndpointError::Denied));
        };
        let secret_id = secret_id.current().await?;
        let body = json!({ "role_id": role_id, "secret_id": secret_id.expose() });
        let request = self.request(Method::POST, "auth/approle/login", Some(body.to_string()))?;
        let asked = Instant::now();
        let reply = endpoint::ask(&egress.way(&self.allowances), request, self.timing).await;
        let login = reply.and_then(api::judge).and_then(|reply| Login::of(&reply));
        let Login { token, life } = login.map_err(|error| self.failed(error))?;
        let life = if life.is_zero() { SESSION_LIFE_MAX } else { life.min(SESSION_LIFE_MAX) };
        if life <= self.timing.last {
            return Err(self.failed(EndpointError::ShortLived));
        }
        Ok(Session {
            token: HeldSecret::new(token, &format!("vault {}", self.name), &self.live),
            refresh_at: asked + self.timing.refresh_after(life),
            usable_until: asked + life - self.timing.last,
        })
    }

    fn request(&self, method: Method, path: &str, body: Option<String>) -> Result<Request, CredentialError> {
        let url = Url::parse(&format!("{}/v1/{path}", self.base));
        let url = url.map_err(|_| CredentialError::Spec("the vault's `url` makes no request"))?;
        let mut request = Request::new(method, url);
        let headers = request.headers_mut();
        headers.insert("x-vault-request", http::HeaderValue::from_static("true"));
        if let Some(namespace) = self.namespace.as_deref().and_then(field_value) {
            headers.insert("x-vault-namespace", namespace);
        }
        if let Some(body) = body {
            headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.into());
        }
        Ok(request)
    }

    /// Gives back what was lent: leases, and the session that they were taken under.
    pub(super) async fn close(self: &Arc<Self>, egress: &Egress) {
        let slots: Vec<_> = {
            let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            wanted.values().map(|wanted| Arc::clone(&wanted.slot)).collect()
        };
        for lease in slots.iter().filter_map(|slot| slot.take()?.lease.clone()) {
            let body = json!({ "lease_id": lease.id }).to_string();
            let _ = self.ask(Method::PUT, "sys/leases/revoke", Some(body), egress).await;
        }
        if let Access::AppRole { session, .. } = &self.access
            && let Some(session) = session.take()
            && let Ok(mut request) = self.request(Method::POST, "auth/token/revoke-self", None)
            && let Some(token) = secret_value(session.token.expose())
        {
            request.headers_mut().insert("x-vault-token", token);
            let _ = endpoint::ask(&egress.way(&self.allowances), request, self.timing).await;
        }
    }

    fn failed(&self, source: EndpointError) -> CredentialError {
        CredentialError::Vault { vault: self.name.clone(), source }
    }
}

/// What a request to a vault shows.
enum Shown {
    Token(Arc<HeldSecret>),
    Session(Arc<Session>),
}

impl Shown {
    fn token(&self) -> &str {
        match self {
            Self::Token(token) => token.expose(),
            Self::Session(session) => session.token.expose(),
        }
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for VaultSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultSecret").field("fields", &self.fields.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
