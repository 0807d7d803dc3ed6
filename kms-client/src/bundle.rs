//! Reading the bundle, the public description of a deployment that an audit log is checked against.

use kms_core::bundle::{Bundle, SignedBundle};
use kms_core::codec;
use kms_core::suite::Digest32;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a bundle file is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleFileError {
    /// It cannot be read.
    #[error("bundle {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not a bundle, or not one that its core key signed.
    #[error("bundle {}: {problem}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Reads a bundle and checks its signature and rules. Which deployment it is, people check by its fingerprint.
///
/// # Errors
/// [`BundleFileError`] names the file and what is wrong with it.
pub fn load_bundle(path: &Path) -> Result<(Bundle, Digest32), BundleFileError> {
    let text =
        fs::read(path).map_err(|source| BundleFileError::Unreadable { path: path.to_owned(), source })?;
    let refused = |problem: String| BundleFileError::Refused { path: path.to_owned(), problem };
    let signed: SignedBundle =
        codec::open_armour(&text).map_err(|error| refused(format!("the file {error}")))?;
    let bundle = signed.verify().map_err(|error| refused(error.to_string()))?;
    let fingerprint = signed.fingerprint(bundle.suite);
    Ok((bundle, fingerprint))
}
