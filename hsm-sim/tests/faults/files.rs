//! Control files that come, go, and cannot be read.

use std::fs;

use cryptoki::error::RvError;

use crate::children::{Task, run};
use crate::scene::{Control, SEEN_AFTER, Scene, draw, module, new_directory, refusal, refused_calls};

const SECOND_FAILS: &str = "format = 1\n[[rule]]\nfunctions = ['C_GenerateRandom']\naction = 'fail'\n\
                            error = 'CKR_CANCEL'\ncalls = [2]\n";

#[test]
fn while_the_file_is_refused_every_call_is() {
    let scene = Scene::new("refused");
    let session = scene.session();
    scene.control.write("format = 1\nsede = 2\n");
    for _ in 0..3 {
        assert_eq!(refusal(draw(&session)), RvError::DeviceError);
    }
    assert_eq!(refusal(session.get_session_info()), RvError::DeviceError);
    assert_eq!(refusal(module().get_all_slots()), RvError::DeviceError);
    assert_eq!(refusal(module().get_library_info()), RvError::DeviceError);
    scene.control.write("format = 1\n");
    draw(&session).expect("a sound file that says nothing");
    scene.control.write("format = ");
    assert_eq!(refusal(draw(&session)), RvError::DeviceError);
    scene.control.remove();
    draw(&session).expect("no file");
}

#[test]
fn what_cannot_be_read_is_not_ignored() {
    let scene = Scene::new("unreadable");
    let session = scene.session();
    let path = scene.control.path();
    fs::create_dir(path).expect("a directory in its place");
    std::thread::sleep(SEEN_AFTER);
    assert_eq!(refusal(draw(&session)), RvError::DeviceError);
    fs::remove_dir(path).expect("removed");
    draw(&session).expect("no file");
    std::os::unix::fs::symlink("/nonexistent/control.toml", path).expect("a link");
    std::thread::sleep(SEEN_AFTER);
    assert_eq!(refusal(draw(&session)), RvError::DeviceError, "a link that leads nowhere");
    fs::remove_file(path).expect("removed");
    draw(&session).expect("no file");
    fs::write(path, "# too long\n".repeat(100_000)).expect("written");
    std::thread::sleep(SEEN_AFTER);
    assert_eq!(refusal(draw(&session)), RvError::DeviceError, "more than a mebibyte");
}

#[test]
fn a_refused_file_is_named_once_with_its_place_and_reason() {
    let directory = new_directory();
    let control = Control::new(&directory);
    control.write("format = 1\n[[rule]]\nfunctions = ['C_Sign']\naction = 'fail'\nprobability = 2.0\n");
    let ended = run(Task::InitializeThreeTimes, &directory);
    assert_eq!(
        ended.reports,
        [
            RvError::DeviceError.to_string(),
            RvError::DeviceError.to_string(),
            RvError::DeviceError.to_string()
        ]
    );
    let said: Vec<_> = ended.stderr.iter().filter(|line| line.starts_with("hsm-sim: ")).collect();
    let expected = format!("hsm-sim: {}: rule 1: probability: must be", control.path().display());
    assert!(matches!(&said[..], [line] if line.starts_with(&expected)), "{said:?}");
}

#[test]
fn initialising_goes_by_the_file_and_its_count_outlives_it() {
    let directory = new_directory();
    let control = Control::new(&directory);
    control.write(
        "format = 1\n[[rule]]\nfunctions = ['C_Initialize']\ncalls = [1, 3]\naction = 'fail'\n\
         error = 'CKR_HOST_MEMORY'\n",
    );
    let ended = run(Task::InitializeThreeTimes, &directory);
    assert_eq!(
        ended.reports,
        [RvError::HostMemory.to_string(), "ok".to_owned(), RvError::HostMemory.to_string()]
    );
}

#[test]
fn a_crash_ends_the_process_before_the_work_or_after_it() {
    let directory = new_directory();
    let control = Control::new(&directory);
    for (moment, keys_left) in [("before", "1"), ("after", "2")] {
        let keys_before = run(Task::MakeToken, &directory).reports;
        let crash = format!(
            "format = 1\n[[rule]]\nfunctions = ['C_GenerateKey']\ncalls = [2]\naction = 'crash'\n\
             moment = '{moment}'\n"
        );
        control.write(&crash);
        let ended = run(Task::GenerateKeys, &directory);
        assert_eq!(ended.signal, Some(6), "SIGABRT, after {keys_before:?}");
        assert_eq!(ended.reports, ["1"], "the first call came back");
        let said =
            ended.stderr.iter().any(|line| line.contains("rule 1 crashes the process in C_GenerateKey"));
        assert!(said, "{:?}", ended.stderr);
        control.remove();
        assert_eq!(run(Task::CountKeys, &directory).reports, [keys_left], "{moment}");
    }
}

#[test]
fn the_same_bytes_again_are_no_new_version() {
    let scene = Scene::new("same bytes");
    let session = scene.session();
    scene.control.write(SECOND_FAILS);
    draw(&session).expect("the first call");
    scene.control.write(SECOND_FAILS);
    assert_eq!(refusal(draw(&session)), RvError::Cancel, "the second call, not the first");
    scene.control.write(&format!("{SECOND_FAILS}# another version"));
    assert_eq!(refused_calls(4, || draw(&session)), [2], "counted anew");
}

#[test]
fn a_file_that_is_changed_in_place_within_one_tick_of_the_clock_is_seen() {
    let scene = Scene::new("in place");
    let session = scene.session();
    scene.control.write(SECOND_FAILS);
    for round in 0..50 {
        let call = 1 + round % 2;
        fs::write(scene.control.path(), SECOND_FAILS.replace("[2]", &format!("[{call}]"))).expect("written");
        assert_eq!(refused_calls(2, || draw(&session)), [call], "round {round}");
    }
}

#[test]
fn threads_share_one_count() {
    let scene = Scene::new("threads");
    scene.control.write(&SECOND_FAILS.replace("calls = [2]", "every = 10"));
    let slot = scene.slot;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let session = module().open_ro_session(slot).expect("a session");
                refused_calls(100, || draw(&session)).len()
            })
        })
        .collect();
    let refused: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    assert_eq!(refused, 40);
}

#[test]
fn without_a_file_not_every_call_looks_for_one() {
    let scene = Scene::new("cheap");
    let session = scene.session();
    let fails = SECOND_FAILS.replace("calls = [2]", "");
    let incoming = scene.control.path().with_extension("incoming");
    let seen_at_once = || {
        fs::write(&incoming, &fails).expect("written");
        // This call may look, and if it does the next one does not.
        draw(&session).expect("no file");
        fs::rename(&incoming, scene.control.path()).expect("renamed");
        let seen = draw(&session).is_err();
        scene.control.remove();
        // In case the file was seen: so is that it went.
        draw(&session).expect("no file");
        seen
    };
    assert!((0..20).any(|_| !seen_at_once()), "twenty calls in a row looked");
}
