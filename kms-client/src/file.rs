//! Encrypted files and messages (docs/formats/file.md): a key of its own for each, chunks of 64 KiB, constant memory.
//!
//! [`NewFile::seal`] and [`open`] work on any reader and writer and need no server. [`Client::new_file`] and
//! [`Client::open_file`] get the data key; [`CachingClient`](crate::CachingClient) keeps it for the next ones.

mod chunks;

use crate::connect::Client;
use crate::crypto::{DataKey, OpenedDataKey};
use crate::error::ClientError;
use aes_gcm::AesGcm;
use aes_gcm::aes::cipher::consts::U12;
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use chunks::{Chunks, NONCE_PREFIX_LEN, Pieces, Slices, Source, TAG_LEN, read_full};
use kms_core::context::EncryptionContext;
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::secret::{Secret, SecretBytes};
use kms_core::suite::AeadAlgorithm;
use sm4::Sm4;
use std::io::{self, Read, Write};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Plaintext bytes in every chunk but the last.
pub const CHUNK_LEN: usize = 64 * 1024;
/// Longest encrypted data key in a header, in bytes.
pub const WRAPPED_KEY_LEN_MAX: usize = 4096;
/// Longest context in a header, in bytes: 16 pairs, 8 KiB of text, and their lengths.
const CONTEXT_LEN_MAX: usize = 2 + 16 * 4 + 8 * 1024;
const MAGIC: &[u8; 7] = b"KMSFILE";
const SALT_LEN: usize = 16;
const COMMITMENT_LEN: usize = 32;

/// Why a file was not written or read to its end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not begin as an encrypted file does.
    #[error("the input is not a file that `kms encrypt` made")]
    NotEncrypted,
    /// A later format.
    #[error("the file has format {format}; this program reads formats 1 and 2")]
    FormatUnknown {
        /// The number that stands there.
        format: u8,
    },
    /// Changed, cut, extended, put together from parts, or opened with another key. One case for all.
    #[error(
        "the file is damaged, incomplete or was changed; nothing that was written from it can be trusted"
    )]
    Damaged,
    /// More than 2^32 chunks.
    #[error("the input is longer than 256 TiB, the most that one file can hold")]
    TooLong,
    /// A data key of another algorithm than the header names.
    #[error("the data key does not have the length that the file's algorithm needs")]
    KeyLength,
    /// The encrypted data key does not fit the header.
    #[error("the encrypted data key has {len} bytes; a file header holds 1 to 4096")]
    WrappedKeyLength {
        /// Its length.
        len: usize,
    },
    /// The input could not be read.
    #[error("the input cannot be read")]
    Read(#[source] io::Error),
    /// The output could not be written.
    #[error("the output cannot be written")]
    Write(#[source] io::Error),
}

/// The part of a file before its chunks. Not secret; authenticated by every chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHeader {
    algorithm: AeadAlgorithm,
    start: Start,
    context: EncryptionContext,
    wrapped_data_key: Vec<u8>,
}

/// What makes a file's nonces its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Format 1: the data key encrypts the chunks, with nonces that begin so.
    NoncePrefix([u8; NONCE_PREFIX_LEN]),
    /// Format 2: the file's own key is derived with it.
    Salt([u8; SALT_LEN]),
}

impl FileHeader {
    /// The header of a new file, in format 2. `salt` is random.
    ///
    /// # Errors
    /// [`FileError::WrappedKeyLength`].
    fn new(
        algorithm: AeadAlgorithm,
        salt: [u8; SALT_LEN],
        context: EncryptionContext,
        wrapped_data_key: Vec<u8>,
    ) -> Result<Self, FileError> {
        let len = wrapped_data_key.len();
        if len == 0 || len > WRAPPED_KEY_LEN_MAX {
            return Err(FileError::WrappedKeyLength { len });
        }
        Ok(Self { algorithm, start: Start::Salt(salt), context, wrapped_data_key })
    }

    /// The algorithm of the chunks.
    pub fn algorithm(&self) -> AeadAlgorithm {
        self.algorithm
    }

    /// The context that the data key is bound to.
    pub fn context(&self) -> &EncryptionContext {
        &self.context
    }

    /// The encrypted data key.
    pub fn wrapped_data_key(&self) -> &[u8] {
        &self.wrapped_data_key
    }

