//! The admin listener, as commands talk to it.

use std::path::{Path, PathBuf};

use clap::Args;
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::Request;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

use super::{
    remote::Remote,
    typed_key::{refuse_key_as_file, refuse_other_than_admin_key},
};
use crate::{credential::read_secret, manifest::SecretRef, release::Project};

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

const KEY_VARIABLE: &str = "CALLGATE_ADMIN_KEY";

/// The admin listener of a server that runs.
pub(super) struct AdminClient {
    remote: Remote,
    key: SecretString,
}

impl AdminClient {
    /// Finds the listener and the key.
    ///
    /// # Errors
    /// When one of them is missing or cannot be used: what to do, in a line.
    pub(super) fn new(arguments: &AdminArguments, config: &Path) -> Result<Self, String> {
        let remote = match &arguments.admin_url {
            Some(url) => Remote::typed("--admin-url", url)?,
            None => Remote::at(of_project(config)?)?,
        };
        arguments
            .admin_key_file
            .as_deref()
            .map_or(Ok(()), |file| refuse_key_as_file("--admin-key-file", file))?;
        let reference = match &arguments.admin_key_file {
            Some(path) => SecretRef::File(path.clone()),
            None if std::env::var_os(KEY_VARIABLE).is_none() => {
                return Err(format!("no admin key: set `{KEY_VARIABLE}`, or pass `--admin-key-file`"));
            }
            None => SecretRef::Env(KEY_VARIABLE.to_owned()),
        };
        let key =
            read_secret(&reference, Path::new(".")).map_err(|error| format!("the admin key: {error}"))?;
        refuse_other_than_admin_key(&key)?;
        Ok(Self { remote, key })
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
        let mut request = Request::new(method, self.remote.endpoint(path)?);
        let shown = format!("Bearer {}", self.key.expose_secret());
        let mut shown =
            HeaderValue::from_str(&shown).map_err(|_| "the admin key holds characters that no key has")?;
        shown.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, shown);
        if let Some(body) = body {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_string().into());
        }
        let (status, answer) = self.remote.ask(request).await?;
        let base = self.remote.base();
        if status.is_success() {
            return answer.ok_or_else(|| format!("{base} is no admin listener"));
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(format!("{base} does not take the admin key"));
        }
        let message = answer.as_ref().and_then(|answer| answer.pointer("/error/message")?.as_str());
        Err(message.map_or_else(|| format!("{base} is no admin listener"), str::to_owned))
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
