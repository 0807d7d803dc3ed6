//! AES key wrap: RFC 3394, and RFC 5649 for keys of any length.

use aes::cipher::KeyInit;
use aes_kw::{AesKw, AesKwp, Error};
use zeroize::Zeroizing;

use crate::mechanism::CipherMode;
use crate::mechanism::cipher::{Bytes, Collected, Direction, OutputLen, Transform, WholeMessage};
use crate::refusal::Refusal;

/// What both wraps add, and what they pad to.
const SEMIBLOCK_LEN: usize = 8;
/// RFC 3394 is defined for two semiblocks and more.
const KEY_LEN_MIN: usize = 2 * SEMIBLOCK_LEN;

struct KeyWrap<Wrap> {
    wrap: Wrap,
    direction: Direction,
}

trait Wrap: Send {
    fn wrap(&self, key: &[u8], place: &mut [u8]) -> Result<usize, Error>;
    fn unwrap(&self, wrapped: &[u8], place: &mut [u8]) -> Result<usize, Error>;
    fn accepts_key_len(len: usize) -> bool;
    fn accepts_wrapped_len(len: usize) -> bool;
}

macro_rules! wraps {
    ($Wrap:ident, $accepts_key_len:expr, $wrapped_len_min:expr) => {
        impl<Cipher> Wrap for $Wrap<Cipher>
        where
            Cipher: Send
                + aes::cipher::BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>
                + aes::cipher::BlockCipherDecrypt,
        {
            fn wrap(&self, key: &[u8], place: &mut [u8]) -> Result<usize, Error> {
                self.wrap_key(key, place).map(<[u8]>::len)
            }

            fn unwrap(&self, wrapped: &[u8], place: &mut [u8]) -> Result<usize, Error> {
                self.unwrap_key(wrapped, place).map(<[u8]>::len)
            }

            fn accepts_key_len(len: usize) -> bool {
                $accepts_key_len(len)
            }

            fn accepts_wrapped_len(len: usize) -> bool {
                len >= $wrapped_len_min && len.is_multiple_of(SEMIBLOCK_LEN)
            }
        }
    };
}

wraps!(
    AesKw,
    |len: usize| len >= KEY_LEN_MIN && len.is_multiple_of(SEMIBLOCK_LEN),
    KEY_LEN_MIN + SEMIBLOCK_LEN
);
wraps!(AesKwp, |len: usize| len > 0, 2 * SEMIBLOCK_LEN);

impl<W: Wrap> WholeMessage for KeyWrap<W> {
    fn output_len(&self, input_len: usize) -> OutputLen {
        match self.direction {
            Direction::Encrypt => {
                OutputLen::Exactly(input_len.next_multiple_of(SEMIBLOCK_LEN) + SEMIBLOCK_LEN)
            }
            Direction::Decrypt => OutputLen::AtMost(input_len.saturating_sub(SEMIBLOCK_LEN)),
        }
    }

    fn run(&self, input: &[u8]) -> Result<Bytes, Refusal> {
        let mut place = Zeroizing::new(vec![0; self.output_len(input.len()).max()]);
        let done = match self.direction {
            Direction::Encrypt if !W::accepts_key_len(input.len()) => return Err(Refusal::DataLenRange),
            Direction::Encrypt => self.wrap.wrap(input, &mut place),
            Direction::Decrypt if !W::accepts_wrapped_len(input.len()) => {
                return Err(Refusal::EncryptedDataLenRange);
            }
            Direction::Decrypt => self.wrap.unwrap(input, &mut place),
        };
        let len = done.map_err(|error| match (error, self.direction) {
            (Error::IntegrityCheckFailed, _) => Refusal::EncryptedDataInvalid,
            (_, Direction::Encrypt) => Refusal::DataLenRange,
            (_, Direction::Decrypt) => Refusal::EncryptedDataLenRange,
        })?;
        place.truncate(len);
        Ok(place)
    }
}

pub fn key_wrap(direction: Direction, mode: CipherMode, key: &[u8]) -> Result<Box<dyn Transform>, Refusal> {
    let wrong_size = |_| Refusal::KeySizeRange;
    match (mode, key.len()) {
        (CipherMode::KeyWrap, 16) => {
            let wrap = AesKw::<aes::Aes128>::new_from_slice(key).map_err(wrong_size)?;
            Ok(Collected::transform(KeyWrap { wrap, direction }))
        }
        (CipherMode::KeyWrap, 24) => {
            let wrap = AesKw::<aes::Aes192>::new_from_slice(key).map_err(wrong_size)?;
            Ok(Collected::transform(KeyWrap { wrap, direction }))
        }
        (CipherMode::KeyWrap, 32) => {
            let wrap = AesKw::<aes::Aes256>::new_from_slice(key).map_err(wrong_size)?;
            Ok(Collected::transform(KeyWrap { wrap, direction }))
        }
        (CipherMode::KeyWrapPad, 16) => {
            let wrap = AesKwp::<aes::Aes128>::new_from_slice(key).map_err(wrong_size)?;
            Ok(Collected::transform(KeyWrap { wrap, direction }))
        }
        (CipherMode::KeyWrapPad, 24) => {
            let wrap = AesKwp::<aes::Aes192>::new_from_slice(key).map_err(wrong_size)?;
            Ok(Collected::transform(KeyWrap { wrap, direction }))
        }
        (CipherMode::KeyWrapPad, 32) => {
            let wrap = AesKwp::<aes::Aes256>::new_from_slice(key).map_err(wrong_size)?;
            Ok(Collected::transform(KeyWrap { wrap, direction }))
        }
        (CipherMode::KeyWrap | CipherMode::KeyWrapPad, _) => Err(Refusal::KeySizeRange),
        _ => Err(Refusal::MechanismInvalid),
    }
}
