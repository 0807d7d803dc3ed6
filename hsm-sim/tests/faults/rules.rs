//! What a rule does to the calls that it fits.

use std::thread;
use std::time::{Duration, Instant};

use cryptoki::error::RvError;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session, SessionState};

use crate::scene::{Scene, aes_key, draw, module, refusal, refused_calls};

const RANDOM_FAILS: &str =
    "[[rule]]\nfunctions = ['C_GenerateRandom']\naction = 'fail'\nerror = 'CKR_DEVICE_MEMORY'\n";

#[test]
fn an_error_comes_at_the_named_calls_and_nowhere_else() {
    let scene = Scene::new("named calls");
    let session = scene.session();
    scene.script(&format!("{RANDOM_FAILS}calls = [2, 5]\n"));
    assert_eq!(refused_calls(7, || draw(&session)), [2, 5]);
    scene.script(&format!("{RANDOM_FAILS}from_call = 3\n"));
    assert_eq!(refused_calls(5, || draw(&session)), [3, 4, 5]);
    scene.script(&format!("{RANDOM_FAILS}every = 3\n"));
    assert_eq!(refused_calls(7, || draw(&session)), [3, 6]);
    scene.script(RANDOM_FAILS);
    assert_eq!(refusal(draw(&session)), RvError::DeviceMemory);
    session.get_session_info().expect("another function");
    scene.control.remove();
    draw(&session).expect("nothing is scripted any more");
}

#[test]
fn a_rule_for_one_slot_leaves_the_others_alone() {
    let scene = Scene::new("one slot");
    let other = crate::scene::token("another slot");
    let (session, elsewhere) = (scene.session(), module().open_rw_session(other).expect("a session"));
    scene.script(&format!("{RANDOM_FAILS}slot = SLOT\ncalls = [2]\n"));
    assert_eq!(refused_calls(4, || draw(&elsewhere)), [] as [u64; 0]);
    assert_eq!(refused_calls(3, || draw(&session)), [2], "calls elsewhere were not counted");
}

#[test]
fn a_probability_repeats_with_its_seed() {
    let scene = Scene::new("probability");
    let session = scene.session();
    let refused = |head: &str| {
        scene.script(&format!("{head}\n{RANDOM_FAILS}probability = 0.4\n"));
        refused_calls(60, || draw(&session))
    };
    let first = refused("seed = 5");
    assert!((12..36).contains(&first.len()), "{first:?}");
    assert_ne!(refused("seed = 6"), first);
    assert_eq!(refused("seed = 5 # again"), first);
}

#[test]
fn every_function_can_fail_and_with_a_vendors_code() {
    let scene = Scene::new("every function");
    let session = scene.session();
    scene.script("[[rule]]\nfunctions = ['*']\nslot = SLOT\naction = 'fail'\nerror = '0x80000020'\n");
    assert_eq!(refusal(draw(&session)), RvError::VendorDefined(0x8000_0020));
    assert_eq!(refusal(session.get_session_info()), RvError::VendorDefined(0x8000_0020));
    assert_eq!(refusal(module().get_token_info(scene.slot)), RvError::VendorDefined(0x8000_0020));
    assert_eq!(refusal(module().get_slot_info(scene.slot)), RvError::VendorDefined(0x8000_0020));
    module().get_library_info().expect("this one has no slot");
    scene.script("[[rule]]\nfunctions = ['C_GetInfo']\naction = 'fail'\nerror = 'CKR_FUNCTION_FAILED'\n");
    assert_eq!(refusal(module().get_library_info()), RvError::FunctionFailed);
}

#[test]
fn an_answer_is_lost_before_the_work_or_after_it() {
    let scene = Scene::new("lost answers");
    let session = scene.user_session();
    let fail = "[[rule]]\nfunctions = ['C_GenerateKey']\naction = 'fail'\nerror = 'CKR_DEVICE_ERROR'\n";
    let keys = || session.find_objects(&[]).expect("a search").len();
    scene.script(&format!("{fail}moment = 'before'\n"));
    assert_eq!(refusal(aes_key(&session)), RvError::DeviceError);
    assert_eq!(keys(), 0, "the work was not done");
    scene.script(&format!("{fail}moment = 'after'\n"));
    assert_eq!(refusal(aes_key(&session)), RvError::DeviceError);
    assert_eq!(keys(), 1, "the work was done");
}

#[test]
fn delays_add_up_and_keep_to_their_cap() {
    let scene = Scene::new("delays");
    let session = scene.session();
    let delay = "[[rule]]\nfunctions = ['C_GenerateRandom']\naction = 'delay'\n";
    let took = || {
        let start = Instant::now();
        draw(&session).expect("late and right");
        start.elapsed()
    };
    scene.script(&format!("{delay}delay_us = 30000\n{delay}delay_us = 20000\nmoment = 'after'\n"));
    assert!(took() >= Duration::from_millis(50));
    scene.script(&format!("{delay}min_us = 10000\nmax_us = 20000\n"));
    assert!(took() >= Duration::from_millis(10));
    scene.script(&format!("{delay}mean_us = 600000000\nmax_us = 20000\n"));
    let capped = took();
    assert!(capped >= Duration::from_millis(20) && capped < Duration::from_secs(5), "{capped:?}");
}

