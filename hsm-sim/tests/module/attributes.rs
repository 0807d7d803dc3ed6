//! What a template may say, and what may be changed later.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use cryptoki::session::UserType;

use crate::harness::{SO_PIN, known_key, log_in, master_key, module, pin, refusal, token, user_session};

fn generate(session: &cryptoki::session::Session, template: &[Attribute]) -> RvError {
    refusal(session.generate_key(&Mechanism::AesKeyGen, template))
}

#[test]
fn a_template_with_an_unknown_attribute_is_refused() {
    let session = user_session("unknown attribute");
    let template = [Attribute::ValueLen(32.into()), Attribute::AcIssuer(vec![1])];
    assert_eq!(generate(&session, &template), RvError::AttributeTypeInvalid);
}

#[test]
fn a_template_that_contradicts_itself_is_refused() {
    let session = user_session("contradictions");
    let len = Attribute::ValueLen(32.into());
    let twice = [len.clone(), len.clone()];
    assert_eq!(generate(&session, &twice), RvError::TemplateInconsistent);
    let value = [len.clone(), Attribute::Value(vec![0; 32])];
    assert_eq!(generate(&session, &value), RvError::TemplateInconsistent);
    let class = [len.clone(), Attribute::Class(ObjectClass::PRIVATE_KEY)];
    assert_eq!(generate(&session, &class), RvError::TemplateInconsistent);
    let key_type = [len.clone(), Attribute::KeyType(KeyType::GENERIC_SECRET)];
    assert_eq!(generate(&session, &key_type), RvError::TemplateInconsistent);
    let point = [len, Attribute::EcPoint(vec![0; 67])];
    assert_eq!(generate(&session, &point), RvError::TemplateInconsistent);
}

#[test]
fn a_template_that_says_too_little_is_refused() {
    let session = user_session("too little");
    assert_eq!(generate(&session, &[]), RvError::TemplateIncomplete);
    let attempt = session.create_object(&[Attribute::Class(ObjectClass::SECRET_KEY)]);
    assert_eq!(refusal(attempt), RvError::TemplateIncomplete);
}

#[test]
fn a_key_length_that_the_cipher_does_not_have_is_refused() {
    let session = user_session("length");
    assert_eq!(generate(&session, &[Attribute::ValueLen(33.into())]), RvError::AttributeValueInvalid);
}

#[test]
fn a_template_cannot_set_what_the_token_decides() {
    let session = user_session("read-only attributes");
    for attribute in
        [Attribute::Local(true), Attribute::AlwaysSensitive(true), Attribute::NeverExtractable(true)]
    {
        let template = [Attribute::ValueLen(32.into()), attribute];
        assert_eq!(generate(&session, &template), RvError::AttributeReadOnly);
    }
}

#[test]
fn a_generated_key_tells_its_history() {
    let session = user_session("history");
    let key = master_key(&session, b"1");
    let asked = [
        AttributeType::Local,
        AttributeType::AlwaysSensitive,
        AttributeType::NeverExtractable,
        AttributeType::KeyGenMechanism,
        AttributeType::ValueLen,
        AttributeType::WrapWithTrusted,
    ];
    let told = session.get_attributes(key, &asked).expect("readable");
    let expected = [
        Attribute::Local(true),
        Attribute::AlwaysSensitive(true),
        Attribute::NeverExtractable(false),
        Attribute::KeyGenMechanism(cryptoki::mechanism::MechanismType::AES_KEY_GEN),
        Attribute::ValueLen(32.into()),
        Attribute::WrapWithTrusted(true),
    ];
    assert_eq!(told, expected);
}

#[test]
fn an_imported_key_was_never_secret_from_its_birth() {
    let session = user_session("imported");
    let uses = [Attribute::Sensitive(true), Attribute::Extractable(false)];
    let key = known_key(&session, KeyType::AES, &[0; 16], &uses);
    let asked = [
        AttributeType::Local,
        AttributeType::AlwaysSensitive,
        AttributeType::NeverExtractable,
        AttributeType::CheckValue,
    ];
    let told = session.get_attributes(key, &asked).expect("readable");
    // The first three bytes of AES-128 with a key of zeros over a block of zeros (FIPS 197 arithmetic,
    // widely published as the GCM hash key of that key).
    let check_value = Attribute::CheckValue(vec![0x66, 0xe9, 0x4b]);
    let expected = [
        Attribute::Local(false),
        Attribute::AlwaysSensitive(false),
        Attribute::NeverExtractable(false),
        check_value,
    ];
    assert_eq!(told, expected);
}

#[test]
fn protection_only_ever_grows() {
    let session = user_session("one way");
    let uses = [Attribute::Sensitive(false), Attribute::Extractable(true), Attribute::WrapWithTrusted(false)];
    let key = known_key(&session, KeyType::AES, &[0; 16], &uses);
    for (tighter, looser) in [
        (Attribute::Sensitive(true), Attribute::Sensitive(false)),
        (Attribute::Extractable(false), Attribute::Extractable(true)),
        (Attribute::WrapWithTrusted(true), Attribute::WrapWithTrusted(false)),
        (Attribute::Copyable(false), Attribute::Copyable(true)),
    ] {
        session.update_attributes(key, &[tighter]).expect("more protection");
        assert_eq!(refusal(session.update_attributes(key, &[looser])), RvError::AttributeReadOnly);
    }
}

