//! Interfaces of version 3: the same module under the function lists of two versions.
#![expect(unsafe_code, reason = "C passes pointers")]

use std::ffi::{CStr, c_void};

use cryptoki_sys as ck;

use crate::ffi::{entry, gate, pointer};
use crate::refusal::Refusal;

/// The name of everything that the standard itself defines.
const STANDARD: &CStr = c"PKCS 11";

/// Constant, though the types of the standard's headers have pointers without `const`.
struct Interfaces([ck::CK_INTERFACE; 2]);

// SAFETY: what is pointed to is constant, and so are the pointers.
unsafe impl Sync for Interfaces {}

/// The newest first: it is what a client gets that names neither name nor version.
static INTERFACES: Interfaces = Interfaces([
    interface((&raw const gate::GATED_FUNCTION_LIST_3_0).cast()),
    interface((&raw const gate::GATED_FUNCTION_LIST).cast()),
]);

const fn interface(functions: *const c_void) -> ck::CK_INTERFACE {
    // No flags: after a fork the child must initialise the module for itself.
    ck::CK_INTERFACE {
        pInterfaceName: STANDARD.as_ptr().cast_mut().cast(),
        pFunctionList: functions.cast_mut(),
        flags: 0,
    }
}

/// # Safety
/// Unless it is NULL, `count` points to a count; unless it is NULL, `interfaces` points to that many
/// places.
#[unsafe(export_name = "C_GetInterfaceList")]
pub unsafe extern "C" fn get_interface_list(
    interfaces: *mut ck::CK_INTERFACE,
    count: *mut ck::CK_ULONG,
) -> ck::CK_RV {
    entry(|| {
        // SAFETY: the caller's promise, passed on.
        unsafe { pointer::list(&INTERFACES.0, interfaces, count) }
    })
}

/// # Safety
/// Unless it is NULL, `name` points to a text that ends with a zero byte, `version` to a version, and
/// `found` to a place for a pointer.
#[unsafe(export_name = "C_GetInterface")]
pub unsafe extern "C" fn get_interface(
    name: *mut ck::CK_UTF8CHAR,
    version: *mut ck::CK_VERSION,
    found: *mut *mut ck::CK_INTERFACE,
    flags: ck::CK_FLAGS,
) -> ck::CK_RV {
    entry(|| {
        pointer::require_place(found)?;
        // SAFETY: the caller's promise: not NULL is a text with its end.
        let is_named = name.is_null() || unsafe { CStr::from_ptr(name.cast_const().cast()) } == STANDARD;
        let count = if version.is_null() { 0 } else { 1 };
        // SAFETY: the caller's promise.
        let version = unsafe { pointer::items(version.cast_const(), count) }?.first();
        let fits = |interface: &&ck::CK_INTERFACE| {
            let list: *const ck::CK_VERSION = interface.pFunctionList.cast_const().cast();
            // SAFETY: both function lists begin with their version.
            let own = unsafe { list.read() };
            let is_version = version.is_none_or(|asked| (asked.major, asked.minor) == (own.major, own.minor));
            is_named && is_version && interface.flags & flags == flags
        };
        let interface = INTERFACES.0.iter().find(fits).ok_or(Refusal::FunctionFailed)?;
        // SAFETY: NULL was refused; a place for a pointer is the caller's promise.
        unsafe { pointer::write(found, (&raw const *interface).cast_mut()) }
    })
}
