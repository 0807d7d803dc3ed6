//! HMAC over SHA-256 and over SM3.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sm3::Sm3;

use crate::mechanism::Mechanism;
use crate::refusal::Refusal;

pub const MAC_LEN: usize = 32;

pub enum HmacState {
    Sha256(Box<Hmac<Sha256>>),
    Sm3(Box<Hmac<Sm3>>),
}

impl HmacState {
    pub fn new(mechanism: Mechanism, key: &[u8]) -> Result<Self, Refusal> {
        let wrong_size = |_| Refusal::KeySizeRange;
        match mechanism {
            Mechanism::Sha256Hmac => {
                Ok(Self::Sha256(Box::new(Hmac::new_from_slice(key).map_err(wrong_size)?)))
            }
            Mechanism::Sm3Hmac => Ok(Self::Sm3(Box::new(Hmac::new_from_slice(key).map_err(wrong_size)?))),
            _ => Err(Refusal::MechanismInvalid),
        }
    }

    pub fn update(&mut self, part: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(part),
            Self::Sm3(state) => state.update(part),
        }
    }

    pub fn finish(self) -> [u8; MAC_LEN] {
        match self {
            Self::Sha256(state) => state.finalize().into_bytes().into(),
            Self::Sm3(state) => state.finalize().into_bytes().into(),
        }
    }

    /// Compares in constant time.
    pub fn verify(self, mac: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Sha256(state) => state.verify_slice(mac),
            Self::Sm3(state) => state.verify_slice(mac),
        }
        .map_err(|_| Refusal::SignatureInvalid)
    }
}
