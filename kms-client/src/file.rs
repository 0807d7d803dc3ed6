//! Encrypted files (docs/formats/file.md): one data key each, chunks of 64 KiB, constant memory.
//!
//! [`seal`] and [`open`] work on any reader and writer and need no server. [`Client::new_file`] and
//! [`Client::open_file`] get the data key.

use crate::connect::Client;
use crate::crypto::OpenedDataKey;
use crate::error::ClientError;
use aead_stream::{Decryptor, Encryptor, NewStream, Nonce, StreamBE32, StreamPrimitive};
use aes_gcm::aead::{AeadCore, AeadInOut, KeyInit};
use aes_gcm::aes::cipher::consts::U12;
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AesGcm, Key};
use kms_core::context::EncryptionContext;
use kms_core::id::{KeyId, KeyRef, KeyVersion};
use kms_core::secret::Secret;
use kms_core::suite::AeadAlgorithm;
use sm4::Sm4;
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

/// Plaintext bytes in every chunk but the last.
pub const CHUNK_LEN: usize = 64 * 1024;
/// Longest encrypted data key in a header, in bytes.
pub const WRAPPED_KEY_LEN_MAX: usize = 4096;
/// Longest context in a header, in bytes: 16 pairs, 8 KiB of text, and their lengths.
const CONTEXT_LEN_MAX: usize = 2 + 16 * 4 + 8 * 1024;
const MAGIC: &[u8; 7] = b"KMSFILE";
const FORMAT: u8 = 1;
const NONCE_PREFIX_LEN: usize = 7;
const TAG_LEN: usize = 16;

/// Why a file was not written or read to its end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not begin as an encrypted file does.
    #[error("the input is not a file that `kms encrypt` made")]
    NotEncrypted,
    /// A later format.
    #[error("the file has format {format}; this program reads format 1")]
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
    nonce_prefix: [u8; NONCE_PREFIX_LEN],
    context: EncryptionContext,
    wrapped_data_key: Vec<u8>,
}

impl FileHeader {
    /// The header of a new file. `nonce_prefix` is random.
    ///
    /// # Errors
    /// [`FileError::WrappedKeyLength`].
    pub fn new(
        algorithm: AeadAlgorithm,
        nonce_prefix: [u8; 7],
        context: EncryptionContext,
        wrapped_data_key: Vec<u8>,
    ) -> Result<Self, FileError> {
        let len = wrapped_data_key.len();
        if len == 0 || len > WRAPPED_KEY_LEN_MAX {
            return Err(FileError::WrappedKeyLength { len });
        }
        Ok(Self { algorithm, nonce_prefix, context, wrapped_data_key })
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
        let mut out = Vec::with_capacity(25 + context.len() + self.wrapped_data_key.len());
        out.extend_from_slice(MAGIC);
        out.push(FORMAT);
        out.extend_from_slice(&self.algorithm.number().to_be_bytes());
        out.extend_from_slice(&(CHUNK_LEN as u32).to_be_bytes());
        out.extend_from_slice(&self.nonce_prefix);
        out.extend_from_slice(&(context.len() as u16).to_be_bytes());
        out.extend_from_slice(&context);
        out.extend_from_slice(&(self.wrapped_data_key.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.wrapped_data_key);
        out
    }

    /// Reads a header and leaves the reader at the first chunk.
    ///
    /// # Errors
    /// [`FileError::NotEncrypted`], [`FileError::FormatUnknown`], [`FileError::Damaged`], [`FileError::Read`].
    pub fn read(input: &mut impl Read) -> Result<Self, FileError> {
        let mut magic = [0; 8];
        if read_full(input, &mut magic)? < magic.len() || magic[..7] != *MAGIC {
            return Err(FileError::NotEncrypted);
        }
        if magic[7] != FORMAT {
            return Err(FileError::FormatUnknown { format: magic[7] });
        }
        let algorithm =
            AeadAlgorithm::from_number(u16::from_be_bytes(read_array(input)?)).ok_or(FileError::Damaged)?;
        if u32::from_be_bytes(read_array(input)?) != CHUNK_LEN as u32 {
            return Err(FileError::Damaged);
        }
        let nonce_prefix = read_array(input)?;
        let context = read_field(input, CONTEXT_LEN_MAX)?;
        let context = parse_context(&context).ok_or(FileError::Damaged)?;
        let wrapped_data_key = read_field(input, WRAPPED_KEY_LEN_MAX)?;
        Ok(Self { algorithm, nonce_prefix, context, wrapped_data_key })
    }
}

fn read_full(input: &mut impl Read, out: &mut [u8]) -> Result<usize, FileError> {
    let mut filled = 0;
    while filled < out.len() {
        match input.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FileError::Read(error)),
        }
    }
    Ok(filled)
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

