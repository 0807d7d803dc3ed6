//! A PKCS#11 2.40 module that behaves like a hardware security module, for tests and development.
//!
//! It is a double of a real device and on purpose shares no code with the crates that drive it: a
//! double that shares our code agrees with our bugs. Point the environment variable `HSM_SIM_DIR`
//! at a directory and load `libhsm_sim.so` as any other PKCS#11 module.
//!
//! What it deliberately is not: a place for production keys. Whoever can read the directory can
//! copy a token, keep the copy, and go on using it with an old PIN for ever; real hardware cannot
//! be copied, and forgets.
//!
//! `docs/hsm-sim.md` says what it does and what it does not.
//!
//! Where things are:
//! - `ffi/`: one file per chapter of the standard; pointers, lengths and panics, nothing else. There
//!   is no `unsafe` code but there and in `mechanism/rsa_library`.
//! - `module`: the slots and sessions of this process.
//! - `token`: login and PIN rules of one token; `token_objects`: who may see and change which of its
//!   objects; `object_table`: the handles of this process.
//! - `store`: the directories, locks and atomic writes; `stored`: the file formats; `pin`: PINs and
//!   what is sealed under them.
//! - `attribute`, `object`, `creation`, `storage_object`: what an object may say about itself, and how
//!   it is born.
//! - `session`: the operations that run in one session; `wrapping`: keys that leave and enter under
//!   other keys, and keys made of keys; `mechanism/`: the algorithms.
//! - `key_kind`, `private_key`: kinds of keys, and the form in which private ones travel.
//! - `personality`: vendor codes and conventions, as data.
//! - `fault/`: the control file that scripts how the module misbehaves; `ffi/gate` applies it.

mod attribute;
mod creation;
mod fault;
mod ffi;
mod key_kind;
mod mechanism;
mod module;
mod object;
mod object_table;
mod personality;
mod pin;
mod private_key;
mod random;
mod refusal;
mod session;
mod storage_object;
mod store;
mod stored;
mod token;
mod token_objects;
mod wrapping;

/// File name of the shared object that cargo builds from this crate. Tests look for it beside their
/// own executable, or one directory above it.
pub fn module_file_name() -> &'static str {
    "libhsm_sim.so"
}

/// The environment variable that names the directory of the tokens.
pub const DIRECTORY_VARIABLE: &str = "HSM_SIM_DIR";

/// The environment variable that names the vendor whose numbers and conventions the module has from
/// `C_Initialize` on. Without it the module is Sansec's.
pub const PERSONALITY_VARIABLE: &str = "HSM_SIM_PERSONALITY";
