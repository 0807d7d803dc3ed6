//! Signatures and public-key encryption of the two suites, for keys outside the HSM (nodes,
//! custodians, ceremonies) and for checking what keys inside the HSM signed.

use crate::secret::{Secret, SecretBytes};
use crate::suite::{Digest32, Suite};
use alloc::vec::Vec;
use core::fmt;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::DhP256HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;
use signature::Verifier;
use signature::hazmat::{PrehashVerifier, RandomizedPrehashSigner};

/// The user ID that enters an SM2 signature (GM/T 0009-2012, section 10: the default).
pub const SM2_USER_ID: &str = "1234567812345678";
/// Length of an uncompressed public key, in bytes.
pub const PUBLIC_KEY_LEN: usize = 65;
/// Length of a private scalar, in bytes.
pub const PRIVATE_KEY_LEN: usize = 32;

/// A public key of P-256 or SM2: an uncompressed SEC 1 point, `04 || X || Y`.
///
/// Which curve it is on follows from the suite of the bundle or file that holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; PUBLIC_KEY_LEN]);

impl PublicKey {
    /// Takes 65 bytes that start with 04; whether the point is on the curve is checked at use.
    pub fn from_sec1(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; PUBLIC_KEY_LEN] = bytes.try_into().ok()?;
        (bytes[0] == 4).then_some(Self(bytes))
    }

    /// The 65 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the point is on the suite's curve.
    pub fn is_on_curve(&self, suite: Suite) -> bool {
        match suite {
            Suite::Sm => sm2::PublicKey::from_sec1_bytes(&self.0).is_ok(),
            Suite::Intl => p256::PublicKey::from_sec1_bytes(&self.0).is_ok(),
        }
    }

    /// Checks `signature` over `domain || 00 || message`.
    ///
    /// # Errors
    /// [`SignatureError`] for a wrong signature and for a key that is not on the curve.
    pub fn verify(
        &self,
        suite: Suite,
        domain: &'static str,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        self.verify_raw(suite, &domain_message(domain, message), signature)
    }

    /// Checks `signature` over `message` itself, without a domain.
    ///
    /// # Errors
    /// As [`PublicKey::verify`].
    pub fn verify_raw(
        &self,
        suite: Suite,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        match suite {
            Suite::Sm => {
                let key = sm2::dsa::VerifyingKey::from_sec1_bytes(SM2_USER_ID, &self.0)
                    .map_err(|_| SignatureError)?;
                let signature =
                    sm2::dsa::Signature::try_from(&signature.0[..]).map_err(|_| SignatureError)?;
                key.verify(message, &signature).map_err(|_| SignatureError)
            }
            Suite::Intl => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&self.0).map_err(|_| SignatureError)?;
                let signature =
                    p256::ecdsa::Signature::from_slice(&signature.0).map_err(|_| SignatureError)?;
                key.verify(message, &signature).map_err(|_| SignatureError)
            }
        }
    }

    /// Checks a signature over a digest that [`PublicKey::message_digest`] made.
    ///
    /// # Errors
    /// As [`PublicKey::verify`].
    pub fn verify_digest(
        &self,
        suite: Suite,
        digest: &Digest32,
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        match suite {
            Suite::Sm => {
                let key = sm2::dsa::VerifyingKey::from_sec1_bytes(SM2_USER_ID, &self.0)
                    .map_err(|_| SignatureError)?;
                let signature =
                    sm2::dsa::Signature::try_from(&signature.0[..]).map_err(|_| SignatureError)?;
                key.verify_prehash(&digest.0, &signature).map_err(|_| SignatureError)
            }
            Suite::Intl => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&self.0).map_err(|_| SignatureError)?;
                let signature =
                    p256::ecdsa::Signature::from_slice(&signature.0).map_err(|_| SignatureError)?;
                key.verify_prehash(&digest.0, &signature).map_err(|_| SignatureError)
            }
        }
    }

    /// The digest that a key in the HSM signs for `message`: SHA-256, or e = SM3(ZA || message)
    /// (GB/T 32918.2, section 6.1), which depends on the signer's public key.
    pub fn message_digest(&self, suite: Suite, message: &[u8]) -> Digest32 {
        match suite {
            Suite::Intl => suite.hash(&[message]),
            Suite::Sm => suite.hash(&[&self.sm2_za(), message]),
        }
    }

    /// [`PublicKey::message_digest`] of `domain || 00 || message`.
    pub fn domain_digest(&self, suite: Suite, domain: &'static str, message: &[u8]) -> Digest32 {
        self.message_digest(suite, &domain_message(domain, message))
    }

    /// ZA of GB/T 32918.2, section 5.5, for [`SM2_USER_ID`].
    pub fn sm2_za(&self) -> [u8; 32] {
        self.sm2_za_of(SM2_USER_ID.as_bytes())
    }

    /// ZA for any user ID. Its length in bits enters as 16 bits, so callers pass at most 8,191 bytes.
    pub(crate) fn sm2_za_of(&self, user_id: &[u8]) -> [u8; 32] {
        // a, b, Gx, Gy of sm2p256v1 (GB/T 32918.5).
        const CURVE: &[u8; 128] = &{
            let mut out = [0; 128];
            let parts: [u128; 8] = [
                0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF,
                0xFFFFFFFF00000000FFFFFFFFFFFFFFFC,
                0x28E9FA9E9D9F5E344D5A9E4BCF6509A7,
                0xF39789F515AB8F92DDBCBD414D940E93,
                0x32C4AE2C1F1981195F9904466A39C994,
                0x8FE30BBFF2660BE1715A4589334C74C7,
                0xBC3736A2F4F6779C59BDCEE36B692153,
                0xD0A9877CC62A474002DF32E52139F0A0,
            ];
            let mut index = 0;
            while index < 128 {
                out[index] = (parts[index / 16] >> (120 - 8 * (index % 16))) as u8;
                index += 1;
            }
            out
        };
        let id_bits = (user_id.len() as u16) * 8;
        Suite::Sm.hash(&[&id_bits.to_be_bytes(), user_id, CURVE, &self.0[1..]]).0
    }

    /// Encrypts `plaintext` so that only this key's owner opens it, and only with the same `context`.
    ///
    /// `intl`: HPKE base mode (RFC 9180; DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM) with
    /// `info = context`; output is `enc || ciphertext`. `sm`: SM2 encryption (GB/T 32918.4, C1 C3 C2) of
    /// `SM3(context) || plaintext`, because SM2 encryption itself binds no context.
    ///
    /// # Errors
    /// [`SealError`] when the key is not on the curve.
    pub fn seal(
        &self,
        suite: Suite,
        context: &[u8],
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, SealError> {
        match suite {
            Suite::Intl => {
                let recipient =
                    <DhP256HkdfSha256 as Kem>::PublicKey::from_bytes(&self.0).map_err(|_| SealError)?;
                let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<
                    AesGcm256,
                    HkdfSha256,
                    DhP256HkdfSha256,
                >(
                    &OpModeS::Base, &recipient, context, plaintext, b"", rng
                )
                .map_err(|_| SealError)?;
                let mut out = enc.to_bytes().to_vec();
                out.extend_from_slice(&ciphertext);
                Ok(out)
            }
            Suite::Sm => {
                let recipient = sm2::pke::EncryptingKey::from_sec1_bytes(&self.0).map_err(|_| SealError)?;
                let mut message = Vec::with_capacity(32 + plaintext.len());
                message.extend_from_slice(&suite.hash(&[context]).0);
                message.extend_from_slice(plaintext);
                let message = Secret::new(message);
                recipient.encrypt(rng, message.expose()).map_err(|_| SealError)
            }
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base16ct::lower::encode_string(&self.0))
    }
}

