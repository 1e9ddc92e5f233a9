//! `callgate stdio --connect URL`: a client that speaks over standard input and output alone, and a server
//! that speaks Streamable HTTP. Messages pass as they are; what the two ways of carrying them need besides, such
//! as the key, the session and headers, is added here.

mod answer;
mod events;
mod failure;
mod message;
mod server;
mod session;
mod turn;

use std::{
    collections::HashMap,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clap::Args;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::{Mutex as AsyncMutex, Semaphore, mpsc},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    answer::{Answer, Said},
    failure::Failure,
    message::Message,
    server::{KeyPlace, Server},
    session::Memory,
    turn::{Turn, Turns},
};
use super::{output::Printer, visible::visible};
use crate::lines::{Line, Lines};

/// What `stdio --connect` takes.
#[derive(Debug, Args)]
pub(super) struct BridgeArguments {
    /// Serve nothing here: pass messages on to the server at this URL, and its answers back.
    #[arg(long, value_name = "URL", conflicts_with = "client")]
    connect: Option<String>,
    /// The environment variable with the API key that the server is shown.
    #[arg(long, value_name = "NAME", default_value = "CALLGATE_KEY", requires = "connect")]
    key_env: String,
    /// A file with the API key, that only its owner can read, in place of the variable.
    #[arg(long, value_name = "FILE", requires = "connect", conflicts_with = "key_env")]
    key_file: Option<PathBuf>,
    /// The certificates of authorities that are trusted besides the system's, in PEM.
    #[arg(long, value_name = "FILE", requires = "connect")]
    ca: Option<PathBuf>,
}

/// How long a line may be. The server has its own bound, below this.
const LINE_BYTES_MAX: usize = 16 << 20;
/// How many lines may wait to be written.
const LINES_WAITING_MAX: usize = 16;
/// How many requests may wait for their answers.
const REQUESTS_MAX: usize = 128;
/// How many of them a session is asked at once; the others wait here. A session of the gate takes as many.
const OF_SESSION_MAX: usize = 64;
/// How many notifications and responses may be on their way; then no more is read.
const NOTES_MAX: usize = 32;
/// How long what begins a session may take, or what has no answer.
const SHORT_MAX: Duration = Duration::from_secs(30);
/// How long is waited for answers once the client says no more.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(5);
/// How long the end of a session may take.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// How long the server's own stream is left alone after it has ended: at least, and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How many pages of a list the bridge itself asks for.
const PAGES_MAX: usize = 100;
/// MCP 2026-07-28: headers and body say different things.
const HEADER_MISMATCH: i64 = -32020;

impl BridgeArguments {
    /// Whether there is a server to connect to.
    pub(super) const fn is_asked_for(&self) -> bool {
        self.connect.is_some()
    }
}

/// Passes messages on until the client closes its side, or the process is told to stop.
pub(super) async fn run(
    printer: Printer,
    arguments: BridgeArguments,
    stop: impl Future<Output = ()>,
) -> ExitCode {
    // Standard output is the protocol: everything else goes to standard error.
    let printer = printer.as_text();
    let BridgeArguments { connect, key_env, key_file, ca } = arguments;
    let key = key_file.map_or(KeyPlace::Variable(key_env), KeyPlace::File);
    let server = match Server::new(&connect.unwrap_or_default(), key, ca.as_deref(), printer.secrets()) {
        Ok(server) => server,
        Err(message) => return printer.fail(&message),
    };
    let (out, lines) = mpsc::channel(LINES_WAITING_MAX);
    let writer = tokio::spawn(write(tokio::io::stdout(), lines));
    let bridge = Arc::new(Bridge::new(printer, server, out));
    tokio::select! {
        () = bridge.read() => bridge.finish().await,
        () = stop => {}
        () = bridge.closed.cancelled() => {}
    }
    bridge.close().await;
    drop(bridge);
    let _ = timeout(FAREWELL_MAX, writer).await;
    ExitCode::SUCCESS
}

/// Writes line after line, until nobody can send one any more.
async fn write(mut output: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut line) = lines.recv().await {
        line.push(b'\n');
        if output.write_all(&line).await.is_err() || output.flush().await.is_err() {
            return;
        }
    }
}

struct Bridge {
    printer: Printer,
    server: Server,
    memory: Memory,
    out: mpsc::Sender<Vec<u8>>,
    /// The client reads no more.
    closed: CancellationToken,
    /// Ends all that is under way.
    over: CancellationToken,
    tasks: TaskTracker,
    asked: Mutex<HashMap<String, Asked>>,
    turns: Turns,
    requests: Arc<Semaphore>,
    of_session: Semaphore,
    notes: Arc<Semaphore>,
    renewing: AsyncMutex<()>,
    stream: Mutex<Option<AbortHandle>>,
    noted: Mutex<String>,
}

