//! Key material that customers bring: how it arrives, and what is not taken (docs/formats/import.md).

use crate::pair::{self, EncryptionAlgorithm, PairAlgorithm, PairPublicKey, Sm2Ciphertext};
use crate::raw::WeakKey;
use crate::secret::{Secret, leaving_no_stack};
use crate::spec::{KeyAlgorithm, KeySpec};
use aes_kw::KwpAes256;
use aes_kw::cipher::KeyInit as _;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use der::asn1::{BitStringRef, ObjectIdentifier};
use der::{AnyRef, Decode, Encode, Sequence};
use pkcs8::AlgorithmIdentifierRef;
use sm4::Sm4;
use sm4::cipher::{Array, BlockCipherDecrypt};

/// Longest wrapped material that is taken, in bytes: a private key of RSA-4096 has less than half.
pub const WRAPPED_MATERIAL_LEN_MAX: usize = 8 << 10;

/// Length of the AES key between an RSA key and the material.
const TRANSPORT_KEY_LEN: usize = 32;
/// What AES-KWP adds at least.
const KWP_BLOCK_LEN: usize = 8;
const SM4_BLOCK_LEN: usize = 16;
const SM2_SCALAR_LEN: usize = 32;
/// GM/T 0006: SM4, and SM4 in ECB mode.
const SM4_NAMES: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.2.156.10197.1.104"),
    ObjectIdentifier::new_unwrap("1.2.156.10197.1.104.1"),
];

/// How material is wrapped to a one-time key of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImportWrapping {
    /// RSAES-OAEP (SHA-256) of an AES-256 key, then the material under it by AES-KWP: `CKM_RSA_AES_KEY_WRAP` of PKCS#11.
    RsaOaepAesKwp,
    /// A secret key as the SM2 ciphertext of GM/T 0009; an SM2 pair as the `SM2EnvelopedKey` of GB/T 35276.
    Sm2Envelope,
}

impl ImportWrapping {
    /// Every way, in registry order.
    pub const ALL: [ImportWrapping; 2] = [ImportWrapping::RsaOaepAesKwp, ImportWrapping::Sm2Envelope];

    /// The name used on command lines and in records.
    pub const fn name(self) -> &'static str {
        match self {
            ImportWrapping::RsaOaepAesKwp => "rsa-oaep-sha-256-aes-kwp",
            ImportWrapping::Sm2Envelope => "sm2-envelope",
        }
    }

    /// Reads the name that [`ImportWrapping::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        ImportWrapping::ALL.into_iter().find(|wrapping| wrapping.name() == name)
    }

    /// The one way in which material is wrapped to a key of this algorithm; `None` when there is none. RSA with 2048 bits
    /// is weaker than the weakest key that it would carry (NIST SP 800-57 part 1, table 2).
    pub const fn of(pair: PairAlgorithm) -> Option<Self> {
        match pair {
            PairAlgorithm::Rsa3072 | PairAlgorithm::Rsa4096 => Some(ImportWrapping::RsaOaepAesKwp),
            PairAlgorithm::Sm2 => Some(ImportWrapping::Sm2Envelope),
            _ => None,
        }
    }

    /// How the one-time key itself decrypts.
    pub const fn encryption(self) -> EncryptionAlgorithm {
        match self {
            ImportWrapping::RsaOaepAesKwp => EncryptionAlgorithm::RsaOaepSha256,
            ImportWrapping::Sm2Envelope => EncryptionAlgorithm::Sm2,
        }
    }
}

