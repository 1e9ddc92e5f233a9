//! How upstreams stand: connected or not, and which of their tools are not what was reviewed.
//!
//! What an upstream lists is held against the pins on each connection by itself, when it is first used, when the
//! upstream says that its list is another, and when the last look is older than the upstream's `recheck`. A tool that
//! differs is in quarantine from then on, until the process ends: an upstream that changes a tool and changes it back
//! has shown what it does. One upstream's trouble is no other's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{self, Instant},
};

use super::{
    Connection, Event, Pool, PoolBounds, Reached, ServerFacts, Taken, UpstreamError,
    pin::{Difference, Fit, definition_digest, difference, fit_by, instructions_digest},
};
use crate::{
    call::Era,
    credential::{Lease, LiveSecret},
    manifest::{Ask, Digest, ServiceName, ToolName, UpstreamKind},
};

/// How many events of an upstream may wait. What finds no room is made up for by the next look.
const EVENTS_MAX: usize = 64;
/// How long a quarantine waits for its record.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon an upstream that failed is tried again, where its `recheck` is longer. The pool may wait longer still.
const RETRY: Duration = Duration::from_secs(5);
/// A larger reviewed definition is not compared.
const REVIEWED_BYTES_MAX: u64 = 1 << 20;

/// An upstream, and what of it was reviewed.
#[derive(Debug)]
pub struct Pinned {
    /// Its name.
    pub name: ServiceName,
    /// Where it is.
    pub reached: Reached,
    /// How old what was checked may be.
    pub recheck: Duration,
    /// The digest of its instructions.
    pub instructions: Option<Digest>,
    /// Its instructions as they were reviewed, in a file, where there is one.
    pub reviewed: Option<PathBuf>,
    /// Whether it takes calls without a credential, so that it can be looked at when nobody calls.
    pub is_open: bool,
    /// Its tools.
    pub tools: Vec<PinnedTool>,
}

/// A tool, as it was reviewed.
#[derive(Clone, Debug)]
pub struct PinnedTool {
    /// The tool that clients see.
    pub name: ToolName,
    /// What it is at the upstream.
    pub kind: UpstreamKind,
    /// Its name there; the URI of a resource, or a template.
    pub tool: String,
    /// The digest of its definition there.
    pub definition: Digest,
    /// The definition itself, in a file, where there is one.
    pub reviewed: Option<PathBuf>,
    /// What the upstream may ask during its calls.
    pub asks: Vec<Ask>,
}

/// All upstreams. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct Upstreams {
    all: Arc<BTreeMap<ServiceName, Arc<Upstream>>>,
    /// Counts how often something came into quarantine, or out of it.
    turns: watch::Sender<u64>,
}

#[derive(Debug)]
struct Upstream {
    name: ServiceName,
    pool: Pool,
    recheck: Duration,
    instructions: Option<Digest>,
    reviewed: Option<PathBuf>,
    is_open: bool,
    tools: Vec<PinnedTool>,
    standing: ArcSwap<Standing>,
    /// Held by the one who changes the standing.
    writing: Mutex<()>,
    /// How often the upstream has said that its list is another.
    generation: AtomicU64,
    is_attended: AtomicBool,
    wake: Arc<Notify>,
    notices: mpsc::Sender<Notice>,
    turns: watch::Sender<u64>,
    _secrets: Vec<LiveSecret>,
}

/// How an upstream stands.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Whether it answers.
    pub state: State,
    /// When its tools were last held against the pins.
    pub checked: Option<Timestamp>,
    /// Whether it knows what arguments could be; nothing where it has not been asked yet.
    pub completes: Option<bool>,
    /// All its tools, where its instructions are not what was reviewed.
    pub instructions: Option<Arc<Quarantine>>,
    /// Its tools that are not what was reviewed, by their name there and the definition that was reviewed.
    quarantined: BTreeMap<(UpstreamKind, String, Digest), Arc<Quarantine>>,
}

/// Whether an upstream answers.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum State {
    /// Nobody has needed it yet.
    #[default]
    Unused,
    /// It has answered.
    Connected {
        /// The protocol's version that it speaks.
        version: &'static str,
    },
    /// It has not.
    Failed {
        /// Why.
        why: String,
    },
}

/// What keeps a tool from being called.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Quarantine {
    /// What was found.
    pub why: Why,
    /// When.
    pub since: Timestamp,
    /// The digest of what is there now; none where nothing is.
    pub found: Option<Digest>,
    /// What changed, where what was reviewed is at hand.
    pub difference: Option<Difference>,
}

