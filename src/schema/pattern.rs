//! Patterns: which are taken, and what they and other keywords cost for each byte of a string.

use jsonschema::PatternOptions;
use regex_automata::{dfa::dense, nfa::thompson};
use regex_syntax::hir::{Hir, HirKind, Look};
use serde_json::{Value, json};

/// The largest compiled pattern, in bytes: enough for a hundred letters of any script.
pub(super) const PATTERN_BYTES_MAX: usize = 8 << 20;
/// The most that all compiled patterns of a schema take together.
pub(super) const PATTERNS_KIB_MAX: u64 = 32 << 10;

/// A pattern whose states all fit in this is run from a table. The engine's cache holds 2 MiB, of which
/// the table and the sets of positions behind it take at most half.
const TABLE_BYTES_MAX: usize = 512 << 10;
/// For each byte, a table takes up to 10 ns.
const TABLE_SIXTEENTHS: u64 = 16;
/// For each byte, every place in a pattern where a match may have got to takes up to 40 ns: the engine
/// gives its cache up where the sets of them do not repeat.
const PLACE_SIXTEENTHS: u64 = 32;

/// The engine that runs in linear time.
pub(super) fn options() -> PatternOptions<jsonschema::Regex> {
    PatternOptions::regex().size_limit(PATTERN_BYTES_MAX)
}

/// Why a pattern is not taken.
pub(super) fn refusal(pattern: &str) -> Option<String> {
    let schema = json!({ "pattern": pattern });
    let built = jsonschema::options().with_pattern_options(options()).build(&schema);
    built.err().map(|error| error.to_string())
}

/// Sixteenths of a step (a step is about 20 ns) that a keyword takes for each byte of a string.
pub(super) fn bytes_cost(keyword: &str, value: &Value) -> u64 {
    match keyword {
        "minLength" | "maxLength" | "enum" | "const" => 1,
        // The slowest, `uri-reference` on a long host, takes 100 ns a byte.
        "format" => 96,
        "pattern" => value.as_str().map_or(0, pattern_cost),
        _ => 0,
    }
}

/// A pattern runs in linear time, and the factor is the number of places in it that can be live at once:
/// one for most, and for `[ab]{0,200}a[ab]{200}c` all 400, which take up to 13 µs a byte.
fn pattern_cost(pattern: &str) -> u64 {
    if automaton(pattern).is_some_and(|automaton| fits_a_table(&automaton)) {
        return TABLE_SIXTEENTHS;
    }
    places(pattern).saturating_mul(PLACE_SIXTEENTHS)
}

/// The size of a compiled pattern in KiB.
pub(super) fn compiled_kib(pattern: &str) -> u64 {
    let bytes = automaton(pattern).map_or(PATTERN_BYTES_MAX, |automaton| automaton.memory_usage());
    u64::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u64::MAX)
}

/// The pattern as the engine compiles it; none where it is too large, or written as only ECMA 262 has it.
fn automaton(pattern: &str) -> Option<thompson::NFA> {
    let config = thompson::Config::new().nfa_size_limit(Some(PATTERN_BYTES_MAX));
    thompson::Compiler::new().configure(config).build(pattern).ok()
}

fn fits_a_table(automaton: &thompson::NFA) -> bool {
    let limit = Some(TABLE_BYTES_MAX);
    let config = dense::Config::new().dfa_size_limit(limit).determinize_size_limit(limit);
    dense::Builder::new().configure(config).build_from_nfa(automaton).is_ok()
}

/// How many places of a pattern can be live at once, at most.
fn places(pattern: &str) -> u64 {
    // What only ECMA 262 reads is taken for the largest there is.
    let Ok(parsed) = regex_syntax::parse(pattern) else { return 1 << 16 };
    let anchored = parsed.properties().look_set_prefix().contains(Look::Start);
    live(&parsed, anchored)
}

/// The same for a part. `once` says that matches of the part all begin at one place of the string, so that
/// a repetition of parts of one length can be in one of its rounds only.
fn live(part: &Hir, once: bool) -> u64 {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) => 1,
        HirKind::Literal(_) if once => 1,
        HirKind::Literal(literal) => u64::try_from(literal.0.len()).unwrap_or(u64::MAX),
        HirKind::Capture(capture) => live(&capture.sub, once).saturating_add(2),
        HirKind::Repetition(rounds) => {
            let one_length = chars(&rounds.sub).is_some_and(|chars| chars > 0);
            let copies = if once && one_length { 1 } else { rounds.max.unwrap_or(rounds.min + 1).max(1) };
            live(&rounds.sub, once && one_length).saturating_add(1).saturating_mul(copies.into())
        }
        HirKind::Concat(parts) => {
            let mut once = once;
            let mut sum = 1_u64;
            for part in parts {
                sum = sum.saturating_add(live(part, once));
                once &= chars(part).is_some();
            }
            sum
        }
        HirKind::Alternation(branches) => {
            branches.iter().map(|branch| live(branch, once).saturating_add(1)).fold(1, u64::saturating_add)
        }
    }
}

