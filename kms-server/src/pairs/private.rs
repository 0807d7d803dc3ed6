//! What needs the private half.

use super::{PairError, PrivatePair, encrypt_to, verify_signature};
use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::rsa::{
    KeyPair as RsaKeyPair, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use kms_core::asymmetric::SM2_USER_ID;
use kms_core::pair::{
    EncryptionAlgorithm, PairUsage, SignatureAlgorithm, SignedInput, Sm2Ciphertext, Sm2UserId, ToSign,
};
use kms_core::secret::{Secret, leaving_no_stack};
use kms_hsm::LockedBytes;
use rand_core::CryptoRng;
use signature::hazmat::RandomizedPrehashSigner;
use sm2::elliptic_curve::pkcs8::DecodePrivateKey;

/// What a new pair is tried with.
const TRIAL: &[u8] = b"kms/v1/pair: trial";

impl PrivatePair {
    /// A raw signature (`r || s` for ECDSA and SM2), verified before it leaves: a fault in the middle of an RSA signature
    /// would tell a factor of the modulus.
    ///
    /// # Errors
    /// [`PairError::OtherUse`] and [`PairError::OtherAlgorithm`] for what does not fit; [`PairError::Library`] and
    /// [`PairError::WrongSignature`] when this machine is at fault.
    pub fn sign(&self, input: &ToSign, rng: &mut impl CryptoRng) -> Result<Vec<u8>, PairError> {
        if self.usage != PairUsage::Sign {
            return Err(PairError::OtherUse { usage: self.usage });
        }
        if !input.algorithm().fits(self.public_key.algorithm()) {
            return Err(PairError::OtherAlgorithm);
        }
        let signature = leaving_no_stack(|| sign(&self.pkcs8, input, rng))?;
        match verify_signature(&self.public_key, input, &signature) {
            Ok(()) => Ok(signature),
            Err(_) => Err(PairError::WrongSignature),
        }
    }

    /// Decrypts what was encrypted to the public half, in the form of docs/formats/pairs.md.
    ///
    /// # Errors
    /// [`PairError::CiphertextInvalid`] for anything else, whatever is wrong with it; [`PairError::OtherUse`] and
    /// [`PairError::OtherAlgorithm`] for what does not fit.
    pub fn decrypt(&self, algorithm: EncryptionAlgorithm, ciphertext: &[u8]) -> Result<Secret, PairError> {
        if self.usage != PairUsage::Decrypt {
            return Err(PairError::OtherUse { usage: self.usage });
        }
        if EncryptionAlgorithm::of(self.public_key.algorithm()) != Some(algorithm) {
            return Err(PairError::OtherAlgorithm);
        }
        algorithm.check_ciphertext(&self.public_key, ciphertext).map_err(|_| PairError::CiphertextInvalid)?;
        leaving_no_stack(|| match algorithm {
            EncryptionAlgorithm::Sm2 => decrypt_sm2(&self.pkcs8, ciphertext),
            EncryptionAlgorithm::RsaOaepSha256 => decrypt_oaep(&self.pkcs8, ciphertext),
        })
    }

    /// Fails unless the halves do what they are for.
    pub(super) fn try_out(&self) -> Result<(), PairError> {
        match self.usage {
            PairUsage::Sign => {
                let how = SignatureAlgorithm::of(self.public_key.algorithm())
                    .next()
                    .ok_or(PairError::OtherAlgorithm)?;
                let message = SignedInput::Message(TRIAL);
                let input = ToSign::new(how, &self.public_key, &Sm2UserId::default(), message)
                    .map_err(|_| PairError::OtherAlgorithm)?;
                self.sign(&input, &mut crate::random::system_rng()).map(drop)
            }
            PairUsage::Decrypt => {
                let algorithm =
                    EncryptionAlgorithm::of(self.public_key.algorithm()).ok_or(PairError::OtherAlgorithm)?;
                let ciphertext = encrypt_to(&self.public_key, TRIAL).map_err(|_| PairError::Library)?;
                let decrypted = self.decrypt(algorithm, &ciphertext)?;
                if decrypted.expose() == TRIAL { Ok(()) } else { Err(PairError::Inconsistent) }
            }
        }
    }
}

fn sign(pkcs8: &LockedBytes, input: &ToSign, rng: &mut impl CryptoRng) -> Result<Vec<u8>, PairError> {
    match input.algorithm() {
        SignatureAlgorithm::Sm2Sm3 => sign_sm2(pkcs8, input, rng),
        SignatureAlgorithm::Ed25519 => {
            let key = Ed25519KeyPair::from_pkcs8(pkcs8.expose()).map_err(|_| PairError::Library)?;
            let signature = key.try_sign(input.as_bytes()).map_err(|_| PairError::Library)?;
            Ok(signature.as_ref().to_vec())
        }
        SignatureAlgorithm::EcdsaSha256 => {
            sign_ecdsa(pkcs8, &ECDSA_P256_SHA256_FIXED_SIGNING, &digest::SHA256, input)
        }
        SignatureAlgorithm::EcdsaSha384 => {
            sign_ecdsa(pkcs8, &ECDSA_P384_SHA384_FIXED_SIGNING, &digest::SHA384, input)
        }
        SignatureAlgorithm::EcdsaSha512 => {
            sign_ecdsa(pkcs8, &ECDSA_P521_SHA512_FIXED_SIGNING, &digest::SHA512, input)
        }
        SignatureAlgorithm::RsaPssSha256 => sign_rsa(pkcs8, &RSA_PSS_SHA256, &digest::SHA256, input),
        SignatureAlgorithm::RsaPssSha384 => sign_rsa(pkcs8, &RSA_PSS_SHA384, &digest::SHA384, input),
        SignatureAlgorithm::RsaPssSha512 => sign_rsa(pkcs8, &RSA_PSS_SHA512, &digest::SHA512, input),
        SignatureAlgorithm::RsaPkcs1Sha256 => sign_rsa(pkcs8, &RSA_PKCS1_SHA256, &digest::SHA256, input),
        SignatureAlgorithm::RsaPkcs1Sha384 => sign_rsa(pkcs8, &RSA_PKCS1_SHA384, &digest::SHA384, input),
        SignatureAlgorithm::RsaPkcs1Sha512 => sign_rsa(pkcs8, &RSA_PKCS1_SHA512, &digest::SHA512, input),
    }
}

fn sign_ecdsa(
    pkcs8: &LockedBytes,
    algorithm: &'static EcdsaSigningAlgorithm,
    hash: &'static digest::Algorithm,
    input: &ToSign,
) -> Result<Vec<u8>, PairError> {
    let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.expose()).map_err(|_| PairError::Library)?;
    let digest = Digest::import_less_safe(input.as_bytes(), hash).map_err(|_| PairError::OtherAlgorithm)?;
    let signature = key.sign_digest(&digest).map_err(|_| PairError::Library)?;
    Ok(signature.as_ref().to_vec())
}

