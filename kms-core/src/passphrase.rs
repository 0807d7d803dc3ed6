//! Secrets at rest under a person's passphrase: Argon2id (RFC 9106), then the suite's AEAD.

use crate::codec::{Format, VersionOne};
use crate::secret::{Secret, SecretBytes};
use crate::suite::{NONCE_LEN, Suite, aead_open, aead_seal};
use alloc::vec::Vec;
use argon2::{Algorithm, Argon2, Params, Version};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;

/// Shortest passphrase, in characters (REQUIREMENTS S2-16: more than 8).
pub const PASSPHRASE_CHARS_MIN: usize = 9;
/// Memory of one Argon2id run, in KiB: RFC 9106's second recommended option.
pub const MEMORY_KIB: u32 = 64 * 1024;
/// Passes over the memory.
pub const PASS_COUNT: u32 = 3;

/// The passphrase is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the passphrase has {chars} characters; at least 9 are needed")]
pub struct PassphraseTooShort {
    /// Characters given.
    pub chars: usize,
}

/// What a person types. Redacted, wiped.
#[derive(Debug)]
pub struct Passphrase(Secret);

impl Passphrase {
    /// For a new file: checks the length.
    ///
    /// # Errors
    /// [`PassphraseTooShort`].
    pub fn choose(text: Secret) -> Result<Self, PassphraseTooShort> {
        let chars = core::str::from_utf8(text.expose()).map_or(text.expose().len(), |t| t.chars().count());
        if chars < PASSPHRASE_CHARS_MIN {
            return Err(PassphraseTooShort { chars });
        }
        Ok(Self(text))
    }

    /// For an existing file: whatever it was made with.
    pub fn enter(text: Secret) -> Self {
        Self(text)
    }

    /// Whether both are the same words.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.is_equal(other.0.expose())
    }
}

/// The passphrase is wrong, or the file was changed: the two cannot be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the passphrase is wrong or the file was changed")]
pub struct PassphraseError;

/// Bytes under a passphrase.
#[derive(Encode, Decode, Debug, Clone, PartialEq, Eq)]
#[cbor(map)]
pub struct PassphraseBox {
    /// Always 1.
    #[n(0)]
    pub version: VersionOne,
    /// Which AEAD.
    #[n(1)]
    pub suite: Suite,
    /// Argon2id memory in KiB.
    #[n(2)]
    pub memory_kib: u32,
    /// Argon2id passes.
    #[n(3)]
    pub pass_count: u32,
    /// Argon2id salt, 16 bytes.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub salt: Vec<u8>,
    /// AEAD nonce.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub nonce: Vec<u8>,
    /// Ciphertext and tag.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub ciphertext: Vec<u8>,
}

impl Format for PassphraseBox {
    const WHAT: &'static str = "passphrase-protected secret";
}

fn derive(
    passphrase: &Passphrase,
    salt: &[u8],
    memory_kib: u32,
    pass_count: u32,
) -> Result<SecretBytes<32>, PassphraseError> {
    // A file asks for its own cost; a hostile one must not ask for all memory of the machine.
    if memory_kib > 16 * MEMORY_KIB || pass_count > 16 {
        return Err(PassphraseError);
    }
    let params = Params::new(memory_kib, pass_count, 1, Some(32)).map_err(|_| PassphraseError)?;
    let mut key = SecretBytes::zeroed();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.0.expose(), salt, key.expose_mut())
        .map_err(|_| PassphraseError)?;
    Ok(key)
}

impl PassphraseBox {
    /// Seals `plaintext` under the passphrase; `context` must be given again to open it.
    pub fn seal(
        suite: Suite,
        passphrase: &Passphrase,
        context: &[u8],
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Self {
        let mut salt = [0; 16];
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut nonce);
        let key = derive(passphrase, &salt, MEMORY_KIB, PASS_COUNT)
            .expect("the constants are valid Argon2id parameters");
        let algorithm = suite.aead();
        let ciphertext =
            aead_seal(algorithm, &key.expose()[..algorithm.key_len()], &nonce, context, plaintext)
                .expect("the key has the algorithm's length and the plaintext is short");
        Self {
            version: VersionOne,
            suite,
            memory_kib: MEMORY_KIB,
            pass_count: PASS_COUNT,
            salt: salt.to_vec(),
            nonce: nonce.to_vec(),
            ciphertext,
        }
    }

    /// Opens what [`PassphraseBox::seal`] made.
    ///
    /// # Errors
    /// [`PassphraseError`], the same for every cause.
    pub fn open(&self, passphrase: &Passphrase, context: &[u8]) -> Result<Secret, PassphraseError> {
        let nonce = self.nonce.as_slice().try_into().map_err(|_| PassphraseError)?;
        let key = derive(passphrase, &self.salt, self.memory_kib, self.pass_count)?;
        let algorithm = self.suite.aead();
        aead_open(algorithm, &key.expose()[..algorithm.key_len()], nonce, context, &self.ciphertext)
            .map_err(|_| PassphraseError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::testing::TestRng;

    fn text(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn a_short_passphrase_is_refused() {
        assert_eq!(Passphrase::choose(text("12345678")).err(), Some(PassphraseTooShort { chars: 8 }));
        assert!(Passphrase::choose(text("密码密码密码密码密")).is_ok());
    }

    #[test]
    fn a_wrong_passphrase_context_or_byte_does_not_open() {
        let passphrase = Passphrase::choose(text("correct horse")).expect("long enough");
        let sealed = PassphraseBox::seal(Suite::Sm, &passphrase, b"who", b"share", &mut TestRng::new(1));
        assert_eq!(sealed.open(&passphrase, b"who").expect("opens").expose(), b"share");
        assert!(sealed.open(&Passphrase::enter(text("Correct horse")), b"who").is_err());
        assert!(sealed.open(&passphrase, b"whom").is_err());
        let mut changed = sealed.clone();
        changed.ciphertext[0] ^= 1;
        assert!(changed.open(&passphrase, b"who").is_err());
        let mut greedy = sealed;
        greedy.memory_kib = u32::MAX;
        assert!(greedy.open(&passphrase, b"who").is_err());
    }
}
