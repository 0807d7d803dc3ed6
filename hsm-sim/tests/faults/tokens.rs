//! Tokens that are pulled out, limited or locked by the control file.

use std::thread;
use std::time::Duration;

use cryptoki::error::RvError;
use cryptoki::session::{SessionState, UserType};
use cryptoki::types::AuthPin;

use crate::scene::{SO_PIN, Scene, USER_PIN, aes_key, draw, module, pin, refusal};

const AWAY: &str = "[[token]]\nslot = SLOT\npresent = false\n";
const BACK: &str = "[[token]]\nslot = SLOT\n";

#[test]
fn a_token_that_is_pulled_out_is_gone_until_it_is_back() {
    let scene = Scene::new("pulled out");
    let session = scene.user_session();
    aes_key(&session).expect("a key");
    scene.script(AWAY);
    assert_eq!(refusal(draw(&session)), RvError::DeviceRemoved);
    assert_eq!(refusal(draw(&session)), RvError::DeviceRemoved, "not only once");
    assert_eq!(refusal(session.get_session_info()), RvError::DeviceRemoved);
    assert!(!module().get_slot_info(scene.slot).expect("the slot is there").token_present());
    assert!(module().get_all_slots().expect("slots").contains(&scene.slot));
    assert!(!module().get_slots_with_token().expect("slots").contains(&scene.slot));
    assert_eq!(refusal(module().get_token_info(scene.slot)), RvError::TokenNotPresent);
    assert_eq!(refusal(module().get_mechanism_list(scene.slot)), RvError::TokenNotPresent);
    assert_eq!(refusal(module().open_rw_session(scene.slot)), RvError::TokenNotPresent);
    let attempt = module().init_token(scene.slot, &pin(SO_PIN), "again");
    assert_eq!(refusal(attempt), RvError::TokenNotPresent);

    scene.script(BACK);
    assert!(module().get_slots_with_token().expect("slots").contains(&scene.slot));
    assert_eq!(refusal(draw(&session)), RvError::SessionHandleInvalid, "the old session stays dead");
    let again = scene.session();
    assert_eq!(state_of(&again), SessionState::RwPublic, "nobody is logged in");
    again.login(UserType::User, Some(&pin(USER_PIN))).expect("login");
    assert_eq!(again.find_objects(&[]).expect("a search").len(), 1, "the key is still there");

    scene.script(AWAY);
    assert_eq!(refusal(draw(&again)), RvError::DeviceRemoved);
    assert_eq!(refusal(draw(&session)), RvError::SessionHandleInvalid, "it has ended before");
    scene.control.remove();
    assert_eq!(refusal(draw(&again)), RvError::SessionHandleInvalid, "it is back without a file, too");
}

#[test]
fn a_call_that_is_under_way_ends_with_its_token() {
    let scene = Scene::new("pulled out meanwhile");
    let hang = "[[rule]]\nfunctions = ['C_GenerateRandom']\naction = 'hang'\nhang_ms = 600000\n";
    for moment in ["before", "after"] {
        scene.script(BACK);
        let session = scene.session();
        scene.script(&format!("{hang}moment = '{moment}'\n"));
        let hanging = thread::spawn(move || draw(&session));
        thread::sleep(Duration::from_millis(40));
        scene.script(&format!("{AWAY}{hang}moment = '{moment}'\n"));
        assert_eq!(refusal(hanging.join().expect("no panic")), RvError::DeviceRemoved);
    }
}

#[test]
fn a_token_that_was_out_and_in_again_between_two_calls_has_lost_its_sessions() {
    let scene = Scene::new("insertions");
    let session = scene.user_session();
    scene.script("[[token]]\nslot = SLOT\ninsertion = 1\n");
    assert_eq!(refusal(draw(&session)), RvError::SessionHandleInvalid);
    let again = scene.session();
    assert_eq!(state_of(&again), SessionState::RwPublic);
    scene.script("[[token]]\nslot = SLOT\ninsertion = 1\nsession_count_max = 9\n");
    draw(&again).expect("the same insertion");
}

