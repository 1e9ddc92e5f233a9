//! Where clients connect: the only server-side place that names rmcp.

mod http;
mod mcp;
mod stdio;

pub use http::{HttpError, HttpServer};
pub use stdio::{StdioError, serve_stdio};
