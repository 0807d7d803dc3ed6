//! Data keys that only their recipient sees (docs/formats/recipient.md).

use crate::connect::Client;
use crate::convert;
use crate::crypto::{WrappedDataKey, generate_request, made};
use crate::error::ClientError;
use kms_core::context::EncryptionContext;
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::recipient::Recipient;
use kms_core::secret::Secret;
use kms_core::suite::AeadAlgorithm;
use kms_proto::v1;

/// A data key that this program does not see: encrypted to its recipient, and under the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyForRecipient {
    /// What the recipient opens with its private key.
    pub recipient_ciphertext: Vec<u8>,
    /// What to keep beside the data.
    pub wrapped: WrappedDataKey,
}

/// A data key that the service decrypted and encrypted to its recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedForRecipient {
    /// The key that had encrypted it.
    pub key_id: KeyId,
    /// That key's version.
    pub key_version: KeyVersion,
    /// The data key's algorithm.
    pub spec: AeadAlgorithm,
    /// What the recipient opens with its private key.
    pub recipient_ciphertext: Vec<u8>,
}

pub(crate) fn to_proto(recipient: &Recipient) -> v1::Recipient {
    v1::Recipient { public_key: recipient.key().to_spki(), algorithm: recipient.algorithm().number().into() }
}

/// An answer to somebody else holds something for them, and no plaintext.
///
/// A service from before recipients knows nothing of the field and answers in the clear.
pub(crate) fn check(plaintext: &[u8], recipient_ciphertext: &[u8]) -> Result<(), ClientError> {
    match (plaintext, recipient_ciphertext) {
        ([], [_, ..]) => Ok(()),
        _ => Err(ClientError::malformed(
            "the service did not encrypt to the recipient alone; it may be an older one",
        )),
    }
}

impl Client {
    /// Makes a data key that only `recipient` sees, beside the service. `spec` is by default that of the key.
    ///
    /// # Errors
    /// `SPEC_NOT_ALLOWED`: the deployment encrypts to no such key. Otherwise as [`Client::generate_data_key`].
    pub async fn generate_data_key_for(
        &self,
        recipient: &Recipient,
        key: &KeyRef,
        spec: Option<AeadAlgorithm>,
        context: &EncryptionContext,
    ) -> Result<DataKeyForRecipient, ClientError> {
        let request = v1::GenerateDataKeyRequest {
            recipient: Some(to_proto(recipient)),
            ..generate_request(key, spec, context, false)
        };
        let mut answer = self.generate(request).await?;
        let recipient_ciphertext = std::mem::take(&mut answer.recipient_ciphertext);
        let (plaintext, wrapped) = made(answer, spec)?;
        check(plaintext.expose(), &recipient_ciphertext)?;
        Ok(DataKeyForRecipient { recipient_ciphertext, wrapped })
    }

    /// Has a data key decrypted that only `recipient` sees, beside the service.
    ///
    /// # Errors
    /// `SPEC_NOT_ALLOWED`: the deployment encrypts to no such key. Otherwise as [`Client::decrypt_data_key`].
    pub async fn decrypt_data_key_for(
        &self,
        recipient: &Recipient,
        ciphertext: &[u8],
        context: &EncryptionContext,
        expected_key: Option<&KeyRef>,
    ) -> Result<OpenedForRecipient, ClientError> {
        let request = v1::DecryptDataKeyRequest {
            ciphertext: ciphertext.to_vec(),
            context: convert::context_to_proto(context),
            expected_key: expected_key.map(KeyRef::to_string).unwrap_or_default(),
            recipient: Some(to_proto(recipient)),
        };
        let answer = self.open_data_key(request).await?;
        let plaintext = Secret::new(answer.plaintext);
        check(plaintext.expose(), &answer.recipient_ciphertext)?;
        Ok(OpenedForRecipient {
            key_id: convert::key_id(&answer.key_id)?,
            key_version: convert::key_version(answer.key_version)?,
            spec: convert::data_key_algorithm(answer.data_key_spec)?,
            recipient_ciphertext: answer.recipient_ciphertext,
        })
    }
}
