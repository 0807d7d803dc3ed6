//! The two file formats of a token: its state, and a key file.
//!
//! Both are an eight-byte magic, the SHA-256 of the body, and the body in CBOR. The digest is there
//! to tell a damaged file from a sound one; it protects against nobody who can write the directory.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::attribute::AttributeValue;
use crate::object::{Object, ObjectClass, SecretValue};
use crate::pin::{PinRecord, Role, Sealed, SealingKey};
use crate::refusal::Refusal;

const STATE_MAGIC: &[u8; 8] = b"HSMSIMT1";
const KEY_FILE_MAGIC: &[u8; 8] = b"HSMSIMK1";
const DIGEST_LEN: usize = 32;

pub const LABEL_LEN: usize = 32;
pub const SERIAL_LEN: usize = 16;

/// Names one life of a token: a new one begins when the token is initialised again, and the objects
/// of the old one are out of reach from that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Generation(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 8]);

/// Everything about a token except its objects.
#[derive(Debug, Clone, Encode, Decode)]
pub struct TokenState {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub label: [u8; LABEL_LEN],
    /// Sixteen hexadecimal digits, as `CK_TOKEN_INFO` has them.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub serial: [u8; SERIAL_LEN],
    #[n(2)]
    pub personality: String,
    #[n(3)]
    pub generation: Generation,
    #[n(4)]
    pub security_officer: PinRecord,
    #[n(5)]
    pub user: Option<PinRecord>,
}

impl TokenState {
    pub fn pin(&self, role: Role) -> Result<&PinRecord, Refusal> {
        match role {
            Role::SecurityOfficer => Ok(&self.security_officer),
            Role::User => self.user.as_ref().ok_or(Refusal::UserPinNotInitialized),
        }
    }

    pub fn set_pin(&mut self, role: Role, record: PinRecord) {
        match role {
            Role::SecurityOfficer => self.security_officer = record,
            Role::User => self.user = Some(record),
        }
    }

    pub fn set_failures(&mut self, role: Role, failures: u8) {
        match role {
            Role::SecurityOfficer => self.security_officer.failures = failures,
            Role::User => {
                if let Some(user) = &mut self.user {
                    user.failures = failures;
                }
            }
        }
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
        frame(STATE_MAGIC, self)
    }

    /// `None` for anything that is not exactly a sound state file.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        unframe(STATE_MAGIC, bytes)
    }
}

/// The objects that were made by one call: a key, or both halves of a key pair. They share a file
/// so that a crash leaves both or neither.
#[derive(Encode, Decode)]
pub struct KeyFile {
    #[n(0)]
    pub parts: Vec<StoredObject>,
}

/// Which object of a key file it is. It stays the same when another part is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Part(#[n(0)] pub u8);

#[derive(Encode, Decode)]
pub struct StoredObject {
    #[n(0)]
    pub part: Part,
    #[n(1)]
    attributes: BTreeMap<u64, AttributeValue>,
    #[n(2)]
    value: StoredValue,
}

#[derive(Encode, Decode)]
enum StoredValue {
    #[n(0)]
    Absent,
    /// Anybody may read it through the API without a PIN; see `Object::require_consistent`.
    #[n(1)]
    Public(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(2)]
    Sealed(#[n(0)] Sealed),
}

impl KeyFile {
    pub fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
        frame(KEY_FILE_MAGIC, self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        unframe(KEY_FILE_MAGIC, bytes)
    }
}

impl StoredObject {
    /// Seals the value of a private object. `token_key` is needed only then.
    pub fn seal(object: &Object, part: Part, token_key: Option<&SealingKey>) -> Result<Self, Refusal> {
        let attributes = object.attributes.clone();
        let value = match &object.value {
            None => StoredValue::Absent,
            Some(value) if object.is_private() => {
                let token_key = token_key.ok_or(Refusal::UserNotLoggedIn)?;
                let context = value_context(part, &attributes)?;
                StoredValue::Sealed(token_key.seal(&context, value.bytes())?)
            }
            Some(value) => StoredValue::Public(value.bytes().to_vec()),
        };
        Ok(Self { part, attributes, value })
    }

