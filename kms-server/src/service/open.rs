//! The unsealed state: the HSM pool, the row-MAC key, and what is cached of the catalogue of keys.
//!
//! Everything in here is wiped when the last reference goes, which sealing waits for.

use super::counts::Counts;
use super::{ServiceError, blocking};
use crate::pairs::PrivatePair;
use crate::random::{now, system_rng};
use crate::store::{Database, KeyRow, KeyWithVersions, Material, RowMac, VersionRow};
use kms_core::bundle::Bundle;
use kms_core::envelope::{WrappedKey, wrapped_key_associated_data};
use kms_core::id::{CatalogueRevision, KeyId, KeyName, KeyRef, KeySelector, KeyVersion, TenantName};
use kms_core::key::KeyState;
use kms_core::pair::PairPublicKey;
use kms_core::reason::Reason;
use kms_core::spec::{KeyAlgorithm, KeySpec, KeyUsage};
use kms_core::suite::CheckValue;
use kms_hsm::{HsmError, HsmSession, LockedBytes, ObjectKind, Pool, Sealed};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How often something is decided again when the catalogue changed meanwhile.
pub const DECISION_COUNT_MAX: u32 = 5;
/// Most keys whose description is cached. The cache is dropped as a whole when it is full.
const CACHED_KEYS_MAX: usize = 10_000;
/// Most key versions whose material is held open. Each takes a page of locked memory.
const OPEN_MATERIALS_MAX: usize = 4_096;

/// A key as the catalogue shows it, with the revision under which it was read.
#[derive(Clone, Debug)]
pub struct Found {
    /// The key and its versions.
    pub key: Arc<KeyEntry>,
    /// What a commit that relies on it must be decided under.
    pub revision: CatalogueRevision,
}

/// A key and its versions.
#[derive(Debug)]
pub struct KeyEntry {
    /// The key.
    pub row: KeyRow,
    /// Its versions in ascending order.
    pub versions: Vec<VersionRow>,
    /// Its other names, in their order.
    pub aliases: Vec<KeyName>,
}

impl From<KeyWithVersions> for KeyEntry {
    fn from(found: KeyWithVersions) -> Self {
        Self { row: found.key, versions: found.versions, aliases: found.aliases }
    }
}

impl KeyEntry {
    /// That a key that is to be changed was named itself: an alias may name another one at the next moment.
    ///
    /// # Errors
    /// `FIELD_INVALID` with the key's own name.
    pub fn check_named(&self, selector: &KeySelector) -> Result<(), ServiceError> {
        match selector {
            KeySelector::Name(alias) if *alias != self.row.name => {
                let name = &self.row.name;
                let message =
                    format!("{alias} is an alias of {name}; what changes a key names the key itself");
                Err(ServiceError::field("key", message))
            }
            _ => Ok(()),
        }
    }

    /// Versions whose creation was begun, and is worth finishing: not those of a key that never encrypts again.
    pub fn unfinished_versions(&self) -> impl Iterator<Item = &VersionRow> {
        let is_worth_it = self.row.standing_at(now()).state.may_ever_encrypt();
        self.versions
            .iter()
            .filter(move |version| is_worth_it && version.standing.state == KeyState::Creating)
    }

    /// One version.
    ///
    /// # Errors
    /// `KEY_VERSION_NOT_FOUND`.
    pub fn version(&self, version: KeyVersion) -> Result<&VersionRow, ServiceError> {
        self.versions.iter().find(|row| row.version == version).ok_or_else(|| {
            ServiceError::new(
                Reason::KeyVersionNotFound,
                format!("key {} has no version {version}", self.row.name),
            )
        })
    }
}

/// The catalogue changed at every try.
pub fn contention() -> ServiceError {
    ServiceError::new(Reason::Contention, "the keys changed again and again while this call ran; try again")
        .retry_after(Duration::from_millis(50))
}

/// Material of a new wrapped version, with what is known of it.
#[derive(Debug)]
pub struct NewMaterial {
    /// The material, sealed by a master key.
    pub wrapped: WrappedKey,
    /// Its check value, where there is one.
    pub check_value: Option<CheckValue>,
    /// The public half of a key pair.
    pub public_key: Option<PairPublicKey>,
}

