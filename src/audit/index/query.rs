//! What can be asked of the index.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, SqliteConnection, query::QueryAs, sqlite::SqliteArguments};

use super::fill::place;
use crate::audit::reader::{Place, RecordView};

/// Which records are wanted: those that have all of these values.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The log's name.
    pub log: Option<String>,
    /// The client.
    pub client: Option<String>,
    /// What was asked for.
    pub tool: Option<String>,
    /// How the call ended.
    pub outcome: Option<String>,
    /// The refusal in one word.
    pub code: Option<String>,
    /// The run.
    pub run: Option<String>,
    /// The call's id.
    pub call: Option<String>,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether a record of a log is wanted. The index answers the same.
    #[must_use]
    pub fn passes(&self, log: &str, view: &RecordView) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let time = view.time.unwrap_or_default().as_microsecond();
        is(&self.log, log)
            && is(&self.client, &view.client)
            && is(&self.tool, &view.tool)
            && is(&self.outcome, &view.outcome)
            && is(&self.code, &view.code)
            && is(&self.run, &view.run)
            && is(&self.call, &view.call)
            && self.since.is_none_or(|since| time >= since.as_microsecond())
            && self.until.is_none_or(|until| time < until.as_microsecond())
    }

    /// The filter as a condition: only what is asked for stands in it, so that SQLite finds the index for it.
    fn condition(&self) -> String {
        let mut condition = String::from("TRUE");
        let clauses = [
            (self.log.is_some(), " AND logs.name = $1"),
            (self.client.is_some(), " AND client = $2"),
            (self.tool.is_some(), " AND tool = $3"),
            (self.outcome.is_some(), " AND outcome = $4"),
            (self.code.is_some(), " AND code = $5"),
            (self.run.is_some(), " AND run = $6"),
            (self.call.is_some(), " AND call = $7"),
            (self.since.is_some(), " AND time >= $8"),
            (self.until.is_some(), " AND time < $9"),
        ];
        clauses.iter().filter(|(is_asked, _)| *is_asked).for_each(|(_, clause)| condition.push_str(clause));
        condition
    }

    fn bind<'q, O>(
        &self,
        query: QueryAs<'q, sqlx::Sqlite, O, SqliteArguments>,
    ) -> QueryAs<'q, sqlx::Sqlite, O, SqliteArguments> {
        let micros = |time: Option<Timestamp>| time.map(Timestamp::as_microsecond);
        query
            .bind(self.log.clone())
            .bind(self.client.clone())
            .bind(self.tool.clone())
            .bind(self.outcome.clone())
            .bind(self.code.clone())
            .bind(self.run.clone())
            .bind(self.call.clone())
            .bind(micros(self.since))
            .bind(micros(self.until))
    }
}

/// What calls are counted by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CountBy {
    /// How they ended.
    Outcome,
    /// What was asked for.
    Tool,
    /// Who called.
    Client,
    /// The refusal in one word.
    Code,
}

impl CountBy {
    /// The member, and its column.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Outcome => "outcome",
            Self::Tool => "tool",
            Self::Client => "client",
            Self::Code => "code",
        }
    }
}

/// A record that the index knows.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) log: String,
    pub(super) index: u64,
    pub(super) place: Place,
}

pub(super) async fn search(
    database: &mut SqliteConnection,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<Hit>, sqlx::Error> {
    let sql = format!(
        "SELECT logs.name, idx, records.segment, records.place, records.tag
         FROM records JOIN logs ON logs.id = records.log WHERE {}
         ORDER BY time DESC, logs.name DESC, idx DESC LIMIT {limit}",
        filter.condition()
    );
    // Made of fixed clauses and a number; values are bound.
    let query = sqlx::query_as::<_, (String, i64, i64, i64, Vec<u8>)>(AssertSqlSafe(sql));
    let rows = filter.bind(query).fetch_all(database).await?;
    rows.into_iter()
        .map(|(log, index, segment, offset, tag)| {
            let index = index.try_into().ok();
            let (place, index) = place(segment, offset, &tag).zip(index).ok_or(sqlx::Error::RowNotFound)?;
            Ok(Hit { log, index, place })
        })
        .collect()
}

pub(super) async fn count(
    database: &mut SqliteConnection,
    filter: &Filter,
    by: CountBy,
) -> Result<Vec<(String, u64)>, sqlx::Error> {
    let sql = format!(
        "SELECT {0}, sum(calls) FROM records JOIN logs ON logs.id = records.log
         WHERE {1} AND calls > 0 GROUP BY {0} ORDER BY sum(calls) DESC, {0}",
        by.word(),
        filter.condition()
    );
    // Made of fixed clauses and a fixed name; values are bound.
    let query = sqlx::query_as::<_, (String, i64)>(AssertSqlSafe(sql));
    let rows = filter.bind(query).fetch_all(database).await?;
    Ok(rows.into_iter().map(|(value, calls)| (value, calls.try_into().unwrap_or_default())).collect())
}
