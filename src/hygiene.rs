//! Text that people and models can take at its face value.
//!
//! A text can carry what its reader does not see: letters made of tag characters, an order of words
//! that bidi controls turn round, bytes written as variation selectors, escape sequences that a
//! terminal obeys. [`inspect`] counts such characters, [`clean`] removes them, and what a script or
//! an emoji needs stays byte for byte. Each rule, and where it comes from, is in `docs/hygiene.md`.
//!
//! INVARIANT: what is always removed does not depend on its surroundings; what depends on them is
//! judged by characters that stay, on both sides. So one pass is enough: cleaning joins no pieces
//! into something that would have to be cleaned again.

mod class;
mod context;
mod escape;
mod findings;
mod token;
mod value;
mod work;

use std::borrow::Cow;

pub use self::findings::Findings;
pub use self::value::{Collision, Hidden, clean_value, inspect_value};

use self::token::Verdicts;

/// Counts what a reader of this text would not see, or would see wrongly. Allocates nothing.
#[must_use]
pub fn inspect(text: &str) -> Findings {
    let mut findings = Findings::default();
    if class::is_plain(text) {
        return findings;
    }
    for verdict in Verdicts::new(text) {
        if let Some(kind) = verdict.removed {
            findings.count(kind);
        }
    }
    findings
}

/// Removes what [`inspect`] counts, and nothing else. A clean text is borrowed.
///
/// Whoever looks for words in a text should look after it is cleaned: a word can be cut by
/// characters that are not seen.
#[must_use]
pub fn clean(text: &str) -> (Cow<'_, str>, Findings) {
    let mut findings = Findings::default();
    if class::is_plain(text) {
        return (Cow::Borrowed(text), findings);
    }
    let mut cleaned: Option<String> = None; // from the first removal on
    let mut seen_bytes = 0;
    for verdict in Verdicts::new(text) {
        if let Some(kind) = verdict.removed {
            findings.count(kind);
            cleaned.get_or_insert_with(|| text.get(..seen_bytes).unwrap_or_default().to_owned());
        } else if let Some(cleaned) = &mut cleaned {
            cleaned.push_str(verdict.text);
        }
        seen_bytes += verdict.text.len();
    }
    (cleaned.map_or(Cow::Borrowed(text), Cow::Owned), findings)
}

#[cfg(test)]
mod tests;
