//! Data key pairs: pairs that are made here and used elsewhere. The service keeps none of them.

use super::crypto::{Encrypted, OpenRequest, Use, invalid};
use super::recipient::Delivery;
use super::{Caller, Node, ServiceError, blocking};
use crate::pairs::PrivatePair;
use crate::random::system_rng;
use kms_core::context::EncryptionContext;
use kms_core::envelope::{self, CiphertextInvalid, Purpose};
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::pair::{PairAlgorithm, PairPublicKey, PairUsage, check_private_key};
use kms_core::policy::Action;
use kms_core::reason::Reason;
use kms_core::recipient::{RecipientAlgorithm, RecipientBinding};
use kms_core::secret::Secret;
use kms_hsm::LockedBytes;
use tokio::sync::Semaphore;

/// How many pairs are made at once. RSA with 4096 bits takes seconds of a processor: callers who ask for many wait for each
/// other, and not everybody else for them.
static MAKERS: Semaphore = Semaphore::const_new(2);

/// A pair for somebody else's use.
#[derive(Debug)]
pub struct DataKeyPair {
    /// What it is made of.
    pub algorithm: PairAlgorithm,
    /// The public half.
    pub public_key: PairPublicKey,
    /// The private half as PKCS#8 in DER; absent when the caller declined it or named a recipient.
    pub private_key: Option<Secret>,
    /// The same encrypted to the recipient, where one was named.
    pub recipient_ciphertext: Option<Vec<u8>>,
}

/// A short plaintext is all that the other algorithms take.
fn check_algorithm(delivery: &Delivery) -> Result<(), ServiceError> {
    match delivery.recipient().map(|recipient| recipient.algorithm()) {
        None | Some(RecipientAlgorithm::HpkeP256) => Ok(()),
        Some(other) => {
            let message = format!(
                "is {other}; a private key is encrypted to a recipient with hpke-p256 only, because the others take short \
                 plaintexts: name a key of ec-p256, or have a data key encrypted to this recipient and the pair with it"
            );
            Err(ServiceError::field("recipient.algorithm", message))
        }
    }
}

impl Node {
    /// Makes a pair; gives its private half encrypted under the key, and in the form that the caller wants.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn generate_data_key_pair(
        &self,
        caller: &Caller,
        key: &KeyRef,
        algorithm: PairAlgorithm,
        context: &EncryptionContext,
        delivery: &Delivery,
    ) -> Result<(DataKeyPair, Encrypted), ServiceError> {
        let open = self.require_open()?;
        check_algorithm(delivery)?;
        // A pair may cost seconds: what can be refused is refused before.
        self.key_to_encrypt(&open, caller, key).await?;
        self.check_allowed("pair_spec", algorithm.into())?;
        self.check_recipient(delivery.recipient())?;
        let (public_key, pkcs8) = make(caller, algorithm).await?;
        let plaintext = envelope::data_key_pair_plaintext(algorithm, pkcs8.expose());
        let using = Use {
            action: Action::GenerateDataKeyPair,
            purpose: Purpose::DataKeyPair,
            context,
            recipient: delivery.recipient(),
        };
        let encrypted = self.seal_and_commit(&open, caller, key, &using, &plaintext).await?;
        let place = (encrypted.key_id, encrypted.version);
        let private_key = Secret::new(pkcs8.expose().to_vec());
        Ok((pair_for(delivery, public_key, place, context, private_key)?, encrypted))
    }

    /// Decrypts the private half of a pair that [`Node::generate_data_key_pair`] made.
    ///
    /// # Errors
    /// [`ServiceError`] with the documented reason; [`Node::perform`] records it.
    pub async fn decrypt_data_key_pair(
        &self,
        caller: &Caller,
        request: &OpenRequest,
        delivery: &Delivery,
    ) -> Result<(DataKeyPair, KeyId, KeyVersion), ServiceError> {
        let open = self.require_open()?;
        check_algorithm(delivery)?;
        self.check_recipient(delivery.recipient())?;
        let context = &request.context;
        let using = Use {
            action: Action::DecryptDataKeyPair,
            purpose: Purpose::DataKeyPair,
            context,
            recipient: delivery.recipient(),
        };
        let decrypted = self.open_and_commit(&open, caller, request, &using).await?;
        let (algorithm, private_key) = envelope::open_data_key_pair(&decrypted.plaintext).map_err(invalid)?;
        // Computed from the private half, so that the two belong together whoever kept the public one.
        let public_key =
            check_private_key(algorithm, private_key.expose()).map_err(|_| invalid(CiphertextInvalid))?;
        let place = (decrypted.key_id, decrypted.version);
        let pair = pair_for(delivery, public_key, place, context, private_key)?;
        Ok((pair, place.0, place.1))
    }
}

/// A fresh pair, when it is this caller's turn.
async fn make(
    caller: &Caller,
    algorithm: PairAlgorithm,
) -> Result<(PairPublicKey, LockedBytes), ServiceError> {
    let deadline = tokio::time::Instant::from_std(caller.deadline);
    let turn = tokio::time::timeout_at(deadline, MAKERS.acquire()).await.map_err(|_| {
        ServiceError::new(
            Reason::DeadlineExceeded,
            "the deadline passed while others' key pairs were made; give the call more time",
        )
    })?;
    let made = blocking(move || PrivatePair::generate(algorithm, PairUsage::Sign, &mut system_rng())).await;
    drop(turn);
    let pair = made.map_err(|error| {
        tracing::error!(%algorithm, %error, "no key pair could be made");
        ServiceError::new(Reason::Internal, "no key pair could be made; see the server's log")
    })?;
    Ok((pair.public_key().clone(), pair.into_pkcs8()))
}

/// Its record is durable before this, as with data keys.
fn pair_for(
    delivery: &Delivery,
    public_key: PairPublicKey,
    key: (KeyId, KeyVersion),
    context: &EncryptionContext,
    private_key: Secret,
) -> Result<DataKeyPair, ServiceError> {
    let algorithm = public_key.algorithm();
    let binding = RecipientBinding { purpose: Purpose::DataKeyPair, spec: algorithm.into(), key, context };
    let (private_key, recipient_ciphertext) = delivery.apply(&binding, private_key)?;
    Ok(DataKeyPair { algorithm, public_key, private_key, recipient_ciphertext })
}
