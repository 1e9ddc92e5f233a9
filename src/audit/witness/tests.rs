use super::*;
use std::{fs, sync::atomic::AtomicUsize, sync::atomic::Ordering, time::Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse as _, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use signed_note::{Note, Signature, StandardSigner, key_id};
use tlog_tiles::{Hash, HashReader, prove_tree, stored_hashes, tree_hash};

use crate::{
    egress::{Allowances, Egress},
    manifest::EgressSpec,
};

#[path = "../../../examples/witness.rs"]
#[allow(dead_code, reason = "the sample's main is not run here")]
mod sample;

const ORIGIN: &str = "callgate.local/00/serve-0";
const BASE: &str = "callgate.local/00";

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Vec<Hash>, u64);

impl HashReader for Log {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).unwrap()]).collect())
    }
}

impl Log {
    fn of(records: u64) -> Self {
        let mut log = Self::default();
        log.grow(records, "record");
        log
    }

    fn grow(&mut self, records: u64, what: &str) {
        for _ in 0..records {
            let record = format!("{what} {}", self.1);
            let hashes = stored_hashes(self.1, record.as_bytes(), self).unwrap();
            self.0.extend(hashes);
            self.1 += 1;
        }
    }

    fn checkpoint(&self) -> String {
        self.checkpoint_by(&[1; 32], ORIGIN)
    }

    fn checkpoint_by(&self, seed: &[u8; 32], origin: &str) -> String {
        let root = tree_hash(self.1, self).unwrap();
        let mut note = Note::new(format!("{origin}\n{}\n{root}\n", self.1).as_bytes(), &[]).unwrap();
        note.add_sigs(&[&signer(seed, origin)]).unwrap();
        String::from_utf8(note.to_bytes()).unwrap()
    }

    fn proofs(&self) -> Proofs {
        let log = self.clone();
        Arc::new(move |old, new| {
            let proof = prove_tree(new, old, &log).map_err(|error| error.to_string())?;
            Ok(proof.into_iter().map(|hash| hash.0).collect())
        })
    }
}

fn public(seed: &[u8; 32]) -> Vec<u8> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
    [&[1], pair.public_key().as_ref()].concat()
}

fn signer(seed: &[u8; 32], name: &str) -> StandardSigner {
    let id = key_id(name, &public(seed));
    let key = STANDARD.encode([&[1], seed.as_slice()].concat());
    StandardSigner::new(&format!("PRIVATE+KEY+{name}+{id:08x}+{key}")).unwrap()
}

fn vkey(seed: &[u8; 32], name: &str) -> String {
    let key = public(seed);
    format!("{name}+{:08x}+{}", key_id(name, &key), STANDARD.encode(&key))
}

/// The sample witness, on a port of its own.
async fn witness_at(state: &Path, seed: u8) -> Witness {
    let cosigner = sample::Cosigner::new(&format!("witness.local/w{seed}"), &[seed; 32]).unwrap();
    let key = WitnessKey::parse(&cosigner.vkey()).unwrap();
    let witness = sample::Witness::open(cosigner, state, &[vkey(&[1; 32], BASE)]).unwrap();
    Witness { key, prefix: serve(sample::router(witness)).await, way: way() }
}

async fn serve(router: Router) -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    url.parse().unwrap()
}

/// A server that gives one answer to everything, and counts how often.
async fn answering(status: u16, kind: &'static str, body: String) -> (Witness, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let answer = async move |State(count): State<Arc<AtomicUsize>>| {
        count.fetch_add(1, Ordering::SeqCst);
        (StatusCode::from_u16(status).unwrap(), [("content-type", kind)], body).into_response()
    };
    let router = Router::new().route("/add-checkpoint", post(answer)).with_state(count.clone());
    let key =
        WitnessKey::parse(&sample::Cosigner::new("witness.local/w9", &[9; 32]).unwrap().vkey()).unwrap();
    (Witness { key, prefix: serve(router).await, way: way() }, count)
}

