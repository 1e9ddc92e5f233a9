//! The clients of one release, found by name and by key.

use std::{collections::HashMap, sync::Arc};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::{
    IdentityError,
    key::{ApiKey, KeyDigest},
};
use crate::manifest::{
    ClientName, ClientSpec, ClientsFile, KeyId, Place, Problem, Scope, Source, join_pointer,
};

/// A client, as its file says.
#[derive(Debug)]
pub struct Client {
    name: ClientName,
    spec: ClientSpec,
}

impl Client {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &ClientName {
        &self.name
    }

    /// What its file says.
    #[must_use]
    pub const fn spec(&self) -> &ClientSpec {
        &self.spec
    }

    /// Whether it holds a scope.
    #[must_use]
    pub fn holds(&self, scope: &Scope) -> bool {
        self.spec.scopes.contains(scope)
    }

    /// Whether a local process may claim to be it.
    #[must_use]
    pub const fn may_be_asserted(&self) -> bool {
        self.spec.stdio
    }
}

/// All clients.
#[derive(Debug, Default)]
pub struct Clients {
    by_name: HashMap<ClientName, Arc<Client>>,
    by_key: HashMap<KeyId, Key>,
}

#[derive(Debug)]
struct Key {
    client: Arc<Client>,
    digest: KeyDigest,
    expires: Date,
}

impl Clients {
    /// The clients of a file, and what is wrong with them.
    #[must_use]
    pub fn build(file: &ClientsFile, source: &Source) -> (Self, Vec<Problem>) {
        let mut clients = Self::default();
        let mut problems = Vec::new();
        for (name, spec) in &file.clients {
            let pointer = join_pointer("/clients", name.as_str());
            let client = Arc::new(Client { name: name.clone(), spec: spec.clone() });
            for (at, key) in spec.keys.iter().enumerate() {
                let pointer = format!("{pointer}/keys/{at}");
                let Some(digest) = KeyDigest::parse(&key.sha256) else {
                    let place = Place::below(&pointer, "sha256");
                    let problem = Problem::error(
                        source,
                        place,
                        format!("the digest of key `{}` is not 64 hexadecimal digits", key.id),
                    );
                    problems.push(
                        problem.help("it is the SHA-256 of the key's secret part, never the secret itself"),
                    );
                    continue;
                };
                let key_of = Key { client: Arc::clone(&client), digest, expires: key.expires };
                if let Some(other) = clients.by_key.insert(key.id.clone(), key_of) {
                    let message =
                        format!("the key id `{}` is already a key of `{}`", key.id, other.client.name);
                    problems.push(Problem::error(source, Place::below(&pointer, "id"), message));
                }
            }
            clients.by_name.insert(name.clone(), client);
        }
        (clients, problems)
    }

    /// The client of a name.
    #[must_use]
    pub fn named(&self, name: &ClientName) -> Option<Arc<Client>> {
        self.by_name.get(name).cloned()
    }

    /// All clients, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.by_name.values()
    }

    /// The client whose key this is. An unknown id costs the same comparison as a known one.
    pub(super) fn by_key(
        &self,
        shown: &ApiKey<'_>,
        now: Timestamp,
    ) -> Result<(Arc<Client>, KeyId), IdentityError> {
        let found = self.by_key.get_key_value(shown.id());
        let matches = shown.matches(found.map_or(&KeyDigest::NOBODY, |(_, key)| &key.digest));
        let Some((id, key)) = found else { return Err(IdentityError::UnknownKey) };
        let (id, client) = (id.clone(), key.client.name.clone());
        if !matches {
            return Err(IdentityError::WrongSecret { id, client });
        }
        if now.to_zoned(TimeZone::UTC).date() >= key.expires {
            return Err(IdentityError::Expired { id, client });
        }
        Ok((Arc::clone(&key.client), id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::{Proof, Refusal},
        identity::{NewKey, authenticate},
        manifest,
    };

    fn clients(keys: &str) -> (Clients, Vec<Problem>) {
        let text = format!(
            "clients:\n  bot:\n    owner: dana@example.com\n    stdio: true\n    keys: [{keys}]\n  web:\n    owner: dana@example.com\n"
        );
        let source = Source { path: "clients.yaml".into(), text: text.into() };
        Clients::build(&manifest::read(&source).unwrap(), &source)
    }

    fn key_spec(key: &NewKey, expires: &str) -> String {
        format!("{{ id: k1, sha256: \"{}\", expires: {expires} }}", key.sha256())
    }

    fn at(date: &str) -> Timestamp {
        format!("{date}T23:59:59Z").parse().unwrap()
    }

    #[test]
    fn a_key_works_until_the_day_it_expires() {
        let key = NewKey::new("k1", [7; 32]);
        let (clients, problems) = clients(&key_spec(&key, "2027-06-30"));
        assert_eq!(problems, []);
        let proof = Proof::ApiKey(key.key().into());
        assert_eq!(authenticate(&clients, &proof, at("2027-06-29")).unwrap().client().name().as_str(), "bot");
        let refusal = authenticate(&clients, &proof, at("2027-06-30")).unwrap_err();
        insta::assert_snapshot!(refusal, @"key `k1` of `bot` has expired");
    }

    #[test]
    fn every_failure_reads_the_same_to_the_caller() {
        let key = NewKey::new("k1", [7; 32]);
        let (clients, _) = clients(&key_spec(&key, "2020-01-01"));
        let proofs = [
            Proof::Nothing,
            Proof::ApiKey("nonsense".into()),
            Proof::ApiKey("cg_k9_abc".into()),
            Proof::ApiKey("cg_k1_abc".into()),
            Proof::ApiKey(key.key().into()),
            Proof::Asserted(ClientName::parse("nobody").unwrap()),
            Proof::Asserted(ClientName::parse("web").unwrap()),
        ];
        let mut codes = Vec::new();
        for proof in proofs {
            let refusal = authenticate(&clients, &proof, at("2026-11-23")).unwrap_err();
            assert_eq!(refusal.public_message(), "authentication failed");
            codes.push(refusal.code());
        }
        assert_eq!(
            codes,
            [
                "no_proof",
                "malformed_proof",
                "unknown_key",
                "wrong_secret",
                "expired_key",
                "unknown_client",
                "not_for_stdio"
            ]
        );
    }

    #[test]
    fn a_client_may_be_claimed_only_where_its_file_says_so() {
        let (clients, _) = clients("");
        let claim = |name| {
            authenticate(&clients, &Proof::Asserted(ClientName::parse(name).unwrap()), at("2026-11-23"))
        };
        assert!(claim("bot").is_ok());
        assert!(claim("web").is_err());
    }

    #[test]
    fn a_written_secret_is_refused_as_a_digest() {
        let (_, problems) = clients("{ id: k1, sha256: hunter2, expires: 2027-06-30 }");
        insta::assert_snapshot!(problems[0].message, @"the digest of key `k1` is not 64 hexadecimal digits");
    }
}
