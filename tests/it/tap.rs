//! A server that keeps every byte that reaches it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// A request, as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    /// When its last byte had arrived.
    pub(crate) at: Instant,
    /// All of it.
    pub(crate) bytes: Vec<u8>,
}

impl Arrived {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The path and the query.
    pub(crate) fn target(&self) -> String {
        self.text().split(' ').nth(1).unwrap_or_default().to_owned()
    }
}

/// What a server answers, and after which pause.
pub(crate) type Reply = (Duration, u16, String);

type Answer = Arc<dyn Fn(usize, &Arrived) -> Reply + Send + Sync>;

/// A server that answers as it is told.
#[derive(Clone)]
pub(crate) struct Tap {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Arrived>>>,
    /// What was left of a connection when it ended.
    rest: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    pub(crate) async fn start(answer: impl Fn(usize, &Arrived) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    /// The same, on a listener that is there.
    pub(crate) fn on(
        listener: TcpListener,
        answer: impl Fn(usize, &Arrived) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let tap = Self { address, requests: Arc::default(), rest: Arc::default() };
        let (serving, answer) = (tap.clone(), Arc::new(answer) as Answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream, Arc::clone(&answer)));
            }
        });
        tap
    }

    pub(crate) fn requests(&self) -> Vec<Arrived> {
        self.requests.lock().unwrap().clone()
    }

    /// What arrived and was no whole request.
    pub(crate) fn rest(&self) -> Vec<u8> {
        self.rest.lock().unwrap().clone()
    }

    async fn serve(self, mut stream: TcpStream, answer: Answer) {
        let mut waiting = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            while let Some(length) = whole(&waiting) {
                let bytes = waiting.drain(..length).collect();
                let arrived = Arrived { at: Instant::now(), bytes };
                let number = {
                    let mut requests = self.requests.lock().unwrap();
                    requests.push(arrived.clone());
                    requests.len()
                };
                let (pause, status, body) = answer(number, &arrived);
                sleep(pause).await;
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                    return;
                }
            }
            match stream.read(&mut buffer).await {
                Ok(count @ 1..) => waiting.extend_from_slice(&buffer[..count]),
                Ok(0) | Err(_) => {
                    self.rest.lock().unwrap().extend(waiting);
                    return;
                }
            }
        }
    }
}

/// The length of the request at the beginning, where all of it is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    assert!(!text.contains("transfer-encoding"), "{text}");
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length = head + length.map_or(0, |length| length.parse::<usize>().unwrap());
    (bytes.len() >= length).then_some(length)
}
