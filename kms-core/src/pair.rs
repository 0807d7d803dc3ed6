//! Key pairs of applications: which there are, what each is for, and what belongs together (docs/formats/pairs.md).
//!
//! One pair has one use, signing or decryption, for its whole life. Which algorithm may be asked of it follows from
//! the pair: a curve has its own hash, and RSA has those of one family.

mod encryption;
mod import;
mod public_key;
mod signature;

pub use encryption::{CiphertextError, SM2_PLAINTEXT_LEN_MAX, Sm2Ciphertext};
pub(crate) use import::sm2_pkcs8;
pub use import::{ImportError, PrivateParts, check_private_key};
pub use public_key::{PairPublicKey, PublicKeyError, RSA_EXPONENT};
pub use signature::{
    ED25519_SIGNATURE_LEN, SignatureEncodingError, SignedInput, SignedInputError, Sm2UserId, Sm2UserIdError,
    ToSign,
};

use core::fmt;

/// What a pair is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PairAlgorithm {
    /// SM2 on sm2p256v1 (GB/T 32918.5).
    Sm2,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
    /// The curve P-256 (FIPS 186-5).
    P256,
    /// The curve P-384.
    P384,
    /// The curve P-521.
    P521,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

/// What a pair does, and nothing else: a signature must never come out of a decryption, or the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PairUsage {
    /// The private key signs.
    Sign,
    /// The private key decrypts.
    Decrypt,
}

impl PairAlgorithm {
    /// Every algorithm, in registry order.
    pub const ALL: [PairAlgorithm; 8] = [
        PairAlgorithm::Rsa2048,
        PairAlgorithm::Rsa3072,
        PairAlgorithm::Rsa4096,
        PairAlgorithm::P256,
        PairAlgorithm::P384,
        PairAlgorithm::P521,
        PairAlgorithm::Ed25519,
        PairAlgorithm::Sm2,
    ];

    /// The name used on command lines, in records and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            PairAlgorithm::Sm2 => "sm2",
            PairAlgorithm::Rsa2048 => "rsa-2048",
            PairAlgorithm::Rsa3072 => "rsa-3072",
            PairAlgorithm::Rsa4096 => "rsa-4096",
            PairAlgorithm::P256 => "ec-p256",
            PairAlgorithm::P384 => "ec-p384",
            PairAlgorithm::P521 => "ec-p521",
            PairAlgorithm::Ed25519 => "ed25519",
        }
    }

    /// Reads the name that [`PairAlgorithm::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        PairAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The number in the registry.
    pub const fn number(self) -> u16 {
        match self {
            PairAlgorithm::Sm2 => 44,
            PairAlgorithm::Rsa2048 => 32,
            PairAlgorithm::Rsa3072 => 33,
            PairAlgorithm::Rsa4096 => 34,
            PairAlgorithm::P256 => 36,
            PairAlgorithm::P384 => 37,
            PairAlgorithm::P521 => 38,
            PairAlgorithm::Ed25519 => 40,
        }
    }

    /// Reads the number that [`PairAlgorithm::number`] gives.
    pub fn from_number(number: u16) -> Option<Self> {
        PairAlgorithm::ALL.into_iter().find(|algorithm| algorithm.number() == number)
    }

    /// Whether pairs of this algorithm may be made for this use.
    pub const fn allows(self, usage: PairUsage) -> bool {
        match usage {
            PairUsage::Sign => true,
            PairUsage::Decrypt => matches!(self, PairAlgorithm::Sm2) || self.rsa_modulus_len().is_some(),
        }
    }

    /// Length of the modulus in bytes; `None` when it is not RSA.
    pub const fn rsa_modulus_len(self) -> Option<usize> {
        match self {
            PairAlgorithm::Rsa2048 => Some(256),
            PairAlgorithm::Rsa3072 => Some(384),
            PairAlgorithm::Rsa4096 => Some(512),
            _ => None,
        }
    }

    /// Length of a coordinate in bytes; `None` when public keys are no SEC 1 points.
    pub const fn coordinate_len(self) -> Option<usize> {
        match self {
            PairAlgorithm::Sm2 | PairAlgorithm::P256 => Some(32),
            PairAlgorithm::P384 => Some(48),
            PairAlgorithm::P521 => Some(66),
            _ => None,
        }
    }

    /// The size as PKCS#11 says it for this kind of key, in bits.
    pub const fn bits(self) -> u64 {
        match self {
            PairAlgorithm::Sm2 | PairAlgorithm::P256 => 256,
            PairAlgorithm::Rsa2048 => 2048,
            PairAlgorithm::Rsa3072 => 3072,
            PairAlgorithm::Rsa4096 => 4096,
            PairAlgorithm::P384 => 384,
            PairAlgorithm::P521 => 521,
            PairAlgorithm::Ed25519 => 255,
        }
    }
}