/// The unsealed state.
#[derive(Debug)]
pub struct Open {
    /// Runs HSM operations.
    pub pool: Pool,
    /// Authenticates rows.
    pub row_mac: RowMac,
    /// What this node may still encrypt with resident keys.
    pub counts: Counts,
    catalogue: RwLock<Catalogue>,
    materials: RwLock<HashMap<(KeyId, KeyVersion), Arc<LockedBytes>>>,
}

#[derive(Debug, Default)]
struct Catalogue {
    revision: Option<CatalogueRevision>,
    keys: HashMap<(TenantName, KeySelectorKey), Arc<KeyEntry>>,
}

/// `KeySelector` as a map key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum KeySelectorKey {
    Name(String),
    Id(KeyId),
}

impl From<&KeySelector> for KeySelectorKey {
    fn from(selector: &KeySelector) -> Self {
        match selector {
            KeySelector::Name(name) => Self::Name(name.as_str().to_owned()),
            KeySelector::Id(id) => Self::Id(*id),
        }
    }
}

impl Open {
    /// Nothing cached yet.
    pub fn new(pool: Pool, row_mac: RowMac) -> Self {
        Self {
            pool,
            row_mac,
            counts: Counts::default(),
            catalogue: RwLock::default(),
            materials: RwLock::default(),
        }
    }

    /// Finds a key of a tenant, by its id, its name or an alias, from the cache where it is current.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, or the database does not answer.
    pub async fn find(
        &self,
        database: &Database,
        tenant: &TenantName,
        selector: &KeySelector,
    ) -> Result<Found, ServiceError> {
        let cache_key = (tenant.clone(), KeySelectorKey::from(selector));
        {
            let catalogue = self.catalogue.read().unwrap_or_else(PoisonError::into_inner);
            if let (Some(revision), Some(key)) = (catalogue.revision, catalogue.keys.get(&cache_key)) {
                return Ok(Found { key: key.clone(), revision });
            }
        }
        // The revision is read before the rows: if they change in between, the commit finds it too old.
        let revision = database.head().await?.catalogue;
        let found = database.find_key(tenant, selector, &self.row_mac).await?;
        let found = found.ok_or_else(|| {
            let shown = KeyRef { key: selector.clone(), version: None };
            ServiceError::new(Reason::KeyNotFound, format!("there is no key {shown} in this tenant"))
        })?;
        let key = Arc::new(KeyEntry::from(found));
        self.advance(revision);
        let mut catalogue = self.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        if catalogue.revision == Some(revision) {
            if catalogue.keys.len() >= CACHED_KEYS_MAX {
                catalogue.keys.clear();
            }
            catalogue.keys.insert(cache_key, key.clone());
        }
        Ok(Found { key, revision })
    }

    /// Finds a key and judges it. What is cached may be older than what another node has committed: an
    /// acceptance is compared when its record is committed, a refusal here, and is judged again if need be.
    ///
    /// # Errors
    /// The refusal, under the catalogue as it is now; or the database does not answer.
    pub async fn judge<T>(
        &self,
        database: &Database,
        tenant: &TenantName,
        selector: &KeySelector,
        judgement: impl Fn(&KeyEntry) -> Result<T, ServiceError>,
    ) -> Result<(Found, T), ServiceError> {
        let mut refusal = None;
        for _ in 0..DECISION_COUNT_MAX {
            let found = self.find(database, tenant, selector).await?;
            match judgement(&found.key) {
                Ok(judged) => return Ok((found, judged)),
                Err(error) => {
                    let revision = database.head().await?.catalogue;
                    if revision == found.revision {
                        return Err(error);
                    }
                    self.advance(revision);
                    refusal = Some(error);
                }
            }
        }
        Err(refusal.unwrap_or_else(contention))
    }

