//! RSA signatures with PKCS#1 v1.5 padding over any data (RFC 8017, 9.2 from step 3 on): what raw
//! `CKM_RSA_PKCS` is. The safe interface of the library signs only what a hash of its own names, so
//! this goes one level down, to the functions that it is made of.
#![expect(unsafe_code, reason = "the C library beneath aws-lc-rs")]

use std::ffi::c_int;
use std::ptr::NonNull;

use aws_lc_sys as aws_lc;
use der::{Encode, Sequence, asn1::UintRef};
use subtle::ConstantTimeEq;

use crate::mechanism::rsa_key::PublicHalf;
use crate::refusal::Refusal;

/// Bytes of the modulus that the padding takes at least.
const PADDING_LEN_MIN: usize = 11;

/// A key of the C library, freed with this.
struct Key(NonNull<aws_lc::RSA>);

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the key came from the library, and nothing else holds it.
        unsafe { aws_lc::RSA_free(self.0.as_ptr()) };
    }
}

/// RFC 8017, A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

impl Key {
    /// From an `RSAPrivateKey` of RFC 8017.
    fn private(der: &[u8]) -> Result<Self, Refusal> {
        // SAFETY: the pointer and the length are those of one slice, which is only read.
        let key = unsafe { aws_lc::RSA_private_key_from_bytes(der.as_ptr(), der.len()) };
        NonNull::new(key).map(Self).ok_or(Refusal::DeviceError)
    }

    fn public(half: &PublicHalf) -> Result<Self, Refusal> {
        let number = |bytes| UintRef::new(bytes).map_err(|_| Refusal::DeviceError);
        let key = RsaPublicKey { modulus: number(&half.modulus)?, public_exponent: number(&half.exponent)? };
        let der = key.to_der().map_err(|_| Refusal::DeviceError)?;
        // SAFETY: the pointer and the length are those of one slice, which is only read.
        let key = unsafe { aws_lc::RSA_public_key_from_bytes(der.as_ptr(), der.len()) };
        NonNull::new(key).map(Self).ok_or(Refusal::DeviceError)
    }

    fn modulus_len(&self) -> usize {
        // SAFETY: the key is the library's and lives as long as this.
        unsafe { aws_lc::RSA_size(self.0.as_ptr()) as usize }
    }
}

/// The length that a result has, if the C library gave one.
fn done(answer: c_int) -> Option<usize> {
    usize::try_from(answer).ok()
}

fn require_room(key: &Key, data: &[u8]) -> Result<(), Refusal> {
    if data.len() + PADDING_LEN_MIN > key.modulus_len() { Err(Refusal::DataLenRange) } else { Ok(()) }
}

/// `private` is an `RSAPrivateKey` of RFC 8017.
pub fn sign(private: &[u8], data: &[u8]) -> Result<Vec<u8>, Refusal> {
    let key = Key::private(private)?;
    require_room(&key, data)?;
    let mut signature = vec![0; key.modulus_len()];
    // SAFETY: the input is one slice; the output has the length of the modulus, which is all that is
    // written; the key lives until the end of this function.
    let answer = unsafe {
        aws_lc::RSA_private_encrypt(
            data.len(),
            data.as_ptr(),
            signature.as_mut_ptr(),
            key.0.as_ptr(),
            aws_lc::RSA_PKCS1_PADDING,
        )
    };
    match done(answer) {
        Some(len) if len == signature.len() => Ok(signature),
        _ => Err(Refusal::DeviceError),
    }
}

pub fn verify(public: &PublicHalf, data: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    let key = Key::public(public)?;
    require_room(&key, data)?;
    let mut signed = vec![0; key.modulus_len()];
    // SAFETY: as in `sign`; what is recovered is never longer than the modulus.
    let answer = unsafe {
        aws_lc::RSA_public_decrypt(
            signature.len(),
            signature.as_ptr(),
            signed.as_mut_ptr(),
            key.0.as_ptr(),
            aws_lc::RSA_PKCS1_PADDING,
        )
    };
    let signed = done(answer).and_then(|len| signed.get(..len)).ok_or(Refusal::SignatureInvalid)?;
    if bool::from(signed.ct_eq(data)) { Ok(()) } else { Err(Refusal::SignatureInvalid) }
}
