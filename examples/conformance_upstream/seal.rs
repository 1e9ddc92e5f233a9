//! State that travels with the caller, and comes back as it left or not at all.

use aws_lc_rs::{
    hmac::{self, HMAC_SHA256},
    rand::SystemRandom,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rmcp::{ErrorData, model::InputResponses};
use serde::{Deserialize, Serialize};

/// What the server has to know again in the next round.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Notes {
    /// The tool or prompt that asks.
    pub(crate) asker: String,
    /// The round that was asked.
    pub(crate) round: usize,
    /// The answers so far.
    pub(crate) answers: InputResponses,
}

/// The key of one process.
pub(crate) struct Seal(hmac::Key);

impl Seal {
    pub(crate) fn new() -> Result<Self, String> {
        hmac::Key::generate(HMAC_SHA256, &SystemRandom::new())
            .map(Self)
            .map_err(|_| "no random numbers".to_owned())
    }

    pub(crate) fn close(&self, notes: &Notes) -> Result<String, ErrorData> {
        let text =
            serde_json::to_vec(notes).map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        let tag = hmac::sign(&self.0, &text);
        Ok(format!("{}.{}", URL_SAFE_NO_PAD.encode(text), URL_SAFE_NO_PAD.encode(tag)))
    }

    /// Opens what was closed for the same asker.
    pub(crate) fn open(&self, asker: &str, state: &str) -> Result<Notes, ErrorData> {
        self.opened(state)
            .filter(|notes| notes.asker == asker)
            .ok_or_else(|| ErrorData::invalid_params("`requestState` is not one of this server's", None))
    }

    fn opened(&self, state: &str) -> Option<Notes> {
        let (text, tag) = state.split_once('.')?;
        let text = URL_SAFE_NO_PAD.decode(text).ok()?;
        hmac::verify(&self.0, &text, &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        serde_json::from_slice(&text).ok()
    }
}