/// What is not as it was reviewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The tool is another.
    Changed,
    /// The upstream's instructions are others.
    Instructions,
    /// Several tools have its name.
    Ambiguous,
    /// No tool has its name. It can be called again as soon as it is there again, as it was.
    Missing,
}

impl Why {
    /// The word that stands for it on record.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Instructions => "instructions",
            Self::Ambiguous => "ambiguous",
            Self::Missing => "missing",
        }
    }
}

/// A tool that came into quarantine, for the record.
#[derive(Debug)]
pub struct Notice {
    /// The upstream.
    pub upstream: ServiceName,
    /// The tool that clients see.
    pub tool: ToolName,
    /// Why it is there.
    pub quarantine: Arc<Quarantine>,
    /// Told when it is on record: nobody is refused for it before.
    pub recorded: oneshot::Sender<()>,
}

/// One tool of an upstream, and how it stands.
#[derive(Clone, Debug)]
pub struct ToolStanding {
    /// The tool that clients see.
    pub name: ToolName,
    /// Its name at the upstream.
    pub tool: String,
    /// What keeps it from being called.
    pub quarantine: Option<Arc<Quarantine>>,
}

/// What was seen of a connection's tools.
#[derive(Clone, Debug)]
pub(super) struct Check {
    at: Instant,
    generation: u64,
    /// By the tools' names at the upstream: the digest of what is there, where there is one.
    listed: HashMap<(UpstreamKind, String), Digest>,
    instructions: Option<Digest>,
}

/// Why a tool cannot be called now. `Display` is for the log and the record.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotReady {
    /// There is no such upstream, or none of its pins is this tool's.
    #[error("there is no such tool of an upstream in the release")]
    Unknown,
    /// The tool is not what was reviewed.
    #[error("the upstream's tool is in quarantine: {}", .0.why.word())]
    Quarantined(Arc<Quarantine>),
    /// The upstream could not be reached, or could not be checked.
    #[error(transparent)]
    Failed(UpstreamError),
    /// There was no time left to look at it.
    #[error("the upstream could not be checked in time")]
    TimedOut,
}

impl NotReady {
    /// The word that stands for it on record.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "upstream_unknown",
            Self::Quarantined(_) => "upstream_quarantined",
            Self::Failed(_) => "upstream_failed",
            Self::TimedOut => "upstream_unchecked",
        }
    }
}

/// The connection that a call needs.
#[derive(Clone, Debug)]
pub struct Want<'a> {
    /// How the caller speaks.
    pub era: Era,
    /// What the gate says it can do in the caller's stead (MCP `ClientCapabilities`).
    pub abilities: &'a Map<String, Value>,
    /// What is shown to the upstream.
    pub lease: Option<Arc<Lease>>,
    /// Until when the call can wait.
    pub deadline: Instant,
}

impl Upstreams {
    /// Takes upstreams in. Nothing is connected yet; each notice waits for its record.
    ///
    /// To be called within a runtime.
    #[must_use]
    pub fn start(pinned: Vec<Pinned>, notices: &mpsc::Sender<Notice>) -> Self {
        let turns = watch::Sender::default();
        let upstreams = pinned.into_iter().map(|pinned| {
            let (events, heard) = mpsc::channel(EVENTS_MAX);
            let wake = Arc::new(Notify::new());
            let Reached { endpoint, bounds, secrets } = pinned.reached;
            let upstream = Arc::new(Upstream {
                name: pinned.name.clone(),
                pool: Pool::new(endpoint, bounds, PoolBounds::default(), events),
                recheck: pinned.recheck,
                instructions: pinned.instructions,
                reviewed: pinned.reviewed,
                is_open: pinned.is_open,
                tools: pinned.tools,
                standing: ArcSwap::default(),
                writing: Mutex::default(),
                generation: AtomicU64::new(0),
                is_attended: AtomicBool::new(false),
                wake: Arc::clone(&wake),
                notices: notices.clone(),
                turns: watch::Sender::clone(&turns),
                _secrets: secrets,
            });
            tokio::spawn(attend(Arc::downgrade(&upstream), wake, heard));
            (pinned.name, upstream)
        });
        Self { all: Arc::new(upstreams.collect()), turns }
    }

    /// Looks at all upstreams now and from time to time, each by itself, also when nobody calls: for a process that
    /// serves.
    pub fn watch(&self) {
        for upstream in self.all.values() {
            upstream.is_attended.store(true, Ordering::Relaxed);
            upstream.wake.notify_one();
        }
    }

