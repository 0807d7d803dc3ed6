//! Objects: who sees them, who may change them, and how long they live.

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, KeyType, ObjectClass};
use cryptoki::session::UserType;

use crate::harness::{
    SO_PIN, USER_PIN, known_key, log_in, master_key, module, pin, protected, refusal, token, user_session,
};

#[test]
fn a_sensitive_value_cannot_be_read() {
    let session = user_session("sensitive");
    let key = master_key(&session, b"1");
    let info = session.get_attribute_info(key, &[AttributeType::Value]).expect("the question is answered");
    assert!(matches!(info[..], [AttributeInfo::Sensitive]));
}

#[test]
fn a_key_that_is_not_extractable_cannot_be_read_either() {
    let session = user_session("not extractable");
    let uses = [Attribute::Sensitive(false), Attribute::Extractable(false)];
    let key = known_key(&session, KeyType::GENERIC_SECRET, b"value", &uses);
    let info = session.get_attribute_info(key, &[AttributeType::Value]).expect("the question is answered");
    assert!(matches!(info[..], [AttributeInfo::Sensitive]));
    let by_value = [Attribute::Value(b"value".to_vec())];
    assert!(
        session.find_objects(&by_value).expect("a search").is_empty(),
        "a search must not confirm a guess"
    );
}

#[test]
fn an_extractable_key_that_is_not_sensitive_can_be_read() {
    let session = user_session("readable");
    let uses = [Attribute::Sensitive(false), Attribute::Extractable(true)];
    let key = known_key(&session, KeyType::GENERIC_SECRET, b"value", &uses);
    let read = session.get_attributes(key, &[AttributeType::Value]).expect("readable");
    assert_eq!(read, [Attribute::Value(b"value".to_vec())]);
}

#[test]
fn a_sensitive_token_key_must_be_private() {
    let session = user_session("public secret");
    let mut template = protected();
    template[1] = Attribute::Private(false);
    template.push(Attribute::ValueLen(32.into()));
    let attempt = session.generate_key(&Mechanism::AesKeyGen, &template);
    assert_eq!(refusal(attempt), RvError::TemplateInconsistent);
}

#[test]
fn private_objects_are_hidden_without_login_and_their_handles_die_at_logout() {
    let slot = token("hidden");
    let session = log_in(slot);
    let key = master_key(&session, b"hidden");
    let by_id = [Attribute::Id(b"hidden".to_vec())];
    assert_eq!(session.find_objects(&by_id).expect("a search"), [key]);

    session.logout().expect("logout");
    assert!(session.find_objects(&by_id).expect("a search").is_empty());
    let attempt = session.get_attributes(key, &[AttributeType::Id]);
    assert_eq!(refusal(attempt), RvError::ObjectHandleInvalid);

    session.login(UserType::User, Some(&pin(USER_PIN))).expect("login");
    let attempt = session.get_attributes(key, &[AttributeType::Id]);
    assert_eq!(refusal(attempt), RvError::ObjectHandleInvalid, "a dead handle stays dead");
    assert_eq!(session.find_objects(&by_id).expect("a search").len(), 1);
}

#[test]
fn a_private_object_is_hidden_even_if_it_holds_no_secret() {
    let slot = token("private public key");
    let session = log_in(slot);
    let parameters = Attribute::EcParams(crate::key_pairs::P256_PARAMETERS.to_vec());
    let public = [Attribute::Token(true), Attribute::Private(true), parameters];
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &[]).expect("a key pair");
    assert_eq!(session.find_objects(&[]).expect("a search").len(), 2);
    session.logout().expect("logout");
    assert!(session.find_objects(&[]).expect("a search").is_empty());
}

#[test]
fn the_security_officer_sees_no_private_object() {
    let slot = token("officer sees nothing");
    let session = log_in(slot);
    master_key(&session, b"1");
    session.logout().expect("logout");
    session.login(UserType::So, Some(&pin(SO_PIN))).expect("login");
    assert!(session.find_objects(&[]).expect("a search").is_empty());
    let attempt = session
        .generate_key(&Mechanism::AesKeyGen, &[Attribute::ValueLen(32.into()), Attribute::Private(true)]);
    assert_eq!(refusal(attempt), RvError::UserNotLoggedIn);
}

