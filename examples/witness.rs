//! A tiny witness (C2SP `tlog-witness`): it remembers how far each log was, and cosigns what continues it.
//!
//! `cargo run --example witness -- --listen 127.0.0.1:9700 --key witness.key --state witness-state.json
//! --log VKEY`. It prints its verifier key and its address.
//!
//! For tests, and to read. It has no TLS, no limit of requests and no backups, and a witness beside
//! the log that it watches, under the same hands, proves nothing: run one elsewhere, or use somebody else's.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Parser;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use signed_note::{Note, Signature, StandardVerifier, VerifierList, is_key_name_valid, key_id};
use tlog_tiles::{Hash, check_tree};
use tokio::net::TcpListener;

/// A tiny witness for transparency logs, for tests.
#[derive(Parser)]
struct Arguments {
    /// The address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:9700")]
    listen: SocketAddr,
    /// The file with the witness's private key; made where there is none.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The witness's name, for a key that is made.
    #[arg(long, default_value = "witness.local/sample")]
    name: String,
    /// The file that remembers the logs.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// The verifier key of a log, or of all logs whose origins are below its name. Can be given again.
    #[arg(long = "log", value_name = "VKEY", required = true)]
    logs: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let cosigner = Cosigner::open(&arguments.key, &arguments.name)?;
    let vkey = cosigner.vkey();
    let witness = Witness::open(cosigner, &arguments.state, &arguments.logs)?;
    let listen = arguments.listen;
    let explain = |error: io::Error| format!("cannot listen on {listen}: {error}");
    let listener = TcpListener::bind(listen).await.map_err(explain)?;
    let address = listener.local_addr().map_err(explain)?;
    // Whoever started it may have stopped reading.
    let _ = writeln!(io::stdout(), "{vkey}\nhttp://{address}");
    axum::serve(listener, router(witness)).await.map_err(explain)
}

const REQUEST_BYTES_MAX: usize = 64 * 1024;
const PROOF_LINES_MAX: usize = 63;
const ORIGINS_MAX: usize = 1_024;

/// The HTTP face of a witness.
pub(crate) fn router(witness: Witness) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(Arc::new(witness))
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: String) -> Response {
    // It syncs a file: not on a thread that others' requests wait for.
    let answer = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body)).await;
    match answer {
        Ok(Ok(lines)) => lines.into_response(),
        Ok(Err(Refusal::Stale { size })) => {
            (StatusCode::CONFLICT, [(CONTENT_TYPE, "text/x.tlog.size")], format!("{size}\n")).into_response()
        }
        Ok(Err(refusal)) => (refusal.status(), format!("{}\n", refusal.reason())).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A witness: its key, the logs it knows, and how far each was.
pub(crate) struct Witness {
    cosigner: Cosigner,
    logs: Vec<LogKey>,
    path: PathBuf,
    seen: Mutex<BTreeMap<String, Seen>>,
}

/// What was cosigned last of a log.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Seen {
    size: u64,
    root: String,
}

enum Refusal {
    BadRequest(&'static str),
    UnknownLog,
    UnknownKey,
    /// The old size is not the one that was seen.
    Stale {
        size: u64,
    },
    /// The same size, and another root.
    Fork,
    BadProof,
    Internal(io::Error),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::UnknownLog => StatusCode::NOT_FOUND,
            Self::UnknownKey => StatusCode::FORBIDDEN,
            Self::Stale { .. } | Self::Fork => StatusCode::CONFLICT,
            Self::BadProof => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::BadRequest(what) => format!("not a request to add a checkpoint: {what}"),
            Self::UnknownLog => "the log is unknown".into(),
            Self::UnknownKey => "no signature by a known key of the log".into(),
            Self::Stale { size } => format!("the size seen last is {size}"),
            Self::Fork => "another tree of this size was seen".into(),
            Self::BadProof => "the tree does not continue the one that was seen".into(),
            Self::Internal(error) => format!("the state cannot be kept: {error}"),
        }
    }
}

