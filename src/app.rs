//! The composition root: a project on disk becomes a gate that works.

mod upstreams;

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    audit::{
        Audit, Keys, LogError, Witnessing,
        witness::{Witness, WitnessKey},
    },
    backend::Backends,
    credential::{CredentialError, LiveSecrets, read_secret},
    egress::{Allowances, Egress, EgressError, Registered},
    gateway::Gateway,
    identity::Identities,
    manifest::{Problem, RecordSpec, SecretRef, WitnessSpec},
    release::Project,
    rounds::Rounds,
    rules::Secrets,
    runs::{Runs, RunsError},
    store::{KeyFileError, StateError, StateFolder, Store},
    upstream::{EndpointFault, Upstreams},
};

/// Why a project does not become a gate.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its files are wrong.
    #[error("the project does not load")]
    Problems(Vec<Problem>),
    /// Its state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its runs and revocations cannot be read.
    #[error(transparent)]
    Runs(#[from] RunsError),
    /// Its log cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A secret of the record cannot be read.
    #[error("the record's key: {0}")]
    Secret(#[from] CredentialError),
    /// The key of calls that are continued cannot be used.
    #[error(transparent)]
    Rounds(#[from] KeyFileError),
    /// An upstream cannot be reached at all.
    #[error(transparent)]
    Upstream(#[from] EndpointFault),
    /// Connections cannot be made.
    #[error(transparent)]
    Egress(#[from] EgressError),
}

/// A gate, with the project it was made of.
#[derive(Debug)]
pub struct App {
    /// The gate.
    pub gateway: Arc<Gateway>,
    /// The project.
    pub project: Project,
    /// What is doubtful about it.
    pub warnings: Vec<Problem>,
    /// The runs, revocations and run-time keys of its state folder.
    pub runs: Arc<Runs>,
    /// The other MCP servers whose tools it offers.
    pub upstreams: Upstreams,
    /// Who cosigns the record.
    witnesses: Vec<Witness>,
    /// The way to what has to be given back.
    egress: Egress,
    /// Where `callgate.yaml` says that the gate listens, so that no call goes there.
    _listener: Option<Registered>,
}

impl App {
    /// Opens the project whose `callgate.yaml` is at `config`, with a log of the given kind.
    ///
    /// # Errors
    /// When its files are wrong, or its state cannot be used.
    pub async fn open(config: &Path, kind: &'static str) -> Result<Self, OpenError> {
        Self::open_with(config, kind, &LiveSecrets::default()).await
    }

    /// The same, with its secrets in a registry that others search too.
    ///
    /// # Errors
    /// When its files are wrong, or its state cannot be used.
    pub async fn open_with(config: &Path, kind: &'static str, live: &LiveSecrets) -> Result<Self, OpenError> {
        let project = Project::read(config);
        let (rules, problems) = project.build_with(Secrets::Required, live);
        let (Some(rules), Some(state)) = (rules, project.state()) else {
            return Err(OpenError::Problems(problems));
        };
        let folder = StateFolder::prepare(&state)?;
        let runs = Runs::open(Store::open(&folder).await?).await?;
        let server = project.files.as_ref().map(|files| &files.server.1);
        let record = server.map(|server| server.record.clone()).unwrap_or_default();
        let keys = keys(&record, project.base())?;
        let audit = Audit::open(&folder, kind, &rules.digest, &record, &keys)?;
        let egress = Egress::new(server.and_then(|server| server.dns.as_ref()))?;
        // Another process of this project may serve there, while this one speaks over stdio.
        let listener = server.map(|server| server.listen.http.address).filter(|address| address.port() != 0);
        let listener = listener.map(|address| egress.listeners().register(address));
        let witnesses = witnesses(&record, &egress);
        let identity = server.map(|server| server.identity.clone()).unwrap_or_default();
        let identities = Identities::new(Arc::clone(&runs), &identity, &egress);
        let (notices, noted) = mpsc::channel(upstreams::NOTICES_MAX);
        let upstreams = Upstreams::start(upstreams::pinned(&project, &egress, live)?, &notices);
        let backends = Backends::new(egress.clone(), upstreams.clone());
        let rounds = Rounds::open(&folder, Arc::clone(&runs))?;
        let gateway = Gateway::new(rules, Arc::clone(&runs), identities, audit, backends, rounds);
        let gateway = Arc::new(gateway.keeping(server.map(|server| server.tasks).unwrap_or_default()));
        tokio::spawn(upstreams::put_on_record(noted, Arc::downgrade(&gateway)));
        Ok(Self {
            gateway,
            project,
            warnings: problems,
            runs,
            upstreams,
            witnesses,
            egress,
            _listener: listener,
        })
    }

    /// Begins to take the record to its witnesses: for a process that serves.
    #[must_use]
    pub fn witnessing(&self) -> Option<Witnessing> {
        let witnesses = self.witnesses.clone();
        (!witnesses.is_empty()).then(|| self.gateway.audit().witnessed_by(witnesses))
    }

    /// Gives back what vaults have lent, and ends upstreams, once no call is left that uses them.
    pub async fn give_back(&self) {
        self.upstreams.close().await;
        self.gateway.rules().routes.credentials().close(&self.egress).await;
    }

    /// Ends runs by time, and puts that on record, until the answer is dropped: for a process that serves.
    pub fn sweeping(&self) -> AbortOnDropHandle<()> {
        let (gateway, runs) = (Arc::clone(&self.gateway), Arc::clone(&self.runs));
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                sweep(&gateway, &runs, Timestamp::now()).await;
            }
        }))
    }
}