#[test]
fn the_first_failure_ends_a_call_and_later_rules_have_counted_it() {
    let scene = Scene::new("order");
    let session = scene.session();
    let slow =
        "[[rule]]\nfunctions = ['C_GenerateRandom']\ncalls = [1, 2]\naction = 'delay'\ndelay_us = 9000000\n";
    let late =
        "[[rule]]\nfunctions = ['C_GenerateRandom']\ncalls = [3]\naction = 'fail'\nerror = 'CKR_CANCEL'\n";
    scene.script(&format!("{RANDOM_FAILS}calls = [1, 2]\n{slow}{late}"));
    let start = Instant::now();
    assert_eq!(refusal(draw(&session)), RvError::DeviceMemory);
    assert_eq!(refusal(draw(&session)), RvError::DeviceMemory);
    assert_eq!(refusal(draw(&session)), RvError::Cancel, "its third call");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_hanging_call_ends_after_its_time_or_when_its_rule_is_gone() {
    let scene = Scene::new("hang");
    let session = scene.session();
    let hang = "[[rule]]\nfunctions = ['C_GenerateRandom']\naction = 'hang'\n";
    scene.script(&format!("{hang}hang_ms = 40\n"));
    let start = Instant::now();
    draw(&session).expect("late and right");
    assert!(start.elapsed() >= Duration::from_millis(40));

    scene.script(hang);
    let other = scene.session();
    let hanging = thread::spawn(move || draw(&session));
    thread::sleep(Duration::from_millis(60));
    other.get_session_info().expect("other calls go on");
    scene.script(&format!("{hang}{RANDOM_FAILS}calls = [7]\n"));
    thread::sleep(Duration::from_millis(60));
    assert!(!hanging.is_finished(), "its rule is still in the file");
    scene.script(RANDOM_FAILS);
    hanging.join().expect("no panic").expect("it was let go and did its work");
}

#[test]
fn a_hanging_call_ends_with_the_file() {
    let scene = Scene::new("hang and no file");
    let session = scene.session();
    scene.script("[[rule]]\nfunctions = ['C_GenerateRandom']\naction = 'hang'\nmoment = 'after'\n");
    let hanging = thread::spawn(move || draw(&session));
    thread::sleep(Duration::from_millis(60));
    assert!(!hanging.is_finished());
    scene.control.remove();
    hanging.join().expect("no panic").expect("done");
}

#[test]
fn one_session_or_all_sessions_of_a_token_are_lost() {
    let scene = Scene::new("lost sessions");
    let (first, second, third) = (scene.user_session(), scene.session(), scene.session());
    scene.script("[[rule]]\nfunctions = ['C_GenerateRandom']\naction = 'lose_session'\ncalls = [1]\n");
    assert_eq!(refusal(draw(&first)), RvError::SessionHandleInvalid);
    assert_eq!(state_of(&second), SessionState::RwUser, "the login belongs to the token");
    scene.script("[[rule]]\nfunctions = ['C_GenerateRandom']\naction = 'lose_sessions'\ncalls = [1]\n");
    assert_eq!(refusal(draw(&second)), RvError::SessionHandleInvalid);
    assert_eq!(refusal(third.get_session_info()), RvError::SessionHandleInvalid);
    assert_eq!(state_of(&scene.session()), SessionState::RwPublic, "the login went with the last session");
}

#[test]
fn a_lost_login_takes_private_objects_and_leaves_the_session() {
    let scene = Scene::new("lost login");
    let session = scene.user_session();
    let key = aes_key(&session).expect("a key");
    scene.script("[[rule]]\nfunctions = ['C_EncryptInit']\naction = 'lose_login'\ncalls = [2]\n");
    encrypt(&session, key).expect("the first call");
    assert_eq!(encrypt(&session, key).err(), Some(RvError::KeyHandleInvalid));
    assert_eq!(state_of(&session), SessionState::RwPublic);
    assert!(session.find_objects(&[]).expect("a search").is_empty());
}

#[test]
fn a_corrupted_output_differs_by_one_bit() {
    let scene = Scene::new("corrupted");
    let session = scene.user_session();
    let key = aes_key(&session).expect("a key");
    let right = encrypt(&session, key).expect("a ciphertext");
    let corrupt = "[[rule]]\nfunctions = ['C_Encrypt']\naction = 'corrupt'\n";
    scene.script(&format!("{corrupt}calls = [2]\nbit = 9\n"));
    assert_eq!(encrypt(&session, key), Ok(right.clone()), "only calls that gave bytes are counted");
    let mut expected = right.clone();
    expected[1] ^= 2;
    assert_eq!(encrypt(&session, key), Ok(expected));

    scene.script(&format!("seed = 3\n{corrupt}"));
    let wrong = encrypt(&session, key).expect("a ciphertext");
    let difference: u32 = wrong.iter().zip(&right).map(|(one, other)| (one ^ other).count_ones()).sum();
    assert_eq!(difference, 1);
    let opened = with_gcm(|gcm| session.decrypt(gcm, key, &wrong));
    assert_eq!(refusal(opened), RvError::EncryptedDataInvalid, "GCM notices");
}

fn state_of(session: &Session) -> SessionState {
    session.get_session_info().expect("info").session_state()
}

fn encrypt(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, RvError> {
    match with_gcm(|gcm| session.encrypt(gcm, key, b"message")) {
        Ok(bytes) => Ok(bytes),
        refused => Err(refusal(refused)),
    }
}

fn with_gcm<T>(work: impl FnOnce(&Mechanism) -> T) -> T {
    let mut iv = [1; 12];
    work(&Mechanism::AesGcm(GcmParams::new(&mut iv, b"", 128.into()).expect("parameters")))
}
