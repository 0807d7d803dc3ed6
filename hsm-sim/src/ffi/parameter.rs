//! Mechanisms and the structures behind their parameters.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;

use crate::ffi::object;
use crate::ffi::pointer::{items, require_place};
use crate::mechanism::gcm::{GcmNonce, GcmParameter, NONCE_LEN, TAG_LEN};
use crate::mechanism::parameter::{
    CounterParameter, EcdhParameter, HkdfParameter, OaepParameter, Parameter, ParameterShape, PssParameter,
    Salt,
};
use crate::mechanism::{Hash, Mechanism, MechanismCall};
use crate::module::Module;
use crate::personality::Personality;
use crate::refusal::Refusal;

/// The bytes of a parameter, or of something that a parameter points to.
///
/// # Safety
/// Unless it is NULL, `first` points to `count` items that stay unchanged for `'a`.
unsafe fn inner<'a, T>(first: *const T, count: ck::CK_ULONG) -> Result<&'a [T], Refusal> {
    // SAFETY: the caller's promise, passed on.
    unsafe { items(first, count) }.map_err(|_| Refusal::MechanismParamInvalid)
}

/// The structure behind `pParameter`, if it has the length of the structure.
///
/// # Safety
/// Unless it is NULL, the parameter is as long as the mechanism says, and stays unchanged for `'a`.
unsafe fn structure<'a, T>(call: &ck::CK_MECHANISM) -> Result<&'a T, Refusal> {
    if call.ulParameterLen != size_of::<T>() as ck::CK_ULONG {
        return Err(Refusal::MechanismParamInvalid);
    }
    // SAFETY: the length is that of the structure, which the caller promises to be there.
    match unsafe { inner(call.pParameter.cast_const().cast::<T>(), 1) }? {
        [structure] => Ok(structure),
        _ => Err(Refusal::MechanismParamInvalid),
    }
}

/// A mechanism with its parameter, read as the mechanism demands.
///
/// # Safety
/// Unless it is NULL, `mechanism` points to a mechanism whose parameter has the length that it says
/// and is the structure that the mechanism prescribes, with everything it points to.
pub unsafe fn mechanism(mechanism: *const ck::CK_MECHANISM) -> Result<MechanismCall, Refusal> {
    // SAFETY: the caller's promise, passed on.
    let [call] = unsafe { items(mechanism, 1) }? else { return Err(Refusal::ArgumentsBad) };
    let personality = Module::current()?.personality;
    let mechanism = personality.mechanism(call.mechanism).ok_or(Refusal::MechanismInvalid)?;
    let parameter = match mechanism.parameter_shape() {
        ParameterShape::Absent if call.ulParameterLen == 0 => Parameter::Absent,
        ParameterShape::Absent => return Err(Refusal::MechanismParamInvalid),
        ParameterShape::Iv { len } => {
            // SAFETY: the caller's promise for the parameter.
            let iv = unsafe { inner(call.pParameter.cast_const().cast::<u8>(), call.ulParameterLen) }?;
            if iv.len() != len {
                return Err(Refusal::MechanismParamInvalid);
            }
            Parameter::Iv(iv.to_vec())
        }
        ParameterShape::Length => {
            // SAFETY: the caller's promise for the parameter.
            let len: &ck::CK_MAC_GENERAL_PARAMS = unsafe { structure(call) }?;
            Parameter::Length(usize::try_from(*len).map_err(|_| Refusal::MechanismParamInvalid)?)
        }
        ParameterShape::Counter => {
            // SAFETY: the caller's promise for the parameter.
            let counter: &ck::CK_AES_CTR_PARAMS = unsafe { structure(call) }?;
            let bits = u32::try_from(counter.ulCounterBits).map_err(|_| Refusal::MechanismParamInvalid)?;
            Parameter::Counter(CounterParameter { block: counter.cb, bits })
        }
        // SAFETY: the caller's promise for the parameter.
        ParameterShape::Gcm => Parameter::Gcm(unsafe { gcm(structure(call)?) }?),
        // SAFETY: as above.
        ParameterShape::Pss => Parameter::Pss(pss(personality, unsafe { structure(call) }?)?),
        // SAFETY: as above.
        ParameterShape::Oaep => Parameter::Oaep(unsafe { oaep(personality, structure(call)?) }?),
        // SAFETY: as above.
        ParameterShape::Ecdh => Parameter::Ecdh(unsafe { ecdh(structure(call)?) }?),
        // SAFETY: as above.
        ParameterShape::Hkdf => Parameter::Hkdf(unsafe { hkdf(personality, structure(call)?) }?),
        ParameterShape::Sm2UserId if call.ulParameterLen == 0 => Parameter::Absent,
        ParameterShape::Sm2UserId if !personality.takes_sm2_user_id => {
            return Err(Refusal::MechanismParamInvalid);
        }
        ParameterShape::Sm2UserId => {
            // SAFETY: the caller's promise for the parameter.
            let id = unsafe { inner(call.pParameter.cast_const().cast::<u8>(), call.ulParameterLen) }?;
            let id = std::str::from_utf8(id).map_err(|_| Refusal::MechanismParamInvalid)?;
            Parameter::Sm2UserId(id.to_owned())
        }
    };
    Ok(MechanismCall { code: call.mechanism, mechanism, parameter })
}

