//! Signatures by named key pairs.

use crate::connect::{Client, Repeat};
use crate::convert;
use crate::error::ClientError;
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::pair::{PairPublicKey, SignatureAlgorithm, SignedInput};
use kms_core::spec::{KeySpec, KeyUsage};
use kms_proto::v1;
use zeroize::Zeroize;

/// How a signature is made or verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignOptions {
    /// `None`: the one way of a pair that has one alone, PSS with SHA-256 for RSA.
    pub algorithm: Option<SignatureAlgorithm>,
    /// The signer's ID that enters an SM2 signature over a message, 1 to 8,191 bytes; `None`: `1234567812345678`.
    pub user_id: Option<Vec<u8>>,
}

/// What [`Client::sign`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySignature {
    /// The key that signed.
    pub key_id: KeyId,
    /// That key's version: what verifies it when the key was rotated since.
    pub key_version: KeyVersion,
    /// How it signed.
    pub algorithm: SignatureAlgorithm,
    /// DER for ECDSA and SM2, raw for the others (docs/formats/pairs.md).
    pub bytes: Vec<u8>,
}

/// What [`Client::verify`] confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedSignature {
    /// The key that made the signature.
    pub key_id: KeyId,
    /// That key's version.
    pub key_version: KeyVersion,
    /// How it was made.
    pub algorithm: SignatureAlgorithm,
}

/// The public half of one version of a key pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPublicKey {
    /// The key.
    pub key_id: KeyId,
    /// The version.
    pub key_version: KeyVersion,
    /// What the key is.
    pub spec: KeySpec,
    /// What the key is for: to sign, or to decrypt.
    pub usage: KeyUsage,
    /// The public half; [`PairPublicKey::to_spki`] gives its DER.
    pub public_key: PairPublicKey,
}

fn parts(input: SignedInput<'_>) -> (Vec<u8>, bool) {
    match input {
        SignedInput::Message(message) => (message.to_vec(), false),
        SignedInput::Digest(digest) => (digest.to_vec(), true),
    }
}

pub(crate) fn algorithm(number: i32) -> Result<SignatureAlgorithm, ClientError> {
    u16::try_from(number)
        .ok()
        .and_then(SignatureAlgorithm::from_number)
        .ok_or_else(|| ClientError::malformed(format!("signature algorithm {number} is unknown")))
}

fn number(options: &SignOptions) -> i32 {
    options.algorithm.map_or(0, |algorithm| algorithm.number().into())
}

pub(crate) fn sign_request(key: &KeyRef, input: SignedInput<'_>, options: &SignOptions) -> v1::SignRequest {
    let (input, is_digest) = parts(input);
    v1::SignRequest {
        key: key.to_string(),
        algorithm: number(options),
        input,
        is_digest,
        user_id: options.user_id.clone().unwrap_or_default(),
    }
}

pub(crate) fn verify_request(
    key: &KeyRef,
    input: SignedInput<'_>,
    options: &SignOptions,
    signature: &[u8],
) -> v1::VerifyRequest {
    let (input, is_digest) = parts(input);
    v1::VerifyRequest {
        key: key.to_string(),
        algorithm: number(options),
        input,
        is_digest,
        user_id: options.user_id.clone().unwrap_or_default(),
        signature: signature.to_vec(),
    }
}

impl KeySignature {
    pub(crate) fn from_answer(answer: v1::SignResponse) -> Result<Self, ClientError> {
        Ok(Self {
            key_id: convert::key_id(&answer.key_id)?,
            key_version: convert::key_version(answer.key_version)?,
            algorithm: algorithm(answer.algorithm)?,
            bytes: answer.signature,
        })
    }
}

impl VerifiedSignature {
    pub(crate) fn from_answer(answer: v1::VerifyResponse) -> Result<Self, ClientError> {
        Ok(Self {
            key_id: convert::key_id(&answer.key_id)?,
            key_version: convert::key_version(answer.key_version)?,
            algorithm: algorithm(answer.algorithm)?,
        })
    }
}

impl Client {
    /// Signs a message of up to 64 KiB, or a digest.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_USAGE_FORBIDS`, `KEY_STATE_FORBIDS`, `FIELD_INVALID` (algorithm, length), `SEALED`,
    /// `NOT_PERMITTED`.
    pub async fn sign(
        &self,
        key: &KeyRef,
        input: SignedInput<'_>,
        options: &SignOptions,
    ) -> Result<KeySignature, ClientError> {
        let mut request = sign_request(key, input, options);
        let answer =
            self.call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.sign(request).await
            })
            .await;
        request.input.zeroize();
        KeySignature::from_answer(answer?)
    }

    /// Has the service verify a signature. `Ok` says that it is right. With [`Client::public_key`] it can be verified anywhere.
    ///
    /// # Errors
    /// `KEY_SIGNATURE_INVALID`: another input, key, version, algorithm, user ID or signature. Otherwise as [`Client::sign`].
    pub async fn verify(
        &self,
        key: &KeyRef,
        input: SignedInput<'_>,
        options: &SignOptions,
        signature: &[u8],
    ) -> Result<VerifiedSignature, ClientError> {
        let mut request = verify_request(key, input, options, signature);
        let answer =
            self.call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.verify(request).await
            })
            .await;
        request.input.zeroize();
        VerifiedSignature::from_answer(answer?)
    }

    /// The public half of a key pair, whatever the state of the key.
    ///
    /// # Errors
    /// `KEY_NOT_FOUND`, `KEY_USAGE_FORBIDS`, `SEALED`, `NOT_PERMITTED`.
    pub async fn public_key(&self, key: &KeyRef) -> Result<KeyPublicKey, ClientError> {
        let request = v1::GetPublicKeyRequest { key: key.to_string() };
        let answer = self
            .call(Repeat::Safe, &request, |mut stubs, request| async move {
                stubs.crypto.get_public_key(request).await
            })
            .await?;
        let public_key = PairPublicKey::from_spki(&answer.public_key)
            .map_err(|error| ClientError::malformed(format!("a public key that is none: {error}")))?;
        Ok(KeyPublicKey {
            key_id: convert::key_id(&answer.key_id)?,
            key_version: convert::key_version(answer.key_version)?,
            spec: convert::key_spec(answer.spec)?,
            usage: convert::usage(answer.usage)?,
            public_key,
        })
    }
}
