//! Vendor profiles: what a module can do and how it wants it said, as data.
//!
//! A profile is a TOML file; unknown keys are refused, so a misspelt one cannot be silently ignored.
//! The files in `profiles/` are built in.

use crate::profile_file::{BadTagAnswer, GcmIv, ProfileFile};
use cryptoki::error::RvError;
use cryptoki::mechanism::MechanismType;
use cryptoki::object::KeyType;
use kms_core::key::KeySpec;
use kms_core::suite::Suite;
use serde::Deserialize;
use std::collections::HashMap;

const BUILT_IN: [&str; 2] = [include_str!("profiles/softhsm.toml"), include_str!("profiles/hsm-sim.toml")];

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not TOML, a key is missing, or a key is not known.
    #[error("the profile is not valid")]
    Syntax(#[source] Box<toml::de::Error>),
    /// No built-in profile has this name.
    #[error("there is no built-in profile {name:?}; there are {known:?}")]
    UnknownName {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// No built-in profile is for this manufacturer.
    #[error(
        "no built-in profile is for a module of {manufacturer:?} ({library:?}); name one in the configuration"
    )]
    UnknownManufacturer {
        /// What the library says who made it.
        manufacturer: String,
        /// How the library describes itself.
        library: String,
    },
    /// A table is named after something that does not exist.
    #[error("[{table}.{name}]: there is no {table} key of this name")]
    UnknownKey {
        /// Which kind of table.
        table: &'static str,
        /// The name that is not known.
        name: String,
    },
    /// A number that PKCS#11 does not define, below the vendors' range.
    #[error("{what} {code:#010x} is no number of the PKCS#11 standard")]
    UnknownCode {
        /// What the number is for.
        what: &'static str,
        /// The number.
        code: u64,
    },
    /// The PIN rules cannot make a PIN.
    #[error("[pin]: {why}")]
    Pin {
        /// Which rule is broken.
        why: &'static str,
    },
    /// The profile is right, and this version cannot work with such a module yet.
    #[error("{what} is not supported yet")]
    NotSupportedYet {
        /// What is missing.
        what: &'static str,
    },
}

/// Where the SO PIN comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SoPin {
    /// Derived from the core secret, like the user PINs.
    Derived,
    /// Kept by the vendor's own administration; entered in a ceremony.
    External,
}

/// How a derived PIN is written: characters and length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRules {
    alphabet: Vec<u8>,
    length: usize,
}

impl PinRules {
    /// `alphabet`: 10 to 94 different printable ASCII characters; `length`: 4 to 255.
    ///
    /// # Errors
    /// [`ProfileError::Pin`] says which rule is broken.
    pub fn new(alphabet: &str, length: usize) -> Result<Self, ProfileError> {
        let bytes = alphabet.as_bytes().to_vec();
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(ProfileError::Pin { why: "the alphabet may hold only printable ASCII characters" });
        }
        if bytes.len() < 10 {
            return Err(ProfileError::Pin { why: "the alphabet must have at least 10 characters" });
        }
        // A character that is there twice would come up twice as often.
        if (1..bytes.len()).any(|index| bytes[..index].contains(&bytes[index])) {
            return Err(ProfileError::Pin { why: "a character is in the alphabet twice" });
        }
        if !(4..=255).contains(&length) {
            return Err(ProfileError::Pin { why: "the length must be 4 to 255" });
        }
        Ok(Self { alphabet: bytes, length })
    }

    /// The characters.
    pub fn alphabet(&self) -> &[u8] {
        &self.alphabet
    }

    /// How many characters a PIN has.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many bits of the secret a PIN can carry, rounded down. Below 256 the PIN is weaker than the secret.
    pub fn strength_bits(&self) -> u32 {
        let bits = (self.alphabet.len() as f64).log2() * self.length as f64;
        bits as u32
    }
}

/// Mechanisms of a kind of sealing key.
#[derive(Clone, Debug)]
pub(crate) struct SealingMechanisms {
    pub(crate) key_type: KeyType,
    pub(crate) generate: MechanismType,
    pub(crate) seal: MechanismType,
    /// Whether key generation wants `CKA_VALUE_LEN`.
    pub(crate) value_len: bool,
}

/// Mechanisms of a kind of signing key.
#[derive(Clone, Debug)]
pub(crate) struct SigningMechanisms {
    pub(crate) key_type: KeyType,
    pub(crate) generate: MechanismType,
    pub(crate) sign: MechanismType,
    /// DER of the curve's object identifier.
    pub(crate) curve: Vec<u8>,
    pub(crate) signature: SignatureFormat,
}

