//! Who is known, and who is not.

mod timing;

use std::path::Path;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    call::{CallKind, Certificate, Origin, Refusal as _, Transport},
    manifest::{self, KeyId, Source},
    runs::{DESTINATION_BYTES_MAX, Revocation, RuntimeKey, TokenId},
    store::{StateFolder, Store},
};

const NOW: &str = "2026-11-23T10:00:00Z";
const RESOURCE: &str = "http://127.0.0.1:8787/mcp";

/// Identities on a state folder, and their runs.
async fn identities(folder: &Path) -> (Identities, Arc<Runs>) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let store = Store::open(&StateFolder::prepare(&folder.join("state")).unwrap()).await.unwrap();
    let runs = Runs::open(store).await.unwrap();
    let spec = json!({ "resource": RESOURCE, "tokens": { "lifetime": "10min" }, "scopes": ["a:read"] });
    let spec = serde_json::from_value(spec).unwrap();
    (Identities::new(Arc::clone(&runs), &spec, &Egress::new(None).unwrap()), runs)
}

fn clients(text: &str) -> Clients {
    let source = Source { path: "clients.yaml".into(), text: text.into() };
    let (clients, problems) = Clients::build(&manifest::read(&source).unwrap(), &source);
    assert_eq!(problems, []);
    clients
}

fn with_key(key: &NewKey, expires: &str) -> Clients {
    clients(&format!(
        "clients:\n  bot:\n    owner: o\n    stdio: true\n    scopes: [a:read, a:write]\n    acts-for-users: true\n    keys: [{{ id: k1, sha256: \"{}\", expires: {expires} }}]\n  web: {{ owner: o, scopes: [a:read] }}\n",
        key.sha256()
    ))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn named(name: &str) -> ClientName {
    ClientName::parse(name).unwrap()
}

fn code(result: Result<Caller, IdentityError>) -> &'static str {
    result.map_or_else(|refusal| refusal.code(), |_| "known")
}

#[tokio::test]
async fn a_key_works_until_the_day_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let (identities, _) = identities(folder.path()).await;
    let key = NewKey::new("k1", [7; 32]);
    let (clients, proof) = (with_key(&key, "2027-06-30"), Proof::bearer(key.key()));
    let last = identities.authenticate(&clients, &proof, None, at("2027-06-29T23:59:59Z")).await.unwrap();
    assert_eq!(last.client().name().as_str(), "bot");
    let refusal =
        identities.authenticate(&clients, &proof, None, at("2027-06-30T00:00:00Z")).await.unwrap_err();
    insta::assert_snapshot!(refusal, @"key `k1` of `bot` has expired");
}

#[tokio::test]
async fn an_answer_outlasts_the_proof_it_was_asked_with_and_no_revocation() {
    let folder = tempfile::tempdir().unwrap();
    let (identities, runs) = identities(folder.path()).await;
    let key = NewKey::new("k1", [7; 32]);
    let clients = with_key(&key, "2100-01-01");
    let kind = CallKind::Tool { name: "get".into(), arguments: serde_json::Map::new().into() };
    let origin = Origin { transport: Transport::Http, source: None };
    let call = Call::now(kind, Proof::bearer(key.key()), origin, CancellationToken::new());
    let mut call = identities.identify(&clients, call).await.unwrap();
    assert_eq!((call.still_stands(), call.may_be_answered()), (Ok(()), Ok(())));
    call.ground.as_mut().unwrap().standing.expires = Some(Timestamp::now());
    assert_eq!((call.still_stands(), call.may_be_answered()), (Err(StandingError::Expired), Ok(())));
    let what = Revocation::Key(KeyId::parse("k1").unwrap());
    runs.revoke(&what, "it", "a test", None, Timestamp::now()).await.unwrap();
    assert_eq!(call.may_be_answered(), Err(StandingError::Key(KeyId::parse("k1").unwrap())));
}

#[tokio::test]
async fn every_failure_reads_the_same_to_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let (identities, _) = identities(folder.path()).await;
    let key = NewKey::new("k1", [7; 32]);
    let clients = with_key(&key, "2020-01-01");
    let proofs = [
        Proof::default(),
        Proof::bearer("nonsense"),
        Proof::bearer("cg_k9_abc"),
        Proof::bearer("cg_k1_abc"),
        Proof::bearer(key.key()),
        Proof::bearer("a.b.c"),
        Proof::asserted(named("nobody")),
        Proof::asserted(named("web")),
    ];
    let mut codes = Vec::new();
    for proof in proofs {
        let refusal = identities.authenticate(&clients, &proof, None, at(NOW)).await.unwrap_err();
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
            "encoding",
            "unknown_client",
            "not_for_stdio"
        ]
    );
}

