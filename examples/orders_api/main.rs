//! The orders API on a port of its own.
//!
//! `cargo run --example orders_api -- [--listen 127.0.0.1:9000]`, with the token
//! that callers need in `ORDERS_TOKEN`.

mod api;

use std::{
    io,
    net::SocketAddr,
    process::ExitCode,
    sync::{Arc, atomic::AtomicU64},
};

use clap::Parser;
use tokio::net::TcpListener;

/// A small orders API to put Callgate in front of.
#[derive(Parser)]
struct Arguments {
    /// The address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().listen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(listen: SocketAddr) -> Result<(), String> {
    let token = std::env::var("ORDERS_TOKEN").unwrap_or_else(|_| "demo-token".to_owned());
    let listener = TcpListener::bind(listen).await.map_err(|error| explain(listen, &error))?;
    let address = listener.local_addr().map_err(|error| explain(listen, &error))?;
    eprintln!("orders API on http://{address}/v1/orders");
    eprintln!("it takes `Authorization: Bearer {token}`; Ctrl-C ends it");
    let stop = async {
        // Without a way to hear Ctrl-C, the API ends at once rather than never.
        let _ = tokio::signal::ctrl_c().await;
    };
    api::serve(listener, &token, Arc::new(AtomicU64::new(0)), stop).await.map_err(|error| error.to_string())
}

fn explain(listen: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{listen} is taken by another program: choose another port with `--listen`")
        }
        _ => format!("cannot listen on {listen}: {error}"),
    }
}
