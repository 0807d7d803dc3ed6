//! Many calls at once: a batch of up to 100, and a stream of any number.

use crate::connect::{Client, Repeat};
use crate::crypto::{
    Ciphertext, DataKey, OpenedDataKey, Plaintext, ReEncrypt, ReEncrypted, WrappedDataKey, generate_request,
};
use crate::error::ClientError;
use crate::mac::{Mac, VerifiedMac};
use crate::sign::{KeySignature, SignOptions, VerifiedSignature, sign_request, verify_request};
use crate::{SignedInput, convert};
use kms_core::context::EncryptionContext;
use kms_core::id::KeyRef;
use kms_core::suite::AeadAlgorithm;
use kms_proto::v1::{self, batch_item::Item, batch_result::Result as Answer};
use zeroize::Zeroize;

/// Most items of one batch.
pub const BATCH_ITEMS_MAX: usize = 100;

/// One call of a batch or a stream. What it holds in the clear is wiped when it is dropped.
#[derive(Debug)]
pub struct BatchItem {
    /// Absent once it was sent.
    item: Option<Item>,
}

/// What one call of a batch or a stream gave: as the method of [`Client`] that makes the call alone.
#[derive(Debug)]
pub enum BatchAnswer {
    /// Of [`BatchItem::generate_data_key`].
    DataKey(DataKey),
    /// Of [`BatchItem::generate_wrapped_data_key`].
    WrappedDataKey(WrappedDataKey),
    /// Of [`BatchItem::decrypt_data_key`].
    OpenedDataKey(OpenedDataKey),
    /// Of [`BatchItem::encrypt`].
    Ciphertext(Ciphertext),
    /// Of [`BatchItem::decrypt`].
    Plaintext(Plaintext),
    /// Of [`BatchItem::reencrypt`].
    ReEncrypted(ReEncrypted),
    /// Of [`BatchItem::generate_mac`].
    Mac(Mac),
    /// Of [`BatchItem::verify_mac`]: it is right.
    VerifiedMac(VerifiedMac),
    /// Of [`BatchItem::sign`].
    Signature(KeySignature),
    /// Of [`BatchItem::verify`]: it is right.
    VerifiedSignature(VerifiedSignature),
}

/// What an answer has to be, without the contents of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    DataKey { spec: Option<AeadAlgorithm>, without_plaintext: bool },
    OpenedDataKey,
    Ciphertext,
    Plaintext,
    ReEncrypted,
    AsymmetricCiphertext,
    AsymmetricPlaintext,
    Mac,
    VerifiedMac,
    Signature,
    VerifiedSignature,
}

impl BatchItem {
    fn new(item: Item) -> Self {
        Self { item: Some(item) }
    }

    /// As [`Client::generate_data_key`].
    pub fn generate_data_key(key: &KeyRef, spec: Option<AeadAlgorithm>, context: &EncryptionContext) -> Self {
        Self::new(Item::GenerateDataKey(generate_request(key, spec, context, false)))
    }

    /// As [`Client::generate_wrapped_data_key`].
    pub fn generate_wrapped_data_key(
        key: &KeyRef,
        spec: Option<AeadAlgorithm>,
        context: &EncryptionContext,
    ) -> Self {
        Self::new(Item::GenerateDataKey(generate_request(key, spec, context, true)))
    }

    /// As [`Client::decrypt_data_key`].
    pub fn decrypt_data_key(
        ciphertext: &[u8],
        context: &EncryptionContext,
        expected_key: Option<&KeyRef>,
    ) -> Self {
        Self::new(Item::DecryptDataKey(v1::DecryptDataKeyRequest {
            ciphertext: ciphertext.to_vec(),
            context: convert::context_to_proto(context),
            expected_key: expected_key.map(KeyRef::to_string).unwrap_or_default(),
            recipient: None,
        }))
    }

    /// As [`Client::encrypt`].
    pub fn encrypt(key: &KeyRef, plaintext: &[u8], context: &EncryptionContext) -> Self {
        Self::new(Item::Encrypt(v1::EncryptRequest {
            key: key.to_string(),
            plaintext: plaintext.to_vec(),
            context: convert::context_to_proto(context),
        }))
    }

    /// As [`Client::decrypt`].
    pub fn decrypt(ciphertext: &[u8], context: &EncryptionContext, expected_key: Option<&KeyRef>) -> Self {
        Self::new(Item::Decrypt(v1::DecryptRequest {
            ciphertext: ciphertext.to_vec(),
            context: convert::context_to_proto(context),
            expected_key: expected_key.map(KeyRef::to_string).unwrap_or_default(),
        }))
    }