#[tokio::test]
async fn a_client_calls_from_its_networks_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (identities, _) = identities(folder.path()).await;
    let clients = clients(
        "clients: { bot: { owner: o, certificates: [{ subject: CN=bot }], sources: [10.0.0.0/8, 2001:db8::/32] } }",
    );
    let certificate = Certificate { sha256: [0; 32], subject: "CN=bot".into(), names: vec![] };
    let proof = Proof { certificate: Some(certificate.into()), ..Proof::default() };
    let from = async |source: Option<&str>| {
        let source = source.map(|source| source.parse().unwrap());
        code(identities.authenticate(&clients, &proof, source, at(NOW)).await)
    };
    for good in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"] {
        assert_eq!(from(Some(good)).await, "known", "{good}");
    }
    for bad in [Some("11.0.0.1"), Some("127.0.0.1"), Some("2001:db9::1"), Some("::10.1.2.3"), None] {
        assert_eq!(from(bad).await, "wrong_source", "{bad:?}");
    }
}

#[tokio::test]
async fn what_is_revoked_is_refused_at_once_and_other_keys_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (identities, runs) = identities(folder.path()).await;
    let key = NewKey::new("k1", [7; 32]);
    let clients = with_key(&key, "2027-06-30");
    let later = NewKey::new("k2", [8; 32]);
    let sha256 = hex::decode(later.sha256()).unwrap().try_into().unwrap();
    let made = RuntimeKey {
        id: "k2".parse().unwrap(),
        client: named("bot"),
        sha256,
        expires: at("2027-01-01T00:00:00Z"),
    };
    runs.add_key(&made, "test", at(NOW)).await.unwrap();
    let shown = async |key: &NewKey| {
        code(identities.authenticate(&clients, &Proof::bearer(key.key()), None, at(NOW)).await)
    };
    assert_eq!((shown(&key).await, shown(&later).await), ("known", "known"));
    runs.revoke(&Revocation::Key("k1".parse().unwrap()), "test", "", None, at(NOW)).await.unwrap();
    assert_eq!((shown(&key).await, shown(&later).await), ("revoked", "known"));
    runs.revoke(&Revocation::Client(named("bot")), "test", "", None, at(NOW)).await.unwrap();
    assert_eq!((shown(&key).await, shown(&later).await), ("revoked", "revoked"));
    assert_eq!(runs.key_last_used(&"k2".parse().unwrap()), Some(at(NOW)));
}

fn request(key: &NewKey) -> TokenRequest {
    TokenRequest {
        proof: ClientProof::Secret { client: "bot".into(), secret: key.key().into() },
        scope: None,
        resources: vec![],
        tools: vec![],
        user: None,
        destinations: vec![],
        run: None,
        run_lifetime: None,
    }
}

/// A gate that issues tokens, and a client that has a key.
struct Minting {
    identities: Identities,
    runs: Arc<Runs>,
    clients: Clients,
    key: NewKey,
    _folder: tempfile::TempDir,
}

impl Minting {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (identities, runs) = identities(folder.path()).await;
        let key = NewKey::new("k1", [7; 32]);
        let clients = with_key(&key, "2027-06-30");
        Self { identities, runs, clients, key, _folder: folder }
    }

    async fn mint(&self, request: &TokenRequest) -> Result<NewAccessToken, TokenRefusal> {
        self.identities.mint(&self.clients, request, None, None, at(NOW)).await
    }

    async fn shown(&self, token: &NewAccessToken, now: &str) -> Result<Caller, IdentityError> {
        let proof = Proof::bearer(token.token.expose_secret());
        self.identities.authenticate(&self.clients, &proof, None, at(now)).await
    }
}