#[test]
fn a_slot_that_does_not_exist_is_not_made_by_the_file() {
    let scene = Scene::new("no such slot");
    scene.control.write("format = 1\n[[token]]\nslot = 4096\npresent = false\n");
    let nowhere = cryptoki::slot::Slot::try_from(4096_u64).expect("a slot number");
    assert_eq!(refusal(module().get_token_info(nowhere)), RvError::SlotIdInvalid);
}

#[test]
fn sessions_are_limited_and_the_limit_is_told() {
    let scene = Scene::new("session limit");
    scene.script("[[token]]\nslot = SLOT\nsession_count_max = 2\n");
    let first = scene.session();
    let _second = scene.session();
    assert_eq!(refusal(module().open_ro_session(scene.slot)), RvError::SessionCount);
    let info = module().get_token_info(scene.slot).expect("token info");
    assert_eq!(format!("{:?}", info.max_session_count()), "Max(2)");
    first.close().expect("closed");
    let _third = scene.session();
    assert_eq!(refusal(module().open_ro_session(scene.slot)), RvError::SessionCount);
    scene.control.remove();
    let _fourth = scene.session();
}

#[test]
fn a_locked_pin_is_refused_unseen_and_uncounted() {
    let scene = Scene::new("locked pins");
    let session = scene.session();
    let try_in = |role, text: &AuthPin| session.login(role, Some(text));
    scene.script("[[token]]\nslot = SLOT\nuser_pin_locked = true\n");
    let info = module().get_token_info(scene.slot).expect("token info");
    assert!(info.user_pin_locked() && !info.so_pin_locked());
    for text in ["wrong", USER_PIN] {
        assert_eq!(refusal(try_in(UserType::User, &pin(text))), RvError::PinLocked);
        assert_eq!(refusal(session.set_pin(&pin(text), &pin("another"))), RvError::PinLocked);
    }
    try_in(UserType::So, &pin(SO_PIN)).expect("the other PIN is not locked");
    session.logout().expect("logout");
    scene.script("[[token]]\nslot = SLOT\nso_pin_locked = true\n");
    assert!(module().get_token_info(scene.slot).expect("token info").so_pin_locked());
    assert_eq!(refusal(try_in(UserType::So, &pin(SO_PIN))), RvError::PinLocked);
    scene.control.remove();
    let info = module().get_token_info(scene.slot).expect("token info");
    assert!(!info.user_pin_locked() && !info.user_pin_count_low(), "nothing was counted");
    try_in(UserType::User, &pin(USER_PIN)).expect("the lock went with the file");
}

#[test]
fn a_scripted_token_says_so_in_its_hardware_version_and_nowhere_else() {
    let scene = Scene::new("recognisable");
    let told = || {
        let info = module().get_token_info(scene.slot).expect("token info");
        let (hardware, firmware) = (info.hardware_version(), info.firmware_version());
        let names = [info.label(), info.manufacturer_id(), info.model(), info.serial_number()];
        let same = (names.map(str::to_owned), (firmware.major(), firmware.minor()), info.login_required());
        ((hardware.major(), hardware.minor()), same)
    };
    let (unscripted, names) = told();
    assert_eq!(unscripted, (0, 1));
    scene.script("[[rule]]\nfunctions = ['C_Sign']\nslot = 4096\naction = 'crash'\n");
    assert_eq!(told(), ((0, 1), names.clone()), "scripted is another slot");
    for lines in [
        "[[rule]]\nfunctions = ['C_Sign']\naction = 'crash'\n",
        "[[rule]]\nfunctions = ['C_Sign']\nslot = SLOT\naction = 'crash'\n",
        "[[token]]\nslot = SLOT\n",
    ] {
        scene.script(lines);
        assert_eq!(told(), ((99, 0), names.clone()), "{lines}");
    }
    scene.control.remove();
    assert_eq!(told(), ((0, 1), names));
}

fn state_of(session: &cryptoki::session::Session) -> SessionState {
    session.get_session_info().expect("info").session_state()
}
