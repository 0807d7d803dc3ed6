//! CBC-MAC: the last block of a CBC encryption that starts from zeros. It authenticates messages of
//! one agreed length only, and takes whole blocks; CMAC is what to use instead.

use subtle::ConstantTimeEq;

use crate::mechanism::BlockCipher;
use crate::mechanism::cipher::{BlockStream, encrypting_cbc};
use crate::refusal::Refusal;

pub struct CbcMac {
    stream: BlockStream,
    last_block: Vec<u8>,
}

impl CbcMac {
    pub fn new(cipher: BlockCipher, key: &[u8]) -> Result<Self, Refusal> {
        let iv = vec![0; cipher.block_len()];
        let stream = BlockStream::new(cipher.block_len(), encrypting_cbc(cipher, key, &iv)?);
        Ok(Self { stream, last_block: Vec::new() })
    }

    pub fn update(&mut self, part: &[u8]) {
        let encrypted = self.stream.update(part, 0);
        let block_len = self.stream.block_len();
        if let Some(start) = encrypted.len().checked_sub(block_len) {
            self.last_block = encrypted[start..].to_vec();
        }
    }

    pub fn finish(self) -> Result<Vec<u8>, Refusal> {
        if self.last_block.is_empty() || !self.stream.is_at_block_end() {
            return Err(Refusal::DataLenRange);
        }
        Ok(self.last_block)
    }

    pub fn verify(self, mac: &[u8]) -> Result<(), Refusal> {
        let is_equal = self.finish()?.ct_eq(mac);
        if bool::from(is_equal) { Ok(()) } else { Err(Refusal::SignatureInvalid) }
    }
}
