//! Logs for tests, written byte by byte as the format says, by nothing that the readers share.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// A log that a test writes.
pub(crate) struct Fixture {
    pub(crate) state: PathBuf,
    pub(crate) log: String,
    pub(crate) segment: u64,
    pub(crate) next: u64,
    tag: [u8; 16],
}

impl Fixture {
    pub(crate) fn new(state: &Path, log: &str) -> Self {
        let fixture = Self { state: state.into(), log: log.into(), segment: 0, next: 0, tag: [0; 16] };
        fs::create_dir_all(fixture.path().parent().unwrap()).unwrap();
        fixture.header();
        fixture
    }

    /// The newest segment.
    pub(crate) fn path(&self) -> PathBuf {
        self.state.join("audit").join(&self.log).join(format!("segments/{:020}.log", self.segment))
    }

    pub(crate) fn raw(&self, bytes: &[u8]) {
        fs::OpenOptions::new().create(true).append(true).open(self.path()).unwrap().write_all(bytes).unwrap();
    }

    fn header(&self) {
        let mut header = b"CGSEG\0\0\x01".to_vec();
        header.extend(self.segment.to_le_bytes());
        let roots = self.segment.count_ones();
        header.push(roots.try_into().unwrap());
        header.extend(vec![7; 32 * roots as usize]);
        header.extend(self.tag);
        header.extend(crc32c::crc32c(&header).to_le_bytes());
        self.raw(&header);
    }

    /// The bytes of the next frame.
    pub(crate) fn frame(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        // Any tag will do that differs where what is before it differs.
        let before = [&self.tag[..], &[kind], payload].concat();
        let low = crc32c::crc32c(&before);
        self.tag[..4].copy_from_slice(&low.to_le_bytes());
        self.tag[4..8].copy_from_slice(&crc32c::crc32c(&before[1..]).to_le_bytes());
        let mut frame = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
        frame.push(kind);
        frame.extend(self.tag);
        frame.extend(payload);
        frame.extend(crc32c::crc32c(&frame).to_le_bytes());
        frame
    }

    pub(crate) fn record(&mut self, record: &Value) -> u64 {
        let frame = self.frame(1, record.to_string().as_bytes());
        self.raw(&frame);
        self.next += 1;
        self.next - 1
    }

    pub(crate) fn head(&mut self) {
        let frame = self.frame(2, &[&[0; 16], &b"callgate.local/x\n"[..]].concat());
        self.raw(&frame);
    }

    /// Begins another segment.
    pub(crate) fn rotate(&mut self) {
        self.head();
        self.segment = self.next;
        self.header();
    }
}

/// The record of a call that ended, in second `second` of 2026-11-01.
pub(crate) fn outcome(second: u32, client: &str, tool: &str, outcome: &str, code: &str) -> Value {
    let time = format!("2026-11-01T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60);
    let mut record = json!({
        "v": 1, "record": "outcome", "time": time, "outcome": outcome,
        "call": { "id": format!("{second:032x}"), "kind": "tool", "target": tool, "micros": 1500 },
        "caller": { "client": client, "run": format!("run-{client}") },
    });
    if !code.is_empty() {
        record["code"] = code.into();
        record["stage"] = "policy".into();
    }
    record
}
