use std::{io::Write as _, sync::Arc};

use jiff::Timestamp;

use super::*;
use crate::audit::{
    Keys,
    key::PrivateKey,
    log::{Claimed, LogError, claim},
    record::{self, Body, OtherHead},
    setup::Setup,
    writer::{Durability, NewRecord, Role, Writer, WriterOptions},
};

/// A folder of logs.
struct Logs {
    folder: tempfile::TempDir,
    copies: tempfile::TempDir,
    setup: Setup,
}

impl Logs {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::open(folder.path(), &Keys::default()).unwrap();
        Self { folder, copies: tempfile::tempdir().unwrap(), setup }
    }

    /// A log, or a copy that is not among the logs.
    fn path(&self, log: &str) -> PathBuf {
        if log.contains('-') { self.folder.path().join(log) } else { self.copies.path().join(log) }
    }

    fn claim(&self, kind: &'static str) -> Result<Claimed, LogError> {
        claim(self.folder.path(), kind, &self.setup)
    }

    /// Starts the log of a kind, writes records, and ends; returns its last head.
    fn write(&self, kind: &'static str, records: impl IntoIterator<Item = Vec<u8>>) -> Arc<SignedHead> {
        let claimed = self.claim(kind).unwrap();
        let writer = Writer::start(claimed.recovered, WriterOptions::default(), Box::new(Vec::new)).unwrap();
        for bytes in records {
            let record = NewRecord { bytes, role: Role::Plain, durability: Durability::Power };
            crate::audit::wait(writer.append(record).unwrap()).unwrap();
        }
        let head = writer.head().unwrap();
        writer.close();
        head
    }

    /// Puts a head of a log on record in the log `stdio-0`.
    fn say(&self, log: &str, head: &SignedHead) {
        let checkpoint = String::from_utf8(head.note().to_vec()).unwrap();
        let heads = [OtherHead { checkpoint, log: log.to_owned() }];
        self.write("stdio", [record::write(&Body::Heads(&heads), Timestamp::now()).unwrap()]);
    }

    fn copy(&self, from: &str, to: &str) {
        let _ = fs::remove_dir_all(self.path(to));
        copy(&self.path(from), &self.path(to));
    }

    fn refusal(&self) -> String {
        let refused = self.claim("serve").unwrap_err().to_string();
        refused.replace(&self.folder.path().display().to_string(), "AUDIT")
    }

    fn claimed(&self) -> (String, u64) {
        let claimed = self.claim("serve").unwrap();
        (claimed.name.to_string(), claimed.recovered.size())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn records(name: &str, count: usize) -> impl Iterator<Item = Vec<u8>> {
    let name = name.to_owned();
    (0..count).map(move |number| format!("{{\"{name}\":{number}}}").into_bytes())
}

#[test]
fn a_log_that_was_put_back_does_not_start_where_another_one_knows_more() {
    let logs = Logs::new();
    logs.write("serve", records("a", 3));
    logs.copy("serve-0", "old");
    let head = logs.write("serve", records("b", 3));
    logs.say("serve-0", &head);
    assert_eq!(logs.claimed(), ("serve-0".to_owned(), 6), "it is as the other log knows it");

    logs.copy("old", "serve-0");
    let segment = fs::read(logs.path("serve-0/segments").join(segment::name(0))).unwrap();
    insta::assert_snapshot!(
        logs.refusal(),
        @"the log `serve-0` holds 3 records, but log `stdio-0` has a head of it with 6 on record: it was put back, or its end is gone; put its newest state back, or move `AUDIT/serve-0` away, so that another log is begun"
    );
    let after = fs::read(logs.path("serve-0/segments").join(segment::name(0))).unwrap();
    assert_eq!(after, segment, "nothing was signed");
}

#[test]
fn a_log_that_went_on_after_it_was_put_back_is_another_one() {
    let logs = Logs::new();
    logs.write("serve", records("a", 3));
    logs.copy("serve-0", "old");
    let head = logs.write("serve", records("b", 3));
    logs.copy("old", "serve-0");
    logs.write("serve", records("c", 5));
    assert_eq!(logs.claimed(), ("serve-0".to_owned(), 8), "nobody knows of it yet");
    logs.say("serve-0", &head);
    insta::assert_snapshot!(
        logs.refusal(),
        @"the log `serve-0` holds 8 records, but they do not begin with the 6 of its head that log `stdio-0` has on record; put its newest state back, or move `AUDIT/serve-0` away, so that another log is begun"
    );
}

#[test]
fn a_log_that_was_moved_away_is_followed_by_one_of_another_name() {
    let logs = Logs::new();
    let head = logs.write("serve", records("a", 3));
    logs.say("serve-0", &head);
    fs::remove_dir_all(logs.path("serve-0")).unwrap();
    for size in [0, 2, 4] {
        assert_eq!(logs.claimed(), ("serve-1".to_owned(), size));
        logs.write("serve", records("b", 2));
    }
    // Where nobody knows it, its name is used again.
    fs::remove_dir_all(logs.path("stdio-0")).unwrap();
    assert_eq!(logs.claimed(), ("serve-0".to_owned(), 0));
}

#[test]
fn what_a_log_says_counts_only_whole_and_signed_by_the_others_own_key() {
    let logs = Logs::new();
    logs.write("serve", records("a", 3));
    let key = PrivateKey::generate(&logs.setup.base).unwrap();
    let origin = format!("{}/serve-0", logs.setup.base);
    let forged = SignedHead::sign(&key.for_log(&origin).unwrap(), 9, [1; 32]).unwrap();
    logs.say("serve-0", &forged);
    let other = format!("{}/serve-1", logs.setup.base);
    let of_another = SignedHead::sign(&logs.setup.signing.for_log(&other).unwrap(), 9, [1; 32]).unwrap();
    logs.say("serve-0", &of_another);
    // A record that another process is writing.
    let real = SignedHead::sign(&logs.setup.signing.for_log(&origin).unwrap(), 9, [1; 32]).unwrap();
    logs.copy("stdio-0", "whole");
    logs.say("serve-0", &real);
    let path = logs.path("stdio-0/segments").join(segment::name(0));
    let (whole, before) =
        (fs::read(&path).unwrap(), fs::read(logs.path("whole/segments").join(segment::name(0))).unwrap());
    let frame = Frame::read(&whole[before.len()..]).unwrap().bytes_len();
    for cut in [1, 20, 30, frame / 2, frame - 1] {
        fs::write(&path, &whole[..before.len() + cut]).unwrap();
        assert_eq!(logs.claimed(), ("serve-0".to_owned(), 3), "{cut} bytes of {frame}");
    }
    fs::write(&path, &whole[..before.len() + frame]).unwrap();
    assert!(logs.refusal().contains("holds 3 records, but log `stdio-0` has a head of it with 9 on record"));
    // Its end is found among much else, and in the segment before the last.
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&vec![7; 1 << 20]).unwrap();
    fs::write(logs.path("stdio-0/segments").join(segment::name(99)), b"not even a header").unwrap();
    assert!(logs.refusal().contains("with 9 on record"));
}