    /// As [`Client::asymmetric_encrypt`].
    pub fn asymmetric_encrypt(key: &KeyRef, plaintext: &[u8]) -> Self {
        let (key, plaintext) = (key.to_string(), plaintext.to_vec());
        Self::new(Item::AsymmetricEncrypt(v1::AsymmetricEncryptRequest { key, plaintext }))
    }

    /// As [`Client::asymmetric_decrypt`].
    pub fn asymmetric_decrypt(key: &KeyRef, ciphertext: &[u8]) -> Self {
        let (key, ciphertext) = (key.to_string(), ciphertext.to_vec());
        Self::new(Item::AsymmetricDecrypt(v1::AsymmetricDecryptRequest { key, ciphertext }))
    }

    /// As [`Client::reencrypt`].
    pub fn reencrypt(request: &ReEncrypt<'_>) -> Self {
        Self::new(Item::ReEncrypt(request.to_proto()))
    }

    /// As [`Client::generate_mac`].
    pub fn generate_mac(key: &KeyRef, message: &[u8]) -> Self {
        let request = v1::GenerateMacRequest { key: key.to_string(), message: message.to_vec() };
        Self::new(Item::GenerateMac(request))
    }

    /// As [`Client::verify_mac`].
    pub fn verify_mac(key: &KeyRef, message: &[u8], mac: &[u8]) -> Self {
        let (key, message, mac) = (key.to_string(), message.to_vec(), mac.to_vec());
        Self::new(Item::VerifyMac(v1::VerifyMacRequest { key, message, mac }))
    }

    /// As [`Client::sign`].
    pub fn sign(key: &KeyRef, input: SignedInput<'_>, options: &SignOptions) -> Self {
        Self::new(Item::Sign(sign_request(key, input, options)))
    }

    /// As [`Client::verify`].
    pub fn verify(key: &KeyRef, input: SignedInput<'_>, options: &SignOptions, signature: &[u8]) -> Self {
        Self::new(Item::Verify(verify_request(key, input, options, signature)))
    }

    pub(crate) fn into_proto(mut self) -> (v1::BatchItem, Option<Asked>) {
        let item = self.item.take();
        let asked = item.as_ref().map(Asked::of);
        (v1::BatchItem { item }, asked)
    }
}

impl Drop for BatchItem {
    fn drop(&mut self) {
        wipe(&mut self.item);
    }
}

fn wipe(item: &mut Option<Item>) {
    match item {
        Some(Item::Encrypt(request)) => request.plaintext.zeroize(),
        Some(Item::AsymmetricEncrypt(request)) => request.plaintext.zeroize(),
        Some(Item::GenerateMac(request)) => request.message.zeroize(),
        Some(Item::VerifyMac(request)) => {
            request.message.zeroize();
            request.mac.zeroize();
        }
        Some(Item::Sign(request)) => request.input.zeroize(),
        Some(Item::Verify(request)) => request.input.zeroize(),
        // Ciphertexts and names.
        Some(
            Item::GenerateDataKey(_)
            | Item::DecryptDataKey(_)
            | Item::Decrypt(_)
            | Item::AsymmetricDecrypt(_)
            | Item::ReEncrypt(_),
        )
        | None => {}
    }
}

impl Asked {
    fn of(item: &Item) -> Self {
        match item {
            Item::GenerateDataKey(request) => Asked::DataKey {
                // What this library wrote there it can read.
                spec: convert::data_key_algorithm(request.data_key_spec).ok(),
                without_plaintext: request.without_plaintext,
            },
            Item::DecryptDataKey(_) => Asked::OpenedDataKey,
            Item::Encrypt(_) => Asked::Ciphertext,
            Item::Decrypt(_) => Asked::Plaintext,
            Item::ReEncrypt(_) => Asked::ReEncrypted,
            Item::AsymmetricEncrypt(_) => Asked::AsymmetricCiphertext,
            Item::AsymmetricDecrypt(_) => Asked::AsymmetricPlaintext,
            Item::GenerateMac(_) => Asked::Mac,
            Item::VerifyMac(_) => Asked::VerifiedMac,
            Item::Sign(_) => Asked::Signature,
            Item::Verify(_) => Asked::VerifiedSignature,
        }
    }