    /// The object as it was sealed; `Ok(None)` when its value is sealed and there is no key.
    ///
    /// # Errors
    /// `DeviceError`: the value does not open, or the attributes are not those it was sealed with.
    pub fn open(self, token_key: Option<&SealingKey>) -> Result<Option<Object>, Refusal> {
        let class = match self.attributes.get(&cryptoki_sys::CKA_CLASS) {
            Some(AttributeValue::Number(code)) => ObjectClass::from_code(*code),
            _ => None,
        };
        let class = class.ok_or(Refusal::DeviceError)?;
        let value = match self.value {
            StoredValue::Absent => None,
            StoredValue::Public(bytes) => Some(SecretValue::new(Zeroizing::new(bytes))),
            StoredValue::Sealed(sealed) => {
                let Some(token_key) = token_key else { return Ok(None) };
                let context = value_context(self.part, &self.attributes)?;
                let bytes = token_key.open(&context, &sealed).ok_or(Refusal::DeviceError)?;
                Some(SecretValue::new(bytes))
            }
        };
        Ok(Some(Object { class, attributes: self.attributes, value }))
    }
}

// The attributes are authenticated with the value: somebody who edits the file cannot make a
// sensitive key readable, or give a signing key another use.
fn value_context(part: Part, attributes: &BTreeMap<u64, AttributeValue>) -> Result<Vec<u8>, Refusal> {
    minicbor::to_vec((part, attributes)).map_err(|_| Refusal::GeneralError)
}

fn frame(magic: &[u8; 8], content: &impl Encode<()>) -> Result<Vec<u8>, Refusal> {
    let body = minicbor::to_vec(content).map_err(|_| Refusal::GeneralError)?;
    Ok([&magic[..], &Sha256::digest(&body)[..], &body].concat())
}

fn unframe<T: for<'b> Decode<'b, ()>>(magic: &[u8; 8], bytes: &[u8]) -> Option<T> {
    let (digest, body) = bytes.strip_prefix(magic)?.split_at_checked(DIGEST_LEN)?;
    if Sha256::digest(body)[..] != *digest {
        return None;
    }
    let mut decoder = minicbor::Decoder::new(body);
    let content = decoder.decode().ok()?;
    (decoder.position() == body.len()).then_some(content)
}

#[cfg(test)]
mod tests {
    use cryptoki_sys as ck;
    use zeroize::Zeroizing;

    use super::{KeyFile, Part, StoredObject, StoredValue};
    use crate::attribute::AttributeValue;
    use crate::object::{AttributeMap, Object, ObjectClass, SecretValue};
    use crate::pin::SealingKey;
    use crate::refusal::Refusal;

    const PART: Part = Part(0);

    fn private_key() -> Object {
        let attributes = AttributeMap::from([
            (ck::CKA_CLASS, AttributeValue::Number(ck::CKO_SECRET_KEY)),
            (ck::CKA_PRIVATE, AttributeValue::Flag(true)),
            (ck::CKA_SENSITIVE, AttributeValue::Flag(true)),
        ]);
        let value = Some(SecretValue::new(Zeroizing::new(b"secret".to_vec())));
        Object { class: ObjectClass::SecretKey, attributes, value }
    }

    fn token_key() -> SealingKey {
        SealingKey::generate().expect("the system has randomness")
    }

    #[test]
    fn a_private_value_is_not_written_without_the_token_key() {
        let attempt = StoredObject::seal(&private_key(), PART, None);
        assert_eq!(attempt.err(), Some(Refusal::UserNotLoggedIn));
    }

    #[test]
    fn a_private_value_stays_closed_without_the_token_key() {
        let key = token_key();
        let stored = StoredObject::seal(&private_key(), PART, Some(&key)).expect("sealed");
        assert!(stored.open(None).expect("not an error").is_none());
    }

    #[test]
    fn another_token_key_does_not_open_the_value() {
        let stored = StoredObject::seal(&private_key(), PART, Some(&token_key())).expect("sealed");
        assert_eq!(stored.open(Some(&token_key())).err(), Some(Refusal::DeviceError));
    }

    #[test]
    fn an_attribute_that_was_edited_on_disk_keeps_the_value_closed() {
        let key = token_key();
        let mut stored = StoredObject::seal(&private_key(), PART, Some(&key)).expect("sealed");
        stored.attributes.insert(ck::CKA_SENSITIVE, AttributeValue::Flag(false));
        assert_eq!(stored.open(Some(&key)).err(), Some(Refusal::DeviceError));
    }

    #[test]
    fn a_value_that_was_moved_to_another_part_stays_closed() {
        let key = token_key();
        let mut stored = StoredObject::seal(&private_key(), PART, Some(&key)).expect("sealed");
        stored.part = Part(1);
        assert_eq!(stored.open(Some(&key)).err(), Some(Refusal::DeviceError));
    }

    #[test]
    fn a_key_file_comes_back_as_it_was_written() {
        let key = token_key();
        let parts = vec![StoredObject::seal(&private_key(), PART, Some(&key)).expect("sealed")];
        let bytes = KeyFile { parts }.to_bytes().expect("encoded");
        let mut parts = KeyFile::from_bytes(&bytes).expect("sound").parts;
        let stored = parts.pop().expect("one part");
        assert!(matches!(stored.value, StoredValue::Sealed(_)));
        let object = stored.open(Some(&key)).expect("opens").expect("is there");
        assert_eq!(object.attributes, private_key().attributes);
        assert_eq!(object.secret(), Ok(&b"secret"[..]));
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let parts = vec![StoredObject::seal(&private_key(), PART, Some(&token_key())).expect("sealed")];
        let sound = KeyFile { parts }.to_bytes().expect("encoded");
        for position in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[position] ^= 1;
            assert!(KeyFile::from_bytes(&damaged).is_none(), "byte {position}");
            assert!(KeyFile::from_bytes(&sound[..position]).is_none(), "cut at {position}");
        }
    }
}
