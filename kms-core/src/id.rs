//! Names and numbers that identify things: parsed once at the edge, correct ever after.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use uuid::Uuid;

/// Why a text is not a valid name of its kind. Says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than allowed.
    #[error("is {len} bytes long; at most {len_max} are allowed")]
    TooLong {
        /// Length of the text in bytes.
        len: usize,
        /// Longest allowed length in bytes.
        len_max: usize,
    },
    /// The text holds a character that is not allowed.
    #[error(
        "may hold only lower-case letters, digits, '.', '_' and '-', and must start with a letter or digit"
    )]
    Character,
    /// The text has the form of a key id, so a reference to it would be ambiguous.
    #[error("must not have the form of a key id")]
    LooksLikeId,
    /// Not of the form that this kind of identifier has.
    #[error("is not of the form {form}")]
    Form {
        /// The form that is expected.
        form: &'static str,
    },
}

/// Longest name of a key, tenant, custodian, node or principal, in bytes.
pub const NAME_LEN_MAX: usize = 64;

fn parse_name(text: &str) -> Result<&str, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_LEN_MAX {
        return Err(NameError::TooLong { len: text.len(), len_max: NAME_LEN_MAX });
    }
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let starts_well = text.as_bytes().first().is_some_and(|byte| is_word(*byte));
    if !starts_well || !text.bytes().all(|byte| is_word(byte) || b"._-".contains(&byte)) {
        return Err(NameError::Character);
    }
    Ok(text)
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks length (1 to 64 bytes) and characters.
            ///
            /// # Errors
            /// [`NameError`] says which rule the text breaks.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                parse_name(text).map(|name| Self(name.to_owned()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// A tenant: the part of the service that one organisation sees. In every primary key and every AAD.
    TenantName
);
name_type!(
    /// The name of one person or program within a tenant and role.
    PrincipalName
);
name_type!(
    /// A custodian's name, unique in the bundle.
    CustodianName
);
name_type!(
    /// A node's name, unique in the bundle.
    NodeName
);
name_type!(
    /// The name of a key's label.
    LabelName
);
name_type!(
    /// The name of a deployment; all nodes that share one database and one bundle.
    ClusterName
);

/// A key's name, unique in its tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// Checks length (1 to 64 bytes) and characters, and that it cannot be mistaken for a key id.
    ///
    /// # Errors
    /// [`NameError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = parse_name(text)?;
        if Uuid::try_parse(name).is_ok() {
            return Err(NameError::LooksLikeId);
        }
        Ok(Self(name.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key's identity: a UUIDv7, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

impl KeyId {
    /// Reads the hyphenated form.
    ///
    /// # Errors
    /// [`NameError::Form`] for anything else.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        const FORM: NameError = NameError::Form { form: "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" };
        if text.len() != 36 {
            return Err(FORM);
        }
        Uuid::try_parse(text).map(|uuid| Self(uuid.into_bytes())).map_err(|_| FORM)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The number of a key version, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyVersion(u32);

impl KeyVersion {
    /// The version that a new key has.
    pub const FIRST: Self = Self(1);

    /// `None` for 0: versions start at 1.
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The version after this one; `None` after 2^32 - 1 rotations.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a caller names a key: `name`, `id`, `name@version` or `id@version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// Which key.
    pub key: KeySelector,
    /// Which version; `None` means the current one.
    pub version: Option<KeyVersion>,
}

/// The part of a [`KeyRef`] before `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySelector {
    /// By name in the caller's tenant.
    Name(KeyName),
    /// By id.
    Id(KeyId),
}

impl KeyRef {
    /// Parses `name`, `id`, `name@version` or `id@version`.
    ///
    /// # Errors
    /// [`NameError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        const VERSION: NameError = NameError::Form { form: "NAME@VERSION with a version from 1" };
        let (key, version) = match text.split_once('@') {
            None => (text, None),
            Some((key, version)) => {
                let number = version.parse().ok().and_then(KeyVersion::new).ok_or(VERSION)?;
                // One spelling for each version: the library would take `+7` and `007`, too.
                if number.to_string() != version {
                    return Err(VERSION);
                }
                (key, Some(number))
            }
        };
        let key = match KeyId::parse(key) {
            Ok(id) => KeySelector::Id(id),
            Err(_) => KeySelector::Name(KeyName::parse(key)?),
        };
        Ok(Self { key, version })
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            KeySelector::Name(name) => name.fmt(f)?,
            KeySelector::Id(id) => id.fmt(f)?,
        }
        self.version.map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}

/// `CKA_ID` of an object in the HSM: 16 random bytes, the only way our code finds an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HsmObjectId(pub [u8; 16]);

impl fmt::Display for HsmObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base16ct::lower::encode_string(&self.0))
    }
}

