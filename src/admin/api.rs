//! What can be asked, and how each change comes to be on record.

mod acts;

use std::{net::SocketAddr, sync::Arc};

use aws_lc_rs::rand;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde_json::{Value, json};

use super::{
    arguments::{Arguments, Asked, shown, text},
    error::ApiError,
    keys::Admin,
    request::body,
    slip::is_like_a_token,
};
use crate::{
    gateway::Gateway,
    manifest::{ClientName, KeyId},
    runs::{KeyView, Revocation, RunId, Runs, Standing, TokenId},
    upstream::Upstreams,
};
use acts::Act;

/// How many runs and keys are listed.
const LISTED_MAX: usize = 1_000;
/// For how long a key is made unless it is said.
const KEY_DAYS: i64 = 90;
/// For how long a key can be made.
const KEY_DAYS_MAX: i64 = 366;
/// How long the old key works beside the new one unless it is said, in seconds.
const OVERLAP_S: u64 = 86_400;
/// How long it can.
const OVERLAP_S_MAX: u64 = 30 * 86_400;
/// How long the id of a token may be.
const TOKEN_ID_BYTES_MAX: usize = 512;
/// How long the ids of the server's own tokens are.
const OWN_TOKEN_ID_BYTES: usize = 32;
/// What the end of a key's life looks like.
const EXPIRES: &str = "a day such as `2027-06-30`, or a moment (RFC 3339)";

/// The requests that are taken.
#[derive(Debug)]
pub(super) struct Api {
    gateway: Arc<Gateway>,
    runs: Arc<Runs>,
    upstreams: Upstreams,
}

/// A kind of thing that can be revoked.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Client,
    Key,
    Token,
    Run,
}

#[derive(Debug)]
struct Revoke {
    kind: Kind,
    name: String,
    /// Of a token: who issued it.
    issuer: Option<String>,
    reason: String,
    until: Option<Timestamp>,
}

#[derive(Debug)]
struct EndRun {
    run: String,
    reason: String,
}

#[derive(Debug)]
struct NewKey {
    client: ClientName,
    expires: Option<String>,
}

#[derive(Debug)]
struct RotateKey {
    id: KeyId,
    expires: Option<String>,
    overlap_s: Option<u64>,
}

#[derive(Debug)]
struct RevokeKey {
    id: KeyId,
    reason: String,
}

impl Asked for Revoke {
    fn take(arguments: &mut Arguments) -> Result<Self, ApiError> {
        let kind = |value: &Value| match value.as_str()? {
            "client" => Some(Kind::Client),
            "key" => Some(Kind::Key),
            "token" => Some(Kind::Token),
            "run" => Some(Kind::Run),
            _ => None,
        };
        let moment = |value: &Value| value.as_str()?.parse().ok();
        Ok(Self {
            kind: arguments.needed("kind", "`client`, `key`, `token` or `run`", kind)?,
            name: arguments.needed("name", "the name of what is revoked", text)?,
            issuer: arguments.optional("issuer", "the issuer of the token", text)?,
            reason: reason(arguments)?,
            until: arguments.optional("until", "a moment such as `2027-06-30T12:00:00Z`", moment)?,
        })
    }
}

impl Asked for EndRun {
    fn take(arguments: &mut Arguments) -> Result<Self, ApiError> {
        Ok(Self { run: arguments.needed("run", "the id of a run", text)?, reason: reason(arguments)? })
    }
}

impl Asked for NewKey {
    fn take(arguments: &mut Arguments) -> Result<Self, ApiError> {
        let name = |value: &Value| ClientName::parse(value.as_str()?).ok();
        Ok(Self {
            client: arguments.needed("client", ClientName::EXPECTED, name)?,
            expires: expires(arguments)?,
        })
    }
}

impl Asked for RotateKey {
    fn take(arguments: &mut Arguments) -> Result<Self, ApiError> {
        Ok(Self {
            id: key_id(arguments)?,
            expires: expires(arguments)?,
            overlap_s: arguments.optional("overlap_s", "a whole number of seconds", Value::as_u64)?,
        })
    }
}

impl Asked for RevokeKey {
    fn take(arguments: &mut Arguments) -> Result<Self, ApiError> {
        Ok(Self { id: key_id(arguments)?, reason: reason(arguments)? })
    }
}

fn reason(arguments: &mut Arguments) -> Result<String, ApiError> {
    Ok(arguments.optional("reason", "a text", text)?.unwrap_or_default())
}

fn expires(arguments: &mut Arguments) -> Result<Option<String>, ApiError> {
    arguments.optional("expires", EXPIRES, text)
}

