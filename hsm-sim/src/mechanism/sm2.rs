//! SM2 signatures and encryption (GB/T 32918.2 and .4) on sm2p256v1.

use getrandom::SysRng;
use signature::hazmat::{PrehashVerifier, RandomizedPrehashSigner};
use signature::{RandomizedSigner, Verifier};
use sm2::dsa::{DerSignature, Signature, SigningKey, VerifyingKey};
use sm2::elliptic_curve::Generate;
use sm2::elliptic_curve::sec1::ToSec1Point;
use sm2::pke::{DecryptingKey, EncryptingKey, Mode};
use sm2::{PublicKey, SecretKey};
use zeroize::Zeroizing;

use crate::mechanism::cipher::{Bytes, OutputLen, WholeMessage};
use crate::mechanism::ec::GeneratedPair;
use crate::personality::{Sm2CiphertextLayout, Sm2SignatureForm};
use crate::refusal::Refusal;

/// Length of `e`, the digest that a prehashed signature takes.
pub const DIGEST_LEN: usize = 32;

pub const SCALAR_LEN: usize = 32;

const RAW_SIGNATURE_LEN: usize = 64;
/// Two INTEGERs of 33 bytes each in a SEQUENCE.
const DER_SIGNATURE_LEN_MAX: usize = 72;

/// The point and the hash that a raw ciphertext has beside the message.
const RAW_CIPHERTEXT_OVERHEAD: usize = 65 + 32;
/// The same with two INTEGERs, two OCTET STRINGs and a SEQUENCE around everything, at their longest.
const DER_CIPHERTEXT_OVERHEAD_MAX: usize = RAW_CIPHERTEXT_OVERHEAD + 24;

pub fn generate() -> Result<GeneratedPair, Refusal> {
    let secret = SecretKey::try_generate_from_rng(&mut SysRng).map_err(|_| Refusal::RandomNoRng)?;
    Ok(GeneratedPair {
        scalar: Zeroizing::new(Zeroizing::new(secret.to_bytes()).to_vec()),
        point: secret.public_key().to_sec1_point(false).as_bytes().to_vec(),
    })
}

pub fn require_scalar(scalar: &[u8]) -> Result<(), Refusal> {
    SecretKey::from_slice(scalar).map(|_| ()).map_err(|_| Refusal::AttributeValueInvalid)
}

pub fn require_point(point: &[u8]) -> Result<(), Refusal> {
    PublicKey::from_sec1_bytes(point).map(|_| ()).map_err(|_| Refusal::AttributeValueInvalid)
}

pub fn signature_len_max(form: Sm2SignatureForm) -> usize {
    match form {
        Sm2SignatureForm::Raw => RAW_SIGNATURE_LEN,
        Sm2SignatureForm::Der => DER_SIGNATURE_LEN_MAX,
    }
}

pub fn signing_key(scalar: &[u8], user_id: &str) -> Result<SigningKey, Refusal> {
    let secret = SecretKey::from_slice(scalar).map_err(|_| Refusal::DeviceError)?;
    SigningKey::new(user_id, &secret).map_err(|_| Refusal::MechanismParamInvalid)
}

pub fn verifying_key(point: &[u8], user_id: &str) -> Result<VerifyingKey, Refusal> {
    VerifyingKey::from_sec1_bytes(user_id, point).map_err(|_| Refusal::MechanismParamInvalid)
}

/// Signs a message: the digest over `ZA || message` is made here.
pub fn sign_message(key: &SigningKey, message: &[u8], form: Sm2SignatureForm) -> Result<Vec<u8>, Refusal> {
    let signature: Signature =
        key.try_sign_with_rng(&mut SysRng, message).map_err(|_| Refusal::RandomNoRng)?;
    Ok(encode(signature, form))
}

/// Signs `e` as it is: the caller has already hashed `ZA || message`.
pub fn sign_prehashed(key: &SigningKey, digest: &[u8], form: Sm2SignatureForm) -> Result<Vec<u8>, Refusal> {
    require_digest_len(digest)?;
    let signature: Signature =
        key.sign_prehash_with_rng(&mut SysRng, digest).map_err(|_| Refusal::RandomNoRng)?;
    Ok(encode(signature, form))
}

pub fn verify_message(
    key: &VerifyingKey,
    message: &[u8],
    signature: &[u8],
    form: Sm2SignatureForm,
) -> Result<(), Refusal> {
    key.verify(message, &decode(signature, form)?).map_err(|_| Refusal::SignatureInvalid)
}

pub fn verify_prehashed(
    key: &VerifyingKey,
    digest: &[u8],
    signature: &[u8],
    form: Sm2SignatureForm,
) -> Result<(), Refusal> {
    require_digest_len(digest)?;
    key.verify_prehash(digest, &decode(signature, form)?).map_err(|_| Refusal::SignatureInvalid)
}

