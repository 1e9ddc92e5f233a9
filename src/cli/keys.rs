//! `callgate keys`.

use std::{path::Path, process::ExitCode};

use clap::{Args, Subcommand};
use jiff::{Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use serde_json::{Value, json};

use super::{
    admin::{AdminArguments, AdminClient, Member, is_text},
    output::{GOOD, Printer},
    runs::{items, more, text},
    typed_key::typed_key_id,
};
use crate::{admin::NewAdminKey, manifest::ClientName};

/// What `keys` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key. Its secret is shown once.
    New {
        /// The client that it is for.
        #[arg(required_unless_present = "admin")]
        client: Option<ClientName>,
        /// The day on which it no longer works (UTC), or a moment (RFC 3339). Left out, in 90 days.
        #[arg(long, value_name = "DAY")]
        expires: Option<String>,
        /// Make a key of the admin listener for this person instead. Needs no server: the key's digest is
        /// shown as it goes into `callgate.yaml`.
        #[arg(long, value_name = "NAME", conflicts_with = "client")]
        admin: Option<String>,
        #[command(flatten)]
        server: AdminArguments,
    },
    /// List the clients' keys, and when each was used last.
    List {
        #[command(flatten)]
        server: AdminArguments,
    },
    /// Make a new key for the client of an old one, which then expires.
    Rotate {
        /// The old key's id.
        id: String,
        /// For how many seconds the old key works on. Left out, for a day.
        #[arg(long, value_name = "SECONDS")]
        overlap_s: Option<u64>,
        /// When the new key expires.
        #[arg(long, value_name = "DAY")]
        expires: Option<String>,
        #[command(flatten)]
        server: AdminArguments,
    },
    /// Refuse a key from now on.
    Revoke {
        /// The key's id.
        id: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        server: AdminArguments,
    },
}

const MADE: [Member; 4] = [("/id", is_text), ("/client", is_text), ("/expires", is_text), ("/key", is_text)];

pub(super) async fn run(printer: &Printer, config: &Path, arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::New { admin: Some(name), expires, .. } => new_admin(printer, &name, expires.as_deref()),
        Command::New { client, expires, server, .. } => {
            let body = json!({ "client": client, "expires": expires });
            make(printer, config, &server, "/v1/keys", &body).await
        }
        Command::List { server } => list(printer, config, &server).await,
        Command::Rotate { id, overlap_s, expires, server } => {
            rotate(printer, config, &server, &id, overlap_s, expires.as_deref()).await
        }
        Command::Revoke { id, reason, server } => revoke(printer, config, &server, &id, &reason).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => printer.fail(&error),
    }
}

async fn rotate(
    printer: &Printer,
    config: &Path,
    server: &AdminArguments,
    id: &str,
    overlap_s: Option<u64>,
    expires: Option<&str>,
) -> Result<(), String> {
    let body = json!({ "id": typed_key_id(id)?, "overlap_s": overlap_s, "expires": expires });
    make(printer, config, server, "/v1/keys/rotate", &body).await
}

/// A key that a server makes: the key on standard output, what is said about it on standard error.
async fn make(
    printer: &Printer,
    config: &Path,
    server: &AdminArguments,
    path: &str,
    body: &Value,
) -> Result<(), String> {
    let answer = AdminClient::new(server, config)?.post(path, body, &MADE).await?;
    printer.report(&answer, || {
        let said = |pointer| text(&answer, pointer);
        let (id, client, expires) = (said("/id"), said("/client"), said("/expires"));
        printer.note(&format!(
            "{GOOD}made:{GOOD:#} key `{id}` of `{client}`, until {expires}; it is shown once"
        ));
        let old = said("/old/id");
        if !old.is_empty() {
            printer.note(&format!("key `{old}` works until {}", said("/old/expires")));
        }
        printer.line(&said("/key"));
    });
    Ok(())
}

fn new_admin(printer: &Printer, name: &str, expires: Option<&str>) -> Result<(), String> {
    if !(1..=128).contains(&name.len()) || name.chars().any(char::is_control) {
        return Err("the name is not 1 to 128 bytes of text".to_owned());
    }
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let expires = match expires {
        Some(day) => day.parse::<Date>().map_err(|_| format!("`{day}` is not a day such as `2027-06-30`"))?,
        None => today.saturating_add(90.days()),
    };
    if expires <= today {
        return Err(format!("an admin key that expires on `{expires}` (UTC) never works"));
    }
    let made = NewAdminKey::random().ok_or("the system gives no random bytes")?;
    let spec = json!({ "id": made.id, "name": name, "sha256": made.sha256, "expires": expires });
    let report = json!({ "key": made.key, "listen": { "admin": { "keys": [spec] } } });
    printer.report(&report, || tell_admin(printer, name, expires, &made));
    Ok(())
}

fn tell_admin(printer: &Printer, name: &str, expires: Date, made: &NewAdminKey) {
    printer.note(&format!(
        "{GOOD}made:{GOOD:#} admin key `{}` of `{name}`, until {expires}; it is shown once. In `callgate.yaml`:",
        made.id
    ));
    // JSON's way to write a text is YAML's, too.
    let name = Value::from(name);
    printer.note(&format!(
        "\nlisten:\n  admin:\n    keys:\n      - {{ id: {}, name: {name}, sha256: {}, expires: {expires} }}\n",
        made.id, made.sha256
    ));
    printer.line(&made.key);
}

async fn list(printer: &Printer, config: &Path, server: &AdminArguments) -> Result<(), String> {
    let answer = AdminClient::new(server, config)?.get("/v1/keys", &[("/keys", Value::is_array)]).await?;
    printer.report(&answer, || {
        let rows: Vec<Vec<String>> = items(&answer, "keys").map(row).collect();
        printer.table(&["client", "key", "from", "until", "last used"], &rows);
        more(printer, &answer, rows.len());
    });
    Ok(())
}

fn row(key: &Value) -> Vec<String> {
    let is_revoked = key.get("revoked") == Some(&true.into());
    let state = if is_revoked { "revoked".to_owned() } else { text(key, "/expires") };
    vec![text(key, "/client"), text(key, "/id"), text(key, "/from"), state, text(key, "/last_used")]
}

async fn revoke(
    printer: &Printer,
    config: &Path,
    server: &AdminArguments,
    id: &str,
    reason: &str,
) -> Result<(), String> {
    let id = typed_key_id(id)?;
    let body = json!({ "id": id, "reason": reason });
    let answer = AdminClient::new(server, config)?
        .post("/v1/keys/revoke", &body, &[("/revoked/name", is_text)])
        .await?;
    printer.report(&answer, || printer.line(&format!("{GOOD}revoked:{GOOD:#} key `{id}`")));
    Ok(())
}
