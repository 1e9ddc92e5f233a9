//! Records as lines: aligned for people, JSON for programs.

use std::io::{self, Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    audit::{index::Match, reader::RecordView},
    cli::{
        output::{BAD, DIM, DOUBT, GOOD, Printer},
        visible::{escaped_json, visible},
    },
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

/// A record with its place, as one line of JSON. Its bytes stand in it as they are in the log, but
/// for characters that a terminal would obey or a reader not see, which are escaped as JSON does it;
/// bytes that are no JSON stand in base64.
pub(super) fn json_line(record: &Match) -> String {
    let Match { log, found, .. } = record;
    let (index, name) = (found.index, Value::from(log.as_str()));
    match str::from_utf8(&found.bytes) {
        Ok(text) if is_one_line_of_json(text) => {
            escaped_json(&format!("{{\"index\":{index},\"log\":{name},\"record\":{text}}}"))
        }
        _ => {
            let bytes = STANDARD.encode(&found.bytes);
            escaped_json(&format!("{{\"base64\":\"{bytes}\",\"index\":{index},\"log\":{name}}}"))
        }
    }
}

fn is_one_line_of_json(text: &str) -> bool {
    !text.bytes().any(|byte| byte < b' ') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
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
        insta::assert_snapshot!(plain(Lines::new(Printer::alone(false)).lines(&records)), @"
        2026-11-01T12:00:00.500Z  serve-0/7  alice  orders.get    allowed                     1.2 ms
        2026-11-01T12:00:01.000Z  serve-0/7  bob    orders.close  denied    policy_denied     0.0 ms
        2026-11-01T12:00:02.000Z  serve-0/7                       12 times  no_key
                                  serve-0/7                       ?
        ");
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_and_not_sent() {
        let line = plain(Lines::new(Printer::alone(false)).lines(&[record(
            "{\"call\":{\"target\":\"x\\u001b]0;title\\u0007\\n\"},\"record\":\"intent\"}",
        )]));
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
    }

    #[test]
    fn a_line_of_json_holds_nothing_that_a_terminal_would_obey_and_the_same_value() {
        let hostile = "{\"n\":1.0,\"t\":\"a\u{202e}b\u{9b}2Jc\u{7f}d\u{e0041}\u{2028}é\"}";
        let line = json_line(&record(hostile));
        assert_eq!(
            line,
            r#"{"index":7,"log":"serve-0","record":{"n":1.0,"t":"a\u202eb\u009b2Jc\u007fd\udb40\udc41\u2028é"}}"#
        );
        let (escaped, whole): (Value, Value) =
            (serde_json::from_str(&line).unwrap(), serde_json::from_str(hostile).unwrap());
        assert_eq!(escaped["record"], whole);
        // So is every line of `--json`: of `tail`, of `search`, of `show`.
        assert_eq!(Lines::new(Printer::alone(true)).lines(&[record(hostile)]), [line]);
    }

    #[test]
    fn the_rest_of_a_record_stands_in_its_line_as_it_is() {
        assert_eq!(json_line(&record(r#"{"n":1.0}"#)), r#"{"index":7,"log":"serve-0","record":{"n":1.0}}"#);
        assert_eq!(json_line(&record("{}x")), r#"{"base64":"e314","index":7,"log":"serve-0"}"#);
        assert_eq!(json_line(&record("[1,\n2]")), r#"{"base64":"WzEsCjJd","index":7,"log":"serve-0"}"#);
    }
}
