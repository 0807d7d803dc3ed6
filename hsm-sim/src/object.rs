//! One object: its attributes and, apart from them, its secret value.

use std::collections::BTreeMap;
use std::fmt;

use cryptoki_sys as ck;
use zeroize::Zeroizing;

use crate::attribute::{AttributeValue, Change, is_secret, rule_of};
use crate::mechanism::ec;
use crate::mechanism::rsa_key::{PublicHalf, secret_attribute};
use crate::refusal::Refusal;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectClass {
    Data,
    Certificate,
    PublicKey,
    PrivateKey,
    SecretKey,
}

impl ObjectClass {
    pub fn from_code(code: ck::CK_OBJECT_CLASS) -> Option<Self> {
        match code {
            ck::CKO_DATA => Some(Self::Data),
            ck::CKO_CERTIFICATE => Some(Self::Certificate),
            ck::CKO_PUBLIC_KEY => Some(Self::PublicKey),
            ck::CKO_PRIVATE_KEY => Some(Self::PrivateKey),
            ck::CKO_SECRET_KEY => Some(Self::SecretKey),
            _ => None,
        }
    }

    pub fn code(self) -> ck::CK_OBJECT_CLASS {
        match self {
            Self::PublicKey => ck::CKO_PUBLIC_KEY,
            Self::PrivateKey => ck::CKO_PRIVATE_KEY,
            Self::SecretKey => ck::CKO_SECRET_KEY,
            Self::Data => ck::CKO_DATA,
            Self::Certificate => ck::CKO_CERTIFICATE,
        }
    }

    pub fn is_key(self) -> bool {
        !matches!(self, Self::Data | Self::Certificate)
    }
}

/// What a secret or private key is made of: `CKA_VALUE`, or the `RSAPrivateKey`. Wiped when dropped.
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A second copy, for `C_CopyObject`. Not `Clone`, so that no copy is made in passing.
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretValue(redacted)")
    }
}

pub type AttributeMap = BTreeMap<ck::CK_ATTRIBUTE_TYPE, AttributeValue>;

/// A template whose attributes are all known, well formed and named once.
#[derive(Debug)]
pub struct Template {
    pub attributes: AttributeMap,
    pub secrets: BTreeMap<ck::CK_ATTRIBUTE_TYPE, SecretValue>,
}

impl Template {
    pub fn parse<'a>(
        raw: impl IntoIterator<Item = (ck::CK_ATTRIBUTE_TYPE, &'a [u8])>,
    ) -> Result<Self, Refusal> {
        let mut template = Self { attributes: AttributeMap::new(), secrets: BTreeMap::new() };
        for (attribute, bytes) in raw {
            let rule = rule_of(attribute)?;
            let repeated = if is_secret(attribute) {
                let value = SecretValue::new(Zeroizing::new(bytes.to_vec()));
                template.secrets.insert(attribute, value).is_some()
            } else {
                let value = AttributeValue::parse(rule.kind, bytes)?;
                template.attributes.insert(attribute, value).is_some()
            };
            if repeated {
                return Err(Refusal::TemplateInconsistent);
            }
        }
        Ok(template)
    }

    /// Every attribute that the template names.
    pub fn names(&self) -> impl Iterator<Item = ck::CK_ATTRIBUTE_TYPE> {
        self.attributes.keys().chain(self.secrets.keys()).copied()
    }

