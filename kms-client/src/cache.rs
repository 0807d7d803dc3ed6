//! Envelope encryption with data keys that are kept for a while.

mod flight;
mod paths;
mod store;

use crate::connect::Client;
use crate::crypto::{DataKey, OpenedDataKey};
use crate::error::ClientError;
use crate::file::{self, FileError, FileHeader, NewFile};
use flight::Part;
use kms_core::context::EncryptionContext;
use kms_core::id::KeyRef;
use kms_core::reason::Reason;
use kms_core::secret::Secret;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use store::Bounds;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::debug;

/// Most files under one data key, whatever the limits say (docs/formats/file.md).
const USE_COUNT_MAX: u64 = 1 << 32;

/// How long and for how much a data key is used. With an age or a number of entries of 0 no data key is kept; with 0 messages or
/// bytes none for encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Age from which on a data key is not used any more, and is wiped. So long after a key was suspended, rotated
    /// or had its rights taken away, messages may still be encrypted and decrypted.
    pub age_max: Duration,
    /// Messages that are encrypted under one data key; never more than 2^32. 1: each gets its own.
    pub use_count_max: u64,
    /// Plaintext bytes that are encrypted under one data key. A longer message gets its own.
    pub byte_count_max: u64,
    /// Data keys that are kept at most, for encryption and for decryption each; the one that was not used for
    /// longest makes room.
    pub entry_count_max: usize,
}

impl Default for CacheLimits {
    /// Five minutes, 10,000 messages, 1 GiB, 1,000 data keys.
    fn default() -> Self {
        Self {
            age_max: Duration::from_secs(300),
            use_count_max: 10_000,
            byte_count_max: 1 << 30,
            entry_count_max: 1000,
        }
    }
}

impl CacheLimits {
    fn keeps_nothing(&self) -> bool {
        self.age_max.is_zero() || self.entry_count_max == 0
    }

    fn keeps_for_sealing(&self, byte_count: u64) -> bool {
        !self.keeps_nothing() && self.use_count_max > 1 && byte_count <= self.byte_count_max
    }
}

/// Why data was not encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The service gave no data key. Callers that waited for the same answer share it.
    #[error(transparent)]
    Client(#[from] Arc<ClientError>),
    /// The data are damaged or of another kind, or could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The data were encrypted with another context than the caller gave.
    #[error("the data were encrypted with another context than the one that was given")]
    ContextDiffers {
        /// The context that stands in the data, unverified.
        found: EncryptionContext,
    },
    /// The input has more bytes than the caller said; what was written is incomplete.
    #[error(
        "the input is longer than the {len} bytes that were announced; give None when the length is not known"
    )]
    LongerThanAnnounced {
        /// What was said.
        len: u64,
    },
    /// The thread that did the work ended early.
    #[error("the work was stopped")]
    Stopped(#[source] tokio::task::JoinError),
}

impl EnvelopeError {
    /// The stable reason of docs/errors.md, where there is one.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            EnvelopeError::Client(error) => error.reason(),
            EnvelopeError::File(FileError::Read(_) | FileError::Write(_)) | EnvelopeError::Stopped(_) => None,
            EnvelopeError::File(FileError::TooLong) | EnvelopeError::LongerThanAnnounced { .. } => {
                Some(Reason::FieldInvalid)
            }
            EnvelopeError::File(_) | EnvelopeError::ContextDiffers { .. } => Some(Reason::CiphertextInvalid),
        }
    }
}

impl From<ClientError> for EnvelopeError {
    fn from(error: ClientError) -> Self {
        EnvelopeError::Client(Arc::new(error))
    }
}

/// What a cache has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Data keys in memory, for encryption and decryption together.
    pub entry_count: usize,
    /// Messages that needed no call.
    pub hit_count: u64,
    /// Data keys that were fetched and kept.
    pub miss_count: u64,
}

/// Which data key encrypts: the caller's own words for the key, and the context.
#[derive(Clone, PartialEq, Eq, Hash)]
struct SealingKey {
    reference: String,
    context: Vec<u8>,
}

/// Which data key decrypts. What the caller expects is part of it: the service has checked it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct OpeningKey {
    wrapped: Vec<u8>,
    context: Vec<u8>,
    expected: Option<String>,
}

struct Inner {
    client: Client,
    limits: CacheLimits,
    sealing: Part<SealingKey, DataKey>,
    opening: Part<OpeningKey, OpenedDataKey>,
    sweeper: Mutex<Option<JoinHandle<()>>>,
}

