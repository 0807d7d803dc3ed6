//! Who may log in, and what happens to those who guess.

use cryptoki::error::RvError;
use cryptoki::session::{SessionState, UserType};

use crate::harness::{SO_PIN, USER_PIN, init_token, module, pin, refusal, set_user_pin, token, user_session};

#[test]
fn a_wrong_pin_is_refused_and_counted() {
    let slot = token("wrong pin");
    let session = module().open_ro_session(slot).expect("a session");
    assert_eq!(refusal(session.login(UserType::User, Some(&pin("wrong")))), RvError::PinIncorrect);
    assert!(module().get_token_info(slot).expect("token info").user_pin_count_low());
    session.login(UserType::User, Some(&pin(USER_PIN))).expect("the right PIN");
    assert!(!module().get_token_info(slot).expect("token info").user_pin_count_low());
}

#[test]
fn the_tenth_wrong_pin_locks_the_user_out_until_the_security_officer_helps() {
    let slot = token("lockout");
    let session = module().open_rw_session(slot).expect("a session");
    for attempt in 1..=10 {
        let info = module().get_token_info(slot).expect("token info");
        assert_eq!(info.user_pin_final_try(), attempt == 10);
        assert_eq!(refusal(session.login(UserType::User, Some(&pin("wrong")))), RvError::PinIncorrect);
    }
    assert!(module().get_token_info(slot).expect("token info").user_pin_locked());
    assert_eq!(refusal(session.login(UserType::User, Some(&pin(USER_PIN)))), RvError::PinLocked);
    assert_eq!(refusal(session.set_pin(&pin(USER_PIN), &pin("another"))), RvError::PinLocked);

    session.login(UserType::So, Some(&pin(SO_PIN))).expect("the security officer logs in");
    session.init_pin(&pin("a new pin")).expect("a new PIN");
    session.logout().expect("logout");
    session.login(UserType::User, Some(&pin("a new pin"))).expect("the user is back");
}

#[test]
fn a_security_officer_who_guesses_wrong_ten_times_has_lost_the_token() {
    let slot = token("so lockout");
    let session = module().open_rw_session(slot).expect("a session");
    for _ in 0..10 {
        assert_eq!(refusal(session.login(UserType::So, Some(&pin("wrong")))), RvError::PinIncorrect);
    }
    assert_eq!(refusal(session.login(UserType::So, Some(&pin(SO_PIN)))), RvError::PinLocked);
    drop(session);
    assert_eq!(refusal(module().init_token(slot, &pin(SO_PIN), "again")), RvError::PinLocked);
    assert!(module().get_token_info(slot).expect("token info").so_pin_locked());
}

#[test]
fn a_pin_outside_the_allowed_lengths_is_refused() {
    let slot = token("pin lengths");
    let session = module().open_rw_session(slot).expect("a session");
    let too_long = "x".repeat(256);
    for bad in ["abc", &too_long] {
        assert_eq!(refusal(session.set_pin(&pin(USER_PIN), &pin(bad))), RvError::PinLenRange);
    }
    let longest = "x".repeat(255);
    session.set_pin(&pin(USER_PIN), &pin(&longest)).expect("255 bytes are allowed");
    session.login(UserType::User, Some(&pin(&longest))).expect("the longest PIN opens");
}

#[test]
fn a_user_without_a_pin_cannot_log_in() {
    let slot = init_token("no user pin");
    let session = module().open_rw_session(slot).expect("a session");
    let attempt = session.login(UserType::User, Some(&pin(USER_PIN)));
    assert_eq!(refusal(attempt), RvError::UserPinNotInitialized);
    assert!(!module().get_token_info(slot).expect("token info").user_pin_initialized());
}

#[test]
fn only_the_security_officer_gives_the_user_a_pin() {
    let session = user_session("init pin by user");
    assert_eq!(refusal(session.init_pin(&pin("another"))), RvError::UserNotLoggedIn);
}

#[test]
fn a_second_login_is_refused_before_its_pin_is_looked_at() {
    let session = user_session("second login");
    let slot = session.get_session_info().expect("session info").slot_id();
    let other = module().open_rw_session(slot).expect("a session");
    assert_eq!(refusal(other.login(UserType::User, Some(&pin("wrong")))), RvError::UserAlreadyLoggedIn);
    let attempt = other.login(UserType::So, Some(&pin(SO_PIN)));
    assert_eq!(refusal(attempt), RvError::UserAnotherAlreadyLoggedIn);
    assert!(!module().get_token_info(slot).expect("token info").user_pin_count_low());
}

