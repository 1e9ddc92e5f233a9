//! The parameters of a request, none of which may come twice (RFC 6749 §3.1, §3.2).

use std::collections::BTreeMap;

use axum::http::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::provider::Refusal;

/// The parameters of a query or a body.
pub(super) struct Form(BTreeMap<String, String>);

/// Who says that it is a client, and with what secret.
pub(super) struct ShownClient {
    pub(super) id: String,
    pub(super) secret: Option<String>,
}

impl Form {
    /// Reads parameters. One without a value counts as left out.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(bytes) {
            if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Refusal::new("invalid_request", "a parameter comes twice"));
            }
        }
        parameters.retain(|_, value| !value.is_empty());
        Ok(Self(parameters))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn need(&self, name: &'static str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::new("invalid_request", name))
    }

    /// The client that the header or the form names: one of them (RFC 6749 §2.3).
    pub(super) fn client(&self, header: Option<&HeaderValue>) -> Result<ShownClient, Refusal> {
        let Some(header) = header else {
            let secret = self.get("client_secret").map(str::to_owned);
            return Ok(ShownClient { id: self.need("client_id")?.to_owned(), secret });
        };
        if self.get("client_secret").is_some() {
            return Err(Refusal::new("invalid_request", "two secrets"));
        }
        let broken = || Refusal::new("invalid_client", "not a `Basic` header");
        let encoded = header.to_str().ok().and_then(|text| text.strip_prefix("Basic ")).ok_or_else(broken)?;
        let decoded = STANDARD.decode(encoded).map_err(|_| broken())?;
        let decoded = String::from_utf8(decoded).map_err(|_| broken())?;
        let (id, secret) = decoded.split_once(':').ok_or_else(broken)?;
        Ok(ShownClient { id: form_decoded(id), secret: Some(form_decoded(secret)) })
    }
}

/// RFC 6749 §2.3.1.
fn form_decoded(text: &str) -> String {
    let mut pairs = url::form_urlencoded::parse(text.as_bytes());
    pairs.next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}
