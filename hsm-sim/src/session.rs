//! One session and the operations that run in it.
//!
//! Nothing here has a `Debug`: operations hold keys and plaintexts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cryptoki_sys as ck;
use zeroize::Zeroizing;

use crate::mechanism::digest::{DIGEST_LEN, Digester};
use crate::mechanism::gcm::{Gcm, TAG_LEN};
use crate::mechanism::signature::{Signing, Verifying};
use crate::mechanism::{Mechanism, MechanismCall, Parameter, ec};
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
    encryption: Option<Running<Aead>>,
    decryption: Option<Running<Aead>>,
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

/// A GCM message. It is processed in one piece at the end: no byte of a plaintext leaves before its
/// tag was checked.
struct Aead {
    gcm: Gcm,
    collected: Zeroizing<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Encrypt,
    Decrypt,
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
    Ready(Zeroizing<Vec<u8>>),
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

    pub fn generate_key(&self, mechanism: Mechanism, template: Template) -> Result<ObjectHandle, Refusal> {
        mechanism.require_use(ck::CKF_GENERATE)?;
        let object = self.token.creator()?.generate_secret_key(mechanism, template)?;
        self.add_one(object)
    }

    /// The handles of the public key and of the private key.
    pub fn generate_key_pair(
        &self,
        mechanism: Mechanism,
        public: Template,
        private: Template,
    ) -> Result<(ObjectHandle, ObjectHandle), Refusal> {
        mechanism.require_use(ck::CKF_GENERATE_KEY_PAIR)?;
        let (public, private) = self.token.creator()?.generate_key_pair(mechanism, public, private)?;
        match self.token.add_objects(self.handle, self.access, vec![public, private])?[..] {
            [public, private] => Ok((public, private)),
            _ => Err(Refusal::GeneralError),
        }
    }

    fn add_one(&self, object: Object) -> Result<ObjectHandle, Refusal> {
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

    pub fn aead_begin(
        &self,
        direction: Direction,
        call: MechanismCall,
        key: ObjectHandle,
    ) -> Result<(), Refusal> {
        let (mechanism_use, key_use) = match direction {
            Direction::Encrypt => (ck::CKF_ENCRYPT, ck::CKA_ENCRYPT),
            Direction::Decrypt => (ck::CKF_DECRYPT, ck::CKA_DECRYPT),
        };
        let mut operations = self.operations.lock()?;
        let slot = operations.aead(direction);
        require_idle(slot)?;
        call.mechanism.require_use(mechanism_use)?;
        let Parameter::Gcm(parameter) = call.parameter else { return Err(Refusal::MechanismParamInvalid) };
        let key = self.key_for(call.mechanism, key, key_use)?;
        let kind = call.mechanism.working_key().ok_or(Refusal::MechanismInvalid)?;
        let gcm = Gcm::new(kind, key.secret()?, parameter)?;
        *slot = Some(Running::new(Aead { gcm, collected: Zeroizing::default() }, key.is_private()));
        Ok(())
    }

    /// `C_Encrypt` or `C_Decrypt`.
    pub fn aead(&self, direction: Direction, data: &[u8], room: Room) -> Result<Output, Refusal> {
        let mut operations = self.operations.lock()?;
        let slot = operations.aead(direction);
        require_single_part(slot)?;
        finish_aead(slot, direction, data, room)
    }

    /// `C_EncryptUpdate` or `C_DecryptUpdate`: always zero bytes of output.
    pub fn aead_update(&self, direction: Direction, part: &[u8], room: Room) -> Result<Output, Refusal> {
        let mut operations = self.operations.lock()?;
        let running = operations.aead(direction).as_mut().ok_or(Refusal::OperationNotInitialized)?;
        if let Some(short) = room.short_of(0) {
            return Ok(short);
        }
        running.is_multi_part = true;
        running.work.collected.extend_from_slice(part);
        Ok(Output::ready([]))
    }

    pub fn aead_final(&self, direction: Direction, room: Room) -> Result<Output, Refusal> {
        let mut operations = self.operations.lock()?;
        finish_aead(operations.aead(direction), direction, &[], room)
    }

    pub fn digest_begin(&self, call: &MechanismCall) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        require_idle(&operations.digest)?;
        operations.digest = Some(Running::new(Digester::new(call.mechanism)?, false));
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

    pub fn digest_final(&self, room: Room) -> Result<Output, Refusal> {
        finish_digest(&mut self.operations.lock()?.digest, &[], room)
    }

    pub fn sign_begin(&self, call: &MechanismCall, key: ObjectHandle) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        require_idle(&operations.signing)?;
        call.mechanism.require_use(ck::CKF_SIGN)?;
        let key = self.key_for(call.mechanism, key, ck::CKA_SIGN)?;
        let user_id = self.token.personality.sm2_user_id;
        let signing = Signing::new(call.mechanism, key.secret()?, user_id)?;
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
        let updated = running.work.update(part);
        if updated.is_err() {
            operations.signing = None;
        }
        updated
    }

