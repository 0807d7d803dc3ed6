//! What is read: keys with their MACs checked, the log, its checkpoints and its head.

use super::database::{Database, DatabaseError, Head, KeyWithVersions, StoredSegment};
use super::rows::{AliasRow, CountRow, DestructionRequest, ImportRow, KeyRow, Material, RowMac, VersionRow};
use super::writing::to_i64;
use kms_core::audit::SignedCheckpoint;
use kms_core::codec;
use kms_core::id::{
    CatalogueRevision, HsmObjectId, KeyId, KeyName, KeySelector, KeyVersion, Principal, TenantName,
    UnixMillis,
};
use kms_core::key::{Cryptoperiod, Destruction, KeyState, Standing};
use kms_core::merkle::Frontier;
use kms_core::pair::PairPublicKey;
use kms_core::spec::{KeyOrigin, KeySpec, KeyUsage, Protection};
use kms_core::suite::{CheckValue, Digest32};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;

/// What [`key_from`] reads, in its order.
macro_rules! key_columns {
    () => {
        "tenant, key_id, name, spec, usage, protection, state, state_before, destroys, destruction_asked, \
         destruction_asked_by, current_version, creator, created, activates, expires, attributes, revision, mac"
    };
}

/// What [`import_from`] reads, in its order.
macro_rules! import_columns {
    () => {
        "tenant, import_id, spec, hsm_object, wrapped, public_key, creator, created, expires, mac"
    };
}

pub(super) fn to_u64(number: i64, what: &'static str) -> Result<u64, DatabaseError> {
    u64::try_from(number).map_err(|_| DatabaseError::Corrupt { what })
}

impl Database {
    pub(super) fn head_from(&self, row: &AnyRow) -> Result<Head, DatabaseError> {
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

    pub(super) async fn token(
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

    /// Finds one key of a tenant, by its id, its name or an alias, and checks every MAC.
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
            KeySelector::Id(id) => sqlx::query(concat!(
                "SELECT ",
                key_columns!(),
                " FROM keys WHERE tenant = $1 AND key_id = $2"
            ))
            .bind(tenant.as_str())
            .bind(id.0.to_vec()),
            KeySelector::Name(name) => {
                sqlx::query(concat!("SELECT ", key_columns!(), " FROM keys WHERE tenant = $1 AND name = $2"))
                    .bind(tenant.as_str())
                    .bind(name.as_str())
            }
        };
        match (query.fetch_optional(&self.pool).await?, selector) {
            (Some(row), _) => Ok(Some(self.with_versions(key_from(&row, mac)?, mac).await?)),
            (None, KeySelector::Id(_)) => Ok(None),
            (None, KeySelector::Name(name)) => match self.find_alias(tenant, name, mac).await? {
                Some(alias) => Box::pin(self.find_key(tenant, &KeySelector::Id(alias.key_id), mac)).await,
                None => Ok(None),
            },
        }
    }

