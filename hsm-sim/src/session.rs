//! One session and the operations that run in it.
//!
//! Nothing here has a `Debug`: operations hold keys and plaintexts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cryptoki_sys as ck;
use zeroize::Zeroizing;

use crate::key_kind::{Family, KeyKind};
use crate::mechanism::cipher::{Bytes, Direction, OutputLen, Transform};
use crate::mechanism::digest::Digester;
use crate::mechanism::gcm::GcmNonce;
use crate::mechanism::signature::{Signing, Verifying};
use crate::mechanism::{Mechanism, MechanismCall, transform};
use crate::object::{Object, ObjectClass, Template};
use crate::object_table::ObjectHandle;
use crate::refusal::Refusal;
use crate::token::Token;
use crate::token_objects::Wanted;

/// Never zero, and never given twice in one process, not even after `C_Finalize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionHandle(pub u64);

static NEXT_HANDLE: AtomicU64 = AtomicU64::new(1);

impl SessionHandle {
    pub fn next() -> Self {
        Self(NEXT_HANDLE.fetch_add(1, Ordering::Relaxed))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

pub struct Session {
    pub handle: SessionHandle,
    pub access: Access,
    pub token: Arc<Token>,
    operations: Mutex<Operations>,
}

/// At most one operation of each kind runs in a session.
#[derive(Default)]
struct Operations {
    search: Option<VecDeque<ObjectHandle>>,
    encryption: Option<Running<Ciphering>>,
    decryption: Option<Running<Ciphering>>,
    digest: Option<Running<Digester>>,
    signing: Option<Running<Signing>>,
    verifying: Option<Running<Verifying>>,
}

struct Running<Work> {
    work: Work,
    /// Set by the first `Update`; from then on only `Final` ends it.
    is_multi_part: bool,
    /// Ends when the user logs out.
    uses_private_key: bool,
}

impl<Work> Running<Work> {
    fn new(work: Work, uses_private_key: bool) -> Self {
        Self { work, is_multi_part: false, uses_private_key }
    }
}

enum Ciphering {
    Going(Box<dyn Transform>),
    /// All is done, but the caller had no room for the result and may ask again.
    Done(Bytes),
}

/// The kinds of operations that an error ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    Encrypting,
    Decrypting,
    Digesting,
    Signing,
    Verifying,
}

/// What a key is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    Encrypt,
    Decrypt,
    Sign,
    Verify,
    Wrap,
    Unwrap,
    Derive,
}

impl KeyUse {
    pub fn attribute(self) -> ck::CK_ATTRIBUTE_TYPE {
        match self {
            Self::Encrypt => ck::CKA_ENCRYPT,
            Self::Decrypt => ck::CKA_DECRYPT,
            Self::Sign => ck::CKA_SIGN,
            Self::Verify => ck::CKA_VERIFY,
            Self::Wrap => ck::CKA_WRAP,
            Self::Unwrap => ck::CKA_UNWRAP,
            Self::Derive => ck::CKA_DERIVE,
        }
    }

    fn mechanism_flag(self) -> ck::CK_FLAGS {
        match self {
            Self::Encrypt => ck::CKF_ENCRYPT,
            Self::Decrypt => ck::CKF_DECRYPT,
            Self::Sign => ck::CKF_SIGN,
            Self::Verify => ck::CKF_VERIFY,
            Self::Wrap => ck::CKF_WRAP,
            Self::Unwrap => ck::CKF_UNWRAP,
            Self::Derive => ck::CKF_DERIVE,
        }
    }

    /// Which half of a key pair does this.
    fn half(self) -> ObjectClass {
        match self {
            Self::Encrypt | Self::Verify | Self::Wrap => ObjectClass::PublicKey,
            Self::Decrypt | Self::Sign | Self::Unwrap | Self::Derive => ObjectClass::PrivateKey,
        }
    }
}

/// How much room the caller has for the answer.
#[derive(Debug, Clone, Copy)]
pub enum Room {
    /// The caller only asks how much it needs.
    Asking,
    Bytes(usize),
}

/// The answer to a call that has an output. Only `Ready` ends the operation.
pub enum Output {
    Needed(usize),
    TooSmall(usize),
    Ready(Bytes),
}

impl Room {
    /// The answer that leaves the operation running, if there is not room for `len` bytes.
    pub fn short_of(self, len: usize) -> Option<Output> {
        match self {
            Self::Asking => Some(Output::Needed(len)),
            Self::Bytes(room) if room < len => Some(Output::TooSmall(len)),
            Self::Bytes(_) => None,
        }
    }
}

impl Output {
    fn ready(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Ready(Zeroizing::new(bytes.into()))
    }
}

impl Session {
    pub fn new(handle: SessionHandle, access: Access, token: Arc<Token>) -> Self {
        Self { handle, access, token, operations: Mutex::default() }
    }

