//! A share or an identity under another passphrase. At every moment there is one file that opens.

use crate::files::{self, Draft, FileError, Reserved};
use crate::prompt::PromptError;
use kms_core::codec;
use kms_core::passphrase::Passphrase;
use kms_core::share::{ShareError, UnderPassphrase};
use rand_core::CryptoRng;
use std::path::{Path, PathBuf};

/// Why a passphrase was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// No passphrase, or one that is too short.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The file does not open.
    #[error("the file is refused; nothing was changed")]
    Refused(#[from] ShareError),
    /// Nothing would change.
    #[error("the new passphrase is the old one; nothing was changed")]
    Same,
    /// The new file does not give back what the old one holds.
    #[error("the new file does not read back; the old one is as it was")]
    ReadBack(#[source] ShareError),
}

/// Writes the file anew under the passphrase that `new` gives, to `out` or in its own place.
///
/// The new content is read back and opened before it takes a place. In its own place it goes by a rename: a
/// crash leaves the old file or the new one. Gives the path of the file that was written.
///
/// # Errors
/// [`ChangeError`]; then the file is as it was, but for [`FileError::NotDurable`], which says that the new one is there.
pub fn run<T: UnderPassphrase>(
    path: &Path,
    out: Option<&Path>,
    old: impl FnOnce() -> Result<Passphrase, PromptError>,
    new: impl FnOnce() -> Result<Passphrase, PromptError>,
    rng: &mut impl CryptoRng,
) -> Result<PathBuf, ChangeError> {
    let file: T = files::read_armour(path)?;
    let reserved = out.map(|out| Reserved::new(out.to_owned(), files::PRIVATE)).transpose()?;
    let old = old()?;
    let choose = || {
        let new = new()?;
        if new.is_same(&old) { Err(ChangeError::Same) } else { Ok(new) }
    };
    let (changed, new) = file.change_passphrase(&old, choose, rng)?;
    // Behind a link the file itself is replaced, not the link.
    let target = match &reserved {
        Some(reserved) => reserved.path().to_owned(),
        None => path.canonicalize().map_err(|source| FileError::Read { path: path.to_owned(), source })?,
    };
    let draft = Draft::write(&target, files::PRIVATE, codec::to_armour(&changed).as_bytes())?;
    let written: T = files::read_armour(draft.path())?;
    written.holds_the_same(&new, &file, &old).map_err(ChangeError::ReadBack)?;
    match reserved {
        Some(reserved) => Ok(reserved.put(draft)?),
        None => {
            draft.put(&target)?;
            Ok(path.to_owned())
        }
    }
}
