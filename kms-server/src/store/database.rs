//! The database of one deployment: creating it, opening it, and what can be wrong with it.

use super::rows::{KeyRow, RowMacError, VersionRow};
use kms_core::audit::{Segment, SignedCheckpoint};
use kms_core::bundle::{Bundle, SignedBundle};
use kms_core::codec;
use kms_core::id::{CatalogueRevision, KeyName, UnixMillis};
use kms_core::merkle::Frontier;
use kms_core::suite::Suite;
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Connection, Executor, Row};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The schema that this build reads and writes.
pub const SCHEMA_VERSION: i64 = 5;
const SCHEMA: &str = include_str!("../../migrations/5.sql");
/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// SQLite's result code `SQLITE_NOTADB`.
const SQLITE_NOT_A_DATABASE: &str = "26";

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL is of no supported kind.
    #[error("database.url {url:?} is neither sqlite:PATH (a file, without ?, %, #) nor postgres://…")]
    Url {
        /// The URL without password.
        url: String,
    },
    /// There is no such database.
    #[error("the database {url} does not exist or cannot be opened; `kms-server init` creates it")]
    Missing {
        /// The URL without password.
        url: String,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// The file is something else.
    #[error("the file of {url} is no SQLite database and is left as it is; correct database.url")]
    NotADatabase {
        /// The URL.
        url: String,
    },
    /// Asked to create a database that is there.
    #[error("the database {url} exists already and is left as it is; nothing was created")]
    Exists {
        /// The URL without password.
        url: String,
    },
    /// It is of another deployment.
    #[error("the database belongs to another deployment than the bundle")]
    Foreign,
    /// It was written by a newer server, or by one from before the first release.
    #[error(
        "the database has schema {found}; this server knows {known} alone and must not touch it: use the server that \
         wrote it, or a newer one"
    )]
    OtherSchema {
        /// Schema of the database.
        found: i64,
        /// Schema of this build.
        known: i64,
    },
    /// It loses commits when the machine fails.
    #[error("PostgreSQL runs with {setting}; a commit could be lost, so the service does not start")]
    Unsafe {
        /// The setting and its value.
        setting: String,
    },
    /// A row holds what this server never writes.
    #[error("the database holds a value that this server never wrote: {what}")]
    Corrupt {
        /// Which value.
        what: &'static str,
    },
    /// A row was changed by somebody else.
    #[error(transparent)]
    RowMac(#[from] RowMacError),
    /// The log has become shorter or other than this node wrote it.
    #[error(
        "the log has {size} records and is not the one that this node wrote up to {last_size}: it was rolled back"
    )]
    RolledBack {
        /// Records in the log now.
        size: u64,
        /// Records after this node's last batch.
        last_size: u64,
    },
    /// The driver failed.
    #[error("the database does not answer as it should")]
    Driver(#[from] sqlx::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

/// The database of one deployment.
#[derive(Clone, Debug)]
pub struct Database {
    pub(super) pool: AnyPool,
    pub(super) dialect: Dialect,
    pub(super) suite: Suite,
}

/// The row that every commit locks.
#[derive(Clone, Debug)]
pub struct Head {
    /// Grows when a database is restored by ceremony.
    pub log_epoch: u32,
    /// The log's tree.
    pub frontier: Frontier,
    /// Time of the last record.
    pub last_time: UnixMillis,
    /// Revision of the catalogue of keys.
    pub catalogue: CatalogueRevision,
}

/// A key with its versions in ascending order.
#[derive(Clone, Debug)]
pub struct KeyWithVersions {
    /// The key.
    pub key: KeyRow,
    /// Its versions.
    pub versions: Vec<VersionRow>,
    /// Its other names, in their order.
    pub aliases: Vec<KeyName>,
}

/// A checkpoint with the tree that it was made of.
#[derive(Clone, Debug)]
pub struct StoredCheckpoint {
    /// When it was made.
    pub time: UnixMillis,
    /// As it stands in the second place.
    pub signed: SignedCheckpoint,
    /// The log's tree at that size; its root is what was signed.
    pub frontier: Frontier,
}

/// A segment with its place.
#[derive(Clone, Debug)]
pub struct StoredSegment {
    /// Index of its first record.
    pub first_index: u64,
    /// Number of records.
    pub count: u64,
    /// The segment.
    pub segment: Segment,
}

fn without_password(url: &str) -> String {
    // PostgreSQL takes a password as a parameter, too.
    let (url, _parameters) = url.split_once('?').unwrap_or((url, ""));
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}…{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

fn dialect_of(url: &str) -> Result<Dialect, DatabaseError> {
    if let Some(path) = sqlite_path(url) {
        // The driver would read these as something else than a file's name, each connection for itself.
        let is_file = !path.is_empty() && path != ":memory:" && !path.contains(['?', '%', '#']);
        is_file.then_some(Dialect::Sqlite).ok_or_else(|| DatabaseError::Url { url: without_password(url) })
    } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        Ok(Dialect::Postgres)
    } else {
        Err(DatabaseError::Url { url: without_password(url) })
    }
}

fn sqlite_path(url: &str) -> Option<&str> {
    let path = url.strip_prefix("sqlite:")?;
    Some(path.strip_prefix("//").unwrap_or(path))
}

/// Statements for every new connection. Both kinds of server give up before the committer does.
const fn connection_setup(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        // FULL: a commit is on the disk when it is answered. Checkpointing the WAL is kept off the commit
        // path; `checkpoint_wal` does it.
        Dialect::Sqlite => &[
            "PRAGMA busy_timeout = 5000",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "PRAGMA wal_autocheckpoint = 0",
            // Material that is destroyed is overwritten in the file, not only unlinked.
            "PRAGMA secure_delete = ON",
        ],
        // A node that vanishes in a transaction holds the head's lock: without the second limit every other
        // node would wait for the operating system to miss it, which takes hours.
        Dialect::Postgres => {
            &["SET statement_timeout = '8s'", "SET idle_in_transaction_session_timeout = '8s'"]
        }
    }
}

