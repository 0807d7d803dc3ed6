//! The curves beyond P-256: each signature is checked by OpenSSL, and OpenSSL's by the module.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use crate::harness::{hex, refusal, user_session};
use crate::openssl::{
    Desk, curve_key_info, ed25519_key_info, openssl, signature_to_der, signature_to_raw, try_openssl,
};

const P256: &[u8] = &[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x23];
const ED25519: &[u8] = &[0x06, 0x03, 0x2B, 0x65, 0x70];

fn eddsa() -> Mechanism<'static> {
    Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure))
}

/// What is inside the OCTET STRING of `CKA_EC_POINT`.
fn point(session: &Session, public: ObjectHandle) -> Vec<u8> {
    let told = session.get_attributes(public, &[AttributeType::EcPoint]).expect("readable");
    let [Attribute::EcPoint(encoded)] = &told[..] else { panic!("no point: {told:?}") };
    let point = <&der::asn1::OctetStringRef as der::Decode>::from_der(encoded).expect("an OCTET STRING");
    point.as_bytes().to_vec()
}

fn private_template(key_type: KeyType, parameters: &[u8], value: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(key_type),
        Attribute::EcParams(parameters.to_vec()),
        Attribute::Value(value.to_vec()),
        Attribute::Sign(true),
    ]
}

fn public_template(key_type: KeyType, parameters: &[u8], point: &[u8]) -> Vec<Attribute> {
    let point = der::asn1::OctetStringRef::new(point).expect("short enough");
    vec![
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(key_type),
        Attribute::EcParams(parameters.to_vec()),
        Attribute::EcPoint(der::Encode::to_der(&point).expect("DER")),
        Attribute::Verify(true),
    ]
}

#[test]
fn a_scalar_that_is_not_below_the_order_is_refused() {
    let session = user_session("bad scalars");
    for (parameters, len) in [(P256, 32), (P384, 48), (P521, 66)] {
        for value in [vec![0; len], vec![0xff; len], vec![1; len + 1], Vec::new()] {
            let attempt = session.create_object(&private_template(KeyType::EC, parameters, &value));
            assert_eq!(refusal(attempt), RvError::AttributeValueInvalid);
        }
        // Zeros in front may be left away.
        session.create_object(&private_template(KeyType::EC, parameters, &[7])).expect("a short scalar");
    }
    let attempt = session.create_object(&private_template(KeyType::EC_EDWARDS, ED25519, &[7; 31]));
    assert_eq!(refusal(attempt), RvError::AttributeValueInvalid);
}

#[test]
fn a_curve_of_another_key_type_is_refused() {
    let session = user_session("wrong curve");
    let attempt = session.create_object(&private_template(KeyType::EC, ED25519, &[7; 32]));
    assert_eq!(refusal(attempt), RvError::CurveNotSupported);
    let attempt = session.create_object(&private_template(KeyType::EC_EDWARDS, P256, &[7; 32]));
    assert_eq!(refusal(attempt), RvError::CurveNotSupported);
    let mut template = private_template(KeyType::EC, P256, &[7; 32]);
    template.remove(2);
    assert_eq!(refusal(session.create_object(&template)), RvError::TemplateIncomplete);
    let attempt = session.create_object(&public_template(KeyType::EC, P384, &[4; 97]));
    assert_eq!(refusal(attempt), RvError::AttributeValueInvalid, "a point off the curve");
}

