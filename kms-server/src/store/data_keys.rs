//! Registered data keys: their rows, with MACs (docs/formats/database.md), and how these are written and read.

use super::database::{Database, DatabaseError};
use super::reading::{key_id_from, parse, to_u64, version_number};
use super::rows::{RowMac, canonical};
use super::writing::to_i64;
use super::{Idempotency, Refusal};
use kms_core::data_key::{DataKeyId, DataKeyStanding, DataKeyState, RotationPeriod};
use kms_core::id::{KeyId, KeyName, KeyVersion, Principal, TenantName, UnixMillis};
use kms_core::suite::{AeadAlgorithm, Digest32};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;

/// What [`data_key_from`] reads, in its order.
macro_rules! data_key_columns {
    () => {
        "tenant, data_key_id, name, spec, key_id, state, since, rotation_days, current_version, creator, created, \
         revision, mac"
    };
}

/// What [`version_from`] reads, in its order.
macro_rules! version_columns {
    () => {
        "version, state, since, created, key_id, key_version, ciphertext, mac"
    };
}

/// One registered data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyRow {
    /// The tenant that owns it.
    pub tenant: TenantName,
    /// Its identity.
    pub data_key_id: DataKeyId,
    /// Its name, unique among the tenant's registered data keys.
    pub name: KeyName,
    /// Its algorithm.
    pub algorithm: AeadAlgorithm,
    /// The key that new versions are encrypted under.
    pub key_id: KeyId,
    /// Gates all versions.
    pub standing: DataKeyStanding,
    /// How old its current version becomes.
    pub rotation_period: RotationPeriod,
    /// The version that is given when none is named.
    pub current_version: KeyVersion,
    /// Who created it.
    pub creator: Principal,
    /// When.
    pub created: UnixMillis,
    /// Grows by one with every change of the row or a version.
    pub revision: u64,
}

/// One version of a registered data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyVersionRow {
    /// The tenant that owns it.
    pub tenant: TenantName,
    /// The data key.
    pub data_key_id: DataKeyId,
    /// The version.
    pub version: KeyVersion,
    /// Its own standing.
    pub standing: DataKeyStanding,
    /// When it was made.
    pub created: UnixMillis,
    /// The key and version that it is encrypted under, or was.
    pub key: (KeyId, KeyVersion),
    /// docs/formats/ciphertext.md, purpose 4; `None` exactly when it is destroyed.
    pub ciphertext: Option<Vec<u8>>,
}

/// Rows that change together, with their MACs.
#[derive(Clone, Debug)]
pub struct DataKeyChange {
    /// The revision that the row must have; `None` inserts it.
    pub expected_revision: Option<u64>,
    /// The row as it shall be.
    pub data_key: (DataKeyRow, Digest32),
    /// Versions that are new or change.
    pub versions: Vec<(DataKeyVersionRow, Digest32)>,
}

fn standing_fields(standing: &DataKeyStanding) -> (&'static [u8], [u8; 8]) {
    (standing.state.name().as_bytes(), standing.since.0.to_be_bytes())
}

fn data_key_bytes(row: &DataKeyRow) -> Vec<u8> {
    let (state, since) = standing_fields(&row.standing);
    canonical(&[
        b"kms/v1/row/data-key",
        row.tenant.as_str().as_bytes(),
        &row.data_key_id.0,
        row.name.as_str().as_bytes(),
        row.algorithm.name().as_bytes(),
        &row.key_id.0,
        state,
        &since,
        &row.rotation_period.days().to_be_bytes(),
        &row.current_version.number().to_be_bytes(),
        row.creator.to_uri().as_bytes(),
        &row.created.0.to_be_bytes(),
        &row.revision.to_be_bytes(),
    ])
}

impl RowMac {
    /// MAC of a registered data key's row.
    pub fn of_data_key(&self, row: &DataKeyRow) -> Digest32 {
        self.mac(&data_key_bytes(row))
    }

