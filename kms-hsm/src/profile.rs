//! Vendor profiles: what a module can do and how it wants it said, as data.
//!
//! A profile is a TOML file (`docs/formats/hsm-profile.md`); unknown keys are refused, so a misspelt one cannot
//! be silently ignored. The files in `profiles/` are built in, and any other file can be named.

use crate::pair::profile::{PairTable, PairTables};
use crate::profile_file::{BadTagAnswer, ProfileFile};
pub(crate) use crate::profile_file::{GcmIv, GcmLayout};
use cryptoki::error::RvError;
use cryptoki::mechanism::MechanismType;
use cryptoki::object::KeyType;
use cryptoki_sys::CK_MECHANISM_TYPE;
use kms_core::mac::MacAlgorithm;
use kms_core::pair::{PairAlgorithm, PairUsage};
use kms_core::suite::{AeadAlgorithm, Suite};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const BUILT_IN: [&str; 8] = [
    include_str!("profiles/softhsm.toml"),
    include_str!("profiles/hsm-sim.toml"),
    include_str!("profiles/hsm-sim-luna.toml"),
    include_str!("profiles/hsm-sim-tass.toml"),
    include_str!("profiles/sansec.toml"),
    include_str!("profiles/tass.toml"),
    include_str!("profiles/luna.toml"),
    include_str!("profiles/generic.toml"),
];

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not TOML, a key is missing, or a key is not known.
    #[error("the profile is not valid")]
    Syntax(#[source] Box<toml::de::Error>),
    /// The file cannot be read.
    #[error("the profile {path} cannot be read")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
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

/// What a profile rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// It has been run against the module that it describes.
    Run,
    /// Only the vendor's documents: it has never been run.
    Documents,
}

impl Evidence {
    /// A sentence's end for tables and logs.
    pub const fn sentence(self) -> &'static str {
        match self {
            Evidence::Run => "run against this module",
            Evidence::Documents => "from the vendor's documents, never run",
        }
    }
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealingMechanisms {
    pub(crate) key_type: KeyType,
    pub(crate) generate: MechanismType,
    pub(crate) seal: MechanismType,
    /// Whether key generation wants `CKA_VALUE_LEN`.
    pub(crate) value_len: bool,
}

/// Mechanisms of a kind of signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SigningMechanisms {
    pub(crate) key_type: KeyType,
    pub(crate) generate: MechanismType,
    pub(crate) sign: MechanismType,
    /// DER of the curve's object identifier.
    pub(crate) curve: Vec<u8>,
    pub(crate) signature: SignatureFormat,
}

