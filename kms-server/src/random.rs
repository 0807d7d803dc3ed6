//! Randomness and time of the process, handed to everything that needs them.

use getrandom::SysRng;
use kms_core::id::UnixMillis;
use rand_core::UnwrapErr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + ahead();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(not(feature = "dev"))]
fn ahead() -> Duration {
    Duration::ZERO
}

#[cfg(feature = "dev")]
static AHEAD_SECONDS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[cfg(feature = "dev")]
fn ahead() -> Duration {
    Duration::from_secs(AHEAD_SECONDS.load(std::sync::atomic::Ordering::Relaxed))
}

/// Lets it be later than the machine's clock says, for tests of what takes days: `KMS_CLOCK_AHEAD` in seconds. Only the
/// command `dev` does this.
#[cfg(feature = "dev")]
pub fn move_clock_ahead() {
    let Some(seconds) = std::env::var("KMS_CLOCK_AHEAD").ok().and_then(|text| text.parse().ok()) else {
        return;
    };
    eprintln!("KMS_CLOCK_AHEAD: the clock is {seconds} s ahead of the machine's");
    AHEAD_SECONDS.store(seconds, std::sync::atomic::Ordering::Relaxed);
}