    /// A connection on which this tool is what was reviewed, as of the upstream's `recheck` at most.
    ///
    /// # Errors
    /// When it is not, or that could not be found out in time.
    pub async fn ready_for(
        &self,
        service: &ServiceName,
        tool: (UpstreamKind, &str),
        definition: Digest,
        want: Want<'_>,
    ) -> Result<Taken, NotReady> {
        let upstream = self.all.get(service).ok_or(NotReady::Unknown)?;
        upstream.refuse_quarantined(tool, definition)?;
        let ready = time::timeout_at(want.deadline, upstream.ready(tool, definition, &want)).await;
        ready.unwrap_or(Err(NotReady::TimedOut))
    }

    /// The upstreams' names.
    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.all.keys()
    }

    /// How an upstream stands.
    #[must_use]
    pub fn standing(&self, service: &ServiceName) -> Option<Arc<Standing>> {
        self.all.get(service).map(|upstream| upstream.standing.load_full())
    }

    /// Whether something of an upstream is known not to be what was reviewed, or not to be there.
    #[must_use]
    pub fn is_quarantined(
        &self,
        service: &ServiceName,
        tool: (UpstreamKind, &str),
        definition: Digest,
    ) -> bool {
        self.all.get(service).is_some_and(|it| it.standing.load().of(tool, definition).is_some())
    }

    /// Turns whenever something came into quarantine, or out of it.
    #[must_use]
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.turns.subscribe()
    }

    /// How the tools of an upstream stand.
    #[must_use]
    pub fn tools(&self, service: &ServiceName) -> Vec<ToolStanding> {
        let Some(upstream) = self.all.get(service) else { return Vec::new() };
        let standing = upstream.standing.load();
        let stands = |pin: &PinnedTool| ToolStanding {
            name: pin.name.clone(),
            tool: pin.tool.clone(),
            quarantine: standing.of((pin.kind, &pin.tool), pin.definition).cloned(),
        };
        upstream.tools.iter().map(stands).collect()
    }

    /// The connections to an upstream, for what is not pinned tool by tool.
    #[must_use]
    pub fn pool(&self, service: &ServiceName) -> Option<&Pool> {
        self.all.get(service).map(|upstream| &upstream.pool)
    }

    /// Closes all connections that no call uses.
    pub async fn close(&self) {
        futures::future::join_all(self.all.values().map(|upstream| upstream.pool.close())).await;
    }
}

impl Standing {
    /// What keeps a tool from being called.
    #[must_use]
    pub fn of(&self, (kind, tool): (UpstreamKind, &str), definition: Digest) -> Option<&Arc<Quarantine>> {
        self.instructions.as_ref().or_else(|| self.quarantined.get(&(kind, tool.to_owned(), definition)))
    }

    /// Whether the same things are in quarantine.
    fn is_like(&self, other: &Self) -> bool {
        self.instructions.is_some() == other.instructions.is_some()
            && self.quarantined.keys().eq(other.quarantined.keys())
    }
}

impl Upstream {
    async fn ready(
        &self,
        tool: (UpstreamKind, &str),
        definition: Digest,
        want: &Want<'_>,
    ) -> Result<Taken, NotReady> {
        let taken = self.pool.take(want.era, want.abilities, want.lease.clone()).await;
        let taken = taken.map_err(|error| self.failed(error))?;
        let check = self.check(&taken).await?;
        self.refuse_quarantined(tool, definition)?;
        // The quarantine is shared by all connections; this is of this one alone.
        if check.listed.get(&(tool.0, tool.1.to_owned())) == Some(&definition)
            && check.instructions == self.instructions
        {
            Ok(taken)
        } else {
            // What this look found is why, however long ago it is by now.
            let found = self.standing.load().of(tool, definition).cloned();
            Err(found.map_or(NotReady::Unknown, NotReady::Quarantined))
        }
    }

    fn refuse_quarantined(&self, tool: (UpstreamKind, &str), definition: Digest) -> Result<(), NotReady> {
        let standing = self.standing.load();
        match standing.of(tool, definition) {
            // It may be there again.
            Some(quarantine) if quarantine.why == Why::Missing && self.is_stale(&standing) => Ok(()),
            Some(quarantine) => Err(NotReady::Quarantined(Arc::clone(quarantine))),
            None => Ok(()),
        }
    }

    fn is_stale(&self, standing: &Standing) -> bool {
        let age = standing.checked.map(|checked| Timestamp::now().duration_since(checked));
        age.is_none_or(|age| age.unsigned_abs() >= self.recheck)
    }

