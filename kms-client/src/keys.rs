//! Keys: names, versions and states.

use crate::attributes;
use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use kms_core::attributes::{KeyAttributes, ShortText};
use kms_core::codec;
use kms_core::destruction::SignedDestruction;
use kms_core::id::{KeyId, KeyName, KeyRef, KeyVersion, LabelName, UnixMillis};
use kms_core::key::{Cryptoperiod, KeyState};
use kms_core::spec::{KeyOrigin, KeySpec, KeyUsage, Protection};
use kms_proto::v1;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Most keys that one page of a list asks for.
const PAGE_SIZE: u32 = 200;

/// Makes a call repeatable: the same token with the same request gives the same result for 24 hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyToken(String);

impl IdempotencyToken {
    /// A fresh token (UUIDv7).
    pub fn generate() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    /// A token of the caller's own, to repeat a call from another process; `None` unless it has 1 to 64 bytes.
    pub fn new(text: &str) -> Option<Self> {
        (1..=64).contains(&text.len()).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a new key shall be.
#[derive(Clone, Debug)]
pub struct CreateKey {
    /// Unique in the tenant.
    pub name: KeyName,
    /// Algorithm and length.
    pub spec: KeySpec,
    /// Where the material shall be; `None`: resident where the token can, else wrapped.
    pub protection: Option<Protection>,
    /// What it shall be for; `None`: the first usage of its specification.
    pub usage: Option<KeyUsage>,
    /// When it may be used; both dates lie in the future.
    pub period: Cryptoperiod,
    /// What is said of it.
    pub attributes: KeyAttributes,
}

impl CreateKey {
    /// A key of this name and specification, and everything else as the service does it by itself.
    pub fn new(name: KeyName, spec: KeySpec) -> Self {
        Self {
            name,
            spec,
            protection: None,
            usage: None,
            period: Cryptoperiod::default(),
            attributes: KeyAttributes::default(),
        }
    }
}

impl CreateKey {
    pub(crate) fn to_proto(&self, token: &IdempotencyToken) -> v1::CreateKeyRequest {
        v1::CreateKeyRequest {
            name: self.name.to_string(),
            spec: convert::key_spec_to_proto(Some(self.spec)),
            protection: convert::protection_to_proto(self.protection).into(),
            idempotency_token: token.0.clone(),
            activates: self.period.activates.map(convert::time_to_proto),
            expires: self.period.expires.map(convert::time_to_proto),
            usage: convert::usage_to_proto(self.usage).into(),
            attributes: Some(attributes::to_proto(&self.attributes)),
        }
    }
}

/// Which keys of a list are wanted. The default wants all.
#[derive(Clone, Debug, Default)]
pub struct KeyFilter {
    /// Those with all of these labels.
    pub labels: BTreeMap<LabelName, ShortText>,
    /// Those in this state.
    pub state: Option<KeyState>,
}

/// A key's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Never changes and is never reused.
    pub id: KeyId,
    /// Unique in the tenant.
    pub name: KeyName,
    /// Algorithm and length.
    pub spec: KeySpec,
    /// What it is for.
    pub usage: KeyUsage,
    /// Where the material is.
    pub protection: Protection,
    /// Gates every version.
    pub state: KeyState,
    /// When the key may be used.
    pub period: Cryptoperiod,
    /// The version that encrypts.
    pub current_version: KeyVersion,
    /// All versions; empty in a list.
    pub versions: Vec<Version>,
    /// When it was made.
    pub created: UnixMillis,
    /// The URI of the principal that made it.
    pub creator: String,
    /// Grows with every change.
    pub revision: u64,
    /// What the protection means for backup and loss, in a sentence.
    pub protection_note: String,
    /// Its destruction, where one is scheduled or was done.
    pub destruction: Option<KeyDestruction>,
    /// What is said of it.
    pub attributes: KeyAttributes,
    /// Its other names; empty in a list.
    pub aliases: Vec<KeyName>,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// From 1.
    pub number: KeyVersion,
    /// Who made its material.
    pub origin: KeyOrigin,
    /// Its own state.
    pub state: KeyState,
    /// When it was made.
    pub created: UnixMillis,
    /// The first bytes of a zero block encrypted under it; empty where they are not known.
    pub check_value: Vec<u8>,
    /// Of a resident version that [`Client::describe_key`] describes: how often it may have encrypted.
    pub encryptions_taken: u64,
    /// Half of what it may encrypt is taken.
    pub is_rotation_advised: bool,
    /// Its own destruction, where one is scheduled or was done.
    pub destruction: Option<KeyDestruction>,
}

/// A destruction that is scheduled or was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDestruction {
    /// The state before it was scheduled.
    pub state_before: KeyState,
    /// The end of the window to cancel it; once destroyed, the time of that.
    pub time: UnixMillis,
    /// When it was asked for.
    pub asked: UnixMillis,
    /// The URI of the principal that asked for it.
    pub asked_by: String,
}

