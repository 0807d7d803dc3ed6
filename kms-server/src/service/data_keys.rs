//! Registered data keys: made, given out, rotated, disabled and destroyed (docs/data-keys.md).

use super::crypto::{PlainDataKey, check_state};
use super::keys::{Changed, VERSIONS_MAX, token_conflict};
use super::open::{DECISION_COUNT_MAX, Found, Open, contention};
use super::recipient::{Delivery, named_in};
use super::{Caller, Node, ServiceError, usage};
use crate::random::now;
use crate::store::{
    Change, Commit, DataKeyChange, DataKeyRow, DataKeyVersionRow, Entry, Idempotency, Refusal,
};
use kms_core::audit::{Outcome, Record};
use kms_core::context::EncryptionContext;
use kms_core::data_key::{
    DataKeyCommand, DataKeyId, DataKeyStanding, DataKeyState, DataKeyTransitionError, RotationPeriod,
    stored_context,
};
use kms_core::envelope::{self, Purpose};
use kms_core::id::{CatalogueRevision, KeyId, KeyName, KeyRef, KeySelector, KeyVersion, UnixMillis};
use kms_core::key::KeyState;
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_core::recipient::RecipientBinding;
use kms_core::secret::Secret;
use kms_core::spec::KeyAlgorithm;
use kms_core::suite::AeadAlgorithm;
use std::sync::Arc;

/// What `CreateDataKey` asks.
#[derive(Clone, Debug)]
pub struct CreateDataKey {
    /// Unique among the tenant's registered data keys.
    pub name: KeyName,
    /// The key that it is encrypted under.
    pub key: KeySelector,
    /// `None`: the key's own.
    pub algorithm: Option<AeadAlgorithm>,
    /// How old its current version becomes.
    pub rotation_period: RotationPeriod,
    /// The caller's token.
    pub idempotency_token: Option<String>,
}

/// A registered data key with its versions in ascending order.
#[derive(Debug)]
pub struct DataKeyEntry {
    /// The data key.
    pub row: DataKeyRow,
    /// Its versions; none in a list.
    pub versions: Vec<DataKeyVersionRow>,
}

/// A page of registered data keys.
#[derive(Debug)]
pub struct DataKeyPage {
    /// In order of their names, without versions.
    pub data_keys: Vec<DataKeyEntry>,
    /// The name to go on after; `None` on the last page.
    pub next_after: Option<String>,
}

/// A registered data key that is given out.
#[derive(Debug)]
pub struct GivenDataKey {
    /// Which.
    pub data_key_id: DataKeyId,
    /// Its version.
    pub version: KeyVersion,
    /// When that was made.
    pub created: UnixMillis,
    /// Its bytes.
    pub data_key: PlainDataKey,
}

fn not_found(name: &KeyName) -> ServiceError {
    let message = format!("there is no registered data key {name} in this tenant");
    ServiceError { field: Some("name"), ..ServiceError::new(Reason::DataKeyNotFound, message) }
}

fn exists(name: &KeyName) -> ServiceError {
    let message = format!("there is a registered data key {name} already; choose another name");
    ServiceError { field: Some("name"), ..ServiceError::new(Reason::KeyExists, message) }
}

fn forbids(message: String) -> ServiceError {
    ServiceError::new(Reason::DataKeyStateForbids, message)
}

/// `data key salaries` or `version 2 of data key salaries`.
fn shown(name: &KeyName, version: Option<KeyVersion>) -> String {
    match version {
        None => format!("data key {name}"),
        Some(version) => format!("version {version} of data key {name}"),
    }
}

/// That it is given out and rotated.
fn check_enabled(
    name: &KeyName,
    version: Option<KeyVersion>,
    standing: DataKeyStanding,
) -> Result<(), ServiceError> {
    let what = shown(name, version);
    match standing.state {
        DataKeyState::Enabled => Ok(()),
        DataKeyState::Disabled => {
            Err(forbids(format!("{what} is DISABLED; nobody gets it until it is enabled again")))
        }
        DataKeyState::Destroyed => Err(forbids(format!(
            "{what} is DESTROYED; its bytes are gone, and so is what was encrypted under it"
        ))),
    }
}

/// What is stored under the row's MAC and still does not open.
fn damaged(row: &DataKeyRow, version: KeyVersion) -> ServiceError {
    tracing::error!(data_key = %row.data_key_id, %version, "a stored data key does not open");
    ServiceError::new(Reason::Internal, "a stored data key does not open; see the server's log")
}

