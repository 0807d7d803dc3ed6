//! In which form a secret leaves: in the clear, not at all, or encrypted to a recipient (docs/formats/recipient.md).

use super::crypto::PlainDataKey;
use super::{Node, ServiceError};
use crate::pairs::encrypt_to;
use crate::random::system_rng;
use kms_core::asymmetric::PublicKey;
use kms_core::audit::Record;
use kms_core::context::EncryptionContext;
use kms_core::envelope::Purpose;
use kms_core::id::{KeyId, KeyVersion};
use kms_core::reason::Reason;
use kms_core::recipient::{Recipient, RecipientAlgorithm, RecipientBinding};
use kms_core::secret::{Secret, leaving_no_stack};
use kms_core::suite::{AeadAlgorithm, Suite};

/// In which form a secret leaves, beside the ciphertext under its key.
#[derive(Debug)]
pub enum Delivery {
    /// In the clear.
    Plain,
    /// Not at all.
    Withheld,
    /// Encrypted to a recipient, and in no other form.
    To(Recipient),
}

impl Delivery {
    /// Whom it is encrypted to.
    pub fn recipient(&self) -> Option<&Recipient> {
        match self {
            Delivery::To(recipient) => Some(recipient),
            Delivery::Plain | Delivery::Withheld => None,
        }
    }

    /// The secret in the clear and encrypted to the recipient: one of the two, or neither.
    ///
    /// # Errors
    /// As [`encrypt`].
    pub(super) fn apply(
        &self,
        binding: &RecipientBinding<'_>,
        secret: Secret,
    ) -> Result<(Option<Secret>, Option<Vec<u8>>), ServiceError> {
        match self {
            Delivery::Plain => Ok((Some(secret), None)),
            Delivery::Withheld => Ok((None, None)),
            Delivery::To(recipient) => Ok((None, Some(encrypt(recipient, binding, &secret)?))),
        }
    }
}

/// The bytes that only the recipient opens.
///
/// # Errors
/// `INTERNAL`: the library did not do it. What can be wrong about a recipient was looked at before.
fn encrypt(
    recipient: &Recipient,
    binding: &RecipientBinding<'_>,
    secret: &Secret,
) -> Result<Vec<u8>, ServiceError> {
    let sealed = match recipient.algorithm() {
        RecipientAlgorithm::HpkeP256 => {
            let key = recipient.key().point().and_then(PublicKey::from_sec1);
            let info = binding.to_info();
            leaving_no_stack(|| {
                key.and_then(|key| key.seal(Suite::Intl, &info, secret.expose(), &mut system_rng()).ok())
            })
        }
        RecipientAlgorithm::Sm2 | RecipientAlgorithm::RsaOaepSha256 => {
            leaving_no_stack(|| encrypt_to(recipient.key(), secret.expose())).ok()
        }
    };
    sealed.ok_or_else(|| {
        tracing::error!(algorithm = %recipient.algorithm(), "nothing could be encrypted to a recipient's key");
        ServiceError::new(Reason::Internal, "nothing could be encrypted to the recipient's key")
    })
}

/// A data key in the form that its caller wants.
///
/// Its record is durable before this: a failure here leaves a record of a data key that nobody got, not the other way round.
pub(super) fn data_key_for(
    delivery: &Delivery,
    algorithm: AeadAlgorithm,
    key: (KeyId, KeyVersion),
    context: &EncryptionContext,
    material: Secret,
) -> Result<PlainDataKey, ServiceError> {
    let binding = RecipientBinding { purpose: Purpose::DataKey, spec: algorithm.into(), key, context };
    let (plaintext, recipient_ciphertext) = delivery.apply(&binding, material)?;
    Ok(PlainDataKey { algorithm, plaintext, recipient_ciphertext })
}

/// The record with the recipient, where there is one.
pub(super) fn named_in(record: Record, recipient: Option<&Recipient>) -> Record {
    match recipient {
        None => record,
        Some(recipient) => record
            .detail("recipient_algorithm", recipient.algorithm().name())
            .detail("recipient_fingerprint", recipient.fingerprint()),
    }
}

impl Node {
    /// Whether this deployment encrypts to keys of the recipient's kind.
    ///
    /// # Errors
    /// `SPEC_NOT_ALLOWED` with the list.
    pub(super) fn check_recipient(&self, recipient: Option<&Recipient>) -> Result<(), ServiceError> {
        match recipient {
            None => Ok(()),
            Some(recipient) => self.check_allowed("recipient.public_key", recipient.key().algorithm().into()),
        }
    }
}