#[tokio::test]
async fn a_token_grants_no_more_than_it_was_asked_for_and_its_client_has() {
    let gate = Minting::new().await;
    let whole = gate.mint(&request(&gate.key)).await.unwrap();
    let caller = gate.shown(&whole, NOW).await.unwrap();
    let scope = |name: &str| name.parse().unwrap();
    assert!(caller.holds(&scope("a:read")) && caller.holds(&scope("a:write")));
    assert!(!caller.holds(&scope("a:delete")));
    assert!(caller.is_left(&"orders.get".parse().unwrap()));
    let narrow = TokenRequest {
        scope: Some("a:read".into()),
        tools: vec!["orders.*".into()],
        user: Some("ann".into()),
        ..request(&gate.key)
    };
    let narrow = gate.mint(&narrow).await.unwrap();
    let caller = gate.shown(&narrow, NOW).await.unwrap();
    assert!(caller.holds(&scope("a:read")) && !caller.holds(&scope("a:write")));
    assert!(
        caller.is_left(&"orders.get".parse().unwrap()) && !caller.is_left(&"refunds.create".parse().unwrap())
    );
    assert_eq!(caller.user().unwrap().subject, "ann");
    assert_ne!(narrow.run, whole.run);
}

#[tokio::test]
async fn what_a_client_may_not_have_is_refused_by_name() {
    let gate = Minting::new().await;
    let base = || request(&gate.key);
    let secret =
        |client: &str, secret: &str| ClientProof::Secret { client: client.into(), secret: secret.into() };
    let refused = [
        (TokenRequest { scope: Some("a:read a:delete".into()), ..base() }, "invalid_scope"),
        (TokenRequest { resources: vec!["http://127.0.0.1:8787/mcp/".into()], ..base() }, "invalid_target"),
        (TokenRequest { tools: vec!["[".into()], ..base() }, "invalid_request"),
        (TokenRequest { user: Some("a\nb".into()), ..base() }, "invalid_request"),
        (TokenRequest { run: Some("0".repeat(32)), ..base() }, "invalid_request"),
        (TokenRequest { run_lifetime: Some(Duration::from_secs(1_000_000)), ..base() }, "invalid_request"),
        (TokenRequest { destinations: vec![String::new()], ..base() }, "invalid_request"),
        (TokenRequest { proof: secret("web", gate.key.key()), ..base() }, "invalid_client"),
        (TokenRequest { proof: secret("bot", "cg_k1_nope"), ..base() }, "invalid_client"),
        (
            TokenRequest { proof: ClientProof::Certificate { client: "bot".into() }, ..base() },
            "invalid_client",
        ),
    ];
    for (request, code) in refused {
        assert_eq!(gate.mint(&request).await.unwrap_err().code(), code, "{request:?}");
    }
    assert!(gate.mint(&TokenRequest { resources: vec![RESOURCE.into()], ..base() }).await.is_ok());
    // Of the same key, and not for users.
    let alone = with_key(&gate.key, "2027-06-30");
    let spec = clients(&format!(
        "clients: {{ bot: {{ owner: o, keys: [{{ id: k1, sha256: \"{}\", expires: 2027-06-30 }}] }} }}",
        gate.key.sha256()
    ));
    let for_user = TokenRequest { user: Some("ann".into()), ..base() };
    let refusal = gate.identities.mint(&spec, &for_user, None, None, at(NOW)).await.unwrap_err();
    assert_eq!(refusal.code(), "unauthorized_client");
    assert!(gate.identities.mint(&alone, &for_user, None, None, at(NOW)).await.is_ok());
}

#[tokio::test]
async fn a_token_ends_by_time_by_revocation_with_its_run_and_with_its_client() {
    let gate = Minting::new().await;
    let by_time = gate.mint(&request(&gate.key)).await.unwrap();
    assert_eq!(by_time.expires_in, Duration::from_secs(600));
    assert_eq!(code(gate.shown(&by_time, "2026-11-23T10:09:59Z").await), "known");
    assert_eq!(code(gate.shown(&by_time, "2026-11-23T10:10:06Z").await), "expired");

    let by_id = gate.mint(&request(&gate.key)).await.unwrap();
    assert_eq!(code(gate.shown(&by_id, NOW).await), "known");
    let token = TokenId { issuer: "http://127.0.0.1:8787".into(), id: by_id.id.clone() };
    gate.runs.revoke(&Revocation::Token(token), "test", "", None, at(NOW)).await.unwrap();
    assert_eq!(code(gate.shown(&by_id, NOW).await), "revoked");

    let by_run = gate.mint(&request(&gate.key)).await.unwrap();
    assert_eq!(code(gate.shown(&by_run, NOW).await), "known");
    gate.identities.end(&by_run.run, EndReason::Asked).await.unwrap().unwrap();
    assert_eq!(code(gate.shown(&by_run, NOW).await), "run_ended");

    let by_key = gate.mint(&request(&gate.key)).await.unwrap();
    let taken_back = gate.mint(&request(&gate.key)).await.unwrap();
    let proof = request(&gate.key).proof;
    let back = gate.identities.take_back(&gate.clients, &proof, &taken_back.token, None, None, at(NOW)).await;
    assert_eq!(back.unwrap().unwrap().1.id, taken_back.id);
    assert_eq!(code(gate.shown(&taken_back, NOW).await), "revoked");

    // Whoever had the key may have asked for tokens with it.
    assert_eq!(code(gate.shown(&by_key, NOW).await), "known");
    gate.runs.revoke(&Revocation::Key("k1".parse().unwrap()), "test", "", None, at(NOW)).await.unwrap();
    assert_eq!(code(gate.shown(&by_key, NOW).await), "revoked");
}

