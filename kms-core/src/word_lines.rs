//! Words in numbered lines with a check word each, and what is wrong with them when people type them back
//! (docs/formats/custodian.md).

use crate::words::{TYPING_DISTANCE_MAX, WORD_BITS, Word};
use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Words of a line without its check word. Only the last line may have fewer.
pub const LINE_LEN: usize = 7;
/// More lines than any print has.
pub const LINE_COUNT_MAX: usize = 22;
/// The check's polynomial without its highest bit: x^11 + x^2 + 1.
const POLYNOMIAL: u16 = 0b101;

/// What is wrong with one line, or with the lines together. Lines and words count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineProblem {
    /// Not in the list.
    UnknownWord {
        /// Which line.
        line: usize,
        /// Which word of it.
        position: usize,
        /// As it was typed.
        typed: String,
        /// Words that are nearly the same.
        nearest: Vec<Word>,
    },
    /// A word is missing or one too many.
    WordCount {
        /// Which line.
        line: usize,
        /// How many words it has.
        found: usize,
        /// How many it must have; without it, 2 to 8.
        needed: Option<usize>,
    },
    /// The line does not fit its check word.
    Check {
        /// Which line.
        line: usize,
        /// What it would fit with.
        hint: Option<Hint>,
    },
    /// The line is right, but it is another one.
    Misplaced {
        /// Where it stands.
        line: usize,
        /// Which line it is.
        is: usize,
    },
    /// Lines that are not there.
    Missing {
        /// The first one.
        first: usize,
        /// The last one.
        last: usize,
    },
    /// A number that was there before.
    Repeated {
        /// Which line.
        line: usize,
    },
    /// More lines than the first line says.
    Beyond {
        /// The number of the line.
        line: usize,
        /// The last line that there can be.
        last: usize,
    },
}

/// The one small change after which a line would fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// One word is another one that looks nearly the same.
    Instead {
        /// Which word of the line.
        position: usize,
        /// As it was read.
        found: Word,
        /// What would fit.
        fits: Word,
    },
    /// Two neighbours changed places.
    Exchanged {
        /// The first of the two.
        position: usize,
    },
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hint::Instead { position, found, fits } => {
                write!(f, "is word {position} {:?} instead of {:?}?", fits.text(), found.text())
            }
            Hint::Exchanged { position } => {
                write!(f, "have words {position} and {} changed places?", position + 1)
            }
        }
    }
}

impl fmt::Display for LineProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineProblem::UnknownWord { line, position, typed, nearest } => {
                write!(f, "line {line}, word {position}: {typed:?} is not in the list")?;
                match nearest.as_slice() {
                    [] => Ok(()),
                    words => {
                        let words: Vec<&str> = words.iter().map(|word| word.text()).collect();
                        write!(f, "; did you mean {}?", words.join(" or "))
                    }
                }
            }
            LineProblem::WordCount { line, found, needed: Some(needed) } => {
                write!(f, "line {line} has {found} words, it must have {needed}")
            }
            LineProblem::WordCount { line, found, needed: None } => {
                write!(f, "line {line} has {found} words, a line has 2 to {}", LINE_LEN + 1)
            }
            LineProblem::Check { line, hint: Some(hint) } => {
                write!(f, "line {line} has an error: its words do not fit its last word; {hint}")
            }
            LineProblem::Check { line, hint: None } => {
                write!(f, "line {line} has an error: its words do not fit its last word")
            }
            LineProblem::Misplaced { line, is } => {
                write!(f, "line {line} has the words of line {is}")
            }
            LineProblem::Missing { first, last } if first == last => write!(f, "line {first} is missing"),
            LineProblem::Missing { first, last } => write!(f, "lines {first} to {last} are missing"),
            LineProblem::Repeated { line } => write!(f, "line {line} is there twice"),
            LineProblem::Beyond { line, last } => {
                write!(f, "there is no line {line}; the last one is line {last}")
            }
        }
    }
}

/// The check word of a line.
fn check(number: usize, words: &[Word]) -> Word {
    let number = u16::try_from(number).unwrap_or(u16::MAX) % (1 << WORD_BITS);
    let remainder = words.iter().map(|word| word.number()).fold(shift(number), |sum, word| shift(sum ^ word));
    Word::new(remainder).expect("a remainder has 11 bits")
}

/// Times x^11, modulo the polynomial.
fn shift(mut value: u16) -> u16 {
    for _ in 0..WORD_BITS {
        value <<= 1;
        if value >> WORD_BITS != 0 {
            value ^= 1 << WORD_BITS | POLYNOMIAL;
        }
    }
    value
}

