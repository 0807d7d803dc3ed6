//! The two ends of a stream that nobody holds: what is generated, and what is compared as it comes.

use std::io::{self, Read, Write};

/// A prime, so that what is generated repeats at no border of chunks.
const PERIOD: usize = 131_071;

/// Bytes that look random and repeat after [`PERIOD`].
fn period() -> Box<[u8]> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    (0..PERIOD)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// Where in the period a stream stands.
struct Place {
    period: Box<[u8]>,
    at: usize,
}

impl Place {
    fn new() -> Self {
        Self { period: period(), at: 0 }
    }

    /// The next bytes, `len_max` at most and one at least.
    fn next(&mut self, len_max: usize) -> &[u8] {
        let start = self.at;
        let end = PERIOD.min(start + len_max);
        self.at = end % PERIOD;
        &self.period[start..end]
    }
}

/// A reader of `len` bytes.
pub struct Generated {
    place: Place,
    left: u64,
}

impl Generated {
    pub fn new(len: u64) -> Self {
        Self { place: Place::new(), left: len }
    }
}

impl Read for Generated {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len_max = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        let bytes = self.place.next(len_max);
        out[..bytes.len()].copy_from_slice(bytes);
        self.left -= bytes.len() as u64;
        Ok(bytes.len())
    }
}

/// A writer that takes what [`Generated`] gives and nothing else.
pub struct Compared {
    place: Place,
    len: u64,
}

impl Compared {
    pub fn new() -> Self {
        Self { place: Place::new(), len: 0 }
    }

    /// How many bytes came.
    pub fn len(&self) -> u64 {
        self.len
    }
}

impl Write for Compared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let expected = self.place.next(bytes.len());
        if *expected != bytes[..expected.len()] {
            let at = self.len;
            return Err(io::Error::other(format!("the plaintext differs after byte {at}")));
        }
        self.len += expected.len() as u64;
        Ok(expected.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
