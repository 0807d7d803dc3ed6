//! Use of keys: data keys, encryption, decryption. Every answer leaves after its record is durable.

use super::error::opening;
use super::open::{DECISION_COUNT_MAX, Found, KeyEntry, Open, Place, contention};
use super::recipient::{Delivery, data_key_for, named_in};
use super::{Caller, Node, ServiceError, usage};
use crate::random::{now, system_rng};
use crate::store::{Commit, Entry, Material};
use kms_core::audit::{Outcome, Record};
use kms_core::context::EncryptionContext;
use kms_core::envelope::{
    self, Binding, CIPHERTEXT_LEN_MAX, Ciphertext, CiphertextInvalid, Freshness, Header, PLAINTEXT_LEN_MAX,
    Purpose,
};
use kms_core::id::{CatalogueRevision, KeyId, KeyRef, KeySelector, KeyVersion};
use kms_core::key::KeyState;
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_core::recipient::Recipient;
use kms_core::secret::Secret;
use kms_core::spec::KeyAlgorithm;
use kms_core::suite::{AeadAlgorithm, NONCE_LEN};
use kms_hsm::Sealed;
use std::sync::Arc;

/// A data key in the clear.
#[derive(Debug)]
pub struct PlainDataKey {
    /// Its algorithm.
    pub algorithm: AeadAlgorithm,
    /// Its bytes; absent when the caller declined them or named a recipient.
    pub plaintext: Option<Secret>,
    /// Its bytes encrypted to the recipient, where one was named.
    pub recipient_ciphertext: Option<Vec<u8>>,
}

/// What `GenerateDataKey` gives.
#[derive(Debug)]
pub struct DataKey {
    /// The data key.
    pub data_key: PlainDataKey,
    /// The data key encrypted under the key.
    pub encrypted: Encrypted,
}

/// What `Encrypt` gives.
#[derive(Debug)]
pub struct Encrypted {
    /// The key that was used.
    pub key_id: KeyId,
    /// Its version.
    pub version: KeyVersion,
    /// docs/formats/ciphertext.md
    pub ciphertext: Vec<u8>,
}

/// What a ciphertext held.
#[derive(Debug)]
pub struct Decrypted {
    /// The key that was used.
    pub key_id: KeyId,
    /// Its version.
    pub version: KeyVersion,
    /// The plaintext.
    pub plaintext: Secret,
}

/// What is to be decrypted.
#[derive(Debug)]
pub struct OpenRequest {
    /// docs/formats/ciphertext.md
    pub ciphertext: Vec<u8>,
    /// The context of the encryption.
    pub context: EncryptionContext,
    /// The key that the caller expects.
    pub expected_key: Option<KeyRef>,
}

/// What one use of a key is about.
pub(super) struct Use<'a> {
    pub(super) action: Action,
    pub(super) purpose: Purpose,
    pub(super) context: &'a EncryptionContext,
    /// Whom the plaintext is encrypted to; in the record.
    pub(super) recipient: Option<&'a Recipient>,
}

/// Key and version are in a state that allows a use: the key's own gates its versions.
///
/// # Errors
/// `KEY_STATE_FORBIDS`; `KEY_VERSION_NOT_FOUND`.
pub(super) fn check_state(
    entry: &KeyEntry,
    version: KeyVersion,
    verb: &str,
    may: fn(KeyState) -> bool,
) -> Result<(), ServiceError> {
    for state in [entry.row.standing_at(now()).state, entry.version(version)?.standing.state] {
        if !may(state) {
            return Err(refuse_state(entry, version, verb, state));
        }
    }
    Ok(())
}

pub(super) fn refuse_state(
    entry: &KeyEntry,
    version: KeyVersion,
    verb: &str,
    state: KeyState,
) -> ServiceError {
    let name = &entry.row.name;
    ServiceError::new(Reason::KeyStateForbids, format!("key {name}@{version} is {state}; it does not {verb}"))
}

