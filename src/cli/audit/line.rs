//! Records as lines: aligned for people, JSON for programs.

use std::io::{self, Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    audit::{index::Match, reader::RecordView},
    cli::output::{BAD, DIM, DOUBT, GOOD, Printer},
    hygiene::inspect,
};

/// A column grows to its longest text so far, and not beyond this.
const COLUMN_CHARACTERS_MAX: usize = 40;

/// Prints records, one a line.
#[derive(Debug)]
pub(super) struct Lines {
    is_json: bool,
    widths: [usize; 6],
}

impl Lines {
    pub(super) const fn new(printer: Printer) -> Self {
        Self { is_json: printer.is_json(), widths: [24, 9, 0, 0, 7, 0] }
    }

    /// Prints records to standard output, aligned with each other and those before. An error means
    /// that nobody reads on.
    pub(super) fn print(&mut self, records: &[Match]) -> io::Result<()> {
        let mut output = anstream::stdout();
        for line in self.lines(records) {
            writeln!(output, "{line}")?;
        }
        output.flush()
    }

    fn lines(&mut self, records: &[Match]) -> Vec<String> {
        if self.is_json {
            return records.iter().map(json_line).collect();
        }
        let cells: Vec<[String; 6]> = records.iter().map(cells).collect();
        for row in &cells {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count().min(COLUMN_CHARACTERS_MAX));
            }
        }
        records.iter().zip(&cells).map(|(record, cells)| self.line(&record.view, cells)).collect()
    }

    fn line(&self, view: &RecordView, cells: &[String; 6]) -> String {
        let [time, place, client, tool, outcome, code] = cells;
        let [time_width, place_width, client_width, tool_width, outcome_width, code_width] = self.widths;
        let style = match view.outcome.as_str() {
            "allowed" => GOOD,
            "pending" | "withheld" => DOUBT,
            "" => DIM,
            _ => BAD,
        };
        let took = view.micros.map(milliseconds).unwrap_or_default();
        let rest = format!("{code:code_width$}  {took:>9}");
        let (rest, outcome_width) = match rest.trim_end() {
            "" => (String::new(), 0), // no blanks at the end of a line
            rest => (format!("  {rest}"), outcome_width),
        };
        format!(
            "{DIM}{time:time_width$}{DIM:#}  {place:place_width$}  {client:client_width$}  {tool:tool_width$}  \
             {style}{outcome:outcome_width$}{style:#}{rest}"
        )
    }
}

/// Time, place, client, tool, outcome (or what else the record is), code.
fn cells(record: &Match) -> [String; 6] {
    let Match { log, found, view } = record;
    let time = view.time.map(|time| format!("{time:.3}")).unwrap_or_default();
    let outcome = match (view.outcome.as_str(), view.kind.as_str(), view.calls) {
        ("", "summary", calls) => format!("{calls} times"),
        ("", "", _) => "?".to_owned(),
        ("", kind, _) => kind.to_owned(),
        (outcome, _, _) => outcome.to_owned(),
    };
    let texts = [&time, &format!("{log}/{}", found.index), &view.client, &view.tool, &outcome, &view.code];
    texts.map(|text| visible(text))
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{} ms", micros / 1_000, micros / 100 % 10)
}

/// A record with its place, as one line of JSON. Its bytes stand in it as they are in the log, so
/// that their hash can be computed; bytes that are no JSON stand in base64.
pub(super) fn json_line(record: &Match) -> String {
    let Match { log, found, .. } = record;
    let (index, name) = (found.index, Value::from(log.as_str()));
    match str::from_utf8(&found.bytes) {
        Ok(text) if is_one_line_of_json(text) => {
            format!("{{\"index\":{index},\"log\":{name},\"record\":{text}}}")
        }
        _ => {
            let bytes = STANDARD.encode(&found.bytes);
            format!("{{\"base64\":\"{bytes}\",\"index\":{index},\"log\":{name}}}")
        }
    }
}

