//! What holds of tasks, whatever is done to them in whatever order.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::manifest::ClientName;

fn spec(held: u32, bytes_kib: u64) -> TasksSpec {
    let of = |text: Value| serde_json::from_value(text).unwrap();
    of(json!({
        "ttl": "60s", "held": held, "held-in-all": 2 * held,
        "bytes": format!("{bytes_kib}KiB"), "bytes-in-all": format!("{}KiB", 2 * bytes_kib)
    }))
}

fn owner(client: &str, run: u8) -> Owner {
    let principal = Principal::client(ClientName::parse(client).unwrap());
    Owner { principal, run: RunId::parse(&hex::encode([run; 16])).unwrap() }
}

fn new(owner: &Owner) -> NewTask {
    let kind = CallKind::Tool { name: "t".into(), arguments: Map::new().into() };
    NewTask { owner: owner.clone(), tool: "t".into(), call: Some(kind), cancel: CancellationToken::new() }
}

/// Moments, counted in seconds from one beginning.
struct Clock(Instant);

impl Clock {
    fn at(&self, second: u64) -> Moment {
        let time = Timestamp::from_second(1_800_000_000 + i64::try_from(second).unwrap()).unwrap();
        Moment { time, tick: self.0 + Duration::from_secs(second) }
    }
}

fn clock() -> Clock {
    Clock(Instant::now())
}

fn done(bytes: usize) -> End {
    End::Completed { result: vec![b'x'; bytes].into(), succeeded: true }
}

fn asked(keys: &[&str]) -> Map<String, Value> {
    keys.iter().map(|key| ((*key).to_owned(), json!({ "method": "roots/list" }))).collect()
}

fn status(tasks: &Tasks, id: &TaskId, owner: &Owner, now: Moment) -> String {
    match tasks.view(id, owner, now).map(|view| view.status) {
        None => "unknown".into(),
        Some(Status::Working) => "working".into(),
        Some(Status::Asking(questions)) => {
            format!("asking {}", questions.keys().cloned().collect::<Vec<_>>().join(" "))
        }
        Some(Status::Ended(End::Completed { .. })) => "completed".into(),
        Some(Status::Ended(End::Failed(error))) => format!("failed {}", String::from_utf8_lossy(&error)),
        Some(Status::Ended(End::Cancelled)) => "cancelled".into(),
    }
}

#[test]
fn a_task_is_its_owners_alone_and_is_over_after_its_time() {
    let (tasks, clock, own) = (Tasks::new(spec(4, 64)), clock(), owner("bot", 1));
    let id = tasks.begin(new(&own), clock.at(0)).unwrap();
    assert_eq!(TaskId::parse(&id.to_string()), Some(id));
    for stranger in [owner("thief", 1), owner("bot", 2)] {
        assert_eq!(status(&tasks, &id, &stranger, clock.at(1)), "unknown");
        assert_eq!(tasks.tool(&id, &stranger), None);
        assert_eq!(tasks.cancel(&id, &stranger, clock.at(1)), None);
        assert_eq!(tasks.answer(&id, &stranger, [], clock.at(1)).unwrap_err(), AnswerError::Unknown);
    }
    // What is under way is not over, however long it takes.
    assert_eq!(status(&tasks, &id, &own, clock.at(3_000)), "working");
    assert_eq!(tasks.view(&id, &own, clock.at(3_000)).unwrap().ttl_ms, 3_060_000);
    tasks.end(&id, done(7), clock.at(3_000));
    tasks.end(&id, End::Cancelled, clock.at(3_001));
    assert_eq!(status(&tasks, &id, &own, clock.at(3_059)), "completed");
    assert_eq!(tasks.view(&id, &own, clock.at(3_059)).unwrap().ttl_ms, 3_060_000);
    assert!(tasks.expires(&id, clock.at(3_059)).is_some());
    assert_eq!(status(&tasks, &id, &own, clock.at(3_060)), "unknown");
    assert_eq!(tasks.table().all, Usage::default());
}