impl fmt::Display for ImportWrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why material is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaterialError {
    /// Longer than anything that can be meant, or empty.
    #[error("has {len} bytes; wrapped material has 1 to {WRAPPED_MATERIAL_LEN_MAX}")]
    WrappedLen {
        /// The given.
        len: usize,
    },
    /// Not in the form of its wrapping.
    #[error("is not {wrapping} to the public key of this import: see docs/formats/import.md")]
    Malformed {
        /// What was expected.
        wrapping: ImportWrapping,
    },
    /// A pair that the wrapping has no form for.
    #[error(
        "a key pair of {pair} is not wrapped by sm2-envelope; ask for import parameters of rsa-3072 or rsa-4096"
    )]
    NoEnvelope {
        /// The pair.
        pair: PairAlgorithm,
    },
    /// It does not open: one reason for every cause.
    #[error("does not open: it was wrapped to another key, or changed")]
    DoesNotOpen,
    /// A secret key of another length.
    #[error("holds a key of {len} bytes; {} has {expected}", .spec.name())]
    KeyLen {
        /// What was announced.
        spec: KeySpec,
        /// Its length.
        expected: usize,
        /// The given.
        len: usize,
    },
    /// A key that everybody guesses.
    #[error(
        "holds a key, or a part of one, of one byte that repeats, which anybody would guess; bring a random one"
    )]
    Guessable,
    /// A key that its cipher makes a weak one of.
    #[error("holds {0}")]
    Weak(#[from] WeakKey),
    /// The private key will not do.
    #[error("holds {0}")]
    PrivateKey(#[from] pair::ImportError),
    /// The public half in the envelope is another one's.
    #[error("holds a private key that is not that of the public key beside it")]
    OtherPublicKey,
}

/// GB/T 35276, section 7.4.
#[derive(Sequence)]
struct EnvelopedKey<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    encrypted_key: AnyRef<'a>,
    public_key: BitStringRef<'a>,
    encrypted_private_key: BitStringRef<'a>,
}

#[derive(Debug)]
enum Body<'a> {
    /// The material under the transport key.
    Kwp(&'a [u8]),
    /// The transport key is the material.
    None,
    /// An SM2 private key under an SM4 key.
    Enveloped { public_key: &'a [u8], encrypted: [u8; SM2_SCALAR_LEN] },
}

/// Wrapped material, taken apart as far as that goes without the private key of its wrapping.
#[derive(Debug)]
pub struct WrappedMaterial<'a> {
    spec: KeySpec,
    pair_ciphertext: Vec<u8>,
    body: Body<'a>,
}

impl<'a> WrappedMaterial<'a> {
    /// Reads material of `spec` that is wrapped to `wrapping_key`. What can be seen to be wrong is refused here, before
    /// anything is decrypted.
    ///
    /// # Errors
    /// [`MaterialError`] says why it is not taken.
    pub fn parse(
        wrapping_key: &PairPublicKey,
        spec: KeySpec,
        bytes: &'a [u8],
    ) -> Result<Self, MaterialError> {
        let (algorithm, len) = (wrapping_key.algorithm(), bytes.len());
        if !(1..=WRAPPED_MATERIAL_LEN_MAX).contains(&len) {
            return Err(MaterialError::WrappedLen { len });
        }
        // Keys of other algorithms are never made for this.
        let wrapping = ImportWrapping::of(algorithm).unwrap_or(ImportWrapping::RsaOaepAesKwp);
        let malformed = MaterialError::Malformed { wrapping };
        let (pair_ciphertext, body) = match wrapping {
            ImportWrapping::RsaOaepAesKwp => {
                let modulus_len = algorithm.rsa_modulus_len().ok_or(malformed)?;
                let (first, rest) = bytes.split_at_checked(modulus_len).ok_or(malformed)?;
                if rest.len() < 2 * KWP_BLOCK_LEN || !rest.len().is_multiple_of(KWP_BLOCK_LEN) {
                    return Err(malformed);
                }
                (first.to_vec(), Body::Kwp(rest))
            }
            ImportWrapping::Sm2Envelope => match spec.algorithm() {
                KeyAlgorithm::Pair(PairAlgorithm::Sm2) => enveloped(bytes).ok_or(malformed)?,
                KeyAlgorithm::Pair(pair) => return Err(MaterialError::NoEnvelope { pair }),
                _ => (bytes.to_vec(), Body::None),
            },
        };
        wrapping.encryption().check_ciphertext(wrapping_key, &pair_ciphertext).map_err(|_| malformed)?;
        Ok(Self { spec, pair_ciphertext, body })
    }

    /// What the one-time key decrypts. The answer goes into [`WrappedMaterial::unwrap`].
    pub fn pair_ciphertext(&self) -> &[u8] {
        &self.pair_ciphertext
    }