    /// Looks at a connection's tools, unless that was done a short while ago.
    async fn check(&self, connection: &Connection) -> Result<Check, NotReady> {
        let mut checked = connection.checked().lock().await;
        let generation = self.generation.load(Ordering::Acquire);
        let is_fresh = |check: &&Check| check.generation == generation && check.at.elapsed() < self.recheck;
        if let Some(check) = checked.as_ref().filter(is_fresh) {
            return Ok(check.clone());
        }
        // What was seen before is not relied on any more, also where the look fails.
        *checked = None;
        let at = Instant::now();
        let mut listings = HashMap::new();
        for kind in self.kinds() {
            let (method, member) = kind.list();
            let listing = connection.list(method, member).await.map_err(|error| self.failed(error))?;
            listings.insert(kind, listing);
        }
        let instructions = connection.server().instructions.as_deref();
        self.judge(&listings, connection.server()).await;
        let digests = self.tools.iter().filter_map(|pin| match pin.fit(&listings) {
            Fit::Fits => Some(((pin.kind, pin.tool.clone()), pin.definition)),
            Fit::Changed(_) | Fit::Ambiguous | Fit::Missing => None,
        });
        let check = Check {
            at,
            generation,
            listed: digests.collect(),
            instructions: instructions_digest(instructions),
        };
        *checked = Some(check.clone());
        Ok(check)
    }

    /// The kinds of things that are pinned, which is what is looked at.
    fn kinds(&self) -> BTreeSet<UpstreamKind> {
        let pinned: BTreeSet<_> = self.tools.iter().map(|pin| pin.kind).collect();
        if pinned.is_empty() { BTreeSet::from([UpstreamKind::Tool]) } else { pinned }
    }

    /// Holds listings against all pins. What is new is on record when this returns.
    async fn judge(&self, listings: &Listings, server: &ServerFacts) {
        let now = Timestamp::now();
        let of_all = self.judge_instructions(server.instructions.as_deref(), now);
        let found: Vec<_> = self.tools.iter().map(|pin| (pin, judge_tool(listings, pin, now))).collect();
        let new = self.change(|standing| {
            standing.state = State::Connected { version: server.version };
            standing.checked = Some(now);
            standing.completes = Some(server.capabilities.contains_key("completions"));
            let mut new = Vec::new();
            if let (None, Some(quarantine)) = (&standing.instructions, of_all) {
                standing.instructions = Some(Arc::clone(&quarantine));
                new.extend(self.tools.iter().map(|pin| (pin, Arc::clone(&quarantine))));
            }
            for (pin, quarantine) in found {
                let key = (pin.kind, pin.tool.clone(), pin.definition);
                let stands = standing.quarantined.get(&key).map(|quarantine| quarantine.why);
                match (stands, quarantine) {
                    (Some(Why::Missing), None) => drop(standing.quarantined.remove(&key)),
                    (None | Some(Why::Missing), Some(quarantine)) if stands != Some(quarantine.why) => {
                        standing.quarantined.insert(key, Arc::clone(&quarantine));
                        new.push((pin, quarantine));
                    }
                    _ => {}
                }
            }
            new
        });
        // Tasks of their own: a call that gives up does not keep it off the record.
        let noted = new.into_iter().map(|(pin, quarantine)| tokio::spawn(self.noted(pin, quarantine)));
        futures::future::join_all(noted.collect::<Vec<_>>()).await;
    }

    fn judge_instructions(&self, instructions: Option<&str>, now: Timestamp) -> Option<Arc<Quarantine>> {
        let found = instructions_digest(instructions);
        if found == self.instructions {
            return None;
        }
        let reviewed = self.reviewed.as_deref().and_then(read_reviewed).unwrap_or_default();
        let is_reviewed = instructions_digest(Some(&reviewed)) == self.instructions;
        let text = |text: &str| Value::Object(Map::from_iter([("instructions".to_owned(), text.into())]));
        let difference =
            is_reviewed.then(|| difference(&text(&reviewed), &text(instructions.unwrap_or_default())));
        Some(Arc::new(Quarantine { why: Why::Instructions, since: now, found, difference }))
    }

