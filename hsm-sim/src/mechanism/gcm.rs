//! AES-GCM and SM4-GCM, with a 96-bit IV and a 128-bit tag and nothing else.

use aes::Aes192;
use aes::cipher::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm, Nonce};
use sm4::Sm4;
use zeroize::Zeroizing;

use crate::mechanism::BlockCipher;
use crate::mechanism::cipher::{Bytes, Collected, Direction, OutputLen, WholeMessage};
use crate::mechanism::transform::Begun;
use crate::personality::GcmIv;
use crate::random;
use crate::refusal::Refusal;

pub const NONCE_LEN: usize = 12;
pub const TAG_LEN: usize = 16;

pub type GcmNonce = [u8; NONCE_LEN];

/// What `CK_GCM_PARAMS` says, once it is known to be 128 bits of tag, and 96 bits of IV or none.
#[derive(Debug)]
pub struct GcmParameter {
    pub nonce: Option<GcmNonce>,
    pub aad: Vec<u8>,
}

enum Cipher {
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<Aes256Gcm>),
    Sm4(Box<AesGcm<Sm4, U12>>),
}

/// Where the nonce of a message is.
#[derive(Debug, Clone, Copy)]
enum NoncePlace {
    Known(GcmNonce),
    /// Made by the token, and put after the tag.
    MadeForTheEnd(GcmNonce),
    /// Behind the tag of a message that comes in.
    AtTheEnd,
}

/// A keyed cipher with the nonce and the associated data of one message.
struct Gcm {
    cipher: Cipher,
    nonce: NoncePlace,
    aad: Vec<u8>,
    direction: Direction,
}

/// Begins a message. Who makes the nonce is a convention of the vendor.
pub fn gcm(
    direction: Direction,
    cipher: BlockCipher,
    key: &[u8],
    parameter: GcmParameter,
    convention: GcmIv,
) -> Result<Begun, Refusal> {
    let cipher = Cipher::new(cipher, key)?;
    let GcmParameter { nonce, aad } = parameter;
    let (nonce, made_nonce) = match (direction, convention, nonce) {
        (Direction::Encrypt, GcmIv::Caller, Some(nonce)) => (NoncePlace::Known(nonce), None),
        (Direction::Encrypt, GcmIv::TokenReturns, Some(_)) => {
            let nonce = random::bytes()?;
            (NoncePlace::Known(nonce), Some(nonce))
        }
        (Direction::Encrypt, GcmIv::TokenAppends, None) => {
            (NoncePlace::MadeForTheEnd(random::bytes()?), None)
        }
        (Direction::Decrypt, _, Some(nonce)) => (NoncePlace::Known(nonce), None),
        (Direction::Decrypt, GcmIv::TokenAppends, None) => (NoncePlace::AtTheEnd, None),
        _ => return Err(Refusal::MechanismParamInvalid),
    };
    let transform = Collected::transform(Gcm { cipher, nonce, aad, direction });
    Ok(Begun { transform, made_nonce })
}

impl Cipher {
    fn new(cipher: BlockCipher, key: &[u8]) -> Result<Self, Refusal> {
        let wrong_size = |_| Refusal::KeySizeRange;
        match (cipher, key.len()) {
            (BlockCipher::Aes, 16) => {
                Ok(Self::Aes128(Box::new(Aes128Gcm::new_from_slice(key).map_err(wrong_size)?)))
            }
            (BlockCipher::Aes, 24) => {
                Ok(Self::Aes192(Box::new(AesGcm::new_from_slice(key).map_err(wrong_size)?)))
            }
            (BlockCipher::Aes, _) => {
                Ok(Self::Aes256(Box::new(Aes256Gcm::new_from_slice(key).map_err(wrong_size)?)))
            }
            (BlockCipher::Sm4, _) => {
                Ok(Self::Sm4(Box::new(AesGcm::new_from_slice(key).map_err(wrong_size)?)))
            }
            (BlockCipher::Des3, _) => Err(Refusal::MechanismInvalid),
        }
    }

    /// Ciphertext followed by the tag.
    fn seal(&self, nonce: GcmNonce, aad: &[u8], msg: &[u8]) -> Result<Bytes, Refusal> {
        let nonce = Nonce::from(nonce);
        let payload = Payload { msg, aad };
        match self {
            Self::Aes128(cipher) => cipher.encrypt(&nonce, payload),
            Self::Aes192(cipher) => cipher.encrypt(&nonce, payload),
            Self::Aes256(cipher) => cipher.encrypt(&nonce, payload),
            Self::Sm4(cipher) => cipher.encrypt(&nonce, payload),
        }
        .map(Zeroizing::new)
        .map_err(|_| Refusal::DataLenRange)
    }

    fn open(&self, nonce: GcmNonce, aad: &[u8], msg: &[u8]) -> Result<Bytes, Refusal> {
        let nonce = Nonce::from(nonce);
        let payload = Payload { msg, aad };
        match self {
            Self::Aes128(cipher) => cipher.decrypt(&nonce, payload),
            Self::Aes192(cipher) => cipher.decrypt(&nonce, payload),
            Self::Aes256(cipher) => cipher.decrypt(&nonce, payload),
            Self::Sm4(cipher) => cipher.decrypt(&nonce, payload),
        }
        .map(Zeroizing::new)
        .map_err(|_| Refusal::EncryptedDataInvalid)
    }
}

impl Gcm {
    /// What the message is longer by than the plaintext.
    fn overhead(&self) -> usize {
        match self.nonce {
            NoncePlace::Known(_) => TAG_LEN,
            NoncePlace::MadeForTheEnd(_) | NoncePlace::AtTheEnd => TAG_LEN + NONCE_LEN,
        }
    }
}

impl WholeMessage for Gcm {
    fn output_len(&self, input_len: usize) -> OutputLen {
        OutputLen::Exactly(match self.direction {
            Direction::Encrypt => input_len + self.overhead(),
            Direction::Decrypt => input_len.saturating_sub(self.overhead()),
        })
    }

    fn run(&self, input: &[u8]) -> Result<Bytes, Refusal> {
        if self.direction == Direction::Decrypt && input.len() < self.overhead() {
            return Err(Refusal::EncryptedDataLenRange);
        }
        match (self.direction, self.nonce) {
            (Direction::Encrypt, NoncePlace::MadeForTheEnd(nonce)) => {
                let mut sealed = self.cipher.seal(nonce, &self.aad, input)?;
                sealed.extend_from_slice(&nonce);
                Ok(sealed)
            }
            (Direction::Encrypt, NoncePlace::Known(nonce)) => self.cipher.seal(nonce, &self.aad, input),
            (Direction::Decrypt, NoncePlace::Known(nonce)) => self.cipher.open(nonce, &self.aad, input),
            (Direction::Decrypt, NoncePlace::AtTheEnd) => {
                let (sealed, nonce) =
                    input.split_last_chunk::<NONCE_LEN>().ok_or(Refusal::EncryptedDataLenRange)?;
                self.cipher.open(*nonce, &self.aad, sealed)
            }
            (Direction::Encrypt, NoncePlace::AtTheEnd)
            | (Direction::Decrypt, NoncePlace::MadeForTheEnd(_)) => Err(Refusal::GeneralError),
        }
    }
}
