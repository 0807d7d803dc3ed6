//! Vendor codes as data: which numbers stand for the mechanisms that the standard does not name.
//!
//! SM2, SM3 and SM4 have no published PKCS#11 numbers in version 2.40, so every vendor chose its own.
//! A personality is the table of one vendor; a second vendor is a second table, not a second branch.

use cryptoki_sys as ck;

use crate::mechanism::Mechanism;
use crate::object::KeyKind;

/// Everything about the module that differs from one vendor to the next.
#[derive(Debug)]
pub struct Personality {
    /// Written into every token, so that a token is never opened under the numbers of another vendor.
    pub name: &'static str,
    pub manufacturer: &'static str,
    pub model: &'static str,
    pub key_types: &'static [(ck::CK_KEY_TYPE, KeyKind)],
    pub mechanisms: &'static [(ck::CK_MECHANISM_TYPE, Mechanism)],
    /// The distinguishing identifier that enters SM2 signatures over messages.
    pub sm2_user_id: &'static str,
}

/// The numbers that Sansec publishes, and two that it does not: see the comments in the table.
pub static SANSEC: Personality = Personality {
    name: "sansec",
    manufacturer: "hsm-sim",
    model: "sansec double",
    key_types: &[
        (ck::CKK_AES, KeyKind::Aes),
        (ck::CKK_GENERIC_SECRET, KeyKind::GenericSecret),
        (ck::CKK_EC, KeyKind::P256),
        (0x8000_0004, KeyKind::Sm2),
        (0x8000_0106, KeyKind::Sm4),
    ],
    mechanisms: &[
        (ck::CKM_AES_KEY_GEN, Mechanism::AesKeyGeneration),
        (ck::CKM_AES_GCM, Mechanism::AesGcm),
        (ck::CKM_EC_KEY_PAIR_GEN, Mechanism::EcKeyPairGeneration),
        (ck::CKM_ECDSA, Mechanism::EcdsaPrehashed),
        (ck::CKM_ECDSA_SHA256, Mechanism::EcdsaSha256),
        (ck::CKM_SHA256, Mechanism::Sha256),
        (ck::CKM_GENERIC_SECRET_KEY_GEN, Mechanism::GenericSecretKeyGeneration),
        (ck::CKM_SHA256_HMAC, Mechanism::Sha256Hmac),
        (0x8000_8001, Mechanism::Sm2KeyPairGeneration),
        (0x8000_8100, Mechanism::Sm2SignWithSm3),
        (0x8000_8104, Mechanism::Sm2SignPrehashed),
        (0x8000_9001, Mechanism::Sm3),
        // Our own number: Sansec publishes none for HMAC-SM3.
        (0x8000_9002, Mechanism::Sm3Hmac),
        (0x8000_0107, Mechanism::Sm4KeyGeneration),
        // Koal's number: Sansec publishes none for SM4-GCM. The parameter is CK_GCM_PARAMS.
        (0x8000_010F, Mechanism::Sm4Gcm),
    ],
    sm2_user_id: "1234567812345678",
};

impl Personality {
    pub fn mechanism(&self, code: ck::CK_MECHANISM_TYPE) -> Option<Mechanism> {
        self.mechanisms.iter().find(|(known, _)| *known == code).map(|(_, mechanism)| *mechanism)
    }

    pub fn mechanism_code(&self, mechanism: Mechanism) -> Option<ck::CK_MECHANISM_TYPE> {
        self.mechanisms.iter().find(|(_, known)| *known == mechanism).map(|(code, _)| *code)
    }

    pub fn key_kind(&self, code: ck::CK_KEY_TYPE) -> Option<KeyKind> {
        self.key_types.iter().find(|(known, _)| *known == code).map(|(_, kind)| *kind)
    }

    pub fn key_type(&self, kind: KeyKind) -> Option<ck::CK_KEY_TYPE> {
        self.key_types.iter().find(|(_, known)| *known == kind).map(|(code, _)| *code)
    }
}
