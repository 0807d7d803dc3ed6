//! The attributes that objects have: one table, and the values that go with it.

use cryptoki_sys as ck;
use minicbor::{Decode, Encode};

use crate::key_kind::Family;
use crate::mechanism::rsa_key::SECRET_ATTRIBUTES;
use crate::object::ObjectClass;
use crate::refusal::Refusal;

/// The value of every attribute except the secret ones, which live apart: see `is_secret`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum AttributeValue {
    #[n(0)]
    Flag(#[n(0)] bool),
    #[n(1)]
    Number(#[n(0)] u64),
    #[n(2)]
    Bytes(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    Flag,
    Number,
    Bytes,
}

/// Who decides the value when an object is born.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The template.
    Creator,
    /// The module; a template that names it is refused.
    Token,
    /// The template when an object is created from known values, the module when it is generated.
    CreatorUnlessGenerated,
    /// The template when an object is generated, the module when it is created from known values.
    CreatorIfGenerated,
}

/// What `C_SetAttributeValue` may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Never,
    Freely,
    OnlyToTrue,
    OnlyToFalse,
    /// To true by the security officer only, to false by anybody.
    TrustBySecurityOfficer,
}

#[derive(Debug)]
pub struct AttributeRule {
    pub attribute: ck::CK_ATTRIBUTE_TYPE,
    pub kind: ValueKind,
    pub classes: &'static [ObjectClass],
    pub families: &'static [Family],
    pub origin: Origin,
    pub change: Change,
}

use Change::{Freely, Never, OnlyToFalse, OnlyToTrue, TrustBySecurityOfficer};
use Family::{Curve, Rsa, Secret, Storage};
use ObjectClass::{Certificate, Data, PrivateKey, PublicKey, SecretKey};
use Origin::{Creator, CreatorIfGenerated, CreatorUnlessGenerated, Token};
use ValueKind::{Bytes, Flag, Number};

const ANY: &[ObjectClass] = &[Data, Certificate, PublicKey, PrivateKey, SecretKey];
const KEY: &[ObjectClass] = &[PublicKey, PrivateKey, SecretKey];
const KEY_OR_CERTIFICATE: &[ObjectClass] = &[Certificate, PublicKey, PrivateKey, SecretKey];
const OF_PAIR: &[ObjectClass] = &[PublicKey, PrivateKey];
const PAIR_OR_CERTIFICATE: &[ObjectClass] = &[Certificate, PublicKey, PrivateKey];
const TRUSTABLE: &[ObjectClass] = &[Certificate, PublicKey, SecretKey];
const WITH_VALUE: &[ObjectClass] = &[Data, Certificate, PrivateKey, SecretKey];
const PUBLIC_OR_SECRET: &[ObjectClass] = &[PublicKey, SecretKey];
const PRIVATE_OR_SECRET: &[ObjectClass] = &[PrivateKey, SecretKey];

/// A rule for objects of every family.
const fn rule(
    attribute: ck::CK_ATTRIBUTE_TYPE,
    kind: ValueKind,
    classes: &'static [ObjectClass],
    origin: Origin,
    change: Change,
) -> AttributeRule {
    AttributeRule { attribute, kind, classes, families: &[Secret, Curve, Rsa, Storage], origin, change }
}

/// A rule for what a key is made of, which never changes.
const fn material(
    attribute: ck::CK_ATTRIBUTE_TYPE,
    kind: ValueKind,
    classes: &'static [ObjectClass],
    families: &'static [Family],
    origin: Origin,
) -> AttributeRule {
    AttributeRule { attribute, kind, classes, families, origin, change: Never }
}

