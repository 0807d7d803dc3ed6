//! Encryption and decryption: one face for everything, and the block modes behind it.

use aes::cipher::array::Array;
use aes::cipher::block_padding::{Padding, Pkcs7};
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit,
    StreamCipher,
};
use zeroize::Zeroizing;

use crate::mechanism::parameter::CounterParameter;
use crate::mechanism::{BlockCipher, CipherMode};
use crate::refusal::Refusal;

pub type Bytes = Zeroizing<Vec<u8>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Encrypt,
    Decrypt,
}

/// How long an output will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputLen {
    Exactly(usize),
    /// Only the result itself tells, as with a pad that is taken off.
    AtMost(usize),
}

impl OutputLen {
    pub fn max(self) -> usize {
        match self {
            Self::Exactly(len) | Self::AtMost(len) => len,
        }
    }
}

/// One message being encrypted or decrypted.
pub trait Transform: Send {
    /// How many bytes `update` will return for a part of this length.
    fn update_len(&self, part_len: usize) -> usize;

    fn update(&mut self, part: &[u8]) -> Result<Bytes, Refusal>;

    /// How many bytes `finish` returns if the last part has this length.
    fn finish_len(&self, last_len: usize) -> OutputLen;

    fn finish(self: Box<Self>, last: &[u8]) -> Result<Bytes, Refusal>;
}

/// Runs `$body` with `$Cipher` standing for the type of the cipher that takes this key.
macro_rules! with_block_cipher {
    ($cipher:expr, $key:expr, $Cipher:ident => $body:expr) => {
        match ($cipher, $key.len()) {
            ($crate::mechanism::BlockCipher::Aes, 16) => {
                type $Cipher = ::aes::Aes128;
                $body
            }
            ($crate::mechanism::BlockCipher::Aes, 24) => {
                type $Cipher = ::aes::Aes192;
                $body
            }
            ($crate::mechanism::BlockCipher::Aes, 32) => {
                type $Cipher = ::aes::Aes256;
                $body
            }
            ($crate::mechanism::BlockCipher::Des3, 24) => {
                type $Cipher = ::des::TdesEde3;
                $body
            }
            ($crate::mechanism::BlockCipher::Sm4, 16) => {
                type $Cipher = ::sm4::Sm4;
                $body
            }
            _ => return Err($crate::refusal::Refusal::KeySizeRange),
        }
    };
}
pub(crate) use with_block_cipher;

/// A cipher that works on whole blocks, one after the other.
pub trait ProcessBlocks: Send {
    /// In place; the length is a multiple of the block length.
    fn process(&mut self, blocks: &mut [u8]);
}

struct EncryptEcb<Cipher>(Cipher);
struct DecryptEcb<Cipher>(Cipher);
struct EncryptCbc<Cipher: BlockCipherEncrypt>(cbc::Encryptor<Cipher>);
struct DecryptCbc<Cipher: BlockCipherDecrypt>(cbc::Decryptor<Cipher>);

impl<Cipher: BlockCipherEncrypt + Send> ProcessBlocks for EncryptEcb<Cipher> {
    fn process(&mut self, blocks: &mut [u8]) {
        self.0.encrypt_blocks(Array::slice_as_chunks_mut(blocks).0);
    }
}

impl<Cipher: BlockCipherDecrypt + Send> ProcessBlocks for DecryptEcb<Cipher> {
    fn process(&mut self, blocks: &mut [u8]) {
        self.0.decrypt_blocks(Array::slice_as_chunks_mut(blocks).0);
    }
}

impl<Cipher: BlockCipherEncrypt + Send> ProcessBlocks for EncryptCbc<Cipher> {
    fn process(&mut self, blocks: &mut [u8]) {
        self.0.encrypt_blocks(Array::slice_as_chunks_mut(blocks).0);
    }
}

impl<Cipher: BlockCipherDecrypt + Send> ProcessBlocks for DecryptCbc<Cipher> {
    fn process(&mut self, blocks: &mut [u8]) {
        self.0.decrypt_blocks(Array::slice_as_chunks_mut(blocks).0);
    }
}

/// A cipher that works on whole blocks, fed with parts of any length.
pub struct BlockStream {
    process: Box<dyn ProcessBlocks>,
    block_len: usize,
    pending: Bytes,
}

impl BlockStream {
    pub fn new(block_len: usize, process: Box<dyn ProcessBlocks>) -> Self {
        Self { process, block_len, pending: Zeroizing::default() }
    }

    pub fn block_len(&self) -> usize {
        self.block_len
    }

    pub fn is_at_block_end(&self) -> bool {
        self.pending.is_empty()
    }

    /// What `update` returns for a part of this length.
    fn ready_len(&self, part_len: usize, kept_min: usize) -> usize {
        let usable = (self.pending.len() + part_len).saturating_sub(kept_min);
        usable - usable % self.block_len
    }

