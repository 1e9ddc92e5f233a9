//! Where a character that is not seen by itself does something that is seen.
//!
//! Neighbours are those that stay: to the left what was kept, to the right the next character that
//! is plain. A run of such characters never stays, apart from a selector before a joiner or a mark.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{
        BidiClass, BinaryProperty, CanonicalCombiningClass, Emoji, EmojiModifier, EnumeratedProperty,
        ExtendedPictographic, GeneralCategory, GeneralCategoryGroup, IndicSyllabicCategory, JoiningType,
        LineBreak, Math, Script,
    },
};

use super::{
    class::{self, Class, Contextual},
    token::Survivor,
};

/// How far a direction mark may stand from the text it serves, and a joiner from its letter, in
/// characters that stay.
const REACH: usize = 16;

/// The last characters that were kept.
pub(super) struct Before {
    ring: [char; REACH],
    kept: usize,
}

impl Before {
    pub(super) const fn new() -> Self {
        Self { ring: ['\n'; REACH], kept: 0 }
    }

    pub(super) fn push(&mut self, character: char) {
        if let Some(slot) = self.ring.get_mut(self.kept % REACH) {
            *slot = character;
        }
        self.kept = self.kept.wrapping_add(1);
    }

    /// From the last one back; line breaks stand before the first.
    fn iter(&self) -> impl Iterator<Item = char> {
        (1..=REACH).filter_map(|back| self.ring.get((self.kept.wrapping_sub(back)) % REACH).copied())
    }

    fn last(&self) -> char {
        self.iter().next().unwrap_or('\n')
    }

    /// The letter that the last characters belong to: marks and what was judged are passed over.
    fn letter(&self) -> Option<char> {
        self.letter_and_before().map(|(letter, _)| letter)
    }

    /// That letter, and what stands before it, unless that is too far away.
    fn letter_and_before(&self) -> Option<(char, Option<char>)> {
        let mut back = self.iter().skip_while(|character| {
            class_of(*character).is_some() || group(*character, GeneralCategoryGroup::NonspacingMark)
        });
        let letter = back.next().filter(|base| group(*base, GeneralCategoryGroup::Letter))?;
        Some((letter, back.next()))
    }
}

/// Does this character do something here that a reader sees?
pub(super) fn stays(
    character: char,
    contextual: Contextual,
    before: &Before,
    after: impl Iterator<Item = Survivor>,
) -> bool {
    let mut after = after.take(REACH).peekable();
    let is_last = after.peek().is_none();
    let next = after.peek().filter(|next| next.is_plain).map(|next| next.character);
    let last = before.last();
    match contextual {
        Contextual::DirectionMark => {
            class_of(last) != Some(Contextual::DirectionMark) && is_beside_right_to_left(before, after)
        }
        Contextual::Selector => is_plain(last) && selects(last, character, next),
        Contextual::MongolianSelector => is_plain(last) && is_mongolian_letter(last),
        Contextual::VowelSeparator => {
            can_join(last)
                && before.letter().is_some_and(is_mongolian_letter)
                && next.is_some_and(is_mongolian_letter)
        }
        Contextual::GraphemeJoiner => {
            is_plain(last) && is_hebrew_point(last) && next.is_some_and(is_hebrew_point)
        }
        Contextual::ZeroWidthSpace => {
            is_plain(last) && (is_without_spaces(last) || next.is_some_and(is_without_spaces))
        }
        Contextual::NonJoiner => {
            can_join(last)
                && (next.is_some_and(is_cursive)
                    || (is_last || next.is_some_and(is_no_mark)) && ends_cursive(before)
                    || joins_indic(last, next))
        }
        Contextual::Joiner => {
            can_join(last)
                && (joins_emoji(before, next)
                    || before.letter().is_some_and(is_cursive)
                    || next.is_some_and(is_cursive)
                    || joins_indic(last, next))
        }
    }
}

/// A joiner follows what it joins, or the selector of that.
fn can_join(last: char) -> bool {
    matches!(class_of(last), None | Some(Contextual::Selector | Contextual::MongolianSelector))
}

/// An emoji, with its selector or skin tone, before; another after (UTS 51 §2.2, ED-16).
fn joins_emoji(before: &Before, next: Option<char>) -> bool {
    let mut left = before.iter().skip_while(|character| {
        has::<EmojiModifier>(*character) || matches!(character, '\u{FE0E}' | '\u{FE0F}')
    });
    left.next().is_some_and(has::<ExtendedPictographic>) && next.is_some_and(has::<ExtendedPictographic>)
}

/// After a letter of a script whose letters join, whatever comes next: it shows the form that the
/// letter has at the end of a word. Not if the letter has a non-joiner before it: one is all that a
/// letter can hide.
fn ends_cursive(before: &Before) -> bool {
    before.letter_and_before().is_some_and(|(letter, before)| {
        is_cursive(letter) && before.is_some_and(|before| class_of(before) != Some(Contextual::NonJoiner))
    })
}

/// After a virama, wherever it stands (a half form, a chillu); else inside one script.
fn joins_indic(last: char, next: Option<char>) -> bool {
    let script = property::<Script>(last);
    let same_script = |next: char| is_letter_or_mark(next) && property::<Script>(next) == script;
    is_indic(last) && (is_virama(last) || next.is_some_and(same_script))
}

