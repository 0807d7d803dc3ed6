//! Making, describing, listing and rotating keys. What changes their states is in `life.rs`.

use super::attributes::attributed;
use super::imports::import_not_found;
use super::open::{DECISION_COUNT_MAX, KeyEntry, Open, contention, object_kind};
use super::{Caller, Node, ServiceError, usage};
use crate::random::{now, random_id};
use crate::store::{
    Change, Commit, Entry, Idempotency, ImportChange, KeyRow, Material, Refusal, VersionRow, request_digest,
};
use kms_core::attributes::{KeyAttributes, ShortText};
use kms_core::audit::{Outcome, Record};
use kms_core::codec;
use kms_core::id::{HsmObjectId, KeyId, KeyName, KeySelector, KeyVersion, LabelName, UnixMillis};
use kms_core::key::{Cryptoperiod, KeyCommand, KeyState, Standing};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_core::spec::{KeyOrigin, KeySpec, KeyUsage, Protection};
use kms_hsm::{ConfirmedObject, HsmError, HsmSession, ObjectKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Most versions of a key: its description must fit into an answer, and its destruction into a transaction.
pub(super) const VERSIONS_MAX: u32 = 2_000;

/// What `CreateKey` asks.
#[derive(Clone, Debug)]
pub struct CreateKey {
    /// Unique in the tenant.
    pub name: KeyName,
    /// Algorithm and length.
    pub spec: KeySpec,
    /// `None`: resident where the token can, else wrapped.
    pub protection: Option<Protection>,
    /// What it is for; `None`: the first usage of its specification.
    pub usage: Option<KeyUsage>,
    /// When it may be used.
    pub period: Cryptoperiod,
    /// What people say of it.
    pub attributes: KeyAttributes,
    /// The caller's token.
    pub idempotency_token: Option<String>,
}

/// Which keys of a list are wanted. The default wants all.
#[derive(Clone, Debug, Default)]
pub struct KeyFilter {
    /// Those with all of these labels.
    pub labels: BTreeMap<LabelName, ShortText>,
    /// Those in this state.
    pub state: Option<KeyState>,
}

impl KeyFilter {
    fn takes(&self, key: &KeyRow) -> bool {
        let has = |(name, value)| key.attributes.labels.get(name) == Some(value);
        self.labels.iter().all(has) && self.state.is_none_or(|state| key.standing_at(now()).state == state)
    }
}

/// A page of keys.
#[derive(Debug)]
pub struct KeyPage {
    /// In order of their names, without versions and aliases.
    pub keys: Vec<KeyEntry>,
    /// The name to go on after; `None` on the last page.
    pub next_after: Option<String>,
}

/// A key that is to be committed, with the versions that change with it.
pub(super) struct Draft {
    key: KeyRow,
    versions: Vec<VersionRow>,
    expected_revision: Option<u64>,
    certificate: Option<(UnixMillis, Vec<u8>)>,
    import: Option<Box<ImportChange>>,
}

impl Draft {
    /// A key that does not exist yet.
    fn new_key(key: KeyRow, version: VersionRow) -> Self {
        Self { key, versions: vec![version], expected_revision: None, certificate: None, import: None }
    }

    /// Using up an import.
    fn with_import(self, import: Option<ImportChange>) -> Self {
        Self { import: import.map(Box::new), ..self }
    }

    /// A change of a key as it was found. `key` is that key with what changes, its revision apart.
    pub(super) fn of(mut key: KeyRow, versions: Vec<VersionRow>) -> Self {
        let expected_revision = Some(key.revision);
        key.revision += 1;
        Self { key, versions, expected_revision, certificate: None, import: None }
    }

    /// With the certificate of a destruction, and its time.
    pub(super) fn with_certificate(self, time: UnixMillis, certificate: Vec<u8>) -> Self {
        Self { certificate: Some((time, certificate)), ..self }
    }

    fn change(self, open: &Open) -> Change {
        let mac = open.row_mac.of_key(&self.key);
        let versions = self
            .versions
            .into_iter()
            .map(|version| {
                let mac = open.row_mac.of_version(&version);
                (version, mac)
            })
            .collect();
        let key = Box::new((self.key, mac));
        let Self { expected_revision, certificate, import, .. } = self;
        Change::Key { expected_revision, key, versions, certificate, import }
    }
}

/// How a committed key change ended.
pub(super) enum Changed {
    Done,
    /// The same request was made before: its key.
    Replayed(KeyId),
    /// Somebody else was faster: decide again.
    Again,
}

impl CreateKey {
    /// What an idempotency token stands for (docs/formats/database.md).
    pub(super) fn described(&self) -> [Vec<u8>; 7] {
        let date = |date: Option<UnixMillis>| date.map_or("none".to_owned(), |time| time.0.to_string());
        [
            self.name.as_str().into(),
            self.spec.name().into(),
            self.protection.map_or("default", Protection::name).into(),
            date(self.period.activates).into(),
            date(self.period.expires).into(),
            self.usage.map_or("default", KeyUsage::name).into(),
            codec::to_bytes(&self.attributes),
        ]
    }
}

/// What a new key is, beside what was asked for.
pub(super) struct NewKey {
    pub action: Action,
    pub usage: KeyUsage,
    pub protection: Protection,
    pub version: VersionRow,
    /// The import that its material comes from.
    pub import: Option<ImportChange>,
}

/// A fresh identity. It tells when it was made, so that databases keep neighbours together.
pub(super) fn new_key_id() -> KeyId {
    KeyId(uuid::Uuid::now_v7().into_bytes())
}

impl Node {
    /// Makes a key with version 1.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn create_key(
        &self,
        caller: &Caller,
        request: &CreateKey,
    ) -> Result<Arc<KeyEntry>, ServiceError> {
        let open = &self.require_open()?;
        let claim = self.claim(
            caller,
            Action::CreateKey,
            request.idempotency_token.as_deref(),
            &request.described().each_ref().map(Vec::as_slice),
        );
        if let Some(key_id) = self.replayed(claim.as_ref()).await? {
            return self.answer_again(open, key_id, Action::CreateKey, caller).await;
        }
        usage::check_made_here("spec", request.spec)?;
        let (usage, protection) =
            self.check_new_key(open, caller, request, |kind| open.pool.can(kind)).await?;
        let place = (new_key_id(), KeyVersion::FIRST);
        let version = self.new_version(open, caller, place, (request.spec, usage), protection).await?;
        let new = NewKey { action: Action::CreateKey, usage, protection, version, import: None };
        self.commit_new_key(open, caller, request, new, claim).await
    }

    /// Decides usage and protection of a key that somebody wants. Costs no HSM call. After the look for an earlier request:
    /// a repeated one is the same request when its dates have come.
    pub(super) async fn check_new_key(
        &self,
        open: &Open,
        caller: &Caller,
        request: &CreateKey,
        can_be_resident: impl Fn(ObjectKind) -> bool,
    ) -> Result<(KeyUsage, Protection), ServiceError> {
        check_dates(request, now())?;
        self.check_allowed("spec", request.spec)?;
        let usage = usage::of_new_key(request.spec, request.usage)?;
        let by_name = KeySelector::Name(request.name.clone());
        match open.find(&self.database, &caller.principal.tenant, &by_name).await {
            Ok(_) => return Err(key_exists(&request.name)),
            Err(error) if error.reason == Reason::KeyNotFound => {}
            Err(error) => return Err(error),
        }
        let kind = object_kind(request.spec, usage);
        let can_be_resident = kind.is_some_and(can_be_resident);
        let protection = match request.protection {
            Some(Protection::HsmResident) if !can_be_resident => {
                let spec = request.spec.name();
                let why = match kind {
                    None => format!("a key of spec {spec} is never one object of an HSM"),
                    Some(_) => {
                        format!("this token has no mechanism for {spec}, or takes no key from outside")
                    }
                };
                let message = format!("{why}; ask for protection wrapped or leave it out");
                let error = ServiceError::new(Reason::SpecUnsupported, message);
                return Err(ServiceError { field: Some("protection"), ..error });
            }
            Some(protection) => protection,
            None if can_be_resident => Protection::HsmResident,
            None => Protection::HsmWrapped,
        };
        Ok((usage, protection))
    }

    /// Commits a new key with its first version, and makes its object where it has one.
    pub(super) async fn commit_new_key(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        request: &CreateKey,
        new: NewKey,
        claim: Option<Idempotency>,
    ) -> Result<Arc<KeyEntry>, ServiceError> {
        let NewKey { action, usage, protection, version, import } = new;
        let key_id = version.key_id;
        let creating = KeyState::Creating.into();
        let standing =
            if version.standing == creating { creating } else { complete(creating, &request.period)? };
        let key = KeyRow {
            tenant: caller.principal.tenant.clone(),
            key_id,
            name: request.name.clone(),
            spec: request.spec,
            usage,
            protection,
            standing,
            destruction_request: None,
            period: request.period,
            current_version: KeyVersion::FIRST,
            creator: caller.principal.clone(),
            created: version.created,
            attributes: request.attributes.clone(),
            revision: 1,
        };
        let mut record = self
            .record(action.event(), Outcome::Done, caller)
            .key(key_id, Some(KeyVersion::FIRST))
            .detail("name", request.name.as_str())
            .detail("spec", request.spec.name())
            .detail("usage", usage.name())
            .detail("protection", protection.name());
        if let Some(import) = &import {
            record = record.detail("import", import.row().import_id.to_string());
        }
        let record = dated(record, &request.period);
        let record = attributed(record, &KeyAttributes::default(), &request.attributes);
        let draft = Draft::new_key(key, version).with_import(import);
        match self.commit_key(open, record, draft, claim).await {
            Ok(Changed::Done) => self.finish_creation(open, key_id, caller).await,
            Ok(Changed::Replayed(first)) => self.answer_again(open, first, action, caller).await,
            Ok(Changed::Again) => Err(contention()),
            Err(error) => Err(error),
        }
    }

    /// A new version with its material: a sealed random key, which completes it, or the id of an object that is made
    /// after the row.
    async fn new_version(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        key: (KeyId, KeyVersion),
        kind: (KeySpec, KeyUsage),
        protection: Protection,
    ) -> Result<VersionRow, ServiceError> {
        let tenant = caller.principal.tenant.clone();
        let creating = Standing::from(KeyState::Creating);
        let (standing, material, check_value, public_key) = match protection {
            Protection::HsmWrapped => {
                let made = open.make_wrapped(&self.bundle, &tenant, key, kind, caller.deadline).await?;
                let standing = complete(creating, &Cryptoperiod::default())?;
                (standing, Material::Wrapped(made.wrapped.to_bytes()), made.check_value, made.public_key)
            }
            Protection::HsmResident => (creating, Material::Resident(HsmObjectId(random_id())), None, None),
        };
        Ok(VersionRow {
            tenant,
            key_id: key.0,
            version: key.1,
            origin: KeyOrigin::Generated,
            standing,
            destruction_request: None,
            created: now(),
            material,
            check_value,
            public_key,
        })
    }

    /// Makes the HSM objects of versions that are being created, then commits them as active. The same code
    /// finishes a call and, at unseal, what a crash left behind.
    async fn finish_creation(
        &self,
        open: &Arc<Open>,
        key_id: KeyId,
        caller: &Caller,
    ) -> Result<Arc<KeyEntry>, ServiceError> {
        let tenant = &caller.principal.tenant;
        for _ in 0..DECISION_COUNT_MAX {
            let found = open.find(&self.database, tenant, &KeySelector::Id(key_id)).await?;
            let entry = found.key;
            let Some(creating) = entry.unfinished_versions().next() else { return Ok(entry) };
            let record = self
                .record("key.complete", Outcome::Done, caller)
                .key(key_id, Some(creating.version))
                .detail("name", entry.row.name.as_str());
            let completed = self.complete_version(open, &entry, creating, record, caller.deadline).await?;
            if let Changed::Done = completed {
                return Ok(open.find(&self.database, tenant, &KeySelector::Id(key_id)).await?.key);
            }
        }
        Err(contention())
    }

    /// Answers a request that was made before with this token. It changes nothing, but it was asked: so it is
    /// recorded. The first try may have ended between the row and the HSM: so it is finished.
    pub(super) async fn answer_again(
        &self,
        open: &Arc<Open>,
        key_id: KeyId,
        action: Action,
        caller: &Caller,
    ) -> Result<Arc<KeyEntry>, ServiceError> {
        let entry = self.finish_creation(open, key_id, caller).await?;
        let record = self
            .record(action.event(), Outcome::Done, caller)
            .key(key_id, None)
            .detail("name", entry.row.name.as_str())
            .detail("repeats", "an earlier request with the same token");
        self.committer.commit(Entry::record(record)).await?;
        Ok(entry)
    }

    /// Makes sure that the object of a version exists, and commits the version as active.
    async fn complete_version(
        &self,
        open: &Arc<Open>,
        entry: &KeyEntry,
        creating: &VersionRow,
        record: Record,
        deadline: Instant,
    ) -> Result<Changed, ServiceError> {
        let object = match &creating.material {
            Material::Resident(object) | Material::Staged { object, .. } => *object,
            Material::Wrapped(_) | Material::Erased => {
                return Err(ServiceError::new(Reason::Internal, "a wrapped key is never being created"));
            }
        };
        let kind = object_kind(entry.row.spec, entry.row.usage).ok_or_else(|| {
            ServiceError::new(Reason::Internal, "a key that is never resident has an object")
        })?;
        let label = format!("{}@{}", entry.row.key_id, creating.version);
        // The object may exist already when an answer was lost or a node died between the two steps.
        let confirmed = open.hsm("confirm", deadline, move |session| session.confirm(object, kind)).await;
        let made = match (confirmed, &creating.material) {
            (Err(HsmError::NotFound { .. }), Material::Staged { wrapped, .. }) => {
                let place = (creating.key_id, creating.version);
                let (tenant, spec) = (&entry.row.tenant, entry.row.spec);
                let material = open.unwrap(&self.bundle, tenant, place, spec, wrapped, deadline).await?;
                let work = move |session: &mut dyn HsmSession| {
                    session.import(object, kind, &label, material.expose())
                };
                open.hsm("import", deadline, work).await
            }
            (Err(HsmError::NotFound { .. }), _) => {
                open.hsm("create", deadline, move |session| session.create(object, kind, &label)).await
            }
            (confirmed, _) => confirmed,
        };
        let made = match made {
            // Another call finishes the same version at this moment.
            Err(HsmError::AlreadyExists { .. }) => return Ok(Changed::Again),
            made => made?,
        };
        check_same(creating, &made)?;
        let mut key = entry.row.clone();
        let mut standing = complete(creating.standing, &Cryptoperiod::default())?;
        let mut versions = Vec::new();
        if creating.version < key.current_version {
            // A newer one has taken over while the destruction of this one was pending.
            standing = standing.apply(KeyCommand::Deactivate).map_err(transition)?;
        } else {
            versions = superseded(&entry.versions)?;
            key.current_version = creating.version;
        }
        let check_value = creating.check_value.or(made.check_value);
        let (material, public_key) = (Material::Resident(object), made.pair_public_key);
        versions.push(VersionRow { standing, material, check_value, public_key, ..creating.clone() });
        if key.standing.state == KeyState::Creating {
            key.standing = complete(key.standing, &key.period)?;
        }
        self.commit_key(open, record, Draft::of(key, versions), None).await
    }

    /// Finishes what a crash left behind; called at unseal. What cannot be finished is logged, stays as it is, and
    /// is tried again by the next use or unseal.
    pub(super) async fn finish_unfinished(
        &self,
        open: &Arc<Open>,
        deadline: Instant,
    ) -> Result<(), ServiceError> {
        for found in self.database.unfinished_keys(&open.row_mac).await? {
            let entry = KeyEntry::from(found);
            for creating in entry.unfinished_versions() {
                let record = self
                    .own_record("key.complete", Outcome::Done)
                    .key(entry.row.key_id, Some(creating.version))
                    .detail("name", entry.row.name.as_str())
                    .detail("because", "its creation was interrupted");
                // One key that cannot be finished must not keep every other from being used.
                if let Err(error) = self.complete_version(open, &entry, creating, record, deadline).await {
                    let (key, version) = (entry.row.key_id, creating.version);
                    tracing::error!(%key, %version, %error, "a creation that was interrupted cannot be finished");
                }
            }
        }
        Ok(())
    }

    /// Describes one key, and says how often its resident versions may have encrypted.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn describe_key(
        &self,
        caller: &Caller,
        key: &KeySelector,
    ) -> Result<(Arc<KeyEntry>, BTreeMap<KeyVersion, u64>), ServiceError> {
        let open = self.require_open()?;
        let tenant = &caller.principal.tenant;
        for _ in 0..DECISION_COUNT_MAX {
            let found = open.find(&self.database, tenant, key).await?;
            let row = &found.key.row;
            let counts = match row.protection {
                Protection::HsmResident => {
                    self.database.encryption_counts(tenant, row.key_id, &open.row_mac).await?
                }
                Protection::HsmWrapped => BTreeMap::new(),
            };
            let record = self
                .record(Action::DescribeKey.event(), Outcome::Done, caller)
                .key(found.key.row.key_id, None);
            let entry = Entry { decided_under: Some(found.revision), ..Entry::record(record) };
            match self.committer.commit(entry).await? {
                // Another node has changed keys: what is described must be what is true now.
                Commit::Stale(revision) => open.advance(revision),
                _ => return Ok((found.key, counts)),
            }
        }
        Err(contention())
    }

    /// A page of the tenant's keys. A filter is applied to the keys that are read: a page can have fewer keys than asked for, and
    /// even none, and still have others behind it.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn list_keys(
        &self,
        caller: &Caller,
        after: &str,
        count_max: u32,
        filter: &KeyFilter,
    ) -> Result<KeyPage, ServiceError> {
        let open = self.require_open()?;
        let tenant = &caller.principal.tenant;
        let mut found = self.database.list_keys(tenant, after, count_max + 1, &open.row_mac).await?;
        let has_more = found.len() > count_max as usize;
        found.truncate(count_max as usize);
        let next_after = match found.last() {
            Some(last) if has_more => Some(last.name.as_str().to_owned()),
            _ => None,
        };
        found.retain(|row| filter.takes(row));
        let record = self
            .record(Action::ListKeys.event(), Outcome::Done, caller)
            .detail("count", found.len().to_string());
        self.committer.commit(Entry::record(record)).await?;
        // Without versions and aliases, of which a key can have many.
        let entry = |row| KeyEntry { row, versions: vec![], aliases: vec![] };
        Ok(KeyPage { keys: found.into_iter().map(entry).collect(), next_after })
    }

    /// Makes a new version; the one before decrypts only.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn rotate_key(
        &self,
        caller: &Caller,
        selector: &KeySelector,
        idempotency_token: Option<&str>,
    ) -> Result<Arc<KeyEntry>, ServiceError> {
        let open = &self.require_open()?;
        let tenant = &caller.principal.tenant;
        for _ in 0..DECISION_COUNT_MAX {
            let entry = open.find(&self.database, tenant, selector).await?.key;
            let key_id = entry.row.key_id;
            let claim =
                self.claim(caller, Action::RotateKey, idempotency_token, &[key_id.to_string().as_bytes()]);
            if self.replayed(claim.as_ref()).await?.is_some() {
                return self.answer_again(open, key_id, Action::RotateKey, caller).await;
            }
            let rotatable = |entry: &KeyEntry| {
                entry.check_named(selector)?;
                usage::check_made_here("key", entry.row.spec)?;
                let is_creating = entry.unfinished_versions().next().is_some();
                let state = entry.row.standing_at(now()).state;
                if !is_creating && state != KeyState::Active {
                    let name = &entry.row.name;
                    let message = format!("key {name} is {state}; it cannot be rotated");
                    return Err(ServiceError::new(Reason::KeyStateForbids, message));
                }
                Ok(is_creating)
            };
            let (found, is_creating) = open.judge(&self.database, tenant, selector, rotatable).await?;
            let entry = found.key;
            if is_creating {
                // Another rotation has begun; finishing it is the only way on.
                self.finish_creation(open, key_id, caller).await?;
                continue;
            }
            let last = entry.versions.last().map_or(entry.row.current_version, |version| version.version);
            let number = last.next().filter(|number| number.number() <= VERSIONS_MAX).ok_or_else(|| {
                let message =
                    format!("the key has {VERSIONS_MAX} versions, and no key has more; make a new one");
                ServiceError::new(Reason::KeyStateForbids, message)
            })?;
            let mut key = entry.row.clone();
            let version = self
                .new_version(open, caller, (key_id, number), (key.spec, key.usage), key.protection)
                .await?;
            let mut versions = Vec::new();
            if version.standing.state != KeyState::Creating {
                versions = superseded(&entry.versions)?;
                key.current_version = number;
            }
            versions.push(version);
            let record = self
                .record(Action::RotateKey.event(), Outcome::Done, caller)
                .key(key_id, Some(number))
                .detail("name", key.name.as_str());
            match self.commit_key(open, record, Draft::of(key, versions), claim).await? {
                Changed::Done => return self.finish_creation(open, key_id, caller).await,
                Changed::Replayed(_) => {
                    return self.answer_again(open, key_id, Action::RotateKey, caller).await;
                }
                Changed::Again => {}
            }
        }
        Err(contention())
    }

    pub(super) async fn commit_key(
        &self,
        open: &Open,
        record: Record,
        draft: Draft,
        claim: Option<Idempotency>,
    ) -> Result<Changed, ServiceError> {
        let name = draft.key.name.clone();
        let entry = Entry {
            record,
            change: Some(draft.change(open)),
            // The expected revision of the row is the finer guard: other keys may change meanwhile.
            decided_under: None,
            idempotency: claim,
        };
        match self.committer.commit(entry).await? {
            Commit::Done { catalogue, .. } => {
                open.advance(catalogue);
                Ok(Changed::Done)
            }
            Commit::Stale(revision) => {
                open.advance(revision);
                Ok(Changed::Again)
            }
            Commit::Refused(Refusal::Exists) => Err(key_exists(&name)),
            Commit::Refused(Refusal::Conflict) => {
                open.advance(self.database.head().await?.catalogue);
                Ok(Changed::Again)
            }
            Commit::Refused(Refusal::ImportUsed) => Err(import_not_found()),
            Commit::Refused(Refusal::TokenConflict) => Err(token_conflict()),
            Commit::Refused(Refusal::Replayed(key_id)) => Ok(Changed::Replayed(key_id)),
        }
    }

    pub(super) fn claim(
        &self,
        caller: &Caller,
        action: Action,
        token: Option<&str>,
        described: &[&[u8]],
    ) -> Option<Idempotency> {
        token.map(|token| Idempotency {
            principal: caller.principal.clone(),
            method: action.event(),
            token: token.to_owned(),
            request_digest: request_digest(self.bundle.suite, described),
        })
    }

    /// The key of an earlier, equal request with this token. Asked before any HSM call.
    pub(super) async fn replayed(&self, claim: Option<&Idempotency>) -> Result<Option<KeyId>, ServiceError> {
        let Some(claim) = claim else { return Ok(None) };
        match self.database.find_token(claim, now()).await? {
            None => Ok(None),
            Some((digest, key_id)) if digest == claim.request_digest.0 => Ok(Some(key_id)),
            Some(_) => Err(token_conflict()),
        }
    }
}

