//! ECDSA and ECDH on the curves of NIST, and the DER that PKCS#11 puts around curve points.

use der::Decode;
use der::asn1::OctetStringRef;
use zeroize::Zeroizing;

use crate::key_kind::Curve;
use crate::mechanism::cipher::Bytes;
use crate::refusal::Refusal;

/// A new key pair: the scalar, big-endian, and the uncompressed point.
pub struct GeneratedPair {
    pub scalar: Bytes,
    pub point: Vec<u8>,
}

/// The same functions for each curve: the curve crates share names, but no object-safe trait.
macro_rules! curve {
    ($curve:ident, $krate:ident) => {
        mod $curve {
            use getrandom::SysRng;
            use signature::hazmat::{PrehashVerifier, RandomizedPrehashSigner};
            use zeroize::Zeroizing;
            use $krate::ecdsa::{Signature, SigningKey, VerifyingKey};
            use $krate::elliptic_curve::Generate;
            use $krate::elliptic_curve::sec1::ToSec1Point;
            use $krate::{PublicKey, SecretKey};

            use crate::mechanism::cipher::Bytes;
            use crate::mechanism::ec::GeneratedPair;
            use crate::refusal::Refusal;

            fn secret(scalar: &[u8]) -> Result<SecretKey, Refusal> {
                SecretKey::from_slice(scalar).map_err(|_| Refusal::AttributeValueInvalid)
            }

            fn public(point: &[u8]) -> Result<PublicKey, Refusal> {
                PublicKey::from_sec1_bytes(point).map_err(|_| Refusal::AttributeValueInvalid)
            }

            pub fn generate() -> Result<GeneratedPair, Refusal> {
                let secret =
                    SecretKey::try_generate_from_rng(&mut SysRng).map_err(|_| Refusal::RandomNoRng)?;
                Ok(GeneratedPair {
                    scalar: Zeroizing::new(Zeroizing::new(secret.to_bytes()).to_vec()),
                    point: secret.public_key().to_sec1_point(false).as_bytes().to_vec(),
                })
            }

            pub fn require_scalar(scalar: &[u8]) -> Result<(), Refusal> {
                secret(scalar).map(|_| ())
            }

            pub fn require_point(point: &[u8]) -> Result<(), Refusal> {
                public(point).map(|_| ())
            }

            pub fn sign(scalar: &[u8], digest: &[u8]) -> Result<Vec<u8>, Refusal> {
                let key = SigningKey::from_slice(scalar).map_err(|_| Refusal::DeviceError)?;
                let signature: Signature =
                    key.sign_prehash_with_rng(&mut SysRng, digest).map_err(|_| Refusal::DataLenRange)?;
                Ok(signature.to_bytes().to_vec())
            }

            pub fn verify(point: &[u8], digest: &[u8], signature: &[u8]) -> Result<(), Refusal> {
                let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| Refusal::DeviceError)?;
                let signature = Signature::from_slice(signature).map_err(|_| Refusal::SignatureInvalid)?;
                key.verify_prehash(digest, &signature).map_err(|_| Refusal::SignatureInvalid)
            }

            pub fn agree(scalar: &[u8], point: &[u8]) -> Result<Bytes, Refusal> {
                let secret = secret(scalar)?;
                let agreed =
                    $krate::ecdh::diffie_hellman(secret.to_nonzero_scalar(), public(point)?.as_affine());
                Ok(Zeroizing::new(agreed.raw_secret_bytes().to_vec()))
            }
        }
    };
}

curve!(on_p256, p256);
curve!(on_p384, p384);
curve!(on_p521, p521);

macro_rules! on_curve {
    ($curve:expr, $function:ident($($argument:expr),*)) => {
        match $curve {
            Curve::P256 => on_p256::$function($($argument),*),
            Curve::P384 => on_p384::$function($($argument),*),
            Curve::P521 => on_p521::$function($($argument),*),
        }
    };
}

pub fn generate(curve: Curve) -> Result<GeneratedPair, Refusal> {
    on_curve!(curve, generate())
}

/// Refuses zero, and what is not below the order of the curve.
pub fn require_scalar(curve: Curve, scalar: &[u8]) -> Result<(), Refusal> {
    on_curve!(curve, require_scalar(scalar))
}

/// Refuses what is not a point of the curve.
pub fn require_point(curve: Curve, point: &[u8]) -> Result<(), Refusal> {
    on_curve!(curve, require_point(point))
}

/// Signs what the caller says is a digest: `r || s`, each as long as the field. As in hardware, two
/// signatures over one digest differ.
pub fn sign(curve: Curve, scalar: &[u8], digest: &[u8]) -> Result<Vec<u8>, Refusal> {
    require_some(digest)?;
    on_curve!(curve, sign(scalar, digest))
}

pub fn verify(curve: Curve, point: &[u8], digest: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    require_some(digest)?;
    on_curve!(curve, verify(point, digest, signature))
}

fn require_some(digest: &[u8]) -> Result<(), Refusal> {
    if digest.is_empty() { Err(Refusal::DataLenRange) } else { Ok(()) }
}

/// The agreed value: the first coordinate of the shared point.
pub fn agree(curve: Curve, scalar: &[u8], point: &[u8]) -> Result<Bytes, Refusal> {
    on_curve!(curve, agree(scalar, point))
}

/// `CKA_EC_POINT` is the DER of an OCTET STRING around the point.
pub fn wrap_point(point: &[u8]) -> Result<Vec<u8>, Refusal> {
    let point = OctetStringRef::new(point).map_err(|_| Refusal::GeneralError)?;
    der::Encode::to_der(&point).map_err(|_| Refusal::GeneralError)
}

/// Takes the OCTET STRING off again.
pub fn unwrap_point(der: &[u8]) -> Result<&[u8], Refusal> {
    let point = <&OctetStringRef>::from_der(der).map_err(|_| Refusal::AttributeValueInvalid)?;
    Ok(point.as_bytes())
}

/// A scalar as long as the field: the standard lets a client leave zeros in front away.
pub fn scalar_of_len(scalar: &[u8], len: usize) -> Result<Bytes, Refusal> {
    let missing = len.checked_sub(scalar.len()).ok_or(Refusal::AttributeValueInvalid)?;
    let mut padded = Zeroizing::new(vec![0; missing]);
    padded.extend_from_slice(scalar);
    Ok(padded)
}
