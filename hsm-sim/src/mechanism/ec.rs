//! ECDSA on P-256, and the DER wrapping that PKCS#11 puts around curve points.

use getrandom::SysRng;
use p256::SecretKey;
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::Generate;
use p256::elliptic_curve::sec1::ToSec1Point;
use signature::hazmat::{PrehashVerifier, RandomizedPrehashSigner};
use zeroize::Zeroizing;

use crate::refusal::Refusal;

/// DER of the object identifier 1.2.840.10045.3.1.7.
pub const P256_PARAMETERS: &[u8] = &[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];

/// `r || s`, each as long as the field.
pub const SIGNATURE_LEN: usize = 64;
/// One byte that says "uncompressed", then both coordinates.
const POINT_LEN: usize = 65;
const DER_OCTET_STRING: u8 = 0x04;

/// A new key pair: the scalar, big-endian, and the uncompressed point.
pub struct GeneratedPair {
    pub scalar: Zeroizing<Vec<u8>>,
    pub point: Vec<u8>,
}

pub fn generate() -> Result<GeneratedPair, Refusal> {
    let secret = SecretKey::try_generate_from_rng(&mut SysRng).map_err(|_| Refusal::RandomNoRng)?;
    Ok(GeneratedPair {
        scalar: Zeroizing::new(Zeroizing::new(secret.to_bytes()).to_vec()),
        point: secret.public_key().to_sec1_point(false).as_bytes().to_vec(),
    })
}

pub fn signing_key(scalar: &[u8]) -> Result<SigningKey, Refusal> {
    SigningKey::from_slice(scalar).map_err(|_| Refusal::DeviceError)
}

pub fn verifying_key(point: &[u8]) -> Result<VerifyingKey, Refusal> {
    VerifyingKey::from_sec1_bytes(point).map_err(|_| Refusal::AttributeValueInvalid)
}

/// Signs what the caller says is a digest. As in hardware, two signatures over one digest differ.
pub fn sign_prehashed(key: &SigningKey, digest: &[u8]) -> Result<[u8; SIGNATURE_LEN], Refusal> {
    let signature: Signature =
        key.sign_prehash_with_rng(&mut SysRng, digest).map_err(|_| Refusal::DataLenRange)?;
    Ok(signature.to_bytes().into())
}

pub fn verify_prehashed(key: &VerifyingKey, digest: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    let signature = Signature::from_slice(signature).map_err(|_| Refusal::SignatureInvalid)?;
    key.verify_prehash(digest, &signature).map_err(|_| Refusal::SignatureInvalid)
}

/// `CKA_EC_POINT` is the DER of an OCTET STRING around the point.
pub fn wrap_point(point: &[u8]) -> Result<Vec<u8>, Refusal> {
    let len = u8::try_from(point.len()).map_err(|_| Refusal::GeneralError)?;
    Ok([&[DER_OCTET_STRING, len], point].concat())
}

/// Takes the OCTET STRING off again. Only the uncompressed point of a 256-bit curve is accepted.
pub fn unwrap_point(der: &[u8]) -> Result<&[u8], Refusal> {
    match der {
        [DER_OCTET_STRING, len, point @ ..] if usize::from(*len) == POINT_LEN && point.len() == POINT_LEN => {
            Ok(point)
        }
        _ => Err(Refusal::AttributeValueInvalid),
    }
}
