//! PINs, and the keys at rest that hang on them.
//!
//! Every token has a random token key that seals its private objects. The token key is kept only
//! sealed: once under a key derived from the PIN of the security officer, once under the user's. A
//! PIN is right when it opens the token key; nothing else about it is stored.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use argon2::{Algorithm, Argon2, Params, Version};
use cryptoki_sys as ck;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::random;
use crate::refusal::Refusal;

pub const PIN_LEN_MIN: usize = 4;
pub const PIN_LEN_MAX: usize = 255;
/// After so many wrong attempts in a row the PIN is locked.
pub const PIN_FAILURES_MAX: u8 = 10;

const KEY_LEN: usize = 32;
// Our PINs are 256 random bits, so the derivation need not be slow; it has to be short, because it
// runs under the lock of the token.
const ARGON2_MEMORY_KIB: u32 = 1024;
const ARGON2_PASSES: u32 = 1;

/// Whose PIN it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    User,
    SecurityOfficer,
}

impl Role {
    pub fn from_user_type(user_type: ck::CK_USER_TYPE) -> Result<Self, Refusal> {
        match user_type {
            ck::CKU_USER => Ok(Self::User),
            ck::CKU_SO => Ok(Self::SecurityOfficer),
            // No object here asks for a PIN of its own before each use.
            ck::CKU_CONTEXT_SPECIFIC => Err(Refusal::OperationNotInitialized),
            _ => Err(Refusal::UserTypeInvalid),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::SecurityOfficer => "security officer",
        }
    }
}

/// A PIN that somebody wants to have from now on.
pub struct NewPin<'a>(&'a [u8]);

impl<'a> NewPin<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, Refusal> {
        if (PIN_LEN_MIN..=PIN_LEN_MAX).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(Refusal::PinLenRange)
        }
    }
}

impl fmt::Debug for NewPin<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("NewPin(redacted)")
    }
}

/// Bytes under AES-256-GCM with a random nonce.
#[derive(Debug, Clone, Encode, Decode)]
pub struct Sealed {
    #[cbor(n(0), with = "minicbor::bytes")]
    nonce: [u8; 12],
    #[cbor(n(1), with = "minicbor::bytes")]
    ciphertext: Vec<u8>,
}

/// A key that seals other values: the token key, or one derived from a PIN.
pub struct SealingKey(Zeroizing<[u8; KEY_LEN]>);

impl SealingKey {
    pub fn generate() -> Result<Self, Refusal> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        random::fill(key.as_mut_slice())?;
        Ok(Self(key))
    }

    fn derive(pin: &[u8], salt: &[u8]) -> Result<Self, Refusal> {
        let parameters = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, 1, Some(KEY_LEN))
            .map_err(|_| Refusal::GeneralError)?;
        let mut key = Zeroizing::new([0; KEY_LEN]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
            .hash_password_into(pin, salt, key.as_mut_slice())
            .map_err(|_| Refusal::GeneralError)?;
        Ok(Self(key))
    }

    /// `context` is authenticated with the value: it opens in the same place only.
    pub fn seal(&self, context: &[u8], plaintext: &[u8]) -> Result<Sealed, Refusal> {
        let nonce = random::bytes()?;
        let ciphertext = self
            .cipher()
            .encrypt(&Nonce::from(nonce), Payload { msg: plaintext, aad: context })
            .map_err(|_| Refusal::GeneralError)?;
        Ok(Sealed { nonce, ciphertext })
    }

    /// `None` when the key is another one or a byte was changed; the two cannot be told apart.
    pub fn open(&self, context: &[u8], sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
        let payload = Payload { msg: &sealed.ciphertext, aad: context };
        self.cipher().decrypt(&Nonce::from(sealed.nonce), payload).ok().map(Zeroizing::new)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.0).into())
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealingKey(redacted)")
    }
}

/// What a token keeps about one PIN.
#[derive(Debug, Clone, Encode, Decode)]
pub struct PinRecord {
    #[cbor(n(0), with = "minicbor::bytes")]
    salt: [u8; 16],
    #[n(1)]
    sealed_token_key: Sealed,
    /// Wrong attempts since the last right one.
    #[n(2)]
    pub failures: u8,
}

impl PinRecord {
    /// `context` says whose PIN of which token it is; see `TokenIdentity::pin_context`.
    pub fn new(context: &[u8], pin: &NewPin<'_>, token_key: &SealingKey) -> Result<Self, Refusal> {
        let salt = random::bytes()?;
        let key = SealingKey::derive(pin.0, &salt)?;
        let sealed_token_key = key.seal(context, token_key.0.as_slice())?;
        Ok(Self { salt, sealed_token_key, failures: 0 })
    }

    /// The token key, if the PIN is right. Counting attempts is the caller's part.
    pub fn open(&self, context: &[u8], pin: &[u8]) -> Result<Option<SealingKey>, Refusal> {
        let opened = SealingKey::derive(pin, &self.salt)?.open(context, &self.sealed_token_key);
        let Some(bytes) = opened else { return Ok(None) };
        let mut key = Zeroizing::new([0; KEY_LEN]);
        if bytes.len() != KEY_LEN {
            return Err(Refusal::DeviceError);
        }
        key.copy_from_slice(&bytes);
        Ok(Some(SealingKey(key)))
    }

    pub fn is_locked(&self) -> bool {
        self.failures >= PIN_FAILURES_MAX
    }
}
