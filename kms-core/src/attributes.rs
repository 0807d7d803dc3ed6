//! What people say about a key, and what keeps it from being destroyed (docs/keys.md). Nothing here changes what a key computes.

use crate::codec::{Format, VersionOne};
use crate::id::{LabelName, UnixMillis};
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use minicbor::{Decode, Encode};

/// Most labels of one key.
pub const LABEL_COUNT_MAX: usize = 32;
/// Longest owner and longest value of a label, in bytes.
pub const LINE_LEN_MAX: usize = 128;
/// Longest description, in bytes.
pub const DESCRIPTION_LEN_MAX: usize = 512;

/// Why a text cannot stand beside a key. Says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Longer than allowed.
    #[error("is {len} bytes long; at most {len_max} are allowed")]
    TooLong {
        /// Length of the text in bytes.
        len: usize,
        /// Longest allowed length in bytes.
        len_max: usize,
    },
    /// It would break a line, or a terminal.
    #[error("may not hold control characters, line breaks among them")]
    Control,
}

/// A text of one line and at most `LEN_MAX` bytes, without control characters; it may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line<const LEN_MAX: usize>(String);

impl<const LEN_MAX: usize> Line<LEN_MAX> {
    /// Checks length and characters.
    ///
    /// # Errors
    /// [`TextError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if text.len() > LEN_MAX {
            return Err(TextError::TooLong { len: text.len(), len_max: LEN_MAX });
        }
        if text.chars().any(char::is_control) {
            return Err(TextError::Control);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Owner of a key, or value of a label.
pub type ShortText = Line<LINE_LEN_MAX>;
/// What a key is for, in words.
pub type Description = Line<DESCRIPTION_LEN_MAX>;

/// How sensitive the data under a key is: 1 is the most, 3 the least (GB/T 39786 asks for such a label, REQUIREMENTS S0-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sensitivity(u8);

impl Sensitivity {
    /// What a key has of which nobody has said anything.
    pub const HIGHEST: Self = Self(1);

    /// `None` unless it is 1, 2 or 3.
    pub const fn new(level: u8) -> Option<Self> {
        if matches!(level, 1..=3) { Some(Self(level)) } else { None }
    }

    /// The level.
    pub const fn level(self) -> u8 {
        self.0
    }
}

/// What can be said of a key beside what it is.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
#[cbor(map)]
pub struct KeyAttributes {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Of the data under the key. It only becomes stricter.
    #[n(1)]
    pub sensitivity: Sensitivity,
    /// Who answers for the key: a person or a team. Empty when nobody was named.
    #[n(2)]
    pub owner: ShortText,
    /// What it is for.
    #[n(3)]
    pub description: Description,
    /// What others find it by.
    #[n(4)]
    pub labels: BTreeMap<LabelName, ShortText>,
    /// Not destroyed before this time, which only moves to a later one.
    #[n(5)]
    pub retain_until: Option<UnixMillis>,
    /// Not destroyed at all until somebody ends the protection.
    #[n(6)]
    pub is_protected: bool,
}

impl Default for KeyAttributes {
    fn default() -> Self {
        Self {
            version: VersionOne,
            sensitivity: Sensitivity::HIGHEST,
            owner: ShortText::default(),
            description: Description::default(),
            labels: BTreeMap::new(),
            retain_until: None,
            is_protected: false,
        }
    }
}

impl Format for KeyAttributes {
    const WHAT: &'static str = "key's attributes";
}

/// What an update changes; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeChanges {
    /// A stricter sensitivity.
    pub sensitivity: Option<Sensitivity>,
    /// Another owner.
    pub owner: Option<ShortText>,
    /// Another description.
    pub description: Option<Description>,
    /// Labels that are new or get another value; `None` removes one.
    pub labels: BTreeMap<LabelName, Option<ShortText>>,
    /// A later end of the retention.
    pub retain_until: Option<UnixMillis>,
    /// Whether the key is protected from destruction.
    pub is_protected: Option<bool>,
}

/// Why attributes cannot be changed in this way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// Nothing is to be changed.
    #[error("changes nothing; name at least one attribute with another value than it has")]
    Nothing,
    /// Less sensitive than before.
    #[error("is {}, and the key has {}: it only becomes stricter, a lower number", to.level(), from.level())]
    Relaxed {
        /// What the key has.
        from: Sensitivity,
        /// What was asked.
        to: Sensitivity,
    },
    /// An earlier end of the retention.
    #[error("must be later than the retention that the key has; it only moves to a later time")]
    Shortened,
    /// More than [`LABEL_COUNT_MAX`].
    #[error("would be {count}; a key has at most {LABEL_COUNT_MAX}")]
    TooManyLabels {
        /// How many there would be.
        count: usize,
    },
    /// A label that is not there was to be removed.
    #[error("the key has no label {name}")]
    NoLabel {
        /// Its name.
        name: LabelName,
    },
}

impl AttributeError {
    /// The field of an update that it is about.
    pub const fn field(&self) -> &'static str {
        match self {
            AttributeError::Nothing => "key",
            AttributeError::Relaxed { .. } => "sensitivity",
            AttributeError::Shortened => "retain_until",
            AttributeError::TooManyLabels { .. } => "set_labels",
            AttributeError::NoLabel { .. } => "remove_labels",
        }
    }
}

/// What keeps a key from being destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Somebody has to end the protection first.
    Protected,
    /// Its retention lasts until then.
    Until(UnixMillis),
}

