//! The clients of one release, found by name and by key.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use subtle::ConstantTimeEq as _;

use super::{
    IdentityError,
    jwt::{Algorithm, JwkSet},
    key::{ApiKey, KeyDigest},
};
use crate::{
    call::Certificate,
    manifest::{
        CertificateSpec, ClientName, ClientSpec, ClientsFile, IssuerName, KeyId, Place, Problem, Scope,
        Source, join_pointer,
    },
    runs::RuntimeKey,
};

/// The algorithm of an assertion key that does not say its own.
const ASSERTION_ALGORITHMS: [Algorithm; 4] =
    [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::RS256];

/// The kinds of alternative names that a certificate is known by.
const CERTIFICATE_NAMES: [&str; 3] = ["dns:", "uri:", "email:"];

/// A client, as its file says.
#[derive(Debug)]
pub struct Client {
    name: ClientName,
    spec: ClientSpec,
    assertion_keys: JwkSet,
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

    /// The keys that sign its assertions.
    #[must_use]
    pub const fn assertion_keys(&self) -> &JwkSet {
        &self.assertion_keys
    }

    /// Whether it may call from there. Where it names networks, an address that is not known is in none.
    #[must_use]
    pub fn may_call_from(&self, source: Option<IpAddr>) -> bool {
        let within =
            |address: IpAddr| self.spec.sources.iter().any(|network| network.net().contains(&address));
        self.spec.sources.is_empty() || source.is_some_and(|address| within(address.to_canonical()))
    }
}

/// All clients.
#[derive(Debug, Default)]
pub struct Clients {
    by_name: HashMap<ClientName, Arc<Client>>,
    /// By their fingerprints, in order: to find one costs the same as not to find it.
    keys: Vec<Key>,
    by_token: HashMap<(IssuerName, String), Arc<Client>>,
    by_certificate: HashMap<CertificateSpec, Arc<Client>>,
}

#[derive(Debug)]
struct Key {
    /// The digest of its id.
    print: [u8; 32],
    id: KeyId,
    client: Arc<Client>,
    digest: KeyDigest,
    expires: Date,
}

/// Whose key something would be, were it not for the refusal.
pub(super) struct Claimed {
    pub(super) client: Arc<Client>,
    pub(super) id: KeyId,
    pub(super) refusal: Option<IdentityError>,
}

