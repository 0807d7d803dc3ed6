//! Keys that were made elsewhere (docs/formats/import.md).

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use crate::keys::{CreateKey, IdempotencyToken, Key};
use kms_core::id::{KeyId, UnixMillis};
use kms_core::import::ImportWrapping;
use kms_core::pair::PairPublicKey;
use kms_core::spec::KeySpec;
use kms_core::suite::CheckValue;
use kms_proto::v1;
use std::time::Duration;

/// What somebody needs to wrap a key for one import. The material itself never passes through this library in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportParameters {
    /// Names the import; used for one key.
    pub import_id: KeyId,
    /// What the material is wrapped to.
    pub public_key: PairPublicKey,
    /// How.
    pub wrapping: ImportWrapping,
    /// Until when it can be used.
    pub expires: UnixMillis,
}

/// What to make of wrapped material.
#[derive(Clone, Debug)]
pub struct ImportKey {
    /// The import whose public key it is wrapped to.
    pub import_id: KeyId,
    /// What the key shall be.
    pub create: CreateKey,
    /// The wrapped material.
    pub wrapped_material: Vec<u8>,
    /// Refuse a key of a cipher with another check value.
    pub check_value: Option<CheckValue>,
}

impl Client {
    /// Has a one-time key pair made to which a key from elsewhere is wrapped. `wrapping_key` is `rsa-3072`, `rsa-4096` or `sm2`, and
    /// by default the one of the suite; `valid` is 1 second to a day, and by default a day. Not repeated by itself: each
    /// call makes a pair.
    ///
    /// # Errors
    /// `SPEC_NOT_ALLOWED`; `OVERLOADED` when 16 imports of the tenant are open.
    pub async fn import_parameters(
        &self,
        wrapping_key: Option<KeySpec>,
        valid: Option<Duration>,
    ) -> Result<ImportParameters, ClientError> {
        let request = v1::GetImportParametersRequest {
            wrapping_key_spec: convert::key_spec_to_proto(wrapping_key),
            valid_seconds: valid
                .map(|valid| u32::try_from(valid.as_secs().max(1)).unwrap_or(u32::MAX))
                .unwrap_or_default(),
        };
        let answer = self
            .call(Repeat::Never, &request, |mut stubs, request| async move {
                stubs.keys.get_import_parameters(request).await
            })
            .await?;
        let malformed = |what| ClientError::malformed(what);
        let wrapping = match v1::ImportWrapping::try_from(answer.wrapping) {
            Ok(v1::ImportWrapping::RsaOaepSha256AesKwp) => ImportWrapping::RsaOaepAesKwp,
            Ok(v1::ImportWrapping::Sm2Envelope) => ImportWrapping::Sm2Envelope,
            _ => return Err(malformed("a wrapping that this client does not know")),
        };
        let public_key = PairPublicKey::from_spki(&answer.public_key)
            .map_err(|_| malformed("a public key that is none"))?;
        if ImportWrapping::of(public_key.algorithm()) != Some(wrapping) {
            return Err(malformed("a public key of another wrapping"));
        }
        Ok(ImportParameters {
            import_id: convert::key_id(&answer.import_id)?,
            public_key,
            wrapping,
            expires: convert::time(answer.expires, "an import")?,
        })
    }

    /// Makes a key of wrapped material. Material that is refused leaves the import as it was.
    ///
    /// # Errors
    /// `IMPORT_NOT_FOUND`: it was used or has expired. `IMPORT_INVALID`: the material is not taken. Otherwise as
    /// [`Client::create_key`].
    pub async fn import_key(&self, import: &ImportKey, token: &IdempotencyToken) -> Result<Key, ClientError> {
        let request = v1::ImportKeyMaterialRequest {
            import_id: import.import_id.to_string(),
            key: Some(import.create.to_proto(token)),
            wrapped_material: import.wrapped_material.clone(),
            check_value: import.check_value.map(|value| value.0.to_vec()).unwrap_or_default(),
        };
        self.call(Repeat::Safe, &request, |mut stubs, request| async move {
            stubs.keys.import_key_material(request).await
        })
        .await?
        .try_into()
    }
}
