//! `callgate connect`: how an application is told of the server.

mod application;
mod file;
mod merge;

use std::{
    env,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use self::{
    application::{Application, Reach},
    file::ConfigFile,
    merge::{Entry, alone, merge},
};
use super::{
    output::{DIM, GOOD, Printer},
    remote::typed_endpoint,
    typed_key::{refuse_key_as_file, refuse_key_as_variable},
    visible::visible,
};
use crate::{
    manifest::{ClientName, ClientSpec},
    release::Project,
};

/// What `connect` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The application.
    #[arg(value_enum)]
    application: Application,
    /// The server's name there.
    #[arg(long, default_value = "callgate")]
    name: String,
    /// The URL of the server, in place of the one that `callgate.yaml` names.
    #[arg(long, conflicts_with = "stdio")]
    url: Option<String>,
    /// Have the application start `callgate stdio` on this project, as the client that `--client` names.
    #[arg(long, requires = "client")]
    stdio: bool,
    /// The client that is asserted, with `--stdio`.
    #[arg(long, requires = "stdio")]
    client: Option<ClientName>,
    /// The environment variable in which the application finds the API key.
    #[arg(long, value_name = "VARIABLE", default_value = "CG_TOKEN")]
    key_env: String,
    /// The file in which a bridge finds the API key. For applications that start their servers themselves.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key_env", "stdio"])]
    key_file: Option<PathBuf>,
    /// Write it into the application's file. What else is in there stays, and the file as it was is kept beside.
    #[arg(long)]
    write: bool,
    /// With `--write`: take the place of another server of that name.
    #[arg(long, requires = "write")]
    replace: bool,
    /// The folder that the file is in: the project's, in place of this one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The file.
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    file: Option<PathBuf>,
}

pub(super) fn run(printer: &Printer, config: &Path, arguments: &Arguments) -> ExitCode {
    match connect(printer, config, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => printer.fail(&message),
    }
}

fn connect(printer: &Printer, config: &Path, arguments: &Arguments) -> Result<(), String> {
    let application = arguments.application;
    refuse_bad_names(arguments)?;
    let entry = application.entry(&arguments.name, &reach(config, arguments)?);
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => application.file(arguments.dir.as_deref())?,
    };
    if arguments.write {
        write(printer, arguments, &file, entry)
    } else {
        show(printer, arguments, &file, &entry)
    }
}

fn show(printer: &Printer, arguments: &Arguments, file: &Path, entry: &Entry) -> Result<(), String> {
    let application = arguments.application;
    let text = alone(application.form(), entry).map_err(|error| error.to_string())?;
    if printer.is_json() {
        let input = entry.input.as_ref().map(|(input, _)| input.json());
        printer.value(&json!({
            "application": application.title(), "file": file, "servers": entry.servers,
            "name": entry.name, "server": entry.server.json(), "input": input, "text": text
        }));
        return Ok(());
    }
    printer.note(&format!("{DIM}for `{}`; `--write` puts it there{DIM:#}", file.display()));
    printer.line(text.trim_end());
    advise(printer, arguments);
    Ok(())
}

/// Changes the file, and shows what it put there: nothing of what else is in it, which may be somebody's secrets.
fn write(printer: &Printer, arguments: &Arguments, file: &Path, mut entry: Entry) -> Result<(), String> {
    let form = arguments.application.form();
    let shown = file.display();
    let there = ConfigFile::read(file)?;
    let merged = merge(form, there.text(), &entry, arguments.replace)
        .map_err(|error| format!("`{shown}` is left as it is: {error}"))?;
    let is_changed = merged.text != there.text();
    let backup = if is_changed { there.replace(&merged.text)? } else { None };
    entry.input = entry.input.filter(|_| merged.asks);
    if printer.is_json() {
        let server = is_changed.then(|| entry.server.json());
        let input = entry.input.as_ref().map(|(input, _)| input.json());
        printer.value(&json!({
            "file": file, "changed": is_changed, "replaced": merged.replaced, "backup": backup,
            "servers": entry.servers, "name": entry.name, "server": server, "input": input
        }));
        return Ok(());
    }
    if !is_changed {
        printer.line(&format!("nothing to do: `{shown}` has `{}` already", entry.name));
        return Ok(());
    }
    let text = alone(form, &entry).map_err(|error| error.to_string())?;
    text.lines().for_each(|line| printer.line(&format!("{GOOD}{}{GOOD:#}", visible(line))));
    let place = if merged.replaced { ", in place of another server of this name" } else { "" };
    printer.line(&format!("written to `{shown}`{place}"));
    if let Some(backup) = backup {
        printer.line(&format!("the rest of it is as it was; all of it as it was: `{}`", backup.display()));
    }
    advise(printer, arguments);
    Ok(())
}

