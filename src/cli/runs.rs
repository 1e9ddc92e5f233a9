//! `callgate runs`.

use std::{path::Path, process::ExitCode};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    admin::{AdminArguments, AdminClient},
    output::{GOOD, Printer},
};

/// What `runs` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the live runs, and what they have seen.
    List {
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// End a run: what it has seen is erased, and nothing bound to it is let in any more.
    End {
        /// The run's id.
        run: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        admin: AdminArguments,
    },
}

pub(super) async fn run(printer: &Printer, config: &Path, arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::List { admin } => list(printer, config, &admin).await,
        Command::End { run, reason, admin } => end(printer, config, &admin, &run, &reason).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => printer.fail(&error),
    }
}

async fn list(printer: &Printer, config: &Path, admin: &AdminArguments) -> Result<(), String> {
    let answer = AdminClient::new(admin, config)?.get("/v1/runs", &[("/runs", Value::is_array)]).await?;
    printer.report(&answer, || {
        let rows: Vec<Vec<String>> = items(&answer, "runs").map(row).collect();
        printer.table(&["run", "whose", "kind", "last used", "expires", "has seen"], &rows);
        more(printer, &answer, rows.len());
    });
    Ok(())
}

fn row(run: &Value) -> Vec<String> {
    let user = text(run, "/user/subject");
    let whose = if user.is_empty() { text(run, "/client") } else { text(run, "/client") + " for " + &user };
    let labels: Vec<&str> = items(run, "labels").filter_map(Value::as_str).collect();
    vec![
        text(run, "/id"),
        whose,
        text(run, "/kind"),
        text(run, "/used"),
        text(run, "/expires"),
        labels.join(", "),
    ]
}

async fn end(
    printer: &Printer,
    config: &Path,
    admin: &AdminArguments,
    run: &str,
    reason: &str,
) -> Result<(), String> {
    let body = json!({ "run": run, "reason": reason });
    let answer =
        AdminClient::new(admin, config)?.post("/v1/runs/end", &body, &[("/ended", Value::is_object)]).await?;
    printer.report(&answer, || printer.line(&format!("{GOOD}ended:{GOOD:#} run `{run}`")));
    Ok(())
}

/// The items of a list in an answer.
pub(super) fn items<'a>(answer: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    answer.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

/// A member that is text; nothing where there is none.
pub(super) fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Says where not all of a list was sent.
pub(super) fn more(printer: &Printer, answer: &Value, shown: usize) {
    let total = answer.get("total").and_then(Value::as_u64).and_then(|total| usize::try_from(total).ok());
    if let Some(left) = total.and_then(|total| total.checked_sub(shown)).filter(|left| *left > 0) {
        printer.note(&format!("{left} more are not shown"));
    }
}