    /// How often the resident versions of a key may have encrypted; those that never did are absent.
    ///
    /// # Errors
    /// As [`Database::find_key`].
    pub async fn encryption_counts(
        &self,
        tenant: &TenantName,
        key_id: KeyId,
        mac: &RowMac,
    ) -> Result<BTreeMap<KeyVersion, u64>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT version, taken, mac FROM encryption_counts WHERE tenant = $1 AND key_id = $2",
        )
        .bind(tenant.as_str())
        .bind(key_id.0.to_vec())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let count = CountRow {
                    tenant: tenant.clone(),
                    key_id,
                    version: version_number(row.try_get(0)?)?,
                    taken: to_u64(row.try_get(1)?, "count of encryptions")?,
                };
                mac.check(key_id, &mac.of_count(&count), &row.try_get::<Vec<u8>, _>(2)?)?;
                Ok((count.version, count.taken))
            })
            .collect()
    }

    /// Finds an alias of a tenant and checks its MAC.
    ///
    /// # Errors
    /// As [`Database::find_key`].
    pub async fn find_alias(
        &self,
        tenant: &TenantName,
        name: &KeyName,
        mac: &RowMac,
    ) -> Result<Option<AliasRow>, DatabaseError> {
        let row = sqlx::query(
            "SELECT tenant, name, key_id, changed, mac FROM aliases WHERE tenant = $1 AND name = $2",
        )
        .bind(tenant.as_str())
        .bind(name.as_str())
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| alias_from(&row, mac)).transpose()
    }

    /// A page of a tenant's aliases in order of their names, after a name.
    ///
    /// # Errors
    /// As [`Database::find_key`].
    pub async fn list_aliases(
        &self,
        tenant: &TenantName,
        after: &str,
        count_max: u32,
        mac: &RowMac,
    ) -> Result<Vec<AliasRow>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT tenant, name, key_id, changed, mac FROM aliases WHERE tenant = $1 AND name > $2 \
             ORDER BY name LIMIT $3",
        )
        .bind(tenant.as_str())
        .bind(after)
        .bind(i64::from(count_max))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| alias_from(row, mac)).collect()
    }

    /// A page of a tenant's keys in order of their names, after a name, without their versions.
    ///
    /// # Errors
    /// As [`Database::find_key`].
    pub async fn list_keys(
        &self,
        tenant: &TenantName,
        after: &str,
        count_max: u32,
        mac: &RowMac,
    ) -> Result<Vec<KeyRow>, DatabaseError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3"
        ))
        .bind(tenant.as_str())
        .bind(after)
        .bind(i64::from(count_max))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| key_from(row, mac)).collect()
    }

    /// One import of a tenant, used or not.
    ///
    /// # Errors
    /// As [`Database::find_key`].
    pub async fn find_import(
        &self,
        tenant: &TenantName,
        import_id: KeyId,
        mac: &RowMac,
    ) -> Result<Option<ImportRow>, DatabaseError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            import_columns!(),
            " FROM imports WHERE tenant = $1 AND import_id = $2"
        ))
        .bind(tenant.as_str())
        .bind(import_id.0.to_vec())
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| import_from(&row, mac)).transpose()
    }

    /// How many imports a tenant has, used and expired ones among them while their key pairs are there.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn count_imports(&self, tenant: &TenantName) -> Result<u64, DatabaseError> {
        let row = sqlx::query("SELECT COUNT(*) FROM imports WHERE tenant = $1")
            .bind(tenant.as_str())
            .fetch_one(&self.pool)
            .await?;
        to_u64(row.try_get(0)?, "imports")
    }

    /// Imports that are used or have expired. A row that somebody else changed is an error of its own: nothing is done
    /// about the object that it names.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn ended_imports(
        &self,
        now: UnixMillis,
        mac: &RowMac,
    ) -> Result<Vec<Result<ImportRow, DatabaseError>>, DatabaseError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            import_columns!(),
            " FROM imports WHERE expires <= $1 LIMIT 1000"
        ))
        .bind(to_i64(now.0))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.iter().map(|row| import_from(row, mac)).collect())
    }

    /// Keys with a version that was being created when something stopped.
    ///
    /// # Errors
    /// As [`Database::find_key`].
    pub async fn unfinished_keys(&self, mac: &RowMac) -> Result<Vec<KeyWithVersions>, DatabaseError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            key_columns!(),
            " FROM keys k WHERE EXISTS (SELECT 1 FROM key_versions v \
             WHERE v.tenant = k.tenant AND v.key_id = k.key_id AND v.state = 'CREATING')"
        ))
        .fetch_all(&self.pool)
        .await?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            keys.push(self.with_versions(key_from(row, mac)?, mac).await?);
        }
        Ok(keys)
    }

    /// Keys whose date has come while their rows still say the state before it, or whose destruction is not at its end, at
    /// most `count_max` in a fixed order, after a key. Nothing here is authenticated: look at each key before anything is done to it.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer or was changed.
    pub async fn due_keys(
        &self,
        now: UnixMillis,
        after: Option<&(TenantName, KeyId)>,
        count_max: u32,
    ) -> Result<Vec<(TenantName, KeyId)>, DatabaseError> {
        let (tenant, key_id) = after.map(|(tenant, id)| (tenant.as_str(), id.0.to_vec())).unwrap_or_default();
        let rows = sqlx::query(
            "SELECT tenant, key_id FROM keys WHERE ((state = 'PRE_ACTIVE' AND activates <= $1) \
             OR (state = 'ACTIVE' AND expires <= $1) OR state = 'DESTROYING' OR (state = 'DESTROY_PENDING' AND \
             destroys <= $1) OR EXISTS (SELECT 1 FROM key_versions v WHERE v.tenant = keys.tenant AND \
             v.key_id = keys.key_id AND (v.state = 'DESTROYING' OR (v.state = 'DESTROY_PENDING' AND v.destroys <= $1)))) AND (tenant > $2 OR (tenant = $2 AND key_id > $3)) \
             ORDER BY tenant, key_id LIMIT $4",
        )
        .bind(to_i64(now.0))
        .bind(tenant)
        .bind(key_id)
        .bind(i64::from(count_max))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok((parse(row, 0, |text| TenantName::parse(text).ok())?, key_id_from(row.try_get(1)?)?))
            })
            .collect()
    }

    /// Versions whose material was destroyed at a time or later.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer or was changed.
    pub async fn destroyed_since(&self, time: UnixMillis) -> Result<Vec<(KeyId, KeyVersion)>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT key_id, version FROM key_versions WHERE destroys >= $1 \
             AND state IN ('DESTROYED', 'DESTROYED_COMPROMISED')",
        )
        .bind(to_i64(time.0))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((key_id_from(row.try_get(0)?)?, version_number(row.try_get(1)?)?))).collect()
    }

    /// The destruction certificates of a key, oldest first, after a time. Each carries its own signature.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn destructions(
        &self,
        tenant: &TenantName,
        key_id: KeyId,
        after: UnixMillis,
        count_max: u32,
    ) -> Result<Vec<(UnixMillis, Vec<u8>)>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT time, certificate FROM destructions WHERE tenant = $1 AND key_id = $2 AND time > $3 \
             ORDER BY time LIMIT $4",
        )
        .bind(tenant.as_str())
        .bind(key_id.0.to_vec())
        .bind(to_i64(after.0))
        .bind(i64::from(count_max))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| Ok((UnixMillis(to_u64(row.try_get(0)?, "destruction")?), row.try_get(1)?)))
            .collect()
    }

    /// Every object in the HSM that some version names.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn hsm_objects(&self) -> Result<Vec<HsmObjectId>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT hsm_object FROM key_versions WHERE hsm_object IS NOT NULL \
             UNION ALL SELECT hsm_object FROM imports WHERE hsm_object IS NOT NULL",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| object_from(row.try_get(0)?)).collect()
    }

    async fn with_versions(&self, key: KeyRow, mac: &RowMac) -> Result<KeyWithVersions, DatabaseError> {
        let rows = sqlx::query(
            "SELECT version, state, created, hsm_object, wrapped, mac, state_before, destroys, destruction_asked, \
             destruction_asked_by, check_value, public_key, origin FROM key_versions \
             WHERE tenant = $1 AND key_id = $2 ORDER BY version",
        )
        .bind(key.tenant.as_str())
        .bind(key.key_id.0.to_vec())
        .fetch_all(&self.pool)
        .await?;
        let versions = rows.iter().map(|row| version_from(row, &key, mac)).collect::<Result<Vec<_>, _>>()?;
        let rows = sqlx::query(
            "SELECT tenant, name, key_id, changed, mac FROM aliases WHERE tenant = $1 AND key_id = $2 ORDER BY name",
        )
        .bind(key.tenant.as_str())
        .bind(key.key_id.0.to_vec())
        .fetch_all(&self.pool)
        .await?;
        let aliases = rows.iter().map(|row| Ok(alias_from(row, mac)?.name));
        let aliases = aliases.collect::<Result<Vec<_>, DatabaseError>>()?;
        Ok(KeyWithVersions { key, versions, aliases })
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

    /// Checkpoints with their sizes in ascending order, from one size on.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer or was changed.
    pub async fn checkpoints_from(
        &self,
        size: u64,
        count_max: u32,
    ) -> Result<Vec<(u64, SignedCheckpoint)>, DatabaseError> {
        // No log is longer than the database can count.
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let rows =
            sqlx::query("SELECT checkpoint, size FROM checkpoints WHERE size >= $1 ORDER BY size LIMIT $2")
                .bind(size)
                .bind(i64::from(count_max))
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(|row| Ok((to_u64(row.try_get(1)?, "checkpoint")?, checkpoint_from(row)?))).collect()
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
}

fn checkpoint_from(row: &AnyRow) -> Result<SignedCheckpoint, DatabaseError> {
    let bytes: Vec<u8> = row.try_get(0)?;
    codec::open(&bytes).map_err(|_| DatabaseError::Corrupt { what: "checkpoint" })
}

pub(super) fn key_id_from(bytes: Vec<u8>) -> Result<KeyId, DatabaseError> {
    bytes.try_into().map(KeyId).map_err(|_| DatabaseError::Corrupt { what: "key id" })
}

fn object_from(bytes: Vec<u8>) -> Result<HsmObjectId, DatabaseError> {
    bytes.try_into().map(HsmObjectId).map_err(|_| DatabaseError::Corrupt { what: "HSM object id" })
}

pub(super) fn parse<T>(row: &AnyRow, column: usize, read: fn(&str) -> Option<T>) -> Result<T, DatabaseError> {
    let text: String = row.try_get(column)?;
    read(&text).ok_or(DatabaseError::Corrupt { what: "key row" })
}

pub(super) fn version_number(number: i64) -> Result<KeyVersion, DatabaseError> {
    u32::try_from(number).ok().and_then(KeyVersion::new).ok_or(DatabaseError::Corrupt { what: "key version" })
}

fn date_from(row: &AnyRow, column: usize) -> Result<Option<UnixMillis>, DatabaseError> {
    let date: Option<i64> = row.try_get(column)?;
    date.map(|date| to_u64(date, "key row").map(UnixMillis)).transpose()
}

/// State in one column; state before, date, and when and by whom it was asked for in four from another on.
fn standing_from(
    row: &AnyRow,
    state: usize,
    from: usize,
) -> Result<(Standing, Option<DestructionRequest>), DatabaseError> {
    let corrupt = || DatabaseError::Corrupt { what: "state of a key" };
    let before: Option<String> = row.try_get(from)?;
    let destruction = match (before, date_from(row, from + 1)?) {
        (None, None) => None,
        (Some(before), Some(time)) => {
            Some(Destruction { before: KeyState::from_name(&before).ok_or_else(corrupt)?, time })
        }
        _ => return Err(corrupt()),
    };
    let by: Option<String> = row.try_get(from + 3)?;
    let request = match (date_from(row, from + 2)?, by) {
        (None, None) => None,
        (Some(time), Some(by)) => {
            Some(DestructionRequest { by: Principal::parse(&by).map_err(|_| corrupt())?, time })
        }
        _ => return Err(corrupt()),
    };
    let standing = Standing::from_parts(parse(row, state, KeyState::from_name)?, destruction);
    match standing {
        Some(standing) if destruction.is_some() == request.is_some() => Ok((standing, request)),
        _ => Err(corrupt()),
    }
}

fn key_from(row: &AnyRow, mac: &RowMac) -> Result<KeyRow, DatabaseError> {
    const CORRUPT: DatabaseError = DatabaseError::Corrupt { what: "key row" };
    let (standing, destruction_request) = standing_from(row, 6, 7)?;
    let key = KeyRow {
        tenant: parse(row, 0, |text| TenantName::parse(text).ok())?,
        key_id: key_id_from(row.try_get(1)?)?,
        name: parse(row, 2, |text| KeyName::parse(text).ok())?,
        spec: parse(row, 3, KeySpec::from_name)?,
        usage: parse(row, 4, KeyUsage::from_name)?,
        protection: parse(row, 5, Protection::from_name)?,
        standing,
        destruction_request,
        current_version: version_number(row.try_get(11)?)?,
        creator: parse(row, 12, |text| Principal::parse(text).ok())?,
        created: UnixMillis(to_u64(row.try_get(13)?, "key row")?),
        period: Cryptoperiod { activates: date_from(row, 14)?, expires: date_from(row, 15)? },
        attributes: codec::open(&row.try_get::<Vec<u8>, _>(16)?).map_err(|_| CORRUPT)?,
        revision: to_u64(row.try_get(17)?, "key row")?,
    };
    if !key.spec.usages().contains(&key.usage) {
        return Err(CORRUPT);
    }
    mac.check(key.key_id, &mac.of_key(&key), &row.try_get::<Vec<u8>, _>(18)?)?;
    Ok(key)
}

/// Tenant, name, key, time of the last change and MAC.
fn alias_from(row: &AnyRow, mac: &RowMac) -> Result<AliasRow, DatabaseError> {
    let alias = AliasRow {
        tenant: parse(row, 0, |text| TenantName::parse(text).ok())?,
        name: parse(row, 1, |text| KeyName::parse(text).ok())?,
        key_id: key_id_from(row.try_get(2)?)?,
        changed: UnixMillis(to_u64(row.try_get(3)?, "alias")?),
    };
    mac.check(alias.key_id, &mac.of_alias(&alias), &row.try_get::<Vec<u8>, _>(4)?)?;
    Ok(alias)
}

fn public_key_from(row: &AnyRow, column: usize) -> Result<Option<PairPublicKey>, DatabaseError> {
    let der: Option<Vec<u8>> = row.try_get(column)?;
    let read = |der: Vec<u8>| PairPublicKey::from_spki(&der);
    der.map(read).transpose().map_err(|_| DatabaseError::Corrupt { what: "public key" })
}

/// The columns `hsm_object` and `wrapped`.
fn material_from(object: Option<Vec<u8>>, wrapped: Option<Vec<u8>>) -> Result<Material, DatabaseError> {
    Ok(match (object.map(object_from).transpose()?, wrapped) {
        (None, None) => Material::Erased,
        (Some(object), None) => Material::Resident(object),
        (None, Some(wrapped)) => Material::Wrapped(wrapped),
        (Some(object), Some(wrapped)) => Material::Staged { object, wrapped },
    })
}

/// What `import_columns` names, in its order.
fn import_from(row: &AnyRow, mac: &RowMac) -> Result<ImportRow, DatabaseError> {
    let import = ImportRow {
        tenant: parse(row, 0, |text| TenantName::parse(text).ok())?,
        import_id: key_id_from(row.try_get(1)?)?,
        spec: parse(row, 2, KeySpec::from_name)?,
        material: material_from(row.try_get(3)?, row.try_get(4)?)?,
        public_key: public_key_from(row, 5)?,
        creator: parse(row, 6, |text| Principal::parse(text).ok())?,
        created: UnixMillis(to_u64(row.try_get(7)?, "import")?),
        expires: UnixMillis(to_u64(row.try_get(8)?, "import")?),
    };
    mac.check(import.import_id, &mac.of_import(&import), &row.try_get::<Vec<u8>, _>(9)?)?;
    Ok(import)
}

fn version_from(row: &AnyRow, key: &KeyRow, mac: &RowMac) -> Result<VersionRow, DatabaseError> {
    let hsm_object: Option<Vec<u8>> = row.try_get(3)?;
    let wrapped: Option<Vec<u8>> = row.try_get(4)?;
    let (standing, destruction_request) = standing_from(row, 1, 6)?;
    let material = material_from(hsm_object, wrapped)?;
    if (material == Material::Erased) != standing.state.is_destroyed() {
        return Err(DatabaseError::Corrupt { what: "key material" });
    }
    let version = VersionRow {
        tenant: key.tenant.clone(),
        key_id: key.key_id,
        version: version_number(row.try_get(0)?)?,
        origin: parse(row, 12, KeyOrigin::from_name)?,
        standing,
        destruction_request,
        created: UnixMillis(to_u64(row.try_get(2)?, "key version")?),
        material,
        check_value: match row.try_get::<Option<Vec<u8>>, _>(10)? {
            None => None,
            Some(bytes) => Some(
                bytes
                    .try_into()
                    .map(CheckValue)
                    .map_err(|_| DatabaseError::Corrupt { what: "check value" })?,
            ),
        },
        public_key: public_key_from(row, 11)?,
    };
    mac.check(key.key_id, &mac.of_version(&version), &row.try_get::<Vec<u8>, _>(5)?)?;
    Ok(version)
}
