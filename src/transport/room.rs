//! The places of requests that are worked on, and how many of them one client or one address may hold.
//!
//! A place is held while a body arrives, however slowly, and until its answer is made. One client alone leaves half of
//! them to others; so do all those together of whom it is not known yet who they are.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    failures::subject,
    serve::permits,
    shares::{Share, Shares},
};
use crate::manifest::ClientName;

/// All places of a listener.
pub(super) struct Room {
    places: Arc<Semaphore>,
    shares: Arc<Shares<Holder>>,
    in_all: usize,
}

/// Who holds a place.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Holder {
    Client(ClientName),
    /// Those at an address of whom nothing is known.
    Source(IpAddr),
    /// All of whom nothing is known.
    Strangers,
}

/// The place of a request, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _shares: [Option<Share<Holder>>; 2],
}

impl Room {
    pub(super) fn new(in_flight: NonZeroU32) -> Self {
        let in_all = permits(in_flight);
        Self { places: Arc::new(Semaphore::new(in_all)), shares: Shares::new(), in_all }
    }

    /// A place for a request of a client, which holds half of them at most.
    pub(super) fn of_client(&self, client: &ClientName) -> Option<Place> {
        let share = self.shares.take(&Holder::Client(client.clone()), self.in_all.div_ceil(2))?;
        self.place([Some(share), None])
    }

    /// A place for a request of somebody at an address, who shows only in the body who it is. All such requests hold
    /// half of the places at most, and those of one address half of that.
    pub(super) fn of_stranger(&self, source: IpAddr) -> Option<Place> {
        let of_source = self.shares.take(&Holder::Source(subject(source)), self.in_all.div_ceil(4))?;
        let of_all = self.shares.take(&Holder::Strangers, self.in_all.div_ceil(2))?;
        self.place([Some(of_source), Some(of_all)])
    }

    fn place(&self, shares: [Option<Share<Holder>>; 2]) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { _permit: permit, _shares: shares })
    }

    /// How many places are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.places.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> ClientName {
        ClientName::parse(name).unwrap()
    }

    #[test]
    fn one_client_holds_half_of_the_places_and_all_together_hold_all_of_them() {
        let room = Room::new(NonZeroU32::new(4).unwrap());
        let mut held = Vec::new();
        for name in ["a", "b", "c"] {
            held.extend(std::iter::from_fn(|| room.of_client(&client(name))));
        }
        assert_eq!((held.len(), room.free()), (4, 0), "two of each, until there are no more");
        drop(held);
        assert!(room.of_client(&client("c")).is_some(), "what was refused holds nothing");
        let one = Room::new(NonZeroU32::MIN);
        assert!(
            one.of_client(&client("a")).is_some() && one.of_stranger(IpAddr::from([1, 2, 3, 4])).is_some()
        );
    }

    #[test]
    fn strangers_hold_half_of_the_places_and_one_address_half_of_that() {
        let room = Room::new(NonZeroU32::new(8).unwrap());
        let mut held = Vec::new();
        for (last, expected) in [(1, 2), (2, 4), (3, 4)] {
            held.extend(std::iter::from_fn(|| room.of_stranger(IpAddr::from([198, 51, 100, last]))));
            assert_eq!(held.len(), expected);
        }
        assert_eq!(room.free(), 4);
    }
}
