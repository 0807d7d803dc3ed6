//! Objects that are no keys, and lengths that no value has.
#![expect(unsafe_code, reason = "these tests call C functions")]

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, CertificateType, KeyType, ObjectClass};
use cryptoki_sys as ck;

use crate::harness::{known_key, log_in, module, refusal, token, user_session};
use crate::openssl::openssl;
use crate::raw::{call, functions};

fn data(value: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::DATA),
        Attribute::Application(b"the application".to_vec()),
        Attribute::Value(value.to_vec()),
    ]
}

fn certificate() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::CERTIFICATE),
        Attribute::CertificateType(CertificateType::X_509),
        Attribute::Subject(b"subject".to_vec()),
        Attribute::Value(b"certificate".to_vec()),
    ]
}

#[test]
fn a_certificate_without_what_it_needs_is_refused() {
    let session = user_session("incomplete certificates");
    for missing in 1..4 {
        let mut template = certificate();
        template.remove(missing);
        assert_eq!(refusal(session.create_object(&template)), RvError::TemplateIncomplete, "{missing}");
    }
    for wrong in [
        Attribute::Trusted(true),
        Attribute::Sensitive(false),
        Attribute::Local(true),
        Attribute::Application(b"x".to_vec()),
    ] {
        let mut template = certificate();
        template.push(wrong);
        let refused = refusal(session.create_object(&template));
        assert!(matches!(refused, RvError::AttributeReadOnly | RvError::TemplateInconsistent), "{refused:?}");
    }
}

#[test]
fn a_key_handle_must_be_that_of_a_key() {
    let session = user_session("data is no key");
    let object = session.create_object(&data(&[1; 32])).expect("kept");
    assert_eq!(refusal(session.sign(&Mechanism::Sha256Hmac, object, b"x")), RvError::KeyHandleInvalid);
    let attempt = session.wrap_key(&Mechanism::AesKeyWrap, object, object);
    assert_eq!(refusal(attempt), RvError::WrappingKeyHandleInvalid);
}

#[test]
fn data_and_certificates_are_kept_and_given_back() {
    let slot = token("storage");
    let session = log_in(slot);
    for mut template in [data(b"content"), certificate()] {
        template.extend([Attribute::Token(true), Attribute::Label(b"kept".to_vec())]);
        session.create_object(&template).expect("kept");
    }
    session.close().expect("closed");
    // They are public unless the template says otherwise: nobody has to log in.
    let session = module().open_rw_session(slot).expect("a session");
    for (class, value) in [(ObjectClass::DATA, &b"content"[..]), (ObjectClass::CERTIFICATE, b"certificate")] {
        let found = session.find_objects(&[Attribute::Class(class), Attribute::Value(value.to_vec())]);
        let [object] = found.expect("searched")[..] else { panic!("one object of {class}") };
        let told = session.get_attributes(object, &[AttributeType::Value, AttributeType::Label]);
        let expected = [Attribute::Value(value.to_vec()), Attribute::Label(b"kept".to_vec())];
        assert_eq!(told.expect("readable"), expected);
    }
}

#[test]
fn a_private_data_object_needs_a_login() {
    let slot = token("private data");
    let session = module().open_rw_session(slot).expect("a session");
    let mut template = data(b"content");
    template.push(Attribute::Private(true));
    assert_eq!(refusal(session.create_object(&template)), RvError::UserNotLoggedIn);
}

#[test]
fn the_content_of_data_changes_and_that_of_a_certificate_does_not() {
    let session = user_session("storage changes");
    let object = session.create_object(&data(b"old")).expect("kept");
    let new = [Attribute::Value(b"new".to_vec()), Attribute::Label(b"label".to_vec())];
    session.update_attributes(object, &new).expect("changed");
    let told = session.get_attributes(object, &[AttributeType::Value, AttributeType::Label]);
    assert_eq!(told.expect("readable"), new);
    let object = session.create_object(&certificate()).expect("kept");
    assert_eq!(refusal(session.update_attributes(object, &new)), RvError::AttributeReadOnly);
}

