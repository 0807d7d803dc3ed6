//! Key material that customers bring: one-time key pairs to which it is wrapped, and keys that are made of it.
//!
//! Between its arrival and the seal under a master key the material is in locked memory here, because nobody but we could
//! look whether it is a weak key (docs/formats/import.md).

use super::destruction::erase_object;
use super::keys::{NewKey, complete, new_key_id};
use super::open::{Open, Place};
use super::{Caller, CreateKey, Node, ServiceError, blocking};
use crate::pairs::PrivatePair;
use crate::random::{now, random_id};
use crate::store::{Change, Commit, Entry, ImportChange, ImportRow, Material, VersionRow};
use kms_core::audit::{Outcome, Record};
use kms_core::id::{HsmObjectId, KeyId, KeyVersion, UnixMillis};
use kms_core::import::{ImportWrapping, MaterialError, WrappedMaterial};
use kms_core::key::{Cryptoperiod, KeyState, Standing};
use kms_core::pair::{PairAlgorithm, PairPublicKey, PairUsage};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_core::spec::{KeyAlgorithm, KeyOrigin, KeySpec, KeyUsage, Protection};
use kms_core::suite::{CheckValue, Suite};
use kms_hsm::{LockedBytes, ObjectKind};
use std::sync::{Arc, Weak};

/// How long an import can be used at most, and when nobody says: a day.
pub const VALID_SECONDS_MAX: u32 = 24 * 60 * 60;
/// Most imports of a tenant at a time: each is a key pair in the HSM.
const IMPORTS_MAX: u64 = 16;

/// What `ImportKeyMaterial` asks.
#[derive(Debug)]
pub struct ImportKey {
    /// The import whose public key the material is wrapped to.
    pub import_id: KeyId,
    /// What the key shall be.
    pub create: CreateKey,
    /// The material (docs/formats/import.md).
    pub wrapped_material: Vec<u8>,
    /// What the owner knows of a key of a cipher; another one is refused.
    pub check_value: Option<CheckValue>,
}

/// The material of an import, opened and looked at.
struct Opened {
    material: LockedBytes,
    check_value: Option<CheckValue>,
    public_key: Option<PairPublicKey>,
}

pub(super) fn import_not_found() -> ServiceError {
    let message = "there is no such import in this tenant: it was used, has expired, or was never begun; get new import parameters";
    let error = ServiceError::new(Reason::ImportNotFound, message);
    ServiceError { field: Some("import_id"), ..error }
}

fn not_taken(field: &'static str, error: impl std::fmt::Display) -> ServiceError {
    let error = ServiceError::new(Reason::ImportInvalid, format!("{field} {error}"));
    ServiceError { field: Some(field), ..error }
}

/// What a key is wrapped to when nobody says.
fn default_pair(suite: Suite) -> PairAlgorithm {
    match suite {
        Suite::Sm => PairAlgorithm::Sm2,
        Suite::Intl => PairAlgorithm::Rsa3072,
    }
}