/// Every attribute that this module knows. One that is missing here is unknown to it.
static RULES: &[AttributeRule] = &[
    rule(ck::CKA_CLASS, Number, ANY, Creator, Never),
    rule(ck::CKA_TOKEN, Flag, ANY, Creator, Never),
    rule(ck::CKA_PRIVATE, Flag, ANY, Creator, Never),
    rule(ck::CKA_MODIFIABLE, Flag, ANY, Creator, Never),
    rule(ck::CKA_COPYABLE, Flag, ANY, Creator, OnlyToFalse),
    rule(ck::CKA_DESTROYABLE, Flag, ANY, Creator, Never),
    rule(ck::CKA_LABEL, Bytes, ANY, Creator, Freely),
    rule(ck::CKA_ID, Bytes, KEY_OR_CERTIFICATE, Creator, Freely),
    rule(ck::CKA_START_DATE, Bytes, KEY_OR_CERTIFICATE, Creator, Freely),
    rule(ck::CKA_END_DATE, Bytes, KEY_OR_CERTIFICATE, Creator, Freely),
    rule(ck::CKA_SUBJECT, Bytes, PAIR_OR_CERTIFICATE, Creator, Freely),
    rule(ck::CKA_KEY_TYPE, Number, KEY, Creator, Never),
    rule(ck::CKA_DERIVE, Flag, KEY, Creator, Freely),
    rule(ck::CKA_LOCAL, Flag, KEY, Token, Never),
    rule(ck::CKA_KEY_GEN_MECHANISM, Number, KEY, Token, Never),
    rule(ck::CKA_ALLOWED_MECHANISMS, Bytes, KEY, Creator, Never),
    rule(ck::CKA_ENCRYPT, Flag, PUBLIC_OR_SECRET, Creator, Freely),
    rule(ck::CKA_VERIFY, Flag, PUBLIC_OR_SECRET, Creator, Freely),
    rule(ck::CKA_WRAP, Flag, PUBLIC_OR_SECRET, Creator, Freely),
    rule(ck::CKA_TRUSTED, Flag, TRUSTABLE, Creator, TrustBySecurityOfficer),
    rule(ck::CKA_DECRYPT, Flag, PRIVATE_OR_SECRET, Creator, Freely),
    rule(ck::CKA_SIGN, Flag, PRIVATE_OR_SECRET, Creator, Freely),
    rule(ck::CKA_UNWRAP, Flag, PRIVATE_OR_SECRET, Creator, Freely),
    rule(ck::CKA_SENSITIVE, Flag, PRIVATE_OR_SECRET, Creator, OnlyToTrue),
    rule(ck::CKA_EXTRACTABLE, Flag, PRIVATE_OR_SECRET, Creator, OnlyToFalse),
    rule(ck::CKA_WRAP_WITH_TRUSTED, Flag, PRIVATE_OR_SECRET, Creator, OnlyToTrue),
    rule(ck::CKA_ALWAYS_SENSITIVE, Flag, PRIVATE_OR_SECRET, Token, Never),
    rule(ck::CKA_NEVER_EXTRACTABLE, Flag, PRIVATE_OR_SECRET, Token, Never),
    rule(ck::CKA_ALWAYS_AUTHENTICATE, Flag, &[PrivateKey], Creator, Never),
    rule(ck::CKA_APPLICATION, Bytes, &[Data], Creator, Freely),
    rule(ck::CKA_OBJECT_ID, Bytes, &[Data], Creator, Freely),
    rule(ck::CKA_CERTIFICATE_TYPE, Number, &[Certificate], Creator, Never),
    rule(ck::CKA_CERTIFICATE_CATEGORY, Number, &[Certificate], Creator, Never),
    rule(ck::CKA_ISSUER, Bytes, &[Certificate], Creator, Freely),
    rule(ck::CKA_SERIAL_NUMBER, Bytes, &[Certificate], Creator, Freely),
    rule(ck::CKA_PUBLIC_KEY_INFO, Bytes, &[Certificate], Creator, Never),
    rule(ck::CKA_URL, Bytes, &[Certificate], Creator, Never),
    rule(ck::CKA_HASH_OF_SUBJECT_PUBLIC_KEY, Bytes, &[Certificate], Creator, Never),
    rule(ck::CKA_HASH_OF_ISSUER_PUBLIC_KEY, Bytes, &[Certificate], Creator, Never),
    material(ck::CKA_VALUE, Bytes, WITH_VALUE, &[Secret, Curve, Storage], CreatorUnlessGenerated),
    material(ck::CKA_VALUE_LEN, Number, &[SecretKey], &[Secret], CreatorIfGenerated),
    material(ck::CKA_CHECK_VALUE, Bytes, &[Certificate, SecretKey], &[Secret, Storage], Creator),
    material(ck::CKA_EC_PARAMS, Bytes, OF_PAIR, &[Curve], Creator),
    material(ck::CKA_EC_POINT, Bytes, &[PublicKey], &[Curve], CreatorUnlessGenerated),
    material(ck::CKA_MODULUS, Bytes, OF_PAIR, &[Rsa], CreatorUnlessGenerated),
    material(ck::CKA_MODULUS_BITS, Number, &[PublicKey], &[Rsa], CreatorIfGenerated),
    material(ck::CKA_PUBLIC_EXPONENT, Bytes, OF_PAIR, &[Rsa], Creator),
    material(ck::CKA_PRIVATE_EXPONENT, Bytes, &[PrivateKey], &[Rsa], CreatorUnlessGenerated),
    material(ck::CKA_PRIME_1, Bytes, &[PrivateKey], &[Rsa], CreatorUnlessGenerated),
    material(ck::CKA_PRIME_2, Bytes, &[PrivateKey], &[Rsa], CreatorUnlessGenerated),
    material(ck::CKA_EXPONENT_1, Bytes, &[PrivateKey], &[Rsa], CreatorUnlessGenerated),
    material(ck::CKA_EXPONENT_2, Bytes, &[PrivateKey], &[Rsa], CreatorUnlessGenerated),
    material(ck::CKA_COEFFICIENT, Bytes, &[PrivateKey], &[Rsa], CreatorUnlessGenerated),
];