    pub fn sign_final(&self, room: Room) -> Result<Output, Refusal> {
        finish_signing(&mut self.operations.lock()?.signing, &[], room)
    }

    pub fn verify_begin(&self, call: &MechanismCall, key: ObjectHandle) -> Result<(), Refusal> {
        let mut operations = self.operations.lock()?;
        require_idle(&operations.verifying)?;
        call.mechanism.require_use(ck::CKF_VERIFY)?;
        let key = self.key_for(call.mechanism, key, ck::CKA_VERIFY)?;
        let material = match key.bytes(ck::CKA_EC_POINT) {
            Some(point) => ec::unwrap_point(point)?,
            None => key.secret()?,
        };
        let user_id = self.token.personality.sm2_user_id;
        let verifying = Verifying::new(call.mechanism, material, user_id)?;
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
        let updated = running.work.update(part);
        if updated.is_err() {
            operations.verifying = None;
        }
        updated
    }

    pub fn verify_final(&self, signature: &[u8]) -> Result<(), Refusal> {
        finish_verifying(&mut self.operations.lock()?.verifying, &[], signature)
    }

    /// The key behind the handle, if it is of the kind that the mechanism needs and may do this.
    fn key_for(
        &self,
        mechanism: Mechanism,
        handle: ObjectHandle,
        key_use: ck::CK_ATTRIBUTE_TYPE,
    ) -> Result<Arc<Object>, Refusal> {
        let key = self.token.object(handle).map_err(|refusal| match refusal {
            Refusal::ObjectHandleInvalid => Refusal::KeyHandleInvalid,
            other => other,
        })?;
        let kind = key.number(ck::CKA_KEY_TYPE).and_then(|code| self.token.personality.key_kind(code));
        if kind.is_none() || kind != mechanism.working_key() {
            return Err(Refusal::KeyTypeInconsistent);
        }
        let is_usable_half = match key_use {
            ck::CKA_SIGN | ck::CKA_DECRYPT => key.class != ObjectClass::PublicKey,
            _ => key.class != ObjectClass::PrivateKey,
        };
        if !is_usable_half {
            return Err(Refusal::KeyTypeInconsistent);
        }
        if !key.flag(key_use) {
            return Err(Refusal::KeyFunctionNotPermitted);
        }
        Ok(key)
    }
}

impl Operations {
    fn aead(&mut self, direction: Direction) -> &mut Option<Running<Aead>> {
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

fn finish_aead(
    slot: &mut Option<Running<Aead>>,
    direction: Direction,
    last_part: &[u8],
    room: Room,
) -> Result<Output, Refusal> {
    let running = slot.as_ref().ok_or(Refusal::OperationNotInitialized)?;
    let input_len = running.work.collected.len() + last_part.len();
    let output_len = match direction {
        Direction::Encrypt => Some(input_len + TAG_LEN),
        Direction::Decrypt => input_len.checked_sub(TAG_LEN),
    };
    if let Some(short) = output_len.and_then(|len| room.short_of(len)) {
        return Ok(short);
    }
    let Aead { gcm, mut collected } = slot.take().ok_or(Refusal::OperationNotInitialized)?.work;
    if output_len.is_none() {
        return Err(Refusal::EncryptedDataLenRange);
    }
    let input = if collected.is_empty() {
        last_part
    } else {
        collected.extend_from_slice(last_part);
        &collected
    };
    match direction {
        Direction::Encrypt => gcm.seal(input).map(Output::ready),
        Direction::Decrypt => gcm.open(input).map(Output::Ready),
    }
}

fn finish_digest(
    slot: &mut Option<Running<Digester>>,
    last_part: &[u8],
    room: Room,
) -> Result<Output, Refusal> {
    slot.as_ref().ok_or(Refusal::OperationNotInitialized)?;
    if let Some(short) = room.short_of(DIGEST_LEN) {
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
    if let Some(short) = room.short_of(running.work.signature_len()) {
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
