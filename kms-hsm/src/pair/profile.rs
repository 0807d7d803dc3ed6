//! The tables of a profile for key pairs: one for each family and use.

use crate::profile::{ProfileError, SignatureFormat};
use crate::profile_file::{Code, HexBytes};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::KeyType;
use kms_core::pair::{PairAlgorithm, PairUsage, ToSign};
use serde::Deserialize;
use std::collections::HashMap;

/// How a module lays out an SM2 ciphertext: the point, the hash and the masked message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sm2Layout {
    C1c3c2,
    C1c2c3,
    /// The SEQUENCE of GM/T 0009.
    Asn1,
}

/// The mechanisms of one kind of pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PairTable {
    pub(crate) key_type: KeyType,
    pub(crate) generate: MechanismType,
    /// `CKA_EC_PARAMS`; `None` for RSA.
    pub(crate) curve: Option<Vec<u8>>,
    pub(crate) uses: PairUse,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PairUse {
    /// ECDSA and SM2 over a digest, Ed25519 over a message; without parameters.
    CurveSign {
        sign: MechanismType,
        signature: SignatureFormat,
    },
    /// PSS over a digest, with its parameters; PKCS#1 v1.5 over a DigestInfo.
    RsaSign {
        pss: MechanismType,
        pkcs1: MechanismType,
    },
    RsaDecrypt {
        oaep: MechanismType,
    },
    Sm2Decrypt {
        decrypt: MechanismType,
        ciphertext: Sm2Layout,
    },
}

impl PairTable {
    /// Which mechanism signs this.
    pub(crate) fn sign_mechanism(&self, input: &ToSign) -> MechanismType {
        match self.uses {
            PairUse::RsaSign { pkcs1, .. } if input.digest_info().is_some() => pkcs1,
            PairUse::RsaSign { pss, .. } => pss,
            PairUse::CurveSign { sign, .. } => sign,
            PairUse::RsaDecrypt { oaep } => oaep,
            PairUse::Sm2Decrypt { decrypt, .. } => decrypt,
        }
    }

    /// Every mechanism that using the pair needs.
    pub(crate) fn uses(&self) -> Vec<MechanismType> {
        match self.uses {
            PairUse::CurveSign { sign, .. } => vec![sign],
            PairUse::RsaSign { pss, pkcs1 } => vec![pss, pkcs1],
            PairUse::RsaDecrypt { oaep } => vec![oaep],
            PairUse::Sm2Decrypt { decrypt, .. } => vec![decrypt],
        }
    }
}

/// Every kind of pair that a profile has mechanisms for.
pub(crate) type PairTables = HashMap<(PairAlgorithm, PairUsage), PairTable>;

/// `[pair.…]` as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PairFile {
    ecdsa: Option<EcdsaFile>,
    ed25519: Option<CurveSignFile>,
    sm2_sign: Option<CurveSignFile>,
    sm2_decrypt: Option<Sm2DecryptFile>,
    rsa_sign: Option<RsaSignFile>,
    rsa_decrypt: Option<RsaDecryptFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EcdsaFile {
    key_type: Code,
    generate: Code,
    sign: Code,
    curves: Curves,
    signature: SignatureFormat,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CurveSignFile {
    key_type: Code,
    generate: Code,
    sign: Code,
    curve: HexBytes,
    signature: SignatureFormat,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sm2DecryptFile {
    key_type: Code,
    generate: Code,
    decrypt: Code,
    curve: HexBytes,
    ciphertext: Sm2Layout,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RsaSignFile {
    key_type: Code,
    generate: Code,
    pss: Code,
    pkcs1: Code,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RsaDecryptFile {
    key_type: Code,
    generate: Code,
    oaep: Code,
}

/// Names of curves for ECDSA, whose object identifiers the standard fixes.
#[derive(Deserialize)]
#[serde(try_from = "Vec<String>")]
struct Curves(Vec<(PairAlgorithm, Vec<u8>)>);

impl TryFrom<Vec<String>> for Curves {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        let curve = |name: String| {
            PairAlgorithm::from_name(&name)
                .filter(|algorithm| *algorithm != PairAlgorithm::Sm2)
                .and_then(|algorithm| Some((algorithm, algorithm.curve_der()?)))
                .ok_or_else(|| format!("{name:?} is no curve for ECDSA"))
        };
        names.into_iter().map(curve).collect::<Result<_, _>>().map(Self)
    }
}

impl CurveSignFile {
    fn parse(self) -> Result<PairTable, ProfileError> {
        Ok(PairTable {
            key_type: self.key_type.key_type()?,
            generate: self.generate.mechanism()?,
            curve: Some(self.curve.0),
            uses: PairUse::CurveSign { sign: self.sign.mechanism()?, signature: self.signature },
        })
    }
}

impl PairFile {
    pub(crate) fn parse(self) -> Result<PairTables, ProfileError> {
        let mut tables = PairTables::new();
        if let Some(file) = self.ecdsa {
            let (key_type, generate) = (file.key_type.key_type()?, file.generate.mechanism()?);
            let sign = file.sign.mechanism()?;
            for (algorithm, curve) in file.curves.0 {
                let uses = PairUse::CurveSign { sign, signature: file.signature };
                let table = PairTable { key_type, generate, curve: Some(curve), uses };
                tables.insert((algorithm, PairUsage::Sign), table);
            }
        }
        if let Some(file) = self.ed25519 {
            tables.insert((PairAlgorithm::Ed25519, PairUsage::Sign), file.parse()?);
        }
        if let Some(file) = self.sm2_sign {
            tables.insert((PairAlgorithm::Sm2, PairUsage::Sign), file.parse()?);
        }
        if let Some(file) = self.sm2_decrypt {
            let table = PairTable {
                key_type: file.key_type.key_type()?,
                generate: file.generate.mechanism()?,
                curve: Some(file.curve.0),
                uses: PairUse::Sm2Decrypt { decrypt: file.decrypt.mechanism()?, ciphertext: file.ciphertext },
            };
            tables.insert((PairAlgorithm::Sm2, PairUsage::Decrypt), table);
        }
        let mut rsa = |usage, key_type, generate, uses: PairUse| {
            for algorithm in PairAlgorithm::ALL.into_iter().filter(|one| one.rsa_modulus_len().is_some()) {
                let table = PairTable { key_type, generate, curve: None, uses: uses.clone() };
                tables.insert((algorithm, usage), table);
            }
        };
        if let Some(file) = self.rsa_sign {
            let uses = PairUse::RsaSign { pss: file.pss.mechanism()?, pkcs1: file.pkcs1.mechanism()? };
            rsa(PairUsage::Sign, file.key_type.key_type()?, file.generate.mechanism()?, uses);
        }
        if let Some(file) = self.rsa_decrypt {
            let uses = PairUse::RsaDecrypt { oaep: file.oaep.mechanism()? };
            rsa(PairUsage::Decrypt, file.key_type.key_type()?, file.generate.mechanism()?, uses);
        }
        Ok(tables)
    }
}
