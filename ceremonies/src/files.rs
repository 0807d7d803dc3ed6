//! Reading and writing the files of a ceremony. No output ever replaces a file; only a [`Draft`] takes the place of
//! the very file that it was made from.

use kms_core::codec::{self, ArmouredFormat, CodecError};
use kms_core::secret::Secret;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest armoured file that is read, in bytes.
pub const ARMOUR_LEN_MAX: u64 = 1 << 20;
/// Only the owner reads it.
pub const PRIVATE: u32 = 0o600;
/// Everybody may read it.
pub const PUBLIC: u32 = 0o644;

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused to read it.
    #[error("{path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Longer than any file of its kind.
    #[error("{path} is longer than {len_max} bytes, so it is another file than is asked for")]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// The longest allowed length in bytes.
        len_max: u64,
    },
    /// Not of the format.
    #[error("{path} {source}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CodecError,
    },
    /// The output is there already.
    #[error("{path} is there already and is not overwritten; move it away or choose another --out")]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// What an interrupted run left.
    #[error("{path} was left by a run that was interrupted, and holds nothing that is needed; remove it")]
    Leftover {
        /// Which file.
        path: PathBuf,
    },
    /// The new content is in its place, and a power failure now might undo that.
    #[error(
        "{path} is written, but the disk does not say that it will stay; look whether it is there after a restart"
    )]
    NotDurable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The operating system refused to write it.
    #[error("{path} cannot be written")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The whole content of a file of at most `len_max` bytes. It may be a passphrase or a key, so it is wiped.
///
/// # Errors
/// [`FileError::Read`], [`FileError::TooLong`].
pub fn read(path: &Path, len_max: u64) -> Result<Secret, FileError> {
    let unreadable = |source| FileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // Sized first, so that reading does not grow the buffer and leave copies behind.
    let len = file.metadata().map_err(unreadable)?.len().min(len_max);
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 4096);
    let read = file.take(len_max + 1).read_to_end(&mut bytes);
    let content = Secret::new(bytes);
    if read.map_err(unreadable)? as u64 > len_max {
        return Err(FileError::TooLong { path: path.to_owned(), len_max });
    }
    Ok(content)
}

/// Reads an armoured file.
///
/// # Errors
/// As [`read`], and [`FileError::Format`].
pub fn read_armour<T: ArmouredFormat>(path: &Path) -> Result<T, FileError> {
    let text = read(path, ARMOUR_LEN_MAX)?;
    codec::open_armour(text.expose()).map_err(|source| FileError::Format { path: path.to_owned(), source })
}

/// Makes the folder for outputs where it is missing; only the owner may look into a new one.
///
/// # Errors
/// [`FileError::Write`].
pub fn make_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// A name for an output that is ours: proven free and writable before any work is done for it.
///
/// It is an empty file until [`Reserved::write`], and goes away when it is dropped unwritten. A crash in
/// between leaves the empty file, which every reader refuses and a person may remove.
#[derive(Debug)]
pub struct Reserved {
    path: PathBuf,
    mode: u32,
    is_written: bool,
}

impl Reserved {
    /// Takes the name.
    ///
    /// # Errors
    /// [`FileError::Exists`], [`FileError::Leftover`], [`FileError::Write`].
    pub fn new(path: PathBuf, mode: u32) -> Result<Self, FileError> {
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            Ok(_) => Ok(Self { path, mode, is_written: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_empty = fs::metadata(&path).is_ok_and(|there| there.is_file() && there.len() == 0);
                Err(if is_empty { FileError::Leftover { path } } else { FileError::Exists { path } })
            }
            Err(source) => Err(FileError::Write { path, source }),
        }
    }

    /// Where the output will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the content there in one step, durable when this returns.
    ///
    /// # Errors
    /// [`FileError::Write`], [`FileError::Leftover`]; then the name is free again. [`FileError::NotDurable`].
    pub fn write(self, content: &[u8]) -> Result<PathBuf, FileError> {
        let draft = Draft::write(&self.path, self.mode, content)?;
        self.put(draft)
    }

