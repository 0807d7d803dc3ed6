//! Ciphertexts under a public key, as they cross the API.

use super::{EncryptionAlgorithm, PairAlgorithm, PairPublicKey};
use alloc::vec::Vec;
use der::{Decode, Encode};
use sm2::pke::{Cipher, Mode};

/// Longest plaintext of an SM2 encryption here, in bytes: keys and other short things. Anything longer takes a data key.
pub const SM2_PLAINTEXT_LEN_MAX: usize = 1024;

/// Point, hash, two more tags and lengths, and the outer ones, at their longest.
const SM2_DER_OVERHEAD_MAX: usize = 128;

/// The bytes are no ciphertext under this key, whatever was encrypted. Says nothing about why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext does not open under this key")]
pub struct CiphertextError;

/// A ciphertext of GB/T 32918.4 whose point is on the curve, and whose parts have possible lengths.
#[derive(Debug)]
pub struct Sm2Ciphertext<'a>(Cipher<'a>);

impl<'a> Sm2Ciphertext<'a> {
    /// Reads the SEQUENCE of GM/T 0009.
    ///
    /// # Errors
    /// [`CiphertextError`] for everything that is not exactly one with 1 to [`SM2_PLAINTEXT_LEN_MAX`] bytes in it.
    pub fn from_der(der: &'a [u8]) -> Result<Self, CiphertextError> {
        if der.len() > SM2_PLAINTEXT_LEN_MAX + SM2_DER_OVERHEAD_MAX {
            return Err(CiphertextError);
        }
        Self::checked(Cipher::from_der(der).map_err(|_| CiphertextError)?)
    }

    /// Reads C1 || C3 || C2, or C1 || C2 || C3 where `is_hash_last`; C1 is an uncompressed point.
    ///
    /// # Errors
    /// As [`Sm2Ciphertext::from_der`].
    pub fn from_raw(raw: &'a [u8], is_hash_last: bool) -> Result<Self, CiphertextError> {
        if raw.first() != Some(&4) {
            return Err(CiphertextError);
        }
        Self::checked(Cipher::from_slice(raw, mode(is_hash_last)).map_err(|_| CiphertextError)?)
    }

    fn checked(cipher: Cipher<'a>) -> Result<Self, CiphertextError> {
        let is_possible = (1..=SM2_PLAINTEXT_LEN_MAX).contains(&cipher.c2().len());
        if is_possible { Ok(Self(cipher)) } else { Err(CiphertextError) }
    }

    /// The SEQUENCE of GM/T 0009.
    pub fn to_der(&self) -> Vec<u8> {
        self.0.to_der().expect("two numbers and two short strings have a DER form")
    }

    /// C1 || C3 || C2, or C1 || C2 || C3 where `is_hash_last`.
    pub fn to_raw(&self, is_hash_last: bool) -> Vec<u8> {
        self.0.to_vec(mode(is_hash_last), false).expect("the buffer is made to fit")
    }

    /// Length of the plaintext.
    pub fn plaintext_len(&self) -> usize {
        self.0.c2().len()
    }

    /// The library's form, for decryption in software.
    pub fn cipher(&self) -> &Cipher<'a> {
        &self.0
    }
}

fn mode(is_hash_last: bool) -> Mode {
    if is_hash_last { Mode::C1C2C3 } else { Mode::C1C3C2 }
}

impl EncryptionAlgorithm {
    /// What is known to be wrong about a ciphertext without the private key: another form, a point off the curve,
    /// a number that is not below the modulus.
    ///
    /// # Errors
    /// [`CiphertextError`].
    pub fn check_ciphertext(self, key: &PairPublicKey, ciphertext: &[u8]) -> Result<(), CiphertextError> {
        let is_possible = match (self, key.rsa_modulus()) {
            (EncryptionAlgorithm::Sm2, None) if key.algorithm() == PairAlgorithm::Sm2 => {
                return Sm2Ciphertext::from_der(ciphertext).map(|_| ());
            }
            // Equal lengths, so the order of the bytes is the order of the numbers.
            (EncryptionAlgorithm::RsaOaepSha256, Some(modulus)) => {
                ciphertext.len() == modulus.len() && ciphertext < modulus
            }
            _ => false,
        };
        if is_possible { Ok(()) } else { Err(CiphertextError) }
    }
}
