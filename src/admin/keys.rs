//! Admin keys: `cgadmin_<id>_<secret>`, of which the gate keeps only a digest.

use aws_lc_rs::rand;
use jiff::{Timestamp, tz::TimeZone};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::manifest::{AdminKeySpec, AdminKeys, KeyId};

const PREFIX: &str = "cgadmin_";

/// Who made a request.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    pub(super) name: String,
    pub(super) key: KeyId,
}

/// Why nobody is known. Whoever asks is told the same in every case.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Unknown(pub(super) &'static str);

/// Whose key this is. An unknown id costs the same comparison as a known one.
pub(super) fn authenticate(keys: &AdminKeys, shown: &str, now: Timestamp) -> Result<Admin, Unknown> {
    let parts = shown.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
    let (id, secret) = parts.ok_or(Unknown("admin_malformed_key"))?;
    let digest: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
    let spec: Option<&AdminKeySpec> = keys.all().iter().find(|spec| spec.id.as_str() == id);
    let matches: bool = digest.ct_eq(spec.map_or(&[0; 32], |spec| spec.sha256.bytes())).into();
    let spec = spec.ok_or(Unknown("admin_unknown_key"))?;
    if !matches {
        return Err(Unknown("admin_wrong_secret"));
    }
    if now.to_zoned(TimeZone::UTC).date() >= spec.expires {
        return Err(Unknown("admin_expired_key"));
    }
    Ok(Admin { name: spec.name.clone(), key: spec.id.clone() })
}

/// An admin key that was just made: the one moment at which its secret can be read.
pub struct NewAdminKey {
    /// Its id.
    pub id: String,
    /// The whole key.
    pub key: String,
    /// The digest, for `callgate.yaml`.
    pub sha256: String,
}

impl NewAdminKey {
    /// A key of random bytes. `None` where the system has none.
    #[must_use]
    pub fn random() -> Option<Self> {
        let (mut id, mut secret) = ([0; 4], [0; 32]);
        rand::fill(&mut id).ok()?;
        rand::fill(&mut secret).ok()?;
        let (id, secret) = (format!("a-{}", hex::encode(id)), hex::encode(secret));
        let sha256 = hex::encode(Sha256::digest(secret.as_bytes()));
        Some(Self { key: format!("{PREFIX}{id}_{secret}"), id, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_lets_in_whom_it_names_until_the_day_it_expires() {
        let (one, other) = (NewAdminKey::random().unwrap(), NewAdminKey::random().unwrap());
        let spec = json!([
            { "id": one.id, "name": "dana", "sha256": one.sha256, "expires": "2027-06-30" },
            { "id": other.id, "name": "lee", "sha256": other.sha256, "expires": "2027-06-30" }
        ]);
        let keys: AdminKeys = serde_json::from_value(spec).unwrap();
        let at = |text: &str| text.parse().unwrap();
        let admin = authenticate(&keys, &one.key, at("2027-06-29T23:59:59Z")).unwrap();
        assert_eq!((admin.name.as_str(), admin.key.as_str()), ("dana", one.id.as_str()));
        let refused = |shown: &str, now| authenticate(&keys, shown, at(now)).unwrap_err().0;
        assert_eq!(refused(&one.key, "2027-06-30T00:00:00Z"), "admin_expired_key");
        let now = "2027-01-01T00:00:00Z";
        let secret_of = |key: &NewAdminKey| key.key.rsplit('_').next().unwrap().to_owned();
        assert_eq!(refused(&format!("cgadmin_{}_{}", one.id, secret_of(&other)), now), "admin_wrong_secret");
        assert_eq!(refused(&format!("cgadmin_{}_", one.id), now), "admin_wrong_secret");
        assert_eq!(refused(&format!("cgadmin_a-0_{}", secret_of(&one)), now), "admin_unknown_key");
        for other in ["", "cgadmin_", "cgadmin_a", &format!("cg_{}_{}", one.id, secret_of(&one))] {
            assert_eq!(refused(other, now), "admin_malformed_key", "{other}");
        }
    }
}
