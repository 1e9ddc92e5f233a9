use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::*;
use crate::credential::{EndpointError, fixture::TIMING};

#[derive(Debug)]
struct Number {
    number: usize,
    refresh_at: Instant,
    usable_until: Instant,
}

impl Timed for Number {
    fn refresh_at(&self) -> Instant {
        self.refresh_at
    }
    fn usable_until(&self) -> Instant {
        self.usable_until
    }
}

/// Fetches numbers that are due after 200 ms and over after 600 ms.
struct Numbers {
    slot: Arc<Slot<Number>>,
    fetched: Arc<AtomicUsize>,
    takes: Duration,
}

impl Numbers {
    fn new(takes: Duration) -> Self {
        Self { slot: Slot::new(TIMING), fetched: Arc::default(), takes }
    }

    async fn get_within(
        &self,
        limit: Duration,
        error: Option<EndpointError>,
    ) -> Result<usize, CredentialError> {
        let number = self.slot.get(Instant::now() + limit, |_| {
            let (fetched, takes, error) = (Arc::clone(&self.fetched), self.takes, error.clone());
            async move {
                let number = fetched.fetch_add(1, Ordering::SeqCst) + 1;
                time::sleep(takes).await;
                let now = Instant::now();
                match error {
                    Some(source) => Err(CredentialError::Vault { vault: "v".parse().unwrap(), source }),
                    None => Ok(Number {
                        number,
                        refresh_at: now + Duration::from_millis(200),
                        usable_until: now + Duration::from_millis(600),
                    }),
                }
            }
        });
        number.await.map(|found| found.number)
    }

    async fn get(&self) -> usize {
        self.get_within(Duration::from_secs(5), None).await.unwrap()
    }

    fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_who_wait_at_once_wait_for_one_fetch() {
    let numbers = Arc::new(Numbers::new(Duration::from_millis(50)));
    let waiting = (0..200).map(|_| {
        let numbers = Arc::clone(&numbers);
        tokio::spawn(async move { numbers.get().await })
    });
    for got in futures::future::join_all(waiting).await {
        assert_eq!(got.unwrap(), 1);
    }
    assert_eq!(numbers.fetched(), 1);
}

#[tokio::test]
async fn the_old_value_serves_while_the_new_one_is_fetched() {
    let numbers = Numbers::new(Duration::from_millis(100));
    assert_eq!(numbers.get().await, 1);
    time::sleep(Duration::from_millis(250)).await;
    let before = Instant::now();
    assert_eq!((numbers.get().await, numbers.get().await), (1, 1));
    assert!(before.elapsed() < Duration::from_millis(90));
    time::sleep(Duration::from_millis(200)).await;
    assert_eq!((numbers.get().await, numbers.fetched()), (2, 2));
}

#[tokio::test]
async fn a_value_that_is_over_is_not_used() {
    let numbers = Numbers::new(Duration::ZERO);
    assert_eq!(numbers.get().await, 1);
    time::sleep(Duration::from_millis(650)).await;
    assert_eq!(numbers.get().await, 2);
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_while_and_then_tried_again() {
    let numbers = Numbers::new(Duration::ZERO);
    for _ in 0..100 {
        let refusal = numbers.get_within(Duration::from_secs(5), Some(EndpointError::Unreachable)).await;
        assert_eq!(refusal.unwrap_err().to_string(), "the vault `v`: cannot connect");
    }
    assert_eq!(numbers.fetched(), 1);
    time::sleep(TIMING.failure_kept).await;
    assert_eq!((numbers.get().await, numbers.fetched()), (2, 2));
}

#[tokio::test]
async fn a_failed_refresh_leaves_the_old_value_and_a_final_one_does_not() {
    let numbers = Numbers::new(Duration::ZERO);
    for (error, left) in [(EndpointError::Sealed, true), (EndpointError::Denied, false)] {
        numbers.slot.take();
        time::sleep(TIMING.failure_kept).await;
        let first = numbers.get().await;
        time::sleep(Duration::from_millis(250)).await;
        let old = numbers.get_within(Duration::from_secs(5), Some(error.clone())).await.unwrap();
        assert_eq!(old, first); // the refresh begins behind it
        time::sleep(Duration::from_millis(50)).await;
        let after = numbers.get_within(Duration::from_secs(5), Some(error)).await;
        assert_eq!(after.is_ok(), left);
    }
}

#[tokio::test]
async fn a_caller_waits_no_longer_than_it_can_and_the_fetch_goes_on_without_it() {
    let numbers = Numbers::new(Duration::from_millis(300));
    let refusal = numbers.get_within(Duration::from_millis(50), None).await.unwrap_err();
    assert!(matches!(refusal, CredentialError::Waited), "{refusal}");
    assert_eq!((numbers.get().await, numbers.fetched()), (1, 1));
    // And never longer than the module's own limit.
    let hanging = Numbers::new(Duration::from_secs(60));
    let before = Instant::now();
    assert!(hanging.get_within(Duration::from_secs(60), None).await.is_err());
    assert!(before.elapsed() < TIMING.wait_max + Duration::from_millis(500));
}

#[tokio::test]
async fn a_fetch_that_panics_holds_nobody_up() {
    let slot: Arc<Slot<Number>> = Slot::new(TIMING);
    let calls = AtomicUsize::new(0);
    let got = slot.get(Instant::now() + Duration::from_secs(5), |_| {
        let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            assert!(!first, "planted");
            let later = Instant::now() + Duration::from_secs(1);
            Ok(Number { number: 7, refresh_at: later, usable_until: later })
        }
    });
    assert_eq!(got.await.unwrap().number, 7);
}

#[tokio::test]
async fn only_the_value_that_was_refused_is_dropped() {
    let numbers = Numbers::new(Duration::ZERO);
    numbers.get().await;
    let old = numbers.slot.take().unwrap();
    assert_eq!(numbers.get().await, 2);
    numbers.slot.reject(&old);
    assert_eq!((numbers.get().await, numbers.fetched()), (2, 2));
    let current = numbers.slot.lock().current.clone().unwrap();
    numbers.slot.reject(&current);
    assert_eq!(numbers.get().await, 3);
}
