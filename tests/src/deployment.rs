//! A deployment made and run by `kms-server dev` in a folder of its own.

use crate::binaries;
use crate::command::{Finished, Started, kill};
use kms_core::bundle::{Bundle, SignedBundle};
use kms_core::codec;
use kms_core::suite::Suite;
use rustix::process::Signal;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a start may take: keys are made, two custodians open the node.
const START_MAX: Duration = Duration::from_secs(60);
/// How long an orderly end may take: running calls, sealing, the last record.
const END_MAX: Duration = Duration::from_secs(40);
/// How often another port is tried.
const PORT_TRIES: u32 = 5;
/// The state folder inside the deployment's folder.
const STATE: &str = ".kms-dev";

/// Which PKCS#11 module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// The project's own simulator.
    Sim,
    /// SoftHSM.
    SoftHsm,
}

/// What a deployment is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The PKCS#11 module.
    pub module: Module,
    /// The suite.
    pub suite: Suite,
    /// Start with `--seal`.
    pub sealed: bool,
    /// More environment variables of the server, for example a scripted fault.
    pub environment: Vec<(OsString, OsString)>,
}

impl Default for Options {
    /// The simulator, the SM suite, unsealed.
    fn default() -> Self {
        Self { module: Module::Sim, suite: Suite::Sm, sealed: false, environment: Vec::new() }
    }
}

/// The server process, and a shell that ends it when this test process is gone, however that happened.
#[derive(Debug)]
struct Running {
    server: Child,
    watchdog: Child,
}

impl Running {
    /// Waits for the server's end. The watchdog ends first, so that it never meets a reused process id.
    fn reap(mut self) -> ExitStatus {
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        self.server.wait().expect("the server is a child of this process")
    }
}

/// A deployment. The server is killed when this is dropped.
#[derive(Debug)]
pub struct Deployment {
    options: Options,
    port: Mutex<u16>,
    running: Mutex<Option<Running>>,
    start_count: Mutex<u32>,
    janitor: Child,
    folder: TempDir,
}

