//! The HTTP client: made here, and nowhere else.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, redirect, retry};
#[cfg(test)]
use rustls::client::WebPkiServerVerifier;
use rustls::{
    ClientConfig,
    client::{Resumption, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::CertificateDer,
};
use rustls_platform_verifier::Verifier;

use super::{ClientIdentity, EgressError, departure::LastLook, resolver::PortJudge};

/// How long an unused connection is kept. Short, since a server that closes an
/// idle connection while a request is on its way leaves that request's fate open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How many unused connections are kept to one host.
const IDLE_PER_HOST_MAX: usize = 64;

/// How many bytes of header fields one HTTP/2 answer may carry.
const HEADER_BYTES_MAX: u32 = 64 * 1024;

/// How many TLS sessions a client remembers.
const TLS_SESSIONS_MAX: usize = 256;

/// The `User-Agent` of every request (RFC 9110 §10.1.5).
const USER_AGENT: &str = concat!("callgate/", env!("CARGO_PKG_VERSION"));

/// Makes clients that share the system's root certificates, which are read once.
#[derive(Clone, Debug)]
pub(super) struct ClientMaker {
    tls: Arc<ClientConfig>,
    connect_timeout: Duration,
}

impl ClientMaker {
    /// Reads the root certificates.
    pub(super) fn new(connect_timeout: Duration) -> Result<Self, EgressError> {
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
        let verifier = Verifier::new(Arc::clone(&provider))?;
        Self::verifying(connect_timeout, provider, Arc::new(verifier))
    }

    /// Reads the root certificates, and trusts these besides.
    pub(super) fn trusting_also(
        connect_timeout: Duration,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, EgressError> {
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
        let verifier = Verifier::new_with_extra_roots(authorities, Arc::clone(&provider))?;
        Self::verifying(connect_timeout, provider, Arc::new(verifier))
    }

    /// Trusts what one authority has signed.
    #[cfg(test)]
    pub(super) fn trusting(authority: CertificateDer<'static>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority).unwrap();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        Self::verifying(Duration::from_secs(3), provider, verifier.unwrap()).unwrap()
    }

    fn verifying(
        connect_timeout: Duration,
        provider: Arc<CryptoProvider>,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<Self, EgressError> {
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous() // that is, with a verifier of our choice: the system's
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        tls.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
        Ok(Self { tls: Arc::new(tls), connect_timeout })
    }

    /// A client that connects only to addresses that `judge` gives it, and shows this certificate.
    pub(super) fn client(
        &self,
        judge: PortJudge,
        identity: Option<&ClientIdentity>,
    ) -> Result<Client, reqwest::Error> {
        let mut tls = ClientConfig::clone(&self.tls);
        if let Some(identity) = identity {
            tls.client_auth_cert_resolver = identity.resolver();
        }
        tls.resumption = Resumption::in_memory_sessions(TLS_SESSIONS_MAX);
        Client::builder()
            .tls_backend_preconfigured(tls)
            .connector_layer(LastLook)
            .dns_resolver(judge)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .user_agent(USER_AGENT)
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .tcp_nodelay(true)
            .build()
    }
}
