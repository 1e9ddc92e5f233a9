//! A DNS server on loopback that says what a test wants (RFC 1035 §4).

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::net::UdpSocket;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// One record of an answer, of the name that was asked for unless it says otherwise.
pub(super) struct Record {
    of: Option<&'static str>,
    kind: u16,
    data: Vec<u8>,
}

impl Record {
    pub(super) fn a(address: &str) -> Self {
        Self::address(A, address)
    }

    pub(super) fn aaaa(address: &str) -> Self {
        Self::address(AAAA, address)
    }

    pub(super) fn cname(name: &str) -> Self {
        Self { of: None, kind: CNAME, data: encode(name) }
    }

    pub(super) fn of(self, name: &'static str) -> Self {
        Self { of: Some(name), ..self }
    }

    fn address(kind: u16, address: &str) -> Self {
        let data = match address.parse().unwrap() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        Self { of: None, kind, data }
    }
}

/// The server.
pub(super) struct Stub {
    pub(super) address: SocketAddr,
    questions: Arc<AtomicUsize>,
}

impl Stub {
    /// Answers each question by the name, and by how often it was asked before with the same type.
    pub(super) async fn answer(zone: impl Fn(&str, usize) -> Vec<Record> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let questions = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&questions);
        tokio::spawn(async move {
            let (mut query, mut asked) = ([0; 1500], HashMap::<(String, u16), usize>::new());
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                counter.fetch_add(1, Ordering::SeqCst);
                let (name, end) = decode(&query[..length]);
                let kind = u16::from_be_bytes([query[end], query[end + 1]]);
                let nth = asked.entry((name.clone(), kind)).or_default();
                let answer = reply(&query[..end + 4], kind, zone(&name, *nth));
                *nth += 1;
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self { address, questions }
    }

    /// How many questions came.
    pub(super) fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

/// The name of the question, in lower case, and where its type stands.
fn decode(query: &[u8]) -> (String, usize) {
    let (mut name, mut at) = (String::new(), 12);
    while query[at] != 0 {
        let length = usize::from(query[at]);
        name.push_str(std::str::from_utf8(&query[at + 1..=at + length]).unwrap());
        name.push('.');
        at += length + 1;
    }
    (name.to_ascii_lowercase(), at + 1)
}

fn encode(name: &str) -> Vec<u8> {
    let mut encoded = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        encoded.push(u8::try_from(label.len()).unwrap());
        encoded.extend(label.as_bytes());
    }
    encoded.push(0);
    encoded
}

fn reply(question: &[u8], kind: u16, records: Vec<Record>) -> Vec<u8> {
    let records: Vec<_> =
        records.into_iter().filter(|record| record.kind == kind || record.kind == CNAME).collect();
    let mut reply = question.to_vec();
    let count = u8::try_from(records.len()).unwrap();
    // An authoritative answer, to one question, with nothing but answers.
    reply[2..12].copy_from_slice(&[0x85, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
    for record in records {
        reply.extend(record.of.map_or_else(|| vec![0xc0, 12], encode));
        reply.extend(record.kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 0]); // the internet; for no time at all
        reply.extend(u16::try_from(record.data.len()).unwrap().to_be_bytes());
        reply.extend(record.data);
    }
    reply
}