impl Clients {
    /// The clients of a file, and what is wrong with them.
    #[must_use]
    pub fn build(file: &ClientsFile, source: &Source) -> (Self, Vec<Problem>) {
        let mut clients = Self::default();
        let mut problems = Vec::new();
        for (name, spec) in &file.clients {
            let pointer = join_pointer("/clients", name.as_str());
            let assertion_keys = assertion_keys(spec, &pointer, source, &mut problems);
            let client = Arc::new(Client { name: name.clone(), spec: spec.clone(), assertion_keys });
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
                let print = ApiKey::fingerprint_of(key.id.as_str());
                let key_of = Key {
                    print,
                    id: key.id.clone(),
                    client: Arc::clone(&client),
                    digest,
                    expires: key.expires,
                };
                match clients.keys.binary_search_by(|other| other.print.cmp(&print)) {
                    Ok(at) => {
                        let other = clients.keys.get(at).map_or("", |other| other.client.name.as_str());
                        let message = format!("the key id `{}` is already a key of `{other}`", key.id);
                        problems.push(Problem::error(source, Place::below(&pointer, "id"), message));
                    }
                    Err(at) => clients.keys.insert(at, key_of),
                }
            }
            clients.add_tokens(&client, &pointer, source, &mut problems);
            clients.add_certificates(&client, &pointer, source, &mut problems);
            clients.by_name.insert(name.clone(), client);
        }
        (clients, problems)
    }

    fn add_tokens(
        &mut self,
        client: &Arc<Client>,
        pointer: &str,
        source: &Source,
        problems: &mut Vec<Problem>,
    ) {
        for (at, token) in client.spec.tokens.iter().enumerate() {
            let key = (token.issuer.clone(), token.client.clone());
            if let Some(other) = self.by_token.insert(key, Arc::clone(client)) {
                let message = format!(
                    "tokens of `{}` for this client are already those of `{}`",
                    token.issuer, other.name
                );
                problems.push(Problem::error(
                    source,
                    Place::Pointer(format!("{pointer}/tokens/{at}")),
                    message,
                ));
            }
        }
    }

    fn add_certificates(
        &mut self,
        client: &Arc<Client>,
        pointer: &str,
        source: &Source,
        problems: &mut Vec<Problem>,
    ) {
        for (at, certificate) in client.spec.certificates.iter().enumerate() {
            let mut refuse = |message: String, help: &str| {
                let place = Place::Pointer(format!("{pointer}/certificates/{at}"));
                problems.push(Problem::error(source, place, message).help(help.to_owned()));
            };
            let known = match certificate {
                CertificateSpec::Subject(subject) if subject.is_empty() => {
                    let help = "certificates without one are known by their names";
                    refuse("the subject is empty".into(), help);
                    continue;
                }
                CertificateSpec::Subject(_) => certificate.clone(),
                CertificateSpec::Name(name)
                    if CERTIFICATE_NAMES.iter().any(|kind| name.starts_with(kind)) =>
                {
                    certificate.clone()
                }
                CertificateSpec::Name(name) => {
                    refuse(
                        format!("`{name}` does not say what kind of name it is"),
                        "write `dns:`, `uri:` or `email:` before it",
                    );
                    continue;
                }
                CertificateSpec::Sha256(digest) if KeyDigest::parse(digest).is_some() => {
                    CertificateSpec::Sha256(digest.to_ascii_lowercase())
                }
                CertificateSpec::Sha256(_) => {
                    refuse(
                        "the digest is not 64 hexadecimal digits".into(),
                        "it is the SHA-256 of the certificate's DER form",
                    );
                    continue;
                }
            };
            if let Some(other) = self.by_certificate.insert(known, Arc::clone(client)) {
                refuse(
                    format!("the certificate is already one of `{}`", other.name),
                    "a certificate is one client's",
                );
            }
        }
    }

    /// The client whose access token says this of its client.
    #[must_use]
    pub fn by_token(&self, issuer: &IssuerName, client: &str) -> Option<Arc<Client>> {
        self.by_token.get(&(issuer.clone(), client.to_owned())).cloned()
    }

    /// The client whose certificate this is. One that is several clients' is nobody's.
    #[must_use]
    pub fn by_certificate(&self, certificate: &Certificate) -> Option<Arc<Client>> {
        let names = certificate.names.iter().cloned().map(CertificateSpec::Name);
        let of_whole = [
            CertificateSpec::Sha256(hex::encode(certificate.sha256)),
            CertificateSpec::Subject(certificate.subject.clone()),
        ];
        let mut found = names.chain(of_whole).filter_map(|spec| self.by_certificate.get(&spec));
        let first = found.next()?;
        found.all(|other| other.name == first.name).then(|| Arc::clone(first))
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

    /// Whose key this would be, and why it is not taken.
    ///
    /// An unknown id, a wrong secret and an expired key cost the same: the time of an answer says nothing of what
    /// was nearly right. An unknown id is judged by the key beside it, which it never passes for.
    pub(super) fn by_key(
        &self,
        shown: &ApiKey<'_>,
        made: Option<&RuntimeKey>,
        now: Timestamp,
    ) -> Result<Claimed, IdentityError> {
        let print = shown.fingerprint();
        let at = self.keys.partition_point(|key| key.print < print);
        let beside = self.keys.get(at).or_else(|| self.keys.last());
        let of_file = beside.is_some_and(|key| bool::from(key.print.ct_eq(&print)));
        // A key of the file comes first: no key that is made later takes its id over.
        let (is_known, digest, id, client, expired) = match (beside, made) {
            (_, Some(made)) if !of_file => {
                // Its client may be gone with a release.
                let client = self.named(&made.client).ok_or(IdentityError::UnknownKey)?;
                (true, KeyDigest::of(made.sha256), made.id.clone(), client, now >= made.expires)
            }
            (Some(key), _) => {
                let expired = now.to_zoned(TimeZone::UTC).date() >= key.expires;
                (of_file, key.digest, key.id.clone(), Arc::clone(&key.client), expired)
            }
            (None, _) => return Err(IdentityError::UnknownKey),
        };
        let matches = shown.matches(&digest);
        let named = (id.clone(), client.name.clone());
        let refusal = match (is_known, matches, expired) {
            (true, true, false) => None,
            (true, true, true) => Some(IdentityError::Expired { id: named.0, client: named.1 }),
            (true, false, _) => Some(IdentityError::WrongSecret { id: named.0, client: named.1 }),
            (false, ..) => Some(IdentityError::UnknownKey),
        };
        Ok(Claimed { client, id, refusal })
    }
}

