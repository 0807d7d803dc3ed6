//! Whether a private key from outside may be taken: pure checks on its PKCS#8 form, for keys that customers bring.
//!
//! They say why not before any library is asked, which would only say no. Whether the numbers of an RSA key belong
//! together is not decided here: the library that will use it checks that when it reads the key.

use super::public_key::{EC_PUBLIC_KEY, ED25519, RSA_ENCRYPTION, SM2_CURVE, algorithm_of_curve};
use super::{PairAlgorithm, PairPublicKey, PublicKeyError};
use crate::secret::{Secret, leaving_no_stack};
use core::fmt;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Encode, Sequence};
use pkcs8::{AlgorithmIdentifierRef, PrivateKeyInfoRef};
use subtle::{Choice, ConstantTimeEq};

/// Why a private key is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Not DER of a private key, or with parts that are not known.
    #[error("not a private key in DER (PKCS#8)")]
    Malformed,
    /// An algorithm or curve that is not known here.
    #[error("a private key of an algorithm or curve that is not offered")]
    UnknownAlgorithm,
    /// A key of another algorithm than was announced.
    #[error("a private key of {found}, where one of {expected} was announced")]
    OtherAlgorithm {
        /// What was announced.
        expected: PairAlgorithm,
        /// What it is.
        found: PairAlgorithm,
    },
    /// The public half, or the RSA modulus or exponent, will not do.
    #[error("the public half will not do: {0}")]
    PublicHalf(#[source] PublicKeyError),
    /// RSA with more than two primes.
    #[error("an RSA key with more than two primes")]
    MultiPrime,
    /// A scalar of another length than the curve's.
    #[error("a private scalar of {len} bytes; {expected} are expected")]
    ScalarLen {
        /// The curve's.
        expected: usize,
        /// The given.
        len: usize,
    },
    /// A scalar outside the range of its algorithm.
    #[error("a private scalar outside the range of its algorithm")]
    ScalarRange,
    /// The public half that came with the key is another key's.
    #[error("the public key that came with the private key is another one's")]
    OtherPublicKey,
}

/// RFC 5915.
#[derive(Sequence)]
struct EcPrivateKey<'a> {
    version: u8,
    private_key: &'a OctetStringRef,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    parameters: Option<ObjectIdentifier>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    public_key: Option<BitStringRef<'a>>,
}

/// RFC 8017, appendix A.1.2, without other primes.
#[derive(Sequence)]
struct RsaPrivateKey<'a> {
    version: u8,
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
    private_exponent: UintRef<'a>,
    prime1: UintRef<'a>,
    prime2: UintRef<'a>,
    exponent1: UintRef<'a>,
    exponent2: UintRef<'a>,
    coefficient: UintRef<'a>,
    other_primes: Option<AnyRef<'a>>,
}

/// The parts of a private key that a token asks for one by one. Numbers are big-endian.
pub enum PrivateParts<'a> {
    /// The scalar of a curve, or the seed of Ed25519.
    Scalar(&'a [u8]),
    /// RFC 8017, section 3.2, representation two.
    Rsa {
        /// n
        modulus: &'a [u8],
        /// e
        exponent: &'a [u8],
        /// d
        private_exponent: &'a [u8],
        /// p and q
        primes: [&'a [u8]; 2],
        /// d mod p - 1 and d mod q - 1
        exponents: [&'a [u8]; 2],
        /// The inverse of q mod p.
        coefficient: &'a [u8],
    },
}

impl fmt::Debug for PrivateParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PrivateParts::Scalar(_) => "PrivateParts::Scalar(..)",
            PrivateParts::Rsa { .. } => "PrivateParts::Rsa(..)",
        })
    }
}

