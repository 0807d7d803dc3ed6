//! The tokens on disk.
//!
//! ```text
//! HSM_SIM_DIR/
//!   lock                      held while a token is created
//!   slot-1/                   the token in slot 1
//!     lock                    shared while a key file is added, exclusive while anything is replaced
//!     state                   label, serial, PINs
//!     incoming/               files being written; whatever is here without a lock is waste
//!     objects-<generation>/   one key file per key or key pair
//! ```
//!
//! Nothing is ever written in place. A file is written under `incoming/`, made durable, renamed over
//! the old one, and the directory is made durable: after a crash there is the old file or the new
//! one. The locks are of the kind that the kernel drops with the process.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::random;
use crate::refusal::Refusal;
use crate::stored::{Generation, KeyFile, TokenState};

const SLOT_PREFIX: &str = "slot-";
const UNFINISHED_PREFIX: &str = ".unfinished-";
const OBJECTS_PREFIX: &str = "objects-";
const STATE: &str = "state";
const LOCK: &str = "lock";
const INCOMING: &str = "incoming";

/// File times are coarser than two writes can be apart. A file read sooner than this after it was
/// written may change again without a new time.
const TIME_GRAIN: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path} cannot be {attempted}")]
    File { path: PathBuf, attempted: &'static str, source: io::Error },
    #[error("{path} is damaged or was not written by this module")]
    NotRecognized { path: PathBuf },
}

// The C interface has room for a number only, so the sentence goes to stderr, here and nowhere else.
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::File { source, .. } => eprintln!("hsm-sim: {error}: {source}"),
            StoreError::NotRecognized { .. } => eprintln!("hsm-sim: {error}"),
        }
        match error {
            StoreError::File { source, .. } => match source.kind() {
                ErrorKind::NotFound => Self::DeviceRemoved,
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::DeviceMemory,
                _ => Self::DeviceError,
            },
            StoreError::NotRecognized { .. } => Self::DeviceError,
        }
    }
}

fn failed(path: &Path, attempted: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::File { path: path.to_owned(), attempted, source }
}

/// The number of a slot. A token keeps the slot in which it was initialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u64);

const FIRST_SLOT: SlotId = SlotId(1);

/// The directory that holds all tokens.
#[derive(Debug)]
pub struct HsmDirectory {
    path: PathBuf,
}

impl HsmDirectory {
    /// The directory is there. It is never created: a wrong path must not look like an empty HSM.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The slots with a token, in order. A damaged token keeps its slot, because the slot is in the
    /// name of the directory.
    pub fn slots(&self) -> Result<Vec<SlotId>, StoreError> {
        let mut slots = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed(&self.path, "listed"))? {
            let entry = entry.map_err(failed(&self.path, "listed"))?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(SLOT_PREFIX));
            let slot = number.and_then(|number| number.parse().ok()).map(SlotId);
            // Only the spelling that we write: "slot-01" is a foreign name.
            slots.extend(slot.filter(|slot| self.token(*slot).path == entry.path()));
        }
        slots.sort_unstable();
        Ok(slots)
    }

    /// The slot that a new token will get.
    pub fn fresh_slot(slots: &[SlotId]) -> SlotId {
        slots.last().map_or(FIRST_SLOT, |last| SlotId(last.0 + 1))
    }

    pub fn token(&self, slot: SlotId) -> TokenDirectory {
        TokenDirectory { path: self.path.join(format!("{SLOT_PREFIX}{}", slot.0)) }
    }

    /// Puts a new token into a fresh slot, whole or not at all. `Ok(false)` if the slot is not fresh.
    pub fn create_token(&self, slot: SlotId, state: &TokenState) -> Result<bool, Refusal> {
        let _lock = lock(&self.path.join(LOCK), LockKind::Exclusive)?;
        self.sweep_unfinished()?;
        if slot != Self::fresh_slot(&self.slots()?) {
            return Ok(false);
        }
        let name = base16(&random::bytes::<8>()?);
        let unfinished = TokenDirectory { path: self.path.join(format!("{UNFINISHED_PREFIX}{name}")) };
        create_directory(&unfinished.path)?;
        create_directory(&unfinished.path.join(INCOMING))?;
        create_directory(&unfinished.objects(state.identity.generation))?;
        unfinished.write(&unfinished.path.join(STATE), &state.to_bytes()?)?;
        let token = self.token(slot);
        fs::rename(&unfinished.path, &token.path).map_err(failed(&token.path, "created"))?;
        make_durable(&self.path)?;
        Ok(true)
    }

    // Called with the lock held, so whatever is unfinished belongs to a process that died.
    fn sweep_unfinished(&self) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.path).map_err(failed(&self.path, "listed"))?.flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED_PREFIX)) {
                fs::remove_dir_all(entry.path()).map_err(failed(&entry.path(), "removed"))?;
            }
        }
        Ok(())
    }
}