#[test]
fn a_read_only_session_and_the_security_officer_exclude_each_other() {
    let slot = token("so and read-only");
    let session = module().open_rw_session(slot).expect("a session");
    let read_only = module().open_ro_session(slot).expect("a read-only session");
    let attempt = session.login(UserType::So, Some(&pin(SO_PIN)));
    assert_eq!(refusal(attempt), RvError::SessionReadOnlyExists);
    drop(read_only);
    session.login(UserType::So, Some(&pin(SO_PIN))).expect("no read-only session is left");
    assert_eq!(refusal(module().open_ro_session(slot)), RvError::SessionReadWriteSoExists);
}

#[test]
fn the_login_belongs_to_the_token_and_ends_with_its_last_session() {
    let slot = token("login state");
    let first = module().open_rw_session(slot).expect("a session");
    let second = module().open_ro_session(slot).expect("a second session");
    first.login(UserType::User, Some(&pin(USER_PIN))).expect("login");
    let state =
        |session: &cryptoki::session::Session| session.get_session_info().expect("info").session_state();
    assert_eq!(state(&first), SessionState::RwUser);
    assert_eq!(state(&second), SessionState::RoUser);
    drop(first);
    assert_eq!(state(&second), SessionState::RoUser);
    drop(second);
    let third = module().open_ro_session(slot).expect("a third session");
    assert_eq!(state(&third), SessionState::RoPublic);
    assert_eq!(refusal(third.logout()), RvError::UserNotLoggedIn);
}

#[test]
fn each_of_the_two_changes_the_pin_that_is_theirs() {
    let slot = token("set pin");
    let session = module().open_rw_session(slot).expect("a session");
    assert_eq!(refusal(session.set_pin(&pin("wrong"), &pin("another"))), RvError::PinIncorrect);
    session.set_pin(&pin(USER_PIN), &pin("user's second")).expect("without login: the user's");
    session.login(UserType::User, Some(&pin("user's second"))).expect("the second PIN");
    session.set_pin(&pin("user's second"), &pin("user's third")).expect("with login: the user's");
    session.logout().expect("logout");
    session.login(UserType::So, Some(&pin(SO_PIN))).expect("the security officer");
    session.set_pin(&pin(SO_PIN), &pin("officer's second")).expect("the security officer's");
    session.logout().expect("logout");
    assert_eq!(refusal(session.login(UserType::So, Some(&pin(SO_PIN)))), RvError::PinIncorrect);
    session.login(UserType::So, Some(&pin("officer's second"))).expect("the second PIN");
    session.logout().expect("logout");
    session.login(UserType::User, Some(&pin("user's third"))).expect("the third PIN");

    let read_only = module().open_ro_session(slot).expect("a read-only session");
    let attempt = read_only.set_pin(&pin("user's third"), &pin("fourth"));
    assert_eq!(refusal(attempt), RvError::SessionReadOnly);
}

#[test]
fn a_token_is_initialised_again_only_without_sessions_and_with_the_right_pin() {
    let slot = token("before");
    let serial = module().get_token_info(slot).expect("token info").serial_number().to_owned();
    assert_eq!(serial.len(), 16);
    let session = crate::harness::log_in(slot);
    crate::harness::master_key(&session, b"lost");
    assert_eq!(refusal(module().init_token(slot, &pin(SO_PIN), "after")), RvError::SessionExists);
    drop(session);
    assert_eq!(refusal(module().init_token(slot, &pin("wrong"), "after")), RvError::PinIncorrect);
    assert_eq!(module().get_token_info(slot).expect("token info").label(), "before");

    module().init_token(slot, &pin(SO_PIN), "after").expect("the right PIN");
    let info = module().get_token_info(slot).expect("token info");
    assert_eq!((info.label(), info.serial_number()), ("after", serial.as_str()));
    assert!(!info.user_pin_initialized());
    set_user_pin(slot, USER_PIN);
    let session = crate::harness::log_in(slot);
    assert!(session.find_objects(&[]).expect("a search").is_empty());
}

#[test]
fn a_new_token_keeps_its_slot_and_another_fresh_slot_appears() {
    let slot = init_token("stable slot");
    let info = module().get_token_info(slot).expect("token info");
    assert!(info.token_initialized());
    assert_eq!(info.label(), "stable slot");
    let slots = module().get_all_slots().expect("slots");
    let fresh = slots.last().expect("the fresh slot");
    assert_ne!(*fresh, slot);
    // Another test may take the fresh slot in between; a session on it is refused either way only
    // while it is fresh, so ask for the one after every token there can be.
    if !module().get_token_info(*fresh).expect("token info").token_initialized() {
        let attempt = module().open_ro_session(*fresh);
        assert!(attempt.is_ok() || refusal(attempt) == RvError::TokenNotRecognized);
    }
}
