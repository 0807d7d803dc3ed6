//! The login: made once, found again when lost, never made on doubt.

use super::{Device, Fixture, LABEL, USER_PIN, eventually, new_id, pin, raw, soon};
use cryptoki::session::{SessionState, UserType};
use cryptoki::types::AuthPin;
use kms_core::key::KeySpec;
use kms_core::suite::Suite;
use kms_hsm::{ErrorClass, FailureReason, Health, HsmError, HsmPartition, ObjectKind};

const KIND: ObjectKind = ObjectKind::SealingKey(KeySpec::Aes256);

pub fn a_wrong_pin_is_refused(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let refused = fixture.module.open_partition(LABEL, &fixture.token.serial, pin("a-wrong-user-pin"));
    assert!(refused.unwrap_err().is_pin_refused());
    fixture.open();
}

pub fn a_login_that_is_not_ours_does_not_let_a_wrong_pin_in(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let other = raw::session(&fixture);
    other.login(UserType::User, Some(&AuthPin::from(USER_PIN))).unwrap();
    let refused = fixture.module.open_partition(LABEL, &fixture.token.serial, pin("a-wrong-user-pin"));
    assert!(refused.unwrap_err().is_pin_refused());
    fixture.open();
}

pub fn objects_are_found_again_after_the_login_was_lost(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let (sealing, signing, mac) = (new_id(), new_id(), new_id());
    session.create(sealing, KIND, "sealing").unwrap();
    session.create(signing, ObjectKind::SigningKey(Suite::Intl), "signing").unwrap();
    session.create(mac, ObjectKind::MacKey(Suite::Intl), "mac").unwrap();
    let sealed = session.seal(sealing, KeySpec::Aes256, b"aad", b"text").unwrap();
    session.sign(signing, Suite::Intl, &[1; 32]).unwrap();
    let code = session.mac(mac, Suite::Intl, b"data").unwrap();

    let log_out = || raw::session(&fixture).logout().unwrap();
    log_out();
    assert_eq!(session.open(sealing, KeySpec::Aes256, b"aad", &sealed).unwrap().expose(), b"text");
    log_out();
    session.sign(signing, Suite::Intl, &[2; 32]).unwrap();
    log_out();
    assert!(session.mac(mac, Suite::Intl, b"data").unwrap().is_equal(code.expose()));
    log_out();
    // The key was not used yet when the loss was seen, so sealing goes on too.
    session.seal(sealing, KeySpec::Aes256, b"aad", b"text").unwrap();
    log_out();
    session.random(&mut [0; 32]).unwrap();
    session.status().unwrap();
}

pub fn sessions_that_the_token_closed_are_replaced(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (partition, mut session) = fixture.session();
    let mut second = partition.open_session().unwrap();
    let id = new_id();
    session.create(id, KIND, "sealing").unwrap();
    let sealed = session.seal(id, KeySpec::Aes256, b"aad", b"text").unwrap();

    raw::close_all_sessions(&fixture);
    for session in [&mut session, &mut second] {
        assert_eq!(session.open(id, KeySpec::Aes256, b"aad", &sealed).unwrap().expose(), b"text");
    }
    raw::close_all_sessions(&fixture);
    session.random(&mut [0; 32]).unwrap();
    // Nothing had happened when the loss was seen.
    raw::close_all_sessions(&fixture);
    session.destroy(id).unwrap();
    assert!(!second.exists(id).unwrap());
}

pub fn an_object_is_made_after_the_login_was_lost(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    raw::session(&fixture).logout().unwrap();
    let id = new_id();
    session.create(id, KIND, "sealing").unwrap();
    session.confirm(id, KIND).unwrap();
}

pub fn a_lost_login_is_never_taken_for_an_empty_token(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (partition, mut session) = fixture.session();
    let id = new_id();
    session.create(id, KIND, "sealing").unwrap();
    // It cannot log in again, so every answer has to be "I do not know".
    partition.forget_pin();
    raw::session(&fixture).logout().unwrap();
    let is_login_lost = |error: HsmError| assert_eq!(error.class(), ErrorClass::LoginLost, "{error}");
    is_login_lost(session.exists(id).unwrap_err());
    is_login_lost(session.objects().unwrap_err());
    is_login_lost(session.confirm(id, KIND).unwrap_err());
    is_login_lost(session.create(id, KIND, "again").unwrap_err());
    is_login_lost(session.destroy(id).unwrap_err());
    is_login_lost(session.seal(id, KeySpec::Aes256, b"", b"").unwrap_err());
    is_login_lost(session.status().unwrap_err());
}

pub fn a_pin_that_was_changed_is_tried_once_and_the_pool_gives_up(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, recorder) = fixture.pool();
    pool.call("status", soon(), |session| session.status()).unwrap();
    let other = raw::session(&fixture);
    other.set_pin(&AuthPin::from(USER_PIN), &AuthPin::from("user-pin-of-epoch-2")).unwrap();
    other.logout().unwrap();

    let error = pool.call("status", soon(), |session| session.status()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::PinIncorrect, "{error}");
    assert_eq!(pool.health(), Health::Failed { reason: FailureReason::PinIncorrect });
    // Ten wrong PINs would lock a token, or worse. None of these reaches it.
    let before = recorder.count("status");
    for _ in 0..20 {
        let error = pool.call("status", soon(), |session| session.status()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::PinIncorrect);
    }
    assert_eq!(recorder.count("status"), before);
    assert!(!pool.take_random(&mut [0; 1]));
    let _ = pool.stop();
    let new = fixture.module.open_partition(LABEL, &fixture.token.serial, pin("user-pin-of-epoch-2"));
    new.unwrap();
}

pub fn a_refused_pin_is_not_sent_again_by_any_session(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (partition, mut session) = fixture.session();
    let other = raw::session(&fixture);
    other.set_pin(&AuthPin::from(USER_PIN), &AuthPin::from("user-pin-of-epoch-2")).unwrap();
    other.logout().unwrap();

    // Only the first answer is the token's; the others come from us.
    let error = session.status().unwrap_err();
    assert!(matches!(&error, HsmError::PinRefused { source: Some(_) }), "{error}");
    for _ in 0..20 {
        assert!(matches!(session.status(), Err(HsmError::PinRefused { source: None })));
        assert!(matches!(partition.open_session(), Err(HsmError::PinRefused { source: None })));
    }
    partition.close();
    fixture.module.open_partition(LABEL, &fixture.token.serial, pin("user-pin-of-epoch-2")).unwrap();
}

pub fn without_a_pin_a_lost_login_stays_lost(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (partition, mut session) = fixture.session();
    partition.forget_pin();
    session.random(&mut [0; 32]).unwrap();
    raw::session(&fixture).logout().unwrap();
    let error = partition.open_session().map(|_| ()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::LoginLost, "{error}");
}

pub fn closing_logs_out_and_the_partition_opens_nothing_more(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (partition, mut session) = fixture.session();
    let other = raw::session(&fixture);
    let state = || other.get_session_info().unwrap().session_state();
    assert_eq!(state(), SessionState::RwUser);
    partition.close();
    assert_eq!(state(), SessionState::RwPublic);
    let error = partition.open_session().map(|_| ()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Stopped);

    // A session that was left over does not wake up under the next login.
    let next = fixture.open();
    eventually("the next login", || state() == SessionState::RwUser);
    assert_eq!(session.status().unwrap_err().class(), ErrorClass::Stopped);
    next.open_session().unwrap().status().unwrap();
}
