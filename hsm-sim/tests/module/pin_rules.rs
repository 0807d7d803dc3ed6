//! Counters, flags, and who may set which PIN, beyond the login itself.
#![expect(unsafe_code, reason = "some of these calls the safe wrapper does not let through")]

use cryptoki::error::RvError;
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki_sys as ck;

use crate::children::{self, Task};
use crate::harness::{SO_PIN, USER_PIN, init_token, log_in, master_key, module, pin, refusal, token};
use crate::raw::functions;

fn info(slot: Slot) -> TokenInfo {
    module().get_token_info(slot).expect("token info")
}

fn so_flags(slot: Slot) -> [bool; 3] {
    let info = info(slot);
    [info.so_pin_count_low(), info.so_pin_final_try(), info.so_pin_locked()]
}

fn user_flags(slot: Slot) -> [bool; 3] {
    let info = info(slot);
    [info.user_pin_count_low(), info.user_pin_final_try(), info.user_pin_locked()]
}

#[test]
fn a_wrong_pin_counts_wherever_it_is_given() {
    let slot = token("wrong everywhere");
    let session = module().open_rw_session(slot).expect("a session");
    let wrong = pin("wrong");
    // Of the user: four at login, four for a change without login, one for a change after login.
    for _ in 0..4 {
        assert_eq!(refusal(session.login(UserType::User, Some(&wrong))), RvError::PinIncorrect);
        assert_eq!(refusal(session.set_pin(&wrong, &pin("another"))), RvError::PinIncorrect);
    }
    assert_eq!(user_flags(slot), [true, false, false]);
    session.login(UserType::User, Some(&pin(USER_PIN))).expect("the right PIN takes it all back");
    assert_eq!(user_flags(slot), [false, false, false]);
    assert_eq!(refusal(session.set_pin(&wrong, &pin("another"))), RvError::PinIncorrect);
    assert_eq!(user_flags(slot), [true, false, false]);
    session.set_pin(&pin(USER_PIN), &pin(USER_PIN)).expect("a change with the right PIN does, too");
    assert_eq!(user_flags(slot), [false, false, false]);
    session.logout().expect("logout");

    // Of the security officer: login, change, initialisation.
    for _ in 0..4 {
        assert_eq!(refusal(session.login(UserType::So, Some(&wrong))), RvError::PinIncorrect);
    }
    assert_eq!(so_flags(slot), [true, false, false]);
    drop(session);
    for _ in 0..5 {
        assert_eq!(refusal(module().init_token(slot, &wrong, "again")), RvError::PinIncorrect);
    }
    assert_eq!(so_flags(slot), [true, true, false]);
    assert_eq!(user_flags(slot), [false, false, false], "counted apart");
    module().init_token(slot, &pin(SO_PIN), "again").expect("the last try is the right one");
    assert_eq!(so_flags(slot), [false, false, false]);
}

#[test]
fn the_tenth_wrong_initialisation_locks_the_token_for_good() {
    let slot = token("init lockout");
    for _ in 0..10 {
        assert_eq!(refusal(module().init_token(slot, &pin("wrong"), "again")), RvError::PinIncorrect);
    }
    assert_eq!(so_flags(slot), [true, false, true]);
    assert_eq!(refusal(module().init_token(slot, &pin(SO_PIN), "again")), RvError::PinLocked);
    assert_eq!(info(slot).label(), "init lockout", "nothing was initialised");
    log_in(slot).find_objects(&[]).expect("the user does not suffer for it");
}

#[test]
fn a_pin_that_the_token_would_not_take_costs_no_attempt_and_changes_nothing() {
    let slot = token("no attempt");
    let session = module().open_rw_session(slot).expect("a session");
    assert_eq!(refusal(session.set_pin(&pin("wrong"), &pin("abc"))), RvError::PinLenRange);
    assert_eq!(user_flags(slot), [false, false, false], "the old PIN was not looked at");
    session.login(UserType::So, Some(&pin(SO_PIN))).expect("login");
    for bad in ["abc", &"x".repeat(256)] {
        assert_eq!(refusal(session.init_pin(&pin(bad))), RvError::PinLenRange);
        assert_eq!(refusal(session.set_pin(&pin(SO_PIN), &pin(bad))), RvError::PinLenRange);
    }
    session.logout().expect("logout");
    session.login(UserType::User, Some(&pin(USER_PIN))).expect("the user's PIN is as it was");
    let fresh = *module().get_all_slots().expect("slots").last().expect("the fresh slot");
    assert_eq!(refusal(module().init_token(fresh, &pin("abc"), "short")), RvError::PinLenRange);
}

#[test]
fn the_security_officer_changes_only_their_own_pin_with_the_old_one() {
    let slot = token("officer's change");
    let session = module().open_rw_session(slot).expect("a session");
    session.login(UserType::So, Some(&pin(SO_PIN))).expect("login");
    assert_eq!(refusal(session.set_pin(&pin(USER_PIN), &pin("another"))), RvError::PinIncorrect);
    assert_eq!(so_flags(slot), [true, false, false], "it was tried as the officer's");
    assert_eq!(user_flags(slot), [false, false, false]);
    session.set_pin(&pin(SO_PIN), &pin("the officer's second")).expect("changed");
    session.logout().expect("logout");
    session.login(UserType::User, Some(&pin(USER_PIN))).expect("the user's PIN is another matter");
}