impl fmt::Debug for HsmObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HsmObjectId({self})")
    }
}

/// What a principal may be: the rows of the role table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// An application: uses keys.
    Operator,
    /// Creates and rotates keys, may seal, may propose ceremonies.
    Administrator,
    /// Reads the audit log and the keys' descriptions.
    Auditor,
    /// Holds a share and takes part in ceremonies; may seal.
    Custodian,
}

impl Role {
    /// All roles, in the order of the role table.
    pub const ALL: [Role; 4] = [Role::Operator, Role::Administrator, Role::Auditor, Role::Custodian];

    /// The name used in certificates and plans.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Operator => "operator",
            Role::Administrator => "administrator",
            Role::Auditor => "auditor",
            Role::Custodian => "custodian",
        }
    }

    /// Reads the name that [`Role::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// Who calls: `kms://tenant/role/name`, the URI in the client certificate's subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    /// The tenant whose keys the caller sees.
    pub tenant: TenantName,
    /// The caller's role.
    pub role: Role,
    /// The caller's name within tenant and role.
    pub name: PrincipalName,
}

impl Principal {
    /// Parses `kms://tenant/role/name`.
    ///
    /// # Errors
    /// [`NameError`] says which rule the text breaks.
    pub fn parse(uri: &str) -> Result<Self, NameError> {
        const FORM: NameError = NameError::Form {
            form: "kms://TENANT/ROLE/NAME with role operator, administrator, auditor or custodian",
        };
        let rest = uri.strip_prefix("kms://").ok_or(FORM)?;
        let mut parts = rest.split('/');
        let (Some(tenant), Some(role), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(FORM);
        };
        Ok(Self {
            tenant: TenantName::parse(tenant)?,
            role: Role::from_name(role).ok_or(FORM)?,
            name: PrincipalName::parse(name)?,
        })
    }

    /// The URI form.
    pub fn to_uri(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("kms://{}/{}/{}", self.tenant, self.role.name(), self.name))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

/// The revision of the catalogue of keys: grows by one with every committed change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CatalogueRevision(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_a_long_and_a_foreign_name_are_refused_with_the_reason() {
        assert_eq!(KeyName::parse(""), Err(NameError::Empty));
        assert_eq!(
            KeyName::parse(&"a".repeat(10_000)),
            Err(NameError::TooLong { len: 10_000, len_max: NAME_LEN_MAX })
        );
        for text in ["Payroll", "pay roll", "-payroll", "gehälter", "a/b", "a@1", "../x", "a\0"] {
            assert_eq!(KeyName::parse(text), Err(NameError::Character), "{text}");
        }
        assert_eq!(KeyName::parse("0190163d-8694-739b-aea5-966c26f8ad90"), Err(NameError::LooksLikeId));
        assert!(KeyName::parse("payroll-2026.eu_1").is_ok());
    }

    #[test]
    fn a_reference_names_a_key_and_perhaps_a_version() {
        let reference = KeyRef::parse("payroll@3").expect("valid");
        assert_eq!(reference.version, KeyVersion::new(3));
        assert_eq!(reference.to_string(), "payroll@3");
        for text in ["payroll@", "payroll@0", "payroll@x", "payroll@1@2", "@1", "payroll@4294967296"] {
            assert!(KeyRef::parse(text).is_err(), "{text}");
        }
        let by_id = KeyRef::parse("0190163d-8694-739b-aea5-966c26f8ad90").expect("valid");
        assert!(matches!(by_id.key, KeySelector::Id(_)));
    }

    /// The parser of numbers takes these; found by the fuzz target `KeyRef`.
    #[test]
    fn a_version_has_one_spelling() {
        for text in ["payroll@+7", "payroll@007", "payroll@+007", "payroll@07"] {
            assert_eq!(
                KeyRef::parse(text),
                Err(NameError::Form { form: "NAME@VERSION with a version from 1" }),
                "{text}"
            );
        }
        assert!(KeyRef::parse("payroll@7").is_ok());
    }

    #[test]
    fn a_principal_is_exactly_tenant_role_and_name() {
        let principal = Principal::parse("kms://default/operator/app").expect("valid");
        assert_eq!(principal.to_uri(), "kms://default/operator/app");
        for uri in [
            "kms://default/superuser/app",
            "kms://default/operator",
            "kms://default/operator/app/x",
            "http://a/b/c",
        ] {
            assert!(Principal::parse(uri).is_err(), "{uri}");
        }
    }
}
