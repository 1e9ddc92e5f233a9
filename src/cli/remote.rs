//! A server that runs, as commands talk to it.

use std::time::Duration;

use http::StatusCode;
use reqwest::Request;
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

use super::unreached::Unreached;
use crate::{
    egress::{Allowances, BodyError, Egress, SendError, Way, read_body},
    manifest::{BaseUrl, EgressSpec, is_localhost_itself, is_this_machine},
};

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How large it may be.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Where a server is when its URL names no path.
const ENDPOINT: &str = "/mcp";

/// The endpoint at a URL that was typed.
///
/// # Errors
/// When it is no such URL, or a key would go there unencrypted.
pub(super) fn typed_endpoint(option: &str, url: &str) -> Result<Url, String> {
    let mut url = typed_url(option, url)?;
    refuse_unencrypted(&url).map_err(|error| format!("`{option}`: {error}"))?;
    if url.path() == "/" {
        url.set_path(ENDPOINT);
    }
    Ok(url)
}

/// A URL that was typed. What is wrong with one is said without repeating it: it may hold a secret.
fn typed_url(option: &str, text: &str) -> Result<Url, String> {
    let url = Url::parse(text)
        .map_err(|error| format!("`{option}` takes a URL such as `https://gate.example.com/mcp`: {error}"))?;
    let unfit = if !matches!(url.scheme(), "http" | "https") {
        format!("an `http` or `https` URL, not `{}`", url.scheme())
    } else if !url.username().is_empty() || url.password().is_some() {
        "a URL with no user and no password in it: the key is given apart from it".to_owned()
    } else if url.query().is_some() || url.fragment().is_some() {
        "a URL without a query or a fragment".to_owned()
    } else {
        let base = BaseUrl::parse(text).map_err(|error| format!("`{option}`: {error}"))?;
        return Ok(base.url().clone());
    };
    Err(format!("`{option}` takes {unfit}"))
}

/// Refuses to show a key where others could read it on its way.
///
/// # Errors
/// When that is so.
fn refuse_unencrypted(url: &Url) -> Result<(), String> {
    if url.scheme() == "https" || is_here(url) {
        return Ok(());
    }
    Err(format!("`{url}` is not on this machine, and the key would go there unencrypted: use `https`"))
}

/// Whether a URL is of this machine.
fn is_here(url: &Url) -> bool {
    is_this_machine(url, is_localhost_itself)
}

/// A server, by the URL that its endpoints are below.
pub(super) struct Remote {
    base: Url,
    way: Way,
}

impl Remote {
    /// The server at a URL that was typed.
    ///
    /// # Errors
    /// When it is no such URL, or a secret would go there unencrypted.
    pub(super) fn typed(option: &str, url: &str) -> Result<Self, String> {
        Self::at(typed_url(option, url)?).map_err(|error| format!("`{option}`: {error}"))
    }

    /// The server at a URL.
    ///
    /// # Errors
    /// When a secret would go there unencrypted.
    pub(super) fn at(base: Url) -> Result<Self, String> {
        let is_here = is_here(&base);
        refuse_unencrypted(&base)?;
        let egress = Egress::new(None).map_err(|error| error.to_string())?;
        let spec = EgressSpec { loopback: is_here, ..EgressSpec::default() };
        let allowances = Allowances::new(&spec).map_err(|_| "loopback cannot be allowed".to_owned())?;
        Ok(Self { base, way: egress.way(&allowances) })
    }

    /// The URL that its endpoints are below.
    pub(super) const fn base(&self) -> &Url {
        &self.base
    }

    /// The URL of an endpoint.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn endpoint(&self, path: &str) -> Result<Url, String> {
        self.base.join(path).map_err(|error| format!("`{}`: {error}", self.base))
    }

    /// Asks, and reads the answer, where it is JSON.
    ///
    /// # Errors
    /// When there is none: why, in a line.
    pub(super) async fn ask(&self, request: Request) -> Result<(StatusCode, Option<Value>), String> {
        let answered = timeout(ANSWER_MAX, self.exchange(request)).await;
        answered.map_err(|_| format!("{} does not answer", self.base))?
    }

    async fn exchange(&self, request: Request) -> Result<(StatusCode, Option<Value>), String> {
        let mut response = self.way.send(request).await.map_err(|error| self.unreached(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        match read_body(&mut response, &mut bytes, ANSWER_BYTES_MAX).await {
            Ok(()) => Ok((status, serde_json::from_slice(&bytes).ok())),
            Err(BodyError::Broken) => Err(format!("{} broke off", self.base)),
            Err(BodyError::TooLarge) => Err(format!("{} answers with more than can be shown", self.base)),
        }
    }

    fn unreached(&self, error: &SendError) -> String {
        match error {
            SendError::Http(error) => Unreached::of(error).map_or_else(
                || format!("{} broke off", self.base),
                |unreached| unreached.message(&self.base, "the system has to trust its authority"),
            ),
            SendError::Refused { refusal, .. } => format!("{} may not be called: {refusal}", self.base),
        }
    }
}