    /// The typed answer. One of another call than was asked is none.
    pub(crate) fn answer(self, result: Option<v1::BatchResult>) -> Result<BatchAnswer, ClientError> {
        match (self, result.and_then(|result| result.result)) {
            (_, Some(Answer::Error(error))) => Err(ClientError::from_batch(error)),
            (Asked::DataKey { spec, without_plaintext: false }, Some(Answer::GenerateDataKey(answer))) => {
                DataKey::from_answer(answer, spec).map(BatchAnswer::DataKey)
            }
            (Asked::DataKey { spec, without_plaintext: true }, Some(Answer::GenerateDataKey(answer))) => {
                WrappedDataKey::from_answer(answer, spec).map(BatchAnswer::WrappedDataKey)
            }
            (Asked::OpenedDataKey, Some(Answer::DecryptDataKey(answer))) => {
                OpenedDataKey::from_answer(answer).map(BatchAnswer::OpenedDataKey)
            }
            (Asked::Ciphertext, Some(Answer::Encrypt(answer))) => {
                Ciphertext::from_answer(answer).map(BatchAnswer::Ciphertext)
            }
            (Asked::Plaintext, Some(Answer::Decrypt(answer))) => {
                Plaintext::from_answer(answer).map(BatchAnswer::Plaintext)
            }
            (Asked::AsymmetricCiphertext, Some(Answer::AsymmetricEncrypt(answer))) => {
                Ciphertext::from_asymmetric(answer).map(BatchAnswer::Ciphertext)
            }
            (Asked::AsymmetricPlaintext, Some(Answer::AsymmetricDecrypt(answer))) => {
                Plaintext::from_asymmetric(answer).map(BatchAnswer::Plaintext)
            }
            (Asked::ReEncrypted, Some(Answer::ReEncrypt(answer))) => {
                ReEncrypted::from_answer(answer).map(BatchAnswer::ReEncrypted)
            }
            (Asked::Mac, Some(Answer::GenerateMac(answer))) => Mac::from_answer(answer).map(BatchAnswer::Mac),
            (Asked::VerifiedMac, Some(Answer::VerifyMac(answer))) => {
                VerifiedMac::from_answer(answer).map(BatchAnswer::VerifiedMac)
            }
            (Asked::Signature, Some(Answer::Sign(answer))) => {
                KeySignature::from_answer(answer).map(BatchAnswer::Signature)
            }
            (Asked::VerifiedSignature, Some(Answer::Verify(answer))) => {
                VerifiedSignature::from_answer(answer).map(BatchAnswer::VerifiedSignature)
            }
            (_, None) => Err(ClientError::malformed("an item of a batch has no result")),
            (_, Some(_)) => Err(ClientError::malformed("an item of a batch has the result of another call")),
        }
    }
}

impl Client {
    /// Makes 1 to 100 calls at once; together their messages may have 256 KiB unless the service is configured otherwise.
    /// Each is authorised, decided and recorded as if it were made alone, and the results are in the order of the items.
    ///
    /// The whole is repeated when it got no answer, as every safe call; an item that was refused is not repeated by itself.
    ///
    /// # Errors
    /// When the whole was refused or not answered: `FIELD_INVALID` (none, or too many items), `SEALED`, `NOT_PERMITTED`.
    /// The inner results are those of the items.
    pub async fn batch(
        &self,
        items: impl IntoIterator<Item = BatchItem>,
    ) -> Result<Vec<Result<BatchAnswer, ClientError>>, ClientError> {
        let (items, asked): (Vec<_>, Vec<_>) = items.into_iter().map(BatchItem::into_proto).unzip();
        let mut request = v1::BatchRequest { items };
        let answer =
            self.call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.batch(request).await
            })
            .await;
        for item in &mut request.items {
            wipe(&mut item.item);
        }
        let results = answer?.results;
        if results.len() != asked.len() {
            return Err(ClientError::malformed("a batch has not as many results as items"));
        }
        let asked = asked.into_iter().flatten();
        Ok(asked.zip(results).map(|(asked, result)| asked.answer(Some(result))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_does_not_show_what_it_holds() {
        let key = KeyRef::parse("payroll").expect("a name");
        let none = EncryptionContext::new([]).expect("empty");
        for item in [
            BatchItem::encrypt(&key, &[171; 9], &none),
            BatchItem::generate_mac(&key, &[171; 9]),
            BatchItem::verify_mac(&key, &[171; 9], &[171; 9]),
            BatchItem::sign(&key, SignedInput::Message(&[171; 9]), &SignOptions::default()),
        ] {
            let shown = format!("{item:?}");
            assert!(shown.contains("payroll") && !shown.contains("171"), "{shown}");
        }
    }

    #[test]
    fn the_result_of_another_call_is_no_answer() {
        let answer = Answer::VerifyMac(v1::VerifyMacResponse::default());
        let result = v1::BatchResult { result: Some(answer) };
        let error = Asked::VerifiedSignature.answer(Some(result)).expect_err("not a signature");
        assert!(error.to_string().contains("another call"), "{error}");
        assert!(Asked::Mac.answer(None).is_err() && Asked::Mac.answer(Some(Default::default())).is_err());
    }
}
