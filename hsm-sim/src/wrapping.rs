//! Keys that leave under another key and come back, and keys that are made of other keys.

use cryptoki_sys as ck;

use crate::key_kind::KeyKind;
use crate::mechanism::cipher::{Bytes, Direction, OutputLen};
use crate::mechanism::gcm::GcmNonce;
use crate::mechanism::parameter::{EcdhParameter, HkdfParameter, Parameter, Salt};
use crate::mechanism::signature::curve;
use crate::mechanism::{Mechanism, MechanismCall, ec, kdf, transform};
use crate::object::{Object, ObjectClass, Template};
use crate::object_table::ObjectHandle;
use crate::private_key;
use crate::refusal::Refusal;
use crate::session::{KeyUse, Output, Room, Session};

/// What `C_WrapKey` gives, and the nonce that the token made if the client is to be told.
pub struct Wrapped {
    pub output: Output,
    pub made_nonce: Option<GcmNonce>,
}

impl Session {
    /// `C_WrapKey`. Nothing is remembered between the call that asks for the length and the next.
    pub fn wrap_key(
        &self,
        call: MechanismCall,
        wrapping_key: ObjectHandle,
        key: ObjectHandle,
        room: Room,
    ) -> Result<Wrapped, Refusal> {
        let wrapping_key = self.key_for(&call, wrapping_key, KeyUse::Wrap).map_err(of_wrapping_key)?;
        let key = self.key(key)?;
        require_wrappable(&key, &wrapping_key)?;
        let plaintext = match key.class {
            ObjectClass::PublicKey | ObjectClass::Data | ObjectClass::Certificate => {
                return Err(Refusal::KeyNotWrappable);
            }
            ObjectClass::SecretKey => Bytes::new(key.secret()?.to_vec()),
            // The asymmetric mechanisms have no room for a private key.
            ObjectClass::PrivateKey if wrapping_key.class == ObjectClass::PublicKey => {
                return Err(Refusal::KeyNotWrappable);
            }
            ObjectClass::PrivateKey => {
                let kind = self.kind_of(&key)?;
                private_key::to_pkcs8(kind, key.bytes(ck::CKA_EC_PARAMS), key.secret()?)?
            }
        };
        let begun = transform::begin(Direction::Encrypt, call, &wrapping_key, self.token.personality)
            .map_err(of_wrapping_key)?;
        let len = begun.transform.finish_len(plaintext.len());
        match (room, len) {
            (Room::Asking, _) => {
                return Ok(Wrapped { output: Output::Needed(len.max()), made_nonce: None });
            }
            (Room::Bytes(room), OutputLen::Exactly(len)) if room < len => {
                return Ok(Wrapped { output: Output::TooSmall(len), made_nonce: None });
            }
            _ => {}
        }
        let wrapped = begun.transform.finish(&plaintext).map_err(|refusal| match refusal {
            Refusal::DataLenRange => Refusal::KeySizeRange,
            other => other,
        })?;
        let output = room.short_of(wrapped.len()).unwrap_or(Output::Ready(wrapped));
        Ok(Wrapped { output, made_nonce: begun.made_nonce })
    }

    /// `C_UnwrapKey`.
    pub fn unwrap_key(
        &self,
        call: MechanismCall,
        unwrapping_key: ObjectHandle,
        wrapped: &[u8],
        template: Template,
    ) -> Result<ObjectHandle, Refusal> {
        let unwrapping_key =
            self.key_for(&call, unwrapping_key, KeyUse::Unwrap).map_err(of_unwrapping_key)?;
        let begun = transform::begin(Direction::Decrypt, call, &unwrapping_key, self.token.personality)
            .map_err(of_unwrapping_key)?;
        let plaintext = begun.transform.finish(wrapped).map_err(|refusal| match refusal {
            Refusal::EncryptedDataInvalid => Refusal::WrappedKeyInvalid,
            Refusal::EncryptedDataLenRange => Refusal::WrappedKeyLenRange,
            other => other,
        })?;
        let object = self.token.creator()?.unwrapped(template, plaintext)?;
        self.add_one(object)
    }

