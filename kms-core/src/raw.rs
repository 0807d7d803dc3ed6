//! Raw encryption: ciphertexts that other systems read and write, without a header of ours (docs/formats/raw.md).

use crate::envelope::CiphertextInvalid;
use crate::secret::{Secret, leaving_no_stack};
use crate::suite::CheckValue;
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use alloc::vec;
use alloc::vec::Vec;
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit,
};
use cbc::{Decryptor, Encryptor};
use core::fmt;
use des::TdesEde3;
use hmac::{EagerHash, Hmac, Mac};
use sha2::{Sha256, Sha384, Sha512};
use sm3::Sm3;
use sm4::Sm4;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Longest plaintext of `RawEncrypt`, in bytes.
pub const PLAINTEXT_LEN_MAX: usize = 64 * 1024;
/// Longest additional authenticated data, in bytes.
pub const ASSOCIATED_DATA_LEN_MAX: usize = 64 * 1024;
/// Longest ciphertext of `RawDecrypt`, in bytes: the longest plaintext and a block of padding.
pub const CIPHERTEXT_LEN_MAX: usize = PLAINTEXT_LEN_MAX + IV_LEN;
/// Length of the initialization vector of everything that is encrypted here, in bytes.
pub const IV_LEN: usize = 16;
/// Length of one of the three keys of 3DES.
const DES_KEY_LEN: usize = 8;

/// How keys for `RAW_ENCRYPT_DECRYPT` encrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RawAlgorithm {
    /// AES-128 in CBC, then HMAC-SHA-256 (RFC 7518, section 5.2.3).
    Aes128CbcHmacSha256,
    /// AES-192 in CBC, then HMAC-SHA-384 (RFC 7518, section 5.2.4).
    Aes192CbcHmacSha384,
    /// AES-256 in CBC, then HMAC-SHA-512 (RFC 7518, section 5.2.5).
    Aes256CbcHmacSha512,
    /// The same construction of SM4 and HMAC-SM3.
    Sm4CbcHmacSm3,
    /// 3DES in CBC: decrypts what others encrypted long ago, and authenticates nothing.
    TripleDes,
}

/// How the last block of a plaintext was filled up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Padding {
    /// As PKCS#7 has it (RFC 5652, section 6.3).
    #[default]
    Pkcs7,
    /// Not at all, or in a way that the caller knows.
    None,
}

/// What cannot be a raw ciphertext of an algorithm, whatever the key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RawInputError {
    /// The initialization vector has another length than a block.
    #[error("has {len} bytes; an initialization vector of {algorithm} has {expected}")]
    InitializationVectorLen {
        /// The key's.
        algorithm: RawAlgorithm,
        /// What it must have.
        expected: usize,
        /// The given.
        len: usize,
    },
    /// The tag has another length; it is never truncated.
    #[error("has {len} bytes; a tag of {algorithm} has {expected}, and is never compared in part")]
    TagLen {
        /// The key's.
        algorithm: RawAlgorithm,
        /// What it must have.
        expected: usize,
        /// The given.
        len: usize,
    },
    /// A tag, where nothing would compare it.
    #[error(
        "is given, but {algorithm} authenticates nothing: leave it out, and trust nothing that it decrypts"
    )]
    TagOfNothing {
        /// The key's.
        algorithm: RawAlgorithm,
    },
    /// Associated data, where nothing would authenticate it.
    #[error("is given, but {algorithm} authenticates nothing: leave it out")]
    AssociatedDataOfNothing {
        /// The key's.
        algorithm: RawAlgorithm,
    },
    /// More than is taken.
    #[error("has {len} bytes; at most {ASSOCIATED_DATA_LEN_MAX} are allowed")]
    AssociatedDataLen {
        /// The given.
        len: usize,
    },
    /// Another padding than that of the construction.
    #[error("is NONE, but {algorithm} always pads as PKCS#7 has it: leave it out")]
    PaddingFixed {
        /// The key's.
        algorithm: RawAlgorithm,
    },
    /// More than is taken.
    #[error("has {len} bytes; at most {CIPHERTEXT_LEN_MAX} are taken in one call")]
    CiphertextLen {
        /// The given.
        len: usize,
    },
    /// It is empty or ends inside a block: it was cut off, or is something else.
    #[error("is not made of whole blocks")]
    Blocks,
}

