//! The life-cycle state table of keys and their dates (docs/key-states.md, REQUIREMENTS 2.12).

use crate::id::UnixMillis;
use core::fmt;

/// States of a key and of each of its versions (NIST SP 800-57 part 1, section 7).
///
/// `Creating` comes before the states of the standard: the row exists so that a crash cannot lose the
/// object in the HSM, and nothing can use it yet. `Destroying` is its counterpart: from here on the
/// material may be gone, and nothing leads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Does nothing; is destroyed at a date unless that is cancelled before.
    DestroyPending,
    /// The date has come: the material is being erased.
    Destroying,
    /// The material is gone; name, history and certificate stay.
    Destroyed,
    /// Destroyed, and somebody else may have known the material.
    DestroyedCompromised,
}

/// What can be asked of a key or version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Stop every use at once, and destroy the material at this time.
    ScheduleDestruction(UnixMillis),
    /// Keep the key after all.
    CancelDestruction,
    /// The date of the destruction has come.
    Destroy,
    /// The material was erased at this time.
    Finish(UnixMillis),
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

/// A destruction that is scheduled, or was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destruction {
    /// The state before it was scheduled; a key or version that was marked as compromised since counts as that.
    pub before: KeyState,
    /// The end of the window in which it can be cancelled; when the material is gone, the time of that.
    pub time: UnixMillis,
}

/// The state of a key or version, as it was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The state.
    pub state: KeyState,
    /// Present exactly in [`KeyState::DestroyPending`] and the three states after it.
    pub destruction: Option<Destruction>,
}

impl From<KeyState> for Standing {
    /// A state without a destruction.
    fn from(state: KeyState) -> Self {
        Self { state, destruction: None }
    }
}

impl Standing {
    /// A standing as it was stored; `None` when state and destruction do not go together.
    pub fn from_parts(state: KeyState, destruction: Option<Destruction>) -> Option<Self> {
        (state.has_destruction() == destruction.is_some()).then_some(Self { state, destruction })
    }

    /// The state table of docs/key-states.md.
    ///
    /// # Errors
    /// [`TransitionError`] for every pair that is not in the table.
    pub fn apply(self, command: KeyCommand) -> Result<Self, TransitionError> {
        use KeyCommand as C;
        use KeyState as S;
        let state = match (self.state, command, self.destruction) {
            (S::Creating, C::Complete, _) => S::PreActive,
            (S::PreActive, C::Activate, _) | (S::Suspended, C::Resume, _) => S::Active,
            (S::Active, C::Suspend, _) => S::Suspended,
            (S::Active | S::Suspended, C::Deactivate, _) | (S::Archived, C::Recover, _) => S::Deactivated,
            (S::Deactivated, C::Archive, _) => S::Archived,
            (S::PreActive | S::Active | S::Suspended | S::Deactivated | S::Archived, C::Compromise, _) => {
                S::Compromised
            }
            (before, C::ScheduleDestruction(time), None) => {
                let destruction = Some(Destruction { before, time });
                return Ok(Self { state: S::DestroyPending, destruction });
            }
            (S::DestroyPending, C::CancelDestruction, Some(destruction)) => match destruction.before {
                // Nobody shall find a key encrypting that they knew to be on its way out.
                S::Active => S::Suspended,
                before => before,
            },
            (S::DestroyPending, C::Destroy, Some(_)) => {
                return Ok(Self { state: S::Destroying, ..self });
            }
            (S::Destroying, C::Finish(time), Some(destruction)) => {
                let state = match destruction.before {
                    S::Compromised => S::DestroyedCompromised,
                    _ => S::Destroyed,
                };
                return Ok(Self { state, destruction: Some(Destruction { time, ..destruction }) });
            }
            (
                state @ (S::DestroyPending | S::Destroying | S::Destroyed),
                C::Compromise,
                Some(destruction),
            ) if destruction.before != S::Compromised => {
                let state = if state == S::Destroyed { S::DestroyedCompromised } else { state };
                let destruction = Destruction { before: S::Compromised, ..destruction };
                return Ok(Self { state, destruction: Some(destruction) });
            }
            (from, command, _) => return Err(TransitionError { from, command }),
        };
        Ok(state.into())
    }
}

