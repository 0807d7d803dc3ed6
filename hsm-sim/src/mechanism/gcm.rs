//! AES-GCM and SM4-GCM, with a 96-bit IV and a 128-bit tag and nothing else.

use aes::Aes192;
use aes::cipher::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm, Nonce};
use sm4::Sm4;
use zeroize::Zeroizing;

use crate::object::KeyKind;
use crate::refusal::Refusal;

pub const NONCE_LEN: usize = 12;
pub const TAG_LEN: usize = 16;

/// What `CK_GCM_PARAMS` says, once it is known to be 96 bits of IV and 128 bits of tag.
#[derive(Debug)]
pub struct GcmParameter {
    pub nonce: [u8; NONCE_LEN],
    pub aad: Vec<u8>,
}

enum Cipher {
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<Aes256Gcm>),
    Sm4(Box<AesGcm<Sm4, U12>>),
}

/// A keyed cipher with the nonce and the associated data of one message.
pub struct Gcm {
    cipher: Cipher,
    parameter: GcmParameter,
}

impl Gcm {
    pub fn new(kind: KeyKind, key: &[u8], parameter: GcmParameter) -> Result<Self, Refusal> {
        let wrong_size = |_| Refusal::KeySizeRange;
        let cipher = match (kind, key.len()) {
            (KeyKind::Aes, 16) => {
                Cipher::Aes128(Box::new(Aes128Gcm::new_from_slice(key).map_err(wrong_size)?))
            }
            (KeyKind::Aes, 24) => Cipher::Aes192(Box::new(AesGcm::new_from_slice(key).map_err(wrong_size)?)),
            (KeyKind::Aes, _) => {
                Cipher::Aes256(Box::new(Aes256Gcm::new_from_slice(key).map_err(wrong_size)?))
            }
            (KeyKind::Sm4, _) => Cipher::Sm4(Box::new(AesGcm::new_from_slice(key).map_err(wrong_size)?)),
            _ => return Err(Refusal::KeyTypeInconsistent),
        };
        Ok(Self { cipher, parameter })
    }

    /// Ciphertext followed by the tag.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>, Refusal> {
        let nonce = Nonce::from(self.parameter.nonce);
        let payload = Payload { msg: plaintext, aad: &self.parameter.aad };
        match &self.cipher {
            Cipher::Aes128(cipher) => cipher.encrypt(&nonce, payload),
            Cipher::Aes192(cipher) => cipher.encrypt(&nonce, payload),
            Cipher::Aes256(cipher) => cipher.encrypt(&nonce, payload),
            Cipher::Sm4(cipher) => cipher.encrypt(&nonce, payload),
        }
        .map_err(|_| Refusal::DataLenRange)
    }

    pub fn open(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let nonce = Nonce::from(self.parameter.nonce);
        let payload = Payload { msg: ciphertext, aad: &self.parameter.aad };
        match &self.cipher {
            Cipher::Aes128(cipher) => cipher.decrypt(&nonce, payload),
            Cipher::Aes192(cipher) => cipher.decrypt(&nonce, payload),
            Cipher::Aes256(cipher) => cipher.decrypt(&nonce, payload),
            Cipher::Sm4(cipher) => cipher.decrypt(&nonce, payload),
        }
        .map(Zeroizing::new)
        .map_err(|_| Refusal::EncryptedDataInvalid)
    }
}
