//! A lease: the right to put one credential into one request.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use reqwest::Request;
use secrecy::{ExposeSecret, SecretString};

use super::CredentialError;
use crate::{
    egress::{field_value, is_reserved},
    manifest::{CredentialKind, CredentialName},
};

/// The right to put one credential into a request. The lease itself gives no secret out.
pub struct Lease {
    name: CredentialName,
    presentation: Arc<Presentation>,
}

/// A secret, and its place in a request.
#[derive(Debug)]
pub(super) struct Presentation {
    place: Place,
    secret: SecretString,
}

#[derive(Debug)]
enum Place {
    Bearer,
    Basic { username: String },
    Header { name: HeaderName },
    Query { name: String },
}

impl Lease {
    pub(super) const fn new(name: CredentialName, presentation: Arc<Presentation>) -> Self {
        Self { name, presentation }
    }

    /// The credential's name, for the record.
    #[must_use]
    pub const fn name(&self) -> &CredentialName {
        &self.name
    }

    /// Puts the credential into a request. A header is replaced, not added to.
    pub(crate) fn apply(&self, request: &mut Request) {
        let Presentation { place, secret } = &*self.presentation;
        if let Place::Query { name } = place {
            request.url_mut().query_pairs_mut().append_pair(name, secret.expose_secret());
        } else if let Some((name, value)) = place.field(secret) {
            request.headers_mut().insert(name, value);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Presentation {
    /// Finds the secret's place, and makes sure that it fits.
    pub(super) fn new(kind: &CredentialKind, secret: SecretString) -> Result<Self, CredentialError> {
        let place = Place::new(kind)?;
        match &place {
            // Any text can be form-encoded.
            Place::Query { .. } => {}
            // RFC 6750 §2.1 `b64token` is narrower; tokens such as `1|abc` are about.
            Place::Bearer if secret.expose_secret().contains(' ') => return Err(unsendable(kind, &place)),
            Place::Bearer | Place::Basic { .. } | Place::Header { .. } => {
                place.field(&secret).ok_or_else(|| unsendable(kind, &place))?;
            }
        }
        Ok(Self { place, secret })
    }
}

fn unsendable(kind: &CredentialKind, place: &Place) -> CredentialError {
    let expected = match place {
        Place::Bearer => "a token is visible ASCII without spaces",
        Place::Basic { .. } => "a password has no control characters",
        Place::Header { .. } | Place::Query { .. } => "a header holds visible ASCII, with spaces only inside",
    };
    CredentialError::Unsendable { reference: kind.secret().clone(), expected }
}

impl Place {
    fn new(kind: &CredentialKind) -> Result<Self, CredentialError> {
        let bad = |given: &str, expected| CredentialError::BadName { given: given.to_owned(), expected };
        match kind {
            CredentialKind::Bearer { .. } => Ok(Self::Bearer),
            CredentialKind::Basic { username, .. } => {
                if username.contains(|c: char| c == ':' || c.is_control()) {
                    return Err(bad(
                        username,
                        "a user name without colon and control characters (RFC 7617 §2)",
                    ));
                }
                Ok(Self::Basic { username: username.clone() })
            }
            CredentialKind::Header { name, .. } => HeaderName::from_bytes(name.as_bytes())
                .ok()
                .filter(|field| !is_reserved(field))
                .map(|name| Self::Header { name })
                .ok_or_else(|| bad(name, "a header name (RFC 9110 §5.1) that a credential may set")),
            CredentialKind::Query { name, .. } if name.is_empty() => {
                Err(bad(name, "the name of a query parameter"))
            }
            CredentialKind::Query { name, .. } => Ok(Self::Query { name: name.clone() }),
        }
    }

    /// The header field that carries the secret; none where it does not fit one.
    fn field(&self, secret: &SecretString) -> Option<(HeaderName, HeaderValue)> {
        let secret = secret.expose_secret();
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

    fn request(kind: serde_json::Value, secret: &str) -> Request {
        let kind: CredentialKind = serde_json::from_value(kind).unwrap();
        let presentation = Presentation::new(&kind, SecretString::from(secret)).unwrap();
        let lease = Lease::new("key".parse().unwrap(), Arc::new(presentation));
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