/// How many characters a part takes, where that does not vary.
fn chars(part: &Hir) -> Option<u64> {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(0),
        HirKind::Class(_) => Some(1),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0).ok()?;
            u64::try_from(text.chars().count()).ok()
        }
        HirKind::Capture(capture) => chars(&capture.sub),
        HirKind::Repetition(rounds) if rounds.max == Some(rounds.min) => {
            chars(&rounds.sub)?.checked_mul(rounds.min.into())
        }
        HirKind::Repetition(_) => None,
        HirKind::Concat(parts) => parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(chars(part)?)),
        HirKind::Alternation(branches) => {
            let mut lengths = branches.iter().map(chars);
            let first = lengths.next()??;
            lengths.all(|length| length == Some(first)).then_some(first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex_automata::{
        nfa::thompson::State,
        util::{look::Look, primitives::StateID},
    };
    use std::collections::BTreeSet;

    /// Adds the states that are reached without a byte. `^` holds at the start only; other assertions
    /// let everything through.
    fn reach(automaton: &thompson::NFA, from: StateID, at_start: bool, into: &mut BTreeSet<StateID>) {
        let mut open = vec![from];
        while let Some(id) = open.pop() {
            if !into.insert(id) {
                continue;
            }
            match automaton.state(id) {
                State::Look { look: Look::Start, .. } if !at_start => {}
                State::Look { next, .. } | State::Capture { next, .. } => open.push(*next),
                State::Union { alternates } => open.extend(alternates.iter()),
                State::BinaryUnion { alt1, alt2 } => open.extend([*alt1, *alt2]),
                _ => {}
            }
        }
    }

    /// The most states that are live at once while the automaton runs over a text.
    fn most_live(pattern: &str, text: &str) -> u64 {
        let automaton = automaton(pattern).unwrap();
        let mut live = BTreeSet::new();
        reach(&automaton, automaton.start_unanchored(), true, &mut live);
        let mut most = live.len();
        for byte in text.bytes() {
            let mut next = BTreeSet::new();
            for id in &live {
                let to = match automaton.state(*id) {
                    State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
                    State::Sparse(transitions) => transitions.matches_byte(byte),
                    State::Dense(transitions) => transitions.matches_byte(byte),
                    _ => None,
                };
                to.into_iter().for_each(|to| reach(&automaton, to, false, &mut next));
            }
            live = next;
            most = most.max(live.len());
        }
        u64::try_from(most).unwrap()
    }

    fn patterns() -> impl Strategy<Value = String> {
        let leaf =
            prop::sample::select(vec!["a", "b", "[ab]", "é", "[aé中]", ".", "ab", "[^a]", "\\pL", "$", ""]);
        let part = leaf.prop_map(str::to_owned).prop_recursive(4, 16, 3, |inner| {
            let count = prop::sample::select(vec!["*", "+", "?", "{3}", "{0,4}", "{1,3}", "{2,}"]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
                prop::collection::vec(inner.clone(), 2..4)
                    .prop_map(|parts| format!("(?:{})", parts.join("|"))),
                inner.clone().prop_map(|part| format!("({part})")),
                (inner, count).prop_map(|(part, count)| format!("(?:{part}){count}")),
            ]
        });
        (prop::bool::ANY, part).prop_map(
            |(anchored, part)| {
                if anchored { format!("^(?:{part})") } else { part }
            },
        )
    }

    #[test]
    fn no_text_brings_more_places_of_a_pattern_to_life_than_are_priced() {
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(600));
        let texts = prop::collection::vec("[abé中x]{0,20}", 3);
        runner
            .run(&(patterns(), texts), |(pattern, texts)| {
                for text in texts {
                    let (found, priced) = (most_live(&pattern, &text), places(&pattern));
                    // Besides the places, an automaton has two states to begin anywhere, two that hold
                    // the whole match, and one that ends it; a place has at most two beside it.
                    prop_assert!(found <= 2 * priced + 5, "{found} of {priced}: `{pattern}` on `{text}`");
                }
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn ordinary_patterns_are_cheap_and_hard_ones_dear() {
        for ordinary in
            ["^ord_[a-z0-9]{8}$", "^[a-z0-9._%+-]+@[a-z0-9.-]+\\.[a-z]{2,}$", "^[A-Z]{3}-[0-9]{4}$"]
        {
            assert_eq!(pattern_cost(ordinary), TABLE_SIXTEENTHS, "{ordinary}");
        }
        for letters in ["^[\\p{L}]{1,100}$", "^[\\p{L}\\p{M} .'’-]{1,100}$"] {
            assert_eq!(refusal(letters), None);
            assert!(pattern_cost(letters) <= 6 * PLACE_SIXTEENTHS, "{letters}: {}", pattern_cost(letters));
        }
        assert!(pattern_cost("[ab]{0,200}a[ab]{200}c") > 400 * PLACE_SIXTEENTHS);
        assert!(pattern_cost("^[ab]*a[ab]{20}$") > 20 * PLACE_SIXTEENTHS);
    }
}