#[test]
fn a_key_is_found_by_its_id_among_others() {
    let session = user_session("find");
    for number in 0..25_u8 {
        master_key(&session, &[number]);
    }
    let found = session.find_objects(&[Attribute::Id(vec![7])]).expect("a search");
    assert_eq!(found.len(), 1);
    let id = session.get_attributes(found[0], &[AttributeType::Id]).expect("its id");
    assert_eq!(id, [Attribute::Id(vec![7])]);
    assert_eq!(session.find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)]).expect("all").len(), 25);
    assert!(session.find_objects(&[Attribute::Class(ObjectClass::CERTIFICATE)]).expect("none").is_empty());
    assert!(session.find_objects(&[Attribute::Subject(vec![1])]).expect("an unknown attribute").is_empty());
}

#[test]
fn a_token_object_outlives_its_session_and_a_session_object_does_not() {
    let slot = token("lifetimes");
    let session = log_in(slot);
    master_key(&session, b"stays");
    known_key(&session, KeyType::AES, &[1; 16], &[Attribute::Id(b"goes".to_vec())]);
    let keeper = module().open_ro_session(slot).expect("a session that keeps the login");
    assert_eq!(keeper.find_objects(&[]).expect("a search").len(), 2);
    drop(session);
    let left = keeper.find_objects(&[]).expect("a search");
    assert_eq!(left.len(), 1);
    let id = keeper.get_attributes(left[0], &[AttributeType::Id]).expect("its id");
    assert_eq!(id, [Attribute::Id(b"stays".to_vec())]);
}

#[test]
fn a_read_only_session_makes_and_destroys_session_objects_only() {
    let slot = token("read-only");
    let writer = log_in(slot);
    let key = master_key(&writer, b"1");
    let reader = module().open_ro_session(slot).expect("a read-only session");
    let attempt =
        reader.generate_key(&Mechanism::AesKeyGen, &[Attribute::Token(true), Attribute::ValueLen(32.into())]);
    assert_eq!(refusal(attempt), RvError::SessionReadOnly);
    assert_eq!(refusal(reader.destroy_object(key)), RvError::SessionReadOnly);
    let mine = known_key(&reader, KeyType::AES, &[1; 16], &[]);
    reader.destroy_object(mine).expect("a session object");
}

#[test]
fn a_destroyed_object_is_gone_for_every_session() {
    let slot = token("destroy");
    let session = log_in(slot);
    let other = module().open_rw_session(slot).expect("a second session");
    let key = master_key(&session, b"1");
    other.destroy_object(key).expect("destroyed");
    assert_eq!(refusal(session.destroy_object(key)), RvError::ObjectHandleInvalid);
    assert!(session.find_objects(&[]).expect("a search").is_empty());
}

#[test]
fn what_a_key_forbids_is_prohibited() {
    let session = user_session("prohibitions");
    let key = master_key(&session, b"1");
    let attempt = session.update_attributes(key, &[Attribute::Label(b"new".to_vec())]);
    assert_eq!(refusal(attempt), RvError::ActionProhibited);
    assert_eq!(refusal(session.copy_object(key, &[])), RvError::ActionProhibited);
    let keeps = known_key(&session, KeyType::AES, &[1; 16], &[Attribute::Destroyable(false)]);
    assert_eq!(refusal(session.destroy_object(keeps)), RvError::ActionProhibited);
}

#[test]
fn an_object_of_another_token_has_no_handle_here() {
    let here = user_session("here");
    let there = user_session("there");
    let key = master_key(&there, b"1");
    assert_eq!(refusal(here.destroy_object(key)), RvError::ObjectHandleInvalid);
}

#[test]
fn both_halves_of_a_key_pair_can_be_destroyed_apart() {
    let session = user_session("halves");
    let parameters = Attribute::EcParams(crate::key_pairs::P256_PARAMETERS.to_vec());
    let (public, private) = session
        .generate_key_pair(
            &Mechanism::EccKeyPairGen,
            &[Attribute::Token(true), parameters],
            &[Attribute::Token(true), Attribute::Sign(true)],
        )
        .expect("a key pair");
    session.destroy_object(public).expect("the public half");
    assert_eq!(session.find_objects(&[]).expect("a search"), [private]);
    session.sign(&Mechanism::Ecdsa, private, &[1; 32]).expect("the private half works");
    session.destroy_object(private).expect("the private half");
    assert!(session.find_objects(&[]).expect("a search").is_empty());
}