/// Held while a key file is added: the token is not initialised again in between.
#[derive(Debug)]
pub struct SharedLock {
    _file: File,
}

/// Held while something is read, changed and written back.
#[derive(Debug)]
pub struct ExclusiveLock {
    _file: File,
}

enum LockKind {
    Shared,
    Exclusive,
}

/// Names a key file. Random, and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyFileId(pub [u8; 16]);

impl KeyFileId {
    pub fn random() -> Result<Self, Refusal> {
        Ok(Self(random::bytes()?))
    }

    fn from_name(name: &str) -> Option<Self> {
        let mut id = [0; 16];
        if name.len() != 2 * id.len() {
            return None;
        }
        for (byte, digits) in id.iter_mut().zip(name.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        // Only the spelling that we write: one file must not have two names.
        (base16(&id) == name).then_some(Self(id))
    }
}

/// Tells whether a file is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// `None` if the file was written so recently that it could change and look the same.
    pub fn of_settled(metadata: &fs::Metadata) -> Option<Self> {
        is_settled(metadata).then(|| stamp_of(metadata))
    }
}

/// The directory of one token.
#[derive(Debug)]
pub struct TokenDirectory {
    path: PathBuf,
}

impl TokenDirectory {
    pub fn lock_shared(&self) -> Result<SharedLock, StoreError> {
        Ok(SharedLock { _file: lock(&self.path.join(LOCK), LockKind::Shared)? })
    }

    /// Also removes what processes that died have left in `incoming/`.
    pub fn lock_exclusive(&self) -> Result<ExclusiveLock, StoreError> {
        let file = lock(&self.path.join(LOCK), LockKind::Exclusive)?;
        let incoming = self.path.join(INCOMING);
        for entry in fs::read_dir(&incoming).map_err(failed(&incoming, "listed"))?.flatten() {
            fs::remove_file(entry.path()).map_err(failed(&entry.path(), "removed"))?;
        }
        Ok(ExclusiveLock { _file: file })
    }

    pub fn read_state(&self) -> Result<TokenState, StoreError> {
        let path = self.path.join(STATE);
        let bytes = match fs::read(&path) {
            // The directory is there and the state is not: a damaged token, not a missing one.
            Err(error) if error.kind() == ErrorKind::NotFound && self.path.is_dir() => {
                return Err(StoreError::NotRecognized { path });
            }
            other => other.map_err(failed(&path, "read"))?,
        };
        TokenState::from_bytes(&bytes).ok_or(StoreError::NotRecognized { path })
    }

    pub fn write_state(&self, _lock: &ExclusiveLock, state: &TokenState) -> Result<(), Refusal> {
        Ok(self.write(&self.path.join(STATE), &state.to_bytes()?)?)
    }

    /// Begins a new life of the token. The step that counts is the one that writes the state: before
    /// it the old objects are there, after it none are.
    pub fn begin_generation(&self, lock: &ExclusiveLock, state: &TokenState) -> Result<(), Refusal> {
        let objects = self.objects(state.identity.generation);
        create_directory(&objects)?;
        make_durable(&self.path)?;
        self.write_state(lock, state)?;
        for entry in fs::read_dir(&self.path).map_err(failed(&self.path, "listed"))?.flatten() {
            let is_objects = entry.file_name().to_str().is_some_and(|name| name.starts_with(OBJECTS_PREFIX));
            if is_objects && entry.path() != objects {
                fs::remove_dir_all(entry.path()).map_err(failed(&entry.path(), "removed"))?;
            }
        }
        Ok(())
    }

