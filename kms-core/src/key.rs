//! The life-cycle state table of keys and their dates (docs/key-states.md, REQUIREMENTS 2.12).

use crate::id::UnixMillis;
use core::fmt;

/// States of a key and of each of its versions (NIST SP 800-57 part 1, section 7).
///
/// `Creating` comes before the states of the standard: the row exists so that a crash cannot lose the
/// object in the HSM, and nothing can use it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// The row is committed, the HSM object may or may not exist.
    Creating,
    /// The material exists; nothing uses it yet.
    PreActive,
    /// Encrypts and decrypts.
    Active,
    /// Does nothing until it is resumed.
    Suspended,
    /// Decrypts only: an older version after rotation, or a key whose time has passed.
    Deactivated,
    /// Does nothing; kept for old data, and decrypts again after a recovery.
    Archived,
    /// Somebody else may know the material. It does nothing and never comes back.
    Compromised,
}

/// What can be asked of a key or version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyCommand {
    /// The material exists.
    Complete,
    /// From here on the key may be used.
    Activate,
    /// Stop every use, at once and reversibly.
    Suspend,
    /// End a suspension.
    Resume,
    /// Decrypt only from here on: a newer version takes over, or the key's time has passed.
    Deactivate,
    /// Put away what only old data needs.
    Archive,
    /// Make what was put away decrypt again.
    Recover,
    /// The material may be known to somebody else.
    Compromise,
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
    pub const ALL: [KeyState; 7] = [
        KeyState::Creating,
        KeyState::PreActive,
        KeyState::Active,
        KeyState::Suspended,
        KeyState::Deactivated,
        KeyState::Archived,
        KeyState::Compromised,
    ];

    /// The name used in records, messages and the database.
    pub const fn name(self) -> &'static str {
        match self {
            KeyState::Creating => "CREATING",
            KeyState::PreActive => "PRE_ACTIVE",
            KeyState::Active => "ACTIVE",
            KeyState::Suspended => "SUSPENDED",
            KeyState::Deactivated => "DEACTIVATED",
            KeyState::Archived => "ARCHIVED",
            KeyState::Compromised => "COMPROMISED",
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
            (S::Creating, C::Complete) => Ok(S::PreActive),
            (S::PreActive, C::Activate) | (S::Suspended, C::Resume) => Ok(S::Active),
            (S::Active, C::Suspend) => Ok(S::Suspended),
            (S::Active | S::Suspended, C::Deactivate) | (S::Archived, C::Recover) => Ok(S::Deactivated),
            (S::Deactivated, C::Archive) => Ok(S::Archived),
            (S::PreActive | S::Active | S::Suspended | S::Deactivated | S::Archived, C::Compromise) => {
                Ok(S::Compromised)
            }
            (from, command) => Err(TransitionError { from, command }),
        }
    }

    /// Whether new ciphertext may be made.
    pub const fn can_encrypt(self) -> bool {
        matches!(self, KeyState::Active)
    }

    /// Whether new ciphertext may be made now or some day.
    pub const fn may_ever_encrypt(self) -> bool {
        matches!(self, KeyState::Creating | KeyState::PreActive | KeyState::Active | KeyState::Suspended)
    }

    /// Whether existing ciphertext may be opened.
    pub const fn can_decrypt(self) -> bool {
        matches!(self, KeyState::Active | KeyState::Deactivated)
    }
}

/// When a key may be used: the cryptoperiod of NIST SP 800-57 part 1, section 5.3.
///
/// The dates act by themselves, on every node and to the millisecond of its clock; that a node later writes the new
/// state into the key's row only makes it visible in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cryptoperiod {
    /// From this time on a pre-active key is active. `None`: it is active when its material exists.
    pub activates: Option<UnixMillis>,
    /// From this time on an active key decrypts only. `None`: it never expires.
    pub expires: Option<UnixMillis>,
}

impl Cryptoperiod {
    /// The state at `now` of a key whose row says `state`.
    pub fn state_at(&self, state: KeyState, now: UnixMillis) -> KeyState {
        match self.due(state, now) {
            // Both dates may have passed.
            Some(command) => state.apply(command).map_or(state, |next| self.state_at(next, now)),
            None => state,
        }
    }