    /// The header's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let context = self.context.to_canonical();
        let (format, start) = match &self.start {
            Start::NoncePrefix(prefix) => (1, &prefix[..]),
            Start::Salt(salt) => (2, &salt[..]),
        };
        let mut out = Vec::with_capacity(34 + context.len() + self.wrapped_data_key.len());
        out.extend_from_slice(MAGIC);
        out.push(format);
        out.extend_from_slice(&self.algorithm.number().to_be_bytes());
        out.extend_from_slice(&(CHUNK_LEN as u32).to_be_bytes());
        out.extend_from_slice(start);
        out.extend_from_slice(&(context.len() as u16).to_be_bytes());
        out.extend_from_slice(&context);
        out.extend_from_slice(&(self.wrapped_data_key.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.wrapped_data_key);
        out
    }

    /// Reads a header and leaves the reader behind it, where [`open`] goes on.
    ///
    /// # Errors
    /// [`FileError::NotEncrypted`], [`FileError::FormatUnknown`], [`FileError::Damaged`], [`FileError::Read`].
    pub fn read(input: &mut impl Read) -> Result<Self, FileError> {
        let mut magic = [0; 8];
        if read_full(input, &mut magic)? < magic.len() || magic[..7] != *MAGIC {
            return Err(FileError::NotEncrypted);
        }
        let format = magic[7];
        if ![1, 2].contains(&format) {
            return Err(FileError::FormatUnknown { format });
        }
        let algorithm =
            AeadAlgorithm::from_number(u16::from_be_bytes(read_array(input)?)).ok_or(FileError::Damaged)?;
        if u32::from_be_bytes(read_array(input)?) != CHUNK_LEN as u32 {
            return Err(FileError::Damaged);
        }
        let start = match format {
            1 => Start::NoncePrefix(read_array(input)?),
            _ => Start::Salt(read_array(input)?),
        };
        let context = read_field(input, CONTEXT_LEN_MAX)?;
        let context = parse_context(&context).ok_or(FileError::Damaged)?;
        let wrapped_data_key = read_field(input, WRAPPED_KEY_LEN_MAX)?;
        Ok(Self { algorithm, start, context, wrapped_data_key })
    }
}

fn read_array<const N: usize>(input: &mut impl Read) -> Result<[u8; N], FileError> {
    let mut out = [0; N];
    if read_full(input, &mut out)? < N { Err(FileError::Damaged) } else { Ok(out) }
}

fn read_field(input: &mut impl Read, len_max: usize) -> Result<Vec<u8>, FileError> {
    let len = usize::from(u16::from_be_bytes(read_array(input)?));
    if len == 0 || len > len_max {
        return Err(FileError::Damaged);
    }
    let mut out = vec![0; len];
    if read_full(input, &mut out)? < len { Err(FileError::Damaged) } else { Ok(out) }
}

/// Reads what [`EncryptionContext::to_canonical`] wrote, and nothing else.
fn parse_context(bytes: &[u8]) -> Option<EncryptionContext> {
    fn number(rest: &mut &[u8]) -> Option<usize> {
        let (number, after) = rest.split_first_chunk()?;
        *rest = after;
        Some(usize::from(u16::from_be_bytes(*number)))
    }
    fn text(rest: &mut &[u8]) -> Option<String> {
        let len = number(rest)?;
        let (text, after) = rest.split_at_checked(len)?;
        *rest = after;
        String::from_utf8(text.to_vec()).ok()
    }
    let mut rest = bytes;
    let count = number(&mut rest)?;
    let pairs = (0..count).map(|_| Some((text(&mut rest)?, text(&mut rest)?))).collect::<Option<Vec<_>>>()?;
    let context = EncryptionContext::new(pairs).ok()?;
    (context.to_canonical() == bytes).then_some(context)
}

/// What the chunks of one file of format 2 are encrypted with: key (up to 32 bytes), commitment (32), nonce
/// prefix (7), in one box so that all of it is wiped.
struct FileKey {
    material: SecretBytes<{ 32 + COMMITMENT_LEN + NONCE_PREFIX_LEN }>,
    key_len: usize,
}

impl FileKey {
    /// HKDF(data key, salt, header). The hash is SM3 for SM4 and SHA-256 for AES.
    fn derive(algorithm: AeadAlgorithm, data_key: &Secret, salt: &[u8; SALT_LEN], header: &[u8]) -> Self {
        let mut material = SecretBytes::zeroed();
        let info = [&b"kms/v1/file\0"[..], header];
        algorithm.suite().hkdf(data_key.expose(), salt, &info, material.expose_mut());
        Self { material, key_len: algorithm.key_len() }
    }