#[tokio::test]
async fn a_token_outlives_its_signing_key_and_not_by_long() {
    let gate = Minting::new().await;
    let old = gate.mint(&request(&gate.key)).await.unwrap();
    let later = at("2026-12-24T10:00:00Z");
    let new = gate.identities.mint(&gate.clients, &request(&gate.key), None, None, later).await.unwrap();
    let kid = |token: &NewAccessToken| {
        jwt::Unverified::parse(token.token.expose_secret()).unwrap().kid_hint().unwrap().to_owned()
    };
    assert_ne!(kid(&old), kid(&new));
    let keys = gate.identities.published_keys().await.unwrap().unwrap();
    let published: Vec<&str> =
        keys["keys"].as_array().unwrap().iter().filter_map(|key| key["kid"].as_str()).collect();
    assert!(published.contains(&kid(&new).as_str()), "{keys}");
    assert!(keys["keys"][0].get("d").is_none());
}

#[tokio::test]
async fn a_destination_is_what_its_reader_takes_it_for() {
    let gate = Minting::new().await;
    let with = |one: &str| TokenRequest { destinations: vec![one.into()], ..request(&gate.key) };
    for good in [
        "api.example.com",
        "api.example.com:8443",
        "[2001:db8::1]:443",
        "https://api.example.com/orders",
        "mailto:x@example.com",
        "x@example.com",
        "DE89 3704 0044 0532 0130 00",
        "Zoë Straße",
        &"a".repeat(DESTINATION_BYTES_MAX),
    ] {
        assert!(gate.mint(&with(good)).await.is_ok(), "{good}");
    }
    for bad in [
        "",
        " ",
        " api.example.com",
        "api.example.com\n",
        "api.example.com\u{200b}",
        "\u{202e}moc.elpmaxe",
        "a\0b",
        "https://",
        "https://api.example.com@evil.example/",
        "https://api example.com/",
        "https://api.example.com:99999/",
        &"a".repeat(DESTINATION_BYTES_MAX + 1),
    ] {
        let refusal = gate.mint(&with(bad)).await.unwrap_err();
        assert_eq!(refusal.code(), "invalid_request", "{bad:?}");
        assert!(refusal.public_message().starts_with("a destination is a URL, a host, "), "{refusal}");
    }
}

#[tokio::test]
async fn a_token_is_made_as_long_as_one_may_be_shown_and_no_longer() {
    let gate = Minting::new().await;
    let with = |names: usize, bytes: usize| {
        let mut tools: Vec<_> = (0..names).map(|n| format!("{n:03}{}", "t".repeat(97))).collect();
        tools.push("t".repeat(bytes));
        TokenRequest { tools, ..request(&gate.key) }
    };
    let (mut names, mut longest) = (0, 0);
    while gate.mint(&with(names + 1, 1)).await.is_ok() {
        names += 1;
    }
    for bytes in 1..=128 {
        match gate.mint(&with(names, bytes)).await {
            Ok(minted) => longest = minted.token.expose_secret().len(),
            Err(refusal) => assert!(refusal.to_string().contains("too long to be shown"), "{refusal}"),
        }
    }
    // Base64 grows by two characters at a time where it does not by one.
    assert!((jwt::TOKEN_BYTES_MAX - 1..=jwt::TOKEN_BYTES_MAX).contains(&longest), "{longest}");
}

#[tokio::test]
async fn a_run_goes_on_for_its_own_principal_alone() {
    let gate = Minting::new().await;
    let first = gate.mint(&request(&gate.key)).await.unwrap();
    let run = first.run.to_string();
    let again = gate.mint(&TokenRequest { run: Some(run.clone()), ..request(&gate.key) }).await.unwrap();
    assert_eq!(again.run, first.run);
    for other in [
        TokenRequest { run: Some(run.clone()), user: Some("ann".into()), ..request(&gate.key) },
        TokenRequest {
            run: Some(run.clone()),
            destinations: vec!["x@example.com".into()],
            ..request(&gate.key)
        },
        TokenRequest {
            run: Some(run.clone()),
            run_lifetime: Some(Duration::from_secs(9)),
            ..request(&gate.key)
        },
    ] {
        assert_eq!(gate.mint(&other).await.unwrap_err().code(), "invalid_request", "{other:?}");
    }
}

