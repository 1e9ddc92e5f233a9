//! State that outlives a process, shared by all processes on one state folder.

mod key;
mod once;

use std::{
    fs, io,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions as _, Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use key::{KEY_BYTES, KeyFileError, key_file};
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
///
/// The one place that knows that it is SQLite: everywhere else the SQL is what PostgreSQL takes too.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
    options: SqliteConnectOptions,
    /// Whose turn it is to write, in this process. SQLite makes processes take turns by trying again and
    /// again; within a process they can stand in line.
    turn: Arc<Mutex<()>>,
}

/// Longer than any write here takes; a wait beyond it is a fault.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// How long who watches waits for a lock: it tries again soon anyway, and what is stale is denied.
const WATCH_BUSY_MAX: Duration = Duration::from_millis(100);

/// The tables. Each change takes the next `generation` and writes it on the rows that it makes or changes, so
/// that who knows everything up to some generation reads only what is newer.
///
/// Tables of an earlier, unreleased form are dropped.
const TABLES: &str = "
    DROP TABLE IF EXISTS runs;
    DROP TABLE IF EXISTS run_labels;
    CREATE TABLE IF NOT EXISTS generation (only_row INTEGER PRIMARY KEY, value BIGINT NOT NULL);
    INSERT INTO generation (only_row, value) VALUES (1, 0) ON CONFLICT DO NOTHING;
    CREATE TABLE IF NOT EXISTS agent_runs (
        id TEXT PRIMARY KEY, principal TEXT NOT NULL, kind TEXT NOT NULL, session TEXT,
        destinations TEXT NOT NULL, begun_ms BIGINT NOT NULL, used_ms BIGINT NOT NULL,
        idle_ms BIGINT NOT NULL, expires_ms BIGINT, ended_ms BIGINT, why TEXT, generation BIGINT NOT NULL
    );
    CREATE UNIQUE INDEX IF NOT EXISTS agent_runs_default
        ON agent_runs (principal) WHERE kind = 'default' AND ended_ms IS NULL;
    CREATE UNIQUE INDEX IF NOT EXISTS agent_runs_session
        ON agent_runs (session) WHERE ended_ms IS NULL;
    CREATE INDEX IF NOT EXISTS agent_runs_live ON agent_runs (principal) WHERE ended_ms IS NULL;
    CREATE INDEX IF NOT EXISTS agent_runs_ended ON agent_runs (ended_ms);
    CREATE INDEX IF NOT EXISTS agent_runs_generation ON agent_runs (generation);
    CREATE TABLE IF NOT EXISTS agent_run_labels (
        run TEXT NOT NULL, label TEXT NOT NULL, generation BIGINT NOT NULL, PRIMARY KEY (run, label)
    );
    CREATE INDEX IF NOT EXISTS agent_run_labels_generation ON agent_run_labels (generation);
    CREATE TABLE IF NOT EXISTS revocations (
        kind TEXT NOT NULL, name TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT NOT NULL,
        made_ms BIGINT NOT NULL, until_ms BIGINT, generation BIGINT NOT NULL, PRIMARY KEY (kind, name)
    );
    CREATE INDEX IF NOT EXISTS revocations_generation ON revocations (generation);
    CREATE TABLE IF NOT EXISTS api_keys (
        id TEXT PRIMARY KEY, client TEXT NOT NULL, sha256 TEXT NOT NULL, made_ms BIGINT NOT NULL,
        actor TEXT NOT NULL, expires_ms BIGINT NOT NULL, generation BIGINT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS api_keys_generation ON api_keys (generation);
    CREATE TABLE IF NOT EXISTS key_uses (
        id TEXT PRIMARY KEY, used_ms BIGINT NOT NULL, generation BIGINT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS key_uses_generation ON key_uses (generation);
    CREATE TABLE IF NOT EXISTS signing_keys (
        kid TEXT PRIMARY KEY, follows TEXT NOT NULL UNIQUE, pkcs8 TEXT NOT NULL,
        made_ms BIGINT NOT NULL, retires_ms BIGINT NOT NULL
    );
";

impl Store {
    /// Opens the database of a state folder, and makes its tables where they are missing.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub async fn open(folder: &StateFolder) -> Result<Self, StateError> {
        let path = folder.path().join("state.db");
        keep_private(&path).map_err(|source| StateError::Folder { path: path.clone(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What a run has seen is erased when it ends, and not only forgotten.
            .pragma("secure_delete", "ON")
            .busy_timeout(BUSY_MAX);
        let start = Instant::now();
        loop {
            match Self::connect(&options).await {
                // Two processes that turn a new database's journal on at once: SQLite does not wait there.
                Err(error) if is_busy(&error) && start.elapsed() < BUSY_MAX => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                opened => return Ok(opened?),
            }
        }
    }

    async fn connect(options: &SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(BUSY_MAX)
            .connect_with(options.clone())
            .await?;
        let mut making = pool.begin_with(WRITE).await?;
        sqlx::raw_sql(TABLES).execute(&mut *making).await?;
        making.commit().await?;
        Ok(Self { pool, options: options.clone(), turn: Arc::default() })
    }

    /// The connections, for the modules that keep state.
    #[must_use]
    pub const fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Begins a change, which no other change of any process runs beside.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn change(&self) -> Result<Change, sqlx::Error> {
        let turn = tokio::time::timeout(BUSY_MAX, Arc::clone(&self.turn).lock_owned())
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?;
        // Writers take turns from their first statement on: none reads what another is about to change.
        let mut writing = self.pool.begin_with(WRITE).await?;
        let (generation,): (i64,) = sqlx::query_as("UPDATE generation SET value = value + 1 RETURNING value")
            .fetch_one(&mut *writing)
            .await?;
        Ok(Change { writing, generation, _turn: turn })
    }

    /// A connection of its own, for who watches what others change.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub async fn watch(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.options.clone().create_if_missing(false).busy_timeout(WATCH_BUSY_MAX).connect().await
    }
}

const WRITE: &str = "BEGIN IMMEDIATE";

/// A number that is another one after any other connection has changed the database.
///
/// # Errors
/// When the database does not answer.
pub async fn data_version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let (version,) = sqlx::query_as("PRAGMA data_version").fetch_one(connection).await?;
    Ok(version)
}

/// A change that is being made. Dropped, it was never made.
#[derive(Debug)]
pub struct Change {
    writing: Transaction<'static, Sqlite>,
    generation: i64,
    _turn: OwnedMutexGuard<()>,
}

impl Change {
    /// The generation that the rows it writes carry.
    #[must_use]
    pub const fn generation(&self) -> i64 {
        self.generation
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// When the database does not answer. Then it may or may not have been made.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.writing.commit().await
    }

    /// Takes it back.
    ///
    /// # Errors
    /// When the database does not answer. Then it was not made either.
    pub async fn cancel(self) -> Result<(), sqlx::Error> {
        self.writing.rollback().await
    }
}

impl Deref for Change {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.writing
    }
}

impl DerefMut for Change {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.writing
    }
}

