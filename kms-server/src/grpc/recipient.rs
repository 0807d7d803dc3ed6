//! Recipients from proto form.

use crate::service::{Delivery, ServiceError};
use kms_core::pair::PairPublicKey;
use kms_core::recipient::{Recipient, RecipientAlgorithm, RecipientError};
use kms_proto::v1;

const PUBLIC_KEY: &str = "recipient.public_key";
const ALGORITHM: &str = "recipient.algorithm";

/// In which form a secret leaves.
///
/// # Errors
/// `FIELD_INVALID`, also for a secret that nobody is to get and somebody is.
pub fn delivery(without_plaintext: bool, recipient: Option<v1::Recipient>) -> Result<Delivery, ServiceError> {
    match (without_plaintext, recipient) {
        (false, None) => Ok(Delivery::Plain),
        (true, None) => Ok(Delivery::Withheld),
        (false, Some(message)) => Ok(Delivery::To(recipient_of(&message)?)),
        (true, Some(_)) => Err(ServiceError::field(
            "without_plaintext",
            "must be false with a recipient: the plaintext goes to the recipient alone; leave the recipient out when \
             nobody is to get it",
        )),
    }
}

fn recipient_of(message: &v1::Recipient) -> Result<Recipient, ServiceError> {
    let algorithm = u16::try_from(message.algorithm).ok().and_then(RecipientAlgorithm::from_number);
    let algorithm = algorithm.ok_or_else(|| {
        let names = RecipientAlgorithm::ALL.map(RecipientAlgorithm::name).join(", ");
        ServiceError::field(ALGORITHM, format!("is {}; it must be one of {names}", message.algorithm))
    })?;
    if message.public_key.is_empty() {
        let what = "is empty; it must be a public key in DER (SubjectPublicKeyInfo)";
        return Err(ServiceError::field(PUBLIC_KEY, what));
    }
    let key = PairPublicKey::from_spki(&message.public_key)
        .map_err(|error| ServiceError::field(PUBLIC_KEY, format!("is {error}")))?;
    Recipient::new(algorithm, key).map_err(|error| {
        let field = match error {
            RecipientError::OtherPair { .. } => ALGORITHM,
            RecipientError::NoPair { .. } => PUBLIC_KEY,
        };
        ServiceError::field(field, format!("does not fit: {error}"))
    })
}
