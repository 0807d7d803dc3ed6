//! Rows as the database holds them, with the MAC that makes a changed row useless.

use kms_core::id::{HsmObjectId, KeyId, KeyName, KeyVersion, Principal, TenantName, UnixMillis};
use kms_core::key::{Cryptoperiod, KeySpec, KeyState, Protection};
use kms_core::suite::{Digest32, Suite};
use kms_hsm::LockedBytes;
use subtle::ConstantTimeEq;

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The tenant that owns it.
    pub tenant: TenantName,
    /// Its identity.
    pub key_id: KeyId,
    /// Its name, unique in the tenant.
    pub name: KeyName,
    /// Its algorithm.
    pub spec: KeySpec,
    /// Where its material is.
    pub protection: Protection,
    /// The state that was last written. [`KeyRow::state_at`] is the one that counts, and gates all versions.
    pub state: KeyState,
    /// When it may be used.
    pub period: Cryptoperiod,
    /// The version that encrypts.
    pub current_version: KeyVersion,
    /// Who created it.
    pub creator: Principal,
    /// When.
    pub created: UnixMillis,
    /// 1 is the most sensitive (REQUIREMENTS S0-11); every key is 1 so far.
    pub sensitivity: u8,
    /// Grows by one with every change of the row.
    pub revision: u64,
}

impl KeyRow {
    /// The key's state at a time: the one that was written, and what the dates have made of it.
    pub fn state_at(&self, time: UnixMillis) -> KeyState {
        self.period.state_at(self.state, time)
    }
}

/// Where the material of one version is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// An object in the HSM.
    Resident(HsmObjectId),
    /// Sealed by a master key (docs/formats/database.md).
    Wrapped(Vec<u8>),
}

/// One version of a key. Several rows for a key, never one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRow {
    /// The tenant that owns it.
    pub tenant: TenantName,
    /// The key.
    pub key_id: KeyId,
    /// The version.
    pub version: KeyVersion,
    /// Its own state.
    pub state: KeyState,
    /// When it was made.
    pub created: UnixMillis,
    /// Its material.
    pub material: Material,
}

/// A row's MAC is not the one of its contents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database row of key {key_id} was changed by somebody else: its MAC is wrong")]
pub struct RowMacError {
    /// The key.
    pub key_id: KeyId,
}

/// The key that authenticates rows; derived by the HSM at unseal and kept in locked memory.
#[derive(Debug)]
pub struct RowMac {
    suite: Suite,
    key: LockedBytes,
}

/// What a row says, in bytes: each field with its length, so that no two rows have the same bytes.
fn canonical(kind: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in [kind.as_bytes()].iter().chain(fields) {
        out.extend_from_slice(&(field.len() as u32).to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}

impl RowMac {
    /// Takes the derived key.
    pub fn new(suite: Suite, key: LockedBytes) -> Self {
        Self { suite, key }
    }

    /// MAC of a key row.
    pub fn of_key(&self, row: &KeyRow) -> Digest32 {
        let date =
            |date: Option<UnixMillis>| date.map(|time| time.0.to_be_bytes().to_vec()).unwrap_or_default();
        self.mac(&canonical(
            "kms/v1/row/key",
            &[
                row.tenant.as_str().as_bytes(),
                &row.key_id.0,
                row.name.as_str().as_bytes(),
                row.spec.name().as_bytes(),
                row.protection.name().as_bytes(),
                row.state.name().as_bytes(),
                &row.current_version.number().to_be_bytes(),
                row.creator.to_uri().as_bytes(),
                &row.created.0.to_be_bytes(),
                &date(row.period.activates),
                &date(row.period.expires),
                &[row.sensitivity],
                &row.revision.to_be_bytes(),
            ],
        ))
    }

    /// MAC of a version row.
    pub fn of_version(&self, row: &VersionRow) -> Digest32 {
        let (kind, material): (&[u8], &[u8]) = match &row.material {
            Material::Resident(object) => (b"resident", &object.0),
            Material::Wrapped(wrapped) => (b"wrapped", wrapped),
        };
        self.mac(&canonical(
            "kms/v1/row/version",
            &[
                row.tenant.as_str().as_bytes(),
                &row.key_id.0,
                &row.version.number().to_be_bytes(),
                row.state.name().as_bytes(),
                &row.created.0.to_be_bytes(),
                kind,
                material,
            ],
        ))
    }

    fn mac(&self, bytes: &[u8]) -> Digest32 {
        self.suite.hmac(self.key.expose(), &[bytes])
    }

    /// Compares a stored MAC with the one that the row must have.
    ///
    /// # Errors
    /// [`RowMacError`] names the key.
    pub fn check(&self, key_id: KeyId, expected: &Digest32, stored: &[u8]) -> Result<(), RowMacError> {
        if bool::from(expected.0.ct_eq(stored)) { Ok(()) } else { Err(RowMacError { key_id }) }
    }
}