    /// MAC of the row of a version of a registered data key.
    pub fn of_data_key_version(&self, row: &DataKeyVersionRow) -> Digest32 {
        let (state, since) = standing_fields(&row.standing);
        let (kind, ciphertext): (&[u8], &[u8]) = match &row.ciphertext {
            Some(ciphertext) => (b"encrypted", ciphertext),
            None => (b"erased", b""),
        };
        self.mac(&canonical(&[
            b"kms/v1/row/data-key-version",
            row.tenant.as_str().as_bytes(),
            &row.data_key_id.0,
            &row.version.number().to_be_bytes(),
            state,
            &since,
            &row.created.0.to_be_bytes(),
            &row.key.0.0,
            &row.key.1.number().to_be_bytes(),
            kind,
            ciphertext,
        ]))
    }
}

impl Database {
    /// Applies a change of a registered data key, within the committer's transaction. Nothing is written when it is refused.
    pub(super) async fn change_data_key(
        &self,
        connection: &mut AnyConnection,
        change: &DataKeyChange,
        claim: Option<&Idempotency>,
        time: UnixMillis,
    ) -> Result<Option<Refusal>, DatabaseError> {
        let (row, mac) = &change.data_key;
        if let Some(claim) = claim {
            // Tokens keep 16 bytes of what they made, whatever that is: the method is part of the token.
            let id = KeyId(row.data_key_id.0);
            if let Some(refusal) = self.claim_token(connection, claim, id, time).await? {
                return Ok(Some(refusal));
            }
        }
        let (is_written, refusal) = match change.expected_revision {
            None => (self.insert_data_key(connection, row, mac).await?, Refusal::Exists),
            Some(revision) => {
                (self.update_data_key(connection, row, revision, mac).await?, Refusal::Conflict)
            }
        };
        if !is_written {
            // A refused request leaves no token.
            if let Some(claim) = claim {
                self.release_token(connection, claim).await?;
            }
            return Ok(Some(refusal));
        }
        for (version, mac) in &change.versions {
            self.put_data_key_version(connection, version, mac).await?;
        }
        Ok(None)
    }

    async fn insert_data_key(
        &self,
        connection: &mut AnyConnection,
        row: &DataKeyRow,
        mac: &Digest32,
    ) -> Result<bool, DatabaseError> {
        let done = sqlx::query(concat!(
            "INSERT INTO data_keys (",
            data_key_columns!(),
            ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING"
        ))
        .bind(row.tenant.as_str())
        .bind(row.data_key_id.0.to_vec())
        .bind(row.name.as_str())
        .bind(row.algorithm.name())
        .bind(row.key_id.0.to_vec())
        .bind(row.standing.state.name())
        .bind(to_i64(row.standing.since.0))
        .bind(i64::from(row.rotation_period.days()))
        .bind(i64::from(row.current_version.number()))
        .bind(row.creator.to_uri())
        .bind(to_i64(row.created.0))
        .bind(to_i64(row.revision))
        .bind(mac.0.to_vec())
        .execute(connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn update_data_key(
        &self,
        connection: &mut AnyConnection,
        row: &DataKeyRow,
        expected_revision: u64,
        mac: &Digest32,
    ) -> Result<bool, DatabaseError> {
        let done = sqlx::query(
            "UPDATE data_keys SET state = $1, since = $2, current_version = $3, revision = $4, mac = $5 \
             WHERE tenant = $6 AND data_key_id = $7 AND revision = $8",
        )
        .bind(row.standing.state.name())
        .bind(to_i64(row.standing.since.0))
        .bind(i64::from(row.current_version.number()))
        .bind(to_i64(row.revision))
        .bind(mac.0.to_vec())
        .bind(row.tenant.as_str())
        .bind(row.data_key_id.0.to_vec())
        .bind(to_i64(expected_revision))
        .execute(connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Inserts a version, or updates what can change of it. The data key's revision guards both.
    async fn put_data_key_version(
        &self,
        connection: &mut AnyConnection,
        row: &DataKeyVersionRow,
        mac: &Digest32,
    ) -> Result<(), DatabaseError> {
        sqlx::query(concat!(
            "INSERT INTO data_key_versions (tenant, data_key_id, ",
            version_columns!(),
            ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (tenant, data_key_id, version) DO UPDATE SET state = excluded.state, \
             since = excluded.since, ciphertext = excluded.ciphertext, mac = excluded.mac"
        ))
        .bind(row.tenant.as_str())
        .bind(row.data_key_id.0.to_vec())
        .bind(i64::from(row.version.number()))
        .bind(row.standing.state.name())
        .bind(to_i64(row.standing.since.0))
        .bind(to_i64(row.created.0))
        .bind(row.key.0.0.to_vec())
        .bind(i64::from(row.key.1.number()))
        .bind(row.ciphertext.clone())
        .bind(mac.0.to_vec())
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Finds a registered data key of a tenant and checks its MAC.
    ///
    /// # Errors
    /// [`DatabaseError::RowMac`] for a row that somebody else changed.
    pub async fn find_data_key(
        &self,
        tenant: &TenantName,
        name: &KeyName,
        mac: &RowMac,
    ) -> Result<Option<DataKeyRow>, DatabaseError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            data_key_columns!(),
            " FROM data_keys WHERE tenant = $1 AND name = $2"
        ))
        .bind(tenant.as_str())
        .bind(name.as_str())
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| data_key_from(&row, mac)).transpose()
    }

    /// One version of a registered data key.
    ///
    /// # Errors
    /// As [`Database::find_data_key`].
    pub async fn find_data_key_version(
        &self,
        data_key: &DataKeyRow,
        version: KeyVersion,
        mac: &RowMac,
    ) -> Result<Option<DataKeyVersionRow>, DatabaseError> {
        let row = sqlx::query(concat!(
            "SELECT ",
            version_columns!(),
            " FROM data_key_versions WHERE tenant = $1 AND data_key_id = $2 AND version = $3"
        ))
        .bind(data_key.tenant.as_str())
        .bind(data_key.data_key_id.0.to_vec())
        .bind(i64::from(version.number()))
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| version_from(&row, data_key, mac)).transpose()
    }

