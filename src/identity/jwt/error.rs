//! Why a token is not taken.

use std::fmt;

use jiff::Timestamp;

use crate::strict::Fault;

use super::{Algorithm, jws::TOKEN_BYTES_MAX, object::Part};

/// A name that someone else chose, fit to be printed: cut, and with `?` for each character
/// that names do not have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown(String);

impl Shown {
    const CHARACTERS_MAX: usize = 64;

    pub(super) fn of(text: &str) -> Self {
        let is_plain =
            |character: char| character.is_ascii_alphanumeric() || "-._~:/@+=#".contains(character);
        let mut characters = text.chars();
        let mut shown: String = characters
            .by_ref()
            .take(Self::CHARACTERS_MAX)
            .map(|character| if is_plain(character) { character } else { '?' })
            .collect();
        if characters.next().is_some() {
            shown.push('…');
        }
        Self(shown)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a token is not taken. For the log and the record: a caller is told none of this.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// It is longer than any that is looked at.
    #[error("a token of more than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// It is not three parts with dots between them.
    #[error("not a token of three parts")]
    Parts,
    /// A part is empty.
    #[error("the {0} is empty")]
    EmptyPart(Part),
    /// A part is not base64url, or not as it has to be written.
    #[error("the {0} is not canonical base64url without padding")]
    Encoding(Part),
    /// A part is not JSON, or not the JSON that every reader reads alike.
    #[error("the {part} is not strict JSON: {fault}")]
    Json {
        /// Which part.
        part: Part,
        /// What is wrong.
        fault: Fault,
    },
    /// A part is JSON, and no object.
    #[error("the {0} is not a JSON object")]
    NotObject(Part),
    /// A member of the header is not a string.
    #[error("the header's `{0}` is not a string")]
    HeaderKind(&'static str),
    /// The header names no algorithm.
    #[error("the header has no `alg`")]
    NoAlgorithm,
    /// The header says that there is no signature.
    #[error("the algorithm `none`")]
    Unsigned,
    /// The algorithm is none that is ever taken.
    #[error("unknown algorithm `{0}`")]
    AlgorithmRefused(Shown),
    /// The header names extensions that have to be understood.
    #[error("the header has critical extensions")]
    Critical,
    /// The header says that the payload is not encoded (RFC 7797).
    #[error("the header has `b64`")]
    Unencoded,
    /// The header says that the payload is compressed.
    #[error("the header has `zip`")]
    Compressed,
    /// The payload is said to be another token.
    #[error("a token in a token")]
    Nested,
    /// The header names no key, and the issuer does not have exactly one.
    #[error("the header has no `kid`")]
    NoKid,
    /// The issuer has no usable key of this id.
    #[error("unknown key `{0}`")]
    UnknownKid(Shown),
    /// The key is for another algorithm.
    #[error("algorithm `{shown}` with a key for `{pinned}`")]
    AlgorithmMismatch {
        /// The algorithm in the header.
        shown: Algorithm,
        /// The key's.
        pinned: Algorithm,
    },
    /// The signature does not have the length of the key's signatures.
    #[error("a signature of {bytes} bytes, not of {expected}")]
    SignatureLength {
        /// Its length.
        bytes: usize,
        /// The key's signatures' length.
        expected: usize,
    },
    /// The key did not make the signature.
    #[error("the signature does not verify")]
    Signature,
    /// The token has no type.
    #[error("the header has no `typ`")]
    NoType,
    /// The token is of another type.
    #[error("a token of type `{0}`")]
    Type(Shown),
    /// A claim is absent.
    #[error("no claim `{0}`")]
    ClaimMissing(&'static str),
    /// A claim is not of the right kind.
    #[error("claim `{0}` is not of the right kind")]
    ClaimKind(&'static str),
    /// A claim is empty, too long, or has control characters.
    #[error("claim `{0}` is empty, too long or has control characters")]
    ClaimText(&'static str),
    /// A claim is a number, and no time from 1970 to 9999.
    #[error("claim `{0}` is not a time")]
    ClaimTime(&'static str),
    /// It is from someone else.
    #[error("issued by `{0}`")]
    Issuer(Shown),
    /// It is for someone else.
    #[error("for another audience")]
    Audience,
    /// It is about someone else.
    #[error("about another subject, `{0}`")]
    Subject(Shown),
    /// It is too old.
    #[error("expired at {at}")]
    Expired {
        /// Since when.
        at: Timestamp,
    },
    /// It is not valid yet.
    #[error("not valid before {at}")]
    NotYetValid {
        /// Until when.
        at: Timestamp,
    },
    /// It claims to be issued later than now.
    #[error("issued in the future, at {at}")]
    IssuedInFuture {
        /// When.
        at: Timestamp,
    },
    /// It is valid for longer than tokens may be.
    #[error("valid for too long, until {at}")]
    Lifetime {
        /// Until when.
        at: Timestamp,
    },
    /// It names two different clients.
    #[error("claims `client_id` and `azp` differ")]
    Client,
    /// Its scopes are not as they have to be written, or are there twice and differ.
    #[error("claim `{0}` is no list of scopes, or differs from the other one")]
    Scope(&'static str),
    /// It is bound to a proof that is not understood (RFC 7800 §3.1), or malformed.
    #[error("bound to a proof that is not checked here: `{0}`")]
    Confirmation(Shown),
}

impl TokenError {
    /// The reason's stable name in the record.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Parts => "parts",
            Self::EmptyPart(_) => "empty_part",
            Self::Encoding(_) => "encoding",
            Self::Json { .. } => "json",
            Self::NotObject(_) => "not_object",
            Self::HeaderKind(_) => "header_kind",
            Self::NoAlgorithm => "no_alg",
            Self::Unsigned => "alg_none",
            Self::AlgorithmRefused(_) => "alg_refused",
            Self::Critical => "crit",
            Self::Unencoded => "b64",
            Self::Compressed => "zip",
            Self::Nested => "nested",
            Self::NoKid => "no_kid",
            Self::UnknownKid(_) => "unknown_kid",
            Self::AlgorithmMismatch { .. } => "alg_mismatch",
            Self::SignatureLength { .. } => "signature_length",
            Self::Signature => "signature",
            Self::NoType => "no_typ",
            Self::Type(_) => "typ",
            Self::ClaimMissing(_) => "claim_missing",
            Self::ClaimKind(_) => "claim_kind",
            Self::ClaimText(_) => "claim_text",
            Self::ClaimTime(_) => "claim_time",
            Self::Issuer(_) => "issuer",
            Self::Audience => "audience",
            Self::Subject(_) => "subject",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::IssuedInFuture { .. } => "issued_in_future",
            Self::Lifetime { .. } => "lifetime",
            Self::Client => "client",
            Self::Scope(_) => "scope",
            Self::Confirmation(_) => "confirmation",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_outside_is_cut_and_made_harmless() {
        assert_eq!(Shown::of("key-1").to_string(), "key-1");
        assert_eq!(Shown::of("a\n`b\u{202E}\x1B[31m'; é").to_string(), "a??b???31m????");
        assert_eq!(Shown::of(&"x".repeat(65)).to_string(), format!("{}…", "x".repeat(64)));
    }
}
