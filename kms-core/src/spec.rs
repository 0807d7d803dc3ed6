//! What kind of named key there is: specification, usage, protection (docs/formats/registry.md).

use crate::mac::MacAlgorithm;
use crate::pair::{PairAlgorithm, PairUsage};
use crate::raw::RawAlgorithm;
use crate::suite::AeadAlgorithm;

/// What kind of named key: its algorithm and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySpec {
    /// AES with 256 bits, in GCM.
    Aes256,
    /// SM4 (128 bits), in GCM.
    Sm4,
    /// AES with 128 bits, in GCM.
    Aes128,
    /// AES with 192 bits, in GCM.
    Aes192,
    /// AES-128 in CBC and HMAC-SHA-256, for other systems.
    Aes128CbcHmacSha256,
    /// AES-192 in CBC and HMAC-SHA-384, for other systems.
    Aes192CbcHmacSha384,
    /// AES-256 in CBC and HMAC-SHA-512, for other systems.
    Aes256CbcHmacSha512,
    /// SM4 in CBC and HMAC-SM3, for other systems.
    Sm4CbcHmacSm3,
    /// 3DES in CBC: legacy, brought and decrypting only.
    TripleDes,
    /// HMAC-SHA-256 with a key of 256 bits.
    HmacSha256,
    /// HMAC-SHA-384 with a key of 384 bits.
    HmacSha384,
    /// HMAC-SHA-512 with a key of 512 bits.
    HmacSha512,
    /// HMAC-SM3 with a key of 256 bits.
    HmacSm3,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
    /// ECDSA on P-256.
    EcP256,
    /// ECDSA on P-384.
    EcP384,
    /// ECDSA on P-521.
    EcP521,
    /// Ed25519.
    Ed25519,
    /// SM2.
    Sm2,
}

/// What a key of one specification runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// Authenticated encryption.
    Aead(AeadAlgorithm),
    /// A message authentication code.
    Mac(MacAlgorithm),
    /// Signatures by a key pair, or decryption.
    Pair(PairAlgorithm),
    /// Encryption for other systems, without a header of ours.
    Raw(RawAlgorithm),
}

/// What a key may be used for. A key has one usage, from its creation on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyUsage {
    /// Encrypts and decrypts, data keys among other things.
    EncryptDecrypt,
    /// Makes and verifies MACs.
    GenerateVerifyMac,
    /// Signs and verifies signatures.
    SignVerify,
    /// Encrypts and decrypts what other systems read and write.
    RawEncryptDecrypt,
}

impl From<KeyUsage> for PairUsage {
    /// What a key pair of this usage does with its private half.
    fn from(usage: KeyUsage) -> Self {
        match usage {
            KeyUsage::EncryptDecrypt => PairUsage::Decrypt,
            KeyUsage::GenerateVerifyMac | KeyUsage::SignVerify | KeyUsage::RawEncryptDecrypt => {
                PairUsage::Sign
            }
        }
    }
}

impl KeySpec {
    /// Every specification, in registry order.
    pub const ALL: [KeySpec; 21] = [
        KeySpec::Aes256,
        KeySpec::Sm4,
        KeySpec::Aes128,
        KeySpec::Aes192,
        KeySpec::Aes128CbcHmacSha256,
        KeySpec::Aes192CbcHmacSha384,
        KeySpec::Aes256CbcHmacSha512,
        KeySpec::Sm4CbcHmacSm3,
        KeySpec::TripleDes,
        KeySpec::HmacSha256,
        KeySpec::HmacSha384,
        KeySpec::HmacSha512,
        KeySpec::HmacSm3,
        KeySpec::Rsa2048,
        KeySpec::Rsa3072,
        KeySpec::Rsa4096,
        KeySpec::EcP256,
        KeySpec::EcP384,
        KeySpec::EcP521,
        KeySpec::Ed25519,
        KeySpec::Sm2,
    ];