/// Splits a reader into pieces of `len` bytes and knows which one is the last before handing it out.
struct Pieces<R> {
    input: R,
    len: usize,
    /// `len + 1` bytes: the one beyond the piece tells whether there is another.
    ahead: Zeroizing<Vec<u8>>,
    filled: usize,
}

impl<R: Read> Pieces<R> {
    fn new(input: R, len: usize) -> Self {
        Self { input, len, ahead: Zeroizing::new(vec![0; len + 1]), filled: 0 }
    }

    /// Replaces `piece` by the next one and says whether it is the last.
    fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool, FileError> {
        self.filled += read_full(&mut self.input, &mut self.ahead[self.filled..])?;
        let is_last = self.filled <= self.len;
        piece.clear();
        piece.extend_from_slice(&self.ahead[..self.filled.min(self.len)]);
        if !is_last {
            self.ahead[0] = self.ahead[self.len];
            self.filled = 1;
        }
        Ok(is_last)
    }
}

/// The ciphers of a file. Nonces have 12 bytes: 7 of the prefix, 4 of the counter, 1 of the last-chunk mark.
trait ChunkCipher: AeadInOut + AeadCore<NonceSize = U12> + KeyInit {}
impl<A: AeadInOut + AeadCore<NonceSize = U12> + KeyInit> ChunkCipher for A {}

fn stream<A: ChunkCipher>(header: &FileHeader, data_key: &Secret) -> Result<StreamBE32<A>, FileError> {
    let key = <&Key<A>>::try_from(data_key.expose()).map_err(|_| FileError::KeyLength)?;
    let nonce: &Nonce<A, StreamBE32<A>> = (&header.nonce_prefix).into();
    Ok(StreamBE32::new(key, nonce))
}

fn seal_with<A: ChunkCipher>(
    header: &FileHeader,
    data_key: &Secret,
    input: impl Read,
    output: &mut impl Write,
) -> Result<u64, FileError> {
    let mut encryptor: Encryptor<A, _> = stream::<A>(header, data_key)?.encryptor();
    let header = header.to_bytes();
    output.write_all(&header).map_err(FileError::Write)?;
    let mut pieces = Pieces::new(input, CHUNK_LEN);
    let mut chunk = Zeroizing::new(Vec::with_capacity(CHUNK_LEN + TAG_LEN));
    let mut len = 0;
    loop {
        let is_last = pieces.next(&mut chunk)?;
        len += chunk.len() as u64;
        if is_last {
            // The one refusal of the cipher is that the counter has come to its end.
            encryptor.encrypt_last_in_place(&header, &mut *chunk).map_err(|_| FileError::TooLong)?;
            output.write_all(&chunk).map_err(FileError::Write)?;
            output.flush().map_err(FileError::Write)?;
            return Ok(len);
        }
        encryptor.encrypt_next_in_place(&header, &mut *chunk).map_err(|_| FileError::TooLong)?;
        output.write_all(&chunk).map_err(FileError::Write)?;
    }
}