    /// What a logout leaves of the session: nothing that knows a private key or object.
    pub fn forget_private(&self) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        operations.search = None;
        operations.encryption.take_if(|running| running.uses_private_key);
        operations.decryption.take_if(|running| running.uses_private_key);
        operations.signing.take_if(|running| running.uses_private_key);
        operations.verifying.take_if(|running| running.uses_private_key);
        Ok(())
    }

    /// Ends an operation: what the standard prescribes after nearly every error.
    pub fn end(&self, kind: OperationKind) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        match kind {
            OperationKind::Encrypting => operations.encryption = None,
            OperationKind::Decrypting => operations.decryption = None,
            OperationKind::Digesting => operations.digest = None,
            OperationKind::Signing => operations.signing = None,
            OperationKind::Verifying => operations.verifying = None,
        }
        Ok(())
    }

    /// `C_SessionCancel`.
    pub fn cancel(&self, flags: ck::CK_FLAGS) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        let is_named = |flag| flags & flag != 0;
        operations.search.take_if(|_| is_named(ck::CKF_FIND_OBJECTS));
        operations.encryption.take_if(|_| is_named(ck::CKF_ENCRYPT));
        operations.decryption.take_if(|_| is_named(ck::CKF_DECRYPT));
        operations.digest.take_if(|_| is_named(ck::CKF_DIGEST));
        operations.signing.take_if(|_| is_named(ck::CKF_SIGN));
        operations.verifying.take_if(|_| is_named(ck::CKF_VERIFY));
        Ok(())
    }

    pub fn create_object(&self, template: Template) -> Result<ObjectHandle, Refusal> {
        let object = self.token.creator()?.create(template)?;
        self.add_one(object)
    }

    pub fn copy_object(&self, handle: ObjectHandle, template: Template) -> Result<ObjectHandle, Refusal> {
        let original = self.token.object(handle)?;
        let copy = self.token.creator()?.copy(&original, template)?;
        self.add_one(copy)
    }

    pub fn generate_key(&self, call: &MechanismCall, template: Template) -> Result<ObjectHandle, Refusal> {
        call.mechanism.require_use(ck::CKF_GENERATE)?;
        let object = self.token.creator()?.generate_secret_key(call.mechanism, call.code, template)?;
        self.add_one(object)
    }

    /// The handles of the public key and of the private key.
    pub fn generate_key_pair(
        &self,
        call: &MechanismCall,
        public: Template,
        private: Template,
    ) -> Result<(ObjectHandle, ObjectHandle), Refusal> {
        call.mechanism.require_use(ck::CKF_GENERATE_KEY_PAIR)?;
        let creator = self.token.creator()?;
        let (public, private) = creator.generate_key_pair(call.mechanism, call.code, public, private)?;
        match self.token.add_objects(self.handle, self.access, vec![public, private])?[..] {
            [public, private] => Ok((public, private)),
            _ => Err(Refusal::GeneralError),
        }
    }

    pub fn add_one(&self, object: Object) -> Result<ObjectHandle, Refusal> {
        let handles = self.token.add_objects(self.handle, self.access, vec![object])?;
        handles.first().copied().ok_or(Refusal::GeneralError)
    }

    /// The search is done here; `find_next` only hands out what was found.
    pub fn find_begin(&self, wanted: &Wanted) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        require_idle(&operations.search)?;
        operations.search = Some(self.token.find(wanted)?.into());
        Ok(())
    }

    pub fn find_next(&self, count_max: usize) -> Result<Vec<ObjectHandle>, Refusal> {
        let mut operations = self.operations.lock()?;
        let found = operations.search.as_mut().ok_or(Refusal::OperationNotInitialized)?;
        let count = count_max.min(found.len());
        Ok(found.drain(..count).collect())
    }

    pub fn find_end(&self) -> Result<(), Refusal> {
        self.operations.lock()?.search.take().map(|_| ()).ok_or(Refusal::OperationNotInitialized)
    }

    /// Gives the nonce that the token made, if the client is to be told now.
    pub fn cipher_begin(
        &self,
        direction: Direction,
        call: MechanismCall,
        key: ObjectHandle,
    ) -> Result<Option<GcmNonce>, Refusal> {
        let mut operations = self.operations.lock()?;
        let slot = operations.ciphering(direction);
        require_idle(slot)?;
        let key_use = match direction {
            Direction::Encrypt => KeyUse::Encrypt,
            Direction::Decrypt => KeyUse::Decrypt,
        };
        let key = self.key_for(&call, key, key_use)?;
        let begun = transform::begin(direction, call, &key, self.token.personality)?;
        *slot = Some(Running::new(Ciphering::Going(begun.transform), key.is_private()));
        Ok(begun.made_nonce)
    }

    /// `C_Encrypt` or `C_Decrypt`.
    pub fn cipher(&self, direction: Direction, data: &[u8], room: Room) -> Result<Output, Refusal> {
        let mut operations = self.operations.lock()?;
        let slot = operations.ciphering(direction);
        require_single_part(slot)?;
        finish_ciphering(slot, data, room)
    }

    /// `C_EncryptUpdate` or `C_DecryptUpdate`.
    pub fn cipher_update(&self, direction: Direction, part: &[u8], room: Room) -> Result<Output, Refusal> {
        let mut operations = self.operations.lock()?;
        let running = operations.ciphering(direction).as_mut().ok_or(Refusal::OperationNotInitialized)?;
        let Ciphering::Going(transform) = &mut running.work else { return Err(Refusal::OperationActive) };
        if let Some(short) = room.short_of(transform.update_len(part.len())) {
            return Ok(short);
        }
        running.is_multi_part = true;
        transform.update(part).map(Output::Ready)
    }

    pub fn cipher_final(&self, direction: Direction, room: Room) -> Result<Output, Refusal> {
        finish_ciphering(self.operations.lock()?.ciphering(direction), &[], room)
    }

    pub fn digest_begin(&self, call: &MechanismCall) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        require_idle(&operations.digest)?;
        let Mechanism::Digest(hash) = call.mechanism else { return Err(Refusal::MechanismInvalid) };
        operations.digest = Some(Running::new(Digester::new(hash), false));
        Ok(())
    }

    pub fn digest(&self, data: &[u8], room: Room) -> Result<Output, Refusal> {
        let mut operations = self.operations.lock()?;
        require_single_part(&operations.digest)?;
        finish_digest(&mut operations.digest, data, room)
    }

    pub fn digest_update(&self, part: &[u8]) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        let running = operations.digest.as_mut().ok_or(Refusal::OperationNotInitialized)?;
        running.is_multi_part = true;
        running.work.update(part);
        Ok(())
    }

    /// `C_DigestKey`: the value of a secret key enters the digest as if it were a part.
    pub fn digest_key(&self, key: ObjectHandle) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        let running = operations.digest.as_mut().ok_or(Refusal::OperationNotInitialized)?;
        let key = self.key(key)?;
        if key.class != ObjectClass::SecretKey {
            return Err(Refusal::KeyIndigestible);
        }
        running.is_multi_part = true;
        running.work.update(key.secret()?);
        Ok(())
    }

    pub fn digest_final(&self, room: Room) -> Result<Output, Refusal> {
        finish_digest(&mut self.operations.lock()?.digest, &[], room)
    }

    pub fn sign_begin(&self, call: &MechanismCall, key: ObjectHandle) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        require_idle(&operations.signing)?;
        let key = self.key_for(call, key, KeyUse::Sign)?;
        let signing = Signing::new(call, &key, self.token.personality)?;
        operations.signing = Some(Running::new(signing, key.is_private()));
        Ok(())
    }

    pub fn sign(&self, data: &[u8], room: Room) -> Result<Output, Refusal> {
        let mut operations = self.operations.lock()?;
        require_single_part(&operations.signing)?;
        finish_signing(&mut operations.signing, data, room)
    }

    pub fn sign_update(&self, part: &[u8]) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        let running = operations.signing.as_mut().ok_or(Refusal::OperationNotInitialized)?;
        running.is_multi_part = true;
        running.work.update(part)
    }

    pub fn sign_final(&self, room: Room) -> Result<Output, Refusal> {
        finish_signing(&mut self.operations.lock()?.signing, &[], room)
    }

    pub fn verify_begin(&self, call: &MechanismCall, key: ObjectHandle) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        require_idle(&operations.verifying)?;
        let key = self.key_for(call, key, KeyUse::Verify)?;
        let verifying = Verifying::new(call, &key, self.token.personality)?;
        operations.verifying = Some(Running::new(verifying, key.is_private()));
        Ok(())
    }

    pub fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        require_single_part(&operations.verifying)?;
        finish_verifying(&mut operations.verifying, data, signature)
    }

    pub fn verify_update(&self, part: &[u8]) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        let running = operations.verifying.as_mut().ok_or(Refusal::OperationNotInitialized)?;
        running.is_multi_part = true;
        running.work.update(part)
    }

    pub fn verify_final(&self, signature: &[u8]) -> Result<(), Refusal> {
        finish_verifying(&mut self.operations.lock()?.verifying, &[], signature)
    }

    /// The key behind the handle, if it is of the kind that the mechanism needs and may do this.
    pub fn key_for(
        &self,
        call: &MechanismCall,
        handle: ObjectHandle,
        key_use: KeyUse,
    ) -> Result<Arc<Object>, Refusal> {
        call.mechanism.require_use(key_use.mechanism_flag())?;
        let key = self.key(handle)?;
        let kind = key.number(ck::CKA_KEY_TYPE).and_then(|code| self.token.personality.key_kind(code));
        let kind = kind.ok_or(Refusal::KeyTypeInconsistent)?;
        let is_right_kind = match (call.mechanism, kind) {
            // Every secret is something to derive from.
            (Mechanism::HkdfDerive, kind) => kind.family() == Family::Secret,
            (Mechanism::Hmac(hash, _), KeyKind::Hmac(of_key)) => hash == of_key,
            (mechanism, kind) => mechanism.key_kind() == Some(kind),
        };
        if !is_right_kind || (key.class != ObjectClass::SecretKey && key.class != key_use.half()) {
            return Err(Refusal::KeyTypeInconsistent);
        }
        if !key.flag(key_use.attribute()) {
            return Err(Refusal::KeyFunctionNotPermitted);
        }
        if key.forbids(call.code) {
            return Err(Refusal::MechanismInvalid);
        }
        Ok(key)
    }

    /// The object behind the handle of a key.
    pub fn key(&self, handle: ObjectHandle) -> Result<Arc<Object>, Refusal> {
        match self.token.object(handle) {
            Ok(object) if object.class.is_key() => Ok(object),
            Ok(_) | Err(Refusal::ObjectHandleInvalid) => Err(Refusal::KeyHandleInvalid),
            Err(other) => Err(other),
        }
    }
}

