//! Signatures, checked outside the module with the plain curve crates.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use sha2::{Digest, Sha256};
use signature::Verifier;
use signature::hazmat::PrehashVerifier;

use crate::harness::{
    SM2_KEY_PAIR_GEN, SM2_SIGN_PREHASHED, SM2_SIGN_WITH_SM3, hex, log_in, protected, refusal, token,
    user_session, vendor, vendor_key,
};

pub const P256_PARAMETERS: &[u8] = &[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
const SM2_PARAMETERS: &[u8] = &[0x06, 0x08, 0x2A, 0x81, 0x1C, 0xCF, 0x55, 0x01, 0x82, 0x2D];
const SM2_KEY_TYPE: u64 = 0x8000_0004;
const SM2_USER_ID: &str = "1234567812345678";

fn key_pair(session: &Session, mechanism: &Mechanism, parameters: &[u8]) -> (ObjectHandle, ObjectHandle) {
    let public = [
        Attribute::Token(true),
        Attribute::Verify(true),
        Attribute::EcParams(parameters.to_vec()),
        Attribute::Id(b"pair".to_vec()),
    ];
    let mut private = protected();
    private.extend([Attribute::Sign(true), Attribute::Id(b"pair".to_vec())]);
    session.generate_key_pair(mechanism, &public, &private).expect("a key pair")
}

/// The point as it is inside the OCTET STRING.
fn point(session: &Session, public: ObjectHandle) -> Vec<u8> {
    let told = session.get_attributes(public, &[AttributeType::EcPoint]).expect("readable");
    let [Attribute::EcPoint(der)] = &told[..] else { panic!("no point: {told:?}") };
    assert_eq!(der[..2], [0x04, 65], "an OCTET STRING of 65 bytes");
    der[2..].to_vec()
}

#[test]
fn an_ecdsa_signature_verifies_outside_the_module() {
    let session = user_session("ecdsa");
    let (public, private) = key_pair(&session, &Mechanism::EccKeyPairGen, P256_PARAMETERS);
    let outside = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point(&session, public)).expect("a point");
    let digest = Sha256::digest(b"message");

    let over_digest = session.sign(&Mechanism::Ecdsa, private, &digest).expect("signed");
    let over_message = session.sign(&Mechanism::EcdsaSha256, private, b"message").expect("signed");
    for signature in [&over_digest, &over_message] {
        let signature = p256::ecdsa::Signature::from_slice(signature).expect("r and s");
        outside.verify(b"message", &signature).expect("it verifies outside");
    }
    session.verify(&Mechanism::Ecdsa, public, &digest, &over_message).expect("it verifies inside");
    session.verify(&Mechanism::EcdsaSha256, public, b"message", &over_digest).expect("it verifies inside");

    let another = Sha256::digest(b"another");
    let attempt = session.verify(&Mechanism::Ecdsa, public, &another, &over_digest);
    assert_eq!(refusal(attempt), RvError::SignatureInvalid);
    let attempt = session.verify(&Mechanism::Ecdsa, public, &digest, &over_digest[..63]);
    assert_eq!(refusal(attempt), RvError::SignatureLenRange);
    assert_eq!(
        refusal(session.verify(&Mechanism::Ecdsa, public, &digest, &[0; 64])),
        RvError::SignatureInvalid
    );
}

#[test]
fn an_sm2_signature_verifies_outside_the_module() {
    let session = user_session("sm2");
    let (public, private) = key_pair(&session, &vendor(SM2_KEY_PAIR_GEN), SM2_PARAMETERS);
    let point = point(&session, public);
    let outside = sm2::dsa::VerifyingKey::from_sec1_bytes(SM2_USER_ID, &point).expect("a point");

    let over_message = session.sign(&vendor(SM2_SIGN_WITH_SM3), private, b"message").expect("signed");
    let signature = sm2::dsa::Signature::from_slice(&over_message).expect("r and s");
    outside.verify(b"message", &signature).expect("it verifies outside");
    session.verify(&vendor(SM2_SIGN_WITH_SM3), public, b"message", &over_message).expect("and inside");

    let e = [0x5a; 32];
    let over_digest = session.sign(&vendor(SM2_SIGN_PREHASHED), private, &e).expect("signed");
    let signature = sm2::dsa::Signature::from_slice(&over_digest).expect("r and s");
    outside.verify_prehash(&e, &signature).expect("it verifies outside");
    session.verify(&vendor(SM2_SIGN_PREHASHED), public, &e, &over_digest).expect("and inside");

    let attempt = session.verify(&vendor(SM2_SIGN_WITH_SM3), public, b"another", &over_message);
    assert_eq!(refusal(attempt), RvError::SignatureInvalid);
    let attempt = session.sign(&vendor(SM2_SIGN_PREHASHED), private, &e[..31]);
    assert_eq!(refusal(attempt), RvError::DataLenRange);
}

