//! `callgate audit search`: finds records, and counts calls.

use std::{path::Path, process::ExitCode};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    Failure,
    filter::{FILTERS, FilterArguments},
    line::Lines,
    place::State,
    warn,
};
use crate::{
    audit::index::{CountBy, Index},
    cli::{
        output::{DIM, Printer},
        visible::visible,
    },
};

/// What `search` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    state: State,
    /// How many records to show.
    #[arg(long, value_name = "N", default_value_t = 50, conflicts_with = "count_by", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Count calls by this, in place of showing records; those that a record sums up too.
    #[arg(long, value_name = "MEMBER")]
    count_by: Option<Member>,
    /// First make the index over the logs anew.
    #[arg(long)]
    rebuild: bool,
    // Last: the heading holds for what comes after it, too.
    #[command(flatten, next_help_heading = FILTERS)]
    filter: FilterArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Member {
    Outcome,
    Tool,
    Client,
    Code,
}

impl From<Member> for CountBy {
    fn from(member: Member) -> Self {
        match member {
            Member::Outcome => Self::Outcome,
            Member::Tool => Self::Tool,
            Member::Client => Self::Client,
            Member::Code => Self::Code,
        }
    }
}

pub(super) async fn run(printer: Printer, config: &Path, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let state = arguments.state.find(config)?;
    let filter = arguments.filter.filter(&state)?;
    let mut index = Index::open(&state).await?;
    if arguments.rebuild {
        index.rebuild().await?;
    }
    if let Some(member) = arguments.count_by {
        let by = CountBy::from(member);
        let counts = index.count(&filter, by).await?;
        print_counts(printer, by, &counts);
    } else {
        let matches = index.search(&filter, arguments.limit).await?;
        // A reader that has gone away wants no more lines.
        let _ = Lines::new(printer).print(&matches);
        if matches.is_empty() && !printer.is_json() {
            printer.note(&format!("{DIM}no record fits{DIM:#}"));
        }
        if u32::try_from(matches.len()) == Ok(arguments.limit) && !printer.is_json() {
            let note = format!("{DIM}the newest {}; `--limit` shows more{DIM:#}", matches.len());
            printer.note(&note);
        }
    }
    Ok(warn(printer, index.faults()))
}

fn print_counts(printer: Printer, by: CountBy, counts: &[(String, u64)]) {
    if printer.is_json() {
        let counts: Vec<_> =
            counts.iter().map(|(value, calls)| json!({ by.word(): value, "calls": calls })).collect();
        printer.value(&counts);
        return;
    }
    let row = |(value, calls): &(String, u64)| {
        let value = if value.is_empty() { "-".to_owned() } else { visible(value) };
        vec![value, calls.to_string()]
    };
    printer.table(&[by.word(), "calls"], &counts.iter().map(row).collect::<Vec<_>>());
}