impl Node {
    /// Makes a one-time key pair to which somebody wraps key material: in the HSM where it can, else wrapped itself.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn begin_import(
        &self,
        caller: &Caller,
        pair: Option<PairAlgorithm>,
        valid_seconds: u32,
    ) -> Result<(ImportRow, PairPublicKey, ImportWrapping), ServiceError> {
        let open = self.require_open()?;
        let tenant = caller.principal.tenant.clone();
        let pair = pair.unwrap_or_else(|| default_pair(self.bundle.suite));
        let wrapping = ImportWrapping::of(pair).ok_or_else(|| {
            let message = format!("is {pair}; material is wrapped to rsa-3072, rsa-4096 or sm2");
            ServiceError::field("wrapping_key_spec", message)
        })?;
        let spec = KeySpec::from(pair);
        self.check_allowed("wrapping_key_spec", spec)?;
        if self.database.count_imports(&tenant).await? >= IMPORTS_MAX {
            let message =
                format!("{IMPORTS_MAX} imports of this tenant are open; use them, or wait until they expire");
            return Err(ServiceError::new(Reason::Overloaded, message));
        }
        let import_id = new_key_id();
        let kind = ObjectKind::KeyPair(pair, PairUsage::Decrypt);
        let (material, public_key) = match open.pool.can(kind) {
            true => (Material::Resident(HsmObjectId(random_id())), None),
            false => {
                let place = (import_id, KeyVersion::FIRST);
                let kind = (spec, KeyUsage::EncryptDecrypt);
                let made = open.make_wrapped(&self.bundle, &tenant, place, kind, caller.deadline).await?;
                (Material::Wrapped(made.wrapped.to_bytes()), made.public_key)
            }
        };
        let created = now();
        let expires = UnixMillis(created.0 + 1000 * u64::from(valid_seconds));
        let creator = caller.principal.clone();
        let row = ImportRow { tenant, import_id, spec, material, public_key, creator, created, expires };
        let mac = open.row_mac.of_import(&row);
        let record = self
            .record(Action::BeginImport.event(), Outcome::Done, caller)
            .detail("import", import_id.to_string())
            .detail("wrapping", wrapping.name())
            .detail("spec", spec.name())
            .detail("expires", expires.0.to_string());
        self.commit_import(record, ImportChange::New { row: row.clone(), mac }).await?;
        let object = match (&row.material, &row.public_key) {
            (Material::Resident(object), None) => *object,
            (_, Some(public_key)) => return Ok((row.clone(), public_key.clone(), wrapping)),
            _ => return Err(ServiceError::new(Reason::Internal, "an import without a key pair")),
        };
        // Row first: what a crash leaves in the HSM is named by it, and goes when it expires.
        let label = format!("import {import_id}");
        let made =
            open.hsm("create", caller.deadline, move |session| session.create(object, kind, &label)).await?;
        let public_key = made.pair_public_key.ok_or_else(|| {
            ServiceError::new(Reason::Internal, "the HSM made a key pair without a public half")
        })?;
        let ready = ImportRow { public_key: Some(public_key.clone()), ..row };
        let record =
            self.record("import.ready", Outcome::Done, caller).detail("import", import_id.to_string());
        let after = open.row_mac.of_import(&ready);
        let change = ImportChange::Changed { before: mac, row: ready.clone(), mac: after };
        if !self.commit_import(record, change).await? {
            // It expired while the pair was made, and nothing names the pair any more.
            erase_object(&open, object).await?;
            return Err(import_not_found());
        }
        Ok((ready, public_key, wrapping))
    }

    /// Makes a key of material that somebody brought, and uses up the import.
    ///
    /// # Errors
    /// `IMPORT_NOT_FOUND`; `IMPORT_INVALID` for material that is not taken, and the import can be used again; others with
    /// their documented reasons; [`Node::perform`] records them.
    pub async fn import_key(
        &self,
        caller: &Caller,
        request: &ImportKey,
    ) -> Result<Arc<super::KeyEntry>, ServiceError> {
        let open = &self.require_open()?;
        let (tenant, create) = (&caller.principal.tenant, &request.create);
        let described = create.described();
        let mut described: Vec<&[u8]> = described.iter().map(Vec::as_slice).collect();
        let digest = self.bundle.suite.hash(&[&request.wrapped_material]);
        let check_value = request.check_value.map(|value| value.0);
        described.extend([&request.import_id.0[..], &digest.0[..]]);
        described.push(check_value.as_ref().map_or(&[], |value| &value[..]));
        let token = create.idempotency_token.as_deref();
        let claim = self.claim(caller, Action::ImportKey, token, &described);
        if let Some(key_id) = self.replayed(claim.as_ref()).await? {
            return self.answer_again(open, key_id, Action::ImportKey, caller).await;
        }
        let can_be_resident = |kind| open.pool.takes_keys() && open.pool.can(kind);
        let (usage, protection) = self.check_new_key(open, caller, create, can_be_resident).await?;
        let has_check_value = match create.spec.algorithm() {
            KeyAlgorithm::Aead(_) => true,
            // Two keys have no one value.
            KeyAlgorithm::Raw(algorithm) => !algorithm.encrypts(),
            KeyAlgorithm::Mac(_) | KeyAlgorithm::Pair(_) => false,
        };
        if request.check_value.is_some() && !has_check_value {
            let message = format!("is of a key of a cipher; {} has none", create.spec.name());
            return Err(ServiceError::field("check_value", message));
        }
        let found = self.database.find_import(tenant, request.import_id, &open.row_mac).await?;
        let import = found.filter(|import| import.expires > now()).ok_or_else(import_not_found)?;
        let Some(wrapping_key) = import.public_key.clone() else { return Err(import_not_found()) };
        let opened = self.open_material(open, caller, &import, &wrapping_key, (request, usage)).await?;

        let place = (new_key_id(), KeyVersion::FIRST);
        let wrapped = open
            .wrap(&self.bundle, tenant, place, create.spec, opened.material, caller.deadline)
            .await?
            .to_bytes();
        let creating = Standing::from(KeyState::Creating);
        let (standing, material) = match protection {
            Protection::HsmWrapped => {
                (complete(creating, &Cryptoperiod::default())?, Material::Wrapped(wrapped))
            }
            Protection::HsmResident => {
                (creating, Material::Staged { object: HsmObjectId(random_id()), wrapped })
            }
        };
        let version = VersionRow {
            tenant: tenant.clone(),
            key_id: place.0,
            version: place.1,
            origin: KeyOrigin::Imported,
            standing,
            destruction_request: None,
            created: now(),
            material,
            check_value: opened.check_value,
            public_key: opened.public_key,
        };
        let before = open.row_mac.of_import(&import);
        let used = ImportRow { expires: UnixMillis(0), ..import };
        let mac = open.row_mac.of_import(&used);
        let import = Some(ImportChange::Changed { before, row: used.clone(), mac });
        let new = NewKey { action: Action::ImportKey, usage, protection, version, import };
        let entry = self.commit_new_key(open, caller, create, new, claim).await?;
        self.end_import(open, &used).await;
        Ok(entry)
    }

    /// Opens wrapped material and looks at it.
    async fn open_material(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        import: &ImportRow,
        wrapping_key: &PairPublicKey,
        (request, usage): (&ImportKey, KeyUsage),
    ) -> Result<Opened, ServiceError> {
        let spec = request.create.spec;
        let refused = |error: MaterialError| not_taken("wrapped_material", error);
        let wrapped =
            WrappedMaterial::parse(wrapping_key, spec, &request.wrapped_material).map_err(refused)?;
        let algorithm =
            ImportWrapping::of(wrapping_key.algorithm()).ok_or_else(import_not_found)?.encryption();
        let place = match &import.material {
            Material::Resident(object) => Place::Resident(*object),
            Material::Wrapped(sealed) => {
                let place = (import.import_id, KeyVersion::FIRST);
                let opening =
                    open.unwrap(&self.bundle, &import.tenant, place, import.spec, sealed, caller.deadline);
                Place::Wrapped(opening.await?)
            }
            Material::Staged { .. } | Material::Erased => return Err(import_not_found()),
        };
        let pair = (algorithm, wrapping_key.clone());
        let decrypted = open.decrypt_with_pair(place, pair, wrapped.pair_ciphertext(), caller.deadline).await;
        let decrypted = decrypted.map_err(|error| match error.reason {
            Reason::CiphertextInvalid => refused(MaterialError::DoesNotOpen),
            _ => error,
        })?;
        let material = wrapped.unwrap(decrypted).map_err(refused)?;
        let check_value = match spec.algorithm() {
            KeyAlgorithm::Aead(algorithm) => algorithm.check_value(material.expose()),
            KeyAlgorithm::Raw(algorithm) => algorithm.check_value(material.expose()),
            KeyAlgorithm::Mac(_) | KeyAlgorithm::Pair(_) => None,
        };
        if request.check_value.is_some() && request.check_value != check_value {
            return Err(not_taken("check_value", "is not that of the key that was brought"));
        }
        let (material, public_key) = match spec.algorithm() {
            KeyAlgorithm::Pair(pair) => {
                // It is tried, which takes milliseconds with RSA.
                let imported =
                    blocking(move || PrivatePair::import(pair, usage.into(), material.expose())).await;
                let imported = imported.map_err(|error| {
                    not_taken("wrapped_material", format!("holds a key that will not do: {error}"))
                })?;
                let public_key = imported.public_key().clone();
                (imported.into_pkcs8(), Some(public_key))
            }
            KeyAlgorithm::Aead(_) | KeyAlgorithm::Mac(_) | KeyAlgorithm::Raw(_) => {
                (LockedBytes::copied(material.expose()), None)
            }
        };
        Ok(Opened { material, check_value, public_key })
    }

    /// Commits a change of an import. `false` when it is not as it was found any more.
    async fn commit_import(&self, record: Record, change: ImportChange) -> Result<bool, ServiceError> {
        let change = Some(Change::Import(Box::new(change)));
        let entry = Entry { record, change, decided_under: None, idempotency: None };
        Ok(matches!(self.committer.commit(entry).await?, Commit::Done { .. }))
    }

    /// Erases the key pair of an import that was used or has expired, and then its row. Tried again when it fails.
    async fn end_import(&self, open: &Open, import: &ImportRow) {
        let ended = async {
            if let Material::Resident(object) = import.material {
                erase_object(open, object).await?;
            }
            let is_used = import.expires == UnixMillis(0);
            let record = self
                .own_record("import.end", Outcome::Done)
                .detail("import", import.import_id.to_string())
                .detail("because", if is_used { "it was used" } else { "it has expired" });
            let change =
                ImportChange::Removed { before: open.row_mac.of_import(import), row: import.clone() };
            // Another node may have been faster.
            self.commit_import(record, change).await.map(drop)
        };
        if let Err(error) = ended.await {
            tracing::warn!(import = %import.import_id, %error, "the key pair of an import cannot be erased yet");
        }
    }

    /// Ends every import that was used or has expired.
    pub(super) async fn end_imports(&self, open: &Weak<Open>) {
        let ended = match open.upgrade() {
            Some(opened) => self.database.ended_imports(now(), &opened.row_mac).await,
            None => return,
        };
        for import in ended.unwrap_or_else(|error| {
            tracing::warn!(error = %crate::chain(&error), "the imports cannot be read");
            Vec::new()
        }) {
            let Some(opened) = open.upgrade().filter(|_| self.opened().is_some()) else { return };
            match import {
                Ok(import) => self.end_import(&opened, &import).await,
                Err(error) => {
                    tracing::error!(error = %crate::chain(&error), "an import's row is not what this service wrote");
                }
            }
        }
    }
}
