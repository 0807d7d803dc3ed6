//! The function list that clients get. Each of its functions goes through [`gate`], which applies the
//! faults that are scripted, and on to the one in `function_list` that does the work.
#![expect(unsafe_code, reason = "C passes pointers")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cryptoki_sys as ck;

use crate::fault::{self, Function, ScriptedCall, Subject};
use crate::ffi::function_list::FUNCTION_LIST;
use crate::ffi::general;
use crate::module;
use crate::session::SessionHandle;
use crate::store::SlotId;

/// Where a function puts bytes.
enum Output {
    Nothing,
    /// As many as the length says after the call; NULL if the client only asks for the length.
    Counted(*mut u8, *const ck::CK_ULONG),
    /// Always this many.
    Fixed(*mut u8, ck::CK_ULONG),
}

// SAFETY (of calling): `output` is what `work` fills as the standard says.
unsafe fn gate(
    function: Function,
    subject: Subject,
    output: Output,
    work: impl FnOnce() -> ck::CK_RV,
) -> ck::CK_RV {
    let body = || {
        let Some(version) = fault::version_for(function, module::directory) else { return work() };
        let call = match ScriptedCall::begin(version, function, subject) {
            Ok(call) => call,
            Err(answer) => return answer,
        };
        let work_answer = work();
        let (place, len) = match output {
            Output::Counted(place, len) if work_answer == ck::CKR_OK && !place.is_null() => {
                // SAFETY: the call succeeded, so it has written the length.
                (place, unsafe { len.read() })
            }
            Output::Fixed(place, len) if work_answer == ck::CKR_OK => (place, len),
            _ => (std::ptr::null_mut(), 0),
        };
        let (answer, flipped) = call.end(work_answer, usize::try_from(len).unwrap_or(0));
        for bit in flipped {
            // SAFETY: the bit lies within the bytes that the call has just written, by their count.
            unsafe { *place.add((bit / 8) as usize) ^= 1 << (bit % 8) };
        }
        answer
    };
    // The same as for `entry`: a panic must not reach C.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(ck::CKR_GENERAL_ERROR)
}

fn on_session(handle: ck::CK_SESSION_HANDLE) -> Subject {
    Subject::Session(SessionHandle(handle))
}

fn on_slot(slot: ck::CK_SLOT_ID) -> Subject {
    Subject::Slot(SlotId(slot))
}

/// Makes the function for each entry of the list, with what it is about and where its bytes go.
macro_rules! gated {
    ($($name:ident($($argument:ident: $kind:ty),*): $subject:expr, $output:expr;)*) => {
        $(
            #[expect(non_snake_case, reason = "the names of the standard")]
            unsafe extern "C" fn $name($($argument: $kind),*) -> ck::CK_RV {
                let work = || match FUNCTION_LIST.$name {
                    // SAFETY: the caller's promise, passed on as it came.
                    Some(function) => unsafe { function($($argument),*) },
                    None => ck::CKR_FUNCTION_NOT_SUPPORTED,
                };
                // SAFETY: the output is the one of this function.
                unsafe { gate(Function::$name, $subject, $output, work) }
            }
        )*

        /// The list that `C_GetFunctionList` gives.
        pub static GATED_FUNCTION_LIST: ck::CK_FUNCTION_LIST = ck::CK_FUNCTION_LIST {
            version: FUNCTION_LIST.version,
            C_GetFunctionList: Some(general::get_function_list),
            $($name: Some($name),)*
        };
    };
}

use Output::{Counted, Fixed, Nothing};

type Session = ck::CK_SESSION_HANDLE;
type Slot = ck::CK_SLOT_ID;
type Key = ck::CK_OBJECT_HANDLE;
type Place<T> = *mut T;
type Bytes = *mut ck::CK_BYTE;
type Len = ck::CK_ULONG;
type Way = *mut ck::CK_MECHANISM;
type Template = *mut ck::CK_ATTRIBUTE;

