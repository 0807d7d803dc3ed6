//! The English word list of BIP-0039, and the words for comparing a digest aloud (docs/formats/custodian.md).

use crate::suite::Digest32;
use alloc::string::String;
use alloc::vec::Vec;

/// Bits that one word stands for.
pub const WORD_BITS: u32 = 11;
/// How many words a digest is compared with whose content nobody chooses freely: 88 bits, against a second content.
const SPOKEN_COUNT: usize = 8;
/// How many words a digest is compared with whose content one person writes: 176 bits. With 88 its author could look
/// for two contents with the same words, in some 2^44 tries.
const SPOKEN_WHOLE_COUNT: usize = 16;
/// A word is known by so many of its letters.
const PREFIX_LEN: usize = 4;
/// So many suggestions are a help, more are a list.
const NEAREST_COUNT_MAX: usize = 3;
/// More letters than this apart is another word, not a typing error.
pub const TYPING_DISTANCE_MAX: usize = 2;

/// One word of the list: its number, below 2,048.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(u16);

static LIST: [&str; 1 << WORD_BITS] = list(include_str!("../data/bip39-english.txt"));

/// The lines of the file. It is read when the crate is built, where a wrong file stops the build.
const fn list(file: &'static str) -> [&'static str; 1 << WORD_BITS] {
    let mut words = [""; 1 << WORD_BITS];
    let (mut rest, mut count) = (file, 0);
    let mut end = 0;
    while end < rest.len() {
        if rest.as_bytes()[end] == b'\n' {
            let (word, after) = rest.split_at(end);
            words[count] = word;
            count += 1;
            rest = after.split_at(1).1;
            end = 0;
        } else {
            end += 1;
        }
    }
    assert!(count == words.len() && rest.is_empty(), "the list has 2,048 lines");
    words
}

impl Word {
    /// The word with this number; `None` from 2,048 on.
    pub const fn new(number: u16) -> Option<Self> {
        if number < 1 << WORD_BITS { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The word itself: 3 to 8 lower-case letters.
    pub fn text(self) -> &'static str {
        LIST[usize::from(self.0)]
    }

    /// Every word, in the order of the list.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..1 << WORD_BITS).map(Self)
    }

    /// The word that somebody typed: whole, or its first four letters or more. Lower case only.
    pub fn find(typed: &str) -> Option<Self> {
        let number = match LIST.binary_search(&typed) {
            Ok(number) => number,
            // The list is sorted: what begins with it stands where it would.
            Err(number) => {
                let begins = LIST.get(number).is_some_and(|word| word.starts_with(typed));
                (typed.len() >= PREFIX_LEN && begins).then_some(number)?
            }
        };
        Some(Self(number as u16))
    }

    /// What somebody may have meant who typed something that is no word: the nearest first, at most three.
    pub fn nearest(typed: &str) -> Vec<Self> {
        let typed: Vec<char> = typed.chars().take(16).collect();
        let mut near: Vec<(usize, Self)> = Self::all()
            .map(|word| (distance(&typed, word.text()), word))
            .filter(|(distance, _)| *distance <= TYPING_DISTANCE_MAX)
            .collect();
        near.sort();
        let best = near.first().map_or(0, |(distance, _)| *distance);
        near.into_iter()
            .filter(|(distance, _)| *distance == best)
            .map(|(_, word)| word)
            .take(NEAREST_COUNT_MAX)
            .collect()
    }

    /// How many typing errors make this word of the other: letters that are wrong, missing, too many or exchanged.
    pub fn typing_distance(self, other: Self) -> usize {
        let letters: Vec<char> = self.text().chars().collect();
        distance(&letters, other.text())
    }
}

/// The distance of optimal string alignment: changes, insertions, deletions and exchanges of neighbours.
fn distance(typed: &[char], word: &str) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=typed.len()).collect();
    let mut last = None;
    for (row, letter) in word.chars().enumerate() {
        let mut current = alloc::vec![row + 1];
        for (column, one) in typed.iter().enumerate() {
            let changed = above[column] + usize::from(*one != letter);
            let mut least = changed.min(above[column + 1] + 1).min(current[column] + 1);
            if column > 0 && last == Some(*one) && typed[column - 1] == letter {
                least = least.min(before[column - 1] + 1);
            }
            current.push(least);
        }
        last = Some(letter);
        before = core::mem::replace(&mut above, current);
    }
    above[typed.len()]
}

/// The bits of `bytes` as words, the last one filled up with zero bits.
pub fn from_bytes(bytes: &[u8]) -> Vec<Word> {
    let (mut held, mut held_bits) = (0_u32, 0);
    let mut words = Vec::new();
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        held_bits += 8;
        if held_bits >= WORD_BITS {
            held_bits -= WORD_BITS;
            words.push(Word((held >> held_bits) as u16));
            held &= (1 << held_bits) - 1;
        }
    }
    if held_bits > 0 {
        words.push(Word((held << (WORD_BITS - held_bits)) as u16));
    }
    words
}

