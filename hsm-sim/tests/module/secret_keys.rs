//! GCM, HMAC and digests, against published values where there are any.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::object::{Attribute, KeyType};
use cryptoki_sys::CK_GCM_PARAMS;

use crate::harness::{
    SM3, SM3_HMAC, SM4_GCM, SM4_KEY_GEN, SM4_KEY_TYPE, hex, known_key, master_key, refusal, user_session,
    vendor, vendor_key, vendor_type, with_aes_gcm,
};

const IV: [u8; 12] = [9; 12];

#[test]
fn a_tampered_ciphertext_does_not_open() {
    let session = user_session("tamper");
    let key = master_key(&session, b"1");
    let sealed = with_aes_gcm(IV, b"context", |gcm| session.encrypt(gcm, key, b"plaintext").expect("sealed"));
    let open = |iv, aad: &[u8], sealed: &[u8]| with_aes_gcm(iv, aad, |gcm| session.decrypt(gcm, key, sealed));
    for position in 0..sealed.len() {
        let mut tampered = sealed.clone();
        tampered[position] ^= 1;
        assert_eq!(refusal(open(IV, b"context", &tampered)), RvError::EncryptedDataInvalid);
    }
    assert_eq!(refusal(open(IV, b"another", &sealed)), RvError::EncryptedDataInvalid);
    assert_eq!(refusal(open([8; 12], b"context", &sealed)), RvError::EncryptedDataInvalid);
    assert_eq!(refusal(open(IV, b"context", &sealed[..15])), RvError::EncryptedDataLenRange);
    assert_eq!(open(IV, b"context", &sealed).expect("untouched"), b"plaintext");
}

#[test]
fn only_a_96_bit_iv_and_a_128_bit_tag_are_accepted() {
    let session = user_session("gcm parameters");
    let key = master_key(&session, b"1");
    for (iv_len, tag_bits) in [(0, 128), (11, 128), (13, 128), (16, 128), (12, 0), (12, 96), (12, 120)] {
        let mut iv = vec![1; iv_len];
        let parameters = GcmParams::new(&mut iv, b"", tag_bits.into()).expect("parameters");
        let attempt = session.encrypt(&Mechanism::AesGcm(parameters), key, b"data");
        assert_eq!(refusal(attempt), RvError::MechanismParamInvalid, "{iv_len} bytes, {tag_bits} bits");
    }
}

#[test]
fn a_message_in_parts_is_the_same_as_one_in_a_piece() {
    let session = user_session("parts");
    let key = master_key(&session, b"1");
    let whole = with_aes_gcm(IV, b"aad", |gcm| session.encrypt(gcm, key, b"one two three").expect("sealed"));
    let parts = with_aes_gcm(IV, b"aad", |gcm| {
        session.encrypt_init(gcm, key).expect("begins");
        let mut sealed = session.encrypt_update(b"one two").expect("first part");
        sealed.extend(session.encrypt_update(b" three").expect("second part"));
        sealed.extend(session.encrypt_final().expect("the end"));
        sealed
    });
    assert_eq!(whole, parts);
    let opened = with_aes_gcm(IV, b"aad", |gcm| {
        session.decrypt_init(gcm, key).expect("begins");
        let mut opened = session.decrypt_update(&whole[..5]).expect("first part");
        assert!(opened.is_empty(), "nothing leaves before the tag was checked");
        opened.extend(session.decrypt_update(&whole[5..]).expect("second part"));
        opened.extend(session.decrypt_final().expect("the end"));
        opened
    });
    assert_eq!(opened, b"one two three");
}

#[test]
fn an_empty_message_is_a_message() {
    let session = user_session("empty");
    let key = master_key(&session, b"1");
    let sealed = with_aes_gcm(IV, b"", |gcm| session.encrypt(gcm, key, b"").expect("sealed"));
    assert_eq!(sealed.len(), 16);
    let opened = with_aes_gcm(IV, b"", |gcm| session.decrypt(gcm, key, &sealed).expect("opened"));
    assert!(opened.is_empty());
}

#[test]
fn a_second_operation_of_the_same_kind_is_refused() {
    let session = user_session("second operation");
    let key = master_key(&session, b"1");
    with_aes_gcm(IV, b"", |gcm| {
        session.encrypt_init(gcm, key).expect("begins");
        assert_eq!(refusal(session.encrypt_init(gcm, key)), RvError::OperationActive);
        session.decrypt_init(gcm, key).expect("another kind");
    });
}

