//! Where clients connect: the only server-side place that names rmcp.

mod front;
mod headers;
mod health;
mod host;
mod http;
mod lines;
mod mcp;
mod oauth;
mod refusal;
mod serve;
mod stdio;

pub use http::{HttpError, HttpServer};
pub use stdio::{StdioError, serve_stdio};