/// How often runs are ended by time.
const SWEEP: Duration = Duration::from_secs(10);

async fn sweep(gateway: &Gateway, runs: &Runs, now: Timestamp) {
    let ended = runs.sweep(now).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "runs are not ended by time");
        Vec::new()
    });
    for run in ended {
        gateway.put_end("callgate".into(), &run).await;
    }
}

/// The witnesses, whose keys and egress were checked with the project's other files.
fn witnesses(record: &RecordSpec, egress: &Egress) -> Vec<Witness> {
    let witness = |spec: &WitnessSpec| {
        let key = WitnessKey::parse(&spec.key).ok()?;
        let way = egress.way(&Allowances::new(&spec.egress).ok()?);
        Some(Witness { key, prefix: spec.url.url().clone(), way })
    };
    record.witnesses.iter().filter_map(witness).collect()
}

/// The record's secrets, read from where the operator says they are.
fn keys(record: &RecordSpec, base: &Path) -> Result<Keys, CredentialError> {
    let read = |reference: &Option<SecretRef>| {
        reference.as_ref().map(|reference| read_secret(reference, base)).transpose()
    };
    Ok(Keys {
        origin: record.origin.clone(),
        checkpoint: read(&record.key)?,
        previous: record.previous_keys.clone(),
        bodies: read(&record.bodies.key)?,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::atomic::Ordering};

    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        audit::reader::logs,
        identity::NewKey,
        manifest::{ClientName, HttpListener},
        runs::Principal,
        transport::HttpServer,
    };

    const SERVER: &str = "services: { s: { url: \"http://127.0.0.1:1/\", egress: { loopback: true } } }\n";
    const TOOL: &str = "tool: t.write
description: writes
effects: write
input: { type: object, additionalProperties: false }
output: { type: object }
backend: { http: { service: s, method: POST, path: / } }
";

    fn project(folder: &Path, key: &NewKey) {
        fs::create_dir_all(folder.join("tools")).unwrap();
        fs::create_dir_all(folder.join("policies")).unwrap();
        let clients = format!(
            "clients: {{ bot: {{ owner: o, tools: [t.*], keys: [{{ id: k1, sha256: \"{}\", expires: 2099-01-01 }}] }} }}\n",
            key.sha256()
        );
        fs::write(folder.join("callgate.yaml"), SERVER).unwrap();
        fs::write(folder.join("tools/t.yaml"), TOOL).unwrap();
        fs::write(folder.join("policies/clients.yaml"), clients).unwrap();
        fs::write(folder.join("policies/tools.yaml"), "unlisted: trust-claims\n").unwrap();
        fs::write(folder.join("policies/p.cedar"), "permit (principal, action, resource);\n").unwrap();
    }

    async fn call(url: &str, key: &NewKey) -> Value {
        let request =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "t.write" } });
        let response = reqwest::Client::new()
            .post(url)
            .bearer_auth(key.key())
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .json(&request);
        response.send().await.unwrap().json().await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_in_a_stage_is_an_outcome_on_record_and_the_server_goes_on() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let key = NewKey::new("k1", [3; 32]);
        project(folder.path(), &key);
        let app = App::open(&folder.path().join("callgate.yaml"), "serve").await.unwrap();
        let settings = HttpListener { address: ([127, 0, 0, 1], 0).into(), ..HttpListener::default() };
        let server = HttpServer::bind(settings, folder.path()).await.unwrap();
        let url = format!("http://{}/mcp", server.address());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.serve(Arc::clone(&app.gateway), stop.clone()));

        app.gateway.fault.store(true, Ordering::Relaxed);
        let reply = call(&url, &key).await;
        assert_eq!(reply["result"]["isError"], true, "{reply}");
        assert_eq!(reply["result"]["content"][0]["text"], "internal error");
        app.gateway.fault.store(false, Ordering::Relaxed);
        let reply = call(&url, &key).await;
        assert_eq!(reply["result"]["content"][0]["text"], "backend failed", "{reply}");

        stop.cancel();
        serving.await.unwrap();
        app.gateway.audit().close();
        let logs = logs(&folder.path().join("state")).unwrap();
        let records: Vec<Value> = logs[0]
            .records(0)
            .unwrap()
            .map(|found| serde_json::from_slice(&found.unwrap().bytes).unwrap())
            .collect();
        let shown: Vec<(&str, &str)> = records
            .iter()
            .map(|record| (record["record"].as_str().unwrap(), record["code"].as_str().unwrap_or("")))
            .collect();
        // The intent of a write is on record before it could leave, so its end is unknown after a panic.
        assert_eq!(
            shown,
            [
                ("start", ""),
                ("intent", ""),
                ("outcome", "panic"),
                ("intent", ""),
                ("outcome", "backend_unreachable")
            ]
        );
        assert_eq!(records[2]["outcome"], "unknown");
        assert_eq!(records[4]["outcome"], "failed");
    }

    #[tokio::test]
    async fn a_run_that_ends_by_time_is_on_record() {
        let folder = tempfile::tempdir().unwrap();
        project(folder.path(), &NewKey::new("k1", [3; 32]));
        let app = App::open(&folder.path().join("callgate.yaml"), "serve").await.unwrap();
        let bot = Principal::client(ClientName::parse("bot").unwrap());
        let now = Timestamp::now();
        let run = app.runs.default_run(&bot, now).await.unwrap().id();
        for minutes in [29, 30, 31] {
            sweep(&app.gateway, &app.runs, now + jiff::SignedDuration::from_mins(minutes)).await;
        }
        app.gateway.audit().close();
        let logs = logs(&folder.path().join("state")).unwrap();
        let records = logs[0].records(0).unwrap().map(|found| found.unwrap().bytes);
        let records: Vec<Value> = records.map(|bytes| serde_json::from_slice(&bytes).unwrap()).collect();
        let changes: Vec<_> = records.iter().filter(|record| record["record"] == "change").collect();
        let [change] = changes[..] else { panic!("{records:#?}") };
        assert_eq!(change["outcome"], "allowed");
        let change = &change["change"];
        assert_eq!(
            (&change["act"], &change["actor"], &change["reason"]),
            (&json!("end-run"), &json!("callgate"), &json!("idle"))
        );
        assert_eq!(change["what"], format!("run {run}"));
    }
}
