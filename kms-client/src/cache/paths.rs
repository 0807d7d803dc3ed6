//! Files by their paths: the result gets its name when it is complete.

use super::{CachingClient, EnvelopeError};
use crate::file::FileError;
use kms_core::context::EncryptionContext;
use kms_core::id::KeyRef;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::{Builder, NamedTempFile};

impl CachingClient {
    /// Encrypts a file into another one, which replaces what had that name.
    ///
    /// # Errors
    /// As [`CachingClient::encrypt_stream`]; `destination` is then what it was before.
    pub async fn encrypt_file(
        &self,
        key: &KeyRef,
        context: &EncryptionContext,
        source: &Path,
        destination: &Path,
    ) -> Result<(), EnvelopeError> {
        let input = File::open(source).map_err(FileError::Read)?;
        let metadata = input.metadata().map_err(FileError::Read)?;
        // A pipe has no length that it could be asked for.
        let len = metadata.is_file().then_some(metadata.len());
        let (file, place) = unfinished(destination, 0o666)?;
        let file = self.encrypt_stream(key, context, len, input, file).await?;
        finish(file, place, destination)
    }

    /// Decrypts a file into another one, with mode 0600, which replaces what had that name.
    ///
    /// # Errors
    /// As [`CachingClient::decrypt`]; `destination` is then what it was before.
    pub async fn decrypt_file(
        &self,
        context: &EncryptionContext,
        expected_key: Option<&KeyRef>,
        source: &Path,
        destination: &Path,
    ) -> Result<(), EnvelopeError> {
        let input = File::open(source).map_err(FileError::Read)?;
        let (file, place) = unfinished(destination, 0o600)?;
        let file = self.decrypt_stream(context, expected_key, input, file).await?;
        finish(file, place, destination)
    }
}

/// A file beside `destination` that is removed unless it is finished.
fn unfinished(destination: &Path, mode: u32) -> Result<(File, tempfile::TempPath), FileError> {
    let folder = match destination.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let made = Builder::new()
        .prefix(".kms-")
        .suffix(".incomplete")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder);
    made.map(NamedTempFile::into_parts).map_err(FileError::Write)
}

fn finish(file: File, place: tempfile::TempPath, destination: &Path) -> Result<(), EnvelopeError> {
    let done = file.sync_all().and_then(|()| place.persist(destination).map_err(io::Error::from));
    Ok(done.map_err(FileError::Write)?)
}
