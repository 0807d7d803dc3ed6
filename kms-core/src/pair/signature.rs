//! What is signed, and how a signature is written.

use super::{PairAlgorithm, PairPublicKey, SignatureAlgorithm};
use crate::asymmetric::SM2_USER_ID;
use crate::suite::Suite;
use alloc::vec::Vec;
use der::asn1::UintRef;
use der::{Decode, Encode, Sequence};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Length of an Ed25519 signature, in bytes.
pub const ED25519_SIGNATURE_LEN: usize = 64;

/// Longest user ID in bytes: its length in bits is written in 16 bits.
const USER_ID_LEN_MAX: usize = 8191;

/// The signer's identifier that enters an SM2 signature over a message (GB/T 32918.2, section 5.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sm2UserId(Vec<u8>);

/// The user ID cannot be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an SM2 user ID of {len} bytes; 1 to 8191 are taken")]
pub struct Sm2UserIdError {
    /// Its length in bytes.
    pub len: usize,
}

impl Sm2UserId {
    /// Takes 1 to 8,191 bytes.
    ///
    /// # Errors
    /// [`Sm2UserIdError`] for any other length.
    pub fn new(bytes: &[u8]) -> Result<Self, Sm2UserIdError> {
        if (1..=USER_ID_LEN_MAX).contains(&bytes.len()) {
            Ok(Self(bytes.to_vec()))
        } else {
            Err(Sm2UserIdError { len: bytes.len() })
        }
    }
}

/// The default of GM/T 0009-2012.
impl Default for Sm2UserId {
    fn default() -> Self {
        Self(SM2_USER_ID.as_bytes().to_vec())
    }
}

/// What a caller wants signed, or says was signed.
#[derive(Clone, Copy, Debug)]
pub enum SignedInput<'a> {
    /// The message: it is hashed here.
    Message(&'a [u8]),
    /// The caller has hashed. For SM2 it is `e`, the hash over ZA and the message.
    Digest(&'a [u8]),
}

/// The input does not go with the algorithm, or the algorithm with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedInputError {
    /// The pair does not sign so.
    #[error("a pair of {pair} does not sign with {algorithm}")]
    OtherPair {
        /// What the pair is.
        pair: PairAlgorithm,
        /// What was asked.
        algorithm: SignatureAlgorithm,
    },
    /// A digest of another length.
    #[error("{algorithm} signs a digest of {expected} bytes, not of {len}")]
    DigestLen {
        /// What was asked.
        algorithm: SignatureAlgorithm,
        /// Length of its digests.
        expected: usize,
        /// Length of the given one.
        len: usize,
    },
    /// The algorithm hashes twice, so no digest stands for the message.
    #[error("{algorithm} signs the message itself, not a digest")]
    NeedsMessage {
        /// What was asked.
        algorithm: SignatureAlgorithm,
    },
}

/// What goes into a signature operation: a digest of the right length, or for Ed25519 the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToSign {
    algorithm: SignatureAlgorithm,
    bytes: Vec<u8>,
}

impl ToSign {
    /// Hashes or checks `input`. `user_id` enters only an SM2 signature over a message.
    ///
    /// # Errors
    /// [`SignedInputError`] when key, algorithm and input do not belong together.
    pub fn new(
        algorithm: SignatureAlgorithm,
        key: &PairPublicKey,
        user_id: &Sm2UserId,
        input: SignedInput<'_>,
    ) -> Result<Self, SignedInputError> {
        let other_pair = SignedInputError::OtherPair { pair: key.algorithm(), algorithm };
        if !algorithm.fits(key.algorithm()) {
            return Err(other_pair);
        }
        let bytes = match (input, algorithm.digest_len()) {
            (SignedInput::Message(message), None) => message.to_vec(),
            (SignedInput::Digest(_), None) => return Err(SignedInputError::NeedsMessage { algorithm }),
            (SignedInput::Digest(digest), Some(expected)) if digest.len() == expected => digest.to_vec(),
            (SignedInput::Digest(digest), Some(expected)) => {
                return Err(SignedInputError::DigestLen { algorithm, expected, len: digest.len() });
            }
            (SignedInput::Message(message), Some(digest_len)) => match (algorithm, digest_len) {
                (SignatureAlgorithm::Sm2Sm3, _) => {
                    let za = key.sm2_za(&user_id.0).ok_or(other_pair)?;
                    Suite::Sm.hash(&[&za, message]).0.to_vec()
                }
                (_, 32) => Sha256::digest(message).to_vec(),
                (_, 48) => Sha384::digest(message).to_vec(),
                _ => Sha512::digest(message).to_vec(),
            },
        };
        Ok(Self { algorithm, bytes })
    }

