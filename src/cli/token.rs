//! `callgate token`: asks a server's token endpoint for an access token.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use http::{HeaderValue, Method, header};
use reqwest::Request;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::{
    output::{DIM, Printer},
    remote::Remote,
    typed_key::{refuse_admin_key, refuse_key_as_file},
};
use crate::{
    credential::read_secret,
    manifest::{ClientName, SecretRef},
    release::Project,
};

/// What `token` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The client that the token is for.
    client: ClientName,
    /// The server, in place of the one that `identity: resource:` of `callgate.yaml` names.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A file with the client's API key, that only its owner can read. Left out, the key is in `CALLGATE_KEY`.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A scope that the token is to have. Left out, all that the client has.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// A tool that is to be left, or a glob such as `orders.*`. Left out, all that the client has.
    #[arg(long = "tool", value_name = "TOOL")]
    tools: Vec<String>,
    /// The user that the token stands for.
    #[arg(long)]
    user: Option<String>,
    /// A destination that the run may reach.
    #[arg(long = "destination", value_name = "DESTINATION")]
    destinations: Vec<String>,
    /// The run to go on in. Left out, a new one begins.
    #[arg(long, conflicts_with_all = ["destinations", "run_lifetime"])]
    run: Option<String>,
    /// How long the new run may last, in seconds.
    #[arg(long, value_name = "SECONDS")]
    run_lifetime: Option<u64>,
}

const KEY_VARIABLE: &str = "CALLGATE_KEY";

pub(super) async fn run(printer: &Printer, config: &Path, arguments: Arguments) -> ExitCode {
    match ask(config, &arguments).await {
        Ok(answer) => {
            show(printer, &answer);
            ExitCode::SUCCESS
        }
        Err(message) => printer.fail(&message),
    }
}

/// Refuses a value that is empty, as that of a variable is that was not set: it would leave everything.
fn refuse_empty(arguments: &Arguments) -> Result<(), String> {
    let lists = [
        ("--scope", &arguments.scopes),
        ("--tool", &arguments.tools),
        ("--destination", &arguments.destinations),
    ];
    let singles = [("--user", &arguments.user), ("--run", &arguments.run)];
    let all = lists.into_iter().flat_map(|(option, values)| values.iter().map(move |value| (option, value)));
    let all = all.chain(singles.into_iter().filter_map(|(option, value)| Some((option, value.as_ref()?))));
    for (option, value) in all {
        if value.trim().is_empty() {
            return Err(format!("`{option}` is empty: give it a value, or leave it out"));
        }
    }
    Ok(())
}

async fn ask(config: &Path, arguments: &Arguments) -> Result<Value, String> {
    refuse_empty(arguments)?;
    let remote = match &arguments.url {
        Some(url) => Remote::typed("--url", url)?,
        None => of_project(config)?,
    };
    arguments.key_file.as_deref().map_or(Ok(()), |file| refuse_key_as_file("--key-file", file))?;
    let reference = match &arguments.key_file {
        Some(path) => SecretRef::File(path.clone()),
        None if std::env::var_os(KEY_VARIABLE).is_none() => {
            return Err(format!("no API key: set `{KEY_VARIABLE}`, or pass `--key-file`"));
        }
        None => SecretRef::Env(KEY_VARIABLE.to_owned()),
    };
    let key = read_secret(&reference, Path::new(".")).map_err(|error| format!("the API key: {error}"))?;
    refuse_admin_key(&key)?;
    let mut request = Request::new(Method::POST, remote.endpoint("/oauth/token")?);
    let headers = request.headers_mut();
    headers.insert(header::AUTHORIZATION, basic(&arguments.client, &key)?);
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(header::CONTENT_TYPE, form);
    *request.body_mut() = Some(body(arguments).into());
    let (status, answer) = remote.ask(request).await?;
    let answer = answer.ok_or_else(|| {
        format!("{} has no token endpoint: say `identity: tokens: {{}}` there", remote.base())
    })?;
    if status.is_success() {
        let is_text =
            |name: &str| answer.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        let is_token = is_text("access_token")
            && answer
                .get("token_type")
                .and_then(Value::as_str)
                .is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"))
            && answer.get("expires_in").is_some_and(Value::is_u64)
            && answer.get("scope").is_some_and(Value::is_string)
            && is_text("callgate_run");
        let other = || format!("what answers at {} is no callgate token endpoint", remote.base());
        return if is_token { Ok(answer) } else { Err(other()) };
    }
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    match (text("error"), text("error_description")) {
        (Some("invalid_client"), _) => Err(format!(
            "{} does not take this key as one of `{}`: it is wrong, expired, revoked or another client's",
            remote.base(),
            arguments.client
        )),
        (Some(error), Some(message)) => Err(format!("{error}: {message}")),
        (Some(error), None) => Err(error.to_owned()),
        _ => Err(format!("{} has no token endpoint: say `identity: tokens: {{}}` there", remote.base())),
    }
}

/// RFC 6749 §2.3.1: both parts are form-encoded first.
fn basic(client: &ClientName, key: &SecretString) -> Result<HeaderValue, String> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client.as_str()), encoded(key.expose_secret()));
    let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
    let mut value = value.map_err(|_| "the API key holds characters that no key has")?;
    value.set_sensitive(true);
    Ok(value)
}

fn body(arguments: &Arguments) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if !arguments.scopes.is_empty() {
        form.append_pair("scope", &arguments.scopes.join(" "));
    }
    for tool in &arguments.tools {
        form.append_pair("callgate_tool", tool);
    }
    for destination in &arguments.destinations {
        form.append_pair("callgate_destination", destination);
    }
    let lifetime = arguments.run_lifetime.map(|seconds| seconds.to_string());
    let single = [
        ("callgate_user", &arguments.user),
        ("callgate_run", &arguments.run),
        ("callgate_run_lifetime", &lifetime),
    ];
    for (name, value) in single {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    form.finish()
}

fn of_project(config: &Path) -> Result<Remote, String> {
    let project = Project::read(config);
    let Some(files) = &project.files else {
        return Err(format!("`{}` does not load; pass `--url`, or run `callgate check`", config.display()));
    };
    let resource = files
        .server
        .1
        .identity
        .resource
        .as_ref()
        .ok_or_else(|| format!("`{}` has no `identity: resource:`; pass `--url`", config.display()))?;
    Remote::at(resource.url().clone())
}

/// The token alone on standard output, so that it can be put into a variable.
fn show(printer: &Printer, answer: &Value) {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    if printer.is_json() {
        printer.value(answer);
        return;
    }
    printer.line(text("access_token"));
    let seconds = answer.get("expires_in").and_then(Value::as_u64).unwrap_or_default();
    let (run, scope) = (text("callgate_run"), text("scope"));
    printer.note(&format!("{DIM}run {run}, for {seconds} s, scopes: {scope}{DIM:#}"));
}
