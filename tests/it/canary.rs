//! Where secrets go: each to where it belongs, and to no other place.
//!
//! Every secret of a run holds the same mark, so that one search for the mark, in all the forms that text is
//! written in, finds each of them wherever it is. Where one belongs, it is taken out before the search, once and in
//! the one place where it has to be.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{
    certificates::Authority,
    gate::{ERAS, Era, records},
    listening::{Listening, Said, administered},
    project::{Project, tool},
    tap::{Arrived, Reply, Tap},
};

/// Stands in every secret of these tests.
const MARK: &str = "Cnry7xQ2LeakMark";
const CALLS: usize = 1_000;
const WORKERS: usize = 8;

/// A secret of a name.
fn canary(name: &str) -> String {
    format!("{MARK}{}{name}", hex::encode(&Sha256::digest(name)[..4]))
}

/// What is searched for, in all its forms, by the first eight bytes of each.
#[derive(Default)]
struct Needles(HashMap<[u8; 8], Vec<(Vec<u8>, String)>>);

impl Needles {
    fn add(&mut self, name: &str, text: &str) {
        let bytes = text.as_bytes();
        self.form(format!("{name} as it is"), bytes.to_vec());
        self.form(format!("{name} as hex"), hex::encode(bytes).into_bytes());
        self.form(format!("{name} as upper-case hex"), hex::encode_upper(bytes).into_bytes());
        let percent = |hex: String| {
            let pairs = hex.as_bytes().chunks(2);
            pairs.flat_map(|pair| [b'%', pair[0], pair[1]]).collect::<Vec<u8>>()
        };
        self.form(format!("{name} percent-encoded"), percent(hex::encode(bytes)));
        self.form(format!("{name} percent-encoded in upper case"), percent(hex::encode_upper(bytes)));
        let lower = text.to_lowercase();
        if lower != text {
            self.form(format!("{name} in lower case"), lower.into_bytes());
        }
        let mut codes = Vec::new();
        for offset in 0..3 {
            // Only the characters to which nothing but the text itself contributes.
            let padded = [vec![0; offset], bytes.to_vec()].concat();
            for engine in [&general_purpose::STANDARD_NO_PAD, &general_purpose::URL_SAFE_NO_PAD] {
                let code = engine.encode(&padded);
                let (from, to) = ((offset * 8).div_ceil(6), padded.len() * 8 / 6);
                codes.push((format!("{name} as base64 at {offset}"), code[from..to].to_owned()));
            }
        }
        codes.dedup_by(|one, other| one.1 == other.1);
        for (name, code) in codes {
            self.form(name, code.into_bytes());
        }
    }

    fn form(&mut self, name: String, bytes: Vec<u8>) {
        let first = bytes[..8].try_into().unwrap();
        self.0.entry(first).or_default().push((bytes, name));
    }

    /// What occurs, with what follows it.
    fn found(&self, hay: &[u8]) -> Vec<String> {
        let mut may_begin = vec![false; 1 << 16];
        for first in self.0.keys() {
            may_begin[usize::from(u16::from_le_bytes([first[0], first[1]]))] = true;
        }
        let mut found = Vec::new();
        for (at, eight) in hay.windows(8).enumerate() {
            if !may_begin[usize::from(u16::from_le_bytes([eight[0], eight[1]]))] {
                continue;
            }
            for (bytes, name) in self.0.get(eight).into_iter().flatten() {
                if hay[at..].starts_with(bytes) {
                    let around = &hay[at.saturating_sub(80)..(at + 120).min(hay.len())];
                    found.push(format!("{name}: {}", String::from_utf8_lossy(around)));
                }
            }
        }
        found
    }
}

/// The secrets that hold the mark.
fn marked() -> Needles {
    let mut needles = Needles::default();
    needles.add("a canary", MARK);
    needles
}

#[test]
fn the_search_finds_a_secret_in_every_form_and_at_every_place() {
    let (needles, secret) = (marked(), canary("x"));
    let forms = |before: &str| {
        let text = format!("{before}{secret}");
        let percent = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        [
            text.clone(),
            hex::encode(&text),
            hex::encode_upper(&text),
            percent(&text),
            percent(&text).to_lowercase(),
            general_purpose::STANDARD.encode(&text),
            general_purpose::URL_SAFE_NO_PAD.encode(&text),
            serde_json::to_string(&text).unwrap(),
            text.to_lowercase(),
            url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
        ]
    };
    for before in ["", "a", "ab", "abc", "user:", "\u{ff}\u{0}"] {
        for form in forms(before) {
            for noise in [0, 1, 7, 1_000] {
                let hay = [vec![b'C'; noise], form.clone().into_bytes(), vec![b'y'; noise]].concat();
                assert!(!needles.found(&hay).is_empty(), "{form}");
            }
        }
    }
    assert!(needles.found(&[b'C'; 1_000]).is_empty());
    assert!(needles.found(&secret.as_bytes()[1..]).is_empty());
    assert!(needles.found(&secret.as_bytes()[..MARK.len() - 1]).is_empty());
}