#[test]
fn what_a_witness_cosigned_is_there() {
    let logs = Logs::new();
    let head = logs.write("serve", records("a", 3));
    let seen = |size: u64, root: &[u8; 32]| {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let state = serde_json::json!({"witnesses": {"witness.example+0badcafe": {
            "size": size, "root": BASE64_STANDARD.encode(root), "time": 5,
        }}});
        fs::write(logs.path("serve-0/witness.json"), state.to_string()).unwrap();
    };
    seen(3, head.root());
    assert_eq!(logs.claimed(), ("serve-0".to_owned(), 3));
    seen(4, head.root());
    insta::assert_snapshot!(
        logs.refusal(),
        @"the log `serve-0` holds 3 records, but the witness `witness.example+0badcafe` has cosigned 4: it was put back, or its end is gone; put its newest state back, or move `AUDIT/serve-0` away, so that another log is begun"
    );
    seen(3, &[1; 32]);
    insta::assert_snapshot!(
        logs.refusal(),
        @"the log `serve-0` holds 3 records, but they do not begin with the 3 that the witness `witness.example+0badcafe` has cosigned; put its newest state back, or move `AUDIT/serve-0` away, so that another log is begun"
    );
    fs::write(logs.path("serve-0/witness.json"), "damaged").unwrap();
    assert_eq!(logs.claimed(), ("serve-0".to_owned(), 3));
}
