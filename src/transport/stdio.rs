//! Standard input and output: one local process, which stands for one client.
//!
//! Each line is judged before the protocol sees it. One that is not a message is answered with an error,
//! and the connection lives on. One task writes all lines, so that none cuts into another.

use std::{io, sync::Arc, time::Duration};

use futures::{Sink, Stream, sink, stream};
use http::StatusCode;
use rmcp::{
    ServiceExt as _,
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    mcp::{Handler, Peer, unspoken},
    peek::{asked, era, nameless, uri_of},
    reasons::malformed,
    refusal::{INVALID_REQUEST, Refusal},
};
use crate::{
    call::{Call, CallKind, Origin, Proof, Transport},
    gateway::{EdgeError, Gateway},
    identity::IdentityError,
    lines::{Line, Lines},
    strict,
};

/// Why a local process is not served.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// The client may not be claimed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The connection failed before it began.
    #[error("the client did not begin as the protocol demands")]
    Handshake,
}

/// How long a line may be.
const LINE_BYTES_MAX: usize = 1 << 20;

/// How many lines may wait to be written.
const LINES_WAITING_MAX: usize = 16;

/// How long the last lines may take to be read by the client.
const LAST_LINES_MAX: Duration = Duration::from_secs(5);

/// Serves one client over standard input and output, until it closes them.
///
/// # Errors
/// When the client may not be claimed, or does not speak the protocol.
pub async fn serve_stdio(gateway: Arc<Gateway>, proof: Proof) -> Result<(), StdioError> {
    let (proof, run) = gateway.begin_process(proof).await?;
    let (written, to_write) = mpsc::channel(LINES_WAITING_MAX);
    let (accepted, messages) = mpsc::channel(1);
    let writer = tokio::spawn(write(tokio::io::stdout(), to_write));
    let edge = Edge { gateway: Arc::clone(&gateway), proof: proof.clone(), written: written.clone() };
    let reader = tokio::spawn(edge.read(tokio::io::stdin(), accepted));
    let handler = Handler::new(Arc::clone(&gateway), Peer::Stdio(proof.clone())).within(Arc::default());
    let served = tokio::select! {
        served = serve(handler, written, messages) => served,
        never = gateway.keep_process(&proof) => match never {},
    };
    reader.abort();
    gateway.finish_tasks().await;
    gateway.end_run(&run).await;
    let _ = timeout(LAST_LINES_MAX, writer).await;
    served
}

async fn serve(
    handler: Handler,
    written: mpsc::Sender<Vec<u8>>,
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
) -> Result<(), StdioError> {
    let service = handler
        .serve((Box::pin(outgoing(written)), Box::pin(incoming(messages))))
        .await
        // The library's own text repeats what the client wrote.
        .map_err(|_| StdioError::Handshake)?;
    // However it ends, it ends: the client closed its side, or the process is told to stop.
    let _ = service.waiting().await;
    Ok(())
}

fn incoming(
    messages: mpsc::Receiver<ClientJsonRpcMessage>,
) -> impl Stream<Item = ClientJsonRpcMessage> + Send {
    stream::unfold(messages, |mut messages| async move {
        let message = messages.recv().await?;
        Some((message, messages))
    })
}

fn outgoing(written: mpsc::Sender<Vec<u8>>) -> impl Sink<ServerJsonRpcMessage, Error = io::Error> + Send {
    sink::unfold(written, |written, message: ServerJsonRpcMessage| async move {
        let line = serde_json::to_vec(&message)?;
        written.send(line).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(written)
    })
}

/// Writes line after line, until nobody can send one any more.
async fn write(mut output: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(mut line) = lines.recv().await {
        line.push(b'\n');
        output.write_all(&line).await?;
        output.flush().await?;
    }
    Ok(())
}

/// What stands between a process's lines and the protocol.
struct Edge {
    gateway: Arc<Gateway>,
    proof: Proof,
    written: mpsc::Sender<Vec<u8>>,
}

impl Edge {
    /// Reads until the client closes its side, or nobody takes messages or replies any more.
    async fn read(self, input: impl AsyncRead + Unpin, accepted: mpsc::Sender<ClientJsonRpcMessage>) {
        let mut lines = Lines::new(input, LINE_BYTES_MAX);
        let mut begun = false;
        while let Ok(Some(line)) = lines.next().await {
            let Line::Whole(line) = line else {
                let refusal = refusal("too_large", "the message is too large");
                if self.refuse(nameless(), &Value::Null, refusal).await.is_err() {
                    return;
                }
                continue;
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let goes_on = match self.judge(&line).await {
                // The protocol takes anything but a request for the end, as long as none has come.
                Ok(Some(message)) if !begun && !matches!(message, ClientJsonRpcMessage::Request(_)) => true,
                Ok(Some(message)) => {
                    begun = true;
                    accepted.send(message).await.is_ok()
                }
                Ok(None) => true,
                Err(Closed) => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// A message, or none where the line was answered here.
    async fn judge(&self, line: &[u8]) -> Result<Option<ClientJsonRpcMessage>, Closed> {
        let message = match strict::message(line) {
            Ok(message) => message,
            Err(refused) => {
                let id = refused.id.clone();
                self.refuse(nameless(), &id, malformed(refused)).await?;
                return Ok(None);
            }
        };
        let method = message.method.as_deref().filter(|_| message.id.is_some());
        let params = message.params.unwrap_or(b"{}");
        let unspoken = method.and_then(|method| unspoken(&self.gateway, method, era(method, params)));
        let id = message.id.map_or(Value::Null, Value::from);
        if let Some(refusal) = unspoken {
            self.reply(&id, &refusal).await?;
            return Ok(None);
        }
        if let Ok(message) = serde_json::from_slice(line) {
            return Ok(Some(message));
        }
        let refusal = refusal("protocol", "not a message of this protocol");
        let name = || message.params_name.unwrap_or_default().into_owned();
        let uri = || uri_of(message.params.unwrap_or(b"{}"));
        match asked(message.method.as_deref().unwrap_or_default(), name, uri) {
            Some(call) => self.refuse(call, &id, refusal).await?,
            None => self.reply(&id, &refusal).await?,
        }
        Ok(None)
    }

    /// Puts a refusal on record, and then answers it. What cannot be read names no tool.
    async fn refuse(&self, kind: CallKind, id: &Value, refusal: Refusal) -> Result<(), Closed> {
        let origin = Origin { transport: Transport::Stdio, source: None };
        let call = Call::now(kind, self.proof.clone(), origin, CancellationToken::new());
        let error = EdgeError { code: refusal.word, message: refusal.message.clone().into_owned() };
        self.gateway.refuse_at_edge(call, error).await;
        self.reply(id, &refusal).await
    }

    async fn reply(&self, id: &Value, refusal: &Refusal) -> Result<(), Closed> {
        self.written.send(refusal.body(id).to_string().into_bytes()).await.map_err(|_| Closed)
    }
}

/// The client reads no more.
struct Closed;

fn refusal(word: &'static str, message: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, word, message)
}
