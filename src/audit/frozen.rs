//! A state folder of format version 1, frozen: what was written once has to be read as ever.
//!
//! `tests/audit/v1` was written by the generator here, from a fixed seed and fixed times. It is never made
//! anew: a later version of the format gets a folder of its own. To make one, run
//! `CALLGATE_FREEZE=tests/audit/v2 cargo test --lib frozen`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    Ending,
    disk::RealDisk,
    key::PrivateKey,
    proof,
    publish::Publisher,
    reader,
    record::{self, Body, OtherHead},
    recover::{Claim, Seen, recover},
    verifier::{Signatures, note::Key, verify},
    writer::{Durability, NewRecord, Role, WriterOptions, driven::Driven},
};
use crate::{
    call::{
        AnswerFacts, Arguments, Call, CallId, CallKind, CallerFacts, DecisionFacts, DecisionVerdict,
        HiddenFacts, Origin, Outcome, PolicyFact, Proof, Stage, StageNote, ToolFacts, TraceId, Trail,
        Transport,
    },
    hygiene::Findings,
};

const BASE: &str = "frozen.example/v1";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// `2026-11-01T00:00:00Z`.
const EPOCH_SECONDS: i64 = 1_793_491_200;
const FOLDER_BYTES_MAX: u64 = 64 << 10;

fn frozen() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit/v1")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(EPOCH_SECONDS + second).unwrap()
}

/// Writes a state folder: one log of a process that spoke over stdio, and one of a server.
fn write(state: &Path) {
    let audit = state.join("audit");
    let key = PrivateKey::from_seed(BASE, [42; 32]).unwrap();
    fs::create_dir_all(&audit).unwrap();
    fs::write(audit.join("origin"), format!("{BASE}\n")).unwrap();
    fs::write(audit.join("keys.pub"), format!("{}\n", key.public().encoded())).unwrap();

    let start = Body::Start { release: DIGEST, cut: 0, key: &key.public().encoded() };
    let read = trail(10, false);
    let outcome =
        Body::Outcome(&read, &Ending { outcome: Outcome::Allowed, stage: None, code: None, detail: None });
    let other = log(&audit, "stdio-0", &key, &[vec![fixed(&start, 9)], vec![fixed(&outcome, 10)]]);

    let (one, two, three) = (trail(21, true), trail(22, true), trail(23, true));
    let denied = Ending {
        outcome: Outcome::Denied,
        stage: Some(Stage::Policy),
        code: Some("forbidden"),
        detail: Some("forbidden by the policy `limits`".into()),
    };
    let intent = fixed(&Body::Intent(&three), 23);
    let source = Some([203, 0, 113, 7].into());
    let flood = Body::Summary { source, code: "invalid_key", count: 1_729, since: at(11) };
    let heads = [OtherHead { checkpoint: String::from_utf8(other).unwrap(), log: "stdio-0".into() }];
    let begun = Body::Start { release: DIGEST, cut: 17, key: &key.public().encoded() };
    let behind = Body::Witness { witness: "witness.example/w", code: "rolled_back", seen: 12, size: 9 };
    let mut long = trail(24, true);
    long.facts.labels = (0..5_000).map(|number| format!("label-number-{number}")).collect();
    let groups = [
        vec![fixed(&begun, 20)],
        vec![fixed(&Body::Intent(&one), 21)],
        vec![
            fixed(&Body::Outcome(&one, &ended()), 21),
            fixed(&Body::Outcome(&two, &denied), 22),
            intent.clone(),
        ],
        vec![record::unfinished(&intent, at(30)).unwrap()],
        vec![fixed(&flood, 31), fixed(&Body::Heads(&heads), 31), fixed(&behind, 32)],
        vec![fixed(&Body::Outcome(&long, &ended()), 33)],
    ];
    log(&audit, "serve-0", &key, &groups);
}

fn ended() -> Ending {
    Ending { outcome: Outcome::Allowed, stage: None, code: None, detail: None }
}

