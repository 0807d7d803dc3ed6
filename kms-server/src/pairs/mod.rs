//! Key pairs whose private half is wrapped: sealed by a master key in the database, opened into locked memory, used in
//! software. What needs only the public half is `kms_hsm::{verify_signature, encrypt_to}`, for resident pairs too.
//!
//! The cryptography is that of aws-lc (RSA, ECDSA, Ed25519) and of the crate `sm2`. A private half is PKCS#8 in DER, in
//! locked memory; the library's own form of it lives for one operation.

mod generate;
mod private;

pub use kms_hsm::{EncryptError, SignatureRefused, encrypt_to, verify_signature};

use kms_core::pair::{ImportError, PairAlgorithm, PairPublicKey, PairUsage, check_private_key};
use kms_hsm::LockedBytes;
use std::fmt;

/// Why a wrapped pair did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// There are no such pairs.
    #[error("a pair of {algorithm} cannot {usage}")]
    NoSuchPair {
        /// The pair's algorithm.
        algorithm: PairAlgorithm,
        /// The use that was asked.
        usage: PairUsage,
    },
    /// The pair is for the other use.
    #[error("this pair is to {usage} and does nothing else")]
    OtherUse {
        /// What it is for.
        usage: PairUsage,
    },
    /// Input or algorithm belong to pairs of another algorithm.
    #[error("the algorithm does not fit the pair")]
    OtherAlgorithm,
    /// Nothing that was encrypted to this pair.
    #[error("the ciphertext does not open under this key")]
    CiphertextInvalid,
    /// The private key will not do.
    #[error("the private key is not taken: {0}")]
    Import(#[from] ImportError),
    /// The numbers of the private key contradict each other.
    #[error("the parts of the private key do not belong together")]
    Inconsistent,
    /// The private key is not that of the public key that was kept with it.
    #[error("the private key is not the one of its public key")]
    OtherPublicKey,
    /// A signature that does not verify, made by a fault of this machine. It is not handed out: it could tell the key.
    #[error("a signature was made that does not verify")]
    WrongSignature,
    /// The library or its random generator failed.
    #[error("the cryptographic library did not do it")]
    Library,
}

/// A pair with its private half, opened.
pub struct PrivatePair {
    usage: PairUsage,
    public_key: PairPublicKey,
    /// PKCS#8 in DER.
    pkcs8: LockedBytes,
}

impl PrivatePair {
    /// Takes a key from outside: every reason against it that can be known is looked for, and then the pair is tried.
    ///
    /// # Errors
    /// [`PairError::Import`] and [`PairError::Inconsistent`] for the key, [`PairError::NoSuchPair`] for the use.
    pub fn import(algorithm: PairAlgorithm, usage: PairUsage, pkcs8: &[u8]) -> Result<Self, PairError> {
        if !algorithm.allows(usage) {
            return Err(PairError::NoSuchPair { algorithm, usage });
        }
        let public_key = check_private_key(algorithm, pkcs8)?;
        let pair = Self { usage, public_key, pkcs8: LockedBytes::copied(pkcs8) };
        pair.try_out().map_err(|_| PairError::Inconsistent)?;
        Ok(pair)
    }

    /// Opens what was sealed before. `public_key` is the one in the key's row.
    ///
    /// # Errors
    /// [`PairError::Import`] and [`PairError::OtherPublicKey`]: what the master key opened is not this pair.
    pub fn open(usage: PairUsage, public_key: &PairPublicKey, pkcs8: &[u8]) -> Result<Self, PairError> {
        if check_private_key(public_key.algorithm(), pkcs8)? != *public_key {
            return Err(PairError::OtherPublicKey);
        }
        Ok(Self { usage, public_key: public_key.clone(), pkcs8: LockedBytes::copied(pkcs8) })
    }

    /// The public half.
    pub fn public_key(&self) -> &PairPublicKey {
        &self.public_key
    }

    /// What the pair is for.
    pub fn usage(&self) -> PairUsage {
        self.usage
    }

    /// The private half as PKCS#8 in DER in locked memory, to be sealed by a master key, or for a caller who had it made.
    pub fn into_pkcs8(self) -> LockedBytes {
        self.pkcs8
    }

    /// The private half as PKCS#8 in DER, to be sealed by a master key. It goes nowhere else.
    pub fn danger_pkcs8(&self) -> &[u8] {
        self.pkcs8.expose()
    }
}

impl fmt::Debug for PrivatePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivatePair({}, {})", self.public_key.algorithm(), self.usage)
    }
}