    /// All versions of a registered data key, in ascending order.
    ///
    /// # Errors
    /// As [`Database::find_data_key`].
    pub async fn data_key_versions(
        &self,
        data_key: &DataKeyRow,
        mac: &RowMac,
    ) -> Result<Vec<DataKeyVersionRow>, DatabaseError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            version_columns!(),
            " FROM data_key_versions WHERE tenant = $1 AND data_key_id = $2 ORDER BY version"
        ))
        .bind(data_key.tenant.as_str())
        .bind(data_key.data_key_id.0.to_vec())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| version_from(row, data_key, mac)).collect()
    }

    /// A page of a tenant's registered data keys in order of their names, after a name.
    ///
    /// # Errors
    /// As [`Database::find_data_key`].
    pub async fn list_data_keys(
        &self,
        tenant: &TenantName,
        after: &str,
        count_max: u32,
        mac: &RowMac,
    ) -> Result<Vec<DataKeyRow>, DatabaseError> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            data_key_columns!(),
            " FROM data_keys WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3"
        ))
        .bind(tenant.as_str())
        .bind(after)
        .bind(i64::from(count_max))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| data_key_from(row, mac)).collect()
    }

    /// How many versions of registered data keys are stored under each version of a key; versions with none are absent.
    /// Nothing here is authenticated: it is a warning, not a decision.
    ///
    /// # Errors
    /// [`DatabaseError`] when the database does not answer.
    pub async fn data_keys_under(
        &self,
        tenant: &TenantName,
        key_id: KeyId,
    ) -> Result<BTreeMap<KeyVersion, u64>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT key_version, COUNT(*) FROM data_key_versions WHERE tenant = $1 AND key_id = $2 \
             AND ciphertext IS NOT NULL GROUP BY key_version",
        )
        .bind(tenant.as_str())
        .bind(key_id.0.to_vec())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| Ok((version_number(row.try_get(0)?)?, to_u64(row.try_get(1)?, "count of data keys")?)))
            .collect()
    }
}

fn standing_from(row: &AnyRow, from: usize) -> Result<DataKeyStanding, DatabaseError> {
    Ok(DataKeyStanding {
        state: parse(row, from, DataKeyState::from_name)?,
        since: UnixMillis(to_u64(row.try_get(from + 1)?, "state of a data key")?),
    })
}

