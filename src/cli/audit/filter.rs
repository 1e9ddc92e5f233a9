//! Which records are wanted, as it is typed.

use std::path::Path;

use clap::Args;
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

use super::{Failure, place};
use crate::audit::index::Filter;

/// What the filters are called in the help.
pub(super) const FILTERS: &str = "Filters (a record has to pass all)";

/// Which records are wanted: those that have all of these.
#[derive(Clone, Debug, Args)]
pub(super) struct FilterArguments {
    /// Of this log, such as `serve-0`.
    #[arg(long)]
    log: Option<String>,
    /// Of this client.
    #[arg(long)]
    client: Option<String>,
    /// Of this tool, as it was asked for.
    #[arg(long)]
    tool: Option<String>,
    /// How the call ended.
    #[arg(long, value_parser = OUTCOMES)]
    outcome: Option<String>,
    /// Refused for this reason: the record's `code`, such as `not_permitted`.
    #[arg(long)]
    code: Option<String>,
    /// Of this run.
    #[arg(long)]
    run: Option<String>,
    /// Of the call with this id.
    #[arg(long)]
    call: Option<String>,
    /// Not before this: a time (RFC 3339), a date (UTC), or an age such as `90s`, `15m`, `2h`, `3d`, `1w`.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Before this, written likewise.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
}

/// How a call ends, as records say it.
const OUTCOMES: [&str; 6] = ["allowed", "denied", "pending", "withheld", "failed", "unknown"];

impl FilterArguments {
    /// The filter. A log that is not there is a slip: no record would ever fit.
    pub(super) fn filter(&self, state: &Path) -> Result<Filter, Failure> {
        if let Some(name) = &self.log {
            place::log(state, name)?;
        }
        let Self { log, client, tool, outcome, code, run, call, since, until } = self.clone();
        Ok(Filter { log, client, tool, outcome, code, run, call, since, until })
    }
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    time(text, Timestamp::now()).ok_or_else(|| {
        "expected a time such as `2026-11-01T12:00:00Z` or `2026-11-01`, or an age such as `90s`, `15m`, `2h`, `3d` or `1w`"
            .to_owned()
    })
}

/// A time, or an age before now.
fn time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    if let Ok(date) = text.parse::<Date>() {
        return date.to_zoned(TimeZone::UTC).ok().map(|midnight| midnight.timestamp());
    }
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let digits = text.strip_suffix(unit).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let age = digits.parse::<i64>().ok()?.checked_mul(seconds)?;
    now.checked_sub(SignedDuration::from_secs(age)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_given_as_itself_or_as_an_age() {
        let now: Timestamp = "2026-11-08T00:00:00Z".parse().unwrap();
        let read = |text| time(text, now).map(|time| time.to_string());
        assert_eq!(read("2026-11-01T12:00:00+02:00").as_deref(), Some("2026-11-01T10:00:00Z"));
        assert_eq!(read("2026-11-01").as_deref(), Some("2026-11-01T00:00:00Z"));
        for (age, expected) in [
            ("0s", "2026-11-08T00:00:00Z"),
            ("90s", "2026-11-07T23:58:30Z"),
            ("15m", "2026-11-07T23:45:00Z"),
            ("2h", "2026-11-07T22:00:00Z"),
            ("3d", "2026-11-05T00:00:00Z"),
            ("1w", "2026-11-01T00:00:00Z"),
        ] {
            assert_eq!(read(age).as_deref(), Some(expected), "{age}");
        }
        for nonsense in
            ["", "h", "-2h", "+2h", "2", "2y", "2 h", "99999999999999999999d", "9999999999w", "2€", "soon"]
        {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }
}