fn sign_rsa(
    pkcs8: &LockedBytes,
    padding: &'static dyn RsaEncoding,
    hash: &'static digest::Algorithm,
    input: &ToSign,
) -> Result<Vec<u8>, PairError> {
    let key = RsaKeyPair::from_pkcs8(pkcs8.expose()).map_err(|_| PairError::Library)?;
    let digest = Digest::import_less_safe(input.as_bytes(), hash).map_err(|_| PairError::OtherAlgorithm)?;
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign_digest(padding, &digest, &mut signature).map_err(|_| PairError::Library)?;
    Ok(signature)
}

fn sign_sm2(pkcs8: &LockedBytes, input: &ToSign, rng: &mut impl CryptoRng) -> Result<Vec<u8>, PairError> {
    let key = sm2::SecretKey::from_pkcs8_der(pkcs8.expose()).map_err(|_| PairError::Library)?;
    // The identity is in the digest; here it would enter only the hash of a message.
    let key = sm2::dsa::SigningKey::new(SM2_USER_ID, &key).map_err(|_| PairError::Library)?;
    let signature: sm2::dsa::Signature =
        key.sign_prehash_with_rng(rng, input.as_bytes()).map_err(|_| PairError::Library)?;
    Ok(signature.to_bytes().to_vec())
}

fn decrypt_sm2(pkcs8: &LockedBytes, ciphertext: &[u8]) -> Result<Secret, PairError> {
    let key = sm2::SecretKey::from_pkcs8_der(pkcs8.expose()).map_err(|_| PairError::Library)?;
    let key = sm2::pke::DecryptingKey::new(key);
    let read = Sm2Ciphertext::from_der(ciphertext).map_err(|_| PairError::CiphertextInvalid)?;
    // Into a place of our own, which is wiped also when the hash turns out wrong.
    let mut plaintext = Secret::new(vec![0; read.plaintext_len()]);
    key.decrypt_cipher_with_buf(read.cipher(), plaintext.expose_mut())
        .map_err(|_| PairError::CiphertextInvalid)?;
    Ok(plaintext)
}

fn decrypt_oaep(pkcs8: &LockedBytes, ciphertext: &[u8]) -> Result<Secret, PairError> {
    let key = PrivateDecryptingKey::from_pkcs8(pkcs8.expose()).map_err(|_| PairError::Library)?;
    let key = OaepPrivateDecryptingKey::new(key).map_err(|_| PairError::Library)?;
    let mut place = Secret::new(vec![0; key.min_output_size()]).into_zeroizing();
    let len = key
        .decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, &mut place, None)
        .map_err(|_| PairError::CiphertextInvalid)?
        .len();
    place.truncate(len);
    Ok(Secret::new(std::mem::take(&mut *place)))
}
