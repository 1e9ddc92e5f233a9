//! `callgate call`: one call through all guards.

use std::{path::Path, process::ExitCode};

use clap::{ArgGroup, Args};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    output::{BAD, DIM, GOOD, Printer},
    target::asked,
};
use crate::{
    app::App,
    call::{Call, Origin, Outcome, Proof, Transport},
    gateway::{Notice, Reply},
    manifest::ClientName,
    strict::{self, Bounds},
};

/// What `call` takes.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("caller").args(["client", "key_env"]).required(true))]
pub(super) struct Arguments {
    /// The tool's name; or `resource:URI`, or `prompt:NAME`.
    tool: String,
    /// The client that calls; one with `stdio: true`, since nothing proves here who calls.
    #[arg(long)]
    client: Option<ClientName>,
    /// The environment variable that holds the API key of the client that calls.
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
    /// The arguments of the tool or the prompt, as a JSON object.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = parse_arguments)]
    args: Map<String, Value>,
}

/// Reads a JSON object.
pub(super) fn parse_arguments(text: &str) -> Result<Map<String, Value>, String> {
    let refuse =
        |error: &dyn std::fmt::Display| format!("not a JSON object that is read in one way only: {error}");
    strict::scan(text.as_bytes(), Bounds::REQUEST).map_err(|fault| refuse(&fault))?;
    serde_json::from_str(text).map_err(|error| refuse(&error))
}

pub(super) async fn run(printer: &Printer, config: &Path, arguments: Arguments) -> ExitCode {
    let proof = match (&arguments.client, &arguments.key_env) {
        (Some(client), _) => Proof::asserted(client.clone()),
        (None, Some(name)) => match std::env::var(name) {
            Ok(key) => Proof::bearer(key),
            Err(_) => return printer.fail(&format!("the environment variable `{name}` is not set")),
        },
        (None, None) => Proof::default(),
    };
    let kind = match asked(&arguments.tool, arguments.args) {
        Ok(kind) => kind,
        Err(error) => return printer.fail(&error),
    };
    let app = match App::open_with(config, "call", printer.secrets()).await {
        Ok(app) => app,
        Err(error) => return printer.fail_open(&error),
    };
    let cancel = CancellationToken::new();
    let origin = Origin { transport: Transport::Cli, source: None };
    let call = Call::now(kind, proof, origin, cancel.clone());
    let gateway = app.gateway.clone();
    let running = tokio::spawn(async move { gateway.call(call).await });
    tokio::pin!(running);
    let reply = tokio::select! {
        reply = &mut running => reply,
        _ = tokio::signal::ctrl_c() => {
            cancel.cancel(); // the call ends on record, and then we do
            running.await
        }
    };
    app.give_back().await;
    app.gateway.audit().close();
    match reply {
        Ok(reply) => print(printer, &reply),
        Err(_) => printer.fail("the call ended unexpectedly; its record says how far it came"),
    }
}

fn print(printer: &Printer, reply: &Reply) -> ExitCode {
    let Reply { id, outcome, body } = reply;
    let record = id.map_or_else(|| "not on record".to_owned(), |id| format!("record {id}"));
    if printer.is_json() {
        let (answer, message) = match body {
            Ok(answer) => (Some(answer.value()), None),
            Err(Notice::Unknown(message) | Notice::Refused { message, .. }) => (None, Some(message)),
        };
        printer.value(&json!({ "call": id, "outcome": outcome, "answer": answer, "message": message }));
    } else {
        match body {
            Ok(answer) => {
                printer.value(answer.value());
                for removal in &answer.removed {
                    printer.note(&format!("{DIM}fields labelled `{}` are not shown{DIM:#}", removal.label));
                }
                printer.note(&format!("{GOOD}{outcome}{GOOD:#} {DIM}({record}){DIM:#}"));
            }
            Err(Notice::Unknown(message) | Notice::Refused { message, .. }) => {
                printer.note(&format!("{BAD}{outcome}:{BAD:#} {message} {DIM}({record}){DIM:#}"));
            }
        }
    }
    if *outcome == Outcome::Allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_two_readers_read_differently_are_refused() {
        assert!(parse_arguments(r#"{"id":"x"}"#).is_ok());
        insta::assert_snapshot!(
            parse_arguments(r#"{"id":"x","id":"y"}"#).unwrap_err(),
            @"not a JSON object that is read in one way only: duplicate key at byte 10"
        );
        assert!(parse_arguments("[]").is_err());
    }
}
