//! Bytes as a source of decisions. When they run out, everything is zero.

use cryptoki_sys as ck;

pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    /// A number below `end`, which is at most 256 and not zero.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// True once in so many times.
    pub fn rarely(&mut self, one_in: usize) -> bool {
        self.below(one_in) == one_in - 1
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Any number, most often one at which something happens.
    pub fn number(&mut self) -> ck::CK_ULONG {
        const EDGES: [ck::CK_ULONG; 22] = [
            0,
            1,
            2,
            3,
            8,
            12,
            16,
            24,
            31,
            32,
            33,
            64,
            96,
            128,
            255,
            512,
            513,
            4096,
            1 << 31,
            1 << 40,
            1 << 63,
            ck::CK_ULONG::MAX,
        ];
        if self.rarely(8) {
            ck::CK_ULONG::from_le_bytes(std::array::from_fn(|_| self.byte()))
        } else {
            self.pick(&EDGES)
        }
    }

    /// Up to 600 bytes, which repeat a short pattern so that the input need not be long.
    pub fn bytes(&mut self) -> Vec<u8> {
        const LENS: [usize; 14] = [0, 1, 4, 12, 15, 16, 17, 28, 32, 33, 64, 65, 200, 600];
        let len = self.pick(&LENS);
        let pattern = [self.byte(), self.byte()];
        (0..len).map(|index| pattern[index % 2].wrapping_add(index as u8)).collect()
    }
}