fn open_with<A: ChunkCipher>(
    header: &FileHeader,
    data_key: &Secret,
    input: impl Read,
    output: &mut impl Write,
) -> Result<u64, FileError> {
    let mut decryptor: Decryptor<A, _> = stream::<A>(header, data_key)?.decryptor();
    let header = header.to_bytes();
    let mut pieces = Pieces::new(input, CHUNK_LEN + TAG_LEN);
    let mut chunk = Zeroizing::new(Vec::with_capacity(CHUNK_LEN + TAG_LEN));
    let mut len = 0;
    loop {
        let is_last = pieces.next(&mut chunk)?;
        if is_last {
            decryptor.decrypt_last_in_place(&header, &mut *chunk).map_err(|_| FileError::Damaged)?;
            // Only an empty file has an empty chunk: every plaintext has one way to be cut into chunks.
            if chunk.is_empty() && len > 0 {
                return Err(FileError::Damaged);
            }
            output.write_all(&chunk).map_err(FileError::Write)?;
            output.flush().map_err(FileError::Write)?;
            return Ok(len + chunk.len() as u64);
        }
        decryptor.decrypt_next_in_place(&header, &mut *chunk).map_err(|_| FileError::Damaged)?;
        output.write_all(&chunk).map_err(FileError::Write)?;
        len += chunk.len() as u64;
    }
}

/// Writes the header and the encrypted input; gives the number of plaintext bytes. Memory: two chunks.
///
/// The data key must be fresh: the same key for a second file would repeat nonces with a repeated prefix.
///
/// # Errors
/// [`FileError::KeyLength`], [`FileError::TooLong`], [`FileError::Read`], [`FileError::Write`].
pub fn seal(
    header: &FileHeader,
    data_key: &Secret,
    input: impl Read,
    output: &mut impl Write,
) -> Result<u64, FileError> {
    match header.algorithm {
        AeadAlgorithm::Aes256Gcm => seal_with::<AesGcm<Aes256, U12>>(header, data_key, input, output),
        AeadAlgorithm::Sm4Gcm => seal_with::<AesGcm<Sm4, U12>>(header, data_key, input, output),
        AeadAlgorithm::Aes128Gcm => seal_with::<AesGcm<Aes128, U12>>(header, data_key, input, output),
        AeadAlgorithm::Aes192Gcm => seal_with::<AesGcm<Aes192, U12>>(header, data_key, input, output),
    }
}

/// Decrypts the chunks behind a header that [`FileHeader::read`] took; gives the number of plaintext bytes.
///
/// Chunks are written as they are verified. On any error everything that was written must be discarded.
///
/// # Errors
/// [`FileError::Damaged`] for every change, [`FileError::Read`], [`FileError::Write`].
pub fn open(
    header: &FileHeader,
    data_key: &Secret,
    input: impl Read,
    output: &mut impl Write,
) -> Result<u64, FileError> {
    match header.algorithm {
        AeadAlgorithm::Aes256Gcm => open_with::<AesGcm<Aes256, U12>>(header, data_key, input, output),
        AeadAlgorithm::Sm4Gcm => open_with::<AesGcm<Sm4, U12>>(header, data_key, input, output),
        AeadAlgorithm::Aes128Gcm => open_with::<AesGcm<Aes128, U12>>(header, data_key, input, output),
        AeadAlgorithm::Aes192Gcm => open_with::<AesGcm<Aes192, U12>>(header, data_key, input, output),
    }
}

/// A fresh data key and the header of the file that it is for.
#[derive(Debug)]
pub struct NewFile {
    /// The header.
    pub header: FileHeader,
    /// The data key in the clear.
    pub data_key: Secret,
    /// The key that encrypted the data key.
    pub key_id: KeyId,
    /// That key's version.
    pub key_version: KeyVersion,
}

impl Client {
    /// Gets a data key for one new file; its algorithm is the key's. Continue with [`seal`].
    ///
    /// # Errors
    /// As [`Client::generate_data_key`].
    pub async fn new_file(&self, key: &KeyRef, context: EncryptionContext) -> Result<NewFile, ClientError> {
        let mut nonce_prefix = [0; NONCE_PREFIX_LEN];
        getrandom::fill(&mut nonce_prefix).map_err(ClientError::NoRandomness)?;
        let made = self.generate_data_key(key, None, &context).await?;
        let wrapped = made.wrapped;
        let header = FileHeader::new(wrapped.spec, nonce_prefix, context, wrapped.ciphertext)
            .map_err(|error| ClientError::malformed(error.to_string()))?;
        let (key_id, key_version) = (wrapped.key_id, wrapped.key_version);
        Ok(NewFile { header, data_key: made.plaintext, key_id, key_version })
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
