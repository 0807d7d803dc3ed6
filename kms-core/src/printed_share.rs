//! A share file on paper: a compact form of its bytes, as words and as the text of a QR code
//! (docs/formats/custodian.md). It stays sealed under the passphrase, as it is in the file.

use crate::codec::VersionOne;
use crate::id::CustodianName;
use crate::passphrase::PassphraseBox;
use crate::quorum::SECRET_LEN;
use crate::share::{ShareLabel, StoredShare};
use crate::suite::{NONCE_LEN, Suite, TAG_LEN};
use crate::word_lines::{self, LineProblem};
use crate::words::{self, Word};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

const QR_PREFIX: &str = "KMS-SHARE-1:";
const CLUSTER_ID_LEN: usize = 16;
const SALT_LEN: usize = 16;
const CIPHERTEXT_LEN: usize = 2 * SECRET_LEN + TAG_LEN;
const CHECK_LEN: usize = 4;
/// Bytes of the compact form without the name.
const FIXED_LEN: usize = 1 + 1 + CLUSTER_ID_LEN + 4 + 1 + 3 + 1 + SALT_LEN + NONCE_LEN + CIPHERTEXT_LEN;

/// Why a print is not read, or a share not printed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrintedShareError {
    /// The share is not as this version writes it.
    #[error(
        "the share's {field} has no place in a print, format 1; change its passphrase, which writes it anew"
    )]
    NotPrintable {
        /// Which field.
        field: &'static str,
    },
    /// Some lines are wrong.
    #[error("the words are not all right:\n{}", word_lines::to_text(.0))]
    Lines(Vec<LineProblem>),
    /// Every line is right, but they do not belong together.
    #[error("every line is right, but not all of them are of one print; was a share printed twice?")]
    Mixed,
    /// The text of a QR code has another beginning.
    #[error("this is not the QR code of a printed share: its text begins with KMS-SHARE-1:")]
    NotQrText,
    /// The digits of a QR code are not complete or were changed.
    #[error("the text of the QR code is damaged; scan it again, or type the words")]
    DamagedQrText,
    /// Another version of the format, or none.
    #[error("the print is of a format that this version does not know")]
    Unknown,
}

fn format_byte(suite: Suite) -> u8 {
    match suite {
        Suite::Sm => 0x11,
        Suite::Intl => 0x12,
    }
}

/// The compact form.
///
/// # Errors
/// [`PrintedShareError::NotPrintable`] for a share that [`StoredShare::seal`] did not make.
pub fn to_compact(share: &StoredShare) -> Result<Vec<u8>, PrintedShareError> {
    let ShareLabel { cluster_id, share_epoch, custodian, share_index } = &share.label;
    let PassphraseBox { version: VersionOne, suite, memory_kib, pass_count, salt, nonce, ciphertext } =
        &share.shares;
    let not_printable = |field| PrintedShareError::NotPrintable { field };
    let [0, memory @ ..] = memory_kib.to_be_bytes() else { return Err(not_printable("Argon2id memory")) };
    let pass_count = u8::try_from(*pass_count).map_err(|_| not_printable("number of Argon2id passes"))?;
    for (field, bytes, len) in
        [("salt", salt, SALT_LEN), ("nonce", nonce, NONCE_LEN), ("ciphertext", ciphertext, CIPHERTEXT_LEN)]
    {
        if bytes.len() != len {
            return Err(not_printable(field));
        }
    }
    let name = custodian.as_str().as_bytes();
    let name_len = u8::try_from(name.len()).expect("a name has at most 64 bytes");
    Ok([
        &[format_byte(*suite), name_len],
        name,
        cluster_id,
        &share_epoch.to_be_bytes(),
        &[*share_index],
        &memory,
        &[pass_count],
        salt,
        nonce,
        ciphertext,
    ]
    .concat())
}

/// Cuts `len` bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(front)
}

/// Reads what [`to_compact`] wrote, and nothing else.
pub fn open_compact(bytes: &[u8]) -> Option<StoredShare> {
    let mut rest = bytes;
    let [format, name_len] = take(&mut rest, 2)?.try_into().ok()?;
    let suite = [Suite::Sm, Suite::Intl].into_iter().find(|suite| format_byte(*suite) == format)?;
    let custodian = str::from_utf8(take(&mut rest, usize::from(name_len))?).ok()?;
    let custodian = CustodianName::parse(custodian).ok()?;
    let cluster_id = take(&mut rest, CLUSTER_ID_LEN)?.try_into().ok()?;
    let share_epoch = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
    let [share_index, high, middle, low, pass_count] = take(&mut rest, 5)?.try_into().ok()?;
    let label = ShareLabel { cluster_id, share_epoch, custodian, share_index };
    let shares = PassphraseBox {
        version: VersionOne,
        suite,
        memory_kib: u32::from_be_bytes([0, high, middle, low]),
        pass_count: u32::from(pass_count),
        salt: take(&mut rest, SALT_LEN)?.to_vec(),
        nonce: take(&mut rest, NONCE_LEN)?.to_vec(),
        ciphertext: take(&mut rest, CIPHERTEXT_LEN)?.to_vec(),
    };
    rest.is_empty().then_some(StoredShare { version: VersionOne, label, shares })
}

fn to_checked_bytes(share: &StoredShare) -> Result<Vec<u8>, PrintedShareError> {
    let mut bytes = to_compact(share)?;
    bytes.extend_from_slice(&share.fingerprint().0[..CHECK_LEN]);
    Ok(bytes)
}

