//! A token and the control file of this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

pub const SO_PIN: &str = "security officer's pin";
pub const USER_PIN: &str = "user's pin";
/// A file that appears is seen by calls that begin this much later.
pub const SEEN_AFTER: Duration = Duration::from_millis(8);

/// The token of one test, and the only one who writes the control file.
pub struct Scene {
    pub slot: Slot,
    pub control: Control,
    _turn: MutexGuard<'static, ()>,
}

/// A control file. Gone when dropped.
pub struct Control {
    path: PathBuf,
}

impl Scene {
    pub fn new(label: &str) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        module();
        Self { slot: token(label), control: Control::new(&token_directory()), _turn: turn }
    }

    pub fn session(&self) -> Session {
        module().open_rw_session(self.slot).expect("a session")
    }

    /// A session with the user logged in.
    pub fn user_session(&self) -> Session {
        let session = self.session();
        session.login(UserType::User, Some(&pin(USER_PIN))).expect("login");
        session
    }

    /// Puts these lines into force, for the slot of this scene where they say `SLOT`.
    pub fn script(&self, lines: &str) {
        self.control.write(&format!("format = 1\n{}", lines.replace("SLOT", &self.slot.id().to_string())));
    }
}

impl Control {
    pub fn new(directory: &Path) -> Self {
        Self { path: directory.join("control.toml") }
    }

    pub fn write(&self, text: &str) {
        let is_new = !self.path.exists();
        let incoming = self.path.with_extension("incoming");
        fs::write(&incoming, text).expect("written");
        fs::rename(&incoming, &self.path).expect("renamed");
        if is_new {
            std::thread::sleep(SEEN_AFTER);
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn remove(&self) {
        fs::remove_file(&self.path).expect("removed");
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.path.exists() {
            self.remove();
        }
    }
}

/// The shared object lies in the directory of this test binary, or one above.
pub fn load() -> Pkcs11 {
    let executable = std::env::current_exe().expect("the system knows this executable");
    let path = executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(hsm_sim::module_file_name()))
        .find(|path| path.exists())
        .expect("cargo builds the shared object together with its tests");
    Pkcs11::new(path).expect("the module loads")
}

pub fn initialize(module: &Pkcs11) -> Result<(), Error> {
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
}

/// The module over a directory of its own. In a child process the parent has chosen the directory.
pub fn module() -> &'static Pkcs11 {
    static MODULE: OnceLock<Pkcs11> = OnceLock::new();
    MODULE.get_or_init(|| {
        if std::env::var_os(hsm_sim::DIRECTORY_VARIABLE).is_none() {
            set_token_directory();
        }
        let module = load();
        initialize(&module).expect("the module initialises");
        module
    })
}

#[expect(unsafe_code, reason = "the module takes its directory from the environment")]
fn set_token_directory() {
    // SAFETY: this runs once, before the module is loaded; everything else in this process that reads
    // the environment does so through std, which has a lock for it.
    unsafe { std::env::set_var(hsm_sim::DIRECTORY_VARIABLE, new_directory()) };
}

/// Under `target`, because nothing runs at the end of a test binary that could remove it.
pub fn new_directory() -> PathBuf {
    let directory = tempfile::Builder::new().prefix("hsm-sim-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    directory.expect("a directory").keep()
}

pub fn token_directory() -> PathBuf {
    PathBuf::from(std::env::var_os(hsm_sim::DIRECTORY_VARIABLE).expect("set when the module was loaded"))
}

/// A token with both PINs.
pub fn token(label: &str) -> Slot {
    let slot = *module().get_all_slots().expect("slots").last().expect("the fresh slot");
    module().init_token(slot, &pin(SO_PIN), label).expect("the fresh slot is initialised");
    let session = module().open_rw_session(slot).expect("a session");
    session.login(UserType::So, Some(&pin(SO_PIN))).expect("the security officer logs in");
    session.init_pin(&pin(USER_PIN)).expect("the user gets a PIN");
    slot
}

pub fn pin(text: &str) -> AuthPin {
    AuthPin::new(text.into())
}

/// An AES key on the token, private.
pub fn aes_key(session: &Session) -> Result<ObjectHandle, Error> {
    let template = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::ValueLen(32.into()),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
    ];
    session.generate_key(&cryptoki::mechanism::Mechanism::AesKeyGen, &template)
}

/// A call without any effect.
pub fn draw(session: &Session) -> Result<(), Error> {
    session.generate_random_slice(&mut [0; 8])
}

/// The return code of a refusal.
pub fn refusal<T>(result: Result<T, Error>) -> RvError {
    match result {
        Err(Error::Pkcs11(code, _)) => code,
        Err(other) => panic!("not a refusal by the module: {other}"),
        Ok(_) => panic!("this was not refused"),
    }
}

/// Which of so many calls are refused, from 1.
pub fn refused_calls(count: u64, mut call: impl FnMut() -> Result<(), Error>) -> Vec<u64> {
    (1..=count).filter(|_| call().is_err()).collect()
}
