//! Public keys of pairs: checked when they are read, and written as SubjectPublicKeyInfo.

use super::PairAlgorithm;
use crate::asymmetric;
use alloc::vec::Vec;
use core::fmt;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use der::{Decode, Encode, Sequence};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

/// Curves that are told apart by a parameter share this one.
pub(super) const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// GM/T 0006.
pub(super) const SM2_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.301");
pub(super) const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(super) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The only exponent that is taken or made: 65537, big-endian.
pub const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

const ED25519_KEY_LEN: usize = 32;

/// Why bytes are no public key that is taken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not DER of a public key.
    #[error("not a public key in DER (SubjectPublicKeyInfo)")]
    Malformed,
    /// An algorithm or curve that is not known here.
    #[error("a public key of an algorithm or curve that is not offered")]
    UnknownAlgorithm,
    /// RSA, but not of one of the three lengths.
    #[error("an RSA modulus of {bits} bits; 2048, 3072 and 4096 are taken")]
    RsaModulus {
        /// How many it has.
        bits: usize,
    },
    /// An even modulus is no product of two large primes.
    #[error("an RSA modulus that is even")]
    RsaModulusEven,
    /// RSA with another exponent.
    #[error("an RSA exponent that is not 65537")]
    RsaExponent,
    /// A point that is not on its curve, or of a small group.
    #[error("a point that is not on its curve")]
    NotOnCurve,
}

/// A public key that can be used: its point is on its curve, its modulus of a length that is taken.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PairPublicKey {
    algorithm: PairAlgorithm,
    /// An uncompressed SEC 1 point, the 32 bytes of RFC 8032, or the modulus without leading zeros.
    bytes: Vec<u8>,
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

impl PairPublicKey {
    /// Takes an uncompressed SEC 1 point (`04 || x || y`).
    ///
    /// # Errors
    /// [`PublicKeyError::NotOnCurve`], and [`PublicKeyError::UnknownAlgorithm`] when the algorithm has no such points.
    pub fn from_point(algorithm: PairAlgorithm, point: &[u8]) -> Result<Self, PublicKeyError> {
        let coordinate_len = algorithm.coordinate_len().ok_or(PublicKeyError::UnknownAlgorithm)?;
        let is_uncompressed = point.len() == 1 + 2 * coordinate_len && point[0] == 4;
        let is_on_curve = is_uncompressed
            && match algorithm {
                PairAlgorithm::Sm2 => sm2::PublicKey::from_sec1_bytes(point).is_ok(),
                PairAlgorithm::P256 => p256::PublicKey::from_sec1_bytes(point).is_ok(),
                PairAlgorithm::P384 => p384::PublicKey::from_sec1_bytes(point).is_ok(),
                PairAlgorithm::P521 => p521::PublicKey::from_sec1_bytes(point).is_ok(),
                _ => false,
            };
        if is_on_curve {
            Ok(Self { algorithm, bytes: point.to_vec() })
        } else {
            Err(PublicKeyError::NotOnCurve)
        }
    }

