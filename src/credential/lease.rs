//! A lease: the right to put one credential into one request.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use reqwest::Request;

use super::{CredentialError, live::HeldSecret, slot::Slot, source::Doubt, token::Token};
use crate::{
    egress::{ClientIdentity, field_value, is_reserved},
    manifest::{CredentialKind, CredentialName, SecretRef},
};

/// How many bytes a secret may have that goes into a request: what servers take in one header field.
const SENT_BYTES_MAX: usize = 8 * 1024;

/// The right to put one credential into a request. The lease itself gives no secret out.
pub struct Lease {
    name: CredentialName,
    shown: Shown,
}

/// What is shown to the service.
pub(super) enum Shown {
    /// A secret of the operator's.
    Secret(Arc<Presentation>, Doubt<Presentation>),
    /// A token, and the place where it is kept.
    Token(Arc<Slot<Token>>, Arc<Token>),
    /// A TLS client certificate.
    Certificate(ClientIdentity),
}

/// A secret, and its place in a request.
#[derive(Debug)]
pub(super) struct Presentation {
    place: Place,
    secret: HeldSecret,
}

/// Where in a request a secret stands.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Bearer,
    Basic { username: String },
    Header { name: HeaderName },
    Query { name: String },
}

impl Lease {
    pub(super) const fn new(name: CredentialName, shown: Shown) -> Self {
        Self { name, shown }
    }

    /// The credential's name, for the record.
    #[must_use]
    pub const fn name(&self) -> &CredentialName {
        &self.name
    }

    /// Puts the credential into a request. A header is replaced, not added to.
    pub(crate) fn apply(&self, request: &mut Request) {
        let Some(Presentation { place, secret }) = self.presentation() else { return };
        if let Place::Query { name } = place {
            request.url_mut().query_pairs_mut().append_pair(name, secret.expose());
        } else if let Some((name, value)) = place.field(secret.expose()) {
            request.headers_mut().insert(name, value);
        }
    }

    /// The certificate that goes with the connection.
    pub(crate) const fn identity(&self) -> Option<&ClientIdentity> {
        match &self.shown {
            Shown::Certificate(identity) => Some(identity),
            Shown::Secret(..) | Shown::Token(..) => None,
        }
    }

    /// Has the next lease be got anew, since the service refused this one.
    pub(super) fn reject(&self) {
        match &self.shown {
            Shown::Secret(_, doubt) => doubt.raise(),
            Shown::Token(slot, token) => slot.reject(token),
            Shown::Certificate(_) => {}
        }
    }

    /// Whether the service would be shown just the same.
    pub(super) fn shows_the_same(&self, other: &Self) -> bool {
        match (self.presentation(), other.presentation()) {
            (Some(one), Some(other)) => one.secret.expose() == other.secret.expose(),
            _ => true,
        }
    }

