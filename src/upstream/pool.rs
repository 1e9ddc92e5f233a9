//! The connections to one upstream.
//!
//! What an upstream asks its client over a shared line cannot be told whose call it is about. So a connection
//! that says it can be asked is taken by one caller at a time; all others are shared.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use reqwest::Request;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, mpsc},
    time::{self, Instant},
};

use super::{Bounds, Connection, Endpoint, Event, Hello, UpstreamError};
use crate::{call::Era, credential::Lease};

/// Bounds on a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolBounds {
    /// How many connections there may be at once.
    pub connections_max: usize,
    /// How long a connection may be unused before it is closed.
    pub idle_timeout: Duration,
    /// How long an upstream is left alone after a first failure. It doubles with each.
    pub backoff_min: Duration,
    /// How long it is left alone at most.
    pub backoff_max: Duration,
    /// How long to wait for a connection when there are as many as may be.
    pub wait_timeout: Duration,
}

impl Default for PoolBounds {
    fn default() -> Self {
        Self {
            connections_max: 16,
            idle_timeout: Duration::from_mins(5),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_mins(1),
            wait_timeout: Duration::from_secs(5),
        }
    }
}

/// The connections to one upstream. Clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    bounds: Bounds,
    pool_bounds: PoolBounds,
    events: mpsc::Sender<Event>,
    places: Arc<Semaphore>,
    jitter: RandomState,
    groups: Mutex<HashMap<Key, Arc<Group>>>,
}

/// What connections differ in.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    era: Era,
    /// The digest of what the client says it can do, and of what it shows.
    shown: [u8; 32],
}

/// The connections that are alike.
#[derive(Default)]
struct Group {
    /// Held while one is being opened, so that one is opened and not many.
    shared: AsyncMutex<Option<Arc<Held>>>,
    idle: Mutex<Vec<Held>>,
    failing: Mutex<Failing>,
}

/// Failures in a row.
#[derive(Clone, Copy, Default)]
struct Failing {
    failures: u32,
    retry_at: Option<Instant>,
}

/// A connection in its place.
struct Held {
    connection: Connection,
    last_used: Mutex<Instant>,
    _place: OwnedSemaphorePermit,
}

/// A connection that was taken. It goes back when this is gone.
pub struct Taken {
    connection: Connection,
    held: Option<Use>,
    group: Arc<Group>,
}

enum Use {
    Shared(Arc<Held>),
    Alone(Held),
}

impl Use {
    fn held(&self) -> &Held {
        match self {
            Self::Shared(held) => held,
            Self::Alone(held) => held,
        }
    }
}

impl Pool {
    /// A pool. Nothing is connected before it is needed.
    #[must_use]
    pub fn new(
        endpoint: Endpoint,
        bounds: Bounds,
        pool_bounds: PoolBounds,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let inner = Arc::new(Inner {
            endpoint,
            bounds,
            pool_bounds,
            events,
            places: Arc::new(Semaphore::new(pool_bounds.connections_max)),
            jitter: RandomState::new(),
            groups: Mutex::default(),
        });
        tokio::spawn(sweep(Arc::downgrade(&inner), pool_bounds.idle_timeout / 4));
        Self(inner)
    }

    /// A connection that speaks this era if the upstream does, says that it can do this, and shows this credential.
    ///
    /// # Errors
    /// When there is none and none can be opened, now or for a while.
    pub async fn take(
        &self,
        era: Era,
        abilities: &Map<String, Value>,
        lease: Option<Arc<Lease>>,
    ) -> Result<Taken, UpstreamError> {
        let shown = digest(&self.0.endpoint, abilities, lease.as_deref());
        let group = Arc::clone(lock(&self.0.groups).entry(Key { era, shown }).or_default());
        let hello = Hello { era, abilities: abilities.clone() };
        // Without sessions nobody is asked but by an answer, which is one caller's.
        let held = if abilities.is_empty() || era == Era::Stateless {
            Use::Shared(self.0.shared(&group, hello, lease).await?)
        } else {
            Use::Alone(self.0.alone(&group, hello, lease).await?)
        };
        Ok(Taken { connection: held.held().connection.clone(), held: Some(held), group })
    }