/// Writes the nonce that the token made over the caller's, in the parameter of a GCM mechanism.
///
/// # Safety
/// [`mechanism`] has read this mechanism, and found a GCM parameter with a nonce of full length.
pub unsafe fn write_made_nonce(mechanism: *const ck::CK_MECHANISM, nonce: GcmNonce) -> Result<(), Refusal> {
    // SAFETY: the caller's promise: the mechanism was read before, and so was the structure.
    let [call] = unsafe { items(mechanism, 1) }? else { return Err(Refusal::ArgumentsBad) };
    // SAFETY: as above.
    let parameter: &ck::CK_GCM_PARAMS = unsafe { structure(call) }?;
    require_place(parameter.pIv)?;
    // SAFETY: not NULL was checked; the nonce that was read from there had the same length.
    unsafe { std::ptr::copy_nonoverlapping(nonce.as_ptr(), parameter.pIv, NONCE_LEN) };
    Ok(())
}

// SAFETY (of calling): the IV and the associated data are where the parameter says.
unsafe fn gcm(parameter: &ck::CK_GCM_PARAMS) -> Result<GcmParameter, Refusal> {
    // SAFETY: the caller's promise for the IV.
    let nonce = unsafe { inner(parameter.pIv.cast_const(), parameter.ulIvLen) }?;
    // SAFETY: the caller's promise for the associated data.
    let aad = unsafe { inner(parameter.pAAD.cast_const(), parameter.ulAADLen) }?;
    // Some clients leave ulIvBits zero; the standard says to go by ulIvLen. Without an IV, the bits say how long the
    // one shall be that the token makes.
    let iv_bits_agree = match (parameter.ulIvBits, parameter.ulIvLen) {
        (0, _) => true,
        (bits, 0) => bits == 8 * NONCE_LEN as ck::CK_ULONG,
        (bits, len) => Some(bits) == len.checked_mul(8),
    };
    if !iv_bits_agree || parameter.ulTagBits != 8 * TAG_LEN as ck::CK_ULONG {
        return Err(Refusal::MechanismParamInvalid);
    }
    let nonce = match nonce {
        [] => None,
        nonce => Some(nonce.try_into().map_err(|_| Refusal::MechanismParamInvalid)?),
    };
    Ok(GcmParameter { nonce, aad: aad.to_vec() })
}

/// A parameter names a hash by the number of its digest mechanism.
fn hash(personality: &Personality, code: ck::CK_MECHANISM_TYPE) -> Result<Hash, Refusal> {
    match personality.mechanism(code) {
        Some(Mechanism::Digest(hash)) => Ok(hash),
        _ => Err(Refusal::MechanismParamInvalid),
    }
}

/// The hash that the mask generation uses.
fn mask_hash(mask: ck::CK_RSA_PKCS_MGF_TYPE) -> Result<Hash, Refusal> {
    match mask {
        ck::CKG_MGF1_SHA1 => Ok(Hash::Sha1),
        ck::CKG_MGF1_SHA224 => Ok(Hash::Sha224),
        ck::CKG_MGF1_SHA256 => Ok(Hash::Sha256),
        ck::CKG_MGF1_SHA384 => Ok(Hash::Sha384),
        ck::CKG_MGF1_SHA512 => Ok(Hash::Sha512),
        _ => Err(Refusal::MechanismParamInvalid),
    }
}

