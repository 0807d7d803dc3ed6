//! SM2 against the standard's values, and against OpenSSL in both directions.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use crate::harness::{
    SM2_KEY_PAIR_GEN, SM2_SIGN_WITH_SM3, hex, known_key, refusal, user_session, vendor, vendor_key,
};
use crate::openssl::{
    Desk, curve_key_info, openssl, signature_to_der, signature_to_raw, sm2_ciphertext_to_der,
    sm2_ciphertext_to_raw,
};

const SM2_KEY_TYPE: u64 = 0x8000_0004;
const SM2_ENCRYPT: u64 = 0x8000_8200;
const SM2_PARAMETERS: &[u8] = &[0x06, 0x08, 0x2A, 0x81, 0x1C, 0xCF, 0x55, 0x01, 0x82, 0x2D];

// GB/T 32918.5, Annex A.
const SCALAR: &str = "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8";
const CIPHERTEXT: &str = "0404ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73\
     e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0\
     59983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766\
     21886ca989ca9c7d58087307ca93092d651efa";

const EVERY_USE_OF_PRIVATE: [Attribute; 3] =
    [Attribute::Sign(true), Attribute::Decrypt(true), Attribute::Unwrap(true)];
const EVERY_USE_OF_PUBLIC: [Attribute; 3] =
    [Attribute::Verify(true), Attribute::Encrypt(true), Attribute::Wrap(true)];

fn private_template(value: &[u8]) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(vendor_key(SM2_KEY_TYPE)),
        Attribute::EcParams(SM2_PARAMETERS.to_vec()),
        Attribute::Value(value.to_vec()),
    ];
    template.extend(EVERY_USE_OF_PRIVATE);
    template
}

fn key_pair(session: &Session) -> (ObjectHandle, ObjectHandle) {
    session
        .generate_key_pair(&vendor(SM2_KEY_PAIR_GEN), &EVERY_USE_OF_PUBLIC, &EVERY_USE_OF_PRIVATE)
        .expect("a pair")
}

fn key_info(session: &Session, public: ObjectHandle) -> Vec<u8> {
    let told = session.get_attributes(public, &[AttributeType::EcPoint]).expect("readable");
    let [Attribute::EcPoint(point)] = &told[..] else { panic!("no point: {told:?}") };
    curve_key_info(SM2_PARAMETERS, &point[2..])
}

#[test]
fn a_tampered_ciphertext_does_not_open() {
    let session = user_session("sm2 tampered");
    let private = session.create_object(&private_template(&hex(SCALAR))).expect("a private key");
    let sound = hex(CIPHERTEXT);
    for position in 0..sound.len() {
        let mut tampered = sound.clone();
        tampered[position] ^= 1;
        let attempt = session.decrypt(&vendor(SM2_ENCRYPT), private, &tampered);
        assert_eq!(refusal(attempt), RvError::EncryptedDataInvalid, "byte {position}");
    }
    for len in [0, 1, 65, 97] {
        let attempt = session.decrypt(&vendor(SM2_ENCRYPT), private, &sound[..len]);
        assert_eq!(refusal(attempt), RvError::EncryptedDataLenRange, "cut to {len}");
    }
}

#[test]
fn an_empty_message_is_not_encrypted() {
    let session = user_session("sm2 empty");
    let (public, _) = key_pair(&session);
    let attempt = session.encrypt(&vendor(SM2_ENCRYPT), public, b"");
    assert_eq!(refusal(attempt), RvError::DataLenRange);
}

#[test]
fn a_private_key_that_is_no_scalar_is_refused() {
    let session = user_session("sm2 bad scalars");
    for value in [vec![0; 32], vec![0xff; 32], vec![1; 33]] {
        let attempt = session.create_object(&private_template(&value));
        assert_eq!(refusal(attempt), RvError::AttributeValueInvalid);
    }
    let mut template = private_template(&hex(SCALAR));
    template[1] = Attribute::KeyType(KeyType::EC);
    assert_eq!(refusal(session.create_object(&template)), RvError::CurveNotSupported);
}

#[test]
fn the_published_ciphertext_opens() {
    let session = user_session("sm2 ciphertext vector");
    let private = session.create_object(&private_template(&hex(SCALAR))).expect("a private key");
    let opened = session.decrypt(&vendor(SM2_ENCRYPT), private, &hex(CIPHERTEXT)).expect("decrypted");
    assert_eq!(opened, b"encryption standard");
}