    /// Closes all connections that nobody has taken.
    pub async fn close(&self) {
        let groups: Vec<_> = lock(&self.0.groups).drain().map(|(_, group)| group).collect();
        let mut closing = Vec::new();
        for group in groups {
            closing.extend(lock(&group.idle).drain(..).map(|held| held.connection));
            closing.extend(group.shared.lock().await.take().map(|held| held.connection.clone()));
        }
        futures::future::join_all(closing.into_iter().map(Connection::close)).await;
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Inner {
    async fn shared(
        &self,
        group: &Group,
        hello: Hello,
        lease: Option<Arc<Lease>>,
    ) -> Result<Arc<Held>, UpstreamError> {
        let mut shared = group.shared.lock().await;
        if let Some(held) = shared.as_ref().filter(|held| !held.connection.is_closed()) {
            held.touch();
            return Ok(Arc::clone(held));
        }
        *shared = None; // its place is free for the next
        let held = Arc::new(self.open(group, hello, lease).await?);
        *shared = Some(Arc::clone(&held));
        Ok(held)
    }

    async fn alone(
        &self,
        group: &Group,
        hello: Hello,
        lease: Option<Arc<Lease>>,
    ) -> Result<Held, UpstreamError> {
        loop {
            let idle = lock(&group.idle).pop();
            match idle {
                Some(held) if held.connection.is_closed() => {}
                Some(held) => return Ok(held),
                None => return self.open(group, hello, lease).await,
            }
        }
    }

    async fn open(
        &self,
        group: &Group,
        hello: Hello,
        lease: Option<Arc<Lease>>,
    ) -> Result<Held, UpstreamError> {
        self.judge_failures(group)?;
        let place = self.place().await?;
        let opened = Connection::open(&self.endpoint, hello, self.bounds, lease, self.events.clone()).await;
        match opened {
            Ok(connection) => {
                *lock(&group.failing) = Failing::default();
                Ok(Held { connection, last_used: Mutex::new(Instant::now()), _place: place })
            }
            Err(error) => {
                self.count_failure(group);
                Err(error)
            }
        }
    }

    /// A place for one more connection. Where there is none, one that is idle makes room.
    async fn place(&self) -> Result<OwnedSemaphorePermit, UpstreamError> {
        let busy = UpstreamError::Busy { connections_max: self.pool_bounds.connections_max };
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        self.close_idle(Duration::ZERO);
        match time::timeout(self.pool_bounds.wait_timeout, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(busy),
        }
    }

    fn judge_failures(&self, group: &Group) -> Result<(), UpstreamError> {
        let Failing { failures, retry_at } = *lock(&group.failing);
        let retry_in = retry_at.map(|at| at.saturating_duration_since(Instant::now())).unwrap_or_default();
        if retry_in.is_zero() { Ok(()) } else { Err(UpstreamError::BackingOff { failures, retry_in }) }
    }

    /// Leaves the upstream alone for a while: from half of the time to all of it, so that not all gates come back
    /// at once.
    fn count_failure(&self, group: &Group) {
        let PoolBounds { backoff_min, backoff_max, .. } = self.pool_bounds;
        let mut failing = lock(&group.failing);
        failing.failures = failing.failures.saturating_add(1);
        let doubled = 1_u32.checked_shl(failing.failures - 1).unwrap_or(u32::MAX);
        let pause = backoff_min.saturating_mul(doubled).min(backoff_max);
        let random = self.jitter.hash_one((failing.failures, Instant::now())) % 1_000;
        let part = 0.5 + f64::from(u16::try_from(random).unwrap_or_default()) / 2_000.0;
        failing.retry_at = Some(Instant::now() + pause.mul_f64(part));
    }

    /// Closes what has not been used for so long, and forgets groups without any connection.
    fn close_idle(&self, idle_for: Duration) {
        let mut groups = lock(&self.groups);
        groups.retain(|_, group| {
            lock(&group.idle).retain(|held| !held.is_stale(idle_for));
            let mut is_empty = lock(&group.idle).is_empty();
            match group.shared.try_lock() {
                Ok(mut shared) => {
                    // Nobody has it but the group, and no request that was begun waits.
                    let is_unused = |held: &mut Arc<Held>| {
                        Arc::strong_count(held) == 1 && held.connection.is_idle() && held.is_stale(idle_for)
                    };
                    drop(shared.take_if(is_unused));
                    is_empty &= shared.is_none();
                }
                Err(_) => is_empty = false,
            }
            let is_failing = lock(&group.failing).retry_at.is_some_and(|at| at > Instant::now());
            // Whoever takes from the group at this moment holds it too.
            !(is_empty && !is_failing && Arc::strong_count(group) == 1)
        });
    }
}

impl Held {
    fn touch(&self) {
        *lock(&self.last_used) = Instant::now();
    }

    fn is_stale(&self, idle_for: Duration) -> bool {
        self.connection.is_closed() || lock(&self.last_used).elapsed() >= idle_for
    }
}

impl Deref for Taken {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        match self.held.take() {
            Some(Use::Shared(held)) => held.touch(),
            // A request that was given up may still be asked about: such a connection is not used again.
            Some(Use::Alone(held)) if !held.connection.is_closed() && held.connection.is_clean() => {
                held.touch();
                lock(&self.group.idle).push(held);
            }
            Some(Use::Alone(_)) | None => {}
        }
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Taken").field(&**self).finish()
    }
}

/// Closes what is idle, for as long as there is the pool.
async fn sweep(pool: Weak<Inner>, every: Duration) {
    loop {
        time::sleep(every.max(Duration::from_millis(10))).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.close_idle(pool.pool_bounds.idle_timeout);
    }
}

/// The digest of what an upstream sees of who connects.
fn digest(endpoint: &Endpoint, abilities: &Map<String, Value>, lease: Option<&Lease>) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(&serde_json::to_vec(abilities).unwrap_or_default());
    if let (Endpoint::Http(endpoint), Some(lease)) = (endpoint, lease) {
        // What a lease shows is known only by having it shown.
        let mut request = Request::new(http::Method::GET, endpoint.url.clone());
        lease.apply(&mut request);
        part(lease.name().as_str().as_bytes());
        part(request.url().as_str().as_bytes());
        for (name, value) in request.headers() {
            part(name.as_str().as_bytes());
            part(value.as_bytes());
        }
    }
    hash.finalize().into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
