//! An index over the logs of a state folder: finds records, and counts them.
//!
//! It is derived, and never evidence: whatever is shown of a record is read from the log again. It is
//! brought up to date by whoever asks it, so the server spends nothing on it. One that is damaged, or
//! of another version, is thrown away and made anew; where it cannot be written, it lives in memory.

mod fill;
mod query;

use std::path::{Path, PathBuf};

use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

pub use query::{CountBy, Filter};

use super::reader::{self, Found, LogFolder, ReadError, RecordView};
use query::Hit;

/// Why the index does not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The database fails.
    #[error("the index over the logs fails: {0}")]
    Database(#[from] sqlx::Error),
    /// The index does not fit the logs, though it was just made.
    #[error("the index over the logs does not fit them, though it was just made")]
    Unfit,
}

/// A record that was looked for.
#[derive(Clone, Debug)]
pub struct Match {
    /// The name of its log.
    pub log: String,
    /// The record.
    pub found: Found,
    /// What is shown of it.
    pub view: RecordView,
}

/// The index over the logs of a state folder.
#[derive(Debug)]
pub struct Index {
    state: PathBuf,
    database: SqliteConnection,
    is_stored: bool,
    faults: Vec<ReadError>,
}

/// The version of the tables, and of what is put into them.
const VERSION: i64 = 1;
/// Says that a database is an index of ours: `CGix`.
const APPLICATION: i64 = 0x4347_6978;

const TABLES: &str = "
    CREATE TABLE logs (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
        next INTEGER NOT NULL, segment INTEGER NOT NULL, place INTEGER NOT NULL, tag BLOB NOT NULL
    );
    CREATE TABLE records (
        log INTEGER NOT NULL, idx INTEGER NOT NULL, segment INTEGER NOT NULL, place INTEGER NOT NULL, tag BLOB NOT NULL,
        time INTEGER NOT NULL, kind TEXT NOT NULL, call TEXT NOT NULL, client TEXT NOT NULL, user TEXT NOT NULL,
        tool TEXT NOT NULL, outcome TEXT NOT NULL, stage TEXT NOT NULL, code TEXT NOT NULL, run TEXT NOT NULL,
        labels TEXT NOT NULL, micros INTEGER, calls INTEGER NOT NULL,
        PRIMARY KEY (log, idx)
    ) WITHOUT ROWID;
    PRAGMA application_id = 1128753528;
    PRAGMA user_version = 1;
";

impl Index {
    /// Opens the index of a state folder, and brings it up to date.
    ///
    /// # Errors
    /// When the logs cannot be listed, or the database fails in memory too.
    pub async fn open(state: &Path) -> Result<Self, IndexError> {
        let path = path(state);
        match Self::open_stored(state).await {
            Err(IndexError::Database(error)) => {
                if is_unusable(&error) {
                    throw_away(&path);
                }
            }
            opened => return opened,
        }
        // Once more, with what is now gone; where that fails too, nothing can be stored there.
        match Self::open_stored(state).await {
            Err(IndexError::Database(error)) => {
                tracing::debug!(%error, "the index is kept in memory");
                Self::open_with(state, SqliteConnectOptions::new().in_memory(true), false).await
            }
            opened => opened,
        }
    }