    /// What a key of this kind runs.
    pub const fn algorithm(self) -> KeyAlgorithm {
        match self {
            KeySpec::Aes256 => KeyAlgorithm::Aead(AeadAlgorithm::Aes256Gcm),
            KeySpec::Sm4 => KeyAlgorithm::Aead(AeadAlgorithm::Sm4Gcm),
            KeySpec::Aes128 => KeyAlgorithm::Aead(AeadAlgorithm::Aes128Gcm),
            KeySpec::Aes192 => KeyAlgorithm::Aead(AeadAlgorithm::Aes192Gcm),
            KeySpec::Aes128CbcHmacSha256 => KeyAlgorithm::Raw(RawAlgorithm::Aes128CbcHmacSha256),
            KeySpec::Aes192CbcHmacSha384 => KeyAlgorithm::Raw(RawAlgorithm::Aes192CbcHmacSha384),
            KeySpec::Aes256CbcHmacSha512 => KeyAlgorithm::Raw(RawAlgorithm::Aes256CbcHmacSha512),
            KeySpec::Sm4CbcHmacSm3 => KeyAlgorithm::Raw(RawAlgorithm::Sm4CbcHmacSm3),
            KeySpec::TripleDes => KeyAlgorithm::Raw(RawAlgorithm::TripleDes),
            KeySpec::HmacSha256 => KeyAlgorithm::Mac(MacAlgorithm::HmacSha256),
            KeySpec::HmacSha384 => KeyAlgorithm::Mac(MacAlgorithm::HmacSha384),
            KeySpec::HmacSha512 => KeyAlgorithm::Mac(MacAlgorithm::HmacSha512),
            KeySpec::HmacSm3 => KeyAlgorithm::Mac(MacAlgorithm::HmacSm3),
            KeySpec::Rsa2048 => KeyAlgorithm::Pair(PairAlgorithm::Rsa2048),
            KeySpec::Rsa3072 => KeyAlgorithm::Pair(PairAlgorithm::Rsa3072),
            KeySpec::Rsa4096 => KeyAlgorithm::Pair(PairAlgorithm::Rsa4096),
            KeySpec::EcP256 => KeyAlgorithm::Pair(PairAlgorithm::P256),
            KeySpec::EcP384 => KeyAlgorithm::Pair(PairAlgorithm::P384),
            KeySpec::EcP521 => KeyAlgorithm::Pair(PairAlgorithm::P521),
            KeySpec::Ed25519 => KeyAlgorithm::Pair(PairAlgorithm::Ed25519),
            KeySpec::Sm2 => KeyAlgorithm::Pair(PairAlgorithm::Sm2),
        }
    }

    /// The name used on command lines, in records and in the database.
    pub const fn name(self) -> &'static str {
        match self.algorithm() {
            KeyAlgorithm::Aead(algorithm) => algorithm.name(),
            KeyAlgorithm::Mac(algorithm) => algorithm.name(),
            KeyAlgorithm::Pair(algorithm) => algorithm.name(),
            KeyAlgorithm::Raw(algorithm) => algorithm.name(),
        }
    }

    /// Reads the name that [`KeySpec::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        KeySpec::ALL.into_iter().find(|spec| spec.name() == name)
    }

    /// The number in the registry.
    pub const fn number(self) -> u16 {
        match self.algorithm() {
            KeyAlgorithm::Aead(algorithm) => algorithm.number(),
            KeyAlgorithm::Mac(algorithm) => algorithm.number(),
            KeyAlgorithm::Pair(algorithm) => algorithm.number(),
            KeyAlgorithm::Raw(algorithm) => algorithm.number(),
        }
    }

    /// Reads the number that [`KeySpec::number`] gives.
    pub fn from_number(number: u16) -> Option<Self> {
        KeySpec::ALL.into_iter().find(|spec| spec.number() == number)
    }

    /// What a key of this kind can be for: one of these, for its whole life. The first when nobody says which.
    pub fn usages(self) -> &'static [KeyUsage] {
        match self.algorithm() {
            KeyAlgorithm::Aead(_) => &[KeyUsage::EncryptDecrypt],
            KeyAlgorithm::Mac(_) => &[KeyUsage::GenerateVerifyMac],
            KeyAlgorithm::Pair(pair) if pair.allows(PairUsage::Decrypt) => {
                &[KeyUsage::SignVerify, KeyUsage::EncryptDecrypt]
            }
            KeyAlgorithm::Pair(_) => &[KeyUsage::SignVerify],
            KeyAlgorithm::Raw(_) => &[KeyUsage::RawEncryptDecrypt],
        }
    }

    /// Whether keys of this kind only open old data: they are brought and never made, where the configuration says so.
    pub const fn is_legacy(self) -> bool {
        matches!(self.algorithm(), KeyAlgorithm::Raw(algorithm) if !algorithm.encrypts())
    }

    /// Length of a symmetric key in bytes; `None` for key pairs, whose encodings vary.
    pub const fn key_len(self) -> Option<usize> {
        match self.algorithm() {
            KeyAlgorithm::Aead(algorithm) => Some(algorithm.key_len()),
            KeyAlgorithm::Mac(algorithm) => Some(algorithm.key_len()),
            KeyAlgorithm::Pair(_) => None,
            KeyAlgorithm::Raw(algorithm) => Some(algorithm.key_len()),
        }
    }
}