/// Mechanisms of a kind of MAC key.
#[derive(Clone, Debug)]
pub(crate) struct MacMechanisms {
    pub(crate) key_type: KeyType,
    pub(crate) generate: MechanismType,
    pub(crate) mac: MechanismType,
}

/// How a module writes a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SignatureFormat {
    /// r and s, 32 bytes each.
    Raw,
    /// A DER sequence of two integers.
    Der,
}

/// A vendor's module: names, rules and mechanism numbers.
#[derive(Clone, Debug)]
pub struct Profile {
    name: String,
    manufacturer: String,
    so_pin: SoPin,
    trusted_wrapping: bool,
    bad_tag_answers: Vec<BadTagAnswer>,
    pin: PinRules,
    sealing: HashMap<KeySpec, SealingMechanisms>,
    signing: HashMap<Suite, SigningMechanisms>,
    mac: HashMap<Suite, MacMechanisms>,
}

impl Profile {
    /// One of the built-in profiles.
    ///
    /// # Errors
    /// [`ProfileError::UnknownName`] lists the names that there are.
    pub fn by_name(name: &str) -> Result<Self, ProfileError> {
        let profiles = Self::built_in()?;
        let known = profiles.iter().map(|profile| profile.name.clone()).collect();
        profiles
            .into_iter()
            .find(|profile| profile.name == name)
            .ok_or_else(|| ProfileError::UnknownName { name: name.to_owned(), known })
    }

    /// The built-in profile for what a library says about itself.
    ///
    /// # Errors
    /// [`ProfileError::UnknownManufacturer`]: nothing is guessed.
    pub fn detect(manufacturer: &str, library: &str) -> Result<Self, ProfileError> {
        let says = |text: &str, name: &str| text.to_ascii_lowercase().contains(&name.to_ascii_lowercase());
        Self::built_in()?
            .into_iter()
            .find(|profile| says(manufacturer, &profile.manufacturer) || says(library, &profile.manufacturer))
            .ok_or_else(|| ProfileError::UnknownManufacturer {
                manufacturer: manufacturer.to_owned(),
                library: library.to_owned(),
            })
    }

