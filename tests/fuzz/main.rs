//! Fuzz targets: properties that hold for any input.
//!
//! In a plain `cargo test` each target runs for a second on random input. For longer:
//!
//! ```text
//! BOLERO_RANDOM_TEST_TIME_MS=60000 BOLERO_RANDOM_ITERATIONS=1000000000 \
//!     cargo test --release --test fuzz -- --test-threads 1
//! ```
//!
//! This needs no nightly Rust. (Where there is one, `cargo bolero test TARGET --test fuzz` runs the
//! same targets with libFuzzer, which learns from coverage.)
//!
//! To add a target: a file here, named after what it tests, with a `#[test] fn fuzz_…` that calls
//! `bolero::check!()` and panics if a property does not hold; and its `mod` line below. Random bytes
//! are rarely well-formed, so let the bytes choose among well-formed pieces: see `scanner.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed property is a panic"
)]

mod scanner;