    /// Processes every block that is whole and leaves at least `kept_min` bytes for the end.
    pub fn update(&mut self, part: &[u8], kept_min: usize) -> Bytes {
        let ready_len = self.ready_len(part.len(), kept_min);
        let mut ready = Zeroizing::new(Vec::with_capacity(self.pending.len() + part.len()));
        ready.extend_from_slice(&self.pending);
        ready.extend_from_slice(part);
        self.pending = Zeroizing::new(ready[ready_len..].to_vec());
        ready.truncate(ready_len);
        self.process.process(&mut ready);
        ready
    }
}

/// ECB and CBC, with the padding of PKCS#7 or without any.
struct BlockTransform {
    stream: BlockStream,
    direction: Direction,
    is_padded: bool,
}

impl BlockTransform {
    /// The last block of a padded message must be held back until the message ends.
    fn kept_min(&self) -> usize {
        usize::from(self.is_padded && self.direction == Direction::Decrypt)
    }

    fn wrong_len(&self) -> Refusal {
        match self.direction {
            Direction::Encrypt => Refusal::DataLenRange,
            Direction::Decrypt => Refusal::EncryptedDataLenRange,
        }
    }
}

impl Transform for BlockTransform {
    fn update_len(&self, part_len: usize) -> usize {
        self.stream.ready_len(part_len, self.kept_min())
    }

    fn update(&mut self, part: &[u8]) -> Result<Bytes, Refusal> {
        Ok(self.stream.update(part, self.kept_min()))
    }

    fn finish_len(&self, last_len: usize) -> OutputLen {
        let input_len = self.stream.pending.len() + last_len;
        let block_len = self.stream.block_len;
        match (self.is_padded, self.direction) {
            (true, Direction::Encrypt) => OutputLen::Exactly(input_len - input_len % block_len + block_len),
            (true, Direction::Decrypt) => OutputLen::AtMost(input_len),
            (false, _) => OutputLen::Exactly(input_len),
        }
    }

    fn finish(mut self: Box<Self>, last: &[u8]) -> Result<Bytes, Refusal> {
        let block_len = self.stream.block_len;
        let mut output = match (self.is_padded, self.direction) {
            (true, Direction::Encrypt) => {
                let tail_len = (self.stream.pending.len() + last.len()) % block_len;
                let mut output = self.stream.update(last, 0);
                let mut block = Zeroizing::new(vec![0; block_len]);
                block[..tail_len].copy_from_slice(&self.stream.pending);
                Pkcs7::raw_pad(&mut block, tail_len);
                self.stream.process.process(&mut block);
                output.extend_from_slice(&block);
                return Ok(output);
            }
            _ => self.stream.update(last, 0),
        };
        if !self.stream.is_at_block_end() || (self.is_padded && output.is_empty()) {
            return Err(self.wrong_len());
        }
        if self.is_padded {
            let last_block_start = output.len() - block_len;
            let unpadded = Pkcs7::raw_unpad(&output[last_block_start..]);
            let unpadded_len = unpadded.map_err(|_| Refusal::EncryptedDataInvalid)?.len();
            output.truncate(last_block_start + unpadded_len);
        }
        Ok(output)
    }
}

/// CTR: encryption and decryption are the same.
struct CounterTransform {
    keystream: Box<dyn Keystream>,
    /// The counter may not come around: it would use key stream twice.
    bytes_left: u128,
}

trait Keystream: Send {
    fn apply(&mut self, data: &mut [u8]);
}

impl<Cipher: StreamCipher + Send> Keystream for Cipher {
    fn apply(&mut self, data: &mut [u8]) {
        self.apply_keystream(data);
    }
}

impl CounterTransform {
    /// A counter of fewer bits than the block is the same as one of all bits that does not overflow.
    fn new(cipher: BlockCipher, key: &[u8], parameter: &CounterParameter) -> Result<Self, Refusal> {
        let CounterParameter { block, bits } = parameter;
        let counter_max = match bits {
            1..=127 => (1_u128 << bits) - 1,
            128 => u128::MAX,
            _ => return Err(Refusal::MechanismParamInvalid),
        };
        let blocks_left_but_one = counter_max - (u128::from_be_bytes(*block) & counter_max);
        let wrong_size = |_| Refusal::KeySizeRange;
        let keystream: Box<dyn Keystream> = match (cipher, key.len()) {
            (BlockCipher::Aes, 16) => {
                Box::new(ctr::Ctr128BE::<aes::Aes128>::new_from_slices(key, block).map_err(wrong_size)?)
            }
            (BlockCipher::Aes, 24) => {
                Box::new(ctr::Ctr128BE::<aes::Aes192>::new_from_slices(key, block).map_err(wrong_size)?)
            }
            (BlockCipher::Aes, 32) => {
                Box::new(ctr::Ctr128BE::<aes::Aes256>::new_from_slices(key, block).map_err(wrong_size)?)
            }
            (BlockCipher::Sm4, 16) => {
                Box::new(ctr::Ctr128BE::<sm4::Sm4>::new_from_slices(key, block).map_err(wrong_size)?)
            }
            (BlockCipher::Des3, _) => return Err(Refusal::MechanismInvalid),
            _ => return Err(Refusal::KeySizeRange),
        };
        let bytes_left = blocks_left_but_one.saturating_add(1).saturating_mul(16);
        Ok(Self { keystream, bytes_left })
    }
}