/// The inverse of [`shift`].
fn shift_back(mut value: u16) -> u16 {
    for _ in 0..WORD_BITS {
        if value & 1 != 0 {
            value ^= 1 << WORD_BITS | POLYNOMIAL;
        }
        value >>= 1;
    }
    value
}

/// A line as it was read: whether its last word is the check of the others.
fn fits(number: usize, line: &[Word]) -> bool {
    line.split_last().is_some_and(|(last, words)| check(number, words) == *last)
}

/// Words as lines, each with its check word at the end.
pub fn write(words: &[Word]) -> Vec<Vec<Word>> {
    let line = |(position, words): (usize, &[Word])| {
        let mut line = words.to_vec();
        line.push(check(position + 1, words));
        line
    };
    words.chunks(LINE_LEN).enumerate().map(line).collect()
}

/// How many words line `number` of a print with `word_count` words has, its check word included.
pub fn len_of(number: usize, word_count: usize) -> usize {
    word_count.saturating_sub((number - 1) * LINE_LEN).min(LINE_LEN) + 1
}

/// What a person typed, as words without anything else: lower case, and Latin letters where an input method
/// gave the wide ones.
fn tokens(text: &str) -> impl Iterator<Item = String> {
    let plain: String = text
        .chars()
        .map(|letter| match letter {
            '\u{ff01}'..='\u{ff5e}' => {
                char::from_u32(u32::from(letter) - 0xfee0).expect("the wide forms are ASCII shifted")
            }
            other => other,
        })
        .map(|letter| if letter.is_alphanumeric() { letter.to_ascii_lowercase() } else { ' ' })
        .collect();
    plain.split(' ').filter(|token| !token.is_empty()).map(ToOwned::to_owned).collect::<Vec<_>>().into_iter()
}

/// A line's number. No print has so many lines as the largest: what is larger is one behind the last, too.
fn line_number(token: &str) -> Option<usize> {
    const LARGEST: usize = 999;
    token
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| token.parse().map_or(LARGEST, |is: usize| is.min(LARGEST)))
}

/// Reads one typed line. `needed` is how many words it must have, where that is known.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_line(number: usize, text: &str, needed: Option<usize>) -> Result<Vec<Word>, Vec<LineProblem>> {
    let typed: Vec<String> = tokens(text).filter(|token| line_number(token).is_none()).collect();
    to_line(number, &typed, needed)
}

fn to_line(number: usize, typed: &[String], needed: Option<usize>) -> Result<Vec<Word>, Vec<LineProblem>> {
    let mut problems = Vec::new();
    let mut line = Vec::new();
    for (position, text) in typed.iter().enumerate() {
        match Word::find(text) {
            Some(word) => line.push(word),
            None => problems.push(LineProblem::UnknownWord {
                line: number,
                position: position + 1,
                typed: text.chars().take(24).collect(),
                nearest: Word::nearest(text),
            }),
        }
    }
    let found = typed.len();
    if needed.map_or(!(2..=LINE_LEN + 1).contains(&found), |needed| found != needed) {
        problems.push(LineProblem::WordCount { line: number, found, needed });
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if fits(number, &line) {
        return Ok(line);
    }
    Err([match (1..=LINE_COUNT_MAX).find(|other| fits(*other, &line)) {
        Some(is) => LineProblem::Misplaced { line: number, is },
        None => LineProblem::Check { line: number, hint: hint(number, &line) },
    }]
    .into())
}

/// The small change after which the line fits, when there is exactly one.
fn hint(number: usize, line: &[Word]) -> Option<Hint> {
    let mut hints = Vec::new();
    for position in 1..line.len() {
        let mut exchanged = line.to_owned();
        exchanged.swap(position - 1, position);
        if fits(number, &exchanged) {
            hints.push(Hint::Exchanged { position });
        }
    }
    // The check is linear: from the difference of the last word follows what each word would have to differ in.
    let (last, words) = line.split_last()?;
    let mut difference = check(number, words).number() ^ last.number();
    for (position, found) in line.iter().enumerate().rev() {
        let fits = Word::new(found.number() ^ difference).expect("a difference has 11 bits");
        if found.typing_distance(fits) <= TYPING_DISTANCE_MAX {
            hints.push(Hint::Instead { position: position + 1, found: *found, fits });
        }
        difference = shift_back(difference);
    }
    match hints.as_slice() {
        [_] => hints.pop(),
        _ => None,
    }
}

/// A line of a text, before its words are looked at.
struct Entry {
    number: Option<usize>,
    typed: Vec<String>,
}

/// A new line or a number begins a line. Lines without words are left out.
fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines() {
        let mut current = Entry { number: None, typed: Vec::new() };
        for token in tokens(line) {
            if let Some(number) = line_number(&token) {
                let next = Entry { number: Some(number), typed: Vec::new() };
                entries.push(core::mem::replace(&mut current, next));
            } else {
                current.typed.push(token);
            }
        }
        entries.push(current);
    }
    entries.retain(|entry| !entry.typed.is_empty());
    entries
}