    /// `C_DeriveKey`.
    pub fn derive_key(
        &self,
        call: MechanismCall,
        base: ObjectHandle,
        template: Template,
    ) -> Result<ObjectHandle, Refusal> {
        let base = self.key_for(&call, base, KeyUse::Derive)?;
        let creator = self.token.creator()?;
        let (kind, value) = match (call.mechanism, call.parameter) {
            (Mechanism::EcdhDerive, Parameter::Ecdh(parameter)) => {
                let natural_len =
                    parameter.kdf.is_none().then(|| curve(&base).map(|curve| curve.field_len()));
                let wanted = creator.wanted_key(&template, natural_len.transpose()?)?;
                (wanted.kind, agree(&base, &parameter, wanted.len)?)
            }
            (Mechanism::HkdfDerive, Parameter::Hkdf(parameter)) => {
                let natural_len = parameter.expand_with.is_none().then(|| parameter.hash.len());
                let wanted = creator.wanted_key(&template, natural_len)?;
                (wanted.kind, self.hkdf(&base, &parameter, wanted.len)?)
            }
            _ => return Err(Refusal::MechanismParamInvalid),
        };
        self.add_one(creator.derived(kind, value, template, &base)?)
    }

    fn hkdf(&self, base: &Object, parameter: &HkdfParameter, len: usize) -> Result<Bytes, Refusal> {
        let base = base.secret()?;
        let extracted = match &parameter.extract_with {
            None => Bytes::new(base.to_vec()),
            Some(Salt::Absent) => kdf::hkdf_extract(parameter.hash, None, base),
            Some(Salt::Data(salt)) => kdf::hkdf_extract(parameter.hash, Some(salt), base),
            Some(Salt::Key(handle)) => {
                let salt = self.key(*handle)?;
                if salt.class != ObjectClass::SecretKey {
                    return Err(Refusal::KeyTypeInconsistent);
                }
                kdf::hkdf_extract(parameter.hash, Some(salt.secret()?), base)
            }
        };
        match &parameter.expand_with {
            Some(info) => kdf::hkdf_expand(parameter.hash, &extracted, info, len),
            None if len <= extracted.len() => Ok(Bytes::new(extracted[..len].to_vec())),
            None => Err(Refusal::KeySizeRange),
        }
    }

    fn kind_of(&self, key: &Object) -> Result<KeyKind, Refusal> {
        let key_type = key.number(ck::CKA_KEY_TYPE).ok_or(Refusal::KeyTypeInconsistent)?;
        self.token.personality.key_kind(key_type).ok_or(Refusal::KeyTypeInconsistent)
    }
}

fn require_wrappable(key: &Object, wrapping_key: &Object) -> Result<(), Refusal> {
    if key.class == ObjectClass::PublicKey {
        return Err(Refusal::KeyNotWrappable);
    }
    if !key.flag(ck::CKA_EXTRACTABLE) {
        return Err(Refusal::KeyUnextractable);
    }
    if key.flag(ck::CKA_WRAP_WITH_TRUSTED) && !wrapping_key.flag(ck::CKA_TRUSTED) {
        return Err(Refusal::KeyNotWrappable);
    }
    Ok(())
}

fn agree(base: &Object, parameter: &EcdhParameter, len: usize) -> Result<Bytes, Refusal> {
    let curve = curve(base)?;
    let point = match parameter.public_data.len() {
        uncompressed if uncompressed == 1 + 2 * curve.field_len() => &parameter.public_data[..],
        // The DER form has the OCTET STRING around the point.
        _ => ec::unwrap_point(&parameter.public_data).map_err(|_| Refusal::MechanismParamInvalid)?,
    };
    ec::require_point(curve, point).map_err(|_| Refusal::MechanismParamInvalid)?;
    let agreed = ec::agree(curve, base.secret()?, point)?;
    match parameter.kdf {
        Some(hash) => kdf::x963(hash, &agreed, &parameter.shared_data, len),
        // Without a KDF the standard takes bytes away from the leading end.
        None => {
            let removed = agreed.len().checked_sub(len).ok_or(Refusal::KeySizeRange)?;
            Ok(Bytes::new(agreed[removed..].to_vec()))
        }
    }
}

fn of_wrapping_key(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::KeyHandleInvalid => Refusal::WrappingKeyHandleInvalid,
        Refusal::KeySizeRange => Refusal::WrappingKeySizeRange,
        Refusal::KeyTypeInconsistent => Refusal::WrappingKeyTypeInconsistent,
        other => other,
    }
}

fn of_unwrapping_key(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::KeyHandleInvalid => Refusal::UnwrappingKeyHandleInvalid,
        Refusal::KeySizeRange => Refusal::UnwrappingKeySizeRange,
        Refusal::KeyTypeInconsistent => Refusal::UnwrappingKeyTypeInconsistent,
        other => other,
    }
}