impl PairUsage {
    /// Both uses.
    pub const ALL: [PairUsage; 2] = [PairUsage::Sign, PairUsage::Decrypt];

    /// The name used on command lines, in records and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            PairUsage::Sign => "sign",
            PairUsage::Decrypt => "decrypt",
        }
    }

    /// Reads the name that [`PairUsage::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        PairUsage::ALL.into_iter().find(|usage| usage.name() == name)
    }
}

impl fmt::Display for PairAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for PairUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a pair signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignatureAlgorithm {
    /// SM2 with SM3 (GB/T 32918.2).
    Sm2Sm3,
    /// ECDSA with SHA-256, on P-256.
    EcdsaSha256,
    /// ECDSA with SHA-384, on P-384.
    EcdsaSha384,
    /// ECDSA with SHA-512, on P-521.
    EcdsaSha512,
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes.
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes.
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512, MGF1 with SHA-512 and a salt of 64 bytes.
    RsaPssSha512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
    /// Ed25519 (RFC 8032), over the message itself.
    Ed25519,
}

impl SignatureAlgorithm {
    /// Every algorithm, in registry order.
    pub const ALL: [SignatureAlgorithm; 11] = [
        SignatureAlgorithm::Sm2Sm3,
        SignatureAlgorithm::EcdsaSha256,
        SignatureAlgorithm::EcdsaSha384,
        SignatureAlgorithm::EcdsaSha512,
        SignatureAlgorithm::RsaPssSha256,
        SignatureAlgorithm::RsaPssSha384,
        SignatureAlgorithm::RsaPssSha512,
        SignatureAlgorithm::RsaPkcs1Sha256,
        SignatureAlgorithm::RsaPkcs1Sha384,
        SignatureAlgorithm::RsaPkcs1Sha512,
        SignatureAlgorithm::Ed25519,
    ];

    /// The name used on command lines and in records.
    pub const fn name(self) -> &'static str {
        match self {
            SignatureAlgorithm::Sm2Sm3 => "sm2-sm3",
            SignatureAlgorithm::EcdsaSha256 => "ecdsa-sha-256",
            SignatureAlgorithm::EcdsaSha384 => "ecdsa-sha-384",
            SignatureAlgorithm::EcdsaSha512 => "ecdsa-sha-512",
            SignatureAlgorithm::RsaPssSha256 => "rsa-pss-sha-256",
            SignatureAlgorithm::RsaPssSha384 => "rsa-pss-sha-384",
            SignatureAlgorithm::RsaPssSha512 => "rsa-pss-sha-512",
            SignatureAlgorithm::RsaPkcs1Sha256 => "rsa-pkcs1-sha-256",
            SignatureAlgorithm::RsaPkcs1Sha384 => "rsa-pkcs1-sha-384",
            SignatureAlgorithm::RsaPkcs1Sha512 => "rsa-pkcs1-sha-512",
            SignatureAlgorithm::Ed25519 => "ed25519",
        }
    }

    /// Reads the name that [`SignatureAlgorithm::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        SignatureAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The number in the registry.
    pub const fn number(self) -> u16 {
        match self {
            SignatureAlgorithm::Sm2Sm3 => 1,
            SignatureAlgorithm::EcdsaSha256 => 2,
            SignatureAlgorithm::EcdsaSha384 => 3,
            SignatureAlgorithm::EcdsaSha512 => 4,
            SignatureAlgorithm::RsaPssSha256 => 5,
            SignatureAlgorithm::RsaPssSha384 => 6,
            SignatureAlgorithm::RsaPssSha512 => 7,
            SignatureAlgorithm::RsaPkcs1Sha256 => 8,
            SignatureAlgorithm::RsaPkcs1Sha384 => 9,
            SignatureAlgorithm::RsaPkcs1Sha512 => 10,
            SignatureAlgorithm::Ed25519 => 11,
        }
    }

    /// Reads the number that [`SignatureAlgorithm::number`] gives.
    pub fn from_number(number: u16) -> Option<Self> {
        SignatureAlgorithm::ALL.into_iter().find(|algorithm| algorithm.number() == number)
    }

    /// Whether a pair of this algorithm signs so.
    pub const fn fits(self, pair: PairAlgorithm) -> bool {
        match self {
            SignatureAlgorithm::Sm2Sm3 => matches!(pair, PairAlgorithm::Sm2),
            SignatureAlgorithm::EcdsaSha256 => matches!(pair, PairAlgorithm::P256),
            SignatureAlgorithm::EcdsaSha384 => matches!(pair, PairAlgorithm::P384),
            SignatureAlgorithm::EcdsaSha512 => matches!(pair, PairAlgorithm::P521),
            SignatureAlgorithm::Ed25519 => matches!(pair, PairAlgorithm::Ed25519),
            SignatureAlgorithm::RsaPssSha256
            | SignatureAlgorithm::RsaPssSha384
            | SignatureAlgorithm::RsaPssSha512
            | SignatureAlgorithm::RsaPkcs1Sha256
            | SignatureAlgorithm::RsaPkcs1Sha384
            | SignatureAlgorithm::RsaPkcs1Sha512 => pair.rsa_modulus_len().is_some(),
        }
    }

    /// Every way in which a pair of this algorithm signs.
    pub fn of(pair: PairAlgorithm) -> impl Iterator<Item = SignatureAlgorithm> {
        SignatureAlgorithm::ALL.into_iter().filter(move |algorithm| algorithm.fits(pair))
    }

    /// Length in bytes of the digest that is signed; `None` when only the message itself can be.
    pub const fn digest_len(self) -> Option<usize> {
        match self {
            SignatureAlgorithm::Sm2Sm3
            | SignatureAlgorithm::EcdsaSha256
            | SignatureAlgorithm::RsaPssSha256
            | SignatureAlgorithm::RsaPkcs1Sha256 => Some(32),
            SignatureAlgorithm::EcdsaSha384
            | SignatureAlgorithm::RsaPssSha384
            | SignatureAlgorithm::RsaPkcs1Sha384 => Some(48),
            SignatureAlgorithm::EcdsaSha512
            | SignatureAlgorithm::RsaPssSha512
            | SignatureAlgorithm::RsaPkcs1Sha512 => Some(64),
            SignatureAlgorithm::Ed25519 => None,
        }
    }

    /// Whether a signature is two numbers, which leave as DER.
    pub const fn is_two_numbers(self) -> bool {
        matches!(
            self,
            SignatureAlgorithm::Sm2Sm3
                | SignatureAlgorithm::EcdsaSha256
                | SignatureAlgorithm::EcdsaSha384
                | SignatureAlgorithm::EcdsaSha512
        )
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How something is encrypted to a pair's public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EncryptionAlgorithm {
    /// SM2 (GB/T 32918.4), as the SEQUENCE of GM/T 0009.
    Sm2,
    /// RSAES-OAEP with SHA-256, MGF1 with SHA-256 and an empty label.
    RsaOaepSha256,
}

