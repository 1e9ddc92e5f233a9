//! The parts of a token, decoded without leniency.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::strict::{self, Bounds};

use super::TokenError;

/// For a header or a set of claims. Lists of groups can be long.
const BOUNDS: Bounds = Bounds { depth_max: 16, nodes_max: 2_000 };

/// A part of a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// What comes before the first dot.
    Header,
    /// What comes between the dots.
    Payload,
    /// What comes after the second dot.
    Signature,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Signature => "signature",
        })
    }
}

/// Decodes base64url without padding. No two texts decode to the same bytes: stray bits in the
/// last character are refused, as are blanks.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Encodes as base64url without padding.
pub(in crate::identity) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a part that has to be a JSON object.
pub(super) fn object(bytes: &[u8], part: Part) -> Result<Map<String, Value>, TokenError> {
    strict::scan(bytes, BOUNDS).map_err(|fault| TokenError::Json { part, fault })?;
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(TokenError::NotObject(part)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sequence_of_bytes_has_one_text() {
        assert_eq!(decode("_-8").unwrap(), [0xFF, 0xEF]);
        // Padding, the other alphabet, blanks, stray bits, a lone character.
        for text in ["_-8=", "/+8", " _-8", "_-8\n", "_-\n8", "_-9", "_-8A_", "é"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
