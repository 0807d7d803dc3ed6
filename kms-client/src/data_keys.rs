//! Registered data keys: kept by the service under a name (docs/data-keys.md).

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use crate::keys::IdempotencyToken;
use crate::recipient::{check, to_proto};
use kms_core::data_key::{DataKeyId, DataKeyState, RotationPeriod};
use kms_core::id::{KeyId, KeyName, KeyRef, KeyVersion, UnixMillis};
use kms_core::recipient::Recipient;
use kms_core::secret::Secret;
use kms_core::spec::KeySpec;
use kms_core::suite::AeadAlgorithm;
use kms_proto::v1;

/// Most data keys that one page of a list asks for.
const PAGE_SIZE: u32 = 200;

/// What a new registered data key shall be.
#[derive(Clone, Debug)]
pub struct CreateDataKey {
    /// Unique among the tenant's registered data keys, for good.
    pub name: KeyName,
    /// The key that it is encrypted under: a name, alias or id without a version.
    pub key: KeyRef,
    /// Its algorithm; `None`: the key's own.
    pub spec: Option<AeadAlgorithm>,
    /// How old the current version becomes before the service makes the next one; by default any age.
    pub rotation_period: RotationPeriod,
}

/// A registered data key's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredDataKey {
    /// Never changes and is never reused.
    pub id: DataKeyId,
    /// Its name.
    pub name: KeyName,
    /// Its algorithm.
    pub spec: AeadAlgorithm,
    /// The key that new versions are encrypted under.
    pub key_id: KeyId,
    /// Gates every version.
    pub state: DataKeyState,
    /// When it came to that state.
    pub state_since: UnixMillis,
    /// How old the current version becomes.
    pub rotation_period: RotationPeriod,
    /// The version that is given when none is named.
    pub current_version: KeyVersion,
    /// All versions; empty in a list.
    pub versions: Vec<RegisteredVersion>,
    /// When it was made.
    pub created: UnixMillis,
    /// The URI of the principal that made it.
    pub creator: String,
    /// Grows with every change.
    pub revision: u64,
}

/// One version of a registered data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredVersion {
    /// From 1.
    pub number: KeyVersion,
    /// Its own state.
    pub state: DataKeyState,
    /// When it came to that state.
    pub state_since: UnixMillis,
    /// When it was made.
    pub created: UnixMillis,
    /// The key that it is encrypted under, or was.
    pub key_id: KeyId,
    /// That key's version.
    pub key_version: KeyVersion,
}

/// Which version of a registered data key was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenVersion {
    /// The data key.
    pub id: DataKeyId,
    /// Keep it beside what is encrypted: it is what [`Client::registered_data_key`] is asked for to decrypt.
    pub version: KeyVersion,
    /// The data key's algorithm.
    pub spec: AeadAlgorithm,
    /// When the version was made.
    pub created: UnixMillis,
}

fn state(number: i32) -> Result<DataKeyState, ClientError> {
    match v1::DataKeyState::try_from(number) {
        Ok(v1::DataKeyState::Enabled) => Ok(DataKeyState::Enabled),
        Ok(v1::DataKeyState::Disabled) => Ok(DataKeyState::Disabled),
        Ok(v1::DataKeyState::Destroyed) => Ok(DataKeyState::Destroyed),
        Ok(v1::DataKeyState::Unspecified) | Err(_) => {
            Err(ClientError::malformed(format!("state {number} of a data key is unknown")))
        }
    }
}

fn id(text: &str) -> Result<DataKeyId, ClientError> {
    convert::key_id(text).map(|id| DataKeyId(id.0))
}

fn version_to_proto(version: Option<KeyVersion>) -> u32 {
    version.map_or(0, KeyVersion::number)
}

impl TryFrom<v1::RegisteredDataKeyVersion> for RegisteredVersion {
    type Error = ClientError;

    fn try_from(version: v1::RegisteredDataKeyVersion) -> Result<Self, ClientError> {
        const WHAT: &str = "a version of a data key";
        Ok(Self {
            number: convert::key_version(version.version)?,
            state: state(version.state)?,
            state_since: convert::time(version.state_since, WHAT)?,
            created: convert::time(version.created, WHAT)?,
            key_id: convert::key_id(&version.key_id)?,
            key_version: convert::key_version(version.key_version)?,
        })
    }
}

impl TryFrom<v1::RegisteredDataKey> for RegisteredDataKey {
    type Error = ClientError;