/// A request that waits for its answer.
struct Asked {
    gone: CancellationToken,
    is_modern: bool,
    /// Whether the server may know of it.
    is_sent: bool,
    /// Whether its answer has no end of its own.
    is_subscription: bool,
}

impl Bridge {
    fn new(printer: Printer, server: Server, out: mpsc::Sender<Vec<u8>>) -> Self {
        Self {
            printer,
            server,
            memory: Memory::default(),
            out,
            closed: CancellationToken::new(),
            over: CancellationToken::new(),
            tasks: TaskTracker::new(),
            asked: Mutex::default(),
            turns: Turns::default(),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            of_session: Semaphore::new(OF_SESSION_MAX),
            notes: Arc::new(Semaphore::new(NOTES_MAX)),
            renewing: AsyncMutex::default(),
            stream: Mutex::default(),
            noted: Mutex::default(),
        }
    }

    /// Reads the client's lines to their end. One that is no message is answered, and the next one read.
    async fn read(self: &Arc<Self>) {
        let mut lines = Lines::new(tokio::io::stdin(), LINE_BYTES_MAX);
        while let Ok(Some(line)) = lines.next().await {
            let Line::Whole(line) = line else {
                self.say_error(&Value::Null, -32600, "the message is too large").await;
                continue;
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            match Message::read(line) {
                Ok(message) => self.take(message).await,
                Err(refused) => self.say_error(&refused.id, refused.code, &refused.message).await,
            }
        }
    }

    /// Sees to one message, without waiting for what it brings: the end of the input is to be heard of meanwhile.
    async fn take(self: &Arc<Self>, message: Message) {
        if message.request_id().is_some() {
            return self.take_request(message).await;
        }
        if message.is("notifications/cancelled") {
            return self.cancel(message);
        }
        let turn = self.turns.next(message.is("notifications/initialized"));
        let Ok(place) = Arc::clone(&self.notes).acquire_owned().await else { return };
        let bridge = Arc::clone(self);
        self.tasks.spawn(async move {
            turn.comes().await;
            bridge.notify(&message).await;
            if turn.is_step() && !bridge.over.is_cancelled() {
                bridge.listen();
            }
            drop((turn, place));
        });
    }

    /// Begins to get a request its one answer.
    async fn take_request(self: &Arc<Self>, message: Message) {
        let Some(id) = message.request_id().cloned() else { return };
        let Ok(place) = Arc::clone(&self.requests).try_acquire_owned() else {
            return self.fail(&id, &Failure::Busy).await;
        };
        let gone = CancellationToken::new();
        let asked = Asked {
            gone: gone.clone(),
            is_modern: message.is_modern(),
            is_sent: false,
            is_subscription: message.is("subscriptions/listen"),
        };
        if lock(&self.asked).contains_key(&id.to_string()) {
            return self.fail(&id, &Failure::IdInUse).await;
        }
        lock(&self.asked).insert(id.to_string(), asked);
        let turn = self.turns.next(message.is("initialize"));
        let bridge = Arc::clone(self);
        self.tasks.spawn(async move {
            bridge.answer(&id, &message, &turn, gone).await;
            drop((turn, place));
        });
    }

    /// Gets a request its one answer, unless the client takes it back.
    async fn answer(&self, id: &Value, message: &Message, turn: &Turn, gone: CancellationToken) {
        let limit = if message.is("initialize") { SHORT_MAX } else { Duration::MAX };
        let key = id.to_string();
        let asking = async {
            turn.comes().await;
            let _place = match message.is_modern() {
                true => None, // it is of no session
                false => self.of_session.acquire().await.ok(),
            };
            match lock(&self.asked).get_mut(&key) {
                Some(asked) => asked.is_sent = true,
                None => return Ok(()), // taken back meanwhile
            }
            timeout(limit, self.ask(message)).await.unwrap_or(Err(Failure::Slow))
        };
        let answered = tokio::select! {
            answered = asking => answered,
            () = gone.cancelled() => Ok(()), // who takes a request back waits for no answer
            () = self.over.cancelled() => Ok(()),
        };
        lock(&self.asked).remove(&key);
        if let Err(failure) = answered {
            self.fail(id, &failure).await;
        }
    }

    /// Asks the server, in another session or with more headers if that is what was missing.
    async fn ask(&self, message: &Message) -> Result<(), Failure> {
        let (mut renewed, mut learned, mut repeated) = (false, false, false);
        loop {
            let session = self.memory.session();
            let failure = match self.pass(message).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let names_session = session.id.is_some() && !message.is_modern() && !message.is("initialize");
            match &failure {
                Failure::Refused(refusal)
                    if refusal.status == StatusCode::NOT_FOUND && names_session && !renewed =>
                {
                    renewed = true;
                    self.renew(session.generation).await?;
                }
                Failure::Refused(refusal)
                    if refusal.code() == Some(HEADER_MISMATCH) && message.is("tools/call") && !learned =>
                {
                    // A client that kept an older list has not shown it here. Nothing was called yet.
                    learned = true;
                    self.learn(message).await;
                }
                Failure::BrokeOff if message.may_be_repeated() && !repeated => repeated = true,
                _ => return Err(failure),
            }
        }
    }

    /// Sends a message once, and passes back what comes until its answer has come.
    async fn pass(&self, message: &Message) -> Result<(), Failure> {
        let mut answer = self.post(message).await?;
        while let Some(said) = answer.next().await? {
            let is_answer = said.answers.is_some() && said.answers.as_ref() == message.request_id();
            if is_answer {
                self.remember(message, &said, &answer);
            }
            self.say(said.line).await?;
            if is_answer {
                return Ok(());
            }
        }
        match message.request_id() {
            Some(_) => Err(Failure::BrokeOff),
            None => Ok(()),
        }
    }

    async fn post(&self, message: &Message) -> Result<Answer, Failure> {
        let headers = self.memory.headers(message, &self.memory.session());
        Answer::of(self.server.post(message.bytes.clone(), headers).await?).await
    }

    fn remember(&self, message: &Message, said: &Said, answer: &Answer) {
        if message.is("initialize") {
            if let Some(result) = said.result() {
                self.memory.begin(&message.bytes, answer.headers(), &result);
            }
        } else if message.is("tools/list")
            && let Some(list) = said.result()
        {
            self.memory.learn(&list, message.params.get("cursor").is_none());
        }
    }

    /// Sends what has no answer.
    async fn notify(&self, message: &Message) {
        let sent = tokio::select! {
            sent = timeout(SHORT_MAX, self.ask(message)) => sent.unwrap_or(Err(Failure::Slow)),
            () = self.over.cancelled() => Ok(()),
        };
        if let Err(failure) = sent {
            self.note(&failure);
        }
    }

    /// Ends a request that the client does not want any more. In newer revisions the end of its stream says so.
    fn cancel(self: &Arc<Self>, message: Message) {
        let Some(id) = message.params.get("requestId") else { return };
        let Some(asked) = lock(&self.asked).remove(&id.to_string()) else { return };
        if asked.is_modern || !asked.is_sent {
            return asked.gone.cancel();
        }
        let bridge = Arc::clone(self);
        self.tasks.spawn(async move {
            bridge.notify(&message).await;
            // A server without sessions cannot tell which request was meant, but sees that nobody waits.
            asked.gone.cancel();
        });
    }

    /// Begins a session in place of one that the server does not know any more, unless another task has.
    async fn renew(&self, generation: u64) -> Result<(), Failure> {
        let _turn = self.renewing.lock().await;
        let session = self.memory.session();
        if session.generation != generation {
            return Ok(());
        }
        let gone = || Failure::Unreadable("has ended the session, and begins no other");
        let begun = session.begun.ok_or_else(gone)?;
        let initialize = Message::read(begun.to_vec()).map_err(|_| gone())?;
        let beginning = async {
            let mut answer = self.post(&initialize).await?;
            while let Some(said) = answer.next().await? {
                if said.answers.as_ref() == initialize.request_id() {
                    let result = said.result().ok_or_else(gone)?;
                    self.memory.begin(&initialize.bytes, answer.headers(), &result);
                    return Ok(());
                }
            }
            Err(Failure::BrokeOff)
        };
        timeout(SHORT_MAX, beginning).await.unwrap_or(Err(Failure::Slow))?;
        let line = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        if let Ok(initialized) = Message::read(line.to_vec()) {
            timeout(SHORT_MAX, self.post(&initialized)).await.unwrap_or(Err(Failure::Slow))?;
        }
        Ok(())
    }

    /// Asks for the list of tools, so that a call's headers can be what its tool wants.
    async fn learn(&self, call: &Message) {
        let mut meta = call.params.get("_meta").cloned().unwrap_or_else(|| json!({}));
        if let Some(meta) = meta.as_object_mut() {
            meta.remove("progressToken");
        }
        let mut params = Map::new();
        params.insert("_meta".to_owned(), meta);
        for page in 0..PAGES_MAX {
            let id = format!("callgate-bridge-{page}");
            let line = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list", "params": params });
            let Ok(message) = Message::read(line.to_string().into_bytes()) else { return };
            let Ok(list) = self.result_of(&message).await else { return };
            self.memory.learn(&list, page == 0);
            match list.get("nextCursor").filter(|cursor| cursor.is_string()) {
                Some(cursor) => drop(params.insert("cursor".to_owned(), cursor.clone())),
                None => return,
            }
        }
    }

    async fn result_of(&self, message: &Message) -> Result<Value, Failure> {
        let mut answer = self.post(message).await?;
        while let Some(said) = answer.next().await? {
            if said.answers.as_ref() == message.request_id() {
                return said.result().ok_or(Failure::Unreadable("does not list its tools"));
            }
        }
        Err(Failure::BrokeOff)
    }

    /// Reads what the server says by itself, for as long as this lasts (MCP 2025-11-25 transports, "Listening").
    fn listen(self: &Arc<Self>) {
        let bridge = Arc::clone(self);
        let listening = tokio::spawn(async move { bridge.hear().await });
        if let Some(before) = lock(&self.stream).replace(listening.abort_handle()) {
            before.abort();
        }
    }

    async fn hear(&self) {
        let (mut wait, mut last, mut generation) = (RETRY_MIN, None, 0);
        loop {
            let session = self.memory.session();
            if std::mem::replace(&mut generation, session.generation) != session.generation {
                last = None;
            }
            match self.hear_once(&mut last, &mut wait).await {
                Ok(()) => {}
                Err(Failure::Refused(refusal))
                    if refusal.status == StatusCode::NOT_FOUND && session.id.is_some() =>
                {
                    if let Err(failure) = self.renew(session.generation).await {
                        self.note(&failure);
                    }
                }
                // Most servers have nothing to say by themselves (405); others will not say it to this client.
                Err(Failure::Refused(refusal))
                    if refusal.status.is_client_error()
                        && refusal.status != StatusCode::TOO_MANY_REQUESTS =>
                {
                    return;
                }
                Err(Failure::Closed) => return,
                Err(Failure::BrokeOff) => {}
                Err(failure) => self.note(&failure),
            }
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Reads one such stream to its end.
    async fn hear_once(&self, last: &mut Option<String>, wait: &mut Duration) -> Result<(), Failure> {
        let mut headers = self.memory.session().all_headers();
        if let Some(Ok(id)) = last.as_deref().map(HeaderValue::from_str) {
            headers.insert("last-event-id", id);
        }
        let mut answer = Answer::of(self.server.get(headers).await?).await?;
        if answer.events().is_none() {
            return Err(Failure::Unreadable("answers with no events"));
        }
        loop {
            let next = answer.next().await;
            if let Some(events) = answer.events() {
                if events.last_id.is_some() {
                    last.clone_from(&events.last_id);
                }
                let asked_for = events.retry.unwrap_or(RETRY_MIN);
                *wait = asked_for.clamp(RETRY_MIN, RETRY_MAX);
            }
            match next? {
                Some(said) => self.say(said.line).await?,
                None => return Ok(()),
            }
        }
    }

    /// Waits for answers that are still to come, though not for long, nor for streams without an end.
    async fn finish(&self) {
        self.hang_up();
        for asked in lock(&self.asked).values().filter(|asked| asked.is_subscription) {
            asked.gone.cancel();
        }
        self.tasks.close();
        let _ = timeout(LAST_ANSWERS_MAX, self.tasks.wait()).await;
    }

    /// Ends all that is under way, and the session.
    async fn close(&self) {
        self.hang_up();
        self.over.cancel();
        self.tasks.close();
        let _ = timeout(FAREWELL_MAX, self.tasks.wait()).await;
        let session = self.memory.end();
        if session.id.is_some() {
            let _ = timeout(FAREWELL_MAX, self.server.delete(session.all_headers())).await;
        }
    }

    fn hang_up(&self) {
        if let Some(stream) = lock(&self.stream).take() {
            stream.abort();
        }
    }

    async fn fail(&self, id: &Value, failure: &Failure) {
        self.note(failure);
        let _ = self.say(failure.answer(id, &self.server).to_string().into_bytes()).await;
    }

    async fn say_error(&self, id: &Value, code: i32, message: &str) {
        let error = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } });
        let _ = self.say(error.to_string().into_bytes()).await;
    }

    /// Says a line to the client. Whatever a server repeats, the key is not in it.
    async fn say(&self, line: Vec<u8>) -> Result<(), Failure> {
        let line = self.printer.secrets().scrub(&line).unwrap_or(line);
        if self.out.send(line).await.is_err() {
            self.closed.cancel();
            return Err(Failure::Closed);
        }
        Ok(())
    }

    /// Says to whoever looks at the client's log what went wrong, once for as long as it is the same.
    fn note(&self, failure: &Failure) {
        let message = failure.message(&self.server);
        if std::mem::replace(&mut *lock(&self.noted), message.clone()) != message {
            self.printer.note(&format!("callgate: {}", visible(&message)));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
