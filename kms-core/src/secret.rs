//! Bytes that must not be printed, compared in variable time or left in memory.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Secret bytes of variable length, wiped when dropped.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of `bytes`; no copy is made.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves. Never hand them to a log macro.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes themselves, to be filled.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Compares in time that does not depend on the contents. Another length is never equal.
    pub fn is_equal(&self, other: &[u8]) -> bool {
        self.0.as_slice().ct_eq(other).into()
    }

    /// Moves the bytes out, still wiped when dropped.
    pub fn into_zeroizing(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Exactly `N` secret bytes on the heap, wiped when dropped.
///
/// They are boxed so that moving the value moves a pointer and leaves no copy on the stack.
pub struct SecretBytes<const N: usize>(Box<[u8; N]>);

impl<const N: usize> SecretBytes<N> {
    /// All zero, to be filled through [`SecretBytes::expose_mut`].
    pub fn zeroed() -> Self {
        Self(Box::new([0; N]))
    }

    /// Copies exactly `N` bytes; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut out = Self::zeroed();
        (bytes.len() == N).then(|| out.0.copy_from_slice(bytes))?;
        Some(out)
    }

    /// Fresh random bytes.
    pub fn random(rng: &mut impl rand_core::CryptoRng) -> Self {
        let mut out = Self::zeroed();
        rng.fill_bytes(out.expose_mut());
        out
    }

    /// The bytes themselves. Never hand them to a log macro.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes themselves, to be filled.
    pub fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }

    /// Compares in time that does not depend on the contents.
    pub fn is_equal(&self, other: &[u8]) -> bool {
        self.0.ct_eq(other).into()
    }
}

impl<const N: usize> Drop for SecretBytes<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> fmt::Debug for SecretBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({N} bytes)")
    }
}

/// How much of the stack is overwritten, in words of 8 bytes: far more than any primitive here uses.
const STACK_WORDS: usize = 2048;

/// Runs `work` and then overwrites what it left behind on the stack.
///
/// Libraries copy keys into local variables that nobody wipes (an HMAC pads its key in one). They would stay in
/// the memory of a sealed server until something else happens to need the same part of the stack.
pub fn leaving_no_stack<T>(work: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn run<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    #[inline(never)]
    fn overwrite() {
        // One plain store of the whole area, which the compiler cannot leave out: somebody might look at it.
        let mut area = [0_u64; STACK_WORDS];
        core::hint::black_box(&mut area);
    }
    let result = run(work);
    overwrite();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn debug_shows_lengths_and_never_bytes() {
        assert_eq!(format!("{:?}", Secret::new(alloc::vec![0xab; 5])), "Secret(5 bytes)");
        assert_eq!(format!("{:?}", SecretBytes::<4>::zeroed()), "SecretBytes(4 bytes)");
    }
}
