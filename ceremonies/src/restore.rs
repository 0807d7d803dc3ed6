//! A share file from the words or the QR code of a print.

use crate::bundle_file::VerifiedBundle;
use crate::files::{self, FileError, Reserved};
use crate::prompt::PromptError;
use kms_core::codec;
use kms_core::passphrase::Passphrase;
use kms_core::printed_share::{self, PrintedShareError, TypedShare};
use kms_core::share::{ShareError, StoredShare};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// More than any print has, in bytes.
const TEXT_LEN_MAX: u64 = 1 << 16;

/// Why a share was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nobody to ask.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The standard input cannot be read.
    #[error("the standard input cannot be read")]
    Input(#[source] io::Error),
    /// Not text.
    #[error("{name} is not text in UTF-8")]
    NotText {
        /// The file, or the standard input.
        name: String,
    },
    /// The words or the QR code are wrong.
    #[error("nothing was written: {0}")]
    Print(#[from] PrintedShareError),
    /// The end of the input came before the last line.
    #[error("stopped at line {line}; nothing was written")]
    Stopped {
        /// The line that was asked for.
        line: usize,
    },
    /// The share is of something else than the bundle.
    #[error("the share does not belong to this bundle; nothing was written")]
    Foreign(#[source] ShareError),
    /// It was written, but is not known to be the right one.
    #[error(
        "{path} was written, as it is on paper, but it was not verified; run `kms-ceremony share verify` with it. The share is refused"
    )]
    NotVerified {
        /// The share file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ShareError,
    },
    /// It was written, and nobody gave its passphrase.
    #[error("{path} was written, as it is on paper, but it was not verified")]
    NoPassphrase {
        /// The share file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PromptError,
    },
}

/// Where the share is read from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A file with the words; `-` is the standard input.
    Words(&'a Path),
    /// A file with the text of the QR code; `-` is the standard input.
    QrText(&'a Path),
    /// A person types the lines.
    Person,
}

fn read_text(path: &Path) -> Result<String, RestoreError> {
    let (name, bytes) = if path == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().take(TEXT_LEN_MAX + 1).read_to_end(&mut bytes).map_err(RestoreError::Input)?;
        if bytes.len() as u64 > TEXT_LEN_MAX {
            return Err(FileError::TooLong { path: path.to_owned(), len_max: TEXT_LEN_MAX }.into());
        }
        ("the standard input".to_owned(), bytes)
    } else {
        (path.display().to_string(), files::read(path, TEXT_LEN_MAX)?.expose().to_vec())
    };
    String::from_utf8(bytes).map_err(|_| RestoreError::NotText { name })
}

/// Reads a share from what a person has on paper. `ask` shows a prompt and gives a line, `None` at the end of
/// the input; `say` tells what is wrong with a line before it is asked for again.
///
/// # Errors
/// [`RestoreError`].
pub fn read(
    source: Source<'_>,
    ask: impl FnMut(&str) -> Result<Option<String>, PromptError>,
    say: impl FnMut(&str),
) -> Result<StoredShare, RestoreError> {
    match source {
        Source::Words(path) => Ok(printed_share::open_words(&read_text(path)?)?),
        Source::QrText(path) => Ok(printed_share::open_qr_text(&read_text(path)?)?),
        Source::Person => type_in(ask, say),
    }
}

fn type_in(
    mut ask: impl FnMut(&str) -> Result<Option<String>, PromptError>,
    mut say: impl FnMut(&str),
) -> Result<StoredShare, RestoreError> {
    let mut typed = TypedShare::default();
    while let Some(line) = typed.next_line() {
        let prompt = match typed.line_count() {
            Some(count) => format!("line {line} of {count}: "),
            None => format!("line {line}: "),
        };
        let text = ask(&prompt)?.ok_or(RestoreError::Stopped { line })?;
        if text.trim().is_empty() {
            continue;
        }
        match typed.add(&text) {
            Ok(()) => {}
            Err(PrintedShareError::Lines(problems)) => {
                problems.iter().for_each(|problem| say(&problem.to_string()));
            }
            Err(other) => return Err(other.into()),
        }
    }
    Ok(typed.finish()?)
}

