//! A canary that counts connections, and names that lie.

mod dns;
mod identity;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Method, Request};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use self::dns::{Record, Stub};
use super::*;
use crate::manifest::EgressSpec;

const PATIENCE: Duration = Duration::from_millis(300);

/// A server that counts connections, and answers each with nothing.
struct Canary {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Canary {
    async fn sing() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn allowances(loopback: bool) -> Allowances {
    Allowances::new(&EgressSpec { loopback, ..EgressSpec::default() }).unwrap()
}

fn egress(stub: Option<&Stub>) -> Egress {
    let dns = stub.map(|stub| DnsSpec { servers: vec![stub.address.to_string().parse().unwrap()] });
    Egress::with_timeout(dns.as_ref(), PATIENCE).unwrap()
}

async fn get(way: &Way, host: &str, port: u16) -> Result<u16, SendError> {
    let url = format!("http://{host}:{port}/").parse().unwrap();
    way.send(Request::new(Method::GET, url)).await.map(|response| response.status().as_u16())
}

/// The refusal; an answer, or a connection that failed of itself, is none.
fn refusal(outcome: Result<u16, SendError>) -> Option<EgressRefusal> {
    match outcome {
        Err(SendError::Refused { refusal, sent: false }) => Some(refusal),
        _ => None,
    }
}

fn range(outcome: Result<u16, SendError>) -> Option<&'static str> {
    match refusal(outcome)? {
        EgressRefusal::Special { range, .. } => Some(range.name()),
        _ => None,
    }
}

#[tokio::test]
async fn the_canary_counts() {
    let canary = Canary::sing().await;
    let status = get(&egress(None).way(&allowances(true)), "127.0.0.1", canary.address.port()).await.unwrap();
    assert_eq!((status, canary.connections()), (204, 1));
}

#[tokio::test]
async fn no_spelling_of_this_machine_is_called_unless_it_is_allowed() {
    let canary = Canary::sing().await;
    let egress = egress(None);
    let way = egress.way(&allowances(false));
    for (host, expected) in [
        ("127.0.0.1", "loopback"),
        ("127.1", "loopback"),
        ("127.0.1", "loopback"),
        ("0x7f000001", "loopback"),
        ("0x7f.1", "loopback"),
        ("017700000001", "loopback"),
        ("0177.0.0.01", "loopback"),
        ("2130706433", "loopback"),
        ("127.0.0.1.", "loopback"),
        ("１２７．０．０．１", "loopback"),
        ("①②⑦.0.0.1", "loopback"),
        ("127%2e0%2e0%2e1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("[::1]", "loopback"),
        ("[0:0:0:0:0:0:0:1]", "loopback"),
        ("[::ffff:127.0.0.1]", "IPv4-mapped"),
        ("[::ffff:7f00:1]", "IPv4-mapped"),
        ("[::127.0.0.1]", "IPv4-compatible"),
        ("[64:ff9b::127.0.0.1]", "NAT64"),
        ("[2002:7f00:1::]", "6to4"),
        ("localhost", "loopback"),
        ("localhost.", "loopback"),
        ("LOCALHOST", "loopback"),
        ("api.localhost", "loopback"),
        ("ｌｏｃａｌｈｏｓｔ", "loopback"),
        ("0.0.0.0", "this network"),
        ("0", "this network"),
        ("[::]", "unspecified"),
    ] {
        let outcome = get(&way, host, canary.address.port()).await;
        assert_eq!(range(outcome), Some(expected), "{host}");
    }
    assert_eq!(canary.connections(), 0);
    // Where loopback is allowed, other ways to write it for the socket still are not.
    let way = egress.way(&allowances(true));
    for host in ["0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::127.0.0.1]"] {
        assert!(refusal(get(&way, host, canary.address.port()).await).is_some(), "{host}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_refused_however_it_does() {
    let canary = Canary::sing().await;
    let stub = Stub::answer(|name, nth| match name {
        "loopback.test." => vec![Record::a("127.0.0.1")],
        "mixed.test." => vec![Record::a("192.0.3.1"), Record::a("127.0.0.1")],
        "mixed6.test." => vec![Record::a("192.0.3.1"), Record::aaaa("::1")],
        "mapped.test." => vec![Record::aaaa("::ffff:127.0.0.1")],
        "nat64.test." => vec![Record::aaaa("64:ff9b::7f00:1")],
        "unspecified.test." => vec![Record::a("0.0.0.0")],
        "alias.test." => vec![Record::cname("loopback.test."), Record::a("127.0.0.1").of("loopback.test.")],
        "metadata.google.internal." => vec![Record::a("169.254.169.254")],
        "flips.test." if nth == 0 => vec![Record::a("192.0.3.1")],
        "flips.test." => vec![Record::a("127.0.0.1")],
        _ => Vec::new(),
    })
    .await;
    let way = egress(Some(&stub)).way(&allowances(false));
    for (host, expected) in [
        ("loopback.test", Some("loopback")),
        ("loopback.test.", Some("loopback")),
        ("mixed.test", Some("loopback")),
        ("mixed6.test", Some("loopback")),
        ("mapped.test", Some("IPv4-mapped")),
        ("nat64.test", Some("NAT64")),
        ("unspecified.test", Some("this network")),
        ("alias.test", Some("loopback")),
        ("localhost", Some("loopback")),
        // The first answer is public, where nobody answers; the second is not.
        ("flips.test", None),
        ("flips.test", Some("loopback")),
        ("flips.test", Some("loopback")),
    ] {
        let outcome = get(&way, host, canary.address.port()).await;
        assert!(outcome.is_err(), "{host}");
        assert_eq!(range(outcome), expected, "{host}");
    }
    let metadata = refusal(get(&way, "metadata.google.internal", canary.address.port()).await);
    assert!(matches!(metadata, Some(EgressRefusal::Metadata { .. })), "{metadata:?}");
    assert_eq!(canary.connections(), 0);
    assert!(stub.questions() >= 12, "the stub was asked");
}

#[tokio::test]
async fn a_name_that_is_allowed_is_called_and_one_without_addresses_is_unreachable() {
    let canary = Canary::sing().await;
    let stub = Stub::answer(|name, _| match name {
        "here.test." => vec![Record::a("127.0.0.1")],
        _ => Vec::new(),
    })
    .await;
    let way = egress(Some(&stub)).way(&allowances(true));
    assert_eq!(get(&way, "here.test", canary.address.port()).await.unwrap(), 204);
    assert_eq!(canary.connections(), 1);
    match get(&way, "nowhere.test", canary.address.port()).await {
        Err(SendError::Http(error)) => assert!(error.is_connect()),
        outcome => panic!("{outcome:?}"),
    }
    assert_eq!(canary.connections(), 1);
}

#[tokio::test]
async fn two_services_with_one_name_and_different_egress_share_no_connection() {
    let (canary, stub) = (Canary::sing().await, Stub::answer(|_, _| vec![Record::a("127.0.0.1")]).await);
    let egress = egress(Some(&stub));
    let (open, closed) = (egress.way(&allowances(true)), egress.way(&allowances(false)));
    assert_eq!(get(&open, "shared.test", canary.address.port()).await.unwrap(), 204);
    assert_eq!(range(get(&closed, "shared.test", canary.address.port()).await), Some("loopback"));
    assert_eq!(canary.connections(), 1);
}

#[tokio::test]
async fn the_gates_own_listener_is_refused_whatever_is_allowed() {
    let (canary, stub) = (Canary::sing().await, Stub::answer(|_, _| vec![Record::a("127.0.0.1")]).await);
    let egress = egress(Some(&stub));
    let spec =
        EgressSpec { private: vec!["::ffff:0:0/96".parse().unwrap()], loopback: true, metadata: Vec::new() };
    let way = egress.way(&Allowances::new(&spec).unwrap());
    let port = canary.address.port();
    for own in [canary.address, SocketAddr::new([0, 0, 0, 0].into(), port)] {
        let registered = egress.listeners().register(own);
        for host in ["127.0.0.1", "127.1", "[::ffff:127.0.0.1]", "gate.test"] {
            assert_eq!(
                refusal(get(&way, host, port).await),
                Some(EgressRefusal::OwnListener),
                "{own} {host}"
            );
        }
        let url = format!("http://gate.test:{port}/");
        assert_eq!(way.judge_url(&url).await, Err(EgressRefusal::OwnListener));
        assert_eq!(canary.connections(), 0);
        drop(registered);
    }
    assert_eq!(get(&way, "gate.test", port).await.unwrap(), 204, "another server may have the port later");
}

#[tokio::test]
async fn a_url_in_an_argument_is_judged_as_the_service_is() {
    let canary = Canary::sing().await;
    let stub = Stub::answer(|name, _| match name {
        "public.test." => vec![Record::a("192.0.3.1")],
        "loopback.test." => vec![Record::a("127.0.0.1")],
        "mixed.test." => vec![Record::a("192.0.3.1"), Record::a("127.0.0.1")],
        "xn--bcher-kva.test." => vec![Record::a("127.0.0.1")],
        _ => Vec::new(),
    })
    .await;
    let egress = egress(Some(&stub));
    let (way, open) = (egress.way(&allowances(false)), egress.way(&allowances(true)));
    for url in ["http://8.8.8.8/", "https://public.test/x?y=z#w", "http://public.test.:8080"] {
        assert_eq!(way.judge_url(url).await, Ok(()), "{url}");
    }
    for url in [
        "http://127.1/",
        "http://loopback.test/",
        "http://mixed.test/",
        "http://bücher.test/",
        "http://[::1]/",
    ] {
        let outcome = way.judge_url(url).await;
        assert!(matches!(outcome, Err(EgressRefusal::Special { .. })), "{url} {outcome:?}");
        assert_eq!(open.judge_url(url).await, Ok(()), "{url}");
    }
    assert_eq!(way.judge_url("http://nowhere.test/").await, Err(EgressRefusal::Unresolved));
    assert_eq!(way.judge_url("ftp://public.test/").await, Err(EgressRefusal::Scheme));
    assert_eq!(way.judge_url("http://u:p@public.test/").await, Err(EgressRefusal::Userinfo));
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_refusal_says_which_range_and_never_which_host() {
    let stub = Stub::answer(|_, _| vec![Record::a("10.1.2.3")]).await;
    let refusal = refusal(get(&egress(Some(&stub)).way(&allowances(false)), "secret-name.test", 80).await);
    insta::assert_snapshot!(
        refusal.unwrap(),
        @"the address is private (10.0.0.0/8, RFC 1918), which the service's egress does not allow"
    );
}
