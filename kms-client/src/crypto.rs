//! Use of keys: data keys, and small data encrypted by the service itself.

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use kms_core::context::EncryptionContext;
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::secret::Secret;
use kms_core::spec::KeySpec;
use kms_core::suite::AeadAlgorithm;
use kms_proto::v1;
use zeroize::Zeroize;

/// A data key, in the clear and encrypted.
#[derive(Debug)]
pub struct DataKey {
    /// The key itself. Use it, then drop it.
    pub plaintext: Secret,
    /// What to keep beside the data.
    pub wrapped: WrappedDataKey,
}

/// An encrypted data key and what it was encrypted under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedDataKey {
    /// The key that encrypted it.
    pub key_id: KeyId,
    /// That key's version.
    pub key_version: KeyVersion,
    /// The data key's algorithm.
    pub spec: AeadAlgorithm,
    /// The bytes to keep.
    pub ciphertext: Vec<u8>,
}

/// A data key that the service decrypted.
#[derive(Debug)]
pub struct OpenedDataKey {
    /// The key that had encrypted it.
    pub key_id: KeyId,
    /// That key's version.
    pub key_version: KeyVersion,
    /// The data key's algorithm.
    pub spec: AeadAlgorithm,
    /// The key itself.
    pub plaintext: Secret,
}

/// What [`Client::encrypt`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphertext {
    /// The key that encrypted it.
    pub key_id: KeyId,
    /// That key's version.
    pub key_version: KeyVersion,
    /// The bytes to keep.
    pub bytes: Vec<u8>,
}

/// What [`Client::decrypt`] opened.
#[derive(Debug)]
pub struct Plaintext {
    /// The key that had encrypted it.
    pub key_id: KeyId,
    /// That key's version.
    pub key_version: KeyVersion,
    /// The data.
    pub bytes: Secret,
}

/// What is to be encrypted again.
#[derive(Clone, Copy, Debug)]
pub struct ReEncrypt<'a> {
    /// Of [`Client::encrypt`] or a data key's.
    pub ciphertext: &'a [u8],
    /// The context that it was made with.
    pub context: &'a EncryptionContext,
    /// The key that it is expected to be under.
    pub expected_key: Option<&'a KeyRef>,
    /// `None`: the key of the ciphertext at its current version.
    pub new_key: Option<&'a KeyRef>,
    /// The whole context of the new ciphertext.
    pub new_context: &'a EncryptionContext,
}

/// What [`Client::reencrypt`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReEncrypted {
    /// The new ciphertext, its key and version. What it holds has not changed: a data key, or data.
    pub ciphertext: Ciphertext,
    /// The key that had encrypted the old one.
    pub old_key_id: KeyId,
    /// That key's version.
    pub old_key_version: KeyVersion,
}

impl ReEncrypt<'_> {
    pub(crate) fn to_proto(self) -> v1::ReEncryptRequest {
        v1::ReEncryptRequest {
            ciphertext: self.ciphertext.to_vec(),
            context: convert::context_to_proto(self.context),
            expected_key: self.expected_key.map(KeyRef::to_string).unwrap_or_default(),
            new_key: self.new_key.map(KeyRef::to_string).unwrap_or_default(),
            new_context: convert::context_to_proto(self.new_context),
        }
    }
}

impl ReEncrypted {
    pub(crate) fn from_answer(answer: v1::ReEncryptResponse) -> Result<Self, ClientError> {
        let (key_id, key_version) =
            (convert::key_id(&answer.key_id)?, convert::key_version(answer.key_version)?);
        Ok(Self {
            ciphertext: Ciphertext { key_id, key_version, bytes: answer.ciphertext },
            old_key_id: convert::key_id(&answer.old_key_id)?,
            old_key_version: convert::key_version(answer.old_key_version)?,
        })
    }
}

/// The data key of an answer, empty where it was declined or went to a recipient, for a request of this algorithm.
pub(crate) fn made(
    answer: v1::GenerateDataKeyResponse,
    spec: Option<AeadAlgorithm>,
) -> Result<(Secret, WrappedDataKey), ClientError> {
    let plaintext = Secret::new(answer.plaintext);
    let wrapped = WrappedDataKey {
        key_id: convert::key_id(&answer.key_id)?,
        key_version: convert::key_version(answer.key_version)?,
        spec: convert::data_key_algorithm(answer.data_key_spec)?,
        ciphertext: answer.ciphertext,
    };
    if spec.is_some_and(|spec| spec != wrapped.spec) {
        return Err(ClientError::malformed("the data key is of another algorithm than asked"));
    }
    Ok((plaintext, wrapped))
}

impl DataKey {
    pub(crate) fn from_answer(
        answer: v1::GenerateDataKeyResponse,
        spec: Option<AeadAlgorithm>,
    ) -> Result<Self, ClientError> {
        let (plaintext, wrapped) = made(answer, spec)?;
        if plaintext.expose().len() != wrapped.spec.key_len() {
            return Err(ClientError::malformed("the data key has not the length of its algorithm"));
        }
        Ok(Self { plaintext, wrapped })
    }
}

impl WrappedDataKey {
    pub(crate) fn from_answer(
        answer: v1::GenerateDataKeyResponse,
        spec: Option<AeadAlgorithm>,
    ) -> Result<Self, ClientError> {
        Ok(made(answer, spec)?.1)
    }
}

impl OpenedDataKey {
    pub(crate) fn from_answer(answer: v1::DecryptDataKeyResponse) -> Result<Self, ClientError> {
        let plaintext = Secret::new(answer.plaintext);
        let spec = convert::data_key_algorithm(answer.data_key_spec)?;
        if plaintext.expose().len() != spec.key_len() {
            return Err(ClientError::malformed("the data key has not the length of its algorithm"));
        }
        let (key_id, key_version) =
            (convert::key_id(&answer.key_id)?, convert::key_version(answer.key_version)?);
        Ok(Self { key_id, key_version, spec, plaintext })
    }
}