impl Operations {
    fn ciphering(&mut self, direction: Direction) -> &mut Option<Running<Ciphering>> {
        match direction {
            Direction::Encrypt => &mut self.encryption,
            Direction::Decrypt => &mut self.decryption,
        }
    }
}

fn require_idle<Operation>(slot: &Option<Operation>) -> Result<(), Refusal> {
    if slot.is_some() { Err(Refusal::OperationActive) } else { Ok(()) }
}

fn require_single_part<Work>(slot: &Option<Running<Work>>) -> Result<(), Refusal> {
    match slot {
        None => Err(Refusal::OperationNotInitialized),
        Some(running) if running.is_multi_part => Err(Refusal::OperationActive),
        Some(_) => Ok(()),
    }
}

fn finish_ciphering(
    slot: &mut Option<Running<Ciphering>>,
    last_part: &[u8],
    room: Room,
) -> Result<Output, Refusal> {
    let running = slot.as_ref().ok_or(Refusal::OperationNotInitialized)?;
    let len = match &running.work {
        Ciphering::Going(transform) => transform.finish_len(last_part.len()),
        Ciphering::Done(result) => OutputLen::Exactly(result.len()),
    };
    let short = room.short_of(len.max());
    // Where only the result tells its length, less room than the most may still be enough.
    let is_worth_trying = matches!((&len, &short), (OutputLen::AtMost(_), Some(Output::TooSmall(_))));
    match short {
        Some(short) if !is_worth_trying => return Ok(short),
        _ => {}
    }
    let Running { work, is_multi_part, uses_private_key } =
        slot.take().ok_or(Refusal::OperationNotInitialized)?;
    let result = match work {
        Ciphering::Going(transform) => transform.finish(last_part)?,
        Ciphering::Done(result) => result,
    };
    let short = room.short_of(result.len());
    if let Some(short) = short {
        *slot = Some(Running { work: Ciphering::Done(result), is_multi_part, uses_private_key });
        return Ok(short);
    }
    Ok(Output::Ready(result))
}