impl KeyAttributes {
    /// The attributes after a change.
    ///
    /// # Errors
    /// [`AttributeError`] says which rule is broken; nothing is changed then.
    pub fn changed(&self, changes: &AttributeChanges) -> Result<Self, AttributeError> {
        let mut next = self.clone();
        if let Some(to) = changes.sensitivity {
            if to > self.sensitivity {
                return Err(AttributeError::Relaxed { from: self.sensitivity, to });
            }
            next.sensitivity = to;
        }
        if let Some(owner) = &changes.owner {
            next.owner = owner.clone();
        }
        if let Some(description) = &changes.description {
            next.description = description.clone();
        }
        for (name, value) in &changes.labels {
            match value {
                Some(value) => drop(next.labels.insert(name.clone(), value.clone())),
                None if next.labels.remove(name).is_some() => {}
                None => return Err(AttributeError::NoLabel { name: name.clone() }),
            }
        }
        if next.labels.len() > LABEL_COUNT_MAX {
            return Err(AttributeError::TooManyLabels { count: next.labels.len() });
        }
        if let Some(until) = changes.retain_until {
            if self.retain_until.is_some_and(|before| until < before) {
                return Err(AttributeError::Shortened);
            }
            next.retain_until = Some(until);
        }
        next.is_protected = changes.is_protected.unwrap_or(self.is_protected);
        if next == *self { Err(AttributeError::Nothing) } else { Ok(next) }
    }

    /// What keeps the key from being destroyed at a time, if anything does.
    pub fn retention_at(&self, time: UnixMillis) -> Option<Retention> {
        match self.retain_until {
            _ if self.is_protected => Some(Retention::Protected),
            Some(until) if time < until => Some(Retention::Until(until)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use alloc::format;

    fn label(name: &str) -> LabelName {
        LabelName::parse(name).expect("valid")
    }

    fn short(text: &str) -> ShortText {
        ShortText::parse(text).expect("valid")
    }

    #[test]
    fn a_long_text_and_one_that_breaks_a_terminal_are_refused() {
        assert_eq!(ShortText::parse(&"x".repeat(129)), Err(TextError::TooLong { len: 129, len_max: 128 }));
        assert!(ShortText::parse(&"x".repeat(128)).is_ok());
        for text in ["a\nb", "\u{1b}[2J", "a\0", "\u{85}"] {
            assert_eq!(Description::parse(text), Err(TextError::Control), "{text:?}");
        }
        assert!(Description::parse("工资数据 · payroll").is_ok());
    }

    #[test]
    fn a_sensitivity_is_one_two_or_three_and_only_becomes_stricter() {
        assert_eq!((Sensitivity::new(0), Sensitivity::new(4)), (None, None));
        let level = |level| Sensitivity::new(level).expect("1 to 3");
        let two = KeyAttributes { sensitivity: level(2), ..KeyAttributes::default() };
        let to = |to| two.changed(&AttributeChanges { sensitivity: Some(to), ..AttributeChanges::default() });
        assert_eq!(to(level(3)), Err(AttributeError::Relaxed { from: level(2), to: level(3) }));
        assert_eq!(to(level(2)), Err(AttributeError::Nothing));
        assert_eq!(to(level(1)).expect("stricter").sensitivity, level(1));
    }

    #[test]
    fn a_retention_only_grows_and_keeps_the_key_until_its_end() {
        let until = |time| AttributeChanges { retain_until: Some(UnixMillis(time)), ..Default::default() };
        let retained = KeyAttributes::default().changed(&until(10)).expect("a first one");
        assert_eq!(retained.changed(&until(9)), Err(AttributeError::Shortened));
        assert_eq!(retained.changed(&until(11)).expect("later").retain_until, Some(UnixMillis(11)));
        assert_eq!(retained.retention_at(UnixMillis(9)), Some(Retention::Until(UnixMillis(10))));
        assert_eq!(retained.retention_at(UnixMillis(10)), None);
        let protect =
            |is_protected| AttributeChanges { is_protected: Some(is_protected), ..Default::default() };
        let protected = retained.changed(&protect(true)).expect("protected");
        assert_eq!(protected.retention_at(UnixMillis(100)), Some(Retention::Protected));
        let free = protected.changed(&protect(false)).expect("free again");
        assert_eq!(
            free.retention_at(UnixMillis(9)),
            Some(Retention::Until(UnixMillis(10))),
            "still retained"
        );
    }

    #[test]
    fn labels_are_set_replaced_and_removed_up_to_a_number() {
        let set = |changes: &[(&str, Option<&str>)]| AttributeChanges {
            labels: changes.iter().map(|(name, value)| (label(name), value.map(short))).collect(),
            ..AttributeChanges::default()
        };
        let one = KeyAttributes::default().changed(&set(&[("team", Some("red"))])).expect("set");
        let two = one.changed(&set(&[("team", Some("blue")), ("env", Some(""))])).expect("replaced");
        assert_eq!(two.labels.get(&label("team")), Some(&short("blue")));
        assert_eq!(
            two.changed(&set(&[("absent", None)])),
            Err(AttributeError::NoLabel { name: label("absent") })
        );
        assert_eq!(
            two.changed(&set(&[("env", None), ("team", None)])).expect("removed").labels,
            BTreeMap::new()
        );
        let many = AttributeChanges {
            labels: (0..=LABEL_COUNT_MAX)
                .map(|number| (label(&format!("l{number}")), Some(short(""))))
                .collect(),
            ..AttributeChanges::default()
        };
        assert_eq!(
            KeyAttributes::default().changed(&many),
            Err(AttributeError::TooManyLabels { count: LABEL_COUNT_MAX + 1 })
        );
    }

    #[test]
    fn attributes_survive_their_bytes() {
        let attributes = KeyAttributes {
            owner: short("payments"),
            labels: [(label("env"), short("prod"))].into(),
            retain_until: Some(UnixMillis(5)),
            is_protected: true,
            ..KeyAttributes::default()
        };
        assert_eq!(codec::open(&codec::to_bytes(&attributes)), Ok(attributes));
    }
}
