//! Raw encryption for other systems, and decryption of what they encrypted.

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::crypto::Plaintext;
use crate::error::ClientError;
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::raw::Padding;
use kms_core::secret::Secret;
use kms_proto::v1;
use zeroize::Zeroize;

/// What [`Client::raw_encrypt`] made. Nothing in it names the key: keep its version with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEncrypted {
    /// The key that encrypted.
    pub key_id: KeyId,
    /// That key's version: what decrypts it when the key was rotated since.
    pub key_version: KeyVersion,
    /// Whole blocks.
    pub ciphertext: Vec<u8>,
    /// Random, and made by the service.
    pub initialization_vector: Vec<u8>,
    /// Over the additional authenticated data, the initialization vector and the ciphertext.
    pub tag: Vec<u8>,
}

/// What shall be decrypted (docs/formats/raw.md).
#[derive(Clone, Copy, Debug)]
pub struct RawDecrypt<'a> {
    /// Whole blocks, at most 65,552 bytes.
    pub ciphertext: &'a [u8],
    /// 16 bytes; 8 with 3DES.
    pub initialization_vector: &'a [u8],
    /// The whole tag; empty with 3DES.
    pub tag: &'a [u8],
    /// As it was for the encryption; empty with 3DES.
    pub additional_authenticated_data: &'a [u8],
    /// [`Padding::None`] with 3DES alone.
    pub padding: Padding,
}

impl RawEncrypted {
    fn from_answer(answer: v1::RawEncryptResponse) -> Result<Self, ClientError> {
        Ok(Self {
            key_id: convert::key_id(&answer.key_id)?,
            key_version: convert::key_version(answer.key_version)?,
            ciphertext: answer.ciphertext,
            initialization_vector: answer.initialization_vector,
            tag: answer.tag,
        })
    }
}

impl Plaintext {
    fn from_raw(answer: v1::RawDecryptResponse) -> Result<Self, ClientError> {
        let bytes = Secret::new(answer.plaintext);
        let (key_id, key_version) =
            (convert::key_id(&answer.key_id)?, convert::key_version(answer.key_version)?);
        Ok(Self { key_id, key_version, bytes })
    }
}

impl Client {
    /// Encrypts up to 64 KiB for another system, in CBC with a MAC. Nothing is bound to the ciphertext but the additional
    /// authenticated data (up to 64 KiB). For what this service alone reads: [`Client::encrypt`] or a data key.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_USAGE_FORBIDS`, `KEY_STATE_FORBIDS`, `FIELD_INVALID` (too long), `SEALED`, `NOT_PERMITTED`.
    pub async fn raw_encrypt(
        &self,
        key: &KeyRef,
        plaintext: &[u8],
        additional_authenticated_data: &[u8],
    ) -> Result<RawEncrypted, ClientError> {
        let mut request = v1::RawEncryptRequest {
            key: key.to_string(),
            plaintext: plaintext.to_vec(),
            additional_authenticated_data: additional_authenticated_data.to_vec(),
        };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.raw_encrypt(request).await
            })
            .await;
        request.plaintext.zeroize();
        RawEncrypted::from_answer(answer?)
    }

    /// Decrypts what [`Client::raw_encrypt`] made, or another system under the same key: for another version than the current
    /// one name it, `KEY@VERSION`. **What 3DES decrypts is not authenticated**: anybody can have changed it.
    ///
    /// # Errors
    /// `CIPHERTEXT_INVALID`, `FIELD_INVALID` (a length), `KEY_NOT_FOUND`, `KEY_USAGE_FORBIDS`, `KEY_STATE_FORBIDS`,
    /// `SPEC_NOT_ALLOWED` (3DES is off), `SEALED`, `NOT_PERMITTED`.
    pub async fn raw_decrypt(&self, key: &KeyRef, asked: &RawDecrypt<'_>) -> Result<Plaintext, ClientError> {
        let request = v1::RawDecryptRequest {
            key: key.to_string(),
            ciphertext: asked.ciphertext.to_vec(),
            initialization_vector: asked.initialization_vector.to_vec(),
            tag: asked.tag.to_vec(),
            additional_authenticated_data: asked.additional_authenticated_data.to_vec(),
            padding: match asked.padding {
                Padding::Pkcs7 => v1::RawPadding::Pkcs7,
                Padding::None => v1::RawPadding::None,
            }
            .into(),
        };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.raw_decrypt(request).await
            })
            .await?;
        Plaintext::from_raw(answer)
    }
}