    /// Takes the 32 bytes of RFC 8032.
    ///
    /// # Errors
    /// [`PublicKeyError::NotOnCurve`], also for a point of small order, under which one signature fits many messages.
    pub fn from_ed25519(bytes: &[u8]) -> Result<Self, PublicKeyError> {
        let bytes: &[u8; ED25519_KEY_LEN] = bytes.try_into().map_err(|_| PublicKeyError::NotOnCurve)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| PublicKeyError::NotOnCurve)?;
        if key.is_weak() {
            return Err(PublicKeyError::NotOnCurve);
        }
        Ok(Self { algorithm: PairAlgorithm::Ed25519, bytes: bytes.to_vec() })
    }

    /// Takes modulus and exponent as big-endian numbers, with or without leading zeros.
    ///
    /// # Errors
    /// [`PublicKeyError`] says which of the two.
    pub fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, PublicKeyError> {
        let modulus = without_leading_zeros(modulus);
        let bits = modulus.first().map_or(0, |first| 8 * modulus.len() - first.leading_zeros() as usize);
        let algorithm = [PairAlgorithm::Rsa2048, PairAlgorithm::Rsa3072, PairAlgorithm::Rsa4096]
            .into_iter()
            .find(|algorithm| algorithm.bits() == bits as u64)
            .ok_or(PublicKeyError::RsaModulus { bits })?;
        if modulus.last().is_none_or(|last| last.is_multiple_of(2)) {
            return Err(PublicKeyError::RsaModulusEven);
        }
        if without_leading_zeros(exponent) != RSA_EXPONENT {
            return Err(PublicKeyError::RsaExponent);
        }
        Ok(Self { algorithm, bytes: modulus.to_vec() })
    }

    /// Reads a SubjectPublicKeyInfo in DER, exactly as [`PairPublicKey::to_spki`] writes it.
    ///
    /// # Errors
    /// [`PublicKeyError`] says why not.
    pub fn from_spki(der: &[u8]) -> Result<Self, PublicKeyError> {
        let malformed = |_| PublicKeyError::Malformed;
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(malformed)?;
        let bytes = spki.subject_public_key.as_bytes().ok_or(PublicKeyError::Malformed)?;
        match spki.algorithm.oid {
            EC_PUBLIC_KEY => {
                let curve = spki.algorithm.parameters_oid().map_err(|_| PublicKeyError::Malformed)?;
                let algorithm = algorithm_of_curve(curve).ok_or(PublicKeyError::UnknownAlgorithm)?;
                Self::from_point(algorithm, bytes)
            }
            RSA_ENCRYPTION => {
                let has_null = spki.algorithm.parameters.is_some_and(|parameters| parameters.is_null());
                if !has_null {
                    return Err(PublicKeyError::Malformed);
                }
                let key = RsaPublicKey::from_der(bytes).map_err(malformed)?;
                Self::from_rsa(key.modulus.as_bytes(), key.exponent.as_bytes())
            }
            ED25519 => {
                if spki.algorithm.parameters.is_some() {
                    return Err(PublicKeyError::Malformed);
                }
                Self::from_ed25519(bytes)
            }
            _ => Err(PublicKeyError::UnknownAlgorithm),
        }
    }

    /// The SubjectPublicKeyInfo in DER (RFC 5280; RFC 8017, RFC 5480 and RFC 8410 for the parameters). An SM2 key is an
    /// EC key on the curve 1.2.156.10197.1.301, which is how OpenSSL reads and writes it.
    pub fn to_spki(&self) -> Vec<u8> {
        const FITS: &str = "a key of checked length has a DER form";
        let curve;
        let rsa;
        let (oid, parameters, key): (_, Option<AnyRef<'_>>, &[u8]) = match curve_of(self.algorithm) {
            Some(oid) => {
                curve = oid;
                (EC_PUBLIC_KEY, Some(AnyRef::from(&curve)), &self.bytes)
            }
            None if self.algorithm == PairAlgorithm::Ed25519 => (ED25519, None, &self.bytes),
            None => {
                rsa = self.to_rsa_der();
                (RSA_ENCRYPTION, Some(AnyRef::NULL), &rsa)
            }
        };
        SubjectPublicKeyInfoRef {
            algorithm: AlgorithmIdentifierRef { oid, parameters },
            subject_public_key: BitStringRef::from_bytes(key).expect(FITS),
        }
        .to_der()
        .expect(FITS)
    }

    fn to_rsa_der(&self) -> Vec<u8> {
        const FITS: &str = "a modulus of checked length has a DER form";
        let modulus = UintRef::new(&self.bytes).expect(FITS);
        let exponent = UintRef::new(&RSA_EXPONENT).expect(FITS);
        RsaPublicKey { modulus, exponent }.to_der().expect(FITS)
    }

    /// What the key is made of.
    pub fn algorithm(&self) -> PairAlgorithm {
        self.algorithm
    }

    /// An uncompressed SEC 1 point; `None` when the key is none.
    pub fn point(&self) -> Option<&[u8]> {
        self.algorithm.coordinate_len().map(|_| self.bytes.as_slice())
    }

    /// The modulus without leading zeros; `None` when it is not RSA.
    pub fn rsa_modulus(&self) -> Option<&[u8]> {
        self.algorithm.rsa_modulus_len().map(|_| self.bytes.as_slice())
    }

    /// What a verification library takes: the point, the 32 bytes of Ed25519, or the `RSAPublicKey` of RFC 8017.
    pub fn to_library_form(&self) -> Vec<u8> {
        if self.rsa_modulus().is_some() { self.to_rsa_der() } else { self.bytes.clone() }
    }

    /// ZA of GB/T 32918.2 for a user ID; `None` when the key is not SM2.
    pub(super) fn sm2_za(&self, user_id: &[u8]) -> Option<[u8; 32]> {
        (self.algorithm == PairAlgorithm::Sm2).then_some(())?;
        Some(asymmetric::PublicKey::from_sec1(&self.bytes)?.sm2_za_of(user_id))
    }
}

/// A public key is no secret; shown as its SubjectPublicKeyInfo.
impl fmt::Debug for PairPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, base16ct::lower::encode_string(&self.to_spki()))
    }
}

impl PairAlgorithm {
    /// DER of the curve's object identifier; `None` when the algorithm's keys name none.
    pub fn curve_der(self) -> Option<Vec<u8>> {
        Some(curve_of(self)?.to_der().expect("an object identifier has a DER form"))
    }
}

pub(super) const fn curve_of(algorithm: PairAlgorithm) -> Option<ObjectIdentifier> {
    match algorithm {
        PairAlgorithm::Sm2 => Some(SM2_CURVE),
        PairAlgorithm::P256 => Some(ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7")),
        PairAlgorithm::P384 => Some(ObjectIdentifier::new_unwrap("1.3.132.0.34")),
        PairAlgorithm::P521 => Some(ObjectIdentifier::new_unwrap("1.3.132.0.35")),
        PairAlgorithm::Rsa2048 | PairAlgorithm::Rsa3072 | PairAlgorithm::Rsa4096 | PairAlgorithm::Ed25519 => {
            None
        }
    }
}

pub(super) fn algorithm_of_curve(curve: ObjectIdentifier) -> Option<PairAlgorithm> {
    PairAlgorithm::ALL.into_iter().find(|algorithm| curve_of(*algorithm) == Some(curve))
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    &number[start..]
}
