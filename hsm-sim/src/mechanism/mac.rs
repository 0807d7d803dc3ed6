//! MACs: HMAC, CMAC and CBC-MAC behind one face.

use ::cmac::Cmac;
use hmac::{Hmac, KeyInit, Mac};

use crate::mechanism::Mechanism;
use crate::mechanism::cbc_mac::CbcMac;
use crate::mechanism::cipher::with_block_cipher;
use crate::mechanism::digest::with_hash;
use crate::mechanism::parameter::Parameter;
use crate::refusal::Refusal;

/// A MAC being computed.
pub struct MacState {
    state: Box<dyn Keyed + Send>,
    /// How many bytes from the left are given out.
    len: usize,
}

trait Keyed {
    fn update(&mut self, part: &[u8]);
    fn finish(self: Box<Self>) -> Result<Vec<u8>, Refusal>;
    /// Compares the first bytes, in constant time.
    fn verify(self: Box<Self>, start: &[u8]) -> Result<(), Refusal>;
}

impl<State: Mac> Keyed for State {
    fn update(&mut self, part: &[u8]) {
        Mac::update(self, part);
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, Refusal> {
        Ok(self.finalize().into_bytes().to_vec())
    }

    fn verify(self: Box<Self>, start: &[u8]) -> Result<(), Refusal> {
        self.verify_truncated_left(start).map_err(|_| Refusal::SignatureInvalid)
    }
}

/// CBC-MAC has no place in the traits of the MAC crates: it takes whole blocks only.
struct WholeBlocks(CbcMac);

impl Keyed for WholeBlocks {
    fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, Refusal> {
        self.0.finish()
    }

    fn verify(self: Box<Self>, start: &[u8]) -> Result<(), Refusal> {
        self.0.verify(start)
    }
}

impl MacState {
    pub fn new(mechanism: Mechanism, parameter: &Parameter, key: &[u8]) -> Result<Self, Refusal> {
        let wrong_size = |_| Refusal::KeySizeRange;
        match mechanism {
            Mechanism::Hmac(hash, _) => {
                let len = parameter.length_or(hash.len())?;
                let state: Box<dyn Keyed + Send> = with_hash!(hash, Digest => {
                    Box::new(<Hmac<Digest> as KeyInit>::new_from_slice(key).map_err(wrong_size)?)
                });
                Ok(Self { state, len })
            }
            Mechanism::Cmac(cipher, _) => {
                let len = parameter.length_or(cipher.block_len())?;
                let state: Box<dyn Keyed + Send> = with_block_cipher!(cipher, key, Cipher => {
                    Box::new(<Cmac<Cipher> as KeyInit>::new_from_slice(key).map_err(wrong_size)?)
                });
                Ok(Self { state, len })
            }
            Mechanism::CbcMac(cipher) => {
                let state = Box::new(WholeBlocks(CbcMac::new(cipher, key)?));
                Ok(Self { state, len: cipher.block_len() })
            }
            _ => Err(Refusal::MechanismInvalid),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn update(&mut self, part: &[u8]) {
        self.state.update(part);
    }

    pub fn finish(self) -> Result<Vec<u8>, Refusal> {
        let mut mac = self.state.finish()?;
        mac.truncate(self.len);
        Ok(mac)
    }

    pub fn verify(self, mac: &[u8]) -> Result<(), Refusal> {
        if mac.len() != self.len {
            return Err(Refusal::SignatureLenRange);
        }
        self.state.verify(mac)
    }
}
