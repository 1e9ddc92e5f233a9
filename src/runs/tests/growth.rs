//! Whatever happens to live runs, none ever sheds a label: a random history, held against a model.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// A process begins a run for a principal.
    Begin { process: usize, user: usize },
    /// A process asks for a principal's default run.
    Default { process: usize, user: usize },
    /// A process puts labels on a run that it saw before, as it saw it.
    Absorb { process: usize, run: usize, labels: Vec<u8> },
    /// A process ends a run.
    End { process: usize, run: usize },
    /// A process ends, and another takes its place.
    Reopen { process: usize },
    /// Minutes pass, and a process sweeps.
    Pass { process: usize, minutes: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    let process = 0..2_usize;
    prop_oneof![
        3 => (process.clone(), 0..2_usize).prop_map(|(process, user)| Step::Begin { process, user }),
        2 => (process.clone(), 0..2_usize).prop_map(|(process, user)| Step::Default { process, user }),
        6 => (process.clone(), 0..16_usize, vec(0..6_u8, 0..3))
            .prop_map(|(process, run, labels)| Step::Absorb { process, run, labels }),
        1 => (process.clone(), 0..16_usize).prop_map(|(process, run)| Step::End { process, run }),
        1 => process.clone().prop_map(|process| Step::Reopen { process }),
        1 => (process, 0..12_i64).prop_map(|(process, minutes)| Step::Pass { process, minutes }),
    ]
}

/// What must at least be on each live run, by its id.
struct World {
    folder: tempfile::TempDir,
    processes: [Arc<Runs>; 2],
    /// Ids in the order in which they were begun, with a snapshot of the time.
    seen: Vec<(RunId, usize)>,
    least: BTreeMap<RunId, BTreeSet<Label>>,
    now: i64,
    absorbed: usize,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let processes = [runs(folder.path()).await, runs(folder.path()).await];
        Self { folder, processes, seen: Vec::new(), least: BTreeMap::new(), now: 0, absorbed: 0 }
    }

    fn principal(user: usize) -> Principal {
        if user == 0 { bot() } else { for_user("ann") }
    }

    /// What any live run of a user has seen.
    fn union(&self, user: usize) -> BTreeSet<Label> {
        let of_user = self.seen.iter().filter(|(_, owner)| *owner == user);
        of_user.filter_map(|(id, _)| self.least.get(id)).flatten().cloned().collect()
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Begin { process, user } => {
                let before = self.union(*user);
                let principal = Self::principal(*user);
                let run = self.processes[*process].begin(&minted(&principal), at(self.now)).await.unwrap();
                assert_eq!(run.labels(), &before, "a run inherits what its principal's live ones have seen");
                self.seen.push((run.id(), *user));
                self.least.insert(run.id(), before);
            }
            Step::Default { process, user } => {
                let runs = Arc::clone(&self.processes[*process]);
                runs.shared.catch_up(None).await.unwrap();
                let run = runs.default_run(&Self::principal(*user), at(self.now)).await.unwrap();
                if let Some(ended) = run.ended() {
                    self.least.remove(&ended);
                }
                assert_eq!(run.labels(), &self.union(*user));
                if self.least.insert(run.id(), BTreeSet::new()).is_none() {
                    self.seen.push((run.id(), *user));
                } else {
                    self.least.insert(run.id(), self.own(&runs, &run.id()));
                }
            }
            Step::Absorb { process, run, labels } => {
                let Some((id, user)) = self.pick(*run) else { return };
                let runs = &self.processes[*process];
                let Ok(run) = runs.resume(&id, &Self::principal(user), at(self.now)).await else { return };
                let labels: BTreeSet<Label> =
                    labels.iter().map(|label| Label::parse(&format!("l{label}")).unwrap()).collect();
                runs.absorb(&run, &labels).await.unwrap();
                self.least.get_mut(&id).unwrap().extend(labels);
                self.absorbed += 1;
            }
            Step::End { process, run } => {
                let Some((id, _)) = self.pick(*run) else { return };
                self.processes[*process].end(&id, EndReason::Asked, at(self.now)).await.unwrap();
                self.least.remove(&id);
            }
            Step::Reopen { process } => self.processes[*process] = runs(self.folder.path()).await,
            Step::Pass { process, minutes } => {
                self.now += minutes;
                for ended in self.processes[*process].sweep(at(self.now)).await.unwrap() {
                    assert!(self.least.remove(&ended.id).is_some(), "a run ends once");
                }
            }
        }
    }

    fn pick(&self, run: usize) -> Option<(RunId, usize)> {
        let live: Vec<_> = self.seen.iter().filter(|(id, _)| self.least.contains_key(id)).collect();
        live.get(run % live.len().max(1)).map(|found| **found)
    }

    fn own(&self, runs: &Runs, id: &RunId) -> BTreeSet<Label> {
        runs.shared.table().live(id).map(|live| (*live.own).clone()).unwrap_or_default()
    }

    /// Every live run has, in both processes and in a new one, what it has seen, and nothing else.
    async fn check(&self) {
        let fresh = runs(self.folder.path()).await;
        for process in self.processes.iter().chain([&fresh]) {
            process.shared.catch_up(None).await.unwrap();
            let live: BTreeMap<RunId, BTreeSet<Label>> =
                process.list().into_iter().map(|run| (run.id, run.labels.into_iter().collect())).collect();
            assert_eq!(live, self.least);
        }
    }
}

#[test]
fn no_live_run_ever_sheds_a_label() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let absorbed = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&vec(step(), 1..40), |steps| {
            runtime.block_on(async {
                let mut world = World::new().await;
                for step in &steps {
                    world.take(step).await;
                    world.check().await;
                }
                absorbed.set(absorbed.get() + world.absorbed);
            });
            Ok(())
        })
        .unwrap();
    assert!(absorbed.get() > 100, "the histories put labels on runs: {}", absorbed.get());
}

#[tokio::test]
async fn what_a_client_closes_by_itself_leaves_what_it_has_seen_to_the_default_run() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (runs(folder.path()).await, runs(folder.path()).await);
    // With a default run that was there before, with none, and with one that was idle for too long.
    for (user, begun, closed) in [("ann", Some(0), 1), ("ben", None, 1), ("cat", Some(0), 40)] {
        let principal = for_user(user);
        if let Some(begun) = begun {
            assert!(one.default_run(&principal, at(begun)).await.unwrap().labels().is_empty());
        }
        let session = NewRun { kind: RunKind::Session, session: Some(user), ..minted(&principal) };
        let run = one.begin(&session, at(closed)).await.unwrap();
        one.absorb(&run, &labels(&["untrusted"])).await.unwrap();
        one.end(&run.id(), EndReason::Closed, at(closed)).await.unwrap().unwrap();
        let (id, again) = (run.id(), at(closed + 1));
        drop(run);
        assert!(one.resume(&id, &principal, again).await.is_err());
        for runs in [&one, &other] {
            runs.shared.catch_up(None).await.unwrap();
            assert_eq!(runs.default_run(&principal, again).await.unwrap().labels(), &labels(&["untrusted"]));
        }
        let next = one.begin(&minted(&principal), again).await.unwrap();
        assert_eq!(next.labels(), &labels(&["untrusted"]), "{user}");
    }
    // Of what saw nothing, nothing is left, and no default run is begun for it.
    let clean = one.begin(&minted(&for_user("dan")), at(0)).await.unwrap().id();
    one.end(&clean, EndReason::Closed, at(0)).await.unwrap().unwrap();
    assert!(one.default_run(&for_user("dan"), at(0)).await.unwrap().labels().is_empty());
}
