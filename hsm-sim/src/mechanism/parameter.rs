//! What comes with a mechanism, once `ffi/` has read it: nothing behind `ffi/` sees a pointer.

use crate::key_kind::KeyKind;
use crate::mechanism::Hash;
use crate::mechanism::gcm::GcmParameter;
use crate::object_table::ObjectHandle;
use crate::refusal::Refusal;

/// The C structure behind `pParameter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterShape {
    Absent,
    Iv {
        len: usize,
    },
    Counter,
    Gcm,
    Length,
    Pss,
    Oaep,
    Ecdh,
    Hkdf,
    /// The user's identifier, or nothing, as the personality wants it.
    Sm2UserId,
}

#[derive(Debug)]
pub enum Parameter {
    Absent,
    Iv(Vec<u8>),
    Counter(CounterParameter),
    Gcm(GcmParameter),
    Length(usize),
    Pss(PssParameter),
    Oaep(OaepParameter),
    Ecdh(EcdhParameter),
    Hkdf(HkdfParameter),
    Sm2UserId(String),
}

#[derive(Debug)]
pub struct CounterParameter {
    pub block: [u8; 16],
    /// How many bits at the right end of the block count.
    pub bits: u32,
}

#[derive(Debug, Clone, Copy)]
pub struct PssParameter {
    pub hash: Hash,
    /// Of the mask generation.
    pub mask_hash: Hash,
    pub salt_len: usize,
}

#[derive(Debug)]
pub struct OaepParameter {
    pub hash: Hash,
    pub label: Vec<u8>,
}

#[derive(Debug)]
pub struct EcdhParameter {
    /// `None` is `CKD_NULL`: the agreed value itself.
    pub kdf: Option<Hash>,
    pub shared_data: Vec<u8>,
    pub public_data: Vec<u8>,
}

#[derive(Debug)]
pub struct HkdfParameter {
    pub hash: Hash,
    /// `None` leaves the extract step out.
    pub extract_with: Option<Salt>,
    /// The info of the expand step; `None` leaves the step out.
    pub expand_with: Option<Vec<u8>>,
}

#[derive(Debug)]
pub enum Salt {
    Absent,
    Data(Vec<u8>),
    Key(ObjectHandle),
}

/// What a derivation is to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedKey {
    pub kind: KeyKind,
    pub len: usize,
}

impl Parameter {
    /// For mechanisms that may cut their result; the default is all of it.
    pub fn length_or(&self, whole: usize) -> Result<usize, Refusal> {
        match self {
            Self::Absent => Ok(whole),
            Self::Length(len) if (1..=whole).contains(len) => Ok(*len),
            _ => Err(Refusal::MechanismParamInvalid),
        }
    }
}
