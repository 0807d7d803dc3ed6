//! Digests and MACs of every hash, and CMAC, against published values.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType};

use crate::harness::{SM3_HMAC, SM4_KEY_TYPE, hex, known_key, refusal, user_session, vendor, vendor_key};
use crate::openssl::openssl;

const SM4_CBC_MAC: u64 = 0x8000_F102;
const SM4_CMAC: u64 = 0x8000_F103;

const BOTH_WAYS: [Attribute; 2] = [Attribute::Sign(true), Attribute::Verify(true)];

#[test]
fn a_cbc_mac_takes_whole_blocks_and_at_least_one() {
    let session = user_session("cbc-mac lengths");
    let key = known_key(&session, vendor_key(SM4_KEY_TYPE), &[1; 16], &BOTH_WAYS);
    for len in [0, 1, 15, 17] {
        let attempt = session.sign(&vendor(SM4_CBC_MAC), key, &vec![0; len]);
        assert_eq!(refusal(attempt), RvError::DataLenRange, "{len} bytes");
    }
}

#[test]
fn a_changed_mac_does_not_verify() {
    let session = user_session("changed macs");
    let aes = known_key(&session, KeyType::AES, &[1; 32], &BOTH_WAYS);
    let sm4 = known_key(&session, vendor_key(SM4_KEY_TYPE), &[1; 16], &BOTH_WAYS);
    for (mechanism, key) in [(Mechanism::AesCMac, aes), (vendor(SM4_CMAC), sm4), (vendor(SM4_CBC_MAC), sm4)] {
        let mac = session.sign(&mechanism, key, &[3; 32]).expect("a mac");
        session.verify(&mechanism, key, &[3; 32], &mac).expect("it verifies");
        let mut wrong = mac.clone();
        wrong[0] ^= 1;
        assert_eq!(refusal(session.verify(&mechanism, key, &[3; 32], &wrong)), RvError::SignatureInvalid);
        let attempt = session.verify(&mechanism, key, &[3; 32], &mac[..15]);
        assert_eq!(refusal(attempt), RvError::SignatureLenRange);
    }
}

#[test]
fn digests_of_every_hash_have_the_published_values() {
    let session = user_session("every digest");
    // FIPS 180-4, "abc".
    for (mechanism, expected) in [
        (Mechanism::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Mechanism::Sha224, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        (Mechanism::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Mechanism::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            Mechanism::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
    ] {
        assert_eq!(session.digest(&mechanism, b"abc").expect("a digest"), hex(expected));
    }
}

#[test]
fn macs_of_every_hash_have_the_published_values() {
    let session = user_session("every hmac");
    // RFC 2202 and RFC 4231, test case 2.
    let key = known_key(&session, KeyType::GENERIC_SECRET, b"Jefe", &BOTH_WAYS);
    for (mechanism, expected) in [
        (Mechanism::Sha1Hmac, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (Mechanism::Sha224Hmac, "a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44"),
        (Mechanism::Sha256Hmac, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            Mechanism::Sha384Hmac,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e\
             8e2240ca5e69e2c78b3239ecfab21649",
        ),
        (
            Mechanism::Sha512Hmac,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ] {
        let mac = session.sign(&mechanism, key, b"what do ya want for nothing?").expect("a mac");
        assert_eq!(mac, hex(expected));
        session.verify(&mechanism, key, b"what do ya want for nothing?", &mac).expect("it verifies");
    }
}

#[test]
fn hmac_sm3_takes_a_long_key() {
    // GmSSL's value; no standard has one.
    let session = user_session("hmac-sm3");
    let value: Vec<u8> = (1..=32).collect();
    let key = known_key(&session, KeyType::GENERIC_SECRET, &value, &BOTH_WAYS);
    let data = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".repeat(2);
    let mac = session.sign(&vendor(SM3_HMAC), key, &data).expect("a mac");
    assert_eq!(mac, hex("ca05e144ed05d1857840d1f318a4a8669e559fc8391f414485bfdf7bb408963a"));
}

#[test]
fn aes_cmac_gives_the_values_of_rfc_4493() {
    let session = user_session("cmac");
    let key = known_key(&session, KeyType::AES, &hex("2b7e151628aed2a6abf7158809cf4f3c"), &BOTH_WAYS);
    let message = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
         30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
    for (len, expected) in [
        (0, "bb1d6929e95937287fa37d129b756746"),
        (16, "070a16b46b4d4144f79bdd9dd04a287c"),
        (40, "dfa66747de9ae63030ca32611497c827"),
        (64, "51f0bebf7e3b9d92fc49741779363cfe"),
    ] {
        let mac = session.sign(&Mechanism::AesCMac, key, &message[..len]).expect("a mac");
        assert_eq!(mac, hex(expected), "{len} bytes");
        session.sign_init(&Mechanism::AesCMac, key).expect("begins");
        message[..len].chunks(7).for_each(|part| session.sign_update(part).expect("a part"));
        assert_eq!(session.sign_final().expect("the end"), mac, "{len} bytes in parts");
    }
}

#[test]
fn sm4_macs_agree_with_openssl() {
    let session = user_session("sm4 macs");
    let key_hex = "0123456789abcdeffedcba9876543210";
    let key = known_key(&session, vendor_key(SM4_KEY_TYPE), &hex(key_hex), &BOTH_WAYS);
    let message: Vec<u8> = (0..48).collect();
    let zeros = "0".repeat(32);
    let encrypted = openssl(&["enc", "-sm4-cbc", "-nopad", "-K", key_hex, "-iv", &zeros], &message);
    let mac = session.sign(&vendor(SM4_CBC_MAC), key, &message).expect("a mac");
    assert_eq!(mac, encrypted[32..], "the last block of a CBC encryption");
    session.sign_init(&vendor(SM4_CBC_MAC), key).expect("begins");
    message.chunks(5).for_each(|part| session.sign_update(part).expect("a part"));
    assert_eq!(session.sign_final().expect("the end"), mac);

    let hexkey = format!("hexkey:{key_hex}");
    let arguments = ["mac", "-cipher", "SM4-CBC", "-macopt", &hexkey, "-binary", "CMAC"];
    for len in [0, 15, 16, 47, 48] {
        let expected = openssl(&arguments, &message[..len]);
        let mac = session.sign(&vendor(SM4_CMAC), key, &message[..len]).expect("a mac");
        assert_eq!(mac, expected, "{len} bytes");
    }
}
