//! The streams that clients hold open: how many a client and a run may have, and whether their callers still stand.
//!
//! A stream takes no place of a request, yet it takes a connection for as long as its client likes, whatever it was
//! opened with.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::{
    pace::Pace,
    serve::permits,
    shares::{Share, Shares},
};
use crate::{gateway::Gateway, identity::Caller, manifest::ClientName, runs::RunId};

/// How many streams of one run may be open. More than one, since a client that lost its connection comes back
/// before anybody notices.
const OF_RUN_MAX: usize = 16;

/// How often it is looked whether those who hold streams still stand.
const LOOK: Duration = Duration::from_millis(30);

/// The streams of a listener.
pub(super) struct Seats {
    gateway: Arc<Gateway>,
    of_client_max: usize,
    clients: Arc<Shares<ClientName>>,
    runs: Arc<Shares<RunId>>,
    taken: Mutex<Vec<Weak<Seat>>>,
}

/// One stream, until it is dropped. When its caller or its run no longer stands, its connection is hung up.
pub(super) struct Seat {
    caller: Caller,
    run: Option<RunId>,
    pace: Arc<Pace>,
    _shares: Option<(Share<ClientName>, Share<RunId>)>,
}

impl Seats {
    /// Begins to look after streams, until the looking is dropped. One client may have as many as it may have
    /// sessions, and leaves half of the connections to others.
    pub(super) fn start(
        gateway: Arc<Gateway>,
        connections: NonZeroU32,
    ) -> (Arc<Self>, AbortOnDropHandle<()>) {
        let of_client_max = permits(gateway.sessions_max()).min(permits(connections).div_ceil(2));
        let seats = Arc::new(Self {
            gateway,
            of_client_max,
            clients: Shares::new(),
            runs: Shares::new(),
            taken: Mutex::default(),
        });
        let looking = tokio::spawn(look(Arc::downgrade(&seats)));
        (seats, AbortOnDropHandle::new(looking))
    }

    /// Room for one more stream of a client.
    pub(super) fn reserve(&self, client: &ClientName) -> Option<Share<ClientName>> {
        self.clients.take(client, self.of_client_max)
    }

    /// Takes a seat for a stream of a run.
    pub(super) fn sit(
        &self,
        client: Share<ClientName>,
        caller: Caller,
        run: RunId,
        pace: Arc<Pace>,
    ) -> Option<Arc<Seat>> {
        let of_run = self.runs.take(&run, OF_RUN_MAX)?;
        Some(self.seat(Seat { caller, run: Some(run), pace, _shares: Some((client, of_run)) }))
    }

    /// A seat for the answer to a request, which has its place already.
    pub(super) fn answer(&self, caller: Caller, run: Option<RunId>, pace: Arc<Pace>) -> Arc<Seat> {
        self.seat(Seat { caller, run, pace, _shares: None })
    }

    fn seat(&self, seat: Seat) -> Arc<Seat> {
        let seat = Arc::new(seat);
        self.taken().push(Arc::downgrade(&seat));
        seat
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Weak<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hangs up on all who no longer stand.
    fn look(&self) {
        let mut taken = self.taken();
        taken.retain(|seat| match seat.upgrade() {
            Some(seat) if self.gateway.stands(&seat.caller, seat.run) => true,
            Some(seat) => {
                seat.pace.hang_up();
                false
            }
            None => false,
        });
        if taken.capacity() > 64 && taken.len() < taken.capacity() / 4 {
            taken.shrink_to_fit();
        }
    }
}

/// Looks again and again, for as long as there are seats.
async fn look(seats: Weak<Seats>) {
    while let Some(seats) = seats.upgrade() {
        seats.look();
        drop(seats);
        sleep(LOOK).await;
    }
}
