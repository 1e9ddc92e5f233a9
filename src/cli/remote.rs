//! A server that runs, as commands talk to it.

use std::time::Duration;

use http::StatusCode;
use reqwest::Request;
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

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
    let mut url = BaseUrl::parse(url).map_err(|error| format!("`{option}`: {error}"))?.url().clone();
    refuse_unencrypted(&url)?;
    if url.path() == "/" {
        url.set_path(ENDPOINT);
    }
    Ok(url)
}

/// Refuses to show a key where others could read it on its way.
///
/// # Errors
/// When that is so.
fn refuse_unencrypted(url: &Url) -> Result<(), String> {
    if url.scheme() == "https" || is_here(url) {
        return Ok(());
    }
    Err(format!("`{url}` is not on this machine: the key would go there unencrypted"))
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
        let base = BaseUrl::parse(url).map_err(|error| format!("`{option}`: {error}"))?;
        Self::at(base.url().clone())
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
            SendError::Http(error) if error.is_connect() => {
                format!("no server answers at {}: does `callgate serve` run there?", self.base)
            }
            SendError::Http(_) => format!("{} broke off", self.base),
            SendError::Refused { refusal, .. } => format!("{} may not be called: {refusal}", self.base),
        }
    }
}
