//! Every way to damage a token on disk, and what somebody can forge who has no PIN.

use std::fs;
use std::path::Path;

use cryptoki::error::RvError;
use cryptoki::object::Attribute;
use cryptoki::session::UserType;
use sha2::{Digest, Sha256};

use crate::children::{self, Task};
use crate::disk::key_files;
use crate::harness::{
    SO_PIN, USER_PIN, directory_of, log_in, master_key, module, pin, refusal, token, with_aes_gcm,
};

// In a child, because the module says each refusal on stderr.
#[test]
fn every_flipped_byte_and_every_cut_is_refused_and_left_as_it_is() {
    let slot = token("every byte");
    master_key(&log_in(slot), b"1");
    let reports = children::start(Task::DamageEverything, slot).finish();
    let [state, key] = &reports[..] else { panic!("{reports:?}") };
    for (name, count) in [("state", state), ("key", key)] {
        assert!(count.parse::<usize>().expect("a count") > 300, "{name}: {count} ways");
    }
    let session = log_in(slot);
    assert_eq!(session.find_objects(&[]).expect("a search").len(), 1, "it was put back");
}

#[test]
fn a_token_under_a_forged_label_opens_for_nobody() {
    let slot = token("the real label");
    let state = directory_of(slot).join("state");
    let sound = fs::read(&state).expect("the state");
    fs::write(&state, forge(&sound, b"the real label", b"the fake label")).expect("forged");
    assert_eq!(module().get_token_info(slot).expect("sound to look at").label(), "the fake label");
    let session = module().open_rw_session(slot).expect("a session");
    let attempt = session.login(UserType::User, Some(&pin(USER_PIN)));
    assert_eq!(refusal(attempt), RvError::PinIncorrect);
    assert_eq!(refusal(session.login(UserType::So, Some(&pin(SO_PIN)))), RvError::PinIncorrect);
    fs::write(&state, &sound).expect("restored");
    session.login(UserType::User, Some(&pin(USER_PIN))).expect("under its own label");
}

#[test]
fn the_pins_of_another_token_do_not_open_this_one() {
    let (one, other) = (token("victim's token"), token("copied's token"));
    let key = master_key(&log_in(one), b"1");
    let state = directory_of(one).join("state");
    let foreign = fs::read(directory_of(other).join("state")).expect("the state of the other");
    fs::write(&state, &foreign).expect("replaced");
    let session = module().open_rw_session(one).expect("a session");
    session.login(UserType::User, Some(&pin(USER_PIN))).expect("it is the other token now");
    assert_eq!(refusal(session.find_objects(&[])), RvError::DeviceRemoved, "and its objects are not here");
    assert_eq!(refusal(session.destroy_object(key)), RvError::ObjectHandleInvalid);
}

#[test]
fn a_key_file_in_another_place_is_refused() {
    let (one, other) = (token("copied from"), token("copied to"));
    let (session, elsewhere) = (log_in(one), log_in(other));
    master_key(&session, b"1");
    master_key(&elsewhere, b"2");
    let (file, target) = (only_key_file(one), only_key_file(other));
    let content = fs::read(&file).expect("a key file");

    let second = file.with_file_name("0".repeat(32));
    fs::write(&second, &content).expect("copied under another name");
    assert_eq!(refusal(session.find_objects(&[])), RvError::DeviceError);
    fs::remove_file(&second).expect("removed");
    assert_eq!(session.find_objects(&[]).expect("a search").len(), 1);

    let foreign = target.with_file_name(file.file_name().expect("a name"));
    fs::write(&foreign, &content).expect("copied to another token");
    assert_eq!(refusal(elsewhere.find_objects(&[])), RvError::DeviceError);
    assert!(foreign.exists(), "and left as it is");
    fs::remove_file(&foreign).expect("removed");
    assert_eq!(elsewhere.find_objects(&[]).expect("a search").len(), 1);
}

#[test]
fn after_kill_9_an_object_is_the_old_one_or_the_new_one() {
    let slot = token("kill -9 and changes");
    let session = log_in(slot);
    let template = [
        Attribute::Token(true),
        Attribute::ValueLen(32.into()),
        Attribute::Encrypt(true),
        Attribute::Label(children::LABELS[0].to_vec()),
    ];
    session.generate_key(&cryptoki::mechanism::Mechanism::AesKeyGen, &template).expect("a key");
    for round in 0..10 {
        let mut child = children::start(Task::ChangeLabelForEver, slot);
        child.report().expect("it works");
        std::thread::sleep(std::time::Duration::from_millis(2 * round));
        child.kill();
        let keys = session.find_objects(&[]).expect("a search");
        let [key] = keys[..] else { panic!("one key, not {}", keys.len()) };
        let is_labelled = |label: &[u8]| {
            !session.find_objects(&[Attribute::Label(label.to_vec())]).expect("a search").is_empty()
        };
        assert!(children::LABELS.iter().any(|label| is_labelled(label)), "round {round}");
        with_aes_gcm([1; 12], b"", |gcm| session.encrypt(gcm, key, b"x").expect("the key works"));
    }
}

