//! The kinds of keys, and the curves among them.

use crate::mechanism::Hash;
use crate::refusal::Refusal;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    Aes,
    Des3,
    Sm4,
    GenericSecret,
    /// A secret for HMAC with this hash and nothing else.
    Hmac(Hash),
    /// One of the curves of NIST; `CKA_EC_PARAMS` says which.
    Ec,
    /// Ed25519.
    Edwards,
    Sm2,
    Rsa,
}

/// What the value of an object is made of, which decides what attributes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Secret,
    Curve,
    Rsa,
    /// No key: an object that is only kept.
    Storage,
}

/// A curve of NIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    P256,
    P384,
    P521,
}

/// DER of the object identifier 1.2.156.10197.1.301.
pub const SM2_PARAMETERS: &[u8] = &[0x06, 0x08, 0x2A, 0x81, 0x1C, 0xCF, 0x55, 0x01, 0x82, 0x2D];
/// DER of the object identifier 1.3.101.112.
pub const ED25519_PARAMETERS: &[u8] = &[0x06, 0x03, 0x2B, 0x65, 0x70];
/// The other form that the standard allows: DER of the PrintableString "edwards25519".
const ED25519_NAME: &[u8] = b"\x13\x0Cedwards25519";

pub const SECRET_LEN_MAX: usize = 512;

impl KeyKind {
    pub fn family(self) -> Family {
        match self {
            Self::Aes | Self::Des3 | Self::Sm4 | Self::GenericSecret | Self::Hmac(_) => Family::Secret,
            Self::Ec | Self::Edwards | Self::Sm2 => Family::Curve,
            Self::Rsa => Family::Rsa,
        }
    }

    pub fn accepts_secret_len(self, len: usize) -> bool {
        match self {
            Self::Aes => matches!(len, 16 | 24 | 32),
            Self::Des3 => len == 24,
            Self::Sm4 => len == 16,
            Self::GenericSecret | Self::Hmac(_) => (1..=SECRET_LEN_MAX).contains(&len),
            Self::Ec | Self::Edwards | Self::Sm2 | Self::Rsa => false,
        }
    }

    /// The length of a secret key whose kind has only one.
    pub fn only_secret_len(self) -> Option<usize> {
        match self {
            Self::Des3 => Some(24),
            Self::Sm4 => Some(16),
            _ => None,
        }
    }

    /// The only `CKA_EC_PARAMS` that a key of this kind can have, if there is only one.
    pub fn only_parameters(self) -> Option<&'static [u8]> {
        match self {
            Self::Edwards => Some(ED25519_PARAMETERS),
            Self::Sm2 => Some(SM2_PARAMETERS),
            _ => None,
        }
    }

    /// Whether these are the parameters of a curve that a key of this kind can be on.
    pub fn accepts_parameters(self, parameters: &[u8]) -> bool {
        match self {
            Self::Ec => Curve::from_parameters(parameters).is_ok(),
            Self::Edwards => parameters == ED25519_PARAMETERS || parameters == ED25519_NAME,
            Self::Sm2 => parameters == SM2_PARAMETERS,
            Self::Aes | Self::Des3 | Self::Sm4 | Self::GenericSecret | Self::Hmac(_) | Self::Rsa => false,
        }
    }
}

impl Curve {
    /// By `CKA_EC_PARAMS`: the DER of an object identifier.
    pub fn from_parameters(parameters: &[u8]) -> Result<Self, Refusal> {
        [Self::P256, Self::P384, Self::P521]
            .into_iter()
            .find(|curve| curve.parameters() == parameters)
            .ok_or(Refusal::CurveNotSupported)
    }

    pub fn parameters(self) -> &'static [u8] {
        match self {
            // 1.2.840.10045.3.1.7
            Self::P256 => &[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07],
            // 1.3.132.0.34
            Self::P384 => &[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22],
            // 1.3.132.0.35
            Self::P521 => &[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x23],
        }
    }

    pub fn bits(self) -> u64 {
        match self {
            Self::P256 => 256,
            Self::P384 => 384,
            Self::P521 => 521,
        }
    }

    /// Length of a coordinate, and of a scalar.
    pub fn field_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}
