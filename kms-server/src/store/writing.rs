//! What the committer writes: one text of SQL for SQLite and PostgreSQL wherever the dialects allow.

use super::committer::{ImportChange, Refusal};
use super::database::{Database, DatabaseError, Dialect, Head, StoredCheckpoint};
use super::rows::{AliasRow, CountRow, KeyRow, Material, VersionRow};
use kms_core::audit::Segment;
use kms_core::codec;
use kms_core::id::{KeyId, KeyName, TenantName, UnixMillis};
use kms_core::merkle::Frontier;
use kms_core::pair::PairPublicKey;
use kms_core::suite::Digest32;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, Connection, Row, Transaction};

pub(super) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).expect("indexes, revisions and milliseconds stay far below 2^63")
}

/// The columns `hsm_object` and `wrapped`.
fn material_columns(material: &Material) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    match material {
        Material::Resident(object) => (Some(object.0.to_vec()), None),
        Material::Wrapped(wrapped) => (None, Some(wrapped.clone())),
        Material::Staged { object, wrapped } => (Some(object.0.to_vec()), Some(wrapped.clone())),
        Material::Erased => (None, None),
    }
}

fn frontier_bytes(frontier: &Frontier) -> Vec<u8> {
    frontier.roots().iter().flat_map(|root| root.0).collect()
}

impl Database {
    /// A connection of the pool that lives.
    pub(super) async fn connection(&self) -> Result<PoolConnection<Any>, DatabaseError> {
        Ok(self.pool.acquire().await?)
    }

    /// Completes when [`Database::close`] was called.
    pub(super) async fn closing(&self) {
        self.pool.close_event().await;
    }

