//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// The PKCS#11 library of SoftHSM.
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The folder in which cargo put the programs: that of the running test, or the one above.
pub fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("the system knows which program runs");
    let folder = program.parent().expect("a program is in a folder");
    match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().expect("deps is in a folder").to_owned(),
        _ => folder.to_owned(),
    }
}

/// One of `kms-server`, `kms`, `kms-ceremony`.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.is_file(), "{} is not built; run: cargo build --release --workspace", path.display());
    path
}

/// The PKCS#11 library of SoftHSM.
///
/// # Panics
/// When it is not installed.
pub fn softhsm() -> &'static Path {
    let path = Path::new(SOFTHSM);
    assert!(path.is_file(), "{SOFTHSM} is missing; run: apt-get install softhsm2 (scripts/test does)");
    path
}
