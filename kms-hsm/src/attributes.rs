//! What an object of each kind is made of.
//!
//! The same lists make an object and check one that exists. `WRAP_WITH_TRUSTED` cannot be added later, so
//! it is there from the start: backups need it, and every other way out stays closed.

use crate::ObjectKind;
use crate::profile::{MacMechanisms, Profile, SealingMechanisms, SigningMechanisms};
use cryptoki::mechanism::MechanismType;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::types::Ulong;
use kms_core::id::HsmObjectId;
use kms_core::mac::MacAlgorithm;
use kms_core::suite::AeadAlgorithm;

/// Every mechanism that objects of this kind need, the one that makes them first; `None` when the profile has none for it.
pub(crate) fn mechanisms(profile: &Profile, kind: ObjectKind) -> Option<Vec<MechanismType>> {
    match kind {
        ObjectKind::KeyPair(algorithm, usage) => {
            profile.pair(algorithm, usage).map(|table| [vec![table.generate], table.uses()].concat())
        }
        ObjectKind::SealingKey(algorithm) => {
            profile.sealing(algorithm).map(|table| vec![table.generate, table.seal])
        }
        ObjectKind::SigningKey(suite) => profile.signing(suite).map(|table| vec![table.generate, table.sign]),
        ObjectKind::MacKey(algorithm) => profile.mac(algorithm).map(|table| vec![table.generate, table.mac]),
    }
}

/// The class that an object of this kind is found by. Of a key pair that is the private half.
pub(crate) fn class(kind: ObjectKind) -> ObjectClass {
    match kind {
        ObjectKind::SealingKey(_) | ObjectKind::MacKey(_) => ObjectClass::SECRET_KEY,
        ObjectKind::SigningKey(_) | ObjectKind::KeyPair(..) => ObjectClass::PRIVATE_KEY,
    }
}

/// Attributes of a master or resident key.
pub(crate) fn sealing_key(
    profile: &Profile,
    algorithm: AeadAlgorithm,
    table: &SealingMechanisms,
) -> Vec<Attribute> {
    let mut attributes = secret_key(profile, table.key_type);
    attributes.extend([
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Sign(false),
        Attribute::Verify(false),
    ]);
    if table.value_len {
        attributes.push(Attribute::ValueLen(Ulong::new(algorithm.key_len() as u64)));
    }
    attributes
}

/// Attributes of a MAC key. It makes MACs and does not verify: we compare them ourselves, in constant time.
pub(crate) fn mac_key(profile: &Profile, algorithm: MacAlgorithm, table: &MacMechanisms) -> Vec<Attribute> {
    let mut attributes = secret_key(profile, table.key_type);
    attributes.extend([
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Sign(true),
        Attribute::Verify(false),
        Attribute::ValueLen(Ulong::new(algorithm.key_len() as u64)),
    ]);
    attributes
}

fn secret_key(profile: &Profile, key_type: KeyType) -> Vec<Attribute> {
    let mut attributes = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(key_type),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        // Without trusted wrapping, extractable would mean extractable under any key.
        Attribute::Extractable(profile.trusted_wrapping()),
    ];
    if profile.trusted_wrapping() {
        attributes.push(Attribute::WrapWithTrusted(true));
    }
    attributes
}

/// Attributes of a private signing key. It never leaves: it is succeeded by another, not backed up.
pub(crate) fn signing_private_key(profile: &Profile, table: &SigningMechanisms) -> Vec<Attribute> {
    let mut attributes = vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(table.key_type),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
        Attribute::Derive(false),
        Attribute::Extractable(false),
    ];
    if profile.trusted_wrapping() {
        attributes.push(Attribute::WrapWithTrusted(true));
    }
    attributes
}

/// Attributes of the public half. It can be read without a login, so it is only ever a convenience: what
/// is trusted is the public key that a signed bundle names.
pub(crate) fn signing_public_key(table: &SigningMechanisms) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(table.key_type),
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Verify(true),
        Attribute::Encrypt(false),
        Attribute::Wrap(false),
        Attribute::Derive(false),
        Attribute::EcParams(table.curve.clone()),
    ]
}

/// Id and label, which differ between objects of one kind.
pub(crate) fn naming(id: HsmObjectId, label: &str) -> [Attribute; 2] {
    [Attribute::Id(id.0.to_vec()), Attribute::Label(label.as_bytes().to_vec())]
}
