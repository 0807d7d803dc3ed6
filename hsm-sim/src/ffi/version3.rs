//! What version 3.0 added and this module does. It processes no messages: those functions are refused
//! in `gate`.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;

use crate::ffi::{entry, general, pointer, session};
use crate::refusal::Refusal;

pub const VERSION: ck::CK_VERSION = ck::CK_VERSION { major: 3, minor: 0 };

/// The `C_GetInfo` of the list of version 3.0: a client finds one version in the list and here.
pub unsafe extern "C" fn get_info(info: *mut ck::CK_INFO) -> ck::CK_RV {
    entry(|| {
        // SAFETY: the standard demands a place for the structure; NULL is refused.
        unsafe { pointer::write(info, general::info(VERSION)?) }
    })
}

/// Users have no names here: without one it is `C_Login`.
pub unsafe extern "C" fn login_user(
    handle: ck::CK_SESSION_HANDLE,
    user_type: ck::CK_USER_TYPE,
    pin: *mut ck::CK_UTF8CHAR,
    pin_len: ck::CK_ULONG,
    _name: *mut ck::CK_UTF8CHAR,
    name_len: ck::CK_ULONG,
) -> ck::CK_RV {
    if name_len != 0 {
        return entry(|| session(handle).and(Err(Refusal::FunctionNotSupported)));
    }
    // SAFETY: the promise about the PIN is the same.
    unsafe { super::session::login(handle, user_type, pin, pin_len) }
}

/// Ends operations. Flags of operations that do not run, or that this module does not have, do nothing.
pub unsafe extern "C" fn session_cancel(handle: ck::CK_SESSION_HANDLE, flags: ck::CK_FLAGS) -> ck::CK_RV {
    entry(|| session(handle)?.cancel(flags))
}
