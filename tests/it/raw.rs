//! A server that speaks bytes, and misbehaves as the first segment of a path says.

use std::{io::Write as _, net::SocketAddr, time::Duration};

use flate2::{Compress, Compression, FlushCompress, write::GzEncoder};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

const OK: &str = "HTTP/1.1 200 OK\r\n";
const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

/// How much the bomb decodes to.
const BOMB_BYTES: usize = 10_000_000_000;

/// How much of it one block decodes to.
const BLOCK_BYTES: usize = 1 << 24;

/// Starts one, and says where it is.
pub(crate) async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bomb: &'static Bomb = Box::leak(Box::new(Bomb::make()));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Some(behaviour) = read_behaviour(&mut stream).await {
                    // An error says that the gate has hung up.
                    if behave(&mut stream, &behaviour, bomb).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Reads one request's head.
async fn read_behaviour(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).ok()?.split('/').nth(1)?.to_owned())
}

async fn behave(stream: &mut TcpStream, behaviour: &str, bomb: &Bomb) -> std::io::Result<()> {
    let chunked = format!("{JSON}Transfer-Encoding: chunked\r\n\r\n");
    let whole = |body: &str| format!("{JSON}Content-Length: {}\r\n\r\n{body}", body.len());
    let coded = |body: &[u8]| {
        let head = format!("{JSON}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let text = match behaviour {
        "bomb" => return bomb.throw(stream).await,
        "trickle" => return drip(stream, &format!("{JSON}Content-Length: 100\r\n\r\n"), b" ").await,
        "slow-head" => return drip(stream, OK, b"X").await,
        "silent" => return drip(stream, "", b"").await,
        "stall" => return drip(stream, &format!("{JSON}Content-Length: 100\r\n\r\n{{"), b"").await,
        "chunks" => {
            let chunk = format!("400\r\n{}\r\n", " ".repeat(0x400));
            return flood(stream, &chunked, chunk.as_bytes()).await;
        }
        "extensions" => return flood(stream, &format!("{chunked}2;a="), b"aaaaaaaaaaaaaaaa").await,
        "trailers" => return flood(stream, &format!("{chunked}2\r\n{{}}\r\n0\r\n"), b"X: a\r\n").await,
        "headers" => return flood(stream, OK, b"X: a\r\n").await,
        "one-header" => return flood(stream, &format!("{OK}X: "), b"aaaaaaaaaaaaaaaa").await,
        "continue" => return flood(stream, "", b"HTTP/1.1 100 Continue\r\n\r\n").await,
        "hints" => return flood(stream, "", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n").await,
        "events" => {
            let head = format!("{OK}Content-Type: text/event-stream\r\n\r\n");
            return flood(stream, &head, b"data: {}\n\n").await;
        }
        "truncated-gzip" => {
            let gzip = gzip(br#"{"id":"1"}"#);
            stream.write_all(&coded(&gzip[..gzip.len() - 10])).await?;
            return Ok(());
        }
        "garbage-after-gzip" => {
            return stream.write_all(&coded(&[&gzip(br#"{"id":"1"}"#)[..], b"x"].concat())).await;
        }
        "nested-gzip" => {
            let answer = coded(&gzip(&gzip(br#"{"id":"1"}"#)));
            let head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n";
            return stream.write_all(&[head, answer.strip_prefix(OK.as_bytes()).unwrap()].concat()).await;
        }
        "upgrade" => "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n".into(),
        "conflicting" => {
            format!("{chunked}2\r\n{{}}\r\n0\r\n\r\n").replace("\r\n\r\n2", "\r\nContent-Length: 2\r\n\r\n2")
        }
        "two-lengths" => whole("{}").replacen("Content-Length", "Content-Length: 3\r\nContent-Length", 1),
        "broken-chunks" => format!("{chunked}zz\r\n{{}}\r\n"),
        "duplicate-key" => whole(r#"{"id":"1","id":"2"}"#),
        "bom" => whole("\u{feff}{\"id\":\"1\"}"),
        "surrogate" => whole(r#"{"id":"\ud800"}"#),
        "deep" => whole(&format!("{}{}", "[".repeat(65), "]".repeat(65))),
        "many" => whole(&format!("[{}0]", "0,".repeat(10_000))),
        "two-answers" => whole(r#"{"id":"1"}"#) + &whole(r#"{"id":"stolen"}"#),
        _ => whole(r#"{"id":"1"}"#),
    };
    stream.write_all(text.as_bytes()).await
}

/// Writes the head, and then one drop a second.
async fn drip(stream: &mut TcpStream, head: &str, drop: &[u8]) -> std::io::Result<()> {
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..20 {
        sleep(Duration::from_secs(1)).await;
        stream.write_all(drop).await?;
    }
    Err(std::io::ErrorKind::TimedOut.into())
}

/// Writes the head, and then drops without an end.
async fn flood(stream: &mut TcpStream, head: &str, drop: &[u8]) -> std::io::Result<()> {
    stream.write_all(head.as_bytes()).await?;
    let drops = drop.repeat(256);
    loop {
        stream.write_all(&drops).await?;
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// Gzip of ten billion spaces: one block that is sent again and again.
struct Bomb {
    block: Vec<u8>,
}

impl Bomb {
    fn make() -> Self {
        let mut compress = Compress::new(Compression::best(), false);
        let mut block = Vec::with_capacity(1 << 20);
        compress.compress_vec(&vec![b' '; BLOCK_BYTES], &mut block, FlushCompress::Full).unwrap();
        assert_eq!(compress.total_in(), BLOCK_BYTES as u64);
        Self { block }
    }

    async fn throw(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let head = format!("{JSON}Content-Encoding: gzip\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(b"\x1f\x8b\x08\0\0\0\0\0\0\xff").await?;
        for _ in 0..BOMB_BYTES.div_ceil(BLOCK_BYTES) {
            stream.write_all(&self.block).await?;
        }
        stream.shutdown().await
    }
}

#[test]
fn the_bomb_is_gzip_of_what_it_says() {
    use std::io::Read as _;
    let bomb = Bomb::make();
    let thrown = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff", &bomb.block[..], &bomb.block[..]].concat();
    let mut decoded = vec![0; 2 * BLOCK_BYTES];
    flate2::read::GzDecoder::new(&thrown[..]).read_exact(&mut decoded).unwrap();
    assert!(decoded.iter().all(|byte| *byte == b' '));
    assert!(bomb.block.len() < 1 << 18, "{} bytes", bomb.block.len());
}
