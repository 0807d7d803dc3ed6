//! Refusals first, then what a pair does.

use crate::{generate, sign, to_sign, verifies};
use kms_core::pair::{
    EncryptionAlgorithm, ImportError, PairAlgorithm, PairPublicKey, PairUsage, PublicKeyError,
    SignatureAlgorithm,
};
use kms_server::pairs::{EncryptError, PairError, PrivatePair, encrypt_to};
use kms_server::random::system_rng;

const DECRYPTING: [PairAlgorithm; 4] =
    [PairAlgorithm::Sm2, PairAlgorithm::Rsa2048, PairAlgorithm::Rsa3072, PairAlgorithm::Rsa4096];

macro_rules! vector {
    ($name:literal) => {
        include_bytes!(concat!("../../../kms-core/src/pair/vectors/", $name))
    };
}

#[test]
fn a_pair_for_one_use_refuses_the_other() {
    for algorithm in [PairAlgorithm::Sm2, PairAlgorithm::Rsa2048] {
        let encryption = EncryptionAlgorithm::of(algorithm).expect("it decrypts");
        let signing = generate(algorithm, PairUsage::Sign);
        let ciphertext = encrypt_to(signing.public_key(), b"text").expect("anybody can encrypt");
        let refused = signing.decrypt(encryption, &ciphertext).expect_err("it only signs");
        assert_eq!(refused, PairError::OtherUse { usage: PairUsage::Sign });

        let decrypting = generate(algorithm, PairUsage::Decrypt);
        let how = SignatureAlgorithm::of(algorithm).next().expect("it could sign");
        let input = to_sign(how, decrypting.public_key(), b"text");
        let refused = decrypting.sign(&input, &mut system_rng()).expect_err("it only decrypts");
        assert_eq!(refused, PairError::OtherUse { usage: PairUsage::Decrypt });
    }
    for algorithm in PairAlgorithm::ALL.into_iter().filter(|one| !DECRYPTING.contains(one)) {
        let usage = PairUsage::Decrypt;
        let refused = PrivatePair::generate(algorithm, usage, &mut system_rng()).expect_err("it cannot");
        assert_eq!(refused, PairError::NoSuchPair { algorithm, usage });
        let key = generate(algorithm, PairUsage::Sign);
        let refused = encrypt_to(key.public_key(), b"text");
        assert_eq!(refused, Err(EncryptError::OtherPair { pair: algorithm }));
    }
}

#[test]
fn an_algorithm_of_another_pair_is_refused() {
    let (p256, ed25519) =
        (generate(PairAlgorithm::P256, PairUsage::Sign), generate(PairAlgorithm::Ed25519, PairUsage::Sign));
    let input = to_sign(SignatureAlgorithm::Ed25519, ed25519.public_key(), b"text");
    assert_eq!(p256.sign(&input, &mut system_rng()), Err(PairError::OtherAlgorithm));
    let sm2 = generate(PairAlgorithm::Sm2, PairUsage::Decrypt);
    let refused = sm2.decrypt(EncryptionAlgorithm::RsaOaepSha256, &[0; 256]).expect_err("it is SM2");
    assert_eq!(refused, PairError::OtherAlgorithm);
}

#[test]
fn no_changed_byte_of_a_ciphertext_opens() {
    for algorithm in DECRYPTING {
        let pair = generate(algorithm, PairUsage::Decrypt);
        let other = generate(algorithm, PairUsage::Decrypt);
        let encryption = EncryptionAlgorithm::of(algorithm).expect("it decrypts");
        let len_max = encryption.plaintext_len_max(algorithm);
        for len in [1, 32, len_max] {
            let plaintext: Vec<u8> = (0..len).map(|index| index as u8).collect();
            let ciphertext = encrypt_to(pair.public_key(), &plaintext).expect("short enough");
            let opened = pair.decrypt(encryption, &ciphertext).expect("ours");
            assert_eq!(opened.expose(), plaintext, "{algorithm}");
            let refused = other.decrypt(encryption, &ciphertext).expect_err("another key");
            assert_eq!(refused, PairError::CiphertextInvalid);
        }
        let ciphertext = encrypt_to(pair.public_key(), b"text").expect("short enough");
        for place in 0..ciphertext.len() {
            let mut changed = ciphertext.clone();
            changed[place] ^= 1 << (place % 8);
            let refused = pair.decrypt(encryption, &changed).expect_err("changed");
            assert_eq!(refused, PairError::CiphertextInvalid, "{algorithm}, byte {place}");
        }
        for garbage in [vec![], vec![0; ciphertext.len()], [&ciphertext[..], b"x"].concat()] {
            let refused = pair.decrypt(encryption, &garbage).expect_err("garbage");
            assert_eq!(refused, PairError::CiphertextInvalid, "{algorithm}");
        }
        let len_min = usize::from(algorithm == PairAlgorithm::Sm2);
        let refused = encrypt_to(pair.public_key(), &vec![0; len_max + 1]);
        assert_eq!(refused, Err(EncryptError::PlaintextLen { len: len_max + 1, len_min, len_max }));
    }
    let sm2 = generate(PairAlgorithm::Sm2, PairUsage::Decrypt);
    assert!(matches!(encrypt_to(sm2.public_key(), b""), Err(EncryptError::PlaintextLen { len: 0, .. })));
}

