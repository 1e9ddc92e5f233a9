//! The task that takes what is published of the log to its witnesses, and says what they see.
//!
//! It reads the log's folder like anybody else, so that neither the writer nor a call ever waits for it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    proof,
    record::{self, Body},
    witness::{
        Contradiction, Head, Proofs, SUBMIT_MAX, Submitted, Witness, WitnessKey, WitnessState, keep,
        submit_to_all,
    },
    writer::{Durability, NewRecord, Role, Writer},
};

/// How often the task looks for a new checkpoint.
const LOOK: Duration = Duration::from_secs(1);
/// How often one is submitted.
const EVERY: Duration = Duration::from_secs(10);
/// How often a checkpoint is submitted again that some witness did not cosign.
const RETRY_EVERY: Duration = Duration::from_secs(60);
/// How long witnesses have for the last checkpoint, and the disk to keep what they cosigned.
const LAST_SUBMIT_MAX: Duration = Duration::from_secs(2);
const LAST_MAX: Duration = Duration::from_secs(3);

/// What witnesses know of the log that it does not continue, by the witnesses' keys.
#[derive(Debug, Default)]
pub(super) struct Contradictions(Mutex<BTreeMap<String, Contradiction>>);

impl Contradictions {
    /// Does no witness contradict the log?
    ///
    /// # Errors
    /// When one does: how, in a line.
    pub(super) fn none(&self) -> Result<(), &'static str> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).values().next() {
            None => Ok(()),
            Some(Contradiction { kind: "rolled_back", .. }) => {
                Err("a witness has seen more of the record than there is\n")
            }
            Some(_) => Err("a witness has seen another record than there is\n"),
        }
    }

    /// Notes what a witness says; true where it has not said that before.
    fn note(&self, witness: &WitnessKey, contradiction: Contradiction) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(witness.label(), contradiction) != Some(contradiction)
    }

    /// A witness has cosigned the log: there is nothing left between them.
    fn settle(&self, witness: &WitnessKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&witness.label());
    }
}

/// The running task. Dropped without `finish`, it ends at once.
#[derive(Debug)]
pub struct Witnessing {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Witnessing {
    pub(super) fn start(
        folder: &Path,
        writer: Arc<Writer>,
        contradictions: Arc<Contradictions>,
        witnesses: Vec<Witness>,
    ) -> Self {
        let stop = CancellationToken::new();
        let folder = folder.to_owned();
        let worker = Worker {
            folder,
            writer,
            contradictions,
            witnesses,
            stop: stop.clone(),
            done: None,
            failures: BTreeMap::new(),
        };
        Self { stop, task: tokio::spawn(worker.run()) }
    }

    /// Submits the last checkpoint, once it is published, and ends. It takes no longer than 3 s.
    pub async fn finish(mut self) {
        self.stop.cancel();
        if timeout(LAST_MAX, &mut self.task).await.is_err() {
            tracing::warn!("the last checkpoint may not be with all witnesses: they take too long");
        }
    }
}

impl Drop for Witnessing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker {
    folder: PathBuf,
    writer: Arc<Writer>,
    contradictions: Arc<Contradictions>,
    witnesses: Vec<Witness>,
    stop: CancellationToken,
    /// The size that was submitted last, when, and whether all witnesses cosigned it.
    done: Option<(u64, Instant, bool)>,
    /// Why witnesses did not cosign the last time, by their keys: the same is said once.
    failures: BTreeMap<String, String>,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let last = self.stop.is_cancelled();
            self.round(last).await;
            if last {
                return;
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    async fn round(&mut self, last: bool) {
        let folder = self.folder.clone();
        let read = spawn_blocking(move || {
            let checkpoint = fs::read_to_string(folder.join("checkpoint")).ok()?;
            let head = Head::parse(&checkpoint).ok()?;
            Some((checkpoint, head.size, WitnessState::load(&folder)))
        });
        // Where nothing is published yet, there is nothing to submit.
        let Ok(Some((checkpoint, size, state))) = read.await else { return };
        if !self.is_due(size, last) {
            return;
        }
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                self.done = Some((size, Instant::now(), false));
                return self.say("the log's folder", &error.to_string());
            }
        };
        let Some(submitted) = self.submit(&checkpoint, &state, last).await else { return };
        let all = submitted.iter().all(|submitted| submitted.result.is_ok());
        self.done = Some((size, Instant::now(), all));
        for submitted in &submitted {
            self.judge(submitted, size);
        }
        let folder = self.folder.clone();
        let kept = spawn_blocking(move || keep(&folder, &checkpoint, state, &submitted)).await;
        if let Ok(Err(error)) = kept {
            self.say("the log's folder", &error.to_string());
        }
    }

    fn is_due(&self, size: u64, last: bool) -> bool {
        let Some((submitted, at, whole)) = self.done else { return true };
        let rested = |pause| last || at.elapsed() >= pause;
        size != submitted && rested(EVERY) || !whole && rested(RETRY_EVERY)
    }

    /// `None` where the end came first: the last round does better.
    async fn submit(&self, checkpoint: &str, state: &WitnessState, last: bool) -> Option<Vec<Submitted>> {
        let proofs = proofs(&self.folder, checkpoint);
        let limit = if last { LAST_SUBMIT_MAX } else { SUBMIT_MAX };
        let submitted = submit_to_all(&self.witnesses, checkpoint, &proofs, state, limit);
        if last {
            return Some(submitted.await);
        }
        tokio::select! {
            biased;
            submitted = submitted => Some(submitted),
            () = self.stop.cancelled() => None,
        }
    }

    fn judge(&mut self, Submitted { witness, result, .. }: &Submitted, size: u64) {
        let error = match result {
            Ok(_) => {
                self.contradictions.settle(witness);
                self.failures.remove(&witness.label());
                return;
            }
            Err(error) => error,
        };
        let Some(contradiction) = error.contradiction() else {
            return self.say(&witness.label(), &error.to_string());
        };
        if !self.contradictions.note(witness, contradiction) {
            return;
        }
        let Contradiction { kind, seen } = contradiction;
        tracing::error!(witness = witness.name(), %error, seen, size, "a witness contradicts the record");
        let body = Body::Witness { witness: witness.name(), code: kind, seen, size };
        let written = record::write(&body, Timestamp::now()).and_then(|bytes| {
            self.writer.append(NewRecord { bytes, role: Role::Plain, durability: Durability::Power })
        });
        if let Err(error) = written {
            tracing::error!(%error, "what a witness says is not on record");
        }
    }

    fn say(&mut self, who: &str, error: &str) {
        if self.failures.insert(who.to_owned(), error.to_owned()).as_deref() != Some(error) {
            tracing::warn!(witness = who, error, "a checkpoint is not cosigned");
        }
    }
}

/// Proves that a checkpoint continues what a witness has seen.
fn proofs(folder: &Path, checkpoint: &str) -> Proofs {
    let (folder, checkpoint) = (folder.to_owned(), checkpoint.to_owned());
    Arc::new(move |old, _| {
        let proof = proof::consistency_from(&folder, old, checkpoint.as_bytes());
        proof.map(|proof| proof.path).map_err(|error| error.to_string())
    })
}