/// Mechanisms of a kind of MAC key.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    name: String,
    evidence: Evidence,
    manufacturer: Option<String>,
    so_pin: SoPin,
    trusted_wrapping: bool,
    takes_keys: bool,
    gcm_iv: GcmIv,
    gcm_layout: GcmLayout,
    bad_tag_answers: Vec<BadTagAnswer>,
    pin: PinRules,
    sealing: HashMap<AeadAlgorithm, SealingMechanisms>,
    signing: HashMap<Suite, SigningMechanisms>,
    mac: HashMap<MacAlgorithm, MacMechanisms>,
    pair: PairTables,
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
        let says = |name: &str| {
            let name = name.to_ascii_lowercase();
            [manufacturer, library].iter().any(|text| text.to_ascii_lowercase().contains(&name))
        };
        Self::built_in()?
            .into_iter()
            .find(|profile| profile.manufacturer.as_deref().is_some_and(says))
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
        let mut sealing = HashMap::new();
        for (name, table) in file.sealing {
            let algorithm =
                AeadAlgorithm::from_name(&name).ok_or(ProfileError::UnknownKey { table: "sealing", name })?;
            sealing.insert(algorithm, table.parse()?);
        }
        let mut signing = HashMap::new();
        for (name, table) in file.signing {
            let suite = Suite::from_name(&name).ok_or(ProfileError::UnknownKey { table: "signing", name })?;
            signing.insert(suite, table.parse()?);
        }
        let mut mac = HashMap::new();
        for (name, table) in file.mac {
            let algorithm =
                MacAlgorithm::from_name(&name).ok_or(ProfileError::UnknownKey { table: "mac", name })?;
            mac.insert(algorithm, table.parse()?);
        }
        Ok(Self {
            name: file.name,
            evidence: file.evidence,
            manufacturer: file.manufacturer,
            so_pin: file.so_pin,
            trusted_wrapping: file.trusted_wrapping,
            takes_keys: file.takes_keys,
            gcm_iv: file.gcm_iv,
            gcm_layout: file.gcm_layout,
            bad_tag_answers: file.bad_tag_answers,
            pin: PinRules::new(&file.pin.alphabet, file.pin.length)?,
            sealing,
            signing,
            mac,
            pair: file.pair.parse()?,
        })
    }

    /// Reads a profile from a file.
    ///
    /// # Errors
    /// [`ProfileError::Unreadable`], and those of [`Profile::parse`].
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    fn built_in() -> Result<Vec<Self>, ProfileError> {
        BUILT_IN.into_iter().map(Self::parse).collect()
    }

    /// The profile's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it rests on.
    pub fn evidence(&self) -> Evidence {
        self.evidence
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

    /// Whether the module takes keys from outside as objects (`C_CreateObject` with their values).
    pub fn takes_keys(&self) -> bool {
        self.takes_keys
    }

    pub(crate) fn gcm_iv(&self) -> GcmIv {
        self.gcm_iv
    }

    pub(crate) fn gcm_layout(&self) -> GcmLayout {
        self.gcm_layout
    }

    pub(crate) fn sealing(&self, algorithm: AeadAlgorithm) -> Option<&SealingMechanisms> {
        self.sealing.get(&algorithm)
    }

    pub(crate) fn signing(&self, suite: Suite) -> Option<&SigningMechanisms> {
        self.signing.get(&suite)
    }

    pub(crate) fn mac(&self, algorithm: MacAlgorithm) -> Option<&MacMechanisms> {
        self.mac.get(&algorithm)
    }

    pub(crate) fn pair(&self, algorithm: PairAlgorithm, usage: PairUsage) -> Option<&PairTable> {
        self.pair.get(&(algorithm, usage))
    }

    /// Whether this answer to a decryption may mean that the tag does not match.
    pub(crate) fn may_mean_bad_tag(&self, code: RvError) -> bool {
        self.bad_tag_answers.iter().any(|answer| match answer {
            BadTagAnswer::GeneralError => code == RvError::GeneralError,
            BadTagAnswer::FunctionFailed => code == RvError::FunctionFailed,
            BadTagAnswer::DeviceError => code == RvError::DeviceError,
            BadTagAnswer::Vendor(number) => code == RvError::VendorDefined(*number),
        })
    }
}