    /// Drops the material of every wrapped key.
    pub fn forget_materials(&self) {
        self.materials.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Drops the material of some versions, when it is destroyed. Calls that use it at this moment end first.
    pub fn forget_destroyed(&self, destroyed: &[(KeyId, KeyVersion)]) {
        if destroyed.is_empty() {
            return;
        }
        let mut materials = self.materials.write().unwrap_or_else(PoisonError::into_inner);
        for place in destroyed {
            materials.remove(place);
        }
    }

    /// The catalogue has a newer revision: what was cached under an older one is dropped.
    pub fn advance(&self, revision: CatalogueRevision) {
        let mut catalogue = self.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        if catalogue.revision.is_none_or(|cached| cached < revision) {
            catalogue.revision = Some(revision);
            catalogue.keys.clear();
        }
    }

    /// Runs one HSM operation on the pool without blocking an async thread.
    ///
    /// # Errors
    /// Those of the pool and of the operation.
    pub async fn hsm<T: Send + 'static>(
        &self,
        operation: &'static str,
        deadline: Instant,
        work: impl FnOnce(&mut dyn HsmSession) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.pool.submit(operation, deadline, work, move |result| {
            // The caller may have gone.
            let _ = answer.send(result);
        });
        answered.await.unwrap_or(Err(HsmError::Stopped))
    }

    /// Fills `out` with random bytes of the HSM.
    ///
    /// # Errors
    /// Those of the pool.
    pub async fn random(&self, out: &mut [u8], deadline: Instant) -> Result<(), HsmError> {
        if self.pool.take_random(out) {
            return Ok(());
        }
        self.fresh_random(out, deadline).await
    }

    /// Fills `out` with random bytes that the HSM makes now.
    ///
    /// # Errors
    /// Those of the pool.
    pub async fn fresh_random(&self, out: &mut [u8], deadline: Instant) -> Result<(), HsmError> {
        let len = out.len();
        let fresh = self
            .hsm("random", deadline, move |session| {
                let mut fresh = LockedBytes::zeroed(len);
                session.random(fresh.expose_mut())?;
                Ok(fresh)
            })
            .await?;
        out.copy_from_slice(fresh.expose());
        Ok(())
    }

    /// Fresh material for a wrapped key: random bytes of the HSM or a key pair, sealed there by the current master key.
    ///
    /// # Errors
    /// Those of the HSM.
    pub async fn make_wrapped(
        &self,
        bundle: &Bundle,
        tenant: &TenantName,
        key: (KeyId, KeyVersion),
        (spec, usage): (KeySpec, KeyUsage),
        deadline: Instant,
    ) -> Result<NewMaterial, ServiceError> {
        let (material, check_value, public_key) = match (spec.algorithm(), spec.key_len()) {
            (KeyAlgorithm::Pair(algorithm), _) => {
                let pair =
                    blocking(move || PrivatePair::generate(algorithm, usage.into(), &mut system_rng()))
                        .await
                        .map_err(|error| ServiceError::new(Reason::Internal, error.to_string()))?;
                let public_key = pair.public_key().clone();
                (pair.into_pkcs8(), None, Some(public_key))
            }
            (algorithm, len) => {
                let mut material = LockedBytes::zeroed(len.unwrap_or_default());
                self.random(material.expose_mut(), deadline).await?;
                let check_value = match algorithm {
                    KeyAlgorithm::Aead(algorithm) => algorithm.check_value(material.expose()),
                    _ => None,
                };
                (material, check_value, None)
            }
        };
        let wrapped = self.wrap(bundle, tenant, key, spec, material, deadline).await?;
        Ok(NewMaterial { wrapped, check_value, public_key })
    }

    /// Seals material by the current master key, for one version of one key.
    ///
    /// # Errors
    /// Those of the HSM.
    pub async fn wrap(
        &self,
        bundle: &Bundle,
        tenant: &TenantName,
        key: (KeyId, KeyVersion),
        spec: KeySpec,
        material: LockedBytes,
        deadline: Instant,
    ) -> Result<WrappedKey, ServiceError> {
        let master = bundle.current_master_key().clone();
        let aad = wrapped_key_associated_data(tenant, key, spec, master.version);
        let sealed = self
            .hsm("seal", deadline, move |session| {
                session.seal(master.object, master.algorithm, &aad, material.expose())
            })
            .await?;
        Ok(WrappedKey {
            master_version: master.version,
            nonce: *sealed.nonce(),
            ciphertext_and_tag: sealed.into_ciphertext_and_tag(),
        })
    }

