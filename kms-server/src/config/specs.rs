//! Which specifications new keys may have: an allow-list of the deployment (docs/key-specs.md).

use kms_core::spec::KeySpec;
use serde::Deserialize;

/// A list of key specifications: not empty, nothing twice, nothing legacy. By default all others that this build knows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct AllowedSpecs(Vec<KeySpec>);

impl AllowedSpecs {
    /// Whether the specification is in the list.
    pub fn contains(&self, spec: KeySpec) -> bool {
        self.0.contains(&spec)
    }

    /// The list.
    pub fn iter(&self) -> impl Iterator<Item = KeySpec> {
        self.0.iter().copied()
    }
}

impl Default for AllowedSpecs {
    fn default() -> Self {
        Self(KeySpec::ALL.into_iter().filter(|spec| !spec.is_legacy()).collect())
    }
}

/// A list of legacy key specifications, nothing twice. By default empty: none is brought or used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct LegacySpecs(Vec<KeySpec>);

impl LegacySpecs {
    /// Whether the specification is in the list.
    pub fn contains(&self, spec: KeySpec) -> bool {
        self.0.contains(&spec)
    }
}

fn names(is_legacy: bool) -> String {
    let wanted = KeySpec::ALL.into_iter().filter(|spec| spec.is_legacy() == is_legacy);
    wanted.map(KeySpec::name).collect::<Vec<_>>().join(", ")
}

/// Why a list of key specifications is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecsError {
    /// No specification has this name.
    #[error("{name:?} is no key specification; write some of {}", names(false))]
    Unknown {
        /// What it says.
        name: String,
    },
    /// One of the other list.
    #[error("{name:?} is legacy and not for new keys; keys.legacy = [{name:?}] lets old data be opened")]
    Legacy {
        /// Its name.
        name: String,
    },
    /// In the list of legacy ones, and none of them.
    #[error("{name:?} is no legacy specification; {} is the only one", names(true))]
    NotLegacy {
        /// What it says.
        name: String,
    },
    /// The same twice.
    #[error("{name:?} is in the list twice")]
    Repeated {
        /// Its name.
        name: String,
    },
    /// Nothing could be made.
    #[error("the list is empty, so no key could be made; leave keys.specs out to allow all")]
    Empty,
}

impl TryFrom<Vec<String>> for AllowedSpecs {
    type Error = SpecsError;

    fn try_from(names: Vec<String>) -> Result<Self, SpecsError> {
        let mut specs = Vec::new();
        for name in names {
            match KeySpec::from_name(&name) {
                None => return Err(SpecsError::Unknown { name }),
                Some(spec) if spec.is_legacy() => return Err(SpecsError::Legacy { name }),
                Some(spec) if specs.contains(&spec) => return Err(SpecsError::Repeated { name }),
                Some(spec) => specs.push(spec),
            }
        }
        if specs.is_empty() { Err(SpecsError::Empty) } else { Ok(Self(specs)) }
    }
}

impl TryFrom<Vec<String>> for LegacySpecs {
    type Error = SpecsError;

    fn try_from(names: Vec<String>) -> Result<Self, SpecsError> {
        let mut specs = Vec::new();
        for name in names {
            match KeySpec::from_name(&name).filter(|spec| spec.is_legacy()) {
                None => return Err(SpecsError::NotLegacy { name }),
                Some(spec) if specs.contains(&spec) => return Err(SpecsError::Repeated { name }),
                Some(spec) => specs.push(spec),
            }
        }
        Ok(Self(specs))
    }
}
