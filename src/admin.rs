//! The admin listener: revocations, runs and keys, for those who run the gate.
//!
//! It is on loopback, has no key but those that `callgate.yaml` names, and takes no request that a browser
//! made. Each change is put on record before it is made, and how it ended before it is answered.

mod api;
mod arguments;
mod error;
mod keys;
mod listener;
mod request;
mod slip;
mod strangers;

pub use error::ApiError;
pub use keys::NewAdminKey;
pub use listener::{AdminError, AdminServer};
pub(crate) use slip::{REFUSED, holds_secret, is_like_a_token};