impl Deployment {
    /// Makes a deployment and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready within a minute; the panic holds what the server said.
    pub fn start(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("kms-e2e-").tempdir().expect("a temporary folder");
        let deployment = Self {
            options,
            port: Mutex::new(free_port()),
            running: Mutex::new(None),
            start_count: Mutex::new(0),
            janitor: after_this_process(r#"sleep 1; rm -rf "$1""#, folder.path().as_os_str()),
            folder,
        };
        deployment.start_again();
        deployment
    }

    /// Starts the server of an existing deployment again and waits until it is ready.
    ///
    /// # Panics
    /// When it runs already or is not ready within a minute.
    pub fn start_again(&self) {
        if let Err(said) = self.try_start_with(&[]) {
            panic!("kms-server dev is not ready; it said\n{said}");
        }
    }

    /// Starts the server of an existing deployment again, with more environment variables for this start only.
    ///
    /// # Errors
    /// What the server said, when it ended before it was ready or was not ready within a minute.
    ///
    /// # Panics
    /// When it runs already.
    pub fn try_start_with(&self, environment: &[(OsString, OsString)]) -> Result<(), String> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_start(environment) {
                // Another program was faster between looking for a port and using it.
                Err(said) if said.contains("cannot listen on") && tries < PORT_TRIES => {
                    *lock(&self.port) = free_port();
                }
                result => return result,
            }
        }
    }

    fn try_start(&self, more_environment: &[(OsString, OsString)]) -> Result<(), String> {
        let mut running = lock(&self.running);
        assert!(running.is_none(), "the server runs already");
        let mut command = Command::new(binaries::program("kms-server"));
        command.args(["dev", "--state", STATE, "--listen", &self.address()]);
        command.args(["--suite", self.options.suite.name()]);
        if self.options.module == Module::SoftHsm {
            command.arg("--module").arg(binaries::softhsm());
        }
        if self.options.sealed {
            command.arg("--seal");
        }
        let one = self.spawn(&mut command, more_environment);
        let start = *lock(&self.start_count);
        let (out_path, err_path) = (self.output_file(start, "out"), self.output_file(start, "err"));
        *running = Some(one);
        let end = Instant::now() + START_MAX;
        let said = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        loop {
            if said(&out_path).contains("kms-server dev is ") {
                return Ok(());
            }
            let one = running.as_mut().expect("set just above");
            let has_ended = one.server.try_wait().expect("the server is a child").is_some();
            if has_ended || Instant::now() >= end {
                let _ = one.server.kill();
                running.take().map(Running::reap);
                return Err(said(&err_path));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Serves the deployment's files with `kms-server run` and another configuration, which `dev` has no settings
    /// for. Does not wait until it listens; it starts sealed.
    ///
    /// # Panics
    /// When it runs already or does not start.
    pub fn run_with(&self, configuration: &Path) {
        let mut running = lock(&self.running);
        assert!(running.is_none(), "the server runs already");
        let mut command = Command::new(binaries::program("kms-server"));
        command.arg("run").arg("--config").arg(configuration);
        // As `dev` sets it for itself.
        let (name, tokens) = self.token_environment();
        command.env(name, tokens);
        *running = Some(self.spawn(&mut command, &[]));
    }

    /// Where the PKCS#11 library finds the tokens.
    fn token_environment(&self) -> (OsString, OsString) {
        match self.options.module {
            Module::Sim => (hsm_sim::DIRECTORY_VARIABLE.into(), self.state("tokens").into()),
            Module::SoftHsm => ("SOFTHSM2_CONF".into(), self.state("softhsm2.conf").into()),
        }
    }

    /// Starts the server process, with what it says in files of its own, and its watchdog.
    fn spawn(&self, command: &mut Command, more_environment: &[(OsString, OsString)]) -> Running {
        let start = {
            let mut count = lock(&self.start_count);
            *count += 1;
            *count
        };
        let file =
            |kind| File::create(self.output_file(start, kind)).expect("a file for the server's output");
        let server = command
            .current_dir(self.folder.path())
            .envs(self.options.environment.iter().chain(more_environment).map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .expect("kms-server starts");
        let watchdog = after_this_process(r#"kill -9 "$1""#, OsStr::new(&server.id().to_string()));
        Running { server, watchdog }
    }

    fn output_file(&self, start: u32, kind: &str) -> PathBuf {
        self.folder.path().join(format!("server-{start}.{kind}"))
    }

    /// Waits until the server has ended by itself; `None` when it still runs after `time_max`.
    ///
    /// # Panics
    /// When it was not started.
    pub fn wait_until_ended(&self, time_max: Duration) -> Option<ExitStatus> {
        let mut running = lock(&self.running);
        let end = Instant::now() + time_max;
        while running.as_mut().expect("the server was started").server.try_wait().expect("a child").is_none()
        {
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        running.take().map(Running::reap)
    }

    /// The server's process id.
    ///
    /// # Panics
    /// When it was not started.
    pub fn server_id(&self) -> u32 {
        lock(&self.running).as_ref().expect("the server was started").server.id()
    }

    /// Ends the server with SIGTERM and waits for it.
    ///
    /// # Panics
    /// When it does not run or does not end in time.
    pub fn terminate(&self) -> ExitStatus {
        let mut one = lock(&self.running).take().expect("the server runs");
        kill(one.server.id(), Signal::TERM);
        let end = Instant::now() + END_MAX;
        while one.server.try_wait().expect("the server is a child").is_none() {
            if Instant::now() >= end {
                let _ = one.server.kill();
                one.reap();
                panic!("the server did not end within {} s of SIGTERM\n{}", END_MAX.as_secs(), self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        one.reap()
    }

    /// Ends the server with SIGKILL: what a power cut leaves behind.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&self) {
        let mut one = lock(&self.running).take().expect("the server runs");
        one.server.kill().expect("the server can be killed");
        one.reap();
    }

    /// An orderly end and a new start.
    ///
    /// # Panics
    /// As [`Deployment::terminate`] and [`Deployment::start_again`].
    pub fn restart(&self) {
        self.terminate();
        self.start_again();
    }

    /// Whether the server process still runs.
    pub fn is_running(&self) -> bool {
        let mut running = lock(&self.running);
        running.as_mut().is_some_and(|one| matches!(one.server.try_wait(), Ok(None)))
    }

    /// What the deployment was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The folder in which every command runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the state folder.
    pub fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(STATE).join(name)
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", lock(&self.port))
    }

    /// The metrics' address: the next port.
    pub fn metrics_address(&self) -> String {
        format!("127.0.0.1:{}", *lock(&self.port) + 1)
    }

    /// A client profile: `admin`, `app`, `auditor`, `custodian-1` to `custodian-3`.
    pub fn profile(&self, name: &str) -> PathBuf {
        self.state("profiles").join(format!("{name}.toml"))
    }

    /// A file of a custodian: `share`, `identity`, `passphrase`, `enrolment`.
    pub fn custodian_file(&self, name: &str, kind: &str) -> PathBuf {
        self.state("custodians").join(format!("{name}.{kind}"))
    }

    /// The bundle file.
    pub fn bundle_file(&self) -> PathBuf {
        self.state("ceremony/bundle.kms")
    }

    /// The bundle, verified.
    ///
    /// # Panics
    /// When it is none.
    pub fn bundle(&self) -> Bundle {
        let text = fs::read(self.bundle_file()).expect("the bundle can be read");
        let signed: SignedBundle = codec::open_armour(&text).expect("the bundle is one");
        signed.verify().expect("the bundle is signed")
    }

    /// Everything that the server said on its standard error, over all starts.
    pub fn log(&self) -> String {
        let last = *lock(&self.start_count);
        (1..=last).map(|start| self.log_of(start)).collect()
    }

    /// What the server said on its standard error since its last start.
    pub fn last_log(&self) -> String {
        let last = *lock(&self.start_count);
        self.log_of(last)
    }

    fn log_of(&self, start: u32) -> String {
        fs::read_to_string(self.output_file(start, "err")).unwrap_or_default()
    }

    /// Runs `kms` with a profile.
    #[track_caller]
    pub fn kms<A: AsRef<OsStr>>(&self, profile: &str, arguments: &[A]) -> Finished {
        let mut all: Vec<OsString> = vec!["--profile".into(), self.profile(profile).into()];
        all.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        Started::new(&binaries::program("kms"), &all, self.folder()).finish()
    }

    /// Starts `kms-ceremony`.
    pub fn start_ceremony<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Started {
        Started::new(&binaries::program("kms-ceremony"), arguments, self.folder())
    }

    /// Runs `kms-ceremony`.
    #[track_caller]
    pub fn ceremony<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Finished {
        self.start_ceremony(arguments).finish()
    }

    /// Runs `kms-ceremony` on the HSM host: with the deployment's tokens.
    #[track_caller]
    pub fn offline_ceremony<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Finished {
        let (program, environment) = (binaries::program("kms-ceremony"), [self.token_environment()]);
        Started::with_environment(&program, arguments, self.folder(), &environment).finish()
    }

    /// `command` of `kms-ceremony` with the options that name one custodian's files.
    pub fn as_custodian(&self, command: &[&str], name: &str) -> Vec<OsString> {
        let mut all: Vec<OsString> = command.iter().map(OsString::from).collect();
        let files = [
            ("--profile", self.profile(name)),
            ("--share", self.custodian_file(name, "share")),
            ("--identity", self.custodian_file(name, "identity")),
            ("--bundle", self.bundle_file()),
            ("--passphrase-file", self.custodian_file(name, "passphrase")),
            ("--share-passphrase-file", self.custodian_file(name, "passphrase")),
        ];
        for (option, path) in files {
            all.push(option.into());
            all.push(path.into());
        }
        all
    }

    /// Two custodians run the same command of `kms-ceremony` at the same time.
    #[track_caller]
    pub fn two_custodians(&self, command: &[&str]) -> [Finished; 2] {
        ["custodian-1", "custodian-2"]
            .map(|name| self.start_ceremony(&self.as_custodian(command, name)))
            .map(Started::finish)
    }

    /// The first two custodians open the node.
    #[track_caller]
    pub fn unseal(&self) {
        for finished in self.two_custodians(&["unseal", "--wait", "60"]) {
            finished.done();
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if let Some(mut one) = lock(&self.running).take() {
            let _ = one.server.kill();
            one.reap();
        }
        let _ = self.janitor.kill();
        let _ = self.janitor.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tests share deployments in statics, which are never dropped. A shell waits for the end of its standard input,
/// which the system closes when the test process ends, however that happens, and cleans up then.
fn after_this_process(script: &str, argument: &OsStr) -> Child {
    Command::new("sh")
        .args(["-c", &format!("read -r _; {script}"), "after-the-tests"])
        .arg(argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh starts")
}

/// A port that is free together with the next one, below those that the system hands out by itself.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 4_000).expect("below 4,000") * 2;
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (0..4_000)
        .map(|_| 20_000 + (first + NEXT.fetch_add(2, Ordering::Relaxed)) % 8_000)
        .find(|port| is_free(*port) && is_free(port + 1))
        .expect("a free port")
}