#[tokio::test]
async fn an_assertion_signed_by_the_clients_key_is_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let (before, _) = identities(folder.path()).await;
    let signing = jwt::Signing::generate(jwt::Algorithm::ES256).unwrap().signing;
    let clients = clients(&format!(
        "clients: {{ bot: {{ owner: o, assertion-keys: [{}] }}, web: {{ owner: o }} }}",
        signing.public_jwk()
    ));
    let now = at(NOW);
    let assertion = |changes: Value| {
        let mut claims = json!({
            "iss": "bot", "sub": "bot", "aud": "http://127.0.0.1:8787/oauth/token", "jti": "1",
            "exp": now.as_second() + 60, "iat": now.as_second(),
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        signing.sign("JWT", claims.as_object().unwrap()).unwrap()
    };
    let mint = async |assertion: String, client: Option<&str>| {
        let proof = ClientProof::Assertion { client: client.map(str::to_owned), assertion: assertion.into() };
        let request = TokenRequest { proof, ..request(&NewKey::new("k1", [7; 32])) };
        match before.mint(&clients, &request, None, None, now).await {
            Ok(_) => "minted",
            Err(TokenRefusal::Client(refusal)) => refusal.code(),
            Err(other) => other.code(),
        }
    };
    assert_eq!(mint(assertion(json!({})), None).await, "minted");
    assert_eq!(mint(assertion(json!({})), None).await, "assertion_used");
    assert_eq!(mint(assertion(json!({ "jti": "2" })), Some("web")).await, "token_of_no_client");
    let refused = [
        (json!({ "iss": "web", "sub": "web" }), "unknown_kid"),
        (json!({ "jti": "3", "aud": "http://127.0.0.1:8787/mcp" }), "audience"),
        (json!({ "jti": "4", "exp": now.as_second() - 60 }), "expired"),
        (json!({ "jti": "5", "exp": now.as_second() + 86_400 }), "lifetime"),
        (json!({ "jti": "6", "sub": "web" }), "subject"),
        (json!({ "iss": "nobody", "sub": "nobody" }), "token_of_no_client"),
    ];
    for (changes, code) in refused {
        assert_eq!(mint(assertion(changes.clone()), None).await, code, "{changes}");
    }
    // Nor is it taken where the process began anew.
    drop(before);
    let (after, _) = identities(folder.path()).await;
    let proof = ClientProof::Assertion { client: None, assertion: assertion(json!({})).into() };
    let request = TokenRequest { proof, ..request(&NewKey::new("k1", [7; 32])) };
    let again = after.mint(&clients, &request, None, None, now);
    assert!(matches!(again.await, Err(TokenRefusal::Client(IdentityError::Replayed))));
}

#[tokio::test]
async fn a_session_is_its_principals_own_and_there_are_not_more_than_may_be() {
    let gate = Minting::new().await;
    let proof = Proof::bearer(gate.key.key());
    let bot = gate.identities.authenticate(&gate.clients, &proof, None, at(NOW)).await.unwrap();
    let for_ann = gate.mint(&TokenRequest { user: Some("ann".into()), ..request(&gate.key) }).await.unwrap();
    let ann = gate.shown(&for_ann, NOW).await.unwrap();
    let session = gate.identities.begin_session(&bot, at(NOW)).await.unwrap();
    assert!(gate.identities.session(&bot, &session, at(NOW)).await.is_ok());
    for (caller, id) in [(&ann, session.as_str()), (&bot, "0123"), (&bot, "")] {
        let refusal = gate.identities.session(caller, id, at(NOW)).await.unwrap_err();
        assert_eq!(refusal.code(), "unknown_run");
    }
    for _ in 1..256 {
        gate.identities.begin_session(&bot, at(NOW)).await.unwrap();
    }
    let refusal = gate.identities.begin_session(&bot, at(NOW)).await.unwrap_err();
    assert!(matches!(refusal, SessionError::OfClient { .. }), "{refusal}");
    assert!(gate.identities.begin_session(&ann, at(NOW)).await.is_err(), "the client's, whoever the user is");
}
