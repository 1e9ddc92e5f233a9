//! Servers on loopback: one that tells what it received, and raw ones that misbehave.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Json, Router, extract::Request};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::manifest::BaseUrl;

fn base_of(listener: &TcpListener) -> BaseUrl {
    BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap()
}

/// A server that answers each request with what it received, and counts them.
pub(super) async fn echo() -> (BaseUrl, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = base_of(&listener);
    let hits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&hits);
    let app = Router::new().fallback(async move |request: Request| {
        counter.fetch_add(1, Ordering::SeqCst);
        describe(request).await
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (base, hits)
}

async fn describe(request: Request) -> Json<Value> {
    let (head, body) = request.into_parts();
    let headers: BTreeMap<String, String> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let body = axum::body::to_bytes(body, 65_536).await.unwrap();
    Json(json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": headers,
        "body": serde_json::from_slice::<Value>(&body).unwrap_or_default(),
    }))
}

/// Servers that speak bytes.
pub(super) mod raw {
    use std::{future::Future, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
    };

    use super::{Arc, AtomicUsize, BaseUrl, Ordering, TcpListener, base_of};

    /// Reads each connection's request head, then lets `behave` do the rest.
    async fn serve<F, R>(behave: F) -> BaseUrl
    where
        F: Fn(TcpStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = base_of(&listener);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                if read_head(&mut stream).await {
                    tokio::spawn(behave(stream));
                }
            }
        });
        base
    }

    /// Whether there was one.
    async fn read_head(stream: &mut TcpStream) -> bool {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return false,
            }
        }
        true
    }

    /// Answers with these bytes and closes.
    pub(crate) async fn answers(answer: Vec<u8>) -> BaseUrl {
        serve(move |mut stream| {
            let answer = answer.clone();
            async move {
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    /// Answers with `head`, then with `drop` again and again, each after `pause`.
    pub(crate) async fn trickles(head: Vec<u8>, drop: &'static [u8], pause: Duration) -> BaseUrl {
        serve(move |mut stream| {
            let head = head.clone();
            async move {
                let mut alive = stream.write_all(&head).await;
                while alive.is_ok() {
                    tokio::time::sleep(pause).await;
                    alive = stream.write_all(drop).await;
                }
            }
        })
        .await
    }

    /// Answers with `head`, then with `drop` again and again.
    pub(crate) async fn floods(head: Vec<u8>, drop: &'static [u8]) -> BaseUrl {
        floods_until_closed(head, drop).await.0
    }

    /// The same; the receiver hears when the first client has closed.
    pub(crate) async fn floods_until_closed(
        head: Vec<u8>,
        drop: &'static [u8],
    ) -> (BaseUrl, oneshot::Receiver<()>) {
        let (base, closed, _) = floods_and_counts(head, drop).await;
        (base, closed)
    }

    /// The same; the number is of the bytes that clients have taken so far.
    pub(crate) async fn floods_and_counts(
        head: Vec<u8>,
        drop: &'static [u8],
    ) -> (BaseUrl, oneshot::Receiver<()>, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let (tell, closed) = oneshot::channel();
        let tell = Arc::new(std::sync::Mutex::new(Some(tell)));
        let base = serve(move |mut stream| {
            let (head, tell, counter) = (head.clone(), Arc::clone(&tell), Arc::clone(&counter));
            async move {
                let mut alive = stream.write_all(&head).await;
                while alive.is_ok() {
                    alive = stream.write_all(drop).await;
                    counter.fetch_add(drop.len(), Ordering::SeqCst);
                }
                if let Some(tell) = tell.lock().unwrap().take() {
                    let _ = tell.send(());
                }
            }
        })
        .await;
        (base, closed, taken)
    }

    /// Answers the first request with these bytes, each after its pause, and every other with
    /// `{"good":true}`, on connections that it keeps open; and counts the connections.
    pub(crate) async fn misbehaves_once(first: Vec<(Duration, Vec<u8>)>) -> (BaseUrl, Arc<AtomicUsize>) {
        const GOOD: &[u8] =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"good\":true}";
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&connections);
        let base = serve(move |mut stream| {
            counter.fetch_add(1, Ordering::SeqCst);
            let (first, requests) = (first.clone(), Arc::clone(&requests));
            async move {
                loop {
                    let pieces = match requests.fetch_add(1, Ordering::SeqCst) {
                        0 => first.clone(),
                        _ => vec![(Duration::ZERO, GOOD.to_vec())],
                    };
                    for (pause, piece) in pieces {
                        tokio::time::sleep(pause).await;
                        let _ = stream.write_all(&piece).await;
                    }
                    if !read_head(&mut stream).await {
                        return;
                    }
                }
            }
        })
        .await;
        (base, connections)
    }

    /// Counts each request and closes without an answer.
    pub(crate) async fn counts_and_closes(hits: Arc<AtomicUsize>) -> BaseUrl {
        serve(move |_| {
            hits.fetch_add(1, Ordering::SeqCst);
            async {}
        })
        .await
    }

    /// An address where nobody listens.
    pub(crate) async fn nobody() -> BaseUrl {
        base_of(&TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// A listener whose queue is full, so that connecting waits; and what keeps it full.
    #[cfg(target_os = "linux")]
    pub(crate) async fn accepts_nobody() -> (BaseUrl, (TcpListener, Vec<TcpStream>)) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            waiting.push(stream);
        }
        (base_of(&listener), (listener, waiting))
    }
}