#[test]
fn after_kill_9_a_token_is_as_before_the_initialisation_or_as_after_it() {
    let slot = token("kill -9 and init");
    for round in 0..10 {
        let mut child = children::start(Task::InitTokenForEver, slot);
        child.report().expect("it works");
        std::thread::sleep(std::time::Duration::from_millis(2 * round));
        child.kill();
        let info = module().get_token_info(slot).expect("the token is sound");
        assert!(["odd", "even"].contains(&info.label()), "{}", info.label());
        assert!(!info.user_pin_initialized());
        let session = module().open_rw_session(slot).expect("a session");
        session.login(UserType::So, Some(&pin(SO_PIN))).expect("the PIN is the same all the time");
        assert!(session.find_objects(&[]).expect("a search").is_empty());
    }
    module().init_token(slot, &pin(SO_PIN), "again").expect("it can be initialised");
    let generations = fs::read_dir(directory_of(slot)).expect("listed").flatten();
    let generations = generations.filter(|entry| entry.file_name().to_string_lossy().starts_with("objects-"));
    assert_eq!(generations.count(), 1, "what the dead processes left was swept");
}

#[test]
fn what_another_process_makes_and_changes_is_seen_at_once() {
    let slot = token("seen at once");
    let session = log_in(slot);
    let count = || session.find_objects(&[]).expect("a search").len();
    assert_eq!(count(), 0);
    children::start(Task::CreateOneKey, slot).finish();
    assert_eq!(count(), 1);
    // Long enough for the module to trust the time of the file, and to keep what it has read.
    std::thread::sleep(std::time::Duration::from_millis(3_100));
    let labelled =
        |label: &[u8]| session.find_objects(&[Attribute::Label(label.to_vec())]).expect("a search").len();
    assert_eq!((labelled(children::LABELS[0]), labelled(children::LABELS[1])), (1, 0));
    children::start(Task::ChangeLabelOnce, slot).finish();
    assert_eq!((labelled(children::LABELS[0]), labelled(children::LABELS[1])), (0, 1));
}

/// What the child of the first test does, over one token and then over one of its keys.
pub fn damage_everything(slot: cryptoki::slot::Slot) -> [usize; 2] {
    let state = damage_each_way(&directory_of(slot).join("state"), || {
        assert_eq!(refusal(module().get_token_info(slot)), RvError::DeviceError);
        assert_eq!(refusal(module().init_token(slot, &pin(SO_PIN), "again")), RvError::DeviceError);
    });
    let session = log_in(slot);
    let key = damage_each_way(&only_key_file(slot), || {
        assert_eq!(refusal(session.find_objects(&[])), RvError::DeviceError);
    });
    [state, key]
}

fn damage_each_way(path: &Path, refused: impl Fn()) -> usize {
    let sound = fs::read(path).expect("a file");
    let flips = (0..sound.len()).flat_map(|position| [(position, 0x01), (position, 0x80), (position, 0xff)]);
    let flipped = flips.map(|(position, mask)| {
        let mut damaged = sound.clone();
        damaged[position] ^= mask;
        damaged
    });
    let cut = (0..sound.len()).map(|len| sound[..len].to_vec());
    let longer = [vec![0], vec![0xff; 100], sound.clone()].map(|tail| [&sound[..], &tail].concat());
    let mut count = 0;
    for damaged in flipped.chain(cut).chain(longer) {
        fs::write(path, &damaged).expect("damaged");
        refused();
        assert_eq!(fs::read(path).expect("still there"), damaged, "it was overwritten");
        count += 1;
    }
    fs::write(path, &sound).expect("restored");
    count
}

fn only_key_file(slot: cryptoki::slot::Slot) -> std::path::PathBuf {
    let mut files = key_files(slot);
    assert_eq!(files.len(), 1);
    files.remove(0)
}

/// The file with other bytes in its body and a digest that fits them.
fn forge(file: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut body = file[40..].to_vec();
    let place = body.windows(old.len()).position(|window| window == old).expect("it is in the clear");
    body[place..place + new.len()].copy_from_slice(new);
    [&file[..8], &Sha256::digest(&body)[..], &body].concat()
}
