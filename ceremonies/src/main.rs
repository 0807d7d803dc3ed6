//! `kms-ceremony`: see `ceremonies::cli`.

use std::alloc::System;
use std::process::ExitCode;
use zeroizing_alloc::ZeroAlloc;

/// Wipes every freed block: the copies that decoders and libraries make of a share or PIN, too.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    ceremonies::cli::main_from(std::env::args_os())
}
