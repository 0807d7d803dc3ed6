//! Inputs out of examples: flipped, cut, grown, joined, with lengths that lie and nests that do not end.

use crate::random::Random;

/// Longest input, in bytes: beyond the examples and a deep nest.
const LEN_MAX: usize = 32 * 1024;

/// What parsers stumble over: the largest and smallest numbers, heads of CBOR and DER that announce too much or no end,
/// and characters that texts do not expect.
const EXTREMES: [&[u8]; 28] = [
    &[0],
    &[0xff],
    &[0x7f],
    &[0x80],
    &[0; 4],
    &[0xff; 4],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0xff; 8],
    &[0; 32],
    &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xbb, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    &[0x5f, 0x41, 0x00, 0xff],
    &[0x9f, 0xff],
    &[0xbf, 0xff],
    &[0xf6],
    &[0x30, 0x80, 0, 0],
    &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
    &[0x02, 0x81, 0x01, 0x01],
    &[0x02, 0x02, 0x00, 0x01],
    "\u{202e}é\u{0}".as_bytes(),
    b"\r\n",
    b"@+007",
    b"\\,=\"",
];

/// What nests: a list, a map and a tag of CBOR, a sequence of DER, brackets of TOML.
const NESTS: [&[u8]; 5] = [&[0x81], &[0xa1, 0x00], &[0xc1], &[0x30, 0x80], b"["];

/// The next input.
pub fn next(random: &mut Random, examples: &[Vec<u8>]) -> Vec<u8> {
    if examples.is_empty() || random.below(32) == 0 {
        let len = random.below(300);
        return random.bytes(len);
    }
    let mut input = random.pick(examples).clone();
    for _ in 0..1 + random.below(3) {
        change(random, &mut input, examples);
    }
    input.truncate(LEN_MAX);
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, examples: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    let end = at + random.below((input.len() - at).min(40) + 1);
    match random.below(12) {
        0..=2 if at < input.len() => input[at] ^= 1 << random.below(8),
        3 if at < input.len() => input[at] = random.number() as u8,
        4 if at < input.len() => {
            let step = if random.below(2) == 0 { 1 } else { u8::MAX };
            input[at] = input[at].wrapping_add(step);
        }
        5 => input.truncate(at),
        6 => drop(input.drain(at..end)),
        7 => {
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        8 => {
            let extreme = random.pick(&EXTREMES).iter().copied();
            // In the place of as many bytes, or between them.
            let end = if random.below(2) == 0 { input.len().min(at + extreme.len()) } else { at };
            input.splice(at..end, extreme);
        }
        9 => lie(random, input, at),
        10 => {
            let other = random.pick(examples);
            let start = random.below(other.len() + 1);
            let rest = other[start..].to_vec();
            input.splice(at.., rest);
        }
        11 if random.below(50) == 0 => {
            let nest = random.pick(&NESTS).repeat(1 + random.below(6000));
            input.splice(at..at, nest);
        }
        _ => {
            let len = random.below(20);
            let more = random.bytes(len);
            input.splice(at..at, more);
        }
    }
}

/// Writes a length that is nearly right, or far from it, over 1, 2 or 4 bytes.
fn lie(random: &mut Random, input: &mut [u8], at: usize) {
    let rest = (input.len() - at) as u32;
    let len = *random.pick(&[0, 1, rest.saturating_sub(1), rest, rest + 1, u32::MAX, u32::MAX / 2]);
    let bytes = len.to_be_bytes();
    let width = *random.pick(&[1, 2, 4]);
    for (place, byte) in input[at..].iter_mut().zip(&bytes[4 - width..]) {
        *place = *byte;
    }
}