/// The trail of a call, with all that a trail can hold or with little.
fn trail(second: i64, is_full: bool) -> Trail {
    let arguments = Arguments::from(serde_json::Map::new());
    let kind = CallKind::Tool { name: "orders.refund".into(), arguments };
    let transport = if is_full { Transport::Http } else { Transport::Stdio };
    let origin = Origin { transport, source: is_full.then(|| [192, 0, 2, 1].into()) };
    let mut call = Call::now(kind, Proof::default(), origin, Default::default());
    call.received = at(second);
    call.id = CallId::new(call.received, [u8::try_from(second).unwrap(); 10]);
    call.trace = is_full
        .then(|| TraceId::of_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        .flatten();
    let mut trail = Trail::begin(&call, DIGEST);
    trail.stages = vec![
        StageNote { micros: 21, stage: Stage::Identity, verdict: "passed" },
        StageNote { micros: 300, stage: Stage::Policy, verdict: "passed" },
    ];
    let facts = &mut trail.facts;
    facts.caller = Some(CallerFacts {
        authentication: if is_full { "api-key" } else { "asserted" },
        client: "support-bot".into(),
        key: is_full.then(|| "k1".into()),
        run: "client:support-bot".into(),
        run_ended: is_full.then(|| "client:support-bot:1".into()),
        token: None,
        user: None,
    });
    facts.tool = Some(ToolFacts { digest: DIGEST.into(), effects: if is_full { "write" } else { "read" } });
    facts.arguments_digest = Some(format!("hmac-sha256:{}", "a1".repeat(32)));
    facts.decision_input_digest = is_full.then(|| format!("hmac-sha256:{}", "c3".repeat(32)));
    facts.result_digest = Some(format!("hmac-sha256:{}", "b2".repeat(32)));
    if is_full {
        facts.decision = Some(DecisionFacts {
            approvals: vec!["large-refund".into()],
            policies: vec![PolicyFact { id: "limits".into(), reason: Some("above the limit".into()) }],
            verdict: DecisionVerdict::Allow,
        });
        facts.credential = Some("orders-api".into());
        facts.answer = Some(AnswerFacts {
            bytes: Some(512),
            peer: Some("198.51.100.4:443".into()),
            service: "orders".into(),
            status: Some(200),
        });
        facts.labels = vec!["pii".into()];
        facts.removed = vec!["secret".into()];
        facts.dropped = 2;
        let found = Findings { bidi: 1, ..Findings::default() };
        facts.hidden = HiddenFacts { answer: found, arguments: found };
    }
    trail
}

/// A record in which nothing depends on the machine, the moment or the release that wrote it.
fn fixed(body: &Body<'_>, second: i64) -> Vec<u8> {
    let mut record: Value = serde_json::from_slice(&record::write(body, at(second)).unwrap()).unwrap();
    for (pointer, value) in
        [("/call/micros", json!(1_500)), ("/process", json!(4_242)), ("/version", json!("0.1.0"))]
    {
        if let Some(member) = record.pointer_mut(pointer) {
            *member = value;
        }
    }
    serde_json_canonicalizer::to_vec(&record).unwrap()
}

/// Writes a log, one head for each group, in segments of a few groups, and publishes it; returns its checkpoint.
fn log(audit: &Path, name: &str, key: &PrivateKey, groups: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let folder = audit.join(name);
    fs::create_dir_all(&folder).unwrap();
    let key = key.for_log(&format!("{BASE}/{name}")).unwrap();
    let claim = Claim { folder: &folder, key, known: &[], boot: "frozen", now_ms: 1 };
    let recovered = recover(Arc::new(RealDisk), claim, &|_| Seen::Plain).unwrap();
    let options = WriterOptions { segment_bytes: 4_096, ..WriterOptions::default() };
    let mut writer = Driven::start(recovered, options, Box::new(Vec::new)).unwrap();
    for group in groups {
        let record = |bytes: &Vec<u8>| NewRecord {
            bytes: bytes.clone(),
            role: Role::Plain,
            durability: Durability::Power,
        };
        writer.serve(group.iter().map(|bytes| (record(bytes), oneshot::channel().0)).collect());
    }
    writer.end();
    let head = writer.head().unwrap();
    drop(writer);
    let mut publisher = Publisher::anew(&folder);
    publisher.publish(head.note(), head.size()).unwrap();
    head.note().to_vec()
}

fn keys(state: &Path) -> Vec<Key> {
    Key::parse_lines(&fs::read_to_string(state.join("audit/keys.pub")).unwrap()).unwrap()
}

fn records(state: &Path) -> Vec<Value> {
    let logs = reader::logs(state).unwrap();
    let all = logs.iter().flat_map(|log| log.records(0).unwrap());
    all.map(|found| serde_json::from_slice(&found.unwrap().bytes).unwrap()).collect()
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_sample_can_be_frozen() {
    let temporary = tempfile::tempdir().unwrap();
    let state =
        std::env::var_os("CALLGATE_FREEZE").map_or_else(|| temporary.path().join("state"), PathBuf::from);
    assert!(!state.exists(), "what is frozen is not made anew");
    write(&state);
    assert!(verify(&state, &keys(&state), Signatures::Every, &mut |_| ()).unwrap().is_clean());
}

#[test]
fn version_1_is_verified_as_ever() {
    let report = verify(&frozen(), &keys(&frozen()), Signatures::Every, &mut |_| ()).unwrap();
    let damage: Vec<_> = report.damage().map(ToString::to_string).collect();
    assert!(report.is_clean(), "{damage:?}");
    let shown: Vec<_> = report
        .logs
        .iter()
        .map(|log| (log.log.as_str(), log.records, log.signed, log.heads == log.signatures, log.published))
        .collect();
    assert_eq!(shown, [("serve-0", 10, 10, true, Some(10)), ("stdio-0", 2, 2, true, Some(2))]);
    assert!(report.logs.iter().all(|log| log.torn.is_none() && log.unchecked_heads == 0));
}

#[test]
fn every_record_of_version_1_is_proved_as_ever() {
    let log = frozen().join("audit/serve-0");
    for index in 0..10 {
        let proved = proof::prove(&log, index).unwrap();
        let checked = proof::check(&proved.to_bytes(), &keys(&frozen())).unwrap();
        assert_eq!((checked.index, checked.size), (index, 10));
        assert_eq!(checked.origin, "frozen.example/v1/serve-0");
    }
    let (old, new) = (proof::note_at(&log, 2).unwrap(), fs::read(log.join("checkpoint")).unwrap());
    let grown = proof::consistency(&log, &old, &new).unwrap();
    assert_eq!(proof::consistency_from(&log, 2, &new).unwrap(), grown, "by the size alone, as witnesses ask");
    assert!(proof::consistency_from(&log, 11, &new).is_err());
    assert_eq!(proof::check_consistency(&old, &grown.to_bytes(), &keys(&frozen())).unwrap(), (2, 10));
}

#[test]
fn the_records_of_version_1_have_every_member_that_is_documented() {
    let records = records(&frozen());
    let kinds: BTreeSet<_> = records.iter().map(|record| record["record"].as_str().unwrap()).collect();
    let expected = ["heads", "intent", "outcome", "start", "summary", "witness"];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected);

    let documented = include_str!("../../docs/record.md");
    let table = documented.split_once("| member | meaning |").unwrap().1.split("\n\n").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let named: BTreeSet<String> = rows
        .flat_map(|(members, _)| members.split(", ").map(|name| name.trim_matches('`').to_owned()))
        .collect();
    let found: BTreeSet<String> =
        records.iter().flat_map(|record| record.as_object().unwrap().keys().cloned()).collect();
    assert!(named.len() > 25, "{named:?}");
    assert_eq!(named, found, "documented, and in the sample");

    let parts = [
        ("call", "id kind target transport source received release trace stages micros"),
        ("caller", "client authentication key run run_ended"),
        ("tool", "digest effects"),
        ("decision", "verdict policies approvals"),
        ("answer", "service status peer bytes"),
        ("hygiene", "arguments answer"),
    ];
    for (part, members) in parts {
        for member in members.split(' ') {
            assert!(records.iter().any(|record| !record[part][member].is_null()), "{part}: {member}");
        }
    }
    assert!(records.iter().all(|record| record["v"] == 1));
    assert_eq!(records.iter().filter(|record| record["code"] == "interrupted").count(), 1);
}

#[test]
fn the_frozen_folder_is_small_and_holds_no_secret() {
    let files = files(&frozen());
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes < FOLDER_BYTES_MAX, "{bytes} bytes");
    assert!(!files.iter().any(|file| file.extension().is_some_and(|extension| extension == "key")));
    for file in files {
        let content = fs::read(&file).unwrap();
        assert!(!content.windows(11).any(|bytes| bytes == b"PRIVATE+KEY"), "{}", file.display());
    }
}