    /// What the dates ask of a key in `state` at `now`. A suspended key stays suspended: it would decrypt otherwise.
    pub fn due(&self, state: KeyState, now: UnixMillis) -> Option<KeyCommand> {
        let has_come = |time: Option<UnixMillis>| time.is_some_and(|time| time.0 <= now.0);
        match state {
            KeyState::PreActive if has_come(self.activates) => Some(KeyCommand::Activate),
            KeyState::Active if has_come(self.expires) => Some(KeyCommand::Deactivate),
            _ => None,
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl KeyCommand {
    /// Every command, in the order of the table.
    pub const ALL: [KeyCommand; 8] = [
        KeyCommand::Complete,
        KeyCommand::Activate,
        KeyCommand::Suspend,
        KeyCommand::Resume,
        KeyCommand::Deactivate,
        KeyCommand::Archive,
        KeyCommand::Recover,
        KeyCommand::Compromise,
    ];

    /// The verb.
    pub const fn name(self) -> &'static str {
        match self {
            KeyCommand::Complete => "complete",
            KeyCommand::Activate => "activate",
            KeyCommand::Suspend => "suspend",
            KeyCommand::Resume => "resume",
            KeyCommand::Deactivate => "deactivate",
            KeyCommand::Archive => "archive",
            KeyCommand::Recover => "recover",
            KeyCommand::Compromise => "compromise",
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
    fn only_an_active_key_encrypts_and_only_an_active_or_deactivated_one_decrypts() {
        for state in KeyState::ALL {
            assert_eq!(state.can_encrypt(), state == KeyState::Active, "{state}");
            assert_eq!(
                state.can_decrypt(),
                matches!(state, KeyState::Active | KeyState::Deactivated),
                "{state}"
            );
        }
    }

    /// What no history may do, whatever the table says (REQUIREMENTS 2.12).
    #[derive(Default)]
    struct History {
        was_deactivated: bool,
        was_compromised: bool,
    }

    impl History {
        fn check(&mut self, state: KeyState) {
            self.was_deactivated |= matches!(state, KeyState::Deactivated | KeyState::Archived);
            self.was_compromised |= state == KeyState::Compromised;
            assert!(!(self.was_deactivated && state.can_encrypt()), "a key never comes back to encrypt");
            assert!(!self.was_compromised || state == KeyState::Compromised, "a compromise is for good");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_history_of_commands_and_dates_brings_a_key_back(
            activates in proptest::option::of(0u64..100),
            expires in proptest::option::of(0u64..100),
            steps in proptest::collection::vec((0usize..KeyCommand::ALL.len(), 0u64..10), 1..40),
        ) {
            let period =
                Cryptoperiod { activates: activates.map(UnixMillis), expires: expires.map(UnixMillis) };
            let (mut stored, mut now, mut history) = (KeyState::Creating, UnixMillis(0), History::default());
            for (command, later) in steps {
                now.0 += later;
                let state = period.state_at(stored, now);
                history.check(state);
                if let Ok(next) = state.apply(KeyCommand::ALL[command]) {
                    stored = next;
                    let after = period.state_at(stored, now);
                    history.check(after);
                    assert!(state.may_ever_encrypt() || !after.may_ever_encrypt(), "{state} is final for encryption");
                }
            }
        }

        #[test]
        fn time_alone_never_makes_a_key_decrypt_that_did_not_unless_it_activates_it(
            state in 0usize..KeyState::ALL.len(),
            expires in proptest::option::of(0u64..100),
            (now, later) in (0u64..100, 0u64..100),
        ) {
            let period = Cryptoperiod { activates: None, expires: expires.map(UnixMillis) };
            let before = period.state_at(KeyState::ALL[state], UnixMillis(now));
            let after = period.state_at(KeyState::ALL[state], UnixMillis(now + later));
            assert!(before.can_decrypt() || !after.can_decrypt());
            assert!(before.can_encrypt() || !after.can_encrypt());
        }
    }

    #[test]
    fn the_dates_act_at_their_millisecond() {
        let period = Cryptoperiod { activates: Some(UnixMillis(10)), expires: Some(UnixMillis(20)) };
        let at = |state, now| period.state_at(state, UnixMillis(now));
        assert_eq!(at(KeyState::PreActive, 9), KeyState::PreActive);
        assert_eq!(at(KeyState::PreActive, 10), KeyState::Active);
        assert_eq!(at(KeyState::PreActive, 20), KeyState::Deactivated, "both dates have passed");
        assert_eq!(at(KeyState::Active, 19), KeyState::Active);
        assert_eq!(at(KeyState::Active, 20), KeyState::Deactivated);
        assert_eq!(at(KeyState::Suspended, 20), KeyState::Suspended, "it would decrypt otherwise");
        assert_eq!(at(KeyState::Creating, 20), KeyState::Creating);
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
