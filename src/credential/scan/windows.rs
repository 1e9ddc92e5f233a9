//! The windows of all held secrets, held against a text at once.

use std::collections::HashMap;

use super::form::{Form, SECRET_BYTES_MIN, WINDOW_BYTES, window_at};

/// How many bits the filter has for each window: one place of a text in so many is looked up for nothing.
const BITS_PER_WINDOW: usize = 64;

const FILTER_BITS_MIN: usize = 1 << 12;

/// The windows, and a filter before them that most of a text does not pass.
pub(super) struct Windows {
    filter: Vec<u64>,
    /// How far a hash is shifted to give its bit of the filter.
    shift: u32,
    by_window: HashMap<u64, Vec<(u64, Form)>>,
    /// How many bits were set since the filter was made, also for windows that are gone.
    set: usize,
    with_spaces: usize,
}

impl Windows {
    pub(super) fn insert(&mut self, id: u64, secret: &str) {
        for (window, form) in windows(secret) {
            let entries = self.by_window.entry(window).or_default();
            entries.push((id, form));
            self.set += 1;
            if self.set * BITS_PER_WINDOW > self.filter.len() * 64 {
                self.make_filter();
            } else {
                self.mark(window);
            }
        }
        self.with_spaces += usize::from(secret.contains(' '));
    }

    pub(super) fn remove(&mut self, id: u64, secret: &str) {
        for (window, form) in windows(secret) {
            if let Some(entries) = self.by_window.get_mut(&window) {
                entries.retain(|entry| *entry != (id, form));
                if entries.is_empty() {
                    self.by_window.remove(&window);
                }
            }
        }
        self.with_spaces -= usize::from(secret.contains(' '));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_window.is_empty()
    }

    /// Whether a secret has a space, which forms write as `+`.
    pub(super) const fn have_spaces(&self) -> bool {
        self.with_spaces > 0
    }

    /// The places of the text where windows fit, and whose they are.
    pub(super) fn hits<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, &'a [(u64, Form)])> {
        text.array_windows::<WINDOW_BYTES>().enumerate().filter_map(|(at, bytes)| {
            let window = u64::from_le_bytes(*bytes);
            let (word, bit) = self.bit(window);
            if self.filter.get(word).is_none_or(|word| word >> bit & 1 == 0) {
                return None;
            }
            self.by_window.get(&window).map(|entries| (at, entries.as_slice()))
        })
    }

    /// Makes the filter anew, with room for as many windows again.
    fn make_filter(&mut self) {
        let entries = self.by_window.values().map(Vec::len).sum::<usize>();
        let bits = (entries * 2 * BITS_PER_WINDOW).next_power_of_two().max(FILTER_BITS_MIN);
        self.filter = vec![0; bits / 64];
        self.shift = u64::BITS - bits.trailing_zeros();
        self.set = entries;
        for window in self.by_window.keys().copied().collect::<Vec<_>>() {
            self.mark(window);
        }
    }

    fn mark(&mut self, window: u64) {
        let (word, bit) = self.bit(window);
        if let Some(word) = self.filter.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    const fn bit(&self, window: u64) -> (usize, u64) {
        // Fibonacci hashing: the high bits depend on all.
        let hash = window.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift;
        ((hash / 64) as usize, hash % 64)
    }
}

impl Default for Windows {
    fn default() -> Self {
        let shift = u64::BITS - FILTER_BITS_MIN.trailing_zeros();
        let filter = vec![0; FILTER_BITS_MIN / 64];
        Self { filter, shift, by_window: HashMap::new(), set: 0, with_spaces: 0 }
    }
}

fn windows(secret: &str) -> impl Iterator<Item = (u64, Form)> {
    let is_long = secret.len() >= SECRET_BYTES_MIN;
    Form::ALL.into_iter().filter(move |_| is_long).filter_map(|form| {
        let text = form.of(secret);
        let window = text.get(window_at(&text)..)?.first_chunk()?;
        Some((u64::from_le_bytes(*window), form))
    })
}
