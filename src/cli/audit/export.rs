//! `callgate audit export`: records as JSON lines or as a table.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use super::{
    Failure,
    filter::{FILTERS, FilterArguments},
    line::json_line,
    place::State,
    verify::count as plural,
};
use crate::{
    audit::{
        index::{Filter, Match},
        reader::{self, LogFolder, RecordView},
    },
    cli::{output::Printer, visible::visible},
};

/// What `export` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// JSON lines hold whole records; a table has the columns that lists show.
    #[arg(long, value_enum)]
    format: Format,
    /// Write to this file; left out, to standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    state: State,
    #[command(flatten, next_help_heading = FILTERS)]
    filter: FilterArguments,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    Jsonl,
    Csv,
}

/// An export reads the logs themselves, one after the other, and asks no index: what is missing in
/// it is missing in the log. The first damage ends it with an error.
pub(super) fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    let (logs, filter) = (reader::logs(&state)?, arguments.filter.filter(&state)?);
    let Some(path) = &arguments.output else {
        let written = write(&logs, &filter, arguments.format, &mut BufWriter::new(io::stdout()));
        return match written {
            Err(Failure::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
                Ok(ExitCode::SUCCESS)
            }
            Err(failure) => Err(failure),
            Ok(_) => Ok(ExitCode::SUCCESS),
        };
    };
    let failed = |source| Failure::Io { path: path.clone(), source };
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    let count = write(&logs, &filter, arguments.format, &mut file).inspect_err(|_| {
        printer.note(&format!("`{}` is not whole: it ends where the error was met", path.display()));
    })?;
    if printer.is_json() {
        printer.value(&serde_json::json!({ "records": count, "file": path }));
    } else {
        printer.note(&format!("{} in `{}`", plural(count, "record"), path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the records that pass the filter, and says how many they are.
fn write(
    logs: &[LogFolder],
    filter: &Filter,
    format: Format,
    output: &mut dyn Write,
) -> Result<u64, Failure> {
    let mut count = 0;
    let mut sink = Sink::begin(format, output)?;
    for log in logs {
        for found in log.records(0)? {
            let found = found?;
            let view = RecordView::of(&found.bytes);
            if filter.passes(log.name(), &view) {
                sink.write(&Match { log: log.name().to_owned(), found, view })?;
                count += 1;
            }
        }
    }
    sink.end()?;
    Ok(count)
}

enum Sink<'a> {
    Jsonl(&'a mut dyn Write),
    Csv(Box<csv::Writer<&'a mut dyn Write>>),
}

/// The columns of the table. They stay as they are; new ones would stand at the end.
const COLUMNS: [&str; 14] = [
    "log", "index", "time", "record", "call", "client", "user", "tool", "outcome", "stage", "code", "run",
    "labels", "micros",
];

impl<'a> Sink<'a> {
    fn begin(format: Format, output: &'a mut dyn Write) -> Result<Self, Failure> {
        if format == Format::Jsonl {
            return Ok(Self::Jsonl(output));
        }
        // RFC 4180 ends lines with CR LF.
        let mut table = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(output);
        table.write_record(COLUMNS)?;
        Ok(Self::Csv(Box::new(table)))
    }

    fn write(&mut self, record: &Match) -> Result<(), Failure> {
        match self {
            Self::Jsonl(output) => writeln!(output, "{}", json_line(record)).map_err(unwritten),
            Self::Csv(table) => Ok(table.write_record(row(record))?),
        }
    }

    fn end(self) -> Result<(), Failure> {
        match self {
            Self::Jsonl(output) => output.flush().map_err(unwritten),
            Self::Csv(mut table) => table.flush().map_err(unwritten),
        }
    }
}

fn unwritten(source: io::Error) -> Failure {
    Failure::Io { path: "the export".into(), source }
}

fn row(record: &Match) -> [String; COLUMNS.len()] {
    let Match { log, found, view } = record;
    let RecordView {
        time,
        kind,
        call,
        client,
        user,
        run,
        tool,
        outcome,
        stage,
        code,
        labels,
        micros,
        calls: _,
    } = view;
    let cells = [
        log.clone(),
        found.index.to_string(),
        time.map(|time| time.to_string()).unwrap_or_default(),
        kind.clone(),
        call.clone(),
        client.clone(),
        user.clone(),
        tool.clone(),
        outcome.clone(),
        stage.clone(),
        code.clone(),
        run.clone(),
        labels.join(" "),
        micros.map(|micros| micros.to_string()).unwrap_or_default(),
    ];
    cells.map(|cell| defused(&cell))
}

/// A cell that a spreadsheet would take for a formula is made text by an apostrophe before it.
/// What a terminal would obey, or show as something else, is escaped.
fn defused(cell: &str) -> String {
    let is_formula = cell.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    let is_formula = is_formula || cell.starts_with(['\t', '\r']);
    let cell = visible(cell);
    if is_formula { format!("'{cell}") } else { cell }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::audit::reader::fixture::{Fixture, outcome};

    fn export(state: &Path, filter: &Filter, format: Format) -> String {
        let mut output = Vec::new();
        write(&reader::logs(state).unwrap(), filter, format, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_table_holds_no_formula_and_every_cell_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Fixture::new(folder.path(), "serve-0");
        let hostile =
            ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a,b", "a\"b", "a\r\nb,\"=1", " =1", ""];
        for tool in hostile {
            log.record(&outcome(1, "alice", tool, "denied", "unknown_tool"));
        }
        let text = export(folder.path(), &Filter::default(), Format::Csv);
        let first = text.split("\r\n").nth(1).unwrap();
        assert_eq!(
            first,
            "serve-0,0,2026-11-01T00:00:01Z,outcome,00000000000000000000000000000001,alice,,'=1+1,denied,policy,\
             unknown_tool,run-alice,,1500"
        );
        let mut table = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(table.headers().unwrap(), &COLUMNS[..]);
        let tools: Vec<String> = table.records().map(|row| row.unwrap()[7].to_owned()).collect();
        assert_eq!(tools[..6], ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\\u{9}=1", "'\\u{d}=1"]);
        // A spreadsheet may pass over blanks before a formula.
        let rest =
            hostile[6..].iter().map(|tool| if *tool == " =1" { "' =1".to_owned() } else { visible(tool) });
        let rest: Vec<String> = rest.collect();
        assert_eq!(tools[6..], rest);
    }

    #[test]
    fn an_export_holds_nothing_that_a_terminal_would_obey() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Fixture::new(folder.path(), "serve-0");
        let hostile = "x\u{9b}2J\u{202e}\u{7f}";
        log.record(&outcome(1, "alice", hostile, "denied", "unknown_tool"));
        let table = export(folder.path(), &Filter::default(), Format::Csv);
        assert!(table.contains(",x\\u{9b}2J\\u{202e}\\u{7f},"), "{table:?}");
        let lines = export(folder.path(), &Filter::default(), Format::Jsonl);
        assert!(lines.trim_end().is_ascii() && !lines.contains('\u{7f}'), "{lines:?}");
        let line: Value = serde_json::from_str(&lines).unwrap();
        assert_eq!(line["record"]["call"]["target"], hostile);
    }

    #[test]
    fn an_export_holds_the_records_that_pass_the_filter_of_all_logs() {
        let folder = tempfile::tempdir().unwrap();
        for (name, client) in [("serve-0", "alice"), ("stdio-0", "bob")] {
            let mut log = Fixture::new(folder.path(), name);
            log.record(&outcome(1, client, "t", "allowed", ""));
            log.rotate();
            log.record(&outcome(2, "carol", "t", "allowed", ""));
        }
        let places = |filter: &Filter| -> Vec<String> {
            let text = export(folder.path(), filter, Format::Jsonl);
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.map(|line| format!("{}/{}", line["log"].as_str().unwrap(), line["index"])).collect()
        };
        assert_eq!(places(&Filter::default()), ["serve-0/0", "serve-0/1", "stdio-0/0", "stdio-0/1"]);
        let carol = Filter { client: Some("carol".into()), ..Filter::default() };
        assert_eq!(places(&carol), ["serve-0/1", "stdio-0/1"]);
        let one = Filter { log: Some("stdio-0".into()), ..Filter::default() };
        assert_eq!(places(&one), ["stdio-0/0", "stdio-0/1"]);
    }

    #[test]
    fn an_export_of_a_damaged_log_fails() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Fixture::new(folder.path(), "serve-0");
        log.record(&outcome(1, "alice", "t", "allowed", ""));
        log.raw(b"rubbish");
        log.record(&outcome(2, "alice", "t", "allowed", ""));
        let logs = reader::logs(folder.path()).unwrap();
        let error = write(&logs, &Filter::default(), Format::Csv, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Failure::Read(_)), "{error}");
    }
}
