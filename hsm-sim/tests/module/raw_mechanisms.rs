//! Mechanisms that the safe wrapper has no name for.
#![expect(unsafe_code, reason = "these tests call C functions")]

use cryptoki::object::{Attribute, KeyType, ObjectHandle};
use cryptoki::session::Session;
use cryptoki_sys as ck;

use crate::harness::{SM4_KEY_TYPE, hex, known_key, user_session, vendor_key};
use crate::raw::{call, functions};

const SM4_CTR: u64 = 0x8000_F101;

fn mechanism<T>(code: ck::CK_MECHANISM_TYPE, parameter: Option<&mut T>) -> ck::CK_MECHANISM {
    ck::CK_MECHANISM {
        mechanism: code,
        ulParameterLen: if parameter.is_some() { size_of::<T>() as ck::CK_ULONG } else { 0 },
        pParameter: parameter.map_or(std::ptr::null_mut(), |parameter| (&raw mut *parameter).cast()),
    }
}

fn counter(block: &str, bits: u64) -> ck::CK_AES_CTR_PARAMS {
    ck::CK_AES_CTR_PARAMS { ulCounterBits: bits, cb: hex(block).try_into().expect("a block") }
}

/// `C_EncryptInit` and `C_Encrypt`.
fn encrypt(
    session: &Session,
    mut mechanism: ck::CK_MECHANISM,
    key: ObjectHandle,
    data: &[u8],
) -> Result<Vec<u8>, ck::CK_RV> {
    let handle = session.handle();
    match call!(C_EncryptInit(handle, &raw mut mechanism, key.handle())) {
        ck::CKR_OK => {}
        refusal => return Err(refusal),
    }
    let mut data = data.to_vec();
    let mut output = vec![0; data.len() + 64];
    let mut len = output.len() as ck::CK_ULONG;
    let data_len = data.len() as ck::CK_ULONG;
    match call!(C_Encrypt(handle, data.as_mut_ptr(), data_len, output.as_mut_ptr(), &raw mut len)) {
        ck::CKR_OK => {
            output.truncate(len as usize);
            Ok(output)
        }
        refusal => Err(refusal),
    }
}

/// `C_SignInit` and `C_Sign`.
fn sign(
    session: &Session,
    mut mechanism: ck::CK_MECHANISM,
    key: ObjectHandle,
    data: &[u8],
) -> Result<Vec<u8>, ck::CK_RV> {
    let handle = session.handle();
    match call!(C_SignInit(handle, &raw mut mechanism, key.handle())) {
        ck::CKR_OK => {}
        refusal => return Err(refusal),
    }
    let mut data = data.to_vec();
    let mut output = vec![0; 64];
    let mut len = 64;
    let data_len = data.len() as ck::CK_ULONG;
    match call!(C_Sign(handle, data.as_mut_ptr(), data_len, output.as_mut_ptr(), &raw mut len)) {
        ck::CKR_OK => {
            output.truncate(len as usize);
            Ok(output)
        }
        refusal => Err(refusal),
    }
}

#[test]
fn a_counter_may_not_come_around() {
    let session = user_session("counter");
    let key = known_key(&session, KeyType::AES, &[1; 16], &[Attribute::Encrypt(true)]);
    let last_but_one = "000000000000000000000000fffffffe";
    let attempt = |bits, len| {
        let mut parameter = counter(last_but_one, bits);
        encrypt(&session, mechanism(ck::CKM_AES_CTR, Some(&mut parameter)), key, &vec![0; len])
    };
    assert_eq!(attempt(32, 33), Err(ck::CKR_DATA_LEN_RANGE), "two blocks are left");
    assert!(attempt(32, 32).is_ok() && attempt(33, 33).is_ok() && attempt(128, 33).is_ok());
    assert_eq!(attempt(0, 1), Err(ck::CKR_MECHANISM_PARAM_INVALID));
    assert_eq!(attempt(129, 1), Err(ck::CKR_MECHANISM_PARAM_INVALID));
}

