//! Keys that leave under other keys, and come back.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};

use crate::harness::{
    SM2_KEY_PAIR_GEN, SM4_KEY_TYPE, SO_PIN, USER_PIN, hex, known_key, log_in, pin, refusal, token,
    user_session, vendor, vendor_key, vendor_type, with_aes_gcm,
};
use crate::key_pairs::P256_PARAMETERS;

const SM2_KEY_TYPE: u64 = 0x8000_0004;
const SM4_CBC_PAD: u64 = 0x8000_A102;

const WRAPS: [Attribute; 2] = [Attribute::Wrap(true), Attribute::Unwrap(true)];

/// A secret key that may be shown, so that a test can see what came back.
fn shown(session: &Session, value: &[u8]) -> ObjectHandle {
    let uses = [Attribute::Sensitive(false), Attribute::Extractable(true)];
    known_key(session, KeyType::GENERIC_SECRET, value, &uses)
}

fn secret_template(key_type: KeyType) -> Vec<Attribute> {
    vec![Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(key_type), Attribute::Sensitive(false)]
}

fn value(session: &Session, key: ObjectHandle) -> Vec<u8> {
    let told = session.get_attributes(key, &[AttributeType::Value]).expect("readable");
    let [Attribute::Value(value)] = &told[..] else { panic!("no value: {told:?}") };
    value.clone()
}

fn wrapping_key(session: &Session, value: &[u8]) -> ObjectHandle {
    known_key(session, KeyType::AES, value, &WRAPS)
}

#[test]
fn a_key_that_is_not_extractable_is_not_wrapped() {
    let session = user_session("not extractable to wrap");
    let wrapping = wrapping_key(&session, &[1; 32]);
    let uses = [Attribute::Sensitive(false), Attribute::Extractable(false)];
    let key = known_key(&session, KeyType::AES, &[2; 16], &uses);
    let attempt = session.wrap_key(&Mechanism::AesKeyWrap, wrapping, key);
    assert_eq!(refusal(attempt), RvError::KeyUnextractable);
}

#[test]
fn a_key_without_the_use_wraps_and_unwraps_nothing() {
    let session = user_session("no wrap use");
    let key = shown(&session, &[2; 16]);
    let other = known_key(&session, KeyType::AES, &[1; 32], &[Attribute::Encrypt(true)]);
    let attempt = session.wrap_key(&Mechanism::AesKeyWrap, other, key);
    assert_eq!(refusal(attempt), RvError::KeyFunctionNotPermitted);
    let attempt = session.unwrap_key(&Mechanism::AesKeyWrap, other, &[0; 24], &secret_template(KeyType::AES));
    assert_eq!(refusal(attempt), RvError::KeyFunctionNotPermitted);
}

#[test]
fn wrapping_keys_have_refusals_of_their_own() {
    let session = user_session("wrapping refusals");
    let key = shown(&session, &[2; 16]);
    let not_aes = known_key(&session, KeyType::GENERIC_SECRET, &[1; 32], &WRAPS);
    let attempt = session.wrap_key(&Mechanism::AesKeyWrap, not_aes, key);
    assert_eq!(refusal(attempt), RvError::WrappingKeyTypeInconsistent);
    let template = secret_template(KeyType::AES);
    let attempt = session.unwrap_key(&Mechanism::AesKeyWrap, not_aes, &[0; 24], &template);
    assert_eq!(refusal(attempt), RvError::UnwrappingKeyTypeInconsistent);
    let gone = wrapping_key(&session, &[1; 32]);
    session.destroy_object(gone).expect("destroyed");
    let attempt = session.wrap_key(&Mechanism::AesKeyWrap, gone, key);
    assert_eq!(refusal(attempt), RvError::WrappingKeyHandleInvalid);
    let attempt = session.unwrap_key(&Mechanism::AesKeyWrap, gone, &[0; 24], &template);
    assert_eq!(refusal(attempt), RvError::UnwrappingKeyHandleInvalid);
    let attempt = session.wrap_key(&Mechanism::AesEcb, wrapping_key(&session, &[1; 32]), key);
    assert_eq!(refusal(attempt), RvError::MechanismInvalid);
}

