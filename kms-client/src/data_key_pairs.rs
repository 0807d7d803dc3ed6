//! Data key pairs: made by the service, used elsewhere (docs/formats/ciphertext.md).

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use crate::recipient::{check, to_proto};
use kms_core::context::EncryptionContext;
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::pair::{PairAlgorithm, PairPublicKey};
use kms_core::recipient::Recipient;
use kms_core::secret::Secret;
use kms_core::spec::{KeyAlgorithm, KeySpec};
use kms_proto::v1;

/// In which form a private key is given, beside the ciphertext under the KMS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivateKeyFor<'a> {
    /// To the caller, in the clear.
    Caller,
    /// To nobody.
    Nobody,
    /// To a recipient, encrypted; with `hpke-p256` only.
    Recipient(&'a Recipient),
}

/// A pair for use elsewhere.
#[derive(Debug)]
pub struct DataKeyPair {
    /// The key that encrypts the private half.
    pub key_id: KeyId,
    /// That key's version.
    pub key_version: KeyVersion,
    /// The public half.
    pub public_key: PairPublicKey,
    /// The private half as PKCS#8 in DER, where it is for the caller. Use it, then drop it.
    pub private_key: Option<Secret>,
    /// What the recipient opens with its own private key, where one was named.
    pub recipient_ciphertext: Option<Vec<u8>>,
}

/// What [`Client::generate_data_key_pair`] gives.
#[derive(Debug)]
pub struct GeneratedDataKeyPair {
    /// The pair.
    pub pair: DataKeyPair,
    /// The private half encrypted under the key: what to keep.
    pub ciphertext: Vec<u8>,
}

/// The parts of both answers.
struct Answer {
    key_id: String,
    key_version: u32,
    spec: i32,
    public_key: Vec<u8>,
    private_key: Secret,
    recipient_ciphertext: Vec<u8>,
}

impl Answer {
    fn pair(self, to: PrivateKeyFor<'_>) -> Result<DataKeyPair, ClientError> {
        let public_key = PairPublicKey::from_spki(&self.public_key)
            .map_err(|error| ClientError::malformed(format!("a public key that is none: {error}")))?;
        if convert::key_spec(self.spec)?.algorithm() != KeyAlgorithm::Pair(public_key.algorithm()) {
            return Err(ClientError::malformed("the pair is of another algorithm than it says"));
        }
        let (private_key, recipient_ciphertext) = match to {
            PrivateKeyFor::Recipient(_) => {
                check(self.private_key.expose(), &self.recipient_ciphertext)?;
                (None, Some(self.recipient_ciphertext))
            }
            PrivateKeyFor::Nobody => (None, None),
            PrivateKeyFor::Caller if self.private_key.expose().is_empty() => {
                return Err(ClientError::malformed("a pair without its private key"));
            }
            PrivateKeyFor::Caller => (Some(self.private_key), None),
        };
        let (key_id, key_version) = (convert::key_id(&self.key_id)?, convert::key_version(self.key_version)?);
        Ok(DataKeyPair { key_id, key_version, public_key, private_key, recipient_ciphertext })
    }
}

fn recipient(to: PrivateKeyFor<'_>) -> Option<v1::Recipient> {
    match to {
        PrivateKeyFor::Recipient(recipient) => Some(to_proto(recipient)),
        PrivateKeyFor::Caller | PrivateKeyFor::Nobody => None,
    }
}

impl Client {
    /// Has the service make a key pair. Nothing of it is stored there. RSA takes up to some seconds: mind the deadline.
    ///
    /// # Errors
    /// `SPEC_NOT_ALLOWED`, `KEY_NOT_FOUND`, `KEY_USAGE_FORBIDS`, `KEY_STATE_FORBIDS`, `FIELD_INVALID` (recipient), `SEALED`,
    /// `NOT_PERMITTED`.
    pub async fn generate_data_key_pair(
        &self,
        key: &KeyRef,
        spec: PairAlgorithm,
        context: &EncryptionContext,
        to: PrivateKeyFor<'_>,
    ) -> Result<GeneratedDataKeyPair, ClientError> {
        let request = v1::GenerateDataKeyPairRequest {
            key: key.to_string(),
            pair_spec: convert::key_spec_to_proto(Some(KeySpec::from(spec))),
            context: convert::context_to_proto(context),
            without_plaintext: to == PrivateKeyFor::Nobody,
            recipient: recipient(to),
        };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.generate_data_key_pair(request).await
            })
            .await?;
        let parts = Answer {
            key_id: answer.key_id,
            key_version: answer.key_version,
            spec: answer.pair_spec,
            public_key: answer.public_key,
            private_key: Secret::new(answer.private_key),
            recipient_ciphertext: answer.recipient_ciphertext,
        };
        let pair = parts.pair(to)?;
        if pair.public_key.algorithm() != spec {
            return Err(ClientError::malformed("the pair is of another algorithm than asked"));
        }
        Ok(GeneratedDataKeyPair { pair, ciphertext: answer.ciphertext })
    }

    /// Decrypts the private half of a data key pair. The public half is computed from it.
    ///
    /// # Errors
    /// As [`Client::decrypt_data_key`], which opens no pairs, as this opens nothing else.
    pub async fn decrypt_data_key_pair(
        &self,
        ciphertext: &[u8],
        context: &EncryptionContext,
        expected_key: Option<&KeyRef>,
        recipient_key: Option<&Recipient>,
    ) -> Result<DataKeyPair, ClientError> {
        let to = recipient_key.map_or(PrivateKeyFor::Caller, PrivateKeyFor::Recipient);
        let request = v1::DecryptDataKeyPairRequest {
            ciphertext: ciphertext.to_vec(),
            context: convert::context_to_proto(context),
            expected_key: expected_key.map(KeyRef::to_string).unwrap_or_default(),
            recipient: recipient(to),
        };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.decrypt_data_key_pair(request).await
            })
            .await?;
        let parts = Answer {
            key_id: answer.key_id,
            key_version: answer.key_version,
            spec: answer.pair_spec,
            public_key: answer.public_key,
            private_key: Secret::new(answer.private_key),
            recipient_ciphertext: answer.recipient_ciphertext,
        };
        parts.pair(to)
    }
}
