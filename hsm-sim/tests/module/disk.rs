//! What is on disk: after damage, after a crash, and beside other processes.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cryptoki::error::RvError;
use cryptoki::object::{Attribute, AttributeType, KeyType};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;

use crate::children::{self, KEYS_PER_CHILD, OTHER_PIN, Task};
use crate::harness::{
    SO_PIN, USER_PIN, directory_of, known_key, log_in, master_key, module, pin, refusal, token,
    token_directory, with_aes_gcm,
};

#[test]
fn without_a_directory_the_module_does_not_initialise() {
    let not_a_directory = std::env::current_exe().expect("a file");
    for directory in [None, Some(not_a_directory.as_os_str()), Some("/nonexistent".as_ref())] {
        let child = children::start_with_directory(Task::InitializeOnly, 0, directory);
        let reports = child.finish();
        assert_eq!(reports, [RvError::GeneralError.to_string()]);
    }
}

#[test]
fn a_damaged_token_is_refused_and_left_as_it_is() {
    let slot = token("damaged");
    let state = directory_of(slot).join("state");
    let sound = fs::read(&state).expect("the state of the token");
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    let mut longer = sound.clone();
    longer.push(0);
    let cut = sound[..sound.len() - 1].to_vec();
    for damaged in [Vec::new(), b"of another program".to_vec(), sound[..8].to_vec(), cut, longer, flipped] {
        fs::write(&state, &damaged).expect("damaged");
        assert_eq!(refusal(module().get_token_info(slot)), RvError::DeviceError);
        assert_eq!(refusal(module().open_rw_session(slot)), RvError::DeviceError);
        assert_eq!(refusal(module().init_token(slot, &pin(SO_PIN), "again")), RvError::DeviceError);
        assert_eq!(fs::read(&state).expect("still there"), damaged);
    }
    fs::remove_file(&state).expect("removed");
    assert_eq!(refusal(module().init_token(slot, &pin(SO_PIN), "again")), RvError::DeviceError);
    fs::write(&state, &sound).expect("restored");
    log_in(slot);
}

#[test]
fn a_damaged_key_is_refused_and_left_as_it_is() {
    let slot = token("damaged key");
    let session = log_in(slot);
    master_key(&session, b"1");
    let file = key_files(slot).pop().expect("one key file");
    let sound = fs::read(&file).expect("the key file");
    let mut flipped = sound.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    for damaged in [Vec::new(), sound[..sound.len() / 2].to_vec(), flipped] {
        fs::write(&file, &damaged).expect("damaged");
        assert_eq!(refusal(session.find_objects(&[])), RvError::DeviceError, "not: there is no key");
        assert_eq!(fs::read(&file).expect("still there"), damaged);
    }
    fs::write(&file, &sound).expect("restored");
    assert_eq!(session.find_objects(&[]).expect("a search").len(), 1);
}

#[test]
fn no_private_value_is_on_disk_in_the_clear() {
    let slot = token("at rest");
    let session = log_in(slot);
    let value = *b"find me if you can, 32 bytes !!!";
    for (sensitive, extractable) in [(true, true), (true, false), (false, true)] {
        let uses =
            [Attribute::Token(true), Attribute::Sensitive(sensitive), Attribute::Extractable(extractable)];
        known_key(&session, KeyType::GENERIC_SECRET, &value, &uses);
    }
    let files = files_below(&directory_of(slot));
    assert!(files.len() >= 4, "the state and three keys");
    for file in files {
        let bytes = fs::read(&file).expect("readable");
        assert!(!contains(&bytes, &value[..8]), "{} holds the value", file.display());
        assert!(!contains(&bytes, USER_PIN.as_bytes()), "{} holds the PIN", file.display());
    }
}

#[test]
fn a_pin_that_another_process_changed_counts_at_once() {
    let slot = token("pin of another process");
    let session = log_in(slot);
    session.logout().expect("logout");
    children::start(Task::ChangeUserPin, slot).finish();
    let attempt = session.login(UserType::User, Some(&pin(USER_PIN)));
    assert_eq!(refusal(attempt), RvError::PinIncorrect, "the old PIN is dead");
    session.login(UserType::User, Some(&pin(OTHER_PIN))).expect("the new PIN");
}

#[test]
fn a_token_that_another_process_made_is_seen() {
    // In a directory of its own: the fresh slot of the shared one belongs to whoever comes first.
    let directory = tempfile::tempdir().expect("a directory");
    let slots: Vec<_> = (0..3)
        .flat_map(|_| {
            children::start_with_directory(Task::InitToken, 0, Some(directory.path().as_os_str())).finish()
        })
        .collect();
    assert_eq!(slots, ["1", "2", "3"], "each process saw what the ones before it did");
}