impl Node {
    /// Makes a data key and gives it encrypted, and in the form that the caller wants.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn generate_data_key(
        &self,
        caller: &Caller,
        key: &KeyRef,
        algorithm: Option<AeadAlgorithm>,
        context: &EncryptionContext,
        delivery: &Delivery,
    ) -> Result<DataKey, ServiceError> {
        let action = Action::GenerateDataKey;
        let open = self.require_open()?;
        // Random bytes may cost an HSM call: what can be refused is refused before.
        let (found, _) = self.key_to_encrypt(&open, caller, key).await?;
        let algorithm = match algorithm {
            Some(algorithm) => algorithm,
            None => usage::aead(&found.key.row)?,
        };
        self.check_allowed("data_key_spec", algorithm.into())?;
        self.check_recipient(delivery.recipient())?;
        // Not locked pages: the answer carries the same bytes through the transport's buffers at once, and mapping
        // pages for every call costs a quarter of it.
        let mut material = Secret::new(vec![0; algorithm.key_len()]);
        open.random(material.expose_mut(), caller.deadline).await?;
        let plaintext = envelope::data_key_plaintext(algorithm, material.expose());
        let using = Use { action, purpose: Purpose::DataKey, context, recipient: delivery.recipient() };
        let encrypted = self.seal_and_commit(&open, caller, key, &using, &plaintext).await?;
        let place = (encrypted.key_id, encrypted.version);
        let data_key = data_key_for(delivery, algorithm, place, context, material)?;
        Ok(DataKey { data_key, encrypted })
    }

    /// Encrypts up to 64 KiB.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn encrypt(
        &self,
        caller: &Caller,
        key: &KeyRef,
        context: &EncryptionContext,
        plaintext: &Secret,
    ) -> Result<Encrypted, ServiceError> {
        let action = Action::Encrypt;
        let open = self.require_open()?;
        let len = plaintext.expose().len();
        if len > PLAINTEXT_LEN_MAX {
            let message = format!(
                "has {len} bytes; at most {PLAINTEXT_LEN_MAX} are allowed: encrypt files with a data key"
            );
            return Err(ServiceError::field("plaintext", message));
        }
        let using = Use { action, purpose: Purpose::Data, context, recipient: None };
        self.seal_and_commit(&open, caller, key, &using, plaintext).await
    }

    /// Decrypts a data key, and gives it in the clear or encrypted to a recipient.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn decrypt_data_key(
        &self,
        caller: &Caller,
        request: &OpenRequest,
        delivery: &Delivery,
    ) -> Result<(PlainDataKey, KeyId, KeyVersion), ServiceError> {
        let action = Action::DecryptDataKey;
        let open = self.require_open()?;
        self.check_recipient(delivery.recipient())?;
        let (context, recipient) = (&request.context, delivery.recipient());
        let using = Use { action, purpose: Purpose::DataKey, context, recipient };
        let decrypted = self.open_and_commit(&open, caller, request, &using).await?;
        let (algorithm, key) = envelope::open_data_key(&decrypted.plaintext).map_err(invalid)?;
        let place = (decrypted.key_id, decrypted.version);
        let data_key = data_key_for(delivery, algorithm, place, context, key)?;
        Ok((data_key, place.0, place.1))
    }

    /// Decrypts what [`Node::encrypt`] made.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn decrypt(&self, caller: &Caller, request: &OpenRequest) -> Result<Decrypted, ServiceError> {
        let action = Action::Decrypt;
        let open = self.require_open()?;
        let using = Use { action, purpose: Purpose::Data, context: &request.context, recipient: None };
        self.open_and_commit(&open, caller, request, &using).await
    }

    /// Encrypts under the current decision and commits the record; decides again when the catalogue changed.
    pub(super) async fn seal_and_commit(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        key: &KeyRef,
        using: &Use<'_>,
        plaintext: &Secret,
    ) -> Result<Encrypted, ServiceError> {
        for _ in 0..DECISION_COUNT_MAX {
            let (found, number) = self.key_to_encrypt(open, caller, key).await?;
            let sealing = (using.purpose, using.context);
            let ciphertext = self.seal_under(open, caller, (&found, number), sealing, plaintext).await?;
            let record = named_in(self.record(using.action.event(), Outcome::Done, caller), using.recipient);
            if self.commit_use_with(open, &found, number, record).await? {
                return Ok(Encrypted { key_id: found.key.row.key_id, version: number, ciphertext });
            }
        }
        Err(contention())
    }

    /// Encrypts under a version that was judged; commits nothing.
    pub(super) async fn seal_under(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        (found, number): (&Found, KeyVersion),
        (purpose, context): (Purpose, &EncryptionContext),
        plaintext: &Secret,
    ) -> Result<Vec<u8>, ServiceError> {
        let row = &found.key.row;
        let algorithm = usage::aead(row)?;
        let place = open.place(&self.bundle, row, found.key.version(number)?, caller.deadline).await?;
        let binding = Binding { tenant: &row.tenant, context };
        match place {
            Place::Wrapped(material) => Ok(envelope::seal_wrapped(
                material.expose(),
                purpose,
                algorithm,
                (row.key_id, number),
                binding,
                plaintext.expose(),
                &mut system_rng(),
            )),
            Place::Resident(object) => {
                let header = |nonce| Header {
                    purpose,
                    algorithm,
                    key_id: row.key_id,
                    version: number,
                    freshness: Freshness::Nonce(nonce),
                };
                let aad = header([0; NONCE_LEN]).associated_data(binding.tenant, binding.context);
                self.count_encryption(open, row, number).await?;
                let copy = Secret::new(plaintext.expose().to_vec());
                let sealed = open
                    .hsm("seal", caller.deadline, move |session| {
                        session.seal(object, algorithm, &aad, copy.expose())
                    })
                    .await?;
                Ok(envelope::join(&header(*sealed.nonce()), sealed.ciphertext_and_tag()))
            }
        }
    }

    /// The key and version that encrypt for a caller, judged.
    pub(super) async fn key_to_encrypt(
        &self,
        open: &Open,
        caller: &Caller,
        key: &KeyRef,
    ) -> Result<(Found, KeyVersion), ServiceError> {
        open.judge(&self.database, &caller.principal.tenant, &key.key, |entry| {
            usage::aead(&entry.row)?;
            let number = key.version.unwrap_or(entry.row.current_version);
            check_state(entry, number, "encrypt", KeyState::can_encrypt)?;
            Ok(number)
        })
        .await
    }

    /// The key that decrypts for a caller; it has the header's version, whose material is where the header says.
    async fn key_to_decrypt(
        &self,
        open: &Open,
        caller: &Caller,
        header: &Header,
    ) -> Result<Found, ServiceError> {
        let selector = KeySelector::Id(header.key_id);
        let judged = open.judge(&self.database, &caller.principal.tenant, &selector, |entry| {
            let version = entry.version(header.version).map_err(|_| invalid(CiphertextInvalid))?;
            let row = &entry.row;
            if row.spec.algorithm() != KeyAlgorithm::Aead(header.algorithm) {
                return Err(invalid(CiphertextInvalid));
            }
            check_state(entry, header.version, "decrypt", KeyState::can_decrypt)?;
            let is_fitting = match header.freshness {
                Freshness::Salt(_) => matches!(version.material, Material::Wrapped(_)),
                Freshness::Nonce(_) => matches!(version.material, Material::Resident(_)),
            };
            // Looked at here, because finding out where the material is can cost an HSM call.
            if !is_fitting {
                return Err(invalid(CiphertextInvalid));
            }
            Ok(())
        });
        match judged.await {
            Ok((found, ())) => Ok(found),
            // A key of another tenant is not found here. That must look like any other wrong ciphertext.
            Err(error) if error.reason == Reason::KeyNotFound => Err(invalid(CiphertextInvalid)),
            Err(error) => Err(error),
        }
    }

    /// Decrypts under the current decision and commits the record; decides again when the catalogue changed.
    pub(super) async fn open_and_commit(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        request: &OpenRequest,
        using: &Use<'_>,
    ) -> Result<Decrypted, ServiceError> {
        let ciphertext = parse(&request.ciphertext)?;
        let version = ciphertext.header.version;
        if ciphertext.header.purpose != using.purpose {
            return Err(invalid(CiphertextInvalid));
        }
        for _ in 0..DECISION_COUNT_MAX {
            let found = self.key_to_open(open, caller, request, &ciphertext.header).await?;
            let plaintext = self.open_under(open, caller, &found, &ciphertext, using.context).await?;
            let record = named_in(self.record(using.action.event(), Outcome::Done, caller), using.recipient);
            if self.commit_use_with(open, &found, version, record).await? {
                return Ok(Decrypted { key_id: found.key.row.key_id, version, plaintext });
            }
        }
        Err(contention())
    }

    /// The key that decrypts a caller's ciphertext, judged; it is the expected one, where one is.
    pub(super) async fn key_to_open(
        &self,
        open: &Open,
        caller: &Caller,
        request: &OpenRequest,
        header: &Header,
    ) -> Result<Found, ServiceError> {
        let expected = match &request.expected_key {
            Some(expected) => Some(self.check_expected(open, caller, expected, header).await?),
            None => None,
        };
        let found = self.key_to_decrypt(open, caller, header).await?;
        // What relies on both holds for the older catalogue; a commit finds that it is not the current one.
        let revision = expected.map_or(found.revision, |older| older.min(found.revision));
        Ok(Found { revision, ..found })
    }

    /// Decrypts under the version that the header names and that was judged; commits nothing.
    pub(super) async fn open_under(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        found: &Found,
        ciphertext: &Ciphertext<'_>,
        context: &EncryptionContext,
    ) -> Result<Secret, ServiceError> {
        let (row, header) = (&found.key.row, ciphertext.header);
        let version = found.key.version(header.version)?;
        let binding = Binding { tenant: &row.tenant, context };
        match (open.place(&self.bundle, row, version, caller.deadline).await?, header.freshness) {
            (Place::Wrapped(material), Freshness::Salt(_)) => {
                envelope::open_wrapped(material.expose(), ciphertext, binding).map_err(invalid)
            }
            (Place::Resident(object), Freshness::Nonce(nonce)) => {
                let aad = header.associated_data(binding.tenant, binding.context);
                let sealed = Sealed::parse(&nonce, ciphertext.body.to_vec()).map_err(opening)?;
                open.hsm("open", caller.deadline, move |session| {
                    session.open(object, header.algorithm, &aad, &sealed)
                })
                .await
                .map_err(opening)
            }
            _ => Err(invalid(CiphertextInvalid)),
        }
    }

    async fn check_expected(
        &self,
        open: &Open,
        caller: &Caller,
        expected: &KeyRef,
        header: &Header,
    ) -> Result<CatalogueRevision, ServiceError> {
        // An alias may name another key since it was looked at.
        let judged = open.judge(&self.database, &caller.principal.tenant, &expected.key, |entry| {
            let is_key = entry.row.key_id == header.key_id;
            if is_key && expected.version.is_none_or(|version| version == header.version) {
                return Ok(());
            }
            let message = format!("the ciphertext is under another key or version than {expected}");
            let error = ServiceError::new(Reason::KeyMismatch, message);
            Err(ServiceError { field: Some("expected_key"), ..error })
        });
        judged.await.map(|(found, ())| found.revision)
    }

    /// Commits the record of one use. `false` when the catalogue changed: decide again.
    pub(super) async fn commit_use(
        &self,
        open: &Open,
        caller: &Caller,
        found: &Found,
        version: KeyVersion,
        action: Action,
    ) -> Result<bool, ServiceError> {
        let record = self.record(action.event(), Outcome::Done, caller);
        self.commit_use_with(open, found, version, record).await
    }

    /// [`Node::commit_use`] with a record that says more.
    pub(super) async fn commit_use_with(
        &self,
        open: &Open,
        found: &Found,
        version: KeyVersion,
        record: Record,
    ) -> Result<bool, ServiceError> {
        let record = record.key(found.key.row.key_id, Some(version));
        self.commit_decided(open, record, found.revision).await
    }

    /// Commits a record that was decided under a revision of the catalogue. `false` when that is not the current one.
    pub(super) async fn commit_decided(
        &self,
        open: &Open,
        record: Record,
        revision: CatalogueRevision,
    ) -> Result<bool, ServiceError> {
        let entry = Entry { record, change: None, decided_under: Some(revision), idempotency: None };
        match self.committer.commit(entry).await? {
            Commit::Done { .. } => Ok(true),
            Commit::Stale(revision) => {
                open.advance(revision);
                Ok(false)
            }
            Commit::Refused(_) => unreachable!("an entry without a change is not refused"),
        }
    }
}

/// The ciphertext of a request, taken apart.
pub(super) fn parse(bytes: &[u8]) -> Result<Ciphertext<'_>, ServiceError> {
    let len = bytes.len();
    if len > CIPHERTEXT_LEN_MAX {
        let message = format!("has {len} bytes; at most {CIPHERTEXT_LEN_MAX} are possible");
        return Err(ServiceError::field("ciphertext", message));
    }
    let ciphertext = envelope::open(bytes).map_err(invalid)?;
    // These are in the database and nowhere else: whoever has copied one must not have it opened around its state.
    if ciphertext.header.purpose == Purpose::RegisteredDataKey {
        return Err(invalid(CiphertextInvalid));
    }
    Ok(ciphertext)
}

pub(super) fn invalid(error: CiphertextInvalid) -> ServiceError {
    ServiceError::new(Reason::CiphertextInvalid, error.to_string())
}