    /// Reads a profile from TOML.
    ///
    /// # Errors
    /// [`ProfileError`] says what is wrong, or what is not supported yet.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let file: ProfileFile =
            toml::from_str(text).map_err(|error| ProfileError::Syntax(Box::new(error)))?;
        if file.gcm_iv != GcmIv::Caller {
            // A device that makes the IV itself has to be asked for it or gives it behind the ciphertext;
            // neither is written down by a standard, so it needs a device to test against.
            return Err(ProfileError::NotSupportedYet { what: "a module that makes the GCM IV itself" });
        }
        let mut sealing = HashMap::new();
        for (name, table) in file.sealing {
            let spec =
                KeySpec::from_name(&name).ok_or(ProfileError::UnknownKey { table: "sealing", name })?;
            sealing.insert(spec, table.parse()?);
        }
        let mut signing = HashMap::new();
        for (name, table) in file.signing {
            let suite = Suite::from_name(&name).ok_or(ProfileError::UnknownKey { table: "signing", name })?;
            signing.insert(suite, table.parse()?);
        }
        let mut mac = HashMap::new();
        for (name, table) in file.mac {
            let suite = Suite::from_name(&name).ok_or(ProfileError::UnknownKey { table: "mac", name })?;
            mac.insert(suite, table.parse()?);
        }
        Ok(Self {
            name: file.name,
            manufacturer: file.manufacturer,
            so_pin: file.so_pin,
            trusted_wrapping: file.trusted_wrapping,
            bad_tag_answers: file.bad_tag_answers,
            pin: PinRules::new(&file.pin.alphabet, file.pin.length)?,
            sealing,
            signing,
            mac,
        })
    }

    fn built_in() -> Result<Vec<Self>, ProfileError> {
        BUILT_IN.into_iter().map(Self::parse).collect()
    }

    /// The profile's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How PINs are written for this module.
    pub fn pin_rules(&self) -> &PinRules {
        &self.pin
    }

    /// Where the SO PIN comes from.
    pub fn so_pin(&self) -> SoPin {
        self.so_pin
    }

    /// Whether the module knows `CKA_WRAP_WITH_TRUSTED`. Where it does not, keys never leave it: without
    /// it an extractable key could be wrapped under any key that the user makes.
    pub fn trusted_wrapping(&self) -> bool {
        self.trusted_wrapping
    }

    pub(crate) fn sealing(&self, spec: KeySpec) -> Option<&SealingMechanisms> {
        self.sealing.get(&spec)
    }

    pub(crate) fn signing(&self, suite: Suite) -> Option<&SigningMechanisms> {
        self.signing.get(&suite)
    }

    pub(crate) fn mac(&self, suite: Suite) -> Option<&MacMechanisms> {
        self.mac.get(&suite)
    }

    /// Whether this answer to a decryption may mean that the tag does not match.
    pub(crate) fn may_mean_bad_tag(&self, code: RvError) -> bool {
        self.bad_tag_answers.iter().any(|answer| match answer {
            BadTagAnswer::GeneralError => code == RvError::GeneralError,
            BadTagAnswer::FunctionFailed => code == RvError::FunctionFailed,
            BadTagAnswer::DeviceError => code == RvError::DeviceError,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]
mod tests {
    use super::*;

    const SOFTHSM: &str = include_str!("profiles/softhsm.toml");

    #[test]
    fn an_unknown_key_is_refused_wherever_it_stands() {
        for (from, to) in [
            ("so_pin = \"derived\"", "so_pin = \"derived\"\nso_pim = \"derived\""),
            ("length = 43", "length = 43\nlenght = 43"),
            ("value_len = true", "value_len = true\npadding = true"),
        ] {
            let text = SOFTHSM.replacen(from, to, 1);
            assert_ne!(text, SOFTHSM);
            assert!(matches!(Profile::parse(&text), Err(ProfileError::Syntax(_))), "{to}");
        }
    }

    #[test]
    fn a_table_for_a_key_that_does_not_exist_is_refused() {
        let text = SOFTHSM.replace("[sealing.aes-256]", "[sealing.aes-128]");
        assert!(matches!(Profile::parse(&text), Err(ProfileError::UnknownKey { table: "sealing", .. })));
        let text = SOFTHSM.replace("[mac.intl]", "[mac.gost]");
        assert!(matches!(Profile::parse(&text), Err(ProfileError::UnknownKey { table: "mac", .. })));
    }

    #[test]
    fn a_code_that_is_no_number_or_no_number_of_the_standard_is_refused() {
        for code in ["1087", "0x", "0x-1087", "0x+1087", "0x1g", "0x100000000"] {
            let text = SOFTHSM.replace("0x00001087", code);
            assert!(matches!(Profile::parse(&text), Err(ProfileError::Syntax(_))), "{code}");
        }
        let text = SOFTHSM.replace("0x00001087", "0x7fff0000");
        assert!(matches!(
            Profile::parse(&text),
            Err(ProfileError::UnknownCode { what: "mechanism", code: 0x7fff_0000 })
        ));
        let text = SOFTHSM.replace("06082a8648ce3d030107", "06082a8648ce3d03010");
        assert!(matches!(Profile::parse(&text), Err(ProfileError::Syntax(_))));
    }

    #[test]
    fn a_module_that_makes_the_iv_is_refused_with_a_clear_reason() {
        for who in ["returned", "appended"] {
            let text = SOFTHSM.replace("gcm_iv = \"caller\"", &format!("gcm_iv = \"{who}\""));
            let error = Profile::parse(&text).unwrap_err();
            assert_eq!(error.to_string(), "a module that makes the GCM IV itself is not supported yet");
        }
    }

    #[test]
    fn pin_rules_that_would_make_weak_or_uneven_pins_are_refused() {
        for (alphabet, length) in
            [("012345678", 8), ("01234567890", 8), ("0123456789 ", 8), ("0123456789ä", 8), ("0123456789", 3)]
        {
            assert!(matches!(PinRules::new(alphabet, length), Err(ProfileError::Pin { .. })), "{alphabet}");
        }
        assert_eq!(PinRules::new("0123456789", 8).unwrap().strength_bits(), 26);
    }

    #[test]
    fn the_built_in_profiles_carry_the_whole_secret_in_a_pin() {
        for name in ["softhsm", "hsm-sim"] {
            let profile = Profile::by_name(name).unwrap();
            assert_eq!(profile.name(), name);
            assert!(profile.pin_rules().strength_bits() >= 256, "{name}");
            assert!(profile.trusted_wrapping(), "{name}");
        }
        assert!(matches!(Profile::by_name("luna"), Err(ProfileError::UnknownName { .. })));
    }

    #[test]
    fn a_profile_is_found_by_manufacturer_and_never_guessed() {
        assert_eq!(Profile::detect("SoftHSM", "Implementation of PKCS11").unwrap().name(), "softhsm");
        assert_eq!(Profile::detect("", "HSM-SIM").unwrap().name(), "hsm-sim");
        assert!(matches!(Profile::detect("ACME", "HSM"), Err(ProfileError::UnknownManufacturer { .. })));
    }
}
