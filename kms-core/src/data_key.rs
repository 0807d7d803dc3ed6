//! Registered data keys: their states, the window before a destruction, and when a rotation is due (docs/data-keys.md).

use crate::context::EncryptionContext;
use crate::id::{KeyVersion, UnixMillis};
use alloc::borrow::ToOwned;
use alloc::string::ToString;
use core::fmt;
use uuid::Uuid;

const MILLIS_PER_DAY: u64 = 24 * 60 * 60 * 1000;
/// How long a data key or version has been disabled at least before it is destroyed, in days.
pub const DISABLED_DAYS_MIN: u32 = 7;
/// Longest rotation period, in days.
pub const ROTATION_DAYS_MAX: u32 = 3_650;

/// A registered data key's identity: a UUIDv7, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKeyId(pub [u8; 16]);

impl fmt::Display for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKeyId({self})")
    }
}

/// States of a registered data key and of each of its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKeyState {
    /// It is given out.
    Enabled,
    /// Nobody gets it until it is enabled again.
    Disabled,
    /// Its bytes are gone; what is said of it stays.
    Destroyed,
}

impl DataKeyState {
    /// Every state.
    pub const ALL: [DataKeyState; 3] =
        [DataKeyState::Enabled, DataKeyState::Disabled, DataKeyState::Destroyed];

    /// The name in rows, records and messages.
    pub const fn name(self) -> &'static str {
        match self {
            DataKeyState::Enabled => "ENABLED",
            DataKeyState::Disabled => "DISABLED",
            DataKeyState::Destroyed => "DESTROYED",
        }
    }

    /// Reads the name that [`DataKeyState::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        DataKeyState::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for DataKeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What can be asked of a registered data key or version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKeyCommand {
    /// Give it to nobody, at once and reversibly.
    Disable,
    /// Give it out again.
    Enable,
    /// Erase its bytes for good.
    Destroy,
}

impl DataKeyCommand {
    /// Every command.
    pub const ALL: [DataKeyCommand; 3] =
        [DataKeyCommand::Disable, DataKeyCommand::Enable, DataKeyCommand::Destroy];
}

impl fmt::Display for DataKeyCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DataKeyCommand::Disable => "disable",
            DataKeyCommand::Enable => "enable",
            DataKeyCommand::Destroy => "destroy",
        })
    }
}

/// A state, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataKeyStanding {
    /// The state.
    pub state: DataKeyState,
    /// When it came to be.
    pub since: UnixMillis,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataKeyTransitionError {
    /// Not from this state.
    #[error("it is {from}; {command} is not allowed from there")]
    NotAllowed {
        /// The state.
        from: DataKeyState,
        /// What was asked.
        command: DataKeyCommand,
    },
    /// It has not been disabled for long enough.
    #[error("it is destroyed at the earliest 7 days after it was disabled, in {hours} hours")]
    TooEarly {
        /// Hours until the window is over, the last one counted as a whole.
        hours: u64,
    },
}

impl DataKeyStanding {
    /// The standing after a command.
    ///
    /// # Errors
    /// [`DataKeyTransitionError`]; nothing changes then.
    pub fn apply(self, command: DataKeyCommand, now: UnixMillis) -> Result<Self, DataKeyTransitionError> {
        use DataKeyCommand as C;
        use DataKeyState as S;
        let to = |state| Ok(Self { state, since: now });
        match (self.state, command) {
            (S::Enabled, C::Disable) => to(S::Disabled),
            (S::Disabled, C::Enable) => to(S::Enabled),
            (S::Disabled, C::Destroy) => {
                let end = self.since.0.saturating_add(u64::from(DISABLED_DAYS_MIN) * MILLIS_PER_DAY);
                match end.saturating_sub(now.0) {
                    0 => to(S::Destroyed),
                    left => Err(DataKeyTransitionError::TooEarly { hours: left.div_ceil(60 * 60 * 1000) }),
                }
            }
            (from, command) => Err(DataKeyTransitionError::NotAllowed { from, command }),
        }
    }
}

/// How old the current version of a data key becomes, in days; 0 for any age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RotationPeriod(u32);

impl RotationPeriod {
    /// `None` above [`ROTATION_DAYS_MAX`].
    pub const fn from_days(days: u32) -> Option<Self> {
        if days > ROTATION_DAYS_MAX { None } else { Some(Self(days)) }
    }

    /// The days.
    pub const fn days(self) -> u32 {
        self.0
    }

    /// Whether a version that was made at a time is to be followed by the next one.
    pub fn is_over(self, created: UnixMillis, now: UnixMillis) -> bool {
        self.0 != 0 && now.0 >= created.0.saturating_add(u64::from(self.0) * MILLIS_PER_DAY)
    }
}

