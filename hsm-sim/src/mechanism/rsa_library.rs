//! RSA signatures (RFC 8017): PKCS#1 v1.5 over any data, which is what raw `CKM_RSA_PKCS` is, and PSS
//! with any salt. The safe interface of the library signs only what hashes of its own choice name, with
//! a salt of its own choice, so this goes one level down, to the functions that it is made of.
#![expect(unsafe_code, reason = "the C library beneath aws-lc-rs")]

use std::ffi::c_int;
use std::ptr::NonNull;

use aws_lc_sys as aws_lc;
use der::{Encode, Sequence, asn1::UintRef};
use subtle::ConstantTimeEq;

use crate::mechanism::Hash;
use crate::mechanism::parameter::PssParameter;
use crate::mechanism::rsa_key::PublicHalf;
use crate::refusal::Refusal;

/// Bytes of the modulus that the padding takes at least.
const PADDING_LEN_MIN: usize = 11;

/// The DER in front of a digest in a DigestInfo (RFC 8017, 9.2, note 1).
pub fn digest_info_prefix(hash: Hash) -> Result<&'static [u8], Refusal> {
    match hash {
        Hash::Sha1 => Ok(b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14"),
        Hash::Sha224 => Ok(b"\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04\x05\x00\x04\x1c"),
        Hash::Sha256 => Ok(b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"),
        Hash::Sha384 => Ok(b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"),
        Hash::Sha512 => Ok(b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"),
        Hash::Sm3 => Err(Refusal::MechanismInvalid),
    }
}

/// The library's name for a hash.
fn library_hash(hash: Hash) -> Result<*const aws_lc::EVP_MD, Refusal> {
    // SAFETY: these functions only return the address of a constant.
    unsafe {
        match hash {
            Hash::Sha1 => Ok(aws_lc::EVP_sha1()),
            Hash::Sha224 => Ok(aws_lc::EVP_sha224()),
            Hash::Sha256 => Ok(aws_lc::EVP_sha256()),
            Hash::Sha384 => Ok(aws_lc::EVP_sha384()),
            Hash::Sha512 => Ok(aws_lc::EVP_sha512()),
            Hash::Sm3 => Err(Refusal::MechanismParamInvalid),
        }
    }
}

/// Refuses a salt that does not fit into a signature beside the digest (RFC 8017, 9.1.1, step 3).
pub fn require_pss_room(parameter: PssParameter, modulus_len: usize) -> Result<(), Refusal> {
    library_hash(parameter.hash)?;
    let room = modulus_len.checked_sub(parameter.hash.len() + 2);
    if room.is_some_and(|room| parameter.salt_len <= room) {
        Ok(())
    } else {
        Err(Refusal::MechanismParamInvalid)
    }
}

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
pub fn sign_pkcs1(private: &[u8], data: &[u8]) -> Result<Vec<u8>, Refusal> {
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

pub fn verify_pkcs1(public: &PublicHalf, data: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    let key = Key::public(public)?;
    require_room(&key, data)?;
    let mut signed = vec![0; key.modulus_len()];
    // SAFETY: as in `sign_pkcs1`; what is recovered is never longer than the modulus.
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

/// What both halves of PSS need beside the key.
struct Pss {
    hash: *const aws_lc::EVP_MD,
    mask_hash: *const aws_lc::EVP_MD,
    salt_len: c_int,
}

impl Pss {
    fn new(parameter: PssParameter, digest: &[u8]) -> Result<Self, Refusal> {
        if digest.len() != parameter.hash.len() {
            return Err(Refusal::DataLenRange);
        }
        Ok(Self {
            hash: library_hash(parameter.hash)?,
            mask_hash: library_hash(parameter.mask_hash)?,
            salt_len: c_int::try_from(parameter.salt_len).map_err(|_| Refusal::MechanismParamInvalid)?,
        })
    }
}

/// `private` is an `RSAPrivateKey` of RFC 8017.
pub fn sign_pss(private: &[u8], parameter: PssParameter, digest: &[u8]) -> Result<Vec<u8>, Refusal> {
    let pss = Pss::new(parameter, digest)?;
    let key = Key::private(private)?;
    let mut signature = vec![0; key.modulus_len()];
    let mut len = 0;
    // SAFETY: the input is one slice; the output has the length that is passed, and the length that was
    // used goes to a local; the hashes are constants; the key lives until the end of this function.
    let answer = unsafe {
        aws_lc::RSA_sign_pss_mgf1(
            key.0.as_ptr(),
            &raw mut len,
            signature.as_mut_ptr(),
            signature.len(),
            digest.as_ptr(),
            digest.len(),
            pss.hash,
            pss.mask_hash,
            pss.salt_len,
        )
    };
    if answer == 1 && len == signature.len() { Ok(signature) } else { Err(Refusal::DeviceError) }
}

pub fn verify_pss(
    public: &PublicHalf,
    parameter: PssParameter,
    digest: &[u8],
    signature: &[u8],
) -> Result<(), Refusal> {
    let pss = Pss::new(parameter, digest)?;
    let key = Key::public(public)?;
    // SAFETY: both inputs are slices with their lengths; the rest is as in `sign_pss`.
    let answer = unsafe {
        aws_lc::RSA_verify_pss_mgf1(
            key.0.as_ptr(),
            digest.as_ptr(),
            digest.len(),
            pss.hash,
            pss.mask_hash,
            pss.salt_len,
            signature.as_ptr(),
            signature.len(),
        )
    };
    if answer == 1 { Ok(()) } else { Err(Refusal::SignatureInvalid) }
}