/// Everything that a run left behind, by where it was found.
#[derive(Default)]
struct Haystacks(Vec<(String, Vec<u8>)>);

impl Haystacks {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    fn add_folder(&mut self, when: &str, folder: &Path) -> usize {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let add = |path: PathBuf| {
            if path.is_dir() {
                return self.add_folder(when, &path);
            }
            self.add(format!("{} {when}", path.display()), fs::read(&path).unwrap());
            1
        };
        entries.map(add).sum()
    }

    fn found(&self, needles: &Needles) -> Vec<String> {
        let in_one = |(place, bytes): &(String, Vec<u8>)| {
            needles.found(bytes).into_iter().map(|found| format!("{place}: {found}")).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(in_one).collect()
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

/// Takes out what belongs in a request: exactly once, in the line that it has to be in.
fn without(request: &[u8], line: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(request).into_owned();
    assert_eq!(text.matches(line).count(), 1, "`{line}` once in {text}");
    text.replacen(line, "\r\n", 1).into_bytes()
}

/// The servers that a gate talks to, and what belongs in a request to each.
struct World {
    bearer: Tap,
    basic: Tap,
    header: Tap,
    query: Tap,
    got: Tap,
    exchanged: Tap,
    kept: Tap,
    lent: Tap,
    tokens: Tap,
    exchange: Tap,
    vault: Tap,
    role_vault: Tap,
}

/// A service that behaves as the first segment of a path says.
async fn service() -> Tap {
    Tap::start(|number, request| {
        let reply = |status, body: Value| (Duration::ZERO, status, body.to_string());
        match request.target().split(['/', '?']).nth(1).unwrap_or_default() {
            "fail" => reply(500, json!({ "id": "broken" })),
            "deny" if number % 2 == 0 => reply(401, json!({ "id": "no" })),
            "slow" => (Duration::from_millis(400), 200, json!({ "id": "1" }).to_string()),
            "shape" => reply(200, json!({ "id": [1] })),
            _ => reply(200, json!({ "id": "1" })),
        }
    })
    .await
}

fn granted(token: &str) -> Reply {
    let body = json!({
        "access_token": token, "token_type": "Bearer", "expires_in": 60,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"
    });
    (Duration::ZERO, 200, body.to_string())
}

/// The claims of the token that is exchanged.
fn subject(request: &Arrived) -> Value {
    let text = request.text();
    let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
    let mut pairs = url::form_urlencoded::parse(body.as_bytes());
    let token = pairs.find(|(name, _)| name == "subject_token").unwrap().1.into_owned();
    let claims = general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

impl World {
    async fn start() -> Self {
        let kv = |password: String| json!({ "data": { "data": { "password": password, "other": canary("vaultother") }, "metadata": {} } });
        Self {
            bearer: service().await,
            basic: service().await,
            header: service().await,
            query: service().await,
            got: service().await,
            exchanged: service().await,
            kept: service().await,
            lent: service().await,
            tokens: Tap::start(|number, _| granted(&canary(&format!("got{number}")))).await,
            exchange: Tap::start(|number, request| {
                let name = subject(request)["sub"].as_str().unwrap().replace(|char: char| !char.is_alphanumeric(), "");
                granted(&canary(&format!("of{name}n{number}")))
            })
            .await,
            vault: Tap::start(move |_, _| (Duration::ZERO, 200, kv(canary("kept")).to_string())).await,
            role_vault: Tap::start(move |_, request| {
                let body = if request.target().contains("login") {
                    json!({ "auth": { "client_token": canary("session"), "lease_duration": 600, "renewable": true } })
                } else {
                    kv(canary("lent"))
                };
                (Duration::ZERO, 200, body.to_string())
            })
            .await,
        }
    }

    fn services(&self) -> [(&'static str, &Tap); 8] {
        [
            ("bearer", &self.bearer),
            ("basic", &self.basic),
            ("header", &self.header),
            ("query", &self.query),
            ("got", &self.got),
            ("exchanged", &self.exchanged),
            ("kept", &self.kept),
            ("lent", &self.lent),
        ]
    }

    /// All that has reached the servers, without what belongs there.
    fn received(&self, hay: &mut Haystacks) -> usize {
        let mut count = 0;
        let basic = |user: &str, secret: &str| general_purpose::STANDARD.encode(format!("{user}:{secret}"));
        let mut add = |place: &str, tap: &Tap, belongs: &dyn Fn(&Arrived) -> String| {
            let requests = tap.requests();
            assert!(!requests.is_empty(), "{place} was asked");
            for request in &requests {
                hay.add(format!("what `{place}` received"), without(&request.bytes, &belongs(request)));
            }
            hay.add(format!("what was left at `{place}`"), tap.rest());
            count += requests.len();
        };
        let line = |name: &str, value: &str| format!("\r\n{name}: {value}\r\n");
        let bearer = |name: &str| line("authorization", &format!("Bearer {}", canary(name)));
        add("bearer", &self.bearer, &|_| bearer("bearer"));
        add("basic", &self.basic, &|_| {
            line("authorization", &format!("Basic {}", basic("gate", &canary("basic"))))
        });
        add("header", &self.header, &|_| line("x-api-key", &canary("header")));
        add("query", &self.query, &|_| format!("?key={} HTTP/1.1\r\n", canary("query")));
        add("kept", &self.kept, &|_| bearer("kept"));
        add("lent", &self.lent, &|_| bearer("lent"));
        let client = |name: &str| line("authorization", &format!("Basic {}", basic("gate", &canary(name))));
        add("tokens", &self.tokens, &|_| client("tokensecret"));
        add("vault", &self.vault, &|_| line("x-vault-token", &canary("vaulttoken")));
        let secret_id = canary("roleid");
        add("role vault", &self.role_vault, &|request| {
            if request.target().contains("login") {
                return format!("\"{secret_id}\"");
            }
            line("x-vault-token", &canary("session"))
        });
        let exchange_secret = format!("&client_secret={}", canary("exchangesecret"));
        add("exchange", &self.exchange, &|request| {
            // In the body, by the way that the credential says.
            let text = request.text();
            if text.contains(&exchange_secret) {
                exchange_secret.clone()
            } else {
                exchange_secret.replacen('&', "", 1)
            }
        });
        // Tokens that were got: any of those that the endpoint gave out.
        let issued = |name: String, line: &dyn Fn(&str) -> String, request: &Arrived| {
            (1..100_000)
                .map(|number| line(&format!("{name}{number}")))
                .find(|line| request.text().contains(line))
                .unwrap_or_else(|| panic!("no token in {}", request.text()))
        };
        add("got", &self.got, &|request| issued("got".into(), &bearer, request));
        // The path says for whom the call is, and the token has to be that one's.
        add("exchanged", &self.exchanged, &|request| {
            let path = request.target();
            issued(format!("ofclient{}n", path.rsplit('/').next().unwrap()), &bearer, request)
        });
        count
    }
}

/// Files that only their owner can open.
fn secrets(folder: &Path) -> impl Fn(&str, &str) -> Value {
    let folder = folder.to_owned();
    move |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        json!(format!("file:{}", path.display()))
    }
}

const BEHAVIOURS: [&str; 5] = ["ok", "fail", "deny", "slow", "shape"];

fn key_of(client: &str) -> String {
    format!("cg_{client}_{}", canary(&format!("key{client}")))
}

/// A project with a tool for each service and behaviour, and a credential of its own for each service.
fn project(world: &World, secret: &dyn Fn(&str, &str) -> Value) -> Project {
    let loopback = json!({ "loopback": true });
    let url = |tap: &Tap, path: &str| format!("http://{}/{path}", tap.address);
    let subject_key = Authority::new("subject").server().key;
    let credential = |name: &str, kind: Value| {
        let tools: Value = BEHAVIOURS.iter().map(|behaviour| format!("{name}.{behaviour}")).collect();
        json!({ "service": name, "tools": tools, "as": kind })
    };
    let at_hand = |name: &str| secret(name, &canary(name));
    let credentials = json!({
        "bearer": credential("bearer", json!({ "bearer": { "secret": at_hand("bearer") } })),
        "basic": credential("basic", json!({ "basic": { "username": "gate", "secret": at_hand("basic") } })),
        "header": credential("header", json!({ "header": { "name": "x-api-key", "secret": at_hand("header") } })),
        "query": credential("query", json!({ "query": { "name": "key", "secret": at_hand("query") } })),
        "kept": credential("kept", json!({ "bearer": { "secret": "vault:main/secret/data/app#password" } })),
        "lent": credential("lent", json!({ "bearer": { "secret": "vault:role/secret/data/app#password" } })),
        "got": credential("got", json!({ "client-credentials": {
            "token-url": url(&world.tokens, "token"), "client": "gate",
            "secret": at_hand("tokensecret"), "egress": loopback
        } })),
        "exchanged": credential("exchanged", json!({ "token-exchange": {
            "token-url": url(&world.exchange, "token"), "client": "gate", "auth": "post",
            "secret": at_hand("exchangesecret"), "egress": loopback,
            "subject": { "issuer": "https://gate.example.com", "key": secret("subject.pem", &subject_key), "alg": "ES256" }
        } }))
    });
    let vaults = json!({
        "main": { "url": url(&world.vault, ""), "token": at_hand("vaulttoken"), "egress": loopback, "refresh": "1s" },
        "role": { "url": url(&world.role_vault, ""), "egress": loopback, "refresh": "1s",
            "app-role": { "role-id": "r", "secret-id": secret("roleid", &canary("roleid")) } }
    });
    let mut project = Project::new()
        .policy("permit (principal, action, resource);")
        .server("credentials", credentials)
        .server("vaults", vaults)
        .server(
            "identity",
            json!({ "resource": "https://gate.example.com/mcp", "tokens": { "lifetime": "10min" } }),
        );
    for (name, tap) in world.services() {
        project = project.service(name, json!({ "url": url(tap, ""), "egress": { "loopback": true } }));
        for behaviour in BEHAVIOURS {
            let mut tool = tool(&format!("{name}.{behaviour}"), "read", behaviour);
            tool["backend"]["http"]["service"] = json!(name);
            tool["credential"] = json!(name);
            tool["record"] = json!("full");
            if behaviour == "slow" {
                tool["limits"] = json!({ "timeout": "150ms" });
            }
            project = project.tool(tool);
        }
    }
    for (client, expires) in [("alpha", "2100-01-01"), ("beta", "2100-01-01"), ("late", "2020-01-01")] {
        let digest = hex::encode(Sha256::digest(canary(&format!("key{client}"))));
        let keys = json!([{ "id": client, "sha256": digest, "expires": expires }]);
        let spec = json!({ "tools": ["*"], "keys": keys, "limits": { "rate": "1000000/s" } });
        project = project.client(client, spec);
    }
    project
}

/// The clients' side: what they show, and everything that they are answered.
struct Callers {
    http: reqwest::Client,
    mcp: String,
    /// What is shown, and whom it is for where it is good.
    shown: Vec<(String, Option<&'static str>)>,
    answers: Mutex<Vec<Vec<u8>>>,
    carried_out: Mutex<usize>,
}

/// An answer, as bytes that can be searched.
async fn whole(response: reqwest::Response) -> Vec<u8> {
    let head = format!("{} {:?}\n", response.status(), response.headers());
    [head.into_bytes(), response.bytes().await.unwrap().to_vec()].concat()
}

impl Callers {
    /// The n-th call of the mix.
    async fn call(&self, n: usize) {
        let services = ["bearer", "basic", "header", "query", "got", "exchanged", "kept", "lent"];
        let (shown, client) = &self.shown[n % self.shown.len()];
        // Strides without a common divisor: each caller meets each tool.
        let (service, behaviour) = (services[n % 8], BEHAVIOURS[(n / 8) % 5]);
        let id = client.unwrap_or("nobody");
        let (method, params) = match n % 11 {
            0 => ("tools/list", json!({})),
            1 => {
                ("tools/call", json!({ "name": format!("{service}.{behaviour}"), "arguments": { "id": 7 } }))
            }
            2 => ("tools/call", json!({ "name": "no.such", "arguments": {} })),
            _ => {
                ("tools/call", json!({ "name": format!("{service}.{behaviour}"), "arguments": { "id": id } }))
            }
        };
        let era = ERAS[(n / 3) % 2];
        let answer = whole(self.request(era, shown, n, method, params).send().await.unwrap()).await;
        let text = String::from_utf8_lossy(&answer);
        if client.is_none() {
            let refused = ["401", "400", "authentication failed"].iter().any(|word| text.contains(word));
            assert!(refused, "{text}");
        } else {
            assert!(!text.contains("authentication failed"), "{text}");
        }
        if text.contains("structuredContent") {
            *self.carried_out.lock().unwrap() += 1;
        }
        self.answers.lock().unwrap().push(answer);
    }

    fn request(
        &self,
        era: Era,
        shown: &str,
        n: usize,
        method: &str,
        params: Value,
    ) -> reqwest::RequestBuilder {
        // A stranger shows what it has in other places as well.
        let stray = shown.starts_with("stray-");
        let request = match (stray, n % 3) {
            (true, 0) => self.http.post(format!("{}?access_token={shown}", self.mcp)),
            (true, 1) => self.http.post(&self.mcp).header("Authorization", format!("Basic {shown}")),
            (true, _) => self.http.post(&self.mcp).header("X-Api-Key", shown).header("Cookie", shown),
            (false, _) => self.http.post(&self.mcp).bearer_auth(shown),
        };
        era.request(request, method, params)
    }
}

/// A token of a client, and all of the answer but it.
async fn minted(gate: &Listening, client: &str) -> (String, Vec<u8>) {
    let request = reqwest::Client::new()
        .post(format!("{}/oauth/token", gate.origin()))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .basic_auth(client, Some(key_of(client)))
        .body("grant_type=client_credentials&callgate_tool=*");
    let answer = whole(request.send().await.unwrap()).await;
    let text = String::from_utf8(answer).unwrap();
    let token = text.split("\"access_token\":\"").nth(1).unwrap_or_else(|| panic!("{text}"));
    let token = token.split('"').next().unwrap().to_owned();
    assert_eq!(text.matches(&token).count(), 1);
    let rest = text.replace(&token, "").into_bytes();
    (token, rest)
}

/// The parts of a token by which it can be known.
fn add_token(needles: &mut Needles, token: &str) {
    let parts: Vec<&str> = token.split('.').collect();
    needles.add("the claims of a caller's token", parts[1]);
    needles.add("the signature of a caller's token", parts[2]);
}

/// What strangers show: none of it is good, and all of it is secret.
fn strangers(good: &str) -> Vec<(String, Option<&'static str>)> {
    let claims = general_purpose::URL_SAFE_NO_PAD.encode(json!({ "sub": canary("forged") }).to_string());
    let (head, _) = good.split_once('.').unwrap();
    let all = [
        format!("cg_alpha_{}", canary("wrongsecret")),
        format!("cg_{}_{}", canary("unknownid"), canary("unknownsecret")),
        key_of("late"),
        format!("{head}.{claims}.{}", canary("signature")),
        format!("{}.{}.{}", canary("a"), canary("b"), canary("c")),
        canary("neither"),
        format!("stray-{}", canary("stray")),
    ];
    all.into_iter().map(|shown| (shown, None)).collect()
}

/// What the pages of the gate and its admin listener say, and what its commands print.
async fn pages(gate: &Listening, folder: &Path, admin_key: &str, hay: &mut Haystacks) {
    let http = reqwest::Client::new();
    let get = async |url: String| {
        let answer = http.request(Method::GET, &url).bearer_auth(admin_key).send().await.unwrap();
        (url, whole(answer).await)
    };
    for path in ["/livez", "/readyz", "/oauth/jwks", "/.well-known/oauth-authorization-server", "/metrics"] {
        let (url, bytes) = get(format!("{}{path}", gate.origin())).await;
        hay.add(url, bytes);
    }
    for path in ["v1/runs", "v1/keys", "v1/revocations"] {
        let (url, bytes) = get(format!("{}{path}", gate.admin)).await;
        assert!(bytes.starts_with(b"200"), "{url}");
        hay.add(url, bytes);
    }
    for arguments in [["runs", "list"], ["keys", "list"], ["audit", "export"]] {
        let printed = tokio::task::block_in_place(|| gate.command(folder, admin_key, &arguments));
        hay.add(format!("callgate {arguments:?}"), format!("{printed:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_thousand_mixed_calls_each_secret_goes_where_it_belongs_and_nowhere_else() {
    let (world, kept_apart, folder) =
        (World::start().await, TempDir::new().unwrap(), TempDir::new().unwrap());
    let project = project(&world, &secrets(kept_apart.path()));
    project.write(folder.path(), world.bearer.address, world.bearer.address);
    let admin_key = administered(folder.path(), json!({ "failures": "1000000/s" }));
    let gate = Listening::start(folder.path(), &[("CALLGATE_LOG", "trace"), ("RUST_LOG", "trace")]);
    let (mut hay, mut needles) = (Haystacks::default(), marked());
    needles.add("the admin key", admin_key.rsplit('_').next().unwrap());

    // Who calls: by a key of the file, a key that was made, and tokens.
    let mut shown = vec![(key_of("alpha"), Some("alpha")), (key_of("beta"), Some("beta"))];
    for client in ["alpha", "beta"] {
        let (token, rest) = minted(&gate, client).await;
        add_token(&mut needles, &token);
        hay.add("the answer of the token endpoint", rest);
        shown.push((token, Some(client)));
    }
    let made =
        tokio::task::block_in_place(|| gate.command(folder.path(), &admin_key, &["keys", "new", "beta"]));
    let made = made.good().trim().to_owned();
    needles.add("a key that was made", made.rsplit('_').next().unwrap());
    shown.push((made, Some("beta")));
    shown.extend(strangers(&shown[2].0.clone()));
    shown.push((key_of("alpha"), Some("alpha")));

    let callers = Arc::new(Callers {
        http: reqwest::Client::new(),
        mcp: gate.mcp.clone(),
        shown,
        answers: Mutex::default(),
        carried_out: Mutex::default(),
    });
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let callers = Arc::clone(&callers);
            tokio::spawn(async move {
                for n in (worker..CALLS).step_by(WORKERS) {
                    callers.call(n).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }

    for answer in std::mem::take(&mut *callers.answers.lock().unwrap()) {
        hay.add("an answer", answer);
    }
    pages(&gate, folder.path(), &admin_key, &mut hay).await;
    assert!(hay.add_folder("while it serves", folder.path()) > 10);
    let said = gate.stop();
    assert!(String::from_utf8_lossy(&said).contains("TRACE"), "the log is on");
    let said_bytes = said.len();
    hay.add("standard error", said);
    hay.add_folder("after it", folder.path());
    let records = records(folder.path(), "serve-0", 0);
    let outcomes = records.iter().filter(|record| record["record"] == "outcome").count();
    hay.add("the records", serde_json::to_vec(&records).unwrap());
    let received = world.received(&mut hay);
    let carried_out = *callers.carried_out.lock().unwrap();
    eprintln!(
        "{CALLS} calls, {carried_out} carried out, {received} requests at servers, {outcomes} outcomes on record, {said_bytes} bytes of log, {} bytes searched in {} places",
        hay.bytes(),
        hay.0.len()
    );
    assert!(carried_out > 80 && received > 250 && outcomes > 300);
    let found = hay.found(&needles);
    assert!(found.is_empty(), "{} leaks, the first ones: {:#?}", found.len(), &found[..found.len().min(8)]);

    // The same search, and the same servers, with leaks that are planted.
    plant(&world, &callers.shown[2].0).await;
    let mut planted = Haystacks::default();
    planted.add("standard error", heard_from_a_process(&canary("bearer")));
    let leaks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.received(&mut planted);
        planted.found(&needles)
    }));
    let leaks = leaks.unwrap();
    for expected in [
        "standard error: a canary as it is",
        "what `header` received: a canary as it is",
        "what `basic` received: a canary as base64",
        "what `query` received: the signature of a caller's token as it is",
        "what `query` received: the claims of a caller's token as it is",
    ] {
        assert!(leaks.iter().any(|leak| leak.starts_with(expected)), "{expected}: {leaks:#?}");
    }
}

/// Sends requests with what belongs there, and something that does not.
async fn plant(world: &World, token: &str) {
    let http = reqwest::Client::new();
    let basic = |user: &str, secret: &str| general_purpose::STANDARD.encode(format!("{user}:{secret}"));
    let requests = [
        http.get(format!("http://{}/ok/1", world.header.address))
            .header("x-api-key", canary("header"))
            .header("x-other", canary("bearer")),
        http.post(format!("http://{}/ok/1", world.basic.address))
            .header("authorization", format!("Basic {}", basic("gate", &canary("basic"))))
            .body(basic("somebody", &canary("tokensecret"))),
        http.get(format!("http://{}/ok/1?key={}", world.query.address, canary("query"))).bearer_auth(token),
    ];
    for request in requests {
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}

/// What a process says on standard error, heard as a gate's is.
fn heard_from_a_process(text: &str) -> Vec<u8> {
    let mut command = Command::new("sh");
    command.args(["-c", "echo \"a log line with $0\" >&2", text]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = Said::hear(Vec::new(), child.stderr.take().unwrap());
    child.wait().unwrap();
    said.whole()
}
