//! MACs under named keys, and random bytes of the HSM.

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::secret::Secret;
use kms_proto::v1;
use zeroize::Zeroize;

/// What [`Client::generate_mac`] made.
#[derive(Debug)]
pub struct Mac {
    /// The key that made it.
    pub key_id: KeyId,
    /// That key's version: what verifies it when the key was rotated since.
    pub key_version: KeyVersion,
    /// The whole MAC. Secret where keys are derived with it.
    pub bytes: Secret,
}

/// What [`Client::verify_mac`] confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedMac {
    /// The key that made the MAC.
    pub key_id: KeyId,
    /// That key's version.
    pub key_version: KeyVersion,
}

impl Mac {
    pub(crate) fn from_answer(answer: v1::GenerateMacResponse) -> Result<Self, ClientError> {
        let bytes = Secret::new(answer.mac);
        let (key_id, key_version) =
            (convert::key_id(&answer.key_id)?, convert::key_version(answer.key_version)?);
        Ok(Self { key_id, key_version, bytes })
    }
}

impl VerifiedMac {
    pub(crate) fn from_answer(answer: v1::VerifyMacResponse) -> Result<Self, ClientError> {
        let (key_id, key_version) =
            (convert::key_id(&answer.key_id)?, convert::key_version(answer.key_version)?);
        Ok(Self { key_id, key_version })
    }
}

impl Client {
    /// Makes the MAC of up to 64 KiB. A longer message: the MAC of its hash.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_USAGE_FORBIDS`, `KEY_STATE_FORBIDS`, `FIELD_INVALID` (too long), `SEALED`, `NOT_PERMITTED`.
    pub async fn generate_mac(&self, key: &KeyRef, message: &[u8]) -> Result<Mac, ClientError> {
        let mut request = v1::GenerateMacRequest { key: key.to_string(), message: message.to_vec() };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.generate_mac(request).await
            })
            .await;
        request.message.zeroize();
        Mac::from_answer(answer?)
    }

    /// Compares a MAC with that of the message. `Ok` says that it is the right one.
    ///
    /// # Errors
    /// `MAC_INVALID`: another message, key, version or MAC. Otherwise as [`Client::generate_mac`].
    pub async fn verify_mac(
        &self,
        key: &KeyRef,
        message: &[u8],
        mac: &[u8],
    ) -> Result<VerifiedMac, ClientError> {
        let mut request =
            v1::VerifyMacRequest { key: key.to_string(), message: message.to_vec(), mac: mac.to_vec() };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.verify_mac(request).await
            })
            .await;
        request.message.zeroize();
        request.mac.zeroize();
        VerifiedMac::from_answer(answer?)
    }

    /// 1 to 1,024 random bytes of the HSM.
    ///
    /// # Errors
    /// `FIELD_INVALID` for another number, `HSM_UNAVAILABLE`, `SEALED`, `NOT_PERMITTED`.
    pub async fn generate_random(&self, byte_count: u32) -> Result<Secret, ClientError> {
        let request = v1::GenerateRandomRequest { byte_count };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.generate_random(request).await
            })
            .await?;
        let random = Secret::new(answer.random);
        if random.expose().len() != byte_count as usize {
            return Err(ClientError::malformed("there are not as many random bytes as were asked for"));
        }
        Ok(random)
    }
}
