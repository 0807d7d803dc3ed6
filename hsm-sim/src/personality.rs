//! Vendor codes and conventions as data.
//!
//! SM2, SM3 and SM4 have no published PKCS#11 numbers in version 2.40, so every vendor chose its own,
//! and with them forms of signatures and ciphertexts. A personality is the table of one vendor; a
//! second vendor is a second table, not a second branch.

use cryptoki_sys as ck;

use crate::key_kind::KeyKind;
use crate::mechanism::BlockCipher::{Aes, Des3, Sm4};
use crate::mechanism::CipherMode::{Cbc, CbcPad, Ctr, Ecb, Gcm, KeyWrap, KeyWrapPad};
use crate::mechanism::Hash::{Sha1, Sha224, Sha256, Sha384, Sha512, Sm3};
use crate::mechanism::MacLength::{Chosen, Whole};
use crate::mechanism::Mechanism;
use crate::mechanism::Mechanism::{
    CbcMac, Cipher, Cmac, Digest, EcdhDerive, Ecdsa, Eddsa, GenerateKey, GenerateKeyPair, HkdfDerive, Hmac,
    RsaOaep, RsaPkcs, RsaPss, Sm2Encrypt, Sm2SignPrehashed, Sm2SignWithSm3,
};

/// Who makes the IV of a GCM encryption, and where it is then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcmIv {
    /// The caller passes it.
    Caller,
    /// The token makes it and writes it over the caller's.
    TokenReturns,
    /// The token makes it and puts it after the tag. The caller passes an IV of no bytes.
    TokenAppends,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sm2SignatureForm {
    /// `r || s`.
    Raw,
    Der,
}

/// `C1` is the point, `C2` the masked message, `C3` the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sm2CiphertextLayout {
    C1C3C2,
    C1C2C3,
    /// The SEQUENCE of GM/T 0009.
    Asn1,
}