/// A way to this machine.
fn way() -> Way {
    let spec = EgressSpec { loopback: true, ..EgressSpec::default() };
    Egress::new(None).unwrap().way(&Allowances::new(&spec).unwrap())
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

async fn send(witness: &Witness, log: &Log, seen: Option<&Seen>) -> Result<Cosignature, WitnessError> {
    submit(witness, &log.checkpoint(), seen, &log.proofs()).await
}

fn seen(log: &Log) -> Seen {
    let head = Head::parse(&log.checkpoint()).unwrap();
    Seen { size: head.size, root: head.root, time: 0 }
}

#[tokio::test]
async fn a_witness_cosigns_a_log_that_it_sees_first_and_as_it_grows() {
    let folder = tempfile::tempdir().unwrap();
    let witness = witness_at(&folder.path().join("state"), 2).await;
    let mut log = Log::of(5);
    let first = send(&witness, &log, None).await.unwrap();
    assert!(first.time > 1_700_000_000);
    for records in [1, 2, 7, 300] {
        let before = seen(&log);
        log.grow(records, "record");
        send(&witness, &log, Some(&before)).await.unwrap();
    }
    send(&witness, &log, Some(&seen(&log))).await.expect("the same checkpoint again");
    send(&witness, &log, None).await.expect("and without knowing what the witness has seen");
    log.grow(9, "record");
    send(&witness, &log, None).await.expect("a client that forgot learns the size from the witness");
}

#[tokio::test]
async fn an_older_but_valid_copy_of_the_log_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let witness = witness_at(&folder.path().join("state"), 2).await;
    let old = Log::of(5);
    let mut log = old.clone();
    log.grow(4, "record");
    send(&witness, &log, None).await.unwrap();
    // A restored copy has a restored memory of the witness, or none.
    let at_three = seen(&Log::of(3));
    for known in [None, Some(&at_three), Some(&seen(&old))] {
        let refused = send(&witness, &old, known).await.unwrap_err();
        assert_eq!(refused.to_string(), "rolled back: the witness has seen size 9, this log has 5");
    }
    // Where the memory was not restored, nobody need be asked.
    let gone = Witness { prefix: "http://127.0.0.1:1".parse().unwrap(), ..witness };
    assert!(matches!(
        send(&gone, &old, Some(&seen(&log))).await.unwrap_err(),
        WitnessError::RolledBack { seen: 9, have: 5 }
    ));
}

#[tokio::test]
async fn a_restored_log_that_has_grown_again_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let witness = witness_at(&folder.path().join("state"), 2).await;
    let mut log = Log::of(5);
    let mut restored = log.clone();
    log.grow(4, "record");
    send(&witness, &log, None).await.unwrap();
    restored.grow(4, "other");
    let same_size = send(&witness, &restored, Some(&seen(&Log::of(5)))).await.unwrap_err();
    assert_eq!(same_size.to_string(), "forked: the witness has seen another tree of size 9");
    restored.grow(1, "other");
    let larger = send(&witness, &restored, Some(&seen(&Log::of(5)))).await.unwrap_err();
    assert_eq!(
        larger.to_string(),
        "the witness does not accept that size 10 continues the size 9 it has seen"
    );
    log.grow(1, "record");
    send(&witness, &log, None).await.expect("the true log is still cosigned");
}

#[tokio::test]
async fn a_witness_that_was_restarted_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    send(&witness_at(&state, 2).await, &Log::of(9), None).await.unwrap();
    let refused = send(&witness_at(&state, 2).await, &Log::of(5), None).await.unwrap_err();
    assert!(matches!(refused, WitnessError::RolledBack { seen: 9, have: 5 }));
    fs::write(&state, "{").unwrap();
    let cosigner = sample::Cosigner::new("w", &[2; 32]).unwrap();
    assert!(sample::Witness::open(cosigner, &state, &[]).err().unwrap().contains("is damaged"));
}

#[tokio::test]
async fn a_witness_that_lost_its_memory_cosigns_from_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    send(&witness_at(&folder.path().join("empty"), 2).await, &Log::of(7), Some(&seen(&Log::of(5))))
        .await
        .unwrap();
    let behind = witness_at(&folder.path().join("behind"), 2).await;
    send(&behind, &Log::of(3), None).await.unwrap();
    send(&behind, &Log::of(7), Some(&seen(&Log::of(5)))).await.unwrap();
}

