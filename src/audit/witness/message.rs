//! What is said to a witness and what it answers, without the sending (C2SP `tlog-witness`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use signed_note::Signature;

use super::{Cosignature, Head, WitnessError, WitnessKey};

/// An answer to `add-checkpoint`.
#[derive(Debug)]
pub enum Answer {
    /// 200: signature lines, not verified.
    Lines(Vec<Signature>),
    /// 409: the size that the witness has seen.
    Size(u64),
    /// 409 without a size: the tree of the same size is another.
    Conflict,
    /// 422: the proof does not hold. Some witnesses answer so to another tree of the same size.
    Unproved,
    /// 403: no signature by a key that the witness trusts.
    UnknownKey,
    /// 404: the witness does not take this log.
    UnknownLog,
}

const SIZE_TYPE: &str = "text/x.tlog.size";
/// More lines than this come from nobody who means well.
const LINES_MAX: usize = 100;

/// The body of a request: the size that the witness has seen, the proof from there, the checkpoint.
#[must_use]
pub fn request(old: u64, proof: &[[u8; 32]], checkpoint: &str) -> String {
    let mut body = format!("old {old}\n");
    for hash in proof {
        body.push_str(&STANDARD.encode(hash));
        body.push('\n');
    }
    body.push('\n');
    body.push_str(checkpoint);
    body
}

/// Reads an answer.
///
/// # Errors
/// When its status ends the submission, or it is not what the protocol says.
pub fn answer(status: u16, content_type: Option<&str>, body: &[u8]) -> Result<Answer, WitnessError> {
    Ok(match status {
        200 => Answer::Lines(lines(body).ok_or(WitnessError::Answer { what: "no signature lines" })?),
        409 if content_type.is_some_and(is_size_type) => {
            Answer::Size(size(body).ok_or(WitnessError::Answer { what: "no decimal size" })?)
        }
        409 => Answer::Conflict,
        422 => Answer::Unproved,
        403 => Answer::UnknownKey,
        404 => Answer::UnknownLog,
        status => return Err(WitnessError::Status { status }),
    })
}

/// The witness's cosignature among the lines of its answer. Lines by unknown keys are passed over.
///
/// # Errors
/// When there is none, or one that is not by its key or not of this checkpoint.
pub fn cosignature(key: &WitnessKey, head: &Head, lines: &[Signature]) -> Result<Cosignature, WitnessError> {
    let mut found = None;
    for line in lines.iter().filter(|line| key.is_named_by(line)) {
        found = Some(key.verify(head.text(), line).ok_or(WitnessError::Forged)?);
    }
    found.ok_or(WitnessError::Answer { what: "no cosignature by its key" })
}

fn is_size_type(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(SIZE_TYPE))
}

fn size(body: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(body).ok()?.strip_suffix('\n')?;
    let size: u64 = digits.parse().ok()?;
    (size.to_string() == digits).then_some(size)
}

fn lines(body: &[u8]) -> Option<Vec<Signature>> {
    let lines = std::str::from_utf8(body).ok()?.strip_suffix('\n')?;
    if lines.chars().any(|letter| letter.is_control() && letter != '\n') {
        return None;
    }
    let lines: Vec<_> = lines.split('\n').take(LINES_MAX + 1).collect();
    if lines.len() > LINES_MAX {
        return None;
    }
    lines.into_iter().map(|line| Signature::from_bytes(line.as_bytes()).ok()).collect()
}