/// The keys that sign a client's assertions. Each says its algorithm, or is of a kind that has only one here.
fn assertion_keys(spec: &ClientSpec, pointer: &str, source: &Source, problems: &mut Vec<Problem>) -> JwkSet {
    let text = serde_json::json!({ "keys": spec.assertion_keys }).to_string();
    let (set, skipped) = match JwkSet::parse(text.as_bytes(), &ASSERTION_ALGORITHMS) {
        Ok(read) => read,
        Err(error) => {
            let place = Place::Pointer(format!("{pointer}/assertion-keys"));
            problems.push(Problem::error(source, place, error.to_string()));
            return JwkSet::default();
        }
    };
    for skipped in skipped {
        let place = Place::Pointer(format!("{pointer}/assertion-keys/{}", skipped.index));
        let problem = Problem::error(source, place, skipped.to_string());
        problems.push(problem.help("it is the public part of a signing key, as a JWK (RFC 7517 §4)"));
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    fn of_text(text: &str) -> (Clients, Vec<String>) {
        let source = Source { path: "clients.yaml".into(), text: text.into() };
        let (clients, problems) = Clients::build(&manifest::read(&source).unwrap(), &source);
        (clients, problems.into_iter().map(|problem| problem.message).collect())
    }

    #[test]
    fn a_certificate_is_one_clients_or_nobodys() {
        let digest = "ab".repeat(32);
        let (clients, problems) = of_text(&format!(
            "clients:\n  a: {{ owner: o, certificates: [{{ name: \"uri:spiffe://x/a\" }}, {{ sha256: {} }}] }}\n  b: {{ owner: o, certificates: [{{ name: \"dns:b.example\" }}] }}\n",
            digest.to_uppercase()
        ));
        assert_eq!(problems, [""; 0]);
        let found = |sha256: u8, names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect();
            let shown = Certificate { sha256: [sha256; 32], subject: "CN=a".into(), names };
            clients.by_certificate(&shown).map(|client| client.name().to_string())
        };
        assert_eq!(found(0, &["uri:spiffe://x/a"]).as_deref(), Some("a"));
        assert_eq!(found(0xab, &[]).as_deref(), Some("a"));
        assert_eq!(found(0xab, &["uri:spiffe://x/a", "dns:other"]).as_deref(), Some("a"));
        assert_eq!(found(0, &["dns:spiffe://x/a", "uri:b.example", "dns:B.example"]), None);
        assert_eq!(found(0xab, &["dns:b.example"]), None, "two clients' names on one certificate");
    }

    #[test]
    fn what_two_clients_would_share_does_not_load() {
        let (_, problems) = of_text(
            "clients:\n  a: { owner: o, tokens: [{ issuer: corp, client: x }], certificates: [{ name: a.example }, { sha256: abc }, { subject: CN=a }, { subject: \"\" }] }\n  b: { owner: o, tokens: [{ issuer: corp, client: x }], certificates: [{ subject: CN=a }] }\n",
        );
        assert_eq!(
            problems,
            [
                "`a.example` does not say what kind of name it is",
                "the digest is not 64 hexadecimal digits",
                "the subject is empty",
                "tokens of `corp` for this client are already those of `a`",
                "the certificate is already one of `a`"
            ]
        );
    }

    #[test]
    fn a_written_secret_is_refused_as_a_digest() {
        let (_, problems) =
            of_text("clients: { a: { owner: o, keys: [{ id: k1, sha256: hunter2, expires: 2027-06-30 }] } }");
        insta::assert_snapshot!(problems[0], @"the digest of key `k1` is not 64 hexadecimal digits");
    }
}
