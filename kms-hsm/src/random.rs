//! Random bytes of the HSM, kept ready in locked memory.

use crate::locked::LockedBytes;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroize;

/// A stock of random bytes. Every byte is handed out once and wiped here at that moment.
#[derive(Debug)]
pub(crate) struct RandomBuffer {
    stock: Mutex<Stock>,
    len_max: usize,
}

#[derive(Debug)]
struct Stock {
    bytes: LockedBytes,
    /// The first `available` bytes are fresh; the rest is zero.
    available: usize,
}

impl RandomBuffer {
    pub(crate) fn new(len_max: usize) -> Self {
        Self { stock: Mutex::new(Stock { bytes: LockedBytes::zeroed(len_max), available: 0 }), len_max }
    }

    /// Fills `out` when the stock has that many bytes; otherwise changes nothing and says `false`.
    pub(crate) fn take(&self, out: &mut [u8]) -> bool {
        let mut stock = self.lock();
        let Some(left) = stock.available.checked_sub(out.len()) else {
            return false;
        };
        let end = stock.available;
        let fresh = &mut stock.bytes.expose_mut()[left..end];
        out.copy_from_slice(fresh);
        fresh.zeroize();
        stock.available = left;
        true
    }

    /// How many bytes fit in.
    pub(crate) fn room(&self) -> usize {
        self.len_max - self.lock().available
    }

    /// Whether less than half of the stock is left.
    pub(crate) fn is_low(&self) -> bool {
        self.room() > self.len_max / 2
    }

    /// Adds fresh bytes; what does not fit is left out. Wipes `fresh`.
    pub(crate) fn put(&self, fresh: &mut [u8]) {
        let mut stock = self.lock();
        let start = stock.available;
        let end = (start + fresh.len()).min(self.len_max);
        stock.bytes.expose_mut()[start..end].copy_from_slice(&fresh[..end - start]);
        stock.available = end;
        fresh.zeroize();
    }

    /// Throws the stock away.
    pub(crate) fn wipe(&self) {
        let mut stock = self.lock();
        stock.bytes.expose_mut().zeroize();
        stock.available = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        // No code that can panic runs between the changes above that belong together.
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_handed_out_twice_and_none_stays() {
        let buffer = RandomBuffer::new(8);
        let mut fresh = [1, 2, 3, 4, 5, 6];
        buffer.put(&mut fresh);
        assert_eq!(fresh, [0; 6]);
        let (mut first, mut second) = ([0; 4], [0; 2]);
        assert!(buffer.take(&mut first));
        assert!(buffer.take(&mut second));
        assert_eq!((first, second), ([3, 4, 5, 6], [1, 2]));
        assert_eq!(buffer.lock().bytes.expose(), [0; 8]);
    }

    #[test]
    fn too_small_a_stock_gives_nothing_and_stays_whole() {
        let buffer = RandomBuffer::new(8);
        buffer.put(&mut [1, 2, 3]);
        let mut out = [0; 4];
        assert!(!buffer.take(&mut out));
        assert_eq!(out, [0; 4]);
        assert_eq!(buffer.room(), 5);
    }

    #[test]
    fn more_than_fits_is_left_out_and_wiping_leaves_nothing() {
        let buffer = RandomBuffer::new(4);
        assert!(buffer.is_low());
        buffer.put(&mut [9; 6]);
        assert!(!buffer.is_low());
        assert_eq!(buffer.room(), 0);
        buffer.wipe();
        assert_eq!(buffer.room(), 4);
        assert!(!buffer.take(&mut [0; 1]));
        assert_eq!(buffer.lock().bytes.expose(), [0; 4]);
    }
}
