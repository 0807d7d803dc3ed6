//! A file that gets its name only when it is complete.

use crate::output::Failure;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile, TempPath};

/// Who may read the finished file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// The user alone (0600): keys and plaintext.
    Owner,
    /// Whoever the umask allows.
    Umask,
}

/// Whether a file of that name may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced as a whole.
    Replaced,
    /// It stays, and the command fails.
    Kept,
}

/// Where the finished file will be.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    existing: Existing,
}

/// The file under its temporary name. It is removed when this is dropped.
#[derive(Debug)]
pub struct PendingFile {
    target: Target,
    temporary: TempPath,
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{} cannot be written: {error}", path.display()), "ls -l")
}

impl PendingFile {
    /// Makes the file in the folder where it will stay, so that the last step is a rename.
    pub fn create(path: &Path, readers: Readers, existing: Existing) -> Result<(Self, File), Failure> {
        // Behind a symbolic link the file itself is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(_) if existing == Existing::Kept => {
                return Err(Failure::new(format!("{} exists already", path.display()), "ls -l"));
            }
            // A rename would put a plain file where a device or pipe was.
            Ok(metadata) if !metadata.is_file() => {
                let message =
                    format!("{} is not a plain file; use - for the standard output", path.display());
                return Err(Failure::new(message, "kms help"));
            }
            _ => {}
        }
        let mode = match readers {
            Readers::Owner => 0o600,
            Readers::Umask => 0o666,
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let file: NamedTempFile = Builder::new()
            .prefix(".kms-")
            .suffix(".incomplete")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)
            .map_err(|error| failure(&path, &error))?;
        let (file, temporary) = file.into_parts();
        Ok((Self { target: Target { path, existing }, temporary }, file))
    }

    /// Makes the content durable and gives it its name.
    pub fn finish(self, file: File) -> Result<(), Failure> {
        let Target { path, existing } = self.target;
        file.sync_all().map_err(|error| failure(&path, &error))?;
        let named = match existing {
            Existing::Replaced => self.temporary.persist(&path),
            Existing::Kept => self.temporary.persist_noclobber(&path),
        };
        named.map_err(|error| failure(&path, &error.error))
    }

    /// Writes everything and finishes.
    pub fn write(self, mut file: File, bytes: &[u8]) -> Result<(), Failure> {
        file.write_all(bytes).map_err(|error| failure(&self.target.path, &error))?;
        self.finish(file)
    }
}
