//! The chunks of a file: the STREAM construction over a file's key.

use super::FileError;
use aead_stream::{Decryptor, Encryptor, NewStream, Nonce, StreamBE32, StreamPrimitive};
use aes_gcm::Key;
use aes_gcm::aead::{AeadCore, AeadInOut, KeyInit};
use aes_gcm::aes::cipher::consts::U12;
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

pub(super) const NONCE_PREFIX_LEN: usize = 7;
pub(super) const TAG_LEN: usize = 16;

pub(super) fn read_full(input: &mut impl Read, out: &mut [u8]) -> Result<usize, FileError> {
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

/// Where the pieces of a file come from. It knows which one is the last before handing it out.
pub(super) trait Source {
    /// Room that a piece needs, in bytes.
    fn piece_len_max(&self) -> usize;

    /// Replaces `piece` by the next one and says whether it is the last.
    fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool, FileError>;
}

/// Splits what is in memory into pieces of `len` bytes.
pub(super) struct Slices<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Slices<'a> {
    pub fn new(rest: &'a [u8], len: usize) -> Self {
        Self { rest, len }
    }
}

impl Source for Slices<'_> {
    fn piece_len_max(&self) -> usize {
        self.len.min(self.rest.len())
    }

    fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool, FileError> {
        let (now, rest) = self.rest.split_at(self.len.min(self.rest.len()));
        self.rest = rest;
        piece.clear();
        piece.extend_from_slice(now);
        Ok(rest.is_empty())
    }
}

/// Splits a reader into pieces of `len` bytes.
pub(super) struct Pieces<R> {
    input: R,
    len: usize,
    /// The byte beyond the last piece: that it was there told that another piece follows.
    beyond: Zeroizing<Option<u8>>,
}

impl<R: Read> Pieces<R> {
    pub fn new(input: R, len: usize) -> Self {
        Self { input, len, beyond: Zeroizing::new(None) }
    }
}

impl<R: Read> Source for Pieces<R> {
    fn piece_len_max(&self) -> usize {
        self.len + 1
    }

    fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool, FileError> {
        // Read to where it is encrypted or decrypted: a copy would cost a tenth of what AES-GCM does.
        piece.resize(self.len + 1, 0);
        let mut filled = 0;
        if let Some(first) = self.beyond.take() {
            piece[0] = first;
            filled = 1;
        }
        filled += read_full(&mut self.input, &mut piece[filled..])?;
        if filled > self.len {
            *self.beyond = piece.pop();
            return Ok(false);
        }
        piece.truncate(filled);
        Ok(true)
    }
}

/// The ciphers of a file. Nonces have 12 bytes: 7 of the prefix, 4 of the counter, 1 of the last-chunk mark.
pub(super) trait ChunkCipher: AeadInOut + AeadCore<NonceSize = U12> + KeyInit {}
impl<A: AeadInOut + AeadCore<NonceSize = U12> + KeyInit> ChunkCipher for A {}

/// What every chunk of one file is encrypted with.
#[derive(Clone, Copy)]
pub(super) struct Chunks<'a> {
    pub key: &'a [u8],
    pub nonce_prefix: &'a [u8; NONCE_PREFIX_LEN],
    /// The header's bytes: authenticated with each chunk.
    pub header: &'a [u8],
}

impl Chunks<'_> {
    pub fn stream<A: ChunkCipher>(self) -> Result<StreamBE32<A>, FileError> {
        let key = <&Key<A>>::try_from(self.key).map_err(|_| FileError::KeyLength)?;
        let nonce: &Nonce<A, StreamBE32<A>> = self.nonce_prefix.into();
        Ok(StreamBE32::new(key, nonce))
    }

    pub fn seal<A: ChunkCipher>(
        self,
        mut source: impl Source,
        output: &mut impl Write,
    ) -> Result<u64, FileError> {
        let mut encryptor: Encryptor<A, _> = self.stream::<A>()?.encryptor();
        let mut chunk = Zeroizing::new(Vec::with_capacity(source.piece_len_max() + TAG_LEN));
        let mut len = 0;
        loop {
            let is_last = source.next(&mut chunk)?;
            len += chunk.len() as u64;
            if is_last {
                // The one refusal of the cipher is that the counter has come to its end.
                encryptor.encrypt_last_in_place(self.header, &mut *chunk).map_err(|_| FileError::TooLong)?;
                output.write_all(&chunk).map_err(FileError::Write)?;
                output.flush().map_err(FileError::Write)?;
                return Ok(len);
            }
            encryptor.encrypt_next_in_place(self.header, &mut *chunk).map_err(|_| FileError::TooLong)?;
            output.write_all(&chunk).map_err(FileError::Write)?;
        }
    }

    pub fn open<A: ChunkCipher>(
        self,
        mut source: impl Source,
        output: &mut impl Write,
    ) -> Result<u64, FileError> {
        let mut decryptor: Decryptor<A, _> = self.stream::<A>()?.decryptor();
        let mut chunk = Zeroizing::new(Vec::with_capacity(source.piece_len_max()));
        let mut len = 0;
        loop {
            let is_last = source.next(&mut chunk)?;
            if is_last {
                decryptor.decrypt_last_in_place(self.header, &mut *chunk).map_err(|_| FileError::Damaged)?;
                // Only an empty file has an empty chunk: every plaintext has one way to be cut into chunks.
                if chunk.is_empty() && len > 0 {
                    return Err(FileError::Damaged);
                }
                output.write_all(&chunk).map_err(FileError::Write)?;
                output.flush().map_err(FileError::Write)?;
                return Ok(len + chunk.len() as u64);
            }
            decryptor.decrypt_next_in_place(self.header, &mut *chunk).map_err(|_| FileError::Damaged)?;
            output.write_all(&chunk).map_err(FileError::Write)?;
            len += chunk.len() as u64;
        }
    }
}
