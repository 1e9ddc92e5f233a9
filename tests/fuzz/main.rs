//! Fuzz targets: properties that hold for any input.
//!
//! In a plain `cargo test` each target runs for a second on random input. `./test --long` runs each for a
//! minute; one alone for longer:
//!
//! ```text
//! BOLERO_RANDOM_TEST_TIME_MS=600000 cargo test --test fuzz fuzz_url -- --nocapture
//! ```
//!
//! The debug build is meant: it checks arithmetic for overflow and each Cedar request against the
//! schema, which a release build does not. A failure prints `BOLERO_RANDOM_SEED=…`, which runs the same
//! input again.
//!
//! | target | property |
//! |---|---|
//! | `scanner` | the strict scanner, a naive second one and `serde_json` agree |
//! | `manifest` | a damaged file loads or has a problem with a place in it; what loads loads again as the same |
//! | `url` | a request is of its service and its template, and says what the arguments say |
//! | `cedar` | nothing is allowed that the same rule over plain JSON does not allow |
//!
//! This needs no nightly Rust. (Where there is one, `cargo bolero test TARGET --test fuzz` runs the
//! same targets with libFuzzer, which learns from coverage.)
//!
//! To add a target: a file here, named after what it tests, with a `#[test] fn fuzz_…` that calls
//! `bolero::check!()` and panics if a property does not hold; and its `mod` line below. Random bytes
//! are rarely well-formed, so let the bytes choose among well-formed pieces (`choices.rs`), and show by
//! a test beside the target that they make enough of each outcome.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed property is a panic"
)]

mod cedar;
mod choices;
mod manifest;
mod scanner;
mod url;
