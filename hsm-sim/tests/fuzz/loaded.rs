//! The real shared object, as clients load it.
#![expect(unsafe_code, reason = "the fuzzer calls C functions")]

use std::ptr::null_mut;

use cryptoki_sys as ck;

/// The functions of the shared object, which stays loaded for ever.
pub fn functions() -> ck::CK_FUNCTION_LIST_3_0 {
    let executable = std::env::current_exe().expect("the system knows this executable");
    let path = executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(hsm_sim::module_file_name()))
        .find(|path| path.exists())
        .expect("cargo builds the shared object together with its tests");
    // SAFETY: the module's initialisers do nothing.
    let library = unsafe { ck::Pkcs11::new(path) }.expect("the module loads");
    let library = Box::leak(Box::new(library));
    let mut found: *mut ck::CK_INTERFACE = null_mut();
    // SAFETY: NULL is allowed for the name and the version.
    let answer = unsafe { library.C_GetInterface(null_mut(), null_mut(), &raw mut found, 0) };
    assert_eq!(answer, ck::CKR_OK);
    // SAFETY: the default interface is that of 3.0, and a static of the library.
    unsafe { *(*found).pFunctionList.cast::<ck::CK_FUNCTION_LIST_3_0>() }
}
