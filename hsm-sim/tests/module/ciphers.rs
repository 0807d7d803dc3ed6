//! Block modes against published values, in one part and in several.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};
use cryptoki::session::Session;

use crate::harness::{SM4_KEY_TYPE, hex, known_key, refusal, user_session, vendor, vendor_key, vendor_type};
use crate::openssl::openssl;

const SM4_ECB: u64 = 0x8000_0108;
const SM4_CBC: u64 = 0x8000_0109;
const SM4_CBC_PAD: u64 = 0x8000_A102;

const BOTH_WAYS: [Attribute; 2] = [Attribute::Encrypt(true), Attribute::Decrypt(true)];

// NIST SP 800-38A, appendix F: key, IV and plaintext of the AES-128 examples.
const AES_KEY: &str = "2b7e151628aed2a6abf7158809cf4f3c";
const IV: &str = "000102030405060708090a0b0c0d0e0f";
const PLAINTEXT: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
     30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";

fn iv() -> [u8; 16] {
    hex(IV).try_into().expect("a block")
}

fn aes_key(session: &Session) -> ObjectHandle {
    known_key(session, KeyType::AES, &hex(AES_KEY), &BOTH_WAYS)
}

fn sm4_key(session: &Session) -> ObjectHandle {
    known_key(session, vendor_key(SM4_KEY_TYPE), &hex("0123456789abcdeffedcba9876543210"), &BOTH_WAYS)
}

fn sm4_with_iv(code: u64, iv: &[u8; 16]) -> Mechanism<'_> {
    Mechanism::VendorDefined(VendorDefinedMechanism::new(vendor_type(code), Some(iv)))
}

fn both_ways(session: &Session, mechanism: &Mechanism, key: ObjectHandle, plaintext: &[u8], expected: &[u8]) {
    assert_eq!(session.encrypt(mechanism, key, plaintext).expect("encrypted"), expected);
    assert_eq!(session.decrypt(mechanism, key, expected).expect("decrypted"), plaintext);
}

#[test]
fn a_message_that_is_not_whole_blocks_is_refused_without_a_pad() {
    let session = user_session("whole blocks");
    let key = aes_key(&session);
    for mechanism in [Mechanism::AesEcb, Mechanism::AesCbc(iv())] {
        assert_eq!(refusal(session.encrypt(&mechanism, key, &[1; 17])), RvError::DataLenRange);
        assert_eq!(refusal(session.decrypt(&mechanism, key, &[1; 17])), RvError::EncryptedDataLenRange);
    }
    assert_eq!(
        refusal(session.decrypt(&Mechanism::AesCbcPad(iv()), key, &[])),
        RvError::EncryptedDataLenRange
    );
}

#[test]
fn a_pad_that_is_wrong_is_refused() {
    let session = user_session("wrong pad");
    let key = aes_key(&session);
    // Encrypted without a pad, so what is where the pad should be is the message's own last byte.
    let unpadded = session.encrypt(&Mechanism::AesCbc(iv()), key, &[0x77; 16]).expect("encrypted");
    let attempt = session.decrypt(&Mechanism::AesCbcPad(iv()), key, &unpadded);
    assert_eq!(refusal(attempt), RvError::EncryptedDataInvalid);
}

#[test]
fn an_iv_of_another_length_is_refused() {
    let session = user_session("iv length");
    let key = sm4_key(&session);
    let short = VendorDefinedMechanism::new(vendor_type(SM4_CBC), Some(&[0_u8; 15]));
    let attempt = session.encrypt(&Mechanism::VendorDefined(short), key, &[0; 16]);
    assert_eq!(refusal(attempt), RvError::MechanismParamInvalid);
    let attempt = session.encrypt(&vendor(SM4_CBC), key, &[0; 16]);
    assert_eq!(refusal(attempt), RvError::MechanismParamInvalid, "no IV at all");
}

#[test]
fn aes_modes_give_the_published_values() {
    let session = user_session("aes modes");
    let key = aes_key(&session);
    let ecb = hex("3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf\
         43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4");
    both_ways(&session, &Mechanism::AesEcb, key, &hex(PLAINTEXT), &ecb);
    let cbc = hex("7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2\
         73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7");
    both_ways(&session, &Mechanism::AesCbc(iv()), key, &hex(PLAINTEXT), &cbc);
}

