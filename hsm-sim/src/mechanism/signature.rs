//! Signing and verifying, in one part or in several, over the algorithms that can do it.

use cryptoki_sys as ck;
use zeroize::Zeroizing;

use crate::key_kind::Curve;
use crate::mechanism::cipher::Bytes;
use crate::mechanism::digest::Digester;
use crate::mechanism::mac::MacState;
use crate::mechanism::parameter::{Parameter, PssParameter};
use crate::mechanism::rsa_key::PublicHalf;
use crate::mechanism::rsa_library as rsa;
use crate::mechanism::{Hash, Mechanism, MechanismCall, ec, ed25519, sm2};
use crate::object::Object;
use crate::personality::{Personality, Sm2SignatureForm};
use crate::refusal::Refusal;

/// What is collected while the parts of a message come in.
enum Input {
    /// The caller hashed; the whole digest comes in one part.
    Prehashed,
    Hashed(Box<Digester>),
    /// The algorithm wants the message in one piece. A message is no secret.
    Whole(Vec<u8>),
}

impl Input {
    fn of_hash(hash: Option<Hash>) -> Self {
        hash.map_or(Self::Prehashed, |hash| Self::Hashed(Box::new(Digester::new(hash))))
    }

    fn update(&mut self, part: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Prehashed => return Err(Refusal::FunctionNotSupported),
            Self::Hashed(digester) => digester.update(part),
            Self::Whole(message) => message.extend_from_slice(part),
        }
        Ok(())
    }

    fn finish(self, last_part: &[u8]) -> Vec<u8> {
        match self {
            Self::Prehashed => last_part.to_vec(),
            Self::Hashed(mut digester) => {
                digester.update(last_part);
                digester.finish()
            }
            Self::Whole(mut message) => {
                message.extend_from_slice(last_part);
                message
            }
        }
    }
}

/// What is done with the input, whichever half of the key does it.
enum Scheme {
    Ecdsa(Curve),
    Eddsa,
    /// PKCS#1 v1.5, with this in front of the input: what makes a digest a DigestInfo, or nothing.
    RsaPkcs1(&'static [u8]),
    RsaPss(PssParameter),
    Sm2 {
        user_id: String,
        is_prehashed: bool,
        form: Sm2SignatureForm,
    },
}

/// A scheme and its input, for a mechanism that works with a key pair.
fn scheme(call: &MechanismCall, key: &Object, personality: &Personality) -> Result<(Scheme, Input), Refusal> {
    let sm2 = |is_prehashed| {
        let user_id = match &call.parameter {
            Parameter::Sm2UserId(user_id) => user_id.clone(),
            _ => personality.sm2_user_id.to_owned(),
        };
        Scheme::Sm2 { user_id, is_prehashed, form: personality.sm2_signature }
    };
    match call.mechanism {
        Mechanism::Ecdsa(hash) => Ok((Scheme::Ecdsa(curve(key)?), Input::of_hash(hash))),
        Mechanism::Eddsa => Ok((Scheme::Eddsa, Input::Whole(Vec::new()))),
        Mechanism::RsaPkcs(hash) => {
            let prefix = hash.map_or(Ok(&[][..]), rsa::digest_info_prefix)?;
            Ok((Scheme::RsaPkcs1(prefix), Input::of_hash(hash)))
        }
        Mechanism::RsaPss(hash) => {
            let Parameter::Pss(parameter) = call.parameter else {
                return Err(Refusal::MechanismParamInvalid);
            };
            if hash.is_some_and(|hash| hash != parameter.hash) {
                return Err(Refusal::MechanismParamInvalid);
            }
            rsa::require_pss_room(parameter, key.rsa_public_half()?.modulus.len())?;
            Ok((Scheme::RsaPss(parameter), Input::of_hash(hash)))
        }
        Mechanism::Sm2SignWithSm3 => Ok((sm2(false), Input::Whole(Vec::new()))),
        Mechanism::Sm2SignPrehashed => Ok((sm2(true), Input::Prehashed)),
        _ => Err(Refusal::MechanismInvalid),
    }
}

/// The curve that a key's parameters name.
pub fn curve(key: &Object) -> Result<Curve, Refusal> {
    Curve::from_parameters(key.bytes(ck::CKA_EC_PARAMS).ok_or(Refusal::KeyTypeInconsistent)?)
}

/// A signature being made.
pub struct Signing(SigningWith);

enum SigningWith {
    Mac(MacState),
    Key { scheme: Scheme, input: Input, key: Bytes, len_max: usize },
}

/// A signature being checked.
pub struct Verifying(VerifyingWith);

enum VerifyingWith {
    Mac(MacState),
    Key { scheme: Scheme, input: Input, key: PublicKey, len_max: usize },
}

enum PublicKey {
    Point(Vec<u8>),
    Rsa(PublicHalf),
}

impl Scheme {
    /// The length of a signature; of one in DER, the longest.
    fn signature_len_max(&self, key: &Object) -> Result<usize, Refusal> {
        match self {
            Self::Ecdsa(curve) => Ok(2 * curve.field_len()),
            Self::Eddsa => Ok(ed25519::SIGNATURE_LEN),
            Self::RsaPkcs1(_) | Self::RsaPss(_) => Ok(key.rsa_public_half()?.modulus.len()),
            Self::Sm2 { form, .. } => Ok(sm2::signature_len_max(*form)),
        }
    }

