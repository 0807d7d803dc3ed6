//! The tables of a profile file as they are written, and their numbers.

use crate::pair::profile::PairFile;
use crate::profile::{
    Evidence, MacMechanisms, ProfileError, SealingMechanisms, SignatureFormat, SigningMechanisms, SoPin,
};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::KeyType;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Numbers from here on belong to the vendors.
const VENDOR_DEFINED: u64 = 0x8000_0000;

/// An answer that means a broken device elsewhere, and a bad tag on some modules: one of three of the standard by
/// name, or a vendor's by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum BadTagAnswer {
    GeneralError,
    FunctionFailed,
    DeviceError,
    Vendor(u64),
}

impl TryFrom<String> for BadTagAnswer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "general-error" => Ok(Self::GeneralError),
            "function-failed" => Ok(Self::FunctionFailed),
            "device-error" => Ok(Self::DeviceError),
            _ => match Code::try_from(text)? {
                Code(code) if code >= VENDOR_DEFINED => Ok(Self::Vendor(code)),
                Code(code) => Err(format!("{code:#010x} is no vendor's answer; it has a fixed meaning")),
            },
        }
    }
}

/// Who makes the GCM IV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GcmIv {
    Caller,
    Returned,
    Appended,
}

/// How the parameters of GCM lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GcmLayout {
    /// `CK_GCM_PARAMS` with `ulIvBits`: the standard's header.
    WithIvBits,
    /// The same without it: the standard's text of version 2.40, which some modules follow.
    WithoutIvBits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileFile {
    pub(crate) name: String,
    pub(crate) evidence: Evidence,
    pub(crate) manufacturer: Option<String>,
    pub(crate) so_pin: SoPin,
    pub(crate) trusted_wrapping: bool,
    pub(crate) takes_keys: bool,
    pub(crate) gcm_iv: GcmIv,
    pub(crate) gcm_layout: GcmLayout,
    pub(crate) bad_tag_answers: Vec<BadTagAnswer>,
    pub(crate) pin: PinTable,
    #[serde(default)]
    pub(crate) sealing: BTreeMap<String, SealingTable>,
    #[serde(default)]
    pub(crate) signing: BTreeMap<String, SigningTable>,
    #[serde(default)]
    pub(crate) mac: BTreeMap<String, MacTable>,
    #[serde(default)]
    pub(crate) pair: PairFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinTable {
    pub(crate) alphabet: String,
    pub(crate) length: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealingTable {
    pub(crate) key_type: Code,
    pub(crate) generate: Code,
    pub(crate) seal: Code,
    pub(crate) value_len: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SigningTable {
    pub(crate) key_type: Code,
    pub(crate) generate: Code,
    pub(crate) sign: Code,
    pub(crate) curve: HexBytes,
    pub(crate) signature: SignatureFormat,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MacTable {
    pub(crate) key_type: Code,
    pub(crate) generate: Code,
    pub(crate) mac: Code,
}

impl SealingTable {
    pub(crate) fn parse(self) -> Result<SealingMechanisms, ProfileError> {
        Ok(SealingMechanisms {
            key_type: self.key_type.key_type()?,
            generate: self.generate.mechanism()?,
            seal: self.seal.mechanism()?,
            value_len: self.value_len,
        })
    }
}

impl SigningTable {
    pub(crate) fn parse(self) -> Result<SigningMechanisms, ProfileError> {
        Ok(SigningMechanisms {
            key_type: self.key_type.key_type()?,
            generate: self.generate.mechanism()?,
            sign: self.sign.mechanism()?,
            curve: self.curve.0,
            signature: self.signature,
        })
    }
}

impl MacTable {
    pub(crate) fn parse(self) -> Result<MacMechanisms, ProfileError> {
        Ok(MacMechanisms {
            key_type: self.key_type.key_type()?,
            generate: self.generate.mechanism()?,
            mac: self.mac.mechanism()?,
        })
    }
}

/// A PKCS#11 number, written `"0x8000010f"`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Code(u64);

impl TryFrom<String> for Code {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // `from_str_radix` takes a sign, which a number of PKCS#11 does not have.
        let digits =
            text.strip_prefix("0x").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        digits
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .filter(|code| *code <= u64::from(u32::MAX))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no 32-bit number of the form 0x8000010f"))
    }
}

impl Code {
    pub(crate) fn mechanism(self) -> Result<MechanismType, ProfileError> {
        let unknown = ProfileError::UnknownCode { what: "mechanism", code: self.0 };
        let parsed = if self.0 < VENDOR_DEFINED {
            MechanismType::try_from(self.0)
        } else {
            MechanismType::new_vendor_defined(self.0)
        };
        parsed.map_err(|_| unknown)
    }

    pub(crate) fn key_type(self) -> Result<KeyType, ProfileError> {
        KeyType::try_from(self.0).map_err(|_| ProfileError::UnknownCode { what: "key type", code: self.0 })
    }
}

/// Bytes, written in hexadecimal.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HexBytes(pub(crate) Vec<u8>);

impl TryFrom<String> for HexBytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        (0..text.len())
            .step_by(2)
            .filter(|_| is_hex)
            .map(|index| u8::from_str_radix(&text[index..index + 2], 16).ok())
            .collect::<Option<Vec<u8>>>()
            .filter(|bytes| !bytes.is_empty())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not hexadecimal"))
    }
}
