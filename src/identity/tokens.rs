//! Access tokens: who a token stands for, and what it grants.
//!
//! A token is verified once; while its key is still taken and it has not ended, its digest is enough.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use globset::{Glob, GlobSet, GlobSetBuilder};
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    Authentication, Caller, Client, Clients, Grant, IdentityError,
    issuers::{Issuer, Issuers},
    jwt::{Claims, Confirmation, Unverified},
    own::{self, OwnTokens},
};
use crate::{
    call::{Certificate, User},
    egress::Egress,
    manifest::{ClientName, IdentitySpec, IssuerName, KeyId, RoleName, Scope},
    runs::{RunId, Runs},
};

/// How many tokens are remembered; beyond it they are verified anew.
const KNOWN_MAX: usize = 10_000;
/// How many values of a claim are looked at.
const VALUES_MAX: usize = 1_000;

/// The tokens that are taken: of the issuers, and of this server's own.
#[derive(Debug)]
pub(super) struct Tokens {
    issuers: Issuers,
    own: Option<OwnTokens>,
    known: Mutex<HashMap<[u8; 32], Arc<Known>>>,
}

/// A token that was verified.
#[derive(Debug)]
struct Known {
    by: By,
    kid: Option<String>,
    holder: Holder,
    confirmation: Option<Confirmation>,
    grant: Arc<Grant>,
}

/// Whose key verified it.
#[derive(Debug)]
enum By {
    Issuer(Arc<Issuer>),
    Us,
}

/// Which client it says that it is for.
#[derive(Debug)]
enum Holder {
    /// By an issuer's name for it.
    Foreign(IssuerName, String),
    /// By its own name.
    Named(ClientName),
}

impl Tokens {
    pub(super) fn new(spec: &IdentitySpec, egress: &Egress, runs: &Arc<Runs>) -> Self {
        let own = spec.tokens.as_ref().and_then(|tokens| OwnTokens::new(spec, tokens, Arc::clone(runs)));
        Self { issuers: Issuers::new(spec, egress), own, known: Mutex::default() }
    }

    /// The tokens of this server's own, where it issues any.
    pub(super) const fn own(&self) -> Option<&OwnTokens> {
        self.own.as_ref()
    }

    pub(super) fn knows_issuer(&self, issuer: &str) -> bool {
        self.issuers.knows(issuer) || self.own.as_ref().is_some_and(|own| own.issuer() == issuer)
    }

    /// Who shows a token, over a connection with this certificate.
    pub(super) async fn caller(
        &self,
        clients: &Clients,
        token: &str,
        certificate: Option<&Certificate>,
        now: Timestamp,
    ) -> Result<Caller, IdentityError> {
        let known = self.known(token, now).await?;
        let client = known.holder.client(clients).ok_or(IdentityError::NoClient)?;
        let authentication = match known.confirmation {
            None => Authentication::Token,
            // RFC 8705 §3: whoever shows it has the certificate's key, or has stolen it.
            Some(Confirmation::Certificate(bound)) => {
                let same = certificate.is_some_and(|certificate| certificate.sha256 == bound);
                same.then_some(Authentication::BoundToken).ok_or(IdentityError::Unbound)?
            }
        };
        Ok(Caller { client, authentication, key: None, grant: Some(Arc::clone(&known.grant)) })
    }

    async fn known(&self, token: &str, now: Timestamp) -> Result<Arc<Known>, IdentityError> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        if let Some(known) = known
            && known.grant.expires > now
            && self.still_takes(&known)
        {
            return Ok(known);
        }
        let known = Arc::new(self.verify(token, now).await?);
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KNOWN_MAX {
            all.retain(|_, known| known.grant.expires > now);
        }
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        all.insert(digest, Arc::clone(&known));
        Ok(known)
    }

    fn still_takes(&self, known: &Known) -> bool {
        let kid = known.kid.as_deref();
        match &known.by {
            By::Issuer(issuer) => issuer.has(kid),
            By::Us => self.own.as_ref().is_some_and(|own| own.has(kid)),
        }
    }

    async fn verify(&self, token: &str, now: Timestamp) -> Result<Known, IdentityError> {
        let unverified = Unverified::parse(token).map_err(IdentityError::Token)?;
        let kid = unverified.kid_hint().map(str::to_owned);
        if let Some(own) = self.own.as_ref().filter(|own| unverified.issuer_hint() == Some(own.issuer())) {
            let claims = own.verify(unverified, now).await?;
            return own_token(own, &claims, kid);
        }
        let issuer = self.issuers.of(&unverified).ok_or(IdentityError::UnknownIssuer)?;
        let claims = issuer.verify(unverified, now).await?;
        foreign_token(issuer, &claims, kid)
    }
}

impl Holder {
    fn client(&self, clients: &Clients) -> Option<Arc<Client>> {
        match self {
            Self::Foreign(issuer, client) => clients.by_token(issuer, client),
            Self::Named(name) => clients.named(name),
        }
    }
}

