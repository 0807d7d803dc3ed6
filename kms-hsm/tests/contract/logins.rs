//! The login: made once, found again when lost, never made on doubt.

use super::{
    Device, Fixture, LABEL, SO_PIN, USER_PIN, eventually, in_another_process, new_id, pin, raw, role, soon,
    tokens_folder,
};
use cryptoki::session::{SessionState, UserType};
use cryptoki::types::AuthPin;
use kms_core::id::HsmObjectId;
use kms_core::mac::MacAlgorithm;
use kms_core::suite::{AeadAlgorithm, Suite};
use kms_hsm::{
    ErrorClass, FailureReason, Health, HsmError, HsmModule, HsmPartition, ObjectKind, Pool, PoolOptions,
    Sealed,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const KIND: ObjectKind = ObjectKind::SealingKey(AeadAlgorithm::Aes256Gcm);

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
    session.create(mac, ObjectKind::MacKey(MacAlgorithm::HmacSha256), "mac").unwrap();
    let sealed = session.seal(sealing, AeadAlgorithm::Aes256Gcm, b"aad", b"text").unwrap();
    session.sign(signing, Suite::Intl, &[1; 32]).unwrap();
    let code = session.mac(mac, MacAlgorithm::HmacSha256, b"data").unwrap();

    let log_out = || raw::session(&fixture).logout().unwrap();
    log_out();
    assert_eq!(session.open(sealing, AeadAlgorithm::Aes256Gcm, b"aad", &sealed).unwrap().expose(), b"text");
    log_out();
    session.sign(signing, Suite::Intl, &[2; 32]).unwrap();
    log_out();
    assert!(session.mac(mac, MacAlgorithm::HmacSha256, b"data").unwrap().is_equal(code.expose()));
    log_out();
    // The key was not used yet when the loss was seen, so sealing goes on too.
    session.seal(sealing, AeadAlgorithm::Aes256Gcm, b"aad", b"text").unwrap();
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
    let sealed = session.seal(id, AeadAlgorithm::Aes256Gcm, b"aad", b"text").unwrap();

    raw::close_all_sessions(&fixture);
    for session in [&mut session, &mut second] {
        assert_eq!(session.open(id, AeadAlgorithm::Aes256Gcm, b"aad", &sealed).unwrap().expose(), b"text");
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
    is_login_lost(session.seal(id, AeadAlgorithm::Aes256Gcm, b"", b"").unwrap_err());
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

/// More wrong PINs than any of the devices allows.
const GUESS_COUNT: usize = 12;

/// Whoever else can reach the token can lock it. The login that is there goes on; a lost one is tried once, a new start of
/// service sees the lock before it sends the PIN, and the security officer ends it. SoftHSM never locks: there the next login
/// is one like any other.
pub fn a_pin_that_another_process_has_locked_ends_the_service_at_the_next_login(device: &dyn Device) {
    if role().is_some() {
        let module = HsmModule::open(&device.module_path(), device.choice()).unwrap();
        let token = module.find_token(LABEL).unwrap();
        for _ in 0..GUESS_COUNT {
            let refused = module.open_partition(LABEL, &token.serial, pin("a-wrong-user-pin"));
            assert!(refused.unwrap_err().is_pin_refused());
        }
        return;
    }
    let fixture = Fixture::new(device);
    let (pool, recorder) = fixture.pool();
    let status = || pool.call("status", soon(), |session| session.status());
    status().unwrap();
    in_another_process("guesses");
    assert_eq!(fixture.module.find_token(LABEL).unwrap().is_user_pin_locked, device.locks_pins());
    status().unwrap();
    raw::session(&fixture).logout().unwrap();
    let Err(error) = status() else {
        assert!(!device.locks_pins(), "a locked token takes no PIN");
        let _ = pool.stop();
        fixture.open();
        return;
    };
    assert!(device.locks_pins(), "{error}");
    assert_eq!(error.class(), ErrorClass::PinIncorrect, "{error}");
    assert_eq!(pool.health(), Health::Failed { reason: FailureReason::PinIncorrect });
    let asked = recorder.count("status");
    assert_eq!(status().unwrap_err().class(), ErrorClass::PinIncorrect);
    assert_eq!(recorder.count("status"), asked, "nothing reaches the token any more");
    let _ = pool.stop();

    let open = || fixture.module.open_partition(LABEL, &fixture.token.serial, pin(USER_PIN));
    let refused = open().unwrap_err();
    assert!(
        refused.is_pin_refused() && chain(&refused).contains("CKF_USER_PIN_LOCKED"),
        "{}",
        chain(&refused)
    );
    fixture.module.initialise_user_pin(&fixture.token, &pin(SO_PIN), &pin(USER_PIN)).unwrap();
    open().unwrap();
}

/// Everything that an error says, with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|error| format!("{error}; ")).collect()
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

pub fn watchful_pool(fixture: &Fixture, relogin_grace: Duration) -> Pool {
    let heartbeat = Duration::from_millis(20);
    let options = PoolOptions { workers: 2, heartbeat, relogin_grace, ..PoolOptions::default() };
    Pool::start(Arc::new(fixture.open()), options).unwrap()
}

pub fn seal(pool: &Pool, id: HsmObjectId) -> Result<Sealed, HsmError> {
    pool.call("seal", soon(), move |session| session.seal(id, AeadAlgorithm::Aes256Gcm, b"", b"text"))
}

/// Moves the folder of the tokens away, and gives where it is then.
pub fn take_tokens_away() -> PathBuf {
    let away = tokens_folder().with_extension("away");
    std::fs::rename(tokens_folder(), &away).unwrap();
    away
}

/// A token in a folder goes when the folder does. What a module answers then differs; SoftHSM keeps the login and says
/// that there are no objects.
pub fn while_a_token_is_away_no_key_is_reported_missing(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let pool = watchful_pool(&fixture, Duration::from_secs(600));
    let (id, fresh) = (new_id(), new_id());
    pool.call("create", soon(), move |session| session.create(id, KIND, "sealing")).unwrap();
    seal(&pool, id).unwrap();
    take_tokens_away();
    let is_retryable = |error: &HsmError| {
        matches!(
            error.class(),
            ErrorClass::TokenGone
                | ErrorClass::LoginLost
                | ErrorClass::DeviceSick
                | ErrorClass::RetryOnNewSession
                | ErrorClass::CircuitOpen
        )
    };
    for _ in 0..50 {
        let answers = [
            seal(&pool, id).map(|_| ()),
            pool.call("confirm", soon(), move |session| session.confirm(id, KIND)).map(|_| ()),
            pool.call("exists", soon(), move |session| session.exists(fresh)).map(|_| ()),
            pool.call("objects", soon(), |session| session.objects()).map(|_| ()),
            pool.call("create", soon(), move |session| session.create(fresh, KIND, "new")).map(|_| ()),
            pool.call("destroy", soon(), move |session| session.destroy(id)).map(|_| ()),
        ];
        for (number, answer) in answers.iter().enumerate() {
            match answer {
                // A key that was found before may go on working.
                Ok(()) => assert_eq!(number, 0, "nothing is said about the objects of a token that is gone"),
                Err(error) => assert!(is_retryable(error), "{number}: {error}"),
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn a_token_that_stays_away_is_given_up_after_the_grace(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let pool = watchful_pool(&fixture, Duration::from_millis(200));
    let id = new_id();
    pool.call("create", soon(), move |session| session.create(id, KIND, "sealing")).unwrap();
    take_tokens_away();
    eventually("the absence", || matches!(pool.health(), Health::Away { .. }));
    eventually("giving up", || pool.health() == Health::Failed { reason: FailureReason::StayedAway });
    assert_eq!(seal(&pool, id).unwrap_err().class(), ErrorClass::TokenGone);
}

/// Object handles are numbers that a token gives again: after a logout, or to another object.
pub fn handles_from_before_a_login_are_never_used_again(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (_partition, mut session) = fixture.session();
    let ids: Vec<_> = (0..4).map(|_| new_id()).collect();
    for id in &ids {
        session.create(*id, ObjectKind::MacKey(MacAlgorithm::HmacSha256), "mac").unwrap();
    }
    let macs: Vec<_> =
        ids.iter().map(|id| session.mac(*id, MacAlgorithm::HmacSha256, b"data").unwrap()).collect();
    raw::session(&fixture).logout().unwrap();
    // In another order, so that a token that numbers objects as they are found numbers them differently now.
    for (id, mac) in ids.iter().zip(&macs).rev() {
        assert!(session.mac(*id, MacAlgorithm::HmacSha256, b"data").unwrap().is_equal(mac.expose()));
    }
    session.destroy(ids[0]).unwrap();
    let fresh = new_id();
    session.create(fresh, ObjectKind::MacKey(MacAlgorithm::HmacSha256), "mac").unwrap();
    for (id, mac) in ids.iter().zip(&macs).skip(1) {
        assert!(session.mac(*id, MacAlgorithm::HmacSha256, b"data").unwrap().is_equal(mac.expose()));
        assert!(!session.mac(fresh, MacAlgorithm::HmacSha256, b"data").unwrap().is_equal(mac.expose()));
    }
    assert_eq!(
        session.mac(ids[0], MacAlgorithm::HmacSha256, b"data").err().map(|e| e.class()),
        Some(ErrorClass::NotFound)
    );
}

/// Peers need a restart here. Whatever a call meets in the middle, it is never told that its key is missing, and the
/// pool goes on. No call is under way at the moment of the loss: SoftHSM frees a session that another thread is using.
pub fn a_pool_survives_the_loss_of_every_session_again_and_again(device: &dyn Device) {
    let fixture = Fixture::new(device);
    let (pool, _) = fixture.pool_of(3);
    let id = new_id();
    pool.call("create", soon(), move |session| session.create(id, KIND, "sealing")).unwrap();
    let round_trip = || {
        pool.call("round trip", soon(), move |session| {
            let sealed = session.seal(id, AeadAlgorithm::Aes256Gcm, b"aad", b"text")?;
            session.open(id, AeadAlgorithm::Aes256Gcm, b"aad", &sealed)
        })
    };
    for round in 0..30 {
        if round % 2 == 0 {
            raw::close_all_sessions(&fixture);
        } else {
            raw::session(&fixture).logout().unwrap();
        }
        // One after the other: every worker meets its own loss, and the keeper looks in between.
        for _ in 0..12 {
            assert_eq!(round_trip().unwrap().expose(), b"text");
        }
        // The keeper is at rest again.
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(pool.health(), Health::Healthy);
}
