//! What kind of named key there is: specification, usage, protection (docs/formats/registry.md).

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
}

/// What a key of one specification runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// Authenticated encryption.
    Aead(AeadAlgorithm),
}

/// What a key may be used for. A key has one usage, which its specification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyUsage {
    /// Encrypts and decrypts, data keys among other things.
    EncryptDecrypt,
}

impl KeySpec {
    /// Every specification, in registry order.
    pub const ALL: [KeySpec; 4] = [KeySpec::Aes256, KeySpec::Sm4, KeySpec::Aes128, KeySpec::Aes192];

    /// What a key of this kind runs.
    pub const fn algorithm(self) -> KeyAlgorithm {
        match self {
            KeySpec::Aes256 => KeyAlgorithm::Aead(AeadAlgorithm::Aes256Gcm),
            KeySpec::Sm4 => KeyAlgorithm::Aead(AeadAlgorithm::Sm4Gcm),
            KeySpec::Aes128 => KeyAlgorithm::Aead(AeadAlgorithm::Aes128Gcm),
            KeySpec::Aes192 => KeyAlgorithm::Aead(AeadAlgorithm::Aes192Gcm),
        }
    }

    /// The name used on command lines, in records and in the database.
    pub const fn name(self) -> &'static str {
        match self.algorithm() {
            KeyAlgorithm::Aead(algorithm) => algorithm.name(),
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
        }
    }

    /// What a key of this kind is for.
    pub const fn usage(self) -> KeyUsage {
        match self.algorithm() {
            KeyAlgorithm::Aead(_) => KeyUsage::EncryptDecrypt,
        }
    }

    /// Key length in bytes.
    pub const fn key_len(self) -> usize {
        match self.algorithm() {
            KeyAlgorithm::Aead(algorithm) => algorithm.key_len(),
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

impl KeyUsage {
    /// The name used in records and messages.
    pub const fn name(self) -> &'static str {
        match self {
            KeyUsage::EncryptDecrypt => "ENCRYPT_DECRYPT",
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
