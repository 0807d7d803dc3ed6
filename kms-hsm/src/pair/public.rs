//! What needs only a public key, in software: checking signatures and encrypting. The same code checks what a token
//! has answered and what a caller asks about.

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use getrandom::SysRng;
use kms_core::asymmetric::SM2_USER_ID;
use kms_core::pair::{EncryptionAlgorithm, PairAlgorithm, PairPublicKey, SignatureAlgorithm, ToSign};
use signature::hazmat::PrehashVerifier;

/// The signature does not belong to this key and input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureRefused;

/// Why something cannot be encrypted to a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncryptError {
    /// A pair of this algorithm only signs.
    #[error("a pair of {pair} does not decrypt")]
    OtherPair {
        /// The pair's algorithm.
        pair: PairAlgorithm,
    },
    /// The plaintext is empty where that cannot be, or too long.
    #[error("a plaintext of {len} bytes; {len_min} to {len_max} can be encrypted to this key")]
    PlaintextLen {
        /// Its length in bytes.
        len: usize,
        /// The shortest.
        len_min: usize,
        /// The longest.
        len_max: usize,
    },
    /// The library or the system's random generator failed.
    #[error("the encryption did not happen")]
    Library,
}

/// Checks a raw signature (`r || s` for ECDSA and SM2).
///
/// # Errors
/// [`SignatureRefused`], the same for every cause.
pub fn verify_signature(
    key: &PairPublicKey,
    input: &ToSign,
    signature: &[u8],
) -> Result<(), SignatureRefused> {
    let how: (&'static dyn VerificationAlgorithm, &'static digest::Algorithm) = match input.algorithm() {
        _ if !input.algorithm().fits(key.algorithm()) => return Err(SignatureRefused),
        SignatureAlgorithm::Sm2Sm3 => return verify_sm2(key, input.as_bytes(), signature),
        SignatureAlgorithm::Ed25519 => {
            return UnparsedPublicKey::new(&ED25519, key.to_library_form())
                .verify(input.as_bytes(), signature)
                .map_err(|_| SignatureRefused);
        }
        SignatureAlgorithm::EcdsaSha256 => (&ECDSA_P256_SHA256_FIXED, &digest::SHA256),
        SignatureAlgorithm::EcdsaSha384 => (&ECDSA_P384_SHA384_FIXED, &digest::SHA384),
        SignatureAlgorithm::EcdsaSha512 => (&ECDSA_P521_SHA512_FIXED, &digest::SHA512),
        SignatureAlgorithm::RsaPssSha256 => (&RSA_PSS_2048_8192_SHA256, &digest::SHA256),
        SignatureAlgorithm::RsaPssSha384 => (&RSA_PSS_2048_8192_SHA384, &digest::SHA384),
        SignatureAlgorithm::RsaPssSha512 => (&RSA_PSS_2048_8192_SHA512, &digest::SHA512),
        SignatureAlgorithm::RsaPkcs1Sha256 => (&RSA_PKCS1_2048_8192_SHA256, &digest::SHA256),
        SignatureAlgorithm::RsaPkcs1Sha384 => (&RSA_PKCS1_2048_8192_SHA384, &digest::SHA384),
        SignatureAlgorithm::RsaPkcs1Sha512 => (&RSA_PKCS1_2048_8192_SHA512, &digest::SHA512),
    };
    let digest = Digest::import_less_safe(input.as_bytes(), how.1).map_err(|_| SignatureRefused)?;
    UnparsedPublicKey::new(how.0, key.to_library_form())
        .verify_digest(&digest, signature)
        .map_err(|_| SignatureRefused)
}

fn verify_sm2(key: &PairPublicKey, digest: &[u8], signature: &[u8]) -> Result<(), SignatureRefused> {
    let point = key.point().ok_or(SignatureRefused)?;
    // The identity is in the digest; here it would enter only the hash of a message.
    let key = sm2::dsa::VerifyingKey::from_sec1_bytes(SM2_USER_ID, point).map_err(|_| SignatureRefused)?;
    let signature = sm2::dsa::Signature::from_slice(signature).map_err(|_| SignatureRefused)?;
    key.verify_prehash(digest, &signature).map_err(|_| SignatureRefused)
}

/// Encrypts to a public key, in the form of docs/formats/pairs.md.
///
/// # Errors
/// [`EncryptError`] when key and plaintext do not go together.
pub fn encrypt_to(key: &PairPublicKey, plaintext: &[u8]) -> Result<Vec<u8>, EncryptError> {
    let pair = key.algorithm();
    let algorithm = EncryptionAlgorithm::of(pair).ok_or(EncryptError::OtherPair { pair })?;
    let len_max = algorithm.plaintext_len_max(pair);
    let len_min = usize::from(algorithm == EncryptionAlgorithm::Sm2);
    if !(len_min..=len_max).contains(&plaintext.len()) {
        return Err(EncryptError::PlaintextLen { len: plaintext.len(), len_min, len_max });
    }
    match algorithm {
        EncryptionAlgorithm::Sm2 => {
            let point = key.point().ok_or(EncryptError::OtherPair { pair })?;
            sm2::pke::EncryptingKey::from_sec1_bytes(point)
                .and_then(|key| key.encrypt_der(&mut SysRng, plaintext))
                .map_err(|_| EncryptError::Library)
        }
        EncryptionAlgorithm::RsaOaepSha256 => {
            let library = |_| EncryptError::Library;
            let key = PublicEncryptingKey::from_der(&key.to_spki()).map_err(|_| EncryptError::Library)?;
            let key = OaepPublicEncryptingKey::new(key).map_err(library)?;
            let mut place = vec![0; key.ciphertext_size()];
            let len =
                key.encrypt(&OAEP_SHA256_MGF1SHA256, plaintext, &mut place, None).map_err(library)?.len();
            place.truncate(len);
            Ok(place)
        }
    }
}
