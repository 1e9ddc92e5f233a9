//! One thread for costly validations, so that they take nobody else's time.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::oneshot;

use super::{CompiledSchema, Mismatch, share::Shares};
use crate::manifest::ClientName;

/// Up to this bound, at most about 0.4 ms, a validation runs where it is: larger ones would hold up the
/// other calls of the same worker. An ordinary call with a page of text takes less than half of it.
const IN_PLACE_STEPS_MAX: u64 = 20_000;
/// Above this bound, about 0.4 s, nothing runs.
const STEPS_MAX: u64 = 20_000_000;
/// How many costly validations wait; more are denied.
const QUEUE_MAX: usize = 4;
/// How long a call waits for its turn and its verdict.
#[cfg(not(test))]
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Tests share the machine with others, and the thread gets what they leave.
#[cfg(test)]
const WAIT_MAX: Duration = Duration::from_secs(120);
/// The stack of the thread: the deepest input on the longest chain of subschemas needs less than half.
const STACK_BYTES: usize = 16 << 20;

/// Why a value was not validated.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unchecked {
    /// It would take too long.
    #[error("a validation of this value has no acceptable bound")]
    TooCostly,
    /// Too many costly validations wait.
    #[error("too many costly validations at once")]
    Busy,
    /// The client has had more than its share of costly validations.
    #[error("the client's costly validations have taken their share of the time")]
    Share {
        /// When the next one is accepted.
        retry: Duration,
    },
    /// The validation panicked.
    #[error("the validation panicked")]
    Broken,
}

/// A validation, which makes its answer.
type Job = Box<dyn FnOnce() -> Option<Answer> + Send>;
/// An answer, which wakes whoever waits for it.
type Answer = Box<dyn FnOnce() + Send>;

/// The thread that runs costly validations, one at a time, with a short queue.
#[derive(Debug)]
pub struct Lane {
    /// None where the thread could not be started: then costly validations are always denied.
    jobs: Option<SyncSender<Job>>,
    shares: Shares,
}

impl Lane {
    /// Starts the thread. It ends with the lane.
    #[must_use]
    pub fn start() -> Self {
        let (jobs, waiting) = sync_channel(QUEUE_MAX);
        // No more answers wait than there are jobs.
        let (answers, made) = channel::<Answer>();
        let worker = thread::Builder::new().name("schema".into()).stack_size(STACK_BYTES);
        let waker = thread::Builder::new().name("schema answers".into());
        let started = worker
            .spawn(move || work(&waiting, &answers))
            .and_then(|_| waker.spawn(move || made.iter().for_each(|answer| answer())));
        match started {
            Ok(_) => Self { jobs: Some(jobs), shares: Shares::default() },
            Err(error) => {
                tracing::error!(%error, "no thread for costly validations: they are denied");
                Self { jobs: None, shares: Shares::default() }
            }
        }
    }

    /// Validates the value that `view` finds in the subject, and hands the subject back: here where it
    /// is cheap, else on the thread, at the client's expense.
    ///
    /// # Errors
    /// When the value is not validated; the subject is lost.
    pub async fn check<T: Send + 'static>(
        &self,
        client: &ClientName,
        schema: &Arc<CompiledSchema>,
        subject: T,
        view: fn(&T) -> &Value,
    ) -> Result<(T, Option<Mismatch>), Unchecked> {
        let steps = schema.estimate(view(&subject)).verdict;
        if steps <= IN_PLACE_STEPS_MAX {
            let mismatch = schema.first_mismatch(view(&subject));
            return Ok((subject, mismatch));
        }
        if steps > STEPS_MAX {
            return Err(Unchecked::TooCostly);
        }
        self.shares.admit(client, Instant::now()).map_err(|retry| Unchecked::Share { retry })?;
        let schema = Arc::clone(schema);
        let verdict = self.queue(move || {
            let mismatch = schema.first_mismatch(view(&subject));
            (subject, mismatch)
        })?;
        self.shares.charge(client, steps, Instant::now());
        wait(verdict).await
    }

    fn queue<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, Unchecked>>, Unchecked> {
        let (answer, verdict) = oneshot::channel();
        let job: Job = Box::new(move || {
            if answer.is_closed() {
                return None; // nobody waits any more
            }
            let result: Result<T, Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(work));
            let result = result.map_err(|_| Unchecked::Broken);
            Some(Box::new(move || drop(answer.send(result))))
        });
        let jobs = self.jobs.as_ref().ok_or(Unchecked::Busy)?;
        jobs.try_send(job).map_err(|_| Unchecked::Busy)?;
        Ok(verdict)
    }
}

async fn wait<T>(verdict: oneshot::Receiver<Result<T, Unchecked>>) -> Result<T, Unchecked> {
    match tokio::time::timeout(WAIT_MAX, verdict).await {
        Ok(verdict) => verdict.unwrap_or(Err(Unchecked::Broken)),
        Err(_) => Err(Unchecked::Busy),
    }
}

/// Validates on the thread that asks, within the hard bound.
pub(super) fn check_here(schema: &CompiledSchema, value: &Value) -> Result<Option<Mismatch>, Unchecked> {
    if schema.estimate(value).verdict > STEPS_MAX {
        return Err(Unchecked::TooCostly);
    }
    Ok(schema.first_mismatch(value))
}

/// Runs jobs, and leaves it to the other thread to wake who waits: that takes a lock of the runtime, and a
/// thread that only gets the time that is left would keep it from all others while it gets none.
fn work(jobs: &Receiver<Job>, answers: &Sender<Answer>) {
    #[cfg(target_os = "linux")]
    if let Err(error) = stand_aside() {
        tracing::warn!(?error, "costly validations run at normal priority");
    }
    while let Ok(job) = jobs.recv() {
        if let Some(answer) = job() {
            let _ = answers.send(answer);
        }
    }
}