#[test]
fn the_samples_key_file_is_made_once_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("witness.key");
    let made = sample::Cosigner::open(&path, "witness.local/w").unwrap().vkey();
    assert_eq!(sample::Cosigner::open(&path, "another name").unwrap().vkey(), made);
    let text = fs::read_to_string(&path).unwrap();
    for damaged in [text.replace("local", "lokal"), text.replace("+KEY+", "+"), String::new()] {
        fs::write(&path, damaged).unwrap();
        assert!(sample::Cosigner::open(&path, "witness.local/w").is_err());
    }
}

#[tokio::test]
async fn many_submissions_at_once_never_take_a_witness_back() {
    let folder = tempfile::tempdir().unwrap();
    let witness = witness_at(&folder.path().join("state"), 2).await;
    join_all((1..=20).map(|size| {
        let (witness, log) = (witness.clone(), Log::of(size));
        // Some are refused: they come after a longer one, or lose too many races.
        async move { send(&witness, &log, None).await.map(|_| size) }
    }))
    .await;
    send(&witness, &Log::of(20), None).await.unwrap();
    let refused = send(&witness, &Log::of(19), None).await.unwrap_err();
    assert!(matches!(refused, WitnessError::RolledBack { seen: 20, .. }));
}

#[tokio::test]
async fn a_checkpoint_by_a_foreign_key_or_of_a_foreign_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let witness = witness_at(&folder.path().join("state"), 2).await;
    let log = Log::of(5);
    let submit = async |checkpoint: String| {
        submit(&witness, &checkpoint, None, &log.proofs()).await.map_err(|error| error.to_string())
    };
    let by_other = submit(log.checkpoint_by(&[3; 32], ORIGIN)).await.unwrap_err();
    assert_eq!(
        by_other,
        format!("the witness does not know the key that signed the checkpoint of `{ORIGIN}`")
    );
    // The right name and key id, over another text.
    let (text, line) =
        log.checkpoint().rsplit_once("\n\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let other = Log::of(6).checkpoint();
    let (other_text, _) = other.rsplit_once("\n\n").unwrap();
    assert_ne!(text, other_text);
    assert_eq!(submit(format!("{other_text}\n\n{line}")).await.unwrap_err(), by_other);
    for origin in ["callgate.local/000/serve-0", "elsewhere.local/log"] {
        let refused = submit(log.checkpoint_by(&[1; 32], origin)).await.unwrap_err();
        assert_eq!(refused, format!("the witness does not know the log `{origin}`"));
    }
    submit(log.checkpoint_by(&[1; 32], "callgate.local/00/call-3")).await.unwrap();
}

#[tokio::test]
async fn the_sample_refuses_requests_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let witness = witness_at(&folder.path().join("state"), 2).await;
    let log = Log::of(5);
    let checkpoint = log.checkpoint();
    let hash = STANDARD.encode([0; 32]);
    for (body, status) in [
        (String::new(), 400),
        (checkpoint.clone(), 400),
        (format!("old 00\n\n{checkpoint}"), 400),
        (format!("old -1\n\n{checkpoint}"), 400),
        (format!("old 6\n\n{checkpoint}"), 400),
        (format!("old 0\nzz\n\n{checkpoint}"), 400),
        (format!("old 0\n{}\n{checkpoint}", format!("{hash}\n").repeat(64)), 400),
        (format!("old 0\n{hash}\n\n{checkpoint}"), 422),
        (format!("old 3\n\n{checkpoint}"), 409),
        (format!("old 0\n\n{checkpoint}{}", "x".repeat(70_000)), 413),
        (request(0, &[], &checkpoint), 200),
        (format!("old 5\n{hash}\n\n{checkpoint}"), 422),
        (request(5, &[], &checkpoint), 200),
    ] {
        let url = witness.prefix.join("add-checkpoint").unwrap();
        let answer = client().post(url).body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), status, "{body}");
    }
}

