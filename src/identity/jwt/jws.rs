//! JWS in compact form (RFC 7515): its header, and whether a pinned key signed it.

use serde_json::{Map, Value};

use super::{
    Algorithm, JwkSet, Shown, TokenError,
    object::{Part, decode, object},
};

/// The longest token that is looked at.
pub(in crate::identity) const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// A signed text, taken apart. Nothing says yet that the signature is good.
pub(super) struct Jws<'a> {
    header: Header,
    /// What the signature is over: the header and the payload as they were sent.
    signed: &'a [u8],
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Parts);
        };
        let signed = token.as_bytes().get(..header.len() + 1 + payload.len()).unwrap_or_default();
        let header = part(header, Part::Header)?;
        let payload = part(payload, Part::Payload)?;
        let signature = part(signature, Part::Signature)?;
        let header = Header::read(&object(&header, Part::Header)?)?;
        Ok(Self { header, signed, payload, signature })
    }

    pub(super) const fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Checks the signature with the one key that the header may mean.
    pub(super) fn authenticate(&self, keys: &JwkSet) -> Result<(), TokenError> {
        let key = match self.header.kid() {
            Some(kid) => keys.named(kid).ok_or_else(|| TokenError::UnknownKid(Shown::of(kid)))?,
            None => keys.only().ok_or(TokenError::NoKid)?,
        };
        // INVARIANT: the algorithm is the key's own. The header's is compared, never used.
        if self.header.algorithm != key.algorithm() {
            return Err(TokenError::AlgorithmMismatch {
                shown: self.header.algorithm,
                pinned: key.algorithm(),
            });
        }
        if self.signature.len() != key.signature_bytes() {
            return Err(TokenError::SignatureLength {
                bytes: self.signature.len(),
                expected: key.signature_bytes(),
            });
        }
        if key.has_signed(self.signed, &self.signature) { Ok(()) } else { Err(TokenError::Signature) }
    }
}

/// A part's bytes. An empty one has no use in a token.
fn part(text: &str, part: Part) -> Result<Vec<u8>, TokenError> {
    if text.is_empty() {
        return Err(TokenError::EmptyPart(part));
    }
    decode(text).ok_or(TokenError::Encoding(part))
}

/// A header (RFC 7515 §4) that asks for nothing that is not understood.
pub(super) struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
    typ: Option<String>,
}

impl Header {
    fn read(header: &Map<String, Value>) -> Result<Self, TokenError> {
        let name = text(header, "alg")?.ok_or(TokenError::NoAlgorithm)?;
        if name.eq_ignore_ascii_case("none") {
            return Err(TokenError::Unsigned);
        }
        let algorithm =
            Algorithm::named(name).ok_or_else(|| TokenError::AlgorithmRefused(Shown::of(name)))?;
        // An extension that must be understood (§4.1.11), whichever it is, is not; nor are the
        // two that change what the signature is over (RFC 7797) and what the payload means.
        if header.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        if header.contains_key("b64") {
            return Err(TokenError::Unencoded);
        }
        if header.contains_key("zip") {
            return Err(TokenError::Compressed);
        }
        if text(header, "cty")?.is_some_and(|cty| media_type(cty) == media_type("JWT")) {
            return Err(TokenError::Nested);
        }
        Ok(Self {
            algorithm,
            kid: text(header, "kid")?.map(str::to_owned),
            typ: text(header, "typ")?.map(str::to_owned),
        })
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub(super) fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }
}

/// A media type as a header may abbreviate it, in full (RFC 7515 §4.1.9): without a slash it
/// is under `application/`. Media types are the same in either case.
pub(super) fn media_type(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    if text.contains('/') { text } else { format!("application/{text}") }
}

fn text<'a>(header: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, TokenError> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenError::HeaderKind(name)),
    }
}
