//! A text as tokens, and the verdict on each.

use super::{
    class::{self, Class, Contextual},
    context::{Before, stays},
    escape,
    findings::Kind,
    work,
};

/// The three emoji tag sequences in general use (UTS 51, `emoji-sequences.txt`): the flags of
/// England, Scotland and Wales. Everything else made of tags is removed.
const FLAGS: [&str; 3] = [
    "\u{1F3F4}\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
    "\u{1F3F4}\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F}",
    "\u{1F3F4}\u{E0067}\u{E0062}\u{E0077}\u{E006C}\u{E0073}\u{E007F}",
];
const BLACK_FLAG: char = '\u{1F3F4}';
const LAST_TAG: char = '\u{E007F}';

/// A piece of the text, and why it is removed, if it is.
pub(super) struct Verdict<'a> {
    pub(super) text: &'a str,
    pub(super) removed: Option<Kind>,
}

/// Every piece of a text, in order: together they are the text.
pub(super) struct Verdicts<'a> {
    tokens: Tokens<'a>,
    before: Before,
}

impl<'a> Verdicts<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { tokens: Tokens { rest: text }, before: Before::new() }
    }
}

impl<'a> Iterator for Verdicts<'a> {
    type Item = Verdict<'a>;

    fn next(&mut self) -> Option<Verdict<'a>> {
        let token = self.tokens.next()?;
        let removed = match token.sort {
            Sort::Removed(kind) => Some(kind),
            Sort::Plain => None,
            Sort::Judged(contextual) => {
                let judged = stays(token.last, contextual, &self.before, self.tokens.clone().survivors());
                (!judged).then(|| contextual.kind())
            }
        };
        if removed.is_none() {
            self.before.push(token.last);
        }
        Some(Verdict { text: token.text, removed })
    }
}

#[derive(Clone, Copy)]
enum Sort {
    Plain,
    Judged(Contextual),
    Removed(Kind),
}

#[derive(Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    last: char,
    sort: Sort,
}

#[derive(Clone)]
struct Tokens<'a> {
    rest: &'a str,
}

/// A character that no rule removes wherever it stands.
#[derive(Clone, Copy)]
pub(super) struct Survivor {
    pub(super) character: char,
    /// It is sure to stay, whatever stands beside it.
    pub(super) is_plain: bool,
}

impl<'a> Tokens<'a> {
    fn survivors(self) -> impl Iterator<Item = Survivor> + 'a {
        self.filter_map(|token| match token.sort {
            Sort::Removed(_) => None,
            Sort::Plain => Some(Survivor { character: token.last, is_plain: true }),
            Sort::Judged(_) => Some(Survivor { character: token.last, is_plain: false }),
        })
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let first = self.rest.chars().next()?;
        let (length, last, sort) = match class::of(first) {
            Class::Plain if first == BLACK_FLAG => flag(self.rest),
            Class::Plain => (first.len_utf8(), first, Sort::Plain),
            Class::Introducer => (escape::length(self.rest), first, Sort::Removed(Kind::Escape)),
            Class::Never(kind) => (first.len_utf8(), first, Sort::Removed(kind)),
            Class::Contextual(contextual) => (first.len_utf8(), first, Sort::Judged(contextual)),
        };
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        work::done(1);
        Some(Token { text, last, sort })
    }
}

/// A black flag, with its tags if they spell one of the three flags. Its last character is what the
/// neighbours see, so that a flag of tags takes no further selector or joiner.
fn flag(text: &str) -> (usize, char, Sort) {
    match FLAGS.iter().find(|flag| text.starts_with(**flag)) {
        Some(flag) => (flag.len(), LAST_TAG, Sort::Plain),
        None => (BLACK_FLAG.len_utf8(), BLACK_FLAG, Sort::Plain),
    }
}