/// A signature: r || s, 32 bytes each, big-endian (ECDSA and SM2 alike).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl Signature {
    /// The DER form, `SEQUENCE { INTEGER r, INTEGER s }`, which OpenSSL and GM/T 0009 use.
    pub fn to_der(self) -> Vec<u8> {
        fn push_integer(out: &mut Vec<u8>, bytes: &[u8]) {
            let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
            let digits = &bytes[start..];
            let pad = digits[0] >= 0x80;
            out.extend_from_slice(&[0x02, digits.len() as u8 + u8::from(pad)]);
            if pad {
                out.push(0);
            }
            out.extend_from_slice(digits);
        }
        let mut body = Vec::with_capacity(70);
        push_integer(&mut body, &self.0[..32]);
        push_integer(&mut body, &self.0[32..]);
        let mut out = alloc::vec![0x30, body.len() as u8];
        out.extend_from_slice(&body);
        out
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base16ct::lower::encode_string(&self.0))
    }
}

/// The signature does not belong to this key and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureError;

/// Public-key encryption or decryption was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("does not open under this key and context")]
pub struct SealError;

/// A private key outside the HSM: a node's, a custodian's, or a ceremony's one-time key.
///
/// One pair is for one use: signing or decryption (REQUIREMENTS S1-12).
pub struct PrivateKey {
    suite: Suite,
    scalar: SecretBytes<PRIVATE_KEY_LEN>,
    /// Computed once: it costs as much as a signature, and SM2 needs it for every one.
    public_key: PublicKey,
}