/// What the ciphertext of a version is bound to, beside tenant and KEK: it opens for no other data key or version.
///
/// # Panics
/// Never: two short pairs are a context.
pub fn stored_context(data_key: DataKeyId, version: KeyVersion) -> EncryptionContext {
    EncryptionContext::new([
        ("data-key".to_owned(), data_key.to_string()),
        ("version".to_owned(), version.to_string()),
    ])
    .expect("two different keys and a few bytes are within every limit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Binding, Purpose, open, open_wrapped, seal_wrapped};
    use crate::id::{KeyId, TenantName};
    use crate::suite::AeadAlgorithm;
    use alloc::format;
    use alloc::string::String;

    const DISABLED: UnixMillis = UnixMillis(1_795_399_200_000);
    const WINDOW: u64 = 7 * MILLIS_PER_DAY;

    fn standing(state: DataKeyState) -> DataKeyStanding {
        DataKeyStanding { state, since: DISABLED }
    }

    /// The document is the specification of the table.
    #[test]
    fn every_command_does_in_every_state_what_the_document_of_data_keys_says() {
        let document = include_str!("../../docs/data-keys.md");
        let mut table = String::new();
        for state in DataKeyState::ALL {
            table.push_str(&format!("| `{state}` |"));
            for command in DataKeyCommand::ALL {
                match standing(state).apply(command, UnixMillis(DISABLED.0 + WINDOW)) {
                    Ok(after) => table.push_str(&format!(" `{}` |", after.state)),
                    Err(_) => table.push_str(" - |"),
                }
            }
            table.push('\n');
        }
        assert!(document.contains(&table), "docs/data-keys.md must hold:\n{table}");
    }

    #[test]
    fn nothing_is_destroyed_before_it_was_disabled_for_seven_days() {
        let disabled = standing(DataKeyState::Disabled);
        let destroy = |millis| disabled.apply(DataKeyCommand::Destroy, UnixMillis(DISABLED.0 + millis));
        assert_eq!(destroy(0), Err(DataKeyTransitionError::TooEarly { hours: 168 }));
        assert_eq!(destroy(WINDOW - 1), Err(DataKeyTransitionError::TooEarly { hours: 1 }));
        let end = UnixMillis(DISABLED.0 + WINDOW);
        assert_eq!(destroy(WINDOW), Ok(DataKeyStanding { state: DataKeyState::Destroyed, since: end }));
        // A clock that was set back before the disable shortens nothing.
        let before = disabled.apply(DataKeyCommand::Destroy, UnixMillis(0));
        assert!(matches!(before, Err(DataKeyTransitionError::TooEarly { .. })), "{before:?}");
        // An enable in between begins it anew.
        let again = disabled
            .apply(DataKeyCommand::Enable, end)
            .and_then(|enabled| enabled.apply(DataKeyCommand::Disable, end))
            .and_then(|disabled| disabled.apply(DataKeyCommand::Destroy, UnixMillis(end.0 + WINDOW - 1)));
        assert!(again.is_err(), "{again:?}");
    }

    #[test]
    fn a_rotation_is_due_from_the_end_of_the_period_on_and_never_without_one() {
        let period = RotationPeriod::from_days(30).expect("short enough");
        let after = |millis| UnixMillis(DISABLED.0 + millis);
        assert!(!period.is_over(DISABLED, after(30 * MILLIS_PER_DAY - 1)));
        assert!(period.is_over(DISABLED, after(30 * MILLIS_PER_DAY)));
        assert!(!RotationPeriod::default().is_over(DISABLED, UnixMillis(u64::MAX)));
        assert!(RotationPeriod::from_days(ROTATION_DAYS_MAX).is_some());
        assert!(RotationPeriod::from_days(ROTATION_DAYS_MAX + 1).is_none());
    }

    #[test]
    fn a_stored_data_key_opens_for_no_other_data_key_version_or_tenant() {
        let (id, other_id) = (DataKeyId([1; 16]), DataKeyId([2; 16]));
        let second = KeyVersion::new(2).expect("from 1");
        let tenant = |name| TenantName::parse(name).expect("valid");
        let (own, other) = (tenant("default"), tenant("other"));
        let kek = (KeyId([7; 16]), KeyVersion::FIRST);
        let material = [9; 16];
        let context = stored_context(id, KeyVersion::FIRST);
        let sealed = seal_wrapped(
            &material,
            Purpose::RegisteredDataKey,
            AeadAlgorithm::Sm4Gcm,
            kek,
            Binding { tenant: &own, context: &context },
            b"the data key",
            &mut crate::quorum::testing::TestRng::new(3),
        );
        let ciphertext = open(&sealed).expect("our own");
        assert_eq!(ciphertext.header.purpose, Purpose::RegisteredDataKey);
        let opens = |tenant, data_key, version| {
            let context = stored_context(data_key, version);
            open_wrapped(&material, &ciphertext, Binding { tenant, context: &context }).is_ok()
        };
        assert!(opens(&own, id, KeyVersion::FIRST));
        assert!(!opens(&own, id, second));
        assert!(!opens(&own, other_id, KeyVersion::FIRST));
        assert!(!opens(&other, id, KeyVersion::FIRST));
    }
}