#[test]
fn sm4_modes_give_the_published_values() {
    // GB/T 32907 A.1 and draft-ribose-cfrg-sm4.
    let session = user_session("sm4 modes");
    let key = sm4_key(&session);
    let block = hex("0123456789abcdeffedcba9876543210");
    both_ways(&session, &vendor(SM4_ECB), key, &block, &hex("681edf34d206965e86b3e94f536e4246"));
    let plaintext = hex("aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffffaaaaaaaabbbbbbbb");
    let ecb = hex("5ec8143de509cff7b5179f8f474b86192f1d305a7fb17df985f81c8482192304");
    both_ways(&session, &vendor(SM4_ECB), key, &plaintext, &ecb);
    let cbc = hex("78ebb11cc40b0a48312aaeb2040244cb4cb7016951909226979b0d15dc6a8f6d");
    both_ways(&session, &sm4_with_iv(SM4_CBC, &iv()), key, &plaintext, &cbc);
}

#[test]
fn sm4_after_a_million_rounds_gives_the_published_value() {
    // GB/T 32907 A.2: each ciphertext is the next plaintext. One operation, one part for each round.
    let session = user_session("a million rounds");
    session.encrypt_init(&vendor(SM4_ECB), sm4_key(&session)).expect("begins");
    let mut block = hex("0123456789abcdeffedcba9876543210");
    for _ in 0..1_000_000 {
        block = session.encrypt_update(&block).expect("a round");
    }
    assert_eq!(session.encrypt_final().expect("the end"), [0_u8; 0]);
    assert_eq!(block, hex("595298c7c6fd271f0402f804c33d3f66"));
}

#[test]
fn padded_modes_agree_with_openssl() {
    let session = user_session("padded modes");
    let aes = known_key(&session, KeyType::AES, &[0x42; 32], &BOTH_WAYS);
    let des = known_key(&session, KeyType::DES3, &hex(DES_KEY), &BOTH_WAYS);
    let sm4 = sm4_key(&session);
    let des_iv = [9; 8];
    for len in [0, 1, 7, 8, 15, 16, 17, 100] {
        let message = vec![0x5a; len];
        for (mechanism, key, cipher, key_hex, iv_hex) in [
            (Mechanism::AesCbcPad(iv()), aes, "-aes-256-cbc", "42".repeat(32), IV.to_owned()),
            (Mechanism::Des3CbcPad(des_iv), des, "-des-ede3-cbc", DES_KEY.to_owned(), "09".repeat(8)),
            (
                sm4_with_iv(SM4_CBC_PAD, &iv()),
                sm4,
                "-sm4-cbc",
                "0123456789abcdeffedcba9876543210".to_owned(),
                IV.to_owned(),
            ),
        ] {
            let expected = openssl(&["enc", cipher, "-K", &key_hex, "-iv", &iv_hex], &message);
            both_ways(&session, &mechanism, key, &message, &expected);
        }
    }
}

/// Every byte has odd parity.
const DES_KEY: &str = "0123456789abcdef2323232345454545fefefefe01010101";

#[test]
fn des3_without_a_pad_agrees_with_openssl() {
    let session = user_session("des3");
    let key = known_key(&session, KeyType::DES3, &hex(DES_KEY), &BOTH_WAYS);
    let message = hex(PLAINTEXT);
    let ecb = openssl(&["enc", "-des-ede3", "-nopad", "-K", DES_KEY], &message);
    both_ways(&session, &Mechanism::Des3Ecb, key, &message, &ecb);
    let arguments = ["enc", "-des-ede3-cbc", "-nopad", "-K", DES_KEY, "-iv", "0909090909090909"];
    let cbc = openssl(&arguments, &message);
    both_ways(&session, &Mechanism::Des3Cbc([9; 8]), key, &message, &cbc);
}