fn key_id(arguments: &mut Arguments) -> Result<KeyId, ApiError> {
    let id = |value: &Value| KeyId::parse(value.as_str()?).ok();
    arguments.needed("id", KeyId::EXPECTED, id)
}

impl Api {
    pub(super) const fn new(gateway: Arc<Gateway>, runs: Arc<Runs>, upstreams: Upstreams) -> Self {
        Self { gateway, runs, upstreams }
    }

    /// Counts a request of somebody who is not known.
    pub(super) fn count(&self, source: SocketAddr, code: &'static str) {
        self.gateway.count(Some(source.ip()), code);
    }

    pub(super) async fn answer(
        &self,
        admin: Admin,
        source: SocketAddr,
        method: &Method,
        path: &str,
        request: Request<Incoming>,
    ) -> Result<Value, ApiError> {
        let act = Act { runs: &self.runs, audit: self.gateway.audit(), admin, source, now: Timestamp::now() };
        match (method.as_str(), path) {
            ("POST", "/v1/revoke") => self.revoke(act, body(request).await?).await,
            ("GET", "/v1/revocations") => Ok(self.revocations()),
            ("GET", "/v1/upstreams") => Ok(self.list_upstreams()),
            ("GET", "/v1/runs") => Ok(self.list_runs()),
            ("POST", "/v1/runs/end") => self.end_run(act, body(request).await?).await,
            ("GET", "/v1/keys") => Ok(self.list_keys()),
            ("POST", "/v1/keys") => self.new_key(act, body(request).await?).await,
            ("POST", "/v1/keys/rotate") => self.rotate_key(act, body(request).await?).await,
            ("POST", "/v1/keys/revoke") => self.revoke_key(act, body(request).await?).await,
            _ => Err(ApiError::unknown("unknown_path", "there is nothing here")),
        }
    }

    async fn revoke(&self, act: Act<'_>, asked: Revoke) -> Result<Value, ApiError> {
        let Revoke { kind, name, issuer, reason, until } = asked;
        if issuer.is_some() != matches!(kind, Kind::Token) {
            return Err(ApiError::bad("issuer", "an `issuer` is named for a token, and for nothing else"));
        }
        if let Some(until) = until {
            // A revocation that passes while the thing is still good would revive it.
            let soonest = act.now.checked_add(TOKEN_LIFE_MAX).unwrap_or(Timestamp::MAX);
            if !matches!(kind, Kind::Token) || until < soonest {
                let message = format!(
                    "a revocation is for good; only that of a token can end, and not before {soonest:.0}, when the token has"
                );
                return Err(ApiError::bad("until", message));
            }
        }
        let unreadable = |expected: String| ApiError::bad("name", expected);
        let rules = self.gateway.rules();
        let (what, known) = match kind {
            Kind::Client => {
                let name = ClientName::parse(&name).map_err(|error| unreadable(error.to_string()))?;
                let known = rules.clients.named(&name).is_some();
                (Revocation::Client(name), known)
            }
            Kind::Key => {
                let id = KeyId::parse(&name).map_err(|error| unreadable(error.to_string()))?;
                let known = self.knows_key(&id);
                (Revocation::Key(id), known)
            }
            Kind::Token => {
                let issuer = issuer.unwrap_or_default();
                token_id(&name, self.gateway.metadata().own_issuer() == Some(issuer.as_str()))?;
                let known = self.gateway.knows_issuer(&issuer);
                (Revocation::Token(TokenId { issuer, id: name }), known)
            }
            Kind::Run => {
                let id = run_id(&name)?;
                let known = self.runs.list().iter().any(|run| run.id == id);
                (Revocation::Run(id), known)
            }
        };
        let done = act.revoke(&what, reason, until).await;
        done.map(|()| json!({ "revoked": { "kind": what.word(), "name": what.name() }, "known": known }))
    }

    fn revocations(&self) -> Value {
        let mut all = self.runs.revocations();
        let total = all.len();
        all.truncate(LISTED_MAX);
        json!({ "revocations": all, "total": total })
    }

    fn list_runs(&self) -> Value {
        let mut runs = self.runs.list();
        let total = runs.len();
        runs.truncate(LISTED_MAX);
        json!({ "runs": runs, "total": total })
    }

    fn list_upstreams(&self) -> Value {
        let upstreams = self.upstreams.names().filter_map(|name| {
            let standing = self.upstreams.standing(name)?;
            let tools =
                self.upstreams.tools(name).into_iter().map(
                    |tool| json!({ "name": tool.name, "tool": tool.tool, "quarantine": tool.quarantine }),
                );
            let tools: Vec<Value> = tools.take(LISTED_MAX).collect();
            Some(
                json!({ "name": name, "state": standing.state, "checked": standing.checked, "tools": tools }),
            )
        });
        json!({ "upstreams": upstreams.collect::<Vec<_>>() })
    }

