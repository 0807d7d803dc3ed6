//! The calls of `tests/fuzz`, guided by coverage and watched by the address sanitizer.
//!
//! It is no part of the workspace and of no check: `scripts/deep fuzz` builds and runs it.
//!
//! Leaks are not looked for: the module keeps its statics for ever.
#![no_main]

#[path = "../../tests/fuzz/calls.rs"]
mod calls;
#[path = "../../tests/fuzz/input.rs"]
mod input;
#[path = "../../tests/fuzz/memory.rs"]
mod memory;
#[path = "../../tests/fuzz/operations.rs"]
mod operations;
#[path = "../../tests/fuzz/parameter.rs"]
mod parameter;
#[path = "../../tests/fuzz/world.rs"]
mod world;

use std::cell::OnceCell;
use std::ptr::null_mut;

use cryptoki_sys as ck;
use libfuzzer_sys::fuzz_target;
use world::World;

unsafe extern "C" {
    fn C_GetInterface(
        name: *mut ck::CK_UTF8CHAR,
        version: *mut ck::CK_VERSION,
        found: *mut *mut ck::CK_INTERFACE,
        flags: ck::CK_FLAGS,
    ) -> ck::CK_RV;
}

thread_local! {
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

/// The functions of the module that is linked into this program.
fn functions() -> ck::CK_FUNCTION_LIST_3_0 {
    // The linker leaves out a library of which nothing is used.
    assert_ne!(hsm_sim::module_file_name(), "");
    let mut found = null_mut();
    // SAFETY: NULL is allowed for the name and the version.
    let answer = unsafe { C_GetInterface(null_mut(), null_mut(), &raw mut found, 0) };
    assert_eq!(answer, ck::CKR_OK);
    // SAFETY: the default interface is that of 3.0, and a static of the library.
    unsafe { *(*found).pFunctionList.cast() }
}

fuzz_target!(|data: &[u8]| {
    WORLD.with(|world| {
        let world = world.get_or_init(|| World::new(functions()));
        world.restore();
        calls::fuzz_calls(world.functions(), data);
    });
});