    pub fn number(&self, attribute: ck::CK_ATTRIBUTE_TYPE) -> Option<u64> {
        match self.attributes.get(&attribute) {
            Some(AttributeValue::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn bytes(&self, attribute: ck::CK_ATTRIBUTE_TYPE) -> Option<&[u8]> {
        match self.attributes.get(&attribute) {
            Some(AttributeValue::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }
}

/// The answer to a question for one attribute.
pub enum Reading {
    Value(Zeroizing<Vec<u8>>),
    Sensitive,
    Absent,
}

#[derive(Debug)]
pub struct Object {
    pub class: ObjectClass,
    pub attributes: AttributeMap,
    pub value: Option<SecretValue>,
}

impl Object {
    /// A flag that the object does not have counts as false.
    pub fn flag(&self, attribute: ck::CK_ATTRIBUTE_TYPE) -> bool {
        self.attributes.get(&attribute) == Some(&AttributeValue::Flag(true))
    }

    pub fn number(&self, attribute: ck::CK_ATTRIBUTE_TYPE) -> Option<u64> {
        match self.attributes.get(&attribute) {
            Some(AttributeValue::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn bytes(&self, attribute: ck::CK_ATTRIBUTE_TYPE) -> Option<&[u8]> {
        match self.attributes.get(&attribute) {
            Some(AttributeValue::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    pub fn is_private(&self) -> bool {
        self.flag(ck::CKA_PRIVATE)
    }

    pub fn is_token_object(&self) -> bool {
        self.flag(ck::CKA_TOKEN)
    }

    /// The key bytes, for use inside the token.
    pub fn secret(&self) -> Result<&[u8], Refusal> {
        self.value.as_ref().map(SecretValue::bytes).ok_or(Refusal::KeyTypeInconsistent)
    }

    /// The public half of an RSA key, which the private key has as well.
    pub fn rsa_public_half(&self) -> Result<PublicHalf, Refusal> {
        match (self.bytes(ck::CKA_MODULUS), self.bytes(ck::CKA_PUBLIC_EXPONENT)) {
            (Some(modulus), Some(exponent)) => Ok(PublicHalf::new(modulus, exponent)),
            _ => Err(Refusal::KeyTypeInconsistent),
        }
    }

    /// The point of a public key on a curve.
    pub fn point(&self) -> Result<&[u8], Refusal> {
        ec::unwrap_point(self.bytes(ck::CKA_EC_POINT).ok_or(Refusal::KeyTypeInconsistent)?)
    }

    /// Whether the key's owner has limited it to mechanisms, and this is none of them. An empty list
    /// allows nothing.
    pub fn forbids(&self, mechanism: ck::CK_MECHANISM_TYPE) -> bool {
        let Some(allowed) = self.bytes(ck::CKA_ALLOWED_MECHANISMS) else { return false };
        !allowed.chunks(size_of_val(&mechanism)).any(|one| one == mechanism.to_ne_bytes())
    }

    fn is_rsa(&self) -> bool {
        self.attributes.contains_key(&ck::CKA_MODULUS)
    }

    fn value_is_readable(&self) -> bool {
        !self.class.is_key() || (!self.flag(ck::CKA_SENSITIVE) && self.flag(ck::CKA_EXTRACTABLE))
    }

    /// What a client may know about one attribute.
    pub fn read(&self, attribute: ck::CK_ATTRIBUTE_TYPE) -> Reading {
        if !is_secret(attribute) {
            return match self.attributes.get(&attribute) {
                Some(value) => Reading::Value(Zeroizing::new(value.to_bytes())),
                None => Reading::Absent,
            };
        }
        let is_part_of_value = (attribute == ck::CKA_VALUE) != self.is_rsa();
        match &self.value {
            Some(value) if is_part_of_value => {
                if !self.value_is_readable() {
                    Reading::Sensitive
                } else if self.is_rsa() {
                    secret_attribute(value.bytes(), attribute).map_or(Reading::Absent, Reading::Value)
                } else {
                    Reading::Value(value.0.clone())
                }
            }
            _ => Reading::Absent,
        }
    }

    /// Whether the object has every one of these attributes with exactly these bytes. A value that
    /// may not be read matches nothing: a search must not be a way to guess it.
    pub fn matches(&self, wanted: &[(ck::CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> bool {
        wanted.iter().all(|(attribute, bytes)| match self.read(*attribute) {
            Reading::Value(value) => *value == *bytes,
            Reading::Sensitive | Reading::Absent => false,
        })
    }

    /// Rules that hold for every object, however it came to be.
    ///
    /// A value that may not be read is kept on disk under the PINs, so the object must be private:
    /// a public object has to work before anybody logged in, with nothing to open the value.
    pub fn require_consistent(&self) -> Result<(), Refusal> {
        let hides_value = self.value.is_some() && !self.value_is_readable();
        if self.is_token_object() && hides_value && !self.is_private() {
            return Err(Refusal::TemplateInconsistent);
        }
        Ok(())
    }

    /// The object after `C_SetAttributeValue`, or after the changes that a copy is made with.
    pub fn changed(&self, changes: Template, by_security_officer: bool) -> Result<Self, Refusal> {
        if !self.flag(ck::CKA_MODIFIABLE) && changes.names().next().is_some() {
            return Err(Refusal::ActionProhibited);
        }
        let mut changes = changes;
        // The content of a data object is the one value that may be written anew.
        let content = match self.class {
            ObjectClass::Data => changes.secrets.remove(&ck::CKA_VALUE),
            _ => None,
        };
        if !changes.secrets.is_empty() {
            return Err(Refusal::AttributeReadOnly);
        }
        let mut attributes = self.attributes.clone();
        for (attribute, new) in changes.attributes {
            let rule = rule_of(attribute)?;
            if !rule.classes.contains(&self.class) {
                return Err(Refusal::TemplateInconsistent);
            }
            let is_allowed = match (rule.change, &new) {
                (Change::Freely, _) => true,
                (Change::OnlyToTrue, AttributeValue::Flag(new)) => *new || !self.flag(attribute),
                (Change::OnlyToFalse, AttributeValue::Flag(new)) => !*new || self.flag(attribute),
                (Change::TrustBySecurityOfficer, AttributeValue::Flag(new)) => !*new || by_security_officer,
                _ => false,
            };
            if !is_allowed {
                return Err(Refusal::AttributeReadOnly);
            }
            attributes.insert(attribute, new);
        }
        let value = content.or_else(|| self.value.as_ref().map(SecretValue::duplicate));
        let object = Self { class: self.class, attributes, value };
        object.require_consistent()?;
        Ok(object)
    }
}