#[test]
fn a_des_key_has_odd_parity() {
    let session = user_session("parity");
    let even = [
        Attribute::Class(cryptoki::object::ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::DES3),
        Attribute::Value(vec![0; 24]),
    ];
    assert_eq!(refusal(session.create_object(&even)), RvError::AttributeValueInvalid);
    let uses = [Attribute::Sensitive(false), Attribute::Extractable(true)];
    let key = session.generate_key(&Mechanism::Des3KeyGen, &uses).expect("a key");
    let told = session.get_attributes(key, &[AttributeType::Value]).expect("readable");
    let [Attribute::Value(value)] = &told[..] else { panic!("no value: {told:?}") };
    assert!(value.len() == 24 && value.iter().all(|byte| byte.count_ones() % 2 == 1));
}

#[test]
fn a_message_in_parts_of_any_length_is_the_same_as_one_in_a_piece() {
    let session = user_session("parts of a mode");
    let key = aes_key(&session);
    let message: Vec<u8> = (0..96).collect();
    for mechanism in [Mechanism::AesEcb, Mechanism::AesCbc(iv()), Mechanism::AesCbcPad(iv())] {
        let whole = session.encrypt(&mechanism, key, &message).expect("encrypted");
        for part_len in [1, 5, 16, 17, 95, 96] {
            session.encrypt_init(&mechanism, key).expect("begins");
            let mut encrypted = Vec::new();
            for part in message.chunks(part_len) {
                encrypted.extend(session.encrypt_update(part).expect("a part"));
            }
            assert!(encrypted.len() >= 80, "blocks come out as soon as they are whole");
            encrypted.extend(session.encrypt_final().expect("the end"));
            assert_eq!(encrypted, whole, "parts of {part_len}");

            session.decrypt_init(&mechanism, key).expect("begins");
            let mut decrypted = Vec::new();
            for part in whole.chunks(part_len) {
                decrypted.extend(session.decrypt_update(part).expect("a part"));
            }
            decrypted.extend(session.decrypt_final().expect("the end"));
            assert_eq!(decrypted, message, "parts of {part_len}");
        }
    }
}

#[test]
fn a_key_of_allowed_mechanisms_does_nothing_else() {
    let session = user_session("allowed mechanisms");
    let mut uses = BOTH_WAYS.to_vec();
    uses.push(Attribute::AllowedMechanisms(vec![cryptoki::mechanism::MechanismType::AES_ECB]));
    let key = known_key(&session, KeyType::AES, &hex(AES_KEY), &uses);
    let attempt = session.encrypt(&Mechanism::AesCbc(iv()), key, &[0; 16]);
    assert_eq!(refusal(attempt), RvError::MechanismInvalid);
    session.encrypt(&Mechanism::AesEcb, key, &[0; 16]).expect("the one that is allowed");
}

#[test]
fn check_values_are_the_published_ones() {
    let session = user_session("check values");
    // A block of zeros under the key, cut to three bytes; for a generic secret the SHA-1 of it.
    let des_check = openssl(&["enc", "-des-ede3", "-nopad", "-K", DES_KEY], &[0; 8])[..3].to_vec();
    let sm4_key_value = hex("0123456789abcdeffedcba9876543210");
    let sm4_check =
        openssl(&["enc", "-sm4-ecb", "-nopad", "-K", "0123456789abcdeffedcba9876543210"], &[0; 16]);
    for (key_type, value, expected) in [
        (KeyType::AES, hex(AES_KEY), hex("7df76b")),
        (KeyType::DES3, hex(DES_KEY), des_check),
        (vendor_key(SM4_KEY_TYPE), sm4_key_value, sm4_check[..3].to_vec()),
        (KeyType::GENERIC_SECRET, b"abc".to_vec(), hex("a9993e")),
    ] {
        let key = known_key(&session, key_type, &value, &[]);
        let told = session.get_attributes(key, &[AttributeType::CheckValue]).expect("readable");
        assert_eq!(told, [Attribute::CheckValue(expected.clone())]);
        known_key(&session, key_type, &value, &[Attribute::CheckValue(expected.clone())]);
        let wrong = [
            Attribute::Class(cryptoki::object::ObjectClass::SECRET_KEY),
            Attribute::KeyType(key_type),
            Attribute::Value(value),
            Attribute::CheckValue(vec![expected[0] ^ 1, expected[1], expected[2]]),
        ];
        assert_eq!(refusal(session.create_object(&wrong)), RvError::AttributeValueInvalid);
    }
}
