//! Key pairs of applications inside the token: what they are made of, and what they do.
//!
//! Nothing that a token answers leaves unchecked: a signature is verified with the public key that the caller knows, a
//! decryption is asked twice, and of every pair it is tried that its halves belong together before it is confirmed.

mod known_rsa;
pub(crate) mod profile;
pub(crate) mod public;
pub(crate) mod self_test;

use crate::encoding::plain;
use crate::error::HsmError;
use crate::live::{CallError, Live, unsupported};
use crate::profile::{Profile, SignatureFormat};
use crate::{ObjectKind, sealing};
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::types::Ulong;
use cryptoki_sys::{
    CK_RSA_PKCS_OAEP_PARAMS, CK_RSA_PKCS_PSS_PARAMS, CKG_MGF1_SHA256, CKG_MGF1_SHA384, CKG_MGF1_SHA512,
    CKM_SHA256, CKM_SHA384, CKM_SHA512, CKZ_DATA_SPECIFIED,
};
use kms_core::pair::{
    EncryptionAlgorithm, PairAlgorithm, PairPublicKey, PairUsage, PublicKeyError, RSA_EXPONENT,
    SignatureAlgorithm, SignedInput, Sm2Ciphertext, Sm2UserId, ToSign,
};
use kms_core::secret::Secret;
use profile::{PairTable, PairUse, Sm2Layout};
use std::ptr::null_mut;

const OTHER_SIGNATURE_FORM: HsmError = HsmError::UnexpectedAnswer { what: "a signature of another form" };
const UNUSABLE_KEY: HsmError =
    HsmError::UnexpectedAnswer { what: "a public key that is not one of its algorithm" };
pub(crate) const WRONG_SIGNATURE: HsmError =
    HsmError::UnexpectedAnswer { what: "a signature that does not verify" };
pub(crate) const WRONG_PLAINTEXT: HsmError =
    HsmError::UnexpectedAnswer { what: "a plaintext that was never encrypted" };

/// What the trial of a new pair signs or encrypts.
const TRIAL: &[u8] = b"kms/v1/pair: trial";

/// Attributes of the private half. It may leave only under a trusted wrapping key, as other recoverable keys.
pub(crate) fn private_key(profile: &Profile, usage: PairUsage, table: &PairTable) -> Vec<Attribute> {
    let mut attributes = vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(table.key_type),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Sign(usage == PairUsage::Sign),
        Attribute::Decrypt(usage == PairUsage::Decrypt),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        // Without trusted wrapping, extractable would mean extractable under any key.
        Attribute::Extractable(profile.trusted_wrapping()),
    ];
    if profile.trusted_wrapping() {
        attributes.push(Attribute::WrapWithTrusted(true));
    }
    attributes
}

/// Attributes of the public half. It can be read without a login: what is trusted is the copy that was kept when the
/// pair was made.
pub(crate) fn public_key(usage: PairUsage, table: &PairTable) -> Vec<Attribute> {
    let mut attributes = vec![
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(table.key_type),
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Verify(usage == PairUsage::Sign),
        Attribute::Encrypt(usage == PairUsage::Decrypt),
        Attribute::Wrap(false),
        Attribute::Derive(false),
    ];
    attributes.extend(table.curve.clone().map(Attribute::EcParams));
    attributes
}

/// What only the making of a pair says: for RSA the length of the modulus and the exponent.
pub(crate) fn size(algorithm: PairAlgorithm) -> Vec<Attribute> {
    if algorithm.rsa_modulus_len().is_none() {
        return Vec::new();
    }
    vec![
        Attribute::ModulusBits(Ulong::new(algorithm.bits())),
        Attribute::PublicExponent(RSA_EXPONENT.to_vec()),
    ]
}

/// The values of a public half that was not made in the token.
pub(crate) fn public_values(key: &PairPublicKey) -> Vec<Attribute> {
    match key.rsa_modulus() {
        Some(modulus) => {
            vec![Attribute::Modulus(modulus.to_vec()), Attribute::PublicExponent(RSA_EXPONENT.to_vec())]
        }
        None => {
            let point = key.to_library_form();
            let mut der = point_header(point.len());
            der.extend_from_slice(&point);
            vec![Attribute::EcPoint(der)]
        }
    }
}

/// Tag and length of a DER octet string with a point in it.
fn point_header(len: usize) -> Vec<u8> {
    if len < 0x80 { vec![0x04, len as u8] } else { vec![0x04, 0x81, len as u8] }
}

