//! Which specifications new keys may have: an allow-list of the deployment (docs/key-specs.md).

use kms_core::spec::KeySpec;
use serde::Deserialize;

/// A list of key specifications: not empty, nothing twice. By default all that this build knows.
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
        Self(KeySpec::ALL.to_vec())
    }
}

/// Why a list of key specifications is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecsError {
    /// No specification has this name.
    #[error("{name:?} is no key specification; write some of {}", KeySpec::ALL.map(KeySpec::name).join(", "))]
    Unknown {
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
                Some(spec) if specs.contains(&spec) => return Err(SpecsError::Repeated { name }),
                Some(spec) => specs.push(spec),
            }
        }
        if specs.is_empty() { Err(SpecsError::Empty) } else { Ok(Self(specs)) }
    }
}
