//! `callgate revoke`.

use std::{path::Path, process::ExitCode};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    admin::{AdminArguments, AdminClient, Member, is_text},
    output::{DOUBT, GOOD, Printer},
    typed_key::refuse_key_as_name,
    visible::visible,
};
use crate::admin::is_like_a_token;

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

const REVOKED: [Member; 3] =
    [("/revoked/kind", is_text), ("/revoked/name", is_text), ("/known", Value::is_boolean)];

pub(super) async fn run(printer: &Printer, config: &Path, arguments: Arguments) -> ExitCode {
    let Arguments { kind, name, issuer, reason, admin } = arguments;
    if let (Kind::Key, Err(error)) = (kind, refuse_key_as_name(&name)) {
        return printer.fail(&error);
    }
    if matches!(kind, Kind::Token) && is_like_a_token(&name) {
        return printer
            .fail("a token is named by its `jti`, never by the token itself: that would stay good");
    }
    let mut body = json!({ "kind": kind.word(), "name": name, "reason": reason });
    if let (Some(issuer), Some(members)) = (&issuer, body.as_object_mut()) {
        members.insert("issuer".to_owned(), issuer.as_str().into());
    }
    let answer = match AdminClient::new(&admin, config) {
        Ok(client) => client.post("/v1/revoke", &body, &REVOKED).await,
        Err(error) => Err(error),
    };
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => return printer.fail(&error),
    };
    if let (Some(issuer), Some(revoked)) = (&issuer, answer.get_mut("revoked")) {
        // The listener says both of a token in one text.
        *revoked = json!({ "kind": kind.word(), "name": name, "issuer": issuer });
    }
    printer.report(&answer, || tell(printer, &answer, kind, &name, issuer.as_deref()));
    ExitCode::SUCCESS
}

fn tell(printer: &Printer, answer: &Value, kind: Kind, name: &str, issuer: Option<&str>) {
    let of = issuer.map(|issuer| format!(" of `{issuer}`")).unwrap_or_default();
    printer.line(&format!("{GOOD}revoked:{GOOD:#} {} `{}`{}", kind.word(), visible(name), visible(&of)));
    if answer.get("known") == Some(&false.into()) {
        let unknown = match issuer {
            Some(_) => "this server takes no tokens of that issuer: look for a typing error".to_owned(),
            None => format!("no {} of this name is known: look for a typing error", kind.word()),
        };
        printer.note(&format!("{DOUBT}{unknown}{DOUBT:#}"));
    }
}