/// `None`: not the compact form. An error: its check is of another share.
fn open_checked_bytes(bytes: &[u8]) -> Option<Result<StoredShare, ()>> {
    let (compact, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_LEN)?)?;
    let share = open_compact(compact)?;
    let is_right = share.fingerprint().0[..CHECK_LEN] == *check;
    Some(if is_right { Ok(share) } else { Err(()) })
}

/// The text for a QR code, in the alphabet that QR codes hold best.
///
/// # Errors
/// [`PrintedShareError::NotPrintable`].
pub fn to_qr_text(share: &StoredShare) -> Result<String, PrintedShareError> {
    Ok(format!("{QR_PREFIX}{}", base16ct::upper::encode_string(&to_checked_bytes(share)?)))
}

/// Reads what [`to_qr_text`] wrote; blanks, line ends and small letters are forgiven.
///
/// # Errors
/// [`PrintedShareError`] for any other text.
pub fn open_qr_text(text: &str) -> Result<StoredShare, PrintedShareError> {
    let plain: String = text
        .chars()
        .filter(|letter| !letter.is_whitespace() && *letter != '\u{feff}')
        .map(|letter| letter.to_ascii_uppercase())
        .collect();
    let digits = plain.strip_prefix(QR_PREFIX).ok_or(PrintedShareError::NotQrText)?;
    let bytes =
        base16ct::upper::decode_vec(digits.as_bytes()).map_err(|_| PrintedShareError::DamagedQrText)?;
    open_checked_bytes(&bytes).and_then(Result::ok).ok_or(PrintedShareError::DamagedQrText)
}

/// The words in lines, each with its check word at the end.
///
/// # Errors
/// [`PrintedShareError::NotPrintable`].
pub fn to_lines(share: &StoredShare) -> Result<Vec<Vec<Word>>, PrintedShareError> {
    Ok(word_lines::write(&words::from_bytes(&to_checked_bytes(share)?)))
}

/// How many bytes a print holds, by its first words. `None`: another format.
fn byte_count(first: &[Word]) -> Option<usize> {
    let (bytes, _) = words::to_bytes(first);
    match bytes.as_slice() {
        [0x11 | 0x12, name_len @ 1..=64, ..] => Some(FIXED_LEN + usize::from(*name_len) + CHECK_LEN),
        _ => None,
    }
}

/// How many words a print has, check words aside, by its first words.
fn word_count(first: &[Word]) -> Option<usize> {
    byte_count(first).map(words::count_for)
}

/// Reads the lines of a print as a person typed them. Line numbers, punctuation and capital letters do not matter;
/// four letters of a word are enough.
///
/// # Errors
/// [`PrintedShareError::Lines`] with everything that is wrong with them, or what is wrong with the whole.
pub fn open_words(text: &str) -> Result<StoredShare, PrintedShareError> {
    let words = word_lines::read_text(text, word_count).map_err(PrintedShareError::Lines)?;
    from_words(&words)
}

/// All words of a print; how many there are is known to be right.
fn from_words(typed: &[Word]) -> Result<StoredShare, PrintedShareError> {
    let byte_count = byte_count(typed).ok_or(PrintedShareError::Unknown)?;
    let (bytes, is_filled_with_zeros) = words::to_bytes(typed);
    // A word holds more bits than a byte, so the filling may be a whole byte and more.
    let (bytes, filling) = bytes.split_at_checked(byte_count).ok_or(PrintedShareError::Unknown)?;
    if !is_filled_with_zeros || filling.iter().any(|byte| *byte != 0) {
        return Err(PrintedShareError::Mixed);
    }
    match open_checked_bytes(bytes) {
        Some(Ok(share)) => Ok(share),
        Some(Err(())) => Err(PrintedShareError::Mixed),
        None => Err(PrintedShareError::Unknown),
    }
}

/// A print that a person types line by line; each line is checked when it is there.
#[derive(Debug, Default)]
pub struct TypedShare {
    words: Vec<Word>,
    line_count: usize,
    word_count: Option<usize>,
}

impl TypedShare {
    /// How many lines there are in all: known after the first one.
    pub fn line_count(&self) -> Option<usize> {
        self.word_count.map(|count| count.div_ceil(word_lines::LINE_LEN))
    }

    /// The number of the line that comes next; `None` when all are there.
    pub fn next_line(&self) -> Option<usize> {
        (self.line_count() != Some(self.line_count)).then_some(self.line_count + 1)
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// [`PrintedShareError::Lines`]: the same line is asked for again. [`PrintedShareError::Unknown`]: the first
    /// line is right, but is not of this format.
    pub fn add(&mut self, text: &str) -> Result<(), PrintedShareError> {
        let number = self.line_count + 1;
        let needed = self.word_count.map(|count| word_lines::len_of(number, count));
        let line = word_lines::read_line(number, text, needed).map_err(PrintedShareError::Lines)?;
        let words = &line[..line.len() - 1];
        if number == 1 {
            self.word_count = Some(word_count(words).ok_or(PrintedShareError::Unknown)?);
        }
        self.words.extend_from_slice(words);
        self.line_count = number;
        Ok(())
    }

    /// The share, when all lines are there.
    ///
    /// # Errors
    /// [`PrintedShareError::Mixed`], [`PrintedShareError::Unknown`].
    pub fn finish(&self) -> Result<StoredShare, PrintedShareError> {
        if let Some(next) = self.next_line() {
            let last = self.line_count().unwrap_or(next);
            let missing = LineProblem::Missing { first: next, last };
            return Err(PrintedShareError::Lines([missing].to_vec()));
        }
        from_words(&self.words)
    }
}

/// The words of a line as they are printed and typed.
pub fn line_text(line: &[Word]) -> String {
    line.iter().map(|word| word.text()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