impl PrivateKey {
    /// A fresh key.
    pub fn generate(suite: Suite, rng: &mut impl CryptoRng) -> Self {
        loop {
            // A random 256-bit number is a valid scalar with probability 1 - 2^-32 or better.
            let scalar = SecretBytes::random(rng);
            if let Some(key) = Self::from_scalar(suite, scalar) {
                return key;
            }
        }
    }

    /// Takes a scalar between 1 and the order of the suite's curve; `None` for any other.
    pub fn from_scalar(suite: Suite, scalar: SecretBytes<PRIVATE_KEY_LEN>) -> Option<Self> {
        let point = match suite {
            Suite::Sm => {
                let key = sm2::SecretKey::from_slice(scalar.expose()).ok()?;
                sm2::elliptic_curve::sec1::ToSec1Point::to_sec1_point(&key.public_key(), false)
                    .as_bytes()
                    .to_vec()
            }
            Suite::Intl => {
                let key = p256::SecretKey::from_slice(scalar.expose()).ok()?;
                p256::elliptic_curve::sec1::ToSec1Point::to_sec1_point(&key.public_key(), false)
                    .as_bytes()
                    .to_vec()
            }
        };
        Some(Self { suite, scalar, public_key: PublicKey::from_sec1(&point)? })
    }

    /// The scalar, to be sealed at rest.
    pub fn scalar(&self) -> &SecretBytes<PRIVATE_KEY_LEN> {
        &self.scalar
    }

    /// The suite whose curve the key is on.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Signs `domain || 00 || message`. The nonce is derived from key, message and `rng`.
    pub fn sign(&self, domain: &'static str, message: &[u8], rng: &mut impl CryptoRng) -> Signature {
        let digest = self.public_key.domain_digest(self.suite, domain, message);
        self.sign_digest(&digest, rng)
    }

    /// Signs a digest that [`PublicKey::domain_digest`] made for this key.
    pub fn sign_digest(&self, digest: &Digest32, rng: &mut impl CryptoRng) -> Signature {
        const VALID: &str = "the scalar was checked when the key was made and the digest has 32 bytes";
        let bytes: [u8; 64] = match self.suite {
            Suite::Sm => {
                let key = sm2::dsa::SigningKey::from_slice(SM2_USER_ID, self.scalar.expose()).expect(VALID);
                let signature: sm2::dsa::Signature = key.sign_prehash_with_rng(rng, &digest.0).expect(VALID);
                signature.to_bytes().into()
            }
            Suite::Intl => {
                let key = p256::ecdsa::SigningKey::from_slice(self.scalar.expose()).expect(VALID);
                let signature: p256::ecdsa::Signature =
                    key.sign_prehash_with_rng(rng, &digest.0).expect(VALID);
                signature.to_bytes().into()
            }
        };
        Signature(bytes)
    }