/// A signature line as a witness of this seed and name would send it.
fn line_by(seed: u8, name: &str, id: u32, text: &str) -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let signature = pair.sign(format!("cosignature/v1\ntime 7\n{text}").as_bytes());
    let bytes = [&7_u64.to_be_bytes(), signature.as_ref()].concat();
    String::from_utf8(Signature::new(name.into(), id, bytes).unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn a_forged_cosignature_is_refused() {
    let log = Log::of(5);
    let head = Head::parse(&log.checkpoint()).unwrap();
    let name = "witness.local/w9";
    let id = u32::from_str_radix(
        answering(200, "", String::new()).await.0.key.label().split_once('+').unwrap().1,
        16,
    )
    .unwrap();
    let good = line_by(9, name, id, head.text());
    let by_other = line_by(8, name, id, head.text());
    let of_other = line_by(9, name, id, Head::parse(&Log::of(6).checkpoint()).unwrap().text());
    let unknown = line_by(8, "witness.local/w8", 1, head.text());
    let no_key = "the witness gave an answer that cannot be used: no cosignature by its key";
    let no_lines = "the witness gave an answer that cannot be used: no signature lines";
    let forged =
        "the witness's cosignature is forged: it is not by the witness's key, or not of this checkpoint";
    for (body, expected) in [
        (good.clone(), Ok(7)),
        (format!("{unknown}{good}"), Ok(7)),
        (by_other.clone(), Err(forged)),
        (of_other, Err(forged)),
        (format!("{good}{by_other}"), Err(forged)),
        (format!("— {name} {}\n", STANDARD.encode([&id.to_be_bytes()[..], &[0]].concat())), Err(forged)),
        (unknown, Err(no_key)),
        (String::new(), Err(no_lines)),
        (good.trim_end().to_owned(), Err(no_lines)),
        (format!("{good}\n"), Err(no_lines)),
        (format!("{good}hello\n"), Err(no_lines)),
    ] {
        let (witness, _) = answering(200, "text/plain", body.clone()).await;
        let result = send(&witness, &log, None).await.map(|cosignature| cosignature.time);
        assert_eq!(result.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{body}");
    }
}

#[tokio::test]
async fn answers_that_break_the_protocol_end_the_submission() {
    let log = Log::of(5);
    let size = "text/x.tlog.size";
    for (status, kind, body, expected, times) in [
        (409, size, "9\n", "rolled back: the witness has seen size 9, this log has 5", 1),
        (409, size, "3", "the witness gave an answer that cannot be used: no decimal size", 1),
        (409, size, "03\n", "the witness gave an answer that cannot be used: no decimal size", 1),
        (
            409,
            size,
            "0\n",
            "the witness gave an answer that cannot be used: it refuses the very size that it names",
            1,
        ),
        (
            409,
            size,
            "3\n",
            "the witness gave an answer that cannot be used: it refuses the very size that it names",
            2,
        ),
        (409, size, "5\n", "forked: the witness has seen another tree of size 5", 2),
        (
            409,
            "text/plain",
            "9\n",
            "the witness gave an answer that cannot be used: a conflict without a size",
            1,
        ),
        (
            422,
            "text/plain",
            "",
            "the witness does not accept that size 5 continues the size 0 it has seen",
            1,
        ),
        (307, "text/plain", "", "the witness answered with status 307", 1),
        (429, "text/plain", "", "the witness answered with status 429", 1),
        (500, "text/plain", "", "the witness answered with status 500", 1),
    ] {
        let (witness, count) = answering(status, kind, body.into()).await;
        let refused = send(&witness, &log, None).await.unwrap_err();
        assert_eq!(refused.to_string(), expected, "{status} {body}");
        assert_eq!(count.load(Ordering::SeqCst), times, "{status} {body}");
    }
}

#[tokio::test]
async fn a_witness_that_always_names_another_size_is_given_up() {
    let moving = async |State(count): State<Arc<AtomicUsize>>| {
        let size = 1 + count.fetch_add(1, Ordering::SeqCst) % 4;
        (StatusCode::CONFLICT, [("content-type", "text/x.tlog.size")], format!("{size}\n")).into_response()
    };
    let count = Arc::new(AtomicUsize::new(0));
    let router = Router::new().route("/add-checkpoint", post(moving)).with_state(count.clone());
    let (witness, _) = answering(200, "", String::new()).await;
    let witness = Witness { prefix: serve(router).await, ..witness };
    let refused = send(&witness, &Log::of(5), None).await.unwrap_err();
    assert_eq!(refused.to_string(), "the witness has seen another size at each of 3 tries");
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_endless_answer_and_a_slow_one_are_cut() {
    let (long, _) = answering(200, "text/plain", "— a a\n".repeat(10_000)).await;
    let refused = send(&long, &Log::of(5), None).await.unwrap_err();
    assert_eq!(refused.to_string(), "the witness gave an answer that cannot be used: it is too long");

    let sleep = async || tokio::time::sleep(Duration::from_secs(60)).await;
    let slow = Witness { prefix: serve(Router::new().route("/add-checkpoint", post(sleep))).await, ..long };
    let (log, started) = (Log::of(5), Instant::now());
    let limit = Duration::from_millis(200);
    let result = submit_within(limit, &slow, &log.checkpoint(), None, &log.proofs()).await;
    assert!(matches!(result, Err(WitnessError::TimedOut { .. })));
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_witness_where_the_gate_may_not_go_is_not_called() {
    let (witness, count) = answering(200, "text/plain", String::new()).await;
    let closed = Egress::new(None).unwrap().way(&Allowances::default());
    let refused = send(&Witness { way: closed, ..witness }, &Log::of(5), None).await.unwrap_err();
    assert!(
        refused.to_string().starts_with("the witness may not be called: the address is loopback"),
        "{refused}"
    );
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_proof_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let witness = witness_at(&folder.path().join("state"), 2).await;
    send(&witness, &Log::of(3), None).await.unwrap();
    let none: Proofs = Arc::new(|_, _| Err("tile 0/0 is missing".into()));
    let refused = submit(&witness, &Log::of(5).checkpoint(), None, &none).await.unwrap_err();
    assert_eq!(refused.to_string(), "no proof that size 5 continues size 3: tile 0/0 is missing");
}

#[tokio::test]
async fn what_witnesses_cosign_is_kept_and_one_that_is_away_takes_nothing_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) =
        (witness_at(&folder.path().join("w2"), 2).await, witness_at(&folder.path().join("w3"), 3).await);
    let away = Witness { prefix: "http://127.0.0.1:1".parse().unwrap(), ..two.clone() };
    let mut log = Log::of(5);
    let path = folder.path().join("cosignatures");
    let round = async |witnesses: &[Witness], log: &Log| {
        let (state, checkpoint) = (WitnessState::load(folder.path()).unwrap(), log.checkpoint());
        let submitted = submit_to_all(witnesses, &checkpoint, &log.proofs(), &state, SUBMIT_MAX).await;
        keep(folder.path(), &checkpoint, state, &submitted).unwrap();
        submitted.iter().map(|done| done.result.is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(round(&[one.clone(), away], &log).await, [true, false]);
    assert_eq!(WitnessState::load(folder.path()).unwrap().witnessed(), Some(5));
    assert_eq!(fs::read_to_string(&path).unwrap().lines().filter(|line| line.starts_with('—')).count(), 2);

    assert_eq!(round(&[one.clone(), two.clone()], &log).await, [true, true]);
    let note = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = note.lines().filter(|line| line.starts_with('—')).collect();
    assert_eq!(lines.len(), 3, "the log's, and one of each witness: {note}");
    assert!(note.starts_with(&log.checkpoint()));

    log.grow(3, "record");
    assert_eq!(round(&[one.clone(), two.clone()], &log).await, [true, true]);
    let state = WitnessState::load(folder.path()).unwrap();
    assert_eq!(state.all().map(|(_, seen)| seen.size).collect::<Vec<_>>(), [8, 8]);

    assert_eq!(round(&[one.clone(), two], &Log::of(5)).await, [false, false]);
    assert_eq!(Head::parse(&fs::read_to_string(&path).unwrap()).unwrap().size, 8, "nothing was put back");

    fs::write(folder.path().join("witness.json"), "{}x").unwrap();
    let damaged = WitnessState::load(folder.path());
    assert!(damaged.unwrap_err().to_string().contains("is damaged"));
}

#[test]
fn cosignatures_of_one_checkpoint_come_together_and_never_replace_a_newer() {
    let (old, new) = (Log::of(5).checkpoint(), Log::of(6).checkpoint());
    let text = Head::parse(&new).unwrap().text().to_owned();
    let line = |seed, id| line_by(seed, "w.local/w", id, &text).trim_end().to_owned();
    let first = merge(Some(&old), &new, &[line(2, 1)]).unwrap();
    assert_eq!(first, format!("{new}{}\n", line(2, 1)));
    let both = merge(Some(&first), &new, &[line(3, 2)]).unwrap();
    assert_eq!(both, format!("{new}{}\n{}\n", line(2, 1), line(3, 2)));
    let again = merge(Some(&both), &new, &[line(4, 1)]).unwrap();
    assert_eq!(again, format!("{new}{}\n{}\n", line(3, 2), line(4, 1)));
    assert_eq!(merge(Some(&both), &old, &[line(9, 9)]).unwrap(), both);
    assert_eq!(merge(Some("x"), &new, &[]).unwrap_err(), HeadError::Note);
}

#[test]
fn a_request_reads_as_the_protocol_shows_it() {
    let checkpoint = "o\n2\nAAAA\n\n— o AAAAAAA=\n";
    assert_eq!(request(0, &[], checkpoint), format!("old 0\n\n{checkpoint}"));
    assert_eq!(
        request(20_852_014, &[[0; 32], [1; 32]], checkpoint),
        format!(
            "old 20852014\n{}\n{}\n\n{checkpoint}",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
        )
    );
}

#[test]
fn a_cosignature_by_another_implementation_is_verified() {
    // Made with Python's `cryptography`, for the checkpoint that tlog-cosignature shows.
    let key =
        WitnessKey::parse("witness.example.com/w1+a0059f11+BAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4")
            .unwrap();
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let line = "— witness.example.com/w1 oAWfEQAAAABkGFDLBuRDazBLVac2NE+Y+IjbjQOcXLfF9CSDZVUIoS83rE1nFZsVE8YiWV6Ngr7lV8H6bdoBQGP/l73euDMQ9k+bBQ==";
    let signature = Signature::from_bytes(line.as_bytes()).unwrap();
    assert_eq!(key.verify(text, &signature), Some(Cosignature { time: 1_679_315_147, line: line.into() }));
    assert_eq!(key.verify(&text.replace("20852163", "20852164"), &signature), None);
}

#[test]
fn a_witnesses_key_is_read_and_others_are_refused() {
    // A witness's published key.
    let published = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
    assert_eq!(WitnessKey::parse(published).unwrap().label(), "remora.n621.de+da77ade7");
    let refused = |vkey: &str| WitnessKey::parse(vkey).unwrap_err();
    assert_eq!(refused(&vkey(&[1; 32], "a.local")), WitnessKeyError::Type { found: 1 });
    assert_eq!(refused(&published.replace("remora", "remore")), WitnessKeyError::Id);
    assert_eq!(refused(&published.replace("OvN6", "OvN7")), WitnessKeyError::Id);
    for malformed in ["", "a", "a+b", "a+00000000+", "a+00000000+!", "a b+00000000+BA==", "+00000000+BA=="] {
        assert_eq!(refused(malformed), WitnessKeyError::Format, "{malformed}");
    }
}

#[test]
fn only_a_checkpoint_is_read_as_one() {
    let good = Log::of(5).checkpoint();
    assert!(Head::parse(&good).is_ok());
    for (from, to) in [
        ("\n5\n", "\n05\n"),
        ("\n5\n", "\n-5\n"),
        ("\n5\n", "\n"),
        ("=\n\n", "\n\n"),
        (ORIGIN, ""),
        ("\n\n", "\n"),
    ] {
        assert!(Head::parse(&good.replace(from, to)).is_err(), "{from:?} {to:?}");
    }
    assert!(Head::parse("").is_err());
}