#[test]
fn a_key_does_only_what_its_attributes_allow() {
    let session = user_session("usage");
    let key = known_key(&session, KeyType::AES, &[1; 16], &[Attribute::Decrypt(true)]);
    with_aes_gcm(IV, b"", |gcm| {
        assert_eq!(refusal(session.encrypt(gcm, key, b"x")), RvError::KeyFunctionNotPermitted);
        session.decrypt_init(gcm, key).expect("this is allowed");
    });
    let mac_key = known_key(&session, KeyType::GENERIC_SECRET, b"key", &[Attribute::Verify(true)]);
    let attempt = session.sign(&Mechanism::Sha256Hmac, mac_key, b"x");
    assert_eq!(refusal(attempt), RvError::KeyFunctionNotPermitted);
}

#[test]
fn a_key_of_another_kind_is_refused() {
    let session = user_session("wrong kind");
    let mac_key = known_key(&session, KeyType::GENERIC_SECRET, &[1; 16], &[Attribute::Encrypt(true)]);
    let sm4_key = known_key(&session, vendor_key(SM4_KEY_TYPE), &[1; 16], &[Attribute::Encrypt(true)]);
    with_aes_gcm(IV, b"", |gcm| {
        assert_eq!(refusal(session.encrypt(gcm, mac_key, b"x")), RvError::KeyTypeInconsistent);
        assert_eq!(refusal(session.encrypt(gcm, sm4_key, b"x")), RvError::KeyTypeInconsistent);
    });
    let attempt = session.encrypt(&Mechanism::Sha256, mac_key, b"x");
    assert_eq!(refusal(attempt), RvError::MechanismInvalid);
}

#[test]
fn aes_gcm_gives_the_published_value() {
    // McGrew and Viega, "The Galois/Counter Mode of Operation", test case 4.
    let session = user_session("aes-gcm vector");
    let key = known_key(
        &session,
        KeyType::AES,
        &hex("feffe9928665731c6d6a8f9467308308"),
        &[Attribute::Encrypt(true)],
    );
    let plaintext = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
         b16aedf5aa0de657ba637b39",
    );
    let iv = hex("cafebabefacedbaddecaf888").try_into().expect("twelve bytes");
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let sealed = with_aes_gcm(iv, &aad, |gcm| session.encrypt(gcm, key, &plaintext).expect("sealed"));
    assert_eq!(sealed[60..], hex("5bc94fbc3221a5db94fae95ae7121a47"));
}

#[test]
fn sm4_gcm_gives_the_value_of_rfc_8998() {
    let session = user_session("sm4-gcm vector");
    let uses = [Attribute::Encrypt(true), Attribute::Decrypt(true)];
    let key = known_key(&session, vendor_key(SM4_KEY_TYPE), &hex("0123456789abcdeffedcba9876543210"), &uses);
    let mut iv = hex("00001234567800000000abcd");
    let mut aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let parameters = CK_GCM_PARAMS {
        pIv: iv.as_mut_ptr(),
        ulIvLen: 12,
        ulIvBits: 96,
        pAAD: aad.as_mut_ptr(),
        ulAADLen: aad.len() as u64,
        ulTagBits: 128,
    };
    let gcm = Mechanism::VendorDefined(VendorDefinedMechanism::new(vendor_type(SM4_GCM), Some(&parameters)));
    let plaintext = hex(
        "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccddddddddddddddddeeeeeeeeeeeeeeeeffffffffffffffff\
         eeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa",
    );
    let sealed = hex(
        "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735d82710ca5c22f0ccfa7cbf93d496ac15\
         a56834cbcf98c397b4024a2691233b8d83de3541e4c2b58177e065a9bf7b62ec",
    );
    assert_eq!(session.encrypt(&gcm, key, &plaintext).expect("sealed"), sealed);
    assert_eq!(session.decrypt(&gcm, key, &sealed).expect("opened"), plaintext);
    let without_parameters = vendor(SM4_GCM);
    let attempt = session.encrypt(&without_parameters, key, &plaintext);
    assert_eq!(refusal(attempt), RvError::MechanismParamInvalid);
}

#[test]
fn an_sm4_key_is_generated_and_never_shown() {
    let session = user_session("sm4 key");
    let template = [Attribute::Token(true), Attribute::Sensitive(true), Attribute::Encrypt(true)];
    let key = session.generate_key(&vendor(SM4_KEY_GEN), &template).expect("an SM4 key");
    let asked = [cryptoki::object::AttributeType::KeyType, cryptoki::object::AttributeType::ValueLen];
    let told = session.get_attributes(key, &asked).expect("readable");
    assert_eq!(told, [Attribute::KeyType(vendor_key(SM4_KEY_TYPE)), Attribute::ValueLen(16.into())]);
}