/// A token of this server's own says what [`OwnTokens::mint`] wrote into it.
fn own_token(own: &OwnTokens, claims: &Claims, kid: Option<String>) -> Result<Known, IdentityError> {
    let misfit = || IdentityError::Claims;
    let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let client = claims.client().and_then(|name| ClientName::parse(name).ok()).ok_or_else(misfit)?;
    let run = claims.all().get(own::RUN).and_then(Value::as_str).and_then(RunId::parse).ok_or_else(misfit)?;
    let named = |user: &Value| Some(User { issuer: text(user, "issuer")?, subject: text(user, "subject")? });
    let user = claims.all().get(own::USER).map(|user| named(user).ok_or_else(misfit));
    let named_key = |key: &Value| KeyId::parse(key.as_str()?).ok();
    let key = claims.all().get(own::KEY).map(|key| named_key(key).ok_or_else(misfit));
    let tools = claims.all().get(own::TOOLS).map(|tools| {
        let tools = tools.as_array().ok_or_else(misfit)?;
        globs(tools.iter().map(|tool| tool.as_str().unwrap_or_default())).ok_or_else(misfit)
    });
    let grant = Grant {
        issuer: own.issuer().to_owned(),
        id: claims.id().map(str::to_owned),
        expires: claims.expires(),
        user: user.transpose()?,
        scopes: scopes(claims.scopes()),
        roles: BTreeSet::new(),
        tools: tools.transpose()?,
        run: Some(run),
        key: key.transpose()?,
    };
    let (holder, confirmation) = (Holder::Named(client), claims.confirmation());
    Ok(Known { by: By::Us, kid, holder, confirmation, grant: Arc::new(grant) })
}

fn foreign_token(issuer: &Arc<Issuer>, claims: &Claims, kid: Option<String>) -> Result<Known, IdentityError> {
    let spec = issuer.claims();
    let client = match spec.client.as_str() {
        "client_id" => claims.client(),
        name => claim(claims, name).and_then(Value::as_str),
    };
    let client = client.filter(|client| !client.is_empty()).ok_or(IdentityError::Claims)?;
    // RFC 9068 §2.2: without an end user, the subject is the client, by either of its names.
    let of_client = claims.subject() == client || claims.client() == Some(claims.subject());
    let user = (!of_client)
        .then(|| User { issuer: claims.issuer().to_owned(), subject: claims.subject().to_owned() });
    let scopes = match spec.scopes.as_str() {
        "scope" => scopes(claims.scopes()),
        name => values(claims, name).filter_map(|scope| Scope::parse(scope).ok()).collect(),
    };
    let roles = spec.roles.iter().flat_map(|name| values(claims, name));
    let grant = Grant {
        issuer: claims.issuer().to_owned(),
        id: claims.id().map(str::to_owned),
        expires: issuer.takes_until(claims.expires()),
        user,
        scopes,
        roles: roles.filter_map(|role| RoleName::parse(role).ok()).collect(),
        tools: None,
        run: None,
        key: None,
    };
    Ok(Known {
        by: By::Issuer(Arc::clone(issuer)),
        kid,
        holder: Holder::Foreign(issuer.name().clone(), client.to_owned()),
        confirmation: claims.confirmation(),
        grant: Arc::new(grant),
    })
}

/// A claim by its name, or one inside of another by a JSON pointer.
fn claim<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    let Some(rest) = name.strip_prefix('/') else { return claims.all().get(name) };
    match rest.split_once('/') {
        None => claims.all().get(rest),
        Some((first, rest)) => claims.all().get(first)?.pointer(&format!("/{rest}")),
    }
}

/// The texts of a claim: a list, or separated by spaces.
fn values<'a>(claims: &'a Claims, name: &str) -> impl Iterator<Item = &'a str> {
    let (list, text) = match claim(claims, name) {
        Some(Value::Array(list)) => (list.as_slice(), ""),
        Some(Value::String(text)) => (&[][..], text.as_str()),
        _ => (&[][..], ""),
    };
    list.iter()
        .filter_map(Value::as_str)
        .chain(text.split(' '))
        .filter(|value| !value.is_empty())
        .take(VALUES_MAX)
}

fn scopes(scopes: &BTreeSet<String>) -> BTreeSet<Scope> {
    scopes.iter().filter_map(|scope| Scope::parse(scope).ok()).collect()
}

/// The tools that a list of names and globs leaves.
pub(super) fn globs<'a>(tools: impl Iterator<Item = &'a str>) -> Option<GlobSet> {
    let mut globs = GlobSetBuilder::new();
    for tool in tools {
        globs.add(Glob::new(tool).ok().filter(|_| !tool.is_empty())?);
    }
    globs.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_the_documentation_says() {
        let matches = |pattern: &str, tool: &str| globs([pattern].into_iter()).unwrap().is_match(tool);
        for (pattern, tool) in [
            ("orders.*", "orders."),
            ("orders.*", "orders.a.b"),
            ("orders.?et", "orders.get"),
            ("a[b-d]", "ac"),
            ("a[!b-d]", "ae"),
            ("{get,list}.x", "list.x"),
            (r"a\*", "a*"),
        ] {
            assert!(matches(pattern, tool), "{pattern} {tool}");
        }
        for (pattern, tool) in [
            ("orders.*", "orders"),
            ("orders.*", "my.orders.get"),
            ("orders.?et", "orders.et"),
            ("a[b-d]", "ae"),
            ("a[!b-d]", "ac"),
            ("get", "get.x"),
            ("get", "GET"),
            (r"a\*", "ab"),
        ] {
            assert!(!matches(pattern, tool), "{pattern} {tool}");
        }
    }
}