    /// Says in the log and on record that a tool is in quarantine.
    fn noted(&self, pin: &PinnedTool, quarantine: Arc<Quarantine>) -> impl Future<Output = ()> + use<> {
        let difference = quarantine.difference.as_ref().map(Difference::line).unwrap_or_default();
        let (upstream, tool, why) = (self.name.clone(), pin.name.clone(), quarantine.why.word());
        tracing::warn!(%upstream, %tool, why, difference, "a tool of an upstream is not what was reviewed: quarantined");
        let (recorded, is_recorded) = oneshot::channel();
        let notice = Notice { upstream: upstream.clone(), tool: tool.clone(), quarantine, recorded };
        let notices = self.notices.clone();
        async move {
            let put = async {
                if notices.send(notice).await.is_ok() {
                    let _ = is_recorded.await;
                }
            };
            if time::timeout(RECORD_TIMEOUT, put).await.is_err() {
                tracing::warn!(%upstream, %tool, "the quarantine is not on record yet");
            }
        }
    }

    fn failed(&self, error: UpstreamError) -> NotReady {
        let why = error.to_string();
        self.change(|standing| standing.state = State::Failed { why });
        NotReady::Failed(error)
    }

    /// Changes the standing. Readers never wait.
    fn change<T>(&self, change: impl FnOnce(&mut Standing) -> T) -> T {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.standing.load_full();
        let mut standing = Standing::clone(&before);
        let done = change(&mut standing);
        let turned = !standing.is_like(&before);
        self.standing.store(Arc::new(standing));
        if turned {
            self.turns.send_modify(|turns| *turns = turns.wrapping_add(1));
        }
        done
    }

    /// Looks at the upstream unasked; says when to look again.
    async fn look(&self) -> Duration {
        if !self.is_open || !self.is_attended.load(Ordering::Relaxed) {
            return self.recheck; // a call looks, with what it shows
        }
        let looked = match self.pool.take(Era::Stateless, &Map::new(), None).await {
            Ok(taken) => self.check(&taken).await.map(drop),
            Err(error) => Err(self.failed(error)),
        };
        match looked {
            Ok(()) => self.recheck,
            Err(error) => {
                tracing::debug!(upstream = %self.name, %error, "the upstream could not be looked at");
                self.recheck.min(RETRY)
            }
        }
    }
}

/// What an upstream lists, by kind.
type Listings = HashMap<UpstreamKind, Vec<Map<String, Value>>>;

impl PinnedTool {
    fn fit<'a>(&self, listings: &'a Listings) -> Fit<'a> {
        let listing = listings.get(&self.kind).map_or(&[][..], Vec::as_slice);
        fit_by(self.kind.key(), listing, &self.tool, self.definition)
    }
}

fn judge_tool(listings: &Listings, pin: &PinnedTool, now: Timestamp) -> Option<Arc<Quarantine>> {
    let (why, found) = match pin.fit(listings) {
        Fit::Fits => return None,
        // Servers offer some tools only to those who can be asked what these tools ask.
        Fit::Missing if !pin.asks.is_empty() => return None,
        Fit::Missing => (Why::Missing, None),
        Fit::Ambiguous => (Why::Ambiguous, None),
        Fit::Changed(found) => (Why::Changed, Some(found)),
    };
    let difference = found.and_then(|found| {
        let text = read_reviewed(pin.reviewed.as_deref()?)?;
        let reviewed: Map<String, Value> = serde_json::from_str(&text).ok()?;
        // A file that is not what was pinned says nothing of what changed.
        (definition_digest(&reviewed) == pin.definition)
            .then(|| difference(&Value::Object(reviewed), &Value::Object(found.clone())))
    });
    Some(Arc::new(Quarantine { why, since: now, found: found.map(definition_digest), difference }))
}

fn read_reviewed(path: &Path) -> Option<String> {
    let length = fs::metadata(path).ok()?.len();
    if length > REVIEWED_BYTES_MAX { None } else { fs::read_to_string(path).ok() }
}

/// Hears what an upstream says of itself, and looks at it from time to time, for as long as it is there.
async fn attend(upstream: Weak<Upstream>, wake: Arc<Notify>, mut heard: mpsc::Receiver<Event>) {
    let mut pause = Duration::ZERO;
    loop {
        let event = tokio::select! {
            event = heard.recv() => match event {
                Some(event) => Some(event),
                None => return,
            },
            () = wake.notified() => None,
            () = time::sleep(pause) => None,
        };
        let Some(upstream) = upstream.upgrade() else { return };
        match event {
            Some(Event::ListChanged(list)) if upstream.kinds().iter().any(|kind| kind.family() == list) => {
                upstream.generation.fetch_add(1, Ordering::AcqRel);
            }
            Some(Event::ListChanged(_)) => continue,
            Some(Event::Closed) | None => {}
        }
        pause = upstream.look().await;
    }
}