#[test]
fn a_key_enters_a_digest_as_its_bytes_would() {
    let session = user_session("digest key");
    let key = known_key(&session, KeyType::GENERIC_SECRET, b"secret", &[]);
    let handle = session.handle();
    let mut mechanism =
        ck::CK_MECHANISM { mechanism: ck::CKM_SHA256, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
    assert_eq!(call!(C_DigestKey(handle, key.handle())), ck::CKR_OPERATION_NOT_INITIALIZED);
    assert_eq!(call!(C_DigestInit(handle, &raw mut mechanism)), ck::CKR_OK);
    let mut part = *b"before ";
    assert_eq!(call!(C_DigestUpdate(handle, part.as_mut_ptr(), 7)), ck::CKR_OK);
    assert_eq!(call!(C_DigestKey(handle, key.handle())), ck::CKR_OK);
    let (mut digest, mut len) = ([0; 32], 32);
    assert_eq!(call!(C_DigestFinal(handle, digest.as_mut_ptr(), &raw mut len)), ck::CKR_OK);
    assert_eq!(digest[..], openssl(&["dgst", "-sha256", "-binary"], b"before secret"));
    // An error ends the operation.
    assert_eq!(call!(C_DigestInit(handle, &raw mut mechanism)), ck::CKR_OK);
    assert_eq!(call!(C_DigestKey(handle, 0)), ck::CKR_KEY_HANDLE_INVALID);
    assert_eq!(call!(C_DigestKey(handle, key.handle())), ck::CKR_OPERATION_NOT_INITIALIZED);
}

#[test]
fn an_hmac_key_is_for_its_own_hash_only() {
    let session = user_session("hmac keys");
    let uses = [Attribute::Sign(true), Attribute::Verify(true)];
    let special = known_key(&session, KeyType::SHA256_HMAC, &[7; 32], &uses);
    let general = known_key(&session, KeyType::GENERIC_SECRET, &[7; 32], &uses);
    let mac = session.sign(&Mechanism::Sha256Hmac, special, b"message").expect("a mac");
    assert_eq!(mac, session.sign(&Mechanism::Sha256Hmac, general, b"message").expect("a mac"));
    let attempt = session.sign(&Mechanism::Sha512Hmac, special, b"message");
    assert_eq!(refusal(attempt), RvError::KeyTypeInconsistent);
}

#[test]
fn an_empty_list_of_mechanisms_allows_none() {
    let session = user_session("no mechanisms");
    let uses = [Attribute::Sign(true), Attribute::AllowedMechanisms(Vec::new())];
    let key = known_key(&session, KeyType::GENERIC_SECRET, &[7; 32], &uses);
    assert_eq!(refusal(session.sign(&Mechanism::Sha256Hmac, key, b"x")), RvError::MechanismInvalid);
}

/// What lies behind the pointer is not read: there is one byte.
#[test]
fn a_length_that_no_value_has_is_refused_unread() {
    let session = user_session("lengths");
    let handle = session.handle();
    let mut byte = 1_u8;
    for type_ in [ck::CKA_VALUE, ck::CKA_MODULUS, ck::CKA_TOKEN, ck::CKA_LABEL, ck::CKA_PRIME_1] {
        for len in [(1 << 24) + 1, 0xffff_ffff, ck::CK_ULONG::MAX >> 1, ck::CK_ULONG::MAX] {
            let mut template = ck::CK_ATTRIBUTE { type_, pValue: (&raw mut byte).cast(), ulValueLen: len };
            let mut made = 0;
            let answer = call!(C_CreateObject(handle, &raw mut template, 1, &raw mut made));
            assert_eq!(answer, ck::CKR_ATTRIBUTE_VALUE_INVALID, "{type_:#x} of {len:#x}");
            let answer = call!(C_FindObjectsInit(handle, &raw mut template, 1));
            assert_eq!(answer, ck::CKR_ATTRIBUTE_VALUE_INVALID);
        }
    }
}

#[test]
fn a_part_that_no_message_has_is_refused_unread() {
    let session = user_session("parts");
    let uses = [Attribute::Encrypt(true), Attribute::Decrypt(true)];
    let key = known_key(&session, KeyType::AES, &[1; 32], &uses);
    let handle = session.handle();
    let (mut byte, mut len) = (1_u8, 0);
    let mut mechanism =
        ck::CK_MECHANISM { mechanism: ck::CKM_AES_ECB, pParameter: std::ptr::null_mut(), ulParameterLen: 0 };
    let huge = (1 << 28) + 1;
    assert_eq!(call!(C_EncryptInit(handle, &raw mut mechanism, key.handle())), ck::CKR_OK);
    let answer = call!(C_EncryptUpdate(handle, &raw mut byte, huge, std::ptr::null_mut(), &raw mut len));
    assert_eq!(answer, ck::CKR_DATA_LEN_RANGE);
    assert_eq!(call!(C_DecryptInit(handle, &raw mut mechanism, key.handle())), ck::CKR_OK);
    let answer = call!(C_Decrypt(handle, &raw mut byte, huge, std::ptr::null_mut(), &raw mut len));
    assert_eq!(answer, ck::CKR_ENCRYPTED_DATA_LEN_RANGE);
}
