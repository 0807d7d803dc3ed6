//! Ed25519 (RFC 8032), without a context and without a hash in front.

use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use zeroize::Zeroizing;

use crate::mechanism::ec::GeneratedPair;
use crate::random;
use crate::refusal::Refusal;

pub const SIGNATURE_LEN: usize = 64;

/// The seed, and the encoded public key.
pub fn generate() -> Result<GeneratedPair, Refusal> {
    let mut seed = Zeroizing::new(vec![0; ed25519_dalek::SECRET_KEY_LENGTH]);
    random::fill(&mut seed)?;
    let point = signing_key(&seed)?.verifying_key().to_bytes().to_vec();
    Ok(GeneratedPair { scalar: seed, point })
}

pub fn signing_key(seed: &[u8]) -> Result<SigningKey, Refusal> {
    SigningKey::try_from(seed).map_err(|_| Refusal::AttributeValueInvalid)
}

pub fn verifying_key(point: &[u8]) -> Result<VerifyingKey, Refusal> {
    VerifyingKey::try_from(point).map_err(|_| Refusal::AttributeValueInvalid)
}

pub fn sign(seed: &[u8], message: &[u8]) -> Result<Vec<u8>, Refusal> {
    Ok(signing_key(seed)?.sign(message).to_bytes().to_vec())
}

pub fn verify(point: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    let signature = Signature::from_slice(signature).map_err(|_| Refusal::SignatureInvalid)?;
    verifying_key(point)?.verify(message, &signature).map_err(|_| Refusal::SignatureInvalid)
}
