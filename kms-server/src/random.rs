//! Randomness and time of the process, handed to everything that needs them.

use getrandom::SysRng;
use kms_core::id::UnixMillis;
use rand_core::UnwrapErr;
use std::time::{SystemTime, UNIX_EPOCH};

/// The operating system's generator. It panics when the system has none: going on without would be worse.
pub type SystemRng = UnwrapErr<SysRng>;

/// The operating system's generator.
pub fn system_rng() -> SystemRng {
    UnwrapErr(SysRng)
}

/// 16 random bytes, for ids that are not key ids.
pub fn random_id() -> [u8; 16] {
    use rand_core::Rng;
    let mut id = [0; 16];
    system_rng().fill_bytes(&mut id);
    id
}

/// The wall clock.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
