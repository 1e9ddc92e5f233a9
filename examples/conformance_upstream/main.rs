//! An MCP server that offers what the official conformance suite asks for, to put Callgate in front of.
//!
//! `cargo run --example conformance_upstream -- [--listen 127.0.0.1:9100 | --stdio]`. Both protocol eras
//! are on one endpoint, `/mcp`. It has no authentication and no limits: it is for tests, and to read.

#![expect(deprecated, reason = "the suite asks for what newer versions of the protocol advise against, too")]

mod changes;
mod fixtures;
mod interview;
mod jobs;
mod seal;
mod server;
mod sessions;
mod tools;

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use axum::Router;
use clap::Parser;
use rmcp::{
    ServiceExt as _,
    transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService},
};
use tokio::net::TcpListener;

use server::{Shared, Upstream};
use sessions::Sessions;

/// An MCP server with the fixtures of the conformance suite.
#[derive(Parser)]
struct Arguments {
    /// The address and port to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
    /// Speak over standard input and output instead.
    #[arg(long, conflicts_with = "listen")]
    stdio: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let shared = Arc::new(Shared::new()?);
    if arguments.stdio { serve_stdio(shared).await } else { serve_http(shared, arguments.listen).await }
}

async fn serve_stdio(shared: Arc<Shared>) -> Result<(), String> {
    let running = Upstream::new(shared)
        .serve(rmcp::transport::stdio())
        .await
        .map_err(|error| format!("the client did not introduce itself: {error}"))?;
    running.waiting().await.map(drop).map_err(|error| error.to_string())
}

async fn serve_http(shared: Arc<Shared>, listen: SocketAddr) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot listen on {listen}: {error}");
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // A web page that has made its name resolve to this machine is told by its origin.
    let config = StreamableHttpServerConfig::default().with_allowed_origins([
        "http://localhost:*",
        "http://127.0.0.1:*",
        "http://[::1]:*",
    ]);
    let service = StreamableHttpService::new(
        move || Ok(Upstream::new(Arc::clone(&shared))),
        Arc::new(Sessions::new()),
        config,
    );
    eprintln!("listening on http://{address}/mcp");
    axum::serve(listener, Router::new().nest_service("/mcp", service))
        .await
        .map_err(|error| error.to_string())
}