impl From<AeadAlgorithm> for KeySpec {
    fn from(algorithm: AeadAlgorithm) -> Self {
        match algorithm {
            AeadAlgorithm::Aes256Gcm => KeySpec::Aes256,
            AeadAlgorithm::Sm4Gcm => KeySpec::Sm4,
            AeadAlgorithm::Aes128Gcm => KeySpec::Aes128,
            AeadAlgorithm::Aes192Gcm => KeySpec::Aes192,
        }
    }
}

impl From<PairAlgorithm> for KeySpec {
    fn from(algorithm: PairAlgorithm) -> Self {
        match algorithm {
            PairAlgorithm::Rsa2048 => KeySpec::Rsa2048,
            PairAlgorithm::Rsa3072 => KeySpec::Rsa3072,
            PairAlgorithm::Rsa4096 => KeySpec::Rsa4096,
            PairAlgorithm::P256 => KeySpec::EcP256,
            PairAlgorithm::P384 => KeySpec::EcP384,
            PairAlgorithm::P521 => KeySpec::EcP521,
            PairAlgorithm::Ed25519 => KeySpec::Ed25519,
            PairAlgorithm::Sm2 => KeySpec::Sm2,
        }
    }
}

impl KeyUsage {
    /// Every usage.
    pub const ALL: [KeyUsage; 4] = [
        KeyUsage::EncryptDecrypt,
        KeyUsage::GenerateVerifyMac,
        KeyUsage::SignVerify,
        KeyUsage::RawEncryptDecrypt,
    ];

    /// Reads the name that [`KeyUsage::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        KeyUsage::ALL.into_iter().find(|usage| usage.name() == name)
    }

    /// The name used in records, messages and the database.
    pub const fn name(self) -> &'static str {
        match self {
            KeyUsage::EncryptDecrypt => "ENCRYPT_DECRYPT",
            KeyUsage::GenerateVerifyMac => "GENERATE_VERIFY_MAC",
            KeyUsage::SignVerify => "SIGN_VERIFY",
            KeyUsage::RawEncryptDecrypt => "RAW_ENCRYPT_DECRYPT",
        }
    }
}

/// Where a key's material is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Inside the HSM; every operation runs there.
    HsmResident,
    /// In the database, sealed by a master key; opened into locked memory while the service is unsealed.
    HsmWrapped,
}

impl Protection {
    /// The name used in records and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Protection::HsmResident => "resident",
            Protection::HsmWrapped => "wrapped",
        }
    }

    /// Reads the name that [`Protection::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        [Protection::HsmResident, Protection::HsmWrapped].into_iter().find(|one| one.name() == name)
    }
}

/// Where the material of a version was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyOrigin {
    /// By the service.
    Generated,
    /// By somebody else, who may have a copy (docs/formats/import.md).
    Imported,
}

impl KeyOrigin {
    /// The name used in the database and in certificates.
    pub const fn name(self) -> &'static str {
        match self {
            KeyOrigin::Generated => "generated",
            KeyOrigin::Imported => "imported",
        }
    }

    /// Reads the name that [`KeyOrigin::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        [KeyOrigin::Generated, KeyOrigin::Imported].into_iter().find(|one| one.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn usages(spec: KeySpec) -> String {
        let names: Vec<String> = spec.usages().iter().map(|usage| format!("`{}`", usage.name())).collect();
        names.join(" or ")
    }

    /// The document is the specification: names and numbers are in stored rows and sealed keys.
    #[test]
    fn every_specification_is_the_one_in_the_registry() {
        let document = include_str!("../../docs/formats/registry.md");
        for spec in KeySpec::ALL {
            let (number, name, usage, len) = (spec.number(), spec.name(), usages(spec), spec.key_len());
            let len = len.map_or("-".into(), |len| format!("{len}"));
            let (start, end) = (format!("| {number} | `{name}` |"), format!("| {usage} | {len} |"));
            let is_row = |line: &str| line.starts_with(&start) && line.ends_with(&end);
            assert!(document.lines().any(is_row), "docs/formats/registry.md must hold {start} ... {end}");
            assert_eq!((KeySpec::from_name(name), KeySpec::from_number(number)), (Some(spec), Some(spec)));
        }
    }

    #[test]
    fn no_two_specifications_share_a_name_or_a_number() {
        for (index, one) in KeySpec::ALL.into_iter().enumerate() {
            for other in &KeySpec::ALL[..index] {
                assert!(one.name() != other.name() && one.number() != other.number(), "{one:?} {other:?}");
            }
        }
    }
}