/// Gives this thread the time that nobody else wants. A low priority is not enough: such a thread still
/// finishes its slice of some milliseconds while others wait, and an idle one does not.
#[cfg(target_os = "linux")]
fn stand_aside() -> Result<(), thread_priority::Error> {
    use thread_priority::{
        NormalThreadSchedulePolicy::Idle, ThreadPriority, ThreadSchedulePolicy::Normal,
        set_thread_priority_and_policy, thread_native_id,
    };
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, Normal(Idle))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn branching() -> Arc<CompiledSchema> {
        let schema = json!({ "$ref": "#/$defs/n", "$defs": { "n": { "anyOf": [
            { "properties": { "c": { "$ref": "#/$defs/n" } }, "required": ["y"] },
            { "properties": { "c": { "$ref": "#/$defs/n" } } },
        ] } } });
        Arc::new(super::super::compile(schema.as_object().unwrap()).unwrap())
    }

    fn client(name: &str) -> ClientName {
        ClientName::parse(name).unwrap()
    }

    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!({}), |value, _| json!({ "c": value }))
    }

    #[tokio::test]
    async fn a_costly_value_is_judged_on_the_lane_and_a_costlier_one_not_at_all() {
        let (lane, schema) = (Lane::start(), branching());
        let estimate = |depth| schema.estimate(&nested(depth)).verdict;
        assert!(estimate(2) <= IN_PLACE_STEPS_MAX);
        assert!((IN_PLACE_STEPS_MAX + 1..=STEPS_MAX).contains(&estimate(16)), "{}", estimate(16));
        for depth in [2, 16] {
            assert_eq!(lane.check(&client("bot"), &schema, nested(depth), |it| it).await.unwrap().1, None);
        }
        assert_eq!(
            lane.check(&client("bot"), &schema, nested(60), |it| it).await.unwrap_err(),
            Unchecked::TooCostly
        );
    }

    #[test]
    fn an_ordinary_call_is_judged_in_place() {
        let item = json!({ "type": "object", "additionalProperties": false, "properties": {
            "sku": { "type": "string", "pattern": "^[A-Z0-9-]{1,20}$" }, "count": { "type": "integer" }
        } });
        let schema = json!({ "type": "object", "additionalProperties": false, "properties": {
            "order": { "type": "string", "pattern": "^ord_[a-z0-9]{8}$" },
            "customer": { "type": "string", "pattern": "^[\\p{L}\\p{M} .'-]{1,100}$" },
            "email": { "type": "string", "format": "email", "maxLength": 80 },
            "note": { "type": "string", "maxLength": 5_000 },
            "lines": { "type": "array", "maxItems": 50, "items": item }
        } });
        let schema = super::super::compile(schema.as_object().unwrap()).unwrap();
        let lines: Vec<_> = (0..50).map(|at| json!({ "sku": format!("SKU-{at}"), "count": at })).collect();
        let call = json!({
            "order": "ord_7f3k2m9q", "customer": "Zoë Šimek-Żółkiewska".repeat(2), "email": "zoe@example.com",
            "note": "Leave it with the neighbours. ".repeat(20), "lines": lines
        });
        assert_eq!(schema.first_mismatch(&call), None);
        let steps = schema.estimate(&call).verdict;
        assert!((2_000..IN_PLACE_STEPS_MAX / 2).contains(&steps), "{steps}");
    }

    #[tokio::test]
    async fn a_full_queue_denies_at_once_and_cheap_values_still_pass() {
        let (lane, schema) = (Arc::new(Lane::start()), branching());
        let (release, blocked) = channel::<()>();
        let (started, running) = channel::<()>();
        let holder = tokio::spawn({
            let lane = Arc::clone(&lane);
            async move {
                let held = lane.queue(move || {
                    started.send(()).unwrap();
                    blocked.recv().unwrap();
                });
                wait(held.unwrap()).await
            }
        });
        tokio::task::spawn_blocking(move || running.recv().unwrap()).await.unwrap();
        let waiting: Vec<_> = (0..QUEUE_MAX)
            .map(|at| {
                let (lane, schema) = (Arc::clone(&lane), Arc::clone(&schema));
                let client = client(&format!("waiting-{at}"));
                tokio::spawn(async move { lane.check(&client, &schema, nested(16), |it| it).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(
            lane.check(&client("bot"), &schema, nested(16), |it| it).await.unwrap_err(),
            Unchecked::Busy
        );
        assert_eq!(lane.check(&client("bot"), &schema, nested(2), |it| it).await.unwrap().1, None);
        release.send(()).unwrap();
        holder.await.unwrap().unwrap();
        for job in waiting {
            assert_eq!(job.await.unwrap().unwrap().1, None);
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_denial_and_the_lane_goes_on() {
        let lane = Lane::start();
        assert_eq!(wait(lane.queue(|| panic!("planted")).unwrap()).await, Err::<(), _>(Unchecked::Broken));
        assert_eq!(wait(lane.queue(|| 7).unwrap()).await, Ok(7));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_thread_takes_the_time_that_nobody_else_wants() {
        use thread_priority::{
            NormalThreadSchedulePolicy::Idle, ThreadSchedulePolicy::Normal, thread_schedule_policy,
        };
        let policy = thread::spawn(|| {
            stand_aside().unwrap();
            thread_schedule_policy().unwrap()
        });
        assert_eq!(policy.join().unwrap(), Normal(Idle));
    }
}
