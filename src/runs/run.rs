//! The nouns: a run, whose it is, and how it ends.

use std::{
    collections::BTreeSet,
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::error::RunsError;
use crate::{
    call::User,
    manifest::{ClientName, Label},
};

/// Whose run: a client's, and a user's where one is known.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct Principal {
    /// The client.
    pub client: ClientName,
    /// The user that it acts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
}

impl Principal {
    /// A client that acts for itself.
    #[must_use]
    pub const fn client(client: ClientName) -> Self {
        Self { client, user: None }
    }

    /// The one text that stands for it in the store: a client and an empty user are not a client alone.
    pub(super) fn to_text(&self) -> String {
        let mut parts = vec![self.client.as_str()];
        parts.extend(self.user.iter().flat_map(|user| [user.issuer.as_str(), user.subject.as_str()]));
        serde_json::Value::from(parts).to_string()
    }

    pub(super) fn of_text(text: &str) -> Option<Self> {
        let parts: Vec<String> = serde_json::from_str(text).ok()?;
        let mut parts = parts.into_iter();
        let client = ClientName::parse(&parts.next()?).ok()?;
        let user = match (parts.next(), parts.next(), parts.next()) {
            (None, None, None) => None,
            (Some(issuer), Some(subject), None) => Some(User { issuer, subject }),
            _ => return None,
        };
        Some(Self { client, user })
    }
}

/// The id of a run: 16 random bytes, in hexadecimal.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RunId([u8; 16]);

impl RunId {
    pub(super) fn random() -> Result<Self, RunsError> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| RunsError::NoRandom)?;
        Ok(Self(id))
    }

    /// Reads 32 hexadecimal digits in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok()?;
        text.bytes().all(|digit| !digit.is_ascii_uppercase()).then_some(Self(id))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A kind of thing that is one word in the store and in records.
macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),* }) => {
        impl $name {
            /// The word that stands for it in records.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl FromStr for $name {
            type Err = ();
            fn from_str(word: &str) -> Result<Self, ()> {
                match word { $($word => Ok(Self::$variant),)* _ => Err(()) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    };
}

/// How a run was begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RunKind {
    /// By a call that named no run: each principal has one.
    Default,
    /// At the token endpoint.
    Minted,
    /// By a session of an older protocol era.
    Session,
    /// By a local process.
    Stdio,
}

words!(RunKind { Default = "default", Minted = "minted", Session = "session", Stdio = "stdio" });

/// Why a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndReason {
    /// Somebody asked for it.
    Asked,
    /// It was idle for too long.
    Idle,
    /// It was past its lifetime.
    Lifetime,
    /// It was revoked.
    Revoked,
    /// What it was bound to was closed: a session, or a process.
    Closed,
}

words!(EndReason { Asked = "asked", Idle = "idle", Lifetime = "lifetime", Revoked = "revoked", Closed = "closed" });

/// A run to begin.
#[derive(Clone, Debug)]
pub struct NewRun<'a> {
    /// Whose.
    pub principal: Principal,
    /// How it is begun. A default run is begun by [`super::Runs::default_run`] alone.
    pub kind: RunKind,
    /// How long it may last.
    pub lifetime: Duration,
    /// How long it may be idle. Kept to within a minute, and to within a quarter of it where it is shorter.
    pub idle: Duration,
    /// Where its calls may go, as it was declared.
    pub destinations: Vec<String>,
    /// The id of the session that it stands for, of which only a digest is kept.
    pub session: Option<&'a str>,
}

/// A run that has just ended, for the record.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct EndedRun {
    /// Its id.
    pub id: RunId,
    /// How it was begun.
    pub kind: RunKind,
    /// Whose it was.
    pub principal: Principal,
    /// Why it ended.
    pub why: EndReason,
}

/// What does not change of a live run, and what is only counted.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) id: RunId,
    pub(super) principal: Principal,
    pub(super) kind: RunKind,
    pub(super) session: Option<[u8; 32]>,
    pub(super) destinations: Vec<String>,
    pub(super) begun_ms: i64,
    pub(super) idle_ms: i64,
    pub(super) expires_ms: Option<i64>,
    /// When it was used last, by what this process knows.
    pub(super) used_ms: AtomicI64,
    /// When it was used last, by what is stored.
    pub(super) stored_ms: AtomicI64,
    pub(super) calls: AtomicU64,
}

impl Cell {
    pub(super) fn is_past_lifetime(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|expires| expires <= now_ms)
    }

    pub(super) fn is_idle(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.used_ms.load(Ordering::Relaxed)) >= self.idle_ms
    }

    pub(super) fn used(&self, now_ms: i64) {
        // Mostly it was used in this same millisecond, and a write would take the line from other cores.
        if self.used_ms.load(Ordering::Relaxed) < now_ms {
            self.used_ms.fetch_max(now_ms, Ordering::Relaxed);
        }
    }

    /// Whether the stored time of its last use is so old that others could take the run for idle.
    pub(super) fn is_behind(&self) -> bool {
        let behind_ms =
            self.used_ms.load(Ordering::Relaxed).saturating_sub(self.stored_ms.load(Ordering::Relaxed));
        behind_ms > 0 && behind_ms >= (self.idle_ms / 4).min(USED_STEP_MS)
    }
}