impl<'a> PrivateParts<'a> {
    /// Takes a PKCS#8 key apart that [`check_private_key`] has taken.
    ///
    /// # Errors
    /// [`ImportError::Malformed`] for everything else.
    pub fn of(pkcs8: &'a [u8]) -> Result<Self, ImportError> {
        let malformed = |_| ImportError::Malformed;
        let info = PrivateKeyInfoRef::from_der(pkcs8).map_err(malformed)?;
        let key = info.private_key.as_bytes();
        Ok(match info.algorithm.oid {
            EC_PUBLIC_KEY => {
                PrivateParts::Scalar(EcPrivateKey::from_der(key).map_err(malformed)?.private_key.as_bytes())
            }
            RSA_ENCRYPTION => {
                let key = RsaPrivateKey::from_der(key).map_err(malformed)?;
                PrivateParts::Rsa {
                    modulus: key.modulus.as_bytes(),
                    exponent: key.exponent.as_bytes(),
                    private_exponent: key.private_exponent.as_bytes(),
                    primes: [key.prime1.as_bytes(), key.prime2.as_bytes()],
                    exponents: [key.exponent1.as_bytes(), key.exponent2.as_bytes()],
                    coefficient: key.coefficient.as_bytes(),
                }
            }
            _ => PrivateParts::Scalar(<&OctetStringRef>::from_der(key).map_err(malformed)?.as_bytes()),
        })
    }
}

/// The PKCS#8 form of an SM2 scalar that was brought without one; `None` when it is too long to have any.
pub(crate) fn sm2_pkcs8(scalar: &[u8]) -> Option<Secret> {
    let private_key = OctetStringRef::new(scalar).ok()?;
    let key = EcPrivateKey { version: 1, private_key, parameters: None, public_key: None };
    let key = Secret::new(key.to_der().ok()?);
    let algorithm = AlgorithmIdentifierRef { oid: EC_PUBLIC_KEY, parameters: Some(AnyRef::from(&SM2_CURVE)) };
    let info = PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(key.expose()).ok()?);
    info.to_der().ok().map(Secret::new)
}

/// Checks an unencrypted PKCS#8 key and gives its public half, which is computed and not believed (for RSA: modulus and
/// exponent are part of the private key).
///
/// # Errors
/// [`ImportError`] says why the key is not taken.
pub fn check_private_key(expected: PairAlgorithm, pkcs8: &[u8]) -> Result<PairPublicKey, ImportError> {
    let info = PrivateKeyInfoRef::from_der(pkcs8).map_err(|_| ImportError::Malformed)?;
    let public_half =
        info.public_key.map(|bits| bits.as_bytes().ok_or(ImportError::Malformed)).transpose()?;
    let announced = |found: PairAlgorithm| {
        if found == expected { Ok(found) } else { Err(ImportError::OtherAlgorithm { expected, found }) }
    };
    let key = info.private_key.as_bytes();
    match info.algorithm.oid {
        EC_PUBLIC_KEY => {
            let curve = info.algorithm.parameters_oid().map_err(|_| ImportError::Malformed)?;
            let found = algorithm_of_curve(curve).ok_or(ImportError::UnknownAlgorithm)?;
            check_ec(announced(found)?, curve, key, public_half)
        }
        RSA_ENCRYPTION => {
            if !info.algorithm.parameters.is_some_and(|parameters| parameters.is_null()) {
                return Err(ImportError::Malformed);
            }
            let public = check_rsa(key)?;
            announced(public.algorithm())?;
            Ok(public)
        }
        ED25519 => {
            if info.algorithm.parameters.is_some() {
                return Err(ImportError::Malformed);
            }
            announced(PairAlgorithm::Ed25519)?;
            check_ed25519(key, public_half)
        }
        _ => Err(ImportError::UnknownAlgorithm),
    }
}