    /// Opens what [`PublicKey::seal`] made with the same context.
    ///
    /// # Errors
    /// [`SealError`], the same for every cause.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Secret, SealError> {
        match self.suite {
            Suite::Intl => {
                if sealed.len() < PUBLIC_KEY_LEN {
                    return Err(SealError);
                }
                let (enc, ciphertext) = sealed.split_at(PUBLIC_KEY_LEN);
                let key = <DhP256HkdfSha256 as Kem>::PrivateKey::from_bytes(self.scalar.expose())
                    .map_err(|_| SealError)?;
                let enc = <DhP256HkdfSha256 as Kem>::EncappedKey::from_bytes(enc).map_err(|_| SealError)?;
                hpke::single_shot_open::<AesGcm256, HkdfSha256, DhP256HkdfSha256>(
                    &OpModeR::Base,
                    &key,
                    &enc,
                    context,
                    ciphertext,
                    b"",
                )
                .map(Secret::new)
                .map_err(|_| SealError)
            }
            Suite::Sm => {
                let key = sm2::pke::DecryptingKey::from_slice(self.scalar.expose()).map_err(|_| SealError)?;
                let message = Secret::new(key.decrypt(sealed).map_err(|_| SealError)?);
                let bound = self.suite.hash(&[context]);
                let (hash, plaintext) = message.expose().split_at_checked(32).ok_or(SealError)?;
                if hash != bound.0 {
                    return Err(SealError);
                }
                Ok(Secret::new(plaintext.to_vec()))
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("suite", &self.suite).finish_non_exhaustive()
    }
}

fn domain_message(domain: &'static str, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(domain.len() + 1 + message.len());
    out.extend_from_slice(domain.as_bytes());
    out.push(0);
    out.extend_from_slice(message);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::testing::TestRng;

    fn hex(text: &str) -> Vec<u8> {
        base16ct::mixed::decode_vec(text).expect("test vectors are hexadecimal")
    }

    const SM2_PUBLIC: &str = concat!(
        "04",
        "09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020",
        "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
    );

    /// GB/T 32918.5 annex A: a failure means that signatures no longer interoperate.
    #[test]
    fn the_sm2_signature_of_the_standard_verifies() {
        let key = PublicKey::from_sec1(&hex(SM2_PUBLIC)).expect("65 bytes");
        assert_eq!(
            key.sm2_za().to_vec(),
            hex("b2e14c5c79c6df5b85f4fe7ed8db7a262b9da7e07ccb0ea9f4747b8ccda8a4f3")
        );
        let message = b"message digest";
        let digest = key.message_digest(Suite::Sm, message);
        assert_eq!(digest.to_hex(), "f0b43e94ba45accaace692ed534382eb17e6ab5a19ce7b31f4486fdfc0d28640");
        let mut signature = Signature(
            hex(concat!(
                "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3",
                "b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"
            ))
            .try_into()
            .expect("64 bytes"),
        );
        assert_eq!(key.verify_raw(Suite::Sm, message, &signature), Ok(()));
        assert_eq!(key.verify_digest(Suite::Sm, &digest, &signature), Ok(()));
        signature.0[63] ^= 1;
        assert_eq!(key.verify_raw(Suite::Sm, message, &signature), Err(SignatureError));
    }

    #[test]
    fn a_signature_belongs_to_one_domain_message_and_key() {
        for suite in [Suite::Sm, Suite::Intl] {
            let mut rng = TestRng::new(7);
            let key = PrivateKey::generate(suite, &mut rng);
            let signature = key.sign("kms/v1/test", b"hello", &mut rng);
            let public = key.public_key();
            assert_eq!(public.verify(suite, "kms/v1/test", b"hello", &signature), Ok(()));
            assert!(public.verify(suite, "kms/v1/other", b"hello", &signature).is_err());
            assert!(public.verify(suite, "kms/v1/test", b"hellO", &signature).is_err());
            let other = PrivateKey::generate(suite, &mut rng).public_key();
            assert!(other.verify(suite, "kms/v1/test", b"hello", &signature).is_err());
        }
    }

    #[test]
    fn a_sealed_message_opens_only_with_its_key_and_context() {
        for suite in [Suite::Sm, Suite::Intl] {
            let mut rng = TestRng::new(8);
            let key = PrivateKey::generate(suite, &mut rng);
            let sealed = key.public_key().seal(suite, b"context", b"share", &mut rng).expect("seals");
            assert_eq!(key.open(b"context", &sealed).expect("opens").expose(), b"share");
            assert!(key.open(b"contexT", &sealed).is_err());
            assert!(PrivateKey::generate(suite, &mut rng).open(b"context", &sealed).is_err());
            for position in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[position] ^= 1;
                assert!(key.open(b"context", &changed).is_err(), "{suite:?} byte {position}");
            }
            assert!(key.open(b"context", &sealed[..20]).is_err());
        }
    }

    #[test]
    fn der_has_the_shortest_integers() {
        let mut bytes = [0; 64];
        bytes[31] = 0x80;
        bytes[63] = 0x01;
        assert_eq!(Signature(bytes).to_der(), hex("300702020080020101"));
    }
}
