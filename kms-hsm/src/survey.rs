//! What a token can do, asked without a login: public information and `C_GetMechanismInfo`.

use crate::ObjectKind;
use crate::attributes::mechanisms;
use crate::error::{ModuleError, TokenAnswer};
use crate::module::{HsmModule, TokenDescription};
use crate::profile::code_of;
use cryptoki::error::{Error as Pkcs11Error, RvError};
use cryptoki::mechanism::{MechanismInfo, MechanismType};
use cryptoki::slot::Slot;
use kms_core::pair::PairUsage;

/// What the library says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryDescription {
    /// Who made it.
    pub manufacturer: String,
    /// How it describes itself.
    pub description: String,
    /// Its version, `major.minor`.
    pub version: String,
    /// Which version of PKCS#11 it follows, `major.minor`.
    pub standard: String,
}

/// Whether a token has a mechanism.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has.
    Present,
    /// It has, but does not say that the mechanism does what it is needed for. The self-test shows whether it does.
    Doubtful,
    /// It has not.
    Missing,
    /// It did not say.
    Unknown(TokenAnswer),
}

/// What a mechanism is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MechanismRole {
    /// Making the key.
    Make,
    /// Using it.
    Use,
}

/// One mechanism that a kind of object needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededMechanism {
    /// For which kind.
    pub kind: ObjectKind,
    /// For making or using it.
    pub role: MechanismRole,
    /// Its number.
    pub code: u64,
    /// Its name in the standard; `None` for a vendor's.
    pub name: Option<String>,
    /// Whether the token has it.
    pub presence: Presence,
}

impl HsmModule {
    /// What the library says about itself.
    ///
    /// # Errors
    /// [`ModuleError::Hsm`] when it does not.
    pub fn library(&self) -> Result<LibraryDescription, ModuleError> {
        let library = self.client().get_library_info()?;
        Ok(LibraryDescription {
            manufacturer: library.manufacturer_id().to_owned(),
            description: library.library_description().to_owned(),
            version: library.library_version().to_string(),
            standard: library.cryptoki_version().to_string(),
        })
    }

    /// Every mechanism that the profile names, and whether the token has it. Needs no login. A kind of object that
    /// is not in the list has no mechanisms in the profile.
    pub fn survey(&self, token: &TokenDescription) -> Vec<NeededMechanism> {
        ObjectKind::all().flat_map(|kind| needed(self, token.slot, kind)).collect()
    }
}

/// Whether the token has every mechanism of a kind.
pub(crate) fn is_offered(module: &HsmModule, slot: Slot, kind: ObjectKind) -> bool {
    let needed = needed(module, slot, kind);
    let is_there = |one: &NeededMechanism| matches!(one.presence, Presence::Present | Presence::Doubtful);
    !needed.is_empty() && needed.iter().all(is_there)
}

/// `C_GetMechanismInfo` is asked one by one, because the PKCS#11 client hides vendors' mechanisms from the list.
fn needed(module: &HsmModule, slot: Slot, kind: ObjectKind) -> Vec<NeededMechanism> {
    let roles = std::iter::once(MechanismRole::Make).chain(std::iter::repeat(MechanismRole::Use));
    roles
        .zip(mechanisms(module.profile(), kind).unwrap_or_default())
        .map(|(role, mechanism)| NeededMechanism {
            kind,
            role,
            code: code_of(mechanism),
            name: name_of(mechanism),
            presence: match module.client().get_mechanism_info(slot, mechanism) {
                Ok(said) if !has_size(&said, kind) => Presence::Missing,
                Ok(said) if does(&said, kind, role) => Presence::Present,
                Ok(_) => Presence::Doubtful,
                Err(Pkcs11Error::Pkcs11(RvError::MechanismInvalid, _)) => Presence::Missing,
                Err(error) => Presence::Unknown(error.into()),
            },
        })
        .collect()
}

/// Whether the mechanism says that it takes keys of this size. One that says nothing may.
fn has_size(said: &MechanismInfo, kind: ObjectKind) -> bool {
    match kind {
        ObjectKind::KeyPair(algorithm, _) if said.max_key_size() > 0 => {
            // An Ed25519 key has 255 or 256 bits, depending on who counts.
            said.min_key_size() as u64 <= algorithm.bits().next_multiple_of(8)
                && algorithm.bits() <= said.max_key_size() as u64
        }
        _ => true,
    }
}

fn does(said: &MechanismInfo, kind: ObjectKind, role: MechanismRole) -> bool {
    match (role, kind) {
        (MechanismRole::Make, ObjectKind::KeyPair(..)) => said.generate_key_pair(),
        (MechanismRole::Use, ObjectKind::KeyPair(_, PairUsage::Sign)) => said.sign(),
        (MechanismRole::Use, ObjectKind::KeyPair(_, PairUsage::Decrypt)) => said.decrypt(),
        (MechanismRole::Make, ObjectKind::SigningKey(_)) => said.generate_key_pair(),
        (MechanismRole::Make, ObjectKind::SealingKey(_) | ObjectKind::MacKey(_)) => said.generate(),
        (MechanismRole::Use, ObjectKind::SealingKey(_)) => said.encrypt() && said.decrypt(),
        (MechanismRole::Use, ObjectKind::SigningKey(_) | ObjectKind::MacKey(_)) => said.sign(),
    }
}

fn name_of(mechanism: MechanismType) -> Option<String> {
    Some(mechanism.to_string()).filter(|name| name.starts_with("CKM_") && !name.contains("VENDOR"))
}