fn finish_digest(
    slot: &mut Option<Running<Digester>>,
    last_part: &[u8],
    room: Room,
) -> Result<Output, Refusal> {
    let running = slot.as_ref().ok_or(Refusal::OperationNotInitialized)?;
    if let Some(short) = room.short_of(running.work.digest_len()) {
        return Ok(short);
    }
    let mut digester = slot.take().ok_or(Refusal::OperationNotInitialized)?.work;
    digester.update(last_part);
    Ok(Output::ready(digester.finish()))
}

fn finish_signing(
    slot: &mut Option<Running<Signing>>,
    last_part: &[u8],
    room: Room,
) -> Result<Output, Refusal> {
    let running = slot.as_ref().ok_or(Refusal::OperationNotInitialized)?;
    if let Some(short) = room.short_of(running.work.signature_len_max()) {
        return Ok(short);
    }
    let signing = slot.take().ok_or(Refusal::OperationNotInitialized)?.work;
    signing.finish(last_part).map(Output::ready)
}

fn finish_verifying(
    slot: &mut Option<Running<Verifying>>,
    last_part: &[u8],
    signature: &[u8],
) -> Result<(), Refusal> {
    let verifying = slot.take().ok_or(Refusal::OperationNotInitialized)?.work;
    verifying.finish(last_part, signature)
}
