//! General-purpose functions.
#![expect(unsafe_code, reason = "C passes pointers")]

use cryptoki_sys as ck;

use crate::ffi::{entry, gate, pointer};
use crate::module::Module;
use crate::refusal::Refusal;

pub const CRYPTOKI_VERSION: ck::CK_VERSION = ck::CK_VERSION { major: 2, minor: 40 };
pub const OWN_VERSION: ck::CK_VERSION = ck::CK_VERSION { major: 0, minor: 1 };

pub unsafe extern "C" fn initialize(arguments: *mut std::ffi::c_void) -> ck::CK_RV {
    entry(|| {
        let arguments: *const ck::CK_C_INITIALIZE_ARGS = arguments.cast_const().cast();
        let count = if arguments.is_null() { 0 } else { 1 };
        // SAFETY: the standard demands that a non-NULL argument points to this structure.
        if let [arguments] = unsafe { pointer::items(arguments, count) }? {
            require_native_locks(arguments)?;
        }
        Module::start()
    })
}

/// The client may forbid threads or allow the system's locks. Its own lock functions cannot be used
/// here, so a client that offers nothing else is refused.
fn require_native_locks(arguments: &ck::CK_C_INITIALIZE_ARGS) -> Result<(), Refusal> {
    if !arguments.pReserved.is_null() {
        return Err(Refusal::ArgumentsBad);
    }
    let functions = [
        arguments.CreateMutex.is_some(),
        arguments.DestroyMutex.is_some(),
        arguments.LockMutex.is_some(),
        arguments.UnlockMutex.is_some(),
    ];
    let allows_native = arguments.flags & ck::CKF_OS_LOCKING_OK != 0;
    match (functions, allows_native) {
        ([false, false, false, false], _) | ([true, true, true, true], true) => Ok(()),
        ([true, true, true, true], false) => Err(Refusal::CannotLock),
        _ => Err(Refusal::ArgumentsBad),
    }
}

pub unsafe extern "C" fn finalize(reserved: *mut std::ffi::c_void) -> ck::CK_RV {
    entry(|| if reserved.is_null() { Module::stop() } else { Err(Refusal::ArgumentsBad) })
}

pub unsafe extern "C" fn get_info(info: *mut ck::CK_INFO) -> ck::CK_RV {
    entry(|| {
        // SAFETY: the standard demands a place for the structure; NULL is refused.
        unsafe { pointer::write(info, self::info(CRYPTOKI_VERSION)?) }
    })
}

pub fn info(version: ck::CK_VERSION) -> Result<ck::CK_INFO, Refusal> {
    Ok(ck::CK_INFO {
        cryptokiVersion: version,
        manufacturerID: padded(Module::current()?.personality.manufacturer),
        flags: 0,
        libraryDescription: padded("simulated HSM, not for real keys"),
        libraryVersion: OWN_VERSION,
    })
}

/// The list of version 2.40, whatever else the module has.
///
/// # Safety
/// Unless it is NULL, `list` points to a place for a pointer.
#[unsafe(export_name = "C_GetFunctionList")]
pub unsafe extern "C" fn get_function_list(list: *mut *mut ck::CK_FUNCTION_LIST) -> ck::CK_RV {
    entry(|| {
        let functions = (&raw const gate::GATED_FUNCTION_LIST).cast_mut();
        // SAFETY: the standard demands a place for the pointer; NULL is refused. The list is constant:
        // the type has no `const` because the headers of the standard have none.
        unsafe { pointer::write(list, functions) }
    })
}

/// Text as the standard wants it: blanks to the end, no terminator. Longer text is cut.
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [b' '; N];
    for (byte, character) in bytes.iter_mut().zip(text.bytes()) {
        *byte = character;
    }
    bytes
}