    async fn open_stored(state: &Path) -> Result<Self, IndexError> {
        let path = path(state);
        if !path.exists() && !state.join("audit").is_dir() {
            // A look at a state folder that has no logs leaves nothing behind in it.
            return Self::open_with(state, SqliteConnectOptions::new().in_memory(true), false).await;
        }
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_MAX);
        Self::open_with(state, options, true).await
    }

    async fn open_with(
        state: &Path,
        options: SqliteConnectOptions,
        is_stored: bool,
    ) -> Result<Self, IndexError> {
        let mut database = SqliteConnection::connect_with(&options).await?;
        make_tables(&mut database).await?;
        #[cfg(unix)]
        if is_stored {
            only_for_its_owner(&path(state));
        }
        let mut index = Self { state: state.to_owned(), database, is_stored, faults: Vec::new() };
        index.update().await?;
        Ok(index)
    }

    /// Whether the index is a file, and not made anew each time.
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// Why there are logs that it knows in part only: each is damaged, and known up to there.
    #[must_use]
    pub fn faults(&self) -> &[ReadError] {
        &self.faults
    }

    /// The same, of an index that is not asked any more.
    #[must_use]
    pub fn into_faults(self) -> Vec<ReadError> {
        self.faults
    }

    /// The newest records that pass the filter, newest first.
    ///
    /// # Errors
    /// When a log or the index cannot be read.
    pub async fn search(&mut self, filter: &Filter, limit: u32) -> Result<Vec<Match>, IndexError> {
        match self.try_search(filter, limit).await {
            Err(IndexError::Unfit) => {}
            Err(IndexError::Database(error)) if is_unusable(&error) => {}
            answer => return answer,
        }
        self.rebuild().await?;
        self.try_search(filter, limit).await
    }

    /// How many calls there are that pass the filter, by the value of a member, most first.
    ///
    /// # Errors
    /// When a log or the index cannot be read.
    pub async fn count(&mut self, filter: &Filter, by: CountBy) -> Result<Vec<(String, u64)>, IndexError> {
        match query::count(&mut self.database, filter, by).await {
            Err(error) if is_unusable(&error) => {}
            counts => return Ok(counts?),
        }
        self.rebuild().await?;
        Ok(query::count(&mut self.database, filter, by).await?)
    }

    /// Throws the index away and makes it anew from the logs.
    ///
    /// # Errors
    /// When a log or the index cannot be read.
    pub async fn rebuild(&mut self) -> Result<(), IndexError> {
        if self.is_stored {
            throw_away(&path(&self.state));
        }
        *self = Box::pin(Self::open(&self.state)).await?;
        Ok(())
    }

    async fn try_search(&mut self, filter: &Filter, limit: u32) -> Result<Vec<Match>, IndexError> {
        let hits = query::search(&mut self.database, filter, limit).await?;
        let logs = reader::logs(&self.state)?;
        hits.into_iter().map(|hit| read(&logs, hit, filter)).collect()
    }
}

/// Longer than any other command writes the index for between two of its commits.
const BUSY_MAX: std::time::Duration = std::time::Duration::from_secs(10);

fn path(state: &Path) -> PathBuf {
    state.join("audit").join("index.db")
}

/// Reads a record that the index names. It must be there, and be what was looked for.
fn read(logs: &[LogFolder], hit: Hit, filter: &Filter) -> Result<Match, IndexError> {
    let log = logs.iter().find(|log| log.name() == hit.log).ok_or(IndexError::Unfit)?;
    let found = log.get_at(hit.index, hit.place)?.ok_or(IndexError::Unfit)?;
    let view = RecordView::of(&found.bytes);
    if !filter.passes(&hit.log, &view) {
        return Err(IndexError::Unfit);
    }
    Ok(Match { log: hit.log, found, view })
}

/// Makes the tables of a new database. One that is something else is an error like a damaged one.
async fn make_tables(database: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut change = database.begin_with("BEGIN IMMEDIATE").await?;
    let (tables,): (i64,) =
        sqlx::query_as("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *change).await?;
    if tables == 0 {
        sqlx::raw_sql(TABLES).execute(&mut *change).await?;
    }
    let (application,): (i64,) = sqlx::query_as("PRAGMA application_id").fetch_one(&mut *change).await?;
    let (version,): (i64,) = sqlx::query_as("PRAGMA user_version").fetch_one(&mut *change).await?;
    change.commit().await?;
    if (application, version) == (APPLICATION, VERSION) { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// Whether the database is at fault, and not the disk or another process.
fn is_unusable(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return matches!(
            error,
            sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)
        );
    };
    // SQLITE_ERROR (tables are not ours), SQLITE_CORRUPT, SQLITE_CONSTRAINT, SQLITE_NOTADB, each with its details.
    let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
    matches!(code & 0xFF, 1 | 11 | 19 | 26)
}

/// Removes the files of an index. What cannot be removed is found out when it is opened again.
fn throw_away(path: &Path) {
    for ending in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        let _ = std::fs::remove_file(name);
    }
}

/// The index holds names of clients and tools, like the logs, which only their owner reads.
#[cfg(unix)]
fn only_for_its_owner(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
}

#[cfg(test)]
mod tests;