    fn key(&self) -> &[u8] {
        &self.material.expose()[..self.key_len]
    }

    fn commitment(&self) -> &[u8] {
        &self.material.expose()[32..32 + COMMITMENT_LEN]
    }

    fn nonce_prefix(&self) -> [u8; NONCE_PREFIX_LEN] {
        let mut prefix = [0; NONCE_PREFIX_LEN];
        prefix.copy_from_slice(&self.material.expose()[32 + COMMITMENT_LEN..]);
        prefix
    }

    fn commits(&self, commitment: &[u8; COMMITMENT_LEN]) -> bool {
        let own = SecretBytes::<COMMITMENT_LEN>::from_slice(self.commitment());
        own.is_some_and(|own| own.is_equal(commitment))
    }
}

fn require_len(algorithm: AeadAlgorithm, data_key: &Secret) -> Result<(), FileError> {
    if data_key.expose().len() == algorithm.key_len() { Ok(()) } else { Err(FileError::KeyLength) }
}

fn seal_chunks(
    header: &FileHeader,
    data_key: &Secret,
    source: impl Source,
    output: &mut impl Write,
) -> Result<u64, FileError> {
    require_len(header.algorithm, data_key)?;
    let bytes = header.to_bytes();
    let Start::Salt(salt) = &header.start else {
        // A header of format 1 was read: its data key has had its file.
        return Err(FileError::FormatUnknown { format: 1 });
    };
    let key = FileKey::derive(header.algorithm, data_key, salt, &bytes);
    output.write_all(&bytes).and_then(|()| output.write_all(key.commitment())).map_err(FileError::Write)?;
    let chunks = Chunks { key: key.key(), nonce_prefix: &key.nonce_prefix(), header: &bytes };
    match header.algorithm {
        AeadAlgorithm::Aes256Gcm => chunks.seal::<AesGcm<Aes256, U12>>(source, output),
        AeadAlgorithm::Sm4Gcm => chunks.seal::<AesGcm<Sm4, U12>>(source, output),
        AeadAlgorithm::Aes128Gcm => chunks.seal::<AesGcm<Aes128, U12>>(source, output),
        AeadAlgorithm::Aes192Gcm => chunks.seal::<AesGcm<Aes192, U12>>(source, output),
    }
}

fn open_chunks(
    header: &FileHeader,
    data_key: &Secret,
    commitment: Option<[u8; COMMITMENT_LEN]>,
    source: impl Source,
    output: &mut impl Write,
) -> Result<u64, FileError> {
    require_len(header.algorithm, data_key)?;
    let bytes = header.to_bytes();
    let derived;
    let (key, nonce_prefix) = match (&header.start, commitment) {
        (Start::NoncePrefix(prefix), None) => (data_key.expose(), *prefix),
        (Start::Salt(salt), Some(commitment)) => {
            derived = FileKey::derive(header.algorithm, data_key, salt, &bytes);
            if !derived.commits(&commitment) {
                return Err(FileError::Damaged);
            }
            (derived.key(), derived.nonce_prefix())
        }
        (Start::NoncePrefix(_), Some(_)) | (Start::Salt(_), None) => return Err(FileError::Damaged),
    };
    let chunks = Chunks { key, nonce_prefix: &nonce_prefix, header: &bytes };
    match header.algorithm {
        AeadAlgorithm::Aes256Gcm => chunks.open::<AesGcm<Aes256, U12>>(source, output),
        AeadAlgorithm::Sm4Gcm => chunks.open::<AesGcm<Sm4, U12>>(source, output),
        AeadAlgorithm::Aes128Gcm => chunks.open::<AesGcm<Aes128, U12>>(source, output),
        AeadAlgorithm::Aes192Gcm => chunks.open::<AesGcm<Aes192, U12>>(source, output),
    }
}

/// Decrypts what is behind a header that [`FileHeader::read`] took; gives the number of plaintext bytes.
///
/// Chunks are written as they are verified. On any error everything that was written must be discarded.
///
/// # Errors
/// [`FileError::Damaged`] for every change, [`FileError::Read`], [`FileError::Write`].
pub fn open(
    header: &FileHeader,
    data_key: &Secret,
    mut input: impl Read,
    output: &mut impl Write,
) -> Result<u64, FileError> {
    let commitment = match header.start {
        Start::NoncePrefix(_) => None,
        Start::Salt(_) => Some(read_array(&mut input)?),
    };
    open_chunks(header, data_key, commitment, Pieces::new(input, CHUNK_LEN + TAG_LEN), output)
}