    fn sign(&self, key: &[u8], input: &[u8]) -> Result<Vec<u8>, Refusal> {
        match self {
            Self::Ecdsa(curve) => ec::sign(*curve, key, input),
            Self::Eddsa => ed25519::sign(key, input),
            Self::RsaPkcs1(prefix) => rsa::sign_pkcs1(key, &[prefix, input].concat()),
            Self::RsaPss(parameter) => rsa::sign_pss(key, *parameter, input),
            Self::Sm2 { user_id, is_prehashed, form } => {
                let key = sm2::signing_key(key, user_id)?;
                if *is_prehashed {
                    sm2::sign_prehashed(&key, input, *form)
                } else {
                    sm2::sign_message(&key, input, *form)
                }
            }
        }
    }

    fn verify(&self, key: &PublicKey, input: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        match (self, key) {
            (Self::Ecdsa(curve), PublicKey::Point(point)) => ec::verify(*curve, point, input, signature),
            (Self::Eddsa, PublicKey::Point(point)) => ed25519::verify(point, input, signature),
            (Self::RsaPkcs1(prefix), PublicKey::Rsa(public)) => {
                rsa::verify_pkcs1(public, &[prefix, input].concat(), signature)
            }
            (Self::RsaPss(parameter), PublicKey::Rsa(public)) => {
                rsa::verify_pss(public, *parameter, input, signature)
            }
            (Self::Sm2 { user_id, is_prehashed, form }, PublicKey::Point(point)) => {
                let key = sm2::verifying_key(point, user_id)?;
                if *is_prehashed {
                    sm2::verify_prehashed(&key, input, signature, *form)
                } else {
                    sm2::verify_message(&key, input, signature, *form)
                }
            }
            _ => Err(Refusal::KeyTypeInconsistent),
        }
    }
}

fn is_mac(mechanism: Mechanism) -> bool {
    matches!(mechanism, Mechanism::Hmac(..) | Mechanism::Cmac(..) | Mechanism::CbcMac(_))
}

impl Signing {
    /// `key` is a MAC key or a private key.
    pub fn new(call: &MechanismCall, key: &Object, personality: &Personality) -> Result<Self, Refusal> {
        if is_mac(call.mechanism) {
            return Ok(Self(SigningWith::Mac(MacState::new(
                call.mechanism,
                &call.parameter,
                key.secret()?,
            )?)));
        }
        let (scheme, input) = scheme(call, key, personality)?;
        let len_max = scheme.signature_len_max(key)?;
        let key = Zeroizing::new(key.secret()?.to_vec());
        Ok(Self(SigningWith::Key { scheme, input, key, len_max }))
    }

    pub fn signature_len_max(&self) -> usize {
        match &self.0 {
            SigningWith::Mac(state) => state.len(),
            SigningWith::Key { len_max, .. } => *len_max,
        }
    }

    pub fn update(&mut self, part: &[u8]) -> Result<(), Refusal> {
        match &mut self.0 {
            SigningWith::Mac(state) => {
                state.update(part);
                Ok(())
            }
            SigningWith::Key { input, .. } => input.update(part),
        }
    }

    pub fn finish(self, last_part: &[u8]) -> Result<Vec<u8>, Refusal> {
        match self.0 {
            SigningWith::Mac(mut state) => {
                state.update(last_part);
                state.finish()
            }
            SigningWith::Key { scheme, input, key, .. } => scheme.sign(&key, &input.finish(last_part)),
        }
    }
}

impl Verifying {
    /// `key` is a MAC key or a public key.
    pub fn new(call: &MechanismCall, key: &Object, personality: &Personality) -> Result<Self, Refusal> {
        if is_mac(call.mechanism) {
            let state = MacState::new(call.mechanism, &call.parameter, key.secret()?)?;
            return Ok(Self(VerifyingWith::Mac(state)));
        }
        let (scheme, input) = scheme(call, key, personality)?;
        let len_max = scheme.signature_len_max(key)?;
        let key = match scheme {
            Scheme::RsaPkcs1(_) | Scheme::RsaPss(_) => PublicKey::Rsa(key.rsa_public_half()?),
            _ => PublicKey::Point(key.point()?.to_vec()),
        };
        Ok(Self(VerifyingWith::Key { scheme, input, key, len_max }))
    }

    pub fn update(&mut self, part: &[u8]) -> Result<(), Refusal> {
        match &mut self.0 {
            VerifyingWith::Mac(state) => {
                state.update(part);
                Ok(())
            }
            VerifyingWith::Key { input, .. } => input.update(part),
        }
    }

    pub fn finish(self, last_part: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        match self.0 {
            VerifyingWith::Mac(mut state) => {
                state.update(last_part);
                state.verify(signature)
            }
            VerifyingWith::Key { scheme, input, key, len_max } => {
                let is_right_len = match &scheme {
                    // The one signature whose length varies is checked where it is parsed.
                    Scheme::Sm2 { .. } => true,
                    _ => signature.len() == len_max,
                };
                if !is_right_len {
                    return Err(Refusal::SignatureLenRange);
                }
                scheme.verify(&key, &input.finish(last_part), signature)
            }
        }
    }
}