#[test]
fn the_users_pin_is_initialised_in_a_session_of_the_security_officer_only() {
    let slot = init_token("init pin");
    let public = module().open_rw_session(slot).expect("a session");
    assert_eq!(refusal(public.init_pin(&pin(USER_PIN))), RvError::UserNotLoggedIn);
    let read_only = module().open_ro_session(slot).expect("a read-only session");
    assert_eq!(refusal(read_only.init_pin(&pin(USER_PIN))), RvError::SessionReadOnly);
    drop(read_only);
    public.login(UserType::So, Some(&pin(SO_PIN))).expect("login");
    assert_eq!(public.get_session_info().expect("info").session_state(), SessionState::RwSecurityOfficer);
    public.init_pin(&pin(USER_PIN)).expect("given");
    assert!(info(slot).user_pin_initialized());
    let nobody = module().open_rw_session(init_token("no user")).expect("a session");
    let attempt = nobody.set_pin(&pin(USER_PIN), &pin("another"));
    assert_eq!(refusal(attempt), RvError::UserPinNotInitialized);
}

#[test]
fn a_new_pin_for_the_user_opens_what_the_old_one_did() {
    let slot = token("reset");
    let session = log_in(slot);
    master_key(&session, b"1");
    session.logout().expect("logout");
    init_pin_in(&session, "a new pin");
    let attempt = session.login(UserType::User, Some(&pin(USER_PIN)));
    assert_eq!(refusal(attempt), RvError::PinIncorrect);
    session.login(UserType::User, Some(&pin("a new pin"))).expect("login");
    assert_eq!(session.find_objects(&[]).expect("a search").len(), 1);
}

#[test]
fn users_that_are_neither_user_nor_officer_are_refused() {
    let slot = token("user types");
    let session = module().open_rw_session(slot).expect("a session");
    let mut text = USER_PIN.as_bytes().to_vec();
    let mut attempt = |user_type| {
        let login = functions().C_Login.expect("listed");
        // SAFETY: the PIN is as long as its length says.
        unsafe { login(session.handle(), user_type, text.as_mut_ptr(), text.len() as ck::CK_ULONG) }
    };
    assert_eq!(attempt(3), ck::CKR_USER_TYPE_INVALID);
    assert_eq!(attempt(ck::CK_USER_TYPE::MAX), ck::CKR_USER_TYPE_INVALID);
    assert_eq!(attempt(ck::CKU_CONTEXT_SPECIFIC), ck::CKR_OPERATION_NOT_INITIALIZED);
    assert_eq!(user_flags(slot), [false, false, false]);
}

#[test]
fn tokens_know_nothing_of_each_other() {
    let (one, other) = (token("one"), token("other"));
    let session = log_in(one);
    let elsewhere = module().open_rw_session(other).expect("a session");
    assert_eq!(elsewhere.get_session_info().expect("info").session_state(), SessionState::RwPublic);
    let key = master_key(&session, b"1");
    assert_eq!(refusal(elsewhere.destroy_object(key)), RvError::ObjectHandleInvalid);
    let wrong = elsewhere.login(UserType::User, Some(&pin("wrong")));
    assert_eq!(refusal(wrong), RvError::PinIncorrect);
    assert_eq!((user_flags(one), user_flags(other)), ([false; 3], [true, false, false]));
    assert_ne!(info(one).serial_number(), info(other).serial_number());
}

#[test]
fn a_login_ends_when_another_process_initialises_the_token_again() {
    let slot = token("taken over");
    let session = log_in(slot);
    let key = master_key(&session, b"1");
    children::start(Task::InitTokenAgain, slot).finish();
    assert_eq!(info(slot).label(), "from a child");
    assert_eq!(refusal(session.find_objects(&[])), RvError::DeviceRemoved);
    assert_eq!(refusal(session.destroy_object(key)), RvError::ObjectHandleInvalid);
    assert_eq!(refusal(session.set_pin(&pin(USER_PIN), &pin("another"))), RvError::DeviceRemoved);
    session.logout().expect("logout");
    let attempt = session.login(UserType::User, Some(&pin(USER_PIN)));
    assert_eq!(refusal(attempt), RvError::UserPinNotInitialized);
    init_pin_in(&session, USER_PIN);
    session.login(UserType::User, Some(&pin(USER_PIN))).expect("login to the new life");
    assert!(session.find_objects(&[]).expect("a search").is_empty());
}

fn init_pin_in(session: &Session, user_pin: &str) {
    session.login(UserType::So, Some(&pin(SO_PIN))).expect("login");
    session.init_pin(&pin(user_pin)).expect("given");
    session.logout().expect("logout");
}