/// How one version of a key was used, as far as the log goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionUse {
    /// The version.
    pub number: KeyVersion,
    /// Data keys made under it. The service keeps the registered ones only: each may still be needed.
    pub data_keys: u64,
    /// Versions of registered data keys that are stored under it: they are destroyed with it.
    pub registered_data_keys: u64,
    /// How often something was encrypted.
    pub encryptions: u64,
    /// How often something was decrypted, data keys among it.
    pub decryptions: u64,
    /// How often a MAC was made.
    pub macs: u64,
    /// How often a MAC was verified.
    pub mac_verifications: u64,
    /// How often it signed.
    pub signatures: u64,
    /// How often a signature of it was verified by the service.
    pub signature_verifications: u64,
    /// When it was last used.
    pub last_used: UnixMillis,
    /// The URI of the principal that used it last.
    pub last_used_by: String,
}

fn destruction(found: Option<v1::Destruction>) -> Result<Option<KeyDestruction>, ClientError> {
    let Some(found) = found else { return Ok(None) };
    Ok(Some(KeyDestruction {
        state_before: convert::key_state(found.state_before)?,
        time: convert::time(found.time, "a destruction")?,
        asked: convert::time(found.asked, "the request for a destruction")?,
        asked_by: found.asked_by,
    }))
}

impl TryFrom<v1::Key> for Key {
    type Error = ClientError;

    fn try_from(key: v1::Key) -> Result<Self, ClientError> {
        let version = |version: v1::KeyVersion| {
            Ok(Version {
                number: convert::key_version(version.version)?,
                origin: convert::key_origin(version.origin)?,
                state: convert::key_state(version.state)?,
                created: convert::time(version.created, "a key version")?,
                check_value: version.check_value,
                encryptions_taken: version.encryptions_taken,
                is_rotation_advised: version.is_rotation_advised,
                destruction: destruction(version.destruction)?,
            })
        };
        Ok(Self {
            id: convert::key_id(&key.key_id)?,
            name: convert::key_name(&key.name)?,
            spec: convert::key_spec(key.spec)?,
            usage: convert::usage(key.usage)?,
            protection: convert::protection(key.protection)?,
            state: convert::key_state(key.state)?,
            period: Cryptoperiod {
                activates: convert::optional_time(key.activates, "a key's activation")?,
                expires: convert::optional_time(key.expires, "a key's expiry")?,
            },
            current_version: convert::key_version(key.current_version)?,
            versions: key.versions.into_iter().map(version).collect::<Result<_, ClientError>>()?,
            created: convert::time(key.created, "a key")?,
            creator: key.creator,
            revision: key.revision,
            protection_note: key.protection_note,
            destruction: destruction(key.destruction)?,
            attributes: attributes::from_proto(key.attributes.unwrap_or_default())?,
            aliases: key
                .aliases
                .iter()
                .map(|name| convert::key_name(name))
                .collect::<Result<_, ClientError>>()?,
        })
    }
}

