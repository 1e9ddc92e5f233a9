//! The gate as a whole: real files, real HTTP backends, real clients, the record on disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on shall say where, and helpers take what `json!` makes"
)]

mod backend;
mod gate;
mod project;
mod raw;
mod bare;
mod process;
mod served;
mod wire;
mod listening;
mod tap;

mod admin;
mod costly;
mod denials;
mod eras;
mod bypasses;
mod canary;
mod credentials;
mod certificates;
mod echoes;
mod egress;
mod held;
mod help;
mod hiding;
mod failures;
mod misbehaving;
mod front;
mod oauth;
mod offers;
mod stdio;
mod bridge;
mod connect;
mod kill;
mod audit_cli;
mod demo;
mod replay;
mod poison;
mod release;
mod revocation;
mod rounds;
mod identity;
mod tokens;
mod own_tokens;
mod sessions;
mod tasks;
mod task_questions;
mod sse;
mod shares;
mod methods;
mod admin_edge;
mod streams;
mod names;
mod logs;
mod visibility;
mod witness;
mod json_suite;
mod sources;
mod tls;
mod module_order;
mod naughty;
mod notices;
mod schema_suite;
mod upstreams;
