//! The operating system's random bytes.

use getrandom::SysRng;
use rand_core::UnwrapErr;

/// What `kms-core` takes as `CryptoRng`.
pub type OsRng = UnwrapErr<SysRng>;

/// Random bytes of the operating system. Panics where it has none: every key made without them would be a lie.
pub fn os_rng() -> OsRng {
    UnwrapErr(SysRng)
}
