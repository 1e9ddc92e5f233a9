//! Where clients connect: the only server-side place that names rmcp.

mod failures;
mod framing;
mod front;
mod headers;
mod health;
mod host;
mod http;
mod lane;
mod listener;
mod mcp;
mod media;
mod oauth;
mod pace;
mod page;
mod peek;
mod reasons;
mod refusal;
mod relay;
mod room;
mod seats;
mod serve;
mod sessions;
mod shares;
mod source;
mod sse;
mod stdio;
mod tls;
mod visitor;
mod wire;
mod wire_offer;

pub use http::{HttpError, HttpServer};
pub use listener::problems as listener_problems;
pub(crate) use serve::{Ambiguous, OneRequest, answer_one};
pub use stdio::{StdioError, serve_stdio};
pub use tls::TlsError;