#[test]
fn macs_have_the_published_values() {
    let session = user_session("macs");
    let uses = [Attribute::Sign(true), Attribute::Verify(true)];
    let hi_there = (vec![0x0b; 20], b"Hi There".to_vec());
    let jefe = (b"Jefe".to_vec(), b"what do ya want for nothing?".to_vec());
    let sha256 = Mechanism::Sha256Hmac;
    let sm3 = vendor(SM3_HMAC);
    // HMAC-SHA-256: RFC 4231, test cases 1 and 2. HMAC-SM3: the same inputs, reproduced with two
    // independent implementations; there is no publication behind them.
    for (mechanism, (key, data), expected) in [
        (&sha256, &hi_there, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (&sha256, &jefe, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (&sm3, &hi_there, "51b00d1fb49832bfb01c3ce27848e59f871d9ba938dc563b338ca964755cce70"),
        (&sm3, &jefe, "2e87f1d16862e6d964b50a5200bf2b10b764faa9680a296a2405f24bec39f882"),
    ] {
        let key = known_key(&session, KeyType::GENERIC_SECRET, key, &uses);
        let mac = session.sign(mechanism, key, data).expect("a mac");
        assert_eq!(mac, hex(expected));
        session.verify(mechanism, key, data, &mac).expect("it verifies");
        let mut wrong = mac.clone();
        wrong[31] ^= 1;
        assert_eq!(refusal(session.verify(mechanism, key, data, &wrong)), RvError::SignatureInvalid);
        assert_eq!(refusal(session.verify(mechanism, key, data, &mac[..31])), RvError::SignatureLenRange);
    }
}

#[test]
fn a_generated_mac_key_works_in_parts() {
    let session = user_session("mac key");
    let template = [Attribute::ValueLen(32.into()), Attribute::Sign(true), Attribute::Verify(true)];
    let key = session.generate_key(&Mechanism::GenericSecretKeyGen, &template).expect("a key");
    let whole = session.sign(&Mechanism::Sha256Hmac, key, b"one two").expect("a mac");
    session.sign_init(&Mechanism::Sha256Hmac, key).expect("begins");
    session.sign_update(b"one").expect("first part");
    session.sign_update(b" two").expect("second part");
    assert_eq!(session.sign_final().expect("the end"), whole);
}

#[test]
fn digests_have_the_published_values() {
    let session = user_session("digests");
    let sm3 = session.digest(&vendor(SM3), b"abc").expect("a digest");
    assert_eq!(sm3, hex("66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"));
    let repeated = session.digest(&vendor(SM3), &b"abcd".repeat(16)).expect("a digest");
    assert_eq!(repeated, hex("debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732"));
    // Not in the standard; other implementations agree on it.
    let of_nothing = hex("1ab21d8355cfa17f8e61194831e81a8f22bec8c728fefb747ed035eb5082aa2b");
    assert_eq!(session.digest(&vendor(SM3), b"").expect("a digest"), of_nothing);
    session.digest_init(&vendor(SM3)).expect("begins");
    assert_eq!(session.digest_final().expect("the end"), of_nothing, "no part at all");
    session.digest_init(&Mechanism::Sha256).expect("begins");
    session.digest_update(b"a").expect("first part");
    session.digest_update(b"bc").expect("second part");
    let sha256 = session.digest_final().expect("the end");
    assert_eq!(sha256, hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    let attempt = session.digest(&Mechanism::Sha256Hmac, b"abc");
    assert_eq!(refusal(attempt), RvError::MechanismInvalid);
}

#[test]
fn random_bytes_come_and_differ() {
    let session = user_session("random");
    let one = session.generate_random_vec(10_000).expect("random bytes");
    let two = session.generate_random_vec(10_000).expect("random bytes");
    assert_ne!(one, two);
    assert!(one[9_000..].iter().any(|byte| *byte != 0));
    assert_eq!(refusal(session.seed_random(b"seed")), RvError::RandomSeedNotSupported);
}

#[test]
fn many_threads_work_on_one_token() {
    let session = user_session("threads");
    let slot = session.get_session_info().expect("info").slot_id();
    let key = master_key(&session, b"1");
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            scope.spawn(move || {
                let session = crate::harness::module().open_rw_session(slot).expect("a session");
                for round in 0..200_u8 {
                    let iv = [thread, round, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
                    let sealed = with_aes_gcm(iv, &[thread], |gcm| session.encrypt(gcm, key, &[round]));
                    let sealed = sealed.expect("sealed");
                    let opened = with_aes_gcm(iv, &[thread], |gcm| session.decrypt(gcm, key, &sealed));
                    assert_eq!(opened.expect("opened"), [round]);
                }
                session
                    .generate_key(&Mechanism::AesKeyGen, &[Attribute::ValueLen(16.into())])
                    .expect("a key");
            });
        }
    });
}
