//! Patterns: which are taken, and what they and other keywords cost for each byte of a string.

use jsonschema::PatternOptions;
use serde_json::{Value, json};

/// The largest compiled pattern, in bytes: more than any sensible pattern takes.
pub(super) const PATTERN_BYTES_MAX: usize = 1 << 20;
/// The most that all compiled patterns of a schema take together.
pub(super) const PATTERNS_KIB_MAX: u64 = 8 << 10;

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
///
/// A pattern runs in linear time, and the factor grows with its size: `[ab]{0,200}a[ab]{200}c` compiles
/// to 64 KiB and takes up to 1.5 µs a byte. One step per KiB stays above what was measured.
pub(super) fn bytes_cost(keyword: &str, value: &Value) -> u64 {
    match keyword {
        "minLength" | "maxLength" | "enum" | "const" => 1,
        // The slowest, `uri-reference` on a long host, takes 100 ns a byte.
        "format" => 96,
        "pattern" => value.as_str().map_or(0, |pattern| 16 * compiled_kib(pattern)),
        _ => 0,
    }
}

/// The size of a compiled pattern in KiB, rounded up to a power of two.
pub(super) fn compiled_kib(pattern: &str) -> u64 {
    let fits = |kib: &usize| regex::RegexBuilder::new(pattern).size_limit(kib << 10).build().is_ok();
    let largest = PATTERN_BYTES_MAX >> 10;
    let found = std::iter::successors(Some(1_usize), |kib| Some(kib * 2).filter(|kib| *kib <= largest));
    let kib = found.into_iter().find(fits).unwrap_or(largest);
    u64::try_from(kib).unwrap_or(u64::MAX)
}