#[test]
fn ecdsa_on_every_curve_agrees_with_openssl() {
    let session = user_session("every curve");
    let desk = Desk::new();
    let uses = [Attribute::Sign(true)];
    for (parameters, field_len) in [(P256, 32), (P384, 48), (P521, 66)] {
        let public = [Attribute::Verify(true), Attribute::EcParams(parameters.to_vec())];
        let (public, private) =
            session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &uses).expect("a pair");
        assert_eq!(refusal(session.sign(&Mechanism::Ecdsa, private, b"")), RvError::DataLenRange);
        let key_info = curve_key_info(parameters, &point(&session, public));
        let key = desk.file("key", &key_info);
        for (mechanism, digest) in [
            (Mechanism::EcdsaSha1, "-sha1"),
            (Mechanism::EcdsaSha224, "-sha224"),
            (Mechanism::EcdsaSha256, "-sha256"),
            (Mechanism::EcdsaSha384, "-sha384"),
            (Mechanism::EcdsaSha512, "-sha512"),
        ] {
            let signature = session.sign(&mechanism, private, b"message").expect("signed");
            assert_eq!(signature.len(), 2 * field_len);
            let file = desk.file("signature", &signature_to_der(&signature));
            let arguments = ["dgst", digest, "-verify", &key, "-keyform", "DER", "-signature", &file];
            openssl(&arguments, b"message");
            assert!(try_openssl(&arguments, b"another").is_none());

            session.verify(&mechanism, public, b"message", &signature).expect("inside as well");
            let attempt = session.verify(&mechanism, public, b"another", &signature);
            assert_eq!(refusal(attempt), RvError::SignatureInvalid);
            let digest = openssl(&["dgst", digest, "-binary"], b"message");
            session.verify(&Mechanism::Ecdsa, public, &digest, &signature).expect("over the digest");
        }
    }
}

#[test]
fn a_signature_of_openssl_verifies_under_an_imported_key() {
    let session = user_session("openssl signs");
    let desk = Desk::new();
    for (parameters, curve, field_len) in [(P256, "P-256", 32), (P384, "P-384", 48), (P521, "P-521", 66)] {
        let key = desk.name("key");
        let curve = format!("ec_paramgen_curve:{curve}");
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", &curve, "-outform", "DER", "-out", &key], b"");
        let info = openssl(&["pkey", "-in", &key, "-inform", "DER", "-pubout", "-outform", "DER"], b"");
        let point = &info[info.len() - 1 - 2 * field_len..];
        let public = session.create_object(&public_template(KeyType::EC, parameters, point));
        let public = public.expect("a public key");
        let signature =
            openssl(&["dgst", "-sha256", "-sign", &key, "-keyform", "DER", "-binary"], b"message");
        let signature = signature_to_raw(&signature, field_len);
        session.verify(&Mechanism::EcdsaSha256, public, b"message", &signature).expect("it verifies");
    }
}

#[test]
fn ed25519_gives_the_value_of_rfc_8032() {
    let session = user_session("ed25519 vector");
    let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
    let point = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    let expected = hex("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
    let private = session.create_object(&private_template(KeyType::EC_EDWARDS, ED25519, &seed));
    let public = session.create_object(&public_template(KeyType::EC_EDWARDS, ED25519, &point));
    let (private, public) = (private.expect("a private key"), public.expect("a public key"));
    assert_eq!(session.sign(&eddsa(), private, &[0x72]).expect("signed"), expected);
    session.verify(&eddsa(), public, &[0x72], &expected).expect("it verifies");
    assert_eq!(refusal(session.verify(&eddsa(), public, &[0x73], &expected)), RvError::SignatureInvalid);
    let attempt = session.verify(&eddsa(), public, &[0x72], &expected[..63]);
    assert_eq!(refusal(attempt), RvError::SignatureLenRange);
}

#[test]
fn a_generated_ed25519_key_agrees_with_openssl() {
    let session = user_session("ed25519 pair");
    let desk = Desk::new();
    let public = [Attribute::Verify(true), Attribute::EcParams(ED25519.to_vec())];
    let (public, private) = session
        .generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &[Attribute::Sign(true)])
        .expect("a pair");
    session.sign_init(&eddsa(), private).expect("begins");
    session.sign_update(b"mes").expect("a part");
    session.sign_update(b"sage").expect("a part");
    let signature = session.sign_final().expect("the end");
    let key = desk.file("key", &ed25519_key_info(&point(&session, public)));
    let (signature, message) = (desk.file("signature", &signature), desk.file("message", b"message"));
    let arguments = [
        "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", &key, "-rawin", "-in", &message,
        "-sigfile", &signature,
    ];
    openssl(&arguments, b"");
}
