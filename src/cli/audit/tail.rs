//! `callgate audit tail`: the newest records, and those that follow.

use std::{io, path::Path, process::ExitCode, time::Duration};

use clap::Args;
use jiff::Timestamp;

use super::{
    Failure,
    line::Lines,
    place::{self, State},
    warn,
};
use crate::{
    audit::{
        index::Match,
        reader::{self, Follower, LogFolder, ReadError, RecordView},
    },
    cli::output::Printer,
};

/// What `tail` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    state: State,
    /// Go on with each record as it is written.
    #[arg(long, short)]
    follow: bool,
    /// How many records to begin with.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    lines: u64,
    /// Only this log, such as `serve-0`.
    #[arg(long)]
    log: Option<String>,
}

/// How often the logs are looked at.
const POLL: Duration = Duration::from_millis(200);

pub(super) async fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    let logs = match &arguments.log {
        Some(name) => vec![place::log(&state, name)?],
        None => reader::logs(&state)?,
    };
    let mut tail = Tail::default();
    for log in logs {
        tail.begin(log, arguments.lines);
    }
    let mut lines = Lines::new(printer);
    let mut newest = tail.poll();
    newest.drain(..newest.len().saturating_sub(usize::try_from(arguments.lines).unwrap_or(usize::MAX)));
    let mut is_read = lines.print(&newest);
    let mut code = warn(printer, &std::mem::take(&mut tail.faults));
    while arguments.follow && is_read.is_ok() {
        tokio::time::sleep(POLL).await;
        if arguments.log.is_none() {
            tail.begin_new(reader::logs(&state)?);
        }
        is_read = lines.print(&tail.poll());
        if !tail.faults.is_empty() {
            code = warn(printer, &std::mem::take(&mut tail.faults));
        }
    }
    match is_read {
        // A reader that has gone away wants no more lines.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Io { path: "standard output".into(), source: error })
        }
        _ => Ok(code),
    }
}

/// The ends of logs, as they move on.
#[derive(Debug, Default)]
struct Tail {
    known: Vec<LogFolder>,
    followers: Vec<Follower>,
    /// Why logs are no longer followed.
    faults: Vec<ReadError>,
}

impl Tail {
    /// Follows a log from its last `count` records on.
    fn begin(&mut self, log: LogFolder, count: u64) {
        let end = match log.size() {
            // What is before the damage is shown; the follower meets it again, and says so.
            Err(ReadError::Damaged { index, .. }) => Ok(index),
            size => size,
        };
        match end.and_then(|end| log.follow(end.saturating_sub(count))) {
            Ok(follower) => self.followers.push(follower),
            Err(fault) => self.faults.push(fault),
        }
        self.known.push(log);
    }

    /// Follows the logs that were not there before, from their beginning on.
    fn begin_new(&mut self, logs: Vec<LogFolder>) {
        for log in logs {
            if !self.known.contains(&log) {
                self.begin(log, u64::MAX);
            }
        }
    }

    /// What is there by now and was not returned before, by time. A log with a fault is left.
    fn poll(&mut self) -> Vec<Match> {
        let mut records: Vec<(Option<Timestamp>, Match)> = Vec::new();
        let faults = &mut self.faults;
        self.followers.retain_mut(|follower| match drain(follower, &mut records) {
            Ok(()) => true,
            Err(fault) => {
                faults.push(fault);
                false
            }
        });
        records.sort_by_key(|(time, _)| *time);
        records.into_iter().map(|(_, record)| record).collect()
    }
}

/// Takes what is there of a log, each record with the latest time up to it: within a log the order
/// stays, whatever its clock did.
fn drain(follower: &mut Follower, records: &mut Vec<(Option<Timestamp>, Match)>) -> Result<(), ReadError> {
    let mut latest = None;
    while let Some(found) = follower.poll()? {
        let view = RecordView::of(&found.bytes);
        latest = view.time.max(latest);
        records.push((latest, Match { log: follower.log().name().to_owned(), found, view }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::reader::fixture::{Fixture, outcome};

    fn places(records: &[Match]) -> Vec<String> {
        records.iter().map(|record| format!("{}/{}", record.log, record.found.index)).collect()
    }

    #[test]
    fn records_of_new_segments_and_of_new_logs_follow() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let mut serve = Fixture::new(state, "serve-0");
        for second in 0..3 {
            serve.record(&outcome(second, "alice", "t", "allowed", ""));
        }
        let mut tail = Tail::default();
        for log in reader::logs(state).unwrap() {
            tail.begin(log, 2);
        }
        assert_eq!(places(&tail.poll()), ["serve-0/1", "serve-0/2"]);
        serve.rotate();
        assert_eq!(places(&tail.poll()), [""; 0]);
        serve.record(&outcome(5, "alice", "t", "allowed", ""));
        let mut stdio = Fixture::new(state, "stdio-0");
        stdio.record(&outcome(4, "bob", "t", "allowed", ""));
        tail.begin_new(reader::logs(state).unwrap());
        tail.begin_new(reader::logs(state).unwrap());
        assert_eq!(places(&tail.poll()), ["stdio-0/0", "serve-0/3"]);
        assert!(tail.faults.is_empty());
        // A clock that was set back changes no order within a log.
        serve.record(&outcome(9, "alice", "t", "allowed", ""));
        serve.record(&outcome(1, "alice", "t", "allowed", ""));
        assert_eq!(places(&tail.poll()), ["serve-0/4", "serve-0/5"]);
        // A damaged log is left and said, and the other goes on.
        serve.raw(b"rubbish");
        serve.head();
        stdio.record(&outcome(6, "bob", "t", "allowed", ""));
        assert_eq!(places(&tail.poll()), ["stdio-0/1"]);
        assert!(matches!(tail.faults[..], [ReadError::Damaged { index: 6, .. }]));
        assert_eq!(tail.followers.len(), 1);
        // Who looks only now is shown what is before the damage.
        let mut late = Tail::default();
        late.begin(reader::logs(state).unwrap().remove(0), 2);
        assert_eq!(places(&late.poll()), ["serve-0/4", "serve-0/5"]);
        assert!(matches!(late.faults[..], [ReadError::Damaged { index: 6, .. }]));
    }
}
