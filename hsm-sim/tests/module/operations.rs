//! When an operation ends: with its result, and with every error but a buffer that is too small.
#![expect(unsafe_code, reason = "these tests call C functions")]

use std::ptr::null_mut;

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectHandle};
use cryptoki::session::Session;
use cryptoki_sys as ck;

use crate::harness::{known_key, user_session};
use crate::raw::{call, functions};

const NOT_INITIALIZED: ck::CK_RV = ck::CKR_OPERATION_NOT_INITIALIZED;

/// An AES key that may do everything.
fn key(session: &Session) -> ObjectHandle {
    let uses = [
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Sign(true),
        Attribute::Verify(true),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
    ];
    known_key(session, KeyType::AES, &[1; 16], &uses)
}

/// Calls `C_Encrypt` and its like.
macro_rules! data_to_output {
    ($function:ident, $session:expr, $data:expr, $len:expr) => {{
        let mut data: Vec<u8> = $data.to_vec();
        let mut output = [0_u8; 64];
        let mut len: ck::CK_ULONG = $len;
        let data_len = data.len() as ck::CK_ULONG;
        let answer =
            call!($function($session, data.as_mut_ptr(), data_len, output.as_mut_ptr(), &raw mut len));
        (answer, output[..(len as usize).min(64)].to_vec())
    }};
}

#[test]
fn an_error_ends_an_encryption() {
    let session = user_session("error ends");
    let (key, handle) = (key(&session), session.handle());
    session.encrypt_init(&Mechanism::AesEcb, key).expect("begins");
    assert_eq!(data_to_output!(C_Encrypt, handle, [1; 17], 64).0, ck::CKR_DATA_LEN_RANGE);
    assert_eq!(data_to_output!(C_Encrypt, handle, [1; 16], 64).0, NOT_INITIALIZED);

    session.decrypt_init(&Mechanism::AesEcb, key).expect("begins");
    assert_eq!(call!(C_Decrypt(handle, null_mut(), 16, null_mut(), null_mut())), ck::CKR_ARGUMENTS_BAD);
    assert_eq!(data_to_output!(C_Decrypt, handle, [1; 16], 64).0, NOT_INITIALIZED, "bad arguments too");
}

#[test]
fn a_whole_message_after_a_part_ends_the_operation() {
    let session = user_session("whole after part");
    let (key, handle) = (key(&session), session.handle());
    session.encrypt_init(&Mechanism::AesEcb, key).expect("begins");
    session.encrypt_update(&[1; 16]).expect("a part");
    assert_eq!(data_to_output!(C_Encrypt, handle, [1; 16], 64).0, ck::CKR_OPERATION_ACTIVE);
    let mut len = 0;
    assert_eq!(call!(C_EncryptFinal(handle, null_mut(), &raw mut len)), NOT_INITIALIZED);

    session.digest_init(&Mechanism::Sha256).expect("begins");
    session.digest_update(b"a part").expect("a part");
    assert_eq!(data_to_output!(C_Digest, handle, [1; 16], 64).0, ck::CKR_OPERATION_ACTIVE);
    assert_eq!(data_to_output!(C_Digest, handle, [1; 16], 64).0, NOT_INITIALIZED);

    session.sign_init(&Mechanism::AesCMac, key).expect("begins");
    session.sign_update(b"a part").expect("a part");
    assert_eq!(data_to_output!(C_Sign, handle, [1; 16], 64).0, ck::CKR_OPERATION_ACTIVE);
    assert_eq!(data_to_output!(C_Sign, handle, [1; 16], 64).0, NOT_INITIALIZED);
}

#[test]
fn a_wrong_signature_ends_the_verification() {
    let session = user_session("wrong signature ends");
    let (key, handle) = (key(&session), session.handle());
    let verify = |len| {
        let (mut data, mut mac) = ([1_u8; 16], [1_u8; 16]);
        call!(C_Verify(handle, data.as_mut_ptr(), 16, mac.as_mut_ptr(), len))
    };
    for (len, refusal) in [(16, ck::CKR_SIGNATURE_INVALID), (15, ck::CKR_SIGNATURE_LEN_RANGE)] {
        session.verify_init(&Mechanism::AesCMac, key).expect("begins");
        assert_eq!(verify(len), refusal);
        assert_eq!(verify(len), NOT_INITIALIZED);
    }
}

