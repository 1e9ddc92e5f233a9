//! What was found in a text, counted by kind.

use std::{fmt, ops::AddAssign};

use serde::Serialize;

/// What was found in a text, counted by kind. In a record only the kinds that were found are
/// named, in the order of their names.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Findings {
    /// Characters that change the order in which text is shown.
    #[serde(skip_serializing_if = "is_zero")]
    pub bidi: u32,
    /// Control characters other than TAB, LF and CR.
    #[serde(skip_serializing_if = "is_zero")]
    pub controls: u32,
    /// Escape sequences, each counted once, however long.
    #[serde(skip_serializing_if = "is_zero")]
    pub escapes: u32,
    /// Code points that are never characters.
    #[serde(skip_serializing_if = "is_zero")]
    pub noncharacters: u32,
    /// Variation selectors that select nothing.
    #[serde(skip_serializing_if = "is_zero")]
    pub selectors: u32,
    /// Tag characters, with which a whole text can be written invisibly.
    #[serde(skip_serializing_if = "is_zero")]
    pub tags: u32,
    /// Characters without width or shape.
    #[serde(skip_serializing_if = "is_zero")]
    pub zero_width: u32,
}

/// Why something is removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Tag,
    Bidi,
    ZeroWidth,
    Selector,
    Escape,
    Control,
    Noncharacter,
}

impl Findings {
    /// Was nothing found?
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.total() == 0
    }

    /// How much was found, of every kind. Counts stop at `u32::MAX`.
    #[must_use]
    pub const fn total(&self) -> u32 {
        self.tags
            .saturating_add(self.bidi)
            .saturating_add(self.zero_width)
            .saturating_add(self.selectors)
            .saturating_add(self.escapes)
            .saturating_add(self.controls)
            .saturating_add(self.noncharacters)
    }

    pub(super) const fn count(&mut self, kind: Kind) {
        let count = match kind {
            Kind::Tag => &mut self.tags,
            Kind::Bidi => &mut self.bidi,
            Kind::ZeroWidth => &mut self.zero_width,
            Kind::Selector => &mut self.selectors,
            Kind::Escape => &mut self.escapes,
            Kind::Control => &mut self.controls,
            Kind::Noncharacter => &mut self.noncharacters,
        };
        *count = count.saturating_add(1);
    }
}

impl AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.tags = self.tags.saturating_add(other.tags);
        self.bidi = self.bidi.saturating_add(other.bidi);
        self.zero_width = self.zero_width.saturating_add(other.zero_width);
        self.selectors = self.selectors.saturating_add(other.selectors);
        self.escapes = self.escapes.saturating_add(other.escapes);
        self.controls = self.controls.saturating_add(other.controls);
        self.noncharacters = self.noncharacters.saturating_add(other.noncharacters);
    }
}

/// `2 tag characters, 1 bidi control`
impl fmt::Display for Findings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            (self.tags, "tag character"),
            (self.bidi, "bidi control"),
            (self.zero_width, "zero-width character"),
            (self.selectors, "stray variation selector"),
            (self.escapes, "escape sequence"),
            (self.controls, "control character"),
            (self.noncharacters, "noncharacter"),
        ];
        let mut separator = "";
        for (count, name) in kinds.into_iter().filter(|(count, _)| *count > 0) {
            let plural = if count == 1 { "" } else { "s" };
            write!(formatter, "{separator}{count} {name}{plural}")?;
            separator = ", ";
        }
        if separator.is_empty() { formatter.write_str("nothing hidden") } else { Ok(()) }
    }
}

const fn is_zero(count: &u32) -> bool {
    *count == 0
}