    /// Begins a transaction that will write.
    pub(super) async fn begin_on<'c>(
        &self,
        connection: &'c mut AnyConnection,
    ) -> Result<Transaction<'c, Any>, DatabaseError> {
        Ok(match self.dialect {
            // Taking the write lock at once avoids the deadlock of two readers that both want to write.
            Dialect::Sqlite => connection.begin_with("BEGIN IMMEDIATE").await?,
            Dialect::Postgres => connection.begin().await?,
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

    /// Writes one batch's segment row and the head that follows from it, in one round trip: while a batch
    /// commits, everybody waits.
    pub(super) async fn append_segment(
        &self,
        connection: &mut AnyConnection,
        (first_index, count): (u64, u64),
        batch_id: &[u8; 16],
        segment: &Segment,
        head: &Head,
    ) -> Result<(), DatabaseError> {
        // SQLite runs two statements of one text, PostgreSQL a statement within a statement.
        let sql = match self.dialect {
            Dialect::Sqlite => {
                "INSERT INTO segments (first_index, count, batch_id, segment) VALUES ($1, $2, $3, $4); \
                 UPDATE log_head SET size = $5, frontier = $6, last_time = $7, catalogue_revision = $8 \
                 WHERE id = 1"
            }
            Dialect::Postgres => {
                "WITH appended AS \
                 (INSERT INTO segments (first_index, count, batch_id, segment) VALUES ($1, $2, $3, $4)) \
                 UPDATE log_head SET size = $5, frontier = $6, last_time = $7, catalogue_revision = $8 \
                 WHERE id = 1"
            }
        };
        sqlx::query(sql)
            .bind(to_i64(first_index))
            .bind(to_i64(count))
            .bind(batch_id.to_vec())
            .bind(codec::to_bytes(segment))
            .bind(to_i64(head.frontier.size()))
            .bind(frontier_bytes(&head.frontier))
            .bind(to_i64(head.last_time.0))
            .bind(to_i64(head.catalogue.0))
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Whether a batch was committed: answers an unknown commit outcome.
    pub(super) async fn has_batch(&self, batch_id: &[u8; 16]) -> Result<bool, DatabaseError> {
        // The head's lock waits for a commit that the server is still busy with: without it, "not there"
        // could mean "not yet".
        let mut connection = self.connection().await?;
        let mut transaction = self.begin_on(&mut connection).await?;
        self.lock_head(&mut transaction).await?;
        let row = sqlx::query("SELECT COUNT(*) FROM segments WHERE batch_id = $1")
            .bind(batch_id.to_vec())
            .fetch_one(&mut *transaction)
            .await?;
        transaction.rollback().await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// Inserts a key. `false` when the id or the name is taken by another one.
    pub(super) async fn insert_key(
        &self,
        connection: &mut AnyConnection,
        row: &KeyRow,
        mac: &Digest32,
    ) -> Result<bool, DatabaseError> {
        let done = sqlx::query(
            // A key is made without a destruction.
            "INSERT INTO keys (tenant, key_id, name, spec, protection, state, current_version, creator, \
             created, activates, expires, attributes, revision, mac, usage) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
             ON CONFLICT DO NOTHING",
        )
        .bind(row.tenant.as_str())
        .bind(row.key_id.0.to_vec())
        .bind(row.name.as_str())
        .bind(row.spec.name())
        .bind(row.protection.name())
        .bind(row.standing.state.name())
        .bind(i64::from(row.current_version.number()))
        .bind(row.creator.to_uri())
        .bind(to_i64(row.created.0))
        .bind(row.period.activates.map(|time| to_i64(time.0)))
        .bind(row.period.expires.map(|time| to_i64(time.0)))
        .bind(codec::to_bytes(&row.attributes))
        .bind(to_i64(row.revision))
        .bind(mac.0.to_vec())
        .bind(row.usage.name())
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
            "UPDATE keys SET state = $1, current_version = $2, revision = $3, mac = $4, state_before = $8, \
             destroys = $9, destruction_asked = $10, destruction_asked_by = $11, attributes = $12 \
             WHERE tenant = $5 AND key_id = $6 AND revision = $7",
        )
        .bind(row.standing.state.name())
        .bind(i64::from(row.current_version.number()))
        .bind(to_i64(row.revision))
        .bind(mac.0.to_vec())
        .bind(row.tenant.as_str())
        .bind(row.key_id.0.to_vec())
        .bind(to_i64(expected_revision))
        .bind(row.standing.destruction.map(|one| one.before.name()))
        .bind(row.standing.destruction.map(|one| to_i64(one.time.0)))
        .bind(row.destruction_request.as_ref().map(|one| to_i64(one.time.0)))
        .bind(row.destruction_request.as_ref().map(|one| one.by.to_uri()))
        .bind(codec::to_bytes(&row.attributes))
        .execute(connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Takes encryptions of a version. `false` when others were taken since `before`.
    pub(super) async fn take_encryptions(
        &self,
        connection: &mut AnyConnection,
        before: u64,
        row: &CountRow,
        mac: &Digest32,
    ) -> Result<bool, DatabaseError> {
        let sql = match before {
            0 => {
                "INSERT INTO encryption_counts (tenant, key_id, version, taken, mac) \
                 SELECT $1, $2, $3, $4, $5 WHERE $6 = 0 ON CONFLICT DO NOTHING"
            }
            _ => {
                "UPDATE encryption_counts SET taken = $4, mac = $5 \
                 WHERE tenant = $1 AND key_id = $2 AND version = $3 AND taken = $6"
            }
        };
        let done = sqlx::query(sql)
            .bind(row.tenant.as_str())
            .bind(row.key_id.0.to_vec())
            .bind(i64::from(row.version.number()))
            .bind(to_i64(row.taken))
            .bind(mac.0.to_vec())
            .bind(to_i64(before))
            .execute(connection)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Makes an alias name a key, whether it is new or named another one before.
    pub(super) async fn put_alias(
        &self,
        connection: &mut AnyConnection,
        row: &AliasRow,
        mac: &Digest32,
    ) -> Result<(), DatabaseError> {
        sqlx::query(
            "INSERT INTO aliases (tenant, name, key_id, changed, mac) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (tenant, name) DO UPDATE SET key_id = excluded.key_id, changed = excluded.changed, \
             mac = excluded.mac",
        )
        .bind(row.tenant.as_str())
        .bind(row.name.as_str())
        .bind(row.key_id.0.to_vec())
        .bind(to_i64(row.changed.0))
        .bind(mac.0.to_vec())
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Removes an alias.
    pub(super) async fn remove_alias(
        &self,
        connection: &mut AnyConnection,
        tenant: &TenantName,
        name: &KeyName,
    ) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM aliases WHERE tenant = $1 AND name = $2")
            .bind(tenant.as_str())
            .bind(name.as_str())
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Whether a tenant has an alias of this name.
    pub(super) async fn has_alias(
        &self,
        connection: &mut AnyConnection,
        tenant: &TenantName,
        name: &KeyName,
    ) -> Result<bool, DatabaseError> {
        let row = sqlx::query("SELECT COUNT(*) FROM aliases WHERE tenant = $1 AND name = $2")
            .bind(tenant.as_str())
            .bind(name.as_str())
            .fetch_one(connection)
            .await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// Inserts a version, or updates what can change of it. The key's revision guards both.
    pub(super) async fn put_version(
        &self,
        connection: &mut AnyConnection,
        row: &VersionRow,
        mac: &Digest32,
    ) -> Result<(), DatabaseError> {
        let (hsm_object, wrapped) = material_columns(&row.material);
        sqlx::query(
            "INSERT INTO key_versions (tenant, key_id, version, state, created, hsm_object, wrapped, mac, \
             state_before, destroys, destruction_asked, destruction_asked_by, check_value, public_key, \
             origin) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
             ON CONFLICT (tenant, key_id, version) DO UPDATE SET state = excluded.state, mac = excluded.mac, \
             hsm_object = excluded.hsm_object, wrapped = excluded.wrapped, state_before = excluded.state_before, \
             destroys = excluded.destroys, destruction_asked = excluded.destruction_asked, \
             destruction_asked_by = excluded.destruction_asked_by, check_value = excluded.check_value, \
             public_key = excluded.public_key",
        )
        .bind(row.tenant.as_str())
        .bind(row.key_id.0.to_vec())
        .bind(i64::from(row.version.number()))
        .bind(row.standing.state.name())
        .bind(to_i64(row.created.0))
        .bind(hsm_object)
        .bind(wrapped)
        .bind(mac.0.to_vec())
        .bind(row.standing.destruction.map(|one| one.before.name()))
        .bind(row.standing.destruction.map(|one| to_i64(one.time.0)))
        .bind(row.destruction_request.as_ref().map(|one| to_i64(one.time.0)))
        .bind(row.destruction_request.as_ref().map(|one| one.by.to_uri()))
        .bind(row.check_value.map(|value| value.0.to_vec()))
        .bind(row.public_key.as_ref().map(PairPublicKey::to_spki))
        .bind(row.origin.name())
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Whether the row that an import is to be changed from is there.
    pub(super) async fn has_import(
        &self,
        connection: &mut AnyConnection,
        change: &ImportChange,
    ) -> Result<bool, DatabaseError> {
        let (ImportChange::Changed { before, row, .. } | ImportChange::Removed { before, row }) = change
        else {
            return Ok(false);
        };
        let found =
            sqlx::query("SELECT COUNT(*) FROM imports WHERE tenant = $1 AND import_id = $2 AND mac = $3")
                .bind(row.tenant.as_str())
                .bind(row.import_id.0.to_vec())
                .bind(before.0.to_vec())
                .fetch_one(connection)
                .await?;
        Ok(found.try_get::<i64, _>(0)? > 0)
    }

    /// Inserts, changes or removes an import. `false` when the row is not the one that it is to be changed from.
    pub(super) async fn change_import(
        &self,
        connection: &mut AnyConnection,
        change: &ImportChange,
    ) -> Result<bool, DatabaseError> {
        let (tenant, import_id) = (&change.row().tenant, change.row().import_id);
        let done = match change {
            ImportChange::New { row, mac } => {
                let (hsm_object, wrapped) = material_columns(&row.material);
                sqlx::query(
                    "INSERT INTO imports (tenant, import_id, spec, hsm_object, wrapped, public_key, creator, \
                     created, expires, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                     ON CONFLICT DO NOTHING",
                )
                .bind(tenant.as_str())
                .bind(import_id.0.to_vec())
                .bind(row.spec.name())
                .bind(hsm_object)
                .bind(wrapped)
                .bind(row.public_key.as_ref().map(PairPublicKey::to_spki))
                .bind(row.creator.to_uri())
                .bind(to_i64(row.created.0))
                .bind(to_i64(row.expires.0))
                .bind(mac.0.to_vec())
                .execute(connection)
                .await?
            }
            ImportChange::Changed { before, row, mac } => {
                sqlx::query(
                    "UPDATE imports SET public_key = $1, expires = $2, mac = $3 \
                     WHERE tenant = $4 AND import_id = $5 AND mac = $6",
                )
                .bind(row.public_key.as_ref().map(PairPublicKey::to_spki))
                .bind(to_i64(row.expires.0))
                .bind(mac.0.to_vec())
                .bind(tenant.as_str())
                .bind(import_id.0.to_vec())
                .bind(before.0.to_vec())
                .execute(connection)
                .await?
            }
            ImportChange::Removed { before, .. } => {
                sqlx::query("DELETE FROM imports WHERE tenant = $1 AND import_id = $2 AND mac = $3")
                    .bind(tenant.as_str())
                    .bind(import_id.0.to_vec())
                    .bind(before.0.to_vec())
                    .execute(connection)
                    .await?
            }
        };
        Ok(done.rows_affected() == 1)
    }

    /// Writes a destruction certificate.
    pub(super) async fn insert_destruction(
        &self,
        connection: &mut AnyConnection,
        key: &KeyRow,
        (time, certificate): &(UnixMillis, Vec<u8>),
    ) -> Result<(), DatabaseError> {
        sqlx::query(
            "INSERT INTO destructions (tenant, key_id, time, certificate) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING",
        )
        .bind(key.tenant.as_str())
        .bind(key.key_id.0.to_vec())
        .bind(to_i64(time.0))
        .bind(certificate.clone())
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

    /// Claims an idempotency token for a result. When it is taken: why the request is refused.
    pub(super) async fn claim_token(
        &self,
        connection: &mut AnyConnection,
        claim: &super::Idempotency,
        key_id: KeyId,
        now: UnixMillis,
    ) -> Result<Option<Refusal>, DatabaseError> {
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
        if done.rows_affected() == 1 {
            return Ok(None);
        }
        let first = self.token(connection, claim, now).await?;
        Ok(first.map(|(digest, result)| match digest == claim.request_digest.0 {
            true => Refusal::Replayed(result),
            false => Refusal::TokenConflict,
        }))
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
}