#[test]
fn a_key_that_wants_a_trusted_wrapping_key_goes_under_no_other() {
    let slot = token("trusted wrapping");
    let session = log_in(slot);
    let uses = [Attribute::Extractable(true), Attribute::WrapWithTrusted(true), Attribute::Token(true)];
    let key = known_key(&session, KeyType::AES, &[2; 16], &uses);
    let uses = [Attribute::Wrap(true), Attribute::Private(false), Attribute::Token(true)];
    let mut uses = uses.to_vec();
    uses.extend([Attribute::Sensitive(false), Attribute::Extractable(true)]);
    let wrapping = known_key(&session, KeyType::AES, &[1; 32], &uses);
    let attempt = session.wrap_key(&Mechanism::AesKeyWrap, wrapping, key);
    assert_eq!(refusal(attempt), RvError::KeyNotWrappable);

    session.logout().expect("logout");
    session.login(UserType::So, Some(&pin(SO_PIN))).expect("the security officer");
    session.update_attributes(wrapping, &[Attribute::Trusted(true)]).expect("trusted");
    session.logout().expect("logout");
    session.login(UserType::User, Some(&pin(USER_PIN))).expect("the user");
    let template = [Attribute::WrapWithTrusted(true)];
    let [key] = session.find_objects(&template).expect("a search")[..] else { panic!("one key") };
    session.wrap_key(&Mechanism::AesKeyWrap, wrapping, key).expect("under a trusted key");
}

#[test]
fn a_tampered_wrapping_does_not_open() {
    let session = user_session("tampered wrapping");
    let wrapping = wrapping_key(&session, &[1; 32]);
    let key = shown(&session, &[2; 16]);
    let template = secret_template(KeyType::GENERIC_SECRET);
    for mechanism in [Mechanism::AesKeyWrap, Mechanism::AesKeyWrapPad] {
        let wrapped = session.wrap_key(&mechanism, wrapping, key).expect("wrapped");
        for position in 0..wrapped.len() {
            let mut tampered = wrapped.clone();
            tampered[position] ^= 1;
            let attempt = session.unwrap_key(&mechanism, wrapping, &tampered, &template);
            assert_eq!(refusal(attempt), RvError::WrappedKeyInvalid);
        }
        let attempt = session.unwrap_key(&mechanism, wrapping, &wrapped[..15], &template);
        assert_eq!(refusal(attempt), RvError::WrappedKeyLenRange);
        let attempt = session.unwrap_key(&mechanism, wrapping, &[], &template);
        assert_eq!(refusal(attempt), RvError::WrappedKeyLenRange);
    }
    let wrapped =
        with_aes_gcm([1; 12], b"", |gcm| session.wrap_key(gcm, wrapping, key)).expect("wrapped under gcm");
    let attempt =
        with_aes_gcm([1; 12], b"other", |gcm| session.unwrap_key(gcm, wrapping, &wrapped, &template));
    assert_eq!(refusal(attempt), RvError::WrappedKeyInvalid);
}

#[test]
fn aes_key_wrap_gives_the_values_of_rfc_3394() {
    let session = user_session("rfc 3394");
    for (wrapping, key, expected) in [
        (
            "000102030405060708090a0b0c0d0e0f",
            "00112233445566778899aabbccddeeff",
            "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5",
        ),
        (
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f",
            "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21",
        ),
    ] {
        let wrapping = wrapping_key(&session, &hex(wrapping));
        let wrapped = session.wrap_key(&Mechanism::AesKeyWrap, wrapping, shown(&session, &hex(key)));
        assert_eq!(wrapped.expect("wrapped"), hex(expected));
        let template = secret_template(KeyType::AES);
        let back = session.unwrap_key(&Mechanism::AesKeyWrap, wrapping, &hex(expected), &template);
        assert_eq!(value(&session, back.expect("unwrapped")), hex(key));
    }
    let wrapping = wrapping_key(&session, &[0; 16]);
    let odd = shown(&session, &[1; 20]);
    let attempt = session.wrap_key(&Mechanism::AesKeyWrap, wrapping, odd);
    assert_eq!(refusal(attempt), RvError::KeySizeRange, "no whole number of half blocks");
}