fn pss(personality: &Personality, parameter: &ck::CK_RSA_PKCS_PSS_PARAMS) -> Result<PssParameter, Refusal> {
    let salt_len = usize::try_from(parameter.sLen).map_err(|_| Refusal::MechanismParamInvalid)?;
    let hash = hash(personality, parameter.hashAlg)?;
    Ok(PssParameter { hash, mask_hash: mask_hash(parameter.mgf)?, salt_len })
}

// SAFETY (of calling): the label is where the parameter says.
unsafe fn oaep(
    personality: &Personality,
    parameter: &ck::CK_RSA_PKCS_OAEP_PARAMS,
) -> Result<OaepParameter, Refusal> {
    let hash = hash(personality, parameter.hashAlg)?;
    if mask_hash(parameter.mgf)? != hash {
        return Err(Refusal::MechanismParamInvalid);
    }
    // SAFETY: the caller's promise for the label.
    let label = unsafe { inner(parameter.pSourceData.cast_const().cast::<u8>(), parameter.ulSourceDataLen) }?;
    match parameter.source {
        ck::CKZ_DATA_SPECIFIED => Ok(OaepParameter { hash, label: label.to_vec() }),
        // Many clients leave the source zero when they have no label.
        0 if label.is_empty() => Ok(OaepParameter { hash, label: Vec::new() }),
        _ => Err(Refusal::MechanismParamInvalid),
    }
}

// SAFETY (of calling): the shared and the public data are where the parameter says.
unsafe fn ecdh(parameter: &ck::CK_ECDH1_DERIVE_PARAMS) -> Result<EcdhParameter, Refusal> {
    let kdf = match parameter.kdf {
        ck::CKD_NULL => None,
        ck::CKD_SHA1_KDF => Some(Hash::Sha1),
        ck::CKD_SHA224_KDF => Some(Hash::Sha224),
        ck::CKD_SHA256_KDF => Some(Hash::Sha256),
        ck::CKD_SHA384_KDF => Some(Hash::Sha384),
        ck::CKD_SHA512_KDF => Some(Hash::Sha512),
        _ => return Err(Refusal::MechanismParamInvalid),
    };
    // SAFETY: the caller's promise for the shared data.
    let shared = unsafe { inner(parameter.pSharedData.cast_const(), parameter.ulSharedDataLen) }?;
    // SAFETY: the caller's promise for the public data.
    let public = unsafe { inner(parameter.pPublicData.cast_const(), parameter.ulPublicDataLen) }?;
    if kdf.is_none() && !shared.is_empty() {
        return Err(Refusal::MechanismParamInvalid);
    }
    Ok(EcdhParameter { kdf, shared_data: shared.to_vec(), public_data: public.to_vec() })
}

// SAFETY (of calling): the salt and the info are where the parameter says.
unsafe fn hkdf(personality: &Personality, parameter: &ck::CK_HKDF_PARAMS) -> Result<HkdfParameter, Refusal> {
    let hash = hash(personality, parameter.prfHashMechanism)?;
    if parameter.bExtract == ck::CK_FALSE && parameter.bExpand == ck::CK_FALSE {
        return Err(Refusal::MechanismParamInvalid);
    }
    let extract_with = if parameter.bExtract == ck::CK_FALSE {
        None
    } else {
        Some(match parameter.ulSaltType {
            ck::CKF_HKDF_SALT_NULL => Salt::Absent,
            ck::CKF_HKDF_SALT_DATA => {
                // SAFETY: the caller's promise for the salt.
                let salt = unsafe { inner(parameter.pSalt.cast_const(), parameter.ulSaltLen) }?;
                Salt::Data(salt.to_vec())
            }
            ck::CKF_HKDF_SALT_KEY => Salt::Key(object(parameter.hSaltKey)),
            _ => return Err(Refusal::MechanismParamInvalid),
        })
    };
    let expand_with = if parameter.bExpand == ck::CK_FALSE {
        None
    } else {
        // SAFETY: the caller's promise for the info.
        Some(unsafe { inner(parameter.pInfo.cast_const(), parameter.ulInfoLen) }?.to_vec())
    };
    Ok(HkdfParameter { hash, extract_with, expand_with })
}
