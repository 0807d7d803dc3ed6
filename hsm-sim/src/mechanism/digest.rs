//! The hash functions, in one part or in several.

use sha1::Sha1;
use sha2::digest::Digest;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use sm3::Sm3;

use crate::mechanism::Hash;

/// Runs `$body` with `$Digest` standing for the type of the hash function.
macro_rules! with_hash {
    ($hash:expr, $Digest:ident => $body:expr) => {
        match $hash {
            $crate::mechanism::Hash::Sha1 => {
                type $Digest = ::sha1::Sha1;
                $body
            }
            $crate::mechanism::Hash::Sha224 => {
                type $Digest = ::sha2::Sha224;
                $body
            }
            $crate::mechanism::Hash::Sha256 => {
                type $Digest = ::sha2::Sha256;
                $body
            }
            $crate::mechanism::Hash::Sha384 => {
                type $Digest = ::sha2::Sha384;
                $body
            }
            $crate::mechanism::Hash::Sha512 => {
                type $Digest = ::sha2::Sha512;
                $body
            }
            $crate::mechanism::Hash::Sm3 => {
                type $Digest = ::sm3::Sm3;
                $body
            }
        }
    };
}
pub(crate) use with_hash;

impl Hash {
    pub fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 | Self::Sm3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

#[derive(Clone)]
pub enum Digester {
    Sha1(Sha1),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
    Sm3(Sm3),
}

impl Digester {
    pub fn new(hash: Hash) -> Self {
        match hash {
            Hash::Sha1 => Self::Sha1(Sha1::new()),
            Hash::Sha224 => Self::Sha224(Sha224::new()),
            Hash::Sha256 => Self::Sha256(Sha256::new()),
            Hash::Sha384 => Self::Sha384(Sha384::new()),
            Hash::Sha512 => Self::Sha512(Sha512::new()),
            Hash::Sm3 => Self::Sm3(Sm3::new()),
        }
    }

    pub fn digest_len(&self) -> usize {
        match self {
            Self::Sha1(_) => Hash::Sha1.len(),
            Self::Sha224(_) => Hash::Sha224.len(),
            Self::Sha256(_) => Hash::Sha256.len(),
            Self::Sha384(_) => Hash::Sha384.len(),
            Self::Sha512(_) => Hash::Sha512.len(),
            Self::Sm3(_) => Hash::Sm3.len(),
        }
    }

    pub fn update(&mut self, part: &[u8]) {
        match self {
            Self::Sha1(state) => state.update(part),
            Self::Sha224(state) => state.update(part),
            Self::Sha256(state) => state.update(part),
            Self::Sha384(state) => state.update(part),
            Self::Sha512(state) => state.update(part),
            Self::Sm3(state) => state.update(part),
        }
    }

    pub fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha1(state) => state.finalize().to_vec(),
            Self::Sha224(state) => state.finalize().to_vec(),
            Self::Sha256(state) => state.finalize().to_vec(),
            Self::Sha384(state) => state.finalize().to_vec(),
            Self::Sha512(state) => state.finalize().to_vec(),
            Self::Sm3(state) => state.finalize().to_vec(),
        }
    }
}