#[test]
fn what_is_asked_is_answered_in_parts_once_each_and_under_keys_of_its_own() {
    let (tasks, clock, own) = (Tasks::new(spec(4, 64)), clock(), owner("bot", 1));
    let id = tasks.begin(new(&own), clock.at(0)).unwrap();
    tasks.ask(&id, asked(&["a", "b"]), Some("s1".into()), End::Cancelled, clock.at(1));
    assert_eq!(status(&tasks, &id, &own, clock.at(1)), "asking a b");
    let answer = |key: &str, with: u64| tasks.answer(&id, &own, [(key.to_owned(), json!(with))], clock.at(2));
    assert!(matches!(answer("c", 0), Ok(Answered::Waits)));
    assert!(matches!(answer("a", 1), Ok(Answered::Waits)));
    assert!(matches!(answer("a", 9), Ok(Answered::Waits)));
    assert_eq!(status(&tasks, &id, &own, clock.at(2)), "asking b");
    let Ok(Answered::Resumes(resumption)) = answer("b", 2) else { panic!("not all are there") };
    assert_eq!(Value::Object(resumption.retry.responses), json!({ "a": 1, "b": 2 }));
    assert_eq!(resumption.retry.state.as_deref(), Some("s1"));
    assert_eq!(status(&tasks, &id, &own, clock.at(2)), "working");
    assert!(matches!(answer("b", 3), Ok(Answered::Waits)));
    // The same keys again, which the owner has answered: it is shown others.
    tasks.ask(&id, asked(&["a", "a#2"]), None, End::Cancelled, clock.at(3));
    let shown = status(&tasks, &id, &own, clock.at(3));
    assert_eq!(shown, "asking a#2 a#2#2");
    assert!(matches!(answer("a", 4), Ok(Answered::Waits)));
    assert!(matches!(answer("a#2", 5), Ok(Answered::Waits)));
    let Ok(Answered::Resumes(resumption)) = answer("a#2#2", 6) else { panic!("not all are there") };
    assert_eq!(Value::Object(resumption.retry.responses), json!({ "a": 5, "a#2": 6 }));
    // Nobody answers: it is over after its time.
    tasks.ask(&id, asked(&["z"]), None, End::Cancelled, clock.at(10));
    assert_eq!(status(&tasks, &id, &own, clock.at(69)), "asking z");
    assert_eq!(tasks.answer(&id, &own, [], clock.at(70)).unwrap_err(), AnswerError::Unknown);
}

#[test]
fn one_that_asks_for_ever_fails() {
    let (tasks, clock, own) = (Tasks::new(spec(4, 64)), clock(), owner("bot", 1));
    let id = tasks.begin(new(&own), clock.at(0)).unwrap();
    let failure = || End::Failed(b"too often".as_slice().into());
    for round in 1..=ROUNDS_MAX {
        tasks.ask(&id, asked(&["k"]), None, failure(), clock.at(0));
        let key = if round == 1 { "k".to_owned() } else { format!("k#{round}") };
        let answered = tasks.answer(&id, &own, [(key, json!(1))], clock.at(0));
        assert!(matches!(answered, Ok(Answered::Resumes(_))), "{round}");
    }
    tasks.ask(&id, asked(&["k"]), None, failure(), clock.at(0));
    assert_eq!(status(&tasks, &id, &own, clock.at(0)), "failed too often");
    // Nor may one ask that cannot be made again.
    let id = tasks.begin(NewTask { call: None, ..new(&own) }, clock.at(0)).unwrap();
    tasks.ask(&id, asked(&["k"]), None, failure(), clock.at(0));
    assert_eq!(status(&tasks, &id, &own, clock.at(0)), "failed too often");
}

