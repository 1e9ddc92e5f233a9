use std::fs;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::audit::reader::fixture::{Fixture, outcome};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Two logs, the first of two segments.
fn two_logs(state: &Path) -> (Fixture, Fixture) {
    let mut serve = Fixture::new(state, "serve-0");
    serve.record(&json!({ "v": 1, "record": "start", "time": "2026-11-01T00:00:00Z" }));
    serve.record(&outcome(1, "alice", "orders.get", "allowed", ""));
    serve.record(&outcome(3, "alice", "orders.close", "denied", "policy_denied"));
    serve.rotate();
    serve.record(&outcome(5, "bob", "orders.get", "allowed", ""));
    let mut stdio = Fixture::new(state, "stdio-0");
    stdio.record(&outcome(2, "carol", "orders.get", "allowed", ""));
    stdio.record(&outcome(4, "carol", "no\u{1b}[2J", "denied", "unknown_tool"));
    (serve, stdio)
}

async fn places(index: &mut Index, filter: Filter) -> Vec<String> {
    let matches = index.search(&filter, 100).await.unwrap();
    matches.iter().map(|hit| format!("{}/{}", hit.log, hit.found.index)).collect()
}

/// All rows, without the numbers that the index gives to logs.
async fn rows(index: &mut Index) -> Vec<String> {
    let sql = "SELECT json_array(logs.name, idx, records.segment, records.place, hex(records.tag), time, kind, call,
        client, user, tool, outcome, stage, code, run, labels, micros, calls)
        FROM records JOIN logs ON logs.id = records.log ORDER BY 1";
    let rows: Vec<(String,)> = sqlx::query_as(sql).fetch_all(&mut index.database).await.unwrap();
    rows.into_iter().map(|(row,)| row).collect()
}

#[test]
fn records_of_all_logs_are_found_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    two_logs(folder.path());
    run(async {
        let mut index = Index::open(folder.path()).await.unwrap();
        assert!(index.is_stored());
        let all = ["serve-0/3", "stdio-0/1", "serve-0/2", "stdio-0/0", "serve-0/1", "serve-0/0"];
        assert_eq!(places(&mut index, Filter::default()).await, all);
        let limited = index.search(&Filter::default(), 1).await.unwrap();
        assert_eq!((limited.len(), limited[0].view.client.as_str()), (1, "bob"));
    });
}

#[test]
fn each_filter_keeps_what_it_names() {
    let folder = tempfile::tempdir().unwrap();
    two_logs(folder.path());
    let some = |text: &str| Some(text.to_owned());
    let time = |text: &str| Some(text.parse().unwrap());
    let none = Filter::default;
    run(async {
        let mut index = Index::open(folder.path()).await.unwrap();
        for (filter, expected) in [
            (Filter { client: some("alice"), ..none() }, vec!["serve-0/2", "serve-0/1"]),
            (Filter { tool: some("no\u{1b}[2J"), ..none() }, vec!["stdio-0/1"]),
            (Filter { outcome: some("denied"), ..none() }, vec!["stdio-0/1", "serve-0/2"]),
            (Filter { code: some("policy_denied"), ..none() }, vec!["serve-0/2"]),
            (Filter { run: some("run-bob"), ..none() }, vec!["serve-0/3"]),
            (Filter { call: some(&format!("{:032x}", 2)), ..none() }, vec!["stdio-0/0"]),
            (Filter { log: some("stdio-0"), ..none() }, vec!["stdio-0/1", "stdio-0/0"]),
            (Filter { since: time("2026-11-01T00:00:04Z"), ..none() }, vec!["serve-0/3", "stdio-0/1"]),
            (Filter { until: time("2026-11-01T00:00:01Z"), ..none() }, vec!["serve-0/0"]),
            (Filter { client: some("alice"), outcome: some("denied"), ..none() }, vec!["serve-0/2"]),
            (Filter { client: some("alice' OR 1=1 --"), ..none() }, vec![]),
        ] {
            assert_eq!(places(&mut index, filter.clone()).await, expected, "{filter:?}");
        }
    });
}

