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

/// A request for a data key in the clear.
pub(crate) fn data_key_request(
    key: &KeyRef,
    spec: Option<AeadAlgorithm>,
    context: &EncryptionContext,
) -> v1::GenerateDataKeyRequest {
    v1::GenerateDataKeyRequest {
        key: key.to_string(),
        data_key_spec: convert::key_spec_to_proto(spec.map(KeySpec::from)),
        context: convert::context_to_proto(context),
        without_plaintext: false,
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
        let request = data_key_request(key, spec, context);
        let (plaintext, _, wrapped) = self.generate(request).await?;
        if plaintext.expose().len() != wrapped.spec.key_len() {
            return Err(ClientError::malformed("the data key has not the length of its algorithm"));
        }
        Ok(DataKey { plaintext, wrapped })
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
        let request =
            v1::GenerateDataKeyRequest { without_plaintext: true, ..data_key_request(key, spec, context) };
        Ok(self.generate(request).await?.2)
    }

    /// The data key, the same encrypted to a recipient, and the same encrypted under the key. One of the first two is
    /// empty, or both are.
    pub(crate) async fn generate(
        &self,
        request: v1::GenerateDataKeyRequest,
    ) -> Result<(Secret, Vec<u8>, WrappedDataKey), ClientError> {
        let asked = request.data_key_spec;
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.generate_data_key(request).await
            })
            .await?;
        let plaintext = Secret::new(answer.plaintext);
        let wrapped = WrappedDataKey {
            key_id: convert::key_id(&answer.key_id)?,
            key_version: convert::key_version(answer.key_version)?,
            spec: convert::data_key_algorithm(answer.data_key_spec)?,
            ciphertext: answer.ciphertext,
        };
        if ![0, answer.data_key_spec].contains(&asked) {
            return Err(ClientError::malformed("the data key is of another algorithm than asked"));
        }
        Ok((plaintext, answer.recipient_ciphertext, wrapped))
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
        let opened = self.open_data_key(request).await?.0;
        if opened.plaintext.expose().len() != opened.spec.key_len() {
            return Err(ClientError::malformed("the data key has not the length of its algorithm"));
        }
        Ok(opened)
    }

    /// A data key, and the same encrypted to a recipient. One of the two is empty.
    pub(crate) async fn open_data_key(
        &self,
        request: v1::DecryptDataKeyRequest,
    ) -> Result<(OpenedDataKey, Vec<u8>), ClientError> {
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.decrypt_data_key(request).await
            })
            .await?;
        let plaintext = Secret::new(answer.plaintext);
        let spec = convert::data_key_algorithm(answer.data_key_spec)?;
        let (key_id, key_version) =
            (convert::key_id(&answer.key_id)?, convert::key_version(answer.key_version)?);
        Ok((OpenedDataKey { key_id, key_version, spec, plaintext }, answer.recipient_ciphertext))
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
        let answer = answer?;
        Ok(Ciphertext {
            key_id: convert::key_id(&answer.key_id)?,
            key_version: convert::key_version(answer.key_version)?,
            bytes: answer.ciphertext,
        })
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
        let bytes = Secret::new(answer.plaintext);
        let (key_id, key_version) =
            (convert::key_id(&answer.key_id)?, convert::key_version(answer.key_version)?);
        Ok(Plaintext { key_id, key_version, bytes })
    }
}