fn check_ec(
    algorithm: PairAlgorithm,
    curve: ObjectIdentifier,
    key: &[u8],
    outer_public: Option<&[u8]>,
) -> Result<PairPublicKey, ImportError> {
    let key = EcPrivateKey::from_der(key).map_err(|_| ImportError::Malformed)?;
    if key.version != 1 || key.parameters.is_some_and(|named| named != curve) {
        return Err(ImportError::Malformed);
    }
    let expected = algorithm.coordinate_len().ok_or(ImportError::UnknownAlgorithm)?;
    let scalar = key.private_key.as_bytes();
    if scalar.len() != expected {
        return Err(ImportError::ScalarLen { expected, len: scalar.len() });
    }
    // Said before the private half is looked at: a point off the curve is worth its own words.
    let inner_public =
        key.public_key.map(|bits| bits.as_bytes().ok_or(ImportError::Malformed)).transpose()?;
    for point in [inner_public, outer_public].into_iter().flatten() {
        PairPublicKey::from_point(algorithm, point).map_err(ImportError::PublicHalf)?;
    }
    let computed = leaving_no_stack(|| public_point(algorithm, scalar)).ok_or(ImportError::ScalarRange)?;
    require_same(computed.point().unwrap_or_default(), [inner_public, outer_public])?;
    Ok(computed)
}

/// The public half of a scalar; `None` when the scalar is out of range.
fn public_point(algorithm: PairAlgorithm, scalar: &[u8]) -> Option<PairPublicKey> {
    macro_rules! point {
        ($curve:ident) => {{
            let key = $curve::SecretKey::from_slice(scalar).ok()?;
            let point = $curve::elliptic_curve::sec1::ToSec1Point::to_sec1_point(&key.public_key(), false);
            PairPublicKey::from_point(algorithm, point.as_bytes()).ok()
        }};
    }
    match algorithm {
        PairAlgorithm::Sm2 => {
            if bool::from(is_sm2_order_minus_one(scalar)) {
                return None;
            }
            point!(sm2)
        }
        PairAlgorithm::P256 => point!(p256),
        PairAlgorithm::P384 => point!(p384),
        PairAlgorithm::P521 => point!(p521),
        _ => None,
    }
}

/// GB/T 32918.2, section 6.1: a signer divides by 1 + d, so d is at most n - 2.
fn is_sm2_order_minus_one(scalar: &[u8]) -> Choice {
    const ORDER_MINUS_ONE: [u8; 32] = [
        0xFF, 0xFF, 0xFF, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x72,
        0x03, 0xDF, 0x6B, 0x21, 0xC6, 0x05, 0x2B, 0x53, 0xBB, 0xF4, 0x09, 0x39, 0xD5, 0x41, 0x22,
    ];
    ORDER_MINUS_ONE.ct_eq(scalar)
}

fn check_rsa(key: &[u8]) -> Result<PairPublicKey, ImportError> {
    let key = RsaPrivateKey::from_der(key).map_err(|_| ImportError::Malformed)?;
    match (key.version, key.other_primes) {
        (0, None) => {}
        (1, Some(_)) => return Err(ImportError::MultiPrime),
        _ => return Err(ImportError::Malformed),
    }
    PairPublicKey::from_rsa(key.modulus.as_bytes(), key.exponent.as_bytes()).map_err(ImportError::PublicHalf)
}

fn check_ed25519(key: &[u8], public_half: Option<&[u8]>) -> Result<PairPublicKey, ImportError> {
    const SEED_LEN: usize = 32;
    let seed = <&OctetStringRef>::from_der(key).map_err(|_| ImportError::Malformed)?.as_bytes();
    let seed: &[u8; SEED_LEN] =
        seed.try_into().map_err(|_| ImportError::ScalarLen { expected: SEED_LEN, len: seed.len() })?;
    if let Some(public) = public_half {
        PairPublicKey::from_ed25519(public).map_err(ImportError::PublicHalf)?;
    }
    let computed =
        leaving_no_stack(|| ed25519_dalek::SigningKey::from_bytes(seed).verifying_key().to_bytes());
    require_same(&computed, [public_half, None])?;
    PairPublicKey::from_ed25519(&computed).map_err(ImportError::PublicHalf)
}

fn require_same(computed: &[u8], given: [Option<&[u8]>; 2]) -> Result<(), ImportError> {
    let is_same = given.into_iter().flatten().all(|public| public == computed);
    if is_same { Ok(()) } else { Err(ImportError::OtherPublicKey) }
}