/// The public half as the token shows it, checked.
pub(crate) fn read_public_key(
    live: &Live,
    algorithm: PairAlgorithm,
    public: ObjectHandle,
) -> Result<PairPublicKey, CallError> {
    let session = live.session.get();
    let key = if algorithm.rsa_modulus_len().is_some() {
        let wanted = [AttributeType::Modulus, AttributeType::PublicExponent];
        let (mut modulus, mut exponent) = (Vec::new(), Vec::new());
        for attribute in session.get_attributes(public, &wanted)? {
            match attribute {
                Attribute::Modulus(bytes) => modulus = bytes,
                Attribute::PublicExponent(bytes) => exponent = bytes,
                _ => {}
            }
        }
        PairPublicKey::from_rsa(&modulus, &exponent)
    } else {
        let found = session.get_attributes(public, &[AttributeType::EcPoint])?;
        let Some(Attribute::EcPoint(point)) = found.first() else {
            return Err(HsmError::UnexpectedAnswer { what: "a public key without a point" }.into());
        };
        read_point(algorithm, point)
    };
    match key {
        Ok(key) if key.algorithm() == algorithm => Ok(key),
        _ => Err(UNUSABLE_KEY.into()),
    }
}

/// `CKA_EC_POINT` is a DER octet string by the standard; some modules leave the point bare.
fn read_point(algorithm: PairAlgorithm, attribute: &[u8]) -> Result<PairPublicKey, PublicKeyError> {
    let len = algorithm.coordinate_len().map_or(32, |coordinate_len| 1 + 2 * coordinate_len);
    let point = match attribute.strip_prefix(point_header(len).as_slice()) {
        Some(point) if point.len() == len => point,
        _ => attribute,
    };
    match algorithm {
        PairAlgorithm::Ed25519 => PairPublicKey::from_ed25519(point),
        _ => PairPublicKey::from_point(algorithm, point),
    }
}

/// One signature, raw, as the token gives it: not verified yet.
pub(crate) fn sign(
    live: &Live,
    table: &PairTable,
    key: ObjectHandle,
    algorithm: PairAlgorithm,
    input: &ToSign,
) -> Result<Vec<u8>, CallError> {
    let session = live.session.get();
    let signature = match (&table.uses, input.digest_info()) {
        (PairUse::RsaSign { pkcs1, .. }, Some(digest_info)) => {
            session.sign(&plain(*pkcs1), key, &digest_info)?
        }
        (PairUse::RsaSign { pss, .. }, None) => {
            let parameters = pss_parameters(input.algorithm());
            session.sign(&with_parameters(*pss, &parameters), key, input.as_bytes())?
        }
        (PairUse::CurveSign { sign, .. }, _) => session.sign(&plain(*sign), key, input.as_bytes())?,
        (PairUse::RsaDecrypt { .. } | PairUse::Sm2Decrypt { .. }, _) => {
            return Err(unsupported(ObjectKind::KeyPair(algorithm, PairUsage::Sign)).into());
        }
    };
    let format = match &table.uses {
        PairUse::CurveSign { signature, .. } => *signature,
        _ => SignatureFormat::Raw,
    };
    let raw = match format {
        SignatureFormat::Der => input.algorithm().signature_from_api(algorithm, &signature),
        // The way to DER and back shows whether it has the right length.
        SignatureFormat::Raw => input.algorithm().signature_to_api(algorithm, &signature).map(|_| signature),
    };
    raw.map_err(|_| OTHER_SIGNATURE_FORM.into())
}

fn with_parameters<'a, T>(mechanism: MechanismType, parameters: &'a T) -> Mechanism<'a> {
    Mechanism::VendorDefined(VendorDefinedMechanism::new(mechanism, Some(parameters)))
}

fn pss_parameters(algorithm: SignatureAlgorithm) -> CK_RSA_PKCS_PSS_PARAMS {
    let (hash, mask, salt_len) = match algorithm {
        SignatureAlgorithm::RsaPssSha384 => (CKM_SHA384, CKG_MGF1_SHA384, 48),
        SignatureAlgorithm::RsaPssSha512 => (CKM_SHA512, CKG_MGF1_SHA512, 64),
        _ => (CKM_SHA256, CKG_MGF1_SHA256, 32),
    };
    CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash, mgf: mask, sLen: salt_len }
}

