//! A server that asks for a certificate, and tells whose it was shown.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{Arc, LazyLock},
    thread,
};

use reqwest::{Method, Request};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use crate::{
    egress::{
        Allowances, ClientIdentity, Egress, Way,
        certificates::{Authority, Issued},
    },
    manifest::EgressSpec,
};

/// An authority, and what it issued to a server and to two clients.
struct Issues {
    authority: Authority,
    issued: BTreeMap<&'static str, Issued>,
}

static ISSUES: LazyLock<Issues> = LazyLock::new(|| {
    let authority = Authority::new("ca");
    let client = |name| (name, authority.client(name, vec![]));
    let issued = [("server", authority.server()), client("one"), client("other")].into();
    Issues { authority, issued }
});

fn certificate(name: &str) -> CertificateDer<'static> {
    let pem = if name == "ca" { &ISSUES.authority.pem } else { &ISSUES.issued[name].pem };
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn key(name: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(ISSUES.issued[name].key.as_bytes()).unwrap()
}

fn identity(name: &str) -> ClientIdentity {
    ClientIdentity::new(vec![certificate(name)], key(name)).unwrap()
}

/// Answers every request with the name of the client whose certificate its connection has shown.
fn serve() -> SocketAddr {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca")).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate("server")], key("server"))
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let config = Arc::clone(&config);
            thread::spawn(move || {
                let connection = ServerConnection::new(config).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                let mut head = Vec::new();
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() {
                    head.extend(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let shown = stream.conn.peer_certificates().unwrap().first().unwrap();
                        let name = if *shown == certificate("one") { "one" } else { "other" };
                        let length = name.len();
                        let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}");
                        let _ = stream.flush();
                    }
                }
            });
        }
    });
    address
}

async fn asked(way: &Way, address: SocketAddr) -> Option<String> {
    let request = Request::new(Method::GET, format!("https://{address}/").parse().unwrap());
    way.send(request).await.ok()?.text().await.ok()
}

#[tokio::test]
async fn connections_of_one_identity_are_never_used_for_another() {
    let (address, egress) = (serve(), Egress::trusting(certificate("ca")));
    let spec = EgressSpec { loopback: true, ..EgressSpec::default() };
    let allowances = Allowances::new(&spec).unwrap();
    for _ in 0..20 {
        for name in ["one", "other"] {
            let way = egress.way_as(&allowances, Some(&identity(name)));
            assert_eq!(asked(&way, address).await.as_deref(), Some(name));
        }
        assert_eq!(asked(&egress.way(&allowances), address).await, None);
    }
}

#[test]
fn a_key_that_is_not_the_certificates_makes_no_identity() {
    assert!(ClientIdentity::new(vec![certificate("one")], key("other")).is_none());
    assert!(ClientIdentity::new(Vec::new(), key("one")).is_none());
    assert!(!format!("{:?}", identity("one")).contains("key"));
}
