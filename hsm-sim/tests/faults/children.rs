//! What happens in a process of its own. The parent starts this test binary again with a task in the
//! environment; the child reports in lines on stderr that begin with [`REPORT`].

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use cryptoki::session::UserType;

use crate::scene::{USER_PIN, aes_key, initialize, load, module, pin, refusal, token};

const TASK: &str = "HSM_SIM_TEST_TASK";
const REPORT: &str = "child reports: ";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    InitializeThreeTimes,
    MakeToken,
    GenerateKeys,
    CountKeys,
}

const TASKS: [Task; 4] = [Task::InitializeThreeTimes, Task::MakeToken, Task::GenerateKeys, Task::CountKeys];

#[derive(Debug)]
pub struct Ended {
    pub reports: Vec<String>,
    pub stderr: Vec<String>,
    pub signal: Option<i32>,
}

/// Runs a task over the tokens in a directory, to its end.
pub fn run(task: Task, directory: &Path) -> Ended {
    let output = Command::new(std::env::current_exe().expect("the system knows this executable"))
        .args(["--exact", "children::a_second_process_does_its_task", "--nocapture"])
        .env(TASK, format!("{task:?}"))
        .env(hsm_sim::DIRECTORY_VARIABLE, directory)
        .output()
        .expect("the child runs");
    let stderr: Vec<_> = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    let signal = output.status.signal();
    assert!(output.status.success() || signal.is_some(), "the child failed: {stderr:?}");
    let reports = stderr.iter().filter_map(|line| line.strip_prefix(REPORT)).map(str::to_owned).collect();
    Ended { reports, stderr, signal }
}

fn report(text: impl std::fmt::Display) {
    eprintln!("{REPORT}{text}");
}

#[test]
fn a_second_process_does_its_task() {
    // In the parent there is no task, and nothing to test.
    let Ok(name) = std::env::var(TASK) else { return };
    match TASKS.into_iter().find(|task| format!("{task:?}") == name).expect("a known task") {
        Task::InitializeThreeTimes => initialize_three_times(),
        Task::MakeToken => report(token("of a child").id()),
        Task::GenerateKeys => {
            let session = user_session();
            for number in 1.. {
                aes_key(&session).expect("a key");
                report(number);
            }
        }
        Task::CountKeys => report(user_session().find_objects(&[]).expect("a search").len()),
    }
}

fn initialize_three_times() {
    // Unloading the module would make it forget what it counted.
    let _stays_loaded = load();
    for _ in 0..3 {
        let module = load();
        let initialized = initialize(&module);
        if initialized.is_ok() {
            report("ok");
            module.finalize().expect("finalised");
        } else {
            report(refusal(initialized));
        }
    }
}

/// On the newest token.
fn user_session() -> cryptoki::session::Session {
    let slots = module().get_all_slots().expect("slots");
    let [.., newest, _fresh] = &slots[..] else { panic!("no token: {slots:?}") };
    let session = module().open_rw_session(*newest).expect("a session");
    session.login(UserType::User, Some(&pin(USER_PIN))).expect("login");
    session
}
