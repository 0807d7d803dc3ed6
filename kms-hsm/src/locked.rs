//! Memory for secrets that stays out of swap and core dumps.
#![expect(unsafe_code, reason = "pages are mapped, locked and released through the operating system")]

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use std::alloc::{Layout, handle_alloc_error};
use std::ffi::c_void;
use std::fmt;
use std::ptr::{NonNull, null_mut};
use std::sync::Once;
use zeroize::Zeroize;

/// A fixed number of bytes in pages of their own: locked into memory where the limit allows it,
/// left out of core dumps, wiped when dropped.
///
/// The limit (`RLIMIT_MEMLOCK`) is often 8 MiB or less for all locked pages of a process. Running into it
/// is not an error, because a service that stops there protects nothing: it is logged once, and
/// [`LockedBytes::is_locked`] tells.
pub struct LockedBytes {
    pages: NonNull<u8>,
    len: usize,
    is_locked: bool,
}

// SAFETY: the pages belong to this value alone, like the memory of a `Box<[u8]>`.
unsafe impl Send for LockedBytes {}
// SAFETY: a shared reference gives read access only, like that of a `Box<[u8]>`.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// All zero. `len` is at least 1; it takes whole pages.
    pub fn zeroed(len: usize) -> Self {
        static LIMIT_REACHED: Once = Once::new();
        let len = len.max(1);
        // SAFETY: a null address lets the system choose, so no memory of ours is touched.
        let mapped =
            unsafe { mmap_anonymous(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
        let pages = mapped.ok().and_then(|address| NonNull::new(address.cast::<u8>()));
        let Some(pages) = pages else {
            handle_alloc_error(Layout::array::<u8>(len).unwrap_or(Layout::new::<u8>()))
        };
        let address = pages.as_ptr().cast::<c_void>();
        // SAFETY: address and length are those of the mapping just made.
        let is_locked = unsafe { mlock(address, len) }.is_ok();
        // SAFETY: as above; the advice changes only what a core dump holds.
        let is_left_out_of_dumps = unsafe { madvise(address, len, Advice::LinuxDontDump) }.is_ok();
        if !is_locked || !is_left_out_of_dumps {
            LIMIT_REACHED.call_once(|| {
                tracing::warn!(
                    is_locked,
                    is_left_out_of_dumps,
                    "secrets cannot be kept out of swap or core dumps; raise RLIMIT_MEMLOCK"
                );
            });
        }
        Self { pages, len, is_locked }
    }

    /// A copy of `bytes`, which are at least 1. The caller wipes the original.
    pub fn copied(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.expose_mut()[..bytes.len()].copy_from_slice(bytes);
        copy
    }

    /// Whether the pages are locked into memory.
    pub fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// The bytes themselves. Never hand them to a log macro.
    pub fn expose(&self) -> &[u8] {
        // SAFETY: the mapping is `len` readable bytes, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr(), self.len) }
    }

    /// The bytes themselves, to be filled.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `len` writable bytes, borrowed from nobody else while `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_ptr(), self.len) }
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        self.expose_mut().zeroize();
        // SAFETY: the mapping was made in `zeroed` with this length, and no reference into it is left.
        // Unmapping unlocks. It fails for bad arguments only, and then the wiped pages merely stay.
        let _ = unsafe { munmap(self.pages.as_ptr().cast::<c_void>(), self.len) };
    }
}

impl fmt::Debug for LockedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockedBytes({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_start_at_zero_keep_what_is_written_and_are_never_printed() {
        let mut bytes = LockedBytes::zeroed(5_000);
        assert!(bytes.expose().iter().all(|byte| *byte == 0));
        bytes.expose_mut()[4_999] = 0xab;
        assert_eq!(bytes.expose()[4_999], 0xab);
        assert_eq!(format!("{bytes:?}"), "LockedBytes(5000 bytes)");
    }
}