fn is_one_line_of_json(text: &str) -> bool {
    !text.bytes().any(|byte| byte < b' ') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Text in which each character that a reader would not see, or that a terminal would obey, is
/// written as its number; and a line break as well, since this is for one line.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_plain(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_unicode());
        }
    }
    shown
}

/// JSON over several lines in which such characters are escaped the way JSON does it.
pub(super) fn visible_json(bytes: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return visible(&String::from_utf8_lossy(bytes));
    };
    let text = serde_json::to_string_pretty(&value).unwrap_or_default();
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' || is_plain(character) {
            shown.push(character);
        } else {
            let units = character
                .encode_utf16(&mut [0; 2])
                .iter()
                .map(|unit| format!("\\u{unit:04x}"))
                .collect::<String>();
            shown.push_str(&units);
        }
    }
    shown
}

fn is_plain(character: char) -> bool {
    matches!(character, ' '..='~')
        || (!character.is_control() && inspect(character.encode_utf8(&mut [0; 4])).is_clean())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::reader::{Found, Place};

    fn record(bytes: &str) -> Match {
        let place = Place { segment: 0, offset: 0, tag: [0; 16] };
        let found = Found { index: 7, bytes: bytes.into(), place };
        Match { log: "serve-0".into(), view: RecordView::of(bytes.as_bytes()), found }
    }

    fn plain(lines: Vec<String>) -> String {
        lines.iter().map(|line| format!("{}\n", anstream::adapter::strip_str(line))).collect()
    }

    #[test]
    fn records_stand_in_aligned_lines() {
        let records = [
            record(
                r#"{"call":{"micros":1234,"target":"orders.get"},"caller":{"client":"alice"},"outcome":"allowed","record":"outcome","time":"2026-11-01T12:00:00.5Z"}"#,
            ),
            record(
                r#"{"call":{"micros":31,"target":"orders.close"},"caller":{"client":"bob"},"code":"policy_denied","outcome":"denied","record":"outcome","time":"2026-11-01T12:00:01Z"}"#,
            ),
            record(r#"{"code":"no_key","count":12,"record":"summary","time":"2026-11-01T12:00:02Z"}"#),
            record("no json"),
        ];
        insta::assert_snapshot!(plain(Lines::new(Printer::new(false)).lines(&records)), @"
        2026-11-01T12:00:00.500Z  serve-0/7  alice  orders.get    allowed                     1.2 ms
        2026-11-01T12:00:01.000Z  serve-0/7  bob    orders.close  denied    policy_denied     0.0 ms
        2026-11-01T12:00:02.000Z  serve-0/7                       12 times  no_key
                                  serve-0/7                       ?
        ");
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_and_not_sent() {
        assert_eq!(
            visible("a\u{1b}[2J\r\nb\u{202e}c\u{9b}d\u{7f}é\t"),
            "a\\u{1b}[2J\\u{d}\\u{a}b\\u{202e}c\\u{9b}d\\u{7f}é\\u{9}"
        );
        let json = visible_json("{\"a\":\"\\u001b[2J \u{202e}\u{e0041}\u{9b}\"}".as_bytes());
        assert_eq!(json, "{\n  \"a\": \"\\u001b[2J \\u202e\\udb40\\udc41\\u009b\"\n}");
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["a"], "\u{1b}[2J \u{202e}\u{e0041}\u{9b}");
        let line = plain(Lines::new(Printer::new(false)).lines(&[record(
            "{\"call\":{\"target\":\"x\\u001b]0;title\\u0007\\n\"},\"record\":\"intent\"}",
        )]));
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
    }

    #[test]
    fn the_bytes_of_a_record_stand_in_its_line_as_they_are() {
        assert_eq!(json_line(&record(r#"{"n":1.0}"#)), r#"{"index":7,"log":"serve-0","record":{"n":1.0}}"#);
        assert_eq!(json_line(&record("{}x")), r#"{"base64":"e314","index":7,"log":"serve-0"}"#);
        assert_eq!(json_line(&record("[1,\n2]")), r#"{"base64":"WzEsCjJd","index":7,"log":"serve-0"}"#);
    }
}
