//! Where clients connect: the only server-side place that names rmcp.

mod failures;
mod front;
mod headers;
mod health;
mod host;
mod http;
mod lane;
mod lines;
mod listener;
mod mcp;
mod oauth;
mod page;
mod refusal;
mod relay;
mod serve;
mod sessions;
mod source;
mod stdio;
mod tls;
mod visitor;

pub use http::{HttpError, HttpServer};
pub use listener::problems as listener_problems;
pub use stdio::{StdioError, serve_stdio};
pub use tls::TlsError;
