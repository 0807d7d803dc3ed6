//! What comes from outside about key pairs: public and private keys, signatures and ciphertexts in DER and raw.

use crate::random::Random;
use crate::target::Target;
use kms_core::asymmetric::PrivateKey;
use kms_core::pair::{PairAlgorithm, PairPublicKey, SignatureAlgorithm, Sm2Ciphertext, check_private_key};
use kms_core::recipient::{Recipient, RecipientAlgorithm};
use kms_core::suite::Suite;

macro_rules! vectors {
    ($kind:literal: $($name:literal),+) => {
        vec![$(include_bytes!(concat!("../../../kms-core/src/pair/vectors/", $name, ".", $kind, ".der")).to_vec()),+]
    };
}

pub fn targets() -> Vec<Target> {
    let mut targets = vec![public_keys(), recipients(), private_keys()];
    targets.extend(ciphertexts());
    for (algorithm, pair) in [
        (SignatureAlgorithm::Sm2Sm3, PairAlgorithm::Sm2),
        (SignatureAlgorithm::EcdsaSha256, PairAlgorithm::P256),
        (SignatureAlgorithm::EcdsaSha384, PairAlgorithm::P384),
        (SignatureAlgorithm::EcdsaSha512, PairAlgorithm::P521),
        (SignatureAlgorithm::Ed25519, PairAlgorithm::Ed25519),
        (SignatureAlgorithm::RsaPssSha256, PairAlgorithm::Rsa2048),
    ] {
        targets.push(signatures(algorithm, pair));
    }
    targets
}

fn accepted_public_keys() -> Vec<Vec<u8>> {
    vectors!("spki": "ec-p256", "ec-p384", "ec-p521", "ed25519", "rsa-2048", "sm2")
}

fn public_keys() -> Target {
    Target::new("SubjectPublicKeyInfo", accepted_public_keys(), |der| match PairPublicKey::from_spki(der) {
        Ok(key) => {
            assert_eq!(key.to_spki(), der);
            let _ = key.to_library_form();
            if let Some(point) = key.point() {
                assert_eq!(PairPublicKey::from_point(key.algorithm(), point).as_ref(), Ok(&key));
            }
            true
        }
        Err(_) => false,
    })
    .near(vectors!("spki": "rsa-1024", "rsa-2048-exponent-3", "secp256k1"))
}

fn recipients() -> Target {
    let examples = vectors!("spki": "ec-p256", "rsa-2048", "sm2");
    let fits = |der: &[u8]| {
        let Ok(key) = PairPublicKey::from_spki(der) else { return false };
        let taken: Vec<Recipient> = RecipientAlgorithm::ALL
            .into_iter()
            .filter_map(|algorithm| Recipient::new(algorithm, key.clone()).ok())
            .collect();
        assert!(taken.len() <= 1, "one algorithm fits a key");
        for recipient in &taken {
            assert_eq!(recipient.key().to_spki(), der);
            let _ = recipient.fingerprint();
        }
        !taken.is_empty()
    };
    Target::new("Recipient", examples, fits).near(vectors!("spki": "ec-p384", "ec-p521", "ed25519"))
}

fn private_keys() -> Target {
    let examples = vectors!("pkcs8": "ec-p256", "ec-p384", "ec-p521", "ed25519", "rsa-2048", "sm2");
    let check = |pkcs8: &[u8]| {
        let taken: Vec<PairPublicKey> = PairAlgorithm::ALL
            .into_iter()
            .filter_map(|expected| {
                let key = check_private_key(expected, pkcs8).ok()?;
                assert_eq!(key.algorithm(), expected);
                Some(key)
            })
            .collect();
        assert!(taken.len() <= 1, "a private key is of one algorithm");
        for key in &taken {
            assert_eq!(PairPublicKey::from_spki(&key.to_spki()).as_ref(), Ok(key));
        }
        !taken.is_empty()
    };
    let others = vectors!("pkcs8": "rsa-1024", "rsa-2048-exponent-3", "rsa-2048-three-primes", "secp256k1");
    Target::new("PKCS#8", examples, check).near(others)
}

fn ciphertexts() -> Vec<Target> {
    let mut random = Random::new(0, "SM2 ciphertexts");
    let mut raw = |len: usize| {
        let mut raw = PrivateKey::generate(Suite::Sm, &mut random).public_key().as_bytes().to_vec();
        raw.extend(random.bytes(32 + len));
        raw
    };
    let raws = vec![raw(1), raw(32), raw(1024)];
    let ders =
        raws.iter().map(|raw| Sm2Ciphertext::from_raw(raw, false).expect("a ciphertext").to_der()).collect();
    let der = Target::new("SM2 ciphertext in DER", ders, |der| match Sm2Ciphertext::from_der(der) {
        Ok(ciphertext) => {
            assert_eq!(ciphertext.to_der(), der);
            for is_hash_last in [false, true] {
                let raw = ciphertext.to_raw(is_hash_last);
                assert_eq!(raw.len(), 65 + 32 + ciphertext.plaintext_len());
            }
            true
        }
        Err(_) => false,
    });
    let raw = Target::new("SM2 ciphertext, raw", raws, |raw| {
        let taken = [false, true].map(|is_hash_last| match Sm2Ciphertext::from_raw(raw, is_hash_last) {
            Ok(ciphertext) => {
                assert_eq!(ciphertext.to_raw(is_hash_last), raw);
                let der = ciphertext.to_der();
                let again = Sm2Ciphertext::from_der(&der).expect("what was written is read");
                assert_eq!(again.to_raw(is_hash_last), raw);
                true
            }
            Err(_) => false,
        });
        assert_eq!(taken[0], taken[1], "the order of the parts changes no length");
        taken[0]
    });
    vec![der, raw]
}

fn signatures(algorithm: SignatureAlgorithm, pair: PairAlgorithm) -> Target {
    let name = format!("signature of {algorithm}");
    let mut random = Random::new(0, &name);
    let raw_len = match (pair.coordinate_len(), pair.rsa_modulus_len()) {
        (Some(coordinate_len), _) => 2 * coordinate_len,
        (None, modulus_len) => modulus_len.unwrap_or(64),
    };
    let mut raws: Vec<Vec<u8>> = (0..4).map(|_| random.bytes(raw_len)).collect();
    raws[1][..raw_len / 2 - 1].fill(0);
    raws[2].fill(0xff);
    let examples =
        raws.iter().map(|raw| algorithm.signature_to_api(pair, raw).expect("of the right length")).collect();
    Target::new(name, examples, move |bytes| match algorithm.signature_from_api(pair, bytes) {
        Ok(raw) => {
            assert_eq!(raw.len(), raw_len);
            assert_eq!(algorithm.signature_to_api(pair, &raw).as_deref(), Ok(bytes));
            true
        }
        Err(_) => false,
    })
}
