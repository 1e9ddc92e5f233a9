//! What a character is to a reader: plain, removed wherever it stands, or judged by its neighbours.

use super::findings::Kind;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// Stays wherever it stands.
    Plain,
    /// Starts an escape sequence (ESC, and the C1 controls that take what follows them along).
    Introducer,
    /// Goes wherever it stands.
    Never(Kind),
    /// Stays where it does something that the reader sees.
    Contextual(Contextual),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Contextual {
    /// U+034F: keeps Hebrew points in their order.
    GraphemeJoiner,
    /// U+061C, U+200E, U+200F: a direction for the neutral characters beside them.
    DirectionMark,
    /// U+180B–180D, U+180F: forms of Mongolian letters.
    MongolianSelector,
    /// U+180E: before a last vowel in Mongolian.
    VowelSeparator,
    /// U+200B: where a line may break in scripts without spaces.
    ZeroWidthSpace,
    /// U+200C.
    NonJoiner,
    /// U+200D.
    Joiner,
    /// U+FE00–FE0F, U+E0100–E01EF.
    Selector,
}

impl Contextual {
    /// What it is counted as where it does nothing.
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::DirectionMark => Kind::Bidi,
            Self::MongolianSelector | Self::Selector => Kind::Selector,
            Self::GraphemeJoiner
            | Self::VowelSeparator
            | Self::ZeroWidthSpace
            | Self::NonJoiner
            | Self::Joiner => Kind::ZeroWidth,
        }
    }
}

/// The class of a character. A test holds this to Unicode's own list of ignorable code points.
pub(super) const fn of(character: char) -> Class {
    use Class::{Contextual as Judged, Introducer, Never, Plain};
    match character {
        '\t' | '\n' | '\r' | ' '..='~' => Plain,
        '\u{1B}' | '\u{90}' | '\u{98}' | '\u{9B}' | '\u{9D}'..='\u{9F}' => Introducer,
        '\0'..='\u{1F}' | '\u{7F}'..='\u{9F}' => Never(Kind::Control),
        '\u{34F}' => Judged(Contextual::GraphemeJoiner),
        '\u{61C}' | '\u{200E}' | '\u{200F}' => Judged(Contextual::DirectionMark),
        '\u{180B}'..='\u{180D}' | '\u{180F}' => Judged(Contextual::MongolianSelector),
        '\u{180E}' => Judged(Contextual::VowelSeparator),
        '\u{200B}' => Judged(Contextual::ZeroWidthSpace),
        '\u{200C}' => Judged(Contextual::NonJoiner),
        '\u{200D}' => Judged(Contextual::Joiner),
        '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' => Judged(Contextual::Selector),
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => Never(Kind::Bidi),
        '\u{E0000}'..='\u{E007F}' => Never(Kind::Tag),
        '\u{FDD0}'..='\u{FDEF}' => Never(Kind::Noncharacter),
        _ if character as u32 & 0xFFFE == 0xFFFE => Never(Kind::Noncharacter),
        '\u{AD}'
        | '\u{115F}'..='\u{1160}'
        | '\u{17B4}'..='\u{17B5}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206A}'..='\u{206F}'
        | '\u{3164}'
        | '\u{FEFF}'
        | '\u{FFA0}'
        | '\u{FFF0}'..='\u{FFFB}'
        | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0080}'..='\u{E0FFF}' => Never(Kind::ZeroWidth),
        _ => Plain,
    }
}

/// Are all characters plain? Most texts are, and most of them are ASCII.
pub(super) fn is_plain(text: &str) -> bool {
    let mut rest = text;
    loop {
        let ascii = plain_ascii_prefix(rest.as_bytes());
        let Some(after) = rest.get(ascii..) else { return false }; // never: it ends before an ASCII byte
        // From a character that needs a look to where plain ASCII is worth another try.
        let mut characters = after.chars();
        let mut plain_in_a_row = 0;
        loop {
            match characters.next() {
                None => return true,
                Some(character) if of(character) != Class::Plain => return false,
                Some(character) if character.is_ascii() => plain_in_a_row += 1,
                Some(_) => plain_in_a_row = 0,
            }
            if plain_in_a_row == CHUNK_BYTES {
                break;
            }
        }
        rest = characters.as_str();
    }
}

/// A whole number of vector registers.
const CHUNK_BYTES: usize = 32;

/// How many bytes from the start, in whole chunks, are plain ASCII.
fn plain_ascii_prefix(bytes: &[u8]) -> usize {
    let is_plain_chunk = |chunk: &&[u8; CHUNK_BYTES]| {
        // No early exit inside a chunk, so that it compiles to vector instructions.
        !chunk.iter().fold(false, |found, byte| {
            let control = *byte < 0x20 && *byte != b'\t' && *byte != b'\n' && *byte != b'\r';
            found | control | (*byte >= 0x7F)
        })
    };
    let (chunks, _) = bytes.as_chunks::<CHUNK_BYTES>();
    chunks.iter().take_while(is_plain_chunk).count() * CHUNK_BYTES
}
