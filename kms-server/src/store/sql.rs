//! The SQL: one text for SQLite and PostgreSQL wherever the dialects allow.

use super::rows::{KeyRow, Material, RowMac, RowMacError, VersionRow};
use kms_core::audit::{Segment, SignedCheckpoint};
use kms_core::bundle::{Bundle, SignedBundle};
use kms_core::codec;
use kms_core::id::{
    CatalogueRevision, HsmObjectId, KeyId, KeyName, KeySelector, KeyVersion, Principal, TenantName,
    UnixMillis,
};
use kms_core::key::{KeySpec, KeyState, Protection};
use kms_core::merkle::Frontier;
use kms_core::suite::{Digest32, Suite};
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Connection, Executor, Row};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// The schema that this build reads and writes.
pub const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = include_str!("../../migrations/1.sql");
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
    /// It was written by a newer server.
    #[error(
        "the database has schema {found}; this server knows {known} and must not touch it: use a newer server"
    )]
    Newer {
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
    /// The driver failed.
    #[error("the database does not answer as it should")]
    Driver(#[from] sqlx::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

/// The database of one deployment.
#[derive(Clone, Debug)]
pub struct Database {
    pool: AnyPool,
    dialect: Dialect,
    suite: Suite,
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

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).expect("indexes, revisions and milliseconds stay far below 2^63")
}

fn to_u64(number: i64, what: &'static str) -> Result<u64, DatabaseError> {
    u64::try_from(number).map_err(|_| DatabaseError::Corrupt { what })
}

fn frontier_bytes(frontier: &Frontier) -> Vec<u8> {
    frontier.roots().iter().flat_map(|root| root.0).collect()
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
        return Err(DatabaseError::Newer { found, known: SCHEMA_VERSION });
    }
    let cluster_id: Vec<u8> = row.try_get(1)?;
    if cluster_id != bundle.cluster_id {
        return Err(DatabaseError::Foreign);
    }
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

impl Database {
    /// Creates the database of a deployment, exclusively: whatever exists already is left as it is.
    ///
    /// # Errors
    /// [`DatabaseError::Exists`], [`DatabaseError::Url`], [`DatabaseError::Missing`] (no such server or folder).
    pub async fn create(url: &str, signed: &SignedBundle, bundle: &Bundle) -> Result<Self, DatabaseError> {
        let dialect = dialect_of(url)?;
        let exists = || DatabaseError::Exists { url: without_password(url) };
        if let Some(path) = sqlite_path(url) {
            // The driver only opens what is there; this is what makes the creation exclusive.
            match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(exists()),
                Err(error) => {
                    let source = sqlx::Error::Io(error);
                    return Err(DatabaseError::Missing { url: without_password(url), source });
                }
            }
        }
        let pool = connect(url, dialect).await?;
        let database = Self { pool, dialect, suite: bundle.suite };
        let mut transaction = database.begin().await?;
        if dialect == Dialect::Postgres {
            // Two nodes that create at once: the second one waits and finds the first one's tables.
            transaction.execute("SELECT pg_advisory_xact_lock(7020305123456789)").await?;
        }
        if database.has_tables(&mut transaction).await? {
            return Err(exists());
        }
        let schema = match dialect {
            Dialect::Sqlite => SCHEMA.to_owned(),
            // The order of bytes, as SQLite's: under a server's locale names would be listed in another order,
            // and an update of its locale data could make the unique indexes miss a name.
            Dialect::Postgres => SCHEMA.replace("BLOB", "BYTEA").replace("TEXT", "TEXT COLLATE \"C\""),
        };
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
        Ok(database)
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

    async fn has_tables(&self, connection: &mut AnyConnection) -> Result<bool, DatabaseError> {
        let sql = match self.dialect {
            Dialect::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE name = 'log_head'",
            Dialect::Postgres => {
                "SELECT COUNT(*) FROM information_schema.tables \
                 WHERE table_schema = current_schema() AND table_name = 'log_head'"
            }
        };
        let count: i64 = sqlx::query(sql).fetch_one(connection).await?.try_get(0)?;
        Ok(count > 0)
    }

    /// Begins a transaction that will write.
    pub(super) async fn begin(&self) -> Result<sqlx::Transaction<'static, sqlx::Any>, DatabaseError> {
        Ok(match self.dialect {
            // Taking the write lock at once avoids the deadlock of two readers that both want to write.
            Dialect::Sqlite => self.pool.begin_with("BEGIN IMMEDIATE").await?,
            Dialect::Postgres => self.pool.begin().await?,
        })
    }

    /// Locks the head row until the transaction ends and gives it.
    pub(super) async fn lock_head(&self, connection: &mut AnyConnection) -> Result<Head, DatabaseError> {
        let sql = match self.dialect {
            Dialect::Sqlite => {
                "SELECT log_epoch, size, frontier, last_time, catalogue_revision FROM log_head WHERE id = 1"
            }
            Dialect::Postgres => {
                "SELECT log_epoch, size, frontier, last_time, catalogue_revision FROM log_head \
                 WHERE id = 1 FOR UPDATE"
            }
        };
        self.head_from(&sqlx::query(sql).fetch_one(connection).await?)
    }

    fn head_from(&self, row: &AnyRow) -> Result<Head, DatabaseError> {
        const WHAT: &str = "log head";
        let corrupt = || DatabaseError::Corrupt { what: WHAT };
        let size = to_u64(row.try_get(1)?, WHAT)?;
        Ok(Head {
            log_epoch: u32::try_from(row.try_get::<i64, _>(0)?).map_err(|_| corrupt())?,
            frontier: self.frontier_from(size, &row.try_get::<Vec<u8>, _>(2)?)?,
            last_time: UnixMillis(to_u64(row.try_get(3)?, WHAT)?),
            catalogue: CatalogueRevision(to_u64(row.try_get(4)?, WHAT)?),
        })
    }

    fn frontier_from(&self, size: u64, bytes: &[u8]) -> Result<Frontier, DatabaseError> {
        let corrupt = || DatabaseError::Corrupt { what: "tree of the log" };
        let roots = bytes
            .chunks(32)
            .map(|chunk| chunk.try_into().map(Digest32).map_err(|_| corrupt()))
            .collect::<Result<Vec<_>, _>>()?;
        Frontier::from_parts(self.suite, size, roots).ok_or_else(corrupt)
    }

    /// Writes the head row back.
    pub(super) async fn update_head(
        &self,
        connection: &mut AnyConnection,
        head: &Head,
    ) -> Result<(), DatabaseError> {
        sqlx::query(
            "UPDATE log_head SET size = $1, frontier = $2, last_time = $3, catalogue_revision = $4 WHERE id = 1",
        )
        .bind(to_i64(head.frontier.size()))
        .bind(frontier_bytes(&head.frontier))
        .bind(to_i64(head.last_time.0))
        .bind(to_i64(head.catalogue.0))
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Writes one batch's segment row.
    pub(super) async fn insert_segment(
        &self,
        connection: &mut AnyConnection,
        first_index: u64,
        count: u64,
        batch_id: &[u8; 16],
        segment: &Segment,
    ) -> Result<(), DatabaseError> {
        sqlx::query("INSERT INTO segments (first_index, count, batch_id, segment) VALUES ($1, $2, $3, $4)")
            .bind(to_i64(first_index))
            .bind(to_i64(count))
            .bind(batch_id.to_vec())
            .bind(codec::to_bytes(segment))
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Whether a batch was committed: answers an unknown commit outcome.
    pub(super) async fn has_batch(&self, batch_id: &[u8; 16]) -> Result<bool, DatabaseError> {
        // The head's lock waits for a commit that the server is still busy with: without it, "not there"
        // could mean "not yet".
        let mut transaction = self.begin().await?;
        self.lock_head(&mut transaction).await?;
        let row = sqlx::query("SELECT COUNT(*) FROM segments WHERE batch_id = $1")
            .bind(batch_id.to_vec())
            .fetch_one(&mut *transaction)
            .await?;
        transaction.rollback().await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// Inserts a key. `false` when the id or the name is taken.
    pub(super) async fn insert_key(
        &self,
        connection: &mut AnyConnection,
        row: &KeyRow,
        mac: &Digest32,
    ) -> Result<bool, DatabaseError> {
        let done = sqlx::query(
            "INSERT INTO keys (tenant, key_id, name, spec, protection, state, current_version, creator, \
             created, sensitivity, revision, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT DO NOTHING",
        )
        .bind(row.tenant.as_str())
        .bind(row.key_id.0.to_vec())
        .bind(row.name.as_str())
        .bind(row.spec.name())
        .bind(row.protection.name())
        .bind(row.state.name())
        .bind(i64::from(row.current_version.number()))
        .bind(row.creator.to_uri())
        .bind(to_i64(row.created.0))
        .bind(i64::from(row.sensitivity))
        .bind(to_i64(row.revision))
        .bind(mac.0.to_vec())
        .execute(connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Updates what can change of a key. `false` when its revision is not `expected_revision`.
    pub(super) async fn update_key(
        &self,
        connection: &mut AnyConnection,
        row: &KeyRow,
        expected_revision: u64,
        mac: &Digest32,
    ) -> Result<bool, DatabaseError> {
        let done = sqlx::query(
            "UPDATE keys SET state = $1, current_version = $2, revision = $3, mac = $4 \
             WHERE tenant = $5 AND key_id = $6 AND revision = $7",
        )
        .bind(row.state.name())
        .bind(i64::from(row.current_version.number()))
        .bind(to_i64(row.revision))
        .bind(mac.0.to_vec())
        .bind(row.tenant.as_str())
        .bind(row.key_id.0.to_vec())
        .bind(to_i64(expected_revision))
        .execute(connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Inserts a version, or updates its state. The key's revision guards both.
    pub(super) async fn put_version(
        &self,
        connection: &mut AnyConnection,
        row: &VersionRow,
        mac: &Digest32,
    ) -> Result<(), DatabaseError> {
        let (hsm_object, wrapped) = match &row.material {
            Material::Resident(object) => (Some(object.0.to_vec()), None),
            Material::Wrapped(wrapped) => (None, Some(wrapped.clone())),
        };
        sqlx::query(
            "INSERT INTO key_versions (tenant, key_id, version, state, created, hsm_object, wrapped, mac) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT (tenant, key_id, version) DO UPDATE SET state = excluded.state, mac = excluded.mac",
        )
        .bind(row.tenant.as_str())
        .bind(row.key_id.0.to_vec())
        .bind(i64::from(row.version.number()))
        .bind(row.state.name())
        .bind(to_i64(row.created.0))
        .bind(hsm_object)
        .bind(wrapped)
        .bind(mac.0.to_vec())
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Writes a checkpoint.
    pub(super) async fn insert_checkpoint(
        &self,
        connection: &mut AnyConnection,
        checkpoint: &StoredCheckpoint,
    ) -> Result<bool, DatabaseError> {
        let done = sqlx::query(
            "INSERT INTO checkpoints (size, time, checkpoint, frontier) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING",
        )
        .bind(to_i64(checkpoint.frontier.size()))
        .bind(to_i64(checkpoint.time.0))
        .bind(codec::to_bytes(&checkpoint.signed))
        .bind(frontier_bytes(&checkpoint.frontier))
        .execute(connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Claims an idempotency token. When it is taken: the request digest and the key of its first use.
    pub(super) async fn claim_token(
        &self,
        connection: &mut AnyConnection,
        claim: &super::Idempotency,
        key_id: KeyId,
        now: UnixMillis,
    ) -> Result<Option<(Vec<u8>, KeyId)>, DatabaseError> {
        sqlx::query("DELETE FROM idempotency WHERE expires <= $1")
            .bind(to_i64(now.0))
            .execute(&mut *connection)
            .await?;
        let done = sqlx::query(
            "INSERT INTO idempotency (tenant, principal, method, token, request_digest, key_id, expires) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        )
        .bind(claim.principal.tenant.as_str())
        .bind(claim.principal.to_uri())
        .bind(claim.method)
        // Bytes: a text with a NUL is an error in PostgreSQL and would take the whole batch with it.
        .bind(claim.token.as_bytes().to_vec())
        .bind(claim.request_digest.0.to_vec())
        .bind(key_id.0.to_vec())
        .bind(to_i64(now.0 + super::committer::TOKEN_MILLIS))
        .execute(&mut *connection)
        .await?;
        if done.rows_affected() == 1 { Ok(None) } else { self.token(connection, claim, now).await }
    }

    /// Forgets a token that was claimed in this transaction for a request that was then refused.
    pub(super) async fn release_token(
        &self,
        connection: &mut AnyConnection,
        claim: &super::Idempotency,
    ) -> Result<(), DatabaseError> {
        sqlx::query(
            "DELETE FROM idempotency WHERE tenant = $1 AND principal = $2 AND method = $3 AND token = $4",
        )
        .bind(claim.principal.tenant.as_str())
        .bind(claim.principal.to_uri())
        .bind(claim.method)
        .bind(claim.token.as_bytes().to_vec())
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn token(
        &self,
        connection: &mut AnyConnection,
        claim: &super::Idempotency,
        now: UnixMillis,
    ) -> Result<Option<(Vec<u8>, KeyId)>, DatabaseError> {
        let row = sqlx::query(
            "SELECT request_digest, key_id FROM idempotency \
             WHERE tenant = $1 AND principal = $2 AND method = $3 AND token = $4 AND expires > $5",
        )
        .bind(claim.principal.tenant.as_str())
        .bind(claim.principal.to_uri())
        .bind(claim.method)
        .bind(claim.token.as_bytes().to_vec())
        .bind(to_i64(now.0))
        .fetch_optional(connection)
        .await?;
        row.map(|row| Ok((row.try_get(0)?, key_id_from(row.try_get(1)?)?))).transpose()
    }

    /// The key of an earlier request with the same token, if there was one: asked before any HSM call.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn find_token(
        &self,
        claim: &super::Idempotency,
        now: UnixMillis,
    ) -> Result<Option<(Vec<u8>, KeyId)>, DatabaseError> {
        let mut connection = self.pool.acquire().await?;
        self.token(&mut connection, claim, now).await
    }

    /// The head as it is now, without a lock.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer or was changed.
    pub async fn head(&self) -> Result<Head, DatabaseError> {
        let row = sqlx::query(
            "SELECT log_epoch, size, frontier, last_time, catalogue_revision FROM log_head WHERE id = 1",
        )
        .fetch_one(&self.pool)
        .await?;
        self.head_from(&row)
    }

    /// Finds one key of a tenant and checks every MAC.
    ///
    /// # Errors
    /// [`DatabaseError::RowMac`] for a row that somebody else changed.
    pub async fn find_key(
        &self,
        tenant: &TenantName,
        selector: &KeySelector,
        mac: &RowMac,
    ) -> Result<Option<KeyWithVersions>, DatabaseError> {
        let query = match selector {
            KeySelector::Id(id) => sqlx::query(
                "SELECT tenant, key_id, name, spec, protection, state, current_version, creator, created, \
                 sensitivity, revision, mac FROM keys WHERE tenant = $1 AND key_id = $2",
            )
            .bind(tenant.as_str())
            .bind(id.0.to_vec()),
            KeySelector::Name(name) => sqlx::query(
                "SELECT tenant, key_id, name, spec, protection, state, current_version, creator, created, \
                 sensitivity, revision, mac FROM keys WHERE tenant = $1 AND name = $2",
            )
            .bind(tenant.as_str())
            .bind(name.as_str()),
        };
        match query.fetch_optional(&self.pool).await? {
            None => Ok(None),
            Some(row) => Ok(Some(self.with_versions(key_from(&row, mac)?, mac).await?)),
        }
    }

    /// A page of a tenant's keys in order of their names, after a name.
    ///
    /// # Errors
    /// As [`Database::find_key`].
    pub async fn list_keys(
        &self,
        tenant: &TenantName,
        after: &str,
        count_max: u32,
        mac: &RowMac,
    ) -> Result<Vec<KeyWithVersions>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT tenant, key_id, name, spec, protection, state, current_version, creator, created, \
             sensitivity, revision, mac FROM keys WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3",
        )
        .bind(tenant.as_str())
        .bind(after)
        .bind(i64::from(count_max))
        .fetch_all(&self.pool)
        .await?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            keys.push(self.with_versions(key_from(row, mac)?, mac).await?);
        }
        Ok(keys)
    }

    /// Keys with a version that was being created when something stopped.
    ///
    /// # Errors
    /// As [`Database::find_key`].
    pub async fn unfinished_keys(&self, mac: &RowMac) -> Result<Vec<KeyWithVersions>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT tenant, key_id, name, spec, protection, state, current_version, creator, created, \
             sensitivity, revision, mac FROM keys k WHERE EXISTS (SELECT 1 FROM key_versions v \
             WHERE v.tenant = k.tenant AND v.key_id = k.key_id AND v.state = 'CREATING')",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            keys.push(self.with_versions(key_from(row, mac)?, mac).await?);
        }
        Ok(keys)
    }

    /// Every object in the HSM that some version names.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn hsm_objects(&self) -> Result<Vec<HsmObjectId>, DatabaseError> {
        let rows = sqlx::query("SELECT hsm_object FROM key_versions WHERE hsm_object IS NOT NULL")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| object_from(row.try_get(0)?)).collect()
    }

    async fn with_versions(&self, key: KeyRow, mac: &RowMac) -> Result<KeyWithVersions, DatabaseError> {
        let rows = sqlx::query(
            "SELECT version, state, created, hsm_object, wrapped, mac FROM key_versions \
             WHERE tenant = $1 AND key_id = $2 ORDER BY version",
        )
        .bind(key.tenant.as_str())
        .bind(key.key_id.0.to_vec())
        .fetch_all(&self.pool)
        .await?;
        let versions = rows.iter().map(|row| version_from(row, &key, mac)).collect::<Result<Vec<_>, _>>()?;
        Ok(KeyWithVersions { key, versions })
    }

    /// Segments from the one that holds `index` on, at most `count_max`.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer or was changed.
    pub async fn segments_from(
        &self,
        index: u64,
        count_max: u32,
    ) -> Result<Vec<StoredSegment>, DatabaseError> {
        // The inner query finds the place in the index; without it every page would read the log from its
        // beginning.
        let rows = sqlx::query(
            "SELECT first_index, count, segment FROM segments WHERE first_index >= \
             COALESCE((SELECT MAX(first_index) FROM segments WHERE first_index <= $1), 0) \
             AND first_index + count > $1 ORDER BY first_index LIMIT $2",
        )
        .bind(to_i64(index))
        .bind(i64::from(count_max))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let bytes: Vec<u8> = row.try_get(2)?;
                Ok(StoredSegment {
                    first_index: to_u64(row.try_get(0)?, "segment index")?,
                    count: to_u64(row.try_get(1)?, "segment count")?,
                    segment: codec::open(&bytes).map_err(|_| DatabaseError::Corrupt { what: "segment" })?,
                })
            })
            .collect()
    }

    /// All checkpoints in order of their sizes.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer or was changed.
    pub async fn checkpoints(&self) -> Result<Vec<SignedCheckpoint>, DatabaseError> {
        let rows =
            sqlx::query("SELECT checkpoint FROM checkpoints ORDER BY size").fetch_all(&self.pool).await?;
        rows.iter().map(checkpoint_from).collect()
    }

    /// The last checkpoint.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer or was changed.
    pub async fn last_checkpoint(&self) -> Result<Option<SignedCheckpoint>, DatabaseError> {
        let row = sqlx::query("SELECT checkpoint FROM checkpoints ORDER BY size DESC LIMIT 1")
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(checkpoint_from).transpose()
    }

    /// The tree that the checkpoint of one size was made of; `None` when there is no such checkpoint.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer or was changed.
    pub async fn checkpoint_tree(&self, size: u64) -> Result<Option<Frontier>, DatabaseError> {
        let row = sqlx::query("SELECT frontier FROM checkpoints WHERE size = $1")
            .bind(to_i64(size))
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| self.frontier_from(size, &row.try_get::<Vec<u8>, _>(0)?)).transpose()
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

fn checkpoint_from(row: &AnyRow) -> Result<SignedCheckpoint, DatabaseError> {
    let bytes: Vec<u8> = row.try_get(0)?;
    codec::open(&bytes).map_err(|_| DatabaseError::Corrupt { what: "checkpoint" })
}

fn key_id_from(bytes: Vec<u8>) -> Result<KeyId, DatabaseError> {
    bytes.try_into().map(KeyId).map_err(|_| DatabaseError::Corrupt { what: "key id" })
}

fn object_from(bytes: Vec<u8>) -> Result<HsmObjectId, DatabaseError> {
    bytes.try_into().map(HsmObjectId).map_err(|_| DatabaseError::Corrupt { what: "HSM object id" })
}

fn parse<T>(row: &AnyRow, column: usize, read: fn(&str) -> Option<T>) -> Result<T, DatabaseError> {
    let text: String = row.try_get(column)?;
    read(&text).ok_or(DatabaseError::Corrupt { what: "key row" })
}

fn version_number(number: i64) -> Result<KeyVersion, DatabaseError> {
    u32::try_from(number).ok().and_then(KeyVersion::new).ok_or(DatabaseError::Corrupt { what: "key version" })
}

fn key_from(row: &AnyRow, mac: &RowMac) -> Result<KeyRow, DatabaseError> {
    let key = KeyRow {
        tenant: parse(row, 0, |text| TenantName::parse(text).ok())?,
        key_id: key_id_from(row.try_get(1)?)?,
        name: parse(row, 2, |text| KeyName::parse(text).ok())?,
        spec: parse(row, 3, KeySpec::from_name)?,
        protection: parse(row, 4, Protection::from_name)?,
        state: parse(row, 5, KeyState::from_name)?,
        current_version: version_number(row.try_get(6)?)?,
        creator: parse(row, 7, |text| Principal::parse(text).ok())?,
        created: UnixMillis(to_u64(row.try_get(8)?, "key row")?),
        sensitivity: u8::try_from(row.try_get::<i64, _>(9)?)
            .map_err(|_| DatabaseError::Corrupt { what: "key row" })?,
        revision: to_u64(row.try_get(10)?, "key row")?,
    };
    mac.check(key.key_id, &mac.of_key(&key), &row.try_get::<Vec<u8>, _>(11)?)?;
    Ok(key)
}

fn version_from(row: &AnyRow, key: &KeyRow, mac: &RowMac) -> Result<VersionRow, DatabaseError> {
    let hsm_object: Option<Vec<u8>> = row.try_get(3)?;
    let wrapped: Option<Vec<u8>> = row.try_get(4)?;
    let material = match (hsm_object, wrapped) {
        (Some(object), None) => Material::Resident(object_from(object)?),
        (None, Some(wrapped)) => Material::Wrapped(wrapped),
        _ => return Err(DatabaseError::Corrupt { what: "key material" }),
    };
    let version = VersionRow {
        tenant: key.tenant.clone(),
        key_id: key.key_id,
        version: version_number(row.try_get(0)?)?,
        state: parse(row, 1, KeyState::from_name)?,
        created: UnixMillis(to_u64(row.try_get(2)?, "key version")?),
        material,
    };
    mac.check(key.key_id, &mac.of_version(&version), &row.try_get::<Vec<u8>, _>(5)?)?;
    Ok(version)
}