#[test]
fn calls_are_counted_and_a_summary_counts_as_many_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let (mut serve, _) = two_logs(folder.path());
    serve.record(
        &json!({ "record": "summary", "code": "no_key", "count": 1000, "time": "2026-11-01T00:00:09Z" }),
    );
    serve.record(
        &json!({ "record": "intent", "time": "2026-11-01T00:00:09Z", "call": { "target": "orders.get" } }),
    );
    run(async {
        let mut index = Index::open(folder.path()).await.unwrap();
        let mut count = async |by| index.count(&Filter::default(), by).await.unwrap();
        let pairs = |counts: Vec<(String, u64)>| {
            counts.iter().map(|(value, calls)| format!("{value}={calls}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(pairs(count(CountBy::Outcome).await), "=1000 allowed=3 denied=2");
        assert_eq!(pairs(count(CountBy::Client).await), "=1000 alice=2 carol=2 bob=1");
        assert_eq!(pairs(count(CountBy::Code).await), "no_key=1000 =3 policy_denied=1 unknown_tool=1");
        assert_eq!(pairs(count(CountBy::Tool).await), "=1000 orders.get=3 no\u{1b}[2J=1 orders.close=1");
    });
}

#[test]
fn an_index_that_grew_equals_one_that_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (mut serve, _) = two_logs(folder.path());
    run(async {
        drop(Index::open(folder.path()).await.unwrap());
        for second in 10..20 {
            serve.record(&outcome(second, "dave", "orders.get", "allowed", ""));
            if second % 3 == 0 {
                serve.rotate();
            }
            drop(Index::open(folder.path()).await.unwrap());
        }
        let mut grown = Index::open(folder.path()).await.unwrap();
        let grown_rows = rows(&mut grown).await;
        grown.rebuild().await.unwrap();
        assert_eq!(grown_rows.len(), 16);
        assert_eq!(grown_rows, rows(&mut grown).await);
    });
}

#[test]
fn a_damaged_index_and_one_of_another_version_are_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    two_logs(folder.path());
    let path = path(folder.path());
    run(async {
        let mut index = Index::open(folder.path()).await.unwrap();
        let good = rows(&mut index).await;
        index.database.close().await.unwrap();
        let bytes = fs::read(&path).unwrap();
        let mut holed = bytes.clone();
        holed[4096..8192].fill(0xAA);
        for damaged in [b"not a database at all".to_vec(), bytes[..5000].to_vec(), holed, Vec::new()] {
            fs::write(&path, damaged).unwrap();
            let mut index = Index::open(folder.path()).await.unwrap();
            assert_eq!(places(&mut index, Filter::default()).await.len(), 6);
            assert_eq!(rows(&mut index).await, good);
            assert!(index.is_stored());
            index.database.close().await.unwrap();
        }
        for change in
            ["PRAGMA user_version = 2", "PRAGMA application_id = 1", "ALTER TABLE records DROP COLUMN calls"]
        {
            let mut index = Index::open(folder.path()).await.unwrap();
            sqlx::raw_sql(change).execute(&mut index.database).await.unwrap();
            index.database.close().await.unwrap();
            let mut index = Index::open(folder.path()).await.unwrap();
            let counts = index.count(&Filter::default(), CountBy::Outcome).await.unwrap();
            assert_eq!(counts[0], ("allowed".to_owned(), 3), "{change}");
            assert_eq!(rows(&mut index).await, good, "{change}");
        }
    });
}

#[test]
fn an_index_that_lies_about_a_record_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    two_logs(folder.path());
    run(async {
        for lie in [
            "UPDATE records SET client = 'alice'",
            "UPDATE records SET place = place + 1",
            "UPDATE records SET tag = x'00'",
            "UPDATE records SET segment = 7",
        ] {
            let mut index = Index::open(folder.path()).await.unwrap();
            sqlx::raw_sql(lie).execute(&mut index.database).await.unwrap();
            let alice = Filter { client: Some("alice".into()), ..Filter::default() };
            assert_eq!(places(&mut index, alice).await, ["serve-0/2", "serve-0/1"], "{lie}");
        }
    });
}

#[test]
fn a_log_that_was_replaced_or_removed_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (serve, stdio) = two_logs(folder.path());
    run(async {
        drop(Index::open(folder.path()).await.unwrap());
        fs::remove_dir_all(folder.path().join("audit").join(&serve.log)).unwrap();
        let mut other = Fixture::new(folder.path(), "serve-0");
        other.record(&outcome(7, "eve", "orders.get", "allowed", ""));
        let mut index = Index::open(folder.path()).await.unwrap();
        assert_eq!(places(&mut index, Filter::default()).await, ["serve-0/0", "stdio-0/1", "stdio-0/0"]);
        fs::remove_dir_all(folder.path().join("audit").join(&stdio.log)).unwrap();
        let mut index = Index::open(folder.path()).await.unwrap();
        assert_eq!(places(&mut index, Filter::default()).await, ["serve-0/0"]);
    });
}