fn described(record: Record, row: &DataKeyRow, version: Option<KeyVersion>) -> Record {
    let record =
        record.detail("data_key", row.name.as_str()).detail("data_key_id", row.data_key_id.to_string());
    match version {
        None => record,
        Some(version) => record.detail("data_key_version", version.to_string()),
    }
}

impl Node {
    /// Makes a registered data key with version 1. Its bytes stay here.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn create_data_key(
        &self,
        caller: &Caller,
        request: &CreateDataKey,
    ) -> Result<DataKeyEntry, ServiceError> {
        let open = self.require_open()?;
        let (action, tenant) = (Action::CreateDataKey, &caller.principal.tenant);
        let key = KeyRef { key: request.key.clone(), version: None };
        let days = request.rotation_period.days().to_string();
        let asked = [
            request.name.as_str().to_owned(),
            key.to_string(),
            request.algorithm.map_or("default", AeadAlgorithm::name).to_owned(),
            days.clone(),
        ];
        let asked: Vec<&[u8]> = asked.iter().map(String::as_bytes).collect();
        let claim = self.claim(caller, action, request.idempotency_token.as_deref(), &asked);
        if self.replayed(claim.as_ref()).await?.is_some() {
            return self.data_key_again(&open, caller, &request.name, action).await;
        }
        let data_key_id = DataKeyId(uuid::Uuid::now_v7().into_bytes());
        for _ in 0..DECISION_COUNT_MAX {
            let (found, number) = self.key_to_encrypt(&open, caller, &key).await?;
            let algorithm = match request.algorithm {
                Some(algorithm) => algorithm,
                None => usage::aead(&found.key.row)?,
            };
            self.check_allowed("data_key_spec", algorithm.into())?;
            if self.database.find_data_key(tenant, &request.name, &open.row_mac).await?.is_some() {
                return Err(exists(&request.name));
            }
            let created = now();
            let row = DataKeyRow {
                tenant: tenant.clone(),
                data_key_id,
                name: request.name.clone(),
                algorithm,
                key_id: found.key.row.key_id,
                standing: DataKeyStanding { state: DataKeyState::Enabled, since: created },
                rotation_period: request.rotation_period,
                current_version: KeyVersion::FIRST,
                creator: caller.principal.clone(),
                created,
                revision: 1,
            };
            let version = self.new_data_key_version(&open, caller, &row, (&found, number)).await?;
            let record =
                self.record(action.event(), Outcome::Done, caller).key(found.key.row.key_id, Some(number));
            let record = described(record, &row, Some(version.version))
                .detail("spec", algorithm.name())
                .detail("rotation_period_days", days.as_str());
            let decided = (None, Some(found.revision));
            let committed =
                self.commit_data_key(&open, record, decided, (row, vec![version]), claim.clone()).await;
            match committed? {
                (Changed::Done, entry) => return Ok(entry),
                (Changed::Replayed(_), _) => {
                    return self.data_key_again(&open, caller, &request.name, action).await;
                }
                (Changed::Again, _) => {}
            }
        }
        Err(contention())
    }

    /// Gives out the current version or the one that is named, in the form that the caller wants. When the rotation period
    /// of the current one is over, the next one is made first.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn get_data_key(
        &self,
        caller: &Caller,
        name: &KeyName,
        version: Option<KeyVersion>,
        delivery: &Delivery,
    ) -> Result<GivenDataKey, ServiceError> {
        let open = self.require_open()?;
        self.check_recipient(delivery.recipient())?;
        for _ in 0..DECISION_COUNT_MAX {
            let (row, revision) = self.data_key(&open, caller, name).await?;
            check_enabled(name, None, row.standing)?;
            let number = version.unwrap_or(row.current_version);
            let stored = self.data_key_version(&open, &row, number).await?;
            check_enabled(name, Some(number), stored.standing)?;
            if version.is_none() && row.rotation_period.is_over(stored.created, now()) {
                self.rotate_overdue(&open, caller, &row, revision).await?;
                continue;
            }
            let selector = KeySelector::Id(stored.key.0);
            let judged = open.judge(&self.database, &row.tenant, &selector, |entry| {
                check_state(entry, stored.key.1, "decrypt", KeyState::can_decrypt)
            });
            let (found, ()) = judged.await?;
            let bytes = self.open_data_key(&open, caller, &row, &stored, &found).await?;
            let record = self.record(Action::GetDataKey.event(), Outcome::Done, caller);
            let record = named_in(described(record, &row, Some(number)), delivery.recipient());
            // A change of either since it was looked at makes the older revision an old one.
            let found = Found { revision: revision.min(found.revision), ..found };
            if !self.commit_use_with(&open, &found, stored.key.1, record).await? {
                continue;
            }
            let binding = RecipientBinding {
                purpose: Purpose::RegisteredDataKey,
                spec: row.algorithm.into(),
                key: (KeyId(row.data_key_id.0), number),
                context: &EncryptionContext::default(),
            };
            let (plaintext, recipient_ciphertext) = delivery.apply(&binding, bytes)?;
            let data_key = PlainDataKey { algorithm: row.algorithm, plaintext, recipient_ciphertext };
            let (data_key_id, created) = (row.data_key_id, stored.created);
            return Ok(GivenDataKey { data_key_id, version: number, created, data_key });
        }
        Err(contention())
    }

    /// Describes one with all its versions.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn describe_data_key(
        &self,
        caller: &Caller,
        name: &KeyName,
    ) -> Result<DataKeyEntry, ServiceError> {
        let open = self.require_open()?;
        for _ in 0..DECISION_COUNT_MAX {
            let (row, revision) = self.data_key(&open, caller, name).await?;
            let versions = self.database.data_key_versions(&row, &open.row_mac).await?;
            let record = self.record(Action::DescribeDataKey.event(), Outcome::Done, caller);
            if self.commit_decided(&open, described(record, &row, None), revision).await? {
                return Ok(DataKeyEntry { row, versions });
            }
        }
        Err(contention())
    }

    /// A page of the tenant's registered data keys.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn list_data_keys(
        &self,
        caller: &Caller,
        after: &str,
        count_max: u32,
    ) -> Result<DataKeyPage, ServiceError> {
        let open = self.require_open()?;
        let tenant = &caller.principal.tenant;
        let mut rows = self.database.list_data_keys(tenant, after, count_max + 1, &open.row_mac).await?;
        let has_more = rows.len() > count_max as usize;
        rows.truncate(count_max as usize);
        let record = self
            .record(Action::ListDataKeys.event(), Outcome::Done, caller)
            .detail("count", rows.len().to_string());
        self.committer.commit(Entry::record(record)).await?;
        let next_after = rows.last().filter(|_| has_more).map(|last| last.name.as_str().to_owned());
        let data_keys = rows.into_iter().map(|row| DataKeyEntry { row, versions: vec![] }).collect();
        Ok(DataKeyPage { data_keys, next_after })
    }

    /// Makes the next version.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn rotate_data_key(
        &self,
        caller: &Caller,
        name: &KeyName,
        idempotency_token: Option<&str>,
    ) -> Result<DataKeyEntry, ServiceError> {
        let open = self.require_open()?;
        let action = Action::RotateDataKey;
        for _ in 0..DECISION_COUNT_MAX {
            let (row, revision) = self.data_key(&open, caller, name).await?;
            let claim =
                self.claim(caller, action, idempotency_token, &[row.data_key_id.to_string().as_bytes()]);
            if self.replayed(claim.as_ref()).await?.is_some() {
                return self.data_key_again(&open, caller, name, action).await;
            }
            check_enabled(name, None, row.standing)?;
            match self.next_data_key_version(&open, caller, &row, revision, None, claim).await? {
                Changed::Done => return self.data_key_entry(&open, caller, name).await,
                Changed::Replayed(_) => return self.data_key_again(&open, caller, name, action).await,
                Changed::Again => {}
            }
        }
        Err(contention())
    }

    /// Moves a data key, or one version of it, to another state. A destruction erases in the same transaction.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn change_data_key_state(
        &self,
        caller: &Caller,
        name: &KeyName,
        version: Option<KeyVersion>,
        (action, command): (Action, DataKeyCommand),
    ) -> Result<DataKeyEntry, ServiceError> {
        let open = self.require_open()?;
        let refused = |error: DataKeyTransitionError| forbids(format!("{}: {error}", shown(name, version)));
        for _ in 0..DECISION_COUNT_MAX {
            let (mut row, _) = self.data_key(&open, caller, name).await?;
            let mut versions = Vec::new();
            match version {
                None => {
                    row.standing = row.standing.apply(command, now()).map_err(refused)?;
                    if row.standing.state == DataKeyState::Destroyed {
                        versions = self.database.data_key_versions(&row, &open.row_mac).await?;
                        versions.retain(|version| version.standing.state != DataKeyState::Destroyed);
                        for version in &mut versions {
                            version.standing = row.standing;
                        }
                    }
                }
                Some(number) => {
                    let mut stored = self.data_key_version(&open, &row, number).await?;
                    stored.standing = stored.standing.apply(command, now()).map_err(refused)?;
                    if stored.standing.state == DataKeyState::Destroyed && number == row.current_version {
                        return Err(forbids(format!(
                            "{} is the current one; rotate the data key first, or destroy all of it",
                            shown(name, version)
                        )));
                    }
                    versions.push(stored);
                }
            }
            for version in &mut versions {
                if version.standing.state == DataKeyState::Destroyed {
                    version.ciphertext = None;
                }
            }
            let record = self.record(action.event(), Outcome::Done, caller);
            let record = described(record, &row, version);
            let expected = row.revision;
            row.revision += 1;
            // The row's revision is the finer guard: other keys may change meanwhile.
            let decided = (Some(expected), None);
            if let (Changed::Done, _) =
                self.commit_data_key(&open, record, decided, (row, versions), None).await?
            {
                return self.data_key_entry(&open, caller, name).await;
            }
        }
        Err(contention())
    }

    /// Finds a data key as it is now, with a revision of the catalogue that is not newer than it.
    async fn data_key(
        &self,
        open: &Open,
        caller: &Caller,
        name: &KeyName,
    ) -> Result<(DataKeyRow, CatalogueRevision), ServiceError> {
        // The revision is read before the rows: if they change in between, the commit finds it too old.
        let revision = self.database.head().await?.catalogue;
        let row = self.database.find_data_key(&caller.principal.tenant, name, &open.row_mac).await?;
        Ok((row.ok_or_else(|| not_found(name))?, revision))
    }

    async fn data_key_entry(
        &self,
        open: &Open,
        caller: &Caller,
        name: &KeyName,
    ) -> Result<DataKeyEntry, ServiceError> {
        let (row, _) = self.data_key(open, caller, name).await?;
        let versions = self.database.data_key_versions(&row, &open.row_mac).await?;
        Ok(DataKeyEntry { row, versions })
    }

    async fn data_key_version(
        &self,
        open: &Open,
        row: &DataKeyRow,
        number: KeyVersion,
    ) -> Result<DataKeyVersionRow, ServiceError> {
        let version = self.database.find_data_key_version(row, number, &open.row_mac).await?;
        version.ok_or_else(|| {
            let message = format!("data key {} has no version {number}", row.name);
            let error = ServiceError::new(Reason::KeyVersionNotFound, message);
            ServiceError { field: Some("version"), ..error }
        })
    }

    /// Answers a request that was made before with this token: it changes nothing, but it was asked.
    async fn data_key_again(
        &self,
        open: &Open,
        caller: &Caller,
        name: &KeyName,
        action: Action,
    ) -> Result<DataKeyEntry, ServiceError> {
        // The token's request named it, and a name is never given to another one.
        let entry = self.data_key_entry(open, caller, name).await?;
        let record = described(self.record(action.event(), Outcome::Done, caller), &entry.row, None)
            .detail("repeats", "an earlier request with the same token");
        self.committer.commit(Entry::record(record)).await?;
        Ok(entry)
    }

    /// Fresh bytes for the row's current version, encrypted under a key that was judged.
    async fn new_data_key_version(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        row: &DataKeyRow,
        (found, number): (&Found, KeyVersion),
    ) -> Result<DataKeyVersionRow, ServiceError> {
        let mut material = Secret::new(vec![0; row.algorithm.key_len()]);
        open.random(material.expose_mut(), caller.deadline).await?;
        let plaintext = envelope::data_key_plaintext(row.algorithm, material.expose());
        let context = stored_context(row.data_key_id, row.current_version);
        let sealing = (Purpose::RegisteredDataKey, &context);
        let ciphertext = self.seal_under(open, caller, (found, number), sealing, &plaintext).await?;
        let created = now();
        Ok(DataKeyVersionRow {
            tenant: row.tenant.clone(),
            data_key_id: row.data_key_id,
            version: row.current_version,
            standing: DataKeyStanding { state: DataKeyState::Enabled, since: created },
            created,
            key: (found.key.row.key_id, number),
            ciphertext: Some(ciphertext),
        })
    }

    /// Decrypts a stored version under a key that was judged.
    async fn open_data_key(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        row: &DataKeyRow,
        stored: &DataKeyVersionRow,
        found: &Found,
    ) -> Result<Secret, ServiceError> {
        let damaged = || damaged(row, stored.version);
        let bytes = stored.ciphertext.as_deref().ok_or_else(damaged)?;
        let ciphertext = envelope::open(bytes).map_err(|_| damaged())?;
        let header = ciphertext.header;
        let is_own = header.purpose == Purpose::RegisteredDataKey
            && (header.key_id, header.version) == stored.key
            && found.key.row.spec.algorithm() == KeyAlgorithm::Aead(header.algorithm);
        if !is_own {
            return Err(damaged());
        }
        let context = stored_context(row.data_key_id, stored.version);
        let plaintext = match self.open_under(open, caller, found, &ciphertext, &context).await {
            // It is no caller's ciphertext.
            Err(error) if error.reason == Reason::CiphertextInvalid => return Err(damaged()),
            opened => opened?,
        };
        match envelope::open_data_key(&plaintext) {
            Ok((algorithm, bytes)) if algorithm == row.algorithm => Ok(bytes),
            _ => Err(damaged()),
        }
    }

    /// Makes the next version because the period of the current one is over. Whether this call was the one that made it
    /// does not matter.
    async fn rotate_overdue(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        row: &DataKeyRow,
        revision: CatalogueRevision,
    ) -> Result<(), ServiceError> {
        let because = Some("its rotation period is over");
        match self.next_data_key_version(open, caller, row, revision, because, None).await {
            Ok(_) => Ok(()),
            Err(error) if error.reason == Reason::KeyStateForbids => {
                let message = format!(
                    "the rotation period of data key {} is over and there can be no next version: {error}; name \
                     version {} to read what is encrypted under it",
                    row.name, row.current_version
                );
                Err(ServiceError { message, ..error })
            }
            Err(error) => Err(error),
        }
    }

    /// Makes and commits the next version of a data key that was found at a revision.
    async fn next_data_key_version(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        before: &DataKeyRow,
        revision: CatalogueRevision,
        because: Option<&str>,
        claim: Option<Idempotency>,
    ) -> Result<Changed, ServiceError> {
        let next = before.current_version.next().filter(|number| number.number() <= VERSIONS_MAX);
        let next = next.ok_or_else(|| {
            forbids(format!(
                "data key {} has {VERSIONS_MAX} versions, and none has more; make a new one",
                before.name
            ))
        })?;
        let key = KeyRef { key: KeySelector::Id(before.key_id), version: None };
        let (found, number) = self.key_to_encrypt(open, caller, &key).await?;
        let row = DataKeyRow { current_version: next, revision: before.revision + 1, ..before.clone() };
        let version = self.new_data_key_version(open, caller, &row, (&found, number)).await?;
        let record = self
            .record(Action::RotateDataKey.event(), Outcome::Done, caller)
            .key(found.key.row.key_id, Some(number));
        let mut record = described(record, &row, Some(next));
        if let Some(because) = because {
            record = record.detail("because", because);
        }
        let decided = (Some(before.revision), Some(revision.min(found.revision)));
        let committed = self.commit_data_key(open, record, decided, (row, vec![version]), claim).await?;
        Ok(committed.0)
    }

    /// Commits rows as they shall be: under the row's revision before and, where a key was judged for it, the catalogue's.
    async fn commit_data_key(
        &self,
        open: &Open,
        record: Record,
        (expected_revision, decided_under): (Option<u64>, Option<CatalogueRevision>),
        (row, versions): (DataKeyRow, Vec<DataKeyVersionRow>),
        claim: Option<Idempotency>,
    ) -> Result<(Changed, DataKeyEntry), ServiceError> {
        let with_mac =
            |version: &DataKeyVersionRow| (version.clone(), open.row_mac.of_data_key_version(version));
        let change = DataKeyChange {
            expected_revision,
            data_key: (row.clone(), open.row_mac.of_data_key(&row)),
            versions: versions.iter().map(with_mac).collect(),
        };
        let change = Some(Change::DataKey(Box::new(change)));
        let entry = Entry { record, change, decided_under, idempotency: claim };
        let changed = match self.committer.commit(entry).await? {
            Commit::Done { catalogue, .. } => {
                open.advance(catalogue);
                Changed::Done
            }
            Commit::Stale(revision) => {
                open.advance(revision);
                Changed::Again
            }
            Commit::Refused(Refusal::Exists) => return Err(exists(&row.name)),
            // No data key uses up an import.
            Commit::Refused(Refusal::Conflict | Refusal::ImportUsed) => Changed::Again,
            Commit::Refused(Refusal::TokenConflict) => return Err(token_conflict()),
            Commit::Refused(Refusal::Replayed(id)) => Changed::Replayed(id),
        };
        Ok((changed, DataKeyEntry { row, versions }))
    }
}
