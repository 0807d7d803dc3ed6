//! RSA encryption (RFC 8017): PKCS#1 v1.5 and OAEP. All padding is the library's.
//!
//! What the library does not do is not offered: OAEP over SHA-224, an MGF over another hash.

use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
    OaepAlgorithm, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, Pkcs1PrivateDecryptingKey,
    Pkcs1PublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use zeroize::Zeroizing;

use crate::mechanism::Hash;
use crate::mechanism::cipher::{Bytes, OutputLen, WholeMessage};
use crate::mechanism::rsa_key::PublicHalf;
use crate::refusal::Refusal;

pub const BITS_MIN: u64 = 2048;
pub const BITS_MAX: u64 = 4096;

/// How a message is padded before it is encrypted.
pub enum EncryptionPadding {
    Pkcs1,
    Oaep { algorithm: &'static OaepAlgorithm, label: Vec<u8> },
}

impl EncryptionPadding {
    pub fn oaep(hash: Hash, label: Vec<u8>) -> Result<Self, Refusal> {
        let algorithm = match hash {
            Hash::Sha1 => &OAEP_SHA1_MGF1SHA1,
            Hash::Sha256 => &OAEP_SHA256_MGF1SHA256,
            Hash::Sha384 => &OAEP_SHA384_MGF1SHA384,
            Hash::Sha512 => &OAEP_SHA512_MGF1SHA512,
            Hash::Sha224 | Hash::Sm3 => return Err(Refusal::MechanismParamInvalid),
        };
        Ok(Self::Oaep { algorithm, label })
    }
}

enum EncryptingKey {
    Pkcs1(Pkcs1PublicEncryptingKey),
    Oaep(OaepPublicEncryptingKey, &'static OaepAlgorithm, Vec<u8>),
}

pub struct Encryption(EncryptingKey);

impl Encryption {
    pub fn new(public: &PublicHalf, padding: EncryptionPadding) -> Result<Self, Refusal> {
        let broken = |_| Refusal::DeviceError;
        let key = PublicEncryptingKey::from_der(&public.to_der()?).map_err(|_| Refusal::DeviceError)?;
        Ok(Self(match padding {
            EncryptionPadding::Pkcs1 => {
                EncryptingKey::Pkcs1(Pkcs1PublicEncryptingKey::new(key).map_err(broken)?)
            }
            EncryptionPadding::Oaep { algorithm, label } => {
                EncryptingKey::Oaep(OaepPublicEncryptingKey::new(key).map_err(broken)?, algorithm, label)
            }
        }))
    }

    fn message_len_max(&self) -> usize {
        match &self.0 {
            EncryptingKey::Pkcs1(key) => key.max_plaintext_size(),
            EncryptingKey::Oaep(key, algorithm, _) => key.max_plaintext_size(algorithm),
        }
    }
}

impl WholeMessage for Encryption {
    fn output_len(&self, _input_len: usize) -> OutputLen {
        OutputLen::Exactly(match &self.0 {
            EncryptingKey::Pkcs1(key) => key.ciphertext_size(),
            EncryptingKey::Oaep(key, ..) => key.ciphertext_size(),
        })
    }

    fn run(&self, input: &[u8]) -> Result<Bytes, Refusal> {
        if input.len() > self.message_len_max() {
            return Err(Refusal::DataLenRange);
        }
        let mut place = Zeroizing::new(vec![0; self.output_len(input.len()).max()]);
        let done = match &self.0 {
            EncryptingKey::Pkcs1(key) => key.encrypt(input, &mut place),
            EncryptingKey::Oaep(key, algorithm, label) => {
                key.encrypt(algorithm, input, &mut place, Some(label))
            }
        };
        let len = done.map_err(|_| Refusal::DeviceError)?.len();
        place.truncate(len);
        Ok(place)
    }
}

enum DecryptingKey {
    Pkcs1(Pkcs1PrivateDecryptingKey),
    Oaep(OaepPrivateDecryptingKey, &'static OaepAlgorithm, Vec<u8>),
}

pub struct Decryption {
    key: DecryptingKey,
    modulus_len: usize,
}

impl Decryption {
    pub fn new(private: &[u8], padding: EncryptionPadding) -> Result<Self, Refusal> {
        let broken = |_| Refusal::DeviceError;
        let pkcs8 = crate::private_key::rsa_to_pkcs8(private)?;
        let key = PrivateDecryptingKey::from_pkcs8(&pkcs8).map_err(|_| Refusal::DeviceError)?;
        let modulus_len = key.key_size_bytes();
        let key = match padding {
            EncryptionPadding::Pkcs1 => {
                DecryptingKey::Pkcs1(Pkcs1PrivateDecryptingKey::new(key).map_err(broken)?)
            }
            EncryptionPadding::Oaep { algorithm, label } => {
                DecryptingKey::Oaep(OaepPrivateDecryptingKey::new(key).map_err(broken)?, algorithm, label)
            }
        };
        Ok(Self { key, modulus_len })
    }
}

impl WholeMessage for Decryption {
    fn output_len(&self, _input_len: usize) -> OutputLen {
        OutputLen::AtMost(match &self.key {
            DecryptingKey::Pkcs1(key) => key.min_output_size(),
            DecryptingKey::Oaep(key, ..) => key.min_output_size(),
        })
    }

    fn run(&self, input: &[u8]) -> Result<Bytes, Refusal> {
        if input.len() != self.modulus_len {
            return Err(Refusal::EncryptedDataLenRange);
        }
        let mut place = Zeroizing::new(vec![0; self.output_len(input.len()).max()]);
        let done = match &self.key {
            DecryptingKey::Pkcs1(key) => key.decrypt(input, &mut place),
            DecryptingKey::Oaep(key, algorithm, label) => {
                key.decrypt(algorithm, input, &mut place, Some(label))
            }
        };
        let len = done.map_err(|_| Refusal::EncryptedDataInvalid)?.len();
        place.truncate(len);
        Ok(place)
    }
}
