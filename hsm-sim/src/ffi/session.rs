//! Session management functions.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;

use crate::ffi::{entry, pointer, session};
use crate::module::Module;
use crate::pin::Role;
use crate::refusal::Refusal;
use crate::session::{Access, SessionHandle};
use crate::store::SlotId;

pub unsafe extern "C" fn open_session(
    slot: ck::CK_SLOT_ID,
    flags: ck::CK_FLAGS,
    _application: *mut std::ffi::c_void,
    _notify: ck::CK_NOTIFY,
    handle: *mut ck::CK_SESSION_HANDLE,
) -> ck::CK_RV {
    entry(|| {
        let module = Module::current()?;
        pointer::require_place(handle)?;
        if flags & ck::CKF_SERIAL_SESSION == 0 {
            return Err(Refusal::SessionParallelNotSupported);
        }
        let access = if flags & ck::CKF_RW_SESSION == 0 { Access::ReadOnly } else { Access::ReadWrite };
        let opened = module.open_session(SlotId(slot), access)?;
        // SAFETY: the standard demands a place for the handle; NULL was refused.
        unsafe { pointer::write(handle, opened.0) }
    })
}

pub unsafe extern "C" fn close_session(handle: ck::CK_SESSION_HANDLE) -> ck::CK_RV {
    entry(|| Module::current()?.close_session(SessionHandle(handle)))
}

pub unsafe extern "C" fn close_all_sessions(slot: ck::CK_SLOT_ID) -> ck::CK_RV {
    entry(|| Module::current()?.close_all_sessions(SlotId(slot)))
}

pub unsafe extern "C" fn get_session_info(
    handle: ck::CK_SESSION_HANDLE,
    info: *mut ck::CK_SESSION_INFO,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        let access = match session.access {
            Access::ReadOnly => 0,
            Access::ReadWrite => ck::CKF_RW_SESSION,
        };
        let value = ck::CK_SESSION_INFO {
            slotID: session.token.slot.0,
            state: session.token.session_state(session.access)?,
            flags: ck::CKF_SERIAL_SESSION | access,
            ulDeviceError: 0,
        };
        // SAFETY: the standard demands a place for the structure; NULL is refused.
        unsafe { pointer::write(info, value) }
    })
}

pub unsafe extern "C" fn login(
    handle: ck::CK_SESSION_HANDLE,
    user_type: ck::CK_USER_TYPE,
    pin: *mut ck::CK_UTF8CHAR,
    pin_len: ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        let session = session(handle)?;
        // SAFETY: the standard demands a PIN of this length; NULL is refused.
        let pin = unsafe { pointer::pin(pin.cast_const(), pin_len) }?;
        session.token.log_in(Role::from_user_type(user_type)?, pin)
    })
}

pub unsafe extern "C" fn logout(handle: ck::CK_SESSION_HANDLE) -> ck::CK_RV {
    entry(|| Module::current()?.log_out(SessionHandle(handle)))
}
