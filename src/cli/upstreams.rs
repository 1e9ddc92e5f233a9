//! `callgate upstreams`.

use std::{path::Path, process::ExitCode};

use clap::Args;
use serde_json::Value;

use super::{
    admin::{AdminArguments, AdminClient},
    output::{BAD, Printer},
    runs::{items, text},
    visible::visible,
};

/// What `upstreams` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    admin: AdminArguments,
}

pub(super) async fn run(printer: &Printer, config: &Path, arguments: &Arguments) -> ExitCode {
    match list(printer, config, &arguments.admin).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => printer.fail(&error),
    }
}

async fn list(printer: &Printer, config: &Path, admin: &AdminArguments) -> Result<(), String> {
    let answer =
        AdminClient::new(admin, config)?.get("/v1/upstreams", &[("/upstreams", Value::is_array)]).await?;
    if printer.is_json() {
        printer.value(&answer);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = items(&answer, "upstreams").map(row).collect();
    printer.table(&["upstream", "state", "protocol", "last checked", "tools", "in quarantine"], &rows);
    for upstream in items(&answer, "upstreams") {
        for tool in
            items(upstream, "tools").filter(|tool| tool.get("quarantine").is_some_and(Value::is_object))
        {
            quarantine(printer, upstream, tool);
        }
    }
    Ok(())
}

fn row(upstream: &Value) -> Vec<String> {
    let tools: Vec<&Value> = items(upstream, "tools").collect();
    let quarantined =
        tools.iter().filter(|tool| tool.get("quarantine").is_some_and(Value::is_object)).count();
    let state = match text(upstream, "/state/why") {
        why if why.is_empty() => text(upstream, "/state/is"),
        why => format!("{}: {}", text(upstream, "/state/is"), visible(&why)),
    };
    vec![
        text(upstream, "/name"),
        state,
        text(upstream, "/state/version"),
        text(upstream, "/checked"),
        tools.len().to_string(),
        quarantined.to_string(),
    ]
}

fn quarantine(printer: &Printer, upstream: &Value, tool: &Value) {
    let (name, why) = (text(tool, "/name"), text(tool, "/quarantine/why"));
    let since = text(tool, "/quarantine/since");
    let upstream = text(upstream, "/name");
    printer.line(&format!("\n{BAD}quarantined:{BAD:#} `{name}` of `{upstream}` since {since}: {why}"));
    let Some(difference) = tool.pointer("/quarantine/difference").filter(|found| found.is_object()) else {
        if matches!(why.as_str(), "changed" | "instructions") {
            printer.line("  what was reviewed is not at hand: what changed cannot be shown");
        }
        return;
    };
    for place in items(difference, "places") {
        printer.line(&format!("  at {}", visible(&text(place, "/at"))));
        for (sign, key) in [("-", "/was"), ("+", "/now")] {
            let shown = text(place, key);
            if !shown.is_empty() {
                printer.line(&format!("    {sign} {}", visible(&shown)));
            }
        }
    }
    if let Some(more) = difference.get("more").and_then(Value::as_u64).filter(|more| *more > 0) {
        printer.line(&format!("  and {more} more places"));
    }
}