impl Ciphertext {
    pub(crate) fn from_answer(answer: v1::EncryptResponse) -> Result<Self, ClientError> {
        Ok(Self {
            key_id: convert::key_id(&answer.key_id)?,
            key_version: convert::key_version(answer.key_version)?,
            bytes: answer.ciphertext,
        })
    }
}

impl Plaintext {
    pub(crate) fn from_answer(answer: v1::DecryptResponse) -> Result<Self, ClientError> {
        let bytes = Secret::new(answer.plaintext);
        let (key_id, key_version) =
            (convert::key_id(&answer.key_id)?, convert::key_version(answer.key_version)?);
        Ok(Self { key_id, key_version, bytes })
    }
}

pub(crate) fn generate_request(
    key: &KeyRef,
    spec: Option<AeadAlgorithm>,
    context: &EncryptionContext,
    without_plaintext: bool,
) -> v1::GenerateDataKeyRequest {
    v1::GenerateDataKeyRequest {
        key: key.to_string(),
        data_key_spec: convert::key_spec_to_proto(spec.map(KeySpec::from)),
        context: convert::context_to_proto(context),
        without_plaintext,
        recipient: None,
    }
}

impl Client {
    /// Makes a data key. `spec` is by default that of the key. Nothing is stored by the service.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`, `SEALED`, `NOT_PERMITTED`.
    pub async fn generate_data_key(
        &self,
        key: &KeyRef,
        spec: Option<AeadAlgorithm>,
        context: &EncryptionContext,
    ) -> Result<DataKey, ClientError> {
        DataKey::from_answer(self.generate(generate_request(key, spec, context, false)).await?, spec)
    }

    /// Makes a data key that the caller does not see: somebody else will use it.
    ///
    /// # Errors
    /// As [`Client::generate_data_key`].
    pub async fn generate_wrapped_data_key(
        &self,
        key: &KeyRef,
        spec: Option<AeadAlgorithm>,
        context: &EncryptionContext,
    ) -> Result<WrappedDataKey, ClientError> {
        WrappedDataKey::from_answer(self.generate(generate_request(key, spec, context, true)).await?, spec)
    }

    pub(crate) async fn generate(
        &self,
        request: v1::GenerateDataKeyRequest,
    ) -> Result<v1::GenerateDataKeyResponse, ClientError> {
        self.call(Repeat::Safe, &request, |mut stubs, request| async move {
            stubs.crypto.generate_data_key(request).await
        })
        .await
    }

    /// Decrypts a data key.
    ///
    /// # Errors
    /// `CIPHERTEXT_INVALID`: damaged, or another key, tenant or context. `KEY_MISMATCH`: not `expected_key`.
    pub async fn decrypt_data_key(
        &self,
        ciphertext: &[u8],
        context: &EncryptionContext,
        expected_key: Option<&KeyRef>,
    ) -> Result<OpenedDataKey, ClientError> {
        let request = v1::DecryptDataKeyRequest {
            ciphertext: ciphertext.to_vec(),
            context: convert::context_to_proto(context),
            expected_key: expected_key.map(KeyRef::to_string).unwrap_or_default(),
            recipient: None,
        };
        OpenedDataKey::from_answer(self.open_data_key(request).await?)
    }

    pub(crate) async fn open_data_key(
        &self,
        request: v1::DecryptDataKeyRequest,
    ) -> Result<v1::DecryptDataKeyResponse, ClientError> {
        self.call(Repeat::Safe, &request, |mut stubs, request| async move {
            stubs.crypto.decrypt_data_key(request).await
        })
        .await
    }

    /// Encrypts up to 64 KiB in the service. Larger data: a data key and [`crate::file`].
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_STATE_FORBIDS`, `FIELD_INVALID` (too long), `SEALED`, `NOT_PERMITTED`.
    pub async fn encrypt(
        &self,
        key: &KeyRef,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Ciphertext, ClientError> {
        let mut request = v1::EncryptRequest {
            key: key.to_string(),
            plaintext: plaintext.to_vec(),
            context: convert::context_to_proto(context),
        };
        let answer =
            self.call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.encrypt(request).await
            })
            .await;
        request.plaintext.zeroize();
        Ciphertext::from_answer(answer?)
    }

    /// Decrypts what [`Client::encrypt`] made.
    ///
    /// # Errors
    /// As [`Client::decrypt_data_key`].
    pub async fn decrypt(
        &self,
        ciphertext: &[u8],
        context: &EncryptionContext,
        expected_key: Option<&KeyRef>,
    ) -> Result<Plaintext, ClientError> {
        let request = v1::DecryptRequest {
            ciphertext: ciphertext.to_vec(),
            context: convert::context_to_proto(context),
            expected_key: expected_key.map(KeyRef::to_string).unwrap_or_default(),
        };
        let answer =
            self.call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.decrypt(request).await
            })
            .await?;
        Plaintext::from_answer(answer)
    }

    /// Encrypts again, under another key, version or context, what [`Client::encrypt`] made or a data key. The plaintext
    /// stays in the service.
    ///
    /// # Errors
    /// As [`Client::decrypt_data_key`] about the old ciphertext, and as [`Client::encrypt`] about the new one.
    pub async fn reencrypt(&self, request: &ReEncrypt<'_>) -> Result<ReEncrypted, ClientError> {
        let answer = self
            .call(Repeat::Safe, &request.to_proto(), |mut stubs, request| async move {
                stubs.crypto.re_encrypt(request).await
            })
            .await?;
        ReEncrypted::from_answer(answer)
    }
}