    async fn end_run(&self, act: Act<'_>, asked: EndRun) -> Result<Value, ApiError> {
        let ended = act.end_run(run_id(&asked.run)?, asked.reason).await?;
        Ok(json!({ "ended": ended }))
    }

    fn list_keys(&self) -> Value {
        let revoked: Vec<String> = self
            .runs
            .revocations()
            .into_iter()
            .filter(|revocation| revocation.kind == "key")
            .map(|revocation| revocation.name)
            .collect();
        let is_revoked = |id: &KeyId| revoked.iter().any(|name| name == id.as_str());
        let rules = self.gateway.rules();
        let of_files = rules.clients.iter().flat_map(|client| {
            client.spec().keys.iter().map(|key| {
                json!({
                    "client": client.name(), "id": key.id, "from": "clients.yaml", "expires": key.expires,
                    "last_used": self.runs.key_last_used(&key.id), "revoked": is_revoked(&key.id)
                })
            })
        });
        let made =
            self.runs.keys().into_iter().map(|KeyView { id, client, actor, made, expires, last_used }| {
                json!({
                    "client": client, "id": id, "from": actor, "made": made, "expires": expires,
                    "last_used": last_used, "revoked": is_revoked(&id)
                })
            });
        let mut keys: Vec<Value> = of_files.chain(made).collect();
        keys.sort_by_cached_key(|key| (key["client"].to_string(), key["id"].to_string()));
        let total = keys.len();
        keys.truncate(LISTED_MAX);
        json!({ "keys": keys, "total": total })
    }

    async fn new_key(&self, act: Act<'_>, asked: NewKey) -> Result<Value, ApiError> {
        if self.gateway.rules().clients.named(&asked.client).is_none() {
            return Err(ApiError::unknown("unknown_client", format!("unknown client `{}`", asked.client)));
        }
        self.stands(&asked.client, None, act.now)?;
        let expires = expiry(asked.expires.as_deref(), act.now)?;
        let made = act.new_key("new-key", &asked.client, expires).await?;
        Ok(made)
    }

    async fn rotate_key(&self, act: Act<'_>, asked: RotateKey) -> Result<Value, ApiError> {
        let overlap_s = asked.overlap_s.unwrap_or(OVERLAP_S);
        if overlap_s > OVERLAP_S_MAX {
            return Err(ApiError::bad("overlap", format!("an overlap is {OVERLAP_S_MAX} s at most")));
        }
        let Some(old) = self.runs.key(asked.id.as_str()) else {
            let id = &asked.id;
            return Err(if self.knows_key(id) {
                let message =
                    format!("key `{id}` is in clients.yaml: make a new one, and take it out of the file");
                ApiError::new(StatusCode::CONFLICT, "key_in_file", message)
            } else {
                ApiError::unknown("unknown_key", format!("unknown key `{id}`"))
            });
        };
        self.stands(&old.client, Some(&old.id), act.now)?;
        let expires = expiry(asked.expires.as_deref(), act.now)?;
        let overlap = SignedDuration::from_secs(i64::try_from(overlap_s).unwrap_or(i64::MAX));
        let old_expires = act.now.checked_add(overlap).unwrap_or(act.now);
        act.rotate_key(&old, expires, old_expires).await
    }

    async fn revoke_key(&self, act: Act<'_>, asked: RevokeKey) -> Result<Value, ApiError> {
        if !self.knows_key(&asked.id) {
            return Err(ApiError::unknown("unknown_key", format!("unknown key `{}`", asked.id)));
        }
        let what = Revocation::Key(asked.id);
        act.revoke(&what, asked.reason, None).await?;
        Ok(json!({ "revoked": { "kind": what.word(), "name": what.name() }, "known": true }))
    }

    /// A key for what is revoked would be of no use, or give back what was taken away.
    fn stands(&self, client: &ClientName, key: Option<&KeyId>, now: Timestamp) -> Result<(), ApiError> {
        let (client, key) = (client.clone(), key.cloned());
        let standing = Standing { client, key, token: None, run: None, expires: None };
        self.runs.check(&standing, now).map_err(|error| {
            let message = format!("{error}: make a new key for a client that is not");
            ApiError::new(StatusCode::CONFLICT, "revoked", message)
        })
    }