    fn try_from(data_key: v1::RegisteredDataKey) -> Result<Self, ClientError> {
        const WHAT: &str = "a data key";
        let days = data_key.rotation_period_days;
        Ok(Self {
            id: id(&data_key.data_key_id)?,
            name: convert::key_name(&data_key.name)?,
            spec: convert::data_key_algorithm(data_key.data_key_spec)?,
            key_id: convert::key_id(&data_key.key_id)?,
            state: state(data_key.state)?,
            state_since: convert::time(data_key.state_since, WHAT)?,
            rotation_period: RotationPeriod::from_days(days)
                .ok_or_else(|| ClientError::malformed(format!("a rotation period of {days} days")))?,
            current_version: convert::key_version(data_key.current_version)?,
            versions: data_key.versions.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            created: convert::time(data_key.created, WHAT)?,
            creator: data_key.creator,
            revision: data_key.revision,
        })
    }
}

impl Client {
    /// Makes a registered data key with version 1. Its bytes are not in the answer.
    ///
    /// # Errors
    /// `KEY_EXISTS`, `KEY_NOT_FOUND`, `KEY_USAGE_FORBIDS`, `KEY_STATE_FORBIDS`, `SPEC_NOT_ALLOWED`, `IDEMPOTENCY_CONFLICT`.
    pub async fn create_data_key(
        &self,
        create: &CreateDataKey,
        token: &IdempotencyToken,
    ) -> Result<RegisteredDataKey, ClientError> {
        let request = v1::CreateDataKeyRequest {
            name: create.name.to_string(),
            key: create.key.to_string(),
            data_key_spec: convert::key_spec_to_proto(create.spec.map(KeySpec::from)),
            rotation_period_days: create.rotation_period.days(),
            idempotency_token: token.as_str().to_owned(),
        };
        self.call(Repeat::Safe, &request, |mut stubs, request| async move {
            stubs.data_keys.create_data_key(request).await
        })
        .await?
        .try_into()
    }

    /// Gives the current version of a registered data key, or the one that is named. To encrypt, take the current one and keep its
    /// number; to decrypt, name that.
    ///
    /// # Errors
    /// `DATA_KEY_NOT_FOUND`, `KEY_VERSION_NOT_FOUND`, `DATA_KEY_STATE_FORBIDS`: disabled or destroyed. `KEY_STATE_FORBIDS`: the
    /// key above it does not decrypt, or there can be no next version and the current one is too old.
    pub async fn registered_data_key(
        &self,
        name: &KeyName,
        version: Option<KeyVersion>,
    ) -> Result<(GivenVersion, Secret), ClientError> {
        let (given, plaintext, _) = self.give(name, version, None).await?;
        if plaintext.expose().len() != given.spec.key_len() {
            return Err(ClientError::malformed("the data key has not the length of its algorithm"));
        }
        Ok((given, plaintext))
    }

    /// As [`Client::registered_data_key`], for a data key that only `recipient` sees, beside the service. Gives what the recipient
    /// opens.
    ///
    /// # Errors
    /// `SPEC_NOT_ALLOWED`: the deployment encrypts to no such key. Otherwise as [`Client::registered_data_key`].
    pub async fn registered_data_key_for(
        &self,
        recipient: &Recipient,
        name: &KeyName,
        version: Option<KeyVersion>,
    ) -> Result<(GivenVersion, Vec<u8>), ClientError> {
        let (given, plaintext, sealed) = self.give(name, version, Some(recipient)).await?;
        check(plaintext.expose(), &sealed)?;
        Ok((given, sealed))
    }