impl Client {
    /// Makes a key with version 1.
    ///
    /// # Errors
    /// `KEY_EXISTS`: the name is taken. `SPEC_UNSUPPORTED`: the token cannot. `IDEMPOTENCY_CONFLICT`.
    pub async fn create_key(&self, create: &CreateKey, token: &IdempotencyToken) -> Result<Key, ClientError> {
        let request = create.to_proto(token);
        self.call(
            Repeat::Safe,
            &request,
            |mut stubs, request| async move { stubs.keys.create_key(request).await },
        )
        .await?
        .try_into()
    }

    /// Describes one key with all its versions.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`.
    pub async fn describe_key(&self, key: &KeyRef) -> Result<Key, ClientError> {
        let request = v1::DescribeKeyRequest { key: key.to_string() };
        self.call(Repeat::Safe, &request, |mut stubs, request| async move {
            stubs.keys.describe_key(request).await
        })
        .await?
        .try_into()
    }

    /// Lists those of the tenant's keys that the filter wants in order of their names, page by page.
    ///
    /// # Errors
    /// `NOT_PERMITTED`.
    pub async fn list_keys(&self, filter: &KeyFilter) -> Result<Vec<Key>, ClientError> {
        let mut keys = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListKeysRequest {
                page_size: PAGE_SIZE,
                page_token: std::mem::take(&mut page_token),
                labels: filter.labels.iter().map(attributes::label).collect(),
                state: convert::key_state_to_proto(filter.state).into(),
            };
            let page = self
                .call(Repeat::Safe, &request, |mut stubs, request| async move {
                    stubs.keys.list_keys(request).await
                })
                .await?;
            for key in page.keys {
                keys.push(key.try_into()?);
            }
            if page.next_page_token.is_empty() {
                return Ok(keys);
            }
            if page.next_page_token == request.page_token {
                return Err(ClientError::malformed("the list of keys does not end"));
            }
            page_token = page.next_page_token;
        }
    }

    /// Makes a new version; the version before it decrypts only.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`, `IDEMPOTENCY_CONFLICT`.
    pub async fn rotate_key(&self, key: &KeyRef, token: &IdempotencyToken) -> Result<Key, ClientError> {
        let request = v1::RotateKeyRequest { key: key.to_string(), idempotency_token: token.0.clone() };
        self.call(
            Repeat::Safe,
            &request,
            |mut stubs, request| async move { stubs.keys.rotate_key(request).await },
        )
        .await?
        .try_into()
    }

    /// Makes a pre-active key active now. Not repeated by itself: it carries no token.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`.
    pub async fn activate_key(&self, key: &KeyRef) -> Result<Key, ClientError> {
        let request = v1::ActivateKeyRequest { key: key.to_string() };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.keys.activate_key(request).await
        })
        .await?
        .try_into()
    }

    /// Stops every use of a key at once. Not repeated by itself: it carries no token.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`.
    pub async fn suspend_key(&self, key: &KeyRef) -> Result<Key, ClientError> {
        let request = v1::SuspendKeyRequest { key: key.to_string() };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.keys.suspend_key(request).await
        })
        .await?
        .try_into()
    }

    /// Ends a suspension. Not repeated by itself: it carries no token.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`.
    pub async fn resume_key(&self, key: &KeyRef) -> Result<Key, ClientError> {
        let request = v1::ResumeKeyRequest { key: key.to_string() };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.keys.resume_key(request).await
        })
        .await?
        .try_into()
    }

    /// Ends encryption for good; what was encrypted still decrypts. Not repeated by itself: it carries no token.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`.
    pub async fn deactivate_key(&self, key: &KeyRef) -> Result<Key, ClientError> {
        let request = v1::DeactivateKeyRequest { key: key.to_string() };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.keys.deactivate_key(request).await
        })
        .await?
        .try_into()
    }

    /// Puts a deactivated key away: it does nothing until it is recovered. Not repeated by itself: it carries no token.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`.
    pub async fn archive_key(&self, key: &KeyRef) -> Result<Key, ClientError> {
        let request = v1::ArchiveKeyRequest { key: key.to_string() };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.keys.archive_key(request).await
        })
        .await?
        .try_into()
    }

    /// Makes an archived key decrypt again. Not repeated by itself: it carries no token.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`.
    pub async fn recover_key(&self, key: &KeyRef) -> Result<Key, ClientError> {
        let request = v1::RecoverKeyRequest { key: key.to_string() };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.keys.recover_key(request).await
        })
        .await?
        .try_into()
    }

    /// Marks a key whose material somebody else may know: it does nothing from then on, for good. Not repeated by itself: it carries no token.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`.
    pub async fn compromise_key(&self, key: &KeyRef) -> Result<Key, ClientError> {
        let request = v1::CompromiseKeyRequest { key: key.to_string() };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.keys.compromise_key(request).await
        })
        .await?
        .try_into()
    }

    /// Stops every use of a key or version at once, and destroys it when the window is over. Not repeated by itself: it
    /// carries no token.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`, `FIELD_INVALID`: the window is not 7 to 30 days.
    pub async fn schedule_destruction(&self, key: &KeyRef, window_days: u32) -> Result<Key, ClientError> {
        let request = v1::ScheduleDestructionRequest { key: key.to_string(), window_days };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.keys.schedule_destruction(request).await
        })
        .await?
        .try_into()
    }

    /// Keeps a key or version after all; it is suspended then if it was active. Not repeated by itself: it carries no
    /// token.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`: nothing is scheduled, or the window is over.
    pub async fn cancel_destruction(&self, key: &KeyRef) -> Result<Key, ClientError> {
        let request = v1::CancelDestructionRequest { key: key.to_string() };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.keys.cancel_destruction(request).await
        })
        .await?
        .try_into()
    }

    /// How a key was used: what to know before destroying it. The service reads its whole log for this.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `DEADLINE_EXCEEDED`: the log is too long for the deadline.
    pub async fn usage_report(&self, key: &KeyRef) -> Result<Vec<VersionUse>, ClientError> {
        let request = v1::GetUsageReportRequest { key: key.to_string() };
        let usage = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.keys.get_usage_report(request).await
            })
            .await?;
        let version = |version: v1::VersionUse| {
            Ok(VersionUse {
                number: convert::key_version(version.version)?,
                data_keys: version.data_keys,
                registered_data_keys: version.registered_data_keys,
                encryptions: version.encryptions,
                decryptions: version.decryptions,
                macs: version.macs,
                mac_verifications: version.mac_verifications,
                signatures: version.signatures,
                signature_verifications: version.signature_verifications,
                last_used: convert::time(version.last_used, "the last use of a version")?,
                last_used_by: version.last_used_by,
            })
        };
        usage.versions.into_iter().map(version).collect()
    }

    /// The signed certificates of what was destroyed of a key, oldest first. [`SignedDestruction::verify`] checks one with
    /// nothing but the bundle.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`: nothing is destroyed.
    pub async fn destruction_certificates(
        &self,
        key: &KeyRef,
    ) -> Result<Vec<SignedDestruction>, ClientError> {
        let mut certificates = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::GetDestructionCertificatesRequest {
                key: key.to_string(),
                page_size: 0,
                page_token: std::mem::take(&mut page_token),
            };
            let page = self
                .call(Repeat::Safe, &request, |mut stubs, request| async move {
                    stubs.keys.get_destruction_certificates(request).await
                })
                .await?;
            for bytes in &page.certificates {
                let opened = codec::open(bytes);
                certificates
                    .push(opened.map_err(|error| ClientError::malformed(format!("a certificate {error}")))?);
            }
            if page.next_page_token.is_empty() {
                return Ok(certificates);
            }
            if page.next_page_token == request.page_token {
                return Err(ClientError::malformed("the list of certificates does not end"));
            }
            page_token = page.next_page_token;
        }
    }
}