#[test]
fn the_published_sm2_signature_verifies() {
    // GB/T 32918.5 Annex A: public key, message, identifier "1234567812345678", signature.
    let session = user_session("sm2 vector");
    let point = hex("0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020\
         ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13");
    let template = [
        Attribute::Class(ObjectClass::PUBLIC_KEY),
        Attribute::KeyType(vendor_key(SM2_KEY_TYPE)),
        Attribute::EcParams(SM2_PARAMETERS.to_vec()),
        Attribute::EcPoint([&[0x04, 65], &point[..]].concat()),
        Attribute::Verify(true),
    ];
    let key = session.create_object(&template).expect("a public key");
    let signature = hex("f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3\
         b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa");
    session.verify(&vendor(SM2_SIGN_WITH_SM3), key, b"message digest", &signature).expect("over the message");
    let e = hex("f0b43e94ba45accaace692ed534382eb17e6ab5a19ce7b31f4486fdfc0d28640");
    session.verify(&vendor(SM2_SIGN_PREHASHED), key, &e, &signature).expect("over e");
}

#[test]
fn a_message_signed_in_parts_verifies_in_parts() {
    let session = user_session("signing in parts");
    let ecdsa = key_pair(&session, &Mechanism::EccKeyPairGen, P256_PARAMETERS);
    let sm2 = key_pair(&session, &vendor(SM2_KEY_PAIR_GEN), SM2_PARAMETERS);
    for (mechanism, (public, private)) in [(Mechanism::EcdsaSha256, ecdsa), (vendor(SM2_SIGN_WITH_SM3), sm2)]
    {
        session.sign_init(&mechanism, private).expect("begins");
        session.sign_update(b"one").expect("first part");
        session.sign_update(b" two").expect("second part");
        let signature = session.sign_final().expect("the end");
        session.verify_init(&mechanism, public).expect("begins");
        session.verify_update(b"one t").expect("first part");
        session.verify_update(b"wo").expect("second part");
        session.verify_final(&signature).expect("it verifies");
    }
}

#[test]
fn a_digest_cannot_come_in_parts() {
    let session = user_session("digest in parts");
    let (_, private) = key_pair(&session, &Mechanism::EccKeyPairGen, P256_PARAMETERS);
    session.sign_init(&Mechanism::Ecdsa, private).expect("begins");
    assert_eq!(refusal(session.sign_update(&[1; 16])), RvError::FunctionNotSupported);
}

#[test]
fn each_half_does_its_own_part_only() {
    let session = user_session("wrong half");
    let (public, private) = key_pair(&session, &Mechanism::EccKeyPairGen, P256_PARAMETERS);
    let attempt = session.sign(&Mechanism::Ecdsa, public, &[1; 32]);
    assert_eq!(refusal(attempt), RvError::KeyTypeInconsistent);
    let attempt = session.verify(&Mechanism::Ecdsa, private, &[1; 32], &[1; 64]);
    assert_eq!(refusal(attempt), RvError::KeyTypeInconsistent);
    let info = session.get_attribute_info(private, &[AttributeType::Value]).expect("answered");
    assert!(matches!(info[..], [AttributeInfo::Sensitive]));
}

#[test]
fn a_curve_that_the_mechanism_does_not_have_is_refused() {
    let session = user_session("curves");
    let private = [Attribute::Sign(true)];
    let sm2_curve = [Attribute::EcParams(SM2_PARAMETERS.to_vec())];
    let attempt = session.generate_key_pair(&Mechanism::EccKeyPairGen, &sm2_curve, &private);
    assert_eq!(refusal(attempt), RvError::CurveNotSupported);
    let attempt = session.generate_key_pair(&Mechanism::EccKeyPairGen, &[], &private);
    assert_eq!(refusal(attempt), RvError::TemplateIncomplete);
    session.generate_key_pair(&vendor(SM2_KEY_PAIR_GEN), &[], &private).expect("the number names the curve");
}

#[test]
fn a_public_key_off_the_curve_is_refused() {
    let session = user_session("bad point");
    let with_point = |der: Vec<u8>| {
        session.create_object(&[
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(P256_PARAMETERS.to_vec()),
            Attribute::EcPoint(der),
        ])
    };
    let off_curve = [&[0x04, 65, 0x04][..], &[1; 64]].concat();
    assert_eq!(refusal(with_point(off_curve)), RvError::AttributeValueInvalid);
    assert_eq!(refusal(with_point(vec![0x04, 65, 0x04])), RvError::AttributeValueInvalid);
    assert_eq!(refusal(with_point(Vec::new())), RvError::AttributeValueInvalid);
}

#[test]
fn a_key_pair_signs_the_same_after_everything_was_closed() {
    let slot = token("reopened pair");
    let session = log_in(slot);
    let (public, _) = key_pair(&session, &vendor(SM2_KEY_PAIR_GEN), SM2_PARAMETERS);
    let point = point(&session, public);
    drop(session);

    let session = log_in(slot);
    let private = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(b"pair".to_vec())];
    let [private] = session.find_objects(&private).expect("a search")[..] else {
        panic!("not one private key")
    };
    let signature = session.sign(&vendor(SM2_SIGN_WITH_SM3), private, b"message").expect("signed");
    let outside = sm2::dsa::VerifyingKey::from_sec1_bytes(SM2_USER_ID, &point).expect("a point");
    let signature = sm2::dsa::Signature::from_slice(&signature).expect("r and s");
    outside.verify(b"message", &signature).expect("it verifies outside");
}
