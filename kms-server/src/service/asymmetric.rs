//! Encryption to named key pairs, and decryption. Every answer leaves after its record is durable.

use super::crypto::{check_state, invalid};
use super::error::opening;
use super::open::{DECISION_COUNT_MAX, Found, Open, Place, contention};
use super::sign::public_key;
use super::{Caller, Decrypted, Encrypted, Node, ServiceError, blocking, usage};
use crate::pairs::{PairError, PrivatePair};
use kms_core::envelope::CiphertextInvalid;
use kms_core::id::{KeyRef, KeyVersion};
use kms_core::key::KeyState;
use kms_core::pair::{EncryptionAlgorithm, PairPublicKey, PairUsage};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_core::secret::Secret;
use kms_hsm::{EncryptError, encrypt_to};
use std::sync::Arc;
use std::time::Instant;

/// What is asked of a pair, and which states answer.
struct Wanted {
    action: Action,
    verb: &'static str,
    may: fn(KeyState) -> bool,
}

impl Node {
    /// Encrypts to the public half of a key pair, as anybody can who has it.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn asymmetric_encrypt(
        &self,
        caller: &Caller,
        key: &KeyRef,
        plaintext: &Secret,
    ) -> Result<Encrypted, ServiceError> {
        let open = self.require_open()?;
        let wanted =
            Wanted { action: Action::AsymmetricEncrypt, verb: "encrypt", may: KeyState::can_encrypt };
        for _ in 0..DECISION_COUNT_MAX {
            let (found, number, (_, public)) = self.pair_that_decrypts(&open, caller, key, &wanted).await?;
            let copy = Secret::new(plaintext.expose().to_vec());
            // A multiplication on the curve, or a power.
            let encrypted = blocking(move || encrypt_to(&public, copy.expose())).await;
            let ciphertext = encrypted.map_err(|error| match error {
                EncryptError::PlaintextLen { .. } => ServiceError::field("plaintext", error),
                EncryptError::OtherPair { .. } | EncryptError::Library => {
                    ServiceError::new(Reason::Internal, error.to_string())
                }
            })?;
            if self.commit_use(&open, caller, &found, number, wanted.action).await? {
                return Ok(Encrypted { key_id: found.key.row.key_id, version: number, ciphertext });
            }
        }
        Err(contention())
    }

    /// Decrypts what was encrypted to the public half of a key pair, here or by anybody.
    ///
    /// # Errors
    /// `CIPHERTEXT_INVALID` for anything else, whatever is wrong with it; [`ServiceError`] with the documented reason;
    /// [`Node::perform`] records it.
    pub async fn asymmetric_decrypt(
        &self,
        caller: &Caller,
        key: &KeyRef,
        ciphertext: &[u8],
    ) -> Result<Decrypted, ServiceError> {
        let open = self.require_open()?;
        let wanted =
            Wanted { action: Action::AsymmetricDecrypt, verb: "decrypt", may: KeyState::can_decrypt };
        for _ in 0..DECISION_COUNT_MAX {
            let (found, number, pair) = self.pair_that_decrypts(&open, caller, key, &wanted).await?;
            // What can be seen to be wrong costs no HSM call, and opens no sealed key.
            pair.0.check_ciphertext(&pair.1, ciphertext).map_err(|_| invalid(CiphertextInvalid))?;
            let plaintext = self.opened_by(&open, caller, (&found, number), pair, ciphertext).await?;
            if self.commit_use(&open, caller, &found, number, wanted.action).await? {
                return Ok(Decrypted { key_id: found.key.row.key_id, version: number, plaintext });
            }
        }
        Err(contention())
    }

    /// The key and version for a caller, in a state that allows it, with its public half.
    async fn pair_that_decrypts(
        &self,
        open: &Open,
        caller: &Caller,
        key: &KeyRef,
        wanted: &Wanted,
    ) -> Result<(Found, KeyVersion, (EncryptionAlgorithm, PairPublicKey)), ServiceError> {
        let judged = open.judge(&self.database, &caller.principal.tenant, &key.key, |entry| {
            let algorithm = usage::decrypting_pair(&entry.row)?;
            let number = key.version.unwrap_or(entry.row.current_version);
            check_state(entry, number, wanted.verb, wanted.may)?;
            Ok((number, (algorithm, public_key(entry, number)?.clone())))
        });
        judged.await.map(|(found, (number, pair))| (found, number, pair))
    }

    async fn opened_by(
        &self,
        open: &Arc<Open>,
        caller: &Caller,
        (found, number): (&Found, KeyVersion),
        (algorithm, public): (EncryptionAlgorithm, PairPublicKey),
        ciphertext: &[u8],
    ) -> Result<Secret, ServiceError> {
        let version = found.key.version(number)?;
        let place = open.place(&self.bundle, &found.key.row, version, caller.deadline).await?;
        open.decrypt_with_pair(place, (algorithm, public), ciphertext, caller.deadline).await.inspect_err(
            |error| {
                if error.reason == Reason::Internal {
                    let (key, version) = (found.key.row.key_id, number);
                    tracing::error!(%key, %version, "a wrapped key pair does not decrypt");
                }
            },
        )
    }
}

impl Open {
    /// Decrypts with the private half of a pair, where it is. The ciphertext has been looked at.
    ///
    /// # Errors
    /// `CIPHERTEXT_INVALID`; those of the HSM; `INTERNAL` when the pair itself will not do.
    pub(super) async fn decrypt_with_pair(
        self: &Arc<Self>,
        place: Place,
        (algorithm, public): (EncryptionAlgorithm, PairPublicKey),
        ciphertext: &[u8],
        deadline: Instant,
    ) -> Result<Secret, ServiceError> {
        let ciphertext = ciphertext.to_vec();
        match place {
            Place::Resident(object) => {
                let work = move |session: &mut dyn kms_hsm::HsmSession| {
                    session.decrypt_with(object, &public, algorithm, &ciphertext)
                };
                self.hsm("decrypt_with", deadline, work).await.map_err(opening)
            }
            Place::Wrapped(material) => {
                // RSA takes milliseconds.
                let opened = blocking(move || {
                    PrivatePair::open(PairUsage::Decrypt, &public, material.expose())?
                        .decrypt(algorithm, &ciphertext)
                })
                .await;
                opened.map_err(|error| match error {
                    PairError::CiphertextInvalid => invalid(CiphertextInvalid),
                    error => {
                        tracing::error!(%error, "a stored key pair does not decrypt");
                        let message = "a stored key pair does not decrypt; see the server's log";
                        ServiceError::new(Reason::Internal, message)
                    }
                })
            }
        }
    }
}