#[test]
fn counter_mode_gives_the_published_values() {
    let session = user_session("ctr vectors");
    // NIST SP 800-38A, F.5.1.
    let uses = [Attribute::Encrypt(true)];
    let key = known_key(&session, KeyType::AES, &hex("2b7e151628aed2a6abf7158809cf4f3c"), &uses);
    let plaintext = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
         30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
    let expected = hex("874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff\
         5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee");
    let mut parameter = counter("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 128);
    let encrypted = encrypt(&session, mechanism(ck::CKM_AES_CTR, Some(&mut parameter)), key, &plaintext);
    assert_eq!(encrypted, Ok(expected));

    // draft-ribose-cfrg-sm4.
    let key = vendor_key(SM4_KEY_TYPE);
    let key = known_key(&session, key, &hex("0123456789abcdeffedcba9876543210"), &uses);
    let plaintext = hex("aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd\
         eeeeeeeeeeeeeeeeffffffffffffffffaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb");
    let expected = hex("ac3236cb970cc20791364c395a1342d1a3cbc1878c6f30cd074cce385cdd70c7\
         f234bc0e24c11980fd1286310ce37b926e02fcd0faa0baf38b2933851d824514");
    let mut parameter = counter("000102030405060708090a0b0c0d0e0f", 128);
    let encrypted = encrypt(&session, mechanism(SM4_CTR, Some(&mut parameter)), key, &plaintext);
    assert_eq!(encrypted, Ok(expected));
}

#[test]
fn the_number_of_version_3_for_rfc_5649_is_known() {
    let session = user_session("kwp number");
    let uses = [Attribute::Encrypt(true)];
    let key = hex("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8");
    let key = known_key(&session, KeyType::AES, &key, &uses);
    let wrapped = hex("afbeb0f07dfbf5419200f2ccb50bb24f");
    for code in [ck::CKM_AES_KEY_WRAP_PAD, ck::CKM_AES_KEY_WRAP_KWP] {
        let encrypted = encrypt(&session, mechanism::<u8>(code, None), key, &hex("466f7250617369"));
        assert_eq!(encrypted, Ok(wrapped.clone()));
    }
}

#[test]
fn a_general_mac_is_cut_to_the_length_that_is_asked_for() {
    let session = user_session("general macs");
    let uses = [Attribute::Sign(true)];
    let aes = known_key(&session, KeyType::AES, &[1; 32], &uses);
    let secret = known_key(&session, KeyType::GENERIC_SECRET, &[1; 32], &uses);
    let des = known_key(&session, KeyType::DES3, &hex(&"0123456789abcdef".repeat(3)), &uses);
    for (general, whole, key, whole_len) in [
        (ck::CKM_SHA_1_HMAC_GENERAL, ck::CKM_SHA_1_HMAC, secret, 20_u64),
        (ck::CKM_SHA224_HMAC_GENERAL, ck::CKM_SHA224_HMAC, secret, 28),
        (ck::CKM_SHA256_HMAC_GENERAL, ck::CKM_SHA256_HMAC, secret, 32),
        (ck::CKM_SHA384_HMAC_GENERAL, ck::CKM_SHA384_HMAC, secret, 48),
        (ck::CKM_SHA512_HMAC_GENERAL, ck::CKM_SHA512_HMAC, secret, 64),
        (ck::CKM_AES_CMAC_GENERAL, ck::CKM_AES_CMAC, aes, 16),
    ] {
        let mac = sign(&session, mechanism::<u8>(whole, None), key, b"message").expect("a mac");
        assert_eq!(mac.len() as u64, whole_len);
        for mut len in [1, whole_len - 1, whole_len] {
            let cut = sign(&session, mechanism(general, Some(&mut len)), key, b"message");
            assert_eq!(cut.as_deref(), Ok(&mac[..len as usize]));
        }
        for mut len in [0, whole_len + 1] {
            let attempt = sign(&session, mechanism(general, Some(&mut len)), key, b"message");
            assert_eq!(attempt, Err(ck::CKR_MECHANISM_PARAM_INVALID));
        }
    }
    let mac = sign(&session, mechanism::<u8>(ck::CKM_DES3_CMAC, None), des, b"message").expect("a mac");
    let key = format!("hexkey:{}", "0123456789abcdef".repeat(3));
    let arguments = ["mac", "-cipher", "DES-EDE3-CBC", "-macopt", &key, "-binary", "CMAC"];
    assert_eq!(mac, crate::openssl::openssl(&arguments, b"message"));
}