    /// The key files, in the order of their names. Foreign files are left out.
    pub fn key_files(&self, generation: Generation) -> Result<Vec<KeyFileId>, StoreError> {
        let path = self.objects(generation);
        let mut files = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed(&path, "listed"))? {
            let entry = entry.map_err(failed(&path, "listed"))?;
            files.extend(entry.file_name().to_str().and_then(KeyFileId::from_name));
        }
        files.sort_unstable();
        Ok(files)
    }

    /// `None` if there is no such file any more.
    pub fn stamp(&self, generation: Generation, file: KeyFileId) -> Result<Option<FileStamp>, StoreError> {
        let path = self.key_file(generation, file);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(stamp_of(&metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, "read")(error)),
        }
    }

    /// The content of a key file, and the stamp by which it can be recognised later: none if it was
    /// written so recently that it could change and look the same.
    pub fn read_key_file(
        &self,
        generation: Generation,
        file: KeyFileId,
    ) -> Result<Option<(KeyFile, Option<FileStamp>)>, StoreError> {
        let path = self.key_file(generation, file);
        let stamp = match fs::metadata(&path) {
            Ok(metadata) => FileStamp::of_settled(&metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, "read")(error)),
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, "read")(error)),
        };
        let content = KeyFile::from_bytes(&bytes).ok_or(StoreError::NotRecognized { path })?;
        Ok(Some((content, stamp)))
    }

    /// Returns once the key file is durable.
    pub fn add_key_file(
        &self,
        _lock: &SharedLock,
        generation: Generation,
        file: KeyFileId,
        content: &KeyFile,
    ) -> Result<(), Refusal> {
        Ok(self.write(&self.key_file(generation, file), &content.to_bytes()?)?)
    }

    pub fn replace_key_file(
        &self,
        _lock: &ExclusiveLock,
        generation: Generation,
        file: KeyFileId,
        content: &KeyFile,
    ) -> Result<(), Refusal> {
        Ok(self.write(&self.key_file(generation, file), &content.to_bytes()?)?)
    }

    pub fn remove_key_file(
        &self,
        _lock: &ExclusiveLock,
        generation: Generation,
        file: KeyFileId,
    ) -> Result<(), StoreError> {
        let path = self.key_file(generation, file);
        fs::remove_file(&path).map_err(failed(&path, "removed"))?;
        make_durable(&self.objects(generation))
    }

    fn objects(&self, generation: Generation) -> PathBuf {
        self.path.join(format!("{OBJECTS_PREFIX}{}", base16(&generation.0)))
    }

    fn key_file(&self, generation: Generation, file: KeyFileId) -> PathBuf {
        self.objects(generation).join(base16(&file.0))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let name = random::bytes::<8>().map_err(|_| StoreError::File {
            path: path.to_owned(),
            attempted: "named",
            source: io::Error::other("the system has no randomness"),
        })?;
        let incoming = self.path.join(INCOMING).join(base16(&name));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&incoming)
            .map_err(failed(&incoming, "created"))?;
        file.write_all(bytes).map_err(failed(&incoming, "written"))?;
        file.sync_all().map_err(failed(&incoming, "made durable"))?;
        fs::rename(&incoming, path).map_err(failed(path, "replaced"))?;
        match path.parent() {
            Some(directory) => make_durable(directory),
            None => Ok(()),
        }
    }
}

fn lock(path: &Path, kind: LockKind) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed(path, "opened"))?;
    match kind {
        LockKind::Shared => file.lock_shared(),
        LockKind::Exclusive => file.lock(),
    }
    .map_err(failed(path, "locked"))?;
    Ok(file)
}

fn create_directory(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().mode(0o700).create(path).map_err(failed(path, "created"))
}

fn make_durable(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|open| open.sync_all()).map_err(failed(directory, "made durable"))
}

fn stamp_of(metadata: &fs::Metadata) -> FileStamp {
    FileStamp {
        inode: metadata.ino(),
        len: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

// The change time, not the time of writing: it is the rename that puts the file in its place.
fn is_settled(metadata: &fs::Metadata) -> bool {
    let changed = u64::try_from(metadata.ctime()).map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    let age = changed.ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
    age.is_some_and(|age| age > TIME_GRAIN)
}

pub fn base16(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)]).collect()
}
