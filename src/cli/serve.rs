//! `callgate serve` and `callgate stdio`.

use std::{net::SocketAddr, path::Path, process::ExitCode, sync::Arc};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{
    bridge::{self, BridgeArguments},
    output::{GOOD, Printer},
};
use crate::{
    admin::{AdminError, AdminServer},
    app::{App, OpenError},
    audit::Witnessing,
    call::Proof,
    manifest::{ClientName, HttpListener, LoopbackAddress, Problem, Severity},
    rules::Secrets,
    transport::{HttpServer, listener_problems, serve_stdio},
};

/// What `serve` takes.
#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// The address to listen on, in place of the one in `callgate.yaml`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The address of the admin listener, in place of the one in `callgate.yaml`: a second server on the
    /// same files needs its own.
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<LoopbackAddress>,
}

/// What `stdio` takes.
#[derive(Debug, Args)]
pub(super) struct StdioArguments {
    /// The client that is served, in place of the one in `callgate.yaml`.
    #[arg(long)]
    client: Option<ClientName>,
    #[command(flatten)]
    bridge: BridgeArguments,
}

pub(super) async fn serve(printer: &Printer, config: &Path, arguments: ServeArguments) -> ExitCode {
    let app = match open(printer, config, "serve").await {
        Ok(app) => app,
        Err(error) => return printer.fail_open(&error),
    };
    let mut settings = listener(&app);
    settings.address = arguments.listen.unwrap_or(settings.address);
    printer.problems(&doubts(&app, &settings), false);
    let server = match HttpServer::bind(settings, app.project.base()).await {
        Ok(server) => server,
        Err(error) => return printer.fail(&error.to_string()),
    };
    let admin = match admin(&app, arguments.admin_listen).await {
        Ok(admin) => admin,
        Err(error) => {
            return printer
                .fail(&format!("{error}: set `address` under `listen: admin:`, or `--admin-listen`"));
        }
    };
    let url = format!("{}://{}/mcp", server.scheme(), server.address());
    printer.note(&format!("{GOOD}serving{GOOD:#} {url}; Ctrl-C ends it"));
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone()));
    let admin = admin.map(|admin| {
        printer.note(&format!("{GOOD}admin{GOOD:#} http://{}/", admin.address()));
        let (gateway, runs) = (Arc::clone(&app.gateway), Arc::clone(&app.runs));
        tokio::spawn(admin.serve(gateway, runs, app.upstreams.clone(), stop.clone()))
    });
    app.upstreams.watch();
    let sweeping = app.sweeping();
    let witnessing = app.witnessing();
    server.serve(Arc::clone(&app.gateway), stop).await;
    if let Some(admin) = admin {
        let _ = admin.await; // so that its changes are on record before the record is closed
    }
    drop(sweeping);
    close(&app, witnessing).await;
    ExitCode::SUCCESS
}

pub(super) async fn stdio(printer: &Printer, config: &Path, arguments: StdioArguments) -> ExitCode {
    if arguments.bridge.is_asked_for() {
        return bridge::run(*printer, arguments.bridge, signal()).await;
    }
    // Standard output is the protocol: everything else goes to standard error.
    let app = match open(printer, config, "stdio").await {
        Ok(app) => app,
        Err(error) => return printer.as_text().fail_open(&error),
    };
    let named = app.project.files.as_ref().and_then(|files| files.server.1.listen.stdio.as_ref());
    let Some(client) = arguments.client.or_else(|| named.map(|stdio| stdio.client.clone())) else {
        return printer
            .as_text()
            .fail("no client is named: pass `--client`, or set `listen: stdio: client:`");
    };
    app.upstreams.watch();
    let _sweeping = app.sweeping();
    let witnessing = app.witnessing();
    let served = tokio::select! {
        served = serve_stdio(Arc::clone(&app.gateway), Proof::asserted(client)) => served,
        () = signal() => Ok(()),
    };
    close(&app, witnessing).await;
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => printer.as_text().fail(&error.to_string()),
    }
}

async fn open(printer: &Printer, config: &Path, kind: &'static str) -> Result<App, OpenError> {
    let app = App::open_with(config, kind, printer.secrets()).await?;
    printer.problems(&app.warnings, false);
    Ok(app)
}

/// Gives back what was lent, publishes the end of the log, and takes it to the witnesses.
async fn close(app: &App, witnessing: Option<Witnessing>) {
    app.gateway.finish_tasks().await; // a signal may have come while some were under way
    app.give_back().await;
    app.gateway.audit().close();
    if let Some(witnessing) = witnessing {
        witnessing.finish().await;
    }
}

async fn admin(app: &App, address: Option<LoopbackAddress>) -> Result<Option<AdminServer>, AdminError> {
    let settings = app.project.files.as_ref().and_then(|files| files.server.1.listen.admin.clone());
    let Some(mut settings) = settings else { return Ok(None) };
    settings.address = address.unwrap_or(settings.address);
    AdminServer::bind(&settings).await.map(Some)
}

fn listener(app: &App) -> HttpListener {
    app.project.files.as_ref().map(|files| files.server.1.listen.http.clone()).unwrap_or_default()
}

/// What is doubtful about the listener; what is wrong with it, binding says.
fn doubts(app: &App, settings: &HttpListener) -> Vec<Problem> {
    let Some((source, _)) = app.project.files.as_ref().map(|files| &files.server) else { return Vec::new() };
    let mut problems = listener_problems(settings, source, app.project.base(), Secrets::Required);
    problems.retain(|problem| problem.severity == Severity::Warning);
    problems
}

async fn stop_on_signal(stop: CancellationToken) {
    signal().await;
    stop.cancel();
}

/// Waits for Ctrl-C or, on Unix, SIGTERM.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // Without a way to hear a signal, the process stops at once rather than never.
    let _ = tokio::signal::ctrl_c().await;
}