#[test]
fn protection_that_comes_later_does_not_change_history() {
    let session = user_session("later protection");
    let open = [Attribute::ValueLen(32.into()), Attribute::Sensitive(false), Attribute::Extractable(true)];
    let key = session.generate_key(&Mechanism::AesKeyGen, &open).expect("a key");
    let protection = [Attribute::Sensitive(true), Attribute::Extractable(false)];
    session.update_attributes(key, &protection).expect("more protection");
    let asked = [AttributeType::AlwaysSensitive, AttributeType::NeverExtractable];
    let told = session.get_attributes(key, &asked).expect("readable");
    assert_eq!(told, [Attribute::AlwaysSensitive(false), Attribute::NeverExtractable(false)]);
}

#[test]
fn a_change_is_made_whole_or_not_at_all() {
    let session = user_session("whole change");
    let key = known_key(&session, KeyType::AES, &[0; 16], &[]);
    let changes = [Attribute::Label(b"new".to_vec()), Attribute::Local(true)];
    assert_eq!(refusal(session.update_attributes(key, &changes)), RvError::AttributeReadOnly);
    let label = session.get_attributes(key, &[AttributeType::Label]).expect("readable");
    assert_eq!(label, [Attribute::Label(Vec::new())]);
}

#[test]
fn a_changed_token_object_is_changed_for_good() {
    let slot = token("durable change");
    let session = log_in(slot);
    let template = [Attribute::Token(true), Attribute::ValueLen(16.into())];
    let key = session.generate_key(&Mechanism::AesKeyGen, &template).expect("a key");
    let changes = [Attribute::Id(b"new".to_vec()), Attribute::Encrypt(true)];
    session.update_attributes(key, &changes).expect("changed");
    drop(session);
    let session = log_in(slot);
    assert_eq!(session.find_objects(&changes).expect("a search").len(), 1);
}

#[test]
fn only_the_security_officer_marks_a_key_as_trusted() {
    let slot = token("trusted");
    let session = log_in(slot);
    let uses = [Attribute::Private(false), Attribute::Wrap(true)];
    let key = known_key(&session, KeyType::AES, &[0; 16], &uses);
    let trusted = [Attribute::Trusted(true)];
    assert_eq!(refusal(session.update_attributes(key, &trusted)), RvError::AttributeReadOnly);
    let attempt = session
        .generate_key(&Mechanism::AesKeyGen, &[Attribute::ValueLen(32.into()), Attribute::Trusted(true)]);
    assert_eq!(refusal(attempt), RvError::AttributeReadOnly);
    session.logout().expect("logout");
    session.login(UserType::So, Some(&pin(SO_PIN))).expect("the security officer");
    session.update_attributes(key, &trusted).expect("trusted");
    session.logout().expect("logout");
    let told = session.get_attributes(key, &[AttributeType::Trusted]).expect("readable");
    assert_eq!(told, trusted, "a public session object lives on through both logins");
}

#[test]
fn a_copy_may_be_more_protected_but_not_less() {
    let session = user_session("copies");
    let uses = [Attribute::Sensitive(true), Attribute::Extractable(true), Attribute::Encrypt(true)];
    let original = known_key(&session, KeyType::AES, &[7; 16], &uses);
    for looser in [Attribute::Sensitive(false), Attribute::Private(false)] {
        let attempt = session.copy_object(original, &[looser]);
        assert!(matches!(refusal(attempt), RvError::AttributeReadOnly | RvError::TemplateInconsistent));
    }
    let changes = [Attribute::Token(true), Attribute::Extractable(false), Attribute::Label(b"copy".to_vec())];
    let copy = session.copy_object(original, &changes).expect("a copy");
    let told =
        session.get_attributes(copy, &[AttributeType::Token, AttributeType::Extractable]).expect("readable");
    assert_eq!(told, [Attribute::Token(true), Attribute::Extractable(false)]);
    let sealed = |key| {
        crate::harness::with_aes_gcm([1; 12], b"", |gcm| {
            session.encrypt(gcm, key, b"same key").expect("works")
        })
    };
    assert_eq!(sealed(original), sealed(copy));
}

#[test]
fn the_mechanism_list_tells_the_vendor_numbers_too() {
    let slot = token("mechanisms");
    let info = module()
        .get_mechanism_info(slot, crate::harness::vendor_type(crate::harness::SM4_GCM))
        .expect("SM4-GCM is known");
    assert!(info.encrypt() && info.decrypt() && !info.sign());
    assert!(!info.hardware(), "a simulation must not claim to be hardware");
    let attempt = module().get_mechanism_info(slot, cryptoki::mechanism::MechanismType::RSA_X_509);
    assert_eq!(refusal(attempt), RvError::MechanismInvalid);
}
