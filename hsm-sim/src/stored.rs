//! The two file formats of a token: its state, and a key file.
//!
//! Both are an eight-byte magic, the SHA-256 of the body, and the body in CBOR. The digest is there
//! to tell a damaged file from a sound one; it protects against nobody who can write the directory.
//!
//! Against those, as far as a PIN reaches: private objects are sealed whole, each for its place, under
//! the token key; the token key is sealed under each PIN for this token in this life. What has to work
//! before anybody logged in is in the clear and not authenticated: label, serial number, counters of
//! wrong PINs, public objects. And nothing here can tell an old copy of a file from the newest one.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::attribute::AttributeValue;
use crate::object::{Object, ObjectClass, SecretValue};
use crate::pin::{PinRecord, Role, Sealed, SealingKey};
use crate::refusal::Refusal;
use crate::store::KeyFileId;

const STATE_MAGIC: &[u8; 8] = b"HSMSIMT2";
const KEY_FILE_MAGIC: &[u8; 8] = b"HSMSIMK2";
const DIGEST_LEN: usize = 32;

pub const LABEL_LEN: usize = 32;
pub const SERIAL_LEN: usize = 16;

/// Names one life of a token: a new one begins when the token is initialised again, and the objects
/// of the old one are out of reach from that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Generation(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 8]);

/// What distinguishes a token, and one life of it, from every other.
#[derive(Debug, Clone, Encode, Decode)]
pub struct TokenIdentity {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub label: [u8; LABEL_LEN],
    /// Sixteen hexadecimal digits, as `CK_TOKEN_INFO` has them.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub serial: [u8; SERIAL_LEN],
    #[n(2)]
    pub personality: String,
    #[n(3)]
    pub generation: Generation,
}

impl TokenIdentity {
    /// What a PIN is authenticated with. One that was moved here from another token or from an earlier
    /// life of this one does not open, nor does one under a changed label.
    pub fn pin_context(&self, role: Role) -> Result<Vec<u8>, Refusal> {
        minicbor::to_vec((role.name(), self)).map_err(|_| Refusal::GeneralError)
    }
}

/// Everything about a token except its objects.
#[derive(Debug, Clone, Encode, Decode)]
pub struct TokenState {
    #[n(0)]
    pub identity: TokenIdentity,
    #[n(1)]
    pub security_officer: PinRecord,
    #[n(2)]
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
    content: StoredContent,
}

#[derive(Encode, Decode)]
enum StoredContent {
    /// Anybody may read it through the API without a PIN; see `Object::require_consistent`.
    #[n(0)]
    Public(#[n(0)] ObjectContent),
    /// An `ObjectContent` in CBOR, sealed for its file and part.
    #[n(1)]
    Private(#[n(0)] Sealed),
}

#[derive(Encode, Decode)]
struct ObjectContent {
    #[n(0)]
    attributes: BTreeMap<u64, AttributeValue>,
    #[n(1)]
    value: Option<StoredValue>,
}

/// Wiped when dropped.
struct StoredValue(Zeroizing<Vec<u8>>);

impl<C> Encode<C> for StoredValue {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for StoredValue {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Self(Zeroizing::new(decoder.bytes()?.to_vec())))
    }
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
    /// Seals a private object for one place. `token_key` is needed only then.
    pub fn seal(
        object: &Object,
        file: KeyFileId,
        part: Part,
        token_key: Option<&SealingKey>,
    ) -> Result<Self, Refusal> {
        let value = object.value.as_ref().map(|value| StoredValue(Zeroizing::new(value.bytes().to_vec())));
        let content = ObjectContent { attributes: object.attributes.clone(), value };
        let content = if object.is_private() {
            let token_key = token_key.ok_or(Refusal::UserNotLoggedIn)?;
            StoredContent::Private(token_key.seal(&place(file, part), &content.to_bytes()?)?)
        } else {
            StoredContent::Public(content)
        };
        Ok(Self { part, content })
    }

    /// The object as it was sealed; `Ok(None)` when it is sealed and there is no key.
    ///
    /// # Errors
    /// `DeviceError`: it does not open, because it was changed, is from another token, or was sealed
    /// for another place.
    pub fn open(self, file: KeyFileId, token_key: Option<&SealingKey>) -> Result<Option<Object>, Refusal> {
        let was_sealed = matches!(self.content, StoredContent::Private(_));
        let ObjectContent { attributes, value } = match self.content {
            StoredContent::Public(content) => content,
            StoredContent::Private(sealed) => {
                let Some(token_key) = token_key else { return Ok(None) };
                let bytes = token_key.open(&place(file, self.part), &sealed).ok_or(Refusal::DeviceError)?;
                minicbor::decode(&bytes).map_err(|_| Refusal::DeviceError)?
            }
        };
        let class = match attributes.get(&cryptoki_sys::CKA_CLASS) {
            Some(AttributeValue::Number(code)) => ObjectClass::from_code(*code),
            _ => None,
        };
        let class = class.ok_or(Refusal::DeviceError)?;
        let value = value.map(|value| SecretValue::new(value.0));
        let object = Object { class, attributes, value };
        // One that says it is private and was not sealed was put there by somebody without a PIN.
        if object.is_private() == was_sealed { Ok(Some(object)) } else { Err(Refusal::DeviceError) }
    }
}

impl ObjectContent {
    /// In one allocation that is large enough, so that no half of a value is left behind by a growing one.
    fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        // Enough for the heads of an array and a byte string.
        const HEADS_LEN: usize = 16;
        let attributes = minicbor::to_vec(&self.attributes).map_err(|_| Refusal::GeneralError)?;
        let value_len = self.value.as_ref().map_or(0, |value| value.0.len());
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADS_LEN + attributes.len() + value_len));
        minicbor::encode(self, &mut *bytes).map_err(|_| Refusal::GeneralError)?;
        Ok(bytes)
    }
}