    /// How it is signed.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// The digest, or for Ed25519 the message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The digest as EMSA-PKCS1-v1_5 pads it: a DigestInfo (RFC 8017, section 9.2, note 1). `None` for every other
    /// algorithm.
    pub fn digest_info(&self) -> Option<Vec<u8>> {
        let prefix: &[u8] = match self.algorithm {
            SignatureAlgorithm::RsaPkcs1Sha256 => {
                b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
            }
            SignatureAlgorithm::RsaPkcs1Sha384 => {
                b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"
            }
            SignatureAlgorithm::RsaPkcs1Sha512 => {
                b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"
            }
            _ => return None,
        };
        Some([prefix, &self.bytes].concat())
    }
}

/// The bytes have not the form of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not in the form of a signature of {algorithm}")]
pub struct SignatureEncodingError {
    /// Of which algorithm.
    pub algorithm: SignatureAlgorithm,
}

/// `ECDSA-Sig-Value` of RFC 3279, and the same of GM/T 0009.
#[derive(Sequence)]
struct TwoNumbers<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

impl SignatureAlgorithm {
    /// Length in bytes of a raw signature by a pair: r and s of a coordinate's length, 64 bytes, or a modulus.
    fn raw_len(self, pair: PairAlgorithm) -> Option<usize> {
        let len = match (pair.coordinate_len(), pair.rsa_modulus_len()) {
            (Some(coordinate_len), _) => 2 * coordinate_len,
            (None, Some(modulus_len)) => modulus_len,
            (None, None) => ED25519_SIGNATURE_LEN,
        };
        self.fits(pair).then_some(len)
    }

    /// From the raw form (`r || s` for ECDSA and SM2) to that of the API: DER for those two, raw for the others.
    ///
    /// # Errors
    /// [`SignatureEncodingError`] for another length.
    pub fn signature_to_api(
        self,
        pair: PairAlgorithm,
        raw: &[u8],
    ) -> Result<Vec<u8>, SignatureEncodingError> {
        let error = SignatureEncodingError { algorithm: self };
        if self.raw_len(pair) != Some(raw.len()) {
            return Err(error);
        }
        if !self.is_two_numbers() {
            return Ok(raw.to_vec());
        }
        let (r, s) = raw.split_at(raw.len() / 2);
        let numbers =
            TwoNumbers { r: UintRef::new(r).map_err(|_| error)?, s: UintRef::new(s).map_err(|_| error)? };
        numbers.to_der().map_err(|_| error)
    }

    /// From the form of the API to the raw one. DER is read strictly: one signature has one form.
    ///
    /// # Errors
    /// [`SignatureEncodingError`] for anything else.
    pub fn signature_from_api(
        self,
        pair: PairAlgorithm,
        signature: &[u8],
    ) -> Result<Vec<u8>, SignatureEncodingError> {
        let error = SignatureEncodingError { algorithm: self };
        let raw_len = self.raw_len(pair).ok_or(error)?;
        if !self.is_two_numbers() {
            return if signature.len() == raw_len { Ok(signature.to_vec()) } else { Err(error) };
        }
        let TwoNumbers { r, s } = TwoNumbers::from_der(signature).map_err(|_| error)?;
        let mut raw = alloc::vec![0; raw_len];
        for (place, number) in raw.chunks_mut(raw_len / 2).zip([r, s]) {
            let number = number.as_bytes();
            let start = place.len().checked_sub(number.len()).ok_or(error)?;
            place[start..].copy_from_slice(number);
        }
        Ok(raw)
    }
}