/// Why a key of 3DES is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakKey {
    /// K1 = K2 or K2 = K3.
    #[error(
        "a key of 3DES with two equal neighbours (K1 = K2 or K2 = K3), which is single DES; bring K1, K2, K3, or K1, K2, K1"
    )]
    SingleDes,
    /// One part is a weak or semi-weak key of DES.
    #[error("a key of 3DES of which a part is a weak key of DES")]
    WeakDes,
}

/// What a raw encryption gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCiphertext {
    /// Whole blocks.
    pub ciphertext: Vec<u8>,
    /// Over associated data, initialization vector and ciphertext.
    pub tag: Vec<u8>,
}

/// A raw ciphertext that somebody wants decrypted, whose lengths are those of its algorithm.
#[derive(Debug)]
pub struct RawInput<'a> {
    algorithm: RawAlgorithm,
    padding: Padding,
    iv: &'a [u8],
    associated_data: &'a [u8],
    ciphertext: &'a [u8],
    tag: &'a [u8],
}

/// The parts of a raw ciphertext, as they came.
#[derive(Clone, Copy, Debug)]
pub struct RawParts<'a> {
    /// How it was padded.
    pub padding: Padding,
    /// The initialization vector.
    pub iv: &'a [u8],
    /// What is authenticated with it.
    pub associated_data: &'a [u8],
    /// The blocks.
    pub ciphertext: &'a [u8],
    /// The tag; empty where there is none.
    pub tag: &'a [u8],
}

impl RawAlgorithm {
    /// Every algorithm, in registry order.
    pub const ALL: [RawAlgorithm; 5] = [
        RawAlgorithm::Aes128CbcHmacSha256,
        RawAlgorithm::Aes192CbcHmacSha384,
        RawAlgorithm::Aes256CbcHmacSha512,
        RawAlgorithm::Sm4CbcHmacSm3,
        RawAlgorithm::TripleDes,
    ];

