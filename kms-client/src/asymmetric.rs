//! Encryption to a key pair of the service, and decryption.

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::crypto::{Ciphertext, Plaintext};
use crate::error::ClientError;
use kms_core::id::KeyRef;
use kms_core::secret::Secret;
use kms_proto::v1;
use zeroize::Zeroize;

impl Ciphertext {
    pub(crate) fn from_asymmetric(answer: v1::AsymmetricEncryptResponse) -> Result<Self, ClientError> {
        Ok(Self {
            key_id: convert::key_id(&answer.key_id)?,
            key_version: convert::key_version(answer.key_version)?,
            bytes: answer.ciphertext,
        })
    }
}

impl Plaintext {
    pub(crate) fn from_asymmetric(answer: v1::AsymmetricDecryptResponse) -> Result<Self, ClientError> {
        let bytes = Secret::new(answer.plaintext);
        let (key_id, key_version) =
            (convert::key_id(&answer.key_id)?, convert::key_version(answer.key_version)?);
        Ok(Self { key_id, key_version, bytes })
    }
}

impl Client {
    /// Encrypts a few bytes (SM2: 1 to 1,024; RSA: up to 190, 318 or 446) to the public half of a key pair for
    /// `ENCRYPT_DECRYPT`. Whoever has [`Client::public_key`] can do it without the service. The ciphertext names no key and
    /// authenticates nothing.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_USAGE_FORBIDS`, `KEY_STATE_FORBIDS`, `FIELD_INVALID` (length), `SEALED`, `NOT_PERMITTED`.
    pub async fn asymmetric_encrypt(
        &self,
        key: &KeyRef,
        plaintext: &[u8],
    ) -> Result<Ciphertext, ClientError> {
        let mut request =
            v1::AsymmetricEncryptRequest { key: key.to_string(), plaintext: plaintext.to_vec() };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.asymmetric_encrypt(request).await
            })
            .await;
        request.plaintext.zeroize();
        Ciphertext::from_asymmetric(answer?)
    }

    /// Decrypts what was encrypted to the public half of a key pair: for another version than the current one name it, `KEY@VERSION`.
    ///
    /// # Errors
    /// `CIPHERTEXT_INVALID`, `KEY_NOT_FOUND`, `KEY_USAGE_FORBIDS`, `KEY_STATE_FORBIDS`, `SEALED`, `NOT_PERMITTED`.
    pub async fn asymmetric_decrypt(
        &self,
        key: &KeyRef,
        ciphertext: &[u8],
    ) -> Result<Plaintext, ClientError> {
        let request = v1::AsymmetricDecryptRequest { key: key.to_string(), ciphertext: ciphertext.to_vec() };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.asymmetric_decrypt(request).await
            })
            .await?;
        Plaintext::from_asymmetric(answer)
    }
}