fn require_digest_len(digest: &[u8]) -> Result<(), Refusal> {
    if digest.len() == DIGEST_LEN { Ok(()) } else { Err(Refusal::DataLenRange) }
}

fn encode(signature: Signature, form: Sm2SignatureForm) -> Vec<u8> {
    match form {
        Sm2SignatureForm::Raw => signature.to_bytes().to_vec(),
        Sm2SignatureForm::Der => DerSignature::from(signature).as_bytes().to_vec(),
    }
}

fn decode(signature: &[u8], form: Sm2SignatureForm) -> Result<Signature, Refusal> {
    match form {
        Sm2SignatureForm::Raw if signature.len() != RAW_SIGNATURE_LEN => Err(Refusal::SignatureLenRange),
        Sm2SignatureForm::Raw => Signature::from_slice(signature).map_err(|_| Refusal::SignatureInvalid),
        Sm2SignatureForm::Der if signature.len() > DER_SIGNATURE_LEN_MAX => Err(Refusal::SignatureLenRange),
        Sm2SignatureForm::Der => {
            let der = DerSignature::from_bytes(signature).map_err(|_| Refusal::SignatureInvalid)?;
            Signature::try_from(der).map_err(|_| Refusal::SignatureInvalid)
        }
    }
}

/// A ciphertext of GB/T 32918.4, laid out as the vendor does it.
pub struct Encryption {
    key: EncryptingKey,
    layout: Sm2CiphertextLayout,
}

pub struct Decryption {
    key: DecryptingKey,
    layout: Sm2CiphertextLayout,
}

fn mode(layout: Sm2CiphertextLayout) -> Mode {
    match layout {
        Sm2CiphertextLayout::C1C2C3 => Mode::C1C2C3,
        Sm2CiphertextLayout::C1C3C2 | Sm2CiphertextLayout::Asn1 => Mode::C1C3C2,
    }
}

impl Encryption {
    pub fn new(point: &[u8], layout: Sm2CiphertextLayout) -> Result<Self, Refusal> {
        let public = PublicKey::from_sec1_bytes(point).map_err(|_| Refusal::DeviceError)?;
        Ok(Self { key: EncryptingKey::new_with_mode(public, mode(layout)), layout })
    }
}

impl WholeMessage for Encryption {
    fn output_len(&self, input_len: usize) -> OutputLen {
        match self.layout {
            Sm2CiphertextLayout::C1C3C2 | Sm2CiphertextLayout::C1C2C3 => {
                OutputLen::Exactly(input_len + RAW_CIPHERTEXT_OVERHEAD)
            }
            Sm2CiphertextLayout::Asn1 => OutputLen::AtMost(input_len + DER_CIPHERTEXT_OVERHEAD_MAX),
        }
    }

    fn run(&self, input: &[u8]) -> Result<Bytes, Refusal> {
        // The standard's key stream for an empty message is always "all zeros", which it forbids.
        if input.is_empty() {
            return Err(Refusal::DataLenRange);
        }
        let encrypted = match self.layout {
            Sm2CiphertextLayout::C1C3C2 | Sm2CiphertextLayout::C1C2C3 => self.key.encrypt(&mut SysRng, input),
            Sm2CiphertextLayout::Asn1 => self.key.encrypt_der(&mut SysRng, input),
        };
        encrypted.map(Zeroizing::new).map_err(|_| Refusal::RandomNoRng)
    }
}

impl Decryption {
    pub fn new(scalar: &[u8], layout: Sm2CiphertextLayout) -> Result<Self, Refusal> {
        let secret = SecretKey::from_slice(scalar).map_err(|_| Refusal::DeviceError)?;
        Ok(Self { key: DecryptingKey::new_with_mode(secret.to_nonzero_scalar(), mode(layout)), layout })
    }
}

impl WholeMessage for Decryption {
    fn output_len(&self, input_len: usize) -> OutputLen {
        match self.layout {
            Sm2CiphertextLayout::C1C3C2 | Sm2CiphertextLayout::C1C2C3 => {
                OutputLen::Exactly(input_len.saturating_sub(RAW_CIPHERTEXT_OVERHEAD))
            }
            Sm2CiphertextLayout::Asn1 => OutputLen::AtMost(input_len),
        }
    }

    fn run(&self, input: &[u8]) -> Result<Bytes, Refusal> {
        let decrypted = match self.layout {
            Sm2CiphertextLayout::C1C3C2 | Sm2CiphertextLayout::C1C2C3 => {
                if input.len() <= RAW_CIPHERTEXT_OVERHEAD {
                    return Err(Refusal::EncryptedDataLenRange);
                }
                self.key.decrypt(input)
            }
            Sm2CiphertextLayout::Asn1 => self.key.decrypt_der(input),
        };
        decrypted.map(Zeroizing::new).map_err(|_| Refusal::EncryptedDataInvalid)
    }
}
