//! `callgate demo`: an API, the gate in front of it, and a client that tries its luck.
//!
//! Nothing is pretended: the API is the example's, the client is a real MCP
//! client over HTTP, and each line is shown only as far as its record says so.

#[path = "../../examples/orders_api/api.rs"]
mod api;
mod project;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicU64},
};

use clap::Args;
use rmcp::{
    RoleClient, ServiceExt as _,
    model::{CallToolRequestParams, JsonObject},
    service::RunningService,
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::output::{BAD, DIM, GOOD, Printer};
use crate::{
    app::App,
    audit::reader::{self, ReadError},
    manifest::HttpListener,
    transport::HttpServer,
};

/// What `demo` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Leave the project and its state in this folder, to look at.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// One thing that the client tries, and how it should end.
struct Attempt {
    what: &'static str,
    tool: &'static str,
    arguments: Value,
    outcome: &'static str,
    code: Option<&'static str>,
    /// Something that has to be in what the client is told, or in the record.
    shows: &'static str,
}

fn attempts() -> [Attempt; 6] {
    let order = "ord_7f3k2m9q";
    [
        Attempt {
            what: "read an order",
            tool: "orders.get",
            arguments: json!({ "order_id": order }),
            outcome: "allowed",
            code: None,
            shows: "support-may-read",
        },
        Attempt {
            what: "cancel it: not on the client's allowlist",
            tool: "orders.cancel",
            arguments: json!({ "order_id": order }),
            outcome: "denied",
            code: Some("not_listed"),
            shows: "unknown tool `orders.cancel`",
        },
        Attempt {
            what: "refund `../../admin`",
            tool: "refunds.create",
            arguments: json!({ "order_id": "../../admin", "amount": 1200 }),
            outcome: "denied",
            code: Some("arguments"),
            shows: "/order_id",
        },
        Attempt {
            what: "refund 150.00 without a reason",
            tool: "refunds.create",
            arguments: json!({ "order_id": order, "amount": 15_000 }),
            outcome: "denied",
            code: Some("not_permitted"),
            shows: "large-refunds-need-a-reason",
        },
        Attempt {
            what: "read an order that the API garbles",
            tool: "orders.get",
            arguments: json!({ "order_id": api::BROKEN_ORDER }),
            outcome: "withheld",
            code: Some("output_schema"),
            shows: "output_schema",
        },
        Attempt {
            what: "refund 12.00",
            tool: "refunds.create",
            arguments: json!({ "order_id": order, "amount": 1200, "reason": "damaged" }),
            outcome: "allowed",
            code: None,
            shows: "support-may-refund",
        },
    ]
}

pub(super) async fn run(printer: &Printer, arguments: Arguments) -> ExitCode {
    let (folder, kept) = match arguments.keep {
        Some(folder) => (folder, true),
        None => (std::env::temp_dir().join(format!("callgate-demo-{}", std::process::id())), false),
    };
    if std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return printer.fail(&format!("`{}` is not empty: nothing was written", folder.display()));
    }
    let shown = tokio::select! {
        shown = show(printer, &folder, kept) => shown,
        _ = tokio::signal::ctrl_c() => Err("stopped by Ctrl-C".into()),
    };
    if !kept {
        // What cannot be removed from the temporary folder is left to the system.
        let _ = std::fs::remove_dir_all(&folder);
    }
    match shown {
        Ok(true) => {
            close(printer, kept.then_some(folder.as_path()));
            ExitCode::SUCCESS
        }
        Ok(false) => printer.fail("something did not end as it should"),
        Err(message) => printer.fail(&message),
    }
}

/// Runs all attempts. True when each ended as it should.
async fn show(printer: &Printer, folder: &Path, kept: bool) -> Result<bool, String> {
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let token = hex_token()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| format!("no port is free: {error}"))?;
    let orders = listener.local_addr().map_err(|error| error.to_string())?;
    let (hits, api_token, api_stop) =
        (Arc::new(AtomicU64::new(0)), token.clone(), stop.clone().cancelled_owned());
    tokio::spawn(async move { api::serve(listener, &api_token, hits, api_stop).await });

    let demo = project::write(folder, orders, &token)
        .map_err(|error| format!("cannot write to `{}`: {error}", folder.display()))?;
    let app = App::open(&demo.config, "serve").await.map_err(|error| error.to_string())?;
    let settings = HttpListener { address: ([127, 0, 0, 1], 0).into(), ..HttpListener::default() };
    let server = HttpServer::bind(settings, folder).await.map_err(|error| error.to_string())?;
    let url = format!("http://{}/mcp", server.address());
    tokio::spawn(server.serve(Arc::clone(&app.gateway), stop.clone()));
    let client = connect(&url, &demo.key).await?;

    if !printer.is_json() {
        printer
            .line(&format!("{DIM}an orders API on http://{orders}, the gate in front of it on {url}{DIM:#}"));
    }
    let tools = client.list_all_tools().await.map_err(|error| format!("the client cannot list: {error}"))?;
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    if !printer.is_json() {
        printer.line(&format!("the client `support-bot` sees: {}\n", names.join(", ")));
    }
    let mut all = true;
    let mut results = Vec::new();
    for attempt in attempts() {
        let told = attempt_call(&client, &attempt).await;
        let record = last_outcome(&demo.state)?;
        let holds = holds(&attempt, &told, &record);
        all &= holds;
        if printer.is_json() {
            results.push(json!({ "tried": attempt.what, "holds": holds, "told": told, "record": record }));
        } else {
            print(printer, &attempt, &told, &record, holds);
        }
    }
    if printer.is_json() {
        let state = kept.then_some(&demo.state);
        printer.value(&json!({ "tools": names, "calls": results, "as_it_should": all, "state": state }));
    }
    // The client's own end is of no interest any more.
    let _ = client.cancel().await;
    stop.cancel();
    app.gateway.audit().close();
    Ok(all)
}