/// The whole bytes that `words` hold, and whether the bits after them are zero.
pub fn to_bytes(words: &[Word]) -> (Vec<u8>, bool) {
    let (mut held, mut held_bits) = (0_u32, 0);
    let mut bytes = Vec::new();
    for word in words {
        held = (held << WORD_BITS) | u32::from(word.0);
        held_bits += WORD_BITS;
        while held_bits >= 8 {
            held_bits -= 8;
            bytes.push((held >> held_bits) as u8);
            held &= (1 << held_bits) - 1;
        }
    }
    (bytes, held == 0)
}

/// How many words hold so many bytes.
pub const fn count_for(byte_count: usize) -> usize {
    (byte_count * 8).div_ceil(WORD_BITS as usize)
}

/// Eight words for comparing aloud a digest of what holds keys or random bytes: a bundle, an enrolment, a share file.
pub fn spoken(digest: &Digest32) -> String {
    first_words(digest, SPOKEN_COUNT)
}

/// Sixteen words for comparing aloud a digest of what one person writes: a plan, an operation.
pub fn spoken_of_plan(digest: &Digest32) -> String {
    first_words(digest, SPOKEN_WHOLE_COUNT)
}

fn first_words(digest: &Digest32, count: usize) -> String {
    let words = from_bytes(&digest.0[..count * WORD_BITS as usize / 8]);
    words.iter().map(|word| word.text()).collect::<Vec<_>>().join(" ")
}

/// A digest in groups of four hexadecimal digits.
pub fn grouped(digest: &Digest32) -> String {
    let digits = digest.to_hex();
    let groups: Vec<&str> =
        digits.as_bytes().chunks(4).map(|group| str::from_utf8(group).expect("digits are ASCII")).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::Digest;

    /// From BIP-0039's english.txt. Another value would make every printed share unreadable.
    #[test]
    fn the_list_is_the_one_of_bip_0039() {
        let file = include_str!("../data/bip39-english.txt");
        let hash = base16ct::lower::encode_string(&sha2::Sha256::digest(file));
        assert_eq!(hash, "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda");
        assert!(LIST.is_sorted() && LIST[0] == "abandon" && LIST[2047] == "zoo");
    }

    #[test]
    fn four_letters_are_enough_and_three_are_not() {
        for word in Word::all() {
            let text = word.text();
            assert_eq!(Word::find(text), Some(word));
            for len in PREFIX_LEN.min(text.len())..=text.len() {
                assert_eq!(Word::find(&text[..len]), Some(word), "{text}");
            }
        }
        for typed in ["", "a", "aba", "abandons", "zzzz", "zooo", "act2"] {
            assert_eq!(Word::find(typed), None, "{typed}");
        }
        assert_eq!(Word::find("act").map(Word::text), Some("act"), "and not action");
    }

    #[test]
    fn a_typing_error_finds_its_word() {
        let near = |typed| Word::nearest(typed).into_iter().map(Word::text).collect::<Vec<_>>();
        assert_eq!(near("abandn"), ["abandon"]);
        assert_eq!(near("abnadon"), ["abandon"], "exchanged letters are one error");
        assert_eq!(near("aband0n"), ["abandon"]);
        assert_eq!(near("4abandon"), ["abandon"]);
        assert_eq!(near("qqqqqqqq"), [""; 0]);
        assert_eq!(near("密码"), [""; 0]);
        assert!(near("cax").len() <= NEAREST_COUNT_MAX);
        let letters: Vec<char> = "teh".chars().collect();
        assert_eq!((distance(&letters, "the"), distance(&letters, "them"), distance(&[], "zoo")), (1, 2, 3));
    }

    #[test]
    fn bytes_become_words_and_bytes_again() {
        for len in 0..64 {
            let bytes: Vec<u8> = (0..len).map(|n: u8| n.wrapping_mul(89).wrapping_add(7)).collect();
            let words = from_bytes(&bytes);
            assert_eq!(words.len(), count_for(bytes.len()));
            let (again, is_zero) = to_bytes(&words);
            assert_eq!(again[..bytes.len()], bytes);
            assert!(is_zero && again[bytes.len()..].iter().all(|byte| *byte == 0));
        }
        assert!(!to_bytes(&[Word(1)]).1, "bits after the last byte are told");
    }

    #[test]
    fn a_digest_has_eight_words_and_sixteen_groups() {
        let digest = Digest32(core::array::from_fn(|n| n as u8));
        assert_eq!(spoken(&digest), "abandon amount liar amount expire adjust cage candy");
        assert_eq!(grouped(&digest).split(' ').count(), 16);
        assert!(grouped(&digest).starts_with("0001 0203"));
    }
}