/// That the object is the key that was brought, as far as its public half or check value tell.
fn check_same(creating: &VersionRow, made: &ConfirmedObject) -> Result<(), ServiceError> {
    let is_other = |known: Option<bool>| known == Some(false);
    let value = creating.check_value.zip(made.check_value).map(|(one, other)| one == other);
    let public =
        creating.public_key.as_ref().zip(made.pair_public_key.as_ref()).map(|(one, other)| one == other);
    if !is_other(value) && !is_other(public) {
        return Ok(());
    }
    let (key, version) = (creating.key_id, creating.version);
    tracing::error!(%key, %version, "the HSM holds another key under the id of an imported one");
    Err(ServiceError::new(Reason::Internal, "the HSM holds another key; see the server's log"))
}

/// The standing of a key whose material exists from now on.
pub(super) fn complete(standing: Standing, period: &Cryptoperiod) -> Result<Standing, ServiceError> {
    let standing = standing.apply(KeyCommand::Complete).map_err(transition)?;
    match period.activates {
        Some(_) => Ok(standing),
        None => standing.apply(KeyCommand::Activate).map_err(transition),
    }
}

/// The versions that decrypt only from now on, because a newer one takes over.
fn superseded(versions: &[VersionRow]) -> Result<Vec<VersionRow>, ServiceError> {
    let active = versions.iter().filter(|version| version.standing.state == KeyState::Active);
    active
        .map(|version| {
            let standing = version.standing.apply(KeyCommand::Deactivate).map_err(transition)?;
            Ok(VersionRow { standing, ..version.clone() })
        })
        .collect()
}