    fn presentation(&self) -> Option<&Presentation> {
        match &self.shown {
            Shown::Secret(presentation, _) => Some(presentation),
            Shown::Token(_, token) => Some(&token.presentation),
            Shown::Certificate(_) => None,
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Presentation {
    /// A token, where a header can carry it.
    pub(super) fn bearer(secret: HeldSecret) -> Option<Self> {
        let place = Place::Bearer;
        place.carries(secret.expose()).then_some(Self { place, secret })
    }

    /// Makes sure that the secret fits its place.
    pub(super) fn new(
        place: &Place,
        reference: &SecretRef,
        secret: HeldSecret,
    ) -> Result<Self, CredentialError> {
        let reference = || reference.clone();
        if secret.expose().len() > SENT_BYTES_MAX {
            return Err(CredentialError::TooLong { reference: reference(), bytes_max: SENT_BYTES_MAX });
        }
        if !place.carries(secret.expose()) {
            return Err(CredentialError::Unsendable { reference: reference(), expected: place.expects() });
        }
        Ok(Self { place: place.clone(), secret })
    }
}

impl Place {
    /// The place that a credential's kind names; none for kinds that have none.
    pub(super) fn of(kind: &CredentialKind) -> Result<Option<Self>, CredentialError> {
        let bad = |given: &str, expected| CredentialError::BadName { given: given.to_owned(), expected };
        match kind {
            CredentialKind::Bearer { .. } => Ok(Some(Self::Bearer)),
            CredentialKind::Basic { username, .. } => {
                if username.contains(|c: char| c == ':' || c.is_control()) {
                    return Err(bad(
                        username,
                        "a user name without colon and control characters (RFC 7617 §2)",
                    ));
                }
                Ok(Some(Self::Basic { username: username.clone() }))
            }
            CredentialKind::Header { name, .. } => HeaderName::from_bytes(name.as_bytes())
                .ok()
                .filter(|field| !is_reserved(field))
                .map(|name| Some(Self::Header { name }))
                .ok_or_else(|| bad(name, "a header name (RFC 9110 §5.1) that a credential may set")),
            CredentialKind::Query { name, .. } if name.is_empty() => {
                Err(bad(name, "the name of a query parameter"))
            }
            CredentialKind::Query { name, .. } => Ok(Some(Self::Query { name: name.clone() })),
            CredentialKind::ClientCredentials(_)
            | CredentialKind::TokenExchange(_)
            | CredentialKind::Certificate { .. } => Ok(None),
        }
    }

    const fn expects(&self) -> &'static str {
        match self {
            Self::Bearer => "a token is visible ASCII without spaces",
            Self::Basic { .. } => "a password has no control characters",
            Self::Header { .. } | Self::Query { .. } => {
                "a header holds visible ASCII, with spaces only inside"
            }
        }
    }

    fn carries(&self, secret: &str) -> bool {
        match self {
            // Any text can be form-encoded.
            Self::Query { .. } => true,
            // RFC 6750 §2.1 `b64token` is narrower; tokens such as `1|abc` are about.
            Self::Bearer if secret.contains(' ') => false,
            Self::Bearer | Self::Basic { .. } | Self::Header { .. } => self.field(secret).is_some(),
        }
    }

    /// The header field that carries the secret; none where it does not fit one.
    fn field(&self, secret: &str) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self {
            Self::Bearer => (AUTHORIZATION, field_value(&format!("Bearer {secret}"))),
            Self::Basic { .. } if secret.contains(char::is_control) => return None,
            // RFC 7617 §2.1: in UTF-8.
            Self::Basic { username } => {
                let pair = STANDARD.encode(format!("{username}:{secret}"));
                (AUTHORIZATION, field_value(&format!("Basic {pair}")))
            }
            Self::Header { name } => (name.clone(), field_value(secret)),
            Self::Query { .. } => return None,
        };
        let mut value = value?;
        value.set_sensitive(true);
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::live::LiveSecrets;

    fn request(kind: serde_json::Value, secret: &str) -> Request {
        let kind: CredentialKind = serde_json::from_value(kind).unwrap();
        let place = Place::of(&kind).unwrap().unwrap();
        let held = HeldSecret::new(secret.into(), "env:KEY", &LiveSecrets::default());
        let shown = Presentation::new(&place, &SecretRef::Env("KEY".into()), held).unwrap();
        let lease = Lease::new("key".parse().unwrap(), Shown::Secret(Arc::new(shown), Doubt::Nothing));
        let mut request = Request::new(http::Method::GET, "http://example.com/a?b=c".parse().unwrap());
        lease.apply(&mut request);
        request
    }

    #[test]
    fn a_header_is_sensitive_and_replaces_what_was_there() {
        let bearer = request(serde_json::json!({ "bearer": { "secret": "env:KEY" } }), "hunter2");
        let value = bearer.headers().get(AUTHORIZATION).unwrap();
        assert_eq!(value, "Bearer hunter2");
        assert!(value.is_sensitive());
        assert!(!format!("{bearer:?}").contains("hunter2"));
    }

    #[test]
    fn basic_is_the_base64_of_name_and_password() {
        // The example of RFC 7617 §2.
        let basic = serde_json::json!({ "basic": { "username": "Aladdin", "secret": "env:KEY" } });
        let basic = request(basic, "open sesame");
        assert_eq!(basic.headers().get(AUTHORIZATION).unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn a_query_secret_is_form_encoded_after_the_bound_parameters() {
        let query = serde_json::json!({ "query": { "name": "api key", "secret": "env:KEY" } });
        assert_eq!(
            request(query, "a&b=c#d").url().as_str(),
            "http://example.com/a?b=c&api+key=a%26b%3Dc%23d"
        );
    }
}
