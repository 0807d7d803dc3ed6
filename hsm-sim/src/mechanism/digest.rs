//! SHA-256 and SM3.

use sha2::{Digest, Sha256};
use sm3::Sm3;

use crate::mechanism::Mechanism;
use crate::refusal::Refusal;

pub const DIGEST_LEN: usize = 32;

pub enum Digester {
    Sha256(Sha256),
    Sm3(Sm3),
}

impl Digester {
    pub fn new(mechanism: Mechanism) -> Result<Self, Refusal> {
        match mechanism {
            Mechanism::Sha256 => Ok(Self::Sha256(Sha256::new())),
            Mechanism::Sm3 => Ok(Self::Sm3(Sm3::new())),
            _ => Err(Refusal::MechanismInvalid),
        }
    }

    pub fn update(&mut self, part: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(part),
            Self::Sm3(state) => state.update(part),
        }
    }

    pub fn finish(self) -> [u8; DIGEST_LEN] {
        match self {
            Self::Sha256(state) => state.finalize().into(),
            Self::Sm3(state) => state.finalize().into(),
        }
    }
}