/// Whether another connection stood in the way.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

/// The database holds signing keys: nobody but its owner reads it, whoever may look into the folder.
/// Its journal takes its mode from it.
fn keep_private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
    }
    drop(file);
    Ok(())
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

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_but_its_owner_reads_the_database() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        let folder = StateFolder::prepare(parent.path()).unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = parent.path().join("state.db");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let store = Store::open(&folder).await.unwrap();
        store.change().await.unwrap().commit().await.unwrap();
        for name in ["state.db", "state.db-wal", "state.db-shm"] {
            let mode = fs::metadata(parent.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_may_open_a_new_database_at_once() {
        for _ in 0..10 {
            let parent = tempfile::tempdir().unwrap();
            let folder = StateFolder::prepare(parent.path()).unwrap();
            let opening: Vec<_> = (0..8)
                .map(|_| {
                    let folder = folder.clone();
                    tokio::spawn(async move { Store::open(&folder).await })
                })
                .collect();
            for opened in opening {
                opened.await.unwrap().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_change_that_is_dropped_was_never_made() {
        let parent = tempfile::tempdir().unwrap();
        let store = Store::open(&StateFolder::prepare(parent.path()).unwrap()).await.unwrap();
        let change = store.change().await.unwrap();
        let generation = change.generation();
        drop(change);
        let change = store.change().await.unwrap();
        assert_eq!(change.generation(), generation);
        change.commit().await.unwrap();
        assert_eq!(store.change().await.unwrap().generation(), generation + 1);
    }
}
