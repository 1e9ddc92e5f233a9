//! How much work a text makes: a test holds it against the text's length, which a clock cannot.

#[cfg(test)]
thread_local! {
    /// Tokens made and bytes of sequences looked at, those of looks ahead included.
    pub(super) static DONE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts so many steps.
#[cfg(test)]
pub(super) fn done(steps: usize) {
    DONE.set(DONE.get() + steps);
}

/// Counts in tests alone.
#[cfg(not(test))]
pub(super) const fn done(_: usize) {}