// A sealed object opens in its own place only: a copy under another name is not a second key.
fn place(file: KeyFileId, part: Part) -> [u8; 17] {
    let mut place = [part.0; 17];
    place[..16].copy_from_slice(&file.0);
    place
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

    use super::{KeyFile, ObjectContent, Part, StoredContent, StoredObject};
    use crate::attribute::AttributeValue;
    use crate::object::{AttributeMap, Object, ObjectClass, SecretValue};
    use crate::pin::SealingKey;
    use crate::refusal::Refusal;
    use crate::store::KeyFileId;

    const FILE: KeyFileId = KeyFileId([1; 16]);
    const PART: Part = Part(0);

    fn key(is_private: bool) -> Object {
        let attributes = AttributeMap::from([
            (ck::CKA_CLASS, AttributeValue::Number(ck::CKO_SECRET_KEY)),
            (ck::CKA_PRIVATE, AttributeValue::Flag(is_private)),
            (ck::CKA_LABEL, AttributeValue::Bytes(b"the label".to_vec())),
        ]);
        let value = Some(SecretValue::new(Zeroizing::new(b"secret".to_vec())));
        Object { class: ObjectClass::SecretKey, attributes, value }
    }

    fn token_key() -> SealingKey {
        SealingKey::generate().expect("the system has randomness")
    }

    fn sealed(token_key: &SealingKey) -> StoredObject {
        StoredObject::seal(&key(true), FILE, PART, Some(token_key)).expect("sealed")
    }

    #[test]
    fn a_private_object_is_not_written_without_the_token_key() {
        let attempt = StoredObject::seal(&key(true), FILE, PART, None);
        assert_eq!(attempt.err(), Some(Refusal::UserNotLoggedIn));
    }

    #[test]
    fn a_private_object_stays_closed_without_the_token_key() {
        assert!(sealed(&token_key()).open(FILE, None).expect("not an error").is_none());
    }

    #[test]
    fn another_token_key_does_not_open_the_object() {
        assert_eq!(sealed(&token_key()).open(FILE, Some(&token_key())).err(), Some(Refusal::DeviceError));
    }

    #[test]
    fn an_object_that_was_moved_to_another_place_stays_closed() {
        let key = token_key();
        let elsewhere = sealed(&key).open(KeyFileId([2; 16]), Some(&key));
        assert_eq!(elsewhere.err(), Some(Refusal::DeviceError));
        let mut moved = sealed(&key);
        moved.part = Part(1);
        assert_eq!(moved.open(FILE, Some(&key)).err(), Some(Refusal::DeviceError));
    }

    #[test]
    fn a_private_object_that_was_never_sealed_is_refused() {
        let planted = ObjectContent { attributes: key(true).attributes, value: None };
        let stored = StoredObject { part: PART, content: StoredContent::Public(planted) };
        assert_eq!(stored.open(FILE, Some(&token_key())).err(), Some(Refusal::DeviceError));
    }

    #[test]
    fn nothing_of_a_private_object_is_in_the_clear() {
        let token_key = token_key();
        let private = KeyFile { parts: vec![sealed(&token_key)] }.to_bytes().expect("encoded");
        let public = StoredObject::seal(&key(false), FILE, PART, None).expect("needs no key");
        let public = KeyFile { parts: vec![public] }.to_bytes().expect("encoded");
        for text in [&b"secret"[..], b"the label"] {
            let shows = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text);
            assert!(shows(&public) && !shows(&private));
        }
    }

    #[test]
    fn a_key_file_comes_back_as_it_was_written() {
        let token_key = token_key();
        for is_private in [true, false] {
            let object = key(is_private);
            let stored = StoredObject::seal(&object, FILE, PART, Some(&token_key)).expect("sealed");
            let bytes = KeyFile { parts: vec![stored] }.to_bytes().expect("encoded");
            let mut parts = KeyFile::from_bytes(&bytes).expect("sound").parts;
            let stored = parts.pop().expect("one part");
            let opened = stored.open(FILE, Some(&token_key)).expect("opens").expect("is there");
            assert_eq!(opened.attributes, object.attributes);
            assert_eq!(opened.secret(), Ok(&b"secret"[..]));
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let sound = KeyFile { parts: vec![sealed(&token_key())] }.to_bytes().expect("encoded");
        for position in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[position] ^= 1;
            assert!(KeyFile::from_bytes(&damaged).is_none(), "byte {position}");
            assert!(KeyFile::from_bytes(&sound[..position]).is_none(), "cut at {position}");
        }
    }
}
