//! The admin listener, as commands talk to it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use http::{HeaderValue, Method, header};
use reqwest::Request;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::time::timeout;
use url::{Host, Url};

use crate::{
    credential::read_secret,
    egress::{Allowances, Egress, SendError, Way},
    manifest::{BaseUrl, EgressSpec, SecretRef},
    release::Project,
};

/// How a command finds the admin listener, and shows who runs it.
#[derive(Debug, Args)]
pub(super) struct AdminArguments {
    /// The admin listener, in place of the one in `callgate.yaml`.
    #[arg(long, value_name = "URL", env = "CALLGATE_ADMIN_URL")]
    admin_url: Option<String>,
    /// A file with the admin key, that only its owner can read. Left out, the key is in `CALLGATE_ADMIN_KEY`.
    #[arg(long, value_name = "FILE")]
    admin_key_file: Option<PathBuf>,
}

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How large it may be.
const ANSWER_BYTES_MAX: usize = 16 << 20;
const KEY_VARIABLE: &str = "CALLGATE_ADMIN_KEY";

/// The admin listener of a server that runs.
pub(super) struct AdminClient {
    base: Url,
    way: Way,
    key: SecretString,
}

impl AdminClient {
    /// Finds the listener and the key.
    ///
    /// # Errors
    /// When one of them is missing or cannot be used: what to do, in a line.
    pub(super) fn new(arguments: &AdminArguments, config: &Path) -> Result<Self, String> {
        let base = match &arguments.admin_url {
            Some(url) => {
                BaseUrl::parse(url).map_err(|error| format!("`--admin-url`: {error}"))?.url().clone()
            }
            None => of_project(config)?,
        };
        let is_here = match base.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if base.scheme() != "https" && !is_here {
            return Err(format!("`{base}` is not on this machine: the key would go there unencrypted"));
        }
        let reference = match &arguments.admin_key_file {
            Some(path) => SecretRef::File(path.clone()),
            None if std::env::var_os(KEY_VARIABLE).is_none() => {
                return Err(format!("no admin key: set `{KEY_VARIABLE}`, or pass `--admin-key-file`"));
            }
            None => SecretRef::Env(KEY_VARIABLE.to_owned()),
        };
        let key =
            read_secret(&reference, Path::new(".")).map_err(|error| format!("the admin key: {error}"))?;
        let egress = Egress::new(None).map_err(|error| error.to_string())?;
        let spec = EgressSpec { loopback: is_here, ..EgressSpec::default() };
        let allowances = Allowances::new(&spec).map_err(|_| "loopback cannot be allowed".to_owned())?;
        Ok(Self { base, way: egress.way(&allowances), key })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// When no server answers, or it refuses: why, in a line.
    pub(super) async fn get(&self, path: &str) -> Result<Value, String> {
        self.send(Method::GET, path, None).await
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// When no server answers, or it refuses: why, in a line.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.send(Method::POST, path, Some(body)).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let url = self.base.join(path).map_err(|error| format!("`{}`: {error}", self.base))?;
        let mut request = Request::new(method, url);
        let shown = format!("Bearer {}", self.key.expose_secret());
        let mut shown =
            HeaderValue::from_str(&shown).map_err(|_| "the admin key holds characters that no key has")?;
        shown.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, shown);
        if let Some(body) = body {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_string().into());
        }
        let answered = timeout(ANSWER_MAX, self.exchange(request)).await;
        answered.map_err(|_| format!("{} does not answer", self.base))?
    }

    async fn exchange(&self, request: Request) -> Result<Value, String> {
        let mut response = self.way.send(request).await.map_err(|error| self.unreached(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| format!("{} broke off", self.base))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(format!("{} answers with more than can be shown", self.base));
            }
        }
        let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
        if status.is_success() {
            return answer.ok_or_else(|| format!("{} is no admin listener", self.base));
        }
        if status == http::StatusCode::UNAUTHORIZED {
            return Err(format!("{} does not take the admin key", self.base));
        }
        let message = answer.as_ref().and_then(|answer| answer.pointer("/error/message")?.as_str());
        Err(message.map_or_else(|| format!("{} is no admin listener", self.base), str::to_owned))
    }

    fn unreached(&self, error: &SendError) -> String {
        match error {
            SendError::Http(error) if error.is_connect() => {
                format!("no server answers at {}: does `callgate serve` run there?", self.base)
            }
            SendError::Http(_) => format!("{} broke off", self.base),
            SendError::Refused { refusal, .. } => format!("{} may not be called: {refusal}", self.base),
        }
    }
}

/// Where the project's file says that the listener is.
fn of_project(config: &Path) -> Result<Url, String> {
    let project = Project::read(config);
    let listener = project.files.as_ref().map(|files| files.server.1.listen.admin.as_ref());
    match listener {
        Some(Some(admin)) if admin.address.socket().port() == 0 => {
            Err("the system chooses the admin listener's port: pass `--admin-url`".to_owned())
        }
        Some(Some(admin)) => {
            Url::parse(&format!("http://{}/", admin.address.socket())).map_err(|error| error.to_string())
        }
        Some(None) => Err(format!(
            "`{}` has no `listen: admin:`; `callgate keys new --admin NAME` makes a key for one",
            config.display()
        )),
        None => {
            Err(format!("`{}` does not load; pass `--admin-url`, or run `callgate check`", config.display()))
        }
    }
}