gated! {
    C_Initialize(arguments: *mut c_void): Subject::Nothing, Nothing;
    C_Finalize(reserved: *mut c_void): Subject::Nothing, Nothing;
    C_GetInfo(info: Place<ck::CK_INFO>): Subject::Nothing, Nothing;

    C_GetSlotList(present: ck::CK_BBOOL, slots: Place<Slot>, count: Place<Len>): Subject::Nothing, Nothing;
    C_GetSlotInfo(slot: Slot, info: Place<ck::CK_SLOT_INFO>): on_slot(slot), Nothing;
    C_GetTokenInfo(slot: Slot, info: Place<ck::CK_TOKEN_INFO>): on_slot(slot), Nothing;
    C_GetMechanismList(slot: Slot, list: Place<ck::CK_MECHANISM_TYPE>, count: Place<Len>): on_slot(slot), Nothing;
    C_GetMechanismInfo(slot: Slot, kind: ck::CK_MECHANISM_TYPE, info: Place<ck::CK_MECHANISM_INFO>):
        on_slot(slot), Nothing;
    C_InitToken(slot: Slot, pin: Bytes, pin_len: Len, label: Bytes): on_slot(slot), Nothing;
    C_InitPIN(session: Session, pin: Bytes, pin_len: Len): on_session(session), Nothing;
    C_SetPIN(session: Session, old: Bytes, old_len: Len, new: Bytes, new_len: Len): on_session(session), Nothing;

    C_OpenSession(slot: Slot, flags: ck::CK_FLAGS, application: *mut c_void, notify: ck::CK_NOTIFY, session: Place<Session>):
        on_slot(slot), Nothing;
    C_CloseSession(session: Session): on_session(session), Nothing;
    C_CloseAllSessions(slot: Slot): on_slot(slot), Nothing;
    C_GetSessionInfo(session: Session, info: Place<ck::CK_SESSION_INFO>): on_session(session), Nothing;
    C_GetOperationState(session: Session, state: Bytes, len: Place<Len>): on_session(session), Nothing;
    C_SetOperationState(session: Session, state: Bytes, len: Len, encryption: Key, authentication: Key):
        on_session(session), Nothing;
    C_Login(session: Session, user: ck::CK_USER_TYPE, pin: Bytes, pin_len: Len): on_session(session), Nothing;
    C_Logout(session: Session): on_session(session), Nothing;

    C_CreateObject(session: Session, template: Template, count: Len, created: Place<Key>):
        on_session(session), Nothing;
    C_CopyObject(session: Session, original: Key, template: Template, count: Len, copy: Place<Key>):
        on_session(session), Nothing;
    C_DestroyObject(session: Session, object: Key): on_session(session), Nothing;
    C_GetObjectSize(session: Session, object: Key, size: Place<Len>): on_session(session), Nothing;
    C_GetAttributeValue(session: Session, object: Key, template: Template, count: Len):
        on_session(session), Nothing;
    C_SetAttributeValue(session: Session, object: Key, template: Template, count: Len):
        on_session(session), Nothing;
    C_FindObjectsInit(session: Session, template: Template, count: Len): on_session(session), Nothing;
    C_FindObjects(session: Session, objects: Place<Key>, count_max: Len, count: Place<Len>):
        on_session(session), Nothing;
    C_FindObjectsFinal(session: Session): on_session(session), Nothing;

    C_EncryptInit(session: Session, mechanism: Way, key: Key): on_session(session), Nothing;
    C_Encrypt(session: Session, data: Bytes, data_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Counted(out, out_len);
    C_EncryptUpdate(session: Session, part: Bytes, part_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Counted(out, out_len);
    C_EncryptFinal(session: Session, out: Bytes, out_len: Place<Len>): on_session(session), Counted(out, out_len);
    C_DecryptInit(session: Session, mechanism: Way, key: Key): on_session(session), Nothing;
    C_Decrypt(session: Session, data: Bytes, data_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Counted(out, out_len);
    C_DecryptUpdate(session: Session, part: Bytes, part_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Counted(out, out_len);
    C_DecryptFinal(session: Session, out: Bytes, out_len: Place<Len>): on_session(session), Counted(out, out_len);

    C_DigestInit(session: Session, mechanism: Way): on_session(session), Nothing;
    C_Digest(session: Session, data: Bytes, data_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Counted(out, out_len);
    C_DigestUpdate(session: Session, part: Bytes, part_len: Len): on_session(session), Nothing;
    C_DigestKey(session: Session, key: Key): on_session(session), Nothing;
    C_DigestFinal(session: Session, out: Bytes, out_len: Place<Len>): on_session(session), Counted(out, out_len);

    C_SignInit(session: Session, mechanism: Way, key: Key): on_session(session), Nothing;
    C_Sign(session: Session, data: Bytes, data_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Counted(out, out_len);
    C_SignUpdate(session: Session, part: Bytes, part_len: Len): on_session(session), Nothing;
    C_SignFinal(session: Session, out: Bytes, out_len: Place<Len>): on_session(session), Counted(out, out_len);
    C_SignRecoverInit(session: Session, mechanism: Way, key: Key): on_session(session), Nothing;
    C_SignRecover(session: Session, data: Bytes, data_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Nothing;
    C_VerifyInit(session: Session, mechanism: Way, key: Key): on_session(session), Nothing;
    C_Verify(session: Session, data: Bytes, data_len: Len, signature: Bytes, signature_len: Len):
        on_session(session), Nothing;
    C_VerifyUpdate(session: Session, part: Bytes, part_len: Len): on_session(session), Nothing;
    C_VerifyFinal(session: Session, signature: Bytes, signature_len: Len): on_session(session), Nothing;
    C_VerifyRecoverInit(session: Session, mechanism: Way, key: Key): on_session(session), Nothing;
    C_VerifyRecover(session: Session, data: Bytes, data_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Nothing;

    C_DigestEncryptUpdate(session: Session, part: Bytes, part_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Nothing;
    C_DecryptDigestUpdate(session: Session, part: Bytes, part_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Nothing;
    C_SignEncryptUpdate(session: Session, part: Bytes, part_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Nothing;
    C_DecryptVerifyUpdate(session: Session, part: Bytes, part_len: Len, out: Bytes, out_len: Place<Len>):
        on_session(session), Nothing;

    C_GenerateKey(session: Session, mechanism: Way, template: Template, count: Len, key: Place<Key>):
        on_session(session), Nothing;
    C_GenerateKeyPair(session: Session, mechanism: Way, public_template: Template, public_count: Len,
        private_template: Template, private_count: Len, public_key: Place<Key>, private_key: Place<Key>):
        on_session(session), Nothing;
    C_WrapKey(session: Session, mechanism: Way, wrapping: Key, key: Key, out: Bytes, out_len: Place<Len>):
        on_session(session), Counted(out, out_len);
    C_UnwrapKey(session: Session, mechanism: Way, unwrapping: Key, wrapped: Bytes, wrapped_len: Len,
        template: Template, count: Len, key: Place<Key>): on_session(session), Nothing;
    C_DeriveKey(session: Session, mechanism: Way, base: Key, template: Template, count: Len, key: Place<Key>):
        on_session(session), Nothing;

    C_SeedRandom(session: Session, seed: Bytes, len: Len): on_session(session), Nothing;
    C_GenerateRandom(session: Session, out: Bytes, len: Len): on_session(session), Fixed(out, len);

    C_GetFunctionStatus(session: Session): on_session(session), Nothing;
    C_CancelFunction(session: Session): on_session(session), Nothing;
    C_WaitForSlotEvent(flags: ck::CK_FLAGS, slot: Place<Slot>, reserved: *mut c_void): Subject::Nothing, Nothing;
}
