//! Callgate: a guarded tool server that speaks the Model Context Protocol.
//!
//! The order of the modules is the order of data flow and of dependency: a
//! module uses only modules listed above it, and a test enforces that.
//!
//! Each stage of a call has a type that only the stage's own door can make, and
//! that derefs to the type of the stage before it: `executed.tool()` just works.
//! This is our one bend of the rule that `Deref` is for pointers.

#![cfg_attr(
    test,
    allow(clippy::needless_pass_by_value, reason = "tests hand over values they make in place")
)]

pub mod lines;
pub mod strict;
pub mod hygiene;
pub mod manifest;
pub mod call;
pub mod egress;
pub mod store;
pub mod runs;
pub mod rounds;
pub mod tasks;
pub mod identity;
pub mod catalog;
pub mod limits;
pub mod schema;
pub mod policy;
pub mod plan;
pub mod approval;
pub mod audit;
pub mod credential;
pub mod upstream;
pub mod backend;
pub mod output;
pub mod rules;
pub mod gateway;
pub mod release;
pub mod transport;
pub mod admin;
pub mod app;
pub mod cli;
