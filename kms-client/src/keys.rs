//! Keys: names, versions and states.

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use kms_core::id::{KeyId, KeyName, KeyRef, KeyVersion, UnixMillis};
use kms_core::key::{Cryptoperiod, KeyState};
use kms_core::spec::{KeySpec, Protection};
use kms_proto::v1;
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
    /// When it may be used; both dates lie in the future.
    pub period: Cryptoperiod,
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
}

/// One version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// From 1.
    pub number: KeyVersion,
    /// Its own state.
    pub state: KeyState,
    /// When it was made.
    pub created: UnixMillis,
}

impl TryFrom<v1::Key> for Key {
    type Error = ClientError;

    fn try_from(key: v1::Key) -> Result<Self, ClientError> {
        let version = |version: v1::KeyVersion| {
            Ok(Version {
                number: convert::key_version(version.version)?,
                state: convert::key_state(version.state)?,
                created: convert::time(version.created, "a key version")?,
            })
        };
        Ok(Self {
            id: convert::key_id(&key.key_id)?,
            name: KeyName::parse(&key.name)
                .map_err(|error| ClientError::malformed(format!("key name {:?} {error}", key.name)))?,
            spec: convert::key_spec(key.spec)?,
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
        })
    }
}

impl Client {
    /// Makes a key with version 1.
    ///
    /// # Errors
    /// `KEY_EXISTS`: the name is taken. `SPEC_UNSUPPORTED`: the token cannot. `IDEMPOTENCY_CONFLICT`.
    pub async fn create_key(&self, create: &CreateKey, token: &IdempotencyToken) -> Result<Key, ClientError> {
        let request = v1::CreateKeyRequest {
            name: create.name.to_string(),
            spec: convert::key_spec_to_proto(Some(create.spec)).into(),
            protection: convert::protection_to_proto(create.protection).into(),
            idempotency_token: token.0.clone(),
            activates: create.period.activates.map(convert::time_to_proto),
            expires: create.period.expires.map(convert::time_to_proto),
        };
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

    /// Lists the tenant's keys in order of their names, page by page.
    ///
    /// # Errors
    /// `NOT_PERMITTED`.
    pub async fn list_keys(&self) -> Result<Vec<Key>, ClientError> {
        let mut keys = Vec::new();
        let mut page_token = String::new();
        loop {
            let request =
                v1::ListKeysRequest { page_size: PAGE_SIZE, page_token: std::mem::take(&mut page_token) };
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
}
