//! SM2 signatures (GB/T 32918.2) on sm2p256v1.

use getrandom::SysRng;
use signature::hazmat::{PrehashVerifier, RandomizedPrehashSigner};
use signature::{RandomizedSigner, Verifier};
use sm2::SecretKey;
use sm2::dsa::{Signature, SigningKey, VerifyingKey};
use sm2::elliptic_curve::Generate;
use sm2::elliptic_curve::sec1::ToSec1Point;
use zeroize::Zeroizing;

use crate::mechanism::ec::{GeneratedPair, SIGNATURE_LEN};
use crate::refusal::Refusal;

/// DER of the object identifier 1.2.156.10197.1.301.
pub const SM2_PARAMETERS: &[u8] = &[0x06, 0x08, 0x2A, 0x81, 0x1C, 0xCF, 0x55, 0x01, 0x82, 0x2D];

/// Length of `e`, the digest that a prehashed signature takes.
pub const DIGEST_LEN: usize = 32;

pub fn generate() -> Result<GeneratedPair, Refusal> {
    let secret = SecretKey::try_generate_from_rng(&mut SysRng).map_err(|_| Refusal::RandomNoRng)?;
    Ok(GeneratedPair {
        scalar: Zeroizing::new(Zeroizing::new(secret.to_bytes()).to_vec()),
        point: secret.public_key().to_sec1_point(false).as_bytes().to_vec(),
    })
}

pub fn signing_key(scalar: &[u8], user_id: &str) -> Result<SigningKey, Refusal> {
    let secret = SecretKey::from_slice(scalar).map_err(|_| Refusal::DeviceError)?;
    SigningKey::new(user_id, &secret).map_err(|_| Refusal::DeviceError)
}

pub fn verifying_key(point: &[u8], user_id: &str) -> Result<VerifyingKey, Refusal> {
    VerifyingKey::from_sec1_bytes(user_id, point).map_err(|_| Refusal::AttributeValueInvalid)
}

/// Signs a message: the digest over `ZA || message` is made here.
pub fn sign_message(key: &SigningKey, message: &[u8]) -> Result<[u8; SIGNATURE_LEN], Refusal> {
    let signature: Signature =
        key.try_sign_with_rng(&mut SysRng, message).map_err(|_| Refusal::RandomNoRng)?;
    Ok(signature.to_bytes().into())
}

/// Signs `e` as it is: the caller has already hashed `ZA || message`.
pub fn sign_prehashed(key: &SigningKey, digest: &[u8]) -> Result<[u8; SIGNATURE_LEN], Refusal> {
    require_digest_len(digest)?;
    let signature: Signature =
        key.sign_prehash_with_rng(&mut SysRng, digest).map_err(|_| Refusal::RandomNoRng)?;
    Ok(signature.to_bytes().into())
}

pub fn verify_message(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    let signature = Signature::from_slice(signature).map_err(|_| Refusal::SignatureInvalid)?;
    key.verify(message, &signature).map_err(|_| Refusal::SignatureInvalid)
}

pub fn verify_prehashed(key: &VerifyingKey, digest: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    require_digest_len(digest)?;
    let signature = Signature::from_slice(signature).map_err(|_| Refusal::SignatureInvalid)?;
    key.verify_prehash(digest, &signature).map_err(|_| Refusal::SignatureInvalid)
}

fn require_digest_len(digest: &[u8]) -> Result<(), Refusal> {
    if digest.len() == DIGEST_LEN { Ok(()) } else { Err(Refusal::DataLenRange) }
}