/// One decryption. `ciphertext` has passed [`EncryptionAlgorithm::check_ciphertext`].
///
/// The inner error is the token's refusal, which may mean a wrong ciphertext or a broken device.
fn decrypt_once(
    live: &Live,
    table: &PairTable,
    key: ObjectHandle,
    algorithm: PairAlgorithm,
    ciphertext: &[u8],
) -> Result<Result<Secret, cryptoki::error::Error>, HsmError> {
    let session = live.session.get();
    let (decrypted, is_possible): (_, Box<dyn Fn(usize) -> bool>) = match &table.uses {
        PairUse::RsaDecrypt { oaep } => {
            let parameters = CK_RSA_PKCS_OAEP_PARAMS {
                hashAlg: CKM_SHA256,
                mgf: CKG_MGF1_SHA256,
                source: CKZ_DATA_SPECIFIED,
                pSourceData: null_mut(),
                ulSourceDataLen: 0,
            };
            let decrypted = session.decrypt(&with_parameters(*oaep, &parameters), key, ciphertext);
            let len_max = EncryptionAlgorithm::RsaOaepSha256.plaintext_len_max(algorithm);
            (decrypted, Box::new(move |len| len <= len_max))
        }
        PairUse::Sm2Decrypt { decrypt, ciphertext: layout } => {
            let read = Sm2Ciphertext::from_der(ciphertext).map_err(|_| HsmError::CiphertextInvalid)?;
            let input = match layout {
                Sm2Layout::C1c3c2 => read.to_raw(false),
                Sm2Layout::C1c2c3 => read.to_raw(true),
                Sm2Layout::Asn1 => read.to_der(),
            };
            let expected = read.plaintext_len();
            (session.decrypt(&plain(*decrypt), key, &input), Box::new(move |len| len == expected))
        }
        PairUse::RsaSign { .. } | PairUse::CurveSign { .. } => {
            return Err(unsupported(ObjectKind::KeyPair(algorithm, PairUsage::Decrypt)));
        }
    };
    match decrypted.map(Secret::new) {
        Ok(plaintext) if !is_possible(plaintext.expose().len()) => {
            Err(HsmError::UnexpectedAnswer { what: "a plaintext of another length" })
        }
        result => Ok(result),
    }
}

/// Decrypts twice and compares: no tag is left behind a decryption by which anybody could see a wrong answer.
pub(crate) fn decrypt(
    live: &mut Live,
    profile: &Profile,
    table: &PairTable,
    key: ObjectHandle,
    algorithm: PairAlgorithm,
    ciphertext: &[u8],
) -> Result<Secret, CallError> {
    let first = match decrypt_once(live, table, key, algorithm, ciphertext)? {
        Ok(plaintext) => plaintext,
        Err(error) => return Err(sealing::refusal(live, profile, error)),
    };
    match decrypt_once(live, table, key, algorithm, ciphertext)? {
        Ok(second) if second.expose() == first.expose() => Ok(first),
        Ok(_) => Err(HsmError::UnexpectedAnswer { what: "two plaintexts of one ciphertext" }.into()),
        Err(error) => match sealing::refusal(live, profile, error) {
            CallError::Ours(HsmError::CiphertextInvalid) => Err(WRONG_PLAINTEXT.into()),
            error => Err(error),
        },
    }
}

/// Tries that the halves belong together: data that was encrypted to another public key would be lost.
pub(crate) fn try_pair(
    live: &Live,
    table: &PairTable,
    usage: PairUsage,
    private: ObjectHandle,
    public: &PairPublicKey,
) -> Result<(), CallError> {
    let algorithm = public.algorithm();
    match usage {
        PairUsage::Sign => {
            let kind = ObjectKind::KeyPair(algorithm, usage);
            let how = SignatureAlgorithm::of(algorithm).next().ok_or_else(|| unsupported(kind))?;
            let input = ToSign::new(how, public, &Sm2UserId::default(), SignedInput::Message(TRIAL))
                .map_err(|_| unsupported(kind))?;
            let signature = sign(live, table, private, algorithm, &input)?;
            public::verify_signature(public, &input, &signature).map_err(|_| WRONG_SIGNATURE.into())
        }
        PairUsage::Decrypt => {
            let ciphertext = public::encrypt_to(public, TRIAL).map_err(|_| UNUSABLE_KEY)?;
            match decrypt_once(live, table, private, algorithm, &ciphertext)? {
                Ok(plaintext) if plaintext.expose() == TRIAL => Ok(()),
                Ok(_) => Err(WRONG_PLAINTEXT.into()),
                Err(error) => Err(error.into()),
            }
        }
    }
}