    /// Whether there is a key of this id, in the release or made at run time.
    fn knows_key(&self, id: &KeyId) -> bool {
        let rules = self.gateway.rules();
        self.runs.key(id.as_str()).is_some()
            || rules.clients.iter().any(|client| client.spec().keys.iter().any(|key| key.id == *id))
    }
}

/// The longest time that a token of any issuer may still be good for.
const TOKEN_LIFE_MAX: SignedDuration = SignedDuration::from_hours(25);

fn run_id(text: &str) -> Result<RunId, ApiError> {
    RunId::parse(text).ok_or_else(|| ApiError::bad("name", "a run's id is 32 hexadecimal digits"))
}

/// Refuses what cannot be a token's id: a revocation that matches no token would pass for one that does.
fn token_id(text: &str, is_own: bool) -> Result<(), ApiError> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let expected = if is_like_a_token(text) {
        "a token is named by its `jti`, never by the token itself: that would stay good".to_owned()
    } else if is_own && !(text.len() == OWN_TOKEN_ID_BYTES && text.bytes().all(is_hex)) {
        format!("the `jti` of this server's tokens is {OWN_TOKEN_ID_BYTES} lower-case hexadecimal digits")
    } else if !((1..=TOKEN_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()))
    {
        format!("a token's `jti` is 1 to {TOKEN_ID_BYTES_MAX} visible ASCII characters without a blank")
    } else {
        return Ok(());
    };
    Err(ApiError::bad("name", expected))
}

/// When a new key is to expire: a day (from its start in UTC on) or a moment, within a year.
fn expiry(asked: Option<&str>, now: Timestamp) -> Result<Timestamp, ApiError> {
    let day_s = 86_400;
    let after = |days: i64| now.checked_add(SignedDuration::from_secs(days * day_s)).unwrap_or(now);
    let Some(asked) = asked else { return Ok(after(KEY_DAYS)) };
    let day = asked.parse::<Date>().ok().filter(|_| asked.len() == 10);
    let of_day = day.and_then(|day| day.to_zoned(TimeZone::UTC).ok()).map(|start| start.timestamp());
    let expires = of_day.or_else(|| asked.parse().ok());
    match expires {
        Some(expires) if expires > now && expires <= after(KEY_DAYS_MAX) => Ok(expires),
        Some(_) => {
            Err(ApiError::bad("expires", format!("a key expires within {KEY_DAYS_MAX} days from now")))
        }
        None => {
            Err(ApiError::bad("expires", format!("`expires` has to be {EXPIRES}, not `{}`", shown(asked))))
        }
    }
}

/// Random bytes, or the refusal where the system has none.
fn random<const N: usize>() -> Result<[u8; N], ApiError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_random", "the system gives no random bytes")
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_by_what_could_be_its_id_and_by_nothing_else() {
        let refused = |text: &str, is_own| token_id(text, is_own).unwrap_err().message;
        let id = "0f3c5a1b2c3d4e5f0f3c5a1b2c3d4e5f";
        for (text, is_own) in [(id, true), (id, false), ("t-1", false), ("AT.0mP4JKAZX1.oar1", false)] {
            assert!(token_id(text, is_own).is_ok(), "{text}");
        }
        for is_own in [true, false] {
            let token = "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJ4In0.c2ln";
            assert!(refused(token, is_own).contains("never by the token itself"));
        }
        for odd in [
            id.strip_prefix(|_: char| true).unwrap(),
            &id.to_uppercase(),
            "t-1",
            "",
            &format!("{id} "),
            &format!("{id}0"),
        ] {
            assert!(refused(odd, true).contains("lower-case hexadecimal"), "{odd}");
        }
        for odd in ["", "a b", " a", "a\n", "é", &"a".repeat(513)] {
            let said = refused(odd, false);
            assert!(said.contains("visible ASCII"), "{odd}: {said}");
        }
    }

    #[test]
    fn a_key_expires_on_a_day_or_at_a_moment_within_a_year() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let expires = |asked| expiry(asked, now).map(|at| at.to_string()).map_err(|refusal| refusal.message);
        assert_eq!(expires(None).unwrap(), "2027-02-21T12:00:00Z");
        assert_eq!(expires(Some("2027-06-30")).unwrap(), "2027-06-30T00:00:00Z");
        assert_eq!(expires(Some("2026-11-23T13:00:00+00:30")).unwrap(), "2026-11-23T12:30:00Z");
        for outside in ["2026-11-23", "2026-11-23T12:00:00Z", "2028-01-01"] {
            assert_eq!(
                expires(Some(outside)).unwrap_err(),
                "a key expires within 366 days from now",
                "{outside}"
            );
        }
        assert!(expires(Some("soon")).is_err());
    }
}