impl KeyState {
    /// Every state, in the order of the table.
    pub const ALL: [KeyState; 11] = [
        KeyState::Creating,
        KeyState::PreActive,
        KeyState::Active,
        KeyState::Suspended,
        KeyState::Deactivated,
        KeyState::Archived,
        KeyState::Compromised,
        KeyState::DestroyPending,
        KeyState::Destroying,
        KeyState::Destroyed,
        KeyState::DestroyedCompromised,
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
            KeyState::DestroyPending => "DESTROY_PENDING",
            KeyState::Destroying => "DESTROYING",
            KeyState::Destroyed => "DESTROYED",
            KeyState::DestroyedCompromised => "DESTROYED_COMPROMISED",
        }
    }

    /// Reads the name that [`KeyState::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        KeyState::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether new ciphertext may be made.
    pub const fn can_encrypt(self) -> bool {
        matches!(self, KeyState::Active)
    }

    /// Whether new ciphertext may be made now or some day, without a destruction being cancelled.
    pub const fn may_ever_encrypt(self) -> bool {
        matches!(self, KeyState::Creating | KeyState::PreActive | KeyState::Active | KeyState::Suspended)
    }

    /// Whether existing ciphertext may be opened.
    pub const fn can_decrypt(self) -> bool {
        matches!(self, KeyState::Active | KeyState::Deactivated)
    }

    /// Whether the material is gone for good.
    pub const fn is_destroyed(self) -> bool {
        matches!(self, KeyState::Destroyed | KeyState::DestroyedCompromised)
    }

    /// Whether a key in this state has a [`Destruction`].
    const fn has_destruction(self) -> bool {
        matches!(self, KeyState::DestroyPending | KeyState::Destroying) || self.is_destroyed()
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
    /// The standing at `now` of a key whose row says `standing`.
    pub fn standing_at(&self, standing: Standing, now: UnixMillis) -> Standing {
        match self.due(standing, now) {
            // Both dates may have passed.
            Some(command) => standing.apply(command).map_or(standing, |next| self.standing_at(next, now)),
            None => standing,
        }
    }

    /// What the dates ask of a key at `now`, that of its destruction among them. A suspended key stays suspended: it would
    /// decrypt otherwise.
    pub fn due(&self, standing: Standing, now: UnixMillis) -> Option<KeyCommand> {
        let has_come = |time: Option<UnixMillis>| time.is_some_and(|time| time.0 <= now.0);
        match standing.state {
            KeyState::PreActive if has_come(self.activates) => Some(KeyCommand::Activate),
            KeyState::Active if has_come(self.expires) => Some(KeyCommand::Deactivate),
            KeyState::DestroyPending if has_come(standing.destruction.map(|one| one.time)) => {
                Some(KeyCommand::Destroy)
            }
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
    /// Every command, in the order of the table; those with a time have the first one.
    pub const ALL: [KeyCommand; 12] = [
        KeyCommand::Complete,
        KeyCommand::Activate,
        KeyCommand::Suspend,
        KeyCommand::Resume,
        KeyCommand::Deactivate,
        KeyCommand::Archive,
        KeyCommand::Recover,
        KeyCommand::Compromise,
        KeyCommand::ScheduleDestruction(UnixMillis(0)),
        KeyCommand::CancelDestruction,
        KeyCommand::Destroy,
        KeyCommand::Finish(UnixMillis(0)),
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
            KeyCommand::ScheduleDestruction(_) => "schedule",
            KeyCommand::CancelDestruction => "cancel",
            KeyCommand::Destroy => "destroy",
            KeyCommand::Finish(_) => "finish",
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
    extern crate std;

    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::format;
    use alloc::string::String;
    use core::cell::{Cell, RefCell};
    use core::hash::BuildHasher;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    use std::collections::hash_map::RandomState;

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
        was_erased: bool,
        was_destroyed: bool,
    }

    impl History {
        fn check(&mut self, standing: Standing) {
            let state = standing.state;
            let is_known = |one| state == one || standing.destruction.is_some_and(|of| of.before == one);
            assert_eq!(standing.destruction.is_some(), state.has_destruction(), "{standing:?}");
            assert!(
                !standing.destruction.is_some_and(|of| of.before.has_destruction()),
                "a destruction is scheduled once: {standing:?}"
            );
            assert!(!(self.was_deactivated && state.can_encrypt()), "a key never comes back to encrypt");
            assert!(!self.was_compromised || is_known(KeyState::Compromised), "a compromise is for good");
            assert!(
                !self.was_erased || state == KeyState::Destroying || state.is_destroyed(),
                "what may be erased does nothing any more"
            );
            assert!(!self.was_destroyed || state.is_destroyed(), "a destruction is for good");
            self.was_deactivated |= matches!(state, KeyState::Deactivated | KeyState::Archived);
            self.was_compromised |= is_known(KeyState::Compromised);
            self.was_erased |= state == KeyState::Destroying;
            self.was_destroyed |= state.is_destroyed();
        }
    }

    /// A command of the table; destructions are scheduled within the times of the histories.
    fn command(index: usize, now: UnixMillis, window: u64) -> KeyCommand {
        match KeyCommand::ALL[index] {
            KeyCommand::ScheduleDestruction(_) => KeyCommand::ScheduleDestruction(UnixMillis(now.0 + window)),
            KeyCommand::Finish(_) => KeyCommand::Finish(now),
            other => other,
        }
    }

    /// `KMS_DEEP=1` runs as many histories as an auditor is shown; `KMS_SEED` repeats a run.
    #[test]
    fn no_history_of_commands_and_dates_brings_a_key_back() {
        let count = if std::env::var_os("KMS_DEEP").is_some() { 100_000 } else { 2_000 };
        let seed: u64 = match std::env::var("KMS_SEED") {
            Ok(seed) => seed.parse().expect("KMS_SEED is a number"),
            Err(_) => RandomState::new().hash_one(count),
        };
        std::eprintln!("KMS_SEED={seed} repeats these histories");
        let mut seed_bytes = [0; 32];
        seed_bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes);
        let steps = proptest::collection::vec((0..KeyCommand::ALL.len(), 0u64..10, 0u64..20), 1..60);
        let histories = (proptest::option::of(0u64..100), proptest::option::of(0u64..100), steps);
        let seen: RefCell<BTreeSet<(&str, &str)>> = RefCell::default();
        let command_count = Cell::new(0u64);
        let config = Config { failure_persistence: None, ..Config::with_cases(count) };
        TestRunner::new_with_rng(config, rng)
            .run(&histories, |(activates, expires, steps)| {
                let period =
                    Cryptoperiod { activates: activates.map(UnixMillis), expires: expires.map(UnixMillis) };
                let (mut stored, mut now, mut history) =
                    (Standing::from(KeyState::Creating), UnixMillis(0), History::default());
                for (index, later, window) in steps {
                    now.0 += later;
                    let standing = period.standing_at(stored, now);
                    history.check(standing);
                    let command = command(index, now, window);
                    command_count.set(command_count.get() + 1);
                    let Ok(next) = standing.apply(command) else { continue };
                    seen.borrow_mut().insert((standing.state.name(), command.name()));
                    stored = next;
                    let after = period.standing_at(stored, now);
                    history.check(after);
                    assert!(
                        standing.state.may_ever_encrypt()
                            || command == KeyCommand::CancelDestruction
                            || !after.state.may_ever_encrypt(),
                        "{standing:?} is final for encryption"
                    );
                }
                Ok(())
            })
            .unwrap_or_else(|error| panic!("KMS_SEED={seed}: {error}"));
        let in_table = |state| {
            let allowed = move |command: &KeyCommand| {
                // What was compromised before is not marked again.
                example(state, KeyState::Active, UnixMillis(0)).apply(*command).is_ok()
            };
            KeyCommand::ALL.into_iter().filter(allowed).count()
        };
        let transition_count: usize = KeyState::ALL.into_iter().map(in_table).sum();
        let seen = seen.into_inner().len();
        assert_eq!(seen, transition_count, "every transition of the table was made");
        let commands = command_count.get();
        std::println!(
            "DEEP-RESULT {{\"test\": \"histories of keys\", \"seed\": {seed}, \"histories\": {count}, \
             \"commands\": {commands}, \"transitions\": {seen}}}"
        );
    }

    proptest::proptest! {
        #![proptest_config(Config::with_cases(2_000))]

        #[test]
        fn time_alone_never_makes_a_key_decrypt_that_did_not_unless_it_activates_it(
            state in 0usize..KeyState::ALL.len(),
            expires in proptest::option::of(0u64..100),
            destroyed in 0u64..100,
            (now, later) in (0u64..100, 0u64..100),
        ) {
            let period = Cryptoperiod { activates: None, expires: expires.map(UnixMillis) };
            let standing = example(KeyState::ALL[state], KeyState::Active, UnixMillis(destroyed));
            let before = period.standing_at(standing, UnixMillis(now)).state;
            let after = period.standing_at(standing, UnixMillis(now + later)).state;
            assert!(before.can_decrypt() || !after.can_decrypt());
            assert!(before.can_encrypt() || !after.can_encrypt());
        }
    }

    /// A standing with this state, and with a destruction where the state has one.
    fn example(state: KeyState, before: KeyState, time: UnixMillis) -> Standing {
        Standing { state, destruction: state.has_destruction().then_some(Destruction { before, time }) }
    }

    #[test]
    fn the_dates_act_at_their_millisecond() {
        let period = Cryptoperiod { activates: Some(UnixMillis(10)), expires: Some(UnixMillis(20)) };
        let at = |state: KeyState, now| {
            period.standing_at(example(state, KeyState::Active, UnixMillis(30)), UnixMillis(now)).state
        };
        assert_eq!(at(KeyState::PreActive, 9), KeyState::PreActive);
        assert_eq!(at(KeyState::PreActive, 10), KeyState::Active);
        assert_eq!(at(KeyState::PreActive, 20), KeyState::Deactivated, "both dates have passed");
        assert_eq!(at(KeyState::Active, 19), KeyState::Active);
        assert_eq!(at(KeyState::Active, 20), KeyState::Deactivated);
        assert_eq!(at(KeyState::Suspended, 20), KeyState::Suspended, "it would decrypt otherwise");
        assert_eq!(at(KeyState::Creating, 20), KeyState::Creating);
        assert_eq!(at(KeyState::DestroyPending, 29), KeyState::DestroyPending);
        assert_eq!(at(KeyState::DestroyPending, 30), KeyState::Destroying, "nobody can cancel it any more");
        assert_eq!(at(KeyState::Destroying, 100), KeyState::Destroying, "only the erasure itself ends it");
    }

    #[test]
    fn a_stored_destruction_goes_with_its_state() {
        let destruction = Some(Destruction { before: KeyState::Active, time: UnixMillis(0) });
        for state in KeyState::ALL {
            assert_eq!(
                Standing::from_parts(state, destruction).is_some(),
                state.has_destruction(),
                "{state}"
            );
            assert_eq!(Standing::from_parts(state, None).is_none(), state.has_destruction(), "{state}");
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
                match example(state, KeyState::Active, UnixMillis(0)).apply(command) {
                    Ok(to) => table.push_str(&format!(" `{}` |", to.state)),
                    Err(_) => table.push_str(" - |"),
                }
            }
            table.push('\n');
        }
        assert!(document.contains(&table), "docs/key-states.md must hold:\n{table}");
        let mut table = String::new();
        for before in KeyState::ALL.into_iter().filter(|state| !state.has_destruction()) {
            let pending = example(KeyState::DestroyPending, before, UnixMillis(0));
            let cancelled = pending.apply(KeyCommand::CancelDestruction).expect("every one can be cancelled");
            let destroyed = example(KeyState::Destroying, before, UnixMillis(0))
                .apply(KeyCommand::Finish(UnixMillis(0)))
                .expect("every one can be finished");
            table.push_str(&format!("| `{before}` | `{}` | `{}` |\n", cancelled.state, destroyed.state));
        }
        assert!(document.contains(&table), "docs/key-states.md must hold:\n{table}");
    }
}