/// How far the stored time of a run's last use may be behind.
const USED_STEP_MS: i64 = 60_000;

/// A run as one call sees it. A clone is the same run at the same moment.
///
/// As long as one is held the run counts as in use in this process, and is not ended for being idle.
#[derive(Clone, Debug)]
pub struct Run {
    pub(super) cell: Arc<Cell>,
    pub(super) labels: Arc<BTreeSet<Label>>,
    pub(super) calls: u64,
    pub(super) ended: Option<RunId>,
    pub(super) _in_use: Arc<()>,
}

impl Run {
    /// A run of no store, for calls that are only rehearsed.
    #[must_use]
    pub fn rehearsal(principal: Principal, labels: BTreeSet<Label>) -> Self {
        let cell = Cell {
            id: RunId([0; 16]),
            principal,
            kind: RunKind::Default,
            session: None,
            destinations: Vec::new(),
            begun_ms: 0,
            idle_ms: i64::MAX,
            expires_ms: None,
            used_ms: AtomicI64::new(0),
            stored_ms: AtomicI64::new(0),
            calls: AtomicU64::new(0),
        };
        Self {
            cell: Arc::new(cell),
            labels: Arc::new(labels),
            calls: 0,
            ended: None,
            _in_use: Arc::default(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.cell.id
    }

    /// Whose it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.cell.principal
    }

    /// How it was begun.
    #[must_use]
    pub fn kind(&self) -> RunKind {
        self.cell.kind
    }

    /// What it has seen; of a default run, what any live run of its principal has seen.
    #[must_use]
    pub fn labels(&self) -> &BTreeSet<Label> {
        &self.labels
    }

    /// Where its calls may go, as it was declared when it began. Empty where nothing was declared.
    #[must_use]
    pub fn destinations(&self) -> &[String] {
        &self.cell.destinations
    }

    /// How many calls this process had begun in it before.
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.calls
    }

    /// The default run that ended by being idle before this one began, where that happened just now.
    #[must_use]
    pub const fn ended(&self) -> Option<RunId> {
        self.ended
    }

    /// When it is past its lifetime, where it has one.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.cell.expires_ms.map(time)
    }

    /// The same run, for one call, which is counted.
    #[must_use]
    pub fn with_call(mut self) -> Self {
        self.calls = self.cell.calls.fetch_add(1, Ordering::Relaxed);
        self
    }
}

/// A live run, as it is listed.
#[derive(Clone, Debug, Serialize)]
pub struct RunView {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    #[serde(flatten)]
    pub principal: Principal,
    /// How it was begun.
    pub kind: RunKind,
    /// When it began.
    pub begun: Timestamp,
    /// When it was used last, to within a minute where another process used it.
    pub used: Timestamp,
    /// When it is past its lifetime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// What it has seen itself.
    pub labels: Vec<Label>,
    /// Where its calls may go.
    pub destinations: Vec<String>,
    /// How many calls this process has begun in it.
    pub calls: u64,
}

/// A time as the store has it. One that no calendar has reads as the nearest that it has.
pub(super) fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// A length of time as the store has it: no longer than can be added to a time.
pub(super) fn millis(length: Duration) -> i64 {
    const CENTURY_MS: i64 = 100 * 365 * 86_400_000;
    i64::try_from(length.as_millis()).unwrap_or(CENTURY_MS).min(CENTURY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_32_digits_in_lower_case() {
        let id = RunId::random().unwrap();
        assert_eq!(RunId::parse(&id.to_string()), Some(id));
        for other in ["", "00", "G0000000000000000000000000000000", "AB000000000000000000000000000000"] {
            assert_eq!(RunId::parse(other), None, "{other}");
        }
        assert_eq!(RunId::parse(&format!("{id} ")), None);
    }

    #[test]
    fn no_two_principals_have_one_text() {
        let client = |name: &str| ClientName::parse(name).unwrap();
        let with = |name: &str, issuer: &str, subject: &str| Principal {
            client: client(name),
            user: Some(User { issuer: issuer.into(), subject: subject.into() }),
        };
        let all = [
            Principal::client(client("bot")),
            with("bot", "", ""),
            with("bot", "a", "b"),
            with("bot", "a\",\"b", ""),
            with("bot", "", "a\",\"b"),
            with("web", "a", "b"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(Principal::of_text(&one.to_text()).as_ref(), Some(one));
            assert!(all.iter().skip(at + 1).all(|other| other.to_text() != one.to_text()), "{one:?}");
        }
        for other in ["", "[]", "[\"b\",\"i\"]", "[\"b\",\"i\",\"s\",\"x\"]", "[\"a b\"]", "[1]"] {
            assert_eq!(Principal::of_text(other), None, "{other}");
        }
    }
}
