//! What was kept of a call beside the log: its salt and its bodies, against the digests on record.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::Value;

use super::{Failure, place::State};
use crate::{
    audit::{
        index::Match,
        reader::LogFolder,
        side::{Digested, Found, Kind, SideKey, SideReader},
        side_key,
        verifier::note::Checkpoint,
    },
    credential::read_secret,
};

/// The side store of a log. No key is made for it here: without one, there is nothing to read.
pub(super) fn open(
    args: &State,
    config: &Path,
    state: &Path,
    log: &LogFolder,
) -> Result<SideReader, Failure> {
    Ok(SideReader::new(&log.path().join("side"), &origin(state, log), key(args, config, state)?))
}

/// The key of the side stores: what `record.bodies.key` names, else the state folder's file. With
/// `--state` no project is read, and the file is all there is.
fn key(args: &State, config: &Path, state: &Path) -> Result<SideKey, Failure> {
    if let Some(server) = args.server(config)?
        && let Some(reference) = &server.record.bodies.key
    {
        let base = config.parent().unwrap_or_else(|| Path::new(""));
        let secret = read_secret(reference, base).map_err(Failure::SideSecret)?;
        return SideKey::parse(&secret).ok_or(Failure::SideKey);
    }
    let path = side_key(state);
    if path.exists() { Ok(SideKey::open(&path)?) } else { Err(Failure::NoSideKey { path }) }
}

/// The log's origin: as its checkpoint says it, or made of the state folder's.
fn origin(state: &Path, log: &LogFolder) -> String {
    let note = fs::read(log.path().join("checkpoint")).unwrap_or_default();
    if let Ok(checkpoint) = Checkpoint::parse(&note) {
        return checkpoint.origin.to_owned();
    }
    let base = fs::read_to_string(state.join("audit").join("origin")).unwrap_or_default();
    format!("{}/{}", base.trim(), log.name())
}

/// A call's id as a number.
pub(super) fn call_number(id: &str) -> Option<u128> {
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(id, 16).ok().filter(|_| is_id)
}

/// A digest on record, and what was kept of what it is the digest of.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Kept {
    /// `arguments`, `decision` or `result`.
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// The body as it was put, where it is still there.
    pub(super) body: Option<Vec<u8>>,
}

/// What a kept body says about its digest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Holds,
    DoesNotHold,
    /// When, where the store says it.
    Erased(Option<Timestamp>),
    NotKept,
    /// There is a body, and no salt to check it with.
    NoSalt,
}

impl Verdict {
    /// In words that stay as they are, for programs too.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Holds => "digest holds",
            Self::DoesNotHold => "digest does not hold",
            Self::Erased(_) => "erased",
            Self::NotKept => "not kept",
            Self::NoSalt => "not checked: its salt is not kept",
        }
    }
}

/// What digests on record are of, and the member that holds each.
const MEMBERS: [(Digested, &str); 3] = [
    (Digested::Arguments, "arguments_digest"),
    (Digested::DecisionInput, "decision_input_digest"),
    (Digested::Result, "result_digest"),
];

/// The digests that these records of one call hold, in the order of the call.
pub(super) fn digests(records: &[Match]) -> Vec<(Digested, String)> {
    let mut digests: Vec<(Digested, String)> = Vec::new();
    for record in records {
        let record: Value = serde_json::from_slice(&record.found.bytes).unwrap_or_default();
        for (of, member) in MEMBERS {
            let digest = record.get(member).and_then(Value::as_str).map(|digest| (of, digest.to_owned()));
            // An intent and its outcome say the same; where they do not, both are checked.
            digests.extend(digest.filter(|digest| !digests.contains(digest)));
        }
    }
    digests
}

/// Checks what was kept against the digests on record.
pub(super) fn check(found: &Found, digests: &[(Digested, String)]) -> Vec<Kept> {
    digests.iter().map(|(of, digest)| check_one(found, *of, digest)).collect()
}

