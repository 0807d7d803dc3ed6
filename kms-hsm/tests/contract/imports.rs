//! Keys from outside.

use super::{Device, Fixture, new_id};
use kms_core::pair::{PairAlgorithm, PairUsage};
use kms_core::secret::Secret;
use kms_core::suite::aead_open;
use kms_hsm::{HsmError, HsmPartition, ObjectKind};

/// Private keys that OpenSSL made.
fn vector(algorithm: PairAlgorithm) -> Option<&'static [u8]> {
    macro_rules! pkcs8 {
        ($name:literal) => {
            include_bytes!(concat!("../../../kms-core/src/pair/vectors/", $name, ".pkcs8.der")).as_slice()
        };
    }
    match algorithm {
        PairAlgorithm::Sm2 => Some(pkcs8!("sm2")),
        PairAlgorithm::P256 => Some(pkcs8!("ec-p256")),
        PairAlgorithm::P384 => Some(pkcs8!("ec-p384")),
        PairAlgorithm::P521 => Some(pkcs8!("ec-p521")),
        PairAlgorithm::Ed25519 => Some(pkcs8!("ed25519")),
        PairAlgorithm::Rsa2048 => Some(pkcs8!("rsa-2048")),
        PairAlgorithm::Rsa3072 | PairAlgorithm::Rsa4096 => None,
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (1..=len as u8).collect()
}

/// Every kind that the device has: the object does what its key does outside, and has the attributes of its kind.
pub fn a_key_from_outside_does_in_the_token_what_it_does_outside(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (partition, mut session) = fixture.session();
    assert!(partition.takes_keys());
    for algorithm in device.algorithms() {
        let (id, kind, key) = (new_id(), ObjectKind::SealingKey(*algorithm), bytes(algorithm.key_len()));
        let made = session.import(id, kind, "brought", &key).unwrap();
        assert_eq!(session.confirm(id, kind).unwrap(), made);
        assert!(made.check_value.is_none_or(|value| Some(value) == algorithm.check_value(&key)));
        let sealed = session.seal(id, *algorithm, b"aad", b"plaintext").unwrap();
        let opened =
            aead_open(*algorithm, &key, sealed.nonce(), b"aad", sealed.ciphertext_and_tag()).unwrap();
        assert_eq!(&opened.expose()[..9], b"plaintext");
        assert!(matches!(session.import(id, kind, "brought", &key), Err(HsmError::AlreadyExists { .. })));
    }
    for algorithm in device.macs() {
        let (id, kind, key) = (new_id(), ObjectKind::MacKey(*algorithm), bytes(algorithm.key_len()));
        session.import(id, kind, "brought", &key).unwrap();
        let mac = session.mac(id, *algorithm, b"message").unwrap();
        assert!(mac.is_equal(algorithm.mac(&key, b"message").expose()));
    }
    for kind in device.pairs() {
        let ObjectKind::KeyPair(algorithm, _) = kind else { continue };
        let Some(pkcs8) = vector(algorithm) else { continue };
        let id = new_id();
        let made =
            session.import(id, kind, "brought", pkcs8).unwrap_or_else(|error| panic!("{kind:?}: {error:?}"));
        let expected = kms_core::pair::check_private_key(algorithm, pkcs8).unwrap();
        assert_eq!(made.pair_public_key, Some(expected));
        assert_eq!(session.confirm(id, kind).unwrap(), made);
        session.destroy(id).unwrap();
        assert!(!session.exists(id).unwrap());
    }
}

/// A key that the token does not take leaves nothing behind.
pub fn what_is_no_key_of_its_kind_leaves_nothing_in_the_token(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let before = session.objects().unwrap().len();
    let mut refused = Vec::new();
    for kind in device.pairs() {
        let ObjectKind::KeyPair(algorithm, PairUsage::Sign) = kind else { continue };
        let other = if algorithm == PairAlgorithm::P256 { PairAlgorithm::P384 } else { PairAlgorithm::P256 };
        refused.push((kind, Secret::new(vector(other).unwrap().to_vec())));
    }
    for algorithm in device.algorithms() {
        refused.push((ObjectKind::SealingKey(*algorithm), Secret::new(bytes(algorithm.key_len() + 1))));
    }
    for (kind, material) in refused {
        let error = session.import(new_id(), kind, "brought", material.expose());
        assert!(error.is_err(), "{kind:?}");
    }
    assert_eq!(session.objects().unwrap().len(), before);
}
