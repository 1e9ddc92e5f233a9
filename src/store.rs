//! State that outlives a process, shared by all processes on one state folder.

mod once;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub(crate) use once::{place_once, private};

/// A state folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made or read.
    #[error("the state folder `{}` cannot be used: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may write into it.
    #[error("the state folder `{}` can be written by others (mode {mode:o}): run `chmod go-w` on it", path.display())]
    Writable {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The database in it does not open.
    #[error("the database in the state folder does not open: {0}")]
    Database(#[from] sqlx::Error),
}

/// The state folder, made ready: it exists, and only its owner may write into it.
#[derive(Clone, Debug)]
pub struct StateFolder(PathBuf);

impl StateFolder {
    /// Makes the folder where it is missing, and refuses one that others can write.
    ///
    /// # Errors
    /// When it cannot be made, or others can write into it.
    pub fn prepare(path: &Path) -> Result<Self, StateError> {
        let failed = |source| StateError::Folder { path: path.to_owned(), source };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(failed)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
            if mode & 0o022 != 0 {
                return Err(StateError::Writable { path: path.to_owned(), mode });
            }
        }
        Ok(Self(path.to_owned()))
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// The database of a state folder.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

/// Longer than any write here takes; a wait beyond it is a fault.
const BUSY_MAX: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS runs (
        client TEXT NOT NULL, subject TEXT NOT NULL,
        id TEXT NOT NULL, used_ms INTEGER NOT NULL,
        PRIMARY KEY (client, subject)
    );
    CREATE TABLE IF NOT EXISTS run_labels (
        client TEXT NOT NULL, subject TEXT NOT NULL, label TEXT NOT NULL,
        PRIMARY KEY (client, subject, label)
    );
";

impl Store {
    /// Opens the database of a state folder, and makes its tables where they are missing.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub async fn open(folder: &StateFolder) -> Result<Self, StateError> {
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("state.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_MAX);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(BUSY_MAX)
            .connect_with(options)
            .await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        Ok(Self { pool })
    }

    /// The connections, for the modules that keep state.
    #[must_use]
    pub const fn pool(&self) -> &SqlitePool {
        &self.pool
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        StateFolder::prepare(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(StateFolder::prepare(&path), Err(StateError::Writable { mode: 0o770, .. })));
    }
}