/// The dates of a new key lie in the future.
fn check_dates(request: &CreateKey, now: UnixMillis) -> Result<(), ServiceError> {
    let CreateKey { period, attributes, .. } = request;
    let dates = [
        ("activates", period.activates),
        ("expires", period.expires),
        ("attributes.retain_until", attributes.retain_until),
    ];
    for (field, date) in dates {
        if date.is_some_and(|date| date <= now) {
            return Err(ServiceError::field(field, "must be in the future"));
        }
    }
    Ok(())
}

/// A record that tells the dates of a key, where there are any.
fn dated(mut record: Record, period: &Cryptoperiod) -> Record {
    for (name, date) in [("activates", period.activates), ("expires", period.expires)] {
        if let Some(date) = date {
            record = record.detail(name, date.0.to_string());
        }
    }
    record
}

pub(super) fn transition(error: kms_core::key::TransitionError) -> ServiceError {
    ServiceError::new(Reason::KeyStateForbids, error.to_string())
}

pub(super) fn key_exists(name: &KeyName) -> ServiceError {
    let error = ServiceError::new(
        Reason::KeyExists,
        format!("there is a key or alias {name} already; choose another name"),
    );
    ServiceError { field: Some("name"), ..error }
}

pub(super) fn token_conflict() -> ServiceError {
    let message = "the idempotency token was used with another request; use a new one";
    let error = ServiceError::new(Reason::IdempotencyConflict, message);
    ServiceError { field: Some("idempotency_token"), ..error }
}
