//! `callgate revoke`.

use std::{path::Path, process::ExitCode};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    admin::{AdminArguments, AdminClient},
    output::{DOUBT, GOOD, Printer},
};

/// What `revoke` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What kind of thing.
    kind: Kind,
    /// Its name: a client's name, a key's id, a token's `jti`, a run's id.
    name: String,
    /// Who issued the token.
    #[arg(long, required_if_eq("kind", "token"))]
    issuer: Option<String>,
    /// Why, for the record.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    admin: AdminArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A client, with all its keys, tokens and users.
    Client,
    /// An API key.
    Key,
    /// One token.
    Token,
    /// A run, which ends.
    Run,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Key => "key",
            Self::Token => "token",
            Self::Run => "run",
        }
    }
}

pub(super) async fn run(printer: &Printer, config: &Path, arguments: Arguments) -> ExitCode {
    let Arguments { kind, name, issuer, reason, admin } = arguments;
    let mut body = json!({ "kind": kind.word(), "name": name, "reason": reason });
    if let (Some(issuer), Some(members)) = (issuer, body.as_object_mut()) {
        members.insert("issuer".to_owned(), issuer.into());
    }
    let answer = match AdminClient::new(&admin, config) {
        Ok(client) => client.post("/v1/revoke", &body).await,
        Err(error) => Err(error),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return printer.fail(&error),
    };
    printer.report(&answer, || {
        printer.line(&format!("{GOOD}revoked:{GOOD:#} {} `{name}`", kind.word()));
        if answer.get("known") == Some(&false.into()) {
            printer.note(&format!("{DOUBT}no {} of this name is known{DOUBT:#}", kind.word()));
        }
    });
    ExitCode::SUCCESS
}