#[test]
fn a_signature_verifies_for_its_message_key_and_algorithm_and_for_no_other() {
    for algorithm in PairAlgorithm::ALL {
        let pair = generate(algorithm, PairUsage::Sign);
        let other = generate(algorithm, PairUsage::Sign);
        for how in SignatureAlgorithm::of(algorithm) {
            let signature = sign(&pair, how, b"message");
            assert!(verifies(pair.public_key(), how, b"message", &signature), "{how}");
            assert!(!verifies(pair.public_key(), how, b"Message", &signature), "{how}");
            assert!(!verifies(other.public_key(), how, b"message", &signature), "{how}");
            for place in (0..signature.len()).step_by(5) {
                let mut changed = signature.clone();
                changed[place] ^= 1 << (place % 8);
                assert!(!verifies(pair.public_key(), how, b"message", &changed), "{how}, byte {place}");
            }
            for another in SignatureAlgorithm::of(algorithm).filter(|another| *another != how) {
                assert!(!verifies(pair.public_key(), another, b"message", &signature), "{how} as {another}");
            }
        }
    }
}

#[test]
fn what_was_sealed_opens_as_the_same_pair_and_as_no_other() {
    for algorithm in [PairAlgorithm::Sm2, PairAlgorithm::Rsa2048, PairAlgorithm::P521, PairAlgorithm::Ed25519]
    {
        let pair = generate(algorithm, PairUsage::Sign);
        let other = generate(algorithm, PairUsage::Sign);
        let how = SignatureAlgorithm::of(algorithm).next().expect("it signs");
        let opened = PrivatePair::open(PairUsage::Sign, pair.public_key(), pair.danger_pkcs8()).expect("it");
        let signature = sign(&opened, how, b"message");
        assert!(verifies(pair.public_key(), how, b"message", &signature));
        let refused = PrivatePair::open(PairUsage::Sign, other.public_key(), pair.danger_pkcs8());
        assert_eq!(refused.expect_err("another pair"), PairError::OtherPublicKey);
        let refused = PrivatePair::open(PairUsage::Sign, pair.public_key(), b"garbage");
        assert_eq!(refused.expect_err("no key"), PairError::Import(ImportError::Malformed));
    }
}

#[test]
fn a_key_from_outside_is_taken_when_it_is_whole_and_refused_with_the_reason_else() {
    let import = |pkcs8: &[u8]| PrivatePair::import(PairAlgorithm::Rsa2048, PairUsage::Sign, pkcs8);
    let whole = vector!("rsa-2048.pkcs8.der");
    let pair = import(whole).expect("a whole key");
    let public = PairPublicKey::from_spki(vector!("rsa-2048.spki.der")).expect("its public half");
    assert_eq!(*pair.public_key(), public);
    let exponent = PairError::Import(ImportError::PublicHalf(PublicKeyError::RsaExponent));
    assert_eq!(import(vector!("rsa-2048-exponent-3.pkcs8.der")).expect_err("exponent 3"), exponent);
    let short = PairError::Import(ImportError::PublicHalf(PublicKeyError::RsaModulus { bits: 1024 }));
    assert_eq!(import(vector!("rsa-1024.pkcs8.der")).expect_err("1024 bits"), short);
    // One bit in each of the secret numbers: behind the modulus and the exponent, before the last byte.
    let modulus_end = whole.len() - 900;
    for place in (modulus_end..whole.len()).step_by(61) {
        let mut changed = whole.to_vec();
        changed[place] ^= 1;
        let refused = import(&changed).expect_err("changed");
        let is_named = matches!(refused, PairError::Inconsistent | PairError::Import(ImportError::Malformed));
        assert!(is_named, "byte {place}: {refused}");
    }
    for (algorithm, pkcs8) in [
        (PairAlgorithm::Sm2, &vector!("sm2.pkcs8.der")[..]),
        (PairAlgorithm::P256, vector!("ec-p256.pkcs8.der")),
        (PairAlgorithm::P384, vector!("ec-p384.pkcs8.der")),
        (PairAlgorithm::P521, vector!("ec-p521.pkcs8.der")),
        (PairAlgorithm::Ed25519, vector!("ed25519.pkcs8.der")),
    ] {
        let pair = PrivatePair::import(algorithm, PairUsage::Sign, pkcs8).expect("a whole key");
        let how = SignatureAlgorithm::of(algorithm).next().expect("it signs");
        assert!(verifies(pair.public_key(), how, b"text", &sign(&pair, how, b"text")));
        if !algorithm.allows(PairUsage::Decrypt) {
            let refused =
                PrivatePair::import(algorithm, PairUsage::Decrypt, pkcs8).expect_err("it only signs");
            assert_eq!(refused, PairError::NoSuchPair { algorithm, usage: PairUsage::Decrypt });
        }
    }
}

#[test]
fn debug_of_a_pair_does_not_show_its_private_half() {
    let pair = generate(PairAlgorithm::Ed25519, PairUsage::Sign);
    assert_eq!(format!("{pair:?}"), "PrivatePair(ed25519, sign)");
}