/// The number of a mechanism.
pub(crate) fn code_of(mechanism: MechanismType) -> u64 {
    CK_MECHANISM_TYPE::from(mechanism)
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
        let text = SOFTHSM.replace("[sealing.aes-256]", "[sealing.des]");
        assert!(matches!(Profile::parse(&text), Err(ProfileError::UnknownKey { table: "sealing", .. })));
        let text = SOFTHSM.replace("[mac.hmac-sha-256]", "[mac.gost]");
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
    fn pin_rules_that_would_make_weak_or_uneven_pins_are_refused() {
        for (alphabet, length) in
            [("012345678", 8), ("01234567890", 8), ("0123456789 ", 8), ("0123456789ä", 8), ("0123456789", 3)]
        {
            assert!(matches!(PinRules::new(alphabet, length), Err(ProfileError::Pin { .. })), "{alphabet}");
        }
        assert_eq!(PinRules::new("0123456789", 8).unwrap().strength_bits(), 26);
    }

    #[test]
    fn every_built_in_profile_is_found_by_its_name() {
        for name in
            ["softhsm", "hsm-sim", "hsm-sim-luna", "hsm-sim-tass", "sansec", "tass", "luna", "generic"]
        {
            assert_eq!(Profile::by_name(name).unwrap().name(), name);
        }
        let error = Profile::by_name("acme").unwrap_err();
        assert!(matches!(&error, ProfileError::UnknownName { known, .. } if known.len() == BUILT_IN.len()));
    }

    #[test]
    fn the_profiles_that_were_run_carry_the_whole_secret_in_a_pin() {
        for profile in Profile::built_in().unwrap() {
            let is_whole = profile.pin_rules().strength_bits() >= 256;
            assert!(is_whole || profile.evidence() == Evidence::Documents, "{}", profile.name());
            assert!(profile.pin_rules().strength_bits() >= 80, "{}", profile.name());
        }
    }

    #[test]
    fn a_profile_is_found_by_manufacturer_and_never_guessed() {
        assert_eq!(Profile::detect("SoftHSM", "Implementation of PKCS11").unwrap().name(), "softhsm");
        assert_eq!(Profile::detect("", "HSM-SIM").unwrap().name(), "hsm-sim");
        for manufacturer in ["ACME", "", "Sansec", "TASS", "SafeNet", "Thales", "generic"] {
            let error = Profile::detect(manufacturer, "HSM").unwrap_err();
            assert!(matches!(error, ProfileError::UnknownManufacturer { .. }), "{manufacturer}");
        }
    }

    #[test]
    fn a_profile_that_was_never_run_has_to_be_named() {
        for profile in Profile::built_in().unwrap() {
            let is_detected = profile.manufacturer.is_some();
            assert!(!is_detected || profile.evidence() == Evidence::Run, "{}", profile.name());
        }
    }

    #[test]
    fn every_key_of_a_profile_is_needed() {
        let whole: Vec<&str> = SOFTHSM.lines().collect();
        for (index, line) in whole.iter().enumerate() {
            let is_key = line.contains(" = ") && !line.starts_with('#');
            if is_key && !line.starts_with("manufacturer") {
                let without = [&whole[..index], &whole[index + 1..]].concat().join("\n");
                assert!(matches!(Profile::parse(&without), Err(ProfileError::Syntax(_))), "{line}");
            }
        }
    }

    #[test]
    fn a_bad_tag_answer_is_one_of_three_names_or_a_vendors_number() {
        let with =
            |answers: &str| Profile::parse(&SOFTHSM.replace("[\"general-error\"]", &format!("[{answers}]")));
        let profile = with("\"device-error\", \"0x80000123\"").unwrap();
        assert!(profile.may_mean_bad_tag(RvError::DeviceError));
        assert!(profile.may_mean_bad_tag(RvError::VendorDefined(0x8000_0123)));
        assert!(!profile.may_mean_bad_tag(RvError::VendorDefined(0x8000_0124)));
        assert!(!profile.may_mean_bad_tag(RvError::GeneralError));
        for refused in ["\"0x000000a0\"", "\"pin-incorrect\"", "5", "\"0x80000123 \""] {
            assert!(matches!(with(refused), Err(ProfileError::Syntax(_))), "{refused}");
        }
    }

    #[test]
    fn a_profile_is_read_from_a_file_and_a_missing_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card.toml");
        assert!(
            matches!(Profile::read(&path), Err(ProfileError::Unreadable { path: named, .. }) if named == path)
        );
        std::fs::write(&path, SOFTHSM.replace("name = \"softhsm\"", "name = \"my card\"")).unwrap();
        assert_eq!(Profile::read(&path).unwrap().name(), "my card");
    }

    /// `docs/formats/hsm-profile.md` says what each key means and which values it has.
    #[test]
    fn the_document_names_every_key_and_every_built_in_profile() {
        let document = include_str!("../../docs/formats/hsm-profile.md");
        for text in BUILT_IN {
            let profile = Profile::parse(text).unwrap();
            let row = format!("| `{}` | {} |", profile.name(), profile.evidence().sentence());
            assert!(document.contains(&row), "{row}");
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                if let Some((key, _)) = line.split_once(" = ") {
                    assert!(document.contains(&format!("| `{key}` |")), "{key}");
                }
            }
        }
    }
}
