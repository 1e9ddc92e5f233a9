//! Who the gate is to a server: a TLS client certificate.

use std::{fmt, sync::Arc};

use rustls::{
    client::ResolvesClientCert,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
};
use sha2::{Digest as _, Sha256};

/// A certificate with its private key. Connections of one are never used for another.
#[derive(Clone)]
pub struct ClientIdentity {
    resolver: Arc<SingleCertAndKey>,
    /// Of the chain, whose first certificate binds the key.
    digest: [u8; 32],
}

impl ClientIdentity {
    /// An identity; none where the key is not the one that the certificate is of, or cannot be used.
    #[must_use]
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Option<Self> {
        let mut digest = Sha256::new();
        for certificate in &chain {
            digest.update(u64::try_from(certificate.len()).ok()?.to_be_bytes());
            digest.update(certificate);
        }
        let provider = CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
        let certified = CertifiedKey::from_der(chain, key, &provider).ok()?;
        Some(Self { resolver: Arc::new(certified.into()), digest: digest.finalize().into() })
    }

    pub(super) const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::<SingleCertAndKey>::clone(&self.resolver)
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").field("digest", &hex::encode(self.digest)).finish_non_exhaustive()
    }
}