impl Witness {
    /// A witness with what it remembers.
    pub(crate) fn open(cosigner: Cosigner, state: &Path, logs: &[String]) -> Result<Self, String> {
        let logs = logs.iter().map(|vkey| LogKey::parse(vkey)).collect::<Result<_, _>>()?;
        let seen = match fs::read(state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(format!("cannot read `{}`: {error}", state.display())),
            // One that forgot what it saw would cosign a rollback: it does not start.
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| format!("`{}` is damaged: {error}", state.display()))?,
        };
        Ok(Self { cosigner, logs, path: state.to_owned(), seen: Mutex::new(seen) })
    }

    /// Cosigns a checkpoint that continues what was seen, in the order of checks that the protocol gives.
    fn add_checkpoint(&self, body: &str) -> Result<String, Refusal> {
        let request = Request::parse(body)?;
        let trusted: Vec<_> = self.logs.iter().filter(|log| log.covers(&request.origin)).collect();
        if trusted.is_empty() {
            return Err(Refusal::UnknownLog);
        }
        if !trusted.iter().any(|log| log.signed(&request)) {
            return Err(Refusal::UnknownKey);
        }
        if request.old > request.size {
            return Err(Refusal::BadRequest("the old size is above the new"));
        }
        // Held until it is durable: two requests must not both continue the same size.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.get(&request.origin);
        let size = last.map_or(0, |last| last.size);
        if size != request.old {
            return Err(Refusal::Stale { size });
        }
        request.continues(last)?;
        let mut next = seen.clone();
        next.insert(request.origin.clone(), Seen { size: request.size, root: request.root.to_string() });
        if next.len() > ORIGINS_MAX {
            return Err(Refusal::UnknownLog);
        }
        self.keep(&next).map_err(Refusal::Internal)?;
        *seen = next;
        drop(seen);
        self.cosigner.cosign(&request.text)
    }

    /// What is kept survives a power loss before anybody is told of it.
    fn keep(&self, seen: &BTreeMap<String, Seen>) -> io::Result<()> {
        let part = self.path.with_extension("part");
        let mut file = File::create(&part)?;
        file.write_all(&serde_json::to_vec_pretty(seen)?)?;
        file.sync_all()?;
        fs::rename(&part, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

/// A log's verifier key, `name+id+base64`.
struct LogKey {
    name: String,
    key: Vec<u8>,
}

impl LogKey {
    fn parse(vkey: &str) -> Result<Self, String> {
        let wrong = || format!("`{vkey}` is no verifier key of a log");
        StandardVerifier::new(vkey).map_err(|_| wrong())?;
        let (name, key) = vkey.split_once('+').ok_or_else(wrong)?;
        let (_, key) = key.split_once('+').ok_or_else(wrong)?;
        Ok(Self { name: name.to_owned(), key: STANDARD.decode(key).map_err(|_| wrong())? })
    }

    /// One key signs for all logs whose origins are below its name.
    fn covers(&self, origin: &str) -> bool {
        origin.strip_prefix(&self.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn signed(&self, request: &Request) -> bool {
        let origin = &request.origin;
        let vkey = format!("{origin}+{:08x}+{}", key_id(origin, &self.key), STANDARD.encode(&self.key));
        let Ok(verifier) = StandardVerifier::new(&vkey) else { return false };
        request.note.verify(&VerifierList::new(vec![Box::new(verifier)])).is_ok()
    }
}

struct Request {
    old: u64,
    proof: Vec<Hash>,
    note: Note,
    text: String,
    origin: String,
    size: u64,
    root: Hash,
}

impl Request {
    fn parse(body: &str) -> Result<Self, Refusal> {
        let (head, note) = body.split_once("\n\n").ok_or(Refusal::BadRequest("no empty line"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(decimal);
        let old = old.ok_or(Refusal::BadRequest("no old size"))?;
        let proof: Option<Vec<_>> = lines.map(hash).collect();
        let proof = proof.filter(|proof| proof.len() <= PROOF_LINES_MAX);
        let proof = proof.ok_or(Refusal::BadRequest("the proof is no list of hashes"))?;

        let no_note = || Refusal::BadRequest("no checkpoint");
        let note = Note::from_bytes(note.as_bytes()).map_err(|_| no_note())?;
        let text = String::from_utf8(note.text().to_vec()).map_err(|_| no_note())?;
        let mut lines = text.lines();
        let origin = lines.next().filter(|origin| !origin.is_empty()).ok_or_else(no_note)?.to_owned();
        let size = lines.next().and_then(decimal).ok_or_else(no_note)?;
        let root = lines.next().and_then(hash).ok_or_else(no_note)?;
        if lines.any(str::is_empty) {
            return Err(no_note());
        }
        Ok(Self { old, proof, note, text, origin, size, root })
    }

    /// Whether the tree continues the one that was seen last.
    fn continues(&self, last: Option<&Seen>) -> Result<(), Refusal> {
        let last = last.filter(|last| last.size > 0);
        let Some(last) = last else {
            let empty = self.size > 0 || self.root.0 == <[u8; 32]>::from(Sha256::digest([]));
            return if self.proof.is_empty() && empty { Ok(()) } else { Err(Refusal::BadProof) };
        };
        let seen = hash(&last.root).ok_or_else(|| Refusal::Internal(io::ErrorKind::InvalidData.into()))?;
        if self.size == last.size {
            return match (self.root == seen, self.proof.is_empty()) {
                (false, _) => Err(Refusal::Fork),
                (true, false) => Err(Refusal::BadProof),
                (true, true) => Ok(()),
            };
        }
        check_tree(&self.proof, self.size, self.root, last.size, seen).map_err(|_| Refusal::BadProof)
    }
}

fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

fn hash(line: &str) -> Option<Hash> {
    Some(Hash(STANDARD.decode(line).ok()?.try_into().ok()?))
}

/// The witness's own key.
pub(crate) struct Cosigner {
    name: String,
    pair: Ed25519KeyPair,
}

/// Signature type of Ed25519 cosignatures.
const COSIGNATURE_V1: u8 = 4;

impl Cosigner {
    /// Reads a private key, `PRIVATE+KEY+name+id+base64`, or makes one.
    pub(crate) fn open(path: &Path, name: &str) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot use `{}`: {error}", path.display());
        match fs::read_to_string(path) {
            Ok(text) => {
                Self::parse(text.trim()).ok_or_else(|| format!("`{}` holds no witness's key", path.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut seed = [0; 32];
                rand::fill(&mut seed).map_err(|_| "the system gives no random bytes".to_owned())?;
                let made =
                    Self::new(name, &seed).ok_or_else(|| format!("`{name}` is no name of a witness"))?;
                made.write(path, &seed).map_err(failed)?;
                Ok(made)
            }
            Err(error) => Err(failed(error)),
        }
    }

    pub(crate) fn new(name: &str, seed: &[u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        is_key_name_valid(name).then(|| Self { name: name.to_owned(), pair })
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.strip_prefix("PRIVATE+KEY+")?.split_once('+')?;
        let (id, key) = rest.split_once('+')?;
        let key = STANDARD.decode(key).ok()?;
        let (kind, seed) = key.split_first()?;
        let cosigner = Self::new(name, seed.try_into().ok()?)?;
        (*kind == COSIGNATURE_V1 && id == format!("{:08x}", cosigner.id())).then_some(cosigner)
    }

    fn write(&self, path: &Path, seed: &[u8]) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        let key = STANDARD.encode([&[COSIGNATURE_V1], seed].concat());
        writeln!(file, "PRIVATE+KEY+{}+{:08x}+{key}", self.name, self.id())?;
        file.sync_all()
    }

    fn public(&self) -> Vec<u8> {
        [&[COSIGNATURE_V1], self.pair.public_key().as_ref()].concat()
    }

    fn id(&self) -> u32 {
        key_id(&self.name, &self.public())
    }

    /// The verifier key: what the witness's users are given.
    pub(crate) fn vkey(&self) -> String {
        format!("{}+{:08x}+{}", self.name, self.id(), STANDARD.encode(self.public()))
    }

    fn cosign(&self, text: &str) -> Result<String, Refusal> {
        let internal = || Refusal::Internal(io::ErrorKind::Other.into());
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| internal())?.as_secs();
        let signature = self.pair.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
        let bytes = [&time.to_be_bytes(), signature.as_ref()].concat();
        let line = Signature::new(self.name.clone(), self.id(), bytes).map_err(|_| internal())?;
        String::from_utf8(line.to_bytes()).map_err(|_| internal())
    }
}