/// Is the nearest character with a direction, on the same line to either side, right-to-left?
fn is_beside_right_to_left(before: &Before, after: impl Iterator<Item = Survivor>) -> bool {
    let plain_after = after.filter(|survivor| survivor.is_plain).map(|survivor| survivor.character);
    let mut directions_before = before.iter().filter(|character| is_plain(*character)).filter_map(direction);
    let mut directions_after = plain_after.filter_map(direction);
    directions_before.next() == Some(Direction::RightToLeft)
        || directions_after.next() == Some(Direction::RightToLeft)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    RightToLeft,
    /// Left-to-right, or the end of the line: no need to look further.
    Other,
}

fn direction(character: char) -> Option<Direction> {
    match property::<BidiClass>(character) {
        BidiClass::RightToLeft | BidiClass::ArabicLetter | BidiClass::ArabicNumber => {
            Some(Direction::RightToLeft)
        }
        BidiClass::LeftToRight | BidiClass::ParagraphSeparator => Some(Direction::Other),
        _ => None,
    }
}

/// Can this base take this selector? By `StandardizedVariants.txt`, `emoji-variation-sequences.txt`
/// and UTS 37, as classes of bases: no crate has the lists, and they grow.
fn selects(base: char, selector: char, next: Option<char>) -> bool {
    match selector {
        '\u{FE0E}' | '\u{FE0F}' if base.is_ascii() => {
            matches!(base, '0'..='9' | '#' | '*') && next == Some('\u{20E3}') // a keycap
        }
        '\u{FE0E}' | '\u{FE0F}' => has::<Emoji>(base),
        '\u{FE00}'..='\u{FE02}' => {
            is_ideograph(base)
                || has::<Math>(base) && !base.is_ascii()
                || matches!(property::<Script>(base), Script::Myanmar | Script::PhagsPa | Script::Manichaean)
                || matches!(
                    base,
                    '‘' | '’' | '“' | '”' | '、' | '。' | '！' | '，' | '．' | '：' | '；' | '？' | '０'
                )
                || is_hieroglyph(base)
        }
        '\u{FE03}'..='\u{FE06}' => is_hieroglyph(base),
        '\u{E0100}'..='\u{E01EF}' => is_ideograph(base),
        _ => false,
    }
}

fn class_of(character: char) -> Option<Contextual> {
    match class::of(character) {
        Class::Contextual(contextual) => Some(contextual),
        _ => None,
    }
}

fn is_plain(character: char) -> bool {
    class::of(character) == Class::Plain
}

/// A letter of a script whose letters join: Arabic, Syriac, N'Ko, Mongolian, Adlam and so on.
fn is_cursive(character: char) -> bool {
    let joins = matches!(
        property::<JoiningType>(character),
        JoiningType::DualJoining | JoiningType::RightJoining | JoiningType::LeftJoining
    );
    let arabic = || property::<Script>(character) == Script::Arabic;
    let letter = || group(character, GeneralCategoryGroup::Letter);
    is_plain(character) && (joins || letter() && arabic())
}

/// A letter or mark of a script of the Indic kind, of those that use joiners.
fn is_indic(character: char) -> bool {
    is_plain(character)
        && is_letter_or_mark(character)
        && property::<IndicSyllabicCategory>(character) != IndicSyllabicCategory::Other
        && !matches!(property::<Script>(character), Script::Thai | Script::Lao | Script::TaiViet)
}

fn is_virama(character: char) -> bool {
    property::<CanonicalCombiningClass>(character) == CanonicalCombiningClass::Virama
}

fn is_letter_or_mark(character: char) -> bool {
    group(character, GeneralCategoryGroup::Letter.union(GeneralCategoryGroup::Mark))
}

fn is_no_mark(character: char) -> bool {
    !group(character, GeneralCategoryGroup::Mark)
}

fn is_mongolian_letter(character: char) -> bool {
    property::<Script>(character) == Script::Mongolian && group(character, GeneralCategoryGroup::Letter)
}

fn is_hebrew_point(character: char) -> bool {
    property::<Script>(character) == Script::Hebrew && group(character, GeneralCategoryGroup::NonspacingMark)
}

/// Thai, Lao, Khmer, Myanmar and others write without spaces (UAX 14, class SA).
fn is_without_spaces(character: char) -> bool {
    property::<LineBreak>(character) == LineBreak::ComplexContext
}

fn is_ideograph(character: char) -> bool {
    property::<Script>(character) == Script::Han && group(character, GeneralCategoryGroup::OtherLetter)
}

fn is_hieroglyph(character: char) -> bool {
    property::<Script>(character) == Script::EgyptianHieroglyphs
}

fn group(character: char, group: GeneralCategoryGroup) -> bool {
    group.contains(property::<GeneralCategory>(character))
}

fn property<P: EnumeratedProperty>(character: char) -> P {
    CodePointMapData::<P>::new().get(character)
}

fn has<P: BinaryProperty>(character: char) -> bool {
    CodePointSetData::new::<P>().contains(character)
}