#[test]
fn aes_key_wrap_with_a_pad_gives_the_values_of_rfc_5649() {
    let session = user_session("rfc 5649");
    let wrapping = wrapping_key(&session, &hex("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8"));
    for (key, expected) in [
        (
            "c37b7e6492584340bed12207808941155068f738",
            "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a",
        ),
        ("466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"),
    ] {
        let wrapped = session.wrap_key(&Mechanism::AesKeyWrapPad, wrapping, shown(&session, &hex(key)));
        assert_eq!(wrapped.expect("wrapped"), hex(expected));
        let template = secret_template(KeyType::GENERIC_SECRET);
        let back = session.unwrap_key(&Mechanism::AesKeyWrapPad, wrapping, &hex(expected), &template);
        assert_eq!(value(&session, back.expect("unwrapped")), hex(key));
    }
}

#[test]
fn every_wrap_brings_secret_and_private_keys_back() {
    let session = user_session("every wrap");
    let aes = wrapping_key(&session, &[1; 32]);
    let sm4 = known_key(&session, vendor_key(SM4_KEY_TYPE), &[1; 16], &WRAPS);
    let iv = [7; 16];
    let sm4_cbc = VendorDefinedMechanism::new(vendor_type(SM4_CBC_PAD), Some(&iv));
    let private = [Attribute::Sensitive(false), Attribute::Extractable(true), Attribute::Sign(true)];
    let ec = [Attribute::EcParams(P256_PARAMETERS.to_vec()), Attribute::Verify(true)];
    let (public, private_ec) =
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &ec, &private).expect("a pair");
    let mut iv_of_gcm = [3; 12];
    let gcm = cryptoki::mechanism::aead::GcmParams::new(&mut iv_of_gcm, b"aad", 128.into());
    for (mechanism, wrapping) in [
        (Mechanism::AesKeyWrapPad, aes),
        (Mechanism::AesCbcPad(iv), aes),
        (Mechanism::AesGcm(gcm.expect("parameters")), aes),
        (Mechanism::VendorDefined(sm4_cbc), sm4),
    ] {
        let wrapped = session.wrap_key(&mechanism, wrapping, shown(&session, b"any length"));
        let template = secret_template(KeyType::GENERIC_SECRET);
        let back = session.unwrap_key(&mechanism, wrapping, &wrapped.expect("wrapped"), &template);
        assert_eq!(value(&session, back.expect("unwrapped")), b"any length");

        let wrapped = session.wrap_key(&mechanism, wrapping, private_ec).expect("wrapped");
        let template = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::KeyType(KeyType::EC),
            Attribute::Sign(true),
        ];
        let back = session.unwrap_key(&mechanism, wrapping, &wrapped, &template).expect("unwrapped");
        let signature = session.sign(&Mechanism::EcdsaSha256, back, b"message").expect("signed");
        session.verify(&Mechanism::EcdsaSha256, public, b"message", &signature).expect("the same key");
    }
}