fn data_key_from(row: &AnyRow, mac: &RowMac) -> Result<DataKeyRow, DatabaseError> {
    const WHAT: &str = "data key row";
    let days = u32::try_from(row.try_get::<i64, _>(7)?).ok().and_then(RotationPeriod::from_days);
    let data_key = DataKeyRow {
        tenant: parse(row, 0, |text| TenantName::parse(text).ok())?,
        data_key_id: DataKeyId(key_id_from(row.try_get(1)?)?.0),
        name: parse(row, 2, |text| KeyName::parse(text).ok())?,
        algorithm: parse(row, 3, AeadAlgorithm::from_name)?,
        key_id: key_id_from(row.try_get(4)?)?,
        standing: standing_from(row, 5)?,
        rotation_period: days.ok_or(DatabaseError::Corrupt { what: WHAT })?,
        current_version: version_number(row.try_get(8)?)?,
        creator: parse(row, 9, |text| Principal::parse(text).ok())?,
        created: UnixMillis(to_u64(row.try_get(10)?, WHAT)?),
        revision: to_u64(row.try_get(11)?, WHAT)?,
    };
    let id = KeyId(data_key.data_key_id.0);
    mac.check(id, &mac.of_data_key(&data_key), &row.try_get::<Vec<u8>, _>(12)?)?;
    Ok(data_key)
}

fn version_from(
    row: &AnyRow,
    data_key: &DataKeyRow,
    mac: &RowMac,
) -> Result<DataKeyVersionRow, DatabaseError> {
    let version = DataKeyVersionRow {
        tenant: data_key.tenant.clone(),
        data_key_id: data_key.data_key_id,
        version: version_number(row.try_get(0)?)?,
        standing: standing_from(row, 1)?,
        created: UnixMillis(to_u64(row.try_get(3)?, "version of a data key")?),
        key: (key_id_from(row.try_get(4)?)?, version_number(row.try_get(5)?)?),
        ciphertext: row.try_get(6)?,
    };
    let is_destroyed = version.standing.state == DataKeyState::Destroyed;
    if version.ciphertext.is_none() != is_destroyed {
        return Err(DatabaseError::Corrupt { what: "version of a data key" });
    }
    let id = KeyId(data_key.data_key_id.0);
    mac.check(id, &mac.of_data_key_version(&version), &row.try_get::<Vec<u8>, _>(7)?)?;
    Ok(version)
}

/// Values that were computed without this crate, in docs/formats/database.md. A failure means that stored rows are refused.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::request_digest;
    use crate::store::rows::tests::{is_documented, row_mac};
    use kms_core::suite::Suite;

    #[test]
    fn the_documented_row_macs_of_data_keys_are_ours() {
        let version = KeyVersion::new(2).expect("from 1");
        let since = UnixMillis(1_795_399_200_000);
        let standing = |state| DataKeyStanding { state, since };
        let tenant = TenantName::parse("default").expect("valid");
        let row = DataKeyRow {
            tenant: tenant.clone(),
            data_key_id: DataKeyId([5; 16]),
            name: KeyName::parse("salaries").expect("valid"),
            algorithm: AeadAlgorithm::Sm4Gcm,
            key_id: KeyId([7; 16]),
            standing: standing(DataKeyState::Enabled),
            rotation_period: RotationPeriod::from_days(90).expect("short enough"),
            current_version: version,
            creator: Principal::parse("kms://default/administrator/admin").expect("valid"),
            created: since,
            revision: 5,
        };
        let of_version = |state, ciphertext| DataKeyVersionRow {
            tenant: tenant.clone(),
            data_key_id: DataKeyId([5; 16]),
            version,
            standing: standing(state),
            created: since,
            key: (KeyId([7; 16]), version),
            ciphertext,
        };
        let of = |row: DataKeyVersionRow| move |suite: Suite| row_mac(suite).of_data_key_version(&row);
        is_documented("data key", |suite| row_mac(suite).of_data_key(&row));
        is_documented("data key version", of(of_version(DataKeyState::Disabled, Some((0..80).collect()))));
        is_documented("data key version, destroyed", of(of_version(DataKeyState::Destroyed, None)));
    }

    #[test]
    fn the_documented_request_digests_of_data_keys_are_ours() {
        let create = "create data key `salaries` under `payroll`, rotated after 90 days";
        let asked: [&[u8]; 4] = [b"salaries", b"payroll", b"default", b"90"];
        is_documented(create, |suite| request_digest(suite, &asked));
        let id = DataKeyId([5; 16]).to_string();
        is_documented("rotate the data key", |suite| request_digest(suite, &[id.as_bytes()]));
    }
}