    async fn give(
        &self,
        name: &KeyName,
        version: Option<KeyVersion>,
        recipient: Option<&Recipient>,
    ) -> Result<(GivenVersion, Secret, Vec<u8>), ClientError> {
        let request = v1::GetDataKeyRequest {
            name: name.to_string(),
            version: version_to_proto(version),
            recipient: recipient.map(to_proto),
        };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.data_keys.get_data_key(request).await
            })
            .await?;
        let plaintext = Secret::new(answer.plaintext);
        let given = GivenVersion {
            id: id(&answer.data_key_id)?,
            version: convert::key_version(answer.version)?,
            spec: convert::data_key_algorithm(answer.data_key_spec)?,
            created: convert::time(answer.created, "a data key")?,
        };
        if answer.name != name.as_str() || version.is_some_and(|version| version != given.version) {
            return Err(ClientError::malformed("another data key or version than asked"));
        }
        Ok((given, plaintext, answer.recipient_ciphertext))
    }

    /// Describes a registered data key with all its versions.
    ///
    /// # Errors
    /// `DATA_KEY_NOT_FOUND`, `NOT_PERMITTED`.
    pub async fn describe_data_key(&self, name: &KeyName) -> Result<RegisteredDataKey, ClientError> {
        let request = v1::DescribeDataKeyRequest { name: name.to_string() };
        self.call(Repeat::Safe, &request, |mut stubs, request| async move {
            stubs.data_keys.describe_data_key(request).await
        })
        .await?
        .try_into()
    }

    /// Lists the tenant's registered data keys in order of their names, page by page, without versions.
    ///
    /// # Errors
    /// `NOT_PERMITTED`.
    pub async fn list_data_keys(&self) -> Result<Vec<RegisteredDataKey>, ClientError> {
        let mut data_keys = Vec::new();
        let mut page_token = String::new();
        loop {
            let request =
                v1::ListDataKeysRequest { page_size: PAGE_SIZE, page_token: std::mem::take(&mut page_token) };
            let page = self
                .call(Repeat::Safe, &request, |mut stubs, request| async move {
                    stubs.data_keys.list_data_keys(request).await
                })
                .await?;
            for found in page.data_keys {
                data_keys.push(found.try_into()?);
            }
            if page.next_page_token.is_empty() {
                return Ok(data_keys);
            }
            if page.next_page_token == request.page_token {
                return Err(ClientError::malformed("the list of data keys does not end"));
            }
            page_token = page.next_page_token;
        }
    }

    /// Makes the next version. Those before it stay as they are.
    ///
    /// # Errors
    /// `DATA_KEY_NOT_FOUND`, `DATA_KEY_STATE_FORBIDS`, `KEY_STATE_FORBIDS`, `IDEMPOTENCY_CONFLICT`.
    pub async fn rotate_data_key(
        &self,
        name: &KeyName,
        token: &IdempotencyToken,
    ) -> Result<RegisteredDataKey, ClientError> {
        let request =
            v1::RotateDataKeyRequest { name: name.to_string(), idempotency_token: token.as_str().to_owned() };
        self.call(Repeat::Safe, &request, |mut stubs, request| async move {
            stubs.data_keys.rotate_data_key(request).await
        })
        .await?
        .try_into()
    }

    /// Has a registered data key, or one version of it, given to nobody from now on. Not repeated by itself: it carries no token.
    ///
    /// # Errors
    /// `DATA_KEY_NOT_FOUND`, `KEY_VERSION_NOT_FOUND`, `DATA_KEY_STATE_FORBIDS`.
    pub async fn disable_data_key(
        &self,
        name: &KeyName,
        version: Option<KeyVersion>,
    ) -> Result<RegisteredDataKey, ClientError> {
        let request =
            v1::DisableDataKeyRequest { name: name.to_string(), version: version_to_proto(version) };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.data_keys.disable_data_key(request).await
        })
        .await?
        .try_into()
    }

    /// Has it given out again. Not repeated by itself: it carries no token.
    ///
    /// # Errors
    /// As [`Client::disable_data_key`].
    pub async fn enable_data_key(
        &self,
        name: &KeyName,
        version: Option<KeyVersion>,
    ) -> Result<RegisteredDataKey, ClientError> {
        let request = v1::EnableDataKeyRequest { name: name.to_string(), version: version_to_proto(version) };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.data_keys.enable_data_key(request).await
        })
        .await?
        .try_into()
    }

    /// Erases what has been disabled for 7 days: nothing opens then what is encrypted under it. Not repeated by itself: it carries
    /// no token.
    ///
    /// # Errors
    /// As [`Client::disable_data_key`]; the message of `DATA_KEY_STATE_FORBIDS` says when it can be destroyed.
    pub async fn danger_destroy_data_key(
        &self,
        name: &KeyName,
        version: Option<KeyVersion>,
    ) -> Result<RegisteredDataKey, ClientError> {
        let request =
            v1::DestroyDataKeyRequest { name: name.to_string(), version: version_to_proto(version) };
        self.call(Repeat::Never, &request, |mut stubs, request| async move {
            stubs.data_keys.destroy_data_key(request).await
        })
        .await?
        .try_into()
    }
}
