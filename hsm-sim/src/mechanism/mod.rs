//! The algorithms, and what each may be used for. Which number stands for which of them is the
//! business of the personality.

pub mod cbc_mac;
pub mod check_value;
pub mod cipher;
pub mod digest;
pub mod ec;
pub mod ed25519;
pub mod gcm;
pub mod kdf;
pub mod key_wrap;
pub mod mac;
pub mod parameter;
pub mod rsa;
pub mod rsa_key;
pub mod rsa_library;
pub mod signature;
pub mod sm2;
pub mod transform;

use cryptoki_sys as ck;

use crate::key_kind::{Curve, KeyKind};
use crate::refusal::Refusal;
use parameter::{Parameter, ParameterShape};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sm3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockCipher {
    Aes,
    Des3,
    Sm4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CipherMode {
    Ecb,
    Cbc,
    CbcPad,
    Ctr,
    Gcm,
    /// RFC 3394.
    KeyWrap,
    /// RFC 5649.
    KeyWrapPad,
}

/// How much of a MAC is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacLength {
    Whole,
    /// As many bytes from the left as the parameter says: the `_GENERAL` mechanisms.
    Chosen,
}

/// One mechanism, whatever its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    GenerateKey(KeyKind),
    GenerateKeyPair(KeyKind),
    Cipher(BlockCipher, CipherMode),
    Cmac(BlockCipher, MacLength),
    CbcMac(BlockCipher),
    Digest(Hash),
    Hmac(Hash, MacLength),
    /// Without a hash the caller has hashed.
    Ecdsa(Option<Hash>),
    Eddsa,
    EcdhDerive,
    HkdfDerive,
    /// Without a hash the data is padded as it is; the caller usually passes a DER DigestInfo.
    RsaPkcs(Option<Hash>),
    RsaPss(Option<Hash>),
    RsaOaep,
    Sm2SignWithSm3,
    Sm2SignPrehashed,
    Sm2Encrypt,
}

/// A mechanism as it was called: its number, and the parameter that came with it.
#[derive(Debug)]
pub struct MechanismCall {
    pub code: ck::CK_MECHANISM_TYPE,
    pub mechanism: Mechanism,
    pub parameter: Parameter,
}

const EC_CURVE_FLAGS: ck::CK_FLAGS = ck::CKF_EC_F_P | ck::CKF_EC_NAMEDCURVE | ck::CKF_EC_UNCOMPRESS;
const CIPHER_FLAGS: ck::CK_FLAGS = ck::CKF_ENCRYPT | ck::CKF_DECRYPT;
const WRAP_FLAGS: ck::CK_FLAGS = ck::CKF_WRAP | ck::CKF_UNWRAP;
const SIGN_FLAGS: ck::CK_FLAGS = ck::CKF_SIGN | ck::CKF_VERIFY;

impl BlockCipher {
    pub fn key_kind(self) -> KeyKind {
        match self {
            Self::Aes => KeyKind::Aes,
            Self::Des3 => KeyKind::Des3,
            Self::Sm4 => KeyKind::Sm4,
        }
    }

    pub fn block_len(self) -> usize {
        match self {
            Self::Aes | Self::Sm4 => 16,
            Self::Des3 => 8,
        }
    }
}

impl Mechanism {
    pub fn parameter_shape(self) -> ParameterShape {
        match self {
            Self::Cipher(cipher, CipherMode::Cbc | CipherMode::CbcPad) => {
                ParameterShape::Iv { len: cipher.block_len() }
            }
            Self::Cipher(_, CipherMode::Ctr) => ParameterShape::Counter,
            Self::Cipher(_, CipherMode::Gcm) => ParameterShape::Gcm,
            Self::Cmac(_, MacLength::Chosen) | Self::Hmac(_, MacLength::Chosen) => ParameterShape::Length,
            Self::EcdhDerive => ParameterShape::Ecdh,
            Self::HkdfDerive => ParameterShape::Hkdf,
            Self::RsaPss(_) => ParameterShape::Pss,
            Self::RsaOaep => ParameterShape::Oaep,
            Self::Sm2SignWithSm3 => ParameterShape::Sm2UserId,
            Self::GenerateKey(_)
            | Self::GenerateKeyPair(_)
            | Self::Cipher(_, CipherMode::Ecb | CipherMode::KeyWrap | CipherMode::KeyWrapPad)
            | Self::Cmac(_, MacLength::Whole)
            | Self::CbcMac(_)
            | Self::Digest(_)
            | Self::Hmac(_, MacLength::Whole)
            | Self::Ecdsa(_)
            | Self::Eddsa
            | Self::RsaPkcs(_)
            | Self::Sm2SignPrehashed
            | Self::Sm2Encrypt => ParameterShape::Absent,
        }
    }