/// Encrypts and decrypts byte strings, streams and files of any size, and keeps data keys within [`CacheLimits`].
///
/// The service makes and opens data keys; the data never leave the process. What is encrypted is an encrypted
/// file as docs/formats/file.md says, with a key of its own derived from the data key, and `kms decrypt`
/// reads it. Clones share the cache. Data keys are wiped at their age, also when nobody calls.
#[derive(Clone)]
pub struct CachingClient {
    inner: Arc<Inner>,
}

impl fmt::Debug for CachingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachingClient")
            .field("limits", &self.inner.limits)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl CachingClient {
    /// An empty cache in front of a client.
    pub fn new(client: Client, limits: CacheLimits) -> Self {
        let sealing = Bounds {
            age_max: limits.age_max,
            use_count_max: limits.use_count_max.min(USE_COUNT_MAX),
            byte_count_max: limits.byte_count_max,
            entry_count_max: limits.entry_count_max,
        };
        // Decryption makes nothing new: how often it happens weakens nothing.
        let opening = Bounds { use_count_max: u64::MAX, byte_count_max: u64::MAX, ..sealing };
        let inner = Inner {
            client,
            limits,
            sealing: Part::new(sealing),
            opening: Part::new(opening),
            sweeper: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The client behind the cache.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Encrypts a byte string. The context is not secret, stands in the result, and must be given to decrypt.
    ///
    /// # Errors
    /// [`EnvelopeError::Client`] as [`Client::generate_data_key`].
    pub async fn encrypt(
        &self,
        key: &KeyRef,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, EnvelopeError> {
        let new = self.new_file(key, context, Some(plaintext.len() as u64)).await?;
        Ok(new.seal_bytes(plaintext)?)
    }

    /// Decrypts what [`CachingClient::encrypt`] made.
    ///
    /// # Errors
    /// [`EnvelopeError::ContextDiffers`]; [`EnvelopeError::File`] for every change; [`EnvelopeError::Client`] as
    /// [`Client::decrypt_data_key`].
    pub async fn decrypt(
        &self,
        encrypted: &[u8],
        context: &EncryptionContext,
        expected_key: Option<&KeyRef>,
    ) -> Result<Secret, EnvelopeError> {
        let mut rest = encrypted;
        let header = FileHeader::read(&mut rest)?;
        let opened = self.open_header(&header, context, expected_key).await?;
        Ok(file::open_bytes(&header, &opened.plaintext, rest)?)
    }

    /// Encrypts what a reader gives, on a thread of its own and in the memory of one chunk; gives the writer back.
    ///
    /// `len` is the length of the input. When it is not known the stream gets a data key of its own, since nobody
    /// can say beforehand whether it would exceed [`CacheLimits::byte_count_max`].
    ///
    /// # Errors
    /// As [`CachingClient::encrypt`], and [`EnvelopeError::LongerThanAnnounced`]. On any error what was written
    /// must be discarded.
    pub async fn encrypt_stream<R, W>(
        &self,
        key: &KeyRef,
        context: &EncryptionContext,
        len: Option<u64>,
        input: R,
        mut output: W,
    ) -> Result<W, EnvelopeError>
    where
        R: Read + Send + 'static,
        W: Write + Send + 'static,
    {
        let new = self.new_file(key, context, len).await?;
        let work = move || {
            let mut input = Announced { input, left: len.unwrap_or(u64::MAX), is_exceeded: false };
            match (new.seal(&mut input, &mut output), len) {
                (Err(FileError::Read(_)), Some(len)) if input.is_exceeded => {
                    Err(EnvelopeError::LongerThanAnnounced { len })
                }
                (sealed, _) => Ok(sealed.map(|_| output)?),
            }
        };
        tokio::task::spawn_blocking(work).await.map_err(EnvelopeError::Stopped)?
    }

    /// Decrypts a stream; gives the writer back.
    ///
    /// # Errors
    /// As [`CachingClient::decrypt`]. **On any error everything that was written must be discarded.**
    pub async fn decrypt_stream<R, W>(
        &self,
        context: &EncryptionContext,
        expected_key: Option<&KeyRef>,
        mut input: R,
        mut output: W,
    ) -> Result<W, EnvelopeError>
    where
        R: Read + Send + 'static,
        W: Write + Send + 'static,
    {
        let read = move || FileHeader::read(&mut input).map(|header| (header, input));
        let (header, input) = tokio::task::spawn_blocking(read).await.map_err(EnvelopeError::Stopped)??;
        let opened = self.open_header(&header, context, expected_key).await?;
        let work = move || file::open(&header, &opened.plaintext, input, &mut output).map(|_| output);
        Ok(tokio::task::spawn_blocking(work).await.map_err(EnvelopeError::Stopped)??)
    }

    /// Forgets all data keys at once: the next message of each kind asks the service.
    pub fn clear(&self) {
        self.inner.sealing.clear();
        self.inner.opening.clear();
    }

    /// What the cache has done so far.
    pub fn counts(&self) -> CacheCounts {
        let (sealing, opening) = (self.inner.sealing.counts(), self.inner.opening.counts());
        CacheCounts {
            entry_count: sealing.0 + opening.0,
            hit_count: sealing.1 + opening.1,
            miss_count: sealing.2 + opening.2,
        }
    }

    async fn new_file(
        &self,
        key: &KeyRef,
        context: &EncryptionContext,
        len: Option<u64>,
    ) -> Result<NewFile, EnvelopeError> {
        let inner = &self.inner;
        let Some(len) = len.filter(|len| inner.limits.keeps_for_sealing(*len)) else {
            debug!(%key, "a data key of its own");
            return Ok(inner.client.new_file(key, context.clone()).await?);
        };
        let place = SealingKey { reference: key.to_string(), context: context.to_canonical() };
        let fetch = || {
            debug!(%key, "a new data key");
            inner.client.generate_data_key(key, None, context)
        };
        let data_key = inner.sealing.get(place, len, fetch).await?;
        self.keep_swept();
        Ok(NewFile::new(data_key, context.clone())?)
    }

    async fn open_header(
        &self,
        header: &FileHeader,
        context: &EncryptionContext,
        expected_key: Option<&KeyRef>,
    ) -> Result<Arc<OpenedDataKey>, EnvelopeError> {
        if header.context() != context {
            return Err(EnvelopeError::ContextDiffers { found: header.context().clone() });
        }
        let inner = &self.inner;
        if inner.limits.keeps_nothing() {
            return Ok(Arc::new(inner.client.open_file(header, expected_key).await?));
        }
        let place = OpeningKey {
            wrapped: header.wrapped_data_key().to_vec(),
            context: context.to_canonical(),
            expected: expected_key.map(KeyRef::to_string),
        };
        let opened = inner.opening.get(place, 0, || inner.client.open_file(header, expected_key)).await?;
        self.keep_swept();
        // The algorithm stands in the header and is not part of the place: another one may have been written over it.
        match opened.spec == header.algorithm() {
            true => Ok(opened),
            false => Err(FileError::Damaged.into()),
        }
    }

    /// Sees to it that somebody removes what gets too old when nobody calls.
    fn keep_swept(&self) {
        let mut sweeper = self.inner.sweeper.lock().unwrap_or_else(PoisonError::into_inner);
        // A runtime that has ended took its sweeper along.
        if sweeper.as_ref().is_none_or(JoinHandle::is_finished) {
            *sweeper = Some(tokio::spawn(sweep(Arc::downgrade(&self.inner))));
        }
    }
}

impl Inner {
    /// Removes what is too old. `None` when nothing is left, and then the sweeper is signed off.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut sweeper = self.sweeper.lock().unwrap_or_else(PoisonError::into_inner);
        let next = [self.sealing.sweep(now), self.opening.sweep(now)].into_iter().flatten().min();
        if next.is_none() {
            *sweeper = None;
        }
        next
    }
}

/// Lives as long as the cache holds something.
async fn sweep(inner: Weak<Inner>) {
    loop {
        let next = match inner.upgrade() {
            Some(inner) => inner.sweep(Instant::now()),
            None => return,
        };
        let Some(next) = next else { return };
        tokio::time::sleep_until(next).await;
    }
}

/// A reader that may not give more than was announced.
struct Announced<R> {
    input: R,
    left: u64,
    is_exceeded: bool,
}

impl<R: Read> Read for Announced<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(out)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => {
                self.left = left;
                Ok(count)
            }
            None => {
                self.is_exceeded = true;
                Err(io::ErrorKind::FileTooLarge.into())
            }
        }
    }
}