/// The URL under which nothing is created.
fn existing(url: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => format!("{url}?mode=rw"),
        Dialect::Postgres => url.to_owned(),
    }
}

/// A single connection without any set-up, which could change a database that is not ours. A pool would try for
/// its whole time and then name the time as the cause.
async fn first_connection(url: &str, dialect: Dialect) -> Result<AnyConnection, DatabaseError> {
    sqlx::any::install_default_drivers();
    let url_of_existing = existing(url, dialect);
    tokio::time::timeout(CONNECT_MAX, AnyConnection::connect(&url_of_existing))
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(|source| refused(url, source))
}

/// What a database that cannot be read is.
fn refused(url: &str, source: sqlx::Error) -> DatabaseError {
    let url = without_password(url);
    let code = source.as_database_error().and_then(|error| error.code());
    let is_other_file = code.is_some_and(|code| code == SQLITE_NOT_A_DATABASE);
    if is_other_file { DatabaseError::NotADatabase { url } } else { DatabaseError::Missing { url, source } }
}

/// Connects to what is there; nothing is created.
async fn connect(url: &str, dialect: Dialect) -> Result<AnyPool, DatabaseError> {
    sqlx::any::install_default_drivers();
    let options = AnyPoolOptions::new().max_connections(8).acquire_timeout(CONNECT_MAX).after_connect(
        move |connection, _| {
            Box::pin(async move {
                for statement in connection_setup(dialect) {
                    connection.execute(*statement).await?;
                }
                Ok(())
            })
        },
    );
    options
        .connect(&existing(url, dialect))
        .await
        .map_err(|source| DatabaseError::Missing { url: without_password(url), source })
}

/// Refuses a database that is not this deployment's or not safe to use. Changes nothing in it.
async fn check(
    connection: &mut AnyConnection,
    url: &str,
    dialect: Dialect,
    bundle: &Bundle,
) -> Result<(), DatabaseError> {
    let row = sqlx::query("SELECT schema_version, cluster_id FROM meta WHERE id = 1")
        .fetch_one(&mut *connection)
        .await
        .map_err(|source| refused(url, source))?;
    let found: i64 = row.try_get(0)?;
    if found != SCHEMA_VERSION {
        return Err(DatabaseError::OtherSchema { found, known: SCHEMA_VERSION });
    }
    let cluster_id: Vec<u8> = row.try_get(1)?;
    if cluster_id != bundle.cluster_id {
        return Err(DatabaseError::Foreign);
    }
    refuse_unsafe_settings(connection, dialect).await
}

/// A PostgreSQL that may lose what it has committed.
async fn refuse_unsafe_settings(
    connection: &mut AnyConnection,
    dialect: Dialect,
) -> Result<(), DatabaseError> {
    if dialect == Dialect::Postgres {
        for name in ["fsync", "synchronous_commit"] {
            let row =
                sqlx::query("SELECT current_setting($1)").bind(name).fetch_one(&mut *connection).await?;
            let value: String = row.try_get(0)?;
            if value == "off" {
                return Err(DatabaseError::Unsafe { setting: format!("{name}={value}") });
            }
        }
    }
    Ok(())
}

