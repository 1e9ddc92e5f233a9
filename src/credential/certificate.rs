//! A TLS client certificate, made anew when its files change.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

use super::{
    CredentialError,
    live::HeldSecret,
    source::{Places, Source},
};
use crate::{
    egress::{ClientIdentity, Egress},
    manifest::SecretRef,
};

/// Where a certificate and its key are.
pub(super) struct CertificateSource {
    chain: Source<Chain>,
    key: Source<PrivateKeyDer<'static>>,
    key_reference: SecretRef,
    made: Mutex<Option<Made>>,
}

type Chain = Vec<CertificateDer<'static>>;

/// An identity, and what it was made of.
struct Made {
    chain: Arc<Chain>,
    key: Arc<PrivateKeyDer<'static>>,
    identity: ClientIdentity,
}

impl CertificateSource {
    pub(super) fn new(
        certificate: &SecretRef,
        key: &SecretRef,
        places: &Places<'_>,
    ) -> Result<Self, CredentialError> {
        let (named, named_key) = (certificate.clone(), key.clone());
        let make_chain = move |pem: HeldSecret| {
            let chain = CertificateDer::pem_slice_iter(pem.expose().as_bytes()).collect::<Result<Chain, _>>();
            chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| CredentialError::Unusable {
                reference: named.clone(),
                expected: "a chain of certificates in PEM",
            })
        };
        let make_key = move |pem: HeldSecret| {
            PrivatePkcs8KeyDer::from_pem_slice(pem.expose().as_bytes()).map(PrivateKeyDer::Pkcs8).map_err(
                |_| CredentialError::Unusable {
                    reference: named_key.clone(),
                    expected: "a private key in PKCS#8 PEM",
                },
            )
        };
        let source = Self {
            chain: Source::new(certificate, places, Box::new(make_chain))?,
            key: Source::new(key, places, Box::new(make_key))?,
            key_reference: key.clone(),
            made: Mutex::default(),
        };
        Ok(source)
    }

    /// The identity of now.
    pub(super) async fn current(
        &self,
        egress: &Egress,
        deadline: Instant,
    ) -> Result<ClientIdentity, CredentialError> {
        let (chain, _) = self.chain.current(egress, deadline).await?;
        let (key, _) = self.key.current(egress, deadline).await?;
        let mut last = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = last.as_ref()
            && Arc::ptr_eq(&made.chain, &chain)
            && Arc::ptr_eq(&made.key, &key)
        {
            return Ok(made.identity.clone());
        }
        let identity = ClientIdentity::new(chain.to_vec(), key.clone_key()).ok_or_else(|| {
            CredentialError::Unusable {
                reference: self.key_reference.clone(),
                expected: "the private key of the certificate",
            }
        })?;
        *last = Some(Made { chain, key, identity: identity.clone() });
        Ok(identity)
    }
}

impl std::fmt::Debug for CertificateSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateSource").finish_non_exhaustive()
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use crate::{
        credential::fixture::{TIMING, World},
        egress::certificates::{Authority, replace},
    };

    #[tokio::test]
    async fn a_certificate_is_shown_as_its_files_are_now() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("gate.crt"), folder.path().join("gate.key"));
        let authority = Authority::new("ca");
        let (first, second) = (authority.client("one", vec![]), authority.client("other", vec![]));
        replace(&certificate, &first.pem, 0o600);
        replace(&key, &first.key, 0o600);
        let kind = json!({ "certificate": { "certificate": "file:gate.crt", "key": "file:gate.key" } });
        let (world, problems) = World::try_of(&kind, &json!({}), &BTreeMap::new(), folder.path());
        assert!(problems.is_empty(), "{problems:?}");
        let identity = async || {
            let lease = world.lease_for("orders.get", "bot", None).await;
            lease.map(|lease| format!("{:?}", lease.identity().unwrap())).map_err(|error| error.to_string())
        };
        let one = identity().await.unwrap();
        assert_eq!(identity().await.unwrap(), one);
        // Between the two files a look may fall: the halves of different pairs are not shown.
        replace(&certificate, &second.pem, 0o600);
        tokio::time::sleep(TIMING.look_every * 2).await;
        assert_eq!(
            identity().await.unwrap_err(),
            "the secret at `file:gate.key` is not the private key of the certificate"
        );
        replace(&key, &second.key, 0o600);
        tokio::time::sleep(TIMING.look_every * 2).await;
        assert_ne!(identity().await.unwrap(), one);
    }
}