/// Everything about the module that differs from one vendor to the next.
#[derive(Debug)]
pub struct Personality {
    /// Written into every token, so that a token is never opened under the numbers of another vendor.
    pub name: &'static str,
    pub manufacturer: &'static str,
    pub model: &'static str,
    pub key_types: &'static [(ck::CK_KEY_TYPE, KeyKind)],
    /// The numbers of the standard, then those of the vendor.
    pub mechanisms: [&'static [(ck::CK_MECHANISM_TYPE, Mechanism)]; 2],
    /// The distinguishing identifier that enters SM2 signatures over messages, if none is passed.
    pub sm2_user_id: &'static str,
    /// Whether the mechanism's parameter may be another identifier.
    pub takes_sm2_user_id: bool,
    pub sm2_signature: Sm2SignatureForm,
    pub sm2_ciphertext: Sm2CiphertextLayout,
    pub gcm_iv: GcmIv,
}

/// What the standard numbers, all personalities have.
static STANDARD: &[(ck::CK_MECHANISM_TYPE, Mechanism)] = &[
    (ck::CKM_AES_KEY_GEN, GenerateKey(KeyKind::Aes)),
    (ck::CKM_AES_ECB, Cipher(Aes, Ecb)),
    (ck::CKM_AES_CBC, Cipher(Aes, Cbc)),
    (ck::CKM_AES_CBC_PAD, Cipher(Aes, CbcPad)),
    (ck::CKM_AES_CTR, Cipher(Aes, Ctr)),
    (ck::CKM_AES_GCM, Cipher(Aes, Gcm)),
    (ck::CKM_AES_CMAC, Cmac(Aes, Whole)),
    (ck::CKM_AES_CMAC_GENERAL, Cmac(Aes, Chosen)),
    (ck::CKM_AES_KEY_WRAP, Cipher(Aes, KeyWrap)),
    // Version 2.40 has one number for wrapping with a pad; version 3.0 has another for RFC 5649.
    (ck::CKM_AES_KEY_WRAP_PAD, Cipher(Aes, KeyWrapPad)),
    (ck::CKM_AES_KEY_WRAP_KWP, Cipher(Aes, KeyWrapPad)),
    (ck::CKM_DES3_KEY_GEN, GenerateKey(KeyKind::Des3)),
    (ck::CKM_DES3_ECB, Cipher(Des3, Ecb)),
    (ck::CKM_DES3_CBC, Cipher(Des3, Cbc)),
    (ck::CKM_DES3_CBC_PAD, Cipher(Des3, CbcPad)),
    (ck::CKM_DES3_CMAC, Cmac(Des3, Whole)),
    (ck::CKM_GENERIC_SECRET_KEY_GEN, GenerateKey(KeyKind::GenericSecret)),
    (ck::CKM_SHA_1, Digest(Sha1)),
    (ck::CKM_SHA224, Digest(Sha224)),
    (ck::CKM_SHA256, Digest(Sha256)),
    (ck::CKM_SHA384, Digest(Sha384)),
    (ck::CKM_SHA512, Digest(Sha512)),
    (ck::CKM_SHA_1_HMAC, Hmac(Sha1, Whole)),
    (ck::CKM_SHA224_HMAC, Hmac(Sha224, Whole)),
    (ck::CKM_SHA256_HMAC, Hmac(Sha256, Whole)),
    (ck::CKM_SHA384_HMAC, Hmac(Sha384, Whole)),
    (ck::CKM_SHA512_HMAC, Hmac(Sha512, Whole)),
    (ck::CKM_SHA_1_HMAC_GENERAL, Hmac(Sha1, Chosen)),
    (ck::CKM_SHA224_HMAC_GENERAL, Hmac(Sha224, Chosen)),
    (ck::CKM_SHA256_HMAC_GENERAL, Hmac(Sha256, Chosen)),
    (ck::CKM_SHA384_HMAC_GENERAL, Hmac(Sha384, Chosen)),
    (ck::CKM_SHA512_HMAC_GENERAL, Hmac(Sha512, Chosen)),
    (ck::CKM_HKDF_DERIVE, HkdfDerive),
    (ck::CKM_EC_KEY_PAIR_GEN, GenerateKeyPair(KeyKind::Ec)),
    (ck::CKM_ECDSA, Ecdsa(None)),
    (ck::CKM_ECDSA_SHA1, Ecdsa(Some(Sha1))),
    (ck::CKM_ECDSA_SHA224, Ecdsa(Some(Sha224))),
    (ck::CKM_ECDSA_SHA256, Ecdsa(Some(Sha256))),
    (ck::CKM_ECDSA_SHA384, Ecdsa(Some(Sha384))),
    (ck::CKM_ECDSA_SHA512, Ecdsa(Some(Sha512))),
    (ck::CKM_ECDH1_DERIVE, EcdhDerive),
    (ck::CKM_EC_EDWARDS_KEY_PAIR_GEN, GenerateKeyPair(KeyKind::Edwards)),
    (ck::CKM_EDDSA, Eddsa),
    (ck::CKM_RSA_PKCS_KEY_PAIR_GEN, GenerateKeyPair(KeyKind::Rsa)),
    (ck::CKM_RSA_PKCS, RsaPkcs(None)),
    (ck::CKM_SHA1_RSA_PKCS, RsaPkcs(Some(Sha1))),
    (ck::CKM_SHA224_RSA_PKCS, RsaPkcs(Some(Sha224))),
    (ck::CKM_SHA256_RSA_PKCS, RsaPkcs(Some(Sha256))),
    (ck::CKM_SHA384_RSA_PKCS, RsaPkcs(Some(Sha384))),
    (ck::CKM_SHA512_RSA_PKCS, RsaPkcs(Some(Sha512))),
    (ck::CKM_RSA_PKCS_PSS, RsaPss(None)),
    (ck::CKM_SHA1_RSA_PKCS_PSS, RsaPss(Some(Sha1))),
    (ck::CKM_SHA224_RSA_PKCS_PSS, RsaPss(Some(Sha224))),
    (ck::CKM_SHA256_RSA_PKCS_PSS, RsaPss(Some(Sha256))),
    (ck::CKM_SHA384_RSA_PKCS_PSS, RsaPss(Some(Sha384))),
    (ck::CKM_SHA512_RSA_PKCS_PSS, RsaPss(Some(Sha512))),
    (ck::CKM_RSA_PKCS_OAEP, RsaOaep),
];

/// Key types that all personalities have, beside those of their own tables.
static HMAC_KEY_TYPES: [(ck::CK_KEY_TYPE, KeyKind); 5] = [
    (ck::CKK_SHA_1_HMAC, KeyKind::Hmac(Sha1)),
    (ck::CKK_SHA224_HMAC, KeyKind::Hmac(Sha224)),
    (ck::CKK_SHA256_HMAC, KeyKind::Hmac(Sha256)),
    (ck::CKK_SHA384_HMAC, KeyKind::Hmac(Sha384)),
    (ck::CKK_SHA512_HMAC, KeyKind::Hmac(Sha512)),
];

/// The numbers that Sansec publishes, and some that it does not: see the comments in the table.
pub static SANSEC: Personality = Personality {
    name: "sansec",
    manufacturer: "hsm-sim",
    model: "sansec double",
    key_types: &[
        (ck::CKK_AES, KeyKind::Aes),
        (ck::CKK_DES3, KeyKind::Des3),
        (ck::CKK_GENERIC_SECRET, KeyKind::GenericSecret),
        (ck::CKK_EC, KeyKind::Ec),
        (ck::CKK_EC_EDWARDS, KeyKind::Edwards),
        (ck::CKK_RSA, KeyKind::Rsa),
        (0x8000_0004, KeyKind::Sm2),
        (0x8000_0106, KeyKind::Sm4),
    ],
    mechanisms: [
        STANDARD,
        &[
            (0x8000_8001, GenerateKeyPair(KeyKind::Sm2)),
            (0x8000_8100, Sm2SignWithSm3),
            (0x8000_8104, Sm2SignPrehashed),
            (0x8000_8200, Sm2Encrypt),
            (0x8000_9001, Digest(Sm3)),
            (0x8000_0107, GenerateKey(KeyKind::Sm4)),
            (0x8000_0108, Cipher(Sm4, Ecb)),
            (0x8000_0109, Cipher(Sm4, Cbc)),
            (0x8000_A102, Cipher(Sm4, CbcPad)),
            // Koal's number: Sansec publishes none for SM4-GCM. The parameter is CK_GCM_PARAMS.
            (0x8000_010F, Cipher(Sm4, Gcm)),
            // Our own numbers from here on: Sansec publishes none for these.
            (0x8000_9002, Hmac(Sm3, Whole)),
            (0x8000_F101, Cipher(Sm4, Ctr)),
            (0x8000_F102, CbcMac(Sm4)),
            (0x8000_F103, Cmac(Sm4, Whole)),
        ],
    ],
    sm2_user_id: "1234567812345678",
    takes_sm2_user_id: false,
    sm2_signature: Sm2SignatureForm::Raw,
    sm2_ciphertext: Sm2CiphertextLayout::C1C3C2,
    gcm_iv: GcmIv::Caller,
};

/// The numbers of Thales Luna, in its FIPS mode. It has no SM2 encryption, SM4-ECB or SM4-GCM.
pub static LUNA: Personality = Personality {
    name: "luna",
    manufacturer: "hsm-sim",
    model: "luna double",
    key_types: &[
        (ck::CKK_AES, KeyKind::Aes),
        (ck::CKK_DES3, KeyKind::Des3),
        (ck::CKK_GENERIC_SECRET, KeyKind::GenericSecret),
        (ck::CKK_EC, KeyKind::Ec),
        (ck::CKK_EC_EDWARDS, KeyKind::Edwards),
        (ck::CKK_RSA, KeyKind::Rsa),
        (0x8000_0016, KeyKind::Sm2),
        (0x8000_0015, KeyKind::Sm4),
    ],
    mechanisms: [
        STANDARD,
        &[
            (0x8000_0B20, GenerateKeyPair(KeyKind::Sm2)),
            (0x8000_0B22, Sm2SignWithSm3),
            (0x8000_0B21, Sm2SignPrehashed),
            (0x8000_0B01, Digest(Sm3)),
            (0x8000_0B02, Hmac(Sm3, Whole)),
            (0x8000_0B10, GenerateKey(KeyKind::Sm4)),
            (0x8000_0B12, Cipher(Sm4, Cbc)),
            (0x8000_0B13, Cipher(Sm4, CbcPad)),
        ],
    ],
    sm2_user_id: "1234567812345678",
    takes_sm2_user_id: true,
    sm2_signature: Sm2SignatureForm::Der,
    sm2_ciphertext: Sm2CiphertextLayout::Asn1,
    gcm_iv: GcmIv::TokenAppends,
};

/// The numbers of TASS. That its cards lay out ciphertexts so, and return the IV, is not claimed: these
/// conventions are here so that clients can be tried with them.
pub static TASS: Personality = Personality {
    name: "tass",
    manufacturer: "hsm-sim",
    model: "tass double",
    key_types: &[
        (ck::CKK_AES, KeyKind::Aes),
        (ck::CKK_DES3, KeyKind::Des3),
        (ck::CKK_GENERIC_SECRET, KeyKind::GenericSecret),
        (ck::CKK_EC, KeyKind::Ec),
        (ck::CKK_EC_EDWARDS, KeyKind::Edwards),
        (ck::CKK_RSA, KeyKind::Rsa),
        (0x8000_0004, KeyKind::Sm2),
        (0x8000_0002, KeyKind::Sm4),
    ],
    mechanisms: [
        STANDARD,
        &[
            (0x8000_8001, GenerateKeyPair(KeyKind::Sm2)),
            (0x8000_8100, Sm2SignWithSm3),
            (0x8000_8000, Sm2SignPrehashed),
            (0x8000_8200, Sm2Encrypt),
            (0x8000_0107, GenerateKey(KeyKind::Sm4)),
            (0x8000_0108, Cipher(Sm4, Ecb)),
            (0x8000_0109, Cipher(Sm4, Cbc)),
            (0x8000_010C, Cipher(Sm4, CbcPad)),
        ],
    ],
    sm2_user_id: "1234567812345678",
    takes_sm2_user_id: false,
    sm2_signature: Sm2SignatureForm::Raw,
    sm2_ciphertext: Sm2CiphertextLayout::C1C2C3,
    gcm_iv: GcmIv::TokenReturns,
};

/// The numbers of IBM EP11. Its form of a ciphertext is here for the same reason.
pub static EP11: Personality = Personality {
    name: "ep11",
    manufacturer: "hsm-sim",
    model: "ep11 double",
    key_types: &[
        (ck::CKK_AES, KeyKind::Aes),
        (ck::CKK_DES3, KeyKind::Des3),
        (ck::CKK_GENERIC_SECRET, KeyKind::GenericSecret),
        (ck::CKK_EC, KeyKind::Ec),
        (ck::CKK_EC_EDWARDS, KeyKind::Edwards),
        (ck::CKK_RSA, KeyKind::Rsa),
        (0x8005_0002, KeyKind::Sm2),
        (0x8005_0001, KeyKind::Sm4),
    ],
    mechanisms: [
        STANDARD,
        &[
            (0x8005_000A, GenerateKeyPair(KeyKind::Sm2)),
            (0x8005_000C, Sm2SignWithSm3),
            (0x8005_000B, Sm2SignPrehashed),
            (0x8005_000D, Sm2Encrypt),
            (0x8005_000E, Digest(Sm3)),
            (0x8005_0001, GenerateKey(KeyKind::Sm4)),
            (0x8005_0004, Cipher(Sm4, Ecb)),
            (0x8005_0002, Cipher(Sm4, Cbc)),
            (0x8005_0003, Cipher(Sm4, CbcPad)),
        ],
    ],
    sm2_user_id: "1234567812345678",
    takes_sm2_user_id: false,
    sm2_signature: Sm2SignatureForm::Raw,
    sm2_ciphertext: Sm2CiphertextLayout::Asn1,
    gcm_iv: GcmIv::Caller,
};

static ALL: [&Personality; 4] = [&SANSEC, &LUNA, &TASS, &EP11];

impl Personality {
    /// By its name, in whatever case; `None` if there is no such vendor.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|personality| personality.name.eq_ignore_ascii_case(name))
    }

    /// Every number with what it stands for. Two numbers may stand for one mechanism.
    pub fn mechanisms(&self) -> impl Iterator<Item = (ck::CK_MECHANISM_TYPE, Mechanism)> {
        self.mechanisms.into_iter().flatten().copied()
    }

    pub fn mechanism(&self, code: ck::CK_MECHANISM_TYPE) -> Option<Mechanism> {
        self.mechanisms().find(|(known, _)| *known == code).map(|(_, mechanism)| mechanism)
    }

    fn all_key_types(&self) -> impl Iterator<Item = (ck::CK_KEY_TYPE, KeyKind)> {
        self.key_types.iter().chain(&HMAC_KEY_TYPES).copied()
    }

    pub fn key_kind(&self, code: ck::CK_KEY_TYPE) -> Option<KeyKind> {
        self.all_key_types().find(|(known, _)| *known == code).map(|(_, kind)| kind)
    }

    pub fn key_type(&self, kind: KeyKind) -> Option<ck::CK_KEY_TYPE> {
        self.all_key_types().find(|(_, known)| *known == kind).map(|(code, _)| code)
    }
}
