//! A public key (JWK, RFC 7517) with the one algorithm that is pinned to it.

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use serde_json::{Map, Value};

use super::{
    Algorithm, Shown,
    algorithm::Scheme,
    object::decode,
    weak::{bits, has_roca_shape},
};

const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// Larger exponents are not in use, and cost the verifier time.
const RSA_EXPONENT_BYTES_MAX: usize = 4;

const KID_BYTES_MAX: usize = 256;

/// The members that only private and symmetric keys have (RFC 7518 §6).
const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Why a key cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SkipReason {
    /// It is not a JSON object.
    #[error("not an object")]
    NotObject,
    /// A member is absent that its kind needs, or is not of the right form.
    #[error("`{0}` is missing or malformed")]
    Member(&'static str),
    /// It is a symmetric key.
    #[error("a symmetric key")]
    Symmetric,
    /// It is, or claims to be, a private key. Whoever published it has a problem.
    #[error("holds the private member `{0}`")]
    Private(&'static str),
    /// It is for something other than signatures.
    #[error("not for checking signatures")]
    Use,
    /// Its kind, curve included, is not known.
    #[error("unknown kind of key `{0}`")]
    Kind(Shown),
    /// Its algorithm is not known.
    #[error("unknown algorithm `{0}`")]
    Algorithm(Shown),
    /// Its algorithm is for keys of another kind.
    #[error("`{0}` is not for a key of this kind")]
    Mismatch(Algorithm),
    /// Its algorithm is not one of those allowed.
    #[error("algorithm `{0}` is not allowed")]
    NotAllowed(Algorithm),
    /// It names no algorithm, and not exactly one of those allowed is for keys of its kind.
    #[error("names no algorithm, and its kind does not determine it")]
    NoAlgorithm,
    /// Its RSA modulus is too short or too long.
    #[error("a modulus of {0} bits, not of 2048 to 8192")]
    ModulusBits(usize),
    /// Its RSA modulus is even, or is written with leading zeros (RFC 7518 §6.3.1.1).
    #[error("a modulus that is even or has leading zeros")]
    Modulus,
    /// Its RSA modulus was made by a generator whose keys can be broken (CVE-2017-15361).
    #[error("a modulus from a broken generator")]
    Roca,
    /// Its RSA exponent is even, 1, or larger than any in use.
    #[error("an exponent that is even, 1 or over 32 bits")]
    Exponent,
    /// Its point is not on the curve.
    #[error("a point that is not on the curve")]
    Point,
    /// Another usable key of the set has the same id.
    #[error("another key has the same `kid`")]
    DuplicateKid,
}

/// A public key.
#[derive(Clone, Debug)]
pub(super) struct Jwk {
    kid: Option<String>,
    algorithm: Algorithm,
    key: ParsedPublicKey,
    signature_bytes: usize,
}

impl Jwk {
    /// Reads a key, of which only the public part may be there.
    pub(super) fn read(jwk: &Value, allowed: &[Algorithm]) -> Result<Self, SkipReason> {
        let jwk = jwk.as_object().ok_or(SkipReason::NotObject)?;
        let kty = text(jwk, "kty")?.ok_or(SkipReason::Member("kty"))?;
        if kty == "oct" {
            return Err(SkipReason::Symmetric);
        }
        if let Some(secret) = SECRET_MEMBERS.into_iter().find(|name| jwk.contains_key(*name)) {
            return Err(SkipReason::Private(secret));
        }
        check_use(jwk)?;
        let kid = text(jwk, "kid")?.map(str::to_owned);
        if kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > KID_BYTES_MAX) {
            return Err(SkipReason::Member("kid"));
        }
        let algorithm = algorithm(jwk, kty, allowed)?;
        let (key, signature_bytes) = match algorithm.scheme() {
            Scheme::Rsa(parameters) => {
                let (n, e) = rsa(jwk)?;
                let components = RsaPublicKeyComponents { n: &n, e: &e };
                (components.to_parsed_public_key(parameters).map_err(|_| SkipReason::Modulus)?, n.len())
            }
            Scheme::Ec(curve, _, length) => {
                let point = [vec![4], sized(jwk, "x", length)?, sized(jwk, "y", length)?].concat();
                (ParsedPublicKey::new(curve, point).map_err(|_| SkipReason::Point)?, 2 * length)
            }
            Scheme::Ed25519 => {
                let point = sized(jwk, "x", 32)?;
                let key = ParsedPublicKey::new(&signature::ED25519, point);
                (key.map_err(|_| SkipReason::Point)?, 64)
            }
        };
        Ok(Self { kid, algorithm, key, signature_bytes })
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How long each signature of this key is. A signature in DER has another length.
    pub(super) const fn signature_bytes(&self) -> usize {
        self.signature_bytes
    }

    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

/// What a key is for (RFC 7517 §4.2, §4.3).
fn check_use(jwk: &Map<String, Value>) -> Result<(), SkipReason> {
    if text(jwk, "use")?.is_some_and(|usage| usage != "sig") {
        return Err(SkipReason::Use);
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => Ok(()),
        Some(_) => Err(SkipReason::Use),
    }
}

/// The algorithm of a key: the one it names, or else the only one it may be for.
fn algorithm(jwk: &Map<String, Value>, kty: &str, allowed: &[Algorithm]) -> Result<Algorithm, SkipReason> {
    let crv = text(jwk, "crv")?;
    let fitting = |algorithm: &&Algorithm| algorithm.fits(kty, crv);
    if !Algorithm::ALL.iter().any(|algorithm| fitting(&algorithm)) {
        return Err(SkipReason::Kind(Shown::of(crv.unwrap_or(kty))));
    }
    if let Some(name) = text(jwk, "alg")? {
        let algorithm = Algorithm::named(name).ok_or_else(|| SkipReason::Algorithm(Shown::of(name)))?;
        return if !algorithm.fits(kty, crv) {
            Err(SkipReason::Mismatch(algorithm))
        } else if !allowed.contains(&algorithm) {
            Err(SkipReason::NotAllowed(algorithm))
        } else {
            Ok(algorithm)
        };
    }
    let mut candidates = allowed.iter().filter(fitting);
    match (candidates.next(), candidates.next()) {
        (Some(only), None) => Ok(*only),
        _ => Err(SkipReason::NoAlgorithm),
    }
}

fn rsa(jwk: &Map<String, Value>) -> Result<(Vec<u8>, Vec<u8>), SkipReason> {
    let n = bytes(jwk, "n")?;
    let e = bytes(jwk, "e")?;
    if n.first() == Some(&0) || n.last().is_none_or(|last| last % 2 == 0) {
        return Err(SkipReason::Modulus);
    }
    if !RSA_BITS.contains(&bits(&n)) {
        return Err(SkipReason::ModulusBits(bits(&n)));
    }
    if has_roca_shape(&n) {
        return Err(SkipReason::Roca);
    }
    let in_use = !e.is_empty() && e.len() <= RSA_EXPONENT_BYTES_MAX && e.first() != Some(&0);
    if !in_use || e == [1] || e.last().is_none_or(|last| last % 2 == 0) {
        return Err(SkipReason::Exponent);
    }
    Ok((n, e))
}

fn sized(jwk: &Map<String, Value>, name: &'static str, length: usize) -> Result<Vec<u8>, SkipReason> {
    // RFC 7518 §6.2.1.2: in full, zeros included.
    bytes(jwk, name)
        .and_then(|value| if value.len() == length { Ok(value) } else { Err(SkipReason::Member(name)) })
}

fn bytes(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, SkipReason> {
    text(jwk, name)?.and_then(decode).ok_or(SkipReason::Member(name))
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, SkipReason> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(SkipReason::Member(name)),
    }
}
