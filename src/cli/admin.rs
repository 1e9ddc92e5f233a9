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

/// A member that an answer of the listener has to have: where it is, and what it has to be.
pub(super) type Member = (&'static str, fn(&Value) -> bool);

/// Whether a value is a text with something in it.
pub(super) fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
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
    pub(super) async fn get(&self, path: &str, members: &[Member]) -> Result<Value, String> {
        self.send(Method::GET, path, None, members).await
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// When no server answers, or it refuses: why, in a line.
    pub(super) async fn post(&self, path: &str, body: &Value, members: &[Member]) -> Result<Value, String> {
        self.send(Method::POST, path, Some(body), members).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        members: &[Member],
    ) -> Result<Value, String> {
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
        let other = || format!("what answers at {base} is no callgate admin listener");
        if status.is_success() {
            // Anything can answer with JSON, and would be believed that access was taken away.
            return answer.filter(|answer| holds(answer, members)).ok_or_else(other);
        }
        if status == StatusCode::UNAUTHORIZED {
            return Err(format!("{base} does not take the admin key"));
        }
        let message = answer.as_ref().and_then(|answer| answer.pointer("/error/message")?.as_str());
        Err(message.map_or_else(other, str::to_owned))
    }
}

fn holds(answer: &Value, members: &[Member]) -> bool {
    members.iter().all(|(place, is_right)| answer.pointer(place).is_some_and(is_right))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_without_its_members_is_not_the_listeners() {
        let members: &[Member] = &[("/revoked/kind", is_text), ("/known", Value::is_boolean)];
        assert!(holds(&json!({ "revoked": { "kind": "key" }, "known": true }), members));
        for other in [json!({}), json!([]), json!({ "revoked": true, "known": true }), json!({ "ok": true })]
        {
            assert!(!holds(&other, members), "{other}");
        }
        let mistyped = json!({ "revoked": { "kind": "" }, "known": "true" });
        assert!(!holds(&mistyped, members));
    }
}