/// As [`open`], for what is in memory: `rest` is everything behind the header. Gives the plaintext, or nothing.
///
/// # Errors
/// [`FileError::Damaged`] for every change.
pub fn open_bytes(header: &FileHeader, data_key: &Secret, mut rest: &[u8]) -> Result<Secret, FileError> {
    let commitment = match header.start {
        Start::NoncePrefix(_) => None,
        Start::Salt(_) => Some(read_array(&mut rest)?),
    };
    // Large enough from the start, so that growth leaves no copy behind.
    let mut plaintext = Zeroizing::new(Vec::with_capacity(rest.len()));
    open_chunks(header, data_key, commitment, Slices::new(rest, CHUNK_LEN + TAG_LEN), &mut *plaintext)?;
    Ok(Secret::new(std::mem::take(&mut *plaintext)))
}

/// One file to be written: a header with a salt of its own, and a data key. It is used up by writing, because a
/// second file with the same salt would repeat every nonce.
#[derive(Debug)]
pub struct NewFile {
    header: FileHeader,
    data_key: Arc<DataKey>,
}

impl NewFile {
    /// A file under a data key that may serve others too: the salt makes this file's own key.
    ///
    /// # Errors
    /// [`ClientError::NoRandomness`]; [`ClientError::AnswerMalformed`]: the encrypted data key fits no header.
    pub(crate) fn new(data_key: Arc<DataKey>, context: EncryptionContext) -> Result<Self, ClientError> {
        let mut salt = [0; SALT_LEN];
        getrandom::fill(&mut salt).map_err(ClientError::NoRandomness)?;
        let wrapped = &data_key.wrapped;
        let header = FileHeader::new(wrapped.spec, salt, context, wrapped.ciphertext.clone())
            .map_err(|error| ClientError::malformed(error.to_string()))?;
        Ok(Self { header, data_key })
    }

    /// The header.
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// The key that encrypted the data key.
    pub fn key_id(&self) -> KeyId {
        self.data_key.wrapped.key_id
    }

    /// That key's version.
    pub fn key_version(&self) -> KeyVersion {
        self.data_key.wrapped.key_version
    }

    /// Writes the header and the encrypted input; gives the number of plaintext bytes. Memory: one chunk.
    ///
    /// # Errors
    /// [`FileError::TooLong`], [`FileError::Read`], [`FileError::Write`].
    pub fn seal(self, input: impl Read, output: &mut impl Write) -> Result<u64, FileError> {
        seal_chunks(&self.header, &self.data_key.plaintext, Pieces::new(input, CHUNK_LEN), output)
    }

    /// As [`NewFile::seal`], for what is in memory.
    ///
    /// # Errors
    /// [`FileError::KeyLength`]: the service's data key does not fit its algorithm.
    pub fn seal_bytes(self, plaintext: &[u8]) -> Result<Vec<u8>, FileError> {
        let chunk_count = plaintext.len().div_ceil(CHUNK_LEN).max(1);
        let len = self.header.to_bytes().len() + COMMITMENT_LEN + plaintext.len() + chunk_count * TAG_LEN;
        let mut output = Vec::with_capacity(len);
        let source = Slices::new(plaintext, CHUNK_LEN);
        seal_chunks(&self.header, &self.data_key.plaintext, source, &mut output)?;
        Ok(output)
    }
}

impl Client {
    /// Gets a data key for one new file; its algorithm is the key's. Continue with [`NewFile::seal`].
    ///
    /// # Errors
    /// As [`Client::generate_data_key`].
    pub async fn new_file(&self, key: &KeyRef, context: EncryptionContext) -> Result<NewFile, ClientError> {
        let made = self.generate_data_key(key, None, &context).await?;
        NewFile::new(Arc::new(made), context)
    }

    /// Has the data key of a file decrypted. Continue with [`open`].
    ///
    /// # Errors
    /// As [`Client::decrypt_data_key`].
    pub async fn open_file(
        &self,
        header: &FileHeader,
        expected_key: Option<&KeyRef>,
    ) -> Result<OpenedDataKey, ClientError> {
        let opened = self.decrypt_data_key(&header.wrapped_data_key, &header.context, expected_key).await?;
        if opened.spec != header.algorithm {
            return Err(ClientError::malformed("the data key is of another algorithm than the file"));
        }
        Ok(opened)
    }
}

#[cfg(test)]
mod tests;
