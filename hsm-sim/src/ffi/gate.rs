//! The function list that clients get. Each of its functions goes through [`gate`], which applies the
//! faults that are scripted, and on to the one in `function_list` that does the work.
#![expect(unsafe_code, reason = "C passes pointers")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cryptoki_sys as ck;

use crate::fault::{self, Function, ScriptedCall, Subject};
use crate::ffi::function_list::FUNCTION_LIST;
use crate::ffi::{general, interface, version3};
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

/// The one function that differs from list to list: a client finds one version in the list and here.
#[unsafe(export_name = "C_GetInfo")]
pub unsafe extern "C" fn get_info(info: *mut ck::CK_INFO) -> ck::CK_RV {
    // SAFETY: there are no bytes for output; the caller's promise is passed on as it came.
    unsafe { gate(Function::C_GetInfo, Subject::Nothing, Nothing, || general::get_info(info)) }
}

unsafe extern "C" fn get_info_3_0(info: *mut ck::CK_INFO) -> ck::CK_RV {
    // SAFETY: as above.
    unsafe { gate(Function::C_GetInfo, Subject::Nothing, Nothing, || version3::get_info(info)) }
}

/// Makes the function for each entry, with what it is about and where its bytes go, and the lists. Every
/// function is exported under its name too, for clients that look for it without a list.
macro_rules! gated {
    (
        version_2_40 { $($name:ident($($argument:ident: $kind:ty),*): $subject:expr, $output:expr;)* }
        version_3_0 { $($name3:ident($($argument3:ident: $kind3:ty),*): $subject3:expr => $work3:expr;)* }
    ) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $kind),*) -> ck::CK_RV {
                let work = || match FUNCTION_LIST.$name {
                    // SAFETY: the caller's promise, passed on as it came.
                    Some(function) => unsafe { function($($argument),*) },
                    None => ck::CKR_FUNCTION_NOT_SUPPORTED,
                };
                // SAFETY: the output is the one of this function.
                unsafe { gate(Function::$name, $subject, $output, work) }
            }
        )*
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name3($($argument3: $kind3),*) -> ck::CK_RV {
                // SAFETY: none of them has bytes for output; the caller's promise is passed on as it came.
                unsafe { gate(Function::$name3, $subject3, Nothing, || $work3) }
            }
        )*

        /// The list that `C_GetFunctionList` gives.
        pub static GATED_FUNCTION_LIST: ck::CK_FUNCTION_LIST = ck::CK_FUNCTION_LIST {
            version: FUNCTION_LIST.version,
            C_GetFunctionList: Some(general::get_function_list),
            C_GetInfo: Some(get_info),
            $($name: Some($name),)*
        };

        /// The same functions under version 3.0, and what that version added.
        pub static GATED_FUNCTION_LIST_3_0: ck::CK_FUNCTION_LIST_3_0 = ck::CK_FUNCTION_LIST_3_0 {
            version: version3::VERSION,
            C_GetFunctionList: Some(general::get_function_list),
            C_GetInterfaceList: Some(interface::get_interface_list),
            C_GetInterface: Some(interface::get_interface),
            C_GetInfo: Some(get_info_3_0),
            $($name: Some($name),)*
            $($name3: Some($name3),)*
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

/// Messages of version 3.0 are not processed.
const NOT_SUPPORTED: ck::CK_RV = ck::CKR_FUNCTION_NOT_SUPPORTED;

gated! {
    version_2_40 {
        C_Initialize(arguments: *mut c_void): Subject::Nothing, Nothing;
        C_Finalize(reserved: *mut c_void): Subject::Nothing, Nothing;

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

    version_3_0 {
        C_LoginUser(session: Session, user: ck::CK_USER_TYPE, pin: Bytes, pin_len: Len, name: Bytes, name_len: Len):
            on_session(session) => version3::login_user(session, user, pin, pin_len, name, name_len);
        C_SessionCancel(session: Session, flags: ck::CK_FLAGS):
            on_session(session) => version3::session_cancel(session, flags);

        C_MessageEncryptInit(session: Session, _mechanism: Way, _key: Key): on_session(session) => NOT_SUPPORTED;
        C_EncryptMessage(session: Session, _parameter: *mut c_void, _parameter_len: Len, _associated: Bytes, _associated_len: Len, _data: Bytes, _data_len: Len, _out: Bytes, _out_len: Place<Len>): on_session(session) => NOT_SUPPORTED;
        C_EncryptMessageBegin(session: Session, _parameter: *mut c_void, _parameter_len: Len, _associated: Bytes, _associated_len: Len): on_session(session) => NOT_SUPPORTED;
        C_EncryptMessageNext(session: Session, _parameter: *mut c_void, _parameter_len: Len, _data: Bytes, _data_len: Len, _out: Bytes, _out_len: Place<Len>, _flags: ck::CK_FLAGS): on_session(session) => NOT_SUPPORTED;
        C_MessageEncryptFinal(session: Session): on_session(session) => NOT_SUPPORTED;

        C_MessageDecryptInit(session: Session, _mechanism: Way, _key: Key): on_session(session) => NOT_SUPPORTED;
        C_DecryptMessage(session: Session, _parameter: *mut c_void, _parameter_len: Len, _associated: Bytes, _associated_len: Len, _data: Bytes, _data_len: Len, _out: Bytes, _out_len: Place<Len>): on_session(session) => NOT_SUPPORTED;
        C_DecryptMessageBegin(session: Session, _parameter: *mut c_void, _parameter_len: Len, _associated: Bytes, _associated_len: Len): on_session(session) => NOT_SUPPORTED;
        C_DecryptMessageNext(session: Session, _parameter: *mut c_void, _parameter_len: Len, _data: Bytes, _data_len: Len, _out: Bytes, _out_len: Place<Len>, _flags: ck::CK_FLAGS): on_session(session) => NOT_SUPPORTED;
        C_MessageDecryptFinal(session: Session): on_session(session) => NOT_SUPPORTED;

        C_MessageSignInit(session: Session, _mechanism: Way, _key: Key): on_session(session) => NOT_SUPPORTED;
        C_SignMessage(session: Session, _parameter: *mut c_void, _parameter_len: Len, _data: Bytes, _data_len: Len, _out: Bytes, _out_len: Place<Len>): on_session(session) => NOT_SUPPORTED;
        C_SignMessageNext(session: Session, _parameter: *mut c_void, _parameter_len: Len, _data: Bytes, _data_len: Len, _out: Bytes, _out_len: Place<Len>): on_session(session) => NOT_SUPPORTED;
        C_SignMessageBegin(session: Session, _parameter: *mut c_void, _parameter_len: Len): on_session(session) => NOT_SUPPORTED;
        C_MessageSignFinal(session: Session): on_session(session) => NOT_SUPPORTED;

        C_MessageVerifyInit(session: Session, _mechanism: Way, _key: Key): on_session(session) => NOT_SUPPORTED;
        C_VerifyMessage(session: Session, _parameter: *mut c_void, _parameter_len: Len, _data: Bytes, _data_len: Len, _signature: Bytes, _signature_len: Len): on_session(session) => NOT_SUPPORTED;
        C_VerifyMessageNext(session: Session, _parameter: *mut c_void, _parameter_len: Len, _data: Bytes, _data_len: Len, _signature: Bytes, _signature_len: Len): on_session(session) => NOT_SUPPORTED;
        C_VerifyMessageBegin(session: Session, _parameter: *mut c_void, _parameter_len: Len): on_session(session) => NOT_SUPPORTED;
        C_MessageVerifyFinal(session: Session): on_session(session) => NOT_SUPPORTED;
    }
}