impl EncryptionAlgorithm {
    /// Every algorithm, in registry order.
    pub const ALL: [EncryptionAlgorithm; 2] = [EncryptionAlgorithm::Sm2, EncryptionAlgorithm::RsaOaepSha256];

    /// The name used on command lines and in records.
    pub const fn name(self) -> &'static str {
        match self {
            EncryptionAlgorithm::Sm2 => "sm2",
            EncryptionAlgorithm::RsaOaepSha256 => "rsa-oaep-sha-256",
        }
    }

    /// Reads the name that [`EncryptionAlgorithm::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        EncryptionAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The number in the registry.
    pub const fn number(self) -> u16 {
        match self {
            EncryptionAlgorithm::Sm2 => 1,
            EncryptionAlgorithm::RsaOaepSha256 => 2,
        }
    }

    /// Reads the number that [`EncryptionAlgorithm::number`] gives.
    pub fn from_number(number: u16) -> Option<Self> {
        EncryptionAlgorithm::ALL.into_iter().find(|algorithm| algorithm.number() == number)
    }

    /// The one way in which a pair of this algorithm decrypts; `None` when it only signs.
    pub const fn of(pair: PairAlgorithm) -> Option<Self> {
        match pair {
            PairAlgorithm::Sm2 => Some(EncryptionAlgorithm::Sm2),
            PairAlgorithm::Rsa2048 | PairAlgorithm::Rsa3072 | PairAlgorithm::Rsa4096 => {
                Some(EncryptionAlgorithm::RsaOaepSha256)
            }
            PairAlgorithm::P256 | PairAlgorithm::P384 | PairAlgorithm::P521 | PairAlgorithm::Ed25519 => None,
        }
    }

    /// Longest plaintext in bytes under a pair of this algorithm; 0 when the two do not fit.
    pub const fn plaintext_len_max(self, pair: PairAlgorithm) -> usize {
        match (self, pair, pair.rsa_modulus_len()) {
            (EncryptionAlgorithm::Sm2, PairAlgorithm::Sm2, _) => SM2_PLAINTEXT_LEN_MAX,
            // RFC 8017, section 7.1.1: two hashes and two bytes are padding.
            (EncryptionAlgorithm::RsaOaepSha256, _, Some(modulus_len)) => modulus_len - 2 * 32 - 2,
            _ => 0,
        }
    }
}

impl fmt::Display for EncryptionAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