    /// The same with a draft that was looked at before.
    ///
    /// # Errors
    /// As [`Reserved::write`].
    pub fn put(mut self, draft: Draft) -> Result<PathBuf, FileError> {
        let put = draft.put(&self.path);
        self.is_written = matches!(put, Ok(()) | Err(FileError::NotDurable { .. }));
        put.map(|()| self.path.clone())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.is_written {
            // Ours and empty; a failure leaves what a crash would leave.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// New content beside the file that it is for: durable, and not yet in its place. It goes away when it is dropped.
///
/// A crash leaves it under its own name (a dot, the file's name, a number, `.new`) and the file as it was.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    is_put: bool,
}

impl Draft {
    /// Writes the content into the folder of `target`.
    ///
    /// # Errors
    /// [`FileError::Write`], [`FileError::Leftover`].
    pub fn write(target: &Path, mode: u32, content: &[u8]) -> Result<Self, FileError> {
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".{}.new", std::process::id()));
        let path = folder_of(target).join(name);
        let unwritable = |source| FileError::Write { path: target.to_owned(), source };
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            // A number is given to another process again.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(FileError::Leftover { path });
            }
            opened => opened.map_err(unwritable)?,
        };
        // From here on it is ours, and goes away when writing fails.
        let draft = Self { path, is_put: false };
        file.write_all(content).and_then(|()| file.sync_all()).map_err(unwritable)?;
        Ok(draft)
    }

    /// Where the content is now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in the place of `target`, in one step: whoever looks sees the old content or the new.
    ///
    /// # Errors
    /// [`FileError::Write`]: the old content is there. [`FileError::NotDurable`]: the new one is.
    pub fn put(mut self, target: &Path) -> Result<(), FileError> {
        let path = || target.to_owned();
        fs::rename(&self.path, target).map_err(|source| FileError::Write { path: path(), source })?;
        self.is_put = true;
        let synced = File::open(folder_of(target)).and_then(|folder| folder.sync_all());
        synced.map_err(|source| FileError::NotDurable { path: path(), source })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_put {
            // Where it cannot be removed, what was refused before says more.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_existing_file_is_never_replaced() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("x");
        fs::write(&path, "old").expect("writes");
        assert!(matches!(Reserved::new(path.clone(), PUBLIC), Err(FileError::Exists { .. })));
        assert_eq!(fs::read(&path).expect("reads"), b"old");
    }

    #[test]
    fn an_unwritten_output_leaves_nothing_and_a_written_one_has_its_mode() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("x");
        drop(Reserved::new(path.clone(), PRIVATE).expect("is free"));
        assert!(!path.exists());
        Reserved::new(path.clone(), PRIVATE).expect("is free").write(b"new").expect("writes");
        assert_eq!(fs::read(&path).expect("reads"), b"new");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1, "no draft is left");
    }

    #[test]
    fn a_draft_that_is_not_put_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("x");
        fs::write(&path, "old").expect("writes");
        let draft = Draft::write(&path, PRIVATE, b"new").expect("writes");
        assert_eq!(fs::read(draft.path()).expect("reads"), b"new");
        assert_eq!(fs::read(&path).expect("reads"), b"old");
        drop(draft);
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
        Draft::write(&path, PRIVATE, b"new").expect("writes").put(&path).expect("is put");
        assert_eq!(fs::read(&path).expect("reads"), b"new");
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1, "no draft is left");
    }

    #[test]
    fn what_an_interrupted_run_left_is_named_and_the_file_stays() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("x");
        fs::write(&path, "old").expect("writes");
        let left = folder.path().join(format!(".x.{}.new", std::process::id()));
        fs::write(&left, "half").expect("writes");
        let refused = Draft::write(&path, PRIVATE, b"new").expect_err("the name is taken");
        assert!(matches!(&refused, FileError::Leftover { path } if *path == left), "{refused}");
        assert_eq!(fs::read(&path).expect("reads"), b"old");
        fs::remove_file(&left).expect("removes");
        Draft::write(&path, PRIVATE, b"new").expect("is free").put(&path).expect("takes its place");
        assert_eq!(fs::read(&path).expect("reads"), b"new");
        let empty = folder.path().join("y");
        fs::write(&empty, "").expect("writes");
        assert!(matches!(Reserved::new(empty, PUBLIC), Err(FileError::Leftover { .. })));
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("x");
        fs::write(&path, "12345").expect("writes");
        assert!(matches!(read(&path, 4), Err(FileError::TooLong { len_max: 4, .. })));
        assert_eq!(read(&path, 5).expect("fits").expose(), b"12345");
    }
}