fn hex_token() -> Result<String, String> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no random bytes".to_owned())?;
    Ok(hex::encode(random))
}

async fn connect(
    url: &str,
    key: &str,
) -> Result<RunningService<RoleClient, rmcp::model::ClientConfig>, String> {
    let config = StreamableHttpClientTransportConfig::with_uri(url.to_owned()).auth_header(key.to_owned());
    let transport = StreamableHttpClientTransport::from_config(config);
    let mut client = rmcp::model::ClientConfig::default();
    client.protocol_version = rmcp::model::ProtocolVersion::LATEST_WITH_INITIALIZE;
    client.serve(transport).await.map_err(|error| format!("the client cannot connect: {error}"))
}

/// What the client is told.
async fn attempt_call(
    client: &RunningService<RoleClient, rmcp::model::ClientConfig>,
    attempt: &Attempt,
) -> String {
    let arguments: JsonObject = attempt.arguments.as_object().cloned().unwrap_or_default();
    let request = CallToolRequestParams::new(attempt.tool).with_arguments(arguments);
    match client.call_tool(request).await {
        Ok(result) => result
            .content
            .iter()
            .filter_map(|part| part.as_text().map(|text| text.text.clone()))
            .collect::<Vec<_>>()
            .join(" "),
        Err(rmcp::ServiceError::McpError(error)) => error.message.into_owned(),
        Err(error) => error.to_string(),
    }
}

/// The last outcome in the log, and its place: the record of the call that was just answered.
fn last_outcome(state: &Path) -> Result<Value, String> {
    let failed = |error: ReadError| format!("the record cannot be read: {error}");
    for log in reader::logs(state).map_err(failed)? {
        let records: Vec<_> = log.last(RECORDS_OF_CALL_MAX).and_then(Iterator::collect).map_err(failed)?;
        for found in records.into_iter().rev() {
            let record: Value = serde_json::from_slice(&found.bytes).map_err(|error| error.to_string())?;
            if record.get("record").is_some_and(|kind| kind == "outcome") {
                return Ok(json!({ "place": format!("{}/{}", log.name(), found.index), "record": record }));
            }
        }
    }
    Err("there is no record".to_owned())
}

/// A call leaves an intent and an outcome, and others may have come between.
const RECORDS_OF_CALL_MAX: u64 = 16;

fn holds(attempt: &Attempt, told: &str, record: &Value) -> bool {
    record.pointer("/record/call/target").is_some_and(|target| target == attempt.tool)
        && record.pointer("/record/outcome").is_some_and(|outcome| outcome == attempt.outcome)
        && record.pointer("/record/code").and_then(Value::as_str) == attempt.code
        && (told.contains(attempt.shows) || record.to_string().contains(attempt.shows))
}

fn print(printer: &Printer, attempt: &Attempt, told: &str, record: &Value, holds: bool) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let fact = |pointer: &str| {
        record.get("record").and_then(|record| record.pointer(pointer)).map_or_else(String::new, text)
    };
    let style = if holds { GOOD } else { BAD };
    let mark = if holds { "✓" } else { "✗" };
    printer.line(&format!(
        "{style}{mark} {:<8}{style:#} {}: {}",
        fact("/outcome"),
        attempt.tool,
        attempt.what
    ));
    printer.line(&format!("    told    {}", shorten(told)));
    let policies =
        record.pointer("/record/decision/policies").and_then(Value::as_array).into_iter().flatten();
    let policies: Vec<String> = policies.filter_map(|policy| policy.get("id").map(text)).collect();
    let mut facts = vec![record.get("place").map_or_else(String::new, text)];
    facts.extend(record.pointer("/record/stage").map(|stage| format!("stage {}", text(stage))));
    facts.extend(record.pointer("/record/detail").map(text));
    if !policies.is_empty() {
        facts.push(format!("policy {}", policies.join(", ")));
    }
    facts.extend(record.pointer("/record/removed").map(|removed| format!("removed {removed}")));
    printer.line(&format!("    {DIM}record  {}{DIM:#}", facts.join("; ")));
}

/// The first line's worth of what the client is told.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 100;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARS_MAX).chain("…".chars()).collect()
}

fn close(printer: &Printer, kept: Option<&Path>) {
    if printer.is_json() {
        return;
    }
    let program = std::env::args().next().unwrap_or_else(|| "callgate".into());
    let program = word(&program);
    if let Some(folder) = kept {
        let state = folder.join("state");
        let state = word(&state.to_string_lossy()).into_owned();
        printer.line(&format!(
            "\nthe project and its record are in `{}`; to read and to verify it:",
            folder.display()
        ));
        printer.line(&format!("  {program} audit tail --state {state}"));
        printer.line(&format!("  {program} audit verify --state {state}"));
    } else {
        printer.line("\nthe record is gone with the demo; to keep one, and to be told how to read it:");
        printer.line(&format!("  {program} demo --keep demo"));
    }
    printer.line("\nnext, a project of your own:");
    printer.line(&format!("  {program} init my-gate"));
    printer.line(&format!("  {program} serve --config my-gate/callgate.yaml"));
}

/// A text as a shell takes it for one word.
fn word(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}
