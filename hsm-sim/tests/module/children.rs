//! What happens in a second process. The parent starts this test binary again with a task in the
//! environment; the child reports in lines on stderr that begin with [`REPORT`].

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStderr, Command, Stdio};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::Attribute;
use cryptoki::session::UserType;
use cryptoki::slot::Slot;

use crate::harness::{self, USER_PIN, log_in, master_key, module, pin, refusal, token_directory};

const TASK: &str = "HSM_SIM_TEST_TASK";
const SLOT: &str = "HSM_SIM_TEST_SLOT";
const REPORT: &str = "child reports: ";

pub const OTHER_PIN: &str = "the other pin";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    InitializeOnly,
    InitToken,
    InitTokenAgain,
    InitTokenForEver,
    ChangeLabelOnce,
    ChangeLabelForEver,
    CreateOneKey,
    DamageEverything,
    ChangeUserPin,
    ChangeUserPinForEver,
    CreateKeys,
    CreateKeysForEver,
    DestroyAllKeys,
    FinalizeAndReturn,
    GuessThreeTimes,
}

const TASKS: [Task; 15] = [
    Task::InitializeOnly,
    Task::InitToken,
    Task::InitTokenAgain,
    Task::InitTokenForEver,
    Task::ChangeLabelOnce,
    Task::ChangeLabelForEver,
    Task::CreateOneKey,
    Task::DamageEverything,
    Task::ChangeUserPin,
    Task::ChangeUserPinForEver,
    Task::CreateKeys,
    Task::CreateKeysForEver,
    Task::DestroyAllKeys,
    Task::FinalizeAndReturn,
    Task::GuessThreeTimes,
];

/// Of different lengths, so that a mixture of two files would not be sound.
pub const LABELS: [&[u8]; 2] = [b"short", b"a label that is a good deal longer than the other one"];

pub const KEYS_PER_CHILD: u32 = 40;

/// A running child and its reports.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

/// Starts a child on the tokens of this process.
pub fn start(task: Task, slot: Slot) -> Running {
    start_with_directory(task, slot.id(), Some(token_directory().as_os_str()))
}

pub fn start_with_directory(task: Task, slot: u64, directory: Option<&OsStr>) -> Running {
    let mut command = Command::new(std::env::current_exe().expect("the system knows this executable"));
    command.args(["--exact", "children::a_second_process_does_its_task", "--nocapture"]);
    command.env(TASK, format!("{task:?}")).env(SLOT, slot.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    match directory {
        Some(directory) => command.env(harness::TOKENS, directory),
        None => command.env_remove(harness::TOKENS),
    };
    let mut child = command.spawn().expect("the child starts");
    let stderr = child.stderr.take().expect("it was piped");
    Running { child, lines: BufReader::new(stderr).lines() }
}

impl Running {
    /// The next report, or nothing if the child has ended.
    pub fn report(&mut self) -> Option<String> {
        self.lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix(REPORT).map(str::to_owned))
    }

    pub fn finish(mut self) -> Vec<String> {
        let reports = std::iter::from_fn(|| self.report()).collect();
        assert!(self.child.wait().expect("the child ends").success(), "the child failed");
        reports
    }

    /// `kill -9`, and what the child had reported by then.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("the child was alive");
        let reports = std::iter::from_fn(|| self.report()).collect();
        self.child.wait().expect("the child ends");
        reports
    }
}

fn report(text: impl std::fmt::Display) {
    eprintln!("{REPORT}{text}");
}