/// The number under which a line without a typing error fits.
fn place(entry: &Entry) -> Option<usize> {
    let line: Vec<Word> = entry.typed.iter().map(|typed| Word::find(typed)).collect::<Option<_>>()?;
    (1..=LINE_COUNT_MAX).find(|number| fits(*number, &line))
}

/// Says which line each entry is meant to be: its own number, or the one after the line before, where lines
/// that were left out are noticed.
fn number_entries(entries: &[Entry]) -> Vec<usize> {
    let places: Vec<Option<usize>> = entries.iter().map(place).collect();
    let mut next = 1;
    let mut numbers = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        let number = entry.number.unwrap_or_else(|| match places[position] {
            // Lines from `next` on were left out when no other entry is one of them.
            Some(is) if is > next && !(next..is).any(|left_out| places.contains(&Some(left_out))) => is,
            _ => next,
        });
        numbers.push(number);
        next = number.saturating_add(1);
    }
    numbers
}

/// Reads all lines of a text. `word_count` says from the first line's words how many words there are in all.
///
/// # Errors
/// Everything that is wrong, in the order of the lines.
pub fn read_text(
    text: &str,
    word_count: impl Fn(&[Word]) -> Option<usize>,
) -> Result<Vec<Word>, Vec<LineProblem>> {
    let entries = entries(text);
    let mut by_number: Vec<(usize, &Entry)> = number_entries(&entries).into_iter().zip(&entries).collect();
    by_number.sort_by_key(|(number, _)| *number);
    let first = by_number.iter().find(|(number, _)| *number == 1);
    let first = first.and_then(|(_, entry)| to_line(1, &entry.typed, None).ok());
    let count = first.and_then(|line| word_count(&line[..line.len() - 1]));
    let last = count.map(|count| count.div_ceil(LINE_LEN));
    let mut problems = Vec::new();
    let mut words = Vec::new();
    let mut before = 0;
    for (number, entry) in by_number {
        if number > before + 1 && last.is_none_or(|last| before < last) {
            let up_to = last.unwrap_or(LINE_COUNT_MAX).min(number - 1);
            problems.push(LineProblem::Missing { first: before + 1, last: up_to });
        }
        if number == 0 || number > last.unwrap_or(LINE_COUNT_MAX) {
            problems.push(LineProblem::Beyond { line: number, last: last.unwrap_or(LINE_COUNT_MAX) });
        } else if number == before {
            problems.push(LineProblem::Repeated { line: number });
        } else {
            match to_line(number, &entry.typed, count.map(|count| len_of(number, count))) {
                Ok(line) => words.extend_from_slice(&line[..line.len() - 1]),
                Err(found) => problems.extend(found),
            }
        }
        before = before.max(number);
    }
    match last {
        Some(last) if before < last => problems.push(LineProblem::Missing { first: before + 1, last }),
        None if before == 0 => problems.push(LineProblem::Missing { first: 1, last: 1 }),
        _ => {}
    }
    if problems.is_empty() { Ok(words) } else { Err(problems) }
}

/// All problems, one a line.
pub fn to_text(problems: &[LineProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_is_primitive_and_a_shift_can_be_undone() {
        let mut value = 1;
        let mut order = 0;
        loop {
            // One step of x at a time: x^11 eleven times less often would also come back.
            value <<= 1;
            if value >> WORD_BITS != 0 {
                value ^= 1 << WORD_BITS | POLYNOMIAL;
            }
            order += 1;
            if value == 1 {
                break;
            }
        }
        assert_eq!(order, 2047);
        assert!((0..2048).all(|value| shift_back(shift(value)) == value));
    }

    #[test]
    fn every_wrong_word_of_a_line_and_every_other_place_is_found() {
        let words: Vec<Word> =
            [5, 2047, 0, 1024, 77, 77, 1].map(|n| Word::new(n).expect("below 2,048")).to_vec();
        for len in 1..=LINE_LEN {
            for number in 1..=LINE_COUNT_MAX {
                let line = [&words[..len], &[check(number, &words[..len])]].concat();
                assert!((1..=LINE_COUNT_MAX).all(|other| fits(other, &line) == (other == number)));
                for place in 0..line.len() {
                    let mut changed = line.clone();
                    for word in Word::all() {
                        changed[place] = word;
                        assert_eq!(fits(number, &changed), word == line[place]);
                    }
                }
            }
        }
    }
}