#[test]
fn where_the_index_cannot_be_written_it_lives_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    two_logs(folder.path());
    // A folder in its place: nothing can be opened there, and nothing that is not ours is removed.
    fs::create_dir(path(folder.path())).unwrap();
    run(async {
        let mut index = Index::open(folder.path()).await.unwrap();
        assert!(!index.is_stored());
        assert_eq!(places(&mut index, Filter::default()).await.len(), 6);
        index.rebuild().await.unwrap();
        assert_eq!(places(&mut index, Filter::default()).await.len(), 6);
    });
    assert!(path(folder.path()).is_dir());
}

#[test]
fn a_folder_without_logs_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let mut index = Index::open(folder.path()).await.unwrap();
        assert!(places(&mut index, Filter::default()).await.is_empty());
    });
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn damage_in_a_log_is_said_and_hides_no_other_log() {
    let folder = tempfile::tempdir().unwrap();
    let (mut serve, _) = two_logs(folder.path());
    let mut bytes = fs::read(serve.path()).unwrap();
    bytes[120] ^= 1;
    fs::write(serve.path(), bytes).unwrap();
    serve.head();
    run(async {
        for _ in 0..2 {
            let mut index = Index::open(folder.path()).await.unwrap();
            assert!(matches!(index.faults(), [ReadError::Damaged { index: 3, .. }]), "{:?}", index.faults());
            let known = ["stdio-0/1", "serve-0/2", "stdio-0/0", "serve-0/1", "serve-0/0"];
            assert_eq!(places(&mut index, Filter::default()).await, known);
        }
    });
}

#[test]
fn names_that_a_database_could_cut_short_are_found_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Fixture::new(folder.path(), "serve-0");
    let names = ["a\0b", "a", "\0", "", "\\u0000", "a\u{202e}b", "\u{10ffff}", "null", "1", "[1]", "1e400"];
    for name in names {
        log.record(&outcome(1, "alice", name, "allowed", ""));
    }
    run(async {
        let mut index = Index::open(folder.path()).await.unwrap();
        for (at, name) in names.iter().enumerate() {
            let filter = Filter { tool: Some((*name).to_owned()), ..Filter::default() };
            assert_eq!(places(&mut index, filter).await, [format!("serve-0/{at}")], "{name:?}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_index_finds_what_a_look_at_every_record_finds(
        records in prop::collection::vec((0..9_u32, 0..3_usize, 0..3_usize, 0..3_usize), 0..40),
        filters in prop::collection::vec((prop::option::of(0..3_usize), prop::option::of(0..3_usize),
            prop::option::of(0..3_usize), prop::option::of(0..9_u32), prop::option::of(0..9_u32)), 8),
    ) {
        let names = ["a", "b", ""];
        let folder = tempfile::tempdir().unwrap();
        let mut log = Fixture::new(folder.path(), "call-0");
        for (second, client, tool, code) in records {
            log.record(&outcome(second, names[client], names[tool], "denied", names[code]));
        }
        run(async {
            let mut index = Index::open(folder.path()).await.unwrap();
            for (client, tool, code, since, until) in filters {
                let name = |at: Option<usize>| at.map(|at| names[at].to_owned());
                let time = |second: Option<u32>| second.map(|second| format!("2026-11-01T00:00:0{second}Z").parse().unwrap());
                let filter = Filter { client: name(client), tool: name(tool), code: name(code), since: time(since),
                    until: time(until), ..Filter::default() };
                let mut found: Vec<u64> =
                    index.search(&filter, 100).await.unwrap().iter().map(|hit| hit.found.index).collect();
                found.sort_unstable();
                let logs = reader::logs(folder.path()).unwrap();
                let looked: Vec<u64> = logs[0].records(0).unwrap().map(Result::unwrap)
                    .filter(|found| filter.passes("call-0", &RecordView::of(&found.bytes)))
                    .map(|found| found.index).collect();
                assert_eq!(found, looked, "{filter:?}");
            }
        });
    }
}
