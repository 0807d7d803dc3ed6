//! Raw encryption for other systems (docs/formats/raw.md). Every answer leaves after its record is durable.

use super::crypto::check_state;
use super::open::{DECISION_COUNT_MAX, Found, Open, Place, contention};
use super::{Caller, Decrypted, Node, ServiceError, usage};
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::key::KeyState;
use kms_core::policy::Action;
use kms_core::raw::{
    ASSOCIATED_DATA_LEN_MAX, IV_LEN, PLAINTEXT_LEN_MAX, Padding, RawAlgorithm, RawCiphertext, RawInput,
    RawInputError, RawParts,
};
use kms_core::reason::Reason;
use kms_core::secret::Secret;
use kms_hsm::LockedBytes;
use std::sync::Arc;

/// What `RawEncrypt` gives.
#[derive(Debug)]
pub struct RawEncrypted {
    /// The key that was used.
    pub key_id: KeyId,
    /// Its version.
    pub version: KeyVersion,
    /// Random, and made here: nobody can bring one that was used before.
    pub iv: [u8; IV_LEN],
    /// Ciphertext and tag.
    pub sealed: RawCiphertext,
}

/// What `RawDecrypt` asks.
#[derive(Debug)]
pub struct RawDecryptRequest {
    /// The key, with its version where it is not the current one.
    pub key: KeyRef,
    /// How the plaintext was filled up.
    pub padding: Padding,
    /// The initialization vector.
    pub iv: Vec<u8>,
    /// What was authenticated with it.
    pub associated_data: Vec<u8>,
    /// The blocks.
    pub ciphertext: Vec<u8>,
    /// The tag; empty where there is none.
    pub tag: Vec<u8>,
}

impl RawDecryptRequest {
    fn parts(&self) -> RawParts<'_> {
        RawParts {
            padding: self.padding,
            iv: &self.iv,
            associated_data: &self.associated_data,
            ciphertext: &self.ciphertext,
            tag: &self.tag,
        }
    }
}

impl Node {
    /// Encrypts up to 64 KiB without a header, under the key itself.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn raw_encrypt(
        &self,
        caller: &Caller,
        key: &KeyRef,
        plaintext: &Secret,
        associated_data: &[u8],
    ) -> Result<RawEncrypted, ServiceError> {
        let open = self.require_open()?;
        for (field, len, len_max) in [
            ("plaintext", plaintext.expose().len(), PLAINTEXT_LEN_MAX),
            ("additional_authenticated_data", associated_data.len(), ASSOCIATED_DATA_LEN_MAX),
        ] {
            if len > len_max {
                let message = format!("has {len} bytes; at most {len_max} are allowed");
                return Err(ServiceError::field(field, message));
            }
        }
        for _ in 0..DECISION_COUNT_MAX {
            let (found, (number, algorithm)) = open
                .judge(&self.database, &caller.principal.tenant, &key.key, |entry| {
                    let algorithm = usage::raw_that_encrypts(&entry.row)?;
                    let number = key.version.unwrap_or(entry.row.current_version);
                    check_state(entry, number, "encrypt", KeyState::can_encrypt)?;
                    Ok((number, algorithm))
                })
                .await?;
            let material = self.raw_material(&open, caller, &found, number).await?;
            let mut iv = [0; IV_LEN];
            open.random(&mut iv, caller.deadline).await?;
            let sealed = sealed(algorithm, &material, &iv, associated_data, plaintext)?;
            if self.commit_use(&open, caller, &found, number, Action::RawEncrypt).await? {
                return Ok(RawEncrypted { key_id: found.key.row.key_id, version: number, iv, sealed });
            }
        }
        Err(contention())
    }

    /// Decrypts what [`Node::raw_encrypt`] made, or another system with the same key.
    ///
    /// # Errors
    /// `CIPHERTEXT_INVALID` for everything that does not open, whatever is wrong with it; [`ServiceError`] with the
    /// documented reason; [`Node::perform`] records it.
    pub async fn raw_decrypt(
        &self,
        caller: &Caller,
        request: &RawDecryptRequest,
    ) -> Result<Decrypted, ServiceError> {
        let open = self.require_open()?;
        for _ in 0..DECISION_COUNT_MAX {
            // Everything that can be seen to be wrong is, before a sealed key is opened.
            let (found, (number, input)) = open
                .judge(&self.database, &caller.principal.tenant, &request.key.key, |entry| {
                    let algorithm = usage::raw(&entry.row)?;
                    self.check_legacy("key", entry.row.spec)?;
                    let number = request.key.version.unwrap_or(entry.row.current_version);
                    check_state(entry, number, "decrypt", KeyState::can_decrypt)?;
                    Ok((number, RawInput::new(algorithm, request.parts()).map_err(refused)?))
                })
                .await?;
            let material = self.raw_material(&open, caller, &found, number).await?;
            let plaintext = input.open(material.expose()).map_err(|_| invalid())?;
            if self.commit_use(&open, caller, &found, number, Action::RawDecrypt).await? {
                return Ok(Decrypted { key_id: found.key.row.key_id, version: number, plaintext });
            }
        }
        Err(contention())
    }

    async fn raw_material(
        &self,
        open: &Open,
        caller: &Caller,
        found: &Found,
        number: KeyVersion,
    ) -> Result<Arc<LockedBytes>, ServiceError> {
        let row = &found.key.row;
        match open.place(&self.bundle, row, found.key.version(number)?, caller.deadline).await? {
            Place::Wrapped(material) => Ok(material),
            Place::Resident(_) => {
                Err(ServiceError::new(Reason::Internal, "a key that is never resident has an object"))
            }
        }
    }
}

fn sealed(
    algorithm: RawAlgorithm,
    material: &LockedBytes,
    iv: &[u8; IV_LEN],
    associated_data: &[u8],
    plaintext: &Secret,
) -> Result<RawCiphertext, ServiceError> {
    let sealed = algorithm.seal(material.expose(), iv, associated_data, plaintext.expose());
    // What is stored has the length of its specification: it was looked at when it was opened.
    sealed.ok_or_else(|| ServiceError::new(Reason::Internal, "a stored key does not encrypt"))
}

/// One sentence for every cause.
fn invalid() -> ServiceError {
    let message = "the ciphertext is damaged or incomplete, or was made with another key, version, initialization vector or additional authenticated data";
    ServiceError::new(Reason::CiphertextInvalid, message)
}

fn refused(error: RawInputError) -> ServiceError {
    let field = match error {
        RawInputError::InitializationVectorLen { .. } => "initialization_vector",
        RawInputError::TagLen { .. } | RawInputError::TagOfNothing { .. } => "tag",
        RawInputError::AssociatedDataOfNothing { .. } | RawInputError::AssociatedDataLen { .. } => {
            "additional_authenticated_data"
        }
        RawInputError::PaddingFixed { .. } => "padding",
        RawInputError::CiphertextLen { .. } => "ciphertext",
        RawInputError::Blocks => return invalid(),
    };
    ServiceError::field(field, error)
}