fn refuse_bad_names(arguments: &Arguments) -> Result<(), String> {
    let name = &arguments.name;
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    if !(1..=64).contains(&name.len()) || !name.chars().all(is_plain) {
        return Err("`--name` takes letters, digits, `-` and `_`, 64 at most".to_owned());
    }
    refuse_key_as_variable("--key-env", &arguments.key_env)?;
    arguments.key_file.as_deref().map_or(Ok(()), |file| refuse_key_as_file("--key-file", file))
}

fn reach(config: &Path, arguments: &Arguments) -> Result<Reach, String> {
    if let Some(client) = arguments.client.as_ref().filter(|_| arguments.stdio) {
        let config =
            config.canonicalize().map_err(|error| format!("cannot read `{}`: {error}", config.display()))?;
        refuse_unservable(&config, client)?;
        let words = ["stdio", "--client", client.as_str(), "--config"];
        let arguments = words.into_iter().map(str::to_owned).chain([utf8(&config)?]).collect();
        return Ok(Reach::Program { command: own_path()?, arguments });
    }
    let url = match &arguments.url {
        Some(url) => typed_endpoint("--url", url)?.to_string(),
        None => of_project(config)?,
    };
    if arguments.key_file.is_none() && !arguments.application.is_local_only() {
        return Ok(Reach::Http { url, key_env: arguments.key_env.clone() });
    }
    let key = match &arguments.key_file {
        Some(file) => {
            let file = std::path::absolute(file).map_err(|error| error.to_string())?;
            ["--key-file".to_owned(), utf8(&file)?]
        }
        None => ["--key-env".to_owned(), arguments.key_env.clone()],
    };
    let words = ["stdio".to_owned(), "--connect".to_owned(), url];
    Ok(Reach::Program { command: own_path()?, arguments: words.into_iter().chain(key).collect() })
}

/// Refuses a client that `callgate stdio` would refuse: nobody looks at what an application makes of that.
fn refuse_unservable(config: &Path, client: &ClientName) -> Result<(), String> {
    let project = Project::read(config);
    let Some(files) = &project.files else {
        return Err(format!("`{}` does not load; run `callgate check`", config.display()));
    };
    let clients = &files.clients.1.clients;
    let may = match clients.get(client) {
        Some(ClientSpec { stdio: true, .. }) => return Ok(()),
        Some(_) => format!("client `{client}` may not be claimed by a local process: it lacks `stdio: true`"),
        None => format!("unknown client `{client}`"),
    };
    let others: Vec<String> =
        clients.iter().filter(|(_, spec)| spec.stdio).map(|(name, _)| format!("`{name}`")).collect();
    let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
    Err(format!("{may}; clients with `stdio: true`: {others}"))
}

/// Where the project's file says that clients find the server.
fn of_project(config: &Path) -> Result<String, String> {
    let project = Project::read(config);
    let Some(files) = &project.files else {
        return Err(format!("`{}` does not load; pass `--url`, or run `callgate check`", config.display()));
    };
    let server = &files.server.1;
    if let Some(resource) = &server.identity.resource {
        return Ok(resource.as_str().to_owned());
    }
    let listener = &server.listen.http;
    if listener.address.port() == 0 {
        return Err("the system chooses the server's port: pass `--url`".to_owned());
    }
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let address = here(listener.address);
    typed_endpoint("--url", &format!("{scheme}://{address}/mcp")).map(String::from).map_err(|_| {
        format!("clients of `{}` need a URL that names it over TLS: pass `--url`", config.display())
    })
}

/// A server that listens at every address is found on this machine.
fn here(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(given) if given.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, given.port()).into(),
        SocketAddr::V6(given) if given.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, given.port()).into(),
        other => other,
    }
}

fn own_path() -> Result<String, String> {
    let path = env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    utf8(&path)
}

fn utf8(path: &Path) -> Result<String, String> {
    path.to_str().map(str::to_owned).ok_or_else(|| format!("`{}` is not UTF-8", path.display()))
}

/// Says what is left to do by hand.
fn advise(printer: &Printer, arguments: &Arguments) {
    if let Some(advice) = advice(arguments) {
        printer.note(&format!("{DIM}{advice}{DIM:#}"));
    }
}

fn advice(arguments: &Arguments) -> Option<String> {
    let title = arguments.application.title();
    match (arguments.application, &arguments.key_file) {
        _ if arguments.stdio => None,
        (_, Some(file)) => {
            Some(format!("the key goes into `{}`, which only you may read (mode 0600)", file.display()))
        }
        (Application::Vscode, None) => Some(format!("{title} asks for the key once, and keeps it")),
        (Application::ClaudeDesktop, None) => Some(format!(
            "{title} finds the key in its environment as `{}`; where it has none of yours, pass `--key-file`",
            arguments.key_env
        )),
        (_, None) => Some(format!("{title} finds the key in its environment as `{}`", arguments.key_env)),
    }
}