    /// The material: a secret key of the right length, or the PKCS#8 of a private key that was looked at.
    ///
    /// # Errors
    /// [`MaterialError`] says why it is not taken.
    pub fn unwrap(&self, decrypted: Secret) -> Result<Secret, MaterialError> {
        let material = match &self.body {
            Body::None => decrypted,
            Body::Kwp(wrapped) => kwp(&decrypted, wrapped)?,
            Body::Enveloped { public_key, encrypted } => {
                let pkcs8 = sm2_private_key(&decrypted, encrypted)?;
                let public = pair::check_private_key(PairAlgorithm::Sm2, pkcs8.expose())?;
                if public.point() != Some(public_key) {
                    return Err(MaterialError::OtherPublicKey);
                }
                pkcs8
            }
        };
        check(self.spec, material.expose())?;
        Ok(material)
    }
}

/// Whether material may be taken as a key of a specification. Of RSA the numbers are not compared here.
///
/// # Errors
/// [`MaterialError`] says why not.
fn check(spec: KeySpec, material: &[u8]) -> Result<(), MaterialError> {
    if let KeyAlgorithm::Pair(pair) = spec.algorithm() {
        pair::check_private_key(pair, material)?;
        return Ok(());
    }
    let (expected, len) = (spec.key_len().unwrap_or_default(), material.len());
    if len != expected {
        return Err(MaterialError::KeyLen { spec, expected, len });
    }
    if let KeyAlgorithm::Raw(raw) = spec.algorithm() {
        if raw.parts(material).any(is_one_byte) {
            return Err(MaterialError::Guessable);
        }
        raw.check_key(material)?;
    }
    match is_one_byte(material) {
        true => Err(MaterialError::Guessable),
        false => Ok(()),
    }
}

/// Whether a key is one byte repeated. That may be known by how long this takes.
fn is_one_byte(key: &[u8]) -> bool {
    key.iter().all(|byte| Some(byte) == key.first())
}

fn enveloped(bytes: &[u8]) -> Option<(Vec<u8>, Body<'_>)> {
    let envelope = EnvelopedKey::from_der(bytes).ok()?;
    if !SM4_NAMES.contains(&envelope.algorithm.oid) {
        return None;
    }
    if envelope.algorithm.parameters.is_some_and(|parameters| !parameters.is_null()) {
        return None;
    }
    let ciphertext = envelope.encrypted_key.to_der().ok()?;
    if Sm2Ciphertext::from_der(&ciphertext).ok()?.plaintext_len() != SM4_BLOCK_LEN {
        return None;
    }
    let public_key = envelope.public_key.as_bytes()?;
    PairPublicKey::from_point(PairAlgorithm::Sm2, public_key).ok()?;
    let encrypted = envelope.encrypted_private_key.as_bytes()?.try_into().ok()?;
    Some((ciphertext, Body::Enveloped { public_key, encrypted }))
}

fn kwp(transport_key: &Secret, wrapped: &[u8]) -> Result<Secret, MaterialError> {
    let key: &[u8; TRANSPORT_KEY_LEN] =
        transport_key.expose().try_into().map_err(|_| MaterialError::DoesNotOpen)?;
    let mut place = Secret::new(vec![0; wrapped.len() - KWP_BLOCK_LEN]).into_zeroizing();
    let len = leaving_no_stack(|| {
        let opened = KwpAes256::new(key.into()).unwrap_key(wrapped, &mut place);
        opened.map(<[u8]>::len).map_err(|_| MaterialError::DoesNotOpen)
    })?;
    place.truncate(len);
    Ok(Secret::new(core::mem::take(&mut *place)))
}

/// The PKCS#8 of an SM2 private key that was encrypted block by block, as GB/T 35276 has it.
fn sm2_private_key(key: &Secret, encrypted: &[u8; SM2_SCALAR_LEN]) -> Result<Secret, MaterialError> {
    let key: &[u8; SM4_BLOCK_LEN] = key.expose().try_into().map_err(|_| MaterialError::DoesNotOpen)?;
    leaving_no_stack(|| {
        let cipher = <Sm4 as sm4::cipher::KeyInit>::new(key.into());
        let mut scalar = Secret::new(encrypted.to_vec()).into_zeroizing();
        let (blocks, _) = scalar.as_chunks_mut::<SM4_BLOCK_LEN>();
        for block in blocks {
            cipher.decrypt_block(Array::cast_from_core_mut(block));
        }
        pair::sm2_pkcs8(&scalar).ok_or(MaterialError::DoesNotOpen)
    })
}
