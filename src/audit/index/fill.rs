//! Brings the index up to date with the logs.

use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};

use super::{Index, IndexError};
use crate::audit::reader::{self, Found, LogFolder, Place, ReadError, RecordView, Records};

/// Records that are put into the index in one transaction.
const BATCH_RECORDS: usize = 4_096;

impl Index {
    /// Reads what the logs have more than the index, and forgets logs that are gone.
    pub(super) async fn update(&mut self) -> Result<(), IndexError> {
        let logs = reader::logs(&self.state)?;
        forget_others(&mut self.database, &logs).await?;
        for log in &logs {
            // Damage in one log does not hide the others, and is said.
            self.faults.extend(add(&mut self.database, log).await?);
        }
        // Not before the first records are in: an index over rows that are there is made faster.
        sqlx::raw_sql(INDICES).execute(&mut self.database).await?;
        Ok(())
    }
}

const INDICES: &str = "
    CREATE INDEX IF NOT EXISTS by_time ON records (time);
    CREATE INDEX IF NOT EXISTS by_call ON records (call, time);
    CREATE INDEX IF NOT EXISTS by_client ON records (client, time);
    CREATE INDEX IF NOT EXISTS by_tool ON records (tool, time);
    CREATE INDEX IF NOT EXISTS by_run ON records (run, time);
    CREATE INDEX IF NOT EXISTS by_code ON records (code, time);
    CREATE INDEX IF NOT EXISTS by_outcome ON records (outcome, time);
";

/// One statement for a whole batch: the rows go in as one JSON array.
const INSERT: &str = "
    INSERT INTO records
    SELECT $1, row.value ->> 0, row.value ->> 1, row.value ->> 2, unhex(row.value ->> 3), row.value ->> 4,
        row.value ->> 5, row.value ->> 6, row.value ->> 7, row.value ->> 8, row.value ->> 9, row.value ->> 10,
        row.value ->> 11, row.value ->> 12, row.value ->> 13, row.value ->> 14, row.value ->> 15, row.value ->> 16
    FROM json_each($2) AS row
";

async fn forget_others(database: &mut SqliteConnection, logs: &[LogFolder]) -> Result<(), sqlx::Error> {
    let names = json!(logs.iter().map(LogFolder::name).collect::<Vec<_>>()).to_string();
    let gone: Vec<(i64,)> =
        sqlx::query_as("SELECT id FROM logs WHERE name NOT IN (SELECT value FROM json_each($1))")
            .bind(names)
            .fetch_all(&mut *database)
            .await?;
    for (id,) in gone {
        let mut change = database.begin_with("BEGIN IMMEDIATE").await?;
        forget(&mut change, id).await?;
        change.commit().await?;
    }
    Ok(())
}

async fn forget(database: &mut SqliteConnection, log: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM records WHERE log = $1").bind(log).execute(&mut *database).await?;
    sqlx::query("DELETE FROM logs WHERE id = $1").bind(log).execute(&mut *database).await?;
    Ok(())
}

/// Adds the records that a log has more; says what stopped it.
async fn add(database: &mut SqliteConnection, log: &LogFolder) -> Result<Option<ReadError>, IndexError> {
    loop {
        match add_batch(database, log).await {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(IndexError::Read(fault)) => return Ok(Some(fault)),
            Err(error) => return Err(error),
        }
    }
}

/// Adds the next records of a log; false where there are no more.
async fn add_batch(database: &mut SqliteConnection, log: &LogFolder) -> Result<bool, IndexError> {
    // IMMEDIATE: of two commands that fill the index, the second goes on where the first stopped.
    let mut change = database.begin_with("BEGIN IMMEDIATE").await?;
    let (id, records) = go_on(&mut change, log).await?;
    let mut fault = None;
    let whole =
        records.take(BATCH_RECORDS).map_while(|found| found.map_err(|error| fault = Some(error)).ok());
    let found: Vec<Found> = whole.collect();
    let Some(last) = found.last() else { return fault.map_or(Ok(false), |fault| Err(fault.into())) };
    let rows: Vec<Value> = found.iter().map(row).collect();
    sqlx::query(INSERT).bind(id).bind(Value::from(rows).to_string()).execute(&mut *change).await?;
    sqlx::query("UPDATE logs SET next = $2, segment = $3, place = $4, tag = $5 WHERE id = $1")
        .bind(id)
        .bind(signed(last.index + 1))
        .bind(signed(last.place.segment))
        .bind(signed(last.place.offset))
        .bind(last.place.tag.to_vec())
        .execute(&mut *change)
        .await?;
    change.commit().await?;
    // A fault is met again, and returned, by the next batch.
    Ok(fault.is_some() || found.len() == BATCH_RECORDS)
}

/// The log's number in the index, and its records that are not in there. A log that is not the one
/// that was read before is forgotten first.
async fn go_on(database: &mut SqliteConnection, log: &LogFolder) -> Result<(i64, Records), IndexError> {
    let known: Option<(i64, i64, i64, i64, Vec<u8>)> =
        sqlx::query_as("SELECT id, next, segment, place, tag FROM logs WHERE name = $1")
            .bind(log.name())
            .fetch_optional(&mut *database)
            .await?;
    if let Some((id, next, segment, offset, tag)) = known {
        if next == 0 {
            return Ok((id, log.records(0)?));
        }
        let last = place(segment, offset, &tag).zip(u64::try_from(next - 1).ok());
        let records = last.map(|(place, index)| log.records_behind(index, place)).transpose()?.flatten();
        if let Some(records) = records {
            return Ok((id, records));
        }
        forget(database, id).await?;
    }
    let (id,): (i64,) = sqlx::query_as(
        "INSERT INTO logs (name, next, segment, place, tag) VALUES ($1, 0, 0, 0, x'') RETURNING id",
    )
    .bind(log.name())
    .fetch_one(&mut *database)
    .await?;
    Ok((id, log.records(0)?))
}

/// A place as the index keeps it.
pub(super) fn place(segment: i64, offset: i64, tag: &[u8]) -> Option<Place> {
    Some(Place {
        segment: segment.try_into().ok()?,
        offset: offset.try_into().ok()?,
        tag: tag.try_into().ok()?,
    })
}

fn row(found: &Found) -> Value {
    let view = RecordView::of(&found.bytes);
    json!([
        found.index,
        found.place.segment,
        found.place.offset,
        hex::encode(found.place.tag),
        view.time.unwrap_or_default().as_microsecond(),
        view.kind,
        view.call,
        view.client,
        view.user,
        view.tool,
        view.outcome,
        view.stage,
        view.code,
        view.run,
        json!(view.labels).to_string(),
        view.micros.map(signed),
        signed(view.calls),
    ])
}

/// SQLite's numbers are signed; ours never come near the difference.
pub(super) fn signed(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
