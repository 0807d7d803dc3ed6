//! What comes from outside about key pairs: public and private keys, signatures and ciphertexts in DER and raw.

use crate::random::Random;
use crate::target::Target;
use kms_core::asymmetric::PrivateKey;
use kms_core::import::WrappedMaterial;
use kms_core::pair::{PairAlgorithm, PairPublicKey, SignatureAlgorithm, Sm2Ciphertext, check_private_key};
use kms_core::recipient::{Recipient, RecipientAlgorithm};
use kms_core::secret::Secret;
use kms_core::spec::KeySpec;
use kms_core::suite::Suite;

const KWP: [u8; 24] = [
    0xc9, 0xa0, 0x04, 0x52, 0x82, 0x12, 0x54, 0xf1, 0x1d, 0x18, 0x0e, 0xfc, 0x24, 0x9e, 0xa7, 0xa8, 0xb1,
    0x4f, 0x47, 0x2e, 0x3b, 0xf8, 0x76, 0xd1,
];

macro_rules! vectors {
    ($kind:literal: $($name:literal),+) => {
        vec![$(include_bytes!(concat!("../../../kms-core/src/pair/vectors/", $name, ".", $kind, ".der")).to_vec()),+]
    };
}

pub fn targets() -> Vec<Target> {
    let mut targets = vec![public_keys(), recipients(), private_keys()];
    targets.extend(ciphertexts());
    targets.extend(wrapped_material());
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

/// Tag, length and content in DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let header = if len < 0x80 { vec![tag, len as u8] } else { vec![tag, 0x81, len as u8] };
    [header, content.to_vec()].concat()
}

/// Key material that somebody brings, as it comes and as it is when it was decrypted.
fn wrapped_material() -> Vec<Target> {
    const SM4: [u8; 9] = [0x06, 0x07, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x68];
    let mut random = Random::new(0, "wrapped material");
    let key = PrivateKey::generate(Suite::Sm, &mut random).public_key().as_bytes().to_vec();
    let public = PairPublicKey::from_point(PairAlgorithm::Sm2, &key).expect("a point");
    let mut raw = key.clone();
    raw.extend(random.bytes(32 + 16));
    let ciphertext = Sm2Ciphertext::from_raw(&raw, false).expect("a ciphertext").to_der();
    let bits = |bytes: &[u8]| der(3, &[&[0], bytes].concat());
    let parts = [der(0x30, &SM4), ciphertext.clone(), bits(&key), bits(&[7; 32])];
    let envelope = der(0x30, &parts.concat());
    let parse = move |spec| {
        let public = public.clone();
        move |bytes: &[u8]| match WrappedMaterial::parse(&public, spec, bytes) {
            Ok(material) => {
                let inner = Sm2Ciphertext::from_der(material.pair_ciphertext()).expect("it was looked at");
                assert!(bytes.len() >= material.pair_ciphertext().len() && inner.plaintext_len() > 0);
                // Whatever came out of the decryption: nobody has the key of this one.
                assert!(material.unwrap(Secret::new(vec![1; 3])).is_err());
                true
            }
            Err(_) => false,
        }
    };
    let enveloped = Target::new("SM2EnvelopedKey", vec![envelope], parse(KeySpec::Sm2));
    let direct = Target::new("secret key wrapped by SM2", vec![ciphertext], parse(KeySpec::Sm4));

    let rsa = PairPublicKey::from_spki(&vectors!("spki": "rsa-2048")[0]).expect("a key");
    // RFC 5649 under AES-256, with OpenSSL: the key 00 01 .. 1f, the material 10 11 .. 1f.
    let example = [&[1; 256][..], &KWP].concat();
    let by_rsa = Target::new("secret key wrapped by RSA and AES-KWP", vec![example], move |bytes| {
        let Ok(material) = WrappedMaterial::parse(&rsa, KeySpec::Aes128, bytes) else { return false };
        match material.unwrap(Secret::new((0..32).collect())) {
            Ok(key) => {
                assert_eq!(key.expose(), (0x10..0x20).collect::<Vec<u8>>());
                true
            }
            Err(_) => false,
        }
    });
    vec![enveloped, direct, by_rsa]
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