impl Transform for CounterTransform {
    fn update_len(&self, part_len: usize) -> usize {
        part_len
    }

    fn update(&mut self, part: &[u8]) -> Result<Bytes, Refusal> {
        let left = self.bytes_left.checked_sub(part.len() as u128).ok_or(Refusal::DataLenRange)?;
        self.bytes_left = left;
        let mut output = Zeroizing::new(part.to_vec());
        self.keystream.apply(&mut output);
        Ok(output)
    }

    fn finish_len(&self, last_len: usize) -> OutputLen {
        OutputLen::Exactly(last_len)
    }

    fn finish(mut self: Box<Self>, last: &[u8]) -> Result<Bytes, Refusal> {
        self.update(last)
    }
}

/// An algorithm that needs its message in one piece.
pub trait WholeMessage: Send {
    fn output_len(&self, input_len: usize) -> OutputLen;
    fn run(&self, input: &[u8]) -> Result<Bytes, Refusal>;
}

/// Collects the parts. No byte of a result leaves before the whole message was seen, so nothing that
/// was not authenticated gets out.
pub struct Collected<Algorithm> {
    pub algorithm: Algorithm,
    pub collected: Bytes,
}

impl<Algorithm: WholeMessage + 'static> Collected<Algorithm> {
    pub fn transform(algorithm: Algorithm) -> Box<dyn Transform> {
        Box::new(Self { algorithm, collected: Zeroizing::default() })
    }
}

impl<Algorithm: WholeMessage> Transform for Collected<Algorithm> {
    fn update_len(&self, _part_len: usize) -> usize {
        0
    }

    fn update(&mut self, part: &[u8]) -> Result<Bytes, Refusal> {
        self.collected.extend_from_slice(part);
        Ok(Zeroizing::default())
    }

    fn finish_len(&self, last_len: usize) -> OutputLen {
        self.algorithm.output_len(self.collected.len() + last_len)
    }

    fn finish(mut self: Box<Self>, last: &[u8]) -> Result<Bytes, Refusal> {
        if self.collected.is_empty() {
            return self.algorithm.run(last);
        }
        self.collected.extend_from_slice(last);
        self.algorithm.run(&self.collected)
    }
}

pub fn encrypting_cbc(cipher: BlockCipher, key: &[u8], iv: &[u8]) -> Result<Box<dyn ProcessBlocks>, Refusal> {
    let invalid = |_| Refusal::MechanismParamInvalid;
    with_block_cipher!(cipher, key, Cipher => {
        let encryptor = cbc::Encryptor::<Cipher>::new_from_slices(key, iv).map_err(invalid)?;
        Ok(Box::new(EncryptCbc(encryptor)))
    })
}

/// ECB or CBC; `iv` is empty for ECB.
pub fn block_mode(
    direction: Direction,
    cipher: BlockCipher,
    mode: CipherMode,
    key: &[u8],
    iv: &[u8],
) -> Result<Box<dyn Transform>, Refusal> {
    let wrong_size = |_| Refusal::KeySizeRange;
    let invalid = |_| Refusal::MechanismParamInvalid;
    let process: Box<dyn ProcessBlocks> = match (mode, direction) {
        (CipherMode::Ecb, Direction::Encrypt) => with_block_cipher!(cipher, key, Cipher => {
            Box::new(EncryptEcb(<Cipher as KeyInit>::new_from_slice(key).map_err(wrong_size)?))
        }),
        (CipherMode::Ecb, Direction::Decrypt) => with_block_cipher!(cipher, key, Cipher => {
            Box::new(DecryptEcb(<Cipher as KeyInit>::new_from_slice(key).map_err(wrong_size)?))
        }),
        (CipherMode::Cbc | CipherMode::CbcPad, Direction::Encrypt) => encrypting_cbc(cipher, key, iv)?,
        (CipherMode::Cbc | CipherMode::CbcPad, Direction::Decrypt) => {
            with_block_cipher!(cipher, key, Cipher => {
                let decryptor = cbc::Decryptor::<Cipher>::new_from_slices(key, iv).map_err(invalid)?;
                Box::new(DecryptCbc(decryptor))
            })
        }
        _ => return Err(Refusal::MechanismInvalid),
    };
    let stream = BlockStream::new(cipher.block_len(), process);
    Ok(Box::new(BlockTransform { stream, direction, is_padded: mode == CipherMode::CbcPad }))
}

pub fn counter_mode(
    cipher: BlockCipher,
    key: &[u8],
    parameter: &CounterParameter,
) -> Result<Box<dyn Transform>, Refusal> {
    Ok(Box::new(CounterTransform::new(cipher, key, parameter)?))
}