/// Whether only the owner of a key may know the attribute. Such a value is kept apart from the others.
pub fn is_secret(attribute: ck::CK_ATTRIBUTE_TYPE) -> bool {
    attribute == ck::CKA_VALUE || SECRET_ATTRIBUTES.contains(&attribute)
}

/// The rule of an attribute; unknown attributes are refused.
pub fn rule_of(attribute: ck::CK_ATTRIBUTE_TYPE) -> Result<&'static AttributeRule, Refusal> {
    RULES.iter().find(|rule| rule.attribute == attribute).ok_or(Refusal::AttributeTypeInvalid)
}

impl AttributeValue {
    /// Reads the bytes of a `CK_ATTRIBUTE`.
    pub fn parse(kind: ValueKind, bytes: &[u8]) -> Result<Self, Refusal> {
        let invalid = |_| Refusal::AttributeValueInvalid;
        match kind {
            ValueKind::Flag => match bytes {
                [ck::CK_FALSE] => Ok(Self::Flag(false)),
                [ck::CK_TRUE] => Ok(Self::Flag(true)),
                _ => Err(Refusal::AttributeValueInvalid),
            },
            ValueKind::Number => {
                let number = ck::CK_ULONG::from_ne_bytes(bytes.try_into().map_err(invalid)?);
                Ok(Self::Number(number))
            }
            ValueKind::Bytes => Ok(Self::Bytes(bytes.to_vec())),
        }
    }

    /// The bytes that a client sees.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Flag(flag) => vec![if *flag { ck::CK_TRUE } else { ck::CK_FALSE }],
            Self::Number(number) => number.to_ne_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

impl AttributeRule {
    pub fn applies_to(&self, class: ObjectClass, family: Family) -> bool {
        self.classes.contains(&class) && self.families.contains(&family)
    }
}

/// The rules that apply to objects of one class and family.
pub fn rules_of(class: ObjectClass, family: Family) -> impl Iterator<Item = &'static AttributeRule> {
    RULES.iter().filter(move |rule| rule.applies_to(class, family))
}