#[test]
fn a_cancelled_task_ends_when_its_call_does_and_keeps_what_it_came_to() {
    let (tasks, clock, own) = (Tasks::new(spec(8, 64)), clock(), owner("bot", 1));
    let begin = || {
        let new = new(&own);
        let cancel = new.cancel.clone();
        (tasks.begin(new, clock.at(0)).unwrap(), cancel)
    };
    type EndIt<'a> = &'a dyn Fn(&TaskId);
    let cases: [(EndIt<'_>, &str); 4] = [
        (&|id| tasks.end(id, done(1), clock.at(1)), "completed"),
        (
            &|id| tasks.end(id, End::Completed { result: Arc::from([]), succeeded: false }, clock.at(1)),
            "cancelled",
        ),
        (&|id| tasks.end(id, End::Failed(Arc::from([])), clock.at(1)), "cancelled"),
        (&|id| tasks.ask(id, asked(&["k"]), None, done(1), clock.at(1)), "cancelled"),
    ];
    for (end, expected) in cases {
        let (id, cancel) = begin();
        for _ in 0..2 {
            assert_eq!(tasks.cancel(&id, &own, clock.at(1)), Some(()));
            assert!(cancel.is_cancelled());
            assert_eq!(status(&tasks, &id, &own, clock.at(1)), "working");
        }
        end(&id);
        assert_eq!(status(&tasks, &id, &own, clock.at(1)), expected);
        assert_eq!(tasks.cancel(&id, &own, clock.at(1)), Some(()));
        assert_eq!(status(&tasks, &id, &own, clock.at(1)), expected);
    }
    let (id, _) = begin();
    tasks.ask(&id, asked(&["k"]), None, done(1), clock.at(1));
    assert_eq!(tasks.cancel(&id, &own, clock.at(1)), Some(()));
    assert_eq!(status(&tasks, &id, &own, clock.at(1)), "cancelled");
    let (id, cancel) = begin();
    tasks.forget(&id);
    assert!(cancel.is_cancelled());
    let (_, cancel) = begin();
    tasks.close();
    assert!(cancel.is_cancelled() && tasks.begin(new(&own), clock.at(1)) == Err(Full));
}

#[test]
fn there_is_room_for_so_many_and_only_what_its_owner_has_fetched_makes_way() {
    let (tasks, clock, own, other) = (Tasks::new(spec(2, 8)), clock(), owner("bot", 1), owner("web", 1));
    let begin = |owner: &Owner| tasks.begin(new(owner), clock.at(1));
    let (first, second) = (begin(&own).unwrap(), begin(&own).unwrap());
    assert_eq!(begin(&own), Err(Full));
    tasks.end(&first, done(1), clock.at(1));
    assert_eq!(begin(&own), Err(Full), "nobody has fetched it");
    assert!(begin(&other).is_ok());
    assert_eq!(status(&tasks, &first, &own, clock.at(1)), "completed");
    let third = begin(&own).unwrap();
    assert_eq!(status(&tasks, &first, &own, clock.at(1)), "unknown");
    // Of bytes, too: 8 KiB, of which each task takes one.
    tasks.end(&second, done(5 << 10), clock.at(1));
    tasks.end(&third, done(5 << 10), clock.at(1));
    assert_eq!(status(&tasks, &second, &own, clock.at(1)), "completed");
    assert!(status(&tasks, &third, &own, clock.at(1)).starts_with("failed {\"code\":-32000,"));
    // What is over is gone before anybody is refused, and a client's own does not take another's room.
    assert!(tasks.begin(new(&own), clock.at(61)).is_ok());
    assert_eq!(status(&tasks, &second, &own, clock.at(61)), "unknown");
}

#[derive(Clone, Debug)]
enum Op {
    Begin(u8),
    End(u8, u16, bool),
    Ask(u8, u8),
    Answer(u8, u8, u16),
    Cancel(u8),
    View(u8, u8),
    Forget(u8),
    Expire(u8),
    Wait(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let n = any::<u8>;
    prop_oneof![
        3 => n().prop_map(Op::Begin),
        2 => (n(), 0..6_000_u16, any::<bool>()).prop_map(|(id, bytes, good)| Op::End(id, bytes, good)),
        2 => (n(), 0..4_u8).prop_map(|(id, keys)| Op::Ask(id, keys)),
        3 => (n(), 0..4_u8, 0..2_000_u16).prop_map(|(id, key, bytes)| Op::Answer(id, key, bytes)),
        1 => n().prop_map(Op::Cancel),
        3 => (n(), n()).prop_map(|(id, owner)| Op::View(id, owner)),
        1 => n().prop_map(Op::Forget),
        1 => n().prop_map(Op::Expire),
        1 => (0..40_u8).prop_map(Op::Wait),
    ]
}

/// What is counted is what is there, and no more than may be.
fn adds_up(tasks: &Tasks) {
    let table = tasks.table();
    let mut clients: HashMap<ClientName, Usage> = HashMap::new();
    for task in table.tasks.values() {
        let usage = clients.entry(task.owner.principal.client.clone()).or_default();
        usage.tasks += 1;
        usage.bytes += task.bytes;
    }
    assert_eq!(table.clients, clients);
    let sum = |of: fn(&Usage) -> usize| clients.values().map(of).sum::<usize>();
    assert_eq!(table.all, Usage { tasks: sum(|usage| usage.tasks), bytes: sum(|usage| usage.bytes) });
    assert!(table.all.tasks <= 8 && table.all.bytes <= 32 << 10, "{:?}", table.all);
    assert!(clients.values().all(|usage| usage.tasks <= 4 && usage.bytes <= 16 << 10), "{clients:?}");
}

proptest! {
    #[test]
    fn whatever_happens_what_is_kept_is_bounded_and_an_end_is_final(ops in prop::collection::vec(op(), 1..120)) {
        let (tasks, clock) = (Tasks::new(spec(4, 16)), clock());
        let owners = [owner("bot", 1), owner("bot", 2), owner("web", 1), owner("app", 1)];
        let mut known: Vec<(TaskId, usize)> = Vec::new();
        let mut ended: HashMap<TaskId, String> = HashMap::new();
        let mut second = 0;
        for op in ops {
            let now = clock.at(second);
            let pick = |id: u8| known.get(usize::from(id) % known.len().max(1)).copied();
            let key = |key: u8| if key == 3 { "k#2".to_owned() } else { format!("k{key}") };
            match op {
                Op::Begin(by) => {
                    let by = usize::from(by) % owners.len();
                    known.extend(tasks.begin(new(&owners[by]), now).ok().map(|id| (id, by)));
                }
                Op::End(id, bytes, good) => if let Some((id, _)) = pick(id) {
                    let result = vec![b'x'; bytes.into()].into();
                    tasks.end(&id, End::Completed { result, succeeded: good }, now);
                },
                Op::Ask(id, keys) => if let Some((id, _)) = pick(id) {
                    let keys: Vec<String> = (0..keys).map(key).collect();
                    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                    tasks.ask(&id, asked(&keys), None, End::Failed(Arc::from([])), now);
                },
                Op::Answer(id, to, bytes) => if let Some((id, by)) = pick(id) {
                    let answer = (key(to), Value::String("y".repeat(bytes.into())));
                    let _ = tasks.answer(&id, &owners[by], [answer], now);
                },
                Op::Cancel(id) => if let Some((id, by)) = pick(id) {
                    let _ = tasks.cancel(&id, &owners[by], now);
                },
                Op::View(id, by) => if let Some((id, own)) = pick(id) {
                    let by = usize::from(by) % owners.len();
                    let shown = status(&tasks, &id, &owners[by], now);
                    prop_assert!(by == own || shown == "unknown");
                },
                Op::Forget(id) => if let Some((id, _)) = pick(id) { tasks.forget(&id) },
                Op::Expire(id) => if let Some((id, _)) = pick(id) { let _ = tasks.expires(&id, now); },
                Op::Wait(seconds) => second += u64::from(seconds),
            }
            adds_up(&tasks);
            // Looked at from inside: to look as its owner would be to fetch.
            let table = tasks.table();
            for (id, _) in &known {
                match table.tasks.get(id).map(|task| &task.phase) {
                    Some(Phase::Ended { end, .. }) => {
                        let end = format!("{end:?}");
                        prop_assert_eq!(ended.entry(*id).or_insert_with(|| end.clone()), &end);
                    }
                    Some(_) => prop_assert!(!ended.contains_key(id)),
                    None => {}
                }
            }
        }
    }
}
