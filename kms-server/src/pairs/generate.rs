//! Making pairs.

use super::{PairError, PrivatePair};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
};
use kms_core::pair::{PairAlgorithm, PairUsage, check_private_key};
use kms_core::secret::{SecretBytes, leaving_no_stack};
use kms_hsm::LockedBytes;
use rand_core::CryptoRng;
use sm2::elliptic_curve::pkcs8::EncodePrivateKey;

impl PrivatePair {
    /// A fresh pair. An SM2 key is made of `rng`; the others by aws-lc, whose generator is seeded by the system.
    ///
    /// # Errors
    /// [`PairError::NoSuchPair`] when there are no pairs for this use; [`PairError::Library`].
    pub fn generate(
        algorithm: PairAlgorithm,
        usage: PairUsage,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, PairError> {
        if !algorithm.allows(usage) {
            return Err(PairError::NoSuchPair { algorithm, usage });
        }
        let pkcs8 = leaving_no_stack(|| match algorithm {
            PairAlgorithm::Sm2 => sm2(rng),
            PairAlgorithm::Rsa2048 => rsa(KeySize::Rsa2048),
            PairAlgorithm::Rsa3072 => rsa(KeySize::Rsa3072),
            PairAlgorithm::Rsa4096 => rsa(KeySize::Rsa4096),
            PairAlgorithm::P256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            PairAlgorithm::P384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            PairAlgorithm::P521 => ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING),
            PairAlgorithm::Ed25519 => ed25519(),
        })?;
        let public_key = check_private_key(algorithm, pkcs8.expose())?;
        let pair = Self { usage, public_key, pkcs8 };
        pair.try_out()?;
        Ok(pair)
    }
}

fn sm2(rng: &mut impl CryptoRng) -> Result<LockedBytes, PairError> {
    loop {
        let scalar = SecretBytes::<32>::random(rng);
        // Out of range with probability 2^-32; n - 1 is refused with the other reasons later.
        if let Ok(key) = sm2::SecretKey::from_slice(scalar.expose()) {
            return key
                .to_pkcs8_der()
                .map(|document| LockedBytes::copied(document.as_bytes()))
                .map_err(|_| PairError::Library);
        }
    }
}

fn rsa(size: KeySize) -> Result<LockedBytes, PairError> {
    let key = RsaKeyPair::generate(size).map_err(|_| PairError::Library)?;
    // The buffer is wiped when it goes.
    key.as_der().map(|der| LockedBytes::copied(der.as_ref())).map_err(|_| PairError::Library)
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> Result<LockedBytes, PairError> {
    let key = EcdsaKeyPair::generate(algorithm).map_err(|_| PairError::Library)?;
    key.to_pkcs8v1().map(|document| LockedBytes::copied(document.as_ref())).map_err(|_| PairError::Library)
}

fn ed25519() -> Result<LockedBytes, PairError> {
    let key = Ed25519KeyPair::generate().map_err(|_| PairError::Library)?;
    key.to_pkcs8v1().map(|document| LockedBytes::copied(document.as_ref())).map_err(|_| PairError::Library)
}