    /// The material of a wrapped version, opened once and then held in locked memory.
    ///
    /// # Errors
    /// Those of the HSM; `INTERNAL` when the row does not open under its own identity.
    pub async fn material(
        &self,
        bundle: &Bundle,
        key: &KeyRow,
        version: &VersionRow,
        wrapped: &[u8],
        deadline: Instant,
    ) -> Result<Arc<LockedBytes>, ServiceError> {
        let place = (key.key_id, version.version);
        let held = self.materials.read().unwrap_or_else(PoisonError::into_inner).get(&place).cloned();
        if let Some(material) = held {
            return Ok(material);
        }
        let material = self.unwrap(bundle, &key.tenant, place, key.spec, wrapped, deadline).await?;
        let mut materials = self.materials.write().unwrap_or_else(PoisonError::into_inner);
        if materials.len() >= OPEN_MATERIALS_MAX {
            materials.clear();
        }
        materials.insert(place, material.clone());
        Ok(material)
    }

    /// Opens what [`Open::wrap`] sealed, and keeps nothing of it.
    ///
    /// # Errors
    /// As [`Open::material`].
    pub async fn unwrap(
        &self,
        bundle: &Bundle,
        tenant: &TenantName,
        place: (KeyId, KeyVersion),
        spec: KeySpec,
        wrapped: &[u8],
        deadline: Instant,
    ) -> Result<Arc<LockedBytes>, ServiceError> {
        let corrupt = || {
            tracing::error!(key = %place.0, version = %place.1, "a wrapped key does not open");
            ServiceError::new(Reason::Internal, "a stored key does not open; see the server's log")
        };
        let wrapped = WrappedKey::open(wrapped).map_err(|_| corrupt())?;
        let master = bundle.master_key(wrapped.master_version).ok_or_else(corrupt)?.clone();
        let aad = wrapped_key_associated_data(tenant, place, spec, master.version);
        let expected_len = spec.key_len();
        let opened = self
            .hsm("open", deadline, move |session| {
                let sealed = Sealed::parse(&wrapped.nonce, wrapped.ciphertext_and_tag)?;
                let secret = session.open(master.object, master.algorithm, &aad, &sealed)?;
                if expected_len.is_some_and(|expected| expected != secret.expose().len()) {
                    return Err(HsmError::CiphertextInvalid);
                }
                Ok(Arc::new(LockedBytes::copied(secret.expose())))
            })
            .await;
        match opened {
            Err(HsmError::CiphertextInvalid) => Err(corrupt()),
            other => Ok(other?),
        }
    }
}

/// What a resident key of one specification and usage is in the HSM; `None` when there are no resident ones.
pub fn object_kind(spec: KeySpec, usage: KeyUsage) -> Option<ObjectKind> {
    match spec.algorithm() {
        KeyAlgorithm::Aead(algorithm) => Some(ObjectKind::SealingKey(algorithm)),
        KeyAlgorithm::Mac(algorithm) => Some(ObjectKind::MacKey(algorithm)),
        KeyAlgorithm::Pair(algorithm) => Some(ObjectKind::KeyPair(algorithm, usage.into())),
        // Two keys in one material are no single object.
        KeyAlgorithm::Raw(_) => None,
    }
}

/// Where a version's material is, taken apart for the two ways of using it.
#[derive(Debug)]
pub enum Place {
    /// In the HSM.
    Resident(kms_core::id::HsmObjectId),
    /// Here, in locked memory.
    Wrapped(Arc<LockedBytes>),
}

impl Open {
    /// Finds out where a version's material is, opening it if need be.
    ///
    /// # Errors
    /// As [`Open::material`].
    pub async fn place(
        &self,
        bundle: &Bundle,
        key: &KeyRow,
        version: &VersionRow,
        deadline: Instant,
    ) -> Result<Place, ServiceError> {
        match &version.material {
            Material::Resident(object) => Ok(Place::Resident(*object)),
            Material::Wrapped(wrapped) => {
                self.material(bundle, key, version, wrapped, deadline).await.map(Place::Wrapped)
            }
            // No state in which it is asked for comes before the object.
            Material::Staged { .. } => {
                Err(ServiceError::new(Reason::KeyStateForbids, "the key is not in the HSM yet; try again"))
            }
            Material::Erased => Err(ServiceError::new(Reason::KeyStateForbids, "the key is destroyed")),
        }
    }
}
