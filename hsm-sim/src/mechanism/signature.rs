//! Signing and verifying, in one part or in several, over the algorithms that can do it.

use sha2::{Digest, Sha256};

use crate::mechanism::hmac::HmacState;
use crate::mechanism::{Mechanism, ec, hmac, sm2};
use crate::refusal::Refusal;

/// What is collected while the parts of a message come in.
pub enum Input {
    /// The caller hashed; the whole digest comes in one part.
    Prehashed,
    Sha256(Sha256),
    /// The SM2 implementation wants the message in one piece. A message is no secret.
    Whole(Vec<u8>),
}

impl Input {
    fn new(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::EcdsaSha256 => Self::Sha256(Sha256::new()),
            Mechanism::Sm2SignWithSm3 => Self::Whole(Vec::new()),
            _ => Self::Prehashed,
        }
    }

    fn update(&mut self, part: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Prehashed => return Err(Refusal::FunctionNotSupported),
            Self::Sha256(state) => state.update(part),
            Self::Whole(message) => message.extend_from_slice(part),
        }
        Ok(())
    }

    fn finish(self, last_part: &[u8]) -> Vec<u8> {
        match self {
            Self::Prehashed => last_part.to_vec(),
            Self::Sha256(state) => state.chain_update(last_part).finalize().to_vec(),
            Self::Whole(mut message) => {
                message.extend_from_slice(last_part);
                message
            }
        }
    }
}

/// A signature being made.
pub enum Signing {
    Hmac(HmacState),
    Ecdsa(Box<p256::ecdsa::SigningKey>, Input),
    Sm2(Box<::sm2::dsa::SigningKey>, Input),
}

/// A signature being checked.
pub enum Verifying {
    Hmac(HmacState),
    Ecdsa(Box<p256::ecdsa::VerifyingKey>, Input),
    Sm2(Box<::sm2::dsa::VerifyingKey>, Input),
}

impl Signing {
    /// `key` is the secret value: a MAC key or a private scalar.
    pub fn new(mechanism: Mechanism, key: &[u8], sm2_user_id: &str) -> Result<Self, Refusal> {
        match mechanism {
            Mechanism::Sha256Hmac | Mechanism::Sm3Hmac => Ok(Self::Hmac(HmacState::new(mechanism, key)?)),
            Mechanism::EcdsaPrehashed | Mechanism::EcdsaSha256 => {
                Ok(Self::Ecdsa(Box::new(ec::signing_key(key)?), Input::new(mechanism)))
            }
            Mechanism::Sm2SignWithSm3 | Mechanism::Sm2SignPrehashed => {
                Ok(Self::Sm2(Box::new(sm2::signing_key(key, sm2_user_id)?), Input::new(mechanism)))
            }
            _ => Err(Refusal::MechanismInvalid),
        }
    }

    pub fn signature_len(&self) -> usize {
        match self {
            Self::Hmac(_) => hmac::MAC_LEN,
            Self::Ecdsa(..) | Self::Sm2(..) => ec::SIGNATURE_LEN,
        }
    }

    pub fn update(&mut self, part: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Hmac(state) => {
                state.update(part);
                Ok(())
            }
            Self::Ecdsa(_, input) => input.update(part),
            Self::Sm2(_, input) => input.update(part),
        }
    }

    pub fn finish(self, last_part: &[u8]) -> Result<Vec<u8>, Refusal> {
        match self {
            Self::Hmac(mut state) => {
                state.update(last_part);
                Ok(state.finish().to_vec())
            }
            Self::Ecdsa(key, input) => Ok(ec::sign_prehashed(&key, &input.finish(last_part))?.to_vec()),
            Self::Sm2(key, input @ Input::Prehashed) => {
                Ok(sm2::sign_prehashed(&key, &input.finish(last_part))?.to_vec())
            }
            Self::Sm2(key, input) => Ok(sm2::sign_message(&key, &input.finish(last_part))?.to_vec()),
        }
    }
}

impl Verifying {
    /// `key` is a MAC key or an uncompressed point.
    pub fn new(mechanism: Mechanism, key: &[u8], sm2_user_id: &str) -> Result<Self, Refusal> {
        match mechanism {
            Mechanism::Sha256Hmac | Mechanism::Sm3Hmac => Ok(Self::Hmac(HmacState::new(mechanism, key)?)),
            Mechanism::EcdsaPrehashed | Mechanism::EcdsaSha256 => {
                Ok(Self::Ecdsa(Box::new(ec::verifying_key(key)?), Input::new(mechanism)))
            }
            Mechanism::Sm2SignWithSm3 | Mechanism::Sm2SignPrehashed => {
                Ok(Self::Sm2(Box::new(sm2::verifying_key(key, sm2_user_id)?), Input::new(mechanism)))
            }
            _ => Err(Refusal::MechanismInvalid),
        }
    }

    pub fn update(&mut self, part: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Hmac(state) => {
                state.update(part);
                Ok(())
            }
            Self::Ecdsa(_, input) => input.update(part),
            Self::Sm2(_, input) => input.update(part),
        }
    }

    pub fn finish(self, last_part: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        let expected_len = match &self {
            Self::Hmac(_) => hmac::MAC_LEN,
            Self::Ecdsa(..) | Self::Sm2(..) => ec::SIGNATURE_LEN,
        };
        if signature.len() != expected_len {
            return Err(Refusal::SignatureLenRange);
        }
        match self {
            Self::Hmac(mut state) => {
                state.update(last_part);
                state.verify(signature)
            }
            Self::Ecdsa(key, input) => ec::verify_prehashed(&key, &input.finish(last_part), signature),
            Self::Sm2(key, input @ Input::Prehashed) => {
                sm2::verify_prehashed(&key, &input.finish(last_part), signature)
            }
            Self::Sm2(key, input) => sm2::verify_message(&key, &input.finish(last_part), signature),
        }
    }
}