/// Makes the tables of a deployment in an empty database. `false` when they are there already.
async fn write_schema(
    connection: &mut AnyConnection,
    dialect: Dialect,
    signed: &SignedBundle,
    bundle: &Bundle,
) -> Result<bool, DatabaseError> {
    let mut transaction = connection.begin().await?;
    let schema = match dialect {
        Dialect::Sqlite => SCHEMA.to_owned(),
        // The order of bytes, as SQLite's: under a server's locale names would be listed in another order,
        // and an update of its locale data could make the unique indexes miss a name.
        Dialect::Postgres => SCHEMA.replace("BLOB", "BYTEA").replace("TEXT", "TEXT COLLATE \"C\""),
    };
    if dialect == Dialect::Postgres {
        // Two nodes that create at once: the second one waits and finds the first one's tables.
        transaction.execute("SELECT pg_advisory_xact_lock(7020305123456789)").await?;
        let tables = "SELECT COUNT(*) FROM information_schema.tables \
                      WHERE table_schema = current_schema() AND table_name = 'log_head'";
        let count: i64 = sqlx::query(tables).fetch_one(&mut *transaction).await?.try_get(0)?;
        if count > 0 {
            return Ok(false);
        }
    }
    for statement in schema.split(';').filter(|statement| !statement.trim().is_empty()) {
        transaction.execute(AssertSqlSafe(statement.to_owned())).await?;
    }
    sqlx::query("INSERT INTO meta (id, schema_version, cluster_id, bundle) VALUES (1, $1, $2, $3)")
        .bind(SCHEMA_VERSION)
        .bind(bundle.cluster_id.to_vec())
        .bind(codec::to_bytes(signed))
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO log_head (id, log_epoch, size, frontier, last_time, catalogue_revision) \
         VALUES (1, 1, 0, $1, 0, 0)",
    )
    .bind(Vec::new())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Makes SQLite's file under another name and links it to its own: there is all of it or nothing, also when the
/// machine stops meanwhile. `false` when something has the name already.
async fn create_file(path: &Path, signed: &SignedBundle, bundle: &Bundle) -> Result<bool, DatabaseError> {
    let url = format!("sqlite:{}", path.display());
    let missing = |source| DatabaseError::Missing { url: url.clone(), source: sqlx::Error::Io(source) };
    if path.exists() {
        return Ok(false);
    }
    let suffix = uuid::Uuid::now_v7().simple().to_string();
    let draft = PathBuf::from(format!("{}.draft-{suffix}", path.display()));
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(missing)?;
    let written = async {
        let mut connection =
            first_connection(&format!("sqlite:{}", draft.display()), Dialect::Sqlite).await?;
        write_schema(&mut connection, Dialect::Sqlite, signed, bundle).await?;
        connection.close().await?;
        Ok(())
    };
    let linked = match written.await {
        Ok(()) => std::fs::hard_link(&draft, path).map_err(missing),
        Err(error) => Err(error),
    };
    // Nobody knows its name; what stays of it is rubbish, not harm.
    let _ = std::fs::remove_file(&draft);
    match linked {
        Ok(()) => {}
        Err(_) if path.exists() => return Ok(false),
        Err(error) => return Err(error),
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(missing)?;
    Ok(true)
}

impl Database {
    /// Creates the database of a deployment, exclusively: whatever exists already is left as it is.
    ///
    /// # Errors
    /// [`DatabaseError::Exists`], [`DatabaseError::Url`], [`DatabaseError::Missing`] (no such server or folder).
    pub async fn create(url: &str, signed: &SignedBundle, bundle: &Bundle) -> Result<Self, DatabaseError> {
        let dialect = dialect_of(url)?;
        let is_new = match sqlite_path(url) {
            Some(path) => create_file(Path::new(path), signed, bundle).await?,
            None => {
                let mut connection = first_connection(url, dialect).await?;
                refuse_unsafe_settings(&mut connection, dialect).await?;
                let is_new = write_schema(&mut connection, dialect, signed, bundle).await?;
                connection.close().await?;
                is_new
            }
        };
        if !is_new {
            return Err(DatabaseError::Exists { url: without_password(url) });
        }
        Self::open(url, bundle).await
    }

    /// Opens the database of a deployment. Never creates one.
    ///
    /// # Errors
    /// [`DatabaseError`] says what is missing, foreign, newer or unsafe.
    pub async fn open(url: &str, bundle: &Bundle) -> Result<Self, DatabaseError> {
        let dialect = dialect_of(url)?;
        let mut connection = first_connection(url, dialect).await?;
        let checked = check(&mut connection, url, dialect, bundle).await;
        // Whatever was found, this connection has done its work.
        let _ = connection.close().await;
        checked?;
        Ok(Self { pool: connect(url, dialect).await?, dialect, suite: bundle.suite })
    }

    /// Moves SQLite's write-ahead log into the database file. Called off the commit path.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn checkpoint_wal(&self) -> Result<(), DatabaseError> {
        if self.dialect == Dialect::Sqlite {
            sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