/// Writes the share file. With a bundle the share must belong to it, and is opened and compared with what the
/// bundle commits to.
///
/// It is written before the passphrase is asked for: nobody types a hundred words again for a mistyped passphrase.
///
/// # Errors
/// [`RestoreError`]; only [`RestoreError::NotVerified`] and [`RestoreError::NoPassphrase`] leave the file.
pub fn store(
    share: &StoredShare,
    out: Reserved,
    bundle: Option<&VerifiedBundle>,
    passphrase: impl FnOnce() -> Result<Passphrase, PromptError>,
) -> Result<PathBuf, RestoreError> {
    if let Some(bundle) = bundle {
        share.label.find_in(&bundle.bundle).map_err(RestoreError::Foreign)?;
    }
    let path = out.write(codec::to_armour(share).as_bytes())?;
    if let Some(bundle) = bundle {
        let written: StoredShare = files::read_armour(&path)?;
        let passphrase =
            passphrase().map_err(|source| RestoreError::NoPassphrase { path: path.clone(), source })?;
        written
            .open_without_identity(&passphrase, &bundle.bundle)
            .map_err(|source| RestoreError::NotVerified { path: path.clone(), source })?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kms_core::codec::VersionOne;
    use kms_core::id::CustodianName;
    use kms_core::passphrase::PassphraseBox;
    use kms_core::share::ShareLabel;
    use kms_core::suite::Suite;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    pub fn share() -> StoredShare {
        StoredShare {
            version: VersionOne,
            label: ShareLabel {
                cluster_id: [7; 16],
                share_epoch: 3,
                custodian: CustodianName::parse("alice").expect("valid"),
                share_index: 1,
            },
            shares: PassphraseBox {
                version: VersionOne,
                suite: Suite::Sm,
                memory_kib: 65_536,
                pass_count: 3,
                salt: vec![1; 16],
                nonce: vec![2; 12],
                ciphertext: (0..80).collect(),
            },
        }
    }

    /// What a person was asked and told while typing.
    fn type_lines(lines: &[String]) -> (Result<StoredShare, RestoreError>, Vec<String>) {
        let mut lines: VecDeque<String> = lines.iter().cloned().collect();
        let seen = RefCell::new(Vec::new());
        let result = type_in(
            |prompt| {
                seen.borrow_mut().push(prompt.to_owned());
                Ok(lines.pop_front())
            },
            |problem| seen.borrow_mut().push(problem.to_owned()),
        );
        (result, seen.into_inner())
    }

    #[test]
    fn a_typing_error_is_told_at_once_and_only_that_line_is_asked_again() {
        let share = share();
        let right: Vec<String> = printed_share::to_lines(&share)
            .expect("prints")
            .iter()
            .map(|line| printed_share::line_text(line))
            .collect();
        let mut typed = right.clone();
        let wrong = typed[4].replacen(char::is_alphabetic, "qqqq", 1);
        typed.insert(4, wrong);
        typed.insert(0, String::new());
        let (result, seen) = type_lines(&typed);
        assert_eq!(result.expect("restores"), share);
        assert_eq!(seen[..3], ["line 1: ", "line 1: ", "line 2 of 15: "]);
        let problem = seen.iter().position(|text| text.contains("not in the list")).expect("is told");
        assert_eq!(seen[problem - 1], "line 5 of 15: ");
        assert!(seen[problem].starts_with("line 5, word 1"));
        assert_eq!(seen[problem + 1], "line 5 of 15: ");
        assert_eq!(seen.len(), 15 + 3);

        let (stopped, _) = type_lines(&right[..6]);
        assert!(matches!(stopped, Err(RestoreError::Stopped { line: 7 })));
    }
}
