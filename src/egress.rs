//! Where a connection may go: the one HTTP client that everything uses.
//!
//! `Egress::send` is the only door. The client behind it is private and never
//! handed out, so whatever judges addresses has two places to stand, both in
//! this file: `send`, which sees the host as the caller wrote it (the resolver
//! is never asked about IP literals), and `client`, where a resolver is set.

mod header;

use std::time::Duration;

use reqwest::{Client, Request, Response, redirect, retry};

pub(crate) use header::{field_value, is_reserved};

/// How long resolving, connecting and the TLS handshake may take together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an unused connection is kept. Short, since a server that closes an
/// idle connection while a request is on its way leaves that request's fate open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How many unused connections are kept to one host.
const IDLE_PER_HOST_MAX: usize = 64;

/// How many bytes of header fields one HTTP/2 answer may carry.
const HEADER_BYTES_MAX: u32 = 64 * 1024;

/// The `User-Agent` of every request (RFC 9110 §10.1.5).
const USER_AGENT: &str = concat!("callgate/", env!("CARGO_PKG_VERSION"));

/// The way out.
///
/// It takes no proxy from the environment, follows no redirect, repeats no
/// request, sends no `Referer`, stores no cookie and decodes no content coding.
#[derive(Clone, Debug)]
pub struct Egress {
    client: Client,
}

/// Why there is no way out.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be set up: {0}")]
pub struct EgressError(reqwest::Error);

impl Egress {
    /// Sets up the client, with the system's root certificates.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> Result<Self, EgressError> {
        client(CONNECT_TIMEOUT).map(|client| Self { client }).map_err(EgressError)
    }

    /// A way out that gives up sooner on connecting.
    #[cfg(test)]
    pub(crate) fn impatient(connect_timeout: Duration) -> Self {
        Self { client: client(connect_timeout).unwrap() }
    }

    /// Sends one request, once, and waits for the head of its answer.
    ///
    /// # Errors
    /// When no answer came. The error may hold the URL, and so a secret: it is
    /// to be classified, never shown.
    pub(crate) async fn send(&self, request: Request) -> Result<Response, reqwest::Error> {
        self.client.execute(request).await
    }
}

fn client(connect_timeout: Duration) -> Result<Client, reqwest::Error> {
    Client::builder()
        .tls_backend_rustls()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .user_agent(USER_AGENT)
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .tcp_nodelay(true)
        .build()
}