    /// The name used in files and on command lines (docs/formats/registry.md).
    pub const fn name(self) -> &'static str {
        match self {
            RawAlgorithm::Aes128CbcHmacSha256 => "aes-128-cbc-hmac-sha-256",
            RawAlgorithm::Aes192CbcHmacSha384 => "aes-192-cbc-hmac-sha-384",
            RawAlgorithm::Aes256CbcHmacSha512 => "aes-256-cbc-hmac-sha-512",
            RawAlgorithm::Sm4CbcHmacSm3 => "sm4-cbc-hmac-sm3",
            RawAlgorithm::TripleDes => "3des",
        }
    }

    /// The number in the registry.
    pub const fn number(self) -> u16 {
        match self {
            RawAlgorithm::Aes128CbcHmacSha256 => 5,
            RawAlgorithm::Aes192CbcHmacSha384 => 6,
            RawAlgorithm::Aes256CbcHmacSha512 => 7,
            RawAlgorithm::Sm4CbcHmacSm3 => 8,
            RawAlgorithm::TripleDes => 12,
        }
    }

    /// Length of a key with all its parts, in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            RawAlgorithm::Aes128CbcHmacSha256 | RawAlgorithm::Sm4CbcHmacSm3 => 32,
            RawAlgorithm::Aes192CbcHmacSha384 => 48,
            RawAlgorithm::Aes256CbcHmacSha512 => 64,
            RawAlgorithm::TripleDes => 3 * DES_KEY_LEN,
        }
    }

    /// Length of one of the keys that a key is made of, in bytes.
    const fn part_len(self) -> usize {
        match self {
            RawAlgorithm::TripleDes => DES_KEY_LEN,
            _ => self.key_len() / 2,
        }
    }

    /// Length of a block and of an initialization vector, in bytes.
    pub const fn iv_len(self) -> usize {
        match self {
            RawAlgorithm::TripleDes => 8,
            _ => IV_LEN,
        }
    }

    /// Length of a tag in bytes, half of the MAC; 0 where nothing is authenticated.
    pub const fn tag_len(self) -> usize {
        match self {
            RawAlgorithm::TripleDes => 0,
            _ => self.part_len(),
        }
    }

    /// Whether anything is encrypted with it. What is not is legacy: its keys are brought, never made, and only where the
    /// configuration says so.
    pub const fn encrypts(self) -> bool {
        !matches!(self, RawAlgorithm::TripleDes)
    }

    /// The check value of a key of 3DES; `None` for keys of two ciphers, and of another length.
    pub fn check_value(self, key: &[u8]) -> Option<CheckValue> {
        if self.encrypts() {
            return None;
        }
        let mut block = [0; DES_KEY_LEN].into();
        leaving_no_stack(|| {
            TdesEde3::new_from_slice(key).ok()?.encrypt_block(&mut block);
            Some(())
        })?;
        let value = CheckValue([block[0], block[1], block[2]]);
        block.zeroize();
        Some(value)
    }

    /// The keys that a key is made of, in their order.
    pub fn parts(self, key: &[u8]) -> impl Iterator<Item = &[u8]> {
        key.chunks(self.part_len())
    }

    /// Whether a key that somebody brings may be taken. Its length has been looked at.
    ///
    /// # Errors
    /// [`WeakKey`] says why not.
    pub fn check_key(self, key: &[u8]) -> Result<(), WeakKey> {
        if self.encrypts() {
            return Ok(());
        }
        leaving_no_stack(|| {
            let mut key = Secret::new(key.to_vec());
            // The lowest bit of each byte makes its parity odd, or should; the cipher does not look at it.
            for byte in key.expose_mut() {
                *byte = (*byte & 0xfe) | u8::from((*byte >> 1).count_ones().is_multiple_of(2));
            }
            let mut parts = key.expose().chunks(DES_KEY_LEN);
            let [first, second, third] = [(); 3].map(|()| parts.next().unwrap_or_default());
            if bool::from(first.ct_eq(second) | second.ct_eq(third)) {
                return Err(WeakKey::SingleDes);
            }
            [first, second, third]
                .into_iter()
                .try_for_each(|part| des::weak_key_test(part).map_err(|_| WeakKey::WeakDes))
        })
    }

    /// Encrypts, and makes the tag over everything. `None` for an algorithm that does not encrypt, and for a key of another
    /// length. The initialization vector must be random, and is never used again.
    pub fn seal(
        self,
        key: &[u8],
        iv: &[u8; IV_LEN],
        associated_data: &[u8],
        plaintext: &[u8],
    ) -> Option<RawCiphertext> {
        let (mac_key, cipher_key) = key.split_at_checked(self.part_len())?;
        let encrypt = match self {
            RawAlgorithm::Aes128CbcHmacSha256 => encrypted::<Aes128>,
            RawAlgorithm::Aes192CbcHmacSha384 => encrypted::<Aes192>,
            RawAlgorithm::Aes256CbcHmacSha512 => encrypted::<Aes256>,
            RawAlgorithm::Sm4CbcHmacSm3 => encrypted::<Sm4>,
            RawAlgorithm::TripleDes => return None,
        };
        let ciphertext = leaving_no_stack(|| encrypt(cipher_key, iv, plaintext))?;
        let tag = self.tag(mac_key, iv, associated_data, &ciphertext)?.expose().to_vec();
        Some(RawCiphertext { ciphertext, tag })
    }

    /// The first half of the MAC; `None` where there is none.
    fn tag(self, mac_key: &[u8], iv: &[u8], associated_data: &[u8], ciphertext: &[u8]) -> Option<Secret> {
        let mac = match self {
            RawAlgorithm::Aes128CbcHmacSha256 => mac::<Sha256>,
            RawAlgorithm::Aes192CbcHmacSha384 => mac::<Sha384>,
            RawAlgorithm::Aes256CbcHmacSha512 => mac::<Sha512>,
            RawAlgorithm::Sm4CbcHmacSm3 => mac::<Sm3>,
            RawAlgorithm::TripleDes => return None,
        };
        let associated_bits = 8 * associated_data.len() as u64;
        let parts = [associated_data, iv, ciphertext, &associated_bits.to_be_bytes()];
        let mut whole = leaving_no_stack(|| mac(mac_key, &parts)).into_zeroizing();
        whole.truncate(self.tag_len());
        Some(Secret::new(core::mem::take(&mut *whole)))
    }
}

