//! The applications that can be connected: where each keeps its servers, and how it writes one down.
//!
//! As they did in autumn 2026. A key is referred to in the application's own way, and never written.

use std::{
    env,
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use super::merge::{Entry, Form, Node};

/// An application that agents run in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Application {
    /// Claude Code: `.mcp.json` in the project.
    ClaudeCode,
    /// Claude Desktop: `claude_desktop_config.json`, by a bridge, since it starts its servers itself.
    ClaudeDesktop,
    /// VS Code: `.vscode/mcp.json` in the project. It asks for the key once, and keeps it.
    Vscode,
    /// Cursor: `.cursor/mcp.json` in the project.
    Cursor,
    /// Codex: `~/.codex/config.toml`.
    Codex,
}

/// How a server is reached.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    /// Over HTTP, with the key that an environment variable holds.
    Http { url: String, key_env: String },
    /// By a program that the application starts.
    Program { command: String, arguments: Vec<String> },
}

/// The id of the input that VS Code asks for.
const INPUT: &str = "cg-token";

impl Application {
    /// Its name, as people know it.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::ClaudeCode => "Claude Code",
            Self::ClaudeDesktop => "Claude Desktop",
            Self::Vscode => "VS Code",
            Self::Cursor => "Cursor",
            Self::Codex => "Codex",
        }
    }

    /// Whether it only speaks with programs that it starts.
    pub(super) const fn is_local_only(self) -> bool {
        matches!(self, Self::ClaudeDesktop)
    }

    pub(super) const fn form(self) -> Form {
        match self {
            Self::ClaudeCode | Self::ClaudeDesktop => Form::Json,
            Self::Vscode | Self::Cursor => Form::Jsonc,
            Self::Codex => Form::Toml,
        }
    }

    /// Its file: in the given folder, or where it looks for it by itself.
    ///
    /// # Errors
    /// When the environment does not say where that is.
    pub(super) fn file(self, folder: Option<&Path>) -> Result<PathBuf, String> {
        let within = |name: &str| folder.unwrap_or_else(|| Path::new(".")).join(name);
        match (self, folder) {
            (Self::ClaudeCode, _) => Ok(within(".mcp.json")),
            (Self::Vscode, _) => Ok(within(".vscode").join("mcp.json")),
            (Self::Cursor, _) => Ok(within(".cursor").join("mcp.json")),
            (Self::ClaudeDesktop, Some(folder)) => Ok(folder.join("claude_desktop_config.json")),
            (Self::ClaudeDesktop, None) => Ok(settings()?.join("Claude").join("claude_desktop_config.json")),
            (Self::Codex, Some(folder)) => Ok(folder.join("config.toml")),
            (Self::Codex, None) => {
                let own = variable("CODEX_HOME");
                Ok(own.map_or_else(|| Ok(home()?.join(".codex")), Ok::<_, String>)?.join("config.toml"))
            }
        }
    }

    /// How it writes a server down.
    pub(super) fn entry(self, name: &str, reach: &Reach) -> Entry {
        let servers = match self {
            Self::Vscode => "servers",
            Self::Codex => "mcp_servers",
            Self::ClaudeCode | Self::ClaudeDesktop | Self::Cursor => "mcpServers",
        };
        let is_input = self == Self::Vscode && matches!(reach, Reach::Http { .. });
        let input = is_input.then(|| {
            let input = vec![
                ("type", Node::text("promptString")),
                ("id", Node::text(INPUT)),
                ("description", Node::text("Callgate key")),
                ("password", Node::Flag(true)),
            ];
            (Node::Table(input), INPUT.to_owned())
        });
        Entry { servers, name: name.to_owned(), server: Node::Table(self.server(reach)), input }
    }

    fn server(self, reach: &Reach) -> Vec<(&'static str, Node)> {
        let names_kind = matches!(self, Self::ClaudeCode | Self::Vscode);
        let mut server = Vec::new();
        match reach {
            Reach::Http { url, key_env } => {
                if names_kind {
                    server.push(("type", Node::text("http")));
                }
                server.push(("url", Node::text(url)));
                let reference = match self {
                    Self::Codex => {
                        server.push(("bearer_token_env_var", Node::text(key_env)));
                        return server;
                    }
                    Self::Vscode => format!("${{input:{INPUT}}}"),
                    Self::Cursor => format!("${{env:{key_env}}}"),
                    Self::ClaudeCode | Self::ClaudeDesktop => format!("${{{key_env}}}"),
                };
                let shown = Node::text(format!("Bearer {reference}"));
                server.push(("headers", Node::Table(vec![("Authorization", shown)])));
            }
            Reach::Program { command, arguments } => {
                if names_kind {
                    server.push(("type", Node::text("stdio")));
                }
                server.push(("command", Node::text(command)));
                server.push(("args", Node::List(arguments.iter().map(Node::text).collect())));
            }
        }
        server
    }
}

/// Where applications with windows keep what they are set to.
fn settings() -> Result<PathBuf, String> {
    if cfg!(windows) {
        return variable("APPDATA").ok_or_else(|| "`APPDATA` is not set: pass `--file`".to_owned());
    }
    if cfg!(target_os = "macos") {
        return Ok(home()?.join("Library").join("Application Support"));
    }
    variable("XDG_CONFIG_HOME").map_or_else(|| Ok(home()?.join(".config")), Ok)
}

fn home() -> Result<PathBuf, String> {
    let name = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    variable(name).ok_or_else(|| format!("`{name}` is not set: pass `--file`"))
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
