//! Every question to a person, and nothing else: no other module reads the terminal.

use crate::files::{self, FileError};
use kms_core::passphrase::{Passphrase, PassphraseTooShort};
use kms_core::secret::Secret;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// Longest passphrase file that is read, in bytes.
const PASSPHRASE_FILE_LEN_MAX: u64 = 4096;

/// Why an answer was not had.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Nobody is there to ask.
    #[error("there is no terminal to ask for {what}; give it with {option}")]
    NoTerminal {
        /// What would be asked.
        what: String,
        /// The option that answers instead.
        option: &'static str,
    },
    /// The terminal failed.
    #[error("the terminal cannot be read")]
    Terminal(#[source] io::Error),
    /// The passphrase file cannot be read.
    #[error("the passphrase file is of no use")]
    File(#[from] FileError),
    /// The two entries differ.
    #[error("the two entries for {what} differ; start again")]
    Differs {
        /// What was asked.
        what: String,
    },
    /// Too short for a new file.
    #[error("{what} is refused")]
    TooShort {
        /// What was asked.
        what: String,
        /// How short it is.
        #[source]
        source: PassphraseTooShort,
    },
    /// The person said no.
    #[error("not confirmed; nothing was done")]
    NotConfirmed,
}

/// Where a passphrase comes from, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// "the passphrase of the identity", in messages.
    pub what: &'a str,
    /// The option that names a file.
    pub option: &'static str,
    /// The file; without one a person is asked.
    pub file: Option<&'a Path>,
}

impl Question<'_> {
    /// A passphrase for a new file: asked twice, at least 9 characters.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn choose(&self) -> Result<Passphrase, PromptError> {
        let text = match self.file {
            Some(path) => first_line(path)?,
            None => {
                let first = self.ask(&format!("choose {}: ", self.what))?;
                let second = self.ask("again: ")?;
                if first.expose() != second.expose() {
                    return Err(PromptError::Differs { what: self.what.to_owned() });
                }
                first
            }
        };
        Passphrase::choose(text)
            .map_err(|source| PromptError::TooShort { what: self.what.to_owned(), source })
    }

    /// The passphrase of an existing file.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn enter(&self) -> Result<Passphrase, PromptError> {
        let text = match self.file {
            Some(path) => first_line(path)?,
            None => self.ask(&format!("{}: ", self.what))?,
        };
        Ok(Passphrase::enter(text))
    }

    fn ask(&self, prompt: &str) -> Result<Secret, PromptError> {
        // The library would open the controlling terminal even where standard input is a pipe, and a script
        // would hang there.
        if !io::stdin().is_terminal() {
            return Err(PromptError::NoTerminal { what: self.what.to_owned(), option: self.option });
        }
        rpassword::prompt_password(prompt)
            .map(|text| Secret::new(text.into_bytes()))
            .map_err(PromptError::Terminal)
    }
}

fn first_line(path: &Path) -> Result<Secret, PromptError> {
    let content = files::read(path, PASSPHRASE_FILE_LEN_MAX)?;
    let line = content.expose().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(Secret::new(line.to_vec()))
}

/// Shows `statement` and goes on only when a person types `yes`.
///
/// # Errors
/// [`PromptError::NotConfirmed`], [`PromptError::NoTerminal`].
pub fn confirm(statement: &str, option: &'static str) -> Result<(), PromptError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(PromptError::NoTerminal { what: "a confirmation".to_owned(), option });
    }
    eprint!("{statement} Type yes to go on: ");
    io::stderr().flush().map_err(PromptError::Terminal)?;
    let mut answer = Zeroizing::new(String::new());
    stdin.lock().read_line(&mut answer).map_err(PromptError::Terminal)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(PromptError::NotConfirmed) }
}

/// Shows `prompt` and reads a line that is no secret; `None` when the input ends.
///
/// # Errors
/// [`PromptError::NoTerminal`], [`PromptError::Terminal`].
pub fn line(prompt: &str, what: &str, option: &'static str) -> Result<Option<String>, PromptError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(PromptError::NoTerminal { what: what.to_owned(), option });
    }
    eprint!("{prompt}");
    io::stderr().flush().map_err(PromptError::Terminal)?;
    let mut answer = String::new();
    let len = stdin.lock().read_line(&mut answer).map_err(PromptError::Terminal)?;
    Ok((len > 0).then_some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_first_line_is_the_passphrase_without_its_line_end() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("passphrase");
        for text in ["correct horse\n", "correct horse\r\nsecond line", "correct horse"] {
            fs::write(&path, text).expect("writes");
            assert_eq!(first_line(&path).expect("reads").expose(), b"correct horse");
        }
    }
}