#[test]
fn private_keys_of_every_kind_travel_as_pkcs8() {
    let session = user_session("pkcs8");
    let wrapping = wrapping_key(&session, &[1; 32]);
    let verify = Attribute::Verify(true);
    let private = [Attribute::Extractable(true), Attribute::Sign(true)];
    let ed25519 = Attribute::EcParams(vec![0x06, 0x03, 0x2b, 0x65, 0x70]);
    let bits = [verify.clone(), Attribute::ModulusBits(2048.into())];
    for (generate, public, key_type, sign) in [
        (
            Mechanism::EccEdwardsKeyPairGen,
            vec![verify.clone(), ed25519],
            KeyType::EC_EDWARDS,
            Mechanism::Eddsa(cryptoki::mechanism::eddsa::EddsaParams::new(
                cryptoki::mechanism::eddsa::EddsaSignatureScheme::Pure,
            )),
        ),
        (
            vendor(SM2_KEY_PAIR_GEN),
            vec![verify.clone()],
            vendor_key(SM2_KEY_TYPE),
            vendor(crate::harness::SM2_SIGN_WITH_SM3),
        ),
        (Mechanism::RsaPkcsKeyPairGen, bits.to_vec(), KeyType::RSA, Mechanism::Sha256RsaPkcs),
    ] {
        let (public, private) = session.generate_key_pair(&generate, &public, &private).expect("a pair");
        let wrapped = session.wrap_key(&Mechanism::AesKeyWrapPad, wrapping, private).expect("wrapped");
        session.destroy_object(private).expect("gone");
        let template =
            [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(key_type), Attribute::Sign(true)];
        let back = session.unwrap_key(&Mechanism::AesKeyWrapPad, wrapping, &wrapped, &template);
        let back = back.expect("unwrapped");
        let signature = session.sign(&sign, back, b"message").expect("signed");
        session.verify(&sign, public, b"message", &signature).expect("the same key");

        let wrong = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC)];
        let attempt = session.unwrap_key(&Mechanism::AesKeyWrapPad, wrapping, &wrapped, &wrong);
        assert_eq!(refusal(attempt), RvError::WrappedKeyInvalid, "it is of another kind");
    }
}

#[test]
fn an_unwrapped_key_was_never_secret_from_its_birth() {
    let session = user_session("unwrapped history");
    let wrapping = wrapping_key(&session, &[1; 32]);
    let wrapped = session.wrap_key(&Mechanism::AesKeyWrap, wrapping, shown(&session, &[2; 16]));
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Sensitive(true),
    ];
    let back = session.unwrap_key(&Mechanism::AesKeyWrap, wrapping, &wrapped.expect("wrapped"), &template);
    let asked = [
        AttributeType::Local,
        AttributeType::AlwaysSensitive,
        AttributeType::NeverExtractable,
        AttributeType::Extractable,
    ];
    let told = session.get_attributes(back.expect("unwrapped"), &asked).expect("readable");
    let expected = [
        Attribute::Local(false),
        Attribute::AlwaysSensitive(false),
        Attribute::NeverExtractable(false),
        Attribute::Extractable(true),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_template_that_does_not_fit_what_was_unwrapped_is_refused() {
    let session = user_session("unwrap templates");
    let wrapping = wrapping_key(&session, &[1; 32]);
    let wrapped = session.wrap_key(&Mechanism::AesKeyWrapPad, wrapping, shown(&session, &[2; 17]));
    let wrapped = wrapped.expect("wrapped");
    let unwrap =
        |template: &[Attribute]| session.unwrap_key(&Mechanism::AesKeyWrapPad, wrapping, &wrapped, template);
    assert_eq!(refusal(unwrap(&[])), RvError::TemplateIncomplete);
    assert_eq!(refusal(unwrap(&secret_template(KeyType::AES))), RvError::WrappedKeyLenRange);
    let mut template = secret_template(KeyType::GENERIC_SECRET);
    template.push(Attribute::ValueLen(16.into()));
    assert_eq!(refusal(unwrap(&template)), RvError::AttributeValueInvalid);
    template[3] = Attribute::Value(vec![2; 17]);
    assert_eq!(refusal(unwrap(&template)), RvError::TemplateInconsistent);
    let private = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC)];
    assert_eq!(refusal(unwrap(&private)), RvError::WrappedKeyInvalid);
}
