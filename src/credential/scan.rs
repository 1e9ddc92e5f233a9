//! Finding held secrets in a text, in each form in which a text could hold them.
//!
//! A secret is looked for by windows: eight bytes from the middle of each of its forms. A text's bytes
//! are held against all windows at once, and only where one fits is the whole form compared. So it costs
//! little to register a secret, nothing is built anew when one comes or goes, and no form is kept in memory.

mod escape;
mod form;
mod windows;

use std::{collections::HashMap, ops::Range};

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use escape::Escape;
use form::Form;

pub use form::SECRET_BYTES_MIN;
use windows::Windows;

/// How many escapings may be nested in each other: a JSON text in a string of JSON has two.
const ESCAPES_MAX: u32 = 3;

/// How many windows are looked at before those who register secrets get a turn.
const TURN_BYTES: usize = 64 * 1024;

/// A held secret, found in a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FoundSecret {
    /// Whose secret it is.
    pub name: String,
    /// Where it is in the text; encoded ones without the ends that other bytes take part in.
    pub range: Range<usize>,
}

/// A held secret, and whose it is.
pub(super) struct Held {
    pub(super) name: String,
    pub(super) secret: SecretString,
}

/// What is searched: the secrets, and the windows on them.
#[derive(Default)]
pub(super) struct Index {
    pub(super) held: std::collections::BTreeMap<u64, Held>,
    windows: Windows,
}

impl Index {
    pub(super) fn insert(&mut self, id: u64, held: Held) {
        self.windows.insert(id, held.secret.expose_secret());
        self.held.insert(id, held);
    }

    pub(super) fn remove(&mut self, id: u64) {
        if let Some(held) = self.held.remove(&id) {
            self.windows.remove(id, held.secret.expose_secret());
        }
    }

    /// Whether there is nothing to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    fn find(&self, text: &[u8], starts: Range<usize>, made: &mut Made) -> Option<FoundSecret> {
        let end = (starts.end + form::WINDOW_BYTES - 1).min(text.len());
        let looked_at = text.get(starts.start..end)?;
        self.windows.hits(looked_at).find_map(|(at, entries)| {
            let at = starts.start + at;
            // The longest, since a secret can hold another.
            let found = entries.iter().filter_map(|&(id, form)| {
                let held = self.held.get(&id)?;
                let range = made.range(id, form, held.secret.expose_secret(), text, at)?;
                Some((held, range))
            });
            let (held, range) = found.max_by_key(|(_, range)| range.len())?;
            Some(FoundSecret { name: held.name.clone(), range })
        })
    }
}

/// The forms that were compared in this search, so that a text of nothing but windows makes each once.
#[derive(Default)]
struct Made(HashMap<(u64, Form), Zeroizing<Vec<u8>>>);

impl Made {
    /// The range of a form whose window is at `at`, if the whole form is there.
    fn range(&mut self, id: u64, form: Form, secret: &str, text: &[u8], at: usize) -> Option<Range<usize>> {
        let whole = self.0.entry((id, form)).or_insert_with(|| form.of(secret));
        let start = at.checked_sub(form::window_at(whole))?;
        let range = start..start + whole.len();
        (text.get(range.clone()) == Some(whole.as_slice())).then_some(range)
    }
}

impl super::LiveSecrets {
    /// Whether there is nothing that could be found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read(Index::is_empty)
    }

    /// A secret of eight bytes or more that the text holds: as it is, in hex, in Base64, or escaped.
    #[must_use]
    pub fn find(&self, text: &[u8]) -> Option<FoundSecret> {
        if self.is_empty() { None } else { self.find_escaped(text, ESCAPES_MAX) }
    }

    /// The text with a note in place of each secret; none where it holds no secret.
    #[must_use]
    pub fn scrub(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut found = self.find(text)?;
        let (mut scrubbed, mut rest) = (Vec::with_capacity(text.len()), text);
        loop {
            let before = rest.get(..found.range.start).unwrap_or_default();
            // What is found first need not stand first.
            scrubbed.extend(self.scrub(before).as_deref().unwrap_or(before));
            scrubbed.extend(format!("[secret of {}]", found.name).bytes());
            rest = rest.get(found.range.end..).unwrap_or_default();
            match self.find(rest) {
                Some(next) => found = next,
                None => break,
            }
        }
        scrubbed.extend(rest);
        Some(scrubbed)
    }

    fn find_escaped(&self, text: &[u8], escapes: u32) -> Option<FoundSecret> {
        if let Some(found) = self.find_plain(text) {
            return Some(found);
        }
        let escapes = escapes.checked_sub(1)?;
        let spaces = self.read(|index| index.windows.have_spaces());
        let kinds = [Escape::Json, Escape::Percent, Escape::Plus];
        kinds.into_iter().filter(|kind| spaces || *kind != Escape::Plus).find_map(|kind| {
            let view = kind.undo(text)?;
            let FoundSecret { name, range } = self.find_escaped(&view, escapes)?;
            Some(FoundSecret { name, range: kind.source(text, &range) })
        })
    }

    fn find_plain(&self, text: &[u8]) -> Option<FoundSecret> {
        let mut made = Made::default();
        let ends = (text.len() + 1).saturating_sub(form::WINDOW_BYTES);
        (0..ends).step_by(TURN_BYTES).find_map(|start| {
            self.read(|index| index.find(text, start..(start + TURN_BYTES).min(ends), &mut made))
        })
    }
}

#[cfg(test)]
mod tests;