#[test]
fn too_small_a_buffer_ends_nothing() {
    let session = user_session("small buffers");
    let (key, handle) = (key(&session), session.handle());
    session.sign_init(&Mechanism::AesCMac, key).expect("begins");
    assert_eq!(data_to_output!(C_Sign, handle, [1; 16], 15).0, ck::CKR_BUFFER_TOO_SMALL);
    assert_eq!(data_to_output!(C_Sign, handle, [1; 16], 16).0, ck::CKR_OK);
    assert_eq!(data_to_output!(C_Sign, handle, [1; 16], 16).0, NOT_INITIALIZED);

    session.digest_init(&Mechanism::Sha256).expect("begins");
    assert_eq!(data_to_output!(C_Digest, handle, [1; 16], 31).0, ck::CKR_BUFFER_TOO_SMALL);
    assert_eq!(data_to_output!(C_Digest, handle, [1; 16], 32).0, ck::CKR_OK);

    session.encrypt_init(&Mechanism::AesEcb, key).expect("begins");
    let update = |room| data_to_output!(C_EncryptUpdate, handle, [1; 20], room);
    assert_eq!(update(15).0, ck::CKR_BUFFER_TOO_SMALL, "a block is ready");
    assert_eq!(update(16).0, ck::CKR_OK, "the part was not taken twice");
    assert_eq!(data_to_output!(C_EncryptUpdate, handle, [1; 12], 16).0, ck::CKR_OK);
    let mut len = 0;
    assert_eq!(call!(C_EncryptFinal(handle, null_mut(), &raw mut len)), ck::CKR_OK);
    assert_eq!(len, 0);
    let mut nothing = [0; 1];
    assert_eq!(call!(C_EncryptFinal(handle, nothing.as_mut_ptr(), &raw mut len)), ck::CKR_OK);
}

#[test]
fn a_padded_message_fits_into_its_own_length() {
    let session = user_session("exact room");
    let (key, handle) = (key(&session), session.handle());
    let padded = Mechanism::AesCbcPad([0; 16]);
    let ciphertext = session.encrypt(&padded, key, b"five!").expect("encrypted");
    session.decrypt_init(&padded, key).expect("begins");
    // Only the pad tells how long the message is, so asking gives the most that it can be.
    let mut len = 0;
    let mut input = ciphertext.clone();
    assert_eq!(call!(C_Decrypt(handle, input.as_mut_ptr(), 16, null_mut(), &raw mut len)), ck::CKR_OK);
    assert_eq!(len, 16);
    let (answer, _) = data_to_output!(C_Decrypt, handle, ciphertext, 4);
    assert_eq!(answer, ck::CKR_BUFFER_TOO_SMALL);
    let (answer, message) = data_to_output!(C_Decrypt, handle, ciphertext, 5);
    assert_eq!((answer, &message[..]), (ck::CKR_OK, &b"five!"[..]));
    assert_eq!(data_to_output!(C_Decrypt, handle, ciphertext, 16).0, NOT_INITIALIZED);
}

#[test]
fn wrapping_follows_the_convention_of_lengths() {
    let session = user_session("wrap lengths");
    let uses = [Attribute::Sensitive(false), Attribute::Extractable(true)];
    let wrapped = known_key(&session, KeyType::AES, &[2; 16], &uses);
    let key = key(&session);
    let mut mechanism =
        ck::CK_MECHANISM { mechanism: ck::CKM_AES_KEY_WRAP, pParameter: null_mut(), ulParameterLen: 0 };
    let mut wrap = |place: *mut u8, len: &mut ck::CK_ULONG| {
        let (key, wrapped) = (key.handle(), wrapped.handle());
        call!(C_WrapKey(session.handle(), &raw mut mechanism, key, wrapped, place, &raw mut *len))
    };
    let mut len = 0;
    assert_eq!(wrap(null_mut(), &mut len), ck::CKR_OK);
    assert_eq!(len, 24);
    let mut place = [0; 24];
    len = 23;
    assert_eq!(wrap(place.as_mut_ptr(), &mut len), ck::CKR_BUFFER_TOO_SMALL);
    assert_eq!((len, place), (24, [0; 24]));
    assert_eq!(wrap(place.as_mut_ptr(), &mut len), ck::CKR_OK);
    assert_ne!(place, [0; 24]);
}