    /// What `C_GetMechanismInfo` says. `CKF_HW` is never set: a client that insists on hardware must
    /// be able to see that this is none. Key sizes are in the unit that the standard gives for the
    /// mechanism: bytes for AES and SM4, bits for curves, RSA and generic secrets.
    pub fn info(self) -> ck::CK_MECHANISM_INFO {
        let flags = self.uses();
        let (min, max) = match self.key_kind() {
            None => (0, 0),
            Some(KeyKind::Aes) => (16, 32),
            Some(KeyKind::Des3) => (24, 24),
            Some(KeyKind::Sm4) => (16, 16),
            Some(KeyKind::GenericSecret | KeyKind::Hmac(_)) => (8, 4096),
            Some(KeyKind::Ec) => (Curve::P256.bits(), Curve::P521.bits()),
            Some(KeyKind::Sm2) => (256, 256),
            Some(KeyKind::Edwards) => (255, 255),
            Some(KeyKind::Rsa) => (rsa::BITS_MIN, rsa::BITS_MAX),
        };
        ck::CK_MECHANISM_INFO { ulMinKeySize: min, ulMaxKeySize: max, flags }
    }

    fn uses(self) -> ck::CK_FLAGS {
        match self {
            Self::GenerateKey(_) => ck::CKF_GENERATE,
            Self::GenerateKeyPair(KeyKind::Rsa | KeyKind::Edwards) => ck::CKF_GENERATE_KEY_PAIR,
            Self::GenerateKeyPair(_) => ck::CKF_GENERATE_KEY_PAIR | EC_CURVE_FLAGS,
            Self::Cipher(_, CipherMode::Ecb | CipherMode::Cbc | CipherMode::Ctr) => CIPHER_FLAGS,
            Self::Cipher(
                _,
                CipherMode::CbcPad | CipherMode::Gcm | CipherMode::KeyWrap | CipherMode::KeyWrapPad,
            ) => CIPHER_FLAGS | WRAP_FLAGS,
            Self::Digest(_) => ck::CKF_DIGEST,
            Self::Cmac(..) | Self::CbcMac(_) | Self::Hmac(..) | Self::Eddsa | Self::RsaPss(_) => SIGN_FLAGS,
            Self::Ecdsa(_) | Self::Sm2SignWithSm3 | Self::Sm2SignPrehashed => SIGN_FLAGS | EC_CURVE_FLAGS,
            Self::EcdhDerive => ck::CKF_DERIVE | EC_CURVE_FLAGS,
            Self::HkdfDerive => ck::CKF_DERIVE,
            Self::RsaPkcs(None) => SIGN_FLAGS | CIPHER_FLAGS | WRAP_FLAGS,
            Self::RsaPkcs(Some(_)) => SIGN_FLAGS,
            Self::RsaOaep => CIPHER_FLAGS | WRAP_FLAGS,
            Self::Sm2Encrypt => CIPHER_FLAGS | WRAP_FLAGS | EC_CURVE_FLAGS,
        }
    }

    /// The kind of key that the mechanism makes or works with. A derivation works with several kinds;
    /// what is told is the one that the standard gives key sizes for.
    pub fn key_kind(self) -> Option<KeyKind> {
        match self {
            Self::GenerateKey(kind) | Self::GenerateKeyPair(kind) => Some(kind),
            Self::Cipher(cipher, _) | Self::Cmac(cipher, _) | Self::CbcMac(cipher) => Some(cipher.key_kind()),
            Self::Hmac(..) | Self::HkdfDerive => Some(KeyKind::GenericSecret),
            Self::Ecdsa(_) | Self::EcdhDerive => Some(KeyKind::Ec),
            Self::Eddsa => Some(KeyKind::Edwards),
            Self::RsaPkcs(_) | Self::RsaPss(_) | Self::RsaOaep => Some(KeyKind::Rsa),
            Self::Sm2SignWithSm3 | Self::Sm2SignPrehashed | Self::Sm2Encrypt => Some(KeyKind::Sm2),
            Self::Digest(_) => None,
        }
    }

    /// Refuses a mechanism that exists but not for this use (`flag` is one of `CKF_SIGN` and its like).
    pub fn require_use(self, flag: ck::CK_FLAGS) -> Result<(), Refusal> {
        if self.uses() & flag == 0 { Err(Refusal::MechanismInvalid) } else { Ok(()) }
    }
}