fn check_one(found: &Found, of: Digested, digest: &str) -> Kept {
    let (name, kind) = match of {
        Digested::Arguments => ("arguments", Kind::Arguments),
        Digested::DecisionInput => ("decision", Kind::DecisionInput),
        Digested::Result => ("result", Kind::Result),
    };
    let bodies: Vec<_> = found.bodies.iter().filter(|body| body.kind == kind).collect();
    let fits = |bytes: &[u8]| {
        let canonical = serde_json::from_slice::<Value>(bytes).ok();
        let canonical = canonical.and_then(|value| serde_json_canonicalizer::to_vec(&value).ok());
        canonical.is_some_and(|canonical| found.salts.iter().any(|salt| salt.check(of, &canonical, digest)))
    };
    let body = bodies.iter().find(|body| fits(&body.bytes)).or_else(|| bodies.last());
    let erased = found.erased.iter().rev().find(|erased| erased.kind == Some(kind));
    let verdict = match (body, erased) {
        (Some(body), _) if fits(&body.bytes) => Verdict::Holds,
        (Some(_), _) if found.salts.is_empty() => Verdict::NoSalt,
        (Some(_), _) => Verdict::DoesNotHold,
        (None, Some(erased)) => Verdict::Erased(
            i64::try_from(erased.erased_ms).ok().and_then(|at| Timestamp::from_millisecond(at).ok()),
        ),
        (None, None) => Verdict::NotKept,
    };
    Kept { name, verdict, body: body.map(|body| body.bytes.clone()) }
}

/// A body for programs: JSON as JSON, else in base64.
pub(super) fn body_json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| STANDARD.encode(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::side::{Body, Erasure, Salt};

    fn body(kind: Kind, bytes: &[u8]) -> Body {
        Body { kind, bytes: bytes.to_vec(), put_ms: 1, record: None }
    }

    fn verdict(found: &Found, digest: &str) -> Verdict {
        check_one(found, Digested::Result, digest).verdict
    }

    #[test]
    fn only_the_id_of_a_call_is_one() {
        assert_eq!(call_number("000000000000000000000000000000ff"), Some(255));
        for other in ["", "ff", "+00000000000000000000000000000ff", "0000000000000000000000000000000g"] {
            assert_eq!(call_number(other), None, "{other}");
        }
    }

    #[test]
    fn a_digest_holds_for_the_body_and_the_salt_that_it_was_made_of_alone() {
        let salt = Salt::from_bytes([1; 32]);
        let digest = salt.digest(Digested::Result, br#"{"a":1,"b":2}"#);
        let kept =
            |salts: &[Salt], bodies: Vec<Body>| Found { salts: salts.to_vec(), bodies, ..Found::default() };
        // The order of members is not part of what was digested.
        let whole = vec![body(Kind::Result, br#"{"b":2,"a":1}"#)];
        assert_eq!(verdict(&kept(std::slice::from_ref(&salt), whole), &digest), Verdict::Holds);
        let other = vec![body(Kind::Result, br#"{"b":2,"a":2}"#)];
        assert_eq!(verdict(&kept(std::slice::from_ref(&salt), other), &digest), Verdict::DoesNotHold);
        let whole = || vec![body(Kind::Result, br#"{"a":1,"b":2}"#)];
        assert_eq!(verdict(&kept(&[Salt::from_bytes([2; 32])], whole()), &digest), Verdict::DoesNotHold);
        assert_eq!(verdict(&kept(&[], whole()), &digest), Verdict::NoSalt);
        assert_eq!(verdict(&kept(&[salt], vec![body(Kind::Arguments, b"{}")]), &digest), Verdict::NotKept);
    }

    #[test]
    fn what_was_erased_is_told_from_what_was_never_kept() {
        let erased = |kind| Found { erased: vec![Erasure { kind, erased_ms: 1_000 }], ..Found::default() };
        let at = Timestamp::from_second(1).ok();
        assert_eq!(verdict(&erased(Some(Kind::Result)), "x"), Verdict::Erased(at));
        assert_eq!(verdict(&erased(Some(Kind::Arguments)), "x"), Verdict::NotKept);
        assert_eq!(verdict(&erased(None), "x"), Verdict::NotKept);
    }
}
