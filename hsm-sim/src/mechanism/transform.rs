//! Which algorithm encrypts or decrypts under which mechanism.

use crate::mechanism::cipher::{Collected, Direction, Transform, block_mode, counter_mode};
use crate::mechanism::gcm::{GcmNonce, gcm};
use crate::mechanism::key_wrap::key_wrap;
use crate::mechanism::parameter::Parameter;
use crate::mechanism::rsa::{self, EncryptionPadding};
use crate::mechanism::{CipherMode, Mechanism, MechanismCall, sm2};
use crate::object::Object;
use crate::personality::Personality;
use crate::refusal::Refusal;

/// A message that is about to be encrypted or decrypted.
pub struct Begun {
    pub transform: Box<dyn Transform>,
    /// The nonce that the token made, if the client is to be told at once.
    pub made_nonce: Option<GcmNonce>,
}

/// `key` is of the kind that the mechanism works with, and of a pair it is the half that does this.
pub fn begin(
    direction: Direction,
    call: MechanismCall,
    key: &Object,
    personality: &Personality,
) -> Result<Begun, Refusal> {
    let transform = match (call.mechanism, call.parameter) {
        (Mechanism::Cipher(cipher, CipherMode::Gcm), Parameter::Gcm(parameter)) => {
            return gcm(direction, cipher, key.secret()?, parameter, personality.gcm_iv);
        }
        (Mechanism::Cipher(cipher, CipherMode::Ctr), Parameter::Counter(parameter)) => {
            counter_mode(cipher, key.secret()?, &parameter)?
        }
        (Mechanism::Cipher(_, mode @ (CipherMode::KeyWrap | CipherMode::KeyWrapPad)), _) => {
            key_wrap(direction, mode, key.secret()?)?
        }
        (Mechanism::Cipher(cipher, CipherMode::Ecb), _) => {
            block_mode(direction, cipher, CipherMode::Ecb, key.secret()?, &[])?
        }
        (Mechanism::Cipher(cipher, mode @ (CipherMode::Cbc | CipherMode::CbcPad)), Parameter::Iv(iv)) => {
            block_mode(direction, cipher, mode, key.secret()?, &iv)?
        }
        (Mechanism::RsaPkcs(None), _) => rsa_transform(direction, key, EncryptionPadding::Pkcs1)?,
        (Mechanism::RsaOaep, Parameter::Oaep(parameter)) => {
            let padding = EncryptionPadding::oaep(parameter.hash, parameter.label)?;
            rsa_transform(direction, key, padding)?
        }
        (Mechanism::Sm2Encrypt, _) => match direction {
            Direction::Encrypt => {
                Collected::transform(sm2::Encryption::new(key.point()?, personality.sm2_ciphertext)?)
            }
            Direction::Decrypt => {
                Collected::transform(sm2::Decryption::new(key.secret()?, personality.sm2_ciphertext)?)
            }
        },
        (Mechanism::Cipher(..) | Mechanism::RsaOaep, _) => return Err(Refusal::MechanismParamInvalid),
        _ => return Err(Refusal::MechanismInvalid),
    };
    Ok(Begun { transform, made_nonce: None })
}

fn rsa_transform(
    direction: Direction,
    key: &Object,
    padding: EncryptionPadding,
) -> Result<Box<dyn Transform>, Refusal> {
    match direction {
        Direction::Encrypt => {
            Ok(Collected::transform(rsa::Encryption::new(&key.rsa_public_half()?, padding)?))
        }
        Direction::Decrypt => Ok(Collected::transform(rsa::Decryption::new(key.secret()?, padding)?)),
    }
}