#[test]
fn openssl_opens_what_the_module_encrypts_and_verifies_what_it_signs() {
    let session = user_session("openssl reads sm2");
    let desk = Desk::new();
    let scalar = hex(SCALAR);
    let private = session.create_object(&private_template(&scalar)).expect("a private key");
    // The key in the form that OpenSSL reads, built by OpenSSL itself out of the scalar.
    let config = desk.file(
        "config",
        format!(
            "asn1=SEQUENCE:key\n[key]\nversion=INTEGER:1\nvalue=FORMAT:HEX,OCTETSTRING:{SCALAR}\n\
             curve=EXPLICIT:0,OID:1.2.156.10197.1.301\n"
        )
        .as_bytes(),
    );
    let (sec1, key) = (desk.name("sec1"), desk.name("key"));
    openssl(&["asn1parse", "-genconf", &config, "-noout", "-out", &sec1], b"");
    openssl(&["ec", "-inform", "DER", "-in", &sec1, "-outform", "DER", "-out", &key], b"");
    let info = openssl(&["pkey", "-inform", "DER", "-in", &key, "-pubout", "-outform", "DER"], b"");
    let public = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(vendor_key(SM2_KEY_TYPE)),
        Attribute::EcParams(SM2_PARAMETERS.to_vec()),
        Attribute::EcPoint([&[0x04, 65], &info[info.len() - 65..]].concat()),
        Attribute::Encrypt(true),
        Attribute::Verify(true),
    ];
    let public = session.create_object(&public).expect("a public key");
    let message = desk.file("message", b"message");

    let ciphertext = session.encrypt(&vendor(SM2_ENCRYPT), public, b"message").expect("encrypted");
    let file = desk.file("ciphertext", &sm2_ciphertext_to_der(&ciphertext));
    let arguments = ["pkeyutl", "-decrypt", "-inkey", &key, "-keyform", "DER", "-in", &file];
    assert_eq!(openssl(&arguments, b""), b"message");

    let arguments = ["pkeyutl", "-encrypt", "-inkey", &key, "-keyform", "DER", "-in", &message];
    let ciphertext = sm2_ciphertext_to_raw(&openssl(&arguments, b""));
    let opened = session.decrypt(&vendor(SM2_ENCRYPT), private, &ciphertext).expect("decrypted");
    assert_eq!(opened, b"message");

    let identifier = "distid:1234567812345678";
    let arguments = [
        "pkeyutl", "-sign", "-inkey", &key, "-keyform", "DER", "-rawin", "-digest", "sm3", "-in", &message,
        "-pkeyopt", identifier,
    ];
    let signature = signature_to_raw(&openssl(&arguments, b""), 32);
    session.verify(&vendor(SM2_SIGN_WITH_SM3), public, b"message", &signature).expect("it verifies");
}

#[test]
fn openssl_verifies_a_signature_of_a_generated_key() {
    let session = user_session("openssl verifies sm2");
    let desk = Desk::new();
    let (public, private) = key_pair(&session);
    let signature = session.sign(&vendor(SM2_SIGN_WITH_SM3), private, b"message").expect("signed");
    let key = desk.file("key", &key_info(&session, public));
    let (file, message) =
        (desk.file("signature", &signature_to_der(&signature)), desk.file("message", b"message"));
    let arguments = [
        "pkeyutl",
        "-verify",
        "-pubin",
        "-keyform",
        "DER",
        "-inkey",
        &key,
        "-rawin",
        "-digest",
        "sm3",
        "-in",
        &message,
        "-sigfile",
        &file,
        "-pkeyopt",
        "distid:1234567812345678",
    ];
    openssl(&arguments, b"");
}

#[test]
fn a_secret_key_travels_under_a_pair() {
    let session = user_session("sm2 wrap");
    let (public, private) = key_pair(&session);
    let uses = [Attribute::Sensitive(false), Attribute::Extractable(true)];
    let key = known_key(&session, KeyType::AES, &[9; 32], &uses);
    let wrapped = session.wrap_key(&vendor(SM2_ENCRYPT), public, key).expect("wrapped");
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Sensitive(false),
    ];
    let back = session.unwrap_key(&vendor(SM2_ENCRYPT), private, &wrapped, &template).expect("unwrapped");
    let told = session.get_attributes(back, &[AttributeType::Value]).expect("readable");
    assert_eq!(told, [Attribute::Value(vec![9; 32])]);
    let attempt = session.wrap_key(&vendor(SM2_ENCRYPT), private, key);
    assert_eq!(refusal(attempt), RvError::WrappingKeyTypeInconsistent, "the private half wraps nothing");
    let attempt = session.sign(&Mechanism::Ecdsa, private, &[1; 32]);
    assert_eq!(refusal(attempt), RvError::KeyTypeInconsistent, "an SM2 key does no ECDSA");
}
