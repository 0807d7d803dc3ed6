//! The algorithms, and what each may be used for. Which number stands for which of them is the
//! business of the personality.

pub mod check_value;
pub mod digest;
pub mod ec;
pub mod gcm;
pub mod hmac;
pub mod signature;
pub mod sm2;

use cryptoki_sys as ck;

use crate::object::KeyKind;
use crate::refusal::Refusal;
use gcm::GcmParameter;

/// One mechanism, whatever its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    AesKeyGeneration,
    AesGcm,
    EcKeyPairGeneration,
    EcdsaPrehashed,
    EcdsaSha256,
    Sha256,
    GenericSecretKeyGeneration,
    Sha256Hmac,
    Sm2KeyPairGeneration,
    Sm2SignWithSm3,
    Sm2SignPrehashed,
    Sm3,
    Sm3Hmac,
    Sm4KeyGeneration,
    Sm4Gcm,
}

/// The C structure behind `pParameter`. `ffi/` reads it; nothing behind `ffi/` sees the pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterShape {
    Absent,
    Gcm,
}

#[derive(Debug)]
pub enum Parameter {
    Absent,
    Gcm(GcmParameter),
}

/// A mechanism with the parameter that came with it.
#[derive(Debug)]
pub struct MechanismCall {
    pub mechanism: Mechanism,
    pub parameter: Parameter,
}

const EC_CURVE_FLAGS: ck::CK_FLAGS = ck::CKF_EC_F_P | ck::CKF_EC_NAMEDCURVE | ck::CKF_EC_UNCOMPRESS;

impl Mechanism {
    pub fn parameter_shape(self) -> ParameterShape {
        match self {
            Self::AesGcm | Self::Sm4Gcm => ParameterShape::Gcm,
            Self::AesKeyGeneration
            | Self::EcKeyPairGeneration
            | Self::EcdsaPrehashed
            | Self::EcdsaSha256
            | Self::Sha256
            | Self::GenericSecretKeyGeneration
            | Self::Sha256Hmac
            | Self::Sm2KeyPairGeneration
            | Self::Sm2SignWithSm3
            | Self::Sm2SignPrehashed
            | Self::Sm3
            | Self::Sm3Hmac
            | Self::Sm4KeyGeneration => ParameterShape::Absent,
        }
    }

    /// What `C_GetMechanismInfo` says. `CKF_HW` is never set: a client that insists on hardware must
    /// be able to see that this is none. Key sizes are in the unit that the standard gives for the
    /// mechanism: bytes for AES and SM4, bits for curves and generic secrets.
    pub fn info(self) -> ck::CK_MECHANISM_INFO {
        let (min, max, flags) = match self {
            Self::AesKeyGeneration => (16, 32, ck::CKF_GENERATE),
            Self::AesGcm => (16, 32, ck::CKF_ENCRYPT | ck::CKF_DECRYPT),
            Self::EcKeyPairGeneration | Self::Sm2KeyPairGeneration => {
                (256, 256, ck::CKF_GENERATE_KEY_PAIR | EC_CURVE_FLAGS)
            }
            Self::EcdsaPrehashed | Self::EcdsaSha256 | Self::Sm2SignWithSm3 | Self::Sm2SignPrehashed => {
                (256, 256, ck::CKF_SIGN | ck::CKF_VERIFY | EC_CURVE_FLAGS)
            }
            Self::Sha256 | Self::Sm3 => (0, 0, ck::CKF_DIGEST),
            Self::GenericSecretKeyGeneration => (8, 4096, ck::CKF_GENERATE),
            Self::Sha256Hmac | Self::Sm3Hmac => (8, 4096, ck::CKF_SIGN | ck::CKF_VERIFY),
            Self::Sm4KeyGeneration => (16, 16, ck::CKF_GENERATE),
            Self::Sm4Gcm => (16, 16, ck::CKF_ENCRYPT | ck::CKF_DECRYPT),
        };
        ck::CK_MECHANISM_INFO { ulMinKeySize: min, ulMaxKeySize: max, flags }
    }

    /// The kind of key that `C_GenerateKey` makes with this mechanism.
    pub fn generated_secret_key(self) -> Option<KeyKind> {
        match self {
            Self::AesKeyGeneration => Some(KeyKind::Aes),
            Self::Sm4KeyGeneration => Some(KeyKind::Sm4),
            Self::GenericSecretKeyGeneration => Some(KeyKind::GenericSecret),
            _ => None,
        }
    }

    /// The kind of key pair that `C_GenerateKeyPair` makes with this mechanism.
    pub fn generated_key_pair(self) -> Option<KeyKind> {
        match self {
            Self::EcKeyPairGeneration => Some(KeyKind::P256),
            Self::Sm2KeyPairGeneration => Some(KeyKind::Sm2),
            _ => None,
        }
    }

    /// The kind of key that the mechanism works with when it encrypts, signs or verifies.
    pub fn working_key(self) -> Option<KeyKind> {
        match self {
            Self::AesGcm => Some(KeyKind::Aes),
            Self::Sm4Gcm => Some(KeyKind::Sm4),
            Self::EcdsaPrehashed | Self::EcdsaSha256 => Some(KeyKind::P256),
            Self::Sm2SignWithSm3 | Self::Sm2SignPrehashed => Some(KeyKind::Sm2),
            Self::Sha256Hmac | Self::Sm3Hmac => Some(KeyKind::GenericSecret),
            Self::AesKeyGeneration
            | Self::EcKeyPairGeneration
            | Self::Sha256
            | Self::GenericSecretKeyGeneration
            | Self::Sm2KeyPairGeneration
            | Self::Sm3
            | Self::Sm4KeyGeneration => None,
        }
    }

    /// Refuses a mechanism that exists but not for this use (`flag` is one of `CKF_SIGN` and its like).
    pub fn require_use(self, flag: ck::CK_FLAGS) -> Result<(), Refusal> {
        if self.info().flags & flag == 0 { Err(Refusal::MechanismInvalid) } else { Ok(()) }
    }
}
