//! Key specifications, protection and the life-cycle state table (docs/key-states.md, REQUIREMENTS 2.12).

use crate::suite::{AeadAlgorithm, Suite};
use core::fmt;

/// What kind of key: algorithm and length. Numbers are in `docs/formats/registry.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySpec {
    /// AES with 256 bits, in GCM.
    Aes256,
    /// SM4 (128 bits), in GCM.
    Sm4,
}

impl KeySpec {
    /// Every specification, in registry order.
    pub const ALL: [KeySpec; 2] = [KeySpec::Aes256, KeySpec::Sm4];

    /// The name used on command lines, in records and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            KeySpec::Aes256 => "aes-256",
            KeySpec::Sm4 => "sm4",
        }
    }

    /// Reads the name that [`KeySpec::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        KeySpec::ALL.into_iter().find(|spec| spec.name() == name)
    }

    /// The algorithm number in a ciphertext header.
    pub const fn algorithm_number(self) -> u16 {
        match self {
            KeySpec::Aes256 => 1,
            KeySpec::Sm4 => 2,
        }
    }

    /// Reads the number that [`KeySpec::algorithm_number`] gives.
    pub fn from_algorithm_number(number: u16) -> Option<Self> {
        KeySpec::ALL.into_iter().find(|spec| spec.algorithm_number() == number)
    }

    /// The AEAD that a key of this kind runs.
    pub const fn aead(self) -> AeadAlgorithm {
        match self {
            KeySpec::Aes256 => AeadAlgorithm::Aes256Gcm,
            KeySpec::Sm4 => AeadAlgorithm::Sm4Gcm,
        }
    }

    /// The suite whose hash goes with a key of this kind: SM3 with SM4, SHA-256 with AES.
    pub const fn suite(self) -> Suite {
        match self {
            KeySpec::Aes256 => Suite::Intl,
            KeySpec::Sm4 => Suite::Sm,
        }
    }

    /// Key length in bytes.
    pub const fn key_len(self) -> usize {
        self.aead().key_len()
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

/// States of a key and of each of its versions (NIST SP 800-57 part 1, section 7).
///
/// `Creating` comes before the states of the standard: the row exists so that a crash cannot lose the
/// object in the HSM, and nothing can use it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// The row is committed, the HSM object may or may not exist.
    Creating,
    /// Encrypts and decrypts.
    Active,
    /// Does nothing until it is resumed.
    Suspended,
    /// Decrypts only: an older version after rotation.
    Deactivated,
}

/// What can be asked of a key or version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyCommand {
    /// The material exists; from here on the key may be used.
    Activate,
    /// Stop every use, at once and reversibly.
    Suspend,
    /// End a suspension.
    Resume,
    /// A newer version takes over; this one decrypts only.
    Deactivate,
}

/// The command is not allowed from the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is {from}; {command} is not allowed from there")]
pub struct TransitionError {
    /// The state that the key is in.
    pub from: KeyState,
    /// What was asked.
    pub command: KeyCommand,
}

impl KeyState {
    /// Every state, in the order of the table.
    pub const ALL: [KeyState; 4] =
        [KeyState::Creating, KeyState::Active, KeyState::Suspended, KeyState::Deactivated];

    /// The name used in records, messages and the database.
    pub const fn name(self) -> &'static str {
        match self {
            KeyState::Creating => "CREATING",
            KeyState::Active => "ACTIVE",
            KeyState::Suspended => "SUSPENDED",
            KeyState::Deactivated => "DEACTIVATED",
        }
    }

    /// Reads the name that [`KeyState::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        KeyState::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The state table of docs/key-states.md.
    ///
    /// # Errors
    /// [`TransitionError`] for every pair that is not in the table.
    pub fn apply(self, command: KeyCommand) -> Result<KeyState, TransitionError> {
        use KeyCommand as C;
        use KeyState as S;
        match (self, command) {
            (S::Creating, C::Activate) => Ok(S::Active),
            (S::Active, C::Suspend) => Ok(S::Suspended),
            (S::Active, C::Deactivate) => Ok(S::Deactivated),
            (S::Suspended, C::Resume) => Ok(S::Active),
            (from, command) => Err(TransitionError { from, command }),
        }
    }

    /// Whether new ciphertext may be made.
    pub const fn can_encrypt(self) -> bool {
        matches!(self, KeyState::Active)
    }

    /// Whether existing ciphertext may be opened.
    pub const fn can_decrypt(self) -> bool {
        matches!(self, KeyState::Active | KeyState::Deactivated)
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl KeyCommand {
    /// Every command, in the order of the table.
    pub const ALL: [KeyCommand; 4] =
        [KeyCommand::Activate, KeyCommand::Suspend, KeyCommand::Resume, KeyCommand::Deactivate];

    /// The verb.
    pub const fn name(self) -> &'static str {
        match self {
            KeyCommand::Activate => "activate",
            KeyCommand::Suspend => "suspend",
            KeyCommand::Resume => "resume",
            KeyCommand::Deactivate => "deactivate",
        }
    }
}

impl fmt::Display for KeyCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    #[test]
    fn a_key_that_is_being_created_or_suspended_does_nothing() {
        for state in [KeyState::Creating, KeyState::Suspended] {
            assert!(!state.can_encrypt() && !state.can_decrypt());
        }
    }

    #[test]
    fn a_deactivated_version_never_becomes_active_again() {
        for command in KeyCommand::ALL {
            assert!(KeyState::Deactivated.apply(command).is_err());
        }
    }

    /// The document is the specification: a row for every pair, in the order of the enums.
    #[test]
    fn the_state_table_is_the_one_in_the_document() {
        let document = include_str!("../../docs/key-states.md");
        let mut table = String::new();
        for state in KeyState::ALL {
            table.push_str(&format!("| `{state}` |"));
            for command in KeyCommand::ALL {
                match state.apply(command) {
                    Ok(to) => table.push_str(&format!(" `{to}` |")),
                    Err(_) => table.push_str(" - |"),
                }
            }
            table.push('\n');
        }
        assert!(document.contains(&table), "docs/key-states.md must hold:\n{table}");
    }
}