#[test]
fn a_key_that_another_process_destroyed_is_gone() {
    let slot = token("destroyed elsewhere");
    let session = log_in(slot);
    let key = master_key(&session, b"1");
    // Long enough for the module to trust the time of the file, and to keep what it has read.
    std::thread::sleep(Duration::from_millis(3_100));
    with_aes_gcm([1; 12], b"", |gcm| session.encrypt(gcm, key, b"x").expect("it is there"));
    with_aes_gcm([1; 12], b"", |gcm| session.encrypt(gcm, key, b"x").expect("it is there"));
    children::start(Task::DestroyAllKeys, slot).finish();
    let attempt = with_aes_gcm([1; 12], b"", |gcm| session.encrypt(gcm, key, b"x"));
    assert_eq!(refusal(attempt), RvError::KeyHandleInvalid);
    assert!(session.find_objects(&[]).expect("a search").is_empty());
}

#[test]
fn a_key_outlives_the_module_and_a_login_does_not() {
    let slot = token("finalised");
    assert_eq!(children::start(Task::FinalizeAndReturn, slot).finish(), ["1"]);
    assert_eq!(log_in(slot).find_objects(&[]).expect("a search").len(), 1);
}

#[test]
fn guesses_of_several_processes_at_once_are_all_counted() {
    let slot = token("guesses");
    let running: Vec<_> = (0..3).map(|_| children::start(Task::GuessThreeTimes, slot)).collect();
    let answers: Vec<_> = running.into_iter().flat_map(children::Running::finish).collect();
    assert_eq!(answers, vec![RvError::PinIncorrect.to_string(); 9]);
    let info = module().get_token_info(slot).expect("token info");
    assert!(info.user_pin_final_try(), "nine of ten attempts are spent");
}

#[test]
fn processes_that_create_at_the_same_time_lose_nothing() {
    let slot = token("side by side");
    let running: Vec<_> = (0..3).map(|_| children::start(Task::CreateKeys, slot)).collect();
    let reported: HashSet<_> = running.into_iter().flat_map(children::Running::finish).collect();
    assert_eq!(reported.len(), 3 * KEYS_PER_CHILD as usize);
    assert_eq!(ids_on(&log_in(slot)), reported);
}

#[test]
fn a_key_that_was_reported_survives_kill_9() {
    let slot = token("kill -9");
    let mut reported = HashSet::new();
    for round in 0..25 {
        let mut child = children::start(Task::CreateKeysForEver, slot);
        reported.extend(child.report());
        let until = Instant::now() + Duration::from_millis(3 * round);
        while Instant::now() < until {
            reported.extend(child.report());
        }
        reported.extend(child.kill());
    }
    let session = log_in(slot);
    let found = ids_on(&session);
    assert!(reported.len() >= 25, "every child made at least one key");
    assert!(found.is_superset(&reported), "lost: {:?}", reported.difference(&found));
    // One key per child may have been made without the child being able to say so.
    assert!(found.len() <= reported.len() + 25);
    for key in session.find_objects(&[]).expect("a search") {
        with_aes_gcm([1; 12], b"", |gcm| session.encrypt(gcm, key, b"x").expect("the key works"));
    }
}

#[test]
fn after_kill_9_a_pin_is_the_old_one_or_the_new_one() {
    let slot = token("kill -9 and pins");
    for round in 0..6 {
        let mut child = children::start(Task::ChangeUserPinForEver, slot);
        child.report().expect("it works");
        std::thread::sleep(Duration::from_millis(3 * round));
        child.kill();
        let session = module().open_rw_session(slot).expect("the token is sound");
        if session.login(UserType::User, Some(&pin(USER_PIN))).is_err() {
            session.login(UserType::User, Some(&pin(OTHER_PIN))).expect("then it is the other");
            session.set_pin(&pin(OTHER_PIN), &pin(USER_PIN)).expect("back");
        }
    }
    let left = fs::read_dir(directory_of(slot).join("incoming")).expect("listed").count();
    assert_eq!(left, 0, "what the dead processes left was swept");
}

#[test]
fn foreign_files_are_ignored_and_kept() {
    let slot = token("foreign files");
    let session = log_in(slot);
    master_key(&session, b"1");
    let objects = key_files(slot).pop().expect("one key file").parent().expect("a directory").to_owned();
    let foreign = [objects.join("README"), objects.join("0".repeat(31)), token_directory().join("slot-x")];
    for path in &foreign {
        fs::write(path, b"foreign").expect("written");
    }
    assert_eq!(session.find_objects(&[]).expect("a search").len(), 1);
    assert!(foreign.iter().all(|path| path.exists()));
}

fn ids_on(session: &Session) -> HashSet<String> {
    let objects = session.find_objects(&[]).expect("a search");
    let ids = objects.into_iter().map(|object| {
        let told = session.get_attributes(object, &[AttributeType::Id]).expect("readable");
        let [Attribute::Id(id)] = &told[..] else { panic!("no id: {told:?}") };
        String::from_utf8(id.clone()).expect("an id made by a child")
    });
    ids.collect()
}

pub fn key_files(slot: Slot) -> Vec<PathBuf> {
    let is_key = |path: &PathBuf| {
        let directory = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        directory.is_some_and(|name| name.starts_with("objects-"))
    };
    files_below(&directory_of(slot)).into_iter().filter(is_key).collect()
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