#[test]
fn a_second_process_does_its_task() {
    // In the parent there is no task, and nothing to test.
    let Ok(name) = std::env::var(TASK) else { return };
    let task = TASKS.into_iter().find(|task| format!("{task:?}") == name).expect("a known task");
    let slot = std::env::var(SLOT).expect("the parent names a slot").parse().expect("a number");
    if task == Task::InitializeOnly {
        let module = Pkcs11::new(harness::module_path()).expect("the module loads");
        report(refusal(module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))));
        return;
    }
    let slot: u64 = slot;
    let slot = Slot::try_from(slot).expect("a slot number");
    match task {
        Task::InitializeOnly => {}
        Task::InitToken => report(harness::init_token("from a child").id()),
        Task::InitTokenAgain => {
            module().init_token(slot, &pin(harness::SO_PIN), "from a child").expect("initialised");
        }
        Task::InitTokenForEver => loop {
            for label in ["odd", "even"] {
                module().init_token(slot, &pin(harness::SO_PIN), label).expect("initialised");
            }
            report("twice");
        },
        Task::ChangeLabelOnce => change_label(&log_in(slot), LABELS[1]),
        Task::ChangeLabelForEver => {
            let session = log_in(slot);
            loop {
                LABELS.iter().for_each(|label| change_label(&session, label));
                report("twice");
            }
        }
        Task::CreateOneKey => {
            let template = [
                Attribute::Token(true),
                Attribute::ValueLen(32.into()),
                Attribute::Label(LABELS[0].to_vec()),
            ];
            let made = log_in(slot).generate_key(&cryptoki::mechanism::Mechanism::AesKeyGen, &template);
            made.expect("a key");
        }
        Task::DamageEverything => crate::damage::damage_everything(slot).into_iter().for_each(report),
        Task::ChangeUserPin => change_pin(slot, USER_PIN, OTHER_PIN),
        Task::ChangeUserPinForEver => loop {
            change_pin(slot, USER_PIN, OTHER_PIN);
            change_pin(slot, OTHER_PIN, USER_PIN);
            report("twice");
        },
        Task::CreateKeys => (0..KEYS_PER_CHILD).for_each(|number| create_key(slot, number)),
        Task::CreateKeysForEver => (0..u32::MAX).for_each(|number| create_key(slot, number)),
        Task::DestroyAllKeys => {
            let session = log_in(slot);
            for key in session.find_objects(&[]).expect("a search") {
                session.destroy_object(key).expect("destroyed");
            }
        }
        Task::FinalizeAndReturn => finalize_and_return(slot),
        Task::GuessThreeTimes => {
            let session = module().open_rw_session(slot).expect("a session");
            for _ in 0..3 {
                report(refusal(session.login(UserType::User, Some(&pin("a guess")))));
            }
        }
    }
}

fn change_label(session: &cryptoki::session::Session, label: &[u8]) {
    let keys = session.find_objects(&[]).expect("a search");
    let [key] = keys[..] else { panic!("one key, not {}", keys.len()) };
    session.update_attributes(key, &[Attribute::Label(label.to_vec())]).expect("changed");
}

fn change_pin(slot: Slot, old: &str, new: &str) {
    let session = module().open_rw_session(slot).expect("a session");
    session.login(UserType::User, Some(&pin(old))).expect("login");
    session.set_pin(&pin(old), &pin(new)).expect("changed");
}

fn create_key(slot: Slot, number: u32) {
    let id = format!("{}-{number}", std::process::id());
    let session = log_in(slot);
    let key = master_key(&session, id.as_bytes());
    assert_eq!(session.find_objects(&[Attribute::Id(id.clone().into_bytes())]).expect("a search"), [key]);
    report(id);
}

fn finalize_and_return(slot: Slot) {
    let session = log_in(slot);
    master_key(&session, b"made before");
    let stale = session.handle();
    session.close().expect("closed");
    module().clone().finalize().expect("finalised");

    let again = Pkcs11::new(harness::module_path()).expect("the module loads");
    refusal(again.get_all_slots());
    again.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("initialised again");
    let session = again.open_rw_session(slot).expect("a session");
    assert_ne!(session.handle(), stale, "an old handle must not mean a new session");
    assert!(session.find_objects(&[]).expect("a search").is_empty(), "the login ended");
    session.login(UserType::User, Some(&pin(USER_PIN))).expect("login");
    report(session.find_objects(&[]).expect("a search").len());
}
