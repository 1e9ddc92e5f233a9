//! The command line: one file per subcommand.

mod accept;
mod admin;
mod audit;
mod bridge;
mod call;
mod check;
mod connect;
mod demo;
mod explain;
mod import;
mod init;
mod keys;
mod output;
mod remote;
mod render;
mod revoke;
mod runs;
mod schemas;
mod scrubbed;
mod serve;
mod target;
mod test;
mod token;
mod typed_key;
mod unreached;
mod upstreams;
mod visible;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};

use output::Printer;
use scrubbed::Scrubbed;
use typed_key::refuse_secrets;

use crate::{
    admin::{REFUSED, holds_secret},
    credential::LiveSecrets,
};

/// What every command takes stands below what it takes alone.
const GLOBAL: &str = "Global options";

const AFTER_HELP: &str = "\
Begin with `callgate demo`, then `callgate init FOLDER`.

CALLGATE_LOG sets what is logged to standard error: error, warn (the default), info, debug or trace.";

/// A guarded tool server that speaks the Model Context Protocol.
#[derive(Debug, Parser)]
#[command(name = "callgate", version, about, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    /// The project, by its `callgate.yaml`.
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        default_value = "callgate.yaml",
        env = "CALLGATE_CONFIG",
        hide_env_values = true,
        help_heading = GLOBAL
    )]
    config: PathBuf,
    /// Print JSON, for programs.
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the gate at work: an API, the gate in front of it, and a client that tries its luck.
    Demo(demo::Arguments),
    /// Serve clients over Streamable HTTP.
    Serve(serve::ServeArguments),
    /// Serve one client over standard input and output, or connect it to a server that runs elsewhere.
    Stdio(serve::StdioArguments),
    /// Read the whole project and report all its errors at once.
    Check(check::Arguments),
    /// Run the tools' examples and the policies' cases; no API is called.
    Test(test::Arguments),
    /// Make one call through all guards.
    Call(call::Arguments),
    /// Judge one call without making it: what each guard says, and which policies decide.
    Explain(explain::Arguments),
    /// Show what changed in a tool, resource or prompt since it was accepted, and accept it.
    Accept(accept::Arguments),
    /// Look at what is on record, and prove it.
    Audit(audit::Arguments),
    /// Take access away: from a client, a key, a token or a run. In force when the command returns.
    Revoke(revoke::Arguments),
    /// Print what tells an application of the server, or write it into its file.
    Connect(connect::Arguments),
    /// Ask a running server for an access token of a client's.
    Token(token::Arguments),
    /// List the live runs, or end one.
    Runs(runs::Arguments),
    /// Make, list, rotate and revoke keys while the server runs.
    Keys(keys::Arguments),
    /// Write manifests for review, of what another server offers.
    Import(import::Arguments),
    /// List the other MCP servers, and what of theirs is not what was reviewed.
    Upstreams(upstreams::Arguments),
    /// Write a small working project.
    Init(init::Arguments),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the JSON Schemas of the files people write, for editors.
    Schemas(schemas::Arguments),
}

/// The command line, as completions and tests of its help read it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that was typed.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error),
    };
    // Both libraries that need a provider are told which one, first thing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // There is one for as long as the process lives, and it is handed to whoever holds or writes something.
    let secrets: &'static LiveSecrets = Box::leak(Box::default());
    log_to_stderr(secrets.clone());
    let printer = Printer::new(cli.json, secrets);
    if let (true, Err(message)) = (cli.command.takes_no_secret(), refuse_secrets(std::env::args_os().skip(1)))
    {
        return printer.fail(&message);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return printer.fail(&format!("the runtime does not start: {error}")),
    };
    let code = runtime.block_on(dispatch(printer, cli));
    // A pending read of standard input cannot be cancelled, and must not keep the process.
    runtime.shutdown_background();
    code
}

/// Says what is wrong with the command line, unless a key or a token would be said with it.
fn misunderstood(error: &clap::Error) -> ExitCode {
    if holds_secret(&error.to_string()) {
        let secrets: &'static LiveSecrets = Box::leak(Box::default());
        let _ = Printer::new(false, secrets).fail(REFUSED);
    } else {
        let _ = error.print();
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

impl Command {
    /// Whether nothing that is typed for it is a tool's argument, or a thing to look for, which may be anything.
    const fn takes_no_secret(&self) -> bool {
        !matches!(
            self,
            Self::Call(_)
                | Self::Explain(_)
                | Self::Audit(_)
                | Self::Demo(_)
                | Self::Test(_)
                | Self::Completions { .. }
        )
    }
}

async fn dispatch(printer: Printer, cli: Cli) -> ExitCode {
    match cli.command {
        Command::Demo(arguments) => demo::run(&printer, arguments).await,
        Command::Serve(arguments) => serve::serve(&printer, &cli.config, arguments).await,
        Command::Stdio(arguments) => serve::stdio(&printer, &cli.config, arguments).await,
        Command::Check(arguments) => check::run(&printer, &cli.config, &arguments),
        Command::Test(arguments) => test::run(&printer, &cli.config, &arguments),
        Command::Call(arguments) => call::run(&printer, &cli.config, arguments).await,
        Command::Explain(arguments) => explain::run(&printer, &cli.config, arguments),
        Command::Accept(arguments) => accept::run(&printer, &cli.config, &arguments),
        Command::Audit(arguments) => audit::run(&printer, &cli.config, arguments).await,
        Command::Revoke(arguments) => revoke::run(&printer, &cli.config, arguments).await,
        Command::Token(arguments) => token::run(&printer, &cli.config, arguments).await,
        Command::Connect(arguments) => connect::run(&printer, &cli.config, &arguments),
        Command::Runs(arguments) => runs::run(&printer, &cli.config, arguments).await,
        Command::Keys(arguments) => keys::run(&printer, &cli.config, arguments).await,
        Command::Import(arguments) => import::run(&printer, &cli.config, arguments).await,
        Command::Upstreams(arguments) => upstreams::run(&printer, &cli.config, &arguments).await,
        Command::Init(arguments) => init::run(&printer, &arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut command(), "callgate", &mut io::stdout());
            ExitCode::SUCCESS
        }
        Command::Schemas(arguments) => schemas::run(&printer, &arguments),
    }
}

/// Logs go to standard error, since standard output may be the protocol. `CALLGATE_LOG` sets the level.
fn log_to_stderr(secrets: LiveSecrets) {
    use tracing_subscriber::EnvFilter;
    // rmcp prints whole requests at `debug`, three lines per request at `info`, and refusals at `warn`.
    let filter = std::env::var("CALLGATE_LOG").unwrap_or_else(|_| "warn".into());
    let filter = EnvFilter::builder().parse_lossy(format!("{filter},rmcp=error"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(Scrubbed::new(secrets));
    // Only the first subscriber of a process counts; there is no other.
    let _ = subscriber.try_init();
}