impl fmt::Display for RawAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a> RawInput<'a> {
    /// Looks at everything that can be seen to be wrong without the key.
    ///
    /// # Errors
    /// [`RawInputError`] says what is.
    pub fn new(algorithm: RawAlgorithm, parts: RawParts<'a>) -> Result<Self, RawInputError> {
        let RawParts { padding, iv, associated_data, ciphertext, tag } = parts;
        let (iv_len, tag_len) = (algorithm.iv_len(), algorithm.tag_len());
        if iv.len() != iv_len {
            let len = iv.len();
            return Err(RawInputError::InitializationVectorLen { algorithm, expected: iv_len, len });
        }
        if tag_len == 0 && !tag.is_empty() {
            return Err(RawInputError::TagOfNothing { algorithm });
        }
        if tag.len() != tag_len {
            return Err(RawInputError::TagLen { algorithm, expected: tag_len, len: tag.len() });
        }
        if tag_len == 0 && !associated_data.is_empty() {
            return Err(RawInputError::AssociatedDataOfNothing { algorithm });
        }
        if tag_len != 0 && padding == Padding::None {
            return Err(RawInputError::PaddingFixed { algorithm });
        }
        if associated_data.len() > ASSOCIATED_DATA_LEN_MAX {
            return Err(RawInputError::AssociatedDataLen { len: associated_data.len() });
        }
        if ciphertext.len() > CIPHERTEXT_LEN_MAX {
            return Err(RawInputError::CiphertextLen { len: ciphertext.len() });
        }
        if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(iv_len) {
            return Err(RawInputError::Blocks);
        }
        Ok(Self { algorithm, padding, iv, associated_data, ciphertext, tag })
    }

    /// Compares the tag, where there is one, and decrypts only then.
    ///
    /// # Errors
    /// [`CiphertextInvalid`], whatever is wrong.
    pub fn open(&self, key: &[u8]) -> Result<Secret, CiphertextInvalid> {
        let algorithm = self.algorithm;
        let cipher_key = match algorithm.encrypts() {
            false => key,
            true => {
                let parts = key.split_at_checked(algorithm.part_len());
                let (mac_key, cipher_key) = parts.ok_or(CiphertextInvalid)?;
                let tag = algorithm.tag(mac_key, self.iv, self.associated_data, self.ciphertext);
                if !tag.is_some_and(|tag| tag.is_equal(self.tag)) {
                    return Err(CiphertextInvalid);
                }
                cipher_key
            }
        };
        let decrypt = match algorithm {
            RawAlgorithm::Aes128CbcHmacSha256 => decrypted::<Aes128>,
            RawAlgorithm::Aes192CbcHmacSha384 => decrypted::<Aes192>,
            RawAlgorithm::Aes256CbcHmacSha512 => decrypted::<Aes256>,
            RawAlgorithm::Sm4CbcHmacSm3 => decrypted::<Sm4>,
            RawAlgorithm::TripleDes => decrypted::<TdesEde3>,
        };
        leaving_no_stack(|| decrypt(cipher_key, self.iv, self.ciphertext, self.padding))
            .ok_or(CiphertextInvalid)
    }
}

fn encrypted<C: BlockCipherEncrypt + KeyInit>(key: &[u8], iv: &[u8], plaintext: &[u8]) -> Option<Vec<u8>> {
    let encryptor = Encryptor::<C>::new_from_slices(key, iv).ok()?;
    Some(encryptor.encrypt_padded_vec::<Pkcs7>(plaintext))
}

fn decrypted<C: BlockCipherDecrypt + KeyInit>(
    key: &[u8],
    iv: &[u8],
    ciphertext: &[u8],
    padding: Padding,
) -> Option<Secret> {
    let decryptor = Decryptor::<C>::new_from_slices(key, iv).ok()?;
    // Here and not in a vector of the mode's own: that one is not wiped when the padding is wrong.
    let mut place = Secret::new(vec![0; ciphertext.len()]).into_zeroizing();
    let opened = match padding {
        Padding::Pkcs7 => decryptor.decrypt_padded_b2b::<Pkcs7>(ciphertext, &mut place),
        Padding::None => decryptor.decrypt_padded_b2b::<NoPadding>(ciphertext, &mut place),
    };
    let len = opened.ok()?.len();
    place.truncate(len);
    Some(Secret::new(core::mem::take(&mut *place)))
}

fn mac<D: EagerHash>(key: &[u8], parts: &[&[u8]]) -> Secret {
    let mut mac = <Hmac<D> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    Secret::new(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests;
